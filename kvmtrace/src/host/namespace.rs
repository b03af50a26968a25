//! The network namespace that is looked at, where the operator names one (`--netns`).
//!
//! Entered as ip-netns(8) does it: `setns`, then a mount namespace of our own with a `/sys` that shows the devices of the
//! network namespace. That has to happen before the process has threads.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// Where ip-netns(8) keeps names.
const NAMES: &str = "/run/netns";

/// A namespace could not be entered.
#[derive(Debug, thiserror::Error)]
pub enum NamespaceError {
    /// No such name or file.
    #[error("{name}: no such network namespace; `ip netns` lists the names")]
    Missing {
        /// What was typed.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused.
    #[error("{name}: can't enter this network namespace (it needs CAP_SYS_ADMIN)")]
    Refused {
        /// What was typed.
        name: String,
        /// Why.
        source: nix::Error,
    },
}

/// Where this process is, and where it came from.
#[derive(Debug)]
struct Entered {
    name: String,
    network: File,
    mounts: File,
}

static ENTERED: OnceLock<Entered> = OnceLock::new();

/// Enters a namespace by its name (`ip netns`) or path, once per process.
pub fn enter(name: &str) -> Result<(), NamespaceError> {
    let missing = |source| NamespaceError::Missing { name: name.to_owned(), source };
    let refused = |source| NamespaceError::Refused { name: name.to_owned(), source };
    let wanted = File::open(path(name)).map_err(missing)?;
    let (network, mounts) = (File::open("/proc/self/ns/net"), File::open("/proc/self/ns/mnt"));
    let entered =
        Entered { name: name.to_owned(), network: network.map_err(missing)?, mounts: mounts.map_err(missing)? };
    setns(&wanted, CloneFlags::CLONE_NEWNET).map_err(refused)?;
    unshare(CloneFlags::CLONE_NEWNS).map_err(refused)?;
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none).map_err(refused)?;
    // Where it can't be unmounted the new one lies over it.
    if let Err(error) = umount2("/sys", MntFlags::MNT_DETACH) {
        tracing::debug!(%error, "/sys stays below");
    }
    mount(Some(name), "/sys", Some("sysfs"), MsFlags::empty(), none).map_err(refused)?;
    // It is set once: a second call changes nothing that is told.
    let _before = ENTERED.set(entered);
    Ok(())
}

fn path(name: &str) -> PathBuf {
    if name.contains('/') { PathBuf::from(name) } else { Path::new(NAMES).join(name) }
}

/// The name or path of the namespace that was entered; none where this process started in it.
pub fn name() -> Option<&'static str> {
    ENTERED.get().map(|entered| entered.name.as_str())
}

/// Files of the namespaces that this process came from, for setns(2) in this order; none where it has left none.
pub fn way_back() -> Vec<std::ffi::OsString> {
    let file = |file: &File| format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()).into();
    ENTERED.get().map(|entered| vec![file(&entered.network), file(&entered.mounts)]).unwrap_or_default()
}

/// This process was not led here: it looks at the namespace that it started in.
pub fn is_own() -> bool {
    ENTERED.get().is_none()
}

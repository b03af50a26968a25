//! The host's network as it is now: devices, bridges, routes, neighbours, sysctls, counters, the firewall's rules, and
//! the guests with their interfaces. Everything is read, nothing is changed, no kernel module is loaded.
//!
//! Everything is of the network namespace that the calling thread is in.

mod bonds;
mod bridge;
mod changes;
mod configuration;
#[doc(hidden)]
pub mod fuzz;
mod guests;
mod json_rpc;
mod kernel_files;
mod links;
pub mod namespace;
mod netfilter;
pub(crate) mod netlink;
mod offloads;
mod overlay;
pub mod path;
mod policy;
mod switch;
mod tables;
#[cfg(test)]
pub(crate) mod test_hosts;
mod text_file;
mod traffic;

pub use changes::Changes;
pub use guests::elsewhere::{OtherNamespace, find as guests_elsewhere};
pub use netfilter::lister::{is_lister, serve as list_rules, start as start_lister};
pub use netfilter::nf_tables_is_present;

use crate::event::{HostState, bounds};
use netlink::Netlink;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

/// Devices that `kvmtrace probe` makes for its frames begin with this; they end with it and are no guest's.
pub const OWN_DEVICES: &str = "kvmtrace-p";

/// The host's network could not be read.
#[derive(Debug, thiserror::Error)]
pub enum HostError {
    /// No netlink socket.
    #[error("opening a netlink socket")]
    Open(#[source] io::Error),
    /// The devices, without which nothing else makes sense.
    #[error("listing the network devices over netlink")]
    Links(#[source] io::Error),
    /// The reading thread ended early.
    #[error("reading the host's network was interrupted")]
    Interrupted(#[source] tokio::task::JoinError),
}

/// The host as it is now.
pub async fn snapshot() -> Result<HostState, HostError> {
    let (state, (rules, missing)) = tokio::join!(network(), netfilter::read());
    let mut state = state?;
    state.netns = namespace::name().map(str::to_owned);
    state.conntrack_bound_fixed = is_fixed(Path::new("/proc/sys/net/netfilter/nf_conntrack_max"));
    state.netfilter = rules;
    state.missing.extend(missing);
    let names: Vec<String> = state.links.values().map(|link| link.name.clone()).collect();
    let sysctls = state.sysctls.clone();
    let configuration = tokio::task::spawn_blocking(move || {
        configuration::read(Path::new("/"), names.iter().map(String::as_str), &sysctls)
    });
    state.configuration = configuration.await.map_err(HostError::Interrupted)?;
    state.bound(bounds::ROOM);
    Ok(state)
}

/// A setting that nobody may write: the kernel shows it so where it belongs to another network namespace
/// (`nf_conntrack_standalone_init_sysctl`, `net/netfilter/nf_conntrack_standalone.c`).
fn is_fixed(setting: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::metadata(setting).is_ok_and(|metadata| metadata.permissions().mode() & 0o222 == 0)
}

/// Waits until the bridges know of every carrier that has just come or gone, so that what is read then lasts.
pub async fn settle() -> Result<(), HostError> {
    /// linkwatch runs once a second where nothing is urgent; a device may change again meanwhile.
    const PATIENCE: Duration = Duration::from_secs(2);
    const PAUSE: Duration = Duration::from_millis(50);
    let wait = || {
        let mut netlink = Netlink::open().map_err(HostError::Open)?;
        for _ in 0..PATIENCE.as_millis() / PAUSE.as_millis() {
            if !links::is_settling(&mut netlink).map_err(HostError::Links)? {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    };
    tokio::task::spawn_blocking(wait).await.map_err(HostError::Interrupted)?
}

/// The host as it is now, but for the firewall's rules, which stay those of `before`: the tools that tell them are the
/// slow part, and rules do not change with the network.
pub async fn refresh(before: &HostState) -> Result<HostState, HostError> {
    let mut state = network().await?;
    state.netfilter = before.netfilter.clone();
    state.configuration = before.configuration.clone();
    state.missing.extend(before.missing.iter().filter(|(what, _)| netfilter::tells(what)).cloned());
    state.bound(bounds::ROOM);
    Ok(state)
}

/// The time zone by its IANA name: what TZ says, else where /etc/localtime points to, else /etc/timezone (localtime(5)).
fn timezone() -> String {
    let set = std::env::var("TZ").ok().map(|name| name.trim_start_matches(':').to_owned());
    let linked = || {
        let target = std::fs::read_link("/etc/localtime").ok()?;
        target.to_str()?.split_once("zoneinfo/").map(|(_, name)| name.to_owned())
    };
    let named = || std::fs::read_to_string("/etc/timezone").ok().map(|name| name.trim().to_owned());
    let is_name = |name: &String| {
        !name.is_empty() && name.len() < 64 && name.chars().all(|c| c.is_ascii_alphanumeric() || "/_+-:".contains(c))
    };
    set.filter(is_name)
        .or_else(|| linked().filter(is_name))
        .or_else(|| named().filter(is_name))
        .unwrap_or_else(|| "UTC".to_owned())
}

/// The name servers that this host asks (resolv.conf(5)): those behind systemd-resolved, where that answers itself.
pub fn name_servers() -> Vec<IpAddr> {
    const BYTES: u64 = 64 << 10;
    let files = ["/run/systemd/resolve/resolv.conf", "/etc/resolv.conf"];
    let text = files.iter().find_map(|file| text_file::read(Path::new(file), BYTES)).unwrap_or_default();
    let servers = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    servers.take(8).collect()
}

async fn network() -> Result<HostState, HostError> {
    // A thread of the blocking pool is a child of this one and so shares its network namespace.
    tokio::task::spawn_blocking(read).await.map_err(HostError::Interrupted)?
}

/// What the kernel and the process table tell.
fn read() -> Result<HostState, HostError> {
    let mut netlink = Netlink::open().map_err(HostError::Open)?;
    let mut state = HostState { links: links::read(&mut netlink).map_err(HostError::Links)?, ..HostState::default() };
    let mut missing = Vec::new();
    let mut optional = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            missing.push((what.to_owned(), error.to_string()));
        }
    };
    optional("VLAN memberships", links::read_vlans(&mut netlink, &mut state.links));
    optional("bonds", bonds::read(&mut state, &mut netlink));
    optional("offloads", offloads::read(&mut state.links));
    let mut cut = None;
    let routes = tables::routes(&mut netlink).map(|routes| {
        if routes.all > routes.kept.len() as u64 {
            cut = Some(bounds::note(routes.all, routes.kept.len()));
        }
        state.routes = routes.kept;
    });
    optional("routes", routes);
    optional("rules of policy routing", policy::rules(&mut netlink).map(|rules| state.policy_rules = rules));
    optional("neighbours", tables::neighbours(&mut netlink).map(|neighbours| state.neighbours = neighbours));
    optional("proxied neighbours", tables::proxies(&mut netlink).map(|proxies| state.proxies = proxies));
    optional("duplicate addresses", links::duplicates(&mut netlink).map(|found| state.duplicates = found));
    optional("forwarding database", tables::forwarding(&mut netlink).map(|entries| state.forwarding = entries));
    optional("queueing disciplines", traffic::qdiscs(&mut netlink).map(|qdiscs| state.qdiscs = qdiscs));
    missing.extend(cut.map(|why| ("routes".to_owned(), why)));
    missing.extend(overlay::read(&mut state, &mut netlink));
    missing.extend(switch::read(&mut state));
    state.missing = missing;
    state.sysctls = kernel_files::sysctls(state.links.values().map(|link| link.name.as_str()));
    state.counters = kernel_files::counters();
    if let Ok(system) = nix::sys::utsname::uname() {
        state.name = system.nodename().to_string_lossy().into_owned();
        state.kernel = system.release().to_string_lossy().into_owned();
    }
    state.timezone = Some(timezone());
    guests::read(&mut state);
    Ok(state)
}

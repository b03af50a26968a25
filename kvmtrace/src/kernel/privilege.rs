//! What the process may do: checked before tracing, given up after attaching.

use super::confine::refuse_system_calls;
use caps::errors::CapsError;
use caps::{CapSet, Capability, CapsHashSet};
use std::time::Duration;

/// What tracing needs.
const NEEDED: [Capability; 3] = [Capability::CAP_BPF, Capability::CAP_NET_ADMIN, Capability::CAP_PERFMON];

/// What is kept while tracing: attaching to new guests, reading the host's state (`CAP_NET_ADMIN`), finding the
/// processes of guests (the rest).
const KEPT: [Capability; 7] = [
    Capability::CAP_BPF,
    Capability::CAP_NET_ADMIN,
    Capability::CAP_PERFMON,
    Capability::CAP_SYS_PTRACE,
    Capability::CAP_DAC_READ_SEARCH,
    Capability::CAP_DAC_OVERRIDE,
    Capability::CAP_SYSLOG,
];

/// What the firewall's tools need to list rules: sockets of netlink, raw ones (the older tools), and a lock in /run.
const OF_TOOLS: [Capability; 4] =
    [Capability::CAP_NET_ADMIN, Capability::CAP_NET_RAW, Capability::CAP_DAC_OVERRIDE, Capability::CAP_DAC_READ_SEARCH];

/// The process lacks a privilege.
#[derive(Debug, thiserror::Error)]
#[error("{missing} missing: tracing needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run it with sudo")]
pub struct MissingPrivilege {
    missing: String,
}

fn has(capability: Capability) -> bool {
    caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false)
}

/// The process may trace.
pub fn check() -> Result<(), MissingPrivilege> {
    // Before 5.8 there was CAP_SYS_ADMIN alone, and it still stands for the two.
    let missing: Vec<String> = NEEDED
        .into_iter()
        .filter(|needed| !has(*needed))
        .filter(|needed| *needed == Capability::CAP_NET_ADMIN || !has(Capability::CAP_SYS_ADMIN))
        .map(|needed| needed.to_string())
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(MissingPrivilege { missing: missing.join(" and ") }) }
}

/// A process that runs nothing but tools that list rules keeps what those need.
pub fn become_lister() -> Result<(), CapsError> {
    if nix::unistd::geteuid().is_root() {
        if has(Capability::CAP_SETPCAP) {
            bound(&OF_TOOLS)?;
        }
        return keep(&OF_TOOLS);
    }
    lend_to_own_tools()
}

/// Lets the tools that this process starts list rules. Root's have what they need; an ordinary user's would have nothing of
/// what kvmtrace was given.
pub fn lend_to_own_tools() -> Result<(), CapsError> {
    if nix::unistd::geteuid().is_root() {
        return Ok(());
    }
    for capability in OF_TOOLS.into_iter().filter(|capability| has(*capability)) {
        caps::raise(None, CapSet::Inheritable, capability)?;
        caps::raise(None, CapSet::Ambient, capability)?;
    }
    Ok(())
}

/// Gives up every capability but those that tracing goes on needing.
pub fn drop_unneeded() -> Result<(), CapsError> {
    caps::clear(None, CapSet::Inheritable)?;
    keep(&KEPT)
}

/// As [`drop_unneeded`], and no program that is started could get more: from here on none is started, and no system call works
/// that tracing does not need. For good, so this is for commands that do nothing but trace.
pub fn confine() -> Result<(), CapsError> {
    alone();
    if has(Capability::CAP_SETPCAP) {
        bound(&[])?;
    }
    drop_unneeded()?;
    if let Err(error) = nix::sys::prctl::set_no_new_privs().and_then(|()| refuse_system_calls()) {
        // A kernel without seccomp: tracing is none the worse for it.
        tracing::warn!(%error, "system calls can't be given up here");
    }
    Ok(())
}

/// Gives up every capability.
pub fn drop_all() -> Result<(), CapsError> {
    caps::clear(None, CapSet::Inheritable)?;
    keep(&[])
}

/// Capabilities are each thread's own. Those of the blocking pool end as soon as they have nothing to do, and later ones
/// begin with what this one has.
fn alone() {
    const PAUSE: Duration = Duration::from_millis(2);
    let threads = || std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count);
    for _ in 0..250 {
        if threads() <= 1 {
            return;
        }
        std::thread::sleep(PAUSE);
    }
    tracing::debug!("a thread keeps its capabilities until it ends");
}

/// Leaves only these, as far as they are there.
fn keep(kept: &[Capability]) -> Result<(), CapsError> {
    let left = |set| -> Result<CapsHashSet, CapsError> {
        Ok(caps::read(None, set)?.into_iter().filter(|capability| kept.contains(capability)).collect())
    };
    let effective = left(CapSet::Effective)?;
    let permitted = left(CapSet::Permitted)?;
    caps::set(None, CapSet::Effective, &effective)?;
    caps::set(None, CapSet::Permitted, &permitted)
}

/// No program that is started from here on gets more than these.
fn bound(kept: &[Capability]) -> Result<(), CapsError> {
    for capability in caps::read(None, CapSet::Bounding)? {
        if !kept.contains(&capability) {
            caps::drop(None, CapSet::Bounding, capability)?;
        }
    }
    Ok(())
}

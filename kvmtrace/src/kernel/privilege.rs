//! What the process may do: checked before tracing, given up after attaching.

use caps::{CapSet, Capability};

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

/// The process lacks a privilege.
#[derive(Debug, thiserror::Error)]
#[error("{missing} missing: tracing needs CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON; run it with sudo")]
pub struct MissingPrivilege {
    missing: String,
}

/// The process may trace.
pub fn check() -> Result<(), MissingPrivilege> {
    // Before 5.8 there was CAP_SYS_ADMIN alone, and it still stands for the two.
    let has = |capability| caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    let missing: Vec<String> = NEEDED
        .into_iter()
        .filter(|needed| !has(*needed))
        .filter(|needed| *needed == Capability::CAP_NET_ADMIN || !has(Capability::CAP_SYS_ADMIN))
        .map(|needed| needed.to_string())
        .collect();
    if missing.is_empty() { Ok(()) } else { Err(MissingPrivilege { missing: missing.join(" and ") }) }
}

/// Gives up every capability but those that tracing goes on needing. A command run by `--cmd` is started before.
pub fn drop_unneeded() -> Result<(), caps::errors::CapsError> {
    let kept = |set| -> Result<caps::CapsHashSet, caps::errors::CapsError> {
        Ok(caps::read(None, set)?.into_iter().filter(|capability| KEPT.contains(capability)).collect())
    };
    caps::clear(None, CapSet::Inheritable)?;
    let effective = kept(CapSet::Effective)?;
    let permitted = kept(CapSet::Permitted)?;
    caps::set(None, CapSet::Effective, &effective)?;
    caps::set(None, CapSet::Permitted, &permitted)
}

//! Whether our programs are still where they were attached, and whose others are there (tcx, 6.6 and later).
//!
//! Another program on a hook can end its chain, send the packet elsewhere or drop it. One before ours on the way out hides
//! packets from us, one behind ours on the way in hides them from the rest of the host. Anybody with the privilege can
//! detach a link of ours.

use super::hook::Hook;
use super::loader::{Attached, ProbeError, Programs};
use super::syscall::attached_programs;
use crate::event::{Degraded, IfIndex};
use kvmtrace_common::names;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Each device is looked at once in so many turns.
const TURNS: usize = 3;
/// Programs of others that are remembered.
const OTHERS: usize = 4_096;

/// What the hooks of the traced devices were like at the last look.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// The device that was looked at last.
    last: Option<IfIndex>,
    /// Programs of others that were reported.
    reported: BTreeSet<(IfIndex, Hook, u32)>,
    /// Names of programs, as far as they could be read: without privileges they can't.
    names: BTreeMap<u32, Option<String>>,
}

/// What a look at some devices came to.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Devices that lack a hook of ours, and which.
    pub(super) missing: BTreeMap<IfIndex, Vec<Hook>>,
    /// Programs of others that were not reported yet.
    pub(super) others: Vec<Degraded>,
}

impl Hooks {
    /// Looks at a part of the devices, so that all of them are seen in a few turns; at the start at `all`, while the process
    /// may still read names of programs.
    pub(super) fn look(
        &mut self,
        programs: &Programs,
        attached: &BTreeMap<IfIndex, (String, Attached)>,
        all: bool,
    ) -> Seen {
        let part = if all { attached.len() } else { attached.len().div_ceil(TURNS) };
        let after = self.last.map_or(IfIndex(0), |last| IfIndex(last.0.saturating_add(1)));
        let turn = attached.range(after..).chain(attached).take(part);
        let mut seen = Seen::default();
        for (index, (name, attached)) in turn {
            self.last = Some(*index);
            for hook in [Hook::Ingress, Hook::Egress] {
                let Some(own) = programs.id_at(attached, hook) else { continue };
                // Nothing is known of a device that has gone.
                let Ok(ids) = attached_programs(index.0, hook) else { continue };
                let position = ids.iter().position(|id| *id == own);
                if position.is_none() {
                    seen.missing.entry(*index).or_default().push(hook);
                }
                for (place, id) in ids.iter().enumerate().filter(|(_, id)| **id != own) {
                    if self.reported.len() >= OTHERS || !self.reported.insert((*index, hook, *id)) {
                        continue;
                    }
                    let program = self.names.entry(*id).or_insert_with(|| program_name(*id)).as_deref();
                    if program.is_none() && (is_of_another_trace(*id) || !is_there(index.0, hook, *id)) {
                        continue;
                    }
                    seen.others.extend(other(name, hook, (*id, program), position.is_some_and(|own| place < own)));
                }
            }
        }
        seen
    }
}

/// Hooks of ours were taken away; `again`: why they could not be attached again, if so.
pub(super) fn taken_away(device: &str, hooks: &[Hook], again: Option<&ProbeError>) -> Degraded {
    let hooks: Vec<String> = hooks.iter().map(ToString::to_string).collect();
    let after = match again {
        None => "it is attached again, and packets of some two seconds are missing".to_owned(),
        Some(error) => error.to_string(),
    };
    let why = format!("somebody took away kvmtrace's hook at its {}: {after}", hooks.join(" and "));
    Degraded { what: format!("device {device}"), why }
}

/// A program of others; nothing when it is one of another kvmtrace, which lets all packets pass.
fn other(device: &str, hook: Hook, (id, name): (u32, Option<&str>), before: bool) -> Option<Degraded> {
    let name = name.unwrap_or("without a name");
    let ours = [names::TC_INGRESS, names::TC_EGRESS, names::TC_INGRESS_RAW, names::TC_EGRESS_RAW];
    if ours.contains(&name) {
        return None;
    }
    let why = match (hook, before) {
        (_, true) => {
            "runs before kvmtrace there: packets that it drops, sends elsewhere or accepts at once are not seen"
        }
        (Hook::Ingress, false) => "runs after kvmtrace there: packets that it sends elsewhere seem to be lost",
        (Hook::Egress, false) => "runs after kvmtrace there: packets that it takes away seem to have left",
    };
    Some(Degraded {
        what: format!("device {device}"),
        why: format!("the BPF program {name} (id {id}) at its {hook} {why}"),
    })
}

/// The name of a loaded program; none where it has none, or where it may not be read.
fn program_name(id: u32) -> Option<String> {
    let found = aya::programs::loaded_programs().filter_map(Result::ok).find(|program| program.id() == id)?;
    found.name_as_str().map(str::to_owned)
}

/// The program is on this hook now. Another kvmtrace may have ended while its processes were looked at.
fn is_there(device: u32, hook: Hook, id: u32) -> bool {
    attached_programs(device, hook).is_ok_and(|ids| ids.contains(&id))
}

/// A process that runs a kvmtrace holds the program's link. A confined trace can read no names of programs, but what
/// other processes hold.
fn is_of_another_trace(id: u32) -> bool {
    let Some(own) = std::env::current_exe().ok().and_then(|path| executable(&path)) else { return false };
    let processes = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let traces = processes.map(|process| process.path()).filter(|process| {
        std::fs::read_link(process.join("exe")).is_ok_and(|path| executable(&path).as_ref() == Some(&own))
    });
    traces
        .flat_map(|process| std::fs::read_dir(process.join("fdinfo")).into_iter().flatten())
        .filter_map(|file| std::fs::read_to_string(file.ok()?.path()).ok())
        .any(|text| is_link_of(&text, id))
}

/// The name of an executable; one that was replaced by a newer version keeps it.
fn executable(path: &Path) -> Option<String> {
    let name = path.file_name()?.to_str()?;
    Some(name.strip_suffix(" (deleted)").unwrap_or(name).to_owned())
}

/// This is a tcx link of the program (`bpf_link_show_fdinfo`, kernel/bpf/syscall.c).
fn is_link_of(text: &str, id: u32) -> bool {
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    value("link_type:") == Some("tcx") && value("prog_id:").and_then(|text| text.parse().ok()) == Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_tcx_link_of_the_program_is_one() {
        let link = "pos:\t0\nlink_type:\ttcx\nlink_id:\t12\nprog_tag:\t9e0ab4\nprog_id:\t340\nifindex:\t7\n";
        assert!(is_link_of(link, 340));
        assert!(!is_link_of(link, 34) && !is_link_of(link, 12));
        assert!(!is_link_of(&link.replace("tcx", "xdp"), 340));
        assert!(!is_link_of("pos:\t0\nprog_type:\t3\nprog_id:\t340\n", 340));
    }

    #[test]
    fn a_newer_version_in_its_place_is_the_same_program() {
        let name = |path: &str| executable(Path::new(path));
        assert_eq!(name("/usr/bin/kvmtrace (deleted)"), name("/opt/kvmtrace"));
        assert_ne!(name("/usr/bin/kvmtrace"), name("/usr/bin/kvmtraced"));
    }

    #[test]
    fn a_program_of_others_is_reported_with_and_without_a_name() {
        assert!(other("tap0", Hook::Ingress, (3, Some(names::TC_INGRESS)), true).is_none());
        for name in [None, Some("cil_from_netdev")] {
            let degraded = other("tap0", Hook::Ingress, (3, name), true).unwrap();
            assert!(degraded.why.contains("(id 3)"), "{degraded:?}");
        }
    }
}

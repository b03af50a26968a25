//! What the hypervisor does with a guest or its card: paused, link held down, card unplugged. Nothing is dropped then: the
//! tap's ring fills, or the hypervisor throws away what it reads.

use super::scene::Scene;
use crate::diagnose::shell::quote;
use crate::event::IfIndex;
use crate::event::host::{Guest, GuestInterface, Link, LinkKind};

/// Why a guest gets nothing though its process is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Its manager has paused it.
    Paused,
    /// Its process has not run at all during the trace, though frames waited for it.
    StoodStill,
    /// Its manager, or the tap's carrier, holds the link down.
    LinkDown,
    /// The guest has no card on this device any more.
    Unplugged,
}

/// As its manager's files and the device say.
pub fn trouble(guest: &Guest, interface: &GuestInterface, link: &Link) -> Option<Trouble> {
    guest.pid?;
    // While a process has the tap open, its carrier is on, unless somebody has switched it off (`TUNSETCARRIER`).
    let switched_off = link.kind == LinkKind::Tun && link.up && !link.carrier;
    if guest.paused {
        Some(Trouble::Paused)
    } else if interface.unplugged {
        Some(Trouble::Unplugged)
    } else {
        (interface.link_down || switched_off).then_some(Trouble::LinkDown)
    }
}

/// The same, and as the trace shows it.
pub fn observed(scene: &Scene<'_>, device: IfIndex) -> Option<Trouble> {
    let (guest, link) = (scene.host.guest_of(device)?, scene.link(device)?);
    trouble(guest, scene.interface(device)?, link)
        .or_else(|| stands_still(scene, guest, device).then_some(Trouble::StoodStill))
}

/// Between the trace's first and last look at it the process has not been on a CPU for a nanosecond; frames were put into
/// its ring, and none came. A guest that idles is woken by a frame.
fn stands_still(scene: &Scene<'_>, guest: &Guest, device: IfIndex) -> bool {
    let first = scene.track.first_host().guest_of(device).filter(|first| first.pid == guest.pid);
    let same = first.is_some_and(|first| first.worked_ns == guest.worked_ns && guest.worked_ns > 0);
    if !same || !scene.track.has_ended() || guest.stopped {
        return false;
    }
    let places = || scene.track.flows().flat_map(|flow| &flow.places).filter(|(place, _)| place.device == device);
    let passed: u64 = places().filter(|(place, _)| scene.is_exit(**place)).map(|(_, counters)| counters.packets).sum();
    // What a program or a queue of the device took behind the hook never reached the ring.
    let drops = scene.track.flows().flat_map(|flow| &flow.drops).filter(|(site, _)| site.device == Some(device));
    let died: u64 = drops.map(|(_, totals)| totals.packets).sum();
    passed > died && !places().any(|(place, _)| scene.is_entry(*place))
}

/// How the guest is called in a command of `virsh`; none where libvirt does not run it.
pub fn libvirt_name(guest: &Guest) -> Option<String> {
    match guest.manager.as_deref() {
        Some("libvirt") => Some(quote(&guest.name)),
        // Nova's name is not libvirt's.
        Some("openstack") => guest.uuid.clone(),
        _ => None,
    }
}

impl Trouble {
    /// As the rest of a sentence about the guest.
    pub fn text(self, guest: &Guest, device: &str) -> String {
        match self {
            Self::Paused => "is paused: it reads and answers nothing".to_owned(),
            Self::StoodStill => format!(
                "stands still: its process {} has not run for a moment during this trace, so it is paused or its storage is stuck",
                guest.pid.unwrap_or_default()
            ),
            Self::LinkDown => format!("has the link of its card on {device} held down by the hypervisor"),
            Self::Unplugged => format!("has no card on {device} any more: it was unplugged while the guest runs"),
        }
    }

    /// What it rests on.
    pub fn evidence(self, guest: &Guest, link: &Link) -> String {
        let held = if link.carrier {
            "its manager's description says link down"
        } else {
            "no carrier, though a process has it open"
        };
        match self {
            Self::Paused => format!("{}: its manager's status is paused", guest.name),
            Self::StoodStill => {
                format!("{}: {} ns of CPU time before and after the trace", guest.name, guest.worked_ns)
            }
            Self::LinkDown => format!("{}: {held}", link.name),
            Self::Unplugged => format!("{}: in no interface of the running guest's description", link.name),
        }
    }
}

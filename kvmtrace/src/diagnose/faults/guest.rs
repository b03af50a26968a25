//! `guest-gone`: nobody reads what is sent to a tap. `guest-paused`, `guest-link-down`, `guest-nic-missing`: its hypervisor keeps it
//! from that.

use crate::diagnose::facts::machine;
use crate::diagnose::facts::place::at;
use crate::diagnose::fix::{self, device};
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict, Where};
use crate::diagnose::words;
use crate::event::IfIndex;
use crate::event::host::Link;

/// The guest behind the device is paused, or its card is unplugged or has its link held down.
pub fn held(case: &Case<'_>, device: IfIndex) -> Option<Judgement> {
    let scene = case.scene;
    let trouble = machine::observed(scene, device)?;
    let (guest, link) = (scene.host.guest_of(device)?, scene.link(device)?);
    let explanation = format!(
        "{} were to pass {}, but {} {}.",
        words::packets(case.packets()),
        link.name,
        guest.name,
        trouble.text(guest, &link.name)
    );
    Some(
        Judgement::dropped(fix::machine::cause(trouble), at(scene, device, Point::Guest), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([trouble.evidence(guest, link)])
            .fixes(fix::machine::fixes(trouble, guest, link)),
    )
}

/// Nobody has the tap open, or it is down.
pub fn gone(case: &Case<'_>, link: &Link, place: Where) -> Judgement {
    if let Some(judgement) = held(case, link.index) {
        return Judgement {
            place: Where { function: place.function, reason: place.reason, ..judgement.place },
            ..judgement
        };
    }
    let what = case.dropped_share();
    if !link.up {
        let explanation = format!("{what} were to leave by {}, which is administratively down.", link.name);
        return Judgement::dropped(Cause::LinkDown, place, explanation).fix(device::up(
            case.scene.host,
            case.scene.track.first_host(),
            link,
        ));
    }
    let explanation = format!(
        "{what} were for {}, but no process has {} open: the guest is not running.",
        guest_behind(case, link),
        link.name
    );
    Judgement::dropped(Cause::GuestGone, place, explanation)
        .evidence([format!("{}: {}", link.name, if link.carrier { "carrier" } else { "no carrier" })])
        .fix(Fix::advice(format!(
            "Start {} again (virsh start, or its manager), and find out why its process ended.",
            guest_behind(case, link)
        )))
}

pub(in crate::diagnose) fn guest_behind(case: &Case<'_>, link: &Link) -> String {
    case.scene.guest_name(link.index).unwrap_or_else(|| format!("the guest behind {}", link.name))
}

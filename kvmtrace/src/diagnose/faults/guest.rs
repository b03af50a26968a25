//! `guest-gone`: nobody reads what is sent to a tap.

use crate::diagnose::fix::device;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Where};
use crate::event::host::Link;

/// Nobody has the tap open, or it is down.
pub fn gone(case: &Case<'_>, link: &Link, place: Where) -> Judgement {
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

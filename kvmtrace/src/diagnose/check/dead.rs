//! `link-down`, `no-carrier`: what leads out of this host is dead.

use super::about::About;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::device;
use crate::diagnose::report::{Cause, Finding, Point, Severity};
use crate::event::host::Link;

/// A device that leads out and is dead, or what it stands on.
pub(super) fn dead_uplink(scene: &Scene<'_>, uplink: &Link, role: &str) -> Option<Finding> {
    let link = scene.dead_below(uplink);
    let what = if link.index == uplink.index {
        format!("{}, {role},", uplink.name)
    } else {
        format!("{}, on which {}, {role}, stands,", link.name, uplink.name)
    };
    let (severity, point) = (Severity::Error, Point::NicEgress);
    let about = |cause| About { scene, cause, severity, guest: None, device: link.index, point };
    if !link.up {
        return Some(about(Cause::LinkDown).say(
            format!("{what} is administratively down."),
            format!("{}: not up", link.name),
            vec![device::up(scene.host, scene.host, link)],
        ));
    }
    (!link.carrier).then(|| {
        about(Cause::NoCarrier).say(
            format!("{what} has no carrier."),
            format!("{}: NO-CARRIER", link.name),
            vec![device::no_carrier_advice(link)],
        )
    })
}

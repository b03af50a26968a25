//! A pair of virtual devices that should join a guest's bridge to the next one (Proxmox' `fwln`–`fwpr`, Neutron's `qvb`–`qvo`),
//! and does not: one end is down, or its far end is loose.

use super::about::About;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::device;
use crate::diagnose::fix::port::rejoin;
use crate::diagnose::report::{Cause, Finding, Point, Severity};
use crate::event::host::Link;
use crate::topology::is_served;

/// The pairs of a guest's bridge that lead nowhere.
pub(super) fn findings(scene: &Scene<'_>, bridge: &Link) -> Vec<Finding> {
    scene.host.ports(bridge.index).filter_map(|near| finding(scene, bridge, near)).collect()
}

fn finding(scene: &Scene<'_>, bridge: &Link, near: &Link) -> Option<Finding> {
    let far = scene.link(near.peer?)?;
    // Another way out: then this one need not be.
    let foreign = |other: &&Link| other.index != near.index && scene.interface(other.index).is_none();
    let spare = scene.host.ports(bridge.index).filter(foreign).any(|other| other.up && other.carrier);
    let severity = if spare { Severity::Info } else { Severity::Error };
    let about = |cause, link: &Link, point| About { scene, cause, severity, guest: None, device: link.index, point };
    if let Some(down) = [near, far].into_iter().find(|end| !end.up) {
        let other = if down.index == near.index { far } else { near };
        return Some(about(Cause::LinkDown, down, Point::NicEgress).say(
            format!(
                "{} is administratively down: it and {} are the pair that leads on from {}.",
                down.name, other.name, bridge.name
            ),
            format!("{}: not up", down.name),
            vec![device::up(scene.host, scene.host, down)],
        ));
    }
    let loose = far.master.is_none() && !is_served(scene.host, far);
    loose.then(|| {
        about(Cause::BridgePortDetached, far, Point::NicIngress).say(
            format!(
                "{}, the other end of {}, is a port of no bridge and has no address: what leaves {} there ends.",
                far.name, near.name, bridge.name
            ),
            format!("{}: no master, other end of {}", far.name, near.name),
            vec![rejoin(scene, bridge, far)],
        )
    })
}

//! A guest whose way was dead all the time may have no flow to tell it on: the host that knows no way sends nothing, and
//! nothing comes out of a device that is down. Told once per device, and only where no flow of the guest tells a fault or
//! shows that packets pass.

use crate::diagnose::facts::machine;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::device;
use crate::diagnose::report::{Cause, Finding, FlowReport, Label, Point, Severity};
use crate::event::host::{Link, LinkKind};
use std::collections::BTreeSet;

/// See the module.
pub(in crate::diagnose) fn findings(scene: &Scene<'_>, flows: &[FlowReport]) -> Vec<Finding> {
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for guest in scene.host.guests.iter().filter(|guest| is_wanted(scene, &guest.name)) {
        for interface in &guest.interfaces {
            let Some(link) = scene.link(interface.device) else { continue };
            // The hypervisor holds it down: a fault of its own.
            if machine::trouble(guest, interface, link).is_some() {
                continue;
            }
            // A tap that no process has open and that is in no bridge is left over, or another program's.
            if guest.pid.is_none() && link.master.is_none() {
                continue;
            }
            let is_silent = !flows.iter().any(|flow| {
                flow.guest.as_deref() == Some(guest.name.as_str())
                    && (flow.severity >= Severity::Warning
                        || flow.device.as_deref() == Some(&link.name) && flow.packets > 0)
            });
            if let Some((dead, cause, point)) = dead(scene, link).filter(|_| is_silent)
                && told.insert(dead.index)
            {
                found.push(Finding {
                    label: Label::default(),
                    cause,
                    severity: Severity::Error,
                    guest: Some(guest.name.clone()),
                    place: Some(at(scene, dead.index, point)),
                    count: None,
                    explanation: format!(
                        "{} was administratively down all the time: nothing passes between {} and the network by it.",
                        dead.name, guest.name
                    ),
                    evidence: vec![format!("{}: administratively down", dead.name)],
                    fixes: vec![device::up(scene.host, scene.track.first_host(), dead)],
                });
            }
        }
    }
    found
}

fn is_wanted(scene: &Scene<'_>, guest: &String) -> bool {
    scene
        .track
        .started()
        .is_none_or(|started| started.guests.contains(guest) || started.guests.is_empty() && started.devices.is_empty())
}

/// The device on the guest's way that is down, and was when the trace began.
fn dead<'a>(scene: &Scene<'a>, own: &'a Link) -> Option<(&'a Link, Cause, Point)> {
    let down = |link: &&Link| !link.up && scene.track.first_host().link(link.index).is_some_and(|before| !before.up);
    if down(&own) {
        return Some((own, Cause::LinkDown, Point::TapIngress));
    }
    if let Some(bridge) = scene.bridge_of(own.index).filter(down) {
        return Some((bridge, Cause::BridgeDown, Point::BridgeIngress));
    }
    let lower = own.lower.filter(|_| matches!(own.kind, LinkKind::Macvtap { .. })).and_then(|lower| scene.link(lower));
    lower.filter(down).map(|lower| (lower, Cause::LinkDown, Point::NicEgress))
}

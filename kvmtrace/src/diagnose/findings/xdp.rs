//! `xdp-drop` of a native program at a guest of which nothing is seen at all, so that no flow shows it.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::facts::xdp::{place_of_program, swallowed, swallowed_evidence, swallowed_text};
use crate::diagnose::fix::device::detach_program;
use crate::diagnose::report::{Cause, Finding, FlowReport, Label, Severity};
use crate::event::host::Link;

/// Guests of whom nothing is seen at all, so that no flow tells it.
pub(super) fn findings(scene: &Scene<'_>, flows: &[FlowReport]) -> Vec<Finding> {
    let told = |link: &Link| {
        flows.iter().any(|flow| {
            flow.cause == Some(Cause::XdpDrop)
                && flow.place.as_ref().and_then(|place| place.device.as_ref()) == Some(&link.name)
        })
    };
    let interfaces = scene.host.guests.iter().flat_map(|guest| &guest.interfaces);
    interfaces
        .filter_map(|interface| swallowed(scene, interface.device))
        .filter(|(link, _)| !told(link))
        .map(|(link, count)| Finding {
            label: Label::default(),
            cause: Cause::XdpDrop,
            severity: Severity::Error,
            guest: scene.guest_name(link.index),
            place: Some(place_of_program(scene, link)),
            count: Some(count),
            explanation: swallowed_text(link, count),
            evidence: vec![swallowed_evidence(link, count)],
            fixes: vec![detach_program(link)],
        })
        .collect()
}

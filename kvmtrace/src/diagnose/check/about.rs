//! What a finding of `check` is about.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::{Cause, Finding, Fix, Label, Point, Severity};
use crate::event::IfIndex;
use crate::event::host::GuestInterface;
use crate::track::Track;

/// The guests' interfaces within the scope that was asked for.
pub(super) fn interfaces<'a>(scene: &Scene<'a>) -> Vec<(&'a str, &'a GuestInterface)> {
    let wanted = |guest: &str, device: IfIndex| is_wanted(&scene.track, guest, device);
    let all = scene.host.guests.iter();
    all.flat_map(|guest| guest.interfaces.iter().map(|interface| (guest.name.as_str(), interface)))
        .filter(|(guest, interface)| wanted(guest, interface.device))
        .collect()
}

/// The guest's interface is within the scope that was asked for.
pub(in crate::diagnose) fn is_wanted(track: &Track, guest: &str, device: IfIndex) -> bool {
    track.started().is_none_or(|started| {
        started.guests.is_empty() && started.devices.is_empty()
            || started.guests.iter().any(|name| name == guest)
            || started.devices.contains(&track.host().link_name(device))
    })
}

/// A finding of this kind at a device.
pub(super) struct About<'a, 's> {
    pub(super) scene: &'a Scene<'s>,
    pub(super) cause: Cause,
    pub(super) severity: Severity,
    pub(super) guest: Option<&'a str>,
    pub(super) device: IfIndex,
    pub(super) point: Point,
}

impl About<'_, '_> {
    pub(super) fn at(self, point: Point) -> Self {
        Self { point, ..self }
    }

    pub(super) fn say(self, explanation: String, evidence: String, fixes: Vec<Fix>) -> Finding {
        Finding {
            label: Label::default(),
            cause: self.cause,
            severity: self.severity,
            guest: self.guest.map(str::to_owned),
            place: Some(at(self.scene, self.device, self.point)),
            count: None,
            explanation,
            evidence: vec![evidence],
            fixes,
        }
    }
}

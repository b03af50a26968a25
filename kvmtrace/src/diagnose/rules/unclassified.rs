//! `unclassified`: a drop that no rule explains, shown as it is.

use crate::diagnose::facts::reasons::meaning;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Where};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let device = drop.device().or(case.device());
    let point = match device.map(|device| case.scene.role(device)) {
        Some(Role::Tap | Role::Macvtap) if case.is_from_guest() => Point::TapIngress,
        Some(Role::Tap | Role::Macvtap) => Point::TapEgress,
        Some(Role::Bridge) => Point::HostInput,
        Some(Role::Tunnel) => Point::Tunnel,
        _ if case.is_from_guest() => Point::NicEgress,
        _ => Point::NicIngress,
    };
    let name = device.map(|device| case.scene.name(device));
    let on = name.as_ref().map(|name| format!(" (device {name})")).unwrap_or_default();
    let (known, advice) = match meaning(drop.reason()) {
        Some(meaning) => (
            format!(": {meaning}"),
            "Look at a packet of it (tcpdump, or kvmtrace record --packets) and correct what sends it, or set up here what should take it; the function below is where it died.",
        ),
        None => (
            ". No rule of kvmtrace knows this drop".to_owned(),
            "Look up the function and its callers (below) in the kernel's source, and tell kvmtrace's authors, so that it can be explained.",
        ),
    };
    let explanation = format!("{} were dropped by the kernel, {}{on}{known}.", case.dropped_share(), drop.label());
    let place = Where { device: name, point, function: None, reason: None }.of(drop);
    Some(
        Judgement::dropped(Cause::Unclassified, place, explanation)
            .severity(Severity::Warning)
            .fix(Fix::advice(advice)),
    )
}

//! What a rule says of a flow.

use super::dropped::Dropped;
use super::report::{Cause, Fix, Point, Severity, Verdict, Where};
use super::scene::Scene;
use crate::event::IfIndex;

/// A rule's answer.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// What became of the flow.
    pub verdict: Verdict,
    /// Why.
    pub cause: Cause,
    /// How grave.
    pub severity: Severity,
    /// Where.
    pub place: Where,
    /// In plain words.
    pub explanation: String,
    /// What the rule looked at, beside the counters that every verdict shows.
    pub evidence: Vec<String>,
    /// Cures.
    pub fixes: Vec<Fix>,
}

impl Judgement {
    /// A drop: an error.
    pub fn dropped(cause: Cause, place: Where, explanation: String) -> Self {
        Self {
            verdict: Verdict::Dropped,
            cause,
            severity: Severity::Error,
            place,
            explanation,
            evidence: Vec::new(),
            fixes: Vec::new(),
        }
    }

    /// With another verdict.
    #[must_use]
    pub fn verdict(self, verdict: Verdict) -> Self {
        Self { verdict, ..self }
    }

    /// With another severity.
    #[must_use]
    pub fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }

    /// With one more cure.
    #[must_use]
    pub fn fix(mut self, fix: Fix) -> Self {
        self.fixes.push(fix);
        self
    }

    /// With more cures.
    #[must_use]
    pub fn fixes(mut self, fixes: impl IntoIterator<Item = Fix>) -> Self {
        self.fixes.extend(fixes);
        self
    }

    /// With more evidence.
    #[must_use]
    pub fn evidence(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }
}

/// A place on a device.
pub fn at(scene: &Scene<'_>, device: IfIndex, point: Point) -> Where {
    Where { device: Some(scene.name(device)), point, function: None, reason: None }
}

/// Beyond any device of this host.
pub fn beyond(device: Option<String>) -> Where {
    Where { device, point: Point::BeyondHost, function: None, reason: None }
}

impl Where {
    /// With the drop's function and reason.
    #[must_use]
    pub fn of(self, drop: &Dropped<'_>) -> Self {
        Self { function: drop.site.function.clone(), reason: drop.site.reason.clone(), ..self }
    }
}

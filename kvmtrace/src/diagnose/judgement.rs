//! What a rule says of a flow.

use super::report::{Cause, Fix, Root, Severity, Verdict, Where};

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
    /// What the fault goes back to, where the rule knows more than the place.
    pub root: Option<Root>,
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
            root: None,
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

    /// With what the fault goes back to.
    #[must_use]
    pub fn root(self, root: Option<Root>) -> Self {
        Self { root, ..self }
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

//! How commands end.

use crate::diagnose::report::Severity;

/// How a command ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Outcome {
    /// No fault found.
    Clean,
    /// Faults found.
    Faults,
    /// What was asked can't be known.
    Unknown,
}

impl Outcome {
    /// By the gravest severity that was found.
    pub(super) fn of(severity: Severity) -> Self {
        if severity >= Severity::Warning { Self::Faults } else { Self::Clean }
    }
}

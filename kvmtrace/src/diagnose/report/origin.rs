//! The host that a statement is about, and the incident that it belongs to.

use super::kinds::Basis;
use crate::event::HostState;
use serde::Serialize;

/// A host and a network namespace of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Origin {
    /// Host name; two hosts of one report never have the same.
    pub host: String,
    /// Network namespace by the name or path that the operator gave; null for the one that kvmtrace was started in.
    pub netns: Option<String>,
}

impl Origin {
    /// The host that was traced.
    pub fn of(host: &HostState) -> Self {
        Self { host: host.name.clone(), netns: host.netns.clone() }
    }
}

/// What a finding is known by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Label {
    /// An addition to the contract: stable as long as the finding is the same.
    pub id: String,
    /// The host.
    #[serde(flatten)]
    pub origin: Origin,
    /// Its incident; null where it is no fault.
    pub incident: Option<String>,
    /// The evidence behind it.
    pub basis: Basis,
}

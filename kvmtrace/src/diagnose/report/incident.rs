//! An incident: one fault with all flows and findings that go back to it.

use super::cause::Cause;
use super::fix::Fix;
use super::kinds::{Basis, Severity, Where, rfc_3339};
use super::origin::Origin;
use crate::event::Timestamp;
use serde::Serialize;

/// One fault, reported once.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Incident {
    /// Sixteen hexadecimal digits, from the host, the cause and the root: the same fault has the same id in every trace.
    pub id: String,
    /// The cause that its flows and findings share.
    pub cause: Cause,
    /// The gravest of theirs.
    pub severity: Severity,
    /// The place in the worst of them.
    #[serde(rename = "where")]
    pub place: Option<Where>,
    /// The host.
    #[serde(flatten)]
    pub origin: Origin,
    /// The evidence behind it.
    pub basis: Basis,
    /// Names of the guests that suffer, sorted.
    pub guests: Vec<String>,
    /// Ids of its flows, the worst first.
    pub flows: Vec<String>,
    /// Ids of its findings.
    pub findings: Vec<String>,
    /// First packet of the first of its flows; of findings alone the beginning of the trace.
    #[serde(serialize_with = "rfc_3339")]
    pub first_seen: Timestamp,
    /// When the last of its flows grew; of findings alone the end of the trace.
    #[serde(serialize_with = "rfc_3339")]
    pub last_seen: Timestamp,
    /// Packets that its flows lost: dropped, refused or unanswered.
    pub packets: u64,
    /// In words.
    pub explanation: String,
    /// Facts that show it.
    pub evidence: Vec<String>,
    /// Commands that bring all of its flows through, the narrowest first; then those for the worst flow alone.
    pub fixes: Vec<Fix>,
}

/// What a fault goes back to: flows with one cause and one root are one incident.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Root {
    /// A firewall rule, or a chain's policy, in words that name no other.
    Rule(String),
    /// A device, or a part of the host that has a name: a route, a sysctl.
    Part(String),
}

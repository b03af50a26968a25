//! What gets through: how walks without packets end.

use serde::Serialize;

/// How a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub enum EndReport {
    Delivered,
    Leaves,
    Unknown,
    Stops,
}

/// What was not walked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LeftOut {
    /// Guests' interfaces.
    pub interfaces: usize,
    /// Pairs of guests of one network.
    pub pairs: usize,
}

/// What is walked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "docs/verdict.schema.json documents the names")]
pub enum TargetKind {
    Gateway,
    Host,
    Guest,
    Lan,
    Internet,
}

/// As what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "docs/verdict.schema.json documents the names")]
pub enum Protocol {
    Arp,
    Nd,
    Icmp,
    Tcp,
    Dhcp,
}

//! How grave, which way, where: the words that all parts of a report share.

use crate::event::Timestamp;
use serde::Serialize;

/// How grave something is; ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// All is well.
    Ok,
    /// Worth knowing, no fault.
    Info,
    /// It hurts, or will.
    Warning,
    /// Traffic is lost.
    Error,
}

/// What became of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// It left in order.
    Delivered,
    /// Delivered in pieces.
    Fragmented,
    /// Left the host in order, nothing came back.
    Unanswered,
    /// An answer came that says no.
    Refused,
    /// Entered, never left, no drop seen.
    Lost,
    /// Dropped on this host, some or all of it.
    Dropped,
}

/// Which way a flow goes, as the guest sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum FlowDirection {
    /// The guest sends.
    FromGuest,
    /// The guest is to receive.
    ToGuest,
    /// Between two guests of this host.
    GuestToGuest,
    /// It touches no guest.
    Host,
}

/// The evidence behind a statement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Packets and counters.
    #[default]
    Observed,
    /// The host's configuration and the model of its packet path alone.
    Model,
    /// Both, and they agree.
    Both,
}

/// Where a fault sits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Where {
    pub device: Option<String>,
    pub point: Point,
    pub function: Option<String>,
    pub reason: Option<String>,
}

/// The contract's points of the packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub enum Point {
    TapIngress,
    TapEgress,
    BridgeIngress,
    BridgeForward,
    BridgeEgress,
    HostInput,
    HostOutput,
    Routing,
    NetfilterPrerouting,
    NetfilterInput,
    NetfilterForward,
    NetfilterOutput,
    NetfilterPostrouting,
    NetfilterIngress,
    NetfilterEgress,
    NicIngress,
    NicEgress,
    Tunnel,
    Neighbour,
    Socket,
    Qdisc,
    Guest,
    BeyondHost,
}

/// A time as the contract writes it.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(in crate::diagnose) fn rfc_3339<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

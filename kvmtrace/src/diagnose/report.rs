//! What kvmtrace says in the end: the contract's `kvmtrace/verdict/1` object, and the one place that knows its JSON
//! names. Every key is always there, null where there is nothing to say.

mod cause;
mod fix;
mod reach;

pub use cause::Cause;
pub use fix::{DeviceSetting, Fix, Outcome, Prediction, Setting};
pub use reach::{EndReport, LeftOut, Protocol, TargetKind};

use crate::event::{FlowKey, Timestamp};
use serde::Serialize;
use std::net::IpAddr;

/// The object of `verdict --json`, `report --json` and `check --json`.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Report {
    pub schema: &'static str,
    pub host: Host,
    pub window: Window,
    pub degraded: Vec<crate::event::Degraded>,
    pub lost: crate::event::Loss,
    /// An addition to the contract: packets that were counted without their flows, by place.
    pub lost_at: Vec<LostAt>,
    pub totals: Totals,
    pub guests: Vec<GuestReport>,
    pub flows: Vec<FlowReport>,
    pub findings: Vec<Finding>,
    /// An addition to the contract: per guest and direction, in = out + dropped + refused + in flight.
    pub ledger: Vec<Account>,
    /// Of `check` alone: what gets through, by walks without packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachability: Option<Vec<Row>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reachability_left_out: Option<LeftOut>,
}

/// Packets that passed a device, or were dropped there, and are in no flow of the report: a guest had too many flows.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/verdict.schema.json documents the names")]
pub struct LostAt {
    pub guest: Option<String>,
    pub device: Option<String>,
    /// Null for drops.
    pub direction: Option<crate::event::Direction>,
    /// Of drops, where the kernel has one.
    pub reason: Option<String>,
    /// Of drops.
    pub function: Option<String>,
    pub packets: u64,
    pub bytes: u64,
}

/// One walk there and back.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/verdict.schema.json documents the names")]
pub struct Row {
    pub guest: String,
    pub device: String,
    pub target_kind: TargetKind,
    pub target: String,
    pub address: Option<IpAddr>,
    pub protocol: Protocol,
    pub port: Option<u16>,
    pub outcome: EndReport,
    pub cause: Option<Cause>,
    #[serde(rename = "where")]
    pub place: Option<Where>,
    pub explanation: String,
    /// This host is the guest's gateway, and the guest can't even learn its MAC address.
    #[serde(skip)]
    pub cut_off: bool,
}

/// `Report::schema`.
pub const SCHEMA: &str = "kvmtrace/verdict/1";

impl Report {
    /// The gravest severity told: the exit status hangs on it.
    pub fn severity(&self) -> Severity {
        let flows = self.flows.iter().map(|flow| flow.severity);
        flows.chain(self.findings.iter().map(|finding| finding.severity)).max().unwrap_or(Severity::Ok)
    }
}

/// Which host was traced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Host {
    pub name: String,
    pub kernel: String,
    pub kvmtrace: String,
}

/// How long.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Window {
    #[serde(serialize_with = "rfc_3339")]
    pub start: Timestamp,
    #[serde(serialize_with = "rfc_3339")]
    pub end: Timestamp,
    pub seconds: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
pub(super) fn rfc_3339<S: serde::Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

/// Sums over all flows, each flow counted where it entered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Totals {
    pub flows: u64,
    pub packets: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub fragmented: u64,
}

/// A guest and its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct GuestReport {
    pub name: String,
    pub uuid: Option<String>,
    pub pid: Option<u32>,
    pub manager: Option<String>,
    pub interfaces: Vec<InterfaceReport>,
}

/// A guest's interface and its way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct InterfaceReport {
    pub device: String,
    pub kind: String,
    pub mac: Option<String>,
    pub bridge: Option<String>,
    pub uplinks: Vec<String>,
    pub addresses: Vec<String>,
}

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

/// What a statement rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// On what was seen of the packets.
    Observed,
    /// On the model of this host's packet path alone.
    Model,
    /// On both, and they agree.
    Both,
}

/// A flow and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct FlowReport {
    /// Tells flows apart that read alike, such as two pings of the same pair.
    #[serde(skip)]
    pub key: FlowKey,
    pub id: String,
    pub icmp_id: Option<u16>,
    pub guest: Option<String>,
    pub device: Option<String>,
    pub direction: FlowDirection,
    /// An addition to the contract: `kvmtrace probe` sent it, or it answers such packets ([`crate::event::probe`]).
    pub probe: bool,
    pub protocol: String,
    pub source: String,
    pub source_port: Option<u16>,
    pub destination: String,
    pub destination_port: Option<u16>,
    pub vlan: Option<u16>,
    pub translated: Option<Translated>,
    pub verdict: Verdict,
    pub cause: Option<Cause>,
    pub severity: Severity,
    /// What the verdict rests on.
    pub basis: Basis,
    pub complete: bool,
    pub packets: u64,
    pub bytes: u64,
    pub dropped: u64,
    pub fragments: u64,
    #[serde(rename = "where")]
    pub place: Option<Where>,
    pub path: Vec<Hop>,
    pub explanation: String,
    pub evidence: Vec<String>,
    pub fixes: Vec<Fix>,
}

/// The flow after NAT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Translated {
    pub source: String,
    pub source_port: Option<u16>,
    pub destination: String,
    pub destination_port: Option<u16>,
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

/// A flow's counts at one point of its path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Name of the device.
    pub device: String,
    /// Its side.
    pub direction: crate::event::Direction,
    /// Packets on the wire.
    pub packets: u64,
    /// Bytes with the Ethernet header.
    pub bytes: u64,
    /// Time that the flow's first packet took from the hop before to this one; null at the first hop.
    pub latency_ns: Option<u64>,
}

/// A fact about a device, a guest or the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Finding {
    pub cause: Cause,
    pub severity: Severity,
    pub guest: Option<String>,
    #[serde(rename = "where")]
    pub place: Option<Where>,
    pub count: Option<u64>,
    pub explanation: String,
    pub evidence: Vec<String>,
    pub fixes: Vec<Fix>,
}

/// One guest's interface, one direction; counts are of packets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Account {
    /// The guest.
    pub guest: Option<String>,
    /// Its interface.
    pub device: String,
    /// `from-guest` or `to-guest`.
    pub direction: FlowDirection,
    /// Packets that entered.
    #[serde(rename = "in")]
    pub entered: u64,
    /// Packets that left where they should, or were delivered to the host.
    pub out: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Packets answered with a no, by this host, by the guest or from beyond.
    pub refused: u64,
    /// Packets that entered less than a moment before the end.
    pub in_flight: u64,
    /// What remains unexplained: `in - out - dropped - refused - in_flight`; more came out than in where it is negative
    /// (a bridge fragments or copies).
    pub residue: i64,
    /// Device counters that could explain a residue.
    pub hints: Vec<String>,
}

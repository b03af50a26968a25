//! What kvmtrace says in the end: the contract's `kvmtrace/verdict/2` object, and the one place that knows its JSON
//! names. Every key is always there, null where there is nothing to say.

mod cause;
mod conversation;
mod fix;
mod hop;
mod incident;
mod kinds;
mod origin;
mod reach;

pub use cause::Cause;
pub use conversation::{Carried, Conversation, Port, Service};
pub use fix::{Accept, DeviceSetting, Fix, Outcome, Prediction, Setting};
pub use hop::{Hop, Latency};
pub use incident::{Incident, Root};
pub(in crate::diagnose) use kinds::rfc_3339;
pub use kinds::{Basis, FlowDirection, Point, Severity, Verdict, Where};
pub use origin::{Label, Origin};
pub use reach::{EndReport, LeftOut, Protocol, TargetKind};

use crate::event::{FlowKey, Timestamp};
use serde::Serialize;
use std::collections::BTreeSet;
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
    /// One per fault, the worst first.
    pub incidents: Vec<Incident>,
    pub flows: Vec<FlowReport>,
    pub findings: Vec<Finding>,
    /// Exit status of the command that was traced (`--cmd`); 128 + N where signal N ended it, as shells count. Null without one.
    pub command_status: Option<i32>,
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
pub const SCHEMA: &str = "kvmtrace/verdict/2";

impl Report {
    /// The gravest severity told: the exit status hangs on it.
    pub fn severity(&self) -> Severity {
        let flows = self.flows.iter().map(|flow| flow.severity);
        flows.chain(self.findings.iter().map(|finding| finding.severity)).max().unwrap_or(Severity::Ok)
    }

    /// After flows or findings were left out: incidents name only those that are there, and one without any goes.
    pub fn settle_incidents(&mut self) {
        let flows: BTreeSet<&str> = self.flows.iter().map(|flow| flow.id.as_str()).collect();
        let findings: BTreeSet<&str> = self.findings.iter().map(|finding| finding.label.id.as_str()).collect();
        for incident in &mut self.incidents {
            incident.flows.retain(|id| flows.contains(id.as_str()));
            incident.findings.retain(|id| findings.contains(id.as_str()));
        }
        self.incidents.retain(|incident| !incident.flows.is_empty() || !incident.findings.is_empty());
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
    /// The traced host's time zone: its IANA name, else its offset (`+02:00`). Times themselves are in UTC.
    pub timezone: String,
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
    /// The host that it runs on.
    #[serde(flatten)]
    pub origin: Origin,
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

/// A device by which guests reach the world, in `guests --json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct UplinkReport {
    /// Its name.
    pub device: String,
    /// The VLAN that it adds and takes off; null for other devices.
    pub vlan: Option<u16>,
    /// The device below a VLAN device.
    pub lower: Option<String>,
    /// What a bond does; null for other devices.
    pub bond: Option<BondReport>,
}

/// A bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct BondReport {
    /// As `ip -d link` names it: `active-backup`, `802.3ad`, …
    pub mode: String,
    /// Its devices.
    pub legs: Vec<LegReport>,
}

/// A device of a bond.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LegReport {
    /// Its name.
    pub device: String,
    /// The bond sends by it now.
    pub sends: bool,
}

/// A flow and its verdict.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct FlowReport {
    /// Tells flows apart that read alike, such as two pings of the same pair.
    #[serde(skip)]
    pub key: FlowKey,
    /// Other keys of its packets: after NAT, with another VLAN tag, on another host.
    #[serde(skip)]
    pub other_keys: Vec<TraceKey>,
    /// The trace that saw [`Self::key`], by its number among those that are judged together; 0 where there is one.
    #[serde(skip)]
    pub trace: usize,
    pub id: String,
    /// The host that it was seen on; of several, the one that gives the verdict.
    #[serde(flatten)]
    pub origin: Origin,
    /// The incident that it belongs to; null where nothing is wrong.
    pub incident: Option<String>,
    /// An addition to the contract: its first packet.
    #[serde(serialize_with = "rfc_3339")]
    pub first_seen: Timestamp,
    /// An addition to the contract: when its counters last grew.
    #[serde(serialize_with = "rfc_3339")]
    pub last_seen: Timestamp,
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
    /// What its fault goes back to, where the rule that judged it knows.
    #[serde(skip)]
    pub root: Option<Root>,
}

/// A flow's key in one of several traces that are judged together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceKey {
    /// Number of the trace, from 0.
    pub trace: usize,
    /// The key that its packets have there.
    pub key: FlowKey,
}

impl FlowReport {
    /// All keys that packets of this flow have.
    pub fn keys(&self) -> impl Iterator<Item = TraceKey> {
        std::iter::once(TraceKey { trace: self.trace, key: self.key }).chain(self.other_keys.iter().copied())
    }
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

/// A fact about a device, a guest or the host.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names are the contract's, which documents them")]
pub struct Finding {
    /// Its id, host and incident.
    #[serde(flatten)]
    pub label: Label,
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

//! The report of `kvmtrace explain`: data, with the one place that knows its JSON names.

use crate::diagnose::report::{Cause, EndReport, Fix, Host, Where};
use crate::event::host::{FdbEntry, Neighbour, Network, Route};
use crate::event::ruleset::RuleReference;
use crate::event::{Degraded, Direction, HostState, MacAddress};
use crate::forward::asked::STAND_IN;
use crate::forward::packet::{Network as Layer3, Packet};
use crate::forward::reading::End;
use crate::forward::step::Decision;
use crate::forward::words;
use serde::Serialize;
use std::net::IpAddr;

/// The object of `explain --json`, described by docs/explain.schema.json.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub struct Explanation {
    pub schema: &'static str,
    pub host: Host,
    pub guest: GuestEnd,
    pub packet: PacketReport,
    /// The machine that the guest hands the frame to.
    pub next_hop: Option<NextHopReport>,
    /// ARP or neighbour discovery that comes before.
    pub first: Option<Leg>,
    #[serde(flatten)]
    pub leg: Leg,
    pub reply: Option<Leg>,
    pub result: ResultReport,
    /// Findings about devices of the way that do not stop this packet.
    pub notes: Vec<Note>,
    pub fixes: Vec<Fix>,
    pub degraded: Vec<Degraded>,
}

/// `Explanation::schema`.
pub const SCHEMA: &str = "kvmtrace/explain/1";

/// The guest that is asked about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub struct GuestEnd {
    pub name: String,
    pub device: String,
    pub mac: Option<MacAddress>,
}

/// The machine that the guest hands the frame to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub struct NextHopReport {
    pub address: IpAddr,
    pub mac: Option<MacAddress>,
    pub owner: Owner,
    pub guest: Option<String>,
}

/// Whose the next hop is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub enum Owner {
    Guest,
    Host,
    Beyond,
}

/// A packet's facts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub struct PacketReport {
    pub text: String,
    pub protocol: String,
    pub source_mac: Option<MacAddress>,
    pub destination_mac: Option<MacAddress>,
    pub vlans: Vec<u16>,
    pub source: Option<IpAddr>,
    pub source_port: Option<u16>,
    pub destination: Option<IpAddr>,
    pub destination_port: Option<u16>,
    pub length: u32,
    pub dont_fragment: bool,
}

/// One packet's walk.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub struct Leg {
    /// The packet as it enters; on the asked packet's own leg it stands in `packet` of the whole.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub packet: Option<PacketReport>,
    pub steps: Vec<StepReport>,
    /// The steps of the copy that matters, by index.
    pub way: Vec<usize>,
    pub outcome: EndReport,
    /// The result of this leg in one clause.
    #[serde(skip)]
    pub summary: String,
}

/// A step.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub struct StepReport {
    pub parent: Option<usize>,
    pub stage: &'static str,
    pub device: Option<String>,
    pub hook: Option<Direction>,
    pub functions: &'static [&'static str],
    pub decisions: Vec<DecisionReport>,
    pub outcome: OutcomeReport,
    pub text: String,
    pub packet: Option<PacketReport>,
    pub cause: Option<Cause>,
    /// Copies that part from the way here.
    pub others: Option<String>,
    /// The stage in a column of text.
    #[serde(skip)]
    pub label: &'static str,
    /// Something decided or changed here, or the way begins or ends: worth a line.
    #[serde(skip)]
    pub eventful: bool,
    /// The functions that handle a packet of this family.
    #[serde(skip)]
    pub own_functions: Vec<&'static str>,
}

/// What became of the packet at a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub enum OutcomeReport {
    Passes,
    Becomes,
    Branches,
    Arrives,
    Stops,
    Unknown,
}

/// A finding of `check` about a device of the way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub struct Note {
    pub cause: Cause,
    pub device: Option<String>,
    pub explanation: String,
}

/// The result.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub struct ResultReport {
    pub outcome: EndReport,
    pub cause: Option<Cause>,
    #[serde(rename = "where")]
    pub place: Option<Where>,
    pub explanation: String,
}

/// Something that decided, with the text of the host's own tools.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
#[expect(missing_docs, reason = "docs/explain.schema.json documents the names")]
pub enum DecisionReport {
    Rule { family: String, table: String, chain: String, handle: Option<u64>, number: Option<u32>, text: String },
    Route { route: Route, text: String },
    PolicyRule { priority: u32, text: String },
    OwnAddress { address: IpAddr, prefix: u8, text: String },
    Fdb { entry: FdbEntry, text: String },
    Flood { text: String },
    Neighbour { entry: Neighbour, text: String },
    Sysctl { name: String, value: String, text: String },
    Setting { text: String },
    OwnMac { text: String },
}

impl DecisionReport {
    /// As the host's own tools write it.
    pub fn text(&self) -> &str {
        match self {
            Self::Rule { text, .. }
            | Self::Route { text, .. }
            | Self::PolicyRule { text, .. }
            | Self::OwnAddress { text, .. }
            | Self::Fdb { text, .. }
            | Self::Flood { text }
            | Self::Neighbour { text, .. }
            | Self::Sysctl { text, .. }
            | Self::Setting { text }
            | Self::OwnMac { text } => text,
        }
    }

    pub(super) fn new(host: &HostState, decision: &Decision) -> Self {
        let text = words::decision(host, decision);
        match decision {
            Decision::Rule(reference) => Self::rule(host, *reference),
            Decision::Route(route) => Self::Route { route: (**route).clone(), text },
            Decision::PolicyRule(rule) => Self::PolicyRule { priority: rule.priority, text },
            Decision::OwnAddress(Network { address, prefix }) => {
                Self::OwnAddress { address: *address, prefix: *prefix, text }
            }
            Decision::Fdb(entry) => Self::Fdb { entry: (**entry).clone(), text },
            Decision::Flood => Self::Flood { text },
            Decision::Neighbour(entry) => Self::Neighbour { entry: (**entry).clone(), text },
            Decision::Sysctl(name, value) => Self::Sysctl { name: name.clone(), value: value.clone(), text },
            Decision::Setting(_) | Decision::Ipsec(_) | Decision::OpenFlow(_) => Self::Setting { text },
            Decision::OwnMac => Self::OwnMac { text },
        }
    }

    pub(super) fn rule(host: &HostState, reference: RuleReference) -> Self {
        let chain = host.netfilter.chains.get(reference.chain);
        let rule = chain.zip(reference.rule).and_then(|(chain, rule)| chain.rules.get(rule));
        Self::Rule {
            family: chain.map(|chain| chain.family.clone()).unwrap_or_default(),
            table: chain.map(|chain| chain.table.clone()).unwrap_or_default(),
            chain: chain.map(|chain| chain.name.clone()).unwrap_or_default(),
            handle: rule.and_then(|rule| rule.handle),
            number: rule.map(|rule| rule.number),
            text: words::rule(host, reference),
        }
    }
}

impl PacketReport {
    pub(super) fn new(packet: &Packet) -> Self {
        let ends = words::ends(packet);
        let arp = match &packet.network {
            Layer3::Arp(arp) => Some((arp.sender, arp.target)),
            Layer3::Ip(_) | Layer3::Other(_) => None,
        };
        let known = |mac: Option<MacAddress>| mac.filter(|mac| *mac != STAND_IN);
        Self {
            text: words::packet(packet),
            protocol: match &packet.network {
                Layer3::Ip(ip) => words::protocol(ip.transport),
                Layer3::Arp(_) => "arp".to_owned(),
                Layer3::Other(number) => format!("{number:#06x}"),
            },
            source_mac: known(packet.source_mac),
            destination_mac: known(packet.destination_mac),
            vlans: packet.tags.clone(),
            source: ends.map(|(from, _)| from.0).or(arp.map(|(sender, _)| sender)),
            source_port: ends.and_then(|(from, _)| from.1),
            destination: ends.map(|(_, to)| to.0).or(arp.map(|(_, target)| target)),
            destination_port: ends.and_then(|(_, to)| to.1),
            length: packet.length,
            dont_fragment: packet.ip().is_some_and(|ip| ip.dont_fragment),
        }
    }
}

impl From<End> for EndReport {
    fn from(end: End) -> Self {
        match end {
            End::Delivered => Self::Delivered,
            End::Leaves => Self::Leaves,
            End::Stops => Self::Stops,
            End::Unknown => Self::Unknown,
        }
    }
}

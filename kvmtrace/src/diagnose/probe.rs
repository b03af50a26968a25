//! What became of the packets that `kvmtrace probe` sent: of their flow in the report and of the flow that answers it.

use crate::diagnose::flows::case::Case;
use crate::diagnose::report::{Cause, FlowReport, Report, Severity, Verdict, Where};
use crate::event::probe::is_probe;
use crate::event::{Address, FlowKey, HostState, Protocol};
use crate::forward::step::{Arrival, Outcome as StepOutcome, Stage, Step, Walk};
use crate::track::Flow;
use serde::Serialize;

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// The answer came back to the sender's own interface.
    Answered,
    /// The packets went out to their receiver; an answer neither came nor was due.
    Delivered,
    /// The answer says no.
    Refused,
    /// The packets left this host as they should, and no answer came.
    Unanswered,
    /// The packets, or the answers to them, entered and never left; no drop was seen.
    Lost,
    /// The packets, or the answers to them, were dropped on this host.
    Dropped,
}

impl Outcome {
    /// All of them, as the command line takes them.
    pub const ALL: [Self; 6] =
        [Self::Answered, Self::Delivered, Self::Refused, Self::Unanswered, Self::Lost, Self::Dropped];

    /// The word of the JSON and the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Answered => "answered",
            Self::Delivered => "delivered",
            Self::Refused => "refused",
            Self::Unanswered => "unanswered",
            Self::Lost => "lost",
            Self::Dropped => "dropped",
        }
    }
}

/// The packets of one probe.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "docs/probe.md describes the keys")]
pub struct Probed {
    #[serde(skip)]
    pub key: FlowKey,
    pub guest: String,
    /// The device that they entered by.
    pub device: String,
    pub protocol: String,
    pub source: String,
    pub source_port: Option<u16>,
    pub destination: String,
    pub destination_port: Option<u16>,
    /// Length from the IP header on, in bytes.
    pub size: u32,
    pub dont_fragment: bool,
    pub sent: u64,
    pub answered: u64,
    /// What the forwarding model says of such a packet.
    pub expected: Option<Expected>,
    pub outcome: Outcome,
    pub cause: Option<Cause>,
    #[serde(rename = "where")]
    pub place: Option<Where>,
    pub severity: Severity,
}

/// The forwarding model's answer for a probe's packet, before it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Expected {
    /// How its walk ends.
    pub outcome: Prediction,
    /// The device where it ends.
    pub device: Option<String>,
    /// That, in words.
    pub text: String,
}

/// How a walk ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Prediction {
    /// At its receiver, or out of this host.
    Delivered,
    /// On this host.
    Dropped,
    /// Nobody can say.
    Unknown,
}

/// What a sweep found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    /// The largest size that passed, in bytes from the IP header on; null where none did.
    pub largest: Option<u32>,
    /// The smallest that did not; null where all did.
    pub next: Option<u32>,
    /// The sender of that one was sent an ICMP error about it; null where all passed.
    pub told: Option<bool>,
}

/// A report narrowed to the probes, and what became of each.
#[derive(Clone, Debug, PartialEq)]
pub struct ProbeReport {
    /// Their flows and answers alone.
    pub report: Report,
    /// In the order in which they were sent; never empty.
    pub probes: Vec<Probed>,
    /// What a sweep found.
    pub limit: Option<Limit>,
}

impl ProbeReport {
    /// The probe that matters most: the worst outcome.
    pub fn worst(&self) -> Option<&Probed> {
        self.probes.iter().max_by_key(|probe| probe.outcome)
    }
}

impl Expected {
    /// The end of the walk that matters: an arrival where there is one (a flood has ends that nobody minds), then what is not
    /// known, then a stop.
    pub fn of(walk: &Walk, host: &HostState) -> Option<Self> {
        let arrives =
            |step: &Step| matches!(&step.outcome, StepOutcome::Arrives(arrival) if *arrival != Arrival::Ignored);
        let unknown = |step: &Step| matches!(step.outcome, StepOutcome::Unknown(_));
        let ends = || walk.ends().map(|(_, step)| step);
        let end = ends()
            .find(|step| arrives(step))
            .or_else(|| ends().find(|step| unknown(step)))
            .or_else(|| ends().last())?;
        let (device, text, outcome) = match &end.outcome {
            StepOutcome::Arrives(arrival) => {
                let (device, text) = arrived(*arrival, host);
                (device, text, Prediction::Delivered)
            }
            StepOutcome::Stops(_) => {
                let device = end.device.map(|device| host.link_name(device));
                let at = device.as_deref().map(|device| format!(" of {device}")).unwrap_or_default();
                (device, format!("it ends {}{at}", stage(end.stage)), Prediction::Dropped)
            }
            StepOutcome::Passes | StepOutcome::Becomes(_) | StepOutcome::Branches | StepOutcome::Unknown(_) => {
                let device = end.device.map(|device| host.link_name(device));
                (device, format!("not known, because of what happens {}", stage(end.stage)), Prediction::Unknown)
            }
        };
        // A part that is not understood stands before the end: then the end is no promise.
        let doubtful = walk.steps.iter().any(unknown) || walk.cut;
        let outcome = if doubtful { Prediction::Unknown } else { outcome };
        Some(Self { outcome, device, text })
    }

    /// The same with what becomes of the answer: one that does not come back is the end that matters.
    #[must_use]
    pub fn and_answer(self, answer: &Self) -> Self {
        match (self.outcome, answer.outcome) {
            (Prediction::Delivered, Prediction::Dropped) => Self {
                outcome: Prediction::Dropped,
                device: answer.device.clone(),
                text: format!("{}, but of the answer: {}", self.text, answer.text),
            },
            (Prediction::Delivered, Prediction::Unknown) => Self {
                outcome: Prediction::Unknown,
                device: answer.device.clone(),
                text: format!("{}; of the answer: {}", self.text, answer.text),
            },
            (_, _) => self,
        }
    }

    /// The prediction and what happened contradict each other.
    pub fn differs(&self, outcome: Outcome) -> bool {
        match self.outcome {
            Prediction::Delivered => matches!(outcome, Outcome::Dropped | Outcome::Lost),
            // What a model without the peer's rules calls dropped may be a refusal.
            Prediction::Dropped => matches!(outcome, Outcome::Answered | Outcome::Delivered),
            Prediction::Unknown => false,
        }
    }
}

fn arrived(arrival: Arrival, host: &HostState) -> (Option<String>, String) {
    let named = |device, words: &str| {
        let name = host.link_name(device);
        (Some(name.clone()), format!("{words} {name}"))
    };
    match arrival {
        Arrival::Guest(device) => named(device, "it reaches the guest behind"),
        Arrival::Uplink(device) => named(device, "it leaves this host by"),
        Arrival::Namespace(device) => named(device, "it leaves this namespace by"),
        Arrival::Host => (None, "this host takes it".to_owned()),
        Arrival::Answered => (None, "this host answers it".to_owned()),
        Arrival::Ignored => (None, "nobody takes it".to_owned()),
    }
}

/// Where a packet is, as the end of "it ends …".
fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::DeviceReceive => "as it is received, at the device",
        Stage::BridgeIngress => "as the bridge takes it up, at the port",
        Stage::BridgeForward => "as the bridge chooses a port, at the bridge",
        Stage::BridgeEgress => "as the bridge sends it, at the port",
        Stage::BridgeLocal => "as the bridge hands it to this host, at the bridge",
        Stage::Firewall(_) => "in the firewall, at the hook",
        Stage::Nat => "as its addresses are translated, at the hook",
        Stage::SourceCheck => "in the check of its source address, at the device",
        Stage::Route => "in the routing, at the device",
        Stage::IpForward => "as it is forwarded, at the device",
        Stage::Neighbour => "as its next hop is looked for, at the device",
        Stage::NeighbourAnswer => "as this host would answer, at the device",
        Stage::Local => "in this host's own stack, at the device",
        Stage::DeviceTransmit => "as it is sent, at the device",
        Stage::Tunnel => "in the tunnel, at the device",
        Stage::Ipsec => "in IPsec, at the device",
        Stage::Switch => "in Open vSwitch, at the port",
        Stage::Guest => "before the guest, at the interface",
    }
}

/// Some `kvmtrace probe` sent the flow, or it answers one that did.
pub fn is_of_probe(case: &Case<'_>) -> bool {
    let marked = |flow: &Flow| flow.entry().is_some_and(|(_, counters)| is_probe(&flow.key, counters.time_to_live));
    let answered = |flow: &Flow| case.scene.track.get(&flow.key.reverse()).is_some_and(marked);
    case.group.flows().any(|flow| marked(flow) || answered(flow))
}

/// The report without all that is not of these probes.
pub fn narrowed(mut report: Report, probes: &[FlowKey]) -> Report {
    report.flows.retain(|flow| probes.iter().any(|key| is(flow, *key) || answers(flow, *key)));
    for flow in &mut report.flows {
        // ARP and DHCP have no room for the mark in their keys.
        flow.probe = true;
    }
    report.findings.clear();
    report.settle_incidents();
    report.ledger.clear();
    let sum = |of: fn(&FlowReport) -> u64| report.flows.iter().map(of).sum();
    report.totals.packets = sum(|flow| flow.packets);
    report.totals.bytes = sum(|flow| flow.bytes);
    report.totals.dropped = sum(|flow| flow.dropped);
    report.totals.flows = report.flows.len() as u64;
    report
}

/// The flow of these packets in a report, and the flow that answers them.
pub fn flows(report: &Report, key: FlowKey) -> (Option<&FlowReport>, Option<&FlowReport>) {
    let there = report.flows.iter().find(|flow| is(flow, key));
    let back = report.flows.iter().find(|flow| answers(flow, key));
    (there, back)
}

/// How it ended: the flow's own fate first, then its answer's.
pub fn outcome(there: &FlowReport, back: Option<&FlowReport>) -> (Outcome, bool) {
    let lost_on_the_way_back = |back: &FlowReport| match back.verdict {
        Verdict::Dropped => Some(Outcome::Dropped),
        Verdict::Lost => Some(Outcome::Lost),
        Verdict::Delivered | Verdict::Fragmented | Verdict::Unanswered | Verdict::Refused => None,
    };
    let back = back.filter(|back| back.packets > 0);
    match there.verdict {
        Verdict::Dropped => (Outcome::Dropped, false),
        Verdict::Lost => (Outcome::Lost, false),
        Verdict::Refused => (Outcome::Refused, false),
        Verdict::Delivered | Verdict::Fragmented | Verdict::Unanswered => match back {
            Some(back) => match lost_on_the_way_back(back) {
                Some(outcome) => (outcome, true),
                None => (Outcome::Answered, false),
            },
            None if there.verdict == Verdict::Unanswered => (Outcome::Unanswered, false),
            None => (Outcome::Delivered, false),
        },
    }
}

/// The flow, as its sender sees it or translated, has these ends.
fn is(flow: &FlowReport, key: FlowKey) -> bool {
    let untagged = |key: FlowKey| FlowKey { vlan: None, ..key };
    untagged(flow.key) == untagged(key)
        || flow.key.protocol == key.protocol
            && flow.translated.as_ref().is_some_and(|other| {
                other.source == key.source.to_string()
                    && other.destination == key.destination.to_string()
                    && other.source_port == key.source_port
                    && other.destination_port == key.destination_port
            })
}

/// The flow answers one with this key.
fn answers(flow: &FlowReport, key: FlowKey) -> bool {
    if is(flow, key.reverse()) {
        return true;
    }
    match (key.protocol, flow.key.protocol) {
        // A solicitation goes to a group, and its target answers.
        (Protocol::Icmpv6 { kind: 135, .. }, Protocol::Icmpv6 { kind: 136, .. }) => {
            flow.key.destination == key.source && solicits(key.destination, flow.key.source)
        }
        // An offer comes from the server, to the address that it offers or to all.
        (Protocol::Udp, Protocol::Udp) => {
            let ports = |key: FlowKey| (key.source_port, key.destination_port);
            ports(key) == (Some(68), Some(67)) && ports(flow.key) == (Some(67), Some(68))
        }
        (_, _) => false,
    }
}

/// The solicited-node group of an address (RFC 4291, 2.7.1).
fn solicits(group: Address, target: Address) -> bool {
    match (group, target) {
        (Address::Ip(std::net::IpAddr::V6(group)), Address::Ip(std::net::IpAddr::V6(target))) => {
            group.octets()[13..] == target.octets()[13..]
        }
        (_, _) => false,
    }
}

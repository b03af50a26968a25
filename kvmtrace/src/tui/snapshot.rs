//! What the screens draw: a report and what belongs to it, made once and then only read.
//!
//! A snapshot is built beside the screen's thread. Everything that costs time per flow (rates, sort keys, the text that
//! a filter searches) is worked out here, so that drawing formats only the rows that are seen.

use super::fault::{self, Fault, FaultSource};
use super::group::{Ends, GroupKeys};
use super::history::{GuestHistory, History};
use super::log::LogEntry;
use super::path::{self, Devices, Way};
use super::rates::FlowRates;
use crate::diagnose::report::{Cause, FlowReport, Latency, Report, Severity, Where};
use crate::event::{HostState, Timestamp};
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write as _;
use std::hash::{Hash as _, Hasher as _};
use std::net::IpAddr;
use std::sync::Arc;

/// Everything that a frame shows, at one moment.
#[derive(Debug)]
pub struct Snapshot {
    /// Rises with every snapshot.
    pub serial: u64,
    /// The moment.
    pub now: Timestamp,
    /// The verdicts.
    pub report: Report,
    /// What belongs to `report.flows`, at the same index.
    pub flows: Vec<FlowFacts>,
    /// The guests, worst first.
    pub guests: Vec<GuestFacts>,
    /// Incidents, and below them what is only noted; worst first.
    pub faults: Vec<Fault>,
    /// The newest events, oldest first.
    pub events: Vec<Arc<LogEntry>>,
    /// When incidents began and ended, oldest first.
    pub turns: Vec<Arc<LogEntry>>,
    /// Sums over all guests.
    pub rates: FlowRates,
    /// The host's devices.
    pub devices: Devices,
    /// The host as it was told last, where that is known.
    pub host: Option<Arc<HostState>>,
    /// What is not in the events.
    pub status: Status,
}

/// What the program knows of itself.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// What tracing costs, where that is known.
    pub cost: Cost,
    /// The file that is being written.
    pub recording: Option<String>,
    /// Where in a recording the screen is.
    pub replay: Option<Replay>,
    /// Something that went wrong beside the screen.
    pub trouble: Option<String>,
}

/// What tracing costs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    /// This process' share of one CPU, in per mille.
    pub cpu_per_mille: Option<u32>,
    /// Mean time of the kernel programs per packet, where the kernel counts it.
    pub nanoseconds_per_packet: Option<u64>,
}

/// Where in a recording the screen is.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Replay {
    /// First event.
    pub start: Timestamp,
    /// Last event.
    pub end: Timestamp,
    /// Stands still.
    pub paused: bool,
    /// How much faster than it happened, in quarters.
    pub quarter_speed: u32,
    /// Which of the recordings that play together is on the screen.
    pub hosts: Hosts,
}

/// Recordings of several hosts that play together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hosts {
    /// The one that is shown, from 0.
    pub shown: usize,
    /// How many: 1 or more.
    pub count: usize,
}

impl Default for Hosts {
    fn default() -> Self {
        Self { shown: 0, count: 1 }
    }
}

/// What is worked out per flow.
#[derive(Debug, Default)]
pub struct FlowFacts {
    /// The same flow has the same id in every snapshot.
    pub id: u64,
    /// Packets, bytes and drops per second.
    pub rates: FlowRates,
    /// From the first hop to the last, where both were seen: the sums over the hops between.
    pub latency: Option<Latency>,
    /// Sort keys of the two ends.
    pub ends: [u128; 2],
    /// Rank of the guest's name.
    pub guest_rank: u32,
    /// The groups that it belongs to.
    pub groups: GroupKeys,
    /// What a filter searches, in lower case.
    pub text: String,
}

/// A guest over all its flows.
#[derive(Debug)]
pub struct GuestFacts {
    /// Index in `report.guests`.
    pub index: usize,
    /// Its rates and their past.
    pub history: GuestHistory,
    /// Number of its flows.
    pub flows: u64,
    /// Packets dropped.
    pub dropped: u64,
    /// Fragments.
    pub fragments: u64,
    /// The worst that it suffers.
    pub severity: Severity,
    /// Why.
    pub cause: Option<Cause>,
    /// What tells of the worst.
    pub worst: Option<FaultSource>,
    /// The ways of its interfaces.
    pub(super) ways: Vec<Way>,
    /// What a filter searches, in lower case.
    pub text: String,
}

/// The parts of a fault that flows and findings share.
#[derive(Clone, Copy, Debug)]
pub struct FaultText<'a> {
    /// Whose.
    pub guest: Option<&'a str>,
    /// Where.
    pub place: Option<&'a Where>,
    /// In a sentence.
    pub explanation: &'a str,
    /// Facts.
    pub evidence: &'a [String],
    /// Cures.
    pub fixes: &'a [crate::diagnose::report::Fix],
}

impl Snapshot {
    /// Builds one from a report; `history` remembers what rates need, and `devices` are the host's.
    pub fn new(
        serial: u64,
        now: Timestamp,
        report: Report,
        history: &mut History,
        events: Vec<Arc<LogEntry>>,
        devices: Devices,
        status: Status,
    ) -> Self {
        let ranks = guest_ranks(&report);
        let ends = Ends::of(&report);
        let mut flows: Vec<FlowFacts> = report.flows.iter().map(|flow| flow_facts(flow, &ranks, &ends)).collect();
        history.measure(now, &report, &mut flows);
        let mut rates = FlowRates::default();
        for flow in &flows {
            rates.add(flow.rates);
        }
        let guests = guests(&report, history, path::of_guests(&report, &devices));
        let faults = fault::faults(&report);
        Self {
            serial,
            now,
            report,
            flows,
            guests,
            faults,
            events,
            turns: Vec::new(),
            rates,
            devices,
            host: None,
            status,
        }
    }

    /// What a fault says.
    pub fn fault_text<'a>(&'a self, fault: &'a Fault) -> FaultText<'a> {
        let guest = match fault.guests.as_slice() {
            [one] => Some(one.as_str()),
            _ => None,
        };
        FaultText { guest, ..self.text_of(fault.source) }
    }

    /// The flow that a fault tells of: of an incident the worst one.
    pub fn flow_of(&self, fault: &Fault) -> Option<usize> {
        match fault.source {
            FaultSource::Flow(index) => Some(index),
            FaultSource::Finding(_) => None,
            FaultSource::Incident(index) => {
                let worst = self.report.incidents.get(index)?.flows.first()?;
                self.report.flows.iter().position(|flow| flow.id == *worst)
            }
        }
    }

    /// What a flow suffers.
    pub fn flow_text(&self, index: usize) -> FaultText<'_> {
        self.text_of(FaultSource::Flow(index))
    }

    /// Why a guest suffers, in words.
    pub fn guest_text(&self, guest: &GuestFacts) -> Option<FaultText<'_>> {
        guest.worst.map(|source| self.text_of(source))
    }

    fn text_of(&self, source: FaultSource) -> FaultText<'_> {
        match source {
            FaultSource::Flow(index) => {
                let flow = &self.report.flows[index];
                FaultText {
                    guest: flow.guest.as_deref(),
                    place: flow.place.as_ref(),
                    explanation: &flow.explanation,
                    evidence: &flow.evidence,
                    fixes: &flow.fixes,
                }
            }
            FaultSource::Incident(index) => {
                let incident = &self.report.incidents[index];
                FaultText {
                    guest: incident.guests.first().map(String::as_str),
                    place: incident.place.as_ref(),
                    explanation: &incident.explanation,
                    evidence: &incident.evidence,
                    fixes: &incident.fixes,
                }
            }
            FaultSource::Finding(index) => {
                let finding = &self.report.findings[index];
                FaultText {
                    guest: finding.guest.as_deref(),
                    place: finding.place.as_ref(),
                    explanation: &finding.explanation,
                    evidence: &finding.evidence,
                    fixes: &finding.fixes,
                }
            }
        }
    }

    /// Something is known of the host; before its first event the trace has only begun.
    pub fn has_begun(&self) -> bool {
        self.report.window.start.0 != 0
    }

    /// Seconds traced so far.
    pub fn seconds(&self) -> u64 {
        // Before the first event there is no start.
        if self.has_begun() { self.now.since(self.report.window.start).0 / 1_000_000_000 } else { 0 }
    }
}

fn guest_ranks(report: &Report) -> BTreeMap<&str, u32> {
    let mut ranks: BTreeMap<&str, u32> = report.guests.iter().map(|guest| (guest.name.as_str(), 0)).collect();
    for (rank, value) in (1..).zip(ranks.values_mut()) {
        *value = rank;
    }
    ranks
}

fn flow_facts(flow: &FlowReport, ranks: &BTreeMap<&str, u32>, ends: &Ends<'_>) -> FlowFacts {
    let mut hasher = DefaultHasher::new();
    (&flow.guest, &flow.device, flow.direction, flow.key).hash(&mut hasher);
    let mut text = String::with_capacity(96);
    for part in [flow.guest.as_deref(), flow.device.as_deref(), Some(flow.protocol.as_str()), flow.cause.map(Cause::id)]
        .into_iter()
        .flatten()
    {
        text.push_str(part);
        text.push(' ');
    }
    // Writing to a String can't fail.
    let _infallible = write!(
        text,
        "{} {} {} {}",
        super::theme::verdict(flow.verdict),
        super::text::protocol(flow),
        super::text::end_point(&flow.source, flow.source_port),
        super::text::end_point(&flow.destination, flow.destination_port)
    );
    text.make_ascii_lowercase();
    let latencies = flow.path.iter().filter_map(|hop| hop.latency_ns);
    let sum = |one: Latency, other: Latency| Latency {
        p50: one.p50.saturating_add(other.p50),
        p99: one.p99.saturating_add(other.p99),
        max: one.max.saturating_add(other.max),
        samples: one.samples.min(other.samples),
    };
    FlowFacts {
        id: hasher.finish(),
        rates: FlowRates::default(),
        latency: latencies.reduce(sum),
        ends: [end_key(&flow.source, flow.source_port), end_key(&flow.destination, flow.destination_port)],
        guest_rank: flow.guest.as_deref().and_then(|guest| ranks.get(guest).copied()).unwrap_or(u32::MAX),
        groups: ends.keys(flow),
        text,
    }
}

/// Addresses in numeric order, IPv4 before IPv6, then ports. The lowest bits of IPv6 addresses give way to the port.
fn end_key(address: &str, port: Option<u16>) -> u128 {
    let port = u128::from(port.unwrap_or(0));
    match address.parse() {
        Ok(IpAddr::V4(address)) => u128::from(u32::from(address)) << 16 | port,
        Ok(IpAddr::V6(address)) => u128::from(address) & !0xffff | port,
        Err(_) => u128::MAX,
    }
}

fn guests(report: &Report, history: &History, ways: Vec<Vec<Way>>) -> Vec<GuestFacts> {
    let mut guests: BTreeMap<&str, GuestFacts> = BTreeMap::new();
    for ((index, guest), ways) in report.guests.iter().enumerate().zip(ways) {
        let mut text = guest.name.to_lowercase();
        for interface in &guest.interfaces {
            let parts = [Some(&interface.device), interface.mac.as_ref(), interface.bridge.as_ref()];
            for part in parts.into_iter().flatten().chain(&interface.uplinks).chain(&interface.addresses) {
                text.push(' ');
                text.push_str(&part.to_lowercase());
            }
        }
        let history = history.guest(&guest.name);
        let (severity, cause) = (Severity::Ok, None);
        guests.insert(
            &guest.name,
            GuestFacts { index, history, flows: 0, dropped: 0, fragments: 0, severity, cause, worst: None, ways, text },
        );
    }
    for (index, flow) in report.flows.iter().enumerate() {
        let Some(guest) = flow.guest.as_deref().and_then(|name| guests.get_mut(name)) else { continue };
        guest.flows += 1;
        guest.dropped += flow.dropped;
        guest.fragments += flow.fragments;
        if flow.severity > guest.severity {
            (guest.severity, guest.cause) = (flow.severity, flow.cause);
            guest.worst = Some(FaultSource::Flow(index));
        }
    }
    for (index, finding) in report.findings.iter().enumerate() {
        let Some(guest) = finding.guest.as_deref().and_then(|name| guests.get_mut(name)) else { continue };
        if finding.severity > guest.severity {
            (guest.severity, guest.cause) = (finding.severity, Some(finding.cause));
            guest.worst = Some(FaultSource::Finding(index));
        }
    }
    // The worst first: what stands there already is graver.
    for (index, incident) in report.incidents.iter().enumerate().rev() {
        for guest in &incident.guests {
            if let Some(guest) = guests.get_mut(guest.as_str()).filter(|guest| guest.severity == incident.severity) {
                guest.cause = Some(incident.cause);
                guest.worst = Some(FaultSource::Incident(index));
            }
        }
    }
    let mut guests: Vec<GuestFacts> = guests.into_values().collect();
    guests.sort_by_cached_key(|guest| {
        (std::cmp::Reverse(guest.severity), super::text::natural(&report.guests[guest.index].name))
    });
    guests
}

//! What a trace that runs for days tells Prometheus: how much passed at each device, what was dropped and why, which
//! faults there are now.
//!
//! Never a series per flow: labels are guests, devices, directions, causes and points, of which there are few whatever a
//! guest sends, and `SERIES` bounds each family even so. Counters never go down: what is added to them is what a
//! flow's counters grew by, and stays whatever becomes of the flow.
//!
//! A flow that was forgotten (there were too many, or it rested) comes back with counters that reach back to the
//! start. It is known by its age: what it counted before is not added a second time.

mod clients;
mod exposition;
pub mod server;

use super::id;
use crate::diagnose::report::{FlowDirection, FlowReport, Report, Severity, Where};
use crate::event::host::PROCESSES;
use crate::event::{Direction, Event, EventKind, FlowKey, FlowSample, IfIndex, Timestamp, Unlisted, UnlistedPlace};
use crate::track::Track;
use exposition::{Exposition, Kind};
use std::collections::BTreeMap;

/// Series of one family at most; what is more is told under [`OTHER`].
const SERIES: usize = 10_000;
/// Stands for the values of all labels of the series that no longer fit.
const OTHER: &str = "other";
/// The cause of drops that were counted without their flows.
const UNLISTED: &str = "unlisted";
/// A flow that a judgement did not know though it had begun so long before was forgotten: the counters are read twice a
/// second.
const FORGOTTEN_NS: u64 = 5_000_000_000;
/// How long reading all counters may take: a flow that begins meanwhile may be read only the next time.
const READING_NS: u64 = 1_000_000_000;
/// A fault is one of now when its flow was seen so recently.
const RECENT_NS: u64 = 60_000_000_000;

/// Counted at a device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    packets: u64,
    bytes: u64,
    fragments: u64,
}

/// `guest`, `device`, `direction`.
type AtDevice = [String; 3];
/// `guest`, `device`, `direction`, `cause`, `point`.
type Dropped = [String; 5];
/// `guest`, `device`, `direction`, `cause`, `point`, `severity`.
type Fault = [String; 6];

const AT_DEVICE: [&str; 3] = ["guest", "device", "direction"];
const DROPPED: [&str; 5] = ["guest", "device", "direction", "cause", "point"];
const FAULT: [&str; 6] = ["guest", "device", "direction", "cause", "point", "severity"];

/// The numbers so far.
#[derive(Debug, Default)]
pub struct Meters {
    /// Counted since the last judgement, by index: names are looked up then.
    pending: BTreeMap<(IfIndex, Direction), Counts>,
    /// When the counters were read that are told now, and when before that.
    readings: [Timestamp; 2],
    passed: BTreeMap<AtDevice, Counts>,
    dropped: BTreeMap<Dropped, u64>,
    faults: BTreeMap<Fault, u64>,
    findings: BTreeMap<Fault, u64>,
    /// What was already counted of each flow's drops: all flows that the last judgement knew.
    told: BTreeMap<FlowKey, u64>,
    losses: [u64; 3],
    /// What was already counted of packets without their flows.
    unlisted: BTreeMap<UnlistedPlace, u64>,
    judged: Option<Timestamp>,
    /// The parts that do not grow by events: as of the last judgement.
    rest: String,
}

/// What kvmtrace itself uses; none where it is not known.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Process {
    /// Time on a CPU, in seconds.
    pub cpu_seconds: Option<f64>,
    /// Memory that is resident, in bytes.
    pub resident_bytes: Option<u64>,
    /// Address space, in bytes.
    pub virtual_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file descriptors.
    pub open_fds: Option<u64>,
    /// How many there may be.
    pub max_fds: Option<u64>,
    /// When it started, in seconds since 1970.
    pub start_seconds: Option<f64>,
}

impl Process {
    /// Its families, by the names that Prometheus' own clients give them.
    pub fn text(&self) -> String {
        let mut out = Exposition::default();
        let mut single = |name: &str, kind, help: &str, value: Option<String>| {
            if let Some(value) = value {
                out.single(name, kind, help, value);
            }
        };
        let number = |value: Option<u64>| value.map(|value| value.to_string());
        let seconds = |value: Option<f64>| value.map(|value| format!("{value:.2}"));
        let cpu = "Time that kvmtrace has spent on a CPU.";
        single("process_cpu_seconds_total", Kind::Counter, cpu, seconds(self.cpu_seconds));
        let resident = "Resident memory of kvmtrace.";
        single("process_resident_memory_bytes", Kind::Gauge, resident, number(self.resident_bytes));
        let space = "Address space of kvmtrace.";
        single("process_virtual_memory_bytes", Kind::Gauge, space, number(self.virtual_bytes));
        single("process_threads", Kind::Gauge, "Threads of kvmtrace.", number(self.threads));
        single("process_open_fds", Kind::Gauge, "Open file descriptors of kvmtrace.", number(self.open_fds));
        single("process_max_fds", Kind::Gauge, "How many there may be.", number(self.max_fds));
        let start = "When kvmtrace started, in seconds since 1970.";
        single("process_start_time_seconds", Kind::Gauge, start, seconds(self.start_seconds));
        out.finish()
    }
}

impl Meters {
    /// Counters of each guest begin at 0: only what rises from there is a rate.
    fn begin_counters(&mut self, report: &Report) {
        for guest in &report.guests {
            for interface in &guest.interfaces {
                let (name, device) = (&guest.name, &interface.device);
                for direction in [Direction::Ingress, Direction::Egress] {
                    bounded(&mut self.passed, [name.clone(), device.clone(), id(direction)]);
                }
                for direction in [FlowDirection::FromGuest, FlowDirection::ToGuest] {
                    let labels = [name.clone(), device.clone(), id(direction), "none".to_owned(), String::new()];
                    bounded(&mut self.dropped, labels);
                }
            }
        }
    }

    /// Takes an event in, before `track` does: what a flow's counters grew by is counted.
    pub fn take(&mut self, event: &Event, track: &Track) {
        if let EventKind::Flow(sample) = &event.kind {
            let [reading, before] = &mut self.readings;
            if *reading < event.time {
                *before = std::mem::replace(reading, event.time);
            }
            let grown = grown(sample, *before, track);
            let counts = self.pending.entry((sample.place.device, sample.place.direction)).or_default();
            counts.packets += grown.packets;
            counts.bytes += grown.bytes;
            counts.fragments += grown.fragments;
        }
        if let EventKind::Unlisted(Unlisted { place: UnlistedPlace::Hook(place), packets, bytes }) = &event.kind {
            let before = track.told_unlisted_at(&UnlistedPlace::Hook(*place));
            let counts = self.pending.entry((place.device, place.direction)).or_default();
            counts.packets += packets.saturating_sub(before.packets);
            counts.bytes += bytes.saturating_sub(before.bytes);
        }
    }

    /// Takes in how things are judged at `now`: the time that `track` knows all about. A quiet trace has no newer event.
    pub fn judge(&mut self, now: Timestamp, report: &Report, track: &Track) {
        let host = track.host();
        for ((device, direction), grown) in std::mem::take(&mut self.pending) {
            let guest = host.guest_of(device).map(|guest| guest.name.clone()).unwrap_or_default();
            let labels = [guest, host.link_name(device), id(direction)];
            let counts = bounded(&mut self.passed, labels);
            counts.packets += grown.packets;
            counts.bytes += grown.bytes;
            counts.fragments += grown.fragments;
        }
        self.begin_counters(report);
        self.count_unlisted(track);
        self.count_drops(report, track);
        self.faults = faults(now, report, track);
        self.findings = findings(report);
        let loss = report.lost;
        for (kept, now) in self.losses.iter_mut().zip([loss.ring_events, loss.flows_evicted, loss.map_full]) {
            *kept = (*kept).max(now);
        }
        self.judged = Some(now);
        self.rest = rest(report, track);
    }

    /// Packets whose flows the kernel's side had no room for. What made room for others here was counted before.
    fn count_unlisted(&mut self, track: &Track) {
        let host = track.host();
        for (place, totals) in track.told_unlisted() {
            let before = self.unlisted.insert(place.clone(), totals.packets).unwrap_or_default();
            let new = totals.packets.saturating_sub(before);
            let UnlistedPlace::Drop(site) = place else { continue };
            if new == 0 {
                continue;
            }
            let guest = site.device.and_then(|device| host.guest_of(device)).map(|guest| guest.name.clone());
            let device = site.device.map(|device| host.link_name(device));
            let labels = [guest, device, None, Some(UNLISTED.to_owned()), None].map(Option::unwrap_or_default);
            *bounded(&mut self.dropped, labels) += new;
        }
    }

    fn count_drops(&mut self, report: &Report, track: &Track) {
        let mut told = BTreeMap::new();
        for flow in &report.flows {
            let before = self.told.get(&flow.key).copied();
            let known = track.get(&flow.key);
            let forgotten = || {
                let begun = known.map(|known| known.first);
                self.judged.zip(begun).is_some_and(|(judged, begun)| judged.since(begun).0 > FORGOTTEN_NS)
            };
            let new = match before {
                Some(before) => flow.dropped.saturating_sub(before),
                None if forgotten() => 0,
                None => flow.dropped,
            };
            told.insert(flow.key, flow.dropped.max(before.unwrap_or(0)));
            if new > 0 {
                let cause = flow.cause.map_or("none", |cause| cause.id());
                let labels = place(flow.guest.as_deref(), &direction(flow), cause, flow.place.as_ref());
                *bounded(&mut self.dropped, labels) += new;
            }
        }
        self.told = told;
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let mut out = Exposition::default();
        let at_device = |value: fn(&Counts) -> u64| {
            self.passed.iter().map(move |(labels, counts)| (named(AT_DEVICE, labels), value(counts)))
        };
        out.family(
            "kvmtrace_packets_total",
            Kind::Counter,
            "Packets seen at a device, by side.",
            at_device(|counts| counts.packets),
        );
        out.family(
            "kvmtrace_bytes_total",
            Kind::Counter,
            "Bytes seen at a device, Ethernet headers included.",
            at_device(|counts| counts.bytes),
        );
        out.family(
            "kvmtrace_fragments_total",
            Kind::Counter,
            "IP fragments seen at a device.",
            at_device(|counts| counts.fragments),
        );
        out.family(
            "kvmtrace_dropped_packets_total",
            Kind::Counter,
            "Packets dropped on this host, by the cause of their flow as it was judged when they were counted.",
            self.dropped.iter().map(|(labels, count)| (named(DROPPED, labels), count)),
        );
        out.family(
            "kvmtrace_faulty_flows",
            Kind::Gauge,
            "Flows seen within the last minute that have a fault.",
            self.faults.iter().map(|(labels, count)| (named(FAULT, labels), count)),
        );
        out.family(
            "kvmtrace_findings",
            Kind::Gauge,
            "Faults of devices, guests or the host rather than of one flow.",
            self.findings.iter().map(|(labels, count)| (named(FAULT, labels), count)),
        );
        let [ring, evicted, full] = self.losses;
        out.single(
            "kvmtrace_lost_events_total",
            Kind::Counter,
            "Records that found the ring buffer full: the numbers here are too low by what they told.",
            ring,
        );
        out.single("kvmtrace_evicted_flows_total", Kind::Counter, "Flows that had to make room for others.", evicted);
        out.single(
            "kvmtrace_uncounted_packets_total",
            Kind::Counter,
            "Packets that found a map of the kernel's full.",
            full,
        );
        out.finish() + &self.rest
    }
}

/// What a flow has grown by at a place since `track` last heard of it. One that is not known, and began before the
/// counters were last read, was told then and has been forgotten.
fn grown(sample: &FlowSample, before: Timestamp, track: &Track) -> Counts {
    let counters = &sample.counters;
    let now_counts =
        Counts { packets: counters.packets, bytes: counters.bytes, fragments: u64::from(counters.fragments) };
    match track.get(&sample.flow).and_then(|flow| flow.places.get(&sample.place)) {
        Some(before) => Counts {
            packets: now_counts.packets.saturating_sub(before.packets),
            bytes: now_counts.bytes.saturating_sub(before.bytes),
            fragments: now_counts.fragments.saturating_sub(u64::from(before.fragments)),
        },
        None if counters.first.0.saturating_add(READING_NS) < before.0 => Counts::default(),
        None => now_counts,
    }
}

/// The series with these labels, or the one for all that no longer fit.
fn bounded<const N: usize, V: Default>(series: &mut BTreeMap<[String; N], V>, labels: [String; N]) -> &mut V {
    let fits = series.len() < SERIES || series.contains_key(&labels);
    series.entry(if fits { labels } else { [(); N].map(|()| OTHER.to_owned()) }).or_default()
}

fn named<'a, const N: usize>(names: [&'static str; N], values: &'a [String; N]) -> Vec<(&'static str, &'a str)> {
    names.into_iter().zip(values.iter().map(String::as_str)).collect()
}

/// A probe is not the guest's traffic.
fn direction(flow: &FlowReport) -> String {
    if flow.probe { "probe".to_owned() } else { id(flow.direction) }
}

fn place(guest: Option<&str>, direction: &str, cause: &str, place: Option<&Where>) -> Dropped {
    let device = place.and_then(|place| place.device.clone()).unwrap_or_default();
    let point = place.map(|place| id(place.point)).unwrap_or_default();
    [guest.unwrap_or_default().to_owned(), device, direction.to_owned(), cause.to_owned(), point]
}

fn with_severity([guest, device, direction, cause, point]: Dropped, severity: Severity) -> Fault {
    [guest, device, direction, cause, point, id(severity)]
}

fn faults(now: Timestamp, report: &Report, track: &Track) -> BTreeMap<Fault, u64> {
    let mut faults = BTreeMap::new();
    for flow in report.flows.iter().filter(|flow| flow.severity >= Severity::Warning) {
        let last = track.get(&flow.key).map(|known| known.last);
        let (Some(cause), Some(last)) = (flow.cause, last) else { continue };
        if now.since(last).0 > RECENT_NS {
            continue;
        }
        let labels = place(flow.guest.as_deref(), &direction(flow), cause.id(), flow.place.as_ref());
        *bounded(&mut faults, with_severity(labels, flow.severity)) += 1;
    }
    faults
}

fn findings(report: &Report) -> BTreeMap<Fault, u64> {
    let mut findings = BTreeMap::new();
    for finding in &report.findings {
        let labels = place(finding.guest.as_deref(), "", finding.cause.id(), finding.place.as_ref());
        *bounded(&mut findings, with_severity(labels, finding.severity)) += 1;
    }
    findings
}

/// What the report itself tells.
fn rest(report: &Report, track: &Track) -> String {
    let mut out = Exposition::default();
    out.family(
        "kvmtrace_degraded",
        Kind::Gauge,
        "1 for each part of the trace that is missing.",
        report.degraded.iter().map(|degraded| ([("what", degraded.what.as_str()), ("why", degraded.why.as_str())], 1)),
    );
    out.single("kvmtrace_guests", Kind::Gauge, "Guests of this host.", report.guests.len());
    out.single("kvmtrace_flows", Kind::Gauge, "Flows that are remembered.", report.flows.len());
    // A guest whose process can't be seen is neither up nor down.
    let unseen = track.host().is_cut(PROCESSES);
    let seen = report.guests.iter().filter(|guest| guest.pid.is_some() || !unseen);
    let running = seen.flat_map(|guest| {
        guest.interfaces.iter().map(move |interface| {
            let labels = [
                ("guest", guest.name.as_str()),
                ("device", interface.device.as_str()),
                ("bridge", interface.bridge.as_deref().unwrap_or_default()),
                ("manager", guest.manager.as_deref().unwrap_or_default()),
            ];
            (labels, u8::from(guest.pid.is_some()))
        })
    });
    out.family("kvmtrace_guest_up", Kind::Gauge, "1 while a process holds the guest's interface.", running);
    let host = &report.host;
    let labels = [("host", host.name.as_str()), ("kernel", &host.kernel), ("version", &host.kvmtrace)];
    out.family("kvmtrace_info", Kind::Gauge, "Always 1: who traces what.", [(labels, 1)]);
    let start = track.start().0 as f64 / 1e9;
    out.single(
        "kvmtrace_start_time_seconds",
        Kind::Gauge,
        "When the trace began, in seconds since 1970.",
        format!("{start:.3}"),
    );
    out.finish()
}

#[cfg(test)]
mod tests;

//! Recordings of several hosts as one report: what one host sent and another received is one flow with one path.
//!
//! 1. Two flows are one if protocol, addresses, ports and the identifier of an echo are equal (VLAN tags may differ between
//!    hosts).
//! 2. The host where the flow comes from a guest stands first, the one where it goes to a guest last; else the one with
//!    fewer packets lost before it, that is, with more packets.
//! 3. The hosts' clocks differ. Where a flow and its answer crossed between the same two hosts, half of the difference of
//!    the two apparent delays is the clocks' difference (as NTP has it, for equal delays both ways); the median over all
//!    such pairs corrects the latency of the hop between the hosts, which is null where there is no such pair.
//! 4. "Nothing came back from beyond this host" is no verdict when the host beyond tells more: then its verdict stands.
//!    Else the graver one does.
//!
//! Devices are named `host/device` when there are several hosts, and what a fix says begins with the host to run it on.
//! Hosts of one name are one only if they have a MAC address in common; else the later ones are `name#2`, `name#3`. A flow of two
//! hosts keeps the id that it has on the first of them; no two flows have the same.

use crate::diagnose::identity::{hash, icmp_id};
use crate::diagnose::report::{
    Finding, Fix, FlowDirection, FlowReport, Incident, Latency, Origin, Report, Totals, TraceKey, Verdict,
};
use crate::event::{FlowKey, MacAddress, Timestamp};
use crate::track::Track;
use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Flows whose times are kept, per host.
const TIMES: usize = 1 << 16;

/// When the first packet of a flow came to a host and when it left.
#[derive(Clone, Copy, Debug)]
struct Times {
    first: Timestamp,
    last: Timestamp,
}

/// A host's report, and the times that a report does not tell.
#[derive(Debug)]
pub struct Judged {
    report: Report,
    times: HashMap<Name, (Times, Name)>,
    /// Of the host's own devices.
    macs: BTreeSet<MacAddress>,
    /// The network namespace, where the operator named one.
    netns: Option<String>,
}

/// Protocol, both ends, and the identifier of an echo.
type Name = (String, String, Option<u16>, String, Option<u16>, Option<u16>);

/// What [`join`] makes of the judgements of several traces.
#[derive(Debug)]
pub struct Joined {
    /// One report of all.
    pub report: Report,
    /// The host of each trace, as the report names it.
    pub hosts: Vec<String>,
    /// The traces are of several hosts: the names of devices begin with their host's.
    pub several: bool,
}

fn name_of_key(key: FlowKey) -> Name {
    let (source, destination) = (key.source.to_string(), key.destination.to_string());
    (key.protocol.to_string(), source, key.source_port, destination, key.destination_port, icmp_id(&key))
}

fn name(flow: &FlowReport) -> Name {
    let FlowReport { protocol, source, source_port, destination, destination_port, icmp_id, .. } = flow;
    (protocol.clone(), source.clone(), *source_port, destination.clone(), *destination_port, *icmp_id)
}

impl Judged {
    /// Keeps of a trace what joining needs.
    pub fn new(report: Report, track: &Track) -> Self {
        let mut times = HashMap::new();
        for flow in track.flows().take(TIMES) {
            let seen = flow.places.values().map(|counters| counters.first);
            if let (Some(first), Some(last)) = (seen.clone().min(), seen.max()) {
                times.entry(name_of_key(flow.key)).or_insert((Times { first, last }, name_of_key(flow.key.reverse())));
            }
        }
        let host = track.host();
        let own = host.links.values().filter(|link| host.guest_of(link.index).is_none());
        let macs = own.filter_map(|link| link.mac).filter(|mac| !mac.is_zero()).collect();
        Self { report, times, macs, netns: host.netns.clone() }
    }

    /// Traces of one machine; where nothing tells, the name has to do.
    fn is_of_same_host(&self, other: &Self) -> bool {
        self.macs.is_empty() || other.macs.is_empty() || !self.macs.is_disjoint(&other.macs)
    }
}

/// Gives different hosts different names; tells whether there are several.
fn tell_apart(hosts: &mut [Judged]) -> bool {
    // The first trace of each host.
    let mut firsts: Vec<usize> = Vec::new();
    // Namespaces of one machine are told apart as hosts are.
    let several = hosts.len() > 1;
    for host in hosts.iter_mut() {
        if let Some(netns) = host.netns.as_ref().filter(|_| several) {
            host.report.host.name = format!("{}/{netns}", host.report.host.name);
            rename_incidents(&mut host.report);
        }
    }
    let named: Vec<String> = hosts.iter().map(|host| host.report.host.name.clone()).collect();
    for index in 0..hosts.len() {
        let (earlier, later) = hosts.split_at_mut(index);
        let (Some(host), Some(name)) = (later.first_mut(), named.get(index)) else { break };
        let twins = firsts.iter().filter(|first| named.get(**first) == Some(name));
        let twins: Vec<&Judged> = twins.filter_map(|first| earlier.get(*first)).collect();
        if let Some(same) = twins.iter().find(|twin| twin.is_of_same_host(host)) {
            host.report.host.name.clone_from(&same.report.host.name);
            if host.report.host.name != *name {
                rename_incidents(&mut host.report);
            }
            continue;
        }
        if !twins.is_empty() {
            host.report.host.name = format!("{name}#{}", twins.len() + 1);
            rename_incidents(&mut host.report);
        }
        firsts.push(index);
    }
    firsts.len() > 1
}

/// Incidents are known by their host's name, among other things: another name gives another id.
fn rename_incidents(report: &mut Report) {
    let name = report.host.name.clone();
    let renamed = |id: &mut String| *id = hash(&format!("{name}|{id}"));
    report.incidents.iter_mut().for_each(|incident| renamed(&mut incident.id));
    report.flows.iter_mut().filter_map(|flow| flow.incident.as_mut()).for_each(renamed);
    report.findings.iter_mut().filter_map(|finding| finding.label.incident.as_mut()).for_each(renamed);
    for finding in &mut report.findings {
        renamed(&mut finding.label.id);
    }
    for incident in &mut report.incidents {
        incident.findings.iter_mut().for_each(renamed);
    }
}

/// One report of all; of one host it is just that host's.
pub fn join(mut hosts: Vec<Judged>) -> Option<Joined> {
    let several = tell_apart(&mut hosts);
    let names = hosts.iter().map(|host| host.report.host.name.clone()).collect();
    for (number, host) in hosts.iter_mut().enumerate() {
        for flow in &mut host.report.flows {
            flow.trace = number;
            flow.other_keys.iter_mut().for_each(|key| key.trace = number);
        }
    }
    if several {
        for host in &mut hosts {
            name_host(&mut host.report);
        }
    }
    let mut hosts = hosts.into_iter();
    let mut joined = hosts.next()?;
    for other in hosts {
        let delta = clock_difference(&joined, &other);
        joined.report = merge(joined.report, other.report, several, |flow, first_is_ours| {
            let (ours, theirs) = (joined.times.get(flow)?.0, other.times.get(flow)?.0);
            let apparent = if first_is_ours { gap(ours.last, theirs.first) } else { gap(theirs.last, ours.first) };
            let correction = if first_is_ours { delta? } else { -delta? };
            u64::try_from(apparent - correction).ok()
        });
        for (name, times) in other.times {
            joined.times.entry(name).or_insert(times);
        }
    }
    Some(Joined { report: joined.report, hosts: names, several })
}

fn gap(from: Timestamp, to: Timestamp) -> i64 {
    i64::try_from(i128::from(to.0) - i128::from(from.0)).unwrap_or(0)
}

/// How far the clock of `b` is ahead of that of `a`, in nanoseconds.
fn clock_difference(a: &Judged, b: &Judged) -> Option<i64> {
    let mut differences: Vec<i64> = Vec::new();
    for (name, (there_a, answer)) in &a.times {
        let (Some((there_b, _)), Some((back_a, _)), Some((back_b, _))) =
            (b.times.get(name), a.times.get(answer), b.times.get(answer))
        else {
            continue;
        };
        // Of the two flows of a conversation take the one that came first, whichever way it went.
        let forth = gap(there_a.last, there_b.first);
        let back = gap(back_b.last, back_a.first);
        if there_a.first < back_a.first {
            differences.push(forth.saturating_sub(back) / 2);
        }
    }
    differences.sort_unstable();
    differences.get(differences.len() / 2).copied()
}

/// Says which host the devices are on.
fn name_host(report: &mut Report) {
    let host = report.host.name.clone();
    name_origins(report, &host);
    for incident in &mut report.incidents {
        incident
            .place
            .iter_mut()
            .filter_map(|place| place.device.as_mut())
            .for_each(|device| *device = format!("{host}/{device}"));
        incident.explanation = format!("{host}: {}", incident.explanation);
        incident.evidence.iter_mut().for_each(|line| *line = format!("{host}: {line}"));
        name_fixes(&host, &mut incident.fixes);
    }
    let prefix = |device: &mut String| *device = format!("{host}/{device}");
    for flow in &mut report.flows {
        flow.device.iter_mut().for_each(prefix);
        flow.path.iter_mut().for_each(|hop| prefix(&mut hop.device));
        flow.place.iter_mut().filter_map(|place| place.device.as_mut()).for_each(prefix);
        flow.evidence.iter_mut().for_each(|line| *line = format!("{host}: {line}"));
        if !flow.explanation.is_empty() {
            flow.explanation = format!("{host}: {}", flow.explanation);
        }
        name_fixes(&host, &mut flow.fixes);
    }
    for finding in &mut report.findings {
        finding.place.iter_mut().filter_map(|place| place.device.as_mut()).for_each(prefix);
        finding.explanation = format!("{host}: {}", finding.explanation);
        finding.evidence.iter_mut().for_each(|line| *line = format!("{host}: {line}"));
        name_fixes(&host, &mut finding.fixes);
    }
    for interface in report.guests.iter_mut().flat_map(|guest| &mut guest.interfaces) {
        prefix(&mut interface.device);
        interface.bridge.iter_mut().for_each(prefix);
        interface.uplinks.iter_mut().for_each(prefix);
    }
    report.lost_at.iter_mut().filter_map(|lost| lost.device.as_mut()).for_each(prefix);
    report.ledger.iter_mut().for_each(|account| prefix(&mut account.device));
    report.degraded.iter_mut().for_each(|degraded| degraded.what = format!("{host}: {}", degraded.what));
}

/// Hosts of one name were given different ones.
fn name_origins(report: &mut Report, host: &str) {
    let flows = report
        .flows
        .iter_mut()
        .flat_map(|flow| std::iter::once(&mut flow.origin).chain(fixes_origins(&mut flow.fixes)));
    flows.for_each(|origin| host.clone_into(&mut origin.host));
    let findings = report.findings.iter_mut();
    let findings = findings
        .flat_map(|finding| std::iter::once(&mut finding.label.origin).chain(fixes_origins(&mut finding.fixes)));
    findings.for_each(|origin| host.clone_into(&mut origin.host));
    let incidents = report.incidents.iter_mut();
    let incidents =
        incidents.flat_map(|incident| std::iter::once(&mut incident.origin).chain(fixes_origins(&mut incident.fixes)));
    incidents.for_each(|origin| host.clone_into(&mut origin.host));
    report.guests.iter_mut().for_each(|guest| host.clone_into(&mut guest.origin.host));
}

fn fixes_origins(fixes: &mut [Fix]) -> impl Iterator<Item = &mut Origin> {
    fixes.iter_mut().map(|fix| &mut fix.origin)
}

/// The incidents of all hosts, each with the flows that go back to it now: the half of a flow on one host may have given way to
/// the verdict of the other.
fn incidents(all: Vec<Incident>, flows: &[FlowReport], findings: &[Finding]) -> Vec<Incident> {
    let mut kept: Vec<Incident> = Vec::new();
    for mut incident in all {
        // Two traces of one host have the same fault.
        if kept.iter().any(|known| known.id == incident.id) {
            continue;
        }
        let is_of = |id: &Option<String>| id.as_deref() == Some(incident.id.as_str());
        let of_it: Vec<&FlowReport> = flows.iter().filter(|flow| is_of(&flow.incident)).collect();
        let found: Vec<String> = findings
            .iter()
            .filter(|finding| is_of(&finding.label.incident))
            .map(|finding| finding.label.id.clone())
            .collect();
        if of_it.is_empty() && found.is_empty() {
            continue;
        }
        incident.first_seen = of_it.iter().map(|flow| flow.first_seen).min().unwrap_or(incident.first_seen);
        incident.last_seen = of_it.iter().map(|flow| flow.last_seen).max().unwrap_or(incident.last_seen);
        incident.flows = of_it.iter().map(|flow| flow.id.clone()).collect();
        incident.findings = found;
        kept.push(incident);
    }
    kept.sort_by_key(|incident| {
        (Reverse(incident.severity), Reverse(incident.flows.len()), Reverse(incident.packets), incident.id.clone())
    });
    kept
}

fn name_fixes(host: &str, fixes: &mut [Fix]) {
    for fix in fixes {
        fix.why = format!("on {host}: {}", fix.why);
    }
}

/// `latency` tells how long a flow took from the first host to the second, given which of them is ours.
fn merge(ours: Report, mut theirs: Report, several: bool, latency: impl Fn(&Name, bool) -> Option<u64>) -> Report {
    let mut flows = ours.flows;
    let mut known: HashMap<Name, usize> = HashMap::new();
    if several {
        for (index, flow) in flows.iter().enumerate() {
            known.entry(name(flow)).or_insert(index);
        }
    }
    let ids = rename_flows(&flows, &known, &mut theirs);
    rename_broken(&ids, &mut theirs);
    for flow in theirs.flows {
        match known.remove(&name(&flow)).and_then(|index| flows.get_mut(index)) {
            Some(known) => *known = one(known.clone(), flow, &latency),
            None => flows.push(flow),
        }
    }
    flows.sort_by_key(|flow| {
        (std::cmp::Reverse(flow.severity), std::cmp::Reverse(flow.verdict), std::cmp::Reverse(flow.bytes), name(flow))
    });
    let mut host = ours.host;
    if several && !host.name.split('+').any(|known| known == theirs.host.name) {
        host.name = format!("{}+{}", host.name, theirs.host.name);
        if host.kernel != theirs.host.kernel {
            host.kernel = format!("{}+{}", host.kernel, theirs.host.kernel);
        }
    }
    let mut window = ours.window;
    window.start = window.start.min(theirs.window.start);
    window.end = window.end.max(theirs.window.end);
    #[expect(clippy::cast_precision_loss, reason = "2^53 ns are 104 days")]
    let nanoseconds = window.end.since(window.start).0 as f64;
    window.seconds = nanoseconds / 1e9;
    let mut lost = ours.lost;
    lost.ring_events += theirs.lost.ring_events;
    lost.flows_evicted += theirs.lost.flows_evicted;
    lost.map_full += theirs.lost.map_full;
    lost.rule_messages += theirs.lost.rule_messages;
    let sum = |count: fn(&FlowReport) -> u64| flows.iter().map(count).sum();
    let totals = Totals {
        flows: flows.len() as u64,
        packets: sum(|flow| flow.packets),
        bytes: sum(|flow| flow.bytes),
        dropped: sum(|flow| flow.dropped),
        fragmented: ours.totals.fragmented + theirs.totals.fragmented,
    };
    let mut findings = [ours.findings, theirs.findings].concat();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    let incidents = incidents([ours.incidents, theirs.incidents].concat(), &flows, &findings);
    Report {
        schema: ours.schema,
        host,
        window,
        degraded: [ours.degraded, theirs.degraded].concat(),
        lost,
        lost_at: [ours.lost_at, theirs.lost_at].concat(),
        totals,
        guests: [ours.guests, theirs.guests].concat(),
        incidents,
        flows,
        findings,
        command_status: ours.command_status.or(theirs.command_status),
        ledger: [ours.ledger, theirs.ledger].concat(),
        reachability: None,
        reachability_left_out: None,
    }
}

/// Gives a flow of both the id that it has in ours, and one whose id is taken another; returns the ids that changed.
fn rename_flows(ours: &[FlowReport], known: &HashMap<Name, usize>, theirs: &mut Report) -> HashMap<String, String> {
    let mut taken: HashSet<String> = ours.iter().map(|flow| flow.id.clone()).collect();
    let mut joined = HashSet::new();
    let mut renamed = HashMap::new();
    for flow in &mut theirs.flows {
        let same = known.get(&name(flow)).filter(|index| joined.insert(**index)).and_then(|index| ours.get(*index));
        let mut id = same.map_or_else(|| flow.id.clone(), |same| same.id.clone());
        while same.is_none() && !taken.insert(id.clone()) {
            id = hash(&format!("{id}|{}", flow.trace));
        }
        if id != flow.id {
            renamed.insert(std::mem::replace(&mut flow.id, id.clone()), id);
        }
    }
    renamed
}

/// The flows that a fix would break, by their new ids.
fn rename_broken(ids: &HashMap<String, String>, report: &mut Report) {
    let of_flows = report.flows.iter_mut().flat_map(|flow| &mut flow.fixes);
    let of_findings = report.findings.iter_mut().flat_map(|finding| &mut finding.fixes);
    let of_incidents = report.incidents.iter_mut().flat_map(|incident| &mut incident.fixes);
    let predictions = of_flows.chain(of_findings).chain(of_incidents).filter_map(|fix| fix.prediction.as_mut());
    for id in predictions.flat_map(|prediction| &mut prediction.breaks) {
        if let Some(new) = ids.get(id) {
            id.clone_from(new);
        }
    }
}

/// One flow of two hosts' halves.
fn one(ours: FlowReport, theirs: FlowReport, latency: &impl Fn(&Name, bool) -> Option<u64>) -> FlowReport {
    let ours_first = match (ours.direction, theirs.direction) {
        (FlowDirection::FromGuest, _) | (_, FlowDirection::ToGuest) => true,
        (FlowDirection::ToGuest, _) | (_, FlowDirection::FromGuest) => false,
        _ => ours.packets >= theirs.packets,
    };
    let between = latency(&name(&ours), ours_first);
    let id = ours.id.clone();
    let (first, mut second) = if ours_first { (ours, theirs) } else { (theirs, ours) };
    if let Some(hop) = second.path.first_mut() {
        hop.latency_ns = between.map(Latency::once);
    }
    let direction = match (first.direction, second.direction) {
        (FlowDirection::FromGuest, FlowDirection::ToGuest) => FlowDirection::GuestToGuest,
        (direction, _) => direction,
    };
    let beyond = first.verdict == Verdict::Unanswered;
    let rank = |flow: &FlowReport| (flow.severity, flow.verdict);
    let judge = if beyond || rank(&second) > rank(&first) { &second } else { &first };
    let seen_there = TraceKey { trace: second.trace, key: second.key };
    let other_keys = [first.other_keys.clone(), vec![seen_there], second.other_keys.clone()].concat();
    FlowReport {
        id,
        other_keys,
        direction,
        origin: judge.origin.clone(),
        incident: judge.incident.clone(),
        basis: judge.basis,
        root: judge.root.clone(),
        first_seen: first.first_seen.min(second.first_seen),
        last_seen: first.last_seen.max(second.last_seen),
        probe: first.probe || second.probe,
        verdict: judge.verdict,
        cause: judge.cause,
        severity: judge.severity,
        place: judge.place.clone(),
        explanation: judge.explanation.clone(),
        fixes: judge.fixes.clone(),
        complete: first.complete && second.complete,
        packets: first.packets.max(second.packets),
        bytes: first.bytes.max(second.bytes),
        dropped: first.dropped + second.dropped,
        fragments: first.fragments.max(second.fragments),
        evidence: [first.evidence.clone(), second.evidence.clone()].concat(),
        path: [first.path.clone(), second.path.clone()].concat(),
        translated: first.translated.clone().or_else(|| second.translated.clone()),
        ..first
    }
}

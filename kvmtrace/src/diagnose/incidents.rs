//! One fault, reported once: flows and findings that go back to one root are one incident.
//!
//! 1. Flows and findings of severity `warning` or worse belong to an incident; others belong to none.
//! 2. Two of them are one incident if they have the same cause and the same anchor ([`anchor`]): the rule that drops them,
//!    the service or the address that does not answer, the setting that one command changes, else the device.
//! 3. A flow and its answers that have the same cause are one incident, whatever their anchors are.
//! 4. The id is a hash of host, cause and anchor: the same fault has the same id in every trace of this host.
//! 5. The fixes bring all of its flows through ([`joint`]); those for the worst flow alone come after them.

mod anchor;
mod joint;

use super::facts::scene::Scene;
use super::flows::case::Case;
use super::identity::hash;
use super::offer::offer;
use super::predict::{Predictor, Suffering};
use super::report::{Basis, Cause, Finding, Fix, FlowReport, Incident, Label, Origin, Severity, Verdict};
use super::words;
use crate::event::FlowKey;
use std::collections::{BTreeMap, BTreeSet};

/// Evidence lines that an incident shows.
const EVIDENCE: usize = 8;
/// Flows of an incident that its fixes are tried for.
const TRIED: usize = 64;
/// Unanswered destinations beyond one device that are incidents of their own; more than that have one root.
const DESTINATIONS: usize = 8;

/// What an incident consists of, by index.
#[derive(Debug, Default)]
struct Members {
    flows: Vec<usize>,
    findings: Vec<usize>,
}

/// Forms the incidents, and writes their ids into flows and findings. `cases` are those of the flows, by id.
pub(super) fn incidents(
    scene: &Scene<'_>,
    predictor: &Predictor<'_, '_>,
    cases: &BTreeMap<&str, &Case<'_>>,
    flows: &mut [FlowReport],
    findings: &mut [Finding],
) -> Vec<Incident> {
    let groups = groups(scene, cases, flows, findings);
    let mut incidents = Vec::new();
    for ((cause, anchor), members) in groups {
        let origin = Origin::of(scene.host);
        let netns = origin.netns.clone().unwrap_or_default();
        let id = hash(&format!("{}|{netns}|{}|{anchor}", origin.host, cause.id()));
        for index in &members.flows {
            if let Some(flow) = flows.get_mut(*index) {
                flow.incident = Some(id.clone());
            }
        }
        for index in &members.findings {
            if let Some(finding) = findings.get_mut(*index) {
                finding.label.incident = Some(id.clone());
            }
        }
        let of_it: Vec<&FlowReport> = members.flows.iter().filter_map(|index| flows.get(*index)).collect();
        let found: Vec<&Finding> = members.findings.iter().filter_map(|index| findings.get(*index)).collect();
        let tried: Vec<Suffering> = of_it
            .iter()
            .filter_map(|flow| Suffering::of(cases.get(flow.id.as_str())?, flow.cause?, flow.basis))
            .take(TRIED)
            .collect();
        let mut fixes = joint::fixes(scene, predictor, &of_it, &found, &tried);
        offer(scene.host, &mut fixes);
        incidents.push(incident(scene, id, cause, &of_it, &found, fixes));
    }
    incidents.sort_by(|a, b| {
        (std::cmp::Reverse(a.severity), std::cmp::Reverse(a.flows.len()), std::cmp::Reverse(a.packets), a.cause, &a.id)
            .cmp(&(
                std::cmp::Reverse(b.severity),
                std::cmp::Reverse(b.flows.len()),
                std::cmp::Reverse(b.packets),
                b.cause,
                &b.id,
            ))
    });
    incidents
}

/// Gives each finding its id and its host; a finding that is the same in two traces has the same id.
pub(super) fn label(scene: &Scene<'_>, findings: &mut [Finding], basis: Basis) {
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    let origin = Origin::of(scene.host);
    for finding in findings {
        let device = finding.place.as_ref().and_then(|place| place.device.as_deref()).unwrap_or_default();
        let guest = finding.guest.as_deref().unwrap_or_default();
        let name = format!("{}|{}|{guest}|{device}", origin.host, finding.cause.id());
        let number = seen.entry(name.clone()).or_default();
        finding.label = Label { id: hash(&format!("{name}|{number}")), origin: origin.clone(), incident: None, basis };
        *number += 1;
    }
}

type Key = (Cause, String);

/// Which flows and findings are one.
fn groups(
    scene: &Scene<'_>,
    cases: &BTreeMap<&str, &Case<'_>>,
    flows: &[FlowReport],
    findings: &[Finding],
) -> BTreeMap<Key, Members> {
    let is_fault = |severity: Severity| severity >= Severity::Warning;
    let mut keys: BTreeMap<usize, Key> = BTreeMap::new();
    for (index, flow) in flows.iter().enumerate().filter(|(_, flow)| is_fault(flow.severity)) {
        let cause = flow.cause.unwrap_or(Cause::Unclassified);
        keys.insert(index, (cause, anchor::of_flow(scene, flow, cases.get(flow.id.as_str()).copied())));
    }
    merge_scans(flows, &mut keys);
    // A flow and its answers: both go by the anchor of the flow that comes first.
    let by_key: BTreeMap<FlowKey, usize> =
        keys.keys().rev().filter_map(|index| Some((flows.get(*index)?.key, *index))).collect();
    let answers: Vec<(usize, Key)> = keys
        .iter()
        .filter_map(|(index, (cause, _))| {
            let other = by_key.get(&flows.get(*index)?.key.reverse()).filter(|other| *other < index)?;
            keys.get(other).filter(|(other, _)| other == cause).map(|key| (*index, key.clone()))
        })
        .collect();
    keys.extend(answers);
    let mut groups: BTreeMap<Key, Members> = BTreeMap::new();
    for (index, key) in keys {
        groups.entry(key).or_default().flows.push(index);
    }
    for (index, finding) in findings.iter().enumerate().filter(|(_, finding)| is_fault(finding.severity)) {
        let own = (finding.cause, anchor::of_finding(finding));
        let key = if groups.contains_key(&own) { own } else { related(&groups, flows, finding).unwrap_or(own) };
        groups.entry(key).or_default().findings.push(index);
    }
    groups
}

/// The one incident of flows with the cause of a finding, at the finding's device or of its guest.
fn related(groups: &BTreeMap<Key, Members>, flows: &[FlowReport], finding: &Finding) -> Option<Key> {
    let device = |place: &Option<super::report::Where>| place.as_ref().and_then(|place| place.device.clone());
    let is_related = |members: &Members| {
        members.flows.iter().filter_map(|index| flows.get(*index)).any(|flow| {
            device(&finding.place).is_some() && device(&flow.place) == device(&finding.place)
                || finding.guest.is_some() && flow.guest == finding.guest
        })
    };
    let mut found = groups.iter().filter(|((cause, _), members)| *cause == finding.cause && is_related(members));
    let first = found.next()?;
    found.next().is_none().then(|| first.0.clone())
}

/// Many destinations beyond one device that do not answer are one fault.
fn merge_scans(flows: &[FlowReport], keys: &mut BTreeMap<usize, Key>) {
    let mut by_device: BTreeMap<(Cause, String), BTreeSet<String>> = BTreeMap::new();
    let device = |index: &usize| {
        let place = flows.get(*index).and_then(|flow| flow.place.as_ref());
        place.and_then(|place| place.device.clone()).unwrap_or_default()
    };
    let is_scanned = |cause: Cause| matches!(cause, Cause::NoReply | Cause::NeighbourUnresolved | Cause::PortClosed);
    for (index, (cause, anchor)) in keys.iter().filter(|(_, (cause, _))| is_scanned(*cause)) {
        by_device.entry((*cause, device(index))).or_default().insert(anchor.clone());
    }
    for (index, (cause, anchor)) in keys.iter_mut().filter(|(_, (cause, _))| is_scanned(*cause)) {
        let device = device(index);
        if by_device.get(&(*cause, device.clone())).is_some_and(|anchors| anchors.len() > DESTINATIONS) {
            *anchor = format!("many {device}");
        }
    }
}

/// Packets that a flow lost.
fn lost(flow: &FlowReport) -> u64 {
    match flow.verdict {
        Verdict::Dropped => flow.dropped,
        Verdict::Lost | Verdict::Unanswered | Verdict::Refused => flow.packets,
        Verdict::Delivered | Verdict::Fragmented => 0,
    }
}

fn incident(
    scene: &Scene<'_>,
    id: String,
    cause: Cause,
    flows: &[&FlowReport],
    findings: &[&Finding],
    fixes: Vec<Fix>,
) -> Incident {
    let guests: BTreeSet<&String> = flows
        .iter()
        .filter_map(|flow| flow.guest.as_ref())
        .chain(findings.iter().filter_map(|finding| finding.guest.as_ref()))
        .collect();
    let guests: Vec<String> = guests.into_iter().cloned().collect();
    let severities = flows.iter().map(|flow| flow.severity).chain(findings.iter().map(|finding| finding.severity));
    let bases: Vec<Basis> =
        flows.iter().map(|flow| flow.basis).chain(findings.iter().map(|finding| finding.label.basis)).collect();
    let one = bases.first().copied().unwrap_or_default();
    let worst = flows.first();
    let finding = findings.first();
    let own = worst
        .map(|flow| &flow.explanation)
        .or(finding.map(|finding| &finding.explanation))
        .cloned()
        .unwrap_or_default();
    let mut evidence: Vec<String> = worst.map(|flow| flow.evidence.clone()).unwrap_or_default();
    for line in findings.iter().flat_map(|finding| &finding.evidence) {
        if !evidence.contains(line) {
            evidence.push(line.clone());
        }
    }
    evidence.truncate(EVIDENCE);
    Incident {
        id,
        cause,
        severity: severities.max().unwrap_or(Severity::Warning),
        place: worst.and_then(|flow| flow.place.clone()).or_else(|| finding.and_then(|finding| finding.place.clone())),
        origin: Origin::of(scene.host),
        basis: if bases.iter().all(|basis| *basis == one) { one } else { Basis::Both },
        flows: flows.iter().map(|flow| flow.id.clone()).collect(),
        findings: findings.iter().map(|finding| finding.label.id.clone()).collect(),
        first_seen: flows.iter().map(|flow| flow.first_seen).min().unwrap_or_else(|| scene.track.start()),
        last_seen: flows.iter().map(|flow| flow.last_seen).max().unwrap_or_else(|| scene.track.end()),
        packets: flows.iter().map(|flow| lost(flow)).sum(),
        explanation: if flows.len() > 1 { shared(flows.len(), &guests, &own) } else { own },
        evidence,
        fixes,
        guests,
    }
}

/// The worst flow's explanation stands for all.
fn shared(flows: usize, guests: &[String], own: &str) -> String {
    let whose = match guests {
        [] => String::new(),
        guests if guests.len() <= 3 => format!(" of {}", words::list(guests)),
        guests => format!(" of {} guests", guests.len()),
    };
    format!("{flows} flows{whose} have this fault. The worst: {own}")
}

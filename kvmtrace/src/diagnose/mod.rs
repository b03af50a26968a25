//! From what was seen to what it means: a verdict per flow, findings about devices, guests and the host.
//!
//! 1. [`attribute`] groups flows: whose they are, which are one after NAT.
//! 2. [`case`] gathers what a rule may ask of each.
//! 3. [`rules`] judge it, and `companions` give a flow that merely suffers the cause of the flow that it waits for.
//! 4. `evidence` and [`findings`] say it.
//!
//! All of it is a pure function of [`Track`].
#![forbid(unsafe_code)]

pub mod attribute;
mod both_ends;
pub mod case;
mod companions;
pub mod configuration;
mod dead_ways;
pub mod dropped;
mod evidence;
pub mod findings;
pub mod fix;
pub mod guests;
pub mod journey;
pub mod judgement;
pub mod layer2;
pub mod ledger;
pub mod noise;
pub mod notice;
pub mod report;
pub mod routes;
pub mod rules;
pub mod scene;
pub mod words;

use crate::track::{IcmpError, Track};
use attribute::Group;
use case::{Case, Way};
use judgement::Judgement;
use report::{FlowReport, Host, Report, SCHEMA, Severity, Totals, Translated, Verdict, Window};
use scene::Scene;
use std::collections::BTreeMap;

/// The verdicts over everything in `track`.
pub fn report(track: &Track) -> Report {
    completed(unfinished(track), track)
}

/// Where this host keeps what the cures set.
fn completed(mut report: Report, track: &Track) -> Report {
    let flows = report.flows.iter_mut().flat_map(|flow| &mut flow.fixes);
    for fix in flows.chain(report.findings.iter_mut().flat_map(|finding| &mut finding.fixes)) {
        fix::persist::complete(track.host(), fix);
    }
    report
}

fn unfinished(track: &Track) -> Report {
    let scene = Scene::new(track);
    let groups = attribute::groups(&scene);
    let mut errors: BTreeMap<_, Vec<&IcmpError>> = BTreeMap::new();
    for error in track.errors() {
        errors.entry(error.about.flow).or_default().push(error);
    }
    let mut cases: Vec<Case<'_>> = groups
        .iter()
        .filter(|group| is_wanted(&scene, group))
        .map(|group| {
            let about = group.flows().flat_map(|flow| {
                let untagged = crate::event::FlowKey { vlan: None, ..flow.key };
                errors.get(&untagged).into_iter().flatten().copied()
            });
            Case::new(&scene, group, about.collect())
        })
        .collect();
    let mut judgements: Vec<Option<Judgement>> = cases.iter_mut().map(judge).collect();
    companions::share(&cases, &mut judgements);
    let refused: Vec<bool> = judgements
        .iter()
        .map(|judgement| judgement.as_ref().is_some_and(|judgement| judgement.verdict == Verdict::Refused))
        .collect();
    let mut flows: Vec<FlowReport> =
        cases.iter().zip(judgements).map(|(case, judgement)| flow_report(case, judgement)).collect();
    flows.sort_by(|a, b| {
        let rank = |flow: &FlowReport| {
            (std::cmp::Reverse(flow.severity), std::cmp::Reverse(flow.verdict), std::cmp::Reverse(flow.bytes))
        };
        rank(a).cmp(&rank(b)).then_with(|| name(a).cmp(&name(b)))
    });
    let findings = findings::findings(&scene, &cases, &flows);
    companions::overshadow(&findings, &scene, &mut flows);
    let ledger = ledger::ledger(&scene, cases.iter().zip(refused));
    let totals = totals(&cases, &flows);
    let started = track.started();
    Report {
        schema: SCHEMA,
        host: Host {
            name: scene.host.name.clone(),
            kernel: scene.host.kernel.clone(),
            kvmtrace: started.map_or_else(|| env!("CARGO_PKG_VERSION").to_owned(), |started| started.version.clone()),
        },
        window: Window {
            start: track.start(),
            end: track.end(),
            seconds: track.end().since(track.start()).0 as f64 / 1e9,
        },
        degraded: degraded(track),
        lost: track.loss(),
        totals,
        guests: guests::of_scene(&scene),
        flows,
        findings,
        ledger,
    }
}

/// What the host's configuration alone tells: the same object, without flows.
pub fn check(track: &Track) -> Report {
    completed(Report { findings: configuration::findings(track), ..unfinished(track) }, track)
}

fn name(flow: &FlowReport) -> (&str, &str, Option<u16>, &str, Option<u16>, Option<u16>) {
    (&flow.protocol, &flow.source, flow.source_port, &flow.destination, flow.destination_port, flow.vlan)
}

/// What the trace or the host's snapshot could not read.
fn degraded(track: &Track) -> Vec<crate::event::Degraded> {
    let mut degraded = track.degraded().to_vec();
    let missing =
        track.host().missing.iter().map(|(what, why)| crate::event::Degraded { what: what.clone(), why: why.clone() });
    degraded.extend(missing);
    let messages = track.loss().rule_messages;
    if messages > 0 {
        degraded.push(crate::event::Degraded {
            what: "rule trace".to_owned(),
            why: format!("{messages} messages of nft's trace were lost: a rule may be named by its counters alone"),
        });
    }
    degraded.dedup();
    degraded
}

/// The flow belongs to what was asked for.
fn is_wanted(scene: &Scene<'_>, group: &Group<'_>) -> bool {
    let Some(started) = scene.track.started() else { return true };
    if started.devices.is_empty() && started.guests.is_empty() {
        return true;
    }
    let mut ends = [group.device, group.peer].into_iter().flatten();
    let guest = ends.clone().filter_map(|device| scene.guest_name(device)).any(|name| started.guests.contains(&name));
    let places = group.flows().flat_map(|flow| flow.places.keys().map(|place| place.device));
    guest
        || ends.any(|device| started.devices.contains(&scene.name(device)))
        || !started.devices.is_empty() && places.into_iter().any(|device| started.devices.contains(&scene.name(device)))
}

/// Asks the rules.
pub fn judge(case: &mut Case<'_>) -> Option<Judgement> {
    let last = rules::DROPS.len().saturating_sub(1);
    for rules in [rules::DROPS.get(..last)?, rules::DROPS.get(last..)?] {
        for drop in case.drops.clone() {
            case.focus = Some(drop);
            if let Some(judgement) = rules.iter().find_map(|(_, rule)| rule(case)) {
                return Some(scaled(case, judgement));
            }
        }
    }
    case.focus = None;
    if suffers(case)
        && let Some(judgement) = rules::SILENT.iter().find_map(|(_, rule)| rule(case))
    {
        return Some(judgement);
    }
    rules::DELIVERED.iter().find_map(|(_, rule)| rule(case))
}

/// A loss that most packets escape hurts less.
fn scaled(case: &Case<'_>, judgement: Judgement) -> Judgement {
    let minor = case.dropped().saturating_mul(10) < case.packets();
    if judgement.severity == Severity::Error && minor { judgement.severity(Severity::Warning) } else { judgement }
}

/// Its packets vanish, or whoever sends it waits in vain or is told no.
fn suffers(case: &Case<'_>) -> bool {
    if case.packets() == 0 {
        return false;
    }
    // A no is final, however young the flow is; what has not come yet may still come.
    let refused = case.errors.iter().any(|error| error.about.is_unreachable() || error.about.is_reassembly_timeout())
        || rules::socket::is_refused(case);
    refused || case.is_settled() && (is_lost(case) || is_unanswered(case))
}

/// It entered, should have left, and did not.
fn is_lost(case: &Case<'_>) -> bool {
    let known = matches!(case.way(), Way::Guest(_) | Way::Uplink | Way::Routed);
    // What was answered all along has arrived, wherever it was not counted.
    let conversed = case.answered() > 2 && case.key().protocol == crate::event::Protocol::Tcp;
    known && case.left() == 0 && case.scene.is_unfiltered() && !conversed
}

/// It asks, and nothing came back.
fn is_unanswered(case: &Case<'_>) -> bool {
    case.expects_answer() && case.answered() == 0 && case.scene.sees_answers()
}

fn flow_report(case: &Case<'_>, judgement: Option<Judgement>) -> FlowReport {
    let key = case.key();
    let scene = case.scene;
    let loss = scene.track.loss();
    let translated = case.group.translated.or(case.group.past).map(|key| Translated {
        source: key.source.to_string(),
        source_port: key.source_port,
        destination: key.destination.to_string(),
        destination_port: key.destination_port,
    });
    let waiting = case.expects_answer() && case.answered() == 0 && !case.is_settled();
    let packets = case.packets();
    let mut flow = FlowReport {
        key,
        guest: case.device().and_then(|device| scene.guest_name(device)),
        device: case.device().map(|device| scene.name(device)),
        direction: case.group.direction,
        protocol: key.protocol.to_string(),
        source: key.source.to_string(),
        source_port: key.source_port,
        destination: key.destination.to_string(),
        destination_port: key.destination_port,
        vlan: case.group.flows().find_map(|flow| flow.key.vlan),
        translated,
        verdict: Verdict::Delivered,
        cause: None,
        severity: Severity::Ok,
        complete: loss.ring_events == 0 && loss.map_full == 0 && loss.flows_evicted == 0 && !waiting,
        packets,
        bytes: case.bytes(),
        dropped: case.dropped().min(packets),
        fragments: case.hops.iter().map(|(_, counters)| u64::from(counters.fragments)).max().unwrap_or(0),
        place: None,
        path: journey::path(case),
        explanation: format!(
            "{} went {} way in order.",
            words::packets(packets),
            if packets == 1 { "its" } else { "their" }
        ),
        evidence: Vec::new(),
        fixes: Vec::new(),
    };
    let Some(judgement) = judgement else { return flow };
    flow.verdict = judgement.verdict;
    flow.cause = Some(judgement.cause);
    flow.severity = judgement.severity;
    flow.place = Some(judgement.place);
    flow.explanation = words::agreeing(&judgement.explanation);
    flow.evidence = judgement.evidence;
    flow.evidence.extend(evidence::of(case));
    flow.fixes = judgement.fixes;
    flow
}

fn totals(cases: &[Case<'_>], flows: &[FlowReport]) -> Totals {
    let fragmented = cases
        .iter()
        .map(|case| case.hops.iter().map(|(_, counters)| u64::from(counters.fragmented)).max().unwrap_or(0));
    Totals {
        flows: flows.len() as u64,
        packets: flows.iter().map(|flow| flow.packets).sum(),
        bytes: flows.iter().map(|flow| flow.bytes).sum(),
        dropped: flows.iter().map(|flow| flow.dropped).sum(),
        fragmented: fragmented.sum(),
    }
}

//! From what was seen to what it means: a verdict per flow, findings about devices, guests and the host.
//!
//! What comes first knows nothing of what follows:
//!
//! 1. [`mod@report`], [`words`] and [`shell`]: what is said in the end, and how.
//! 2. [`facts`]: what was observed, and what this host's configuration says of it.
//! 3. [`flows`]: whose a flow is, which flows are one after NAT, and the case that holds all that a rule may ask.
//! 4. [`fix`]: commands that bring the packets through.
//! 5. [`faults`]: what is wrong at a place, whichever rule came there.
//! 6. [`rules`]: what a flow's drops or its silence mean. No rule knows another.
//! 7. [`mod@check`] and [`findings`]: facts about devices, guests and the host; [`mod@explain`] and [`reachability`]: walks without packets. `companions` give a flow that only suffers
//!    the cause of the flow that it waits for, `evidence` shows what a verdict rests on.
//!
//! All of it is a pure function of [`Track`].
#![forbid(unsafe_code)]

pub mod check;
mod companions;
mod evidence;
mod expect;
pub mod explain;
pub mod facts;
pub mod faults;
pub mod findings;
pub mod fix;
pub mod flows;
pub mod guests;
pub mod identity;
mod incidents;
pub mod judgement;
pub mod ledger;
mod offer;
mod predict;
pub mod probe;
pub mod reachability;
mod reconcile;
pub mod report;
pub mod rules;
pub mod shell;
pub mod watch;
pub mod words;

use crate::diagnose::facts::layer2::Layer2;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::facts::trace::Trace;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::flows::gather::gather;
use crate::diagnose::flows::group::Group;
use crate::diagnose::flows::{attribute, impostors, journey};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::predict::Predictor;
use crate::diagnose::report::{
    Basis, Finding, Fix, FlowDirection, FlowReport, Host, LostAt, Origin, Report, SCHEMA, Severity, Totals, TraceKey,
    Translated, Verdict, Window,
};
use crate::diagnose::rules::judge;
use crate::event::IfIndex;
use crate::event::switched::Switched;
use crate::event::{HostState, Place, UnlistedPlace};
use crate::topology::is_switched;
use crate::track::{IcmpError, Track};
use std::collections::{BTreeMap, BTreeSet};

/// The verdicts over everything in `track`.
pub fn report(track: &Track) -> Report {
    report_of(track, None)
}

/// Adds to fixes the steps that other devices need, the file that keeps the setting, and the scope.
fn complete(host: &HostState, fixes: &mut [Fix]) {
    for fix in fixes {
        fix.origin = Origin::of(host);
        fix::stack::complete(host, fix);
        fix::persist::complete(host, fix);
        fix::scope::complete(host, fix);
        fix::namespace::complete(host, fix);
    }
}

/// The verdicts, with the findings that `find` adds to those of the flows; without flows for `check`.
fn report_of(track: &Track, check: Option<Vec<Finding>>) -> Report {
    let scene = Scene::new(track);
    let parted = impostors::part(&scene);
    let scene = if parted.owned.is_empty() { scene } else { Scene::of_trace(Trace::new(track).with(&parted.owned)) };
    let layer2 = Layer2::of(&scene);
    let groups = attribute::groups(&scene, &parted.impostors);
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
                let about = errors.get(&untagged).into_iter().flatten().copied();
                about.filter(|error| parted.concerns(&scene, group, error))
            });
            gather(&scene, &layer2, group, about.collect())
        })
        .collect();
    let mut judgements: Vec<Option<Judgement>> = cases.iter_mut().map(judge).collect();
    companions::share(&cases, &mut judgements);
    let refused: Vec<bool> = judgements
        .iter()
        .map(|judgement| judgement.as_ref().is_some_and(|judgement| judgement.verdict == Verdict::Refused))
        .collect();
    let ids: Vec<String> = cases
        .iter()
        .map(|case| identity::flow_id(case.device().map(|device| scene.name(device)).as_deref(), &case.key()))
        .collect();
    let topology = scene.topology();
    let reconciled = reconcile::reconcile(&scene, topology, &cases, &mut judgements);
    let bases: Vec<Basis> = reconciled.iter().map(|reconciled| reconciled.basis).collect();
    for judgement in judgements.iter_mut().flatten() {
        complete(scene.host, &mut judgement.fixes);
    }
    let predictor = Predictor::new(topology, &cases, &judgements, &ids);
    predictor.predict(&cases, &mut judgements, &bases);
    let judged = cases.iter().zip(judgements).zip(ids.iter().zip(&reconciled));
    let mut flows: Vec<FlowReport> = judged
        .map(|((case, judgement), (id, reconciled))| FlowReport {
            id: id.clone(),
            basis: reconciled.basis,
            ..flow_report(case, judgement, &reconciled.unseen)
        })
        .collect();
    flows.sort_by(|a, b| {
        let rank = |flow: &FlowReport| {
            (std::cmp::Reverse(flow.severity), std::cmp::Reverse(flow.verdict), std::cmp::Reverse(flow.bytes))
        };
        rank(a).cmp(&rank(b)).then_with(|| name(a).cmp(&name(b)))
    });
    let is_check = check.is_some();
    let mut findings = check.unwrap_or_else(|| findings::findings(&scene, &layer2, &cases, &flows));
    for finding in &mut findings {
        complete(scene.host, &mut finding.fixes);
    }
    let by_id: BTreeMap<&str, &Case<'_>> = ids.iter().map(String::as_str).zip(&cases).collect();
    companions::overshadow(&findings, &layer2, &by_id, &scene, &mut flows);
    flows.iter_mut().filter(|flow| flow.severity >= Severity::Warning && flow.fixes.is_empty()).for_each(advise);
    let fixes = flows.iter_mut().map(|flow| &mut flow.fixes);
    for fixes in fixes.chain(findings.iter_mut().map(|finding| &mut finding.fixes)) {
        offer::offer(scene.host, fixes);
    }
    incidents::label(&scene, &mut findings, if is_check { Basis::Model } else { Basis::Observed });
    let incidents = incidents::incidents(&scene, &predictor, &by_id, &mut flows, &mut findings);
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
            timezone: scene.host.timezone.clone().unwrap_or_else(|| "UTC".to_owned()),
        },
        degraded: degraded(track),
        lost: track.loss(),
        lost_at: lost_at(&scene),
        totals,
        guests: guests::of_scene(&scene),
        incidents,
        flows,
        findings,
        command_status: track.command_status(),
        ledger,
        reachability: None,
        reachability_left_out: None,
    }
}

/// What the host's configuration alone tells: the same object, without flows.
pub fn check(track: &Track) -> Report {
    let wanted = |guest: &str, device| check::is_wanted(track, guest, device);
    let found = reachability::reachability(track.host(), &wanted);
    let mut findings = check::findings(track);
    findings.extend(reachability::cut_off(&found.rows, &findings));
    let (rows, left_out) = (Some(found.rows), Some(found.left_out));
    Report { reachability: rows, reachability_left_out: left_out, ..report_of(track, Some(findings)) }
}

/// How many faults `check` finds in the configuration that a report says nothing of.
pub fn further_faults(track: &Track, report: &Report) -> usize {
    let known: BTreeSet<(report::Cause, Option<&str>)> = report
        .flows
        .iter()
        .filter_map(|flow| Some((flow.cause?, flow.place.as_ref())))
        .chain(report.findings.iter().map(|finding| (finding.cause, finding.place.as_ref())))
        .map(|(cause, place)| (cause, place.and_then(|place| place.device.as_deref())))
        .collect();
    let is_further = |finding: &&Finding| {
        let device = finding.place.as_ref().and_then(|place| place.device.as_deref());
        finding.severity >= Severity::Warning && !known.contains(&(finding.cause, device))
    };
    check::findings(track).iter().filter(is_further).count()
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
    let host = track.host();
    let switched = Switched::new(host);
    let knows = |device: IfIndex| {
        let bridge = switched.place(device).and_then(|place| host.switch.bridges.get(place.bridge));
        bridge.is_some_and(|bridge| bridge.flows.is_some())
    };
    let mut guests = host.guests.iter().flat_map(|guest| &guest.interfaces).map(|interface| interface.device);
    if guests.any(|device| !knows(device) && host.link(device).is_some_and(|link| is_switched(host, link))) {
        degraded.push(crate::event::Degraded {
            what: "Open vSwitch decides here".to_owned(),
            why: "its datapath forwards the frames of some guests by rules that could not be read".to_owned(),
        });
    }
    degraded.dedup();
    degraded
}

/// What was counted without its flows.
fn lost_at(scene: &Scene<'_>) -> Vec<LostAt> {
    let totals = scene.track.unlisted().filter(|(_, totals)| totals.packets > 0);
    totals
        .map(|(place, totals)| {
            let (device, direction, site) = match place {
                UnlistedPlace::Hook(place) => (Some(place.device), Some(place.direction), None),
                UnlistedPlace::Drop(site) => (site.device, None, Some(site)),
            };
            LostAt {
                guest: device.and_then(|device| scene.guest_name(device)),
                device: device.map(|device| scene.name(device)),
                direction,
                reason: site.and_then(|site| site.reason.clone()),
                function: site.and_then(|site| site.function.clone()),
                packets: totals.packets,
                bytes: totals.bytes,
            }
        })
        .collect()
}

/// The flow belongs to what was asked for.
fn is_wanted(scene: &Scene<'_>, group: &Group<'_>) -> bool {
    let Some(started) = scene.track.started() else { return true };
    if started.devices.is_empty() && started.guests.is_empty() {
        return true;
    }
    let mut ends = [group.device, group.peer].into_iter().flatten();
    let asked = |guest: &crate::event::host::Guest| {
        let same = |asked: &String| {
            *asked == guest.name || guest.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(asked))
        };
        started.guests.iter().any(same)
    };
    let guest = ends.clone().filter_map(|device| scene.host.guest_of(device)).any(asked);
    let places = group.flows().flat_map(|flow| flow.places.keys().map(|place| place.device));
    guest
        || ends.any(|device| started.devices.contains(&scene.name(device)))
        || !started.devices.is_empty() && places.into_iter().any(|device| started.devices.contains(&scene.name(device)))
}

fn flow_report(case: &Case<'_>, judgement: Option<Judgement>, unseen: &[Place]) -> FlowReport {
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
        other_keys: case.group.others.iter().map(|flow| TraceKey { trace: 0, key: flow.key }).collect(),
        trace: 0,
        id: String::new(),
        origin: Origin::of(scene.host),
        incident: None,
        first_seen: case.group.flows().map(|flow| flow.first).min().unwrap_or_default(),
        last_seen: case.group.flows().map(|flow| flow.last).max().unwrap_or_default(),
        icmp_id: identity::icmp_id(&key),
        guest: case.device().and_then(|device| scene.guest_name(device)),
        device: case.device().map(|device| scene.name(device)),
        direction: case.group.direction,
        probe: probe::is_of_probe(case),
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
        basis: Basis::Observed,
        complete: loss.ring_events == 0 && loss.map_full == 0 && loss.flows_evicted == 0 && !waiting,
        packets,
        bytes: case.bytes(),
        dropped: case.dropped().min(packets),
        fragments: case.hops.iter().map(|(_, counters)| u64::from(counters.fragments)).max().unwrap_or(0),
        place: None,
        path: journey::path(case, unseen),
        explanation: format!(
            "{} went {} way in order.",
            words::packets(packets),
            if packets == 1 { "its" } else { "their" }
        ),
        evidence: Vec::new(),
        fixes: Vec::new(),
        root: None,
    };
    let Some(judgement) = judgement.or_else(|| beyond_its_share(case)) else { return flow };
    flow.verdict = judgement.verdict;
    flow.cause = Some(judgement.cause);
    flow.severity = judgement.severity;
    flow.place = Some(judgement.place);
    flow.explanation = words::agreeing(&judgement.explanation);
    flow.evidence = judgement.evidence;
    flow.evidence.extend(evidence::of(case));
    flow.fixes = judgement.fixes;
    flow.root = judgement.root;
    flow
}

/// Packets that came in and were not seen to leave, while drops were counted without their flows: nobody can say that they were
/// delivered.
fn beyond_its_share(case: &Case<'_>) -> Option<Judgement> {
    let leads_on = matches!(case.way(), Way::Guest(_) | Way::Uplink | Way::Routed);
    let mut unlisted = case.scene.track.unlisted();
    let hidden = unlisted.any(|(place, totals)| matches!(place, UnlistedPlace::Drop(_)) && totals.packets > 0);
    let (place, _) = case.entry().filter(|_| leads_on && hidden && case.left() == 0)?;
    let explanation = format!(
        "{} came in and were not seen to leave. So many flows were dropped meanwhile that some drops were counted without their flows: these may be among them.",
        words::packets(case.packets())
    );
    let at = facts::place::at(case.scene, place.device, report::Point::of(case.scene, place));
    Some(
        Judgement::dropped(report::Cause::Unclassified, at, explanation)
            .verdict(Verdict::Lost)
            .severity(Severity::Info)
            .fix(Fix::advice("Trace again once the flood is over, or this guest alone (-g).")),
    )
}

/// A fault without a fix still names the next step.
fn advise(flow: &mut FlowReport) {
    let walk = match (&flow.guest, flow.key.source.ip(), flow.key.destination.ip()) {
        (Some(guest), Some(_), Some(to)) if flow.direction == FlowDirection::FromGuest => {
            format!("`kvmtrace explain {} to {to}` shows what decides there.", shell::quote(guest))
        }
        (Some(guest), Some(from), _) if flow.direction == FlowDirection::ToGuest => {
            format!("`kvmtrace explain {} --from {from}` shows what decides there.", shell::quote(guest))
        }
        _ => "`kvmtrace check` shows what is wrong with devices of its path.".to_owned(),
    };
    flow.fixes.push(Fix::advice(format!("kvmtrace knows no command for this. {walk}")));
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

//! Lays what the model expects of a flow beside what was seen of it. Where a rule found the cause, the model agrees or has
//! nothing to add; where no rule did and the packets went missing, the stop of the walk is the cause.

use super::expect;
use super::facts::cause_of_stop::{cause_of_doubt, cause_of_stop, point_of_step};
use super::facts::firewall::suspects::root;
use super::facts::scene::Scene;
use super::fix::stop::fixes_of_stop;
use super::flows::case::Case;
use super::judgement::Judgement;
use super::report::{Basis, Cause, Fix, Root, Verdict, Where};
use super::rules;
use crate::event::{Direction, IfIndex, Place};
use crate::forward::asked::Goal;
use crate::forward::reading::Reading;
use crate::forward::step::{Arrival, Outcome, Stage, Step, Stop};
use crate::forward::{walk, words};
use crate::topology::Topology;
use std::collections::BTreeSet;

/// Flows that are walked at most: a report stays quick under any load.
const WALKED: usize = 512;

/// What the model adds to a flow's verdict.
#[derive(Clone, Debug, Default)]
pub(super) struct Reconciled {
    /// What the verdict rests on.
    pub(super) basis: Basis,
    /// Places of the walk, in its order, at which packets that went missing should have been seen and were not.
    pub(super) unseen: Vec<Place>,
}

/// Judges each flow once more with the model's answer at hand.
pub(super) fn reconcile(
    scene: &Scene<'_>,
    topology: &Topology<'_>,
    cases: &[Case<'_>],
    judgements: &mut [Option<Judgement>],
) -> Vec<Reconciled> {
    let mut walked = 0;
    let places = scene.track.flows().flat_map(|flow| flow.places.keys());
    let counted: BTreeSet<IfIndex> = places.map(|place| place.device).collect();
    let answers = cases.iter().zip(judgements.iter_mut()).map(|(case, judgement)| {
        let open = judgement.is_some() || rules::suffers(case);
        if !open || walked >= WALKED {
            return Reconciled::default();
        }
        walked += 1;
        let Some(question) = expect::question(case) else { return Reconciled::default() };
        let walk = walk(topology, &question.packet, question.entry);
        let reading = Reading::new(&walk, &question.packet, question.goal);
        let basis = basis(judgement, stop_of(scene, case, &reading), !case.drops.is_empty());
        let is_missing = |judgement: &Judgement| matches!(judgement.verdict, Verdict::Dropped | Verdict::Lost);
        let wanted = judgement.as_ref().is_some_and(is_missing) && is_for(&reading, question.goal);
        let unseen = if wanted { unseen(&counted, case, &reading) } else { Vec::new() };
        Reconciled { basis, unseen }
    });
    answers.collect()
}

/// Which of the two is believed: a rule that found the cause, else the walk's stop.
fn basis(judgement: &mut Option<Judgement>, expected: Option<Judgement>, seen: bool) -> Basis {
    let Some(expected) = expected else { return Basis::Observed };
    match judgement {
        // The kernel knows that its switch drops, the rules which of them it was.
        Some(known) if known.cause == expected.cause && known.cause != Cause::OvsDrop => Basis::Both,
        Some(known)
            if !is_vague(known.cause)
                && !is_of_switch(known.cause, expected.cause)
                && !is_of_ipvs(known, expected.cause) =>
        {
            Basis::Observed
        }
        Some(_) | None => {
            *judgement = Some(expected);
            if seen { Basis::Both } else { Basis::Model }
        }
    }
}

/// The walk leads where the packet should arrive, or stops: it is no copy for somebody else.
fn is_for(reading: &Reading<'_>, goal: Goal) -> bool {
    match reading.last().map(|step| &step.outcome) {
        Some(Outcome::Stops(_)) => true,
        Some(Outcome::Arrives(Arrival::Guest(device))) => goal == Goal::Guest(*device),
        Some(Outcome::Arrives(Arrival::Uplink(_) | Arrival::Namespace(_))) => goal == Goal::Beyond,
        Some(Outcome::Arrives(Arrival::Host | Arrival::Answered)) => goal == Goal::Host,
        Some(
            Outcome::Arrives(Arrival::Ignored)
            | Outcome::Passes
            | Outcome::Becomes(_)
            | Outcome::Branches
            | Outcome::Unknown(_),
        )
        | None => false,
    }
}

/// Where the walk passes a hook of a device, or was about to, and the flow was not counted: behind the last place at which it was. Devices at which
/// nothing at all was counted may not have been watched; they count only as the place where the walk leaves this host.
fn unseen(counted: &BTreeSet<IfIndex>, case: &Case<'_>, reading: &Reading<'_>) -> Vec<Place> {
    // Where it was to be sent and stops, it comes to no hook.
    let is_sent = |step: &Step| {
        matches!((step.stage, &step.outcome), (Stage::BridgeEgress | Stage::DeviceTransmit, Outcome::Stops(_)))
    };
    let side = |step: &Step| step.hook.or_else(|| is_sent(step).then_some(Direction::Egress));
    let way = || reading.steps().filter_map(|(_, step)| Some(Place { device: step.device?, direction: side(step)? }));
    let seen = |place: &Place| case.hops.iter().any(|(hop, _)| hop == place);
    let behind = way().enumerate().filter(|(_, place)| seen(place)).map(|(at, _)| at + 1).last().unwrap_or(0);
    let last = way().next_back();
    let is_counted = |place: &Place| Some(*place) == last || counted.contains(&place.device);
    let mut unseen: Vec<Place> = way().skip(behind).filter(|place| !seen(place) && is_counted(place)).collect();
    unseen.dedup();
    unseen
}

/// Causes that say no more than that something happened, or that nothing came back.
fn is_vague(cause: Cause) -> bool {
    matches!(cause, Cause::Unclassified | Cause::NoReply)
}

/// The kernel dropped at a hook where no rule could be singled out: IPVS hangs there, too.
fn is_of_ipvs(seen: &Judgement, expected: Cause) -> bool {
    let at_hook = matches!(seen.cause, Cause::NetfilterInput | Cause::NetfilterForward | Cause::NetfilterReject);
    at_hook && expected == Cause::IpvsNoServer && seen.fixes.iter().all(|fix| fix.command.is_none())
}

/// The kernel dropped in Open vSwitch, and the model knows why.
fn is_of_switch(seen: Cause, expected: Cause) -> bool {
    seen == Cause::OvsDrop && matches!(expected, Cause::OvsDrop | Cause::OvsVlan | Cause::OvsPortDown)
}

/// The judgement that the walk's stop amounts to; none where the walk does not surely stop.
fn stop_of(scene: &Scene<'_>, case: &Case<'_>, reading: &Reading<'_>) -> Option<Judgement> {
    let host = scene.host;
    if let Some((_, step)) = reading.doubt() {
        return doubted(scene, case, step);
    }
    let (index, step) = reading.steps().last()?;
    let Outcome::Stops(stop) = &step.outcome else { return None };
    let bridged = reading.is_bridged(index);
    let cause = cause_of_stop(host, step, stop, bridged);
    let function = case.drops.first().and_then(|drop| drop.site.function.clone());
    let reason = case.drops.first().and_then(|drop| drop.site.reason.clone());
    let place = Where {
        device: step.device.map(|device| scene.name(device)),
        point: point_of_step(host, step),
        function,
        reason,
    };
    let explanation = format!("{} end here: {}.", case.dropped_share(), words::stop(host, step.device, stop));
    let judgement = Judgement::dropped(cause, place, explanation);
    let verdict = if case.drops.is_empty() { Verdict::Lost } else { Verdict::Dropped };
    let evidence = step.decisions.iter().map(|decision| words::decision(host, decision));
    let mut fixes = fixes_of_stop(scene, step, stop, reading.packet_before(index), bridged);
    if fixes.is_empty() {
        let name = step.device.map_or_else(|| "this host".to_owned(), |device| scene.name(device));
        fixes.push(Fix::advice(format!(
            "No command is known that mends this at {name}: kvmtrace explain shows the stages of such a packet, and what decides at each."
        )));
    }
    Some(rules::sized(case, judgement.verdict(verdict).root(root_of(scene, stop)).evidence(evidence).fixes(fixes)))
}

/// The rule that a walk stops at.
fn root_of(scene: &Scene<'_>, stop: &Stop) -> Option<Root> {
    let (Stop::Rule(rule) | Stop::Rejected(rule) | Stop::Limited(rule)) = stop else { return None };
    let chain = scene.host.netfilter.chains.get(rule.chain)?;
    Some(root(chain, rule.rule.and_then(|index| chain.rules.get(index))))
}

/// A doubt that names its own cause, such as a queue of user space; none where it only leaves open what happens.
fn doubted(scene: &Scene<'_>, case: &Case<'_>, step: &Step) -> Option<Judgement> {
    let Outcome::Unknown(doubt) = &step.outcome else { return None };
    let cause = cause_of_doubt(doubt)?;
    let drop = case.drops.first()?;
    let device = step.device.map(|device| scene.name(device));
    let place = Where { device, point: point_of_step(scene.host, step), function: None, reason: None }.of(drop);
    let explanation =
        format!("{} died where the way can't be followed: {}.", case.dropped_share(), words::doubt(scene.host, doubt));
    Some(Judgement::dropped(cause, place, explanation))
}

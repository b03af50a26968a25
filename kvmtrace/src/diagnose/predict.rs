//! Asks the model about each fix before it is offered: does this flow then pass, what stops it next, which flows that were
//! delivered would break, and what else would get through.

use super::expect::{self, Question};
use super::facts::cause_of_stop::cause_of_stop;
use super::flows::case::Case;
use super::judgement::Judgement;
use super::report::{Basis, Cause, Fix, Outcome, Prediction, Verdict};
use crate::event::HostState;
use crate::forward::asked::Goal;
use crate::forward::effect::Effect;
use crate::forward::packet::{Connection, Packet, Transport};
use crate::forward::reading::{End, Reading, reply, reply_goal};
use crate::forward::step::{Outcome as StepOutcome, Stage, Step, Walk};
use crate::forward::{Entry, walk};
use crate::topology::Topology;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Flows whose fixes are asked about, and delivered flows that a fix is tried on: a report stays quick under any load.
const ASKED: usize = 32;
const TRIED: usize = 64;
/// Hosts with more routes, rules and entries than this are not copied for each fix.
const LARGEST: usize = 200_000;

/// The walk of a packet and, where it arrives, of its answer.
struct Trial {
    end: End,
    stop: Option<Stopped>,
    doubt: Option<String>,
}

/// Where and why a walk stops.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Stopped {
    cause: Cause,
    device: Option<crate::event::IfIndex>,
    answer: bool,
}

/// Why a flow can't be asked about.
const UNSEEN: &str = "nobody saw where these packets enter this host";

/// Tries fixes on copies of the host.
pub(super) struct Predictor<'t, 'h> {
    host: &'h HostState,
    topology: &'t Topology<'h>,
    /// Flows that were delivered and that the model lets pass, with their ids.
    healthy: Vec<(Question, String)>,
    too_large: bool,
    /// Many flows have the same fix; it breaks the same flows for all of them.
    broken: RefCell<BTreeMap<Option<String>, Vec<String>>>,
}

/// A flow that a fix is tried for.
#[derive(Clone, Debug)]
pub(super) struct Suffering {
    question: Question,
    cause: Cause,
    /// The model alone found the cause.
    by_model: bool,
}

impl Suffering {
    /// None where nobody saw the flow enter.
    pub(super) fn of(case: &Case<'_>, cause: Cause, basis: Basis) -> Option<Self> {
        Some(Self { question: expect::question(case)?, cause, by_model: basis == Basis::Model })
    }
}

impl<'t, 'h> Predictor<'t, 'h> {
    /// Knows the delivered flows, as far as there are any fixes to try.
    pub(super) fn new(
        topology: &'t Topology<'h>,
        cases: &[Case<'_>],
        judgements: &[Option<Judgement>],
        ids: &[String],
    ) -> Self {
        let host = topology.host;
        let size = host.routes.len() + host.forwarding.len() + host.neighbours.len();
        let rules: usize = host.netfilter.chains.iter().map(|chain| chain.rules.len()).sum();
        let too_large = size + rules > LARGEST;
        let wanted =
            judgements.iter().flatten().any(|judgement| judgement.fixes.iter().any(|fix| fix.command.is_some()));
        let is_well = |judgement: &Option<Judgement>| {
            judgement
                .as_ref()
                .is_none_or(|judgement| matches!(judgement.verdict, Verdict::Delivered | Verdict::Fragmented))
        };
        let well = cases.iter().zip(judgements).zip(ids).filter(|((_, judgement), _)| is_well(judgement));
        let healthy = well
            .filter(|_| wanted && !too_large)
            .filter_map(|((case, _), id)| Some((expect::question(case)?, id.clone())))
            .take(TRIED)
            .filter(|(question, _)| passes(&trial(host, topology, question)))
            .collect();
        Self { host, topology, healthy, too_large, broken: RefCell::default() }
    }

    /// Fills in the predictions of all fixes of flows.
    pub(super) fn predict(&self, cases: &[Case<'_>], judgements: &mut [Option<Judgement>], bases: &[Basis]) {
        let mut asked = 0;
        for ((case, judgement), basis) in cases.iter().zip(judgements.iter_mut()).zip(bases) {
            let Some(judgement) = judgement else { continue };
            if judgement.fixes.iter().all(|fix| fix.command.is_none()) {
                continue;
            }
            asked += 1;
            let flow = if asked <= ASKED { Suffering::of(case, judgement.cause, *basis) } else { None };
            for fix in judgement.fixes.iter_mut().filter(|fix| fix.command.is_some()) {
                fix.prediction = Some(match &flow {
                    Some(flow) => self.prediction(std::slice::from_ref(flow), fix),
                    None if asked > ASKED => {
                        Prediction::unknown("more flows have faults than are tried in the model".to_owned())
                    }
                    None => Prediction::unknown(UNSEEN.to_owned()),
                });
            }
        }
    }

    /// What a fix does for all of these flows.
    pub(super) fn prediction(&self, flows: &[Suffering], fix: &Fix) -> Prediction {
        if self.too_large {
            return Prediction::unknown("this host's tables are too large to be tried on a copy".to_owned());
        }
        if fix.effects.is_empty() {
            return Prediction::unknown("the model does not know what this command changes".to_owned());
        }
        let Some(first) = flows.first() else { return Prediction::unknown(UNSEEN.to_owned()) };
        let changed = with_effects(self.host, fix);
        let topology = Topology::new(&changed);
        let mut results: Vec<Prediction> = flows.iter().map(|flow| self.one(flow, &changed, &topology)).collect();
        let failing = results.iter().filter(|result| result.outcome == Outcome::NextObstacle).count();
        let rank = |prediction: &Prediction| match prediction.outcome {
            Outcome::NextObstacle => 0,
            Outcome::Unknown => 1,
            Outcome::Restores => 2,
        };
        results.sort_by_key(rank);
        let worst = results.into_iter().next().unwrap_or_else(|| Prediction::unknown(UNSEEN.to_owned()));
        let reason = match (worst.outcome, flows.len()) {
            (_, 1) | (Outcome::Unknown, _) => worst.reason,
            (Outcome::Restores, count) => format!("all {count} flows and their answers then pass this host"),
            (Outcome::NextObstacle, count) => format!("{} ({failing} of {count} flows)", worst.reason),
        };
        let opens = opened(self.host, self.topology, &changed, &topology, &first.question, fix);
        let breaks = self
            .broken
            .borrow_mut()
            .entry(fix.command.clone())
            .or_insert_with(|| breaks(&changed, &topology, &self.healthy))
            .clone();
        Prediction { reason, opens, breaks, ..worst }
    }

    /// What the change does for one flow.
    fn one(&self, flow: &Suffering, changed: &HostState, topology: &Topology<'_>) -> Prediction {
        let before = trial(self.host, self.topology, &flow.question);
        let Some(stopped) = &before.stop else {
            let why = match before.doubt {
                Some(doubt) => format!("before it, too, the model can't follow these packets: {doubt}"),
                None => "the model does not see what stops these packets".to_owned(),
            };
            return Prediction::unknown(why);
        };
        // What the model takes for the obstacle is another one than was observed: it knows too little of these packets
        // (fragments, what a tunnel has wrapped) for its answer to be worth anything.
        if !flow.by_model && stopped.cause != flow.cause {
            let why = format!(
                "the model sees another obstacle ({}) than the one that was observed ({})",
                stopped.cause.id(),
                flow.cause.id()
            );
            return Prediction::unknown(why);
        }
        let after = trial(changed, topology, &flow.question);
        match (&after.stop, after.doubt) {
            (Some(next), _) => {
                let what = if next.answer { "the answers then stop" } else { "these packets then stop" };
                let place = next.device.map(|device| format!(" at {}", changed.link_name(device))).unwrap_or_default();
                Prediction {
                    outcome: Outcome::NextObstacle,
                    obstacle: Some(next.cause),
                    ..Prediction::unknown(format!("{what}{place}: {}", next.cause.id()))
                }
            }
            (None, Some(doubt)) => Prediction::unknown(doubt),
            (None, None) => Prediction {
                outcome: Outcome::Restores,
                ..Prediction::unknown("these packets and their answers then pass this host".to_owned())
            },
        }
    }
}

/// A copy of the host in which the fix is made.
fn with_effects(host: &HostState, fix: &Fix) -> HostState {
    let mut changed = host.clone();
    for effect in &fix.effects {
        effect.apply(&mut changed);
    }
    changed
}

/// The delivered flows that would stop.
fn breaks(changed: &HostState, topology: &Topology<'_>, healthy: &[(Question, String)]) -> Vec<String> {
    let stops = |(question, _): &&(Question, String)| trial(changed, topology, question).stop.is_some();
    healthy.iter().filter(stops).map(|(_, id)| id.clone()).collect()
}

/// The walk of a packet; of its answer, where it arrives.
fn trial(host: &HostState, topology: &Topology<'_>, question: &Question) -> Trial {
    let there = one(host, topology, &question.packet, question.entry, question.goal, false);
    let (trial, answer) = there;
    if trial.stop.is_some() || question.packet.connection == Some(Connection::Established) {
        return trial;
    }
    let Some((entry, packet)) = answer else { return trial };
    let (back, _) = one(host, topology, &packet, entry, reply_goal(question.entry), true);
    Trial { end: trial.end, stop: back.stop, doubt: trial.doubt.or(back.doubt) }
}

fn one(
    host: &HostState,
    topology: &Topology<'_>,
    packet: &Packet,
    entry: Entry,
    goal: Goal,
    answer: bool,
) -> (Trial, Option<(Entry, Packet)>) {
    let walk: Walk = walk(topology, packet, entry);
    let reading = Reading::new(&walk, packet, goal);
    let stopped = |index: usize, step: &Step| match &step.outcome {
        StepOutcome::Stops(stop) => {
            let cause = cause_of_stop(host, step, stop, reading.is_bridged(index));
            Some(Stopped { cause, device: step.device, answer })
        }
        StepOutcome::Passes
        | StepOutcome::Becomes(_)
        | StepOutcome::Branches
        | StepOutcome::Arrives(_)
        | StepOutcome::Unknown(_) => None,
    };
    let last = reading.way.last().copied().zip(reading.last());
    let doubt = reading.doubt().and_then(|(_, step)| match &step.outcome {
        StepOutcome::Unknown(doubt) => Some(crate::forward::words::doubt(host, doubt)),
        StepOutcome::Passes
        | StepOutcome::Becomes(_)
        | StepOutcome::Branches
        | StepOutcome::Arrives(_)
        | StepOutcome::Stops(_) => None,
    });
    // Behind a doubt nothing is sure.
    let stop = if doubt.is_some() { None } else { last.and_then(|(index, step)| stopped(index, step)) };
    // The answer to what a tunnel has wrapped comes back wrapped, and not as an answer to the outer packet.
    let tunnelled = reading.steps().any(|(_, step)| step.stage == Stage::Tunnel);
    if tunnelled && stop.is_none() {
        let doubt =
            doubt.or_else(|| Some("the answers come back inside a tunnel, where they are not followed".to_owned()));
        return (Trial { end: reading.end(), stop, doubt }, None);
    }
    let next = reply(&reading);
    (Trial { end: reading.end(), stop, doubt }, next)
}

fn passes(trial: &Trial) -> bool {
    trial.stop.is_none() && trial.doubt.is_none() && matches!(trial.end, End::Delivered | End::Leaves)
}

/// What gets through beside this flow once a rule is gone: packets like it that stopped before and pass now.
fn opened(
    host: &HostState,
    topology: &Topology<'_>,
    changed: &HostState,
    changed_topology: &Topology<'_>,
    question: &Question,
    fix: &Fix,
) -> Option<String> {
    let about_rules = |effect: &Effect| {
        matches!(
            effect,
            Effect::RuleDelete(_) | Effect::RuleInsert(..) | Effect::RuleAppend(..) | Effect::PolicyAccept(_)
        )
    };
    if !fix.effects.iter().any(about_rules) {
        return None;
    }
    let mut opened = Vec::new();
    for (what, variant) in variants(&question.packet) {
        let other = Question { packet: variant, ..question.clone() };
        let before = trial(host, topology, &other);
        let after = trial(changed, changed_topology, &other);
        if before.stop.is_some() && passes(&after) {
            opened.push(what);
        }
    }
    (!opened.is_empty()).then(|| opened.join(", "))
}

/// Packets that differ from this one in a single fact.
fn variants(packet: &Packet) -> Vec<(&'static str, Packet)> {
    let mut variants = Vec::new();
    let mut add = |what: &'static str, change: &dyn Fn(&mut crate::forward::packet::Ip)| {
        let mut variant = packet.clone();
        if let Some(ip) = variant.ip_mut() {
            change(ip);
            variants.push((what, variant));
        }
    };
    add("other destination ports", &|ip| {
        if let Transport::Tcp { destination, .. } | Transport::Udp { destination, .. } = &mut ip.transport {
            *destination = destination.map(|port| port ^ 0x55);
        }
    });
    add("other protocols", &|ip| {
        ip.transport = match ip.transport {
            Transport::Udp { source, destination } => Transport::Tcp { source, destination, flags: None },
            Transport::Tcp { .. }
            | Transport::Sctp { .. }
            | Transport::Icmp { .. }
            | Transport::Icmpv6 { .. }
            | Transport::Other(_) => Transport::Udp { source: Some(40_000), destination: Some(9_999) },
        };
    });
    add("other sources", &|ip| ip.source = neighbour(ip.source));
    add("other destinations", &|ip| ip.destination = neighbour(ip.destination));
    variants.retain(|(_, variant)| variant != packet);
    variants
}

/// An address of the same network, most likely.
fn neighbour(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((u32::from(address) ^ 2).into()),
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) ^ 2).into()),
    }
}

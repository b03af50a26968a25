//! One packet's walk as a report, and its result in one clause.

use super::report::{DecisionReport, Leg, OutcomeReport, PacketReport, StepReport};
use crate::diagnose::facts::cause_of_stop::{cause_of_doubt, cause_of_stop};
use crate::diagnose::report::Cause;
use crate::event::HostState;
use crate::forward::packet::{Network as Layer3, Packet, Transport};
use crate::forward::reading::Reading;
use crate::forward::step::{Arrival, Decision, Outcome, Stage, Step, Walk};
use crate::forward::words;

/// The report of a walk.
pub(super) fn leg(host: &HostState, reading: &Reading<'_>, walk: &Walk, with_packet: bool) -> Leg {
    let steps = walk.steps.iter().enumerate().map(|(index, step)| {
        let before = reading.packet_before(index);
        let is_end = reading.way.first() == Some(&index) || reading.way.last() == Some(&index);
        let silent = matches!(step.outcome, Outcome::Passes) && step.decisions.is_empty();
        let v6 = before.ip().is_some_and(|ip| ip.destination.is_ipv6());
        StepReport {
            parent: step.parent,
            stage: words::stage_id(step.stage),
            label: words::stage(step.stage),
            device: step.device.map(|device| host.link_name(device)),
            hook: step.hook,
            functions: step.functions,
            decisions: decisions(host, step),
            outcome: outcome(&step.outcome),
            text: words::step(host, step, before),
            packet: match &step.outcome {
                Outcome::Becomes(packet) => Some(PacketReport::new(packet)),
                Outcome::Passes | Outcome::Branches | Outcome::Arrives(_) | Outcome::Stops(_) | Outcome::Unknown(_) => {
                    None
                }
            },
            cause: cause(host, reading, index, step),
            others: if reading.way.contains(&index) { reading.others(host, index) } else { None },
            eventful: is_end || !silent,
            own_functions: words::functions(step, v6),
        }
    });
    Leg {
        packet: with_packet.then(|| PacketReport::new(reading.packet_before(0))),
        steps: steps.collect(),
        way: reading.way.clone(),
        outcome: reading.end().into(),
        summary: clause(host, reading),
    }
}

/// The decisions of a step; the rule that stops it among them.
fn decisions(host: &HostState, step: &Step) -> Vec<DecisionReport> {
    let mut decisions: Vec<DecisionReport> =
        step.decisions.iter().map(|decision| DecisionReport::new(host, decision)).collect();
    if let Some(rule) = words::rule_of(&step.outcome)
        && !step.decisions.contains(&Decision::Rule(rule))
    {
        decisions.push(DecisionReport::rule(host, rule));
    }
    decisions
}

fn outcome(outcome: &Outcome) -> OutcomeReport {
    match outcome {
        Outcome::Passes => OutcomeReport::Passes,
        Outcome::Becomes(_) => OutcomeReport::Becomes,
        Outcome::Branches => OutcomeReport::Branches,
        Outcome::Arrives(_) => OutcomeReport::Arrives,
        Outcome::Stops(_) => OutcomeReport::Stops,
        Outcome::Unknown(_) => OutcomeReport::Unknown,
    }
}

/// `arrives at web2 (vnet1)`, `stops at eth0: …`
pub fn clause(host: &HostState, reading: &Reading<'_>) -> String {
    let Some(step) = reading.last() else { return "can't be followed: nothing was walked".to_owned() };
    let end = end_clause(host, reading, step);
    match reading.doubt() {
        // It stops whether or not it passes there.
        Some((_, doubted)) if !matches!(step.outcome, Outcome::Stops(_)) => {
            let Outcome::Unknown(doubt) = &doubted.outcome else { return end };
            let passes = matches!(step.outcome, Outcome::Arrives(_));
            let rest = if passes { format!("; if it passes, it {end}") } else { String::new() };
            format!("can't be followed past {}: {}{rest}", place(host, doubted), words::doubt(host, doubt))
        }
        _ => end,
    }
}

/// `br0 (forward)`
fn place(host: &HostState, step: &Step) -> String {
    let at = step.device.map_or_else(|| "this host".to_owned(), |device| host.link_name(device));
    match step.stage {
        Stage::Firewall(hook) => format!("{at} ({})", words::hook(hook)),
        Stage::DeviceReceive
        | Stage::BridgeIngress
        | Stage::BridgeForward
        | Stage::BridgeEgress
        | Stage::BridgeLocal
        | Stage::Nat
        | Stage::SourceCheck
        | Stage::Route
        | Stage::IpForward
        | Stage::Neighbour
        | Stage::NeighbourAnswer
        | Stage::Local
        | Stage::DeviceTransmit
        | Stage::Tunnel
        | Stage::Ipsec
        | Stage::Switch
        | Stage::Guest => at,
    }
}

fn end_clause(host: &HostState, reading: &Reading<'_>, step: &Step) -> String {
    let source = || {
        let (last, first) = (words::ends(reading.packet()), words::ends(reading.packet_before(0)));
        let changed = last.map(|(from, _)| from) != first.map(|(from, _)| from);
        last.filter(|_| changed).map(|(from, _)| format!(" as {}", words::end(from))).unwrap_or_default()
    };
    match &step.outcome {
        Outcome::Arrives(Arrival::Guest(device)) => {
            format!("arrives at {} ({}){}", words::guest(host, *device), host.link_name(*device), source())
        }
        Outcome::Arrives(Arrival::Uplink(device)) => {
            format!("leaves this host by {}{}", host.link_name(*device), source())
        }
        Outcome::Arrives(Arrival::Namespace(device)) => {
            format!("leaves this network namespace by {}{}", host.link_name(*device), source())
        }
        Outcome::Arrives(Arrival::Host) => "arrives at this host".to_owned(),
        Outcome::Arrives(Arrival::Answered) => "is answered by this host".to_owned(),
        Outcome::Arrives(Arrival::Ignored) => {
            format!("is passed over by all that get it, last at {}", place(host, step))
        }
        Outcome::Stops(stop) => format!("stops at {}: {}", place(host, step), words::stop(host, step.device, stop)),
        Outcome::Unknown(_) | Outcome::Passes | Outcome::Becomes(_) | Outcome::Branches => {
            format!("can't be followed past {}", place(host, step))
        }
    }
}

/// The cause of a step that stops the packet.
pub fn cause(host: &HostState, reading: &Reading<'_>, index: usize, step: &Step) -> Option<Cause> {
    match &step.outcome {
        Outcome::Stops(stop) => Some(cause_of_stop(host, step, stop, reading.is_bridged(index))),
        Outcome::Unknown(doubt) => cause_of_doubt(doubt),
        // Nobody takes any of the copies.
        Outcome::Arrives(Arrival::Ignored) if reading.way.last() == Some(&index) => {
            Some(if is_resolution(reading.packet()) { Cause::NeighbourUnresolved } else { Cause::NeighbourStale })
        }
        Outcome::Passes | Outcome::Becomes(_) | Outcome::Branches | Outcome::Arrives(_) => None,
    }
}

/// It asks for a MAC address.
fn is_resolution(packet: &Packet) -> bool {
    match &packet.network {
        Layer3::Arp(_) => true,
        Layer3::Ip(ip) => matches!(ip.transport, Transport::Icmpv6 { kind: 135, .. }),
        Layer3::Other(_) => false,
    }
}

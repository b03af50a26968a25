//! One cause for what hangs together: a flow that waits for an answer, or for ARP, suffers from what befell that.
//!
//! Only flows without a cause of their own, or with one that merely says that nobody answered, take over another's; and
//! only from a flow that died on this host.

use super::judgement::Judgement;
use super::report::{Cause, Finding, FlowReport, Severity, Verdict};
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::flows::case::Case;
use crate::event::{Address, FlowKey};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Says only that there was no answer.
fn is_weak(judgement: &Judgement) -> bool {
    let mendable = judgement.fixes.iter().any(|fix| fix.command.is_some());
    judgement.cause == Cause::NoReply
        || judgement.cause == Cause::NeighbourUnresolved && !mendable
        || judgement.cause == Cause::Unclassified && judgement.verdict == Verdict::Lost
}

/// Hands causes on.
pub(super) fn share(cases: &[Case<'_>], judgements: &mut [Option<Judgement>]) {
    let mut by_key: BTreeMap<FlowKey, usize> = BTreeMap::new();
    let mut by_target: BTreeMap<IpAddr, Vec<usize>> = BTreeMap::new();
    let mut by_ends: BTreeMap<(Address, Address), Vec<usize>> = BTreeMap::new();
    // What an impostor meets says nothing of the flow whose key it bears.
    for (index, case) in cases.iter().enumerate().filter(|(_, case)| !case.group.impostor) {
        for flow in case.group.flows() {
            by_key.insert(FlowKey { vlan: None, ..flow.key }, index);
        }
        if case.is_neighbour_traffic() {
            for address in
                [case.group.main.target, case.key().destination.ip(), case.key().source.ip()].into_iter().flatten()
            {
                by_target.entry(address).or_default().push(index);
            }
        } else {
            by_ends.entry((case.key().source, case.key().destination)).or_default().push(index);
        }
    }
    share_past(cases, &by_key, judgements);
    let strong: Vec<Option<Judgement>> = judgements
        .iter()
        .map(|judgement| {
            judgement.clone().filter(|judgement| {
                !is_weak(judgement)
                    && judgement.severity >= Severity::Warning
                    && !matches!(judgement.verdict, Verdict::Refused | Verdict::Delivered)
            })
        })
        .collect();
    for (index, case) in cases.iter().enumerate() {
        let Some(own) = judgements.get_mut(index) else { continue };
        let answers = answers_of(case, &by_key);
        let better = |candidates: &mut dyn Iterator<Item = usize>| {
            candidates.filter(|other| *other != index).find_map(|other| strong.get(other)?.clone())
        };
        let (verdict, better) = match own.as_ref() {
            Some(own) if is_weak(own) => {
                let mut candidates = answers.into_iter().chain(neighbours_of(case, &by_target));
                let mut asked_for = served_by(case, &by_ends).filter(|other| {
                    strong.get(*other).and_then(Option::as_ref).is_some_and(|it| stops_any_frame(it.cause))
                });
                (own.verdict, better(&mut candidates).or_else(|| better(&mut asked_for)))
            }
            Some(_) => continue,
            // It arrived and was answered, and none of the answers got through.
            None => {
                let mut died = answers.into_iter().filter(|other| cases.get(*other).is_some_and(died_whole));
                (Verdict::Unanswered, better(&mut died))
            }
        };
        if let Some(better) = better {
            let explanation = if verdict == Verdict::Dropped {
                better.explanation.clone()
            } else {
                format!("Nothing came back, for what it waits for died on this host: {}", better.explanation)
            };
            *own = Some(Judgement { verdict, severity: better.severity.max(Severity::Warning), explanation, ..better });
        }
    }
}

/// The flows that a request for a neighbour's address is made for.
fn served_by(case: &Case<'_>, by_ends: &BTreeMap<(Address, Address), Vec<usize>>) -> impl Iterator<Item = usize> {
    let asked = case.group.main.target.map_or(case.key().destination, Address::Ip);
    let asked = case.is_neighbour_traffic().then_some(asked);
    asked.and_then(|asked| by_ends.get(&(case.key().source, asked))).into_iter().flatten().copied()
}

/// What befell one frame befalls any that goes the same way, ARP and ND as well.
fn stops_any_frame(cause: Cause) -> bool {
    matches!(
        cause,
        Cause::BridgePortBlocked
            | Cause::BridgePortDetached
            | Cause::BridgePortDown
            | Cause::BridgeDown
            | Cause::BridgeVlanFiltered
            | Cause::VlanTagMismatch
            | Cause::BridgePortIsolated
            | Cause::BridgePortLocked
            | Cause::LinkDown
            | Cause::NoCarrier
            | Cause::GuestNotReading
            | Cause::GuestGone
    )
}

/// What goes past this host between two guests, because only one end was translated, suffers from that.
fn share_past(cases: &[Case<'_>], by_key: &BTreeMap<FlowKey, usize>, judgements: &mut [Option<Judgement>]) {
    for (index, inner) in cases.iter().enumerate().filter_map(|(index, case)| Some((index, case.group.past?))) {
        let own = judgements.get(index).cloned().flatten();
        let Some(cause) = own.filter(|own| own.cause == Cause::NatMissing) else { continue };
        for key in [inner, inner.reverse()] {
            let other = by_key.get(&FlowKey { vlan: None, ..key }).and_then(|other| judgements.get_mut(*other));
            if let Some(other) = other.and_then(Option::as_mut) {
                *other = Judgement { verdict: other.verdict, ..cause.clone() };
            }
        }
    }
}

/// All of it was dropped on this host.
fn died_whole(case: &Case<'_>) -> bool {
    case.dropped() > 0 && case.dropped() >= case.packets()
}

fn answers_of(case: &Case<'_>, by_key: &BTreeMap<FlowKey, usize>) -> Vec<usize> {
    // A path-MTU message that died here is an answer too.
    let messages = case.errors.iter().filter(|error| error.dropped && error.about.is_too_big()).map(|error| error.flow);
    let keys = case.answers.iter().map(|flow| flow.key).chain(messages).map(|key| FlowKey { vlan: None, ..key });
    keys.filter_map(|key| by_key.get(&key).copied()).collect()
}

/// ARP and ND for either end, or for the next hop.
fn neighbours_of(case: &Case<'_>, by_target: &BTreeMap<IpAddr, Vec<usize>>) -> Vec<usize> {
    let (source, destination) = (case.key().source.ip(), case.key().destination.ip());
    let hops = case.routing().legs.into_iter().map(|leg| leg.gateway);
    let ends = [case.group.main.target, source, destination, case.group.translated.and_then(|key| key.source.ip())];
    ends.into_iter().chain(hops).flatten().filter_map(|end| by_target.get(&end)).flatten().copied().collect()
}

/// A flow that is merely lost or unanswered suffers from what is wrong with its guest's layer 2 as a whole.
pub(super) fn overshadow(findings: &[Finding], scene: &Scene<'_>, flows: &mut [FlowReport]) {
    let layer2 = [
        Cause::BridgeLoop,
        Cause::MacConflict,
        Cause::ArpSpoofed,
        Cause::AddressConflict,
        Cause::MacSpoofed,
        Cause::ArpStorm,
    ];
    let first = layer2.iter().find_map(|cause| findings.iter().find(|finding| finding.cause == *cause));
    let Some(finding) = first else { return };
    let device = finding.place.as_ref().and_then(|place| place.device.clone());
    let bridge = |name: &str| {
        let link = scene.host.link_named(name)?;
        scene.bridge_of(link.index).map(|bridge| bridge.name.clone())
    };
    let there = device.as_deref().and_then(|device| bridge(device).or_else(|| Some(device.to_owned())));
    for flow in flows {
        let is_weak = match flow.cause {
            Some(Cause::Unclassified | Cause::NoReply | Cause::NeighbourUnresolved | Cause::GuestNotReading) => true,
            // What goes round comes in by every port of the loop, whoever sent it.
            Some(
                Cause::MacConflict
                | Cause::MacSpoofed
                | Cause::AddressConflict
                | Cause::ArpSpoofed
                | Cause::SourceSpoofed
                | Cause::BridgeLoop,
            ) => finding.cause == Cause::BridgeLoop,
            _ => false,
        };
        let weak = is_weak && flow.severity >= Severity::Warning;
        let near = if finding.cause == Cause::MacSpoofed {
            flow.guest == finding.guest
        } else {
            flow.device.as_deref().and_then(bridge) == there
        };
        if weak && near {
            flow.cause = Some(finding.cause);
            flow.place.clone_from(&finding.place);
            flow.explanation = format!("It suffers from what is wrong with the network: {}", finding.explanation);
            flow.fixes.clone_from(&finding.fixes);
        }
    }
}

//! One cause for what hangs together: a flow that waits for an answer, or for ARP, suffers from what befell that.
//!
//! Only flows without a cause of their own, or with one that merely says that nobody answered, take over another's; and
//! only from a flow that died on this host.

use super::judgement::Judgement;
use super::report::{Cause, Finding, FlowReport, Severity, Verdict};
use crate::diagnose::facts::layer2::{Conflict, Layer2};
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::faults::conflict::taker;
use crate::diagnose::flows::case::Case;
use crate::event::{Address, FlowKey, IfIndex, MacAddress};
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

/// What is wrong with a network as a whole explains the flows on it that it touches: those of a loop's or a storm's bridge, those
/// of a guest with a false MAC address, and those that go by an address which two claim.
pub(super) fn overshadow(
    findings: &[Finding],
    layer2: &Layer2,
    cases: &BTreeMap<&str, &Case<'_>>,
    scene: &Scene<'_>,
    flows: &mut [FlowReport],
) {
    let shadows = Shadows::of(findings, layer2, scene);
    let bridge = |name: &str| {
        let link = scene.host.link_named(name)?;
        scene.bridge_of(link.index).map(|bridge| bridge.name.clone())
    };
    for flow in flows.iter_mut().filter(|flow| flow.severity >= Severity::Warning) {
        let case = cases.get(flow.id.as_str()).copied();
        let is_near = |finding: &Finding| {
            let device = finding.place.as_ref().and_then(|place| place.device.clone());
            let there = device.as_deref().and_then(|device| bridge(device).or_else(|| Some(device.to_owned())));
            if finding.cause == Cause::MacSpoofed {
                return flow.guest == finding.guest;
            }
            flow.device.as_deref().and_then(bridge) == there
        };
        let is_weak = |finding: &Finding| match flow.cause {
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
        let mut known = shadows.over(case);
        if let Some(finding) = known.find(|finding| is_weak(finding) && is_near(finding)) {
            flow.cause = Some(finding.cause);
            flow.place.clone_from(&finding.place);
            flow.explanation = format!("It suffers from what is wrong with the network: {}", finding.explanation);
            flow.fixes.clone_from(&finding.fixes);
        }
    }
}

/// Findings about layer 2, by what flows they touch.
#[derive(Default)]
struct Shadows<'a> {
    /// Each flow of the bridge or guest.
    wide: Vec<&'a Finding>,
    /// Flows from, to or by the address.
    by_address: BTreeMap<IpAddr, &'a Finding>,
    by_mac: BTreeMap<MacAddress, &'a Finding>,
    /// Flows of the guest's interface.
    by_device: BTreeMap<IfIndex, &'a Finding>,
    /// Flows to the MAC address.
    towards: BTreeMap<MacAddress, &'a Finding>,
}

impl<'a> Shadows<'a> {
    fn of(findings: &'a [Finding], layer2: &Layer2, scene: &Scene<'_>) -> Self {
        let mut shadows = Self::default();
        for cause in [Cause::BridgeLoop, Cause::MacSpoofed, Cause::ArpStorm] {
            shadows.wide.extend(findings.iter().find(|finding| finding.cause == cause));
        }
        let mut about: BTreeMap<(&str, IfIndex), &Finding> = BTreeMap::new();
        let contested = [Cause::ArpSpoofed, Cause::AddressConflict, Cause::MacConflict];
        for finding in findings.iter().filter(|finding| contested.contains(&finding.cause)) {
            let device = finding.place.as_ref().and_then(|place| place.device.as_deref());
            if let Some(link) = device.and_then(|name| scene.host.link_named(name)) {
                about.entry((finding.cause.id(), link.index)).or_insert(finding);
            }
        }
        if about.is_empty() {
            return shadows;
        }
        for mac in layer2.senders.keys() {
            let Some(devices) = layer2.shared(*mac) else { continue };
            let taker = taker(scene, *mac, &devices);
            if let Some(finding) = taker.and_then(|taker| about.get(&(Cause::MacConflict.id(), taker))) {
                shadows.by_mac.insert(*mac, finding);
                shadows.by_device.extend(devices.into_iter().map(|device| (device, *finding)));
            }
        }
        for conflict in layer2.claims.keys().filter_map(|address| layer2.conflict(scene, *address)) {
            let cause = if conflict.spoofed { Cause::ArpSpoofed } else { Cause::AddressConflict };
            if let Some(finding) = about.get(&(cause.id(), conflict.offender.1)) {
                shadows.by_address.insert(conflict.address, finding);
                shadows.towards.entry(conflict.offender.0).or_insert(finding);
                // What goes by a router is drawn away by who claims the router's address, if it began well.
                for mac in owners(scene, &conflict) {
                    shadows.towards.entry(mac).or_insert(finding);
                }
            }
        }
        shadows
    }

    /// Those that touch the flow, the worst first.
    fn over(&self, case: Option<&Case<'_>>) -> impl Iterator<Item = &'a Finding> {
        let ends = case.map(|case| [case.key().destination.ip(), case.group.main.target, case.key().source.ip()]);
        let macs = case.map(|case| [case.destination_mac(), case.entry().map(|(_, counters)| counters.source_mac)]);
        let by_mac = macs.into_iter().flatten().flatten().filter_map(|mac| self.by_mac.get(&mac));
        let towards = case.and_then(Case::destination_mac).and_then(|mac| self.towards.get(&mac));
        let by_address = ends.into_iter().flatten().flatten().filter_map(|address| self.by_address.get(&address));
        let by_device = case.and_then(Case::device).and_then(|device| self.by_device.get(&device));
        let near: Vec<&Finding> = by_mac.chain(by_device).chain(by_address).chain(towards).copied().collect();
        let is_loop = |finding: &&Finding| finding.cause == Cause::BridgeLoop;
        let (loops, rest): (Vec<&Finding>, Vec<&Finding>) = self.wide.iter().copied().partition(is_loop);
        loops.into_iter().chain(near).chain(rest)
    }
}

/// The MAC addresses of the host or machine whose address a guest claims.
fn owners(scene: &Scene<'_>, conflict: &Conflict) -> Vec<MacAddress> {
    let own = scene.device_of_address(conflict.address).and_then(|link| link.mac);
    let entries = scene.host.neighbours.iter().filter(|entry| entry.address == conflict.address);
    let others = conflict.macs.iter().copied().chain(entries.filter_map(|entry| entry.mac));
    let all = own.into_iter().chain(others);
    if conflict.spoofed { all.collect() } else { Vec::new() }
}

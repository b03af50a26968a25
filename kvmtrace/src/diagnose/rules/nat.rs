//! `nat-missing`: a guest's private source leaves by an uplink on which nobody knows a way back.

use crate::diagnose::facts::nat::{exempting, is_private, masquerades, nat_chains};
use crate::diagnose::facts::place::at;
use crate::diagnose::fix::masquerade::masquerade;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::flows::frame::guest_network;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind, Network};
use crate::event::{Direction, IfIndex};
use std::net::IpAddr;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if case.way() != Way::Routed || case.answered() > 0 || case.group.translated.is_some() {
        return None;
    }
    let scene = case.scene;
    let source = case.key().source.ip().filter(|source| is_private(*source))?;
    let (exit, _) = case
        .hops
        .iter()
        .rev()
        .find(|(place, _)| place.direction == Direction::Egress && Some(place.device) != case.device())?;
    // Rules see the device that the packet is routed to, not the port of a bridge by which it then leaves.
    let uplink = scene.bridge_of(exit.device).or_else(|| scene.link(exit.device))?;
    let on_link = uplink.addresses.iter().any(|network| network.contains(source));
    let to = case.routed()?.to;
    if is_inner(case, uplink, to) {
        return None;
    }
    let exempt = exempting(scene, source, to, uplink);
    if on_link || uplink.addresses.is_empty() || exempt.is_none() && masquerades(scene, Some(source), uplink) {
        return None;
    }
    // Something from out there has found its way to this guest: so will the answers. Or it looks for the guest itself.
    let network = guest_network(case, source)?;
    let no_machine = matches!(source, IpAddr::V4(source) if network.broadcast() == Some(source));
    if no_machine || is_reached(case, network) || is_sought(case, source, exit.device) {
        return None;
    }
    let sent =
        format!("{} left by {} with the private source {source}", words::packets(case.left().max(1)), uplink.name);
    let router = Fix::advice(format!("Or set a route to {network} by this host on the router behind {}.", uplink.name));
    if let Some(rule) = exempt {
        let explanation = format!(
            "{sent}: the rule \"{}\" keeps them from being translated, so the answers find no way back unless the router there knows {network}.",
            rule.text
        );
        return Some(
            Judgement::dropped(Cause::NatMissing, at(scene, uplink.index, Point::NicEgress), explanation)
                .verdict(Verdict::Unanswered)
                .severity(Severity::Warning)
                .evidence([format!("before the rule that would translate {source}: \"{}\"", rule.text)])
                .fix(masquerade(scene, uplink, network, Some(to)))
                .fix(router),
        );
    }
    let explanation = format!("{sent}: no rule translates {network} there, so the answers find no way back.");
    Some(
        Judgement::dropped(Cause::NatMissing, at(scene, uplink.index, Point::NicEgress), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([format!(
                "source {source} seen at the egress of {}; no masquerade or snat rule for it",
                uplink.name
            )])
            .fix(masquerade(scene, uplink, network, None))
            .fix(router),
    )
}

/// A bridge of this host that leads nowhere else: machines on it have this host for their router, and so a way back.
fn is_inner(case: &Case<'_>, uplink: &Link, to: IpAddr) -> bool {
    let host = case.scene.host;
    let leads_on = host.routes.iter().any(|route| route.device == Some(uplink.index) && route.gateway.is_some());
    let physical = host.uplinks(uplink.index).any(|port| port.kind != LinkKind::Veth);
    matches!(uplink.kind, LinkKind::Bridge(_))
        && uplink.addresses.iter().any(|network| network.contains(to))
        && !leads_on
        && !physical
}

/// Datagrams that ask for no answer tell nothing by getting none. On a host that translates at all, a private source that
/// leaves as it is stands out, unless something from out there has found its way to the guest.
pub fn judge_one_way(case: &Case<'_>) -> Option<Judgement> {
    let mut chains = nat_chains(case.scene, case.key().source.ip());
    let translating = chains.any(|chain| chain.kind.as_deref() == Some("nat") && chain.hook.is_some());
    if !translating || !case.is_settled() || case.is_multicast() {
        return None;
    }
    // A rule that keeps them as they are is meant so until an answer is missed.
    judge(case).filter(|judgement| judgement.severity == Severity::Error)
}

/// Packets that came in by a NIC have reached the guest, or another of its network under its own address: out there the way
/// to the network is known.
fn is_reached(case: &Case<'_>, network: Network) -> bool {
    let index = case.scene.index();
    case.device().is_some_and(|device| index.is_reached(device)) || index.is_network_reached(network)
}

/// Out there somebody asks for the guest itself, by ARP or ND, and is not answered: that is why nothing comes back.
fn is_sought(case: &Case<'_>, source: IpAddr, uplink: IfIndex) -> bool {
    let advertised = case.scene.advertisements(source);
    case.scene.index().questions(source, uplink).iter().any(|question| {
        let told = || advertised.iter().any(|answer| answer.key.destination == question.key.source);
        case.scene.track.get(&question.key.reverse()).is_none() && !told()
    })
}

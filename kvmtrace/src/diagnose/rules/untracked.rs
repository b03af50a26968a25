//! `connection-untracked`: what a guest sent left with this host's address, the answers come back to that address, and nobody
//! gives them the guest's again: connection tracking does not take them for the same connection (`notrack`, another zone, a table
//! that was flushed). They end in this host's own stack.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::{Address, Direction, Protocol};

/// Rules that are named at most.
const RULES: usize = 4;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let (scene, key) = (case.scene, case.key());
    let guest = scene.guest_name(case.device()?)?;
    let own = key.destination.ip().is_some_and(|address| scene.is_host_address(address));
    if case.is_from_guest() || !own || case.left() > 0 || case.is_neighbour_traffic() {
        return None;
    }
    if case.focus.as_ref().is_some_and(|drop| !drop.because(&["NO_SOCKET"])) {
        return None;
    }
    // What they answer left by a NIC, and a guest had sent it, with an address of its own.
    let asked = scene.track.get(&key.reverse())?;
    let leaves = |place: &crate::event::Place| {
        place.direction == Direction::Egress && matches!(scene.role(place.device), Role::Nic | Role::Tunnel)
    };
    let same_port = |port| matches!(key.protocol, Protocol::Tcp | Protocol::Udp) && port == key.destination_port;
    let is_sent = |flow: &crate::track::Flow| {
        let ports = same_port(flow.key.source_port) || flow.key.protocol.is_echo_request();
        let from = flow.key.source != key.destination && scene.guest_by_address(flow.key.source) == case.device();
        from && ports && flow.key.protocol == asked.key.protocol && flow.key.destination == key.source
    };
    let (place, _) = case.entry().filter(|(place, _)| place.direction == Direction::Ingress)?;
    if !asked.places.keys().any(leaves) || !scene.track.flows().any(is_sent) {
        return None;
    }
    let own_words = |text: &&str| text.contains("notrack") || text.contains("NOTRACK") || text.contains("zone");
    let rules = scene.host.netfilter.chains.iter().flat_map(|chain| &chain.rules).map(|rule| rule.text.as_str());
    let rules: Vec<String> = rules.filter(own_words).take(RULES).map(|rule| format!("rule \"{rule}\"")).collect();
    let Address::Ip(address) = key.destination else { return None };
    let explanation = format!(
        "{} came in by {} for {address}, with which this host had translated what {guest} sent; connection tracking does not know them as its answers, so they end here instead of at {guest}.",
        words::packets(case.packets()),
        scene.name(place.device)
    );
    let advice = if rules.is_empty() {
        "New connections are tracked from their beginning: let the guest open it again. A connection table that is flushed (conntrack -F, a restart of the firewall) forgets translations.".to_owned()
    } else {
        "Let both directions of the guests' connections be tracked, and in one zone: no `notrack`, and the same `ct zone` for what comes in by either device.".to_owned()
    };
    let point = if case.focus.is_some() { Point::HostInput } else { Point::NetfilterPrerouting };
    let place = at(scene, place.device, point);
    let place = case.focus.as_ref().map_or(place.clone(), |drop| place.of(drop));
    let verdict = if case.dropped() > 0 { Verdict::Dropped } else { Verdict::Lost };
    Some(
        Judgement::dropped(Cause::ConnectionUntracked, place, explanation)
            .verdict(verdict)
            .severity(Severity::Error)
            .evidence(rules)
            .fix(Fix::advice(advice)),
    )
}

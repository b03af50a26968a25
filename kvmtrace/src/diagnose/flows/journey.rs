//! The way that a flow took: its places in order of time, without the copies that a bridge floods to bystanders.

use super::case::Case;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::report::{Hop, Latency, Point};
use crate::event::{Direction, FlowCounters, Place, Timestamp};

/// The places on the way of a flow, the first-seen first.
pub fn hops<'a>(case: &Case<'a>) -> Vec<(Place, &'a FlowCounters)> {
    let scene = case.scene;
    let mut hops: Vec<(Place, &FlowCounters)> = Vec::new();
    for flow in case.group.flows() {
        for (place, counters) in &flow.places {
            match hops.iter_mut().find(|(known, _)| known == place) {
                Some((_, known)) if known.packets < counters.packets => *known = counters,
                Some(_) => {}
                None => hops.push((*place, counters)),
            }
        }
    }
    // By time, but for the ends: what watches a bridge may be there before what watches the tap is.
    let rank = |place: &Place| match (scene.role(place.device), place.direction) {
        (Role::Tap, Direction::Ingress) => 0,
        (Role::Tap, Direction::Egress) => 2,
        _ => 1,
    };
    hops.sort_by_key(|(place, counters)| (rank(place), counters.first, *place));
    let unicast = !case.is_multicast();
    let target = case.destination_mac();
    let for_this_host = target.is_some_and(|mac| scene.is_host_mac(mac) || scene.guest_towards(mac).is_some());
    let behind = target.and_then(|mac| {
        let entry = scene.host.forwarding.iter().find(|entry| entry.mac == mac && entry.bridge.is_some())?;
        scene.link(entry.device).map(|link| link.index)
    });
    let own = |place: &Place| Some(place.device) == case.group.device || Some(place.device) == case.group.peer;
    let seen_behind =
        hops.iter().any(|(place, _)| Some(place.device) == behind && place.direction == Direction::Egress);
    hops.retain(|(place, counters)| {
        let role = scene.role(place.device);
        if matches!(role, Role::Tap | Role::Macvtap) {
            return own(place);
        }
        let is_port = scene.bridge_of(place.device).is_some();
        // A frame that this host has routed bears the next hop's MAC address: it is no copy of what came in.
        let routed = target.is_some_and(|mac| counters.destination_mac != mac && !counters.destination_mac.is_zero());
        if !unicast || place.direction == Direction::Ingress || !is_port || routed {
            return true;
        }
        // A frame for this host or a guest of it has no business on another port: a flooded copy.
        !(for_this_host && case.is_from_guest() || seen_behind && Some(place.device) != behind)
    });
    hops
}

/// The path for the report; `latency_ns` between first packets of places that follow each other. There is none where
/// the two may be different packets: the later one is older, or the places were not yet all watched. Behind them the places that
/// the model expects, where nobody saw the packets.
pub fn path(case: &Case<'_>, unseen: &[Place]) -> Vec<Hop> {
    let mut before: Option<Timestamp> = None;
    let mut path: Vec<Hop> = case
        .hops
        .iter()
        .map(|(place, counters)| {
            let watched = case.scene.track.start()..=counters.first;
            let before_it = before.filter(|before| watched.contains(before));
            let latency_ns = before_it.map(|before| Latency::once(counters.first.since(before).0));
            before = Some(counters.first);
            Hop {
                device: case.scene.name(place.device),
                direction: place.direction,
                stage: Point::of(case.scene, *place),
                packets: counters.packets,
                bytes: counters.bytes,
                latency_ns,
                expected: false,
            }
        })
        .collect();
    path.extend(unseen.iter().map(|place| Hop {
        device: case.scene.name(place.device),
        direction: place.direction,
        stage: Point::of(case.scene, *place),
        packets: 0,
        bytes: 0,
        latency_ns: None,
        expected: true,
    }));
    path
}

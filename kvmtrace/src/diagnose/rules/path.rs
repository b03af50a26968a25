//! Faults of the way itself that no drop tells: a frame that no port takes is flooded elsewhere or vanishes. Asked of
//! flows that never left or were never answered: is everything on the way up, attached, forwarding?

use crate::diagnose::facts::bridge::carries;
use crate::diagnose::facts::place::at;
use crate::diagnose::faults::bridge::{blocked_port, bridge_down, flood_disabled, isolated, misdirected, not_in_vlan};
use crate::diagnose::faults::port::{dead_link, detached, exit_port, way_out};
use crate::diagnose::faults::{bridge_lone, macvtap};
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::flows::frame::{entry_port, inner_vlan};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Point, Verdict};
use crate::event::host::{Link, LinkKind, PortState};
use crate::event::{Address, Direction, HostState};
use crate::topology::is_served;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let left = case.left() > 0;
    let judgement = find(case)?;
    Some(judgement.verdict(if left && case.way() != Way::Group { Verdict::Unanswered } else { Verdict::Lost }))
}

/// Nothing is wrong with the way, but nobody on the bridge has the receiver's MAC address.
pub fn judge_flooded(case: &Case<'_>) -> Option<Judgement> {
    let own = case.scene.link(case.device()?)?;
    bridge_lone::flooded_in_vain(case, own, case.bridge()?).map(|judgement| judgement.verdict(Verdict::Lost))
}

fn find(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let own = scene.link(case.device()?)?;
    if let Some(judgement) = macvtap::host_unreachable(case, own) {
        return Some(judgement);
    }
    if let LinkKind::Macvtap { .. } = own.kind {
        let lower = scene.link(own.lower?)?;
        let Some(dead) = [own, lower].into_iter().find(|link| !link.up || !link.carrier) else {
            return macvtap::wrong_address(case, own).or_else(|| macvtap::apart(case, own));
        };
        return Some(dead_link(case, dead, at(scene, dead.index, Point::NicEgress)));
    }
    let Some(bridge) = case.bridge() else {
        let alone =
            case.way() != Way::Host && case.way() != Way::Routed && own.master.is_none() && !is_served(scene.host, own);
        let point = if case.is_from_guest() { Point::TapIngress } else { Point::TapEgress };
        return alone.then(|| detached(case, own, point));
    };
    if !bridge.up {
        return Some(bridge_down(case, bridge, at(scene, bridge.index, Point::BridgeIngress)));
    }
    if let Some(judgement) = misdirected(case, bridge) {
        return Some(judgement);
    }
    if let Some(judgement) = bridge_lone::lone_bridge(case, None).filter(|_| case.way() != Way::Host) {
        return Some(judgement);
    }
    if !case.is_from_guest() {
        return asked_guest(case, entry_port(case, bridge), bridge)
            .or_else(|| unflooded_port(case, bridge))
            .or_else(|| exit_port(case, own, bridge, None));
    }
    if let Some(port) = own.port.as_ref().filter(|port| port.state != PortState::Forwarding) {
        let _ = port;
        return Some(blocked_port(case, own, bridge, at(scene, own.index, Point::BridgeIngress)));
    }
    if !carries(own, inner_vlan(case, bridge), bridge) {
        return Some(not_in_vlan(case, own, bridge));
    }
    match case.way() {
        Way::Guest(peer) => {
            let peer = scene.link(peer)?;
            isolated(case, own, peer, bridge).or_else(|| exit_port(case, peer, bridge, None))
        }
        Way::Uplink => apart_from_uplinks(case, own, bridge).or_else(|| way_out(case, None)),
        Way::Group if case.is_neighbour_traffic() => {
            let asked = case.group.main.target.or(case.key().destination.ip())?;
            match scene.guest_by_address(Address::Ip(asked)).filter(|peer| *peer != own.index) {
                Some(_) => asked_guest(case, Some(own), bridge),
                None if scene.is_host_address(asked) => None,
                None => apart_from_uplinks(case, own, bridge).or_else(|| way_out(case, None)),
            }
        }
        Way::Routed => routed_out(case),
        Way::Group | Way::Host | Way::Unknown => None,
    }
}

/// The guest's port is isolated, and so is every port that leads beyond this host.
fn apart_from_uplinks(case: &Case<'_>, own: &Link, bridge: &Link) -> Option<Judgement> {
    let isolated_from = |uplink: &Link| isolated(case, own, uplink, bridge);
    let mut apart = case.scene.host.uplinks(bridge.index).map(isolated_from);
    let first = apart.next()??;
    apart.all(|other| other.is_some()).then_some(first)
}

/// A request for the address of a guest whose port can't get it from the one where it came in.
fn asked_guest(case: &Case<'_>, entry: Option<&Link>, bridge: &Link) -> Option<Judgement> {
    if !case.is_neighbour_traffic() {
        return None;
    }
    let asked = case.group.main.target.or(case.key().destination.ip())?;
    let owner = case.scene.link(case.scene.guest_by_address(Address::Ip(asked))?)?;
    if case.reached(owner.index) {
        return None;
    }
    let apart = entry.and_then(|entry| isolated(case, entry, owner, bridge));
    apart.or_else(|| exit_port(case, owner, bridge, None))
}

/// A request to all or to a group that one guest's port is set not to get: the one that should have answered.
fn unflooded_port(case: &Case<'_>, bridge: &Link) -> Option<Judgement> {
    if case.way() != Way::Group {
        return None;
    }
    let guests = case.scene.host.ports(bridge.index).filter(|port| case.scene.interface(port.index).is_some());
    guests.filter(|port| !case.reached(port.index)).find_map(|port| flood_disabled(case, port, bridge))
}

/// The device of the route is down.
fn routed_out(case: &Case<'_>) -> Option<Judgement> {
    let device = case.routing().unicast()?.device?;
    let link = case.scene.link(device)?;
    if !link.up || !link.carrier {
        return Some(dead_link(case, link, at(case.scene, link.index, Point::NicEgress)));
    }
    dead_port_behind(case, link)
}

/// The bridge by which a routed flow leaves knows the receiver's MAC address behind no port, and one of its ports is down: with
/// its carrier went what the bridge had learnt there (`br_fdb_delete_by_port`).
fn dead_port_behind(case: &Case<'_>, bridge: &Link) -> Option<Judgement> {
    let scene = case.scene;
    let sent = case.hops.iter().find(|(place, _)| place.device == bridge.index && place.direction == Direction::Egress);
    let mac = sent.map(|(_, counters)| counters.destination_mac).filter(|mac| !mac.is_multicast());
    let to = case.routed()?.to;
    let entry = || scene.host.neighbours.iter().find(|entry| entry.address == to && entry.device == bridge.index);
    let mac = mac.or_else(|| entry()?.mac)?;
    let port_of = |host: &HostState| {
        let known = host.forwarding.iter().find(|entry| entry.mac == mac && entry.bridge == Some(bridge.index));
        known.map(|entry| entry.device).filter(|port| *port != bridge.index)
    };
    let alive = |port: &Link| port.up && port.carrier;
    let learnt = port_of(scene.host).or_else(|| port_of(scene.track.first_host()));
    let port = if let Some(port) = learnt {
        scene.link(port).filter(|port| !alive(port))?
    } else {
        let ports = scene.host.ports(bridge.index).filter(|port| scene.interface(port.index).is_none());
        let mut dead = ports.filter(|port| !alive(port));
        dead.next().filter(|_| dead.next().is_none())?
    };
    Some(dead_link(case, port, at(scene, port.index, Point::BridgeEgress)))
}

//! What keeps a port or a device from sending a frame: it is down, without carrier, in no bridge, or leads by a veth pair
//! to another bridge where that is so.

use super::bridge::{blocked_port, bridge_down, flood_disabled, not_in_vlan};
use super::guest;
use crate::diagnose::facts::bridge::carries;
use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::fix::{bond, device, port};
use crate::diagnose::flows::case::Case;
use crate::diagnose::flows::frame::{inner_vlan, target_port};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict, Where};
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind, PortState};
use crate::event::is_link_local;

/// The uplinks of the guest's bridge: there is none, or none that works.
pub fn way_out(case: &Case<'_>, drop: Option<&Dropped<'_>>) -> Option<Judgement> {
    let scene = case.scene;
    let bridge = case.bridge()?;
    let own = scene.link(case.device()?)?;
    if !case.is_from_guest() {
        return exit_port(case, own, bridge, drop);
    }
    if let Some(target) = target_port(case, bridge, own) {
        return exit_port(case, target, bridge, drop);
    }
    let uplinks: Vec<&Link> = scene.host.uplinks(bridge.index).collect();
    let by_pair = |uplink: &&Link| uplink.master != Some(bridge.index) || uplink.peer.is_some();
    if uplinks.iter().all(by_pair)
        && let Some(judgement) = broken_pair(case, bridge)
    {
        return Some(with_drop(judgement, drop));
    }
    if uplinks.is_empty() {
        let stray = stray_uplink(case, bridge)?;
        return Some(with_drop(detached(case, stray, Point::NicEgress), drop));
    }
    let faults: Vec<Judgement> = uplinks.iter().filter_map(|uplink| exit_port(case, uplink, bridge, drop)).collect();
    if faults.len() == uplinks.len() { faults.into_iter().next() } else { None }
}

/// A NIC that serves nothing: it should be the bridge's uplink.
fn stray_uplink<'a>(case: &Case<'a>, bridge: &Link) -> Option<&'a Link> {
    let host = case.scene.host;
    let free = |link: &&Link| {
        link.master.is_none()
            && matches!(case.scene.role(link.index), Role::Nic | Role::Tunnel)
            && matches!(
                link.kind,
                LinkKind::Physical | LinkKind::Veth | LinkKind::Bond | LinkKind::Vlan { .. } | LinkKind::Vxlan { .. }
            )
            && !host.links.values().any(|upper| upper.lower == Some(link.index))
            && !host.routes.iter().any(|route| route.device == Some(link.index) && route.gateway.is_some())
    };
    let before = case.scene.track.first_host().ports(bridge.index).map(|port| port.index).collect::<Vec<_>>();
    let was_port = host.links.values().filter(free).find(|link| before.contains(&link.index));
    was_port.or_else(|| host.links.values().filter(free).find(|link| !has_address(link)))
}

fn has_address(link: &Link) -> bool {
    link.addresses.iter().any(|network| !is_link_local(network.address))
}

/// What keeps a port from sending this frame.
pub fn exit_port(case: &Case<'_>, port: &Link, bridge: &Link, drop: Option<&Dropped<'_>>) -> Option<Judgement> {
    let scene = case.scene;
    let tap = scene.role(port.index) == Role::Tap;
    let point = if tap { Point::TapEgress } else { Point::NicEgress };
    let place = at(scene, port.index, point);
    // Behind a pair that joins two bridges the port is the other one's.
    let near = bridge;
    let other = port.master.filter(|master| *master != near.index && scene.host.joined(near.index).contains(master));
    let bridge = other.and_then(|other| scene.link(other)).unwrap_or(near);
    let judgement = if !port.up || !port.carrier {
        Some(dead_link(case, port, place))
    } else if port.master.is_none() {
        Some(detached(case, port, point))
    } else if port.master != Some(bridge.index) {
        // It belongs elsewhere: what is behind it is in another network.
        None
    } else if let Some(flags) = &port.port {
        if flags.state != PortState::Forwarding {
            Some(blocked_port(case, port, bridge, at(scene, port.index, Point::BridgeEgress)))
        } else if !carries(port, inner_vlan(case, bridge), bridge) {
            Some(not_in_vlan(case, port, bridge))
        } else {
            flood_disabled(case, port, bridge)
        }
    } else {
        None
    };
    let by_pair = other.is_some() || port.peer.is_some();
    let judgement = judgement.or_else(|| by_pair.then(|| broken_pair(case, near)).flatten());
    judgement.map(|judgement| with_drop(judgement, drop))
}

/// With the drop that led here.
pub fn with_drop(judgement: Judgement, drop: Option<&Dropped<'_>>) -> Judgement {
    match drop {
        Some(drop) => Judgement { place: judgement.place.clone().of(drop), verdict: Verdict::Dropped, ..judgement },
        None => judgement,
    }
}

/// A device that should be a port of the guest's bridge.
pub fn detached(case: &Case<'_>, link: &Link, point: Point) -> Judgement {
    let explanation = format!("{} can't pass {}: it is a port of no bridge.", case.dropped_share(), link.name);
    let before = case.scene.track.first_host().link(link.index).and_then(|link| link.master);
    let fixes = match case.bridge() {
        Some(bridge) if before.is_some_and(|before| before != bridge.index) => vec![Fix::advice(format!(
            "{} was a port of {} when the trace began: find out what took it from there.",
            link.name,
            before.map(|before| case.scene.name(before)).unwrap_or_default()
        ))],
        Some(bridge) => vec![
            device::enslave(link, bridge, format!("Makes {} an uplink of {}.", link.name, bridge.name))
                .risk("An address configured on the device itself stops working there: it belongs on the bridge."),
        ],
        None => port::attach(case.scene, link),
    };
    Judgement::dropped(Cause::BridgePortDetached, at(case.scene, link.index, point), explanation)
        .verdict(Verdict::Lost)
        .evidence([format!("{}: no master", link.name)])
        .fixes(fixes)
}

/// A device that is down or has no carrier.
pub fn dead_link(case: &Case<'_>, link: &Link, place: Where) -> Judgement {
    if let Some(judgement) = dead_port(case, link) {
        return Judgement {
            place: Where { function: place.function, reason: place.reason, ..judgement.place },
            ..judgement
        };
    }
    let below = case.scene.dead_below(link);
    if below.index != link.index {
        let device = Some(below.name.clone());
        return dead_link(case, below, Where { device, point: Point::NicEgress, ..place });
    }
    if link.up && link.carrier && link.peer.and_then(|peer| case.scene.link(peer)).is_none_or(|far| far.up) {
        return recovered(case, link, place);
    }
    if case.scene.role(link.index) == Role::Tap {
        return guest::gone(case, link, place);
    }
    if let (LinkKind::Bridge(_), false) = (&link.kind, link.up) {
        return bridge_down(case, link, Where { point: Point::BridgeIngress, ..place });
    }
    // One end of a pair has a carrier when the other one is up.
    let far = link.peer.and_then(|peer| case.scene.link(peer));
    if let (true, Some(far)) = (link.up, far.filter(|far| !far.up)) {
        return dead_link(case, far, Where { device: Some(far.name.clone()), ..place });
    }
    let what = words::packets(case.packets());
    let first = case.scene.track.first_host();
    if link.up {
        let explanation = format!("{what} would have to pass {}, which has no carrier.", link.name);
        return Judgement::dropped(Cause::NoCarrier, place, explanation)
            .evidence([format!("{}: up, no carrier", link.name)])
            .fixes(bond::leave(case.scene, link))
            .fix(device::no_carrier_advice(link));
    }
    let explanation = format!("{what} would have to pass {}, which is administratively down.", link.name);
    Judgement::dropped(Cause::LinkDown, place, explanation)
        .evidence([format!("{}: administratively down", link.name)])
        .fix(device::up(case.scene.host, first, link))
}

/// A device that was down, or without carrier, while the packets came, and works again.
pub fn recovered(case: &Case<'_>, link: &Link, place: Where) -> Judgement {
    let explanation =
        format!("{} came to {} while it was down or without carrier; it is up again.", case.dropped_share(), link.name);
    Judgement::dropped(Cause::LinkDown, place, explanation)
        .severity(Severity::Warning)
        .evidence([format!("{}: up, with carrier, when the trace ended", link.name)])
        .fix(Fix::advice(format!(
            "Nothing is to be done for {} now. If it happens again, find out what takes it down (ip monitor link; the journal).",
            link.name
        )))
}

/// A bridge has a carrier as long as one of its ports forwards: without, the guest's own port is what is wrong.
fn dead_port(case: &Case<'_>, bridge: &Link) -> Option<Judgement> {
    let is_bridge = matches!(bridge.kind, LinkKind::Bridge(_));
    if !is_bridge || !bridge.up || bridge.carrier {
        return None;
    }
    let own = case.scene.link(case.device()?).filter(|own| own.master == Some(bridge.index))?;
    exit_port(case, own, bridge, case.focus.as_ref())
}

/// What is wrong with the pairs that lead on from `bridge`, when none of them works.
pub fn broken_pair(case: &Case<'_>, bridge: &Link) -> Option<Judgement> {
    let host = case.scene.host;
    let mut faults = Vec::new();
    for near in host.ports(bridge.index) {
        let Some(far) = near.peer.and_then(|peer| host.link(peer)) else { continue };
        faults.push(pair_fault(case, bridge, near, far)?);
    }
    faults.into_iter().next()
}

fn pair_fault(case: &Case<'_>, bridge: &Link, near: &Link, far: &Link) -> Option<Judgement> {
    let scene = case.scene;
    if let Some(dead) = [near, far].into_iter().find(|end| !end.up) {
        return Some(dead_link(case, dead, at(scene, dead.index, Point::NicEgress)));
    }
    let blocked = |end: &&Link| end.port.as_ref().is_some_and(|port| port.state != PortState::Forwarding);
    if let Some(end) = [near, far].into_iter().find(blocked) {
        let own = end.master.and_then(|master| scene.link(master)).unwrap_or(bridge);
        let point = if end.index == near.index { Point::BridgeEgress } else { Point::BridgeIngress };
        return Some(blocked_port(case, end, own, at(scene, end.index, point)));
    }
    let routed = far.addresses.iter().any(|network| !is_link_local(network.address));
    (far.master.is_none() && !routed).then(|| loose_end(case, bridge, near, far))
}

/// The far end is in no bridge: the host takes the guest's frames for its own and finds that they are not.
fn loose_end(case: &Case<'_>, bridge: &Link, near: &Link, far: &Link) -> Judgement {
    let explanation = format!(
        "{} left {} by {}, whose other end {} is a port of no bridge.",
        words::packets(case.packets()),
        bridge.name,
        near.name,
        far.name
    );
    Judgement::dropped(Cause::BridgePortDetached, at(case.scene, far.index, Point::NicIngress), explanation)
        .verdict(Verdict::Lost)
        .evidence([format!("{}: no master, other end of {}", far.name, near.name)])
        .fix(port::rejoin(case.scene, bridge, far))
}

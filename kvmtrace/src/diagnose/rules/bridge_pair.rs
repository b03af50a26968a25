//! A veth pair that joins the guest's bridge to another one of this host: either end may be down, blocked, or in no
//! bridge, and what the guest sends is lost between the two.

use super::bridge_port::blocked_port;
use super::path::dead_link;
use crate::diagnose::case::Case;
use crate::diagnose::fix::device;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point, Verdict};
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind, PortState};

/// What is wrong with the pairs that lead on from `bridge`, when none of them works.
pub fn judge(case: &Case<'_>, bridge: &Link) -> Option<Judgement> {
    let host = case.scene.host;
    let mut faults = Vec::new();
    for near in host.ports(bridge.index) {
        let Some(far) = near.peer.and_then(|peer| host.link(peer)) else { continue };
        faults.push(fault(case, bridge, near, far)?);
    }
    faults.into_iter().next()
}

fn fault(case: &Case<'_>, bridge: &Link, near: &Link, far: &Link) -> Option<Judgement> {
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

fn is_link_local(address: std::net::IpAddr) -> bool {
    matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// The far end is in no bridge: the host takes the guest's frames for its own and finds that they are not.
fn loose_end(case: &Case<'_>, bridge: &Link, near: &Link, far: &Link) -> Judgement {
    let host = case.scene.host;
    let before = case.scene.track.first_host().link(far.index).and_then(|link| link.master);
    let others =
        || host.links.values().filter(|link| matches!(link.kind, LinkKind::Bridge(_)) && link.index != bridge.index);
    let ports = |other: &Link| host.ports(other.index).count();
    let other =
        others().find(|other| Some(other.index) == before).or_else(|| others().max_by_key(|other| ports(other)));
    let fix = match other {
        Some(other) => device::enslave(
            far,
            other,
            format!("Makes {} a port of {}: {} and it are joined again.", far.name, other.name, bridge.name),
        )
        .risk("Check that this is the bridge that it should join: two pairs between the same bridges make a loop."),
        None => Fix::advice(format!(
            "Make {} a port of the bridge that leads beyond this host; there is none now.",
            far.name
        )),
    };
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
        .fix(fix)
}

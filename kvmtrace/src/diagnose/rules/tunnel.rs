//! VXLAN: `tunnel-no-remote`, `tunnel-mtu-exceeded`, `tunnel-unknown-vni`.
//!
//! A drop of the outer packet is a drop of the flow inside (`track::tunnel`). Where the outer packet is only cut up, its
//! flow does not tell which inner flow it carries (its source port is a hash): the sizes decide. `vxlan` tells the sender
//! of an inner packet that must not be fragmented what fits, in the name of the inner destination
//! (`skb_tunnel_check_pmtu`): then nothing is dropped at all.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes;
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::facts::sites::Site;
use crate::diagnose::facts::tunnel::{is_unknown_vni, overhead, underlay, unknown_vni};
use crate::diagnose::faults::{port, route};
use crate::diagnose::fix::device;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind};
use crate::event::names::NeighbourState;
use crate::event::{Direction, Protocol};
use crate::track::Flow;
use std::net::IpAddr;

/// What died in the tunnel, or as a tunnel's packet.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if is_unknown_vni(drop) {
        return unknown_network(case, drop);
    }
    if drop.is_in_tunnel()
        && drop.within(Site::TunnelLength)
        && (drop.is_unspecified() || drop.because(&["PKT_TOO_BIG"]))
    {
        return too_big(case, Some(drop));
    }
    // A tunnel that is down has closed its socket.
    if drop.is_in_tunnel() && drop.because(&["NO_SOCKET"]) {
        let ours = |link: &&Link| matches!(link.kind, LinkKind::Vxlan { port, .. } if Some(port) == drop.key().destination_port);
        let link = case.scene.host.links.values().filter(ours).find(|link| !link.up)?;
        return Some(port::dead_link(case, link, at(case.scene, link.index, Point::Tunnel).of(drop)));
    }
    let in_tunnel = drop.within(Site::TunnelTransmit);
    if !in_tunnel {
        return None;
    }
    let link = drop
        .device()
        .and_then(|device| case.scene.link(device))
        .filter(|link| matches!(link.kind, LinkKind::Vxlan { .. }));
    let link = link.or_else(|| tunnel(case))?;
    if drop.because(&["IP_OUTNOROUTES", "IP6_OUTNOROUTES", "IP_INNOROUTES"]) {
        return no_underlay(case, drop, link);
    }
    // Before 6.13 without a reason, as whatever else goes wrong there (`vxlan_xmit_one`, `tx_error`): the routes decide.
    let is_unreachable = || remote_hint(case.scene, link).is_some_and(|to| routes::has_no_way(case.scene, to));
    if drop.is_unspecified() && drop.within(Site::VxlanTransmitOne) && is_unreachable() {
        return no_underlay(case, drop, link);
    }
    Some(no_remote(case, drop, link))
}

/// The host has no way to the remote end.
fn no_underlay(case: &Case<'_>, drop: &Dropped<'_>, link: &Link) -> Option<Judgement> {
    if let Some(under) = underlay(case.scene, link).filter(|under| !under.up || !under.carrier) {
        return Some(port::dead_link(case, under, at(case.scene, under.index, Point::NicEgress).of(drop)));
    }
    Some(route::no_way(case, drop, link, remote_hint(case.scene, link)?))
}

/// `vxlan_xmit` has nobody to send to.
fn no_remote(case: &Case<'_>, drop: &Dropped<'_>, link: &Link) -> Judgement {
    let mac = case.destination_mac().map(|mac| mac.to_string()).unwrap_or_default();
    let explanation = format!(
        "{} came to {}, which knows no remote end for {mac}: neither a default nor an entry in its forwarding database.",
        case.dropped_share(),
        link.name
    );
    let peer = remote_hint(case.scene, link);
    let name = quote(&link.name);
    let fix = match peer {
        Some(peer) => Fix::run(
            format!("bridge fdb append 00:00:00:00:00:00 dev {name} dst {peer}"),
            format!("bridge fdb del 00:00:00:00:00:00 dev {name} dst {peer}"),
            format!("Sends unknown and broadcast frames to {peer}."),
        )
        .risk("A guess: this peer was seen or known before; check that it is a tunnel end.")
        .persist("Set it where the tunnel is made (systemd-networkd's [BridgeFDB], the SDN agent)."),
        None => Fix::advice(format!(
            "Tell {} its peers: bridge fdb append 00:00:00:00:00:00 dev {} dst PEER, for each remote tunnel end.",
            link.name, link.name
        )),
    };
    Judgement::dropped(Cause::TunnelNoRemote, at(case.scene, link.index, Point::Tunnel).of(drop), explanation).fix(fix)
}

/// Another end that this tunnel has, had, or that speaks VXLAN to this host.
fn remote_hint(scene: &Scene<'_>, link: &Link) -> Option<IpAddr> {
    let entries = || scene.host.forwarding.iter().chain(&scene.track.first_host().forwarding);
    let known = entries().filter(|entry| entry.device == link.index).find_map(|entry| entry.remote);
    let LinkKind::Vxlan { port, remote, .. } = link.kind else { return None };
    remote
        .filter(|remote| !remote.is_unspecified() && !remote.is_multicast())
        .or(known)
        .or_else(|| {
            scene
                .track
                .flows()
                .filter(|flow| flow.key.protocol == Protocol::Udp && flow.key.destination_port == Some(port))
                .filter(|flow| flow.places.keys().any(|place| place.direction == Direction::Ingress))
                .find_map(|flow| flow.key.source.ip())
        })
        .or_else(|| {
            let underlay = underlay(scene, link)?;
            let mut near = scene.host.neighbours.iter().filter(|neighbour| {
                neighbour.device == underlay.index
                    && neighbour.mac.is_some()
                    && neighbour.state != NeighbourState::Failed
                    && neighbour.address.is_ipv4()
            });
            near.next().filter(|_| near.next().is_none()).map(|neighbour| neighbour.address)
        })
}

/// The outer packets are too big, or come back to an unknown network: asked of every flow that leaves by a tunnel.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let link = tunnel(case)?;
    let LinkKind::Vxlan { vni, .. } = link.kind else { return None };
    if let Some(judgement) = judge_outer(case) {
        return Some(judgement);
    }
    if case.answered() > 0 {
        return None;
    }
    if let Some(under) = underlay(case.scene, link).filter(|under| !under.up || !under.carrier) {
        let place = at(case.scene, under.index, Point::NicEgress);
        return Some(port::dead_link(case, under, place).verdict(Verdict::Lost));
    }
    let (count, drop) = unknown_vni(case.scene)?;
    let explanation = format!(
        "{} left by {} (VNI {vni}), and what came back, {}, bears a VNI that this host does not have.",
        words::packets(case.packets()),
        link.name,
        words::packets(count)
    );
    Some(
        Judgement::dropped(Cause::TunnelUnknownVni, at(case.scene, link.index, Point::Tunnel).of(&drop), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([drop.label()])
            .fix(one_vni(link, vni)),
    )
}

/// What came for a guest in a network that no device has.
fn unknown_network(case: &Case<'_>, drop: &Dropped<'_>) -> Option<Judgement> {
    let port = drop.key().destination_port?;
    let devices = || case.scene.host.links.values();
    let link = devices().find(|link| matches!(link.kind, LinkKind::Vxlan { port: own, .. } if own == port))?;
    let LinkKind::Vxlan { vni, .. } = link.kind else { return None };
    let explanation = format!(
        "{} came in a tunnel from {} with a network identifier (VNI) that no device of this host has; {} has {vni}.",
        case.dropped_share(),
        drop.key().source,
        link.name
    );
    let place = at(case.scene, link.index, Point::Tunnel).of(drop);
    Some(
        Judgement::dropped(Cause::TunnelUnknownVni, place, explanation)
            .evidence([drop.label()])
            .fix(one_vni(link, vni)),
    )
}

fn one_vni(link: &Link, vni: u32) -> Fix {
    Fix::advice(format!(
        "Use one VNI at both ends: this one has {vni} ({}); a VNI can't be changed, the device has to be made anew.",
        link.name
    ))
}

/// The outer packets are too big for the underlay: fragmented there, or the sender of the inner ones was told so.
pub fn judge_outer(case: &Case<'_>) -> Option<Judgement> {
    too_big(case, None)
}

fn too_big(case: &Case<'_>, drop: Option<&Dropped<'_>>) -> Option<Judgement> {
    let link = tunnel(case)?;
    let LinkKind::Vxlan { port, .. } = link.kind else { return None };
    let scene = case.scene;
    let under = underlay(scene, link)?;
    let inner = case.largest();
    let overhead = overhead(link, under);
    let outer_size = inner + overhead;
    if outer_size <= under.mtu {
        return None;
    }
    let is_outer = |flow: &&Flow| flow.key.protocol == Protocol::Udp && flow.key.destination_port == Some(port);
    let pieces: u64 = scene
        .track
        .flows()
        .filter(is_outer)
        .flat_map(|flow| flow.places.values())
        .map(|counters| u64::from(counters.fragments))
        .max()
        .unwrap_or(0);
    let told = case.errors.iter().any(|error| error.about.is_too_big());
    let place = at(scene, link.index, Point::Tunnel);
    let size = format!(
        "the inner packets of up to {inner} bytes make outer ones of {outer_size}, too big for {} (MTU {})",
        under.name, under.mtu
    );
    let judgement = |place, explanation| Judgement::dropped(Cause::TunnelMtuExceeded, place, explanation);
    let judgement = if let Some(drop) = drop {
        let explanation = format!("{} were dropped in the tunnel {}: {size}.", case.dropped_share(), link.name);
        judgement(place.of(drop), explanation).evidence([drop.label()])
    } else if told {
        // TCP takes smaller segments; whoever sends the same again is refused again.
        let adapts = case.answered() > 0;
        let explanation = format!(
            "{} must not be fragmented, and the tunnel {} told the sender that they do not fit{}: {size}.",
            words::packets(case.packets()),
            link.name,
            if adapts { ", and it adapted" } else { "" }
        );
        judgement(place, explanation)
            .verdict(if adapts { Verdict::Delivered } else { Verdict::Refused })
            .severity(if adapts { Severity::Info } else { Severity::Warning })
    } else if pieces > 0 {
        judgement(place, format!("The tunnel {} fragments what it carries: {size}.", link.name))
            .verdict(Verdict::Fragmented)
            .severity(Severity::Warning)
            .evidence([format!("{pieces} fragments of outer packets were seen")])
    } else {
        return None;
    };
    let raise = device::mtu(
        under,
        outer_size,
        format!("Lets {} carry the inner packets with the {overhead} bytes of tunnel header.", under.name),
    );
    let lower = device::mtu(
        link,
        under.mtu.saturating_sub(overhead),
        format!("Or lets {} tell that less fits through the tunnel; the guests' MTU has to follow.", link.name),
    );
    Some(judgement.fix(raise).fix(lower))
}

/// The tunnel that the flow leaves by.
pub(in crate::diagnose) fn tunnel<'a>(case: &Case<'a>) -> Option<&'a Link> {
    let hop = case
        .hops
        .iter()
        .find(|(place, _)| place.direction == Direction::Egress && case.scene.role(place.device) == Role::Tunnel);
    hop.and_then(|(place, _)| case.scene.link(place.device))
}

//! VXLAN: `tunnel-no-remote`, `tunnel-mtu-exceeded`, `tunnel-unknown-vni`.
//!
//! What happens to the outer packet is told on the inner flows that travel in it. The outer source port is a hash, so
//! which outer flow carries which inner one can't be told: the sizes decide.

use crate::diagnose::case::Case;
use crate::diagnose::dropped::{Dropped, plain};
use crate::diagnose::fix::{device, quote};
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::scene::{Role, Scene};
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind};
use crate::event::{Direction, Protocol};
use crate::track::Flow;
use std::net::IpAddr;

/// `vxlan_xmit` has nobody to send to.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let in_tunnel = drop.function().starts_with("vxlan_xmit") || drop.function().starts_with("geneve_xmit");
    if !in_tunnel {
        return None;
    }
    let link = drop
        .device()
        .and_then(|device| case.scene.link(device))
        .filter(|link| matches!(link.kind, LinkKind::Vxlan { .. }));
    let link = link.or_else(|| tunnel(case))?;
    let mac = case.destination_mac().map(|mac| mac.to_string()).unwrap_or_default();
    let explanation = format!(
        "{} came to {}, which knows no remote end for {mac}: neither a default nor an entry in its forwarding database.",
        words::dropped(case),
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
    Some(
        Judgement::dropped(Cause::TunnelNoRemote, at(case.scene, link.index, Point::Tunnel).of(drop), explanation)
            .fix(fix),
    )
}

/// Another end that this tunnel has, had, or that speaks VXLAN to this host.
fn remote_hint(scene: &Scene<'_>, link: &Link) -> Option<IpAddr> {
    let entries = || scene.host.forwarding.iter().chain(&scene.track.first_host().forwarding);
    let known = entries().filter(|entry| entry.device == link.index).find_map(|entry| entry.remote);
    let LinkKind::Vxlan { port, .. } = link.kind else { return None };
    known
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
                    && neighbour.state != "failed"
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
            .fix(Fix::advice(format!("Use one VNI at both ends: this one has {vni} ({}); a VNI can't be changed, the device has to be made anew.", link.name))),
    )
}

/// Tunnel packets that came to no known network.
pub fn unknown_vni<'a>(scene: &Scene<'a>) -> Option<(u64, Dropped<'a>)> {
    let drops = scene
        .track
        .flows()
        .flat_map(|flow| flow.drops.iter().map(move |(site, totals)| Dropped { flow, site, totals }));
    let unknown = drops.filter(|drop| {
        drop.because(&["VXLAN_VNI_NOT_FOUND", "TUNNEL_VNI_NOT_FOUND"])
            || drop.within(&["vxlan_rcv"]) && drop.is_unspecified() && drop.flow.key.protocol == Protocol::Udp
    });
    let unknown: Vec<Dropped<'_>> = unknown.collect();
    Some((unknown.iter().map(|drop| drop.totals.packets).sum(), *unknown.first()?))
}

/// The outer packets are too big for the underlay: dropped there, or fragmented.
pub fn judge_outer(case: &Case<'_>) -> Option<Judgement> {
    let link = tunnel(case)?;
    let LinkKind::Vxlan { port, .. } = link.kind else { return None };
    let scene = case.scene;
    let under = underlay(scene, link)?;
    let inner = case.largest();
    let v6 = under.addresses.first().is_some_and(|network| network.address.is_ipv6());
    let outer_size = inner + if v6 { 70 } else { 50 };
    if outer_size <= under.mtu {
        return None;
    }
    let is_outer = |flow: &&Flow| flow.key.protocol == Protocol::Udp && flow.key.destination_port == Some(port);
    let dropped = scene.track.flows().find_map(|flow| {
        flow.drops.iter().map(|(site, totals)| Dropped { flow, site, totals }).find(|drop| {
            drop.stack().iter().any(|name| plain(name).starts_with("vxlan_xmit"))
                && drop.within(&[
                    "ip_fragment",
                    "ip_do_fragment",
                    "ip6_fragment",
                    "ip_finish_output",
                    "ip6_finish_output",
                    "__ip_finish_output",
                ])
        })
    });
    let pieces: u64 = scene
        .track
        .flows()
        .filter(is_outer)
        .flat_map(|flow| flow.places.values())
        .map(|counters| u64::from(counters.fragments))
        .max()
        .unwrap_or(0);
    if dropped.is_none() && pieces == 0 {
        return None;
    }
    let overhead = outer_size - inner;
    let place = at(scene, link.index, Point::Tunnel);
    let raise = device::mtu(
        under,
        inner + overhead,
        format!("Lets {} carry the inner packets with the {overhead} bytes of tunnel header.", under.name),
    );
    let lower = device::mtu(
        link,
        under.mtu.saturating_sub(overhead),
        format!("Or lets {} tell that less fits through the tunnel; the guests' MTU has to follow.", link.name),
    );
    let size = format!(
        "the inner packets of up to {inner} bytes make outer ones of {outer_size}, too big for {} (MTU {})",
        under.name, under.mtu
    );
    Some(
        match dropped {
            Some(drop) => Judgement::dropped(
                Cause::TunnelMtuExceeded,
                place.of(&drop),
                format!(
                    "{} were dropped in the tunnel {}: {size}.",
                    words::packets(drop.totals.packets.min(case.packets())),
                    link.name
                ),
            )
            .evidence([drop.label()]),
            None => Judgement::dropped(
                Cause::TunnelMtuExceeded,
                place,
                format!("The tunnel {} fragments what it carries: {size}.", link.name),
            )
            .verdict(Verdict::Fragmented)
            .severity(Severity::Warning)
            .evidence([format!("{pieces} fragments of outer packets were seen")]),
        }
        .fix(raise)
        .fix(lower),
    )
}

/// The tunnel that the flow leaves by.
fn tunnel<'a>(case: &Case<'a>) -> Option<&'a Link> {
    let hop = case
        .hops
        .iter()
        .find(|(place, _)| place.direction == Direction::Egress && case.scene.role(place.device) == Role::Tunnel);
    hop.and_then(|(place, _)| case.scene.link(place.device))
}

/// The device that the outer packets leave by.
fn underlay<'a>(scene: &Scene<'a>, tunnel: &Link) -> Option<&'a Link> {
    if let Some(lower) = tunnel.lower {
        return scene.link(lower);
    }
    let LinkKind::Vxlan { remote, local, .. } = &tunnel.kind else { return None };
    let remote = remote.filter(|remote| !remote.is_unspecified()).or_else(|| {
        scene.host.forwarding.iter().filter(|entry| entry.device == tunnel.index).find_map(|entry| entry.remote)
    });
    let by_route =
        remote.and_then(|remote| super::routing::route_to(scene.host, remote)).and_then(|route| route.device);
    by_route.and_then(|device| scene.link(device)).or_else(|| local.and_then(|local| scene.device_of_address(local)))
}

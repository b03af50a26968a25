//! Flows that leave by a tunnel and vanish, by what this host knows of the tunnel's other end: the device that leads there is dead
//! (`link-down`, `no-carrier`), nobody answers for its address (`neighbour-unresolved`), it refuses the tunnel's packets or
//! they come back by a key that no tunnel here has (`tunnel-unknown-vni`).

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::route_to;
use crate::diagnose::faults::{port, route};
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::Protocol;
use crate::event::host::{FdbEntry, Link, LinkKind};
use crate::event::overlay::WireguardPeer;
use crate::forward::effect::Effect;
use crate::track::IcmpError;
use std::net::IpAddr;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if case.answered() > 0 || !case.is_from_guest() {
        return None;
    }
    let tunnel = case.scene.link(case.last_device()?)?;
    let remote = remote_of(case, tunnel)?;
    dead_underlay(case, remote)
        .or_else(|| silent(case, tunnel, remote))
        .or_else(|| refused(case, tunnel, remote))
        .or_else(|| no_handshake(case, tunnel))
}

/// The other end to which the tunnel sends the flow's packets.
fn remote_of(case: &Case<'_>, tunnel: &Link) -> Option<IpAddr> {
    let overlay = &case.scene.host.overlay;
    if let LinkKind::Vxlan { remote, .. } = tunnel.kind {
        let entry = entry_of(case, tunnel).and_then(|entry| entry.remote);
        return entry.or(remote).filter(|remote| !remote.is_unspecified() && !remote.is_multicast());
    }
    if overlay.peers.contains_key(&tunnel.index) {
        return Some(peer_of(case, tunnel)?.endpoint?.0);
    }
    overlay.tunnels.get(&tunnel.index)?.remote
}

/// The `WireGuard` peer that the flow's packets are for (`wg_allowedips_lookup_dst`).
fn peer_of<'a>(case: &Case<'a>, tunnel: &Link) -> Option<&'a WireguardPeer> {
    let peers = case.scene.host.overlay.peers.get(&tunnel.index)?;
    let to = case.group.past.or(case.group.translated).unwrap_or(case.key()).destination.ip()?;
    let fits = peers.iter().flat_map(|peer| peer.allowed.iter().map(move |network| (peer, network)));
    let fitting = fits.filter(|(_, network)| network.contains(to)).max_by_key(|(_, network)| network.prefix);
    fitting.map(|(peer, _)| peer)
}

/// The peer has never completed a handshake: what is for it waits and is dropped in the end.
fn no_handshake(case: &Case<'_>, tunnel: &Link) -> Option<Judgement> {
    let peer = peer_of(case, tunnel).filter(|peer| !peer.has_shaken_hands)?;
    let (address, port) = peer.endpoint?;
    let name = quote(&tunnel.name);
    let explanation = format!(
        "{} went into {}, whose peer {}… at {address} port {port} has never completed a handshake: it sends nothing to it before.",
        words::packets(case.packets()),
        tunnel.name,
        peer.key
    );
    let advice = format!(
        "At the peer: see that it has this host's public key (wg show {name} public-key) and listens on UDP port {port} of {address}, and that no firewall on the way drops that. wg show {name} then shows a latest handshake."
    );
    let judgement =
        Judgement::dropped(Cause::TunnelPeerMissing, at(case.scene, tunnel.index, Point::Tunnel), explanation);
    let evidence = format!("{}: peer {}…, no handshake", tunnel.name, peer.key);
    Some(judgement.verdict(Verdict::Lost).evidence([evidence]).fix(Fix::advice(advice)))
}

/// The entry of a VXLAN device's forwarding database for the receiver: by the frame's address where it is bridged, else by the
/// neighbour's.
fn entry_of<'a>(case: &Case<'a>, tunnel: &Link) -> Option<&'a FdbEntry> {
    let to = case.key().destination.ip();
    let neighbours = case.scene.host.neighbours.iter();
    let routed = || neighbours.clone().find(|entry| entry.device == tunnel.index && Some(entry.address) == to)?.mac;
    let mac = if tunnel.master.is_some() { case.destination_mac() } else { routed() }?;
    case.scene
        .host
        .forwarding
        .iter()
        .find(|entry| entry.device == tunnel.index && entry.mac == mac && entry.remote.is_some())
}

/// The device that leads to the other end is dead.
fn dead_underlay(case: &Case<'_>, remote: IpAddr) -> Option<Judgement> {
    let way = route_to(case.scene, remote);
    let dead = match way {
        Some(way) => way.device.and_then(|device| case.scene.link(device)).filter(|link| !link.up || !link.carrier),
        None => route::downed_uplink(case.scene, remote),
    };
    let dead = dead?;
    Some(port::dead_link(case, dead, at(case.scene, dead.index, Point::NicEgress)).verdict(Verdict::Lost))
}

/// Nobody answers ARP or ND for the other end, or for the router before it.
fn silent(case: &Case<'_>, tunnel: &Link, remote: IpAddr) -> Option<Judgement> {
    let scene = case.scene;
    let way = route_to(scene, remote)?;
    let (next, under) = (way.gateway.unwrap_or(remote), scene.link(way.device?)?);
    let mut entries = scene.host.neighbours.iter();
    entries.find(|entry| entry.device == under.index && entry.address == next && entry.state.is_silent())?;
    let what = if next == remote { "which" } else { "by the router" };
    let router = if next == remote { String::new() } else { format!(" {next}, which") };
    let explanation = format!(
        "{} left by the tunnel {}, whose packets go to {remote}, {what}{router} does not answer on {}.",
        words::packets(case.packets()),
        tunnel.name,
        under.name
    );
    let check = Fix::advice(format!(
        "Check that {next} is up and has this address, and that {remote} is the tunnel's other end (ip -d link show {0}; bridge fdb show dev {0}; wg show).",
        tunnel.name
    ));
    let judgement =
        Judgement::dropped(Cause::NeighbourUnresolved, at(scene, under.index, Point::Neighbour), explanation);
    Some(
        judgement
            .verdict(Verdict::Lost)
            .evidence([format!("{next} on {}: no MAC address", under.name)])
            .fixes(without_entry(case, tunnel, remote))
            .fix(check),
    )
}

/// An entry of the forwarding database leads there alone: without it, the frames go to the tunnel's other ends.
fn without_entry(case: &Case<'_>, tunnel: &Link, remote: IpAddr) -> Option<Fix> {
    let entry = entry_of(case, tunnel).filter(|entry| entry.remote == Some(remote) && !entry.mac.is_zero())?;
    let LinkKind::Vxlan { remote: default, .. } = tunnel.kind else { return None };
    let all = case.scene.host.forwarding.iter();
    let flooded = all.filter(|other| other.device == tunnel.index && other.mac.is_zero());
    let mut others = flooded.filter_map(|other| other.remote).chain(default);
    let other = others.find(|other| *other != remote && !other.is_unspecified())?;
    let (name, mac) = (quote(&tunnel.name), entry.mac);
    let command = |verb: &str| format!("bridge fdb {verb} {mac} dev {name} dst {remote}");
    let fix = Fix::run(
        command("del"),
        command("replace"),
        format!("Sends frames for {mac} where {} sends what it does not know: to {other}.", tunnel.name),
    );
    let fix = fix
        .risk("Only if that machine is behind the other end.")
        .persist("Correct it where the entries are set (flannel, an SDN agent, systemd-networkd's [BridgeFDB]).");
    Some(fix.effect(Effect::FdbDelete(tunnel.index, mac, None)))
}

/// An ICMP error about the tunnel's own packets: of the other end about ours, or of this host about what came from there.
fn refused(case: &Case<'_>, tunnel: &Link, remote: IpAddr) -> Option<Judgement> {
    let scene = case.scene;
    let LinkKind::Other(kind) = &tunnel.kind else { return None };
    let carrier = match kind.as_str() {
        "gre" | "gretap" | "erspan" | "ip6gre" | "ip6gretap" | "ip6erspan" => Protocol::Ip(47),
        "ipip" => Protocol::Ip(4),
        "sit" => Protocol::Ip(41),
        _ => return None,
    };
    let ends = scene.host.overlay.tunnels.get(&tunnel.index)?;
    // Anybody can claim that; only the other end, and this host, know.
    let knows = |from: IpAddr| from == remote || scene.is_host_address(from);
    let about = |error: &&IcmpError| {
        error.about.flow.protocol == carrier
            && error.about.is_unreachable()
            && error.flow.source.ip().is_some_and(knows)
    };
    let errors = || scene.track.errors().filter(about);
    let key = ends.key.map(|key| format!(" with the key {key}")).unwrap_or_default();
    let own_key = ends.input_key.map(|key| format!(" with the key {key}")).unwrap_or_default();
    let (explanation, advice) = if errors().any(|error| error.about.flow.destination.ip() == Some(remote)) {
        (
            format!(
                "{} left by the tunnel {}, and its other end {remote} refuses the tunnel's packets (ICMP unreachable): no tunnel there takes them from this host{key}.",
                words::packets(case.packets()),
                tunnel.name
            ),
            format!("Make the two ends match: on {remote} a tunnel ({kind}) to this host{key} that is up."),
        )
    } else if errors().any(|error| error.about.flow.source.ip() == Some(remote)) {
        (
            format!(
                "{} left by the tunnel {}, and what comes back from {remote} fits no tunnel of this host: {} takes only what comes{own_key}.",
                words::packets(case.packets()),
                tunnel.name,
                tunnel.name
            ),
            format!(
                "Make the two ends match: what {remote} sends must come{own_key} (ip -d link show {}).",
                tunnel.name
            ),
        )
    } else {
        return None;
    };
    let place = at(scene, tunnel.index, Point::Tunnel);
    let judgement = Judgement::dropped(Cause::TunnelUnknownVni, place, explanation).verdict(Verdict::Unanswered);
    Some(judgement.fix(Fix::advice(advice)))
}

//! VXLAN tunnels: what they add, what they stand on, and what comes to them for no network of this host.

use super::dropped::Dropped;
use super::routes;
use super::scene::Scene;
use crate::diagnose::facts::sites::Site;
use crate::event::host::{Link, LinkKind};
use crate::event::{HostState, Protocol};

pub(in crate::diagnose) fn is_unknown_vni(drop: &Dropped<'_>) -> bool {
    drop.because(&["VXLAN_VNI_NOT_FOUND", "TUNNEL_VNI_NOT_FOUND"])
        || drop.within(Site::VxlanReceive) && drop.is_unspecified() && drop.key().protocol == Protocol::Udp
}

/// The VNI of each tunnel of this host.
pub fn identifiers(host: &HostState) -> String {
    let own = |link: &Link| {
        if let LinkKind::Vxlan { vni, .. } = link.kind { Some(format!("{vni} on {}", link.name)) } else { None }
    };
    let known: Vec<String> = host.links.values().filter_map(own).collect();
    if known.is_empty() { "none".to_owned() } else { known.join(", ") }
}

/// Tunnel packets that came to no known network.
pub fn unknown_vni<'a>(scene: &Scene<'a>) -> Option<(u64, Dropped<'a>)> {
    let drops = scene
        .track
        .flows()
        .flat_map(|flow| flow.drops.iter().map(move |(site, totals)| Dropped { flow, site, totals }));
    let unknown: Vec<Dropped<'_>> = drops.filter(|drop| !drop.is_in_tunnel() && is_unknown_vni(drop)).collect();
    Some((unknown.iter().map(|drop| drop.totals.packets).sum(), *unknown.first()?))
}

/// What the tunnel adds to a packet: Ethernet, VXLAN, UDP and IP headers.
pub fn overhead(tunnel: &Link, under: &Link) -> u32 {
    let end = if let LinkKind::Vxlan { remote, local, .. } = tunnel.kind { remote.or(local) } else { None };
    let end = end.or_else(|| under.addresses.first().map(|network| network.address));
    if end.is_some_and(|end| end.is_ipv6()) { 70 } else { 50 }
}

/// The device that the outer packets leave by.
pub fn underlay<'a>(scene: &Scene<'a>, tunnel: &Link) -> Option<&'a Link> {
    if let Some(lower) = tunnel.lower {
        return scene.link(lower);
    }
    let LinkKind::Vxlan { remote, local, .. } = &tunnel.kind else { return None };
    let remote = remote.filter(|remote| !remote.is_unspecified()).or_else(|| {
        scene.host.forwarding.iter().filter(|entry| entry.device == tunnel.index).find_map(|entry| entry.remote)
    });
    let by_route = remote.and_then(|remote| routes::route_to(scene, remote)).and_then(|route| route.device);
    by_route.and_then(|device| scene.link(device)).or_else(|| local.and_then(|local| scene.device_of_address(local)))
}

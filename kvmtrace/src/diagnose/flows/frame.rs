//! What a bridge makes of a flow's frames: the port that they came in by, the one that they should leave by, their VLAN.

use super::case::{Case, Way};
use crate::diagnose::facts::bridge::{is_wide_group, pvid};
use crate::diagnose::facts::routes::route_to;
use crate::event::host::{Link, LinkKind, Network};
use crate::event::{Direction, IfIndex, Protocol};
use std::net::IpAddr;

/// Traffic to a group that hosts join: not link-local control traffic, not neighbour discovery, not IGMP or MLD.
pub fn is_group_traffic(case: &Case<'_>) -> bool {
    case.key().destination.ip().is_some_and(is_wide_group) && !matches!(case.key().protocol, Protocol::Ip(2))
}

/// The port behind which the destination is.
pub fn target_port<'a>(case: &Case<'a>, bridge: &Link, from: &Link) -> Option<&'a Link> {
    let mac = case.destination_mac()?;
    let scene = case.scene;
    let entries = scene
        .host
        .forwarding
        .iter()
        .filter(|entry| entry.mac == mac && entry.bridge == Some(bridge.index) && !entry.permanent);
    let known = entries.filter_map(|entry| scene.link(entry.device)).find(|link| link.master == Some(bridge.index));
    known.or_else(|| scene.guest_towards(mac).and_then(|device| scene.link(device))).or_else(|| {
        if case.way() != Way::Uplink {
            return None;
        }
        let mut uplinks = scene.host.uplinks(bridge.index).filter(|link| link.index != from.index);
        uplinks.next().filter(|_| uplinks.next().is_none())
    })
}

pub(in crate::diagnose) fn is_known_source(case: &Case<'_>, port: &Link) -> bool {
    let source = case.group.main.entry().map(|(_, counters)| counters.source_mac);
    let source = source.or_else(|| case.device().and_then(|device| case.scene.mac_of(device)));
    case.scene.host.forwarding.iter().any(|entry| Some(entry.mac) == source && entry.device == port.index)
}

pub(in crate::diagnose) fn is_vlan_filtered(case: &Case<'_>, port: Option<&Link>, bridge: &Link) -> bool {
    let filtering = matches!(&bridge.kind, LinkKind::Bridge(state) if state.vlan_filtering);
    let Some(flags) = port.and_then(|port| port.port.as_ref()) else { return false };
    let member = match case.key().vlan {
        Some(vlan) => flags.vlans.iter().any(|membership| membership.covers(vlan)),
        None => flags.vlans.iter().any(|membership| membership.pvid),
    };
    filtering && !member
}

/// The network of the host's address on the guest's side.
pub fn guest_network(case: &Case<'_>, source: IpAddr) -> Option<Network> {
    let inside: Option<IfIndex> = route_to(case.scene, source).and_then(|route| route.device);
    let link = inside.and_then(|device| case.scene.link(device)).or_else(|| case.bridge())?;
    let network = link.addresses.iter().find(|network| network.contains(source))?;
    Some(network.whole())
}

/// The VLAN that a bridge with VLAN filtering takes the frames for: their tag, else the PVID of the port that they came in
/// by (`__allowed_ingress` in `net/bridge/br_vlan.c`); none where that port has no PVID, or is not known.
pub(in crate::diagnose) fn inner_vlan(case: &Case<'_>, bridge: &Link) -> Option<u16> {
    case.key().vlan.or_else(|| pvid(entry_port(case, bridge)?))
}

/// The port of the bridge that the frames came in by.
pub(in crate::diagnose) fn entry_port<'a>(case: &Case<'a>, bridge: &Link) -> Option<&'a Link> {
    let scene = case.scene;
    let own = || case.device().filter(|_| case.is_from_guest());
    let dropped = || case.focus.as_ref().and_then(|drop| drop.example()?.input_device);
    let entered = case.entry().map(|(place, _)| place).filter(|place| place.direction == Direction::Ingress);
    let device = entered.map(|place| place.device).or_else(own).or_else(dropped)?;
    scene.link(device).filter(|port| port.master == Some(bridge.index))
}

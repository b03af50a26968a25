//! What a bridge does with a frame by its own settings and its ports': spanning tree, VLANs, groups.

use crate::event::host::{Link, LinkKind, PortState};
use std::net::IpAddr;

/// A group that is no link-local control group.
pub fn is_wide_group(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        IpAddr::V6(group) => group.is_multicast() && group.segments()[0] & 0xf > 2 && group.segments()[7] != 0x16,
    }
}

/// The bridge runs spanning tree.
pub fn has_stp(bridge: &Link) -> bool {
    matches!(&bridge.kind, LinkKind::Bridge(state) if state.stp)
}

/// The port waits for spanning tree, which takes so many seconds.
pub fn waits(port: &Link, bridge: &Link) -> Option<u32> {
    let LinkKind::Bridge(state) = &bridge.kind else { return None };
    let on_its_way = matches!(port.port.as_ref()?.state, PortState::Listening | PortState::Learning);
    (state.stp && on_its_way).then_some(state.forward_delay * 2 / 100)
}

pub(in crate::diagnose) fn pvid(port: &Link) -> Option<u16> {
    port.port.as_ref()?.vlans.iter().find(|membership| membership.pvid).map(|membership| membership.id)
}

/// The port lets this VLAN pass; where none is known, untagged frames.
pub(in crate::diagnose) fn carries(port: &Link, vlan: Option<u16>, bridge: &Link) -> bool {
    let LinkKind::Bridge(state) = &bridge.kind else { return true };
    let Some(flags) = &port.port else { return true };
    if !state.vlan_filtering {
        return true;
    }
    match vlan {
        Some(not_in_vlan) => flags.vlans.iter().any(|membership| membership.covers(not_in_vlan)),
        None => flags.vlans.iter().any(|membership| membership.pvid || membership.untagged),
    }
}

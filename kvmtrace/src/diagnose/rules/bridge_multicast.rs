//! `bridge-multicast-pruned`: with snooping and a querier, a bridge sends a group only to ports that reported a member.

use crate::diagnose::case::Case;
use crate::diagnose::fix::device;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point, Severity};
use crate::diagnose::words;
use crate::event::Protocol;
use crate::event::host::LinkKind;
use std::net::IpAddr;

/// Where a bridge finds no port for a group's packet.
pub const FUNCTIONS: &[&str] = &["br_handle_frame_finish", "br_dev_xmit", "br_multicast_flood", "br_flood"];

/// Traffic to a group that hosts join: not link-local control traffic, not neighbour discovery, not IGMP or MLD.
pub fn is_group_traffic(case: &Case<'_>) -> bool {
    case.key().destination.ip().is_some_and(is_wide_group) && !matches!(case.key().protocol, Protocol::Ip(2))
}

/// A group that is no link-local control group.
pub fn is_wide_group(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => group.is_multicast() && group.octets()[..3] != [224, 0, 0],
        IpAddr::V6(group) => group.is_multicast() && group.segments()[0] & 0xf > 2 && group.segments()[7] != 0x16,
    }
}

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let there = drop.within(FUNCTIONS);
    if !(there && (drop.because(&["NO_TX_TARGET"]) || drop.is_unspecified()) && is_group_traffic(case)) {
        return None;
    }
    let link = case.scene.link(drop.device()?)?;
    let bridge = case.scene.bridge_of(link.index).unwrap_or(link);
    let LinkKind::Bridge(state) = &bridge.kind else { return None };
    if !state.multicast_snooping {
        return None;
    }
    let explanation = format!(
        "{} to the group {} found no port of {} with a member: multicast snooping is on{} and no listener has reported.",
        words::dropped(case),
        case.key().destination,
        bridge.name,
        if state.multicast_querier { ", the bridge is a querier," } else { "" }
    );
    let fix =
        device::bridge_option(bridge, "mcast_snooping", "0", "1", "Floods groups to every port, as without snooping.")
            .risk("Every guest on the bridge gets all multicast traffic.");
    Some(
        Judgement::dropped(Cause::BridgeMulticastPruned, at(case.scene, link.index, Point::BridgeForward).of(drop), explanation)
            .severity(Severity::Warning)
            .evidence([format!("{}: multicast snooping on, querier {}", bridge.name, if state.multicast_querier { "on" } else { "off" })])
            .fix(fix)
            .fix(Fix::advice("Or let the listeners send IGMP or MLD reports: they stop where a querier is missing or a firewall drops them.")),
    )
}

//! `bridge-multicast-pruned`: with snooping and a querier, a bridge sends a group only to ports that reported a member.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::device;
use crate::diagnose::flows::case::Case;
use crate::diagnose::flows::frame::is_group_traffic;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity};
use crate::event::host::LinkKind;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let there = drop.within(Site::BridgeNoMember);
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
        case.dropped_share(),
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

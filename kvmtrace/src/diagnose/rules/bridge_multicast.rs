//! `bridge-multicast-pruned`: with snooping and a querier, a bridge sends a group only to ports that reported a member.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::device;
use crate::diagnose::flows::case::Case;
use crate::diagnose::flows::frame::{entry_port, inner_vlan, is_group_traffic};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity};
use crate::diagnose::shell::quote;
use crate::event::host::{Link, LinkKind};
use std::net::IpAddr;

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
    let group = case.key().destination.ip()?;
    let judgement = Judgement::dropped(
        Cause::BridgeMulticastPruned,
        at(case.scene, link.index, Point::BridgeForward).of(drop),
        explanation,
    )
    .evidence([format!(
        "{}: multicast snooping on, querier {}",
        bridge.name,
        if state.multicast_querier { "on" } else { "off" }
    )]);
    let listeners = Fix::advice(
        "Let the listeners send IGMP or MLD reports: they stop where a querier is missing or a firewall drops them.",
    );
    if is_discovery(group) {
        return Some(judgement.severity(Severity::Info).fix(listeners));
    }
    let vlan = inner_vlan(case, bridge).filter(|_| state.vlan_filtering);
    let entries = device::group_members(bridge, &receivers(case, bridge), group, vlan);
    let by_hand = Fix::advice(format!(
        "Or make the ports of the listeners members of this one group: bridge mdb add dev {} port PORT grp {group} permanent.",
        quote(&bridge.name)
    ));
    let judgement = judgement.severity(Severity::Warning);
    Some(match entries {
        Some(entries) => judgement.fix(entries).fix(listeners),
        None => judgement.fix(listeners).fix(by_hand),
    })
}

/// Ports that a listener may be behind: those of guests for what comes in by an uplink, else all but the sender's.
fn receivers<'a>(case: &Case<'a>, bridge: &Link) -> Vec<&'a Link> {
    let scene = case.scene;
    let from = entry_port(case, bridge).map(|port| port.index);
    let is_guests = |port: &Link| matches!(scene.role(port.index), Role::Tap);
    let outside = from.and_then(|from| scene.link(from)).is_some_and(|port| !is_guests(port));
    let mut ports: Vec<&Link> = scene
        .host
        .ports(bridge.index)
        .filter(|port| Some(port.index) != from && (!outside || is_guests(port)))
        .collect();
    ports.sort_by_key(|port| port.index);
    ports
}

/// Programs ask these groups who is there (SSDP and WS-Discovery, SLP), without knowing whether anybody is: silence is an answer.
fn is_discovery(group: IpAddr) -> bool {
    match group {
        IpAddr::V4(group) => matches!(group.octets(), [239, 255, 255, 250 | 253]),
        IpAddr::V6(group) => {
            let of_link = group.segments()[1..7] == [0; 6];
            of_link && matches!(group.segments()[7], 0xc | 0xfb | 0x116)
        }
    }
}

//! What a bridge drops because of a port's state: `bridge-down`, `bridge-port-blocked`, `bridge-vlan-filtered`,
//! `bridge-port-isolated`, `bridge-port-locked`, `invalid-source-mac`, `bridge-link-local`, and what dies in a flood that no
//! port takes.
//!
//! Most of these share `br_handle_frame_finish` and have no reason, so the ports' flags and the FDB decide.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::bridge::{blocked_port, bridge_down, isolated};
use crate::diagnose::faults::{bridge, bridge_lone, port};
use crate::diagnose::fix::device;
use crate::diagnose::flows::case::Case;
use crate::diagnose::flows::frame::{is_known_source, is_vlan_filtered, target_port};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Where};
use crate::diagnose::shell::quote;
use crate::event::MacAddress;
use crate::event::host::{Link, LinkKind, PortState};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if drop.because(&["UNHANDLED_PROTO"]) {
        return link_local(case, drop);
    }
    let stp = drop.because(&["BRIDGE_INGRESS_STP_STATE"]);
    if !(drop.within(Site::BridgeIngress)
        || drop.within(Site::BridgeForward)
        || stp
        || drop.because(&["BRIDGE_NON_FORWARDING_STATE", "VLAN_FILTER", "MAC_INVALID_SOURCE"]))
    {
        return None;
    }
    let link = case.scene.link(drop.device()?)?;
    // Before 6.14 without a reason.
    let source = || drop.example().and_then(crate::diagnose::facts::dropped::macs).map(|(source, _)| source);
    let group_source =
        || drop.is_unspecified() && drop.within(Site::BridgeHandle) && source().is_some_and(MacAddress::is_multicast);
    if drop.because(&["MAC_INVALID_SOURCE"]) || group_source() {
        return Some(invalid_source(case, drop, link));
    }
    let (port, bridge) = match case.scene.bridge_of(link.index) {
        Some(bridge) => (Some(link), bridge),
        None if matches!(link.kind, LinkKind::Bridge(_)) => (None, link),
        None => return None,
    };
    if !bridge.up {
        let place = at(case.scene, bridge.index, Point::BridgeIngress).of(drop);
        return Some(bridge_down(case, bridge, place));
    }
    let state = port.and_then(|port| port.port.as_ref()).map(|port| port.state);
    let blocked = state.is_some_and(|state| !matches!(state, PortState::Forwarding));
    if let (Some(port), true) = (port, stp || blocked && drop.within(Site::BridgeIngress)) {
        let place = at(case.scene, port.index, Point::BridgeIngress).of(drop);
        return Some(blocked_port(case, port, bridge, place));
    }
    if drop.because(&["VLAN_FILTER"]) || is_vlan_filtered(case, port, bridge) {
        return Some(bridge::not_in_vlan(case, port.unwrap_or(bridge), bridge).evidence([drop.label()]));
    }
    // What the host itself sends: the port that it should leave by.
    if let (None, false, Some(own)) =
        (port, case.is_from_guest(), case.device().and_then(|device| case.scene.link(device)))
    {
        return port::exit_port(case, own, bridge, Some(drop));
    }
    let port = port?;
    if !drop.within(Site::BridgeForward) && !drop.within(Site::BridgeIngress) {
        return None;
    }
    if port.port.as_ref().is_some_and(|flags| flags.locked) && !is_known_source(case, port) {
        let place = at(case.scene, port.index, Point::BridgeIngress).of(drop);
        return Some(locked(case, port, place));
    }
    forward_failed(case, drop, port, bridge)
}

/// The frame came in well, and the port that it should leave by does not take it.
fn forward_failed(case: &Case<'_>, drop: &Dropped<'_>, port: &Link, bridge: &Link) -> Option<Judgement> {
    let target = target_port(case, bridge, port);
    if let Some(target) = target {
        if let Some(judgement) = isolated(case, port, target, bridge) {
            return Some(port::with_drop(judgement, Some(drop)));
        }
        if let Some(judgement) = port::exit_port(case, target, bridge, Some(drop)) {
            return Some(judgement);
        }
        if target.index == port.index {
            return bridge::misdirected(case, bridge);
        }
    }
    // All ports that could take it are isolated as well as this one.
    let isolated = port.port.as_ref().is_some_and(|flags| flags.isolated);
    let others =
        || case.scene.host.ports(bridge.index).filter(|other| other.index != port.index && other.up && other.carrier);
    if isolated
        && others().next().is_some()
        && others().all(|other| other.port.as_ref().is_some_and(|flags| flags.isolated))
    {
        let place = at(case.scene, port.index, Point::BridgeForward).of(drop);
        let explanation = format!(
            "{} came in by {}, which is isolated like every other port of {}: it may forward to none of them.",
            case.dropped_share(),
            port.name,
            bridge.name
        );
        return Some(Judgement::dropped(Cause::BridgePortIsolated, place, explanation).fix(device::port_flag(
            port,
            "isolated",
            false,
            format!("{} may then talk to the other ports.", port.name),
        )));
    }
    port::way_out(case, Some(drop))
        .or_else(|| bridge_lone::lone_bridge(case, Some(drop)))
        .or_else(|| bridge_lone::nobodys_address(case, drop, port, bridge))
}

fn locked(case: &Case<'_>, port: &Link, place: Where) -> Judgement {
    let source = case.entry().map(|(_, counters)| counters.source_mac.to_string()).unwrap_or_default();
    let explanation = format!(
        "{} came in by {}, which is locked: it takes only sources that are in the forwarding database, and {source} is not.",
        case.dropped_share(),
        port.name
    );
    let mut judgement =
        Judgement::dropped(Cause::BridgePortLocked, place, explanation).evidence([format!("{}: locked on", port.name)]);
    if !source.is_empty() {
        let name = quote(&port.name);
        judgement = judgement.fix(
            Fix::run(
                format!("bridge fdb add {source} dev {name} master static"),
                format!("bridge fdb del {source} dev {name} master"),
                "Admits this one address on the locked port.",
            )
            .persist("Let the authenticator (hostapd, 802.1X) or the guest's definition add it."),
        );
    }
    judgement.fix(
        device::port_flag(port, "locked", false, format!("{} then takes any source.", port.name))
            .risk("The port is no longer protected against spoofed MAC addresses."),
    )
}

fn invalid_source(case: &Case<'_>, drop: &Dropped<'_>, link: &Link) -> Judgement {
    let source = drop.example().and_then(crate::diagnose::facts::dropped::macs).map(|(source, _)| source);
    let source = source.or_else(|| case.entry().map(|(_, counters)| counters.source_mac));
    let source = source.map_or_else(|| "a group address".to_owned(), |mac| mac.to_string());
    let explanation = format!(
        "{} came in by {} with the source MAC address {source}, which no single sender can have; a bridge drops these.",
        case.dropped_share(),
        link.name
    );
    Judgement::dropped(Cause::InvalidSourceMac, at(case.scene, link.index, Point::BridgeIngress).of(drop), explanation)
        .fix(Fix::advice("Give the guest's interface a unicast MAC address (the lowest bit of its first byte clear), in the guest or its definition."))
}

fn link_local(case: &Case<'_>, drop: &Dropped<'_>) -> Option<Judgement> {
    let link = case.scene.link(drop.device()?)?;
    let bridge = case.scene.bridge_of(link.index)?;
    let last = case.destination_mac()?.0[5];
    let explanation = format!(
        "{} went to the reserved group {}, which bridges keep to the link (802.1D): {} does not forward it.",
        case.dropped_share(),
        case.destination_mac()?,
        bridge.name
    );
    let judgement = Judgement::dropped(
        Cause::BridgeLinkLocal,
        at(case.scene, link.index, Point::BridgeIngress).of(drop),
        explanation,
    )
    .severity(Severity::Info);
    // Bits 0 to 2 (STP, pause, LACP) can't be set (BR_GROUPFWD_RESTRICTED).
    if last <= 2 {
        return Some(judgement.fix(Fix::advice("STP, pause frames and LACP are never forwarded by a Linux bridge; pass the NIC itself to the guest if it must speak them.")));
    }
    let why = format!("Forwards what comes in by {} to this group (LLDP, 802.1X, …).", link.name);
    Some(
        judgement.fix(
            device::forward_group(link, last, why)
                .risk("Neighbours of the host then see the guest's frames of this protocol."),
        ),
    )
}

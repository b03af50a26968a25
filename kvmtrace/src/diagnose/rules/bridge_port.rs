//! What a bridge drops because of a port's state: `bridge-down`, `bridge-port-blocked`, `bridge-vlan-filtered`,
//! `bridge-port-isolated`, `bridge-port-locked`, `invalid-source-mac`, `bridge-link-local`, and what dies in a flood that no
//! port takes.
//!
//! Most of these share `br_handle_frame_finish` and have no reason, so the ports' flags and the FDB decide.

use super::path;
use crate::diagnose::case::{Case, Way};
use crate::diagnose::dropped::Dropped;
use crate::diagnose::fix::{device, quote};
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point, Severity};
use crate::diagnose::words;
use crate::event::MacAddress;
use crate::event::host::{Link, LinkKind, PortState};

/// Where a port takes a frame in, or does not. What it took ends elsewhere: a flood takes copies.
pub const INGRESS: &[&str] = &["br_handle_frame", "br_handle_frame_finish", "br_allowed_ingress", "__allowed_ingress"];
const FINISH: &[&str] =
    &["br_dev_xmit", "br_handle_frame_finish", "br_forward", "__br_forward", "maybe_deliver", "br_flood"];

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if drop.because(&["UNHANDLED_PROTO"]) {
        return link_local(case, drop);
    }
    let stp = drop.because(&["BRIDGE_INGRESS_STP_STATE"]);
    if !(drop.within(INGRESS)
        || drop.within(FINISH)
        || stp
        || drop.because(&["BRIDGE_NON_FORWARDING_STATE", "VLAN_FILTER", "MAC_INVALID_SOURCE"]))
    {
        return None;
    }
    let link = case.scene.link(drop.device()?)?;
    // Before 6.14 without a reason.
    let source = || drop.example().and_then(crate::diagnose::attribute::macs).map(|(source, _)| source);
    let group_source =
        || drop.is_unspecified() && drop.within(&["br_handle_frame"]) && source().is_some_and(MacAddress::is_multicast);
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
    if let (Some(port), true) = (port, stp || blocked && drop.within(INGRESS)) {
        let place = at(case.scene, port.index, Point::BridgeIngress).of(drop);
        return Some(blocked_port(case, port, bridge, place));
    }
    if drop.because(&["VLAN_FILTER"]) || is_vlan_filtered(case, port, bridge) {
        return Some(super::path::vlan(case, port.unwrap_or(bridge), bridge).evidence([drop.label()]));
    }
    // What the host itself sends: the port that it should leave by.
    if let (None, false, Some(own)) =
        (port, case.is_from_guest(), case.device().and_then(|device| case.scene.link(device)))
    {
        return path::exit_port(case, own, bridge, Some(drop));
    }
    let port = port?;
    if !drop.within(FINISH) && !drop.within(INGRESS) {
        return None;
    }
    if port.port.as_ref().is_some_and(|flags| flags.locked) && !known_source(case, port) {
        let place = at(case.scene, port.index, Point::BridgeIngress).of(drop);
        return Some(locked(case, port, place));
    }
    forward_failed(case, drop, port, bridge)
}

/// Both ports are isolated: the bridge forwards nothing from the one to the other (`should_deliver` in
/// `net/bridge/br_forward.c`).
pub fn isolated(case: &Case<'_>, port: &Link, target: &Link, bridge: &Link) -> Option<Judgement> {
    let isolated = |link: &Link| link.port.as_ref().is_some_and(|flags| flags.isolated);
    if !isolated(port) || !isolated(target) {
        return None;
    }
    let explanation = format!(
        "{} were to go from {} to {}, but both ports are isolated: {} forwards nothing between such ports.",
        words::dropped(case),
        port.name,
        target.name,
        bridge.name
    );
    Some(
        Judgement::dropped(Cause::BridgePortIsolated, at(case.scene, port.index, Point::BridgeForward), explanation)
            .evidence([format!("{}: isolated on; {}: isolated on", port.name, target.name)])
            .fix(
                device::port_flag(
                    port,
                    "isolated",
                    false,
                    format!("{} may then talk to the other ports of {}.", port.name, bridge.name),
                )
                .risk("The isolation may be meant: guests of different tenants on one bridge."),
            )
            .fix(device::port_flag(target, "isolated", false, format!("Or open the other side, {}.", target.name))),
    )
}

/// The frame came in well, and the port that it should leave by does not take it.
fn forward_failed(case: &Case<'_>, drop: &Dropped<'_>, port: &Link, bridge: &Link) -> Option<Judgement> {
    let target = target_port(case, bridge, port);
    if let Some(target) = target {
        if let Some(judgement) = isolated(case, port, target, bridge) {
            return Some(path::told(judgement, Some(drop)));
        }
        if let Some(judgement) = path::exit_port(case, target, bridge, Some(drop)) {
            return Some(judgement);
        }
        if target.index == port.index {
            return path::misdirected(case, bridge);
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
            words::dropped(case),
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
    path::way_out(case, Some(drop))
        .or_else(|| super::bridge_lone::judge(case, Some(drop)))
        .or_else(|| super::bridge_lone::nobodys_address(case, drop, port, bridge))
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
    known.or_else(|| scene.guest_by_mac(mac).and_then(|device| scene.link(device))).or_else(|| {
        if case.way() != Way::Uplink {
            return None;
        }
        let mut uplinks = scene.host.uplinks(bridge.index).filter(|link| link.index != from.index);
        uplinks.next().filter(|_| uplinks.next().is_none())
    })
}

fn known_source(case: &Case<'_>, port: &Link) -> bool {
    let source = case.group.main.entry().map(|(_, counters)| counters.source_mac);
    let source = source.or_else(|| case.device().and_then(|device| case.scene.mac_of(device)));
    case.scene.host.forwarding.iter().any(|entry| Some(entry.mac) == source && entry.device == port.index)
}

fn is_vlan_filtered(case: &Case<'_>, port: Option<&Link>, bridge: &Link) -> bool {
    let filtering = matches!(&bridge.kind, LinkKind::Bridge(state) if state.vlan_filtering);
    let Some(flags) = port.and_then(|port| port.port.as_ref()) else { return false };
    let member = match case.key().vlan {
        Some(vlan) => flags.vlans.iter().any(|membership| membership.covers(vlan)),
        None => flags.vlans.iter().any(|membership| membership.pvid),
    };
    filtering && !member
}

/// The bridge is administratively down.
pub fn bridge_down(case: &Case<'_>, bridge: &Link, place: crate::diagnose::report::Where) -> Judgement {
    let explanation = format!(
        "{} reached {}, which is administratively down: its ports forward nothing.",
        words::dropped(case),
        bridge.name
    );
    Judgement::dropped(Cause::BridgeDown, place, explanation)
        .evidence([format!("{}: administratively down", bridge.name)])
        .fix(device::up(case.scene.host, case.scene.track.first_host(), bridge))
}

/// A port that does not forward.
pub fn blocked_port(case: &Case<'_>, port: &Link, bridge: &Link, place: crate::diagnose::report::Where) -> Judgement {
    let state = port.port.as_ref().map_or(PortState::Disabled, |flags| flags.state);
    if state == PortState::Inoperative {
        return inoperative_port(case, port, bridge, place);
    }
    let name = match state {
        PortState::Disabled | PortState::Inoperative => "disabled",
        PortState::Listening => "listening",
        PortState::Learning => "learning",
        PortState::Blocking => "blocking",
        PortState::Forwarding => "forwarding again by now",
    };
    let what = words::dropped(case);
    let explanation = if let Some(seconds) = waits(port, bridge) {
        format!(
            "{what} were dropped at {}: spanning tree on {} keeps the port {name} for {seconds} s before it forwards.",
            port.name, bridge.name
        )
    } else {
        format!(
            "{what} were dropped at {}: as a port of {} it is in state {name}, which forwards nothing.",
            port.name, bridge.name
        )
    };
    Judgement::dropped(Cause::BridgePortBlocked, place, explanation)
        .evidence([format!(
            "{}: STP state {name}; {}: STP {}",
            port.name,
            bridge.name,
            if has_stp(bridge) { "on" } else { "off" }
        )])
        .fix(forward(port, bridge))
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

/// Lets a port forward. Where spanning tree runs, it alone sets states (`br_set_port_state`: busy), and what it has begun
/// goes on without it (`br_forward_delay_timer_expired`).
pub fn forward(port: &Link, bridge: &Link) -> Fix {
    let name = quote(&port.name);
    if has_stp(bridge) {
        let off = device::bridge_option(bridge, "stp_state", "0", "1", "Without spanning tree ports forward at once.");
        let command = off.command.as_ref().map(|off| format!("{off} && bridge link set dev {name} state 3"));
        let risk = "Only where the bridge has a single uplink: nothing breaks loops then.";
        return Fix { command, ..off.risk(risk) };
    }
    let state = port.port.as_ref().map_or(PortState::Disabled, |port| port.state);
    let number = match state {
        PortState::Disabled | PortState::Inoperative => 0,
        PortState::Listening => 1,
        PortState::Learning => 2,
        PortState::Forwarding => 3,
        PortState::Blocking => 4,
    };
    let command = |number: u8| format!("bridge link set dev {name} state {number}");
    Fix::run(command(3), command(number), format!("Lets {} forward at once.", port.name))
        .risk("If the port was blocked to break a loop, the loop comes back.")
        .persist("The state is set at run time only: find what sets it (a script, a spanning tree of user space).")
}

/// The port's device is up and has a carrier, and is not operational: 802.1X not done, under test.
fn inoperative_port(case: &Case<'_>, port: &Link, bridge: &Link, place: crate::diagnose::report::Where) -> Judgement {
    let explanation = format!(
        "{} can't pass {}: the device is up and has a carrier but is not operational (dormant), so {} has disabled its port.",
        words::dropped(case),
        port.name,
        bridge.name
    );
    let command = |state: &str| format!("ip link set dev {} state {state}", quote(&port.name));
    Judgement::dropped(Cause::BridgePortDown, place, explanation)
        .evidence([format!("{}: up, carrier, not running; its port of {} is disabled", port.name, bridge.name)])
        .fix(
            Fix::run(command("up"), command("dormant"), format!("Declares {} operational.", port.name))
                .risk("What waits for it (an 802.1X supplicant, a test) is passed over.")
                .persist("Let the supplicant finish (wpa_supplicant, hostapd), or stop what sets the state."),
        )
}

fn locked(case: &Case<'_>, port: &Link, place: crate::diagnose::report::Where) -> Judgement {
    let source = case.entry().map(|(_, counters)| counters.source_mac.to_string()).unwrap_or_default();
    let explanation = format!(
        "{} came in by {}, which is locked: it takes only sources that are in the forwarding database, and {source} is not.",
        words::dropped(case),
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
    let source = drop.example().and_then(crate::diagnose::attribute::macs).map(|(source, _)| source);
    let source = source.or_else(|| case.entry().map(|(_, counters)| counters.source_mac));
    let source = source.map_or_else(|| "a group address".to_owned(), |mac| mac.to_string());
    let explanation = format!(
        "{} came in by {} with the source MAC address {source}, which no single sender can have; a bridge drops these.",
        words::dropped(case),
        link.name
    );
    Judgement::dropped(Cause::InvalidSourceMac, at(case.scene, link.index, Point::BridgeIngress).of(drop), explanation)
        .fix(Fix::advice("Give the guest's interface a unicast MAC address (the lowest bit of its first byte clear), in the guest or its definition."))
}

fn link_local(case: &Case<'_>, drop: &Dropped<'_>) -> Option<Judgement> {
    let link = case.scene.link(drop.device()?)?;
    let bridge = case.scene.bridge_of(link.index)?;
    let LinkKind::Bridge(state) = &bridge.kind else { return None };
    let last = case.destination_mac()?.0[5];
    let mask = state.group_forward_mask;
    let explanation = format!(
        "{} went to the reserved group {}, which bridges keep to the link (802.1D): {} does not forward it.",
        words::dropped(case),
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
    let wanted = mask | 1 << last;
    Some(
        judgement.fix(
            device::bridge_option(
                bridge,
                "group_fwd_mask",
                &wanted.to_string(),
                &mask.to_string(),
                "Forwards this group (LLDP, 802.1X, …) through the bridge.",
            )
            .risk("Neighbours of the host then see the guest's frames of this protocol."),
        ),
    )
}

//! What a bridge does not forward because of its own state or a port's: `bridge-down`, `bridge-port-blocked`,
//! `bridge-port-isolated`, `bridge-flood-disabled`, `bridge-vlan-filtered`, `bridge-fdb-misdirected`.

use crate::diagnose::facts::bridge::{has_stp, pvid, waits};
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Role;
use crate::diagnose::fix::device;
use crate::diagnose::fix::port::let_forward;
use crate::diagnose::flows::case::Case;
use crate::diagnose::flows::frame::{entry_port, inner_vlan};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict, Where};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::bridge::PortVlan;
use crate::event::host::{FdbEntry, Link, LinkKind, PortState};
use crate::forward::effect::Effect;

/// Both ports are isolated: the bridge forwards nothing from the one to the other (`should_deliver` in
/// `net/bridge/br_forward.c`).
pub fn isolated(case: &Case<'_>, port: &Link, target: &Link, bridge: &Link) -> Option<Judgement> {
    let isolated = |link: &Link| link.port.as_ref().is_some_and(|flags| flags.isolated);
    if !isolated(port) || !isolated(target) {
        return None;
    }
    let explanation = format!(
        "{} were to go from {} to {}, but both ports are isolated: {} forwards nothing between such ports.",
        case.dropped_share(),
        port.name,
        target.name,
        bridge.name
    );
    // Nobody isolates the ports of two guests by chance: it keeps them apart, whoever they are.
    let is_meant = [port, target].iter().all(|link| case.scene.interface(link.index).is_some());
    let meant = is_meant.then(|| {
        Fix::advice(format!(
            "Find out whether {} and {} are kept apart on purpose (guests of different tenants, a private network): then this works as configured, and nothing is to be mended.",
            port.name, target.name
        ))
    });
    Some(
        Judgement::dropped(Cause::BridgePortIsolated, at(case.scene, port.index, Point::BridgeForward), explanation)
            .evidence([format!("{}: isolated on; {}: isolated on", port.name, target.name)])
            .fixes(meant)
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

/// The bridge is administratively down.
pub fn bridge_down(case: &Case<'_>, bridge: &Link, place: Where) -> Judgement {
    let explanation = format!(
        "{} reached {}, which is administratively down: its ports forward nothing.",
        case.dropped_share(),
        bridge.name
    );
    Judgement::dropped(Cause::BridgeDown, place, explanation)
        .evidence([format!("{}: administratively down", bridge.name)])
        .fix(device::up(case.scene.host, case.scene.track.first_host(), bridge))
}

/// A port that does not forward.
pub fn blocked_port(case: &Case<'_>, port: &Link, bridge: &Link, place: Where) -> Judgement {
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
    let what = case.dropped_share();
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
        .fix(let_forward(case.scene.host, port, bridge))
}

/// The port's device is up and has a carrier, and is not operational: 802.1X not done, under test.
fn inoperative_port(case: &Case<'_>, port: &Link, bridge: &Link, place: Where) -> Judgement {
    let explanation = format!(
        "{} can't pass {}: the device is up and has a carrier but is not operational (dormant), so {} has disabled its port.",
        case.dropped_share(),
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

pub(in crate::diagnose) fn flood_disabled(case: &Case<'_>, port: &Link, bridge: &Link) -> Option<Judgement> {
    let flags = port.port.as_ref()?;
    let mac = case.destination_mac()?;
    let broadcast = mac.0 == [0xff; 6];
    let known = case.scene.host.forwarding.iter().any(|entry| entry.mac == mac && entry.device == port.index);
    let (flag, what) = match (broadcast, mac.is_multicast()) {
        (true, _) if !flags.broadcast_flood => ("bcast_flood", "broadcast"),
        (false, true) if !flags.multicast_flood => ("mcast_flood", "multicast"),
        (false, false) if !flags.flood && !known => ("flood", "frames for addresses that it has not learnt"),
        _ => return None,
    };
    let explanation = format!(
        "{} never reached {}: the port of {} has {flag} off, so it gets no {what}{}.",
        words::packets(case.packets()),
        port.name,
        bridge.name,
        if flag == "flood" && !flags.learning {
            format!(" (and with learning off none is ever learnt: {mac} is unknown)")
        } else {
            String::new()
        }
    );
    let mut judgement =
        Judgement::dropped(Cause::BridgeFloodDisabled, at(case.scene, port.index, Point::BridgeEgress), explanation)
            .evidence([format!(
                "{}: flood {}, bcast_flood {}, mcast_flood {}, learning {}",
                port.name, flags.flood, flags.broadcast_flood, flags.multicast_flood, flags.learning
            )])
            .fix(
                device::port_flag(port, flag, true, format!("{} then gets such frames.", port.name))
                    .risk("The flag may have been cleared to keep a guest from seeing others' frames."),
            );
    if flag == "flood" && !flags.learning {
        judgement = judgement.fix(device::port_flag(
            port,
            "learning",
            true,
            "Or let the bridge learn the addresses behind the port.",
        ));
    }
    Some(judgement)
}

/// The forwarding database sends the frame to a port that is not its owner's.
pub fn misdirected(case: &Case<'_>, bridge: &Link) -> Option<Judgement> {
    let scene = case.scene;
    // What was routed here comes in for the host's MAC address; on the bridge it is for the guest's.
    let own = case.device().filter(|_| !case.is_from_guest()).and_then(|device| scene.mac_of(device));
    let mac = case.destination_mac().filter(|mac| !scene.is_host_mac(*mac)).or(own)?;
    let owner = scene.guest_by_mac(mac);
    let wrong = |entry: &&FdbEntry| {
        let at_owner = Some(entry.device) == owner;
        let on_tap = scene.role(entry.device) == Role::Tap;
        let on_bridge = entry.bridge == Some(bridge.index) || entry.device == bridge.index;
        on_bridge
            && entry.mac == mac
            && (!at_owner || entry.permanent)
            && !scene.is_host_mac(mac)
            && (owner.is_some() || on_tap)
            && (entry.fixed || entry.sticky || entry.permanent)
    };
    // One that is not sticky moves when its owner is heard (`br_fdb_update`), which may be after the loss.
    let moved = || {
        let now = |entry: &&FdbEntry| entry.mac == mac && entry.bridge == Some(bridge.index) && entry.fixed;
        Some((scene.track.first_host().forwarding.iter().find(wrong)?, scene.host.forwarding.iter().find(now)?))
    };
    let (entry, now) = scene.host.forwarding.iter().find(wrong).map(|entry| (entry, entry)).or_else(moved)?;
    let port = scene.link(entry.device)?;
    let holder = quote(&scene.link(now.device)?.name);
    let flavour = if entry.permanent { "local" } else { "static" };
    let whose = owner.map_or_else(
        || "of another".to_owned(),
        |owner| format!("of {}, which is behind {}", scene.guest_name(owner).unwrap_or_default(), scene.name(owner)),
    );
    let explanation = format!(
        "{} for {mac} ({whose}) go to {} instead: a {flavour} entry of {}'s forwarding database says so.",
        words::packets(case.packets()),
        port.name,
        bridge.name
    );
    let vlan = entry.vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let sticky = if entry.sticky { " sticky" } else { "" };
    let name = quote(&port.name);
    let side = if entry.device == bridge.index { "self" } else { "master" };
    let fix = Fix::run(
        format!("bridge fdb del {mac} dev {holder} {side}{vlan}"),
        format!(
            "bridge fdb replace {mac} dev {name} {side} {}{sticky}{vlan}",
            if entry.permanent { "permanent" } else { "static" }
        ),
        "Removes the wrong entry; the bridge then learns where the address really is.",
    )
    .persist("Remove it from what sets it (a script, the guest's definition, the SDN agent).")
    .effect(Effect::FdbDelete(entry.device, entry.mac, entry.vlan));
    let place = at(scene, port.index, Point::BridgeForward);
    Some(
        Judgement::dropped(Cause::BridgeFdbMisdirected, place, explanation)
            .verdict(Verdict::Lost)
            .evidence([format!("fdb: {mac} dev {} {flavour}{sticky}{vlan}", port.name)])
            .fix(fix),
    )
}

/// The port is not a member of the VLAN.
pub fn not_in_vlan(case: &Case<'_>, port: &Link, bridge: &Link) -> Judgement {
    let configured = if let LinkKind::Bridge(state) = &bridge.kind { state.default_pvid } else { 0 };
    let default = configured.max(1);
    let inner = inner_vlan(case, bridge);
    let wanted = inner.unwrap_or(default);
    let entered = inner.is_none() || entry_port(case, bridge).is_some_and(|entry| entry.index == port.index);
    let memberships = port.port.as_ref().map_or(&[][..], |flags| &flags.vlans);
    // A trunk carries its VLANs with tags; what had one network without a tag gets this one instead.
    let is_trunk = memberships.iter().any(|membership| !membership.untagged);
    let untagged = case.key().vlan.is_none() && !is_trunk;
    let what = if inner.is_none() { "untagged frames".to_owned() } else { format!("VLAN {wanted}") };
    let explanation = format!(
        "{} were stopped at {}: {} filters VLANs, and that port is no member for {what}.",
        words::packets(case.dropped().max(case.packets())),
        port.name,
        bridge.name
    );
    let name = quote(&port.name);
    let members: Vec<String> = memberships.iter().map(ToString::to_string).collect();
    let members = if members.is_empty() { "none".to_owned() } else { members.join(", ") };
    // The kernel has one PVID per port: a new one takes the place of the old.
    let old =
        pvid(port).filter(|_| untagged).map(|old| format!("; bridge vlan add dev {name} vid {old} pvid untagged"));
    let undo = format!("bridge vlan del dev {name} vid {wanted}{}", old.unwrap_or_default());
    let options = if untagged { " pvid untagged" } else { "" };
    let point = if entered { Point::BridgeIngress } else { Point::BridgeEgress };
    Judgement::dropped(Cause::BridgeVlanFiltered, at(case.scene, port.index, point), explanation)
        .evidence([format!("{}: member of VLANs {members}", port.name)])
        .fix(
            Fix::run(format!("bridge vlan add dev {name} vid {wanted}{options}"), undo, format!("Makes {} a member of VLAN {wanted}.", port.name))
                .risk(if untagged {
                    "The device behind the port joins that VLAN, and leaves the one that its untagged frames belonged to."
                } else {
                    "The device behind the port joins that VLAN."
                })
                .persist("Set it where the port is made: libvirt's <vlan>, Proxmox' tag, systemd-networkd's [BridgeVLAN], ifupdown's bridge-vids.")
                .effect(Effect::VlanAdd(port.index, PortVlan { id: wanted, last: None, pvid: untagged, untagged })),
        )
}

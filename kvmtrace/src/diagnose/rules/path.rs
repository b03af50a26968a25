//! Faults of the way itself that no drop tells: a frame that no port takes is flooded elsewhere or vanishes. Asked of
//! flows that never left or were never answered: is everything on the way up, attached, forwarding?

use super::bridge_port::{blocked_port, bridge_down, isolated, target_port};
use crate::diagnose::case::{Case, Way};
use crate::diagnose::dropped::Dropped;
use crate::diagnose::fix::{device, quote};
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point, Verdict, Where};
use crate::diagnose::scene::Role;
use crate::diagnose::words;
use crate::event::host::{FdbEntry, Link, LinkKind, PortState};
use crate::event::{Address, Direction};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let left = case.left() > 0;
    let judgement = find(case)?;
    Some(judgement.verdict(if left && case.way() != Way::Group { Verdict::Unanswered } else { Verdict::Lost }))
}

fn find(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let own = scene.link(case.device()?)?;
    if let Some(judgement) = super::macvtap::judge(case, own) {
        return Some(judgement);
    }
    if let LinkKind::Macvtap { .. } = own.kind {
        let lower = scene.link(own.lower?)?;
        let Some(dead) = [own, lower].into_iter().find(|link| !link.up || !link.carrier) else {
            return super::macvtap::judge_address(case, own);
        };
        return Some(dead_link(case, dead, at(scene, dead.index, Point::NicEgress)));
    }
    let Some(bridge) = case.bridge() else {
        let alone = case.way() != Way::Host && case.way() != Way::Routed && !has_address(own) && own.master.is_none();
        let point = if case.is_from_guest() { Point::TapIngress } else { Point::TapEgress };
        return alone.then(|| detached(case, own, point));
    };
    if !bridge.up {
        return Some(bridge_down(case, bridge, at(scene, bridge.index, Point::BridgeIngress)));
    }
    if let Some(judgement) = misdirected(case, bridge) {
        return Some(judgement);
    }
    if let Some(judgement) = super::bridge_lone::judge(case, None).filter(|_| case.way() != Way::Host) {
        return Some(judgement);
    }
    if !case.is_from_guest() {
        return asked_guest(case, entry_port(case, bridge), bridge)
            .or_else(|| unflooded_port(case, bridge))
            .or_else(|| exit_port(case, own, bridge, None));
    }
    if let Some(port) = own.port.as_ref().filter(|port| port.state != PortState::Forwarding) {
        let _ = port;
        return Some(blocked_port(case, own, bridge, at(scene, own.index, Point::BridgeIngress)));
    }
    if !carries(own, inner_vlan(case, bridge), bridge) {
        return Some(vlan(case, own, bridge));
    }
    match case.way() {
        Way::Guest(peer) => {
            let peer = scene.link(peer)?;
            isolated(case, own, peer, bridge).or_else(|| exit_port(case, peer, bridge, None))
        }
        Way::Uplink => way_out(case, None),
        Way::Group if case.is_neighbour_traffic() => {
            let asked = case.group.main.target.or(case.key().destination.ip())?;
            match scene.guest_by_address(Address::Ip(asked)).filter(|peer| *peer != own.index) {
                Some(_) => asked_guest(case, Some(own), bridge),
                None if scene.is_host_address(asked) => None,
                None => way_out(case, None),
            }
        }
        Way::Routed => routed_out(case),
        Way::Group | Way::Host | Way::Unknown => None,
    }
}

/// A request for the address of a guest whose port can't get it from the one where it came in.
fn asked_guest(case: &Case<'_>, entry: Option<&Link>, bridge: &Link) -> Option<Judgement> {
    if !case.is_neighbour_traffic() {
        return None;
    }
    let asked = case.group.main.target.or(case.key().destination.ip())?;
    let owner = case.scene.link(case.scene.guest_by_address(Address::Ip(asked))?)?;
    if case.reached(owner.index) {
        return None;
    }
    let apart = entry.and_then(|entry| isolated(case, entry, owner, bridge));
    apart.or_else(|| exit_port(case, owner, bridge, None))
}

/// The uplinks of the guest's bridge: there is none, or none that works.
pub fn way_out(case: &Case<'_>, drop: Option<&Dropped<'_>>) -> Option<Judgement> {
    let scene = case.scene;
    let bridge = case.bridge()?;
    let own = scene.link(case.device()?)?;
    if !case.is_from_guest() {
        return exit_port(case, own, bridge, drop);
    }
    if let Some(target) = target_port(case, bridge, own) {
        return exit_port(case, target, bridge, drop);
    }
    let uplinks: Vec<&Link> = scene.host.uplinks(bridge.index).collect();
    let by_pair = |uplink: &&Link| uplink.master != Some(bridge.index) || uplink.peer.is_some();
    if uplinks.iter().all(by_pair)
        && let Some(judgement) = super::bridge_pair::judge(case, bridge)
    {
        return Some(told(judgement, drop));
    }
    if uplinks.is_empty() {
        let stray = stray_uplink(case, bridge)?;
        return Some(told(detached(case, stray, Point::NicEgress), drop));
    }
    let faults: Vec<Judgement> = uplinks.iter().filter_map(|uplink| exit_port(case, uplink, bridge, drop)).collect();
    if faults.len() == uplinks.len() { faults.into_iter().next() } else { None }
}

/// A NIC that serves nothing: it should be the bridge's uplink.
fn stray_uplink<'a>(case: &Case<'a>, bridge: &Link) -> Option<&'a Link> {
    let host = case.scene.host;
    let free = |link: &&Link| {
        link.master.is_none()
            && matches!(case.scene.role(link.index), Role::Nic | Role::Tunnel)
            && matches!(
                link.kind,
                LinkKind::Physical | LinkKind::Veth | LinkKind::Bond | LinkKind::Vlan { .. } | LinkKind::Vxlan { .. }
            )
            && !host.links.values().any(|upper| upper.lower == Some(link.index))
    };
    let before = case.scene.track.first_host().ports(bridge.index).map(|port| port.index).collect::<Vec<_>>();
    let was_port = host.links.values().filter(free).find(|link| before.contains(&link.index));
    was_port.or_else(|| host.links.values().filter(free).find(|link| !has_address(link)))
}

fn has_address(link: &Link) -> bool {
    link.addresses.iter().any(|network| is_configured(network.address))
}

/// Link-local IPv6 addresses come by themselves.
fn is_configured(address: std::net::IpAddr) -> bool {
    !matches!(address, std::net::IpAddr::V6(v6) if v6.is_unicast_link_local())
}

/// What keeps a port from sending this frame.
pub fn exit_port(case: &Case<'_>, port: &Link, bridge: &Link, drop: Option<&Dropped<'_>>) -> Option<Judgement> {
    let scene = case.scene;
    let tap = scene.role(port.index) == Role::Tap;
    let point = if tap { Point::TapEgress } else { Point::NicEgress };
    let place = at(scene, port.index, point);
    // Behind a pair that joins two bridges the port is the other one's.
    let near = bridge;
    let other = port.master.filter(|master| *master != near.index && scene.host.joined(near.index).contains(master));
    let bridge = other.and_then(|other| scene.link(other)).unwrap_or(near);
    let judgement = if !port.up || !port.carrier {
        Some(dead_link(case, port, place))
    } else if port.master != Some(bridge.index) {
        Some(detached(case, port, point))
    } else if let Some(flags) = &port.port {
        if flags.state != PortState::Forwarding {
            Some(blocked_port(case, port, bridge, at(scene, port.index, Point::BridgeEgress)))
        } else if !carries(port, inner_vlan(case, bridge), bridge) {
            Some(vlan(case, port, bridge))
        } else {
            flood_disabled(case, port, bridge)
        }
    } else {
        None
    };
    let by_pair = other.is_some() || port.peer.is_some();
    let judgement = judgement.or_else(|| by_pair.then(|| super::bridge_pair::judge(case, near)).flatten());
    judgement.map(|judgement| told(judgement, drop))
}

/// With the drop that led here.
pub fn told(judgement: Judgement, drop: Option<&Dropped<'_>>) -> Judgement {
    match drop {
        Some(drop) => Judgement { place: judgement.place.clone().of(drop), verdict: Verdict::Dropped, ..judgement },
        None => judgement,
    }
}

fn flood_disabled(case: &Case<'_>, port: &Link, bridge: &Link) -> Option<Judgement> {
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

/// A request to all or to a group that one guest's port is set not to get: the one that should have answered.
fn unflooded_port(case: &Case<'_>, bridge: &Link) -> Option<Judgement> {
    if case.way() != Way::Group {
        return None;
    }
    let guests = case.scene.host.ports(bridge.index).filter(|port| case.scene.interface(port.index).is_some());
    guests.filter(|port| !case.reached(port.index)).find_map(|port| flood_disabled(case, port, bridge))
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
    .persist("Remove it from what sets it (a script, the guest's definition, the SDN agent).");
    let place = at(scene, port.index, Point::BridgeForward);
    Some(
        Judgement::dropped(Cause::BridgeFdbMisdirected, place, explanation)
            .verdict(Verdict::Lost)
            .evidence([format!("fdb: {mac} dev {} {flavour}{sticky}{vlan}", port.name)])
            .fix(fix),
    )
}

/// A device that should be a port of the guest's bridge.
pub fn detached(case: &Case<'_>, link: &Link, point: Point) -> Judgement {
    let explanation = format!("{} can't pass {}: it is a port of no bridge.", words::dropped(case), link.name);
    let fixes = match case.bridge() {
        Some(bridge) => vec![
            device::enslave(link, bridge, format!("Makes {} an uplink of {}.", link.name, bridge.name))
                .risk("An address configured on the device itself stops working there: it belongs on the bridge."),
        ],
        None => super::device::attach(case, link),
    };
    Judgement::dropped(Cause::BridgePortDetached, at(case.scene, link.index, point), explanation)
        .verdict(Verdict::Lost)
        .evidence([format!("{}: no master", link.name)])
        .fixes(fixes)
}

/// A device that is down or has no carrier.
pub fn dead_link(case: &Case<'_>, link: &Link, place: Where) -> Judgement {
    if let Some(judgement) = dead_port(case, link) {
        return Judgement {
            place: Where { function: place.function, reason: place.reason, ..judgement.place },
            ..judgement
        };
    }
    let below = case.scene.dead_below(link);
    if below.index != link.index {
        let device = Some(below.name.clone());
        return dead_link(case, below, Where { device, point: Point::NicEgress, ..place });
    }
    if case.scene.role(link.index) == Role::Tap {
        return super::guest::gone(case, link, place);
    }
    if let (LinkKind::Bridge(_), false) = (&link.kind, link.up) {
        return bridge_down(case, link, Where { point: Point::BridgeIngress, ..place });
    }
    // One end of a pair has a carrier when the other one is up.
    let far = link.peer.and_then(|peer| case.scene.link(peer));
    if let (true, Some(far)) = (link.up, far.filter(|far| !far.up)) {
        return dead_link(case, far, Where { device: Some(far.name.clone()), ..place });
    }
    let what = words::packets(case.packets());
    let first = case.scene.track.first_host();
    if link.up {
        let explanation = format!("{what} would have to pass {}, which has no carrier.", link.name);
        return Judgement::dropped(Cause::NoCarrier, place, explanation)
            .evidence([format!("{}: up, no carrier", link.name)])
            .fix(super::routing::no_carrier_advice(link));
    }
    let explanation = format!("{what} would have to pass {}, which is administratively down.", link.name);
    Judgement::dropped(Cause::LinkDown, place, explanation)
        .evidence([format!("{}: administratively down", link.name)])
        .fix(device::up(case.scene.host, first, link))
}

/// A bridge has a carrier as long as one of its ports forwards: without, the guest's own port is what is wrong.
fn dead_port(case: &Case<'_>, bridge: &Link) -> Option<Judgement> {
    let is_bridge = matches!(bridge.kind, LinkKind::Bridge(_));
    if !is_bridge || !bridge.up || bridge.carrier {
        return None;
    }
    let own = case.scene.link(case.device()?).filter(|own| own.master == Some(bridge.index))?;
    exit_port(case, own, bridge, case.focus.as_ref())
}

/// The device of the route is down.
fn routed_out(case: &Case<'_>) -> Option<Judgement> {
    let device = case.routing().unicast()?.device?;
    let link = case.scene.link(device).filter(|link| !link.up || !link.carrier)?;
    Some(dead_link(case, link, at(case.scene, link.index, Point::NicEgress)))
}

/// The VLAN that a bridge with VLAN filtering takes the frames for: their tag, else the PVID of the port that they came in
/// by (`__allowed_ingress` in `net/bridge/br_vlan.c`); none where that port has no PVID, or is not known.
fn inner_vlan(case: &Case<'_>, bridge: &Link) -> Option<u16> {
    case.key().vlan.or_else(|| pvid(entry_port(case, bridge)?))
}

/// The port of the bridge that the frames came in by.
fn entry_port<'a>(case: &Case<'a>, bridge: &Link) -> Option<&'a Link> {
    let scene = case.scene;
    let own = || case.device().filter(|_| case.is_from_guest());
    let dropped = || case.focus.as_ref().and_then(|drop| drop.example()?.input_device);
    let entered = case.entry().map(|(place, _)| place).filter(|place| place.direction == Direction::Ingress);
    let device = entered.map(|place| place.device).or_else(own).or_else(dropped)?;
    scene.link(device).filter(|port| port.master == Some(bridge.index))
}

fn pvid(port: &Link) -> Option<u16> {
    port.port.as_ref()?.vlans.iter().find(|membership| membership.pvid).map(|membership| membership.id)
}

/// The port lets this VLAN pass; where none is known, untagged frames.
fn carries(port: &Link, vlan: Option<u16>, bridge: &Link) -> bool {
    let LinkKind::Bridge(state) = &bridge.kind else { return true };
    let Some(flags) = &port.port else { return true };
    if !state.vlan_filtering {
        return true;
    }
    match vlan {
        Some(vlan) => flags.vlans.iter().any(|membership| membership.covers(vlan)),
        None => flags.vlans.iter().any(|membership| membership.pvid || membership.untagged),
    }
}

/// The port is not a member of the VLAN.
pub fn vlan(case: &Case<'_>, port: &Link, bridge: &Link) -> Judgement {
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
                .persist("Set it where the port is made: libvirt's <vlan>, Proxmox' tag, systemd-networkd's [BridgeVLAN], ifupdown's bridge-vids."),
        )
}

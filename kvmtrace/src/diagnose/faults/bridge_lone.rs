//! A guest whose bridge leads nowhere, and frames for an address that nobody on the bridge has.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict, Where};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::MacAddress;
use crate::event::host::{Link, LinkKind};
use crate::event::is_link_local;

/// The tap is the only port of its bridge, which bears no address: it hangs on the wrong one.
pub fn lone_bridge(case: &Case<'_>, drop: Option<&Dropped<'_>>) -> Option<Judgement> {
    let host = case.scene.host;
    let own = case.scene.link(case.device()?)?;
    let bridge = case.bridge()?;
    let lone = host.ports(bridge.index).all(|port| port.index == own.index);
    if !lone || !bridge.up || bridge.addresses.iter().any(|network| !is_link_local(network.address)) {
        return None;
    }
    let before = case.scene.track.first_host().link(own.index).and_then(|link| link.master);
    let leads_on = |other: &&Link| {
        matches!(other.kind, LinkKind::Bridge(_))
            && other.index != bridge.index
            && (Some(other.index) == before || host.uplinks(other.index).next().is_some())
    };
    let others: Vec<&Link> = host.links.values().filter(leads_on).collect();
    let other = others.iter().find(|other| Some(other.index) == before).or(others.first())?;
    let place = at(case.scene, own.index, if case.is_from_guest() { Point::TapIngress } else { Point::TapEgress });
    let explanation = format!(
        "{} can't get on: {} is the only port of {}, which has no uplink and no address.",
        words::packets(case.packets()),
        own.name,
        bridge.name
    );
    let master = |bridge: &Link| format!("ip link set dev {} master {}", quote(&own.name), quote(&bridge.name));
    let fix = if Some(other.index) == before {
        Fix::run(
            master(other),
            master(bridge),
            format!("Makes {} a port of {} again, as it was when the trace began.", own.name, other.name),
        )
        .risk(format!("Check that {} is the guest's network: it may be kept apart on purpose.", other.name))
        .persist("Set the bridge in the guest's definition (libvirt: the interface's <source>).")
    } else {
        Fix::advice(format!(
            "Find out which network the guest belongs to: {} leads on, {} does not. The guest's definition names its bridge (libvirt: the interface's <source>); it may be kept apart on purpose.",
            other.name, bridge.name
        ))
    };
    let judgement = Judgement::dropped(Cause::BridgePortDetached, place, explanation)
        .evidence([format!("{}: master {}; {}: one port", own.name, bridge.name, bridge.name)])
        .fix(fix);
    Some(match drop {
        Some(drop) => Judgement { place: judgement.place.clone().of(drop), ..judgement },
        None => judgement.verdict(Verdict::Lost),
    })
}

/// A flood that no port takes: the bridge has learnt the address nowhere, and no device of this host bears it.
pub fn nobodys_address(case: &Case<'_>, drop: &Dropped<'_>, port: &Link, bridge: &Link) -> Option<Judgement> {
    let mac = unknown_address(case)?;
    if !(drop.because(&["NO_TX_TARGET"]) || drop.is_unspecified()) {
        return None;
    }
    let judgement = nobody(mac, at(case.scene, port.index, Point::BridgeForward), bridge, &case.dropped_share());
    Some(Judgement { place: judgement.place.clone().of(drop), ..judgement })
}

/// The same where other guests' ports took copies, which their owners throw away, and none leads beyond this host.
pub fn flooded_in_vain(case: &Case<'_>, own: &Link, bridge: &Link) -> Option<Judgement> {
    let mac = unknown_address(case).filter(|_| case.scene.host.uplinks(bridge.index).next().is_none())?;
    let sent = words::packets(case.packets());
    Some(nobody(mac, at(case.scene, own.index, Point::BridgeForward), bridge, &sent))
}

/// The receiver's MAC address, if nobody here is known to have it.
fn unknown_address(case: &Case<'_>) -> Option<MacAddress> {
    let scene = case.scene;
    let mac = case.destination_mac().filter(|mac| !mac.is_multicast() && !mac.is_zero())?;
    let known = scene.host.forwarding.iter().any(|entry| entry.mac == mac) || scene.guest_towards(mac).is_some();
    let astray = !known && !scene.is_host_mac(mac) && case.is_from_guest() && case.way() != Way::Group;
    astray.then_some(mac)
}

fn nobody(mac: MacAddress, place: Where, bridge: &Link, packets: &str) -> Judgement {
    let explanation = format!(
        "{packets} were for {mac}, which nobody on {} has: the sender believes that its next hop is there.",
        bridge.name
    );
    let advice = format!(
        "In the guest: see who has {mac} (ip neigh), and remove the entry if it is set by hand or left from before; the gateway's address may have moved."
    );
    Judgement::dropped(Cause::NeighbourUnresolved, place, words::agreeing(&explanation))
        .evidence([format!("fdb of {}: no entry for {mac}", bridge.name)])
        .fix(Fix::advice(advice))
}

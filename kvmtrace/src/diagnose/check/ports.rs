//! What a bridge's port is set to, beside its state: what it is not given, what it does not take, what it sends back.

use super::about::About;
use crate::diagnose::facts::routes::route_to;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::device;
use crate::diagnose::fix::vlan::retag;
use crate::diagnose::report::{Cause, Finding, Point, Severity};
use crate::event::host::{BridgePort, Link, Network};
use crate::event::is_link_local;

/// The findings at one port: a guest's, or an uplink (then `guest` is none).
pub(super) fn findings(scene: &Scene<'_>, guest: Option<&str>, link: &Link, bridge: &Link) -> Vec<Finding> {
    let Some(port) = link.port.as_ref() else { return Vec::new() };
    let found = [
        unicast(scene, guest, link, port),
        broadcast(scene, guest, link, port),
        locked(scene, guest, link, port),
        hairpin(scene, guest, link, port, bridge),
        tagged(scene, guest, link, port, bridge),
    ];
    found.into_iter().flatten().collect()
}

fn about<'a, 's>(
    scene: &'a Scene<'s>,
    guest: Option<&'a str>,
    link: &Link,
    cause: Cause,
    severity: Severity,
) -> About<'a, 's> {
    let point = if guest.is_some() { Point::TapIngress } else { Point::BridgeEgress };
    About { scene, cause, severity, guest, device: link.index, point }
}

/// An uplink that bears the host's address, where the bridge should: what comes in goes up by the bridge, but what the host
/// sends to that network goes out by the uplink alone and never to another port.
pub(super) fn addressed(scene: &Scene<'_>, uplink: &Link) -> Option<Finding> {
    let bridge = scene.bridge_of(uplink.index)?;
    let of_bridge = |network: &Network| bridge.addresses.iter().any(|own| own.contains(network.address));
    let is_routed = |network: &&Network| {
        let way = route_to(scene, network.address).and_then(|route| route.device);
        way == Some(uplink.index) && !of_bridge(network)
    };
    let network = uplink.addresses.iter().filter(|network| !is_link_local(network.address)).find(is_routed)?;
    let name = &uplink.name;
    Some(about(scene, None, uplink, Cause::NeighbourUnresolved, Severity::Warning).at(Point::Neighbour).say(
        format!(
            "{name} is a port of {0} and bears the address {network}: what this host sends to that network goes out by {name} and never to the guests of {0}.",
            bridge.name
        ),
        format!("{name}: port of {}, {network}", bridge.name),
        device::move_addresses(scene.host, uplink, bridge).into_iter().collect(),
    ))
}

/// The guest's frames without a tag go into a VLAN whose frames come to it with one.
fn tagged(scene: &Scene<'_>, guest: Option<&str>, link: &Link, port: &BridgePort, bridge: &Link) -> Option<Finding> {
    let name = guest?;
    let vlan = port.vlans.iter().find(|vlan| vlan.pvid && !vlan.untagged)?;
    let fix = retag(scene.host, link, None, Some(vlan.id))?;
    Some(about(scene, guest, link, Cause::VlanTagMismatch, Severity::Warning).at(Point::TapEgress).say(
        format!(
            "What {name} sends without a tag goes into VLAN {0} of {1}, and what comes back from there reaches it with the tag {0}: it takes that only if it has a VLAN device.",
            vlan.id, bridge.name
        ),
        format!("{}: VLAN {} pvid, not untagged", link.name, vlan.id),
        vec![fix],
    ))
}

/// The bridge has an entry for the guest behind this port that does not age: then nothing need be learned or flooded there
/// (libvirt's `macTableManager='libvirt'`).
fn is_known(scene: &Scene<'_>, link: &Link) -> bool {
    let mac = scene.interface(link.index).and_then(|interface| interface.mac);
    mac.is_some_and(|mac| {
        scene.host.forwarding.iter().any(|entry| entry.device == link.index && entry.mac == mac && !entry.permanent)
    })
}

fn unicast(scene: &Scene<'_>, guest: Option<&str>, link: &Link, port: &BridgePort) -> Option<Finding> {
    if port.flood || port.learning || is_known(scene, link) {
        return None;
    }
    let name = &link.name;
    Some(about(scene, guest, link, Cause::BridgeFloodDisabled, Severity::Warning).say(
        format!("{name} neither learns addresses nor gets unknown unicast: frames for what is behind it get lost."),
        format!("{name}: flood off, learning off"),
        vec![device::port_flag(link, "flood", true, format!("Floods unknown unicast to {name} as well."))],
    ))
}

/// ARP asks by broadcast.
fn broadcast(scene: &Scene<'_>, guest: Option<&str>, link: &Link, port: &BridgePort) -> Option<Finding> {
    if port.broadcast_flood {
        return None;
    }
    let name = &link.name;
    Some(about(scene, guest, link, Cause::BridgeFloodDisabled, Severity::Warning).say(
        format!("{name} gets no broadcast: nobody finds what is behind it by ARP."),
        format!("{name}: bcast_flood off"),
        vec![device::port_flag(link, "bcast_flood", true, format!("Sends broadcasts to {name} as well."))],
    ))
}

/// A locked port takes only what comes from addresses that the bridge has there (`br_handle_frame_finish`).
fn locked(scene: &Scene<'_>, guest: Option<&str>, link: &Link, port: &BridgePort) -> Option<Finding> {
    let admits_some = || scene.host.forwarding.iter().any(|entry| entry.device == link.index && !entry.permanent);
    let is_open = || if guest.is_some() { is_known(scene, link) } else { admits_some() };
    if !port.locked || is_open() {
        return None;
    }
    let name = &link.name;
    let told = match guest {
        Some(guest) => {
            format!(
                "{name} is locked, and the bridge has no entry for {guest} there: it takes no frame of the guest's."
            )
        }
        None => format!("{name} is locked, and the bridge has no entry there: it takes no frame from outside."),
    };
    Some(about(scene, guest, link, Cause::BridgePortLocked, Severity::Error).say(
        told,
        format!("{name}: locked on, no entry of the forwarding database"),
        vec![device::port_flag(link, "locked", false, format!("{name} then takes any source."))],
    ))
}

/// With hairpin a port is sent what it brought (`should_deliver`): a switch learns this host's and its guests' addresses where
/// they are not, a guest takes its own neighbour discovery for another's.
fn hairpin(scene: &Scene<'_>, guest: Option<&str>, link: &Link, port: &BridgePort, bridge: &Link) -> Option<Finding> {
    if !port.hairpin {
        return None;
    }
    let name = &link.name;
    let back = match guest {
        Some(guest) => format!("{guest} gets its own broadcasts back, and may take its address for one in use"),
        None => {
            "the network gets its own broadcasts back, and its switch learns addresses where they are not".to_owned()
        }
    };
    Some(about(scene, guest, link, Cause::BridgeLoop, Severity::Warning).say(
        format!("{} sends frames back by {name}, by which they came (hairpin): {back}.", bridge.name),
        format!("{name}: hairpin on"),
        vec![device::port_flag(link, "hairpin", false, "Frames are no longer sent back to where they came from.")],
    ))
}

//! Guests on Open vSwitch: `ovs-port-down`, `ovs-vlan`, and dead uplinks of their bridges.

use super::about::{About, interfaces};
use super::dead::dead_uplink;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::{device, switch as fix};
use crate::diagnose::report::{Cause, Finding, Fix, Label, Point, Severity, Where};
use crate::event::IfIndex;
use crate::event::host::{Link, LinkKind};
use crate::event::switch::{SwitchBridge, SwitchKind, SwitchPlace, SwitchPort, SwitchVlans};
use crate::event::switched::Switched;
use crate::forward::switch::has_fellows;
use std::collections::BTreeSet;

/// The table of rules that ovs-vswitchd makes for itself.
const HIDDEN: u8 = 254;

pub(super) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let switched = Switched::new(scene.host);
    let mut found = Vec::new();
    let mut bridges: BTreeSet<usize> = BTreeSet::new();
    let mut beside: BTreeSet<IfIndex> = BTreeSet::new();
    for (guest, interface) in interfaces(scene) {
        let Some(place) = switched.place(interface.device) else { continue };
        found.extend(alone(scene, &switched, guest, interface.device, place));
        if !bridges.contains(&place.bridge) {
            bridges.extend(switched.joined(interface.device));
            beside.extend(switched.beside(interface.device));
        }
    }
    let devices = || beside.iter().filter_map(|device| scene.link(*device));
    for link in devices() {
        found.extend(own_port(scene, link));
    }
    let uplinks: Vec<&Link> = devices().filter(|link| is_uplink(scene, link)).collect();
    for uplink in &uplinks {
        let others = uplinks.iter().any(|other| other.index != uplink.index && other.up && other.carrier);
        let dead =
            dead_uplink(scene, uplink, if others { "an uplink of Open vSwitch" } else { "the uplink of Open vSwitch" });
        let severity = |dead: &Finding| if others { Severity::Warning } else { dead.severity };
        found.extend(dead.map(|dead| Finding { severity: severity(&dead), ..dead }));
    }
    found.extend(
        bridges
            .iter()
            .filter_map(|index| scene.host.switch.bridges.get(*index))
            .flat_map(|bridge| missing(scene, bridge)),
    );
    found
}

fn is_own(link: &Link) -> bool {
    matches!(&link.kind, LinkKind::Other(kind) if kind == "openvswitch")
}

fn is_uplink(scene: &Scene<'_>, link: &Link) -> bool {
    !is_own(link) && link.kind != LinkKind::Tun && scene.host.guest_of(link.index).is_none()
}

/// A device of the switch's own, by which this host takes part: one without addresses is down as a rule, and need not be up.
fn own_port(scene: &Scene<'_>, link: &Link) -> Option<Finding> {
    let is_used = link.addresses.iter().any(|network| network.address.is_ipv4())
        || scene.host.routes.iter().any(|route| route.device == Some(link.index) && route.gateway.is_some());
    let (cause, severity, point) = (Cause::OvsPortDown, Severity::Error, Point::HostInput);
    (is_own(link) && !link.up && is_used).then(|| {
        About { scene, cause, severity, guest: None, device: link.index, point }.say(
            format!("{0}, this host's own port of Open vSwitch, has an address and is down: guests do not reach this host by it.", link.name),
            format!("{}: not up", link.name),
            vec![device::up(scene.host, scene.host, link)],
        )
    })
}

/// Interfaces for which the switch has found no device.
fn missing(scene: &Scene<'_>, bridge: &SwitchBridge) -> Vec<Finding> {
    let interfaces = bridge.ports.iter().flat_map(|port| &port.interfaces);
    let lost = interfaces
        .filter(|interface| interface.kind == SwitchKind::System && scene.host.link_named(&interface.name).is_none());
    let lost = lost.filter_map(|interface| Some((interface, interface.error.as_deref()?)));
    lost.take(8)
        .map(|(interface, error)| {
            let place = Where {
                device: Some(interface.name.clone()),
                point: Point::BridgeForward,
                function: None,
                reason: None,
            };
            Finding {
                label: Label::default(),
                cause: Cause::OvsPortDown,
                // What a guest that ended has left behind does no harm.
                severity: Severity::Info,
                guest: None,
                place: Some(place),
                count: None,
                explanation: format!("{} is a port of {} and there is no such device on this host.", interface.name, bridge.name),
                evidence: vec![format!("{}: {error}", interface.name)],
                fixes: vec![Fix::advice(format!(
                    "If it is left from a guest that has ended: ovs-vsctl del-port {} {}. If it is the NIC: find out what it is called now.",
                    bridge.name, interface.name
                ))],
            }
        })
        .collect()
}

/// A guest's port is in a VLAN that no other port of its bridges carries.
fn alone(
    scene: &Scene<'_>,
    switched: &Switched<'_>,
    guest: &str,
    device: IfIndex,
    place: SwitchPlace,
) -> Option<Finding> {
    let (bridge, port, _) = scene.host.switch.at(place)?;
    let SwitchVlans::Access(own) = port.vlans else { return None };
    // Rules of a controller give tags a meaning of their own; without any, the switch learns as others do.
    let plain = |bridge: &SwitchBridge| {
        bridge.flows.as_ref().is_some_and(|flows| {
            flows
                .iter()
                .filter(|flow| flow.table < HIDDEN)
                .all(|flow| flow.fields.is_empty() && flow.actions == "NORMAL")
        })
    };
    let joined: Vec<usize> = switched.joined(device);
    let all = || joined.iter().filter_map(|index| Some((*index, scene.host.switch.bridges.get(*index)?)));
    if !all().all(|(_, bridge)| plain(bridge)) {
        return None;
    }
    let own_ports: Vec<&str> = all().map(|(_, bridge)| bridge.name.as_str()).collect();
    let others = || {
        let ports = all().flat_map(|(_, bridge)| &bridge.ports);
        // The bridge's own port carries each VLAN, and leads nowhere but to this host.
        ports.filter(|other| other.name != port.name && !own_ports.contains(&other.name.as_str()))
    };
    let access = |other: &SwitchPort| if let SwitchVlans::Access(vlan) = other.vlans { Some(vlan) } else { None };
    let heard = || bridge.learnt.iter().map(|entry| entry.vlan).filter(|vlan| *vlan != own);
    let wanted = others().find_map(access).or_else(|| heard().min())?;
    let is_shared = others().any(|other| access(other) == Some(own)) || has_fellows(scene.topology(), place, own);
    let carried = others().any(|other| other.vlans.carries(own));
    // A trunk of certain VLANs has this one because somebody wants it there; one of all says nothing.
    let is_meant = others().any(|other| other.vlans.carries(own) && other.vlans != SwitchVlans::Trunk(Vec::new()));
    if is_shared || is_meant || carried && heard().next().is_none() {
        return None;
    }
    let (severity, others) = if carried {
        (Severity::Info, "nobody else was heard in it: it reaches nobody, unless they keep silent")
    } else {
        (Severity::Warning, "no other port carries that: it reaches nobody")
    };
    let why = if wanted == 0 {
        format!("Takes the tag off {}: others of {} have none.", port.name, bridge.name)
    } else {
        format!("Puts {} into VLAN {wanted}, in which others of {} are.", port.name, bridge.name)
    };
    let (cause, point) = (Cause::OvsVlan, Point::TapIngress);
    let fixes = fix::port_vlan(scene, place, wanted, why).into_iter().collect();
    Some(About { scene, cause, severity, guest: Some(guest), device, point }.say(
        format!("The port {} of {guest} is in VLAN {own} of {}, and {others}.", port.name, bridge.name),
        format!("{}: tag {own}", port.name),
        fixes,
    ))
}

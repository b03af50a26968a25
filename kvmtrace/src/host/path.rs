//! Which devices a guest's packets pass: what is to be traced.

use crate::event::{HostState, IfIndex, host::Link, host::LinkKind};
use std::collections::BTreeSet;

/// What the operator wants to see.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// Guests by name; empty: all.
    pub guests: Vec<String>,
    /// Devices by name; empty: those on the guests' paths.
    pub devices: Vec<String>,
    /// Also what touches no guest: every device but the loopback.
    pub all: bool,
}

/// Something asked for by name is not there.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// No device of this name.
    #[error("{0}: no such interface; `kvmtrace guests` lists those of guests, `ip link` all")]
    NoDevice(String),
    /// No guest of this name.
    #[error("{0}: no such guest; `kvmtrace guests` lists them")]
    NoGuest(String),
}

/// The devices to trace: the guests' interfaces, their bridges with the ports that lead away from this host and what
/// those are stacked on, and, where the host routes for them, the devices that its routes leave by.
pub fn devices_to_trace(host: &HostState, scope: &Scope) -> Result<Vec<IfIndex>, ScopeError> {
    let mut wanted = BTreeSet::new();
    for name in &scope.devices {
        let link = host.link_named(name).ok_or_else(|| ScopeError::NoDevice(name.clone()))?;
        wanted.insert(link.index);
    }
    let mut interfaces = Vec::new();
    for name in &scope.guests {
        let guest = host.guests.iter().find(|guest| guest.name == *name);
        let guest = guest.ok_or_else(|| ScopeError::NoGuest(name.clone()))?;
        interfaces.extend(guest.interfaces.iter().map(|interface| interface.device));
    }
    if scope.guests.is_empty() && scope.devices.is_empty() {
        interfaces.extend(host.guests.iter().flat_map(|guest| &guest.interfaces).map(|interface| interface.device));
    }
    for interface in interfaces {
        add_path(host, interface, &mut wanted);
    }
    if scope.all {
        wanted.extend(host.links.values().filter(|link| link.kind != LinkKind::Loopback).map(|link| link.index));
    }
    wanted.retain(|index| host.links.contains_key(index));
    Ok(wanted.into_iter().collect())
}

/// Adds an interface and everything on the way out.
fn add_path(host: &HostState, interface: IfIndex, wanted: &mut BTreeSet<IfIndex>) {
    let Some(link) = host.link(interface) else { return };
    wanted.insert(interface);
    add_lower(host, link, wanted);
    let bridge = link.master.and_then(|master| host.link(master));
    if let Some(bridge) = bridge {
        wanted.insert(bridge.index);
        for uplink in host.uplinks(bridge.index) {
            wanted.insert(uplink.index);
            add_lower(host, uplink, wanted);
        }
    }
    // A guest of the bridge or of the tap itself that the host is a router for. A macvtap bypasses the host's stack, but
    // the host may be the one that it talks to.
    let routed =
        bridge.is_some_and(|bridge| !bridge.addresses.is_empty()) || !link.addresses.is_empty() || bridge.is_none();
    if routed {
        for link in host.routes.iter().filter_map(|route| host.link(route.device?)) {
            if link.kind != LinkKind::Loopback {
                wanted.insert(link.index);
                add_lower(host, link, wanted);
            }
        }
    }
}

/// What a device is stacked on: the NIC of a VLAN or macvtap, the ports of a bond, the underlay of a tunnel.
fn add_lower(host: &HostState, link: &Link, wanted: &mut BTreeSet<IfIndex>) {
    let mut next = link.lower;
    while let Some(lower) = next.and_then(|index| host.link(index)) {
        // Peers of veth pairs name each other.
        if link.kind == LinkKind::Veth || !wanted.insert(lower.index) {
            break;
        }
        next = lower.lower;
    }
    match &link.kind {
        LinkKind::Bond => wanted.extend(host.ports(link.index).map(|port| port.index)),
        LinkKind::Vxlan { remote, .. } => {
            let remotes =
                host.forwarding.iter().filter(|entry| entry.device == link.index).filter_map(|entry| entry.remote);
            for remote in remotes.chain(*remote) {
                // The most specific route wins, as in the kernel.
                let route = host
                    .routes
                    .iter()
                    .filter(|route| route.destination.contains(remote))
                    .max_by_key(|route| route.destination.prefix);
                wanted.extend(route.and_then(|route| route.device));
            }
        }
        LinkKind::Loopback
        | LinkKind::Tun
        | LinkKind::Bridge(_)
        | LinkKind::Veth
        | LinkKind::Macvtap { .. }
        | LinkKind::Macvlan
        | LinkKind::Vlan { .. }
        | LinkKind::Physical
        | LinkKind::Other(_) => {}
    }
}

//! Under which addresses a guest is seen, as far as the host's tables tell.

use crate::event::host::{HostState, Link, LinkKind};
use crate::event::{IfIndex, MacAddress};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The guest's MAC address where no configuration tells it.
pub(super) fn mac(state: &HostState, link: &Link) -> Option<MacAddress> {
    if !matches!(link.kind, LinkKind::Tun) {
        // A macvtap carries the guest's own address, or nothing would reach it.
        return link.mac;
    }
    let learnt = state.forwarding.iter().filter(|entry| entry.device == link.index && !entry.permanent && !entry.fixed);
    let neighbours = state.neighbours.iter().filter(|neighbour| neighbour.device == link.index);
    let seen: BTreeSet<_> =
        learnt.map(|entry| entry.mac).chain(neighbours.filter_map(|neighbour| neighbour.mac)).collect();
    let libvirt = link.mac.filter(|mac| mac.0[0] == 0xfe);
    let alike = libvirt.and_then(|tap| seen.iter().find(|mac| mac.0[1..] == tap.0[1..]).copied());
    // Several addresses behind one port: nobody can tell which is the card's.
    let only = seen.first().copied().filter(|_| seen.len() == 1);
    alike.or(libvirt.and_then(before_libvirt)).or(only)
}

/// Libvirt gives the tap the guest's address with fe: in front; what stood there can be told for the usual vendors.
fn before_libvirt(tap: MacAddress) -> Option<MacAddress> {
    let [_, rest @ ..] = tap.0;
    let first = match rest {
        // QEMU and libvirt
        [0x54, 0x00, ..] => 0x52,
        // OpenStack
        [0x16, 0x3e, ..] => 0xfa,
        _ => return None,
    };
    let mut guest = tap;
    guest.0[0] = first;
    Some(guest)
}

/// Addresses of the guest: what the neighbour tables know of its MAC address, and what is routed to its tap alone.
pub(super) fn addresses(state: &HostState, link: &Link, mac: Option<MacAddress>) -> Vec<IpAddr> {
    let near = |device: IfIndex| device == link.index || leads_to(state, device, link);
    let by_mac = state
        .neighbours
        .iter()
        .filter(|neighbour| mac.is_some() && neighbour.mac == mac && near(neighbour.device))
        .map(|neighbour| neighbour.address);
    let routed = state.routes.iter().filter(|route| {
        let whole = if route.destination.address.is_ipv4() { 32 } else { 128 };
        route.device == Some(link.index) && route.destination.prefix == whole && route.gateway.is_none()
    });
    by_mac.chain(routed.map(|route| route.destination.address)).collect::<BTreeSet<_>>().into_iter().collect()
}

/// This host has an address on the network of this one by a device that leads to the guest, as a DHCP server there must.
pub(super) fn is_served(state: &HostState, link: &Link, address: IpAddr) -> bool {
    let near = state.links.values().filter(|device| device.index == link.index || leads_to(state, device.index, link));
    near.flat_map(|device| &device.addresses).any(|network| network.contains(address))
}

/// Frames that the host sends through `device` may reach `link`: its bridge, or a VLAN or macvlan on the bridge or on
/// the device below a macvtap.
fn leads_to(state: &HostState, device: IfIndex, link: &Link) -> bool {
    let below = link.master.or(link.lower);
    below.is_some() && (Some(device) == below || state.link(device).is_some_and(|device| device.lower == below))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::host::{FdbEntry, Neighbour};
    use crate::host::test_hosts::{link, state};

    fn mac_of(text: &str) -> MacAddress {
        text.parse().unwrap()
    }

    fn learnt(device: u32, mac: &str) -> FdbEntry {
        FdbEntry {
            mac: mac_of(mac),
            device: IfIndex(device),
            bridge: None,
            vlan: None,
            permanent: false,
            fixed: false,
            sticky: false,
            remote: None,
        }
    }

    #[test]
    fn the_one_address_learnt_on_the_port_is_the_guests() {
        let mut host = state([link(2, "tap0", LinkKind::Tun)]);
        host.forwarding.push(learnt(2, "52:54:00:00:00:01"));
        host.forwarding.push(learnt(3, "52:54:00:00:00:02"));
        assert_eq!(mac(&host, &host.links[&IfIndex(2)]), Some(mac_of("52:54:00:00:00:01")));
        host.forwarding.push(learnt(2, "52:54:00:00:00:03"));
        assert_eq!(mac(&host, &host.links[&IfIndex(2)]), None);
    }

    #[test]
    fn a_tap_of_libvirt_hints_at_the_guests_address() {
        let mut tap = link(2, "vnet0", LinkKind::Tun);
        tap.mac = Some(mac_of("fe:54:00:aa:00:01"));
        let host = state([tap]);
        assert_eq!(mac(&host, &host.links[&IfIndex(2)]), Some(mac_of("52:54:00:aa:00:01")));
    }

    #[test]
    fn addresses_are_those_of_the_mac_on_the_guests_own_segment() {
        let mut tap = link(3, "vnet0", LinkKind::Tun);
        tap.master = Some(IfIndex(2));
        let mut host = state([
            link(2, "br0", LinkKind::Other(String::new())),
            tap,
            link(4, "br1", LinkKind::Other(String::new())),
        ]);
        let guest = mac_of("52:54:00:00:00:01");
        for (device, address) in [(2, "10.0.0.5"), (2, "fd00::5"), (4, "10.1.0.5")] {
            let address = address.parse().unwrap();
            host.neighbours.push(Neighbour {
                address,
                device: IfIndex(device),
                mac: Some(guest),
                state: crate::event::names::NeighbourState::Stale,
            });
        }
        let seen = addresses(&host, &host.links[&IfIndex(3)], Some(guest));
        assert_eq!(seen, ["10.0.0.5".parse::<IpAddr>().unwrap(), "fd00::5".parse().unwrap()]);
    }
}

//! Hosts in a few lines, and where packets end on them. Each expectation follows the kernel's code that its stage names.

mod bonds;
mod bounds;
mod bridges;
mod fidelity;
mod overlay;
mod routed;
mod switch;

use super::packet::{Arp, Fragment, Ip, Network, Packet, Translation, Transport};
use super::step::{Arrival, Outcome, Stop, Walk};
use super::{Entry, walk};
use crate::event::bridge::{BridgePort, BridgeState, PortState, PortVlan};
use crate::event::host::{FdbEntry, Guest, GuestInterface, HostState, Link, LinkKind, LinkStatistics, Route};
use crate::event::names::RouteKind;
use crate::event::{IfIndex, MacAddress, host};
use crate::topology::Topology;
use std::net::IpAddr;

pub(crate) const GUEST1: IfIndex = IfIndex(11);
pub(crate) const GUEST2: IfIndex = IfIndex(12);
pub(crate) const UPLINK: IfIndex = IfIndex(2);
pub(crate) const BRIDGE: IfIndex = IfIndex(3);

pub(crate) fn mac(last: u8) -> MacAddress {
    MacAddress([0x52, 0x54, 0, 0, 0, last])
}

pub(crate) fn network(text: &str) -> host::Network {
    let (address, prefix) = text.split_once('/').unwrap();
    host::Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

pub(crate) fn link(index: IfIndex, name: &str, kind: LinkKind) -> Link {
    Link {
        index,
        name: name.to_owned(),
        kind,
        mac: Some(mac(100 + u8::try_from(index.0).unwrap())),
        mtu: 1500,
        up: true,
        carrier: true,
        ethernet: true,
        arp_off: false,
        master: None,
        lower: None,
        peer: None,
        queue_length: 1000,
        qdisc: "noqueue".to_owned(),
        port: None,
        xdp: None,
        large_receive: false,
        addresses: Vec::new(),
        statistics: LinkStatistics::default(),
    }
}

pub(crate) fn port() -> BridgePort {
    BridgePort {
        state: PortState::Forwarding,
        isolated: false,
        locked: false,
        flood: true,
        multicast_flood: true,
        broadcast_flood: true,
        learning: true,
        hairpin: false,
        bpdu_guard: false,
        group_forward_mask: 0,
        vlans: vec![PortVlan { id: 1, last: None, pvid: true, untagged: true }],
    }
}

/// br0 with two guests and, as its uplink, eth0; the host has 10.0.0.1/24 on it. FDB: all ports' own addresses and both guests.
pub(crate) fn bridged() -> HostState {
    let mut host = HostState::default();
    let mut bridge = link(BRIDGE, "br0", LinkKind::Bridge(BridgeState::default()));
    bridge.addresses.push(network("10.0.0.1/24"));
    for mut device in [
        link(UPLINK, "eth0", LinkKind::Physical),
        link(GUEST1, "vnet0", LinkKind::Tun),
        link(GUEST2, "vnet1", LinkKind::Tun),
    ] {
        device.master = Some(BRIDGE);
        device.port = Some(port());
        host.links.insert(device.index, device);
    }
    host.forwarding.push(fdb(bridge.mac.unwrap(), BRIDGE, true));
    host.links.insert(BRIDGE, bridge);
    for (number, device) in [(1, GUEST1), (2, GUEST2)] {
        host.forwarding.push(fdb(mac(number), device, false));
        host.guests.push(Guest {
            name: format!("web{number}"),
            pid: Some(1),
            interfaces: vec![GuestInterface::new(
                device,
                "tap",
                Some(mac(number)),
                vec![IpAddr::from([10, 0, 0, 10 + number])],
            )],
            ..Guest::default()
        });
    }
    host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    host.routes.push(route("10.0.0.0/24", None, BRIDGE));
    host
}

pub(crate) fn fdb(mac: MacAddress, device: IfIndex, permanent: bool) -> FdbEntry {
    FdbEntry { mac, device, bridge: Some(BRIDGE), vlan: None, permanent, fixed: permanent, sticky: false, remote: None }
}

pub(crate) fn route(destination: &str, gateway: Option<&str>, device: IfIndex) -> Route {
    Route {
        destination: network(destination),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        device: Some(device),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    }
}

/// An echo request of 84 bytes from guest 1.
pub(crate) fn ping(to: &str, destination_mac: MacAddress) -> Packet {
    Packet {
        source_mac: Some(mac(1)),
        destination_mac: Some(destination_mac),
        tags: Vec::new(),
        network: Network::Ip(Ip {
            source: IpAddr::from([10, 0, 0, 11]),
            destination: to.parse().unwrap(),
            transport: Transport::Icmp { kind: 8, code: 0, id: 1 },
            time_to_live: Some(64),
            dont_fragment: true,
            fragment: Fragment::Whole,
            traffic_class: None,
        }),
        length: 84,
        gso: false,
        mark: Some(0),
        connection: None,
        translation: Translation::default(),
        carried: None,
        secured: false,
    }
}

pub(crate) fn who_has(target: &str) -> Packet {
    Packet {
        destination_mac: Some(MacAddress([0xff; 6])),
        network: Network::Arp(Arp {
            operation: 1,
            sender: IpAddr::from([10, 0, 0, 11]),
            target: target.parse().unwrap(),
            sender_mac: None,
        }),
        length: 28,
        ..ping("10.0.0.1", mac(0))
    }
}

pub(crate) fn from_guest(host: &HostState, packet: &Packet) -> Walk {
    walk(&Topology::new(host), packet, Entry::Guest(GUEST1))
}

/// Where copies that somebody takes arrive, in the order of the walk.
pub(crate) fn arrivals(walk: &Walk) -> Vec<Arrival> {
    let arrival = |outcome: &Outcome| if let Outcome::Arrives(arrival) = outcome { Some(*arrival) } else { None };
    let all = walk.ends().filter_map(|(_, step)| arrival(&step.outcome));
    all.filter(|arrival| *arrival != Arrival::Ignored).collect()
}

/// Why and where copies end.
pub(crate) fn stops(walk: &Walk) -> Vec<(Option<IfIndex>, Stop)> {
    walk.ends()
        .filter_map(
            |(_, step)| {
                if let Outcome::Stops(stop) = &step.outcome { Some((step.device, stop.clone())) } else { None }
            },
        )
        .collect()
}

pub(crate) fn port_of(host: &mut HostState, device: IfIndex) -> &mut BridgePort {
    host.links.get_mut(&device).unwrap().port.as_mut().unwrap()
}

pub(crate) fn bridge_of(host: &mut HostState) -> &mut BridgeState {
    if let LinkKind::Bridge(state) = &mut host.links.get_mut(&BRIDGE).unwrap().kind {
        state
    } else {
        panic!("no bridge")
    }
}

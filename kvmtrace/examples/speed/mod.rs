//! The host that speed is measured on, and how.
#![allow(clippy::disallowed_methods, reason = "it measures time")]

use kvmtrace::event::bridge::{BridgePort, BridgeState, PortState};
use kvmtrace::event::host::{
    Backend, Chain, FdbEntry, Guest, GuestInterface, HostState, Link, LinkKind, LinkStatistics, Network, Route, Rule,
};
use kvmtrace::event::names::RouteKind;
use kvmtrace::event::{IfIndex, MacAddress};
use std::net::IpAddr;
use std::time::Instant;

/// Rules of the firewall.
pub(crate) const RULES: u32 = 500;
/// Guests in the bridge, from the device 100 on.
pub(crate) const GUESTS: u32 = 100;
/// The guests' bridge.
pub(crate) const BRIDGE: IfIndex = IfIndex(3);
/// The routed NIC.
pub(crate) const UPLINK: IfIndex = IfIndex(2);

/// Microseconds, the median of so many runs.
pub(crate) fn median(runs: usize, mut work: impl FnMut()) -> f64 {
    let mut taken: Vec<f64> = (0..runs)
        .map(|_| {
            let begin = Instant::now();
            work();
            begin.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    taken.sort_by(f64::total_cmp);
    taken[runs / 2]
}

/// The MAC address of a device or guest.
pub(crate) fn mac_of(device: IfIndex) -> MacAddress {
    let [_, _, high, low] = device.0.to_be_bytes();
    MacAddress([0x52, 0x54, 0, 0, high, low])
}

fn link(index: IfIndex, name: String, kind: LinkKind) -> Link {
    Link {
        index,
        name,
        kind,
        mac: Some(mac_of(index)),
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

/// Guests in a bridge, a routed uplink, and rules of the kind that managers write, none of which takes the packets.
pub(crate) fn host() -> HostState {
    let mut host = HostState::default();
    let network = |address: [u8; 4], prefix| Network { address: address.into(), prefix };
    let mut bridge = link(BRIDGE, "br0".to_owned(), LinkKind::Bridge(BridgeState::default()));
    bridge.addresses.push(network([10, 0, 0, 1], 24));
    let mut uplink = link(UPLINK, "eth0".to_owned(), LinkKind::Physical);
    uplink.addresses.push(network([192, 0, 2, 2], 24));
    let entry = |device: IfIndex, permanent| FdbEntry {
        mac: mac_of(device),
        device,
        bridge: Some(BRIDGE),
        vlan: None,
        permanent,
        fixed: permanent,
        sticky: false,
        remote: None,
    };
    host.forwarding.push(entry(BRIDGE, true));
    for number in 0..GUESTS {
        let device = IfIndex(100 + number);
        let port = BridgePort {
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
            vlans: Vec::new(),
        };
        let tap =
            Link { master: Some(BRIDGE), port: Some(port), ..link(device, format!("vnet{number}"), LinkKind::Tun) };
        host.links.insert(device, tap);
        host.forwarding.push(entry(device, false));
        host.guests.push(Guest {
            name: format!("web{number}"),
            pid: Some(1),
            interfaces: vec![GuestInterface::new(
                device,
                "tap",
                Some(mac_of(device)),
                vec![IpAddr::from([10, 0, 0, 10 + number as u8])],
            )],
            ..Guest::default()
        });
    }
    host.links.insert(BRIDGE, bridge);
    host.links.insert(UPLINK, uplink);
    for (destination, gateway) in
        [(network([192, 0, 2, 0], 24), None), (network([0; 4], 0), Some([192, 0, 2, 1].into()))]
    {
        host.routes.push(Route {
            destination,
            gateway,
            device: Some(UPLINK),
            source: None,
            table: 254,
            metric: 0,
            kind: RouteKind::Unicast,
            mtu: None,
        });
    }
    host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    let rule = |number: u32| Rule {
        handle: Some(u64::from(number)),
        number: number + 1,
        text: format!(
            "iifname \"vnet{}\" ip saddr 172.16.{}.{} tcp dport {} counter packets 0 bytes 0 drop",
            number % GUESTS,
            number >> 8,
            number & 255,
            1000 + number
        ),
        packets: Some(0),
        verdict: Some("drop".to_owned()),
    };
    host.netfilter.chains.push(Chain {
        backend: Backend::Nft,
        family: "inet".to_owned(),
        table: "filter".to_owned(),
        name: "forward".to_owned(),
        hook: Some("forward".to_owned()),
        kind: Some("filter".to_owned()),
        priority: Some(0),
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: (0..RULES).map(rule).collect(),
    });
    host
}

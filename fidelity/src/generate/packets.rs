//! Packets of a host: whom a station or the host itself would talk to, as a machine builds it, and now and then as none does.

use super::chance;
use crate::plan::{End, Plan, Segment, Station};
use kvmtrace::event::MacAddress;
use kvmtrace::forward::packet::{Arp, Connection, Fragment, Ip, Network, Packet, TcpFlags, Translation, Transport};
use kvmtrace_tests::lab::draw::Draw;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// By which way a packet comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// From outside.
    End(End),
    /// From the host's own stack.
    Host,
}

/// A packet and where it is sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// By which way.
    pub way: Way,
    /// What.
    pub packet: Packet,
}

/// Ports that rules speak of.
pub(super) const PORTS: [u16; 6] = [22, 53, 80, 443, 8080, 5000];

/// The next packet; `number` makes its flow a new one.
pub fn packet(plan: &Plan, draw: &mut Draw, number: u16) -> Sent {
    let open: Vec<&Station> = plan
        .stations
        .iter()
        .filter(|station| match &station.end {
            End::Tap(name) => plan.taps.contains(name),
            End::Wire(name) => !plan.cut.contains(name),
        })
        .collect();
    let hosted: Vec<&Segment> = plan.segments.iter().filter(|segment| segment.hosted).collect();
    if (chance(draw, 10) || open.is_empty()) && !hosted.is_empty() {
        return from_host(plan, draw, &hosted, number);
    }
    let station = draw.pick(&open);
    let segment = &plan.segments[station.segment];
    let v6 = chance(draw, 40);
    let network = if chance(draw, 9) {
        resolution(plan, draw, station, v6)
    } else {
        let (mut destination, source) = (destination(plan, draw, segment, v6), source(plan, draw, station, v6));
        if destination == plan.address(station, v6) {
            // A machine keeps what it sends to itself.
            destination = beyond(plan, draw, v6);
        }
        let mut ip = ip(draw, source, destination, number);
        if !(plan.setup.nft.is_empty() && plan.setup.rules.is_empty()) {
            // Where connections are tracked, a fragment waits for the rest of its datagram (nf_defrag).
            ip.fragment = Fragment::Whole;
        }
        Network::Ip(ip)
    };
    let (destination_mac, source_mac) = macs(plan, draw, station, &network);
    let tags = match station.tag {
        Some(tag) if !chance(draw, 5) => vec![tag],
        _ if chance(draw, 2) => vec![draw.pick(&[7, 10, 20])],
        _ => Vec::new(),
    };
    let length = length(draw, &network);
    let (source_mac, destination_mac) = (Some(source_mac), Some(destination_mac));
    let packet = model(source_mac, destination_mac, tags, network, length);
    Sent { way: Way::End(station.end.clone()), packet }
}

fn from_host(plan: &Plan, draw: &mut Draw, hosted: &[&Segment], number: u16) -> Sent {
    let v6 = chance(draw, 40);
    let segment = draw.pick(hosted);
    let (source, destination) = (segment.address(v6, 1), destination(plan, draw, segment, v6));
    let mut ip = ip(draw, source, destination, number);
    ip.fragment = Fragment::Whole;
    let network = Network::Ip(ip);
    // A raw socket takes nothing that is longer than its device allows.
    let packet = model(None, None, Vec::new(), network, draw.number(90, 400));
    Sent { way: Way::Host, packet }
}

fn model(
    source_mac: Option<MacAddress>,
    destination_mac: Option<MacAddress>,
    tags: Vec<u16>,
    network: Network,
    length: u32,
) -> Packet {
    let connection = connection(&network);
    Packet {
        source_mac,
        destination_mac,
        tags,
        network,
        length,
        gso: false,
        mark: Some(0),
        connection,
        translation: Translation::default(),
        carried: None,
        secured: false,
    }
}

/// What `nf_conntrack_in` makes of the first packet of its flow.
fn connection(network: &Network) -> Option<Connection> {
    let Network::Ip(ip) = network else { return None };
    if ip.fragment != Fragment::Whole {
        return None;
    }
    Some(match ip.transport {
        // `tcp_new`: what begins with RST, FIN or SYN and ACK is no connection; `nf_conntrack_tcp_loose` takes an ACK.
        Transport::Tcp { flags: Some(flags), .. } if flags.rst || flags.fin || flags.syn && flags.ack => {
            Connection::Invalid
        }
        // `icmpv6_error`: neighbour discovery is not tracked.
        Transport::Icmpv6 { kind: 133..=137, .. } => Connection::Untracked,
        Transport::Tcp { .. }
        | Transport::Udp { .. }
        | Transport::Sctp { .. }
        | Transport::Icmp { .. }
        | Transport::Icmpv6 { .. }
        | Transport::Other(_) => Connection::New,
    })
}

/// The length from layer 3 on.
fn length(draw: &mut Draw, network: &Network) -> u32 {
    match network {
        Network::Ip(Ip { transport: Transport::Icmpv6 { kind: 135 | 136, .. }, .. }) => 72,
        Network::Arp(_) | Network::Other(_) => 46,
        Network::Ip(Ip { fragment: Fragment::First, .. }) => draw.pick(&[100 + 20, 1480 + 20]),
        Network::Ip(_) if chance(draw, 14) => draw.number(1250, 1500),
        Network::Ip(_) if chance(draw, 3) => draw.number(1501, 4000),
        Network::Ip(_) => draw.number(90, 400),
    }
}

/// An ARP request or a neighbour solicitation.
fn resolution(plan: &Plan, draw: &mut Draw, station: &Station, v6: bool) -> Network {
    let segment = &plan.segments[station.segment];
    let target = match draw.number(0, 9) {
        0..=3 => segment.address(v6, 1),
        4..=6 => station_address(plan, draw, v6, Some(station.segment)),
        7 => station_address(plan, draw, v6, None),
        8 => segment.address(v6, 200),
        _ => beyond(plan, draw, v6),
    };
    let sender = plan.address(station, v6);
    match target {
        IpAddr::V4(_) => Network::Arp(Arp { operation: 1, sender, target, sender_mac: None }),
        IpAddr::V6(address) => Network::Ip(Ip {
            source: sender,
            destination: solicited(address).into(),
            transport: Transport::Icmpv6 { kind: 135, code: 0, id: 0, target: Some(target) },
            time_to_live: Some(255),
            dont_fragment: true,
            fragment: Fragment::Whole,
            traffic_class: Some(0),
        }),
    }
}

/// The group that a neighbour listens to (RFC 4291, 2.7.1).
fn solicited(address: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = address.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

fn beyond(plan: &Plan, draw: &mut Draw, v6: bool) -> IpAddr {
    let addresses: Vec<IpAddr> = plan.beyond.iter().copied().filter(|address| address.is_ipv6() == v6).collect();
    draw.pick(&addresses)
}

/// The address of a station in a segment, or in any.
fn station_address(plan: &Plan, draw: &mut Draw, v6: bool, segment: Option<usize>) -> IpAddr {
    let stations: Vec<&Station> =
        plan.stations.iter().filter(|station| segment.is_none_or(|segment| station.segment == segment)).collect();
    plan.address(draw.pick(&stations), v6)
}

fn destination(plan: &Plan, draw: &mut Draw, segment: &Segment, v6: bool) -> IpAddr {
    let own = plan.segments.iter().position(|other| other.device == segment.device);
    let has_station = plan.stations.iter().any(|station| Some(station.segment) == own);
    let any = |draw: &mut Draw| {
        let number = draw.number(0, plan.segments.len() as u32 - 1) as usize;
        &plan.segments[number]
    };
    match draw.number(1, 100) {
        1..=32 if has_station => station_address(plan, draw, v6, own),
        1..=58 => station_address(plan, draw, v6, None),
        59..=68 => segment.address(v6, 1),
        69..=73 => any(draw).address(v6, 1),
        74..=88 => beyond(plan, draw, v6),
        89..=91 => segment.address(v6, 200),
        92..=93 => any(draw).address(v6, 201),
        94..=98 => group(draw, segment, v6),
        _ if v6 => Ipv6Addr::LOCALHOST.into(),
        _ => Ipv4Addr::LOCALHOST.into(),
    }
}

fn group(draw: &mut Draw, segment: &Segment, v6: bool) -> IpAddr {
    if v6 {
        draw.pick(&[
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
            Ipv6Addr::new(0xff15, 0, 0, 0, 0, 0, 0, 0x7777),
            Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0xfb),
        ])
        .into()
    } else {
        draw.pick(&[
            Ipv4Addr::BROADCAST,
            segment.v4(255),
            Ipv4Addr::new(224, 0, 0, 251),
            Ipv4Addr::new(239, 7, 7, 7),
            Ipv4Addr::new(224, 0, 0, 1),
        ])
        .into()
    }
}

/// Its own address, now and then another's.
fn source(plan: &Plan, draw: &mut Draw, station: &Station, v6: bool) -> IpAddr {
    if !chance(draw, 7) {
        return plan.address(station, v6);
    }
    match draw.number(0, 6) {
        0 => station_address(plan, draw, v6, None),
        1 => plan.segments[station.segment].address(v6, 1),
        2 => beyond(plan, draw, v6),
        3 if v6 => Ipv6Addr::LOCALHOST.into(),
        3 => Ipv4Addr::LOCALHOST.into(),
        4 if v6 => Ipv6Addr::UNSPECIFIED.into(),
        4 => Ipv4Addr::UNSPECIFIED.into(),
        5 if v6 => Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
        5 => Ipv4Addr::BROADCAST.into(),
        _ => plan.segments[station.segment].address(v6, 201),
    }
}

fn ip(draw: &mut Draw, source: IpAddr, destination: IpAddr, number: u16) -> Ip {
    let v6 = destination.is_ipv6();
    let (from, to) = (Some(20_000 + number), Some(draw.pick(&PORTS)));
    let flags = |syn, ack, fin, rst| Some(TcpFlags { syn, ack, fin, rst });
    let transport = match draw.number(1, 100) {
        1..=40 => Transport::Udp { source: from, destination: to },
        41..=60 => Transport::Tcp { source: from, destination: to, flags: flags(true, false, false, false) },
        61..=67 => Transport::Tcp { source: from, destination: to, flags: flags(false, true, false, false) },
        68 => Transport::Tcp { source: from, destination: to, flags: flags(false, false, false, true) },
        69 => Transport::Tcp { source: from, destination: to, flags: flags(false, true, true, false) },
        70 => Transport::Tcp { source: from, destination: to, flags: flags(true, true, false, false) },
        71..=92 if v6 => Transport::Icmpv6 { kind: 128, code: 0, id: number, target: None },
        71..=92 => Transport::Icmp { kind: 8, code: 0, id: number },
        _ => Transport::Sctp { source: from, destination: to },
    };
    let fragment = if chance(draw, 2) { draw.pick(&[Fragment::First, Fragment::Later]) } else { Fragment::Whole };
    Ip {
        source,
        destination,
        transport,
        time_to_live: Some(draw.pick(&[64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 1, 2, 255])),
        dont_fragment: v6 || fragment == Fragment::Whole && chance(draw, 50),
        fragment,
        traffic_class: Some(draw.pick(&[0, 0, 0, 0, 0x10, 0xb8])),
    }
}

/// Destination and source MAC address, as the station's own stack would choose them, mostly.
fn macs(plan: &Plan, draw: &mut Draw, station: &Station, network: &Network) -> (MacAddress, MacAddress) {
    let segment = &plan.segments[station.segment];
    let broadcast = MacAddress([0xff; 6]);
    let destination = match network {
        Network::Arp(_) | Network::Other(_) => broadcast,
        Network::Ip(ip) => match ip.destination {
            IpAddr::V4(address) if address == Ipv4Addr::BROADCAST || address == segment.v4(255) => broadcast,
            IpAddr::V4(address) if address.is_multicast() => {
                let [_, b, c, d] = address.octets();
                MacAddress([1, 0, 0x5e, b & 0x7f, c, d])
            }
            IpAddr::V6(address) if address.is_multicast() => {
                let [.., a, b, c, d] = address.octets();
                MacAddress([0x33, 0x33, a, b, c, d])
            }
            IpAddr::V4(_) | IpAddr::V6(_) => next_hop(plan, draw, station, ip.destination),
        },
    };
    if !chance(draw, 6) {
        return (destination, station.mac);
    }
    let unknown = MacAddress([0x52, 0x54, 0, 0xee, 0, draw.number(0, 255) as u8]);
    let others: Vec<MacAddress> = plan.stations.iter().map(|other| other.mac).collect();
    match draw.number(0, 6) {
        0 => (broadcast, station.mac),
        1 => (unknown, station.mac),
        2 => (draw.pick(&others), station.mac),
        3 => (destination, MacAddress([0x01, 0, 0x5e, 0, 0, 1])),
        4 => (destination, MacAddress([0; 6])),
        5 => (destination, unknown),
        _ => (MacAddress([1, 0x80, 0xc2, 0, 0, draw.pick(&[0x00, 0x02, 0x0e, 0x0d])]), station.mac),
    }
}

/// The MAC address of a neighbour, or of the router.
fn next_hop(plan: &Plan, draw: &mut Draw, station: &Station, destination: IpAddr) -> MacAddress {
    let segment = &plan.segments[station.segment];
    let neighbour = plan
        .stations
        .iter()
        .find(|other| other.segment == station.segment && plan.address(other, destination.is_ipv6()) == destination);
    let routers: Vec<MacAddress> = plan
        .stations
        .iter()
        .filter(|other| other.segment == station.segment && matches!(other.end, End::Wire(_)))
        .map(|other| other.mac)
        .collect();
    match neighbour {
        Some(neighbour) => neighbour.mac,
        None if segment.hosted => segment.mac,
        None if !routers.is_empty() => draw.pick(&routers),
        None => MacAddress([0x52, 0x54, 0, 0xee, 1, 1]),
    }
}

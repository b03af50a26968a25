//! Frames as a guest of Linux sends them.

use super::question::{Kind, Question, QuestionError};
use crate::event::MacAddress;
use crate::forward::packet::{Arp, Connection, Fragment, Ip, Network, Packet, TcpFlags, Translation, Transport};
use std::net::{IpAddr, Ipv6Addr};

/// Stands for the MAC address of a machine that this host does not know: unicast, locally administered.
pub const STAND_IN: MacAddress = MacAddress([0x02, 0x6b, 0x76, 0x6d, 0x74, 0x01]);
/// To everybody.
pub(super) const BROADCAST: MacAddress = MacAddress([0xff; 6]);
/// The source port of TCP and UDP packets, and the identifier of echo requests.
const OWN_PORT: u16 = 40_000;

const NEW: TcpFlags = TcpFlags { syn: true, ack: false, fin: false, rst: false };

/// The IP packet of a question, without MAC addresses.
pub(super) fn ip(question: &Question, source: IpAddr, destination: IpAddr) -> Result<Packet, QuestionError> {
    let v6 = destination.is_ipv6();
    let transport = match question.kind {
        Kind::Tcp(port) => Transport::Tcp { source: Some(OWN_PORT), destination: Some(port), flags: Some(NEW) },
        Kind::Udp(port) => Transport::Udp { source: Some(OWN_PORT), destination: Some(port) },
        Kind::Icmp | Kind::Arp | Kind::Nd | Kind::Dhcp if v6 => {
            Transport::Icmpv6 { kind: 128, code: 0, id: OWN_PORT, target: None }
        }
        Kind::Icmp | Kind::Arp | Kind::Nd | Kind::Dhcp => Transport::Icmp { kind: 8, code: 0, id: OWN_PORT },
    };
    let header = if v6 { 40 } else { 20 };
    // Header of layer 4, and what Linux sends by default behind it: 56 bytes of an echo request, TCP's options.
    let (least, usual) = match question.kind {
        Kind::Tcp(_) => (20, 40),
        Kind::Udp(_) => (8, 40),
        Kind::Icmp | Kind::Arp | Kind::Nd | Kind::Dhcp => (8, 64),
    };
    let length = sized(question.size, header + least, header + usual)?;
    let is_tcp = matches!(question.kind, Kind::Tcp(_));
    let dont_fragment = v6 || is_tcp || question.dont_fragment;
    Ok(packet(source, destination, transport, 64, dont_fragment, length))
}

pub(super) fn sized(size: Option<u32>, least: u32, usual: u32) -> Result<u32, QuestionError> {
    match size {
        None => Ok(usual),
        Some(size) if (least..=65_535).contains(&size) => Ok(size),
        Some(size) => Err(QuestionError::Size { size, least }),
    }
}

pub(super) fn packet(
    source: IpAddr,
    destination: IpAddr,
    transport: Transport,
    ttl: u8,
    df: bool,
    length: u32,
) -> Packet {
    frame(
        Network::Ip(Ip {
            source,
            destination,
            transport,
            time_to_live: Some(ttl),
            dont_fragment: df,
            fragment: Fragment::Whole,
            traffic_class: Some(0),
        }),
        length,
        Some(Connection::New),
    )
}

pub(super) fn frame(network: Network, length: u32, connection: Option<Connection>) -> Packet {
    Packet {
        source_mac: None,
        destination_mac: None,
        tags: Vec::new(),
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

/// The ARP request or neighbour solicitation for an address.
pub(super) fn resolution(source: IpAddr, mac: MacAddress, target: IpAddr) -> Packet {
    match target {
        IpAddr::V4(_) => {
            let arp = Arp { operation: 1, sender: source, target, sender_mac: Some(mac) };
            let request = frame(Network::Arp(arp), 28, None);
            Packet { source_mac: Some(mac), destination_mac: Some(BROADCAST), ..request }
        }
        IpAddr::V6(address) => {
            // Solicited-node multicast, RFC 4291, 2.7.1.
            let [.., high, low] = address.segments();
            let group = IpAddr::V6(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low));
            let transport = Transport::Icmpv6 { kind: 135, code: 0, id: 0, target: Some(target) };
            // The header, 24 bytes of the message, 8 of the source's link-layer address.
            let solicitation = packet(source, group, transport, 255, true, 72);
            Packet { source_mac: Some(mac), destination_mac: Some(group_mac(group)), ..solicitation }
        }
    }
}

/// RFC 1112, 6.4, and RFC 2464, 7.
pub(super) fn group_mac(group: IpAddr) -> MacAddress {
    match group {
        IpAddr::V4(group) => {
            let [_, high, middle, low] = group.octets();
            MacAddress([0x01, 0x00, 0x5e, high & 0x7f, middle, low])
        }
        IpAddr::V6(group) => {
            let [.., a, b, c, d] = group.octets();
            MacAddress([0x33, 0x33, a, b, c, d])
        }
    }
}

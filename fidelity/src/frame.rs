//! From the model's packet to the bytes of a frame, and from bytes back to the packet that they belong to.
//!
//! Each packet bears a marker: its number behind a word that no header holds. The marker is the begin of the payload, the
//! padding behind an ARP packet, or the nonce option of neighbour discovery. An ICMP error quotes it.

use kvmtrace::forward::packet::{Arp, Fragment, Ip, Network, Packet, TcpFlags, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The word before a packet's number.
const WORD: [u8; 4] = *b"\xf1kF\xd7";
/// Bytes of a marker.
pub const MARKER: usize = 6;
/// Stands for the `EtherType` of what begins with its ICMPv6 header, as a raw socket gives it.
pub const BARE_ICMPV6: u16 = 58;
/// Where a later fragment stands in its datagram, in units of 8 bytes.
const LATER: u16 = 185;

/// The packet as a frame, checksums right.
pub fn encode(packet: &Packet, number: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(packet.length as usize + 22);
    frame.extend(packet.destination_mac.unwrap_or_default().0);
    frame.extend(packet.source_mac.unwrap_or_default().0);
    for tag in &packet.tags {
        frame.extend(0x8100_u16.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    frame.extend(packet.ether_type().to_be_bytes());
    frame.extend(network(packet, number));
    frame
}

/// The packet from its layer-3 header on.
pub fn network(packet: &Packet, number: u16) -> Vec<u8> {
    match &packet.network {
        Network::Ip(packet_ip) => ip(packet_ip, packet.length as usize, number),
        Network::Arp(packet_arp) => arp(packet, *packet_arp, number),
        Network::Other(_) => marker(number).into_iter().chain([0; 38]).collect(),
    }
}

/// The port of VXLAN, 4789.
const VXLAN: [u8; 2] = [0x12, 0xb5];

/// The number of the packet that these bytes hold, or quote.
pub fn number_in(bytes: &[u8]) -> Option<u16> {
    let at = bytes.windows(MARKER).position(|window| window.starts_with(&WORD))?;
    let number = bytes.get(at + WORD.len()..at + MARKER)?;
    Some(u16::from_be_bytes(number.try_into().ok()?))
}

fn marker(number: u16) -> [u8; MARKER] {
    let mut marker = [0; MARKER];
    marker[..4].copy_from_slice(&WORD);
    marker[4..].copy_from_slice(&number.to_be_bytes());
    marker
}

fn arp(packet: &Packet, arp: Arp, number: u16) -> Vec<u8> {
    let mut bytes = vec![0, 1, 8, 0, 6, 4, 0, arp.operation];
    bytes.extend(arp.sender_mac.or(packet.source_mac).unwrap_or_default().0);
    bytes.extend(octets(arp.sender));
    // Nobody knows yet, or it is the receiver of the answer.
    let target = if arp.operation == 1 { [0; 6] } else { packet.destination_mac.unwrap_or_default().0 };
    bytes.extend(target);
    bytes.extend(octets(arp.target));
    bytes.extend(marker(number));
    bytes.resize(46, 0);
    bytes
}

fn ip(ip: &Ip, length: usize, number: u16) -> Vec<u8> {
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => ipv4(ip, source, destination, length, number),
        (IpAddr::V6(source), IpAddr::V6(destination)) => ipv6(ip, source, destination, length, number),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => Vec::new(),
    }
}

fn ipv4(ip: &Ip, source: Ipv4Addr, destination: Ipv4Addr, length: usize, number: u16) -> Vec<u8> {
    let payload = payload(ip, length.saturating_sub(20), number);
    let mut header = vec![0x45, ip.traffic_class.unwrap_or(0)];
    header.extend((20 + payload.len() as u16).to_be_bytes());
    // Not 0: a router may set the number of a packet that has none.
    header.extend((number | 1).to_be_bytes());
    let flags = match ip.fragment {
        Fragment::Whole if ip.dont_fragment => 0x4000,
        Fragment::Whole => 0,
        Fragment::First => 0x2000,
        Fragment::Later => LATER,
    };
    header.extend(flags.to_be_bytes());
    header.extend([ip.time_to_live.unwrap_or(64), ip.transport.number(), 0, 0]);
    header.extend(source.octets());
    header.extend(destination.octets());
    let sum = checksum(&header, 0).to_be_bytes();
    header[10..12].copy_from_slice(&sum);
    header.extend(payload);
    header
}

fn ipv6(ip: &Ip, source: Ipv6Addr, destination: Ipv6Addr, length: usize, number: u16) -> Vec<u8> {
    let extension = if ip.fragment == Fragment::Whole { 0 } else { 8 };
    let payload = payload(ip, length.saturating_sub(40 + extension), number);
    let mut header = vec![0x60 | ip.traffic_class.unwrap_or(0) >> 4, ip.traffic_class.unwrap_or(0) << 4, 0, 0];
    header.extend(((payload.len() + extension) as u16).to_be_bytes());
    header.extend([if extension == 0 { ip.transport.number() } else { 44 }, ip.time_to_live.unwrap_or(64)]);
    header.extend(source.octets());
    header.extend(destination.octets());
    match ip.fragment {
        Fragment::Whole => {}
        Fragment::First | Fragment::Later => {
            let place = if ip.fragment == Fragment::First { 1 } else { LATER << 3 };
            header.extend([ip.transport.number(), 0]);
            header.extend(place.to_be_bytes());
            header.extend(u32::from(number).to_be_bytes());
        }
    }
    header.extend(payload);
    header
}

/// Layer 4 and the marker, of at least `length` bytes, with its checksum.
fn payload(ip: &Ip, length: usize, number: u16) -> Vec<u8> {
    let mut bytes = if ip.fragment == Fragment::Later { Vec::new() } else { transport_header(ip.transport) };
    if matches!(ip.transport, Transport::Icmpv6 { kind: 135 | 136, .. }) {
        // RFC 3971, 5.3.2: the nonce has as many bytes as a marker.
        bytes.extend([14, 1]);
        bytes.extend(marker(number));
    } else {
        bytes.extend(marker(number));
        bytes.resize(length.max(bytes.len()), 0);
    }
    if ip.fragment == Fragment::Later {
        return bytes;
    }
    let place = match ip.transport {
        Transport::Tcp { .. } => 16,
        Transport::Udp { .. } => 6,
        Transport::Icmp { .. } | Transport::Icmpv6 { .. } => 2,
        Transport::Sctp { .. } | Transport::Other(_) => return sctp_summed(ip.transport, bytes),
    };
    if matches!(ip.transport, Transport::Udp { .. }) {
        let length = (bytes.len() as u16).to_be_bytes();
        bytes[4..6].copy_from_slice(&length);
    }
    let pseudo = if matches!(ip.transport, Transport::Icmp { .. }) { 0 } else { pseudo_header(ip, bytes.len()) };
    let sum = match checksum(&bytes, pseudo) {
        0 => 0xffff,
        sum => sum,
    };
    bytes[place..place + 2].copy_from_slice(&sum.to_be_bytes());
    bytes
}

fn transport_header(transport: Transport) -> Vec<u8> {
    let port = |port: Option<u16>| port.unwrap_or(0).to_be_bytes();
    match transport {
        Transport::Udp { source, destination } => [&port(source)[..], &port(destination), &[0; 4]].concat(),
        Transport::Tcp { source, destination, flags } => {
            let flags = flags.unwrap_or(TcpFlags { syn: true, ack: false, fin: false, rst: false });
            let bits =
                u8::from(flags.fin) | u8::from(flags.syn) << 1 | u8::from(flags.rst) << 2 | u8::from(flags.ack) << 4;
            let mut header = [&port(source)[..], &port(destination), &[0, 0, 0, 1, 0, 0, 0, 1]].concat();
            header.extend([0x50, bits, 0xff, 0xff, 0, 0, 0, 0]);
            header
        }
        Transport::Icmpv6 { kind: kind @ (135 | 136), code, target: Some(IpAddr::V6(target)), .. } => {
            let flags = if kind == 136 { 0x60 } else { 0 };
            [&[kind, code, 0, 0, flags, 0, 0, 0][..], &target.octets()].concat()
        }
        Transport::Icmp { kind, code, id } | Transport::Icmpv6 { kind, code, id, .. } => {
            [&[kind, code, 0, 0][..], &id.to_be_bytes(), &[0, 1]].concat()
        }
        // An INIT chunk.
        Transport::Sctp { source, destination } => {
            let mut header = [&port(source)[..], &port(destination), &[0; 8]].concat();
            header.extend([1, 0, 0, 28, 0, 0, 0, 1, 0, 0, 0xff, 0xff, 0, 1, 0, 1, 0, 0, 0, 1]);
            // A parameter that nobody knows, and that is passed over, holds the marker and what fills the packet.
            header.extend([0x80, 0x99, 0, 12]);
            header
        }
        Transport::Other(_) => Vec::new(),
    }
}

/// CRC-32C of the packet, where it is SCTP.
fn sctp_summed(transport: Transport, mut bytes: Vec<u8>) -> Vec<u8> {
    if matches!(transport, Transport::Sctp { .. }) {
        // The chunk is all that the packet holds: bytes of zero behind it would be a chunk without length, which conntrack calls
        // invalid (`do_basic_checks` in nf_conntrack_proto_sctp.c).
        let (chunk, parameter) = ((bytes.len() - 12) as u16, (bytes.len() - 32) as u16);
        bytes[14..16].copy_from_slice(&chunk.to_be_bytes());
        bytes[34..36].copy_from_slice(&parameter.to_be_bytes());
        let sum = crc32c(&bytes).to_le_bytes();
        bytes[8..12].copy_from_slice(&sum);
    }
    bytes
}

fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |sum, byte| {
        (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0x82f6_3b78 } else { sum >> 1 })
    })
}

fn pseudo_header(ip: &Ip, length: usize) -> u32 {
    let words = |address: IpAddr| -> u32 {
        octets(address).chunks_exact(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum()
    };
    words(ip.source) + words(ip.destination) + u32::from(ip.transport.number()) + length as u32
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum (RFC 1071) on top of `sum`.
fn checksum(bytes: &[u8], sum: u32) -> u16 {
    let mut sum = bytes
        .chunks(2)
        .fold(sum, |sum, pair| sum + u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)])));
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// What a frame that bears a marker is to the packet of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Likeness {
    /// The packet itself, translated or wrapped perhaps.
    Packet,
    /// An ICMP error about it, or a redirect.
    Error,
    /// An echo reply to it.
    Answer,
}

/// What these bytes, from the `EtherType` on, are to the packet that they bear the marker of.
pub fn likeness(ether_type: u16, bytes: &[u8]) -> Likeness {
    if let Some((ether_type, inner)) = carried(ether_type, bytes) {
        return likeness(ether_type, inner);
    }
    let icmp = match ether_type {
        0x0800 => {
            let header = usize::from(bytes.first().copied().unwrap_or(0) & 0x0f) * 4;
            (bytes.get(9) == Some(&1)).then(|| (false, bytes.get(header).copied()))
        }
        0x86dd if bytes.get(6) == Some(&58) => Some((true, bytes.get(40).copied())),
        // The first fragment, behind its header.
        0x86dd if bytes.get(6) == Some(&44) && bytes.get(40) == Some(&58) => Some((true, bytes.get(48).copied())),
        BARE_ICMPV6 => Some((true, bytes.first().copied())),
        _ => None,
    };
    match icmp {
        Some((false, Some(3 | 4 | 5 | 11 | 12)) | (true, Some(0..=127 | 137))) => Likeness::Error,
        Some((false, Some(0)) | (true, Some(129))) => Likeness::Answer,
        _ => Likeness::Packet,
    }
}

/// The packet within a VXLAN packet over IPv4, and its `EtherType`.
fn carried(ether_type: u16, bytes: &[u8]) -> Option<(u16, &[u8])> {
    let header = usize::from(bytes.first()? & 0x0f) * 4;
    let is_vxlan =
        ether_type == 0x0800 && bytes.get(9) == Some(&17) && bytes.get(header + 2..header + 4) == Some(&VXLAN);
    let frame = bytes.get(header + 16..).filter(|_| is_vxlan)?;
    let word = |at: usize| Some(u16::from_be_bytes(frame.get(at..at + 2)?.try_into().ok()?));
    let at = if word(12)? == 0x8100 { 16 } else { 12 };
    Some((word(at)?, frame.get(at + 2..)?))
}

/// Who asks for whose MAC address: sender and target of an ARP request or a neighbour solicitation, from layer 3 on.
pub fn question(ether_type: u16, bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    resolution(ether_type, bytes, 1, 135)
}

/// To whom and for which address an ARP reply or neighbour advertisement answers.
pub fn answered(ether_type: u16, bytes: &[u8]) -> Option<(IpAddr, IpAddr)> {
    let (owner, asker) = resolution(ether_type, bytes, 2, 136)?;
    // An advertisement has the owner's address as its target; its destination asked.
    if ether_type == 0x0806 { Some((asker, owner)) } else { Some((v6(bytes, 24)?, asker)) }
}

fn resolution(ether_type: u16, bytes: &[u8], operation: u8, kind: u8) -> Option<(IpAddr, IpAddr)> {
    let v4 = |at: usize| Some(IpAddr::from(<[u8; 4]>::try_from(bytes.get(at..at + 4)?).ok()?));
    match ether_type {
        0x0806 if bytes.get(7) == Some(&operation) => Some((v4(14)?, v4(24)?)),
        0x86dd if bytes.get(6) == Some(&58) && bytes.get(40) == Some(&kind) => Some((v6(bytes, 8)?, v6(bytes, 48)?)),
        _ => None,
    }
}

fn v6(bytes: &[u8], at: usize) -> Option<IpAddr> {
    Some(IpAddr::from(<[u8; 16]>::try_from(bytes.get(at..at + 16)?).ok()?))
}

/// The ARP reply or neighbour advertisement of a station to who asked for its address.
pub fn answer(own: [u8; 6], to: [u8; 6], target: IpAddr, asker: IpAddr, tags: &[u16]) -> Vec<u8> {
    let mut frame = [to, own].concat();
    for tag in tags {
        frame.extend(0x8100_u16.to_be_bytes());
        frame.extend(tag.to_be_bytes());
    }
    match target {
        IpAddr::V4(_) => {
            frame.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 2]);
            frame.extend(own);
            frame.extend(octets(target));
            frame.extend(to);
            frame.extend(octets(asker));
        }
        IpAddr::V6(target) => {
            let transport = Transport::Icmpv6 { kind: 136, code: 0, id: 0, target: Some(target.into()) };
            let ip = Ip {
                source: target.into(),
                destination: asker,
                transport,
                time_to_live: Some(255),
                dont_fragment: true,
                fragment: Fragment::Whole,
                traffic_class: None,
            };
            let mut body = transport_header(transport);
            body.extend([2, 1]);
            body.extend(own);
            let sum = checksum(&body, pseudo_header(&ip, body.len())).to_be_bytes();
            body[2..4].copy_from_slice(&sum);
            frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, body.len() as u8, 58, 255]);
            frame.extend(octets(target.into()));
            frame.extend(octets(asker));
            frame.extend(body);
        }
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmtrace::event::MacAddress;

    fn udp(destination: &str, length: u32) -> Packet {
        let destination: IpAddr = destination.parse().unwrap();
        let source = if destination.is_ipv4() { "10.0.0.1" } else { "fd00::1" };
        Packet {
            source_mac: Some(MacAddress([2, 0, 0, 0, 0, 1])),
            destination_mac: Some(MacAddress([2, 0, 0, 0, 0, 2])),
            tags: vec![7],
            network: Network::Ip(Ip {
                source: source.parse().unwrap(),
                destination,
                transport: Transport::Udp { source: Some(40_000), destination: Some(53) },
                time_to_live: Some(64),
                dont_fragment: true,
                fragment: Fragment::Whole,
                traffic_class: Some(0),
            }),
            length,
            gso: false,
            mark: None,
            connection: None,
            translation: kvmtrace::forward::packet::Translation::default(),
            carried: None,
            secured: false,
        }
    }

    #[test]
    fn a_frame_has_the_packets_length_its_number_and_sums_that_are_right() {
        for (destination, header) in [("10.0.0.2", 20), ("fd00::2", 40)] {
            let packet = udp(destination, 333);
            let frame = encode(&packet, 4711);
            assert_eq!(frame.len(), 18 + 333);
            assert_eq!(number_in(&frame), Some(4711));
            let Network::Ip(ip) = &packet.network else { unreachable!() };
            // Summed with its checksum, a packet gives zero.
            assert_eq!(checksum(&frame[18 + header..], pseudo_header(ip, 333 - header)), 0);
            if header == 20 {
                assert_eq!(checksum(&frame[18..38], 0), 0);
            }
        }
    }

    #[test]
    fn an_error_and_an_echo_reply_are_not_the_packet_itself() {
        let frame = encode(&udp("10.0.0.2", 100), 1);
        assert_eq!(likeness(0x0800, &frame[18..]), Likeness::Packet);
        let icmp = |kind: u8| [&[0x45, 0, 0, 28, 0, 0, 0, 0, 64, 1][..], &[0; 10], &[kind, 0, 0, 0]].concat();
        assert_eq!(likeness(0x0800, &icmp(3)), Likeness::Error);
        assert_eq!(likeness(0x0800, &icmp(0)), Likeness::Answer);
        assert_eq!(likeness(0x0800, &icmp(8)), Likeness::Packet);
    }

    #[test]
    fn the_sum_of_sctp_is_castagnolis() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }
}

//! What stands behind an IP header: echo requests, SYNs, datagrams, neighbour solicitations, DHCP discoveries.

use super::error::CraftError;
use super::mark::{MAGIC, Mark};
use crate::event::MacAddress;
use crate::forward::packet::{Ip, Packet, Transport};
use kvmtrace_common::parse::tcp_flag;
use std::net::{IpAddr, Ipv6Addr};

/// Length of an IPv4 header without options, and of an IPv6 header.
pub(super) const IPV4: usize = 20;
pub(super) const IPV6: usize = 40;
/// Ports of DHCP (RFC 2131).
const DHCP: (u16, u16) = (68, 67);
/// A BOOTP message with its options is as long as this at least (RFC 1542, 2.1).
const DHCP_MESSAGE: usize = 300;
const NEIGHBOUR_SOLICITATION: u8 = 135;

/// The bytes behind the IP header, their checksum filled in.
pub(super) fn payload(packet: &Packet, ip: &Ip, mark: Mark, number: u16) -> Result<Vec<u8>, CraftError> {
    let header = if ip.destination.is_ipv4() { IPV4 } else { IPV6 };
    let asked = (packet.length as usize).saturating_sub(header);
    // The rest of the packet behind a layer-4 header of `least` bytes.
    let rest = |least: usize| {
        asked.checked_sub(least).ok_or(CraftError::Length {
            length: packet.length as usize,
            least: header + least,
            most: usize::from(u16::MAX),
        })
    };
    let (bytes, checksum_at) = match ip.transport {
        Transport::Icmpv6 { kind: NEIGHBOUR_SOLICITATION, target, .. } => (solicitation(target, packet.source_mac)?, 2),
        Transport::Icmp { kind, code, id } | Transport::Icmpv6 { kind, code, id, .. } => {
            (echo(kind, code, id, number, mark, rest(8)?), 2)
        }
        Transport::Udp { source: Some(source), destination: Some(destination) } => {
            let data = if (source, destination) == DHCP {
                discover(packet.source_mac.ok_or(CraftError::Unknown("a source MAC address"))?, mark)
            } else {
                mark.text(rest(8)?)
            };
            (udp(source, destination, &data), 6)
        }
        Transport::Tcp { source: Some(source), destination: Some(destination), .. } => {
            (syn(source, destination, mark, asked, rest(20)?), 16)
        }
        Transport::Udp { .. } | Transport::Tcp { .. } => return Err(CraftError::Unknown("ports")),
        Transport::Sctp { .. } => return Err(CraftError::Kind("SCTP".to_owned())),
        Transport::Other(protocol) => return Err(CraftError::Kind(format!("IP protocol {protocol}"))),
    };
    Ok(with_checksum(ip, bytes, checksum_at))
}

fn with_checksum(ip: &Ip, mut bytes: Vec<u8>, at: usize) -> Vec<u8> {
    // ICMP for IPv4 alone has no pseudo-header.
    let pseudo = if matches!(ip.transport, Transport::Icmp { .. }) { 0 } else { pseudo_header(ip, bytes.len()) };
    let sum = match (checksum(&bytes, pseudo), ip.transport) {
        // A checksum of 0 would mean none (RFC 768).
        (0, Transport::Udp { .. }) => u16::MAX,
        (sum, _) => sum,
    };
    if let Some(field) = bytes.get_mut(at..at + 2) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    bytes
}

/// RFC 792, RFC 4443.
fn echo(kind: u8, code: u8, id: u16, number: u16, mark: Mark, data: usize) -> Vec<u8> {
    let mut bytes = vec![kind, code, 0, 0];
    bytes.extend(id.to_be_bytes());
    bytes.extend(number.to_be_bytes());
    bytes.extend(mark.text(data));
    bytes
}

/// RFC 4861, 4.3, with the source's link-layer address.
fn solicitation(target: Option<IpAddr>, source: Option<MacAddress>) -> Result<Vec<u8>, CraftError> {
    let target = target.ok_or(CraftError::Unknown("a target"))?;
    let source = source.ok_or(CraftError::Unknown("a source MAC address"))?;
    let mut bytes = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    bytes.extend(octets(target));
    bytes.extend([1, 1]);
    bytes.extend(source.0);
    Ok(bytes)
}

/// RFC 768.
fn udp(source: u16, destination: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.extend(((8 + data.len()) as u16).to_be_bytes());
    bytes.extend([0, 0]);
    bytes.extend(data);
    bytes
}

/// A SYN with the options that Linux sends, where there is room for them. Data only where a size was asked for.
fn syn(source: u16, destination: u16, mark: Mark, whole: usize, rest: usize) -> Vec<u8> {
    // Maximum segment size 1460, SACK permitted, timestamps, no operation, window scale 7.
    let options: &[u8] = &[2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 0, 1, 3, 3, 7];
    let options = if rest >= options.len() { options } else { &[] };
    let length = 20 + options.len();
    let mut bytes = [source.to_be_bytes(), destination.to_be_bytes()].concat();
    bytes.extend(mark.transaction().to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend([(length as u8 / 4) << 4, tcp_flag::SYN]);
    bytes.extend(64_240_u16.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.extend(options);
    bytes.extend(mark.text(whole.saturating_sub(length)));
    bytes
}

/// RFC 2131 and 2132: the answer goes to the MAC address, not to all.
fn discover(mac: MacAddress, mark: Mark) -> Vec<u8> {
    // Request, Ethernet, 6 bytes of address, no relay.
    let mut bytes = vec![1, 1, 6, 0];
    bytes.extend(mark.transaction().to_be_bytes());
    // Seconds, flags (no broadcast flag), four addresses.
    bytes.extend([0; 20]);
    bytes.extend(mac.0);
    // The rest of the hardware address, server name, file.
    bytes.extend([0; 10 + 64 + 128]);
    // The magic cookie; message type DISCOVER.
    bytes.extend([99, 130, 83, 99, 53, 1, 1]);
    // Vendor class: our mark.
    bytes.extend([60, MAGIC.len() as u8]);
    bytes.extend(MAGIC.as_bytes());
    // Subnet mask, router, DNS, lease time; the end.
    bytes.extend([55, 4, 1, 3, 6, 51, 255]);
    bytes.resize(DHCP_MESSAGE, 0);
    bytes
}

/// The sum over addresses, length and protocol (RFC 9293, 3.1; RFC 8200, 8.1).
fn pseudo_header(ip: &Ip, length: usize) -> u32 {
    let addresses = match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => [source.octets(), destination.octets()].concat(),
        (source, destination) => [octets(source), octets(destination)].concat(),
    };
    sum(&addresses, length as u32 + u32::from(ip.transport.number()))
}

fn sum(bytes: &[u8], start: u32) -> u32 {
    let words = bytes.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    // 65,535 bytes are 32,768 words of 16 bits: no overflow.
    words.fold(start, u32::wrapping_add)
}

/// The Internet checksum (RFC 1071).
pub(super) fn checksum(bytes: &[u8], start: u32) -> u16 {
    let mut sum = sum(bytes, start);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The bytes of an IPv6 address.
pub(super) fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => Ipv6Addr::octets(&address),
    }
}

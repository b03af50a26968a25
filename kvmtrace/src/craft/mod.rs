//! The bytes of the packets that `kvmtrace probe` sends: from a [`Packet`] of the forwarding model to finished frames. Pure.
//!
//! Each packet bears our mark, as docs/probe.md describes it for others, and differs from run to run in ports and
//! identifiers: a connection that an earlier run left in conntrack must not answer for this one.
#![forbid(unsafe_code)]

mod error;
mod layer4;
mod mark;

pub use error::CraftError;
pub use mark::{MAGIC, Mark, TIME_TO_LIVE, marked};

use crate::event::{FlowKey, MacAddress, decode};
use crate::forward::packet::{Arp, Ip, Network, Packet};
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::NO_VLAN;
use kvmtrace_common::parse::{self, Parsed, ether_type, ip_protocol};
use layer4::{IPV4, IPV6, octets};
use std::net::{IpAddr, Ipv4Addr};

/// Length of a fragment header.
const FRAGMENT: usize = 8;
const HARDWARE_ETHERNET: u16 = 1;

/// The frames of one packet: one, or its fragments where it is longer than `mtu` and may be fragmented, as its sender would
/// fragment it. `number` counts the packets of a run.
pub fn frames(packet: &Packet, mark: Mark, number: u16, mtu: u32) -> Result<Vec<Vec<u8>>, CraftError> {
    let link = link_header(packet)?;
    let framed = |payload: Vec<u8>| [link.as_slice(), &payload].concat();
    let packets = match &packet.network {
        Network::Arp(arp) => vec![arp_request(arp, packet, mark)?],
        Network::Ip(ip) => {
            let payload = layer4::payload(packet, ip, mark, number)?;
            // IPv6 routers never fragment, but the sender does (RFC 8200, 4.5).
            let may_fragment = ip.destination.is_ipv6() || !ip.dont_fragment;
            ip_packets(ip, &payload, mark, number, if may_fragment { mtu as usize } else { usize::MAX })?
        }
        Network::Other(ether_type) => return Err(CraftError::Kind(format!("EtherType {ether_type:04x}"))),
    };
    Ok(packets.into_iter().map(framed).collect())
}

/// The flow that a frame belongs to, as the tracer will name it.
pub fn flow_of(frame: &[u8]) -> FlowKey {
    let mut header = Header { bytes: [0; HEADER_BYTES] };
    for (to, from) in header.bytes.iter_mut().zip(frame) {
        *to = *from;
    }
    let mut parsed = Parsed::EMPTY;
    parse::ethernet(&header, frame.len().min(HEADER_BYTES), NO_VLAN, &mut parsed);
    decode::key(&parsed.key)
}

/// Destination, source, tags, `EtherType`.
fn link_header(packet: &Packet) -> Result<Vec<u8>, CraftError> {
    let destination = packet.destination_mac.ok_or(CraftError::Unknown("a destination MAC address"))?;
    let source = packet.source_mac.ok_or(CraftError::Unknown("a source MAC address"))?;
    let mut header = [destination.0, source.0].concat();
    for tag in &packet.tags {
        header.extend(ether_type::VLAN.to_be_bytes());
        header.extend((tag & 0x0fff).to_be_bytes());
    }
    header.extend(packet.ether_type().to_be_bytes());
    Ok(header)
}

/// A request, with our mark in the padding that fills the frame to Ethernet's minimum.
fn arp_request(arp: &Arp, packet: &Packet, mark: Mark) -> Result<Vec<u8>, CraftError> {
    let (IpAddr::V4(sender), IpAddr::V4(target)) = (arp.sender, arp.target) else {
        return Err(CraftError::Kind("ARP for IPv6".to_owned()));
    };
    let hardware = arp.sender_mac.or(packet.source_mac).ok_or(CraftError::Unknown("a sender's MAC address"))?;
    let mut bytes = Vec::with_capacity(46);
    bytes.extend(HARDWARE_ETHERNET.to_be_bytes());
    bytes.extend(ether_type::IPV4.to_be_bytes());
    bytes.extend([6, 4]);
    bytes.extend(u16::from(arp.operation).to_be_bytes());
    bytes.extend(hardware.0);
    bytes.extend(sender.octets());
    bytes.extend(MacAddress::default().0);
    bytes.extend(target.octets());
    bytes.extend(mark.text(18));
    Ok(bytes)
}

/// The packet, in fragments where it is longer than `mtu`.
fn ip_packets(ip: &Ip, payload: &[u8], mark: Mark, number: u16, mtu: usize) -> Result<Vec<Vec<u8>>, CraftError> {
    let header = if ip.destination.is_ipv4() { IPV4 } else { IPV6 };
    let most = usize::from(u16::MAX);
    let length = header + payload.len();
    // The length field of IPv6 does not count its header, but nothing longer than this is asked for.
    if length > most {
        return Err(CraftError::Length { length, least: header, most });
    }
    let identification = mark.identification(number);
    if length <= mtu {
        return Ok(vec![whole(ip, identification, payload)]);
    }
    let room = mtu.saturating_sub(if ip.destination.is_ipv4() { IPV4 } else { IPV6 + FRAGMENT }) & !7;
    if room == 0 {
        return Err(CraftError::Length { length, least: header, most: mtu });
    }
    let pieces = payload.chunks(room).enumerate();
    let last = payload.len().div_ceil(room).saturating_sub(1);
    Ok(pieces.map(|(index, piece)| fragment(ip, identification, piece, index * room, index < last)).collect())
}

fn whole(ip: &Ip, identification: u16, payload: &[u8]) -> Vec<u8> {
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let flags = if ip.dont_fragment { 0x4000 } else { 0 };
            ipv4(ip, source, destination, identification, flags, payload)
        }
        (source, destination) => ipv6(ip, source, destination, ip.transport.number(), payload),
    }
}

fn fragment(ip: &Ip, identification: u16, piece: &[u8], offset: usize, more: bool) -> Vec<u8> {
    // Fragments but the last are multiples of 8, and offsets count in eights.
    let eights = (offset / 8) as u16;
    match (ip.source, ip.destination) {
        (IpAddr::V4(source), IpAddr::V4(destination)) => {
            let flags = eights | if more { 0x2000 } else { 0 };
            ipv4(ip, source, destination, identification, flags, piece)
        }
        (source, destination) => {
            let mut payload = vec![ip.transport.number(), 0];
            payload.extend((eights << 3 | u16::from(more)).to_be_bytes());
            payload.extend(u32::from(identification).to_be_bytes());
            payload.extend(piece);
            ipv6(ip, source, destination, ip_protocol::FRAGMENT, &payload)
        }
    }
}

/// RFC 791.
fn ipv4(ip: &Ip, source: Ipv4Addr, destination: Ipv4Addr, identification: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x45, ip.traffic_class.unwrap_or(0)];
    bytes.extend(((IPV4 + payload.len()) as u16).to_be_bytes());
    bytes.extend(identification.to_be_bytes());
    bytes.extend(flags.to_be_bytes());
    bytes.extend([ip.time_to_live.unwrap_or(TIME_TO_LIVE), ip.transport.number(), 0, 0]);
    bytes.extend(source.octets());
    bytes.extend(destination.octets());
    let checksum = layer4::checksum(&bytes, 0);
    if let Some(field) = bytes.get_mut(10..12) {
        field.copy_from_slice(&checksum.to_be_bytes());
    }
    bytes.extend(payload);
    bytes
}

/// RFC 8200.
fn ipv6(ip: &Ip, source: IpAddr, destination: IpAddr, next: u8, payload: &[u8]) -> Vec<u8> {
    let class = u32::from(ip.traffic_class.unwrap_or(0));
    let mut bytes: Vec<u8> = (6 << 28 | class << 20).to_be_bytes().to_vec();
    bytes.extend((payload.len() as u16).to_be_bytes());
    bytes.extend([next, ip.time_to_live.unwrap_or(TIME_TO_LIVE)]);
    bytes.extend(octets(source));
    bytes.extend(octets(destination));
    bytes.extend(payload);
    bytes
}

#[cfg(test)]
mod tests;

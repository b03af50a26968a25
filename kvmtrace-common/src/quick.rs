//! The short way through the parser, for what nearly every packet is: TCP or UDP, whole, right after an IPv4 header
//! without options or an IPv6 header without extensions, right after an untagged Ethernet header.
//!
//! All offsets are constants, so each field is one load where it lies and nothing is copied. Whatever is not of this kind
//! takes [`crate::parse`], which alone says what a packet means: what is read here must be what it would read.

use crate::flow::{Family, KeyWords, transport_word};
use crate::parse::{ETHERNET_HEADER, Facts, ether_type, ip_protocol};

/// A packet from its Ethernet header on. Numbers are as they lie there, in network byte order. What is asked for lies
/// within what [`Bytes::has`] has confirmed.
pub trait Bytes {
    /// So many bytes can be read.
    fn has(&self, count: usize) -> bool;
    /// The byte at this offset.
    fn byte(&self, at: usize) -> u8;
    /// Two bytes from this offset on.
    fn two(&self, at: usize) -> u16;
    /// Four bytes from this offset on.
    fn four(&self, at: usize) -> u32;
    /// Eight bytes from this offset on.
    fn eight(&self, at: usize) -> u64;
}

/// What the headers of a usual packet say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quick {
    /// [`crate::flow::FlowKey::words`] without the place.
    pub words: KeyWords,
    /// All else; [`Facts::fragment_id`] is 0, for it is no fragment.
    pub facts: Facts,
}

const IPV4: usize = 20;
const IPV6: usize = 40;
/// Up to and with the flags of a TCP header.
const TRANSPORT: usize = 14;

/// What [`crate::parse::ethernet`] would make of this packet; nothing when it is not of the usual kind. `vlan` as there.
#[inline(always)]
pub fn parse(packet: &impl Bytes, vlan: u16) -> Option<Quick> {
    if !packet.has(ETHERNET_HEADER + IPV4 + TRANSPORT) {
        return None;
    }
    let at = ETHERNET_HEADER;
    let mut facts = Facts { network_offset: at as u32, ..Facts::EMPTY };
    match u16::from_be(packet.two(12)) {
        ether_type::IPV4 => {
            let fragment = u16::from_be(packet.two(at + 6));
            // Version 4, five words of header; neither more fragments nor an offset.
            if packet.byte(at) != 0x45 || fragment & 0x3fff != 0 {
                return None;
            }
            let [source, destination] = [packet.four(at + 12), packet.four(at + 16)].map(u64::from);
            facts.network_length = u32::from(u16::from_be(packet.two(at + 2)));
            facts.dont_fragment = u8::from(fragment & 0x4000 != 0);
            facts.time_to_live = packet.byte(at + 8);
            let word = transport(packet, IPV4, packet.byte(at + 9), Family::IPV4, vlan, &mut facts)?;
            Some(Quick { words: [source, 0, destination, 0, word, 0], facts })
        }
        ether_type::IPV6 => {
            if packet.byte(at) >> 4 != 6 || !packet.has(ETHERNET_HEADER + IPV6 + TRANSPORT) {
                return None;
            }
            let [a, b, c, d] = [8, 16, 24, 32].map(|offset| packet.eight(at + offset));
            let payload = u32::from(u16::from_be(packet.two(at + 4)));
            facts.network_length = if payload == 0 { 0 } else { payload + IPV6 as u32 };
            facts.dont_fragment = 1;
            facts.time_to_live = packet.byte(at + 7);
            let word = transport(packet, IPV6, packet.byte(at + 6), Family::IPV6, vlan, &mut facts)?;
            Some(Quick { words: [a, b, c, d, word, 0], facts })
        }
        _ => None,
    }
}

/// The transport header after a network header of this length.
#[inline(always)]
fn transport(
    packet: &impl Bytes,
    network: usize,
    protocol: u8,
    family: u8,
    vlan: u16,
    facts: &mut Facts,
) -> Option<u64> {
    let at = ETHERNET_HEADER + network;
    let length = match protocol {
        ip_protocol::UDP => 8,
        ip_protocol::TCP => {
            facts.tcp_flags = packet.byte(at + 13);
            facts.tcp_sequence = u32::from_be(packet.four(at + 4));
            u32::from(packet.byte(at + 12) >> 4) * 4
        }
        _ => return None,
    };
    facts.header_length = network as u32 + length;
    let (source, destination) = (u16::from_be(packet.two(at)), u16::from_be(packet.two(at + 2)));
    Some(transport_word(source, destination, vlan, family, protocol))
}

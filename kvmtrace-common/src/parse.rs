//! One parser for a packet's headers: Ethernet, 802.1Q and 802.1ad, ARP, IPv4 with options, IPv6 with extension
//! headers, TCP, UDP, SCTP, ICMP, `ICMPv6`, fragments.
//!
//! It runs in the kernel on every packet and in tests on the host. It takes a buffer of fixed size, so that the
//! verifier can bound every read, and of which only the first `available` bytes are the packet's: what lies behind
//! them is never looked at. It never fails: what is cut short or malformed gives a key of the layers that were whole,
//! and [`Facts::malformed`].

#![allow(clippy::many_single_char_names, reason = "bytes of an address have no names")]

use crate::event::{HEADER_BYTES, Header};
use crate::flow::{Direction, Family, FlowKey, NO_VLAN};

/// `EtherType`s that matter here (IEEE 802).
pub mod ether_type {
    #![allow(missing_docs, reason = "the names are IEEE's")]
    /// `ETH_P_ALL`, which packet sockets leave behind: no protocol at all.
    pub const ALL: u16 = 0x0003;
    pub const IPV4: u16 = 0x0800;
    pub const ARP: u16 = 0x0806;
    pub const VLAN: u16 = 0x8100;
    pub const IPV6: u16 = 0x86dd;
    pub const SERVICE_VLAN: u16 = 0x88a8;
}

/// Hardware types of devices (`net_device.type`, `ARPHRD_*` in `if_arp.h`).
pub mod hardware {
    #![allow(missing_docs, reason = "the names are the kernel's")]
    pub const ETHER: u16 = 1;
    pub const LOOPBACK: u16 = 772;
}

/// Frames of a device of this hardware type begin with an Ethernet header. Tun, `WireGuard`, PPP, IPIP, SIT, GRE, VTI and
/// XFRM devices have types of their own: their packets begin at layer 3.
#[inline(always)]
pub const fn has_ethernet_header(hardware_type: u16) -> bool {
    matches!(hardware_type, hardware::ETHER | hardware::LOOPBACK)
}

/// IP protocol numbers that matter here (IANA).
pub mod ip_protocol {
    #![allow(missing_docs, reason = "the names are IANA's")]
    pub const HOP_BY_HOP: u8 = 0;
    pub const ICMP: u8 = 1;
    pub const TCP: u8 = 6;
    pub const UDP: u8 = 17;
    pub const ROUTING: u8 = 43;
    pub const FRAGMENT: u8 = 44;
    pub const AUTHENTICATION: u8 = 51;
    pub const ICMPV6: u8 = 58;
    pub const DESTINATION_OPTIONS: u8 = 60;
    pub const SCTP: u8 = 132;
}

/// TCP flags (RFC 9293).
pub mod tcp_flag {
    #![allow(missing_docs, reason = "the names are the RFC's")]
    pub const FIN: u8 = 1;
    pub const SYN: u8 = 2;
    pub const RST: u8 = 4;
    pub const ACK: u8 = 16;
}

/// Length of an Ethernet header without tags.
pub const ETHERNET_HEADER: usize = 14;
/// IPv6 extension headers looked through at most (RFC 8200 names four that may stand before the payload).
const EXTENSION_HEADERS: usize = 6;

/// What a packet's headers say. The flags are 0 or 1: it lies in a map while a program works on it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    /// The flow; `ifindex` and `cpu` are 0 and `direction` is [`Direction::DROP`].
    pub key: FlowKey,
    /// All else.
    pub facts: Facts,
}

/// What a packet's headers say beside the flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Where the layer-3 header begins.
    pub network_offset: u32,
    /// Length of the layer-3 and layer-4 headers, as far as they were whole.
    pub header_length: u32,
    /// Length at layer 3 as the IP header tells it; 0 when it tells none (no IP, GSO frames of more than 64 KiB).
    pub network_length: u32,
    /// Identification of its datagram, for fragments.
    pub fragment_id: u32,
    /// TCP sequence number of its first byte.
    pub tcp_sequence: u32,
    /// TCP flags.
    pub tcp_flags: u8,
    /// TTL or hop limit.
    pub time_to_live: u8,
    /// It must not be fragmented (DF, or IPv6).
    pub dont_fragment: u8,
    /// It is a fragment.
    pub fragment: u8,
    /// It is a fragment, and not the first: it has no layer-4 header.
    pub later_fragment: u8,
    /// It is an ICMP or `ICMPv6` error.
    pub icmp_error: u8,
    /// Cut short or malformed.
    pub malformed: u8,
    /// Zero.
    pub _pad: u8,
}

/// Reads `N` bytes at `offset`, if they are the packet's.
#[inline(always)]
fn bytes<const N: usize>(header: &Header, available: usize, offset: usize) -> Option<[u8; N]> {
    // The second comparison is what the verifier goes by; see `unknown`.
    if offset + N > available || offset > HEADER_BYTES - N {
        return None;
    }
    header.bytes.get(offset..)?.first_chunk::<N>().copied()
}

/// Hides from the compiler how many bytes there can be at most: it would see that the second comparison of [`bytes`] can
/// never fail and leave it out, and the verifiers before 6.10 learn nothing of `offset` from a comparison of
/// `offset + N`.
#[inline(always)]
fn unknown(available: usize) -> usize {
    core::hint::black_box(available)
}

#[inline(always)]
fn be16(header: &Header, available: usize, offset: usize) -> Option<u16> {
    bytes::<2>(header, available, offset).map(u16::from_be_bytes)
}

/// Copies `N` bytes at `offset` to the beginning of an address, if they are the packet's.
#[inline(always)]
fn copy_address<const N: usize>(
    address: &mut [u8; 16],
    header: &Header,
    available: usize,
    offset: usize,
) -> Option<()> {
    *address.first_chunk_mut::<N>()? = bytes::<N>(header, available, offset)?;
    Some(())
}

/// Parses a frame that begins with an Ethernet header. `vlan` is the tag that the kernel keeps beside the data, or
/// [`NO_VLAN`]. The result is written in place, for the BPF stack is small.
#[inline(always)]
pub fn ethernet(header: &Header, available: usize, vlan: u16, parsed: &mut Parsed) {
    parsed.clear(vlan);
    let available = unknown(available);
    let Some(ether_type) = be16(header, available, 12) else {
        parsed.facts.malformed = 1;
        return;
    };
    network_layer(header, available, ETHERNET_HEADER, ether_type, parsed);
    link_addresses(header, available, parsed);
}

/// The MAC addresses of a frame that begins with an Ethernet header are its ends, where nothing above has any.
#[inline(always)]
fn link_addresses(header: &Header, available: usize, parsed: &mut Parsed) {
    if parsed.key.family == Family::ETHERNET
        && copy_address::<6>(&mut parsed.key.destination, header, available, 0).is_none()
            | copy_address::<6>(&mut parsed.key.source, header, available, 6).is_none()
    {
        parsed.facts.malformed = 1;
    }
}

/// Parses a packet whose layer-3 header begins at `offset` and is of this `EtherType`.
#[inline(always)]
pub fn network(header: &Header, available: usize, offset: usize, ether_type: u16, vlan: u16, parsed: &mut Parsed) {
    parsed.clear(vlan);
    let available = unknown(available);
    network_layer(header, available, offset, ether_type, parsed);
}

/// After [`network`]: `header` begins with the packet's Ethernet header, whose addresses are the ends of what has none above.
#[inline(always)]
pub fn behind_ethernet(header: &Header, available: usize, parsed: &mut Parsed) {
    link_addresses(header, unknown(available), parsed);
}

/// Parses a packet of a device without a link-layer header. `protocol` is what the socket buffer says (`skb->protocol`);
/// where that names none (a raw packet socket's packet), the version in the IP header does.
#[inline(always)]
pub fn raw(header: &Header, available: usize, protocol: u16, vlan: u16, parsed: &mut Parsed) {
    let [first, ..] = header.bytes;
    let ether_type = match (protocol, first >> 4) {
        (0 | ether_type::ALL, 4) => ether_type::IPV4,
        (0 | ether_type::ALL, 6) => ether_type::IPV6,
        _ => protocol,
    };
    network(header, available, 0, ether_type, vlan, parsed);
    if parsed.key.family == Family::ETHERNET {
        // No MAC addresses, and of an IP header that is cut short no address for one.
        parsed.key.source = [0; 16];
        parsed.key.destination = [0; 16];
    }
}

/// The length of the whole packet as the IP header at the beginning of `header` gives it; 0 when it gives none.
#[inline(always)]
pub fn length_at_layer_3(header: &Header) -> u32 {
    let [first, _, length_high, length_low, payload_high, payload_low, ..] = header.bytes;
    match first >> 4 {
        4 => u32::from(u16::from_be_bytes([length_high, length_low])),
        6 => u32::from(u16::from_be_bytes([payload_high, payload_low])) + 40,
        _ => 0,
    }
}

impl Parsed {
    /// Nothing known but the VLAN.
    #[inline(always)]
    fn clear(&mut self, vlan: u16) {
        *self = Self::EMPTY;
        self.key.vlan = vlan;
    }

    /// Nothing known.
    pub const EMPTY: Self = Self {
        key: FlowKey {
            source: [0; 16],
            destination: [0; 16],
            source_port: 0,
            destination_port: 0,
            vlan: NO_VLAN,
            family: Family::ETHERNET,
            protocol: 0,
            ifindex: 0,
            direction: Direction::DROP,
            _pad: 0,
            cpu: 0,
        },
        facts: Facts::EMPTY,
    };
}

impl Facts {
    /// Nothing known.
    pub const EMPTY: Self = Self {
        network_offset: 0,
        header_length: 0,
        network_length: 0,
        fragment_id: 0,
        tcp_sequence: 0,
        tcp_flags: 0,
        time_to_live: 0,
        dont_fragment: 0,
        fragment: 0,
        later_fragment: 0,
        icmp_error: 0,
        malformed: 0,
        _pad: 0,
    };
}

#[inline(always)]
fn network_layer(header: &Header, available: usize, mut offset: usize, mut ether_type: u16, parsed: &mut Parsed) {
    // Two tags: 802.1ad outside, 802.1Q inside.
    for _ in 0..2 {
        if ether_type != ether_type::VLAN && ether_type != ether_type::SERVICE_VLAN {
            break;
        }
        let (Some(tag), Some(inner)) = (be16(header, available, offset), be16(header, available, offset + 2)) else {
            parsed.facts.malformed = 1;
            return;
        };
        if parsed.key.vlan == NO_VLAN {
            parsed.key.vlan = tag & 0x0fff;
        }
        ether_type = inner;
        offset += 4;
    }
    parsed.facts.network_offset = offset as u32;
    let whole = match ether_type {
        ether_type::IPV4 => ipv4(header, available, offset, parsed),
        ether_type::IPV6 => ipv6(header, available, offset, parsed),
        ether_type::ARP => arp(header, available, offset, parsed),
        _ => {
            parsed.key.source_port = ether_type;
            Some(())
        }
    };
    parsed.facts.malformed = u8::from(whole.is_none());
}

#[inline(always)]
fn arp(header: &Header, available: usize, offset: usize, parsed: &mut Parsed) -> Option<()> {
    parsed.key.source_port = ether_type::ARP;
    // RFC 826: hardware Ethernet (1), protocol IPv4 (0x0800), lengths 6 and 4.
    let [0, 1, 8, 0, 6, 4, 0, operation] = bytes::<8>(header, available, offset)? else { return None };
    copy_address::<4>(&mut parsed.key.source, header, available, offset + 14)?;
    copy_address::<4>(&mut parsed.key.destination, header, available, offset + 24)?;
    parsed.key.source_port = 0;
    parsed.key.family = Family::ARP;
    parsed.key.protocol = operation;
    parsed.facts.header_length = 28;
    parsed.facts.network_length = 28;
    Some(())
}

#[inline(always)]
fn ipv4(header: &Header, available: usize, offset: usize, parsed: &mut Parsed) -> Option<()> {
    let [version, _, length_high, length_low, id_high, id_low, fragment_high, fragment_low, time_to_live, protocol] =
        bytes::<10>(header, available, offset)?;
    let header_length = usize::from(version & 0x0f) * 4;
    if version >> 4 != 4 || header_length < 20 {
        parsed.key.source_port = ether_type::IPV4;
        return None;
    }
    copy_address::<4>(&mut parsed.key.source, header, available, offset + 12)?;
    copy_address::<4>(&mut parsed.key.destination, header, available, offset + 16)?;
    parsed.key.family = Family::IPV4;
    parsed.key.protocol = protocol;
    parsed.facts.header_length = header_length as u32;
    parsed.facts.network_length = u32::from(u16::from_be_bytes([length_high, length_low]));
    parsed.facts.time_to_live = time_to_live;
    let fragment = u16::from_be_bytes([fragment_high, fragment_low]);
    parsed.facts.dont_fragment = u8::from(fragment & 0x4000 != 0);
    parsed.facts.later_fragment = u8::from(fragment & 0x1fff != 0);
    parsed.facts.fragment = u8::from(fragment & 0x3fff != 0);
    parsed.facts.fragment_id = u32::from(u16::from_be_bytes([id_high, id_low]));
    if parsed.facts.later_fragment == 1 {
        return Some(());
    }
    transport(header, available, offset + header_length, parsed)
}

#[inline(always)]
fn ipv6(header: &Header, available: usize, offset: usize, parsed: &mut Parsed) -> Option<()> {
    let [version, _, _, _, length_high, length_low, mut next, hop_limit] = bytes::<8>(header, available, offset)?;
    if version >> 4 != 6 {
        parsed.key.source_port = ether_type::IPV6;
        return None;
    }
    copy_address::<16>(&mut parsed.key.source, header, available, offset + 8)?;
    copy_address::<16>(&mut parsed.key.destination, header, available, offset + 24)?;
    parsed.key.family = Family::IPV6;
    parsed.key.protocol = next;
    let payload = u32::from(u16::from_be_bytes([length_high, length_low]));
    parsed.facts.network_length = if payload == 0 { 0 } else { payload + 40 };
    parsed.facts.time_to_live = hop_limit;
    parsed.facts.dont_fragment = 1;
    let mut at = offset + 40;
    parsed.facts.header_length = 40;
    for _ in 0..EXTENSION_HEADERS {
        let extension = match next {
            ip_protocol::HOP_BY_HOP
            | ip_protocol::ROUTING
            | ip_protocol::DESTINATION_OPTIONS
            | ip_protocol::AUTHENTICATION
            | ip_protocol::FRAGMENT => bytes::<8>(header, available, at)?,
            _ => break,
        };
        let [following, length, high, low, id @ ..] = extension;
        let size = match next {
            ip_protocol::FRAGMENT => {
                let fragment = u16::from_be_bytes([high, low]);
                parsed.facts.later_fragment = u8::from(fragment & 0xfff8 != 0);
                parsed.facts.fragment = u8::from(fragment & 0xfff9 != 0);
                parsed.facts.fragment_id = u32::from_be_bytes(id);
                8
            }
            ip_protocol::AUTHENTICATION => (usize::from(length) + 2) * 4,
            _ => (usize::from(length) + 1) * 8,
        };
        next = following;
        parsed.key.protocol = next;
        at += size;
        parsed.facts.header_length = (at - offset) as u32;
        if parsed.facts.later_fragment == 1 {
            return Some(());
        }
    }
    transport(header, available, at, parsed)
}

#[inline(always)]
fn transport(header: &Header, available: usize, at: usize, parsed: &mut Parsed) -> Option<()> {
    match parsed.key.protocol {
        ip_protocol::TCP => {
            ports(header, available, at, parsed)?;
            let [data_offset, flags] = bytes::<2>(header, available, at + 12)?;
            parsed.facts.tcp_sequence = u32::from_be_bytes(bytes::<4>(header, available, at + 4)?);
            parsed.facts.tcp_flags = flags;
            parsed.facts.header_length += u32::from(data_offset >> 4) * 4;
        }
        ip_protocol::UDP => {
            ports(header, available, at, parsed)?;
            parsed.facts.header_length += 8;
        }
        ip_protocol::SCTP => ports(header, available, at, parsed)?,
        ip_protocol::ICMP => icmp(header, available, at, parsed)?,
        ip_protocol::ICMPV6 => icmpv6(header, available, at, parsed)?,
        _ => {}
    }
    Some(())
}

#[inline(always)]
fn ports(header: &Header, available: usize, at: usize, parsed: &mut Parsed) -> Option<()> {
    let [a, b, c, d] = bytes::<4>(header, available, at)?;
    parsed.key.source_port = u16::from_be_bytes([a, b]);
    parsed.key.destination_port = u16::from_be_bytes([c, d]);
    Some(())
}

#[inline(always)]
fn icmp(header: &Header, available: usize, at: usize, parsed: &mut Parsed) -> Option<()> {
    let [kind, code] = bytes::<2>(header, available, at)?;
    parsed.key.destination_port = u16::from_be_bytes([kind, code]);
    parsed.facts.header_length += 8;
    match kind {
        // Echo and its reply, timestamp and its reply: the identifier (RFC 792).
        0 | 8 | 13 | 14 => parsed.key.source_port = be16(header, available, at + 4)?,
        3 | 4 | 5 | 11 | 12 => {
            parsed.facts.icmp_error = 1;
            // What it is about: the inner addresses and ports (which follow a header without options).
            let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes::<12>(header, available, at + 8 + 12)?;
            let mut hash = mix(0, u32::from_be_bytes([a, b, c, d]));
            hash = mix(hash, u32::from_be_bytes([e, f, g, h]));
            parsed.key.source_port = fold(mix(hash, u32::from_be_bytes([i, j, k, l])));
        }
        _ => {}
    }
    Some(())
}

#[inline(always)]
fn icmpv6(header: &Header, available: usize, at: usize, parsed: &mut Parsed) -> Option<()> {
    let [kind, code] = bytes::<2>(header, available, at)?;
    parsed.key.destination_port = u16::from_be_bytes([kind, code]);
    parsed.facts.header_length += 8;
    if kind < 128 {
        parsed.facts.icmp_error = 1;
        // The low half of the inner destination and the inner ports.
        let [a, b, c, d, e, f, g, h, i, j, k, l] = bytes::<12>(header, available, at + 8 + 32)?;
        let mut hash = mix(0, u32::from_be_bytes([a, b, c, d]));
        hash = mix(hash, u32::from_be_bytes([e, f, g, h]));
        parsed.key.source_port = fold(mix(hash, u32::from_be_bytes([i, j, k, l])));
    } else if kind == 128 || kind == 129 {
        parsed.key.source_port = be16(header, available, at + 4)?;
    }
    Some(())
}

/// A cheap mixing step (the multiplier is Knuth's 2^32 / φ); it only has to keep different flows mostly apart.
#[inline(always)]
fn mix(hash: u32, value: u32) -> u32 {
    (hash.rotate_left(5) ^ value).wrapping_mul(0x9e37_79b1)
}

#[inline(always)]
fn fold(hash: u32) -> u16 {
    (hash ^ (hash >> 16)) as u16
}

//! What ICMP and neighbour discovery say inside: the packet that an error quotes, the address that is asked for.
//! All of it comes from untrusted packets; whatever does not parse is nothing.

use crate::event::{FlowKey, PacketCause, PacketRecord, Place, Protocol, Timestamp, decode};
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::NO_VLAN;
use kvmtrace_common::parse::{self, Parsed, ether_type};
use std::net::{IpAddr, Ipv6Addr};

/// What an ICMP error is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quoted {
    /// The flow that it quotes.
    pub flow: FlowKey,
    /// Who says it.
    pub from: IpAddr,
    /// Type.
    pub kind: u8,
    /// Code.
    pub code: u8,
}

/// An ICMP error and what became of it.
#[derive(Clone, Debug)]
pub struct IcmpError {
    /// What it is about.
    pub about: Quoted,
    /// Its own flow.
    pub flow: FlowKey,
    /// The MTU that "too big" tells.
    pub mtu: Option<u32>,
    /// When it was first seen.
    pub first: Timestamp,
    /// Places where it was seen.
    pub places: Vec<Place>,
    /// It was dropped on this host.
    pub dropped: bool,
}

impl IcmpError {
    /// Reads a record, if it is of an ICMP error.
    pub fn read(record: &PacketRecord, now: Timestamp) -> Option<Self> {
        let (kind, code) = record.flow.protocol.icmp_kind()?;
        if !record.flow.protocol.is_icmp_error() {
            return None;
        }
        let (header, available, outer) = parsed(record)?;
        let icmp = (outer.facts.network_offset + outer.facts.header_length).checked_sub(8)? as usize;
        let mtu_bytes: [u8; 4] = header.bytes.get(icmp + 4..icmp + 8)?.try_into().ok()?;
        let mtu = u32::from_be_bytes(mtu_bytes);
        let (inner_type, mtu) = if matches!(record.flow.protocol, Protocol::Icmp { .. }) {
            (ether_type::IPV4, mtu & 0xffff)
        } else {
            (ether_type::IPV6, mtu)
        };
        let mut inner = Parsed::EMPTY;
        parse::network(&header, available, icmp + 8, inner_type, NO_VLAN, &mut inner);
        if inner.key.family != outer.key.family {
            return None;
        }
        let about = Quoted { flow: decode::key(&inner.key), from: record.flow.source.ip()?, kind, code };
        Some(Self {
            about,
            flow: record.flow,
            mtu: (mtu != 0 && about.is_too_big()).then_some(mtu),
            first: now,
            places: record.place.into_iter().collect(),
            dropped: matches!(record.cause, PacketCause::Dropped { .. }),
        })
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.dropped |= other.dropped;
        self.mtu = self.mtu.or(other.mtu);
        self.first = self.first.min(other.first);
        for place in &other.places {
            if !self.places.contains(place) && self.places.len() < 16 {
                self.places.push(*place);
            }
        }
    }
}

impl Quoted {
    /// "Fragmentation needed" or "packet too big".
    pub fn is_too_big(&self) -> bool {
        self.flow_is_v4() && (self.kind, self.code) == (3, 4) || !self.flow_is_v4() && self.kind == 2
    }

    /// "Time exceeded in transit".
    pub fn is_time_exceeded(&self) -> bool {
        (self.kind, self.code) == if self.flow_is_v4() { (11, 0) } else { (3, 0) }
    }

    /// "Fragment reassembly time exceeded".
    pub fn is_reassembly_timeout(&self) -> bool {
        (self.kind, self.code) == if self.flow_is_v4() { (11, 1) } else { (3, 1) }
    }

    /// "Port unreachable".
    pub fn is_port_unreachable(&self) -> bool {
        (self.kind, self.code) == if self.flow_is_v4() { (3, 3) } else { (1, 4) }
    }

    /// Destination unreachable, whatever the code.
    pub fn is_unreachable(&self) -> bool {
        !self.is_too_big() && self.kind == if self.flow_is_v4() { 3 } else { 1 }
    }

    /// The answer of a firewall: prohibited, or the "port unreachable" of a plain `reject`.
    pub fn is_prohibited(&self) -> bool {
        matches!((self.flow_is_v4(), self.kind, self.code), (true, 3, 9 | 10 | 13) | (false, 1, 1 | 5 | 6))
    }

    fn flow_is_v4(&self) -> bool {
        self.from.is_ipv4()
    }
}

/// The address that a neighbour solicitation or advertisement is about.
pub fn solicited(record: &PacketRecord) -> Option<IpAddr> {
    if !matches!(record.flow.protocol, Protocol::Icmpv6 { kind: 135 | 136, .. }) {
        return None;
    }
    let (header, available, outer) = parsed(record)?;
    let at = (outer.facts.network_offset + outer.facts.header_length) as usize;
    let target: [u8; 16] = header.bytes.get(at..at + 16)?.try_into().ok()?;
    (at + 16 <= available).then_some(IpAddr::V6(Ipv6Addr::from(target)))
}

/// The record's bytes, how many there are, and what they say.
pub(super) fn parsed(record: &PacketRecord) -> Option<(Header, usize, Parsed)> {
    let available = record.header.len().min(HEADER_BYTES);
    let mut header = Header { bytes: [0; HEADER_BYTES] };
    header.bytes.get_mut(..available)?.copy_from_slice(record.header.get(..available)?);
    let mut outer = Parsed::EMPTY;
    if record.ethernet {
        parse::ethernet(&header, available, NO_VLAN, &mut outer);
    } else {
        parse::network(&header, available, 0, record.ether_type, NO_VLAN, &mut outer);
    }
    Some((header, available, outer))
}

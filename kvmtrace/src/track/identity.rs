//! Which packet is it? By what translation leaves of a packet as it is, the same one is known again under another key.
//!
//! Neither the addresses nor the ports of a packet whose both ends were translated are those that it came with, and the
//! host's own table of connections may have forgotten it by the time it is read. What the kernel's NAT does not touch
//! (`nf_nat_manip_pkt`, `l4proto_manip_pkt`, Linux 6.12: addresses, ports, the ICMP id, checksums) is the identification of
//! an IPv4 packet, TCP's sequence numbers and flags, and the payload. The first packet of a flow is told with its bytes at
//! each hook, a dropped one with a stack: two keys are one flow if the same packet came in with one and, after that, was
//! forwarded or dropped with the other, and no third key has that packet, but for a form between the two translations. A packet of the host's own has no device that it
//! came in by (`skb_iif`): what a proxy sends on is never joined.

use super::quote::parsed;
use crate::event::{Direction, FlowKey, PacketCause, PacketRecord, Protocol, Timestamp};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

/// First packets that are remembered, on either side.
const SIGHTINGS: usize = 16_384;
/// A packet is not under way on a host for longer than this: it may wait for a neighbour's address.
const HELD_NS: u64 = 4_000_000_000;
/// Bytes of payload that a packet without a number of its own is known by, at least and at most.
const PAYLOAD: (usize, usize) = (8, 64);

/// The packet that a flow was first seen with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    packet: u64,
    time: Timestamp,
}

/// First packets by the keys that they had.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// As they came in.
    entered: BTreeMap<FlowKey, Sighting>,
    /// As they were forwarded, or dropped.
    forwarded: BTreeMap<FlowKey, Sighting>,
}

impl Sightings {
    /// Remembers a packet if it is its flow's first on this side.
    pub(super) fn apply(&mut self, record: &PacketRecord, now: Timestamp) {
        let side = match (&record.cause, record.place) {
            (PacketCause::First | PacketCause::Wanted, Some(place)) if place.direction == Direction::Ingress => {
                &mut self.entered
            }
            (PacketCause::First | PacketCause::Wanted, Some(_)) | (PacketCause::Dropped { .. }, _)
                if record.input_device.is_some() =>
            {
                &mut self.forwarded
            }
            _ => return,
        };
        let key = untagged(record.flow);
        if side.contains_key(&key) {
            return;
        }
        let Some(packet) = identity(record) else { return };
        if side.len() >= SIGHTINGS {
            forget_half(side);
        }
        side.insert(key, Sighting { packet, time: now });
    }

    /// Forgets what was seen before a time.
    pub(super) fn forget(&mut self, before: Timestamp) {
        self.entered.retain(|_, sighting| sighting.time >= before);
        self.forwarded.retain(|_, sighting| sighting.time >= before);
    }

    /// The keys before and after a translation, without VLAN.
    pub(super) fn translations(&self) -> Vec<(FlowKey, FlowKey)> {
        let mut packets: BTreeMap<u64, (Vec<FlowKey>, Vec<FlowKey>)> = BTreeMap::new();
        // Where nothing is translated, what leaves has the key that it came with.
        for (key, sighting) in self.forwarded.iter().filter(|(key, _)| !self.entered.contains_key(*key)) {
            packets.entry(sighting.packet).or_default().1.push(*key);
        }
        if packets.is_empty() {
            return Vec::new();
        }
        for (key, sighting) in &self.entered {
            if let Some((entered, _)) = packets.get_mut(&sighting.packet) {
                entered.push(*key);
            }
        }
        let pairs = packets.into_values().filter_map(|(entered, forwarded)| match &*entered {
            [before] => Some((*before, last_form(before, &forwarded)?)),
            // Two that look alike: which is which is not known.
            _ => None,
        });
        let in_time = |before: &FlowKey, after: &FlowKey| {
            let (Some(came), Some(went)) = (self.entered.get(before), self.forwarded.get(after)) else { return false };
            came.time <= went.time && went.time.since(came.time).0 <= HELD_NS
        };
        pairs
            .filter(|(before, after)| {
                unnumbered(before.protocol) == unnumbered(after.protocol) && in_time(before, after)
            })
            .collect()
    }
}

/// The key that a packet went on with. It may also have been seen on its way, after the translation of its destination and before
/// that of its source (br_netfilter: the bridge device sends what then leaves by a port).
fn last_form(before: &FlowKey, forwarded: &[FlowKey]) -> Option<FlowKey> {
    let source = |key: &FlowKey| (key.source, key.source_port);
    let end = |key: &FlowKey| (key.destination, key.destination_port);
    let (on_its_way, last): (Vec<FlowKey>, Vec<FlowKey>) =
        forwarded.iter().copied().partition(|key| source(key) == source(before));
    match (&*on_its_way, &*last) {
        ([only], []) => Some(*only),
        (between, [last]) => between.iter().all(|key| end(key) == end(last)).then_some(*last),
        // Two that look alike: which is which is not known.
        _ => None,
    }
}

/// Makes room: the older half goes.
fn forget_half(side: &mut BTreeMap<FlowKey, Sighting>) {
    let mut times: Vec<Timestamp> = side.values().map(|sighting| sighting.time).collect();
    let middle = times.len() / 2;
    let (_, cut, _) = times.select_nth_unstable(middle);
    let cut = *cut;
    side.retain(|_, sighting| sighting.time > cut);
}

fn untagged(key: FlowKey) -> FlowKey {
    FlowKey { vlan: None, ..key }
}

/// What a packet is known again by: what translation leaves as it is; where that is too little, its flow and length.
pub fn packet_identity(record: &PacketRecord) -> u64 {
    identity(record).unwrap_or_else(|| {
        let mut hasher = DefaultHasher::new();
        let layer_3 = if record.ethernet { record.length.saturating_sub(14) } else { record.length };
        (untagged(record.flow), layer_3).hash(&mut hasher);
        hasher.finish()
    })
}

/// Without the id of an echo, in place of which translation may put another.
fn unnumbered(protocol: Protocol) -> Protocol {
    match protocol {
        Protocol::Icmp { kind, code, .. } => Protocol::Icmp { kind, code, id: 0 },
        Protocol::Icmpv6 { kind, code, .. } => Protocol::Icmpv6 { kind, code, id: 0 },
        Protocol::Tcp
        | Protocol::Udp
        | Protocol::Sctp
        | Protocol::Arp { .. }
        | Protocol::Ip(_)
        | Protocol::Ethernet(_) => protocol,
    }
}

/// What translation leaves as it is, if that is enough to tell the packet from others.
fn identity(record: &PacketRecord) -> Option<u64> {
    let (header, available, outer) = parsed(record)?;
    if outer.facts.fragment == 1 || outer.facts.malformed == 1 {
        return None;
    }
    let bytes = header.bytes.get(..available)?;
    let network = bytes.get(outer.facts.network_offset as usize..)?;
    let (number, transport) = match network.first()? >> 4 {
        4 => (u16::from_be_bytes(network.get(4..6)?.try_into().ok()?), usize::from(network.first()? & 0x0f) * 4),
        // Without extension headers.
        6 if matches!(network.get(6)?, 6 | 17 | 58) => (0, 40),
        _ => return None,
    };
    let end = match outer.facts.network_length as usize {
        0 => network.len(),
        length => length.min(network.len()),
    };
    let segment = network.get(transport..end)?;
    let mut hasher = DefaultHasher::new();
    (unnumbered(record.flow.protocol), number).hash(&mut hasher);
    match record.flow.protocol {
        Protocol::Tcp => {
            let numbers = segment.get(4..12)?;
            if numbers.iter().all(|byte| *byte == 0) {
                return None;
            }
            (numbers, segment.get(13)?).hash(&mut hasher);
        }
        Protocol::Udp | Protocol::Icmp { .. } | Protocol::Icmpv6 { .. } => {
            let payload = segment.get(8..)?;
            if payload.len() < PAYLOAD.0 {
                return None;
            }
            // The sequence number of an echo.
            let sequence = if record.flow.protocol == Protocol::Udp { None } else { segment.get(6..8) };
            // A sender that numbers its packets makes no two alike; else the port must have been kept as well.
            let port = (number == 0).then_some(record.flow.source_port);
            (sequence, port, outer.facts.network_length, payload.get(..payload.len().min(PAYLOAD.1))).hash(&mut hasher);
        }
        Protocol::Sctp | Protocol::Arp { .. } | Protocol::Ip(_) | Protocol::Ethernet(_) => return None,
    }
    Some(hasher.finish())
}

#[cfg(test)]
mod tests;

//! From the bytes of the maps and the ring to [`Event`]s. Total: any bytes give an event or nothing, never a panic.

use super::units::{IfIndex, MacAddress, Timestamp};
use super::{
    Address, Direction, DropSample, DropSite, Event, EventKind, FlowCounters, FlowKey, FlowSample, PacketCause,
    PacketRecord, Place, Protocol, Unlisted, UnlistedPlace,
};
use kvmtrace_common::event::{DropPlace, DropRecord, Layer, OverflowCounters, Record, RecordFacts, RecordKind};
use kvmtrace_common::flow::{self as wire, Family, FlowFlags, NO_VLAN};
use kvmtrace_common::parse::ip_protocol;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use zerocopy::FromBytes as _;

/// A function on the way to a drop whose name is not known.
const UNKNOWN: &str = "?";

/// What the decoder asks of the kernel's facts.
pub trait Resolver {
    /// Name of a drop reason; none where the kernel tells none.
    fn reason(&self, number: u32) -> Option<String>;
    /// The function that an address lies in, and how far in.
    fn symbol(&self, address: u64) -> Option<(&str, u32)>;
    /// A kernel time as time of day.
    fn time(&self, monotonic_ns: u64) -> Timestamp;
}

/// A record of the ring buffer.
pub fn record(bytes: &[u8], resolver: &impl Resolver) -> Option<Event> {
    let (record, _) = Record::read_from_prefix(bytes).ok()?;
    let facts = &record.facts;
    let cause = match facts.kind {
        RecordKind::DROP => {
            let (whole, _) = DropRecord::read_from_prefix(bytes).ok()?;
            let frames = (facts.stack_bytes as usize / 8).min(whole.stack.len());
            let site = site(facts.location, facts.reason, facts.flow.ifindex, resolver);
            let stack = stack(whole.stack.get(..frames)?, &site, resolver);
            PacketCause::Dropped { site, stack }
        }
        RecordKind::FIRST => PacketCause::First,
        RecordKind::ICMP_ERROR => PacketCause::IcmpError,
        RecordKind::MAC_CHANGED => PacketCause::MacChanged,
        RecordKind::PACKET => PacketCause::Wanted,
        _ => return None,
    };
    let length = usize::from(facts.header_length).min(record.header.bytes.len());
    let packet = PacketRecord {
        cause,
        flow: key(&facts.flow),
        place: place(&facts.flow),
        input_device: IfIndex::from_kernel(facts.input_ifindex),
        count: facts.count,
        length: facts.length,
        gso_size: facts.gso_size,
        segments: facts.segments.max(1),
        ether_type: facts.ether_type,
        ethernet: facts.layer == Layer::ETHERNET,
        header: record.header.bytes[..length].to_vec(),
    };
    Some(Event { time: event_time(facts, resolver), kind: EventKind::Packet(Box::new(packet)) })
}

fn event_time(facts: &RecordFacts, resolver: &impl Resolver) -> Timestamp {
    resolver.time(facts.time_ns)
}

/// A flow's counters at one place; none when the key is of no place.
pub fn flow(wire_key: &wire::FlowKey, counters: &wire::FlowCounters, resolver: &impl Resolver) -> Option<FlowSample> {
    let flag = |flag| counters.flags & flag != 0;
    Some(FlowSample {
        flow: key(wire_key),
        place: place(wire_key)?,
        counters: FlowCounters {
            packets: counters.packets,
            bytes: counters.bytes,
            first: resolver.time(counters.first_ns),
            fragments: counters.fragments,
            fragmented: counters.fragmented,
            gso: counters.gso,
            largest: counters.largest,
            tcp_syn: counters.tcp_syn,
            tcp_syn_ack: counters.tcp_syn_ack,
            tcp_reset: counters.tcp_reset,
            tcp_fin: counters.tcp_fin,
            dont_fragment: flag(FlowFlags::DONT_FRAGMENT),
            may_fragment: flag(FlowFlags::MAY_FRAGMENT),
            source_mac_changed: flag(FlowFlags::SOURCE_MAC_CHANGED),
            malformed: flag(FlowFlags::MALFORMED),
            source_mac: MacAddress(counters.source_mac),
            destination_mac: MacAddress(counters.destination_mac),
            time_to_live: counters.time_to_live,
            repeated: counters.repeated,
            repeated_bytes: counters.repeated_bytes,
            missing_bytes: counters.missing_bytes,
        },
    })
}

/// What a drop site took from a flow.
pub fn drop(wire_key: &wire::DropKey, counters: &wire::DropCounters, resolver: &impl Resolver) -> DropSample {
    DropSample {
        flow: key(&wire_key.flow),
        site: site(wire_key.location, wire_key.reason, wire_key.flow.ifindex, resolver),
        packets: counters.packets,
        bytes: counters.bytes,
        first: resolver.time(counters.first_ns),
        largest: counters.largest,
    }
}

/// What passed a device without an entry for its flow; none when the key is of no place.
pub fn unlisted(wire_key: u64, counters: &OverflowCounters) -> Option<Unlisted> {
    let place = place_at((wire_key >> 32) as u32, (wire_key >> 16) as u8)?;
    Some(Unlisted { place: UnlistedPlace::Hook(place), packets: counters.packets, bytes: counters.bytes })
}

/// What a drop site took without an entry for its flow.
pub fn unlisted_drop(wire_key: &DropPlace, counters: &OverflowCounters, resolver: &impl Resolver) -> Unlisted {
    let site = site(wire_key.location, wire_key.reason, wire_key.ifindex, resolver);
    Unlisted { place: UnlistedPlace::Drop(site), packets: counters.packets, bytes: counters.bytes }
}

fn site(location: u64, reason: u32, ifindex: u32, resolver: &impl Resolver) -> DropSite {
    let symbol = resolver.symbol(location);
    DropSite {
        reason: resolver.reason(reason),
        function: symbol.map(|(name, _)| name.to_owned()),
        offset: symbol.map_or(0, |(_, offset)| offset),
        device: IfIndex::from_kernel(ifindex),
    }
}

/// Function names from the dropping function on: what lies before it is the tracing itself.
/// An address that belongs to no known function is not shown: it would tell where the kernel lies in memory.
fn stack(addresses: &[u64], site: &DropSite, resolver: &impl Resolver) -> Vec<String> {
    let mut names: Vec<String> = addresses
        .iter()
        .take_while(|address| **address != 0)
        .map(|address| resolver.symbol(*address).map_or_else(|| UNKNOWN.to_owned(), |(name, _)| name.to_owned()))
        .collect();
    if names.iter().all(|name| name == UNKNOWN) {
        return Vec::new();
    }
    let machinery = |name: &String| {
        ["bpf_", "__bpf_", "__traceiter_", "kfree_skb", "sk_skb_reason_drop", "__kfree_skb", "perf_", "arch_stack_walk"]
            .iter()
            .any(|prefix| name.starts_with(prefix))
    };
    let begin = names
        .iter()
        .position(|name| Some(name) == site.function.as_ref())
        .unwrap_or_else(|| names.iter().position(|name| !machinery(name)).unwrap_or(0));
    names.drain(..begin);
    names
}

fn place(key: &wire::FlowKey) -> Option<Place> {
    place_at(key.ifindex, key.direction)
}

fn place_at(ifindex: u32, direction: u8) -> Option<Place> {
    let direction = match direction {
        wire::Direction::INGRESS => Direction::Ingress,
        wire::Direction::EGRESS => Direction::Egress,
        _ => return None,
    };
    Some(Place { device: IfIndex::from_kernel(ifindex)?, direction })
}

/// The flow that a key of the kernel side means.
#[allow(clippy::many_single_char_names, reason = "bytes of an address have no names")]
pub fn key(key: &wire::FlowKey) -> FlowKey {
    let [a, b, c, d, ..] = key.source;
    let [e, f, g, h, ..] = key.destination;
    let v4 =
        || (Address::Ip(IpAddr::V4(Ipv4Addr::new(a, b, c, d))), Address::Ip(IpAddr::V4(Ipv4Addr::new(e, f, g, h))));
    let [kind, code] = key.destination_port.to_be_bytes();
    let id = key.source_port;
    let (protocol, (source, destination)) = match key.family {
        Family::IPV4 => (ip_protocol_of(key.protocol, Protocol::Icmp { kind, code, id }), v4()),
        Family::IPV6 => {
            let v6 = |bytes: [u8; 16]| Address::Ip(IpAddr::V6(Ipv6Addr::from(bytes)));
            let protocol = ip_protocol_of(key.protocol, Protocol::Icmpv6 { kind, code, id });
            (protocol, (v6(key.source), v6(key.destination)))
        }
        Family::ARP => (Protocol::Arp { operation: key.protocol }, v4()),
        _ => {
            let mac = |[a, b, c, d, e, f, ..]: [u8; 16]| Address::Mac(MacAddress([a, b, c, d, e, f]));
            (Protocol::Ethernet(key.source_port), (mac(key.source), mac(key.destination)))
        }
    };
    let has_ports = matches!(protocol, Protocol::Tcp | Protocol::Udp | Protocol::Sctp);
    FlowKey {
        protocol,
        source,
        source_port: has_ports.then_some(key.source_port),
        destination,
        destination_port: has_ports.then_some(key.destination_port),
        vlan: (key.vlan != NO_VLAN).then_some(key.vlan & 0x0fff),
    }
}

fn ip_protocol_of(number: u8, icmp: Protocol) -> Protocol {
    match (number, icmp) {
        (ip_protocol::TCP, _) => Protocol::Tcp,
        (ip_protocol::UDP, _) => Protocol::Udp,
        (ip_protocol::SCTP, _) => Protocol::Sctp,
        (ip_protocol::ICMP, Protocol::Icmp { .. }) | (ip_protocol::ICMPV6, Protocol::Icmpv6 { .. }) => icmp,
        (number, _) => Protocol::Ip(number),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kvmtrace_common::event::{HEADER_BYTES, STACK_DEPTH};
    use proptest::prelude::*;
    use zerocopy::IntoBytes as _;

    struct Names;

    impl Resolver for Names {
        fn reason(&self, number: u32) -> Option<String> {
            (number == 2).then(|| "NO_SOCKET".to_owned())
        }

        fn symbol(&self, address: u64) -> Option<(&str, u32)> {
            match address {
                0x1000..0x2000 => Some(("__traceiter_kfree_skb", 1)),
                0x2000..0x3000 => Some(("udp_rcv", 2)),
                0x3000..0x4000 => Some(("ip_local_deliver_finish", 3)),
                _ => None,
            }
        }

        fn time(&self, monotonic_ns: u64) -> Timestamp {
            Timestamp(monotonic_ns.saturating_add(1))
        }
    }

    #[test]
    fn a_drop_is_told_with_its_reason_and_the_stack_from_the_dropping_function_on() {
        let mut whole = DropRecord::read_from_bytes(&vec![0; size_of::<DropRecord>()]).unwrap();
        whole.record.facts.kind = RecordKind::DROP;
        whole.record.facts.reason = 2;
        whole.record.facts.location = 0x2010;
        whole.record.facts.flow.ifindex = 7;
        whole.record.facts.stack_bytes = 24;
        whole.stack[..3].copy_from_slice(&[0x1004, 0x2014, 0x3018]);
        let event = record(whole.as_bytes(), &Names).unwrap();
        let EventKind::Packet(packet) = event.kind else { panic!("no packet") };
        let PacketCause::Dropped { site, stack } = packet.cause else { panic!("no drop") };
        assert_eq!((site.reason.as_deref(), site.function.as_deref()), (Some("NO_SOCKET"), Some("udp_rcv")));
        assert_eq!(site.device, Some(IfIndex(7)));
        assert_eq!(stack, ["udp_rcv", "ip_local_deliver_finish"]);
    }

    proptest! {
        #[test]
        fn any_bytes_give_an_event_or_nothing(
            mut bytes in prop::collection::vec(any::<u8>(), 0..104 + HEADER_BYTES + 8 * STACK_DEPTH + 16),
            kind in 0_u32..8,
        ) {
            // Mostly of a kind that exists.
            if let Some(place) = bytes.get_mut(72..76) {
                place.copy_from_slice(&kind.to_ne_bytes());
            }
            if let Some(event) = record(&bytes, &Names) {
                let EventKind::Packet(packet) = event.kind else { panic!("no packet") };
                prop_assert!(packet.header.len() <= HEADER_BYTES && packet.segments > 0);
                prop_assert!((1..=5).contains(&kind));
            }
        }

        #[test]
        fn any_counters_give_a_sample_or_nothing(bytes in prop::collection::vec(any::<u8>(), 48 + 104)) {
            let wire_key = wire::FlowKey::read_from_bytes(&bytes[..48]).unwrap();
            let counters = wire::FlowCounters::read_from_bytes(&bytes[48..]).unwrap();
            if let Some(sample) = flow(&wire_key, &counters, &Names) {
                prop_assert!(wire_key.direction < 2 && wire_key.ifindex != 0);
                prop_assert_eq!(sample.counters.packets, counters.packets);
            }
        }
    }
}

//! What travels in a VXLAN packet: a drop of the outer packet is a drop of the flow inside it.
//!
//! 1. The outer packet is UDP to the port of a VXLAN device of this host, between an address of this host and a remote
//!    end that the device has.
//! 2. It was made by the tunnel, or came in by no guest: a guest that writes such packets itself says nothing about
//!    others' flows.
//! 3. The frame inside parses.
//!
//! Several inner flows may share one outer flow (its source port is a hash of addresses and ports), so the outer count
//! is a bound for each of them.

use crate::event::host::{Link, LinkKind};
use crate::event::{DropSample, FlowKey, HostState, IfIndex, PacketCause, PacketRecord, Protocol, decode};
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::NO_VLAN;
use kvmtrace_common::parse::{self, Parsed};
use std::net::IpAddr;

/// Bytes of the VXLAN header.
const VXLAN: usize = 8;
/// Bytes of VXLAN, UDP and the inner Ethernet header.
const HEADERS: u32 = 30;

/// The record of the frame inside a dropped tunnel packet.
pub(super) fn carried(host: &HostState, record: &PacketRecord) -> Option<PacketRecord> {
    if !is_genuine(host, record) {
        return None;
    }
    let (_, available, outer) = super::quote::parsed(record)?;
    let start = (outer.facts.network_offset + outer.facts.header_length) as usize + VXLAN;
    // The flag says that the network identifier is valid.
    if record.header.get(start - VXLAN)? & 0x08 == 0 || outer.facts.later_fragment != 0 {
        return None;
    }
    let inner = record.header.get(start..available)?;
    let mut header = Header { bytes: [0; HEADER_BYTES] };
    header.bytes.get_mut(..inner.len())?.copy_from_slice(inner);
    let mut parsed = Parsed::EMPTY;
    parse::ethernet(&header, inner.len(), NO_VLAN, &mut parsed);
    if parsed.facts.malformed != 0 {
        return None;
    }
    let ether_type: [u8; 2] = inner.get(12..14)?.try_into().ok()?;
    Some(PacketRecord {
        flow: decode::key(&parsed.key),
        length: record.length.saturating_sub(start as u32),
        ether_type: u16::from_be_bytes(ether_type),
        ethernet: true,
        header: inner.to_vec(),
        ..record.clone()
    })
}

/// The record of a later fragment, told of the flow inside: the kernel's way there, without headers that are not its own.
pub(super) fn piece(record: &PacketRecord, inner: FlowKey) -> PacketRecord {
    PacketRecord { flow: inner, ethernet: false, header: Vec::new(), ..record.clone() }
}

/// The counters of the flow inside, from those of the outer one.
pub(super) fn inner_sample(sample: &DropSample, inner: FlowKey) -> DropSample {
    let ip = if sample.flow.source.ip().is_some_and(|address| address.is_ipv6()) { 40 } else { 20 };
    DropSample {
        flow: inner,
        bytes: sample.bytes.saturating_sub(u64::from(HEADERS + ip) * sample.packets),
        largest: sample.largest.saturating_sub(HEADERS + ip),
        ..sample.clone()
    }
}

fn is_genuine(host: &HostState, record: &PacketRecord) -> bool {
    let key = record.flow;
    let (Protocol::Udp, Some(port), Some(source), Some(destination)) =
        (key.protocol, key.destination_port, key.source.ip(), key.destination.ip())
    else {
        return false;
    };
    let own = |address: IpAddr| {
        host.links.values().any(|link| link.addresses.iter().any(|network| network.address == address))
    };
    let ends = |far: IpAddr| host.links.values().any(|link| has_remote(host, link, port, far));
    if own(source) {
        ends(destination) && !is_guests(host, site_device(record)) || is_made_by_tunnel(record)
    } else {
        own(destination) && ends(source) && !is_guests(host, record.input_device)
    }
}

fn has_remote(host: &HostState, link: &Link, wanted: u16, far: IpAddr) -> bool {
    let LinkKind::Vxlan { remote, port, .. } = &link.kind else { return false };
    let known = || host.forwarding.iter().filter(|entry| entry.device == link.index).filter_map(|entry| entry.remote);
    *port == wanted && (*remote == Some(far) || known().any(|remote| remote == far))
}

fn site_device(record: &PacketRecord) -> Option<IfIndex> {
    if let PacketCause::Dropped { site, .. } = &record.cause { site.device } else { None }
}

fn is_made_by_tunnel(record: &PacketRecord) -> bool {
    matches!(&record.cause, PacketCause::Dropped { stack, .. } if stack.iter().any(|name| name.starts_with("vxlan_xmit")))
}

/// A guest's interface, or a bridge that guests hang on.
fn is_guests(host: &HostState, device: Option<IfIndex>) -> bool {
    let Some(device) = device else { return false };
    let mut interfaces = host.guests.iter().flat_map(|guest| &guest.interfaces);
    let bridge = host.link(device).is_some_and(|link| matches!(link.kind, LinkKind::Bridge(_)));
    interfaces.any(|interface| {
        interface.device == device
            || bridge && host.link(interface.device).is_some_and(|link| link.master == Some(device))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::host::{Guest, GuestInterface, Network};
    use crate::event::{Address, DropSite, FlowKey};
    use std::collections::BTreeMap;

    const VXLAN_DEVICE: IfIndex = IfIndex(3);
    const TAP: IfIndex = IfIndex(4);

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([192, 0, 2, last])
    }

    /// This host is .2, the other end .3.
    fn host() -> HostState {
        let vxlan = LinkKind::Vxlan { vni: 7, remote: Some(ip(3)), local: Some(ip(2)), port: 4789, dont_fragment: 0 };
        let nic = Link { addresses: vec![Network { address: ip(2), prefix: 24 }], ..link(2, LinkKind::Physical) };
        let links = [nic, link(3, vxlan), link(4, LinkKind::Tun)];
        let interface = GuestInterface::new(TAP, "tap", None, Vec::new());
        let guest = Guest { name: "web".into(), interfaces: vec![interface], ..Guest::default() };
        HostState { links: links.map(|link| (link.index, link)).into(), guests: vec![guest], ..HostState::default() }
    }

    fn link(index: u32, kind: LinkKind) -> Link {
        Link {
            index: IfIndex(index),
            name: format!("d{index}"),
            kind,
            mac: None,
            mtu: 1500,
            up: true,
            carrier: true,
            ethernet: true,
            arp_off: false,
            master: None,
            lower: None,
            peer: None,
            queue_length: 0,
            qdisc: String::new(),
            port: None,
            xdp: None,
            large_receive: false,
            addresses: Vec::new(),
            statistics: crate::event::host::LinkStatistics::default(),
        }
    }

    /// An ARP request inside VXLAN, dropped at a device.
    fn record(source: u8, destination: u8, site: IfIndex, input: Option<IfIndex>) -> PacketRecord {
        let mut header = vec![0x45, 0, 0, 92, 0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, source, 192, 0, 2, destination];
        header.extend([0x9c, 0x40, 0x12, 0xb5, 0, 72, 0, 0]);
        header.extend([8, 0, 0, 0, 0, 0, 7, 0]);
        header.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0, 0, 1, 8, 6]);
        header.extend([0, 1, 8, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 0, 1, 0, 0, 0, 0, 0, 0, 10, 0, 0, 9]);
        let flow = FlowKey {
            protocol: Protocol::Udp,
            source: Address::Ip(ip(source)),
            source_port: Some(40_000),
            destination: Address::Ip(ip(destination)),
            destination_port: Some(4789),
            vlan: None,
        };
        let site = DropSite { function: Some("nft_do_chain".into()), reason: None, device: Some(site), offset: 0 };
        PacketRecord {
            cause: PacketCause::Dropped { site, stack: Vec::new() },
            flow,
            place: None,
            input_device: input,
            count: 1,
            length: header.len() as u32,
            gso_size: 0,
            segments: 1,
            ether_type: 0x0800,
            ethernet: false,
            header,
        }
    }

    #[test]
    fn the_flow_inside_is_read() {
        let inner = carried(&host(), &record(2, 3, VXLAN_DEVICE, None)).unwrap();
        assert_eq!(inner.flow.to_string(), "arp 10.0.0.1 → 10.0.0.9");
        assert!(inner.ethernet && inner.length == 42);
        assert!(carried(&host(), &record(3, 2, IfIndex(2), Some(IfIndex(2)))).is_some(), "what comes in as well");
    }

    #[test]
    fn a_guest_that_writes_tunnel_packets_says_nothing_about_others() {
        assert!(carried(&host(), &record(3, 2, IfIndex(2), Some(TAP))).is_none(), "as if from the other end");
        assert!(carried(&host(), &record(2, 3, TAP, Some(TAP))).is_none(), "as if from this host");
        assert!(carried(&host(), &record(9, 2, IfIndex(2), None)).is_none(), "from an end that the tunnel has not");
    }

    #[test]
    fn cut_short_at_any_byte_it_is_nothing_or_a_flow_but_no_panic() {
        let whole = record(2, 3, VXLAN_DEVICE, None);
        for length in 0..whole.header.len() {
            let header = whole.header[..length].to_vec();
            let _ = carried(&host(), &PacketRecord { header, ..whole.clone() });
        }
    }

    #[test]
    fn the_inner_size_leaves_the_tunnel_headers_out() {
        let outer = record(2, 3, VXLAN_DEVICE, None);
        let PacketCause::Dropped { site, .. } = &outer.cause else { unreachable!() };
        let mut track = crate::track::Track::default();
        let event = |kind| crate::event::Event { time: crate::event::Timestamp(1), kind };
        track.apply(&event(crate::event::EventKind::Host(std::sync::Arc::new(host()))));
        track.apply(&event(crate::event::EventKind::Packet(Box::new(outer.clone()))));
        let first = crate::event::Timestamp(1);
        let sample =
            DropSample { flow: outer.flow, site: site.clone(), packets: 5, bytes: 5 * 550, first, largest: 550 };
        track.apply(&event(crate::event::EventKind::Drop(sample)));
        let inner: BTreeMap<_, _> = track.flows().map(|flow| (flow.key.protocol, flow)).collect();
        let totals = inner[&Protocol::Arp { operation: 1 }].drops.values().next().unwrap();
        assert_eq!((totals.packets, totals.largest, totals.outer), (5, 500, Some(outer.flow)));
    }

    #[test]
    fn where_later_fragments_died_is_told_of_the_flow_inside_whichever_came_first() {
        let whole = record(2, 3, VXLAN_DEVICE, None);
        let mut header = whole.header.clone();
        header[6..8].copy_from_slice(&[0, 0xb9]);
        let site =
            DropSite { function: Some("nf_hook_slow".into()), reason: None, device: Some(IfIndex(2)), offset: 0 };
        let cause = PacketCause::Dropped { site: site.clone(), stack: vec!["nf_hook_slow".into(), "ip_output".into()] };
        let later = PacketRecord { cause, header, ..whole.clone() };
        assert!(carried(&host(), &later).is_none());
        for records in [[&whole, &later], [&later, &whole]] {
            let mut track = crate::track::Track::default();
            let mut take = |kind| track.apply(&crate::event::Event { time: crate::event::Timestamp(1), kind });
            take(crate::event::EventKind::Host(std::sync::Arc::new(host())));
            for record in records {
                take(crate::event::EventKind::Packet(Box::new(record.clone())));
            }
            let inner = track.flows().find(|flow| flow.key.protocol == Protocol::Arp { operation: 1 }).unwrap();
            let totals = &inner.drops[&site];
            assert_eq!(totals.stack(), ["nf_hook_slow", "ip_output"]);
            assert_eq!(totals.outer, Some(whole.flow));
            assert!(totals.example.as_ref().unwrap().header.is_empty(), "its headers are not the flow's");
        }
    }
}

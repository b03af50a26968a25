//! One packet in words: where, why, its headers layer by layer, the kernel's stack.

use super::super::log::site_text;
use crate::event::{MacAddress, PacketCause, PacketRecord};
use etherparse::{ArpHardwareId, ArpPacketSlice, EtherType, LaxNetSlice, LaxSlicedPacket, LinkSlice, TransportSlice};
use std::net::Ipv4Addr;

/// Labels and what stands behind them.
pub(super) fn describe(record: &PacketRecord) -> Vec<(&'static str, String)> {
    let mut parts = vec![("   flow   ", record.flow.to_string())];
    let mut size = format!("{} bytes", record.length);
    if record.segments > 1 {
        size = format!(
            "{size} in one GSO frame: {} segments with {} bytes of payload each",
            record.segments, record.gso_size
        );
    }
    parts.push(("   size   ", size));
    if record.count > 0 {
        parts.push(("   count  ", format!("number {} of its kind", record.count)));
    }
    if let PacketCause::Dropped { site, stack } = &record.cause {
        parts.push(("   reason ", format!("{} (+{:#x})", site_text(site), site.offset)));
        if !stack.is_empty() {
            parts.push(("   stack  ", stack.join(" ← ")));
        }
    }
    parts.extend(headers(record).into_iter().map(|line| ("   header ", line)));
    parts
}

/// One line per layer, as far as the bytes go.
fn headers(record: &PacketRecord) -> Vec<String> {
    let sliced = if record.ethernet {
        match LaxSlicedPacket::from_ethernet(&record.header) {
            Ok(sliced) => sliced,
            Err(_) => return vec![format!("{} bytes: too short for Ethernet", record.header.len())],
        }
    } else {
        LaxSlicedPacket::from_ether_type(EtherType(record.ether_type), &record.header)
    };
    let mut lines = Vec::new();
    if let Some(LinkSlice::Ethernet2(ethernet)) = &sliced.link {
        let (source, destination) = (MacAddress(ethernet.source()), MacAddress(ethernet.destination()));
        lines.push(format!("Ethernet {source} → {destination}, type {:#06x}", ethernet.ether_type().0));
    }
    lines.extend(sliced.vlan_ids().into_iter().map(|id| format!("VLAN {}", id.value())));
    lines.extend(sliced.net.as_ref().map(net_line));
    lines.extend(sliced.transport.as_ref().map(transport_line));
    if sliced.stop_err.is_some() && sliced.transport.is_none() {
        lines.push(format!("cut short or malformed after that ({} bytes seen)", record.header.len()));
    }
    lines
}

fn net_line(net: &LaxNetSlice<'_>) -> String {
    match net {
        LaxNetSlice::Ipv4(ip) => {
            let header = ip.header();
            let flags = match (header.dont_fragment(), header.more_fragments()) {
                (true, _) => ", don't fragment",
                (false, true) => ", more fragments",
                (false, false) => "",
            };
            let offset = match header.fragments_offset().value() {
                0 => String::new(),
                offset => format!(", fragment at {}", u32::from(offset) * 8),
            };
            let (source, destination) = (header.source_addr(), header.destination_addr());
            format!(
                "IPv4 {source} → {destination}, {} bytes, TTL {}, id {:#06x}{flags}{offset}",
                header.total_len(),
                header.ttl(),
                header.identification()
            )
        }
        LaxNetSlice::Ipv6(ip) => {
            let header = ip.header();
            let (source, destination) = (header.source_addr(), header.destination_addr());
            format!(
                "IPv6 {source} → {destination}, {} bytes of payload, hop limit {}",
                header.payload_length(),
                header.hop_limit()
            )
        }
        LaxNetSlice::Arp(arp) => arp_line(arp),
    }
}

fn arp_line(arp: &ArpPacketSlice<'_>) -> String {
    let operation = match arp.operation().0 {
        1 => "request".to_owned(),
        2 => "reply".to_owned(),
        other => format!("operation {other}"),
    };
    let address = |bytes: &[u8]| {
        <[u8; 4]>::try_from(bytes).map_or_else(|_| format!("{bytes:02x?}"), |bytes| Ipv4Addr::from(bytes).to_string())
    };
    let hardware = |bytes: &[u8]| match (<[u8; 6]>::try_from(bytes), arp.hw_addr_type()) {
        (Ok(bytes), ArpHardwareId::ETHERNET) => MacAddress(bytes).to_string(),
        _ => format!("{bytes:02x?}"),
    };
    let (sender, target) = (address(arp.sender_protocol_addr()), address(arp.target_protocol_addr()));
    format!(
        "ARP {operation} from {sender} ({}) for {target} ({})",
        hardware(arp.sender_hw_addr()),
        hardware(arp.target_hw_addr())
    )
}

fn transport_line(transport: &TransportSlice<'_>) -> String {
    match transport {
        TransportSlice::Tcp(tcp) => {
            let flags = [
                (tcp.syn(), "SYN"),
                (tcp.ack(), "ACK"),
                (tcp.fin(), "FIN"),
                (tcp.rst(), "RST"),
                (tcp.psh(), "PSH"),
                (tcp.urg(), "URG"),
            ];
            let flags: Vec<&str> = flags.into_iter().filter(|(set, _)| *set).map(|(_, name)| name).collect();
            let (source, destination) = (tcp.source_port(), tcp.destination_port());
            let (sequence, acknowledged) = (tcp.sequence_number(), tcp.acknowledgment_number());
            format!(
                "TCP {source} → {destination}, {}, sequence {sequence}, acknowledges {acknowledged}, window {}",
                flags.join(" "),
                tcp.window_size()
            )
        }
        TransportSlice::Udp(udp) => {
            format!("UDP {} → {}, {} bytes", udp.source_port(), udp.destination_port(), udp.length())
        }
        TransportSlice::Igmp(_) => "IGMP".to_owned(),
        TransportSlice::Icmpv4(icmp) => format!("ICMP type {}, code {}", icmp.type_u8(), icmp.code_u8()),
        TransportSlice::Icmpv6(icmp) => format!("ICMPv6 type {}, code {}", icmp.type_u8(), icmp.code_u8()),
    }
}

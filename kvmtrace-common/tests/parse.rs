//! The parser against packets that another library built, and against any bytes at all.

use etherparse::{IpFragOffset, IpNumber, Ipv4Header, Ipv4Options, PacketBuilder, TcpOptionElement};
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::{Family, NO_VLAN};
use kvmtrace_common::parse::{self, Parsed};
use proptest::prelude::*;

const SOURCE_MAC: [u8; 6] = [0x52, 0x54, 0, 1, 2, 3];
const DESTINATION_MAC: [u8; 6] = [0x52, 0x54, 0, 4, 5, 6];

fn parsed(frame: &[u8]) -> Parsed {
    let mut header = Header { bytes: [0xa5; HEADER_BYTES] };
    let available = frame.len().min(HEADER_BYTES);
    header.bytes[..available].copy_from_slice(&frame[..available]);
    let mut parsed = Parsed::EMPTY;
    parse::ethernet(&header, available, NO_VLAN, &mut parsed);
    parsed
}

/// The same without its Ethernet header.
fn parsed_raw(packet: &[u8], protocol: u16) -> Parsed {
    let mut header = Header { bytes: [0xa5; HEADER_BYTES] };
    let available = packet.len().min(HEADER_BYTES);
    header.bytes[..available].copy_from_slice(&packet[..available]);
    let mut parsed = Parsed::EMPTY;
    parse::raw(&header, available, protocol, NO_VLAN, &mut parsed);
    parsed
}

fn v4(a: u8, b: u8, c: u8, d: u8) -> [u8; 16] {
    let mut address = [0; 16];
    address[..4].copy_from_slice(&[a, b, c, d]);
    address
}

#[test]
fn udp_over_ipv4() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 61)
        .udp(40_000, 53)
        .write(&mut frame, &[0; 100])
        .unwrap();
    let parsed = parsed(&frame);
    assert_eq!((parsed.key.source, parsed.key.destination), (v4(10, 0, 0, 1), v4(10, 0, 0, 2)));
    assert_eq!((parsed.key.family, parsed.key.protocol), (Family::IPV4, 17));
    assert_eq!((parsed.key.source_port, parsed.key.destination_port), (40_000, 53));
    assert_eq!((parsed.facts.network_length, parsed.facts.header_length, parsed.facts.time_to_live), (128, 28, 61));
    assert_eq!((parsed.key.vlan, parsed.facts.malformed, parsed.facts.fragment), (NO_VLAN, 0, 0));
}

#[test]
fn tcp_with_options_after_ip_options_and_two_tags() {
    let mut ip = Ipv4Header::new(0, 64, IpNumber::TCP, [192, 0, 2, 1], [198, 51, 100, 7]).unwrap();
    ip.options = Ipv4Options::try_from(&[1; 12][..]).unwrap();
    ip.dont_fragment = true;
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC)
        .double_vlan(100.try_into().unwrap(), 7.try_into().unwrap())
        .ip(etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()))
        .tcp(443, 51_000, 1, 1_000)
        .syn()
        .ack(7)
        .options(&[TcpOptionElement::MaximumSegmentSize(1_460)])
        .unwrap()
        .write(&mut frame, &[])
        .unwrap();
    let parsed = parsed(&frame);
    assert_eq!((parsed.key.source_port, parsed.key.destination_port), (443, 51_000));
    assert_eq!((parsed.key.vlan, parsed.key.protocol), (100, 6));
    assert_eq!((parsed.facts.network_offset, parsed.facts.header_length), (22, 32 + 24));
    assert_eq!((parsed.facts.tcp_flags & 0x3f, parsed.facts.dont_fragment), (0x12, 1));
}

#[test]
fn fragments_of_ipv4_are_told_apart() {
    for (more, offset, fragment, later) in [(true, 0, 1, 0), (true, 185, 1, 1), (false, 370, 1, 1), (false, 0, 0, 0)] {
        let mut ip = Ipv4Header::new(0, 64, IpNumber::UDP, [10, 0, 0, 1], [10, 0, 0, 2]).unwrap();
        ip.more_fragments = more;
        ip.fragment_offset = IpFragOffset::try_new(offset).unwrap();
        ip.identification = 0xbeef;
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC)
            .ip(etherparse::IpHeaders::Ipv4(ip, etherparse::Ipv4Extensions::default()))
            .udp(1_000, 2_000)
            .write(&mut frame, &[0; 64])
            .unwrap();
        let parsed = parsed(&frame);
        assert_eq!((parsed.facts.fragment, parsed.facts.later_fragment), (fragment, later), "offset {offset}");
        // A later fragment has data where the ports would be.
        let ports = if later == 1 { (0, 0) } else { (1_000, 2_000) };
        assert_eq!((parsed.key.source_port, parsed.key.destination_port), ports, "offset {offset}");
        assert_eq!(parsed.facts.fragment_id, 0xbeef);
    }
}

/// Ethernet and IPv6 with this next header, then these bytes.
fn ipv6(next: u8, rest: &[u8]) -> Vec<u8> {
    let mut frame = [&DESTINATION_MAC[..], &SOURCE_MAC[..], &[0x86, 0xdd, 0x60, 0, 0, 0]].concat();
    frame.extend((rest.len() as u16).to_be_bytes());
    frame.extend([next, 63]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    frame.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    frame.extend(rest);
    frame
}

#[test]
fn extension_headers_of_ipv6_are_looked_through() {
    // Hop-by-hop (8 bytes), destination options (16 bytes), then UDP.
    let rest = [
        &[60, 0, 5, 2, 0, 0, 1, 0][..],
        &[17, 1, 1, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
        &[0x12, 0x34, 0, 53, 0, 8, 0, 0][..],
    ]
    .concat();
    let parsed = parsed(&ipv6(0, &rest));
    assert_eq!((parsed.key.family, parsed.key.protocol), (Family::IPV6, 17));
    assert_eq!((parsed.key.source_port, parsed.key.destination_port), (0x1234, 53));
    assert_eq!((parsed.facts.header_length, parsed.facts.network_length), (40 + 24 + 8, 40 + 32));
    assert_eq!(parsed.facts.dont_fragment, 1);
}

#[test]
fn fragments_of_ipv6_are_told_apart() {
    let udp = [0x12, 0x34, 0, 53, 0, 8, 0, 0];
    let first = parsed(&ipv6(44, &[&[17, 0, 0, 1, 0, 0, 0xbe, 0xef][..], &udp].concat()));
    assert_eq!((first.facts.fragment, first.facts.later_fragment, first.key.source_port), (1, 0, 0x1234));
    assert_eq!(first.facts.fragment_id, 0xbeef);
    let later = parsed(&ipv6(44, &[&[17, 0, 0x05, 0xa8, 0, 0, 0xbe, 0xef][..], &udp].concat()));
    assert_eq!((later.facts.fragment, later.facts.later_fragment, later.key.source_port), (1, 1, 0));
    assert_eq!(later.key.protocol, 17);
    // RFC 6946: an atomic fragment is a whole packet.
    let atomic = parsed(&ipv6(44, &[&[17, 0, 0, 0, 0, 0, 0xbe, 0xef][..], &udp].concat()));
    assert_eq!((atomic.facts.fragment, atomic.key.destination_port), (0, 53));
}

#[test]
fn arp_gives_the_protocol_addresses_and_the_operation() {
    let frame = [
        &[0xff; 6][..],
        &SOURCE_MAC,
        &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1],
        &SOURCE_MAC,
        &[10, 0, 0, 1],
        &[0; 6],
        &[10, 0, 0, 9],
    ]
    .concat();
    let parsed = parsed(&frame);
    assert_eq!((parsed.key.family, parsed.key.protocol), (Family::ARP, 1));
    assert_eq!((parsed.key.source, parsed.key.destination), (v4(10, 0, 0, 1), v4(10, 0, 0, 9)));
}

#[test]
fn echo_keeps_its_identifier_and_errors_are_kept_apart_by_the_flow_they_are_about() {
    let echo = |kind: u8| {
        let mut frame = Vec::new();
        let builder = PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC).ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64);
        let builder =
            if kind == 8 { builder.icmpv4_echo_request(0x1234, 1) } else { builder.icmpv4_echo_reply(0x1234, 1) };
        builder.write(&mut frame, &[0; 56]).unwrap();
        parsed(&frame)
    };
    assert_eq!((echo(8).key.source_port, echo(8).key.destination_port), (0x1234, 0x0800));
    assert_eq!((echo(0).key.source_port, echo(0).key.destination_port), (0x1234, 0));
    let error = |inner_port: u16| {
        let mut inner = Vec::new();
        PacketBuilder::ipv4([10, 0, 0, 2], [10, 9, 0, 1], 64).udp(inner_port, 9).write(&mut inner, &[0; 8]).unwrap();
        let mut frame = Vec::new();
        PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC)
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .icmpv4_raw(3, 4, [0, 0, 5, 120])
            .write(&mut frame, &inner)
            .unwrap();
        parsed(&frame)
    };
    assert_eq!((error(1_000).facts.icmp_error, error(1_000).key.destination_port), (1, 0x0304));
    assert_ne!(error(1_000).key.source_port, error(1_001).key.source_port);
}

#[test]
fn other_ethernet_protocols_are_named_by_their_addresses_and_type() {
    let frame = [&[1, 0x80, 0xc2, 0, 0, 0x0e][..], &SOURCE_MAC, &[0x88, 0xcc], &[2, 7, 4, 0, 0, 0, 0, 0, 0]].concat();
    let parsed = parsed(&frame);
    assert_eq!((parsed.key.family, parsed.key.source_port), (Family::ETHERNET, 0x88cc));
    assert_eq!(parsed.key.source[..6], SOURCE_MAC);
    assert_eq!(parsed.key.destination[..6], [1, 0x80, 0xc2, 0, 0, 0x0e]);
}

#[test]
fn a_cut_packet_keeps_the_layers_that_were_whole() {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .udp(40_000, 53)
        .write(&mut frame, &[0; 8])
        .unwrap();
    let cut = parsed(&frame[..35]);
    assert_eq!((cut.facts.malformed, cut.key.family, cut.key.source), (1, Family::IPV4, v4(10, 0, 0, 1)));
    assert_eq!((cut.key.source_port, cut.key.destination_port), (0, 0));
    assert_eq!(parsed(&frame[..13]).facts.malformed, 1);
    assert_eq!(parsed(&[]).facts.malformed, 1);
}

#[test]
fn a_packet_without_an_ethernet_header_is_parsed_from_layer_3() {
    let mut packet = Vec::new();
    PacketBuilder::ipv4([10, 0, 0, 1], [10, 0, 0, 2], 61).udp(40_000, 53).write(&mut packet, &[0; 100]).unwrap();
    let parsed = parsed_raw(&packet, 0x0800);
    assert_eq!((parsed.key.source, parsed.key.destination), (v4(10, 0, 0, 1), v4(10, 0, 0, 2)));
    assert_eq!((parsed.key.family, parsed.key.protocol), (Family::IPV4, 17));
    assert_eq!((parsed.key.source_port, parsed.key.destination_port), (40_000, 53));
    assert_eq!((parsed.facts.network_offset, parsed.facts.network_length, parsed.facts.header_length), (0, 128, 28));
}

#[test]
fn the_version_counts_where_the_socket_buffer_names_no_protocol() {
    let mut packet = Vec::new();
    PacketBuilder::ipv6([1; 16], [2; 16], 61).udp(1, 2).write(&mut packet, &[]).unwrap();
    for protocol in [0, 3, 0x86dd] {
        assert_eq!(parsed_raw(&packet, protocol).key.family, Family::IPV6, "protocol {protocol:#x}");
    }
    // What the socket buffer does name is what the kernel goes by.
    let foreign = parsed_raw(&packet, 0x8847);
    assert_eq!((foreign.key.family, foreign.key.source_port), (Family::ETHERNET, 0x8847));
    assert_eq!(parsed_raw(&packet, 0x0800).facts.malformed, 1);
}

#[test]
fn the_ip_header_tells_how_long_the_packet_is() {
    let length = |packet: &[u8]| {
        let mut header = Header { bytes: [0; HEADER_BYTES] };
        header.bytes[..packet.len()].copy_from_slice(packet);
        parse::length_at_layer_3(&header)
    };
    assert_eq!(length(&[0x45, 0, 1, 2]), 258);
    assert_eq!(length(&[0x60, 0, 9, 9, 1, 2]), 258 + 40);
    assert_eq!(length(&[0xff; 40]), 0);
}

#[test]
fn only_ethernet_and_loopback_devices_have_an_ethernet_header() {
    // ARPHRD_*: Ethernet, loopback.
    for hardware in [1, 772] {
        assert!(parse::has_ethernet_header(hardware), "{hardware}");
    }
    // None (tun, WireGuard, XFRM), void, raw IP, PPP, tunnel, tunnel6, SIT, GRE, GRE over IPv6, InfiniBand.
    for hardware in [0xfffe, 0xffff, 519, 512, 768, 769, 776, 778, 823, 32] {
        assert!(!parse::has_ethernet_header(hardware), "{hardware}");
    }
}

proptest! {
    #[test]
    fn a_packet_is_parsed_alike_with_and_without_its_ethernet_header(
        bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES),
        cut in 14..=HEADER_BYTES,
        ether_type in prop::sample::select(vec![0x0800_u16, 0x86dd]),
        version in prop::sample::select(vec![0x45_u8, 0x46, 0x4f, 0x60, 0x00, 0xff]),
        next in prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 51, 58, 60, 132, 255]),
    ) {
        let mut frame = bytes;
        frame[12..14].copy_from_slice(&ether_type.to_be_bytes());
        frame[14] = version;
        frame[if version == 0x60 { 20 } else { 23 }] = next;
        let frame = &frame[..cut];
        let (mut framed, raw) = (parsed(frame), parsed_raw(&frame[14..], ether_type));
        if framed.key.family == Family::ETHERNET {
            // The frame is known by its MAC addresses, the packet has none.
            (framed.key.source, framed.key.destination) = ([0; 16], [0; 16]);
        }
        framed.facts.network_offset = 0;
        prop_assert_eq!(framed, raw);
    }

    #[test]
    fn any_bytes_cut_anywhere_are_parsed_by_what_is_there_alone(
        bytes in prop::collection::vec(any::<u8>(), HEADER_BYTES),
        cut in 0..=HEADER_BYTES,
        ether_type in prop::sample::select(vec![0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x88cc]),
        version in prop::sample::select(vec![0x45_u8, 0x4f, 0x60, 0x00, 0xff]),
        next in prop::sample::select(vec![0_u8, 1, 6, 17, 43, 44, 51, 58, 60, 132, 255]),
        noise in any::<u8>(),
    ) {
        let mut bytes = bytes;
        bytes[12..14].copy_from_slice(&ether_type.to_be_bytes());
        bytes[14] = version;
        bytes[if version == 0x60 { 20 } else { 23 }] = next;
        let run = |tail: u8| {
            let mut header = Header { bytes: [tail; HEADER_BYTES] };
            header.bytes[..cut].copy_from_slice(&bytes[..cut]);
            let mut parsed = Parsed::EMPTY;
            parse::ethernet(&header, cut, NO_VLAN, &mut parsed);
            parsed
        };
        // What lies behind the packet's end has no influence.
        prop_assert_eq!(run(0), run(noise));
        prop_assert!(run(0).key.vlan == NO_VLAN || run(0).key.vlan < 4096);
    }
}

#[test]
fn a_dropped_frame_has_the_ends_that_it_was_counted_by() {
    let lldp = [&DESTINATION_MAC[..], &SOURCE_MAC, &[0x88, 0xb5], &[0; 30]].concat();
    let mut udp = Vec::new();
    PacketBuilder::ethernet2(SOURCE_MAC, DESTINATION_MAC)
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 61)
        .udp(40_000, 53)
        .write(&mut udp, &[0; 100])
        .unwrap();
    for frame in [lldp, udp] {
        let mut header = Header { bytes: [0xa5; HEADER_BYTES] };
        let available = frame.len().min(HEADER_BYTES);
        header.bytes[..available].copy_from_slice(&frame[..available]);
        let ether_type = u16::from_be_bytes([frame[12], frame[13]]);
        let mut dropped = Parsed::EMPTY;
        parse::network(&header, available, 14, ether_type, NO_VLAN, &mut dropped);
        parse::behind_ethernet(&header, available, &mut dropped);
        assert_eq!(dropped.key, parsed(&frame).key);
    }
}

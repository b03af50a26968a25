//! Bytes as RFCs and an independent parser (etherparse) see them.

use super::*;
use crate::event::{Address, Protocol};
use crate::forward::packet::{Fragment, TcpFlags, Translation, Transport};
use etherparse::{IpNumber, NetSlice, SlicedPacket, TransportSlice};
use rstest::rstest;

const GUEST: MacAddress = MacAddress([0x52, 0x54, 0, 0, 0, 1]);
const GATEWAY: MacAddress = MacAddress([2, 0, 0, 0, 0, 2]);

fn mark() -> Mark {
    Mark::of_second(0x0123_abcd)
}

fn packet(network: Network, length: u32) -> Packet {
    Packet {
        source_mac: Some(GUEST),
        destination_mac: Some(GATEWAY),
        tags: Vec::new(),
        network,
        length,
        gso: false,
        mark: Some(0),
        connection: None,
        translation: Translation::default(),
        carried: None,
        secured: false,
    }
}

fn ip(v6: bool, transport: Transport, length: u32) -> Packet {
    let (source, destination) = if v6 { ("fd00::5", "fd00::1") } else { ("10.0.0.5", "10.0.0.1") };
    let ip = Ip {
        source: source.parse().unwrap(),
        destination: destination.parse().unwrap(),
        transport,
        time_to_live: None,
        dont_fragment: false,
        fragment: Fragment::Whole,
        traffic_class: Some(0),
    };
    packet(Network::Ip(ip), length)
}

fn echo(v6: bool) -> Transport {
    if v6 {
        Transport::Icmpv6 { kind: 128, code: 0, id: 61_500, target: None }
    } else {
        Transport::Icmp { kind: 8, code: 0, id: 61_500 }
    }
}

fn one(packet: &Packet) -> Vec<u8> {
    let mut frames = frames(packet, mark(), 1, 1500).unwrap();
    assert_eq!(frames.len(), 1);
    frames.remove(0)
}

/// The one's complement sum over everything that a checksum covers, itself included, is all ones.
fn sums_up(bytes: &[u8], pseudo: &[u8]) -> bool {
    let all: Vec<u8> = [pseudo, bytes].concat();
    let mut sum: u64 =
        all.chunks(2).map(|pair| u64::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u64::from(*low))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum == 0xffff
}

#[test]
fn an_arp_request_is_these_bytes() {
    let arp = Arp {
        operation: 1,
        sender: "10.0.0.5".parse().unwrap(),
        target: "10.0.0.1".parse().unwrap(),
        sender_mac: None,
    };
    let broadcast = Packet { destination_mac: Some(MacAddress([0xff; 6])), ..packet(Network::Arp(arp), 28) };
    let expected = [
        &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x52, 0x54, 0, 0, 0, 1, 0x08, 0x06][..],
        &[0, 1, 0x08, 0, 6, 4, 0, 1, 0x52, 0x54, 0, 0, 0, 1, 10, 0, 0, 5, 0, 0, 0, 0, 0, 0, 10, 0, 0, 1],
        b"kvmtrace probe 012",
    ]
    .concat();
    assert_eq!(one(&broadcast), expected);
    assert_eq!(expected.len(), 60, "the minimum of Ethernet");
}

#[test]
fn an_echo_request_is_these_bytes() {
    let frame = one(&ip(false, echo(false), 20 + 8 + 24));
    let expected = [
        &[2, 0, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00][..],
        &[0x45, 0, 0, 52, 0xab, 0xce, 0, 0, 61, 1],
        &frame[24..26],
        &[10, 0, 0, 5, 10, 0, 0, 1],
        &[8, 0],
        &frame[36..38],
        &[0xf0, 0x3c, 0, 1],
        b"kvmtrace probe 0123abcd\0",
    ]
    .concat();
    assert_eq!(frame, expected);
    assert!(sums_up(&frame[14..34], &[]) && sums_up(&frame[34..], &[]));
}

#[rstest]
#[case::icmp(false, echo(false), 84)]
#[case::icmpv6(true, echo(true), 104)]
#[case::icmpv6_of_odd_length(true, echo(true), 77)]
#[case::udp(false, Transport::Udp { source: Some(61_440), destination: Some(53) }, 60)]
#[case::udp_ipv6(true, Transport::Udp { source: Some(61_440), destination: Some(53) }, 81)]
#[case::syn(false, Transport::Tcp { source: Some(61_440), destination: Some(443), flags: None }, 60)]
#[case::syn_ipv6(true, Transport::Tcp { source: Some(61_440), destination: Some(443), flags: None }, 80)]
#[case::syn_with_data(false, Transport::Tcp { source: Some(61_440), destination: Some(443), flags: None }, 1500)]
fn lengths_checksums_and_marks_are_right(#[case] v6: bool, #[case] transport: Transport, #[case] length: u32) {
    let frame = one(&ip(v6, transport, length));
    assert_eq!(frame.len(), 14 + length as usize);
    let parsed = SlicedPacket::from_ethernet(&frame).unwrap();
    let header = if v6 { 40 } else { 20 };
    let body = &frame[14 + header..];
    let number = transport.number();
    let pseudo = match parsed.net.unwrap() {
        NetSlice::Ipv4(slice) => {
            let ip = slice.header();
            assert_eq!((ip.ttl(), ip.total_len(), ip.protocol()), (61, length as u16, IpNumber(number)));
            assert_eq!(ip.to_header().calc_header_checksum(), ip.header_checksum());
            let length = (body.len() as u16).to_be_bytes();
            [&ip.source()[..], &ip.destination(), &[0, number], &length].concat()
        }
        NetSlice::Ipv6(slice) => {
            let ip = slice.header();
            assert_eq!((ip.hop_limit(), ip.next_header()), (61, IpNumber(number)));
            assert_eq!(usize::from(ip.payload_length()), body.len());
            let length = (body.len() as u32).to_be_bytes();
            [&ip.source()[..], &ip.destination(), &length, &[0, 0, 0, number]].concat()
        }
        NetSlice::Arp(_) => panic!("no IP packet"),
    };
    let pseudo = if number == 1 { Vec::new() } else { pseudo };
    assert!(sums_up(body, &pseudo));
    let data = match parsed.transport.unwrap() {
        TransportSlice::Udp(udp) => udp.payload(),
        TransportSlice::Tcp(tcp) => {
            assert!(tcp.syn() && !tcp.ack() && tcp.options().len() == 20);
            tcp.payload()
        }
        TransportSlice::Icmpv4(icmp) => icmp.payload(),
        TransportSlice::Icmpv6(icmp) => icmp.payload(),
        TransportSlice::Igmp(_) => panic!("not sent"),
    };
    let text = b"kvmtrace probe 0123abcd";
    let plain = matches!(transport, Transport::Tcp { .. }) && length < 100;
    assert!(plain && data.is_empty() || data.starts_with(text.get(..data.len()).unwrap_or(text)), "{data:?}");
    assert!(crate::event::probe::is_probe(&flow_of(&frame), 61), "recognised by its numbers");
}

#[test]
fn a_neighbour_solicitation_carries_target_and_source_and_the_full_hop_limit() {
    let transport = Transport::Icmpv6 { kind: 135, code: 0, id: 0, target: Some("fd00::1".parse().unwrap()) };
    let mut solicitation = ip(true, transport, 72);
    solicitation.ip_mut().unwrap().time_to_live = Some(255);
    let frame = one(&solicitation);
    assert_eq!(frame.len(), 14 + 72);
    assert_eq!(frame[14 + 7], 255, "RFC 4861 wants 255");
    let expected_tail = [&[0xfd, 0][..], &[0; 13], &[1], &[1, 1], &GUEST.0].concat();
    assert_eq!(frame[14 + 48..], expected_tail);
    assert!(sums_up(&frame[14 + 40..], &[&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat()));
}

#[test]
fn a_dhcp_discover_is_a_bootp_request_that_asks_for_no_broadcast_and_names_us() {
    let transport = Transport::Udp { source: Some(68), destination: Some(67) };
    let mut discover = ip(false, transport, 328);
    let any = discover.ip_mut().unwrap();
    (any.source, any.destination) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST));
    let frame = one(&discover);
    assert_eq!(frame.len(), 14 + 328);
    let message = &frame[14 + 28..];
    assert_eq!(message[..12], [1, 1, 6, 0, 0x01, 0x23, 0xab, 0xcd, 0, 0, 0, 0]);
    assert_eq!(message[28..34], GUEST.0);
    assert_eq!(message[236..243], [99, 130, 83, 99, 53, 1, 1]);
    assert_eq!(message[243..259], [&[60, 14][..], b"kvmtrace probe"].concat());
    assert_eq!(message[259..266], [55, 4, 1, 3, 6, 51, 255]);
}

#[test]
fn tags_stand_before_the_ether_type() {
    let frame = one(&Packet { tags: vec![100, 7], ..ip(false, echo(false), 84) });
    assert_eq!(frame[12..22], [0x81, 0, 0, 100, 0x81, 0, 0, 7, 8, 0]);
}

#[rstest]
#[case::ipv4(false, 4_000)]
#[case::ipv4_the_most(false, 65_535)]
#[case::ipv6(true, 4_000)]
fn what_may_be_fragmented_comes_in_fragments_that_give_the_packet_again(#[case] v6: bool, #[case] length: u32) {
    let packet = ip(v6, echo(v6), length);
    let frames = frames(&packet, mark(), 3, 1500).unwrap();
    let whole = super::frames(&packet, mark(), 3, 70_000).unwrap();
    let header = if v6 { 40 } else { 20 };
    assert!(frames.len() > 2 && whole.len() == 1);
    let mut payload = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        assert!(frame.len() <= 1514, "{}", frame.len());
        let (more, eights, identification, data) = match SlicedPacket::from_ethernet(frame).unwrap().net.unwrap() {
            NetSlice::Ipv4(slice) => {
                let ip = slice.header();
                (
                    ip.more_fragments(),
                    ip.fragments_offset().value(),
                    u32::from(ip.identification()),
                    slice.payload().payload.to_vec(),
                )
            }
            NetSlice::Ipv6(_) => {
                let word = u16::from_be_bytes([frame[56], frame[57]]);
                let identification = u32::from_be_bytes([frame[58], frame[59], frame[60], frame[61]]);
                assert_eq!((frame[20], frame[54]), (44, 58));
                (word & 1 == 1, word >> 3, identification, frame[62..].to_vec())
            }
            NetSlice::Arp(_) => panic!("no IP packet"),
        };
        assert_eq!(more, index + 1 < frames.len());
        assert_eq!(usize::from(eights) * 8, payload.len());
        assert_eq!(identification, 0xabd0);
        payload.extend(data);
    }
    assert_eq!(payload, whole[0][14 + header..]);
}

#[test]
fn a_packet_that_must_not_be_fragmented_comes_whole() {
    let mut packet = ip(false, echo(false), 9_000);
    packet.ip_mut().unwrap().dont_fragment = true;
    let frame = one(&packet);
    assert_eq!(frame.len(), 9_014);
    assert_eq!(frame[20] & 0x40, 0x40);
}

#[rstest]
#[case::shorter_than_its_headers(ip(false, echo(false), 27))]
#[case::longer_than_ip(ip(false, echo(false), 65_536))]
#[case::without_ports(ip(false, Transport::Udp { source: None, destination: Some(53) }, 60))]
#[case::of_another_protocol(ip(false, Transport::Other(47), 60))]
#[case::without_a_receiver(Packet { destination_mac: None, ..ip(false, echo(false), 84) })]
#[case::of_nothing(packet(Network::Other(0x88cc), 60))]
fn what_can_not_be_sent_is_refused(#[case] packet: Packet) {
    assert!(frames(&packet, mark(), 1, 70_000).is_err());
}

#[test]
fn the_flow_of_a_frame_is_the_one_that_was_asked_for() {
    let flags = Some(TcpFlags { syn: true, ack: false, fin: false, rst: false });
    let transport = Transport::Tcp { source: Some(61_450), destination: Some(443), flags };
    let key = flow_of(&one(&ip(false, transport, 60)));
    let end = |text: &str| Address::Ip(text.parse().unwrap());
    assert_eq!(key.protocol, Protocol::Tcp);
    assert_eq!((key.source, key.source_port), (end("10.0.0.5"), Some(61_450)));
    assert_eq!((key.destination, key.destination_port), (end("10.0.0.1"), Some(443)));
}

#[test]
fn runs_of_two_minutes_have_no_port_in_common_and_all_ports_are_documented_ones() {
    let runs = (1_795_000_000..1_795_000_120).map(Mark::of_second);
    let all: Vec<u16> = runs.flat_map(|mark| (0..20).map(move |flow| mark.port(flow))).collect();
    let ports: std::collections::BTreeSet<u16> = all.iter().copied().collect();
    assert_eq!(ports.len(), all.len());
    assert!(ports.iter().all(|port| *port >= 61_440));
}

#[test]
fn a_guests_own_packets_are_no_probes() {
    let probe = flow_of(&one(&ip(false, echo(false), 84)));
    assert!(!crate::event::probe::is_probe(&probe, 64), "by the TTL");
    let other = FlowKey { protocol: Protocol::Icmp { kind: 8, code: 0, id: 77 }, ..probe };
    assert!(!crate::event::probe::is_probe(&other, 61), "by the identifier");
}

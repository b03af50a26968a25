use super::*;
use crate::event::{Address, DropSite, IfIndex, Place};

const GUEST: u8 = 11;
const NEIGHBOUR: u8 = 12;
const HOST: u8 = 1;
const OUTSIDE: u8 = 200;

fn key(protocol: Protocol, source: (u8, u16), destination: (u8, u16)) -> FlowKey {
    let address = |last| Address::Ip(std::net::IpAddr::from([10, 0, 0, last]));
    FlowKey {
        protocol,
        source: address(source.0),
        source_port: Some(source.1),
        destination: address(destination.0),
        destination_port: Some(destination.1),
        vlan: None,
    }
}

/// A packet with a number, and what follows its ports.
fn packet(flow: FlowKey, number: u16, transport: &[u8]) -> PacketRecord {
    let mut header = vec![0x45, 0];
    let is_tcp = flow.protocol == Protocol::Tcp;
    header.extend((24 + transport.len() as u16).to_be_bytes());
    header.extend(number.to_be_bytes());
    header.extend([0x40, 0, 64, if is_tcp { 6 } else { 17 }, 0, 0]);
    for address in [flow.source, flow.destination] {
        let Some(std::net::IpAddr::V4(address)) = address.ip() else { panic!("IPv4") };
        header.extend(address.octets());
    }
    for port in [flow.source_port, flow.destination_port] {
        header.extend(port.unwrap().to_be_bytes());
    }
    header.extend(transport);
    PacketRecord {
        cause: PacketCause::First,
        flow,
        place: Some(Place { device: IfIndex(3), direction: Direction::Ingress }),
        input_device: Some(IfIndex(3)),
        count: 1,
        length: header.len() as u32,
        gso_size: 0,
        segments: 1,
        ether_type: 0x0800,
        ethernet: false,
        header,
    }
}

fn forwarded(record: PacketRecord) -> PacketRecord {
    PacketRecord { place: Some(Place { device: IfIndex(2), direction: Direction::Egress }), ..record }
}

fn dropped(record: PacketRecord) -> PacketRecord {
    let site = DropSite { reason: None, function: None, offset: 0, device: None };
    PacketRecord { cause: PacketCause::Dropped { site, stack: Vec::new() }, place: None, ..record }
}

fn syn(flow: FlowKey, number: u16, sequence: u32) -> PacketRecord {
    let mut transport = sequence.to_be_bytes().to_vec();
    transport.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0xab, 0xcd, 0, 0]);
    packet(flow, number, &transport)
}

fn datagram(flow: FlowKey, number: u16, payload: &[u8]) -> PacketRecord {
    let length = (8 + payload.len() as u16).to_be_bytes();
    packet(flow, number, &[&length[..], &[0, 0], payload].concat())
}

fn told(records: &[PacketRecord]) -> Vec<(FlowKey, FlowKey)> {
    let mut sightings = Sightings::default();
    for (record, time) in records.iter().zip(1..) {
        sightings.apply(record, Timestamp(time));
    }
    sightings.translations()
}

fn tcp_pair() -> (FlowKey, FlowKey) {
    (key(Protocol::Tcp, (GUEST, 40_000), (OUTSIDE, 80)), key(Protocol::Tcp, (HOST, 61_000), (NEIGHBOUR, 8_080)))
}

#[test]
fn a_connection_is_known_again_though_all_of_its_key_changed() {
    let (before, after) = tcp_pair();
    assert_eq!(told(&[syn(before, 7, 0xdead_beef), forwarded(syn(after, 7, 0xdead_beef))]), [(before, after)]);
    assert_eq!(told(&[syn(before, 7, 0xdead_beef), dropped(syn(after, 7, 0xdead_beef))]), [(before, after)]);
    // Tagged on its way in.
    let tagged = PacketRecord { flow: FlowKey { vlan: Some(5), ..before }, ..syn(before, 7, 9) };
    assert_eq!(told(&[tagged, forwarded(syn(after, 7, 9))]), [(before, after)]);
}

#[test]
fn what_is_not_the_same_packet_is_not_joined() {
    let (before, after) = tcp_pair();
    let none: [(FlowKey, FlowKey); 0] = [];
    let came = || syn(before, 7, 0xdead_beef);
    assert_eq!(told(&[came(), forwarded(syn(after, 7, 0xdead_bee0))]), none, "another sequence number");
    assert_eq!(told(&[came(), forwarded(syn(after, 8, 0xdead_beef))]), none, "another identification");
    assert_eq!(told(&[forwarded(syn(after, 7, 0xdead_beef)), came()]), none, "it left before it came");
    let own = PacketRecord { input_device: None, ..forwarded(syn(after, 7, 0xdead_beef)) };
    assert_eq!(told(&[came(), own]), none, "the host made it");
    assert_eq!(told(&[came(), forwarded(came())]), none, "it was not translated");
    let mut late = Sightings::default();
    late.apply(&came(), Timestamp(1));
    late.apply(&forwarded(syn(after, 7, 0xdead_beef)), Timestamp(2 + HELD_NS));
    assert_eq!(late.translations(), none, "too late");
}

#[test]
fn a_form_between_two_translations_is_passed_over() {
    let (before, after) = tcp_pair();
    let between = FlowKey { source: before.source, source_port: before.source_port, ..after };
    let all = [syn(before, 7, 9), forwarded(syn(between, 7, 9)), forwarded(syn(after, 7, 9))];
    assert_eq!(told(&all), [(before, after)]);
}

#[test]
fn of_two_that_look_alike_none_is_joined() {
    let (before, after) = tcp_pair();
    let other = FlowKey { source: key(Protocol::Tcp, (13, 1), (1, 1)).source, ..before };
    let none: [(FlowKey, FlowKey); 0] = [];
    assert_eq!(told(&[syn(before, 7, 9), syn(other, 7, 9), forwarded(syn(after, 7, 9))]), none);
    let third = FlowKey { source_port: Some(61_001), ..after };
    let elsewhere =
        FlowKey { source: before.source, source_port: before.source_port, destination_port: Some(81), ..after };
    assert_eq!(told(&[syn(before, 7, 9), forwarded(syn(elsewhere, 7, 9)), forwarded(syn(after, 7, 9))]), none);
    assert_eq!(told(&[syn(before, 7, 9), forwarded(syn(after, 7, 9)), forwarded(syn(third, 7, 9))]), none);
}

#[test]
fn a_datagram_is_known_by_its_number_or_its_port_and_by_its_payload() {
    let before = key(Protocol::Udp, (GUEST, 40_000), (OUTSIDE, 53));
    let kept = key(Protocol::Udp, (HOST, 40_000), (NEIGHBOUR, 5_353));
    let changed = FlowKey { source_port: Some(61_000), ..kept };
    let joined = |after, numbers: (u16, u16), payloads: (&[u8], &[u8])| {
        !told(&[datagram(before, numbers.0, payloads.0), forwarded(datagram(after, numbers.1, payloads.1))]).is_empty()
    };
    let same: (&[u8], &[u8]) = (b"question", b"question");
    assert!(joined(changed, (7, 7), same));
    assert!(joined(kept, (0, 0), same));
    assert!(!joined(changed, (0, 0), same), "neither a number nor the port");
    assert!(!joined(kept, (7, 8), same));
    assert!(!joined(kept, (7, 7), (b"question", b"answered")));
    assert!(!joined(kept, (7, 7), (b"short", b"short")), "too little to go by");
}

#[test]
fn a_flood_of_first_packets_stays_bounded_and_the_latest_are_kept() {
    let mut sightings = Sightings::default();
    let flow = |number: u32| key(Protocol::Tcp, (GUEST, number as u16), ((number >> 16) as u8, 80));
    for number in 1..40_000_u32 {
        sightings.apply(&syn(flow(number), 1, number), Timestamp(u64::from(number)));
    }
    assert!(sightings.entered.len() <= SIGHTINGS);
    assert!(sightings.entered.contains_key(&flow(39_999)));
    sightings.forget(Timestamp(39_999));
    assert_eq!(sightings.entered.len(), 1);
}

#[test]
fn a_header_cut_anywhere_is_no_packet_of_a_name_and_no_panic() {
    let whole = syn(tcp_pair().0, 7, 9);
    for length in 0..whole.header.len() {
        let cut = PacketRecord { header: whole.header[..length].to_vec(), ..whole.clone() };
        assert!(length >= 34 || identity(&cut).is_none(), "{length}");
    }
}

//! What a report costs with 100,000 flows of one guest, in shapes that a guest or the world can make at will: `cargo xtask bench`.
//! Beside each the same with a tenth of the flows: what costs ten times as much grows with the flows, what costs a hundred
//! times as much with their square.

#![allow(clippy::print_stdout, reason = "it prints what it measures")]

mod speed;

use kvmtrace::event::host::HostState;
use kvmtrace::event::{
    Address, Direction, DropSample, DropSite, Event, EventKind, FlowCounters, FlowKey, FlowSample, IfIndex, MacAddress,
    Place, Protocol, Timestamp,
};
use kvmtrace::track::Track;
use speed::{BRIDGE, RULES, UPLINK, host, mac_of, median};
use std::hint::black_box;
use std::net::IpAddr;
use std::sync::Arc;

const FLOWS: u32 = 100_000;
/// How many times as long ten times as many flows may take.
const AIM: f64 = 40.0;
const SECOND: u64 = 1_000_000_000;
const GUEST: IfIndex = IfIndex(100);
const NEIGHBOUR: IfIndex = IfIndex(101);

/// What the flows are.
#[derive(Clone, Copy, Debug)]
enum Shape {
    /// Connections to many addresses of the world, untranslated, unanswered.
    Scan,
    /// ARP requests for addresses that nobody has.
    Arp,
    /// Datagrams to many ports of a neighbour, all of them dropped by a rule.
    Dropped,
    /// Each from a MAC address of its own.
    Macs,
    /// From sources of other networks, to a neighbour.
    Sources,
    /// Answered connections.
    Healthy,
    /// From the world to many ports of the guest, each of which it refuses.
    Refused,
}

const SHAPES: [(&str, Shape); 7] = [
    ("unanswered connections", Shape::Scan),
    ("ARP requests for nobody", Shape::Arp),
    ("dropped datagrams", Shape::Dropped),
    ("as many MAC addresses", Shape::Macs),
    ("as many spoofed sources", Shape::Sources),
    ("answered connections", Shape::Healthy),
    ("refused connections", Shape::Refused),
];

fn main() {
    let host = Arc::new(host());
    println!("A report of {FLOWS} flows of one guest, on a host of {RULES} rules:");
    // One of them alone, by a word of its name.
    let wanted = std::env::args().nth(1).unwrap_or_default();
    for (what, shape) in SHAPES.into_iter().filter(|(what, _)| what.contains(&wanted)) {
        let of = |flows: u32, runs| {
            let track = track(&host, shape, flows);
            median(runs, || drop(black_box(kvmtrace::diagnose::report(&track)))) / 1e3
        };
        let (few, many) = (of(FLOWS / 10, 3), of(FLOWS, 1));
        let times = many / few;
        let aim = if times > AIM { format!("  MISSED: at most {AIM} times") } else { String::new() };
        println!("{what:<26} {many:>7.0} ms, {times:>5.1} times a tenth of them{aim}");
    }
}

fn track(host: &Arc<HostState>, shape: Shape, flows: u32) -> Track {
    let mut track = Track::default();
    let mut take = |time, kind| track.apply(&Event { time: Timestamp(time), kind });
    take(SECOND, EventKind::Host(Arc::clone(host)));
    for number in 0..flows {
        for kind in events(shape, number) {
            take(SECOND + u64::from(number), kind);
        }
    }
    take(6 * SECOND, EventKind::Host(Arc::clone(host)));
    take(6 * SECOND, EventKind::Ended);
    track
}

fn ip(number: u32) -> Address {
    Address::Ip(IpAddr::from(number.to_be_bytes()))
}

/// 10.0.0.10 and on.
fn guest(number: u32) -> Address {
    ip(0x0a00_000a + number)
}

fn events(shape: Shape, number: u32) -> Vec<EventKind> {
    // From 198.18.0.0 and from 10.1.0.0 on; ports from 1024 on.
    let (world, elsewhere) = (ip(0xc612_0000 + number), ip(0x0a01_0000 + number));
    let (low, high) = (1024 + (number % 60_000) as u16, 1024 + (number / 60_000) as u16);
    let key = |protocol, source, destination, source_port, destination_port| FlowKey {
        source,
        destination,
        source_port: Some(source_port).filter(|port| *port > 0),
        destination_port: Some(destination_port).filter(|port| *port > 0),
        protocol,
        vlan: None,
    };
    let (from, to) = (Direction::Ingress, Direction::Egress);
    let own = mac_of(GUEST);
    match shape {
        Shape::Scan => {
            let flow = key(Protocol::Tcp, guest(0), world, 40_000, 443);
            vec![seen(flow, GUEST, from, own), seen(flow, UPLINK, to, mac_of(UPLINK))]
        }
        Shape::Arp => {
            let flow = key(Protocol::Arp { operation: 1 }, guest(0), elsewhere, 0, 0);
            vec![seen(flow, GUEST, from, own), seen(flow, NEIGHBOUR, to, own), seen(flow, BRIDGE, from, own)]
        }
        Shape::Dropped => {
            let flow = key(Protocol::Udp, guest(0), guest(1), high, low);
            vec![seen(flow, GUEST, from, own), dropped(flow)]
        }
        Shape::Macs => {
            let [_, b, c, d] = number.to_be_bytes();
            let flow = key(Protocol::Udp, guest(0), guest(1), high, low);
            let mac = MacAddress([2, 0, 0, b, c, d]);
            vec![seen(flow, GUEST, from, mac), seen(flow, NEIGHBOUR, to, mac)]
        }
        Shape::Sources => {
            let flow = key(Protocol::Udp, elsewhere, guest(1), 40_000, 53);
            vec![seen(flow, GUEST, from, own), seen(flow, NEIGHBOUR, to, own)]
        }
        Shape::Healthy | Shape::Refused => {
            let flow = key(Protocol::Tcp, world, guest(1), 40_000, 22);
            let (theirs, own) = (mac_of(BRIDGE), mac_of(NEIGHBOUR));
            let refuses = matches!(shape, Shape::Refused);
            let answer = |device, direction, mac| {
                let mut counters = counters(flow.reverse(), device, mac);
                counters.tcp_reset = u32::from(refuses);
                counters.tcp_syn_ack = u32::from(!refuses);
                EventKind::Flow(FlowSample { flow: flow.reverse(), place: Place { device, direction }, counters })
            };
            vec![
                seen(flow, UPLINK, from, theirs),
                seen(flow, NEIGHBOUR, to, theirs),
                answer(NEIGHBOUR, from, own),
                answer(UPLINK, to, mac_of(UPLINK)),
            ]
        }
    }
}

fn seen(flow: FlowKey, device: IfIndex, direction: Direction, mac: MacAddress) -> EventKind {
    EventKind::Flow(FlowSample { flow, place: Place { device, direction }, counters: counters(flow, device, mac) })
}

fn counters(flow: FlowKey, device: IfIndex, mac: MacAddress) -> FlowCounters {
    FlowCounters {
        packets: 4,
        bytes: 240,
        largest: 60,
        first: Timestamp(SECOND),
        tcp_syn: u32::from(flow.protocol == Protocol::Tcp),
        time_to_live: 64,
        source_mac: mac,
        destination_mac: mac_of(if device == GUEST { NEIGHBOUR } else { device }),
        ..FlowCounters::default()
    }
}

fn dropped(flow: FlowKey) -> EventKind {
    let site = DropSite {
        reason: Some("NETFILTER_DROP".to_owned()),
        function: Some("nft_do_chain_bridge".to_owned()),
        offset: 0,
        device: Some(GUEST),
    };
    EventKind::Drop(DropSample { flow, site, packets: 4, bytes: 240, first: Timestamp(SECOND), largest: 60 })
}

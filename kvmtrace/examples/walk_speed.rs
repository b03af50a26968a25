//! What a walk of the model costs on a host with 500 firewall rules, and what indexing that host costs: `cargo xtask bench`.

#![allow(clippy::print_stdout, reason = "it prints what it measures")]

mod speed;

use kvmtrace::event::{Address, FlowKey, IfIndex, MacAddress, Protocol};
use kvmtrace::forward::packet::{Connection, Packet};
use kvmtrace::forward::{Entry, walk};
use kvmtrace::topology::Topology;
use speed::{BRIDGE, GUESTS, RULES, host, mac_of, median};
use std::hint::black_box;
use std::net::IpAddr;

/// Microseconds that a walk may take.
const AIM: f64 = 20.0;

fn main() {
    let host = host();
    let indexed = median(15, || drop(black_box(Topology::new(&host))));
    let topology = Topology::new(&host);
    let guest = IfIndex(100);
    let packet = |to: [u8; 4], mac: MacAddress| {
        let key = FlowKey {
            source: Address::Ip(IpAddr::from([10, 0, 0, 10])),
            destination: Address::Ip(IpAddr::from(to)),
            source_port: Some(40_000),
            destination_port: Some(443),
            protocol: Protocol::Tcp,
            vlan: None,
        };
        let mut packet = Packet::of_flow(&key, 60);
        (packet.source_mac, packet.destination_mac) = (Some(mac_of(guest)), Some(mac));
        (packet.mark, packet.connection) = (Some(0), Some(Connection::New));
        packet
    };
    println!("Indexing a host of {GUESTS} guests and {RULES} rules: {indexed:.0} µs");
    for (what, packet) in [
        ("bridged to another guest", packet([10, 0, 0, 11], mac_of(IfIndex(101)))),
        ("routed past all rules", packet([198, 51, 100, 7], mac_of(BRIDGE))),
    ] {
        let steps = walk(&topology, &packet, Entry::Guest(guest)).steps.len();
        let taken = median(201, || drop(black_box(walk(&topology, black_box(&packet), Entry::Guest(guest)))));
        let aim = if taken > AIM { format!("  MISSED: at most {AIM} µs") } else { String::new() };
        println!("A walk, {what}: {taken:.1} µs, {steps} steps{aim}");
    }
}

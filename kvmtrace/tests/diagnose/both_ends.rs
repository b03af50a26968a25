//! Flows whose both ends this host translates are told once, with what they became.

use crate::world::{BRIDGE, OTHER_TAP, TAP, UPLINK, World, flow, mac};
use kvmtrace::diagnose::report::{FlowDirection, FlowReport};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::Network;
use kvmtrace::event::{Direction, EventKind, FlowKey, IfIndex, PacketCause, PacketRecord, Place, Protocol};
use std::net::IpAddr;

const OWN: &str = "10.0.0.1";
const OUTSIDE: &str = "192.0.2.7";
const GUEST: &str = "10.0.0.11";
const NEIGHBOUR: &str = "10.0.0.12";

fn first(flow: FlowKey, (device, direction): (IfIndex, Direction), sequence: u32) -> EventKind {
    let mut header = vec![0x45, 0, 0, 40, 0, 7, 0x40, 0, 64, 6, 0, 0];
    for address in [flow.source, flow.destination] {
        let Some(IpAddr::V4(address)) = address.ip() else { panic!("IPv4") };
        header.extend(address.octets());
    }
    header.extend([flow.source_port, flow.destination_port].into_iter().flatten().flat_map(u16::to_be_bytes));
    header.extend(sequence.to_be_bytes());
    header.extend([0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0, 0, 0, 0]);
    EventKind::Packet(Box::new(PacketRecord {
        cause: PacketCause::First,
        flow,
        place: Some(Place { device, direction }),
        input_device: Some(device),
        count: 1,
        length: 40,
        gso_size: 0,
        segments: 1,
        ether_type: 0x0800,
        ethernet: false,
        header,
    }))
}

fn public() -> Network {
    Network { address: "192.0.2.1".parse().unwrap(), prefix: 24 }
}

fn world() -> World {
    let mut world = World::new();
    for (guest, address) in world.host.guests.iter_mut().zip([GUEST, NEIGHBOUR]) {
        guest.interfaces[0].addresses.push(address.parse().unwrap());
    }
    world
}

/// The source's and the destination's MAC address.
fn seen(world: &mut World, flow: FlowKey, place: (IfIndex, Direction), macs: (u8, u8)) {
    world.seen(flow, place.0, place.1, |counters| {
        (counters.source_mac, counters.destination_mac) = (mac(macs.0), mac(macs.1));
    });
}

fn ends(flow: &FlowReport) -> Option<(String, String)> {
    flow.translated.as_ref().map(|told| (told.source.clone(), told.destination.clone()))
}

/// A guest reaches its neighbour by an address of the host's: request and answer, each before and after.
fn hairpin(sequences: (u32, u32)) -> Vec<FlowReport> {
    let mut world = world();
    world.link(UPLINK).addresses.push(public());
    let before = flow(Protocol::Tcp, GUEST, "192.0.2.1");
    let after = FlowKey { source_port: Some(61_000), ..flow(Protocol::Tcp, OWN, NEIGHBOUR) };
    seen(&mut world, before, (TAP, Ingress), (1, 0xb0));
    world.happened(first(before, (TAP, Ingress), sequences.0));
    seen(&mut world, after, (BRIDGE, Egress), (0xb0, 2));
    world.happened(first(after, (BRIDGE, Egress), sequences.1));
    seen(&mut world, after, (OTHER_TAP, Egress), (0xb0, 2));
    seen(&mut world, after.reverse(), (OTHER_TAP, Ingress), (2, 0xb0));
    seen(&mut world, before.reverse(), (BRIDGE, Egress), (0xb0, 1));
    seen(&mut world, before.reverse(), (TAP, Egress), (0xb0, 1));
    world.report().flows
}

#[test]
fn a_guest_to_its_neighbour_by_the_hosts_port_is_one_flow_each_way() {
    let flows = hairpin((9, 9));
    let told: Vec<_> = flows.iter().map(|flow| (flow.source.as_str(), flow.direction, ends(flow))).collect();
    let pair = |source: &str, destination: &str| Some((source.to_owned(), destination.to_owned()));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.contains(&(GUEST, FlowDirection::GuestToGuest, pair(OWN, NEIGHBOUR))), "{told:?}");
    assert!(told.contains(&(NEIGHBOUR, FlowDirection::GuestToGuest, pair("192.0.2.1", GUEST))), "{told:?}");
    let request = flows.iter().find(|flow| flow.source == GUEST).unwrap();
    let ports = request.translated.as_ref().map(|told| (told.source_port, told.destination_port));
    assert_eq!(ports, Some((Some(61_000), Some(9_000))));
    assert_eq!(request.path.last().map(|hop| hop.device.as_str()), Some("vnet1"));
}

#[test]
fn two_connections_of_different_packets_stay_two() {
    let flows = hairpin((9, 10));
    assert_eq!(flows.len(), 4);
    assert!(flows.iter().all(|flow| flow.translated.is_none()), "{flows:?}");
}

#[test]
fn from_beyond_to_a_guest_behind_both_translations_is_the_guests_flow_each_way() {
    let mut world = world();
    world.link(UPLINK).addresses.push(public());
    world.link(UPLINK).master = None;
    world.link(UPLINK).port = None;
    let before = flow(Protocol::Tcp, OUTSIDE, "192.0.2.1");
    let after = FlowKey { destination_port: Some(80), ..flow(Protocol::Tcp, OWN, GUEST) };
    seen(&mut world, before, (UPLINK, Ingress), (0x64, 0xe0));
    world.happened(first(before, (UPLINK, Ingress), 9));
    seen(&mut world, after, (BRIDGE, Egress), (0xb0, 1));
    world.happened(first(after, (BRIDGE, Egress), 9));
    seen(&mut world, after, (TAP, Egress), (0xb0, 1));
    seen(&mut world, after.reverse(), (TAP, Ingress), (1, 0xb0));
    seen(&mut world, before.reverse(), (UPLINK, Egress), (0xe0, 0x64));
    let flows = world.report().flows;
    let told: Vec<_> = flows.iter().map(|flow| (flow.direction, ends(flow))).collect();
    let pair = |source: &str, destination: &str| Some((source.to_owned(), destination.to_owned()));
    assert_eq!(told.len(), 2, "{told:?}");
    assert!(told.contains(&(FlowDirection::ToGuest, pair(OUTSIDE, "192.0.2.1"))), "{told:?}");
    assert!(told.contains(&(FlowDirection::FromGuest, pair("192.0.2.1", OUTSIDE))), "{told:?}");
}

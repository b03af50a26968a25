//! Packets that nobody takes: the wrong bridge, an address that nobody has, a next hop that is still asked for.

use crate::world::{BRIDGE, GUEST, LAN, OTHER_TAP, TAP, UPLINK, World, echo, mac};
use kvmtrace::diagnose::report::{Cause, FlowReport, Verdict};
use kvmtrace::event::Direction::Ingress;
use kvmtrace::event::IfIndex;
use kvmtrace::event::host::{FdbEntry, Neighbour, Network, Route};
use kvmtrace::event::names::{NeighbourState, RouteKind};

fn command(flow: &FlowReport) -> Option<&str> {
    flow.fixes.first()?.command.as_deref()
}

/// A ping to a neighbour at `last`, which a flood of the bridge gave to no port.
fn flooded_in_vain(world: &mut World, last: u8) -> FlowReport {
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |counters| counters.destination_mac = mac(last));
    world.dropped(ping, ("NO_TX_TARGET", "br_handle_frame_finish", TAP), 4, 84, &[]);
    world.verdict(ping)
}

#[test]
fn a_tap_alone_in_a_bridge_that_leads_nowhere_is_moved_only_where_it_was_before() {
    let mut world = World::new();
    let lone = IfIndex(90);
    let mut bridge = world.link(BRIDGE).clone();
    (bridge.index, bridge.name, bridge.mac) = (lone, "br9".to_owned(), Some(mac(0xb9)));
    bridge.addresses.clear();
    world.host.links.insert(lone, bridge);
    world.link(TAP).master = Some(lone);
    let flow = flooded_in_vain(&mut world, 0x64);
    assert_eq!((flow.cause, flow.verdict), (Some(Cause::BridgePortDetached), Verdict::Dropped), "{flow:?}");
    assert_eq!(command(&flow), None, "nobody knows which network it belongs to");
    let moved = world.host.clone();
    world.link(TAP).master = Some(BRIDGE);
    world.end = Some(moved);
    let flow = world.verdict(echo(GUEST, LAN));
    assert_eq!(command(&flow), Some("ip link set dev vnet0 master br0"));
    assert_eq!(flow.fixes[0].undo.as_deref(), Some("ip link set dev vnet0 master br9"));
    (world.end, world.link(TAP).master) = (None, Some(lone));
    // With another port it is a network of its own, and none of our business.
    world.link(OTHER_TAP).master = Some(lone);
    assert_ne!(world.verdict(echo(GUEST, LAN)).cause, Some(Cause::BridgePortDetached));
}

#[test]
fn an_address_that_nobody_has_is_the_senders_belief() {
    let mut world = World::new();
    world.link(UPLINK).master = None;
    world.link(UPLINK).addresses.push(Network { address: "10.8.8.2".parse().unwrap(), prefix: 24 });
    let flow = flooded_in_vain(&mut world, 0x77);
    assert_eq!(flow.cause, Some(Cause::NeighbourUnresolved), "{flow:?}");
    assert!(command(&flow).is_none() && flow.fixes[0].why.contains("52:54:00:aa:00:77"), "{:?}", flow.fixes);
}

/// The uplink is routed, with a way to 10.9.9.0/24.
fn routed() -> World {
    let mut world = World::new();
    world.link(UPLINK).master = None;
    world.host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    world.host.routes.push(Route {
        destination: Network { address: "10.9.9.0".parse().unwrap(), prefix: 24 },
        gateway: Some("10.8.8.1".parse().unwrap()),
        device: Some(UPLINK),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    });
    world
}

#[test]
fn what_waits_for_a_next_hop_is_told_before_the_kernel_gives_up() {
    let mut world = routed();
    let ping = echo(GUEST, "10.9.9.9");
    let to_host = |counters: &mut kvmtrace::event::FlowCounters| counters.destination_mac = mac(0xb0);
    world.seen(ping, TAP, Ingress, to_host);
    world.seen(ping, BRIDGE, Ingress, to_host);
    let address = "10.8.8.1".parse().unwrap();
    world.host.neighbours.push(Neighbour { address, device: UPLINK, mac: None, state: NeighbourState::Incomplete });
    let flow = world.verdict(ping);
    assert_eq!((flow.cause, flow.verdict), (Some(Cause::NeighbourUnresolved), Verdict::Lost), "{flow:?}");
    assert!(flow.explanation.contains("the next hop 10.8.8.1 on eth0"), "{}", flow.explanation);
}

#[test]
fn loose_mode_is_no_cure_for_a_source_that_no_route_leads_to() {
    let mut world = routed();
    world.host.sysctls.insert("net.ipv4.conf.br0.rp_filter".to_owned(), "1".to_owned());
    let ping = echo("10.7.7.7", "10.9.9.9");
    world.seen(ping, TAP, Ingress, |_| ());
    world.dropped(ping, ("IP_RPFILTER", "ip_rcv_finish_core", BRIDGE), 4, 84, &[]);
    let flow = world.verdict(ping);
    assert_eq!(flow.cause, Some(Cause::ReversePathFilter), "{flow:?}");
    assert_eq!(command(&flow), None, "who only claims a source gets no route");
}

#[test]
fn a_static_entry_that_has_moved_meanwhile_is_deleted_where_it_is_now() {
    let mut world = World::new();
    let entry = |device| FdbEntry {
        mac: mac(0x64),
        device,
        bridge: Some(BRIDGE),
        vlan: None,
        permanent: false,
        fixed: true,
        sticky: false,
        remote: None,
    };
    world.host.forwarding.push(entry(OTHER_TAP));
    let mut end = world.host.clone();
    end.forwarding = vec![entry(UPLINK)];
    world.end = Some(end);
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |counters| counters.destination_mac = mac(0x64));
    let flow = world.verdict(ping);
    assert_eq!(flow.cause, Some(Cause::BridgeFdbMisdirected), "{flow:?}");
    assert_eq!(flow.place.as_ref().and_then(|place| place.device.as_deref()), Some("vnet1"));
    assert_eq!(command(&flow), Some("bridge fdb del 52:54:00:aa:00:64 dev eth0 master"));
    assert!(flow.fixes[0].undo.as_deref().is_some_and(|undo| undo.contains("dev vnet1 master static")));
}

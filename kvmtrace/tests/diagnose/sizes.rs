//! What is too large, where the size that matters is not the egress port's own.

use crate::world::{BRIDGE, GUEST, LAN, TAP, UPLINK, World, echo, mac};
use kvmtrace::diagnose::report::{Cause, FlowReport, Severity, Verdict};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::IfIndex;
use kvmtrace::event::host::{LinkKind, Network, Route};
use kvmtrace::event::names::RouteKind;

fn commands(flow: &FlowReport) -> Vec<&str> {
    flow.fixes.iter().filter_map(|fix| fix.command.as_deref()).collect()
}

/// A ping of 1500 bytes that a veth uplink handed to its other end, which refused it.
fn refused_by_the_far_end(world: &mut World) -> FlowReport {
    world.link(UPLINK).kind = LinkKind::Veth;
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |counters| counters.largest = 1500);
    world.seen(ping, UPLINK, Egress, |counters| counters.largest = 1500);
    world.dropped(ping, ("NOT_SPECIFIED", "__dev_forward_skb2", UPLINK), 4, 1500, &["veth_xmit"]);
    world.verdict(ping)
}

#[test]
fn the_far_end_of_a_pair_is_named_where_this_host_has_it() {
    let mut world = World::new();
    let far = IfIndex(90);
    let mut end = world.link(UPLINK).clone();
    (end.index, end.name, end.mtu, end.mac, end.peer) = (far, "j2".to_owned(), 1400, Some(mac(0xaa)), Some(UPLINK));
    end.master = None;
    world.host.links.insert(far, end);
    world.link(UPLINK).peer = Some(far);
    let flow = refused_by_the_far_end(&mut world);
    assert_eq!(flow.cause, Some(Cause::BridgeMtuExceeded), "{flow:?}");
    assert_eq!(flow.place.as_ref().and_then(|place| place.device.as_deref()), Some("j2"));
    assert_eq!(commands(&flow), ["ip link set dev j2 mtu 1500"]);
}

#[test]
fn what_a_far_end_elsewhere_refuses_is_beyond_and_no_lack_of_carrier() {
    let flow = refused_by_the_far_end(&mut World::new());
    assert_eq!(flow.cause, Some(Cause::NoReply), "{flow:?}");
    assert_eq!(flow.dropped, 0);
    let mut world = World::new();
    world.link(UPLINK).carrier = false;
    assert_eq!(refused_by_the_far_end(&mut world).cause, Some(Cause::NoCarrier));
}

/// A ping of 1500 bytes that is dropped on its way to a network behind `UPLINK`.
fn too_big_for_a_route(world: &mut World) -> FlowReport {
    let ping = echo(GUEST, "10.9.9.9");
    world.seen(ping, TAP, Ingress, |counters| counters.largest = 1500);
    world.dropped(ping, ("PKT_TOO_BIG", "ip_forward", BRIDGE), 1, 1500, &[]);
    world.verdict(ping)
}

#[test]
fn a_routes_own_mtu_is_taken_off_the_route() {
    let mut world = World::new();
    world.link(UPLINK).master = None;
    world.host.routes.push(Route {
        destination: Network { address: "10.9.9.0".parse().unwrap(), prefix: 24 },
        gateway: Some("10.8.8.1".parse().unwrap()),
        device: Some(UPLINK),
        source: None,
        table: 254,
        metric: 100,
        kind: RouteKind::Unicast,
        mtu: Some(1400),
    });
    let flow = too_big_for_a_route(&mut world);
    assert_eq!(flow.cause, Some(Cause::RouteMtuExceeded));
    assert_eq!(flow.place.as_ref().and_then(|place| place.device.as_deref()), Some("eth0"));
    assert_eq!(commands(&flow), ["ip route change 10.9.9.0/24 via 10.8.8.1 dev eth0 metric 100"]);
    let undo = flow.fixes.first().and_then(|fix| fix.undo.as_deref());
    assert_eq!(undo, Some("ip route change 10.9.9.0/24 via 10.8.8.1 dev eth0 metric 100 mtu 1400"));
}

#[test]
fn a_bridge_that_is_as_narrow_as_the_guests_tap_is_widened_after_it() {
    let mut world = World::new();
    world.link(BRIDGE).mtu = 1400;
    world.link(TAP).mtu = 1400;
    let ping = echo("10.9.9.9", GUEST);
    world.seen(ping, UPLINK, Ingress, |counters| counters.largest = 1500);
    world.dropped(ping, ("PKT_TOO_BIG", "ip_forward", UPLINK), 1, 1500, &[]);
    let own = Network { address: "10.0.0.0".parse().unwrap(), prefix: 24 };
    world.host.routes.push(Route {
        destination: own,
        gateway: None,
        device: Some(BRIDGE),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    });
    world.link(UPLINK).master = None;
    let flow = world.verdict(ping);
    assert_eq!(commands(&flow), ["ip link set dev vnet0 mtu 1500 && ip link set dev br0 mtu 1500"], "{flow:?}");
}

#[test]
fn the_hosts_own_fragments_are_information_unless_its_bridge_is_the_narrow_one() {
    let cut = |bridge: u32| {
        let mut world = World::new();
        world.link(BRIDGE).mtu = bridge;
        let ping = echo("10.0.0.1", GUEST);
        for (device, direction) in [(BRIDGE, Egress), (TAP, Egress)] {
            world.seen(ping, device, direction, |counters| {
                (counters.largest, counters.fragments, counters.fragmented) = (bridge, 8, 4);
                (counters.source_mac, counters.destination_mac) = (mac(0xb0), mac(1));
            });
        }
        for (device, direction) in [(TAP, Ingress), (BRIDGE, Ingress)] {
            world.seen(ping.reverse(), device, direction, |_| ());
        }
        world.verdict(ping)
    };
    let flow = cut(1500);
    assert_eq!((flow.cause, flow.severity), (Some(Cause::FragmentedByHost), Severity::Info));
    assert!(commands(&flow).is_empty());
    let flow = cut(1400);
    assert_eq!((flow.severity, flow.verdict), (Severity::Warning, Verdict::Fragmented));
    assert_eq!(commands(&flow), ["ip link set dev br0 mtu 1500"]);
}

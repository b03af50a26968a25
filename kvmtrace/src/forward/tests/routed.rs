//! Packets that this host routes: a guest on br0 (10.0.0.0/24), an uplink of its own (192.0.2.0/24).

use super::*;
use crate::event::PolicyRule;
use crate::event::host::Neighbour;
use crate::event::names::NeighbourState;
use rstest::rstest;

fn routed() -> HostState {
    let mut host = bridged();
    let uplink = host.links.get_mut(&UPLINK).unwrap();
    (uplink.master, uplink.port) = (None, None);
    uplink.addresses.push(network("192.0.2.2/24"));
    host.routes.push(route("192.0.2.0/24", None, UPLINK));
    host.routes.push(route("0.0.0.0/0", Some("192.0.2.1"), UPLINK));
    host
}

fn to_the_world(host: &HostState) -> Walk {
    let own = host.links[&BRIDGE].mac.unwrap();
    from_guest(host, &ping("198.51.100.7", own))
}

#[test]
fn a_routed_packet_leaves_for_the_gateways_address() {
    let mut host = routed();
    host.neighbours.push(Neighbour {
        address: "192.0.2.1".parse().unwrap(),
        device: UPLINK,
        mac: Some(mac(200)),
        state: NeighbourState::Reachable,
    });
    let walk = to_the_world(&host);
    assert_eq!(arrivals(&walk), [Arrival::Uplink(UPLINK)]);
    let last = walk.steps.iter().rev().find_map(|step| {
        if let Outcome::Becomes(packet) = &step.outcome { Some(packet.destination_mac) } else { None }
    });
    assert_eq!(last, Some(Some(mac(200))));
}

fn set(host: &mut HostState, name: &str, value: &str) {
    host.sysctls.insert(name.to_owned(), value.to_owned());
}

#[rstest]
#[case::forwarding_is_off(|host: &mut HostState| set(host, "net.ipv4.ip_forward", "0"), BRIDGE, Stop::ForwardingDisabled)]
#[case::forwarding_is_off_on_the_bridge(|host: &mut HostState| set(host, "net.ipv4.conf.br0.forwarding", "0"), BRIDGE, Stop::ForwardingDisabled)]
#[case::no_route(|host: &mut HostState| host.routes.retain(|route| route.destination.prefix > 0), BRIDGE, Stop::NoRoute)]
#[case::the_uplink_is_down(|host: &mut HostState| host.links.get_mut(&UPLINK).unwrap().up = false, BRIDGE, Stop::NoRoute)]
#[case::blackhole(|host: &mut HostState| host.routes.push(special("198.51.100.0/24", "blackhole")), BRIDGE, Stop::Blackhole)]
#[case::prohibit(|host: &mut HostState| host.routes.push(special("198.51.100.0/24", "prohibit")), BRIDGE, Stop::Prohibited)]
#[case::a_rule_that_prohibits(|host: &mut HostState| forbid(host), BRIDGE, Stop::Prohibited)]
#[case::the_way_back_is_another(|host: &mut HostState| { set(host, "net.ipv4.conf.br0.rp_filter", "1"); host.routes.retain(|route| route.destination != network("10.0.0.0/24")); }, BRIDGE, Stop::ReversePath(Some(UPLINK)))]
#[case::small_mtu(|host: &mut HostState| host.links.get_mut(&UPLINK).unwrap().mtu = 80, UPLINK, Stop::RouteMtu(80))]
#[case::mtu_of_the_route(|host: &mut HostState| host.routes.last_mut().unwrap().mtu = Some(70), UPLINK, Stop::RouteMtu(70))]
#[case::no_carrier(|host: &mut HostState| host.links.get_mut(&UPLINK).unwrap().carrier = false, UPLINK, Stop::NoCarrier)]
#[case::gateway_does_not_answer(|host: &mut HostState| failed(host), UPLINK, Stop::NeighbourFailed(IpAddr::from([192, 0, 2, 1])))]
fn a_routed_packet_ends_where_the_kernel_ends_it(
    #[case] fault: fn(&mut HostState),
    #[case] device: IfIndex,
    #[case] stop: Stop,
) {
    let mut host = routed();
    fault(&mut host);
    let walk = to_the_world(&host);
    assert_eq!(stops(&walk), [(Some(device), stop)]);
    assert!(arrivals(&walk).is_empty());
}

fn special(destination: &str, kind: &str) -> Route {
    Route { kind: kind.into(), device: None, ..route(destination, None, UPLINK) }
}

fn failed(host: &mut HostState) {
    host.neighbours.push(Neighbour {
        address: "192.0.2.1".parse().unwrap(),
        device: UPLINK,
        mac: None,
        state: NeighbourState::Failed,
    });
}

fn rule(priority: u32, action: &str, table: u32) -> PolicyRule {
    PolicyRule { priority, action: action.into(), table, ..PolicyRule::default() }
}

fn forbid(host: &mut HostState) {
    host.policy_rules = vec![rule(0, "lookup", 255), rule(100, "prohibit", 0), rule(32_766, "lookup", 254)];
}

#[test]
fn loose_reverse_path_filtering_takes_any_way_back() {
    let mut host = routed();
    set(&mut host, "net.ipv4.conf.all.rp_filter", "2");
    host.routes.retain(|route| route.destination != network("10.0.0.0/24"));
    assert_eq!(arrivals(&to_the_world(&host)), [Arrival::Uplink(UPLINK)]);
}

#[test]
fn a_last_hop_is_not_forwarded() {
    let host = routed();
    let mut packet = ping("198.51.100.7", host.links[&BRIDGE].mac.unwrap());
    packet.ip_mut().unwrap().time_to_live = Some(1);
    assert_eq!(stops(&from_guest(&host, &packet)), [(Some(BRIDGE), Stop::TimeToLive)]);
}

#[test]
fn a_long_packet_that_may_be_fragmented_is() {
    let host = routed();
    let mut packet = Packet { length: 3000, ..ping("198.51.100.7", host.links[&BRIDGE].mac.unwrap()) };
    packet.ip_mut().unwrap().dont_fragment = false;
    let walk = from_guest(&host, &packet);
    assert_eq!(arrivals(&walk), [Arrival::Uplink(UPLINK)]);
    assert!(walk.steps.iter().any(|step| step.functions.contains(&"ip_do_fragment")));
}

#[rstest]
#[case::this_hosts_own("10.0.0.1")]
#[case::loopback("127.0.0.1")]
#[case::a_group("224.0.0.5")]
fn a_source_that_cannot_be_is_martian(#[case] source: &str) {
    let host = routed();
    let mut packet = ping("198.51.100.7", host.links[&BRIDGE].mac.unwrap());
    packet.ip_mut().unwrap().source = source.parse().unwrap();
    assert_eq!(stops(&from_guest(&host, &packet)), [(Some(BRIDGE), Stop::MartianSource)]);
}

#[test]
fn a_loopback_destination_from_outside_is_martian_unless_route_localnet() {
    let mut host = routed();
    let packet = ping("127.0.0.1", host.links[&BRIDGE].mac.unwrap());
    assert_eq!(stops(&from_guest(&host, &packet)), [(Some(BRIDGE), Stop::MartianDestination)]);
    let loopback = IfIndex(1);
    let mut lo = link(loopback, "lo", LinkKind::Loopback);
    lo.addresses.push(network("127.0.0.1/8"));
    host.links.insert(loopback, lo);
    set(&mut host, "net.ipv4.conf.br0.route_localnet", "1");
    assert_eq!(arrivals(&from_guest(&host, &packet)), [Arrival::Answered]);
}

#[test]
fn a_policy_rule_that_asks_for_more_is_a_doubt_and_the_walk_goes_on() {
    let mut host = routed();
    let narrower = PolicyRule { narrower: true, ..rule(100, "lookup", 77) };
    host.policy_rules = vec![rule(0, "lookup", 255), narrower, rule(32_766, "lookup", 254)];
    assert_eq!(
        to_the_world(&host).steps.iter().find(|step| matches!(step.outcome, Outcome::Unknown(_))),
        None,
        "no route there"
    );
    host.routes.push(Route { table: 77, ..route("0.0.0.0/0", Some("192.0.2.1"), UPLINK) });
    let walk = to_the_world(&host);
    assert!(walk.steps.iter().any(|step| matches!(step.outcome, Outcome::Unknown(_))));
    assert_eq!(arrivals(&walk), [Arrival::Uplink(UPLINK)]);
}

#[rstest]
#[case::ignored_on_another_device("1", true)]
#[case::never("8", false)]
fn arp_ignore_keeps_the_host_silent(#[case] value: &str, #[case] answers: bool) {
    let mut host = bridged();
    set(&mut host, "net.ipv4.conf.all.arp_ignore", value);
    let walk = from_guest(&host, &who_has("10.0.0.1"));
    assert_eq!(arrivals(&walk).contains(&Arrival::Answered), answers);
}

#[test]
fn a_vxlan_frame_goes_on_as_the_outer_packet() {
    let mut host = routed();
    let tunnel = IfIndex(5);
    let kind = LinkKind::Vxlan {
        vni: 42,
        remote: Some("203.0.113.9".parse().unwrap()),
        local: None,
        port: 4789,
        dont_fragment: 0,
    };
    let mut device = link(tunnel, "vx0", kind);
    device.master = Some(BRIDGE);
    device.port = Some(port());
    host.links.insert(tunnel, device);
    let walk = from_guest(&host, &ping("10.0.0.99", mac(99)));
    assert!(arrivals(&walk).contains(&Arrival::Uplink(UPLINK)));
    let wrapped = walk.steps.iter().filter(|step| step.device == Some(tunnel));
    let mut outer =
        wrapped.filter_map(|step| if let Outcome::Becomes(packet) = &step.outcome { Some(packet) } else { None });
    let outer = outer.next().unwrap();
    let (length, ip) = (outer.length, outer.ip().unwrap());
    assert_eq!(length, 84 + 14 + 8 + 8 + 20);
    assert_eq!((ip.source, ip.destination), ("192.0.2.2".parse().unwrap(), "203.0.113.9".parse().unwrap()));
}

#[test]
fn a_tunnel_without_a_remote_has_no_way() {
    let mut host = routed();
    let tunnel = IfIndex(5);
    let kind = LinkKind::Vxlan { vni: 42, remote: None, local: None, port: 4789, dont_fragment: 0 };
    host.links.insert(tunnel, link(tunnel, "vx0", kind));
    host.routes.push(route("198.51.100.0/24", None, tunnel));
    assert_eq!(stops(&to_the_world(&host)), [(Some(tunnel), Stop::NoRemote)]);
}

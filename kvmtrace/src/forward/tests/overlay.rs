//! Tunnels with both packets, IPsec, IPVS, Open vSwitch.

use super::*;
use crate::event::overlay::{
    IpsecDirection, IpsecPolicy, IpsecSelector, IpsecState, IpsecTemplate, RealServer, TunnelEnds, VirtualService,
    WireguardPeer,
};
use crate::forward::asked::Goal;
use crate::forward::packet::Connection;
use crate::forward::reading::{End, Reading, reply, reply_goal};
use crate::forward::step::{Doubt, Stage};
use rstest::rstest;

const TUNNEL: IfIndex = IfIndex(5);

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

/// As [`bridged`], with eth0 (192.0.2.2/24) as an interface of its own and a default route by it.
fn routed() -> HostState {
    let mut host = bridged();
    let uplink = host.links.get_mut(&UPLINK).unwrap();
    (uplink.master, uplink.port) = (None, None);
    uplink.addresses.push(network("192.0.2.2/24"));
    host.routes.push(route("192.0.2.0/24", None, UPLINK));
    host.routes.push(route("0.0.0.0/0", Some("192.0.2.1"), UPLINK));
    host
}

/// vx0 (VNI 42) to 192.0.2.9 is a port of the bridge.
fn tunnelled() -> HostState {
    let mut host = routed();
    let kind = LinkKind::Vxlan {
        vni: 42,
        remote: Some(address("192.0.2.9")),
        local: Some(address("192.0.2.2")),
        port: 4789,
        dont_fragment: 0,
    };
    let device = Link { master: Some(BRIDGE), port: Some(port()), ..link(TUNNEL, "vx0", kind) };
    host.links.insert(TUNNEL, device);
    host.forwarding.push(fdb(mac(99), TUNNEL, false));
    host
}

/// A guest's packet of `length` bytes to the machine behind the tunnel.
fn through(length: u32, dont_fragment: bool) -> Packet {
    let mut packet = ping("10.0.0.99", mac(99));
    packet.length = length;
    packet.connection = Some(Connection::New);
    packet.ip_mut().unwrap().dont_fragment = dont_fragment;
    packet
}

fn mtu(host: &mut HostState, device: IfIndex, mtu: u32) {
    host.links.get_mut(&device).unwrap().mtu = mtu;
}

fn end_of(host: &HostState, packet: &Packet) -> (End, Walk) {
    let walk = from_guest(host, packet);
    (Reading::new(&walk, packet, Goal::Beyond).end(), walk)
}

#[test]
fn a_wrapped_packet_keeps_what_it_carries_through_the_underlay() {
    let mut host = tunnelled();
    mtu(&mut host, UPLINK, 1400);
    let packet = through(1450, false);
    let (end, walk) = end_of(&host, &packet);
    assert_eq!(end, End::Leaves);
    let last = Reading::new(&walk, &packet, Goal::Beyond).packet().clone();
    assert_eq!(last.ip().unwrap().fragment, Fragment::First, "the outer packet is cut up");
    assert_eq!(last.innermost().ip(), packet.ip());
}

/// `skb_tunnel_check_pmtu`
#[rstest]
#[case::that_fits(1350, true, None)]
#[case::that_is_too_long(1351, true, Some(Stop::RouteMtu(1350)))]
#[case::that_may_be_cut_up(1351, false, None)]
fn a_tunnel_in_a_bridge_refuses_a_packet(#[case] length: u32, #[case] df: bool, #[case] stop: Option<Stop>) {
    let mut host = tunnelled();
    mtu(&mut host, UPLINK, 1400);
    let (_, walk) = end_of(&host, &through(length, df));
    assert_eq!(stops(&walk), stop.map(|stop| (Some(TUNNEL), stop)).into_iter().collect::<Vec<_>>());
}

/// The tunnel forbids fragments, its sender does not: `ip_fragment` drops the outer packet.
#[test]
fn an_outer_packet_that_must_not_be_cut_up_stops_at_the_underlay() {
    let mut host = tunnelled();
    mtu(&mut host, UPLINK, 1400);
    if let LinkKind::Vxlan { dont_fragment, .. } = &mut host.links.get_mut(&TUNNEL).unwrap().kind {
        *dont_fragment = 1;
    }
    let (_, walk) = end_of(&host, &through(1450, false));
    assert_eq!(stops(&walk), [(Some(UPLINK), Stop::RouteMtu(1400))]);
}

#[rstest]
#[case::of_the_tunnel(42, None)]
#[case::of_no_tunnel(43, Some(Stop::UnknownVni(43)))]
fn an_answer_comes_back_through_the_tunnel(#[case] vni: u32, #[case] stop: Option<Stop>) {
    let mut host = tunnelled();
    let packet = through(84, true);
    let (_, walk) = end_of(&host, &packet);
    let reading = Reading::new(&walk, &packet, Goal::Beyond);
    let (entry, answer) = reply(&reading).unwrap();
    assert_eq!(entry, Entry::Wire(UPLINK));
    assert_eq!(answer.ip().unwrap().source, address("192.0.2.9"));
    assert_eq!(answer.innermost().ip().unwrap().destination, address("10.0.0.11"));
    if let LinkKind::Vxlan { vni: own, .. } = &mut host.links.get_mut(&TUNNEL).unwrap().kind {
        *own = if vni == 42 { 42 } else { 7 };
    }
    let back = walk_answer(&host, entry, &answer);
    match stop {
        None => assert_eq!(arrivals(&back), [Arrival::Guest(GUEST1)]),
        Some(_) => assert_eq!(stops(&back), [(Some(UPLINK), Stop::UnknownVni(42))]),
    }
    assert_eq!(reply_goal(Entry::Guest(GUEST1)), Goal::Guest(GUEST1));
}

fn walk_answer(host: &HostState, entry: Entry, answer: &Packet) -> Walk {
    walk(&Topology::new(host), answer, entry)
}

/// 10.9.0.0/16 lies behind a tunnel without Ethernet.
fn behind(kind: &str) -> HostState {
    let mut host = routed();
    let device = Link {
        ethernet: false,
        mac: None,
        arp_off: true,
        mtu: 1420,
        ..link(TUNNEL, "tun9", LinkKind::Other(kind.to_owned()))
    };
    host.links.insert(TUNNEL, device);
    host.routes.push(route("10.9.0.0/16", None, TUNNEL));
    host
}

fn to_behind(host: &HostState) -> Packet {
    let mut packet = ping("10.9.0.1", host.links[&BRIDGE].mac.unwrap());
    packet.connection = Some(Connection::New);
    packet
}

#[rstest]
#[case::gre("gre", Some(7), 47, 84 + 20 + 4 + 4)]
#[case::ipip("ipip", None, 4, 84 + 20)]
fn a_tunnel_of_ip_wraps_a_routed_packet(
    #[case] kind: &str,
    #[case] key: Option<u32>,
    #[case] protocol: u8,
    #[case] length: u32,
) {
    let mut host = behind(kind);
    let ends = TunnelEnds { remote: Some(address("192.0.2.9")), key, input_key: key, ..TunnelEnds::default() };
    host.overlay.tunnels.insert(TUNNEL, ends);
    let packet = to_behind(&host);
    let (end, walk) = end_of(&host, &packet);
    assert_eq!(end, End::Leaves);
    let reading = Reading::new(&walk, &packet, Goal::Beyond);
    let outer = reading.packet();
    assert_eq!((outer.ip().unwrap().transport.number(), outer.length), (protocol, length));
    assert_eq!(outer.ip().unwrap().source, address("192.0.2.2"));
    let (entry, answer) = reply(&reading).unwrap();
    assert_eq!(arrivals(&walk_answer(&host, entry, &answer)), [Arrival::Guest(GUEST1)]);
}

fn peer(allowed: &str, endpoint: Option<&str>, has_shaken_hands: bool) -> WireguardPeer {
    WireguardPeer {
        key: allowed.to_owned(),
        endpoint: endpoint.map(|end| (address(end), 51_820)),
        allowed: vec![network(allowed)],
        has_shaken_hands,
    }
}

/// `wg_xmit`
#[rstest]
#[case::for_the_address(vec![peer("10.9.0.0/16", Some("192.0.2.9"), true)], None, false)]
#[case::for_others(vec![peer("10.8.0.0/16", Some("192.0.2.9"), true)], Some(Stop::NoPeer), false)]
#[case::that_is_nowhere(vec![peer("10.9.0.0/16", None, true)], Some(Stop::NoPeer), false)]
#[case::with_a_longer_prefix(vec![peer("0.0.0.0/0", None, true), peer("10.9.0.0/24", Some("192.0.2.9"), true)], None, false)]
#[case::that_never_shook_hands(vec![peer("10.9.0.0/16", Some("192.0.2.9"), false)], None, true)]
fn wireguard_has_a_peer(#[case] peers: Vec<WireguardPeer>, #[case] stop: Option<Stop>, #[case] doubt: bool) {
    let mut host = behind("wireguard");
    host.overlay.peers.insert(TUNNEL, peers);
    let (end, walk) = end_of(&host, &to_behind(&host));
    assert_eq!(stops(&walk), stop.clone().map(|stop| (Some(TUNNEL), stop)).into_iter().collect::<Vec<_>>());
    let expected = if doubt {
        End::Unknown
    } else if stop.is_some() {
        End::Stops
    } else {
        End::Leaves
    };
    assert_eq!(end, expected);
}

fn policy(direction: IpsecDirection, destination: &str, blocks: bool, template: bool) -> IpsecPolicy {
    let template = template.then(|| IpsecTemplate {
        source: address("192.0.2.2"),
        destination: address("192.0.2.9"),
        protocol: 50,
        spi: 0,
        request: 1,
        tunnel: true,
        optional: false,
    });
    IpsecPolicy {
        direction,
        priority: 10,
        selector: IpsecSelector { destination: network(destination), ..IpsecSelector::default() },
        blocks,
        templates: template.into_iter().collect(),
        ..IpsecPolicy::default()
    }
}

fn state() -> IpsecState {
    IpsecState {
        source: address("192.0.2.2"),
        destination: address("192.0.2.9"),
        protocol: 50,
        spi: 0x100,
        request: 1,
        tunnel: true,
        in_udp: false,
    }
}

#[rstest]
#[case::that_blocks_what_leaves(policy(IpsecDirection::Out, "10.9.0.0/16", true, false), vec![], Some(UPLINK))]
#[case::that_blocks_what_is_routed(policy(IpsecDirection::Forward, "10.9.0.0/16", true, false), vec![], Some(BRIDGE))]
#[case::for_others(policy(IpsecDirection::Out, "10.8.0.0/16", true, false), vec![], None)]
#[case::without_its_state(policy(IpsecDirection::Out, "10.9.0.0/16", false, true), vec![], Some(UPLINK))]
#[case::with_its_state(policy(IpsecDirection::Out, "10.9.0.0/16", false, true), vec![state()], None)]
#[case::that_wants_it_from_a_state(policy(IpsecDirection::Forward, "10.9.0.0/16", false, true), vec![], Some(BRIDGE))]
fn a_policy_of_ipsec(#[case] policy: IpsecPolicy, #[case] states: Vec<IpsecState>, #[case] stop: Option<IfIndex>) {
    let mut host = routed();
    let wraps = !states.is_empty();
    (host.overlay.policies, host.overlay.states) = (vec![policy], states);
    let packet = to_behind(&host);
    let (end, walk) = end_of(&host, &packet);
    match stop {
        Some(device) => assert_eq!(stops(&walk), [(Some(device), Stop::IpsecPolicy)]),
        None => assert_eq!(end, End::Leaves),
    }
    let last = Reading::new(&walk, &packet, Goal::Beyond).packet().clone();
    assert_eq!(last.ip().unwrap().transport.number(), if wraps { 50 } else { 1 });
    assert_eq!(last.innermost().ip().unwrap().destination, address("10.9.0.1"));
}

/// What comes out of a state satisfies the policies for routed packets.
#[test]
fn an_answer_out_of_esp_passes_the_policy_that_asks_for_it() {
    let mut host = routed();
    host.overlay.policies = vec![
        policy(IpsecDirection::Out, "10.9.0.0/16", false, true),
        policy(IpsecDirection::Forward, "10.0.0.0/24", false, true),
    ];
    host.overlay.states = vec![state()];
    let packet = to_behind(&host);
    let (_, walk) = end_of(&host, &packet);
    let reading = Reading::new(&walk, &packet, Goal::Beyond);
    let (entry, answer) = reply(&reading).unwrap();
    let back = walk_answer(&host, entry, &answer);
    assert_eq!(arrivals(&back), [Arrival::Guest(GUEST1)], "{back:?}");
    let bare = answer.innermost().clone();
    let bare = Packet { destination_mac: answer.destination_mac, source_mac: answer.source_mac, ..bare };
    assert_eq!(stops(&walk_answer(&host, entry, &bare)), [(Some(UPLINK), Stop::IpsecPolicy)]);
}

#[rstest]
#[case::with_one_that_takes_none(vec![0], Some(Stop::NoServer))]
#[case::without_any(vec![], Some(Stop::NoServer))]
#[case::with_one(vec![1], None)]
fn a_service_of_ipvs(#[case] weights: Vec<u32>, #[case] stop: Option<Stop>) {
    let mut host = routed();
    let server = |weight: &u32| RealServer {
        address: address("10.0.0.12"),
        port: 8080,
        forward: "Masq".to_owned(),
        weight: *weight,
    };
    host.overlay.services = vec![VirtualService {
        protocol: Some(6),
        address: Some(address("10.0.0.1")),
        port: 80,
        servers: weights.iter().map(server).collect(),
    }];
    let mut packet = ping("10.0.0.1", host.links[&BRIDGE].mac.unwrap());
    packet.ip_mut().unwrap().transport = Transport::Tcp { source: Some(40_000), destination: Some(80), flags: None };
    let walk = from_guest(&host, &packet);
    match stop {
        Some(stop) => assert_eq!(stops(&walk), [(Some(BRIDGE), stop)]),
        None => assert_eq!(arrivals(&walk), [Arrival::Guest(GUEST2)]),
    }
}

#[test]
fn a_port_of_open_vswitch_is_a_doubt_and_no_way_out() {
    let mut host = bridged();
    let switch = IfIndex(20);
    host.links.insert(switch, link(switch, "ovs-system", LinkKind::Other("openvswitch".to_owned())));
    let port = host.links.get_mut(&GUEST1).unwrap();
    (port.master, port.port) = (Some(switch), None);
    let packet = ping("198.51.100.1", mac(99));
    let walk = from_guest(&host, &packet);
    let doubts: Vec<_> = walk.ends().map(|(_, step)| (step.stage, step.outcome.clone())).collect();
    assert!(matches!(doubts.as_slice(), [(Stage::DeviceReceive, Outcome::Unknown(Doubt::Daemon(_)))]), "{doubts:?}");
    assert_eq!(Reading::new(&walk, &packet, Goal::Beyond).end(), End::Unknown);
}

//! What the kernel did with packets of `cargo xtask fidelity` where the model had said something else.

use super::*;
use crate::event::names::NeighbourState;
use crate::forward::packet::Connection;
use crate::forward::step::Step;
use rstest::rstest;

const LOOPBACK: IfIndex = IfIndex(1);

/// As [`bridged`], with a loopback device.
fn hosted() -> HostState {
    let mut host = bridged();
    let mut loopback = link(LOOPBACK, "lo", LinkKind::Loopback);
    loopback.addresses.push(network("127.0.0.1/8"));
    host.links.insert(LOOPBACK, loopback);
    host
}

fn from_host(host: &HostState, to: &str) -> Walk {
    let mut packet = ping(to, mac(0));
    (packet.source_mac, packet.destination_mac) = (None, None);
    let ip = packet.ip_mut().unwrap();
    ip.source = if ip.destination.is_ipv4() { "10.0.0.1" } else { "fd00::1" }.parse().unwrap();
    walk(&Topology::new(host), &packet, Entry::Host)
}

fn group(last: [u8; 3]) -> MacAddress {
    MacAddress([1, 0x80, 0xc2, last[0], last[1], last[2]])
}

#[test]
fn the_way_to_each_step_ends_also_for_a_packet_that_stays_here() {
    let walk = from_host(&hosted(), "10.0.0.1");
    assert_eq!(arrivals(&walk), [Arrival::Answered]);
    for index in 0..walk.steps.len() {
        assert!(walk.steps[index].parent.is_none_or(|parent| parent < index));
        assert!(walk.way(index).len() <= walk.steps.len());
    }
}

/// `br_handle_frame` gives what it keeps back to the port's own stack (`RX_HANDLER_PASS`); `ip_forward` takes only what was sent
/// to this host alone (`PACKET_HOST`).
#[test]
fn ip_to_a_reserved_group_is_the_ports_own() {
    let walk = from_guest(&bridged(), &ping("10.0.0.1", group([0, 0, 0x0e])));
    assert_eq!(arrivals(&walk), [Arrival::Answered]);
    let walk = from_guest(&bridged(), &ping("10.0.0.12", group([0, 0, 0x0e])));
    assert_eq!(stops(&walk), [(Some(GUEST1), Stop::OtherHost)]);
}

#[test]
fn a_router_does_not_forward_what_came_to_a_group_of_layer_2() {
    let walk = from_guest(&bridged(), &ping("10.0.0.12", MacAddress([0xff; 6])));
    assert!(stops(&walk).contains(&(Some(BRIDGE), Stop::OtherHost)), "{:?}", stops(&walk));
}

/// `br_dev_xmit` does not ask whether an entry is local, as `br_handle_frame_finish` does.
#[test]
fn a_local_entry_on_a_port_takes_guests_frames_and_not_the_hosts() {
    let mut host = hosted();
    host.forwarding.retain(|entry| entry.mac != mac(2));
    host.forwarding.push(fdb(mac(2), GUEST2, true));
    host.neighbours.push(host::Neighbour {
        address: "10.0.0.12".parse().unwrap(),
        device: BRIDGE,
        mac: Some(mac(2)),
        state: NeighbourState::Permanent,
    });
    assert_eq!(arrivals(&from_host(&host, "10.0.0.12")), [Arrival::Guest(GUEST2)]);
    assert!(arrivals(&from_guest(&host, &ping("10.0.0.12", mac(2)))).is_empty());
}

/// `br_fdb_update` comes before `br_fdb_find_rcu`.
#[test]
fn a_frame_for_its_own_source_goes_back_nowhere() {
    let mut host = bridged();
    host.forwarding.retain(|entry| entry.mac != mac(1));
    let packet = ping("10.0.0.12", mac(1));
    assert_eq!(stops(&from_guest(&host, &packet)), [(Some(GUEST1), Stop::Hairpin)]);
    port_of(&mut host, GUEST1).learning = false;
    assert!(arrivals(&from_guest(&host, &packet)).contains(&Arrival::Uplink(UPLINK)), "it is flooded");
}

/// `dev_deactivate` gives a device without a carrier the queue that drops all.
#[test]
fn a_bridge_without_a_carrier_sends_nothing() {
    let mut host = hosted();
    host.links.get_mut(&BRIDGE).unwrap().carrier = false;
    assert_eq!(stops(&from_host(&host, "10.0.0.12")), [(Some(BRIDGE), Stop::NoCarrier)]);
}

/// `ip_route_output_key_hash_rcu` takes the device of the source; `__mkroute_output` no gateway.
#[test]
fn a_group_is_asked_for_where_the_source_is() {
    let mut host = hosted();
    host.routes.push(route("0.0.0.0/0", Some("10.0.0.12"), UPLINK));
    let walk = from_host(&host, "239.7.7.7");
    let sent = walk
        .steps
        .iter()
        .rev()
        .find_map(|step| if let Outcome::Becomes(packet) = &step.outcome { packet.destination_mac } else { None });
    assert_eq!(sent, Some(MacAddress([1, 0, 0x5e, 7, 7, 7])));
    assert!(arrivals(&walk).contains(&Arrival::Guest(GUEST1)));
}

/// `ip_mc_output`: `RTCF_LOCAL`.
#[test]
fn this_host_hears_its_own_broadcast() {
    let walk = from_host(&hosted(), "10.0.0.255");
    assert!(arrivals(&walk).contains(&Arrival::Guest(GUEST1)));
    let local = |step: &super::super::step::Step| step.stage == super::super::step::Stage::Local;
    assert!(walk.steps.iter().any(local));
}

/// Each device has a route for `ff00::/8` and `fe80::/10`.
#[test]
fn a_group_of_ipv6_needs_the_senders_device() {
    let walk = from_host(&hosted(), "ff02::1");
    assert!(walk.ends().any(|(_, step)| matches!(step.outcome, Outcome::Unknown(_))));
}

/// `ip6_rcv_core` comes before the rules of prerouting, which would take the packet otherwise.
#[rstest]
#[case::from_loopback("::1", "fd00::2", Some(Stop::MartianSource))]
#[case::from_a_group("ff02::1", "fd00::2", Some(Stop::MartianSource))]
#[case::to_loopback("fd00::11", "::1", Some(Stop::MartianDestination))]
#[case::to_a_group_that_ends_at_the_device("fd00::11", "ff01::1", Some(Stop::MartianDestination))]
#[case::to_a_group_of_the_link("fd00::11", "ff02::1", None)]
fn addresses_that_cant_be_on_the_wire_are_refused(#[case] from: &str, #[case] to: &str, #[case] stop: Option<Stop>) {
    let mut host = hosted();
    host.netfilter.chains.push(host::Chain {
        backend: host::Backend::Nft,
        family: "ip6".to_owned(),
        table: "t".to_owned(),
        name: "c".to_owned(),
        hook: Some("prerouting".to_owned()),
        kind: Some("filter".to_owned()),
        priority: Some(0),
        policy: Some("drop".to_owned()),
        policy_packets: None,
        device: None,
        rules: Vec::new(),
    });
    let mut packet =
        ping(to, if to.starts_with("ff") { MacAddress([0x33, 0x33, 0, 0, 0, 1]) } else { bridge_mac(&host) });
    packet.ip_mut().unwrap().source = from.parse().unwrap();
    packet.ip_mut().unwrap().transport = Transport::Icmpv6 { kind: 128, code: 0, id: 1, target: None };
    let found = stops(&from_guest(&host, &packet));
    match stop {
        Some(stop) => assert_eq!(found, [(Some(BRIDGE), stop)]),
        None => assert!(matches!(found.as_slice(), [(Some(BRIDGE), Stop::Rule(_))]), "{found:?}"),
    }
}

fn bridge_mac(host: &HostState) -> MacAddress {
    host.links[&BRIDGE].mac.unwrap()
}

/// `arp_process` asks the route of the asker before it answers for another.
#[rstest]
#[case::whose_way_back_leads_here("10.0.0.0/24", true)]
#[case::whose_way_back_leads_elsewhere("10.9.0.0/24", false)]
fn a_proxy_answers_an_asker(#[case] here: &str, #[case] answers: bool) {
    let mut host = bridged();
    host.links.get_mut(&BRIDGE).unwrap().addresses.clear();
    host.routes = vec![route("0.0.0.0/0", Some("192.0.2.1"), UPLINK), route(here, None, BRIDGE)];
    host.links.get_mut(&UPLINK).unwrap().master = None;
    for (key, value) in [("all.rp_filter", "1"), ("br0.proxy_arp", "1")] {
        host.sysctls.insert(format!("net.ipv4.conf.{key}"), value.to_owned());
    }
    let walk = from_guest(&host, &who_has("203.0.113.7"));
    assert_eq!(arrivals(&walk).contains(&Arrival::Answered), answers, "{walk:?}");
}

/// `br_nf_post_routing` gives a bridged packet the bridge as its way out: one without an address takes another device's.
#[rstest]
#[case::an_address_of_its_own("10.0.0.1/24", "10.0.0.1")]
#[case::an_address_in_the_next_hops_network("192.0.2.9/24", "192.0.2.9")]
fn masquerading_takes_the_address_that_faces_the_next_hop(#[case] address: &str, #[case] source: &str) {
    let mut host = bridged();
    host.links.get_mut(&UPLINK).unwrap().master = None;
    host.links.get_mut(&UPLINK).unwrap().port = None;
    // The destination lies in none of its networks, the gateway in the second.
    host.links.get_mut(&UPLINK).unwrap().addresses = vec![network("172.16.0.9/24"), network(address)];
    let gateway = if source.starts_with("192") { "192.0.2.1" } else { "10.0.0.254" };
    host.routes.push(route("0.0.0.0/0", Some(gateway), UPLINK));
    host.netfilter.chains.push(host::Chain {
        backend: host::Backend::Nft,
        family: "ip".to_owned(),
        table: "nat".to_owned(),
        name: "post".to_owned(),
        hook: Some("postrouting".to_owned()),
        kind: Some("nat".to_owned()),
        priority: Some(100),
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: vec![host::Rule {
            handle: None,
            number: 1,
            text: "oifname \"eth0\" masquerade".to_owned(),
            packets: None,
            verdict: Some("masquerade".to_owned()),
        }],
    });
    let mut packet = ping("198.51.100.1", host.links[&BRIDGE].mac.unwrap());
    packet.connection = Some(Connection::New);
    let walk = from_guest(&host, &packet);
    let source_after =
        |step: &Step| if let Outcome::Becomes(packet) = &step.outcome { packet.ip().map(|ip| ip.source) } else { None };
    let last = walk.steps.iter().rev().find_map(source_after);
    assert_eq!(last, source.parse().ok(), "{walk:?}");
}

/// `ip6_forward` sends nobody on who has no address, or one of the link alone.
#[rstest]
#[case::without_an_address("::", Some(Stop::MartianSource))]
#[case::with_one_of_the_link("fe80::11", Some(Stop::MartianSource))]
#[case::with_one_of_the_network("fd00::11", None)]
fn a_v6_source_is_routed(#[case] from: &str, #[case] stop: Option<Stop>) {
    let mut host = hosted();
    host.links.get_mut(&UPLINK).unwrap().master = None;
    host.links.get_mut(&UPLINK).unwrap().port = None;
    host.sysctls.insert("net.ipv6.conf.all.forwarding".to_owned(), "1".to_owned());
    host.routes.push(route("2001:db8::/32", Some("fd01::1"), UPLINK));
    let mut packet = ping("2001:db8::9", bridge_mac(&host));
    packet.ip_mut().unwrap().source = from.parse().unwrap();
    packet.ip_mut().unwrap().transport = Transport::Icmpv6 { kind: 128, code: 0, id: 1, target: None };
    let walk = from_guest(&host, &packet);
    assert_eq!(stops(&walk), stop.map(|stop| (Some(BRIDGE), stop)).into_iter().collect::<Vec<_>>());
}

/// `br_handle_frame_finish` learns the source before it looks for the destination: a frame for its own source goes back by the
/// port alone, where that has hairpin mode, and is not flooded.
#[rstest]
#[case::with_hairpin_mode(true)]
#[case::without(false)]
fn a_frame_for_its_own_source_is_not_flooded(#[case] hairpin: bool) {
    let mut host = bridged();
    host.forwarding.retain(|entry| entry.mac != mac(1));
    port_of(&mut host, GUEST1).hairpin = hairpin;
    let walk = from_guest(&host, &ping("10.0.0.99", mac(1)));
    if hairpin {
        assert_eq!(arrivals(&walk), [Arrival::Guest(GUEST1)]);
    } else {
        assert_eq!(stops(&walk), [(Some(GUEST1), Stop::Hairpin)]);
    }
}

fn base_chain(family: &str, hook: &str, kind: &str, rules: &[&str]) -> host::Chain {
    let rule = |(number, text): (usize, &&str)| host::Rule {
        handle: None,
        number: number as u32 + 1,
        text: (*text).to_owned(),
        packets: None,
        verdict: text.split(' ').next_back().map(str::to_owned),
    };
    host::Chain {
        backend: host::Backend::Nft,
        family: family.to_owned(),
        table: "t".to_owned(),
        name: hook.to_owned(),
        hook: Some(hook.to_owned()),
        kind: Some(kind.to_owned()),
        priority: Some(if kind == "nat" { -100 } else { 0 }),
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: rules.iter().enumerate().map(rule).collect(),
    }
}

/// `nf_nat_redirect_ipv6_usable` takes a link-local address where the device has no wider one.
#[test]
fn a_redirect_takes_the_devices_first_address() {
    let mut host = hosted();
    host.links.get_mut(&BRIDGE).unwrap().addresses = vec![network("fe80::1/64")];
    host.netfilter.chains.push(base_chain("ip6", "prerouting", "nat", &["udp dport 8080 redirect"]));
    let mut packet = ping("fd00::99", bridge_mac(&host));
    packet.connection = Some(Connection::New);
    let ip = packet.ip_mut().unwrap();
    ip.source = "fd00::11".parse().unwrap();
    ip.transport = Transport::Udp { source: Some(1), destination: Some(8080) };
    assert_eq!(arrivals(&from_guest(&host, &packet)), [Arrival::Host]);
}

/// `br_handle_frame_finish` learns where the sender is: an answer, or a packet that is routed back, is not flooded.
#[test]
fn a_bridge_learns_from_the_frame_itself() {
    let mut host = bridged();
    host.forwarding.retain(|entry| entry.mac != mac(1));
    host.routes.push(route("198.51.100.0/24", Some("10.0.0.11"), BRIDGE));
    let packet = ping("198.51.100.1", bridge_mac(&host));
    assert_eq!(arrivals(&from_guest(&host, &packet)), [Arrival::Guest(GUEST1)]);
}

/// `ip_mc_validate_source`: a group's packet is checked as any other.
#[rstest]
#[case::from_this_host("10.0.0.1", Some(Stop::MartianSource))]
#[case::from_elsewhere("192.0.2.9", Some(Stop::ReversePath(None)))]
#[case::from_the_network("10.0.0.11", None)]
fn the_source_of_a_groups_packet_is_checked(#[case] from: &str, #[case] stop: Option<Stop>) {
    let mut host = bridged();
    host.sysctls.insert("net.ipv4.conf.all.rp_filter".to_owned(), "1".to_owned());
    let mut packet = ping("224.0.0.1", MacAddress([1, 0, 0x5e, 0, 0, 1]));
    packet.ip_mut().unwrap().source = from.parse().unwrap();
    packet.ip_mut().unwrap().transport = Transport::Udp { source: Some(1), destination: Some(2) };
    let found = stops(&from_guest(&host, &packet));
    assert_eq!(found, stop.map(|stop| (Some(BRIDGE), stop)).into_iter().collect::<Vec<_>>());
}

/// `nf_bridge_info` stays with a packet that leaves the bridge for the host's stack: `physdev-in` matches it there as well.
#[rstest]
#[case::of_its_port("vnet0", true)]
#[case::of_another_port("vnet1", false)]
fn a_routed_packet_still_knows_its_bridge_port(#[case] port: &str, #[case] dropped: bool) {
    let mut host = bridged();
    host.links.get_mut(&UPLINK).unwrap().master = None;
    host.links.get_mut(&UPLINK).unwrap().port = None;
    host.routes.push(route("0.0.0.0/0", None, UPLINK));
    host.sysctls.insert("net.bridge.bridge-nf-call-iptables".to_owned(), "1".to_owned());
    let text = format!("-A FORWARD -m physdev --physdev-in {port} -j DROP");
    let mut chain = base_chain("ip", "forward", "filter", &[&text]);
    (chain.backend, chain.table, chain.name) =
        (host::Backend::IptablesLegacy, "filter".to_owned(), "FORWARD".to_owned());
    chain.rules[0].verdict = Some("drop".to_owned());
    host.netfilter.chains.push(chain);
    let found = stops(&from_guest(&host, &ping("198.51.100.1", bridge_mac(&host))));
    assert_eq!(found.iter().any(|(_, stop)| matches!(stop, Stop::Rule(_))), dropped, "{found:?}");
}

/// `br_nf_dev_queue_xmit` cuts by the MTU of the bridge (`fake_mtu`), and `is_skb_forwardable` measures each piece by the port's.
#[rstest]
#[case::that_is_as_narrow(1400, None)]
#[case::that_is_wider(1500, Some(Stop::BridgeMtu(1400)))]
fn a_bridged_packet_is_cut_up_by_the_mtu_of_a_bridge(#[case] bridge: u32, #[case] stop: Option<Stop>) {
    let mut host = bridged();
    host.links.get_mut(&BRIDGE).unwrap().mtu = bridge;
    host.links.get_mut(&GUEST2).unwrap().mtu = 1400;
    host.sysctls.insert("net.bridge.bridge-nf-call-iptables".to_owned(), "1".to_owned());
    let mut packet = ping("10.0.0.12", mac(2));
    packet.length = 1450;
    packet.ip_mut().unwrap().dont_fragment = false;
    let found = stops(&from_guest(&host, &packet));
    assert_eq!(found, stop.map(|stop| (Some(GUEST2), stop)).into_iter().collect::<Vec<_>>());
}

/// A device that is down is in no group (`ip_mc_down`): this host does not hear what it says to all hosts there.
#[rstest]
#[case::on_a_device_that_is_up(true)]
#[case::on_one_that_is_down(false)]
fn the_host_hears_what_it_says_to_all_hosts(#[case] up: bool) {
    let mut host = hosted();
    host.links.get_mut(&BRIDGE).unwrap().up = up;
    let mut packet = ping("224.0.0.1", mac(0));
    (packet.source_mac, packet.destination_mac) = (None, None);
    let ip = packet.ip_mut().unwrap();
    ip.source = "10.0.0.1".parse().unwrap();
    ip.transport = Transport::Udp { source: Some(1), destination: Some(2) };
    let walk = walk(&Topology::new(&host), &packet, Entry::Host);
    assert_eq!(arrivals(&walk).contains(&Arrival::Host), up);
}

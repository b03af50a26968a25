//! Kinds of hosts on which one thing had been taken for another.

use crate::world::{BRIDGE, GUEST, LAN, OTHER_TAP, TAP, UPLINK, World, echo, flow, mac};
use kvmtrace::diagnose::report::{Cause, FlowReport, Severity};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::{LinkKind, Network, Policer, Qdisc, Route};
use kvmtrace::event::names::RouteKind;
use kvmtrace::event::{IfIndex, MacAddress, Protocol};
use rstest::rstest;

fn commands(flow: &FlowReport) -> Vec<Option<&str>> {
    flow.fixes.iter().map(|fix| fix.command.as_deref()).collect()
}

/// A guest on a macvtap asks for an address that nobody answers for; its neighbour's macvtap is in another mode, or not.
fn asks_beside(own: &str, other: &str, known: bool) -> FlowReport {
    let asked = flow(Protocol::Arp { operation: 1 }, GUEST, "10.0.0.12");
    let mut world = World::new();
    for (device, mode, last) in [(TAP, own, 1), (OTHER_TAP, other, 2)] {
        let link = world.link(device);
        (link.kind, link.mac) = (LinkKind::Macvtap { mode: mode.into() }, Some(mac(last)));
        (link.master, link.port, link.lower) = (None, None, Some(UPLINK));
    }
    let uplink = world.link(UPLINK);
    (uplink.master, uplink.port) = (None, None);
    if known {
        world.host.guests[1].interfaces[0].addresses.push("10.0.0.12".parse().unwrap());
    } else {
        world.host.guests[1].interfaces[0].addresses.push("10.0.0.13".parse().unwrap());
    }
    for device in [TAP, UPLINK] {
        world.seen(asked, device, Egress, |counters| counters.destination_mac = MacAddress([0xff; 6]));
    }
    world.verdict(asked)
}

#[test]
fn macvtaps_that_hand_each_other_nothing_are_named_by_their_modes() {
    let both = "ip link set dev vnet0 type macvtap mode bridge && ip link set dev vnet1 type macvtap mode bridge";
    let told = asks_beside("vepa", "vepa", true);
    assert_eq!((told.cause, commands(&told)[0]), (Some(Cause::MacvtapMode), Some(both)), "{told:?}");
    // Kept apart on purpose, perhaps.
    let told = asks_beside("bridge", "private", true);
    assert_eq!((told.cause, commands(&told)[0]), (Some(Cause::MacvtapMode), None), "{told:?}");
    assert_eq!(commands(&told)[1], Some("ip link set dev vnet1 type macvtap mode bridge"));
    assert_eq!(asks_beside("vepa", "vepa", false).cause, Some(Cause::NeighbourUnresolved), "nobody's address");
    assert_eq!(asks_beside("bridge", "bridge", true).cause, Some(Cause::NeighbourUnresolved));
}

/// What dies after a translation of its destination is the flow that the guest sent.
#[rstest]
#[case::the_same_port(Some(40_000), 1)]
#[case::another_conversation(Some(40_001), 2)]
fn a_redirected_flow_is_told_once(#[case] port: Option<u16>, #[case] flows: usize) {
    let sent = flow(Protocol::Tcp, GUEST, "169.254.169.254");
    let mut died = flow(Protocol::Tcp, GUEST, "127.0.0.1");
    died.source_port = port;
    died.destination_port = Some(8_775);
    let mut world = World::new();
    world.host.sysctls.insert("net.ipv4.conf.br0.route_localnet".to_owned(), "0".to_owned());
    for device in [TAP, BRIDGE] {
        world.seen(sent, device, Ingress, |counters| counters.destination_mac = mac(0xb0));
    }
    world.dropped(died, ("IP_LOCALNET", "ip_rcv_finish_core", BRIDGE), 4, 60, &["ip_rcv"]);
    let report = world.report();
    assert_eq!(report.flows.len(), flows, "{:?}", report.flows);
    if flows == 1 {
        let told = &report.flows[0];
        assert_eq!((told.cause, told.destination.as_str()), (Some(Cause::MartianDestination), "169.254.169.254"));
        assert_eq!(told.translated.as_ref().map(|to| to.destination.as_str()), Some("127.0.0.1"));
        assert_eq!(commands(told)[0], Some("sysctl -w net.ipv4.conf.br0.route_localnet=1"));
    }
}

/// A guest's packets are too big for a VXLAN device that stands on a NIC of 1,500 bytes.
fn too_big_for_a_tunnel(largest: u32) -> (bool, Vec<String>) {
    let (tunnel, nic) = (UPLINK, IfIndex(90));
    let mut world = World::new();
    let mut lower = world.link(UPLINK).clone();
    (lower.index, lower.name, lower.master, lower.port) = (nic, "eth0".to_owned(), None, None);
    world.host.links.insert(nic, lower);
    let link = world.link(tunnel);
    (link.name, link.mtu, link.lower) = ("vx0".to_owned(), 1_400, Some(nic));
    link.kind =
        LinkKind::Vxlan { vni: 7, remote: None, local: Some([192, 0, 2, 1].into()), port: 4_789, dont_fragment: 0 };
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |counters| counters.largest = largest);
    world.dropped(ping, ("NOT_SPECIFIED", "br_dev_queue_push_xmit", tunnel), 4, largest, &["br_forward"]);
    let told = world.verdict(ping);
    assert_eq!(told.cause, Some(Cause::BridgeMtuExceeded), "{told:?}");
    let advice = told.fixes.iter().position(|fix| fix.why.contains("MTU of the guest's interface")).unwrap();
    let command = told.fixes.iter().position(|fix| fix.command.is_some()).unwrap();
    (command < advice, told.fixes.into_iter().filter_map(|fix| fix.command).collect())
}

#[test]
fn a_tunnel_gets_what_its_underlay_carries_and_the_underlay_grows_last() {
    assert_eq!(too_big_for_a_tunnel(1_450), (true, vec!["ip link set dev vx0 mtu 1450".to_owned()]));
    let wider = "ip link set dev eth0 mtu 1550 && ip link set dev vx0 mtu 1500";
    assert_eq!(too_big_for_a_tunnel(1_500), (false, vec![wider.to_owned()]));
}

/// What is said of a guest's frames that come from a MAC address that is not its interface's; answers go to `answered`.
#[derive(Debug, PartialEq, Eq)]
enum Told {
    Nothing,
    Advice,
    Command,
}

fn foreign_mac(foreign: MacAddress, source: &str, answered: Option<MacAddress>) -> Told {
    let mut world = World::new();
    let ping = echo(source, LAN);
    for (device, direction) in [(TAP, Ingress), (UPLINK, Egress)] {
        world.seen(ping, device, direction, |counters| counters.source_mac = foreign);
    }
    if let Some(answered) = answered {
        let back = |counters: &mut kvmtrace::event::FlowCounters| {
            (counters.source_mac, counters.destination_mac) = (mac(0x64), answered);
        };
        let reply = flow(Protocol::Icmp { kind: 0, code: 0, id: 7 }, LAN, source);
        world.seen(reply, UPLINK, Ingress, back);
        world.seen(reply, TAP, Egress, back);
    }
    let report = world.report();
    let found = report.findings.iter().find(|finding| finding.cause == Cause::MacSpoofed);
    match found.map(|found| found.fixes[0].command.is_some()) {
        None => Told::Nothing,
        Some(false) => Told::Advice,
        Some(true) => Told::Command,
    }
}

#[test]
fn a_mac_address_that_is_answered_and_nobody_elses_is_a_nested_guests() {
    assert_eq!(foreign_mac(mac(0x33), "10.0.0.31", Some(mac(0x33))), Told::Nothing);
    // The guest's address has moved to a bridge within.
    assert_eq!(foreign_mac(mac(0x33), GUEST, Some(mac(0x33))), Told::Nothing);
    // Nobody answers: it may be forged, but nothing says so, and a rule would end nested guests.
    assert_eq!(foreign_mac(mac(0x33), "10.0.0.31", None), Told::Advice);
    assert_eq!(foreign_mac(mac(0xb0), GUEST, Some(mac(0xb0))), Told::Command, "this host's own");
    assert_ne!(foreign_mac(mac(2), GUEST, Some(mac(2))), Told::Advice, "its neighbour's");
}

/// A request that came in for the guest's address, and for a MAC address that nobody here has.
fn sent_to(last: u8) -> FlowReport {
    let mut world = World::new();
    world.host.guests[0].interfaces[0].addresses.push(GUEST.parse().unwrap());
    let ping = echo(LAN, GUEST);
    for (device, direction) in [(UPLINK, Ingress), (TAP, Egress)] {
        world.seen(ping, device, direction, |counters| {
            (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(last));
        });
    }
    world.verdict(ping)
}

#[test]
fn a_machine_beyond_that_sends_to_a_former_mac_address_is_named() {
    let told = sent_to(0x77);
    assert_eq!((told.cause, told.severity), (Some(Cause::NeighbourStale), Severity::Error), "{told:?}");
    assert!(told.explanation.contains("52:54:00:aa:00:77"), "{}", told.explanation);
    assert_ne!(sent_to(1).cause, Some(Cause::NeighbourStale));
}

/// A guest behind a bridge has an address of the uplink's network, by a route of its own.
fn behind(prefix: u8, proxied: bool) -> FlowReport {
    let (guest, own) = ("203.0.113.11", "203.0.113.2");
    let mut world = World::new();
    let uplink = world.link(UPLINK);
    (uplink.master, uplink.port) = (None, None);
    uplink.addresses.push(Network { address: own.parse().unwrap(), prefix: 24 });
    let route = |destination: &str, prefix, device| Route {
        destination: Network { address: destination.parse().unwrap(), prefix },
        gateway: None,
        device: Some(device),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    };
    world.host.routes = vec![route("203.0.113.0", 24, UPLINK), route(guest, prefix, BRIDGE)];
    world.host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    world.host.guests[0].interfaces[0].addresses.push(guest.parse().unwrap());
    if proxied {
        world.host.proxies.push((guest.parse().unwrap(), UPLINK));
    }
    let ping = echo(guest, "203.0.113.1");
    for (device, direction) in [(TAP, Ingress), (BRIDGE, Ingress), (UPLINK, Egress)] {
        world.seen(ping, device, direction, |counters| counters.destination_mac = mac(0xb0));
    }
    world.verdict(ping)
}

#[test]
fn a_guest_with_an_address_of_the_uplinks_network_needs_a_proxy_there() {
    let told = behind(32, false);
    assert_eq!(told.cause, Some(Cause::NeighbourUnresolved), "{told:?}");
    assert_eq!(commands(&told)[0], Some("ip neigh add proxy 203.0.113.11 dev eth0"));
    assert_eq!(behind(32, true).cause, Some(Cause::NoReply));
}

/// A ping of 1,400 bytes that a queueing discipline of the uplink drops, or that gets lost behind it.
fn queued(kind: &str, setting: &str, burst: Option<u32>, lost: u64) -> FlowReport {
    let mut world = World::new();
    world.host.qdiscs.push(Qdisc {
        device: UPLINK,
        kind: kind.to_owned(),
        handle: "8001:".to_owned(),
        parent: "root".to_owned(),
        drops: lost,
        overlimits: 0,
        backlog: 0,
        setting: Some(setting.to_owned()),
        burst,
        policers: Vec::new(),
    });
    let ping = echo(GUEST, LAN);
    for (device, direction) in [(TAP, Ingress), (UPLINK, Egress)] {
        world.seen(ping, device, direction, |counters| counters.largest = 1_400);
    }
    if lost > 0 {
        world.dropped(ping, ("QDISC_DROP", "__dev_queue_xmit", UPLINK), lost, 1_400, &["br_dev_queue_push_xmit"]);
    }
    world.verdict(ping)
}

#[test]
fn netem_is_told_as_what_it_is_and_where_it_is() {
    for lost in [4, 0] {
        let told = queued("netem", "corrupt 80%", None, lost);
        assert_eq!((told.cause, told.place.unwrap().device.as_deref()), (Some(Cause::Netem), Some("eth0")), "{lost}");
        assert!(told.explanation.contains("corrupt 80%"));
    }
}

#[test]
fn a_token_bucket_that_no_packet_fits_into_gets_a_burst_and_keeps_its_rate() {
    let told = queued("tbf", "rate 10000000bit limit 63500b", Some(1_000), 4);
    let wider = "tc qdisc change dev eth0 root tbf rate 10000000bit limit 63500b burst 3028b";
    assert_eq!((told.cause, commands(&told)[0]), (Some(Cause::QdiscLimit), Some(wider)));
    let told = queued("tbf", "rate 10000000bit limit 63500b", Some(2_000), 4);
    assert!(!told.explanation.contains("burst"), "{}", told.explanation);
}

/// A filter at a tap drops some of what its guest sends.
fn filtered(policers: Vec<Policer>) -> FlowReport {
    let mut world = World::new();
    world.host.qdiscs.push(Qdisc {
        device: TAP,
        kind: "ingress".to_owned(),
        handle: "ffff:".to_owned(),
        parent: "ingress".to_owned(),
        drops: 0,
        overlimits: 0,
        backlog: 0,
        setting: None,
        burst: None,
        policers,
    });
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |_| ());
    world.dropped(ping, ("TC_INGRESS", "__netif_receive_skb_core", TAP), 3, 84, &["tun_get_user"]);
    world.verdict(ping)
}

#[test]
fn a_policer_is_a_limit_and_its_manager_comes_first() {
    let told = filtered(vec![Policer { egress: false, filter: "u32".to_owned(), rate: 2_000_000 }]);
    assert_eq!(told.cause, Some(Cause::RateLimited), "{told:?}");
    assert!(told.explanation.contains("2000 kbit/s"), "{}", told.explanation);
    assert!(commands(&told)[0].is_none() && told.fixes[0].why.contains("virsh domiftune"));
    let told = filtered(vec![Policer { egress: true, filter: "u32".to_owned(), rate: 2_000_000 }]);
    assert_eq!(told.cause, Some(Cause::TcDrop), "at the other side");
}

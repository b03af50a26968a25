//! Whatever a guest sends: no fix in the report touches what another guest gets or sends, in the model of the host.

use crate::world::{BRIDGE, GUEST, LAN, OTHER_TAP, TAP, UPLINK, World, echo, flow, mac};
use kvmtrace::diagnose::report::Fix;
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::{Backend, Chain, FdbEntry, HostState, Neighbour, Network, Route, Rule};
use kvmtrace::event::names::{NeighbourState, RouteKind};
use kvmtrace::event::{Address, FlowCounters, FlowKey, IfIndex, MacAddress, Protocol};
use kvmtrace::forward::asked::Goal;
use kvmtrace::forward::packet::Packet;
use kvmtrace::forward::reading::{End, Reading};
use kvmtrace::forward::{Entry, walk};
use kvmtrace::topology::Topology;
use proptest::prelude::*;

const NEIGHBOUR: &str = "10.0.0.12";
const HOST: &str = "10.0.0.1";

/// One kind of frames of the guest behind [`TAP`].
#[derive(Clone, Debug)]
struct Frames {
    key: FlowKey,
    macs: (MacAddress, MacAddress),
    packets: u64,
    largest: u32,
    tcp_reset: bool,
    /// Where they were seen behind the guest's own port.
    seen: [bool; 3],
    died: Option<usize>,
}

/// Where packets die: reason, function, device, stack.
const DEATHS: &[(&str, &str, IfIndex, &[&str])] = &[
    (
        "NETFILTER_DROP",
        "nft_do_chain",
        UPLINK,
        &["nft_do_chain_bridge", "nf_hook_slow", "__br_forward", "br_handle_frame"],
    ),
    ("IP_RPFILTER", "ip_rcv_finish_core", BRIDGE, &["ip_rcv"]),
    ("IP_LOCALNET", "ip_rcv_finish_core", BRIDGE, &["ip_rcv"]),
    ("IP_INVALID_SOURCE", "ip_rcv_finish_core", BRIDGE, &["ip_rcv"]),
    ("NOT_SPECIFIED", "br_handle_frame_finish", TAP, &["br_handle_frame"]),
    ("NOT_SPECIFIED", "br_dev_queue_push_xmit", UPLINK, &["br_forward_finish"]),
    ("NOT_SPECIFIED", "br_dev_queue_push_xmit", OTHER_TAP, &["br_forward_finish"]),
    ("PKT_TOO_BIG", "ip_forward", BRIDGE, &["ip_rcv"]),
    ("NO_SOCKET", "__udp4_lib_rcv", BRIDGE, &["ip_protocol_deliver_rcu"]),
    ("NEIGH_FAILED", "neigh_invalidate", BRIDGE, &["neigh_timer_handler"]),
    ("MAC_INVALID_SOURCE", "br_handle_frame", TAP, &["__netif_receive_skb_core"]),
    ("FULL_RING", "tun_net_xmit", OTHER_TAP, &["dev_hard_start_xmit"]),
    ("IP_OUTNOROUTES", "ip_forward", BRIDGE, &["ip_rcv"]),
    ("OTHERHOST", "ip_rcv_core", BRIDGE, &["ip_rcv"]),
    ("IP_INADDRERRORS", "ip_error", BRIDGE, &["ip_rcv"]),
];

fn addresses() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec![
        GUEST,
        NEIGHBOUR,
        HOST,
        LAN,
        "10.0.0.77",
        "127.0.0.1",
        "192.0.2.9",
        "8.8.8.8",
        "255.255.255.255",
        "0.0.0.0",
        "224.0.0.18",
    ])
}

fn protocols() -> impl Strategy<Value = Protocol> {
    prop::sample::select(vec![
        Protocol::Tcp,
        Protocol::Udp,
        Protocol::Icmp { kind: 8, code: 0, id: 7 },
        Protocol::Icmp { kind: 3, code: 4, id: 0 },
        Protocol::Icmp { kind: 5, code: 1, id: 0 },
        Protocol::Arp { operation: 1 },
        Protocol::Arp { operation: 2 },
        Protocol::Ip(112),
        Protocol::Ip(50),
    ])
}

fn macs() -> impl Strategy<Value = MacAddress> {
    let multicast = MacAddress([1, 0, 0x5e, 0, 0, 0x12]);
    prop::sample::select(vec![mac(1), mac(2), mac(0xb0), mac(0x64), mac(0x99), MacAddress([0xff; 6]), multicast])
}

fn frames() -> impl Strategy<Value = Frames> {
    let ends = (protocols(), addresses(), addresses(), prop::sample::select(vec![53_u16, 67, 68, 80, 9_000]));
    let size = (1_u64..3_000, 60_u32..9_000, any::<bool>());
    let places = (any::<[bool; 3]>(), prop::option::of(0..DEATHS.len()));
    (ends, (macs(), macs()), size, places).prop_map(
        |((protocol, source, destination, port), macs, (packets, largest, tcp_reset), (seen, died))| {
            let mut key = flow(protocol, source, destination);
            key.destination_port = key.destination_port.map(|_| port);
            Frames { key, macs, packets, largest, tcp_reset, seen, died }
        },
    )
}

fn learnt(address: MacAddress, device: IfIndex) -> FdbEntry {
    FdbEntry {
        mac: address,
        device,
        bridge: Some(BRIDGE),
        vlan: None,
        permanent: false,
        fixed: false,
        sticky: false,
        remote: None,
    }
}

/// A host that keeps its guests to their own addresses, and whose other guest talks to the LAN and to the host.
fn world() -> World {
    let mut world = World::new();
    let rules = [r#"iifname "vnet0" ip saddr != 10.0.0.11 drop"#, r#"iifname "vnet0" arp saddr ip != 10.0.0.11 drop"#];
    let rules = rules.iter().zip(1..).map(|(text, number)| Rule {
        handle: Some(6 + u64::from(number)),
        number,
        text: (*text).to_owned(),
        packets: None,
        verdict: Some("drop".to_owned()),
    });
    world.host.netfilter.chains.push(Chain {
        backend: Backend::Nft,
        family: "bridge".to_owned(),
        table: "guard".to_owned(),
        name: "forward".to_owned(),
        hook: Some("forward".to_owned()),
        kind: Some("filter".to_owned()),
        priority: Some(0),
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: rules.collect(),
    });
    for (name, value) in
        [("all.rp_filter", "1"), ("br0.rp_filter", "1"), ("br0.route_localnet", "0"), ("br0.proxy_arp", "0")]
    {
        world.host.sysctls.insert(format!("net.ipv4.conf.{name}"), value.to_owned());
    }
    let network = |address: &str, prefix| Network { address: address.parse().unwrap(), prefix };
    for (destination, gateway) in [(network("10.0.0.0", 24), None), (network("0.0.0.0", 0), Some(LAN.parse().unwrap()))]
    {
        world.host.routes.push(Route {
            destination,
            gateway,
            device: Some(BRIDGE),
            source: None,
            table: 254,
            metric: 0,
            kind: RouteKind::Unicast,
            mtu: None,
        });
    }
    world.host.forwarding.extend([learnt(mac(1), TAP), learnt(mac(2), OTHER_TAP), learnt(mac(0x64), UPLINK)]);
    for (address, last) in [(GUEST, 1), (NEIGHBOUR, 2), (LAN, 0x64)] {
        world.host.neighbours.push(Neighbour {
            address: address.parse().unwrap(),
            device: BRIDGE,
            mac: Some(mac(last)),
            state: NeighbourState::Reachable,
        });
    }
    world.host.guests[0].interfaces[0].addresses.push(GUEST.parse().unwrap());
    world.host.guests[1].interfaces[0].addresses.push(NEIGHBOUR.parse().unwrap());
    let ping = echo(NEIGHBOUR, LAN);
    let to = |source: u8, destination: u8| {
        move |counters: &mut FlowCounters| {
            (counters.source_mac, counters.destination_mac) = (mac(source), mac(destination));
        }
    };
    world.seen(ping, OTHER_TAP, Ingress, to(2, 0x64));
    world.seen(ping, UPLINK, Egress, to(2, 0x64));
    world.seen(ping.reverse(), UPLINK, Ingress, to(0x64, 2));
    world.seen(ping.reverse(), OTHER_TAP, Egress, to(0x64, 2));
    world
}

fn attack(world: &mut World, frames: &Frames) {
    let change = |counters: &mut FlowCounters| {
        (counters.source_mac, counters.destination_mac) = frames.macs;
        (counters.packets, counters.largest) = (frames.packets, frames.largest);
        counters.bytes = frames.packets * u64::from(frames.largest);
        counters.tcp_reset = u32::from(frames.tcp_reset) * 1_000;
    };
    world.seen(frames.key, TAP, Ingress, change);
    for (place, _) in [(BRIDGE, Ingress), (UPLINK, Egress), (OTHER_TAP, Egress)]
        .into_iter()
        .zip(frames.seen)
        .filter(|(_, seen)| *seen)
    {
        world.seen(frames.key, place.0, place.1, change);
    }
    if let Some((reason, function, device, stack)) = frames.died.map(|died| DEATHS[died]) {
        world.dropped(frames.key, (reason, function, device), frames.packets, frames.largest, stack);
    }
}

/// Where the packets of the other guest, and those for it, end.
fn neighbours_ends(host: &HostState) -> Vec<End> {
    let topology = Topology::new(host);
    let cases = [
        (echo(NEIGHBOUR, LAN), (2, 0x64), Entry::Guest(OTHER_TAP), Goal::Beyond),
        (echo(LAN, NEIGHBOUR), (0x64, 2), Entry::Wire(UPLINK), Goal::Guest(OTHER_TAP)),
        (echo(NEIGHBOUR, HOST), (2, 0xb0), Entry::Guest(OTHER_TAP), Goal::Host),
        (flow(Protocol::Arp { operation: 1 }, NEIGHBOUR, LAN), (2, 0), Entry::Guest(OTHER_TAP), Goal::Beyond),
    ];
    let end = |(key, (source, destination), entry, goal): &(FlowKey, (u8, u8), Entry, Goal)| {
        let mut packet = Packet::of_flow(key, 84);
        packet.source_mac = Some(mac(*source));
        packet.destination_mac = Some(if *destination == 0 { MacAddress([0xff; 6]) } else { mac(*destination) });
        let walk = walk(&topology, &packet, *entry);
        Reading::new(&walk, &packet, *goal).end()
    };
    cases.iter().map(end).collect()
}

fn harm(host: &HostState, fix: &Fix) -> Option<String> {
    let command = fix.command.as_deref()?;
    let mut changed = host.clone();
    for effect in &fix.effects {
        effect.apply(&mut changed);
    }
    let (before, after) = (neighbours_ends(host), neighbours_ends(&changed));
    if before != after {
        return Some(format!("`{command}`: {before:?} became {after:?}"));
    }
    // What takes the neighbour's port or address in hand, or a protection away, is never for the attacker to ask.
    // A longer ring takes nothing from its reader.
    if command.contains("txqueuelen") {
        return None;
    }
    let touches =
        ["vnet1", "nomaster", "delete rule", "proxy_arp", "route_localnet", "ip route", "ip addr", "rp_filter"];
    touches.iter().find(|word| command.contains(**word)).map(|word| format!("`{command}` has {word}"))
}

#[test]
fn the_other_guest_is_served_before_any_attack() {
    let ends = neighbours_ends(&world().host);
    assert!(ends.iter().all(|end| matches!(end, End::Delivered | End::Leaves)), "{ends:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn frames_of_one_guest_never_make_a_fix_that_touches_another(attacks in prop::collection::vec(frames(), 1..6)) {
        let mut world = world();
        // A flow's counters only grow; one key sent twice would shrink them.
        let mut told = std::collections::BTreeSet::new();
        for frames in attacks.iter().filter(|frames| told.insert(frames.key)) {
            attack(&mut world, frames);
        }
        let report = world.report();
        let fixes = report.flows.iter().flat_map(|flow| &flow.fixes).chain(report.findings.iter().flat_map(|finding| &finding.fixes));
        for fix in fixes {
            let harm = harm(&world.host, fix);
            prop_assert!(harm.is_none(), "{harm:?}");
        }
        // What is said of the other guest stays true, unless the attacker took what is its own.
        let taken = attacks.iter().any(|frames| {
            let source = [Address::Ip(NEIGHBOUR.parse().unwrap()), Address::Ip(LAN.parse().unwrap())];
            source.contains(&frames.key.source) || [mac(2), mac(0x64)].contains(&frames.macs.0)
        });
        let told = report.flows.iter().find(|flow| flow.guest.as_deref() == Some("web2") && flow.source == NEIGHBOUR && flow.protocol == "icmp");
        prop_assert!(taken || told.is_some_and(|flow| flow.cause.is_none()), "{told:?}");
    }
}

/// A guest sends longer packets than its port is made for, as a flow of its neighbour's that goes well.
#[test]
fn a_size_sent_in_a_neighbours_name_sets_no_mtu() {
    let mut world = world();
    let own = flow(Protocol::Icmp { kind: 8, code: 0, id: 7 }, NEIGHBOUR, LAN);
    let attack = Frames {
        key: own,
        macs: (mac(1), mac(1)),
        packets: 1,
        largest: 1_501,
        tcp_reset: false,
        seen: [false; 3],
        died: Some(6),
    };
    self::attack(&mut world, &attack);
    let report = world.report();
    for fix in report.flows.iter().flat_map(|flow| &flow.fixes) {
        assert!(harm(&world.host, fix).is_none(), "{fix:?}");
    }
}

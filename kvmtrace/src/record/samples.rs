//! A small trace in which every kind of event, and every type within one, occurs: what the golden recording holds. The file is
//! long because it is that one trace.

use crate::event::bond::{Bond, BondLeg, BondMode};
use crate::event::configuration::{Configuration, ConfigurationSystem, DeviceConfiguration};
use crate::event::host::{
    Backend, BridgePort, BridgeState, Chain, FdbEntry, Guest, GuestInterface, Link, LinkKind, LinkStatistics,
    Neighbour, Netfilter, Network, PortState, PortVlan, Qdisc, Route, Rule, Set,
};
use crate::event::names::{MacvtapMode, NeighbourState, RouteKind, RuleAction};
use crate::event::overlay::{
    IpsecDirection, IpsecPolicy, IpsecSelector, IpsecState, IpsecTemplate, Overlay, RealServer, TunnelEnds,
    VirtualService, WireguardPeer,
};
use crate::event::switch::{
    Switch, SwitchBridge, SwitchEntry, SwitchFlow, SwitchInterface, SwitchKind, SwitchPort, SwitchVlans,
};
use crate::event::{
    Address, CommandEnd, Degraded, Direction, DropSample, DropSite, Event, EventKind, FlowCounters, FlowKey,
    FlowSample, HostState, IfIndex, Loss, MacAddress, PacketCause, PacketRecord, Place, PolicyRule, Protocol, RuleDrop,
    RuleMark, RuleSite, Started, Timestamp,
};
use std::net::IpAddr;

const START: u64 = 1_795_000_000_000_000_000;
const GUEST_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0xaa, 0, 1]);
const ROUTER_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0xaa, 0, 0xfe]);

/// The events of two seconds in which `web1` talks UDP through `br0` and half of it is dropped at `eth0`.
pub(crate) fn trace() -> Vec<Event> {
    let mut events = vec![
        at(
            0,
            EventKind::Started(Started {
                version: "0.1.0".to_owned(),
                devices: vec!["vnet0".to_owned()],
                guests: vec!["web1".to_owned()],
                all: false,
                filter: "udp".to_owned(),
                followed: false,
            }),
        ),
        at(1, EventKind::Host(std::sync::Arc::new(host()))),
        at(2, EventKind::Degraded(Degraded { what: "icmp errors".to_owned(), why: "no such tracepoint".to_owned() })),
    ];
    for number in 0..40_u16 {
        let time = 1_000_000 * u64::from(number) * 50;
        events.push(at(time, packet(number, PacketCause::First, Some(place(3, Direction::Ingress)))));
        let stack = vec!["br_dev_queue_push_xmit".to_owned(), "br_forward".to_owned()];
        events.push(at(time + 10, packet(number, PacketCause::Dropped { site: site(), stack }, None)));
        events.push(at(time + 20, sample(number, place(3, Direction::Ingress), 12)));
        events.push(at(time + 21, sample(number, place(2, Direction::Egress), 6)));
        events.push(at(
            time + 30,
            EventKind::Drop(DropSample {
                flow: flow(number),
                site: site(),
                packets: 6,
                bytes: 6 * 4014,
                first: Timestamp(START + time + 10),
                largest: 4000,
            }),
        ));
    }
    for cause in [PacketCause::IcmpError, PacketCause::MacChanged, PacketCause::Wanted] {
        events.push(at(2_000_000_000, packet(1, cause, Some(place(3, Direction::Egress)))));
    }
    let others = [
        Protocol::Tcp,
        Protocol::Sctp,
        Protocol::Icmp { kind: 8, code: 0, id: 7 },
        Protocol::Icmpv6 { kind: 128, code: 0, id: 7 },
        Protocol::Arp { operation: 1 },
        Protocol::Ip(47),
        Protocol::Ethernet(0x88cc),
    ];
    for protocol in others {
        let address = match protocol {
            Protocol::Ethernet(_) => Address::Mac(GUEST_MAC),
            Protocol::Icmpv6 { .. } => Address::Ip("fd00::1".parse().unwrap()),
            Protocol::Tcp
            | Protocol::Udp
            | Protocol::Sctp
            | Protocol::Icmp { .. }
            | Protocol::Arp { .. }
            | Protocol::Ip(_) => Address::Ip("10.0.0.9".parse().unwrap()),
        };
        let ports = matches!(protocol, Protocol::Tcp | Protocol::Sctp).then_some(80);
        let flow = FlowKey {
            protocol,
            source: address,
            source_port: ports,
            destination: address,
            destination_port: ports,
            vlan: Some(5),
        };
        let EventKind::Flow(sample) = sample(0, place(3, Direction::Ingress), 1) else { unreachable!() };
        events.push(at(2_000_000_001, EventKind::Flow(FlowSample { flow, ..sample })));
    }
    let rule = RuleSite {
        family: "inet".to_owned(),
        table: "filter".to_owned(),
        base: "forward".to_owned(),
        chain: "guests".to_owned(),
        handle: Some(7),
    };
    events.push(at(2_000_000_050, EventKind::RuleDrop(RuleDrop { flow: flow(1), rule, packets: 2 })));
    events.push(at(2_000_000_100, EventKind::Loss(Loss { ring_events: 3, map_full: 1, ..Loss::default() })));
    events.push(at(2_000_000_200, EventKind::Host(std::sync::Arc::new(host()))));
    events.push(at(2_000_000_300, EventKind::Command(CommandEnd { status: 1 })));
    events.push(at(2_000_000_300, EventKind::Ended));
    events
}

/// A conversation of one packet each way through host `name`: `out` says whether the guest here asks or answers. The
/// times are those of the four sightings, in order, by this host's clock.
pub(crate) fn conversation(name: &str, out: bool, clock: u64, times: [u64; 4]) -> Vec<Event> {
    let (tap, nic) = (IfIndex(3), IfIndex(2));
    let (inward, outward) = if out { (tap, nic) } else { (nic, tap) };
    let ask = flow(1);
    let sightings = [
        (ask, inward, Direction::Ingress),
        (ask, outward, Direction::Egress),
        (ask.reverse(), outward, Direction::Ingress),
        (ask.reverse(), inward, Direction::Egress),
    ];
    let started = Started { version: "0.1.0".to_owned(), all: true, ..started() };
    let mut events = vec![
        at(clock, EventKind::Started(started)),
        at(clock, EventKind::Host(std::sync::Arc::new(HostState { name: name.to_owned(), netns: None, ..host() }))),
    ];
    for ((flow, device, direction), time) in sightings.into_iter().zip(times) {
        let EventKind::Flow(mut sample) = sample(0, Place { device, direction }, 1) else { unreachable!() };
        sample.flow = flow;
        sample.counters.first = Timestamp(START + clock + time);
        events.push(at(clock + 1_000_000_000, EventKind::Flow(sample)));
    }
    events
}

fn started() -> Started {
    Started {
        version: String::new(),
        devices: Vec::new(),
        guests: Vec::new(),
        all: false,
        filter: String::new(),
        followed: false,
    }
}

fn at(after: u64, kind: EventKind) -> Event {
    Event { time: Timestamp(START + after), kind }
}

fn place(device: u32, direction: Direction) -> Place {
    Place { device: IfIndex(device), direction }
}

fn flow(number: u16) -> FlowKey {
    FlowKey {
        protocol: Protocol::Udp,
        source: Address::Ip("10.0.0.1".parse().unwrap()),
        source_port: Some(40_000 + number),
        destination: Address::Ip("10.0.0.254".parse().unwrap()),
        destination_port: Some(9000),
        vlan: None,
    }
}

fn site() -> DropSite {
    DropSite {
        reason: Some("NOT_SPECIFIED".to_owned()),
        function: Some("br_dev_queue_push_xmit".to_owned()),
        offset: 70,
        device: Some(IfIndex(2)),
    }
}

fn sample(number: u16, place: Place, packets: u64) -> EventKind {
    EventKind::Flow(FlowSample {
        flow: flow(number),
        place,
        counters: FlowCounters {
            packets,
            bytes: packets * 4014,
            first: Timestamp(START + 1000),
            fragments: 2,
            fragmented: 1,
            gso: 0,
            largest: 4000,
            tcp_syn: 0,
            tcp_syn_ack: 0,
            tcp_reset: 0,
            tcp_fin: 0,
            dont_fragment: true,
            may_fragment: false,
            source_mac_changed: false,
            malformed: false,
            source_mac: GUEST_MAC,
            destination_mac: ROUTER_MAC,
            time_to_live: 64,
            repeated: 0,
            repeated_bytes: 0,
            missing_bytes: 0,
        },
    })
}

fn packet(number: u16, cause: PacketCause, place: Option<Place>) -> EventKind {
    let mut header = [ROUTER_MAC.0, GUEST_MAC.0].concat();
    header.extend([8, 0, 0x45, 0, 0x0f, 0xa0, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 254]);
    header.extend((40_000 + number).to_be_bytes());
    header.extend([0x23, 0x28, 0x0f, 0x8c, 0, 0]);
    header.extend([0x5a; 64]);
    let ethernet = place.is_some();
    EventKind::Packet(Box::new(PacketRecord {
        cause,
        flow: flow(number),
        place,
        input_device: Some(IfIndex(3)),
        count: 1,
        length: if ethernet { 4014 } else { 4000 },
        gso_size: 0,
        segments: 1,
        ether_type: 0x0800,
        ethernet,
        header: if ethernet { header } else { header.split_off(14) },
    }))
}

fn link(index: u32, name: &str, kind: LinkKind, master: Option<u32>, port: Option<BridgePort>) -> (IfIndex, Link) {
    let link = Link {
        index: IfIndex(index),
        name: name.to_owned(),
        kind,
        mac: Some(MacAddress([2, 0, 0, 0, 0, index as u8])),
        mtu: if index == 2 { 1500 } else { 9000 },
        up: true,
        carrier: true,
        ethernet: true,
        arp_off: false,
        master: master.map(IfIndex),
        lower: None,
        peer: None,
        queue_length: 1000,
        qdisc: "fq_codel".to_owned(),
        port,
        xdp: None,
        large_receive: false,
        addresses: vec![Network { address: "10.0.0.253".parse().unwrap(), prefix: 24 }],
        statistics: LinkStatistics { rx_packets: 10, rx_dropped: 1, ..LinkStatistics::default() },
    };
    (IfIndex(index), link)
}

#[allow(clippy::too_many_lines, reason = "a list of one of each")]
fn host() -> HostState {
    let vlan = PortVlan { id: 1, last: None, pvid: true, untagged: true };
    let port = BridgePort {
        state: PortState::Forwarding,
        isolated: false,
        locked: false,
        flood: true,
        multicast_flood: true,
        broadcast_flood: true,
        learning: true,
        hairpin: false,
        bpdu_guard: false,
        group_forward_mask: 0x4000,
        vlans: vec![vlan],
    };
    let bridge = BridgeState { multicast_snooping: true, vlans: vec![vlan], ..BridgeState::default() };
    let tunnel = LinkKind::Vxlan { vni: 42, remote: None, local: None, port: 4789, dont_fragment: 0 };
    let uplink = Some(BridgePort { state: PortState::Blocking, ..port.clone() });
    let rule = Rule {
        handle: Some(4),
        number: 1,
        text: "tcp dport 80 drop".to_owned(),
        packets: Some(3),
        verdict: Some("drop".to_owned()),
    };
    let chain = Chain {
        backend: Backend::Nft,
        family: "inet".to_owned(),
        table: "filter".to_owned(),
        name: "forward".to_owned(),
        hook: Some("forward".to_owned()),
        kind: Some("filter".to_owned()),
        priority: Some(0),
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: vec![rule],
    };
    let configured = DeviceConfiguration {
        system: ConfigurationSystem::Netplan,
        file: "/etc/netplan/50-cloud.yaml".to_owned(),
        entry: "eth0".to_owned(),
    };
    HostState {
        name: "kvm7".to_owned(),
        kernel: "6.18.44".to_owned(),
        netns: Some("tenant-7".to_owned()),
        conntrack_bound_fixed: true,
        timezone: Some("Europe/Berlin".to_owned()),
        links: [
            link(1, "lo", LinkKind::Loopback, None, None),
            link(2, "eth0", LinkKind::Physical, Some(4), uplink),
            link(3, "vnet0", LinkKind::Tun, Some(4), Some(port)),
            link(4, "br0", LinkKind::Bridge(bridge), None, None),
            link(5, "vx0", tunnel, None, None),
            link(6, "macvtap0", LinkKind::Macvtap { mode: MacvtapMode::Bridge }, None, None),
            link(7, "weird0", LinkKind::Other("ifb".to_owned()), None, None),
        ]
        .into(),
        policy_rules: vec![PolicyRule {
            v6: false,
            priority: 100,
            source: Some(Network { address: "10.0.0.1".parse().unwrap(), prefix: 32 }),
            destination: Some(Network { address: "10.0.9.0".parse().unwrap(), prefix: 24 }),
            input: Some("br0".to_owned()),
            action: RuleAction::Prohibit,
            table: 0,
            narrower: false,
            suppress: Some(0),
            output: Some("eth0".to_owned()),
            mark: Some(RuleMark { value: 5, mask: 0xff }),
            protocol: Some(6),
            source_ports: Some((1, 1024)),
            destination_ports: Some((443, 443)),
            inverted: true,
            target: Some(200),
        }],
        routes: vec![Route {
            destination: Network { address: "0.0.0.0".parse().unwrap(), prefix: 0 },
            gateway: Some("10.0.0.254".parse().unwrap()),
            device: Some(IfIndex(4)),
            source: None,
            table: 254,
            metric: 100,
            kind: RouteKind::Unicast,
            mtu: None,
        }],
        proxies: vec![("10.0.0.7".parse().unwrap(), IfIndex(4))],
        duplicates: vec![(Network { address: "fd00::7".parse().unwrap(), prefix: 64 }, IfIndex(4))],
        neighbours: vec![Neighbour {
            address: "10.0.0.254".parse().unwrap(),
            device: IfIndex(4),
            mac: Some(ROUTER_MAC),
            state: NeighbourState::Reachable,
        }],
        forwarding: vec![FdbEntry {
            mac: GUEST_MAC,
            device: IfIndex(3),
            bridge: Some(IfIndex(4)),
            vlan: None,
            permanent: false,
            fixed: false,
            sticky: false,
            remote: None,
        }],
        qdiscs: vec![Qdisc {
            device: IfIndex(2),
            kind: "fq_codel".to_owned(),
            handle: "0:".to_owned(),
            parent: "root".to_owned(),
            drops: 0,
            overlimits: 0,
            backlog: 0,
            setting: Some("loss 10%".to_owned()),
            burst: None,
            policers: vec![crate::event::host::Policer { egress: true, filter: "u32".to_owned(), rate: 1 }],
        }],
        sysctls: [("net.ipv4.ip_forward".to_owned(), "1".to_owned())].into(),
        counters: [("Ip.FragFails".to_owned(), 2)].into(),
        netfilter: Netfilter {
            chains: vec![chain],
            sets: vec![Set {
                family: "inet".to_owned(),
                table: Some("filter".to_owned()),
                name: "closed".to_owned(),
                elements: vec!["10.0.0.7".to_owned()],
                complete: true,
                kind: Some("ipv4_addr".to_owned()),
                answers: vec!["drop".to_owned()],
            }],
        },
        guests: vec![Guest {
            name: "web1".to_owned(),
            uuid: None,
            pid: Some(4711),
            manager: Some("libvirt".to_owned()),
            interfaces: vec![GuestInterface::new(
                IfIndex(3),
                "tap",
                Some(GUEST_MAC),
                vec!["10.0.0.1".parse().unwrap()],
            )],
            stopped: false,
            paused: false,
            worked_ns: 12_345_678,
        }],
        missing: vec![("ebtables".to_owned(), "not installed".to_owned())],
        overlay: overlay(),
        switch: switch(),
        bonds: bonds(),
        configuration: Configuration {
            devices: [("eth0".to_owned(), configured)].into(),
            sysctls: [("net.ipv4.ip_forward".to_owned(), "/etc/sysctl.conf".to_owned())].into(),
            firewall: vec!["/etc/nftables.conf".to_owned()],
            proxmox: false,
        },
    }
}

fn bonds() -> std::collections::BTreeMap<IfIndex, Bond> {
    let modes = [
        BondMode::BalanceRr,
        BondMode::ActiveBackup,
        BondMode::BalanceXor,
        BondMode::Broadcast,
        BondMode::Lacp,
        BondMode::BalanceTlb,
        BondMode::BalanceAlb,
        BondMode::Unknown,
    ];
    let leg = BondLeg { backup: true, failed: false, aggregator: Some(2) };
    let bond = |mode| Bond {
        mode,
        active: Some(IfIndex(3)),
        primary: Some(IfIndex(3)),
        all_active: false,
        mii_monitor: 100,
        arp_monitor: 1000,
        aggregator: Some(1),
        partner: Some(GUEST_MAC),
        legs: [(IfIndex(3), leg)].into(),
    };
    (30..).map(IfIndex).zip(modes.map(bond)).collect()
}

fn switch() -> Switch {
    let kinds = [
        SwitchKind::System,
        SwitchKind::Internal,
        SwitchKind::Patch(Some("patch1".to_owned())),
        SwitchKind::Tunnel("geneve".to_owned(), Some(IpAddr::from([192, 0, 2, 9])), Some(7)),
        SwitchKind::Other("dpdk".to_owned()),
    ];
    let interface = |(number, kind): (u16, SwitchKind)| SwitchInterface {
        name: format!("vnet{number}"),
        kind,
        number: Some(number),
        error: Some("could not open network device".to_owned()),
    };
    let port = |vlans| SwitchPort {
        name: "vnet0".to_owned(),
        vlans,
        interfaces: (1..).zip(kinds.clone()).map(interface).collect(),
    };
    let vlans = [
        SwitchVlans::Trunk(vec![7]),
        SwitchVlans::Access(7),
        SwitchVlans::Native(7, vec![8], true),
        SwitchVlans::Wrapped(9),
    ];
    let flow = SwitchFlow {
        table: 1,
        priority: 100,
        fields: "icmp,nw_src=10.0.0.1".to_owned(),
        actions: "drop".to_owned(),
        packets: 3,
    };
    Switch {
        directory: Some("/opt/run/openvswitch".to_owned()),
        bridges: vec![SwitchBridge {
            name: "br-int".to_owned(),
            forwards_reserved: true,
            ports: vlans.map(port).into(),
            flows: Some(vec![flow]),
            learnt: vec![SwitchEntry { port: 1, vlan: 7, mac: GUEST_MAC }],
        }],
    }
}

fn overlay() -> Overlay {
    let network = |address: [u8; 4], prefix| Network { address: address.into(), prefix };
    let end = |last| Some(IpAddr::from([192, 0, 2, last]));
    let tunnel =
        TunnelEnds { local: end(1), remote: end(9), key: Some(7), input_key: Some(8), port: 6081, dont_fragment: true };
    let policy = |direction| IpsecPolicy {
        direction,
        priority: 100,
        selector: IpsecSelector {
            source: network([10, 0, 0, 0], 24),
            destination: network([10, 1, 0, 0], 16),
            protocol: 6,
            source_port: (1, 0xffff),
            destination_port: (2, 0xffff),
            device: Some(IfIndex(2)),
        },
        blocks: true,
        mark: (5, 0xff),
        interface: 3,
        templates: vec![IpsecTemplate {
            source: IpAddr::from([192, 0, 2, 1]),
            destination: IpAddr::from([192, 0, 2, 9]),
            protocol: 50,
            spi: 0x1000,
            request: 4,
            tunnel: true,
            optional: false,
        }],
    };
    Overlay {
        tunnels: [(IfIndex(7), tunnel)].into(),
        policies: [IpsecDirection::In, IpsecDirection::Out, IpsecDirection::Forward].map(policy).into(),
        states: vec![IpsecState {
            source: IpAddr::from([192, 0, 2, 1]),
            destination: IpAddr::from([192, 0, 2, 9]),
            protocol: 50,
            spi: 0x1000,
            request: 4,
            tunnel: true,
            in_udp: true,
        }],
        peers: [(
            IfIndex(8),
            vec![WireguardPeer {
                key: "abcdef0123456789".to_owned(),
                endpoint: Some((IpAddr::from([192, 0, 2, 9]), 51_820)),
                allowed: vec![network([10, 9, 0, 0], 16)],
                has_shaken_hands: true,
            }],
        )]
        .into(),
        services: vec![VirtualService {
            protocol: Some(6),
            address: end(1),
            port: 80,
            servers: vec![RealServer {
                address: IpAddr::from([10, 0, 0, 2]),
                port: 8080,
                forward: "Masq".to_owned(),
                weight: 1,
            }],
        }],
    }
}

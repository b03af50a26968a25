//! No fix takes a protection away, opens more than the flow needs, or believes what only a guest claims.

use crate::world::{BRIDGE, GUEST, LAN, OTHER_TAP, TAP, UPLINK, World, echo, flow, mac};
use kvmtrace::diagnose::report::{Cause, FlowReport, Severity};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::{Backend, Chain, LinkKind, Rule};
use kvmtrace::event::{FlowKey, Protocol};

/// A chain of a hook with rules that drop.
fn chain(backend: Backend, family: &str, table: &str, name: &str, rules: &[&str]) -> Chain {
    let rules = rules.iter().zip(1..).map(|(text, number)| Rule {
        handle: Some(6 + u64::from(number)),
        number,
        text: (*text).to_owned(),
        packets: None,
        verdict: Some(if text.ends_with("accept") { "accept" } else { "drop" }.to_owned()),
    });
    Chain {
        backend,
        family: family.to_owned(),
        table: table.to_owned(),
        name: name.to_owned(),
        hook: Some("forward".to_owned()),
        kind: Some("filter".to_owned()),
        priority: Some(0),
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: rules.collect(),
    }
}

const OF_BRIDGE: &[&str] = &["nft_do_chain_bridge", "nf_hook_slow", "__br_forward", "br_handle_frame"];
const BRIDGED_IP: &[&str] = &["nft_do_chain_ipv4", "nf_hook_slow", "br_nf_forward_ip", "nf_hook_slow", "__br_forward"];

/// What a packet of the guest's is judged as that a rule of this chain dropped.
fn filtered(world: &mut World, key: FlowKey, chains: Vec<Chain>, stack: &[&str]) -> FlowReport {
    world.host.netfilter.chains = chains;
    world.seen(key, TAP, Ingress, |_| ());
    world.dropped(key, ("NETFILTER_DROP", "nft_do_chain", UPLINK), 4, 84, stack);
    world.verdict(key)
}

fn commands(flow: &FlowReport) -> Vec<&str> {
    flow.fixes.iter().filter_map(|fix| fix.command.as_deref()).collect()
}

#[test]
fn a_request_without_an_address_passes_a_pin_by_a_rule_of_its_own() {
    let mut request = flow(Protocol::Udp, "0.0.0.0", "255.255.255.255");
    (request.source_port, request.destination_port) = (Some(68), Some(67));
    let pin =
        [r#"iifname "vnet0" ether saddr != 52:54:00:aa:00:01 drop"#, r#"iifname "vnet0" ip saddr != 10.0.0.11 drop"#];
    let pin = chain(Backend::Nft, "bridge", "incus", "fwd.web1.eth0", &pin);
    let told = filtered(&mut World::new(), request, vec![pin], OF_BRIDGE);
    let rule = "insert rule bridge incus fwd.web1.eth0 position 8 iifname \"vnet0\" ip saddr 0.0.0.0 ip daddr 255.255.255.255 udp dport 67 counter accept";
    let commands = commands(&told);
    assert!(commands[0].contains(rule) && commands.len() == 1, "{commands:?}");
    assert!(!commands[0].contains("&&"), "no answer is let through: its sender is not known");
}

#[test]
fn what_is_let_through_a_bridges_chain_is_one_protocol_between_two_hosts() {
    let tunnel = flow(Protocol::Ip(4), GUEST, LAN);
    let mut closed = chain(Backend::Nft, "bridge", "sg", "forward", &[]);
    closed.policy = Some("drop".to_owned());
    let told = filtered(&mut World::new(), tunnel, vec![closed], OF_BRIDGE);
    let commands = commands(&told);
    let way = |from: &str, to: &str| format!("ip saddr {from} ip daddr {to} ip protocol 4 counter accept");
    assert!(commands[0].contains(&way(GUEST, LAN)) && commands[0].contains(&way(LAN, GUEST)), "{commands:?}");
}

#[test]
fn ebtables_and_arptables_are_asked_in_their_words() {
    let ebtables = || chain(Backend::IptablesNft, "bridge", "filter", "FORWARD", &["-A FORWARD -o eth0 -j DROP"]);
    let mut datagrams = flow(Protocol::Udp, GUEST, LAN);
    datagrams.destination_port = Some(53);
    let told = filtered(&mut World::new(), datagrams, vec![ebtables()], OF_BRIDGE);
    let rule = "ebtables-nft -t filter -I FORWARD 1 -p IPv4 --ip-src 10.0.0.11 --ip-dst 10.0.0.100 --ip-proto udp --ip-dport 53 -j ACCEPT";
    assert!(commands(&told)[0].starts_with(rule), "{:?}", told.fixes);
    let request = flow(Protocol::Arp { operation: 1 }, GUEST, LAN);
    let told = filtered(&mut World::new(), request, vec![ebtables()], OF_BRIDGE);
    let rule = "ebtables-nft -t filter -I FORWARD 1 -p ARP --arp-ip-src 10.0.0.11 --arp-ip-dst 10.0.0.100 -j ACCEPT";
    assert!(commands(&told)[0].starts_with(rule), "{:?}", told.fixes);
}

#[test]
fn a_rule_that_protects_stays() {
    for rule in
        ["ct state invalid drop", "iifname \"vnet0\" ip saddr != { 10.0.0.9 } drop", "ip daddr @quarantine drop"]
    {
        let told = filtered(
            &mut World::new(),
            echo(GUEST, LAN),
            vec![chain(Backend::Nft, "bridge", "fw", "forward", &[rule])],
            OF_BRIDGE,
        );
        assert!(commands(&told).iter().all(|command| !command.contains("delete")), "{rule}: {:?}", told.fixes);
    }
}

#[test]
fn the_firewall_of_all_guests_is_not_switched_off_for_one() {
    for (owner, drops) in [
        ("PVEFW-FORWARD", "tap100i0-OUT"),
        ("neutron-filter-top", "neutron-openvswi-i1a2b3c4d-e"),
        ("KUBE-FORWARD", "KUBE-FORWARD"),
        ("ufw-before-forward", "ufw-before-forward"),
        ("DOCKER-USER", "DOCKER-FORWARD"),
    ] {
        let rule = format!("-A {drops} -m physdev --physdev-in vnet0 -j DROP");
        let chains = vec![
            chain(Backend::IptablesNft, "ip", "filter", owner, &[]),
            chain(Backend::IptablesNft, "ip", "filter", drops, &[&rule]),
        ];
        let told = filtered(&mut World::new(), echo(GUEST, LAN), chains, BRIDGED_IP);
        assert_eq!(told.cause, Some(Cause::NetfilterBridgedIp), "{owner}");
        assert!(commands(&told).iter().all(|command| !command.contains("bridge-nf-call")), "{owner}: {:?}", told.fixes);
    }
    // Nobody filters bridged frames there.
    let mut world = World::new();
    let mut closed = chain(Backend::IptablesNft, "ip", "filter", "FORWARD", &[]);
    closed.policy = Some("drop".to_owned());
    let told = filtered(&mut world, echo(GUEST, LAN), vec![closed], BRIDGED_IP);
    assert!(commands(&told)[0].contains("bridge-nf-call-iptables=0"), "{:?}", told.fixes);
}

#[test]
fn proxmox_allows_more_mac_addresses_in_its_own_file() {
    let rule = "-A tap100i0-OUT -m mac ! --mac-source 52:54:00:aa:00:01 -j DROP";
    let chains = vec![
        chain(Backend::IptablesNft, "ip", "filter", "PVEFW-FORWARD", &[]),
        chain(Backend::IptablesNft, "ip", "filter", "tap100i0-OUT", &[rule]),
    ];
    let mut world = World::new();
    let ping = echo("10.0.0.31", LAN);
    world.host.netfilter.chains = chains;
    world.seen(ping, TAP, Ingress, |counters| counters.source_mac = mac(0x33));
    world.dropped(ping, ("NETFILTER_DROP", "nft_do_chain", UPLINK), 4, 84, BRIDGED_IP);
    let told = world.verdict(ping);
    assert!(commands(&told).is_empty(), "{:?}", told.fixes);
    let own = &told.fixes[0].why;
    assert!(own.contains("macfilter: 0") && own.contains("/etc/pve/firewall/100.fw"), "{own}");
}

/// The guests are known to the host, by ARP.
fn resolved() -> World {
    let mut world = World::new();
    for (guest, address) in world.host.guests.iter_mut().zip(["10.0.0.11", "10.0.0.12"]) {
        guest.interfaces[0].addresses.push(address.parse().unwrap());
    }
    world
}

#[test]
fn who_sends_as_its_neighbour_is_named_and_nothing_is_mended() {
    for rule in ["iifname \"vnet0\" ip saddr != 10.0.0.11 drop", "iifname \"vnet0\" ip saddr 10.0.0.12 drop"] {
        let forged = flow(Protocol::Udp, "10.0.0.12", LAN);
        let chains = vec![chain(Backend::Nft, "bridge", "fw", "forward", &[rule])];
        let told = filtered(&mut resolved(), forged, chains, OF_BRIDGE);
        assert_eq!(told.cause, Some(Cause::SourceSpoofed), "{rule}");
        assert!(commands(&told).is_empty(), "{:?}", told.fixes);
        let said = &told.explanation;
        assert!(said.contains("web1") && said.contains("web2") && said.contains("working as configured"), "{said}");
    }
    let forged = flow(Protocol::Udp, "10.0.0.12", LAN);
    let rule = "iifname \"vnet0\" ip saddr != 10.0.0.11 drop";
    let told =
        filtered(&mut resolved(), forged, vec![chain(Backend::Nft, "bridge", "fw", "forward", &[rule])], OF_BRIDGE);
    assert_eq!(told.severity, Severity::Info);
    // The neighbour itself has a right to its address.
    let mut world = resolved();
    let own = flow(Protocol::Udp, "10.0.0.12", LAN);
    world.host.netfilter.chains = vec![chain(Backend::Nft, "bridge", "fw", "forward", &["udp dport 9000 drop"])];
    world.seen(own, OTHER_TAP, Ingress, |counters| counters.source_mac = mac(2));
    world.dropped(own, ("NETFILTER_DROP", "nft_do_chain", UPLINK), 4, 84, OF_BRIDGE);
    assert_eq!(world.verdict(own).cause, Some(Cause::NetfilterBridge));
}

/// What is said of the flow, by the guest whose it is.
fn told_of(world: &World, key: FlowKey, guest: &str) -> Option<FlowReport> {
    let flows = world.report().flows;
    let is_it = |told: &&FlowReport| told.source == key.source.to_string() && told.guest.as_deref() == Some(guest);
    flows.iter().find(is_it).cloned()
}

#[test]
fn what_a_guest_sends_under_its_neighbours_key_is_its_own() {
    let key = flow(Protocol::Udp, "10.0.0.12", LAN);
    let both = |arrived: u64| {
        let mut world = resolved();
        // The attacker is the first to be seen.
        world.seen(key, TAP, Ingress, |_| ());
        world.seen(key, OTHER_TAP, Ingress, |counters| counters.source_mac = mac(2));
        world.seen(key, UPLINK, Egress, |counters| (counters.packets, counters.source_mac) = (arrived, mac(2)));
        world
    };
    // The packet that is shown came in by the attacker's tap.
    let mut world = both(4);
    world.dropped(key, ("NOT_SPECIFIED", "br_forward_finish", UPLINK), 4, 84, &["br_handle_frame"]);
    let own = told_of(&world, key, "web2").unwrap();
    assert_eq!((own.packets, own.dropped), (4, 0), "{own:?}");
    let forged = told_of(&world, key, "web1").unwrap();
    assert_eq!((forged.cause, forged.dropped), (Some(Cause::SourceSpoofed), 4), "{forged:?}");
    assert!(commands(&forged).is_empty() && own.id != forged.id);
    // Nothing tells the senders apart but that the owner's packets did not arrive.
    let mut world = both(0);
    world.dropped(key, ("NETFILTER_DROP", "nft_do_chain", BRIDGE), 4, 84, &["nf_hook_slow", "ip_forward"]);
    world.came_in_by(BRIDGE);
    let own = told_of(&world, key, "web2").unwrap();
    assert_eq!(own.dropped, 4, "{own:?}");
}

#[test]
fn a_source_that_a_guest_invents_gets_no_route_and_no_looser_filter() {
    let forged = flow(Protocol::Udp, "198.51.100.77", "203.0.113.1");
    let mut world = resolved();
    world.seen(forged, TAP, Ingress, |counters| counters.destination_mac = mac(0xb0));
    world.dropped(forged, ("IP_RPFILTER", "ip_rcv_finish_core", BRIDGE), 4, 84, &["ip_rcv"]);
    let told = world.verdict(forged);
    assert_eq!((told.cause, told.severity), (Some(Cause::SourceSpoofed), Severity::Info));
    assert!(commands(&told).is_empty(), "{:?}", told.fixes);
}

#[test]
fn what_a_router_guest_forwards_is_not_its_own_address() {
    // The second interface of web1 leads to another network; what comes back from beyond leaves by it with the far source.
    let mut world = World::new();
    let other = kvmtrace::event::IfIndex(9);
    let mut bridge = world.link(BRIDGE).clone();
    (bridge.index, bridge.name) = (other, "br1".to_owned());
    bridge.addresses.clear();
    world.host.links.insert(other, bridge);
    world.link(OTHER_TAP).master = Some(other);
    // Its other port, with the guest that is routed for.
    let mut third = world.link(OTHER_TAP).clone();
    (third.index, third.name) = (kvmtrace::event::IfIndex(10), "vnet2".to_owned());
    world.host.links.insert(third.index, third);
    let second = world.host.guests.remove(1).interfaces.remove(0);
    world.host.guests[0].interfaces.push(second);
    let far = "192.0.2.5";
    let answer = echo(far, GUEST);
    world.seen(answer, UPLINK, Ingress, |counters| counters.destination_mac = mac(1));
    world.seen(answer, TAP, Egress, |counters| counters.destination_mac = mac(1));
    world.seen(echo(far, "192.168.5.12"), OTHER_TAP, Ingress, |counters| counters.source_mac = mac(2));
    let ping = echo(GUEST, far);
    world.seen(ping, TAP, Ingress, |counters| counters.first.0 += 900_000_000);
    world.seen(ping, UPLINK, Egress, |_| ());
    let report = world.report();
    assert!(report.guests[0].interfaces.iter().all(|interface| !interface.addresses.contains(&far.to_owned())));
    assert!(report.flows.iter().all(|flow| flow.cause != Some(Cause::BridgePortDetached)), "{:?}", report.flows);
}

#[test]
fn a_port_of_another_bridge_is_left_there() {
    let other = kvmtrace::event::IfIndex(9);
    let mut world = World::new();
    let mut bridge = world.link(BRIDGE).clone();
    (bridge.index, bridge.name) = (other, "br1".to_owned());
    bridge.addresses.clear();
    assert!(matches!(bridge.kind, LinkKind::Bridge(_)));
    world.host.links.insert(other, bridge);
    world.link(OTHER_TAP).master = Some(other);
    world.host.guests[1].interfaces[0].addresses.push("10.0.0.12".parse().unwrap());
    let request = flow(Protocol::Arp { operation: 1 }, GUEST, "10.0.0.12");
    world.seen(request, TAP, Ingress, |counters| counters.destination_mac = kvmtrace::event::MacAddress([0xff; 6]));
    let report = world.report();
    let fixes = report.flows.iter().flat_map(|flow| &flow.fixes).chain(report.findings.iter().flat_map(|it| &it.fixes));
    let commands: Vec<&String> = fixes.filter_map(|fix| fix.command.as_ref()).collect();
    assert!(commands.iter().all(|command| !command.contains("master")), "{commands:?}");
}

#[test]
fn a_destination_on_the_loopback_network_is_what_is_martian() {
    let translated = flow(Protocol::Tcp, GUEST, "127.0.0.1");
    let mut world = resolved();
    world.dropped(translated, ("IP_LOCALNET", "ip_rcv_finish_core", BRIDGE), 2, 60, &["ip_rcv"]);
    let told = world.report().flows.into_iter().find(|flow| flow.destination == "127.0.0.1").unwrap();
    assert_eq!(told.cause, Some(Cause::MartianDestination));
    assert_eq!(told.fixes[0].command.as_deref(), Some("sysctl -w net.ipv4.conf.br0.route_localnet=1"));
}

#[test]
fn a_routed_packet_of_a_bridge_is_dropped_by_the_innermost_hook() {
    let stack = [
        "nft_do_chain_ipv4",
        "nf_hook_slow",
        "ip_forward",
        "ip_rcv",
        "netif_receive_skb",
        "br_handle_frame_finish",
        "br_nf_hook_thresh",
        "br_nf_pre_routing_finish",
        "br_nf_pre_routing",
        "br_handle_frame",
    ];
    let mut closed = chain(Backend::IptablesNft, "ip", "filter", "FORWARD", &[]);
    closed.policy = Some("drop".to_owned());
    let told = filtered(&mut World::new(), echo(GUEST, LAN), vec![closed], &stack);
    assert_eq!(told.cause, Some(Cause::NetfilterForward));
}

//! Events in, verdicts out: the rules on a host made of values.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may, but clippy sees its helpers as no tests")]

mod astray;
mod both_ends;
mod harm;
mod hostile;
mod incidents;
mod moments;
mod people;
mod probe;
mod repeats;
mod rule_text;
mod rule_trace;
mod silence;
mod sizes;
mod translated;
mod unseen;
mod uplink;
mod world;

use kvmtrace::diagnose::report::Latency;
use kvmtrace::diagnose::report::{Cause, FlowDirection, Severity, Verdict};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::{Backend, Chain, LinkKind, Network, PortState, Rule};
use kvmtrace::event::names::MacvtapMode;
use kvmtrace::event::{MacAddress, Protocol};
use kvmtrace::sink::text::View;
use world::{BRIDGE, GUEST, LAN, OTHER_TAP, TAP, UPLINK, World, echo, flow, mac};

/// A ping from the guest that enters, is dropped at a site and is never answered.
fn dropped(
    world: &mut World,
    site: (&str, &str, kvmtrace::event::IfIndex),
    stack: &[&str],
) -> kvmtrace::diagnose::report::FlowReport {
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |_| ());
    world.dropped(ping, site, 4, 84, stack);
    world.verdict(ping)
}

#[test]
fn an_answered_ping_is_delivered_and_nothing_is_told() {
    let mut world = World::new();
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |_| ());
    world.seen(ping, UPLINK, Egress, |_| ());
    world.seen(ping, OTHER_TAP, Egress, |_| ());
    let back = |counters: &mut kvmtrace::event::FlowCounters| {
        counters.source_mac = mac(0x64);
        counters.destination_mac = mac(1);
    };
    world.seen(ping.reverse(), UPLINK, Ingress, back);
    world.seen(ping.reverse(), TAP, Egress, back);
    let report = world.report();
    assert_eq!(report.severity(), Severity::Ok);
    let flow = world.verdict(ping);
    assert_eq!((flow.verdict, flow.cause, flow.direction), (Verdict::Delivered, None, FlowDirection::FromGuest));
    let path: Vec<&str> = flow.path.iter().map(|hop| hop.device.as_str()).collect();
    assert_eq!(path, ["vnet0", "eth0"], "the copy flooded to vnet1 is no hop");
    assert_eq!(flow.path[1].latency_ns, Some(Latency::once(1_000_000)));
}

#[test]
fn the_guest_comes_first_however_early_the_bridge_was_watched() {
    let mut world = World::new();
    let ping = echo(GUEST, LAN);
    let before_all_was_watched = kvmtrace::event::Timestamp(900_000_000);
    world.seen(ping, BRIDGE, Ingress, |counters| counters.first = before_all_was_watched);
    world.seen(ping, TAP, Ingress, |_| ());
    world.seen(ping.reverse(), BRIDGE, Egress, |counters| counters.first = before_all_was_watched);
    world.seen(ping.reverse(), TAP, Egress, |_| ());
    for (flow, devices) in [(ping, ["vnet0", "br0"]), (ping.reverse(), ["br0", "vnet0"])] {
        let path = world.verdict(flow).path;
        assert_eq!(path.iter().map(|hop| hop.device.as_str()).collect::<Vec<_>>(), devices);
        assert_eq!(path[1].latency_ns, None, "they may have seen different packets first");
    }
}

#[test]
fn datagrams_without_an_answer_are_delivered() {
    let mut world = World::new();
    let datagrams = flow(Protocol::Udp, GUEST, LAN);
    world.seen(datagrams, TAP, Ingress, |_| ());
    world.seen(datagrams, UPLINK, Egress, |_| ());
    assert_eq!(world.verdict(datagrams).verdict, Verdict::Delivered);
    assert_eq!(world.report().severity(), Severity::Ok);
}

#[test]
fn a_ping_that_left_and_is_not_answered_points_beyond_the_host() {
    let mut world = World::new();
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |_| ());
    world.seen(ping, UPLINK, Egress, |_| ());
    let flow = world.verdict(ping);
    assert_eq!((flow.verdict, flow.cause), (Verdict::Unanswered, Some(Cause::NoReply)));
    assert!(flow.fixes[0].command.is_none());
}

#[test]
fn a_no_is_final_and_told_however_short_before_the_end_it_came() {
    let mut world = World::new();
    let connection = flow(Protocol::Tcp, GUEST, LAN);
    let late = kvmtrace::event::Timestamp(5_990_000_000);
    let asks = |counters: &mut kvmtrace::event::FlowCounters| (counters.tcp_syn, counters.first) = (1, late);
    world.seen(connection, TAP, Ingress, asks);
    world.seen(connection, UPLINK, Egress, asks);
    world.seen(connection, BRIDGE, Ingress, asks);
    world.seen(connection.reverse(), UPLINK, Ingress, |counters| (counters.tcp_reset, counters.first) = (1, late));
    let flow = world.verdict(connection);
    assert_eq!((flow.verdict, flow.cause), (Verdict::Refused, Some(Cause::PortClosed)));
    assert_eq!(flow.place.unwrap().device.as_deref(), Some("eth0"), "the device that it left by");
}

#[test]
fn a_frame_too_big_for_the_uplink_is_told_with_its_size_and_the_mtu_to_set() {
    let mut world = World::new();
    world.link(TAP).mtu = 9000;
    let datagrams = flow(Protocol::Udp, GUEST, LAN);
    world.seen(datagrams, TAP, Ingress, |counters| counters.largest = 4000);
    world.dropped(datagrams, ("NOT_SPECIFIED", "br_dev_queue_push_xmit", UPLINK), 4, 4000, &["br_handle_frame"]);
    let flow = world.verdict(datagrams);
    assert_eq!((flow.verdict, flow.cause), (Verdict::Dropped, Some(Cause::BridgeMtuExceeded)));
    assert_eq!(flow.place.unwrap().device.as_deref(), Some("eth0"));
    assert!(flow.explanation.contains("4000") && flow.explanation.contains("1500"), "{}", flow.explanation);
    assert_eq!(flow.fixes[0].command.as_deref(), Some("ip link set dev eth0 mtu 9000"));
    assert_eq!(flow.fixes[0].undo.as_deref(), Some("ip link set dev eth0 mtu 1500"));
}

#[test]
fn the_path_has_the_hop_that_was_expected_and_not_seen() {
    let path = |world: &World, key| {
        let hops = world.verdict(key).path.into_iter();
        hops.map(|hop| (hop.device, hop.direction, hop.packets, hop.expected)).collect::<Vec<_>>()
    };
    let mut world = World::new();
    world.link(TAP).mtu = 9000;
    let datagrams = flow(Protocol::Udp, GUEST, LAN);
    world.seen(datagrams, TAP, Ingress, |counters| counters.largest = 4000);
    world.dropped(datagrams, ("NOT_SPECIFIED", "br_dev_queue_push_xmit", UPLINK), 4, 4000, &["br_handle_frame"]);
    let tap = ("vnet0".to_owned(), Ingress, 4, false);
    assert_eq!(path(&world, datagrams), [tap.clone(), ("eth0".to_owned(), Egress, 0, true)]);
    // It died on the bridge, where the model knows of nothing: all of the way behind it is missing.
    let mut world = World::new();
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |_| ());
    world.dropped(ping, ("TC_INGRESS", "__netif_receive_skb_core", TAP), 4, 84, &[]);
    assert_eq!(path(&world, ping), [tap.clone(), ("eth0".to_owned(), Egress, 0, true)]);
    // What arrives has no such hop, nor has what ends where the model says.
    let mut world = World::new();
    world.seen(ping, TAP, Ingress, |_| ());
    world.seen(ping, UPLINK, Egress, |_| ());
    assert!(path(&world, ping).iter().all(|(.., expected)| !expected));
}

#[test]
fn the_caller_of_the_hook_tells_which_one_dropped() {
    let cases: [(&str, &[&str], Cause); 7] = [
        ("nft_do_chain", &["nft_do_chain_inet", "nf_hook_slow", "ip_forward", "ip_rcv"], Cause::NetfilterForward),
        ("nf_hook_slow", &["br_nf_forward_ip", "nf_hook_slow", "__br_forward"], Cause::NetfilterBridgedIp),
        (
            "nft_do_chain",
            &["nft_do_chain_bridge", "nf_hook_slow", "__br_forward", "br_handle_frame"],
            Cause::NetfilterBridge,
        ),
        (
            "nft_do_chain",
            &["nft_do_chain_bridge", "br_handle_frame", "__netif_receive_skb_core"],
            Cause::NetfilterBridge,
        ),
        ("nft_do_chain", &["nft_do_chain_ipv4", "nf_hook_slow", "ip_local_deliver", "ip_rcv"], Cause::NetfilterInput),
        ("nft_do_chain", &["nft_do_chain_netdev", "__netif_receive_skb_core"], Cause::NetfilterIngress),
        ("nf_hook_slow", &["ip_rcv", "__netif_receive_skb_one_core"], Cause::NetfilterPrerouting),
    ];
    for (function, stack, cause) in cases {
        let flow = dropped(&mut World::new(), ("NETFILTER_DROP", function, BRIDGE), stack);
        assert_eq!(flow.cause, Some(cause), "{function} < {stack:?}");
        assert!(!flow.fixes.is_empty());
    }
}

#[test]
fn the_rule_that_fits_the_packet_is_passed_and_can_be_deleted_by_its_handle_and_put_back_in_its_place() {
    let mut world = World::new();
    let rule = |number, text: &str, verdict: &str| Rule {
        handle: Some(40 + u64::from(number)),
        number,
        text: text.to_owned(),
        packets: None,
        verdict: Some(verdict.to_owned()),
    };
    world.host.netfilter.chains.push(Chain {
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
        rules: vec![
            rule(1, "ip saddr 192.0.2.0/24 drop", "drop"),
            rule(2, "ip saddr 10.0.0.0/24 drop", "drop"),
            rule(3, "tcp dport 22 accept", "accept"),
        ],
    });
    let stack = ["nft_do_chain_inet", "nf_hook_slow", "ip_forward"];
    let flow = dropped(&mut world, ("NETFILTER_DROP", "nft_do_chain", BRIDGE), &stack);
    let first = flow.fixes[0].command.as_deref().unwrap();
    let narrow = "insert rule inet filter forward position 42 ip saddr 10.0.0.11 ip daddr 10.0.0.100 meta l4proto icmp";
    assert!(first.contains(narrow), "{first}");
    assert_eq!(flow.fixes[1].command.as_deref(), Some("nft 'delete rule inet filter forward handle 42'"));
    let undo = "nft 'insert rule inet filter forward index 1 ip saddr 10.0.0.0/24 drop'";
    assert_eq!(flow.fixes[1].undo.as_deref(), Some(undo));
}

/// Two rules that fit the packet, which have counted so much, and the chain that drops the rest.
fn counting(first: u64, second: u64, policy: u64) -> Chain {
    let rule = |number, text: &str, packets| Rule {
        handle: None,
        number,
        text: text.to_owned(),
        packets: Some(packets),
        verdict: Some("drop".to_owned()),
    };
    Chain {
        backend: Backend::IptablesNft,
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        name: "FORWARD".to_owned(),
        hook: Some("forward".to_owned()),
        kind: Some("filter".to_owned()),
        priority: Some(0),
        policy: Some("drop".to_owned()),
        policy_packets: Some(policy),
        device: None,
        rules: vec![
            rule(1, "-A FORWARD -m set --match-set bad src -j DROP", first),
            rule(2, "-A FORWARD -s 10.0.0.0/24 -m comment --comment \"no; $(it)\" -j DROP", second),
        ],
    }
}

#[test]
fn what_has_counted_during_the_trace_dropped_it_and_old_counters_prove_nothing() {
    let told = |before: Chain, after: Option<Chain>| {
        let mut world = World::new();
        world.host.netfilter.chains.push(before);
        if let Some(after) = after {
            let mut end = world.host.clone();
            end.netfilter.chains = vec![after];
            world.end = Some(end);
        }
        let stack = ["nft_do_chain_ipv4", "nf_hook_slow", "ip_forward"];
        let flow = dropped(&mut world, ("NETFILTER_DROP", "nft_do_chain", BRIDGE), &stack);
        (flow.explanation, flow.evidence.join("\n"), flow.fixes)
    };
    // The first rule has counted for months, the second one now.
    let (explanation, evidence, fixes) = told(counting(9_000, 5, 7), Some(counting(9_001, 9, 7)));
    assert!(explanation.contains("-s 10.0.0.0/24") && !explanation.contains("others"), "{explanation}");
    assert!(evidence.contains("4 packets during the trace"), "{evidence}");
    // Without it the policy would drop: a rule of its own comes first.
    let commands: Vec<&str> = fixes.iter().filter_map(|fix| fix.command.as_deref()).collect();
    let command = "iptables-nft -t filter -D FORWARD -s 10.0.0.0/24 -m comment --comment 'no; $(it)' -j DROP";
    assert!(commands[0].starts_with("iptables-nft -t filter -I FORWARD 2 -s 10.0.0.11 "), "{commands:?}");
    assert_eq!(commands[1..], [command]);
    // None of the rules has: the policy did.
    let (explanation, evidence, _) = told(counting(9_000, 5, 7), Some(counting(9_000, 5, 11)));
    assert!(explanation.contains("the drop policy of"), "{explanation}");
    assert!(evidence.contains("4 packets during the trace"), "{evidence}");
    // The counters were set back meanwhile.
    let (explanation, ..) = told(counting(9_000, 5, 7), Some(counting(4, 0, 0)));
    assert!(explanation.contains("--match-set bad"), "{explanation}");
    // The rules were not read again: all that fit are told.
    let (explanation, evidence, _) = told(counting(9_000, 5, 7), None);
    assert!(explanation.contains("or the other on that hook"), "{explanation}");
    assert!(!evidence.contains("during the trace"), "{evidence}");
}

#[test]
fn routing_drops_are_told_by_reason_and_state() {
    let cases = [
        (("IP_INADDRERRORS", "ip_error", BRIDGE), Cause::ForwardingDisabled),
        (("IP_INNOROUTES", "ip_error", BRIDGE), Cause::NoRoute),
        (("IP_RPFILTER", "ip_rcv_finish_core", BRIDGE), Cause::ReversePathFilter),
        (("IP_LOCALNET", "ip_rcv_finish_core", BRIDGE), Cause::MartianSource),
        (("IP_INHDR", "ip_forward", BRIDGE), Cause::TtlExpired),
        (("QDISC_DROP", "__dev_queue_xmit", UPLINK), Cause::QdiscLimit),
        (("TC_INGRESS", "__netif_receive_skb_core", TAP), Cause::TcDrop),
        (("NEVER_SEEN", "some_function", UPLINK), Cause::Unclassified),
    ];
    for (site, cause) in cases {
        assert_eq!(dropped(&mut World::new(), site, &[]).cause, Some(cause), "{site:?}");
    }
}

#[test]
fn one_site_of_the_bridge_means_what_the_ports_say() {
    let blocked = ("BRIDGE_INGRESS_STP_STATE", "br_handle_frame", TAP);
    let mut world = World::new();
    world.port(TAP).state = PortState::Disabled;
    assert_eq!(dropped(&mut world, blocked, &[]).cause, Some(Cause::BridgePortBlocked));

    let mut world = World::new();
    world.port(TAP).state = PortState::Disabled;
    world.link(BRIDGE).up = false;
    assert_eq!(dropped(&mut world, blocked, &[]).cause, Some(Cause::BridgeDown));

    let mut world = World::new();
    world.link(UPLINK).up = false;
    let flow = dropped(&mut world, ("NO_TX_TARGET", "br_handle_frame_finish", TAP), &[]);
    assert_eq!((flow.cause, flow.place.unwrap().device.as_deref()), (Some(Cause::LinkDown), Some("eth0")));

    let mut world = World::new();
    world.port(TAP).isolated = true;
    world.port(UPLINK).isolated = true;
    let flow = dropped(&mut world, ("NOT_SPECIFIED", "br_handle_frame_finish", TAP), &[]);
    assert_eq!(flow.cause, Some(Cause::BridgePortIsolated));
}

#[test]
fn a_request_for_the_address_of_a_guest_that_frames_do_not_reach_suffers_from_the_same() {
    let ping = echo(LAN, GUEST);
    let request = flow(Protocol::Arp { operation: 1 }, LAN, GUEST);
    let mut world = World::new();
    world.seen(ping, UPLINK, Ingress, |counters| counters.destination_mac = mac(1));
    world.seen(request, UPLINK, Ingress, |counters| counters.destination_mac = MacAddress([0xff; 6]));
    world.seen(request, OTHER_TAP, Egress, |counters| counters.destination_mac = MacAddress([0xff; 6]));
    // Only the other guest hears it, which is not asked.
    assert_eq!(world.verdict(request).cause, Some(Cause::NeighbourUnresolved));
    world.port(TAP).isolated = true;
    world.port(UPLINK).isolated = true;
    world.dropped(ping, ("NOT_SPECIFIED", "br_handle_frame_finish", UPLINK), 4, 84, &[]);
    assert_eq!(world.verdict(ping).cause, Some(Cause::BridgePortIsolated));
    assert_eq!(world.verdict(request).cause, Some(Cause::BridgePortIsolated));
    // What a rule of the firewall does to one protocol says nothing of ARP.
    let mut world = World::new();
    world.seen(ping, UPLINK, Ingress, |counters| counters.destination_mac = mac(1));
    world.seen(request, UPLINK, Ingress, |counters| counters.destination_mac = MacAddress([0xff; 6]));
    world.seen(request, OTHER_TAP, Egress, |counters| counters.destination_mac = MacAddress([0xff; 6]));
    world.dropped(ping, ("NETFILTER_DROP", "nft_do_chain", UPLINK), 4, 84, &["nft_do_chain_bridge"]);
    assert_eq!(world.verdict(request).cause, Some(Cause::NeighbourUnresolved));
}

#[test]
fn a_request_for_an_isolated_guests_address_can_not_reach_it_from_an_isolated_port() {
    let request = flow(Protocol::Arp { operation: 1 }, LAN, GUEST);
    let mut world = World::new();
    // The guest's address is known from what it sends.
    world.seen(echo(GUEST, LAN), TAP, Ingress, |_| ());
    world.seen(request, UPLINK, Ingress, |counters| counters.destination_mac = MacAddress([0xff; 6]));
    world.seen(request, OTHER_TAP, Egress, |counters| counters.destination_mac = MacAddress([0xff; 6]));
    world.port(TAP).isolated = true;
    assert_eq!(world.verdict(request).cause, Some(Cause::NeighbourUnresolved));
    world.port(UPLINK).isolated = true;
    let told = world.verdict(request);
    assert_eq!((told.cause, told.verdict), (Some(Cause::BridgePortIsolated), Verdict::Lost));
}

#[test]
fn a_frame_that_is_flooded_to_another_guest_only_is_lost_at_the_dead_uplink() {
    let mut world = World::new();
    world.link(UPLINK).carrier = false;
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |_| ());
    world.seen(ping, OTHER_TAP, Egress, |_| ());
    let flow = world.verdict(ping);
    assert_eq!((flow.verdict, flow.cause), (Verdict::Lost, Some(Cause::NoCarrier)));
}

#[test]
fn noise_of_a_healthy_host_is_not_told() {
    for site in [
        ("NO_SOCKET", "ping_rcv", BRIDGE),
        ("OTHERHOST", "ip_rcv_core", UPLINK),
        ("TCP_RESET", "tcp_validate_incoming", BRIDGE),
        ("FULL_RING", "tun_net_xmit", OTHER_TAP),
    ] {
        let mut world = World::new();
        let datagrams = flow(Protocol::Udp, GUEST, LAN);
        world.seen(datagrams, TAP, Ingress, |_| ());
        world.seen(datagrams, UPLINK, Egress, |_| ());
        world.dropped(datagrams, site, 1, 84, &[]);
        assert_eq!(world.report().severity(), Severity::Ok, "{site:?}");
    }
}

#[test]
fn a_stopped_guest_is_told_at_its_tap() {
    let mut world = World::new();
    let datagrams = flow(Protocol::Udp, LAN, GUEST);
    let to_guest = |counters: &mut kvmtrace::event::FlowCounters| counters.destination_mac = mac(1);
    world.seen(datagrams, UPLINK, Ingress, to_guest);
    world.seen(datagrams, TAP, Egress, to_guest);
    world.dropped(datagrams, ("FULL_RING", "tun_net_xmit", TAP), 4, 84, &[]);
    let flow = world.verdict(datagrams);
    assert_eq!((flow.cause, flow.direction), (Some(Cause::GuestNotReading), FlowDirection::ToGuest));
    assert_eq!(flow.place.unwrap().device.as_deref(), Some("vnet0"));
}

#[test]
fn who_asks_for_an_unknown_guest_through_a_port_that_takes_nothing_is_told() {
    let question = flow(Protocol::Arp { operation: 1 }, LAN, "10.0.0.12");
    let ask = |known: &[&str]| {
        let mut world = World::new();
        for (guest, address) in world.host.guests.iter_mut().zip(known) {
            guest.interfaces[0].addresses.push(address.parse().unwrap());
        }
        world.port(UPLINK).locked = true;
        world.seen(question, UPLINK, Ingress, |counters| {
            counters.source_mac = mac(0x64);
            counters.destination_mac = MacAddress([0xff; 6]);
        });
        world.dropped(question, ("NOT_SPECIFIED", "br_handle_frame_finish", UPLINK), 4, 46, &["br_handle_frame"]);
        world.report().flows
    };
    let told = ask(&[GUEST]);
    let [told] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((told.cause, told.guest.as_deref()), (Some(Cause::BridgePortLocked), Some("web2")));
    assert_eq!((told.direction, told.verdict), (FlowDirection::ToGuest, Verdict::Dropped));
    assert!(ask(&["10.0.0.13", "10.0.0.14"]).is_empty(), "each guest is known under another address");
}

/// Whether a guest that announces this address from its macvtap is told as an intruder. The macvtap has the guest's MAC
/// address, and so the same link-local address as the guest.
fn is_told_as_spoofing(address: &str, own_address_of: kvmtrace::event::IfIndex) -> bool {
    let mut world = World::new();
    let macvtap = world.link(TAP);
    (macvtap.kind, macvtap.mac) = (LinkKind::Macvtap { mode: MacvtapMode::Bridge }, Some(mac(1)));
    (macvtap.master, macvtap.lower, macvtap.port) = (None, Some(UPLINK), None);
    let own = Network { address: address.parse().unwrap(), prefix: 64 };
    world.link(own_address_of).addresses.push(own);
    world.seen(flow(Protocol::Icmpv6 { kind: 136, code: 0, id: 0 }, address, "ff02::1"), TAP, Egress, |_| ());
    world.report().findings.iter().any(|finding| finding.cause == Cause::ArpSpoofed)
}

#[test]
fn a_guest_and_its_macvtap_have_one_link_local_address() {
    assert!(!is_told_as_spoofing("fe80::5054:ff:feaa:1", TAP));
    assert!(is_told_as_spoofing("fe80::5054:ff:feaa:1", UPLINK));
}

#[test]
fn nobody_answers_for_a_guest_that_is_gone_from_its_macvtap() {
    let question = flow(Protocol::Arp { operation: 1 }, LAN, GUEST);
    let cause = |pid| {
        let mut world = World::new();
        let macvtap = world.link(TAP);
        (macvtap.kind, macvtap.mac) = (LinkKind::Macvtap { mode: MacvtapMode::Bridge }, Some(mac(1)));
        (macvtap.master, macvtap.lower, macvtap.port) = (None, Some(UPLINK), None);
        world.host.guests[0].pid = pid;
        let asked = |counters: &mut kvmtrace::event::FlowCounters| {
            (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(1));
        };
        world.seen(question, UPLINK, Ingress, asked);
        // What is for the guest comes in by a macvtap.
        world.seen(question, TAP, Ingress, asked);
        let flow = world.verdict(question);
        (flow.verdict, flow.cause, flow.place.and_then(|place| place.device))
    };
    assert_eq!(cause(None), (Verdict::Unanswered, Some(Cause::GuestGone), Some("vnet0".to_owned())));
    assert_eq!(cause(Some(1)).1, Some(Cause::NeighbourUnresolved));
}

#[test]
fn every_fault_has_a_place_words_and_a_cure() {
    let mut world = World::new();
    dropped(&mut world, ("NEVER_SEEN", "some_function", UPLINK), &[]);
    for flow in world.report().flows.iter().filter(|flow| flow.severity >= Severity::Warning) {
        assert!(flow.place.is_some() && flow.cause.is_some() && flow.explanation.len() >= 20);
        assert!(flow.fixes.iter().all(|fix| fix.why.len() >= 10) && !flow.fixes.is_empty());
    }
}

#[test]
fn every_cause_has_its_paragraph_in_the_documentation() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/verdicts.md")).unwrap();
    for cause in Cause::ALL {
        let paragraphs = text.matches(&format!("- **{}**:", cause.id())).count();
        assert_eq!(paragraphs, 1, "{}", cause.id());
    }
}

#[test]
fn what_a_guest_is_called_cannot_steer_the_terminal() {
    let mut world = World::new();
    world.host.guests[0].name = "web\u{1b}[2J".to_owned();
    dropped(&mut world, ("NEVER_SEEN", "some_function", UPLINK), &[]);
    let mut text = Vec::new();
    kvmtrace::sink::text::report(&world.report(), View::new(false, None, true), &mut text).unwrap();
    let mut json = Vec::new();
    kvmtrace::sink::json::report(&world.report(), &mut json).unwrap();
    assert!(!text.contains(&0x1b) && !json.contains(&0x1b));
    assert!(String::from_utf8(text).unwrap().contains("unclassified"));
}

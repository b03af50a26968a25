//! Hosts that change while they are watched, and what is usual on healthy ones.

use crate::world::{BRIDGE, GUEST, LAN, OTHER_TAP, TAP, UPLINK, World, echo, flow, mac};
use kvmtrace::diagnose::report::{Cause, FlowReport, Severity};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::{Backend, Chain, LinkKind, Network, Rule};
use kvmtrace::event::names::RuleAction;
use kvmtrace::event::{FlowCounters, FlowKey, MacAddress, PolicyRule, Protocol};

const FORWARD: &[&str] = &["nft_do_chain_inet", "nf_hook_slow", "ip_forward"];

/// Packets that died at the forward hook, with these rules when the trace began and none when it ended.
fn after_a_rule_went(policy: &str, rule: Option<&str>) -> FlowReport {
    let mut world = World::new();
    let rule = rule.map(|text| Rule {
        handle: Some(4),
        number: 1,
        text: text.to_owned(),
        packets: Some(9),
        verdict: Some("drop".to_owned()),
    });
    let chain = |policy: &str, rules: Vec<Rule>| Chain {
        backend: Backend::Nft,
        family: "inet".to_owned(),
        table: "fw".to_owned(),
        name: "forward".to_owned(),
        hook: Some("forward".to_owned()),
        kind: Some("filter".to_owned()),
        priority: Some(0),
        policy: Some(policy.to_owned()),
        policy_packets: None,
        device: None,
        rules,
    };
    world.host.netfilter.chains = vec![chain(policy, rule.into_iter().collect())];
    let mut end = world.host.clone();
    end.netfilter.chains = vec![chain("accept", Vec::new())];
    world.end = Some(end);
    let key = echo(GUEST, "10.9.9.9");
    world.seen(key, TAP, Ingress, |_| ());
    world.dropped(key, ("NETFILTER_DROP", "nft_do_chain", BRIDGE), 2, 84, FORWARD);
    world.verdict(key)
}

#[test]
fn a_rule_or_policy_that_went_while_the_trace_ran_is_named_and_nothing_is_run_against_it() {
    for (policy, rule, named) in [
        ("accept", Some("ip saddr 10.0.0.11 counter packets 9 bytes 756 drop"), "rule \"ip saddr 10.0.0.11"),
        ("drop", None, "the drop policy of nft inet fw forward"),
    ] {
        let told = after_a_rule_went(policy, rule);
        assert_eq!(told.cause, Some(Cause::NetfilterForward));
        assert!(told.explanation.contains(named) && told.explanation.contains("not any more"), "{}", told.explanation);
        assert!(told.fixes.iter().all(|fix| fix.command.is_none()), "{:?}", told.fixes);
    }
}

#[test]
fn a_tap_that_was_down_for_a_while_is_not_brought_up_again() {
    let mut world = World::new();
    let key = echo(GUEST, LAN);
    world.seen(key, TAP, Ingress, |_| ());
    world.dropped(key, ("DEV_READY", "tun_get_user", TAP), 2, 84, &["tun_chr_write_iter"]);
    let told = world.verdict(key);
    assert_eq!(told.cause, Some(Cause::LinkDown));
    assert!(told.explanation.contains("is up again"), "{}", told.explanation);
    assert!(told.fixes.iter().all(|fix| fix.command.is_none()), "{:?}", told.fixes);
}

#[test]
fn what_the_host_sends_to_a_group_may_be_kept_from_itself() {
    let mut world = World::new();
    let key = flow(Protocol::Udp, "10.0.0.1", "239.1.1.1");
    let group = MacAddress([1, 0, 0x5e, 1, 1, 1]);
    world.seen(key, BRIDGE, Egress, |counters| counters.destination_mac = group);
    world.seen(key, TAP, Egress, |counters| counters.destination_mac = group);
    let input = ["nft_do_chain_inet", "nf_hook_slow", "ip_local_deliver"];
    world.dropped(key, ("NETFILTER_DROP", "nft_do_chain", BRIDGE), 4, 84, &input);
    assert_eq!(world.verdict(key).cause, None);
    // A guest in the host's name is another matter.
    world.seen(key, TAP, Ingress, |counters| counters.destination_mac = group);
    assert_ne!(world.verdict(key).cause, None);
}

/// What is told of a group's packets from the guest that no port of the bridge has a member for.
fn nobody_joined(group: &str) -> FlowReport {
    let mut world = World::new();
    if let LinkKind::Bridge(state) = &mut world.link(BRIDGE).kind {
        state.multicast_querier = true;
    }
    let key = flow(Protocol::Udp, GUEST, group);
    world.seen(key, TAP, Ingress, |counters| counters.destination_mac = MacAddress([1, 0, 0x5e, 1, 1, 1]));
    world.dropped(key, ("NO_TX_TARGET", "br_handle_frame_finish", TAP), 4, 84, &["br_handle_frame"]);
    world.verdict(key)
}

#[test]
fn a_group_without_members_gets_entries_of_its_own_and_a_search_for_services_is_no_fault() {
    let told = nobody_joined("239.1.1.1");
    assert_eq!((told.cause, told.severity), (Some(Cause::BridgeMulticastPruned), Severity::Warning));
    let commands: Vec<&str> = told.fixes.iter().filter_map(|fix| fix.command.as_deref()).collect();
    assert_eq!(
        commands,
        [
            "bridge mdb add dev br0 port eth0 grp 239.1.1.1 permanent && bridge mdb add dev br0 port vnet1 grp 239.1.1.1 permanent"
        ],
        "not by the sender's port, and no other group"
    );
    let search = nobody_joined("239.255.255.250");
    assert_eq!((search.severity, search.fixes.iter().filter(|fix| fix.command.is_some()).count()), (Severity::Info, 0));
}

#[test]
fn a_prohibition_that_the_sender_was_told_of_too_seldom_is_no_blackhole() {
    let mut world = World::new();
    let source = Some(Network { address: GUEST.parse().unwrap(), prefix: 32 });
    let rule = PolicyRule { priority: 100, source, action: RuleAction::Prohibit, ..PolicyRule::default() };
    world.host.policy_rules = vec![rule];
    world.host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    let key = echo(GUEST, "10.9.9.9");
    world.seen(key, TAP, Ingress, |counters| counters.destination_mac = mac(0xb0));
    world.dropped(key, ("NOT_SPECIFIED", "ip_error", BRIDGE), 4, 84, &[]);
    let told = world.verdict(key);
    assert_eq!(told.cause, Some(Cause::RouteProhibited), "{}", told.explanation);
    let commands: Vec<&str> = told.fixes.iter().filter_map(|fix| fix.command.as_deref()).collect();
    assert_eq!(commands, ["ip rule del priority 100 from 10.0.0.11/32 prohibit"]);
}

/// What is told of a guest's connection that asked so often and was answered as often, beside `more` segments and resets.
fn opened(requests: u32, more: u64, resets: u32) -> FlowReport {
    let mut world = World::new();
    let key = FlowKey { destination_port: Some(80), source_port: Some(40_000), ..flow(Protocol::Tcp, GUEST, LAN) };
    for (device, direction) in [(TAP, Ingress), (UPLINK, Egress)] {
        world.seen(key, device, direction, |counters| {
            (counters.packets, counters.tcp_syn) = (u64::from(requests + resets) + more, requests);
            counters.tcp_reset = resets;
        });
    }
    for (device, direction) in [(UPLINK, Ingress), (TAP, Egress)] {
        world.seen(key.reverse(), device, direction, |counters| {
            (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(1));
            (counters.packets, counters.tcp_syn_ack) = (u64::from(requests), requests);
        });
    }
    world.verdict(key)
}

#[test]
fn a_connection_that_asks_again_and_again_though_it_is_answered_has_not_been_delivered() {
    let told = opened(3, 0, 0);
    assert_eq!((told.cause, told.severity), (Some(Cause::NoReply), Severity::Warning));
    assert!(told.explanation.contains("3 requests") && told.explanation.contains("web1"), "{}", told.explanation);
    assert_eq!(opened(1, 0, 0).cause, None, "one request that was answered is a connection that begins");
    assert_eq!(opened(2, 1, 0).cause, None, "the third segment came");
    assert_eq!(opened(2, 0, 2).cause, None, "who only looks whether the port is open resets what it gets");
}

/// What is told of pings to a guest that ends meanwhile, after frames with this MAC address came in by the uplink.
fn left(heard: MacAddress) -> FlowReport {
    let mut world = World::new();
    let mut end = world.host.clone();
    end.links.remove(&OTHER_TAP);
    end.guests.remove(1);
    world.end = Some(end);
    let key = echo(GUEST, "10.0.0.12");
    let to_neighbour = |packets: u64| {
        move |counters: &mut FlowCounters| (counters.packets, counters.destination_mac) = (packets, mac(2))
    };
    world.seen(key, TAP, Ingress, to_neighbour(8));
    world.seen(key, OTHER_TAP, Egress, to_neighbour(4));
    world.seen(key.reverse(), OTHER_TAP, Ingress, |counters| {
        (counters.source_mac, counters.destination_mac) = (mac(2), mac(1));
    });
    let announced = flow(Protocol::Udp, "10.0.0.12", LAN);
    world.seen(announced, UPLINK, Ingress, |counters| counters.source_mac = heard);
    world.verdict(key)
}

#[test]
fn a_guest_that_is_heard_beyond_the_uplink_after_it_ended_has_moved() {
    let moved = left(mac(2));
    assert_eq!((moved.cause, moved.severity), (Some(Cause::GuestGone), Severity::Info), "{}", moved.explanation);
    assert!(moved.explanation.contains("heard behind eth0"), "{}", moved.explanation);
    assert_eq!(left(mac(9)).severity, Severity::Error);
}

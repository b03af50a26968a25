//! Which route, and which source.

use super::Topology;
use super::routing::{Answer, MAIN, Question};
use crate::event::host::{HostState, Link, LinkKind, LinkStatistics, Network, Route};
use crate::event::names::RuleAction;
use crate::event::{IfIndex, PolicyRule, RuleMark};
use rstest::rstest;
use std::net::{IpAddr, Ipv4Addr};

const LOCAL: u32 = 255;

fn network(text: &str) -> Network {
    let (address, prefix) = text.split_once('/').unwrap();
    Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

fn route(destination: &str, table: u32, kind: &str, device: u32) -> Route {
    Route {
        destination: network(destination),
        gateway: None,
        device: Some(IfIndex(device)),
        source: None,
        table,
        metric: 0,
        kind: kind.into(),
        mtu: None,
    }
}

fn rule(priority: u32, table: u32) -> PolicyRule {
    PolicyRule { priority, action: RuleAction::Lookup, table, ..PolicyRule::default() }
}

fn lookup<'a>(host: &'a HostState, question: Question<'_>) -> Answer<'a> {
    Topology::new(host).routes.lookup(host, question)
}

/// main: default by 1; 77: default by 2 for 10.0.0.11; 78: a throw; 79: unreachable.
fn host(rules: Vec<PolicyRule>) -> HostState {
    HostState {
        routes: vec![
            route("0.0.0.0/0", MAIN, "unicast", 1),
            route("192.0.2.0/24", MAIN, "unicast", 3),
            route("0.0.0.0/0", 77, "unicast", 2),
            route("0.0.0.0/0", 78, "throw", 0),
            route("0.0.0.0/0", 79, "unreachable", 0),
        ],
        policy_rules: [rule(0, LOCAL)].into_iter().chain(rules).chain([rule(32_766, MAIN)]).collect(),
        ..HostState::default()
    }
}

fn of_guest(rule: PolicyRule) -> PolicyRule {
    PolicyRule { source: Some(network("10.0.0.11/32")), ..rule }
}

#[rstest]
#[case::no_other_rule(vec![], "10.0.0.11", Some(1))]
#[case::for_this_source(vec![of_guest(rule(100, 77))], "10.0.0.11", Some(2))]
#[case::for_another_source(vec![of_guest(rule(100, 77))], "10.0.0.12", Some(1))]
#[case::for_another_device(vec![PolicyRule { input: Some("br1".into()), ..rule(100, 77) }], "10.0.0.11", Some(1))]
#[case::an_empty_table(vec![rule(100, 80)], "10.0.0.11", Some(1))]
#[case::a_throw(vec![rule(100, 78), rule(101, 77)], "10.0.0.11", Some(2))]
#[case::a_default_route_suppressed(vec![PolicyRule { suppress: Some(0), ..rule(100, MAIN) }, rule(101, 77)], "10.0.0.11", Some(2))]
#[case::unreachable(vec![rule(100, 79)], "10.0.0.11", None)]
#[case::a_rule_that_forbids(vec![PolicyRule { action: RuleAction::Prohibit, ..rule(100, 0) }], "10.0.0.11", None)]
fn the_first_table_with_a_route_decides(
    #[case] rules: Vec<PolicyRule>,
    #[case] from: &str,
    #[case] device: Option<u32>,
) {
    let host = host(rules);
    let question = Question::of(from.parse().ok(), "198.51.100.1".parse().unwrap(), "br0");
    let answer = lookup(&host, question);
    assert_eq!(answer.unicast().and_then(|route| route.device), device.map(IfIndex));
    assert!(answer.rule.is_some() && answer.doubt.is_none());
}

#[rstest]
#[case::of_this_mark(rule_of_mark(5), Some(5), Some(2), false)]
#[case::of_another_mark(rule_of_mark(5), Some(0), Some(1), false)]
#[case::of_a_mark_that_is_not_known(rule_of_mark(5), None, Some(1), true)]
#[case::not_of_this_mark(PolicyRule { inverted: true, ..rule_of_mark(5) }, Some(5), Some(1), false)]
#[case::of_any_but_this_mark(PolicyRule { inverted: true, ..rule_of_mark(5) }, Some(7), Some(2), false)]
#[case::of_a_mark_and_a_user(PolicyRule { narrower: true, ..rule_of_mark(5) }, Some(5), Some(1), true)]
#[case::of_another_mark_and_a_user(PolicyRule { narrower: true, ..rule_of_mark(5) }, Some(6), Some(1), false)]
#[case::without_a_route_in_its_table(PolicyRule { table: 80, ..rule_of_mark(5) }, None, Some(1), false)]
fn a_mark_chooses_the_table(
    #[case] rule: PolicyRule,
    #[case] mark: Option<u32>,
    #[case] device: Option<u32>,
    #[case] doubt: bool,
) {
    let host = host(vec![rule]);
    let question = Question { mark, ..Question::own("198.51.100.1".parse().unwrap()) };
    let answer = lookup(&host, question);
    assert_eq!(answer.unicast().and_then(|route| route.device), device.map(IfIndex));
    assert_eq!(answer.doubt.is_some(), doubt);
}

fn rule_of_mark(mark: u32) -> PolicyRule {
    PolicyRule { mark: Some(RuleMark { value: mark, mask: 0xff }), ..rule(100, 77) }
}

#[rstest]
#[case::of_a_port(PolicyRule { destination_ports: Some((440, 450)), ..rule(100, 77) }, (6, 1, 443), Some(2))]
#[case::of_another_port(PolicyRule { destination_ports: Some((440, 450)), ..rule(100, 77) }, (6, 1, 80), Some(1))]
#[case::of_a_protocol(PolicyRule { protocol: Some(17), ..rule(100, 77) }, (6, 1, 443), Some(1))]
#[case::of_a_source_port(PolicyRule { source_ports: Some((1, 1)), ..rule(100, 77) }, (6, 1, 443), Some(2))]
fn ports_choose_the_table(#[case] rule: PolicyRule, #[case] layer4: (u8, u16, u16), #[case] device: Option<u32>) {
    let host = host(vec![rule]);
    let question = Question { layer4: Some(layer4), ..Question::own("198.51.100.1".parse().unwrap()) };
    let answer = lookup(&host, question);
    assert_eq!(answer.unicast().and_then(|route| route.device), device.map(IfIndex));
    assert!(answer.doubt.is_none());
}

#[rstest]
#[case::past_a_rule(Some(200), Some(1))]
#[case::to_no_rule(Some(150), Some(2))]
fn a_rule_jumps_over_others(#[case] target: Option<u32>, #[case] device: Option<u32>) {
    let jump = PolicyRule { action: RuleAction::Goto, target, ..rule(50, 0) };
    let host = host(vec![jump, rule(100, 77), rule(200, MAIN)]);
    let answer = lookup(&host, Question::own("198.51.100.1".parse().unwrap()));
    assert_eq!(answer.unicast().and_then(|route| route.device), device.map(IfIndex));
}

#[test]
fn without_known_rules_the_main_table_is_asked() {
    let host = HostState { policy_rules: Vec::new(), ..host(Vec::new()) };
    let answer = lookup(&host, Question::own("192.0.2.9".parse().unwrap()));
    assert_eq!(answer.unicast().and_then(|route| route.device), Some(IfIndex(3)));
}

fn device(index: u32, addresses: &[&str]) -> Link {
    let addresses = addresses.iter().map(|text| network(text)).collect();
    Link {
        index: IfIndex(index),
        name: format!("eth{index}"),
        kind: LinkKind::Physical,
        mac: None,
        mtu: 1500,
        up: true,
        carrier: true,
        ethernet: true,
        arp_off: false,
        master: None,
        lower: None,
        peer: None,
        queue_length: 1000,
        qdisc: "noqueue".to_owned(),
        port: None,
        xdp: None,
        large_receive: false,
        addresses,
        statistics: LinkStatistics::default(),
    }
}

#[rstest]
#[case::in_the_next_hops_network(&["192.0.2.1/24", "10.0.0.1/24"], "10.0.0.254", Some("10.0.0.1"))]
#[case::the_first_where_none_is_near(&["192.0.2.1/24", "10.0.0.1/24"], "198.51.100.1", Some("192.0.2.1"))]
#[case::no_secondary(&["192.0.2.1/24", "192.0.2.2/24"], "198.51.100.1", Some("192.0.2.1"))]
#[case::of_another_device_where_it_has_none(&[], "198.51.100.1", Some("203.0.113.7"))]
fn a_source_is_chosen_as_inet_select_addr_does(
    #[case] addresses: &[&str],
    #[case] next_hop: Ipv4Addr,
    #[case] source: Option<&str>,
) {
    let links = [device(1, &["127.0.0.1/8"]), device(2, addresses), device(3, &["203.0.113.7/24"])];
    let host = HostState { links: links.into_iter().map(|link| (link.index, link)).collect(), ..HostState::default() };
    let topology = Topology::new(&host);
    let chosen = topology.select_v4(topology.link(IfIndex(2)).unwrap(), next_hop);
    assert_eq!(chosen, source.map(|text| text.parse().unwrap()));
}

#[rstest]
#[case::the_devices_own(&["fe80::2/64", "2001:db8:2::2/64"], "2001:db8:9::1", Some("2001:db8:2::2"))]
#[case::of_another_device_where_it_has_none_of_that_scope(&["fe80::2/64"], "2001:db8:9::1", Some("2001:db8:3::3"))]
#[case::nothing_wider_for_a_link_local_destination(&["2001:db8:2::2/64", "fe80::2/64"], "fe80::9", Some("fe80::2"))]
#[case::with_a_longer_prefix_in_common(&["2001:db8:2::2/64", "2001:db8:9::2/64"], "2001:db8:9::1", Some("2001:db8:9::2"))]
fn a_source_is_chosen_as_rfc_6724_says(
    #[case] addresses: &[&str],
    #[case] destination: IpAddr,
    #[case] source: Option<&str>,
) {
    let links = [device(2, addresses), device(3, &["2001:db8:3::3/64"])];
    let host = HostState { links: links.into_iter().map(|link| (link.index, link)).collect(), ..HostState::default() };
    let topology = Topology::new(&host);
    let IpAddr::V6(destination) = destination else { panic!("an IPv6 address") };
    let chosen = topology.select_v6(topology.link(IfIndex(2)).unwrap(), destination);
    assert_eq!(chosen, source.map(|text| text.parse().unwrap()));
}

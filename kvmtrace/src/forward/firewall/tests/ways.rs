//! Ways through chains: priorities, jumps, doubts, conntrack and translation.

use super::{at, chain, fate, host, ip, judge, syn, udp, word};
use crate::event::host::Set;
use crate::event::ruleset::{Hook, Layer, RuleReference};
use crate::forward::firewall::Fate;
use crate::forward::packet::{Connection, Packet, Restore};
use rstest::rstest;

#[test]
fn a_tagged_frame_is_802_1q_to_a_look_at_its_header_and_ip_to_a_rule_for_ip() {
    let tagged = Packet { tags: vec![5], ..syn() };
    let fate = |text: &str| fate(vec![chain("bridge t forward: forward 0 accept", &[text])], Layer::Bridge, &tagged);
    assert_eq!(fate("ether type ip drop"), "pass");
    assert_eq!(fate("ether type vlan drop"), "drop");
    assert_eq!(fate("vlan id 5 ip saddr 10.0.0.1 drop"), "drop");
    assert_eq!(fate("ip saddr 10.0.0.1 drop"), "drop");
}

#[test]
fn a_drop_is_final_and_an_accept_ends_its_own_chain_only() {
    let early = || chain("ip t early: forward -10 accept", &["accept"]);
    let late = || chain("inet t late: forward 10 accept", &["ip saddr 10.0.0.1 drop", "accept"]);
    let mut host = host();
    host.netfilter.chains = vec![early(), late()];
    let ruling = judge(&host, &at(Layer::Ipv4, Hook::Forward), &syn());
    assert_eq!(ruling.fate, Fate::Dropped(RuleReference { chain: 1, rule: Some(0) }));
    let own = RuleReference { chain: 0, rule: Some(0) };
    assert_eq!(ruling.taken, [own, RuleReference { chain: 1, rule: Some(0) }]);
}

#[test]
fn jumps_come_back_gotos_do_not_and_the_policy_is_last() {
    let host = |base: &[&str]| {
        let mut host = host();
        host.netfilter.chains = vec![
            chain("ip t forward: forward 0 drop", base),
            chain("ip t mine", &["ip daddr 198.51.100.7 return", "drop"]),
            chain("ip t deep", &["jump mine", "accept"]),
        ];
        host
    };
    let fate = |base: &[&str]| word(&judge(&host(base), &at(Layer::Ipv4, Hook::Forward), &syn()));
    assert_eq!(fate(&["jump mine", "accept"]), "pass");
    assert_eq!(fate(&["goto mine", "accept"]), "drop");
    assert_eq!(fate(&["jump deep"]), "pass");
    assert_eq!(fate(&["tcp dport 80 accept"]), "drop");
    assert_eq!(fate(&["return", "accept"]), "drop");
}

#[test]
fn chains_that_call_each_other_in_a_circle_end() {
    let mut host = host();
    let twice = ["jump b", "jump b"];
    host.netfilter.chains = vec![
        chain("ip t a: forward 0 accept", &twice),
        chain("ip t b", &["jump c", "jump c"]),
        chain("ip t c", &["jump b", "jump b"]),
    ];
    assert_eq!(word(&judge(&host, &at(Layer::Ipv4, Hook::Forward), &syn())), "unknown");
}

#[test]
fn what_is_not_known_matters_only_where_it_decides() {
    let fate = |rules: &[&str], policy: &str| {
        fate(vec![chain(&format!("ip t f: forward 0 {policy}"), rules)], Layer::Ipv4, &Packet { mark: None, ..syn() })
    };
    assert_eq!(fate(&["meta mark 1 drop"], "accept"), "unknown");
    assert_eq!(fate(&["meta mark 1 drop"], "drop"), "drop");
    assert_eq!(fate(&["meta mark 1 accept"], "accept"), "pass");
    assert_eq!(fate(&["meta mark 1 accept", "drop"], "accept"), "unknown");
    assert_eq!(fate(&["meta mark 1 accept", "accept", "drop"], "drop"), "pass");
    assert_eq!(fate(&["meta mark 1 ip saddr 10.9.9.9 drop"], "accept"), "pass");
    // A later chain drops it anyway.
    let chains = vec![chain("ip t f: forward 0 accept", &["meta mark 1 drop"]), chain("ip t g: forward 1 drop", &[])];
    assert_eq!(super::fate(chains, Layer::Ipv4, &Packet { mark: None, ..syn() }), "drop");
}

#[test]
fn the_rule_that_may_decide_is_named() {
    let mut host = host();
    host.netfilter.chains = vec![
        chain("ip t f: forward 0 drop", &["counter", "meta mark 1 jump mine"]),
        chain("ip t mine", &["tcp dport 443 accept"]),
    ];
    let ruling = judge(&host, &at(Layer::Ipv4, Hook::Forward), &Packet { mark: None, ..syn() });
    let Fate::Unknown(by, why) = ruling.fate else { panic!("{:?}", ruling.fate) };
    assert_eq!((by, why.as_str()), (RuleReference { chain: 1, rule: Some(0) }, "the packet's mark is not known"));
}

#[test]
fn a_datagram_is_never_invalid_and_a_connection_that_is_not_known_may_be_any() {
    let fate = |text: &str, packet: Packet| {
        let packet = Packet { connection: None, ..packet };
        fate(vec![chain("ip t f: forward 0 accept", &[text])], Layer::Ipv4, &packet)
    };
    assert_eq!(fate("ct state invalid drop", udp()), "pass");
    assert_eq!(fate("ct state invalid drop", syn()), "pass");
    assert_eq!(fate("ct state new,established,related drop", udp()), "drop");
    assert_eq!(fate("ct state new drop", udp()), "unknown");
}

#[test]
fn before_conntrack_every_packet_is_invalid_and_notrack_makes_it_untracked() {
    let mut host = host();
    host.netfilter.chains = vec![
        chain("ip t raw: prerouting -300 accept", &["ct state new drop", "ct state invalid udp dport 53 notrack"]),
        chain("ip t filter: prerouting 0 accept", &["ct state untracked drop"]),
    ];
    let at = at(Layer::Ipv4, Hook::Prerouting);
    assert_eq!(word(&judge(&host, &at, &syn())), "pass");
    let ruling = judge(&host, &at, &udp());
    assert_eq!((word(&ruling).as_str(), ruling.packet.connection), ("drop", Some(Connection::Untracked)));
}

#[test]
fn the_first_packet_of_a_connection_is_translated() {
    let mut host = host();
    host.netfilter.chains = vec![
        chain("ip nat pre: prerouting -100 accept", &["tcp dport 443 dnat ip to 10.0.0.9:8443", "tcp dport 443 drop"]),
        chain("ip nat post: postrouting 100 accept", &["ip saddr 10.0.0.0/24 oifname \"eth0\" masquerade"]),
        chain("ip mangle early: prerouting -150 accept", &["tcp dport 8443 drop"]),
        chain("ip filter late: prerouting 0 accept", &["ip daddr != 10.0.0.9 drop"]),
    ];
    let ruling = judge(&host, &at(Layer::Ipv4, Hook::Prerouting), &syn());
    assert_eq!(word(&ruling), "pass");
    let ip_header = ruling.packet.ip().unwrap();
    assert_eq!((ip_header.destination, ip_header.transport.ports().unwrap().1), (ip("10.0.0.9"), Some(8443)));
    assert!(ruling.packet.translation.destination_changed && ruling.packet.translation.destination_done);
    let ruling = judge(&host, &at(Layer::Ipv4, Hook::Postrouting), &ruling.packet);
    assert_eq!(ruling.packet.ip().unwrap().source, ip("192.0.2.2"));
    assert!(ruling.packet.translation.source_changed);
    // A packet of a connection that exists asks no nat chain.
    let later = Packet { connection: Some(Connection::Established), ..syn() };
    let mut without = host.clone();
    without.netfilter.chains.truncate(1);
    assert_eq!(judge(&without, &at(Layer::Ipv4, Hook::Prerouting), &later).packet, later);
}

#[test]
fn an_answer_gets_its_ends_back_where_nat_stands() {
    let mut host = host();
    host.netfilter.chains = vec![
        chain("ip t before: prerouting -150 accept", &["ip daddr 10.0.0.1 drop"]),
        chain("ip t behind: prerouting 0 accept", &["ip daddr != 10.0.0.1 drop"]),
    ];
    let restore = Restore { destination: (ip("10.0.0.1"), Some(40_000)), source: (ip("198.51.100.7"), Some(443)) };
    let mut answer = Packet { connection: Some(Connection::Established), ..syn() };
    answer.translation.restore = Some(restore);
    let ruling = judge(&host, &at(Layer::Ipv4, Hook::Prerouting), &answer);
    assert_eq!(word(&ruling), "pass");
    assert_eq!(ruling.packet.ip().unwrap().destination, ip("10.0.0.1"));
}

#[rstest]
#[case("dnat ip to tcp dport map { 443 : 10.0.0.7, 81 : 10.0.0.8 }", "10.0.0.7", 443)]
#[case("dnat ip to tcp dport map { 443 : 10.0.0.7 . 90 }", "10.0.0.7", 90)]
#[case("dnat ip to tcp dport map { 80 : 10.0.0.7 }", "198.51.100.7", 443)]
#[case("tcp dport 443 redirect to :8080", "10.0.0.254", 8080)]
#[case("dnat ip6 to [fd00::1]:80", "198.51.100.7", 443)]
#[case("meta l4proto tcp dnat to :400-500", "198.51.100.7", 443)]
fn translation_of_destinations(#[case] text: &str, #[case] address: &str, #[case] port: u16) {
    let mut host = host();
    host.netfilter.chains = vec![chain("inet nat pre: prerouting -100 accept", &[text])];
    let ruling = judge(&host, &at(Layer::Ipv4, Hook::Prerouting), &syn());
    let header = ruling.packet.ip().unwrap();
    assert_eq!(
        (header.destination, header.transport.ports().unwrap().1),
        (ip(address), Some(port)),
        "{:?}",
        ruling.fate
    );
}

#[test]
fn a_chain_of_a_device_is_met_by_its_packets_only() {
    let fate = |device: &str| {
        let mut host = host();
        host.netfilter.chains = vec![chain(&format!("netdev t in: ingress 0 drop {device}"), &[])];
        word(&judge(&host, &at(Layer::Device, Hook::Ingress), &syn()))
    };
    assert_eq!(fate("br0"), "drop");
    assert_eq!(fate("vnet0,br0"), "drop");
    assert_eq!(fate("vnet0"), "pass");
}

#[test]
fn a_named_map_answers_with_its_verdicts() {
    let fate = |answers: &[&str]| {
        let mut host = host();
        host.netfilter.chains =
            vec![chain("ip t f: forward 0 accept", &["ip saddr vmap @ways"]), chain("ip t mine", &["drop"])];
        host.netfilter.chains[0].rules[0].verdict = Some("vmap accept|jump mine".to_owned());
        host.netfilter.sets = vec![Set {
            family: "ip".to_owned(),
            table: Some("t".to_owned()),
            name: "ways".to_owned(),
            elements: vec!["10.0.0.9".to_owned(), "10.0.0.1".to_owned()],
            complete: true,
            kind: None,
            answers: answers.iter().map(|answer| (*answer).to_owned()).collect(),
        }];
        word(&judge(&host, &at(Layer::Ipv4, Hook::Forward), &syn()))
    };
    assert_eq!(fate(&["accept", "jump mine"]), "drop");
    assert_eq!(fate(&["jump mine", "accept"]), "pass");
    // A recording that lacks the answers knows what they may be.
    assert_eq!(fate(&[]), "unknown");
}

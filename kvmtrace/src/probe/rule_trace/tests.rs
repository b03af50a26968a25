//! Messages as the kernel makes them, and as it never would.

use super::message::{Message, Outcome};
use super::walks::Walks;
use super::{drops, unseen};
use crate::event::host::{Backend, Chain, Netfilter};
use crate::event::{Address, FlowKey, Protocol};
use crate::host::netlink::attribute;
use proptest::prelude::*;
use rstest::rstest;

const INET: u8 = 1;
const BRIDGE: u8 = 7;
const IPV4: u32 = 2;

/// From 10.0.0.11:40000 to 10.0.0.100:9000 by UDP.
const NETWORK: [u8; 20] = [0x45, 0, 0, 48, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 11, 10, 0, 0, 100];
const TRANSPORT: [u8; 8] = [0x9c, 0x40, 0x23, 0x28, 0, 28, 0, 0];
const LINK: [u8; 14] = [0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x08, 0x00];

fn flow(vlan: Option<u16>) -> FlowKey {
    let address = |last| Address::Ip([10, 0, 0, last].into());
    FlowKey {
        protocol: Protocol::Udp,
        source: address(11),
        source_port: Some(40_000),
        destination: address(100),
        destination_port: Some(9_000),
        vlan,
    }
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_be_bytes())
}

/// What every message has.
fn step(family: u8, protocol_family: u32, chain: &str, rest: &[Vec<u8>]) -> Vec<u8> {
    let text = |kind, text: &str| attribute(kind, &[text.as_bytes(), &[0]].concat());
    let head = vec![family, 0, 0, 0];
    let common = [number(15, protocol_family), number(6, 0xabcd), text(2, chain), text(1, "filter")].concat();
    [head, common, rest.concat()].concat()
}

fn rule(handle: u64, verdict: u32) -> Vec<u8> {
    let verdict = attribute(5 | 0x8000, &number(1, verdict));
    [number(4, 3), attribute(3, &handle.to_be_bytes()), verdict].concat()
}

fn policy(verdict: u32) -> Vec<u8> {
    [number(4, 1), number(16, verdict)].concat()
}

fn headers(link: &[u8], network: &[u8], transport: &[u8]) -> Vec<u8> {
    [(7, link), (8, network), (9, transport)]
        .into_iter()
        .map(|(kind, bytes)| attribute(kind, bytes))
        .collect::<Vec<_>>()
        .concat()
}

const JUMP: u32 = (-3_i32).cast_unsigned();
const DROP: u32 = 0;
const ACCEPT: u32 = 1;

fn read(bytes: &[u8]) -> Message {
    Message::read(bytes).unwrap()
}

#[test]
fn a_rule_that_was_jumped_to_is_told_with_the_flow_and_the_chain_that_it_was_reached_from() {
    let mut walks = Walks::default();
    let first = step(INET, IPV4, "forward", &[rule(4, JUMP), headers(&LINK, &NETWORK, &TRANSPORT)]);
    assert_eq!(walks.take(read(&first)), None);
    let (told, site) = walks.take(read(&step(INET, IPV4, "guests", &[rule(9, DROP)]))).unwrap();
    assert_eq!(told, flow(None));
    assert_eq!((site.family.as_str(), site.table.as_str()), ("inet", "filter"));
    assert_eq!((site.base.as_str(), site.chain.as_str(), site.handle), ("forward", "guests", Some(9)));
    assert_eq!(walks.take(read(&step(INET, IPV4, "guests", &[rule(9, DROP)]))), None, "that walk is over");
}

#[test]
fn a_policy_has_no_handle_and_what_was_accepted_is_not_told() {
    let mut walks = Walks::default();
    let (_, site) =
        walks.take(read(&step(INET, IPV4, "forward", &[policy(DROP), headers(&LINK, &NETWORK, &TRANSPORT)]))).unwrap();
    assert_eq!((site.chain.as_str(), site.handle), ("forward", None));
    // 6.18 tells the end of a chain without a match first, and the headers with it.
    let end = [number(4, 3), attribute(5 | 0x8000, &number(1, (-1_i32).cast_unsigned()))].concat();
    assert_eq!(walks.take(read(&step(INET, IPV4, "forward", &[end, headers(&LINK, &NETWORK, &TRANSPORT)]))), None);
    let (_, site) = walks.take(read(&step(INET, IPV4, "forward", &[policy(DROP)]))).unwrap();
    assert_eq!((site.chain.as_str(), site.handle), ("forward", None));
    for accepted in [policy(ACCEPT), rule(3, ACCEPT)] {
        let message = step(INET, IPV4, "forward", &[accepted, headers(&LINK, &NETWORK, &TRANSPORT)]);
        assert_eq!(walks.take(read(&message)), None);
    }
}

#[test]
fn a_walk_whose_beginning_was_lost_is_not_told_and_one_whose_end_was_lost_gives_way() {
    let mut walks = Walks::default();
    assert_eq!(walks.take(read(&step(INET, IPV4, "guests", &[rule(9, DROP)]))), None);
    let mut begin = read(&step(INET, IPV4, "forward", &[rule(4, JUMP), headers(&LINK, &NETWORK, &TRANSPORT)]));
    for id in 0..10_000 {
        begin.id = id;
        assert_eq!(walks.take(begin.clone()), None);
    }
    let end = |id| Message { id, ..read(&step(INET, IPV4, "guests", &[rule(9, DROP)])) };
    assert_eq!(walks.take(end(0)), None);
    assert!(walks.take(end(9_999)).is_some());
}

#[test]
fn two_packets_that_walk_at_once_are_told_apart() {
    let mut walks = Walks::default();
    let begin = read(&step(INET, IPV4, "forward", &[rule(4, JUMP), headers(&LINK, &NETWORK, &TRANSPORT)]));
    let end = read(&step(INET, IPV4, "guests", &[rule(9, DROP)]));
    assert_eq!(walks.take(Message { id: 1, flow: Some(flow(Some(1))), ..begin.clone() }), None);
    assert_eq!(walks.take(Message { id: 2, ..begin }), None);
    assert_eq!(walks.take(Message { id: 2, ..end.clone() }).unwrap().0, flow(None));
    assert_eq!(walks.take(Message { id: 1, ..end }).unwrap().0, flow(Some(1)));
}

#[rstest]
#[case::plain(BRIDGE, 7, &LINK, None)]
#[case::the_tag_is_beside_the_packet(BRIDGE, 7, &[0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x81, 0, 0x20, 9, 8, 0], Some(9))]
#[case::at_an_ip_hook_with_a_tag(INET, IPV4, &[0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 0x81, 0, 0x20, 9, 8, 0], Some(9))]
#[case::made_on_this_host(INET, IPV4, &[], None)]
fn the_flow_is_read_from_the_headers_of_each_family(
    #[case] family: u8,
    #[case] protocol_family: u32,
    #[case] link: &[u8],
    #[case] vlan: Option<u16>,
) {
    let message = read(&step(family, protocol_family, "c", &[policy(DROP), headers(link, &NETWORK, &TRANSPORT)]));
    assert_eq!(message.flow, Some(flow(vlan)));
}

#[test]
fn headers_that_were_cut_are_not_taken_for_others() {
    // IPv4 with 44 bytes of options, of which 20 are told: the ports do not follow what is there.
    let mut network = [0_u8; 40];
    network[..20].copy_from_slice(&NETWORK);
    network[0] = 0x4f;
    let message = read(&step(INET, IPV4, "c", &[policy(DROP), headers(&[], &network, &TRANSPORT)]));
    assert_eq!(message.flow.map(|flow| (flow.source_port, flow.destination_port)), Some((Some(0), Some(0))));
    // An IPv6 extension header, which the network header does not hold.
    let mut network = [0_u8; 40];
    network[0] = 0x60;
    let message = read(&step(INET, 10, "c", &[policy(DROP), headers(&[], &network, &TRANSPORT)]));
    assert_eq!(message.flow.map(|flow| flow.protocol), Some(Protocol::Ip(0)));
}

#[rstest]
#[case(-1, Outcome::GoesOn)]
#[case(-3, Outcome::GoesOn)]
#[case(-5, Outcome::GoesOn)]
#[case(0, Outcome::Dropped)]
// NF_DROP_ERR(-EPERM)
#[case(1 << 16, Outcome::Dropped)]
#[case(1, Outcome::Ends)]
#[case(2, Outcome::Ends)]
// NF_QUEUE_NR(5)
#[case((5 << 16) | 3, Outcome::Ends)]
fn verdicts_are_netfilters_or_nfts_own(#[case] code: i32, #[case] outcome: Outcome) {
    assert_eq!(read(&step(INET, IPV4, "c", &[rule(1, code.cast_unsigned())])).outcome, outcome);
}

#[test]
fn what_the_kernel_dropped_of_a_socket_is_found_by_its_number() {
    let sockets = "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode\n\
        0000000000000000 0   4711       00000550 0        0        0     2        5        100\n\
        0000000000000000 12  4711       00000100 0        0        0     2        42       101\n\
        0000000000000000 12  0          00000000 0        0        0     2        9        102\n";
    assert_eq!(drops(sockets, 4711), 42);
    assert_eq!(drops(sockets, 1), 0);
    assert_eq!(drops("", 4711), 0);
}

#[test]
fn legacy_tables_with_rules_are_told_as_unseen() {
    let chain = |backend, table: &str, policy: &str| Chain {
        backend,
        family: "ip".to_owned(),
        table: table.to_owned(),
        name: "FORWARD".to_owned(),
        hook: Some("forward".to_owned()),
        kind: None,
        priority: None,
        policy: Some(policy.to_owned()),
        policy_packets: None,
        device: None,
        rules: Vec::new(),
    };
    let of = |chains| unseen(&Netfilter { chains, sets: Vec::new() });
    assert_eq!(of(vec![chain(Backend::Nft, "filter", "drop"), chain(Backend::IptablesNft, "filter", "drop")]), None);
    assert_eq!(of(vec![chain(Backend::IptablesLegacy, "filter", "accept")]), None);
    let told = of(vec![chain(Backend::IptablesLegacy, "filter", "drop")]).unwrap();
    assert!(told.why.contains("(ip filter)"), "{}", told.why);
}

fn attributes() -> impl Strategy<Value = Vec<u8>> {
    let one = (0_u16..20, prop::collection::vec(any::<u8>(), 0..60), any::<bool>());
    prop::collection::vec(one, 0..16).prop_map(|list| {
        let one =
            |(kind, value, nested): (u16, Vec<u8>, bool)| attribute(if nested { kind | 0x8000 } else { kind }, &value);
        list.into_iter().map(one).collect::<Vec<_>>().concat()
    })
}

proptest! {
    #[test]
    fn any_bytes_give_a_message_or_nothing(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut walks = Walks::default();
        Message::read(&bytes).and_then(|message| walks.take(message));
    }

    #[test]
    fn any_attributes_give_a_message_or_nothing(rest in attributes(), first in 0_u8..12, kind in 0_u32..5) {
        let mut walks = Walks::default();
        let bytes = step(first, u32::from(first), "c", &[number(4, kind), rest]);
        if let Some(message) = Message::read(&bytes) {
            prop_assert!(message.first || message.flow.is_none());
            walks.take(message);
        }
    }

    #[test]
    fn any_cut_of_a_whole_message_is_read_or_refused(cut in 0_usize..200) {
        let whole = step(BRIDGE, 7, "c", &[rule(4, DROP), headers(&LINK, &NETWORK, &TRANSPORT)]);
        let bytes = whole.get(..cut.min(whole.len())).unwrap();
        if let Some(message) = Message::read(bytes) {
            prop_assert!(message.handle == Some(4) || message.outcome == Outcome::GoesOn, "no drop without its rule");
        }
    }
}

//! Texts of rules: none makes the reader panic.

use super::{Names, Statement};
use crate::event::host::{Backend, Chain, Netfilter, Rule};
use proptest::prelude::*;

fn read(backend: Backend, family: &str, text: &str) -> super::Rule {
    let rule = Rule { handle: None, number: 1, text: text.to_owned(), packets: None, verdict: Some("drop".to_owned()) };
    let chain = Chain {
        backend,
        family: family.to_owned(),
        table: "t".to_owned(),
        name: "c".to_owned(),
        hook: None,
        kind: None,
        priority: None,
        policy: None,
        policy_packets: None,
        device: None,
        rules: Vec::new(),
    };
    Names::new(&Netfilter::default()).rule(&chain, &rule)
}

#[test]
fn what_is_not_understood_ends_the_reading_and_leaves_the_verdict_open() {
    let rule = read(Backend::Nft, "inet", "ip saddr 10.0.0.1 jhash ip saddr mod 2 0 drop");
    let [Statement::Test(_), Statement::Unknown(text), Statement::Perhaps(verdicts)] = rule.statements.as_slice()
    else {
        panic!("{rule:?}")
    };
    assert_eq!(text, "jhash ip saddr mod 2 0 drop");
    assert_eq!(verdicts, &[super::Verdict::Drop]);
}

#[test]
fn a_text_that_is_cut_is_not_understood() {
    let rule = read(Backend::Nft, "inet", "ip saddr { 10.0.0.1, 10.0.0.2");
    assert!(matches!(rule.statements.as_slice(), [Statement::Unknown(_), Statement::Perhaps(_)]), "{rule:?}");
}

/// As nft 1.0.6 lists them.
const LISTING: &str = include_str!("listing.nft");

#[test]
fn all_of_a_listing_is_understood() {
    for line in LISTING.lines() {
        let rule = read(Backend::Nft, "inet", line);
        let unknown = rule.statements.iter().any(|statement| matches!(statement, Statement::Unknown(_)));
        assert!(!unknown, "{line}: {rule:?}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_reader_panic(text in ".{0,60}", family in 0..4_usize) {
        let family = ["inet", "ip6", "bridge", "arp"][family];
        for backend in [Backend::Nft, Backend::IptablesNft] {
            read(backend, family, &text);
        }
    }

    #[test]
    fn no_order_of_known_words_makes_the_reader_panic(words in prop::collection::vec(0..WORDS.len(), 0..14), family in 0..4_usize) {
        let family = ["inet", "ip6", "bridge", "arp"][family];
        let text = words.iter().map(|word| WORDS[*word]).collect::<Vec<_>>().join(" ");
        for backend in [Backend::Nft, Backend::IptablesNft] {
            read(backend, family, &text);
        }
    }
}

const WORDS: &[&str] = &[
    "ip",
    "ip6",
    "saddr",
    "daddr",
    "tcp",
    "dport",
    "flags",
    "syn",
    "/",
    "ct",
    "state",
    "new",
    "vmap",
    "{",
    "}",
    ":",
    ",",
    ".",
    "@s",
    "10.0.0.1",
    "10.0.0.0/8",
    "1-2",
    "meta",
    "mark",
    "set",
    "&",
    "|",
    "^",
    "(",
    ")",
    "!=",
    "==",
    "<",
    "0x1",
    "jump",
    "x",
    "accept",
    "drop",
    "dnat",
    "to",
    "map",
    ":80",
    "[fd00::1]:80",
    "limit",
    "rate",
    "over",
    "10/second",
    "update",
    "queue",
    "num",
    "fib",
    "oif",
    "type",
    "missing",
    "log",
    "prefix",
    "\"a",
    "\"b\"",
    "comment",
    "quota",
    "used",
    "-A",
    "-s",
    "-p",
    "-m",
    "-j",
    "!",
    "multiport",
    "--dports",
    "1:2",
    "--ctstate",
    "NEW,DNAT",
    "SNAT",
    "--to-source",
    "1.2.3.4:5-6",
    "MARK",
    "--set-xmark",
    "0x1/0x2",
    "--match-set",
    "src,dst",
    "-d",
    "mark",
    "--mark-set",
    "CONNMARK",
    "--tcp-flags",
    "SYN",
    "counter",
    "packets",
    "masquerade",
    "random",
    "option",
    "reject",
    "with",
    "icmp",
    "arp",
    "operation",
    "vlan",
    "id",
    "ether",
    "snat",
    "NETMAP",
    "--to",
    "1.2.3.0/24",
];

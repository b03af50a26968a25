//! Rules that protect: against false sources, against packets of no connection, between guests that are kept apart.

use super::words::{Word, words};
use crate::event::host::{Chain, Rule};

/// What a rule is there for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protection {
    /// It keeps a sender to its own addresses.
    Source,
    /// It drops what belongs to no connection.
    Invalid,
    /// It keeps a guest apart, by the word of whoever wrote it.
    Isolation,
    /// It keeps guests from answering for a DHCP server or a router.
    Server,
}

impl Protection {
    /// As a sentence.
    pub fn what(self) -> &'static str {
        match self {
            Self::Source => "The rule keeps senders to their own addresses, and stays.",
            Self::Invalid => "The rule drops what belongs to no connection, and stays.",
            Self::Isolation => "The rule keeps a guest apart on purpose, and stays.",
            Self::Server => "The rule keeps guests from giving leases (DHCP) or being routers to others, and stays.",
        }
    }
}

/// What the rule protects against, as its text says.
pub fn protection(rule: &Rule) -> Option<Protection> {
    let words = words(&rule.text);
    let plain: Vec<&str> = words.iter().map(Word::plain).collect();
    if is_source_check(&plain) {
        return Some(Protection::Source);
    }
    let state = |at: usize| matches!(plain.get(at).copied(), Some("state" | "--ctstate" | "--state"));
    let invalid = plain.iter().enumerate().any(|(at, word)| {
        let negated = at > 1 && matches!(plain.get(at - 2).copied(), Some("!" | "!="));
        at > 0 && state(at - 1) && word.eq_ignore_ascii_case("invalid") && !negated
    });
    if invalid {
        return Some(Protection::Invalid);
    }
    if is_server_guard(&plain) {
        return Some(Protection::Server);
    }
    plain.iter().any(|word| is_apart(word)).then_some(Protection::Isolation)
}

/// A name or comment says that something is kept apart.
pub fn is_apart(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    ["quarantine", "isolat"].iter().any(|word| name.contains(word))
}

/// The rule, or the chain that it is in, keeps a guest apart on purpose.
pub fn keeps_apart(chain: &Chain, rule: Option<&Rule>) -> bool {
    is_apart(&chain.name) || rule.is_some_and(|rule| protection(rule) == Some(Protection::Isolation))
}

/// It drops what comes from anywhere but an address: `ether saddr != MAC`, `! -s ADDRESS`, `-s ! MAC`, `fib saddr`.
fn is_source_check(words: &[&str]) -> bool {
    let before = |at: usize, back: usize| at.checked_sub(back).and_then(|at| words.get(at)).copied().unwrap_or("");
    words.iter().enumerate().any(|(at, word)| {
        let next = words.get(at + 1).copied().unwrap_or_default();
        let after = words.get(at + 2).copied().unwrap_or_default();
        match *word {
            // `arp saddr ip != …` names the kind of address behind the side.
            "saddr" => next == "!=" || before(at, 1) == "arp" && after == "!=" || before(at, 1) == "fib",
            "-s" | "--source" | "--mac-source" | "--ip-src" | "--ip-source" | "--ip6-src" | "--arp-ip-src"
            | "--arp-mac-src" | "--source-mac" | "--src-mac" => before(at, 1) == "!" || next == "!",
            "rpfilter" => before(at, 1) == "-m",
            _ => false,
        }
    })
}

/// It drops what only a DHCP server or a router sends: `udp sport 67`, `--sport 547`, `nd-router-advert`.
fn is_server_guard(words: &[&str]) -> bool {
    let before = |at: usize| at.checked_sub(1).and_then(|at| words.get(at)).copied().unwrap_or_default();
    words.iter().enumerate().any(|(at, word)| match *word {
        "67" | "bootps" | "547" | "dhcpv6-server" => {
            matches!(
                before(at),
                "sport" | "--sport" | "--source-port" | "--ip-sport" | "--ip-source-port" | "--ip6-sport"
            )
        }
        "nd-router-advert" | "router-advertisement" => true,
        "134" => matches!(before(at), "--icmpv6-type" | "type" | "--ip6-icmp-type"),
        _ => false,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(r#"iifname "vnet0" ether saddr != 52:54:00:aa:00:01 drop"#, Some(Protection::Source))]
    #[case(r#"iifname "vnet0" arp saddr ip != 10.99.0.11 drop"#, Some(Protection::Source))]
    #[case(r#"iifname "vnet0" ip saddr != { 10.99.0.11, 10.99.0.12 } drop"#, Some(Protection::Source))]
    #[case("fib saddr . iif oif missing drop", Some(Protection::Source))]
    #[case("-A tap100i0-OUT -m mac ! --mac-source 52:54:00:aa:00:01 -j DROP", Some(Protection::Source))]
    #[case("-A FORWARD -i vnet0 -s ! 52:54:00:aa:00:01 -j DROP", Some(Protection::Source))]
    #[case("-A x ! -s 10.0.0.1/32 -j DROP", Some(Protection::Source))]
    #[case("ct state invalid counter drop", Some(Protection::Invalid))]
    #[case("-A FORWARD -m conntrack --ctstate INVALID -j DROP", Some(Protection::Invalid))]
    #[case(r#"ip saddr @quarantine drop comment "x""#, Some(Protection::Isolation))]
    #[case(r#"iifname "a" oifname "b" drop comment "tenant isolation""#, Some(Protection::Isolation))]
    #[case(r#"iifname "vnet0" udp sport 67 drop"#, Some(Protection::Server))]
    #[case("-A FORWARD -p udp -m udp --sport 67 --dport 68 -j DROP", Some(Protection::Server))]
    #[case("icmpv6 type nd-router-advert drop", Some(Protection::Server))]
    #[case("-A x -p ipv6-icmp -m icmp6 --icmpv6-type 134 -j DROP", Some(Protection::Server))]
    #[case("udp dport 67 drop", None)]
    #[case("ip saddr 10.0.0.0/24 drop", None)]
    #[case("ip daddr != 10.0.0.1 drop", None)]
    #[case("ct state new drop", None)]
    fn a_rules_text_says_what_it_protects_against(#[case] text: &str, #[case] expected: Option<Protection>) {
        let rule = Rule { handle: None, number: 1, text: text.to_owned(), packets: None, verdict: None };
        assert_eq!(protection(&rule), expected);
    }
}

//! Rules that name a set: what is in it, and the cure that takes one address out and leaves the rule, which may keep out
//! many others.

use super::conversation::Conversation;
use crate::diagnose::facts::firewall::sets::{asked_set, find};
use crate::diagnose::report::Fix;
use crate::diagnose::shell::{is_plain, quote};
use crate::event::HostState;
use crate::event::host::{Chain, Rule};
use crate::forward::effect::Effect;
use std::net::IpAddr;

/// Takes the address out of the set that the rule drops, or puts it into the one that it spares.
pub(in crate::diagnose) fn change_members(
    host: &HostState,
    chain: &Chain,
    rule: &Rule,
    wanted: &Conversation,
) -> Option<Fix> {
    let asked = asked_set(host, rule, chain)?;
    let set = find(host, chain, &asked.set)?;
    let address = if asked.of_source { wanted.source } else { wanted.destination }?;
    let own = set.elements.iter().find(|element| element.parse::<IpAddr>() == Ok(address));
    if own.is_some() == asked.negated || asked.negated && !set.complete {
        return None;
    }
    let (out, into) = if let Some(table) = &set.table {
        if ![&set.family, table, &set.name].into_iter().all(|name| is_plain(name)) {
            return None;
        }
        let place = format!("{} {table} {} {{ {address} }}", set.family, set.name);
        let line = |verb: &str| format!("nft {}", quote(&format!("{verb} element {place}")));
        (line("delete"), line("add"))
    } else {
        let line = |verb: &str| format!("ipset {verb} {} {address}", quote(&set.name));
        (line("del"), line("add"))
    };
    let index = host.netfilter.sets.iter().position(|other| std::ptr::eq(other, set));
    let fix = if asked.negated {
        let why = format!("Puts {address} into the set {}, which the rule spares; the rule stays.", set.name);
        Fix::run(into, out, why)
            .risk(format!("All that the set opens is open to {address}."))
            .effects(index.map(|index| Effect::SetElement(index, address.to_string(), true)))
    } else {
        let why = format!("Takes {address} out of the set {}, whose members the rule drops; the rule stays.", set.name);
        Fix::run(out, into, why)
            .risk(format!("Somebody had a reason to put {address} there, and may do so again."))
            .effects(index.map(|index| Effect::SetElement(index, address.to_string(), false)))
    };
    Some(fix.persist(format!(
        "Change what fills the set {}: the file that it is loaded from, or the program that keeps it (fail2ban, CrowdSec, a script).",
        set.name
    )))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::host::{Backend, Set};
    use rstest::rstest;

    fn host(table: Option<&str>, elements: &[&str], complete: bool) -> HostState {
        let set = Set {
            family: "inet".to_owned(),
            table: table.map(str::to_owned),
            name: "closed".to_owned(),
            elements: elements.iter().map(|element| (*element).to_owned()).collect(),
            complete,
            kind: None,
            answers: Vec::new(),
        };
        let mut host = HostState::default();
        host.netfilter.sets.push(set);
        host
    }

    fn rule(text: &str) -> Rule {
        Rule { handle: Some(7), number: 1, text: text.to_owned(), packets: None, verdict: Some("drop".to_owned()) }
    }

    fn chain(backend: Backend) -> Chain {
        Chain {
            backend,
            family: "inet".to_owned(),
            table: "fw".to_owned(),
            name: "forward".to_owned(),
            hook: Some("forward".to_owned()),
            kind: None,
            priority: Some(0),
            policy: None,
            policy_packets: None,
            device: None,
            rules: Vec::new(),
        }
    }

    const WANTED: Conversation = Conversation {
        source: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 11))),
        destination: Some(IpAddr::V4(std::net::Ipv4Addr::new(10, 0, 0, 100))),
        service: crate::diagnose::fix::conversation::Service::Udp,
        port: None,
        answered: true,
    };

    #[rstest]
    #[case("ip saddr @closed drop", &["10.0.0.9", "10.0.0.11"], Some("nft 'delete element inet fw closed { 10.0.0.11 }'"))]
    #[case("ip daddr @closed counter packets 1 bytes 2 drop", &["10.0.0.100"], Some("nft 'delete element inet fw closed { 10.0.0.100 }'"))]
    #[case("ip saddr != @closed drop", &["10.0.0.9"], Some("nft 'add element inet fw closed { 10.0.0.11 }'"))]
    // It is in there with others, or its place is not known.
    #[case("ip saddr @closed drop", &["10.0.0.0/24"], None)]
    #[case("ip saddr . ip daddr @closed drop", &["10.0.0.11"], None)]
    #[case("ip saddr @closed ip daddr @closed drop", &["10.0.0.11"], None)]
    #[case("ether saddr @closed drop", &["10.0.0.11"], None)]
    #[case("ip saddr @other drop", &["10.0.0.11"], None)]
    fn one_address_is_taken_out_or_put_in(
        #[case] text: &str,
        #[case] elements: &[&str],
        #[case] command: Option<&str>,
    ) {
        let host = host(Some("fw"), elements, true);
        let told = change_members(&host, &chain(Backend::Nft), &rule(text), &WANTED);
        assert_eq!(told.and_then(|fix| fix.command).as_deref(), command);
    }

    #[test]
    fn what_is_not_known_to_be_missing_is_not_put_in() {
        let host = host(Some("fw"), &["10.0.0.9"], false);
        assert_eq!(change_members(&host, &chain(Backend::Nft), &rule("ip saddr != @closed drop"), &WANTED), None);
    }

    #[rstest]
    #[case("-A FORWARD -m set --match-set closed src -j DROP", &["10.0.0.11"], Some(("ipset del closed 10.0.0.11", "ipset add closed 10.0.0.11")))]
    #[case("-A FORWARD -m set ! --match-set closed dst -j DROP", &[], Some(("ipset add closed 10.0.0.100", "ipset del closed 10.0.0.100")))]
    #[case("-A FORWARD -m set --match-set closed src,dst -j DROP", &["10.0.0.11,tcp:53"], None)]
    fn a_set_of_ipset_is_changed_by_ipset(
        #[case] text: &str,
        #[case] elements: &[&str],
        #[case] commands: Option<(&str, &str)>,
    ) {
        let host = host(None, elements, true);
        let told = change_members(&host, &chain(Backend::IptablesLegacy), &rule(text), &WANTED);
        let told = told.and_then(|fix| Some((fix.command?, fix.undo?)));
        assert_eq!(told.as_ref().map(|(command, undo)| (command.as_str(), undo.as_str())), commands);
        assert_eq!(change_members(&host, &chain(Backend::Nft), &rule(text), &WANTED), None);
    }
}

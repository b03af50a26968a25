//! A rule that lets one conversation through a chain that drops.

use super::conversation::{Conversation, Port};
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::firewall::suspects::tool;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::Fix;
use crate::diagnose::shell::{nft_chain, nft_delete, quote};
use crate::event::HostState;
use crate::event::host::{Backend, Chain, Rule};
use crate::forward::effect::Effect;
use std::net::IpAddr;

/// Lets this conversation through a chain that drops, both ways where both pass it.
pub(in crate::diagnose) fn accept(scene: &Scene<'_>, chain: &Chain, stage: &Stage, wanted: &Conversation) -> Fix {
    let by_ip = is_by_ip(stage, wanted);
    let both_ways = matches!(stage.hook, "forward" | "prerouting" | "postrouting");
    let ways = match (by_ip, both_ways) {
        (false, _) => vec![None],
        (true, true) => vec![Some(*wanted), Some(wanted.reverse())],
        (true, false) => vec![Some(*wanted)],
    };
    accept_ways(scene, chain, &ways)
}

/// The chain tells packets by their IP addresses.
pub(in crate::diagnose) fn is_by_ip(stage: &Stage, wanted: &Conversation) -> bool {
    matches!(stage.family, "ip" | "ip6") && (wanted.source.is_some() || wanted.destination.is_some())
}

/// Lets these through; none stands for everything.
pub(in crate::diagnose) fn accept_ways(scene: &Scene<'_>, chain: &Chain, ways: &[Option<Conversation>]) -> Fix {
    let (what, risk) = match ways.first() {
        Some(Some(wanted)) => (wanted.text(), wanted.risk()),
        _ => ("all packets".to_owned(), "Everything passes the chain; narrow it to what is needed.".to_owned()),
    };
    let why = match ways {
        [Some(_), ..] => format!("Lets {what}, past the rules of the chain that drops it."),
        _ => format!("Lets {what} pass the chain that drops them."),
    };
    let index = scene.host.netfilter.chains.iter().position(|other| std::ptr::eq(other, chain));
    let effects = |ways: &[Option<Conversation>]| -> Vec<Effect> {
        let rule = |way: &Option<Conversation>| accepting_rule(chain, way.as_ref());
        let inserted = ways.iter().map(rule).filter_map(|rule| Some(Effect::RuleInsert(index?, Box::new(rule))));
        inserted.collect()
    };
    let fix = match chain.backend {
        Backend::Nft => nft_accept(chain, ways, why).unwrap_or_else(|| {
            Fix::advice(format!(
                "Let {what} pass {} {} {}, whose name nft has no way to write.",
                chain.family, chain.table, chain.name
            ))
        }),
        Backend::IptablesNft | Backend::IptablesLegacy => iptables_accept(chain, ways, why),
    };
    let effects = if fix.command.is_some() { effects(ways) } else { Vec::new() };
    fix.risk(risk).persist(format!("Add the rule to {}.", boot_file(scene.host, chain))).effects(effects)
}

fn nft_accept(chain: &Chain, ways: &[Option<Conversation>], why: String) -> Option<Fix> {
    let place = nft_chain(chain)?;
    let tests: Vec<String> = ways.iter().map(|way| way.as_ref().map(nft_tests).unwrap_or_default()).collect();
    // The comment finds the rule again, and no other of ours.
    let comment = match tests.first().map(|tests| tests.trim_end()) {
        Some(tests) if !tests.is_empty() => format!("kvmtrace: {tests}"),
        _ => "kvmtrace".to_owned(),
    };
    let insert = |tests: &String| {
        format!("nft {}", quote(&format!("insert rule {place} {tests}counter accept comment \"{comment}\"")))
    };
    let commands: Vec<String> = tests.iter().map(insert).collect();
    Some(Fix::run(commands.join(" && "), nft_delete(&place, &comment), why))
}

/// The tests of nft that take these packets, with a blank behind.
fn nft_tests(wanted: &Conversation) -> String {
    let mut tests = Vec::new();
    for (side, address) in [("saddr", wanted.source), ("daddr", wanted.destination)] {
        tests.extend(address.map(|address| format!("{} {side} {address}", nft_family(address))));
    }
    tests.extend(match (wanted.protocol, wanted.port) {
        (Some(protocol), Some(Port::Destination(port))) => Some(format!("{protocol} dport {port}")),
        (Some(protocol), Some(Port::Source(port))) => Some(format!("{protocol} sport {port}")),
        (Some(protocol), None) => Some(format!("meta l4proto {protocol}")),
        (None, _) => None,
    });
    tests.join(" ") + " "
}

/// The options of iptables that take these packets, with a blank before.
fn iptables_tests(wanted: &Conversation) -> String {
    let mut tests = String::new();
    for (flag, address) in [("-s", wanted.source), ("-d", wanted.destination)] {
        tests += &address.map(|address| format!(" {flag} {address}")).unwrap_or_default();
    }
    tests += &wanted.protocol.map(|protocol| format!(" -p {protocol}")).unwrap_or_default();
    tests
        + &match wanted.port {
            Some(Port::Destination(port)) => format!(" --dport {port}"),
            Some(Port::Source(port)) => format!(" --sport {port}"),
            None => String::new(),
        }
}

/// The rule that the command inserts, as it would be listed.
fn accepting_rule(chain: &Chain, way: Option<&Conversation>) -> Rule {
    let text = match chain.backend {
        Backend::Nft => format!("{}counter accept", way.map(nft_tests).unwrap_or_default()),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            format!("-A {}{} -j ACCEPT", chain.name, way.map(iptables_tests).unwrap_or_default())
        }
    };
    Rule { handle: None, number: 0, text, packets: None, verdict: Some("accept".to_owned()) }
}

fn nft_family(address: IpAddr) -> &'static str {
    if address.is_ipv6() { "ip6" } else { "ip" }
}

fn iptables_accept(chain: &Chain, ways: &[Option<Conversation>], why: String) -> Fix {
    let tool = format!("{} -t {}", tool(chain), quote(&chain.table));
    let all = |verb: &str, joint: &str| {
        let command = |way: &Option<Conversation>| {
            let tests = way.as_ref().map(iptables_tests).unwrap_or_default();
            format!("{tool} {verb} {}{tests} -j ACCEPT", quote(&chain.name))
        };
        ways.iter().map(command).collect::<Vec<_>>().join(joint)
    };
    Fix::run(all("-I", " && "), all("-D", "; "), why)
}

/// From where this host loads a chain at boot.
pub(in crate::diagnose) fn boot_file(host: &HostState, chain: &Chain) -> String {
    let known = |file: &&str| host.configuration.firewall.iter().any(|known| known == file);
    if chain.backend == Backend::Nft {
        let file = ["/etc/nftables.conf", "/etc/sysconfig/nftables.conf"].into_iter().find(known);
        return match file {
            Some(file) => {
                format!("{file}, if the table is loaded from there, else where the tool that made it keeps it")
            }
            None => "the file that the table is loaded from (/etc/nftables.conf), or the tool that made it".to_owned(),
        };
    }
    let file = match chain.family.as_str() {
        "ip" => "/etc/iptables/rules.v4",
        "ip6" => "/etc/iptables/rules.v6",
        _ => return "the script or tool that made the chain".to_owned(),
    };
    if known(&file) {
        format!("{file} (netfilter-persistent save writes the rules as they are now)")
    } else {
        format!("the script or tool that made it ({file}, if iptables-persistent is installed)")
    }
}

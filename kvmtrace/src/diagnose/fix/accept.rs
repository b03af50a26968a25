//! A rule that lets one conversation through a chain that drops: its own addresses, protocol and port, in the words of
//! each family, before the rule that drops.

use super::conversation::{Carried, Conversation, Port, Service};
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::firewall::suspects::tool;
use crate::diagnose::facts::firewall::words::words;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::{Accept, Fix};
use crate::diagnose::shell::{nft_chain, nft_delete, quote};
use crate::event::HostState;
use crate::event::host::{Backend, Chain, Rule};
use crate::forward::effect::Effect;
use std::net::IpAddr;

/// Lets this conversation through a chain that drops, both ways where both pass it; before a rule, where that is the one
/// that drops, so that the checks in front of it stay.
pub(in crate::diagnose) fn accept(
    scene: &Scene<'_>,
    chain: &Chain,
    stage: &Stage,
    wanted: &Conversation,
    before: Option<&Rule>,
) -> Fix {
    // A policy that drops all neighbour discovery cuts this host off from every neighbour, the next hop among them (RFC 4890, 4.4.1).
    if matches!(wanted.service, Service::Discovery(_)) && stage.hook == "input" && before.is_none() {
        return accept_ways(scene, chain, &[Conversation { source: None, destination: None, ..*wanted }], None);
    }
    let both_ways = wanted.answered && matches!(stage.hook, "forward" | "prerouting" | "postrouting");
    let ways = if both_ways { vec![*wanted, wanted.reverse()] } else { vec![*wanted] };
    accept_ways(scene, chain, &ways, before)
}

/// Lets these through, the first of which is the one that was dropped.
pub(in crate::diagnose) fn accept_ways(
    scene: &Scene<'_>,
    chain: &Chain,
    ways: &[Conversation],
    before: Option<&Rule>,
) -> Fix {
    let ways: &[Conversation] = &by_kind(chain, ways);
    let Some(wanted) = ways.first() else { return Fix::advice("Let this flow through the chain that drops it.") };
    let what = wanted.text();
    let why = format!("Lets {what}, past the rules of the chain that drops it.");
    let fix = match chain.backend {
        Backend::Nft => nft_accept(chain, ways, before, why),
        Backend::IptablesNft | Backend::IptablesLegacy => iptables_accept(chain, ways, before, why),
    };
    let persist = format!("Add the rule to {}.", boot_file(scene.host, chain));
    let Some(fix) = fix else {
        return Fix::advice(format!(
            "Let {what} pass {} {} {}: its tool has no words for such a rule.",
            chain.family, chain.table, chain.name
        ));
    };
    let index = scene.host.netfilter.chains.iter().position(|other| std::ptr::eq(other, chain));
    let rule = |way: &Conversation| Some(Effect::RuleInsert(index?, Box::new(accepting_rule(chain, way)?)));
    let fix = fix.risk(wanted.risk()).persist(persist).effects(ways.iter().filter_map(rule).collect::<Vec<_>>());
    let before = before.and_then(|rule| chain.rules.iter().position(|other| std::ptr::eq(other, rule)));
    Fix { accepts: index.map(|chain| Accept { chain, before, ways: ways.to_vec() }), ..fix }
}

/// nft asks for several kinds of ICMP in one rule, the other tools need a rule for each.
fn by_kind(chain: &Chain, ways: &[Conversation]) -> Vec<Conversation> {
    let single = |way: &Conversation| {
        let both = way.service == Service::Discovery(None) && chain.backend != Backend::Nft;
        if !both {
            return vec![*way];
        }
        [135, 136].map(|kind| Conversation { service: Service::Discovery(Some(kind)), ..*way }).to_vec()
    };
    ways.iter().flat_map(single).collect()
}

fn nft_accept(chain: &Chain, ways: &[Conversation], before: Option<&Rule>, why: String) -> Option<Fix> {
    let place = nft_chain(chain)?;
    let at = before.and_then(|rule| rule.handle).map(|handle| format!(" position {handle}")).unwrap_or_default();
    let tests: Vec<String> = ways.iter().map(nft_tests).collect();
    // The comment finds the rule again, and no other of ours; the kernel keeps 128 bytes of it (`NFT_USERDATA_MAXLEN`).
    let comment: String = format!("kvmtrace: {}", tests.first()?).chars().take(120).collect();
    let commands: Vec<String> = tests
        .iter()
        .zip(ways)
        .enumerate()
        .map(|(way, (tests, _))| {
            let device = before.filter(|_| way == 0).and_then(input_test).unwrap_or_default();
            format!(
                "nft {}",
                quote(&format!("insert rule {place}{at} {device}{tests} counter accept comment \"{comment}\""))
            )
        })
        .collect();
    Some(Fix::run(commands.join(" && "), nft_delete(&place, &comment), why))
}

/// The device that the rule asks for is asked for again, so that no other port may send these packets.
pub(super) fn input_test(rule: &Rule) -> Option<String> {
    let words = words(&rule.text);
    let at = words.iter().position(|word| word.plain() == "iifname")?;
    let name = words.get(at + 1)?.plain();
    let plain = !name.is_empty() && name != "!=" && !name.contains(['"', '\\', '*', '@']);
    plain.then(|| format!("iifname \"{name}\" "))
}

fn nft_tests(wanted: &Conversation) -> String {
    if let Service::Frames(source, destination, kind) = wanted.service {
        return format!("ether saddr {source} ether daddr {destination} ether type {kind:#06x}");
    }
    if let Service::Discovery(_) = wanted.service {
        let source = wanted.source.map(|source| format!("ip6 saddr {source} ")).unwrap_or_default();
        return format!("{source}icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }}");
    }
    let mut tests = Vec::new();
    let arp = wanted.service == Service::Arp;
    for (side, address) in [("saddr", wanted.source), ("daddr", wanted.destination)] {
        tests.extend(address.map(|address| match address {
            _ if arp => format!("arp {side} ip {address}"),
            IpAddr::V4(_) => format!("ip {side} {address}"),
            IpAddr::V6(_) => format!("ip6 {side} {address}"),
        }));
    }
    let v4 = [wanted.source, wanted.destination].into_iter().flatten().next().is_some_and(|address| address.is_ipv4());
    tests.extend(match (wanted.service.over_ip(), wanted.port) {
        (Some(protocol), Some(Port::Destination(port))) => Some(format!("{protocol} dport {port}")),
        (Some(protocol), Some(Port::Source(port))) => Some(format!("{protocol} sport {port}")),
        (Some(Carried::Number(number)), None) if v4 => Some(format!("ip protocol {number}")),
        (Some(protocol), None) => Some(format!("meta l4proto {protocol}")),
        (None, _) => None,
    });
    if from_anybody(wanted) {
        tests.push("ct state established,related".to_owned());
    }
    tests.join(" ")
}

/// The answers of all that a machine asks anybody for: nobody may begin anything by them.
fn from_anybody(way: &Conversation) -> bool {
    way.source.is_none() && way.destination.is_some() && way.service == Service::AnyIp
}

/// The rule that the command inserts, as it would be listed.
pub(super) fn accepting_rule(chain: &Chain, way: &Conversation) -> Option<Rule> {
    let text = match chain.backend {
        Backend::Nft => format!("{} counter accept", nft_tests(way)),
        Backend::IptablesNft | Backend::IptablesLegacy => {
            format!("-A {}{} -j ACCEPT", chain.name, table_tests(chain)(way)?)
        }
    };
    Some(Rule { handle: None, number: 0, text, packets: None, verdict: Some("accept".to_owned()) })
}

/// How the tool of a chain writes the tests.
fn table_tests(chain: &Chain) -> fn(&Conversation) -> Option<String> {
    match chain.family.as_str() {
        "bridge" => ebtables_tests,
        "arp" => arptables_tests,
        _ => iptables_tests,
    }
}

fn iptables_accept(chain: &Chain, ways: &[Conversation], before: Option<&Rule>, why: String) -> Option<Fix> {
    let tool = format!("{} -t {}", tool(chain), quote(&chain.table));
    let ways: Vec<String> = ways.iter().map(table_tests(chain)).collect::<Option<_>>()?;
    let name = quote(&chain.name);
    let at = before.map(|rule| format!(" {}", rule.number)).unwrap_or_default();
    let all = |verb: &str, at: &str, joint: &str| {
        let commands = ways.iter().map(|tests| format!("{tool} {verb} {name}{at}{tests} -j ACCEPT"));
        commands.collect::<Vec<_>>().join(joint)
    };
    Some(Fix::run(all("-I", &at, " && "), all("-D", "", "; "), why))
}

fn iptables_tests(wanted: &Conversation) -> Option<String> {
    if matches!(wanted.service, Service::Arp | Service::Frames(..)) {
        return None;
    }
    if let Service::Discovery(kind) = wanted.service {
        let source = wanted.source.map(|source| format!(" -s {source}")).unwrap_or_default();
        return Some(format!("{source} -p ipv6-icmp -m icmp6 --icmpv6-type {}", kind.unwrap_or(135)));
    }
    let mut tests = String::new();
    for (flag, address) in [("-s", wanted.source), ("-d", wanted.destination)] {
        tests += &address.map(|address| format!(" {flag} {address}")).unwrap_or_default();
    }
    if from_anybody(wanted) {
        tests += " -m conntrack --ctstate RELATED,ESTABLISHED";
    }
    tests += &wanted.service.over_ip().map(|protocol| format!(" -p {protocol}")).unwrap_or_default();
    Some(
        tests
            + &match wanted.port {
                Some(Port::Destination(port)) => format!(" --dport {port}"),
                Some(Port::Source(port)) => format!(" --sport {port}"),
                None => String::new(),
            },
    )
}

fn arptables_tests(wanted: &Conversation) -> Option<String> {
    let (source, destination) = (wanted.source?, wanted.destination?);
    (wanted.service == Service::Arp).then(|| format!(" -s {source} -d {destination}"))
}

fn ebtables_tests(wanted: &Conversation) -> Option<String> {
    if let Service::Frames(source, destination, kind) = wanted.service {
        return Some(format!(" -p {kind:#06x} -s {source} -d {destination}"));
    }
    let (source, destination) = (wanted.source?, wanted.destination?);
    if wanted.service == Service::Arp {
        return Some(format!(" -p ARP --arp-ip-src {source} --arp-ip-dst {destination}"));
    }
    if let Service::Discovery(kind) = wanted.service {
        let kind = kind.unwrap_or(135);
        return Some(format!(" -p IPv6 --ip6-src {source} --ip6-proto ipv6-icmp --ip6-icmp-type {kind}"));
    }
    let (kind, ip) = if source.is_ipv6() { ("IPv6", "ip6") } else { ("IPv4", "ip") };
    let protocol = wanted.service.over_ip().map(|protocol| format!(" --{ip}-proto {protocol}")).unwrap_or_default();
    let port = match wanted.port {
        Some(Port::Destination(port)) => format!(" --{ip}-dport {port}"),
        Some(Port::Source(port)) => format!(" --{ip}-sport {port}"),
        None => String::new(),
    };
    Some(format!(" -p {kind} --{ip}-src {source} --{ip}-dst {destination}{protocol}{port}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_from_anybody_is_let_in_as_an_answer_only() {
        let asks = Conversation {
            source: Some([10, 0, 0, 7].into()),
            destination: None,
            service: Service::AnyIp,
            port: None,
            answered: true,
        };
        assert_eq!(nft_tests(&asks), "ip saddr 10.0.0.7");
        assert_eq!(nft_tests(&asks.reverse()), "ip daddr 10.0.0.7 ct state established,related");
        assert_eq!(iptables_tests(&asks).unwrap(), " -s 10.0.0.7");
        let answers = iptables_tests(&asks.reverse()).unwrap();
        assert_eq!(answers, " -d 10.0.0.7 -m conntrack --ctstate RELATED,ESTABLISHED");
        let seeks = Conversation {
            source: Some("fd00::7".parse().unwrap()),
            destination: Some("fd00::1".parse().unwrap()),
            service: Service::Discovery(Some(136)),
            ..asks
        };
        assert_eq!(nft_tests(&seeks), "ip6 saddr fd00::7 icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }");
        assert_eq!(iptables_tests(&seeks).unwrap(), " -s fd00::7 -p ipv6-icmp -m icmp6 --icmpv6-type 136");
        let known = Conversation { destination: Some([10, 1, 0, 1].into()), ..asks };
        assert_eq!(nft_tests(&known.reverse()), "ip saddr 10.1.0.1 ip daddr 10.0.0.7");
    }
}

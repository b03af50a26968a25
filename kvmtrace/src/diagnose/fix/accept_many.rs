//! One rule for many conversations: sets of addresses and ports, so narrow that no other conversation matches.
//!
//! Conversations of one protocol whose addresses and ports are a full product (each source with each destination and each
//! port) take a set for each; others take one set of whole triples. iptables has no such sets: there each pair of addresses has
//! a rule with a list of ports.

use super::accept::{accepting_rule, boot_file, input_test};
use super::conversation::{Conversation, Port, Service};
use crate::diagnose::facts::firewall::suspects::tool;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::report::{Accept, Fix};
use crate::diagnose::shell::{nft_chain, nft_delete, quote};
use crate::event::host::{Backend, Chain, Rule};
use crate::forward::effect::Effect;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Rules that a command inserts at most.
const RULES: usize = 16;
/// Ports that one rule of iptables names at most (`XT_MULTI_PORTS`).
const PORTS: usize = 15;
/// Elements of a set at most.
const ELEMENTS: usize = 256;

/// Conversations of one protocol and one side of the port.
#[derive(Debug, Default)]
struct Group {
    sources: BTreeSet<IpAddr>,
    destinations: BTreeSet<IpAddr>,
    ports: BTreeSet<u16>,
    triples: BTreeSet<(IpAddr, IpAddr, Option<u16>)>,
}

impl Group {
    /// Each source talks to each destination at each port.
    fn is_product(&self) -> bool {
        self.triples.len() == self.sources.len() * self.destinations.len() * self.ports.len().max(1)
    }
}

/// What the conversations of a group have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    service: Service,
    v6: bool,
    side: Side,
    /// They answer others: the device that a rule asks for is not theirs.
    answer: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    None,
    Destination,
    Source,
}

/// Lets all of these past a chain: `asked` as they were dropped, `answers` in the other direction. None where the chain's tool
/// has no words for it.
pub(in crate::diagnose) fn accept_many(
    scene: &Scene<'_>,
    chain: &Chain,
    asked: &[Conversation],
    answers: &[Conversation],
    before: Option<&Rule>,
) -> Option<Fix> {
    let groups = groups(asked, answers)?;
    let fix = match chain.backend {
        Backend::Nft => nft(chain, &groups, before)?,
        Backend::IptablesNft | Backend::IptablesLegacy => iptables(chain, &groups, before)?,
    };
    let index = scene.host.netfilter.chains.iter().position(|other| std::ptr::eq(other, chain))?;
    let ways: Vec<Conversation> = asked.iter().chain(answers).copied().collect();
    let effects = ways.iter().map(|way| Some(Effect::RuleInsert(index, Box::new(accepting_rule(chain, way)?))));
    let effects: Vec<Effect> = effects.collect::<Option<_>>()?;
    let before = before.and_then(|rule| chain.rules.iter().position(|other| std::ptr::eq(other, rule)));
    let fix = fix
        .risk("Whatever else uses these services between these addresses is let through.")
        .persist(format!("Add the rules to {}.", boot_file(scene.host, chain)))
        .effects(effects);
    Some(Fix { accepts: Some(Accept { chain: index, before, ways }), ..fix })
}

fn groups(asked: &[Conversation], answers: &[Conversation]) -> Option<Vec<(Kind, Group)>> {
    let mut groups: Vec<(Kind, Group)> = Vec::new();
    for (way, answer) in asked.iter().map(|way| (way, false)).chain(answers.iter().map(|way| (way, true))) {
        way.service.over_ip()?;
        let (source, destination) = (way.source?, way.destination?);
        let (side, port) = match way.port {
            None => (Side::None, None),
            Some(Port::Destination(port)) => (Side::Destination, Some(port)),
            Some(Port::Source(port)) => (Side::Source, Some(port)),
        };
        let kind = Kind { service: way.service, v6: source.is_ipv6(), side, answer };
        let at = groups.iter().position(|(known, _)| *known == kind).unwrap_or_else(|| {
            groups.push((kind, Group::default()));
            groups.len() - 1
        });
        let (_, group) = groups.get_mut(at)?;
        group.sources.insert(source);
        group.destinations.insert(destination);
        group.ports.extend(port);
        group.triples.insert((source, destination, port));
    }
    (groups.iter().all(|(_, group)| group.triples.len() <= ELEMENTS)).then_some(groups)
}

/// `{ a, b }`, without braces for one alone.
fn set<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    let items: Vec<String> = items.into_iter().map(|item| item.to_string()).collect();
    match items.as_slice() {
        [only] => only.clone(),
        _ => format!("{{ {} }}", items.join(", ")),
    }
}

fn nft_tests(kind: Kind, group: &Group) -> Option<String> {
    let ip = if kind.v6 { "ip6" } else { "ip" };
    let protocol = kind.service.over_ip()?.to_string();
    let port = match kind.side {
        Side::None => None,
        Side::Destination => Some(format!("{protocol} dport")),
        Side::Source => Some(format!("{protocol} sport")),
    };
    if group.is_product() {
        let ends = format!("{ip} saddr {} {ip} daddr {}", set(&group.sources), set(&group.destinations));
        return Some(match port {
            Some(port) => format!("{ends} {port} {}", set(&group.ports)),
            None if kind.v6 => format!("{ends} meta l4proto {protocol}"),
            None => format!("{ends} ip protocol {protocol}"),
        });
    }
    let triples = group.triples.iter().map(|(source, destination, port)| match port {
        Some(port) => format!("{source} . {destination} . {port}"),
        None => format!("{source} . {destination}"),
    });
    let triples = triples.collect::<Vec<_>>().join(", ");
    Some(match port {
        Some(port) => format!("{ip} saddr . {ip} daddr . {port} {{ {triples} }}"),
        None if kind.v6 => format!("meta l4proto {protocol} {ip} saddr . {ip} daddr {{ {triples} }}"),
        None => format!("ip protocol {protocol} {ip} saddr . {ip} daddr {{ {triples} }}"),
    })
}

fn nft(chain: &Chain, groups: &[(Kind, Group)], before: Option<&Rule>) -> Option<Fix> {
    let place = nft_chain(chain)?;
    let at = before.and_then(|rule| rule.handle).map(|handle| format!(" position {handle}")).unwrap_or_default();
    let tests: Vec<(bool, String)> =
        groups.iter().map(|(kind, group)| Some((kind.answer, nft_tests(*kind, group)?))).collect::<Option<_>>()?;
    let all: Vec<&str> = tests.iter().map(|(_, tests)| tests.as_str()).collect();
    // The comment finds the rules again, and no others of ours.
    let comment = format!("kvmtrace: {}", crate::diagnose::identity::hash(&all.join("; ")));
    let command = tests.iter().map(|(answer, tests)| {
        let device = before.filter(|_| !answer).and_then(input_test).unwrap_or_default();
        let rule = format!("insert rule {place}{at} {device}{tests} counter accept comment \"{comment}\"");
        format!("nft {}", quote(&rule))
    });
    let command = command.collect::<Vec<_>>().join(" && ");
    (tests.len() <= RULES).then(|| Fix::run(command, nft_delete(&place, &comment), why(chain)))
}

fn iptables(chain: &Chain, groups: &[(Kind, Group)], before: Option<&Rule>) -> Option<Fix> {
    if !matches!(chain.family.as_str(), "ip" | "ip6") {
        return None;
    }
    let mut rules: Vec<String> = Vec::new();
    for (kind, group) in groups {
        let protocol = kind.service.over_ip()?;
        let pairs: BTreeSet<(IpAddr, IpAddr)> =
            group.triples.iter().map(|(source, destination, _)| (*source, *destination)).collect();
        for (source, destination) in pairs {
            let of_pair = group.triples.iter().filter(|triple| (triple.0, triple.1) == (source, destination));
            let ports: Vec<String> = of_pair.filter_map(|triple| triple.2).map(|port| port.to_string()).collect();
            let ends = format!(" -s {source} -d {destination} -p {protocol}");
            match kind.side {
                Side::None => rules.push(ends),
                Side::Destination | Side::Source => {
                    let side = if kind.side == Side::Source { "sport" } else { "dport" };
                    rules.extend(ports.chunks(PORTS).map(|ports| match ports {
                        [only] => format!("{ends} --{side} {only}"),
                        _ => format!("{ends} -m multiport --{side}s {}", ports.join(",")),
                    }));
                }
            }
        }
    }
    if rules.len() > RULES {
        return None;
    }
    let tool = format!("{} -t {}", tool(chain), quote(&chain.table));
    let name = quote(&chain.name);
    let at = before.map(|rule| format!(" {}", rule.number)).unwrap_or_default();
    let all = |verb: &str, at: &str, joint: &str| {
        let commands = rules.iter().map(|tests| format!("{tool} {verb} {name}{at}{tests} -j ACCEPT"));
        commands.collect::<Vec<_>>().join(joint)
    };
    Some(Fix::run(all("-I", &at, " && "), all("-D", "", "; "), why(chain)))
}

fn why(chain: &Chain) -> String {
    format!("Lets all of these flows past the rules of {}, and nothing else.", chain.name)
}

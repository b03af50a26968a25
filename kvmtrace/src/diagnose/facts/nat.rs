//! Which rules translate the source of what leaves by a device.

use super::firewall::suspects::Suspect;
use super::scene::Scene;
use crate::event::host::{Chain, Link, Network, Rule};
use crate::event::{Direction, IfIndex, Place};
use crate::forward::packet::{Connection, Packet};
use crate::forward::step::{Decision, Outcome};
use crate::forward::{Entry, walk};
use crate::track::Flow;
use std::net::IpAddr;

/// An address that routers of the Internet know no way to.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || (address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64),
        IpAddr::V6(address) => address.segments()[0] & 0xfe00 == 0xfc00,
    }
}

/// Some rule may translate it: the address was then left as it is for another reason.
pub fn masquerades(scene: &Scene<'_>, source: Option<IpAddr>, uplink: &Link) -> bool {
    nat_chains(scene, source)
        .flat_map(|chain| &chain.rules)
        .any(|rule| translates(rule) && concerns(rule, source, None, uplink))
}

/// What the rule names of source, destination and outgoing device is the packet's.
fn concerns(rule: &Rule, source: Option<IpAddr>, to: Option<IpAddr>, uplink: &Link) -> bool {
    let words = words_of(rule);
    asks(&words, OUT, |name| is_named(name, &uplink.name)).unwrap_or(true)
        && asks(&words, SOURCE, |text| covers(text, source)).unwrap_or(true)
        && (to.is_none() || asks(&words, DESTINATION, |text| covers(text, to)).unwrap_or(true))
}

/// The rule that ends the packet's way through a chain before one that would translate it. It names the packet's
/// destination and nothing but addresses and the outgoing device: what is not understood here exempts nothing.
pub(in crate::diagnose) fn exempting<'a>(
    scene: &Scene<'a>,
    source: IpAddr,
    to: IpAddr,
    uplink: &Link,
) -> Option<&'a Rule> {
    const PLAIN: &[&str] =
        &["ip", "ip6", "saddr", "daddr", "oifname", "counter", "accept", "return", "-A", "-s", "-d", "-o", "-j"];
    let ends = |rule: &&Rule| matches!(rule.verdict.as_deref(), Some("accept" | "return"));
    let plain = |rule: &Rule| {
        let words = words_of(rule);
        let mut before = "";
        let mut tests = words.iter().filter(|word| {
            let is_device = OUT.contains(&std::mem::replace(&mut before, word));
            !is_device && (word.starts_with(['-', '!', '@']) || word.chars().all(|c| c.is_ascii_lowercase()))
        });
        tests.all(|word| PLAIN.contains(word)) && words.iter().any(|word| DESTINATION.contains(word))
    };
    let taken = |rule: &Rule| concerns(rule, Some(source), Some(to), uplink);
    nat_chains(scene, Some(source)).find_map(|chain| {
        let at = chain.rules.iter().position(|rule| translates(rule) && taken(rule))?;
        chain.rules.get(..at)?.iter().filter(ends).find(|rule| plain(rule) && taken(rule))
    })
}

/// A rule that would translate what comes from this source, but names a device that this host does not have (any more).
pub fn masquerades_on_nothing<'a>(scene: &Scene<'a>, source: Option<IpAddr>) -> Option<(&'a str, &'a Rule)> {
    nat_chains(scene, source).flat_map(|chain| &chain.rules).filter(|rule| translates(rule)).find_map(|rule| {
        let words = words_of(rule);
        let is_meant = asks(&words, SOURCE, |text| covers(text, source)) == Some(true);
        let out = words.iter().position(|word| OUT.contains(word)).filter(|_| is_meant)?;
        let name = words.get(out + 1).copied().filter(|name| !name.contains(['*', '+', '{', '@', '!', '$']))?;
        let negated = out > 0 && words.get(out - 1) == Some(&"!");
        (!negated && scene.host.link_named(name).is_none()).then_some((name, rule))
    })
}

const OUT: &[&str] = &["oifname", "oif", "-o"];

const SOURCE: &[&str] = &["saddr", "-s"];

const DESTINATION: &[&str] = &["daddr", "-d"];

fn translates(rule: &Rule) -> bool {
    let verdict = rule.verdict.as_deref().unwrap_or_default();
    verdict.starts_with("masquerade") || verdict.starts_with("snat")
}

fn words_of(rule: &Rule) -> Vec<&str> {
    rule.text.split_whitespace().map(|word| word.trim_matches(['"', ','])).collect()
}

/// What is no address may be a way to write one.
fn covers(text: &str, source: Option<IpAddr>) -> bool {
    network_named(text).is_none_or(|network| source.is_some_and(|source| network.contains(source)))
}

fn is_named(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix(['*', '+']).map_or(pattern == name, |prefix| name.starts_with(prefix))
}

/// Whether a rule takes what one of these words asks for, by value, list, or all but that; none where it does not ask.
pub(in crate::diagnose) fn asks(words: &[&str], names: &[&str], holds: impl Fn(&str) -> bool) -> Option<bool> {
    let at = words.iter().position(|word| names.contains(word))?;
    let rest = words.get(at + 1..)?;
    let (negated, rest) = match rest.split_first() {
        Some((&("!=" | "!"), rest)) => (true, rest),
        _ => (at > 0 && words.get(at - 1) == Some(&"!"), rest),
    };
    let first = rest.first()?;
    if first.starts_with('@') {
        // A set, whose elements are not read.
        return Some(true);
    }
    let list = rest.iter().skip(1).take_while(|word| **word != "}");
    let named = if *first == "{" { list.copied().any(holds) } else { holds(first) };
    Some(named != negated)
}

fn network_named(text: &str) -> Option<Network> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let full = if address.is_ipv6() { 128 } else { 32 };
    Some(Network { address, prefix: prefix.parse().unwrap_or(full) })
}

pub(in crate::diagnose) fn nat_chains<'a>(
    scene: &Scene<'a>,
    source: Option<IpAddr>,
) -> impl Iterator<Item = &'a Chain> {
    let family = if source.is_some_and(|source| source.is_ipv6()) { "ip6" } else { "ip" };
    scene.host.netfilter.chains.iter().filter(move |chain| {
        (chain.family == family || chain.family == "inet")
            && (chain.hook.as_deref() == Some("postrouting") || chain.hook.is_none())
    })
}

/// The rule that changes a packet's source on its way.
#[derive(Clone, Copy, Debug)]
pub(in crate::diagnose) struct Translator<'a> {
    /// Its chain.
    pub(in crate::diagnose) chain: &'a Chain,
    /// The rule.
    pub(in crate::diagnose) rule: &'a Rule,
    /// The source afterwards.
    pub(in crate::diagnose) source: IpAddr,
    /// The device that the packet leaves by, where the rule is asked.
    pub(in crate::diagnose) output: IfIndex,
}

impl Translator<'_> {
    /// Names the rule and its chain.
    pub(in crate::diagnose) fn text(&self) -> String {
        Suspect { chain: Some(self.chain), base: None, rule: Some(self.rule), grown: None, traced: None, gone: false }
            .text()
    }
}

/// Who changes the source of a flow's first packet to an address of this host, by the model.
pub(in crate::diagnose) fn translator<'a>(scene: &Scene<'a>, flow: &Flow, entry: Entry) -> Option<Translator<'a>> {
    let device = match entry {
        Entry::Guest(device) | Entry::Wire(device) => device,
        Entry::Host => return None,
    };
    let counters = flow.places.get(&Place { device, direction: Direction::Ingress })?;
    let mut packet = Packet::of_flow(&flow.key, counters.largest.max(28));
    packet.mark = Some(0);
    packet.connection = Some(Connection::New);
    packet.source_mac = Some(counters.source_mac);
    packet.destination_mac = Some(counters.destination_mac);
    let asked = packet.ip()?.source;
    let walk = walk(scene.topology(), &packet, entry);
    walk.steps.iter().find_map(|step| {
        let Outcome::Becomes(changed) = &step.outcome else { return None };
        let source = changed.ip().filter(|_| changed.carried.is_none())?.source;
        let reference = step
            .decisions
            .iter()
            .rev()
            .find_map(|decision| if let Decision::Rule(reference) = decision { Some(reference) } else { None })?;
        let chain = scene.host.netfilter.chains.get(reference.chain)?;
        let rule = chain.rules.get(reference.rule?)?;
        let own = source != asked && scene.is_host_address(source);
        own.then_some(Translator { chain, rule, source, output: step.device? })
    })
}

//! `nat-missing`: a guest's private source leaves by an uplink on which nobody knows a way back.

use super::routing::route_to;
use crate::diagnose::case::{Case, Way};
use crate::diagnose::fix::manager::firewalld;
use crate::diagnose::fix::{nft_chain, nft_delete, nft_device, quote};
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::scene::{Role, Scene};
use crate::diagnose::words;
use crate::event::host::{Backend, Chain, Link, Network, Rule};
use crate::event::{Direction, IfIndex, Place, Protocol};
use std::net::IpAddr;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if case.way() != Way::Routed || case.answered() > 0 || case.group.translated.is_some() {
        return None;
    }
    let scene = case.scene;
    let source = case.key().source.ip().filter(|source| is_private(*source))?;
    let (exit, _) = case
        .hops
        .iter()
        .rev()
        .find(|(place, _)| place.direction == Direction::Egress && Some(place.device) != case.device())?;
    let uplink = scene.link(exit.device)?;
    let on_link = uplink.addresses.iter().any(|network| network.contains(source));
    let to = case.routed()?.to;
    let exempt = exempting(scene, source, to, uplink);
    if on_link || uplink.addresses.is_empty() || exempt.is_none() && masquerades(scene, Some(source), uplink) {
        return None;
    }
    // Something from out there has found its way to this guest: so will the answers. Or it looks for the guest itself.
    if is_reached(case) || is_sought(case, source, exit.device) {
        return None;
    }
    let network = guest_network(case, source)?;
    let sent =
        format!("{} left by {} with the private source {source}", words::packets(case.left().max(1)), uplink.name);
    let router = Fix::advice(format!("Or set a route to {network} by this host on the router behind {}.", uplink.name));
    if let Some(rule) = exempt {
        let explanation = format!(
            "{sent}: the rule \"{}\" keeps them from being translated, so the answers find no way back unless the router there knows {network}.",
            rule.text
        );
        return Some(
            Judgement::dropped(Cause::NatMissing, at(scene, uplink.index, Point::NicEgress), explanation)
                .verdict(Verdict::Unanswered)
                .severity(Severity::Warning)
                .evidence([format!("before the rule that would translate {source}: \"{}\"", rule.text)])
                .fix(masquerade(scene, uplink, network, Some(to)))
                .fix(router),
        );
    }
    let explanation = format!("{sent}: no rule translates {network} there, so the answers find no way back.");
    Some(
        Judgement::dropped(Cause::NatMissing, at(scene, uplink.index, Point::NicEgress), explanation)
            .verdict(Verdict::Unanswered)
            .evidence([format!(
                "source {source} seen at the egress of {}; no masquerade or snat rule for it",
                uplink.name
            )])
            .fix(masquerade(scene, uplink, network, None))
            .fix(router),
    )
}

/// Datagrams that ask for no answer tell nothing by getting none. On a host that translates at all, a private source that
/// leaves as it is stands out, unless something from out there has found its way to the guest.
pub fn judge_one_way(case: &Case<'_>) -> Option<Judgement> {
    let mut chains = nat_chains(case.scene, case.key().source.ip());
    let translating = chains.any(|chain| chain.kind.as_deref() == Some("nat") && chain.hook.is_some());
    if !translating || !case.is_settled() || case.is_multicast() {
        return None;
    }
    // A rule that keeps them as they are is meant so until an answer is missed.
    judge(case).filter(|judgement| judgement.severity == Severity::Error)
}

/// Packets that came in by a NIC have reached the guest.
fn is_reached(case: &Case<'_>) -> bool {
    case.scene.track.flows().any(|flow| {
        let from_outside = flow
            .places
            .keys()
            .any(|place| place.direction == Direction::Ingress && case.scene.role(place.device) == Role::Nic);
        from_outside
            && flow.places.keys().any(|place| Some(place.device) == case.device() && case.scene.is_exit(*place))
    })
}

/// Out there somebody asks for the guest itself, by ARP or ND, and is not answered: that is why nothing comes back.
fn is_sought(case: &Case<'_>, source: IpAddr, uplink: IfIndex) -> bool {
    let track = case.scene.track;
    track.flows().any(|flow| {
        let asks = matches!(flow.key.protocol, Protocol::Arp { operation: 1 } | Protocol::Icmpv6 { kind: 135, .. });
        let here = |place: &Place| place.device == uplink && place.direction == Direction::Ingress;
        let told = || {
            let advertised = case.scene.advertisements(source).iter();
            track.get(&flow.key.reverse()).is_some()
                || advertised.into_iter().any(|answer| answer.key.destination == flow.key.source)
        };
        asks && flow.target.or(flow.key.destination.ip()) == Some(source) && flow.places.keys().any(here) && !told()
    })
}

/// An address that routers of the Internet know no way to.
pub fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || (address.octets()[0] == 100 && address.octets()[1] & 0xc0 == 64),
        IpAddr::V6(address) => address.segments()[0] & 0xfe00 == 0xfc00,
    }
}

/// The network of the host's address on the guest's side.
pub fn guest_network(case: &Case<'_>, source: IpAddr) -> Option<Network> {
    let inside: Option<IfIndex> = route_to(case.scene.host, source).and_then(|route| route.device);
    let link = inside.and_then(|device| case.scene.link(device)).or_else(|| case.bridge())?;
    let network = link.addresses.iter().find(|network| network.contains(source))?;
    Some(base(*network))
}

/// The network of an address.
pub fn base(network: Network) -> Network {
    let address = match network.address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(network.prefix.min(32))).unwrap_or(0);
            IpAddr::from((u32::from(address) & mask).to_be_bytes())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(network.prefix.min(128))).unwrap_or(0);
            IpAddr::from((u128::from(address) & mask).to_be_bytes())
        }
    };
    Network { address, ..network }
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
fn exempting<'a>(scene: &Scene<'a>, source: IpAddr, to: IpAddr, uplink: &Link) -> Option<&'a Rule> {
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
    parse(text).is_none_or(|network| source.is_some_and(|source| network.contains(source)))
}

fn is_named(pattern: &str, name: &str) -> bool {
    pattern.strip_suffix(['*', '+']).map_or(pattern == name, |prefix| name.starts_with(prefix))
}

/// Whether a rule takes what one of these words asks for, by value, list, or all but that; none where it does not ask.
fn asks(words: &[&str], names: &[&str], holds: impl Fn(&str) -> bool) -> Option<bool> {
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

fn parse(text: &str) -> Option<Network> {
    let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
    let address: IpAddr = address.parse().ok()?;
    let full = if address.is_ipv6() { 128 } else { 32 };
    Some(Network { address, prefix: prefix.parse().unwrap_or(full) })
}

fn nat_chains<'a>(scene: &Scene<'a>, source: Option<IpAddr>) -> impl Iterator<Item = &'a Chain> {
    let family = if source.is_some_and(|source| source.is_ipv6()) { "ip6" } else { "ip" };
    scene.host.netfilter.chains.iter().filter(move |chain| {
        (chain.family == family || chain.family == "inet")
            && (chain.hook.as_deref() == Some("postrouting") || chain.hook.is_none())
    })
}

/// By the tool that already translates here, else by a table of its own; for one destination, before all other rules.
pub fn masquerade(scene: &Scene<'_>, uplink: &Link, network: Network, to: Option<IpAddr>) -> Fix {
    let v6 = network.address.is_ipv6();
    let why = format!("Gives packets from {network} the address of {} on their way out.", uplink.name);
    let name = &uplink.name;
    let chain = nat_chains(scene, Some(network.address))
        .find(|chain| chain.kind.as_deref() == Some("nat") && chain.hook.is_some());
    let word = if v6 { "ip6" } else { "ip" };
    let fix = match chain {
        Some(chain) if chain.backend != Backend::Nft => {
            let program = match (v6, chain.backend == Backend::IptablesLegacy) {
                (false, true) => "iptables-legacy",
                (true, true) => "ip6tables-legacy",
                (false, false) => "iptables-nft",
                (true, false) => "ip6tables-nft",
            };
            let only = to.map(|to| format!(" -d {to}")).unwrap_or_default();
            let rule = |verb: &str| {
                format!("{program} -t nat {verb} POSTROUTING -s {network}{only} -o {} -j MASQUERADE", quote(name))
            };
            Fix::run(rule(if to.is_some() { "-I" } else { "-A" }), rule("-D"), why)
        }
        Some(chain) if chain.table == "firewalld" => firewalld::masquerade(scene, uplink, network, why),
        Some(chain) => match nft_chain(chain) {
            Some(place) => {
                let out = nft_device("oif", uplink);
                let only = to.map(|to| format!(" {word} daddr {to}")).unwrap_or_default();
                let comment = format!("kvmtrace: {network}{}", to.map(|to| format!(" to {to}")).unwrap_or_default());
                let verb = if to.is_some() { "insert" } else { "add" };
                let rule =
                    format!("{verb} rule {place} {word} saddr {network}{only} {out} masquerade comment \"{comment}\"");
                Fix::run(format!("nft {}", quote(&rule)), nft_delete(&place, &comment), why)
            }
            None => own_table(word, uplink, network, why),
        },
        None => own_table(word, uplink, network, why),
    };
    let fix = fix.risk("Established connections keep their old way until they are opened anew.");
    if fix.persist.is_some() {
        return fix;
    }
    fix.persist("Add the rule to /etc/nftables.conf or /etc/iptables/rules.v4; for a libvirt network set <forward mode='nat'/>.")
}

fn own_table(word: &str, uplink: &Link, network: Network, why: String) -> Fix {
    let out = nft_device("oif", uplink);
    let table = format!(
        "add table {word} kvmtrace_nat; add chain {word} kvmtrace_nat postrouting {{ type nat hook postrouting priority 100; }}; add rule {word} kvmtrace_nat postrouting {word} saddr {network} {out} masquerade"
    );
    Fix::run(format!("nft {}", quote(&table)), format!("nft delete table {word} kvmtrace_nat"), why)
}

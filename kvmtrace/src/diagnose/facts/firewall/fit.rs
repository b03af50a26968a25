//! Whether a rule's text speaks for or against a packet: addresses, ports, protocols, interfaces and connection states that
//! it names. A rule matches for sure only when all of its text is understood; what is not understood contradicts nothing.

use super::sets;
use super::words::{Word, words};
use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::scene::Scene;
use crate::event::host::{Backend, Chain, Network, Rule};
use crate::event::{FlowKey, Protocol};
use std::net::IpAddr;

/// What a rule's text says about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// All that it asks for is understood and true.
    Surely,
    /// Nothing that is understood speaks against it.
    Maybe,
    /// Something that it asks for is not so.
    Not,
}

/// A packet at a hook.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet<'p, 'a> {
    /// The stage.
    pub scene: &'p Scene<'a>,
    /// Its key as it was there.
    pub key: &'p FlowKey,
    /// Its drop.
    pub drop: &'p Dropped<'p>,
}

/// Words of nft that test nothing.
const IDLE: &[&str] = &["counter", "accept", "drop", "reject", "return", "jump", "goto", "comment", "log", "notrack"];

/// What the rule says of this packet.
pub(super) fn fit(packet: &Packet<'_, '_>, rule: &Rule, base: &Chain) -> Fit {
    let words = words(&rule.text);
    if base.backend == Backend::Nft { nft(packet, &words, base) } else { iptables(packet, &words, base) }
}

/// Answers of several tests, all of which must hold.
fn all(known: Fit, test: Option<bool>) -> Fit {
    match (known, test) {
        (Fit::Not, _) | (_, Some(false)) => Fit::Not,
        (Fit::Surely, Some(true)) => Fit::Surely,
        _ => Fit::Maybe,
    }
}

fn nft(packet: &Packet<'_, '_>, words: &[Word<'_>], base: &Chain) -> Fit {
    let mut fit = Fit::Surely;
    let mut rest = words;
    while let Some((first, tail)) = rest.split_first() {
        rest = tail;
        match first.plain() {
            "counter" if rest.first().is_some_and(|word| word.plain() == "packets") => {
                rest = rest.get(4..).unwrap_or_default();
            }
            // What follows names a target, a comment, or how to tell.
            "jump" | "goto" | "comment" => rest = rest.get(1..).unwrap_or_default(),
            "reject" => rest = &[],
            "log" => {
                while let [name, _, tail @ ..] = rest
                    && matches!(name.plain(), "prefix" | "level" | "group" | "snaplen" | "queue-threshold" | "flags")
                {
                    rest = tail;
                }
            }
            word if IDLE.contains(&word) => {}
            _ => {
                let length = selector(first, rest);
                let names: Vec<&str> = std::iter::once(first).chain(&rest[..length - 1]).map(Word::plain).collect();
                rest = &rest[length - 1..];
                let negated = rest.first().is_some_and(|word| word.plain() == "!=");
                if negated || rest.first().is_some_and(|word| word.plain() == "==") {
                    rest = &rest[1..];
                }
                let Some((value, tail)) = rest.split_first() else { return all(fit, None) };
                if value.plain() == "vmap" {
                    // It answers; which of its elements fits is asked elsewhere.
                    return all(fit, implied(packet.key, &names).filter(|fits| !fits));
                }
                rest = tail;
                let test = match implied(packet.key, &names) {
                    Some(false) => Some(false),
                    implied => any(value, |value| test(packet, &names, value, base))
                        .map(|holds| holds != negated)
                        .filter(|holds| !holds || implied == Some(true)),
                };
                fit = all(fit, test);
            }
        }
    }
    fit
}

/// How many words name what is tested, the first included.
fn selector(first: &Word<'_>, rest: &[Word<'_>]) -> usize {
    let single = ["iif", "iifname", "oif", "oifname", "mark", "iifgroup", "oifgroup", "pkttype"];
    let count = usize::from(!single.contains(&first.plain()));
    (1 + count).min(1 + rest.len())
}

/// One of a set, or the one value: true when one is, false when none is.
fn any(value: &Word<'_>, test: impl Fn(&str) -> Option<bool>) -> Option<bool> {
    let Word::Set(elements) = value else { return test(value.plain()) };
    let answers: Vec<Option<bool>> = elements.iter().map(|element| test(element)).collect();
    if answers.contains(&Some(true)) {
        Some(true)
    } else if answers.contains(&None) {
        None
    } else {
        Some(false)
    }
}

/// Whether the packet has what is tested at all: a UDP port is none of a TCP segment.
fn implied(key: &FlowKey, names: &[&str]) -> Option<bool> {
    let version = |six: bool| key.source.ip().map(|ip| ip.is_ipv6() == six);
    match names.first().copied()? {
        "tcp" => Some(key.protocol == Protocol::Tcp),
        "udp" => Some(key.protocol == Protocol::Udp),
        "sctp" => Some(key.protocol == Protocol::Sctp),
        "icmp" => Some(matches!(key.protocol, Protocol::Icmp { .. })),
        "icmpv6" => Some(matches!(key.protocol, Protocol::Icmpv6 { .. })),
        "arp" => Some(matches!(key.protocol, Protocol::Arp { .. })),
        "ip" => version(false).map(|fits| fits && !matches!(key.protocol, Protocol::Arp { .. })),
        "ip6" => version(true),
        "iif" | "iifname" | "oif" | "oifname" | "meta" | "ct" | "ether" | "th" => Some(true),
        _ => None,
    }
}

fn test(packet: &Packet<'_, '_>, names: &[&str], value: &str, base: &Chain) -> Option<bool> {
    match value.strip_prefix('@') {
        Some(name) => {
            let set = sets::find(packet.scene.host, base, name)?;
            sets::holds_any(set, |element| holds(packet, names, element, base))
        }
        None => holds(packet, names, value, base),
    }
}

fn holds(packet: &Packet<'_, '_>, names: &[&str], value: &str, base: &Chain) -> Option<bool> {
    let key = packet.key;
    match names {
        ["ip" | "ip6", "saddr"] => in_network(value, key.source.ip()?),
        ["ip" | "ip6", "daddr"] => in_network(value, key.destination.ip()?),
        ["tcp" | "udp" | "sctp" | "th", "dport"] => in_ports(value, key.destination_port),
        ["tcp" | "udp" | "sctp" | "th", "sport"] => in_ports(value, key.source_port),
        ["meta", "l4proto"] | ["ip", "protocol"] | ["ip6", "nexthdr"] => is_protocol(value, key.protocol),
        ["iifname" | "iif"] | ["meta", "iifname" | "iif"] => came_in(packet, value, base),
        ["ct", "state"] => value
            .split(',')
            .map(|state| in_state(packet, state))
            .reduce(|one, other| if one == Some(true) || other == Some(true) { Some(true) } else { one.and(other) })?,
        ["ether", "type"] => is_ether(value, key),
        ["ether", "saddr"] => is_mac(value, packet.drop.macs()?.0),
        ["ether", "daddr"] => is_mac(value, packet.drop.macs()?.1),
        _ => None,
    }
}

/// Which of a map's answers are possible; those of its elements that don't speak against the packet.
pub(super) fn answers(packet: &Packet<'_, '_>, rule: &Rule, base: &Chain, all: &[&str]) -> Vec<String> {
    let words = words(&rule.text);
    let map = words.iter().position(|word| word.plain() == "vmap");
    let Some((before, [_, Word::Set(elements), ..])) = map.map(|at| words.split_at(at)) else {
        return all.iter().map(|answer| (*answer).to_owned()).collect();
    };
    let mut possible = Vec::new();
    for element in elements {
        let Some((value, answer)) = element.rsplit_once(" : ") else { continue };
        let one = before.last().map(|word| vec![word.plain()]).unwrap_or_default();
        let two: Vec<&str> = before.iter().rev().take(2).rev().map(Word::plain).collect();
        let holds = [&two, &one].into_iter().find_map(|names| test(packet, names, value.trim(), base));
        match holds {
            Some(false) => {}
            // Elements of a map exclude each other.
            Some(true) => return vec![answer.trim().to_owned()],
            None => possible.push(answer.trim().to_owned()),
        }
    }
    possible
}

fn iptables(packet: &Packet<'_, '_>, words: &[Word<'_>], base: &Chain) -> Fit {
    let key = packet.key;
    let mut fit = Fit::Surely;
    let mut negated = false;
    let mut rest = words;
    while let [flag, tail @ ..] = rest {
        rest = tail;
        let flag = flag.plain();
        if flag == "!" {
            negated = true;
            continue;
        }
        // ebtables and older tools write the sign behind the flag: `-s ! MAC`.
        if rest.first().is_some_and(|word| word.plain() == "!") && flag.starts_with('-') {
            negated = true;
            rest = rest.get(1..).unwrap_or_default();
        }
        let value = rest.first().map(Word::plain).unwrap_or_default();
        let test = match flag {
            "-A" | "-m" | "--comment" => Some(true),
            // The policy of a chain that is only jumped to; what a target takes is no test either.
            "-P" | "-j" | "-g" => return fit,
            "--mac-source" => packet.drop.macs().and_then(|(source, _)| is_mac(value, source)),
            "-s" if base.family == "bridge" => packet.drop.macs().and_then(|(source, _)| is_mac(value, source)),
            "-d" if base.family == "bridge" => packet.drop.macs().and_then(|(_, to)| is_mac(value, to)),
            "-s" | "--ip-src" | "--ip6-src" => key.source.ip().and_then(|ip| in_network(value, ip)),
            "-d" | "--ip-dst" | "--ip6-dst" => key.destination.ip().and_then(|ip| in_network(value, ip)),
            "--dport" | "--ip-dport" | "--ip6-dport" => in_ports(value, key.destination_port),
            "--sport" | "--ip-sport" | "--ip6-sport" => in_ports(value, key.source_port),
            "--dports" => some(value, |port| in_ports(port, key.destination_port)),
            "--sports" => some(value, |port| in_ports(port, key.source_port)),
            "-p" if base.family == "bridge" => {
                is_ether(&value.to_ascii_lowercase().replace("ipv4", "ip").replace("ipv6", "ip6"), key)
            }
            "-p" | "--ip-proto" | "--ip6-proto" => is_protocol(value, key.protocol),
            "-i" => came_in(packet, value, base),
            "--match-set" => in_set(packet, value, rest.get(1).map(Word::plain).unwrap_or_default(), base),
            "--ctstate" | "--state" => some(value, |state| in_state(packet, state)),
            _ => None,
        };
        let tests = !matches!(flag, "-A" | "-m" | "--comment");
        // A flag that is not known may take no value.
        if flag.starts_with('-') && !value.starts_with('-') && value != "!" || !tests {
            rest = rest.get(1..).unwrap_or_default();
        }
        if flag == "--match-set" {
            rest = rest.get(1..).unwrap_or_default();
        }
        fit = all(fit, test.map(|holds| holds != (negated && tests)));
        negated = false;
    }
    fit
}

/// One end of the packet is in a set of ipset's.
fn in_set(packet: &Packet<'_, '_>, name: &str, side: &str, base: &Chain) -> Option<bool> {
    let address = match side {
        "src" => packet.key.source.ip()?,
        "dst" => packet.key.destination.ip()?,
        _ => return None,
    };
    sets::holds_any(sets::find(packet.scene.host, base, name)?, |element| in_network(element, address))
}

/// One of a list.
fn some(list: &str, test: impl Fn(&str) -> Option<bool>) -> Option<bool> {
    let answers: Vec<Option<bool>> = list.split(',').map(test).collect();
    if answers.contains(&Some(true)) {
        Some(true)
    } else {
        answers.into_iter().all(|one| one.is_some()).then_some(false)
    }
}

/// A datagram or an echo request can always begin a connection (`nf_conntrack_udp_packet`, `icmp_pkt_to_tuple`; only a bad
/// checksum makes it invalid), and so does a segment with SYN and no more, which is part of none before its answer is seen.
fn in_state(packet: &Packet<'_, '_>, state: &str) -> Option<bool> {
    let key = packet.key;
    let syn = key.protocol == Protocol::Tcp
        && packet.drop.flow.places.values().any(|counters| counters.packets > 0)
        && packet.drop.flow.places.values().all(|counters| u64::from(counters.tcp_syn) >= counters.packets);
    let opens =
        matches!(key.protocol, Protocol::Udp | Protocol::Icmp { kind: 8, .. } | Protocol::Icmpv6 { kind: 128, .. });
    match state.trim().to_ascii_lowercase().as_str() {
        "invalid" if opens || syn => Some(false),
        "established" if syn => Some(false),
        _ => None,
    }
}

fn is_ether(value: &str, key: &FlowKey) -> Option<bool> {
    let arp = matches!(key.protocol, Protocol::Arp { .. });
    match value {
        "arp" => Some(arp),
        "ip" => Some(!arp && key.source.ip().is_some_and(|ip| ip.is_ipv4())),
        "ip6" => Some(!arp && key.source.ip().is_some_and(|ip| ip.is_ipv6())),
        _ => None,
    }
}

/// The answers to the packet may meet the rule as well: it asks for no device that they came in by, and for nothing that
/// they don't have.
pub(in crate::diagnose) fn may_take_answers(
    scene: &Scene<'_>,
    key: &FlowKey,
    drop: &Dropped<'_>,
    rule: &Rule,
    base: &Chain,
) -> bool {
    let by_device = ["iifname", "iif", "-i", "--physdev-in", "ibrname", "--logical-in"];
    let asks = words(&rule.text).iter().any(|word| by_device.contains(&word.plain()));
    // The frames of the answers have other MAC addresses, which are not known here.
    let by_mac = ["ether", "--mac-source"];
    let asks = asks || words(&rule.text).iter().any(|word| by_mac.contains(&word.plain()));
    !asks && fit(&Packet { scene, key: &key.reverse(), drop }, rule, base) != Fit::Not
}

fn is_mac(value: &str, mac: crate::event::MacAddress) -> Option<bool> {
    let octets: Vec<u8> = value.split(':').map(|octet| u8::from_str_radix(octet, 16)).collect::<Result<_, _>>().ok()?;
    (octets.len() == 6).then(|| octets == mac.0)
}

fn in_network(value: &str, address: IpAddr) -> Option<bool> {
    if let Some((low, high)) = value.split_once('-') {
        let (low, high): (IpAddr, IpAddr) = (low.parse().ok()?, high.parse().ok()?);
        return Some(low.is_ipv6() == address.is_ipv6() && (low..=high).contains(&address));
    }
    let (network, prefix) = value.split_once('/').unwrap_or((value, ""));
    let network: IpAddr = network.parse().ok()?;
    let full = if network.is_ipv6() { 128 } else { 32 };
    let prefix = if prefix.is_empty() { full } else { prefix.parse().ok()? };
    Some(Network { address: network, prefix }.contains(address))
}

fn in_ports(value: &str, port: Option<u16>) -> Option<bool> {
    let separator = if value.contains('-') { '-' } else { ':' };
    let (low, high): (u16, u16) = match value.split_once(separator) {
        Some((low, high)) => (low.parse().ok()?, high.parse().ok()?),
        None => (value.parse().ok()?, value.parse().ok()?),
    };
    Some(port.is_some_and(|port| (low..=high).contains(&port)))
}

fn is_protocol(value: &str, protocol: Protocol) -> Option<bool> {
    match value {
        "tcp" | "6" => Some(protocol == Protocol::Tcp),
        "udp" | "17" => Some(protocol == Protocol::Udp),
        "sctp" => Some(protocol == Protocol::Sctp),
        "icmp" | "1" => Some(matches!(protocol, Protocol::Icmp { .. })),
        "icmpv6" | "ipv6-icmp" | "58" => Some(matches!(protocol, Protocol::Icmpv6 { .. })),
        _ => None,
    }
}

/// Only what came in by another device for certain contradicts: a bridge's port and the bridge are one to IP. For certain
/// a packet came by the bridge to IP, and by the port to the bridge and to the device's own hook.
fn came_in(packet: &Packet<'_, '_>, value: &str, base: &Chain) -> Option<bool> {
    let input = packet.drop.example()?.input_device?;
    let name = |device| packet.scene.name(device);
    let bridge = packet.scene.bridge_of(input).map(|bridge| bridge.name.clone());
    let routed = matches!(base.family.as_str(), "ip" | "ip6" | "inet");
    let at_hook = bridge.clone().filter(|_| routed).unwrap_or_else(|| name(input));
    let fits = |known: &String| match value.strip_suffix(['*', '+']) {
        Some(prefix) => known.starts_with(prefix),
        None => known == value,
    };
    if fits(&at_hook) {
        return Some(true);
    }
    let mut names = vec![name(input)];
    names.extend(bridge);
    names.extend(packet.drop.device().map(name));
    if names.iter().any(fits) { None } else { Some(false) }
}

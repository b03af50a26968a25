//! Whether a rule's text speaks against a packet: addresses, ports, protocols, interfaces that it names and the packet
//! does not have. What is not understood does not contradict.

use crate::diagnose::dropped::Dropped;
use crate::diagnose::scene::Scene;
use crate::event::host::{Backend, Chain, Network, Rule};
use crate::event::{FlowKey, Protocol};

/// The rule can't have matched this packet.
pub fn contradicts(scene: &Scene<'_>, rule: &Rule, key: &FlowKey, drop: &Dropped<'_>, base: &Chain) -> bool {
    let words: Vec<&str> = rule.text.split_whitespace().map(|word| word.trim_matches('"')).collect();
    let nft = base.backend == Backend::Nft;
    let mut index = 0;
    while let Some(word) = words.get(index) {
        let mut value_at = index + 1;
        let mut negated = nft && words.get(value_at) == Some(&"!=") || index > 0 && words.get(index - 1) == Some(&"!");
        if words.get(value_at).is_some_and(|next| matches!(*next, "!=" | "==" | "!")) {
            negated |= words.get(value_at) != Some(&"==");
            value_at += 1;
        }
        let before = index.checked_sub(1).and_then(|before| words.get(before)).copied().unwrap_or_default();
        if let Some(value) = words.get(value_at)
            && let Some(matches) = holds(scene, word, before, value, key, drop, nft)
            && matches == negated
        {
            return true;
        }
        index += 1;
    }
    false
}

/// The test's answer; none when it is not understood or names a set.
fn holds(
    scene: &Scene<'_>,
    word: &str,
    before: &str,
    value: &str,
    key: &FlowKey,
    drop: &Dropped<'_>,
    nft: bool,
) -> Option<bool> {
    if value.starts_with(['{', '@', '$']) {
        return None;
    }
    match (word, nft) {
        ("saddr", true) if before != "ether" => in_network(value, key.source.ip()?),
        ("daddr", true) if before != "ether" => in_network(value, key.destination.ip()?),
        ("-s" | "--source", false) => in_network(value, key.source.ip()?),
        ("-d" | "--destination", false) => in_network(value, key.destination.ip()?),
        ("dport", true) => in_ports(value, key.destination_port).map(|port| port && before_fits(before, key)),
        ("sport", true) => in_ports(value, key.source_port).map(|port| port && before_fits(before, key)),
        ("--dport", false) => in_ports(value, key.destination_port),
        ("--sport", false) => in_ports(value, key.source_port),
        ("l4proto" | "protocol" | "nexthdr", true) | ("-p" | "--ip-proto", false) => is_protocol(value, key.protocol),
        ("icmp", true) if value == "type" => Some(matches!(key.protocol, Protocol::Icmp { .. })),
        ("icmpv6", true) if value == "type" => Some(matches!(key.protocol, Protocol::Icmpv6 { .. })),
        ("iifname" | "iif", true) | ("-i", false) => came_in(scene, value, drop),
        ("state", true) if before == "ct" => in_states(value, key),
        ("--ctstate" | "--state", false) => in_states(value, key),
        ("ether", true) if value == "type" => None,
        ("type", true) if before == "ether" => is_ether(value, key),
        _ => None,
    }
}

/// A datagram or an echo request can always begin a connection (`nf_conntrack_udp_packet`, `icmp_pkt_to_tuple`; only a bad
/// checksum makes it invalid).
fn in_states(value: &str, key: &FlowKey) -> Option<bool> {
    let opens =
        matches!(key.protocol, Protocol::Udp | Protocol::Icmp { kind: 8, .. } | Protocol::Icmpv6 { kind: 128, .. });
    (opens && value.eq_ignore_ascii_case("invalid")).then_some(false)
}

fn before_fits(before: &str, key: &FlowKey) -> bool {
    match before {
        "tcp" => key.protocol == Protocol::Tcp,
        "udp" => key.protocol == Protocol::Udp,
        _ => true,
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

fn in_network(value: &str, address: std::net::IpAddr) -> Option<bool> {
    let (network, prefix) = value.split_once('/').unwrap_or((value, ""));
    let network: std::net::IpAddr = network.parse().ok()?;
    let full = if network.is_ipv6() { 128 } else { 32 };
    let prefix = if prefix.is_empty() { full } else { prefix.parse().ok()? };
    Some(Network { address: network, prefix }.contains(address))
}

fn in_ports(value: &str, port: Option<u16>) -> Option<bool> {
    let Some(port) = port else { return Some(false) };
    let separator = if value.contains('-') { '-' } else { ':' };
    match value.split_once(separator) {
        Some((low, high)) => Some((low.parse().ok()?..=high.parse().ok()?).contains(&port)),
        None => Some(value.parse::<u16>().ok()? == port),
    }
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

/// Only what came in by another device for certain contradicts: a bridge's port and the bridge are one to IP.
fn came_in(scene: &Scene<'_>, value: &str, drop: &Dropped<'_>) -> Option<bool> {
    let input = drop.example()?.input_device?;
    let name = |device| scene.name(device);
    let mut names = vec![name(input)];
    names.extend(scene.bridge_of(input).map(|bridge| bridge.name.clone()));
    names.extend(drop.device().map(name));
    let fits = |known: &String| match value.strip_suffix(['*', '+']) {
        Some(prefix) => known.starts_with(prefix),
        None => known == value,
    };
    Some(names.iter().any(fits))
}

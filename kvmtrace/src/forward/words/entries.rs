//! Rules, routes and entries as the host's own tools write them.

use crate::event::host::{Backend, Chain, FdbEntry, Neighbour, Route};
use crate::event::names::{RouteKind, RuleAction};
use crate::event::overlay::{IpsecDirection, IpsecPolicy, IpsecSelector};
use crate::event::ruleset::RuleReference;
use crate::event::switch::SwitchFlow;
use crate::event::{HostState, PolicyRule};
use crate::forward::asked::STAND_IN;
use crate::forward::step::Decision;
use std::fmt::Write as _;

/// A decision as the host's own tools write it.
pub fn decision(host: &HostState, decision: &Decision) -> String {
    match decision {
        Decision::Rule(reference) => rule(host, *reference),
        Decision::Route(route) => self::route(host, route),
        Decision::PolicyRule(rule) => format!("rule {}", policy_rule(rule, str::to_owned)),
        Decision::OwnAddress(network) => format!("own address {network}"),
        Decision::Fdb(entry) => fdb(host, entry),
        Decision::Flood => "no entry in the forwarding database".to_owned(),
        Decision::Neighbour(entry) => neighbour(host, entry),
        Decision::Sysctl(name, value) => format!("{name} = {value}"),
        Decision::Setting(text) => text.clone(),
        Decision::Ipsec(policy) => format!("xfrm policy {}", ipsec_policy(policy)),
        Decision::OpenFlow(flow) => openflow(flow),
        Decision::OwnMac => "the destination is the device's own MAC address".to_owned(),
    }
}

/// A rule as ovs-ofctl writes it: `table=0,priority=100,icmp,nw_src=10.0.0.1,actions=drop`.
pub fn openflow(flow: &SwitchFlow) -> String {
    format!("{},actions={}", openflow_match(flow), flow.actions)
}

/// What a rule asks for, as `ovs-ofctl --strict del-flows` takes it.
pub fn openflow_match(flow: &SwitchFlow) -> String {
    let table = if flow.table == 0 { String::new() } else { format!("table={},", flow.table) };
    let fields = if flow.fields.is_empty() { String::new() } else { format!(",{}", flow.fields) };
    format!("{table}priority={}{fields}", flow.priority)
}

/// `nft inet filter forward: iifname "br0" drop`, or as iptables-save has it.
pub fn rule(host: &HostState, reference: RuleReference) -> String {
    let Some(chain) = host.netfilter.chains.get(reference.chain) else { return "a rule that is not listed".to_owned() };
    let rule = reference.rule.and_then(|index| chain.rules.get(index));
    match (rule, chain.backend) {
        (Some(rule), Backend::Nft) => format!("{}: {}", self::chain(chain), rule.text),
        (Some(rule), Backend::IptablesNft | Backend::IptablesLegacy) => {
            format!("{} -t {} {}", tool(chain), chain.table, rule.text)
        }
        (None, _) => format!("{}: policy {}", self::chain(chain), chain.policy.as_deref().unwrap_or("accept")),
    }
}

pub(super) fn chain_of(host: &HostState, reference: RuleReference) -> String {
    host.netfilter.chains.get(reference.chain).map_or_else(|| "a chain that is not listed".to_owned(), chain)
}

/// `nft inet filter forward`
pub fn chain(chain: &Chain) -> String {
    match chain.backend {
        Backend::Nft => format!("nft {} {} {}", chain.family, chain.table, chain.name),
        Backend::IptablesNft | Backend::IptablesLegacy => format!("{} -t {} {}", tool(chain), chain.table, chain.name),
    }
}

fn tool(chain: &Chain) -> &'static str {
    match (chain.family.as_str(), chain.backend) {
        ("ip6", Backend::IptablesLegacy) => "ip6tables-legacy",
        ("ip6", _) => "ip6tables",
        ("bridge", Backend::IptablesLegacy) => "ebtables-legacy",
        ("bridge", _) => "ebtables",
        ("arp", Backend::IptablesLegacy) => "arptables-legacy",
        ("arp", _) => "arptables",
        (_, Backend::IptablesLegacy) => "iptables-legacy",
        (_, _) => "iptables",
    }
}

/// As `ip route` writes it.
pub fn route(host: &HostState, route: &Route) -> String {
    let mut text = if route.kind == RouteKind::Unicast { String::new() } else { format!("{} ", route.kind) };
    text.push_str(&if route.destination.prefix == 0 { "default".to_owned() } else { route.destination.to_string() });
    let mut add = |word: &str, value: Option<String>| {
        if let Some(value) = value {
            let _infallible = write!(text, " {word} {value}");
        }
    };
    add("via", route.gateway.map(|gateway| gateway.to_string()));
    add("dev", route.device.map(|device| host.link_name(device)));
    add("src", route.source.map(|source| source.to_string()));
    add("table", (!matches!(route.table, 0 | 254)).then(|| route.table.to_string()));
    add("mtu", route.mtu.map(|mtu| mtu.to_string()));
    text
}

/// As `bridge fdb` writes it.
fn fdb(host: &HostState, entry: &FdbEntry) -> String {
    if entry.mac == STAND_IN {
        return format!("learned from the answer to the request: {}", host.link_name(entry.device));
    }
    let mut text = format!("fdb {} dev {}", entry.mac, host.link_name(entry.device));
    if let Some(vlan) = entry.vlan {
        let _infallible = write!(text, " vlan {vlan}");
    }
    if let Some(remote) = entry.remote {
        let _infallible = write!(text, " dst {remote}");
    }
    let flags = [(entry.permanent, " permanent"), (entry.fixed, " static"), (entry.sticky, " sticky")];
    flags.into_iter().filter(|(set, _)| *set).for_each(|(_, word)| text.push_str(word));
    text
}

/// As `ip neigh` writes it.
fn neighbour(host: &HostState, entry: &Neighbour) -> String {
    let mac = entry.mac.map(|mac| format!(" lladdr {mac}")).unwrap_or_default();
    format!("neighbour {} dev {}{mac} {}", entry.address, host.link_name(entry.device), entry.state)
}

/// The identity of a policy, as `ip xfrm policy` takes it, and its priority.
pub fn ipsec_policy(policy: &IpsecPolicy) -> String {
    let direction = match policy.direction {
        IpsecDirection::In => "in",
        IpsecDirection::Out => "out",
        IpsecDirection::Forward => "fwd",
    };
    let IpsecSelector { source, destination, .. } = &policy.selector;
    let action = if policy.blocks { " action block" } else { "" };
    format!("src {source} dst {destination} dir {direction} priority {}{action}", policy.priority)
}

/// As `ip rule` takes it; `quote` makes a device's name fit for where the text goes.
pub fn policy_rule(rule: &PolicyRule, quote: impl Fn(&str) -> String) -> String {
    let mut text = format!("priority {}", rule.priority);
    let mut add = |part: String| {
        text.push(' ');
        text.push_str(&part);
    };
    if rule.inverted {
        add("not".to_owned());
    }
    for (word, network) in [("from", &rule.source), ("to", &rule.destination)] {
        if let Some(network) = network {
            add(format!("{word} {network}"));
        }
    }
    for (word, device) in [("iif", &rule.input), ("oif", &rule.output)] {
        if let Some(device) = device {
            add(format!("{word} {}", quote(device)));
        }
    }
    match rule.mark {
        Some(mark) if mark.mask == u32::MAX => add(format!("fwmark {:#x}", mark.value)),
        Some(mark) => add(format!("fwmark {:#x}/{:#x}", mark.value, mark.mask)),
        None => {}
    }
    if let Some(protocol) = rule.protocol {
        add(format!("ipproto {protocol}"));
    }
    for (word, ports) in [("sport", rule.source_ports), ("dport", rule.destination_ports)] {
        match ports {
            Some((first, last)) if first == last => add(format!("{word} {first}")),
            Some((first, last)) => add(format!("{word} {first}-{last}")),
            None => {}
        }
    }
    add(rule.action.to_string());
    if rule.action == RuleAction::Lookup {
        add(rule.table.to_string());
    }
    if let Some(target) = rule.target {
        add(target.to_string());
    }
    if let Some(length) = rule.suppress {
        add(format!("suppress_prefixlength {length}"));
    }
    text
}

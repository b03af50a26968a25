//! The traffic or the setting that a fix opens or changes, in words; and the protection that it takes away.

use crate::diagnose::facts::firewall::protection::protection;
use crate::diagnose::report::{Carried, Conversation, DeviceSetting, Fix, Port, Service, Setting};
use crate::diagnose::words;
use crate::event::host::{Chain, HostState, Rule};
use crate::event::ruleset::RuleReference;
use crate::forward::effect::{BondOption, BridgeOption, Effect, PortFlag};
use crate::forward::words as forward_words;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Fills in the scope of a command.
pub fn complete(host: &HostState, fix: &mut Fix) {
    if fix.command.is_some() && fix.scope.is_none() {
        fix.scope = Some(scope(host, fix));
    }
}

fn scope(host: &HostState, fix: &Fix) -> String {
    if let Some(accept) = &fix.accepts {
        return conversations(host, &accept.ways);
    }
    let mut parts: Vec<String> = fix.effects.iter().map(|effect| effect_words(host, effect)).collect();
    parts.dedup();
    match (parts.as_slice(), &fix.setting) {
        ([], Some(Setting::Device { device, what })) => format!("{device}: {}", setting_words(what)),
        ([], Some(Setting::Sysctl { name, value })) => format!("the sysctl {name}, set to {value}"),
        // No table of the model changes: the risk names what else is touched, if anything.
        ([], None) => fix.risk.clone().unwrap_or_else(|| fix.why.clone()),
        (parts, _) => words::list(parts),
    }
}

/// `10.99.0.11 to 10.99.0.1 and 10.99.0.2, tcp, ports 22, 80 and 443`, with the names of guests. Answers are not listed where
/// the request is.
pub fn conversations(host: &HostState, ways: &[Conversation]) -> String {
    // The first of two that answer each other is the one that asks.
    let is_answer = |number: usize, way: &Conversation| ways.iter().take(number).any(|other| other.reverse() == *way);
    let asked: Vec<&Conversation> =
        ways.iter().enumerate().filter(|(number, way)| !is_answer(*number, way)).map(|(_, way)| way).collect();
    let with_answers = asked.len() < ways.len();
    let mut groups: Vec<(Service, Vec<&Conversation>)> = Vec::new();
    for way in asked {
        match groups.iter_mut().find(|(service, _)| *service == way.service) {
            Some((_, group)) => group.push(way),
            None => groups.push((way.service, vec![way])),
        }
    }
    let groups: Vec<String> = groups.iter().map(|(service, group)| group_words(host, *service, group)).collect();
    let answers = if with_answers { ", and the answers" } else { "" };
    format!("{}{answers}", groups.join("; "))
}

fn group_words(host: &HostState, service: Service, group: &[&Conversation]) -> String {
    let ends = |end: fn(&Conversation) -> Option<IpAddr>| {
        let all: BTreeSet<Option<IpAddr>> = group.iter().map(|way| end(way)).collect();
        let all: Vec<String> = all.into_iter().map(|address| name(host, address)).collect();
        words::list(&all)
    };
    let (sources, destinations) = (ends(|way| way.source), ends(|way| way.destination));
    let ports: BTreeSet<u16> = group
        .iter()
        .filter_map(|way| match way.port {
            Some(Port::Destination(port) | Port::Source(port)) => Some(port),
            None => None,
        })
        .collect();
    let from_service = group.iter().any(|way| matches!(way.port, Some(Port::Source(_))));
    let what = match (service, service.over_ip()) {
        (Service::Arp, _) => ", ARP".to_owned(),
        (Service::Discovery(_), _) => ", neighbour discovery".to_owned(),
        (Service::Frames(from, to, kind), _) => return format!("frames of type {kind:#06x} from {from} to {to}"),
        (_, Some(Carried::Number(number))) => format!(", IP protocol {number}"),
        (_, Some(Carried::Named(name))) => format!(", {name}"),
        (_, None) => ", all protocols".to_owned(),
    };
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let side = if from_service { "source port" } else { "port" };
    let ports = match ports.as_slice() {
        [] => String::new(),
        [only] => format!(", {side} {only}"),
        _ => format!(", {side}s {}", words::list(&ports)),
    };
    format!("{sources} to {destinations}{what}{ports}")
}

/// An address, with the name of the guest that has it.
fn name(host: &HostState, address: Option<IpAddr>) -> String {
    let Some(address) = address else { return "anybody".to_owned() };
    let has = |guest: &&crate::event::host::Guest| {
        guest.interfaces.iter().any(|interface| interface.addresses.contains(&address))
    };
    match host.guests.iter().find(has) {
        Some(guest) => format!("{} ({address})", guest.name),
        None => address.to_string(),
    }
}

fn setting_words(setting: &DeviceSetting) -> String {
    match setting {
        DeviceSetting::Up => "up".to_owned(),
        DeviceSetting::Mtu(mtu) => format!("MTU {mtu}, for all that it carries"),
        DeviceSetting::Bridge(bridge) => format!("a port of {bridge}"),
        DeviceSetting::Port { flag, on } => format!("{flag} {}", if *on { "on" } else { "off" }),
        DeviceSetting::LargeReceiveOff => "large receive offload off".to_owned(),
        DeviceSetting::Option { option, value } => format!("{option} {value}"),
    }
}

fn effect_words(host: &HostState, effect: &Effect) -> String {
    let device = |index| host.link_name(index);
    let on = |on: &bool| if *on { "on" } else { "off" };
    match effect {
        Effect::Up(index, up) => format!("{} goes {}", device(*index), if *up { "up" } else { "down" }),
        Effect::Mtu(index, mtu) => format!("{}: MTU {mtu}, for all that it carries", device(*index)),
        Effect::Master(index, Some(bridge)) => format!("{} becomes a port of {}", device(*index), device(*bridge)),
        Effect::Master(index, None) => format!("{} leaves its bridge", device(*index)),
        Effect::PortFlag(index, flag, value) => {
            format!("port {}: {} {}, for all that it carries", device(*index), flag_name(*flag), on(value))
        }
        Effect::PortGroupForwardMask(index, mask) => {
            format!("port {}: it forwards the reserved groups {mask:#06x}", device(*index))
        }
        Effect::PortState(index, _) => format!("port {}: its STP state", device(*index)),
        Effect::Bridge(index, option) => {
            let (name, value) = option_words(*option);
            format!("bridge {}: {name} {value}, for all of its ports", device(*index))
        }
        Effect::VlanAdd(index, vlan) => format!("{}: all frames of VLAN {}", device(*index), vlan.id),
        Effect::Sysctl(name, value) => format!("the sysctl {name}, set to {value}"),
        Effect::RouteAdd(route) => format!("the route to {}", network(route.destination)),
        Effect::RouteDelete(route) => {
            format!("all traffic to {} that no other route covers", network(route.destination))
        }
        Effect::PolicyRuleDelete(rule) => {
            format!("all traffic that policy rule {} is asked for", rule.priority)
        }
        Effect::NeighbourDelete(index, address) => format!("the neighbour entry of {address} on {}", device(*index)),
        Effect::ProxyAdd(address, index) => format!("ARP or ND for {address} on {}", device(*index)),
        Effect::FdbDelete(index, mac, _) => format!("the forwarding entry of {mac} at {}", device(*index)),
        Effect::FdbAdd(entry) => format!("the forwarding entry of {} at {}", entry.mac, device(entry.device)),
        Effect::RuleDelete(reference) => match rule_of(host, *reference) {
            Some((_, rule)) => format!("all that the rule \"{}\" matches", rule.text),
            None => "all that a rule matches".to_owned(),
        },
        Effect::RuleInsert(_, rule) | Effect::RuleAppend(_, rule) => format!("what the rule \"{}\" matches", rule.text),
        Effect::PolicyAccept(chain) => {
            let name = host.netfilter.chains.get(*chain).map(|chain| chain.name.clone()).unwrap_or_default();
            format!("all that no rule of {name} decides")
        }
        Effect::SetElement(set, element, added) => {
            let name = host.netfilter.sets.get(*set).map(|set| set.name.clone()).unwrap_or_default();
            format!("{element} {} the set {name}", if *added { "in" } else { "out of" })
        }
        Effect::XdpOff(index) => format!("all that the XDP program on {} decides", device(*index)),
        Effect::ArpOn(index) => format!("ARP on {}", device(*index)),
        Effect::MacvtapMode(index, mode) => format!("the mode of {}: {mode}", device(*index)),
        Effect::Bond(index, BondOption::Active(leg)) => {
            format!("the active leg of {}: {}", device(*index), device(*leg))
        }
        Effect::Bond(index, BondOption::AllActive(_)) => format!("all that comes by any leg of {}", device(*index)),
        Effect::AddressAdd(index, address) | Effect::AddressDelete(index, address) => {
            format!("the address {} of {}", network(*address), device(*index))
        }
        Effect::SwitchVlans(place, vlans) => {
            let port = host.switch.at(*place).map_or("a port", |(_, port, _)| port.name.as_str());
            format!("the port {port} of Open vSwitch: {}", forward_words::switch_vlans(vlans))
        }
        Effect::SwitchFlowAdd(_, flow) | Effect::SwitchFlowDelete(_, flow) => {
            format!("what the OpenFlow rule \"{}\" matches", forward_words::openflow(flow))
        }
        Effect::QdiscDelete(index) => format!("the queue of {}", device(*index)),
        Effect::IpsecDelete(policy) => {
            let does = if policy.blocks { "blocks" } else { "encrypts" };
            format!("all that the IPsec policy of priority {} {does}", policy.priority)
        }
    }
}

fn network(network: crate::event::host::Network) -> String {
    format!("{}/{}", network.address, network.prefix)
}

fn flag_name(flag: PortFlag) -> &'static str {
    match flag {
        PortFlag::Isolated => "isolated",
        PortFlag::Locked => "locked",
        PortFlag::Flood => "flood",
        PortFlag::MulticastFlood => "mcast_flood",
        PortFlag::BroadcastFlood => "bcast_flood",
        PortFlag::Learning => "learning",
        PortFlag::Hairpin => "hairpin",
    }
}

fn option_words(option: BridgeOption) -> (&'static str, String) {
    let on = |on: bool| if on { "on" } else { "off" }.to_owned();
    match option {
        BridgeOption::Stp(value) => ("STP", on(value)),
        BridgeOption::VlanFiltering(value) => ("VLAN filtering", on(value)),
        BridgeOption::Snooping(value) => ("multicast snooping", on(value)),
        BridgeOption::NetfilterIp(value) => ("IP rules for bridged frames", on(value)),
    }
}

fn rule_of(host: &HostState, reference: RuleReference) -> Option<(&Chain, &Rule)> {
    let chain = host.netfilter.chains.get(reference.chain)?;
    Some((chain, chain.rules.get(reference.rule?)?))
}

/// The protection that a fix takes away: such a fix is never the first offer.
pub fn removed_protection(host: &HostState, fix: &Fix) -> Option<String> {
    fix.effects.iter().find_map(|effect| match effect {
        Effect::RuleDelete(reference) => {
            let (_, rule) = rule_of(host, *reference)?;
            protection(rule).map(|_| format!("it deletes the protective rule \"{}\"", rule.text))
        }
        Effect::PolicyAccept(chain) => {
            let chain = host.netfilter.chains.get(*chain)?;
            Some(format!("it opens the chain {} for all that no rule decides", chain.name))
        }
        Effect::IpsecDelete(policy) if !policy.blocks => Some("it sends what was encrypted in the clear".to_owned()),
        Effect::Sysctl(name, value) if name.ends_with(".rp_filter") && value == "0" => {
            Some("it switches the check of source addresses off".to_owned())
        }
        Effect::MacvtapMode(index, _) => {
            let private = |link: &crate::event::host::Link| {
                matches!(&link.kind, crate::event::host::LinkKind::Macvtap { mode } if *mode == crate::event::names::MacvtapMode::Private)
            };
            let link = host.link(*index).filter(|link| private(link))?;
            Some(format!("{} is no longer kept apart from the other guests on its device", link.name))
        }
        Effect::SwitchFlowDelete(_, flow) => {
            Some(format!("it deletes the OpenFlow rule \"{}\", which may protect", forward_words::openflow(flow)))
        }
        Effect::Up(..)
        | Effect::SwitchVlans(..)
        | Effect::SwitchFlowAdd(..)
        | Effect::Mtu(..)
        | Effect::Master(..)
        | Effect::PortFlag(..)
        | Effect::PortState(..)
        | Effect::PortGroupForwardMask(..)
        | Effect::Bridge(..)
        | Effect::VlanAdd(..)
        | Effect::Sysctl(..)
        | Effect::RouteAdd(_)
        | Effect::RouteDelete(_)
        | Effect::PolicyRuleDelete(_)
        | Effect::NeighbourDelete(..)
        | Effect::ProxyAdd(..)
        | Effect::FdbDelete(..)
        | Effect::FdbAdd(_)
        | Effect::RuleInsert(..)
        | Effect::RuleAppend(..)
        | Effect::SetElement(..)
        | Effect::XdpOff(_)
        | Effect::ArpOn(_)
        | Effect::Bond(..)
        | Effect::AddressAdd(..)
        | Effect::AddressDelete(..)
        | Effect::QdiscDelete(_)
        | Effect::IpsecDelete(_) => None,
    })
}

//! firewalld: what comes to the host is a matter of zones, what passes it one of policies.

use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::conversation::{Conversation, Port};
use crate::diagnose::report::Fix;
use crate::diagnose::shell::quote;
use crate::event::host::{Chain, Link, Network, Rule};
use std::net::IpAddr;

/// The narrowest first.
pub(in crate::diagnose) fn fixes(scene: &Scene<'_>, chain: &Chain, stage: &Stage, wanted: &Conversation) -> Vec<Fix> {
    let (Some(source), Some(destination)) = (wanted.source, wanted.destination) else { return Vec::new() };
    let rule = rich_rule(wanted, source, destination);
    let narrow = match stage.hook {
        "forward" => Some(policy(scene, wanted, &rule)),
        "input" => zone(scene, chain).map(|zone| in_zone(wanted, zone, &rule)),
        // What a zone drops before routing (a reverse-path filter) no zone or policy lets through.
        _ => return Vec::new(),
    };
    narrow.into_iter().chain([trusted(source)]).collect()
}

/// A negative priority puts it before what the zone or policy denies.
fn rich_rule(wanted: &Conversation, source: IpAddr, destination: IpAddr) -> String {
    let family = if source.is_ipv6() { "ipv6" } else { "ipv4" };
    let element = match (wanted.service.over_ip(), wanted.port) {
        (Some(protocol), Some(Port::Destination(port))) => format!(" port port=\"{port}\" protocol=\"{protocol}\""),
        (Some(protocol), Some(Port::Source(port))) => format!(" source-port port=\"{port}\" protocol=\"{protocol}\""),
        (Some(protocol), None) => format!(" protocol value=\"{protocol}\""),
        (None, _) => String::new(),
    };
    quote(&format!(
        "rule priority=\"-1\" family=\"{family}\" source address=\"{source}\" destination address=\"{destination}\"{element} accept"
    ))
}

/// A rich rule of a zone only concerns the host itself.
fn in_zone(wanted: &Conversation, zone: &str, rule: &str) -> Fix {
    let zone = quote(zone);
    let command = |verb: &str| format!("firewall-cmd --zone={zone} --{verb}-rich-rule={rule}");
    let why = format!("Lets {}, by firewalld, which writes this host's rules.", wanted.text());
    Fix::run(command("add"), command("remove"), why)
        .risk(wanted.risk())
        .persist(format!("firewall-cmd --permanent --zone={zone} --add-rich-rule={rule}"))
}

/// What is routed is let through by a policy, which firewalld (0.9 and later) only makes permanent.
fn policy(scene: &Scene<'_>, wanted: &Conversation, rule: &str) -> Fix {
    let is_taken = |name: &str| scene.host.netfilter.chains.iter().any(|chain| chain.name.contains(name));
    let name = (1..100).map(|number| format!("kvmtrace{number}")).find(|name| !is_taken(name));
    let name = name.unwrap_or_else(|| "kvmtrace".to_owned());
    let of = format!("firewall-cmd --permanent --policy={name}");
    let command = format!(
        "firewall-cmd --permanent --new-policy={name} && {of} --add-ingress-zone=ANY && {of} --add-egress-zone=ANY && {of} --add-rich-rule={rule} && firewall-cmd --reload"
    );
    let undo = format!("firewall-cmd --permanent --delete-policy={name} && firewall-cmd --reload");
    let why = format!("Lets {} through, by firewalld, which writes this host's rules.", wanted.text());
    Fix::run(command, undo, why)
        .risk(format!("{} firewalld reloads its rules; what was set without --permanent is gone.", wanted.risk()))
        .persist(format!("firewalld keeps the policy itself (/etc/firewalld/policies/{name}.xml)."))
}

/// The zone `trusted` accepts whatever comes from a source, to the host and through it.
fn trusted(source: IpAddr) -> Fix {
    let command = |verb: &str| format!("firewall-cmd --zone=trusted --{verb}-source={source}");
    let why = format!("Without a reload: lets whatever {source} sends through, by firewalld.");
    Fix::run(command("add"), command("remove"), why)
        .risk(format!("Whatever {source} sends is accepted, to this host as well as through it."))
        .persist(format!("firewall-cmd --permanent --zone=trusted --add-source={source}"))
}

/// What leaves by an uplink is translated in the uplink's zone, here only one network.
pub fn masquerade(scene: &Scene<'_>, uplink: &Link, network: Network, why: String) -> Fix {
    let family = if network.address.is_ipv6() { "ipv6" } else { "ipv4" };
    let rule = quote(&format!("rule family=\"{family}\" source address=\"{network}\" masquerade"));
    let zone = quote(zone_of(scene, uplink).unwrap_or("public"));
    let command = |verb: &str| format!("firewall-cmd --zone={zone} --{verb}-rich-rule={rule}");
    Fix::run(command("add"), command("remove"), why)
        .persist(format!("firewall-cmd --permanent --zone={zone} --add-rich-rule={rule}"))
}

/// The zone to which firewalld's dispatching chain sends what leaves by a device: the device's own, or the default zone.
fn zone_of<'a>(scene: &Scene<'a>, link: &Link) -> Option<&'a str> {
    let chains = scene.host.netfilter.chains.iter();
    let mut rules = chains.filter(|chain| chain.name == "nat_POSTROUTING_ZONES").flat_map(|chain| &chain.rules);
    let target = |rule: &'a Rule| rule.verdict.as_deref()?.split_once(" nat_POST_").map(|(_, zone)| zone);
    let named = format!("oifname \"{}\" ", link.name);
    let concerns = |rule: &&'a Rule| rule.text.starts_with(&named) || rule.text.starts_with("goto ");
    rules.find(concerns).and_then(target)
}

/// The zone that a chain for what comes to the host belongs to: `filter_IN_public_deny`, with iptables `IN_public_deny`.
fn zone<'a>(scene: &Scene<'_>, chain: &'a Chain) -> Option<&'a str> {
    let name = chain.name.strip_prefix("filter_").unwrap_or(&chain.name).strip_prefix("IN_")?;
    let is_chain = |zone: &str| {
        let ends = |other: &Chain| other.name.strip_suffix(zone).is_some_and(|head| head.ends_with("IN_"));
        scene.host.netfilter.chains.iter().any(|other| other.table == chain.table && ends(other))
    };
    let parts = ["_pre", "_log", "_deny", "_allow", "_post"];
    let whole = parts.iter().find_map(|part| name.strip_suffix(part)).filter(|zone| is_chain(zone));
    let zone = whole.unwrap_or(name);
    (!zone.starts_with("policy_")).then_some(zone)
}

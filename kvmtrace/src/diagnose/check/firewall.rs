//! A FORWARD chain whose policy drops, and that lets nothing of a bridge's begin: Docker's, ufw's, anybody's.

use super::about::About;
use crate::diagnose::facts::firewall::stage::Stage;
use crate::diagnose::facts::firewall::suspects::Suspect;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::conversation::{Conversation, Service};
use crate::diagnose::fix::manager::{Manager, filters_bridged, manager_of};
use crate::diagnose::fix::{netfilter, sysctl};
use crate::diagnose::report::{Cause, Finding, Fix, Point, Severity};
use crate::diagnose::shell::quote;
use crate::event::host::{Backend, Chain, Link, Network, Rule};
use crate::event::is_link_local;

/// br_netfilter pushes bridged frames through the chain.
pub(super) fn bridged(scene: &Scene<'_>, bridge: &Link) -> Option<Finding> {
    let families = [("net.bridge.bridge-nf-call-iptables", "ip"), ("net.bridge.bridge-nf-call-ip6tables", "ip6")];
    families.into_iter().find_map(|(name, family)| {
        if scene.host.sysctl(name) != Some("1") {
            return None;
        }
        let chain = closed(scene, bridge, family)?;
        let fix = match filters_bridged(scene.host) {
            Some(who) => Fix::advice(format!(
                "{who} filters the guests of bridges by these rules: let what they need through there. `kvmtrace verdict` reports the narrowest rule for each flow that dies."
            )),
            None => sysctl::set(scene.host, name, "0", "Lets bridged frames pass beside the IP rules."),
        };
        let finding = about(scene, bridge, Cause::NetfilterBridgedIp).say(
            format!(
                "Frames that {} forwards pass the IP FORWARD chain (br_netfilter), whose policy is drop and which lets no connection of theirs begin.",
                bridge.name
            ),
            format!("{name} = 1; {}", text(chain)),
            vec![fix],
        );
        Some(finding)
    })
}

/// The bridges' own family (nft, ebtables).
pub(super) fn of_bridges(scene: &Scene<'_>, bridge: &Link) -> Option<Finding> {
    let chain = closed(scene, bridge, "bridge")?;
    Some(about(scene, bridge, Cause::NetfilterBridge).say(
        format!(
            "Nothing passes from one port of {} to another: the policy of the bridges' FORWARD chain is drop, and no rule lets anything through there.",
            bridge.name
        ),
        text(chain),
        vec![Fix::advice(
            "Let what the guests need through that chain: `kvmtrace verdict` reports the narrowest rule for each flow that dies.",
        )],
    ))
}

/// A bridge with an address, whose guests need this host to forward.
pub(super) fn routed(scene: &Scene<'_>, bridge: &Link) -> Option<Finding> {
    let inside = |family: &str| {
        let of_family =
            |network: &&Network| network.address.is_ipv6() == (family == "ip6") && !is_link_local(network.address);
        bridge.addresses.iter().find(of_family)
    };
    [("ip", "net.ipv4.ip_forward"), ("ip6", "net.ipv6.conf.all.forwarding")].into_iter().find_map(|(family, name)| {
        let network = inside(family).filter(|_| scene.host.sysctl(name) == Some("1"))?;
        let chain = closed(scene, bridge, family)?;
        Some(about(scene, bridge, Cause::NetfilterForward).say(
            format!(
                "The guests of {} reach nothing beyond this host: the policy of the FORWARD chain is drop, and it lets no connection of theirs begin.",
                bridge.name
            ),
            text(chain),
            open(scene, bridge, chain, family, *network),
        ))
    })
}

/// All that one guest of the network does, for no flow asks for less here.
fn open(scene: &Scene<'_>, bridge: &Link, chain: &Chain, family: &'static str, network: Network) -> Vec<Fix> {
    // An address of the network may belong to a guest that this host routes for alone.
    let is_port = |device| scene.link(device).is_some_and(|link| link.master == Some(bridge.index));
    let guests = scene.host.guests.iter().flat_map(|guest| &guest.interfaces);
    let guests = guests.filter(|interface| is_port(interface.device));
    let guest = guests.flat_map(|interface| interface.addresses.iter().copied()).find(|ip| network.contains(*ip));
    let why = "Lets the guests open connections through this host.";
    match (manager_of(&scene.host.netfilter.chains, chain, None), guest) {
        (Some(Manager::Ufw), _) => {
            let rule = format!("allow in on {}", quote(&bridge.name));
            let fix = Fix::run(format!("ufw route {rule}"), format!("ufw route delete {rule}"), why);
            vec![
                fix.risk("All that the guests send is let through; narrow it to what is needed.")
                    .persist("ufw keeps the rule itself."),
            ]
        }
        (None | Some(Manager::Docker), Some(guest)) => {
            let stage = Stage { cause: Cause::NetfilterForward, hook: "forward", family, by_nft: Some(true) };
            let wanted = Conversation {
                source: Some(guest),
                destination: None,
                service: Service::AnyIp,
                port: None,
                answered: true,
            };
            let suspect =
                Suspect { chain: Some(chain), base: None, rule: None, grown: None, traced: None, gone: false };
            netfilter::fixes(scene, &stage, &[suspect], &[], &wanted)
        }
        _ => vec![Fix::advice(
            "Let what the guests need through the FORWARD chain, by the firewall that writes it: `kvmtrace verdict` tells the command for each flow that dies.",
        )],
    }
}

fn about<'a, 's>(scene: &'a Scene<'s>, bridge: &Link, cause: Cause) -> About<'a, 's> {
    let point = Point::NetfilterForward;
    About { scene, cause, severity: Severity::Warning, guest: None, device: bridge.index, point }
}

fn text(chain: &Chain) -> String {
    format!("table {} {} chain {} policy drop", chain.family, chain.table, chain.name)
}

/// The chain that drops all that begins by this bridge.
fn closed<'a>(scene: &Scene<'a>, bridge: &Link, family: &str) -> Option<&'a Chain> {
    let chains = &scene.host.netfilter.chains;
    let drops = |chain: &&Chain| {
        (chain.family == family || chain.family == "inet" && family != "bridge")
            && chain.hook.as_deref() == Some("forward")
            && chain.policy.as_deref() == Some("drop")
    };
    let mut devices: Vec<&str> = scene.host.ports(bridge.index).map(|link| link.name.as_str()).collect();
    devices.push(&bridge.name);
    chains.iter().filter(drops).find(|base| {
        let mut reached = vec![*base];
        let mut next = 0;
        while let Some(chain) = reached.get(next).copied() {
            next += 1;
            for rule in chain.rules.iter().filter(|rule| concerns(chain.backend, rule, &devices)) {
                let verdict = rule.verdict.as_deref().unwrap_or_default();
                if matches!(verdict, "accept" | "queue") || verdict.starts_with("vmap") {
                    return false;
                }
                let target = verdict.strip_prefix("jump ").or_else(|| verdict.strip_prefix("goto "));
                let beside = |other: &&Chain| {
                    Some(other.name.as_str()) == target
                        && (other.backend, &other.family, &other.table) == (base.backend, &base.family, &base.table)
                        && !reached.iter().any(|known| std::ptr::eq(*known, *other))
                };
                if let Some(chain) = chains.iter().find(beside) {
                    reached.push(chain);
                }
            }
        }
        true
    })
}

/// The rule may be met by what begins a connection by one of these devices, and is no more than the ICMP of one.
fn concerns(backend: Backend, rule: &Rule, devices: &[&str]) -> bool {
    let words: Vec<&str> = rule.text.split_whitespace().map(|word| word.trim_matches('"')).collect();
    let nft = backend == Backend::Nft;
    let mut known = false;
    let mut elsewhere = false;
    for (at, word) in words.iter().enumerate() {
        let Some(value) = words.get(at + 1) else { break };
        let negated = at > 0 && words.get(at - 1) == Some(&"!") || matches!(*value, "!=" | "!");
        let is_device = if nft {
            matches!(*word, "iifname" | "iif" | "oifname" | "oif" | "ibrname" | "obrname")
        } else {
            matches!(*word, "-i" | "-o" | "--physdev-in" | "--physdev-out" | "--logical-in" | "--logical-out")
        };
        // A map of verdicts and a concatenation may hold any device.
        let is_open = value.starts_with(['{', '@']) || matches!(*value, "vmap" | "map" | ".");
        if is_device && !negated && !is_open {
            let fits = |device: &&str| match value.strip_suffix(['*', '+']) {
                Some(prefix) => device.starts_with(prefix),
                None => device == value,
            };
            if devices.iter().any(fits) { known = true } else { elsewhere = true }
        }
        let (states, icmp) = if nft {
            let of_conntrack = at > 0 && words.get(at - 1) == Some(&"ct");
            (*word == "state" && of_conntrack, matches!(*word, "icmp" | "icmpv6"))
        } else {
            (matches!(*word, "--ctstate" | "--state"), *word == "-p" && value.contains("icmp"))
        };
        let rest = words.get(at + 1..).unwrap_or_default();
        if icmp || states && !rest.iter().take(6).any(|word| word.to_ascii_lowercase().contains("new")) {
            return false;
        }
    }
    known || !elsewhere
}

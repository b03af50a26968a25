//! Which route a packet takes: the rules of policy routing in their order, each with its table, as `fib_rules_lookup` asks
//! them. What a rule may ask for besides addresses and the incoming device (a mark, ports, a user) is not known here: then
//! the answer says that it is in doubt.

use super::scene::Scene;
use crate::diagnose::report::Cause;
use crate::diagnose::shell;
use crate::event::PolicyRule;
use crate::event::host::{HostState, Link, LinkKind, Network, Route};
use std::net::IpAddr;

/// The table `main` (`RT_TABLE_MAIN`).
pub const MAIN: u32 = 254;

const DEFAULT: u32 = 253;

const LOCAL: u32 = 255;

/// What the kernel asks its routing for.
#[derive(Clone, Copy, Debug)]
pub struct Question<'q> {
    /// The packet's source; none where the kernel has yet to choose one.
    pub from: Option<IpAddr>,
    /// Where it goes.
    pub to: IpAddr,
    /// The device that it came in by; `lo` for what this host sends itself.
    pub input: &'q str,
}

impl Question<'_> {
    /// For what this host itself sends.
    pub fn own(to: IpAddr) -> Self {
        Self { from: None, to, input: "lo" }
    }
}

/// What it answers.
#[derive(Clone, Debug, Default)]
pub struct Answer<'a> {
    /// The route, of any kind.
    pub route: Option<&'a Route>,
    /// The rule that decided: by itself, or by its table. None where the rules are not known.
    pub rule: Option<&'a PolicyRule>,
    /// A rule that comes before what decided, and may have taken the packet: it asks for more than is known here.
    pub doubt: Option<&'a PolicyRule>,
    /// The tables that were asked.
    pub tables: Vec<u32>,
}

impl<'a> Answer<'a> {
    /// The route, if it leads somewhere.
    pub fn unicast(&self) -> Option<&'a Route> {
        self.route.filter(|route| route.kind == "unicast")
    }

    /// What has to be said beside a statement that rests on this answer.
    pub fn caveat(&self) -> Option<String> {
        let rule = self.doubt?;
        Some(format!(
            "the rule of policy routing \"{}\" is asked first, and by more than is known here (a mark, ports, a user, a VRF)",
            rule_text(rule)
        ))
    }
}

/// Asks.
pub fn lookup<'a>(host: &'a HostState, question: Question<'_>) -> Answer<'a> {
    let mut answer = Answer::default();
    let v6 = question.to.is_ipv6();
    let rules = host.policy_rules.iter().filter(|rule| rule.v6 == v6);
    if rules.clone().next().is_none() {
        answer.tables = vec![MAIN, DEFAULT];
        answer.route = answer.tables.iter().find_map(|table| best(host, *table, question.to, None));
        return answer;
    }
    for rule in rules.filter(|rule| rule.may_take(question.from, question.to, question.input)) {
        match rule.action.as_str() {
            "nop" => continue,
            "lookup" if rule.table == LOCAL => continue,
            "l3mdev" if !in_vrf(host, question.input) => continue,
            action if rule.narrower || matches!(action, "goto" | "l3mdev") => {
                answer.doubt.get_or_insert(rule);
                continue;
            }
            "lookup" => {
                if !answer.tables.contains(&rule.table) {
                    answer.tables.push(rule.table);
                }
                match best(host, rule.table, question.to, rule.suppress) {
                    Some(route) if route.kind != "throw" => answer.route = Some(route),
                    _ => continue,
                }
            }
            _ => {}
        }
        answer.rule = Some(rule);
        break;
    }
    answer
}

/// The device belongs to a VRF.
fn in_vrf(host: &HostState, device: &str) -> bool {
    let master = host.link_named(device).and_then(|link| host.link(link.master?));
    master.is_some_and(|master| matches!(&master.kind, LinkKind::Other(kind) if kind == "vrf"))
}

/// The best route of a table, unless it is as wide as a rule suppresses (`fib4_rule_suppress`).
fn best(host: &HostState, table: u32, to: IpAddr, suppress: Option<u32>) -> Option<&Route> {
    let fits = host.routes.iter().filter(|route| {
        // Routes of old recordings say no table.
        let here = route.table == table || route.table == 0 && table == MAIN;
        here && route.destination.contains(to) && usable(host, route)
    });
    fits.min_by_key(|route| (std::cmp::Reverse(route.destination.prefix), route.metric))
        .filter(|route| suppress.is_none_or(|suppress| u32::from(route.destination.prefix) > suppress))
}

fn usable(host: &HostState, route: &Route) -> bool {
    route.device.is_none_or(|device| host.link(device).is_none_or(|link| link.up))
}

/// As `ip rule` takes it.
pub fn rule_text(rule: &PolicyRule) -> String {
    let network = |word: &str, network: &Option<crate::event::host::Network>| {
        network.map_or_else(String::new, |network| format!("{word} {network} "))
    };
    let input = rule.input.as_ref().map_or_else(String::new, |name| format!("iif {} ", shell::quote(name)));
    let table = if rule.action == "lookup" { format!(" {}", rule.table) } else { String::new() };
    let suppress = rule.suppress.map(|length| format!(" suppress_prefixlength {length}")).unwrap_or_default();
    format!(
        "priority {} {}{}{input}{}{table}{suppress}",
        rule.priority,
        network("from", &rule.source),
        network("to", &rule.destination),
        rule.action
    )
}

/// The network of an address.
pub fn network_of(network: Network) -> Network {
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

/// What a route or rule of this kind does.
pub fn special_cause(kind: &str) -> (Cause, &'static str) {
    match kind {
        "blackhole" => (Cause::RouteBlackhole, "throws these packets away without a word"),
        "prohibit" => (Cause::RouteProhibited, "forbids these packets and tells the sender"),
        _ => (Cause::NoRoute, "calls this destination unreachable"),
    }
}

/// No route of this host's own leads there.
pub fn has_no_way(scene: &Scene<'_>, to: IpAddr) -> bool {
    lookup(scene.host, Question::own(to)).route.is_none_or(|route| route.kind != "unicast")
}

/// The unicast route that this host's own packets take.
pub fn route_to(host: &HostState, to: IpAddr) -> Option<&Route> {
    lookup(host, Question::own(to)).unicast()
}

/// As `ip route` writes it.
pub fn route_text(scene: &Scene<'_>, route: &Route) -> String {
    let kind = if route.kind == "unicast" { String::new() } else { format!("{} ", route.kind) };
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let by = route
        .device
        .filter(|_| route.kind == "unicast")
        .map(|device| format!(" dev {}", scene.name(device)))
        .unwrap_or_default();
    format!("{kind}{}{via}{by}", route.destination)
}

/// The way that an answer would take, as `__fib_validate_source` asks for it: as if this host sent it from the packet's
/// destination, so that no rule for an incoming device counts.
pub fn way_back(host: &HostState, from: IpAddr, to: Option<IpAddr>) -> Answer<'_> {
    lookup(host, Question { from: to, to: from, input: "lo" })
}

/// The kernel takes the larger of the two (`IN_DEV_RPFILTER`).
pub fn reverse_path_filter(host: &HostState, input: &Link) -> u8 {
    let value = |device: &str| {
        host.sysctl(&format!("net.ipv4.conf.{device}.rp_filter")).and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    value("all").max(value(&input.name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::IfIndex;
    use rstest::rstest;

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    fn route(destination: &str, table: u32, kind: &str, device: u32) -> Route {
        Route {
            destination: network(destination),
            gateway: None,
            device: Some(IfIndex(device)),
            source: None,
            table,
            metric: 0,
            kind: kind.to_owned(),
            mtu: None,
        }
    }

    fn rule(priority: u32, table: u32) -> PolicyRule {
        PolicyRule {
            v6: false,
            priority,
            source: None,
            destination: None,
            input: None,
            action: "lookup".to_owned(),
            table,
            narrower: false,
            suppress: None,
        }
    }

    /// main: default by 1; 77: default by 2 for 10.0.0.11; 78: a throw; 79: unreachable.
    fn host(rules: Vec<PolicyRule>) -> HostState {
        HostState {
            routes: vec![
                route("0.0.0.0/0", MAIN, "unicast", 1),
                route("192.0.2.0/24", MAIN, "unicast", 3),
                route("0.0.0.0/0", 77, "unicast", 2),
                route("0.0.0.0/0", 78, "throw", 0),
                route("0.0.0.0/0", 79, "unreachable", 0),
            ],
            policy_rules: [rule(0, LOCAL)].into_iter().chain(rules).chain([rule(32_766, MAIN)]).collect(),
            ..HostState::default()
        }
    }

    fn of_guest(rule: PolicyRule) -> PolicyRule {
        PolicyRule { source: Some(network("10.0.0.11/32")), ..rule }
    }

    #[rstest]
    #[case::no_other_rule(vec![], "10.0.0.11", Some(1))]
    #[case::for_this_source(vec![of_guest(rule(100, 77))], "10.0.0.11", Some(2))]
    #[case::for_another_source(vec![of_guest(rule(100, 77))], "10.0.0.12", Some(1))]
    #[case::for_another_device(vec![PolicyRule { input: Some("br1".into()), ..rule(100, 77) }], "10.0.0.11", Some(1))]
    #[case::an_empty_table(vec![rule(100, 80)], "10.0.0.11", Some(1))]
    #[case::a_throw(vec![rule(100, 78), rule(101, 77)], "10.0.0.11", Some(2))]
    #[case::a_default_route_suppressed(vec![PolicyRule { suppress: Some(0), ..rule(100, MAIN) }, rule(101, 77)], "10.0.0.11", Some(2))]
    #[case::unreachable(vec![rule(100, 79)], "10.0.0.11", None)]
    #[case::a_rule_that_forbids(vec![PolicyRule { action: "prohibit".into(), ..rule(100, 0) }], "10.0.0.11", None)]
    fn the_first_table_with_a_route_decides(
        #[case] rules: Vec<PolicyRule>,
        #[case] from: &str,
        #[case] device: Option<u32>,
    ) {
        let host = host(rules);
        let question = Question { from: from.parse().ok(), to: "198.51.100.1".parse().unwrap(), input: "br0" };
        let answer = lookup(&host, question);
        assert_eq!(answer.unicast().and_then(|route| route.device), device.map(IfIndex));
        assert!(answer.rule.is_some() && answer.doubt.is_none());
    }

    #[test]
    fn a_rule_that_asks_for_a_mark_leaves_doubt() {
        let host = host(vec![PolicyRule { narrower: true, ..rule(100, 77) }]);
        let answer = lookup(&host, Question::own("198.51.100.1".parse().unwrap()));
        assert_eq!(answer.unicast().and_then(|route| route.device), Some(IfIndex(1)));
        assert!(answer.caveat().unwrap().contains("priority 100 lookup 77"));
    }

    #[test]
    fn without_known_rules_the_main_table_is_asked() {
        let host = HostState { policy_rules: Vec::new(), ..host(Vec::new()) };
        let answer = lookup(&host, Question::own("192.0.2.9".parse().unwrap()));
        assert_eq!(answer.unicast().and_then(|route| route.device), Some(IfIndex(3)));
    }
}

//! Commands that delete a route or a rule of policy routing.

use crate::diagnose::facts::routes;
use crate::diagnose::report::Fix;
use crate::event::PolicyRule;
use crate::event::host::Route;
use crate::forward::effect::Effect;

/// Without it.
pub fn delete_rule(rule: &PolicyRule) -> Fix {
    let (family, text) = (if rule.v6 { " -6" } else { "" }, routes::rule_text(rule));
    if rule.narrower {
        return Fix::advice(format!(
            "Delete the rule of priority {} that `ip{family} rule show` tells in full (\"{text}\" and more), if nobody meant it.",
            rule.priority
        ));
    }
    let command = |verb: &str| format!("ip{family} rule {verb} {text}");
    Fix::run(command("del"), command("add"), "Removes the very rule that forbids these packets.")
        .risk("Whoever set this rule may have meant it.")
        .persist("Remove it from the network configuration that sets it.")
        .effect(Effect::PolicyRuleDelete(rule.clone()))
}

/// Without a route that leads nowhere on purpose.
pub fn delete_route(route: &Route, why: String) -> Fix {
    let family = if route.destination.address.is_ipv6() { " -6" } else { "" };
    let spec = format!("{} {} table {} metric {}", route.kind, route.destination, route.table, route.metric);
    Fix::run(format!("ip{family} route del {spec}"), format!("ip{family} route add {spec}"), why)
        .risk("Whoever set this route may have meant it.")
        .persist("Remove it from the network configuration that sets it.")
        .effect(Effect::RouteDelete(route.clone()))
}

/// Another network for one of the two.
pub fn renumber(bridge: &str) -> Fix {
    Fix::advice(format!(
        "Give the guests of {bridge} another network: its address, their addresses, its DHCP range (a network of libvirt's: virsh net-edit)."
    ))
}

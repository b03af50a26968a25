//! A rule of policy routing that is a blackhole, unreachable or prohibit itself: no route is of that kind.

use super::routing::special_cause;
use crate::diagnose::case::Case;
use crate::diagnose::dropped::Dropped;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Fix, Point};
use crate::diagnose::{routes, words};
use crate::event::PolicyRule;
use crate::event::host::Link;

/// The rule, by what it does.
pub fn judge(case: &Case<'_>, drop: &Dropped<'_>, input: &Link, kind: &str) -> Judgement {
    let to = case.key().destination;
    let (cause, does) = special_cause(kind);
    let place = at(case.scene, input.index, Point::Routing).of(drop);
    let source = drop.key().source.ip();
    let found = to.ip().and_then(|to| {
        let mut rules = case.scene.host.policy_rules.iter();
        rules.find(|rule| rule.action == kind && rule.may_take(source, to, &input.name))
    });
    let what = words::dropped(case);
    let family = if to.ip().is_some_and(|to| to.is_ipv6()) { " -6" } else { "" };
    let Some(rule) = found else {
        let explanation =
            format!("{what} went to {to}; no route is of type {kind}, so a rule of policy routing {does}.");
        return Judgement::dropped(cause, place, explanation).fix(Fix::advice(format!(
            "Find the rule with `ip{family} rule show` (its action is {kind}) and delete it with `ip{family} rule del`, if nobody meant it."
        )));
    };
    let text = routes::text(rule);
    let explanation = format!("{what} went to {to}; the rule of policy routing \"{text}\" {does}.");
    Judgement::dropped(cause, place, explanation).evidence([format!("ip{family} rule {text}")]).fix(delete(rule))
}

/// Without it.
pub fn delete(rule: &PolicyRule) -> Fix {
    let (family, text) = (if rule.v6 { " -6" } else { "" }, routes::text(rule));
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
}

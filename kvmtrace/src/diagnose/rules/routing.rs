//! `forwarding-disabled`, `no-route`, `route-blackhole`, `route-prohibited`: the host's routing has no way for it.
//!
//! IPv4 ends in `ip_error`: `IP_INADDRERRORS` when the input device does not forward, `IP_INNOROUTES` without a route or
//! with an unreachable one, nothing said for blackhole and prohibit. IPv6 ends in `ip6_pkt_drop`, `dst_discard` or
//! `ip6_forward`.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes;
use crate::diagnose::facts::routes::{Question, lookup, special_cause};
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::route::{downed_uplink, no_route, special_route};
use crate::diagnose::fix::route::delete_rule;
use crate::diagnose::fix::sysctl;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};
use crate::event::HostState;
use crate::event::host::{Link, Route};
use crate::event::names::{RouteKind, RuleAction};
use std::net::IpAddr;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !drop.within(Site::Routing) {
        return None;
    }
    let to = case.key().destination.ip()?;
    let input = input_device(case, drop)?;
    let in_error = drop.within(Site::NotForwarded);
    if drop.because(&["IP_INADDRERRORS"]) && in_error
        || in_error && drop.is_unspecified() && !forwards(case.scene.host, &input.name, to)
    {
        return Some(forwarding_disabled(case, drop, input, to));
    }
    if !drop.because(&["IP_INNOROUTES", "IP6_INNOROUTES"]) && !drop.is_unspecified() {
        return None;
    }
    let special = |route: &&Route| route.kind.forbids();
    let kind = kind_told(case, drop);
    let from = drop.key().source.ip().filter(|from| !case.scene.is_host_address(*from)).or(case.key().source.ip());
    let answer = lookup(case.scene, Question::of(from, to, &input.name));
    // A rule that is not known whole may have led to another table.
    let elsewhere = || {
        let routes = case.scene.host.routes.iter().filter(special);
        routes
            .filter(|route| Some(route.kind) == kind && route.destination.contains(to))
            .max_by_key(|route| route.destination.prefix)
    };
    let may_forbid = |kind: RouteKind| {
        let mut rules = case.scene.host.policy_rules.iter();
        let question = Question::of(from, to, &input.name);
        rules.any(|rule| rule.action.as_route() == Some(kind) && question.may_take(case.scene.host, rule))
    };
    let forbids = answer.rule.is_some_and(|rule| rule.action != RuleAction::Lookup);
    let route = answer.route.filter(special).or_else(|| if forbids { None } else { elsewhere() });
    if let Some(route) = route {
        return Some(special_route(case, drop, input, route, to));
    }
    let kind = kind?;
    // Where nothing forbids it there is just no route.
    let plain = kind == RouteKind::Unreachable && answer.unicast().is_none() && !may_forbid(kind);
    Some(if plain || downed_uplink(case.scene, to).is_some() {
        no_route(case, drop, input, &answer, to)
    } else {
        forbidding_rule(case, drop, input, kind)
    })
}

/// Which kind of route it met, from where it died and what the sender was told: `ip_error` says "net unreachable" or
/// "administratively prohibited" or nothing, each for its own kind; IPv6 has a function for each.
fn kind_told(case: &Case<'_>, drop: &Dropped<'_>) -> Option<RouteKind> {
    let told = |test: fn(&crate::track::Quoted) -> bool| case.errors.iter().any(|error| test(&error.about));
    if !drop.within(Site::RouteKind) {
        return drop.because(&["IP_INNOROUTES", "IP6_INNOROUTES"]).then_some(RouteKind::Unreachable);
    }
    if drop.through(Site::RouteProhibit) || drop.is_unspecified() && told(crate::track::Quoted::is_prohibited) {
        Some(RouteKind::Prohibit)
    } else if drop.within(Site::RouteDiscard)
        || drop.within(Site::RouteError) && drop.is_unspecified() && !told(crate::track::Quoted::is_unreachable)
    {
        Some(RouteKind::Blackhole)
    } else {
        Some(RouteKind::Unreachable)
    }
}

/// The rule, by what it does.
pub fn forbidding_rule(case: &Case<'_>, drop: &Dropped<'_>, input: &Link, kind: RouteKind) -> Judgement {
    let to = case.key().destination;
    let (cause, does) = special_cause(kind);
    let place = at(case.scene, input.index, Point::Routing).of(drop);
    let source = drop.key().source.ip();
    let found = to.ip().and_then(|to| {
        let mut rules = case.scene.host.policy_rules.iter();
        let question = Question::of(source, to, &input.name);
        rules.find(|rule| rule.action.as_route() == Some(kind) && question.may_take(case.scene.host, rule))
    });
    let what = case.dropped_share();
    let family = if to.ip().is_some_and(|to| to.is_ipv6()) { " -6" } else { "" };
    // The sender is told of a prohibition no more often than its limit allows (`icmp_ratelimit`): silence is no blackhole.
    let told_nothing = kind == RouteKind::Blackhole && found.is_none();
    let prohibits = |rule: &&crate::event::PolicyRule| {
        let question = to.ip().map(|to| Question::of(source, to, &input.name));
        rule.action == RuleAction::Prohibit && question.is_some_and(|question| question.may_take(case.scene.host, rule))
    };
    if told_nothing && case.scene.host.policy_rules.iter().any(|rule| prohibits(&rule)) {
        return forbidding_rule(case, drop, input, RouteKind::Prohibit);
    }
    let Some(rule) = found else {
        let explanation =
            format!("{what} went to {to}; no route is of type {kind}, so a rule of policy routing {does}.");
        return Judgement::dropped(cause, place, explanation).fix(Fix::advice(format!(
            "Find the rule with `ip{family} rule show` (its action is {kind}) and delete it with `ip{family} rule del`, if nobody meant it."
        )));
    };
    let text = routes::rule_text(rule);
    let explanation = format!("{what} went to {to}; the rule of policy routing \"{text}\" {does}.");
    Judgement::dropped(cause, place, explanation).evidence([format!("ip{family} rule {text}")]).fix(delete_rule(rule))
}

fn forwarding_disabled(case: &Case<'_>, drop: &Dropped<'_>, input: &Link, to: IpAddr) -> Judgement {
    let host = case.scene.host;
    let name = if to.is_ipv6() {
        "net.ipv6.conf.all.forwarding".to_owned()
    } else if host.sysctl("net.ipv4.ip_forward") == Some("1") {
        format!("net.ipv4.conf.{}.forwarding", input.name)
    } else {
        "net.ipv4.ip_forward".to_owned()
    };
    let place = at(case.scene, input.index, Point::Routing).of(drop);
    let explanation = format!(
        "{} came in by {} and would have to be forwarded to {to}, but {name} is {}.",
        case.dropped_share(),
        input.name,
        host.sysctl(&name).unwrap_or("off")
    );
    // It would go out where it came in: a bridge serves that network, no routing.
    let way = lookup(case.scene, Question::of(case.key().source.ip(), to, &input.name));
    let back = way.unicast().filter(|route| route.device == Some(input.index));
    let bridged = host.uplinks(input.index).next().is_some();
    if let (Some(route), true) = (back, bridged) {
        let next = route.gateway.map_or_else(|| to.to_string(), |gateway| gateway.to_string());
        return Judgement::dropped(Cause::ForwardingDisabled, place, explanation).evidence([format!("{name} = {}", host.sysctl(&name).unwrap_or("unknown"))]).fix(Fix::advice(format!(
            "The guest takes this host for its router, on a network that {} bridges: let it send to {next} itself (its default gateway, or its route to {to}). This host need not route for that.",
            input.name
        )));
    }
    Judgement::dropped(Cause::ForwardingDisabled, place, explanation)
        .evidence([format!("{name} = {}", host.sysctl(&name).unwrap_or("unknown"))])
        .fix(
            sysctl::set(host, &name, "1", "Lets this host forward packets between its interfaces.")
                .risk("The host then routes between all its networks unless the firewall forbids it."),
        )
}

/// The device that it came in by.
fn input_device<'a>(case: &Case<'a>, drop: &Dropped<'_>) -> Option<&'a Link> {
    let link = |index| case.scene.link(index);
    drop.device().and_then(link).or_else(|| case.bridge()).or_else(|| case.device().and_then(link))
}

/// The host forwards what comes in by this device.
fn forwards(host: &HostState, device: &str, to: IpAddr) -> bool {
    let on = |name: &str| host.sysctl(name).is_none_or(|value| value != "0");
    if to.is_ipv6() {
        on("net.ipv6.conf.all.forwarding")
    } else {
        on("net.ipv4.ip_forward") && on(&format!("net.ipv4.conf.{device}.forwarding"))
    }
}

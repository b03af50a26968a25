//! `ttl-expired`: the TTL or hop limit ran out in `ip_forward` or `ip6_forward` (`IP_INHDR`, and ICMP 11/0).

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::Direction;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let told = case.errors.iter().any(|error| error.about.is_time_exceeded());
    let in_forward = drop.within(Site::Forward);
    if !(in_forward && (drop.because(&["IP_INHDR", "IPV6_HOP_LIMIT"]) || drop.is_unspecified() && told)) {
        return None;
    }
    let sent_with = case.entry().map(|(_, counters)| counters.time_to_live);
    let device = drop.device().or(case.device())?;
    let place = at(case.scene, device, Point::Routing).of(drop);
    let what = case.dropped_share();
    if sent_with.is_some_and(|ttl| ttl <= 1) {
        let explanation = format!("{what} came with a TTL that ends at this host; traceroute does that on purpose.");
        return Some(
            Judgement::dropped(Cause::TtlExpired, place, explanation)
                .verdict(Verdict::Refused)
                .severity(Severity::Info)
                .fix(Fix::advice("Nothing to mend if this is traceroute; else let the sender use a larger TTL.")),
        );
    }
    let route = case.routing().unicast();
    let evidence = route.map(|route| format!("this host's route: {}", routes::route_text(case.scene, route)));
    let by = sent_with.map(|ttl| format!(" (sent with TTL {ttl})")).unwrap_or_default();
    let explanation = format!(
        "{what} died of an expired TTL{by}: they go round in a routing loop between this host and its next hop."
    );
    let next =
        route.and_then(|route| route.gateway).map_or_else(|| "the next hop".to_owned(), |gateway| gateway.to_string());
    Some(Judgement::dropped(Cause::TtlExpired, place, explanation).evidence(evidence).fix(Fix::advice(format!(
        "Correct the route to {} on {next}, which sends these packets back to this host, or on this host if it should not send them there.",
        case.key().destination
    ))))
}

/// The packets pass an uplink many times, or a router beyond says that their time ran out.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let sent = case.entry().map(|(_, counters)| counters.packets)?;
    let told = case.errors.iter().find(|error| error.about.is_time_exceeded());
    let (place, most) = case
        .hops
        .iter()
        .filter(|(place, _)| place.direction == Direction::Egress)
        .max_by_key(|(_, counters)| counters.packets)?;
    let back = case.hops.iter().any(|(other, counters)| {
        other.device == place.device && other.direction == Direction::Ingress && counters.packets > sent
    });
    let goes_round = most.packets > sent.saturating_mul(3) && back;
    if !goes_round && told.is_none() {
        return None;
    }
    if !goes_round && case.entry().is_some_and(|(_, counters)| counters.time_to_live <= 8) {
        return None;
    }
    let name = case.scene.name(place.device);
    let next = case
        .routing()
        .unicast()
        .and_then(|route| route.gateway)
        .map_or_else(|| format!("the router behind {name}"), |gateway| gateway.to_string());
    let explanation = if goes_round {
        format!(
            "{} went out by {name} {} times and came back each time: a routing loop between this host and {next}, until their TTL runs out.",
            words::packets(sent),
            most.packets
        )
    } else {
        format!(
            "{} left by {name}, and {} says that their TTL ran out on the way: a routing loop beyond this host.",
            words::packets(sent),
            told.map_or_else(String::new, |error| error.about.from.to_string())
        )
    };
    Some(
        Judgement::dropped(Cause::TtlExpired, at(case.scene, place.device, Point::Routing), explanation)
            .verdict(Verdict::Lost)
            .fix(Fix::advice(format!(
                "Correct the route to {} on {next}, which sends these packets back to this host.",
                case.key().destination
            ))),
    )
}

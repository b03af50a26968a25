//! `ttl-expired`: the TTL or hop limit ran out in `ip_forward` or `ip6_forward` (`IP_INHDR`, and ICMP 11/0).

use crate::diagnose::case::Case;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let told = case.errors.iter().any(|error| error.about.is_time_exceeded());
    let in_forward = drop.within(&["ip_forward", "ip6_forward"]);
    if !(in_forward && (drop.because(&["IP_INHDR", "IPV6_HOP_LIMIT"]) || drop.is_unspecified() && told)) {
        return None;
    }
    let sent_with = case.entry().map(|(_, counters)| counters.time_to_live);
    let device = drop.device().or(case.device())?;
    let place = at(case.scene, device, Point::Routing).of(drop);
    let what = words::dropped(case);
    if sent_with.is_some_and(|ttl| ttl <= 1) {
        let explanation = format!("{what} came with a TTL that ends at this host; traceroute does that on purpose.");
        return Some(
            Judgement::dropped(Cause::TtlExpired, place, explanation)
                .verdict(Verdict::Refused)
                .severity(Severity::Info)
                .fix(Fix::advice("Nothing to mend if this is traceroute; else let the sender use a larger TTL.")),
        );
    }
    let route = case.key().destination.ip().and_then(|to| super::routing::route_to(case.scene.host, to));
    let evidence = route.map(|route| format!("this host's route: {}", super::routing::text(case.scene, route)));
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

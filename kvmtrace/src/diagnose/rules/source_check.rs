//! `reverse-path-filter` and `martian-source`: the host does not believe the packet's source address.
//!
//! `ip_rcv_finish_core` drops with `IP_RPFILTER`, `IP_LOCALNET`, `IP_LOCAL_SOURCE` or `IP_INVALID_SOURCE`. The filter also
//! makes the host ignore ARP requests, without any drop (`arp_process` → `ip_route_input_noref`).

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::{Answer, caveat, reverse_path_filter, route_text, way_back};
use crate::diagnose::facts::sites::Site;
use crate::diagnose::facts::standing::Standing;
use crate::diagnose::fix::sysctl;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict, Where};
use crate::diagnose::words;
use crate::event::host::Link;
use crate::event::{Direction, Protocol};
use std::net::IpAddr;

const MARTIAN: &[&str] = &["IP_LOCALNET", "IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "INVALID_SRC", "IP6_INVALID_SOURCE"];

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let from = drop.flow.key.source.ip()?;
    let input = case.scene.link(drop.device().or(case.device())?)?;
    let place = at(case.scene, input.index, Point::Routing).of(drop);
    let what = case.dropped_share();
    let odd_source = is_odd_source(case, from);
    let to = drop.flow.key.destination.ip()?;
    let martian =
        drop.because(&["IP_LOCALNET", "IP_INVALID_DEST"]) || drop.is_unspecified() && drop.within(Site::SourceCheck);
    if martian && !odd_source && (to.is_loopback() || drop.because(&["IP_INVALID_DEST"])) {
        return Some(martian_destination(case, input, to, place));
    }
    let in_receive = drop.within(Site::Ipv6Receive) && !drop.because(&["OTHERHOST", "CSUM", "PKT_TOO_SMALL"]);
    if drop.because(MARTIAN) || odd_source && (drop.is_unspecified() && drop.within(Site::SourceCheck) || in_receive) {
        let why = if case.scene.is_host_address(from) {
            format!("{from} is this host's own address")
        } else {
            format!("{from} can be no source on a network")
        };
        let explanation = format!("{what} bear a source address that the host refuses: {why}.");
        return Some(Judgement::dropped(Cause::MartianSource, place, explanation).fix(Fix::advice(format!(
            "Give the sender an address of its own instead of {from}; the cure lies where these packets are made."
        ))));
    }
    let strict = reverse_path_filter(case.scene.host, input) == 1;
    let back = way_back(case.scene, from, drop.key().destination.ip());
    if !(drop.because(&["IP_RPFILTER"])
        || drop.is_unspecified() && drop.within(Site::SourceCheck) && strict && elsewhere(&back, input))
    {
        return None;
    }
    let explanation = format!(
        "{what} from {from} came in by {}, but this host would answer {}; its reverse-path filter drops such packets.",
        input.name,
        back.unicast().map_or_else(
            || "nowhere (it has no route back)".to_owned(),
            |route| format!("by another way ({})", route_text(case.scene, route))
        )
    );
    Some(
        Judgement::dropped(Cause::ReversePathFilter, place, explanation)
            .evidence(state(case, input))
            .evidence(caveat(&back))
            .fixes(fixes(case, input, from)),
    )
}

/// An ARP request for the host's own address that stays unanswered because of the filter.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let key = case.key();
    if !matches!(key.protocol, Protocol::Arp { operation: 1 })
        || !case.is_from_guest() && case.way() == Way::Unknown
        || case.answered() > 0
    {
        return None;
    }
    let (asked, from) = (key.destination.ip()?, key.source.ip()?);
    let owner = case.scene.device_of_address(asked)?;
    let input = case.bridge().unwrap_or(owner);
    if reverse_path_filter(case.scene.host, input) != 1 || !elsewhere(&way_back(case.scene, from, Some(asked)), input) {
        return None;
    }
    let explanation = format!(
        "{} asked for {asked}, which is this host's, and got no answer: the reverse-path filter of {} ignores ARP from {from}, to which this host would answer by another way.",
        words::packets(case.packets()),
        input.name
    );
    let place = at(case.scene, input.index, Point::Neighbour);
    Some(
        Judgement::dropped(Cause::ReversePathFilter, place, explanation)
            .verdict(Verdict::Unanswered)
            .evidence(state(case, input))
            .fixes(fixes(case, input, from)),
    )
}

/// What came in by a device is for a loopback address (`ip_route_input_slow`: `martian_destination`), mostly because it was
/// translated to that.
fn martian_destination(case: &Case<'_>, input: &Link, to: IpAddr, place: Where) -> Judgement {
    let what = case.dropped_share();
    if !to.is_loopback() || to.is_ipv6() {
        let explanation = format!("{what} went to {to}, which is no destination for what comes in by {}.", input.name);
        return Judgement::dropped(Cause::MartianDestination, place, explanation)
            .fix(Fix::advice(format!("Find out what sends to {to}, or translates to it, and correct the address.")));
    }
    // It came in for that address already: no rule of this host makes it so, and the guest's wish opens nothing.
    let came = |flow: &crate::track::Flow| {
        flow.key.destination.ip() == Some(to) && flow.places.keys().any(|place| place.direction == Direction::Ingress)
    };
    if case.group.flows().any(came) {
        let explanation = format!(
            "{what} came in by {} for {to}, a loopback address, which no machine reaches from outside: their sender means itself.",
            input.name
        );
        return Judgement::dropped(Cause::MartianDestination, place, explanation)
            .severity(Severity::Warning)
            .fix(Fix::advice(format!("Correct the address where these packets are made: {to} is the sender's own.")));
    }
    let name = format!("net.ipv4.conf.{}.route_localnet", input.name);
    let explanation = format!(
        "{what} came in by {} for {to}, a loopback address: this host takes those from itself only, unless route_localnet is on.",
        input.name
    );
    Judgement::dropped(Cause::MartianDestination, place, explanation)
        .evidence(case.scene.host.sysctl(&name).map(|value| format!("{name} = {value}")))
        .fix(
            sysctl::set(
                case.scene.host,
                &name,
                "1",
                format!("Lets what comes in by {} reach loopback addresses; here a rule translates to {to}.", input.name),
            )
            .risk(format!(
                "Whoever is behind {} may reach every service that listens on 127.0.0.0/8 by routing to it: keep those out by a rule (in prerouting: ip daddr 127.0.0.0/8 drop, before the translation).",
                input.name
            )),
        )
        .fix(Fix::advice(format!(
            "Or translate to an address of {}, and let the service listen there.",
            input.name
        )))
}

fn is_odd_source(case: &Case<'_>, from: IpAddr) -> bool {
    from.is_loopback()
        || from.is_multicast()
        || case.scene.is_host_address(from)
        || matches!(from, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0)
}

/// The answer would leave by another device, or by none.
fn elsewhere(back: &Answer<'_>, input: &Link) -> bool {
    back.leg(input.index).is_none()
}

fn state(case: &Case<'_>, input: &Link) -> Vec<String> {
    let name = |device: &str| format!("net.ipv4.conf.{device}.rp_filter");
    [name("all"), name(&input.name)]
        .into_iter()
        .map(|name| format!("{name} = {}", case.scene.host.sysctl(&name).unwrap_or("unknown")))
        .collect()
}

fn fixes(case: &Case<'_>, input: &Link, from: IpAddr) -> Vec<Fix> {
    // As the routes stand now it would pass: a looser filter is no answer to what has changed since.
    if !elsewhere(&way_back(case.scene, from, case.key().destination.ip()), input) {
        return vec![Fix::advice(format!(
            "By the routes as they are now, this host answers {from} by {}, and the filter lets it in: see whether they changed meanwhile (ip monitor route).",
            input.name
        ))];
    }
    // The filter does what it is for; a source that a guest claims opens nothing.
    if case.is_from_guest()
        && case.device().is_some_and(|device| case.scene.standing(device, from) == Standing::Claimed)
    {
        return vec![Fix::advice(format!(
            "If {from} is meant to be behind {}: set a route to it there, or a looser filter (net.ipv4.conf.{}.rp_filter=2, which lets any source pass that this host has a route to). Else give the guest an address of its network.",
            input.name, input.name
        ))];
    }
    let name = format!("net.ipv4.conf.{}.rp_filter", input.name);
    let loose = sysctl::set(
        case.scene.host,
        &name,
        "2",
        format!("Loose mode: {} then accepts sources that this host has any route to.", input.name),
    )
    .risk("Spoofed sources that are routable are no longer filtered on this device.");
    // Loose mode wants a route too, whichever way it leads (`__fib_validate_source`).
    if from.is_ipv4() && way_back(case.scene, from, None).unicast().is_none() {
        return vec![Fix::advice(format!(
            "This host knows no way to {from} at all. If it is behind {}: set a route to it where the device is configured (netplan, NetworkManager, ifupdown, systemd-networkd); whoever sends from {from} there is believed then.",
            input.name
        ))];
    }
    let route = Fix::advice(format!("Or make the routing symmetric: let the route to {from} lead by {}.", input.name));
    vec![loose, route]
}

//! `no-route` though a route was taken: the receiver is behind a device of this host's own, and the tables that are asked for
//! these packets have no route to it, so a wider one (mostly a default route) leads them out by another device.
//!
//! The classic is a rule of policy routing, `from GUESTS lookup T`, with nothing but a default route in T: it also takes what
//! this host and the guests send to guests.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::{MAIN, caveat, own_network, route_text, rule_text};
use crate::diagnose::faults::route::{guest_route, route_into};
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::host::{Link, Network};
use crate::event::{Address, Direction, IfIndex};
use std::net::IpAddr;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if case.is_multicast() || case.is_neighbour_traffic() || case.expects_answer() && case.answered() > 0 {
        return None;
    }
    let (scene, to) = (case.scene, case.routed()?.to);
    let answer = case.routing();
    let route = answer.unicast()?;
    let out = scene.link(route.device?)?;
    if scene.is_host_address(to) || !left_by(case, out.index) {
        return None;
    }
    let (home, fixes) = match home_network(case, to, out) {
        // In the main table a longer route has been set on purpose, or two networks overlap.
        Some((home, network)) if route.table != MAIN || scene.topology().vrf_of(home).is_some() => {
            (home, vec![route_into(home, network, route.table)])
        }
        Some(_) => return None,
        None => guest_home(case, to, out)?,
    };
    let table = if route.table == MAIN { String::new() } else { format!(" of table {}", route.table) };
    let rule = answer.rule.filter(|_| route.table != MAIN).map(rule_text);
    let by_rule = rule.as_ref().map(|rule| format!(", which the rule \"{rule}\" asks for them,")).unwrap_or_default();
    let explanation = format!(
        "{} went to {to}, which is behind {}; the route \"{}\"{table}{by_rule} led them out by {} instead: no route there leads to {to} itself.",
        words::packets(case.packets()),
        home.name,
        route_text(scene, route),
        out.name
    );
    let family = if to.is_ipv6() { " -6" } else { "" };
    let evidence = rule.map(|rule| format!("ip{family} rule {rule}")).into_iter().chain(caveat(&answer));
    Some(
        Judgement::dropped(Cause::NoRoute, at(scene, out.index, Point::Routing), explanation)
            .verdict(Verdict::Lost)
            .severity(Severity::Error)
            .evidence(evidence)
            .fixes(fixes),
    )
}

/// It was seen to leave by the device, or by a port of it.
fn left_by(case: &Case<'_>, out: IfIndex) -> bool {
    case.hops.iter().any(|(place, _)| {
        let port = || case.scene.link(place.device).is_some_and(|link| link.master == Some(out));
        place.direction == Direction::Egress && (place.device == out || port())
    })
}

/// The device with guests in whose own network the receiver is.
fn home_network<'a>(case: &Case<'a>, to: IpAddr, out: &Link) -> Option<(&'a Link, Network)> {
    let scene = case.scene;
    let serves = |link: &&Link| {
        let guests = scene.host.ports(link.index).any(|port| scene.interface(port.index).is_some());
        link.index != out.index && link.up && (guests || scene.interface(link.index).is_some())
    };
    let mut homes = scene.host.links.values().filter(serves);
    let found = homes.find_map(|link| Some((link, own_network(link, to)?)))?;
    // On the same network by two devices, either may be the right one.
    own_network(out, to).is_none().then_some(found)
}

/// The receiver is a guest that this host has resolved, in none of its networks, and nothing leads to it any more.
fn guest_home<'a>(case: &Case<'a>, to: IpAddr, out: &Link) -> Option<(&'a Link, Vec<Fix>)> {
    let scene = case.scene;
    let device = scene.guest_by_address(Address::Ip(to))?;
    let home = scene.bridge_of(device).or_else(|| scene.link(device))?;
    // What leads there by a router is behind that router: a guest that forwards, or one that has moved away.
    let meant = case.routing().unicast().is_some_and(|route| route.destination.prefix > 0);
    let near = home.index == out.index || Some(home.index) == out.master || meant;
    (!near && scene.is_resolved(device, to)).then(|| guest_route(scene, to)).flatten().map(|fixes| (home, fixes))
}

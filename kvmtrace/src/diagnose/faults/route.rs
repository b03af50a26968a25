//! This host has no way to an address: no route, or one that leads nowhere on purpose.

use super::port;
use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::{Answer, MAIN, Question, caveat, lookup, route_text, special_cause};
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::facts::standing::Standing;
use crate::diagnose::fix::device;
use crate::diagnose::fix::device::no_carrier_advice;
use crate::diagnose::fix::route::delete_route;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};
use crate::diagnose::shell::quote;
use crate::event::host::{Link, Network, Route};
use crate::event::is_self_assigned;
use crate::event::names::{NeighbourState, RouteKind};
use crate::forward::effect::Effect;
use crate::topology::is_served;
use crate::topology::routing::vrf_table;
use std::net::IpAddr;

/// A route that leads nowhere on purpose.
pub(in crate::diagnose) fn special_route(
    case: &Case<'_>,
    drop: &Dropped<'_>,
    input: &Link,
    route: &Route,
    to: IpAddr,
) -> Judgement {
    let (cause, does) = special_cause(route.kind);
    let text = route_text(case.scene, route);
    let fix = delete_route(route, format!("Removes the route \"{text}\"; a wider route has to lead to {to} then."));
    let explanation = format!("{} went to {to}, for which the route \"{text}\" {does}.", case.dropped_share());
    let place = at(case.scene, input.index, Point::Routing).of(drop);
    Judgement::dropped(cause, place, explanation).evidence([format!("route: {text}")]).fix(fix)
}

/// This host itself has no way to `to`, to which a tunnel sends.
pub fn no_way(case: &Case<'_>, drop: &Dropped<'_>, from: &Link, to: IpAddr) -> Judgement {
    let answer = lookup(case.scene, Question::own(to));
    match answer.route.filter(|route| route.kind != RouteKind::Unicast) {
        Some(route) => special_route(case, drop, from, route, to),
        None => no_route(case, drop, from, &answer, to),
    }
}

pub(in crate::diagnose) fn no_route(
    case: &Case<'_>,
    drop: &Dropped<'_>,
    input: &Link,
    answer: &Answer<'_>,
    to: IpAddr,
) -> Judgement {
    let scene = case.scene;
    // IPv6 takes a network's route away while its bridge has no carrier.
    let serves = |link: &&Link| case.bridge().is_some_and(|bridge| bridge.index == link.index) && !case.is_from_guest();
    if let Some(bridge) = scene.host.links.values().find(serves).filter(|bridge| !bridge.up || !bridge.carrier) {
        return port::dead_link(case, bridge, at(scene, bridge.index, Point::NicEgress).of(drop));
    }
    if let Some(down) = downed_uplink(scene, to) {
        let explanation = format!(
            "{} found no route to {to}: {} is {}, and its routes are gone with it.",
            case.dropped_share(),
            down.name,
            if down.up { "without carrier" } else { "administratively down" }
        );
        let place = at(scene, down.index, Point::NicEgress).of(drop);
        let judgement = |cause| Judgement::dropped(cause, place, explanation);
        return if down.up {
            judgement(Cause::NoCarrier).fix(no_carrier_advice(down))
        } else {
            judgement(Cause::LinkDown).fix(device::up(scene.host, scene.track.first_host(), down))
        };
    }
    let place = at(scene, input.index, Point::Routing).of(drop);
    let what = case.dropped_share();
    let main = answer.tables.contains(&MAIN);
    let judgement = |explanation| Judgement::dropped(Cause::NoRoute, place, explanation).evidence(caveat(answer));
    if main {
        let explanation = format!("{what} went to {to}, for which this host has no route.");
        return judgement(explanation).fixes(route_fixes(scene, to));
    }
    let asked: Vec<String> = answer.tables.iter().map(u32::to_string).collect();
    let explanation = if asked.is_empty() {
        format!("{what} went to {to}, and no rule of policy routing leads packets like these to a table.")
    } else {
        format!(
            "{what} went to {to}; the rules of policy routing ask only table {} for packets like these, which has no route there.",
            asked.join(", ")
        )
    };
    let source = drop.key().source.ip().map(|from| format!("from {from} ")).unwrap_or_default();
    let family = if to.is_ipv6() { " -6" } else { "" };
    let command = |verb: &str| format!("ip{family} rule {verb} {source}to {to} lookup main");
    let known = lookup(scene, Question::own(to)).unicast().is_some();
    let lead = Fix::run(command("add"), command("del"), "Lets the main table decide, which has a route there.")
        .risk("Whoever keeps these packets from the main table may have meant it.")
        .persist("Set the rule where the other rules of policy routing are set.");
    let advice = Fix::advice(format!(
        "Add a route to {to} to a table that is asked, or a rule that leads these packets to a table with one (`ip{family} rule show`)."
    ));
    judgement(explanation).fixes(known.then_some(lead)).fix(advice)
}

/// No machine can have the address, so no router takes what is sent there (RFC 6890: this network, reserved, loopback).
fn is_nowhere(to: IpAddr) -> bool {
    match to {
        IpAddr::V4(address) => matches!(address.octets()[0], 0 | 127 | 240..),
        IpAddr::V6(address) => address.is_unspecified() || address.is_loopback(),
    }
}

/// Routes that would lead there.
fn route_fixes(scene: &Scene<'_>, to: IpAddr) -> Vec<Fix> {
    let host = scene.host;
    if is_nowhere(to) {
        return vec![Fix::advice(format!(
            "Correct the address where these packets are made: no route can lead to {to}."
        ))];
    }
    let prefix = if to.is_ipv6() { 128 } else { 32 };
    let family = if to.is_ipv6() { " -6" } else { "" };
    let leads_there = |route: &Route| route.destination.contains(to) && route.kind == RouteKind::Unicast;
    let lost = device::lost_routes(host, scene.track.first_host(), leads_there);
    let mut fixes: Vec<Fix> = lost
        .max_by_key(|route| route.destination.prefix)
        .and_then(|route| {
            let name = scene.name(route.device?);
            let why = "Sets the route again that was there when the trace began.";
            let fix =
                Fix::run(device::route_command("add", route, &name), device::route_command("del", route, &name), why)
                    .effect(Effect::RouteAdd(route.clone()));
            Some(
                fix.risk("Whoever removed it may have had a reason: a failover, a routing daemon.").persist(
                    "It lasts if it is still configured (netplan, NetworkManager, ifupdown, systemd-networkd, a routing daemon): look there.",
                ),
            )
        })
        .into_iter()
        .collect();
    if fixes.is_empty()
        && let Some(to_guest) = guest_route(scene, to)
    {
        return to_guest;
    }
    let uplinks = || host.links.values().filter(|link| is_upstream(scene, link));
    let on_link = uplinks().find(|link| link.addresses.iter().any(|network| network.contains(to)));
    if let (Some(link), true) = (on_link, fixes.is_empty()) {
        let command = |verb: &str| format!("ip{family} route {verb} {to}/{prefix} dev {}", quote(&link.name));
        let fix = Fix::run(
            command("add"),
            command("del"),
            format!("{to} is in a network of {}: it can be reached there directly.", link.name),
        );
        fixes.push(fix.effect(host_route(to, None, link)));
    }
    let neighbours: Vec<(&IpAddr, &Link)> = host
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.mac.is_some() && neighbour.address.is_ipv4() == to.is_ipv4())
        .filter(|neighbour| !is_self_assigned(neighbour.address) && neighbour.state != NeighbourState::Failed)
        .filter_map(|neighbour| Some((&neighbour.address, uplinks().find(|link| link.index == neighbour.device)?)))
        .collect();
    if let ([(gateway, link)], true) = (neighbours.as_slice(), fixes.is_empty()) {
        let vrf = scene.topology().vrf_of(link).and_then(|vrf| vrf_table(host, vrf.index));
        let table = vrf.map(|table| format!(" table {table}")).unwrap_or_default();
        let command = |verb: &str| {
            format!("ip{family} route {verb} {to}/{prefix} via {gateway} dev {}{table}", quote(&link.name))
        };
        fixes.push(
            Fix::run(
                command("add"),
                command("del"),
                format!("{gateway} is the only neighbour seen on {}: the likely next hop.", link.name),
            )
            .risk("A guess from the neighbour table: check that this is the router.")
            .effect(in_table(host_route(to, Some(**gateway), link), vrf)),
        );
    }
    fixes.push(Fix::advice(format!("Add a route to {to}, or a default route, by the right next hop; and set it in the network configuration so that it lasts.")));
    fixes
}

/// A route to one address.
fn host_route(to: IpAddr, gateway: Option<IpAddr>, link: &Link) -> Effect {
    let prefix = if to.is_ipv6() { 128 } else { 32 };
    Effect::RouteAdd(Route {
        destination: Network { address: to, prefix },
        gateway,
        device: Some(link.index),
        source: None,
        table: MAIN,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    })
}

/// The same route in the table of a VRF.
fn in_table(effect: Effect, table: Option<u32>) -> Effect {
    match (effect, table) {
        (Effect::RouteAdd(route), Some(table)) => Effect::RouteAdd(Route { table, ..route }),
        (effect, _) => effect,
    }
}

/// The address is a guest's, in none of this host's networks: it is to be found behind the guest's device.
pub(in crate::diagnose) fn guest_route(scene: &Scene<'_>, to: IpAddr) -> Option<Vec<Fix>> {
    let device = scene.guest_by_address(crate::event::Address::Ip(to))?;
    let guest = scene.guest_name(device)?;
    let link = scene.bridge_of(device).or_else(|| scene.link(device))?;
    let of_family =
        |network: &&Network| network.address.is_ipv6() == to.is_ipv6() && !is_self_assigned(network.address);
    let network = link.addresses.iter().find(of_family).map(|network| network.whole());
    // A tap of its own, without a bridge and a network: each of its guest's addresses is routed.
    if network.is_none() && (link.index != device || !is_served(scene.host, link)) {
        return None;
    }
    let other = network.map(|network| format!("give {guest} an address of the network of {} ({network})", link.name));
    let (family, prefix) = if to.is_ipv6() { (" -6", 128) } else { ("", 32) };
    let command = |verb: &str| format!("ip{family} route {verb} {to}/{prefix} dev {}", quote(&link.name));
    if scene.standing(device, to) < Standing::Resolved {
        return Some(vec![Fix::advice(format!(
            "{guest} says that it has {to}, which is in no network of this host's. If it is meant to: set a route to it by {}{}.",
            link.name,
            other.map(|other| format!("; else {other}")).unwrap_or_default()
        ))]);
    }
    let why =
        format!("{guest} has the address {to}, which is in no network of this host's: it is behind {}.", link.name);
    let route = Fix::run(command("add"), command("del"), why)
        .persist("Set the route in the network configuration that sets the device up, or let its manager set it (Calico, a CNI plugin).")
        .effect(host_route(to, None, link));
    Some(std::iter::once(route).chain(other.map(|other| Fix::advice(format!("Or {other}.")))).collect())
}

/// A device's own network in a table of policy routing, as the main table has it.
pub(in crate::diagnose) fn route_into(link: &Link, network: Network, table: u32) -> Fix {
    let route = Route {
        destination: network,
        gateway: None,
        device: Some(link.index),
        source: None,
        table,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    };
    let command = |verb: &str| device::route_command(verb, &route, &link.name);
    let why = if table == MAIN {
        format!("Lets the main table know the network of {}, which the table of its VRF alone knows.", link.name)
    } else {
        format!("Lets table {table} know the network of {}, as the main table does.", link.name)
    };
    Fix::run(command("add"), command("del"), why)
        .persist("Set the route where the table's other routes are set.")
        .effect(Effect::RouteAdd(route.clone()))
}

/// A device towards the world: no guest's, no bridge with guests, not the loopback.
fn is_upstream(scene: &Scene<'_>, link: &Link) -> bool {
    let guests = scene.host.ports(link.index).any(|port| scene.interface(port.index).is_some());
    let apart = link.master.is_none() || scene.topology().vrf_of(link).is_some();
    scene.interface(link.index).is_none() && !guests && link.name != "lo" && apart
}

/// An uplink that is down and whose networks or former routes led there.
pub(in crate::diagnose) fn downed_uplink<'a>(scene: &Scene<'a>, to: IpAddr) -> Option<&'a Link> {
    let served = |link: &Link| {
        let former = scene.track.first_host().routes.iter();
        // IPv6 addresses go when a device goes down, IPv4 ones stay: any tells that it was to serve.
        let has = |v6: bool| link.addresses.iter().any(|network| network.address.is_ipv6() == v6);
        has(to.is_ipv6())
            || to.is_ipv6() && !link.up && has(false)
            || former.clone().any(|route| route.device == Some(link.index) && route.destination.contains(to))
    };
    let mut candidates = scene
        .host
        .links
        .values()
        .filter(|link| is_upstream(scene, link) && matches!(scene.role(link.index), Role::Nic | Role::Bridge));
    candidates.find(|link| (!link.up || !link.carrier) && served(link))
}

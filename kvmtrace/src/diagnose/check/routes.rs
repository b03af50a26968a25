//! Routing that can't lead to the guests of a bridge, or forbids what they send.

use super::about::About;
use crate::diagnose::facts::routes;
use crate::diagnose::facts::routes::{MAIN, Question, hidden_by, lookup, route_to, rule_text, special_cause};
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::route::renumber;
use crate::diagnose::fix::{route, sysctl};
use crate::diagnose::report::{Cause, Finding, Point, Severity};
use crate::event::host::{Link, Network, Route};
use crate::event::is_link_local;
use crate::event::names::RouteKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Of a bridge with an address and no uplink.
pub(super) fn findings(scene: &Scene<'_>, bridge: &Link) -> Vec<Finding> {
    let networks = || bridge.addresses.iter().filter(|network| !is_link_local(network.address));
    let twice = networks().find_map(|network| twice(scene, bridge, *network));
    let hidden = || networks().find_map(|network| hidden(scene, bridge, *network));
    let forbidden = networks().find_map(|network| forbidden(scene, bridge, *network));
    twice.or_else(hidden).into_iter().chain(forbidden).chain(unadvertised(scene, bridge)).collect()
}

/// The network lies on another device too: of two such routes one counts. A host of virtual machines that is one itself gets
/// this by libvirt's default network on both levels.
fn twice(scene: &Scene<'_>, bridge: &Link, network: Network) -> Option<Finding> {
    let whole = network.whole();
    let same = |route: &&Route| {
        let is_main = route.table == MAIN && route.kind == RouteKind::Unicast && route.gateway.is_none();
        is_main && route.destination == whole && route.device != Some(bridge.index)
    };
    let devices = scene.host.routes.iter().filter(same).filter_map(|route| scene.link(route.device?));
    let mut devices =
        devices.filter(|link| link.up && link.lower != Some(bridge.index) && link.master != Some(bridge.index));
    let other = devices.next()?;
    let taken = route_to(scene, whole.address).and_then(|route| scene.link(route.device?)).unwrap_or(bridge);
    let missed = if taken.index == bridge.index { other } else { bridge };
    // Routes to each host of it lead there all the same.
    let by_host = |route: &Route| {
        route.device == Some(missed.index)
            && route.destination.prefix > whole.prefix
            && whole.contains(route.destination.address)
    };
    if scene.host.routes.iter().any(by_host) {
        return None;
    }
    let about = About {
        scene,
        cause: Cause::AddressOverlap,
        severity: Severity::Warning,
        guest: None,
        device: taken.index,
        point: Point::Neighbour,
    };
    Some(about.say(
        format!(
            "{} and {} are both in {whole}: this host looks for all of it on {}, and nothing on {} answers there.",
            bridge.name, other.name, taken.name, missed.name
        ),
        format!("routes to {whole}: by {}, by {}", taken.name, missed.name),
        vec![renumber(&bridge.name)],
    ))
}

/// Guests of the bridge have addresses that another device's longer network has too.
fn hidden(scene: &Scene<'_>, bridge: &Link, network: Network) -> Option<Finding> {
    let ports = scene.host.ports(bridge.index);
    let addresses = ports.flat_map(|port| scene.addresses_of(port.index)).filter(|address| network.contains(**address));
    let mut missed = addresses.filter_map(|address| Some((address, hidden_by(scene, bridge, *address)?)));
    let (address, (longer, other)) = missed.next()?;
    let about = About {
        scene,
        cause: Cause::AddressOverlap,
        severity: Severity::Warning,
        guest: None,
        device: other.index,
        point: Point::Neighbour,
    };
    let own = network.whole();
    Some(about.say(
        format!(
            "{address} is a guest's on {} ({own}), and {} has {longer}: this host looks for it on {1}.",
            bridge.name, other.name
        ),
        format!("routes: {own} by {}, {longer} by {}", bridge.name, other.name),
        vec![renumber(&bridge.name)],
    ))
}

/// All that these guests send beyond this host ends in a rule of policy routing, or in the table that one leads to. What
/// the table `main` says is for the host too, which would be missed before.
fn forbidden(scene: &Scene<'_>, bridge: &Link, network: Network) -> Option<Finding> {
    let (forwards, to) = if network.address.is_ipv6() {
        ("net.ipv6.conf.all.forwarding", IpAddr::from(Ipv6Addr::UNSPECIFIED))
    } else {
        ("net.ipv4.ip_forward", Ipv4Addr::UNSPECIFIED.into())
    };
    let answer = lookup(scene, Question::of(Some(network.address), to, &bridge.name));
    let rule = answer.rule.filter(|_| answer.doubt.is_none() && scene.host.sysctl(forwards) == Some("1"))?;
    let whole = rule.source.is_none_or(|source| source.prefix <= network.prefix) && rule.destination.is_none();
    let (kind, what, fix) = match answer.route {
        Some(route) if route.kind.forbids() && route.table != MAIN => {
            let text = routes::route_text(scene, route);
            let why = format!("Removes the route \"{text}\"; another has to lead out then.");
            (route.kind, format!("route \"{text}\""), route::delete_route(route, why))
        }
        None => {
            let what = format!("rule of policy routing \"{}\"", rule_text(rule));
            (rule.action.as_route()?, what, route::delete_rule(rule))
        }
        Some(_) => return None,
    };
    let (cause, does) = special_cause(kind);
    let (severity, point) = (Severity::Warning, Point::Routing);
    let told = || {
        About { scene, cause, severity, guest: None, device: bridge.index, point }.say(
            format!("What the guests of {} send beyond this host goes nowhere: the {what} {does}.", bridge.name),
            what,
            vec![fix],
        )
    };
    whole.then(told)
}

/// A host that forwards takes no router advertisements, unless `accept_ra` is 2 (`ipv6_accept_ra`): the default route that it had
/// by them is gone some time after forwarding was switched on.
fn unadvertised(scene: &Scene<'_>, bridge: &Link) -> Option<Finding> {
    let host = scene.host;
    let is_global = |link: &Link| {
        let of_world =
            |network: &Network| matches!(network.address, IpAddr::V6(ip) if ip.segments()[0] & 0xe000 == 0x2000);
        link.addresses.iter().any(of_world)
    };
    let leads_out = |route: &Route| {
        route.destination.prefix == 0 && route.destination.address.is_ipv6() && route.kind == RouteKind::Unicast
    };
    if !is_global(bridge)
        || host.sysctl("net.ipv6.conf.all.forwarding") != Some("1")
        || host.routes.iter().any(leads_out)
    {
        return None;
    }
    let takes_none = |link: &&Link| {
        let sysctl = |what: &str| host.sysctl(&format!("net.ipv6.conf.{}.{what}", link.name));
        sysctl("accept_ra") == Some("1") && sysctl("forwarding") == Some("1")
    };
    let mut links = host.links.values().filter(|link| link.index != bridge.index && link.up && is_global(link));
    let uplink = links.find(takes_none)?;
    let name = format!("net.ipv6.conf.{}.accept_ra", uplink.name);
    let why = format!("Takes router advertisements on {} although this host forwards.", uplink.name);
    let (cause, severity, point) = (Cause::NoRoute, Severity::Warning, Point::Routing);
    Some(About { scene, cause, severity, guest: None, device: uplink.index, point }.say(
        format!(
            "The guests of {} reach nothing beyond this host by IPv6: it has no default route, and as a host that forwards it takes no router advertisement on {} that would bring one.",
            bridge.name, uplink.name
        ),
        format!("{name} = 1, forwarding = 1; no IPv6 default route"),
        vec![sysctl::set(host, &name, "2", why)],
    ))
}

//! A bridge with an address and no uplink: the host routes for its guests, so it must forward, and what leaves must be
//! findable again.

use super::about::About;
use super::{firewall, routes};
use crate::diagnose::facts::nat::{is_private, masquerades, masquerades_on_nothing};
use crate::diagnose::facts::offload;
use crate::diagnose::facts::routes::{MAIN, reverse_path_filter, route_to};
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::masquerade::masquerade;
use crate::diagnose::fix::{device, sysctl};
use crate::diagnose::report::{Cause, Finding, Fix, Point, Severity};
use crate::event::IfIndex;
use crate::event::host::{Link, LinkKind, Network, Route};
use crate::event::is_link_local;
use crate::event::names::RouteKind;
use std::collections::BTreeSet;
use std::net::IpAddr;

const FORWARDING: [(&str, bool, &str); 2] = [
    ("net.ipv4.ip_forward", false, "Lets the host forward IPv4 between its devices."),
    ("net.ipv6.conf.all.forwarding", true, "Lets the host forward IPv6 between its devices."),
];

/// What keeps the guests of such a bridge from the world.
pub(super) fn findings(scene: &Scene<'_>, bridge: &Link) -> Vec<Finding> {
    if let Some(unplugged) = unplugged(scene, bridge) {
        return vec![unplugged];
    }
    let off = FORWARDING.iter().filter_map(|(name, v6, why)| forwarding(scene, bridge, name, *v6, why));
    let off: Vec<Finding> = off.chain(one_device(scene, bridge)).collect();
    if !off.is_empty() {
        return off;
    }
    let mut found = source_check(scene, bridge);
    found.extend(merged(scene, bridge));
    found.extend(firewall::routed(scene, bridge));
    found.extend(routes::findings(scene, bridge));
    found.extend([false, true].into_iter().filter_map(|v6| untranslated(scene, bridge, v6)));
    found
}

/// IPv4 is forwarded if the device that it came in by says so (`IN_DEV_FORWARD` in `ip_route_input_slow`): the bridge for
/// what the guests send, the way out for the answers. IPv6 has but one switch (`ip6_forward`).
fn one_device(scene: &Scene<'_>, bridge: &Link) -> Vec<Finding> {
    let host = scene.host;
    let addressed = bridge.addresses.iter().any(|network| network.address.is_ipv4());
    if !addressed || host.sysctl("net.ipv4.ip_forward") != Some("1") {
        return Vec::new();
    }
    let out = default_route(scene, bridge, false).and_then(|route| scene.link(route.device?));
    let off = [Some(bridge), out].into_iter().flatten().filter_map(|link| {
        let name = format!("net.ipv4.conf.{}.forwarding", link.name);
        (host.sysctl(&name) == Some("0")).then(|| {
            about(scene, Cause::ForwardingDisabled, Severity::Warning, link, Point::Routing).say(
                format!("This host forwards IPv4, but not what comes in by {}.", link.name),
                format!("net.ipv4.ip_forward = 1; {name} = 0"),
                vec![sysctl::set(host, &name, "1", format!("Lets the host forward what comes in by {}.", link.name))],
            )
        })
    });
    off.collect()
}

/// A strict reverse-path filter on the bridge (`fib_validate_source`), and guests to whom the answers would go by another
/// device.
fn source_check(scene: &Scene<'_>, bridge: &Link) -> Vec<Finding> {
    let host = scene.host;
    if reverse_path_filter(host, bridge) != 1 {
        return Vec::new();
    }
    let ports: Vec<IfIndex> = host.ports(bridge.index).map(|link| link.index).collect();
    let interfaces =
        host.guests.iter().flat_map(|guest| guest.interfaces.iter().map(move |interface| (guest, interface)));
    let mut found = Vec::new();
    for (guest, interface) in interfaces.filter(|(_, interface)| ports.contains(&interface.device)) {
        for address in interface.addresses.iter().filter(|address| address.is_ipv4()) {
            let Some(other) = route_to(scene, *address).and_then(|route| scene.link(route.device?)) else { continue };
            if other.index == bridge.index {
                continue;
            }
            let name = format!("net.ipv4.conf.{}.rp_filter", bridge.name);
            let mut about = about(scene, Cause::ReversePathFilter, Severity::Warning, bridge, Point::Routing);
            about.guest = Some(&guest.name);
            found.push(about.say(
                format!(
                    "What {} sends from {address} comes in by {}, but this host would answer by {}: the strict reverse-path filter drops it.",
                    guest.name, bridge.name, other.name
                ),
                format!("rp_filter of {} is strict (1); the route to {address} leads by {}", bridge.name, other.name),
                vec![
                    sysctl::set(host, &name, "2", format!("Loose mode: {} then accepts sources that this host has any route to.", bridge.name)),
                    Fix::advice(format!("Or let the route to {address} lead by {}.", bridge.name)),
                ],
            ));
        }
    }
    found
}

/// What the NIC on the way out merges as it receives, this host can't forward (see the rule).
fn merged(scene: &Scene<'_>, bridge: &Link) -> Vec<Finding> {
    let ways = [false, true].into_iter().filter_map(|v6| default_route(scene, bridge, v6)?.device);
    let ways: BTreeSet<IfIndex> = ways.collect();
    let nics = ways.into_iter().flat_map(|way| offload::merging(scene.host, way));
    let told = nics.map(|nic| {
        about(scene, Cause::RouteMtuExceeded, Severity::Warning, nic, Point::NicIngress).say(
            format!(
                "{} merges the TCP segments that it receives for the guests of {} (large receive offload): what is merged so can't be cut again, and this host drops it instead of forwarding it.",
                nic.name, bridge.name
            ),
            offload::large_receive_evidence(nic),
            vec![device::large_receive_off(nic)],
        )
    });
    told.collect()
}

/// The bridge has lost its uplink: the host's own way out leads by it, or the host does not route and a NIC lies idle.
fn unplugged(scene: &Scene<'_>, bridge: &Link) -> Option<Finding> {
    let host = scene.host;
    let own_way = host.routes.iter().any(|route| route.destination.prefix == 0 && route.device == Some(bridge.index));
    let routes = host.sysctl("net.ipv4.ip_forward") == Some("1");
    let idle: Vec<&Link> = host.links.values().filter(|link| is_idle(scene, link)).collect();
    if !own_way && (routes || idle.is_empty()) {
        return None;
    }
    let at = idle.first().copied().unwrap_or(bridge);
    let nics = idle.iter().map(|nic| nic.name.as_str()).collect::<Vec<_>>().join(", ");
    let evidence = match (own_way, idle.is_empty()) {
        (true, true) => format!("{}: guests' ports only; the default route leads by it", bridge.name),
        (true, false) => {
            format!("the default route leads by {}; in no bridge and without an address: {nics}", bridge.name)
        }
        (false, _) => format!("net.ipv4.ip_forward = 0; in no bridge and without an address: {nics}"),
    };
    let mut fixes: Vec<Fix> = idle
        .iter()
        .map(|nic| device::enslave(nic, bridge, format!("Makes {} a port of {}.", nic.name, bridge.name)))
        .collect();
    if fixes.is_empty() {
        fixes.push(Fix::advice(format!("Make the NIC that leads to the guests' network a port of {}.", bridge.name)));
    }
    Some(about(scene, Cause::BridgePortDetached, Severity::Error, at, Point::BridgeEgress).say(
        format!(
            "{} has no port that leads away from this host: its guests reach only each other and the host.",
            bridge.name
        ),
        evidence,
        fixes,
    ))
}

/// A NIC that is up and serves nothing: no bridge, no address but a link-local one, nothing stacked on it.
fn is_idle(scene: &Scene<'_>, link: &Link) -> bool {
    let address = link.addresses.iter().any(|network| !is_link_local(network.address));
    let nic =
        matches!(link.kind, LinkKind::Physical | LinkKind::Bond) || link.kind == LinkKind::Veth && link.peer.is_none();
    nic && link.up
        && link.carrier
        && link.master.is_none()
        && !address
        && !scene.host.links.values().any(|other| other.lower == Some(link.index))
}

/// An address of this family that more than one link can know.
fn is_wide(address: IpAddr, v6: bool) -> bool {
    address.is_ipv6() == v6 && !is_link_local(address)
}

/// The host has a network beside the guests': a device that is up, no port, no guest's, with an address of the family.
fn has_other_network(scene: &Scene<'_>, bridge: &Link, v6: bool) -> bool {
    let of_family = |link: &Link| {
        let mut addresses = link.addresses.iter().map(|network| network.address);
        addresses.any(|address| is_wide(address, v6) && !address.is_loopback())
    };
    let others =
        scene.host.links.values().filter(|link| link.index != bridge.index && link.up && link.master.is_none());
    default_route(scene, bridge, v6).is_some()
        || others.filter(|link| scene.interface(link.index).is_none()).any(of_family)
}

fn forwarding(scene: &Scene<'_>, bridge: &Link, name: &str, v6: bool, why: &str) -> Option<Finding> {
    let addressed = bridge.addresses.iter().any(|network| is_wide(network.address, v6));
    // An IPv6 address may be there for the host's own talk with the guests: not where the host has a way out.
    let needed = addressed && (!v6 || default_route(scene, bridge, v6).is_some());
    let off = needed && scene.host.sysctl(name) == Some("0") && !is_closed(scene, bridge);
    // Else the network may be for its guests and the host alone.
    let is_meant = has_other_network(scene, bridge, v6) && is_routed(scene, bridge, v6);
    let severity = if is_meant { Severity::Warning } else { Severity::Info };
    let family = if v6 { "IPv6" } else { "IPv4" };
    let name_of = &bridge.name;
    let fix = sysctl::set(scene.host, name, "1", why);
    let (explanation, fixes) = if is_meant {
        let needed = "so its guests need this host to forward; it does not";
        (format!("{name_of} has an {family} address and no uplink, {needed}."), vec![fix])
    } else {
        let only = Fix::advice("If the network is for the guests and this host alone, nothing is to be mended.");
        let alone = "and this host does not forward: its guests reach each other and this host, and nothing else";
        (format!("{name_of} has an {family} address and no uplink, {alone}."), vec![only, fix])
    };
    off.then(|| {
        let about = about(scene, Cause::ForwardingDisabled, severity, bridge, Point::Routing);
        about.say(explanation, format!("{name} = 0"), fixes)
    })
}

/// Something says that this host is to route for the guests of this bridge: a rule that translates them, a rule that lets them
/// through, or addresses that the world knows.
fn is_routed(scene: &Scene<'_>, bridge: &Link, v6: bool) -> bool {
    let own = || bridge.addresses.iter().map(|network| network.address).filter(|address| is_wide(*address, v6));
    let mut others = scene.host.links.values().filter(|link| link.index != bridge.index);
    let translated = others.any(|uplink| own().any(|address| masquerades(scene, Some(address), uplink)));
    let let_through = scene.host.netfilter.chains.iter().flat_map(|chain| &chain.rules).any(|rule| {
        let words = rule.text.split_whitespace().map(|word| word.trim_matches('"'));
        // A rule that names it twice is about guests among themselves.
        rule.verdict.as_deref() == Some("accept") && words.filter(|word| *word == bridge.name).count() == 1
    });
    translated || let_through || own().any(|address| !is_private(address))
}

/// A private network that leaves by the default route as it is. Certain where the host's own address there is public;
/// where it is private too, the router beyond may know the way back.
fn untranslated(scene: &Scene<'_>, bridge: &Link, v6: bool) -> Option<Finding> {
    let host = scene.host;
    let unknown = host.missing.iter().any(|(what, _)| what.contains("rules"));
    let network =
        bridge.addresses.iter().find(|network| network.address.is_ipv6() == v6 && is_private(network.address))?;
    // Guests that have public addresses as well use those for the world.
    let is_public = |network: &Network| is_wide(network.address, v6) && !is_private(network.address);
    let route = default_route(scene, bridge, v6).filter(|_| !bridge.addresses.iter().any(is_public))?;
    let uplink = scene.link(route.device?)?;
    let outside: Vec<_> = uplink.addresses.iter().filter(|network| is_wide(network.address, v6)).collect();
    let on_link = outside.iter().any(|outside| outside.contains(network.address));
    let unneeded = outside.is_empty()
        || on_link
        || host.sysctl(if v6 { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" }) != Some("1");
    if unknown || unneeded || is_closed(scene, bridge) || masquerades(scene, Some(network.address), uplink) {
        return None;
    }
    let public = outside.iter().any(|outside| !is_private(outside.address));
    let stale = masquerades_on_nothing(scene, Some(network.address));
    let network = network.whole();
    let (severity, lacks, rules) = if let Some((name, rule)) = stale {
        let lacks = format!("the rule that translates them is for {name}, which this host does not have");
        (Severity::Warning, lacks, rule.text.clone())
    } else {
        let doubt = if public { "" } else { ", unless the router there has a route to them" };
        let lacks = format!("no rule translates them, so answers find no way back{doubt}");
        let severity = if public { Severity::Warning } else { Severity::Info };
        (severity, lacks, format!("no masquerade or snat rule for {network}"))
    };
    Some(about(scene, Cause::NatMissing, severity, uplink, Point::NicEgress).say(
        format!(
            "The guests of {} leave by {} with their private addresses ({network}): {lacks}.",
            bridge.name, uplink.name
        ),
        format!("default route by {}; {rules}", uplink.name),
        vec![
            masquerade(scene, uplink, network, None),
            Fix::advice(format!("Or set a route to {network} by this host on the router behind {}.", uplink.name)),
        ],
    ))
}

/// The firewall keeps this network to itself (an isolated network of libvirt's): then nothing is to leave.
fn is_closed(scene: &Scene<'_>, bridge: &Link) -> bool {
    let mut rules = scene.host.netfilter.chains.iter().flat_map(|chain| &chain.rules);
    rules.any(|rule| {
        let closes = rule.verdict.as_deref().is_some_and(|verdict| matches!(verdict, "drop" | "reject"));
        closes && rule.text.split_whitespace().any(|word| word.trim_matches('"') == bridge.name)
    })
}

fn default_route<'a>(scene: &Scene<'a>, bridge: &Link, v6: bool) -> Option<&'a Route> {
    let routes = scene.host.routes.iter().filter(|route| {
        let everything = route.destination.prefix == 0 && route.destination.address.is_ipv6() == v6;
        everything && route.table == MAIN && route.kind == RouteKind::Unicast && route.device != Some(bridge.index)
    });
    routes.min_by_key(|route| route.metric)
}

fn about<'a, 's>(scene: &'a Scene<'s>, cause: Cause, severity: Severity, link: &Link, point: Point) -> About<'a, 's> {
    About { scene, cause, severity, guest: None, device: link.index, point }
}

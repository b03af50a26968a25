//! What this host's routes say of a flow, in words: `crate::topology::routing` finds them.

use super::scene::Scene;
use crate::diagnose::report::Cause;
use crate::diagnose::shell;
use crate::event::PolicyRule;
use crate::event::host::{HostState, Link, Network, Route};
use crate::event::is_link_local;
use crate::event::names::RouteKind;
use crate::forward::words;
use std::net::IpAddr;

pub use crate::topology::routing::{Answer, MAIN, Question};

/// Asks this host's routing.
pub fn lookup<'a>(scene: &Scene<'a>, question: Question<'_>) -> Answer<'a> {
    scene.topology().routes.lookup(scene.host, question)
}

/// What has to be said beside a statement that rests on an answer.
pub fn caveat(answer: &Answer<'_>) -> Option<String> {
    let rule = answer.doubt?;
    Some(format!(
        "the rule of policy routing \"{}\" is asked first, and by more than is known here (a mark, ports, a user, a VRF)",
        rule_text(rule)
    ))
}

/// As `ip rule` takes it, quoted for a shell.
pub fn rule_text(rule: &PolicyRule) -> String {
    words::policy_rule(rule, shell::quote)
}

/// What a route or rule of this kind does.
pub fn special_cause(kind: RouteKind) -> (Cause, &'static str) {
    match kind {
        RouteKind::Blackhole => (Cause::RouteBlackhole, "throws these packets away without a word"),
        RouteKind::Prohibit => (Cause::RouteProhibited, "forbids these packets and tells the sender"),
        RouteKind::Unicast | RouteKind::Unreachable | RouteKind::Throw | RouteKind::Other => {
            (Cause::NoRoute, "calls this destination unreachable")
        }
    }
}

/// No route of this host's own leads there.
pub fn has_no_way(scene: &Scene<'_>, to: IpAddr) -> bool {
    lookup(scene, Question::own(to)).route.is_none_or(|route| route.kind != RouteKind::Unicast)
}

/// The unicast route that this host's own packets take.
pub fn route_to<'a>(scene: &Scene<'a>, to: IpAddr) -> Option<&'a Route> {
    lookup(scene, Question::own(to)).unicast()
}

/// As `ip route` writes it.
pub fn route_text(scene: &Scene<'_>, route: &Route) -> String {
    let kind = if route.kind == RouteKind::Unicast { String::new() } else { format!("{} ", route.kind) };
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let by = route
        .device
        .filter(|_| route.kind == RouteKind::Unicast)
        .map(|device| format!(" dev {}", scene.name(device)))
        .unwrap_or_default();
    format!("{kind}{}{via}{by}", route.destination)
}

/// The way that an answer would take, as `__fib_validate_source` asks for it: as if this host sent it from the packet's
/// destination, so that no rule for an incoming device counts.
pub fn way_back<'a>(scene: &Scene<'a>, from: IpAddr, to: Option<IpAddr>) -> Answer<'a> {
    lookup(scene, Question { mark: Some(0), ..Question::of(to, from, "lo") })
}

/// The kernel takes the larger of the two (`IN_DEV_RPFILTER`).
pub fn reverse_path_filter(host: &HostState, input: &Link) -> u8 {
    let value = |device: &str| {
        host.sysctl(&format!("net.ipv4.conf.{device}.rp_filter")).and_then(|value| value.parse().ok()).unwrap_or(0)
    };
    value("all").max(value(&input.name))
}

/// The network of the device's own that has the address.
pub fn own_network(link: &Link, address: IpAddr) -> Option<Network> {
    let mut own = link.addresses.iter().filter(|network| network.prefix > 0 && network.contains(address));
    own.next().filter(|_| !is_link_local(address)).map(|network| network.whole())
}

/// A guest of the bridge has an address that a longer network of another device has too: the network, and the device.
pub fn hidden_by<'a>(scene: &Scene<'a>, bridge: &Link, guest_address: IpAddr) -> Option<(Network, &'a Link)> {
    let own = own_network(bridge, guest_address)?;
    let routes = scene.host.routes.iter();
    let longer = |route: &&Route| {
        route.table == MAIN
            && route.kind == RouteKind::Unicast
            && route.gateway.is_none()
            && route.device != Some(bridge.index)
            && route.destination.prefix > own.prefix
            && route.destination.contains(guest_address)
    };
    let route = routes.filter(longer).max_by_key(|route| route.destination.prefix)?;
    let link = scene.link(route.device?).filter(|link| link.up && link.master != Some(bridge.index))?;
    // What leads to this one address is meant for it.
    let full = if guest_address.is_ipv6() { 128 } else { 32 };
    (route.destination.prefix < full && own_network(link, guest_address).is_some()).then_some((route.destination, link))
}

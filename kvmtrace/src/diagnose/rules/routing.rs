//! `forwarding-disabled`, `no-route`, `route-blackhole`, `route-prohibited`: the host's routing has no way for it.
//!
//! IPv4 ends in `ip_error`: `IP_INADDRERRORS` when the input device does not forward, `IP_INNOROUTES` without a route or
//! with an unreachable one, nothing said for blackhole and prohibit. IPv6 ends in `ip6_pkt_drop`, `dst_discard` or
//! `ip6_forward`.

use crate::diagnose::case::Case;
use crate::diagnose::dropped::Dropped;
use crate::diagnose::fix::{device, quote, sysctl};
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point};
use crate::diagnose::routes::{Answer, MAIN, Question, lookup};
use crate::diagnose::scene::{Role, Scene};
use crate::diagnose::words;
use crate::event::HostState;
use crate::event::host::{Link, Network, Route};
use std::net::IpAddr;

const FUNCTIONS: &[&str] = &[
    "ip_error",
    "ip6_pkt_drop",
    "ip6_pkt_discard",
    "ip6_pkt_prohibit",
    "dst_discard",
    "dst_discard_out",
    "ip6_forward",
    "ip_rcv_finish_core",
    "ip_forward",
    "ip_route_input_noref",
    "__ip_rcv_finish",
    "ip6_rcv_finish",
];

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !drop.within(FUNCTIONS) {
        return None;
    }
    let to = case.key().destination.ip()?;
    let input = input_device(case, drop)?;
    let in_error = drop.within(&["ip_error", "ip6_forward"]);
    if drop.because(&["IP_INADDRERRORS"]) && in_error
        || in_error && drop.is_unspecified() && !forwards(case.scene.host, &input.name, to)
    {
        return Some(forwarding_disabled(case, drop, input, to));
    }
    if !drop.because(&["IP_INNOROUTES", "IP6_INNOROUTES"]) && !drop.is_unspecified() {
        return None;
    }
    let special = |route: &&Route| matches!(route.kind.as_str(), "blackhole" | "prohibit" | "unreachable");
    let kind = kind_told(case, drop);
    let from = drop.key().source.ip().filter(|from| !case.scene.is_host_address(*from)).or(case.key().source.ip());
    let answer = lookup(case.scene.host, Question { from, to, input: &input.name });
    // A rule that is not known whole may have led to another table.
    let elsewhere = || {
        let routes = case.scene.host.routes.iter().filter(special);
        routes
            .filter(|route| Some(route.kind.as_str()) == kind && route.destination.contains(to))
            .max_by_key(|route| route.destination.prefix)
    };
    let may_forbid = |kind: &str| {
        let mut rules = case.scene.host.policy_rules.iter();
        rules.any(|rule| rule.action == kind && rule.may_take(from, to, &input.name))
    };
    let forbids = answer.rule.is_some_and(|rule| rule.action != "lookup");
    let route = answer.route.filter(special).or_else(|| if forbids { None } else { elsewhere() });
    if let Some(route) = route {
        return Some(special_route(case, drop, input, route, to));
    }
    match kind? {
        _ if downed_uplink(case.scene, to).is_some() => Some(no_route(case, drop, input, &answer, to)),
        // Nothing forbids it: there is just no route.
        "unreachable" if answer.unicast().is_none() && !may_forbid("unreachable") => {
            Some(no_route(case, drop, input, &answer, to))
        }
        kind => Some(super::policy_rule::judge(case, drop, input, kind)),
    }
}

/// Which kind of route it met, from where it died and what the sender was told: `ip_error` says "net unreachable" or
/// "administratively prohibited" or nothing, each for its own kind; IPv6 has a function for each.
fn kind_told(case: &Case<'_>, drop: &Dropped<'_>) -> Option<&'static str> {
    let told = |test: fn(&crate::track::Quoted) -> bool| case.errors.iter().any(|error| test(&error.about));
    if !drop.within(&[
        "ip_error",
        "ip6_pkt_drop",
        "ip6_pkt_discard",
        "ip6_pkt_prohibit",
        "dst_discard",
        "dst_discard_out",
    ]) {
        return drop.because(&["IP_INNOROUTES", "IP6_INNOROUTES"]).then_some("unreachable");
    }
    if drop.through(&["ip6_pkt_prohibit"]) || drop.is_unspecified() && told(crate::track::Quoted::is_prohibited) {
        Some("prohibit")
    } else if drop.within(&["dst_discard", "dst_discard_out"])
        || drop.within(&["ip_error"]) && drop.is_unspecified() && !told(crate::track::Quoted::is_unreachable)
    {
        Some("blackhole")
    } else {
        Some("unreachable")
    }
}

/// What a route or rule of this kind does.
pub fn special_cause(kind: &str) -> (Cause, &'static str) {
    match kind {
        "blackhole" => (Cause::RouteBlackhole, "throws these packets away without a word"),
        "prohibit" => (Cause::RouteProhibited, "forbids these packets and tells the sender"),
        _ => (Cause::NoRoute, "calls this destination unreachable"),
    }
}

/// A route that leads nowhere on purpose.
fn special_route(case: &Case<'_>, drop: &Dropped<'_>, input: &Link, route: &Route, to: IpAddr) -> Judgement {
    let kind = route.kind.as_str();
    let (cause, does) = special_cause(kind);
    let text = text(case.scene, route);
    let fix = delete(route, format!("Removes the route \"{text}\"; a wider route has to lead to {to} then."));
    let explanation = format!("{} went to {to}, for which the route \"{text}\" {does}.", words::dropped(case));
    let place = at(case.scene, input.index, Point::Routing).of(drop);
    Judgement::dropped(cause, place, explanation).evidence([format!("route: {text}")]).fix(fix)
}

/// Without a route that leads nowhere on purpose.
pub fn delete(route: &Route, why: String) -> Fix {
    let family = if route.destination.address.is_ipv6() { " -6" } else { "" };
    let spec = format!("{} {} table {} metric {}", route.kind, route.destination, route.table, route.metric);
    Fix::run(format!("ip{family} route del {spec}"), format!("ip{family} route add {spec}"), why)
        .risk("Whoever set this route may have meant it.")
        .persist("Remove it from the network configuration that sets it.")
}

/// No route of this host's own leads there.
pub fn has_no_way(scene: &Scene<'_>, to: IpAddr) -> bool {
    lookup(scene.host, Question::own(to)).route.is_none_or(|route| route.kind != "unicast")
}

/// This host itself has no way to `to`, to which a tunnel sends.
pub fn no_way(case: &Case<'_>, drop: &Dropped<'_>, from: &Link, to: IpAddr) -> Judgement {
    let answer = lookup(case.scene.host, Question::own(to));
    match answer.route.filter(|route| route.kind != "unicast") {
        Some(route) => special_route(case, drop, from, route, to),
        None => no_route(case, drop, from, &answer, to),
    }
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
        words::dropped(case),
        input.name,
        host.sysctl(&name).unwrap_or("off")
    );
    Judgement::dropped(Cause::ForwardingDisabled, place, explanation)
        .evidence([format!("{name} = {}", host.sysctl(&name).unwrap_or("unknown"))])
        .fix(
            sysctl::set(host, &name, "1", "Lets this host forward packets between its interfaces.")
                .risk("The host then routes between all its networks unless the firewall forbids it."),
        )
}

fn no_route(case: &Case<'_>, drop: &Dropped<'_>, input: &Link, answer: &Answer<'_>, to: IpAddr) -> Judgement {
    let scene = case.scene;
    // IPv6 takes a network's route away while its bridge has no carrier.
    let serves = |link: &&Link| case.bridge().is_some_and(|bridge| bridge.index == link.index) && !case.is_from_guest();
    if let Some(bridge) = scene.host.links.values().find(serves).filter(|bridge| !bridge.up || !bridge.carrier) {
        return super::path::dead_link(case, bridge, at(scene, bridge.index, Point::NicEgress).of(drop));
    }
    if let Some(down) = downed_uplink(scene, to) {
        let explanation = format!(
            "{} found no route to {to}: {} is {}, and its routes are gone with it.",
            words::dropped(case),
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
    let what = words::dropped(case);
    let main = answer.tables.contains(&MAIN);
    let judgement = |explanation| Judgement::dropped(Cause::NoRoute, place, explanation).evidence(answer.caveat());
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
    let known = lookup(scene.host, Question::own(to)).unicast().is_some();
    let lead = Fix::run(command("add"), command("del"), "Lets the main table decide, which has a route there.")
        .risk("Whoever keeps these packets from the main table may have meant it.")
        .persist("Set the rule where the other rules of policy routing are set.");
    let advice = Fix::advice(format!(
        "Add a route to {to} to a table that is asked, or a rule that leads these packets to a table with one (`ip{family} rule show`)."
    ));
    judgement(explanation).fixes(known.then_some(lead)).fix(advice)
}

/// The cure for a dead link.
pub fn no_carrier_advice(link: &Link) -> Fix {
    Fix::advice(format!(
        "Check the cable of {} and the switch port at its other end: the link has no carrier.",
        link.name
    ))
}

/// Routes that would lead there.
fn route_fixes(scene: &Scene<'_>, to: IpAddr) -> Vec<Fix> {
    let host = scene.host;
    let prefix = if to.is_ipv6() { 128 } else { 32 };
    let family = if to.is_ipv6() { " -6" } else { "" };
    let leads_there = |route: &Route| route.destination.contains(to) && route.kind == "unicast";
    let lost = device::lost_routes(host, scene.track.first_host(), leads_there);
    let mut fixes: Vec<Fix> = lost
        .max_by_key(|route| route.destination.prefix)
        .and_then(|route| {
            let name = scene.name(route.device?);
            let why = "Sets the route again that was there when the trace began.";
            let fix =
                Fix::run(device::route_command("add", route, &name), device::route_command("del", route, &name), why);
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
        fixes.push(Fix::run(
            command("add"),
            command("del"),
            format!("{to} is in a network of {}: it can be reached there directly.", link.name),
        ));
    }
    let neighbours: Vec<(&IpAddr, &Link)> = host
        .neighbours
        .iter()
        .filter(|neighbour| neighbour.mac.is_some() && neighbour.address.is_ipv4() == to.is_ipv4())
        .filter(|neighbour| !is_link_local(neighbour.address) && neighbour.state != "failed")
        .filter_map(|neighbour| Some((&neighbour.address, uplinks().find(|link| link.index == neighbour.device)?)))
        .collect();
    if let ([(gateway, link)], true) = (neighbours.as_slice(), fixes.is_empty()) {
        let command =
            |verb: &str| format!("ip{family} route {verb} {to}/{prefix} via {gateway} dev {}", quote(&link.name));
        fixes.push(
            Fix::run(
                command("add"),
                command("del"),
                format!("{gateway} is the only neighbour seen on {}: the likely next hop.", link.name),
            )
            .risk("A guess from the neighbour table: check that this is the router."),
        );
    }
    fixes.push(Fix::advice(format!("Add a route to {to}, or a default route, by the right next hop; and set it in the network configuration so that it lasts.")));
    fixes
}

/// The address is a guest's, in none of this host's networks: it is to be found behind the guest's device.
fn guest_route(scene: &Scene<'_>, to: IpAddr) -> Option<Vec<Fix>> {
    let device = scene.guest_by_address(crate::event::Address::Ip(to))?;
    let guest = scene.guest_name(device)?;
    let link = scene.bridge_of(device).or_else(|| scene.link(device))?;
    let of_family = |network: &&Network| network.address.is_ipv6() == to.is_ipv6() && !is_link_local(network.address);
    let network = link.addresses.iter().find(of_family)?;
    let (family, prefix) = if to.is_ipv6() { (" -6", 128) } else { ("", 32) };
    let command = |verb: &str| format!("ip{family} route {verb} {to}/{prefix} dev {}", quote(&link.name));
    let why =
        format!("{guest} has the address {to}, which is in no network of this host's: it is behind {}.", link.name);
    Some(vec![
        Fix::run(command("add"), command("del"), why)
            .persist("Set the route in the network configuration that sets the device up."),
        Fix::advice(format!(
            "Or give {guest} an address of the network of {} ({}).",
            link.name,
            super::nat::base(*network)
        )),
    ])
}

fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// A device towards the world: no guest's, no bridge with guests, not the loopback.
fn is_upstream(scene: &Scene<'_>, link: &Link) -> bool {
    let guests = scene.host.ports(link.index).any(|port| scene.interface(port.index).is_some());
    scene.interface(link.index).is_none() && !guests && link.name != "lo" && link.master.is_none()
}

/// An uplink that is down and whose networks or former routes led there.
fn downed_uplink<'a>(scene: &Scene<'a>, to: IpAddr) -> Option<&'a Link> {
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

/// The unicast route that this host's own packets take.
pub fn route_to(host: &HostState, to: IpAddr) -> Option<&Route> {
    lookup(host, Question::own(to)).unicast()
}

/// As `ip route` writes it.
pub fn text(scene: &Scene<'_>, route: &Route) -> String {
    let kind = if route.kind == "unicast" { String::new() } else { format!("{} ", route.kind) };
    let via = route.gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
    let by = route
        .device
        .filter(|_| route.kind == "unicast")
        .map(|device| format!(" dev {}", scene.name(device)))
        .unwrap_or_default();
    format!("{kind}{}{via}{by}", route.destination)
}

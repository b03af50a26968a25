//! `neighbour-unresolved` by this host's own silence: it is asked by ARP or neighbour discovery, hears it, and must not answer
//! (`arp_ignore`, `arp_filter`, a device without ARP) or does not answer for another (`proxy_arp`, `proxy_ndp`). Nothing is
//! dropped: `arp_process` and `ndisc_recv_ns` consume what they don't answer.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::{Answer, MAIN, Question, caveat, lookup};
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::fix::device::{self, route_command};
use crate::diagnose::fix::sysctl;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind, Network, Route};
use crate::event::names::RouteKind;
use crate::event::{Direction, HostState};
use crate::forward::effect::Effect;
use std::net::IpAddr;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if !case.is_neighbour_traffic() || !case.expects_answer() || case.answered() > 0 {
        return None;
    }
    let asked = case.group.main.target.or(case.key().destination.ip())?;
    let from = case.key().source.ip()?;
    let input = hearer(case)?;
    if let Some(judgement) = duplicate(case, input, asked) {
        return Some(judgement);
    }
    let found = match case.scene.device_of_address(asked) {
        Some(owner) => mute(case.scene, input, owner, asked, from),
        None => absent_proxy(case, input, asked, from),
    };
    let silence = found?;
    let explanation = format!(
        "{} from {from} asked who has {asked}, and this host kept silent: {}.",
        words::packets(case.packets()),
        silence.why
    );
    Some(
        Judgement::dropped(Cause::NeighbourUnresolved, at(case.scene, input.index, Point::Neighbour), explanation)
            .verdict(Verdict::Unanswered)
            .severity(if case.asked_enough() { Severity::Error } else { Severity::Info })
            .evidence(silence.evidence)
            .fixes(silence.fixes),
    )
}

/// The address is set here, but duplicate address detection found it with another machine: the kernel does not use it.
fn duplicate(case: &Case<'_>, input: &Link, asked: IpAddr) -> Option<Judgement> {
    let mut duplicates = case.scene.host.duplicates.iter();
    let (own, _) = duplicates.find(|(own, device)| own.address == asked && *device == input.index)?;
    let explanation = format!(
        "{} asked who has {asked}: it is set on {}, and not used, for duplicate address detection found another machine with it when it was set.",
        words::packets(case.packets()),
        input.name
    );
    Some(
        Judgement::dropped(Cause::AddressConflict, at(case.scene, input.index, Point::Neighbour), explanation)
            .verdict(Verdict::Unanswered)
            .severity(Severity::Error)
            .evidence([format!("{own} on {}: dadfailed", input.name)])
            .fix(device::set_again(input, *own)),
    )
}

/// Why the host does not answer.
struct Silence {
    why: String,
    evidence: Vec<String>,
    fixes: Vec<Fix>,
}

/// The device by which this host's own stack hears the question.
fn hearer<'a>(case: &Case<'a>) -> Option<&'a Link> {
    let scene = case.scene;
    let heard = |device| scene.bridge_of(device).or_else(|| scene.link(device));
    if case.is_from_guest() {
        let own = case.device().filter(|device| scene.role(*device) == Role::Tap)?;
        return heard(own);
    }
    let arrives = |device| scene.role(device) == Role::Nic;
    let entered = case.hops.iter().find(|(place, _)| place.direction == Direction::Ingress && arrives(place.device));
    entered.and_then(|(place, _)| heard(place.device))
}

fn name(family: &str, device: &str, key: &str) -> String {
    format!("net.{family}.conf.{device}.{key}")
}

/// The settings of all devices and of this one, as numbers.
fn settings(host: &HostState, input: &Link, key: &str, family: &str) -> Vec<(String, u8)> {
    ["all", &input.name]
        .into_iter()
        .map(|device| name(family, device, key))
        .map(|name| {
            let value = host.sysctl(&name).and_then(|value| value.parse().ok()).unwrap_or(0);
            (name, value)
        })
        .collect()
}

/// The address is the host's own, and it may not say so. IPv6 has no such switches.
fn mute(scene: &Scene<'_>, input: &Link, owner: &Link, asked: IpAddr, from: IpAddr) -> Option<Silence> {
    let host = scene.host;
    if asked.is_ipv6() {
        return None;
    }
    if input.arp_off {
        let command = |word: &str| format!("ip link set dev {} arp {word}", quote(&input.name));
        return Some(Silence {
            why: format!("ARP is switched off on {}", input.name),
            evidence: vec![format!("{}: NOARP", input.name)],
            fixes: vec![
                Fix::run(command("on"), command("off"), format!("Lets {} take part in ARP.", input.name))
                    .persist("Remove it from the network configuration that sets the device up."),
            ],
        });
    }
    // `arp_ignore` and `inet_confirm_addr`: the greater of the two settings holds.
    let here = input.addresses.iter().find(|network| network.address == asked);
    let ignores = |level: u8| match level {
        1 => here.is_none(),
        2 => here.is_none_or(|network| !network.contains(from)),
        8 => true,
        _ => false,
    };
    let ignore = settings(host, input, "arp_ignore", "ipv4");
    let level = ignore.iter().map(|(_, value)| *value).max().unwrap_or(0);
    if ignores(level) {
        let where_it_is = if here.is_some() { String::new() } else { format!(", and {asked} is on {}", owner.name) };
        let mut fixes =
            vec![zero(host, &ignore, ignores, &format!("Lets this host answer ARP for {asked} on {}.", input.name))];
        if here.is_none() {
            fixes.push(Fix::advice(format!("Or give the address to {} itself.", input.name)));
        }
        return Some(Silence {
            why: format!("arp_ignore is {level} for {}{where_it_is}", input.name),
            evidence: told(&ignore),
            fixes,
        });
    }
    // `arp_filter`: either setting is enough.
    let filter = settings(host, input, "arp_filter", "ipv4");
    let back = lookup(scene, Question::of(Some(asked), from, "lo"));
    let other = back.unicast().and_then(|route| route.device).filter(|device| *device != input.index);
    if filter.iter().all(|(_, value)| *value == 0) || back.unicast().is_some() && other.is_none() {
        return None;
    }
    let way = other.map_or_else(|| "by no device".to_owned(), |device| format!("by {}", scene.name(device)));
    let why = format!(
        "Or let this host answer ARP on {} whatever the way back is: where both devices are on one network.",
        input.name
    );
    Some(Silence {
        why: format!("arp_filter is on for {}, and what this host sends to {from} would leave {way}", input.name),
        evidence: told(&filter).into_iter().chain(caveat(&back)).collect(),
        fixes: vec![straight(scene, &back, input, from), zero(host, &filter, |value| value > 0, &why)],
    })
}

/// A route back by the device that the question came by.
fn straight(scene: &Scene<'_>, back: &Answer<'_>, input: &Link, from: IpAddr) -> Fix {
    let destination = Network { address: from, prefix: 32 };
    let before = back.unicast();
    let table = before.map_or(MAIN, |route| route.table);
    let to = Route {
        destination,
        gateway: None,
        device: Some(input.index),
        source: None,
        table,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    };
    let command = route_command("replace", &to, &input.name);
    let same = before.filter(|route| route.destination == destination);
    let undo = match same.and_then(|route| Some((route, scene.name(route.device?)))) {
        Some((route, device)) => route_command("replace", route, &device),
        None => route_command("del", &to, &input.name),
    };
    let why = format!("Lets what is for {from} leave by {}, where it asks from.", input.name);
    Fix::run(command, undo, why).persist("Correct the route in the network configuration that sets it.")
}

/// Switches off what is in the way; of two settings, both where either would be.
fn zero(host: &HostState, settings: &[(String, u8)], in_the_way: impl Fn(u8) -> bool, why: &str) -> Fix {
    let mut fixes =
        settings.iter().filter(|(_, value)| in_the_way(*value)).map(|(name, _)| sysctl::set(host, name, "0", why));
    let first = fixes.next().unwrap_or_else(|| Fix::advice(why));
    let all = fixes.fold(first, |one, other| {
        let both = |a: Option<String>, b: Option<String>| Some(format!("{} && {}", a?, b?));
        Fix { command: both(one.command, other.command), undo: both(one.undo, other.undo), ..other }
    });
    all.risk("Where several devices share a network, each may then answer for the others' addresses.")
}

fn told(settings: &[(String, u8)]) -> Vec<String> {
    settings.iter().map(|(name, value)| format!("{name} = {value}")).collect()
}

/// This host sends to the address by the device.
fn is_routed_to(scene: &Scene<'_>, address: IpAddr, device: &Link) -> bool {
    let way = lookup(scene, Question::of(None, address, "lo"));
    way.unicast().is_some_and(|route| route.device == Some(device.index) && route.destination.prefix > 0)
}

/// It leads to one address.
fn is_single(route: &Route) -> bool {
    route.destination.prefix == if route.destination.address.is_ipv6() { 128 } else { 32 }
}

/// This host answers for the one address, whatever `proxy_arp` says (`pneigh_lookup` in `arp_process`).
fn one_proxy(asked: IpAddr, input: &Link) -> Fix {
    let entry = |verb: &str| format!("ip neigh {verb} proxy {asked} dev {}", quote(&input.name));
    let why = format!("Lets this host answer for {asked} on {}.", input.name);
    Fix::run(entry("add"), entry("del"), why)
        .effect(Effect::ProxyAdd(asked, input.index))
        .persist("Keep it in the network configuration (ifupdown: a line \"post-up\" with the command), or set proxy_arp for this device in /etc/sysctl.d.")
}

/// This host answers neighbour solicitations for the one address: the switch, where it is off, and the entry, where it is missing.
fn ndp_proxy(host: &HostState, asked: IpAddr, input: &Link, on: bool, proxied: bool) -> Fix {
    let own = name("ipv6", &input.name, "proxy_ndp");
    let switch =
        sysctl::set(host, &own, "1", format!("Lets this host answer on {} for what it routes elsewhere.", input.name));
    let entry = |verb: &str| format!("ip -6 neigh {verb} proxy {asked} dev {}", quote(&input.name));
    let and = |first: Option<String>, second: Option<String>| {
        Some([first, second].into_iter().flatten().collect::<Vec<_>>().join(" && "))
    };
    let (set, unset) = if on { (None, None) } else { (switch.command.clone(), switch.undo.clone()) };
    let (add, del) = if proxied { (None, None) } else { (Some(entry("add")), Some(entry("del"))) };
    let effect = Effect::ProxyAdd(asked, input.index);
    Fix { command: and(set, add), undo: and(del, unset), ..switch }.effect(effect)
}

/// A flow of a guest's that left by a device in whose own network the guest's address lies, though the guest is behind another
/// device: out there the answers wait for somebody to say who has that address, and this host does not.
pub fn judge_unsought(case: &Case<'_>) -> Option<Judgement> {
    let (scene, source) = (case.scene, case.key().source.ip()?);
    let out = scene.link(case.last_device()?)?;
    let open = case.is_from_guest() && case.way() == Way::Routed && case.left() > 0 && case.answered() == 0;
    if !open || case.group.translated.is_some() || out.master.is_some() || !case.expects_answer() {
        return None;
    }
    let network = out.addresses.iter().find(|own| own.contains(source))?;
    let to = case.key().destination.ip()?;
    let behind = lookup(scene, Question::of(Some(to), source, &out.name));
    let behind = behind.unicast().filter(|route| is_single(route) && route.device != Some(out.index))?;
    let behind = scene.link(behind.device?)?;
    let family = if source.is_ipv6() { "ipv6" } else { "ipv4" };
    let key = if source.is_ipv6() { "proxy_ndp" } else { "proxy_arp" };
    let settings = settings(scene.host, out, key, family);
    let on = settings.iter().any(|(_, value)| *value > 0);
    let proxied = scene.host.proxies.contains(&(source, out.index));
    if if source.is_ipv6() { on && proxied } else { on || proxied } {
        return None;
    }
    let count = words::packets(case.packets());
    let explanation = format!(
        "{count} left by {}, in whose network ({}/{}) the guest's address {source} lies; the guest is behind {}, and this host is no proxy for it on {}: who answers out there asks for {source} in vain.",
        out.name, network.address, network.prefix, behind.name, out.name
    );
    let fix = if source.is_ipv6() { ndp_proxy(scene.host, source, out, on, proxied) } else { one_proxy(source, out) };
    Some(
        Judgement::dropped(Cause::NeighbourUnresolved, at(scene, out.index, Point::Neighbour), explanation)
            .verdict(Verdict::Unanswered)
            .severity(if case.asked_enough() { Severity::Error } else { Severity::Info })
            .evidence(told(&settings))
            .fix(fix)
            .fix(Fix::advice(format!(
                "Or let the router behind {} send what is for {source} to this host, by a route.",
                out.name
            ))),
    )
}

/// The address lies behind another device of this host, which the asker takes for its own network: the host would have to
/// answer in its place (`arp_fwd_proxy`; `pneigh_lookup` in `ndisc_recv_ns`).
fn absent_proxy(case: &Case<'_>, input: &Link, asked: IpAddr, from: IpAddr) -> Option<Silence> {
    let (scene, host) = (case.scene, case.scene.host);
    let family = if asked.is_ipv6() { "ipv6" } else { "ipv4" };
    let of_family = |network: &Network| network.address.is_ipv6() == asked.is_ipv6();
    let answer = lookup(scene, Question::of(Some(from), asked, &input.name));
    // A route for the one address stands over the network of the device.
    let owned = |own: &Network| own.contains(asked) && !answer.unicast().is_some_and(is_single);
    // A tap of its own may have no network at all: each of its guest's addresses is routed.
    let routes_here = (input.addresses.iter().any(of_family) || is_routed_to(scene, from, input))
        && !input.addresses.iter().any(owned);
    // On a bridge that leads out, who is asked for may be out there.
    let bridged = matches!(input.kind, LinkKind::Bridge(_)) && host.uplinks(input.index).next().is_some();
    let is_guest = scene.guest_by_address(crate::event::Address::Ip(asked)).is_some();
    if !routes_here || bridged && !is_guest {
        return None;
    }
    // A sender with an address of another network is no neighbour of this device, whatever it claims.
    // Beyond, a router asks with whichever address it has, where this host has a route for the one that it asks for.
    let router = !case.is_from_guest() && answer.unicast().is_some_and(is_single);
    let plausible = router || input.addresses.iter().any(|own| own.contains(from)) || is_routed_to(scene, from, input);
    if !plausible {
        return None;
    }
    let beyond =
        answer.unicast().and_then(|route| scene.link(route.device?)).filter(|link| link.index != input.index)?;
    let proxied = host.proxies.contains(&(asked, input.index));
    let key = if asked.is_ipv6() { "proxy_ndp" } else { "proxy_arp" };
    let settings = settings(host, input, key, family);
    let on = settings.iter().any(|(_, value)| *value > 0);
    if if asked.is_ipv6() { on && proxied } else { on || proxied } {
        return None;
    }
    let why = format!(
        "{from} takes {asked} for its own network, but that is behind {}, and this host is no proxy for it on {}",
        beyond.name, input.name
    );
    // For the one address: with the switch of the device it answers for every one that it has another way to.
    let proxy = if asked.is_ipv6() { ndp_proxy(host, asked, input, on, proxied) } else { one_proxy(asked, input) };
    let missing =
        if asked.is_ipv6() && !proxied { Some(format!("no proxy entry for {asked} on {}", input.name)) } else { None };
    Some(Silence {
        why,
        evidence: told(&settings).into_iter().chain(missing).chain(caveat(&answer)).collect(),
        fixes: vec![
            proxy,
            Fix::advice(format!(
                "Or correct the prefix of {from}, or set a route to {asked} by this host there. {} = 1 would let this host answer for all that it has another way to.",
                name(family, &input.name, key)
            )),
        ],
    })
}

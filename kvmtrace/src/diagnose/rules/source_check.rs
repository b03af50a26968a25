//! `reverse-path-filter` and `martian-source`: the host does not believe the packet's source address.
//!
//! `ip_rcv_finish_core` drops with `IP_RPFILTER`, `IP_LOCALNET`, `IP_LOCAL_SOURCE` or `IP_INVALID_SOURCE`. The filter also
//! makes the host ignore ARP requests, without any drop (`arp_process` → `ip_route_input_noref`).

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::routes::{Answer, reverse_path_filter, route_text, way_back};
use crate::diagnose::facts::sites::Site;
use crate::diagnose::fix::sysctl;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Verdict};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::Protocol;
use crate::event::host::Link;
use std::net::IpAddr;

const MARTIAN: &[&str] =
    &["IP_LOCALNET", "IP_LOCAL_SOURCE", "IP_INVALID_SOURCE", "IP_INVALID_DEST", "INVALID_SRC", "IP6_INVALID_SOURCE"];

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    let from = drop.flow.key.source.ip()?;
    let input = case.scene.link(drop.device().or(case.device())?)?;
    let place = at(case.scene, input.index, Point::Routing).of(drop);
    let what = case.dropped_share();
    let odd_source = is_odd_source(case, from);
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
    let back = way_back(case.scene.host, from, drop.key().destination.ip());
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
            .evidence(back.caveat())
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
    if reverse_path_filter(case.scene.host, input) != 1
        || !elsewhere(&way_back(case.scene.host, from, Some(asked)), input)
    {
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

fn is_odd_source(case: &Case<'_>, from: IpAddr) -> bool {
    from.is_loopback()
        || from.is_multicast()
        || case.scene.is_host_address(from)
        || matches!(from, IpAddr::V4(v4) if v4.is_broadcast() || v4.octets()[0] == 0)
}

/// The answer would leave by another device, or by none.
fn elsewhere(back: &Answer<'_>, input: &Link) -> bool {
    back.unicast().and_then(|route| route.device) != Some(input.index)
}

fn state(case: &Case<'_>, input: &Link) -> Vec<String> {
    let name = |device: &str| format!("net.ipv4.conf.{device}.rp_filter");
    [name("all"), name(&input.name)]
        .into_iter()
        .map(|name| format!("{name} = {}", case.scene.host.sysctl(&name).unwrap_or("unknown")))
        .collect()
}

fn fixes(case: &Case<'_>, input: &Link, from: IpAddr) -> Vec<Fix> {
    let name = format!("net.ipv4.conf.{}.rp_filter", input.name);
    let loose = sysctl::set(
        case.scene.host,
        &name,
        "2",
        format!("Loose mode: {} then accepts sources that this host has any route to.", input.name),
    )
    .risk("Spoofed sources that are routable are no longer filtered on this device.");
    // Loose mode wants a route too, whichever way it leads (`__fib_validate_source`).
    if from.is_ipv4() && way_back(case.scene.host, from, None).unicast().is_none() {
        let route = |verb: &str| format!("ip route {verb} {from}/32 dev {}", quote(&input.name));
        let why = format!("Tells this host that {from} is behind {}; now it knows no way there at all.", input.name);
        return vec![
            Fix::run(route("add"), route("del"), why)
                .risk(format!("Whoever sends from {from} behind {} is believed.", input.name))
                .persist("Set the route where the device is configured (netplan, NetworkManager, ifupdown, systemd-networkd)."),
        ];
    }
    let route = Fix::advice(format!("Or make the routing symmetric: let the route to {from} lead by {}.", input.name));
    vec![loose, route]
}

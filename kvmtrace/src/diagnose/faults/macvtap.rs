//! `macvtap-host-unreachable`: a macvtap never reaches the host that it sits on by the same device. `macvtap-mode`: it reaches its
//! neighbours on that device in mode `bridge` only.
//!
//! What a guest sends goes out by the device below, never up into the host's own stack; what the host sends by that device
//! is not handed to its macvlans (`macvlan_start_xmit`, `macvlan_handle_frame` in drivers/net/macvlan.c).

use crate::diagnose::facts::macvtap::{mode, other_address};
use crate::diagnose::facts::place::at;
use crate::diagnose::fix::device::{bridge_macvtaps, readdress};
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind};
use crate::event::names::MacvtapMode;
use std::net::IpAddr;

/// See the module.
pub fn host_unreachable(case: &Case<'_>, own: &Link) -> Option<Judgement> {
    let LinkKind::Macvtap { mode } = &own.kind else { return None };
    let lower = case.scene.link(own.lower?)?;
    let asked = case.group.main.target.or(case.key().destination.ip());
    let (host_side, guest_side) =
        if case.is_from_guest() { (asked, case.key().source.ip()) } else { (case.key().source.ip(), asked) };
    let address = host_side?;
    let host_end = case.scene.device_of_address(address)?;
    let on_same = host_end.index == lower.index || host_end.lower != Some(lower.index);
    if !on_same {
        return None;
    }
    let explanation = format!(
        "{} between the guest on {} and this host itself: a macvtap ({mode}) on {} reaches everything but the host that it sits on.",
        words::packets(case.packets()),
        own.name,
        lower.name
    );
    let point = if case.is_from_guest() { Point::TapIngress } else { Point::TapEgress };
    let judgement = Judgement::dropped(Cause::MacvtapHostUnreachable, at(case.scene, own.index, point), explanation);
    Some(judgement.fixes(macvlan(case, own, lower, address, guest_side)).fix(Fix::advice(
        "Or give the guest a second interface on a bridge or isolated network for its traffic with the host.",
    )))
}

/// Guests on macvtaps of one device that are not in mode `bridge`: what one sends goes out by the device below, and comes to the
/// others only where the switch sends it back (`vepa`), or never (`private`).
pub fn apart(case: &Case<'_>, own: &Link) -> Option<Judgement> {
    let scene = case.scene;
    let asked = case.group.main.target.or(case.key().destination.ip())?;
    let others =
        scene.host.links.values().filter(|other| {
            other.index != own.index && other.lower == own.lower && scene.interface(other.index).is_some()
        });
    let others: Vec<(&Link, MacvtapMode)> = others.filter_map(|other| Some((other, mode(other)?))).collect();
    let own_mode = mode(own)?;
    let lower = scene.link(own.lower?)?;
    let of_family = |address: &&IpAddr| address.is_ipv6() == asked.is_ipv6();
    let known = others.iter().find(|(other, _)| {
        let has = scene.addresses_of(other.index).contains(&asked);
        has || case.destination_mac().is_some_and(|mac| !mac.is_multicast() && other.mac == Some(mac))
    });
    // Who keeps silent because it hears nothing is not known by its address.
    let silent =
        |other: &&(&Link, MacvtapMode)| !scene.addresses_of(other.0.index).iter().any(|address| of_family(&address));
    let (other, their) = known.or_else(|| others.iter().find(silent).filter(|_| case.is_neighbour_traffic()))?;
    let apart = |mode: MacvtapMode| matches!(mode, MacvtapMode::Vepa | MacvtapMode::Private);
    if !case.is_from_guest() || case.reached(other.index) || !apart(own_mode) && !apart(*their) {
        return None;
    }
    let guest = scene.guest_name(other.index).unwrap_or_default();
    let whose = match known {
        Some(_) => format!("{asked}, the guest {guest} on {}", other.name),
        None => format!("{asked}; nobody beyond {} answered, and {guest} on {} can't hear it", lower.name, other.name),
    };
    let explanation = format!(
        "{} were to reach {whose}. {} is in mode {own_mode} and {} in mode {their}: only macvtaps in mode bridge hand each other frames.",
        words::packets(case.packets()),
        own.name,
        other.name
    );
    let private = own_mode == MacvtapMode::Private || *their == MacvtapMode::Private;
    let advice = if private {
        "Mode private keeps guests apart, which may be meant: nothing is to be mended then.".to_owned()
    } else {
        format!(
            "Or let the switch behind {} send frames back by the port that they came from (hairpin, 802.1Qbg): mode vepa relies on it.",
            lower.name
        )
    };
    let fix = bridge_macvtaps(&[own, other], format!("{} and {} then hand each other frames.", own.name, other.name))
        .map(|fix| fix.risk("Frames between these guests no longer pass the switch, and what it filters or counts."));
    let point = at(scene, own.index, Point::TapIngress);
    let judgement = Judgement::dropped(Cause::MacvtapMode, point, explanation)
        .verdict(Verdict::Lost)
        .severity(if private { Severity::Warning } else { Severity::Error })
        .evidence([format!("{}: mode {own_mode}; {}: mode {their}; both on {}", own.name, other.name, lower.name)]);
    let advice = Fix::advice(advice);
    Some(if private { judgement.fix(advice).fixes(fix) } else { judgement.fixes(fix).fix(advice) })
}

/// What is sent to the guest, and its macvtap has another address.
pub fn wrong_address(case: &Case<'_>, own: &Link) -> Option<Judgement> {
    let Some((mac, guest)) = other_address(case.scene, own) else { return changed_address(case, own) };
    if case.is_from_guest() || case.left() > 0 || case.destination_mac() != Some(guest) {
        return None;
    }
    let explanation = format!(
        "{} were sent to {guest}, the guest's address, but {} has the address {mac} and takes only what is sent to that.",
        words::packets(case.packets()),
        own.name
    );
    let place = at(case.scene, own.index, Point::TapEgress);
    Some(Judgement::dropped(Cause::MacSpoofed, place, explanation).fix(readdress(own, (mac, guest))))
}

/// What is sent to an address that the guest has given its card, and that its macvtap does not know.
fn changed_address(case: &Case<'_>, own: &Link) -> Option<Judgement> {
    let (mac, sent_to) = (own.mac?, case.destination_mac()?);
    let by_address = mode(own)?.hands_up_by_address();
    let uses = |flow: &crate::track::Flow| {
        let mut places = flow.places.iter();
        places
            .any(|(place, seen)| place.device == own.index && case.scene.is_entry(*place) && seen.source_mac == sent_to)
    };
    let others = sent_to == mac || sent_to.is_multicast() || case.scene.mac_owner(own.index, sent_to).is_some();
    if !by_address || others || case.is_from_guest() || case.left() > 0 || !case.scene.track.flows().any(uses) {
        return None;
    }
    let guest = case.scene.guest_name(own.index).unwrap_or_default();
    let explanation = format!(
        "{} were sent to {sent_to}, from which {guest} sends; its macvtap {} has the address {mac} and takes only what is sent to that.",
        words::packets(case.packets()),
        own.name
    );
    let advice = Fix::advice(format!(
        "Give the guest's card the address {mac} again; or, if the guest may choose its address, let libvirt follow it: <interface trustGuestRxFilters='yes'> in its definition."
    ));
    let follow = readdress(own, (mac, sent_to))
        .risk("The guest has chosen this address itself: be sure that nobody else on the network has it.");
    let place = at(case.scene, own.index, Point::TapEgress);
    Some(Judgement::dropped(Cause::MacSpoofed, place, explanation).fix(advice).fix(follow))
}

/// A macvlan for the host beside the guest's macvtap, which hand each other frames in bridge mode, and routes to the guest
/// by it. The host's addresses stay where they are: nothing else changes its way.
fn macvlan(case: &Case<'_>, own: &Link, lower: &Link, host: IpAddr, guest: Option<IpAddr>) -> Option<Fix> {
    let LinkKind::Macvtap { mode } = &own.kind else { return None };
    let known = case.scene.addresses_of(own.index).iter().copied().chain(guest);
    let mut guests: Vec<IpAddr> =
        known.filter(|guest| guest.is_ipv6() == host.is_ipv6() && is_routable(*guest) && *guest != host).collect();
    guests.sort_unstable();
    guests.dedup();
    if *mode != MacvtapMode::Bridge || guests.is_empty() || !is_routable(host) {
        return None;
    }
    // A device's name has 15 characters.
    let name = format!("kvmtrace-mv{}", own.index.0 % 10_000);
    let (family, bits) = if host.is_ipv6() { (" -6", "128 nodad") } else { ("", "32") };
    // The guest asks for the host's address there, and IPv6 answers only for the addresses of the device that is asked.
    let mut commands = vec![
        format!("ip link add link {} name {name} type macvlan mode bridge", quote(&lower.name)),
        format!("ip addr add {host}/{bits} dev {name}"),
        format!("ip link set dev {name} up"),
    ];
    commands.extend(guests.iter().map(|guest| format!("ip{family} route add {guest} dev {name} src {host}")));
    let fix = Fix::run(
        commands.join(" && "),
        format!("ip link del dev {name}"),
        format!(
            "Gives the host a macvlan of its own on {}, which the guest's macvtap reaches, and sends what is for the guest by it.",
            lower.name
        ),
    );
    Some(fix.risk("Only this guest is reached so; others need a route each.").persist(
        "Configure the macvlan and the route in the network configuration, or put guests and host on a bridge.",
    ))
}

fn is_routable(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => !address.is_unspecified() && !address.is_link_local(),
        IpAddr::V6(address) => !address.is_unspecified() && !address.is_unicast_link_local() && !address.is_multicast(),
    }
}

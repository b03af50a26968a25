//! `macvtap-host-unreachable`: a macvtap never reaches the host that it sits on by the same device.
//!
//! What a guest sends goes out by the device below, never up into the host's own stack; what the host sends by that device
//! is not handed to its macvlans (`macvlan_start_xmit`, `macvlan_handle_frame` in drivers/net/macvlan.c).

use crate::diagnose::facts::macvtap::other_address;
use crate::diagnose::facts::place::at;
use crate::diagnose::fix::device::readdress;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};
use crate::diagnose::shell::quote;
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind};
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

/// What is sent to the guest, and its macvtap has another address.
pub fn wrong_address(case: &Case<'_>, own: &Link) -> Option<Judgement> {
    let (mac, guest) = other_address(case.scene, own)?;
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

/// A macvlan for the host beside the guest's macvtap, which hand each other frames in bridge mode, and routes to the guest
/// by it. The host's addresses stay where they are: nothing else changes its way.
fn macvlan(case: &Case<'_>, own: &Link, lower: &Link, host: IpAddr, guest: Option<IpAddr>) -> Option<Fix> {
    let LinkKind::Macvtap { mode } = &own.kind else { return None };
    let known = case.scene.addresses_of(own.index).iter().copied().chain(guest);
    let mut guests: Vec<IpAddr> =
        known.filter(|guest| guest.is_ipv6() == host.is_ipv6() && is_routable(*guest) && *guest != host).collect();
    guests.sort_unstable();
    guests.dedup();
    if mode != "bridge" || guests.is_empty() || !is_routable(host) {
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

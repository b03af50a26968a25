//! `neighbour-unresolved`: ARP or neighbour discovery gets no answer.
//!
//! The host's own: `NEIGH_FAILED` in `neigh_invalidate` (IPv6 without a reason), seconds late from a timer. A guest's: its
//! requests leave, none comes back; nothing is dropped.

use crate::diagnose::facts::place::{at, beyond};
use crate::diagnose::facts::scene::Role;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::overlap::overlap;
use crate::diagnose::faults::{macvtap, port};
use crate::diagnose::fix::device::move_addresses;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity, Verdict};
use crate::diagnose::words;
use crate::event::is_link_local;
use crate::event::{Direction, IfIndex, MacAddress};
use std::net::IpAddr;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !(drop.because(&["NEIGH_FAILED", "NEIGH_QUEUEFULL", "NEIGH_DEAD", "NEIGH_CREATEFAIL", "NEIGH_HH_FILLFAIL"])
        || drop.is_unspecified() && drop.within(Site::Neighbour))
    {
        return None;
    }
    let device = drop.device().or(case.device())?;
    let to = drop.key().destination.ip()?;
    let answer = case.routing();
    let hop = answer.leg(device).or(answer.unicast()).and_then(|route| route.gateway).unwrap_or(to);
    if let Some(own) = case.device().and_then(|device| case.scene.link(device))
        && let Some(judgement) = macvtap::host_unreachable(case, own)
    {
        return Some(Judgement { place: judgement.place.clone().of(drop), ..judgement });
    }
    if let Some(link) = case.scene.link(device).filter(|link| !link.up || !link.carrier) {
        return Some(port::dead_link(case, link, at(case.scene, device, Point::NicEgress).of(drop)));
    }
    if let Some(judgement) = overlap(case, &format!("{} wait", case.dropped_share()), device, hop) {
        return Some(Judgement { place: judgement.place.clone().of(drop), ..judgement });
    }
    let port = case.scene.link(device).filter(|link| case.scene.role(link.index) == Role::Nic);
    let to_bridge = port.zip(case.scene.bridge_of(device));
    let move_up = to_bridge.and_then(|(port, bridge)| move_addresses(case.scene.host, port, bridge));
    let name = case.scene.name(device);
    let hop_text = if hop == to { hop.to_string() } else { format!("the next hop {hop}") };
    let why = match (to_bridge, &move_up) {
        (Some((_, bridge)), Some(_)) => {
            let of = &bridge.name;
            format!(" It is a port of {of} and bears an address: what is sent so reaches no other port of {of}.")
        }
        _ => String::new(),
    };
    let explanation = format!(
        "{} wait for {hop_text} on {name}, which answers no {}.{why}",
        case.dropped_share(),
        if to.is_ipv6() { "neighbour solicitation" } else { "ARP request" }
    );
    let state =
        case.scene.host.neighbours.iter().find(|neighbour| neighbour.address == hop && neighbour.device == device);
    Some(
        Judgement::dropped(Cause::NeighbourUnresolved, at(case.scene, device, Point::Neighbour).of(drop), explanation)
            .evidence(state.map(|neighbour| format!("neighbour {hop} on {name}: {}", neighbour.state)))
            .evidence(crate::diagnose::facts::routes::caveat(&answer))
            .fixes(move_up.is_some().then(|| {
                Fix::advice("Give the address to the bridge instead of its port, in the network configuration.")
            }))
            .fixes(move_up)
            .fix(advice(&hop.to_string())),
    )
}

fn advice(address: &str) -> Fix {
    Fix::advice(format!(
        "Check that {address} is right and that its owner is up and in the same network (VLAN, bridge) as the one who asks."
    ))
}

/// A guest's request, or one for a guest, that left in order and stays unanswered.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    if !case.is_neighbour_traffic() || !case.expects_answer() || case.answered() > 0 {
        return None;
    }
    let asked = case.group.main.target.map_or_else(|| case.key().destination.to_string(), |target| target.to_string());
    let asker = case.key().source;
    let from_here = || case.hops.first().filter(|(place, _)| place.direction == Direction::Egress);
    if let Some((to, (place, _))) = case.group.main.target.or(case.key().destination.ip()).zip(from_here())
        && case.scene.bridge_of(place.device).is_none()
        && let Some(judgement) = overlap(case, &format!("{} ask", words::packets(case.packets())), place.device, to)
    {
        return Some(judgement.verdict(Verdict::Unanswered));
    }
    let place = if case.is_from_guest() {
        beyond(case.last_device().map(|device| case.scene.name(device)))
    } else {
        at(case.scene, case.device()?, Point::Guest)
    };
    let explanation =
        format!("{} from {asker} asked who has {asked}, and nobody answered.", words::packets(case.packets()));
    Some(
        Judgement::dropped(Cause::NeighbourUnresolved, place, explanation)
            .verdict(Verdict::Unanswered)
            .severity(if case.asked_enough() { Severity::Warning } else { Severity::Info })
            .fixes(stranger(case))
            .fix(advice(&asked)),
    )
}

/// The guest has an address of none of the networks that this host serves on its bridge, which leads nowhere else: it comes from
/// another network (a copied image, a former host).
fn stranger(case: &Case<'_>) -> Option<Fix> {
    let scene = case.scene;
    let source = case.key().source.ip().filter(|_| case.is_from_guest())?;
    let bridge = case.bridge().filter(|bridge| scene.host.uplinks(bridge.index).next().is_none())?;
    let served: Vec<_> = bridge
        .addresses
        .iter()
        .filter(|own| own.address.is_ipv4() == source.is_ipv4() && !is_link_local(own.address))
        .collect();
    if is_link_local(source)
        || source.is_unspecified()
        || served.is_empty()
        || served.iter().any(|own| own.contains(source))
    {
        return None;
    }
    let guest = scene.guest_name(case.device()?).unwrap_or_default();
    let networks: Vec<String> = served.iter().map(|own| own.whole().to_string()).collect();
    let gateways: Vec<String> = served.iter().map(|own| own.address.to_string()).collect();
    Some(Fix::advice(format!(
        "{guest} uses {source}, and the network of {} is {}: give {guest} an address of that network, by DHCP or in its own configuration, and {} for its gateway.",
        bridge.name,
        words::list(&networks),
        words::list(&gateways)
    )))
}

/// A routed flow whose next hop this host still asks for: what waits for the answer is dropped seconds later only
/// (`neigh_timer_handler`), which may be after the trace.
pub fn judge_waiting(case: &Case<'_>) -> Option<Judgement> {
    if case.left() > 0 || case.is_neighbour_traffic() || case.is_multicast() {
        return None;
    }
    let to = case.key().destination.ip()?;
    let answer = case.routing();
    answer.unicast()?;
    let (device, hop, entry) = answer.legs.iter().find_map(|leg| {
        let (device, hop) = (leg.device?, leg.gateway.unwrap_or(to));
        let mut entries = case.scene.host.neighbours.iter();
        let entry = entries.find(|entry| entry.address == hop && entry.device == device && entry.state.is_silent())?;
        Some((device, hop, entry))
    })?;
    if let Some(judgement) = overlap(case, &format!("{} wait", words::packets(case.packets())), device, hop) {
        return Some(judgement.verdict(Verdict::Lost));
    }
    let name = case.scene.name(device);
    let hop_text = if hop == to { hop.to_string() } else { format!("the next hop {hop}") };
    let explanation =
        format!("{} wait for {hop_text} on {name}, which has not answered so far.", words::packets(case.packets()));
    Some(
        Judgement::dropped(Cause::NeighbourUnresolved, at(case.scene, device, Point::Neighbour), explanation)
            .verdict(Verdict::Lost)
            .evidence([format!("neighbour {hop} on {name}: {}", entry.state)])
            .fix(advice(&hop.to_string())),
    )
}

/// A machine beyond sends to a MAC address that nobody here has: its neighbour entry is older than the guest's address (a move of
/// the guest, a new card, a gratuitous ARP that got lost). The bridge floods such frames, and the guest passes over them.
fn stale_beyond(case: &Case<'_>, device: IfIndex, to: IpAddr, own: MacAddress) -> Option<Judgement> {
    let scene = case.scene;
    let bridge = scene.bridge_of(device)?;
    let (place, seen) = case.entry()?;
    let mac = seen.destination_mac;
    let enters = place.direction == Direction::Ingress && scene.role(place.device) == Role::Nic;
    let taken = |entry: &crate::event::host::FdbEntry| entry.mac == mac && entry.bridge == Some(bridge.index);
    let somebodys = mac == own
        || mac.is_multicast()
        || mac.is_zero()
        || scene.is_host_mac(mac)
        || scene.guest_by_mac(mac).is_some()
        || case.layer2.senders.contains_key(&mac)
        || scene.host.forwarding.iter().any(taken);
    let bridged = scene.bridge_of(place.device).is_some_and(|other| other.index == bridge.index);
    if !enters || !bridged || somebodys || !scene.addresses_of(device).contains(&to) {
        return None;
    }
    let guest = scene.guest_name(device).unwrap_or_default();
    let uplink = scene.name(place.device);
    let explanation = format!(
        "{} for {to} came in by {uplink} for {mac}, which nobody here has: {guest}, whose address it is, has {own}. {} sends to a MAC address that is out of date.",
        words::packets(case.packets()),
        case.key().source
    );
    Some(
        Judgement::dropped(Cause::NeighbourStale, beyond(Some(uplink)), explanation)
            .verdict(Verdict::Lost)
            .evidence([format!("frames for {mac}; {guest} on {} has {own}", scene.name(device))])
            .fix(Fix::advice(format!(
                "Let {guest} announce its address (arping -U -I DEV {to} in the guest; ndisc6 for IPv6), or delete the neighbour entry of {to} on the machine or router that sends there, if it was set by hand."
            ))),
    )
}

/// This host sends to a MAC address that the guest does not have: its neighbour entry, set by hand or left over, says so.
/// The bridge floods such frames, and the guest passes over what is not for it.
pub fn judge_stale(case: &Case<'_>) -> Option<Judgement> {
    let scene = case.scene;
    let device = case.device().filter(|_| !case.is_from_guest())?;
    let to = case.key().destination.ip()?;
    let own = scene.interface(device)?.mac?;
    if let Some(judgement) = stale_beyond(case, device, to, own) {
        return Some(judgement);
    }
    let entry = scene.host.neighbours.iter().find(|entry| entry.address == to && entry.state.is_resolved())?;
    let mac = entry.mac.filter(|mac| *mac != own && scene.guest_by_mac(*mac).is_none() && !scene.is_host_mac(*mac))?;
    let bridge = scene.bridge_of(device)?;
    let sent = case.hops.iter().any(|(place, counters)| {
        place.direction == crate::event::Direction::Egress
            && counters.destination_mac == mac
            && place.device == bridge.index
    });
    let learnt = scene.host.forwarding.iter().any(|known| known.mac == mac && known.bridge == Some(bridge.index));
    if entry.device != bridge.index || !sent || learnt {
        return None;
    }
    let name = scene.name(entry.device);
    let guest = scene.guest_name(device).unwrap_or_default();
    let explanation = format!(
        "{} for {to} went out by {name} for {mac}, which nobody has: {guest}, whose address it is, has {own}. A {} neighbour entry of this host says so.",
        words::packets(case.packets()),
        entry.state
    );
    let quoted = crate::diagnose::shell::quote(&name);
    let family = if to.is_ipv6() { " -6" } else { "" };
    Some(
        Judgement::dropped(Cause::NeighbourStale, at(scene, entry.device, Point::Neighbour), explanation)
            .verdict(Verdict::Lost)
            .evidence([format!("neighbour {to} on {name}: {mac} {}", entry.state)])
            .fix(
                Fix::run(
                    format!("ip{family} neigh del {to} dev {quoted}"),
                    format!("ip{family} neigh replace {to} lladdr {mac} dev {quoted} nud {}", entry.state),
                    format!("This host then asks who has {to}, and {guest} answers."),
                )
                .persist("Remove it from what sets it (a script, the network configuration)."),
            ),
    )
}

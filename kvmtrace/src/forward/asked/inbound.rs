//! The packet that somebody sends to a guest: by which uplink it comes in, and with which MAC addresses.

use super::frames::{STAND_IN, ip, resolution};
use super::make::from_guest;
use super::owners::{family, outside_address, own_address, owner, route_to};
use super::question::{Asked, Goal, Kind, NextHop, Question, QuestionError, Resolution, Target, guest_named};
use super::segment::Segment;
use crate::event::host::{GuestInterface, Link, LinkKind};
use crate::event::{HostState, IfIndex, MacAddress};
use crate::forward::Entry;
use crate::forward::packet::Packet;
use std::net::IpAddr;

/// Somebody sends to the guest.
pub(super) fn to_guest(host: &HostState, question: &Question, from: IpAddr) -> Result<Asked, QuestionError> {
    match question.kind {
        Kind::Arp => return Err(QuestionError::NotFrom { what: "an ARP request" }),
        Kind::Nd => return Err(QuestionError::NotFrom { what: "a neighbour solicitation" }),
        Kind::Dhcp => return Err(QuestionError::NotFrom { what: "DHCP" }),
        Kind::Icmp | Kind::Tcp(_) | Kind::Udp(_) => {}
    }
    let (guest, interfaces) =
        guest_named(host, &question.guest).ok_or_else(|| QuestionError::NoGuest(question.guest.clone()))?;
    if let Goal::Guest(sender) = owner(host, from) {
        return from_other_guest(host, question, from, sender, &interfaces);
    }
    let no_source = || QuestionError::NoSource { guest: guest.name.clone(), family: family(from.is_ipv6()) };
    let known = |interface: &&GuestInterface| question.source.or_else(|| own_address(&interface.addresses, from));
    let interface = interfaces.iter().find(|interface| known(interface).is_some()).or(interfaces.first());
    let interface = *interface.ok_or_else(|| QuestionError::NoInterface(guest.name.clone()))?;
    let target = match &question.target {
        Some(Target::Addresses(addresses)) => {
            let fits = addresses.iter().find(|address| address.is_ipv6() == from.is_ipv6());
            *fits.ok_or(QuestionError::NoTarget)?
        }
        Some(Target::Host) => outside_address(host, from.is_ipv6()).ok_or_else(|| QuestionError::NoTargetAddress {
            target: "this host".to_owned(),
            family: family(from.is_ipv6()),
        })?,
        Some(Target::Guest(_) | Target::Gateway) | None => known(&interface).ok_or_else(no_source)?,
    };
    let segment = Segment::of(host, interface.device);
    let mut packet = ip(question, from, target)?;
    let (entry, next_hop, first, sender) = if owner(host, from) == Goal::Host {
        (Entry::Host, None, None, None)
    } else {
        let (link, next) = came_by(host, question, &guest.name, interface, &segment, from, target)?;
        packet.tags = tags(link, &segment);
        packet.source_mac = Some(next.mac.unwrap_or(STAND_IN));
        packet.destination_mac = Some(
            receiver(host, question, interface, link, target)
                .ok_or_else(|| QuestionError::NoMac(guest.name.clone()))?,
        );
        // A machine of the guest's own network asks for the guest; where its MAC address is not known, the guest can ask for it.
        let near =
            known(&interface) == Some(target) && segment.uplinks().iter().any(|uplink| uplink.index == link.index);
        let guest = question.mac.or(interface.mac).filter(|_| near);
        let (wire, by_guest) = (Entry::Wire(link.index), Entry::Guest(interface.device));
        let first = guest.map(|_| {
            let request = resolution(next.address, next.mac.unwrap_or(STAND_IN), target);
            Resolution { packet: Packet { tags: packet.tags.clone(), ..request }, entry: wire }
        });
        let sender = guest
            .filter(|_| next.mac.is_none())
            .map(|mac| Resolution { packet: resolution(target, mac, next.address), entry: by_guest });
        (wire, Some(next), first, sender)
    };
    let (guest, goal) = (guest.name.clone(), Goal::Guest(interface.device));
    Ok(Asked { guest, interface: interface.device, packet, entry, goal, next_hop, first, sender })
}

/// The uplink that a packet from outside comes in by, and the machine that hands it over there.
fn came_by<'a>(
    host: &'a HostState,
    question: &Question,
    guest: &str,
    interface: &GuestInterface,
    segment: &Segment<'a>,
    from: IpAddr,
    target: IpAddr,
) -> Result<(&'a Link, NextHop), QuestionError> {
    let own = question.source.filter(|own| own.is_ipv6() == from.is_ipv6());
    let own = own.or_else(|| own_address(&interface.addresses, from));
    if own == Some(target)
        && let Some(uplink) = segment.uplinks().first()
    {
        let on_link = segment.network(target).is_some_and(|network| network.contains(from));
        let via = question.via.filter(|via| via.is_ipv6() == from.is_ipv6());
        let gateway = via.or_else(|| segment.gateway(from.is_ipv6(), own));
        let hop = match (on_link, gateway) {
            (true, _) => from,
            (false, Some(gateway)) => gateway,
            (false, None) => return Err(QuestionError::NoNextHop { guest: guest.to_owned(), target: from }),
        };
        let next = segment.neighbour(hop);
        if next.owner == Goal::Beyond {
            return Ok((*uplink, next));
        }
    }
    let route = route_to(host, from).ok_or(QuestionError::NoUplink(from))?;
    let link = route.device.and_then(|device| host.link(device)).ok_or(QuestionError::NoUplink(from))?;
    let address = route.gateway.unwrap_or(from);
    let entry = host.neighbours.iter().find(|entry| entry.address == address && entry.device == link.index);
    let next = NextHop { address, mac: entry.and_then(|entry| entry.mac), owner: Goal::Beyond };
    // A bridge is no wire: the frame comes in by the port that leads out.
    let port = host.uplinks(link.index).min_by_key(|port| (!port.up, !port.carrier, port.index));
    Ok((if matches!(link.kind, LinkKind::Bridge(_)) { port.unwrap_or(link) } else { link }, next))
}

/// The MAC address that a frame from outside bears as its destination.
fn receiver(
    host: &HostState,
    question: &Question,
    interface: &GuestInterface,
    link: &Link,
    target: IpAddr,
) -> Option<MacAddress> {
    let guest = question.mac.or(interface.mac);
    let bridge = link.master.and_then(|master| host.link(master));
    let bridge = bridge.filter(|bridge| matches!(bridge.kind, LinkKind::Bridge(_)));
    let own = question.source.into_iter().chain(interface.addresses.iter().copied()).any(|own| own == target);
    let joined = bridge.map(|bridge| host.joined(bridge.index)).unwrap_or_default();
    let tap = host.link(interface.device);
    let same = tap.is_some_and(|tap| {
        tap.master.is_some_and(|master| joined.contains(&master))
            || matches!(tap.kind, LinkKind::Macvtap { .. }) && tap.lower == Some(link.index)
    });
    if own && same { guest } else { bridge.unwrap_or(link).mac }
}

/// The tags that a frame of the guest's VLAN bears on a port's wire.
fn tags(uplink: &Link, segment: &Segment<'_>) -> Vec<u16> {
    let Some((vlan, port)) = segment.vlan.zip(uplink.port.as_ref()) else { return Vec::new() };
    let untagged = port.vlans.iter().any(|own| own.untagged && own.covers(vlan));
    if untagged { Vec::new() } else { vec![vlan] }
}

/// The address belongs to another guest of this host: that one sends.
fn from_other_guest(
    host: &HostState,
    question: &Question,
    from: IpAddr,
    sender: IfIndex,
    interfaces: &[&GuestInterface],
) -> Result<Asked, QuestionError> {
    let target = match &question.target {
        Some(target @ (Target::Addresses(_) | Target::Host)) => target.clone(),
        Some(Target::Guest(_) | Target::Gateway) | None => match question.source {
            Some(own) => Target::Addresses(vec![own]),
            None => Target::Guest(question.guest.clone()),
        },
    };
    let reversed = Question {
        guest: host.link_name(sender),
        target: Some(target),
        from: None,
        source: Some(from),
        mac: None,
        ..question.clone()
    };
    let goal = interfaces.first().map(|interface| Goal::Guest(interface.device));
    let asked = from_guest(host, &reversed)?;
    let is_own = |interface: &&GuestInterface| asked.goal == Goal::Guest(interface.device);
    let kept = interfaces.iter().any(is_own);
    Ok(Asked { goal: if kept { asked.goal } else { goal.unwrap_or(asked.goal) }, ..asked })
}

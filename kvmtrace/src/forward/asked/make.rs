//! The packet that a guest sends: its addresses, its next hop, its goal.

use super::frames::{BROADCAST, STAND_IN, group_mac, ip, packet, resolution, sized};
use super::owners::{family, outside_address, own_address, owner};
use super::question::{Asked, Goal, Kind, Question, QuestionError, Resolution, Target, guest_named};
use super::segment::Segment;
use crate::event::host::GuestInterface;
use crate::event::is_self_assigned;
use crate::event::{HostState, IfIndex};
use crate::forward::Entry;
use crate::forward::packet::{Packet, Transport};
use std::net::{IpAddr, Ipv4Addr};

/// The guest sends.
pub(super) fn from_guest(host: &HostState, question: &Question) -> Result<Asked, QuestionError> {
    let (guest, interfaces) =
        guest_named(host, &question.guest).ok_or_else(|| QuestionError::NoGuest(question.guest.clone()))?;
    let first = *interfaces.first().ok_or_else(|| QuestionError::NoInterface(guest.name.clone()))?;
    let target = question.target.as_ref().ok_or(QuestionError::NoTarget)?;
    if question.kind == Kind::Dhcp {
        return discover(host, question, &guest.name, first, target);
    }
    let ways = ways(host, question, &guest.name, &interfaces, target)?;
    // The interface on whose own network the target is, before one that needs a gateway.
    let on_link = |way: &Way<'_>| way.segment.network(way.source).is_some_and(|network| network.contains(way.target));
    let has_gateway = |way: &Way<'_>| way.segment.gateway(way.source.is_ipv6(), Some(way.source)).is_some();
    let best = ways.into_iter().min_by_key(|way| (!on_link(way), !has_gateway(way)));
    let way = best.ok_or(QuestionError::NoTarget)?;
    sent(host, question, &guest.name, &way)
}

/// One choice of interface and addresses.
struct Way<'a> {
    interface: &'a GuestInterface,
    segment: Segment<'a>,
    source: IpAddr,
    target: IpAddr,
}

fn ways<'a>(
    host: &'a HostState,
    question: &Question,
    guest: &str,
    interfaces: &[&'a GuestInterface],
    target: &Target,
) -> Result<Vec<Way<'a>>, QuestionError> {
    let mut ways = Vec::new();
    let mut refusal = None;
    for interface in interfaces {
        let segment = Segment::of(host, interface.device);
        let addresses = match addresses_of(host, question, guest, interface, &segment, target) {
            Ok(addresses) => addresses,
            Err(error) => {
                refusal.get_or_insert(error);
                continue;
            }
        };
        for target in addresses {
            let source = question.source.filter(|source| source.is_ipv6() == target.is_ipv6());
            match source.or_else(|| own_address(&interface.addresses, target)) {
                Some(source) => {
                    ways.push(Way { interface, segment: Segment::of(host, interface.device), source, target });
                }
                None => drop(refusal.get_or_insert_with(|| QuestionError::NoSource {
                    guest: guest.to_owned(),
                    family: family(target.is_ipv6()),
                })),
            }
        }
    }
    match (ways.is_empty(), refusal) {
        (true, Some(error)) => Err(error),
        (_, _) => Ok(ways),
    }
}

/// The addresses that a target stands for, seen from one interface. Never empty.
fn addresses_of(
    host: &HostState,
    question: &Question,
    guest: &str,
    interface: &GuestInterface,
    segment: &Segment<'_>,
    target: &Target,
) -> Result<Vec<IpAddr>, QuestionError> {
    let wanted = families(question, interface);
    let or =
        |addresses: Vec<IpAddr>, error: QuestionError| if addresses.is_empty() { Err(error) } else { Ok(addresses) };
    let no_address = |target: &str| QuestionError::NoTargetAddress {
        target: target.to_owned(),
        family: wanted.first().copied().map_or("IP", family),
    };
    match target {
        Target::Addresses(addresses) => {
            let kind = match question.kind {
                Kind::Arp => Some((false, "ARP")),
                Kind::Nd => Some((true, "neighbour discovery")),
                Kind::Icmp | Kind::Tcp(_) | Kind::Udp(_) | Kind::Dhcp => None,
            };
            let fits = |address: &&IpAddr| kind.is_none_or(|(v6, _)| address.is_ipv6() == v6);
            let fitting: Vec<IpAddr> = addresses.iter().filter(fits).copied().collect();
            match (addresses.first(), kind) {
                (Some(address), Some((_, kind))) => or(fitting, QuestionError::WrongFamily { address: *address, kind }),
                (_, _) => or(fitting, QuestionError::NoTarget),
            }
        }
        Target::Guest(word) => {
            let (other, interfaces) = guest_named(host, word).ok_or_else(|| QuestionError::NoGuest(word.clone()))?;
            let near = |device: IfIndex| segment.guests().any(|guest| guest.device == device);
            let mut interfaces = interfaces;
            interfaces.sort_by_key(|interface| !near(interface.device));
            let all = interfaces.iter().flat_map(|interface| interface.addresses.iter().copied());
            let all: Vec<IpAddr> = all.filter(|address| !is_self_assigned(*address)).collect();
            let fitting =
                wanted.iter().flat_map(|v6| all.iter().copied().filter(move |address| address.is_ipv6() == *v6));
            or(fitting.collect(), no_address(&other.name))
        }
        Target::Gateway => {
            let gateways = wanted.iter().filter_map(|v6| {
                let own = question.via.filter(|via| via.is_ipv6() == *v6);
                own.or_else(|| {
                    segment.gateway(*v6, interface.addresses.iter().copied().find(|own| own.is_ipv6() == *v6))
                })
            });
            or(gateways.collect(), QuestionError::NoGateway(guest.to_owned()))
        }
        Target::Host => {
            let own = |v6: &bool| {
                let source = interface.addresses.iter().copied().find(|own| own.is_ipv6() == *v6);
                segment.host_address(*v6, source).or_else(|| outside_address(host, *v6))
            };
            or(wanted.iter().filter_map(own).collect(), no_address("this host"))
        }
    }
}

/// Families to try, in order: those that the packet can have and the guest has an address of.
fn families(question: &Question, interface: &GuestInterface) -> Vec<bool> {
    match (question.kind, question.source) {
        (Kind::Arp | Kind::Dhcp, _) => vec![false],
        (Kind::Nd, _) => vec![true],
        (_, Some(source)) => vec![source.is_ipv6()],
        (_, None) => {
            let has = |v6: bool| {
                interface.addresses.iter().any(|address| address.is_ipv6() == v6 && !is_self_assigned(*address))
            };
            let known: Vec<bool> = [false, true].into_iter().filter(|v6| has(*v6)).collect();
            if known.is_empty() { vec![false, true] } else { known }
        }
    }
}

fn sent(host: &HostState, question: &Question, guest: &str, way: &Way<'_>) -> Result<Asked, QuestionError> {
    let Way { interface, segment, source, target } = way;
    let mac = question.mac.or(interface.mac).ok_or_else(|| QuestionError::NoMac(guest.to_owned()))?;
    let on_link = segment.network(*source).is_some_and(|network| network.contains(*target));
    let same_segment = segment.guests().any(|other| other.addresses.contains(target));
    let address = match question.via.filter(|via| via.is_ipv6() == target.is_ipv6()) {
        Some(via) => via,
        None if on_link || same_segment || target.is_multicast() => *target,
        None => match segment.gateway(target.is_ipv6(), Some(*source)) {
            Some(gateway) => gateway,
            None if segment.is_routed_alone() => *target,
            None => return Err(QuestionError::NoNextHop { guest: guest.to_owned(), target: *target }),
        },
    };
    let next_hop = segment.neighbour(address);
    let request = || resolution(*source, mac, address);
    let goal = if address == *target && !matches!(next_hop.owner, Goal::Beyond) {
        next_hop.owner
    } else {
        owner(host, *target)
    };
    let asked = |packet, goal, first| Asked {
        guest: guest.to_owned(),
        interface: interface.device,
        packet,
        entry: Entry::Guest(interface.device),
        goal,
        next_hop: Some(next_hop),
        first,
        sender: None,
    };
    if matches!(question.kind, Kind::Arp | Kind::Nd) {
        return Ok(asked(request(), next_hop.owner, None));
    }
    let mut packet = ip(question, *source, *target)?;
    packet.source_mac = Some(mac);
    let group = target.is_multicast().then(|| group_mac(*target));
    packet.destination_mac = Some(group.or(next_hop.mac).unwrap_or(STAND_IN));
    let first = group.is_none().then(|| Resolution { packet: request(), entry: Entry::Guest(interface.device) });
    Ok(asked(packet, goal, first))
}

fn discover(
    host: &HostState,
    question: &Question,
    guest: &str,
    interface: &GuestInterface,
    target: &Target,
) -> Result<Asked, QuestionError> {
    let segment = Segment::of(host, interface.device);
    let mac = question.mac.or(interface.mac).ok_or_else(|| QuestionError::NoMac(guest.to_owned()))?;
    let address = addresses_of(host, question, guest, interface, &segment, target)?.into_iter().find(IpAddr::is_ipv4);
    let address = address
        .ok_or_else(|| QuestionError::NoTargetAddress { target: "the target".to_owned(), family: family(false) })?;
    let near = segment.neighbour(address);
    let goal = if near.owner == Goal::Beyond { owner(host, address) } else { near.owner };
    let length = sized(question.size, 20 + 8 + 240, 328)?;
    let transport = Transport::Udp { source: Some(68), destination: Some(67) };
    let (any, all) = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(Ipv4Addr::BROADCAST));
    let packet = packet(any, all, transport, 64, false, length);
    let packet = Packet { source_mac: Some(mac), destination_mac: Some(BROADCAST), ..packet };
    Ok(Asked {
        guest: guest.to_owned(),
        interface: interface.device,
        packet,
        entry: Entry::Guest(interface.device),
        goal,
        next_hop: None,
        first: None,
        sender: None,
    })
}

//! What a guest can be expected to reach, as far as this host knows it.

use super::question::{Goal, guest_named};
use super::segment::Segment;
use crate::event::HostState;
use crate::event::host::GuestInterface;
use crate::event::is_self_assigned;
use crate::event::names::RouteKind;
use std::net::IpAddr;

/// The targets of a probe that names none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usual {
    /// As the command line takes them: `gateway`, `host`, names of guests, addresses. Some may be the same machine.
    pub targets: Vec<String>,
    /// What this host knows no address of, in words.
    pub unknown: Vec<&'static str>,
}

/// The guest's gateway, this host, another guest of its network, a name server and a machine beyond. A name server is one
/// that this host uses itself, on a network that it is connected to; the machine beyond is this host's own gateway.
pub fn usual(host: &HostState, guest: &str, name_servers: &[IpAddr]) -> Usual {
    let mut usual = Usual { targets: vec!["gateway".to_owned(), "host".to_owned()], unknown: Vec::new() };
    let others = [
        (neighbour(host, guest), "another guest of its network"),
        (name_server(host, guest, name_servers).map(|address| address.to_string()), "a name server"),
        (beyond(host, guest).map(|address| address.to_string()), "a machine beyond"),
    ];
    for (target, words) in others {
        match target {
            Some(target) => usual.targets.push(target),
            None => usual.unknown.push(words),
        }
    }
    usual
}

/// Another guest of the same bridge, the first that runs and has an address here.
fn neighbour(host: &HostState, guest: &str) -> Option<String> {
    let (own, interfaces) = guest_named(host, guest)?;
    let near: Vec<_> = interfaces
        .iter()
        .flat_map(|interface| Segment::of(host, interface.device).guests().collect::<Vec<_>>())
        .filter(|other| !other.addresses.is_empty())
        .map(|other| other.device)
        .collect();
    let is_near = |interface: &GuestInterface| near.contains(&interface.device);
    let other = host.guests.iter().find(|other| {
        other.name != own.name && other.pid.is_some() && !other.stopped && other.interfaces.iter().any(is_near)
    })?;
    Some(other.name.clone())
}

/// Families that the guest has an address of.
fn speaks(interfaces: &[&GuestInterface], address: IpAddr) -> bool {
    let own = interfaces.iter().flat_map(|interface| &interface.addresses);
    own.into_iter().any(|own| own.is_ipv6() == address.is_ipv6() && !is_self_assigned(*own))
}

fn name_server(host: &HostState, guest: &str, name_servers: &[IpAddr]) -> Option<IpAddr> {
    let (_, interfaces) = guest_named(host, guest)?;
    let is_own = |address: IpAddr| {
        host.links.values().any(|link| link.addresses.iter().any(|network| network.address == address))
    };
    let is_connected = |address: IpAddr| {
        let near = host.routes.iter().filter(|route| route.gateway.is_none() && route.destination.prefix > 0);
        near.filter(|route| route.kind == RouteKind::Unicast).any(|route| route.destination.contains(address))
    };
    name_servers.iter().copied().find(|address| {
        !address.is_loopback() && !is_own(*address) && is_connected(*address) && speaks(&interfaces, *address)
    })
}

/// The gateway of this host, where the guest does not use it itself.
fn beyond(host: &HostState, guest: &str) -> Option<IpAddr> {
    let (_, interfaces) = guest_named(host, guest)?;
    let mut defaults: Vec<_> = host.routes.iter().filter(|route| route.destination.prefix == 0).collect();
    defaults.sort_by_key(|route| (route.destination.address.is_ipv6(), route.metric));
    let is_beyond = |address: &IpAddr| {
        !is_self_assigned(*address)
            && speaks(&interfaces, *address)
            && interfaces.iter().all(|interface| {
                let segment = Segment::of(host, interface.device);
                let own = interface.addresses.iter().copied().find(|own| own.is_ipv6() == address.is_ipv6());
                segment.gateway(address.is_ipv6(), own) != Some(*address)
                    && segment.neighbour(*address).owner != Goal::Host
                    || segment.is_routed_alone()
            })
    };
    defaults.into_iter().filter_map(|route| route.gateway).find(is_beyond)
}

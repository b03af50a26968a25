//! Whose addresses are whose, and by which of them a machine is spoken to.

use super::question::Goal;
use crate::event::HostState;
use crate::event::host::{Link, LinkKind, Route};
use crate::event::is_self_assigned;
use crate::event::names::RouteKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The address that a guest would send from (RFC 6724, rule 2: the same scope).
pub(super) fn own_address(addresses: &[IpAddr], target: IpAddr) -> Option<IpAddr> {
    let same = |address: &&IpAddr| address.is_ipv6() == target.is_ipv6();
    addresses.iter().filter(same).find(|address| is_self_assigned(**address) == is_self_assigned(target)).copied()
}

/// An address of this host on a network that its default route leads out of, else any.
pub(super) fn outside_address(host: &HostState, v6: bool) -> Option<IpAddr> {
    let route = route_to(host, if v6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() });
    let outside = route.and_then(|route| route.device);
    let loopback = |link: &&Link| !matches!(link.kind, LinkKind::Loopback);
    let mut links: Vec<&Link> = host.links.values().filter(loopback).collect();
    links.sort_by_key(|link| (Some(link.index) != outside, link.index));
    let mut addresses = links.iter().flat_map(|link| &link.addresses).map(|network| network.address);
    addresses.find(|address| address.is_ipv6() == v6 && !is_self_assigned(*address))
}

/// The longest match of the main table.
pub(super) fn route_to(host: &HostState, address: IpAddr) -> Option<&Route> {
    let fits = host.routes.iter().filter(|route| {
        matches!(route.table, 0 | 254) && route.kind == RouteKind::Unicast && route.destination.contains(address)
    });
    fits.max_by_key(|route| (route.destination.prefix, std::cmp::Reverse(route.metric)))
}

/// Whose an address is.
pub(super) fn owner(host: &HostState, address: IpAddr) -> Goal {
    if host.links.values().any(|link| link.addresses.iter().any(|own| own.address == address)) {
        return Goal::Host;
    }
    let interfaces = host.guests.iter().flat_map(|guest| &guest.interfaces);
    let owner = interfaces.into_iter().find(|interface| interface.addresses.contains(&address));
    owner.map_or(Goal::Beyond, |interface| Goal::Guest(interface.device))
}

/// A family in words.
pub(super) fn family(v6: bool) -> &'static str {
    if v6 { "IPv6" } else { "IPv4" }
}

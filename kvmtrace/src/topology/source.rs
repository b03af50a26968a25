//! Which of its addresses this host takes as a source (`inet_select_addr` in `net/ipv4/devinet.c`, `ipv6_dev_get_saddr` in
//! `net/ipv6/addrconf.c` of 6.12).

use super::Topology;
use crate::event::host::{Link, Network};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

impl<'a> Topology<'a> {
    /// `inet_select_addr` with scope universe: the device's address in the next hop's network, else its first one, else that of its
    /// VRF, else the first address of any device.
    pub fn select_v4(&self, device: &'a Link, next_hop: Ipv4Addr) -> Option<Ipv4Addr> {
        let own = || primaries(device).filter(|(_, address)| !address.is_loopback());
        let near = own().find(|(network, _)| network.contains(IpAddr::V4(next_hop)));
        let first = |link: &'a Link| primaries(link).map(|(_, address)| address).find(|address| !address.is_loopback());
        let vrf = self.vrf_of(device);
        let of_vrf = |link: &&Link| self.vrf_of(link).map(|vrf| vrf.index) == vrf.map(|vrf| vrf.index);
        near.or_else(|| own().next())
            .map(|(_, address)| address)
            .or_else(|| vrf.and_then(first))
            .or_else(|| self.host.links.values().filter(of_vrf).find_map(first))
    }

    /// `ipv6_dev_get_saddr`: the best address of all devices for a destination, by the rules of RFC 6724, section 5, that compare
    /// addresses alone. None where no address will do.
    pub fn select_v6(&self, device: &Link, destination: Ipv6Addr) -> Option<Ipv6Addr> {
        let bound = destination.is_multicast() || destination.is_unicast_link_local();
        let only = bound || self.device_sysctl("ipv6", device, "use_oif_addrs_only") == Some(1);
        let links = self.host.links.values().filter(|link| link.index == device.index || !only && link.up);
        let candidates = links.flat_map(|link| {
            link.addresses.iter().filter_map(move |network| match network.address {
                IpAddr::V6(address) if !address.is_loopback() => Some((link, address)),
                IpAddr::V4(_) | IpAddr::V6(_) => None,
            })
        });
        let wanted = scope(destination);
        let rank = |(link, address): &(&Link, Ipv6Addr)| {
            let scope = scope(*address);
            // Rule 2: of those that reach the destination the narrowest, else the widest.
            let reach = if scope >= wanted { (1, u8::MAX - scope) } else { (0, scope) };
            (
                *address == destination,
                reach,
                link.index == device.index,
                label(*address) == label(destination),
                common(*address, destination),
            )
        };
        // The first of equals stays (`__ipv6_dev_get_saddr` replaces for a better one only).
        candidates.reduce(|best, next| if rank(&next) > rank(&best) { next } else { best }).map(|(_, address)| address)
    }
}

/// Addresses of a device that are no other's secondary: the first of each network (`__inet_insert_ifa`).
fn primaries(link: &Link) -> impl Iterator<Item = (&Network, Ipv4Addr)> {
    let is_primary = |at: usize, network: &Network| {
        !link
            .addresses
            .iter()
            .take(at)
            .any(|before| before.prefix == network.prefix && before.contains(network.address))
    };
    link.addresses.iter().enumerate().filter_map(move |(at, network)| match network.address {
        IpAddr::V4(address) if is_primary(at, network) => Some((network, address)),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    })
}

/// `__ipv6_addr_src_scope`: 2 link-local, 5 site-local, 14 global; of a group its own.
fn scope(address: Ipv6Addr) -> u8 {
    let [first, second, ..] = address.octets();
    match first {
        0xff => second & 0xf,
        _ if address.is_unicast_link_local() || address.is_loopback() => 2,
        // fec0::/10, the site-local addresses of old.
        0xfe if second & 0xc0 == 0xc0 => 5,
        _ => 14,
    }
}

/// The labels of `net/ipv6/addrlabel.c` (RFC 6724, 2.1), most specific first.
fn label(address: Ipv6Addr) -> u8 {
    let segments = address.segments();
    match (segments, address.octets()) {
        ([0, 0, 0, 0, 0, 0, 0, 1], _) => 0,
        ([0, 0, 0, 0, 0, 0xffff, ..], _) => 4,
        ([0, 0, 0, 0, 0, 0, ..], _) => 3,
        ([0x2001, 0, ..], _) => 6,
        ([0x2001, second, ..], _) if second & 0xfff0 == 0x10 => 7,
        ([0x2002, ..], _) => 2,
        (_, [first, ..]) if first & 0xfe == 0xfc => 5,
        (_, [0xfe, second, ..]) if second & 0xc0 == 0xc0 => 11,
        _ => 1,
    }
}

/// Rule 8: bits that both have in common, of the first 64.
fn common(one: Ipv6Addr, other: Ipv6Addr) -> u32 {
    (u128::from(one) ^ u128::from(other)).leading_zeros().min(64)
}

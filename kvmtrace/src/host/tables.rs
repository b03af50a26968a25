//! Routes, neighbours, forwarding databases and queueing disciplines.

use super::links::index;
use super::netlink::{Attributes, Message, Netlink, read_address, read_u16};
use crate::event::IfIndex;
use crate::event::bounds;
use crate::event::host::{FdbEntry, Neighbour, Network, Route};
use crate::event::names::{NeighbourState, RouteKind};
use nix::libc;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// `struct rtmsg`
const ROUTE_HEADER: usize = 12;
/// `struct ndmsg`
const NEIGHBOUR_HEADER: usize = 12;
/// Proxied addresses that are kept: a recording holds the host's state whole.
const PROXIES: usize = 4_096;

/// Routes, of which no more are kept than a trace has room for, and how many there are.
#[derive(Debug, Default)]
pub(super) struct Routes {
    pub(super) kept: Vec<Route>,
    pub(super) all: u64,
}

impl Routes {
    fn take(&mut self, routes: Vec<Route>) {
        self.all += routes.len() as u64;
        self.kept.extend(routes);
        if self.kept.len() >= 2 * bounds::MOST {
            bounds::keep_routes(&mut self.kept, bounds::MOST);
        }
    }
}

/// Routes of all tables but `local`, IPv4 first. A route over several next hops is told once for each.
pub(super) fn routes(netlink: &mut Netlink) -> io::Result<Routes> {
    let mut routes = Routes::default();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut request = [0; ROUTE_HEADER];
        request[0] = family;
        let of_family: Routes = netlink
            .collect(libc::RTM_GETROUTE, &request, |routes: &mut Routes, message| routes.take(route(&message)))?;
        routes.kept.extend(of_family.kept);
        routes.all += of_family.all;
    }
    bounds::keep_routes(&mut routes.kept, bounds::MOST);
    Ok(routes)
}

fn route(message: &Message) -> Vec<Route> {
    const RTAX_MTU: u16 = 2;
    let Some((header, attributes)) = message.split(ROUTE_HEADER) else { return Vec::new() };
    let table = attributes.u32(libc::RTA_TABLE).unwrap_or(u32::from(header[4]));
    let kind = match header[7] {
        libc::RTN_UNICAST => RouteKind::Unicast,
        libc::RTN_BLACKHOLE => RouteKind::Blackhole,
        libc::RTN_UNREACHABLE => RouteKind::Unreachable,
        libc::RTN_PROHIBIT => RouteKind::Prohibit,
        libc::RTN_THROW => RouteKind::Throw,
        _ => return Vec::new(),
    };
    if table == u32::from(libc::RT_TABLE_LOCAL) {
        return Vec::new();
    }
    let any = if i32::from(header[0]) == libc::AF_INET6 {
        IpAddr::from(Ipv6Addr::UNSPECIFIED)
    } else {
        Ipv4Addr::UNSPECIFIED.into()
    };
    let route = Route {
        destination: Network { address: attributes.address(libc::RTA_DST).unwrap_or(any), prefix: header[1] },
        gateway: gateway(attributes),
        // IPv6 hangs its blackholes on the loopback device.
        device: attributes.get(libc::RTA_OIF).filter(|_| kind == RouteKind::Unicast).and_then(index),
        source: attributes.address(libc::RTA_PREFSRC),
        table,
        metric: attributes.u32(libc::RTA_PRIORITY).unwrap_or(0),
        kind,
        mtu: attributes.nested(libc::RTA_METRICS).u32(RTAX_MTU),
    };
    let hops = next_hops(attributes.get(libc::RTA_MULTIPATH).unwrap_or_default());
    if hops.is_empty() {
        return vec![route];
    }
    hops.into_iter().map(|(gateway, device)| Route { gateway, device, ..route.clone() }).collect()
}

fn gateway(attributes: Attributes<'_>) -> Option<IpAddr> {
    // RTA_VIA: an IPv4 route by an IPv6 next hop; the address stands after its family.
    attributes
        .address(libc::RTA_GATEWAY)
        .or_else(|| attributes.get(libc::RTA_VIA).and_then(|value| value.get(2..)).and_then(read_address))
}

/// `struct rtnexthop` entries.
fn next_hops(mut bytes: &[u8]) -> Vec<(Option<IpAddr>, Option<crate::event::IfIndex>)> {
    let mut hops = Vec::new();
    while let Some(hop) = read_u16(bytes).and_then(|length| bytes.get(..usize::from(length)))
        && hop.len() >= 8
    {
        hops.push((gateway(Attributes(&hop[8..])), index(&hop[4..])));
        bytes = bytes.get(hop.len().next_multiple_of(4)..).unwrap_or_default();
    }
    hops
}

/// The ARP and ND tables.
pub(super) fn neighbours(netlink: &mut Netlink) -> io::Result<Vec<Neighbour>> {
    let mut neighbours = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut request = [0; NEIGHBOUR_HEADER];
        request[0] = family;
        neighbours.extend(netlink.dump(libc::RTM_GETNEIGH, &request)?.iter().filter_map(neighbour));
    }
    neighbours.sort_by_key(|neighbour| (neighbour.device, neighbour.address));
    Ok(neighbours)
}

/// What this host answers for in another's place, of which no more are kept than a trace has room for.
pub(super) fn proxies(netlink: &mut Netlink) -> io::Result<Vec<(IpAddr, IfIndex)>> {
    const NTF_PROXY: u8 = 1 << 3;
    const NDM_FLAGS: usize = 10;
    let mut proxies = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut request = [0; NEIGHBOUR_HEADER];
        request[0] = family;
        request[NDM_FLAGS] = NTF_PROXY;
        let messages = netlink.dump(libc::RTM_GETNEIGH, &request)?;
        proxies.extend(messages.iter().filter_map(|message| {
            let (header, attributes) = message.split(NEIGHBOUR_HEADER)?;
            Some((attributes.address(libc::NDA_DST)?, index(&header[4..])?))
        }));
    }
    proxies.sort_unstable();
    proxies.truncate(PROXIES);
    Ok(proxies)
}

fn neighbour(message: &Message) -> Option<Neighbour> {
    let (header, attributes) = message.split(NEIGHBOUR_HEADER)?;
    let address = attributes.address(libc::NDA_DST)?;
    if address.is_multicast() {
        return None;
    }
    let state = match read_u16(&header[8..])? {
        libc::NUD_INCOMPLETE => NeighbourState::Incomplete,
        libc::NUD_REACHABLE => NeighbourState::Reachable,
        libc::NUD_STALE => NeighbourState::Stale,
        libc::NUD_DELAY => NeighbourState::Delay,
        libc::NUD_PROBE => NeighbourState::Probe,
        libc::NUD_FAILED => NeighbourState::Failed,
        libc::NUD_NOARP => NeighbourState::NoArp,
        libc::NUD_PERMANENT => NeighbourState::Permanent,
        _ => NeighbourState::None,
    };
    let mac = attributes.mac(libc::NDA_LLADDR).filter(|mac| !mac.is_zero());
    Some(Neighbour { address, device: index(&header[4..])?, mac, state })
}

/// The forwarding databases of bridges and VXLAN devices.
pub(super) fn forwarding(netlink: &mut Netlink) -> io::Result<Vec<FdbEntry>> {
    let mut request = [0; NEIGHBOUR_HEADER];
    request[0] = libc::AF_BRIDGE as u8;
    let mut entries: Vec<_> = netlink.dump(libc::RTM_GETNEIGH, &request)?.iter().filter_map(forwarding_entry).collect();
    // The kernel walks hash tables.
    entries.sort_by_key(|entry| (entry.device, entry.mac, entry.vlan, entry.bridge, entry.remote));
    Ok(entries)
}

fn forwarding_entry(message: &Message) -> Option<FdbEntry> {
    const NTF_STICKY: u8 = 1 << 6;
    const NDA_NH_ID: u16 = 13;
    let (header, attributes) = message.split(NEIGHBOUR_HEADER)?;
    let state = read_u16(&header[8..])?;
    // Every NIC tells its multicast filter in the same dump; that is no forwarding database.
    if [libc::NDA_MASTER, libc::NDA_DST, NDA_NH_ID].iter().all(|&kind| attributes.get(kind).is_none()) {
        return None;
    }
    Some(FdbEntry {
        mac: attributes.mac(libc::NDA_LLADDR)?,
        device: index(&header[4..])?,
        bridge: attributes.get(libc::NDA_MASTER).and_then(index),
        vlan: attributes.u16(libc::NDA_VLAN),
        permanent: state & libc::NUD_PERMANENT != 0,
        fixed: state & (libc::NUD_NOARP | libc::NUD_PERMANENT) != 0,
        sticky: header[10] & NTF_STICKY != 0,
        remote: attributes.address(libc::NDA_DST),
    })
}

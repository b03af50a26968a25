//! Which devices a guest's packets pass: where the hooks go. Pure.

use crate::event::IfIndex;
use crate::event::host::{Guest, HostState, Link, LinkKind};
use crate::event::is_self_assigned;
use crate::event::names::RouteKind;
use crate::event::switched::Switched;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// What the operator asked for. Nothing asked for means every guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// `-g`: names or UUIDs of guests.
    pub guests: Vec<String>,
    /// `-i`: names of devices.
    pub devices: Vec<String>,
    /// `--all`: also what touches no guest.
    pub all: bool,
}

/// A name in the scope that means nothing here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    /// `-i`
    #[error("{0}: no such interface; `kvmtrace guests` lists them")]
    NoDevice(String),
    /// `-g`
    #[error("{0}: no such guest; `kvmtrace guests` lists them")]
    NoGuest(String),
    /// `-i lo`
    #[error("{0}: no guest's packets pass the loopback device; `kvmtrace guests` lists interfaces")]
    Loopback(String),
}

/// The devices to hook, in the order of their indices: the guests' interfaces in scope and everything on their way
/// out. A device that is no guest's stands for the guests whose way leads over it.
pub fn devices_to_trace(state: &HostState, scope: &Scope) -> Result<Vec<IfIndex>, ScopeError> {
    let switched = Switched::new(state);
    let mut interfaces = BTreeSet::new();
    let mut devices = BTreeSet::new();
    for name in &scope.guests {
        let guest = guest_named(state, name).ok_or_else(|| ScopeError::NoGuest(name.clone()))?;
        interfaces.extend(guest.interfaces.iter().map(|interface| interface.device));
    }
    for name in &scope.devices {
        let link = state.link_named(name).ok_or_else(|| ScopeError::NoDevice(name.clone()))?;
        if matches!(link.kind, LinkKind::Loopback) {
            return Err(ScopeError::Loopback(name.clone()));
        }
        devices.insert(link.index);
        if state.guest_of(link.index).is_some() {
            interfaces.insert(link.index);
        } else {
            interfaces.extend(
                guest_interfaces(state).filter(|&interface| way(state, &switched, interface).contains(&link.index)),
            );
        }
    }
    if scope.guests.is_empty() && scope.devices.is_empty() {
        interfaces.extend(guest_interfaces(state));
    }
    for interface in interfaces {
        devices.extend(way(state, &switched, interface));
    }
    if scope.all {
        devices.extend(state.links.keys());
    }
    devices.retain(|&device| state.link(device).is_some_and(|link| !matches!(link.kind, LinkKind::Loopback)));
    Ok(devices.into_iter().collect())
}

/// The guest with this name or UUID.
pub fn guest_named<'a>(state: &'a HostState, name: &str) -> Option<&'a Guest> {
    let by_uuid =
        || state.guests.iter().find(|guest| guest.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(name)));
    state.guests.iter().find(|guest| guest.name == name).or_else(by_uuid)
}

fn guest_interfaces(state: &HostState) -> impl Iterator<Item = IfIndex> {
    state.guests.iter().flat_map(|guest| &guest.interfaces).map(|interface| interface.device)
}

/// All devices that a packet of this interface may pass, itself included.
fn way(state: &HostState, switched: &Switched<'_>, interface: IfIndex) -> BTreeSet<IfIndex> {
    let mut seen = BTreeSet::new();
    spread(state, switched, interface, &mut seen);
    let routed = seen.iter().filter_map(|&device| state.link(device)).any(has_own_address)
        || state.routes.iter().any(|route| route.device == Some(interface));
    if !routed && !leads_out(state, interface, &seen) {
        // Cut off: what was to be its uplink shows that packets for it arrive and go nowhere.
        let stray = |link: &&Link| link.master.is_none() && is_nic_or_bridge(&link.kind);
        for link in state.links.values().filter(stray) {
            spread(state, switched, link.index, &mut seen);
        }
    }
    if routed {
        for route in state
            .routes
            .iter()
            .filter(|route| route.kind == RouteKind::Unicast && !is_link_local(route.destination.address))
        {
            if let Some(device) = route.device {
                spread(state, switched, device, &mut seen);
            }
        }
    }
    seen
}

/// Something else than guests is on the guest's segment.
fn leads_out(state: &HostState, interface: IfIndex, segment: &BTreeSet<IfIndex>) -> bool {
    let mut others = segment.iter().filter(|&&device| device != interface).filter_map(|&device| state.link(device));
    others.any(|link| state.guest_of(link.index).is_none() && !matches!(link.kind, LinkKind::Bridge(_) | LinkKind::Tun))
}

fn is_nic_or_bridge(kind: &LinkKind) -> bool {
    matches!(
        kind,
        LinkKind::Physical
            | LinkKind::Veth
            | LinkKind::Bond
            | LinkKind::Vlan { .. }
            | LinkKind::Vxlan { .. }
            | LinkKind::Bridge(_)
    )
}

/// Adds a device and all that are joined with it at layer 2.
fn spread(state: &HostState, switched: &Switched<'_>, device: IfIndex, seen: &mut BTreeSet<IfIndex>) {
    let mut open = vec![device];
    let mut bridges: Vec<usize> = Vec::new();
    while let Some(device) = open.pop() {
        let Some(link) = state.link(device) else { continue };
        if matches!(link.kind, LinkKind::Loopback) || !seen.insert(device) {
            continue;
        }
        let place = switched.place(device);
        // All ports of Open vSwitch have one master: which bridge they are of, only its own tables say.
        open.extend(link.master.filter(|_| place.is_none()));
        if let Some(place) = place.filter(|place| !bridges.contains(&place.bridge)) {
            bridges.push(place.bridge);
            bridges.extend(switched.joined(device));
            open.extend(switched.beside(device));
        }
        open.extend(link.lower);
        // A pair within this namespace joins two bridges (Proxmox's firewall bridges, OpenStack's hybrid plug).
        open.extend(link.peer);
        if matches!(link.kind, LinkKind::Bridge(_) | LinkKind::Bond) {
            open.extend(state.ports(device).map(|port| port.index));
        }
        if let LinkKind::Vxlan { remote, .. } = link.kind {
            let entries = state.forwarding.iter().filter(|entry| entry.device == device);
            let remotes = entries.filter_map(|entry| entry.remote).chain(remote);
            open.extend(remotes.filter_map(|remote| route_to(state, remote)));
        }
    }
}

/// The device of the most specific route.
fn route_to(state: &HostState, address: IpAddr) -> Option<IfIndex> {
    let fitting = state.routes.iter().filter(|route| route.destination.contains(address));
    fitting.max_by_key(|route| (route.destination.prefix, std::cmp::Reverse(route.metric)))?.device
}

/// The host itself can be a next hop here.
fn has_own_address(link: &Link) -> bool {
    link.addresses.iter().any(|network| !is_link_local(network.address))
}

fn is_link_local(address: IpAddr) -> bool {
    is_self_assigned(address) || address.is_ipv6() && address.is_multicast()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::host::{BridgeState, GuestInterface, Network, Route};
    use crate::host::test_hosts::{link, state};
    use rstest::rstest;

    fn network(text: &str) -> Network {
        let (address, prefix) = text.split_once('/').unwrap();
        Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
    }

    fn route(destination: &str, device: u32) -> Route {
        Route {
            destination: network(destination),
            gateway: None,
            device: Some(IfIndex(device)),
            source: None,
            table: 254,
            metric: 0,
            kind: RouteKind::Unicast,
            mtu: None,
        }
    }

    fn bridge() -> LinkKind {
        LinkKind::Bridge(BridgeState::default())
    }

    fn with(mut link: Link, change: impl FnOnce(&mut Link)) -> Link {
        change(&mut link);
        link
    }

    /// br0: web1 and bond0.7 on bond0 of eth0 and eth1; br1 with an address: web2; br2: web3 and a pair to br0;
    /// br3: web4 and a VXLAN without a device, whose remote is behind eth2; eth2 also has the default route.
    fn host() -> HostState {
        let port = |index, name: &str, kind, master: u32| {
            with(link(index, name, kind), |link| link.master = Some(IfIndex(master)))
        };
        let vxlan = LinkKind::Vxlan {
            vni: 1,
            remote: Some("192.0.2.9".parse().unwrap()),
            local: None,
            port: 4789,
            dont_fragment: 0,
        };
        let mut host = state([
            link(1, "lo", LinkKind::Loopback),
            port(2, "eth0", LinkKind::Physical, 4),
            port(3, "eth1", LinkKind::Physical, 4),
            link(4, "bond0", LinkKind::Bond),
            with(port(5, "bond0.7", LinkKind::Vlan { id: 7 }, 10), |link| link.lower = Some(IfIndex(4))),
            link(6, "eth2", LinkKind::Physical),
            link(7, "eth3", LinkKind::Physical),
            link(10, "br0", bridge()),
            with(link(11, "br1", bridge()), |link| link.addresses.push(network("10.1.0.1/24"))),
            link(12, "br2", bridge()),
            link(13, "br3", bridge()),
            port(21, "tap1", LinkKind::Tun, 10),
            port(22, "tap2", LinkKind::Tun, 11),
            port(23, "tap3", LinkKind::Tun, 12),
            port(24, "tap4", LinkKind::Tun, 13),
            with(port(31, "fwln", LinkKind::Veth, 12), |link| link.peer = Some(IfIndex(32))),
            with(port(32, "fwpr", LinkKind::Veth, 10), |link| link.peer = Some(IfIndex(31))),
            port(33, "vx0", vxlan, 13),
            with(link(34, "macvtap0", LinkKind::Macvtap { mode: crate::event::names::MacvtapMode::Bridge }), |link| {
                link.lower = Some(IfIndex(7));
            }),
        ]);
        host.routes = vec![route("0.0.0.0/0", 6), route("10.1.0.0/24", 11), route("127.0.0.0/8", 1)];
        for (name, device) in [("web1", 21), ("web2", 22), ("web3", 23), ("web4", 24), ("web5", 34)] {
            let interface = GuestInterface::new(IfIndex(device), "tap", None, Vec::new());
            host.guests.push(Guest { name: name.to_owned(), interfaces: vec![interface], ..Guest::default() });
        }
        host
    }

    fn names(host: &HostState, scope: &Scope) -> Vec<String> {
        devices_to_trace(host, scope).unwrap().into_iter().map(|device| host.link_name(device)).collect()
    }

    #[rstest]
    #[case::over_a_vlan_on_a_bond("web2", "eth2 br1 tap2")]
    #[case::over_a_pair_of_bridges("web3", "eth0 eth1 bond0 bond0.7 br0 br2 tap1 tap3 fwln fwpr")]
    #[case::over_a_tunnel("web4", "eth2 br3 tap4 vx0")]
    #[case::over_the_device_below_a_macvtap("web5", "eth3 macvtap0")]
    fn the_way_of_a_guest(#[case] guest: &str, #[case] devices: &str) {
        let scope = Scope { guests: vec![guest.to_owned()], ..Scope::default() };
        assert_eq!(names(&host(), &scope).join(" "), devices);
    }

    #[test]
    fn a_pair_of_bridges_has_the_uplinks_of_the_other() {
        let host = host();
        let bridge = host.link_named("br2").unwrap().index;
        assert_eq!(host.uplinks(bridge).map(|link| link.name.as_str()).collect::<Vec<_>>(), ["bond0.7"]);
    }

    #[test]
    fn a_routed_guest_is_traced_at_tunnels_that_routes_of_any_table_lead_to() {
        let mut host = host();
        for (index, name, kind) in [(40, "tun0", "tun"), (41, "wg0", "wireguard"), (42, "tun1", "tun")] {
            let tunnel = with(link(index, name, LinkKind::Other(kind.to_owned())), |link| {
                (link.ethernet, link.mac) = (false, None);
            });
            host.links.insert(IfIndex(index), tunnel);
        }
        host.routes.push(route("10.66.0.0/24", 40));
        host.routes.push(Route { table: 51820, ..route("0.0.0.0/0", 41) });
        let way = |guest: &str| names(&host, &Scope { guests: vec![guest.to_owned()], ..Scope::default() }).join(" ");
        assert_eq!(way("web2"), "eth2 br1 tap2 tun0 wg0");
        assert_eq!(way("web5"), "eth3 macvtap0");
    }

    #[test]
    fn a_nic_stands_for_the_guests_whose_way_leads_over_it() {
        let scope = Scope { devices: vec!["eth3".to_owned()], ..Scope::default() };
        assert_eq!(names(&host(), &scope), ["eth3", "macvtap0"]);
    }

    #[test]
    fn a_guest_that_is_cut_off_is_traced_with_the_devices_that_could_have_been_its_way() {
        let mut host = host();
        for name in ["tap4", "eth2"] {
            let index = host.link_named(name).unwrap().index;
            host.links.get_mut(&index).unwrap().master = None;
        }
        let scope = Scope { guests: vec!["web4".to_owned()], ..Scope::default() };
        let names = names(&host, &scope);
        for device in ["tap4", "br3", "eth2", "br0"] {
            assert!(names.iter().any(|name| name == device), "{device}");
        }
    }

    #[test]
    fn without_a_scope_every_guest_is_traced_and_with_all_everything_but_loopback() {
        let host = host();
        assert!(!names(&host, &Scope::default()).contains(&"lo".to_owned()));
        let all = names(&host, &Scope { all: true, ..Scope::default() });
        assert_eq!(all.len(), host.links.len() - 1);
    }

    #[test]
    fn a_host_without_guests_has_nothing_to_trace() {
        let host = HostState { guests: Vec::new(), ..host() };
        assert_eq!(names(&host, &Scope::default()), [""; 0]);
    }

    #[rstest]
    #[case(Scope { guests: vec!["web9".to_owned()], ..Scope::default() }, "web9: no such guest; `kvmtrace guests` lists them")]
    #[case(Scope { devices: vec!["vnet7".to_owned()], ..Scope::default() }, "vnet7: no such interface; `kvmtrace guests` lists them")]
    fn unknown_names_are_told(#[case] scope: Scope, #[case] message: &str) {
        assert_eq!(devices_to_trace(&host(), &scope).unwrap_err().to_string(), message);
    }
}

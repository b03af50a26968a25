//! A guest's own network as far as this host knows it: which of the host's devices are on it, its prefix, its gateway, who has
//! which MAC address there.

use super::question::{Goal, NextHop};
use crate::event::host::{BridgeState, GuestInterface, Link, LinkKind, Network, PortVlan, Route};
use crate::event::is_self_assigned;
use crate::event::switched::Switched;
use crate::event::{HostState, IfIndex};
use crate::topology::is_served;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The layer-2 network of one guest's interface.
#[derive(Debug)]
pub struct Segment<'a> {
    host: &'a HostState,
    /// The guest's interface.
    pub interface: IfIndex,
    /// The VLAN that the bridge puts the guest's untagged frames in; none where it does not filter by VLAN.
    pub vlan: Option<u16>,
    /// Devices of this host by which its own stack is on the segment.
    near: Vec<&'a Link>,
    /// Bridges of the segment.
    bridges: Vec<IfIndex>,
    /// The device below a macvtap.
    lower: Option<IfIndex>,
    /// Devices of the same bridge of Open vSwitch, and of those that are joined to it.
    switched: BTreeSet<IfIndex>,
    /// Those of them that lead beyond this host.
    switch_uplinks: Vec<&'a Link>,
}

impl<'a> Segment<'a> {
    /// The segment of a guest's interface.
    pub fn of(host: &'a HostState, interface: IfIndex) -> Self {
        let mut segment = Self {
            host,
            interface,
            vlan: None,
            near: Vec::new(),
            bridges: Vec::new(),
            lower: None,
            switched: BTreeSet::new(),
            switch_uplinks: Vec::new(),
        };
        let Some(link) = host.link(interface) else { return segment };
        if let (LinkKind::Macvtap { .. }, Some(lower)) = (&link.kind, link.lower) {
            segment.lower = Some(lower);
            let beside = host.links.values().filter(|other| other.lower == Some(lower) && is_macvlan(other));
            segment.near = host.link(lower).into_iter().chain(beside).collect();
            return segment;
        }
        let bridge = link.master.and_then(|master| host.link(master));
        match bridge.map(|bridge| (bridge, &bridge.kind)) {
            Some((bridge, LinkKind::Bridge(state))) => segment.bridged(link, bridge, state),
            _ => segment.switched(link),
        }
        segment
    }

    /// On a bridge of Open vSwitch; else this host routes for the interface alone.
    fn switched(&mut self, link: &'a Link) {
        let switched = Switched::new(self.host);
        self.switched = switched.beside(link.index);
        if self.switched.is_empty() {
            self.near.push(link);
            return;
        }
        let own = |link: &&Link| matches!(&link.kind, LinkKind::Other(kind) if kind == "openvswitch");
        self.near = self.switched.iter().filter_map(|device| self.host.link(*device)).filter(own).collect();
        self.switch_uplinks = switched.uplinks(link.index);
    }

    fn bridged(&mut self, port: &Link, bridge: &'a Link, state: &BridgeState) {
        let pvid = |vlans: &[PortVlan]| vlans.iter().find(|vlan| vlan.pvid).map(|vlan| vlan.id);
        self.bridges = self.host.joined(bridge.index);
        if state.vlan_filtering {
            self.vlan = port.port.as_ref().and_then(|port| pvid(&port.vlans));
            if self.vlan.is_some() && pvid(&state.vlans) == self.vlan {
                self.near.push(bridge);
            }
            let vlan = self.vlan;
            let of_vlan = move |link: &&Link| matches!(link.kind, LinkKind::Vlan { id } if Some(id) == vlan);
            self.near.extend(self.stacked_on(bridge.index).filter(of_vlan));
        } else {
            let bridges = self.bridges.iter().filter_map(|bridge| self.host.link(*bridge));
            self.near = bridges.collect();
            let stacked =
                self.bridges.iter().flat_map(|bridge| self.stacked_on(*bridge)).filter(|link| is_macvlan(link));
            let stacked: Vec<&Link> = stacked.collect();
            self.near.extend(stacked);
        }
    }

    fn stacked_on(&self, lower: IfIndex) -> impl Iterator<Item = &'a Link> + use<'a> {
        self.host.links.values().filter(move |link| link.lower == Some(lower))
    }

    /// Devices by which the segment reaches beyond this host. Those that are up come first.
    pub fn uplinks(&self) -> Vec<&'a Link> {
        let mut uplinks: Vec<&Link> = match (self.lower, self.bridges.first()) {
            (Some(lower), _) => self.host.link(lower).into_iter().collect(),
            (None, Some(bridge)) => self.host.uplinks(*bridge).collect(),
            (None, None) => self.switch_uplinks.clone(),
        };
        uplinks.sort_by_key(|link| (!link.up, !link.carrier, link.index));
        uplinks
    }

    /// The guest's interface is on no bridge and no other device: this host routes for it alone.
    pub fn is_routed_alone(&self) -> bool {
        self.bridges.is_empty() && self.lower.is_none() && self.switched.is_empty()
    }

    /// This host serves one of the devices of the segment by itself.
    fn is_served(&self) -> bool {
        self.near.iter().any(|link| is_served(self.host, link))
    }

    /// Guests' interfaces on the segment, the own one included.
    pub fn guests(&self) -> impl Iterator<Item = &'a GuestInterface> {
        let all = self.host.guests.iter().flat_map(|guest| &guest.interfaces);
        all.filter(|interface| {
            interface.device == self.interface
                || self.host.link(interface.device).is_some_and(|link| self.is_member(link))
        })
    }

    fn is_member(&self, link: &Link) -> bool {
        let bridged = link.master.is_some_and(|master| self.bridges.contains(&master)) && {
            let of_vlan = |port: &crate::event::host::BridgePort| {
                self.vlan.is_none_or(|vlan| port.vlans.iter().any(|own| own.pvid && own.id == vlan))
            };
            link.port.as_ref().is_none_or(of_vlan)
        };
        bridged
            || self.switched.contains(&link.index)
            || self.lower.is_some() && link.lower == self.lower && matches!(link.kind, LinkKind::Macvtap { .. })
    }

    /// This host's own address on the segment, the one of the guest's prefix first.
    pub fn host_address(&self, v6: bool, guest: Option<IpAddr>) -> Option<IpAddr> {
        self.own(v6).max_by_key(|network| guest.is_some_and(|guest| network.contains(guest))).map(|own| own.address)
    }

    /// Addresses of this host on the segment; of IPv6, none but link-local ones only where there is nothing else.
    fn own(&self, v6: bool) -> impl Iterator<Item = &'a Network> + Clone + use<'a> {
        let of_family = move |network: &&Network| network.address.is_ipv6() == v6;
        let all: Vec<&Network> = self.near.iter().flat_map(|link| &link.addresses).filter(of_family).collect();
        let wide: Vec<&Network> = all.iter().copied().filter(|network| !is_self_assigned(network.address)).collect();
        if wide.is_empty() { all.into_iter() } else { wide.into_iter() }
    }

    /// The prefix of the guest's network, where an address or route of this host shows it; of IPv6 the usual /64.
    pub fn network(&self, guest: IpAddr) -> Option<Network> {
        if is_self_assigned(guest) {
            return Some(Network { address: guest, prefix: if guest.is_ipv6() { 64 } else { 16 } });
        }
        let whole = if guest.is_ipv6() { 128 } else { 32 };
        let near =
            |route: &&Route| route.gateway.is_none() && self.near.iter().any(|link| route.device == Some(link.index));
        let routed = self.host.routes.iter().filter(near).map(|route| &route.destination);
        let fits =
            self.own(guest.is_ipv6()).chain(routed).filter(|network| network.contains(guest) && network.prefix < whole);
        let known = fits.max_by_key(|network| network.prefix).copied();
        let usual = guest.is_ipv6() && !self.is_routed_alone();
        known.or_else(|| usual.then_some(Network { address: guest, prefix: 64 }))
    }

    /// The guest's gateway.
    ///
    /// 1. A network that no uplink leads out of: this host's address there.
    /// 2. The gateway of this host's own default route over the same network.
    /// 3. This host's address, where it forwards.
    pub fn gateway(&self, v6: bool, guest: Option<IpAddr>) -> Option<IpAddr> {
        let own = self.host_address(v6, guest);
        if self.uplinks().is_empty() && own.is_some() {
            return own;
        }
        let default = |route: &&Route| {
            route.destination.prefix == 0
                && route.destination.address.is_ipv6() == v6
                && self.near.iter().any(|link| route.device == Some(link.index))
        };
        let by_default = self.host.routes.iter().filter(default).filter(|route| route.gateway.is_some());
        let by_default = by_default.min_by_key(|route| route.metric).and_then(|route| route.gateway);
        let forwards = self.host.sysctl(if v6 { "net.ipv6.conf.all.forwarding" } else { "net.ipv4.ip_forward" });
        by_default.or_else(|| own.filter(|_| forwards == Some("1")))
    }

    /// The machine with this address on the segment: its MAC address and whose it is.
    pub fn neighbour(&self, address: IpAddr) -> NextHop {
        if let Some(link) = self.near.iter().find(|link| link.addresses.iter().any(|own| own.address == address)) {
            return NextHop { address, mac: link.mac, owner: Goal::Host };
        }
        if let Some(guest) = self.guests().find(|guest| guest.addresses.contains(&address)) {
            return NextHop { address, mac: guest.mac, owner: Goal::Guest(guest.device) };
        }
        if self.is_routed_alone() && !self.is_served() {
            return NextHop { address, mac: None, owner: Goal::Beyond };
        }
        // An interface that this host routes for alone: the host answers for everyone else.
        if self.is_routed_alone() {
            let mac = self.near.first().and_then(|link| link.mac);
            return NextHop { address, mac, owner: Goal::Host };
        }
        let here = |device: IfIndex| self.near.iter().any(|link| link.index == device);
        let neighbours = self.host.neighbours.iter();
        let mac = neighbours
            .filter(|entry| entry.address == address && here(entry.device) && !entry.state.is_silent())
            .find_map(|entry| entry.mac);
        let owner = mac.and_then(|mac| self.guests().find(|guest| guest.mac == Some(mac)));
        NextHop { address, mac, owner: owner.map_or(Goal::Beyond, |guest| Goal::Guest(guest.device)) }
    }
}

fn is_macvlan(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Macvlan)
}

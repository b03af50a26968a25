//! The stage on which flows are judged: whose address is whose, which device plays which role.
//!
//! A guest's addresses are learnt from what it sends, for the host need not know them. A guest may lie: only addresses
//! used with the interface's own MAC address count, few of them, and what the host knows comes first.

use super::index::{Index, Part};
use super::trace::Trace;
use crate::event::host::{Guest, GuestInterface, Link, LinkKind};
use crate::event::{Address, Direction, FlowCounters, FlowKey, HostState, IfIndex, MacAddress, Place, Protocol};
use crate::topology::Topology;
use crate::track::{Flow, Track};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::OnceLock;

/// Addresses that are learnt per interface.
const ADDRESSES: usize = 8;

/// What part a device plays on a guest's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// A guest's tap.
    Tap,
    /// A guest's macvtap.
    Macvtap,
    /// A bridge.
    Bridge,
    /// A VXLAN device.
    Tunnel,
    /// Any other device: a NIC, a VLAN or bond on it, one end of a veth pair.
    Nic,
}

/// Facts for judging.
#[derive(Debug)]
pub struct Scene<'a> {
    /// The trace.
    pub track: Trace<'a>,
    /// The host.
    pub host: &'a HostState,
    interfaces: BTreeMap<IfIndex, (&'a Guest, &'a GuestInterface)>,
    guest_macs: BTreeMap<MacAddress, IfIndex>,
    /// MAC addresses of machines behind a guest's interface: nested guests, containers.
    nested_macs: BTreeMap<MacAddress, IfIndex>,
    guest_addresses: BTreeMap<IpAddr, IfIndex>,
    learnt: BTreeMap<IfIndex, Vec<IpAddr>>,
    /// Addresses that the host's tables give to a guest's interface: as the trace began, and of what it knew nothing then as
    /// it ended. What guests say meanwhile changes those tables.
    resolved: BTreeMap<IpAddr, IfIndex>,
    /// A guest's interface sends from the address and gets answers there.
    answered: BTreeSet<(IpAddr, IfIndex)>,
    /// A guest, by its first interface, was sent packets from the address.
    received: BTreeSet<(IpAddr, IfIndex)>,
    advertised: BTreeMap<IpAddr, Vec<&'a Flow>>,
    topology: OnceLock<Topology<'a>>,
    index: OnceLock<Index<'a>>,
}

impl<'a> Scene<'a> {
    /// With what traffic tells.
    pub fn new(track: &'a Track) -> Self {
        Self::of_trace(Trace::new(track))
    }

    /// With what traffic tells, where flows of two senders are taken apart.
    pub fn of_trace(track: Trace<'a>) -> Self {
        let mut scene = Self::of_host(track.as_taken());
        scene.track = track;
        scene.learn();
        for flow in track.flows().filter(|flow| matches!(flow.key.protocol, Protocol::Icmpv6 { kind: 136, .. })) {
            if let Some(target) = flow.target.or(flow.key.source.ip()) {
                scene.advertised.entry(target).or_default().push(flow);
            }
        }
        scene
    }

    /// The same trace on the host as it was when the trace began.
    #[must_use]
    pub fn as_it_began(&self) -> Self {
        let track = self.track.as_taken();
        Self { track: self.track, host: track.first_host(), ..Self::of_host(track) }
    }

    /// With what the host alone tells: cheap.
    pub fn of_host(track: &'a Track) -> Self {
        let host = track.host();
        let mut scene = Self {
            track: Trace::new(track),
            host,
            interfaces: BTreeMap::new(),
            guest_macs: BTreeMap::new(),
            nested_macs: BTreeMap::new(),
            guest_addresses: BTreeMap::new(),
            learnt: BTreeMap::new(),
            resolved: BTreeMap::new(),
            answered: BTreeSet::new(),
            received: BTreeSet::new(),
            advertised: BTreeMap::new(),
            topology: OnceLock::new(),
            index: OnceLock::new(),
        };
        for state in [track.first_host(), host] {
            for interface in state.guests.iter().flat_map(|guest| &guest.interfaces) {
                for address in interface.addresses.iter().filter(|_| host.links.contains_key(&interface.device)) {
                    scene.resolved.entry(*address).or_insert(interface.device);
                }
            }
        }
        for (guest, interface) in
            host.guests.iter().flat_map(|guest| guest.interfaces.iter().map(move |interface| (guest, interface)))
        {
            scene.interfaces.entry(interface.device).or_insert((guest, interface));
            if let Some(mac) = interface.mac {
                scene.guest_macs.entry(mac).or_insert(interface.device);
            }
            for address in &interface.addresses {
                if scene.is_resolved(interface.device, *address) {
                    scene.know(interface.device, *address);
                }
            }
        }
        scene
    }

    /// The host's tables with their indexes and typed rules, made when first asked for.
    pub fn topology(&self) -> &Topology<'a> {
        self.topology.get_or_init(|| Topology::new(self.host))
    }

    /// The trace's flows by what is asked of them often, made when first asked for.
    pub fn index(&self) -> &Index<'a> {
        self.index.get_or_init(|| Index::new(self.track.flows(), |place| self.part(place)))
    }

    fn part(&self, place: Place) -> Part {
        match place.direction {
            _ if self.is_exit(place) => Part::ToGuest,
            Direction::Ingress if self.role(place.device) == Role::Nic => Part::FromNic,
            Direction::Ingress if self.interface(place.device).is_none() => Part::FromElsewhere,
            Direction::Ingress | Direction::Egress => Part::Other,
        }
    }

    fn know(&mut self, device: IfIndex, address: IpAddr) {
        let learnt = self.learnt.entry(device).or_default();
        if learnt.len() < ADDRESSES && !learnt.contains(&address) && !self.guest_addresses.contains_key(&address) {
            learnt.push(address);
            self.guest_addresses.insert(address, device);
        }
    }

    fn learn(&mut self) {
        let mut senders: BTreeMap<IfIndex, BTreeMap<MacAddress, u64>> = BTreeMap::new();
        let mut sources: Vec<(u64, IfIndex, MacAddress, IpAddr)> = Vec::new();
        for flow in self.track.flows() {
            for (place, counters) in flow.places.iter().filter(|(place, _)| self.is_entry(**place)) {
                *senders.entry(place.device).or_default().entry(counters.source_mac).or_default() += counters.packets;
                let own = !matches!(flow.key.protocol, Protocol::Ip(_) | Protocol::Ethernet(_));
                if let (Some(address), true) = (flow.key.source.ip(), own)
                    && !address.is_unspecified()
                    && !address.is_multicast()
                    && !address.is_loopback()
                {
                    sources.push((counters.first.0, place.device, counters.source_mac, address));
                }
            }
        }
        for (device, macs) in senders {
            let known = self.interface(device).is_some_and(|interface| interface.mac.is_some());
            if let (false, Some((mac, _))) = (known, macs.into_iter().max_by_key(|(_, packets)| *packets)) {
                self.guest_macs.entry(mac).or_insert(device);
            }
        }
        self.learn_nested();
        self.learn_talk();
        // Who is answered has the address sooner than who only sends from it.
        sources.sort_by_key(|(first, device, mac, address)| {
            (!self.is_answered(*device, *address), *first, *device, *mac, *address)
        });
        for (_, device, mac, address) in sources {
            let own = self.guest_macs.get(&mac) == Some(&device) && !self.is_host_address(address);
            if own && !self.forwards(device, address) {
                self.know(device, address);
            }
        }
    }

    /// Which foreign MAC addresses come in by one guest's interface and by no other port.
    fn learn_nested(&mut self) {
        let mut ports: BTreeMap<MacAddress, BTreeSet<IfIndex>> = BTreeMap::new();
        for flow in self.track.flows() {
            for (place, counters) in &flow.places {
                let by_port = place.direction == Direction::Ingress && self.bridge_of(place.device).is_some();
                if self.is_entry(*place) || by_port {
                    ports.entry(counters.source_mac).or_default().insert(place.device);
                }
            }
        }
        for (mac, ports) in ports {
            let is_foreign = !mac.is_zero() && !mac.is_multicast() && !self.is_host_mac(mac);
            if let ([port], true) = (&*ports.into_iter().collect::<Vec<_>>(), is_foreign)
                && self.interface(*port).is_some()
                && !self.guest_macs.contains_key(&mac)
            {
                self.nested_macs.insert(mac, *port);
            }
        }
    }

    /// Which sources guests are answered under, and which they were sent packets from.
    fn learn_talk(&mut self) {
        let (mut answered, mut received) = (BTreeSet::new(), BTreeSet::new());
        for flow in self.track.flows() {
            let Some(source) = flow.key.source.ip() else { continue };
            for (place, counters) in &flow.places {
                if self.is_exit(*place) && self.guest_by_mac(counters.destination_mac) == Some(place.device) {
                    received.extend(self.first_interface(place.device).map(|guest| (source, guest)));
                } else if self.is_entry(*place) && self.guest_by_mac(counters.source_mac) == Some(place.device) {
                    let here =
                        |flow: &Flow| flow.places.keys().any(|exit| exit.device == place.device && self.is_exit(*exit));
                    let back = flow.key.reverse();
                    let answers = [back, FlowKey { vlan: None, ..back }];
                    // What says the same in both directions (a gratuitous ARP) answers nothing.
                    let is_asked = back != flow.key;
                    if is_asked && answers.iter().any(|back| self.track.get(back).is_some_and(here)) {
                        answered.insert((source, place.device));
                    }
                }
            }
        }
        (self.answered, self.received) = (answered, received);
    }

    /// The first interface of the guest that has this one.
    fn first_interface(&self, device: IfIndex) -> Option<IfIndex> {
        self.interfaces.get(&device)?.0.interfaces.first().map(|interface| interface.device)
    }

    /// The host's tables give the address to this interface, and did so before the guests of the trace could change them.
    pub fn is_resolved(&self, device: IfIndex, address: IpAddr) -> bool {
        self.resolved.get(&address) == Some(&device)
    }

    /// The interface sends from the address and gets answers there.
    pub fn is_answered(&self, device: IfIndex, address: IpAddr) -> bool {
        self.answered.contains(&(address, device))
    }

    /// The guest was sent packets from the address: what it sends from it, it forwards (a router, a nested guest's host).
    pub fn forwards(&self, device: IfIndex, address: IpAddr) -> bool {
        self.first_interface(device).is_some_and(|guest| self.received.contains(&(address, guest)))
    }

    /// A guest's packets come in here.
    pub fn is_entry(&self, place: Place) -> bool {
        match self.role(place.device) {
            Role::Tap => place.direction == Direction::Ingress,
            Role::Macvtap => place.direction == Direction::Egress,
            Role::Bridge | Role::Tunnel | Role::Nic => false,
        }
    }

    /// Packets leave here for a guest.
    pub fn is_exit(&self, place: Place) -> bool {
        matches!(self.role(place.device), Role::Tap | Role::Macvtap) && !self.is_entry(place)
    }

    /// What part a device plays.
    pub fn role(&self, device: IfIndex) -> Role {
        let owned = self.interface(device);
        match self.host.link(device).map(|link| &link.kind) {
            Some(LinkKind::Macvtap { .. }) => Role::Macvtap,
            Some(LinkKind::Tun) => Role::Tap,
            Some(LinkKind::Bridge(_)) => Role::Bridge,
            Some(LinkKind::Vxlan { .. }) => Role::Tunnel,
            _ if owned.is_some() => Role::Tap,
            _ => Role::Nic,
        }
    }

    /// The guest's interface on this device.
    pub fn interface(&self, device: IfIndex) -> Option<&'a GuestInterface> {
        self.interfaces.get(&device).map(|(_, interface)| *interface)
    }

    /// The name of the guest behind a device.
    pub fn guest_name(&self, device: IfIndex) -> Option<String> {
        self.interfaces.get(&device).map(|(guest, _)| guest.name.clone())
    }

    /// A device.
    pub fn link(&self, device: IfIndex) -> Option<&'a Link> {
        self.host.link(device)
    }

    /// A device's name.
    pub fn name(&self, device: IfIndex) -> String {
        self.host.link_name(device)
    }

    /// The guest's interface that has this MAC address.
    pub fn guest_by_mac(&self, mac: MacAddress) -> Option<IfIndex> {
        self.guest_macs.get(&mac).copied()
    }

    /// The guest's interface that frames for this MAC address go to: its own, or one of a machine behind it.
    pub fn guest_towards(&self, mac: MacAddress) -> Option<IfIndex> {
        self.guest_by_mac(mac).or_else(|| self.nested_macs.get(&mac).copied())
    }

    /// The guest's interface that has this address.
    pub fn guest_by_address(&self, address: Address) -> Option<IfIndex> {
        match address {
            Address::Ip(address) => self.guest_addresses.get(&address).copied(),
            Address::Mac(mac) => self.guest_by_mac(mac),
        }
    }

    /// The MAC address of a guest's interface.
    pub fn mac_of(&self, device: IfIndex) -> Option<MacAddress> {
        let known = self.interface(device).and_then(|interface| interface.mac);
        known.or_else(|| self.guest_macs.iter().find(|(_, owner)| **owner == device).map(|(mac, _)| *mac))
    }

    /// The addresses of a guest's interface.
    pub fn addresses_of(&self, device: IfIndex) -> &[IpAddr] {
        self.learnt.get(&device).map_or(&[], Vec::as_slice)
    }

    /// The address is one of the host's own.
    pub fn is_host_address(&self, address: IpAddr) -> bool {
        self.device_of_address(address).is_some()
    }

    /// The device that bears this address of the host.
    pub fn device_of_address(&self, address: IpAddr) -> Option<&'a Link> {
        self.host.links.values().find(|link| link.addresses.iter().any(|network| network.address == address))
    }

    /// The MAC address is one of the host's own.
    pub fn is_host_mac(&self, mac: MacAddress) -> bool {
        !self.guest_macs.contains_key(&mac) && self.host.links.values().any(|link| link.mac == Some(mac))
    }

    /// A device of Open vSwitch's own, by which this host is on one of its bridges.
    pub fn is_switch_device(&self, device: IfIndex) -> bool {
        self.link(device).is_some_and(|link| matches!(&link.kind, LinkKind::Other(kind) if kind == "openvswitch"))
    }

    /// The bridge that a device is a port of.
    pub fn bridge_of(&self, device: IfIndex) -> Option<&'a Link> {
        let master = self.link(device)?.master?;
        self.link(master).filter(|link| matches!(link.kind, LinkKind::Bridge(_)))
    }

    /// What is dead below a device that is up without a carrier: a device that stands on another has the carrier of that one,
    /// a bundle that of its parts. The device itself where nothing below explains it.
    pub fn dead_below<'l>(&'l self, link: &'l Link) -> &'l Link {
        // A VLAN device goes down with the one that it stands on (`vlan_device_event`).
        if let (false, LinkKind::Vlan { .. }) = (link.up, &link.kind) {
            let lower = link.lower.and_then(|lower| self.link(lower)).filter(|lower| !lower.up);
            return lower.map_or(link, |lower| self.dead_below(lower));
        }
        if !link.up || link.carrier || matches!(link.kind, LinkKind::Vxlan { .. } | LinkKind::Bridge(_)) {
            return link;
        }
        let lower = link.lower.and_then(|lower| self.link(lower));
        let below = lower.into_iter().chain(self.host.ports(link.index)).filter(|below| !below.up || !below.carrier);
        // What can be brought up from here, first.
        below.min_by_key(|below| (below.up, below.index)).map_or(link, |below| self.dead_below(below))
    }

    /// All of the trace that may be seen is seen: no filter hides answers or translated packets.
    pub fn is_unfiltered(&self) -> bool {
        self.track.started().is_none_or(|started| started.filter.is_empty() || started.followed)
    }

    /// Answers would be seen: the filter, if any, takes both directions.
    pub fn sees_answers(&self) -> bool {
        let one_way = |word: &str| {
            matches!(word.trim_matches(['(', ')', '!']), "src" | "dst" | "ingress" | "egress" | "inbound" | "outbound")
        };
        self.track.started().is_none_or(|started| started.followed || !started.filter.split_whitespace().any(one_way))
    }

    /// Neighbour advertisements for an address.
    pub fn advertisements(&self, target: IpAddr) -> &[&'a Flow] {
        self.advertised.get(&target).map_or(&[], Vec::as_slice)
    }

    /// What touches no guest is wanted too.
    pub fn wants_all(&self) -> bool {
        self.track.started().is_some_and(|started| started.all)
    }

    /// The counters of a flow where its guest sends it.
    pub fn entry<'f>(&self, flow: &'f Flow) -> Option<(&'f Place, &'f FlowCounters)> {
        flow.places
            .iter()
            .filter(|(place, _)| self.is_entry(**place))
            .min_by_key(|(place, counters)| (counters.first, **place))
    }
}

//! A flow with everything that a rule may ask of it.

use super::group::Group;
use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::layer2::Layer2;
use crate::diagnose::facts::routes::{Answer, Question, lookup};
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::report::FlowDirection;
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind};
use crate::event::names::MacvtapMode;
use crate::event::{Address, Direction, FlowCounters, FlowKey, IfIndex, MacAddress, Place, Protocol};
use crate::track::{Flow, IcmpError};
use std::net::IpAddr;

/// An answer that takes longer than this is missing; a packet seen later than this before the end is in flight.
pub const PATIENCE_NS: u64 = 250_000_000;

/// A flow and its surroundings.
#[derive(Debug)]
pub struct Case<'a> {
    /// The stage.
    pub scene: &'a Scene<'a>,
    /// Who claims which address.
    pub layer2: &'a Layer2,
    /// The flow and its other forms.
    pub group: &'a Group<'a>,
    /// The flows that answer it.
    pub answers: Vec<&'a Flow>,
    /// ICMP errors about it.
    pub errors: Vec<&'a IcmpError>,
    /// Its drops without noise, the heaviest first.
    pub drops: Vec<Dropped<'a>>,
    /// The drop that is judged; none when none explains the flow.
    pub focus: Option<Dropped<'a>>,
    /// Where it was seen, in order of time, flooded copies left out.
    pub hops: Vec<(Place, &'a FlowCounters)>,
}

/// Where a flow of this kind leaves the guest's layer 2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// To a guest's interface.
    Guest(IfIndex),
    /// By the bridge's uplinks, or the device under a macvtap.
    Uplink,
    /// To the host itself.
    Host,
    /// Through the host's routing.
    Routed,
    /// To a group: many ways.
    Group,
    /// Not known.
    Unknown,
}

impl<'a> Case<'a> {
    /// The flow as the guest sees it.
    pub fn key(&self) -> FlowKey {
        self.group.main.key
    }

    /// The guest's interface.
    pub fn device(&self) -> Option<IfIndex> {
        self.group.device
    }

    /// The bridge that the guest hangs on.
    pub fn bridge(&self) -> Option<&'a Link> {
        self.scene.bridge_of(self.group.device?)
    }

    /// The guest sends it.
    pub fn is_from_guest(&self) -> bool {
        matches!(self.group.direction, FlowDirection::FromGuest | FlowDirection::GuestToGuest)
    }

    /// It was seen at this device.
    pub fn reached(&self, device: IfIndex) -> bool {
        self.group.flows().any(|flow| flow.places.keys().any(|place| place.device == device))
    }

    /// Counters where it was first seen.
    pub fn entry(&self) -> Option<(Place, &'a FlowCounters)> {
        self.hops.first().copied()
    }

    /// A request that nobody answered has had its chances: it was repeated, or whoever sent it does not repeat any.
    pub fn asked_enough(&self) -> bool {
        self.packets() > 1 || self.scene.track.asks_once()
    }

    /// Packets that entered.
    pub fn packets(&self) -> u64 {
        match self.entry() {
            Some((place, counters)) => self.bundled(place).map_or(0, |bundled| bundled.packets).max(counters.packets),
            None => self.dropped(),
        }
    }

    /// Counters at the bond that a flow came in by, by several of its legs as a rule.
    fn bundled(&self, entry: Place) -> Option<&'a FlowCounters> {
        let (bond, _) = self.scene.host.bond_of(entry.device).filter(|_| entry.direction == Direction::Ingress)?;
        let at = Place { device: bond, direction: Direction::Ingress };
        self.hops.iter().find(|(place, _)| *place == at).map(|(_, counters)| *counters)
    }

    /// Bytes that entered.
    pub fn bytes(&self) -> u64 {
        match self.entry() {
            Some((place, counters)) => self.bundled(place).map_or(0, |bundled| bundled.bytes).max(counters.bytes),
            None => self.drops.iter().map(|drop| drop.totals.bytes + 14 * drop.totals.packets).sum(),
        }
    }

    /// Packets dropped, noise left out.
    pub fn dropped(&self) -> u64 {
        self.drops.iter().map(|drop| drop.totals.packets).sum()
    }

    /// `12 of 12 packets`: how much of the flow the drop took; where none was seen, the whole flow: `12 packets`.
    pub fn dropped_share(&self) -> String {
        let whole = self.packets();
        let count = self.focus.as_ref().map_or_else(|| self.dropped(), |drop| drop.totals.packets);
        // No more than the flow's, as the report counts them: others may have died in the same tunnel flow, and one that was
        // under way when the trace began was dropped but not counted before.
        if count == 0 { words::packets(whole) } else { words::share(count.min(whole), whole) }
    }

    /// The destination MAC address as sent.
    pub fn destination_mac(&self) -> Option<MacAddress> {
        let seen = self.group.main.entry().map(|(_, counters)| counters.destination_mac);
        let mut drops = self.group.flows().flat_map(|flow| flow.drops.values());
        let mut dropped = || drops.find_map(|drop| crate::diagnose::facts::dropped::macs(drop.example.as_deref()?));
        seen.filter(|mac| !mac.is_zero()).or_else(|| dropped().map(|(_, destination)| destination))
    }

    /// It goes to a group or to all.
    pub fn is_multicast(&self) -> bool {
        let ip = self.key().destination.ip();
        self.destination_mac().is_some_and(MacAddress::is_multicast)
            || ip.is_some_and(|ip| ip.is_multicast() || ip == IpAddr::from([255, 255, 255, 255]))
    }

    /// How it should leave.
    pub fn way(&self) -> Way {
        if let Some(peer) = self.group.peer {
            // Only in bridge mode does a macvtap hand to its neighbours; else all goes out by the device below.
            let apart = self
                .device()
                .and_then(|device| self.scene.link(device))
                .is_some_and(|link| matches!(&link.kind, LinkKind::Macvtap { mode } if *mode != MacvtapMode::Bridge));
            return if apart { Way::Uplink } else { Way::Guest(peer) };
        }
        if self.is_multicast() {
            return Way::Group;
        }
        match (self.group.direction, self.group.device) {
            (FlowDirection::ToGuest, Some(device)) => Way::Guest(device),
            (FlowDirection::FromGuest, Some(device)) => self.way_out(device),
            _ => Way::Unknown,
        }
    }

    fn way_out(&self, device: IfIndex) -> Way {
        let own = self.is_own(self.group.translated.unwrap_or(self.key()).destination);
        let Some(mac) = self.destination_mac() else {
            return if own { Way::Host } else { Way::Unknown };
        };
        if self.scene.is_host_mac(mac) {
            return if own { Way::Host } else { Way::Routed };
        }
        let switched = self.scene.topology().switch.place(device).is_some();
        let bridged = self.bridge().is_some() || switched;
        if bridged || self.scene.role(device) == Role::Macvtap { Way::Uplink } else { Way::Unknown }
    }

    /// Packets that left where they should: for a guest at its tap, for beyond at an uplink, for the host on its input.
    pub fn left(&self) -> u64 {
        let way = self.way();
        let leaves = |place: &Place| match way {
            Way::Guest(device) => place.device == device && self.scene.is_exit(*place),
            Way::Uplink | Way::Routed => {
                place.direction == Direction::Egress
                    && matches!(self.scene.role(place.device), Role::Nic | Role::Tunnel)
            }
            Way::Host => {
                place.direction == Direction::Ingress
                    && (self.scene.role(place.device) == Role::Bridge || self.scene.is_switch_device(place.device))
            }
            Way::Group | Way::Unknown => self.entry().is_some_and(|(entry, _)| entry != *place),
        };
        self.hops.iter().filter(|(place, _)| leaves(place)).map(|(_, counters)| counters.packets).max().unwrap_or(0)
    }

    /// The device that it left the host by: the last one out of the host, else the last it was seen at.
    pub fn last_device(&self) -> Option<IfIndex> {
        let out = |place: &Place| {
            place.direction == Direction::Egress && matches!(self.scene.role(place.device), Role::Nic | Role::Tunnel)
        };
        let places = || self.hops.iter().rev().map(|(place, _)| place);
        places().find(|place| out(place)).or_else(|| places().next()).map(|place| place.device)
    }

    /// What this host's routing answers for it.
    pub fn routing(&self) -> Answer<'a> {
        self.routed().map(|question| lookup(self.scene, question)).unwrap_or_default()
    }

    /// What this host's routing is asked for it: after a translation of the destination, before one of the source.
    pub fn routed(&self) -> Option<Question<'a>> {
        let key = self.key();
        let inner =
            self.group.translated.filter(|inner| self.is_own(key.destination) && !self.is_own(inner.destination));
        let to = inner.unwrap_or(key).destination.ip()?;
        // Where no rule sets a mark, packets have none.
        let mark = self.scene.topology().rules.marks_nothing().then_some(0);
        let layer4 =
            crate::forward::packet::Packet::of_flow(&self.key(), 0).ip().and_then(crate::forward::packet::Ip::layer4);
        Some(Question { mark, layer4, ..Question::of(self.original_source().ip(), to, self.input()?.name.as_str()) })
    }

    /// Who sent it, before a translation of the source.
    fn original_source(&self) -> Address {
        let source = self.key().source;
        let to_guest = self.group.direction == FlowDirection::ToGuest && self.is_own(source);
        let outer = self.group.translated.filter(|outer| to_guest && !self.is_own(outer.source));
        outer.map_or(source, |outer| outer.source)
    }

    /// It is for an address of this host's own.
    pub fn is_to_host(&self) -> bool {
        self.is_own(self.key().destination)
    }

    fn is_own(&self, address: Address) -> bool {
        address.ip().is_some_and(|address| self.scene.is_host_address(address))
    }

    /// The device by which it came to this host's routing.
    fn input(&self) -> Option<&'a Link> {
        let scene = self.scene;
        if self.is_own(self.original_source()) {
            return scene.host.link_named("lo");
        }
        let entered = self.hops.iter().map(|(place, _)| place).find(|place| place.direction == Direction::Ingress);
        let dropped = || self.drops.iter().find_map(|drop| drop.device());
        let device = entered.map(|place| place.device).or_else(dropped).or(self.group.device)?;
        scene.bridge_of(device).or_else(|| scene.link(device))
    }

    /// The guest's interface came or went while this was under way.
    pub fn is_passing(&self) -> bool {
        let first = self.scene.track.first_host();
        let goes = |link: &Link| !link.up && first.link(link.index).is_some_and(|link| link.up);
        self.device().is_some_and(|device| first.link(device).is_none() || self.scene.link(device).is_some_and(goes))
    }

    /// Packets of answers, wherever they were seen.
    pub fn answered(&self) -> u64 {
        self.answers.iter().map(|flow| flow.packets()).sum()
    }

    /// It has been under way long enough to have left and been answered.
    pub fn is_settled(&self) -> bool {
        self.scene.track.end().since(self.group.main.first).0 > PATIENCE_NS
    }

    /// Who sends it waits for an answer.
    pub fn expects_answer(&self) -> bool {
        let key = self.key();
        match key.protocol {
            // A reset ends; nobody answers it.
            Protocol::Tcp => self.entry().is_none_or(|(_, seen)| u64::from(seen.tcp_reset) < seen.packets),
            Protocol::Sctp => true,
            Protocol::Udp => is_request_port(key.destination_port),
            Protocol::Arp { operation: 1 } => !is_announcement(key),
            Protocol::Icmpv6 { kind: 135, .. } => key.source.ip().is_some_and(|source| !source.is_unspecified()),
            Protocol::Arp { .. }
            | Protocol::Icmp { .. }
            | Protocol::Icmpv6 { .. }
            | Protocol::Ip(_)
            | Protocol::Ethernet(_) => key.protocol.is_echo_request() && !self.is_multicast(),
        }
    }

    /// ARP or neighbour discovery.
    pub fn is_neighbour_traffic(&self) -> bool {
        matches!(self.key().protocol, Protocol::Arp { .. } | Protocol::Icmpv6 { kind: 135 | 136, .. })
    }

    /// Length at layer 3 of the largest packet, as sent.
    pub fn largest(&self) -> u32 {
        let sent = self.entry().map_or(0, |(_, counters)| counters.largest);
        self.drops.iter().map(|drop| drop.totals.largest).max().unwrap_or(0).max(sent)
    }
}

/// Of a TCP conversation nothing but requests, answers to them and resets was seen.
pub fn only_opens(flow: &Flow) -> bool {
    flow.places.values().all(|counters| {
        let opening = u64::from(counters.tcp_syn) + u64::from(counters.tcp_syn_ack) + u64::from(counters.tcp_reset);
        counters.packets <= opening
    })
}

/// Ports whose service answers each request: DNS, DHCP, NTP, TFTP, SNMP, RADIUS, `DHCPv6`.
fn is_request_port(port: Option<u16>) -> bool {
    matches!(port, Some(53 | 67 | 69 | 123 | 161 | 547 | 1812))
}

/// Gratuitous ARP and ARP probes are not answered (RFC 5227).
fn is_announcement(key: FlowKey) -> bool {
    key.source == key.destination || key.source.ip().is_some_and(|source| source.is_unspecified())
}

//! What rules ask of all flows again and again, found in one pass: a scan makes many flows, and each of them asks.

use crate::event::host::Network;
use crate::event::{Address, Direction, IfIndex, MacAddress, Place, Protocol};
use crate::track::Flow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::IpAddr;

/// VLAN tags of frames; none for those without one, and for those that bear a priority alone (VLAN 0).
pub type Tags = BTreeSet<Option<u16>>;

/// What a place is on a packet's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Packets leave here for a guest.
    ToGuest,
    /// They come in here by a NIC.
    FromNic,
    /// They come in here by another device that is no guest's.
    FromElsewhere,
    /// Anything else.
    Other,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Index<'a> {
    by_source: HashMap<Address, Vec<&'a Flow>>,
    sent: BTreeMap<IfIndex, Tags>,
    heard: HashSet<(IfIndex, MacAddress)>,
    beyond: HashSet<MacAddress>,
    reached: BTreeSet<IfIndex>,
    reached_addresses: BTreeSet<IpAddr>,
    asked: HashMap<(IpAddr, IfIndex), Vec<&'a Flow>>,
}

impl<'a> Index<'a> {
    /// Of all flows, ordered by key.
    pub(super) fn new(flows: impl Iterator<Item = &'a Flow>, part: impl Fn(Place) -> Part) -> Self {
        let mut index = Self::default();
        for flow in flows {
            index.by_source.entry(flow.key.source).or_default().push(flow);
            index.arrivals(flow, &part);
            index.exits(flow, &part);
        }
        index
    }

    fn arrivals(&mut self, flow: &'a Flow, part: impl Fn(Place) -> Part) {
        let asks = matches!(flow.key.protocol, Protocol::Arp { operation: 1 } | Protocol::Icmpv6 { kind: 135, .. });
        let target = flow.target.or(flow.key.destination.ip()).filter(|_| asks);
        for (place, counters) in flow.places.iter().filter(|(place, _)| place.direction == Direction::Ingress) {
            self.sent.entry(place.device).or_default().insert(tag(flow));
            self.heard.insert((place.device, counters.source_mac));
            if matches!(part(*place), Part::FromNic | Part::FromElsewhere) {
                self.beyond.insert(counters.source_mac);
            }
            if let Some(target) = target {
                self.asked.entry((target, place.device)).or_default().push(flow);
            }
        }
    }

    fn exits(&mut self, flow: &Flow, part: impl Fn(Place) -> Part) {
        if !flow.places.keys().any(|place| part(*place) == Part::FromNic) {
            return;
        }
        for place in flow.places.keys().filter(|place| part(**place) == Part::ToGuest) {
            self.reached.insert(place.device);
            self.reached_addresses.extend(flow.key.destination.ip());
        }
    }

    /// Flows from the address, ordered by key.
    pub fn from(&self, source: Address) -> &[&'a Flow] {
        self.by_source.get(&source).map_or(&[], Vec::as_slice)
    }

    /// Tags of all frames that came in by the device.
    pub fn tags_sent(&self, device: IfIndex) -> Option<&Tags> {
        self.sent.get(&device)
    }

    /// Frames with the source MAC address came in by the device.
    pub fn is_heard(&self, device: IfIndex, mac: MacAddress) -> bool {
        self.heard.contains(&(device, mac))
    }

    /// Frames with the source MAC address came in by a device that is no guest's.
    pub fn is_heard_beyond(&self, mac: MacAddress) -> bool {
        self.beyond.contains(&mac)
    }

    /// Packets that had come in by a NIC went to the guest behind the device.
    pub fn is_reached(&self, device: IfIndex) -> bool {
        self.reached.contains(&device)
    }

    /// Packets that had come in by a NIC went to a guest, for an address of the network.
    pub fn is_network_reached(&self, network: Network) -> bool {
        self.reached_addresses.range(network.whole().address..).next().is_some_and(|first| network.contains(*first))
    }

    /// ARP requests and neighbour solicitations for the address that came in by the device.
    pub fn questions(&self, target: IpAddr, device: IfIndex) -> &[&'a Flow] {
        self.asked.get(&(target, device)).map_or(&[], Vec::as_slice)
    }
}

/// The flow's VLAN tag.
pub fn tag(flow: &Flow) -> Option<u16> {
    flow.key.vlan.filter(|vlan| *vlan != 0)
}

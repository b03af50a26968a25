//! One flow: its counters at each place, what was dropped of it, and an example of each drop.

use crate::event::{
    DropSample, DropSite, FlowCounters, FlowKey, FlowSample, IfIndex, MacAddress, PacketCause, PacketRecord, Place,
    Timestamp,
};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Places that one flow is followed at.
const PLACES: usize = 256;
/// Drop sites that one flow is followed at.
const SITES: usize = 32;
/// MAC addresses that are remembered beside the first, per flow.
const MACS: usize = 8;

/// One direction of one conversation as it was seen on this host.
#[derive(Clone, Debug)]
pub struct Flow {
    /// Which.
    pub key: FlowKey,
    /// When it was first seen.
    pub first: Timestamp,
    /// When it last grew, as far as was told.
    pub last: Timestamp,
    /// Its counters, by place.
    pub places: BTreeMap<Place, FlowCounters>,
    /// What was dropped, by site.
    pub drops: BTreeMap<DropSite, DropTotals>,
    /// Other source MAC addresses than the first, and where they were seen.
    pub other_macs: Vec<(Place, MacAddress)>,
    /// Neighbour discovery: the address asked for or told.
    pub target: Option<IpAddr>,
    /// A tunnel's flow: the flow that was last seen dropped inside it.
    pub(super) carries: Option<FlowKey>,
}

/// What a drop site took from a flow.
#[derive(Clone, Debug, Default)]
pub struct DropTotals {
    /// Packets.
    pub packets: u64,
    /// Bytes at layer 3.
    pub bytes: u64,
    /// When the first was dropped.
    pub first: Timestamp,
    /// Length at layer 3 of the largest.
    pub largest: u32,
    /// The key that it died with inside a tunnel's packet.
    pub outer: Option<FlowKey>,
    /// One of the packets.
    pub example: Option<Box<PacketRecord>>,
}

impl DropTotals {
    /// How the kernel came there, the innermost function first; empty where no example was told.
    pub fn stack(&self) -> &[String] {
        match self.example.as_deref().map(|record| &record.cause) {
            Some(PacketCause::Dropped { stack, .. }) => stack,
            _ => &[],
        }
    }
}

impl Flow {
    /// A flow of which nothing is known yet.
    pub fn new(key: FlowKey, first: Timestamp) -> Self {
        Self {
            key,
            first,
            last: first,
            places: BTreeMap::new(),
            drops: BTreeMap::new(),
            other_macs: Vec::new(),
            target: None,
            carries: None,
        }
    }

    /// Another place is only followed if there is `room`; tells whether it is one.
    pub(super) fn counted(&mut self, sample: &FlowSample, now: Timestamp, room: bool) -> bool {
        self.first = self.first.min(sample.counters.first);
        if let Some(counters) = self.places.get_mut(&sample.place) {
            if counters.packets < sample.counters.packets {
                self.last = now;
            }
            *counters = sample.counters.clone();
            return false;
        }
        let room = room && self.places.len() < PLACES;
        if room {
            self.last = self.last.max(sample.counters.first);
            self.places.insert(sample.place, sample.counters.clone());
        }
        room
    }

    /// Another site is only followed if there is `room`; tells whether it is one.
    pub(super) fn dropped(&mut self, sample: &DropSample, now: Timestamp, room: bool) -> bool {
        let known = self.drops.len();
        self.first = self.first.min(sample.first);
        self.last = self.last.max(now);
        let Some(totals) = self.site(&sample.site, room) else { return false };
        totals.packets = sample.packets;
        totals.bytes = sample.bytes;
        totals.first = sample.first;
        totals.largest = sample.largest;
        self.drops.len() > known
    }

    /// As for [`Self::dropped`].
    pub(super) fn packet(&mut self, record: &PacketRecord, target: Option<IpAddr>, now: Timestamp, room: bool) -> bool {
        let known = self.drops.len();
        self.target = self.target.or(target);
        match &record.cause {
            PacketCause::Dropped { site, .. } => {
                let Some(totals) = self.site(site, room) else { return false };
                // The counters follow later; until then the example's own count stands.
                if totals.packets < record.count {
                    totals.packets = record.count;
                    let link = if record.ethernet { 14 } else { 0 };
                    totals.largest = totals.largest.max(if record.gso_size == 0 {
                        record.length - link.min(record.length)
                    } else {
                        0
                    });
                }
                if totals.first == Timestamp::default() {
                    totals.first = now;
                }
                totals.example.get_or_insert_with(|| Box::new(record.clone()));
            }
            PacketCause::MacChanged => {
                if let (Some(place), Some(mac), true) = (record.place, source_mac(record), self.other_macs.len() < MACS)
                    && !self.other_macs.contains(&(place, mac))
                {
                    self.other_macs.push((place, mac));
                }
            }
            PacketCause::First | PacketCause::IcmpError | PacketCause::Wanted => {}
        }
        self.drops.len() > known
    }

    /// What this site took was inside packets of another flow.
    pub(super) fn died_in(&mut self, site: &DropSite, outer: FlowKey) {
        if let Some(totals) = self.drops.get_mut(site) {
            totals.outer = Some(outer);
        }
    }

    fn site(&mut self, site: &DropSite, room: bool) -> Option<&mut DropTotals> {
        if (!room || self.drops.len() >= SITES) && !self.drops.contains_key(site) {
            return None;
        }
        Some(self.drops.entry(site.clone()).or_default())
    }

    /// The largest count at any place; for a flow seen at none, what was dropped.
    pub fn packets(&self) -> u64 {
        let seen = self.places.values().map(|counters| counters.packets).max();
        seen.unwrap_or_else(|| self.drops.values().map(|drop| drop.packets).sum())
    }

    /// The counters at the place where it was seen first.
    pub fn entry(&self) -> Option<(&Place, &FlowCounters)> {
        self.places.iter().min_by_key(|(place, counters)| (counters.first, **place))
    }

    /// Largest packet at layer 3 that was counted anywhere.
    pub fn largest(&self) -> u32 {
        self.places.values().map(|counters| counters.largest).max().unwrap_or(0)
    }

    /// The device that it is charged to when there are too many flows: a guest's, where it was seen at one.
    pub(super) fn owner(&self, guests: &BTreeSet<IfIndex>) -> Option<IfIndex> {
        let dropped = self.drops.keys().filter_map(|site| site.device);
        let seen = self.places.keys().map(|place| place.device).chain(dropped);
        let entry = self.entry().map(|(place, _)| place.device);
        seen.clone().find(|device| guests.contains(device)).or(entry).or_else(|| seen.min())
    }

    /// How much would be lost with it: whether it has drops, its packets, its age.
    pub(super) fn weight(&self) -> (bool, u64, Timestamp) {
        (!self.drops.is_empty(), self.packets(), self.last)
    }
}

fn source_mac(record: &PacketRecord) -> Option<MacAddress> {
    let bytes: &[u8; 6] = record.header.get(6..12)?.try_into().ok()?;
    record.ethernet.then_some(MacAddress(*bytes))
}

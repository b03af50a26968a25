//! The ways of single packets: where each was seen, one after another.
//!
//! A packet is known again by what translation leaves of it ([`crate::track::packet_identity`]); where that is too little, by
//! its flow and length. Of packets that look alike the one that came first is taken to be ahead of the others.

use crate::event::{DropSite, FlowKey, PacketCause, PacketRecord, Place, Timestamp};
use crate::track::packet_identity;
use std::collections::{HashMap, VecDeque};

/// A packet that was not seen anew for this long has gone its way, in nanoseconds.
const GONE_NS: u64 = 1_000_000_000;
/// Packets that are followed at once.
const FOLLOWED: usize = 65_536;
/// Places of one packet.
const PLACES: usize = 32;

/// One packet's way.
#[derive(Clone, Debug)]
pub(super) struct Journey {
    /// As it was first seen.
    pub(super) flow: FlowKey,
    /// Length in bytes, as it was first seen.
    pub(super) length: u32,
    /// Where and when, in the order in which it was reported.
    pub(super) steps: Vec<(Place, Timestamp)>,
    /// Where it died.
    pub(super) dropped: Option<(DropSite, Timestamp)>,
}

impl Journey {
    /// When it was seen last.
    pub(super) fn last(&self) -> Timestamp {
        let steps = self.steps.iter().map(|(_, time)| *time);
        steps.chain(self.dropped.iter().map(|(_, time)| *time)).max().unwrap_or_default()
    }

    /// From the first place to the last, in nanoseconds.
    pub(super) fn latency(&self) -> u64 {
        let first = self.steps.iter().map(|(_, time)| *time).min();
        first.map_or(0, |first| self.last().since(first).0)
    }
}

/// Packets that are under way.
#[derive(Debug)]
pub(super) struct Journeys {
    min_latency: u64,
    /// How long a packet is followed.
    patience: u64,
    under_way: HashMap<u64, VecDeque<Journey>>,
    /// When packets were first seen, the oldest first.
    begun: VecDeque<(Timestamp, u64)>,
}

impl Journeys {
    pub(super) fn new(min_latency: u64) -> Self {
        let patience = GONE_NS.max(min_latency.saturating_mul(2));
        Self { min_latency, patience, under_way: HashMap::new(), begun: VecDeque::new() }
    }

    /// A packet was seen; returns ways that are at their end.
    pub(super) fn step(&mut self, record: &PacketRecord, now: Timestamp) -> Vec<Journey> {
        let site = if let PacketCause::Dropped { site, .. } = &record.cause { Some(site) } else { None };
        if site.is_none() && (record.cause != PacketCause::Wanted || record.place.is_none()) {
            return Vec::new();
        }
        let identity = packet_identity(record);
        let alike = self.under_way.entry(identity).or_default();
        if let Some(site) = site {
            let mut journey = alike.pop_front().unwrap_or_else(|| Journey::new(record));
            journey.dropped = Some((site.clone(), now));
            if alike.is_empty() {
                self.under_way.remove(&identity);
            }
            return self.wanted(journey).into_iter().collect();
        }
        let Some(place) = record.place else { return Vec::new() };
        let is_next = |journey: &&mut Journey| {
            journey.steps.len() < PLACES && !journey.steps.iter().any(|(known, _)| *known == place)
        };
        if let Some(journey) = alike.iter_mut().find(is_next) {
            journey.steps.push((place, now));
            return Vec::new();
        }
        alike.push_back(Journey { steps: vec![(place, now)], ..Journey::new(record) });
        self.begun.push_back((now, identity));
        let oldest = if self.begun.len() > FOLLOWED { self.begun.pop_front() } else { None };
        oldest.and_then(|(_, identity)| self.take(identity)).into_iter().collect()
    }

    /// Ways of packets that were seen no more for long.
    pub(super) fn ended(&mut self, now: Timestamp) -> Vec<Journey> {
        let mut ended = Vec::new();
        while let Some((begun, identity)) = self.begun.front().copied()
            && now.since(begun).0 > self.patience
        {
            self.begun.pop_front();
            ended.extend(self.take(identity));
        }
        ended
    }

    /// All of them.
    pub(super) fn all(&mut self) -> Vec<Journey> {
        self.ended(Timestamp(u64::MAX))
    }

    /// The oldest of those that look alike.
    fn take(&mut self, identity: u64) -> Option<Journey> {
        let alike = self.under_way.get_mut(&identity)?;
        let journey = alike.pop_front();
        if alike.is_empty() {
            self.under_way.remove(&identity);
        }
        journey.and_then(|journey| self.wanted(journey))
    }

    fn wanted(&self, mut journey: Journey) -> Option<Journey> {
        journey.steps.sort_by_key(|(_, time)| *time);
        (journey.latency() >= self.min_latency).then_some(journey)
    }
}

impl Journey {
    fn new(record: &PacketRecord) -> Self {
        Self { flow: record.flow, length: record.length, steps: Vec::new(), dropped: None }
    }
}

//! Packets that are known without their flows: the kernel's side had no room for these, or they made room for others here.

use super::flow::Flow;
use crate::event::{Unlisted, UnlistedPlace};
use std::collections::BTreeMap;

/// Places at most; devices come and go.
const PLACES: usize = 16_384;

/// What was counted at one place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Packets.
    pub packets: u64,
    /// Bytes: at a hook with the Ethernet header, of a drop site from the layer-3 header on.
    pub bytes: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Account {
    /// As the kernel's side counted them.
    told: Totals,
    /// Of flows that made room for others.
    evicted: Totals,
}

/// All places.
#[derive(Debug, Default)]
pub(super) struct Ledger(BTreeMap<UnlistedPlace, Account>);

impl Ledger {
    fn account(&mut self, place: &UnlistedPlace) -> Option<&mut Account> {
        if self.0.len() >= PLACES && !self.0.contains_key(place) {
            return None;
        }
        Some(self.0.entry(place.clone()).or_default())
    }

    /// What the kernel's side counted so far.
    pub(super) fn apply(&mut self, unlisted: &Unlisted) {
        if let Some(account) = self.account(&unlisted.place) {
            account.told = Totals { packets: unlisted.packets, bytes: unlisted.bytes };
        }
    }

    /// A flow made room for others: its packets still count.
    pub(super) fn evicted(&mut self, flow: &Flow) {
        for (place, counters) in &flow.places {
            self.add(&UnlistedPlace::Hook(*place), counters.packets, counters.bytes);
        }
        for (site, totals) in &flow.drops {
            self.add(&UnlistedPlace::Drop(site.clone()), totals.packets, totals.bytes);
        }
    }

    fn add(&mut self, place: &UnlistedPlace, packets: u64, bytes: u64) {
        if let Some(account) = self.account(place) {
            account.evicted.packets = account.evicted.packets.saturating_add(packets);
            account.evicted.bytes = account.evicted.bytes.saturating_add(bytes);
        }
    }

    pub(super) fn told_at(&self, place: &UnlistedPlace) -> Totals {
        self.0.get(place).map_or(Totals::default(), |account| account.told)
    }

    pub(super) fn told(&self) -> impl Iterator<Item = (&UnlistedPlace, Totals)> {
        self.0.iter().map(|(place, account)| (place, account.told))
    }

    pub(super) fn totals(&self) -> impl Iterator<Item = (&UnlistedPlace, Totals)> {
        self.0.iter().map(|(place, account)| (place, account.sum()))
    }
}

impl Account {
    fn sum(&self) -> Totals {
        let Self { told, evicted } = self;
        Totals {
            packets: told.packets.saturating_add(evicted.packets),
            bytes: told.bytes.saturating_add(evicted.bytes),
        }
    }
}

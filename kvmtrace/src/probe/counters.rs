//! Reading the counters: the entries of all CPUs added up, told when they have changed.
//!
//! A guest may open flows as fast as it sends. Entries that rest are taken out of the kernel's maps and kept here, so that
//! no map fills for good; the fuller a map, the sooner. What is kept here is bounded, and what no longer fits is counted
//! as evicted. Packets that found no room in a map are counted by device, direction and drop site alone: those sums are
//! exact, whatever a guest sends.

use super::book::{Book, Part};
use super::hot::{self, Hot};
use super::loader::{ProbeError, Programs};
use super::shares::Shares;
use super::syscall::Table;
use crate::event::decode::{self, Resolver};
use crate::event::{Event, EventKind, Loss, Timestamp};
use aya::maps::{MapData, PerCpuArray};
use kvmtrace_common::config::{DROP_ENTRIES, FLOW_ENTRIES, HOT_SHIFT};
use kvmtrace_common::event::{DropPlace, LossIndex, OverflowCounters, RecordFacts, RecordKind};
use kvmtrace_common::flow::{DropCounters, DropKey, FlowCounters, FlowKey, KeyWords};
use kvmtrace_common::names;
use kvmtrace_common::share::Shared;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use zerocopy::FromBytes as _;

/// Flows (per observation point) kept here at most: some 50 MB.
const KEPT: usize = FLOW_ENTRIES as usize * 4;
/// Drop sites of flows kept here at most.
const KEPT_DROPS: usize = FLOW_ENTRIES as usize;

/// A CPU's part of the hot table is emptied of resting flows when it holds so many.
const CROWDED_HOT: usize = hot::PER_CPU / 4 * 3;
/// The map of flows fills up when it holds so many: then resting ones make room soon.
const CROWDED: u32 = FLOW_ENTRIES / 4;
/// The same of the map of drops. Later, for each flow that takes such a place is one more to judge and to print; the other
/// guests have their share in any case.
const CROWDED_DROPS: u32 = DROP_ENTRIES / 4 * 3;
/// For so many looks an entry must have rested to be taken out of a table with room to spare: it has a first packet again
/// when it goes on.
const RESTED: u32 = 20;
/// The same of a map that fills up.
const RESTED_CROWDED: u32 = 2;
/// Reading takes at most one part in so many of the time,
const SHARE: u32 = 50;
/// but is not put off for longer than this.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// After so many looks the shares are compared with what is there.
const SETTLE: u32 = 8;

/// A flow's key without the CPU.
type FlowWords = KeyWords;
/// A drop's key without the CPU.
type DropWords = [u64; size_of::<DropKey>() / 8];
/// A [`DropPlace`] without the CPU.
type PlaceWords = [u64; size_of::<DropPlace>() / 8];

/// The maps.
pub(super) struct Reader {
    hot: Hot,
    /// Entries that each CPU's part of it held at the last look.
    hot_taken: BTreeMap<u32, usize>,
    flows: Table<FlowKey, FlowCounters>,
    drops: Table<DropKey, DropCounters>,
    overflow: Table<u64, OverflowCounters>,
    drop_overflow: Table<DropPlace, OverflowCounters>,
    losses: PerCpuArray<MapData, u64>,
    shares: Shares,
    seen_flows: Book<FlowWords, FlowCounters>,
    seen_drops: Book<DropWords, DropCounters>,
    seen_overflow: Book<u64, OverflowCounters>,
    seen_drop_overflow: Book<PlaceWords, OverflowCounters>,
    /// Packets that found no room, at hooks and at drop sites: in entries that have been taken out, and in all.
    retired_unlisted: [u64; 2],
    unlisted: [u64; 2],
    evicted: u64,
    seen_loss: Loss,
    looks: u32,
    /// When the counters were read last, and how long that took.
    last: Option<(Instant, Duration)>,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("flows", &self.seen_flows.len()).finish_non_exhaustive()
    }
}

/// For how many looks an entry must have rested to be taken out of a map that holds so many.
fn patience(taken: u32, crowded: u32) -> u32 {
    if taken >= crowded { RESTED_CROWDED } else { RESTED }
}

/// A table can't be read: the entries that were read still count.
fn unread(name: &str, result: std::io::Result<()>) {
    if let Err(error) = result {
        tracing::debug!(%error, name, "reading a map");
    }
}

impl Reader {
    pub(super) fn new(programs: &mut Programs) -> Result<Self, ProbeError> {
        let losses = PerCpuArray::try_from(programs.take_map(names::LOSSES)?).map_err(ProbeError::load)?;
        Ok(Self {
            hot: Hot::new(programs)?,
            hot_taken: BTreeMap::new(),
            flows: Table::new(programs.take_map(names::FLOWS)?, names::FLOWS)?,
            drops: Table::new(programs.take_map(names::DROPS)?, names::DROPS)?,
            overflow: Table::new(programs.take_map(names::OVERFLOW)?, names::OVERFLOW)?,
            drop_overflow: Table::new(programs.take_map(names::DROP_OVERFLOW)?, names::DROP_OVERFLOW)?,
            losses,
            shares: Shares::new(programs)?,
            seen_flows: Book::new(),
            seen_drops: Book::new(),
            seen_overflow: Book::new(),
            seen_drop_overflow: Book::new(),
            retired_unlisted: [0; 2],
            unlisted: [0; 2],
            evicted: 0,
            seen_loss: Loss::default(),
            looks: 0,
            last: None,
        })
    }

    /// The counters are to be read now: not where reading has just taken long, unless a map fills up.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        if self.shares.taken(Shared::FLOWS) >= CROWDED || self.shares.taken(Shared::DROPS) >= CROWDED_DROPS {
            return true;
        }
        self.last.is_none_or(|(when, took)| now.duration_since(when) >= (took * SHARE).min(LONGEST_WAIT))
    }

    /// How many packets a drop site took from a flow in entries that have been taken out: the programs count anew.
    pub(super) fn dropped_before(&self, record: &[u8]) -> u64 {
        let Ok((facts, _)) = RecordFacts::ref_from_prefix(record) else { return 0 };
        if facts.kind != RecordKind::DROP {
            return 0;
        }
        let flow = FlowKey { cpu: 0, ..facts.flow };
        let key = DropKey { flow, location: facts.location, reason: facts.reason, _pad: 0 };
        let key: DropWords = zerocopy::transmute!(key);
        self.seen_drops.retired(&key).map_or(0, |counters| counters.packets)
    }

    /// What has changed since the last call. `rule_messages` is what the listener of nft's trace has lost.
    pub(super) fn changes(&mut self, now: Timestamp, resolver: &impl Resolver, rule_messages: u64) -> Vec<Event> {
        let begun = Instant::now();
        self.look();
        let mut events = Vec::new();
        let mut add = |kind| events.push(Event { time: now, kind });
        for (key, counters) in self.seen_flows.changes() {
            if let Some(sample) = decode::flow(&FlowKey::from_words(key), &counters, resolver) {
                add(EventKind::Flow(sample));
            }
        }
        for (key, counters) in self.seen_drops.changes() {
            let key: DropKey = zerocopy::transmute!(key);
            add(EventKind::Drop(decode::drop(&key, &counters, resolver)));
        }
        for (key, counters) in self.seen_overflow.changes() {
            if let Some(unlisted) = decode::unlisted(key, &counters) {
                add(EventKind::Unlisted(unlisted));
            }
        }
        for (key, counters) in self.seen_drop_overflow.changes() {
            let place: DropPlace = zerocopy::transmute!(key);
            add(EventKind::Unlisted(decode::unlisted_drop(&place, &counters, resolver)));
        }
        let loss = Loss { rule_messages, ..self.loss() };
        if loss != self.seen_loss {
            self.seen_loss = loss;
            add(EventKind::Loss(loss));
        }
        self.last = Some((begun, begun.elapsed()));
        events
    }

    /// Reads all tables, and takes out what rests.
    fn look(&mut self) {
        self.looks = self.looks.wrapping_add(1);
        let mut tally = self.looks.is_multiple_of(SETTLE).then(|| self.shares.tally());
        let patience_flows = patience(self.shares.taken(Shared::FLOWS), CROWDED);
        let patience_drops = patience(self.shares.taken(Shared::DROPS), CROWDED_DROPS);
        self.look_at_hot();
        let (shares, seen) = (&self.shares, &mut self.seen_flows);
        let mut resting = Vec::new();
        let read = self.flows.for_each(|key, counters| {
            let words = key.words();
            if let Some(tally) = &mut tally {
                shares.found(tally, Shared::FLOWS, &words, counters.input_ifindex);
            }
            if seen.see(FlowKey { cpu: 0, ..*key }.words(), Part::Map(key.cpu), counters) >= patience_flows {
                resting.push(*key);
            }
        });
        unread(names::FLOWS, read);
        let (shares, seen) = (&self.shares, &mut self.seen_drops);
        let mut resting_drops = Vec::new();
        let read = self.drops.for_each(|key, counters| {
            if let Some(tally) = &mut tally {
                shares.found(tally, Shared::DROPS, &key.flow.words(), counters.input_ifindex);
            }
            if seen.see(without_cpu(key), Part::Map(key.flow.cpu), counters) >= patience_drops {
                resting_drops.push(*key);
            }
        });
        unread(names::DROPS, read);
        if let Some(tally) = tally {
            self.shares.settle(&tally);
        }
        for key in resting {
            let Some(last) = self.flows.remove(&key) else { continue };
            self.shares.give_back(Shared::FLOWS, &key.words(), last.input_ifindex);
            self.seen_flows.retire(FlowKey { cpu: 0, ..key }.words(), Part::Map(key.cpu), &last);
        }
        for key in resting_drops {
            let Some(last) = self.drops.remove(&key) else { continue };
            self.shares.give_back(Shared::DROPS, &key.flow.words(), last.input_ifindex);
            self.seen_drops.retire(without_cpu(&key), Part::Map(key.flow.cpu), &last);
        }
        self.look_at_overflow();
        self.evicted += self.seen_flows.forget_beyond(KEPT, |key| FlowKey::from_words(*key).ifindex);
        self.evicted += self.seen_drops.forget_beyond(KEPT_DROPS, |key| {
            let key: DropKey = zerocopy::transmute!(*key);
            key.flow.ifindex
        });
    }

    fn look_at_hot(&mut self) {
        let mut resting = Vec::new();
        let before = std::mem::take(&mut self.hot_taken);
        for (index, key, counters) in self.hot.taken() {
            let cpu = index >> HOT_SHIFT;
            *self.hot_taken.entry(cpu).or_default() += 1;
            let words = FlowKey { cpu: 0, ..key }.words();
            let rested = self.seen_flows.see(words, Part::Hot(index), &counters);
            if rested >= RESTED && before.get(&cpu).is_some_and(|taken| *taken >= CROWDED_HOT) {
                resting.push((index, words, counters));
            }
        }
        for (index, words, counters) in resting {
            self.hot.free(index);
            self.seen_flows.retire(words, Part::Hot(index), &counters);
        }
    }

    /// Sums of devices and drop sites: those of devices that are gone rest, too.
    fn look_at_overflow(&mut self) {
        let seen = &mut self.seen_overflow;
        let (mut at_hooks, mut at_sites) = (0, 0);
        let mut resting = Vec::new();
        let read = self.overflow.for_each(|key, counters| {
            at_hooks += counters.packets;
            if seen.see(*key & !0xffff, Part::Map(*key as u16), counters) >= RESTED {
                resting.push(*key);
            }
        });
        unread(names::OVERFLOW, read);
        for key in resting {
            if let Some(last) = self.overflow.remove(&key) {
                at_hooks -= last.packets.min(at_hooks);
                self.retired_unlisted[0] += last.packets;
                self.seen_overflow.retire(key & !0xffff, Part::Map(key as u16), &last);
            }
        }
        let words = |key: &DropPlace| -> PlaceWords { zerocopy::transmute!(DropPlace { cpu: 0, ..*key }) };
        let seen = &mut self.seen_drop_overflow;
        let mut resting = Vec::new();
        let read = self.drop_overflow.for_each(|key, counters| {
            at_sites += counters.packets;
            if seen.see(words(key), Part::Map(key.cpu as u16), counters) >= RESTED {
                resting.push(*key);
            }
        });
        unread(names::DROP_OVERFLOW, read);
        for key in resting {
            if let Some(last) = self.drop_overflow.remove(&key) {
                at_sites -= last.packets.min(at_sites);
                self.retired_unlisted[1] += last.packets;
                self.seen_drop_overflow.retire(words(&key), Part::Map(key.cpu as u16), &last);
            }
        }
        let [hooks, sites] = self.retired_unlisted;
        self.unlisted = [hooks + at_hooks, sites + at_sites];
        self.seen_overflow.forget_beyond(KEPT_DROPS, |key| *key);
        self.seen_drop_overflow.forget_beyond(KEPT_DROPS, |key| *key);
    }

    fn loss(&self) -> Loss {
        let sum = |index| -> u64 { self.losses.get(&index, 0).map_or(0, |values| values.iter().sum()) };
        let [hooks, sites] = self.unlisted;
        Loss {
            ring_events: sum(LossIndex::RING_EVENTS),
            flows_evicted: self.evicted,
            map_full: hooks.max(sum(LossIndex::FLOW_MAP_FULL)) + sites.max(sum(LossIndex::DROP_MAP_FULL)),
            rule_messages: 0,
        }
    }
}

fn without_cpu(key: &DropKey) -> DropWords {
    zerocopy::transmute!(DropKey { flow: FlowKey { cpu: 0, ..key.flow }, ..*key })
}

#[cfg(test)]
mod tests {
    use super::{CROWDED, RESTED, RESTED_CROWDED, patience};

    #[test]
    fn the_fuller_a_map_the_sooner_is_taken_out_what_rests() {
        assert_eq!(patience(CROWDED - 1, CROWDED), RESTED);
        assert_eq!(patience(CROWDED, CROWDED), RESTED_CROWDED);
    }
}

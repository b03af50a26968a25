//! Reading the counters: the entries of all CPUs added up, told when they have changed.
//!
//! A guest may open flows as fast as it sends. When the kernel's map fills up, flows that have rested since the last
//! look are taken out of it and kept here; what is kept here is bounded, and what no longer fits is counted as evicted.
//! The same for the hot table, so that its entries go to flows that are alive.

use super::hot::{self, Hot};
use super::loader::{ProbeError, Programs};
use crate::event::decode::{self, Resolver};
use crate::event::{Event, EventKind, Loss, Timestamp};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use kvmtrace_common::config::{FLOW_ENTRIES, HOT_SHIFT};
use kvmtrace_common::event::{LossIndex, OverflowCounters};
use kvmtrace_common::flow::{DropCounters, DropKey, FlowCounters, FlowFlags, FlowKey};
use kvmtrace_common::names;
use std::collections::BTreeMap;
use zerocopy::IntoBytes as _;

macro_rules! plain {
    ($($name:ident($of:ty)),* $(,)?) => {$(
        #[doc = concat!("[`", stringify!($of), "`] as it lies in a map.")]
        #[repr(transparent)]
        #[derive(Clone, Copy)]
        struct $name($of);
        // SAFETY: repr(transparent) over a repr(C) structure of integers without padding (zerocopy's IntoBytes and
        // FromBytes are derived for it), so any bytes are a valid value.
        unsafe impl Pod for $name {}
    )*};
}

plain!(Flow(FlowKey), Counters(FlowCounters), Site(DropKey), Drops(DropCounters), Overflow(OverflowCounters));

/// The kernel's map is emptied of resting flows when it holds so many.
const CROWDED: usize = FLOW_ENTRIES as usize / 4 * 3;
/// Flows (per observation point) kept here at most: some 40 MB.
const KEPT: usize = FLOW_ENTRIES as usize * 4;

/// The same of the hot table, for each CPU's part.
const CROWDED_HOT: usize = hot::PER_CPU / 4 * 3;
/// A flow must have rested for so many looks to be taken out of the hot table: it has a first packet again when it goes on.
const RESTED_HOT: u32 = 20;

/// What is known of a flow at a place.
#[derive(Clone, Copy, Default)]
struct Seen {
    /// What was told last.
    told: FlowCounters,
    /// What was counted in entries that have been taken out of the kernel's tables.
    retired: FlowCounters,
    /// For how many looks nothing has changed.
    rested: u32,
}

/// One of the entries that count a flow at a place.
#[derive(Clone, Copy)]
enum Part {
    /// In the map, of this CPU.
    Map(u16),
    /// In the hot table, at this index.
    Hot(usize),
}

/// What is counted of each flow at each place: the bytes of its key without the CPU, and its entries.
type Entries = BTreeMap<[u8; 48], Vec<(Part, FlowCounters)>>;

/// How full the kernel's tables are.
#[derive(Default)]
struct Filled {
    map: usize,
    /// Of each CPU.
    hot: BTreeMap<usize, usize>,
}

impl Filled {
    /// There is need to take this one out.
    fn is_crowded(&self, part: Part, rested: u32) -> bool {
        match part {
            Part::Map(_) => self.map >= CROWDED,
            Part::Hot(index) => {
                rested >= RESTED_HOT && self.hot.get(&(index >> HOT_SHIFT)).is_some_and(|taken| *taken >= CROWDED_HOT)
            }
        }
    }
}

/// The maps.
pub(super) struct Reader {
    hot: Hot,
    flows: HashMap<MapData, Flow, Counters>,
    drops: HashMap<MapData, Site, Drops>,
    overflow: HashMap<MapData, u64, Overflow>,
    losses: PerCpuArray<MapData, u64>,
    seen_flows: BTreeMap<[u8; 48], Seen>,
    evicted: u64,
    seen_drops: BTreeMap<[u8; 64], DropCounters>,
    seen_loss: Loss,
}

impl std::fmt::Debug for Reader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("flows", &self.seen_flows.len()).finish_non_exhaustive()
    }
}

fn typed<T>(programs: &mut Programs, name: &'static str) -> Result<T, ProbeError>
where
    T: TryFrom<Map, Error = aya::maps::MapError>,
{
    T::try_from(programs.take_map(name)?).map_err(ProbeError::load)
}

impl Reader {
    pub(super) fn new(programs: &mut Programs) -> Result<Self, ProbeError> {
        Ok(Self {
            hot: Hot::new(programs)?,
            flows: typed(programs, names::FLOWS)?,
            drops: typed(programs, names::DROPS)?,
            overflow: typed(programs, names::OVERFLOW)?,
            losses: typed(programs, names::LOSSES)?,
            seen_flows: BTreeMap::new(),
            evicted: 0,
            seen_drops: BTreeMap::new(),
            seen_loss: Loss::default(),
        })
    }

    /// What has changed since the last call. `rule_messages` is what the listener of nft's trace has lost.
    pub(super) fn changes(&mut self, now: Timestamp, resolver: &impl Resolver, rule_messages: u64) -> Vec<Event> {
        let mut events = Vec::new();
        let (entries, filled) = self.entries();
        for (key, parts) in entries {
            let flow: FlowKey = zerocopy::transmute!(key);
            let seen = self.seen_flows.entry(key).or_default();
            let mut total = seen.retired;
            for (_, counters) in &parts {
                add_flow(&mut total, counters);
            }
            if seen.told != total {
                (seen.told, seen.rested) = (total, 0);
                if let Some(sample) = decode::flow(&flow, &total, resolver) {
                    events.push(Event { time: now, kind: EventKind::Flow(sample) });
                }
                continue;
            }
            seen.rested = seen.rested.saturating_add(1);
            for (part, counters) in parts {
                if filled.is_crowded(part, seen.rested) {
                    match part {
                        // Not there any more: nothing to do.
                        Part::Map(cpu) => self.flows.remove(&Flow(FlowKey { cpu, ..flow })).unwrap_or_default(),
                        Part::Hot(index) => self.hot.free(index),
                    }
                    add_flow(&mut seen.retired, &counters);
                }
            }
        }
        self.evict();
        let mut drops: BTreeMap<[u8; 64], DropCounters> = BTreeMap::new();
        for (Site(mut key), Drops(counters)) in self.drops.iter().filter_map(Result::ok) {
            key.flow.cpu = 0;
            let Ok(bytes) = <[u8; 64]>::try_from(key.as_bytes()) else { continue };
            drops.entry(bytes).and_modify(|sum| add_drops(sum, &counters)).or_insert(counters);
        }
        for (key, counters) in &drops {
            if self.seen_drops.get(key) == Some(counters) {
                continue;
            }
            let key: DropKey = zerocopy::transmute!(*key);
            events.push(Event { time: now, kind: EventKind::Drop(decode::drop(&key, counters, resolver)) });
        }
        self.seen_drops = drops;
        let loss = Loss { rule_messages, ..self.loss() };
        if loss != self.seen_loss {
            self.seen_loss = loss;
            events.push(Event { time: now, kind: EventKind::Loss(loss) });
        }
        events
    }

    /// All that is counted now, by flow and place.
    fn entries(&self) -> (Entries, Filled) {
        let mut entries = Entries::new();
        let mut filled = Filled::default();
        let mut add = |mut key: FlowKey, part, counters| {
            key.cpu = 0;
            entries.entry(zerocopy::transmute!(key)).or_default().push((part, counters));
        };
        for (index, key, counters) in self.hot.taken() {
            *filled.hot.entry(index >> HOT_SHIFT).or_default() += 1;
            add(key, Part::Hot(index), counters);
        }
        for (Flow(key), Counters(counters)) in self.flows.iter().filter_map(Result::ok) {
            filled.map += 1;
            add(key, Part::Map(key.cpu), counters);
        }
        (entries, filled)
    }

    /// Forgets flows that are no longer in the map, the smallest first, until the rest fits.
    fn evict(&mut self) {
        let excess = self.seen_flows.len().saturating_sub(KEPT);
        if excess == 0 {
            return;
        }
        let mut gone: Vec<(u64, [u8; 48])> = self
            .seen_flows
            .iter()
            .filter(|(_, seen)| seen.retired == seen.told)
            .map(|(key, seen)| (seen.told.packets, *key))
            .collect();
        gone.sort_unstable();
        for (_, key) in gone.into_iter().take(excess) {
            self.seen_flows.remove(&key);
            self.evicted += 1;
        }
    }

    fn loss(&self) -> Loss {
        let sum = |index| -> u64 { self.losses.get(&index, 0).map_or(0, |values| values.iter().sum()) };
        let overflow: u64 = self.overflow.iter().filter_map(Result::ok).map(|(_, counters)| counters.0.packets).sum();
        Loss {
            ring_events: sum(LossIndex::RING_EVENTS),
            flows_evicted: self.evicted,
            map_full: overflow.max(sum(LossIndex::FLOW_MAP_FULL)) + sum(LossIndex::DROP_MAP_FULL),
            rule_messages: 0,
        }
    }
}

/// Adds what another CPU, or an earlier entry, counted of the same flow at the same place.
fn add_flow(sum: &mut FlowCounters, other: &FlowCounters) {
    if other.packets == 0 {
        return;
    }
    if sum.packets == 0 {
        *sum = *other;
        return;
    }
    if other.source_mac != sum.source_mac {
        sum.flags |= FlowFlags::SOURCE_MAC_CHANGED;
    }
    if other.first_ns < sum.first_ns {
        sum.first_ns = other.first_ns;
        sum.source_mac = other.source_mac;
        sum.destination_mac = other.destination_mac;
        sum.time_to_live = other.time_to_live;
    }
    sum.packets = sum.packets.saturating_add(other.packets);
    sum.bytes = sum.bytes.saturating_add(other.bytes);
    sum.fragments = sum.fragments.saturating_add(other.fragments);
    sum.fragmented = sum.fragmented.saturating_add(other.fragmented);
    sum.gso = sum.gso.saturating_add(other.gso);
    sum.largest = sum.largest.max(other.largest);
    sum.tcp_syn = sum.tcp_syn.saturating_add(other.tcp_syn);
    sum.tcp_syn_ack = sum.tcp_syn_ack.saturating_add(other.tcp_syn_ack);
    sum.tcp_reset = sum.tcp_reset.saturating_add(other.tcp_reset);
    sum.tcp_fin = sum.tcp_fin.saturating_add(other.tcp_fin);
    sum.flags |= other.flags;
}

fn add_drops(sum: &mut DropCounters, other: &DropCounters) {
    sum.packets = sum.packets.saturating_add(other.packets);
    sum.bytes = sum.bytes.saturating_add(other.bytes);
    sum.first_ns = sum.first_ns.min(other.first_ns);
    sum.largest = sum.largest.max(other.largest);
}

#[cfg(test)]
mod tests {
    use super::{CROWDED, CROWDED_HOT, Filled, HOT_SHIFT, Part, RESTED_HOT};

    #[test]
    fn only_what_is_crowded_is_emptied_and_of_the_hot_table_only_what_has_rested_long() {
        let filled = Filled { map: CROWDED - 1, hot: [(0, CROWDED_HOT), (1, CROWDED_HOT - 1)].into() };
        assert!(!filled.is_crowded(Part::Map(0), u32::MAX));
        assert!(filled.is_crowded(Part::Hot(5), RESTED_HOT));
        assert!(!filled.is_crowded(Part::Hot(5), RESTED_HOT - 1));
        assert!(!filled.is_crowded(Part::Hot(5 + (1 << HOT_SHIFT)), RESTED_HOT), "another CPU's part has room");
        let filled = Filled { map: CROWDED, ..Filled::default() };
        assert!(filled.is_crowded(Part::Map(0), 1));
        assert!(!filled.is_crowded(Part::Hot(5), u32::MAX));
    }
}

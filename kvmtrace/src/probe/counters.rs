//! Reading the counters: the entries of all CPUs added up, told when they have changed.
//!
//! A guest may open flows as fast as it sends. When the kernel's map fills up, flows that have rested since the last
//! look are taken out of it and kept here; what is kept here is bounded, and what no longer fits is counted as evicted.

use super::loader::{ProbeError, Programs};
use crate::event::decode::{self, Resolver};
use crate::event::{Event, EventKind, Loss, Timestamp};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use kvmtrace_common::config::FLOW_ENTRIES;
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

/// What is known of a flow at a place.
#[derive(Clone, Copy)]
struct Seen {
    /// What was told last.
    told: FlowCounters,
    /// What was counted in entries that have been taken out of the map.
    retired: FlowCounters,
}

/// The maps.
pub(super) struct Reader {
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

    /// What has changed since the last call.
    pub(super) fn changes(&mut self, now: Timestamp, resolver: &impl Resolver) -> Vec<Event> {
        let mut events = Vec::new();
        let mut entries: BTreeMap<[u8; 48], (FlowCounters, Vec<u16>)> = BTreeMap::new();
        let mut in_map = 0;
        for (Flow(mut key), Counters(counters)) in self.flows.iter().filter_map(Result::ok) {
            in_map += 1;
            let cpu = std::mem::take(&mut key.cpu);
            let Ok(bytes) = <[u8; 48]>::try_from(key.as_bytes()) else { continue };
            let (sum, cpus) = entries.entry(bytes).or_default();
            add_flow(sum, &counters);
            cpus.push(cpu);
        }
        for (key, (counted, cpus)) in entries {
            let flow: FlowKey = zerocopy::transmute!(key);
            let seen = self.seen_flows.get(&key).copied();
            let mut total = seen.map_or_else(FlowCounters::default, |seen| seen.retired);
            add_flow(&mut total, &counted);
            let rests = seen.is_some_and(|seen| seen.told == total);
            if rests && in_map >= CROWDED {
                for cpu in cpus {
                    // Not there any more: nothing to do.
                    self.flows.remove(&Flow(FlowKey { cpu, ..flow })).unwrap_or_default();
                }
                self.seen_flows.insert(key, Seen { told: total, retired: total });
            }
            if rests {
                continue;
            }
            let retired = seen.map_or_else(FlowCounters::default, |seen| seen.retired);
            self.seen_flows.insert(key, Seen { told: total, retired });
            if let Some(sample) = decode::flow(&flow, &total, resolver) {
                events.push(Event { time: now, kind: EventKind::Flow(sample) });
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
        let loss = self.loss();
        if loss != self.seen_loss {
            self.seen_loss = loss;
            events.push(Event { time: now, kind: EventKind::Loss(loss) });
        }
        events
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

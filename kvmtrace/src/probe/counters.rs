//! Reading the counters: the entries of all CPUs added up, told when they have changed.

use super::loader::{ProbeError, Programs};
use crate::event::decode::{self, Resolver};
use crate::event::{Event, EventKind, Loss, Timestamp};
use aya::Pod;
use aya::maps::{HashMap, Map, MapData, PerCpuArray};
use kvmtrace_common::event::{LossIndex, OverflowCounters};
use kvmtrace_common::flow::{DropCounters, DropKey, FlowCounters, FlowKey};
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

/// The maps.
pub(super) struct Reader {
    flows: HashMap<MapData, Flow, Counters>,
    drops: HashMap<MapData, Site, Drops>,
    overflow: HashMap<MapData, u64, Overflow>,
    losses: PerCpuArray<MapData, u64>,
    seen_flows: BTreeMap<[u8; 48], FlowCounters>,
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
            seen_drops: BTreeMap::new(),
            seen_loss: Loss::default(),
        })
    }

    /// What has changed since the last call.
    pub(super) fn changes(&mut self, now: Timestamp, resolver: &impl Resolver) -> Vec<Event> {
        let mut events = Vec::new();
        let mut flows: BTreeMap<[u8; 48], FlowCounters> = BTreeMap::new();
        for (Flow(mut key), Counters(counters)) in self.flows.iter().filter_map(Result::ok) {
            key.cpu = 0;
            let Ok(bytes) = <[u8; 48]>::try_from(key.as_bytes()) else { continue };
            flows.entry(bytes).and_modify(|sum| add_flow(sum, &counters)).or_insert(counters);
        }
        for (key, counters) in &flows {
            if self.seen_flows.get(key) == Some(counters) {
                continue;
            }
            let key: FlowKey = zerocopy::transmute!(*key);
            if let Some(sample) = decode::flow(&key, counters, resolver) {
                events.push(Event { time: now, kind: EventKind::Flow(sample) });
            }
        }
        self.seen_flows = flows;
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

    fn loss(&self) -> Loss {
        let sum = |index| -> u64 { self.losses.get(&index, 0).map_or(0, |values| values.iter().sum()) };
        let overflow: u64 = self.overflow.iter().filter_map(Result::ok).map(|(_, counters)| counters.0.packets).sum();
        Loss {
            ring_events: sum(LossIndex::RING_EVENTS),
            flows_evicted: 0,
            map_full: overflow.max(sum(LossIndex::FLOW_MAP_FULL)) + sum(LossIndex::DROP_MAP_FULL),
        }
    }
}

/// Adds what another CPU counted of the same flow at the same place.
fn add_flow(sum: &mut FlowCounters, other: &FlowCounters) {
    if other.first_ns < sum.first_ns {
        sum.first_ns = other.first_ns;
        sum.source_mac = other.source_mac;
        sum.destination_mac = other.destination_mac;
        sum.time_to_live = other.time_to_live;
    }
    if other.source_mac != sum.source_mac {
        sum.flags |= kvmtrace_common::flow::FlowFlags::SOURCE_MAC_CHANGED;
    }
    sum.packets += other.packets;
    sum.bytes += other.bytes;
    sum.fragments += other.fragments;
    sum.fragmented += other.fragmented;
    sum.gso += other.gso;
    sum.largest = sum.largest.max(other.largest);
    sum.tcp_syn += other.tcp_syn;
    sum.tcp_syn_ack += other.tcp_syn_ack;
    sum.tcp_reset += other.tcp_reset;
    sum.tcp_fin += other.tcp_fin;
    sum.flags |= other.flags;
}

fn add_drops(sum: &mut DropCounters, other: &DropCounters) {
    sum.packets += other.packets;
    sum.bytes += other.bytes;
    sum.first_ns = sum.first_ns.min(other.first_ns);
    sum.largest = sum.largest.max(other.largest);
}

//! Counting anew from a moment on, although the kernel's counters never go back: what was counted until then is taken
//! off every later sample.

use crate::event::{
    Degraded, DropSample, DropSite, Event, EventKind, FlowCounters, FlowKey, FlowSample, HostState, Loss, Place,
    Started, Timestamp, Unlisted, UnlistedPlace,
};
use crate::track::DEGRADATIONS;
use crate::track::remembered::Remembered;
use std::collections::HashMap;
use std::sync::Arc;

/// Keys remembered at most, of flows and of drops: a guest that makes up flows must not bloat the program.
const LIMIT: usize = 131_072;

/// The newest absolute counters, and what a trace that begins now must be told first.
#[derive(Clone, Debug)]
pub struct Latest {
    started: Option<Started>,
    host: Option<Arc<HostState>>,
    degraded: Vec<Degraded>,
    loss: Loss,
    flows: Remembered<(FlowKey, Place), FlowCounters>,
    drops: Remembered<(FlowKey, DropSite), (u64, u64)>,
    unlisted: Remembered<UnlistedPlace, (u64, u64)>,
}

impl Default for Latest {
    fn default() -> Self {
        Self {
            started: None,
            host: None,
            degraded: Vec::new(),
            loss: Loss::default(),
            flows: Remembered::new(LIMIT),
            drops: Remembered::new(LIMIT),
            unlisted: Remembered::new(LIMIT),
        }
    }
}

impl Latest {
    /// Remembers an event.
    pub fn note(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Started(started) => self.started = Some(started.clone()),
            EventKind::Host(host) => self.host = Some(host.clone()),
            EventKind::Degraded(degraded) => {
                if self.degraded.len() < DEGRADATIONS && !self.degraded.contains(degraded) {
                    self.degraded.push(degraded.clone());
                }
            }
            EventKind::Loss(loss) => self.loss = *loss,
            EventKind::Flow(sample) => {
                self.flows.insert((sample.flow, sample.place), sample.counters.clone());
            }
            EventKind::Drop(sample) => {
                self.drops.insert((sample.flow, sample.site.clone()), (sample.packets, sample.bytes));
            }
            EventKind::Unlisted(unlisted) => {
                self.unlisted.insert(unlisted.place.clone(), (unlisted.packets, unlisted.bytes));
            }
            // A sample: what was traced before says nothing about what will be.
            EventKind::RuleDrop(_) | EventKind::Packet(_) | EventKind::Command(_) | EventKind::Ended => {}
        }
    }

    /// The host, as it was told last.
    pub fn host(&self) -> Option<&Arc<HostState>> {
        self.host.as_ref()
    }

    /// The first events of a trace that begins at `now`.
    pub fn preamble(&self, now: Timestamp) -> Vec<Event> {
        let started = self.started.clone().map(EventKind::Started);
        let host = self.host.clone().map(EventKind::Host);
        let degraded = self.degraded.iter().cloned().map(EventKind::Degraded);
        started.into_iter().chain(host).chain(degraded).map(|kind| Event { time: now, kind }).collect()
    }
}

/// Takes off what was counted before.
#[derive(Debug)]
pub struct Rebase {
    base: Latest,
    since: Timestamp,
    /// When each flow of `base` was first seen, at whichever place.
    begun: HashMap<FlowKey, Timestamp>,
}

impl Rebase {
    /// Counts from `since` on, when `latest` was all that was known.
    pub fn new(latest: &Latest, since: Timestamp) -> Self {
        let mut begun: HashMap<FlowKey, Timestamp> = HashMap::new();
        for ((flow, _), counters) in latest.flows.iter() {
            let first = begun.entry(*flow).or_insert(counters.first);
            *first = counters.first.min(*first);
        }
        Self { base: latest.clone(), since, begun }
    }

    /// The event as a trace that began at `since` would have it; nothing if it tells of nothing new.
    pub fn apply(&self, event: &Event) -> Option<Event> {
        let kind = match &event.kind {
            EventKind::Flow(sample) => EventKind::Flow(self.flow(sample, event.time)?),
            EventKind::Drop(sample) => EventKind::Drop(self.dropped(sample)?),
            EventKind::Loss(loss) => EventKind::Loss(Loss {
                ring_events: loss.ring_events.saturating_sub(self.base.loss.ring_events),
                flows_evicted: loss.flows_evicted.saturating_sub(self.base.loss.flows_evicted),
                map_full: loss.map_full.saturating_sub(self.base.loss.map_full),
                rule_messages: loss.rule_messages.saturating_sub(self.base.loss.rule_messages),
            }),
            EventKind::Unlisted(unlisted) => EventKind::Unlisted(self.unlisted(unlisted)?),
            EventKind::Packet(_)
            | EventKind::RuleDrop(_)
            | EventKind::Host(_)
            | EventKind::Started(_)
            | EventKind::Degraded(_)
            | EventKind::Command(_)
            | EventKind::Ended => return Some(event.clone()),
        };
        Some(Event { time: event.time, kind })
    }

    /// The first packet's time at a place, moved to the beginning together with the flow's other places: their order and the
    /// time between them, which is the latency, stay as they were measured.
    fn moved(&self, flow: FlowKey, first: Timestamp, now: Timestamp) -> Timestamp {
        if first >= self.since {
            return first;
        }
        let begun = self.begun.get(&flow).copied().unwrap_or(first);
        Timestamp(self.since.0.saturating_add(first.since(begun).0)).min(now.max(self.since))
    }

    fn flow(&self, sample: &FlowSample, time: Timestamp) -> Option<FlowSample> {
        let Some(base) = self.base.flows.get(&(sample.flow, sample.place)) else { return Some(sample.clone()) };
        let counters = &sample.counters;
        // Fewer than before: the entry was evicted and made anew.
        if counters.packets < base.packets {
            return Some(sample.clone());
        }
        let counters = FlowCounters {
            packets: counters.packets - base.packets,
            bytes: counters.bytes.saturating_sub(base.bytes),
            first: self.moved(sample.flow, counters.first, time),
            fragments: counters.fragments.saturating_sub(base.fragments),
            fragmented: counters.fragmented.saturating_sub(base.fragmented),
            gso: counters.gso.saturating_sub(base.gso),
            tcp_syn: counters.tcp_syn.saturating_sub(base.tcp_syn),
            tcp_syn_ack: counters.tcp_syn_ack.saturating_sub(base.tcp_syn_ack),
            tcp_reset: counters.tcp_reset.saturating_sub(base.tcp_reset),
            tcp_fin: counters.tcp_fin.saturating_sub(base.tcp_fin),
            repeated: counters.repeated.saturating_sub(base.repeated),
            repeated_bytes: counters.repeated_bytes.saturating_sub(base.repeated_bytes),
            missing_bytes: counters.missing_bytes.saturating_sub(base.missing_bytes),
            ..counters.clone()
        };
        (counters.packets > 0).then(|| FlowSample { counters, ..sample.clone() })
    }

    fn unlisted(&self, unlisted: &Unlisted) -> Option<Unlisted> {
        let (packets, bytes) = self.base.unlisted.get(&unlisted.place).copied().unwrap_or_default();
        let packets = unlisted.packets.saturating_sub(packets);
        let bytes = unlisted.bytes.saturating_sub(bytes);
        (packets > 0).then(|| Unlisted { place: unlisted.place.clone(), packets, bytes })
    }

    fn dropped(&self, sample: &DropSample) -> Option<DropSample> {
        let (packets, bytes) = self.base.drops.get(&(sample.flow, sample.site.clone())).copied().unwrap_or_default();
        if sample.packets < packets {
            return Some(sample.clone());
        }
        let sample = DropSample {
            packets: sample.packets - packets,
            bytes: sample.bytes.saturating_sub(bytes),
            first: sample.first.max(self.since),
            ..sample.clone()
        };
        (sample.packets > 0).then_some(sample)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Address, Direction, IfIndex, Protocol};

    fn dropped(packets: u64) -> Event {
        let flow = FlowKey {
            protocol: Protocol::Udp,
            source: Address::Ip([10, 0, 0, 1].into()),
            source_port: Some(1),
            destination: Address::Ip([10, 0, 0, 2].into()),
            destination_port: Some(2),
            vlan: None,
        };
        let site = DropSite {
            reason: None,
            function: Some("br_handle_frame".to_owned()),
            offset: 1,
            device: Some(IfIndex(3)),
        };
        let sample = DropSample { flow, site, packets, bytes: packets * 100, first: Timestamp(1), largest: 100 };
        Event { time: Timestamp(packets), kind: EventKind::Drop(sample) }
    }

    #[test]
    fn only_what_came_later_is_counted() {
        let mut latest = Latest::default();
        latest.note(&dropped(7));
        let rebase = Rebase::new(&latest, Timestamp(50));
        assert_eq!(rebase.apply(&dropped(7)), None);
        let Some(Event { kind: EventKind::Drop(sample), .. }) = rebase.apply(&dropped(10)) else { panic!("no event") };
        assert_eq!((sample.packets, sample.bytes, sample.first), (3, 300, Timestamp(50)));
    }

    #[test]
    fn the_latency_between_two_places_stays_what_was_measured() {
        let at = |device: u32, first: u64, packets: u64| {
            let Event { kind: EventKind::Drop(drop), .. } = dropped(1) else { panic!("no drop") };
            let place = Place { device: IfIndex(device), direction: Direction::Ingress };
            let counters = FlowCounters { packets, bytes: packets, first: Timestamp(first), ..FlowCounters::default() };
            let sample = FlowSample { flow: drop.flow, place, counters };
            Event { time: Timestamp(9_000), kind: EventKind::Flow(sample) }
        };
        let mut latest = Latest::default();
        // The first packet took 40 ns from one device to the other.
        for event in [at(3, 140, 5), at(2, 100, 5)] {
            latest.note(&event);
        }
        let rebase = Rebase::new(&latest, Timestamp(8_000));
        let first = |event: &Event| match rebase.apply(event).map(|event| event.kind) {
            Some(EventKind::Flow(sample)) => sample.counters.first.0,
            other => panic!("{other:?}"),
        };
        assert_eq!((first(&at(2, 100, 6)), first(&at(3, 140, 6))), (8_000, 8_040));
        // A place that the flow came to only afterwards has its own time.
        assert_eq!(first(&at(4, 8_500, 1)), 8_500);
    }

    #[test]
    fn what_is_degraded_again_and_again_is_remembered_once_and_all_of_it_within_bounds() {
        let mut latest = Latest::default();
        for number in 0..10_000 {
            let degraded = Degraded { what: format!("device {}", number % 1_000), why: "it went".to_owned() };
            latest.note(&Event { time: Timestamp(number), kind: EventKind::Degraded(degraded) });
        }
        let preamble = latest.preamble(Timestamp(0));
        assert_eq!(preamble.len(), DEGRADATIONS);
        assert!(matches!(&preamble[1].kind, EventKind::Degraded(degraded) if degraded.what == "device 1"));
    }

    #[test]
    fn a_counter_that_began_anew_counts_in_full() {
        let mut latest = Latest::default();
        latest.note(&dropped(7));
        assert_eq!(Rebase::new(&latest, Timestamp(50)).apply(&dropped(2)), Some(dropped(2)));
    }
}

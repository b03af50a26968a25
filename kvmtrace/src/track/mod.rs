//! Which events belong together: flows, where they were seen, what was dropped of them, what ICMP said about them.
//!
//! It is a fold over events in bounded memory, not an interpretation: what it all means is told by [`crate::diagnose`].
//! A guest may open flows as fast as it likes, so their number is capped at [`FLOWS`]; when it is reached, the flows
//! that tell least (no drops, few packets, long ago) make room, and are counted as lost.
#![forbid(unsafe_code)]

pub mod flow;
mod identity;
pub mod quote;
pub mod rebase;
pub mod remembered;
mod rules;
mod tunnel;
mod unlisted;

pub use flow::{DropTotals, Flow};
pub use identity::packet_identity;
pub use quote::{IcmpError, Quoted};
pub use unlisted::Totals as UnlistedTotals;

use crate::event::host::Guest;
use crate::event::{
    Degraded, DropSample, Event, EventKind, FlowKey, FlowSample, HostState, IfIndex, Loss, PacketCause, PacketRecord,
    RuleSite, Started, Timestamp, UnlistedPlace, bounds,
};
use std::collections::{BTreeMap, BTreeSet};

/// Flows that are kept at once.
pub const FLOWS: usize = 100_000;
/// Flows that make room when there are too many: a batch, so that the search for them is rare.
const EVICTED_AT_ONCE: usize = FLOWS / 16;
/// ICMP errors that are remembered, by what they are about.
const ERRORS: usize = 4_096;
/// Devices, and guests, that are gone and still known.
const DEPARTED: usize = 512;
/// Places that all flows together are followed at.
const PLACES: usize = 6 * FLOWS;
/// Drop sites that all flows together are followed at.
const SITES: usize = FLOWS;
/// Degradations that are told.
pub(crate) const DEGRADATIONS: usize = 64;

/// Everything known of the trace so far.
#[derive(Debug, Default)]
pub struct Track {
    started: Option<Started>,
    start: Timestamp,
    end: Timestamp,
    host: HostState,
    first_host: Option<Box<HostState>>,
    /// Devices that are there; `host` also has those that were.
    present: BTreeSet<IfIndex>,
    flows: BTreeMap<FlowKey, Flow>,
    /// Places and drop sites of all flows.
    places: usize,
    sites: usize,
    errors: BTreeMap<Quoted, IcmpError>,
    rules: rules::Rules,
    sightings: identity::Sightings,
    loss: Loss,
    evicted: u64,
    unlisted: unlisted::Ledger,
    degraded: Vec<Degraded>,
    /// How often the host was told.
    hosts: u64,
    ended: bool,
    command_status: Option<i32>,
    /// Who sends asks once where a machine would ask again: the packets of `kvmtrace probe`.
    asks_once: bool,
}

impl Track {
    /// For a trace of packets that are sent once, and not again where nobody answers.
    pub fn of_probe() -> Self {
        Self { asks_once: true, ..Self::default() }
    }

    /// Nobody asks again: a request without an answer is all that there will be.
    pub fn asks_once(&self) -> bool {
        self.asks_once
    }

    /// Takes one event in.
    pub fn apply(&mut self, event: &Event) {
        self.end = self.end.max(event.time);
        match &event.kind {
            EventKind::Started(started) => {
                self.started = Some(started.clone());
                self.start = event.time;
            }
            EventKind::Host(host) => self.host_changed(host),
            EventKind::Flow(sample) => self.counted(sample, event.time),
            EventKind::Drop(sample) => self.dropped(sample, event.time),
            EventKind::Packet(record) => self.packet(record, event.time),
            EventKind::RuleDrop(drop) => self.rules.apply(drop, event.time),
            EventKind::Loss(loss) => self.loss = *loss,
            EventKind::Degraded(degraded) => {
                if self.degraded.len() < DEGRADATIONS && !self.degraded.contains(degraded) {
                    self.degraded.push(degraded.clone());
                }
            }
            EventKind::Command(end) => self.command_status = Some(end.status),
            EventKind::Unlisted(unlisted) => self.unlisted.apply(unlisted),
            EventKind::Ended => self.ended = self.hosts > 1,
        }
    }

    /// The state now; devices and guests that are gone stay known by their names.
    fn host_changed(&mut self, host: &HostState) {
        self.hosts += 1;
        let mut host = host.clone();
        // A live trace's state is bounded already; a recording may tell anything.
        host.bound(bounds::ROOM);
        if self.first_host.is_none() {
            self.first_host = Some(Box::new(host.clone()));
        }
        let before = std::mem::take(&mut self.host);
        let mut links = before.links;
        for index in std::mem::take(&mut self.present) {
            if let (Some(link), false) = (links.get_mut(&index), host.links.contains_key(&index)) {
                (link.up, link.carrier) = (false, false);
            }
        }
        self.present = host.links.keys().copied().collect();
        links.append(&mut host.links);
        // The oldest have the lowest numbers.
        let spare = links.len().saturating_sub(self.present.len() + DEPARTED);
        let oldest = links.keys().filter(|index| !self.present.contains(index)).take(spare);
        for index in oldest.copied().collect::<Vec<_>>() {
            links.remove(&index);
        }
        // A tap whose process has ended is still its guest's: the name and the addresses that it had say more than the device.
        for guest in host.guests.iter_mut().filter(|guest| guest.pid.is_none()) {
            let same =
                |known: &&Guest| interfaces(std::slice::from_ref(*known)).eq(interfaces(std::slice::from_ref(guest)));
            if let Some(known) = before.guests.iter().find(same) {
                *guest = Guest { pid: None, ..known.clone() };
            }
        }
        let owned: BTreeSet<IfIndex> = interfaces(&host.guests).collect();
        let gone = before
            .guests
            .into_iter()
            .filter(|guest| !guest.interfaces.iter().any(|interface| owned.contains(&interface.device)));
        host.guests.extend(gone.take(DEPARTED).map(|guest| Guest { pid: None, ..guest }));
        self.host = HostState { links, ..host };
    }

    fn counted(&mut self, sample: &FlowSample, now: Timestamp) {
        let room = self.places < PLACES;
        self.places += usize::from(self.flow(sample.flow, sample.counters.first).counted(sample, now, room));
    }

    fn dropped(&mut self, sample: &DropSample, now: Timestamp) {
        let room = self.sites < SITES;
        let flow = self.flow(sample.flow, sample.first);
        let (carries, new) = (flow.carries, flow.dropped(sample, now, room));
        self.sites += usize::from(new);
        if let Some(inner) = carries {
            let sample = tunnel::inner_sample(sample, inner);
            self.sites += usize::from(self.flow(inner, sample.first).dropped(&sample, now, room));
        }
    }

    fn packet(&mut self, record: &PacketRecord, now: Timestamp) {
        self.sightings.apply(record, now);
        if let Some(error) = IcmpError::read(record, now) {
            let known = self.errors.len();
            if let Some(before) = self.errors.get_mut(&error.about) {
                before.merge(&error);
            } else if known < ERRORS {
                self.errors.insert(error.about, error);
            }
        }
        let target = quote::solicited(record);
        if target.is_some() || matches!(record.cause, PacketCause::Dropped { .. } | PacketCause::MacChanged) {
            let room = self.sites < SITES;
            self.sites += usize::from(self.flow(record.flow, now).packet(record, target, now, room));
        }
        let PacketCause::Dropped { site, .. } = &record.cause else { return };
        if let Some(inner) = tunnel::carried(&self.host, record) {
            self.flow(record.flow, now).carries = Some(inner.flow);
            let room = self.sites < SITES;
            let new = self.flow(inner.flow, now).packet(&inner, quote::solicited(&inner), now, room);
            self.sites += usize::from(new);
            self.flow(inner.flow, now).died_in(site, record.flow);
        }
        self.pieces(record.flow, now);
    }

    /// Later fragments of a tunnel's packet do not hold what is inside: where they died is told by the packet's flow, before
    /// or after the one that does.
    fn pieces(&mut self, outer: FlowKey, now: Timestamp) {
        let Some((flow, inner)) = self.flows.get(&outer).and_then(|flow| Some((flow, flow.carries?))) else { return };
        let known = self.flows.get(&inner).map(|flow| &flow.drops);
        let is_new = |site: &crate::event::DropSite| {
            known.and_then(|drops| drops.get(site)).is_none_or(|totals| totals.example.is_none())
        };
        let examples =
            flow.drops.iter().filter(|(site, _)| is_new(site)).filter_map(|(_, totals)| totals.example.as_deref());
        let pieces: Vec<PacketRecord> = examples.map(|example| tunnel::piece(example, inner)).collect();
        for piece in pieces {
            let room = self.sites < SITES;
            let flow = self.flow(inner, now);
            let new = flow.packet(&piece, None, now, room);
            if let PacketCause::Dropped { site, .. } = &piece.cause {
                flow.died_in(site, outer);
            }
            self.sites += usize::from(new);
        }
    }

    fn flow(&mut self, key: FlowKey, first: Timestamp) -> &mut Flow {
        if self.flows.len() >= FLOWS && !self.flows.contains_key(&key) {
            self.evict();
        }
        self.flows.entry(key).or_insert_with(|| Flow::new(key, first))
    }

    /// The flows of the devices that have most make room, those with the least to report first.
    fn evict(&mut self) {
        let guests: BTreeSet<IfIndex> = interfaces(&self.host.guests).collect();
        let mut owned: BTreeMap<Option<IfIndex>, Vec<_>> = BTreeMap::new();
        for flow in self.flows.values() {
            owned.entry(flow.owner(&guests)).or_default().push((flow.weight(), flow.key));
        }
        let share = bounds::fair_share(owned.values().map(Vec::len), FLOWS.saturating_sub(EVICTED_AT_ONCE));
        for (_, mut flows) in owned {
            let excess = flows.len().saturating_sub(share);
            if excess == 0 {
                continue;
            }
            flows.select_nth_unstable(excess - 1);
            for (_, key) in flows.iter().take(excess) {
                if let Some(flow) = self.flows.remove(key) {
                    self.places -= flow.places.len();
                    self.sites -= flow.drops.len();
                    self.unlisted.evicted(&flow);
                }
                self.evicted += 1;
            }
        }
    }

    /// Forgets what has rested since before a time: for traces without an end. A flow that goes on is known again, with
    /// counters that reach back to its start.
    pub fn forget(&mut self, before: Timestamp) {
        self.flows.retain(|_, flow| flow.last >= before);
        self.places = self.flows.values().map(|flow| flow.places.len()).sum();
        self.sites = self.flows.values().map(|flow| flow.drops.len()).sum();
        self.errors.retain(|_, error| error.first >= before);
        self.rules.forget(before);
        self.sightings.forget(before);
    }

    /// What was asked for.
    pub fn started(&self) -> Option<&Started> {
        self.started.as_ref()
    }

    /// When the trace began.
    pub fn start(&self) -> Timestamp {
        self.start
    }

    /// The time of the latest event.
    pub fn end(&self) -> Timestamp {
        self.end
    }

    /// The trace has ended, and the host was read again at its end, all of it.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Exit status of the command that was traced.
    pub fn command_status(&self) -> Option<i32> {
        self.command_status
    }

    /// The host as it is now, with what has left it meanwhile.
    pub fn host(&self) -> &HostState {
        &self.host
    }

    /// The host as it was when the trace began.
    pub fn first_host(&self) -> &HostState {
        self.first_host.as_deref().unwrap_or(&self.host)
    }

    /// A flow by its key.
    pub fn get(&self, key: &FlowKey) -> Option<&Flow> {
        self.flows.get(key)
    }

    /// The flow and those that differ from it by their VLAN tag alone.
    pub fn variants(&self, key: FlowKey) -> impl Iterator<Item = &Flow> {
        let (first, last) = (FlowKey { vlan: None, ..key }, FlowKey { vlan: Some(u16::MAX), ..key });
        self.flows.range(first..=last).map(|(_, flow)| flow)
    }

    /// All flows, ordered by key.
    pub fn flows(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    /// What ICMP said, by what it is about.
    pub fn errors(&self) -> impl Iterator<Item = &IcmpError> {
        self.errors.values()
    }

    /// The rules that took packets from a flow, as nft's trace told it with how many packets it saw there: the one that
    /// was seen most often first.
    pub fn rules_of(&self, key: &FlowKey) -> Vec<(&RuleSite, u64)> {
        self.rules.of(key)
    }

    /// Keys, without VLAN, that the same packet had as it came in and as it was forwarded or dropped.
    pub fn translations(&self) -> Vec<(FlowKey, FlowKey)> {
        self.sightings.translations()
    }

    /// What could not be told.
    pub fn loss(&self) -> Loss {
        Loss { flows_evicted: self.loss.flows_evicted + self.evicted, ..self.loss }
    }

    /// Packets that were counted without their flows, by place.
    pub fn unlisted(&self) -> impl Iterator<Item = (&UnlistedPlace, UnlistedTotals)> {
        self.unlisted.totals()
    }

    /// The same without the flows that made room for others here.
    pub fn told_unlisted(&self) -> impl Iterator<Item = (&UnlistedPlace, UnlistedTotals)> {
        self.unlisted.told()
    }

    /// How many packets the kernel's side counted without their flows at a place.
    pub fn told_unlisted_at(&self, place: &UnlistedPlace) -> UnlistedTotals {
        self.unlisted.told_at(place)
    }

    /// What is missing of the trace.
    pub fn degraded(&self) -> &[Degraded] {
        &self.degraded
    }
}

/// The devices of guests.
fn interfaces(guests: &[Guest]) -> impl Iterator<Item = IfIndex> {
    guests.iter().flat_map(|guest| &guest.interfaces).map(|interface| interface.device)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Address, Direction, FlowCounters, Place, Protocol};

    fn sample(port: u16, packets: u64) -> Event {
        let address = |last| Address::Ip(std::net::IpAddr::from([10, 0, 0, last]));
        let flow = FlowKey {
            protocol: Protocol::Udp,
            source: address(1),
            source_port: Some(port),
            destination: address((packets % 200) as u8),
            destination_port: Some((packets / 200) as u16),
            vlan: None,
        };
        let counters = FlowCounters { packets, ..FlowCounters::default() };
        let place = Place { device: IfIndex(1), direction: Direction::Ingress };
        Event { time: Timestamp(packets), kind: EventKind::Flow(FlowSample { flow, place, counters }) }
    }

    #[test]
    fn a_flood_of_flows_stays_bounded_and_is_counted() {
        let mut track = Track::default();
        for packets in 0..(FLOWS as u64 + 10) {
            track.apply(&sample(1, packets));
        }
        assert!(track.flows.len() <= FLOWS);
        assert_eq!(track.loss().flows_evicted + track.flows.len() as u64, FLOWS as u64 + 10);
        assert!(track.flows().any(|flow| flow.packets() == FLOWS as u64 + 9), "the heaviest stays");
        assert!(!track.flows().any(|flow| flow.packets() == 1), "the lightest goes");
    }
}

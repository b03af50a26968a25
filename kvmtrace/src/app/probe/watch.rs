//! Whether a probe's packets need to be waited for any longer: a fold over events. Pure.

use crate::event::{
    DropSample, Event, EventKind, FlowKey, FlowSample, MacAddress, PacketCause, PacketRecord, Place, Protocol,
};
use crate::track::IcmpError;

/// What was seen of one probe so far.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    key: FlowKey,
    entry: Place,
    /// The answer left by the device that the packets entered by: the sender's own MAC address is there.
    pub(super) answered: bool,
    /// A packet, or an answer, was dropped.
    pub(super) dropped: bool,
    /// An ICMP error about it was seen.
    pub(super) refused: bool,
    /// One went back to the sender.
    pub(super) told: bool,
    /// It went out by another device.
    pub(super) left: bool,
    /// The MAC address that an answer came from, also of one that did not get as far as the sender.
    pub(super) answerer: Option<MacAddress>,
}

impl Watch {
    /// For a flow that enters here.
    pub(super) fn new(key: FlowKey, entry: Place) -> Self {
        let key = FlowKey { vlan: None, ..key };
        Self { key, entry, answered: false, dropped: false, refused: false, told: false, left: false, answerer: None }
    }

    /// Nothing that comes later can change the outcome.
    pub(super) fn is_decided(&self) -> bool {
        self.answered || self.dropped || self.refused
    }

    /// Takes an event in.
    pub(super) fn take(&mut self, event: &Event) {
        match &event.kind {
            EventKind::Packet(record) => self.packet(record, event),
            EventKind::Flow(sample) => self.counted(sample),
            EventKind::Drop(DropSample { flow, packets, .. }) if *packets > 0 => {
                self.dropped |= self.is_own(*flow) || self.is_answer(*flow);
            }
            EventKind::Drop(_)
            | EventKind::Started(_)
            | EventKind::Host(_)
            | EventKind::RuleDrop(_)
            | EventKind::Loss(_)
            | EventKind::Degraded(_)
            | EventKind::Command(_)
            | EventKind::Unlisted(_)
            | EventKind::Ended => {}
        }
    }

    fn packet(&mut self, record: &PacketRecord, event: &Event) {
        let own = self.is_own(record.flow);
        let answer = self.is_answer(record.flow);
        if let PacketCause::Dropped { .. } = record.cause {
            self.dropped |= own || answer;
        } else if let Some(place) = record.place {
            let source = record.header.get(6..12).and_then(|bytes| <[u8; 6]>::try_from(bytes).ok());
            self.seen(own, answer, place, source.filter(|_| record.ethernet).map(MacAddress));
        }
        if let Some(error) = IcmpError::read(record, event.time) {
            let about = self.is_own(error.about.flow);
            self.refused |= about;
            self.told |= about && record.place.is_some_and(|place| self.is_exit(place));
        }
    }

    fn counted(&mut self, sample: &FlowSample) {
        let (own, answer) = (self.is_own(sample.flow), self.is_answer(sample.flow));
        self.seen(own, answer, sample.place, Some(sample.counters.source_mac));
    }

    fn seen(&mut self, own: bool, answer: bool, place: Place, source: Option<MacAddress>) {
        if answer {
            self.answered |= self.is_exit(place);
            self.answerer = self.answerer.or(source.filter(|mac| !mac.is_zero()));
        }
        self.left |= own && place.device != self.entry.device && place.direction == crate::event::Direction::Egress;
    }

    /// Packets for the sender leave here.
    fn is_exit(&self, place: Place) -> bool {
        place.device == self.entry.device && place.direction != self.entry.direction
    }

    fn is_own(&self, flow: FlowKey) -> bool {
        FlowKey { vlan: None, ..flow } == self.key
    }

    fn is_answer(&self, flow: FlowKey) -> bool {
        let flow = FlowKey { vlan: None, ..flow };
        if flow == self.key.reverse() {
            return true;
        }
        match (self.key.protocol, flow.protocol) {
            // A solicitation goes to a group, its answer comes from the target.
            (Protocol::Icmpv6 { kind: 135, .. }, Protocol::Icmpv6 { kind: 136, .. }) => {
                flow.destination == self.key.source
            }
            (Protocol::Udp, Protocol::Udp) => {
                (self.key.source_port, self.key.destination_port) == (Some(68), Some(67))
                    && (flow.source_port, flow.destination_port) == (Some(67), Some(68))
            }
            (_, _) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::{Address, Direction, FlowCounters, IfIndex, Timestamp};

    const TAP: IfIndex = IfIndex(3);
    const UPLINK: IfIndex = IfIndex(1);

    fn key() -> FlowKey {
        let end = |last: u8| Address::Ip([10, 0, 0, last].into());
        FlowKey {
            protocol: Protocol::Icmp { kind: 8, code: 0, id: 61_500 },
            source: end(11),
            source_port: None,
            destination: end(100),
            destination_port: None,
            vlan: None,
        }
    }

    fn counted(flow: FlowKey, device: IfIndex, direction: Direction) -> Event {
        let counters =
            FlowCounters { packets: 1, source_mac: MacAddress([2, 0, 0, 0, 0, 9]), ..FlowCounters::default() };
        let sample = FlowSample { flow, place: Place { device, direction }, counters };
        Event { time: Timestamp(1), kind: EventKind::Flow(sample) }
    }

    fn after(events: &[Event]) -> Watch {
        let mut watch = Watch::new(key(), Place { device: TAP, direction: Direction::Ingress });
        for event in events {
            watch.take(event);
        }
        watch
    }

    #[test]
    fn an_answer_counts_only_where_the_sender_is() {
        let reply = key().reverse();
        let near = after(&[counted(reply, UPLINK, Direction::Ingress), counted(reply, TAP, Direction::Ingress)]);
        assert!(!near.answered && !near.is_decided());
        let here = after(&[counted(FlowKey { vlan: Some(7), ..reply }, TAP, Direction::Egress)]);
        assert!(here.answered && here.is_decided());
        assert_eq!(here.answerer, Some(MacAddress([2, 0, 0, 0, 0, 9])));
    }

    #[test]
    fn a_packet_that_leaves_is_noted_and_other_flows_are_not() {
        assert!(after(&[counted(key(), UPLINK, Direction::Egress)]).left);
        assert!(!after(&[counted(key(), TAP, Direction::Ingress)]).left);
        let other = FlowKey { protocol: Protocol::Icmp { kind: 8, code: 0, id: 7 }, ..key() };
        let watch =
            after(&[counted(other, UPLINK, Direction::Egress), counted(other.reverse(), TAP, Direction::Egress)]);
        assert!(!watch.left && !watch.answered);
    }

    #[test]
    fn an_answer_to_a_solicitation_comes_from_its_target_and_an_offer_from_the_server() {
        let six = |text: &str| Address::Ip(text.parse().unwrap());
        let solicitation = FlowKey {
            protocol: Protocol::Icmpv6 { kind: 135, code: 0, id: 0 },
            source: six("fd00::5"),
            destination: six("ff02::1:ff00:1"),
            ..key()
        };
        let advertisement = FlowKey {
            protocol: Protocol::Icmpv6 { kind: 136, code: 0, id: 0 },
            source: six("fd00::1"),
            destination: six("fd00::5"),
            ..key()
        };
        let mut watch = Watch::new(solicitation, Place { device: TAP, direction: Direction::Ingress });
        watch.take(&counted(advertisement, TAP, Direction::Egress));
        assert!(watch.answered);
    }
}

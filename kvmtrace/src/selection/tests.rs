//! Moments and windows; what is narrowed is seen in the lab (`tests/record.rs`).

use super::*;
use crate::event::{
    Address, Direction, EventKind, FlowCounters, FlowSample, IfIndex, Place, Protocol, Started, Timestamp,
};

const SECOND: u64 = 1_000_000_000;
/// 2026-11-23, 15:28:12 UTC.
const START: u64 = 1_795_447_692 * SECOND;

fn moment(text: &str) -> Option<u64> {
    Some(text.parse::<Moment>().ok()?.in_recording(Timestamp(START)).0.wrapping_sub(START) / SECOND)
}

#[test]
fn moments_are_dates_times_of_day_or_distances_from_the_start() {
    assert_eq!(moment("2026-11-23T15:28:42Z"), Some(30));
    assert_eq!(moment("2026-11-23T16:28:42+01:00"), Some(30));
    assert_eq!(moment("15:29"), Some(48));
    assert_eq!(moment("15:28:13"), Some(1));
    assert_eq!(moment("00:00"), Some(30_708), "the midnight to come");
    assert_eq!(["90", "90s", "2m", "1h"].map(moment), [Some(90), Some(90), Some(120), Some(3_600)]);
    for wrong in ["", "soon", "25:00", "12:61", "-5", "1.5.2026", "99999999999999999999", "18446744073709551615h"] {
        assert_eq!(moment(wrong), None, "{wrong}");
    }
}

fn counted(second: u64, packets: u64) -> Event {
    let end = |last: u8| Address::Ip([10, 0, 0, last].into());
    let flow = FlowKey {
        protocol: Protocol::Udp,
        source: end(1),
        source_port: Some(1),
        destination: end(2),
        destination_port: Some(2),
        vlan: None,
    };
    let counters = FlowCounters { packets, first: Timestamp(START), ..FlowCounters::default() };
    let place = Place { device: IfIndex(3), direction: Direction::Ingress };
    Event { time: Timestamp(START + second * SECOND), kind: EventKind::Flow(FlowSample { flow, place, counters }) }
}

fn packets_in(since: Option<&str>, until: Option<&str>) -> Vec<u64> {
    let parse = |text: Option<&str>| text.map(|text| text.parse().unwrap());
    let mut passage = Window { since: parse(since), until: parse(until) }.passage();
    let started = Started {
        version: String::new(),
        devices: Vec::new(),
        guests: Vec::new(),
        all: false,
        filter: String::new(),
        followed: false,
    };
    let started = Event { time: Timestamp(START), kind: EventKind::Started(started) };
    let ended = Event { time: Timestamp(START + 9 * SECOND), kind: EventKind::Ended };
    let all = [started, counted(1, 10), counted(3, 25), counted(5, 27), ended];
    let seen: Vec<Event> = all.into_iter().flat_map(|event| passage.take(event)).collect();
    assert!(matches!(seen.first().map(|event| &event.kind), Some(EventKind::Started(_))), "{seen:?}");
    assert!(matches!(seen.last().map(|event| &event.kind), Some(EventKind::Ended)), "{seen:?}");
    let packets =
        |event: &Event| if let EventKind::Flow(sample) = &event.kind { Some(sample.counters.packets) } else { None };
    seen.iter().filter_map(packets).collect()
}

#[test]
fn a_window_counts_from_its_begin_and_ends_at_its_end() {
    assert_eq!(packets_in(None, None), [10, 25, 27]);
    assert_eq!(packets_in(Some("2"), None), [15, 17]);
    assert_eq!(packets_in(None, Some("4")), [10, 25]);
    assert_eq!(packets_in(Some("2"), Some("4")), [15]);
    assert_eq!(packets_in(Some("8"), None), [0_u64; 0]);
}

//! Lines that add up, whatever the rate is.

use crate::diagnose::watch::{Notice, NoticeKind, Options, Watcher};
use crate::event::{Direction, Event, EventKind, IfIndex, PacketCause, PacketRecord, Place, Timestamp};
use crate::pipeline::Pipeline;
use crate::record::samples::trace;
use crate::sink::watch::{Zone, json};
use std::collections::BTreeMap;

/// The lines of a trace, and those of its end.
fn lines(events: &[Event], options: Options) -> (Vec<Notice>, Vec<Notice>) {
    let mut pipeline = Pipeline::default();
    let mut watcher = Watcher::new(options);
    let mut lines = Vec::new();
    for event in events {
        pipeline.take(event);
        lines.extend(watcher.step(event, pipeline.track()));
    }
    let end = watcher.finish(pipeline.track());
    (lines, end)
}

fn options(rate: u32) -> Options {
    Options { rate, paths: false, min_latency: 0 }
}

fn sums<'a>(lines: impl Iterator<Item = &'a Notice>) -> BTreeMap<Option<String>, u64> {
    let mut sums = BTreeMap::new();
    for line in lines {
        *sums.entry(line.flow_id.clone()).or_default() += line.packets;
    }
    sums
}

#[test]
fn lines_add_up_to_the_totals_and_to_the_verdicts_at_any_rate() {
    let mut pipeline = Pipeline::default();
    for event in &trace() {
        pipeline.take(event);
    }
    let report = pipeline.report();
    let dropped = report.flows.iter().filter(|flow| flow.dropped > 0);
    let expected: BTreeMap<_, _> = dropped.map(|flow| (Some(flow.id.clone()), flow.dropped)).collect();
    assert_eq!(expected.len(), 40);
    for rate in [0, 1, 7, 1_000] {
        let (lines, end) = lines(&trace(), options(rate));
        let all = || lines.iter().chain(&end);
        assert_eq!(sums(all().filter(|line| line.kind == NoticeKind::Drop)), expected, "rate {rate}");
        assert_eq!(sums(all().filter(|line| line.kind == NoticeKind::Total)), expected, "rate {rate}");
        assert!(all().filter(|line| line.kind == NoticeKind::Total).all(|line| line.cause.is_some()));
    }
}

#[test]
fn the_first_drop_is_a_line_of_its_own_and_the_next_has_only_what_is_new() {
    let (lines, _) = lines(&trace(), options(1_000));
    let of_one: Vec<&Notice> = lines.iter().filter(|line| line.ends.source_port == Some(40_000)).collect();
    let counts: Vec<_> =
        of_one.iter().filter(|line| line.kind == NoticeKind::Drop).map(|line| (line.packets, line.count)).collect();
    assert_eq!(counts, [(1, 1), (5, 6)]);
    assert!(of_one.iter().any(|line| line.text.starts_with("5 packets dropped, 6 so far: ")), "{of_one:#?}");
}

#[test]
fn no_more_lines_than_the_rate_are_given_in_a_second_before_its_end() {
    let (lines, _) = lines(&trace(), options(3));
    // Sums have the time of the event that opened the next second.
    let mut by_second: BTreeMap<u64, Vec<Timestamp>> = BTreeMap::new();
    for line in &lines {
        by_second.entry(line.time.0 / 1_000_000_000).or_default().push(line.time);
    }
    for times in by_second.values() {
        let later = times.iter().filter(|time| **time > times[0]).count();
        assert!(later <= 3, "{times:?}");
    }
    assert!(by_second.len() > 1 && lines.len() > 3 * by_second.len(), "{by_second:?}");
}

/// Every packet of a flow at the tap and, a little later, at the NIC.
fn journeys() -> Vec<Event> {
    let mut events = trace();
    let first = events.iter().find_map(|event| {
        let EventKind::Packet(record) = &event.kind else { return None };
        (record.cause == PacketCause::First).then(|| (event.time, PacketRecord::clone(record)))
    });
    let (time, record) = first.unwrap();
    events.truncate(3);
    let places = [(3, Direction::Ingress), (2, Direction::Egress)];
    for number in 0..4_u64 {
        for ((device, direction), after) in places.into_iter().zip([0, 1_000_000 * number]) {
            let mut record = PacketRecord { cause: PacketCause::Wanted, ..record.clone() };
            record.place = Some(Place { device: IfIndex(device), direction });
            // The identification of the IPv4 header.
            record.header[19] = number as u8;
            let time = Timestamp(time.0 + number * 10_000_000 + after);
            events.push(Event { time, kind: EventKind::Packet(Box::new(record)) });
        }
    }
    events
}

#[test]
fn a_packets_way_has_its_places_and_how_long_it_took() {
    for (min_latency, expected) in [(0, [0, 1, 2, 3].as_slice()), (2_000_000, &[2, 3])] {
        let (lines, end) = lines(&journeys(), Options { rate: 100, paths: true, min_latency });
        let ways: Vec<&Notice> = lines.iter().chain(&end).filter(|line| line.kind == NoticeKind::Path).collect();
        let took: Vec<_> = ways.iter().map(|way| way.latency_ns.unwrap() / 1_000_000).collect();
        assert_eq!(took, expected);
        for way in ways {
            let devices: Vec<_> = way.path.iter().flatten().map(|hop| hop.device.as_str()).collect();
            assert_eq!(devices, ["vnet0", "eth0"]);
            assert!(way.text.starts_with("vnet0 in → eth0 out +") && way.guest.as_deref() == Some("web1"), "{way:?}");
        }
    }
}

#[test]
fn every_line_is_as_the_published_schema_says() {
    let schema = serde_json::from_str(include_str!("../../../../docs/watch.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let zone = Zone::new("+01:00", |_| None);
    for events in [trace(), journeys()] {
        let (lines, end) = lines(&events, Options { rate: 5, paths: true, min_latency: 0 });
        for line in lines.iter().chain(&end) {
            let mut out = Vec::new();
            json(line, &zone, &mut out).unwrap();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let errors: Vec<_> = validator.iter_errors(&value).map(|error| error.to_string()).collect();
            assert!(errors.is_empty(), "{value:#}: {errors:?}");
        }
    }
    assert!(!validator.is_valid(&serde_json::json!({"schema": "kvmtrace/watch/1", "kind": "drop"})));
}

//! Numbers that only grow, whatever becomes of the flows.

use super::*;
use crate::event::host::{Guest, GuestInterface};
use crate::event::{Address, DropSample, DropSite, FlowCounters, HostState, Place, Protocol};
use std::collections::BTreeSet;

const SECOND: u64 = 1_000_000_000;

fn key(port: u16) -> FlowKey {
    let address = |last| Address::Ip(std::net::IpAddr::from([10, 0, 0, last]));
    FlowKey {
        protocol: Protocol::Udp,
        source: address(1),
        source_port: Some(port),
        destination: address(2),
        destination_port: Some(9),
        vlan: None,
    }
}

fn passed(port: u16, packets: u64, first: u64) -> EventKind {
    let counters = FlowCounters { packets, bytes: packets * 100, first: Timestamp(first), ..FlowCounters::default() };
    let place = Place { device: IfIndex(3), direction: Direction::Ingress };
    EventKind::Flow(FlowSample { flow: key(port), place, counters })
}

fn dropped(port: u16, packets: u64, first: u64) -> EventKind {
    let site = DropSite {
        reason: Some("NETFILTER_DROP".to_owned()),
        function: Some("nft_do_chain".to_owned()),
        offset: 0,
        device: Some(IfIndex(3)),
    };
    let first = Timestamp(first);
    EventKind::Drop(DropSample { flow: key(port), site, packets, bytes: packets * 86, first, largest: 86 })
}

/// A host whose guest has a hostile name.
fn host() -> EventKind {
    let interface = GuestInterface::new(IfIndex(3), "tap", None, Vec::new());
    let guest = Guest { name: "we\"b\n1".to_owned(), interfaces: vec![interface], ..Guest::default() };
    EventKind::Host(std::sync::Arc::new(HostState { guests: vec![guest], ..HostState::default() }))
}

#[derive(Default)]
struct Trace {
    track: Track,
    meters: Meters,
    now: Timestamp,
}

impl Trace {
    fn take(&mut self, time: u64, kind: EventKind) {
        self.now = Timestamp(time);
        let event = Event { time: self.now, kind };
        self.meters.take(&event, &self.track);
        self.track.apply(&event);
    }

    fn text(&mut self) -> String {
        self.meters.judge(self.now, &crate::diagnose::report(&self.track), &self.track);
        self.meters.text()
    }
}

/// The sum of the samples of a family whose lines have all these parts: those of a guest that nothing happened to are 0.
fn value(text: &str, family: &str, parts: &[&str]) -> u64 {
    let fits = |line: &&str| line.starts_with(family) && parts.iter().all(|part| line.contains(part));
    let lines: Vec<&str> = text.lines().filter(fits).collect();
    assert!(!lines.is_empty(), "{family} {parts:?} in\n{text}");
    lines.iter().map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn counters_of_a_guest_are_there_before_anything_happens() {
    let mut trace = Trace::default();
    trace.take(SECOND, host());
    let text = trace.text();
    for (family, direction) in [
        ("kvmtrace_packets_total", "ingress"),
        ("kvmtrace_bytes_total", "egress"),
        ("kvmtrace_fragments_total", "ingress"),
        ("kvmtrace_dropped_packets_total", "from-guest"),
        ("kvmtrace_dropped_packets_total", "to-guest"),
    ] {
        assert_eq!(value(&text, family, &[&format!("direction=\"{direction}\"")]), 0);
    }
    assert_eq!(value(&text, "kvmtrace_lost_events_total", &[]), 0);
}

#[test]
fn packets_and_drops_are_told_by_guest_device_and_cause() {
    let mut trace = Trace::default();
    trace.take(SECOND, host());
    trace.take(2 * SECOND, passed(7, 10, SECOND));
    trace.take(2 * SECOND, dropped(7, 4, SECOND));
    let text = trace.text();
    assert_eq!(value(&text, "kvmtrace_packets_total", &["direction=\"ingress\"", r#"guest="we\"b\\u{a}1""#]), 10);
    assert_eq!(value(&text, "kvmtrace_bytes_total", &[]), 1_000);
    assert_eq!(value(&text, "kvmtrace_dropped_packets_total", &["cause=\"netfilter-forward\""]), 4);
    assert_eq!(value(&text, "kvmtrace_faulty_flows", &["severity=\"error\""]), 1);
    trace.take(3 * SECOND, passed(7, 15, SECOND));
    trace.take(3 * SECOND, dropped(7, 6, SECOND));
    let text = trace.text();
    assert_eq!(value(&text, "kvmtrace_packets_total", &[]), 15);
    assert_eq!(value(&text, "kvmtrace_dropped_packets_total", &[]), 6);
    // Long after, it is no fault of now; what was counted stays.
    trace.now = Timestamp(300 * SECOND);
    let text = trace.text();
    assert!(!text.contains("kvmtrace_faulty_flows{"), "{text}");
    assert_eq!(value(&text, "kvmtrace_dropped_packets_total", &[]), 6);
}

#[test]
fn a_flow_that_was_forgotten_is_not_counted_twice() {
    let mut trace = Trace::default();
    trace.take(SECOND, host());
    trace.take(4 * SECOND, passed(7, 10, SECOND));
    trace.take(4 * SECOND, dropped(7, 4, SECOND));
    trace.text();
    // Nothing happens for long.
    trace.now = Timestamp(50 * SECOND);
    trace.track.forget(Timestamp(40 * SECOND));
    trace.text();
    trace.take(60 * SECOND, passed(7, 30, SECOND));
    trace.take(60 * SECOND, dropped(7, 9, SECOND));
    let text = trace.text();
    assert_eq!(value(&text, "kvmtrace_packets_total", &[]), 10);
    assert_eq!(value(&text, "kvmtrace_dropped_packets_total", &[]), 4);
    trace.take(61 * SECOND, passed(7, 31, SECOND));
    trace.take(61 * SECOND, dropped(7, 10, SECOND));
    let text = trace.text();
    assert_eq!(value(&text, "kvmtrace_packets_total", &[]), 11);
    assert_eq!(value(&text, "kvmtrace_dropped_packets_total", &[]), 5);
}

#[test]
fn flows_that_are_read_late_are_all_counted() {
    let mut trace = Trace::default();
    trace.take(SECOND, host());
    trace.take(2 * SECOND, passed(7, 10, SECOND));
    // Judging took long; the flow began right after the last reading.
    trace.take(40 * SECOND, passed(8, 5, 3 * SECOND));
    assert_eq!(value(&trace.text(), "kvmtrace_packets_total", &[]), 15);
}

#[test]
fn drops_of_an_old_flow_that_was_in_order_are_all_counted() {
    let mut trace = Trace::default();
    trace.take(SECOND, host());
    trace.take(2 * SECOND, passed(7, 10, SECOND));
    trace.text();
    trace.take(90 * SECOND, passed(7, 30, SECOND));
    trace.text();
    trace.take(91 * SECOND, dropped(7, 4, 91 * SECOND));
    assert_eq!(value(&trace.text(), "kvmtrace_dropped_packets_total", &[]), 4);
}

#[test]
fn a_flood_of_flows_makes_no_series() {
    let mut trace = Trace::default();
    trace.take(SECOND, host());
    let series = |text: &str| text.lines().filter(|line| !line.starts_with('#')).count();
    trace.take(2 * SECOND, passed(0, 1, 2 * SECOND));
    trace.take(2 * SECOND, dropped(0, 1, 2 * SECOND));
    let few = series(&trace.text());
    for port in 1..2_000 {
        trace.take(2 * SECOND, passed(port, 1, 2 * SECOND));
        trace.take(2 * SECOND, dropped(port, 1, 2 * SECOND));
    }
    let text = trace.text();
    assert_eq!(series(&text), few, "{text}");
    assert_eq!(value(&text, "kvmtrace_dropped_packets_total", &[]), 2_000);
}

#[test]
fn series_are_bounded_and_the_rest_is_one() {
    let mut series: BTreeMap<[String; 1], u64> = BTreeMap::new();
    for number in 0..SERIES + 5 {
        *bounded(&mut series, [number.to_string()]) += 1;
    }
    assert_eq!(series.len(), SERIES + 1);
    assert_eq!(series[&[OTHER.to_owned()]], 5);
}

#[test]
fn each_family_has_one_help_one_type_and_no_series_twice() {
    let mut trace = Trace::default();
    trace.take(SECOND, host());
    trace.take(2 * SECOND, passed(7, 10, SECOND));
    trace.take(2 * SECOND, dropped(7, 4, SECOND));
    let text = trace.text();
    let mut families = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut family = "";
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split(' ').next().unwrap();
            assert!(families.insert(family), "{family} twice");
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, family);
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(name.split('{').next().unwrap(), family, "{line}");
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(series.insert(name), "{name} twice");
        }
    }
}

//! The memory that docs/recording-format.md promises: alone in its process, for it measures the process.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on has failed; it tells what it measured"
)]

use kvmtrace::event::{Event, EventKind, HostState, Started, Timestamp};
use kvmtrace::record::{Destination, Options, Writer, judge, reader, recording};
use std::path::Path;

/// The most that this process has held since the last call, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// Records an event three times: what is held must not grow with their number.
fn record(path: &Path, kind: EventKind) {
    let event = Event { time: Timestamp(1_000), kind };
    let mut writer = Writer::create(&Destination::new(path, true), Options::default()).unwrap();
    for _ in 0..3 {
        writer.write(&event).unwrap();
        writer.flush().unwrap();
    }
    writer.finish().unwrap();
}

#[test]
fn the_largest_events_take_no_more_memory_than_is_promised() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hostile");
    let names = Started {
        version: String::new(),
        devices: vec!["a".to_owned(); 1_040_000],
        guests: Vec::new(),
        all: true,
        filter: String::new(),
    };
    let sysctls = (0..520_000).map(|number| (format!("{number:x}"), "1".to_owned())).collect();
    let host = HostState { sysctls, ..HostState::default() };
    for (name, kind) in [("names", EventKind::Started(names)), ("sysctls", EventKind::Host(Box::new(host)))] {
        record(&path, kind);
        let before = {
            peak();
            peak()
        };
        let mut recordings = recording::open(std::slice::from_ref(&path)).unwrap();
        let report = judge(&mut recordings[0], true).unwrap();
        drop(report);
        assert!(!recordings[0].damage().any(), "{name}: {:?}", recordings[0].complaint());
        let taken = peak().saturating_sub(before);
        println!("{name}: {} MB", taken >> 20);
        assert!(taken > 20 << 20, "{name}: {taken} bytes: nothing was read");
        assert!(taken < reader::MEMORY, "{name}: {taken} bytes");
    }
}

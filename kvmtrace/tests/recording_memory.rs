//! The memory that docs/recording-format.md promises. Each test measures its process, and cargo-nextest gives each one of
//! its own.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that can't go on has failed; it tells what it measured"
)]

use kvmtrace::event::{Event, EventKind, HostState, Started, Timestamp};
use kvmtrace::record::{fuzz, judge, reader, recording};
use kvmtrace::selection::Selection;
use std::path::Path;

/// The most that this process has held since the last call, in bytes.
fn peak() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    peak.trim().trim_end_matches(" kB").parse::<usize>().unwrap() << 10
}

/// An event three times, as no kvmtrace writes it: what is held must not grow with their number.
fn record(path: &Path, kind: EventKind) {
    let event = Event { time: Timestamp(1_000), kind };
    std::fs::write(path, fuzz::unbounded_file(&event, 3).unwrap()).unwrap();
}

/// Reads a file of such events; tells what that took, in bytes.
fn taken(kind: EventKind) -> usize {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("hostile");
    record(&path, kind);
    let before = {
        peak();
        peak()
    };
    let mut recordings = recording::open(std::slice::from_ref(&path)).unwrap();
    // Without a host there is nothing to judge; it is read to its end all the same.
    drop(judge(&mut recordings[0], &mut Selection::default(), true));
    // It has no end, and nothing else is wrong with it.
    let damage = recordings[0].damage();
    assert_eq!((damage.stretches, damage.unknown_events), (0, 0), "{:?}", recordings[0].complaint());
    let taken = peak().saturating_sub(before);
    println!("{} MB", taken >> 20);
    assert!(taken > 20 << 20, "{taken} bytes: nothing was read");
    taken
}

#[test]
fn the_longest_list_takes_no_more_memory_than_is_promised() {
    let started = Started {
        version: String::new(),
        devices: vec!["a".to_owned(); 1_040_000],
        guests: Vec::new(),
        all: true,
        filter: String::new(),
        followed: false,
    };
    assert!(taken(EventKind::Started(started)) < reader::MEMORY);
}

#[test]
fn the_largest_host_takes_no_more_memory_than_is_promised() {
    let sysctls = (0..520_000).map(|number| (format!("{number:x}"), "1".to_owned())).collect();
    let host = HostState { sysctls, ..HostState::default() };
    assert!(taken(EventKind::Host(std::sync::Arc::new(host))) < reader::MEMORY);
}

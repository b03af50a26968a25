//! Writer and reader together, and readers of what no writer wrote.

use super::format::{BlockHeader, EVENTS, LARGEST_BLOCK, prelude};
use super::samples::trace;
use super::schema::SCHEMA;
use super::*;
use crate::diagnose::report::{Cause, Verdict};
use crate::event::{Event, EventKind, MacAddress, Timestamp};
use crate::selection::Selection;
use proptest::prelude::*;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

mod hostile;

/// A stream whose bytes can be looked at afterwards, with room for so many.
#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn options(rotation: Option<Rotation>) -> Options {
    let command = vec!["kvmtrace".to_owned(), "record".to_owned()];
    Options { header: Header { command, clock_offset_ns: 7, ..Header::default() }, rotation }
}

fn record(events: &[Event]) -> Vec<u8> {
    let shared = Shared::default();
    let mut writer = Writer::stream(Box::new(shared.clone()), options(None)).unwrap();
    for event in events {
        writer.write(event).unwrap();
    }
    writer.finish().unwrap();
    std::mem::take(&mut *shared.0.lock().unwrap())
}

fn read(bytes: &[u8]) -> Result<(Vec<Event>, Damage), ReadError> {
    let mut reader = Reader::new(bytes, "test")?;
    let mut events = Vec::new();
    while let Some(event) = reader.next_event()? {
        events.push(event);
    }
    Ok((events, reader.damage()))
}

/// A directory of our own that goes with the value.
struct Directory(PathBuf);

impl Directory {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("kvmtrace-record-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

#[test]
fn what_is_recorded_is_what_is_read() {
    let bytes = record(&trace());
    let mut reader = Reader::new(bytes.as_slice(), "test").unwrap();
    let header = reader.header().unwrap().clone();
    assert_eq!((header.format, header.host.as_str(), header.clock_offset_ns), (1, "kvm7", 7));
    assert_eq!(header.guests[0].devices, ["vnet0"]);
    assert_eq!(header.degraded[0].what, "icmp errors");
    let mut events = Vec::new();
    while let Some(event) = reader.next_event().unwrap() {
        events.push(event);
    }
    assert_eq!(events, trace());
    assert_eq!(reader.damage(), Damage::default());
    let trailer = reader.trailer().unwrap();
    assert_eq!(trailer.events, trace().len() as u64);
    assert_eq!(trailer.symbols, ["br_dev_queue_push_xmit"]);
}

#[test]
fn events_wait_no_longer_than_a_second_of_their_own_time() {
    let shared = Shared::default();
    let mut writer = Writer::stream(Box::new(shared.clone()), options(None)).unwrap();
    let event = |second: u64| Event { time: Timestamp(second * 1_000_000_000), kind: EventKind::Ended };
    let saved = || read(&shared.0.lock().unwrap()).map_or(0, |(events, _)| events.len());
    writer.write(&event(100)).unwrap();
    assert_eq!(saved(), 0);
    writer.write(&event(101)).unwrap();
    assert_eq!(saved(), 1);
    writer.flush().unwrap();
    assert_eq!(saved(), 2);
}

#[test]
fn a_recording_cut_anywhere_gives_the_events_of_its_whole_blocks() {
    let bytes = record(&trace());
    let whole = trace();
    let mut counts = Vec::new();
    for cut in format::PRELUDE..bytes.len() {
        let (events, damage) = read(&bytes[..cut]).unwrap();
        assert_eq!(events, whole[..events.len()], "cut at {cut}");
        assert!(damage.unfinished, "cut at {cut}");
        counts.push(events.len());
    }
    assert!(counts.is_sorted());
    assert!(counts.iter().any(|count| (1..whole.len()).contains(count)), "several blocks");
    assert_eq!(counts.last(), Some(&whole.len()));
    for cut in 0..format::PRELUDE {
        assert!(matches!(read(&bytes[..cut]), Err(ReadError::Empty { .. } | ReadError::Cut { .. })), "cut at {cut}");
    }
}

/// Where each block begins and ends.
fn blocks(bytes: &[u8]) -> Vec<(usize, usize)> {
    let mut blocks = Vec::new();
    let mut at = format::PRELUDE;
    while at < bytes.len() {
        let header = BlockHeader::parse(bytes[at..at + format::BLOCK_HEADER].try_into().unwrap()).unwrap();
        let end = at + format::BLOCK_HEADER + header.stored as usize;
        blocks.push((at, end));
        at = end;
    }
    blocks
}

#[test]
fn a_corrupt_block_loses_itself_only() {
    let bytes = record(&trace());
    let blocks = blocks(&bytes);
    assert!(blocks.len() >= 4, "header, several of events, trailer: {blocks:?}");
    for (number, (start, end)) in blocks.iter().enumerate() {
        let others: usize = {
            let mut without = bytes[..*start].to_vec();
            without.extend(&bytes[*end..]);
            read(&without).unwrap().0.len()
        };
        for at in *start..*end {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 0x10;
            let (events, damage) = read(&spoilt).unwrap();
            assert_eq!(events.len(), others, "block {number}, byte {at}");
            assert!(damage.any() && damage.bytes as usize >= end - start, "block {number}, byte {at}: {damage:?}");
        }
        // Torn: some of its bytes are missing.
        let mut torn = bytes[..start + (end - start) / 2].to_vec();
        torn.extend(&bytes[*end..]);
        assert_eq!(read(&torn).unwrap().0.len(), others, "block {number} torn");
    }
}

#[test]
fn the_types_are_described_again_and_again() {
    let mut events = trace();
    let mut state = 1_u64;
    while events.len() < 60_000 {
        let header = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let EventKind::Packet(mut packet) = events[3].kind.clone() else { unreachable!() };
        packet.header = header.take(160).collect();
        events.push(Event { time: events[3].time, kind: EventKind::Packet(packet) });
    }
    let bytes = record(&events);
    let mut described: Vec<_> =
        blocks(&bytes).into_iter().filter(|(at, _)| bytes[at + 4..at + 8] == format::TYPES).map(|(at, _)| at).collect();
    described.push(bytes.len());
    assert!(described.len() > 3, "{described:?}");
    assert!(described.windows(2).all(|pair| pair[1] - pair[0] < 5 << 20), "{described:?}");
}

#[test]
fn unknown_blocks_are_passed_over() {
    let events = trace();
    let mut bytes = record(&events);
    for (tag, flags) in [(*b"NEWS", 0), (EVENTS, 0x100)] {
        bytes.extend(BlockHeader::new(tag, flags, b"payload", 7).bytes());
        bytes.extend(b"payload");
    }
    let (read, damage) = read(&bytes).unwrap();
    assert_eq!(read, events);
    assert_eq!((damage.unknown, damage.any()), (2, false));
}

#[test]
fn what_is_no_recording_is_told_in_one_line() {
    let directory = Directory::new("bad");
    let file = |name: &str, bytes: &[u8]| {
        let path = directory.0.join(name);
        std::fs::write(&path, bytes).unwrap();
        path
    };
    let mut newer = prelude();
    newer[12] = 9;
    let mut swapped = prelude();
    swapped[8..12].reverse();
    let mut events = Vec::new();
    schema::begin(&mut events);
    events[0] = 77;
    let mut newer_events = prelude().to_vec();
    newer_events.extend(BlockHeader::new(EVENTS, 0, &events, events.len()).bytes());
    newer_events.extend(events);
    let fifo = directory.0.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let cases = [
        (file("empty", b""), "is empty: nothing was recorded"),
        (file("cut", b"KVMTRACE\x0d"), "ends after 9 bytes: there is no event in it"),
        (file("text", b"hello, this is some text"), "is not a recording of kvmtrace"),
        (file("short", b"hi"), "is not a recording of kvmtrace"),
        (file("newer", &newer), "was written by a newer kvmtrace (format 9, this one reads up to 1): use that version"),
        (file("newer-events", &newer_events), "was written by a newer kvmtrace (events 77"),
        (file("swapped", &swapped), "has big-endian numbers"),
        (directory.0.clone(), "is a directory, not a recording"),
        (fifo, "is a pipe or device, not a recording"),
        (directory.0.join("absent"), "cannot open"),
    ];
    for (path, expected) in cases {
        let error = Reader::open(&path).and_then(|mut reader| reader.next_event()).expect_err(expected).to_string();
        assert!(error.contains(expected) && !error.contains('\n'), "{error}");
        assert!(error.contains(path.to_str().unwrap()), "{error}");
    }
}

#[test]
fn an_existing_file_is_not_written_over_without_force() {
    let directory = Directory::new("force");
    let path = directory.0.join("trace");
    std::fs::write(&path, "precious").unwrap();
    let create = |force| Writer::create(&Destination::new(&path, force), options(None));
    let error = create(false).unwrap_err().to_string();
    assert!(error.ends_with("trace exists; --force writes over it"), "{error}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    create(true).unwrap().finish().unwrap();
    assert_eq!(Reader::open(&path).unwrap().next_event().unwrap(), None);
}

#[test]
fn a_full_disk_is_told_with_what_was_saved() {
    let full = Destination::new(std::path::Path::new("/dev/full"), true);
    let error = Writer::create(&full, options(None)).unwrap_err().to_string();
    assert_eq!(error, "cannot write /dev/full", "a device keeps nothing that could be read");
}

#[test]
fn rotation_keeps_the_newest_files_and_each_stands_alone() {
    let directory = Directory::new("rotate");
    let path = directory.0.join("trace");
    let rotation = Rotation { size: 1, count: Some(2) };
    let mut writer = Writer::create(&Destination::new(&path, false), options(Some(rotation))).unwrap();
    for event in trace() {
        writer.write(&event).unwrap();
    }
    let written = writer.finish().unwrap();
    assert_eq!(written.events, trace().len() as u64);
    assert!(written.files > 2, "{written:?}");
    let mut names: Vec<_> = std::fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["trace".to_owned(), format!("trace.{}", written.files - 2)].map(std::ffi::OsString::from));

    let mut alone = Reader::open(&path).unwrap();
    assert_eq!(alone.header().unwrap().sequence, written.files - 1);
    assert!(matches!(alone.next_event().unwrap().unwrap().kind, EventKind::Started(_)));
    let mut after = Reader::open(&path).unwrap();
    after.skip_snapshot();
    assert_eq!(after.next_event().unwrap(), None, "all but the snapshot went into the files before");

    let again = |force| Writer::create(&Destination::new(&directory.0.join("trace"), force), options(Some(rotation)));
    assert!(again(false).unwrap_err().to_string().contains("exists; --force"));
    again(true).unwrap().finish().unwrap();
    assert_eq!(std::fs::read_dir(&directory.0).unwrap().count(), 1, "the older recording's files are gone");
}

#[test]
fn the_files_of_a_rotation_are_together_what_one_file_is() {
    let directory = Directory::new("together");
    let path = directory.0.join("trace");
    let rotation = Rotation { size: 1, count: None };
    let mut writer = Writer::create(&Destination::new(&path, false), options(Some(rotation))).unwrap();
    for event in trace() {
        writer.write(&event).unwrap();
    }
    let files = writer.finish().unwrap().files;
    assert!(files > 2);
    // In whatever order a shell names them, and one of them twice.
    let mut paths: Vec<_> = std::fs::read_dir(&directory.0).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths.push(paths[0].clone());
    let recordings = recording::open(&paths).unwrap();
    let [mut together] = <[Recording; 1]>::try_from(recordings).unwrap();
    let mut events = Vec::new();
    while let Some(event) = together.next_event().unwrap() {
        events.push(event);
    }
    assert!(events == trace(), "{} events of {}", events.len(), trace().len());
    assert_eq!(paths.len() as u64, files + 1);
}

#[test]
fn two_hosts_recordings_of_a_conversation_become_one_path() {
    let directory = Directory::new("join");
    let write = |name: &str, events: Vec<Event>| {
        let path = directory.0.join(name);
        let mut writer = Writer::create(&Destination::new(&path, false), options(None)).unwrap();
        for event in events {
            writer.write(&event).unwrap();
        }
        writer.finish().unwrap();
        path
    };
    // The second host's clock is a second ahead; the wire takes 20 µs, each way.
    let mine = samples::conversation("kvm1", true, 0, [0, 10_000, 70_000, 80_000]);
    let theirs = |name, clock| samples::conversation(name, false, clock, [30_000, 35_000, 45_000, 50_000]);
    let here = write("here", mine);
    let there = write("there", theirs("kvm2", 1_000_000_000));
    // Two machines that nobody has named, and two traces of one.
    let namesake = |mac: u8, clock| {
        let mut events = theirs("kvm1", clock);
        for event in &mut events {
            if let EventKind::Host(host) = &mut event.kind {
                let host = std::sync::Arc::make_mut(host);
                host.links.values_mut().for_each(|link| link.mac = Some(MacAddress([2, 0, 0, 0, 1, mac])));
            }
        }
        events
    };
    let joined = |paths: &[PathBuf]| {
        let hosts = recording::open(paths)
            .unwrap()
            .iter_mut()
            .map(|it| judge_for_joining(it, &mut Selection::default(), true).unwrap())
            .collect();
        join(hosts).unwrap().report
    };
    let others = [("second", 1, 1_000), ("again", 1, 2_000), ("third", 2, 3_000)]
        .map(|(name, mac, clock)| write(name, namesake(mac, clock)));
    let hosts = joined(&[&[here.clone()][..], &others[..]].concat()).host.name;
    assert_eq!(hosts, "kvm1+kvm1#2+kvm1#3");
    let both = joined(&[here.clone(), others[0].clone()]);
    let flow = both.flows.iter().find(|flow| flow.destination_port == Some(9000)).unwrap();
    let path: Vec<_> = flow.path.iter().map(|hop| hop.device.as_str()).collect();
    assert_eq!(path, ["kvm1/vnet0", "kvm1/eth0", "kvm1#2/eth0", "kvm1#2/vnet0"]);
    for paths in [[here.clone(), there.clone()], [there, here]] {
        let report = joined(&paths);
        let flow = report.flows.iter().find(|flow| flow.destination_port == Some(9000)).unwrap();
        let path: Vec<_> =
            flow.path.iter().map(|hop| (hop.device.as_str(), hop.latency_ns.map(|latency| latency.p50))).collect();
        let expected = [
            ("kvm1/vnet0", None),
            ("kvm1/eth0", Some(10_000)),
            ("kvm2/eth0", Some(20_000)),
            ("kvm2/vnet0", Some(5_000)),
        ];
        assert_eq!(path, expected);
        assert_eq!(report.flows.iter().filter(|flow| flow.destination_port == Some(9000)).count(), 1);
        assert_eq!((flow.packets, flow.device.as_deref()), (1, Some("kvm1/vnet0")));
    }
}

/// The golden recording of each schema, kept for ever and never written again: what was recorded can be read, by every
/// later version. A field that is new has no value there, so samples that fill it in differ from these events; kinds of
/// events that came later are not in them.
#[test]
fn the_golden_recordings_of_every_schema_are_read_and_judged() {
    for schema in 1..=SCHEMA {
        let path =
            PathBuf::from(format!("{}/../tests/recordings/schema-{schema}.kvmtrace", env!("CARGO_MANIFEST_DIR")));
        if schema == SCHEMA && !path.exists() && std::env::var_os("KVMTRACE_BLESS").is_some() {
            std::fs::write(&path, record(&trace())).unwrap();
        }
        let mut recording = Recording::open(&path).unwrap();
        let mut events = Vec::new();
        while let Some(event) = recording.next_event().unwrap() {
            events.push(event);
        }
        assert_eq!(recording.header().unwrap().schema, schema);
        let kinds = |events: &[Event]| {
            let old =
                events.iter().filter(|event| !matches!(event.kind, EventKind::RuleDrop(_) | EventKind::Command(_)));
            old.map(|event| (event.time, std::mem::discriminant(&event.kind))).collect::<Vec<_>>()
        };
        assert!(
            kinds(&events) == kinds(&trace()) && recording.complaint().is_none(),
            "a type within Event has changed so that schema {schema} can't be read: a new field needs #[serde(default)], \
             a new name #[serde(alias)] (record/schema/mod.rs). {:?}",
            recording.complaint()
        );
        let report = judge(&mut recording.again().unwrap(), &mut Selection::default(), true).unwrap();
        let dropped: Vec<_> = report.flows.iter().filter(|flow| flow.dropped > 0).collect();
        assert_eq!(dropped.len(), 40, "schema {schema}");
        for flow in dropped {
            assert_eq!((flow.verdict, flow.dropped), (Verdict::Dropped, 6), "schema {schema}");
            assert_eq!(flow.cause.map(Cause::id), Some("bridge-mtu-exceeded"), "schema {schema}");
        }
        assert_eq!(report.lost.ring_events, 3, "schema {schema}");
    }
}

/// The fuzzer begins with these: all kinds of events with and without a description, not packed, so that a changed byte is
/// a change of what is told.
#[test]
fn the_fuzzers_seeds_are_recordings() {
    let directory = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/recording"));
    let seed = |name: &str, make: &dyn Fn() -> Vec<u8>| {
        let path = directory.join(name);
        if std::env::var_os("KVMTRACE_BLESS").is_some() {
            std::fs::create_dir_all(&directory).unwrap();
            std::fs::write(&path, fuzz::unpacked(&make())).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert!(fuzz::repaired(&bytes) == bytes, "{name}: its checksums are right");
        let (events, damage) = read(&bytes).unwrap();
        assert!(events.len() > 10 && damage == Damage::default(), "{name}: {damage:?}");
        fuzz::run(&bytes);
    };
    let golden = |schema: u32| format!("{}/../tests/recordings/schema-{schema}.kvmtrace", env!("CARGO_MANIFEST_DIR"));
    seed("schema-1", &|| std::fs::read(golden(1)).unwrap());
    seed("schema-2", &|| std::fs::read(golden(2)).unwrap());
    // The beginning and the end of the trace.
    seed("short", &|| {
        let events = trace();
        record(&[&events[..8], &events[events.len() - 14..]].concat())
    });
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        read(&bytes).ok();
        let mut recording = prelude().to_vec();
        recording.extend(&bytes);
        prop_assert!(read(&recording).is_ok());
    }

    #[test]
    fn no_events_block_breaks_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let mut payload = Vec::new();
        schema::begin(&mut payload);
        payload.extend(bytes);
        prop_assert!(read(&fuzz::events_file(&payload)).is_ok());
    }

    #[test]
    fn no_change_to_a_recording_breaks_the_reader(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..20),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = record(&trace());
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(cut.index(bytes.len()));
        read(&bytes).ok();
    }
}

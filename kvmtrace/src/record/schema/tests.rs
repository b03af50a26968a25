//! Events of other versions, by their descriptions.

use super::*;
use crate::event::bond::BondMode;
use crate::event::configuration::ConfigurationSystem;
use crate::event::host::{Backend, LinkKind, PortState};
use crate::event::overlay::IpsecDirection;
use crate::event::switch::{SwitchKind, SwitchVlans};
use crate::event::{
    Address, Direction, EventKind, Loss, PacketCause, PacketRecord, Place, Protocol, Started, Timestamp, UnlistedPlace,
};
use crate::record::samples::trace;
use proptest::prelude::*;
use serde::{Deserialize, Serialize};
use serde_reflection::{Samples, Tracer, TracerConfig};
use std::net::IpAddr;

fn tracer() -> Tracer {
    Tracer::new(TracerConfig::default().is_human_readable(false))
}

fn json(tracer: Tracer) -> String {
    serde_json::to_string_pretty(&tracer.registry().unwrap()).unwrap() + "\n"
}

#[test]
fn the_description_is_of_our_types() {
    let mut tracer = tracer();
    let samples = Samples::new();
    tracer.trace_type::<Event>(&samples).unwrap();
    tracer.trace_type::<EventKind>(&samples).unwrap();
    tracer.trace_type::<PacketCause>(&samples).unwrap();
    tracer.trace_type::<Protocol>(&samples).unwrap();
    tracer.trace_type::<Address>(&samples).unwrap();
    tracer.trace_type::<IpAddr>(&samples).unwrap();
    tracer.trace_type::<Direction>(&samples).unwrap();
    tracer.trace_type::<UnlistedPlace>(&samples).unwrap();
    tracer.trace_type::<LinkKind>(&samples).unwrap();
    tracer.trace_type::<PortState>(&samples).unwrap();
    tracer.trace_type::<Backend>(&samples).unwrap();
    tracer.trace_type::<ConfigurationSystem>(&samples).unwrap();
    tracer.trace_type::<IpsecDirection>(&samples).unwrap();
    tracer.trace_type::<SwitchKind>(&samples).unwrap();
    tracer.trace_type::<SwitchVlans>(&samples).unwrap();
    tracer.trace_type::<BondMode>(&samples).unwrap();
    let derived = json(tracer);
    if std::env::var_os("KVMTRACE_BLESS").is_some() {
        std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/src/record/schema/events.json"), &derived).unwrap();
    }
    assert!(
        derived
            == std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/src/record/schema/events.json")).unwrap(),
        "a type within Event has changed: KVMTRACE_BLESS=1 cargo test -p kvmtrace --lib description writes the new description"
    );
    assert!(Types::parse(DESCRIPTION.as_bytes()).is_some());
}

/// The events of a batch, and how many were strange.
fn read(batch: Vec<u8>, description: &str) -> (Vec<Event>, usize) {
    let mut described = Some(Description::parse(description.as_bytes()).unwrap());
    let (events, strange): (Vec<_>, Vec<_>) = Events::open(batch, &mut described).unwrap().partition(Result::is_ok);
    assert!(strange.iter().all(|error| *error == Err(BatchError::Unknown)), "{strange:?}");
    (events.into_iter().map(Result::unwrap).collect(), strange.len())
}

/// A batch that follows another description.
fn batch(description: &str) -> Vec<u8> {
    let mut batch = SCHEMA.to_le_bytes().to_vec();
    batch.extend(checksum(description.as_bytes()).to_le_bytes());
    batch
}

#[test]
fn by_their_description_events_are_what_they_are_straight() {
    // Another text of the same description, so that it is used.
    let description = DESCRIPTION.replace('\n', "");
    let mut batch = batch(&description);
    for event in trace() {
        append(&mut batch, &event).unwrap();
    }
    assert_eq!(read(batch, &description), (trace(), 0));
}

/// What an `Event` might have been: variants in another order and of other kinds, fields too many and too few.
mod other {
    use super::*;

    #[derive(Serialize, Deserialize)]
    pub(super) struct Event {
        pub(super) weather: (String, f64, Option<char>),
        pub(super) kind: EventKind,
        pub(super) time: Timestamp,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) enum EventKind {
        Flood { rooms: Vec<Room>, height: i64 },
        Ended,
        Loss(Loss),
        Packet(PacketRecord),
        Started(Started),
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct Room(pub(super) u16, pub(super) bool);

    #[derive(Serialize, Deserialize)]
    pub(super) struct Loss {
        pub(super) map_full: u8,
        pub(super) hope: (),
        pub(super) flows_evicted: u64,
        pub(super) ring_events: u64,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) struct PacketRecord {
        pub(super) cause: PacketCause,
        pub(super) flow: crate::event::FlowKey,
        pub(super) place: Place,
        pub(super) count: u16,
        pub(super) length: u32,
        pub(super) gso_size: u16,
        pub(super) segments: u16,
        pub(super) ether_type: u16,
        pub(super) ethernet: bool,
        pub(super) header: Vec<u8>,
    }

    #[derive(Serialize, Deserialize)]
    pub(super) enum PacketCause {
        Wanted,
    }
}

#[test]
fn fields_and_variants_of_another_version_are_found_by_name() {
    let mut tracer = tracer();
    let samples = Samples::new();
    tracer.trace_type::<other::Event>(&samples).unwrap();
    tracer.trace_type::<other::EventKind>(&samples).unwrap();
    tracer.trace_type::<other::PacketCause>(&samples).unwrap();
    tracer.trace_type::<Protocol>(&samples).unwrap();
    tracer.trace_type::<Address>(&samples).unwrap();
    tracer.trace_type::<IpAddr>(&samples).unwrap();
    tracer.trace_type::<Direction>(&samples).unwrap();
    let description = json(tracer);
    let packet = trace().into_iter().find_map(|event| {
        let EventKind::Packet(packet) = event.kind else { return None };
        (packet.cause == PacketCause::First).then_some(packet)
    });
    let expected = PacketRecord { cause: PacketCause::Wanted, input_device: None, ..*packet.unwrap() };
    let PacketRecord { flow, place, count, length, gso_size, segments, ether_type, ethernet, header, .. } =
        expected.clone();
    let packet = other::PacketRecord {
        cause: other::PacketCause::Wanted,
        flow,
        place: place.unwrap(),
        count: count as u16,
        length,
        gso_size,
        segments,
        ether_type,
        ethernet,
        header,
    };
    let started = Started {
        version: "9".to_owned(),
        devices: vec!["x".to_owned()],
        guests: Vec::new(),
        all: true,
        filter: String::new(),
        followed: false,
    };
    let kinds = [
        other::EventKind::Started(started.clone()),
        other::EventKind::Flood { rooms: vec![other::Room(700, true), other::Room(3, false)], height: -4 },
        other::EventKind::Loss(other::Loss { map_full: 200, hope: (), flows_evicted: 2, ring_events: 1 << 40 }),
        other::EventKind::Packet(packet),
        other::EventKind::Flood { rooms: Vec::new(), height: i64::MIN },
        other::EventKind::Ended,
    ];
    let mut batch = batch(&description);
    for (time, kind) in (1..).zip(kinds) {
        let event = other::Event { weather: ("wet".to_owned(), 3.5, Some('☂')), kind, time: Timestamp(time) };
        postcard::to_io(&event, &mut batch).unwrap();
    }
    let (events, strange) = read(batch, &description);
    let expected = [
        (1, EventKind::Started(started)),
        (3, EventKind::Loss(Loss { ring_events: 1 << 40, flows_evicted: 2, map_full: 200, rule_messages: 0 })),
        (4, EventKind::Packet(Box::new(expected))),
        (6, EventKind::Ended),
    ];
    assert_eq!(events, expected.map(|(time, kind)| Event { time: Timestamp(time), kind }));
    assert_eq!(strange, 2);
}

#[test]
fn what_a_tuple_has_more_is_passed_over() {
    #[derive(Serialize)]
    struct Missing(String, String, u32);
    #[derive(Debug, PartialEq, Deserialize)]
    struct Ours {
        missing: Vec<(String, String)>,
        after: u8,
        #[serde(default)]
        new: u8,
    }
    let described =
        r#"{"Event": {"STRUCT": [{"missing": {"SEQ": {"TUPLE": ["STR", "STR", "U32"]}}}, {"after": "U8"}]}}"#;
    let types = Types::parse(described.as_bytes()).unwrap();
    let more = |n: u32| Missing(n.to_string(), "why".to_owned(), n);
    let bytes = postcard::to_allocvec(&(vec![more(1), more(700)], 9_u8)).unwrap();
    let (ours, left) = decode::take::<Ours>(&types, &bytes).unwrap();
    let expected = ["1", "700"].map(|n| (n.to_owned(), "why".to_owned())).to_vec();
    assert_eq!((ours, left), (Ours { missing: expected, after: 9, new: 0 }, 0));
}

#[test]
fn a_description_of_much_from_nothing_is_refused() {
    let cases = [
        // A list of lists of things that take no bytes.
        r#"{"Event": {"STRUCT": [{"time": {"SEQ": {"SEQ": "UNIT"}}}]}}"#.to_owned(),
        r#"{"Event": {"TUPLESTRUCT": [{"TYPENAME": "Event"}, {"TYPENAME": "Event"}]}}"#.to_owned(),
        r#"{"Event": {"NEWTYPESTRUCT": {"TUPLEARRAY": {"CONTENT": {"TUPLEARRAY": {"CONTENT": "UNIT", "SIZE": 4000000}}, "SIZE": 4000000}}}}"#.to_owned(),
        format!(
            r#"{{"Event": {{"NEWTYPESTRUCT": {{"TYPENAME": "T0"}}}}, {}, "T40": "UNITSTRUCT"}}"#,
            (0..40).map(|n| format!(r#""T{n}": {{"TUPLESTRUCT": [{{"TYPENAME": "T{0}"}}, {{"TYPENAME": "T{0}"}}]}}"#, n + 1)).collect::<Vec<_>>().join(", ")
        ),
        r#"{"Event": {"NEWTYPESTRUCT": {"TYPENAME": "Nowhere"}}}"#.to_owned(),
    ];
    for description in cases {
        let Some(known) = Description::parse(description.as_bytes()) else { panic!("{description}") };
        let mut batch = batch(&description);
        batch.extend([0xff, 0xff, 0xff, 0x01]);
        batch.resize(8 << 20, 0xff);
        let mut events = Events::open(batch, &mut Some(known)).unwrap();
        assert_eq!(events.next(), Some(Err(BatchError::Malformed)), "{description}");
        assert_eq!((events.next(), events.left()), (None, 0));
    }
    for nonsense in
        ["", "{}", "[]", r#"{"Event": {"STRUCT": [{}]}}"#, r#"{"Event": {"STRUCT": [{"a": "U8", "b": "U8"}]}}"#]
    {
        assert!(Description::parse(nonsense.as_bytes()).is_none(), "{nonsense}");
    }
    // Types may name each other, and be as deep as the bytes allow: not so deep that the stack ends.
    let deep = format!(
        r#"{{"Event": {{"NEWTYPESTRUCT": {}{{"TYPENAME": "Event"}}{}}}}}"#,
        r#"{"OPTION": "#.repeat(90),
        "}".repeat(90)
    );
    let mut endless = batch(&deep);
    endless.resize(1 << 20, 1);
    let mut events = Events::open(endless, &mut Some(Description::parse(deep.as_bytes()).unwrap())).unwrap();
    assert_eq!(events.next(), Some(Err(BatchError::Malformed)));
    let deep = format!(r#"{{"Event": {{"NEWTYPESTRUCT": {}"U8"{}}}}}"#, r#"{"SEQ": "#.repeat(5000), "}".repeat(5000));
    assert!(Description::parse(deep.as_bytes()).is_none());
}

proptest! {
    #[test]
    fn no_description_and_no_bytes_break_the_decoder(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..8),
        noise in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
    ) {
        // Words of the description change places.
        let mut words: Vec<&str> = DESCRIPTION.split_inclusive(|c: char| !c.is_alphanumeric()).collect();
        for (to, from) in changes {
            let (to, from) = (to.index(words.len()), from.index(words.len()));
            if words[to].len() > 1 && words[from].len() > 1 && words[to].ends_with(&words[from][words[from].len() - 1..]) {
                words[to] = words[from];
            }
        }
        let description = words.concat();
        if let Some(known) = Description::parse(description.as_bytes()) {
            let mut batch = batch(&description);
            for event in trace().iter().take(12) {
                append(&mut batch, event).unwrap();
            }
            for (at, byte) in noise {
                let at = 8 + at.index(batch.len() - 8);
                batch[at] = byte;
            }
            Events::open(batch, &mut Some(known)).unwrap().for_each(drop);
        }
    }
}

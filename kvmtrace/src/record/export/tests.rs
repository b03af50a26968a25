//! Exports, read back by the programs that they are for.

use super::*;
use crate::event::{Direction, EventKind, IfIndex, PacketCause, PacketRecord, Place};
use crate::record::samples::trace;
use crate::record::{Destination, Options, Writer};
use crate::selection::Selection;
use serde_json::Value;
use std::process::Command;

#[path = "tests/flows.rs"]
mod flows;
#[path = "tests/partition.rs"]
mod partition;

/// A directory with a recording of the sample trace; it goes with the value.
struct Sample(PathBuf);

impl Sample {
    fn new(name: &str) -> Self {
        Self::of(name, &trace())
    }

    fn of(name: &str, events: &[Event]) -> Self {
        let path = std::env::temp_dir().join(format!("kvmtrace-export-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        let sample = Self(path);
        let mut writer = Writer::create(&Destination::new(&sample.recording(), false), Options::default()).unwrap();
        for event in events {
            writer.write(event).unwrap();
        }
        writer.finish().unwrap();
        sample
    }

    fn recording(&self) -> PathBuf {
        self.0.join("trace.kvmtrace")
    }

    fn export(&self, form: Form, name: &str) -> PathBuf {
        let output = self.0.join(name);
        export(&[self.recording()], Selection::default(), &target(form, &output), true).unwrap();
        output
    }
}

fn target(form: Form, output: &Path) -> Target {
    Target { form, output: output.to_owned(), force: false, partition: None }
}

impl Drop for Sample {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

/// What a program prints; `None`, told, where it is not installed.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        println!("SKIP: {program} is not installed");
        return None;
    };
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8(output.stdout).unwrap())
}

#[test]
fn tshark_reads_the_packets_the_points_and_the_comments() {
    let sample = Sample::new("pcapng");
    let path = sample.export(Form::Pcapng, "trace.pcapng");
    let fields = ["frame.interface_name", "frame.len", "udp.dstport", "frame.comment", "frame.time_epoch", "ip.src"];
    let mut arguments = vec!["-r", path.to_str().unwrap(), "-T", "fields"];
    arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
    let Some(text) = output("tshark", &arguments) else { return };
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    let packets = trace().iter().filter(|event| matches!(event.kind, EventKind::Packet(_))).count();
    assert_eq!(rows.len(), packets);
    assert_eq!(rows[0][..3], ["vnet0 ingress", "4014", "9000"]);
    assert_eq!(rows[1][..3], ["eth0 drop", "4014", "9000"]);
    assert!(rows[1][3].contains("reason NOT_SPECIFIED in br_dev_queue_push_xmit"), "{}", rows[1][3]);
    assert_eq!(rows[1][4..], ["1795000000.000000010", "10.0.0.1"]);
    let names =
        output("tshark", &["-r", path.to_str().unwrap(), "-N", "n", "-T", "fields", "-e", "ip.src_host"]).unwrap();
    assert_eq!(names.lines().next(), Some("web1"));
    let section = output("capinfos", &[path.to_str().unwrap()]).unwrap_or_default();
    assert!(section.is_empty() || section.contains("Linux 6.18.44"), "{section}");
}

/// The blocks of a capture: kind and body.
fn blocks(mut capture: &[u8]) -> Vec<(u32, &[u8])> {
    let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
    let mut blocks = Vec::new();
    while !capture.is_empty() {
        let length = word(capture, 4) as usize;
        blocks.push((word(capture, 0), &capture[8..length - 4]));
        capture = &capture[length..];
    }
    blocks
}

#[test]
fn a_device_without_ethernet_is_an_interface_of_raw_packets() {
    const TUNNEL: IfIndex = IfIndex(7);
    let mut events = trace();
    let dropped = events.iter().find_map(|event| {
        let EventKind::Packet(packet) = &event.kind else { return None };
        (!packet.ethernet).then(|| (event.time, (**packet).clone()))
    });
    let (time, packet) = dropped.unwrap();
    for event in &mut events {
        if let EventKind::Host(host) = &mut event.kind {
            std::sync::Arc::make_mut(host).links.get_mut(&TUNNEL).unwrap().ethernet = false;
        }
    }
    let sent = PacketRecord {
        cause: PacketCause::First,
        place: Some(Place { device: TUNNEL, direction: Direction::Egress }),
        ..packet.clone()
    };
    // No IP packet, so it can't be a raw one.
    let foreign = PacketRecord { header: vec![0xff; 40], ether_type: 0x8847, ..sent.clone() };
    for packet in [&sent, &foreign] {
        events.push(Event { time, kind: EventKind::Packet(Box::new(packet.clone())) });
    }
    let sample = Sample::of("pcapng-raw", &events);
    let capture = std::fs::read(sample.export(Form::Pcapng, "trace.pcapng")).unwrap();
    let blocks = blocks(&capture);
    let link_types: Vec<u16> =
        blocks.iter().filter(|(kind, _)| *kind == 1).map(|(_, body)| u16::from_le_bytes([body[0], body[1]])).collect();
    // LINKTYPE_ETHERNET and LINKTYPE_RAW: the tap's and the NIC's points, then both of the tunnel.
    assert_eq!(link_types.iter().filter(|number| **number == 101).count(), 1, "{link_types:?}");
    let packets: Vec<(u16, &[u8])> = blocks
        .iter()
        .filter(|(kind, _)| *kind == 6)
        .map(|(_, body)| {
            let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap()) as usize;
            (link_types[word(0)], &body[20..20 + word(12)])
        })
        .collect();
    let raw: Vec<_> = packets.iter().filter(|(link_type, _)| *link_type == 101).collect();
    assert_eq!(raw, [&(101, sent.header.as_slice())], "the packet as it is");
    assert!(packets.iter().any(|(link_type, bytes)| *link_type == 1 && bytes.ends_with(&foreign.header)));
    // The NIC has an Ethernet header: its dropped packet gets one.
    let made_up = [&[0; 12][..], &[8, 0], &packet.header].concat();
    assert!(packets.iter().any(|(link_type, bytes)| *link_type == 1 && *bytes == made_up));
}

#[test]
fn every_line_of_json_is_as_the_published_schema_says() {
    let sample = Sample::new("json");
    let text = std::fs::read_to_string(sample.export(Form::Json, "trace.json")).unwrap();
    let schema: serde_json::Value = serde_json::from_str(include_str!("../../../../docs/export.schema.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &lines {
        let errors: Vec<_> = validator.iter_errors(line).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{line}: {errors:?}");
    }
    let of = |kind: &str| lines.iter().filter(|line| line["event"] == kind).count();
    assert_eq!(of("recording"), 1);
    assert_eq!(of("drop"), 40);
    assert_eq!(lines.iter().filter(|line| line["time"].is_string()).count(), trace().len());
    assert!(!validator.is_valid(&serde_json::json!({"event": "drop", "time": "yesterday"})), "the schema is too lax");
}

#[cfg(feature = "parquet")]
#[test]
fn pyarrow_reads_the_tables() {
    let sample = Sample::new("parquet");
    let directory = sample.export(Form::Parquet, "tables");
    let script = r#"
import sys
try:
    import pyarrow.parquet as parquet
except ImportError:
    print("SKIP")
    sys.exit()
events = parquet.read_table(sys.argv[1] + "/events.parquet")
flows = parquet.read_table(sys.argv[1] + "/flows.parquet")
drops = [row for row in events.to_pylist() if row["event"] == "drop"]
print(events.num_rows, len(drops), drops[0]["source"], drops[0]["source_port"], drops[0]["reason"], drops[0]["device"], drops[0]["host"], drops[0]["guest"])
ids = {flow["id"]: flow["dropped"] for flow in flows.to_pylist()}
sums = {}
for row in events.to_pylist():
    if row["event"] == "drop":
        sums[row["flow_id"]] = sums.get(row["flow_id"], 0) + row["packets"]
print(sums == {id: dropped for id, dropped in ids.items() if dropped}, sum(sums.values()))
print(events.schema.field("time").type, events.schema.field("source").type, events.schema.field("packets").type)
print(flows.num_columns, flows.schema.field("complete").type)
"#;
    let python = std::env::var("KVMTRACE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let Some(text) = output(&python, &["-c", script, directory.to_str().unwrap()]) else { return };
    if text.trim() == "SKIP" {
        println!("SKIP: {python} has no pyarrow; pip install pyarrow");
        return;
    }
    let expected = [
        format!("{} 40 10.0.0.1 40000 NOT_SPECIFIED eth0 kvm7 web1", trace().len()),
        "True 240".to_owned(),
        "timestamp[us, tz=UTC] string int64".to_owned(),
        "32 bool".to_owned(),
    ];
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
}

/// What a reader that was written from docs/recording-format.md alone tells of the golden recordings is what the export
/// tells, flattened as it is.
#[test]
fn a_reader_written_from_the_document_reads_the_golden_recordings() {
    let recordings = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/recordings");
    let python = std::env::var("KVMTRACE_PYTHON").unwrap_or_else(|_| "python3".to_owned());
    let unpacks = "try:\n import zstandard\nexcept ImportError:\n try:\n  import pyarrow\n except ImportError:\n  \
                   import shutil\n  print(shutil.which('zstd') or 'SKIP')";
    let Some(able) = output(&python, &["-c", unpacks]) else { return };
    if able.trim() == "SKIP" {
        println!("SKIP: {python} has nothing that unpacks zstd; pip install zstandard");
        return;
    }
    for schema in 1..=crate::record::schema::SCHEMA {
        let golden = PathBuf::from(format!("{recordings}/schema-{schema}.kvmtrace"));
        let reader = format!("{recordings}/reader.py");
        let text = output(&python, &[&reader, golden.to_str().unwrap()]).unwrap();
        let mut read = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let sample = Sample::new(&format!("reader-{schema}"));
        let exported = sample.0.join("golden.json");
        export(&[golden], Selection::default(), &target(Form::Json, &exported), true).unwrap();
        let exported = std::fs::read_to_string(exported).unwrap();
        let mut lines = exported.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let (header, recording) = (read.next().unwrap(), lines.next().unwrap());
        assert_eq!(header["header"]["trace"], recording["header"]["trace"]);
        let mut events = 0;
        for (event, line) in read.by_ref().zip(lines.by_ref()) {
            assert_eq!(event["time"], line["time"], "{event} {line}");
            assert_same(&event["kind"], &line);
            events += 1;
        }
        assert!(events > 200, "{events}");
        assert!(read.next().is_none() && lines.all(|line| line["time"].is_null()), "verdicts follow the events");
    }
}

/// An event as it is in the file, and its flattened line.
fn assert_same(kind: &Value, line: &Value) {
    let name = line["event"].as_str().unwrap();
    let ended = Value::Null;
    let (told, body) = match kind {
        Value::String(unit) => (unit.as_str(), &ended),
        Value::Object(variant) => variant.iter().next().map(|(told, body)| (told.as_str(), body)).unwrap(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Array(_) => panic!("{kind}"),
    };
    assert_eq!(told.to_lowercase(), name);
    match name {
        "host" => assert_subset(body, &line["state"]),
        "packet" => {
            let bytes = body["header"].as_array().unwrap().iter().map(|byte| byte.as_u64().unwrap());
            let header: Vec<String> = bytes.map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(line["header"], header.concat());
            assert_eq!(line["packets"], body["count"]);
            assert_eq!(line["bytes"], body["length"]);
            assert_eq!(line["ethernet"], body["ethernet"]);
            let stack = &body["cause"]["Dropped"]["stack"];
            assert!(if stack.is_null() { line["stack"] == serde_json::json!([]) } else { line["stack"] == *stack });
        }
        "flow" => assert_subset(&body["counters"], &line["counters"]),
        "drop" => {
            for (column, value) in [("packets", &body["packets"]), ("largest", &body["largest"])] {
                assert_eq!(line[column], *value);
            }
            assert_eq!((&line["reason"], &line["function"]), (&body["site"]["reason"], &body["site"]["function"]));
        }
        "ended" => {}
        _ => assert_subset(body, line),
    }
    if let Value::Object(flow) = &body["flow"] {
        for column in ["source_port", "destination_port", "vlan"] {
            assert_eq!(line[column], flow[column]);
        }
        for column in ["source", "destination"] {
            let address = flow[column].as_object().and_then(|address| address.values().next()).unwrap();
            assert_subset(address, &line[column]);
        }
    }
}

/// A later version may know more fields than the file has.
fn assert_subset(told: &Value, known: &Value) {
    match (told, known) {
        (Value::Object(told), Value::Object(known)) => {
            told.iter().for_each(|(key, value)| assert_subset(value, known.get(key).unwrap_or(&Value::Null)));
        }
        (Value::Array(told), Value::Array(known)) if told.len() == known.len() => {
            told.iter().zip(known).for_each(|(told, known)| assert_subset(told, known));
        }
        // A MAC address is six bytes in the file.
        (Value::Array(bytes), Value::String(text)) => {
            let bytes: Vec<String> = bytes.iter().map(|byte| format!("{:02x}", byte.as_u64().unwrap())).collect();
            assert_eq!(bytes.join(":"), *text);
        }
        _ => assert_eq!(told, known),
    }
}

#[test]
fn nothing_is_written_over_without_force() {
    let sample = Sample::new("exists");
    for (form, name) in [(Form::Json, "x.json"), (Form::Pcapng, "x.pcapng"), (Form::Parquet, "x")] {
        if form == Form::Parquet && cfg!(not(feature = "parquet")) {
            continue;
        }
        let output = sample.export(form, name);
        let target = target(form, &output);
        let error = export(&[sample.recording()], Selection::default(), &target, true).unwrap_err().to_string();
        assert!(error.ends_with(&format!("{name} exists; --force writes over it")), "{error}");
        let forced = Target { force: true, ..target };
        export(&[sample.recording()], Selection::default(), &forced, true).unwrap();
    }
}

//! Each event bears the id of its flow in the report, and counts what is new.

use super::*;
use crate::event::{Address, DropSample, DropSite, FlowKey, FlowSample, Protocol};
use crate::record::samples::conversation;
use std::collections::{BTreeMap, BTreeSet};

/// A VLAN tag that the second ping bears.
const TAG: u16 = 20;

/// Two pings of one pair: the first passes, the second, with a tag, is dropped at the NIC, in three samples.
fn pings() -> Vec<Event> {
    let mut events = conversation("kvm1", true, 0, [0, 1_000, 2_000, 3_000]);
    let mut more = Vec::new();
    for event in &mut events {
        let EventKind::Flow(sample) = &mut event.kind else { continue };
        sample.flow = ping(sample.flow, 1, None);
        (sample.counters.fragments, sample.counters.fragmented) = (0, 0);
        if sample.place.direction == Direction::Ingress && sample.place.device == IfIndex(3) {
            let flow = ping(sample.flow, 2, Some(TAG));
            let counters = crate::event::FlowCounters { packets: 7, ..sample.counters.clone() };
            more.push((event.time, EventKind::Flow(FlowSample { flow, counters, ..sample.clone() })));
            for packets in [1, 4, 7] {
                let (bytes, first, largest) = (packets * 84, sample.counters.first, 84);
                more.push((
                    event.time,
                    EventKind::Drop(DropSample { flow, site: site(), packets, bytes, first, largest }),
                ));
            }
            for (flow, cause) in [
                (sample.flow, PacketCause::First),
                (flow, PacketCause::First),
                (flow, PacketCause::Dropped { site: site(), stack: Vec::new() }),
            ] {
                more.push((event.time, EventKind::Packet(Box::new(echo(flow, cause, sample.place)))));
            }
        }
    }
    events.extend(more.into_iter().map(|(time, kind)| Event { time, kind }));
    events
}

fn ping(flow: FlowKey, id: u16, vlan: Option<u16>) -> FlowKey {
    let asks = flow.source == Address::Ip([10, 0, 0, 1].into());
    let protocol = Protocol::Icmp { kind: if asks { 8 } else { 0 }, code: 0, id };
    FlowKey { protocol, source_port: None, destination_port: None, vlan, ..flow }
}

fn site() -> DropSite {
    DropSite {
        reason: Some("NOT_SPECIFIED".to_owned()),
        function: Some("br_dev_queue_push_xmit".to_owned()),
        offset: 70,
        device: Some(IfIndex(2)),
    }
}

/// An echo request on the wire, with the identifier and the tag of its flow.
fn echo(flow: FlowKey, cause: PacketCause, place: Place) -> PacketRecord {
    let Protocol::Icmp { id, .. } = flow.protocol else { unreachable!() };
    let mut header = vec![0x52, 0x54, 0, 0xaa, 0, 0xfe, 0x52, 0x54, 0, 0xaa, 0, 1];
    if let Some(vlan) = flow.vlan {
        header.extend([0x81, 0]);
        header.extend(vlan.to_be_bytes());
    }
    header.extend([8, 0, 0x45, 0, 0, 28, 0, 1, 0, 0, 64, 1, 0, 0, 10, 0, 0, 1, 10, 0, 0, 254, 8, 0, 0, 0]);
    header.extend(id.to_be_bytes());
    header.extend([0, 1]);
    let place = (cause == PacketCause::First).then_some(place);
    PacketRecord {
        cause,
        flow,
        place,
        input_device: Some(IfIndex(3)),
        count: 1,
        length: header.len() as u32,
        gso_size: 0,
        segments: 1,
        ether_type: 0x0800,
        ethernet: true,
        header,
    }
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The ids of the verdicts, by the identifier of the ping and its direction.
fn ids(lines: &[Value]) -> BTreeMap<(u64, String), String> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let verdicts = lines.iter().filter(|line| line["event"] == "verdict" && line["icmp_id"].is_u64());
    verdicts.map(|line| ((line["icmp_id"].as_u64().unwrap(), text(&line["source"])), text(&line["id"]))).collect()
}

#[test]
fn a_comment_speaks_of_the_packets_own_flow() {
    let sample = Sample::of("pcapng-flows", &pings());
    let ids = ids(&lines(&sample.export(Form::Json, "trace.json")));
    let path = sample.export(Form::Pcapng, "trace.pcapng");
    let arguments =
        ["-r", path.to_str().unwrap(), "-T", "fields", "-e", "icmp.ident", "-e", "vlan.id", "-e", "frame.comment"];
    let Some(text) = output("tshark", &arguments) else { return };
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(rows.len(), 3, "{text}");
    for row in rows {
        let [number, vlan, comment] = row.as_slice() else { panic!("{row:?}") };
        let is_first = number.split(',').next() == Some("1");
        let own = &ids[&(if is_first { 1 } else { 2 }, "10.0.0.1".to_owned())];
        assert!(comment.contains(&format!("; flow {own};")), "{row:?} {ids:?}");
        assert!(comment.contains("; guest web1; host kvm1;"), "{row:?}");
        assert_eq!(comment.contains("verdict dropped"), !is_first, "{row:?}");
        assert_eq!(comment.contains("verdict delivered"), is_first, "{row:?}");
        assert_eq!((*vlan, comment.contains("; vlan 20;")), if is_first { ("", false) } else { ("20", true) });
        assert!(comment.contains(if is_first { "; icmp id 1;" } else { "; icmp id 2;" }), "{row:?}");
    }
}

#[test]
fn each_line_bears_its_flow_and_new_packets_add_up() {
    let sample = Sample::of("json-flows", &pings());
    let lines = lines(&sample.export(Form::Json, "trace.json"));
    let ids = ids(&lines);
    assert_eq!(ids.len(), 3, "{ids:?}");
    let drops: Vec<&Value> = lines.iter().filter(|line| line["event"] == "drop").collect();
    let new: Vec<u64> = drops.iter().map(|line| line["new_packets"].as_u64().unwrap()).collect();
    assert_eq!(new, [1, 3, 3]);
    for line in lines.iter().filter(|line| line["icmp_id"].is_u64() && line["event"] != "verdict") {
        let source = line["source"].as_str().unwrap().to_owned();
        let own = &ids[&(line["icmp_id"].as_u64().unwrap(), source)];
        assert_eq!((line["flow_id"].as_str(), line["host"].as_str()), (Some(own.as_str()), Some("kvm1")), "{line}");
    }
}

/// The numbers in a column of a table, null as none, by the text of another.
#[cfg(feature = "parquet")]
fn column(path: &Path, keys: [&str; 2], number: &str) -> Vec<(Vec<Option<String>>, Option<i64>)> {
    use ::parquet::file::reader::{FileReader as _, SerializedFileReader};
    use ::parquet::record::Field;
    let reader = SerializedFileReader::new(std::fs::File::open(path).unwrap()).unwrap();
    let rows = reader.get_row_iter(None).unwrap().map(Result::unwrap);
    rows.map(|row| {
        let field = |name: &str| row.get_column_iter().find(|(known, _)| *known == name).unwrap().1.clone();
        let text = |name: &&str| if let Field::Str(text) = field(name) { Some(text) } else { None };
        (keys.iter().map(text).collect(), if let Field::Long(number) = field(number) { Some(number) } else { None })
    })
    .collect()
}

#[cfg(feature = "parquet")]
#[test]
fn the_sum_of_packets_over_drops_is_the_number_of_drops() {
    let sample = Sample::of("parquet-sums", &pings());
    let directory = sample.export(Form::Parquet, "tables");
    let rows = column(&directory.join("events.parquet"), ["event", "flow_id"], "packets");
    let of = |kind: &str| rows.iter().filter(|(keys, _)| keys[0].as_deref() == Some(kind)).collect::<Vec<_>>();
    assert_eq!(of("drop").iter().filter_map(|(_, packets)| *packets).sum::<i64>(), 7);
    assert!(of("packet").iter().all(|(_, packets)| packets.is_none()), "other rows count them");
    // Whichever way drops are asked for.
    let rows = column(&directory.join("events.parquet"), ["cause", "flow_id"], "packets");
    let dropped = rows.iter().filter(|(keys, _)| keys[0].as_deref() == Some("dropped"));
    assert_eq!(dropped.filter_map(|(_, packets)| *packets).sum::<i64>(), 7);
    let named: BTreeSet<_> = rows.iter().filter_map(|(keys, _)| keys[1].clone()).collect();
    let flows = column(&directory.join("flows.parquet"), ["id", "host"], "dropped");
    assert_eq!(named, flows.iter().filter_map(|(keys, _)| keys[0].clone()).collect());
    assert_eq!(flows.iter().filter_map(|(_, dropped)| *dropped).sum::<i64>(), 7);
}

#[test]
fn recordings_of_two_hosts_become_one_export_in_the_order_of_time() {
    let ask = Sample::of("both-ask", &conversation("kvm1", true, 0, [0, 10_000, 70_000, 80_000]));
    let answer = Sample::of("both-answer", &conversation("kvm2", false, 500, [30_000, 35_000, 45_000, 50_000]));
    let files = [ask.recording(), answer.recording()];
    let json = ask.0.join("both.json");
    export(&files, Selection::default(), &target(Form::Json, &json), true).unwrap();
    let lines = lines(&json);
    let of = |kind: &str| lines.iter().filter(|line| line["event"] == kind).collect::<Vec<_>>();
    assert_eq!(of("recording").iter().map(|line| line["host"].as_str().unwrap()).collect::<Vec<_>>(), ["kvm1", "kvm2"]);
    let times: Vec<&str> = lines.iter().filter_map(|line| line["time"].as_str()).collect();
    assert!(times.is_sorted() && times.len() == 12, "{times:?}");
    let requests: Vec<&Value> = of("flow").into_iter().filter(|line| line["destination_port"] == 9000).collect();
    let devices: BTreeSet<&str> = requests.iter().map(|line| line["device"].as_str().unwrap()).collect();
    assert_eq!(devices, BTreeSet::from(["kvm1/eth0", "kvm1/vnet0", "kvm2/eth0", "kvm2/vnet0"]));
    let named: BTreeSet<&str> = requests.iter().map(|line| line["flow_id"].as_str().unwrap()).collect();
    let verdicts: Vec<&str> = of("verdict").iter().map(|line| line["id"].as_str().unwrap()).collect();
    assert_eq!((named.len(), verdicts.len()), (1, 2), "the same flow on both hosts");
    assert!(named.iter().all(|id| verdicts.contains(id)));
    let capture = ask.0.join("both.pcapng");
    export(&files, Selection::default(), &target(Form::Pcapng, &capture), true).unwrap();
    if let Some(text) = output("capinfos", &[capture.to_str().unwrap()]) {
        assert!(text.contains("(kvm1); Linux 6.18.44 (kvm2)"), "{text}");
    }
}

#[test]
fn two_traces_of_one_host_have_no_flow_of_the_same_id() {
    let one = Sample::of("once", &conversation("kvm1", true, 0, [0, 1, 2, 3]));
    let again = Sample::of("again", &conversation("kvm1", true, 9_000_000_000, [0, 1, 2, 3]));
    let json = one.0.join("both.json");
    let files = [one.recording(), again.recording()];
    export(&files, Selection::default(), &target(Form::Json, &json), true).unwrap();
    let lines = lines(&json);
    let ids: Vec<&Value> = lines.iter().filter(|line| line["event"] == "verdict").map(|line| &line["id"]).collect();
    let different: BTreeSet<String> = ids.iter().map(ToString::to_string).collect();
    assert_eq!((ids.len(), different.len()), (4, 4), "{ids:?}");
    let named: BTreeSet<String> =
        lines.iter().filter(|line| line["event"] == "flow").map(|line| line["flow_id"].to_string()).collect();
    assert_eq!(named, different);
}

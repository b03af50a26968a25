//! The tc programs as the kernel runs them, on packets of our own and with no network at all: they must count what the
//! packet says and leave every packet alone, whatever its bytes.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test that can't go on has failed; a skip is told")]

use aya::Ebpf;
use aya::maps::{Array, HashMap};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::{FlowCounters, FlowKey, NO_VLAN};
use kvmtrace_common::parse::{self, Parsed};
use kvmtrace_tests::object::{self, TABLES, Table, switch};
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of a key, and of what is counted under it.
const KEY: usize = size_of::<FlowKey>();
const COUNTERS: usize = size_of::<FlowCounters>();

/// `TC_ACT_UNSPEC`, which is `TCX_NEXT`: the next program decides.
const NEXT: u32 = u32::MAX;

/// Switched on.
fn load(table: Table) -> Option<Ebpf> {
    let mut ebpf = load_waiting(table)?;
    switch(&mut ebpf, u32::MAX).unwrap();
    Some(ebpf)
}

fn load_waiting(table: Table) -> Option<Ebpf> {
    if !nix::unistd::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI runs as root");
        println!("SKIP: loading BPF programs needs root");
        return None;
    }
    let path = std::env::var("KVMTRACE_BPF_OBJECT")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/object/kvmtrace.bpf.o").to_owned());
    let mut ebpf = object::load(path.as_ref(), table).expect("the object of `cargo xtask ebpf`");
    for name in ["kvmtrace_in", "kvmtrace_out", "kvmtrace_in_l3", "kvmtrace_out_l3"] {
        program(&mut ebpf, name).load().expect("the verifier accepts it");
    }
    Some(ebpf)
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut SchedClassifier {
    ebpf.program_mut(name).expect("the program is there").try_into().expect("a classifier")
}

fn run(ebpf: &mut Ebpf, name: &str, packet: &[u8]) -> u32 {
    let options = TestRunOptions { data_in: Some(packet), repeat: 1, ..TestRunOptions::new() };
    program(ebpf, name).test_run(options).expect("BPF_PROG_TEST_RUN").return_value
}

/// All entries of both tables, key and counters; empties both.
fn entries(ebpf: &mut Ebpf) -> Vec<(Table, Vec<u8>)> {
    let mut map: HashMap<_, [u8; KEY], [u8; COUNTERS]> =
        HashMap::try_from(ebpf.map_mut("FLOWS").expect("FLOWS")).expect("a hash");
    let in_map: Vec<([u8; KEY], [u8; COUNTERS])> = map.iter().filter_map(Result::ok).collect();
    for (key, _) in &in_map {
        map.remove(key).expect("it was there");
    }
    let mut all: Vec<_> = in_map.iter().map(|(key, value)| (Table::Map, [&key[..], value].concat())).collect();
    let mut hot: Array<_, [u8; KEY + COUNTERS]> = Array::try_from(ebpf.map_mut("HOT").expect("HOT")).expect("an array");
    for index in 0..hot.len() {
        let entry = hot.get(&index, 0).expect("an entry");
        if entry[48..56] != [0; 8] {
            all.push((Table::Hot, entry.to_vec()));
            hot.set(index, [0; KEY + COUNTERS], 0).expect("it can be cleared");
        }
    }
    all
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_ne_bytes(bytes.try_into().expect("8 bytes"))
}

/// Table, flow key (without place and CPU: the first 40 bytes) and packets of each flow, and empties both tables.
fn flows_anywhere(ebpf: &mut Ebpf) -> Vec<(Table, [u8; 40], u64)> {
    entries(ebpf)
        .into_iter()
        .map(|(table, entry)| (table, entry[..40].try_into().expect("40 bytes"), number(&entry[48..56])))
        .collect()
}

/// The same of one table; the other has none.
fn flows(ebpf: &mut Ebpf, table: Table) -> Vec<([u8; 40], u64)> {
    let all = flows_anywhere(ebpf);
    assert!(all.iter().all(|(in_table, ..)| *in_table == table), "{all:?}");
    all.into_iter().map(|(_, key, packets)| (key, packets)).collect()
}

/// What the same parser, compiled for the host, makes of the packet.
fn expected(packet: &[u8]) -> [u8; 40] {
    use zerocopy::IntoBytes as _;
    let mut header = Header { bytes: [0; HEADER_BYTES] };
    let available = packet.len().min(128);
    header.bytes[..available].copy_from_slice(&packet[..available]);
    let mut parsed = Parsed::EMPTY;
    parse::ethernet(&header, available, NO_VLAN, &mut parsed);
    parsed.key.as_bytes()[..40].try_into().expect("40 bytes")
}

/// The same of a packet without its Ethernet header. What follows the IP header is the packet's as far as that says.
fn expected_raw(frame: &[u8]) -> [u8; 40] {
    use zerocopy::IntoBytes as _;
    let packet = &frame[14..];
    let mut header = Header { bytes: [0; HEADER_BYTES] };
    let available = packet.len().min(128);
    header.bytes[..available].copy_from_slice(&packet[..available]);
    let said = parse::length_at_layer_3(&header) as usize;
    let available = match available {
        128 => 128,
        most if (20..=most).contains(&said) => said,
        _ => 20,
    };
    // A number that is no type but a length: ETH_P_802_2 (eth_type_trans).
    let protocol = match u16::from_be_bytes([frame[12], frame[13]]) {
        0 => 4,
        protocol => protocol,
    };
    let mut parsed = Parsed::EMPTY;
    parse::raw(&header, available, protocol, NO_VLAN, &mut parsed);
    parsed.key.as_bytes()[..40].try_into().expect("40 bytes")
}

fn udp_frame() -> Vec<u8> {
    let mut frame = [&[0x52, 0x54, 0, 0, 0, 2, 0x52, 0x54, 0, 0, 0, 1, 8, 0][..]].concat();
    frame.extend([0x45, 0, 0, 46, 0, 1, 0x40, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2]);
    frame.extend([0x9c, 0x40, 0, 53, 0, 26, 0, 0]);
    frame.extend([0; 18]);
    frame
}

#[test]
fn each_packet_is_counted_under_its_flow() {
    for table in TABLES {
        each_packet_is_counted_in(table);
    }
}

fn each_packet_is_counted_in(table: Table) {
    let Some(mut ebpf) = load(table) else { return };
    let frame = udp_frame();
    for _ in 0..3 {
        assert_eq!(run(&mut ebpf, "kvmtrace_in", &frame), NEXT);
    }
    let flows = flows(&mut ebpf, table);
    // One entry per CPU that ran the test.
    assert_eq!(flows.iter().map(|(_, packets)| packets).sum::<u64>(), 3);
    for (key, _) in flows {
        assert_eq!(key[..4], [10, 0, 0, 1], "source");
        assert_eq!(key[16..20], [10, 0, 0, 2], "destination");
        assert_eq!(u16::from_ne_bytes([key[32], key[33]]), 40_000, "source port");
        assert_eq!(u16::from_ne_bytes([key[34], key[35]]), 53, "destination port");
        assert_eq!((key[38], key[39]), (4, 17), "IPv4 and UDP");
    }
}

#[test]
fn without_an_ethernet_header_there_are_no_mac_addresses_and_lengths_begin_at_layer_3() {
    let Some(mut ebpf) = load(Table::Hot) else { return };
    for name in ["kvmtrace_in_l3", "kvmtrace_out_l3"] {
        // The test run's packet has an Ethernet header before it, as a tunnel's has the outer headers.
        let frame = udp_frame();
        assert_eq!(run(&mut ebpf, name, &frame), NEXT);
        let entries = entries(&mut ebpf);
        let [(_, entry)] = entries.as_slice() else { panic!("one flow, not {}", entries.len()) };
        assert_eq!(entry[..40], expected(&frame), "{name}");
        assert_eq!((number(&entry[48..56]), number(&entry[56..64])), (1, 46), "packets and bytes, {name}");
        assert_eq!(u32::from_ne_bytes(entry[84..88].try_into().expect("4 bytes")), 46, "largest, {name}");
        // FlowCounters::source_mac and destination_mac.
        assert_eq!(entry[108..120], [0; 12], "{name}");
    }
}

#[test]
fn any_bytes_of_any_length_are_parsed_as_on_the_host_and_let_pass() {
    for table in TABLES {
        any_bytes_are_parsed_with(table);
    }
}

#[test]
fn any_bytes_are_parsed_from_layer_3_where_there_is_no_ethernet_header() {
    any_bytes_are_parsed_by(Table::Hot, ("kvmtrace_in_l3", "kvmtrace_out_l3"), expected_raw);
}

fn any_bytes_are_parsed_with(table: Table) {
    any_bytes_are_parsed_by(table, ("kvmtrace_in", "kvmtrace_out"), expected);
}

fn any_bytes_are_parsed_by(table: Table, programs: (&str, &str), expected: fn(&[u8]) -> [u8; 40]) {
    let Some(mut ebpf) = load(table) else { return };
    // A fixed sequence of pseudo-random packets (a linear congruential generator) that mostly look like something.
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    let types = [0x0800_u16, 0x86dd, 0x0806, 0x8100, 0x88a8, 0x88cc, 0];
    let protocols = [0_u8, 1, 6, 17, 43, 44, 51, 58, 60, 132, 255];
    for batch in 0..20 {
        let (mut expected_packets, mut fragments) = (BTreeMap::new(), BTreeSet::new());
        for round in 0..100 {
            // The kernel's test run takes no frame without an Ethernet header, and no IP frame without a whole IP header.
            let length = 14 + 40 + next() as usize % 120;
            let mut packet: Vec<u8> = (0..length).map(|_| next() as u8).collect();
            packet[12..14].copy_from_slice(&types[next() as usize % types.len()].to_be_bytes());
            packet[14] = [0x45, 0x46, 0x4f, 0x60, 0x00][next() as usize % 5];
            let protocol = protocols[next() as usize % protocols.len()];
            let at = if packet[14] == 0x60 { 20 } else { 23 };
            packet[at] = protocol;
            // Fragments borrow their ports from one another: another test's business.
            if packet[14] >> 4 == 4 {
                packet[20..22].copy_from_slice(&[0x40, 0]);
            }
            let name = if round % 2 == 0 { programs.0 } else { programs.1 };
            // The second is one of a flow that is known: it may go another way.
            for _ in 0..2 {
                assert_eq!(run(&mut ebpf, name, &packet), NEXT, "{packet:02x?}");
            }
            let key = expected(&packet);
            let is_fragment = protocol == 44 || key[39] == 44 || packet[54..].first() == Some(&44);
            *expected_packets.entry(key).or_insert(0) += 2;
            if is_fragment {
                fragments.insert(key);
            }
        }
        let mut packets = BTreeMap::new();
        let mut all = 0;
        for (_, key, count) in flows_anywhere(&mut ebpf) {
            all += count;
            *packets.entry(key).or_insert(0) += count;
        }
        assert_eq!(all, 200, "batch {batch}, {table:?}");
        expected_packets.retain(|key, _| !fragments.contains(key));
        packets.retain(|key, _| expected_packets.contains_key(key));
        assert_eq!(packets, expected_packets, "batch {batch}, {table:?}");
    }
}

#[test]
fn later_fragments_join_the_flow_of_their_first() {
    let Some(mut ebpf) = load(Table::Hot) else { return };
    let mut first = udp_frame();
    first[20..22].copy_from_slice(&[0x20, 0]);
    let mut later = first.clone();
    later[20..22].copy_from_slice(&[0, 185]);
    // Where the ports would be, a later fragment has data.
    later[34..38].copy_from_slice(&[0xff; 4]);
    run(&mut ebpf, "kvmtrace_in", &first);
    run(&mut ebpf, "kvmtrace_in", &later);
    let flows = flows(&mut ebpf, Table::Hot);
    assert_eq!(flows.iter().map(|(_, packets)| packets).sum::<u64>(), 2);
    for (key, _) in flows {
        assert_eq!(u16::from_ne_bytes([key[32], key[33]]), 40_000, "source port");
    }
}

#[test]
fn flows_that_share_a_place_are_counted_apart() {
    let Some(mut ebpf) = load(Table::Hot) else { return };
    // More flows than the table has places.
    let mut frame = udp_frame();
    for _ in 0..2 {
        for port in 0..3_000_u16 {
            frame[34..36].copy_from_slice(&(10_000 + port).to_be_bytes());
            run(&mut ebpf, "kvmtrace_in", &frame);
        }
    }
    let mut packets = BTreeMap::new();
    let all = flows_anywhere(&mut ebpf);
    let in_map = all.iter().filter(|(table, ..)| *table == Table::Map).count();
    for (_, key, count) in all {
        *packets.entry(u16::from_ne_bytes([key[32], key[33]])).or_insert(0) += count;
    }
    assert!(in_map > 0 && in_map < packets.len(), "{in_map} of {} flows are in the map", packets.len());
    assert_eq!(packets.len(), 3_000);
    assert!(packets.values().all(|count| *count == 2), "{packets:?}");
}

#[test]
fn nothing_is_counted_before_the_switch_and_nothing_after() {
    let Some(mut ebpf) = load_waiting(Table::Hot) else { return };
    // The test run's packets are of the loopback device, whose index is 1 in every network namespace.
    for (limit, counted) in [(0, 0), (1, 0), (2, 1), (u32::MAX, 1), (0, 0)] {
        switch(&mut ebpf, limit).unwrap();
        assert_eq!(run(&mut ebpf, "kvmtrace_in", &udp_frame()), NEXT);
        assert_eq!(run(&mut ebpf, "kvmtrace_out", &udp_frame()), NEXT);
        let flows = flows(&mut ebpf, Table::Hot);
        assert_eq!(flows.len(), 2 * counted, "limit {limit}");
    }
}

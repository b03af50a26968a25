//! How big and how fast recordings are: bytes per packet record, events per second of writing, judging and exporting,
//! and the peak of memory. `cargo run --release --example recording_speed [EVENTS]`
#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::cast_precision_loss, reason = "a bench")]

use anyhow::{Context as _, Result};
use kvmtrace::event::{
    Address, Direction, Event, EventKind, FlowCounters, FlowKey, FlowSample, HostState, IfIndex, MacAddress,
    PacketCause, PacketRecord, Place, Protocol, Started, Timestamp,
};
use kvmtrace::record::{Destination, Options, Writer, export, judge, recording};
use kvmtrace::selection::Selection;
use std::net::Ipv4Addr;
use std::time::Instant;

/// Flows that the packets belong to.
const FLOWS: u64 = 1000;
/// Bytes of each packet that are kept, as by `tcpdump -s 96`.
const SNAPLEN: usize = 96;
/// What pcapng takes for a packet beside its bytes: block header and trailer, interface, times, lengths.
const PCAPNG: usize = 32;

fn main() -> Result<()> {
    let events: u64 = std::env::args().nth(1).map_or(Ok(1_000_000), |text| text.parse()).context("EVENTS")?;
    let directory = std::env::temp_dir().join(format!("kvmtrace-speed-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    let file = directory.join("trace.kvmtrace");

    let rate = |what: &str, begin: Instant| {
        println!("{what:<28} {:>12.0} events/s", events as f64 / begin.elapsed().as_secs_f64());
    };
    let begin = Instant::now();
    let mut writer = Writer::create(&Destination::new(&file, false), Options::default())?;
    for number in 0..events {
        writer.write(&event(number))?;
    }
    let written = writer.finish()?;
    rate("write", begin);
    println!("{:<28} {:>12.1}", "bytes per packet record", written.bytes as f64 / events as f64);
    println!("{:<28} {:>12}", "pcapng, snaplen 96", SNAPLEN + PCAPNG);

    let files = vec![file];
    let begin = Instant::now();
    for mut recording in recording::open(&files)? {
        judge(&mut recording, &mut Selection::default(), true)?;
    }
    rate("report", begin);
    let memory = std::fs::read_to_string("/proc/self/status")?;
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap_or("?").trim().to_owned();
    println!("{:<28} {peak:>12}", "peak memory of report");

    let forms = [("json", export::Form::Json), ("pcapng", export::Form::Pcapng), ("parquet", export::Form::Parquet)];
    for (name, form) in forms {
        let begin = Instant::now();
        let target = export::Target { form, output: directory.join(name), force: false, partition: None };
        export::export(&files, Selection::default(), &target, true)?;
        rate(&format!("export --to {name}"), begin);
    }
    std::fs::remove_dir_all(&directory)?;
    Ok(())
}

/// The trace: what begins one, then packets, with a sample of their flow's counters after each hundred.
fn event(number: u64) -> Event {
    let time = Timestamp(1_795_000_000_000_000_000 + number * 10_000);
    let place = Place { device: IfIndex(3), direction: Direction::Ingress };
    let flow = FlowKey {
        protocol: Protocol::Udp,
        source: Address::Ip(Ipv4Addr::from(0x0a00_0000 + (number % FLOWS) as u32).into()),
        source_port: Some(40_000),
        destination: Address::Ip(Ipv4Addr::new(10, 9, 0, 1).into()),
        destination_port: Some(9000),
        vlan: None,
    };
    let packets = number / FLOWS + 1;
    let kind = match number {
        0 => EventKind::Started(Started {
            version: "bench".to_owned(),
            devices: Vec::new(),
            guests: Vec::new(),
            all: true,
            filter: String::new(),
            followed: false,
        }),
        1 => EventKind::Host(std::sync::Arc::new(HostState { name: "bench".to_owned(), ..HostState::default() })),
        _ if number.is_multiple_of(100) => {
            EventKind::Flow(FlowSample { flow, place, counters: counters(packets, time) })
        }
        _ => EventKind::Packet(Box::new(PacketRecord {
            cause: PacketCause::Wanted,
            flow,
            place: Some(place),
            input_device: Some(IfIndex(3)),
            count: packets,
            length: 1014,
            gso_size: 0,
            segments: 1,
            ether_type: 0x0800,
            ethernet: true,
            header: header(number),
        })),
    };
    Event { time, kind }
}

fn counters(packets: u64, first: Timestamp) -> FlowCounters {
    FlowCounters {
        packets,
        bytes: packets * 1014,
        first,
        fragments: 0,
        fragmented: 0,
        gso: 0,
        largest: 1000,
        tcp_syn: 0,
        tcp_syn_ack: 0,
        tcp_reset: 0,
        tcp_fin: 0,
        dont_fragment: true,
        may_fragment: false,
        source_mac_changed: false,
        malformed: false,
        source_mac: MacAddress([0x52, 0x54, 0, 0xaa, 0, 1]),
        destination_mac: MacAddress([0x52, 0x54, 0, 0xaa, 0, 2]),
        time_to_live: 64,
        repeated: 0,
        repeated_bytes: 0,
        missing_bytes: 0,
    }
}

/// A UDP packet whose identification, checksums and payload change from packet to packet, as real ones do.
fn header(number: u64) -> Vec<u8> {
    let mixed = (number ^ 0x9e37_79b9).wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes();
    let mut header = vec![0x52, 0x54, 0, 0xaa, 0, 2, 0x52, 0x54, 0, 0xaa, 0, 1, 8, 0, 0x45, 0, 3, 0xe8];
    header.extend((number as u16).to_be_bytes());
    header.extend([0x40, 0, 64, 17, mixed[0], mixed[1], 10, 0]);
    header.extend(((number % FLOWS) as u16).to_be_bytes());
    header.extend([10, 9, 0, 1, 0x9c, 0x40, 0x23, 0x28, 3, 0xd4, mixed[2], mixed[3]]);
    header.extend(number.to_be_bytes());
    header.extend(&mixed[4..]);
    header.resize(SNAPLEN, 0x5a);
    header
}

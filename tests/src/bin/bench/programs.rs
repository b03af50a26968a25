//! Nanoseconds per packet of each tc program, by `BPF_PROG_TEST_RUN`: no network takes part, only the program.

use crate::statistics::Summary;
use anyhow::{Context as _, Result, bail};
use aya::Ebpf;
use aya::maps::{Array, RingBuf};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions};
use kvmtrace_common::names;
use kvmtrace_tests::object::{self, Table};
use serde::Serialize;
use std::fmt;
use std::path::PathBuf;

/// Packets per measurement: as many as the naive program's ring has room for.
const REPEAT: u32 = 200_000;

/// Counting may cost this share of the naive program's cost.
const AIM: f64 = 0.5;

/// What a packet costs in each program.
#[derive(Serialize)]
pub(crate) struct Costs {
    rows: Vec<Cost>,
}

#[derive(Serialize)]
struct Cost {
    program: &'static str,
    packet: &'static str,
    /// Nanoseconds, what the empty program costs included.
    ns: Summary,
    /// What the program itself costs, as a share of the naive program's cost with the same packet.
    of_naive: Option<f64>,
}

/// A packet that the programs are run on.
struct Packet {
    name: &'static str,
    bytes: Vec<u8>,
    /// The naive program understands it.
    naive: bool,
    /// Where its flow is counted.
    table: Table,
}

/// Each program on each packet, `rounds` times, in turns.
pub(crate) fn measure(rounds: usize) -> Result<Costs> {
    let product = path("KVMTRACE_BPF_OBJECT")?;
    let mut hot = object::load(&product, Table::Hot)?;
    let mut map = object::load(&product, Table::Map)?;
    object::switch(&mut hot, u32::MAX)?;
    object::switch(&mut map, u32::MAX)?;
    let path = path("KVMTRACE_BENCH_OBJECT")?;
    let mut bench = Ebpf::load_file(&path).with_context(|| format!("can't load {}", path.display()))?;
    let ours = ["kvmtrace_in", "kvmtrace_out"];
    for (object, names) in [(&mut hot, ours), (&mut map, ours), (&mut bench, ["bench_empty", "bench_naive"])] {
        for name in names {
            classifier(object, name)?.load().with_context(|| format!("the kernel refuses {name}"))?;
        }
    }
    let packets = packets();
    let mut rows: Vec<(&'static str, &Packet, Vec<f64>)> = Vec::new();
    for packet in &packets {
        for program in ["bench_empty", "bench_naive", "kvmtrace_in", "kvmtrace_out"] {
            if program != "bench_naive" || packet.naive {
                rows.push((program, packet, Vec::new()));
            }
        }
    }
    // In turns, so that what else the machine does meanwhile meets all of them.
    for _ in 0..rounds {
        for (program, packet, values) in &mut rows {
            let object = match packet.table {
                _ if program.starts_with("bench") => &mut bench,
                Table::Hot => &mut hot,
                Table::Map => &mut map,
            };
            values.push(run(object, program, &packet.bytes)?);
            empty(&mut bench, "RECORDS")?;
            empty(&mut hot, names::EVENTS)?;
            empty(&mut map, names::EVENTS)?;
            if lost(&bench)? > 0 {
                bail!("the naive program lost records: its cost was not measured");
            }
        }
    }
    let median = |wanted: &str, packet: &Packet| {
        rows.iter()
            .find(|(program, of, _)| *program == wanted && of.name == packet.name)
            .map(|(_, _, values)| Summary::of(values).median)
    };
    let cost = |(program, packet, values): &(&'static str, &Packet, Vec<f64>)| {
        let ns = Summary::of(values);
        let empty = median("bench_empty", packet);
        let of_naive = match (empty, median("bench_naive", packet)) {
            (Some(empty), Some(naive)) if program.starts_with("kvmtrace") => {
                Some((ns.median - empty) / (naive - empty))
            }
            _ => None,
        };
        Cost { program, packet: packet.name, ns, of_naive }
    };
    Ok(Costs { rows: rows.iter().map(cost).collect() })
}

impl Costs {
    /// The aims that were missed.
    pub(crate) fn missed(&self) -> Vec<String> {
        let costly = |row: &&Cost| row.of_naive.is_some_and(|share| share > AIM);
        let missed = |row: &Cost| {
            let share = row.of_naive.unwrap_or_default();
            format!("{} costs {share:.2} of the naive program ({}), the aim is {AIM}", row.program, row.packet)
        };
        self.rows.iter().filter(costly).map(missed).collect()
    }
}

impl fmt::Display for Costs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{:<14} {:<22} {:>9}  {:>15}  {:>8}", "program", "packet", "ns/packet", "quartiles", "of naive")?;
        for Cost { program, packet, ns, of_naive } in &self.rows {
            let quartiles = format!("{:.0}–{:.0}", ns.lower, ns.upper);
            let share = of_naive.map_or_else(String::new, |share| format!("{share:.2}"));
            writeln!(f, "{program:<14} {packet:<22} {:>9.0}  {quartiles:>15}  {share:>8}", ns.median)?;
        }
        Ok(())
    }
}

fn path(variable: &str) -> Result<PathBuf> {
    Ok(std::env::var_os(variable).with_context(|| format!("{variable} is not set: run `cargo xtask bench`"))?.into())
}

fn classifier<'a>(object: &'a mut Ebpf, name: &str) -> Result<&'a mut SchedClassifier> {
    let program = object.program_mut(name).with_context(|| format!("the object has no program {name}"))?;
    Ok(program.try_into()?)
}

/// Nanoseconds per packet, as the kernel has measured them.
fn run(object: &mut Ebpf, program: &str, packet: &[u8]) -> Result<f64> {
    let options = TestRunOptions { data_in: Some(packet), repeat: REPEAT, ..TestRunOptions::new() };
    let result = classifier(object, program)?.test_run(options).with_context(|| format!("can't run {program}"))?;
    if result.return_value != u32::MAX {
        bail!("{program} returned {}: it must leave the packet to the next program", result.return_value.cast_signed());
    }
    Ok(result.duration.as_nanos() as f64)
}

/// Empties a ring.
fn empty(object: &mut Ebpf, name: &str) -> Result<()> {
    let mut ring = RingBuf::try_from(object.map_mut(name).with_context(|| format!("no map {name}"))?)?;
    while ring.next().is_some() {}
    Ok(())
}

/// Records of the naive program that did not fit.
fn lost(bench: &Ebpf) -> Result<u64> {
    Ok(Array::<_, u64>::try_from(bench.map("LOST").context("no map LOST")?)?.get(&0, 0)?)
}

/// Small and large packets of flows that are known already: what a busy host sees.
fn packets() -> Vec<Packet> {
    let udp = |payload: usize| {
        transport(17, &[&[0x9c, 0x40, 0x23, 0x28], &length(8 + payload)[..], &[0, 0]].concat(), payload)
    };
    let tcp_header = [0x9c, 0x40, 0x01, 0xbb, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0];
    let mut ipv6 = ethernet([0x86, 0xdd]);
    ipv6.extend([0x60, 0, 0, 0]);
    ipv6.extend(length(20 + 1440));
    ipv6.extend([6, 64]);
    ipv6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
    ipv6.extend([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
    ipv6.extend(tcp_header);
    ipv6.extend([0; 1440]);
    let icmp = transport(1, &[8, 0, 0, 0, 0, 7, 0, 1], 56);
    let packet = |name, bytes, naive, table| Packet { name, bytes, naive, table };
    vec![
        packet("IPv4 UDP, 64 bytes", udp(22), true, Table::Hot),
        packet("IPv4 TCP, 1514 bytes", transport(6, &tcp_header, 1460), true, Table::Hot),
        packet("IPv6 TCP, 1514 bytes", ipv6, false, Table::Hot),
        packet("IPv4 ICMP, 98 bytes", icmp, true, Table::Hot),
        // Its flow came when the hot table was taken.
        packet("IPv4 UDP, not hot", udp(22), true, Table::Map),
    ]
}

fn ethernet(ether_type: [u8; 2]) -> Vec<u8> {
    [&[0x52, 0x54, 0, 0xaa, 0, 2, 0x52, 0x54, 0, 0xaa, 0, 1], &ether_type[..]].concat()
}

/// An IPv4 packet with this transport header and so many bytes of payload.
fn transport(protocol: u8, header: &[u8], payload: usize) -> Vec<u8> {
    let mut bytes = ethernet([8, 0]);
    bytes.extend([0x45, 0]);
    bytes.extend(length(20 + header.len() + payload));
    bytes.extend([0, 0, 0x40, 0, 64, protocol, 0, 0, 10, 99, 0, 11, 10, 99, 0, 1]);
    bytes.extend(header);
    bytes.resize(bytes.len() + payload, 0);
    bytes
}

fn length(bytes: usize) -> [u8; 2] {
    (bytes as u16).to_be_bytes()
}

//! How large recordings are: bytes per packet record of `kvmtrace record --packets --snaplen 96`, next to what tcpdump
//! with `-s 96` writes of the same packets at the same two points (tap and uplink).
//!
//! tcpdump writes pcap. As pcapng the same packets take 32 bytes each beside their own, padded to four (an enhanced packet
//! block without options); that is what is compared with.

use crate::traffic::Kind;
use anyhow::{Context as _, Result, ensure};
use kvmtrace_tests::lab::Lab;
use kvmtrace_tests::lab::plan::Options;
use kvmtrace_tests::lab::process::{self, Background, wait_until};
use kvmtrace_tests::product::Product;
use nix::sys::signal::Signal;
use serde::Serialize;
use std::fmt;
use std::path::Path;
use std::time::Duration;

const LIMIT: Duration = Duration::from_mins(2);
const PORT: u16 = 9000;
/// A pcap file's header, and what stands before each packet.
const PCAP: (usize, usize) = (24, 16);
/// What a packet takes in a pcapng file beside its bytes.
const PCAPNG: usize = 32;

/// Sizes by kind of traffic.
#[derive(Serialize)]
pub(crate) struct Sizes {
    rows: Vec<Size>,
}

/// Bytes per packet record.
#[derive(Serialize)]
struct Size {
    traffic: &'static str,
    /// Records of kvmtrace; packets in tcpdump's files.
    records: u64,
    captured: u64,
    kvmtrace: f64,
    pcap: f64,
    pcapng: f64,
}

/// Measures each kind of traffic.
pub(crate) fn measure() -> Result<Sizes> {
    let lab = Lab::fixed(&format!("kbr{}", std::process::id()), &Options { mtu: Some(1500), ..Options::default() })?;
    let product = Product::find()?;
    let this = std::env::current_exe().context("finding the bench itself")?;
    let to = format!("{}:{PORT}", lab.plan.lan.addresses.v4);
    let server = Background::start(lab.lan.command(&this).args(["answer", &to]))?;
    let guest = &lab.guests[0];
    ensure!(
        wait_until(LIMIT, || {
            let talk = guest.namespace.command(&this).args(["talk", &to, "one"]).output();
            talk.is_ok_and(|output| output.status.success())
        }),
        "nobody answers at {to}"
    );
    let mut rows = Vec::new();
    for kind in Kind::MEASURED {
        rows.push(one(&lab, &product, &this, &to, kind)?);
    }
    drop(server);
    Ok(Sizes { rows })
}

fn one(lab: &Lab, product: &Product, this: &Path, to: &str, kind: Kind) -> Result<Size> {
    let file = lab.directory().join("trace.kvmtrace");
    let path = file.to_str().context("a path that is no text")?;
    let tracing = product.start(lab, &["record", "--packets", "--snaplen", "96", "--force", "-o", path])?;
    let mut dumps = Vec::new();
    for device in [&lab.plan.guests[0].tap, &lab.plan.uplink.device] {
        let capture = lab.directory().join(format!("{device}.pcap"));
        let mut tcpdump = lab.host.command("tcpdump");
        tcpdump.args(["-i", device, "-s", "96", "-U", "--immediate-mode", "-w"]).arg(&capture);
        let running = Background::start(&mut tcpdump)?;
        // Its file begins once it captures.
        ensure!(wait_until(LIMIT, || capture.metadata().is_ok_and(|file| file.len() > 0)), "tcpdump does not start");
        dumps.push((running, capture));
    }
    process::check(lab.guests[0].namespace.command(this).args(["talk", to, kind.name()]), LIMIT)?;
    std::thread::sleep(Duration::from_secs(2));
    let (mut captured, mut pcap, mut pcapng) = (0, 0, 0);
    for (running, capture) in dumps {
        running.signal(Signal::SIGINT)?;
        running.finish(LIMIT)?;
        let bytes = std::fs::read(&capture)?;
        std::fs::remove_file(&capture)?;
        pcap += bytes.len();
        for length in lengths(&bytes) {
            captured += 1;
            pcapng += PCAPNG + length.next_multiple_of(4);
        }
    }
    ensure!(captured > 0, "tcpdump saw nothing");
    let output = tracing.interrupt(Signal::SIGINT)?;
    ensure!(output.code() == 0, "record: {}", output.stderr);
    let export =
        std::process::Command::new(product.path()).args(["export", path, "--to", "json", "-o", "-"]).output()?;
    let lines = String::from_utf8_lossy(&export.stdout);
    let records = lines.lines().filter(|line| line.starts_with(r#"{"event":"packet""#)).count() as u64;
    let per = |bytes: f64, count: u64| bytes / count.max(1) as f64;
    Ok(Size {
        traffic: kind.description(),
        records,
        captured,
        kvmtrace: per(std::fs::metadata(&file)?.len() as f64, records),
        pcap: per(pcap as f64, captured),
        pcapng: per(pcapng as f64, captured),
    })
}

/// How much of each packet a pcap file of this machine's byte order holds.
fn lengths(pcap: &[u8]) -> Vec<usize> {
    let mut rest = pcap.get(PCAP.0..).unwrap_or_default();
    let mut lengths = Vec::new();
    while let Some(length) = rest.get(8..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_ne_bytes) {
        lengths.push(length as usize);
        rest = rest.get(PCAP.1 + length as usize..).unwrap_or_default();
    }
    lengths
}

impl Sizes {
    /// What is larger than was aimed for: a third of pcapng.
    pub(crate) fn missed(&self) -> impl Iterator<Item = String> {
        let large = self.rows.iter().filter(|row| row.kvmtrace * 3.0 > row.pcapng);
        large.map(|row| {
            format!("{}: {:.0} % of pcapng, the aim is a third", row.traffic, row.kvmtrace / row.pcapng * 100.0)
        })
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Bytes per packet record, 96 of each packet kept, two points")?;
        writeln!(
            f,
            "{:<34} {:>8} {:>8} {:>9} {:>7} {:>7} {:>6}",
            "traffic", "records", "captured", "kvmtrace", "pcap", "pcapng", "ratio"
        )?;
        for row in &self.rows {
            let ratio = row.kvmtrace / row.pcapng;
            let Size { traffic, records, captured, kvmtrace, pcap, pcapng } = row;
            writeln!(
                f,
                "{traffic:<34} {records:>8} {captured:>8} {kvmtrace:>9.1} {pcap:>7.1} {pcapng:>7.1} {ratio:>6.2}"
            )?;
        }
        Ok(())
    }
}

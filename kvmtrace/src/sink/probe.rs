//! A probe's report: how far the packets and their answers got, hop by hop; a fault as in every report; what the forwarding
//! model had said.

use super::escape::escape;
use super::incident;
use super::style::Style;
use super::text::{self, View};
use crate::diagnose::probe::{Limit, Outcome, ProbeReport, Probed, flows};
use crate::diagnose::report::{FlowReport, Hop, Report, Severity, Verdict};
use crate::event::Direction;
use serde::Serialize;
use std::io::{self, Write};

/// Writes one JSON object: the report with the keys `probe`, `probes` and `sweep`.
pub fn json(report: &ProbeReport, out: &mut impl Write) -> io::Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        #[serde(flatten)]
        report: &'a Report,
        probe: Option<&'a Probed>,
        probes: &'a [Probed],
        sweep: Option<Limit>,
    }
    let document =
        Document { report: &report.report, probe: report.worst(), probes: &report.probes, sweep: report.limit };
    super::json::line(&document, out)
}

/// Writes it for people.
pub fn text(report: &ProbeReport, view: View, out: &mut impl Write) -> io::Result<()> {
    let style = view.style;
    for probe in &report.probes {
        one(report, probe, view, out)?;
    }
    if let Some(limit) = report.limit {
        self::limit(limit, style, out)?;
    }
    text::degraded(&report.report, style, out)
}

/// Each probe and its path, without the faults.
pub fn lines(report: &ProbeReport, view: View, out: &mut impl Write) -> io::Result<()> {
    for probe in &report.probes {
        way(report, probe, view, out)?;
    }
    if report.probes.is_empty() { Ok(()) } else { writeln!(out) }
}

fn one(report: &ProbeReport, probe: &Probed, view: View, out: &mut impl Write) -> io::Result<()> {
    way(report, probe, view, out)?;
    let (there, back) = flows(&report.report, probe.key);
    // That packets of this size come in fragments is what was asked for.
    let faulty = |flow: &&FlowReport| {
        flow.severity > Severity::Info || !matches!(flow.verdict, Verdict::Delivered | Verdict::Fragmented)
    };
    for flow in [there, back].into_iter().flatten().filter(faulty) {
        incident::flow(flow, view, out)?;
    }
    writeln!(out)
}

fn way(report: &ProbeReport, probe: &Probed, view: View, out: &mut impl Write) -> io::Result<()> {
    let style = view.style;
    let end = |address: &str, port: Option<u16>| match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    };
    let fragment = if probe.dont_fragment { ", DF" } else { "" };
    let line = format!(
        "{}  {} {} → {}  {} sent, {} bytes{fragment}",
        escape(&probe.guest),
        probe.protocol,
        end(&probe.source, probe.source_port),
        end(&probe.destination, probe.destination_port),
        probe.sent,
        probe.size,
    );
    // As wide as the words of severity that begin other reports' lines.
    let word = format!("{:<10}", probe.outcome.word());
    writeln!(out, "{}  {line}", style.severity(gravity(probe), &word))?;
    let (there, back) = flows(&report.report, probe.key);
    for (label, flow) in [("there ", there), ("back  ", back)] {
        if let Some(flow) = flow.filter(|flow| !flow.path.is_empty()) {
            writeln!(out, "  {label} {}", style.bold(&path(&flow.path)))?;
        }
    }
    if let Some(expected) = &probe.expected {
        let differs = if expected.differs(probe.outcome) { "; what happened is something else" } else { "" };
        writeln!(out, "  {}", style.dim(&format!("model  {}{differs}", escape(&expected.text))))?;
    }
    Ok(())
}

/// A probe that was refused by its receiver is no fault of this host.
fn gravity(probe: &Probed) -> Severity {
    match probe.outcome {
        Outcome::Answered | Outcome::Delivered => probe.severity,
        Outcome::Refused | Outcome::Unanswered | Outcome::Lost | Outcome::Dropped => probe.severity.max(Severity::Info),
    }
}

/// `vnet0 in 3 → eth0 out 3 (+38 µs)`
fn path(hops: &[Hop]) -> String {
    let hops = hops.iter().map(|hop| {
        let side = if hop.direction == Direction::Ingress { "in" } else { "out" };
        let time = hop.latency_ns.map(|time| format!(" (+{})", duration(time.p50))).unwrap_or_default();
        format!("{} {side} {}{time}", escape(&hop.device), hop.packets)
    });
    hops.collect::<Vec<_>>().join(" → ")
}

/// `38 µs`, `1.2 ms`, `2.0 s`
fn duration(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000_000 => format!("{} µs", nanoseconds / 1_000),
        1_000_000..1_000_000_000 => format!("{:.1} ms", nanoseconds as f64 / 1e6),
        _ => format!("{:.1} s", nanoseconds as f64 / 1e9),
    }
}

fn limit(limit: Limit, style: Style, out: &mut impl Write) -> io::Result<()> {
    let told = match limit.told {
        Some(true) => ", and its sender is told so by ICMP",
        Some(false) => ", and its sender is not told",
        None => "",
    };
    let text = match (limit.largest, limit.next) {
        (Some(largest), Some(next)) => format!("packets of up to {largest} bytes pass; one of {next} does not{told}"),
        (Some(largest), None) => format!("packets of up to {largest} bytes pass"),
        (None, Some(next)) => format!("not even a packet of {next} bytes passes{told}"),
        (None, None) => return Ok(()),
    };
    writeln!(out, "{}", style.bold(&text))
}

#[cfg(test)]
mod tests {
    use super::duration;

    #[test]
    fn times_are_in_the_unit_that_reads_best() {
        assert_eq!(duration(38_400), "38 µs");
        assert_eq!(duration(1_240_000), "1.2 ms");
        assert_eq!(duration(2_000_000_000), "2.0 s");
    }
}

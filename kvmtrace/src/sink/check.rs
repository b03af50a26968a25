//! The text of `check`: what gets through, the incidents of the configuration, and what was looked at.

use super::escape::escape;
use super::incident;
use super::lines::{View, plural};
use super::reachability;
use super::style::Style;
use super::text::degraded;
use crate::diagnose::report::{Report, Severity};
use std::io::{self, Write};

/// Writes the report of the configuration.
pub fn report(report: &Report, view: View, out: &mut impl Write) -> io::Result<()> {
    reachability::table(report, view.style, out)?;
    for each in &report.incidents {
        incident::incident(report, each, view, out)?;
    }
    for finding in report.findings.iter().filter(|finding| finding.label.incident.is_none()) {
        incident::remark(finding, view, out)?;
    }
    degraded(report, view.style, out)?;
    summary(report, view.style, out)
}

fn summary(report: &Report, style: Style, out: &mut impl Write) -> io::Result<()> {
    let host = escape(&report.host.name);
    let interfaces: usize = report.guests.iter().map(|guest| guest.interfaces.len()).sum();
    let looked_at = if report.guests.is_empty() {
        format!("no guest runs on {host}")
    } else {
        format!("{}, {}", plural(report.guests.len() as u64, "guest"), plural(interfaces as u64, "interface"))
    };
    let of = |severity: Severity| report.findings.iter().filter(|finding| finding.severity == severity).count() as u64;
    let (errors, warnings) = (of(Severity::Error), of(Severity::Warning));
    if errors + warnings == 0 {
        let word = style.severity(Severity::Ok, "no fault found");
        writeln!(out, "{word} in the configuration of {host}: {looked_at}")?;
        if report.guests.is_empty() {
            return Ok(());
        }
        return writeln!(out, "where packets go missing all the same, trace them: kvmtrace verdict");
    }
    let counts = [(errors, "error"), (warnings, "warning")].into_iter().filter(|(count, _)| *count > 0);
    let counts: Vec<String> = counts.map(|(count, word)| plural(count, word)).collect();
    let word = style.severity(report.severity(), &counts.join(", "));
    writeln!(out, "{word} in the configuration of {host}: {looked_at}")
}

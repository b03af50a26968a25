//! The report for a person at three in the morning: the incidents first, the worst of them at the top; then what is well, in
//! few lines.

use super::escape::escape;
use super::incident;
pub use super::incident::prediction_words;
pub use super::lines::View;
use super::lines::{clip, flow_line, indented, plural};
use super::style::Style;
use crate::diagnose::report::{FlowReport, Incident, LostAt, Report, Severity};
use crate::event::Direction;
use std::io::{self, Write};

/// Healthy flows that are shown a line each; more are counted.
const HEALTHY: usize = 20;
/// Places of packets without flows that are shown a line each.
const LOST_PLACES: usize = 10;

/// Writes the report.
pub fn report(report: &Report, view: View, out: &mut impl Write) -> io::Result<()> {
    let style = view.style;
    for each in &report.incidents {
        incident::incident(report, each, view, out)?;
    }
    for finding in report.findings.iter().filter(|finding| finding.label.incident.is_none()) {
        incident::remark(finding, view, out)?;
    }
    let well: Vec<&FlowReport> = report.flows.iter().filter(|flow| flow.incident.is_none()).collect();
    flows(&well, view, out)?;
    degraded(report, style, out)?;
    let lost = report.lost;
    if lost.ring_events + lost.flows_evicted + lost.map_full > 0 {
        let text = format!(
            "incomplete: {} records, {} flows and {} packets could not be followed",
            lost.ring_events, lost.flows_evicted, lost.map_full
        );
        writeln!(out, "{}", style.severity(Severity::Warning, &text))?;
        lost_at(&report.lost_at, out)?;
    }
    if let Some(status) = report.command_status {
        writeln!(out, "the command ended with status {status}")?;
    }
    summary(report, style, out)
}

/// Where faults of the configuration are shown that no packet met.
pub fn further_faults(count: usize, out: &mut impl Write) -> io::Result<()> {
    if count == 0 {
        return Ok(());
    }
    writeln!(out, "check sees {} in the configuration: kvmtrace check", plural(count as u64, "further fault"))
}

/// Flows without a fault: a line each, or one for all of them.
fn flows(flows: &[&FlowReport], view: View, out: &mut impl Write) -> io::Result<()> {
    if flows.is_empty() {
        return Ok(());
    }
    let (info, quiet): (Vec<&FlowReport>, Vec<&FlowReport>) =
        flows.iter().copied().partition(|flow| flow.severity == Severity::Info);
    for flow in info.iter().take(if view.verbose { usize::MAX } else { HEALTHY }) {
        let cause = flow.cause.map_or("", crate::diagnose::report::Cause::id);
        let word = view.style.severity(Severity::Info, &format!("info    {cause}"));
        writeln!(out, "{}", clip(&view, &format!("{word}  {}", flow_line(flow))))?;
        if view.verbose {
            indented("        ", &flow.explanation, view.width, out)?;
        }
    }
    let ok = view.style.severity(Severity::Ok, "ok     ");
    if quiet.len() > HEALTHY && !view.verbose {
        let packets: u64 = quiet.iter().map(|flow| flow.packets).sum();
        let guests: std::collections::BTreeSet<&String> = quiet.iter().filter_map(|flow| flow.guest.as_ref()).collect();
        writeln!(
            out,
            "{ok} {} of {}, all delivered: {}; -v lists them",
            plural(quiet.len() as u64, "flow"),
            plural(guests.len() as u64, "guest"),
            plural(packets, "packet")
        )?;
        return writeln!(out);
    }
    for flow in quiet {
        let way: Vec<String> = flow.path.iter().map(|hop| escape(&hop.device)).collect();
        let way = if way.is_empty() { String::new() } else { format!("  {}", view.style.dim(&way.join(" → "))) };
        let complete = if flow.complete { "" } else { "  (incomplete)" };
        writeln!(out, "{}", clip(&view, &format!("{ok} {}{complete}{way}", flow_line(flow))))?;
    }
    writeln!(out)
}

/// Writes one incident of a report.
pub fn incident(report: &Report, incident: &Incident, view: View, out: &mut impl Write) -> io::Result<()> {
    incident::incident(report, incident, view, out)
}

/// Places at which packets were counted without their flows; most packets first.
fn lost_at(places: &[LostAt], out: &mut impl Write) -> io::Result<()> {
    let mut places: Vec<&LostAt> = places.iter().collect();
    places.sort_by_key(|place| std::cmp::Reverse(place.packets));
    for place in places.iter().take(LOST_PLACES) {
        let LostAt { guest, device, direction, reason, function, packets, .. } = place;
        let device = escape(device.as_deref().unwrap_or("no device"));
        let whose = guest.as_deref().map(|guest| format!(" of {}", escape(guest))).unwrap_or_default();
        let what = match direction {
            Some(Direction::Ingress) => "came in".to_owned(),
            Some(Direction::Egress) => "went out".to_owned(),
            None => {
                let function = function.as_deref().map(|name| format!(" in {name}")).unwrap_or_default();
                let reason = reason.as_deref().map(|name| format!(" ({name})")).unwrap_or_default();
                format!("were dropped{function}{reason}")
            }
        };
        writeln!(out, "  {packets} packets {what} at {device}{whose}, in more flows than could be listed")?;
    }
    let rest: u64 = places.iter().skip(LOST_PLACES).map(|place| place.packets).sum();
    if rest > 0 {
        writeln!(out, "  {rest} packets more at {} other places", places.len() - LOST_PLACES)?;
    }
    Ok(())
}

/// What could not be seen.
pub(super) fn degraded(report: &Report, style: Style, out: &mut impl Write) -> io::Result<()> {
    for degraded in &report.degraded {
        let word = style.severity(Severity::Warning, "degraded");
        writeln!(out, "{word} {}: {}", escape(&degraded.what), escape(&degraded.why))?;
    }
    Ok(())
}

fn summary(report: &Report, style: Style, out: &mut impl Write) -> io::Result<()> {
    let totals = report.totals;
    let state = if report.incidents.is_empty() {
        style.severity(Severity::Ok, "no fault found")
    } else {
        let faulty = report.flows.iter().filter(|flow| flow.incident.is_some()).count() as u64;
        let text = format!("{} with {}", plural(report.incidents.len() as u64, "incident"), plural(faulty, "flow"));
        style.severity(report.severity(), &text)
    };
    writeln!(
        out,
        "{state}: {}, {}, {} dropped, in {:.1} s on {}",
        plural(totals.flows, "flow"),
        plural(totals.packets, "packet"),
        totals.dropped,
        report.window.seconds,
        escape(&report.host.name)
    )
}

#[cfg(test)]
mod tests {
    // The text of made-up reports, as it is shown.
    use super::*;
    use crate::diagnose::report::{Fix, Outcome, Prediction};
    use crate::tui::fixture;

    /// A host on which web1 sends jumbo frames, as one incident.
    fn broken() -> Report {
        let mut report = fixture::mtu_report(60);
        let id = "00c0ffee00c0ffee".to_owned();
        report.flows.first_mut().unwrap().incident = Some(id.clone());
        report.findings.clear();
        report.incidents.truncate(1);
        let incident = report.incidents.first_mut().unwrap();
        incident.id = id;
        incident.fixes[0].scope = Some("eth0: MTU 9000, for all that it carries".to_owned());
        incident.fixes[0].prediction = Some(Prediction {
            outcome: Outcome::Restores,
            ..Prediction::unknown("these packets and their answers then pass this host".to_owned())
        });
        report
    }

    fn text(report: &Report, columns: u16, verbose: bool) -> String {
        let mut out = Vec::new();
        super::report(report, View::new(false, Some(columns), verbose), &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn an_incident_at_80_columns() {
        insta::assert_snapshot!(text(&broken(), 80, false));
    }

    #[test]
    fn an_incident_with_all_details() {
        insta::assert_snapshot!(text(&broken(), 100, true));
    }

    #[test]
    fn many_healthy_flows_are_one_line() {
        insta::assert_snapshot!(text(&fixture::many_report(200), 80, false));
    }

    #[test]
    fn a_next_step_that_is_no_command_is_no_fix() {
        let mut report = broken();
        report.incidents[0].fixes = vec![Fix::advice("Set the MTU of the guest's interface to 1500, in the guest.")];
        let text = text(&report, 80, false);
        assert!(text.contains("\n  next   Set the MTU") && !text.contains("\n  fix "), "{text}");
    }

    #[test]
    fn no_incident_is_longer_than_twelve_lines_or_wider_than_the_terminal() {
        let mut report = broken();
        let long = |what: &str| format!("{what} ").repeat(60);
        let incident = &mut report.incidents[0];
        incident.explanation = long("explanation");
        incident.evidence = (0..20).map(|number| long(&format!("fact {number}"))).collect();
        incident.fixes[0].scope = Some(long("scope"));
        incident.fixes[0].prediction.as_mut().unwrap().reason = long("reason");
        for columns in [60, 80, 100] {
            let text = text(&report, columns, false);
            let block: Vec<&str> = text.split("\n\n").next().unwrap().lines().collect();
            assert!(block.len() <= 12, "{text}");
            assert!(block.iter().all(|line| line.chars().count() <= usize::from(columns)), "{text}");
        }
    }
}

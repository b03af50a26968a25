//! One fault for a person at three in the morning: what, where, since when, who suffers, the evidence, the command with its
//! undo and its prediction. At most twelve lines, however many flows it has; `-v` shows the rest.

use super::escape::escape;
use super::lines::{View, clip, flow_line, indented, plural, wrapped};
use super::style::Style;
use crate::diagnose::report::{Finding, Fix, FlowReport, Incident, Outcome, Prediction, Report, Severity, Where};
use crate::event::Timestamp;
use std::io::{self, Write};

/// Lines of the explanation, and of what is left to do where there is no command.
const EXPLANATION: usize = 2;
const NEXT: usize = 3;
/// Facts that are shown.
const EVIDENCE: usize = 2;
/// Flows that `-v` lists.
const FLOWS: usize = 40;

/// Writes an incident of a report.
pub(super) fn incident(report: &Report, incident: &Incident, view: View, out: &mut impl Write) -> io::Result<()> {
    let place = incident.place.as_ref().map(|place| format!(" at {}", place_words(place))).unwrap_or_default();
    let word = format!("{} {}", marker(incident.severity), incident.cause.id());
    writeln!(out, "{}", clip(&view, &format!("{}{place}", view.style.severity(incident.severity, &word))))?;
    writeln!(out, "{}", clip(&view, &format!("  who    {}", who(incident))))?;
    writeln!(out, "{}", clip(&view, &format!("  since  {}", since(incident))))?;
    let host = &incident.origin.host;
    let several = !host.is_empty() && *host != report.host.name;
    body(&incident.explanation, &incident.evidence, &incident.fixes, several, view, out)?;
    if view.verbose {
        more(report, incident, view, out)?;
    }
    writeln!(out)
}

/// Writes a flow with its fault alone, as `probe` shows one.
pub(super) fn flow(flow: &FlowReport, view: View, out: &mut impl Write) -> io::Result<()> {
    let place = flow.place.as_ref().map(|place| format!(" at {}", place_words(place))).unwrap_or_default();
    let word = format!("{} {}", marker(flow.severity), flow.cause.map_or("", crate::diagnose::report::Cause::id));
    writeln!(out, "{}", clip(&view, &format!("{}{place}", view.style.severity(flow.severity, &word))))?;
    writeln!(out, "{}", clip(&view, &format!("  flow   {}", flow_line(flow))))?;
    body(&flow.explanation, &flow.evidence, &flow.fixes, false, view, out)?;
    writeln!(out)
}

fn body(
    explanation: &str,
    evidence: &[String],
    fixes: &[Fix],
    several: bool,
    view: View,
    out: &mut impl Write,
) -> io::Result<()> {
    label("what", explanation, EXPLANATION, view, out)?;
    // The packet and the counters are for `-v`.
    let is_telling = |line: &&String| {
        !line.starts_with("packet: ") && !line.starts_with("counted at ") && !line.starts_with("stack: ")
    };
    for (number, line) in evidence.iter().filter(is_telling).take(EVIDENCE).enumerate() {
        let name = if number == 0 { "seen" } else { "" };
        writeln!(out, "{}", view.style.dim(&clip(&view, &format!("  {name:<6} {}", escape(line)))))?;
    }
    let Some(first) = fixes.first() else { return Ok(()) };
    let Some(command) = &first.command else { return label("next", &first.why, NEXT, view, out) };
    // Of several hosts it is run on its own.
    if several {
        writeln!(out, "  on     {}", escape(&first.origin.host))?;
    }
    // A command is shown whole, on its own line, to be pasted.
    writeln!(out, "  fix    {}", view.style.command(&escape(command)))?;
    if let Some(undo) = &first.undo {
        writeln!(out, "  undo   {}", view.style.dim(&escape(undo)))?;
    }
    if let Some(scope) = &first.scope {
        writeln!(out, "{}", clip(&view, &format!("  scope  {}", escape(scope))))?;
    }
    match &first.prediction {
        Some(prediction) => label("model", &prediction_words(prediction), EXPLANATION, view, out),
        None => Ok(()),
    }
}

/// What `-v` adds: the flows, all evidence, the other fixes with their reasons and risks.
fn more(report: &Report, incident: &Incident, view: View, out: &mut impl Write) -> io::Result<()> {
    let flows: Vec<&FlowReport> =
        incident.flows.iter().filter_map(|id| report.flows.iter().find(|flow| flow.id == *id)).collect();
    for flow in flows.iter().take(FLOWS) {
        writeln!(out, "  flow   {}", flow_line(flow))?;
    }
    if flows.len() > FLOWS {
        writeln!(out, "  and {} more flows", flows.len() - FLOWS)?;
    }
    for line in &incident.evidence {
        writeln!(out, "  fact   {}", view.style.dim(&escape(line)))?;
    }
    for finding in report.findings.iter().filter(|finding| incident.findings.contains(&finding.label.id)) {
        indented("  found  ", &finding.explanation, view.width, out)?;
    }
    fixes_at_length(&incident.fixes, view, out)
}

/// Fixes at length, without the lines of an incident: for `explain`.
pub(super) fn fixes(fixes: &[Fix], width: usize, style: Style, out: &mut impl Write) -> io::Result<()> {
    let view = View { style, width, verbose: true };
    if let Some(Fix { command: Some(command), undo, prediction, .. }) = fixes.first() {
        writeln!(out, "  fix    {}", style.command(&escape(command)))?;
        if let Some(undo) = undo {
            writeln!(out, "  undo   {}", style.dim(&escape(undo)))?;
        }
        if let Some(prediction) = prediction {
            indented("  model  ", &prediction_words(prediction), width, out)?;
        }
    }
    fixes_at_length(fixes, view, out)
}

/// All fixes, each with why, risk and where to keep it.
pub(super) fn fixes_at_length(fixes: &[Fix], view: View, out: &mut impl Write) -> io::Result<()> {
    for (index, fix) in fixes.iter().enumerate() {
        let label = match (&fix.command, index) {
            (None, 0) => "next",
            (Some(_), 0) => "fix ",
            (_, _) => "or  ",
        };
        let Some(command) = &fix.command else {
            // "Or" stands before it already.
            indented(&format!("  {label}   "), fix.why.strip_prefix("Or ").unwrap_or(&fix.why), view.width, out)?;
            continue;
        };
        if index > 0 {
            writeln!(out, "  {label}   {}", view.style.command(&escape(command)))?;
            if let Some(undo) = &fix.undo {
                writeln!(out, "  undo   {}", view.style.dim(&escape(undo)))?;
            }
            if let Some(prediction) = &fix.prediction {
                indented("  model  ", &prediction_words(prediction), view.width, out)?;
            }
        }
        let risk = fix.risk.as_deref().map(|risk| format!(" Risk: {risk}")).unwrap_or_default();
        let persist = fix.persist.as_deref().map(|persist| format!(" To keep it: {persist}")).unwrap_or_default();
        indented("  why    ", &format!("{}{risk}{persist}", fix.why), view.width, out)?;
    }
    Ok(())
}

/// A finding that is no fault, in a line or two.
pub(super) fn remark(finding: &Finding, view: View, out: &mut impl Write) -> io::Result<()> {
    let guest = finding.guest.as_deref().map(|guest| format!("{}: ", escape(guest))).unwrap_or_default();
    let text = format!("{}  {guest}{}", finding.cause.id(), finding.explanation);
    indented("info    ", &text, view.width, out)?;
    if view.verbose {
        fixes_at_length(&finding.fixes, view, out)?;
    }
    Ok(())
}

fn label(name: &str, text: &str, lines: usize, view: View, out: &mut impl Write) -> io::Result<()> {
    let wrapped = wrapped(&format!("  {name:<6} "), text, view.width);
    let most = if view.verbose { usize::MAX } else { lines };
    for (number, line) in wrapped.iter().take(most).enumerate() {
        let cut = number + 1 == most && wrapped.len() > most;
        writeln!(out, "{}", if cut { clip(&view, &format!("{line} …")) } else { line.clone() })?;
    }
    Ok(())
}

/// `2 flows of web1 and web2, 64 packets lost`
fn who(incident: &Incident) -> String {
    let guests = match incident.guests.as_slice() {
        [] => "this host".to_owned(),
        guests if guests.len() <= 3 => {
            crate::diagnose::words::list(&guests.iter().map(|guest| escape(guest)).collect::<Vec<_>>())
        }
        guests => format!("{} guests", guests.len()),
    };
    if incident.flows.is_empty() {
        return format!("{guests}; no flow met it");
    }
    let flows = plural(incident.flows.len() as u64, "flow");
    format!("{flows} of {guests}, {} lost", plural(incident.packets, "packet"))
}

/// `15:28:13 to 15:28:17 UTC, incident 0123456789abcdef`
fn since(incident: &Incident) -> String {
    let clock = |time: Timestamp| time.to_string().get(11..19).unwrap_or_default().to_owned();
    format!("{} to {} UTC, incident {}", clock(incident.first_seen), clock(incident.last_seen), incident.id)
}

fn place_words(place: &Where) -> String {
    let point = super::id(place.point);
    let device = place.device.as_deref().map(|device| format!("{}, ", escape(device))).unwrap_or_default();
    let function = place.function.as_deref().map(|function| format!(", in {}", escape(function))).unwrap_or_default();
    format!("{device}{point}{function}")
}

pub(super) fn marker(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok     ",
        Severity::Info => "info   ",
        Severity::Warning => "WARNING",
        Severity::Error => "ERROR  ",
    }
}

/// The expectation of the model, in a sentence.
pub fn prediction_words(prediction: &Prediction) -> String {
    let expected = match prediction.outcome {
        Outcome::Restores => format!("predicted to work: {}.", prediction.reason),
        Outcome::NextObstacle => format!("predicted to meet the next obstacle: {}.", prediction.reason),
        Outcome::Unknown => format!("not predictable, because {}.", prediction.reason),
    };
    let opens = prediction.opens.as_ref().map(|opens| format!(" Opens also: {opens}.")).unwrap_or_default();
    let breaks = match prediction.breaks.len() {
        0 => String::new(),
        count => format!(" Breaks {count} of the flows that were delivered."),
    };
    expected + &opens + &breaks
}

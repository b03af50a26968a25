//! The report for a person at three in the morning: the faults first, each with where, why and what to paste; then what
//! is well, in few lines.

use super::escape::escape;
use super::style::Style;
use crate::diagnose::notice::Notice;
use crate::diagnose::report::{
    Finding, Fix, FlowReport, Hop, LostAt, Outcome, Prediction, Report, Severity, Verdict, Where,
};
use crate::event::Direction;
use std::io::{self, Write};

/// Flows without a fault that are shown a line each; the rest is counted.
const HEALTHY: usize = 12;
/// Places of packets without flows that are shown a line each.
const LOST_PLACES: usize = 10;
/// Columns that a paragraph fills.
const WIDTH: usize = 100;

/// Writes the report.
pub fn report(report: &Report, color: bool, out: &mut impl Write) -> io::Result<()> {
    let style = Style { color };
    let (faults, well): (Vec<&FlowReport>, Vec<&FlowReport>) =
        report.flows.iter().partition(|flow| flow.severity >= Severity::Warning);
    let groups = grouped(&faults);
    for group in &groups {
        let Some((first, others)) = group.split_first() else { continue };
        fault(first, others, style, out)?;
    }
    for finding in &report.findings {
        self::finding(finding, &[], style, out)?;
    }
    let (told, quiet): (Vec<&FlowReport>, Vec<&FlowReport>) =
        well.into_iter().partition(|flow| flow.severity == Severity::Info);
    for flow in &told {
        headline(flow, style, out)?;
        paragraph(&flow.explanation, out)?;
        writeln!(out)?;
    }
    healthy(&quiet, style, out)?;
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
    summary(report, faults.len(), style, out)
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

/// Faults of one cause at one place are told once.
fn grouped<'a>(faults: &[&'a FlowReport]) -> Vec<Vec<&'a FlowReport>> {
    let mut groups: Vec<Vec<&FlowReport>> = Vec::new();
    for flow in faults {
        let same = |other: &&FlowReport| {
            let device = |flow: &FlowReport| flow.place.as_ref().map(|place| (place.device.clone(), place.point));
            other.cause == flow.cause && device(other) == device(flow)
        };
        match groups.iter_mut().find(|group| group.first().is_some_and(same)) {
            Some(group) => group.push(flow),
            None => groups.push(vec![flow]),
        }
    }
    groups
}

pub(super) fn fault(flow: &FlowReport, others: &[&FlowReport], style: Style, out: &mut impl Write) -> io::Result<()> {
    headline(flow, style, out)?;
    path(&flow.path, flow.place.as_ref(), style, out)?;
    paragraph(&flow.explanation, out)?;
    place(flow.place.as_ref(), style, out)?;
    for line in flow.evidence.iter().filter(|line| !line.starts_with("packet: ") && !line.starts_with("counted at ")) {
        writeln!(out, "  {}", style.dim(&clip(&escape(line))))?;
    }
    for other in others.iter().take(4) {
        writeln!(out, "  also {}", line(other))?;
    }
    if others.len() > 4 {
        writeln!(out, "  and {} more flows", others.len() - 4)?;
    }
    fixes(&flow.fixes, WIDTH, style, out)?;
    writeln!(out)
}

/// A finding, and what else is found so.
pub(super) fn finding(finding: &Finding, others: &[&Finding], style: Style, out: &mut impl Write) -> io::Result<()> {
    let guest = finding.guest.as_deref().map(|guest| format!("  {}", escape(guest))).unwrap_or_default();
    let word = format!("{} {}", marker(finding.severity), finding.cause.id());
    writeln!(out, "{}{guest}", style.severity(finding.severity, &word))?;
    paragraph(&finding.explanation, out)?;
    place(finding.place.as_ref(), style, out)?;
    for line in &finding.evidence {
        writeln!(out, "  {}", style.dim(&clip(&escape(line))))?;
    }
    for other in others.iter().take(4) {
        let guest = other.guest.as_deref().map(escape).unwrap_or_default();
        let fact = other.evidence.first().map(|fact| format!("  {}", clip(&escape(fact)))).unwrap_or_default();
        writeln!(out, "  also {guest}{}", style.dim(&fact))?;
    }
    if others.len() > 4 {
        writeln!(out, "  and {} more", others.len() - 4)?;
    }
    fixes(&finding.fixes, WIDTH, style, out)?;
    writeln!(out)
}

fn marker(severity: Severity) -> &'static str {
    match severity {
        Severity::Ok => "ok     ",
        Severity::Info => "info   ",
        Severity::Warning => "WARNING",
        Severity::Error => "ERROR  ",
    }
}

fn headline(flow: &FlowReport, style: Style, out: &mut impl Write) -> io::Result<()> {
    let word = format!("{} {}", marker(flow.severity), flow.cause.map_or("", crate::diagnose::report::Cause::id));
    let complete = if flow.complete { "" } else { "  (incomplete)" };
    writeln!(out, "{}  {}{complete}", style.severity(flow.severity, &word), line(flow))
}

/// `web1  udp 10.0.0.1:4 → 10.0.0.2:5  dropped 12 of 12`
fn line(flow: &FlowReport) -> String {
    let end = |address: &str, port: Option<u16>| match port {
        Some(port) if address.contains(':') => format!("[{address}]:{port}"),
        Some(port) => format!("{address}:{port}"),
        None => address.to_owned(),
    };
    let nat = flow.translated.as_ref().map(|translated| {
        format!(
            " (as {} → {})",
            end(&translated.source, translated.source_port),
            end(&translated.destination, translated.destination_port)
        )
    });
    let vlan = flow.vlan.map(|vlan| format!(" vlan {vlan}")).unwrap_or_default();
    let guest = flow.guest.as_deref().map(|guest| format!("{}  ", escape(guest))).unwrap_or_default();
    let fate = match flow.verdict {
        Verdict::Dropped => format!("dropped {} of {}", flow.dropped, flow.packets),
        Verdict::Delivered => format!("delivered {}", flow.packets),
        Verdict::Fragmented => format!("{} packets in {} fragments", flow.packets, flow.fragments),
        Verdict::Unanswered => format!("unanswered, {} sent", flow.packets),
        Verdict::Refused => format!("refused, {} sent", flow.packets),
        Verdict::Lost => format!("lost, {} sent", flow.packets),
    };
    let probe = if flow.probe { " (probe)" } else { "" };
    format!(
        "{guest}{} {} → {}{vlan}{}  {fate}{probe}",
        escape(&flow.protocol),
        end(&flow.source, flow.source_port),
        end(&flow.destination, flow.destination_port),
        nat.unwrap_or_default()
    )
}

fn path(hops: &[Hop], place: Option<&Where>, style: Style, out: &mut impl Write) -> io::Result<()> {
    if hops.is_empty() {
        return Ok(());
    }
    let mut parts: Vec<String> = hops
        .iter()
        .map(|hop| {
            let arrow = if hop.direction == Direction::Ingress { "in" } else { "out" };
            format!("{} {arrow} {}", escape(&hop.device), hop.packets)
        })
        .collect();
    if let Some(device) = place.and_then(|place| place.device.as_deref())
        && place.is_some_and(|place| place.function.is_some())
    {
        parts.push(format!("✗ at {}", escape(device)));
    }
    writeln!(out, "  path   {}", style.bold(&parts.join(" → ")))
}

fn place(place: Option<&Where>, style: Style, out: &mut impl Write) -> io::Result<()> {
    let Some(place) = place else { return Ok(()) };
    let point = super::id(place.point);
    let device = place.device.as_deref().map(|device| format!("{}, ", escape(device))).unwrap_or_default();
    let function = place.function.as_deref().map(|function| format!(", in {}", escape(function))).unwrap_or_default();
    let reason = place.reason.as_deref().map(|reason| format!(" ({})", escape(reason))).unwrap_or_default();
    writeln!(out, "  where  {}", style.bold(&format!("{device}{point}{function}{reason}")))
}

/// The expectation of the model, in a sentence.
fn prediction_words(prediction: &Prediction) -> String {
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

/// Commands, each on a line of its own to be pasted, with their undo; of the first also why, risk and where to keep it.
pub(super) fn fixes(fixes: &[Fix], width: usize, style: Style, out: &mut impl Write) -> io::Result<()> {
    for (index, fix) in fixes.iter().enumerate() {
        let label = if index == 0 { "fix " } else { "or  " };
        match &fix.command {
            Some(command) => {
                // A command is shown whole, on its own line, to be pasted.
                writeln!(out, "  {label}   {}", style.command(&escape(command)))?;
                if let Some(undo) = &fix.undo {
                    writeln!(out, "  undo   {}", style.dim(&escape(undo)))?;
                }
                if let Some(prediction) = &fix.prediction {
                    indented("  model  ", &prediction_words(prediction), width, out)?;
                }
                if index == 0 {
                    let risk = fix.risk.as_deref().map(|risk| format!(" Risk: {risk}")).unwrap_or_default();
                    let persist =
                        fix.persist.as_deref().map(|persist| format!(" To keep it: {persist}")).unwrap_or_default();
                    indented("         ", &format!("{}{risk}{persist}", fix.why), width, out)?;
                }
            }
            // "Or" stands before it already.
            None => indented(&format!("  {label}   "), fix.why.strip_prefix("Or ").unwrap_or(&fix.why), width, out)?,
        }
    }
    Ok(())
}

fn healthy(flows: &[&FlowReport], style: Style, out: &mut impl Write) -> io::Result<()> {
    if flows.is_empty() {
        return Ok(());
    }
    for flow in flows.iter().take(HEALTHY) {
        let way: Vec<String> = flow.path.iter().map(|hop| escape(&hop.device)).collect();
        let way = if way.is_empty() { String::new() } else { format!("  {}", style.dim(&way.join(" → "))) };
        let complete = if flow.complete { "" } else { "  (incomplete)" };
        writeln!(out, "{}  {}{way}{complete}", style.severity(Severity::Ok, "ok     "), line(flow))?;
    }
    if flows.len() > HEALTHY {
        let rest = flows.iter().skip(HEALTHY);
        let packets: u64 = rest.map(|flow| flow.packets).sum();
        writeln!(
            out,
            "{}  and {} more flows in order, {packets} packets",
            style.severity(Severity::Ok, "ok     "),
            flows.len() - HEALTHY
        )?;
    }
    writeln!(out)
}

/// `1 flow`, `2 flows`
pub(super) fn plural(count: u64, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn summary(report: &Report, faults: usize, style: Style, out: &mut impl Write) -> io::Result<()> {
    let totals = report.totals;
    let state = if faults == 0 && report.severity() < Severity::Warning {
        style.severity(Severity::Ok, "no fault found")
    } else {
        style.severity(
            report.severity(),
            &format!(
                "{} with a fault, {}",
                plural(faults as u64, "flow"),
                plural(report.findings.len() as u64, "finding")
            ),
        )
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

/// Writes a notice as one line.
pub fn notice(notice: &Notice, color: bool, out: &mut impl Write) -> io::Result<()> {
    let style = Style { color };
    let time = notice.time.to_string();
    let clock = time.get(11..23).unwrap_or(&time);
    let guest = notice.guest.as_deref().map(|guest| format!("{}  ", escape(guest))).unwrap_or_default();
    let kind =
        serde_json::to_value(notice.kind).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let cause = notice.cause.map_or(kind, |cause| cause.id().to_owned());
    let severity = if notice.cause.is_some() { Severity::Error } else { Severity::Info };
    writeln!(
        out,
        "{}  {}  {guest}{}  {}",
        style.dim(clock),
        style.severity(severity, &cause),
        escape(&notice.flow),
        escape(&notice.text)
    )
}

fn paragraph(text: &str, out: &mut impl Write) -> io::Result<()> {
    indented("  ", text, WIDTH, out)
}

/// Words in lines of at most `columns` columns; lines after the first are set in by as much as the label is wide.
pub(super) fn indented(label: &str, text: &str, columns: usize, out: &mut impl Write) -> io::Result<()> {
    let width = |text: &str| unicode_width::UnicodeWidthStr::width(text);
    let indent = " ".repeat(width(label));
    let mut line = label.to_owned();
    let mut empty = true;
    for word in escape(text).split_whitespace() {
        if !empty && width(&line) + 1 + width(word) > columns {
            writeln!(out, "{line}")?;
            line.clone_from(&indent);
            empty = true;
        }
        if !empty {
            line.push(' ');
        }
        line.push_str(word);
        empty = false;
    }
    writeln!(out, "{line}")
}

fn clip(text: &str) -> String {
    if text.chars().count() <= WIDTH + 20 {
        return text.to_owned();
    }
    let cut: String = text.chars().take(WIDTH + 19).collect();
    format!("{cut}…")
}

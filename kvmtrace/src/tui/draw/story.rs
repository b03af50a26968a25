//! What is wrong, in sentences: explanation, evidence, fixes.

use super::super::snapshot::FaultText;
use super::super::text;
use super::super::theme::{self, Theme};
use crate::diagnose::report::{Cause, Fix, FlowReport, Point, Severity, Where};
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// A line across, with what is below it.
pub(super) fn rule(title: &str, width: u16, theme: Theme) -> Line<'static> {
    let width = usize::from(width);
    if title.is_empty() {
        return Line::styled("─".repeat(width), theme.faint());
    }
    let title = text::cut(title, width.saturating_sub(6));
    let rest = width.saturating_sub(title.chars().count() + 4);
    Line::from(vec![
        Span::styled("── ", theme.faint()),
        Span::styled(title, theme.accent()),
        Span::styled(format!(" {}", "─".repeat(rest)), theme.faint()),
    ])
}

/// A fault in as few lines as it takes: why, what, and the first command that mends it.
pub(super) fn in_brief(
    fault: FaultText<'_>,
    cause: Option<Cause>,
    severity: Severity,
    width: u16,
    theme: Theme,
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let style = theme.severity(severity);
    let title = format!(" {} {}", theme::mark(severity), cause.map_or("dropped", Cause::id));
    let room = usize::from(width).saturating_sub(title.chars().count() + 1);
    // The point gives way: reason and function tell as much.
    let place = fault.place.map(|place| {
        let long = format!("  at {}", place_text(place, true));
        if long.chars().count() > room { format!("  at {}", place_text(place, false)) } else { long }
    });
    let place = place.unwrap_or_default();
    lines.push(Line::from(vec![Span::styled(title, style), Span::styled(text::cut(&place, room), theme.faint())]));
    paragraph(&mut lines, "   ", fault.explanation, width, Style::new());
    if let Some(command) = fault.fixes.first().and_then(|fix| fix.command.as_ref()) {
        const HINT: &str = "   y copies it";
        paragraph(&mut lines, "   $ ", command, width, theme.severity(Severity::Ok));
        if let Some(last) = lines.last_mut().filter(|last| last.width() + HINT.len() < usize::from(width)) {
            last.push_span(Span::styled(HINT, theme.faint()));
        }
    } else if let Some(fix) = fault.fixes.first() {
        paragraph(&mut lines, "   next ", &fix.why, width, Style::new());
    }
    lines
}

/// A fault with all that is known of it. `fix` is the one that `y` copies.
pub(super) fn of_fault(
    fault: FaultText<'_>,
    cause: Option<Cause>,
    severity: Severity,
    width: u16,
    theme: Theme,
    fix: Option<usize>,
) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    let mut title = format!(" {} {}", theme::mark(severity), cause.map_or("dropped", Cause::id));
    if let Some(guest) = fault.guest {
        title = format!("{title}  guest {}", text::cut(guest, 32));
    }
    lines.push(Line::styled(title, theme.severity(severity)));
    if let Some(place) = fault.place {
        paragraph(&mut lines, "   at ", &place_text(place, true), width, Style::new());
    }
    paragraph(&mut lines, "   ", fault.explanation, width, Style::new());
    for (index, cure) in fault.fixes.iter().enumerate() {
        let chosen = fix == Some(index);
        let number =
            if fault.fixes.len() > 1 { format!(" {} of {}", index + 1, fault.fixes.len()) } else { String::new() };
        let hint = if chosen && cure.command.is_some() { "   y copies the command, u the undo" } else { "" };
        let marker = if chosen { "▸" } else { " " };
        // What is no command is a step for people.
        let word = if cure.command.is_some() { "fix" } else { "next" };
        lines.push(Line::from(vec![
            Span::styled(format!(" {marker} {word}{number}"), theme.accent()),
            Span::styled(hint, theme.faint()),
        ]));
        cure_lines(&mut lines, cure, width, theme);
    }
    if !fault.evidence.is_empty() {
        lines.push(Line::styled("   evidence", theme.accent()));
    }
    for fact in fault.evidence {
        paragraph(&mut lines, "   · ", fact, width, theme.faint());
    }
    lines
}

/// That a flow is in order, and how.
pub(super) fn of_flow_in_order(flow: &FlowReport, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = vec![Line::styled(
        format!(" {} {}", theme::mark(flow.severity), theme::verdict(flow.verdict)),
        theme.severity(flow.severity),
    )];
    paragraph(&mut lines, "   ", &flow.explanation, width, Style::new());
    lines
}

/// A flow's fault, or that there is none.
pub(super) fn of_flow(flow: &FlowReport, width: u16, theme: Theme, fix: Option<usize>) -> Vec<Line<'static>> {
    let mut lines = if flow.severity == Severity::Ok {
        of_flow_in_order(flow, width, theme)
    } else {
        let said = FaultText {
            guest: flow.guest.as_deref(),
            place: flow.place.as_ref(),
            explanation: &flow.explanation,
            evidence: &flow.evidence,
            fixes: &flow.fixes,
        };
        of_fault(said, flow.cause, flow.severity, width, theme, fix)
    };
    if let Some(translated) = &flow.translated {
        let source = text::end_point(&translated.source, translated.source_port);
        let destination = text::end_point(&translated.destination, translated.destination_port);
        paragraph(&mut lines, "   · ", &format!("after NAT: {source} → {destination}"), width, theme.faint());
    }
    if !flow.complete {
        paragraph(
            &mut lines,
            "   ? ",
            "incomplete: events were lost, or an answer may still come",
            width,
            theme.severity(Severity::Warning),
        );
    }
    lines
}

fn cure_lines(lines: &mut Vec<Line<'static>>, fix: &Fix, width: u16, theme: Theme) {
    if let Some(command) = &fix.command {
        paragraph(lines, "   $ ", command, width, theme.severity(Severity::Ok));
    }
    paragraph(lines, "   why   ", &fix.why, width, Style::new());
    for (label, value) in [("   risk  ", &fix.risk), ("   undo  ", &fix.undo), ("   keep  ", &fix.persist)] {
        if let Some(value) = value {
            paragraph(lines, label, value, width, Style::new());
        }
    }
}

/// Text behind a label, its further lines indented.
pub(super) fn paragraph(lines: &mut Vec<Line<'static>>, label: &'static str, value: &str, width: u16, style: Style) {
    if value.is_empty() {
        return;
    }
    let indent = label.chars().count();
    for (index, line) in text::wrap(value, usize::from(width).saturating_sub(indent + 1)).into_iter().enumerate() {
        let before = if index == 0 { Span::raw(label) } else { Span::raw(" ".repeat(indent)) };
        lines.push(Line::from(vec![before, Span::styled(line, style)]));
    }
}

/// `eth0, bridge-egress (NOT_SPECIFIED in br_dev_queue_push_xmit)`
fn place_text(place: &Where, with_point: bool) -> String {
    let mut result = match &place.device {
        Some(device) if with_point => format!("{device}, {}", point(place.point)),
        Some(device) => device.clone(),
        None => point(place.point),
    };
    match (&place.reason, &place.function) {
        (Some(reason), Some(function)) => result = format!("{result} ({reason} in {function})"),
        (Some(one), None) | (None, Some(one)) => result = format!("{result} ({one})"),
        (None, None) => {}
    }
    result
}

/// The contract's name of a point, which serde knows.
fn point(point: Point) -> String {
    serde_json::to_value(point).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

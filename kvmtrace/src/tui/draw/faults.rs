//! The faults: a list, and below it the selected one with its evidence and cures.

use super::super::fault::Fault;
use super::super::snapshot::Snapshot;
use super::super::state::State;
use super::super::theme::{self, Theme};
use super::super::{layout, path, text};
use super::table::{self, Column, Order, numbers, words};
use super::{path as picture, story};
use crate::diagnose::report::{Cause, Severity};
use crate::diagnose::words::counted;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let columns = columns(area.width);
    let list = &state.faults;
    // The worst first, always.
    let order = Order { title: "CAUSE", by: "worst", rising: false };
    let mut lines = vec![table::heading(&columns, order, theme)];
    let snapshot = state.snapshot();
    lines.extend(table::listed(list, area, |item, selected| {
        table::row(&columns, cells(snapshot, &snapshot.faults[item], theme), selected, theme)
    }));
    if list.is_empty() && list.filter.is_empty() {
        lines.push(Line::raw(""));
        lines.push(Line::styled(
            format!("  {} no fault found so far", theme::mark(Severity::Ok)),
            theme.severity(Severity::Ok),
        ));
        let guests = counted(snapshot.guests.len() as u64, "guest");
        let flows = counted(snapshot.flows.len() as u64, "flow");
        let watched = text::elapsed(snapshot.seconds());
        lines.push(Line::styled(format!("    {guests} and {flows}, watched for {watched}"), theme.faint()));
    } else if list.is_empty() {
        lines.extend(table::empty("no incident matches the filter", theme));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn columns(width: u16) -> Vec<Column> {
    let guest = if width >= 120 { 20 } else { 12 };
    let mut columns = vec![
        words("", 1),
        words("CAUSE", 23),
        words("GUEST", guest),
        words("DEVICE", 15),
        numbers("FLOWS", 5),
        numbers("LOST", 6),
        numbers("FOR", 6),
    ];
    let rest = table::rest(&columns, width).saturating_sub(1);
    if rest >= 20 {
        columns.push(words("WHAT", rest));
    }
    columns
}

/// How long an incident has lasted.
fn lasts(snapshot: &Snapshot, fault: &Fault) -> String {
    fault.since.map(|since| text::elapsed(snapshot.now.since(since).0 / 1_000_000_000)).unwrap_or_default()
}

/// The incidents in a few lines, those of one guest first.
pub(super) fn in_brief(snapshot: &Snapshot, guest: &str, width: u16, rows: usize, theme: Theme) -> Vec<Line<'static>> {
    let grave = || snapshot.faults.iter().filter(|fault| fault.severity >= Severity::Warning);
    let of_guest = |fault: &&Fault| fault.guests.iter().any(|name| name == guest);
    let ordered = grave().filter(of_guest).chain(grave().filter(|fault| !of_guest(fault)));
    let columns = columns(width);
    let all = grave().count();
    let shown = if all > rows { rows.saturating_sub(1) } else { all };
    let mut lines: Vec<Line<'static>> =
        ordered.take(shown).map(|fault| table::row(&columns, cells(snapshot, fault, theme), false, theme)).collect();
    if all > shown {
        lines.push(Line::styled(format!("    {} more: 4", counted((all - shown) as u64, "incident")), theme.faint()));
    }
    lines
}

fn cells(snapshot: &Snapshot, fault: &Fault, theme: Theme) -> Vec<(String, Style)> {
    let said = snapshot.fault_text(fault);
    let style = theme.severity(fault.severity);
    vec![
        (theme::mark(fault.severity).to_owned(), style),
        (fault.cause.map_or("dropped", Cause::id).to_owned(), style),
        (fault.who.clone(), Style::new()),
        (said.place.and_then(|place| place.device.clone()).unwrap_or_default(), Style::new()),
        table::count(fault.flows, text::number, Style::new(), theme),
        table::count(fault.count, text::number, Style::new(), theme),
        (lasts(snapshot, fault), Style::new()),
        (said.explanation.to_owned(), Style::new()),
    ]
}

pub(super) fn detail(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let mut lines = Vec::new();
    let wide = layout::is_wide(state.size.0);
    if let Some(fault) = state.faults.current().and_then(|index| snapshot.faults.get(index)) {
        // Beside the list there is room for the path of the flow that suffers most.
        let flow = snapshot.flow_of(fault).and_then(|index| snapshot.report.flows.get(index)).filter(|_| wide);
        if let Some(flow) = flow {
            let way = path::of_flow(&snapshot.report, &snapshot.devices, flow);
            lines.push(Line::styled(format!(" {}", text::cut(&way.title, usize::from(width) - 2)), theme.accent()));
            lines.extend(picture::picture(&way, width, theme));
        }
        lines.extend(story::of_fault(
            snapshot.fault_text(fault),
            fault.cause,
            fault.severity,
            width,
            theme,
            Some(state.fix),
        ));
    }
    if !(wide || lines.is_empty() && snapshot.report.degraded.is_empty()) {
        lines.insert(0, story::rule("", width, theme));
    }
    for degraded in &snapshot.report.degraded {
        let text = format!("{}: {}", degraded.what, degraded.why);
        story::paragraph(&mut lines, " degraded: ", &text, width, theme.severity(Severity::Warning));
    }
    lines
}

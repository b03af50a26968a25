//! The stream of events, and one of them in detail.

use super::super::log::{LogEntry, LogKind};
use super::super::state::State;
use super::super::text;
use super::super::theme::Theme;
use super::table::{self, Column, Order, words};
use super::{packet, story};
use crate::diagnose::report::Severity;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;
use std::sync::Arc;

/// From this width on there is room for milliseconds.
const WIDE: u16 = 100;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let snapshot = state.snapshot();
    let columns = columns(area.width, &snapshot.events);
    let list = &state.events;
    let mut lines = vec![table::heading(&columns, Order { title: columns[0].title, by: "", rising: true }, theme)];
    lines.extend(table::listed(list, area, |item, selected| {
        table::row(&columns, cells(&snapshot.events[item], area.width, theme), selected, theme)
    }));
    if list.is_empty() {
        let filtered = !list.filter.is_empty();
        lines.extend(table::empty(
            if filtered {
                "no event matches the filter"
            } else {
                "nothing has happened yet: drops and first packets appear here"
            },
            theme,
        ));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// Columns that tell why and where a packet died: most reasons with their functions fit, before the flow.
const WHAT: usize = 40;

/// What is told gets its room first, then the device's name, then the guest's: the line below the list tells all of the
/// selected event.
fn columns(width: u16, events: &[Arc<LogEntry>]) -> Vec<Column> {
    let wide = width >= WIDE;
    let mut columns =
        vec![words(if wide { "TIME (UTC)" } else { "TIME" }, if wide { 12 } else { 8 }), words("EVENT", 8)];
    let longest = |text: fn(&LogEntry) -> &str, least: usize, most: usize| {
        let columns = |entry: &Arc<LogEntry>| text(entry).chars().take(most).count();
        events.iter().map(columns).max().unwrap_or(0).clamp(least, most)
    };
    let device = longest(|entry| &entry.device, 8, 15);
    let guest = longest(|entry| entry.guest.as_deref().unwrap_or(""), 8, 20);
    // Two columns more to come, and the gap between them.
    let room = usize::from(table::rest(&columns, width)).saturating_sub(2);
    let guest = guest.min(room.saturating_sub(device + WHAT)).max(5);
    columns.extend([words("GUEST", guest as u16), words("DEVICE", device as u16)]);
    columns.push(words("WHAT", table::rest(&columns, width)));
    columns
}

fn style(kind: LogKind, theme: Theme) -> Style {
    match kind {
        LogKind::Drop => theme.severity(Severity::Error),
        LogKind::Incident | LogKind::IcmpError | LogKind::MacChanged | LogKind::Loss | LogKind::Degraded => {
            theme.severity(Severity::Warning)
        }
        LogKind::Host => theme.severity(Severity::Info),
        LogKind::First | LogKind::Packet | LogKind::Trace => Style::new(),
    }
}

fn cells(entry: &LogEntry, width: u16, theme: Theme) -> Vec<(String, Style)> {
    let time = text::time_of_day(entry.time);
    let time = if width >= WIDE { time } else { time.chars().take(8).collect() };
    vec![
        (time, Style::new()),
        (entry.kind.word().to_owned(), style(entry.kind, theme)),
        (entry.guest.clone().unwrap_or_default(), Style::new()),
        (entry.device.clone(), Style::new()),
        (entry.line(), Style::new()),
    ]
}

pub(super) fn detail(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let mut lines = vec![story::rule("", width, theme)];
    let Some(entry) = state.events.current().and_then(|index| snapshot.events.get(index)) else { return lines };
    let mut title = format!("{}  {}", entry.time, entry.kind.word());
    for (label, value) in [("guest", entry.guest.as_deref().unwrap_or("")), ("device", entry.device.as_str())] {
        if !value.is_empty() {
            title = format!("{title}  {label} {value}");
        }
    }
    story::paragraph(&mut lines, " ", &title, width, style(entry.kind, theme));
    match &entry.packet {
        Some(record) if state.open => {
            for (label, value) in packet::describe(record) {
                story::paragraph(&mut lines, label, &value, width, Style::new());
            }
        }
        _ => story::paragraph(&mut lines, "   ", &entry.line(), width, Style::new()),
    }
    lines
}

//! The stream of events, and one of them in detail.

use super::super::log::{LogEntry, LogKind};
use super::super::state::State;
use super::super::theme::Theme;
use super::super::{layout, text};
use super::table::{self, Column, words};
use super::{packet, story};
use crate::diagnose::report::Severity;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let columns = columns(area.width);
    let list = &state.events;
    let mut lines = vec![table::heading(&columns, None, theme)];
    let height = usize::from(layout::rows(area).height);
    let snapshot = state.snapshot();
    for (index, row) in list.rows.iter().enumerate().skip(list.offset).take(height) {
        let entry = &snapshot.events[*row as usize];
        lines.push(table::row(&columns, cells(entry, theme), index == list.selected, theme));
    }
    if list.rows.is_empty() {
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

fn columns(width: u16) -> Vec<Column> {
    let wide = width >= 120;
    let (guest, device) = if wide { (16, 15) } else { (8, 8) };
    let mut columns = vec![words("TIME (UTC)", 12), words("EVENT", 10), words("GUEST", guest), words("DEVICE", device)];
    columns.push(words("WHAT", table::rest(&columns, width).saturating_sub(1)));
    columns
}

fn style(kind: LogKind, theme: Theme) -> Style {
    match kind {
        LogKind::Drop => theme.severity(Severity::Error),
        LogKind::IcmpError | LogKind::MacChanged | LogKind::Loss | LogKind::Degraded => {
            theme.severity(Severity::Warning)
        }
        LogKind::Host => theme.severity(Severity::Info),
        LogKind::First | LogKind::Packet | LogKind::Trace => Style::new(),
    }
}

fn cells(entry: &LogEntry, theme: Theme) -> Vec<(String, Style)> {
    vec![
        (text::time_of_day(entry.time), Style::new()),
        (entry.kind.word().to_owned(), style(entry.kind, theme)),
        (entry.guest.clone().unwrap_or_default(), Style::new()),
        (entry.device.clone(), Style::new()),
        (entry.text.clone(), Style::new()),
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
        None => story::paragraph(&mut lines, "   ", &entry.text, width, Style::new()),
        Some(record) => {
            for (label, value) in packet::describe(record) {
                story::paragraph(&mut lines, label, &value, width, Style::new());
            }
        }
    }
    lines
}

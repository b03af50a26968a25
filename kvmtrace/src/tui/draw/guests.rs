//! The guests: path, rates with their past, drops, fragments, what is worst.

use super::super::snapshot::GuestFacts;
use super::super::state::State;
use super::super::theme::{self, Theme};
use super::super::{layout, text};
use super::table::{self, Column, numbers, words};
use crate::diagnose::report::{Cause, GuestReport, Severity};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::Paragraph;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let columns = columns(area.width);
    let list = &state.guests;
    let mut lines = vec![table::heading(&columns, theme)];
    let height = usize::from(layout::rows(area).height);
    let snapshot = state.snapshot();
    for (index, row) in list.rows.iter().enumerate().skip(list.offset).take(height) {
        let facts = &snapshot.guests[*row as usize];
        let guest = &snapshot.report.guests[facts.index];
        lines.push(table::row(&columns, cells(&columns, guest, facts, theme), index == list.selected, theme));
    }
    if list.rows.is_empty() {
        let filtered = !list.filter.is_empty();
        lines.extend(table::empty(
            if filtered { "no guest matches the filter" } else { "no guest seen on this host yet" },
            theme,
        ));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

fn columns(width: u16) -> Vec<Column> {
    let wide = width.saturating_sub(80);
    let mut columns = vec![
        words("", 1),
        words("GUEST", 11 + (wide / 8).min(16)),
        words("PATH", 15 + (wide / 4).min(26)),
        numbers("PKT/S", 5),
        words("", 6 + (wide / 8).min(14)),
        numbers("BIT/S", 5),
    ];
    if wide >= 20 {
        columns.push(words("", 6 + (wide / 8).min(14)));
    }
    columns.extend([numbers("DROPS", 5), numbers("FRAGS", 5)]);
    columns.push(words("WORST", table::rest(&columns, width).saturating_sub(1)));
    columns
}

fn cells(columns: &[Column], guest: &GuestReport, facts: &GuestFacts, theme: Theme) -> Vec<(String, Style)> {
    let style = theme.severity(facts.severity);
    let history = &facts.history;
    let worst = match (facts.severity, facts.cause) {
        (_, Some(cause)) => cause.id(),
        (Severity::Ok, None) if facts.flows == 0 => "quiet",
        (Severity::Ok, None) => "delivered",
        (_, None) => Cause::Unclassified.id(),
    };
    let alarm = if facts.dropped > 0 { theme.severity(Severity::Error) } else { Style::new() };
    let mut cells = vec![
        (theme::mark(facts.severity).to_owned(), style),
        (guest.name.clone(), Style::new()),
        (path(guest), Style::new()),
        (text::number(history.rates.packets), Style::new()),
        (table::sparkline(history.packets.iter().copied(), columns[4].width), theme.graph()),
        (text::scaled(history.rates.bytes.saturating_mul(8)), Style::new()),
    ];
    if columns.len() > 9 {
        cells.push((table::sparkline(history.bytes.iter().copied(), columns[6].width), theme.graph()));
    }
    cells.extend([
        (text::number(facts.dropped), alarm),
        (text::number(facts.fragments), Style::new()),
        (worst.to_owned(), style),
    ]);
    cells
}

/// `vnet0→br0→eth0`, and how many more interfaces there are.
fn path(guest: &GuestReport) -> String {
    let Some(interface) = guest.interfaces.first() else { return "no interface".to_owned() };
    let mut path = interface.device.clone();
    for next in interface.bridge.iter().chain(interface.uplinks.first()) {
        path.push('→');
        path.push_str(next);
    }
    if guest.interfaces.len() > 1 {
        path = format!("{path} +{}", guest.interfaces.len() - 1);
    }
    path
}

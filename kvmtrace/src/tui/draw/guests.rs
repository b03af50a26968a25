//! The guests: path, rates with their past, drops, fragments, what is worst.

use super::super::path::Way;
use super::super::snapshot::GuestFacts;
use super::super::state::State;
use super::super::text;
use super::super::theme::{self, Theme};
use super::super::view::{GuestColumn, Sort};
use super::table::{self, Column, Order, numbers, words};
use super::{faults, path as picture, story};
use crate::diagnose::report::{Cause, GuestReport, Severity};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let columns = columns(area.width);
    let list = &state.guests;
    let mut lines = vec![table::heading(&columns, order(state.guest_sort), theme)];
    let snapshot = state.snapshot();
    lines.extend(table::listed(list, area, |item, selected| {
        let facts = &snapshot.guests[item];
        let guest = &snapshot.report.guests[facts.index];
        table::row(&columns, cells(&columns, guest, facts, theme), selected, theme)
    }));
    if list.is_empty() {
        let said = match (list.filter.is_empty(), snapshot.has_begun()) {
            (false, _) => "no guest matches the filter",
            (true, false) => "the guests of this host appear here in a moment",
            (true, true) => NO_GUEST,
        };
        lines.extend(table::empty(said, theme));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// Said where guests would be.
pub(super) const NO_GUEST: &str = "no guest seen on this host yet; one that starts is traced at once";

/// The columns, in whose titles one can click.
pub(super) fn columns(width: u16) -> Vec<Column> {
    let wide = width.saturating_sub(80);
    let mut columns = vec![
        words("", 1),
        words("GUEST", 9 + (wide / 5).min(16)),
        words("WORST", 20 + (wide / 10).min(4)),
        words("PATH", 14 + (wide / 4).min(27)),
        numbers("PKT/S", 5),
        words("", 5 + (wide / 8).min(16)),
        numbers("BIT/S", 5),
    ];
    if wide >= 20 {
        columns.push(words("", 5 + (wide / 8).min(16)));
    }
    columns.extend([numbers("DROPS", 5), numbers("FRAG", 4)]);
    columns
}

fn order(sort: Sort<GuestColumn>) -> Order {
    let (title, rises) = match sort.column {
        GuestColumn::Worst => ("WORST", false),
        GuestColumn::Name => ("GUEST", true),
        GuestColumn::Path => ("PATH", true),
        GuestColumn::PacketRate => ("PKT/S", false),
        GuestColumn::ByteRate => ("BIT/S", false),
        GuestColumn::Dropped => ("DROPS", false),
        GuestColumn::Fragments => ("FRAG", false),
    };
    Order { title, by: "", rising: rises != sort.reversed }
}

/// The column with this title.
pub(super) fn column_of(title: &str) -> Option<GuestColumn> {
    let order = |column: &GuestColumn| order(Sort { column: *column, reversed: false }).title;
    GuestColumn::ALL.into_iter().find(|column| order(column) == title)
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
    let style = if worst == "quiet" { theme.faint() } else { style };
    let mut cells = vec![
        (theme::mark(facts.severity).to_owned(), style),
        (guest.name.clone(), if facts.severity > Severity::Info { style } else { Style::new() }),
        (worst.to_owned(), style),
        (path(guest), Style::new()),
        table::count(history.rates.packets, text::number, Style::new(), theme),
        (table::sparkline(history.packets.iter().copied(), columns[5].width), theme.graph()),
        table::count(history.rates.bytes.saturating_mul(8), text::scaled, Style::new(), theme),
    ];
    if columns[7].title.is_empty() {
        cells.push((table::sparkline(history.bytes.iter().copied(), columns[7].width), theme.graph()));
    }
    cells.push(table::count(facts.dropped, text::number, theme.severity(Severity::Error), theme));
    cells.push(table::count(facts.fragments, text::scaled, Style::new(), theme));
    cells
}

/// The selected guest with its rates and their past, what is wrong with it and the command that mends it; the incidents of
/// this host, its own first; and its way, where there is room.
pub(super) fn detail(state: &State, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let Some(facts) = state.guests.current().and_then(|index| snapshot.guests.get(index)) else { return Vec::new() };
    let guest = &snapshot.report.guests[facts.index];
    let mut lines = vec![story::rule(&title(guest), area.width, theme)];
    if area.height >= 14 {
        lines.push(rates(facts, area.width, theme));
    }
    let incidents = faults::in_brief(snapshot, &guest.name, area.width, usize::from(area.height / 4).max(2), theme);
    let said = match snapshot.guest_text(facts) {
        Some(said) => story::in_brief(said, facts.cause, facts.severity, area.width, theme),
        None => vec![picture::well(facts, theme)],
    };
    let way = worst_way(facts).map(|way| picture::picture(way, area.width, theme)).unwrap_or_default();
    let head = |incidents: &Vec<Line<'static>>| if incidents.is_empty() { 0 } else { incidents.len() + 1 };
    // One incident that is the guest's own is what the text below says.
    let is_all = incidents.len() <= 1 && facts.severity >= Severity::Warning;
    let room = usize::from(area.height).saturating_sub(lines.len() + said.len());
    if is_all || incidents.is_empty() || way.len() + head(&incidents) <= room {
        lines.extend(way);
    }
    lines.extend(said);
    if !is_all && !incidents.is_empty() {
        lines.push(story::rule("Incidents", area.width, theme));
        lines.extend(incidents);
    }
    lines
}

/// A guest may have several interfaces: the one where it hurts.
fn worst_way(facts: &GuestFacts) -> Option<&Way> {
    let grave = |way: &&Way| way.nodes.iter().filter_map(|node| node.fault).max();
    facts.ways.iter().rev().max_by_key(grave)
}

/// `web1  libvirt  10.99.0.11  52:54:00:aa:00:00`
fn title(guest: &GuestReport) -> String {
    let interface = guest.interfaces.first();
    let mac = interface.and_then(|interface| interface.mac.as_deref());
    let addresses = interface.into_iter().flat_map(|interface| &interface.addresses).map(String::as_str).take(2);
    let parts = [Some(guest.name.as_str()), guest.manager.as_deref()].into_iter().flatten();
    parts.chain(addresses).chain(mac).collect::<Vec<_>>().join("  ")
}

fn rates(facts: &GuestFacts, width: u16, theme: Theme) -> Line<'static> {
    let history = &facts.history;
    let graph = (width.saturating_sub(62) / 3).clamp(6, 40);
    let mut spans = vec![Span::raw(" ")];
    let drops = if history.rates.dropped > 0 { theme.severity(Severity::Error) } else { Style::new() };
    for (values, value, style, line) in [
        (&history.packets, format!("{} pkt/s", text::scaled(history.rates.packets)), Style::new(), theme.graph()),
        (&history.bytes, text::bits_per_second(history.rates.bytes), Style::new(), theme.graph()),
        (&history.dropped, format!("{} drops/s", text::scaled(history.rates.dropped)), drops, drops),
    ] {
        spans.push(Span::styled(table::sparkline(values.iter().copied(), graph), line));
        spans.push(Span::styled(format!(" {value:<14}"), style));
    }
    Line::from(spans)
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

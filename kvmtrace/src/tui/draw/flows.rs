//! The flows: verdict and cause, guest, ends, rates, drops, latency. Only the rows that are seen are formatted.

use super::super::snapshot::FlowFacts;
use super::super::state::State;
use super::super::theme::{self, Theme};
use super::super::view::{FlowColumn, Sort};
use super::super::{path, text};
use super::table::{self, Column, Order, numbers, words};
use super::{path as picture, story};
use crate::diagnose::report::{FlowReport, Severity};
use crate::diagnose::words::counted;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let columns = columns(area.width);
    let list = &state.flows;
    let mut lines = vec![table::heading(&columns, Some(order(area.width, state.flow_sort)), theme)];
    let snapshot = state.snapshot();
    lines.extend(table::listed(list, area, |item, selected| {
        let (flow, facts) = (&snapshot.report.flows[item], &snapshot.flows[item]);
        table::row(&columns, cells(area.width, flow, facts, theme), selected, theme)
    }));
    if list.rows.is_empty() {
        let filtered = !list.filter.is_empty();
        lines.extend(table::empty(
            if filtered {
                "no flow matches the filter"
            } else if state.of_guest.is_some() {
                "no packet of this guest seen yet"
            } else {
                "no packet of a guest seen yet; flows appear with their first"
            },
            theme,
        ));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// From this width on there is room for more numbers.
const MIDDLE: u16 = 100;
/// From this width on, verdict and cause stand apart.
const WIDE: u16 = 132;

/// The columns, in whose titles one can click.
pub(super) fn columns(width: u16) -> Vec<Column> {
    let mut right = vec![numbers("PKT/S", 5)];
    if width >= MIDDLE {
        right.push(numbers("BIT/S", 5));
    }
    if width >= WIDE {
        right.push(numbers("PACKETS", 7));
    }
    right.push(numbers("DROPS", 5));
    if width >= MIDDLE {
        right.push(numbers("LATENCY", 7));
    }
    let mut columns = vec![words("", 1)];
    columns.extend(if width >= WIDE {
        vec![words("VERDICT", 10), words("CAUSE", 24), words("GUEST", 14)]
    } else {
        vec![words("VERDICT", 19), words("GUEST", if width >= MIDDLE { 12 } else { 8 })]
    });
    let taken: Vec<Column> = columns.iter().chain(&right).copied().collect();
    columns.push(words("FLOW", table::rest(&taken, width)));
    columns.extend(right);
    columns
}

fn order(width: u16, sort: Sort<FlowColumn>) -> Order {
    let (title, by) = match sort.column {
        FlowColumn::Worst => ("VERDICT", "worst"),
        FlowColumn::Verdict => ("VERDICT", ""),
        FlowColumn::Cause if width >= WIDE => ("CAUSE", ""),
        FlowColumn::Cause => ("VERDICT", "cause"),
        FlowColumn::Guest => ("GUEST", ""),
        FlowColumn::Protocol => ("FLOW", "protocol"),
        FlowColumn::Source => ("FLOW", "source"),
        FlowColumn::Destination => ("FLOW", "destination"),
        FlowColumn::PacketRate => ("PKT/S", ""),
        FlowColumn::ByteRate => ("BIT/S", ""),
        FlowColumn::Packets => ("PACKETS", ""),
        FlowColumn::Dropped => ("DROPS", ""),
        FlowColumn::Latency => ("LATENCY", ""),
    };
    let rises = !(sort.column.largest_first() || sort.column == FlowColumn::Worst);
    Order { title, by, rising: rises != sort.reversed }
}

/// The column with this title.
pub(super) fn column_of(title: &str) -> Option<FlowColumn> {
    let order = |column: &FlowColumn| order(WIDE, Sort { column: *column, reversed: false }).title;
    FlowColumn::ALL.into_iter().find(|column| order(column) == title)
}

fn cells(width: u16, flow: &FlowReport, facts: &FlowFacts, theme: Theme) -> Vec<(String, Style)> {
    let style = theme.severity(flow.severity);
    let plain = |text: String| (text, Style::new());
    let alarm = if flow.dropped > 0 { theme.severity(Severity::Error) } else { Style::new() };
    let guest = flow.guest.clone().unwrap_or_else(|| "host".to_owned());
    let source = text::end_point(&flow.source, flow.source_port);
    let destination = text::end_point(&flow.destination, flow.destination_port);
    let mut ends = format!("{} {source}→{destination}", text::protocol(flow));
    if let Some(vlan) = flow.vlan {
        ends = format!("{ends} vlan {vlan}");
    }
    // What is wrong stays wrong; what is in order so far may still turn out otherwise.
    let open = !flow.complete && flow.severity < Severity::Warning;
    let mark = if open { "?".to_owned() } else { theme::mark(flow.severity).to_owned() };
    let mut cells = vec![(mark, style)];
    if width >= WIDE {
        cells.push((theme::verdict(flow.verdict).to_owned(), style));
        cells.push((flow.cause.map(|cause| cause.id().to_owned()).unwrap_or_default(), style));
    } else {
        cells.push((theme::cause_or_verdict(flow).to_owned(), style));
    }
    cells.extend([plain(guest), plain(ends), plain(text::number(facts.rates.packets))]);
    if width >= MIDDLE {
        cells.push(plain(text::scaled(facts.rates.bytes.saturating_mul(8))));
    }
    if width >= WIDE {
        cells.push(plain(text::number(flow.packets)));
    }
    cells.push((text::number(flow.dropped), alarm));
    if width >= MIDDLE {
        cells.push(plain(facts.latency_ns.map(text::duration).unwrap_or_default()));
    }
    cells
}

/// The selected flow: its ends in full, its counts, what is wrong; on a tall screen its way too.
pub(super) fn detail(state: &State, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let Some(index) = state.flows.current().filter(|index| *index < snapshot.flows.len()) else { return Vec::new() };
    let (flow, facts) = (&snapshot.report.flows[index], &snapshot.flows[index]);
    let way = path::of_flow(&snapshot.report, &snapshot.devices, flow);
    let mut lines = vec![story::rule(&way.title, area.width, theme)];
    if area.height >= 14 {
        lines.extend(picture::picture(&way, area.width, theme));
    }
    let mut counts = format!(
        " {}  {}  {} dropped  {}",
        counted(flow.packets, "packet"),
        counted(flow.bytes, "byte"),
        flow.dropped,
        counted(flow.fragments, "fragment")
    );
    if let Some(latency) = facts.latency_ns {
        counts = format!("{counts}  latency {}", text::duration(latency));
    }
    let counts = Line::raw(text::cut(&counts, usize::from(area.width)));
    lines.push(counts);
    lines.extend(if flow.severity == Severity::Ok {
        story::of_flow_in_order(flow, area.width, theme)
    } else {
        story::in_brief(snapshot.flow_text(index), flow.cause, flow.severity, area.width, theme)
    });
    lines
}

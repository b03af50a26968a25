//! The flows: verdict and cause, guest, ends, rates, drops, latency. Only the rows that are seen are formatted.

use super::super::snapshot::FlowFacts;
use super::super::state::State;
use super::super::theme::{self, Theme};
use super::super::{layout, path, text};
use super::table::{self, Column, numbers, words};
use super::{path as picture, story};
use crate::diagnose::report::{FlowReport, Severity};
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let columns = columns(area.width);
    let list = &state.flows;
    let mut lines = vec![table::heading(&columns, theme)];
    let height = usize::from(layout::rows(area).height);
    let snapshot = state.snapshot();
    for (index, row) in list.rows.iter().enumerate().skip(list.offset).take(height) {
        let (flow, facts) = (&snapshot.report.flows[*row as usize], &snapshot.flows[*row as usize]);
        lines.push(table::row(&columns, cells(area.width, flow, facts, theme), index == list.selected, theme));
    }
    if list.rows.is_empty() {
        let filtered = !list.filter.is_empty();
        lines.extend(table::empty(
            if filtered { "no flow matches the filter" } else { "no packet of a guest seen yet" },
            theme,
        ));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// From this width on, verdict and cause stand apart and there is room for more numbers.
const WIDE: u16 = 120;

fn columns(width: u16) -> Vec<Column> {
    let (mut columns, right) = if width >= WIDE {
        let right = [
            numbers("PKT/S", 5),
            numbers("BIT/S", 5),
            numbers("PACKETS", 7),
            numbers("DROPS", 6),
            numbers("LATENCY", 7),
        ];
        (vec![words("", 1), words("VERDICT", 10), words("CAUSE", 20), words("GUEST", 14)], right.to_vec())
    } else {
        (vec![words("", 1), words("VERDICT", 16), words("GUEST", 8)], vec![numbers("PKT/S", 5), numbers("DROPS", 5)])
    };
    let taken: Vec<Column> = columns.iter().chain(&right).copied().collect();
    columns.push(words("FLOW", table::rest(&taken, width).saturating_sub(1)));
    columns.extend(right);
    columns
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
    let mark = if flow.complete { theme::mark(flow.severity).to_owned() } else { "?".to_owned() };
    if width < WIDE {
        return vec![
            (mark, style),
            (theme::cause_or_verdict(flow).to_owned(), style),
            plain(guest),
            plain(ends),
            plain(text::number(facts.rates.packets)),
            (text::number(flow.dropped), alarm),
        ];
    }
    vec![
        (mark, style),
        (theme::verdict(flow.verdict).to_owned(), style),
        (flow.cause.map(|cause| cause.id().to_owned()).unwrap_or_default(), style),
        plain(guest),
        plain(ends),
        plain(text::number(facts.rates.packets)),
        plain(text::scaled(facts.rates.bytes.saturating_mul(8))),
        plain(text::number(flow.packets)),
        (text::number(flow.dropped), alarm),
        plain(facts.latency_ns.map(text::duration).unwrap_or_default()),
    ]
}

/// On a tall screen: the way of the selected flow and what is wrong with it.
pub(super) fn detail(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let Some(flow) = state.flows.current().and_then(|index| snapshot.report.flows.get(index)) else {
        return Vec::new();
    };
    let mut lines = vec![story::rule(width, theme)];
    lines.extend(picture::picture(&path::of_flow(&snapshot.report, flow), width, theme));
    lines.extend(story::of_flow(flow, width, theme, None));
    lines
}

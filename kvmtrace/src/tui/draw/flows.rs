//! The flows: verdict and cause, guest, ends, rates, drops, latency. Only the rows that are seen are formatted.

use super::super::snapshot::FlowFacts;
use super::super::state::State;
use super::super::theme::{self, Theme};
use super::super::view::{FlowColumn, Sort};
use super::super::{layout, path, text};
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
    let columns = columns(area.width, state.flow_sort.column);
    let list = &state.flows;
    let mut lines = vec![table::heading(&columns, order(area.width, state.flow_sort), theme)];
    let snapshot = state.snapshot();
    lines.extend(table::listed(list, area, |item, selected| {
        let (flow, facts) = (&snapshot.report.flows[item], &snapshot.flows[item]);
        table::row(&columns, cells(&columns, flow, facts, theme), selected, theme)
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
/// Its latency is that of a flow's first packet, the one that is timed at every hop.
const LATENCY: &str = "1ST PKT";

/// The columns, in whose titles one can click. The one that rows are sorted by is always there.
pub(super) fn columns(width: u16, sorted: FlowColumn) -> Vec<Column> {
    let right = [
        (FlowColumn::PacketRate, numbers("PKT/S", 5), 0),
        (FlowColumn::ByteRate, numbers("BIT/S", 5), MIDDLE),
        (FlowColumn::Packets, numbers("PACKETS", 7), WIDE),
        (FlowColumn::Dropped, numbers("DROPS", 5), 0),
        (FlowColumn::Latency, numbers(LATENCY, 7), MIDDLE),
    ];
    let right = right.into_iter().filter(|(column, _, from)| width >= *from || *column == sorted);
    let right: Vec<Column> = right.map(|(_, column, _)| column).collect();
    let mut columns = vec![words("", 1)];
    columns.extend(if width >= WIDE {
        vec![words("VERDICT", 10), words("CAUSE", 24), words("GUEST", 14)]
    } else {
        vec![words("VERDICT", 19), words("GUEST", if width >= MIDDLE { 12 } else { 8 })]
    });
    let taken: Vec<Column> = columns.iter().chain(&right).copied().collect();
    // One for its own gap: the arrow of the last heading stands in the last column of the screen.
    columns.push(words("FLOW", table::rest(&taken, width).saturating_sub(1)));
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
        FlowColumn::Latency => (LATENCY, ""),
    };
    let rises = !(sort.column.largest_first() || sort.column == FlowColumn::Worst);
    Order { title, by, rising: rises != sort.reversed }
}

/// The column with this title.
pub(super) fn column_of(title: &str) -> Option<FlowColumn> {
    let order = |column: &FlowColumn| order(WIDE, Sort { column: *column, reversed: false }).title;
    FlowColumn::ALL.into_iter().find(|column| order(column) == title)
}

fn cells(columns: &[Column], flow: &FlowReport, facts: &FlowFacts, theme: Theme) -> Vec<(String, Style)> {
    let style = theme.severity(flow.severity);
    let plain = |text: String| (text, Style::new());
    let has_column = |title: &str| columns.iter().any(|column| column.title == title);
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
    if has_column("CAUSE") {
        cells.push((theme::verdict(flow.verdict).to_owned(), style));
        cells.push((flow.cause.map(|cause| cause.id().to_owned()).unwrap_or_default(), style));
    } else {
        cells.push((theme::cause_or_verdict(flow).to_owned(), style));
    }
    cells.extend([plain(guest), plain(ends)]);
    let count = |value, written| table::count(value, written, Style::new(), theme);
    let numbers = columns.iter().filter(|column| column.right).map(|column| match column.title {
        "PKT/S" => count(facts.rates.packets, text::number),
        "BIT/S" => count(facts.rates.bytes.saturating_mul(8), text::scaled),
        "PACKETS" => count(flow.packets, text::number),
        "DROPS" => table::count(flow.dropped, text::number, theme.severity(Severity::Error), theme),
        _ => plain(facts.latency.map(|latency| text::duration(latency.p50)).unwrap_or_default()),
    });
    cells.extend(numbers);
    cells
}

/// ` 60 packets  240000 bytes  12 dropped  first packet took 18µs from vnet0 to eth0`
fn counts(flow: &FlowReport, facts: &FlowFacts) -> String {
    let mut counts = format!(" {}  {}", counted(flow.packets, "packet"), counted(flow.bytes, "byte"));
    if flow.dropped > 0 {
        counts = format!("{counts}  {} dropped", flow.dropped);
    }
    if flow.fragments > 0 {
        counts = format!("{counts}  {}", counted(flow.fragments, "fragment"));
    }
    let ends = flow.path.first().zip(flow.path.last());
    if let Some((latency, (first, last))) = facts.latency.zip(ends) {
        let took = match latency.samples {
            1 => format!("first packet took {}", text::duration(latency.p50)),
            samples => {
                let (p50, p99) = (text::duration(latency.p50), text::duration(latency.p99));
                format!("latency p50 {p50}, p99 {p99} of {samples} packets")
            }
        };
        counts = format!("{counts}  {took} from {} to {}", first.device, last.device);
    }
    counts
}

/// The selected flow: its ends in full, its counts, what is wrong; on a tall screen its way too, and beside the list on a
/// wide one all that is known.
pub(super) fn detail(state: &State, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let Some(index) = state.flows.current().filter(|index| *index < snapshot.flows.len()) else { return Vec::new() };
    let (flow, facts) = (&snapshot.report.flows[index], &snapshot.flows[index]);
    let way = path::of_flow(&snapshot.report, &snapshot.devices, flow);
    let mut lines = vec![story::rule(&way.title, area.width, theme)];
    if area.height >= 14 {
        lines.extend(picture::picture(&way, area.width, theme));
    }
    lines.push(Line::raw(text::cut(&counts(flow, facts), usize::from(area.width))));
    lines.extend(if layout::is_wide(state.size.0) {
        let told = story::of_flow(flow, area.width, theme, Some(state.fix));
        told.into_iter().chain([Line::raw("")]).chain(picture::hops_of(flow, theme)).collect()
    } else if flow.severity == Severity::Ok {
        story::of_flow_in_order(flow, area.width, theme)
    } else {
        story::in_brief(snapshot.flow_text(index), flow.cause, flow.severity, area.width, theme)
    });
    lines
}

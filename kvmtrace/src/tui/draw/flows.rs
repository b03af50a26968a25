//! The flows: verdict and cause, guest, ends, rates, drops, latency. Only the rows that are seen are formatted.

use super::super::listing::Group;
use super::super::snapshot::FlowFacts;
use super::super::state::State;
use super::super::theme::{self, Theme};
use super::super::view::{FlowColumn, Sort};
use super::super::{group, layout, path, text};
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
    lines.extend(table::numbered(list, area, |row, item, selected| {
        let (flow, facts) = (&snapshot.report.flows[item], &snapshot.flows[item]);
        let (depth, group) = (list.listing.head(row).depth, list.listing.group(row));
        table::row(&columns, cells(&columns, flow, facts, depth, group, theme), selected, theme)
    }));
    if list.is_empty() {
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

/// `[+389] tcp 10.99.0.11→10.99.0.1:22`, or `[+389] tcp →10.99.0.1:22`
fn group_name(group: &Group, flow: &FlowReport, facts: &FlowFacts, width: usize) -> String {
    let sign = format!("[{}{}]", if group.folded { '+' } else { '-' }, group.flows);
    let long = format!("{sign} {}", group::name(group.grouping, flow, facts.groups));
    if long.chars().count() <= width {
        return long;
    }
    format!("{sign} {}", group::short_name(group.grouping, flow, facts.groups))
}

/// A flow's row, or that of its group.
fn cells(
    columns: &[Column],
    flow: &FlowReport,
    facts: &FlowFacts,
    depth: u8,
    group: Option<&Group>,
    theme: Theme,
) -> Vec<(String, Style)> {
    let style = theme.severity(flow.severity);
    let plain = |text: String| (text, Style::new());
    let has_column = |title: &str| columns.iter().any(|column| column.title == title);
    let guest = match group {
        Some(group) if !group.one_guest => String::new(),
        _ => flow.guest.clone().unwrap_or_else(|| "host".to_owned()),
    };
    let source = text::end_point(&flow.source, flow.source_port);
    let destination = text::end_point(&flow.destination, flow.destination_port);
    let mut ends = format!("{} {source}→{destination}", text::protocol(flow));
    if let Some(vlan) = flow.vlan {
        ends = format!("{ends} vlan {vlan}");
    }
    if let Some(group) = group {
        let width = columns.iter().find(|column| column.title == "FLOW").map_or(0, |column| column.width);
        ends = group_name(group, flow, facts, usize::from(width).saturating_sub(2 * usize::from(depth)));
    }
    let ends = format!("{}{ends}", "  ".repeat(usize::from(depth)));
    let (rates, packets, dropped) = match group {
        Some(group) => (group.rates, group.packets, group.dropped),
        None => (facts.rates, flow.packets, flow.dropped),
    };
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
        "PKT/S" => count(rates.packets, text::number),
        "BIT/S" => count(rates.bytes.saturating_mul(8), text::scaled),
        "PACKETS" => count(packets, text::number),
        "DROPS" => table::count(dropped, text::number, theme.severity(Severity::Error), theme),
        _ if group.is_some() => plain(String::new()),
        _ => plain(facts.latency.map(|latency| text::duration(latency.p50)).unwrap_or_default()),
    });
    cells.extend(numbers);
    cells
}

/// What a group comes to; what follows is of its worst flow.
fn sums(group: &Group, flow: &FlowReport, facts: &FlowFacts) -> String {
    let name = group::name(group.grouping, flow, facts.groups);
    let counts = format!("{}, {}", counted(u64::from(group.flows), "flow"), counted(group.packets, "packet"));
    let dropped = if group.dropped > 0 { format!(", {} dropped", group.dropped) } else { String::new() };
    format!(" {counts}{dropped} in {name}; the worst:")
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
    if let Some(group) = state.flows.group() {
        lines.push(Line::styled(text::cut(&sums(group, flow, facts), usize::from(area.width)), theme.accent()));
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

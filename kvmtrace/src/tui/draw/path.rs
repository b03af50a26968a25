//! The way of a flow or a guest as a picture, the faulty hop marked, and below it what is wrong.

use super::super::fault::FaultSource;
use super::super::path::{self, Node, Way};
use super::super::snapshot::{GuestFacts, Snapshot};
use super::super::state::{Focus, State};
use super::super::theme::{self, Theme};
use super::super::{choice, text};
use super::{story, table};
use crate::diagnose::report::{Cause, FlowReport, Severity};
use crate::event::Direction;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// The path screen: the path, what is wrong, and the counts of each hop.
pub(super) fn detail(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let hops = hops(state, theme);
    let gap = (!hops.is_empty()).then(|| Line::raw(""));
    pictured(state, width, theme).into_iter().chain(told(state, width, theme)).chain(gap).chain(hops).collect()
}

/// The left half of the path screen on a wide terminal: the path and the counts of each hop.
pub(super) fn drawn(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = pictured(state, width, theme);
    lines.push(Line::raw(""));
    lines.extend(hops(state, theme));
    lines
}

/// The flow whose path is shown, if it is that of a flow.
fn flow(state: &State) -> Option<&FlowReport> {
    let index = match state.focus {
        Focus::Guest => None,
        Focus::Flow => state.flows.current(),
        Focus::Fault => choice::flow_of_fault(state),
    };
    state.snapshot().report.flows.get(index?)
}

fn pictured(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    if let Some(flow) = flow(state) {
        return pictures(&[path::of_flow(&snapshot.report, &snapshot.devices, flow)], width, theme);
    }
    let guest = match state.focus {
        Focus::Guest => state.guests.current().and_then(|index| snapshot.guests.get(index)),
        Focus::Flow => None,
        Focus::Fault => {
            let fault = state.faults.current().and_then(|index| snapshot.faults.get(index));
            let said = fault.and_then(|fault| snapshot.fault_text(fault).guest);
            let named = |facts: &&GuestFacts| Some(snapshot.report.guests[facts.index].name.as_str()) == said;
            snapshot.guests.iter().find(named)
        }
    };
    guest.map(|facts| pictures(&facts.ways, width, theme)).unwrap_or_default()
}

/// What is wrong with what the path screen shows.
pub(super) fn told(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    match (flow(state), state.focus) {
        (Some(flow), _) => story::of_flow(flow, width, theme, Some(state.fix)),
        (None, Focus::Fault) => match state.faults.current().and_then(|index| snapshot.faults.get(index)) {
            Some(fault) => {
                let said = snapshot.fault_text(fault);
                story::of_fault(said, fault.cause, fault.severity, width, theme, Some(state.fix))
            }
            None => table::empty("no fault found so far", theme),
        },
        (None, Focus::Guest) => match state.guests.current().and_then(|index| snapshot.guests.get(index)) {
            Some(facts) => of_facts(snapshot, facts, width, theme, state.fix),
            None => table::empty("no guest seen on this host yet: its path will be drawn here", theme),
        },
        (None, Focus::Flow) => table::empty("select a guest, a flow or a fault first: its path is drawn here", theme),
    }
}

/// What the worst is that befalls a guest.
fn of_facts(snapshot: &Snapshot, facts: &GuestFacts, width: u16, theme: Theme, fix: usize) -> Vec<Line<'static>> {
    match facts.worst {
        Some(FaultSource::Flow(index)) => story::of_flow(&snapshot.report.flows[index], width, theme, Some(fix)),
        Some(FaultSource::Finding(_) | FaultSource::Incident(_)) => snapshot
            .guest_text(facts)
            .map(|said| story::of_fault(said, facts.cause, facts.severity, width, theme, Some(fix)))
            .unwrap_or_default(),
        None => vec![well(facts, theme)],
    }
}

/// All is well, or nothing was seen yet.
pub(super) fn well(facts: &GuestFacts, theme: Theme) -> Line<'static> {
    let flows = match facts.flows {
        0 => return Line::styled("   quiet: no packet of this guest seen so far", theme.faint()),
        1 => "1 flow, delivered".to_owned(),
        flows => format!("{} flows, all delivered", text::number(flows)),
    };
    Line::styled(format!(" {} no fault found so far: {flows}", theme::mark(Severity::Ok)), theme.severity(Severity::Ok))
}

/// What was counted at each hop of the flow.
fn hops(state: &State, theme: Theme) -> Vec<Line<'static>> {
    flow(state).into_iter().flat_map(|flow| hops_of(flow, theme)).collect()
}

/// A flow's hops, a line each.
pub(super) fn hops_of(flow: &FlowReport, theme: Theme) -> impl Iterator<Item = Line<'static>> {
    flow.path.iter().map(move |hop| {
        let side = match hop.direction {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        };
        let latency = hop.latency_ns.map(|time| match time.samples {
            1 => format!("  first after {}", text::duration(time.p50)),
            _ => format!("  p50 {}, p99 {}", text::duration(time.p50), text::duration(time.p99)),
        });
        let (device, latency) = (text::fit(&hop.device, 15), latency.unwrap_or_default());
        let line = format!("   {device} {side:<3} {:>10} packets {:>14} bytes{latency}", hop.packets, hop.bytes);
        Line::styled(line, theme.faint())
    })
}

fn pictures(ways: &[Way], width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for way in ways {
        lines.push(Line::styled(
            format!(" {}", text::cut(&way.title, usize::from(width).saturating_sub(2))),
            theme.accent(),
        ));
        lines.extend(picture(way, width, theme));
    }
    lines
}

/// The boxes and the arrows between them; below the faulty one, its cause.
pub(super) fn picture(way: &Way, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let room = usize::from(width).saturating_sub(2);
    let (arrow, widths) = widths(&way.nodes.iter().map(wanted).collect::<Vec<_>>(), room);
    let nodes = || way.nodes.iter().zip(widths.iter().copied());
    let contents: Vec<[Option<String>; INSIDE]> = nodes().map(|(node, inner)| inside(node, inner)).collect();
    // Only the lines in which something stands.
    let lines: Vec<usize> = (0..INSIDE).filter(|line| contents.iter().any(|node| node[*line].is_some())).collect();
    let mut rows: Vec<Vec<Span<'static>>> = vec![vec![Span::raw(" ")]; lines.len() + 2];
    let broken = way.broken_at();
    let beyond = |index: usize| broken.is_some_and(|broken| if way.inward { index < broken } else { index > broken });
    let mut caption = None;
    let mut left = 1;
    for (index, ((node, inner), content)) in nodes().zip(&contents).enumerate() {
        if index > 0 {
            // Behind the box that nothing gets past.
            let behind = broken.filter(|broken| if way.inward { *broken == index } else { *broken + 1 == index });
            between(&mut rows, arrow, behind.and_then(|broken| way.nodes[broken].fault), way.inward, theme);
        }
        if let Some(severity) = node.fault {
            caption = Some(under(severity, way.cause, left + inner.div_ceil(2), usize::from(width), theme));
        }
        left += inner + 2 + arrow;
        let content: Vec<&str> = lines.iter().map(|line| content[*line].as_deref().unwrap_or("")).collect();
        box_of(&mut rows, node, &content, inner, beyond(index), theme);
    }
    rows.into_iter().map(Line::from).chain(caption).collect()
}

/// The widest that a box is inside.
const WIDEST: usize = 18;

/// How much room a node would like to have.
fn wanted(node: &Node) -> usize {
    let content = inside(node, WIDEST).into_iter().flatten();
    let longest = content.chain([node.word().to_owned()]).chain(mtu(node)).map(|text| text.chars().count()).max();
    longest.unwrap_or(0).clamp(3, WIDEST)
}

/// Length of the arrows, and how wide the boxes are inside: all alike where that is enough for each, else as each needs.
fn widths(wanted: &[usize], room: usize) -> (usize, Vec<usize>) {
    let count = wanted.len().max(1);
    let sum = |most: usize| wanted.iter().map(|width| *width.min(&most)).sum::<usize>();
    let space = |arrow: usize| room.saturating_sub((count - 1) * arrow + 2 * count);
    for arrow in [3, 2, 1] {
        let alike = (space(arrow) / count).min(WIDEST);
        if wanted.iter().all(|width| *width <= alike) {
            return (arrow, vec![alike; count]);
        }
        if let Some(spare) = space(arrow).checked_sub(sum(WIDEST)) {
            return (arrow, wanted.iter().map(|width| (width + spare / count).min(WIDEST)).collect());
        }
    }
    let most = (3..WIDEST).rev().find(|most| sum(*most) <= space(1)).unwrap_or(3);
    (1, wanted.iter().map(|width| *width.min(&most)).collect())
}

fn mtu(node: &Node) -> Option<String> {
    node.mtu.map(|mtu| format!("mtu {mtu}"))
}

/// The arrow to the next box; behind a fault that nothing gets past it bears its mark, at the end of the way.
fn between(rows: &mut [Vec<Span<'static>>], width: usize, cut: Option<Severity>, inward: bool, theme: Theme) {
    for (index, row) in rows.iter_mut().enumerate() {
        let line = "─".repeat(width - 1);
        row.push(match (index, cut) {
            (2, Some(severity)) => {
                let mark = theme::mark(severity);
                let cut = if inward { format!("{mark}{line}") } else { format!("{line}{mark}") };
                Span::styled(cut, theme.severity(severity))
            }
            (2, None) => Span::raw(format!("{line}▶")),
            _ => Span::raw(" ".repeat(width)),
        });
    }
}

/// Lines that a box may have: name, packets or what else is known, packets that came back, drops or latency.
const INSIDE: usize = 4;

fn inside(node: &Node, width: usize) -> [Option<String>; INSIDE] {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let packets = node.packets.map(|packets| match node.back {
        Some(_) => format!("→ {}", text::number(packets)),
        None => format!("{} pkt", text::number(packets)),
    });
    let drops = (node.dropped > 0).then(|| {
        let drops = format!("{} {}", theme::mark(Severity::Error), text::number(node.dropped));
        let word = if node.dropped == 1 { "drop" } else { "drops" };
        if drops.chars().count() + 1 + word.len() > width { drops } else { format!("{drops} {word}") }
    });
    [
        some(&node.name),
        packets.or_else(|| some(&node.note)),
        node.back.map(|packets| format!("← {}", text::number(packets))),
        drops
            .or_else(|| {
                let word = |severity| if severity > Severity::Info { "fault" } else { "see below" };
                node.fault.map(|severity| format!("{} {}", theme::mark(severity), word(severity)))
            })
            .or_else(|| node.latency_ns.map(|time| format!("+{}", text::duration(time)))),
    ]
}

fn box_of(rows: &mut [Vec<Span<'static>>], node: &Node, content: &[&str], inner: usize, beyond: bool, theme: Theme) {
    let style = match (node.fault, beyond) {
        (Some(severity), _) => theme.severity(severity),
        (None, true) => theme.faint(),
        (None, false) => Style::new(),
    };
    let [left, right, low_left, low_right, across, side] = match node.fault {
        Some(_) => ["┏", "┓", "┗", "┛", "━", "┃"],
        None => ["╭", "╮", "╰", "╯", "─", "│"],
    };
    let role = text::cut(node.word(), inner);
    rows[0].push(Span::styled(format!("{left}{role}{}{right}", across.repeat(inner - role.chars().count())), style));
    for (row, content) in rows[1..].iter_mut().zip(content) {
        row.push(Span::styled(format!("{side}{}{side}", text::fit(content, inner)), style));
    }
    if let Some(last) = rows.last_mut() {
        let mtu = mtu(node).unwrap_or_default();
        // A narrow box has room for the number alone.
        let mtu = if mtu.chars().count() > inner { mtu.trim_start_matches("mtu ").to_owned() } else { mtu };
        let mtu = text::cut(&mtu, inner);
        last.push(Span::styled(
            format!("{low_left}{mtu}{}{low_right}", across.repeat(inner - mtu.chars().count())),
            style,
        ));
    }
}

/// The cause, below the box and pointing at it.
fn under(severity: Severity, cause: Option<Cause>, middle: usize, width: usize, theme: Theme) -> Line<'static> {
    let label = format!("{} {} here", theme::mark(severity), cause.map_or("dropped", Cause::id));
    let length = label.chars().count();
    let line = if middle + 3 + length < width {
        format!("{}▲ {label}", " ".repeat(middle))
    } else {
        format!("{}{label} ▲", " ".repeat((middle.saturating_sub(1)).saturating_sub(length)))
    };
    Line::styled(line, theme.severity(severity))
}

//! The way of a flow or a guest as a picture, the faulty hop marked, and below it what is wrong.

use super::super::path::{self, Node, Way};
use super::super::state::{Focus, State};
use super::super::theme::{self, Theme};
use super::super::{text, update};
use super::{story, table};
use crate::diagnose::report::{Cause, FlowReport, Severity};
use crate::event::Direction;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// Lines inside a box.
const INSIDE: usize = 4;

pub(super) fn detail(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let flow = match state.focus {
        Focus::Guest => None,
        Focus::Flow => state.flows.current(),
        Focus::Fault => update::flow_of_fault(state),
    };
    match (flow.and_then(|index| snapshot.report.flows.get(index)), state.focus) {
        (Some(flow), _) => of_flow(state, flow, width, theme),
        (None, Focus::Fault) => of_finding(state, width, theme),
        (None, Focus::Guest) => of_guest(state, width, theme),
        (None, Focus::Flow) => table::empty("select a guest, a flow or a fault first: its path is drawn here", theme),
    }
}

fn of_guest(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let Some(facts) = state.guests.current().and_then(|index| snapshot.guests.get(index)) else {
        return table::empty("no guest seen on this host yet: its path will be drawn here", theme);
    };
    let guest = &snapshot.report.guests[facts.index];
    let mut lines = pictures(&path::of_guest(snapshot, guest), width, theme);
    let own = |name: Option<&str>| name == Some(guest.name.as_str());
    let suffering = |flow: &&FlowReport| own(flow.guest.as_deref()) && flow.severity > Severity::Ok;
    let worst = snapshot.report.flows.iter().filter(suffering).max_by_key(|flow| (flow.severity, flow.dropped));
    let finding = snapshot.faults.iter().find(|fault| own(snapshot.fault_text(fault).guest));
    match (worst, finding) {
        (Some(flow), _) => lines.extend(story::of_flow(flow, width, theme, None)),
        (None, Some(fault)) => {
            lines.extend(story::of_fault(snapshot.fault_text(fault), fault.cause, fault.severity, width, theme, None));
        }
        (None, None) => {
            let well =
                format!(" {} nothing wrong with this guest so far: {} flows", theme::mark(Severity::Ok), facts.flows);
            lines.push(Line::styled(well, theme.severity(Severity::Ok)));
        }
    }
    lines
}

fn of_flow(state: &State, flow: &FlowReport, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let mut lines = pictures(&[path::of_flow(&state.snapshot().report, flow)], width, theme);
    lines.extend(story::of_flow(flow, width, theme, Some(state.fix)));
    lines.push(Line::raw(""));
    for hop in &flow.path {
        let side = match hop.direction {
            Direction::Ingress => "in",
            Direction::Egress => "out",
        };
        let latency = hop.latency_ns.map(|time| format!("  +{}", text::duration(time))).unwrap_or_default();
        let device = text::fit(&hop.device, 15);
        lines.push(Line::styled(
            format!("   {device} {side:<3} {:>10} packets {:>14} bytes{latency}", hop.packets, hop.bytes),
            theme.faint(),
        ));
    }
    lines
}

fn of_finding(state: &State, width: u16, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let Some(fault) = state.faults.current().and_then(|index| snapshot.faults.get(index)) else {
        return table::empty("no fault found so far", theme);
    };
    let said = snapshot.fault_text(fault);
    let guest = said.guest.and_then(|name| snapshot.report.guests.iter().find(|guest| guest.name == name));
    let mut lines = guest.map(|guest| pictures(&path::of_guest(snapshot, guest), width, theme)).unwrap_or_default();
    lines.extend(story::of_fault(said, fault.cause, fault.severity, width, theme, Some(state.fix)));
    lines
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
    let count = way.nodes.len().max(1);
    let room = usize::from(width).saturating_sub(2);
    let arrow = if room >= count * 9 + (count - 1) * 3 { 3 } else { 1 };
    let inner = (room.saturating_sub((count - 1) * arrow) / count).saturating_sub(2).clamp(3, 16);
    let mut rows: Vec<Vec<Span<'static>>> = vec![vec![Span::raw(" ")]; INSIDE + 2];
    let mut broken = false;
    let mut caption = Vec::new();
    for (index, node) in way.nodes.iter().enumerate() {
        if index > 0 {
            between(&mut rows, arrow, way.nodes[index - 1].fault, theme);
        }
        if let Some(severity) = node.fault {
            let middle = 1 + index * (inner + 2 + arrow) + inner.div_ceil(2);
            caption = under(severity, way.cause, middle, usize::from(width), theme);
        }
        box_of(&mut rows, node, inner, broken, theme);
        broken |= node.fault == Some(Severity::Error);
    }
    rows.into_iter().map(Line::from).chain(caption).collect()
}

/// The arrow to the next box; after a fault it bears its mark.
fn between(rows: &mut [Vec<Span<'static>>], width: usize, fault: Option<Severity>, theme: Theme) {
    for (index, row) in rows.iter_mut().enumerate() {
        let line = "─".repeat(width - 1);
        row.push(match (index, fault) {
            (2, Some(severity)) => Span::styled(format!("{line}{}", theme::mark(severity)), theme.severity(severity)),
            (2, None) => Span::raw(format!("{line}▶")),
            _ => Span::raw(" ".repeat(width)),
        });
    }
}

fn box_of(rows: &mut [Vec<Span<'static>>], node: &Node, inner: usize, beyond: bool, theme: Theme) {
    let style = match (node.fault, beyond) {
        (Some(severity), _) => theme.severity(severity),
        (None, true) => theme.faint(),
        (None, false) => Style::new(),
    };
    let [left, right, low_left, low_right, across, side] = match node.fault {
        Some(_) => ["┏", "┓", "┗", "┛", "━", "┃"],
        None => ["╭", "╮", "╰", "╯", "─", "│"],
    };
    let role = text::cut(node.role.word(), inner);
    rows[0].push(Span::styled(format!("{left}{role}{}{right}", across.repeat(inner - role.chars().count())), style));
    let both_ways = node.back.is_some();
    let packets = node.packets.map(|packets| {
        if both_ways { format!("→ {}", text::number(packets)) } else { format!("{} pkt", text::number(packets)) }
    });
    let back = node.back.map(|packets| format!("← {}", text::number(packets)));
    let latency = node.latency_ns.map(|time| format!("+{}", text::duration(time)));
    let dropped =
        (node.dropped > 0).then(|| format!("{} {} lost", theme::mark(Severity::Error), text::number(node.dropped)));
    let fault = node.fault.map(|severity| format!("{} fault", theme::mark(severity)));
    let inside = [Some(node.name.clone()), packets, back.or(latency), dropped.or(fault)];
    for (row, content) in rows[1..=INSIDE].iter_mut().zip(inside) {
        row.push(Span::styled(format!("{side}{}{side}", text::fit(&content.unwrap_or_default(), inner)), style));
    }
    rows[INSIDE + 1].push(Span::styled(format!("{low_left}{}{low_right}", across.repeat(inner)), style));
}

/// The cause, below the box and pointing at it.
fn under(severity: Severity, cause: Option<Cause>, middle: usize, width: usize, theme: Theme) -> Vec<Line<'static>> {
    let style = theme.severity(severity);
    let label = format!("{} {} here", theme::mark(severity), cause.map_or("dropped", Cause::id));
    let length = label.chars().count();
    let start = middle.saturating_sub(length / 2).min(width.saturating_sub(length + 1));
    vec![
        Line::styled(format!("{}▲", " ".repeat(middle)), style),
        Line::styled(format!("{}{label}", " ".repeat(start)), style),
    ]
}

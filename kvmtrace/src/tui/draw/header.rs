//! The first lines: which host, how long, how much, what is missing, what it costs; and the names of the screens.

use super::super::layout;
use super::super::snapshot::{Replay, Snapshot};
use super::super::state::State;
use super::super::text;
use super::super::theme::{self, Theme};
use crate::diagnose::report::Severity;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let snapshot = state.snapshot();
    let width = usize::from(area.width);
    let (first, summary) = (first(state, width, theme), summary(snapshot, width, theme));
    let rates = rates(snapshot, width.saturating_sub(length(&first) + 1), theme);
    let mut own = own(snapshot, theme);
    // What it costs gives way to what is missing.
    let missing = own.iter().filter(|span| span.style == theme.severity(Severity::Warning)).count();
    while own.len() > missing && length(&summary) + length(&own) + 3 > width {
        own.pop();
    }
    let lines = [apart(first, rates, width), apart(summary, own, width)];
    for (line, row) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

fn length(spans: &[Span<'_>]) -> usize {
    spans.iter().map(|span| span.content.chars().count()).sum()
}

/// One on the left, one on the right; where both do not fit, the right one gives way.
fn apart(mut left: Vec<Span<'static>>, right: Vec<Span<'static>>, width: usize) -> Line<'static> {
    let gap = width.saturating_sub(length(&left) + length(&right) + 1).max(2);
    left.push(Span::raw(" ".repeat(gap)));
    left.extend(right);
    Line::from(left)
}

/// Columns that the rates take on the right.
const RATES: usize = 36;

/// Which host, and for how long it was traced, or where in the recording one is.
fn first(state: &State, width: usize, theme: Theme) -> Vec<Span<'static>> {
    let snapshot = state.snapshot();
    let host = &snapshot.report.host;
    let mut spans = vec![Span::styled(" kvmtrace", theme.accent()), Span::raw("  ")];
    if state.frozen() {
        spans.extend([Span::styled(" frozen ", theme.badge()), Span::raw("  ")]);
    }
    let end = match &snapshot.status.replay {
        Some(replay) => {
            spans.extend(position(snapshot, replay, theme));
            String::new()
        }
        None => format!("traced {}", text::elapsed(snapshot.seconds())),
    };
    // The kernel's name gives way first, then the host's.
    let room = width.saturating_sub(length(&spans) + RATES + end.chars().count() + 2);
    let mut name = text::cut(&host.name, room.min(24));
    if let Some(hosts) = snapshot.status.replay.as_ref().map(|replay| replay.hosts).filter(|hosts| hosts.count > 1) {
        name = text::cut(&format!("{name} {}/{}", hosts.shown + 1, hosts.count), room.min(24));
    }
    let kernel = text::cut(&host.kernel, room.saturating_sub(name.chars().count() + 2).min(24));
    for part in [name, kernel, end].into_iter().filter(|part| part.chars().count() > 3 || part == &host.name) {
        spans.push(Span::raw(format!("{part}  ")));
    }
    spans
}

/// Where in the recording.
fn position(snapshot: &Snapshot, replay: &Replay, theme: Theme) -> Vec<Span<'static>> {
    const WIDTH: usize = 8;
    let length = replay.end.since(replay.start).0;
    let done = snapshot.now.since(replay.start).0.min(length);
    let filled =
        (u128::from(done) * WIDTH as u128).checked_div(u128::from(length)).map_or(WIDTH, |filled| filled as usize);
    let speed = match replay.quarter_speed {
        quarters if quarters % 4 == 0 => format!("{}x", quarters / 4),
        quarters => format!("{}.{:02}x", quarters / 4, quarters % 4 * 25),
    };
    let playing = match (replay.paused, done == length) {
        (true, true) => "at the end",
        (true, false) => "stopped",
        (false, _) => "playing",
    };
    let seconds = |nanoseconds: u64| text::elapsed(nanoseconds / 1_000_000_000);
    let clock = text::time_of_day(snapshot.now);
    vec![
        Span::styled(format!(" {playing} {speed} "), theme.badge()),
        Span::raw(format!(" {} ", clock.get(..8).unwrap_or(&clock))),
        Span::styled("━".repeat(filled), theme.accent()),
        Span::styled("─".repeat(WIDTH - filled), theme.faint()),
        Span::raw(format!(" {}/{}  ", seconds(done), seconds(length))),
    ]
}

fn alarm(number: u64, severity: Severity, theme: Theme) -> Style {
    if number > 0 { theme.severity(severity) } else { theme.faint() }
}

/// As many rates as there is room for; the drops stay longest.
fn rates(snapshot: &Snapshot, room: usize, theme: Theme) -> Vec<Span<'static>> {
    let rates = snapshot.rates;
    let drops = format!("{} drops/s", text::scaled(rates.dropped));
    let mut spans = vec![
        Span::raw(format!("{} pkt/s  ", text::scaled(rates.packets))),
        Span::raw(format!("{}  ", text::bits_per_second(rates.bytes))),
        Span::styled(drops, alarm(rates.dropped, Severity::Error, theme)),
    ];
    while spans.len() > 1 && length(&spans) > room {
        spans.remove(0);
    }
    spans
}

/// What is not traced as it should be, and what tracing costs.
fn own(snapshot: &Snapshot, theme: Theme) -> Vec<Span<'static>> {
    let lost = snapshot.report.lost;
    let lost = lost.ring_events.saturating_add(lost.flows_evicted).saturating_add(lost.map_full);
    let degraded = snapshot.report.degraded.len() as u64;
    let mut spans = Vec::new();
    // Nothing lost and nothing missing is no news.
    for (number, what) in [(lost, "events lost"), (degraded, "degraded")] {
        if number > 0 {
            let said = format!("{} {what}  ", text::scaled(number));
            spans.push(Span::styled(said, theme.severity(Severity::Warning)));
        }
    }
    let cost = snapshot.status.cost;
    if let Some(share) = cost.cpu_per_mille {
        spans.push(Span::raw(format!("CPU {}.{}%", share / 10, share % 10)));
    }
    if let Some(time) = cost.nanoseconds_per_packet {
        spans.push(Span::raw(format!("  {}/pkt", text::duration(time))));
    }
    spans
}

/// Who suffers, before anything else; or what went wrong beside the screen.
fn summary(snapshot: &Snapshot, width: usize, theme: Theme) -> Vec<Span<'static>> {
    if let Some(trouble) = &snapshot.status.trouble {
        // A recording has no trouble: it only has no further fault.
        let severity = if snapshot.status.replay.is_some() { Severity::Info } else { Severity::Error };
        let trouble = format!(" {} {trouble}", theme::mark(severity));
        let room = width.saturating_sub(length(&own(snapshot, theme)) + 3);
        return vec![Span::styled(text::cut(&trouble, room), theme.severity(severity))];
    }
    if !snapshot.has_begun() {
        return vec![Span::styled(" reading the host's configuration", theme.faint())];
    }
    let count = |severity| snapshot.guests.iter().filter(|guest| guest.severity == severity).count();
    let (all, errors, warnings) = (snapshot.guests.len(), count(Severity::Error), count(Severity::Warning));
    let elsewhere = snapshot.faults.first().map_or(Severity::Ok, |fault| fault.severity);
    let (severity, said) = match (errors, warnings) {
        (1, _) if all == 1 => (Severity::Error, "the guest loses traffic".to_owned()),
        (1, _) => (Severity::Error, format!("1 of {all} guests loses traffic")),
        (2.., _) => (Severity::Error, format!("{errors} of {all} guests lose traffic")),
        (0, _) if elsewhere == Severity::Error => (Severity::Error, "the host has a fault".to_owned()),
        (0, 1) if all == 1 => (Severity::Warning, "the guest has a warning".to_owned()),
        (0, 1) => (Severity::Warning, format!("1 of {all} guests has a warning")),
        (0, 2..) => (Severity::Warning, format!("{warnings} of {all} guests have warnings")),
        (0, 0) if elsewhere == Severity::Warning => (Severity::Warning, "the host has a warning".to_owned()),
        (0, 0) if all == 0 => return vec![Span::styled(" no guests", theme.faint())],
        (0, 0) if all == 1 => (Severity::Ok, "the guest is well".to_owned()),
        (0, 0) => (Severity::Ok, format!("all {all} guests are well")),
    };
    vec![Span::styled(format!(" {} {said}", theme::mark(severity)), theme.severity(severity))]
}

pub(super) fn draw_tabs(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let mut spans = vec![Span::raw(" ")];
    for (screen, title, _) in layout::tabs(state.snapshot()) {
        let here = screen == state.screen;
        // The brackets tell the screen where colours and reversed text can't.
        let title = if here { format!("[{}]", title.trim()) } else { title };
        spans.push(Span::styled(title, if here { theme.badge() } else { theme.accent() }));
        spans.push(Span::styled("│", theme.faint()));
    }
    spans.pop();
    if let Some(file) = &state.snapshot().status.recording {
        let room = usize::from(area.width).saturating_sub(length(&spans) + 3);
        let told = format!("● recording {file}");
        let fits = |told: &String| told.chars().count() <= room;
        let shorter = [told, "● recording".to_owned()];
        let told = shorter.into_iter().find(fits).unwrap_or_else(|| "● rec".to_owned());
        let gap = usize::from(area.width).saturating_sub(length(&spans) + told.chars().count() + 1);
        spans.push(Span::raw(" ".repeat(gap)));
        spans.push(Span::styled(text::cut(&told, room), theme.severity(Severity::Error)));
    }
    frame.render_widget(Line::from(spans), area);
}

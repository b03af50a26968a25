//! The first lines: which host, how long, how much, what is missing, what it costs; and the names of the screens.

use super::super::layout;
use super::super::snapshot::{Replay, Snapshot};
use super::super::state::State;
use super::super::text;
use super::super::theme::Theme;
use crate::diagnose::report::Severity;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let snapshot = state.snapshot();
    let lines = [first(snapshot, state.frozen(), theme), second(snapshot, theme)];
    for (line, row) in lines.into_iter().zip(area.rows()) {
        frame.render_widget(line, row);
    }
}

fn first(snapshot: &Snapshot, frozen: bool, theme: Theme) -> Line<'static> {
    let host = &snapshot.report.host;
    let status = &snapshot.status;
    let mut spans = vec![Span::styled(" kvmtrace ", theme.accent())];
    if frozen {
        spans.push(Span::styled(" frozen ", theme.selected()));
        spans.push(Span::raw(" "));
    }
    if let Some(replay) = &status.replay {
        spans.extend(position(snapshot, replay, theme));
    }
    spans.push(Span::raw(format!("host {}  kernel {}  ", text::cut(&host.name, 20), text::cut(&host.kernel, 20))));
    if status.replay.is_none() {
        spans.push(Span::raw(format!("traced {}  ", text::elapsed(snapshot.seconds()))));
    }
    if let Some(file) = &status.recording {
        spans.push(Span::styled(format!("● recording {}", text::cut(file, 40)), theme.severity(Severity::Error)));
    }
    Line::from(spans)
}

/// Where in the recording.
fn position(snapshot: &Snapshot, replay: &Replay, theme: Theme) -> Vec<Span<'static>> {
    const WIDTH: usize = 10;
    let length = replay.end.since(replay.start).0;
    let done = snapshot.now.since(replay.start).0.min(length);
    let filled =
        (u128::from(done) * WIDTH as u128).checked_div(u128::from(length)).map_or(WIDTH, |filled| filled as usize);
    let speed = match replay.quarter_speed {
        quarters if quarters % 4 == 0 => format!("{}x", quarters / 4),
        quarters => format!("{}.{:02}x", quarters / 4, quarters % 4 * 25),
    };
    let playing = if replay.paused { "stopped" } else { "playing" };
    let seconds = |nanoseconds: u64| text::elapsed(nanoseconds / 1_000_000_000);
    let clock = text::time_of_day(snapshot.now);
    vec![
        Span::styled(format!(" {playing} {speed} "), theme.selected()),
        Span::raw(format!(" {} ", clock.get(..8).unwrap_or(&clock))),
        Span::styled("━".repeat(filled), theme.accent()),
        Span::styled("─".repeat(WIDTH - filled), theme.faint()),
        Span::raw(format!(" {}/{}  ", seconds(done), seconds(length))),
    ]
}

fn second(snapshot: &Snapshot, theme: Theme) -> Line<'static> {
    let rates = snapshot.rates;
    let lost = snapshot.report.lost;
    let lost = lost.ring_events + lost.flows_evicted + lost.map_full;
    let degraded = snapshot.report.degraded.len();
    let alarm = |number: u64, severity| if number > 0 { theme.severity(severity) } else { Style::new() };
    let mut spans = vec![
        Span::raw(format!(" {} pkt/s  {}  ", text::scaled(rates.packets), text::bits_per_second(rates.bytes))),
        Span::styled(format!("{} drops/s", text::scaled(rates.dropped)), alarm(rates.dropped, Severity::Error)),
        Span::raw("  "),
        Span::styled(format!("{} events lost", text::scaled(lost)), alarm(lost, Severity::Warning)),
        Span::raw("  "),
        Span::styled(format!("{degraded} degraded"), alarm(degraded as u64, Severity::Warning)),
    ];
    let cost = snapshot.status.cost;
    if let Some(share) = cost.cpu_per_mille {
        spans.push(Span::raw(format!("  CPU {}.{}%", share / 10, share % 10)));
    }
    if let Some(time) = cost.nanoseconds_per_packet {
        spans.push(Span::raw(format!("  {}/pkt", text::duration(time))));
    }
    if let Some(trouble) = &snapshot.status.trouble {
        spans.push(Span::styled(format!("  {}", text::cut(trouble, 120)), theme.severity(Severity::Error)));
    }
    Line::from(spans)
}

pub(super) fn draw_tabs(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let mut spans = vec![Span::raw(" ")];
    for (screen, title, _) in layout::tabs(state.snapshot()) {
        let here = screen == state.screen;
        // The brackets tell the screen where colours and reversed text can't.
        let title = if here { format!("[{}]", title.trim()) } else { title };
        spans.push(Span::styled(title, if here { theme.selected() } else { theme.accent() }));
        spans.push(Span::styled("│", theme.faint()));
    }
    frame.render_widget(Line::from(spans), area);
}

//! The time line: each guest's past as a strip, and below it the selected one's in full, with the incidents that began and
//! ended meanwhile.

use super::super::series::{BUCKET_NS, Bucket};
use super::super::snapshot::GuestFacts;
use super::super::state::State;
use super::super::text;
use super::super::theme::{self, Theme};
use super::super::view::{GuestColumn, Sort};
use super::table::{self, Column, Order, numbers, words};
use super::{guests, story};
use crate::diagnose::report::Severity;
use crate::event::Timestamp;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// Columns before the strip: cursor, mark, guest, drops.
const BEFORE: u16 = 2 + 2 + 13 + 7;

fn columns() -> [Column; 3] {
    [words("", 1), words("GUEST", 12), numbers("DROPS", 6)]
}

fn order(sort: Sort<GuestColumn>) -> Order {
    let (title, by) = match sort.column {
        GuestColumn::Name => ("GUEST", ""),
        GuestColumn::Dropped => ("DROPS", ""),
        GuestColumn::Worst => ("GUEST", "worst"),
        GuestColumn::Path => ("GUEST", "path"),
        GuestColumn::PacketRate => ("GUEST", "pkt/s"),
        GuestColumn::ByteRate => ("GUEST", "bit/s"),
        GuestColumn::Fragments => ("GUEST", "frags"),
    };
    let rises = matches!(sort.column, GuestColumn::Name | GuestColumn::Path);
    Order { title, by, rising: rises != sort.reversed }
}

/// Which stretch of time the screen shows.
struct Stretch {
    /// The newest bucket.
    last: u64,
    /// Columns.
    width: usize,
    /// Buckets in a column.
    each: u64,
}

impl Stretch {
    fn of(state: &State, width: u16) -> Self {
        let each = state.zoom.buckets();
        let newest = state.snapshot().now.0.saturating_sub(1) / BUCKET_NS;
        // Columns begin at round times, so that they don't flicker while time passes.
        let last = (newest / each + 1) * each - 1;
        let back = u64::from(state.back) * each;
        Self { last: last.saturating_sub(back), width: usize::from(width), each }
    }

    /// When a column begins.
    fn time(&self, column: usize) -> String {
        let columns = (self.width - column) as u64;
        let bucket = (self.last + 1).saturating_sub(columns * self.each);
        text::time_of_day(Timestamp(bucket * BUCKET_NS)).chars().take(8).collect()
    }

    /// The times below each other's columns, as many as there is room for.
    fn axis(&self) -> String {
        const APART: usize = 20;
        let mut axis = String::new();
        for column in (0..self.width.saturating_sub(14)).step_by(APART) {
            axis = text::fit(&format!("{axis}╷{}", self.time(column)), column + APART);
        }
        text::fit(&axis, self.width.saturating_sub(4)) + " now"
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let columns = columns();
    let stretch = Stretch::of(state, area.width.saturating_sub(BEFORE + 1));
    let list = &state.guests;
    let mut heading = table::heading(&columns, order(state.guest_sort), theme);
    let axis = if state.back > 0 { stretch.axis().replace(" now", " ...") } else { stretch.axis() };
    heading.push_span(Span::styled(axis, theme.faint()));
    let mut lines = vec![heading];
    let snapshot = state.snapshot();
    lines.extend(table::listed(list, area, |item, selected| {
        let facts = &snapshot.guests[item];
        let name = &snapshot.report.guests[facts.index].name;
        let buckets = facts.history.series.columns(stretch.last, stretch.width, stretch.each);
        let dropped: u64 = buckets.iter().map(|bucket| u64::from(bucket.dropped)).sum();
        let cells = vec![
            (theme::mark(facts.severity).to_owned(), theme.severity(facts.severity)),
            (name.clone(), Style::new()),
            table::count(dropped, text::number, theme.severity(Severity::Error), theme),
        ];
        let mut line = table::row(&columns, cells, selected, theme);
        line.spans.extend(strip(&buckets, |bucket| bucket.packets, theme));
        line
    }));
    if list.is_empty() {
        lines.extend(table::empty(guests::NO_GUEST, theme));
    }
    frame.render_widget(Paragraph::new(lines), area);
}

/// Bars of what is counted. Where packets were dropped stands a cross, where an incident lasted the bar has its colour.
fn strip(buckets: &[Bucket], value: fn(&Bucket) -> u32, theme: Theme) -> Vec<Span<'static>> {
    let bars: Vec<char> =
        table::sparkline(buckets.iter().map(|bucket| u64::from(value(bucket))), buckets.len() as u16).chars().collect();
    let column = |(bucket, bar): (&Bucket, &char)| match bucket {
        Bucket { dropped: 1.., .. } => Span::styled("✗", theme.severity(Severity::Error)),
        Bucket { faults: 1.., .. } if *bar == ' ' => Span::styled("!", theme.severity(Severity::Warning)),
        Bucket { faults: 1.., .. } => Span::styled(bar.to_string(), theme.severity(Severity::Warning)),
        Bucket { known: true, .. } if *bar == ' ' => Span::styled("·", theme.faint()),
        _ => Span::styled(bar.to_string(), theme.graph()),
    };
    buckets.iter().zip(&bars).map(column).collect()
}

/// The selected guest's past: rates, drops and faults, and which incidents began and ended.
pub(super) fn detail(state: &State, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let snapshot = state.snapshot();
    let Some(facts) = state.guests.current().and_then(|index| snapshot.guests.get(index)) else { return Vec::new() };
    let name = &snapshot.report.guests[facts.index].name;
    let stretch = Stretch::of(state, area.width.saturating_sub(BEFORE + 1));
    let title = format!(
        "{}  {} to {} UTC, {} a column",
        text::cut(name, 24),
        stretch.time(0),
        stretch.time(stretch.width),
        state.zoom.words()
    );
    let mut lines = vec![story::rule(&title, area.width, theme)];
    lines.extend(graphs(facts, &stretch, theme));
    let of_guest = |guest: &Option<String>| guest.as_ref().is_none_or(|guest| guest == name);
    let turns: Vec<_> = snapshot.turns.iter().rev().filter(|entry| of_guest(&entry.guest)).collect();
    if turns.is_empty() {
        lines.push(Line::styled("   no incident began or ended so far", theme.faint()));
    }
    for entry in turns {
        let time: String = text::time_of_day(entry.time).chars().take(8).collect();
        let line = format!("   {time} {}  {}", entry.device, entry.text);
        lines.push(Line::raw(text::cut(&line, usize::from(area.width).saturating_sub(1))));
    }
    lines
}

fn graphs(facts: &GuestFacts, stretch: &Stretch, theme: Theme) -> Vec<Line<'static>> {
    let buckets = facts.history.series.columns(stretch.last, stretch.width, stretch.each);
    let seconds = stretch.each * BUCKET_NS / 1_000_000_000;
    let rate = |value: u32, unit: u64| text::scaled((u64::from(value) * unit).div_ceil(seconds));
    let graph = |label: &str, value: fn(&Bucket) -> u32, most: String, style: Style| {
        let bars = table::sparkline(buckets.iter().map(|bucket| u64::from(value(bucket))), stretch.width as u16);
        let label = text::fit(&format!("   {label:<8} up to {most}"), usize::from(BEFORE));
        Line::from(vec![Span::raw(label), Span::styled(bars, style)])
    };
    let most = |value: fn(&Bucket) -> u32| buckets.iter().map(value).max().unwrap_or(0);
    let alarm = theme.severity(Severity::Error);
    vec![
        graph("pkt/s", |bucket| bucket.packets, rate(most(|bucket| bucket.packets), 1), theme.graph()),
        graph("bit/s", |bucket| bucket.kibibytes, rate(most(|bucket| bucket.kibibytes), 8_192), theme.graph()),
        graph("drops/s", |bucket| bucket.dropped, rate(most(|bucket| bucket.dropped), 1), alarm),
        graph(
            "faults",
            |bucket| u32::from(bucket.faults),
            most(|bucket| u32::from(bucket.faults)).to_string(),
            theme.severity(Severity::Warning),
        ),
    ]
}

//! Every key, from the key table.

use super::super::action::BINDINGS;
use super::super::state::State;
use super::super::text;
use super::super::theme::{self, Theme};
use crate::diagnose::report::Severity;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};
use ratatui::widgets::Paragraph;

/// Columns that keys take.
const KEYS: usize = 8;

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let keys = BINDINGS.iter().filter(|binding| binding.applies(state.replaying())).map(|binding| {
        let keys: Vec<String> = binding.keys.iter().map(ToString::to_string).collect();
        Line::from(vec![
            Span::styled(format!(" {} ", text::fit(&keys.join(" "), KEYS)), theme.accent()),
            Span::raw(binding.help),
        ])
    });
    let height = usize::from(area.height).max(1);
    let mut entries: Vec<Line<'static>> = keys.collect();
    // The keys come first: what the marks mean is said where there is room.
    let room = (2 * height).saturating_sub(entries.len());
    entries.extend(legend(theme).take(if room >= 4 { room } else { 0 }));
    let columns = entries.len().div_ceil(height).max(2);
    let width = area.width / columns as u16;
    for (column, lines) in entries.chunks(height.min(entries.len().div_ceil(columns))).enumerate() {
        let place = Rect { x: area.x + column as u16 * width, width, ..area };
        frame.render_widget(Paragraph::new(lines.to_vec()), place);
    }
}

fn legend(theme: Theme) -> impl Iterator<Item = Line<'static>> {
    let marks = [
        (Severity::Ok, "all delivered"),
        (Severity::Info, "worth knowing"),
        (Severity::Warning, "degraded, or about to be"),
        (Severity::Error, "traffic is lost"),
    ];
    let mark = move |(severity, meaning)| {
        Line::from(vec![
            Span::styled(format!(" {} ", text::fit(theme::mark(severity), KEYS)), theme.severity(severity)),
            Span::raw(meaning),
        ])
    };
    let others = [("mouse", "select, open; sort by heading"), ("? flow", "an answer may still come")];
    let other = move |(what, meaning)| {
        Line::from(vec![Span::styled(format!(" {} ", text::fit(what, KEYS)), theme.accent()), Span::raw(meaning)])
    };
    marks.into_iter().map(mark).chain(others.into_iter().map(other))
}

//! Rows of cells with fixed widths.

use super::super::text;
use super::super::theme::Theme;
use ratatui::style::Style;
use ratatui::text::{Line, Span};

/// A column: its heading and its width. Numbers stand on the right.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    pub(super) title: &'static str,
    pub(super) width: u16,
    pub(super) right: bool,
}

/// A column of words.
pub(super) fn words(title: &'static str, width: u16) -> Column {
    Column { title, width, right: false }
}

/// A column of numbers.
pub(super) fn numbers(title: &'static str, width: u16) -> Column {
    Column { title, width, right: true }
}

/// Columns that the cursor takes.
const CURSOR: u16 = 2;

/// What is left of `width` beside these columns, the cursor and the gaps, for one more column.
pub(super) fn rest(columns: &[Column], width: u16) -> u16 {
    let taken: u16 = columns.iter().map(|column| column.width + 1).sum();
    width.saturating_sub(taken + CURSOR)
}

fn fitted(column: Column, value: &str) -> String {
    let width = usize::from(column.width);
    if column.right { text::fit_right(value, width) } else { text::fit(value, width) }
}

/// The headings.
pub(super) fn heading(columns: &[Column], theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::raw("  ")];
    for column in columns {
        spans.push(Span::styled(fitted(*column, column.title), theme.heading()));
        spans.push(Span::raw(" "));
    }
    Line::from(spans)
}

/// A row; `selected` puts the cursor on it.
pub(super) fn row(columns: &[Column], cells: Vec<(String, Style)>, selected: bool, theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::raw(if selected { "▸ " } else { "  " })];
    for (column, (value, style)) in columns.iter().zip(cells) {
        spans.push(Span::styled(fitted(*column, &value), style));
        spans.push(Span::raw(" "));
    }
    let line = Line::from(spans);
    if selected { line.style(theme.selected()) } else { line }
}

/// The newest values as bars, the newest on the right; a value above zero is always seen.
pub(super) fn sparkline(values: impl DoubleEndedIterator<Item = u64>, width: u16) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let newest: Vec<u64> = values.rev().take(usize::from(width)).collect();
    let top = newest.iter().copied().max().unwrap_or(0);
    let bar = |value: u64| match value {
        0 => ' ',
        _ => BARS[usize::try_from((u128::from(value) * 8).div_ceil(u128::from(top))).unwrap_or(8).clamp(1, 8) - 1],
    };
    let bars: String = newest.into_iter().rev().map(bar).collect();
    text::fit_right(&bars, usize::from(width))
}

/// What stands in an empty list.
pub(super) fn empty(message: &str, theme: Theme) -> Vec<Line<'static>> {
    vec![Line::raw(""), Line::styled(format!("  {message}"), theme.faint())]
}

#[cfg(test)]
mod tests {
    use super::sparkline;

    #[test]
    fn bars_grow_with_their_values_and_the_newest_is_on_the_right() {
        assert_eq!(sparkline([0, 1, 50, 100].into_iter(), 6), "   ▁▄█");
        assert_eq!(sparkline([9, 9, 0].into_iter(), 2), "█ ");
        assert_eq!(sparkline(std::iter::empty(), 3), "   ");
    }
}

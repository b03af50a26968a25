//! Rows of cells with fixed widths.

use super::super::state::List;
use super::super::theme::Theme;
use super::super::{layout, text};
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
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

/// A count as a cell; a zero catches no eye.
pub(super) fn count(value: u64, written: fn(u64) -> String, style: Style, theme: Theme) -> (String, Style) {
    if value == 0 { ("·".to_owned(), theme.faint()) } else { (written(value), style) }
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

/// By which column rows are sorted: its title, what to add to it, and whether small values come first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) title: &'static str,
    pub(super) by: &'static str,
    pub(super) rising: bool,
}

/// The headings; the one that rows are sorted by bears an arrow.
pub(super) fn heading(columns: &[Column], order: Order, theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::raw("  ")];
    for column in columns {
        let order = Some(order).filter(|order| order.title == column.title && !column.title.is_empty());
        let arrow = order.map_or("", |order| if order.rising { "▲" } else { "▼" });
        match order {
            // A word has room behind it; a number stands at the edge, and its arrow in the gap.
            Some(order) if !column.right => {
                let by = if order.by.is_empty() { String::new() } else { format!(" by {}", order.by) };
                let long = format!("{}{by}{arrow}", column.title);
                let fits = long.chars().count() <= usize::from(column.width);
                let title = if fits { long } else { format!("{}{arrow}", column.title) };
                spans.push(Span::styled(fitted(*column, &title), theme.sorted()));
                spans.push(Span::raw(" "));
            }
            Some(_) => {
                spans.push(Span::styled(fitted(*column, column.title), theme.sorted()));
                spans.push(Span::styled(arrow, theme.sorted().remove_modifier(Modifier::UNDERLINED)));
            }
            None => {
                let style = if column.title.is_empty() { Style::new() } else { theme.heading() };
                spans.push(Span::styled(fitted(*column, column.title), style));
                spans.push(Span::raw(" "));
            }
        }
    }
    Line::from(spans)
}

/// The title of the column at this place of the heading.
pub(super) fn title_at(columns: &[Column], x: u16) -> Option<&'static str> {
    let mut start = CURSOR;
    columns.iter().find_map(|column| {
        let here = (start..=start + column.width).contains(&x);
        start += column.width + 1;
        here.then_some(column.title)
    })
}

/// A row; `selected` puts the cursor on it.
pub(super) fn row(columns: &[Column], cells: Vec<(String, Style)>, selected: bool, theme: Theme) -> Line<'static> {
    let mut spans = vec![Span::raw(if selected { "▸ " } else { "  " })];
    for (column, (value, style)) in columns.iter().zip(cells) {
        let style = if selected { theme.in_selected(style) } else { style };
        spans.push(Span::styled(fitted(*column, &value), style));
        spans.push(Span::raw(" "));
    }
    let line = Line::from(spans);
    if selected { line.style(theme.selected()) } else { line }
}

/// The rows of a list that are seen: `line` makes one from its number, an index into the snapshot, and whether the cursor is on it.
pub(super) fn numbered(
    list: &List,
    area: Rect,
    line: impl Fn(usize, usize, bool) -> Line<'static>,
) -> Vec<Line<'static>> {
    let seen = list.listing.rows.iter().enumerate().skip(list.offset).take(usize::from(layout::rows(area).height));
    seen.map(|(index, item)| line(index, *item as usize, index == list.selected)).collect()
}

/// The same without the number.
pub(super) fn listed(list: &List, area: Rect, line: impl Fn(usize, bool) -> Line<'static>) -> Vec<Line<'static>> {
    numbered(list, area, |_, item, selected| line(item, selected))
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

//! Drawing: state and theme in, cells out. Nothing here changes anything; one file per panel.

mod events;
mod faults;
mod flows;
mod footer;
mod guests;
mod header;
mod help;
mod packet;
mod path;
mod story;
mod table;
mod timeline;

use super::layout::{self, Areas, SMALLEST};
use super::state::{Screen, State};
use super::theme::{Palette, Theme};
use super::view::{FlowColumn, GuestColumn};
use ratatui::Frame;
use ratatui::layout::{Alignment, Rect};
use ratatui::text::Line;
use ratatui::widgets::Paragraph;

/// Draws a whole frame.
pub fn draw(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let whole = frame.area();
    match state.areas((whole.width, whole.height)) {
        None => too_small(frame, whole),
        Some(areas) => {
            header::draw(frame, areas.header, state, theme);
            header::draw_tabs(frame, areas.tabs, state, theme);
            let between = areas.footer.y - areas.tabs.bottom();
            let body = Rect { y: areas.tabs.bottom(), height: between, ..areas.tabs };
            match state.screen {
                _ if state.help => help::draw(frame, body, state, theme),
                Screen::Guests => guests::draw(frame, areas.list, state, theme),
                Screen::Flows => flows::draw(frame, areas.list, state, theme),
                Screen::Faults => faults::draw(frame, areas.list, state, theme),
                Screen::Events => events::draw(frame, areas.list, state, theme),
                Screen::Timeline => timeline::draw(frame, areas.list, state, theme),
                Screen::Path => {}
            }
            if !state.help {
                draw_beside(frame, areas, state, theme);
                draw_detail(frame, areas.detail, state, theme);
            }
            footer::draw(frame, areas.footer, state, theme);
        }
    }
    theme.finish(frame.buffer_mut());
}

/// On a wide terminal: the line between the two halves, and the path that stands in the left one.
fn draw_beside(frame: &mut Frame<'_>, areas: Areas, state: &State, theme: Theme) {
    if areas.detail.x == 0 {
        return;
    }
    let line = Rect { x: areas.detail.x - 1, width: 1, ..areas.detail };
    let lines: Vec<Line<'_>> = line.rows().map(|_| Line::styled("│", theme.faint())).collect();
    frame.render_widget(Paragraph::new(lines), line);
    if areas.aside.height > 0 {
        frame.render_widget(Paragraph::new(path::drawn(state, areas.aside.width, theme)), areas.aside);
    }
}

/// What belongs below the list of the screen or beside it, or is the whole screen.
fn detail(state: &State, area: Rect, theme: Theme) -> Vec<Line<'static>> {
    let width = area.width;
    match state.screen {
        Screen::Guests => guests::detail(state, area, theme),
        Screen::Flows => flows::detail(state, area, theme),
        Screen::Path if layout::is_wide(state.size.0) => path::told(state, width, theme),
        Screen::Path => path::detail(state, width, theme),
        Screen::Faults => faults::detail(state, width, theme),
        Screen::Events => events::detail(state, width, theme),
        Screen::Timeline => timeline::detail(state, area, theme),
    }
}

/// Lines of the text in `area`, so that scrolling knows its end.
pub(super) fn detail_length(state: &State, area: Rect) -> u16 {
    let theme = Theme::new(Palette::Plain, false);
    u16::try_from(detail(state, area, theme).len()).unwrap_or(u16::MAX)
}

fn draw_detail(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    if area.height == 0 {
        return;
    }
    let lines = detail(state, area, theme);
    let last = lines.len().saturating_sub(usize::from(area.height));
    let first = usize::from(state.scroll).min(last);
    let hidden = lines.len().saturating_sub(first + usize::from(area.height));
    let seen: Vec<Line<'_>> = lines.into_iter().skip(first).take(usize::from(area.height)).collect();
    frame.render_widget(Paragraph::new(seen), area);
    if hidden > 0 {
        let more = match state.screen {
            Screen::Guests | Screen::Flows => " Enter: more ".to_owned(),
            Screen::Events if !state.open => " Enter: more ".to_owned(),
            Screen::Path | Screen::Faults | Screen::Events | Screen::Timeline if hidden == 1 => {
                " 1 more line: PgDn ".to_owned()
            }
            Screen::Path | Screen::Faults | Screen::Events | Screen::Timeline => format!(" {hidden} more lines: PgDn "),
        };
        let width = (more.chars().count() as u16).min(area.width);
        let corner = Rect::new(area.right() - width, area.bottom() - 1, width, 1);
        frame.render_widget(Line::styled(more, theme.badge()), corner);
    }
}

/// What a list can be sorted by, at this place of its heading.
pub(super) enum Clicked {
    Guests(GuestColumn),
    Flows(FlowColumn),
}

/// The column whose title is at `x`.
pub(super) fn column_at(state: &State, x: u16) -> Option<Clicked> {
    let width = state.areas(state.size)?.list.width;
    match state.screen {
        Screen::Guests => guests::column_of(table::title_at(&guests::columns(width), x)?).map(Clicked::Guests),
        Screen::Flows => {
            let columns = flows::columns(width, state.flow_sort.column);
            flows::column_of(table::title_at(&columns, x)?).map(Clicked::Flows)
        }
        Screen::Path | Screen::Faults | Screen::Events | Screen::Timeline => None,
    }
}

fn too_small(frame: &mut Frame<'_>, area: Rect) {
    let text = format!("kvmtrace needs {}×{} here; this is {}×{}", SMALLEST.0, SMALLEST.1, area.width, area.height);
    let lines: Vec<Line<'_>> = super::text::wrap(&text, usize::from(area.width)).into_iter().map(Line::from).collect();
    frame.render_widget(Paragraph::new(lines).alignment(Alignment::Center), area);
}

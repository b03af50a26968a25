//! The last line: what is being typed, a word to the operator, or the keys that matter here.

use super::super::state::{List, Prompt, Screen, State};
use super::super::text;
use super::super::theme::Theme;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::text::{Line, Span};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let width = usize::from(area.width);
    let line = match (state.prompt, &state.message) {
        (Some(Prompt::Filter), _) => {
            let list = state.list(state.screen);
            prompt(" /", &list.filter, &format!("  {} match", list.rows.len()), width, theme)
        }
        (Some(Prompt::Time), _) => {
            prompt(" go to ", &state.typed_time, "  15:28:12, 15:28 or seconds from the start", width, theme)
        }
        (None, Some(message)) => {
            Line::styled(format!(" {}", text::cut(message, width.saturating_sub(2))), theme.accent())
        }
        (None, None) => hints(state, theme),
    };
    frame.render_widget(line, area);
}

/// The end of what is typed is what matters.
fn prompt(label: &'static str, typed: &str, hint: &str, width: usize, theme: Theme) -> Line<'static> {
    let typed = text::clean(typed);
    let room = width.saturating_sub(label.len() + 20);
    let skip = typed.chars().count().saturating_sub(room);
    let seen: String = typed.chars().skip(skip).collect();
    Line::from(vec![
        Span::styled(label, theme.accent()),
        Span::raw(seen),
        Span::styled(" ", theme.selected()),
        Span::styled(hint.to_owned(), theme.faint()),
    ])
}

fn hints(state: &State, theme: Theme) -> Line<'static> {
    let mut hints = vec![("?", "keys".to_owned())];
    match state.screen {
        Screen::Guests => {
            hints.push(("Enter", "path".to_owned()));
            hints.push(("s", order(state.guest_sort.column.word(), state.guest_sort.reversed)));
        }
        Screen::Flows => {
            hints.push(("Enter", "path".to_owned()));
            hints.push(("s", order(state.flow_sort.column.word(), state.flow_sort.reversed)));
        }
        Screen::Path => hints.push(("j k", "next, before".to_owned())),
        Screen::Faults => {
            hints.push(("Enter", "path".to_owned()));
            hints.push(("y", "copy fix".to_owned()));
        }
        Screen::Events => hints.push(("Enter", "detail".to_owned())),
    }
    if state.screen != Screen::Path {
        hints.push(("/", filter(state.list(state.screen))));
    }
    if state.replaying() {
        hints.push(("Space", "play".to_owned()));
        hints.push(("n", "fault".to_owned()));
    } else {
        hints.push(("Space", if state.frozen() { "go on" } else { "freeze" }.to_owned()));
    }
    hints.push(("q", "quit".to_owned()));
    let mut spans = vec![Span::raw(" ")];
    for (key, what) in hints {
        spans.extend([Span::styled(key, theme.accent()), Span::raw(format!(" {what}  "))]);
    }
    let list = state.list(state.screen);
    if !list.rows.is_empty() {
        spans.push(Span::styled(format!("{}/{}", list.selected + 1, list.rows.len()), theme.faint()));
    }
    Line::from(spans)
}

fn order(column: &str, reversed: bool) -> String {
    format!("sort: {column}{}", if reversed { " (reversed)" } else { "" })
}

fn filter(list: &List) -> String {
    if list.filter.is_empty() { "filter".to_owned() } else { format!("filter: {}", text::cut(&list.filter, 20)) }
}

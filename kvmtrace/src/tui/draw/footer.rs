//! The last line: what is being typed, a word to the operator, or the keys that matter here.

use super::super::choice;
use super::super::keep::Form;
use super::super::state::{List, Prompt, Screen, State};
use super::super::text;
use super::super::theme::Theme;
use crate::diagnose::report::Severity;
use ratatui::Frame;
use ratatui::layout::Rect;
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};

pub(super) fn draw(frame: &mut Frame<'_>, area: Rect, state: &State, theme: Theme) {
    let width = usize::from(area.width);
    let line = match (state.prompt, &state.message) {
        (Some(Prompt::Filter), _) => {
            let list = state.list(state.screen);
            let matches = match list.len() {
                0 => "  nothing matches; !word leaves out".to_owned(),
                1 => "  1 match".to_owned(),
                rows => format!("  {rows} match"),
            };
            let severity = if list.is_empty() { Severity::Warning } else { Severity::Ok };
            prompt(" /", &list.filter, matches, theme.severity(severity), width, theme)
        }
        (Some(Prompt::Time), _) => {
            let hint = "  15:28:12, 15:28 or seconds from the start".to_owned();
            prompt(" go to ", &state.typed_time, hint, theme.faint(), width, theme)
        }
        (Some(Prompt::Probe), _) => {
            let hint = "  icmp, arp, tcp PORT, udp PORT".to_owned();
            let guest = state.probed.as_ref().map(|probed| text::cut(&probed.guest, 16)).unwrap_or_default();
            prompt(&format!(" probe {guest} to "), &state.typed_probe, hint, theme.faint(), width, theme)
        }
        (Some(Prompt::Save), _) => forms(state, width, theme),
        (None, Some(message)) => {
            Line::styled(format!(" {}", text::cut(message, width.saturating_sub(2))), theme.accent())
        }
        (None, None) => hints(state, width, theme),
    };
    frame.render_widget(line, area);
}

/// The end of what is typed is what matters.
fn prompt(label: &str, typed: &str, hint: String, style: Style, width: usize, theme: Theme) -> Line<'static> {
    let typed = text::clean(typed);
    let room = width.saturating_sub(label.chars().count() + hint.chars().count() + 1);
    let skip = typed.chars().count().saturating_sub(room);
    let seen: String = typed.chars().skip(skip).collect();
    Line::from(vec![
        Span::styled(label.to_owned(), theme.accent()),
        Span::raw(seen),
        Span::styled(" ", Style::new().add_modifier(Modifier::REVERSED)),
        Span::styled(hint, style),
    ])
}

/// The forms that something can be saved in.
fn forms(state: &State, width: usize, theme: Theme) -> Line<'static> {
    let what = choice::keep(state, Form::Text).map(|keep| keep.what).unwrap_or_default();
    let forms = Form::ALL.into_iter().filter(|(_, form, _)| *form != Form::Command || chosen_command(state));
    let mut spans = vec![Span::styled(format!(" save {} as  ", text::cut(&what, width / 3)), theme.accent())];
    for (key, _, word) in forms {
        spans.extend([Span::styled(key.to_string(), theme.accent()), Span::raw(format!(" {word}  "))]);
    }
    spans.push(Span::styled("Esc nothing", theme.faint()));
    Line::from(spans)
}

fn chosen_command(state: &State) -> bool {
    choice::chosen_fix(state).is_some_and(|fix| fix.command.is_some())
}

fn hints(state: &State, width: usize, theme: Theme) -> Line<'static> {
    let mut hints = vec![("?", "keys".to_owned()), ("q", "quit".to_owned())];
    let replay = state.snapshot().status.replay.as_ref();
    if let Some(replay) = replay {
        hints.push(("Space", if replay.paused { "play" } else { "stop" }.to_owned()));
        hints.push(("n", "next fault".to_owned()));
    }
    if state.frozen() {
        hints.push(("Space", "go on".to_owned()));
    }
    match state.screen {
        Screen::Guests => hints.extend([("Enter", "flows".to_owned()), ("3", "path".to_owned())]),
        Screen::Flows => {
            let enter = match state.flows.group() {
                Some(group) if group.folded => "unfold",
                Some(_) => "fold",
                None => "path",
            };
            hints.extend([("Enter", enter.to_owned()), ("s", "sort".to_owned()), ("b", "group".to_owned())]);
        }
        Screen::Timeline => hints.extend([
            ("h l", "scroll".to_owned()),
            ("z", format!("zoom ({})", state.zoom.words())),
            ("Enter", "flows".to_owned()),
        ]),
        Screen::Path => hints.push(("j k", "next, before".to_owned())),
        Screen::Faults => {
            if replay.is_none() && choice::incident(state).is_some() {
                hints.push(("f", "fix".to_owned()));
            }
            hints.push(("Enter", "path".to_owned()));
        }
        Screen::Events => {
            hints.push(("Enter", if state.open { "close" } else { "detail" }.to_owned()));
            if !state.events.follow {
                hints.push(("f", "to the newest".to_owned()));
            }
        }
    }
    if chosen_command(state) {
        hints.push(("y", "copy fix".to_owned()));
    }
    if state.screen != Screen::Path {
        hints.push(("/", filter(state.list(state.screen))));
    }
    if replay.is_none() && !state.frozen() {
        hints.push(("Space", "freeze".to_owned()));
    }
    let list = state.list(state.screen);
    let position = match list.len() {
        0 => String::new(),
        rows => format!("{}/{rows}", list.selected + 1),
    };
    let position = match &state.of_guest {
        Some(guest) if state.screen == Screen::Flows => format!("of {}  {position}", text::cut(guest, 20)),
        _ => position,
    };
    let mut room = width.saturating_sub(position.chars().count() + 2);
    let mut spans = vec![Span::raw(" ")];
    for (key, what) in hints {
        let taken = key.len() + what.chars().count() + 3;
        // The last one needs no gap behind it.
        if taken > room + 1 {
            break;
        }
        room = room.saturating_sub(taken);
        spans.extend([Span::styled(key, theme.accent()), Span::raw(format!(" {what}  "))]);
    }
    spans.push(Span::raw(" ".repeat(room)));
    spans.push(Span::styled(position, theme.faint()));
    Line::from(spans)
}

fn filter(list: &List) -> String {
    if list.filter.is_empty() { "filter".to_owned() } else { format!("filter: {}", text::cut(&list.filter, 20)) }
}

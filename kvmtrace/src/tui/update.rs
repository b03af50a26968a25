//! From what the operator did to a new state, and to the effects that someone else must carry out. Pure.

use super::action::{self, Action};
use super::choice::{self, chosen_fix, chosen_fixes};
use super::draw::{self, Clicked};
use super::errand::{self, Errand};
use super::keep::{Form, Keep};
use super::layout;
use super::proposal;
use super::state::{Focus, Prompt, Screen, State};
use super::time;
use crate::diagnose::report::{Fix, FlowDirection, FlowReport};
use crate::event::Timestamp;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use ratatui::layout::Position;

/// What the state cannot do by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Leave.
    Quit,
    /// Give the terminal back to the shell.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Put this on the operator's clipboard.
    Copy(String),
    /// Write this into a file.
    Save(Box<Keep>),
    /// Have this run on the terminal.
    Run(Errand),
    /// Tell those who make the snapshots.
    Command(Command),
}

/// What is told to those who make the snapshots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Write a recording from now on, or end it.
    Record,
    /// Begin to count anew.
    Reset,
    /// Recording: play or stand still.
    Pause,
    /// Recording: faster or slower.
    Speed(i8),
    /// Recording: seconds forth or back.
    Seek(i16),
    /// Recording: to a time.
    SeekTo(Timestamp),
    /// Recording: to the next fault or the one before.
    Fault(i8),
    /// Recordings of several hosts: the next host, or the one before.
    Host(i8),
}

/// A key was pressed.
pub fn key(state: &mut State, event: KeyEvent) -> Vec<Effect> {
    state.message = None;
    if let Some(prompt) = state.prompt {
        return typed(state, prompt, event);
    }
    let Some(action) = action::action(event, state.replaying()) else { return Vec::new() };
    apply(state, action)
}

/// The mouse did something.
#[allow(clippy::wildcard_enum_match_arm, reason = "the mouse does more than is listened to")]
pub fn mouse(state: &mut State, event: MouseEvent) -> Vec<Effect> {
    let Some(areas) = state.areas(state.size) else { return Vec::new() };
    let position = Position::new(event.column, event.row);
    match event.kind {
        MouseEventKind::ScrollDown | MouseEventKind::ScrollUp => {
            let step = if event.kind == MouseEventKind::ScrollDown { 3 } else { -3 };
            if areas.detail.contains(position) || areas.aside.contains(position) {
                scroll(state, step);
                return Vec::new();
            }
            apply(state, Action::Move(step))
        }
        MouseEventKind::Down(MouseButton::Left) if areas.tabs.contains(position) => {
            let tab =
                layout::tabs(state.snapshot()).into_iter().find(|(_, _, columns)| columns.contains(&event.column));
            tab.map(|(screen, ..)| apply(state, Action::Go(screen))).unwrap_or_default()
        }
        MouseEventKind::Down(MouseButton::Left) if layout::heading(areas.list).contains(position) => {
            match draw::column_at(state, event.column) {
                Some(Clicked::Guests(column)) => state.guest_sort = state.guest_sort.clicked(column),
                Some(Clicked::Flows(column)) => state.flow_sort = state.flow_sort.clicked(column),
                None => {}
            }
            state.refresh();
            Vec::new()
        }
        MouseEventKind::Down(MouseButton::Left) if layout::rows(areas.list).contains(position) => {
            let list = state.list_mut();
            let row = list.offset + usize::from(event.row - layout::rows(areas.list).y);
            if row >= list.len() {
                return Vec::new();
            }
            if row == list.selected {
                return apply(state, Action::Enter);
            }
            select(state, row, false);
            Vec::new()
        }
        _ => Vec::new(),
    }
}

/// Text was pasted: part of what is being typed, and nothing else, lest a stray paste press keys.
pub fn paste(state: &mut State, text: &str) {
    if let Some(prompt) = state.prompt {
        for character in text.chars().filter(|character| !character.is_control()) {
            typed(state, prompt, KeyEvent::new(KeyCode::Char(character), KeyModifiers::NONE));
        }
    }
}

/// The terminal has another size.
pub fn resize(state: &mut State, size: (u16, u16)) {
    state.size = size;
    state.refresh();
}

/// A key while something is typed.
#[allow(clippy::wildcard_enum_match_arm, reason = "there are more keys than matter")]
fn typed(state: &mut State, prompt: Prompt, event: KeyEvent) -> Vec<Effect> {
    if prompt == Prompt::Save {
        return save(state, event);
    }
    let filter = prompt == Prompt::Filter;
    let text = match prompt {
        Prompt::Filter => &mut state.list_mut().filter,
        Prompt::Probe => &mut state.typed_probe,
        Prompt::Time | Prompt::Save => &mut state.typed_time,
    };
    match (event.code, event.modifiers.contains(KeyModifiers::CONTROL)) {
        (KeyCode::Enter, _) => {
            state.prompt = None;
            return match prompt {
                Prompt::Probe => probe(state),
                Prompt::Time => seek_to_typed(state),
                Prompt::Filter | Prompt::Save => Vec::new(),
            };
        }
        (KeyCode::Esc, _) | (KeyCode::Char('c'), true) => {
            text.clear();
            state.prompt = None;
        }
        (KeyCode::Char('u'), true) => text.clear(),
        (KeyCode::Char('w'), true) => {
            let kept = text.trim_end().rfind(' ').map_or(0, |space| space + 1);
            text.truncate(kept);
        }
        (KeyCode::Backspace, _) => {
            text.pop();
        }
        // A filter longer than any screen helps nobody, and pasting must not bloat the program.
        (KeyCode::Char(character), false) if text.len() < 200 => text.push(character),
        (KeyCode::Down, _) if filter => return apply(state, Action::Move(1)),
        (KeyCode::Up, _) if filter => return apply(state, Action::Move(-1)),
        _ => return Vec::new(),
    }
    if filter {
        state.refresh();
    }
    Vec::new()
}

/// The form was chosen, or another key pressed.
#[allow(clippy::wildcard_enum_match_arm, reason = "there are more keys than matter")]
fn save(state: &mut State, event: KeyEvent) -> Vec<Effect> {
    state.prompt = None;
    let chosen = match event.code {
        KeyCode::Char(key) => Form::ALL.into_iter().find(|(letter, ..)| *letter == key),
        _ => None,
    };
    let Some((_, form, _)) = chosen else {
        state.message = Some("nothing saved".to_owned());
        return Vec::new();
    };
    let Some(keep) = choice::keep(state, form) else { return Vec::new() };
    if form == Form::Command && keep.command.is_none() {
        state.message = Some("no command to save here: the cure lies elsewhere, or nothing is wrong".to_owned());
        return Vec::new();
    }
    vec![Effect::Save(Box::new(keep))]
}

/// What was typed is run, if it is a probe.
fn probe(state: &mut State) -> Vec<Effect> {
    let text = std::mem::take(&mut state.typed_probe);
    let Some((target, packet)) = errand::parse(&text) else {
        state.message =
            Some(format!("{text:?} is no probe: ADDRESS, gateway or host, then icmp, arp, tcp PORT or udp PORT"));
        return Vec::new();
    };
    let Some(probed) = state.probed.take() else { return Vec::new() };
    vec![Effect::Run(probed.errand(target, packet))]
}

/// A probe was sent: its way is shown as soon as the trace has it.
pub(super) fn await_probe(state: &mut State, device: &str) {
    state.awaited = Some(device.to_owned());
    show_probe(state);
}

/// Shows the way of the probe that was sent, if it is there.
pub(super) fn show_probe(state: &mut State) {
    let Some(device) = &state.awaited else { return };
    let of_it = |flow: &FlowReport| {
        flow.probe && flow.device.as_ref() == Some(device) && flow.direction != FlowDirection::ToGuest
    };
    let flows = state.snapshot().report.flows.iter().enumerate().filter(|(_, flow)| of_it(flow));
    let Some((index, _)) = flows.max_by_key(|(_, flow)| flow.last_seen) else { return };
    state.awaited = None;
    state.reveal(index);
    if state.screen != Screen::Flows {
        go(state, Screen::Flows);
    }
    state.renew();
    go(state, Screen::Path);
}

fn seek_to_typed(state: &mut State) -> Vec<Effect> {
    let text = std::mem::take(&mut state.typed_time);
    let start = state.snapshot().status.replay.as_ref().map(|replay| replay.start).unwrap_or_default();
    if let Some(time) = time::parse(&text, start) {
        return vec![Effect::Command(Command::SeekTo(time))];
    }
    state.message = Some(format!("{text:?} is no time: 15:28:12, 15:28 or 90 (seconds from the start)"));
    Vec::new()
}

/// Carries an action out.
pub fn apply(state: &mut State, action: Action) -> Vec<Effect> {
    if state.help && !matches!(action, Action::Quit | Action::Redraw | Action::Suspend) {
        state.help = false;
        if matches!(action, Action::Help | Action::Back | Action::Enter) {
            return Vec::new();
        }
    }
    match action {
        Action::Quit => return vec![Effect::Quit],
        Action::Suspend => return vec![Effect::Suspend],
        Action::Redraw => return vec![Effect::Redraw],
        Action::Help => state.help = true,
        Action::Go(screen) => go(state, screen),
        Action::NextScreen => go(state, Screen::ALL[(state.screen as usize + 1) % Screen::ALL.len()]),
        Action::PreviousScreen => {
            go(state, Screen::ALL[(state.screen as usize + Screen::ALL.len() - 1) % Screen::ALL.len()]);
        }
        Action::Move(rows) => step(state, isize::from(rows)),
        Action::Page(pages) => {
            let half = i16::try_from(state.list_height() / 2).unwrap_or(i16::MAX).max(1);
            match state.screen {
                Screen::Path | Screen::Faults | Screen::Timeline => scroll(state, pages.saturating_mul(half)),
                Screen::Events if state.open => scroll(state, pages.saturating_mul(half)),
                Screen::Guests | Screen::Flows | Screen::Events => step(state, isize::from(pages.saturating_mul(half))),
            }
        }
        Action::First => step(state, isize::MIN),
        Action::Last => step(state, isize::MAX),
        Action::Enter => enter(state),
        Action::Back => back(state),
        Action::Pause if state.replaying() => return vec![Effect::Command(Command::Pause)],
        Action::Pause => state.toggle_freeze(),
        Action::Filter if state.screen == Screen::Path => state.message = Some("nothing to filter here".to_owned()),
        Action::Filter => state.prompt = Some(Prompt::Filter),
        Action::Sort | Action::Reverse => sort(state, action == Action::Reverse),
        Action::Fold if state.screen == Screen::Timeline => {
            state.zoom = state.zoom.next();
            state.back = 0;
        }
        Action::Group | Action::Fold if state.screen != Screen::Flows => {
            state.message = Some("only flows are in groups: they are on screen 2".to_owned());
        }
        Action::Group => {
            state.grouping = state.grouping.next();
            state.message = Some(format!("flows {}", state.grouping.words()));
            state.refresh();
        }
        Action::Fold => state.fold_all(),
        Action::Probe => match proposal::proposed(state) {
            Some((probed, words)) => {
                (state.probed, state.typed_probe) = (Some(probed), words);
                state.prompt = Some(Prompt::Probe);
            }
            None => state.message = Some("nothing to probe here: go to a guest, or to a flow of IP".to_owned()),
        },
        Action::Follow if !state.replaying() && choice::incident(state).is_some() => {
            let incident = choice::incident(state).unwrap_or_default().to_owned();
            return vec![Effect::Run(Errand::Fix { incident })];
        }
        Action::Follow => follow(state),
        Action::Record => return vec![Effect::Command(Command::Record)],
        Action::Reset => {
            state.message = Some("counting anew; latencies stay as they were measured".to_owned());
            return vec![Effect::Command(Command::Reset)];
        }
        Action::Save if choice::keep(state, Form::Text).is_none() => {
            state.message = Some("nothing to save here: go to a guest, a flow or an incident".to_owned());
        }
        Action::Save => state.prompt = Some(Prompt::Save),
        Action::Copy => {
            return copy(
                state,
                |fix| fix.command.as_ref(),
                "no command to copy here: the cure lies elsewhere, or nothing is wrong",
            );
        }
        Action::CopyUndo => return copy(state, |fix| fix.undo.as_ref(), "nothing to copy that would take it back"),
        Action::Fix(step) if state.screen == Screen::Timeline => scroll_time(state, step > 0),
        Action::Fix(step) if state.fold(Some(step < 0)) => {}
        Action::Fix(step) => {
            let count = chosen_fixes(state).len().max(1);
            // The one before the first is the last.
            state.fix = (state.fix + count).saturating_add_signed(isize::from(step)) % count;
        }
        Action::Seek(seconds) => return vec![Effect::Command(Command::Seek(seconds))],
        Action::Fault(step) => return vec![Effect::Command(Command::Fault(step))],
        Action::Host(step) => return vec![Effect::Command(Command::Host(step))],
        Action::Speed(step) => return vec![Effect::Command(Command::Speed(step))],
        Action::SeekTo => state.prompt = Some(Prompt::Time),
    }
    Vec::new()
}

fn go(state: &mut State, screen: Screen) {
    if screen == state.screen {
        return;
    }
    if screen == Screen::Path {
        state.focus = match state.screen {
            Screen::Flows => Focus::Flow,
            Screen::Faults => Focus::Fault,
            Screen::Guests | Screen::Timeline => Focus::Guest,
            Screen::Path | Screen::Events => state.focus,
        };
    }
    // A look at one guest ends with another way to the flows than back.
    if screen == Screen::Flows {
        state.of_guest = None;
    }
    state.trail.push(state.screen);
    // Nobody remembers more than the last few; an endless Tab must not grow the program.
    if state.trail.len() > 16 {
        state.trail.remove(0);
    }
    show(state, screen);
}

fn show(state: &mut State, screen: Screen) {
    state.screen = screen;
    state.scroll = 0;
    state.fix = 0;
    state.refresh();
}

fn enter(state: &mut State) {
    match state.screen {
        Screen::Guests | Screen::Timeline => enter_guest(state),
        Screen::Flows => {
            if !state.fold(None) {
                go(state, Screen::Path);
            }
        }
        Screen::Faults => go(state, Screen::Path),
        Screen::Path => go(state, Screen::Faults),
        Screen::Events => {
            state.open = !state.open;
            // The one that is read must not give way to a newer one.
            let row = state.events.selected;
            select(state, row, false);
            state.refresh();
        }
    }
}

/// The flows of the guest under the cursor.
fn enter_guest(state: &mut State) {
    let snapshot = state.snapshot();
    let facts = state.guests.current().and_then(|index| snapshot.guests.get(index));
    let name = facts.map(|facts| snapshot.report.guests[facts.index].name.clone());
    if name.is_some() {
        go(state, Screen::Flows);
        state.of_guest = name;
        state.refresh();
    }
}

fn back(state: &mut State) {
    if state.screen == Screen::Events && state.open {
        state.open = false;
        state.refresh();
    } else if state.screen != Screen::Path && !state.list_mut().filter.is_empty() {
        state.list_mut().filter.clear();
        state.refresh();
    } else if let Some(screen) = state.trail.pop() {
        if state.screen == Screen::Flows {
            state.of_guest = None;
        }
        show(state, screen);
    }
}

/// Moves the cursor.
fn step(state: &mut State, rows: isize) {
    let list = state.list_mut();
    let bottom = list.len().saturating_sub(1);
    let row = list.selected.saturating_add_signed(rows).min(bottom);
    // Who moves up wants to stay there, even where there is one row only so far.
    select(state, row, rows >= 0 && row == bottom);
}

/// Puts the cursor on a row. Among the events it stays there, or keeps to the newest.
fn select(state: &mut State, row: usize, newest: bool) {
    let events = state.screen == Screen::Events;
    let list = state.list_mut();
    list.selected = row;
    if events {
        list.follow = newest;
    }
    state.hold();
    state.scroll = 0;
    state.fix = 0;
}

/// Scrolls the text, as far as there is some.
fn scroll(state: &mut State, rows: i16) {
    let Some(areas) = state.areas(state.size) else { return };
    let length = draw::detail_length(state, areas.detail);
    let last = length.saturating_sub(areas.detail.height);
    state.scroll = state.scroll.saturating_add_signed(rows).min(last);
}

/// A quarter of the time line earlier or later, as far as anything is known.
fn scroll_time(state: &mut State, later: bool) {
    let step = u32::from(state.size.0 / 4).max(1);
    let snapshot = state.snapshot();
    let oldest = snapshot.guests.iter().map(|guest| guest.history.series.oldest()).min().unwrap_or(0);
    let newest = snapshot.guests.iter().map(|guest| guest.history.series.newest()).max().unwrap_or(0);
    let most = u32::try_from(newest.saturating_sub(oldest) / state.zoom.buckets()).unwrap_or(u32::MAX);
    state.back = if later { state.back.saturating_sub(step) } else { state.back.saturating_add(step).min(most) };
}

fn sort(state: &mut State, reverse: bool) {
    match state.screen {
        Screen::Guests | Screen::Timeline if reverse => state.guest_sort.reversed = !state.guest_sort.reversed,
        Screen::Guests | Screen::Timeline => state.guest_sort = state.guest_sort.next(),
        Screen::Flows if reverse => state.flow_sort.reversed = !state.flow_sort.reversed,
        Screen::Flows => state.flow_sort = state.flow_sort.next(),
        Screen::Path | Screen::Faults | Screen::Events => {
            state.message = Some("this list has one order".to_owned());
            return;
        }
    }
    let (word, reversed) = match state.screen {
        Screen::Guests | Screen::Timeline => (state.guest_sort.column.word(), state.guest_sort.reversed),
        Screen::Flows | Screen::Path | Screen::Faults | Screen::Events => {
            (state.flow_sort.column.word(), state.flow_sort.reversed)
        }
    };
    state.message = Some(format!("sorted by {word}{}", if reversed { ", the other way round" } else { "" }));
    state.refresh();
}

fn follow(state: &mut State) {
    let list = state.list_mut();
    list.follow = !list.follow;
    let follows = list.follow;
    if follows {
        state.renew();
    }
    state.hold();
    state.message = Some(if follows { "following" } else { "not following" }.to_owned());
}

fn copy(state: &mut State, part: impl Fn(&Fix) -> Option<&String>, nothing: &str) -> Vec<Effect> {
    let Some(text) = chosen_fix(state).and_then(part).cloned() else {
        state.message = Some(nothing.to_owned());
        return Vec::new();
    };
    // A terminal that does not take it gives no sign.
    state.message = Some(format!("asked the terminal to copy (OSC 52); x c makes a file of it: {text}"));
    vec![Effect::Copy(text)]
}

//! The screens as text, and what keys do to the state.

mod events;
mod groups;
mod keys;
mod screens;

use super::fixture;
use super::*;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers, MouseButton, MouseEvent, MouseEventKind};
use proptest::prelude::*;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use std::sync::Arc;

const SMALL: (u16, u16) = (80, 24);
const LARGE: (u16, u16) = (160, 50);

/// The screen as the operator sees it, one line each.
fn render(state: &State) -> String {
    let mut terminal = Terminal::new(TestBackend::new(state.size.0, state.size.1)).unwrap();
    let frame = terminal.draw(|frame| draw(frame, state, Theme::new(Palette::True, false))).unwrap();
    let rows = frame.buffer.content.chunks(usize::from(state.size.0));
    rows.map(|row| row.iter().map(ratatui::buffer::Cell::symbol).collect::<String>().trim_end().to_owned() + "\n")
        .collect()
}

fn press(state: &mut State, keys: &str) -> Vec<Effect> {
    let mut effects = Vec::new();
    for key in keys.split(' ') {
        let code = match key {
            "Enter" => KeyCode::Enter,
            "Esc" => KeyCode::Esc,
            "Tab" => KeyCode::Tab,
            "S-Tab" => KeyCode::BackTab,
            "Space" => KeyCode::Char(' '),
            "Down" => KeyCode::Down,
            "Home" => KeyCode::Home,
            "PgDn" => KeyCode::PageDown,
            "PgUp" => KeyCode::PageUp,
            "Backspace" => KeyCode::Backspace,
            text => {
                for character in text.chars() {
                    effects.extend(update::key(state, KeyEvent::new(KeyCode::Char(character), KeyModifiers::NONE)));
                }
                continue;
            }
        };
        effects.extend(update::key(state, KeyEvent::new(code, KeyModifiers::NONE)));
    }
    effects
}

fn healthy() -> Arc<Snapshot> {
    fixture::snapshot_over_time(fixture::healthy_report)
}

fn broken() -> Arc<Snapshot> {
    fixture::snapshot_over_time(fixture::mtu_report)
}

/// The screen after some keys.
fn screen(snapshot: Arc<Snapshot>, size: (u16, u16), keys: &str) -> String {
    let mut state = State::new(snapshot, size);
    if !keys.is_empty() {
        press(&mut state, keys);
    }
    render(&state)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, failure_persistence: None, ..ProptestConfig::default() })]

    /// The frame of a screen is where it is whatever a guest calls itself.
    #[test]
    fn no_name_breaks_a_row(names in proptest::collection::vec(any::<String>(), 1..4), size in (60u16..170, 16u16..50)) {
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let snapshot = fixture::snapshot(fixture::hostile_report(&names), Status::default());
        for keys in ["1", "2", "2 Enter", "1 Enter", "4", "4 Enter", "5 Enter"] {
            let mut state = State::new(Arc::clone(&snapshot), size);
            press(&mut state, keys);
            let mut terminal = Terminal::new(TestBackend::new(size.0, size.1)).unwrap();
            let frame = terminal.draw(|frame| draw(frame, &state, Theme::new(Palette::True, false))).unwrap();
            for cell in &frame.buffer.content {
                let mut characters = cell.symbol().chars();
                let one = characters.next().is_some() && characters.next().is_none();
                prop_assert!(one && text::clean(cell.symbol()) == cell.symbol(), "{:?} reached the screen", cell.symbol());
            }
        }
    }

    /// Whatever is pressed, nothing panics and the screen can be drawn.
    #[test]
    fn no_key_breaks_the_state(keys in proptest::collection::vec(0usize..BINDINGS.len(), 0..60), size in (1u16..200, 1u16..60), typed in ".{0,8}") {
        let mut state = State::new(fixture::snapshot(fixture::mtu_report(60), Status::default()), size);
        for key in keys {
            update::apply(&mut state, BINDINGS[key].action);
            if state.prompt.is_some() {
                for character in typed.chars() {
                    update::key(&mut state, KeyEvent::new(KeyCode::Char(character), KeyModifiers::NONE));
                }
                update::key(&mut state, KeyEvent::new(KeyCode::Enter, KeyModifiers::NONE));
            }
            render(&state);
        }
    }
}

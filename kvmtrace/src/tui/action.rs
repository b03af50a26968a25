//! The keys, as a table: what each does, and what the help says of it.

use super::state::Screen;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

/// What the operator wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Leave.
    Quit,
    /// Stop the program as `Ctrl-Z` does.
    Suspend,
    /// Draw everything anew.
    Redraw,
    /// Show or hide the keys.
    Help,
    /// To a screen.
    Go(Screen),
    /// To the next screen.
    NextScreen,
    /// To the screen before.
    PreviousScreen,
    /// Rows down (negative: up).
    Move(i16),
    /// Half screens down (negative: up).
    Page(i16),
    /// To the first row.
    First,
    /// To the last row.
    Last,
    /// Open what is selected.
    Enter,
    /// Back to where one came from.
    Back,
    /// Freeze the screen; in a recording: stand still.
    Pause,
    /// Begin to type a filter.
    Filter,
    /// Sort by the next column.
    Sort,
    /// The other way round.
    Reverse,
    /// Group flows by the next thing that they have in common.
    Group,
    /// Unfold all groups, or fold them.
    Fold,
    /// Keep the cursor on its flow, or on the newest event.
    Follow,
    /// Write a recording from now on, or end it.
    Record,
    /// Begin to count anew.
    Reset,
    /// Copy the command of the fix.
    Copy,
    /// Copy the command that takes the fix back.
    CopyUndo,
    /// Begin to type a probe.
    Probe,
    /// Save what is under the cursor.
    Save,
    /// The next fix (negative: the one before).
    Fix(i8),
    /// Recording: seconds forth (negative: back).
    Seek(i16),
    /// Recording: to the next fault (negative: the one before).
    Fault(i8),
    /// Recordings of several hosts: the next host (negative: the one before).
    Host(i8),
    /// Recording: faster (negative: slower).
    Speed(i8),
    /// Recording: begin to type a time.
    SeekTo,
}

/// When a key works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Always.
    Always,
    /// While tracing.
    Live,
    /// In a recording.
    Replay,
}

/// A row of the key table.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// Keys that do it.
    pub keys: &'static [Key],
    /// What they do.
    pub action: Action,
    /// When.
    pub scope: Scope,
    /// What the help says; empty for what needs no line of its own.
    pub help: &'static str,
}

/// A key with its modifiers; shift is part of a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key(pub KeyCode, pub KeyModifiers);

const fn key(code: KeyCode) -> Key {
    Key(code, KeyModifiers::NONE)
}

const fn char(character: char) -> Key {
    key(KeyCode::Char(character))
}

const fn control(character: char) -> Key {
    Key(KeyCode::Char(character), KeyModifiers::CONTROL)
}

const fn always(keys: &'static [Key], action: Action, help: &'static str) -> Binding {
    Binding { keys, action, scope: Scope::Always, help }
}

const fn replay(keys: &'static [Key], action: Action, help: &'static str) -> Binding {
    Binding { keys, action, scope: Scope::Replay, help }
}

const fn live(keys: &'static [Key], action: Action, help: &'static str) -> Binding {
    Binding { keys, action, scope: Scope::Live, help }
}

/// All keys.
pub const BINDINGS: &[Binding] = &[
    always(&[char('1')], Action::Go(Screen::Guests), "guests"),
    always(&[char('2')], Action::Go(Screen::Flows), "flows"),
    always(&[char('3')], Action::Go(Screen::Path), "path of the selection"),
    always(&[char('4')], Action::Go(Screen::Faults), "incidents and their fixes"),
    always(&[char('5')], Action::Go(Screen::Events), "events"),
    always(&[char('6')], Action::Go(Screen::Timeline), "time line of the guests"),
    always(&[key(KeyCode::Tab)], Action::NextScreen, "next screen"),
    always(&[key(KeyCode::BackTab)], Action::PreviousScreen, "screen before"),
    always(&[char('j'), key(KeyCode::Down)], Action::Move(1), "down"),
    always(&[char('k'), key(KeyCode::Up)], Action::Move(-1), "up"),
    always(&[control('d'), key(KeyCode::PageDown)], Action::Page(1), "page down, in texts too"),
    always(&[control('u'), key(KeyCode::PageUp)], Action::Page(-1), "page up"),
    always(&[char('g'), key(KeyCode::Home)], Action::First, "first row"),
    always(&[char('G'), key(KeyCode::End)], Action::Last, "last row"),
    always(&[key(KeyCode::Enter)], Action::Enter, "open: flows, group, path"),
    always(&[key(KeyCode::Esc)], Action::Back, "back; clears the filter"),
    always(&[char('/')], Action::Filter, "filter as you type, !word not"),
    always(&[char('s')], Action::Sort, "sort by the next column"),
    always(&[char('S')], Action::Reverse, "reverse the sort order"),
    always(&[char('b')], Action::Group, "flows by guest, peer, cause …"),
    always(&[char('z')], Action::Fold, "unfold all groups; zoom time"),
    always(&[char('f')], Action::Follow, "fix incident; follow the row"),
    always(&[char('y')], Action::Copy, "ask terminal to copy the fix"),
    always(&[char('u')], Action::CopyUndo, "ask it to copy the undo"),
    always(&[char('x')], Action::Save, "save it: text, JSON, pcapng"),
    always(&[char('l'), key(KeyCode::Right)], Action::Fix(1), "next fix; unfold; later"),
    always(&[char('h'), key(KeyCode::Left)], Action::Fix(-1), "fix before; fold; earlier"),
    live(&[char(' ')], Action::Pause, "freeze screen, keep tracing"),
    live(&[char('p')], Action::Probe, "probe guest, flow or incident"),
    live(&[char('w')], Action::Record, "start or stop recording"),
    live(&[char('r')], Action::Reset, "reset the counters"),
    replay(&[char(' ')], Action::Pause, "play or pause"),
    replay(&[char('+'), char('=')], Action::Speed(1), "faster"),
    replay(&[char('-')], Action::Speed(-1), "slower"),
    replay(&[char(']')], Action::Seek(10), "ten seconds forward"),
    replay(&[char('[')], Action::Seek(-10), "ten seconds back"),
    replay(&[char('t')], Action::SeekTo, "go to a time (15:28, or 90)"),
    replay(&[char('n')], Action::Fault(1), "next fault"),
    replay(&[char('N')], Action::Fault(-1), "fault before"),
    replay(&[char('o')], Action::Host(1), "next host of several"),
    always(&[control('l')], Action::Redraw, "redraw the screen"),
    always(&[control('z')], Action::Suspend, "to the shell; fg comes back"),
    always(&[char('?'), key(KeyCode::F(1))], Action::Help, "this help"),
    always(&[char('q'), control('c')], Action::Quit, "quit"),
];

impl Binding {
    /// It works here.
    pub(super) fn applies(&self, replay: bool) -> bool {
        match self.scope {
            Scope::Always => true,
            Scope::Live => !replay,
            Scope::Replay => replay,
        }
    }
}

/// What a key means.
#[allow(clippy::wildcard_enum_match_arm, reason = "there are more keys than matter")]
pub(super) fn action(event: KeyEvent, replay: bool) -> Option<Action> {
    // Terminals tell shift with a character or not; the character says it all.
    let modifiers = match event.code {
        KeyCode::Char(_) | KeyCode::BackTab => event.modifiers - KeyModifiers::SHIFT,
        _ => event.modifiers,
    };
    let pressed = Key(event.code, modifiers);
    BINDINGS
        .iter()
        .find(|binding| binding.applies(replay) && binding.keys.contains(&pressed))
        .map(|binding| binding.action)
}

/// How a key is written in the help.
impl std::fmt::Display for Key {
    #[allow(clippy::wildcard_enum_match_arm, reason = "the others are written as crossterm writes them")]
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self(code, modifiers) = self;
        if modifiers.contains(KeyModifiers::CONTROL) {
            f.write_str("^")?;
        }
        match code {
            KeyCode::Char(' ') => f.write_str("Space"),
            KeyCode::Char(character) if modifiers.contains(KeyModifiers::CONTROL) => {
                write!(f, "{}", character.to_ascii_uppercase())
            }
            KeyCode::Char(character) => write!(f, "{character}"),
            KeyCode::Down => f.write_str("↓"),
            KeyCode::Up => f.write_str("↑"),
            KeyCode::Left => f.write_str("←"),
            KeyCode::Right => f.write_str("→"),
            KeyCode::PageDown => f.write_str("PgDn"),
            KeyCode::PageUp => f.write_str("PgUp"),
            KeyCode::BackTab => f.write_str("S-Tab"),
            other => write!(f, "{other}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_key_means_two_things_at_once() {
        for replay in [false, true] {
            let bindings = BINDINGS.iter().filter(|binding| binding.applies(replay));
            let keys: Vec<Key> = bindings.flat_map(|binding| binding.keys).copied().collect();
            for (index, key) in keys.iter().enumerate() {
                assert!(!keys[index + 1..].contains(key), "{key} is bound twice");
            }
        }
    }

    #[test]
    fn shift_is_part_of_the_character() {
        let shifted = KeyEvent::new(KeyCode::Char('G'), KeyModifiers::SHIFT);
        assert_eq!(action(shifted, false), Some(Action::Last));
        let control = KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL);
        assert_eq!(action(control, false), Some(Action::Quit));
        assert_eq!(
            action(KeyEvent::new(KeyCode::Char('w'), KeyModifiers::NONE), true),
            None,
            "nothing to record in a recording"
        );
    }
}

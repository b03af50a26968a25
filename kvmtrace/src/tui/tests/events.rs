//! The events: a list that grows while one reads it.

use super::*;
use crate::diagnose::report::Report;
use crate::event::{Event, EventKind, Loss, Timestamp};

#[test]
fn the_newest_event_stays_in_sight_until_one_moves_up() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "5");
    let last = state.events.listing.rows.len() - 1;
    assert_eq!(state.events.selected, last);
    press(&mut state, "kk");
    assert!(!state.events.follow);
    press(&mut state, "G");
    assert!(state.events.follow);
    press(&mut state, "kkf");
    assert_eq!(state.events.selected, last, "f goes to the newest again");
}

/// A host on which something is dropped every second.
struct Stream {
    log: Log,
    report: Report,
    history: History,
}

impl Stream {
    fn new() -> Self {
        Self { log: Log::default(), report: fixture::mtu_report(60), history: History::default() }
    }

    /// So many more events, and what is known then.
    fn after(&mut self, events: u64) -> Arc<Snapshot> {
        for number in 0..events {
            let loss = Loss { ring_events: number + 1, ..Loss::default() };
            let kind = EventKind::Loss(loss);
            self.log.push(&Event { time: Timestamp(number), kind });
        }
        let (report, devices) = (self.report.clone(), Devices::new());
        let now = report.window.end;
        Arc::new(Snapshot::new(1, now, report, &mut self.history, self.log.entries(), devices, Status::default()))
    }
}

/// The number of the event under the cursor.
fn event_under_the_cursor(state: &State) -> u64 {
    state.snapshot().events[state.events.listing.rows[state.events.selected] as usize].serial
}

#[test]
fn the_first_event_stays_under_the_cursor_while_others_come_in() {
    for (at_first, key) in [(1, "g"), (2, "g"), (50, "g"), (50, "Home"), (0, "g")] {
        let mut stream = Stream::new();
        let mut state = State::new(stream.after(at_first), SMALL);
        press(&mut state, "5");
        press(&mut state, key);
        for _ in 0..30 {
            state.show(stream.after(7));
            assert_eq!((state.events.selected, state.events.offset), (0, 0), "{key} with {at_first} events");
        }
        assert_eq!(event_under_the_cursor(&state), 1);
        // When it is forgotten, the oldest that is left takes its place.
        state.show(stream.after(3_000));
        assert_eq!((state.events.selected, state.events.offset), (0, 0));
    }
}

#[test]
fn an_event_in_the_middle_is_held_until_it_is_forgotten() {
    let mut stream = Stream::new();
    let mut state = State::new(stream.after(100), SMALL);
    press(&mut state, "5 kkk");
    assert_eq!(event_under_the_cursor(&state), 97);
    state.show(stream.after(1_950));
    assert_eq!(event_under_the_cursor(&state), 97);
    state.show(stream.after(100));
    assert_eq!((event_under_the_cursor(&state), state.events.selected), (151, 0), "it has left the ring");
}

#[test]
fn an_event_that_is_opened_or_clicked_does_not_give_way_to_newer_ones() {
    let mut stream = Stream::new();
    let mut state = State::new(stream.after(100), SMALL);
    press(&mut state, "5 Enter");
    state.show(stream.after(5));
    assert_eq!(event_under_the_cursor(&state), 100);
    press(&mut state, "Esc G");
    state.show(stream.after(5));
    assert_eq!(event_under_the_cursor(&state), 110);
    let click =
        MouseEvent { kind: MouseEventKind::Down(MouseButton::Left), column: 20, row: 6, modifiers: KeyModifiers::NONE };
    update::mouse(&mut state, click);
    let clicked = event_under_the_cursor(&state);
    assert!(clicked < 110);
    state.show(stream.after(5));
    assert_eq!(event_under_the_cursor(&state), clicked);
}

//! The screens as text, and what keys do to the state.

use super::fixture::{self, HOSTILE_NAMES};
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

#[test]
fn every_screen_of_a_healthy_host() {
    for (name, keys) in [("guests", "1"), ("flows", "2"), ("path", "1 Enter"), ("faults", "4"), ("events", "5")] {
        insta::assert_snapshot!(format!("healthy-{name}-80x24"), screen(healthy(), SMALL, keys));
    }
    insta::assert_snapshot!("healthy-guests-160x50", screen(healthy(), LARGE, "1"));
    insta::assert_snapshot!("healthy-flow-path-80x24", screen(healthy(), SMALL, "2 Enter"));
}

#[test]
fn every_screen_of_a_host_with_an_mtu_black_hole() {
    let screens = [
        ("guests", "1"),
        ("flows", "2"),
        ("flow-path", "2 Enter"),
        ("guest-path", "1 Enter"),
        ("faults", "4"),
        ("events", "5"),
        ("event", "5 Enter"),
        ("help", "?"),
    ];
    for (name, keys) in screens {
        insta::assert_snapshot!(format!("mtu-{name}-80x24"), screen(broken(), SMALL, keys));
        insta::assert_snapshot!(format!("mtu-{name}-160x50"), screen(broken(), LARGE, keys));
    }
    insta::assert_snapshot!("mtu-finding-path-80x24", screen(broken(), SMALL, "4 j Enter"));
}

#[test]
fn other_states_of_the_screen() {
    let nothing = || fixture::snapshot(fixture::empty_report(), Status::default());
    for (name, keys) in [("guests", "1"), ("flows", "2"), ("path", "3"), ("faults", "4"), ("events", "5")] {
        insta::assert_snapshot!(format!("empty-{name}-80x24"), screen(nothing(), SMALL, keys));
    }
    insta::assert_snapshot!("frozen-80x24", screen(broken(), SMALL, "2 Space"));
    insta::assert_snapshot!("filter-80x24", screen(broken(), SMALL, "2 /web2"));
    insta::assert_snapshot!(
        "many-flows-80x24",
        screen(fixture::snapshot(fixture::many_report(20_000), Status::default()), SMALL, "2 G")
    );
    insta::assert_snapshot!(
        "replay-80x24",
        screen(fixture::snapshot(fixture::mtu_report(60), fixture::replay_status()), SMALL, "2")
    );
    insta::assert_snapshot!(
        "replay-help-80x24",
        screen(fixture::snapshot(fixture::mtu_report(60), fixture::replay_status()), SMALL, "?")
    );
    insta::assert_snapshot!("too-small-40x10", screen(broken(), (40, 10), "2"));
    insta::assert_snapshot!("smallest-60x16", screen(broken(), SMALLEST, "2 Enter"));
    let hostile = || fixture::snapshot(fixture::hostile_report(&HOSTILE_NAMES), Status::default());
    for (name, keys) in [("guests", "1"), ("flows", "2"), ("path", "2 Enter"), ("faults", "4")] {
        insta::assert_snapshot!(format!("hostile-{name}-80x24"), screen(hostile(), SMALL, keys));
    }
}

#[test]
fn on_a_plain_terminal_the_screen_is_ascii_without_colours() {
    for keys in ["1", "2", "2 Enter", "4", "5 Enter", "?"] {
        let mut state = State::new(broken(), SMALL);
        press(&mut state, keys);
        let mut terminal = Terminal::new(TestBackend::new(80, 24)).unwrap();
        let frame = terminal.draw(|frame| draw(frame, &state, Theme::new(Palette::Plain, true))).unwrap();
        for cell in &frame.buffer.content {
            assert!(cell.symbol().is_ascii(), "{:?} on screen {keys}", cell.symbol());
            assert_eq!(
                (cell.fg, cell.bg),
                (ratatui::style::Color::Reset, ratatui::style::Color::Reset),
                "on screen {keys}"
            );
        }
    }
}

#[test]
fn the_help_has_every_key() {
    for status in [Status::default(), fixture::replay_status()] {
        let replay = status.replay.is_some();
        let text = screen(fixture::snapshot(fixture::mtu_report(60), status), SMALL, "?");
        for binding in BINDINGS.iter().filter(|binding| binding.applies(replay)) {
            assert!(text.contains(binding.help), "{:?} is missing in\n{text}", binding.help);
            for key in binding.keys {
                assert!(text.contains(&key.to_string()), "{key} is missing in\n{text}");
            }
        }
    }
}

#[test]
fn tab_walks_all_screens_and_escape_walks_back() {
    let mut state = State::new(broken(), SMALL);
    let mut seen = vec![state.screen];
    for _ in 0..5 {
        press(&mut state, "Tab");
        seen.push(state.screen);
    }
    assert_eq!(seen, [Screen::Guests, Screen::Flows, Screen::Path, Screen::Faults, Screen::Events, Screen::Guests]);
    press(&mut state, "Esc Esc");
    assert_eq!(state.screen, Screen::Faults);
    press(&mut state, "S-Tab");
    assert_eq!(state.screen, Screen::Path);
}

#[test]
fn a_filter_narrows_the_flows_with_every_key() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "2 /");
    let all = state.flows.rows.len();
    press(&mut state, "db");
    let narrowed = state.flows.rows.len();
    assert!(narrowed < all && narrowed > 0, "{narrowed} of {all}");
    press(&mut state, "q");
    assert_eq!(state.flows.rows.len(), 0, "q is a letter while typing, and no flow holds dbq");
    press(&mut state, "Backspace Enter");
    assert_eq!((state.prompt, state.flows.rows.len()), (None, narrowed));
    assert_eq!(press(&mut state, "q"), [Effect::Quit]);
    press(&mut state, "Esc");
    assert_eq!(state.flows.rows.len(), all, "Esc clears the filter first");
    assert_eq!(state.screen, Screen::Flows);
}

#[test]
fn a_word_with_an_exclamation_mark_leaves_rows_out() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "2");
    let all = state.flows.rows.len();
    press(&mut state, "/!");
    assert_eq!(state.flows.rows.len(), all, "half typed, it leaves nothing out");
    press(&mut state, "delivered");
    assert_eq!(state.flows.rows.len(), 1, "only the broken flow is left");
    press(&mut state, "x Esc /nonsense");
    assert!(render(&state).contains("nothing matches"), "{}", render(&state));
}

#[test]
fn a_click_on_a_heading_sorts_by_it_and_a_second_one_turns_it_round() {
    let mut state = State::new(broken(), LARGE);
    press(&mut state, "2");
    let heading = |state: &State| render(state).lines().nth(3).map(str::to_owned).unwrap();
    let column =
        heading(&state).chars().collect::<Vec<_>>().windows(7).position(|w| w.iter().collect::<String>() == "PACKETS");
    let click = MouseEvent {
        kind: MouseEventKind::Down(MouseButton::Left),
        column: column.unwrap() as u16 + 2,
        row: 3,
        modifiers: KeyModifiers::NONE,
    };
    let packets = |state: &State| -> Vec<u64> {
        state.flows.rows.iter().map(|row| state.snapshot().report.flows[*row as usize].packets).collect()
    };
    update::mouse(&mut state, click);
    assert!(heading(&state).contains("PACKETS▼"), "{}", heading(&state));
    assert!(packets(&state).is_sorted_by(|a, b| a >= b));
    update::mouse(&mut state, click);
    assert!(heading(&state).contains("PACKETS▲"), "{}", heading(&state));
    assert!(packets(&state).is_sorted());
}

#[test]
fn the_first_screen_tells_who_suffers_where_and_what_mends_it() {
    for size in [SMALL, (100, 30), (200, 50)] {
        let text = screen(broken(), size, "");
        for part in [
            "1 of 5 guests suffers",
            "┏NIC",
            "✗ 720 drops",
            "bridge-mtu-exceeded here",
            "$ ip link set dev eth0 mtu 9000",
        ] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
    let mut state = State::new(broken(), SMALL);
    assert_eq!(press(&mut state, "y"), [Effect::Copy("ip link set dev eth0 mtu 9000".to_owned())]);
    assert_eq!(press(&mut state, "G y"), [], "nothing to mend for a guest that is well");
}

#[test]
fn what_a_firewall_drops_on_its_way_through_was_bound_for_the_lan() {
    let mut report = fixture::mtu_report(60);
    report.guests[0].interfaces[0].uplinks.clear();
    // Its other flows would tell the NIC.
    report.flows.retain(|flow| flow.dropped > 0);
    let flow = &mut report.flows[0];
    flow.path[1].device = "br0".to_owned();
    flow.path[1].packets = flow.path[0].packets;
    for (point, end) in [
        (crate::diagnose::report::Point::NetfilterForward, "╭LAN"),
        (crate::diagnose::report::Point::NetfilterInput, "╭host"),
        (crate::diagnose::report::Point::NetfilterPrerouting, "╭destination"),
    ] {
        let place = report.flows[0].place.as_mut().unwrap();
        (place.device, place.point) = (Some("br0".to_owned()), point);
        for keys in ["1", "2 Enter"] {
            let text = screen(fixture::snapshot(report.clone(), Status::default()), SMALL, keys);
            assert!(text.contains("┏netfilter") && text.contains(end), "{end} is missing on screen {keys} in\n{text}");
            assert!(text.contains("──✗│"), "nothing gets past it\n{text}");
        }
    }
}

#[test]
fn a_routed_guest_leaves_by_the_nic_that_its_flows_tell() {
    let mut report = fixture::healthy_report(60);
    for guest in &mut report.guests {
        guest.interfaces[0].uplinks.clear();
    }
    let hop = |direction| crate::diagnose::report::Hop {
        device: "br0".to_owned(),
        direction,
        packets: 9,
        bytes: 900,
        latency_ns: None,
    };
    for flow in &mut report.flows {
        let last = flow.path[1].direction;
        flow.path.insert(1, hop(if flow.path[0].device == "eth0" { last } else { flow.path[0].direction }));
    }
    let routed = fixture::snapshot(report, Status::default());
    insta::assert_snapshot!("routed-guests-80x24", screen(Arc::clone(&routed), SMALL, "1"));
    insta::assert_snapshot!("routed-flow-path-80x24", screen(routed, SMALL, "2 Enter"));
}

#[test]
fn boxes_are_alike_where_there_is_room_and_else_as_wide_as_they_need() {
    // Long addresses at both ends, short names between.
    let wide = screen(broken(), LARGE, "2 Enter");
    let boxes = |text: &str| {
        let row = text.lines().find(|line| line.contains("╭guest")).unwrap().to_owned();
        let ends: Vec<usize> = row.split('╮').map(|part| part.trim_start().chars().count()).collect();
        ends
    };
    assert!(boxes(&wide)[..3].iter().all(|width| *width == 19), "{wide}");
    let narrow = screen(broken(), SMALLEST, "2 Enter");
    assert!(narrow.contains("│10.99.0.1│"), "the LAN's address is told in full\n{narrow}");
    assert!(narrow.lines().all(|line| line.chars().count() <= usize::from(SMALLEST.0)), "{narrow}");
}

#[test]
fn a_drop_behind_the_tap_is_told_of_the_guest_that_its_flow_belongs_to() {
    let text = screen(broken(), SMALL, "5 G");
    let drops: Vec<&str> = text.lines().filter(|line| line.contains(" drop ")).collect();
    assert!(!drops.is_empty() && drops.iter().all(|line| line.contains("web1")), "{text}");
}

#[test]
fn sorting_goes_through_the_columns_and_turns_round() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "2");
    while state.flow_sort.column != FlowColumn::Packets {
        press(&mut state, "s");
    }
    let packets = |state: &State| -> Vec<u64> {
        state.flows.rows.iter().map(|row| state.snapshot().report.flows[*row as usize].packets).collect()
    };
    assert!(packets(&state).is_sorted_by(|a, b| a >= b), "{:?}", packets(&state));
    press(&mut state, "S");
    assert!(packets(&state).is_sorted(), "{:?}", packets(&state));
}

#[test]
fn the_cursor_stays_on_its_flow_when_the_order_changes() {
    let mut state = State::new(fixture::snapshot(fixture::mtu_report(60), Status::default()), SMALL);
    press(&mut state, "2 jjj");
    let selected = |state: &State| state.flows.rows[state.flows.selected] as usize;
    let id = state.snapshot().flows[selected(&state)].id;
    let mut report = fixture::mtu_report(61);
    report.flows.rotate_right(2);
    assert!(state.show(fixture::snapshot(report, Status::default())));
    assert_eq!(state.snapshot().flows[selected(&state)].id, id);
    assert_eq!(state.flows.selected, 5, "two flows came before it");
}

#[test]
fn freezing_keeps_the_screen_and_going_on_shows_the_newest() {
    let mut state = State::new(fixture::snapshot(fixture::healthy_report(10), Status::default()), SMALL);
    press(&mut state, "2 Space");
    let before = render(&state);
    assert!(!state.show(fixture::snapshot(fixture::mtu_report(20), Status::default())), "nothing to draw");
    assert_eq!(render(&state), before);
    press(&mut state, "Space");
    assert!(render(&state).contains("bridge-mtu-"));
}

#[test]
fn copying_gives_the_command_of_the_chosen_fix() {
    let mut state = State::new(broken(), SMALL);
    assert_eq!(press(&mut state, "4 y"), [Effect::Copy("ip link set dev eth0 mtu 9000".to_owned())]);
    assert_eq!(press(&mut state, "u"), [Effect::Copy("ip link set dev eth0 mtu 1500".to_owned())]);
    assert_eq!(press(&mut state, "l y"), [], "the second fix lies in the guest");
    assert!(render(&state).contains("the cure lies elsewhere"));
    assert_eq!(press(&mut state, "h j y"), [Effect::Copy("ip link set dev vnet3 txqueuelen 1000".to_owned())]);
}

#[test]
fn recording_and_resetting_belong_to_a_running_trace_and_seeking_to_a_recording() {
    let mut live = State::new(broken(), SMALL);
    assert_eq!(press(&mut live, "w r n"), [Effect::Command(Command::Record), Effect::Command(Command::Reset)]);
    let mut replay = State::new(fixture::snapshot(fixture::mtu_report(60), fixture::replay_status()), SMALL);
    let effects = press(&mut replay, "w r Space + - ] [ n N");
    let commands = [
        Command::Pause,
        Command::Speed(1),
        Command::Speed(-1),
        Command::Seek(10),
        Command::Seek(-10),
        Command::Fault(1),
        Command::Fault(-1),
    ];
    assert_eq!(effects, commands.map(Effect::Command));
    assert!(!replay.frozen());
    let Effect::Command(Command::SeekTo(time)) = press(&mut replay, "t 90 Enter")[0].clone() else { panic!("no seek") };
    assert_eq!(
        time.since(fixture::snapshot(fixture::empty_report(), Status::default()).report.window.start).0,
        90_000_000_000
    );
}

#[test]
fn the_newest_event_stays_in_sight_until_one_moves_up() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "5");
    let last = state.events.rows.len() - 1;
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
    report: crate::diagnose::report::Report,
    history: History,
}

impl Stream {
    fn new() -> Self {
        Self { log: Log::default(), report: fixture::mtu_report(60), history: History::default() }
    }

    /// So many more events, and what is known then.
    fn after(&mut self, events: u64) -> Arc<Snapshot> {
        for number in 0..events {
            let loss = crate::event::Loss { ring_events: number + 1, ..crate::event::Loss::default() };
            let kind = crate::event::EventKind::Loss(loss);
            self.log.push(&crate::event::Event { time: crate::event::Timestamp(number), kind });
        }
        let (report, devices) = (self.report.clone(), Devices::new());
        let now = report.window.end;
        Arc::new(Snapshot::new(1, now, report, &mut self.history, self.log.entries(), devices, Status::default()))
    }
}

/// The number of the event under the cursor.
fn event_under_the_cursor(state: &State) -> u64 {
    state.snapshot().events[state.events.rows[state.events.selected] as usize].serial
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

#[test]
fn a_drop_tells_device_reason_and_function_in_eighty_columns() {
    let text = screen(broken(), SMALL, "5");
    let drops: Vec<&str> = text.lines().filter(|line| line.contains(" drop ")).collect();
    assert!(!drops.is_empty(), "{text}");
    for line in drops {
        assert!(line.contains(" eth0 ") && line.contains("NOT_SPECIFIED in br_dev_queue_push_xmit"), "{line}");
    }
    assert!(text.contains("udp 10.99.0.11:40000 → 10.99.0.1:9000"), "the selected one is told in full\n{text}");
}

#[test]
fn clicks_select_rows_and_screens_and_the_wheel_moves() {
    let mut state = State::new(broken(), SMALL);
    let at = |kind, column, row| MouseEvent { kind, column, row, modifiers: KeyModifiers::NONE };
    update::mouse(&mut state, at(MouseEventKind::Down(MouseButton::Left), 20, 2));
    assert_eq!(state.screen, Screen::Flows);
    update::mouse(&mut state, at(MouseEventKind::Down(MouseButton::Left), 20, 6));
    assert_eq!(state.flows.selected, 2);
    update::mouse(&mut state, at(MouseEventKind::ScrollDown, 20, 8));
    assert_eq!(state.flows.selected, 5);
    update::mouse(&mut state, at(MouseEventKind::Down(MouseButton::Left), 20, 9));
    assert_eq!(state.screen, Screen::Path, "a second click opens");
    update::mouse(&mut state, at(MouseEventKind::Down(MouseButton::Left), 20, 200));
}

#[test]
fn a_terminal_that_grows_again_shows_the_screen_again() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "2");
    let before = render(&state);
    update::resize(&mut state, (20, 5));
    assert!(render(&state).contains("kvmtrace needs"));
    press(&mut state, "jjG PgDn PgUp g");
    update::resize(&mut state, SMALL);
    assert_eq!(render(&state), before);
}

#[test]
fn text_scrolls_to_its_end_and_no_further() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "4 PgDn PgDn PgDn PgDn PgDn PgDn PgDn PgDn PgDn");
    let end = state.scroll;
    assert!(end > 0 && render(&state).contains("degraded"), "{}", render(&state));
    press(&mut state, "PgDn");
    assert_eq!(state.scroll, end);
    press(&mut state, "PgUp");
    assert!(state.scroll < end);
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

//! What keys and the mouse do to the state.

use super::*;

#[test]
fn tab_walks_all_screens_and_escape_walks_back() {
    let mut state = State::new(broken(), SMALL);
    let mut seen = vec![state.screen];
    for _ in 0..6 {
        press(&mut state, "Tab");
        seen.push(state.screen);
    }
    let all = [Screen::Guests, Screen::Flows, Screen::Path, Screen::Faults, Screen::Events, Screen::Timeline];
    assert_eq!((&seen[..6], seen[6]), (&all[..], Screen::Guests));
    press(&mut state, "Esc Esc Esc");
    assert_eq!(state.screen, Screen::Faults);
    press(&mut state, "S-Tab");
    assert_eq!(state.screen, Screen::Path);
}

#[test]
fn a_filter_narrows_the_flows_with_every_key() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "2 /");
    let all = state.flows.listing.rows.len();
    press(&mut state, "db");
    let narrowed = state.flows.listing.rows.len();
    assert!(narrowed < all && narrowed > 0, "{narrowed} of {all}");
    press(&mut state, "q");
    assert_eq!(state.flows.listing.rows.len(), 0, "q is a letter while typing, and no flow holds dbq");
    press(&mut state, "Backspace Enter");
    assert_eq!((state.prompt, state.flows.listing.rows.len()), (None, narrowed));
    assert_eq!(press(&mut state, "q"), [Effect::Quit]);
    press(&mut state, "Esc");
    assert_eq!(state.flows.listing.rows.len(), all, "Esc clears the filter first");
    assert_eq!(state.screen, Screen::Flows);
}

#[test]
fn a_word_with_an_exclamation_mark_leaves_rows_out() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "2");
    let all = state.flows.listing.rows.len();
    press(&mut state, "/!");
    assert_eq!(state.flows.listing.rows.len(), all, "half typed, it leaves nothing out");
    press(&mut state, "delivered");
    assert_eq!(state.flows.listing.rows.len(), 1, "only the broken flow is left");
    press(&mut state, "x Esc /nonsense");
    assert!(render(&state).contains("nothing matches"), "{}", render(&state));
}

#[test]
fn a_click_on_a_heading_sorts_by_it_and_a_second_one_turns_it_round() {
    let mut state = State::new(broken(), (150, 50));
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
        state.flows.listing.rows.iter().map(|row| state.snapshot().report.flows[*row as usize].packets).collect()
    };
    update::mouse(&mut state, click);
    assert!(heading(&state).contains("PACKETS▼"), "{}", heading(&state));
    assert!(packets(&state).is_sorted_by(|a, b| a >= b));
    update::mouse(&mut state, click);
    assert!(heading(&state).contains("PACKETS▲"), "{}", heading(&state));
    assert!(packets(&state).is_sorted());
}

#[test]
fn sorting_goes_through_the_columns_and_turns_round() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "2");
    while state.flow_sort.column != FlowColumn::Packets {
        press(&mut state, "s");
    }
    let packets = |state: &State| -> Vec<u64> {
        state.flows.listing.rows.iter().map(|row| state.snapshot().report.flows[*row as usize].packets).collect()
    };
    assert!(packets(&state).is_sorted_by(|a, b| a >= b), "{:?}", packets(&state));
    press(&mut state, "S");
    assert!(packets(&state).is_sorted(), "{:?}", packets(&state));
}

#[test]
fn the_cursor_stays_on_its_flow_when_the_order_changes() {
    let mut state = State::new(fixture::snapshot(fixture::mtu_report(60), Status::default()), SMALL);
    press(&mut state, "2 jjj");
    let selected = |state: &State| state.flows.listing.rows[state.flows.selected] as usize;
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
    let effects = press(&mut replay, "w r Space + - ] [ n N o");
    let commands = [
        Command::Pause,
        Command::Speed(1),
        Command::Speed(-1),
        Command::Seek(10),
        Command::Seek(-10),
        Command::Fault(1),
        Command::Fault(-1),
        Command::Host(1),
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
fn which_file_is_written_is_told_when_it_begins_and_ends() {
    let recording = |file: Option<&str>| {
        let status = Status { recording: file.map(str::to_owned), ..Status::default() };
        fixture::snapshot(fixture::mtu_report(60), status)
    };
    let mut state = State::new(recording(None), SMALL);
    state.show(recording(Some("kvmtrace-20261123T152812.kvmtrace")));
    assert!(render(&state).contains("recording to kvmtrace-20261123T152812.kvmtrace"), "{}", render(&state));
    press(&mut state, "j");
    assert!(!render(&state).contains("recording to"), "until the next key");
    state.show(recording(None));
    assert!(render(&state).contains("recorded: kvmtrace-20261123T152812.kvmtrace"));
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

#[test]
fn enter_on_a_guest_shows_its_flows_and_escape_goes_back() {
    let mut state = State::new(broken(), SMALL);
    let all = state.snapshot().flows.len();
    press(&mut state, "Enter");
    assert_eq!((state.screen, state.of_guest.as_deref()), (Screen::Flows, Some("web1")));
    let flows = |state: &State| -> Vec<Option<String>> {
        state.flows.listing.rows.iter().map(|row| state.snapshot().report.flows[*row as usize].guest.clone()).collect()
    };
    assert!(!flows(&state).is_empty() && flows(&state).iter().all(|guest| guest.as_deref() == Some("web1")));
    assert!(render(&state).contains("of web1  1/"), "{}", render(&state));
    // Its paths are a step further, and back are its flows.
    press(&mut state, "Enter Esc");
    assert_eq!((state.screen, state.of_guest.as_deref()), (Screen::Flows, Some("web1")));
    press(&mut state, "Esc");
    assert_eq!((state.screen, state.of_guest.as_deref()), (Screen::Guests, None));
    press(&mut state, "2");
    assert_eq!(flows(&state).len(), all, "by its number the screen has all flows");
}

#[test]
fn an_incident_is_one_row_whatever_the_number_of_its_flows() {
    let mut report = fixture::mtu_report(60);
    let mut second = report.flows[0].clone();
    second.id = "another".to_owned();
    second.destination_port = Some(9_001);
    report.incidents[0].flows.push(second.id.clone());
    report.incidents[0].guests.push("db1".to_owned());
    report.flows.insert(1, second);
    let mut state = State::new(fixture::snapshot(report, Status::default()), LARGE);
    press(&mut state, "4");
    let text = render(&state);
    assert!(text.contains("bridge-mtu-exceeded     2 guests"), "{text}");
    assert_eq!(state.faults.listing.rows.len(), 2, "two incidents, three flows and findings: {text}");
}

#[test]
fn the_column_that_flows_are_sorted_by_is_on_the_screen_and_marked() {
    for width in [60, 80, 100, 132, 200] {
        let mut state = State::new(broken(), (width, 24));
        press(&mut state, "2");
        for _ in FlowColumn::ALL {
            press(&mut state, "s");
            let text = render(&state);
            let heading = text.lines().nth(3).unwrap();
            assert_eq!(
                heading.matches(['▲', '▼']).count(),
                1,
                "by {:?} at {width} columns: {heading}",
                state.flow_sort.column
            );
        }
    }
    for keys in ["1", "4", "5"] {
        let text = screen(broken(), SMALL, keys);
        assert_eq!(text.lines().nth(3).unwrap().matches(['▲', '▼']).count(), 1, "screen {keys}: {text}");
    }
}

/// What would be saved after these keys.
fn saved(snapshot: Arc<Snapshot>, keys: &str) -> Keep {
    let mut state = State::new(snapshot, SMALL);
    match press(&mut state, keys).pop() {
        Some(Effect::Save(keep)) => *keep,
        other => panic!("{keys}: {other:?}"),
    }
}

#[test]
fn an_incident_is_saved_with_its_flows_and_nothing_else() {
    let keep = saved(broken(), "4 x t");
    assert_eq!((keep.form, keep.what.as_str()), (Form::Text, "bridge-mtu-exceeded"));
    assert_eq!((keep.incidents.len(), keep.flows.as_slice(), keep.findings.len()), (1, &[0][..], 0));
    assert_eq!(keep.command.as_deref(), Some("ip link set dev eth0 mtu 9000"));
    let finding = saved(broken(), "4 j x j");
    assert_eq!((finding.form, finding.flows.len(), finding.findings.len()), (Form::Json, 0, 1));
    assert_eq!(saved(broken(), "2 G x p").flows, [10]);
    let guest = saved(broken(), "1 x t");
    assert_eq!((guest.flows.len(), guest.incidents.len()), (3, 1), "a guest is saved with all its flows");
    assert!(guest.stem(crate::event::Timestamp(0)).ends_with("-guest"), "no file is called what a guest calls itself");
}

#[test]
fn the_forms_stand_in_the_footer_and_any_other_key_saves_nothing() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "4 x");
    let text = render(&state);
    assert!(text.contains("save bridge-mtu-exceeded as  t text  j JSON  p pcapng  c fix command  Esc"), "{text}");
    assert_eq!(press(&mut state, "q"), []);
    assert!(render(&state).contains("nothing saved"));
    press(&mut state, "5 x");
    assert!(render(&state).contains("nothing to save here"));
    // A flow in order has no command that would mend it.
    press(&mut state, "2 G x");
    assert!(!render(&state).contains("fix command"));
    assert_eq!(press(&mut state, "c"), []);
}

#[test]
fn a_probe_is_proposed_for_what_is_under_the_cursor_and_can_be_edited() {
    let mut state = State::new(broken(), SMALL);
    assert_eq!(press(&mut state, "p"), []);
    assert!(render(&state).contains("probe web1 to gateway icmp"), "{}", render(&state));
    let own = || Some("10.99.0.11".parse().unwrap());
    let (device, target) = ("vnet0".to_owned(), Target::Gateway);
    let gateway = Errand::Probe { device, source: own(), target, packet: Packet::Icmp };
    assert_eq!(press(&mut state, "Enter"), [Effect::Run(gateway)]);
    // A flow from the guest: the same peer, protocol and port.
    press(&mut state, "2 p");
    assert!(render(&state).contains("probe web1 to 10.99.0.1 udp 9000"), "{}", render(&state));
    press(&mut state, "Backspace Backspace Backspace Backspace 53");
    let target = Target::Address("10.99.0.1".parse().unwrap());
    let probe = Errand::Probe { device: "vnet0".to_owned(), source: own(), target, packet: Packet::Udp(53) };
    assert_eq!(press(&mut state, "Enter"), [Effect::Run(probe)]);
    press(&mut state, "p");
    press(&mut state, "x");
    assert_eq!(press(&mut state, "Enter"), []);
    assert!(render(&state).contains("is no probe"), "{}", render(&state));
    let mut replay = State::new(fixture::snapshot(fixture::mtu_report(60), fixture::replay_status()), SMALL);
    assert_eq!(press(&mut replay, "p 4 f"), [], "nothing is sent or changed in a recording");
    assert_eq!(replay.prompt, None);
}

#[test]
fn f_on_an_incident_asks_for_its_fix_by_its_id_and_follows_elsewhere() {
    let mut state = State::new(broken(), SMALL);
    let id = state.snapshot().report.incidents[0].id.clone();
    assert_eq!(press(&mut state, "4 f"), [Effect::Run(Errand::Fix { incident: id })]);
    assert_eq!(press(&mut state, "5 f"), []);
    assert_eq!(press(&mut state, "2 f"), []);
}

#[test]
fn the_way_of_a_probe_is_shown_as_soon_as_the_trace_has_it() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "b /db Enter");
    update::await_probe(&mut state, "vnet1");
    assert_eq!(state.screen, Screen::Guests, "nothing yet");
    let mut report = fixture::mtu_report(60);
    let flow = report.flows.iter_mut().find(|flow| flow.source == "10.99.0.12").unwrap();
    flow.probe = true;
    state.show(fixture::snapshot(report, Status::default()));
    update::show_probe(&mut state);
    assert_eq!(state.screen, Screen::Path);
    assert!(render(&state).contains("tcp 10.99.0.12:40001 → 203.0.113.80:443"), "{}", render(&state));
    press(&mut state, "Esc");
    assert_eq!(state.screen, Screen::Flows);
    state.show(broken());
    update::show_probe(&mut state);
    assert_eq!(state.screen, Screen::Flows, "it is shown once");
}

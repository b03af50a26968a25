//! What the screens look like.

use super::*;
use crate::diagnose::report::{FlowDirection, Point};
use crate::event::Direction;
use crate::tui::fixture::HOSTILE_NAMES;

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
        ("guest-path", "1 3"),
        ("guest-flows", "1 Enter"),
        ("faults", "4"),
        ("events", "5"),
        ("event", "5 Enter"),
        ("time", "6"),
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
    for keys in ["1", "2", "2 Enter", "4", "5 Enter", "6", "?"] {
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

/// What mends the broken host's worst fault.
const FIRST_FIX: &str = "$ ip link set dev eth0 mtu 9000";

#[test]
fn the_first_screen_tells_who_suffers_where_and_what_mends_it() {
    for size in [SMALL, (100, 30), (200, 50)] {
        let text = screen(broken(), size, "");
        for part in ["1 of 5 guests loses traffic", "── Incidents", "guest-not-reading       mail", FIRST_FIX] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }
    // The way is drawn where there is room, and on the path screen.
    for (size, keys) in [((200, 50), ""), (SMALL, "3")] {
        let text = screen(broken(), size, keys);
        for part in ["┏NIC", "✗ 720 drops", "bridge-mtu-exceeded here", FIRST_FIX] {
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
        (Point::NetfilterForward, "╭LAN"),
        (Point::NetfilterInput, "╭host"),
        (Point::NetfilterPrerouting, "╭destination"),
    ] {
        let place = report.flows[0].place.as_mut().unwrap();
        (place.device, place.point) = (Some("br0".to_owned()), point);
        for keys in ["3", "2 Enter"] {
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
        stage: crate::diagnose::report::Point::NicEgress,
        expected: false,
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
    let wide = screen(broken(), (150, 50), "2 Enter");
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
fn what_dies_on_its_way_to_the_guest_is_cut_off_on_the_guests_side() {
    let mut report = fixture::mtu_report(60);
    let broken = report.flows.iter_mut().find(|flow| flow.dropped > 0).unwrap();
    broken.direction = FlowDirection::ToGuest;
    let place = broken.place.as_mut().unwrap();
    (place.device, place.point) = (Some("vnet0".to_owned()), Point::TapEgress);
    broken.path.reverse();
    for hop in &mut broken.path {
        hop.direction = if hop.device == "eth0" { Direction::Ingress } else { Direction::Egress };
        hop.packets = broken.packets;
    }
    report.flows.retain(|flow| flow.dropped > 0);
    let text = screen(fixture::snapshot(report.clone(), Status::default()), SMALL, "3");
    assert!(text.contains("│✗──┃"), "{text}");
    assert!(!text.contains("──✗"), "{text}");
    let flow = screen(fixture::snapshot(report, Status::default()), SMALL, "2 Enter");
    assert!(flow.contains("┃──✗│"), "in the flow's own way the guest is the last\n{flow}");
}

#[test]
fn a_long_command_is_told_in_full_where_there_is_room() {
    let mut report = fixture::mtu_report(60);
    report.guests.truncate(1);
    let command = "nft 'insert rule inet filter forward ip saddr 10.99.0.11 counter accept comment \"kvmtrace\"' && nft 'insert rule \
                   inet filter forward ip daddr 10.99.0.11 counter accept comment \"kvmtrace\"'";
    report.incidents.truncate(1);
    report.findings.clear();
    report.incidents[0].fixes[0].command = Some(command.to_owned());
    let text = screen(fixture::snapshot(report, Status::default()), SMALL, "");
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&text).contains(&words(command)), "{text}");
}

#[test]
fn a_latency_says_of_what_it_is() {
    let mut report = fixture::mtu_report(60);
    let line = |report: &crate::diagnose::report::Report| {
        let text = screen(fixture::snapshot(report.clone(), Status::default()), (120, 40), "2 G");
        text.lines().rev().find(|line| line.contains(" from ")).map(str::to_owned).unwrap_or(text)
    };
    assert!(line(&report).contains("first packet took "), "{}", line(&report));
    for latency in report.flows.iter_mut().flat_map(|flow| &mut flow.path).filter_map(|hop| hop.latency_ns.as_mut()) {
        (latency.p50, latency.p99, latency.samples) = (20_000, 90_000, 7);
    }
    assert!(line(&report).contains("latency p50 20µs, p99 90µs of 7 packets from "), "{}", line(&report));
}

#[test]
fn what_was_not_counted_catches_no_eye() {
    let text = screen(healthy(), (120, 40), "2");
    assert!(!text.lines().skip(3).any(|line| line.contains(" 0 ")), "{text}");
    assert!(!text.contains("0 events lost") && !text.contains("0 degraded"), "{text}");
}

#[test]
fn on_a_wide_terminal_lists_and_their_details_stand_side_by_side() {
    for (keys, left, right) in [
        ("2", "▸ ✗ bridge-mtu-exceeded", "── udp 10.99.0.11:40000 → 10.99.0.1:9000"),
        ("4", "CAUSE by worst▼", "│ udp 10.99.0.11:40000 → 10.99.0.1:9000"),
        ("2 Enter", " udp 10.99.0.11:40000 → 10.99.0.1:9000", "│ ✗ bridge-mtu-exceeded  guest web1"),
        ("5 Enter", "EVENT    GUEST", "───"),
    ] {
        for size in [(160, 24), (200, 60)] {
            let text = screen(broken(), size, keys);
            assert!(text.contains(left) && text.contains(right), "{keys} at {size:?}\n{text}");
            assert!(text.lines().skip(3).any(|line| line.contains('│')), "{text}");
        }
        let narrow = screen(broken(), (159, 50), keys);
        assert!(!narrow.lines().skip(3).any(|line| line.contains(left) && line.contains(right)), "{narrow}");
    }
}

#[test]
fn a_click_beside_the_list_selects_nothing() {
    let mut state = State::new(broken(), LARGE);
    press(&mut state, "2");
    let click = |column| MouseEvent {
        kind: MouseEventKind::Down(MouseButton::Left),
        column,
        row: 7,
        modifiers: KeyModifiers::NONE,
    };
    update::mouse(&mut state, click(120));
    assert_eq!(state.flows.selected, 0);
    update::mouse(&mut state, click(20));
    assert_eq!(state.flows.selected, 3);
}

#[test]
fn the_time_line_scrolls_back_and_zooms_and_shows_drops_and_incidents() {
    let mut state = State::new(broken(), SMALL);
    press(&mut state, "6");
    let text = render(&state);
    let row = text.lines().find(|line| line.contains("web1")).unwrap();
    assert_eq!(row.matches('✗').count(), 1 + 7, "its mark, and a cross for each ten seconds with drops: {row}");
    for part in ["10 s a column", "pkt/s", "drops/s", "faults", "begins: bridge-mtu-exceeded, 1 flow"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    press(&mut state, "h");
    assert!(state.back <= 6, "no further back than anything is known: {}", state.back);
    press(&mut state, "l z");
    assert!(render(&state).contains("1 min a column") && state.back == 0);
    press(&mut state, "Enter");
    assert_eq!((state.screen, state.of_guest.as_deref()), (Screen::Flows, Some("web1")));
    press(&mut state, "Esc");
    assert_eq!(state.screen, Screen::Timeline);
}

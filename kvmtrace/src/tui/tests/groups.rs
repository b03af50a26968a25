//! Flows in groups.

use super::*;
use crate::diagnose::report::{Cause, Report, Severity, Verdict};

/// The healthy host, on which web1 has tried a closed port again and again, each time from another port.
fn retries(attempts: u16) -> Report {
    let mut report = fixture::healthy_report(60);
    let template = report.flows.iter().find(|flow| flow.source == "10.99.0.11").unwrap().clone();
    for attempt in 0..attempts {
        let mut flow = template.clone();
        flow.source_port = Some(33_000 + attempt);
        (flow.destination, flow.destination_port) = ("10.99.0.12".to_owned(), Some(48_000));
        (flow.verdict, flow.severity, flow.cause) = (Verdict::Refused, Severity::Warning, Some(Cause::PortClosed));
        (flow.packets, flow.dropped) = (2, 1);
        flow.id = format!("retry-{attempt}");
        flow.key.source_port = flow.source_port;
        flow.key.destination_port = flow.destination_port;
        report.flows.insert(0, flow);
    }
    report
}

fn state(report: Report, size: (u16, u16), keys: &str) -> State {
    let mut state = State::new(fixture::snapshot(report, Status::default()), size);
    press(&mut state, keys);
    state
}

#[test]
fn a_closed_port_that_is_tried_again_and_again_is_one_row_that_unfolds() {
    let mut state = state(retries(389), SMALL, "2");
    let folded = state.flows.len();
    assert_eq!(folded, fixture::healthy_report(60).flows.len() + 1);
    let text = render(&state);
    assert!(text.contains("[+389] tcp →10.99.0.12:48000"), "the service is seen in eighty columns too\n{text}");
    let wide = self::state(retries(389), (120, 40), "2");
    assert!(render(&wide).contains("[+389] tcp 10.99.0.11→10.99.0.12:48000"), "{}", render(&wide));
    let row = text.lines().find(|line| line.contains("[+389]")).unwrap();
    assert!(row.contains("port-closed") && row.contains("web1") && row.ends_with(" 389"), "drops add up: {row}");
    assert!(text.contains("389 flows, 778 packets, 389 dropped"), "{text}");
    assert!(text.contains("Enter unfold"), "{text}");
    press(&mut state, "Enter");
    assert_eq!(state.flows.len(), folded + 389);
    let text = render(&state);
    assert!(text.contains("[-389] tcp"), "{text}");
    assert!(text.contains("  tcp 10.99.0.11:33388→10.99"), "{text}");
    press(&mut state, "j Enter");
    assert_eq!(state.screen, Screen::Path, "a flow within a group opens as any other");
    press(&mut state, "Esc k Enter");
    assert_eq!((state.screen, state.flows.len()), (Screen::Flows, folded));
}

#[test]
fn groups_by_guest_peer_service_and_cause_hold_all_flows_once() {
    let mut state = state(retries(40), SMALL, "2 b");
    let flows = state.snapshot().flows.len();
    for (grouping, name) in [
        (Grouping::Guest, "[+42] web1"),
        (Grouping::Peer, "[+40] 10.99.0.12"),
        (Grouping::Service, "[+40] tcp 48000"),
        (Grouping::Cause, "[+40] port-closed"),
    ] {
        assert_eq!(state.grouping, grouping);
        let text = render(&state);
        assert!(text.contains(name), "{name} is missing in\n{text}");
        let sum: u32 = state.flows.listing.groups.iter().map(|group| group.flows).sum();
        assert_eq!(sum as usize, flows, "{grouping:?}");
        press(&mut state, "b");
    }
    assert_eq!((state.grouping, state.flows.len()), (Grouping::Nothing, flows));
    press(&mut state, "b");
    assert_eq!(state.grouping, Grouping::Alike);
}

#[test]
fn within_a_guest_its_flows_are_grouped_again() {
    let mut state = state(retries(40), SMALL, "2 b Enter");
    let text = render(&state);
    assert!(text.contains("[-42] web1") && text.contains("  [+40] tcp →10.99.0.12:48000"), "{text}");
    press(&mut state, "l z");
    let unfolded = state.flows.len();
    assert!(render(&state).contains("    tcp 10.99.0.11:33039→"), "{}", render(&state));
    press(&mut state, "z");
    assert!(state.flows.len() < unfolded, "z folds what z has unfolded");
    // The arrows fold and unfold the one under the cursor.
    press(&mut state, "g l");
    assert!(render(&state).contains("[-42] web1"));
    press(&mut state, "h");
    assert!(render(&state).contains("[+42] web1"));
}

#[test]
fn the_cursor_stays_on_its_group_when_flows_come_and_the_filter_counts_within_groups() {
    let mut state = state(retries(5), SMALL, "2");
    state.show(fixture::snapshot(retries(9), Status::default()));
    assert!(state.flows.group().is_some_and(|group| group.flows == 9));
    press(&mut state, "/33003 Enter");
    assert_eq!((state.flows.len(), state.flows.group().is_none()), (1, true), "one of a group is no group");
    press(&mut state, "Esc s s s s s s s s s s");
    assert_eq!(state.flow_sort.column, FlowColumn::Dropped);
    assert!(state.flows.group().is_some(), "the cursor has stayed");
    press(&mut state, "g");
    assert!(state.flows.group().is_some_and(|group| group.dropped == 9), "groups stand by their sums");
}

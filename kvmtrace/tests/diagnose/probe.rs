//! How a probe ended, by the flows of the report; and which flows are said to be a probe's.

use crate::world::{GUEST, LAN, TAP, UPLINK, World, echo, flow, mac};
use kvmtrace::diagnose::probe::{Outcome, flows, narrowed, outcome};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::{FlowKey, Protocol};

const ID: u16 = 61_500;

fn request() -> FlowKey {
    flow(Protocol::Icmp { kind: 8, code: 0, id: ID }, GUEST, LAN)
}

/// The requests of a probe leave by the uplink.
fn sent() -> World {
    let mut world = World::new();
    for (device, direction) in [(TAP, Ingress), (UPLINK, Egress)] {
        world.seen(request(), device, direction, |counters| counters.time_to_live = 61);
    }
    world
}

fn answered_at(world: &mut World, places: &[(kvmtrace::event::IfIndex, kvmtrace::event::Direction)]) {
    for (device, direction) in places {
        world.seen(request().reverse(), *device, *direction, |counters| {
            (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(1));
        });
    }
}

fn ended(world: &World) -> (Outcome, bool) {
    let report = world.report();
    let (there, back) = flows(&report, request());
    outcome(there.expect("the probe's flow is in the report"), back)
}

#[test]
fn an_answer_that_reaches_the_sender_is_an_answer() {
    let mut world = sent();
    answered_at(&mut world, &[(UPLINK, Ingress), (TAP, Egress)]);
    assert_eq!(ended(&world), (Outcome::Answered, false));
}

#[test]
fn without_an_answer_it_is_unanswered() {
    assert_eq!(ended(&sent()), (Outcome::Unanswered, false));
}

#[test]
fn a_dropped_request_is_dropped_even_if_others_were_answered() {
    let mut world = sent();
    world.dropped(request(), ("NETFILTER_DROP", "nf_hook_slow", UPLINK), 4, 84, &["br_forward"]);
    assert_eq!(ended(&world), (Outcome::Dropped, false));
}

#[test]
fn an_answer_that_is_dropped_on_its_way_back_is_told_as_such() {
    let mut world = sent();
    answered_at(&mut world, &[(UPLINK, Ingress)]);
    world.dropped(request().reverse(), ("FULL_RING", "tun_net_xmit", TAP), 4, 84, &["dev_hard_start_xmit"]);
    assert_eq!(ended(&world), (Outcome::Dropped, true));
}

#[test]
fn a_narrowed_report_has_the_probes_flows_alone_and_counts_only_them() {
    let mut world = sent();
    answered_at(&mut world, &[(UPLINK, Ingress), (TAP, Egress)]);
    let own = echo(GUEST, LAN);
    world.seen(own, TAP, Ingress, |_| {});
    let whole = world.report();
    assert_eq!(whole.flows.len(), 3);
    let report = narrowed(whole, &[request()]);
    assert_eq!((report.flows.len(), report.totals.flows, report.totals.packets), (2, 2, 8));
}

#[test]
fn flows_of_a_probe_and_their_answers_are_marked_and_no_others() {
    let mut world = sent();
    answered_at(&mut world, &[(UPLINK, Ingress), (TAP, Egress)]);
    world.seen(echo(GUEST, LAN), TAP, Ingress, |counters| counters.time_to_live = 61);
    let unmarked = flow(Protocol::Icmp { kind: 8, code: 0, id: ID + 1 }, GUEST, LAN);
    world.seen(unmarked, TAP, Ingress, |_| {});
    let report = world.report();
    let marked: Vec<FlowKey> = report.flows.iter().filter(|flow| flow.probe).map(|flow| flow.key).collect();
    assert_eq!(marked.len(), 2, "{marked:?}");
    assert!(marked.contains(&request()) && marked.contains(&request().reverse()));
}

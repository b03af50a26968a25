//! TCP that sends its bytes more than once, and how far it gets.

use crate::world::{GUEST, LAN, TAP, UPLINK, World, flow, mac};
use kvmtrace::diagnose::report::{Cause, FlowReport, Point, Severity, Verdict};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::{FlowCounters, IfIndex, Protocol};
use rstest::rstest;

/// An upload of 100 full segments that is acknowledged to its end; `repeats` is what was counted of each place.
fn upload(repeats: impl Fn(&mut FlowCounters)) -> FlowReport {
    let (there, back) = (flow(Protocol::Tcp, GUEST, LAN), flow(Protocol::Tcp, GUEST, LAN).reverse());
    let mut world = World::new();
    for (device, direction) in [(TAP, Ingress), (UPLINK, Egress)] {
        world.seen(there, device, direction, |counters| {
            (counters.packets, counters.bytes, counters.largest) = (100, 151_400, 1_500);
            repeats(counters);
        });
    }
    for (device, direction) in [(UPLINK, Ingress), (TAP, Egress)] {
        world.seen(back, device, direction, |counters| {
            (counters.packets, counters.tcp_syn_ack) = (50, 1);
            (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(1));
        });
    }
    world.verdict(there)
}

#[test]
fn segments_that_are_sent_again_got_lost_behind_the_place_that_had_seen_them() {
    let told = upload(|counters| (counters.repeated, counters.repeated_bytes) = (10, 14_600));
    assert_eq!((told.cause, told.verdict), (Some(Cause::NoReply), Verdict::Unanswered), "{told:?}");
    assert_eq!(told.severity, Severity::Warning);
    assert_eq!(told.place.map(|place| place.point), Some(Point::BeyondHost));
    assert!(told.explanation.contains("14600 of 146000 bytes") && told.explanation.contains("10 segments"));
    assert!(told.fixes.iter().all(|fix| fix.command.is_none()));
}

#[test]
fn segments_that_fill_gaps_blame_no_guest() {
    let told = upload(|counters| {
        (counters.repeated, counters.repeated_bytes, counters.missing_bytes) = (10, 14_600, 14_600);
    });
    assert!(told.explanation.contains("is not known"), "{}", told.explanation);
    assert_eq!(told.place.map(|place| place.point), Some(Point::BeyondHost));
}

#[test]
fn gaps_of_a_flow_that_several_cpus_counted_say_nothing() {
    let told = upload(|counters| {
        (counters.repeated, counters.repeated_bytes, counters.missing_bytes) = (10, 14_600, 140_000);
    });
    assert!(told.explanation.contains("is not known"), "{}", told.explanation);
    assert_eq!(told.place.map(|place| place.point), Some(Point::BeyondHost));
}

#[rstest]
#[case::few(4, 5_840)]
#[case::a_small_share(6, 6_000)]
#[case::keepalives_of_a_byte(40, 40)]
#[case::none(0, 0)]
fn a_healthy_connection_is_not_told(#[case] segments: u32, #[case] bytes: u64) {
    let told = upload(|counters| (counters.repeated, counters.repeated_bytes) = (segments, bytes));
    assert_eq!((told.verdict, told.severity), (Verdict::Delivered, Severity::Ok), "{told:?}");
}

/// A session of many small exchanges, until something large is sent and never acknowledged; or a far end that dies within a
/// transfer.
#[rstest]
#[case::small_exchanges_pass(17_000, Cause::PmtuBlackHole)]
#[case::a_transfer_was_under_way(400_000, Cause::NoReply)]
fn what_stands_still_after_small_exchanges_is_too_large(#[case] bytes: u64, #[case] cause: Cause) {
    let (there, back) = (flow(Protocol::Tcp, GUEST, LAN), flow(Protocol::Tcp, GUEST, LAN).reverse());
    let mut world = World::new();
    let count = |world: &mut World, device: IfIndex, direction, packets| {
        world.seen(there, device, direction, |counters| {
            (counters.packets, counters.bytes, counters.largest) = (packets, bytes, 1_500);
            (counters.repeated, counters.repeated_bytes) = (5, 6_000);
        });
    };
    world.at(2);
    count(&mut world, TAP, Ingress, 43);
    count(&mut world, UPLINK, Egress, 43);
    for (device, direction) in [(UPLINK, Ingress), (TAP, Egress)] {
        world.seen(back, device, direction, |counters| {
            (counters.packets, counters.tcp_syn_ack) = (43, 1);
            (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(1));
        });
    }
    world.at(5);
    count(&mut world, TAP, Ingress, 53);
    count(&mut world, UPLINK, Egress, 53);
    assert_eq!(world.verdict(there).cause, Some(cause));
}

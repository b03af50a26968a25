//! Hosts as people have them: unusual is not broken, and what is broken is named.

use crate::world::{BRIDGE, GUEST, LAN, OTHER_TAP, TAP, UPLINK, World, echo, flow, mac};
use kvmtrace::diagnose::report::{Cause, Severity, Verdict};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::Neighbour;
use kvmtrace::event::{FlowCounters, FlowKey, MacAddress, Protocol};

fn dhcp(source: &str, destination: &str, from: u16, to: u16) -> FlowKey {
    FlowKey { source_port: Some(from), destination_port: Some(to), ..flow(Protocol::Udp, source, destination) }
}

fn broadcast(counters: &mut FlowCounters) {
    counters.destination_mac = MacAddress([0xff; 6]);
}

/// A bridge of this host alone, and a guest that asks it for a lease.
fn asks_for_a_lease() -> World {
    let mut world = World::new();
    world.link(UPLINK).master = None;
    world.link(UPLINK).port = None;
    let request = dhcp("0.0.0.0", "255.255.255.255", 68, 67);
    world.seen(request, TAP, Ingress, broadcast);
    world.seen(request, BRIDGE, Ingress, broadcast);
    world
}

#[test]
fn a_network_of_the_hosts_own_without_a_dhcp_server_is_named() {
    let told = asks_for_a_lease().verdict(dhcp("0.0.0.0", "255.255.255.255", 68, 67));
    assert_eq!((told.cause, told.severity), (Some(Cause::DhcpUnanswered), Severity::Warning));
}

#[test]
fn a_lease_that_is_given_is_no_fault_nor_is_the_servers_question_before() {
    let mut world = asks_for_a_lease();
    let to_guest = |counters: &mut FlowCounters| (counters.source_mac, counters.destination_mac) = (mac(0xb0), mac(1));
    let offer = dhcp("10.0.0.1", "10.0.0.50", 67, 68);
    world.seen(offer, BRIDGE, Egress, to_guest);
    world.seen(offer, TAP, Egress, to_guest);
    let probe = echo("10.0.0.1", "10.0.0.50");
    let question = flow(Protocol::Arp { operation: 1 }, "10.0.0.1", "10.0.0.50");
    for key in [probe, question] {
        world.seen(key, BRIDGE, Egress, broadcast);
        world.seen(key, TAP, Egress, broadcast);
    }
    let report = world.report();
    assert_eq!(report.severity(), Severity::Ok, "{:?}", report.flows);
}

#[test]
fn partial_loss_is_told_with_counts() {
    let asked = |answered: u64| {
        let mut world = World::new();
        let ping = echo(GUEST, LAN);
        world.seen(ping, TAP, Ingress, |counters| counters.packets = 12);
        world.seen(ping, UPLINK, Egress, |counters| counters.packets = 12);
        let back = |counters: &mut FlowCounters| {
            (counters.packets, counters.source_mac, counters.destination_mac) = (answered, mac(0x64), mac(1));
        };
        world.seen(ping.reverse(), UPLINK, Ingress, back);
        world.seen(ping.reverse(), TAP, Egress, back);
        world.verdict(ping)
    };
    let told = asked(3);
    assert_eq!((told.cause, told.severity), (Some(Cause::NoReply), Severity::Warning));
    assert!(told.explanation.contains("12 echo requests") && told.explanation.contains("3 answered"), "{told:?}");
    // The last one or two may be under way.
    assert_eq!(asked(11).verdict, Verdict::Delivered);
}

#[test]
fn a_neighbour_entry_of_a_former_interface_is_deleted() {
    let mut world = World::new();
    world.host.guests[0].interfaces[0].addresses.push(GUEST.parse().unwrap());
    let entry = |state: &str, mac| Neighbour {
        address: GUEST.parse().unwrap(),
        device: BRIDGE,
        mac: Some(mac),
        state: state.into(),
    };
    world.host.neighbours.push(entry("permanent", mac(0x99)));
    let answer = echo(LAN, GUEST);
    let stale = |counters: &mut FlowCounters| counters.destination_mac = mac(0x99);
    world.seen(answer, BRIDGE, Egress, stale);
    world.seen(answer, TAP, Egress, stale);
    let told = world.verdict(answer);
    assert_eq!(told.cause, Some(Cause::NeighbourStale), "{told:?}");
    assert_eq!(told.fixes[0].command.as_deref(), Some("ip neigh del 10.0.0.11 dev br0"));
    assert_eq!(
        told.fixes[0].undo.as_deref(),
        Some("ip neigh replace 10.0.0.11 lladdr 52:54:00:aa:00:99 dev br0 nud permanent")
    );
}

#[test]
fn a_queue_without_a_listener_is_named_with_its_rule() {
    let mut world = World::new();
    let rule = kvmtrace::event::host::Rule {
        handle: Some(5),
        number: 1,
        text: "-A FORWARD -j NFQUEUE --queue-num 3".to_owned(),
        packets: None,
        verdict: None,
    };
    world.host.netfilter.chains.push(kvmtrace::event::host::Chain {
        backend: kvmtrace::event::host::Backend::IptablesNft,
        family: "ip".to_owned(),
        table: "filter".to_owned(),
        name: "FORWARD".to_owned(),
        hook: Some("forward".to_owned()),
        kind: None,
        priority: None,
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: vec![rule],
    });
    let ping = echo(GUEST, LAN);
    world.seen(ping, TAP, Ingress, |_| ());
    world.dropped(ping, ("NOT_SPECIFIED", "nf_queue", BRIDGE), 4, 84, &["nf_hook_slow", "ip_forward"]);
    let told = world.verdict(ping);
    assert_eq!(told.cause, Some(Cause::NetfilterQueue));
    assert!(told.explanation.contains("number 3") && told.fixes[0].why.contains("--queue-bypass"), "{told:?}");
}

#[test]
fn an_address_that_moves_by_vrrp_is_no_conflict() {
    let shared = "10.0.0.50";
    let moves = |with_vrrp: bool| {
        let mut world = World::new();
        let announcement = flow(Protocol::Arp { operation: 1 }, shared, shared);
        let virtual_mac = MacAddress([0, 0, 0x5e, 0, 1, 0x33]);
        for (tap, own, address) in [(TAP, 1, "10.0.0.11"), (OTHER_TAP, 2, "10.0.0.12")] {
            let from = move |counters: &mut FlowCounters| {
                (counters.source_mac, counters.destination_mac) = (virtual_mac, MacAddress([0xff; 6]));
            };
            world.seen(announcement, tap, Ingress, from);
            let own = move |counters: &mut FlowCounters| counters.source_mac = mac(own);
            if with_vrrp {
                world.seen(flow(Protocol::Ip(112), address, "224.0.0.18"), tap, Ingress, own);
            }
        }
        world.report().findings.iter().map(|finding| finding.cause).collect::<Vec<_>>()
    };
    assert_eq!(moves(true), []);
    assert!(moves(false).contains(&Cause::MacConflict));
}

#[test]
fn a_nested_guest_with_an_address_of_its_own_is_no_forgery() {
    let finds = |source: &str| {
        let mut world = World::new();
        world.seen(flow(Protocol::Arp { operation: 1 }, GUEST, LAN), TAP, Ingress, broadcast);
        world.seen(echo(source, LAN), TAP, Ingress, |counters| counters.source_mac = mac(0x33));
        world.seen(echo(source, LAN), UPLINK, Egress, |counters| counters.source_mac = mac(0x33));
        world.report().findings.iter().any(|finding| finding.cause == Cause::MacSpoofed)
    };
    assert!(!finds("10.0.0.31"), "a container or a nested guest");
    assert!(finds(GUEST), "its own address from a foreign MAC address");
}

#[test]
fn what_a_guest_sends_again_and_again_is_no_loop() {
    let loops = |left: u64| {
        let mut world = World::new();
        let question = flow(Protocol::Arp { operation: 1 }, "10.0.0.12", "10.0.0.77");
        for (tap, direction, packets) in [(TAP, Ingress, 2_000), (TAP, Egress, left), (OTHER_TAP, Ingress, 3)] {
            world.seen(question, tap, direction, |counters| {
                (counters.packets, counters.destination_mac) = (packets, MacAddress([0xff; 6]));
            });
        }
        world.report().findings.iter().any(|finding| finding.cause == Cause::BridgeLoop)
    };
    assert!(!loops(3), "three of 2,000 had left by that port");
    assert!(loops(2_000));
}

/// A guest whose process had been on a CPU for so long when the trace began and when it ended, and was sent echo requests.
fn worked(before: u64, after: u64) -> Option<Cause> {
    let mut world = World::new();
    world.host.guests[0].worked_ns = before;
    let mut end = world.host.clone();
    end.guests[0].worked_ns = after;
    world.end = Some(end);
    let ping = echo(LAN, GUEST);
    let to_guest = |counters: &mut FlowCounters| (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(1));
    world.seen(ping, UPLINK, Ingress, to_guest);
    world.seen(ping, TAP, Egress, to_guest);
    world.verdict(ping).cause
}

#[test]
fn a_guest_whose_process_did_not_run_though_frames_waited_is_paused() {
    assert_eq!(worked(5_000, 5_000), Some(Cause::GuestPaused));
    assert_eq!(worked(5_000, 5_001), Some(Cause::NoReply), "it ran");
    assert_eq!(worked(0, 0), Some(Cause::NoReply), "a kernel that keeps no such times");
}

#[test]
fn a_guest_that_ends_while_it_is_asked_is_gone_and_one_that_got_all_is_not() {
    let got = |count: u64| {
        let mut world = World::new();
        world.host.guests[0].uuid = Some("0c5a4a2e-9e1b-4c7e-9d1e-0d7e5a5b6c7d".to_owned());
        let mut end = world.host.clone();
        end.links.remove(&TAP);
        end.guests.remove(0);
        world.end = Some(end);
        let ping = echo(LAN, GUEST);
        let to_guest = |count: u64| {
            move |counters: &mut FlowCounters| {
                (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(1));
                counters.packets = count;
            }
        };
        world.seen(ping, UPLINK, Ingress, to_guest(8));
        world.seen(ping, TAP, Egress, to_guest(count));
        world.seen(ping.reverse(), TAP, Ingress, |counters| counters.packets = count);
        world.seen(ping.reverse(), UPLINK, Egress, |counters| counters.packets = count);
        world.verdict(ping)
    };
    let told = got(4);
    assert_eq!((told.cause, told.verdict), (Some(Cause::GuestGone), Verdict::Lost));
    assert!(told.explanation.contains("4 of 8 packets") && told.explanation.contains("web1"), "{}", told.explanation);
    assert!(told.fixes.iter().all(|fix| fix.command.is_none()), "a device that is gone can't be brought up");
    assert_eq!(got(8).verdict, Verdict::Delivered);
}

#[test]
fn frames_for_nobody_tell_of_a_tap_without_a_process() {
    let found = |pid: Option<u32>| {
        let mut world = World::new();
        world.host.guests[0] = kvmtrace::event::host::Guest {
            pid,
            interfaces: vec![kvmtrace::event::host::GuestInterface::new(TAP, "tap", None, Vec::new())],
            name: "vnet0".to_owned(),
            ..kvmtrace::event::host::Guest::default()
        };
        let stranger =
            |counters: &mut FlowCounters| (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(0x77));
        world.seen(echo(LAN, "10.0.0.77"), UPLINK, Ingress, stranger);
        world.report().findings.iter().any(|finding| finding.cause == Cause::GuestGone)
    };
    assert!(found(None));
    assert!(!found(Some(1)));
}

#[test]
fn the_copy_for_a_bridge_in_another_vlan_is_no_loss_where_the_frame_left() {
    let told = |asked: &str| {
        let mut world = World::new();
        let question = flow(Protocol::Arp { operation: 1 }, GUEST, asked);
        world.seen(question, TAP, Ingress, broadcast);
        world.seen(question, UPLINK, Egress, broadcast);
        let answer =
            |counters: &mut FlowCounters| (counters.source_mac, counters.destination_mac) = (mac(0x64), mac(1));
        world.seen(question.reverse(), UPLINK, Ingress, answer);
        world.seen(question.reverse(), TAP, Egress, answer);
        world.dropped(question, ("NOT_SPECIFIED", "br_pass_frame_up", TAP), 4, 28, &["br_handle_frame_finish"]);
        world.verdict(question).verdict
    };
    assert_eq!(told(LAN), Verdict::Delivered);
    assert_eq!(told("10.0.0.1"), Verdict::Dropped, "the bridge's own address is asked for");
}

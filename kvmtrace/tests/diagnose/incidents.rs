//! One fault is one incident, its fix brings all of its flows through and opens nothing else.

use crate::world::{BRIDGE, LAN, OTHER_TAP, TAP, UPLINK, World, flow};
use kvmtrace::diagnose::report::{Cause, Outcome, Report};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::{Backend, Chain};
use kvmtrace::event::{FlowKey, IfIndex, Protocol};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

const OF_BRIDGE: &[&str] = &["nft_do_chain_bridge", "nf_hook_slow", "__br_forward", "br_handle_frame"];
const OTHER_GUEST: &str = "10.0.0.12";

/// A chain of the bridge that drops what no rule accepts.
fn closed(backend: Backend, family: &str) -> Chain {
    Chain {
        backend,
        family: family.to_owned(),
        table: "filter".to_owned(),
        name: "FORWARD".to_owned(),
        hook: Some("forward".to_owned()),
        kind: Some("filter".to_owned()),
        priority: Some(0),
        policy: Some("drop".to_owned()),
        policy_packets: None,
        device: None,
        rules: Vec::new(),
    }
}

fn tcp(source: &str, destination: &str, port: u16) -> FlowKey {
    FlowKey { destination_port: Some(port), ..flow(Protocol::Tcp, source, destination) }
}

fn dropped(world: &mut World, key: FlowKey, tap: IfIndex, stack: &[&str]) {
    world.seen(key, tap, Ingress, |counters| {
        counters.tcp_syn = 4;
        counters.source_mac = crate::world::mac(if tap == TAP { 1 } else { 2 });
    });
    world.dropped(key, ("NETFILTER_DROP", "nft_do_chain", UPLINK), 4, 84, stack);
}

/// Two guests, eight ports, one policy.
fn sixteen(backend: Backend) -> World {
    let mut world = World::new();
    world.host.netfilter.chains = vec![closed(backend, "bridge")];
    for (guest, tap) in [("10.0.0.11", TAP), (OTHER_GUEST, OTHER_TAP)] {
        for port in [22, 25, 53, 80, 110, 143, 443, 993] {
            dropped(&mut world, tcp(guest, LAN, port), tap, OF_BRIDGE);
        }
    }
    world
}

#[test]
fn a_policy_that_drops_sixteen_flows_is_one_incident() {
    let report = sixteen(Backend::Nft).report();
    let [incident] = report.incidents.as_slice() else { panic!("{:#?}", report.incidents) };
    assert_eq!((incident.cause, incident.flows.len()), (Cause::NetfilterBridge, 16));
    assert_eq!(incident.guests, ["web1", "web2"]);
    assert_eq!(incident.packets, 64);
    let fix = &incident.fixes[0];
    let command = fix.command.as_deref().unwrap();
    // Each guest to the one machine, each port: a full product.
    let asked = "ip saddr { 10.0.0.11, 10.0.0.12 } ip daddr 10.0.0.100 tcp dport { 22, 25, 53, 80, 110, 143, 443, 993 } counter accept";
    assert!(command.contains(asked), "{command}");
    assert_eq!(command.matches("insert rule").count(), 2, "one rule there, one for the answers: {command}");
    let prediction = fix.prediction.as_ref().unwrap();
    assert_eq!(prediction.outcome, Outcome::Restores, "{prediction:?}");
    assert_eq!(prediction.reason, "all 16 flows and their answers then pass this host");
    let scope = fix.scope.as_deref().unwrap();
    assert!(scope.contains("10.0.0.100, tcp, ports 22, 25, 53, 80, 110, 143, 443 and 993, and the answers"), "{scope}");
    let narrow = incident.fixes[1].command.as_deref().unwrap();
    assert!(!narrow.contains('{') && narrow.contains("tcp dport "), "beside it the one for the worst flow: {narrow}");
}

#[test]
fn flows_that_are_no_product_open_no_more_than_themselves() {
    let mut world = World::new();
    world.host.netfilter.chains = vec![closed(Backend::Nft, "bridge")];
    dropped(&mut world, tcp("10.0.0.11", LAN, 22), TAP, OF_BRIDGE);
    dropped(&mut world, tcp(OTHER_GUEST, LAN, 80), OTHER_TAP, OF_BRIDGE);
    let report = world.report();
    let command = report.incidents[0].fixes[0].command.clone().unwrap();
    let triples = "ip saddr . ip daddr . tcp dport { 10.0.0.11 . 10.0.0.100 . 22, 10.0.0.12 . 10.0.0.100 . 80 }";
    assert!(command.contains(triples), "{command}");
}

#[test]
fn a_guest_that_tries_a_closed_port_again_and_again_is_one_incident() {
    let mut world = World::new();
    for port in 0..389 {
        let asked = FlowKey { source_port: Some(30_000 + port), ..tcp("10.0.0.11", LAN, 8_080) };
        world.seen(asked, TAP, Ingress, |counters| (counters.tcp_syn, counters.packets) = (1, 1));
        world.seen(asked, UPLINK, Egress, |counters| (counters.tcp_syn, counters.packets) = (1, 1));
        let answer = |counters: &mut kvmtrace::event::FlowCounters| {
            (counters.tcp_reset, counters.packets) = (1, 1);
            (counters.source_mac, counters.destination_mac) = (crate::world::mac(0x64), crate::world::mac(1));
        };
        world.seen(asked.reverse(), UPLINK, Ingress, answer);
        world.seen(asked.reverse(), TAP, Egress, answer);
    }
    let report = world.report();
    let faults = report.flows.iter().filter(|flow| flow.incident.is_some()).count();
    assert!(faults >= 389, "{faults}");
    let [incident] = report.incidents.as_slice() else { panic!("{:?}", report.incidents.len()) };
    assert_eq!((incident.cause, incident.flows.len()), (Cause::PortClosed, faults));
}

#[test]
fn an_incident_has_the_same_id_in_every_trace() {
    let first = sixteen(Backend::Nft).report();
    let mut later = sixteen(Backend::Nft);
    dropped(&mut later, tcp("10.0.0.11", LAN, 5_432), TAP, OF_BRIDGE);
    let later = later.report();
    assert_eq!(first.incidents[0].id, later.incidents[0].id);
    assert_eq!(later.incidents[0].flows.len(), 17);
}

#[test]
fn different_faults_are_different_incidents() {
    let mut world = sixteen(Backend::Nft);
    let big = FlowKey { source_port: Some(5), ..flow(Protocol::Udp, "10.0.0.11", "10.0.0.101") };
    world.seen(big, TAP, Ingress, |counters| counters.largest = 4_000);
    world.dropped(big, ("NOT_SPECIFIED", "br_dev_queue_push_xmit", UPLINK), 4, 4_000, &["br_forward_finish"]);
    let report = world.report();
    let causes: BTreeSet<Cause> = report.incidents.iter().map(|incident| incident.cause).collect();
    assert_eq!(causes, [Cause::NetfilterBridge, Cause::BridgeMtuExceeded].into());
    let mtu = report.incidents.iter().find(|incident| incident.cause == Cause::BridgeMtuExceeded).unwrap();
    assert_eq!(mtu.place.as_ref().unwrap().device.as_deref(), Some("eth0"));
    let _ = BRIDGE;
}

/// Flows with a fault, by incident.
fn members(report: &Report) -> BTreeMap<String, BTreeSet<(String, u16)>> {
    let mut members: BTreeMap<String, BTreeSet<(String, u16)>> = BTreeMap::new();
    for flow in &report.flows {
        if let (Some(incident), Some(port)) = (&flow.incident, flow.destination_port) {
            members.entry(incident.clone()).or_default().insert((flow.source.clone(), port));
        }
    }
    members
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever flows a policy drops, and in whatever order they come: one incident, whose rule names each of them and no other.
    #[test]
    fn a_policys_incident_does_not_depend_on_which_flows_come_first(
        drawn in prop::collection::btree_set((any::<bool>(), 1..60_u16), 2..20),
        turn in 0..20_usize,
    ) {
        let mut drawn: Vec<(bool, u16)> = drawn.into_iter().collect();
        let report = |drawn: &[(bool, u16)]| {
            let mut world = World::new();
            world.host.netfilter.chains = vec![closed(Backend::Nft, "bridge")];
            for (other, port) in drawn {
                let (guest, tap) = if *other { (OTHER_GUEST, OTHER_TAP) } else { ("10.0.0.11", TAP) };
                dropped(&mut world, tcp(guest, LAN, *port), tap, OF_BRIDGE);
            }
            world.report()
        };
        let before = report(&drawn);
        let turn = turn % drawn.len();
        drawn.rotate_left(turn);
        let after = report(&drawn);
        prop_assert_eq!(before.incidents.len(), 1);
        prop_assert_eq!(members(&before), members(&after));
        let fix = before.incidents[0].fixes[0].clone();
        prop_assert_eq!(fix.prediction.map(|prediction| prediction.outcome), Some(Outcome::Restores));
        prop_assert_eq!(Some(fix.command), after.incidents[0].fixes.first().map(|fix| fix.command.clone()));
        let ways = fix.accepts.unwrap().ways;
        let asked: BTreeSet<(String, u16)> = ways
            .iter()
            .filter_map(|way| match way.port {
                Some(kvmtrace::diagnose::report::Port::Destination(port)) => Some((way.source?.to_string(), port)),
                _ => None,
            })
            .collect();
        let wanted: BTreeSet<(String, u16)> = drawn
            .iter()
            .map(|(other, port)| (if *other { OTHER_GUEST } else { "10.0.0.11" }.to_owned(), *port))
            .collect();
        prop_assert_eq!(asked, wanted);
    }
}

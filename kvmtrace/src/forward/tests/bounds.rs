//! Hosts of any size, and tables that make no sense: a walk ends soon and says what it could not follow.

use super::*;
use crate::event::host::{Backend, Chain, Neighbour, Rule, Set};
use crate::event::names::{NeighbourState, RuleAction};
use crate::forward::step::Doubt;
use std::time::{Duration, Instant};

/// Far more than any of these takes, even without optimisation on a busy machine, and far less than a table that is searched
/// from end to end for each entry would take.
const PATIENCE: Duration = Duration::from_secs(20);

#[expect(clippy::disallowed_methods, reason = "the test measures time")]
fn in_time<T>(work: impl FnOnce() -> T) -> T {
    let begin = Instant::now();
    let done = work();
    let taken = begin.elapsed();
    assert!(taken < PATIENCE, "it took {taken:?}");
    done
}

fn chain(name: &str, hook: Option<&str>, rules: impl IntoIterator<Item = String>) -> Chain {
    let rule = |(number, text): (usize, String)| {
        let verdict = text.rsplit_once("jump ").map(|(_, target)| format!("jump {target}"));
        Rule {
            handle: None,
            number: number as u32 + 1,
            verdict: verdict.or(Some("accept".to_owned())),
            text,
            packets: None,
        }
    };
    Chain {
        backend: Backend::Nft,
        family: "ip".to_owned(),
        table: "t".to_owned(),
        name: name.to_owned(),
        hook: hook.map(str::to_owned),
        kind: hook.map(|_| "filter".to_owned()),
        priority: hook.map(|_| 0),
        policy: hook.map(|_| "accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: rules.into_iter().enumerate().map(rule).collect(),
    }
}

/// eth0 is an interface of its own, with a default route by it.
fn routed() -> HostState {
    let mut host = bridged();
    let uplink = host.links.get_mut(&UPLINK).unwrap();
    (uplink.master, uplink.port) = (None, None);
    host.routes.push(route("0.0.0.0/0", Some("192.0.2.1"), UPLINK));
    host
}

fn out(host: &HostState) -> Packet {
    ping("198.51.100.1", host.links[&BRIDGE].mac.unwrap())
}

#[test]
fn a_hundred_thousand_rules() {
    let mut host = routed();
    let rules = (0..100_000_u32).map(|number| {
        format!("ip saddr 172.16.{}.{} tcp dport {} drop", number >> 8 & 255, number & 255, number % 60_000)
    });
    host.netfilter.chains.push(chain("forward", Some("forward"), rules));
    let walk = in_time(|| from_guest(&host, &out(&host)));
    assert_eq!(arrivals(&walk), [Arrival::Uplink(UPLINK)]);
}

#[test]
fn a_set_of_a_million_elements() {
    let mut host = routed();
    let elements = (0..1_000_000_u32).map(|number| std::net::Ipv4Addr::from(0x0b00_0000 + number).to_string());
    host.netfilter.sets.push(Set {
        family: "ip".to_owned(),
        table: Some("t".to_owned()),
        name: "many".to_owned(),
        elements: elements.collect(),
        complete: true,
        kind: Some("ipv4_addr".to_owned()),
        answers: Vec::new(),
    });
    let rules = (0..500).map(|_| "ip saddr @many drop".to_owned());
    host.netfilter.chains.push(chain("forward", Some("forward"), rules));
    let walk = in_time(|| from_guest(&host, &out(&host)));
    assert_eq!(arrivals(&walk), [Arrival::Uplink(UPLINK)]);
}

#[test]
fn a_million_routes() {
    let mut host = routed();
    let template = route("0.0.0.0/0", Some("192.0.2.1"), UPLINK);
    for number in 0..1_000_000_u32 {
        let address = IpAddr::from((0x2000_0000 + (number << 8)).to_be_bytes());
        let destination = host::Network { address, prefix: 24 };
        host.routes.push(Route { destination, ..template.clone() });
    }
    let walk = in_time(|| from_guest(&host, &out(&host)));
    assert_eq!(arrivals(&walk), [Arrival::Uplink(UPLINK)]);
}

#[test]
fn four_thousand_vlans_on_a_thousand_ports() {
    let mut host = bridged();
    bridge_of(&mut host).vlan_filtering = true;
    let trunk: Vec<PortVlan> =
        (1..=4094).map(|id| PortVlan { id, last: None, pvid: id == 1, untagged: id == 1 }).collect();
    for number in 0..1_000 {
        let index = IfIndex(1_000 + number);
        let mut device = Link { index, master: Some(BRIDGE), ..host.links[&UPLINK].clone() };
        device.name = format!("eth{index}");
        device.port.as_mut().unwrap().vlans = trunk.clone();
        host.links.insert(index, device);
    }
    let walk = in_time(|| from_guest(&host, &who_has("10.0.0.99")));
    assert!(arrivals(&walk).len() > 1_000);
}

/// Each chain jumps twice to the next one, the last to the first.
#[test]
fn chains_that_jump_in_circles_are_told() {
    let mut host = routed();
    for number in 0..40 {
        let next = format!("c{}", (number + 1) % 40);
        let hook = (number == 0).then_some("forward");
        host.netfilter.chains.push(chain(
            &format!("c{number}"),
            hook,
            [format!("jump {next}"), format!("jump {next}")],
        ));
    }
    let walk = in_time(|| from_guest(&host, &out(&host)));
    let doubts: Vec<_> =
        walk.steps.iter().filter(|step| matches!(step.outcome, Outcome::Unknown(Doubt::Rule(..)))).collect();
    assert_eq!(doubts.len(), 1, "{:?}", walk.steps);
}

#[test]
fn policy_rules_that_jump_backwards_end() {
    let mut host = routed();
    let jump = |priority, target| crate::event::PolicyRule {
        priority,
        action: RuleAction::Goto,
        target: Some(target),
        ..crate::event::PolicyRule::default()
    };
    host.policy_rules = (0..10_000).map(|number| jump(number + 1, number)).collect();
    let walk = in_time(|| from_guest(&host, &out(&host)));
    assert!(matches!(stops(&walk).as_slice(), [(_, Stop::NoRoute)]));
}

/// A tunnel whose remote end is behind itself.
#[test]
fn a_tunnel_through_itself_is_cut() {
    let mut host = routed();
    let remote = Some(IpAddr::from([203, 0, 113, 9]));
    let kind = LinkKind::Vxlan { vni: 1, remote, local: None, port: 4789, dont_fragment: 0 };
    let tunnel = IfIndex(5);
    host.links.insert(tunnel, link(tunnel, "vx0", kind));
    host.routes.push(route("203.0.113.0/24", None, tunnel));
    host.routes.push(route("198.51.100.0/24", None, tunnel));
    let walk = in_time(|| from_guest(&host, &out(&host)));
    assert!(walk.steps.len() < 2_000, "{}", walk.steps.len());
    assert!(!arrivals(&walk).contains(&Arrival::Uplink(UPLINK)));
}

#[test]
fn a_hundred_thousand_neighbours_and_entries() {
    let mut host = bridged();
    for number in 0..100_000_u32 {
        let mac = MacAddress([2, 0, 0, (number >> 16) as u8, (number >> 8) as u8, number as u8]);
        host.forwarding.push(fdb(mac, GUEST2, false));
        let address = IpAddr::from((0x0a00_0100 + number).to_be_bytes());
        host.neighbours.push(Neighbour { address, device: BRIDGE, mac: Some(mac), state: NeighbourState::Stale });
    }
    let walk = in_time(|| from_guest(&host, &ping("10.0.0.12", mac(2))));
    assert_eq!(arrivals(&walk), [Arrival::Guest(GUEST2)]);
}

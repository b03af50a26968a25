//! What this host gives its own address to, though it should leave as it is; and networks that it has twice.

use crate::world::{BRIDGE, GUEST, OTHER_TAP, TAP, UPLINK, World, echo, mac};
use kvmtrace::diagnose::report::{Cause, FlowReport};
use kvmtrace::event::Direction::{Egress, Ingress};
use kvmtrace::event::host::{Backend, Chain, Network, Route, Rule};
use kvmtrace::event::names::RouteKind;
use kvmtrace::event::overlay::{IpsecDirection, IpsecPolicy, IpsecSelector, IpsecState, IpsecTemplate};

fn network(text: &str) -> Network {
    let (address, prefix) = text.split_once('/').unwrap();
    Network { address: address.parse().unwrap(), prefix: prefix.parse().unwrap() }
}

fn route(destination: &str, gateway: Option<&str>, device: kvmtrace::event::IfIndex) -> Route {
    Route {
        destination: network(destination),
        gateway: gateway.map(|gateway| gateway.parse().unwrap()),
        device: Some(device),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    }
}

fn masquerade(text: &str) -> Chain {
    let rule = Rule {
        handle: Some(4),
        number: 1,
        text: text.to_owned(),
        packets: Some(1),
        verdict: Some("masquerade".to_owned()),
    };
    Chain {
        backend: Backend::Nft,
        family: "ip".to_owned(),
        table: "nat".to_owned(),
        name: "post".to_owned(),
        hook: Some("postrouting".to_owned()),
        kind: Some("nat".to_owned()),
        priority: Some(100),
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: vec![rule],
    }
}

/// A router for its guests, that masquerades.
fn router() -> World {
    let mut world = World::new();
    world.link(UPLINK).master = None;
    world.link(UPLINK).port = None;
    world.link(UPLINK).addresses.push(network("192.0.2.2/24"));
    world.link(BRIDGE).mac = Some(mac(0xb0));
    world.host.routes = vec![
        route("10.0.0.0/24", None, BRIDGE),
        route("192.0.2.0/24", None, UPLINK),
        route("0.0.0.0/0", Some("192.0.2.1"), UPLINK),
    ];
    for name in ["net.ipv4.ip_forward", "net.ipv4.conf.br0.forwarding", "net.ipv4.conf.eth0.forwarding"] {
        world.host.sysctls.insert(name.to_owned(), "1".to_owned());
    }
    world.host.guests[0].interfaces[0].addresses.push(GUEST.parse().unwrap());
    world.host.netfilter.chains.push(masquerade("ip saddr 10.0.0.0/24 masquerade"));
    world.host.overlay.states.push(IpsecState {
        source: "192.0.2.2".parse().unwrap(),
        destination: "192.0.2.1".parse().unwrap(),
        protocol: 50,
        spi: 256,
        request: 1,
        tunnel: true,
        in_udp: false,
    });
    world
}

/// A ping to 10.66.0.5 that leaves with this host's address, and what is said of it.
fn asks_beyond(world: &mut World) -> FlowReport {
    let ping = echo(GUEST, "10.66.0.5");
    let to_host = |counters: &mut kvmtrace::event::FlowCounters| counters.destination_mac = mac(0xb0);
    world.seen(ping, TAP, Ingress, to_host);
    world.seen(ping, BRIDGE, Ingress, to_host);
    world.seen(echo("192.0.2.2", "10.66.0.5"), UPLINK, Egress, |counters| counters.source_mac = mac(0xe0));
    world.verdict(ping)
}

fn policy(source: &str) -> IpsecPolicy {
    IpsecPolicy {
        direction: IpsecDirection::Out,
        selector: IpsecSelector {
            source: network(source),
            destination: network("10.66.0.0/24"),
            ..IpsecSelector::default()
        },
        templates: vec![IpsecTemplate {
            source: "192.0.2.2".parse().unwrap(),
            destination: "192.0.2.1".parse().unwrap(),
            protocol: 50,
            spi: 0,
            request: 1,
            tunnel: true,
            optional: false,
        }],
        ..IpsecPolicy::default()
    }
}

#[test]
fn a_packet_that_no_longer_fits_its_tunnel_is_to_stay_as_it_is() {
    let mut world = router();
    world.host.overlay.policies.push(policy("10.0.0.0/24"));
    let told = asks_beyond(&mut world);
    assert_eq!(told.cause, Some(Cause::NatUnwanted), "{told:?}");
    let command = told.fixes[0].command.as_deref().unwrap();
    assert!(command.contains("position 4 ip saddr 10.0.0.11 ip daddr 10.66.0.5"), "{command}");
}

#[test]
fn what_has_no_tunnel_of_its_own_may_be_translated() {
    // Without a policy, with one for others, and with one that takes the packet as it is then.
    let told = |change: &dyn Fn(&mut World)| {
        let mut world = router();
        change(&mut world);
        asks_beyond(&mut world).cause
    };
    assert_eq!(told(&|_| ()), Some(Cause::NoReply));
    assert_eq!(told(&|world| world.host.overlay.policies.push(policy("10.7.0.0/24"))), Some(Cause::NoReply));
    let both = |world: &mut World| world.host.overlay.policies.extend([policy("10.0.0.0/24"), policy("192.0.2.2/32")]);
    assert_ne!(told(&both), Some(Cause::NatUnwanted));
}

#[test]
fn an_address_that_two_bridges_have_is_led_to_its_guest() {
    let told = |longer: &str| {
        let mut world = router();
        let mut other = world.host.links[&BRIDGE].clone();
        (other.index, other.name) = (kvmtrace::event::IfIndex(9), "br9".to_owned());
        other.addresses = vec![network(longer)];
        world.host.routes.push(route(longer, None, other.index));
        world.host.links.insert(other.index, other);
        world.link(OTHER_TAP).master = Some(kvmtrace::event::IfIndex(9));
        let answer = echo("192.0.2.9", GUEST);
        world.dropped(answer, ("NEIGH_FAILED", "neigh_invalidate", kvmtrace::event::IfIndex(9)), 3, 84, &[]);
        let told = world.verdict(answer);
        (told.cause, told.fixes.into_iter().find_map(|fix| fix.command))
    };
    let command = "ip route add 10.0.0.11/32 dev br0".to_owned();
    assert_eq!(told("10.0.0.0/25"), (Some(Cause::AddressOverlap), Some(command)));
    assert_eq!(told("10.0.0.128/25").0, Some(Cause::NeighbourUnresolved));
}

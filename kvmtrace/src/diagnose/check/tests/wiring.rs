//! What is put together wrongly: addresses, bridges, routes.

use super::*;
use super::{broken, change, host, link, routed, rule};
use crate::event::bridge::PortVlan;
use crate::event::host::{Chain, Neighbour, Route};
use crate::event::names::RouteKind;
use crate::event::{Event, EventKind, HostState, PolicyRule, Timestamp};
use std::net::IpAddr;

fn network(address: &str, prefix: u8) -> Network {
    Network { address: address.parse().unwrap(), prefix }
}

fn route(destination: Network, device: u32) -> Route {
    Route {
        destination,
        gateway: None,
        device: Some(IfIndex(device)),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    }
}

pub(super) fn at(cause: Cause, device: &str) -> Vec<(Cause, Option<String>)> {
    vec![(cause, Some(device.to_owned()))]
}

fn told(change: impl FnOnce(&mut HostState)) -> Vec<Finding> {
    let mut host = host();
    change(&mut host);
    let mut track = Track::default();
    track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host)) });
    findings(&track)
}

#[test]
fn the_hosts_address_belongs_to_the_bridge_and_not_to_its_uplink() {
    let on_port = |host: &mut HostState| {
        change(host, 5, |link| link.addresses.push(network("10.0.0.1", 24)));
        host.routes.push(route(network("10.0.0.0", 24), 5));
        let gateway = Some("10.0.0.254".parse().unwrap());
        host.routes.push(Route { gateway, metric: 100, ..route(network("0.0.0.0", 0), 5) });
    };
    let found = told(on_port);
    assert_eq!((found.len(), found[0].cause), (1, Cause::NeighbourUnresolved));
    assert_eq!(
        found[0].fixes[0].command.as_deref(),
        Some(
            "ip addr add 10.0.0.1/24 dev br7 && ip addr del 10.0.0.1/24 dev ens5 && ip route replace 0.0.0.0/0 via 10.0.0.254 dev br7 metric 100"
        )
    );
    // What the bridge has as well is looked for there; link-local addresses come by themselves.
    let both = |host: &mut HostState| {
        on_port(host);
        change(host, 2, |link| link.addresses.push(network("10.0.0.1", 24)));
    };
    assert_eq!(broken(both), []);
    let local = |host: &mut HostState| change(host, 5, |link| link.addresses.push(network("fe80::1", 64)));
    assert_eq!(broken(local), []);
}

#[test]
fn spanning_tree_may_block_an_uplink_but_keeps_guests_waiting() {
    let stp = |host: &mut HostState, port: u32, state: PortState| {
        let tree = BridgeState { stp: true, forward_delay: 1_500, ..BridgeState::default() };
        change(host, 2, |link| link.kind = LinkKind::Bridge(tree));
        change(host, port, |link| link.port.as_mut().unwrap().state = state);
    };
    assert_eq!(broken(|host| stp(host, 5, PortState::Blocking)), []);
    let found = told(|host| stp(host, 3, PortState::Listening));
    assert_eq!((found[0].cause, found[0].severity), (Cause::BridgePortBlocked, Severity::Warning));
    assert!(found[0].explanation.contains("30 s"), "{}", found[0].explanation);
    let command = "ip link set dev br7 type bridge stp_state 0 && bridge link set dev tap-a state 3";
    assert_eq!(found[0].fixes[0].command.as_deref(), Some(command));
    assert_eq!(broken(|host| stp(host, 3, PortState::Blocking)), at(Cause::BridgePortBlocked, "tap-a"));
}

#[test]
fn a_policy_of_the_bridges_own_is_told_unless_something_passes() {
    let closed = |rules: Vec<crate::event::host::Rule>| {
        let chain = rule("forward", "accept", "ether type arp accept");
        let policy = Some("drop".to_owned());
        let chain = Chain { family: "bridge".to_owned(), kind: Some("filter".to_owned()), policy, rules, ..chain };
        broken(|host| host.netfilter.chains.push(chain))
    };
    assert_eq!(closed(Vec::new()), at(Cause::NetfilterBridge, "br7"));
    let for_others = rule("forward", "accept", "ibrname \"br8\" accept").rules;
    assert_eq!(closed(for_others), at(Cause::NetfilterBridge, "br7"));
    let for_these = rule("forward", "accept", "ibrname \"br7\" accept").rules;
    assert_eq!(closed(for_these), []);
}

#[test]
fn a_pair_that_leads_nowhere_is_told_at_its_loose_or_dead_end() {
    // As Proxmox' firewall builds it: the guest's bridge, a pair, the bridge with the NIC.
    let firewalled = |change: &dyn Fn(&mut HostState)| {
        told(|host| {
            host.links.insert(IfIndex(10), link(10, "fwbr", LinkKind::Bridge(BridgeState::default()), None));
            for (index, peer, bridge) in [(11, 12, 10), (12, 11, 2)] {
                let end = link(index, &format!("pair{index}"), LinkKind::Veth, Some(bridge));
                host.links.insert(end.index, Link { peer: Some(IfIndex(peer)), ..end });
            }
            host.links.insert(IfIndex(3), link(3, "tap-a", LinkKind::Tun, Some(10)));
            change(host);
        })
    };
    assert_eq!(firewalled(&|_| ()), []);
    let loose = firewalled(&|host| host.links.get_mut(&IfIndex(12)).unwrap().master = None);
    assert_eq!(loose[0].cause, Cause::BridgePortDetached);
    assert_eq!(loose[0].fixes[0].command.as_deref(), Some("ip link set dev pair12 master br7"));
    let down = firewalled(&|host| host.links.get_mut(&IfIndex(11)).unwrap().up = false);
    assert_eq!((down[0].cause, down[0].severity), (Cause::LinkDown, Severity::Error));
    // The far end has an address: this host routes there.
    let routed = firewalled(&|host| {
        let far = host.links.get_mut(&IfIndex(12)).unwrap();
        far.master = None;
        far.addresses = vec![network("10.9.9.1", 24)];
    });
    assert_eq!(routed, []);
}

#[test]
fn a_tap_of_its_own_is_routed_where_the_host_answers_there_for_others() {
    let alone = |key: Option<&str>| {
        broken(|host| {
            change(host, 3, |tap| (tap.master, tap.port) = (None, None));
            host.sysctls.extend(key.map(|key| (key.to_owned(), "1".to_owned())));
        })
    };
    assert_eq!(alone(None), at(Cause::BridgePortDetached, "tap-a"));
    assert_eq!(alone(Some("net.ipv4.conf.tap-a.proxy_arp")), []);
}

#[test]
fn bridges_that_are_joined_twice_are_told_where_nothing_breaks_the_ring() {
    let pair = |host: &mut HostState, index: u32, one: u32, other: u32| {
        for (index, peer, bridge) in [(index, index + 1, one), (index + 1, index, other)] {
            let end = link(index, &format!("pair{index}"), LinkKind::Veth, Some(bridge));
            host.links.insert(end.index, Link { peer: Some(IfIndex(peer)), ..end });
        }
    };
    let second = |host: &mut HostState, stp: bool| {
        let state = BridgeState { stp, ..BridgeState::default() };
        host.links.insert(IfIndex(10), link(10, "br8", LinkKind::Bridge(state), None));
        pair(host, 11, 2, 10);
    };
    assert_eq!(broken(|host| second(host, false)), []);
    let twice = |host: &mut HostState, stp: bool| {
        second(host, stp);
        pair(host, 13, 2, 10);
    };
    assert_eq!(broken(|host| twice(host, false)), at(Cause::BridgeLoop, "pair13"));
    assert_eq!(broken(|host| twice(host, true)), []);
    assert_eq!(broken(|host| pair(host, 11, 2, 2)), at(Cause::BridgeLoop, "pair11"));
    // None of the guests' bridges.
    let elsewhere = |host: &mut HostState| {
        host.links.insert(IfIndex(10), link(10, "br8", LinkKind::Bridge(BridgeState::default()), None));
        pair(host, 11, 10, 10);
    };
    assert_eq!(broken(elsewhere), []);
}

#[test]
fn a_network_that_lies_on_two_devices_is_told() {
    let also = |own: &str, metric: u32| {
        let destination = network(own, 24).whole();
        told(|host| {
            routed(host, "192.168.122.1", "198.51.100.7");
            host.netfilter.chains.push(rule("postrouting", "masquerade", "masquerade"));
            host.routes.push(Route { metric, ..route(destination, 5) });
            host.routes.push(route(network("192.168.122.1", 24).whole(), 2));
        })
    };
    let device = |found: &[Finding]| found[0].place.as_ref().and_then(|place| place.device.clone());
    let found = also("192.168.122.9", 100);
    assert_eq!((found[0].cause, device(&found).as_deref()), (Cause::AddressOverlap, Some("br7")));
    // The first of two alike counts.
    let found = also("192.168.122.9", 0);
    assert_eq!((found[0].cause, device(&found).as_deref()), (Cause::AddressOverlap, Some("ens5")));
    assert_eq!(also("192.168.123.9", 0), []);
    // A hoster's way: the bridge has the NIC's network, and each guest a route of its own.
    let routed_each = broken(|host| {
        routed(host, "203.0.113.1", "203.0.113.1");
        host.routes.push(route(network("203.0.113.1", 24).whole(), 5));
        host.routes.push(route(network("203.0.113.1", 24).whole(), 2));
        host.routes.push(route(network("203.0.113.9", 32), 2));
    });
    assert_eq!(routed_each, []);
}

#[test]
fn a_longer_network_elsewhere_is_told_where_it_has_a_guests_address() {
    let guest_at = |address: &str| {
        broken(|host| {
            routed(host, "203.0.113.1", "203.0.113.65");
            change(host, 5, |link| link.addresses[0].prefix = 26);
            host.routes.push(route(network("203.0.113.1", 24).whole(), 2));
            host.routes.push(route(network("203.0.113.64", 26), 5));
            host.guests[0].interfaces[0].addresses.push(address.parse().unwrap());
        })
    };
    assert_eq!(guest_at("203.0.113.9"), []);
    assert_eq!(guest_at("203.0.113.70"), [(Cause::AddressOverlap, Some("ens5".to_owned()))]);
}

#[test]
fn a_rule_of_policy_routing_that_forbids_all_that_guests_send_is_told() {
    let rule = |priority, action: &str, source: Option<Network>| PolicyRule {
        priority,
        source,
        action: action.into(),
        table: if action == "lookup" { 100 } else { 0 },
        ..PolicyRule::default()
    };
    let with = |rules: Vec<PolicyRule>| {
        broken(|host| {
            routed(host, "203.0.113.1", "198.51.100.7");
            host.policy_rules = rules;
        })
    };
    let guests = Some(network("203.0.113.0", 24));
    let prohibit = rule(100, "prohibit", guests);
    assert_eq!(with(vec![prohibit.clone()]), at(Cause::RouteProhibited, "br7"));
    // A table that has nothing; a part of the network; one port.
    assert_eq!(with(vec![rule(90, "lookup", guests), prohibit.clone()]), at(Cause::RouteProhibited, "br7"));
    assert_eq!(with(vec![rule(100, "prohibit", Some(network("203.0.113.0", 30)))]), []);
    assert_eq!(with(vec![PolicyRule { narrower: true, ..prohibit.clone() }]), []);
    // A tunnel with a guard behind it, and without the tunnel.
    let guarded = |tunnel: bool| {
        broken(|host| {
            routed(host, "203.0.113.1", "198.51.100.7");
            host.policy_rules = vec![rule(90, "lookup", guests), prohibit.clone()];
            let guard = Route { table: 100, metric: 9, kind: RouteKind::Blackhole, ..route(network("0.0.0.0", 0), 5) };
            host.routes.push(Route { device: None, ..guard });
            host.routes.extend(tunnel.then(|| Route { table: 100, ..route(network("0.0.0.0", 0), 5) }));
        })
    };
    assert_eq!(guarded(true), []);
    assert_eq!(guarded(false), at(Cause::RouteBlackhole, "br7"));
}

#[test]
fn a_neighbour_table_that_is_nearly_full_is_told_and_what_is_set_by_hand_does_not_count() {
    let fill = |state: &str| {
        told(|host| {
            host.sysctls.insert("net.ipv4.neigh.default.gc_thresh3".to_owned(), "100".to_owned());
            for last in 0..95 {
                let address = IpAddr::from([10, 0, 0, last]);
                let state = state.into();
                host.neighbours.push(Neighbour { address, device: IfIndex(2), mac: None, state });
            }
        })
    };
    let found = fill("stale");
    assert_eq!((found[0].cause, found[0].count), (Cause::NeighbourUnresolved, Some(95)));
    let command = found[0].fixes[0].command.as_deref();
    assert_eq!(command, Some("sysctl -w net.ipv4.neigh.default.gc_thresh3=200"));
    assert_eq!(fill("permanent"), []);
}

#[test]
fn a_rule_translates_what_it_does_not_leave_out() {
    let told = |text: &str, outside: &str| {
        told(|host| {
            routed(host, "192.168.7.1", outside);
            host.netfilter.chains.push(rule("postrouting", "masquerade", text));
        })
    };
    let translating = [
        "-A POSTROUTING -s 192.168.7.0/24 ! -o br7 -j MASQUERADE",
        "ip saddr 192.168.7.0/24 oifname != \"br7\" masquerade",
        "oifname { \"ens4\", \"ens5\" } masquerade",
        "oifname \"ens*\" masquerade",
        "oifname @outside masquerade",
        "ip saddr { 10.0.0.0/8, 192.168.0.0/16 } masquerade",
    ];
    for text in translating {
        assert!(told(text, "198.51.100.7").is_empty(), "{text}");
    }
    let elsewhere = [
        "-A POSTROUTING -s 192.168.7.0/24 ! -o ens5 -j MASQUERADE",
        "oifname { \"ens4\", \"ens6\" } masquerade",
        "ip saddr != 192.168.7.0/24 masquerade",
        "ip saddr { 10.0.0.0/8, 192.168.8.0/24 } masquerade",
    ];
    for text in elsewhere {
        assert_eq!(told(text, "198.51.100.7")[0].cause, Cause::NatMissing, "{text}");
    }
    // The NIC has another name now: that it should translate is certain.
    let found = told("ip saddr 192.168.7.0/24 oifname \"eth0\" masquerade", "10.1.1.7");
    assert_eq!((found[0].cause, found[0].severity), (Cause::NatMissing, Severity::Warning));
    assert!(found[0].explanation.contains("for eth0, which this host does not have"), "{}", found[0].explanation);
    let found = told("ip saddr 192.168.7.0/24 oifname \"tap-a\" masquerade", "10.1.1.7");
    assert_eq!(found[0].severity, Severity::Info);
}

#[test]
fn an_uplink_that_stands_on_a_dead_device_is_told_there() {
    let stacked = |change_nic: fn(&mut Link)| {
        broken(|host| {
            change(host, 5, |nic| {
                (nic.master, nic.port) = (None, None);
                change_nic(nic);
            });
            let vlan = link(6, "ens5.9", LinkKind::Vlan { id: 9 }, Some(2));
            host.links.insert(vlan.index, Link { lower: Some(IfIndex(5)), carrier: false, ..vlan });
        })
    };
    assert_eq!(stacked(|nic| nic.up = false), at(Cause::LinkDown, "ens5"));
    assert_eq!(stacked(|nic| nic.carrier = false), at(Cause::NoCarrier, "ens5"));
    assert_eq!(stacked(|_| ()), at(Cause::NoCarrier, "ens5.9"));
    let bundled = |up: bool| {
        broken(|host| {
            change(host, 5, |nic| (nic.master, nic.port, nic.carrier) = (Some(IfIndex(6)), None, false));
            let bond = link(6, "bond0", LinkKind::Bond, Some(2));
            let second = link(7, "ens6", LinkKind::Physical, None);
            let second = Link { master: Some(IfIndex(6)), up, carrier: false, ..second };
            host.links.extend([Link { carrier: false, ..bond }, second].map(|link| (link.index, link)));
        })
    };
    assert_eq!(bundled(false), at(Cause::LinkDown, "ens6"));
    assert_eq!(bundled(true), at(Cause::NoCarrier, "ens5"));
}

#[test]
fn a_second_uplink_without_a_cable_is_no_fault() {
    let with = |kind: LinkKind| {
        let second = Link { carrier: false, ..link(6, "ens6", kind, Some(2)) };
        told(|host| drop(host.links.insert(second.index, second)))
    };
    assert_eq!(with(LinkKind::Physical)[0].severity, Severity::Info);
    // What is alive is a pair, perhaps a container's.
    let only_pair = told(|host| {
        change(host, 5, |nic| nic.carrier = false);
        let pair = link(6, "veth7", LinkKind::Veth, Some(2));
        host.links.insert(pair.index, pair);
    });
    assert_eq!((only_pair[0].cause, only_pair[0].severity), (Cause::NoCarrier, Severity::Error));
}

#[test]
fn a_macvtap_stands_on_its_nic_and_has_the_address_of_its_guest() {
    let sits = |mode: &str, manager: Option<&str>, change_nic: fn(&mut Link)| {
        broken(|host| {
            change(host, 5, |nic| {
                (nic.master, nic.port) = (None, None);
                change_nic(nic);
            });
            let nic_is_dead = host.links[&IfIndex(5)].clone();
            host.guests.truncate(1);
            host.guests[0].manager = manager.map(str::to_owned);
            change(host, 3, |link| {
                (link.master, link.port, link.lower) = (None, None, Some(IfIndex(5)));
                link.kind = LinkKind::Macvtap { mode: mode.into() };
                link.carrier = nic_is_dead.up && nic_is_dead.carrier;
                link.mac = Some(MacAddress([0x52, 0x54, 0, 0, 0, if manager.is_none() { 1 } else { 9 }]));
            });
        })
    };
    assert_eq!(sits("bridge", None, |_| ()), []);
    assert_eq!(sits("bridge", None, |nic| nic.up = false), at(Cause::LinkDown, "ens5"));
    assert_eq!(sits("bridge", None, |nic| nic.carrier = false), at(Cause::NoCarrier, "ens5"));
    assert_eq!(sits("bridge", Some("qemu"), |_| ()), at(Cause::MacSpoofed, "tap-a"));
    assert_eq!(sits("passthru", Some("qemu"), |_| ()), []);
    assert_eq!(sits("bridge", Some("libvirt"), |_| ()), []);
}

#[test]
fn a_host_that_forwards_and_lost_its_advertised_route_is_told() {
    let found = |accept: &str, with_route: bool| {
        broken(|host| {
            routed(host, "2001:db8:1::1", "2001:db8::7");
            if !with_route {
                host.routes.clear();
            }
            let set = [("all.forwarding", "1"), ("ens5.forwarding", "1"), ("ens5.accept_ra", accept)];
            host.sysctls.extend(set.map(|(name, value)| (format!("net.ipv6.conf.{name}"), value.to_owned())));
        })
    };
    assert_eq!(found("1", false), at(Cause::NoRoute, "ens5"));
    assert_eq!(found("2", false), []);
    assert_eq!(found("0", false), []);
    assert_eq!(found("1", true), []);
}

/// An address of the bridge's network may belong to a guest that the host routes for beside the bridge.
#[test]
fn a_closed_bridge_opens_nothing_for_a_guest_that_is_not_on_it() {
    let fixes = |master: Option<IfIndex>| {
        let mut host = host();
        routed(&mut host, "203.0.113.1", "198.51.100.7");
        change(&mut host, 3, |link| link.master = master);
        host.guests[0].interfaces[0].addresses.push("203.0.113.11".parse().unwrap());
        let mut chain = rule("forward", "accept", "iifname \"other0\" accept");
        (chain.kind, chain.policy) = (Some("filter".to_owned()), Some("drop".to_owned()));
        host.netfilter.chains.push(chain);
        let mut track = Track::default();
        track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host)) });
        let found = findings(&track);
        let closed = found.iter().find(|finding| finding.cause == Cause::NetfilterForward).unwrap();
        closed.fixes.iter().filter_map(|fix| fix.command.clone()).collect::<Vec<_>>()
    };
    assert!(fixes(Some(IfIndex(2))).iter().any(|command| command.contains("203.0.113.11")));
    assert_eq!(fixes(None), [""; 0]);
}

#[test]
fn a_pvid_that_goes_out_with_a_tag_is_told() {
    let vlan = |pvid, untagged| PortVlan { id: 20, last: None, pvid, untagged };
    let found = |own: PortVlan| {
        broken(|host| {
            change(host, 2, |bridge| {
                bridge.kind = LinkKind::Bridge(BridgeState { vlan_filtering: true, ..BridgeState::default() });
            });
            for port in 3..=5 {
                let member = if port == 3 { own } else { vlan(true, true) };
                change(host, port, |link| link.port.as_mut().unwrap().vlans = vec![member]);
            }
        })
    };
    assert_eq!(found(vlan(true, true)), []);
    assert_eq!(found(vlan(true, false)), at(Cause::VlanTagMismatch, "tap-a"));
}

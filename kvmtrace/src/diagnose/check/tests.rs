//! A healthy host, broken in one place each.

mod stacked;
mod wiring;

use super::findings;
use super::*;
use crate::diagnose::report::{Cause, Finding, Severity};
use crate::event::host::{
    BridgePort, BridgeState, Chain, FdbEntry, Guest, GuestInterface, Link, LinkKind, LinkStatistics, Network, PortState,
};
use crate::event::names::RouteKind;
use crate::event::{Event, EventKind, HostState, IfIndex, MacAddress, Timestamp};
use crate::track::Track;

fn link(index: u32, name: &str, kind: LinkKind, master: Option<u32>) -> Link {
    let port = master.map(|_| BridgePort {
        state: PortState::Forwarding,
        isolated: false,
        locked: false,
        flood: true,
        multicast_flood: true,
        broadcast_flood: true,
        learning: true,
        hairpin: false,
        bpdu_guard: false,
        group_forward_mask: 0,
        vlans: Vec::new(),
    });
    Link {
        index: IfIndex(index),
        name: name.to_owned(),
        kind,
        mac: None,
        mtu: 1_500,
        up: true,
        carrier: true,
        ethernet: true,
        arp_off: false,
        master: master.map(IfIndex),
        lower: None,
        peer: None,
        queue_length: 1_000,
        qdisc: String::new(),
        port,
        xdp: None,
        large_receive: false,
        addresses: Vec::new(),
        statistics: LinkStatistics::default(),
    }
}

/// A healthy host: two guests on a bridge with an uplink.
fn host() -> HostState {
    let mut host = HostState::default();
    for link in [
        link(2, "br7", LinkKind::Bridge(BridgeState::default()), None),
        link(3, "tap-a", LinkKind::Tun, Some(2)),
        link(4, "tap-b", LinkKind::Tun, Some(2)),
        link(5, "ens5", LinkKind::Physical, Some(2)),
    ] {
        host.links.insert(link.index, link);
    }
    for (name, device, mac) in [("alpha", 3, 1), ("beta", 4, 2)] {
        let interface =
            GuestInterface::new(IfIndex(device), "tap", Some(MacAddress([0x52, 0x54, 0, 0, 0, mac])), Vec::new());
        host.guests.push(Guest {
            name: name.to_owned(),
            pid: Some(1),
            interfaces: vec![interface],
            ..Guest::default()
        });
    }
    host
}

fn causes(host: HostState) -> Vec<(Cause, Option<String>)> {
    let mut track = Track::default();
    track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host)) });
    let place = |finding: &Finding| finding.place.as_ref().and_then(|place| place.device.clone());
    findings(&track).iter().map(|finding| (finding.cause, place(finding))).collect()
}

fn broken(change: impl FnOnce(&mut HostState)) -> Vec<(Cause, Option<String>)> {
    let mut host = host();
    change(&mut host);
    causes(host)
}

fn change(host: &mut HostState, index: u32, change: impl FnOnce(&mut Link)) {
    change(host.links.get_mut(&IfIndex(index)).unwrap());
}

#[test]
fn a_healthy_host_gives_no_alarm() {
    assert_eq!(causes(host()), []);
}

#[test]
fn a_step_in_the_mtu_is_told_at_the_uplink() {
    let found = broken(|host| change(host, 5, |link| link.mtu = 1_400));
    let at_uplink = (Cause::BridgeMtuExceeded, Some("ens5".to_owned()));
    assert_eq!(found, [at_uplink.clone(), at_uplink]);
    assert_eq!(broken(|host| change(host, 5, |link| link.mtu = 9_000)), []);
}

#[test]
fn links_that_are_down_or_without_a_carrier_are_told() {
    let one = |cause, device: &str| vec![(cause, Some(device.to_owned()))];
    assert_eq!(broken(|host| change(host, 5, |link| link.up = false)), one(Cause::LinkDown, "ens5"));
    assert_eq!(broken(|host| change(host, 5, |link| link.carrier = false)), one(Cause::NoCarrier, "ens5"));
    assert_eq!(broken(|host| change(host, 2, |link| link.up = false)), one(Cause::BridgeDown, "br7"));
    let ended = |host: &mut HostState| {
        host.guests[0].pid = None;
        change(host, 3, |link| link.carrier = false);
    };
    assert_eq!(broken(ended), one(Cause::GuestGone, "tap-a"));
    assert_eq!(broken(|host| change(host, 3, |link| link.carrier = false)), one(Cause::GuestLinkDown, "tap-a"));
    assert_eq!(broken(|host| host.guests[0].paused = true), one(Cause::GuestPaused, "tap-a"));
    assert_eq!(broken(|host| host.guests[0].interfaces[0].unplugged = true), one(Cause::GuestNicMissing, "tap-a"));
}

#[test]
fn a_tap_in_no_bridge_is_told_and_one_that_is_routed_is_not() {
    let detach = |link: &mut Link| (link.master, link.port) = (None, None);
    let found = broken(|host| change(host, 3, detach));
    assert_eq!(found, [(Cause::BridgePortDetached, Some("tap-a".to_owned()))]);
    let found = broken(|host| {
        change(host, 3, |link| {
            detach(link);
            link.addresses.push(Network { address: "fe80::1".parse().unwrap(), prefix: 64 });
        });
    });
    assert_eq!(
        found,
        [(Cause::BridgePortDetached, Some("tap-a".to_owned()))],
        "link-local addresses come by themselves"
    );
    let address = Network { address: "10.0.0.1".parse().unwrap(), prefix: 32 };
    let found = broken(|host| {
        change(host, 3, |link| {
            detach(link);
            link.addresses.push(address);
        });
    });
    assert_eq!(found, []);
}

#[test]
fn a_locked_uplink_without_an_entry_is_told() {
    let lock = |link: &mut Link| link.port.as_mut().unwrap().locked = true;
    let entry = FdbEntry {
        device: IfIndex(5),
        bridge: Some(IfIndex(2)),
        mac: MacAddress([2, 0, 0, 0, 0, 9]),
        vlan: None,
        permanent: false,
        fixed: true,
        sticky: false,
        remote: None,
    };
    let found = broken(|host| change(host, 5, lock));
    assert_eq!(found, [(Cause::BridgePortLocked, Some("ens5".to_owned()))]);
    // The bridge's own entry for the port admits nobody.
    let found = broken(|host| {
        change(host, 5, lock);
        host.forwarding.push(FdbEntry { permanent: true, ..entry.clone() });
    });
    assert_eq!(found, [(Cause::BridgePortLocked, Some("ens5".to_owned()))]);
    let found = broken(|host| {
        change(host, 5, lock);
        host.forwarding.push(entry.clone());
    });
    assert_eq!(found, []);
}

#[test]
fn a_blocked_port_and_one_mac_address_twice_are_told() {
    let block = |link: &mut Link| link.port.as_mut().unwrap().state = PortState::Disabled;
    let found = broken(|host| change(host, 4, block));
    assert_eq!(found, [(Cause::BridgePortBlocked, Some("tap-b".to_owned()))]);
    let found = broken(|host| {
        let mac = host.guests[0].interfaces[0].mac;
        host.guests[1].interfaces[0].mac = mac;
    });
    assert_eq!(found, [(Cause::MacConflict, Some("tap-a".to_owned()))]);
}

#[test]
fn a_routed_bridge_needs_forwarding() {
    let route = |host: &mut HostState, forward: &str| {
        host.links.remove(&IfIndex(5));
        let address = Network { address: "192.168.7.1".parse().unwrap(), prefix: 24 };
        change(host, 2, |link| link.addresses.push(address));
        host.sysctls.insert("net.ipv4.ip_forward".to_owned(), forward.to_owned());
    };
    let meant = |host: &mut HostState, verdict: &str, text: &str| {
        route(host, "0");
        host.netfilter.chains.push(rule("postrouting", verdict, text));
    };
    let other = "ip saddr 192.168.8.0/24 oifname \"ens7\" masquerade";
    let own = "ip saddr 192.168.7.0/24 oifname \"tap-a\" masquerade";
    let told = [(Cause::ForwardingDisabled, Some("br7".to_owned()))];
    assert_eq!(broken(|host| meant(host, "masquerade", own)), told);
    assert_eq!(broken(|host| meant(host, "accept", "iifname \"br7\" accept")), told);
    assert_eq!(broken(|host| route(host, "1")), []);
    // Else it may be for the guests and the host alone, and is no fault.
    let severity = |verdict: &str, text: &str| {
        let mut host = host();
        meant(&mut host, verdict, text);
        let mut track = Track::default();
        track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host)) });
        findings(&track).iter().map(|finding| finding.severity).collect::<Vec<_>>()
    };
    assert_eq!(severity("masquerade", other), [Severity::Info]);
    assert_eq!(severity("accept", "iifname \"br7\" oifname \"br7\" accept"), [Severity::Info]);
    // The firewall keeps it to itself (a network of libvirt's without forwarding).
    let closed = |host: &mut HostState| {
        route(host, "0");
        host.netfilter.chains.push(rule("forward", "reject", "-A LIBVIRT_FWI -o br7 -j REJECT"));
    };
    assert_eq!(broken(closed), []);
}

/// A bridge that the host routes for, with a way out by ens5.
fn routed(host: &mut HostState, inside: &str, outside: &str) {
    change(host, 5, |link| {
        (link.master, link.port) = (None, None);
        link.addresses.push(Network { address: outside.parse().unwrap(), prefix: 24 });
    });
    change(host, 2, |link| link.addresses.push(Network { address: inside.parse().unwrap(), prefix: 24 }));
    let v6 = outside.contains(':');
    let everything = Network { address: if v6 { "::" } else { "0.0.0.0" }.parse().unwrap(), prefix: 0 };
    host.routes.push(crate::event::host::Route {
        destination: everything,
        gateway: None,
        device: Some(IfIndex(5)),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    });
    host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
}

fn rule(chain: &str, verdict: &str, text: &str) -> Chain {
    let rule = crate::event::host::Rule {
        handle: Some(1),
        number: 1,
        text: text.to_owned(),
        packets: None,
        verdict: Some(verdict.to_owned()),
    };
    Chain {
        backend: crate::event::host::Backend::Nft,
        family: "ip".to_owned(),
        table: "t".to_owned(),
        name: "c".to_owned(),
        hook: Some(chain.to_owned()),
        kind: Some("nat".to_owned()),
        priority: Some(0),
        policy: Some("accept".to_owned()),
        policy_packets: None,
        device: None,
        rules: vec![rule],
    }
}

#[test]
fn a_private_network_without_masquerade_is_told_where_nobody_can_know_the_way_back() {
    let missing = [(Cause::NatMissing, Some("ens5".to_owned()))];
    assert_eq!(broken(|host| routed(host, "192.168.7.1", "198.51.100.7")), missing);
    // Right if the router beyond knows them: said, but no fault.
    let mut track = Track::default();
    let mut private = host();
    routed(&mut private, "192.168.7.1", "10.1.1.7");
    track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(private)) });
    let found = findings(&track);
    assert_eq!(found.iter().map(|finding| finding.severity).collect::<Vec<_>>(), [Severity::Info]);
    // Public guests, a rule that translates them, a network that the firewall closes.
    assert_eq!(broken(|host| routed(host, "203.0.113.1", "198.51.100.7")), []);
    let with = |chain: Chain| {
        broken(|host| {
            routed(host, "192.168.7.1", "198.51.100.7");
            host.netfilter.chains.push(chain);
        })
    };
    assert_eq!(with(rule("postrouting", "masquerade", "ip saddr 192.168.7.0/24 oifname \"ens5\" masquerade")), []);
    assert_eq!(with(rule("postrouting", "masquerade", "ip saddr 192.168.8.0/24 masquerade")), missing);
    assert_eq!(with(rule("forward", "reject", "iifname \"br7\" reject")), []);
    // Rules that could not be read may translate.
    let unread = |host: &mut HostState| {
        routed(host, "192.168.7.1", "198.51.100.7");
        host.missing.push(("nftables rules".to_owned(), "nft: not installed".to_owned()));
    };
    assert_eq!(broken(unread), []);
}

#[test]
fn a_bridge_that_has_lost_its_uplink_is_told_at_the_idle_nic() {
    let lose = |host: &mut HostState| {
        change(host, 5, |link| (link.master, link.port) = (None, None));
        let address = Network { address: "192.168.7.2".parse().unwrap(), prefix: 24 };
        change(host, 2, |link| link.addresses.push(address));
        host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "0".to_owned());
    };
    assert_eq!(broken(lose), [(Cause::BridgePortDetached, Some("ens5".to_owned()))]);
    // An idle NIC of a host that routes for its guests is none of theirs.
    let routes = |host: &mut HostState| {
        lose(host);
        host.sysctls.insert("net.ipv4.ip_forward".to_owned(), "1".to_owned());
    };
    assert_eq!(broken(routes), []);
}

#[test]
fn ipv6_is_forwarded_too_where_there_is_a_way_out() {
    let off = |host: &mut HostState| {
        routed(host, "2001:db8:7::1", "2001:db8::7");
        host.sysctls.insert("net.ipv6.conf.all.forwarding".to_owned(), "0".to_owned());
    };
    assert_eq!(broken(off), [(Cause::ForwardingDisabled, Some("br7".to_owned()))]);
    assert_eq!(broken(|host| (off(host), host.routes.clear()).1), []);
}

#[test]
fn a_conntrack_table_that_is_nearly_full_is_told() {
    let fill = |host: &mut HostState, count: &str| {
        host.sysctls.insert("net.netfilter.nf_conntrack_max".to_owned(), "1000".to_owned());
        host.sysctls.insert("net.netfilter.nf_conntrack_count".to_owned(), count.to_owned());
    };
    assert_eq!(broken(|host| fill(host, "950")), [(Cause::ConntrackFull, None)]);
    assert_eq!(broken(|host| fill(host, "500")), []);
}

#[test]
fn a_guest_with_an_address_of_the_hosts_own_is_told() {
    let found = broken(|host| change(host, 5, |link| link.mac = Some(MacAddress([0x52, 0x54, 0, 0, 0, 1]))));
    assert_eq!(found, [(Cause::MacConflict, Some("tap-a".to_owned()))]);
}

#[test]
fn a_port_that_learns_nothing_is_no_fault_where_the_bridge_knows_the_guest() {
    let mute = |link: &mut Link| {
        let port = link.port.as_mut().unwrap();
        (port.flood, port.learning) = (false, false);
    };
    assert_eq!(broken(|host| change(host, 3, mute)), [(Cause::BridgeFloodDisabled, Some("tap-a".to_owned()))]);
    let known = broken(|host| {
        change(host, 3, mute);
        host.forwarding.push(crate::event::host::FdbEntry {
            mac: MacAddress([0x52, 0x54, 0, 0, 0, 1]),
            device: IfIndex(3),
            bridge: Some(IfIndex(2)),
            vlan: None,
            permanent: false,
            fixed: true,
            sticky: false,
            remote: None,
        });
    });
    assert_eq!(known, []);
}

#[test]
fn a_port_in_no_vlan_joins_the_one_of_new_ports() {
    let filtering = LinkKind::Bridge(BridgeState { vlan_filtering: true, default_pvid: 7, ..BridgeState::default() });
    let member = crate::event::host::PortVlan { id: 7, last: None, pvid: true, untagged: true };
    let mut host = host();
    change(&mut host, 2, |link| link.kind = filtering);
    for index in [4, 5] {
        change(&mut host, index, |link| link.port.as_mut().unwrap().vlans.push(member));
    }
    let mut track = Track::default();
    track.apply(&Event { time: Timestamp(1), kind: EventKind::Host(std::sync::Arc::new(host)) });
    let found = findings(&track);
    let commands: Vec<_> = found.iter().map(|finding| (finding.cause, finding.fixes[0].command.as_deref())).collect();
    assert_eq!(commands, [(Cause::BridgeVlanFiltered, Some("bridge vlan add dev tap-a vid 7 pvid untagged"))]);
}

#[test]
fn a_private_ipv6_network_without_masquerade_is_told_as_an_ipv4_one_is() {
    let told = |outside: &str| {
        let found = broken(|host| {
            routed(host, "fd77::1", outside);
            host.sysctls.insert("net.ipv6.conf.all.forwarding".to_owned(), "1".to_owned());
        });
        found.first().map(|(cause, _)| *cause)
    };
    assert_eq!(told("2001:db8::7"), Some(Cause::NatMissing));
    // A link-local address says nothing about the network there.
    assert_eq!(told("fe80::7"), None);
}

#[test]
fn a_nic_that_merges_what_this_host_shall_forward_is_told() {
    let at_nic = [(Cause::RouteMtuExceeded, Some("ens5".to_owned()))];
    let merges = |host: &mut HostState| {
        routed(host, "203.0.113.1", "198.51.100.7");
        change(host, 5, |link| link.large_receive = true);
    };
    assert_eq!(broken(merges), at_nic);
    // The NIC of a bond, not what the bond says of itself.
    let bundled = |host: &mut HostState, nic: bool| {
        merges(host);
        let addresses = host.links[&IfIndex(5)].addresses.clone();
        let bond = Link { large_receive: true, addresses, ..link(6, "bond0", LinkKind::Bond, None) };
        host.links.insert(bond.index, bond);
        host.routes[0].device = Some(IfIndex(6));
        change(host, 5, |link| {
            (link.master, link.large_receive) = (Some(IfIndex(6)), nic);
            link.addresses.clear();
        });
    };
    assert_eq!(broken(|host| bundled(host, true)), at_nic);
    assert_eq!(broken(|host| bundled(host, false)), []);
    // It is none of the guests' ways.
    let beside = |host: &mut HostState| {
        merges(host);
        host.routes.clear();
    };
    assert_eq!(broken(beside), []);
}

//! What the device that leads out is set to, and the flows that suffer from it.

use crate::world::{BRIDGE, GUEST, LAN, TAP, UPLINK, World, echo, flow, mac};
use kvmtrace::diagnose::report::{Cause, FlowReport};
use kvmtrace::event::Direction::Ingress;
use kvmtrace::event::Protocol;
use kvmtrace::event::host::{LinkKind, Network, Route};
use std::net::IpAddr;

#[test]
fn who_asks_for_a_guest_on_the_uplink_that_bears_the_hosts_address_is_told_to_move_it() {
    let told = |on_uplink: bool| {
        let mut world = World::new();
        world.host.guests[0].interfaces[0].addresses.push(GUEST.parse().unwrap());
        if on_uplink {
            world.link(UPLINK).addresses = std::mem::take(&mut world.link(BRIDGE).addresses);
        }
        let ping = echo("10.0.0.1", GUEST);
        world.dropped(ping, ("NEIGH_FAILED", "neigh_invalidate", UPLINK), 3, 84, &[]);
        let flow = world.verdict(ping);
        assert_eq!(flow.cause, Some(Cause::NeighbourUnresolved));
        flow.fixes.into_iter().find_map(|fix| fix.command)
    };
    assert_eq!(told(true).as_deref(), Some("ip addr add 10.0.0.1/24 dev br0 && ip addr del 10.0.0.1/24 dev eth0"));
    assert_eq!(told(false), None);
}

/// TCP from beyond to the guest, by a NIC that merges, dropped at a site.
fn merged(site: (&str, &str), largest: u32, change: impl FnOnce(&mut World)) -> FlowReport {
    let mut world = World::new();
    world.link(UPLINK).large_receive = true;
    change(&mut world);
    let bulk = flow(Protocol::Tcp, LAN, GUEST);
    world.seen(bulk, UPLINK, Ingress, |counters| {
        (counters.largest, counters.source_mac, counters.destination_mac) = (largest, mac(0x64), mac(1));
    });
    world.dropped(bulk, (site.0, site.1, TAP), 4, largest, &[]);
    world.verdict(bulk)
}

#[test]
fn what_the_nic_has_merged_is_told_where_it_was_merged() {
    // With the size of the parts, and without.
    for (site, largest) in [(("NOT_SPECIFIED", "ip_forward"), 1_500), (("PKT_TOO_BIG", "ip6_forward"), 14_520)] {
        let flow = merged(site, largest, |_| ());
        let told = (flow.cause, flow.place.unwrap().device);
        assert_eq!(told, (Some(Cause::RouteMtuExceeded), Some("eth0".to_owned())), "{site:?}");
        assert_eq!(flow.fixes[0].command.as_deref(), Some("ethtool -K eth0 lro off"), "{site:?}");
        assert_eq!(flow.fixes[0].undo.as_deref(), Some("ethtool -K eth0 lro on"), "{site:?}");
    }
    let cure = |largest: u32, on: bool| {
        let flow = merged(("PKT_TOO_BIG", "ip_forward"), largest, |world| {
            world.link(UPLINK).large_receive = on;
            world.link(BRIDGE).mtu = 1_400;
        });
        flow.fixes.into_iter().find_map(|fix| fix.command)
    };
    assert_eq!(cure(14_520, true).as_deref(), Some("ethtool -K eth0 lro off"));
    // It is not longer than what the NIC takes: nobody has merged it, it is too long for the way.
    assert_ne!(cure(1_500, true).as_deref(), Some("ethtool -K eth0 lro off"));
    assert_ne!(cure(14_520, false).as_deref(), Some("ethtool -K eth0 lro off"));
}

#[test]
fn a_tunnel_whose_packets_die_without_a_reason_is_judged_by_the_way_to_its_far_end() {
    let far: IpAddr = "192.0.2.7".parse().unwrap();
    let told = |kind: Option<&str>, remote: Option<IpAddr>| {
        let mut world = World::new();
        world.link(UPLINK).kind = LinkKind::Vxlan { vni: 7, remote, local: None, port: 4789, dont_fragment: 0 };
        world.host.routes.extend(kind.map(|kind| Route {
            destination: Network { address: far, prefix: 32 },
            gateway: None,
            device: None,
            source: None,
            table: 254,
            metric: 0,
            kind: kind.into(),
            mtu: None,
        }));
        let ping = echo(GUEST, LAN);
        world.seen(ping, TAP, Ingress, |_| ());
        world.dropped(ping, ("NOT_SPECIFIED", "vxlan_xmit_one", UPLINK), 4, 84, &["vxlan_xmit"]);
        world.verdict(ping).cause
    };
    assert_eq!(told(Some("blackhole"), Some(far)), Some(Cause::RouteBlackhole));
    assert_eq!(told(None, Some(far)), Some(Cause::NoRoute));
    assert_eq!(told(Some("unicast"), Some(far)), Some(Cause::TunnelNoRemote));
    assert_eq!(told(None, None), Some(Cause::TunnelNoRemote));
}

//! A guest asks for an address of the host's, and the host keeps silent.

use crate::world::{BRIDGE, GUEST, LAN, TAP, UPLINK, World, echo, flow};
use kvmtrace::diagnose::report::{Cause, Point, Severity, Verdict};
use kvmtrace::event::host::{Network, Route};
use kvmtrace::event::names::RouteKind;
use kvmtrace::event::{Direction::Ingress, MacAddress, Protocol};
use rstest::rstest;

/// The cure for a guest's request that nobody answers; none where that lies elsewhere.
fn cure(asked: &str, prepare: impl FnOnce(&mut World)) -> Option<String> {
    let request = flow(Protocol::Arp { operation: 1 }, GUEST, asked);
    let mut world = World::new();
    prepare(&mut world);
    for device in [TAP, BRIDGE] {
        world.seen(request, device, Ingress, |counters| counters.destination_mac = MacAddress([0xff; 6]));
    }
    let told = world.verdict(request);
    assert_eq!(told.cause, Some(Cause::NeighbourUnresolved));
    let command = told.fixes.first().unwrap().command.clone();
    let place = told.place.unwrap();
    assert_eq!(command.is_some(), place.point == Point::Neighbour && place.device.as_deref() == Some("br0"));
    command
}

fn route(host: &mut World, destination: &str, device: kvmtrace::event::IfIndex) {
    host.host.routes.push(Route {
        destination: Network { address: destination.parse().unwrap(), prefix: 32 },
        gateway: None,
        device: Some(device),
        source: None,
        table: 254,
        metric: 0,
        kind: RouteKind::Unicast,
        mtu: None,
    });
}

#[rstest]
#[case::its_own_on_this_device(&[("br0.arp_ignore", "1")], None)]
#[case::never(&[("br0.arp_ignore", "8")], Some("sysctl -w net.ipv4.conf.br0.arp_ignore=0"))]
#[case::either_of_both(
    &[("all.arp_ignore", "8"), ("br0.arp_ignore", "8")],
    Some("sysctl -w net.ipv4.conf.all.arp_ignore=0 && sysctl -w net.ipv4.conf.br0.arp_ignore=0")
)]
#[case::as_a_filter_with_a_way_back(&[("all.arp_filter", "1")], None)]
#[case::nothing_of_the_kind(&[], None)]
fn what_forbids_the_answer_is_switched_off(#[case] settings: &[(&str, &str)], #[case] expected: Option<&str>) {
    let command = cure("10.0.0.1", |world| {
        for (name, value) in settings {
            world.host.sysctls.insert(format!("net.ipv4.conf.{name}"), (*value).to_owned());
        }
        route(world, GUEST, BRIDGE);
    });
    assert_eq!(command.as_deref(), expected);
}

#[test]
fn a_device_without_arp_gets_it() {
    let command = cure("10.0.0.1", |world| world.link(BRIDGE).arp_off = true);
    assert_eq!(command.as_deref(), Some("ip link set dev br0 arp on"));
}

#[test]
fn on_a_bridge_that_leads_out_nobody_is_to_be_a_proxy() {
    let asked = "192.0.2.9";
    assert_eq!(cure(asked, |world| route(world, asked, UPLINK)), None);
    let command = cure(asked, |world| {
        route(world, asked, UPLINK);
        let own = Network { address: "192.0.2.1".parse().unwrap(), prefix: 24 };
        let uplink = world.link(UPLINK);
        (uplink.master, uplink.addresses) = (None, vec![own]);
    });
    assert_eq!(command.as_deref(), Some("ip neigh add proxy 192.0.2.9 dev br0"));
}

/// A flow that came in at the very end of a flood: its drop may be among those that were counted without their flows.
#[test]
fn packets_beside_drops_without_flows_are_not_called_delivered() {
    use kvmtrace::event::{DropSite, EventKind, Timestamp, Unlisted, UnlistedPlace};
    let mut world = World::new();
    let key = echo(GUEST, LAN);
    let late = |counters: &mut kvmtrace::event::FlowCounters| counters.first = Timestamp(5_950_000_000);
    world.seen(key, TAP, Ingress, late);
    assert_eq!(world.verdict(key).verdict, Verdict::Delivered, "nothing was lost yet: it is on its way");
    let site = DropSite { reason: Some("NETFILTER_DROP".to_owned()), function: None, offset: 0, device: Some(TAP) };
    let place = UnlistedPlace::Drop(site);
    world.happened(EventKind::Unlisted(Unlisted { place, packets: 4_000, bytes: 116_000 }));
    let flow = world.verdict(key);
    assert_eq!((flow.verdict, flow.severity), (Verdict::Lost, Severity::Info), "{flow:?}");
    assert!(flow.explanation.contains("counted without their flows"), "{}", flow.explanation);
}

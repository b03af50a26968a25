//! The guests and their paths, for the report and for `kvmtrace guests`.

use super::report::{BondReport, GuestReport, InterfaceReport, LegReport, Origin, UplinkReport};
use crate::diagnose::facts::scene::Scene;
use crate::event::host::{GuestInterface, Link, LinkKind};
use crate::event::switched::Switched;
use crate::event::{HostState, MacAddress};
use std::collections::BTreeSet;
use std::net::IpAddr;

/// As the host knows them.
pub fn guests(host: &HostState) -> Vec<GuestReport> {
    list(host, |interface| (interface.mac, interface.addresses.clone()))
}

/// With the addresses that traffic told.
pub fn of_scene(scene: &Scene<'_>) -> Vec<GuestReport> {
    list(scene.host, |interface| (scene.mac_of(interface.device), scene.addresses_of(interface.device).to_vec()))
}

fn list(host: &HostState, seen: impl Fn(&GuestInterface) -> (Option<MacAddress>, Vec<IpAddr>)) -> Vec<GuestReport> {
    let switched = Switched::new(host);
    let interface = |interface: &GuestInterface| {
        let (mac, mut addresses) = seen(interface);
        addresses.sort_unstable();
        let link = host.link(interface.device);
        let bridge = link
            .and_then(|link| link.master)
            .and_then(|master| host.link(master))
            .filter(|link| matches!(link.kind, LinkKind::Bridge(_)));
        InterfaceReport {
            device: host.link_name(interface.device),
            kind: interface.kind.clone(),
            mac: mac.map(|mac| mac.to_string()),
            bridge: bridge
                .map(|bridge| bridge.name.clone())
                .or_else(|| switched.bridge(interface.device).map(str::to_owned)),
            uplinks: uplinks(host, &switched, link, bridge),
            addresses: addresses.iter().map(ToString::to_string).collect(),
        }
    };
    host.guests
        .iter()
        .map(|guest| GuestReport {
            origin: Origin::of(host),
            name: guest.name.clone(),
            uuid: guest.uuid.clone(),
            pid: guest.pid,
            manager: guest.manager.clone(),
            interfaces: guest.interfaces.iter().map(interface).collect(),
        })
        .collect()
}

/// The bridge's ports that are no guest's; without any, the devices of the default routes; under a macvtap, its device.
fn uplinks(host: &HostState, switched: &Switched<'_>, link: Option<&Link>, bridge: Option<&Link>) -> Vec<String> {
    if let Some(lower) = link.filter(|link| matches!(link.kind, LinkKind::Macvtap { .. })).and_then(|link| link.lower) {
        return vec![host.link_name(lower)];
    }
    let ports: Vec<String> =
        bridge.into_iter().flat_map(|bridge| host.uplinks(bridge.index)).map(|link| link.name.clone()).collect();
    // A bridge of the kernel may be joined to one of Open vSwitch by a pair (OpenStack's qvb and qvo).
    let far = bridge.into_iter().flat_map(|bridge| host.uplinks(bridge.index)).filter_map(|link| link.peer);
    let near = link.map(|link| link.index).into_iter().chain(far).find(|device| switched.place(*device).is_some());
    if let Some(device) = near {
        return switched.uplinks(device).iter().map(|link| link.name.clone()).collect();
    }
    if !ports.is_empty() {
        return ports;
    }
    let mut routed: Vec<String> = host
        .routes
        .iter()
        .filter(|route| route.destination.prefix == 0)
        .filter_map(|route| host.link(route.device?))
        .filter(|link| Some(link.index) != bridge.map(|bridge| bridge.index))
        .map(|link| link.name.clone())
        .collect();
    routed.sort_unstable();
    routed.dedup();
    routed
}

/// Devices that stand on each other, told at most.
const STACKED: usize = 4;

/// The guests' uplinks, each followed by the devices that it stands on: those below a VLAN device, down to a bond with its legs.
/// Each device once, in the order of the guests.
pub fn uplink_stacks(host: &HostState, guests: &[GuestReport]) -> Vec<UplinkReport> {
    let names = guests.iter().flat_map(|guest| &guest.interfaces).flat_map(|interface| &interface.uplinks);
    let mut told = BTreeSet::new();
    names.flat_map(|name| stack(host, name)).filter(|uplink| told.insert(uplink.device.clone())).collect()
}

/// One uplink and the devices that it stands on, from the top down.
pub fn stack(host: &HostState, name: &str) -> Vec<UplinkReport> {
    let lower = |link: &Link| link.lower.filter(|_| matches!(link.kind, LinkKind::Vlan { .. }));
    let devices = std::iter::successors(host.link_named(name), |link| host.link(lower(link)?)).take(STACKED);
    let report = |link: &Link| UplinkReport {
        device: link.name.clone(),
        vlan: if let LinkKind::Vlan { id } = link.kind { Some(id) } else { None },
        lower: lower(link).map(|lower| host.link_name(lower)),
        bond: host.bonds.get(&link.index).map(|bond| BondReport {
            mode: bond.mode.to_string(),
            legs: bond
                .legs
                .keys()
                .map(|leg| LegReport { device: host.link_name(*leg), sends: bond.sends_by(*leg) })
                .collect(),
        }),
    };
    devices.map(report).collect()
}

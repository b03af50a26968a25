//! Facts about devices, guests or the host rather than about one flow.

mod dead_ways;
mod gone;
mod spoofed;
mod xdp;

use super::facts::tunnel;
use super::faults::conflict;
use super::fix::device;
use super::report::{Cause, Finding, Fix, FlowReport, Label, Point, Severity};
use super::shell::quote;
use crate::diagnose::facts::layer2::Layer2;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::facts::senders::{Senders, is_virtual_router};
use crate::diagnose::flows::case::Case;
use crate::diagnose::words;
use crate::event::host::LinkKind;
use crate::event::{Direction, IfIndex, Place, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// ARP requests per second from one guest that no honest one sends.
const STORM_PER_SECOND: f64 = 300.0;

/// And so many at least, that a short burst is none.
const STORM_COUNT: u64 = 500;

/// Packets per second of a group that come back in by a port that they left by.
const LOOP_PER_SECOND: f64 = 200.0;

/// Addresses in conflict that are told.
const CONFLICTS: usize = 64;

/// All findings, the gravest first.
pub fn findings(scene: &Scene<'_>, layer2: &Layer2, cases: &[Case<'_>], flows: &[FlowReport]) -> Vec<Finding> {
    let loops = loops(scene);
    let mut found = if loops.is_empty() { storms(scene, cases) } else { loops };
    let looping = found.iter().any(|finding| finding.cause == Cause::BridgeLoop);
    if !looping {
        let senders = Senders::of(scene);
        found.extend(conflicts(scene, layer2, &senders));
        found.extend(spoofed::findings(scene, layer2, &senders, flows));
    }
    if !flows.iter().any(|flow| flow.cause == Some(Cause::BridgeFloodDisabled)) {
        found.extend(unflooded(scene));
    }
    if let Some((count, drop)) = tunnel::unknown_vni(scene)
        && !flows.iter().any(|flow| flow.cause == Some(Cause::TunnelUnknownVni))
    {
        let device = drop.device().or_else(|| {
            scene.host.links.values().find(|link| matches!(link.kind, LinkKind::Vxlan { .. })).map(|link| link.index)
        });
        found.push(Finding {
            label: Label::default(),
            cause: Cause::TunnelUnknownVni,
            severity: Severity::Warning,
            guest: None,
            place: device.map(|device| at(scene, device, Point::Tunnel).of(&drop)),
            count: Some(count),
            explanation: format!(
                "{count} tunnel packets came with a network identifier (VNI) that no device of this host has."
            ),
            evidence: vec![drop.label()],
            fixes: vec![Fix::advice(format!(
                "Use one VNI at both ends of the tunnel (this host has {}), or stop the peer from sending here.",
                tunnel::identifiers(scene.host)
            ))],
        });
    }
    found.extend(dead_ways::findings(scene, flows));
    if !flows.iter().any(|flow| flow.cause == Some(Cause::GuestGone)) {
        found.extend(gone::findings(scene));
    }
    found.extend(xdp::findings(scene, flows));
    found.sort_by(|a, b| {
        (std::cmp::Reverse(a.severity), a.cause, &a.guest).cmp(&(std::cmp::Reverse(b.severity), b.cause, &b.guest))
    });
    found
}

/// Broadcasts and groups that came to a bridge, and that a guest's port did not get because it is set so.
fn unflooded(scene: &Scene<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for interface in scene.host.guests.iter().flat_map(|guest| &guest.interfaces) {
        let Some((link, flags)) = scene.link(interface.device).and_then(|link| Some((link, link.port.as_ref()?)))
        else {
            continue;
        };
        let missed = |wanted: fn(crate::event::MacAddress) -> bool| -> u64 {
            let on_bridge = |device: IfIndex| {
                scene.link(device).is_some_and(|other| other.master == link.master || Some(other.index) == link.master)
            };
            let counts = scene.track.as_taken().flows().filter_map(|flow| {
                let came = flow.places.iter().find(|(place, counters)| {
                    let source =
                        if scene.role(place.device) == Role::Bridge { Direction::Egress } else { Direction::Ingress };
                    place.device != link.index
                        && on_bridge(place.device)
                        && place.direction == source
                        && wanted(counters.destination_mac)
                });
                let got = flow.places.keys().any(|place| place.device == link.index);
                came.filter(|_| !got).map(|(_, counters)| counters.packets)
            });
            counts.sum()
        };
        let (flag, what, count) = match (flags.broadcast_flood, flags.multicast_flood) {
            (false, _) => ("bcast_flood", "broadcasts (ARP requests among them)", missed(|mac| mac.0 == [0xff; 6])),
            (true, false) => (
                "mcast_flood",
                "multicast packets (neighbour solicitations among them)",
                missed(|mac| mac.is_multicast() && mac.0 != [0xff; 6]),
            ),
            (true, true) => continue,
        };
        if count == 0 {
            continue;
        }
        found.push(Finding {
            label: Label::default(),
            cause: Cause::BridgeFloodDisabled,
            severity: Severity::Warning,
            guest: scene.guest_name(link.index),
            place: Some(at(scene, link.index, Point::BridgeEgress)),
            count: Some(count),
            explanation: format!(
                "{count} {what} came to the bridge and did not reach {}: its port has {flag} off.",
                link.name
            ),
            evidence: vec![format!("{}: {flag} off", link.name)],
            fixes: vec![device::port_flag(link, flag, true, format!("{} then gets them.", link.name))],
        });
    }
    found
}

fn seconds(scene: &Scene<'_>) -> f64 {
    (scene.track.end().since(scene.track.start()).0 as f64 / 1e9).max(0.2)
}

fn storms(scene: &Scene<'_>, cases: &[Case<'_>]) -> Vec<Finding> {
    let mut by_guest: BTreeMap<IfIndex, u64> = BTreeMap::new();
    for case in cases {
        let asks = matches!(case.key().protocol, Protocol::Arp { operation: 1 } | Protocol::Icmpv6 { kind: 135, .. });
        if let (true, Some((place, counters))) = (asks, scene.entry(case.group.main)) {
            *by_guest.entry(place.device).or_default() += counters.packets;
        }
    }
    by_guest
        .into_iter()
        .filter(|(_, count)| *count >= STORM_COUNT && *count as f64 / seconds(scene) >= STORM_PER_SECOND)
        .map(|(device, count)| {
            let name = scene.name(device);
            let rate = count as f64 / seconds(scene);
            // A table per device: whoever takes one away takes nothing else.
            let table = format!("netdev kvmtrace_storm_{}", device.0);
            let rule = format!("add table {table}; add chain {table} ingress {{ type filter hook ingress device \"{name}\" priority 0; }}; add rule {table} ingress ether type arp limit rate over 50/second drop");
            Finding {
                label: Label::default(),
                cause: Cause::ArpStorm,
                severity: Severity::Warning,
                guest: scene.guest_name(device),
                place: Some(at(scene, device, Point::TapIngress)),
                count: Some(count),
                explanation: format!("{} floods {name} with {rate:.0} ARP requests per second: every machine of the network has to look at each.", scene.guest_name(device).unwrap_or_default()),
                evidence: vec![format!("{count} ARP requests or neighbour solicitations at {name} ingress")],
                fixes: vec![
                    Fix::run(format!("nft {}", quote(&rule)), format!("nft delete table {table}"), format!("Lets 50 ARP packets per second pass {name}."))
                        .risk("More than that is lost, also of honest requests.")
                        .persist("libvirt: <filterref> with a rate, or the same rule in /etc/nftables.conf."),
                    Fix::advice("Find out in the guest what asks (a scan, a worm, a wrong netmask)."),
                ],
            }
        })
        .collect()
}

/// A group's packets that leave by a guest's port and come in by another of the same bridge, again and again.
fn loops(scene: &Scene<'_>) -> Vec<Finding> {
    let mut worst: BTreeMap<IfIndex, (u64, BTreeSet<IfIndex>)> = BTreeMap::new();
    for flow in scene.track.as_taken().flows() {
        let group = flow.places.values().any(|counters| counters.destination_mac.is_multicast());
        let back: Vec<(IfIndex, u64)> = flow
            .places
            .iter()
            .filter(|(place, _)| place.direction == Direction::Ingress && scene.role(place.device) == Role::Tap)
            // What goes round has left by the port about as often as it came in, but for losses; what a guest sends again and again has not.
            .filter(|(place, counters)| {
                let left = flow.places.get(&Place { direction: Direction::Egress, ..**place });
                left.is_some_and(|left| left.packets.saturating_mul(16) >= counters.packets)
            })
            .map(|(place, counters)| (place.device, counters.packets))
            .collect();
        let count: u64 = back.iter().map(|(_, count)| count).sum();
        if !group || count < STORM_COUNT || (count as f64) / seconds(scene) < LOOP_PER_SECOND {
            continue;
        }
        for (device, count) in back {
            if let Some(bridge) = scene.bridge_of(device) {
                let entry = worst.entry(bridge.index).or_default();
                entry.0 += count;
                entry.1.insert(device);
            }
        }
    }
    worst
        .into_iter()
        .map(|(bridge, (count, devices))| {
            let name = scene.name(bridge);
            let ports: Vec<String> = devices.iter().map(|device| scene.name(*device)).collect();
            let guest = devices.iter().next().and_then(|device| scene.guest_name(*device));
            let command = |value: u8| format!("ip link set dev {} type bridge stp_state {value}", quote(&name));
            let last = devices.iter().next_back().map(|device| quote(&scene.name(*device))).unwrap_or_default();
            Finding {
                label: Label::default(),
                cause: Cause::BridgeLoop,
                severity: Severity::Error,
                guest: guest.clone(),
                place: Some(at(scene, bridge, Point::BridgeForward)),
                count: Some(count),
                explanation: format!("Frames go round in a loop through {name}: what leaves by {} comes back in, {:.0} times per second.", words::list(&ports), count as f64 / seconds(scene)),
                evidence: vec![format!("{count} copies of group frames came back in by {}", words::list(&ports))],
                fixes: vec![
                    Fix::run(command(1), command(0), format!("Spanning tree on {name} finds the loop and blocks one port."))
                        .risk("Ports forward only after twice the forward delay (30 s) from now on.")
                        .persist("Set stp on where the bridge is configured (ifupdown bridge_stp, netplan parameters.stp, libvirt <bridge stp='on'/>)."),
                    Fix::run(format!("ip link set dev {last} nomaster"), format!("ip link set dev {last} master {}", quote(&name)), "Or cuts the loop at once by taking one of the ports off the bridge."),
                    Fix::advice(format!("Undo the bridging inside {}, which joins two of its interfaces.", guest.unwrap_or_else(|| "the guest".to_owned()))),
                ],
            }
        })
        .collect()
}

fn conflicts(scene: &Scene<'_>, layer2: &Layer2, senders: &Senders) -> Vec<Finding> {
    let speaks_vrrp = |device: &IfIndex| senders.at(*device).speaks_vrrp;
    let mut found = Vec::new();
    for address in layer2.claims.keys().copied() {
        if found.len() == CONFLICTS {
            break;
        }
        let Some(conflict) = layer2.conflict(scene, address) else { continue };
        if !conflict.spoofed && conflict.guests.iter().all(speaks_vrrp) {
            continue;
        }
        if layer2.has_moved(scene, &conflict) {
            continue;
        }
        let (cause, explanation, fix) = conflict::claimed_twice(scene, &conflict);
        found.push(Finding {
            label: Label::default(),
            cause,
            severity: Severity::Error,
            guest: scene.guest_name(conflict.offender.1),
            place: Some(at(scene, conflict.offender.1, Point::TapIngress)),
            count: Some(conflict.macs.len() as u64),
            explanation,
            evidence: conflict.macs.iter().map(|mac| format!("{address} is claimed by {mac}")).collect(),
            fixes: vec![fix],
        });
    }
    for mac in layer2.senders.keys().copied() {
        let Some(devices) = layer2.shared(mac) else { continue };
        let guests = devices.iter().map(|device| scene.guest_name(*device));
        let one_guest = guests.collect::<BTreeSet<_>>().len() == 1;
        if one_guest || is_virtual_router(mac) && devices.iter().all(speaks_vrrp) {
            continue;
        }
        let (explanation, fix) = conflict::sent_from_several(scene, mac, &devices);
        let taker = conflict::taker(scene, mac, &devices);
        found.push(Finding {
            label: Label::default(),
            cause: Cause::MacConflict,
            severity: Severity::Error,
            guest: taker.and_then(|device| scene.guest_name(device)),
            place: taker.map(|device| at(scene, device, Point::TapIngress)),
            count: Some(devices.len() as u64),
            explanation,
            evidence: devices
                .iter()
                .map(|device| format!("{mac} seen as source at {} ingress", scene.name(*device)))
                .collect(),
            fixes: vec![fix],
        });
    }
    found.truncate(CONFLICTS);
    found
}

//! Facts about devices, guests or the host rather than about one flow.

mod dead_ways;
mod gone;
mod xdp;

use super::facts::tunnel;
use super::faults::conflict;
use super::fix::device;
use super::report::{Cause, Finding, Fix, FlowReport, Label, Point, Severity};
use super::shell::quote;
use crate::diagnose::facts::layer2::Layer2;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::flows::case::Case;
use crate::diagnose::words;
use crate::event::host::{Link, LinkKind};
use crate::event::{Direction, IfIndex, MacAddress, Place, Protocol};
use std::collections::{BTreeMap, BTreeSet};

/// ARP requests per second from one guest that no honest one sends.
const STORM_PER_SECOND: f64 = 300.0;

/// And so many at least, that a short burst is none.
const STORM_COUNT: u64 = 500;

/// Packets per second of a group that come back in by a port that they left by.
const LOOP_PER_SECOND: f64 = 200.0;

/// All findings, the gravest first.
pub fn findings(scene: &Scene<'_>, layer2: &Layer2, cases: &[Case<'_>], flows: &[FlowReport]) -> Vec<Finding> {
    let loops = loops(scene);
    let mut found = if loops.is_empty() { storms(scene, cases) } else { loops };
    let looping = found.iter().any(|finding| finding.cause == Cause::BridgeLoop);
    if !looping {
        found.extend(conflicts(scene, layer2));
        found.extend(spoofed(scene, layer2, flows));
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

fn conflicts(scene: &Scene<'_>, layer2: &Layer2) -> Vec<Finding> {
    let mut found = Vec::new();
    for address in layer2.claims.keys().copied() {
        let Some(conflict) = layer2.conflict(scene, address) else { continue };
        if !conflict.spoofed && conflict.guests.iter().all(|device| speaks_vrrp(scene, *device)) {
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
        if one_guest || is_virtual_router(mac) && devices.iter().all(|device| speaks_vrrp(scene, *device)) {
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
    found.truncate(64);
    found
}

/// The MAC address of a virtual router (RFC 9568), which moves with its role.
fn is_virtual_router(mac: MacAddress) -> bool {
    matches!(mac.0, [0, 0, 0x5e, 0, 1 | 2, _])
}

/// The guest takes part in VRRP, by which an address moves from one to another.
fn speaks_vrrp(scene: &Scene<'_>, device: IfIndex) -> bool {
    scene
        .track
        .as_taken()
        .flows()
        .filter(|flow| flow.key.protocol == Protocol::Ip(112))
        .any(|flow| flow.places.keys().any(|place| place.device == device && scene.is_entry(*place)))
}

/// The guest's own address comes from another MAC address as well. A nested guest or a container has an address of its own.
fn sends_own_address(scene: &Scene<'_>, device: IfIndex, mac: MacAddress) -> bool {
    let own = scene.addresses_of(device);
    scene.track.as_taken().flows().any(|flow| {
        let ours = flow.key.source.ip().is_some_and(|source| own.contains(&source));
        let here = flow
            .places
            .iter()
            .any(|(place, counters)| place.device == device && scene.is_entry(*place) && counters.source_mac == mac);
        let changed = flow.other_macs.iter().any(|(place, other)| place.device == device && *other == mac);
        ours && (here || changed)
    })
}

/// The interface's own MAC address sends, too: a guest that bridges or nests others has its own beside theirs.
fn sends_with_own_mac(scene: &Scene<'_>, device: IfIndex) -> bool {
    let own = scene.interface(device).and_then(|interface| interface.mac);
    scene.track.as_taken().flows().any(|flow| {
        flow.places.iter().any(|(place, counters)| {
            place.device == device && scene.is_entry(*place) && Some(counters.source_mac) == own
        })
    })
}

/// What was sent to this MAC address came out at the guest's port.
fn is_answered(scene: &Scene<'_>, device: IfIndex, mac: MacAddress) -> bool {
    scene.track.as_taken().flows().any(|flow| {
        let here = |place: &crate::event::Place| place.device == device && scene.is_exit(*place);
        flow.places.iter().any(|(place, counters)| here(place) && counters.destination_mac == mac)
    })
}

/// The interface's own MAC address was in use when the trace began, as the bridge had learned, and sends nothing any more: this
/// is the only one that does.
fn has_changed(scene: &Scene<'_>, device: IfIndex, mac: MacAddress) -> bool {
    let own = scene.interface(device).and_then(|interface| interface.mac);
    let learned = |entry: &crate::event::host::FdbEntry| {
        entry.device == device && Some(entry.mac) == own && !entry.permanent && !entry.fixed
    };
    let alone = scene.track.as_taken().flows().all(|flow| {
        let mut entries = flow.places.iter().filter(|(place, _)| place.device == device && scene.is_entry(**place));
        entries.all(|(_, counters)| counters.source_mac == mac)
    });
    alone && scene.track.first_host().forwarding.iter().any(learned)
}

/// A next hop of this host's has it.
fn is_router_mac(scene: &Scene<'_>, mac: MacAddress) -> bool {
    let host = scene.host;
    let is_hop = |address| host.routes.iter().any(|route| route.gateway == Some(address));
    host.neighbours.iter().any(|entry| entry.mac == Some(mac) && is_hop(entry.address))
}

/// A guest that sends with a MAC address that is not its interface's.
fn spoofed(scene: &Scene<'_>, layer2: &Layer2, flows: &[FlowReport]) -> Vec<Finding> {
    let mut found = Vec::new();
    // A rule that keeps guests to their own addresses has stopped it already, and the flow reports that.
    let is_stopped = |device: IfIndex| {
        let by_rule =
            |cause: Cause| matches!(cause, Cause::SourceSpoofed | Cause::NetfilterBridge | Cause::NetfilterBridgedIp);
        let own = |flow: &&FlowReport| flow.device.as_deref() == Some(scene.name(device).as_str()) && flow.dropped > 0;
        flows.iter().filter(own).any(|flow| flow.cause.is_some_and(by_rule))
    };
    for (mac, devices) in &layer2.senders {
        let [(device, count)] = devices.iter().collect::<Vec<_>>()[..] else { continue };
        let Some(own) = scene.mac_of(*device).filter(|own| own != mac) else { continue };
        let sends_own = layer2.senders.get(&own).is_some_and(|seen| seen.contains_key(device));
        if mac.is_multicast()
            || mac.is_zero()
            || !sends_own && scene.interface(*device).is_none_or(|interface| interface.mac.is_none())
        {
            continue;
        }
        let host = scene.is_host_mac(*mac);
        let other = scene.guest_by_mac(*mac).filter(|owner| owner != device);
        let stolen = host || other.is_some() || is_router_mac(scene, *mac);
        let plain = !sends_own_address(scene, *device, *mac) && sends_with_own_mac(scene, *device);
        // What bridges, nests or runs containers is answered under the addresses that they send with.
        let changed = has_changed(scene, *device, *mac);
        let nested = !stolen && !changed && (plain || is_answered(scene, *device, *mac));
        if !host && (is_virtual_router(*mac) || nested) {
            continue;
        }
        // In this mode the guest has the whole NIC, with as many addresses as it likes.
        let owns_nic = |link: &Link| matches!(&link.kind, LinkKind::Macvtap { mode } if mode == "passthru");
        if is_stopped(*device) || scene.link(*device).is_some_and(owns_nic) {
            continue;
        }
        let name = scene.name(*device);
        let guest = scene.guest_name(*device).unwrap_or_default();
        let whose = if host { ", which is this host's own" } else { "" };
        let table = format!("netdev kvmtrace_mac_{}", device.0);
        let rule = format!(
            "add table {table}; add chain {table} only {{ type filter hook ingress device \"{name}\" priority 0; }}; add rule {table} only ether saddr != {own} drop"
        );
        let only = Fix::run(
            format!("nft {}", quote(&rule)),
            format!("nft delete table {table}"),
            format!("Takes from {name} only frames of {own}."),
        )
        .risk("Nested guests, containers with addresses of their own, or VRRP in the guest stop working.")
        .persist("libvirt: <filterref filter='no-mac-spoofing'/> in the guest's interface.");
        let advice =
            Fix::advice("If the guest bridges or runs guests of its own this is how it works: nothing to mend.");
        // Its address is known under its own MAC address, and it sends from it with another.
        let forged = sends_own_address(scene, *device, *mac) && is_answered(scene, *device, own);
        let fixes = if stolen || changed || forged { vec![only, advice] } else { vec![advice, only] };
        found.push(Finding {
            label: Label::default(),
            cause: Cause::MacSpoofed,
            severity: if host { Severity::Error } else { Severity::Warning },
            guest: Some(guest.clone()),
            place: Some(at(scene, *device, Point::TapIngress)),
            count: Some(*count),
            explanation: format!(
                "{guest} sends on {name} with the source MAC address {mac}{whose}; its interface's is {own}."
            ),
            evidence: vec![format!("{count} packets from {mac} at {name} ingress")],
            fixes,
        });
    }
    found.truncate(16);
    found
}

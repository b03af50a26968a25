//! A guest that sends with a MAC address that is not its interface's.

use crate::diagnose::facts::layer2::Layer2;
use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::facts::senders::{Sender, Senders, is_virtual_router};
use crate::diagnose::report::{Cause, Finding, Fix, FlowReport, Label, Point, Severity};
use crate::diagnose::shell::quote;
use crate::event::host::{FdbEntry, Link, LinkKind};
use crate::event::names::MacvtapMode;
use crate::event::{IfIndex, MacAddress};
use std::collections::HashSet;

/// Findings of this kind that are told.
const FINDINGS: usize = 16;

/// The interface's own MAC address was in use when the trace began, as the bridge had learned, and sends nothing any more: this
/// is the only one that does.
fn has_changed(scene: &Scene<'_>, port: &Sender, device: IfIndex, mac: MacAddress) -> bool {
    let own = scene.interface(device).and_then(|interface| interface.mac);
    let learned =
        |entry: &FdbEntry| entry.device == device && Some(entry.mac) == own && !entry.permanent && !entry.fixed;
    port.macs.iter().all(|other| *other == mac) && scene.track.first_host().forwarding.iter().any(learned)
}

/// A next hop of this host's has it.
fn is_router_mac(scene: &Scene<'_>, mac: MacAddress) -> bool {
    let host = scene.host;
    let is_hop = |address| host.routes.iter().any(|route| route.gateway == Some(address));
    host.neighbours.iter().any(|entry| entry.mac == Some(mac) && is_hop(entry.address))
}

/// See the module.
pub(super) fn findings(scene: &Scene<'_>, layer2: &Layer2, senders: &Senders, flows: &[FlowReport]) -> Vec<Finding> {
    let mut found = Vec::new();
    // A rule that keeps guests to their own addresses has stopped it already, and the flow reports that.
    let by_rule =
        |cause: Cause| matches!(cause, Cause::SourceSpoofed | Cause::NetfilterBridge | Cause::NetfilterBridgedIp);
    let stopped = flows.iter().filter(|flow| flow.dropped > 0 && flow.cause.is_some_and(by_rule));
    let stopped: HashSet<&str> = stopped.filter_map(|flow| flow.device.as_deref()).collect();
    for (mac, devices) in &layer2.senders {
        if found.len() == FINDINGS {
            break;
        }
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
        let port = senders.at(*device);
        let uses_own_address = port.of_own_address.contains(mac);
        let uses_own_mac =
            scene.interface(*device).and_then(|interface| interface.mac).is_some_and(|own| port.macs.contains(&own));
        // A nested guest or a container has an address of its own, and the guest its own MAC address beside theirs.
        let plain = !uses_own_address && uses_own_mac;
        // What bridges, nests or runs containers is answered under the addresses that they send with.
        let changed = has_changed(scene, port, *device, *mac);
        let nested = !stolen && !changed && (plain || port.answered.contains(mac));
        if !host && (is_virtual_router(*mac) || nested) {
            continue;
        }
        // In this mode the guest has the whole NIC, with as many addresses as it likes.
        let owns_nic = |link: &Link| matches!(&link.kind, LinkKind::Macvtap { mode } if *mode == MacvtapMode::Passthru);
        let name = scene.name(*device);
        if stopped.contains(name.as_str()) || scene.link(*device).is_some_and(owns_nic) {
            continue;
        }
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
        let forged = uses_own_address && port.answered.contains(&own);
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
    found
}

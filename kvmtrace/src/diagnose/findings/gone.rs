//! A tap that no process has open, in a bridge to which frames come for an address that nobody has: they are for the guest that
//! was behind it. No flow shows it: the owner of the address is no longer known.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::scene::{Role, Scene};
use crate::diagnose::report::{Cause, Finding, Fix, Label, Point, Severity};
use crate::event::host::{Guest, Link};
use crate::event::{Direction, IfIndex, MacAddress};
use std::collections::BTreeMap;

/// Taps without a process, one for each bridge on which frames for nobody were seen.
pub(in crate::diagnose) fn findings(scene: &Scene<'_>) -> Vec<Finding> {
    let strays = strays(scene);
    let abandoned = |guest: &&Guest| {
        let first = scene.track.first_host();
        let before = |device| first.guest_of(device).is_some_and(|guest| first.is_abandoned(guest));
        scene.host.is_abandoned(guest) && guest.interfaces.iter().all(|interface| before(interface.device))
    };
    let mut found = Vec::new();
    for interface in scene.host.guests.iter().filter(abandoned).flat_map(|guest| &guest.interfaces) {
        let Some(link) = scene.link(interface.device) else { continue };
        let Some((mac, count)) = link.master.and_then(|bridge| strays.get(&bridge)) else { continue };
        found.push(finding(scene, link, *mac, *count));
    }
    found
}

/// Packets for an address that neither this host nor a guest has and no bridge has learnt, by the bridge that they came to.
fn strays(scene: &Scene<'_>) -> BTreeMap<IfIndex, (MacAddress, u64)> {
    let mut strays: BTreeMap<IfIndex, (MacAddress, u64)> = BTreeMap::new();
    for flow in scene.track.flows().filter(|flow| scene.track.get(&flow.key.reverse()).is_none()) {
        for (place, counters) in &flow.places {
            let mac = counters.destination_mac;
            let bridge = match (scene.role(place.device), place.direction) {
                (Role::Bridge, Direction::Egress) => Some(place.device),
                (_, Direction::Ingress) => scene.bridge_of(place.device).map(|bridge| bridge.index),
                _ => None,
            };
            let known = mac.is_multicast()
                || mac.is_zero()
                || scene.is_host_mac(mac)
                || scene.guest_by_mac(mac).is_some()
                || scene.host.forwarding.iter().any(|entry| entry.mac == mac);
            if let (Some(bridge), false) = (bridge, known) {
                let entry = strays.entry(bridge).or_insert((mac, 0));
                entry.1 += counters.packets;
            }
        }
    }
    strays
}

fn finding(scene: &Scene<'_>, link: &Link, mac: MacAddress, count: u64) -> Finding {
    let bridge = scene.bridge_of(link.index).map(|bridge| bridge.name.clone()).unwrap_or_default();
    Finding {
        label: Label::default(),
        cause: Cause::GuestGone,
        severity: Severity::Error,
        guest: scene.guest_name(link.index),
        place: Some(at(scene, link.index, Point::TapEgress)),
        count: Some(count),
        explanation: format!(
            "{count} frames came to {bridge} for {mac}, which nobody on this host has, and no process has {} open: the guest behind it has ended, or was never started.",
            link.name
        ),
        evidence: vec![format!("{}: no process, {}", link.name, if link.carrier { "carrier" } else { "no carrier" })],
        fixes: vec![Fix::advice(format!("Start the guest that belongs to {}, or delete the tap.", link.name))],
    }
}

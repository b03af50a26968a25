//! With which MAC addresses each port is used: in one pass over all flows, for a guest may send with as many as it likes.

use super::scene::Scene;
use crate::event::{IfIndex, MacAddress, Protocol};
use std::collections::{BTreeMap, HashSet};

/// What comes and goes at one guest's interface, whoever sent it.
#[derive(Debug, Default)]
pub struct Sender {
    /// Source MAC addresses of what came in.
    pub macs: HashSet<MacAddress>,
    /// Those of them that came with an address of the interface's own.
    pub of_own_address: HashSet<MacAddress>,
    /// Destination MAC addresses of what went out.
    pub answered: HashSet<MacAddress>,
    /// VRRP came in, by which an address moves from one to another.
    pub speaks_vrrp: bool,
}

/// Guests' interfaces by device.
#[derive(Debug, Default)]
pub struct Senders {
    by_device: BTreeMap<IfIndex, Sender>,
    nobody: Sender,
}

impl Senders {
    /// From all flows.
    pub fn of(scene: &Scene<'_>) -> Self {
        let mut senders = Self::default();
        for flow in scene.track.as_taken().flows() {
            let owns = |device| flow.key.source.ip().is_some_and(|source| scene.addresses_of(device).contains(&source));
            for (place, counters) in &flow.places {
                let (entry, exit) = (scene.is_entry(*place), scene.is_exit(*place));
                if !entry && !exit {
                    continue;
                }
                let sender = senders.by_device.entry(place.device).or_default();
                if exit {
                    sender.answered.insert(counters.destination_mac);
                } else {
                    sender.macs.insert(counters.source_mac);
                    sender.speaks_vrrp |= flow.key.protocol == Protocol::Ip(112);
                    if owns(place.device) {
                        sender.of_own_address.insert(counters.source_mac);
                    }
                }
            }
            for (place, mac) in flow.other_macs.iter().filter(|(place, _)| owns(place.device)) {
                senders.by_device.entry(place.device).or_default().of_own_address.insert(*mac);
            }
        }
        senders
    }

    /// Of one interface; nothing of one that was not heard.
    pub fn at(&self, device: IfIndex) -> &Sender {
        self.by_device.get(&device).unwrap_or(&self.nobody)
    }
}

/// The MAC address of a virtual router (RFC 9568), which moves with its role.
pub fn is_virtual_router(mac: MacAddress) -> bool {
    matches!(mac.0, [0, 0, 0x5e, 0, 1 | 2, _])
}

//! Who claims which address on which port: the material for conflicts, spoofing, storms and loops.

use super::scene::{Role, Scene};
use crate::event::host::Link;
use crate::event::{Direction, IfIndex, MacAddress, Nanoseconds, Place, Protocol, Timestamp};
use crate::track::Flow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Claims that are remembered: a guest may claim without end.
const CLAIMS: usize = 4_096;

/// How long after its last packet a flow's counters may be read.
const LATE: Nanoseconds = Nanoseconds(1_000_000_000);

/// What was claimed in the trace.
#[derive(Debug, Default)]
pub struct Layer2 {
    /// Who said that an IP address is its own (ARP, neighbour advertisements), and where that came in.
    pub claims: BTreeMap<IpAddr, BTreeSet<(MacAddress, IfIndex)>>,
    /// Source MAC addresses that came in by each guest's interface, with packets.
    pub senders: BTreeMap<MacAddress, BTreeMap<IfIndex, u64>>,
    /// Addresses that are claimed, and the guests' interfaces that send from them otherwise.
    users: BTreeSet<(IpAddr, IfIndex)>,
}

impl Layer2 {
    /// From all flows.
    pub fn of(scene: &Scene<'_>) -> Self {
        let mut facts = Self::default();
        for flow in scene.track.as_taken().flows() {
            let claimed = if matches!(flow.key.protocol, Protocol::Arp { .. }) {
                flow.key.source.ip()
            } else if matches!(flow.key.protocol, Protocol::Icmpv6 { kind: 136, .. }) {
                flow.target.or(flow.key.source.ip())
            } else {
                None
            }
            .filter(|address| !address.is_unspecified() && is_heard(scene, flow));
            for (place, counters) in &flow.places {
                let port = scene.bridge_of(place.device).is_some() && place.direction == Direction::Ingress;
                if !(scene.is_entry(*place) || port) {
                    continue;
                }
                let others = flow.other_macs.iter().filter(|(at, _)| at == place).map(|(_, mac)| *mac);
                for mac in std::iter::once(counters.source_mac).chain(others) {
                    facts.add(scene, claimed, mac, place.device, counters.packets);
                }
            }
        }
        facts.add_users(scene);
        facts
    }

    /// Whoever beyond the host sends from an address that a guest claims uses it too, though it may not have been asked
    /// for it in this trace. What a guest sent and a router sends back is not that.
    fn add_users(&mut self, scene: &Scene<'_>) {
        let mut users = Vec::new();
        for flow in scene.track.as_taken().flows() {
            let Some(address) = flow.key.source.ip() else { continue };
            let claimed = self
                .claims
                .get(&address)
                .is_some_and(|claims| claims.iter().any(|(_, device)| scene.interface(*device).is_some()));
            let neighbours =
                matches!(flow.key.protocol, Protocol::Arp { .. } | Protocol::Icmpv6 { kind: 133..=137, .. });
            if !claimed || neighbours {
                continue;
            }
            let entries: Vec<IfIndex> =
                flow.places.keys().filter(|place| scene.is_entry(**place)).map(|place| place.device).collect();
            if !entries.is_empty() {
                self.users.extend(entries.into_iter().map(|device| (address, device)));
                continue;
            }
            let beyond = flow.places.iter().filter(|(place, _)| {
                place.direction == Direction::Ingress
                    && matches!(scene.role(place.device), Role::Nic | Role::Tunnel)
                    && scene.bridge_of(place.device).is_some()
            });
            users.extend(beyond.map(|(place, counters)| (address, counters.source_mac, place.device)));
        }
        for (address, mac, device) in users {
            self.claims.entry(address).or_default().insert((mac, device));
        }
    }

    fn add(&mut self, scene: &Scene<'_>, claimed: Option<IpAddr>, mac: MacAddress, device: IfIndex, packets: u64) {
        if (self.senders.len() < CLAIMS || self.senders.contains_key(&mac))
            && matches!(scene.role(device), Role::Tap | Role::Macvtap)
        {
            *self.senders.entry(mac).or_default().entry(device).or_default() += packets;
        }
        if let Some(address) = claimed
            && (self.claims.len() < CLAIMS || self.claims.contains_key(&address))
        {
            self.claims.entry(address).or_default().insert((mac, device));
        }
    }

    /// Claims of one address by more than one MAC address: the genuine ones first.
    pub fn conflict(&self, scene: &Scene<'_>, address: IpAddr) -> Option<Conflict> {
        let claims = self.claims.get(&address)?;
        // A macvtap has its guest's MAC address and, made of it, the guest's link-local address (RFC 4291 appendix A).
        let twin = |link: &Link| link.mac.is_some_and(|mac| claims.contains(&(mac, link.index)));
        let host = scene.device_of_address(address).filter(|link| !twin(link));
        let macs: BTreeSet<MacAddress> = claims.iter().map(|(mac, _)| *mac).collect();
        let guests: Vec<(MacAddress, IfIndex)> =
            claims.iter().copied().filter(|(_, device)| scene.interface(*device).is_some()).collect();
        let beyond = claims.iter().any(|(_, device)| scene.interface(*device).is_none());
        if macs.len() < 2 && (host.is_none() || guests.is_empty()) {
            return None;
        }
        let gateway = scene.host.routes.iter().any(|route| route.gateway == Some(address));
        // Whoever talks from it has it as an address; who only says that it is his draws the traffic of another.
        let used = guests.iter().any(|(_, device)| self.users.contains(&(address, *device)));
        let spoofed = host.is_some() || gateway || beyond && !used;
        let offender = guests.iter().copied().find(|(mac, device)| {
            // The one whose address it is was known before; a guest beside the host or a router is the intruder.
            spoofed
                || scene.guest_by_address(crate::event::Address::Ip(address)) != Some(*device)
                    && !scene.is_host_mac(*mac)
        });
        let offender = offender.or_else(|| guests.last().copied())?;
        let mut guests: Vec<IfIndex> = guests.into_iter().map(|(_, device)| device).collect();
        guests.sort_unstable();
        guests.dedup();
        Some(Conflict { address, spoofed, offender, guests, macs: macs.into_iter().collect() })
    }

    /// The address went from one guest to another in the trace, as keepalived and other pairs move it: one announced it
    /// unasked and then used it, and the other was not heard from it any more.
    pub fn has_moved(&self, scene: &Scene<'_>, conflict: &Conflict) -> bool {
        let address = conflict.address;
        let [one, other] = *conflict.guests.as_slice() else { return false };
        if conflict.macs.len() != 2 || conflict.spoofed {
            return false;
        }
        let mut heard: BTreeMap<IfIndex, (Timestamp, Timestamp)> = BTreeMap::new();
        let mut announced = BTreeSet::new();
        for flow in scene.track.as_taken().flows() {
            let advertises = matches!(flow.key.protocol, Protocol::Icmpv6 { kind: 136, .. });
            let claimed = if advertises { flow.target.or(flow.key.source.ip()) } else { flow.key.source.ip() };
            if claimed != Some(address) {
                continue;
            }
            let to = flow.key.destination.ip();
            let arp = matches!(flow.key.protocol, Protocol::Arp { .. });
            let unasked = arp && to == Some(address) || advertises && to.is_some_and(|to| to.is_multicast());
            // Both say the same of it when they are asked; which of them said it last is not counted.
            let entries = || flow.places.iter().filter(|(place, _)| scene.is_entry(**place));
            let shared = entries().count() > 1;
            for (place, counters) in entries() {
                let last = if shared { counters.first } else { flow.last };
                let times = heard.entry(place.device).or_insert((counters.first, last));
                *times = (times.0.min(counters.first), times.1.max(last));
                if unasked {
                    announced.insert(place.device);
                }
            }
        }
        let (Some(first), Some(second)) = (heard.get(&one), heard.get(&other)) else { return false };
        let follows =
            |old: &(Timestamp, Timestamp), new: &(Timestamp, Timestamp)| old.0 < new.0 && old.1.since(new.0) <= LATE;
        let takes = |taker: IfIndex| announced.contains(&taker) && self.users.contains(&(address, taker));
        follows(first, second) && takes(other) || follows(second, first) && takes(one)
    }

    /// A MAC address that sends from several guests' interfaces.
    pub fn shared(&self, mac: MacAddress) -> Option<Vec<IfIndex>> {
        let devices: Vec<IfIndex> = self.senders.get(&mac)?.keys().copied().collect();
        (devices.len() > 1).then_some(devices)
    }
}

/// What a guest says has come further than to the hook that keeps it to its own addresses.
fn is_heard(scene: &Scene<'_>, flow: &Flow) -> bool {
    let behind = |place: &Place| !scene.is_entry(*place);
    flow.drops.is_empty() || flow.places.keys().any(behind)
}

/// Two claim one address.
#[derive(Clone, Debug)]
pub struct Conflict {
    /// Which.
    pub address: IpAddr,
    /// A guest claims what belongs to the host, a router or another machine.
    pub spoofed: bool,
    /// Who claims it in addition.
    pub offender: (MacAddress, IfIndex),
    /// The guests among those who do.
    pub guests: Vec<IfIndex>,
    /// All who do.
    pub macs: Vec<MacAddress>,
}

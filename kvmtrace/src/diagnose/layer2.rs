//! Who claims which address on which port: the material for conflicts, spoofing, storms and loops.

use super::scene::{Role, Scene};
use crate::event::host::Link;
use crate::event::{Direction, IfIndex, MacAddress, Protocol};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// Claims that are remembered: a guest may claim without end.
const CLAIMS: usize = 4_096;

/// What was claimed in the trace.
#[derive(Debug, Default)]
pub struct Layer2 {
    /// Who said that an IP address is its own (ARP, neighbour advertisements), and where that came in.
    pub claims: BTreeMap<IpAddr, BTreeSet<(MacAddress, IfIndex)>>,
    /// Source MAC addresses that came in by each guest's interface, with packets.
    pub senders: BTreeMap<MacAddress, BTreeMap<IfIndex, u64>>,
}

impl Layer2 {
    /// From all flows.
    pub fn of(scene: &Scene<'_>) -> Self {
        let mut facts = Self::default();
        for flow in scene.track.flows() {
            let claimed = if matches!(flow.key.protocol, Protocol::Arp { .. }) {
                flow.key.source.ip()
            } else if matches!(flow.key.protocol, Protocol::Icmpv6 { kind: 136, .. }) {
                flow.target.or(flow.key.source.ip())
            } else {
                None
            }
            .filter(|address| !address.is_unspecified());
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
        facts
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
        let spoofed = host.is_some() || gateway || beyond;
        let offender = guests.iter().copied().find(|(mac, device)| {
            // The one whose address it is was known before; a guest beside the host or a router is the intruder.
            spoofed
                || scene.guest_by_address(crate::event::Address::Ip(address)) != Some(*device)
                    && !scene.is_host_mac(*mac)
        });
        let offender = offender.or_else(|| guests.last().copied())?;
        Some(Conflict { address, spoofed, offender, macs: macs.into_iter().collect() })
    }

    /// A MAC address that sends from several guests' interfaces.
    pub fn shared(&self, mac: MacAddress) -> Option<Vec<IfIndex>> {
        let devices: Vec<IfIndex> = self.senders.get(&mac)?.keys().copied().collect();
        (devices.len() > 1).then_some(devices)
    }
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
    /// All who do.
    pub macs: Vec<MacAddress>,
}

//! How well an address is known to be somebody's. What the host's own tables say comes before what answered both ways,
//! and that before a mere claim: a guest can claim anything.

use super::scene::Scene;
use crate::event::host::{Guest, Link};
use crate::event::names::NeighbourState;
use crate::event::{IfIndex, MacAddress};
use std::net::IpAddr;

/// How well an address is known to be an interface's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    /// It sends from it, if that.
    Claimed,
    /// It sends from it, and gets answers there.
    Answered,
    /// The host's own tables say so: it has resolved the address to the interface's MAC address, or routes it there.
    Resolved,
}

/// Whose an address or MAC address is.
#[derive(Clone, Copy, Debug)]
pub enum Owner<'a> {
    /// This host's.
    Host(&'a Link),
    /// The guest's behind this interface.
    Guest(IfIndex),
    /// A machine's beyond this host, with this MAC address.
    Machine(MacAddress),
}

impl Owner<'_> {
    /// As a part of a sentence.
    pub fn text(&self, scene: &Scene<'_>) -> String {
        match self {
            Self::Host(link) => format!("this host ({})", link.name),
            Self::Guest(device) => {
                let name = scene.name(*device);
                scene.guest_name(*device).map_or_else(|| name.clone(), |guest| format!("{guest} on {name}"))
            }
            Self::Machine(mac) => format!("the machine with {mac}"),
        }
    }
}

impl<'a> Scene<'a> {
    /// How well the address is known to be the interface's.
    pub fn standing(&self, device: IfIndex, address: IpAddr) -> Standing {
        if self.is_resolved(device, address) {
            Standing::Resolved
        } else if self.is_answered(device, address) {
            Standing::Answered
        } else {
            Standing::Claimed
        }
    }

    /// Who but this interface has the address, and is better known for it.
    pub fn true_owner(&self, device: IfIndex, address: IpAddr) -> Option<Owner<'a>> {
        let standing = self.standing(device, address);
        if let Some(link) = self.device_of_address(address) {
            return Some(Owner::Host(link));
        }
        let own = self.host.guest_of(device);
        let is_other = |guest: &Guest| own.is_none_or(|own| !std::ptr::eq(own, guest));
        let guests = self.host.guests.iter().filter(|guest| is_other(guest));
        let mut others: Vec<(Standing, IfIndex)> = guests
            .flat_map(|guest| &guest.interfaces)
            .map(|interface| (self.standing(interface.device, address), interface.device))
            .filter(|(other, interface)| *other > standing && !self.forwards(*interface, address))
            .collect();
        others.sort_by_key(|(standing, interface)| (std::cmp::Reverse(*standing), *interface));
        if let Some((_, interface)) = others.first() {
            return Some(Owner::Guest(*interface));
        }
        let resolved = |state: NeighbourState| state.is_resolved() && state != NeighbourState::NoArp;
        let entry = self.host.neighbours.iter().find(|entry| entry.address == address && resolved(entry.state))?;
        let mac = entry.mac.filter(|mac| self.guest_by_mac(*mac).is_none())?;
        (standing < Standing::Resolved).then_some(Owner::Machine(mac))
    }

    /// Who but this interface has the MAC address.
    pub fn mac_owner(&self, device: IfIndex, mac: MacAddress) -> Option<Owner<'a>> {
        if let Some(owner) = self.guest_by_mac(mac) {
            return (owner != device).then_some(Owner::Guest(owner));
        }
        let bears = |link: &&Link| link.mac == Some(mac);
        if let Some(link) = self.host.links.values().find(bears) {
            return (link.index != device).then_some(Owner::Host(link));
        }
        // Learnt behind another port of its bridge, where it also came in.
        let bridge = self.bridge_of(device)?.index;
        let entries = self.host.forwarding.iter().filter(|entry| entry.mac == mac && entry.bridge == Some(bridge));
        let other =
            entries.map(|entry| entry.device).find(|port| *port != device && self.index().is_heard(*port, mac))?;
        Some(if self.interface(other).is_some() { Owner::Guest(other) } else { Owner::Machine(mac) })
    }
}

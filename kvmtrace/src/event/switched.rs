//! Which devices of a host are ports of Open vSwitch.

use super::host::{HostState, Link, LinkKind};
use super::switch::{SwitchKind, SwitchPlace};
use super::units::IfIndex;
use std::collections::{BTreeSet, HashMap};

/// Where the devices of a host are among the bridges of Open vSwitch: made once, asked often.
#[derive(Debug)]
pub struct Switched<'a> {
    host: &'a HostState,
    places: HashMap<IfIndex, SwitchPlace>,
    devices: HashMap<SwitchPlace, IfIndex>,
    names: HashMap<&'a str, SwitchPlace>,
}

impl<'a> Switched<'a> {
    /// Indexes a host.
    pub fn new(host: &'a HostState) -> Self {
        let names: HashMap<&str, SwitchPlace> =
            host.switch.interfaces().map(|(place, interface)| (interface.name.as_str(), place)).collect();
        let (mut places, mut devices) = (HashMap::new(), HashMap::new());
        for link in host.links.values().filter(|_| !names.is_empty()) {
            let Some(place) = names.get(link.name.as_str()) else { continue };
            let kind = host.switch.at(*place).map(|(_, _, interface)| &interface.kind);
            if matches!(kind, Some(SwitchKind::System | SwitchKind::Internal)) {
                places.insert(link.index, *place);
                devices.insert(*place, link.index);
            }
        }
        Self { host, places, devices, names }
    }

    /// Where a device is.
    pub fn place(&self, device: IfIndex) -> Option<SwitchPlace> {
        self.places.get(&device).copied()
    }

    /// The device of an interface; none for a patch port, a tunnel and others that are no device of this namespace.
    pub fn device(&self, place: SwitchPlace) -> Option<IfIndex> {
        self.devices.get(&place).copied()
    }

    /// The interface with this name.
    pub fn named(&self, name: &str) -> Option<SwitchPlace> {
        self.names.get(name).copied()
    }

    /// The name of the bridge that a device is a port of.
    pub fn bridge(&self, device: IfIndex) -> Option<&'a str> {
        Some(&self.host.switch.bridges.get(self.place(device)?.bridge)?.name)
    }

    /// The bridge of a device, and those that patch ports join it to.
    pub fn joined(&self, device: IfIndex) -> Vec<usize> {
        let (mut next, mut joined) = (0, Vec::from_iter(self.place(device).map(|place| place.bridge)));
        while let Some(bridge) = joined.get(next).and_then(|index| self.host.switch.bridges.get(*index)) {
            next += 1;
            for interface in bridge.ports.iter().flat_map(|port| &port.interfaces) {
                if let SwitchKind::Patch(Some(peer)) = &interface.kind
                    && let Some(far) = self.named(peer).map(|place| place.bridge)
                    && !joined.contains(&far)
                {
                    joined.push(far);
                }
            }
        }
        joined
    }

    /// The devices of the bridge of a device, and of those that patch ports join it to.
    pub fn beside(&self, device: IfIndex) -> BTreeSet<IfIndex> {
        let joined = self.joined(device);
        self.places.iter().filter(|(_, place)| joined.contains(&place.bridge)).map(|(device, _)| *device).collect()
    }

    /// The devices by which the bridge of a device reaches beyond this host: those that are neither a guest's nor Open
    /// vSwitch's own.
    pub fn uplinks(&self, device: IfIndex) -> Vec<&'a Link> {
        let beside = self.beside(device).into_iter().filter_map(|device| self.host.link(device));
        let own = |link: &Link| matches!(&link.kind, LinkKind::Other(kind) if kind == "openvswitch");
        beside
            .filter(|link| !own(link) && link.kind != LinkKind::Tun && self.host.guest_of(link.index).is_none())
            .collect()
    }
}

//! Open vSwitch as its own daemons describe it: bridges, ports, OpenFlow rules and learnt addresses.

use super::units::MacAddress;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// All bridges of this host's Open vSwitch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Switch {
    /// The directory of its sockets, where it is not the usual one: its tools have to be pointed there.
    pub directory: Option<String>,
    /// Its bridges, by name.
    pub bridges: Vec<SwitchBridge>,
}

/// A bridge.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchBridge {
    /// Its name.
    pub name: String,
    /// It forwards frames to the reserved groups of 802.1D, too (`other_config:forward-bpdu`).
    pub forwards_reserved: bool,
    /// Its ports, by name.
    pub ports: Vec<SwitchPort>,
    /// Its OpenFlow rules; none where they could not be read, or not all of them.
    pub flows: Option<Vec<SwitchFlow>>,
    /// Addresses that its action NORMAL has learnt.
    pub learnt: Vec<SwitchEntry>,
}

/// A port: one interface, or several as a bond.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchPort {
    /// Its name.
    pub name: String,
    /// Which VLANs it carries, and how.
    pub vlans: SwitchVlans,
    /// Its interfaces.
    pub interfaces: Vec<SwitchInterface>,
}

/// The columns `tag`, `trunks` and `vlan_mode` of a port (ovs-vswitchd.conf.db(5)).
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SwitchVlans {
    /// All these VLANs with their tags; none listed: all, and what has no tag.
    Trunk(Vec<u16>),
    /// One VLAN, without a tag.
    Access(u16),
    /// As a trunk; what has no tag is of this VLAN, and leaves so if the flag is set.
    Native(u16, Vec<u16>, bool),
    /// Whatever it carries is wrapped into this VLAN (QinQ).
    Wrapped(u16),
}

impl Default for SwitchVlans {
    fn default() -> Self {
        Self::Trunk(Vec::new())
    }
}

/// An interface of a port.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchInterface {
    /// Its name: a device's for those that are one.
    pub name: String,
    /// What it is.
    pub kind: SwitchKind,
    /// Its OpenFlow port number.
    pub number: Option<u16>,
    /// Why Open vSwitch can't use it.
    pub error: Option<String>,
}

/// The type of an interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum SwitchKind {
    /// A device of the system: a NIC, a tap, a veth.
    #[default]
    System,
    /// A device of Open vSwitch's own, by which this host is on the bridge.
    Internal,
    /// One end of a pair that joins two bridges; the name of the other end.
    Patch(Option<String>),
    /// A tunnel: its protocol, its remote end and its key; none where a flow chooses them.
    Tunnel(String, Option<IpAddr>, Option<u32>),
    /// Another: `dpdkvhostuserclient`, …
    Other(String),
}

/// An OpenFlow rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchFlow {
    /// Its table.
    pub table: u8,
    /// The highest is asked first.
    pub priority: u16,
    /// What it matches, as ovs-ofctl(8) writes it.
    pub fields: String,
    /// What it does, as ovs-ofctl(8) writes it.
    pub actions: String,
    /// Packets that it has met.
    pub packets: u64,
}

/// A learnt address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SwitchEntry {
    /// The OpenFlow number of the port behind which it is.
    pub port: u16,
    /// Its VLAN; 0 for none.
    pub vlan: u16,
    /// The address.
    pub mac: MacAddress,
}

/// `OFPP_LOCAL`: the port of the bridge itself.
pub const LOCAL: u16 = 0xfffe;

/// Where an interface is among the bridges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SwitchPlace {
    /// Index of the bridge.
    pub bridge: usize,
    /// Index of the port.
    pub port: usize,
    /// Index of the interface.
    pub interface: usize,
}

impl Switch {
    /// All interfaces with their places.
    pub fn interfaces(&self) -> impl Iterator<Item = (SwitchPlace, &SwitchInterface)> {
        self.bridges.iter().enumerate().flat_map(|(bridge, all)| {
            all.ports.iter().enumerate().flat_map(move |(port, all)| {
                let place = move |interface| SwitchPlace { bridge, port, interface };
                all.interfaces.iter().enumerate().map(move |(index, interface)| (place(index), interface))
            })
        })
    }

    /// The interface with this name.
    pub fn place(&self, name: &str) -> Option<SwitchPlace> {
        self.interfaces().find(|(_, interface)| interface.name == name).map(|(place, _)| place)
    }

    /// A bridge, a port and an interface by their place.
    pub fn at(&self, place: SwitchPlace) -> Option<(&SwitchBridge, &SwitchPort, &SwitchInterface)> {
        let bridge = self.bridges.get(place.bridge)?;
        let port = bridge.ports.get(place.port)?;
        Some((bridge, port, port.interfaces.get(place.interface)?))
    }
}

impl Switch {
    /// Ports, rules and learnt addresses.
    pub(super) fn entries(&self) -> usize {
        let of = |bridge: &SwitchBridge| {
            bridge.ports.len() + bridge.learnt.len() + bridge.flows.as_ref().map_or(0, Vec::len)
        };
        self.bridges.iter().map(of).sum()
    }

    /// Their weight, in values or eight bytes of text.
    pub(super) fn weight(&self) -> usize {
        let text = |text: &str| 1 + text.len() / 8;
        let flow = |flow: &SwitchFlow| 4 + text(&flow.fields) + text(&flow.actions);
        let port = |port: &SwitchPort| {
            4 + text(&port.name) + port.interfaces.iter().map(|interface| 6 + text(&interface.name)).sum::<usize>()
        };
        let bridge = |bridge: &SwitchBridge| {
            let flows = bridge.flows.iter().flatten().map(flow).sum::<usize>();
            4 + bridge.learnt.len() * 8 + flows + bridge.ports.iter().map(port).sum::<usize>()
        };
        self.bridges.iter().map(bridge).sum()
    }

    /// Keeps `most` of them. Rules go first, for half of a bridge's rules say nothing; then learnt addresses; then ports.
    pub(super) fn cut(&mut self, most: usize) {
        let longest = |bridge: &SwitchBridge| bridge.flows.as_ref().map_or(0, Vec::len);
        while self.entries() > most {
            match self.bridges.iter_mut().max_by_key(|bridge| longest(bridge)).filter(|bridge| longest(bridge) > 0) {
                Some(bridge) => bridge.flows = None,
                None => break,
            }
        }
        let mut room = most;
        for bridge in &mut self.bridges {
            bridge.ports.truncate(room);
            room -= bridge.ports.len();
        }
        for bridge in &mut self.bridges {
            let rules = bridge.flows.as_ref().map_or(0, Vec::len);
            room = room.saturating_sub(rules);
            bridge.learnt.truncate(room);
            room -= bridge.learnt.len();
        }
        if most == 0 {
            self.bridges.clear();
        }
    }
}

impl SwitchBridge {
    /// The index of the port with this OpenFlow number, and of its interface.
    pub fn numbered(&self, number: u16) -> Option<(usize, usize)> {
        let has = |port: &SwitchPort| port.interfaces.iter().position(|interface| interface.number == Some(number));
        self.ports.iter().enumerate().find_map(|(index, port)| Some((index, has(port)?)))
    }
}

impl SwitchVlans {
    /// The VLAN of a frame that comes in by the port; none where the port does not take it. `tag` is 0 for no tag.
    pub fn takes(&self, tag: u16) -> Option<u16> {
        match self {
            Self::Access(vlan) => (tag == 0).then_some(*vlan),
            Self::Native(vlan, ..) if tag == 0 => Some(*vlan),
            Self::Trunk(_) | Self::Native(..) => self.carries(tag).then_some(tag),
            Self::Wrapped(vlan) => Some(*vlan),
        }
    }

    /// Frames of this VLAN leave by the port.
    pub fn carries(&self, vlan: u16) -> bool {
        match self {
            Self::Access(own) | Self::Wrapped(own) => *own == vlan,
            Self::Trunk(vlans) => vlans.is_empty() || vlans.contains(&vlan),
            Self::Native(own, vlans, _) => *own == vlan || vlans.is_empty() || vlans.contains(&vlan),
        }
    }

    /// The tag with which frames of this VLAN leave; 0 for none.
    pub fn tag_of(&self, vlan: u16) -> u16 {
        match self {
            Self::Access(_) | Self::Wrapped(_) => 0,
            Self::Native(own, _, true) if *own == vlan => 0,
            Self::Trunk(_) | Self::Native(..) => vlan,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::SwitchVlans;
    use rstest::rstest;

    #[rstest]
    #[case::access(SwitchVlans::Access(7), 0, Some(7))]
    #[case::access_takes_no_tags(SwitchVlans::Access(7), 7, None)]
    #[case::a_trunk_of_all(SwitchVlans::Trunk(Vec::new()), 9, Some(9))]
    #[case::a_trunk_of_all_takes_what_has_no_tag(SwitchVlans::Trunk(Vec::new()), 0, Some(0))]
    #[case::a_trunk_of_some(SwitchVlans::Trunk(vec![8]), 9, None)]
    #[case::native(SwitchVlans::Native(7, vec![8], true), 0, Some(7))]
    #[case::native_tagged(SwitchVlans::Native(7, vec![8], false), 8, Some(8))]
    fn a_port_takes_frames_into_a_vlan(#[case] vlans: SwitchVlans, #[case] tag: u16, #[case] vlan: Option<u16>) {
        assert_eq!(vlans.takes(tag), vlan);
    }

    #[rstest]
    #[case::access(SwitchVlans::Access(7), 0)]
    #[case::a_trunk(SwitchVlans::Trunk(Vec::new()), 7)]
    #[case::native_untagged(SwitchVlans::Native(7, Vec::new(), true), 0)]
    #[case::native_tagged(SwitchVlans::Native(7, Vec::new(), false), 7)]
    fn a_port_sends_frames_of_vlan_seven_with_a_tag(#[case] vlans: SwitchVlans, #[case] tag: u16) {
        assert!(vlans.carries(7));
        assert_eq!(vlans.tag_of(7), tag);
    }
}

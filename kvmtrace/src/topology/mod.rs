//! Who owns which address, MAC and device on this host, and how devices hang together: indexes over a [`HostState`], made
//! once and asked often.
#![forbid(unsafe_code)]

pub mod routing;
pub mod rules;
mod served;
mod source;
pub mod switch;

#[cfg(test)]
mod tests;

pub use served::is_served;

use crate::event::host::{FdbEntry, Guest, GuestInterface, Link, LinkKind, Neighbour, Network};
use crate::event::{HostState, IfIndex, MacAddress};
use routing::Routes;
use rules::Rules;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use switch::Switching;

/// The host's tables with their indexes.
#[derive(Debug)]
pub struct Topology<'a> {
    /// The host.
    pub host: &'a HostState,
    /// Routes and rules of policy routing.
    pub routes: Routes<'a>,
    /// The firewall's rules, read.
    pub rules: Rules,
    /// Open vSwitch.
    pub switch: Switching<'a>,
    ports: BTreeMap<IfIndex, Vec<&'a Link>>,
    uppers: BTreeMap<IfIndex, Vec<&'a Link>>,
    names: HashMap<&'a str, &'a Link>,
    interfaces: BTreeMap<IfIndex, (&'a Guest, &'a GuestInterface)>,
    fdb: HashMap<(IfIndex, MacAddress, u16), &'a FdbEntry>,
    remotes: HashMap<(IfIndex, MacAddress), Vec<&'a FdbEntry>>,
    own: HashMap<IpAddr, Vec<(&'a Link, Network)>>,
    neighbours: HashMap<(IfIndex, IpAddr), &'a Neighbour>,
    guest_macs: HashMap<MacAddress, IfIndex>,
    guest_addresses: HashMap<IpAddr, IfIndex>,
    broadcasts: HashSet<Ipv4Addr>,
    loopback: Option<&'a Link>,
}

/// The device is Open vSwitch's, or a port of it: its datapath decides what becomes of frames.
pub fn is_switched(host: &HostState, link: &Link) -> bool {
    let is_switch = |link: &Link| matches!(&link.kind, LinkKind::Other(kind) if kind == "openvswitch");
    is_switch(link) || link.master.and_then(|master| host.link(master)).is_some_and(is_switch)
}

/// The broadcast address of a network; a network of one or two addresses has none (`fib_add_ifaddr`).
fn broadcast(network: Network) -> Option<Ipv4Addr> {
    match network.address {
        IpAddr::V4(own) if network.prefix < 31 => {
            let hosts = u32::MAX.checked_shr(u32::from(network.prefix)).unwrap_or(0);
            Some(Ipv4Addr::from(u32::from(own) | hosts))
        }
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

impl<'a> Topology<'a> {
    /// Indexes a host.
    pub fn new(host: &'a HostState) -> Self {
        let mut topology = Self {
            host,
            routes: Routes::new(host),
            rules: Rules::new(host),
            switch: Switching::new(host),
            ports: BTreeMap::new(),
            uppers: BTreeMap::new(),
            names: HashMap::new(),
            interfaces: BTreeMap::new(),
            fdb: HashMap::with_capacity(host.forwarding.len()),
            remotes: HashMap::new(),
            own: HashMap::new(),
            neighbours: HashMap::with_capacity(host.neighbours.len()),
            guest_macs: HashMap::new(),
            guest_addresses: HashMap::new(),
            broadcasts: HashSet::new(),
            loopback: host.links.values().find(|link| link.kind == LinkKind::Loopback),
        };
        for link in host.links.values() {
            topology.names.entry(&link.name).or_insert(link);
            if let Some(master) = link.master {
                topology.ports.entry(master).or_default().push(link);
            }
            if let Some(lower) = link.lower {
                topology.uppers.entry(lower).or_default().push(link);
            }
            for network in &link.addresses {
                topology.own.entry(network.address).or_default().push((link, *network));
                topology.broadcasts.extend(broadcast(*network));
            }
        }
        for entry in &host.forwarding {
            if let Some(bridge) = entry.bridge {
                topology.fdb.entry((bridge, entry.mac, entry.vlan.unwrap_or(0))).or_insert(entry);
            } else {
                topology.remotes.entry((entry.device, entry.mac)).or_default().push(entry);
            }
        }
        for neighbour in &host.neighbours {
            topology.neighbours.entry((neighbour.device, neighbour.address)).or_insert(neighbour);
        }
        for guest in &host.guests {
            for interface in &guest.interfaces {
                topology.interfaces.entry(interface.device).or_insert((guest, interface));
                if let Some(mac) = interface.mac {
                    topology.guest_macs.entry(mac).or_insert(interface.device);
                }
                for address in &interface.addresses {
                    topology.guest_addresses.entry(*address).or_insert(interface.device);
                }
            }
        }
        topology
    }

    /// A device.
    pub fn link(&self, device: IfIndex) -> Option<&'a Link> {
        self.host.link(device)
    }

    /// The device with this name.
    pub fn link_named(&self, name: &str) -> Option<&'a Link> {
        self.names.get(name).copied()
    }

    /// The ports of a bridge, or the legs of a bond, by index.
    pub fn ports(&self, master: IfIndex) -> &[&'a Link] {
        self.ports.get(&master).map_or(&[], Vec::as_slice)
    }

    /// Devices stacked on this one (VLAN, macvlan, macvtap, VXLAN), by index.
    pub fn uppers(&self, lower: IfIndex) -> &[&'a Link] {
        self.uppers.get(&lower).map_or(&[], Vec::as_slice)
    }

    /// The bridge that a device is a port of.
    pub fn bridge_of(&self, port: &Link) -> Option<&'a Link> {
        self.link(port.master?).filter(|master| matches!(master.kind, LinkKind::Bridge(_)))
    }

    /// The VRF that a device belongs to (`l3mdev_master_ifindex`).
    pub fn vrf_of(&self, device: &Link) -> Option<&'a Link> {
        self.link(device.master?).filter(|master| matches!(&master.kind, LinkKind::Other(kind) if kind == "vrf"))
    }

    /// The guest and its interface on this device.
    pub fn interface(&self, device: IfIndex) -> Option<(&'a Guest, &'a GuestInterface)> {
        self.interfaces.get(&device).copied()
    }

    /// The interface of the guest that has this MAC address by configuration or neighbour tables.
    pub fn guest_by_mac(&self, mac: MacAddress) -> Option<IfIndex> {
        self.guest_macs.get(&mac).copied()
    }

    /// The interface of the guest that has this address by the host's tables.
    pub fn guest_by_address(&self, address: IpAddr) -> Option<IfIndex> {
        self.guest_addresses.get(&address).copied()
    }

    /// The entry of a bridge's forwarding database for an address in a VLAN (0 without VLAN filtering), as
    /// `br_fdb_find_rcu` finds it.
    pub fn fdb(&self, bridge: IfIndex, mac: MacAddress, vlan: u16) -> Option<&'a FdbEntry> {
        self.fdb.get(&(bridge, mac, vlan)).copied()
    }

    /// Remotes that a VXLAN device's own database has for an address.
    pub fn remotes(&self, tunnel: IfIndex, mac: MacAddress) -> &[&'a FdbEntry] {
        self.remotes.get(&(tunnel, mac)).map_or(&[], Vec::as_slice)
    }

    /// The devices that hold an address of this host, with its prefix.
    pub fn own(&self, address: IpAddr) -> &[(&'a Link, Network)] {
        self.own.get(&address).map_or(&[], Vec::as_slice)
    }

    /// The neighbour table's entry for an address on a device.
    pub fn neighbour(&self, device: IfIndex, address: IpAddr) -> Option<&'a Neighbour> {
        self.neighbours.get(&(device, address)).copied()
    }

    /// The address is the broadcast address of a network of this host, or `255.255.255.255`.
    pub fn is_broadcast(&self, address: IpAddr) -> bool {
        let IpAddr::V4(address) = address else { return false };
        address.is_broadcast() || self.broadcasts.contains(&address)
    }

    /// The loopback device.
    pub fn loopback(&self) -> Option<&'a Link> {
        self.loopback
    }

    /// A sysctl as a number; none where it was not read.
    pub fn sysctl(&self, name: &str) -> Option<i64> {
        self.host.sysctl(name)?.trim().parse().ok()
    }

    /// A device's setting of `net.FAMILY.conf`.
    pub fn device_sysctl(&self, family: &str, link: &Link, key: &str) -> Option<i64> {
        self.sysctl(&format!("net.{family}.conf.{}.{key}", link.name))
    }
}

//! A generated host before it is built: names, wiring, settings, and who lives where.

use kvmtrace::event::MacAddress;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An end that packets are sent from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// The guest behind this tap.
    Tap(String),
    /// The far end of this veth.
    Wire(String),
}

/// A network that stations and perhaps the host have addresses in.
#[derive(Clone, Debug)]
pub struct Segment {
    /// The host's device in it: a bridge, a tap or a veth.
    pub device: String,
    /// Its MAC address.
    pub mac: MacAddress,
    /// First 24 bits.
    pub v4: [u8; 3],
    /// First 64 bits.
    pub v6: [u16; 4],
    /// The host has the address 1 in it.
    pub hosted: bool,
}

impl Segment {
    /// An IPv4 address in it.
    pub fn v4(&self, host: u8) -> Ipv4Addr {
        let [a, b, c] = self.v4;
        Ipv4Addr::new(a, b, c, host)
    }

    /// An IPv6 address in it.
    pub fn v6(&self, host: u8) -> Ipv6Addr {
        let [a, b, c, d] = self.v6;
        Ipv6Addr::new(a, b, c, d, 0, 0, 0, u16::from(host))
    }

    /// An address in it, of one family or the other.
    pub fn address(&self, v6: bool, host: u8) -> IpAddr {
        if v6 { self.v6(host).into() } else { self.v4(host).into() }
    }
}

/// A guest's interface, or a machine on a wire.
#[derive(Clone, Debug)]
pub struct Station {
    /// Where its frames come in.
    pub end: End,
    /// Its MAC address.
    pub mac: MacAddress,
    /// Its network: index of a [`Segment`].
    pub segment: usize,
    /// Its address there.
    pub host: u8,
    /// It answers neither ARP (the first) nor neighbour solicitations (the second).
    pub deaf: [bool; 2],
    /// The tag of its frames.
    pub tag: Option<u16>,
}

impl Station {
    /// It answers ARP, or neighbour solicitations.
    pub fn answers(&self, v6: bool) -> bool {
        !self.deaf[usize::from(v6)]
    }
}

/// What is typed to build it, in this order.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Kernel parameters that new devices inherit: path below `/proc/sys` and value.
    pub defaults: Vec<(String, String)>,
    /// `ip` commands that make the devices.
    pub devices: Vec<String>,
    /// Kernel parameters.
    pub sysctls: Vec<(String, String)>,
    /// `bridge` commands, once all carriers are known.
    pub bridge: Vec<String>,
    /// `ip` commands: routes, rules, neighbours, devices that are taken down.
    pub network: Vec<String>,
    /// `ip -6` commands.
    pub network6: Vec<String>,
    /// Each a ruleset for `nft -f`.
    pub nft: Vec<String>,
    /// Each a command of iptables, ebtables, arptables.
    pub rules: Vec<String>,
    /// `ip` commands in the namespace of the far ends.
    pub elsewhere: Vec<String>,
}

/// A generated host.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What builds it.
    pub setup: Setup,
    /// The taps that a guest holds.
    pub taps: Vec<String>,
    /// Its veths, each with the name of its far end.
    pub wires: Vec<(String, String)>,
    /// Those of its veths by which nothing can come in: they are down, or their far ends are.
    pub cut: Vec<String>,
    /// Its bridges.
    pub bridges: Vec<String>,
    /// Devices on others: VXLAN, macvlan, VLAN.
    pub stacked: Vec<String>,
    /// Its networks.
    pub segments: Vec<Segment>,
    /// Who is connected.
    pub stations: Vec<Station>,
    /// Addresses beyond its networks that routes, rules and packets speak of.
    pub beyond: Vec<IpAddr>,
}

impl Plan {
    /// All its devices that are ports, bridges or carry addresses.
    pub fn devices(&self) -> Vec<&str> {
        let taps = self.taps.iter().map(String::as_str);
        let wires = self.wires.iter().map(|(near, _)| near.as_str());
        let stacked = self.stacked.iter().map(String::as_str);
        taps.chain(wires).chain(self.bridges.iter().map(String::as_str)).chain(stacked).collect()
    }

    /// A station's address.
    pub fn address(&self, station: &Station, v6: bool) -> IpAddr {
        self.segments[station.segment].address(v6, station.host)
    }
}

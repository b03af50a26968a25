//! The names, addresses and sizes of one lab.

use super::draw::Draw;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// How the lab's host is wired.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Topology {
    /// Guests' taps and the NIC are ports of one bridge.
    #[default]
    Bridge,
    /// The guests' bridge has no NIC; the host routes, and the LAN knows the way back.
    Routed,
    /// As routed, but the LAN does not know the guests: the host translates their addresses.
    Nat,
    /// The bridge reaches a second host over a VXLAN tunnel.
    Vxlan,
    /// Guests' macvtap devices on the NIC, no bridge.
    Macvtap,
}

impl Topology {
    /// All of them, with the name that a person types and what it is.
    pub const ALL: [(Self, &str, &str); 5] = [
        (Self::Bridge, "bridge", "guests and the NIC on one bridge"),
        (Self::Routed, "routed", "guests behind the host, which routes"),
        (Self::Nat, "nat", "guests behind the host, which masquerades"),
        (Self::Vxlan, "vxlan", "guests bridged to another host through a VXLAN tunnel"),
        (Self::Macvtap, "macvtap", "guests on macvtap devices of the NIC"),
    ];
}

/// Which addresses the placeholders and the traffic take. The lab itself always has both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// IPv4.
    #[default]
    Ipv4,
    /// IPv6.
    Ipv6,
}

impl Family {
    /// Bytes of the IP and ICMP echo (or UDP) headers.
    pub fn headers(self) -> u32 {
        match self {
            Self::Ipv4 => 28,
            Self::Ipv6 => 48,
        }
    }
}

/// Who masquerades in the NAT topology.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Masquerade {
    /// An nft rule.
    #[default]
    Nft,
    /// Rules of iptables-legacy and ip6tables-legacy.
    IptablesLegacy,
}

/// What a lab is built from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Options {
    /// The wiring.
    pub topology: Topology,
    /// The family of placeholders and traffic.
    pub family: Family,
    /// How many guests; 0 stands for 1.
    pub guests: usize,
    /// The MTU of every link; else drawn.
    pub mtu: Option<u32>,
    /// Whether bridged frames pass the IP chains (new namespaces of real hosts often say yes).
    pub br_netfilter: bool,
    /// Who masquerades.
    pub masquerade: Masquerade,
    /// The bridge learns who listens to which multicast group.
    pub snooping: bool,
    /// The host's files are its own: what is configured there is not this machine's.
    pub own_files: bool,
}

/// A /24 and a /64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    v4: [u8; 3],
    v6: [u16; 4],
}

impl Net {
    /// The addresses of host number `number`.
    pub fn host(self, number: u8) -> Addresses {
        let [high, middle, low] = self.v4;
        let mut v6 = [0; 8];
        v6[..4].copy_from_slice(&self.v6);
        v6[7] = u16::from(number);
        Addresses { v4: Ipv4Addr::new(high, middle, low, number), v6: v6.into() }
    }

    /// The prefix in one family.
    pub fn prefix(self, family: Family) -> String {
        let base = self.host(0);
        format!("{}/{}", base.of(family), if family == Family::Ipv4 { 24 } else { 64 })
    }
}

/// An interface's address in each family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// IPv4.
    pub v4: Ipv4Addr,
    /// IPv6.
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// The one of a family.
    pub fn of(self, family: Family) -> IpAddr {
        match family {
            Family::Ipv4 => self.v4.into(),
            Family::Ipv6 => self.v6.into(),
        }
    }

    /// The `ip` commands that give a device both.
    pub fn assign(self, device: &str) -> [String; 2] {
        [format!("addr add {}/24 dev {device}", self.v4), format!("addr add {}/64 dev {device} nodad", self.v6)]
    }
}

/// One interface: where it is is told by who holds it.
#[derive(Clone, Debug)]
pub struct Port {
    /// The device's name.
    pub device: String,
    /// Its MAC.
    pub mac: String,
    /// Its addresses.
    pub addresses: Addresses,
}

/// A guest.
#[derive(Clone, Debug)]
pub struct GuestPlan {
    /// As `-name guest=` has it.
    pub name: String,
    /// The host's end.
    pub tap: String,
    /// The guest's end.
    pub port: Port,
}

/// Everything that a lab is called by.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What it is built from.
    pub options: Options,
    /// The prefix of its namespaces.
    pub lab: String,
    /// The bridge's name.
    pub bridge: String,
    /// The host's NIC: a veth; its address is used in routed, NAT and as VXLAN underlay.
    pub uplink: Port,
    /// The VXLAN device's name.
    pub vxlan: String,
    /// The VXLAN network identifier.
    pub vni: u32,
    /// The guests.
    pub guests: Vec<GuestPlan>,
    /// The host's addresses on the guests' network.
    pub host: Port,
    /// The machine on the LAN (or at the other end of the tunnel).
    pub lan: Port,
    /// The peer's underlay address, for VXLAN.
    pub underlay: Addresses,
    /// The guests' network.
    pub guest_net: Net,
    /// The LAN; the same as the guests' where they are bridged.
    pub lan_net: Net,
    /// A third network, for detours.
    pub spare_net: Net,
    /// The MTU of every link of the guests' network.
    pub mtu: u32,
    /// A smaller one, for faults.
    pub small: u32,
    /// A free port number.
    pub port: u16,
}

impl Plan {
    /// Readable, always the same: for people.
    pub fn fixed(lab: &str, options: &Options) -> Self {
        let guests = (0..options.guests.max(1))
            .map(|index| {
                (format!("web{}", index + 1), format!("vnet{index}"), format!("52:54:00:99:00:{:02x}", 11 + index))
            })
            .collect();
        let nets = [[10, 99, 0], [10, 98, 0], [10, 97, 0]].map(|v4| Net { v4, v6: [0xfd99, 0, 0, u16::from(v4[1])] });
        let names = Names {
            bridge: "br0".into(),
            uplink: "eth0".into(),
            vxlan: "vxlan0".into(),
            guests,
            device: "ens3".into(),
        };
        Self::assemble(lab, options, names, nets, 1500, 1400, 9000)
    }

    /// Drawn, never the same: for tests.
    pub fn drawn(lab: &str, options: &Options, draw: &mut Draw) -> Self {
        let digit = draw.number(0, 9);
        let bridge = draw.pick(&["br", "vmbr", "virbr", "br-lan", "brdmz", "lan", "ovn-br", "hv"]);
        let uplink = draw.pick(&["eth", "eno", "enp3s", "ens18f", "nic", "p2p", "wan"]);
        let tap = draw.pick(&["vnet", "tap", "kvm-", "vm-tap", "fwtap", "q"]);
        let word = draw.pick(&["web", "db", "mail-", "build.", "k8s-node-", "win", "Test VM "]);
        let guests = (0..options.guests.max(1))
            .map(|_| {
                let mac = draw.hex(6);
                let mac = format!("52:54:00:{}:{}:{}", &mac[..2], &mac[2..4], &mac[4..]);
                (format!("{word}{}", draw.number(1, 9999)), format!("{tap}{}", draw.hex(4)), mac)
            })
            .collect();
        let first = draw.pick(&[[10, 0], [172, 16], [192, 168]]);
        let second = if first[0] == 10 { draw.number(1, 250) as u8 } else { first[1] };
        let third = draw.number(1, 80) as u8;
        let site = draw.bits();
        let nets = [third, third + 80, third + 160].map(|third| Net {
            v4: [first[0], second, third],
            v6: [0xfd00 | (site & 0xff) as u16, (site >> 8) as u16, (site >> 24) as u16, u16::from(third)],
        });
        let names = Names {
            bridge: format!("{bridge}{digit}"),
            uplink: format!("{uplink}{}", draw.number(0, 7)),
            vxlan: format!("{}{}", draw.pick(&["vxlan", "vx", "overlay"]), draw.number(1, 99)),
            guests,
            device: format!("{}{}", draw.pick(&["eth", "ens", "enp1s"]), draw.number(0, 9)),
        };
        let mtu = draw.pick(&[1500, 1500, 1500, 2000, 4000, 9000]);
        let (small, port) = (draw.number(1284, 1420), draw.number(2000, 30000) as u16);
        Self::assemble(lab, options, names, nets, mtu, small, port)
    }

    fn assemble(lab: &str, options: &Options, names: Names, nets: [Net; 3], mtu: u32, small: u32, port: u16) -> Self {
        let routed = matches!(options.topology, Topology::Routed | Topology::Nat);
        let guest_net = nets[0];
        let lan_net = if routed { nets[1] } else { nets[0] };
        let uplink_net = if options.topology == Topology::Macvtap { nets[0] } else { nets[1] };
        let mac = |number: u32| format!("02:00:{:02x}:{:02x}:00:{number:02x}", guest_net.v4[1], guest_net.v4[2]);
        let guests = names.guests.into_iter().zip(11..).map(|((name, tap, mac), number)| GuestPlan {
            name,
            tap,
            port: Port { device: names.device.clone(), mac, addresses: guest_net.host(number) },
        });
        Self {
            lab: lab.to_owned(),
            guests: guests.collect(),
            host: Port { device: names.bridge.clone(), mac: mac(1), addresses: guest_net.host(1) },
            uplink: Port { device: names.uplink, mac: mac(2), addresses: uplink_net.host(2) },
            lan: Port { device: "lan0".into(), mac: mac(3), addresses: lan_net.host(100) },
            bridge: names.bridge,
            vxlan: names.vxlan,
            vni: 100 + u32::from(port) % 900,
            underlay: nets[1].host(3),
            guest_net,
            lan_net,
            spare_net: nets[2],
            mtu: options.mtu.unwrap_or(mtu),
            small,
            port,
            options: options.clone(),
        }
    }

    /// What `{…}` stands for in scenario files.
    pub fn placeholders(&self) -> BTreeMap<String, String> {
        let family = self.options.family;
        let four = family == Family::Ipv4;
        let either = |v4: &str, v6: &str| if four { v4.to_owned() } else { v6.to_owned() };
        let address = |addresses: Addresses| addresses.of(family).to_string();
        let mut map: BTreeMap<String, String> = [
            ("bridge", self.bridge.clone()),
            ("uplink", self.uplink.device.clone()),
            ("uplink.ip", address(self.uplink.addresses)),
            ("uplink.mac", self.uplink.mac.clone()),
            ("vxlan", self.vxlan.clone()),
            ("vni", self.vni.to_string()),
            ("vtep", self.uplink.addresses.v4.to_string()),
            ("vtep.remote", self.underlay.v4.to_string()),
            ("host.ip", address(self.host.addresses)),
            ("host.mac", self.host.mac.clone()),
            (
                "host.dev",
                if self.options.topology == Topology::Macvtap {
                    self.uplink.device.clone()
                } else {
                    self.bridge.clone()
                },
            ),
            ("lan.ip", address(self.lan.addresses)),
            ("lan.mac", self.lan.mac.clone()),
            ("lan.dev", self.lan.device.clone()),
            ("guest.net", self.guest_net.prefix(family)),
            ("lan.net", self.lan_net.prefix(family)),
            ("spare.net", self.spare_net.prefix(family)),
            ("spare.ip", address(self.spare_net.host(9))),
            ("spare.ip2", address(self.spare_net.host(10))),
            ("free.ip", address(self.guest_net.host(200))),
            ("lan.free.ip", address(self.lan_net.host(201))),
            ("bits", either("24", "64")),
            ("mtu", self.mtu.to_string()),
            ("mtu.small", self.small.to_string()),
            // The payload of the largest ping or datagram that fits one packet, and one that needs several.
            ("fit", (self.mtu - family.headers()).to_string()),
            ("fit.small", (self.small - family.headers()).to_string()),
            ("double", (2 * self.mtu).to_string()),
            ("port", self.port.to_string()),
            ("f", either("-4", "-6")),
            ("ip", either("ip", "ip6")),
            ("icmp", either("icmp", "icmpv6")),
            ("iptables", either("iptables-legacy", "ip6tables-legacy")),
            ("forwarding", either("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding")),
            ("group", either("239.7.7.7", "ff15::7777")),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into();
        for (guest, number) in self.guests.iter().zip(1..) {
            let mut put = |name: String, value: &str| map.insert(name, value.to_owned());
            put(format!("tap{number}"), &guest.tap);
            put(format!("guest{number}"), &guest.name);
            put(format!("guest{number}.dev"), &guest.port.device);
            put(format!("guest{number}.mac"), &guest.port.mac);
            put(format!("guest{number}.ip"), &address(guest.port.addresses));
        }
        map
    }
}

/// The names that [`Plan::assemble`] distributes.
struct Names {
    bridge: String,
    uplink: String,
    vxlan: String,
    /// Name, tap and MAC of each guest.
    guests: Vec<(String, String, String)>,
    device: String,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::draw::Seed;

    #[test]
    fn every_drawn_device_name_is_one_that_the_kernel_takes() {
        for seed in 0..500 {
            let options = Options { guests: 3, ..Options::default() };
            let plan = Plan::drawn("kt", &options, &mut Seed(seed).draw("names"));
            let taps = plan.guests.iter().map(|guest| &guest.tap);
            for name in taps.chain([&plan.bridge, &plan.uplink.device, &plan.vxlan]) {
                assert!((1..16).contains(&name.len()) && !name.contains(char::is_whitespace), "{name:?}");
            }
        }
    }
}

//! The facts of a packet that decide its way: layer 2 to 4, length, mark, connection. A fact that nobody has is `None`; a
//! stage that needs it answers with [`super::step::Outcome::Unknown`] instead of a guess.

use crate::event::{Address, FlowKey, MacAddress, Protocol};
use std::net::IpAddr;

/// A packet on its way through the host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Packet {
    /// Source MAC address; `None` before layer 2 is chosen, on a device without an Ethernet header, or if not known.
    pub source_mac: Option<MacAddress>,
    /// Destination MAC address; see `source_mac`.
    pub destination_mac: Option<MacAddress>,
    /// VLAN tags of the frame, the outermost first. Empty for an untagged frame.
    pub tags: Vec<u16>,
    /// The protocol above layer 2.
    pub network: Network,
    /// Length from the layer-3 header on in bytes; of one segment for a GSO packet.
    pub length: u32,
    /// The packet is one of several segments in one GSO frame: the bridge and `ip_forward` then compare the segment's length
    /// with the MTU (`skb_gso_validate_network_len`), or don't compare at all (`is_skb_forwardable`).
    pub gso: bool,
    /// `skb->mark`.
    pub mark: Option<u32>,
    /// State of the connection that the packet belongs to (`nf_conntrack`).
    pub connection: Option<Connection>,
    /// The packet has been translated already: the connection's first packet decided.
    pub translation: Translation,
    /// The packet that it carries, where a tunnel of this host has wrapped that one.
    pub carried: Option<Box<Carried>>,
    /// It has come out of an IPsec state (`secpath`).
    pub secured: bool,
}

/// A packet inside another.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Carried {
    /// What wrapped it.
    pub by: Carrier,
    /// The inner packet.
    pub packet: Packet,
}

/// Tunnel devices that wrap packets, with the key by which the other end separates networks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Carrier {
    /// VXLAN, by its VNI.
    Vxlan(u32),
    /// Geneve, by its VNI.
    Geneve(u32),
    /// GRE, by its key.
    Gre(Option<u32>),
    /// IP in IP.
    Plain,
    /// `WireGuard`.
    Wireguard,
    /// ESP or AH.
    Ipsec,
}

/// The part above layer 2.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Network {
    /// IPv4 or IPv6, by the addresses.
    Ip(Ip),
    /// ARP.
    Arp(Arp),
    /// Another `EtherType`.
    Other(u16),
}

/// An IP packet.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Ip {
    /// Source address, of the same family as `destination`.
    pub source: IpAddr,
    /// Destination address.
    pub destination: IpAddr,
    /// The protocol above.
    pub transport: Transport,
    /// TTL or hop limit.
    pub time_to_live: Option<u8>,
    /// Must not be fragmented: DF, or IPv6.
    pub dont_fragment: bool,
    /// It is a fragment, and which.
    pub fragment: Fragment,
    /// DSCP and ECN bits.
    pub traffic_class: Option<u8>,
}

/// Whether an IP packet is a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// A whole packet.
    Whole,
    /// The first fragment: it holds the header of layer 4.
    First,
    /// A later fragment: no ports can be read in it.
    Later,
}

/// The protocol above IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Source port; none if not known.
        source: Option<u16>,
        /// Destination port; none if not known.
        destination: Option<u16>,
        /// Flags, where one packet is meant and not a flow.
        flags: Option<TcpFlags>,
    },
    /// UDP.
    Udp {
        /// Source port; none if not known.
        source: Option<u16>,
        /// Destination port; none if not known.
        destination: Option<u16>,
    },
    /// SCTP.
    Sctp {
        /// Source port; none if not known.
        source: Option<u16>,
        /// Destination port; none if not known.
        destination: Option<u16>,
    },
    /// ICMP.
    Icmp {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Echo identifier; 0 where there is none.
        id: u16,
    },
    /// `ICMPv6`.
    Icmpv6 {
        /// Type.
        kind: u8,
        /// Code.
        code: u8,
        /// Echo identifier; 0 where there is none.
        id: u16,
        /// Target of neighbour solicitation and advertisement.
        target: Option<IpAddr>,
    },
    /// Another protocol, by its IP protocol number.
    Other(u8),
}

/// TCP flags that rules ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "RFC 9293's own names")]
pub struct TcpFlags {
    pub syn: bool,
    pub ack: bool,
    pub fin: bool,
    pub rst: bool,
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arp {
    /// 1 request, 2 reply.
    pub operation: u8,
    /// Sender's protocol address.
    pub sender: IpAddr,
    /// Target's protocol address.
    pub target: IpAddr,
    /// Sender's hardware address, where it is not the frame's source.
    pub sender_mac: Option<MacAddress>,
}

/// `ct state`, as `nf_conntrack_in` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Connection {
    /// The first packet of a connection.
    New,
    /// A packet of a connection that has seen both directions.
    Established,
    /// An error, or an expected connection, that belongs to another connection.
    Related,
    /// The packet fits no connection and can't begin one.
    Invalid,
    /// Not tracked (`notrack`).
    Untracked,
}

/// What NAT has done with the packet's connection (`nf_nat_core`: only the first packet of a connection asks the nat chains).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Translation {
    /// The destination was decided: the prerouting or output nat chains have run.
    pub destination_done: bool,
    /// The source was decided: the postrouting or input nat chains have run.
    pub source_done: bool,
    /// The destination was changed (`ct status dnat`).
    pub destination_changed: bool,
    /// The source was changed (`ct status snat`).
    pub source_changed: bool,
    /// The packet answers a translated one: its addresses are put back where the nat hooks stand.
    pub restore: Option<Restore>,
}

/// The ends that an answer bears once translation is undone (`nf_nat_packet` for the reply direction).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Restore {
    /// The destination from prerouting (or output) on: the address and port that the asker really has.
    pub destination: (IpAddr, Option<u16>),
    /// The source from postrouting (or input) on: the address and port that the asker spoke to.
    pub source: (IpAddr, Option<u16>),
}

impl Packet {
    /// The packet that a flow's key describes, of `length` bytes at layer 3.
    pub fn of_flow(key: &FlowKey, length: u32) -> Self {
        let network = match (key.protocol, key.source, key.destination) {
            (Protocol::Arp { operation }, Address::Ip(sender), Address::Ip(target)) => {
                Network::Arp(Arp { operation, sender, target, sender_mac: None })
            }
            (protocol, Address::Ip(source), Address::Ip(destination)) => Network::Ip(Ip {
                source,
                destination,
                transport: Transport::of_flow(protocol, key),
                time_to_live: None,
                dont_fragment: destination.is_ipv6(),
                fragment: Fragment::Whole,
                traffic_class: None,
            }),
            (Protocol::Ethernet(ether_type), _, _) => Network::Other(ether_type),
            (_, _, _) => Network::Other(0),
        };
        Self {
            source_mac: None,
            destination_mac: None,
            tags: key.vlan.into_iter().collect(),
            network,
            length,
            gso: false,
            mark: None,
            connection: None,
            translation: Translation::default(),
            carried: None,
            secured: false,
        }
    }

    /// The packet inside all tunnels; itself where none has wrapped it.
    pub fn innermost(&self) -> &Self {
        let mut packet = self;
        while let Some(carried) = &packet.carried {
            packet = &carried.packet;
        }
        packet
    }

    /// The facts that tell a packet from another when it passes a place again: addresses and protocol, not the TTL.
    pub(super) fn network_identity(&self) -> Network {
        let mut network = self.network.clone();
        if let Network::Ip(ip) = &mut network {
            ip.time_to_live = None;
        }
        network
    }

    /// The IP packet, if it is one.
    pub fn ip(&self) -> Option<&Ip> {
        match &self.network {
            Network::Ip(ip) => Some(ip),
            Network::Arp(_) | Network::Other(_) => None,
        }
    }

    /// The IP packet, to be changed.
    pub fn ip_mut(&mut self) -> Option<&mut Ip> {
        match &mut self.network {
            Network::Ip(ip) => Some(ip),
            Network::Arp(_) | Network::Other(_) => None,
        }
    }

    /// `EtherType` of what stands behind the VLAN tags.
    pub fn ether_type(&self) -> u16 {
        match &self.network {
            Network::Ip(ip) if ip.destination.is_ipv4() => 0x0800,
            Network::Ip(_) => 0x86dd,
            Network::Arp(_) => 0x0806,
            Network::Other(ether_type) => *ether_type,
        }
    }
}

impl Ip {
    /// Protocol number, source and destination port as rules of policy routing see them; none where a port is not known. A
    /// fragment's ports count as 0 (`__skb_flow_dissect` stops at fragments).
    pub fn layer4(&self) -> Option<(u8, u16, u16)> {
        let number = self.transport.number();
        match self.transport.ports() {
            Some((source, destination)) if self.fragment == Fragment::Whole => Some((number, source?, destination?)),
            Some(_) | None => Some((number, 0, 0)),
        }
    }
}

impl Transport {
    fn of_flow(protocol: Protocol, key: &FlowKey) -> Self {
        let (source, destination) = (key.source_port, key.destination_port);
        match protocol {
            Protocol::Tcp => Self::Tcp { source, destination, flags: None },
            Protocol::Udp => Self::Udp { source, destination },
            Protocol::Sctp => Self::Sctp { source, destination },
            Protocol::Icmp { kind, code, id } => Self::Icmp { kind, code, id },
            Protocol::Icmpv6 { kind, code, id } => Self::Icmpv6 { kind, code, id, target: None },
            Protocol::Ip(number) => Self::Other(number),
            Protocol::Arp { .. } | Protocol::Ethernet(_) => Self::Other(0),
        }
    }

    /// IP protocol number.
    pub fn number(self) -> u8 {
        match self {
            Self::Icmp { .. } => 1,
            Self::Tcp { .. } => 6,
            Self::Udp { .. } => 17,
            Self::Icmpv6 { .. } => 58,
            Self::Sctp { .. } => 132,
            Self::Other(number) => number,
        }
    }

    /// Source and destination port; the outer `None` where the protocol has no ports.
    pub fn ports(self) -> Option<(Option<u16>, Option<u16>)> {
        match self {
            Self::Tcp { source, destination, .. }
            | Self::Udp { source, destination }
            | Self::Sctp { source, destination } => Some((source, destination)),
            Self::Icmp { .. } | Self::Icmpv6 { .. } | Self::Other(_) => None,
        }
    }
}

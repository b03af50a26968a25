//! Flows as people name them.

use super::units::MacAddress;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::IpAddr;

/// An end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Address {
    /// IP and ARP.
    Ip(IpAddr),
    /// Everything else on Ethernet.
    Mac(MacAddress),
}

impl Address {
    /// The IP address, if it is one.
    pub fn ip(self) -> Option<IpAddr> {
        match self {
            Self::Ip(address) => Some(address),
            Self::Mac(_) => None,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Mac(address) => address.fmt(f),
        }
    }
}

/// What a flow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Protocol {
    /// TCP; the ports are in the key.
    Tcp,
    /// UDP; the ports are in the key.
    Udp,
    /// SCTP; the ports are in the key.
    Sctp,
    /// ICMP for IPv4.
    Icmp {
        /// Type, e.g. 8 for an echo request.
        kind: u8,
        /// Code.
        code: u8,
        /// Echo: the identifier. Errors: a hash of the flow that they are about. Else 0.
        id: u16,
    },
    /// `ICMPv6`, neighbour discovery included.
    Icmpv6 {
        /// Type, e.g. 128 for an echo request, 135 for a neighbour solicitation.
        kind: u8,
        /// Code.
        code: u8,
        /// As for ICMP.
        id: u16,
    },
    /// ARP: 1 request, 2 reply.
    Arp {
        /// The operation.
        operation: u8,
    },
    /// Another IP protocol, by its number.
    Ip(u8),
    /// Another `EtherType`.
    Ethernet(u16),
}

impl Protocol {
    /// ICMP or `ICMPv6` type and code.
    pub fn icmp_kind(self) -> Option<(u8, u8)> {
        if let Self::Icmp { kind, code, .. } | Self::Icmpv6 { kind, code, .. } = self {
            Some((kind, code))
        } else {
            None
        }
    }

    /// An ICMP or `ICMPv6` error message (RFC 792, RFC 4443 section 2.1).
    pub fn is_icmp_error(self) -> bool {
        match self {
            Self::Icmp { kind, .. } => matches!(kind, 3 | 4 | 5 | 11 | 12),
            Self::Icmpv6 { kind, .. } => kind < 128,
            Self::Tcp | Self::Udp | Self::Sctp | Self::Arp { .. } | Self::Ip(_) | Self::Ethernet(_) => false,
        }
    }

    /// An ICMP or `ICMPv6` echo request.
    pub fn is_echo_request(self) -> bool {
        matches!(self, Self::Icmp { kind: 8, .. } | Self::Icmpv6 { kind: 128, .. })
    }

    /// Neighbour discovery: router and neighbour solicitation and advertisement, redirect.
    pub fn is_neighbour_discovery(self) -> bool {
        matches!(self, Self::Icmpv6 { kind: 133..=137, .. })
    }
}

/// The contract's names: `tcp`, `udp`, `icmp`, `icmpv6`, `arp`, `sctp`, `ip-47`, `ethernet-88cc`.
impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp => f.write_str("tcp"),
            Self::Udp => f.write_str("udp"),
            Self::Sctp => f.write_str("sctp"),
            Self::Icmp { .. } => f.write_str("icmp"),
            Self::Icmpv6 { .. } => f.write_str("icmpv6"),
            Self::Arp { .. } => f.write_str("arp"),
            Self::Ip(number) => write!(f, "ip-{number}"),
            Self::Ethernet(ether_type) => write!(f, "ethernet-{ether_type:04x}"),
        }
    }
}

/// One direction of one conversation, wherever it is seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FlowKey {
    /// What it speaks.
    pub protocol: Protocol,
    /// From.
    pub source: Address,
    /// Null where the protocol has no ports.
    pub source_port: Option<u16>,
    /// To.
    pub destination: Address,
    /// Null where the protocol has no ports.
    pub destination_port: Option<u16>,
    /// VLAN id, null when untagged.
    pub vlan: Option<u16>,
}

impl FlowKey {
    /// The flow that answers this one: ends swapped, echo request ↔ reply, ARP request ↔ reply, neighbour solicitation
    /// ↔ advertisement. The addresses of an ND answer may differ (a solicitation goes to a multicast group).
    #[must_use]
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other protocol is answered in kind")]
    pub fn reverse(self) -> Self {
        let protocol = match self.protocol {
            Protocol::Icmp { kind: 8, code, id } => Protocol::Icmp { kind: 0, code, id },
            Protocol::Icmp { kind: 0, code, id } => Protocol::Icmp { kind: 8, code, id },
            Protocol::Icmpv6 { kind: 128, code, id } => Protocol::Icmpv6 { kind: 129, code, id },
            Protocol::Icmpv6 { kind: 129, code, id } => Protocol::Icmpv6 { kind: 128, code, id },
            Protocol::Icmpv6 { kind: 135, code, id } => Protocol::Icmpv6 { kind: 136, code, id },
            Protocol::Icmpv6 { kind: 136, code, id } => Protocol::Icmpv6 { kind: 135, code, id },
            Protocol::Arp { operation: 1 } => Protocol::Arp { operation: 2 },
            Protocol::Arp { operation: 2 } => Protocol::Arp { operation: 1 },
            other => other,
        };
        Self {
            protocol,
            source: self.destination,
            source_port: self.destination_port,
            destination: self.source,
            destination_port: self.source_port,
            vlan: self.vlan,
        }
    }
}

/// `tcp 10.0.0.1:40000 → 10.0.0.2:443`
impl fmt::Display for FlowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end = |address: Address, port: Option<u16>| match (address, port) {
            (Address::Ip(IpAddr::V6(address)), Some(port)) => format!("[{address}]:{port}"),
            (address, Some(port)) => format!("{address}:{port}"),
            (address, None) => address.to_string(),
        };
        let (source, destination) = (end(self.source, self.source_port), end(self.destination, self.destination_port));
        write!(f, "{} {source} → {destination}", self.protocol)?;
        if let Some(vlan) = self.vlan { write!(f, " vlan {vlan}") } else { Ok(()) }
    }
}

//! What a rule may ask of a packet.

use super::value::Kind;

/// A value of a packet, its devices or its connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Key {
    /// MAC address of the frame (`ether saddr`, `ether daddr`).
    Ether(Side),
    /// `ether type`: 802.1Q for a tagged frame.
    EtherType,
    /// `vlan id`.
    VlanId,
    /// `vlan type`: the protocol behind the tag.
    VlanType,
    /// A field of an ARP packet.
    Arp(ArpField),
    /// A field of an IP header.
    Ip(Version, IpField),
    /// A port.
    Port(Ports, Side),
    /// The flags of a TCP header.
    TcpFlags,
    /// A field of an ICMP header.
    Icmp(Version, IcmpField),
    /// What is known beside the packet's own bytes.
    Meta(Meta),
    /// What conntrack knows.
    Connection(ConnectionField),
    /// A look into the routing table.
    Fib(Fib),
    /// nft knows it; no packet here does.
    Opaque(String, Kind),
}

/// One of a packet's two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "two ends")]
pub enum Side {
    Source,
    Destination,
}

/// IP's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "two versions")]
pub enum Version {
    V4,
    V6,
}

/// Fields of an ARP packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArpField {
    /// 1 request, 2 reply.
    Operation,
    /// Protocol address of the sender (source) or target (destination).
    Address(Side),
    /// Hardware address of the sender or target.
    Mac(Side),
    /// Hardware type: 1 for Ethernet.
    HardwareType,
    /// Protocol type: 0x0800 for IPv4.
    ProtocolType,
    /// Length of a hardware address: 6.
    HardwareLength,
    /// Length of a protocol address: 4.
    ProtocolLength,
}

/// Fields of an IP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IpField {
    /// An address.
    Address(Side),
    /// `ip protocol`, `ip6 nexthdr`.
    Protocol,
    /// `ip length`; for IPv6 the length of the payload.
    Length,
    /// `ip ttl`, `ip6 hoplimit`.
    TimeToLive,
    /// `ip dscp`: the upper six bits of the traffic class.
    Dscp,
    /// The whole traffic class byte (`-m tos`).
    TrafficClass,
    /// `ip frag-off`, with its three flags.
    FragmentOffset,
    /// `ip version`.
    Version,
}

/// Whose ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ports {
    /// TCP's.
    Tcp,
    /// UDP's.
    Udp,
    /// SCTP's.
    Sctp,
    /// Those of whatever protocol has ports at the first four bytes (`th`).
    Any,
}

/// Fields of an ICMP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IcmpField {
    /// Type.
    Kind,
    /// Code.
    Code,
    /// Echo identifier.
    Id,
}

/// What is known beside the packet's own bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Meta {
    /// Incoming device, by index; nft prints its name.
    Input,
    /// Outgoing device, by index.
    Output,
    /// Name of the incoming device, in sixteen bytes as the kernel compares it (`IFNAMSIZ`).
    InputName,
    /// Name of the outgoing device.
    OutputName,
    /// Kind of the incoming device (`IFLA_INFO_KIND`).
    InputKind,
    /// Kind of the outgoing device.
    OutputKind,
    /// Name of the bridge that the incoming device is a port of.
    InputBridge,
    /// Name of the bridge that the outgoing device is a port of.
    OutputBridge,
    /// Name of the bridge port by which an IP packet came (`physdev`).
    InputPort,
    /// Name of the bridge port by which an IP packet leaves.
    OutputPort,
    /// 1 where the packet is bridged from port to port.
    Bridged,
    /// `EtherType` behind one VLAN tag (`skb->protocol`).
    Protocol,
    /// 2 IPv4, 10 IPv6, 7 bridge, 3 ARP (`NFPROTO_*`).
    NetfilterProtocol,
    /// Protocol above IP, behind the extension headers.
    TransportProtocol,
    /// `skb->mark`.
    Mark,
    /// 0 to this host, 1 broadcast, 2 multicast, 3 to another host.
    PacketType,
    /// Length in bytes.
    Length,
    /// User that owns the socket.
    User,
    /// 1 for a fragment that is not the first (`iptables -f`).
    LaterFragment,
}

/// What conntrack knows of the packet's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ConnectionField {
    /// State as a bit: 1 invalid, 2 established, 4 related, 8 new, 64 untracked.
    State,
    /// `IPS_*` bits.
    Status,
    /// Mark.
    Mark,
    /// 0 original, 1 reply.
    Direction,
    /// An address of the original direction.
    OriginalAddress(Version, Side),
    /// A port of the original direction.
    OriginalPort(Side),
    /// Layer-4 protocol.
    Protocol,
    /// Another fact, that is not modelled.
    Other,
}

/// A look into the routing table (`fib`, `addrtype`, `rpfilter`).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fib {
    /// Which address is looked up.
    pub address: Side,
    /// Only on the incoming or outgoing device.
    pub input: bool,
    /// See `input`.
    pub output: bool,
    /// With the packet's mark.
    pub marked: bool,
    /// What is asked.
    pub result: FibResult,
}

/// What is asked of a look into the routing table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FibResult {
    /// `RTN_*`: 1 unicast, 2 local, 3 broadcast, 5 multicast, …
    Type,
    /// The device of the route, or 0 where none fits.
    Device,
}

impl Key {
    /// What kind of value it is.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Ether(_) => Kind::Mac,
            Self::EtherType | Self::VlanType => Kind::EtherType,
            Self::VlanId => Kind::Number(12),
            Self::Arp(field) => match field {
                ArpField::Operation => Kind::ArpOperation,
                ArpField::Address(_) => Kind::Ipv4,
                ArpField::Mac(_) => Kind::Mac,
                ArpField::ProtocolType => Kind::EtherType,
                ArpField::HardwareType => Kind::Number(16),
                ArpField::HardwareLength | ArpField::ProtocolLength => Kind::Number(8),
            },
            Self::Ip(version, field) => match field {
                IpField::Address(_) => version.kind(),
                IpField::Protocol => Kind::Protocol,
                IpField::Length | IpField::FragmentOffset => Kind::Number(16),
                IpField::TimeToLive | IpField::TrafficClass => Kind::Number(8),
                IpField::Dscp => Kind::Dscp,
                IpField::Version => Kind::Number(4),
            },
            Self::Port(..) => Kind::Port,
            Self::TcpFlags => Kind::TcpFlags,
            Self::Icmp(version, field) => match (version, field) {
                (Version::V4, IcmpField::Kind) => Kind::IcmpType,
                (Version::V6, IcmpField::Kind) => Kind::Icmpv6Type,
                (Version::V4, IcmpField::Code) => Kind::IcmpCode,
                (Version::V6, IcmpField::Code) => Kind::Icmpv6Code,
                (_, IcmpField::Id) => Kind::Number(16),
            },
            Self::Meta(meta) => match meta {
                Meta::Input
                | Meta::Output
                | Meta::InputName
                | Meta::OutputName
                | Meta::InputKind
                | Meta::OutputKind
                | Meta::InputBridge
                | Meta::OutputBridge
                | Meta::InputPort
                | Meta::OutputPort => Kind::Name,
                Meta::Protocol => Kind::EtherType,
                Meta::NetfilterProtocol => Kind::NetfilterProtocol,
                Meta::TransportProtocol => Kind::Protocol,
                Meta::Mark | Meta::User | Meta::Length => Kind::Number(32),
                Meta::PacketType => Kind::PacketType,
                Meta::Bridged | Meta::LaterFragment => Kind::Number(1),
            },
            Self::Connection(field) => match field {
                ConnectionField::State => Kind::ConnectionState,
                ConnectionField::Status => Kind::ConnectionStatus,
                ConnectionField::Mark => Kind::Number(32),
                ConnectionField::Direction => Kind::Direction,
                ConnectionField::OriginalAddress(version, _) => version.kind(),
                ConnectionField::OriginalPort(_) => Kind::Port,
                ConnectionField::Protocol => Kind::Protocol,
                ConnectionField::Other => Kind::Text,
            },
            Self::Fib(fib) => match fib.result {
                FibResult::Type => Kind::AddressType,
                FibResult::Device => Kind::RouteDevice,
            },
            Self::Opaque(_, kind) => *kind,
        }
    }
}

impl Version {
    fn kind(self) -> Kind {
        match self {
            Self::V4 => Kind::Ipv4,
            Self::V6 => Kind::Ipv6,
        }
    }
}

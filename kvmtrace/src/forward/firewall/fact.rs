//! What a packet answers to a rule's question.

use super::ruling::{At, Known};
use crate::event::host::{Link, LinkKind};
use crate::event::ruleset::{
    ArpField, ConnectionField, Fib, FibResult, Hook, IcmpField, IpField, Key, Layer, Meta, Ports, Side, Version,
};
use crate::event::{IfIndex, MacAddress};
use crate::forward::packet::{Connection, Fragment, Ip, Network, Packet, TcpFlags, Transport};
use crate::topology::Topology;
use crate::topology::routing::Question;
use std::net::IpAddr;

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fact {
    /// The packet has no such part: the rule does not match, whatever it compares with (`NFT_BREAK`).
    Absent,
    /// Nobody knows.
    Unknown(&'static str),
    /// This value.
    Number(u128),
    /// One of these.
    OneOf(&'static [u128], &'static str),
}

/// The facts of a packet at a hook that don't change there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) topology: &'a Topology<'a>,
    pub(super) at: At,
    known: Known,
    input: Option<&'a Link>,
    output: Option<&'a Link>,
    input_name: u128,
    output_name: u128,
}

/// What rules have changed so far at this hook, beside the packet.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    /// The packet has passed conntrack's own hook.
    pub(super) tracked: bool,
    /// `ct mark`.
    pub(super) connection_mark: Option<u32>,
}

/// `ct state` as bits.
const INVALID: u128 = 1;
const ESTABLISHED: u128 = 2;
const RELATED: u128 = 4;
const NEW: u128 = 8;
const UNTRACKED: u128 = 64;

const PORTS: &str = "the bridge port is not known";
const CONNECTION: &str = "the state of the connection is not known";

impl<'a> Place<'a> {
    pub(super) fn new(topology: &'a Topology<'a>, at: At, known: Known) -> Self {
        let ports = at.layer == Layer::Bridge;
        let link = |device: Option<IfIndex>| device.and_then(|device| topology.link(device));
        let input = link(if ports { at.input_port.or(at.input) } else { at.input });
        let output = link(if ports { at.output_port.or(at.output) } else { at.output });
        Self { topology, at, known, input, output, input_name: name(input), output_name: name(output) }
    }

    /// The answer of a packet. `mask` are the bits that count.
    pub(super) fn fact(&self, packet: &Packet, state: State, key: &Key, mask: Option<u128>) -> Fact {
        match key {
            Key::Ether(side) => self.ether(packet, *side),
            // A tag that the device took out of the frame is put back for a look at the header (`nft_payload_copy_vlan`).
            Key::EtherType => match (self.has_no_frame(), packet.tags.is_empty()) {
                (true, _) => Fact::Absent,
                (false, true) => Fact::Number(packet.ether_type().into()),
                (false, false) => Fact::Number(0x8100),
            },
            Key::VlanId => packet.tags.first().map_or(Fact::Absent, |tag| Fact::Number((*tag).into())),
            Key::VlanType => match packet.tags.as_slice() {
                [] => Fact::Absent,
                [_] => Fact::Number(packet.ether_type().into()),
                [..] => Fact::Number(0x8100),
            },
            Key::Arp(field) => arp(packet, *field),
            Key::Ip(version, field) => ip_packet(packet)
                .filter(|ip| version_of(ip) == *version)
                .map_or(Fact::Absent, |ip| ip_field(packet, ip, *field)),
            Key::Port(ports, side) => ip_packet(packet).map_or(Fact::Absent, |ip| port(ip, *ports, *side)),
            Key::TcpFlags => ip_packet(packet).map_or(Fact::Absent, |ip| tcp_flags(ip, mask)),
            Key::Icmp(version, field) => ip_packet(packet).map_or(Fact::Absent, |ip| icmp(ip, *version, *field)),
            Key::Meta(meta) => self.meta(packet, *meta),
            Key::Connection(field) => connection(packet, state, *field, mask.unwrap_or(u128::MAX)),
            Key::Fib(fib) => self.fib(packet, fib),
            Key::Opaque(..) => Fact::Unknown("a value that is not modelled"),
        }
    }

    /// This host sends the packet itself.
    fn is_own(&self) -> bool {
        self.input.is_none() && self.known.input
    }

    /// What this host sends has no Ethernet header yet, and what it receives from a device without one never has.
    fn has_no_frame(&self) -> bool {
        self.is_own() && matches!(self.at.layer, Layer::Ipv4 | Layer::Ipv6)
    }

    fn ether(&self, packet: &Packet, side: Side) -> Fact {
        let address = match side {
            Side::Source => packet.source_mac,
            Side::Destination => packet.destination_mac,
        };
        match address {
            _ if self.has_no_frame() => Fact::Absent,
            Some(address) => Fact::Number(mac(address)),
            None => Fact::Unknown("the frame's MAC addresses are not known"),
        }
    }

    fn meta(&self, packet: &Packet, meta: Meta) -> Fact {
        match meta {
            Meta::Input | Meta::InputName | Meta::InputKind | Meta::InputBridge if !self.known.input => {
                Fact::Unknown("the incoming device is not known")
            }
            Meta::Output | Meta::OutputName | Meta::OutputKind | Meta::OutputBridge if !self.known.output => {
                Fact::Unknown("the outgoing device is not known")
            }
            Meta::InputPort if !self.known.ports && self.at.input_port.is_none() => Fact::Unknown(PORTS),
            Meta::OutputPort | Meta::Bridged if !self.known.ports => Fact::Unknown(PORTS),
            Meta::Input | Meta::InputName => Fact::Number(self.input_name),
            Meta::Output | Meta::OutputName => Fact::Number(self.output_name),
            Meta::InputKind => kind(self.input),
            Meta::OutputKind => kind(self.output),
            Meta::InputBridge => self.bridge(self.input),
            Meta::OutputBridge => self.bridge(self.output),
            Meta::InputPort => Fact::Number(name(self.at.input_port.and_then(|port| self.topology.link(port)))),
            Meta::OutputPort => Fact::Number(name(self.at.output_port.and_then(|port| self.topology.link(port)))),
            Meta::Bridged => Fact::Number((self.at.input_port.is_some() && self.at.output_port.is_some()).into()),
            Meta::Protocol => Fact::Number(protocol(packet).into()),
            Meta::NetfilterProtocol => Fact::Number(match self.at.layer {
                Layer::Ipv4 => 2,
                Layer::Arp => 3,
                Layer::Device => 5,
                Layer::Bridge => 7,
                Layer::Ipv6 => 10,
            }),
            Meta::TransportProtocol => {
                ip_packet(packet).map_or(Fact::Absent, |ip| Fact::Number(ip.transport.number().into()))
            }
            Meta::Mark => {
                packet.mark.map_or(Fact::Unknown("the packet's mark is not known"), |mark| Fact::Number(mark.into()))
            }
            Meta::PacketType => self.packet_type(packet),
            // The Ethernet header is not counted (`skb->len` behind `eth_type_trans`).
            Meta::Length => Fact::Number(packet.length.into()),
            Meta::User
                if (self.is_own() || !self.known.input) && matches!(self.at.hook, Hook::Output | Hook::Postrouting) =>
            {
                Fact::Unknown("the user of the sending process is not known")
            }
            Meta::User => Fact::Absent,
            Meta::LaterFragment => Fact::Number(packet.ip().is_some_and(|ip| ip.fragment == Fragment::Later).into()),
        }
    }

    /// The bridge that a device is a port of, or that it is.
    fn bridge(&self, device: Option<&Link>) -> Fact {
        let master = device.and_then(|device| device.master).and_then(|master| self.topology.link(master));
        let master = master.filter(|master| matches!(master.kind, LinkKind::Bridge(_)));
        let own = device.filter(|device| matches!(device.kind, LinkKind::Bridge(_)));
        Fact::Number(name(master.or(own)))
    }

    /// `skb->pkt_type`, from the frame's destination (`eth_type_trans`).
    fn packet_type(&self, packet: &Packet) -> Fact {
        const OTHERS: &[u128] = &[0, 3];
        const LOCAL_SENDERS: &[u128] = &[0, 4, 5];
        if self.is_own() {
            return Fact::OneOf(LOCAL_SENDERS, "the kind of a packet of this host's own is not known");
        }
        match packet.destination_mac {
            Some(MacAddress([0xff, 0xff, 0xff, 0xff, 0xff, 0xff])) => Fact::Number(1),
            Some(address) if address.is_multicast() => Fact::Number(2),
            _ if matches!(self.at.layer, Layer::Bridge | Layer::Device) => {
                Fact::OneOf(OTHERS, "whose MAC address it is, is not known")
            }
            Some(_) => Fact::Number(0),
            None => match packet.ip().map(|ip| ip.destination) {
                Some(IpAddr::V4(address)) if address.is_broadcast() => Fact::Number(1),
                Some(address) if address.is_multicast() => Fact::Number(2),
                _ => Fact::Number(0),
            },
        }
    }

    fn fib(&self, packet: &Packet, fib: &Fib) -> Fact {
        let Some(ip) = ip_packet(packet) else { return Fact::Absent };
        let address = match fib.address {
            Side::Source => ip.source,
            Side::Destination => ip.destination,
        };
        let device = if fib.output { self.output } else { self.input }.filter(|_| fib.input || fib.output);
        match fib.result {
            FibResult::Type => match self.address_type(address, device) {
                Some(kind) => Fact::Number(kind),
                None => Fact::OneOf(NOT_LOCAL, "the type of the address's route is not known"),
            },
            FibResult::Device => self.route_device(packet, ip, fib, device),
        }
    }

    /// The type of an address (`RTN_*`), or none where only a route's own type would say.
    fn address_type(&self, address: IpAddr, device: Option<&Link>) -> Option<u128> {
        const UNICAST: u128 = 1;
        const LOCAL: u128 = 2;
        const BROADCAST: u128 = 3;
        const MULTICAST: u128 = 5;
        let mut own = self.topology.own(address).iter().filter(|(link, _)| link.up);
        if address.is_loopback() || own.clone().next().is_some() {
            // With a device, an address of another one is unicast.
            let here = device.is_none_or(|device| own.any(|(link, _)| link.index == device.index));
            return Some(if here { LOCAL } else { UNICAST });
        }
        if self.topology.is_broadcast(address) {
            return Some(BROADCAST);
        }
        if address.is_multicast() {
            return Some(MULTICAST);
        }
        let answer = self.topology.routes.lookup(self.topology.host, Question::own(address));
        answer.unicast().filter(|_| answer.doubt.is_none()).map(|_| UNICAST)
    }

    /// The device that the way to an address leads by; 0 where none does, or not by the device asked for (`nft_fib4_eval`).
    fn route_device(&self, packet: &Packet, ip: &Ip, fib: &Fib, device: Option<&Link>) -> Fact {
        let ends = (ip.source, ip.destination);
        let (address, other) = if fib.address == Side::Source { ends } else { (ends.1, ends.0) };
        if self.input.is_some_and(|input| input.kind == LinkKind::Loopback) {
            return Fact::Number(self.input_name);
        }
        if self.topology.own(address).iter().any(|(link, _)| link.up) {
            return Fact::Number(0);
        }
        // Ports are none, and the mark where nobody asks for it (`nft_fib4_eval`).
        let mark = if fib.marked { packet.mark } else { Some(0) };
        let layer4 = Some((ip.transport.number(), 0, 0));
        let question = Question { mark, layer4, ..Question::of(Some(other), address, "lo") };
        let answer = self.topology.routes.lookup(self.topology.host, question);
        if answer.doubt.is_some() || self.topology.host.is_cut("routes") {
            return Fact::Unknown("the route of the address is in doubt");
        }
        let Some(route) = answer.unicast() else { return Fact::Number(0) };
        let Some(by) = route.device.and_then(|by| self.topology.link(by)) else {
            return Fact::Unknown("the device of the address's route is not known");
        };
        let asked = device.is_none_or(|device| device.index == by.index);
        Fact::Number(if asked { name(Some(by)) } else { 0 })
    }
}

/// Unicast, blackhole, unreachable, prohibit, or no route at all.
const NOT_LOCAL: &[u128] = &[1, 6, 7, 8, 0];

fn connection(packet: &Packet, state: State, field: ConnectionField, mask: u128) -> Fact {
    let known = if state.tracked {
        packet.connection
    } else {
        packet.connection.filter(|known| *known == Connection::Untracked)
    };
    // Nothing is known of a connection here: `nft_ct_get_eval` answers the state only.
    let none = !state.tracked || matches!(known, Some(Connection::Untracked | Connection::Invalid));
    match field {
        ConnectionField::State => match known {
            Some(Connection::Untracked) => Fact::Number(UNTRACKED),
            _ if !state.tracked => Fact::Number(INVALID),
            Some(Connection::New) => Fact::Number(NEW),
            Some(Connection::Established) => Fact::Number(ESTABLISHED),
            Some(Connection::Related) => Fact::Number(RELATED),
            Some(Connection::Invalid) => Fact::Number(INVALID),
            None => possible_states(packet),
        },
        _ if none => Fact::Absent,
        ConnectionField::Status => status(packet, known, mask),
        ConnectionField::Mark => match state.connection_mark {
            Some(mark) => Fact::Number(mark.into()),
            None => Fact::Unknown("the connection's mark is not known"),
        },
        ConnectionField::Direction => match known {
            Some(Connection::New) => Fact::Number(0),
            _ if packet.translation.restore.is_some() => Fact::Number(1),
            _ => Fact::OneOf(&[0, 1], "the packet's direction in its connection is not known"),
        },
        ConnectionField::OriginalAddress(version, side) => match (known, packet.ip()) {
            (Some(Connection::New), Some(ip)) if !packet.translation.destination_changed => {
                let is_version = version_of(ip) == version;
                if is_version { ip_field(packet, ip, IpField::Address(side)) } else { Fact::Absent }
            }
            _ => Fact::Unknown("the connection's original addresses are not known"),
        },
        ConnectionField::OriginalPort(side) => match (known, packet.ip()) {
            (Some(Connection::New), Some(ip)) if !packet.translation.destination_changed => port(ip, Ports::Any, side),
            _ => Fact::Unknown("the connection's original ports are not known"),
        },
        ConnectionField::Protocol => packet.ip().map_or(Fact::Absent, |ip| Fact::Number(ip.transport.number().into())),
        ConnectionField::Other => Fact::Unknown("what conntrack knows of the connection is not known here"),
    }
}

/// A conntrack state that is not known is not any: a datagram or an echo request can always begin a connection
/// (`nf_conntrack_udp_packet`, `icmp_pkt_to_tuple`), a segment with SYN alone is part of none before its answer, and neighbour
/// discovery is not tracked (`noct_valid_new`).
fn possible_states(packet: &Packet) -> Fact {
    const OPENS: &[u128] = &[NEW, ESTABLISHED, RELATED];
    const SYN: &[u128] = &[NEW, RELATED];
    const ANY: &[u128] = &[NEW, ESTABLISHED, RELATED, INVALID];
    const ANSWER: &[u128] = &[ESTABLISHED, RELATED, INVALID];
    const ERROR: &[u128] = &[RELATED, INVALID];
    let Some(ip) = packet.ip() else { return Fact::Number(INVALID) };
    let states = match ip.transport {
        Transport::Udp { .. }
        | Transport::Icmp { kind: 8, .. }
        | Transport::Icmpv6 { kind: 128, .. }
        | Transport::Other(_) => OPENS,
        Transport::Icmp { kind: 0, .. } | Transport::Icmpv6 { kind: 129, .. } => ANSWER,
        Transport::Icmp { kind: 3 | 4 | 5 | 11 | 12, .. } | Transport::Icmpv6 { kind: 1..=4, .. } => ERROR,
        Transport::Icmpv6 { kind: 130..=137 | 143, .. } => return Fact::Number(UNTRACKED),
        Transport::Tcp { flags: Some(flags), .. } if flags.syn && !flags.ack => SYN,
        Transport::Tcp { .. } | Transport::Sctp { .. } | Transport::Icmp { .. } | Transport::Icmpv6 { .. } => ANY,
    };
    Fact::OneOf(states, CONNECTION)
}

/// `ct status`: the bits of translation, and whether an answer was seen.
fn status(packet: &Packet, known: Option<Connection>, mask: u128) -> Fact {
    const SEEN_REPLY: u128 = 2;
    const SNAT: u128 = 16;
    const DNAT: u128 = 32;
    let (mut bits, mut certain) = (0, 0);
    if known.is_some() {
        certain = SEEN_REPLY | SNAT | DNAT;
        let restored = packet.translation.restore.is_some();
        bits |= if known == Some(Connection::Established) { SEEN_REPLY } else { 0 };
        bits |= if packet.translation.source_changed { SNAT } else { 0 };
        bits |= if packet.translation.destination_changed { DNAT } else { 0 };
        if restored {
            // An answer to a translated packet: which of its ends was translated stands in its own flow.
            certain &= SEEN_REPLY;
        }
    }
    if mask & !certain == 0 { Fact::Number(bits) } else { Fact::Unknown("the connection's status is not known") }
}

fn ip_packet(packet: &Packet) -> Option<&Ip> {
    // Behind two tags the kernel sees 802.1Q and no IP.
    packet.ip().filter(|_| packet.tags.len() < 2)
}

fn version_of(ip: &Ip) -> Version {
    if ip.destination.is_ipv4() { Version::V4 } else { Version::V6 }
}

/// `skb->protocol`: the outermost tag is beside the frame.
fn protocol(packet: &Packet) -> u16 {
    if packet.tags.len() < 2 { packet.ether_type() } else { 0x8100 }
}

fn arp(packet: &Packet, field: ArpField) -> Fact {
    // In a tagged frame the look at the header finds 802.1Q (see `Key::EtherType`).
    let Network::Arp(arp) = &packet.network else { return Fact::Absent };
    if !packet.tags.is_empty() {
        return Fact::Absent;
    }
    match field {
        ArpField::Operation => Fact::Number(arp.operation.into()),
        ArpField::Address(Side::Source) => Fact::Number(bits(arp.sender)),
        ArpField::Address(Side::Destination) => Fact::Number(bits(arp.target)),
        ArpField::Mac(Side::Source) => match arp.sender_mac.or(packet.source_mac) {
            Some(address) => Fact::Number(mac(address)),
            None => Fact::Unknown("the sender's hardware address is not known"),
        },
        ArpField::Mac(Side::Destination) => Fact::Unknown("the target's hardware address is not known"),
        ArpField::HardwareType => Fact::Number(1),
        ArpField::ProtocolType => Fact::Number(0x0800),
        ArpField::HardwareLength => Fact::Number(6),
        ArpField::ProtocolLength => Fact::Number(4),
    }
}

fn ip_field(packet: &Packet, ip: &Ip, field: IpField) -> Fact {
    match field {
        IpField::Address(Side::Source) => Fact::Number(bits(ip.source)),
        IpField::Address(Side::Destination) => Fact::Number(bits(ip.destination)),
        IpField::Protocol => Fact::Number(ip.transport.number().into()),
        // IPv6 counts what follows its header of 40 bytes.
        IpField::Length if ip.destination.is_ipv6() => Fact::Number(packet.length.saturating_sub(40).into()),
        IpField::Length => Fact::Number(packet.length.into()),
        IpField::TimeToLive => {
            ip.time_to_live.map_or(Fact::Unknown("the TTL is not known"), |ttl| Fact::Number(ttl.into()))
        }
        IpField::Dscp => traffic_class(ip, 2),
        IpField::TrafficClass => traffic_class(ip, 0),
        IpField::FragmentOffset => match ip.fragment {
            Fragment::Whole if ip.dont_fragment => Fact::Number(0x4000),
            Fragment::Whole => Fact::Number(0),
            Fragment::First => Fact::Number(0x2000),
            Fragment::Later => Fact::Unknown("the fragment's offset is not known"),
        },
        IpField::Version => Fact::Number(if ip.destination.is_ipv4() { 4 } else { 6 }),
    }
}

fn traffic_class(ip: &Ip, shift: u8) -> Fact {
    ip.traffic_class
        .map_or(Fact::Unknown("the traffic class is not known"), |class| Fact::Number((class >> shift).into()))
}

fn port(ip: &Ip, ports: Ports, side: Side) -> Fact {
    let fits = match ports {
        Ports::Tcp => matches!(ip.transport, Transport::Tcp { .. }),
        Ports::Udp => matches!(ip.transport, Transport::Udp { .. }),
        Ports::Sctp => matches!(ip.transport, Transport::Sctp { .. }),
        Ports::Any => true,
    };
    // A later fragment has no header of layer 4 (`nft_payload_eval`, `tcp_mt`).
    if !fits || ip.fragment == Fragment::Later {
        return Fact::Absent;
    }
    let port = match (ip.transport.ports(), side) {
        (Some((source, _)), Side::Source) => source,
        (Some((_, destination)), Side::Destination) => destination,
        // The kernel compares whatever bytes stand there.
        (None, _) => return Fact::Unknown("the packet has no ports, and its bytes are not known"),
    };
    port.map_or(Fact::Unknown("the port is not known"), |port| Fact::Number(port.into()))
}

fn tcp_flags(ip: &Ip, mask: Option<u128>) -> Fact {
    let Transport::Tcp { flags, .. } = ip.transport else { return Fact::Absent };
    if ip.fragment == Fragment::Later {
        return Fact::Absent;
    }
    let Some(TcpFlags { syn, ack, fin, rst }) = flags else { return Fact::Unknown("the TCP flags are not known") };
    let bit = |set: bool, bit: u128| if set { bit } else { 0 };
    let bits = bit(fin, 1) | bit(syn, 2) | bit(rst, 4) | bit(ack, 16);
    // PSH and URG are not known; a segment that opens or ends a connection has neither.
    if mask.is_some_and(|mask| mask & !0x17 == 0) || syn {
        Fact::Number(bits)
    } else {
        Fact::Unknown("the TCP flags are not known")
    }
}

fn icmp(ip: &Ip, version: Version, field: IcmpField) -> Fact {
    let ((Version::V4, Transport::Icmp { kind, code, id }) | (Version::V6, Transport::Icmpv6 { kind, code, id, .. })) =
        (version, ip.transport)
    else {
        return Fact::Absent;
    };
    match field {
        _ if ip.fragment == Fragment::Later => Fact::Absent,
        IcmpField::Kind => Fact::Number(kind.into()),
        IcmpField::Code => Fact::Number(code.into()),
        IcmpField::Id => Fact::Number(id.into()),
    }
}

fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u32::from(address).into(),
        IpAddr::V6(address) => address.into(),
    }
}

fn mac(address: MacAddress) -> u128 {
    crate::event::ruleset::mac_bits(address)
}

/// A device's name as rules compare it; zero for none.
fn name(link: Option<&Link>) -> u128 {
    link.and_then(|link| crate::event::ruleset::name_bits(&link.name)).unwrap_or(0)
}

/// `meta iifkind`.
fn kind(link: Option<&Link>) -> Fact {
    let Some(link) = link else { return Fact::Absent };
    let name = match &link.kind {
        LinkKind::Tun => "tun",
        LinkKind::Bridge(_) => "bridge",
        LinkKind::Veth => "veth",
        LinkKind::Vxlan { .. } => "vxlan",
        LinkKind::Macvtap { .. } => "macvtap",
        LinkKind::Macvlan => "macvlan",
        LinkKind::Vlan { .. } => "vlan",
        LinkKind::Bond => "bond",
        LinkKind::Other(name) => name.as_str(),
        // Without link operations there is nothing to compare (`nft_meta_get_eval_kind`).
        LinkKind::Loopback | LinkKind::Physical => return Fact::Absent,
    };
    crate::event::ruleset::name_bits(name).map_or(Fact::Absent, Fact::Number)
}

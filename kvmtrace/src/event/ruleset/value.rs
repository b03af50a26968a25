//! Values as the tools write them, and as numbers: an address by its bits, a device's name by its sixteen bytes.

use super::elements::Range;
use crate::event::MacAddress;
use std::net::IpAddr;

/// What kind of value a key has; it decides how its values are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each is named as nft's data types are")]
pub enum Kind {
    Ipv4,
    Ipv6,
    Mac,
    Port,
    Protocol,
    EtherType,
    /// A device's name, or its kind.
    Name,
    /// Of so many bits.
    Number(u8),
    Dscp,
    TcpFlags,
    IcmpType,
    IcmpCode,
    Icmpv6Type,
    Icmpv6Code,
    ArpOperation,
    PacketType,
    NetfilterProtocol,
    ConnectionState,
    ConnectionStatus,
    Direction,
    AddressType,
    RouteDevice,
    /// Only its own tool understands it.
    Text,
}

type Names = &'static [(&'static str, u128)];

const PROTOCOLS: Names = &[
    ("ip", 0),
    ("hopopt", 0),
    ("icmp", 1),
    ("igmp", 2),
    ("ipencap", 4),
    ("ipip", 4),
    ("tcp", 6),
    ("udp", 17),
    ("dccp", 33),
    ("ipv6", 41),
    ("gre", 47),
    ("esp", 50),
    ("ipv6-crypt", 50),
    ("ah", 51),
    ("ipv6-auth", 51),
    ("ipv6-icmp", 58),
    ("icmpv6", 58),
    ("ospf", 89),
    ("pim", 103),
    ("comp", 108),
    ("vrrp", 112),
    ("sctp", 132),
    ("udplite", 136),
    ("mh", 135),
    ("all", 0),
];
const ETHER_TYPES: Names = &[
    ("ip", 0x0800),
    ("ipv4", 0x0800),
    ("arp", 0x0806),
    ("rarp", 0x8035),
    ("ip6", 0x86dd),
    ("ipv6", 0x86dd),
    ("vlan", 0x8100),
    ("802_1q", 0x8100),
    ("8021q", 0x8100),
    ("8021ad", 0x88a8),
    ("loop", 0x0060),
    ("ppp_disc", 0x8863),
    ("ppp_ses", 0x8864),
    ("pppoe", 0x8864),
    ("mpls_uc", 0x8847),
    ("mpls_mul", 0x8848),
];
const DSCP: Names = &[
    ("cs0", 0),
    ("cs1", 8),
    ("cs2", 16),
    ("cs3", 24),
    ("cs4", 32),
    ("cs5", 40),
    ("cs6", 48),
    ("cs7", 56),
    ("df", 0),
    ("be", 0),
    ("lephb", 1),
    ("af11", 10),
    ("af12", 12),
    ("af13", 14),
    ("af21", 18),
    ("af22", 20),
    ("af23", 22),
    ("af31", 26),
    ("af32", 28),
    ("af33", 30),
    ("af41", 34),
    ("af42", 36),
    ("af43", 38),
    ("va", 44),
    ("ef", 46),
];
const TCP_FLAGS: Names = &[
    ("fin", 1),
    ("syn", 2),
    ("rst", 4),
    ("psh", 8),
    ("ack", 16),
    ("urg", 32),
    ("ecn", 64),
    ("cwr", 128),
    ("none", 0),
    ("all", 63),
];
const ICMP_TYPES: Names = &[
    ("echo-reply", 0),
    ("pong", 0),
    ("destination-unreachable", 3),
    ("source-quench", 4),
    ("redirect", 5),
    ("echo-request", 8),
    ("ping", 8),
    ("router-advertisement", 9),
    ("router-solicitation", 10),
    ("time-exceeded", 11),
    ("ttl-exceeded", 11),
    ("parameter-problem", 12),
    ("timestamp-request", 13),
    ("timestamp-reply", 14),
    ("info-request", 15),
    ("info-reply", 16),
    ("address-mask-request", 17),
    ("address-mask-reply", 18),
];
const ICMP_CODES: Names = &[
    ("net-unreachable", 0),
    ("host-unreachable", 1),
    ("prot-unreachable", 2),
    ("port-unreachable", 3),
    ("frag-needed", 4),
    ("net-prohibited", 9),
    ("host-prohibited", 10),
    ("admin-prohibited", 13),
];
const ICMPV6_TYPES: Names = &[
    ("destination-unreachable", 1),
    ("packet-too-big", 2),
    ("time-exceeded", 3),
    ("ttl-exceeded", 3),
    ("parameter-problem", 4),
    ("echo-request", 128),
    ("echo-reply", 129),
    ("mld-listener-query", 130),
    ("mld-listener-report", 131),
    ("mld-listener-done", 132),
    ("mld-listener-reduction", 132),
    ("nd-router-solicit", 133),
    ("router-solicitation", 133),
    ("nd-router-advert", 134),
    ("router-advertisement", 134),
    ("nd-neighbor-solicit", 135),
    ("neighbour-solicitation", 135),
    ("neighbor-solicitation", 135),
    ("nd-neighbor-advert", 136),
    ("neighbour-advertisement", 136),
    ("neighbor-advertisement", 136),
    ("nd-redirect", 137),
    ("redirect", 137),
    ("router-renumbering", 138),
    ("ind-neighbor-solicit", 141),
    ("ind-neighbor-advert", 142),
    ("mld2-listener-report", 143),
];
const ICMPV6_CODES: Names = &[
    ("no-route", 0),
    ("admin-prohibited", 1),
    ("addr-unreachable", 3),
    ("port-unreachable", 4),
    ("policy-fail", 5),
    ("reject-route", 6),
];
const ARP_OPERATIONS: Names = &[
    ("request", 1),
    ("reply", 2),
    ("rrequest", 3),
    ("request_reverse", 3),
    ("rreply", 4),
    ("reply_reverse", 4),
    ("drarp_request", 5),
    ("drarp_reply", 6),
    ("drarp_error", 7),
    ("inrequest", 8),
    ("inarp_request", 8),
    ("inreply", 9),
    ("arp_nak", 10),
    ("nak", 10),
];
const PACKET_TYPES: Names =
    &[("host", 0), ("unicast", 0), ("broadcast", 1), ("multicast", 2), ("other", 3), ("otherhost", 3)];
const NETFILTER_PROTOCOLS: Names = &[("ipv4", 2), ("arp", 3), ("netdev", 5), ("bridge", 7), ("ipv6", 10)];
const CONNECTION_STATES: Names = &[("invalid", 1), ("established", 2), ("related", 4), ("new", 8), ("untracked", 64)];
const CONNECTION_STATUS: Names = &[
    ("none", 0),
    ("expected", 1),
    ("seen-reply", 2),
    ("seen_reply", 2),
    ("assured", 4),
    ("confirmed", 8),
    ("snat", 16),
    ("dnat", 32),
    ("dying", 512),
];
const DIRECTIONS: Names = &[("original", 0), ("reply", 1)];
const ADDRESS_TYPES: Names = &[
    ("unspec", 0),
    ("unicast", 1),
    ("local", 2),
    ("broadcast", 3),
    ("anycast", 4),
    ("multicast", 5),
    ("blackhole", 6),
    ("unreachable", 7),
    ("prohibit", 8),
    ("throw", 9),
    ("nat", 10),
    ("xresolve", 11),
];

impl Kind {
    fn names(self) -> Names {
        match self {
            Self::Protocol => PROTOCOLS,
            Self::EtherType => ETHER_TYPES,
            Self::Dscp => DSCP,
            Self::TcpFlags => TCP_FLAGS,
            Self::IcmpType => ICMP_TYPES,
            Self::IcmpCode => ICMP_CODES,
            Self::Icmpv6Type => ICMPV6_TYPES,
            Self::Icmpv6Code => ICMPV6_CODES,
            Self::ArpOperation => ARP_OPERATIONS,
            Self::PacketType => PACKET_TYPES,
            Self::NetfilterProtocol => NETFILTER_PROTOCOLS,
            Self::ConnectionState => CONNECTION_STATES,
            Self::ConnectionStatus => CONNECTION_STATUS,
            Self::Direction => DIRECTIONS,
            Self::AddressType => ADDRESS_TYPES,
            Self::Ipv4
            | Self::Ipv6
            | Self::Mac
            | Self::Port
            | Self::Name
            | Self::Number(_)
            | Self::RouteDevice
            | Self::Text => &[],
        }
    }

    /// Its values are sets of bits: `a,b` alone asks for one of them.
    pub(super) fn is_flags(self) -> bool {
        matches!(self, Self::TcpFlags | Self::ConnectionState | Self::ConnectionStatus)
    }

    /// One bit for each bit of a value.
    pub(super) fn full(self) -> u128 {
        let bits = match self {
            Self::Ipv4 | Self::ConnectionState | Self::ConnectionStatus | Self::AddressType => 32,
            Self::Mac => 48,
            Self::Port | Self::EtherType | Self::ArpOperation => 16,
            Self::Protocol
            | Self::TcpFlags
            | Self::IcmpType
            | Self::IcmpCode
            | Self::Icmpv6Type
            | Self::Icmpv6Code
            | Self::PacketType
            | Self::NetfilterProtocol
            | Self::Direction => 8,
            Self::Dscp => 6,
            Self::Number(bits) => u32::from(bits),
            Self::Ipv6 | Self::Name | Self::RouteDevice | Self::Text => 128,
        };
        u128::MAX >> (128 - bits.clamp(1, 128))
    }

    /// One value.
    pub(super) fn value(self, text: &str) -> Option<u128> {
        let text = text.trim_matches('"');
        match self {
            Self::Ipv4 | Self::Ipv6 => address(text.parse().ok()?, self),
            Self::Mac => text.parse().ok().map(mac),
            Self::Name => Some(text).filter(|name| !name.ends_with(['*', '+'])).and_then(name),
            Self::RouteDevice => match text {
                // `fib … oif missing` and `oif 0` ask whether there is no route.
                "missing" | "0" => Some(0),
                _ => name(text),
            },
            Self::Text => None,
            Self::Port => number(text).filter(|port| *port <= 0xffff),
            Self::Protocol
            | Self::EtherType
            | Self::Number(_)
            | Self::Dscp
            | Self::TcpFlags
            | Self::IcmpType
            | Self::IcmpCode
            | Self::Icmpv6Type
            | Self::Icmpv6Code
            | Self::ArpOperation
            | Self::PacketType
            | Self::NetfilterProtocol
            | Self::ConnectionState
            | Self::ConnectionStatus
            | Self::Direction
            | Self::AddressType => {
                let known = self.names().iter().find(|(name, _)| text.eq_ignore_ascii_case(name));
                known.map(|(_, value)| *value).or_else(|| number(text)).filter(|value| *value <= self.full())
            }
        }
    }

    /// One value, a range, a network or a name's beginning.
    pub(super) fn range(self, text: &str) -> Option<Range> {
        let text = text.trim_matches('"');
        if self == Self::Name {
            return name_range(text);
        }
        if let Some(value) = self.value(text) {
            return Some(Range::one(value));
        }
        if let Some((base, prefix)) = text.split_once('/') {
            let base = self.value(base)?;
            let host = match prefix.parse::<u32>() {
                Ok(bits) => self.full().checked_shr(bits).unwrap_or(0),
                // A netmask whose ones are together.
                Err(_) => self.full() & !self.value(prefix)?,
            };
            let whole = host & host.wrapping_add(1) == 0;
            return whole.then_some(Range { low: base & !host, high: base | host });
        }
        let (low, high) =
            text.split_once('-').or_else(|| if self == Self::Port { text.split_once(':') } else { None })?;
        // iptables leaves out an end that is the last of all.
        let low = if low.is_empty() { Some(0) } else { self.value(low) }?;
        let high = if high.is_empty() { Some(self.full()) } else { self.value(high) }?;
        (low <= high).then_some(Range { low, high })
    }
}

/// An element of a set as a listing writes it: `10.0.0.1 . 80-90`, values of these kinds.
pub(super) fn listed_element(text: &str, kinds: &[Kind]) -> Option<Vec<Range>> {
    let parts: Vec<&str> = if kinds.len() == 1 { vec![text] } else { text.split(" . ").collect() };
    (parts.len() == kinds.len()).then_some(())?;
    parts.iter().zip(kinds).map(|(part, kind)| kind.range(part.trim())).collect()
}

/// Decimal, or hexadecimal behind `0x`.
pub(super) fn number(text: &str) -> Option<u128> {
    match text.strip_prefix("0x") {
        Some(digits) => u128::from_str_radix(digits, 16).ok(),
        None => text.parse().ok().filter(|_| text.starts_with(|first: char| first.is_ascii_digit())),
    }
}

fn address(address: IpAddr, kind: Kind) -> Option<u128> {
    match (address, kind) {
        (IpAddr::V4(address), Kind::Ipv4) => Some(u128::from(u32::from(address))),
        (IpAddr::V6(address), Kind::Ipv6) => Some(u128::from(address)),
        _ => None,
    }
}

/// A MAC address as a number.
pub fn mac(address: MacAddress) -> u128 {
    address.0.iter().fold(0, |value, byte| value << 8 | u128::from(*byte))
}

/// A device's name as the kernel compares it: sixteen bytes, the last of them zero.
pub fn name(text: &str) -> Option<u128> {
    let bytes = text.as_bytes();
    let mut value = [0; 16];
    value.get_mut(..bytes.len())?.copy_from_slice(bytes);
    Some(u128::from_be_bytes(value))
}

/// `eth0`, or all names that begin alike: `eth*` of nft, `eth+` of iptables.
fn name_range(text: &str) -> Option<Range> {
    let Some(beginning) = text.strip_suffix(['*', '+']) else { return name(text).map(Range::one) };
    // nft writes a name that really ends in an asterisk with a backslash before it.
    if beginning.ends_with('\\') {
        return None;
    }
    let low = name(beginning)?;
    let rest = 8 * u32::try_from(beginning.len()).ok()?;
    Some(Range { low, high: low | u128::MAX.checked_shr(rest).unwrap_or(0) })
}

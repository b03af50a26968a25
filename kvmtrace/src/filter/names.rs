//! Names and numbers in a filter: protocols, services, networks.

use super::FilterError;
use crate::event::host::Network;
use kvmtrace_common::flow::Family;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names of IP protocols that may stand alone, with the family that they need.
const PROTOCOLS: &[(&str, Option<u8>, u8)] = &[
    ("tcp", None, 6),
    ("udp", None, 17),
    ("sctp", None, 132),
    ("icmp", Some(Family::IPV4), 1),
    ("icmp6", Some(Family::IPV6), 58),
    ("igmp", Some(Family::IPV4), 2),
    ("esp", None, 50),
    ("ah", None, 51),
    ("pim", None, 103),
    ("vrrp", Some(Family::IPV4), 112),
];

/// Names that only stand after `proto`.
const MORE_PROTOCOLS: &[(&str, u8)] = &[("gre", 47), ("ipip", 4), ("ipv6", 41), ("ospf", 89)];

/// Service names that are asked for often; any other port goes by its number.
const SERVICES: &[(&str, u16)] = &[
    ("ftp", 21),
    ("ssh", 22),
    ("telnet", 23),
    ("smtp", 25),
    ("domain", 53),
    ("bootps", 67),
    ("bootpc", 68),
    ("tftp", 69),
    ("http", 80),
    ("ntp", 123),
    ("snmp", 161),
    ("bgp", 179),
    ("ldap", 389),
    ("https", 443),
    ("syslog", 514),
    ("nfs", 2049),
    ("mysql", 3306),
    ("postgresql", 5432),
];

/// Words of pcap-filter that a flow can't answer, or that nobody has asked for yet.
pub(super) const UNSUPPORTED: &[&str] = &[
    "less",
    "greater",
    "len",
    "gateway",
    "inbound",
    "outbound",
    "ifindex",
    "mpls",
    "pppoed",
    "pppoes",
    "geneve",
    "rarp",
    "decnet",
    "protochain",
    "stp",
    "ipx",
    "iso",
    "llc",
    "wlan",
    "type",
    "subtype",
    "ifname",
    "on",
    "mask",
];

/// Keywords that people mistype.
const KEYWORDS: &[&str] = &[
    "host",
    "net",
    "port",
    "portrange",
    "src",
    "dst",
    "ether",
    "ip",
    "ip6",
    "arp",
    "tcp",
    "udp",
    "icmp",
    "icmp6",
    "sctp",
    "vlan",
    "proto",
    "multicast",
    "broadcast",
    "and",
    "or",
    "not",
];

/// A word that is no keyword, with the keyword that is closest to it.
pub(super) fn unknown(word: &str) -> FilterError {
    // Two letters changed places, or one is wrong, missing or too many.
    let near = KEYWORDS.iter().find(|known| strsim::damerau_levenshtein(known, word) == 1);
    let hint = near.map_or_else(
        || "known are host, net, port, tcp, udp, icmp, arp, vlan, and, or, not".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    FilterError::Unknown { word: word.to_owned(), hint }
}

pub(super) fn bad(kind: &'static str, word: &str, hint: &str) -> FilterError {
    FilterError::Bad { kind, word: word.to_owned(), hint: hint.to_owned() }
}

pub(super) fn named_protocol(name: &str) -> Option<(Option<u8>, u8)> {
    PROTOCOLS.iter().find(|(known, ..)| *known == name).map(|(_, family, number)| (*family, *number))
}

/// The number of an IP protocol, by its name or as such.
pub(super) fn protocol_number(word: &str) -> Result<u8, FilterError> {
    let named = named_protocol(word).map(|(_, number)| number);
    let named = named.or_else(|| MORE_PROTOCOLS.iter().find(|(name, _)| *name == word).map(|(_, number)| *number));
    let number = named.or_else(|| number(word).and_then(|number| u8::try_from(number).ok()));
    number.ok_or_else(|| bad("IP protocol", word, "write its number, 0 to 255"))
}

pub(super) fn port(word: &str) -> Result<u16, FilterError> {
    let named = SERVICES.iter().find(|(name, _)| *name == word).map(|(_, port)| *port);
    named.or_else(|| word.parse().ok()).ok_or_else(|| bad("port", word, "write its number, 0 to 65535"))
}

pub(super) fn number(word: &str) -> Option<u16> {
    word.strip_prefix("0x").map_or_else(|| word.parse().ok(), |digits| u16::from_str_radix(digits, 16).ok())
}

/// `10`, `10.1`, `192.168.1`: each octet is eight bits of prefix.
pub(super) fn short_network(text: &str) -> Option<(IpAddr, u8)> {
    let mut octets = [0_u8; 4];
    let mut bits = 0;
    let mut parts = text.split('.');
    for octet in &mut octets {
        let Some(part) = parts.next() else { break };
        *octet = part.parse().ok()?;
        bits += 8;
    }
    parts.next().is_none().then_some((IpAddr::from(octets), bits))
}

pub(super) fn masked(address: IpAddr, prefix: u8) -> Network {
    let address = match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(prefix.min(32))).unwrap_or(0);
            IpAddr::from(Ipv4Addr::from(u32::from(address) & mask))
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0);
            IpAddr::from(Ipv6Addr::from(u128::from(address) & mask))
        }
    };
    Network { address, prefix }
}

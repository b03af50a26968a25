//! How the packets of `kvmtrace probe` are recognised in a trace, also in another kvmtrace's trace: by numbers that no guest
//! is likely to use together. docs/probe.md describes them.
//!
//! A guest can imitate them. So a mark never hides a flow: its packets are counted and judged like all others, and only said
//! to be a probe's.

use super::packet::{FlowKey, Protocol};
use std::ops::RangeInclusive;

/// TTL or hop limit of a probe's packets as they enter. Operating systems begin with 32, 64, 128 or 255.
pub const TIME_TO_LIVE: u8 = 61;
/// Source ports of TCP and UDP, and identifiers of echo requests (0xf000 to 0xffff): above Linux's ephemeral ports
/// (`ip_local_port_range` ends with 60999).
pub const PORTS: RangeInclusive<u16> = 61_440..=65_535;

/// The flow is a probe's, if its first packet had this TTL or hop limit where it entered.
pub fn is_probe(key: &FlowKey, time_to_live: u8) -> bool {
    let number = match key.protocol {
        Protocol::Tcp | Protocol::Udp => key.source_port,
        Protocol::Icmp { kind: 8, id, .. } | Protocol::Icmpv6 { kind: 128, id, .. } => Some(id),
        Protocol::Icmp { .. }
        | Protocol::Icmpv6 { .. }
        | Protocol::Sctp
        | Protocol::Arp { .. }
        | Protocol::Ip(_)
        | Protocol::Ethernet(_) => None,
    };
    time_to_live == TIME_TO_LIVE && number.is_some_and(|number| PORTS.contains(&number))
}

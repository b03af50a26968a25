//! The rules of policy routing.

use super::netlink::{Message, Netlink, read_u32};
use crate::event::host::Network;
use crate::event::names::RuleAction;
use crate::event::{PolicyRule, RuleMark};
use nix::libc;
use std::io;

/// `struct fib_rule_hdr`
const HEADER: usize = 12;
/// Rules that are kept: a recording holds the host's state whole.
const RULES: usize = 4_096;

/// All rules, IPv4 first, in the order in which they are asked.
pub(super) fn rules(netlink: &mut Netlink) -> io::Result<Vec<PolicyRule>> {
    let mut rules = Vec::new();
    for family in [libc::AF_INET as u8, libc::AF_INET6 as u8] {
        let mut request = [0; HEADER];
        request[0] = family;
        rules.extend(netlink.dump(libc::RTM_GETRULE, &request)?.iter().filter_map(rule));
    }
    // Of more, the first decide.
    rules.truncate(RULES);
    Ok(rules)
}

/// Attributes and actions as in `linux/fib_rules.h`.
fn rule(message: &Message) -> Option<PolicyRule> {
    const FRA_DST: u16 = 1;
    const FRA_SRC: u16 = 2;
    const FRA_IIFNAME: u16 = 3;
    const FRA_GOTO: u16 = 4;
    const FRA_PRIORITY: u16 = 6;
    const FRA_FWMARK: u16 = 10;
    const FRA_FLOW: u16 = 11;
    const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
    const FRA_TABLE: u16 = 15;
    const FRA_FWMASK: u16 = 16;
    const FRA_OIFNAME: u16 = 17;
    const FRA_L3MDEV: u16 = 19;
    const FRA_PROTOCOL: u16 = 21;
    const FRA_IP_PROTO: u16 = 22;
    const FRA_SPORT_RANGE: u16 = 23;
    const FRA_DPORT_RANGE: u16 = 24;
    /// The attributes that are read, or select nothing (`FRA_FLOW` is a realm, `FRA_PROTOCOL` who made the rule).
    const PLAIN: [u16; 16] = [
        FRA_DST,
        FRA_SRC,
        FRA_IIFNAME,
        FRA_GOTO,
        FRA_PRIORITY,
        FRA_FWMARK,
        FRA_FLOW,
        FRA_SUPPRESS_PREFIXLEN,
        FRA_TABLE,
        FRA_FWMASK,
        FRA_OIFNAME,
        FRA_L3MDEV,
        FRA_PROTOCOL,
        FRA_IP_PROTO,
        FRA_SPORT_RANGE,
        FRA_DPORT_RANGE,
    ];
    const FIB_RULE_INVERT: u32 = 2;
    let (header, attributes) = message.split(HEADER)?;
    let network =
        |kind, prefix| attributes.address(kind).filter(|_| prefix > 0).map(|address| Network { address, prefix });
    let of_vrf = attributes.get(FRA_L3MDEV).is_some_and(|value| value.first().is_some_and(|on| *on != 0));
    let action = match header[7] {
        1 if of_vrf => RuleAction::L3mdev,
        1 => RuleAction::Lookup,
        2 => RuleAction::Goto,
        3 => RuleAction::Nop,
        6 => RuleAction::Blackhole,
        7 => RuleAction::Unreachable,
        8 => RuleAction::Prohibit,
        _ => return None,
    };
    let more = attributes.iter().any(|(kind, value)| !PLAIN.contains(&kind) && value.iter().any(|byte| *byte != 0));
    // `struct fib_rule_port_range`: two numbers in the host's byte order.
    let ports = |kind| {
        let value = attributes.get(kind)?;
        let port = |at: usize| Some(u16::from_ne_bytes(value.get(at..at + 2)?.try_into().ok()?));
        Some((port(0)?, port(2)?))
    };
    // Without FRA_FWMASK all bits count; a rule with a mask alone asks for marks without those bits.
    let (value, mask) = (attributes.u32(FRA_FWMARK), attributes.u32(FRA_FWMASK));
    let mark = match (value, mask) {
        (None | Some(0), None | Some(0)) => None,
        (value, mask) => Some(RuleMark { value: value.unwrap_or(0), mask: mask.unwrap_or(u32::MAX) }),
    };
    Some(PolicyRule {
        v6: i32::from(header[0]) == libc::AF_INET6,
        priority: attributes.u32(FRA_PRIORITY).unwrap_or(0),
        source: network(FRA_SRC, header[2]),
        destination: network(FRA_DST, header[1]),
        input: attributes.text(FRA_IIFNAME),
        action,
        table: attributes.u32(FRA_TABLE).unwrap_or(u32::from(header[4])),
        narrower: header[3] != 0 || more,
        suppress: attributes.u32(FRA_SUPPRESS_PREFIXLEN).filter(|length| *length != u32::MAX),
        output: attributes.text(FRA_OIFNAME),
        mark,
        protocol: attributes.get(FRA_IP_PROTO).and_then(|value| value.first().copied()).filter(|number| *number != 0),
        source_ports: ports(FRA_SPORT_RANGE),
        destination_ports: ports(FRA_DPORT_RANGE),
        inverted: read_u32(&header[8..]).is_some_and(|flags| flags & FIB_RULE_INVERT != 0),
        target: attributes.u32(FRA_GOTO),
    })
}

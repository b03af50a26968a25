//! The rules of policy routing.

use super::netlink::{Message, Netlink, read_u32};
use crate::event::PolicyRule;
use crate::event::host::Network;
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
    const FRA_PRIORITY: u16 = 6;
    const FRA_SUPPRESS_PREFIXLEN: u16 = 14;
    const FRA_TABLE: u16 = 15;
    const FRA_L3MDEV: u16 = 19;
    const FRA_PROTOCOL: u16 = 21;
    /// What is read here; a suppressor of -1 suppresses nothing.
    const PLAIN: [u16; 8] =
        [FRA_DST, FRA_SRC, FRA_IIFNAME, FRA_PRIORITY, FRA_TABLE, FRA_L3MDEV, FRA_PROTOCOL, FRA_SUPPRESS_PREFIXLEN];
    const FIB_RULE_INVERT: u32 = 2;
    let (header, attributes) = message.split(HEADER)?;
    let network =
        |kind, prefix| attributes.address(kind).filter(|_| prefix > 0).map(|address| Network { address, prefix });
    let of_vrf = attributes.get(FRA_L3MDEV).is_some_and(|value| value.first().is_some_and(|on| *on != 0));
    let action = match header[7] {
        1 if of_vrf => "l3mdev",
        1 => "lookup",
        2 => "goto",
        3 => "nop",
        6 => "blackhole",
        7 => "unreachable",
        8 => "prohibit",
        _ => return None,
    };
    let more = attributes.iter().any(|(kind, value)| !PLAIN.contains(&kind) && value.iter().any(|byte| *byte != 0));
    let inverted = read_u32(&header[8..]).is_some_and(|flags| flags & FIB_RULE_INVERT != 0);
    Some(PolicyRule {
        v6: i32::from(header[0]) == libc::AF_INET6,
        priority: attributes.u32(FRA_PRIORITY).unwrap_or(0),
        source: network(FRA_SRC, header[2]),
        destination: network(FRA_DST, header[1]),
        input: attributes.text(FRA_IIFNAME),
        action: action.to_owned(),
        table: attributes.u32(FRA_TABLE).unwrap_or(u32::from(header[4])),
        narrower: header[3] != 0 || inverted || more,
        suppress: attributes.u32(FRA_SUPPRESS_PREFIXLEN).filter(|length| *length != u32::MAX),
    })
}

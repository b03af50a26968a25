//! The words of OpenFlow rules, as ovs-fields(7) and ovs-actions(7) have them. What is not understood is kept as such: then the rule may
//! match, or may do anything.

use crate::event::MacAddress;
use crate::event::switch::LOCAL;
use std::net::IpAddr;

/// Something that a rule asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field {
    /// The Ethernet type, and the IP protocol.
    Protocol(u16, Option<u8>),
    /// The OpenFlow number of the port.
    InPort(u16),
    /// Source MAC address and the bits that count.
    SourceMac(MacAddress, MacAddress),
    /// Destination MAC address and the bits that count.
    DestinationMac(MacAddress, MacAddress),
    /// The VLAN of its tag; 0xffff for no tag.
    Vlan(u16),
    /// Tag and its presence (0x1000), and the bits that count.
    VlanTci(u16, u16),
    /// Source address, or ARP's sender, and the bits that count.
    Source(IpAddr, u128),
    /// Destination address, or ARP's target, and the bits that count.
    Destination(IpAddr, u128),
    /// The IP protocol, or ARP's operation.
    IpProtocol(u8),
    /// Port or ICMP type, and the bits that count.
    SourcePort(u16, u16),
    /// Port or ICMP code, and the bits that count.
    DestinationPort(u16, u16),
    /// `no`, `yes`, `first`, `later`, `not_later`.
    Fragment(String),
    /// A register, the metadata or a mark: zero until an action sets it.
    Register(String, u64, u64),
    /// The connection's state, as it is before any action `ct`: false where the packet has to be tracked.
    Untracked(bool),
    /// It asks for nothing.
    Always,
    /// Not understood.
    Unknown(String),
}

/// Something that a rule does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sends it by a port.
    Output(u16),
    /// Sends it back by the port that it came from.
    InPort,
    /// As a learning switch.
    Normal,
    /// To all ports but the one that it came from.
    Flood,
    /// Nothing.
    Drop,
    /// Asks a table anew, as if it had come by a port.
    Resubmit(Option<u16>, Option<u8>),
    /// Asks a later table last.
    Table(u8),
    /// Takes the outer tag off.
    PopVlan,
    /// Puts a tag on.
    PushVlan,
    /// Sets the tag's VLAN; without a tag, puts one on.
    SetVlan(u16),
    /// Sets the source MAC address.
    SetSource(MacAddress),
    /// Sets the destination MAC address.
    SetDestination(MacAddress),
    /// Sets bits of a register: value, first bit, number of bits.
    Load(String, u64, u32, u32),
    /// A register becomes what is not known here.
    Forget(String),
    /// Nothing that matters to the packet's way.
    Ignore,
    /// Not understood.
    Unknown(String),
}

/// What a rule asks for.
pub fn fields(text: &str) -> Vec<Field> {
    split(text).into_iter().map(field).collect()
}

/// What a rule does.
pub fn actions(text: &str) -> Vec<Action> {
    split(text).into_iter().map(action).collect()
}

/// Words between commas that stand in no bracket.
fn split(text: &str) -> Vec<&str> {
    let (mut words, mut depth, mut start) = (Vec::new(), 0_u32, 0);
    for (at, c) in text.char_indices() {
        match c {
            '(' | '[' | '{' => depth += 1,
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                words.extend(text.get(start..at));
                start = at + 1;
            }
            _ => {}
        }
    }
    words.extend(text.get(start..));
    words.into_iter().map(str::trim).filter(|word| !word.is_empty()).collect()
}

fn field(word: &str) -> Field {
    match word.split_once('=') {
        None => protocol(word).unwrap_or_else(|| Field::Unknown(word.to_owned())),
        Some((name, value)) => named(name, value).unwrap_or_else(|| Field::Unknown(word.to_owned())),
    }
}

fn protocol(word: &str) -> Option<Field> {
    const V4: u16 = 0x0800;
    const V6: u16 = 0x86dd;
    let (kind, above) = match word {
        "ip" => (V4, None),
        "ipv6" => (V6, None),
        "arp" => (0x0806, None),
        "rarp" => (0x8035, None),
        "mpls" => (0x8847, None),
        "mplsm" => (0x8848, None),
        "icmp" => (V4, Some(1)),
        "tcp" => (V4, Some(6)),
        "udp" => (V4, Some(17)),
        "sctp" => (V4, Some(132)),
        "icmp6" => (V6, Some(58)),
        "tcp6" => (V6, Some(6)),
        "udp6" => (V6, Some(17)),
        "sctp6" => (V6, Some(132)),
        _ => return None,
    };
    Some(Field::Protocol(kind, above))
}

fn named(name: &str, value: &str) -> Option<Field> {
    let (plain, mask) = value.split_once('/').map_or((value, None), |(value, mask)| (value, Some(mask)));
    let short = || {
        Some((
            u16::try_from(number(plain)?).ok()?,
            mask.map_or(Some(u16::MAX), |mask| u16::try_from(number(mask)?).ok())?,
        ))
    };
    let mac = || {
        let all = MacAddress([0xff; 6]);
        Some((plain.parse().ok()?, mask.map_or(Some(all), |mask| mask.parse().ok())?))
    };
    let address = || {
        let address: IpAddr = plain.parse().ok()?;
        Some((address, bits(address, mask)?))
    };
    Some(match name {
        "in_port" => Field::InPort(port(value)?),
        "dl_src" | "eth_src" => mac().map(|(mac, mask)| Field::SourceMac(mac, mask))?,
        "dl_dst" | "eth_dst" => mac().map(|(mac, mask)| Field::DestinationMac(mac, mask))?,
        "dl_type" | "eth_type" => Field::Protocol(u16::try_from(number(value)?).ok()?, None),
        "dl_vlan" | "vlan_vid" if mask.is_none() => Field::Vlan(u16::try_from(number(value)?).ok()?),
        "vlan_tci" | "vlan_tci1" if name == "vlan_tci" => short().map(|(tci, mask)| Field::VlanTci(tci, mask))?,
        "nw_src" | "ip_src" | "ipv6_src" | "arp_spa" => address().map(|(end, bits)| Field::Source(end, bits))?,
        "nw_dst" | "ip_dst" | "ipv6_dst" | "arp_tpa" => address().map(|(end, bits)| Field::Destination(end, bits))?,
        "nw_proto" | "ip_proto" | "arp_op" => Field::IpProtocol(u8::try_from(number(value)?).ok()?),
        "tp_src" | "tcp_src" | "udp_src" | "icmp_type" | "icmpv6_type" => {
            short().map(|(port, mask)| Field::SourcePort(port, mask))?
        }
        "tp_dst" | "tcp_dst" | "udp_dst" | "icmp_code" | "icmpv6_code" => {
            short().map(|(port, mask)| Field::DestinationPort(port, mask))?
        }
        "nw_frag" | "ip_frag" => Field::Fragment(value.to_owned()),
        "recirc_id" if number(value) == Some(0) => Field::Always,
        "ct_state" => Field::Untracked(!value.contains('+')),
        name if is_register(name) => {
            let mask = mask.map_or(Some(u64::MAX), number)?;
            Field::Register(name.to_owned(), number(plain)?, mask)
        }
        _ => return None,
    })
}

/// What is zero as long as no action sets it.
fn is_register(name: &str) -> bool {
    let numbered = |prefix: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.parse::<u8>().is_ok());
    matches!(name, "metadata" | "ct_mark" | "ct_zone" | "conj_id") || numbered("reg")
}

/// `0x1f`, `31`
fn number(text: &str) -> Option<u64> {
    match text.strip_prefix("0x") {
        Some(hexadecimal) => u64::from_str_radix(hexadecimal, 16).ok(),
        None => text.parse().ok(),
    }
}

fn port(text: &str) -> Option<u16> {
    match text {
        "LOCAL" => Some(LOCAL),
        _ => u16::try_from(number(text)?).ok(),
    }
}

/// `24`, `255.255.255.0`; none for the whole address. An IPv4 mask counts from the lowest of 32 bits.
fn bits(address: IpAddr, mask: Option<&str>) -> Option<u128> {
    let width: u32 = if address.is_ipv4() { 32 } else { 128 };
    let all = if width == 32 { u128::from(u32::MAX) } else { u128::MAX };
    let Some(mask) = mask else { return Some(all) };
    if let Ok(prefix) = mask.parse::<u32>() {
        let hosts = width.checked_sub(prefix)?;
        return Some(all & u128::MAX.checked_shl(hosts).unwrap_or(0));
    }
    match mask.parse().ok()? {
        IpAddr::V4(mask) if width == 32 => Some(u32::from(mask).into()),
        IpAddr::V6(mask) if width == 128 => Some(mask.into()),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

fn action(word: &str) -> Action {
    let unknown = || Action::Unknown(word.to_owned());
    let plain = match word {
        "drop" => Some(Action::Drop),
        "NORMAL" => Some(Action::Normal),
        "FLOOD" | "ALL" => Some(Action::Flood),
        "IN_PORT" => Some(Action::InPort),
        "LOCAL" => Some(Action::Output(LOCAL)),
        "strip_vlan" | "pop_vlan" => Some(Action::PopVlan),
        "dec_ttl" | "clear_actions" | "ct_clear" => Some(Action::Ignore),
        _ => None,
    };
    if let Some(plain) = plain {
        return plain;
    }
    if let Some(inside) = word.strip_prefix("resubmit(").and_then(|rest| rest.strip_suffix(')')) {
        let (by, table) = inside.split_once(',').unwrap_or((inside, ""));
        return match (by.trim(), table.trim()) {
            (by, table) if table.contains(',') || !by.is_empty() && port(by).is_none() => unknown(),
            (by, table) => Action::Resubmit(port(by), table.parse().ok()),
        };
    }
    if word.starts_with("learn(") || word.starts_with("note:") {
        return Action::Ignore;
    }
    let Some((name, value)) = word.split_once(':') else { return unknown() };
    let known = match name {
        "output" => port(value).map(Action::Output),
        "resubmit" => port(value).map(|port| Action::Resubmit(Some(port), None)),
        "goto_table" => value.parse().ok().map(Action::Table),
        "push_vlan" => Some(Action::PushVlan),
        "mod_vlan_vid" | "set_vlan_vid" => number(value).and_then(vlan).map(Action::SetVlan),
        "mod_dl_src" => value.parse().ok().map(Action::SetSource),
        "mod_dl_dst" => value.parse().ok().map(Action::SetDestination),
        "mod_vlan_pcp" | "set_vlan_pcp" | "set_queue" | "mod_nw_tos" | "set_tunnel" | "set_tunnel64" => {
            Some(Action::Ignore)
        }
        "load" => load(value),
        "set_field" => set_field(value),
        "write_metadata" => Some(Action::Forget("metadata".to_owned())),
        "move" => value.split_once("->").map(|(_, to)| Action::Forget(register(to).0)),
        _ => None,
    };
    known.unwrap_or_else(unknown)
}

/// The VLAN of `OXM_OF_VLAN_VID`, which has a bit for the tag's presence.
fn vlan(number: u64) -> Option<u16> {
    u16::try_from(number & 0xfff).ok()
}

/// `0x1->NXM_NX_REG0[0..15]`
fn load(value: &str) -> Option<Action> {
    let (value, to) = value.split_once("->")?;
    let (name, first, bits) = register(to);
    is_settable(&name)?;
    Some(Action::Load(name, number(value)?, first, bits))
}

/// `0x1->reg0`, `4106->vlan_vid`, `52:54:00:00:00:01->eth_dst`
fn set_field(value: &str) -> Option<Action> {
    let (value, to) = value.split_once("->")?;
    let (plain, mask) = value.split_once('/').map_or((value, None), |(plain, mask)| (plain, Some(mask)));
    Some(match (to, mask) {
        ("vlan_vid" | "dl_vlan", None) => Action::SetVlan(vlan(number(plain)?)?),
        ("eth_src" | "dl_src", None) => Action::SetSource(plain.parse().ok()?),
        ("eth_dst" | "dl_dst", None) => Action::SetDestination(plain.parse().ok()?),
        ("tun_id" | "ip_dscp" | "nw_tos" | "vlan_pcp", _) => Action::Ignore,
        (to, None) => {
            let (name, first, bits) = register(to);
            is_settable(&name)?;
            Action::Load(name, number(plain)?, first, bits)
        }
        (to, Some(_)) => {
            let (name, ..) = register(to);
            is_settable(&name)?;
            Action::Forget(name)
        }
    })
}

fn is_settable(name: &str) -> Option<()> {
    // Extended registers are pairs of plain ones, and are followed no further.
    (is_register(name) || name.starts_with("xreg") || name.starts_with("xxreg") || name == "pkt_mark").then_some(())
}

/// A register's name as fields have it, its first bit and how many: `NXM_NX_REG5[4..7]`.
fn register(text: &str) -> (String, u32, u32) {
    let (name, range) = text.split_once('[').map_or((text, ""), |(name, range)| (name, range.trim_end_matches(']')));
    let name = name.to_ascii_lowercase();
    let name = name.strip_prefix("nxm_nx_").or_else(|| name.strip_prefix("oxm_of_")).unwrap_or(&name).to_owned();
    let (first, last) = match range.split_once("..") {
        Some((first, last)) => (first.parse().unwrap_or(0), last.parse().unwrap_or(63)),
        None => range.parse().map_or((0, 63), |bit: u32| (bit, bit)),
    };
    (name, first.min(63), last.min(63).saturating_sub(first.min(63)) + 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("icmp", Field::Protocol(0x0800, Some(1)))]
    #[case("in_port=LOCAL", Field::InPort(LOCAL))]
    #[case("dl_src=52:54:00:aa:00:01", Field::SourceMac(MacAddress([0x52, 0x54, 0, 0xaa, 0, 1]), MacAddress([0xff; 6])))]
    #[case("nw_src=10.99.0.0/24", Field::Source("10.99.0.0".parse().unwrap(), 0xffff_ff00))]
    #[case("nw_dst=10.99.0.1/255.255.0.0", Field::Destination("10.99.0.1".parse().unwrap(), 0xffff_0000))]
    #[case("tp_dst=0x50/0xfff0", Field::DestinationPort(0x50, 0xfff0))]
    #[case("vlan_tci=0x0000/0x1fff", Field::VlanTci(0, 0x1fff))]
    #[case("reg5=0x3/0xff", Field::Register("reg5".to_owned(), 3, 0xff))]
    #[case("ct_state=+est+trk", Field::Untracked(false))]
    #[case("ct_state=-trk", Field::Untracked(true))]
    #[case("tcp_flags=+syn", Field::Unknown("tcp_flags=+syn".to_owned()))]
    #[case("nw_src=10.0.0.1/99", Field::Unknown("nw_src=10.0.0.1/99".to_owned()))]
    fn a_field_is_read(#[case] word: &str, #[case] expected: Field) {
        assert_eq!(fields(word), [expected]);
    }

    #[rstest]
    #[case("output:3", vec![Action::Output(3)])]
    #[case("resubmit(,10),NORMAL", vec![Action::Resubmit(None, Some(10)), Action::Normal])]
    #[case("push_vlan:0x8100,set_field:4116->vlan_vid,output:1", vec![Action::PushVlan, Action::SetVlan(20), Action::Output(1)])]
    #[case("load:0x1->NXM_NX_REG5[4..7],goto_table:60", vec![Action::Load("reg5".to_owned(), 1, 4, 4), Action::Table(60)])]
    #[case("learn(table=20,hard_timeout=300,NXM_OF_ETH_DST[]=NXM_OF_ETH_SRC[]),drop", vec![Action::Ignore, Action::Drop])]
    #[case("ct(table=71,zone=NXM_NX_REG6[0..15])", vec![Action::Unknown("ct(table=71,zone=NXM_NX_REG6[0..15])".to_owned())])]
    #[case("CONTROLLER:65535", vec![Action::Unknown("CONTROLLER:65535".to_owned())])]
    fn actions_are_read(#[case] text: &str, #[case] expected: Vec<Action>) {
        assert_eq!(actions(text), expected);
    }

    #[test]
    fn brackets_that_do_not_fit_are_no_trouble() {
        for text in ["(((", ")))", "a(b,c", "load:->[", "resubmit(", "set_field:1->", "->,=,[..]"] {
            assert!(actions(text).len() <= 3 && fields(text).len() <= 3, "{text}");
        }
    }
}

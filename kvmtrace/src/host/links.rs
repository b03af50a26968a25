//! Devices: `RTM_GETLINK`, `RTM_GETADDR`, and the VLAN memberships of bridge ports.

use super::bridge;
use super::netlink::{Attributes, Message, Netlink, attribute, read_u16, read_u32, read_u64};
use crate::event::IfIndex;
use crate::event::host::{BridgePort, Link, LinkKind, LinkStatistics, Network, PortState};
use crate::event::names::MacvtapMode;
use kvmtrace_common::parse::has_ethernet_header;
use nix::libc;
use std::collections::BTreeMap;
use std::io;

/// `struct ifinfomsg`
const LINK_HEADER: usize = 16;
/// `struct ifaddrmsg`
const ADDRESS_HEADER: usize = 8;
/// `IFLA_TUN_TYPE`: `IFF_TUN` or `IFF_TAP`
const IFLA_TUN_TYPE: u16 = 3;
// RFC 2863's states of a device.
const IF_OPER_DOWN: u8 = 2;
const IF_OPER_LOWERLAYERDOWN: u8 = 3;
const IF_OPER_TESTING: u8 = 4;
const IF_OPER_DORMANT: u8 = 5;
const IF_OPER_UP: u8 = 6;

/// All devices of this network namespace, with addresses and VLANs.
pub(super) fn read(netlink: &mut Netlink) -> io::Result<BTreeMap<IfIndex, Link>> {
    let mut links: BTreeMap<_, _> = netlink
        .dump(libc::RTM_GETLINK, &[0; LINK_HEADER])?
        .iter()
        .filter_map(link)
        .map(|link| (link.index, link))
        .collect();
    for message in netlink.dump(libc::RTM_GETADDR, &[0; ADDRESS_HEADER])? {
        if let Some((index, network)) = address(&message)
            && let Some(link) = links.get_mut(&index)
        {
            link.addresses.push(network);
        }
    }
    Ok(links)
}

/// Addresses that are set and not used, for another machine has them.
pub(super) fn duplicates(netlink: &mut Netlink) -> io::Result<Vec<(Network, IfIndex)>> {
    let messages = netlink.dump(libc::RTM_GETADDR, &[0; ADDRESS_HEADER])?;
    let found = messages.iter().filter(|message| is_duplicate(message)).filter_map(any_address);
    Ok(found.map(|(index, network)| (network, index)).collect())
}

/// Whether a port of a bridge waits for the kernel to act on a carrier that it has by now, or on its loss.
///
/// `ip link set DEV up` and a plugged cable change the carrier at once; the operational state follows when the kernel's
/// `linkwatch_event` has run (within a second), and only then does the bridge enable the port (`br_port_carrier_check`).
pub(super) fn is_settling(netlink: &mut Netlink) -> io::Result<bool> {
    let links = netlink.dump(libc::RTM_GETLINK, &[0; LINK_HEADER])?;
    Ok(links.iter().filter_map(|message| message.split(LINK_HEADER)).any(|(header, attributes)| {
        let is_port =
            attributes.nested(libc::IFLA_LINKINFO).text(libc::IFLA_INFO_SLAVE_KIND).as_deref() == Some("bridge");
        is_port && carrier_is_news(read_u32(&header[8..]).unwrap_or(0), attributes.u8(libc::IFLA_OPERSTATE))
    }))
}

/// Once `rfc2863_policy` has run, a device with a carrier is up, dormant or under test, and one without is neither up
/// nor dormant. Its state may stay unknown where the driver has never told of a carrier.
fn carrier_is_news(flags: u32, operational: Option<u8>) -> bool {
    let set = |flag: i32| flags & flag.cast_unsigned() != 0;
    match operational {
        _ if !set(libc::IFF_UP) => false,
        Some(IF_OPER_DOWN | IF_OPER_LOWERLAYERDOWN) => set(libc::IFF_LOWER_UP),
        Some(IF_OPER_UP | IF_OPER_DORMANT) => !set(libc::IFF_LOWER_UP),
        _ => false,
    }
}

/// Adds the VLAN memberships of bridges and their ports.
pub(super) fn read_vlans(netlink: &mut Netlink, links: &mut BTreeMap<IfIndex, Link>) -> io::Result<()> {
    const RTEXT_FILTER_BRVLAN_COMPRESSED: u32 = 1 << 2;
    let mut request = vec![0; LINK_HEADER];
    request[0] = libc::AF_BRIDGE as u8;
    request.extend(attribute(libc::IFLA_EXT_MASK, &RTEXT_FILTER_BRVLAN_COMPRESSED.to_ne_bytes()));
    for message in netlink.dump(libc::RTM_GETLINK, &request)? {
        let Some((header, attributes)) = message.split(LINK_HEADER) else { continue };
        let Some(link) = index(&header[4..]).and_then(|index| links.get_mut(&index)) else { continue };
        let vlans = bridge::vlans(attributes.nested(libc::IFLA_AF_SPEC));
        if let LinkKind::Bridge(bridge) = &mut link.kind {
            bridge.vlans = vlans;
        } else if let Some(port) = &mut link.port {
            port.vlans = vlans;
        }
    }
    Ok(())
}

pub(super) fn index(bytes: &[u8]) -> Option<IfIndex> {
    IfIndex::from_kernel(read_u32(bytes)?)
}

fn link(message: &Message) -> Option<Link> {
    let (header, attributes) = message.split(LINK_HEADER)?;
    if message.kind != libc::RTM_NEWLINK {
        return None;
    }
    let hardware = read_u16(&header[2..])?;
    let flags = read_u32(&header[8..])?;
    let set = |flag: i32| flags & flag.cast_unsigned() != 0;
    let info = attributes.nested(libc::IFLA_LINKINFO);
    let ethernet = has_ethernet_header(hardware);
    let kind = if hardware == libc::ARPHRD_LOOPBACK { LinkKind::Loopback } else { kind(info, ethernet) };
    let related = related(&kind, info, attributes);
    let is_veth = matches!(kind, LinkKind::Veth);
    let is_port = info.text(libc::IFLA_INFO_SLAVE_KIND).as_deref() == Some("bridge");
    Some(Link {
        index: index(&header[4..])?,
        name: attributes.text(libc::IFLA_IFNAME)?,
        // What is the address of an IPIP device is an IP address; that of PPP and WireGuard is empty.
        mac: attributes.mac(libc::IFLA_ADDRESS).filter(|mac| ethernet && !mac.is_zero()),
        mtu: attributes.u32(libc::IFLA_MTU).unwrap_or(0),
        up: set(libc::IFF_UP),
        carrier: set(libc::IFF_LOWER_UP),
        ethernet,
        arp_off: set(libc::IFF_NOARP),
        master: attributes.u32(libc::IFLA_MASTER).and_then(IfIndex::from_kernel),
        lower: related.filter(|_| !is_veth),
        peer: related.filter(|_| is_veth),
        queue_length: attributes.u32(libc::IFLA_TXQLEN).unwrap_or(0),
        qdisc: attributes.text(libc::IFLA_QDISC).unwrap_or_default(),
        port: is_port.then(|| {
            let port = bridge::port(info.nested(libc::IFLA_INFO_SLAVE_DATA));
            // `br_port_carrier_check` disables a port whose device is not `netif_oper_up`.
            let operational = attributes.u8(libc::IFLA_OPERSTATE);
            let inoperative = set(libc::IFF_UP)
                && set(libc::IFF_LOWER_UP)
                && matches!(operational, Some(IF_OPER_TESTING | IF_OPER_DORMANT));
            if port.state == PortState::Disabled && inoperative {
                BridgePort { state: PortState::Inoperative, ..port }
            } else {
                port
            }
        }),
        large_receive: false,
        xdp: xdp(attributes.nested(libc::IFLA_XDP)),
        addresses: Vec::new(),
        statistics: attributes.get(libc::IFLA_STATS64).map(statistics).unwrap_or_default(),
        kind,
    })
}

fn kind(info: Attributes<'_>, ethernet: bool) -> LinkKind {
    let data = info.nested(libc::IFLA_INFO_DATA);
    let Some(kind) = info.text(libc::IFLA_INFO_KIND) else { return LinkKind::Physical };
    match kind.as_str() {
        // One driver for both (IFLA_TUN_TYPE, Linux 4.20): a tap carries Ethernet frames, a tun device never does, whatever
        // hardware type it has been given (TUNSETLINK).
        "tun" if ethernet && data.u8(IFLA_TUN_TYPE).is_none_or(|kind| i32::from(kind) == libc::IFF_TAP) => {
            LinkKind::Tun
        }
        "bridge" => LinkKind::Bridge(bridge::state(data)),
        "veth" => LinkKind::Veth,
        "bond" => LinkKind::Bond,
        "macvlan" => LinkKind::Macvlan,
        "vlan" => LinkKind::Vlan { id: data.u16(1).unwrap_or(0) },
        "macvtap" => LinkKind::Macvtap { mode: macvlan_mode(data.u32(1).unwrap_or(0)) },
        "vxlan" => vxlan(data),
        _ => LinkKind::Other(kind),
    }
}

/// `MACVLAN_MODE_*`
fn macvlan_mode(mode: u32) -> MacvtapMode {
    match mode {
        1 => MacvtapMode::Private,
        2 => MacvtapMode::Vepa,
        4 => MacvtapMode::Bridge,
        8 => MacvtapMode::Passthru,
        16 => MacvtapMode::Source,
        _ => MacvtapMode::Other,
    }
}

fn vxlan(data: Attributes<'_>) -> LinkKind {
    const IFLA_VXLAN_ID: u16 = 1;
    const IFLA_VXLAN_GROUP: u16 = 2;
    const IFLA_VXLAN_LOCAL: u16 = 4;
    const IFLA_VXLAN_PORT: u16 = 15;
    const IFLA_VXLAN_GROUP6: u16 = 16;
    const IFLA_VXLAN_LOCAL6: u16 = 17;
    const IFLA_VXLAN_DF: u16 = 29;
    LinkKind::Vxlan {
        vni: data.u32(IFLA_VXLAN_ID).unwrap_or(0),
        remote: data.address(IFLA_VXLAN_GROUP).or_else(|| data.address(IFLA_VXLAN_GROUP6)),
        local: data.address(IFLA_VXLAN_LOCAL).or_else(|| data.address(IFLA_VXLAN_LOCAL6)),
        port: data.u16(IFLA_VXLAN_PORT).map_or(0, u16::from_be),
        dont_fragment: data.u8(IFLA_VXLAN_DF).unwrap_or(0),
    }
}

/// The device that `IFLA_LINK` names, unless it lives in another namespace: the one below, or a veth's peer.
fn related(kind: &LinkKind, info: Attributes<'_>, attributes: Attributes<'_>) -> Option<IfIndex> {
    const IFLA_VXLAN_LINK: u16 = 3;
    let index = if matches!(kind, LinkKind::Vxlan { .. }) {
        info.nested(libc::IFLA_INFO_DATA).u32(IFLA_VXLAN_LINK)
    } else {
        attributes.u32(libc::IFLA_LINK)
    };
    index.filter(|_| attributes.get(libc::IFLA_LINK_NETNSID).is_none()).and_then(IfIndex::from_kernel)
}

fn xdp(attributes: Attributes<'_>) -> Option<String> {
    const IFLA_XDP_ATTACHED: u16 = 2;
    let mode = match attributes.u8(IFLA_XDP_ATTACHED)? {
        0 => return None,
        2 => "generic",
        3 => "offload",
        // 1: native; 4: several, of which one is native or offloaded.
        _ => "native",
    };
    Some(mode.to_owned())
}

/// `struct rtnl_link_stats64`
fn statistics(bytes: &[u8]) -> LinkStatistics {
    let field = |number: usize| bytes.get(number * 8..).and_then(read_u64).unwrap_or(0);
    LinkStatistics {
        rx_packets: field(0),
        tx_packets: field(1),
        rx_bytes: field(2),
        tx_bytes: field(3),
        rx_errors: field(4),
        tx_errors: field(5),
        rx_dropped: field(6),
        tx_dropped: field(7),
        rx_missed: field(15),
        rx_nohandler: field(23),
    }
}

/// An address in use.
fn address(message: &Message) -> Option<(IfIndex, Network)> {
    any_address(message).filter(|_| !is_duplicate(message))
}

/// Duplicate address detection has failed: `ipv6_chk_addr_and_flags` passes over it (`ifa_flags` of `struct ifaddrmsg`).
fn is_duplicate(message: &Message) -> bool {
    let flags = message.split(ADDRESS_HEADER).map_or(0, |(header, _)| u32::from(header[2]));
    flags & libc::IFA_F_DADFAILED != 0
}

fn any_address(message: &Message) -> Option<(IfIndex, Network)> {
    let (header, attributes) = message.split(ADDRESS_HEADER)?;
    // With a peer, IFA_ADDRESS is the other end and IFA_LOCAL the own address.
    let address = attributes.address(libc::IFA_LOCAL).or_else(|| attributes.address(libc::IFA_ADDRESS))?;
    Some((index(&header[4..])?, Network { address, prefix: header[1] }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `RTM_NEWLINK` of a device of this hardware type, kind and data, with this `IFLA_ADDRESS`.
    fn new_link(hardware: u16, kind: &str, data: &[u8], address: &[u8]) -> Link {
        let mut body = vec![0; LINK_HEADER];
        body[2..4].copy_from_slice(&hardware.to_ne_bytes());
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        let info = [attribute(libc::IFLA_INFO_KIND, kind.as_bytes()), attribute(libc::IFLA_INFO_DATA, data)].concat();
        body.extend(attribute(libc::IFLA_IFNAME, b"dev7\0"));
        body.extend(attribute(libc::IFLA_ADDRESS, address));
        body.extend(attribute(libc::IFLA_LINKINFO, &info));
        link(&Message { kind: libc::RTM_NEWLINK, body }).unwrap()
    }

    #[test]
    fn a_tun_device_is_no_tap_and_has_no_ethernet_header() {
        let kind = |kind: i32| attribute(IFLA_TUN_TYPE, &kind.to_le_bytes()[..1]);
        let mac = [2, 0, 0, 0, 0, 7];
        let tap = new_link(libc::ARPHRD_ETHER, "tun", &kind(libc::IFF_TAP), &mac);
        assert_eq!((&tap.kind, tap.ethernet, tap.mac.is_some()), (&LinkKind::Tun, true, true));
        let tun = new_link(libc::ARPHRD_NONE, "tun", &kind(libc::IFF_TUN), &[]);
        assert_eq!((&tun.kind, tun.ethernet, tun.mac), (&LinkKind::Other("tun".to_owned()), false, None));
        // Its hardware type is whatever its owner likes (TUNSETLINK): that decides where its packets begin, and no more.
        let named_ethernet = new_link(libc::ARPHRD_ETHER, "tun", &kind(libc::IFF_TUN), &mac);
        assert_eq!((&named_ethernet.kind, named_ethernet.ethernet), (&LinkKind::Other("tun".to_owned()), true));
    }

    #[test]
    fn tunnels_without_ethernet_have_no_mac_address() {
        for (hardware, kind, address) in [
            (libc::ARPHRD_NONE, "wireguard", &[][..]),
            (libc::ARPHRD_TUNNEL, "ipip", &[192, 0, 2, 1]),
            (libc::ARPHRD_TUNNEL6, "ip6tnl", &[0xfd; 16]),
            (libc::ARPHRD_PPP, "ppp", &[]),
            // Six bytes are no MAC address either.
            (libc::ARPHRD_NONE, "xfrm", &[2, 0, 0, 0, 0, 7]),
        ] {
            let link = new_link(hardware, kind, &[], address);
            assert_eq!((&link.kind, link.ethernet, link.mac), (&LinkKind::Other(kind.to_owned()), false, None));
        }
        let tap = new_link(libc::ARPHRD_ETHER, "gretap", &[], &[2, 0, 0, 0, 0, 7]);
        assert!(tap.ethernet && tap.mac.is_some(), "gretap carries Ethernet frames");
    }

    #[test]
    fn a_carrier_is_news_until_the_operational_state_has_followed_it() {
        let flags = |flags: [i32; 2]| flags.iter().fold(0, |all, flag| all | flag.cast_unsigned());
        let (up, lower) = (libc::IFF_UP, libc::IFF_LOWER_UP);
        // `ip link set DEV up`, before linkwatch has run.
        assert!(carrier_is_news(flags([up, lower]), Some(IF_OPER_DOWN)));
        assert!(carrier_is_news(flags([up, lower]), Some(IF_OPER_LOWERLAYERDOWN)));
        // The cable has just been pulled.
        assert!(carrier_is_news(flags([up, 0]), Some(IF_OPER_UP)));
        for (settled, state) in [
            (flags([up, lower]), Some(IF_OPER_UP)),
            (flags([up, lower]), Some(IF_OPER_DORMANT)),
            (flags([up, lower]), Some(IF_OPER_TESTING)),
            (flags([up, lower]), Some(0)),
            (flags([up, lower]), None),
            (flags([up, 0]), Some(IF_OPER_DOWN)),
            (flags([up, 0]), Some(0)),
            (flags([0, 0]), Some(IF_OPER_DOWN)),
            (flags([0, lower]), Some(IF_OPER_DOWN)),
        ] {
            assert!(!carrier_is_news(settled, state), "{settled:#x} {state:?}");
        }
    }
}

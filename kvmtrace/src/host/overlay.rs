//! Tunnels' ends, IPsec, `WireGuard` and IPVS: read where the kernel has them, without loading a module.

use super::links::index;
use super::netlink::{Attributes, Message, Netlink, read_address, read_u16, read_u32};
use crate::event::host::{Link, LinkKind, Network};
use crate::event::overlay::{
    IpsecDirection, IpsecPolicy, IpsecSelector, IpsecState, IpsecTemplate, RealServer, TunnelEnds, VirtualService,
    WireguardPeer,
};
use crate::event::{HostState, IfIndex};
use nix::libc;
use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

/// Policies, states, peers and services that are kept of each: a recording holds the host's state whole.
const MOST: usize = 4_096;
/// `struct ifinfomsg`
const LINK_HEADER: usize = 16;
const NETLINK_XFRM: isize = 6;

/// Reads all of them into a host's state; what could not be read, and why.
pub(super) fn read(state: &mut HostState, netlink: &mut Netlink) -> Vec<(String, String)> {
    let mut missing = Vec::new();
    let mut optional = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            missing.push((what.to_owned(), error.to_string()));
        }
    };
    if state.links.values().any(|link| matches!(link.kind, LinkKind::Other(_))) {
        optional("tunnels", tunnels(netlink).map(|tunnels| state.overlay.tunnels = tunnels));
    }
    if has_xfrm() {
        optional("IPsec policies", ipsec(state));
    }
    let wireguard = |link: &&Link| matches!(&link.kind, LinkKind::Other(kind) if kind == "wireguard");
    let devices: Vec<IfIndex> = state.links.values().filter(wireguard).map(|link| link.index).collect();
    if !devices.is_empty() {
        optional("WireGuard peers", peers(&devices).map(|peers| state.overlay.peers = peers));
    }
    if let Ok(text) = std::fs::read_to_string("/proc/thread-self/net/ip_vs") {
        state.overlay.services = services(&text);
    }
    let overlay = &mut state.overlay;
    for (what, cut) in [
        ("IPsec policies", cut(&mut overlay.policies)),
        ("IPsec states", cut(&mut overlay.states)),
        ("IPVS services", cut(&mut overlay.services)),
    ] {
        missing.extend(cut.map(|all| (what.to_owned(), format!("there are {all}; the first {MOST} are kept"))));
    }
    missing
}

fn cut<T>(entries: &mut Vec<T>) -> Option<usize> {
    let all = entries.len();
    entries.truncate(MOST);
    (all > MOST).then_some(all)
}

/// The ends of tunnel devices, from their `IFLA_INFO_DATA`.
fn tunnels(netlink: &mut Netlink) -> io::Result<BTreeMap<IfIndex, TunnelEnds>> {
    let links = netlink.dump(libc::RTM_GETLINK, &[0; LINK_HEADER])?;
    Ok(links.iter().filter_map(tunnel).collect())
}

/// Attributes as in `linux/if_tunnel.h` (`IFLA_GRE_*`, `IFLA_IPTUN_*`, `IFLA_VTI_*`) and `linux/if_link.h` (`IFLA_GENEVE_*`,
/// `IFLA_XFRM_*`).
fn tunnel(message: &Message) -> Option<(IfIndex, TunnelEnds)> {
    let (header, attributes) = message.split(LINK_HEADER)?;
    let info = attributes.nested(libc::IFLA_LINKINFO);
    let data = info.nested(libc::IFLA_INFO_DATA);
    let end = |kind| data.address(kind).filter(|address| !address.is_unspecified());
    let ends = match info.text(libc::IFLA_INFO_KIND)?.as_str() {
        "gre" | "gretap" | "ip6gre" | "ip6gretap" | "erspan" | "ip6erspan" => TunnelEnds {
            local: end(6),
            remote: end(7),
            // GRE_KEY says that there is a key.
            key: data.be32(5).filter(|_| has_key(data, 3)),
            input_key: data.be32(4).filter(|_| has_key(data, 2)),
            port: 0,
            dont_fragment: data.u8(10).is_some_and(|on| on != 0),
        },
        "ipip" | "sit" | "ip6tnl" => TunnelEnds {
            local: end(2),
            remote: end(3),
            dont_fragment: data.u8(10).is_some_and(|on| on != 0),
            ..TunnelEnds::default()
        },
        "vti" | "vti6" => TunnelEnds {
            local: end(4),
            remote: end(5),
            key: data.be32(3),
            input_key: data.be32(2),
            ..TunnelEnds::default()
        },
        "geneve" => TunnelEnds {
            local: None,
            remote: end(2).or_else(|| end(7)),
            key: data.u32(1),
            input_key: data.u32(1),
            port: data.get(5).and_then(read_u16).map_or(6081, u16::from_be),
            dont_fragment: data.u8(13) == Some(1),
        },
        "xfrm" => TunnelEnds { key: data.u32(2), input_key: data.u32(2), ..TunnelEnds::default() },
        _ => return None,
    };
    Some((index(&header[4..])?, ends))
}

fn has_key(data: Attributes<'_>, flags: u16) -> bool {
    const GRE_KEY: u16 = 0x2000;
    data.get(flags).and_then(read_u16).is_some_and(|flags| u16::from_be(flags) & GRE_KEY != 0)
}

/// The kernel's end of `NETLINK_XFRM` is open: a socket of that family loads no module then.
fn has_xfrm() -> bool {
    let sockets = std::fs::read_to_string("/proc/thread-self/net/netlink").unwrap_or_default();
    sockets.lines().any(|line| line.split_whitespace().nth(1) == Some("6"))
}

fn ipsec(state: &mut HostState) -> io::Result<()> {
    const XFRM_MSG_GETSA: u16 = 0x12;
    const XFRM_MSG_GETPOLICY: u16 = 0x15;
    let mut netlink = Netlink::of(NETLINK_XFRM)?;
    let mut policies: Vec<(u32, IpsecPolicy)> =
        netlink.dump(XFRM_MSG_GETPOLICY, &[])?.iter().filter_map(policy).collect();
    // `xfrm_policy_inexact_insert`: of one priority, the older first; the index grows.
    policies.sort_by_key(|(index, policy)| (policy.direction as u8, policy.priority, *index));
    state.overlay.policies = policies.into_iter().map(|(_, policy)| policy).collect();
    state.overlay.states = netlink.dump(XFRM_MSG_GETSA, &[])?.iter().filter_map(security_state).collect();
    Ok(())
}

/// `struct xfrm_selector`
const SELECTOR: usize = 56;

fn selector(bytes: &[u8]) -> Option<IpsecSelector> {
    let v6 = i32::from(read_u16(bytes.get(40..)?)?) == libc::AF_INET6;
    let port = |at: usize| Some(u16::from_be_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    Some(IpsecSelector {
        destination: Network { address: address(bytes.get(..16)?, v6)?, prefix: *bytes.get(42)? },
        source: Network { address: address(bytes.get(16..32)?, v6)?, prefix: *bytes.get(43)? },
        destination_port: (port(32)?, port(34)?),
        source_port: (port(36)?, port(38)?),
        protocol: *bytes.get(44)?,
        device: index(bytes.get(48..)?),
    })
}

/// `xfrm_address_t`
fn address(bytes: &[u8], v6: bool) -> Option<IpAddr> {
    read_address(bytes.get(..if v6 { 16 } else { 4 })?)
}

/// `struct xfrm_userpolicy_info` and its templates.
fn policy(message: &Message) -> Option<(u32, IpsecPolicy)> {
    const HEADER: usize = 168;
    const XFRMA_TMPL: u16 = 5;
    const XFRMA_MARK: u16 = 21;
    const XFRMA_IF_ID: u16 = 31;
    let (header, attributes) = message.split(HEADER)?;
    let number = |at: usize| header.get(at..).and_then(read_u32);
    let direction = match header.get(160)? {
        0 => IpsecDirection::In,
        1 => IpsecDirection::Out,
        2 => IpsecDirection::Forward,
        // Those of a socket.
        _ => return None,
    };
    let templates = attributes.get(XFRMA_TMPL).unwrap_or_default().chunks_exact(64).filter_map(template).collect();
    let mark = attributes.get(XFRMA_MARK).and_then(|value| Some((read_u32(value)?, read_u32(value.get(4..)?)?)));
    let policy = IpsecPolicy {
        direction,
        priority: number(152)?,
        selector: selector(header.get(..SELECTOR)?)?,
        blocks: *header.get(161)? == 1,
        mark: mark.unwrap_or((0, 0)),
        interface: attributes.u32(XFRMA_IF_ID).unwrap_or(0),
        templates,
    };
    Some((number(156)?, policy))
}

/// `struct xfrm_user_tmpl`
fn template(bytes: &[u8]) -> Option<IpsecTemplate> {
    let v6 = i32::from(read_u16(bytes.get(24..)?)?) == libc::AF_INET6;
    Some(IpsecTemplate {
        destination: address(bytes.get(..16)?, v6)?,
        spi: u32::from_be_bytes(bytes.get(16..20)?.try_into().ok()?),
        protocol: *bytes.get(20)?,
        source: address(bytes.get(28..44)?, v6)?,
        request: read_u32(bytes.get(44..)?)?,
        tunnel: *bytes.get(48)? == 1,
        optional: *bytes.get(50)? != 0,
    })
}

/// `struct xfrm_usersa_info`
fn security_state(message: &Message) -> Option<IpsecState> {
    const HEADER: usize = 224;
    const XFRMA_ENCAP: u16 = 4;
    let (header, attributes) = message.split(HEADER)?;
    let v6 = i32::from(read_u16(header.get(212..)?)?) == libc::AF_INET6;
    Some(IpsecState {
        destination: address(header.get(56..72)?, v6)?,
        spi: u32::from_be_bytes(header.get(72..76)?.try_into().ok()?),
        protocol: *header.get(76)?,
        source: address(header.get(80..96)?, v6)?,
        request: read_u32(header.get(208..)?)?,
        tunnel: *header.get(214)? == 1,
        in_udp: attributes.get(XFRMA_ENCAP).is_some(),
    })
}

/// Peers over `WireGuard`'s generic netlink family.
fn peers(devices: &[IfIndex]) -> io::Result<BTreeMap<IfIndex, Vec<WireguardPeer>>> {
    const WGDEVICE_A_IFINDEX: u16 = 1;
    const WGDEVICE_A_PEERS: u16 = 8;
    let mut netlink = Netlink::open_generic()?;
    let family = super::offloads::family(&mut netlink, "wireguard")?;
    let mut all = BTreeMap::new();
    for device in devices {
        // WG_CMD_GET_DEVICE, version 1.
        let mut request = vec![0, 1, 0, 0];
        request.extend(super::netlink::attribute(WGDEVICE_A_IFINDEX, &device.0.to_ne_bytes()));
        let mut peers: Vec<WireguardPeer> = Vec::new();
        for message in netlink.dump(family, &request)? {
            let Some((_, attributes)) = message.split(4) else { continue };
            for peer in attributes.nested(WGDEVICE_A_PEERS).iter().filter_map(|(_, value)| peer(Attributes(value))) {
                // A peer with many addresses comes in parts.
                match peers.last_mut().filter(|last| last.key == peer.key) {
                    Some(last) => last.allowed.extend(peer.allowed),
                    None => peers.push(peer),
                }
            }
        }
        peers.truncate(MOST);
        all.insert(*device, peers);
    }
    Ok(all)
}

/// `WGPEER_A_*`
fn peer(attributes: Attributes<'_>) -> Option<WireguardPeer> {
    let allowed = attributes.nested(9).iter().filter_map(|(_, value)| {
        let value = Attributes(value);
        Some(Network { address: value.address(2)?, prefix: value.u8(3)? })
    });
    let key = u64::from_be_bytes(*attributes.get(1)?.first_chunk()?);
    let shaken = attributes.get(6).is_some_and(|time| time.iter().any(|byte| *byte != 0));
    Some(WireguardPeer {
        key: format!("{key:016x}"),
        endpoint: attributes.get(4).and_then(endpoint),
        allowed: allowed.collect(),
        has_shaken_hands: shaken,
    })
}

/// `struct sockaddr_in`, `struct sockaddr_in6`
fn endpoint(bytes: &[u8]) -> Option<(IpAddr, u16)> {
    let port = u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?);
    let at = if i32::from(read_u16(bytes)?) == libc::AF_INET6 { 8..24 } else { 4..8 };
    Some((read_address(bytes.get(at)?)?, port))
}

/// `/proc/net/ip_vs`: a line for each service, and below it one for each server.
fn services(text: &str) -> Vec<VirtualService> {
    let mut services: Vec<VirtualService> = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["->", server, forward, weight, ..] => {
                let (Some(service), Some((address, port))) = (services.last_mut(), hexadecimal(server)) else {
                    continue;
                };
                let Ok(weight) = weight.parse() else { continue };
                service.servers.push(RealServer { address, port, forward: (*forward).to_owned(), weight });
            }
            ["FWM", mark, ..] => {
                let Ok(port) = u32::from_str_radix(mark, 16) else { continue };
                services.push(VirtualService { protocol: None, address: None, port, servers: Vec::new() });
            }
            [protocol, place, ..] => {
                let number = match *protocol {
                    "TCP" => 6,
                    "UDP" => 17,
                    "SCTP" => 132,
                    _ => continue,
                };
                let Some((address, port)) = hexadecimal(place) else { continue };
                let (protocol, address) = (Some(number), Some(address));
                services.push(VirtualService { protocol, address, port: port.into(), servers: Vec::new() });
            }
            _ => {}
        }
        if services.len() > 4 * MOST {
            break;
        }
    }
    services
}

/// `C0A80101:0050`, `[2001:db8:0000:0000:0000:0000:0000:0001]:0050`
fn hexadecimal(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let address = match address.strip_prefix('[') {
        Some(v6) => v6.strip_suffix(']')?.parse().ok()?,
        None => IpAddr::V4(Ipv4Addr::from(u32::from_str_radix(address, 16).ok()?)),
    };
    Some((address, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::netlink::attribute;

    #[test]
    fn services_and_their_servers_are_read() {
        let text = "IP Virtual Server version 1.2.1 (size=4096)\nProt LocalAddress:Port Scheduler Flags\n  -> RemoteAddress:Port Forward Weight ActiveConn InActConn\nTCP  C0A80101:0050 rr\n  -> 0A000002:1F90      Masq    1      0          0\n  -> 0A000003:1F90      Masq    0      0          0\nUDP  [2001:0db8:0000:0000:0000:0000:0000:0001]:0035 rr\nFWM  00000007 wlc\n";
        let services = services(text);
        assert_eq!(services.len(), 3);
        assert_eq!(
            (services[0].protocol, services[0].address, services[0].port),
            (Some(6), "192.168.1.1".parse().ok(), 80)
        );
        let server = &services[0].servers[0];
        assert_eq!(
            (server.address, server.port, server.forward.as_str(), server.weight),
            ("10.0.0.2".parse().unwrap(), 8080, "Masq", 1)
        );
        assert_eq!(services[0].servers[1].weight, 0);
        assert_eq!((services[1].address, services[1].port), ("2001:db8::1".parse().ok(), 53));
        assert_eq!((services[2].protocol, services[2].port), (None, 7));
    }

    #[test]
    fn the_ends_of_a_gre_tunnel_are_read() {
        let data = [
            attribute(3, &0x2000_u16.to_be_bytes()),
            attribute(5, &7_u32.to_be_bytes()),
            attribute(6, &[192, 0, 2, 1]),
            attribute(7, &[192, 0, 2, 9]),
            attribute(10, &[1]),
        ]
        .concat();
        let info = [attribute(libc::IFLA_INFO_KIND, b"gre"), attribute(libc::IFLA_INFO_DATA, &data)].concat();
        let mut body = vec![0; LINK_HEADER];
        body[4..8].copy_from_slice(&7_u32.to_ne_bytes());
        body.extend(attribute(libc::IFLA_LINKINFO, &info));
        let (device, ends) = tunnel(&Message { kind: libc::RTM_NEWLINK, body }).unwrap();
        assert_eq!(device, IfIndex(7));
        assert_eq!((ends.local, ends.remote), ("192.0.2.1".parse().ok(), "192.0.2.9".parse().ok()));
        assert_eq!((ends.key, ends.input_key, ends.dont_fragment), (Some(7), None, true));
    }

    #[test]
    fn a_policy_is_read_with_its_templates() {
        let mut header = vec![0; 168];
        header[..4].copy_from_slice(&[10, 1, 0, 0]);
        header[16..20].copy_from_slice(&[10, 0, 0, 0]);
        header[40..42].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        (header[42], header[43], header[44]) = (16, 24, 6);
        header[152..156].copy_from_slice(&100_u32.to_ne_bytes());
        header[160] = 1;
        let mut template = vec![0; 64];
        template[..4].copy_from_slice(&[192, 0, 2, 9]);
        template[20] = 50;
        template[24..26].copy_from_slice(&(libc::AF_INET as u16).to_ne_bytes());
        template[28..32].copy_from_slice(&[192, 0, 2, 1]);
        (template[48], template[44]) = (1, 5);
        header.extend(attribute(5, &template));
        let (_, policy) = policy(&Message { kind: 0x13, body: header }).unwrap();
        assert_eq!((policy.direction, policy.priority, policy.blocks), (IpsecDirection::Out, 100, false));
        assert_eq!(policy.selector.destination.to_string(), "10.1.0.0/16");
        assert_eq!(policy.selector.source.to_string(), "10.0.0.0/24");
        assert_eq!(policy.templates[0].destination, IpAddr::from([192, 0, 2, 9]));
        assert_eq!((policy.templates[0].request, policy.templates[0].tunnel), (5, true));
    }

    #[test]
    fn messages_that_are_cut_are_passed_over() {
        for length in [0, 10, 100, 167] {
            assert!(policy(&Message { kind: 0x13, body: vec![0; length] }).is_none());
            assert!(security_state(&Message { kind: 0x10, body: vec![0; length] }).is_none());
        }
        assert!(services("TCP\n-> x\nTCP zz:1 rr\n  -> 1 2 3\n").is_empty());
    }

    #[test]
    fn a_peer_is_read() {
        let allowed = attribute(
            0,
            &[attribute(1, &2_u16.to_ne_bytes()), attribute(2, &[10, 9, 0, 0]), attribute(3, &[16])].concat(),
        );
        let endpoint = [&2_u16.to_ne_bytes()[..], &51_820_u16.to_be_bytes(), &[192, 0, 2, 9], &[0; 8]].concat();
        let body = [attribute(1, &[0xab; 32]), attribute(4, &endpoint), attribute(6, &[0; 16]), attribute(9, &allowed)]
            .concat();
        let peer = peer(Attributes(&body)).unwrap();
        assert_eq!(peer.endpoint, Some((IpAddr::from([192, 0, 2, 9]), 51_820)));
        assert_eq!(peer.allowed, [Network { address: IpAddr::from([10, 9, 0, 0]), prefix: 16 }]);
        assert!(!peer.has_shaken_hands);
    }
}

//! Tunnels: the packet goes on as the outer one and keeps the inner one, which comes out again at this host's end (`vxlan_xmit_one`,
//! `vxlan_rcv` in `drivers/net/vxlan`; `ip_tunnel_xmit`, `ip_tunnel_rcv` in `net/ipv4/ip_tunnel.c`; `geneve_xmit_skb` in
//! `drivers/net/geneve.c`; `wg_xmit` in `drivers/net/wireguard/device.c`, of 6.12).

use super::packet::{Carried, Carrier, Fragment, Ip, Network, Packet, Translation, Transport};
use super::step::{Decision, Doubt, Outcome, Stage, Stop};
use super::walker::{Position, Task, Walker};
use crate::event::host::{Link, LinkKind};
use crate::event::overlay::{TunnelEnds, WireguardPeer};
use crate::event::{IfIndex, MacAddress};
use crate::topology::routing::Question;
use std::net::IpAddr;

const SEND: &[&str] = &["vxlan_xmit", "vxlan_xmit_one"];
const WRAP: &[&str] = &["ip_tunnel_xmit", "ip6_tnl_xmit", "geneve_xmit"];
const WIREGUARD: &[&str] = &["wg_xmit"];
const RECEIVE: &[&str] = &["vxlan_rcv", "ip_tunnel_rcv", "geneve_udp_encap_recv", "wg_receive"];
/// Ethernet header, VXLAN header, UDP header.
const VXLAN: u32 = 14 + 8 + 8;
/// Type, key and counter, the message's authentication tag (`message_data_len`), UDP header.
const WIREGUARD_HEADERS: u32 = 16 + 16 + 8;

/// The outer packet to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outer {
    pub(super) by: Carrier,
    pub(super) local: Option<IpAddr>,
    pub(super) remote: IpAddr,
    pub(super) transport: Transport,
    /// Bytes between the outer IP header and the inner layer 3.
    pub(super) overhead: u32,
    pub(super) dont_fragment: bool,
}

/// Bytes of the outer IP header.
fn header(remote: IpAddr) -> u32 {
    if remote.is_ipv4() { 20 } else { 40 }
}

impl<'a> Walker<'a, '_> {
    /// `vxlan_xmit`: by the tunnel's database, else by its default entries.
    pub(super) fn vxlan_transmit(&mut self, task: &Task, link: &'a Link) {
        let LinkKind::Vxlan { vni, remote, local, port, dont_fragment } = &link.kind else { return };
        let known = task.packet.destination_mac.map_or(&[][..], |mac| self.topology.remotes(link.index, mac));
        let entries = if known.is_empty() { self.topology.remotes(link.index, MacAddress([0; 6])) } else { known };
        let mut remotes: Vec<(IpAddr, Vec<Decision>)> = entries
            .iter()
            .filter_map(|entry| Some((entry.remote?, vec![Decision::Fdb(Box::new((*entry).clone()))])))
            .collect();
        if remotes.is_empty() {
            remotes.extend(remote.map(|remote| (remote, vec![Decision::Setting(format!("remote {remote}"))])));
        }
        remotes.dedup_by_key(|(remote, _)| *remote);
        if remotes.is_empty() {
            self.stop(task, Stage::Tunnel, link.index, SEND, Vec::new(), Stop::NoRemote);
            return;
        }
        for (remote, decisions) in remotes {
            if let Some(room) = self.refused_length(&task.packet, link, remote, VXLAN + header(remote)) {
                self.stop(task, Stage::Tunnel, link.index, SEND, decisions, Stop::RouteMtu(room));
                continue;
            }
            let dont_fragment = match dont_fragment {
                0 => false,
                1 => true,
                _ => task.packet.ip().is_some_and(|ip| ip.dont_fragment),
            };
            // The source port is a hash of the inner flow.
            let transport = Transport::Udp { source: None, destination: Some(*port) };
            let by = Carrier::Vxlan(*vni);
            let outer = Outer { by, local: *local, remote, transport, overhead: VXLAN, dont_fragment };
            self.wrap(task.clone(), Stage::Tunnel, Some(link.index), SEND, decisions, outer);
        }
    }

    /// `skb_tunnel_check_pmtu`: a port of a bridge reports to the sender of a packet that must not be fragmented what fits. How much that
    /// is, where the packet is longer.
    fn refused_length(&self, packet: &Packet, link: &Link, remote: IpAddr, headers: u32) -> Option<u32> {
        let bridged = link.master.and_then(|master| self.topology.link(master));
        let bridged = bridged.is_some_and(|master| matches!(master.kind, LinkKind::Bridge(_)));
        let ip = packet.ip().filter(|_| bridged && !packet.gso)?;
        let answer = self.topology.routes.lookup(self.topology.host, Question::own(remote));
        let route = answer.unicast().filter(|_| answer.doubt.is_none())?;
        let mtu = route.mtu.or_else(|| Some(self.topology.link(route.device?)?.mtu))?;
        let room = mtu.saturating_sub(headers);
        // `iptunnel_pmtud_check_icmp`, `iptunnel_pmtud_check_icmpv6`
        let least = if ip.destination.is_ipv4() { 576 } else { 1280 };
        let is_told = ip.dont_fragment && ip.fragment == Fragment::Whole && room >= least;
        (packet.length > room && is_told && !ip.destination.is_multicast()).then_some(room)
    }

    /// Devices that wrap and are not VXLAN. False where this is none.
    pub(super) fn tunnel_transmit(&mut self, task: &Task, link: &'a Link, kind: &str) -> bool {
        if kind == "wireguard" {
            self.wireguard_transmit(task, link);
            return true;
        }
        let Some(ends) = self.topology.host.overlay.tunnels.get(&link.index) else { return false };
        let Some((by, transport, overhead)) = carrier(kind, ends, &task.packet) else { return false };
        let Some(remote) = ends.remote else {
            let doubt = Doubt::Missing(format!("the other end of {}, which each packet chooses,", link.name));
            self.step(task, Stage::Tunnel, Some(link.index), WRAP, Vec::new(), Outcome::Unknown(doubt));
            return true;
        };
        let dont_fragment = ends.dont_fragment || task.packet.ip().is_some_and(|ip| ip.dont_fragment);
        let outer = Outer { by, local: ends.local, remote, transport, overhead, dont_fragment };
        let decisions = vec![Decision::Setting(format!("remote {remote}"))];
        self.wrap(task.clone(), Stage::Tunnel, Some(link.index), WRAP, decisions, outer);
        true
    }

    /// `wg_xmit`: the peer whose allowed addresses have the longest prefix.
    fn wireguard_transmit(&mut self, task: &Task, link: &'a Link) {
        let host = self.topology.host;
        let Some(peers) = host.overlay.peers.get(&link.index) else {
            let doubt = Doubt::Missing(format!("the peers of {}", link.name));
            self.step(task, Stage::Tunnel, Some(link.index), WIREGUARD, Vec::new(), Outcome::Unknown(doubt));
            return;
        };
        let Some(to) = task.packet.ip().map(|ip| ip.destination) else { return };
        let Some(peer) = peer_for(peers, to) else {
            self.stop(task, Stage::Tunnel, link.index, WIREGUARD, Vec::new(), Stop::NoPeer);
            return;
        };
        let named = Decision::Setting(format!("peer {}…", peer.key));
        let Some((remote, port)) = peer.endpoint else {
            let decisions = vec![named, Decision::Setting("endpoint (none)".to_owned())];
            self.stop(task, Stage::Tunnel, link.index, WIREGUARD, decisions, Stop::NoPeer);
            return;
        };
        let mut task = task.clone();
        if !peer.has_shaken_hands {
            let doubt = Doubt::Packet(format!(
                "{} has not shaken hands with its peer {}… yet: packets wait for that",
                link.name, peer.key
            ));
            self.doubt(&mut task, Stage::Tunnel, Some(link.index), WIREGUARD, doubt);
        }
        // Padded to sixteen bytes.
        let padding = task.packet.length.next_multiple_of(16) - task.packet.length;
        let outer = Outer {
            by: Carrier::Wireguard,
            local: None,
            remote,
            transport: Transport::Udp { source: None, destination: Some(port) },
            overhead: WIREGUARD_HEADERS + padding,
            dont_fragment: false,
        };
        self.wrap(task, Stage::Tunnel, Some(link.index), WIREGUARD, vec![named], outer);
    }

    /// The packet goes on inside another, which this host sends.
    pub(super) fn wrap(
        &mut self,
        task: Task,
        stage: Stage,
        device: Option<IfIndex>,
        functions: &'static [&'static str],
        decisions: Vec<Decision>,
        outer: Outer,
    ) {
        // `skb_scrub_packet`
        let mut task = Task { bridge_port: None, ..task };
        let packet = self.outer(&task.packet, outer);
        self.pass(&mut task, stage, device, functions, decisions, Some(packet));
        let after = task.parent.unwrap_or_default();
        self.go(task, after, Position::Originate);
    }

    fn outer(&self, inner: &Packet, outer: Outer) -> Packet {
        let Outer { by, local, remote, transport, overhead, dont_fragment } = outer;
        let chosen = || {
            let answer = self.topology.routes.lookup(self.topology.host, Question::own(remote));
            let route = answer.unicast()?;
            let own = self.topology.link(route.device?)?.addresses.iter().map(|network| network.address);
            route.source.or_else(|| own.clone().find(|address| address.is_ipv4() == remote.is_ipv4()))
        };
        let unspecified = if remote.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
        let tags = 4 * u32::try_from(inner.tags.len()).unwrap_or(0);
        Packet {
            source_mac: None,
            destination_mac: None,
            tags: Vec::new(),
            network: Network::Ip(Ip {
                source: local.or_else(chosen).unwrap_or(unspecified),
                destination: remote,
                transport,
                time_to_live: None,
                dont_fragment,
                fragment: Fragment::Whole,
                traffic_class: None,
            }),
            length: inner.length.saturating_add(overhead + header(remote) + tags),
            gso: inner.gso,
            mark: inner.mark,
            connection: None,
            translation: Translation::default(),
            carried: Some(Box::new(Carried { by, packet: inner.clone() })),
            secured: false,
        }
    }

    /// A packet that carries another has come to this host's end: the inner one goes on. False where it carries none that is known.
    pub(super) fn unwrap(&mut self, task: &mut Task, device: IfIndex) -> bool {
        let Some(carried) = task.packet.carried.take() else { return false };
        let Carried { by, packet: inner } = *carried;
        let Some(ip) = task.packet.ip().cloned() else { return false };
        task.bridge_port = None;
        if by == Carrier::Ipsec {
            let inner = Packet { secured: true, ..inner };
            self.pass(task, Stage::Ipsec, Some(device), &["xfrm_input"], Vec::new(), Some(inner));
            let after = task.parent.unwrap_or_default();
            self.go(task.clone(), after, Position::Ip(device));
            return true;
        }
        if let Some(place) = self.switch_tunnel(by, ip.source) {
            self.pass(task, Stage::Tunnel, None, RECEIVE, Vec::new(), Some(inner));
            let after = task.parent.unwrap_or_default();
            self.go(task.clone(), after, Position::Switch(place));
            return true;
        }
        let Some(link) = self.receiving(by, &ip) else {
            if let Carrier::Vxlan(key) | Carrier::Geneve(key) = by {
                self.stop(task, Stage::Tunnel, device, RECEIVE, Vec::new(), Stop::UnknownVni(key));
            } else {
                self.stop(task, Stage::Tunnel, device, RECEIVE, Vec::new(), Stop::NoPeer);
            }
            return true;
        };
        self.pass(task, Stage::Tunnel, Some(link.index), RECEIVE, Vec::new(), Some(inner));
        let after = task.parent.unwrap_or_default();
        self.go(task.clone(), after, Position::Receive(link.index));
        true
    }

    /// The tunnel device that takes an outer packet.
    fn receiving(&self, by: Carrier, outer: &Ip) -> Option<&'a Link> {
        let host = self.topology.host;
        let ports = outer.transport.ports();
        let fits = |ends: &TunnelEnds| {
            let local = ends.local.is_none_or(|local| local == outer.destination);
            local && ends.remote.is_none_or(|remote| remote == outer.source)
        };
        let ends = |link: &Link| host.overlay.tunnels.get(&link.index);
        host.links.values().filter(|link| link.up).find(|link| match (by, &link.kind) {
            (Carrier::Vxlan(wanted), LinkKind::Vxlan { vni, port, .. }) => {
                *vni == wanted && ports.is_some_and(|(_, to)| to == Some(*port))
            }
            (Carrier::Geneve(wanted), LinkKind::Other(kind)) if kind == "geneve" => {
                ends(link).is_some_and(|ends| ends.input_key == Some(wanted))
            }
            (Carrier::Gre(key), LinkKind::Other(kind)) if kind.contains("gre") => {
                ends(link).is_some_and(|ends| ends.input_key == key && fits(ends))
            }
            (Carrier::Plain, LinkKind::Other(kind)) => {
                matches!(kind.as_str(), "ipip" | "sit" | "ip6tnl") && ends(link).is_some_and(fits)
            }
            (Carrier::Wireguard, LinkKind::Other(kind)) if kind == "wireguard" => {
                let peers = host.overlay.peers.get(&link.index);
                peers.is_some_and(|peers| {
                    peers.iter().any(|peer| peer.endpoint.is_some_and(|(end, _)| end == outer.source))
                })
            }
            (_, _) => false,
        })
    }
}

/// How a device wraps: the carrier, the outer protocol, and the bytes between the outer IP header and the inner layer 3.
fn carrier(kind: &str, ends: &TunnelEnds, inner: &Packet) -> Option<(Carrier, Transport, u32)> {
    let key = if ends.key.is_some() { 4 } else { 0 };
    let is_v6 = inner.ip().is_some_and(|ip| ip.destination.is_ipv6());
    Some(match kind {
        "gre" | "ip6gre" => (Carrier::Gre(ends.key), Transport::Other(47), 4 + key),
        "gretap" | "ip6gretap" => (Carrier::Gre(ends.key), Transport::Other(47), 4 + key + 14),
        // IP in IP is protocol 4, IPv6 in IP 41.
        "ipip" | "sit" => (Carrier::Plain, Transport::Other(if is_v6 { 41 } else { 4 }), 0),
        // With the option of the encapsulation limit (`ip6_tnl_xmit`).
        "ip6tnl" => (Carrier::Plain, Transport::Other(if is_v6 { 41 } else { 4 }), 8),
        "geneve" => {
            let transport = Transport::Udp { source: None, destination: Some(ends.port) };
            (Carrier::Geneve(ends.key.unwrap_or(0)), transport, VXLAN)
        }
        _ => return None,
    })
}

/// The peer whose allowed addresses fit best (`wg_allowedips_lookup_dst`).
fn peer_for(peers: &[WireguardPeer], to: IpAddr) -> Option<&WireguardPeer> {
    let longest = |peer: &WireguardPeer| {
        peer.allowed.iter().filter(|network| network.contains(to)).map(|network| network.prefix).max()
    };
    peers.iter().filter_map(|peer| Some((longest(peer)?, peer))).max_by_key(|(prefix, _)| *prefix).map(|(_, peer)| peer)
}

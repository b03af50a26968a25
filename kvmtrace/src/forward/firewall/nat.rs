//! Address translation (`nf_nat_core`): the first packet of a connection asks NAT's chains, and every answer is put back.

use super::run::{End, Run};
use super::test::Answers;
use crate::event::host::{Link, Network};
use crate::event::is_link_local;
use crate::event::ruleset::{Choice, Hook, Layer, MapAnswer, Nat, NatKind, NatTarget};
use crate::forward::packet::{Connection, Packet, Transport};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A new address and port, each where it changes.
#[derive(Clone, Copy, Debug, Default)]
struct Ends {
    address: Option<IpAddr>,
    port: Option<Choice<u16>>,
}

impl Run<'_> {
    fn is_destination(&self) -> bool {
        matches!(self.subject.place.at.hook, Hook::Prerouting | Hook::Output)
    }

    fn is_translating(&self) -> bool {
        matches!(self.subject.place.at.layer, Layer::Ipv4 | Layer::Ipv6)
            && matches!(self.subject.place.at.hook, Hook::Prerouting | Hook::Input | Hook::Output | Hook::Postrouting)
    }

    /// The packet asks NAT's chains here: it is the first of its connection, and none has answered yet (`nf_nat_inet_fn`).
    pub(super) fn asks_nat(&self) -> bool {
        let translation = &self.subject.packet.translation;
        let done = if self.is_destination() { translation.destination_done } else { translation.source_done };
        // Neighbour discovery is not tracked.
        let untracked = matches!(
            self.subject.packet.ip().map(|ip| ip.transport),
            Some(Transport::Icmpv6 { kind: 130..=137 | 143, .. }) | None
        );
        let first = matches!(self.subject.packet.connection, None | Some(Connection::New));
        self.is_translating() && first && !done && !untracked
    }

    /// NAT's place in the hook: an answer gets the ends back that its asker knows (`nf_nat_packet`).
    pub(super) fn restore(&mut self) {
        if !self.is_translating() {
            return;
        }
        let destination = self.is_destination();
        let Some(restore) = self.subject.packet.translation.restore else { return };
        let (address, port) = if destination { restore.destination } else { restore.source };
        let ends = Ends { address: Some(address), port: port.map(Choice::One) };
        self.subject.packet = with_ends(&self.subject.packet, destination, ends);
    }

    /// What a translating rule makes of the packet; none where it does not match after all.
    pub(super) fn translate(&self, nat: &Nat) -> Option<End> {
        let destination = matches!(nat.kind, NatKind::Destination | NatKind::Redirect);
        let mut ends = match &nat.to {
            NatTarget::Fixed { address, port } => {
                let address = match address {
                    Some(Choice::One(address)) => Some(*address),
                    Some(Choice::Among(..)) => {
                        return Some(End::Taken("the rule chooses one of several addresses".to_owned()));
                    }
                    None => None,
                };
                Ends { address, port: *port }
            }
            NatTarget::Map(keys, map) => match self.subject.answers(keys, map) {
                Answers::One(MapAnswer { address, port }) => Ends { address: *address, port: port.map(Choice::One) },
                // Without an answer the rule does not match.
                Answers::None => return None,
                Answers::Perhaps(_, why) => return Some(End::Taken(why.to_owned())),
            },
            NatTarget::Network(network) => Ends { address: self.mapped(*network, destination), port: None },
            NatTarget::Unknown(what) => return Some(End::Taken(format!("translation to {what} is not understood"))),
        };
        match nat.kind {
            NatKind::Masquerade => match self.masquerade_address() {
                // Without an address there is nothing to answer to (`nf_nat_masquerade_ipv4`).
                None => return Some(End::Drop),
                address => ends.address = address,
            },
            NatKind::Redirect => match self.redirect_address() {
                None => return Some(End::Drop),
                address => ends.address = address,
            },
            NatKind::Source | NatKind::Destination => {}
        }
        let v6 = self.subject.place.at.layer == Layer::Ipv6;
        if ends.address.is_some_and(|address| address.is_ipv6() != v6) {
            // `nft_nat` with a family of its own looks at packets of that family only.
            return None;
        }
        let mut packet = with_ends(&self.subject.packet, destination, ends);
        if destination {
            packet.translation.destination_done = true;
        } else {
            packet.translation.source_done = true;
        }
        Some(End::Translated(Box::new(packet)))
    }

    /// The address with its network's bits replaced.
    fn mapped(&self, network: Network, destination: bool) -> Option<IpAddr> {
        let ip = self.subject.packet.ip()?;
        match (network.address, if destination { ip.destination } else { ip.source }) {
            (IpAddr::V4(network_address), IpAddr::V4(address)) => {
                let host = u32::MAX.checked_shr(u32::from(network.prefix)).unwrap_or(0);
                Some(IpAddr::V4((u32::from(network_address) & !host | u32::from(address) & host).into()))
            }
            (IpAddr::V6(network_address), IpAddr::V6(address)) => {
                let host = u128::MAX.checked_shr(u32::from(network.prefix)).unwrap_or(0);
                Some(IpAddr::V6((u128::from(network_address) & !host | u128::from(address) & host).into()))
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => None,
        }
    }

    /// The source that masquerading gives (`nf_nat_masquerade_ipv4`: `inet_select_addr` for the next hop; `nf_nat_masquerade_ipv6`:
    /// `ipv6_dev_get_saddr` for the destination).
    fn masquerade_address(&self) -> Option<IpAddr> {
        let topology = self.subject.place.topology;
        let link = topology.link(self.subject.place.at.output?)?;
        match self.subject.packet.ip()?.destination {
            IpAddr::V4(destination) => {
                let next_hop = match self.subject.place.at.next_hop {
                    Some(IpAddr::V4(next_hop)) => next_hop,
                    Some(IpAddr::V6(_)) | None => destination,
                };
                topology.select_v4(link, next_hop).map(IpAddr::V4)
            }
            IpAddr::V6(destination) => topology.select_v6(link, destination).map(IpAddr::V6),
        }
    }

    /// The destination that a redirect gives: the first address of the device that the packet came in by (`nf_nat_redirect_ipv4`,
    /// `nf_nat_redirect_ipv6`); loopback for a packet of this host's own.
    fn redirect_address(&self) -> Option<IpAddr> {
        let at = self.subject.place.at;
        let v6 = at.layer == Layer::Ipv6;
        if at.hook == Hook::Output {
            return Some(if v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() });
        }
        let link: &Link = self.subject.place.topology.link(at.input?)?;
        let mut own = link.addresses.iter().map(|network| network.address).filter(|address| address.is_ipv6() == v6);
        // nf_nat_redirect_ipv6_usable: a link-local destination asks for a link-local address; the kernel lists the widest first.
        let bound = self.subject.packet.ip().is_some_and(|ip| is_link_local(ip.destination));
        own.find(|address| !bound || is_link_local(*address))
    }
}

/// The packet with another destination or source.
fn with_ends(packet: &Packet, destination: bool, ends: Ends) -> Packet {
    let mut packet = packet.clone();
    let mut changed = false;
    if let Some(ip) = packet.ip_mut() {
        if let Some(address) = ends.address {
            let place = if destination { &mut ip.destination } else { &mut ip.source };
            changed |= *place != address;
            *place = address;
        }
        if let Some(choice) = ends.port {
            let port = match &mut ip.transport {
                Transport::Tcp { source, destination: to, .. }
                | Transport::Udp { source, destination: to }
                | Transport::Sctp { source, destination: to } => Some(if destination { to } else { source }),
                Transport::Icmp { .. } | Transport::Icmpv6 { .. } | Transport::Other(_) => None,
            };
            if let Some(port) = port {
                let next = match choice {
                    Choice::One(next) => Some(next),
                    // A port within the range stays (`get_unique_tuple`).
                    Choice::Among(low, high) => port.filter(|port| (low..=high).contains(port)),
                };
                changed |= *port != next;
                *port = next;
            }
        }
    }
    if packet.translation.restore.is_none() {
        if destination {
            packet.translation.destination_changed |= changed;
        } else {
            packet.translation.source_changed |= changed;
        }
    }
    packet
}

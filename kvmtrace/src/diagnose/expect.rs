//! The packet that a flow stands for, where it enters, and what the model expects of it.

use super::flows::case::{Case, Way};
use super::report::FlowDirection;
use crate::event::{Address, Direction, FlowKey, IfIndex, Protocol};
use crate::forward::Entry;
use crate::forward::asked::Goal;
use crate::forward::packet::{Connection, Packet, Restore, TcpFlags, Translation, Transport};
use std::net::IpAddr;

/// A question to the model.
#[derive(Clone, Debug)]
pub(super) struct Question {
    /// Where the packet enters.
    pub(super) entry: Entry,
    /// The packet as it enters.
    pub(super) packet: Packet,
    /// Where it should arrive.
    pub(super) goal: Goal,
}

/// The question that a flow asks; none where nobody saw it enter, or it is for a group.
pub(super) fn question(case: &Case<'_>) -> Option<Question> {
    let entry = entry(case)?;
    let goal = match case.way() {
        Way::Guest(device) => Goal::Guest(device),
        Way::Host => Goal::Host,
        Way::Uplink | Way::Routed => Goal::Beyond,
        Way::Group | Way::Unknown => return None,
    };
    let seen = case.group.main.key;
    let wire = match case.group.translated {
        // A guest sees its own addresses; outside the translated ones are on the wire.
        Some(outer) if case.group.direction == FlowDirection::ToGuest && !matches!(entry, Entry::Guest(_)) => outer,
        _ => seen,
    };
    let counters = case.entry().map(|(_, counters)| counters);
    let length = case.largest().max(28);
    let mut packet = Packet::of_flow(&wire, length);
    packet.mark = Some(0);
    packet.connection = connection(case);
    if let Some(counters) = counters {
        let on_wire = entry != Entry::Host;
        packet.source_mac = Some(counters.source_mac).filter(|mac| on_wire && !mac.is_zero());
        packet.destination_mac = Some(counters.destination_mac).filter(|mac| on_wire && !mac.is_zero());
        packet.gso = counters.gso > 0 && counters.largest < length;
        if let Some(ip) = packet.ip_mut() {
            ip.dont_fragment |= counters.dont_fragment;
            ip.time_to_live = Some(counters.time_to_live).filter(|ttl| *ttl > 0);
        }
    } else {
        packet.destination_mac = case.destination_mac();
    }
    let new = packet.connection == Some(Connection::New);
    if let Some(ip) = packet.ip_mut()
        && let Transport::Tcp { flags, .. } = &mut ip.transport
    {
        *flags = new.then_some(TcpFlags { syn: true, ack: false, fin: false, rst: false });
    }
    if packet.connection == Some(Connection::Established) {
        let restore = (wire != seen).then(|| restore(seen)).flatten();
        packet.translation =
            Translation { destination_done: true, source_done: true, restore, ..Translation::default() };
    }
    Some(Question { entry, packet, goal })
}

/// The ends that the guest sees.
fn restore(seen: FlowKey) -> Option<Restore> {
    let ip = |address: Address| address.ip();
    Some(Restore {
        destination: (ip(seen.destination)?, seen.destination_port),
        source: (ip(seen.source)?, seen.source_port),
    })
}

/// Where the flow entered this host: at its guest's interface, at an uplink, or in this host's own stack.
fn entry(case: &Case<'_>) -> Option<Entry> {
    let own = |address: Option<IpAddr>| address.is_some_and(|address| case.scene.is_host_address(address));
    match (case.group.direction, case.group.device) {
        (FlowDirection::FromGuest | FlowDirection::GuestToGuest, Some(device)) => Some(Entry::Guest(device)),
        (FlowDirection::ToGuest, _) if case.group.translated.is_none() && own(case.key().source.ip()) => {
            Some(Entry::Host)
        }
        (FlowDirection::ToGuest, _) => {
            let (place, _) = case.hops.first()?;
            (place.direction == Direction::Ingress && is_uplink(case, place.device))
                .then_some(Entry::Wire(place.device))
        }
        (FlowDirection::FromGuest | FlowDirection::GuestToGuest | FlowDirection::Host, _) => None,
    }
}

fn is_uplink(case: &Case<'_>, device: IfIndex) -> bool {
    case.scene.interface(device).is_none()
}

/// The state of the connection, as far as the flow shows it: who asked first.
fn connection(case: &Case<'_>) -> Option<Connection> {
    let main = case.group.main;
    let counters = case.entry().map(|(_, counters)| counters);
    match main.key.protocol {
        Protocol::Tcp => {
            let counters = counters?;
            if counters.tcp_syn > 0 {
                Some(Connection::New)
            } else if counters.tcp_syn_ack > 0 {
                Some(Connection::Established)
            } else {
                // The trace began amid the connection.
                None
            }
        }
        Protocol::Icmp { kind: 0, .. } | Protocol::Icmpv6 { kind: 129, .. } => Some(Connection::Established),
        protocol if protocol.is_icmp_error() => Some(Connection::Related),
        Protocol::Udp
        | Protocol::Sctp
        | Protocol::Icmp { .. }
        | Protocol::Icmpv6 { .. }
        | Protocol::Arp { .. }
        | Protocol::Ip(_)
        | Protocol::Ethernet(_) => {
            let asked = case.answers.iter().map(|answer| answer.first).min();
            let answers = asked.is_some_and(|asked| asked < main.first);
            Some(if answers { Connection::Established } else { Connection::New })
        }
    }
}

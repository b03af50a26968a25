//! Reads a walk: which copy of the packet matters, what became of the others, and how the packet looks at each step.

use super::asked::Goal;
use super::packet::{Carried, Connection, Fragment, Ip, Network, Packet, Restore, TcpFlags, Translation, Transport};
use super::step::{Arrival, Outcome, Stage, Step, Stop, Walk};
use super::{Entry, words};
use crate::event::{HostState, IfIndex};
use std::collections::BTreeMap;

/// A walk and the copy that matters.
#[derive(Clone, Debug)]
pub struct Reading<'w> {
    walk: &'w Walk,
    /// Indexes of the steps from the entry to the end of the copy that matters.
    pub way: Vec<usize>,
    entered: &'w Packet,
}

/// How the copy that matters ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum End {
    /// It arrives on this host: at a guest, a container or this host itself.
    Delivered,
    /// It leaves this host by an uplink.
    Leaves,
    /// It ends before.
    Stops,
    /// What happens can't be known.
    Unknown,
}

impl<'w> Reading<'w> {
    /// Chooses the copy that matters: the one that arrives where the packet should; else the one about which there is doubt; else
    /// the one that stops nearest to the goal.
    pub fn new(walk: &'w Walk, entered: &'w Packet, goal: Goal) -> Self {
        let translated = |end: usize| {
            let last = packet_at(walk, entered, end).innermost();
            words::ends(last).map(|(_, to)| to) != words::ends(entered).map(|(_, to)| to)
        };
        let rank = |(index, step): &(usize, &Step)| {
            let reached = match (&step.outcome, goal) {
                (Outcome::Arrives(Arrival::Guest(device)), Goal::Guest(wanted)) => *device == wanted,
                (Outcome::Arrives(Arrival::Host | Arrival::Answered), Goal::Host)
                | (Outcome::Arrives(Arrival::Uplink(_) | Arrival::Namespace(_)), Goal::Beyond) => true,
                (_, _) => false,
            };
            let class = match &step.outcome {
                Outcome::Arrives(_) if reached => 0,
                // Proxy ARP, and a destination that is translated: another than the one named gets it.
                Outcome::Arrives(Arrival::Answered) => 1,
                Outcome::Arrives(Arrival::Guest(_) | Arrival::Host | Arrival::Uplink(_) | Arrival::Namespace(_))
                    if translated(*index) =>
                {
                    1
                }
                Outcome::Stops(_) if is_of(step, goal) => 2,
                Outcome::Unknown(_) | Outcome::Passes | Outcome::Becomes(_) | Outcome::Branches => 3,
                Outcome::Stops(_) if step.stage != Stage::BridgeLocal && step.stage != Stage::NeighbourAnswer => 4,
                Outcome::Arrives(Arrival::Guest(_) | Arrival::Host | Arrival::Uplink(_) | Arrival::Namespace(_)) => 5,
                Outcome::Stops(_) => 6,
                Outcome::Arrives(Arrival::Ignored) => 7,
            };
            // Of two that stop, the one that came further.
            (class, std::cmp::Reverse(indexes(walk, *index).len()))
        };
        let end = leaves(walk).min_by_key(rank).map_or_else(|| walk.steps.len().saturating_sub(1), |(index, _)| index);
        Self { walk, way: indexes(walk, end), entered }
    }

    /// The first step of the way at which it can't be known whether the packet passes.
    pub fn doubt(&self) -> Option<(usize, &'w Step)> {
        self.steps().find(|(_, step)| matches!(step.outcome, Outcome::Unknown(_)))
    }

    /// The steps of the copy that matters.
    pub fn steps(&self) -> impl DoubleEndedIterator<Item = (usize, &'w Step)> {
        self.way.iter().filter_map(|index| self.walk.steps.get(*index).map(|step| (*index, step)))
    }

    /// The last step.
    pub fn last(&self) -> Option<&'w Step> {
        self.walk.steps.get(*self.way.last()?)
    }

    /// How it ends.
    pub fn end(&self) -> End {
        match self.last().map(|step| &step.outcome) {
            Some(Outcome::Stops(_) | Outcome::Arrives(Arrival::Ignored)) => End::Stops,
            Some(Outcome::Arrives(_)) if self.doubt().is_some() => End::Unknown,
            Some(Outcome::Arrives(Arrival::Uplink(_) | Arrival::Namespace(_))) => End::Leaves,
            Some(Outcome::Arrives(Arrival::Guest(_) | Arrival::Host | Arrival::Answered)) => End::Delivered,
            Some(Outcome::Unknown(_) | Outcome::Passes | Outcome::Becomes(_) | Outcome::Branches) | None => {
                End::Unknown
            }
        }
    }

    /// The packet as it comes to a step.
    pub fn packet_before(&self, index: usize) -> &'w Packet {
        match self.walk.steps.get(index).and_then(|step| step.parent) {
            Some(parent) => packet_at(self.walk, self.entered, parent),
            None => self.entered,
        }
    }

    /// The packet as it ends.
    pub fn packet(&self) -> &'w Packet {
        self.way.last().map_or(self.entered, |end| packet_at(self.walk, self.entered, *end))
    }

    /// The copy is bridged at a step: IP rules that it meets there are met by way of `br_netfilter`.
    pub fn is_bridged(&self, index: usize) -> bool {
        let before = self.steps().take_while(|(step, _)| *step <= index);
        let last = before.filter_map(|(_, step)| match step.stage {
            Stage::BridgeIngress | Stage::BridgeForward | Stage::BridgeEgress | Stage::Switch => Some(true),
            Stage::BridgeLocal | Stage::Route | Stage::Local | Stage::NeighbourAnswer => Some(false),
            Stage::DeviceReceive
            | Stage::Firewall(_)
            | Stage::Nat
            | Stage::SourceCheck
            | Stage::IpForward
            | Stage::Neighbour
            | Stage::DeviceTransmit
            | Stage::Tunnel
            | Stage::Ipsec
            | Stage::Guest => None,
        });
        last.last().unwrap_or(false)
    }

    /// The other copies that part from the way at a step, in a few words; none where there are none.
    pub fn others(&self, host: &HostState, branch: usize) -> Option<String> {
        let position = self.way.iter().position(|step| *step == branch)?;
        let next = self.way.get(position + 1);
        let mut counts: BTreeMap<(u8, String), usize> = BTreeMap::new();
        for (end, step) in leaves(self.walk) {
            let way = indexes(self.walk, end);
            let parted = way.iter().position(|index| *index == branch).map(|at| way.get(at + 1));
            if parted.is_none_or(|after| after == next) {
                continue;
            }
            *counts.entry(copy(host, step)).or_default() += 1;
        }
        let parts: Vec<String> =
            counts.into_iter().map(|((_, words), count)| words.replace('#', &count.to_string())).collect();
        (!parts.is_empty()).then(|| parts.join(", "))
    }
}

/// The step is at the place where the packet should arrive.
fn is_of(step: &Step, goal: Goal) -> bool {
    match goal {
        Goal::Guest(device) => step.device == Some(device),
        Goal::Host => {
            matches!(step.stage, Stage::BridgeLocal | Stage::Local | Stage::NeighbourAnswer)
                || step.outcome == Outcome::Stops(Stop::SwitchPortDown)
        }
        Goal::Beyond => matches!(step.stage, Stage::DeviceTransmit | Stage::Neighbour | Stage::Tunnel),
    }
}

/// One of the other copies: its rank in the list, and words in which # stands for the number of such copies.
fn copy(host: &HostState, step: &Step) -> (u8, String) {
    match &step.outcome {
        Outcome::Arrives(Arrival::Guest(_)) => (0, "# to other guests".to_owned()),
        Outcome::Arrives(Arrival::Uplink(device) | Arrival::Namespace(device)) => {
            (1, format!("# by {}", host.link_name(*device)))
        }
        Outcome::Arrives(Arrival::Host | Arrival::Answered) => (2, "# to this host".to_owned()),
        Outcome::Unknown(_) | Outcome::Passes | Outcome::Becomes(_) | Outcome::Branches => {
            (3, "# that can't be followed".to_owned())
        }
        Outcome::Arrives(Arrival::Ignored) => (4, "# passed over by their receivers".to_owned()),
        Outcome::Stops(_) => (5, "# stopped".to_owned()),
    }
}

/// Steps after which nothing comes.
fn leaves(walk: &Walk) -> impl Iterator<Item = (usize, &Step)> {
    let mut has_child = vec![false; walk.steps.len()];
    for parent in walk.steps.iter().filter_map(|step| step.parent) {
        if let Some(has_child) = has_child.get_mut(parent) {
            *has_child = true;
        }
    }
    walk.steps.iter().enumerate().zip(has_child).filter_map(|(step, has_child)| (!has_child).then_some(step))
}

/// The way to a step, by index.
fn indexes(walk: &Walk, end: usize) -> Vec<usize> {
    let mut way = Vec::new();
    let mut next = Some(end).filter(|end| *end < walk.steps.len());
    while let Some(index) = next {
        way.push(index);
        // A parent stands before its children; anything else would never end.
        next = walk.steps.get(index).and_then(|step| step.parent).filter(|parent| *parent < index);
    }
    way.reverse();
    way
}

/// The packet as it goes on from a step.
fn packet_at<'w>(walk: &'w Walk, entered: &'w Packet, step: usize) -> &'w Packet {
    let way = indexes(walk, step);
    let changed = way.iter().rev().find_map(|index| match &walk.steps.get(*index)?.outcome {
        Outcome::Becomes(packet) => Some(packet.as_ref()),
        Outcome::Passes | Outcome::Branches | Outcome::Arrives(_) | Outcome::Stops(_) | Outcome::Unknown(_) => None,
    });
    changed.unwrap_or(entered)
}

/// The answer to a packet that arrived: where it enters and how it looks. None where the packet asks for none, or where this host
/// answers by itself at once (ARP, ND).
pub fn reply(reading: &Reading<'_>) -> Option<(Entry, Packet)> {
    let Some(Outcome::Arrives(arrival)) = reading.last().map(|step| &step.outcome) else { return None };
    let entry = match arrival {
        Arrival::Guest(device) => Entry::Guest(*device),
        Arrival::Uplink(device) | Arrival::Namespace(device) => Entry::Wire(*device),
        Arrival::Host | Arrival::Answered => Entry::Host,
        Arrival::Ignored => return None,
    };
    let last = reading.packet();
    let answer = answer_to(reading.entered, last, *arrival, entry != Entry::Host)?;
    Some((entry, answer))
}

/// The answer to `last`, as which `asked` has arrived; in a tunnel, the answer to what it carries, wrapped in its turn.
fn answer_to(asked: &Packet, last: &Packet, arrival: Arrival, on_wire: bool) -> Option<Packet> {
    if let Some(carried) = &last.carried {
        let inner = answer_to(asked, &carried.packet, arrival, true)?;
        let ip = last.ip()?;
        let carried = Some(Box::new(Carried { by: carried.by, packet: inner.clone() }));
        let turned = Ip { source: ip.destination, destination: ip.source, fragment: Fragment::Whole, ..ip.clone() };
        let added = last.length.saturating_sub(last.carried.as_ref()?.packet.length);
        return Some(Packet {
            source_mac: last.destination_mac.filter(|mac| on_wire && !mac.is_multicast()),
            destination_mac: last.source_mac.filter(|_| on_wire),
            network: Network::Ip(turned),
            length: inner.length.saturating_add(added),
            carried,
            ..last.clone()
        });
    }
    let network = match &last.network {
        Network::Ip(ip) => Network::Ip(Ip {
            source: ip.destination,
            destination: ip.source,
            transport: answer(ip.transport)?,
            time_to_live: Some(64),
            fragment: Fragment::Whole,
            ..ip.clone()
        }),
        Network::Arp(arp) if !matches!(arrival, Arrival::Answered | Arrival::Host) => {
            let answer = super::packet::Arp { operation: 2, sender: arp.target, target: arp.sender, sender_mac: None };
            Network::Arp(answer)
        }
        Network::Arp(_) | Network::Other(_) => return None,
    };
    if let Network::Ip(ip) = &network
        && (ip.source.is_multicast() || ip.destination.is_unspecified())
    {
        return None;
    }
    let translated = words::ends(asked) != words::ends(last);
    let restore = words::ends(asked)
        .filter(|_| translated)
        .map(|(source, destination)| Restore { destination: source, source: destination });
    let connection = match last.connection {
        Some(Connection::Untracked) => Some(Connection::Untracked),
        Some(Connection::New | Connection::Established | Connection::Related | Connection::Invalid) | None => {
            asked.connection.map(|_| Connection::Established)
        }
    };
    Some(Packet {
        source_mac: last.destination_mac.filter(|mac| on_wire && !mac.is_multicast()),
        destination_mac: last.source_mac.filter(|_| on_wire),
        network,
        length: asked.length,
        connection,
        mark: Some(0),
        translation: Translation { destination_done: true, source_done: true, restore, ..Translation::default() },
        ..last.clone()
    })
}

/// The first answer of a protocol.
fn answer(transport: Transport) -> Option<Transport> {
    match transport {
        Transport::Tcp { source, destination, .. } => {
            let flags = TcpFlags { syn: true, ack: true, fin: false, rst: false };
            Some(Transport::Tcp { source: destination, destination: source, flags: Some(flags) })
        }
        Transport::Udp { source, destination } => Some(Transport::Udp { source: destination, destination: source }),
        Transport::Sctp { source, destination } => Some(Transport::Sctp { source: destination, destination: source }),
        Transport::Icmp { kind: 8, code, id } => Some(Transport::Icmp { kind: 0, code, id }),
        Transport::Icmpv6 { kind: 128, code, id, target } => Some(Transport::Icmpv6 { kind: 129, code, id, target }),
        Transport::Icmp { .. } | Transport::Icmpv6 { .. } | Transport::Other(_) => None,
    }
}

/// Where the answer should arrive: at the one who asked.
pub fn reply_goal(entry: Entry) -> Goal {
    match entry {
        Entry::Guest(device) => Goal::Guest(device),
        Entry::Wire(_) => Goal::Beyond,
        Entry::Host => Goal::Host,
    }
}

/// The devices of a way in order, each once where it follows itself.
pub fn devices(reading: &Reading<'_>) -> Vec<IfIndex> {
    let mut devices: Vec<IfIndex> = reading.steps().filter_map(|(_, step)| step.device).collect();
    devices.dedup();
    devices
}

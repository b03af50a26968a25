//! OpenFlow: which rules a frame meets, and what they do with it (`ofproto/ofproto-dpif-xlate.c` of Open vSwitch 3.1).

use crate::event::MacAddress;
use crate::forward::packet::{Fragment, Network, Packet, Transport};
use crate::topology::switch::flow::{Action, Field};
use crate::topology::switch::{Rule, Switching};
use std::collections::BTreeMap;
use std::net::IpAddr;

/// Rules that one frame meets at most (`MAX_RESUBMITS` is 4096), and how deep they call each other (`MAX_DEPTH`).
const MEETINGS: usize = 4_096;
const DEPTH: usize = 64;
/// A tag is there (`VLAN_CFI`).
const PRESENT: u16 = 0x1000;

/// A copy that is sent.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) packet: Packet,
    pub(super) to: To,
    /// The OpenFlow number of the port that it came by, as far as rules see it.
    pub(super) from: u16,
}

/// Where a copy is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum To {
    /// By a port, by its OpenFlow number.
    Port(u16),
    /// As a learning switch.
    Normal,
    /// By all other ports.
    Flood,
}

/// What the rules of a bridge do with a frame.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// The rules that it met, in order, by their index among the bridge's.
    pub(super) met: Vec<usize>,
    pub(super) sent: Vec<Sent>,
    /// What can't be followed.
    pub(super) doubt: Option<String>,
    /// The table in which it met none.
    pub(super) missed: Option<u8>,
}

/// The frame on its way through the tables.
#[derive(Clone, Debug)]
struct Frame {
    packet: Packet,
    from: u16,
    /// Registers that are not zero; none where the value is not known.
    registers: BTreeMap<String, Option<u64>>,
}

/// Whether a rule's field fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    No,
    Maybe,
    Yes,
}

impl From<bool> for Fit {
    fn from(fits: bool) -> Self {
        if fits { Self::Yes } else { Self::No }
    }
}

/// Asks the rules of a bridge, from table 0 on.
pub(super) fn ask(switching: &Switching<'_>, bridge: usize, packet: &Packet, from: u16) -> Answer {
    let mut pipeline = Pipeline { switching, bridge, answer: Answer::default() };
    let mut frame = Frame { packet: packet.clone(), from, registers: BTreeMap::new() };
    pipeline.table(&mut frame, 0, 0);
    pipeline.answer
}

/// The rule that a frame would meet in the table of another rule, were that one not there. Registers are taken for zero.
pub(super) fn below(
    switching: &Switching<'_>,
    bridge: usize,
    table: u8,
    rule: usize,
    packet: &Packet,
    from: u16,
) -> Option<usize> {
    let frame = Frame { packet: packet.clone(), from, registers: BTreeMap::new() };
    let rules = switching.table(bridge, table).iter().skip_while(|other| other.index != rule).skip(1);
    let mut fitting = rules.filter_map(|rule| {
        let fit = rule.fields.iter().map(|field| fits(field, &frame)).min().unwrap_or(Fit::Yes);
        (fit != Fit::No).then_some((fit, rule.index))
    });
    fitting.next().filter(|(fit, _)| *fit == Fit::Yes).map(|(_, index)| index)
}

struct Pipeline<'s, 'a> {
    switching: &'s Switching<'a>,
    bridge: usize,
    answer: Answer,
}

impl<'s> Pipeline<'s, '_> {
    fn table(&mut self, frame: &mut Frame, table: u8, depth: usize) {
        if self.answer.doubt.is_some() {
            return;
        }
        if depth > DEPTH || self.answer.met.len() >= MEETINGS {
            self.answer.doubt = Some("its rules call each other without end".to_owned());
            return;
        }
        let switching = self.switching;
        let rules: &'s [Rule] = switching.table(self.bridge, table);
        for rule in rules {
            match rule.fields.iter().map(|field| fits(field, frame)).min().unwrap_or(Fit::Yes) {
                Fit::No => {}
                Fit::Maybe => {
                    self.answer.met.push(rule.index);
                    self.answer.doubt = Some("a rule asks for what is not known of the packet".to_owned());
                    return;
                }
                Fit::Yes => {
                    self.answer.met.push(rule.index);
                    self.act(frame, rule, table, depth);
                    return;
                }
            }
        }
        // Without a controller, what meets no rule is dropped.
        self.answer.missed = Some(table);
    }

    fn act(&mut self, frame: &mut Frame, rule: &Rule, table: u8, depth: usize) {
        for action in &rule.actions {
            let to = match action {
                Action::Output(port) if *port == frame.from => continue,
                Action::Output(port) => To::Port(*port),
                Action::InPort => To::Port(frame.from),
                Action::Normal => To::Normal,
                Action::Flood => To::Flood,
                Action::Drop | Action::Ignore => continue,
                Action::Resubmit(port, next) => {
                    let from = frame.from;
                    frame.from = port.unwrap_or(from);
                    self.table(frame, next.unwrap_or(table), depth + 1);
                    frame.from = from;
                    continue;
                }
                Action::Table(next) => {
                    self.table(frame, *next, depth + 1);
                    return;
                }
                Action::Unknown(word) => {
                    self.answer.doubt = Some(format!("the action {word}"));
                    return;
                }
                Action::PopVlan
                | Action::PushVlan
                | Action::SetVlan(_)
                | Action::SetSource(_)
                | Action::SetDestination(_)
                | Action::Load(..)
                | Action::Forget(_) => {
                    apply(action, frame);
                    continue;
                }
            };
            self.answer.sent.push(Sent { packet: frame.packet.clone(), to, from: frame.from });
        }
    }
}

/// Actions that change the frame or a register.
fn apply(action: &Action, frame: &mut Frame) {
    let tags = &mut frame.packet.tags;
    match action {
        Action::PopVlan if !tags.is_empty() => {
            tags.remove(0);
        }
        Action::PushVlan => tags.insert(0, 0),
        Action::SetVlan(vlan) => match tags.first_mut() {
            Some(tag) => *tag = *vlan,
            None => tags.push(*vlan),
        },
        Action::SetSource(mac) => frame.packet.source_mac = Some(*mac),
        Action::SetDestination(mac) => frame.packet.destination_mac = Some(*mac),
        Action::Forget(register) => {
            frame.registers.insert(register.clone(), None);
        }
        Action::Load(register, value, first, bits) => {
            let mask = (u64::MAX >> (64 - (*bits).clamp(1, 64))) << (*first).min(63);
            let before = frame.registers.get(register).copied().unwrap_or(Some(0));
            let after = before.map(|before| before & !mask | value.checked_shl(*first).unwrap_or(0) & mask);
            frame.registers.insert(register.clone(), after);
        }
        Action::PopVlan
        | Action::Output(_)
        | Action::InPort
        | Action::Normal
        | Action::Flood
        | Action::Drop
        | Action::Resubmit(..)
        | Action::Table(_)
        | Action::Ignore
        | Action::Unknown(_) => {}
    }
}

fn fits(field: &Field, frame: &Frame) -> Fit {
    let packet = &frame.packet;
    match field {
        Field::Always => Fit::Yes,
        Field::Unknown(_) => Fit::Maybe,
        Field::Protocol(kind, above) => {
            let is_kind = packet.ether_type() == *kind;
            Fit::from(is_kind && above.is_none_or(|above| packet.ip().is_some_and(|ip| ip.transport.number() == above)))
        }
        Field::InPort(port) => Fit::from(*port == frame.from),
        Field::SourceMac(mac, mask) => mac_fits(packet.source_mac, *mac, *mask),
        Field::DestinationMac(mac, mask) => mac_fits(packet.destination_mac, *mac, *mask),
        Field::Vlan(0xffff) => Fit::from(packet.tags.is_empty()),
        Field::Vlan(vlan) => Fit::from(packet.tags.first().copied() == Some(*vlan & 0xfff)),
        Field::VlanTci(tci, mask) => {
            let own = packet.tags.first().map_or(0, |tag| tag | PRESENT);
            // The priority bits of a tag are not known.
            if mask & 0xe000 != 0 && own != 0 { Fit::Maybe } else { Fit::from(own & mask == tci & mask) }
        }
        Field::Source(address, bits) => address_fits(ends(packet).map(|(source, _)| source), *address, *bits),
        Field::Destination(address, bits) => address_fits(ends(packet).map(|(_, to)| to), *address, *bits),
        Field::IpProtocol(number) => match &packet.network {
            Network::Ip(ip) => Fit::from(ip.transport.number() == *number),
            Network::Arp(arp) => Fit::from(arp.operation == *number),
            Network::Other(_) => Fit::No,
        },
        Field::SourcePort(port, mask) => port_fits(packet, *port, *mask, true),
        Field::DestinationPort(port, mask) => port_fits(packet, *port, *mask, false),
        Field::Fragment(which) => match (packet.ip().map(|ip| ip.fragment), which.as_str()) {
            (None, _) => Fit::No,
            (Some(Fragment::Whole), which) => Fit::from(matches!(which, "no" | "not_later")),
            (Some(Fragment::First), which) => Fit::from(matches!(which, "yes" | "first" | "not_later")),
            (Some(Fragment::Later), which) => Fit::from(matches!(which, "yes" | "later")),
        },
        Field::Register(name, value, mask) => match frame.registers.get(name).copied().unwrap_or(Some(0)) {
            Some(own) => Fit::from(own & mask == value & mask),
            None => Fit::Maybe,
        },
        // An action `ct` is not followed, so before it nothing is tracked.
        Field::Untracked(fits) => Fit::from(*fits),
    }
}

fn mac_fits(own: Option<MacAddress>, wanted: MacAddress, mask: MacAddress) -> Fit {
    let Some(own) = own else { return Fit::Maybe };
    let bytes = own.0.iter().zip(wanted.0).zip(mask.0);
    Fit::from(bytes.fold(true, |fits, ((own, wanted), mask)| fits && own & mask == wanted & mask))
}

fn ends(packet: &Packet) -> Option<(IpAddr, IpAddr)> {
    match &packet.network {
        Network::Ip(ip) => Some((ip.source, ip.destination)),
        Network::Arp(arp) => Some((arp.sender, arp.target)),
        Network::Other(_) => None,
    }
}

fn address_fits(own: Option<IpAddr>, wanted: IpAddr, bits: u128) -> Fit {
    let number = |address: IpAddr| match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => address.into(),
    };
    Fit::from(own.is_some_and(|own| own.is_ipv4() == wanted.is_ipv4() && number(own) & bits == number(wanted) & bits))
}

fn port_fits(packet: &Packet, wanted: u16, mask: u16, source: bool) -> Fit {
    let Some(ip) = packet.ip() else { return Fit::No };
    let own = match ip.transport {
        Transport::Icmp { kind, code, .. } | Transport::Icmpv6 { kind, code, .. } => {
            Some(u16::from(if source { kind } else { code }))
        }
        Transport::Tcp { .. } | Transport::Udp { .. } | Transport::Sctp { .. } | Transport::Other(_) => {
            let Some((from, to)) = ip.transport.ports() else { return Fit::No };
            if source { from } else { to }
        }
    };
    match own {
        _ if ip.fragment == Fragment::Later => Fit::No,
        Some(own) => Fit::from(own & mask == wanted & mask),
        None => Fit::Maybe,
    }
}

//! What gets through on this host, by walks without packets: from each guest to its gateway, to this host, to other guests of its
//! network, to the LAN and to the Internet. Facts, not faults: a firewall that closes a port, and a network that is meant to be
//! private, are as they should be.

use super::explain::{cause, clause};
use super::report::{Finding, Fix, Label, LeftOut, Protocol, Row, Severity, TargetKind, Where};
use super::shell;
use crate::event::host::{GuestInterface, LinkKind};
use crate::event::is_link_local;
use crate::event::{HostState, IfIndex};
use crate::forward::asked::{Asked, Goal, Kind, Question, STAND_IN, Segment, Target, resolve};
use crate::forward::reading::{self, End, Reading};
use crate::forward::step::{Outcome, Stop};
use crate::forward::walk;
use crate::topology::Topology;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Guests' interfaces that are walked for; the rest is counted.
const INTERFACES: usize = 256;
/// Other guests that are walked to from each interface.
const NEIGHBOURS: usize = 4;
/// TCP ports that are walked to.
const PORTS: [u16; 3] = [22, 80, 443];
/// A machine on the Internet that everybody knows. Nothing is sent to it.
const INTERNET: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), IpAddr::V6(Ipv6Addr::new(0x2606, 0x4700, 0x4700, 0, 0, 0, 0, 0x1111))];

/// What gets through.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reachability {
    /// A row for each guest, target and protocol.
    pub rows: Vec<Row>,
    /// What was not walked, because there is too much of it.
    pub left_out: LeftOut,
}

/// Walks for the guests' interfaces that are wanted.
pub fn reachability(host: &HostState, wanted: &dyn Fn(&str, IfIndex) -> bool) -> Reachability {
    let topology = Topology::new(host);
    let all =
        host.guests.iter().flat_map(|guest| guest.interfaces.iter().map(|interface| (guest.name.as_str(), interface)));
    let all: Vec<_> = all.filter(|(guest, interface)| wanted(guest, interface.device)).collect();
    let left_out = LeftOut { interfaces: all.len().saturating_sub(INTERFACES), pairs: 0 };
    let mut found = Reachability { rows: Vec::new(), left_out };
    for (guest, interface) in all.into_iter().take(INTERFACES) {
        let walker = Walker { topology: &topology, guest, interface, segment: Segment::of(host, interface.device) };
        walker.rows(&mut found);
    }
    found
}

struct Walker<'a, 't> {
    topology: &'t Topology<'a>,
    guest: &'a str,
    interface: &'a GuestInterface,
    segment: Segment<'a>,
}

impl Walker<'_, '_> {
    fn rows(&self, found: &mut Reachability) {
        for v6 in [false, true] {
            let wide = |address: &&IpAddr| address.is_ipv6() == v6 && !is_link_local(**address);
            let Some(own) = self.interface.addresses.iter().find(wide).copied() else { continue };
            self.to_gateway_and_host(own, &mut found.rows);
            self.to_guests(own, found);
            self.to_lan(own, &mut found.rows);
            let (internet, target) = (INTERNET[usize::from(v6)], "the Internet");
            self.to(own, TargetKind::Internet, target, Some(internet), &ip_kinds(), &mut found.rows);
        }
        self.dhcp(&mut found.rows);
    }

    fn to_gateway_and_host(&self, own: IpAddr, rows: &mut Vec<Row>) {
        let v6 = own.is_ipv6();
        let gateway = self.segment.gateway(v6, Some(own));
        let near = self.segment.host_address(v6, Some(own));
        let resolution = if v6 { Kind::Nd } else { Kind::Arp };
        if let Some(gateway) = gateway {
            self.to(own, TargetKind::Gateway, "gateway", Some(gateway), &[resolution, Kind::Icmp], rows);
        }
        let mut kinds = ip_kinds();
        // Asked for as the gateway already.
        kinds.retain(|kind| gateway != near || *kind != Kind::Icmp);
        if near.is_some() {
            self.to(own, TargetKind::Host, "this host", near, &kinds, rows);
        }
    }

    fn to_guests(&self, own: IpAddr, found: &mut Reachability) {
        let same = |address: &&IpAddr| address.is_ipv6() == own.is_ipv6() && !is_link_local(**address);
        let others = self.segment.guests().filter(|other| other.device != self.interface.device);
        let others: Vec<_> =
            others.filter_map(|other| Some((other.device, *other.addresses.iter().find(same)?))).collect();
        found.left_out.pairs += others.len().saturating_sub(NEIGHBOURS);
        // Each guest begins behind itself, so that all are walked to by somebody.
        let begin = others.iter().position(|(device, _)| *device > self.interface.device).unwrap_or(0);
        let mut kinds = vec![if own.is_ipv6() { Kind::Nd } else { Kind::Arp }];
        kinds.extend(ip_kinds());
        for (device, address) in others.iter().cycle().skip(begin).take(others.len().min(NEIGHBOURS)) {
            let name = self.topology.interface(*device).map(|(guest, _)| guest.name.as_str()).unwrap_or_default();
            self.to(own, TargetKind::Guest, name, Some(*address), &kinds, &mut found.rows);
        }
    }

    /// A machine of the guest's own network beyond this host; where no uplink leads there, the host's own next hop.
    fn to_lan(&self, own: IpAddr, rows: &mut Vec<Row>) {
        let host = self.topology.host;
        let gateway = self.segment.gateway(own.is_ipv6(), Some(own));
        let network = self.segment.network(own);
        let (address, on_link) = if self.segment.uplinks().is_empty() {
            let default = host
                .routes
                .iter()
                .filter(|route| route.destination.prefix == 0 && route.destination.address.is_ipv6() == own.is_ipv6());
            (default.min_by_key(|route| route.metric).and_then(|route| route.gateway), false)
        } else {
            let known = host.neighbours.iter().map(|entry| entry.address).find(|address| {
                let near = network.is_some_and(|network| network.contains(*address)) && Some(*address) != gateway;
                near && self.segment.neighbour(*address).owner == Goal::Beyond
            });
            (known, true)
        };
        let Some(address) = address.filter(|address| !is_link_local(*address)) else { return };
        let mut kinds = ip_kinds();
        if on_link {
            kinds.insert(0, if own.is_ipv6() { Kind::Nd } else { Kind::Arp });
        }
        self.to(own, TargetKind::Lan, "the LAN", Some(address), &kinds, rows);
    }

    fn dhcp(&self, rows: &mut Vec<Row>) {
        let (target_kind, goal, name) = if self.segment.uplinks().is_empty() {
            (TargetKind::Host, Goal::Host, "this host")
        } else {
            (TargetKind::Lan, Goal::Beyond, "the LAN")
        };
        if goal == Goal::Host && self.segment.host_address(false, None).is_none() {
            return;
        }
        let target = Target::Addresses(vec![IpAddr::V4(Ipv4Addr::BROADCAST)]);
        let Ok(asked) = resolve(self.topology.host, &self.question(target, Kind::Dhcp, None)) else { return };
        rows.extend(self.row(&Asked { goal, ..asked }, Kind::Dhcp, target_kind, name, None));
    }

    fn to(
        &self,
        own: IpAddr,
        target_kind: TargetKind,
        target: &str,
        address: Option<IpAddr>,
        kinds: &[Kind],
        rows: &mut Vec<Row>,
    ) {
        for kind in kinds {
            let Some(address) = address else { continue };
            let question = self.question(Target::Addresses(vec![address]), *kind, Some(own));
            // A target that this host can't make a packet for is none of its business: a network without a gateway.
            let Ok(asked) = resolve(self.topology.host, &question) else { continue };
            rows.extend(self.row(&asked, *kind, target_kind, target, Some(address)));
        }
    }

    fn question(&self, target: Target, kind: Kind, source: Option<IpAddr>) -> Question {
        Question {
            guest: self.topology.host.link_name(self.interface.device),
            target: Some(target),
            kind,
            size: None,
            dont_fragment: false,
            from: None,
            source,
            mac: None,
            via: None,
        }
    }

    fn row(
        &self,
        asked: &Asked,
        kind: Kind,
        target_kind: TargetKind,
        target: &str,
        address: Option<IpAddr>,
    ) -> Option<Row> {
        let host = self.topology.host;
        let walked = walk(self.topology, &asked.packet, asked.entry);
        let way = Reading::new(&walked, &asked.packet, asked.goal);
        let guessed = asked.packet.destination_mac == Some(STAND_IN);
        if guessed && matches!(way.last().map(|step| &step.outcome), Some(Outcome::Stops(Stop::FloodDisabled))) {
            // The answer to the request that comes before would have taught the bridge the way.
            return None;
        }
        let answer = reading::reply(&way).filter(|_| matches!(way.end(), End::Delivered | End::Leaves));
        let answered = answer.as_ref().map(|(entry, packet)| (walk(self.topology, packet, *entry), packet));
        let back =
            answered.as_ref().map(|(walked, packet)| Reading::new(walked, packet, reading::reply_goal(asked.entry)));
        let fails = |reading: &Reading<'_>| matches!(reading.end(), End::Stops | End::Unknown);
        let decisive = back.as_ref().filter(|back| fails(back)).unwrap_or(&way);
        let explanation = match &back {
            Some(back) if fails(back) => format!("{}, but the answer {}", clause(host, &way), clause(host, back)),
            Some(_) | None => clause(host, &way),
        };
        let last = decisive.way.last().copied().zip(decisive.last()).filter(|_| fails(decisive));
        let (protocol, port) = match kind {
            Kind::Icmp => (Protocol::Icmp, None),
            Kind::Tcp(port) | Kind::Udp(port) => (Protocol::Tcp, Some(port)),
            Kind::Arp => (Protocol::Arp, None),
            Kind::Dhcp => (Protocol::Dhcp, None),
            Kind::Nd => (Protocol::Nd, None),
        };
        let cut_off = decisive.end() == End::Stops
            && target_kind == TargetKind::Gateway
            && asked.goal == Goal::Host
            && matches!(kind, Kind::Arp | Kind::Nd)
            && !is_macvtap(host, self.interface.device);
        Some(Row {
            guest: self.guest.to_owned(),
            device: host.link_name(self.interface.device),
            target_kind,
            target: target.to_owned(),
            address,
            protocol,
            port,
            outcome: decisive.end().into(),
            cause: last.and_then(|(index, step)| cause(host, decisive, index, step)),
            place: last.map(|(_, step)| Where {
                device: step.device.map(|device| host.link_name(device)),
                point: super::facts::cause_of_stop::point_of_step(host, step),
                function: None,
                reason: None,
            }),
            explanation,
            cut_off,
        })
    }
}

fn is_macvtap(host: &HostState, device: IfIndex) -> bool {
    host.link(device).is_some_and(|link| matches!(link.kind, LinkKind::Macvtap { .. }))
}

/// A guest that can't learn the MAC address of its gateway, which is this host, reaches nothing beyond its network. Where a finding
/// says already what is wrong there, it is not said twice.
pub fn cut_off(rows: &[Row], findings: &[Finding]) -> Vec<Finding> {
    let known = |row: &Row| {
        findings.iter().filter(|finding| finding.severity >= Severity::Warning).any(|finding| {
            let device = finding.place.as_ref().and_then(|place| place.device.as_ref());
            let here = row.place.as_ref().and_then(|place| place.device.as_ref());
            finding.guest.as_ref() == Some(&row.guest) || device.is_some() && device == here
        })
    };
    let cut_off = rows.iter().filter(|row| row.cut_off && !known(row));
    let finding = |row: &Row| {
        let word = if row.protocol == Protocol::Nd { "neighbour solicitation" } else { "ARP request" };
        let gateway = row.address.map(|address| address.to_string()).unwrap_or_default();
        Some(Finding {
            label: Label::default(),
            cause: row.cause?,
            severity: Severity::Warning,
            guest: Some(row.guest.clone()),
            place: row.place.clone(),
            count: None,
            explanation: format!(
                "{} can't learn the MAC address of its gateway {gateway}: its {word} {}.",
                row.guest, row.explanation
            ),
            evidence: vec![format!("{}: {word} for {gateway}", row.device)],
            fixes: vec![Fix::advice(format!(
                "`kvmtrace explain {} to gateway {}` shows the way of the request, and a command where one lets it through.",
                shell::quote(&row.guest),
                if row.protocol == Protocol::Nd { "nd" } else { "arp" }
            ))],
        })
    };
    cut_off.filter_map(finding).collect()
}

fn ip_kinds() -> Vec<Kind> {
    let mut kinds = vec![Kind::Icmp];
    kinds.extend(PORTS.map(Kind::Tcp));
    kinds
}

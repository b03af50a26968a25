//! The way of a flow or of a guest as a row of nodes: guest, tap, bridge, netfilter or routing, NIC, LAN.
//!
//! The report tells counts per device; what stands between the devices (the bridge that a frame crossed unseen, the LAN
//! behind the NIC) is added here from the guests' interfaces and from where the fault sits.

use crate::diagnose::report::{
    Cause, FlowDirection, FlowReport, GuestReport, Hop, InterfaceReport, Point, Report, Severity, Where,
};
use crate::event::Direction;
use std::collections::{BTreeMap, BTreeSet};

/// MTUs of the host's devices, by name.
pub type Mtus = BTreeMap<String, u32>;

/// What stands at a place of the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    /// The virtual machine.
    Guest,
    /// Its interface on the host.
    Tap,
    /// A bridge.
    Bridge,
    /// The firewall.
    Netfilter,
    /// The host's routing.
    Routing,
    /// Another device, most often a NIC.
    Nic,
    /// The host's own sockets.
    Host,
    /// Everything beyond.
    Lan,
    /// Where the packets were meant to go, on this host or beyond: they died before that was known.
    Destination,
}

impl Role {
    /// In a word.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Guest => "guest",
            Self::Tap => "tap",
            Self::Bridge => "bridge",
            Self::Netfilter => "netfilter",
            Self::Routing => "routing",
            Self::Nic => "NIC",
            Self::Host => "host",
            Self::Lan => "LAN",
            Self::Destination => "destination",
        }
    }
}

/// A place of the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Node {
    /// What it is.
    pub(super) role: Role,
    /// Its name, empty when it has none.
    pub(super) name: String,
    /// What else is known: the guest's address, the firewall's hook.
    pub(super) note: String,
    /// Its MTU, where those of the way differ.
    pub(super) mtu: Option<u32>,
    /// Packets seen here; null where nothing is counted.
    pub(super) packets: Option<u64>,
    /// Packets seen on their way back, for a guest's whole traffic.
    pub(super) back: Option<u64>,
    /// Time from the node before; for a guest's whole traffic the median over its flows.
    pub(super) latency_ns: Option<u64>,
    /// Packets that died here.
    pub(super) dropped: u64,
    /// The fault sits here, and how grave it is.
    pub(super) fault: Option<Severity>,
}

/// A way and what is wrong on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// What it shows.
    pub(super) title: String,
    /// From the sender on.
    pub(super) nodes: Vec<Node>,
    /// Why it is broken, if it is.
    pub(super) cause: Option<Cause>,
}

impl Way {
    /// Index of the node that nothing gets past, if there is one.
    pub(super) fn broken_at(&self) -> Option<usize> {
        let index = self.nodes.iter().position(|node| node.fault == Some(Severity::Error))?;
        let (faulty, beyond) = (&self.nodes[index], &self.nodes[index + 1..]);
        let passed = beyond.iter().filter_map(|node| node.packets).max();
        let passes = passed
            .map_or(faulty.packets.is_some_and(|packets| packets > 0 && packets != faulty.dropped), |packets| {
                packets > 0
            });
        (!passes).then_some(index)
    }
}

fn node(role: Role, name: &str) -> Node {
    Node {
        role,
        name: name.to_owned(),
        note: String::new(),
        mtu: None,
        packets: None,
        back: None,
        latency_ns: None,
        dropped: 0,
        fault: None,
    }
}

/// Tells the MTUs along a way, if they are not all the same.
fn tell_mtus(nodes: &mut [Node], mtus: &Mtus) {
    let mtu = |node: &Node| match node.role {
        Role::Tap | Role::Bridge | Role::Nic => mtus.get(&node.name).copied(),
        Role::Guest | Role::Netfilter | Role::Routing | Role::Host | Role::Lan | Role::Destination => None,
    };
    let mut known = nodes.iter().filter_map(mtu);
    let first = known.next();
    if known.any(|mtu| Some(mtu) != first) {
        for node in nodes {
            node.mtu = mtu(node);
        }
    }
}

fn interface<'a>(report: &'a Report, device: &str) -> Option<(&'a GuestReport, &'a InterfaceReport)> {
    report
        .guests
        .iter()
        .find_map(|guest| Some((guest, guest.interfaces.iter().find(|interface| interface.device == device)?)))
}

fn role(report: &Report, device: &str) -> Role {
    if interface(report, device).is_some() {
        return Role::Tap;
    }
    let mut bridges =
        report.guests.iter().flat_map(|guest| &guest.interfaces).filter_map(|interface| interface.bridge.as_deref());
    if bridges.any(|bridge| bridge == device) { Role::Bridge } else { Role::Nic }
}

/// The way of one flow.
pub(super) fn of_flow(report: &Report, mtus: &Mtus, flow: &FlowReport) -> Way {
    let mut nodes = Vec::new();
    for hop in &flow.path {
        push_hop(report, &mut nodes, hop);
    }
    let ours = flow.device.as_deref().and_then(|device| interface(report, device));
    if nodes.is_empty()
        && let Some(device) = &flow.device
    {
        nodes.push(node(role(report, device), device));
    }
    add_bridges(report, &mut nodes);
    let outward = flow.direction == FlowDirection::FromGuest
        || (flow.direction == FlowDirection::GuestToGuest && nodes.len() > 1);
    if let Some((_, interface)) = ours {
        add_device_of_fault(report, &mut nodes, flow.place.as_ref(), interface, outward);
    }
    add_host(&mut nodes, flow, outward);
    add_ends(report, &mut nodes, flow, ours.map(|(_, interface)| interface));
    mark_fault(&mut nodes, flow.place.as_ref(), flow.severity, flow.dropped, outward);
    tell_mtus(&mut nodes, mtus);
    let source = super::text::end_point(&flow.source, flow.source_port);
    let destination = super::text::end_point(&flow.destination, flow.destination_port);
    Way { title: format!("{} {source} → {destination}", super::text::protocol(flow)), nodes, cause: flow.cause }
}

/// Counts of both sides of a device are one node: what left it in the end counts.
fn push_hop(report: &Report, nodes: &mut Vec<Node>, hop: &Hop) {
    if let Some(last) = nodes.last_mut().filter(|last| last.name == hop.device) {
        last.packets = Some(hop.packets);
        last.latency_ns = last.latency_ns.or(hop.latency_ns);
        return;
    }
    let mut next = node(role(report, &hop.device), &hop.device);
    (next.packets, next.latency_ns) = (Some(hop.packets), hop.latency_ns);
    nodes.push(next);
}

/// Frames cross a bridge between two of its ports without being counted on it.
fn add_bridges(report: &Report, nodes: &mut Vec<Node>) {
    let mut index = 0;
    while index < nodes.len() {
        if nodes[index].role == Role::Tap
            && let Some((_, InterfaceReport { bridge: Some(bridge), .. })) = interface(report, &nodes[index].name)
        {
            let known = nodes.iter().any(|node| node.role == Role::Bridge && node.name == *bridge);
            if !known {
                let sends = index == 0;
                nodes.insert(if sends { index + 1 } else { index }, node(Role::Bridge, bridge));
                index += usize::from(!sends);
            }
        }
        index += 1;
    }
}

/// The device where the packets died may never have counted one.
fn add_device_of_fault(
    report: &Report,
    nodes: &mut Vec<Node>,
    place: Option<&Where>,
    interface: &InterfaceReport,
    outward: bool,
) {
    let device = place.and_then(|place| place.device.as_deref());
    let Some(device) = device.filter(|device| !nodes.iter().any(|node| node.name == *device)) else { return };
    let mut missing = node(role(report, device), device);
    missing.packets = Some(0);
    let sent_by_us = nodes.first().is_some_and(|node| node.name == interface.device);
    if outward || sent_by_us { nodes.push(missing) } else { nodes.insert(0, missing) }
}

/// Netfilter, routing and the host's own sockets, where the flow meets them.
fn add_host(nodes: &mut Vec<Node>, flow: &FlowReport, outward: bool) {
    let point = flow.place.as_ref().map(|place| place.point);
    let crossed = nodes.iter().any(|node| node.role == Role::Bridge && node.packets.is_some());
    let role = match point {
        Some(point) if is_netfilter(point) => Some(Role::Netfilter),
        Some(Point::Routing) => Some(Role::Routing),
        _ if crossed && nodes.iter().any(|node| node.role == Role::Nic) => Some(Role::Routing),
        _ => None,
    };
    if let Some(role) = role {
        let bridge = nodes.iter().position(|node| node.role == Role::Bridge);
        let at = match (bridge, outward) {
            (Some(bridge), true) => bridge + 1,
            (Some(bridge), false) => bridge,
            (None, true) => nodes.len(),
            (None, false) => 0,
        };
        nodes.insert(at.min(nodes.len()), node(role, point.map_or("", hook)));
    }
    if matches!(point, Some(Point::HostInput | Point::NetfilterInput | Point::Socket)) {
        nodes.push(node(Role::Host, ""));
    } else if matches!(point, Some(Point::HostOutput | Point::NetfilterOutput)) {
        nodes.insert(0, node(Role::Host, ""));
    }
}

fn is_netfilter(point: Point) -> bool {
    matches!(
        point,
        Point::NetfilterPrerouting
            | Point::NetfilterInput
            | Point::NetfilterForward
            | Point::NetfilterOutput
            | Point::NetfilterPostrouting
            | Point::NetfilterIngress
    )
}

/// What lies behind the firewall or the routing, for a packet that died there.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other points are behind the choice of the way")]
fn beyond(point: Point) -> Role {
    match point {
        Point::NetfilterForward | Point::NetfilterPostrouting | Point::Routing => Role::Lan,
        Point::NetfilterPrerouting | Point::NetfilterIngress => Role::Destination,
        _ => Role::Host,
    }
}

/// The hook of the firewall, in a word.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other points are no hooks")]
fn hook(point: Point) -> &'static str {
    match point {
        Point::NetfilterPrerouting => "prerouting",
        Point::NetfilterInput => "input",
        Point::NetfilterForward => "forward",
        Point::NetfilterOutput => "output",
        Point::NetfilterPostrouting => "postrouting",
        Point::NetfilterIngress => "ingress",
        _ => "",
    }
}

/// Who sends and who receives.
fn add_ends(report: &Report, nodes: &mut Vec<Node>, flow: &FlowReport, ours: Option<&InterfaceReport>) {
    let guest_at = |node: Option<&Node>| {
        node.filter(|node| node.role == Role::Tap)
            .and_then(|node| interface(report, &node.name))
            .map(|(guest, _)| guest.name.as_str())
    };
    let first = guest_at(nodes.first());
    let last = guest_at(nodes.last()).filter(|_| nodes.len() > 1);
    let (sender, receiver) = match flow.direction {
        FlowDirection::ToGuest if nodes.len() == 1 => (None, first),
        FlowDirection::FromGuest | FlowDirection::ToGuest | FlowDirection::GuestToGuest | FlowDirection::Host => {
            (first, last)
        }
    };
    // A way that ends on the bridge or before it, and whose packets were to leave, goes on to the uplink.
    let ends_inside = nodes
        .last()
        .is_some_and(|node| matches!(node.role, Role::Tap | Role::Bridge | Role::Netfilter | Role::Routing));
    let uplink = ours.and_then(|interface| interface.uplinks.first());
    if flow.direction == FlowDirection::FromGuest
        && receiver.is_none()
        && ends_inside
        && let Some(uplink) = uplink.filter(|_| flow.place.is_some())
    {
        let mut nic = node(Role::Nic, uplink);
        nic.packets = Some(0);
        nodes.push(nic);
    }
    let beyond = flow.place.as_ref().map_or(Role::Host, |place| beyond(place.point));
    let end = |node: Option<&Node>, guest: Option<&str>, address: &str, inside: Role| match (
        guest,
        node.map(|node| node.role),
    ) {
        (Some(guest), _) => Some(Node { note: address.to_owned(), ..self::node(Role::Guest, guest) }),
        (None, Some(Role::Nic)) => Some(self::node(Role::Lan, address)),
        (None, Some(Role::Routing | Role::Netfilter)) => Some(self::node(inside, address)),
        (None, Some(Role::Bridge)) => Some(self::node(Role::Host, address)),
        (None, _) => None,
    };
    let origin = if beyond == Role::Lan { Role::Lan } else { Role::Host };
    let before = end(nodes.first(), sender, &flow.source, origin);
    let after = end(nodes.last(), receiver, &flow.destination, beyond);
    if let Some(before) = before {
        nodes.insert(0, before);
    }
    nodes.extend(after);
}

/// Marks the node where the fault sits.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other points are devices")]
fn mark_fault(nodes: &mut [Node], place: Option<&Where>, severity: Severity, dropped: u64, outward: bool) {
    let Some(place) = place.filter(|_| severity > Severity::Ok) else { return };
    let by_role = |role: Role| nodes.iter().position(|node| node.role == role);
    let by_point = match place.point {
        point if is_netfilter(point) => by_role(Role::Netfilter),
        Point::Routing => by_role(Role::Routing),
        Point::BeyondHost => by_role(Role::Lan),
        Point::Guest => by_role(Role::Guest),
        Point::HostInput | Point::HostOutput | Point::Socket => by_role(Role::Host),
        _ => None,
    };
    let by_device = place
        .device
        .as_deref()
        .and_then(|device| nodes.iter().position(|node| node.name == device && node.role != Role::Guest));
    let fallback =
        if outward { nodes.iter().rposition(|node| node.packets.is_some_and(|packets| packets > 0)) } else { None };
    if let Some(index) = by_point.or(by_device).or(fallback) {
        nodes[index].fault = Some(severity);
        nodes[index].dropped = dropped;
    }
}

/// The ways of all guests' interfaces, with all their flows summed: what went out, and what came back. In the order of
/// `report.guests`; made in one pass, since there may be very many flows.
pub(super) fn of_guests(report: &Report, mtus: &Mtus) -> Vec<Vec<Way>> {
    let mut sums: BTreeMap<&str, Sum<'_>> = BTreeMap::new();
    for guest in &report.guests {
        for interface in &guest.interfaces {
            sums.insert(&interface.device, Sum::new(guest, interface));
        }
    }
    let interfaces = || report.guests.iter().flat_map(|guest| &guest.interfaces);
    let taps = interfaces().map(|interface| interface.device.as_str());
    let inner: BTreeSet<&str> = taps.chain(interfaces().filter_map(|interface| interface.bridge.as_deref())).collect();
    for flow in &report.flows {
        if let Some(sum) = flow.device.as_deref().and_then(|device| sums.get_mut(device)) {
            sum.route(flow, &inner);
            sum.add(flow);
        }
    }
    for finding in report.findings.iter().filter(|finding| finding.severity > Severity::Ok) {
        let device = finding.place.as_ref().and_then(|place| place.device.as_deref());
        if let Some(sum) = device.and_then(|device| sums.get_mut(device))
            && sum.worst.is_none_or(|worst| finding.severity > worst.severity)
        {
            let place = finding.place.as_ref();
            sum.worst = Some(Worst { severity: finding.severity, dropped: 0, cause: Some(finding.cause), place });
        }
    }
    let ways = |guest: &GuestReport| {
        let devices = guest.interfaces.iter().map(|interface| interface.device.as_str());
        devices.filter_map(|device| sums.remove(device)).map(|sum| sum.way(mtus)).collect()
    };
    report.guests.iter().map(ways).collect()
}

/// The worst that befalls an interface.
#[derive(Clone, Copy)]
struct Worst<'a> {
    severity: Severity,
    dropped: u64,
    cause: Option<Cause>,
    place: Option<&'a Where>,
}

/// What the flows of an interface add up to.
struct Sum<'a> {
    title: String,
    nodes: Vec<Node>,
    /// The latencies of the flows at each node.
    latencies: Vec<Vec<u64>>,
    tap: &'a str,
    worst: Option<Worst<'a>>,
    dropped: BTreeMap<Option<Cause>, u64>,
}

impl<'a> Sum<'a> {
    fn new(guest: &GuestReport, interface: &'a InterfaceReport) -> Self {
        let mut nodes = vec![node(Role::Guest, &guest.name), node(Role::Tap, &interface.device)];
        nodes[0].note = interface.addresses.first().cloned().unwrap_or_default();
        nodes.extend(interface.bridge.as_deref().map(|bridge| node(Role::Bridge, bridge)));
        nodes.extend(interface.uplinks.iter().map(|uplink| node(Role::Nic, uplink)));
        nodes.push(node(if interface.uplinks.is_empty() { Role::Host } else { Role::Lan }, ""));
        Self {
            title: format!("{} by {}", guest.name, interface.device),
            latencies: vec![Vec::new(); nodes.len()],
            nodes,
            tap: &interface.device,
            worst: None,
            dropped: BTreeMap::new(),
        }
    }

    /// Where the bridge has no uplink, the host routes: by which NIC, the flows tell.
    fn route(&mut self, flow: &FlowReport, inner: &BTreeSet<&str>) {
        let end = self.nodes.len() - 1;
        if self.nodes[end].role != Role::Host {
            return;
        }
        let Some(hop) = flow.path.iter().find(|hop| !inner.contains(hop.device.as_str())) else { return };
        self.nodes[end].role = Role::Lan;
        self.nodes.splice(end..end, [node(Role::Routing, ""), node(Role::Nic, &hop.device)]);
        self.latencies.resize(self.nodes.len(), Vec::new());
    }

    fn add(&mut self, flow: &'a FlowReport) {
        for hop in &flow.path {
            let found = self.nodes.iter().position(|node| node.name == hop.device && node.role != Role::Guest);
            let Some(index) = found else { continue };
            // Outward is: into the tap, out of anything else.
            let outward = (hop.device == self.tap) == (hop.direction == Direction::Ingress);
            let node = &mut self.nodes[index];
            let sum = if outward { &mut node.packets } else { &mut node.back };
            *sum = Some(sum.unwrap_or(0).saturating_add(hop.packets));
            self.latencies[index].extend(hop.latency_ns);
        }
        if flow.severity > Severity::Ok {
            *self.dropped.entry(flow.cause).or_default() += flow.dropped;
            let graver = |worst: Worst<'_>| (flow.severity, flow.dropped) > (worst.severity, worst.dropped);
            if self.worst.is_none_or(graver) {
                let (severity, dropped) = (flow.severity, flow.dropped);
                self.worst = Some(Worst { severity, dropped, cause: flow.cause, place: flow.place.as_ref() });
            }
        }
    }

    fn way(mut self, mtus: &Mtus) -> Way {
        // The median: a first packet that waited for its neighbour's address says nothing of the others.
        for (node, mut latencies) in self.nodes.iter_mut().zip(self.latencies) {
            let middle = latencies.len().saturating_sub(1) / 2;
            node.latency_ns = (!latencies.is_empty()).then(|| *latencies.select_nth_unstable(middle).1);
        }
        let mut cause = None;
        if let Some(worst) = self.worst {
            let point = worst.place.map(|place| place.point);
            let between = match point {
                Some(point) if is_netfilter(point) => Some(node(Role::Netfilter, hook(point))),
                Some(Point::Routing) => Some(node(Role::Routing, "")),
                _ => None,
            };
            if let Some(between) = between {
                // Behind the bridge, before the NIC; there stands the routing already, if the flows told of it.
                let outside = |node: &Node| matches!(node.role, Role::Routing | Role::Nic | Role::Lan | Role::Host);
                let at = self.nodes.iter().position(outside).unwrap_or(self.nodes.len());
                let routing = self.nodes.get(at).is_some_and(|node| node.role == Role::Routing);
                self.nodes.splice(at..at + usize::from(routing), [between]);
            }
            if let Some((end, point)) = self.nodes.last_mut().filter(|node| node.role == Role::Host).zip(point) {
                end.role = beyond(point);
            }
            cause = worst.cause;
            let dropped = self.dropped.get(&cause).copied().unwrap_or(0);
            mark_fault(&mut self.nodes, worst.place, worst.severity, dropped, false);
        }
        tell_mtus(&mut self.nodes, mtus);
        Way { title: self.title, nodes: self.nodes, cause }
    }
}

//! The ways of guests, with all their flows summed.

use super::{Devices, Node, Role, Way, add_lower, beyond, hook, is_netfilter, mark_fault, node, tell_devices};
use crate::diagnose::report::{
    Cause, FlowDirection, FlowReport, GuestReport, InterfaceReport, Point, Report, Severity, Where,
};
use crate::event::Direction;
use std::collections::{BTreeMap, BTreeSet};

/// The ways of all guests' interfaces, with all their flows summed: what went out, and what came back. In the order of
/// `report.guests`; made in one pass, since there may be very many flows.
pub(in crate::tui) fn of_guests(report: &Report, devices: &Devices) -> Vec<Vec<Way>> {
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
            let inward = place.is_some_and(|place| matches!(place.point, Point::TapEgress | Point::Guest));
            sum.worst =
                Some(Worst { severity: finding.severity, dropped: 0, cause: Some(finding.cause), place, inward });
        }
    }
    let ways = |guest: &GuestReport| {
        let taps = guest.interfaces.iter().map(|interface| interface.device.as_str());
        taps.filter_map(|tap| sums.remove(tap)).map(|sum| sum.way(devices)).collect()
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
    /// It befalls what comes to the guest.
    inward: bool,
}

/// What the flows of an interface add up to.
struct Sum<'a> {
    title: String,
    nodes: Vec<Node>,
    /// The latencies of the flows at each node.
    latencies: Vec<Vec<u64>>,
    macvtap: bool,
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
            macvtap: interface.kind == "macvtap",
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
            let node = &mut self.nodes[index];
            // Outward is: into the tap and into the bridge, out of anything else; what a guest sends by a macvtap leaves
            // the host by it.
            let inward = matches!(node.role, Role::Tap | Role::Bridge) && !self.macvtap;
            let outward = inward == (hop.direction == Direction::Ingress);
            let sum = if outward { &mut node.packets } else { &mut node.back };
            *sum = Some(sum.unwrap_or(0).saturating_add(hop.packets));
            self.latencies[index].extend(hop.latency_ns.map(|latency| latency.p50));
        }
        if flow.severity > Severity::Ok {
            *self.dropped.entry(flow.cause).or_default() += flow.dropped;
            let graver = |worst: Worst<'_>| (flow.severity, flow.dropped) > (worst.severity, worst.dropped);
            if self.worst.is_none_or(graver) {
                let (severity, dropped) = (flow.severity, flow.dropped);
                let inward = flow.direction == FlowDirection::ToGuest;
                self.worst = Some(Worst { severity, dropped, cause: flow.cause, place: flow.place.as_ref(), inward });
            }
        }
    }

    fn way(mut self, devices: &Devices) -> Way {
        // The median: a first packet that waited for its neighbour's address says nothing of the others.
        for (node, mut latencies) in self.nodes.iter_mut().zip(self.latencies) {
            let middle = latencies.len().saturating_sub(1) / 2;
            node.latency_ns = (!latencies.is_empty()).then(|| *latencies.select_nth_unstable(middle).1);
        }
        add_lower(&mut self.nodes, devices);
        let (mut cause, mut inward) = (None, false);
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
            (cause, inward) = (worst.cause, worst.inward);
            let dropped = self.dropped.get(&cause).copied().unwrap_or(0);
            mark_fault(&mut self.nodes, worst.place, worst.severity, dropped, false);
        }
        tell_devices(&mut self.nodes, devices);
        Way { title: self.title, nodes: self.nodes, cause, inward }
    }
}

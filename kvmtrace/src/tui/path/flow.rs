//! The way of one flow.

use super::super::text;
use super::{
    Devices, Node, Role, Way, add_lower, beyond, hook, interface, is_netfilter, mark_fault, node, role, tell_devices,
};
use crate::diagnose::report::{FlowDirection, FlowReport, Hop, InterfaceReport, Point, Report, Where};

/// The way of one flow.
pub(in crate::tui) fn of_flow(report: &Report, devices: &Devices, flow: &FlowReport) -> Way {
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
    add_lower(&mut nodes, devices);
    mark_fault(&mut nodes, flow.place.as_ref(), flow.severity, flow.dropped, outward);
    tell_devices(&mut nodes, devices);
    let source = text::end_point(&flow.source, flow.source_port);
    let destination = text::end_point(&flow.destination, flow.destination_port);
    Way {
        title: format!("{} {source} → {destination}", text::protocol(flow)), nodes, cause: flow.cause, inward: false
    }
}

/// Counts of both sides of a device are one node: what left it in the end counts.
fn push_hop(report: &Report, nodes: &mut Vec<Node>, hop: &Hop) {
    if let Some(last) = nodes.last_mut().filter(|last| last.name == hop.device) {
        last.packets = Some(hop.packets);
        last.latency_ns = last.latency_ns.or(hop.latency_ns.map(|latency| latency.p50));
        return;
    }
    let mut next = node(role(report, &hop.device), &hop.device);
    (next.packets, next.latency_ns) = (Some(hop.packets), hop.latency_ns.map(|latency| latency.p50));
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

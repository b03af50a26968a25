//! The way of a flow or of a guest as a row of nodes: guest, tap, bridge, netfilter or routing, NIC, LAN.
//!
//! The report tells counts per device; what stands between the devices (the bridge that a frame crossed unseen, the LAN
//! behind the NIC) is added here from the guests' interfaces and from where the fault sits.

use crate::diagnose::report::{Cause, GuestReport, InterfaceReport, Point, Report, Severity, Where};
use crate::event::HostState;
use crate::event::host::{Link, LinkKind};
use std::collections::BTreeMap;

mod flow;
mod guest;

pub(super) use flow::of_flow;
pub(super) use guest::of_guests;

/// What is told of the host's devices, by name.
pub type Devices = BTreeMap<String, Device>;

/// What is told of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// What it is, in a word.
    pub kind: String,
    /// Its MTU.
    pub mtu: u32,
    /// The device that it sends by, if another: a tunnel's or a VLAN's NIC.
    pub lower: Option<String>,
}

impl Device {
    /// As it is on this host.
    pub(super) fn of(link: &Link, host: &HostState) -> Self {
        let kind = match &link.kind {
            LinkKind::Loopback => "loopback",
            LinkKind::Tun => "tap",
            LinkKind::Bridge(_) => "bridge",
            LinkKind::Veth => "veth",
            LinkKind::Vxlan { .. } => "vxlan",
            LinkKind::Macvtap { .. } => "macvtap",
            LinkKind::Macvlan => "macvlan",
            LinkKind::Vlan { .. } => "vlan",
            LinkKind::Bond => "bond",
            LinkKind::Physical => "NIC",
            LinkKind::Other(kind) => kind,
        };
        let lower = link.lower.and_then(|lower| host.links.get(&lower)).map(|lower| lower.name.clone());
        Self { kind: kind.to_owned(), mtu: link.mtu, lower }
    }
}

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
    /// Which kind of device it is, where that is known.
    pub(super) kind: Option<String>,
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

impl Node {
    /// What it is, in a word.
    pub(super) fn word(&self) -> &str {
        self.kind.as_deref().unwrap_or_else(|| self.role.word())
    }
}

/// A way and what is wrong on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// What it shows.
    pub(super) title: String,
    /// From the sender on; a guest's own way from the guest on.
    pub(super) nodes: Vec<Node>,
    /// Why it is broken, if it is.
    pub(super) cause: Option<Cause>,
    /// What is broken is the way back, from the last node to the first.
    pub(super) inward: bool,
}

impl Way {
    /// Index of the node that nothing gets past, if there is one.
    pub(super) fn broken_at(&self) -> Option<usize> {
        let index = self.nodes.iter().position(|node| node.fault == Some(Severity::Error))?;
        let beyond = if self.inward { &self.nodes[..index] } else { &self.nodes[index + 1..] };
        let seen = |node: &Node| if self.inward { node.back } else { node.packets };
        let passed = beyond.iter().filter_map(seen).max();
        let dropped = self.nodes[index].dropped;
        let passes = passed
            .map_or(seen(&self.nodes[index]).is_some_and(|packets| packets > 0 && packets != dropped), |packets| {
                packets > 0
            });
        (!passes).then_some(index)
    }
}

fn node(role: Role, name: &str) -> Node {
    Node {
        role,
        kind: None,
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

/// Between a tunnel or a VLAN and the LAN stands the device that it sends by, on which the packets are not those of the
/// guest any more.
fn add_lower(nodes: &mut Vec<Node>, devices: &Devices) {
    let lower = |node: &Node| devices.get(&node.name)?.lower.clone().filter(|_| node.role == Role::Nic);
    let Some((index, lower)) = nodes.iter().enumerate().find_map(|(index, node)| Some((index, lower(node)?))) else {
        return;
    };
    let lan = |index: usize| nodes.get(index).is_some_and(|node| node.role == Role::Lan);
    let known = nodes.iter().any(|node| node.name == lower && node.role != Role::Guest);
    if !known && lan(index + 1) {
        nodes.insert(index + 1, node(Role::Nic, &lower));
    } else if !known && index > 0 && lan(index - 1) {
        nodes.insert(index, node(Role::Nic, &lower));
    }
}

/// Tells what the devices along a way are, and their MTUs if those are not all the same.
fn tell_devices(nodes: &mut [Node], devices: &Devices) {
    let device = |node: &Node| match node.role {
        Role::Tap | Role::Bridge | Role::Nic => devices.get(&node.name),
        Role::Guest | Role::Netfilter | Role::Routing | Role::Host | Role::Lan | Role::Destination => None,
    };
    let mut known = nodes.iter().filter_map(device).map(|device| device.mtu);
    let first = known.next();
    let differ = known.any(|mtu| Some(mtu) != first);
    for node in nodes {
        if let Some(device) = device(node) {
            node.kind = Some(device.kind.clone());
            node.mtu = differ.then_some(device.mtu);
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

fn is_netfilter(point: Point) -> bool {
    matches!(
        point,
        Point::NetfilterPrerouting
            | Point::NetfilterInput
            | Point::NetfilterForward
            | Point::NetfilterOutput
            | Point::NetfilterPostrouting
            | Point::NetfilterIngress
            | Point::NetfilterEgress
    )
}

/// What lies behind the firewall or the routing, for a packet that died there.
#[allow(clippy::wildcard_enum_match_arm, reason = "all other points are behind the choice of the way")]
fn beyond(point: Point) -> Role {
    match point {
        Point::NetfilterForward | Point::NetfilterPostrouting | Point::Routing => Role::Lan,
        Point::NetfilterPrerouting | Point::NetfilterIngress | Point::NetfilterEgress => Role::Destination,
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
        Point::NetfilterEgress => "egress",
        _ => "",
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diagnose::report::{FlowDirection, Hop};
    use crate::event::Direction;
    use crate::tui::fixture;

    #[test]
    fn a_device_is_called_by_its_kind_and_a_nic_only_what_has_none() {
        let mut link = fixture::link(2, "eth0", LinkKind::Physical);
        let vxlan = LinkKind::Vxlan { vni: 7, remote: None, local: None, port: 4_789, dont_fragment: 0 };
        for (kind, word) in [
            (LinkKind::Physical, "NIC"),
            (LinkKind::Tun, "tap"),
            (LinkKind::Macvtap { mode: crate::event::names::MacvtapMode::Bridge }, "macvtap"),
            (vxlan, "vxlan"),
            (LinkKind::Vlan { id: 12 }, "vlan"),
            (LinkKind::Bond, "bond"),
            (LinkKind::Veth, "veth"),
            (LinkKind::Other("wireguard".to_owned()), "wireguard"),
            (LinkKind::Other("gretap".to_owned()), "gretap"),
        ] {
            link.kind = kind;
            assert_eq!(Device::of(&link, &HostState::default()).kind, word);
        }
    }

    #[test]
    fn ways_tell_the_kinds_of_their_devices() {
        let report = fixture::mtu_report(60);
        let device = |kind: &str, lower: Option<&str>| Device {
            kind: kind.to_owned(),
            mtu: 1_450,
            lower: lower.map(str::to_owned),
        };
        let named = |name: &str, device| (name.to_owned(), device);
        let devices = Devices::from([
            named("eth0", device("vxlan", Some("eth1"))),
            named("eth1", device("bond", None)),
            named("vnet0", device("macvtap", None)),
        ]);
        let labels = |way: &Way| way.nodes.iter().map(Node::word).collect::<Vec<_>>().join(" ");
        assert_eq!(labels(&of_guests(&report, &devices)[0][0]), "guest macvtap bridge vxlan bond LAN");
        let broken = report.flows.iter().find(|flow| flow.dropped > 0).unwrap();
        assert_eq!(labels(&of_flow(&report, &devices, broken)), "guest macvtap bridge vxlan bond LAN");
        let answer = report.flows.iter().find(|flow| flow.direction == FlowDirection::ToGuest).unwrap();
        assert_eq!(labels(&of_flow(&report, &devices, answer)), "LAN bond vxlan bridge macvtap guest");
    }

    #[test]
    fn what_a_guest_sends_goes_into_its_tap_and_into_the_bridge_and_out_of_its_macvtap() {
        let counts = |kind: &str, hops: [(&str, Direction); 2]| {
            let mut report = fixture::mtu_report(60);
            report.guests[0].interfaces[0].kind = kind.to_owned();
            report.flows.retain(|flow| flow.dropped > 0);
            let path = hops.map(|(device, direction)| Hop {
                device: device.to_owned(),
                direction,
                packets: 7,
                bytes: 700,
                latency_ns: None,
                stage: crate::diagnose::report::Point::NicEgress,
                expected: false,
            });
            report.flows[0].path = path.to_vec();
            let ways = of_guests(&report, &Devices::new());
            let nodes = ways[0][0].nodes.iter().filter(|node| node.packets.is_some() || node.back.is_some());
            nodes.map(|node| (node.name.clone(), node.packets, node.back)).collect::<Vec<_>>()
        };
        let sent = |device: &str| (device.to_owned(), Some(7), None);
        assert_eq!(
            counts("tap", [("vnet0", Direction::Ingress), ("br0", Direction::Ingress)]),
            [sent("vnet0"), sent("br0")]
        );
        assert_eq!(
            counts("macvtap", [("vnet0", Direction::Egress), ("eth0", Direction::Egress)]),
            [sent("vnet0"), sent("eth0")]
        );
    }
}

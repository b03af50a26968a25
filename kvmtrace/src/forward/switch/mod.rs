//! Open vSwitch: rules, then for those that say so a learning switch with VLANs (`xlate_normal` in `ofproto/ofproto-dpif-xlate.c` of
//! Open vSwitch 3.1; `net/openvswitch/{datapath,actions,vport}.c` of 6.12).

mod pipeline;

use self::pipeline::{Answer, To};
use super::packet::{Carrier, Network, Packet, Transport};
use super::step::{Decision, Doubt, Outcome, Stage, Stop, SwitchRule};
use super::tunnel::Outer;
use super::walker::{Position, Task, Walker};
use crate::event::IfIndex;
use crate::event::MacAddress;
use crate::event::host::{GuestInterface, Link};
use crate::event::switch::{SwitchBridge, SwitchFlow, SwitchKind, SwitchPlace, SwitchPort, SwitchVlans};
use crate::topology::Topology;
use std::net::IpAddr;

const RECEIVE: &[&str] = &["ovs_vport_receive", "ovs_dp_process_packet"];
const EXECUTE: &[&str] = &["ovs_execute_actions", "do_execute_actions"];
const SEND: &[&str] = &["ovs_vport_send"];

/// The rule that a packet would meet instead of another one of the same table, as it comes in by a device; none where that
/// can't be known.
pub fn instead_of<'a>(
    topology: &Topology<'a>,
    rule: SwitchRule,
    packet: &Packet,
    device: IfIndex,
) -> Option<&'a SwitchFlow> {
    let place = topology.switch.place(device).filter(|place| place.bridge == rule.bridge)?;
    let (bridge, _, interface) = topology.host.switch.at(place)?;
    let flows = bridge.flows.as_ref()?;
    let table = flows.get(rule.rule?)?.table;
    flows.get(pipeline::below(&topology.switch, rule.bridge, table, rule.rule?, packet, interface.number?)?)
}

/// The VLAN in which the end of a packet is that it is for, as far as this host knows: by its MAC address, by the port of a guest or of
/// this host that has the address or its network, else the one VLAN in which anybody was heard behind an uplink. 0 for none.
pub fn vlan_of_target(
    topology: &Topology<'_>,
    from: SwitchPlace,
    target: Option<IpAddr>,
    mac: Option<MacAddress>,
    guest: Option<IfIndex>,
) -> Option<u16> {
    let (host, switch) = (topology.host, &topology.switch);
    let bridge = host.switch.bridges.get(from.bridge)?;
    let numbers: Vec<u16> =
        bridge.ports.get(from.port)?.interfaces.iter().filter_map(|interface| interface.number).collect();
    let heard = || bridge.learnt.iter().filter(|entry| !numbers.contains(&entry.port));
    let heard_of = |mac: MacAddress| heard().find(|entry| entry.mac == mac).map(|entry| entry.vlan);
    let neighbours =
        || host.neighbours.iter().filter(|entry| Some(entry.address) == target).filter_map(|entry| entry.mac);
    let of_port = |device: IfIndex| {
        let place = switch.place(device).filter(|place| place.bridge == from.bridge && place.port != from.port)?;
        host.switch.at(place)?.1.vlans.takes(0)
    };
    let own = || {
        let target = target?;
        let has =
            |link: &&Link| link.addresses.iter().any(|network| network.address == target || network.contains(target));
        host.links.values().filter(has).find_map(|link| of_port(link.index))
    };
    let only = |mut vlans: Vec<u16>| {
        vlans.sort_unstable();
        vlans.dedup();
        if let [vlan] = vlans.as_slice() { Some(*vlan) } else { None }
    };
    let behind_uplinks = || {
        let is_uplink = |number: u16| {
            let device = switch.numbered(from.bridge, number).and_then(|place| switch.switched.device(place));
            device.is_none_or(|device| topology.interface(device).is_none())
        };
        only(heard().filter(|entry| is_uplink(entry.port)).map(|entry| entry.vlan).collect())
    };
    let of_guests = || {
        only(host.guests.iter().flat_map(|guest| &guest.interfaces).filter_map(|other| of_port(other.device)).collect())
    };
    mac.filter(|mac| !mac.is_multicast())
        .and_then(heard_of)
        .or_else(|| neighbours().find_map(heard_of))
        .or_else(|| guest.or_else(|| topology.guest_by_address(target?)).and_then(of_port))
        .or_else(own)
        .or_else(behind_uplinks)
        .or_else(of_guests)
}

/// Anybody was heard in a VLAN of the bridge behind another port.
pub fn has_fellows(topology: &Topology<'_>, place: SwitchPlace, vlan: u16) -> bool {
    let Some(bridge) = topology.host.switch.bridges.get(place.bridge) else { return false };
    let port = |number| topology.switch.numbered(place.bridge, number).map(|place| place.port);
    bridge.learnt.iter().any(|entry| entry.vlan == vlan && port(entry.port) != Some(place.port))
}

impl Walker<'_, '_> {
    /// A frame comes to a bridge by one of its interfaces.
    pub(super) fn switch_receive(&mut self, mut task: Task, place: SwitchPlace) {
        let switching = &self.topology.switch;
        let device = switching.switched.device(place);
        let Some((bridge, port, interface)) = self.topology.host.switch.at(place) else { return };
        let decision = Decision::Setting(format!("port {} of {}", port.name, bridge.name));
        self.pass(&mut task, Stage::Switch, device, RECEIVE, vec![decision], None);
        let (Some(flows), Some(number)) = (&bridge.flows, interface.number) else {
            let what = if interface.number.is_none() { "its ports" } else { "its OpenFlow rules" };
            self.switch_doubt(&task, place, &format!("{what} are not known"), Vec::new());
            return;
        };
        let Answer { met, sent, doubt, missed } = pipeline::ask(switching, place.bridge, &task.packet, number);
        let decisions: Vec<Decision> = met
            .iter()
            .filter_map(|index| flows.get(*index))
            .map(|flow| Decision::OpenFlow(Box::new(flow.clone())))
            .collect();
        if let Some(doubt) = doubt {
            self.switch_doubt(&task, place, &doubt, decisions);
            return;
        }
        if sent.is_empty() {
            let rule = met.last().copied().filter(|_| missed.is_none());
            let stop = Stop::SwitchDrop(SwitchRule { bridge: place.bridge, rule });
            self.step(&task, Stage::Switch, device, EXECUTE, decisions, Outcome::Stops(stop));
            return;
        }
        let outcome = if sent.len() > 1 { Outcome::Branches } else { Outcome::Passes };
        let parent = self.step(&task, Stage::Switch, device, EXECUTE, decisions, outcome);
        for copy in sent {
            let from = self.topology.switch.numbered(place.bridge, copy.from).unwrap_or(place);
            let mut task = Task { parent: Some(parent), depth: task.depth + 1, ..task.clone() };
            if copy.packet != task.packet {
                self.pass(&mut task, Stage::Switch, device, EXECUTE, Vec::new(), Some(copy.packet));
            }
            match copy.to {
                To::Port(number) => match self.topology.switch.numbered(place.bridge, number) {
                    Some(to) => self.switch_send(task, to, false),
                    None => self.switch_doubt(&task, place, &format!("it has no port {number}"), Vec::new()),
                },
                To::Normal => self.switch_normal(task, from, bridge, port),
                To::Flood => self.switch_flood(&task, from, bridge, None),
            }
        }
    }

    fn switch_doubt(&mut self, task: &Task, place: SwitchPlace, why: &str, decisions: Vec<Decision>) {
        let name = self.topology.host.switch.bridges.get(place.bridge).map_or("", |bridge| bridge.name.as_str());
        let device = self.topology.switch.switched.device(place);
        let doubt = Doubt::Daemon(format!("Open vSwitch ({name}: {why})"));
        self.step(task, Stage::Switch, device, EXECUTE, decisions, Outcome::Unknown(doubt));
    }

    /// `xlate_normal`: a learning switch whose ports have VLANs.
    fn switch_normal(&mut self, mut task: Task, place: SwitchPlace, bridge: &SwitchBridge, port: &SwitchPort) {
        let device = self.topology.switch.switched.device(place);
        let tag = task.packet.tags.first().copied().unwrap_or(0);
        let Some(vlan) = port.vlans.takes(tag) else {
            self.step(&task, Stage::Switch, device, EXECUTE, Vec::new(), Outcome::Stops(Stop::SwitchVlan(place, tag)));
            return;
        };
        let destination = task.packet.destination_mac;
        if destination.and_then(MacAddress::reserved_group).is_some() && !bridge.forwards_reserved {
            self.step(&task, Stage::Switch, device, EXECUTE, Vec::new(), Outcome::Stops(Stop::LinkLocalGroup));
            return;
        }
        let entered = task.packet.tags.clone();
        // Inside the switch the VLAN stands beside the frame.
        if !task.packet.tags.is_empty() && !matches!(port.vlans, SwitchVlans::Wrapped(_)) {
            task.packet.tags.remove(0);
        }
        let unicast = destination.filter(|mac| !mac.is_multicast());
        let learnt = unicast.and_then(|mac| self.topology.switch.learnt(place.bridge, vlan, mac));
        match learnt {
            Some(to) if to.port == place.port => {
                self.step(&task, Stage::Switch, device, EXECUTE, Vec::new(), Outcome::Stops(Stop::Hairpin));
            }
            Some(to) => {
                let mac =
                    unicast.map(|mac| Decision::Setting(format!("{mac} in VLAN {vlan} behind {}", self.port_name(to))));
                let parent = self.step(&task, Stage::Switch, device, EXECUTE, Vec::from_iter(mac), Outcome::Passes);
                let mut task = Task { parent: Some(parent), depth: task.depth + 1, ..task };
                self.tag(&mut task, to, vlan, &entered);
                self.switch_send(task, to, false);
            }
            None => self.switch_flood(&task, place, bridge, Some((vlan, &entered))),
        }
    }

    /// All other ports; with a VLAN, those that carry it.
    fn switch_flood(&mut self, task: &Task, place: SwitchPlace, bridge: &SwitchBridge, vlan: Option<(u16, &[u16])>) {
        let device = self.topology.switch.switched.device(place);
        let others: Vec<(SwitchPlace, &SwitchPort)> = bridge
            .ports
            .iter()
            .enumerate()
            .filter(|(index, port)| *index != place.port && !port.interfaces.is_empty())
            .map(|(index, port)| (SwitchPlace { port: index, interface: 0, ..place }, port))
            .collect();
        let carries = |port: &SwitchPort| vlan.is_none_or(|(vlan, _)| port.vlans.carries(vlan));
        if !others.iter().any(|(_, port)| carries(port)) {
            let stop = Stop::SwitchVlan(place, vlan.map_or(0, |(vlan, _)| vlan));
            self.step(task, Stage::Switch, device, EXECUTE, Vec::new(), Outcome::Stops(stop));
            return;
        }
        let parent = self.step(task, Stage::Switch, device, EXECUTE, vec![Decision::Flood], Outcome::Branches);
        for (to, port) in others {
            let mut copy = Task { parent: Some(parent), depth: task.depth + 1, ..task.clone() };
            match vlan {
                Some((vlan, _)) if !port.vlans.carries(vlan) => {
                    // Of those that get none, only the one that it is for tells anything.
                    let owner =
                        self.topology.switch.switched.device(to).filter(|device| self.is_for(&copy.packet, *device));
                    if let Some(owner) = owner {
                        let stop = Outcome::Stops(Stop::SwitchVlan(to, vlan));
                        self.step(&copy, Stage::Switch, Some(owner), EXECUTE, Vec::new(), stop);
                    }
                }
                Some((vlan, entered)) => {
                    self.tag(&mut copy, to, vlan, entered);
                    self.switch_send(copy, to, true);
                }
                None => self.switch_send(copy, to, true),
            }
        }
    }

    /// The frame is for the guest, or for this host's own address, behind a device; or it asks for the MAC address of one.
    fn is_for(&self, packet: &Packet, device: IfIndex) -> bool {
        let asked = match &packet.network {
            Network::Arp(arp) => Some(arp.target),
            Network::Ip(ip) => match ip.transport {
                Transport::Icmpv6 { target, .. } => target,
                Transport::Tcp { .. }
                | Transport::Udp { .. }
                | Transport::Sctp { .. }
                | Transport::Icmp { .. }
                | Transport::Other(_) => None,
            },
            Network::Other(_) => None,
        };
        let own = |interface: &GuestInterface| {
            interface.mac.is_some() && interface.mac == packet.destination_mac
                || asked.is_some_and(|asked| interface.addresses.contains(&asked))
        };
        let host = |link: &Link| {
            link.mac.is_some() && link.mac == packet.destination_mac
                || link.addresses.iter().any(|network| asked == Some(network.address))
        };
        self.topology.interface(device).is_some_and(|(_, interface)| own(interface))
            || self.topology.link(device).is_some_and(host)
    }

    /// Puts the tag on that frames of a VLAN have at a port. A step, where the frame `entered` with other tags.
    fn tag(&mut self, task: &mut Task, to: SwitchPlace, vlan: u16, entered: &[u16]) {
        let tag = self.topology.host.switch.at(to).map_or(0, |(_, port, _)| port.vlans.tag_of(vlan));
        if tag != 0 {
            task.packet.tags.insert(0, tag);
        }
        if task.packet.tags != entered {
            let device = self.topology.switch.switched.device(to);
            let decision = Decision::Setting(format!("VLAN {vlan} of port {}", self.port_name(to)));
            let packet = task.packet.clone();
            self.pass(task, Stage::Switch, device, SEND, vec![decision], Some(packet));
        }
    }

    fn port_name(&self, place: SwitchPlace) -> &str {
        self.topology.host.switch.at(place).map_or("", |(_, port, _)| port.name.as_str())
    }

    /// A frame leaves a bridge by an interface.
    fn switch_send(&mut self, task: Task, place: SwitchPlace, flooded: bool) {
        let after = task.parent.unwrap_or_default();
        let Some((_, _, interface)) = self.topology.host.switch.at(place) else { return };
        let link = self.topology.switch.switched.device(place).and_then(|device| self.topology.link(device));
        match (&interface.kind, link) {
            (SwitchKind::Patch(peer), _) => {
                let peer = peer.as_ref().and_then(|peer| self.topology.switch.switched.named(peer));
                match peer {
                    Some(peer) => self.go(task, after, Position::Switch(peer)),
                    None => {
                        self.switch_doubt(&task, place, &format!("{} has no other end", interface.name), Vec::new());
                    }
                }
            }
            (SwitchKind::Internal, Some(link)) if !link.up => {
                self.step(
                    &task,
                    Stage::Switch,
                    Some(link.index),
                    SEND,
                    Vec::new(),
                    Outcome::Stops(Stop::SwitchPortDown),
                );
            }
            (SwitchKind::Internal | SwitchKind::System, Some(link)) => {
                // `ovs_vport_send`
                if !task.packet.gso && task.packet.length > link.mtu {
                    let decisions = vec![Decision::Setting(format!("mtu {}", link.mtu))];
                    let stop = Outcome::Stops(Stop::BridgeMtu(link.mtu));
                    self.step(&task, Stage::Switch, Some(link.index), SEND, decisions, stop);
                    return;
                }
                let position = if interface.kind == SwitchKind::Internal {
                    Position::Receive(link.index)
                } else if flooded {
                    Position::TransmitFlooded(link.index)
                } else {
                    Position::Transmit(link.index)
                };
                self.go(task, after, position);
            }
            (SwitchKind::Tunnel(kind, Some(remote), key), _) => {
                let (by, transport, overhead) = match (kind.as_str(), key) {
                    ("geneve", key) => (Carrier::Geneve(key.unwrap_or(0)), udp(6081), 14 + 8 + 8),
                    ("vxlan", key) => (Carrier::Vxlan(key.unwrap_or(0)), udp(4789), 14 + 8 + 8),
                    (_, key) => (Carrier::Gre(*key), Transport::Other(47), 14 + 4 + if key.is_some() { 4 } else { 0 }),
                };
                let outer = Outer { by, local: None, remote: *remote, transport, overhead, dont_fragment: true };
                let decisions = vec![Decision::Setting(format!("{} remote {remote}", interface.name))];
                self.wrap(task, Stage::Tunnel, None, SEND, decisions, outer);
            }
            (SwitchKind::Tunnel(..), _) => {
                self.switch_doubt(&task, place, &format!("{} has its remote from a rule", interface.name), Vec::new());
            }
            (SwitchKind::System | SwitchKind::Internal | SwitchKind::Other(_), _) => {
                let why = match &interface.error {
                    Some(error) => format!("{}: {error}", interface.name),
                    None => format!("{} is no device of this namespace", interface.name),
                };
                self.switch_doubt(&task, place, &why, Vec::new());
            }
        }
    }

    /// The interface of Open vSwitch that takes what came out of a tunnel.
    pub(super) fn switch_tunnel(&self, by: Carrier, remote: IpAddr) -> Option<SwitchPlace> {
        let fits = |kind: &SwitchKind| {
            let SwitchKind::Tunnel(kind, end, own) = kind else { return false };
            let key = match (by, kind.as_str()) {
                (Carrier::Vxlan(key), "vxlan") | (Carrier::Geneve(key), "geneve") => Some(key),
                (Carrier::Gre(key), "gre" | "ip6gre") => key,
                (_, _) => return false,
            };
            end.is_none_or(|end| end == remote) && own.is_none_or(|own| Some(own) == key)
        };
        self.topology.host.switch.interfaces().find(|(_, interface)| fits(&interface.kind)).map(|(place, _)| place)
    }
}

fn udp(port: u16) -> Transport {
    Transport::Udp { source: None, destination: Some(port) }
}

//! The bridge (`net/bridge/br_{input,forward,device,vlan}.c` of 6.12).

use super::device::{exceeds, is_broadcast};
use super::packet::{Network, Packet};
use super::step::{Arrival, Decision, Doubt, Outcome, Stage, Stop};
use super::walker::{BridgeEgress, BridgeFrame, Position, Task, Walker};
use crate::event::bridge::{BridgePort, BridgeState, PortState, PortVlan};
use crate::event::host::{Link, LinkKind};
use crate::event::ruleset::Hook;
use crate::event::{IfIndex, MacAddress};

const INGRESS: &[&str] = &["br_handle_frame", "br_handle_frame_finish"];
const FORWARD: &[&str] = &["br_handle_frame_finish", "br_forward", "br_flood"];
const EGRESS: &[&str] = &["__br_forward", "br_forward_finish", "br_dev_queue_push_xmit"];

/// The bridge and its settings.
pub(super) struct Bridge<'l> {
    pub(super) link: &'l Link,
    pub(super) state: &'l BridgeState,
}

impl<'a> Walker<'a, '_> {
    pub(super) fn bridge(&self, index: IfIndex) -> Option<Bridge<'a>> {
        let link = self.topology.link(index)?;
        if let LinkKind::Bridge(state) = &link.kind { Some(Bridge { link, state }) } else { None }
    }

    /// `br_handle_frame` up to the choice of ports.
    pub(super) fn bridge_ingress(&mut self, mut task: Task, port: IfIndex) {
        let Some(link) = self.known(&task, Stage::BridgeIngress, port) else { return };
        let Some(bridge) = link.master.and_then(|master| self.bridge(master)) else { return };
        let Some(settings) = &link.port else {
            let doubt = Doubt::Missing(format!("the port settings of {}", link.name));
            self.step(&task, Stage::BridgeIngress, Some(port), INGRESS, Vec::new(), Outcome::Unknown(doubt));
            return;
        };
        let end = |walker: &mut Self, task: &Task, decision: Option<String>, stop| {
            let decisions = decision.into_iter().map(Decision::Setting).collect();
            walker.stop(task, Stage::BridgeIngress, port, INGRESS, decisions, stop);
        };
        if task.packet.source_mac.is_some_and(|mac| mac.is_multicast() || mac.is_zero()) {
            end(self, &task, None, Stop::InvalidSourceMac);
            return;
        }
        if let Some(group) = task.packet.destination_mac.and_then(MacAddress::reserved_group) {
            // Group 0 is forwarded where STP is off; the others by the mask alone.
            let mask = bridge.state.group_forward_mask | settings.group_forward_mask;
            let forwarded = group == 0 && !bridge.state.stp || mask & (1 << group) != 0;
            if !forwarded || group == 1 {
                let decision = format!("group_fwd_mask {mask:#x}");
                if group != 1 && !matches!(task.packet.network, Network::Other(_)) {
                    self.reserved(task, link, &bridge, group, decision);
                } else {
                    end(self, &task, Some(decision), Stop::LinkLocalGroup);
                }
                return;
            }
        }
        if !bridge.link.up {
            end(self, &task, None, Stop::BridgeDown);
            return;
        }
        match settings.state {
            PortState::Forwarding | PortState::Learning => {}
            PortState::Inoperative => {
                end(self, &task, Some("state disabled".to_owned()), Stop::PortInoperative);
                return;
            }
            state @ (PortState::Disabled | PortState::Listening | PortState::Blocking) => {
                end(self, &task, Some(format!("state {state:?}").to_lowercase()), Stop::PortBlocked);
                return;
            }
        }
        let mut frame = BridgeFrame { bridge: bridge.link.index, from: Some(port), vlan: 0, filtered: false };
        if !self.bridge_rules(&mut task, Hook::Prerouting, &mut frame, None) {
            return;
        }
        let vlan = match ingress_vlan(bridge.state, &settings.vlans, &task.packet) {
            Ok(vlan) => vlan,
            Err(tag) => {
                let decision = tag.map_or_else(|| "no pvid".to_owned(), |tag| format!("no vid {tag}"));
                end(self, &task, Some(decision), Stop::VlanFiltered(tag));
                return;
            }
        };
        frame.vlan = vlan;
        if settings.locked {
            let source = task.packet.source_mac.and_then(|mac| self.fdb(bridge.link.index, mac, vlan));
            if source.is_none_or(|entry| entry.device != port || entry.permanent) {
                end(self, &task, Some("locked on".to_owned()), Stop::Locked);
                return;
            }
        }
        if settings.learning {
            self.learn(bridge.link.index, port, vlan, &task.packet);
        }
        if settings.state == PortState::Learning {
            end(self, &task, Some("state learning".to_owned()), Stop::PortBlocked);
            return;
        }
        let packet = in_vlan(bridge.state, &task.packet, vlan);
        self.pass(&mut task, Stage::BridgeIngress, Some(port), INGRESS, vlan_decision(bridge.state, vlan), packet);
        self.forward_frame(task, &bridge, &frame);
    }

    /// A reserved group that carries IP or ARP after all: the port's own stack takes it (`RX_HANDLER_PASS`), after the bridge's input
    /// rules, which groups 0 and 14 don't meet.
    fn reserved(&mut self, mut task: Task, link: &'a Link, bridge: &Bridge<'_>, group: u8, decision: String) {
        let decisions = vec![Decision::Setting(decision)];
        self.pass(&mut task, Stage::BridgeIngress, Some(link.index), INGRESS, decisions, None);
        let mut frame = BridgeFrame { bridge: bridge.link.index, from: Some(link.index), vlan: 0, filtered: false };
        if matches!(group, 0 | 14) || self.bridge_rules(&mut task, Hook::Input, &mut frame, None) {
            self.protocols(task, link, false);
        }
    }

    /// `br_handle_frame_finish`: whom the frame is for.
    fn forward_frame(&mut self, mut task: Task, bridge: &Bridge<'a>, frame: &BridgeFrame) {
        let Some(destination) = task.packet.destination_mac else {
            let doubt = Doubt::Packet("its destination MAC address".to_owned());
            self.step(&task, Stage::BridgeForward, Some(frame.bridge), FORWARD, Vec::new(), Outcome::Unknown(doubt));
            return;
        };
        if destination.is_multicast() {
            self.flood(task, bridge, frame, destination);
            return;
        }
        let entry = self.fdb(frame.bridge, destination, frame.vlan);
        let own = bridge.link.mac == Some(destination);
        match entry {
            // br_dev_xmit asks only for the port, which the bridge's own address has not (`br_forward`).
            Some(entry) if frame.from.is_none() && entry.device == frame.bridge => {
                let decisions = vec![Decision::Fdb(Box::new(entry))];
                self.stop(&task, Stage::BridgeForward, frame.bridge, FORWARD, decisions, Stop::NoPort);
            }
            Some(entry) if frame.from.is_some() && (entry.permanent || entry.device == frame.bridge) => {
                let decision = Decision::Fdb(Box::new(entry));
                self.pass(&mut task, Stage::BridgeForward, Some(frame.bridge), FORWARD, vec![decision], None);
                let after = task.parent.unwrap_or_default();
                self.go(task, after, Position::BridgeLocal(frame.clone()));
            }
            Some(entry) => {
                let port = entry.device;
                self.deliver_by(task, bridge, frame, port, vec![Decision::Fdb(Box::new(entry))]);
            }
            // The bridge's own address stands in the FDB; without it the database was not read.
            None if own && !bridge.state.vlan_filtering => {
                self.pass(&mut task, Stage::BridgeForward, Some(frame.bridge), FORWARD, vec![Decision::OwnMac], None);
                let after = task.parent.unwrap_or_default();
                self.go(task, after, Position::BridgeLocal(frame.clone()));
            }
            None => self.flood(task, bridge, frame, destination),
        }
    }

    /// The frame is for a port alone (`br_forward`).
    fn deliver_by(
        &mut self,
        mut task: Task,
        bridge: &Bridge<'a>,
        frame: &BridgeFrame,
        port: IfIndex,
        decisions: Vec<Decision>,
    ) {
        let Some(port) = self.known(&task, Stage::BridgeForward, port) else { return };
        if let Err((decision, stop)) = self.may_deliver(bridge, frame, port) {
            let decisions = decisions.into_iter().chain(decision.map(Decision::Setting)).collect();
            self.stop(&task, Stage::BridgeForward, port.index, FORWARD, decisions, stop);
            return;
        }
        self.pass(&mut task, Stage::BridgeForward, Some(frame.bridge), FORWARD, decisions, None);
        let after = task.parent.unwrap_or_default();
        let egress = BridgeEgress { frame: frame.clone(), port: port.index, flooded: false };
        self.go(task, after, Position::BridgeEgress(egress));
    }

    /// `br_flood`, `br_multicast_flood`: copies by every port that takes them, and one for the bridge itself where it is a group's.
    fn flood(&mut self, mut task: Task, bridge: &Bridge<'a>, frame: &BridgeFrame, destination: MacAddress) {
        let group = destination.is_multicast();
        let local = group && frame.from.is_some();
        if group && !is_broadcast(destination) && is_pruned(bridge, &task.packet) {
            let doubt = Doubt::Missing(format!("the group members of {}", bridge.link.name));
            self.doubt(&mut task, Stage::BridgeForward, Some(frame.bridge), FORWARD, doubt);
        }
        let mut ways = Vec::new();
        let mut refusal: Option<(IfIndex, Option<String>, Stop)> = None;
        for port in self.topology.ports(frame.bridge) {
            let Some(settings) = &port.port else { continue };
            let takes = match (group, is_broadcast(destination)) {
                (_, true) => settings.broadcast_flood || frame.from.is_none(),
                (true, false) => settings.multicast_flood || frame.from.is_none(),
                (false, false) => settings.flood,
            };
            if !takes {
                if refusal.is_none() && frame.from != Some(port.index) {
                    refusal = Some((port.index, Some("flood off".to_owned()), Stop::FloodDisabled));
                }
                continue;
            }
            match self.may_deliver(bridge, frame, port) {
                Ok(()) => ways.push(port.index),
                // A port that may not have the frame is of interest only where no other port is left.
                Err((decision, stop)) => {
                    if frame.from != Some(port.index)
                        && refusal.as_ref().is_none_or(|(_, _, stop)| *stop == Stop::NoPort)
                    {
                        refusal = Some((port.index, decision, stop));
                    }
                }
            }
        }
        if ways.is_empty() && !local {
            let (device, decision, stop) = refusal.unwrap_or((frame.bridge, None, Stop::NoPort));
            let decisions = [Decision::Flood].into_iter().chain(decision.map(Decision::Setting)).collect();
            self.stop(&task, Stage::BridgeForward, device, FORWARD, decisions, stop);
            return;
        }
        let step = self.step(
            &task,
            Stage::BridgeForward,
            Some(frame.bridge),
            FORWARD,
            vec![Decision::Flood],
            Outcome::Branches,
        );
        for port in ways {
            let egress = BridgeEgress { frame: frame.clone(), port, flooded: true };
            self.go(task.clone(), step, Position::BridgeEgress(egress));
        }
        if local {
            self.go(task, step, Position::BridgeLocal(frame.clone()));
        }
    }

    /// `should_deliver`: why a port may not have a frame.
    fn may_deliver(&self, bridge: &Bridge<'_>, frame: &BridgeFrame, port: &Link) -> Result<(), (Option<String>, Stop)> {
        let Some(settings) = &port.port else { return Err((None, Stop::NoPort)) };
        if frame.from == Some(port.index) && !settings.hairpin {
            return Err((Some("hairpin off".to_owned()), Stop::Hairpin));
        }
        if !port.up {
            return Err((None, Stop::LinkDown));
        }
        if !port.carrier {
            let gone = port.kind == LinkKind::Tun;
            return Err((None, if gone { Stop::GuestGone } else { Stop::NoCarrier }));
        }
        match settings.state {
            PortState::Forwarding => {}
            PortState::Inoperative => return Err((Some("state disabled".to_owned()), Stop::PortInoperative)),
            state @ (PortState::Disabled | PortState::Listening | PortState::Learning | PortState::Blocking) => {
                return Err((Some(format!("state {state:?}").to_lowercase()), Stop::PortBlocked));
            }
        }
        if bridge.state.vlan_filtering && !covers(&settings.vlans, frame.vlan) {
            return Err((Some(format!("no vid {}", frame.vlan)), Stop::VlanFiltered(Some(frame.vlan))));
        }
        let isolated = |port: IfIndex| {
            self.topology.link(port).and_then(|link| link.port.as_ref()).is_some_and(|port: &BridgePort| port.isolated)
        };
        if settings.isolated && frame.from.is_some_and(isolated) {
            return Err((Some("isolated on".to_owned()), Stop::Isolated));
        }
        Ok(())
    }

    /// `__br_forward` to `br_dev_queue_push_xmit`.
    pub(super) fn bridge_egress(&mut self, mut task: Task, egress: &BridgeEgress) {
        let Some(port) = self.known(&task, Stage::BridgeEgress, egress.port) else { return };
        let Some(bridge) = self.bridge(egress.frame.bridge) else { return };
        let mut frame = egress.frame.clone();
        let hook = if frame.from.is_some() { Hook::Forward } else { Hook::Output };
        if !self.bridge_rules(&mut task, hook, &mut frame, Some(port.index))
            || !self.bridge_rules(&mut task, Hook::Postrouting, &mut frame, Some(port.index))
        {
            return;
        }
        let mut packet = task.packet.clone();
        if bridge.state.vlan_filtering
            && port.port.as_ref().is_some_and(|port| untagged(&port.vlans, frame.vlan))
            && !packet.tags.is_empty()
        {
            packet.tags.remove(0);
        }
        if let Some(stop) = too_long(&packet, bridge.link.mtu, port, &frame) {
            let decision = Decision::Setting(format!("mtu {}", port.mtu));
            self.stop(&task, Stage::BridgeEgress, port.index, EGRESS, vec![decision], stop);
            return;
        }
        let changed = (packet != task.packet).then_some(packet);
        self.pass(
            &mut task,
            Stage::BridgeEgress,
            Some(port.index),
            EGRESS,
            vlan_decision(bridge.state, frame.vlan),
            changed,
        );
        let after = task.parent.unwrap_or_default();
        let position =
            if egress.flooded { Position::TransmitFlooded(port.index) } else { Position::Transmit(port.index) };
        self.go(task, after, position);
    }

    /// `br_pass_frame_up`.
    pub(super) fn bridge_local(&mut self, mut task: Task, frame: &BridgeFrame) {
        let Some(bridge) = self.bridge(frame.bridge) else { return };
        let mut packet = task.packet.clone();
        if bridge.state.vlan_filtering {
            if !covers(&bridge.state.vlans, frame.vlan) {
                let decision = Decision::Setting(format!("no vid {} on {} itself", frame.vlan, bridge.link.name));
                let stop = Stop::VlanFiltered(Some(frame.vlan));
                // A copy of a flooded frame: the ports have it.
                let outcome = if task.packet.destination_mac.is_some_and(MacAddress::is_multicast) {
                    Outcome::Arrives(Arrival::Ignored)
                } else {
                    Outcome::Stops(stop)
                };
                self.step(
                    &task,
                    Stage::BridgeLocal,
                    Some(frame.bridge),
                    &["br_pass_frame_up"],
                    vec![decision],
                    outcome,
                );
                return;
            }
            if untagged(&bridge.state.vlans, frame.vlan) && !packet.tags.is_empty() {
                packet.tags.remove(0);
            }
        }
        let changed = (packet != task.packet).then_some(packet);
        let mut frame = frame.clone();
        self.pass(&mut task, Stage::BridgeLocal, Some(frame.bridge), &["br_pass_frame_up"], Vec::new(), changed);
        if !self.bridge_rules(&mut task, Hook::Input, &mut frame, None) {
            return;
        }
        let after = task.parent.unwrap_or_default();
        task.bridge_port = frame.from.filter(|_| frame.filtered);
        let position =
            if frame.filtered { Position::ReceiveFiltered(frame.bridge) } else { Position::Receive(frame.bridge) };
        self.go(task, after, position);
    }

    /// `br_dev_xmit`: the host, or a device above, sends by the bridge.
    pub(super) fn bridge_transmit(&mut self, mut task: Task, link: &'a Link) {
        let LinkKind::Bridge(state) = &link.kind else { return };
        let bridge = Bridge { link, state };
        let vlan = match ingress_vlan(state, &state.vlans, &task.packet) {
            Ok(vlan) => vlan,
            Err(tag) => {
                let decision =
                    Decision::Setting(tag.map_or_else(|| "no pvid".to_owned(), |tag| format!("no vid {tag}")));
                self.stop(
                    &task,
                    Stage::BridgeForward,
                    link.index,
                    &["br_dev_xmit"],
                    vec![decision],
                    Stop::VlanFiltered(tag),
                );
                return;
            }
        };
        if let Some(packet) = in_vlan(state, &task.packet, vlan) {
            task.packet = packet;
        }
        let frame = BridgeFrame { bridge: link.index, from: None, vlan, filtered: false };
        self.forward_frame(task, &bridge, &frame);
    }
}

/// `br_allowed_ingress`: the frame's VLAN in the bridge, or the tag (none: untagged) that is not let in.
fn ingress_vlan(state: &BridgeState, vlans: &[PortVlan], packet: &Packet) -> Result<u16, Option<u16>> {
    if !state.vlan_filtering {
        return Ok(0);
    }
    match packet.tags.first().copied().filter(|tag| *tag != 0) {
        Some(tag) if covers(vlans, tag) => Ok(tag),
        Some(tag) => Err(Some(tag)),
        None => vlans.iter().find(|vlan| vlan.pvid).map(|vlan| vlan.id).ok_or(None),
    }
}

/// Inside a bridge that filters VLANs each frame bears the tag of its VLAN.
fn in_vlan(state: &BridgeState, packet: &Packet, vlan: u16) -> Option<Packet> {
    if !state.vlan_filtering || packet.tags.first() == Some(&vlan) {
        return None;
    }
    let mut packet = packet.clone();
    if packet.tags.first() == Some(&0) {
        packet.tags.remove(0);
    }
    packet.tags.insert(0, vlan);
    Some(packet)
}

fn covers(vlans: &[PortVlan], vlan: u16) -> bool {
    vlans.iter().any(|own| own.covers(vlan))
}

fn untagged(vlans: &[PortVlan], vlan: u16) -> bool {
    vlans.iter().any(|own| own.covers(vlan) && own.untagged)
}

fn vlan_decision(state: &BridgeState, vlan: u16) -> Vec<Decision> {
    state.vlan_filtering.then(|| Decision::Setting(format!("vid {vlan}"))).into_iter().collect()
}

/// With snooping and a querier only members get a group's packets; the members are not known here. `ff02::1` and
/// `224.0.0.0/24` go to all (`br_multicast_ipv4_rcv`, `br_multicast_ipv6_rcv`).
fn is_pruned(bridge: &Bridge<'_>, packet: &Packet) -> bool {
    let wide = packet.ip().is_some_and(|ip| match ip.destination {
        std::net::IpAddr::V4(group) => group.octets().starts_with(&[224, 0, 0]),
        std::net::IpAddr::V6(group) => group == std::net::Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1),
    });
    bridge.state.multicast_snooping && bridge.state.multicast_querier && packet.ip().is_some() && !wide
}

/// `is_skb_forwardable`; under br_netfilter `br_nf_dev_queue_xmit` fragments what may be fragmented, and allows no room for a tag.
fn too_long(packet: &Packet, bridge_mtu: u32, port: &Link, frame: &BridgeFrame) -> Option<Stop> {
    let stop = Some(Stop::BridgeMtu(port.mtu));
    if frame.filtered && !packet.gso && packet.length > port.mtu {
        return match packet.ip() {
            // The pieces are as long as the bridge's own device takes (`fake_mtu`), whatever the port does.
            Some(ip) if ip.destination.is_ipv4() && !ip.dont_fragment => {
                let piece = (bridge_mtu.saturating_sub(20) & !7) + 20;
                let longest = packet.length.min(if packet.length > bridge_mtu { piece } else { packet.length });
                if longest > port.mtu.saturating_add(4) { stop } else { None }
            }
            Some(ip) if ip.destination.is_ipv4() => stop,
            _ if exceeds(packet, port.mtu) => stop,
            _ => None,
        };
    }
    if exceeds(packet, port.mtu) { stop } else { None }
}

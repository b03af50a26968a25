//! Devices: what receives and sends a frame, and what is stacked on what (`net/core/dev.c`, `drivers/net/{tun,veth,macvlan}.c`,
//! `net/8021q`, of 6.12).

use super::packet::{Network, Packet};
use super::step::{Arrival, Decision, Doubt, Outcome, Stage, Stop};
use super::walker::{Position, Task, Walker};
use crate::event::bond::{Bond, BondMode};
use crate::event::host::{Link, LinkKind};
use crate::event::names::MacvtapMode;
use crate::event::ruleset::Hook;
use crate::event::{Direction, IfIndex, MacAddress};
use crate::topology::is_switched;

const RECEIVE: &[&str] = &["__netif_receive_skb_core"];
const TRANSMIT: &[&str] = &["__dev_queue_xmit"];

/// A frame's type as `eth_type_trans` gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiver {
    Own,
    Group,
    Other,
    Unknown,
}

impl<'a> Walker<'a, '_> {
    /// `__netif_receive_skb_core`: hooks, VLAN device, the master's or the macvlans' handler, then the protocols.
    pub(super) fn receive(&mut self, mut task: Task, device: IfIndex, filtered: bool) {
        let Some(link) = self.known(&task, Stage::DeviceReceive, device) else { return };
        if !link.up {
            // tun_get_user: SKB_DROP_REASON_DEV_READY; veth_xmit's far end: __dev_forward_skb2.
            self.stop(
                &task,
                Stage::DeviceReceive,
                device,
                &["tun_get_user", "__dev_forward_skb2"],
                Vec::new(),
                Stop::LinkDown,
            );
            return;
        }
        if Self::comes_again(&mut task, device, Direction::Ingress) {
            self.stop(&task, Stage::DeviceReceive, device, RECEIVE, Vec::new(), Stop::Loop);
            return;
        }
        self.pass(&mut task, Stage::DeviceReceive, Some(device), RECEIVE, Vec::new(), None);
        self.at_hook(Direction::Ingress);
        if link.xdp.is_some() {
            self.doubt(&mut task, Stage::DeviceReceive, Some(device), &["do_xdp_generic"], Doubt::Program(device));
        }
        if !self.device_rules(&mut task, Hook::Ingress, device) {
            return;
        }
        self.hand_up(task, link, filtered);
    }

    /// The receivers above a device, in the kernel's order.
    fn hand_up(&mut self, mut task: Task, link: &'a Link, filtered: bool) {
        let device = link.index;
        // vlan_do_receive comes before the handler of a bridge.
        if let Some(tag) = task.packet.tags.first().copied()
            && let Some(upper) = self.vlan_device(device, tag)
        {
            let mut untagged = task.packet.clone();
            untagged.tags.remove(0);
            let decision = Decision::Setting(format!("vlan id {tag}"));
            self.pass(
                &mut task,
                Stage::DeviceReceive,
                Some(upper),
                &["vlan_do_receive"],
                vec![decision],
                Some(untagged),
            );
            let after = task.parent.unwrap_or_default();
            self.go(task, after, Position::Receive(upper));
            return;
        }
        let after = task.parent.unwrap_or_default();
        match link.master.and_then(|master| self.topology.link(master)) {
            Some(master) if matches!(master.kind, LinkKind::Bridge(_)) => {
                self.go(task, after, Position::BridgeIngress(device));
                return;
            }
            Some(master) if master.kind == LinkKind::Bond => {
                if let Some(bond) = self.topology.host.bonds.get(&master.index)
                    && bond.is_deaf(device, is_group(&task.packet))
                {
                    self.inactive_leg(task, link, bond, filtered);
                    return;
                }
                // bond_handle_frame: the frame is the bond's.
                self.go(task, after, Position::Receive(master.index));
                return;
            }
            Some(master) if is_switched(self.topology.host, master) => {
                if let Some(place) = self.topology.switch.place(device) {
                    self.go(task, after, Position::Switch(place));
                    return;
                }
                let doubt = Doubt::Daemon(format!("Open vSwitch ({})", master.name));
                self.step(
                    &task,
                    Stage::DeviceReceive,
                    Some(device),
                    &["ovs_vport_receive"],
                    Vec::new(),
                    Outcome::Unknown(doubt),
                );
                return;
            }
            _ => {}
        }
        if !self.macvlan_receive(&task, link) {
            return;
        }
        self.protocols(task, link, filtered);
    }

    /// `bond_handle_frame`: `RX_HANDLER_EXACT`, after which only sockets that are bound to the leg get the frame; reserved groups
    /// are the leg's own.
    fn inactive_leg(&mut self, task: Task, leg: &'a Link, bond: &Bond, filtered: bool) {
        if task.packet.destination_mac.and_then(MacAddress::reserved_group).is_some() {
            self.protocols(task, leg, filtered);
            return;
        }
        let active = bond.active.map_or_else(|| "none".to_owned(), |active| self.topology.host.link_name(active));
        let decisions = vec![Decision::Setting(format!("bond mode {}, active_slave {active}", bond.mode))];
        let functions = &["bond_handle_frame", "__netif_receive_skb_core"];
        self.stop(&task, Stage::DeviceReceive, leg.index, functions, decisions, Stop::InactiveLeg);
    }

    fn vlan_device(&self, lower: IfIndex, tag: u16) -> Option<IfIndex> {
        let uppers = self.topology.uppers(lower).iter();
        let mut fitting = uppers.filter(|upper| matches!(upper.kind, LinkKind::Vlan { id } if id == tag));
        fitting.next().map(|upper| upper.index)
    }

    /// `macvlan_handle_frame`: the frame's copies for the macvlans on a device. False where none is left for the device itself.
    fn macvlan_receive(&mut self, task: &Task, lower: &Link) -> bool {
        let uppers: Vec<&Link> =
            self.topology.uppers(lower.index).iter().copied().filter(|link| is_macvlan(link)).collect();
        if uppers.is_empty() {
            return true;
        }
        let Some(destination) = task.packet.destination_mac else { return true };
        let after = task.parent.unwrap_or_default();
        if destination.is_multicast() {
            for upper in uppers.iter().filter(|upper| upper.up) {
                let copy = if is_broadcast(destination) || !filters_groups(upper) {
                    macvlan_position(upper)
                } else {
                    let doubt = Doubt::Missing(format!("the multicast filter of {}", upper.name));
                    self.step(
                        task,
                        Stage::DeviceReceive,
                        Some(upper.index),
                        &["macvlan_broadcast"],
                        Vec::new(),
                        Outcome::Unknown(doubt),
                    );
                    continue;
                };
                self.go(task.clone(), after, copy);
            }
            return true;
        }
        // macvlan_hash_lookup; passthru takes all that comes.
        let passthru = uppers.iter().find(|upper| is_mode(upper, MacvtapMode::Passthru));
        let own = uppers.iter().find(|upper| macvlan_mac(upper) == Some(destination));
        match own.or(passthru) {
            Some(upper) if !upper.up => {
                self.stop(
                    task,
                    Stage::DeviceReceive,
                    upper.index,
                    &["macvlan_handle_frame"],
                    Vec::new(),
                    Stop::LinkDown,
                );
                false
            }
            Some(upper) => {
                self.go(task.clone(), after, macvlan_position(upper));
                false
            }
            None => true,
        }
    }

    /// A frame arrives at a macvtap: its ring, then its guest.
    pub(super) fn macvtap_deliver(&mut self, task: &Task, device: IfIndex) {
        let outcome =
            if self.topology.interface(device).is_some_and(|(guest, _)| self.topology.host.is_abandoned(guest)) {
                Outcome::Stops(Stop::GuestGone)
            } else {
                Outcome::Arrives(Arrival::Guest(device))
            };
        self.step(task, Stage::Guest, Some(device), &["tap_handle_frame"], Vec::new(), outcome);
        self.at_hook(Direction::Ingress);
    }

    /// IP, ARP and others above a device that is no port (`ip_rcv`, `arp_rcv`, `ipv6_rcv`).
    pub(super) fn protocols(&mut self, task: Task, link: &'a Link, filtered: bool) {
        let device = link.index;
        let after = task.parent.unwrap_or_default();
        if task.packet.tags.first().is_some_and(|tag| *tag != 0) {
            // A tag that no VLAN device took makes the frame another's.
            self.stop(&task, Stage::DeviceReceive, device, RECEIVE, Vec::new(), Stop::OtherHost);
            return;
        }
        let stop = match (receiver(link, &task.packet), &task.packet.network) {
            (Receiver::Other, Network::Ip(_) | Network::Arp(_)) if self.is_guest_port(link) => Stop::Detached,
            (Receiver::Other, _) => Stop::OtherHost,
            (Receiver::Unknown, _) => {
                let doubt = Doubt::Packet(format!("its destination MAC address, at {}", link.name));
                self.step(&task, Stage::DeviceReceive, Some(device), RECEIVE, Vec::new(), Outcome::Unknown(doubt));
                return;
            }
            (_, Network::Ip(_)) => {
                let position = if filtered { Position::IpFiltered(device) } else { Position::Ip(device) };
                self.go(task, after, position);
                return;
            }
            (_, Network::Arp(_)) => {
                self.arp_receive(task, link);
                return;
            }
            (_, Network::Other(_)) => Stop::UnhandledProtocol,
        };
        self.stop(&task, Stage::DeviceReceive, device, &["ip_rcv_core", "ip6_rcv_core", "arp_rcv"], Vec::new(), stop);
    }

    /// A guest's tap without a bridge: frames for others end there.
    fn is_guest_port(&self, link: &Link) -> bool {
        self.topology.interface(link.index).is_some() && link.master.is_none()
    }

    /// `__dev_queue_xmit`, then the device's own way of sending.
    pub(super) fn transmit(&mut self, mut task: Task, device: IfIndex, flooded: bool) {
        let Some(link) = self.known(&task, Stage::DeviceTransmit, device) else { return };
        if !link.up {
            self.stop(&task, Stage::DeviceTransmit, device, TRANSMIT, Vec::new(), Stop::LinkDown);
            return;
        }
        let stacked = matches!(
            link.kind,
            LinkKind::Bridge(_)
                | LinkKind::Vlan { .. }
                | LinkKind::Macvlan
                | LinkKind::Macvtap { .. }
                | LinkKind::Vxlan { .. }
        );
        if stacked && !link.carrier {
            // linkwatch puts noop_qdisc in the place of its queue (dev_deactivate).
            self.stop(&task, Stage::DeviceTransmit, device, TRANSMIT, Vec::new(), Stop::NoCarrier);
            return;
        }
        if Self::comes_again(&mut task, device, Direction::Egress) {
            self.stop(&task, Stage::DeviceTransmit, device, TRANSMIT, Vec::new(), Stop::Loop);
            return;
        }
        if !self.device_rules(&mut task, Hook::Egress, device) {
            return;
        }
        self.pass(&mut task, Stage::DeviceTransmit, Some(device), TRANSMIT, Vec::new(), None);
        self.at_hook(Direction::Egress);
        let after = task.parent.unwrap_or_default();
        match &link.kind {
            LinkKind::Tun => self.tap_transmit(&task, link, flooded),
            LinkKind::Bridge(_) => self.bridge_transmit(task, link),
            LinkKind::Veth => self.veth_transmit(task, link),
            LinkKind::Vlan { id } => {
                let Some(lower) = link.lower else {
                    self.leave(&task, link);
                    return;
                };
                let mut tagged = task.packet.clone();
                tagged.tags.insert(0, *id);
                let decision = Decision::Setting(format!("vlan id {id}"));
                self.pass(
                    &mut task,
                    Stage::DeviceTransmit,
                    Some(device),
                    &["vlan_dev_hard_start_xmit"],
                    vec![decision],
                    Some(tagged),
                );
                let after = task.parent.unwrap_or_default();
                self.go(task, after, Position::Transmit(lower));
            }
            LinkKind::Bond => self.bond_transmit(task, link),
            LinkKind::Macvlan | LinkKind::Macvtap { .. } => self.go(task, after, Position::Macvlan(device)),
            LinkKind::Vxlan { .. } => self.vxlan_transmit(&task, link),
            LinkKind::Loopback => self.go(task, after, Position::Receive(device)),
            LinkKind::Other(kind) if self.tunnel_transmit(&task, link, kind) => {}
            LinkKind::Other(kind) if kind == "openvswitch" => match self.topology.switch.place(device) {
                Some(place) => self.go(task, after, Position::Switch(place)),
                None => self.leave(&task, link),
            },
            LinkKind::Physical | LinkKind::Other(_) => self.leave(&task, link),
        }
    }

    /// The frame leaves this host.
    fn leave(&mut self, task: &Task, link: &Link) {
        let is_switch = matches!(&link.kind, LinkKind::Other(kind) if kind == "openvswitch");
        let outcome = if is_switch {
            Outcome::Unknown(Doubt::Daemon(format!("Open vSwitch ({})", link.name)))
        } else if link.carrier && task.packet.destination_mac.is_some() && task.packet.destination_mac == link.mac {
            // A macvlan's frame for the device below it: macvlan_queue_xmit knows its macvlans only.
            Outcome::Stops(Stop::NotReflected)
        } else if link.carrier {
            Outcome::Arrives(Arrival::Uplink(link.index))
        } else {
            // dev_deactivate: noop_qdisc drops.
            Outcome::Stops(Stop::NoCarrier)
        };
        self.step(task, Stage::DeviceTransmit, Some(link.index), TRANSMIT, Vec::new(), outcome);
    }

    /// `tun_net_xmit`.
    fn tap_transmit(&mut self, task: &Task, link: &Link, flooded: bool) {
        let interface = self.topology.interface(link.index);
        let outcome = match interface {
            // Without a reader the tap has no carrier.
            _ if !link.carrier => Outcome::Stops(Stop::GuestGone),
            Some((_, interface)) => {
                let another = |mac: MacAddress| !mac.is_multicast() && interface.mac.is_some_and(|own| own != mac);
                if flooded && task.packet.destination_mac.is_some_and(another) {
                    Outcome::Arrives(Arrival::Ignored)
                } else {
                    Outcome::Arrives(Arrival::Guest(link.index))
                }
            }
            None => Outcome::Arrives(Arrival::Guest(link.index)),
        };
        self.step(task, Stage::Guest, Some(link.index), &["tun_net_xmit"], Vec::new(), outcome);
    }

    /// `veth_xmit`: the far end receives, if it is up and the frame is not too long for it (`__is_skb_forwardable`).
    fn veth_transmit(&mut self, task: Task, link: &Link) {
        let Some(peer) = link.peer.and_then(|peer| self.topology.link(peer)) else {
            let outcome = if link.carrier {
                Outcome::Arrives(Arrival::Namespace(link.index))
            } else {
                Outcome::Stops(Stop::NoCarrier)
            };
            self.step(&task, Stage::DeviceTransmit, Some(link.index), &["veth_xmit"], Vec::new(), outcome);
            return;
        };
        if peer.up && exceeds(&task.packet, peer.mtu) {
            let decision = Decision::Setting(format!("mtu {}", peer.mtu));
            self.stop(
                &task,
                Stage::DeviceReceive,
                peer.index,
                &["__dev_forward_skb2"],
                vec![decision],
                Stop::BridgeMtu(peer.mtu),
            );
            return;
        }
        let after = task.parent.unwrap_or_default();
        // skb_scrub_packet
        self.go(Task { bridge_port: None, ..task }, after, Position::Receive(peer.index));
    }

    /// A bond sends by its active leg, whatever became of that (`bond_xmit_activebackup`); in the other modes by one that lives. Which
    /// of them only a hash knows; they lead the same way.
    fn bond_transmit(&mut self, task: Task, bond: &Link) {
        let legs = self.topology.ports(bond.index);
        let state = self.topology.host.bonds.get(&bond.index);
        let active = state.filter(|state| state.mode == BondMode::ActiveBackup).and_then(|state| state.active);
        let chosen = legs.iter().find(|leg| Some(leg.index) == active);
        let alive = |leg: &&&Link| leg.up && leg.carrier;
        let used = legs.iter().filter(alive).find(|leg| state.is_some_and(|state| state.sends_by(leg.index)));
        let alive = chosen.or(used).or_else(|| legs.iter().find(alive));
        match alive.or(legs.first()).map(|leg| leg.index) {
            Some(leg) => {
                let after = task.parent.unwrap_or_default();
                self.go(task, after, Position::Transmit(leg));
            }
            None => self.leave(&task, bond),
        }
    }

    /// `macvlan_queue_xmit`: in mode `bridge` a frame for another macvlan on the same device goes there; everything else leaves by
    /// the lower device, past this host's own stack.
    pub(super) fn macvlan_transmit(&mut self, task: Task, device: IfIndex) {
        let Some(link) = self.known(&task, Stage::DeviceTransmit, device) else { return };
        let after = task.parent.unwrap_or_default();
        let Some(lower) = link.lower.and_then(|lower| self.topology.link(lower)) else {
            self.leave(&task, link);
            return;
        };
        let bridged = is_mode(link, MacvtapMode::Bridge) || link.kind == LinkKind::Macvlan;
        if let Some(destination) = task.packet.destination_mac.filter(|_| bridged) {
            let others = self.topology.uppers(lower.index).iter();
            let others: Vec<&Link> = others
                .copied()
                .filter(|other| {
                    other.index != device
                        && is_macvlan(other)
                        && (is_mode(other, MacvtapMode::Bridge) || other.kind == LinkKind::Macvlan)
                })
                .collect();
            if destination.is_multicast() {
                for other in others.iter().filter(|other| other.up) {
                    self.go(task.clone(), after, macvlan_position(other));
                }
            } else if let Some(other) = others.iter().find(|other| macvlan_mac(other) == Some(destination)) {
                let position = macvlan_position(other);
                self.go(task, after, position);
                return;
            }
        }
        self.go(task, after, Position::Transmit(lower.index));
    }
}

/// `eth_type_trans` compares the destination with the device's own address.
fn receiver(link: &Link, packet: &Packet) -> Receiver {
    if !link.ethernet || link.kind == LinkKind::Loopback {
        return Receiver::Own;
    }
    match packet.destination_mac {
        Some(mac) if mac.is_multicast() => Receiver::Group,
        Some(mac) if link.mac == Some(mac) => Receiver::Own,
        Some(_) if link.mac.is_none() => Receiver::Unknown,
        Some(_) => Receiver::Other,
        None => Receiver::Unknown,
    }
}

/// `__is_skb_forwardable`: the MTU, the Ethernet header and room for a VLAN tag that stands in the frame. GSO frames pass.
pub(super) fn exceeds(packet: &Packet, mtu: u32) -> bool {
    // The outermost tag is kept beside the frame (hardware acceleration).
    let inner = 4 * u32::try_from(packet.tags.len().saturating_sub(1)).unwrap_or(u32::MAX / 8);
    !packet.gso && packet.length.saturating_add(inner) > mtu.saturating_add(4)
}

fn is_group(packet: &Packet) -> bool {
    packet.destination_mac.is_some_and(MacAddress::is_multicast)
}

/// ff:ff:ff:ff:ff:ff
pub(super) fn is_broadcast(mac: MacAddress) -> bool {
    mac.0 == [0xff; 6]
}

fn is_macvlan(link: &Link) -> bool {
    matches!(link.kind, LinkKind::Macvlan | LinkKind::Macvtap { .. })
}

fn is_mode(link: &Link, mode: MacvtapMode) -> bool {
    matches!(&link.kind, LinkKind::Macvtap { mode: own } if *own == mode)
}

/// A macvtap is given its guest's address, unless the guest has changed it.
fn macvlan_mac(link: &Link) -> Option<MacAddress> {
    link.mac
}

fn filters_groups(link: &Link) -> bool {
    !is_mode(link, MacvtapMode::Passthru)
}

fn macvlan_position(link: &Link) -> Position {
    if matches!(link.kind, LinkKind::Macvtap { .. }) {
        Position::Guest(link.index)
    } else {
        Position::Receive(link.index)
    }
}

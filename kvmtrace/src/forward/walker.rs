//! The order of the stages: a list of packets that are under way, each at a position. A position is taken off, its stage
//! adds steps and puts the positions that follow on the list, until none is left or a bound is reached.

use super::firewall::{self, At as Site, Fate};
use super::packet::Packet;
use super::step::{Decision, Doubt, Outcome, Stage, Step, Stop, Walk};
use crate::event::host::{FdbEntry, Link};
use crate::event::overlay::IpsecState;
use crate::event::ruleset::{Hook, Layer};
use crate::event::switch::SwitchPlace;
use crate::event::{Direction, IfIndex, MacAddress};
use crate::topology::Topology;
use std::collections::VecDeque;
use std::net::IpAddr;

/// Steps of a walk at most. A flood over a bridge of a thousand ports fits.
const STEPS: usize = 16_384;
/// Steps from the entry to any end at most: a packet that goes in a circle is found before.
const DEPTH: usize = 256;

/// Where a packet is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Position {
    /// A device receives the frame (`__netif_receive_skb_core`).
    Receive(IfIndex),
    /// As `Receive`, on a bridge whose br_netfilter has run the IP rules of prerouting already (`ip_sabotage_in`).
    ReceiveFiltered(IfIndex),
    /// A bridge port has received it (`br_handle_frame`).
    BridgeIngress(IfIndex),
    /// A bridge port is to send it.
    BridgeEgress(BridgeEgress),
    /// The bridge hands it to its own device (`br_pass_frame_up`).
    BridgeLocal(BridgeFrame),
    /// A device is to send the frame (`__dev_queue_xmit`).
    Transmit(IfIndex),
    /// As `Transmit`, for a copy of a frame that was flooded.
    TransmitFlooded(IfIndex),
    /// A device has received an IP packet (`ip_rcv`, `ipv6_rcv`).
    Ip(IfIndex),
    /// As `Ip`, after the rules of prerouting.
    IpFiltered(IfIndex),
    /// This host's stack takes the packet (`ip_local_deliver`).
    Deliver(IfIndex),
    /// A routed packet is to leave by a device for a next hop (`ip_output`).
    Output(Output),
    /// This host sends a packet of its own (`__ip_local_out`).
    Originate,
    /// A macvlan or macvtap sends (`macvlan_queue_xmit`).
    Macvlan(IfIndex),
    /// A macvtap delivers to its guest.
    Guest(IfIndex),
    /// An interface of an Open vSwitch bridge has received it (`ovs_vport_receive`).
    Switch(SwitchPlace),
}

/// A frame inside a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BridgeFrame {
    /// The bridge.
    pub(super) bridge: IfIndex,
    /// The port that it came in by; none for the bridge's own.
    pub(super) from: Option<IfIndex>,
    /// Its VLAN in the bridge; 0 without VLAN filtering.
    pub(super) vlan: u16,
    /// br_netfilter handles it.
    pub(super) filtered: bool,
}

/// A frame that a bridge is to send by a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BridgeEgress {
    /// The frame.
    pub(super) frame: BridgeFrame,
    /// The port.
    pub(super) port: IfIndex,
    /// It is flooded, not sent by an entry of the FDB.
    pub(super) flooded: bool,
}

/// A routed packet on its way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Output {
    /// By this device.
    pub(super) device: IfIndex,
    /// To this next hop.
    pub(super) next_hop: IpAddr,
    /// It came in by this device; none for a packet of this host's own.
    pub(super) input: Option<IfIndex>,
    /// MTU of the route, in bytes.
    pub(super) mtu: u32,
    /// The IPsec state that wraps it on the way.
    pub(super) ipsec: Option<Box<IpsecState>>,
}

/// A packet under way.
#[derive(Clone, Debug)]
pub(super) struct Task {
    /// The step that led here.
    pub(super) parent: Option<usize>,
    /// Number of steps from the entry.
    pub(super) depth: usize,
    /// The packet.
    pub(super) packet: Packet,
    /// Where it is.
    pub(super) position: Position,
    /// The bridge port that br_netfilter has seen it come in by (`nf_bridge_info`): `physdev` asks for it above the bridge too.
    pub(super) bridge_port: Option<IfIndex>,
    /// Devices whose stages it has passed, with a digest of the packet: the same again is a circle.
    pub(super) seen: std::rc::Rc<Seen>,
}

/// A list from a task to its entry.
#[derive(Debug, Default)]
pub(super) struct Seen {
    place: Option<(IfIndex, Direction, u64)>,
    before: Option<std::rc::Rc<Seen>>,
}

/// A walk under way.
#[derive(Debug)]
pub(super) struct Walker<'a, 't> {
    /// The host.
    pub(super) topology: &'t Topology<'a>,
    walk: Walk,
    tasks: VecDeque<Task>,
    /// What bridges have learnt from this walk's own frames.
    learnt: Vec<FdbEntry>,
}

impl<'a, 't> Walker<'a, 't> {
    /// Walks a packet from a position.
    pub(super) fn run(topology: &'t Topology<'a>, packet: Packet, position: Position) -> Walk {
        let mut walker = Self { topology, walk: Walk::default(), tasks: VecDeque::new(), learnt: Vec::new() };
        walker.tasks.push_back(Task {
            parent: None,
            depth: 0,
            packet,
            position,
            bridge_port: None,
            seen: std::rc::Rc::default(),
        });
        while let Some(task) = walker.tasks.pop_front() {
            if walker.walk.steps.len() >= STEPS || task.depth >= DEPTH {
                walker.walk.cut = true;
                walker.step(&task, Stage::DeviceReceive, None, &[], Vec::new(), Outcome::Unknown(Doubt::Bound));
                break;
            }
            walker.advance(task);
        }
        walker.walk
    }

    fn advance(&mut self, task: Task) {
        match task.position.clone() {
            Position::Receive(device) => self.receive(task, device, false),
            Position::ReceiveFiltered(device) => self.receive(task, device, true),
            Position::BridgeIngress(port) => self.bridge_ingress(task, port),
            Position::BridgeEgress(egress) => self.bridge_egress(task, &egress),
            Position::BridgeLocal(frame) => self.bridge_local(task, &frame),
            Position::Transmit(device) => self.transmit(task, device, false),
            Position::TransmitFlooded(device) => self.transmit(task, device, true),
            Position::Ip(device) => self.ip_receive(task, device, false),
            Position::IpFiltered(device) => self.ip_receive(task, device, true),
            Position::Deliver(device) => self.deliver(task, device),
            Position::Output(output) => self.output(task, &output),
            Position::Originate => self.originate(task),
            Position::Macvlan(device) => self.macvlan_transmit(task, device),
            Position::Guest(device) => self.macvtap_deliver(&task, device),
            Position::Switch(place) => self.switch_receive(task, place),
        }
    }

    /// A bridge learns that the frame's source is behind a port (`br_fdb_update`): entries of its own and sticky ones stay.
    pub(super) fn learn(&mut self, bridge: IfIndex, port: IfIndex, vlan: u16, packet: &Packet) {
        let Some(mac) = packet.source_mac else { return };
        let known = self.fdb(bridge, mac, vlan);
        if known.as_ref().is_some_and(|entry| entry.permanent || entry.sticky || entry.device == port) {
            return;
        }
        let (vlan, bridge) = (Some(vlan).filter(|vlan| *vlan != 0), Some(bridge));
        let new =
            FdbEntry { mac, device: port, bridge, vlan, permanent: false, fixed: false, sticky: false, remote: None };
        self.learnt.push(known.map_or(new, |known| FdbEntry { device: port, ..known }));
    }

    /// The entry of a bridge's database: learnt on this walk, or before.
    pub(super) fn fdb(&self, bridge: IfIndex, mac: MacAddress, vlan: u16) -> Option<FdbEntry> {
        let of =
            |entry: &&FdbEntry| entry.bridge == Some(bridge) && entry.mac == mac && entry.vlan.unwrap_or(0) == vlan;
        let learnt = self.learnt.iter().rev().find(of);
        learnt.or_else(|| self.topology.fdb(bridge, mac, vlan)).cloned()
    }

    /// Adds a step and returns its index.
    pub(super) fn step(
        &mut self,
        task: &Task,
        stage: Stage,
        device: Option<IfIndex>,
        functions: &'static [&'static str],
        decisions: Vec<Decision>,
        outcome: Outcome,
    ) -> usize {
        self.walk.steps.push(Step { parent: task.parent, stage, device, hook: None, functions, decisions, outcome });
        self.walk.steps.len() - 1
    }

    /// The last step passes the tc hook of its device.
    pub(super) fn at_hook(&mut self, direction: Direction) {
        if let Some(step) = self.walk.steps.last_mut() {
            step.hook = Some(direction);
        }
    }

    /// The packet ends here.
    pub(super) fn stop(
        &mut self,
        task: &Task,
        stage: Stage,
        device: IfIndex,
        functions: &'static [&'static str],
        decisions: Vec<Decision>,
        stop: Stop,
    ) {
        self.step(task, stage, Some(device), functions, decisions, Outcome::Stops(stop));
    }

    /// The packet goes on at a position, after a step.
    pub(super) fn go(&mut self, task: Task, after: usize, position: Position) {
        // No step stands before the first one of a packet of this host's own.
        let parent = (after < self.walk.steps.len()).then_some(after);
        self.tasks.push_back(Task { parent, depth: task.depth + 1, position, ..task });
    }

    /// Adds a step at which the packet passes, changed or not, and moves the task behind it.
    pub(super) fn pass(
        &mut self,
        task: &mut Task,
        stage: Stage,
        device: Option<IfIndex>,
        functions: &'static [&'static str],
        decisions: Vec<Decision>,
        changed: Option<Packet>,
    ) {
        let outcome = changed.clone().map_or(Outcome::Passes, |packet| Outcome::Becomes(Box::new(packet)));
        let step = self.step(task, stage, device, functions, decisions, outcome);
        task.parent = Some(step);
        task.depth += 1;
        if let Some(packet) = changed {
            task.packet = packet;
        }
    }

    /// Adds a step at which it can't be known whether the packet passes, and goes on as if it did.
    pub(super) fn doubt(
        &mut self,
        task: &mut Task,
        stage: Stage,
        device: Option<IfIndex>,
        functions: &'static [&'static str],
        doubt: Doubt,
    ) {
        let step = self.step(task, stage, device, functions, Vec::new(), Outcome::Unknown(doubt));
        task.parent = Some(step);
        task.depth += 1;
    }

    /// The same packet passed this side of this device before: notes the place, and whether it is a circle.
    pub(super) fn comes_again(task: &mut Task, device: IfIndex, direction: Direction) -> bool {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let mut hasher = DefaultHasher::new();
        (&task.packet.network_identity(), task.packet.destination_mac, &task.packet.tags).hash(&mut hasher);
        let place = (device, direction, hasher.finish());
        let mut before = Some(&task.seen);
        while let Some(seen) = before {
            if seen.place == Some(place) {
                return true;
            }
            before = seen.before.as_ref();
        }
        task.seen = std::rc::Rc::new(Seen { place: Some(place), before: Some(task.seen.clone()) });
        false
    }

    /// The rules of a hook. False where they end the packet.
    pub(super) fn rules(&mut self, task: &mut Task, functions: &'static [&'static str], site: &Site) -> bool {
        let above = site.input.is_some() && matches!(site.layer, Layer::Ipv4 | Layer::Ipv6);
        let asked = Site { input_port: site.input_port.or(task.bridge_port.filter(|_| above)), ..*site };
        let ruling = firewall::hook(self.topology, &asked, &task.packet);
        let stage = Stage::Firewall(site.hook);
        let device = match site.hook {
            Hook::Output | Hook::Postrouting | Hook::Egress => site.output_port.or(site.output).or(site.input),
            Hook::Forward => site.output_port.or(site.output),
            Hook::Ingress | Hook::Prerouting | Hook::Input => site.input_port.or(site.input),
        };
        let decisions: Vec<Decision> = ruling.taken.into_iter().map(Decision::Rule).collect();
        let stop = match ruling.fate {
            Fate::Accepted => {
                if ruling.packet != task.packet {
                    let stage = if ruling.packet.network == task.packet.network { stage } else { Stage::Nat };
                    self.pass(task, stage, device, functions, decisions, Some(ruling.packet));
                } else if !decisions.is_empty() {
                    self.pass(task, stage, device, functions, decisions, None);
                }
                return true;
            }
            Fate::Dropped(rule) => Stop::Rule(rule),
            Fate::Rejected(rule) => Stop::Rejected(rule),
            Fate::Queued(rule, queue, _) => {
                self.step(task, stage, device, functions, decisions, Outcome::Unknown(Doubt::Queue(rule, queue)));
                return false;
            }
            Fate::Unknown(rule, why) => {
                self.doubt(task, stage, device, functions, Doubt::Rule(rule, why));
                task.packet = ruling.packet;
                return true;
            }
        };
        self.step(task, stage, device, functions, decisions, Outcome::Stops(stop));
        false
    }

    /// The hooks of one device (netdev family, `inet` ingress). False where they end the packet.
    pub(super) fn device_rules(&mut self, task: &mut Task, hook: Hook, device: IfIndex) -> bool {
        let (input, output) = match hook {
            Hook::Egress => (None, Some(device)),
            Hook::Ingress | Hook::Prerouting | Hook::Input | Hook::Forward | Hook::Output | Hook::Postrouting => {
                (Some(device), None)
            }
        };
        let site =
            Site { layer: Layer::Device, hook, input, output, input_port: None, output_port: None, next_hop: None };
        self.rules(task, &["nft_do_chain", "nf_hook_slow"], &site)
    }

    /// A device that is known; a stop with a doubt otherwise.
    pub(super) fn known(&mut self, task: &Task, stage: Stage, device: IfIndex) -> Option<&'a Link> {
        let link = self.topology.link(device);
        if link.is_none() {
            let doubt = Doubt::Missing(format!("device {device}"));
            self.step(task, stage, Some(device), &[], Vec::new(), Outcome::Unknown(doubt));
        }
        link
    }
}

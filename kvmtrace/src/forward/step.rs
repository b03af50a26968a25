//! The answer of a walk: a tree of steps. Each step says at which stage and device the packet was, what decided there, and
//! what became of the packet.

use super::packet::Packet;
use crate::event::host::{FdbEntry, Neighbour, Network, Route};
use crate::event::overlay::IpsecPolicy;
use crate::event::ruleset::RuleReference;
use crate::event::switch::{SwitchFlow, SwitchPlace};
use crate::event::{Direction, IfIndex, MacAddress, PolicyRule};
use std::net::IpAddr;

/// A stage of the kernel's packet path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// A device receives a frame: link state, XDP, tc ingress, VLAN device, bond, macvtap.
    DeviceReceive,
    /// A bridge port receives: STP state, VLAN, locked, source MAC.
    BridgeIngress,
    /// The bridge chooses ports: FDB, MDB, flood.
    BridgeForward,
    /// A bridge port sends: isolation, VLAN, hairpin, MTU.
    BridgeEgress,
    /// The bridge hands a copy to the host's own stack.
    BridgeLocal,
    /// Rules at a hook.
    Firewall(Hook),
    /// Destination or source translation.
    Nat,
    /// `rp_filter`, martians.
    SourceCheck,
    /// Policy rules and routes.
    Route,
    /// TTL, MTU of the route.
    IpForward,
    /// ARP or neighbour discovery for the next hop.
    Neighbour,
    /// This host answers ARP or ND.
    NeighbourAnswer,
    /// A socket of this host, or its ICMP.
    Local,
    /// A device sends: link state, queue, MTU, tunnel.
    DeviceTransmit,
    /// A tunnel wraps or unwraps.
    Tunnel,
    /// XFRM policies and states.
    Ipsec,
    /// Open vSwitch: rules, VLANs, learnt addresses.
    Switch,
    /// The guest's ring.
    Guest,
}

pub use crate::event::ruleset::Hook;

/// What became of the packet at a step.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It goes on unchanged.
    Passes,
    /// It goes on as another packet (NAT, tunnel, tag, MAC addresses).
    Becomes(Box<Packet>),
    /// Copies go several ways; the children are the ways.
    Branches,
    /// It ends here, where it should.
    Arrives(Arrival),
    /// It ends here because of something.
    Stops(Stop),
    /// What happens here can't be known.
    Unknown(Doubt),
}

/// Where a packet arrives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrival {
    /// The guest behind this interface.
    Guest(IfIndex),
    /// It left the host by this device.
    Uplink(IfIndex),
    /// A pod or another host's namespace behind this veth.
    Namespace(IfIndex),
    /// This host's own stack takes it.
    Host,
    /// This host answers it (echo, ARP, neighbour solicitation).
    Answered,
    /// A copy that its receiver passes over: another's unicast in a flood, a group that nobody joined.
    Ignored,
}

/// Why a packet ends. The device is the step's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Stop {
    /// The device is administratively down.
    LinkDown,
    /// The device has no carrier.
    NoCarrier,
    /// No process holds the tap.
    GuestGone,
    /// An XDP program may take it (told by `Doubt`); this one is known to drop.
    XdpDrop,
    /// The bridge is down.
    BridgeDown,
    /// STP state of the port.
    PortBlocked,
    /// The port is not operational.
    PortInoperative,
    /// The device is in no bridge and nothing else takes its frames.
    Detached,
    /// The port or the bridge itself is no member of the VLAN, or an untagged frame finds no PVID.
    VlanFiltered(Option<u16>),
    /// Both ports are isolated.
    Isolated,
    /// The port is locked and the source is not in the FDB behind it.
    Locked,
    /// The only way was flooding, and no port takes floods.
    FloodDisabled,
    /// No port is left to send to.
    NoPort,
    /// The FDB names another port than the receiver's.
    Misdirected(MacAddress),
    /// The group has no members.
    MulticastPruned,
    /// A reserved group (802.1D) that bridges keep.
    LinkLocalGroup,
    /// The source MAC address is a group's, or zero.
    InvalidSourceMac,
    /// The frame would go back by the port that it came from.
    Hairpin,
    /// The frame is for another MAC address and nobody else takes it.
    OtherHost,
    /// No protocol handler.
    UnhandledProtocol,
    /// The frame is longer than the MTU of this device, in bytes, and the bridge may not say so.
    BridgeMtu(u32),
    /// The packet is longer than the route's MTU, in bytes: the sender is sent an ICMP error.
    RouteMtu(u32),
    /// A rule, or a chain's policy, drops it.
    Rule(RuleReference),
    /// A rule rejects it: the sender is sent an error.
    Rejected(RuleReference),
    /// The packet limit of a rule may be exceeded.
    Limited(RuleReference),
    /// `ip_forward`, or the device's `forwarding`, is off.
    ForwardingDisabled,
    /// No route.
    NoRoute,
    /// A route or policy rule of kind `blackhole`.
    Blackhole,
    /// `unreachable`.
    Unreachable,
    /// `prohibit`.
    Prohibited,
    /// `rp_filter`: the way back leads by this device, or by none.
    ReversePath(Option<IfIndex>),
    /// A source that can't be: loopback, broadcast, the host's own.
    MartianSource,
    /// A destination that can't be: loopback from outside.
    MartianDestination,
    /// TTL or hop limit is used up.
    TimeToLive,
    /// The next hop does not answer ARP or ND.
    NeighbourFailed(IpAddr),
    /// This host does not answer for the address.
    NotAnswered,
    /// IPv6 is disabled on the device.
    Ipv6Disabled,
    /// No socket listens.
    PortClosed,
    /// `icmp_echo_ignore_all`.
    IcmpIgnored,
    /// No server of an IPVS service takes it.
    NoServer,
    /// The tunnel has no remote for this frame.
    NoRemote,
    /// The tunnel has no peer for this address.
    NoPeer,
    /// No tunnel takes this VNI or key.
    UnknownVni(u32),
    /// An XFRM policy blocks it, or wants a state that is not there.
    IpsecPolicy,
    /// Macvtap: the mode lets nothing pass that way.
    MacvtapMode,
    /// The frame leaves by the device whose own address it bears, and no switch sends it back (macvtap guest to its host).
    NotReflected,
    /// Macvtap: the receiver's filter does not take the group.
    MulticastFiltered,
    /// The bond's leg is not active.
    InactiveLeg,
    /// A rule of Open vSwitch sends it nowhere; or no rule takes it.
    SwitchDrop(SwitchRule),
    /// The port of Open vSwitch does not take frames with this tag, or does not carry this VLAN; 0 for none.
    SwitchVlan(SwitchPlace, u16),
    /// A device of Open vSwitch's own is down.
    SwitchPortDown,
    /// The same packet came by here before: it goes in a circle.
    Loop,
}

/// A rule of Open vSwitch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SwitchRule {
    /// Index of its bridge.
    pub bridge: usize,
    /// Index among the bridge's rules; none where no rule takes the packet.
    pub rule: Option<usize>,
}

/// What can't be known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doubt {
    /// A rule that is not understood whole may decide.
    Rule(RuleReference, String),
    /// A rule hands it to a queue of user space, by its number.
    Queue(RuleReference, u16),
    /// A program of somebody's (XDP, tc) may decide.
    Program(IfIndex),
    /// Part of the host's tables could not be read.
    Missing(String),
    /// A daemon or another switch decides (Open vSwitch).
    Daemon(String),
    /// A policy rule asks for more than is known of the packet.
    PolicyRule(Box<PolicyRule>),
    /// The packet's own facts don't suffice.
    Packet(String),
    /// The walk's bounds are reached.
    Bound,
}

/// What decided at a step; printed by `explain`.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// A rule, or a chain's policy.
    Rule(RuleReference),
    /// A route.
    Route(Box<Route>),
    /// A rule of policy routing.
    PolicyRule(Box<PolicyRule>),
    /// An address of this host.
    OwnAddress(Network),
    /// An entry of a forwarding database.
    Fdb(Box<FdbEntry>),
    /// No entry: the frame is flooded.
    Flood,
    /// An entry of the neighbour table.
    Neighbour(Box<Neighbour>),
    /// A sysctl and its value.
    Sysctl(String, String),
    /// A flag or setting of the device, as `ip` or `bridge` name it: `mtu 1500`, `isolated on`.
    Setting(String),
    /// The device's address is the frame's destination.
    OwnMac,
    /// A policy of IPsec.
    Ipsec(Box<IpsecPolicy>),
    /// A rule of Open vSwitch.
    OpenFlow(Box<SwitchFlow>),
}

/// One step of a walk.
#[derive(Clone, Debug, PartialEq)]
pub struct Step {
    /// The step that led here; none for the first. Always less than this step's own index.
    pub parent: Option<usize>,
    /// Which stage of the path.
    pub stage: Stage,
    /// At which device; none where the stage has none (a route for the host's own packet).
    pub device: Option<IfIndex>,
    /// Which side of the device, where the frame passes its tc hook at this step.
    pub hook: Option<Direction>,
    /// The kernel functions that stand for this stage, outermost first.
    pub functions: &'static [&'static str],
    /// What decided, in order.
    pub decisions: Vec<Decision>,
    /// What became of the packet.
    pub outcome: Outcome,
}

/// A packet's way through the host: steps in the order in which they were taken, each knowing its parent.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Walk {
    /// The steps; the first is the entry.
    pub steps: Vec<Step>,
    /// The walk ended because its bounds were reached.
    pub cut: bool,
}

impl Walk {
    /// Steps at which the packet, or a copy, ends.
    pub fn ends(&self) -> impl Iterator<Item = (usize, &Step)> {
        let ends = |step: &Step| matches!(step.outcome, Outcome::Arrives(_) | Outcome::Stops(_) | Outcome::Unknown(_));
        self.steps.iter().enumerate().filter(move |(_, step)| ends(step))
    }

    /// The way to a step, from the entry on.
    pub fn way(&self, step: usize) -> Vec<&Step> {
        let mut way = Vec::new();
        let mut next = Some(step);
        while let Some((index, step)) = next.and_then(|index| Some((index, self.steps.get(index)?))) {
            way.push(step);
            // Parents stand before their children, so this ends.
            next = step.parent.filter(|parent| *parent < index);
        }
        way.reverse();
        way
    }
}

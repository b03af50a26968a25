//! Where a packet meets rules, and what they do with it.

use crate::event::IfIndex;
use crate::event::ruleset::{Hook, Layer, RuleReference};
use crate::forward::packet::Packet;
use std::net::IpAddr;

/// Where a packet meets rules.
#[derive(Clone, Copy, Debug)]
pub struct At {
    /// The family of hooks that the kernel calls: `NF_INET` of IPv4 or IPv6 (chains of `ip`/`ip6` and `inet` together), bridge,
    /// ARP, or the device (netdev, and `inet` ingress).
    pub layer: Layer,
    /// Which hook.
    pub hook: Hook,
    /// `meta iif`; the bridge for a routed packet that came in by a bridge.
    pub input: Option<IfIndex>,
    /// `meta oif`.
    pub output: Option<IfIndex>,
    /// The bridge ports for `physdev` and the bridge family, where the frame is bridged.
    pub input_port: Option<IfIndex>,
    /// See `input_port`.
    pub output_port: Option<IfIndex>,
    /// The next hop of a routed packet, where its route is known (`rt_nexthop`).
    pub next_hop: Option<IpAddr>,
}

/// Which devices of a place are known: where they are not, `None` does not mean that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// [`At::input`]
    pub input: bool,
    /// [`At::output`]
    pub output: bool,
    /// [`At::input_port`] and [`At::output_port`]
    pub ports: bool,
}

impl Known {
    /// All of them.
    pub const ALL: Self = Self { input: true, output: true, ports: true };
}

/// What the rules of a hook do with a packet.
#[derive(Clone, Debug)]
pub struct Ruling {
    /// What becomes of it.
    pub fate: Fate,
    /// The packet afterwards: marks, translated addresses, MAC addresses, connection state (`notrack`).
    pub packet: Packet,
    /// Rules that surely took it in order: what accepted, jumped, translated or marked.
    pub taken: Vec<RuleReference>,
}

/// The fate of a packet at a hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fate {
    /// All chains of the hook let it pass.
    Accepted,
    /// A rule or policy drops it.
    Dropped(RuleReference),
    /// A rule rejects it.
    Rejected(RuleReference),
    /// A rule hands it to a queue of user space: queue number, and whether it bypasses where nobody listens.
    Queued(RuleReference, u16, bool),
    /// A rule that may or may not match would decide: which, and what is not known.
    Unknown(RuleReference, String),
}

/// `NF_IP_PRI_CONNTRACK`: in prerouting and output conntrack's hook, before which no connection is known.
pub(super) const CONNTRACK: i32 = -200;

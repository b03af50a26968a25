//! The one vocabulary: everything between the kernel and the sinks is an [`Event`].
//!
//! An event holds names, not numbers of the running kernel (drop reasons, functions, devices are resolved when it is
//! made), so that it can be written to a file and judged again elsewhere with the same result. Nothing that handles
//! events asks the kernel or a clock.
#![forbid(unsafe_code)]

pub mod bond;
pub mod bounds;
pub mod bridge;
pub mod configuration;
pub mod decode;
pub mod encode;
pub mod host;
pub mod names;
pub mod overlay;
pub mod packet;
pub mod policy;
pub mod probe;
pub mod ruleset;
pub mod switch;
pub mod switched;
pub mod units;

pub use host::HostState;
pub use packet::{Address, FlowKey, Protocol};
pub use policy::{PolicyRule, RuleMark};
pub use units::{IfIndex, MacAddress, Nanoseconds, Timestamp, is_link_local, is_self_assigned};

use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Something that the trace learnt, and when.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// When it happened; for counters: when they were read. Never earlier than the [`EventKind::Started`] before it,
    /// but records of several CPUs may stand a little out of order.
    pub time: Timestamp,
    /// What.
    pub kind: EventKind,
}

impl Event {
    /// The flow that it is about; none where it is about the trace, the host, or packets whose flow nobody knows.
    pub fn flow(&self) -> Option<FlowKey> {
        match &self.kind {
            EventKind::Flow(sample) => Some(sample.flow),
            EventKind::Drop(sample) => Some(sample.flow),
            EventKind::Packet(record) => Some(record.flow),
            EventKind::RuleDrop(drop) => Some(drop.flow),
            EventKind::Started(_)
            | EventKind::Host(_)
            | EventKind::Loss(_)
            | EventKind::Degraded(_)
            | EventKind::Command(_)
            | EventKind::Unlisted(_)
            | EventKind::Ended => None,
        }
    }
}

/// What an [`Event`] tells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum EventKind {
    /// The first event of every trace: everything is attached from here on.
    Started(Started),
    /// The host's network as it is now: once right after `Started`, again on each change, and once before `Ended`.
    Host(Arc<HostState>),
    /// The counters of one flow at one place, absolute since the start.
    Flow(FlowSample),
    /// What a drop site took from one flow, absolute since the start.
    Drop(DropSample),
    /// One packet in full: an example of a drop, an ICMP error, a flow's first packet.
    Packet(Box<PacketRecord>),
    /// Which rule took packets from a flow, by nft's own trace (`--trace-rules`).
    RuleDrop(RuleDrop),
    /// What could not be told, absolute since the start.
    Loss(Loss),
    /// A part of the trace is missing.
    Degraded(Degraded),
    /// The last event of a trace that ended in order.
    Ended,
    /// The command that was traced (`--cmd`) has ended. Before `Ended`.
    Command(CommandEnd),
    /// Packets that were counted without their flows, absolute since the start.
    Unlisted(Unlisted),
}

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandEnd {
    /// Its exit status; 128 + N where signal N ended it.
    pub status: i32,
}

/// Who traces, and what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// kvmtrace's version.
    pub version: String,
    /// Devices asked for by name (`-i`), empty for all.
    pub devices: Vec<String>,
    /// Guests asked for by name (`-g`), empty for all.
    pub guests: Vec<String>,
    /// `--all`: also what touches no guest.
    pub all: bool,
    /// The filter expression, empty for none.
    pub filter: String,
    /// All that belongs to the flows that the filter asks for was traced, under any name; else what it takes itself.
    #[serde(default)]
    pub followed: bool,
}

/// Side of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// Received by the device; on a tap: sent by the guest.
    Ingress,
    /// Sent by the device; on a tap: on its way to the guest.
    Egress,
}

/// An observation point: a tc hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Place {
    /// The device.
    pub device: IfIndex,
    /// Its side.
    pub direction: Direction,
}

/// The counters of one flow at one place. Counts are of packets on the wire (a GSO frame is as many as its segments)
/// and absolute since the start of the trace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowSample {
    /// Which flow.
    pub flow: FlowKey,
    /// Seen where.
    pub place: Place,
    /// What was counted.
    pub counters: FlowCounters,
}

/// See [`kvmtrace_common::flow::FlowCounters`], of which this is the decoded form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FlowCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes with the Ethernet header.
    pub bytes: u64,
    /// When the first packet was seen.
    pub first: Timestamp,
    /// Packets that were fragments.
    pub fragments: u32,
    /// Datagrams that came in fragments.
    pub fragmented: u32,
    /// GSO frames.
    pub gso: u32,
    /// Length at layer 3 of the largest packet on the wire, in bytes.
    pub largest: u32,
    /// TCP segments with SYN and without ACK.
    pub tcp_syn: u32,
    /// TCP segments with SYN and ACK.
    pub tcp_syn_ack: u32,
    /// TCP segments with RST.
    pub tcp_reset: u32,
    /// TCP segments with FIN.
    pub tcp_fin: u32,
    /// At least one packet must not be fragmented (DF, or IPv6).
    pub dont_fragment: bool,
    /// At least one packet may be fragmented.
    pub may_fragment: bool,
    /// More than one source MAC address was seen here.
    pub source_mac_changed: bool,
    /// A packet's headers were cut short or malformed.
    pub malformed: bool,
    /// Source MAC address of the first packet.
    pub source_mac: MacAddress,
    /// Destination MAC address of the first packet.
    pub destination_mac: MacAddress,
    /// TTL or hop limit of the first packet.
    pub time_to_live: u8,
    /// TCP segments with bytes that had been here before.
    #[serde(default)]
    pub repeated: u32,
    /// TCP bytes that had been here before.
    #[serde(default)]
    pub repeated_bytes: u64,
    /// TCP bytes that segments before those that came left out: lost before they came here, or late.
    #[serde(default)]
    pub missing_bytes: u64,
}

/// Where in the kernel a packet was dropped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DropSite {
    /// Name of the drop reason in the running kernel, without `SKB_DROP_REASON_`: `NETFILTER_DROP`; null where the
    /// kernel tells none (before 5.17).
    pub reason: Option<String>,
    /// The kernel function, null where kallsyms does not tell.
    pub function: Option<String>,
    /// Offset of the call in that function, in bytes.
    pub offset: u32,
    /// `skb->dev`; null when the packet had none (made on this host).
    pub device: Option<IfIndex>,
}

/// What a drop site took from one flow, absolute since the start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DropSample {
    /// Which flow; the key of the packet as it was when it died (after NAT, say).
    pub flow: FlowKey,
    /// Where.
    pub site: DropSite,
    /// Packets.
    pub packets: u64,
    /// Bytes from the layer-3 header on.
    pub bytes: u64,
    /// When the first was dropped.
    pub first: Timestamp,
    /// Length at layer 3 of the largest packet, in bytes.
    pub largest: u32,
}

/// Why a packet is shown in full.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PacketCause {
    /// It was dropped.
    Dropped {
        /// Where.
        site: DropSite,
        /// Function names, the innermost first.
        stack: Vec<String>,
    },
    /// The first of its flow at this place.
    First,
    /// An ICMP error.
    IcmpError,
    /// It bears another source MAC address than its flow began with.
    MacChanged,
    /// All packets are wanted.
    Wanted,
}

/// One packet as it was seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketRecord {
    /// Why it is shown.
    pub cause: PacketCause,
    /// Its flow.
    pub flow: FlowKey,
    /// Where it was seen; null for drops, whose site tells.
    pub place: Option<Place>,
    /// The device that it came in by, null when it was made on this host.
    pub input_device: Option<IfIndex>,
    /// How many packets this flow has had here so far.
    pub count: u64,
    /// Length in bytes from where `header` begins; of the whole GSO frame if it is one.
    pub length: u32,
    /// Bytes of payload per segment, 0 when it is no GSO frame.
    pub gso_size: u16,
    /// Segments (at least 1).
    pub segments: u16,
    /// `EtherType`.
    pub ether_type: u16,
    /// `header` begins at the Ethernet header (else at layer 3).
    pub ethernet: bool,
    /// The first bytes.
    pub header: Vec<u8>,
}

/// A rule, or a chain's policy, that gave a verdict, as nft's trace names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RuleSite {
    /// Family of the table: `ip`, `ip6`, `inet`, `bridge`, `arp`, `netdev`.
    pub family: String,
    /// Table.
    pub table: String,
    /// The chain of the hook that the packet was at.
    pub base: String,
    /// The chain that the rule is in: `base`, or one that was jumped to from there.
    pub chain: String,
    /// The rule's handle; null for the policy of the chain.
    pub handle: Option<u64>,
}

/// Which rule took packets from a flow. nft's trace is a sample: a few packets per second of each flow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleDrop {
    /// Which flow; the key of the packet as it was at that hook.
    pub flow: FlowKey,
    /// The rule.
    pub rule: RuleSite,
    /// Packets that were traced there since the start, no matter how many were dropped.
    pub packets: u64,
}

/// What could not be told, absolute since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// Records that found the ring full.
    pub ring_events: u64,
    /// Flows that had to make room for others in user space.
    pub flows_evicted: u64,
    /// Packets that found a map full.
    pub map_full: u64,
    /// Messages of nft's trace that found the listener busy (`--trace-rules`).
    #[serde(default)]
    pub rule_messages: u64,
}

/// Packets that were counted without their flows: the kernel's side keeps a share of its tables for each guest, and this
/// one's was used up. The sums are exact; [`Loss::map_full`] has all of them together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unlisted {
    /// Where.
    pub place: UnlistedPlace,
    /// Packets.
    pub packets: u64,
    /// Bytes: at a hook with the Ethernet header, of a drop site from the layer-3 header on.
    pub bytes: u64,
}

/// Where packets were counted without their flows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum UnlistedPlace {
    /// They passed here.
    Hook(Place),
    /// They were dropped here.
    Drop(DropSite),
}

/// A part of the trace is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Degraded {
    /// What is missing: `drop reasons`.
    pub what: String,
    /// Why: `this kernel (5.10.0) has none; they came with 5.17`.
    pub why: String,
}

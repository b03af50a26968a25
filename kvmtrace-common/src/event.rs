//! The records of the ring buffer: exceptions only, one fixed-size record each.

use crate::flow::FlowKey;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of a packet's headers that a record carries at most.
pub const HEADER_BYTES: usize = 160;

/// [`RecordFacts::reason`] on a kernel whose `kfree_skb` tracepoint tells none (before 5.17).
pub const NO_REASON: u32 = u32::MAX;

/// Why a record was made: [`RecordFacts::kind`].
pub struct RecordKind;

impl RecordKind {
    /// `kfree_skb`: the kernel dropped the packet.
    pub const DROP: u32 = 1;
    /// The first packet of a flow at this point. A sample: at most [`FIRST_PER_SLICE`] are made per CPU and time slice,
    /// for a guest may open flows as fast as it sends; the counters know all of them.
    pub const FIRST: u32 = 2;
    /// An ICMP or ICMPv6 error (destination unreachable, too big, time exceeded, …).
    pub const ICMP_ERROR: u32 = 3;
    /// The flow's source MAC address is not the one that it began with.
    pub const MAC_CHANGED: u32 = 4;
    /// A packet like any other: every packet is wanted (`record --packets`).
    pub const PACKET: u32 = 5;
}

/// At most so many [`RecordKind::FIRST`] records per CPU in a time slice.
pub const FIRST_PER_SLICE: u64 = 32;
/// Length of that time slice: 2^26 ns are 67 ms.
pub const FIRST_SLICE_SHIFT: u32 = 26;

/// Where [`Record::header`] begins: [`RecordFacts::layer`].
pub struct Layer;

impl Layer {
    /// At the Ethernet header.
    pub const ETHERNET: u8 = 2;
    /// At the IP or ARP header; [`RecordFacts::ether_type`] tells which.
    pub const NETWORK: u8 = 3;
}

/// A packet's first bytes.
#[repr(C, align(8))]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Header {
    /// The bytes; how many of them are the packet's is told beside it.
    pub bytes: [u8; HEADER_BYTES],
}

/// One record of the ring buffer.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct Record {
    /// Why, when and where.
    pub facts: RecordFacts,
    /// The packet's first bytes.
    pub header: Header,
}

/// A [`Record`] but for the packet's bytes.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct RecordFacts {
    /// When (`CLOCK_MONOTONIC`).
    pub time_ns: u64,
    /// Drop: the address of the instruction that freed the packet; else 0.
    pub location: u64,
    /// Drop: how many packets this site has taken from this flow so far; else how many packets the flow has had at
    /// this point; on this CPU. Records are made at 1, 2, 4, 8, … so that a flood can't fill the ring.
    pub count: u64,
    /// The flow, the device and the direction.
    pub flow: FlowKey,
    /// See [`RecordKind`].
    pub kind: u32,
    /// Drop: `enum skb_drop_reason` of the running kernel, or [`NO_REASON`].
    pub reason: u32,
    /// Drop: bytes of [`DropRecord::stack`] that are filled; else 0.
    pub stack_bytes: u32,
    /// Length in bytes from the layer that `layer` names.
    pub length: u32,
    /// The device that the packet came in by (`skb->skb_iif`), 0 when it was made on this host.
    pub input_ifindex: u32,
    /// Bytes of payload in each segment of a GSO frame, 0 when it is none.
    pub gso_size: u16,
    /// Number of segments of a GSO frame (at least 1).
    pub segments: u16,
    /// `EtherType` of the packet.
    pub ether_type: u16,
    /// Bytes of [`Record::header`] that are filled.
    pub header_length: u16,
    /// See [`Layer`].
    pub layer: u8,
    /// `skb->pkt_type` (`if_packet.h`): 0 for us, 1 broadcast, 2 multicast, 3 for another host, 4 outgoing.
    pub packet_type: u8,
    /// Zero.
    pub _pad: [u8; 2],
}

/// Depth of the stack that a drop is shown with.
pub const STACK_DEPTH: usize = 32;

/// The record of a drop: [`Record`] and how the kernel came there.
#[repr(C)]
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DropRecord {
    /// The packet.
    pub record: Record,
    /// Return addresses, the innermost first.
    pub stack: [u64; STACK_DEPTH],
}

/// What the programs could not tell, a count each: the index in the `LOSSES` array.
pub struct LossIndex;

impl LossIndex {
    /// The ring buffer was full.
    pub const RING_EVENTS: u32 = 0;
    /// The flow map, or the share of it that a packet's device and addresses have, was full: packets that were counted for
    /// their device only.
    pub const FLOW_MAP_FULL: u32 = 1;
    /// The same of the drop map: packets that were counted for their drop site only.
    pub const DROP_MAP_FULL: u32 = 2;
    /// Number of counters.
    pub const COUNT: u32 = 3;
}

/// Packets that no entry could be made for: of a device, by [`overflow_key`]; of a drop site, by [`DropPlace`].
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct OverflowCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// A drop site at a device, and the CPU that counted: whatever the flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DropPlace {
    /// The address of the instruction that freed the packet.
    pub location: u64,
    /// `skb->dev`, 0 when that is null.
    pub ifindex: u32,
    /// `enum skb_drop_reason` of the running kernel, or [`NO_REASON`].
    pub reason: u32,
    /// The CPU.
    pub cpu: u32,
    /// Zero.
    pub _pad: u32,
}

/// The key of [`OverflowCounters`] at a hook: the observation point and the CPU.
#[inline(always)]
pub fn overflow_key(ifindex: u32, direction: u8, cpu: u16) -> u64 {
    u64::from(ifindex) << 32 | u64::from(direction) << 16 | u64::from(cpu)
}

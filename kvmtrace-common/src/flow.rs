//! The key and the counters of a flow at one observation point.

use crate::config::HOT_SHIFT;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What kind of addresses a [`FlowKey`] holds.
pub struct Family;

impl Family {
    /// Neither IP nor ARP: the MAC addresses fill the first six bytes of the addresses, `source_port` is the EtherType.
    pub const ETHERNET: u8 = 0;
    /// IPv4.
    pub const IPV4: u8 = 4;
    /// IPv6.
    pub const IPV6: u8 = 6;
    /// ARP for IPv4: the sender's and the target's protocol address; `protocol` is the operation (1 request, 2 reply).
    pub const ARP: u8 = 1;
}

/// Where on a device a packet was seen.
pub struct Direction;

impl Direction {
    /// Received by the device: on a tap, that is what the guest sent.
    pub const INGRESS: u8 = 0;
    /// Sent by the device: on a tap, that is what goes to the guest.
    pub const EGRESS: u8 = 1;
    /// Not a tc hook: the key of a drop.
    pub const DROP: u8 = 2;
}

/// `FlowKey::vlan` of an untagged frame.
pub const NO_VLAN: u16 = 0xffff;

/// One direction of one conversation at one observation point, as one CPU saw it.
///
/// The CPU is part of the key so that no two ever write one entry: plain additions are exact, and cost no locked
/// instruction (which stable Rust could not express for BPF either). The loader adds the CPUs up.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowKey {
    /// Source address, see [`Family`].
    pub source: [u8; 16],
    /// Destination address, see [`Family`].
    pub destination: [u8; 16],
    /// TCP, UDP or SCTP source port; ICMP echo: the identifier; ICMP error: a hash of the flow that it is about;
    /// Ethernet: the `EtherType`; else 0.
    pub source_port: u16,
    /// Destination port; ICMP and ICMPv6: `type << 8 | code`; else 0.
    pub destination_port: u16,
    /// VLAN id of the outermost tag (0–4095), [`NO_VLAN`] when untagged.
    pub vlan: u16,
    /// See [`Family`].
    pub family: u8,
    /// IP protocol number (the last IPv6 header's), or the ARP operation.
    pub protocol: u8,
    /// The device that saw it.
    pub ifindex: u32,
    /// See [`Direction`].
    pub direction: u8,
    /// Zero.
    pub _pad: u8,
    /// The CPU that counted.
    pub cpu: u16,
}

/// `FlowCounters::flags`.
pub struct FlowFlags;

impl FlowFlags {
    /// A packet had the don't-fragment bit (all IPv6 packets count as such).
    pub const DONT_FRAGMENT: u32 = 1 << 0;
    /// A packet without the don't-fragment bit was seen.
    pub const MAY_FRAGMENT: u32 = 1 << 1;
    /// Two different source MAC addresses sent this flow at this point.
    pub const SOURCE_MAC_CHANGED: u32 = 1 << 2;
    /// Headers were cut short or malformed.
    pub const MALFORMED: u32 = 1 << 3;
}

/// What was counted of a flow at one observation point since the programs were attached. All counts are of packets on
/// the wire: a GSO frame counts as the segments that it will become.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct FlowCounters {
    /// Packets.
    pub packets: u64,
    /// Bytes with the Ethernet header, where the device has one.
    pub bytes: u64,
    /// When the first packet was seen.
    pub first_ns: u64,
    /// Packets that were fragments, the first ones included.
    pub fragments: u32,
    /// First fragments: the number of datagrams that came in pieces.
    pub fragmented: u32,
    /// Socket buffers with GSO (each holds several packets).
    pub gso: u32,
    /// Length at layer 3 of the largest packet on the wire (for GSO: of the largest segment).
    pub largest: u32,
    /// TCP segments with SYN and without ACK.
    pub tcp_syn: u32,
    /// TCP segments with SYN and ACK.
    pub tcp_syn_ack: u32,
    /// TCP segments with RST.
    pub tcp_reset: u32,
    /// TCP segments with FIN.
    pub tcp_fin: u32,
    /// See [`FlowFlags`].
    pub flags: u32,
    /// Source MAC address of the first packet; zero where the device has no Ethernet header.
    pub source_mac: [u8; 6],
    /// Destination MAC address of the first packet; zero where the device has no Ethernet header.
    pub destination_mac: [u8; 6],
    /// TTL or hop limit of the first packet.
    pub time_to_live: u8,
    /// Zero.
    pub _pad: [u8; 3],
    /// `skb->skb_iif` of the first packet: its share of the map depends on it, see [`crate::share`].
    pub input_ifindex: u32,
    /// TCP bytes that had been here before: a segment is sent again when its acknowledgement does not come (RFC 9293).
    pub repeated_bytes: u64,
    /// TCP bytes that the segments before left out; they were lost before they came here, or come late.
    pub missing_bytes: u64,
    /// TCP segments with bytes that had been here before.
    pub repeated: u32,
    /// The TCP sequence number behind the last byte that was seen.
    pub sequence: u32,
}

/// A flow and what was counted of it: an entry of the hot table.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct HotFlow {
    /// Whose.
    pub key: FlowKey,
    /// How much; the entry is free as long as [`FlowCounters::packets`] is 0.
    pub counters: FlowCounters,
}

/// A [`FlowKey`] in pieces that compare and mix fast.
pub type KeyWords = [u64; size_of::<FlowKey>() / size_of::<u64>()];

impl FlowKey {
    /// Its bytes.
    #[inline(always)]
    pub fn words(self) -> KeyWords {
        zerocopy::transmute!(self)
    }

    /// The key with these bytes.
    #[inline(always)]
    pub fn from_words(words: KeyWords) -> Self {
        zerocopy::transmute!(words)
    }
}

/// The fifth of [`FlowKey::words`]. Put together here rather than in a key: what a processor has just stored in small
/// pieces it is slow to load as one. (On a little-endian machine: BPF programs are built for those.)
#[inline(always)]
pub fn transport_word(source_port: u16, destination_port: u16, vlan: u16, family: u8, protocol: u8) -> u64 {
    u64::from(source_port)
        | u64::from(destination_port) << 16
        | u64::from(vlan) << 32
        | u64::from(family) << 48
        | u64::from(protocol) << 56
}

/// The last of [`FlowKey::words`], likewise.
#[inline(always)]
pub fn place_word(ifindex: u32, direction: u8, cpu: u16) -> u64 {
    u64::from(ifindex) | u64::from(direction) << 32 | u64::from(cpu) << 48
}

/// The one entry of the hot table that this flow can have.
///
/// Who knows the multipliers can choose flows that share an entry; all but the first of them are then counted in the
/// map, as they would be without the table.
#[inline(always)]
pub fn hot_index(words: &KeyWords, cpu: u16) -> u32 {
    // Odd numbers without a pattern (SHA-512's constants). The products don't wait for one another, and the high bits of
    // their sum depend on all bits of all words.
    let [a, b, c, d, e, f] = *words;
    let mixed = (a.wrapping_mul(0x428a_2f98_d728_ae23))
        .wrapping_add(b.wrapping_mul(0x7137_4491_23ef_65cd))
        .wrapping_add(c.wrapping_mul(0xb5c0_fbcf_ec4d_3b2f))
        .wrapping_add(d.wrapping_mul(0xe9b5_dba5_8189_dbbd))
        .wrapping_add(e.wrapping_mul(0x3956_c25b_f348_b539))
        .wrapping_add(f.wrapping_mul(0x59f1_11f1_b605_d019));
    (u32::from(cpu) << HOT_SHIFT) | (mixed >> (64 - HOT_SHIFT)) as u32
}

/// A drop site as one flow suffers it.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DropKey {
    /// The flow; its `ifindex` is `skb->dev` (0 when that is null), its direction [`Direction::DROP`].
    pub flow: FlowKey,
    /// The address of the instruction that freed the packet.
    pub location: u64,
    /// `enum skb_drop_reason` of the running kernel; [`crate::event::NO_REASON`] where it has none.
    pub reason: u32,
    /// Zero.
    pub _pad: u32,
}

/// What a drop site took from a flow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
pub struct DropCounters {
    /// Packets (GSO frames count as their segments).
    pub packets: u64,
    /// Bytes from the layer-3 header on.
    pub bytes: u64,
    /// When the first was dropped.
    pub first_ns: u64,
    /// Length at layer 3 of the largest packet dropped.
    pub largest: u32,
    /// `skb->skb_iif` of the first packet: its share of the map depends on it, see [`crate::share`].
    pub input_ifindex: u32,
}

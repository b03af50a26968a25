//! What the loader tells the programs before they are loaded: frozen constants (`Global`, set by `override_global`).
//!
//! Offsets come from the running kernel's BTF. A frozen constant lets the verifier fold `skb + offset` into a plain
//! typed load, which needs no `bpf_probe_read_kernel`.

/// Number of flows (per observation point) that the kernel side can count at once.
pub const FLOW_ENTRIES: u32 = 65_536;
/// The hot table has 2^`HOT_SHIFT` entries for each CPU.
pub const HOT_SHIFT: u32 = 10;
/// Number of (flow, drop site) pairs that the kernel side can count at once.
pub const DROP_ENTRIES: u32 = 16_384;
/// The table of shares has 2^`SHARE_SHIFT` entries.
pub const SHARE_SHIFT: u32 = 14;
/// Number of (device, direction) pairs whose packets are counted on one CPU without their flows.
pub const OVERFLOW_ENTRIES: u32 = 8_192;
/// Number of (device, drop site) pairs whose packets are counted on one CPU without their flows.
pub const DROP_OVERFLOW_ENTRIES: u32 = 4_096;
/// Size of the ring buffer in bytes (a power of two, a multiple of the page size).
pub const RING_BYTES: u32 = 1 << 22;
/// The same where every packet is a record.
pub const RING_BYTES_EVERY_PACKET: u32 = 1 << 25;
/// Number of datagrams in fragments whose ports are remembered for their later fragments.
pub const FRAGMENT_ENTRIES: u32 = 4_096;

/// Names of the frozen constants, `u32` where nothing else is said: offsets in bytes from the start of the structure that the name begins with.
pub mod global {
    /// `net.ns.inum` of the network namespace to trace.
    pub const NETNS_INUM: &str = "NETNS_INUM";
    /// 1: trace every network namespace.
    pub const ALL_NETNS: &str = "ALL_NETNS";
    /// 1 when the `kfree_skb` tracepoint has a reason as its third argument.
    pub const HAS_REASON: &str = "HAS_REASON";
    /// Number of instructions in the filter, 0 for none (then the filter's map need not be looked up at all).
    pub const FILTER_LENGTH: &str = "FILTER_LENGTH";
    /// 1: a record per packet.
    pub const EVERY_PACKET: &str = "EVERY_PACKET";
    /// 1: a record for each dropped packet.
    pub const EVERY_DROP: &str = "EVERY_DROP";

    /// `u64`: makes the table of shares unpredictable.
    pub const SHARE_SALT: &str = "SHARE_SALT";

    /// `sk_buff.dev`
    pub const SKB_DEV: &str = "SKB_DEV";
    /// `sk_buff.sk`
    pub const SKB_SK: &str = "SKB_SK";
    /// `sk_buff.len`
    pub const SKB_LEN: &str = "SKB_LEN";
    /// `sk_buff.data`
    pub const SKB_DATA: &str = "SKB_DATA";
    /// `sk_buff.head`
    pub const SKB_HEAD: &str = "SKB_HEAD";
    /// `sk_buff.end` (an offset from `head` on 64-bit kernels)
    pub const SKB_END: &str = "SKB_END";
    /// `sk_buff.protocol`
    pub const SKB_PROTOCOL: &str = "SKB_PROTOCOL";
    /// `sk_buff.mac_header`
    pub const SKB_MAC_HEADER: &str = "SKB_MAC_HEADER";
    /// `sk_buff.network_header`
    pub const SKB_NETWORK_HEADER: &str = "SKB_NETWORK_HEADER";
    /// `sk_buff.skb_iif`
    pub const SKB_IIF: &str = "SKB_IIF";
    /// `sk_buff.vlan_tci`
    pub const SKB_VLAN_TCI: &str = "SKB_VLAN_TCI";
    /// `sk_buff.vlan_proto` (0 when no tag is present beside the data, on every kernel since 5.10)
    pub const SKB_VLAN_PROTO: &str = "SKB_VLAN_PROTO";
    /// The byte that holds the bit-field `sk_buff.pkt_type` in its low three bits
    pub const SKB_PKT_TYPE: &str = "SKB_PKT_TYPE";
    /// `net_device.ifindex`
    pub const DEV_IFINDEX: &str = "DEV_IFINDEX";
    /// `net_device.type`
    pub const DEV_TYPE: &str = "DEV_TYPE";
    /// `net_device.nd_net.net`
    pub const DEV_NET: &str = "DEV_NET";
    /// `net.ns.inum`
    pub const NET_INUM: &str = "NET_INUM";
    /// `sock.__sk_common.skc_net.net`
    pub const SOCK_NET: &str = "SOCK_NET";
    /// `sock.__sk_common.skc_family`
    pub const SOCK_FAMILY: &str = "SOCK_FAMILY";
    /// `skb_shared_info.gso_size`
    pub const SHINFO_GSO_SIZE: &str = "SHINFO_GSO_SIZE";
    /// `skb_shared_info.gso_segs`
    pub const SHINFO_GSO_SEGS: &str = "SHINFO_GSO_SEGS";
}

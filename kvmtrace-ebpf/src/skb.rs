//! `struct sk_buff` by the running kernel's BTF: the loader sets every offset before the programs are loaded, and the
//! verifier folds the frozen constants into typed loads. A program whose offset points at something else is refused
//! by the verifier, not wrong.

use aya_ebpf::Global;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use kvmtrace_common::parse::has_ethernet_header;

macro_rules! globals {
    ($($name:ident),* $(,)?) => {
        $(#[unsafe(no_mangle)] static $name: Global<u32> = Global::new(0);)*

        // The names are spelled in two crates; this keeps them the same.
        const _: () = {
            $(assert!(matches!(kvmtrace_common::config::global::$name.as_bytes(), name if same(name, stringify!($name).as_bytes())));)*
        };
    };
}

const fn same(left: &[u8], right: &[u8]) -> bool {
    let mut index = 0;
    while index < left.len() && index < right.len() && left[index] == right[index] {
        index += 1;
    }
    index == left.len() && index == right.len()
}

globals!(
    NETNS_INUM,
    ALL_NETNS,
    SKB_DEV,
    SKB_SK,
    SKB_LEN,
    SKB_DATA,
    SKB_HEAD,
    SKB_END,
    SKB_PROTOCOL,
    SKB_MAC_HEADER,
    SKB_NETWORK_HEADER,
    SKB_IIF,
    SKB_VLAN_TCI,
    SKB_VLAN_PROTO,
    SKB_PKT_TYPE,
    DEV_IFINDEX,
    DEV_TYPE,
    DEV_NET,
    NET_INUM,
    SOCK_NET,
    SOCK_FAMILY,
    SHINFO_GSO_SIZE,
    SHINFO_GSO_SEGS,
);

/// `sk_buff.mac_header` when there is none.
const NO_MAC_HEADER: u16 = u16::MAX;
/// An Ethernet header without and with two tags.
const ETHERNET: core::ops::RangeInclusive<u32> = 14..=22;
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// A socket buffer, as a `tp_btf` program gets it.
#[derive(Clone, Copy)]
pub(crate) struct SocketBuffer(*const u8);

/// A typed load at a frozen offset.
///
/// # Safety
/// `base` must come from the tracepoint's arguments (or a load from there), so that the verifier knows its type, and the
/// offset must be of a member of type `T`. The kernel turns a bad address into zero.
#[inline(always)]
unsafe fn load<T: Copy>(base: *const u8, offset: &Global<u32>) -> T {
    // SAFETY: as above.
    unsafe { *base.add(offset.load() as usize).cast::<T>() }
}

impl SocketBuffer {
    /// Wraps the first argument of `kfree_skb`.
    #[inline(always)]
    pub(crate) fn new(address: *const u8) -> Self {
        Self(address)
    }

    /// The index of its device in the traced namespace: 0 when it has no device but a socket there, null when it
    /// belongs to another namespace or is no packet of a network at all (netlink, unix).
    #[inline(always)]
    pub(crate) fn traced_device(self) -> Option<u32> {
        // SAFETY: the offsets are of sk_buff.dev, net_device.nd_net.net, net_device.ifindex, sk_buff.sk,
        // sock.__sk_common.{skc_family, skc_net.net}, net.ns.inum.
        unsafe {
            let device: *const u8 = load(self.0, &SKB_DEV);
            if !device.is_null() {
                let net: *const u8 = load(device, &DEV_NET);
                return (is_traced(net)).then(|| load::<u32>(device, &DEV_IFINDEX));
            }
            let socket: *const u8 = load(self.0, &SKB_SK);
            if socket.is_null() {
                return None;
            }
            let family: u16 = load(socket, &SOCK_FAMILY);
            if family != AF_INET && family != AF_INET6 {
                return None;
            }
            let net: *const u8 = load(socket, &SOCK_NET);
            is_traced(net).then_some(0)
        }
    }

    /// The facts about it.
    #[inline(always)]
    pub(crate) fn facts(self) -> Facts {
        // SAFETY: the offsets are of members of sk_buff and net_device, of these types on every kernel since 5.10
        // (mac_header, network_header and the device's type are u16, end is an offset on 64-bit kernels).
        unsafe {
            let head: u64 = load(self.0, &SKB_HEAD);
            let data: u64 = load(self.0, &SKB_DATA);
            let end: u32 = load(self.0, &SKB_END);
            let mac: u16 = load(self.0, &SKB_MAC_HEADER);
            let network = u32::from(load::<u16>(self.0, &SKB_NETWORK_HEADER));
            let vlan_proto: u16 = load(self.0, &SKB_VLAN_PROTO);
            let vlan_tci: u16 = load(self.0, &SKB_VLAN_TCI);
            let data_offset = data.wrapping_sub(head) as u32;
            let network = if network == 0 { data_offset } else { network };
            // Before the inner packet of a tunnel without Ethernet lies what was the outer one's header: IPsec moves that
            // up to it (skb_mac_header_rebuild), GRE leaves its own there (skb_pop_mac_header).
            let device: *const u8 = load(self.0, &SKB_DEV);
            let may_have_one = device.is_null() || has_ethernet_header(load(device, &DEV_TYPE));
            let ethernet = if mac == NO_MAC_HEADER || !may_have_one { 0 } else { network.wrapping_sub(u32::from(mac)) };
            Facts {
                head,
                end,
                network,
                ethernet: if ETHERNET.contains(&ethernet) { ethernet } else { 0 },
                length: load::<u32>(self.0, &SKB_LEN).wrapping_add(data_offset).wrapping_sub(network),
                ether_type: u16::from_be(load(self.0, &SKB_PROTOCOL)),
                vlan: if vlan_proto == 0 { kvmtrace_common::flow::NO_VLAN } else { vlan_tci & 0x0fff },
                input_ifindex: load(self.0, &SKB_IIF),
                packet_type: load::<u8>(self.0, &SKB_PKT_TYPE) & 7,
            }
        }
    }
}

/// # Safety
/// `net` must come from a typed load of a `struct net *`.
#[inline(always)]
unsafe fn is_traced(net: *const u8) -> bool {
    if ALL_NETNS.load() == 1 {
        return true;
    }
    if net.is_null() {
        return false;
    }
    // SAFETY: the offset is of net.ns.inum.
    unsafe { load::<u32>(net, &NET_INUM) == NETNS_INUM.load() }
}

/// What a socket buffer says of itself.
pub(crate) struct Facts {
    /// Address of its memory.
    pub(crate) head: u64,
    /// Where its memory ends and `skb_shared_info` begins, from `head`.
    end: u32,
    /// Where its layer-3 header begins, from `head`.
    pub(crate) network: u32,
    /// Bytes of an Ethernet header before that; 0 when there is none.
    pub(crate) ethernet: u32,
    /// Bytes from layer 3 on, of the whole GSO frame if it is one.
    pub(crate) length: u32,
    /// `EtherType`.
    pub(crate) ether_type: u16,
    /// The VLAN tag beside the data.
    pub(crate) vlan: u16,
    /// `skb_iif`.
    pub(crate) input_ifindex: u32,
    /// `pkt_type`.
    pub(crate) packet_type: u8,
}

impl Facts {
    /// `gso_size` and `gso_segs`.
    #[inline(always)]
    pub(crate) fn gso(&self) -> (u16, u16) {
        let shared = self.head.wrapping_add(u64::from(self.end));
        let (mut size, mut segments) = (0u16, 0u16);
        // SAFETY: the helper checks the source; the destinations are ours and of that size.
        unsafe {
            let read = |to: *mut u16, offset: &Global<u32>| {
                bpf_probe_read_kernel(to.cast(), 2, (shared.wrapping_add(u64::from(offset.load()))) as *const _)
            };
            if read(&raw mut size, &SHINFO_GSO_SIZE) != 0 || read(&raw mut segments, &SHINFO_GSO_SEGS) != 0 {
                return (0, 0);
            }
        }
        (size, segments)
    }
}

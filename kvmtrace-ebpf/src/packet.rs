//! A packet's first bytes, brought into a buffer of fixed size that the shared parser reads.

use crate::error::Error;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::bpf_hdr_start_off::BPF_HDR_START_NET;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes, bpf_skb_load_bytes_relative};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TcContext;
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::FlowCounters;
use kvmtrace_common::parse::{self, ETHERNET_HEADER, Parsed};
use kvmtrace_common::quick::Bytes;

/// Where a program works: the BPF stack has 512 bytes, too few for this.
pub(crate) struct Workspace {
    /// The packet's first bytes.
    pub(crate) header: Header,
    /// What they say.
    pub(crate) parsed: Parsed,
    /// A new flow's counters.
    pub(crate) counters: FlowCounters,
}

/// One for the tc programs and one for the drop program, which may interrupt them.
#[map]
static WORKSPACES: PerCpuArray<Workspace> = PerCpuArray::with_max_entries(2, 0);
const TC: u32 = 0;
const DROP: u32 = 1;

#[inline(always)]
fn workspace(index: u32) -> Result<&'static mut Workspace, Error> {
    let workspace = WORKSPACES.get_ptr_mut(index).ok_or(Error::Skipped)?;
    // SAFETY: a valid pointer into the map, which lives as long as the program. Any bytes are a valid value. It is this
    // CPU's own, and neither tc programs nor the drop program interrupt themselves on one CPU.
    Ok(unsafe { &mut *workspace })
}

/// A packet's linear part, read where it lies.
pub(crate) struct InPlace {
    data: usize,
    end: usize,
}

impl InPlace {
    #[inline(always)]
    pub(crate) fn new(context: &TcContext) -> Self {
        Self { data: context.data(), end: context.data_end() }
    }

    /// The source MAC address.
    #[inline(always)]
    pub(crate) fn source_mac(&self) -> [u8; 6] {
        let ([a, b, c, d], [e, f]) = (self.four(6).to_ne_bytes(), self.two(10).to_ne_bytes());
        [a, b, c, d, e, f]
    }

    /// The kernel admits this program only where the processor reads such a number from any address. Volatile, or the
    /// compiler would read byte by byte.
    #[inline(always)]
    fn read<T: Copy>(&self, at: usize) -> T {
        // SAFETY: the verifier refuses a program that reads what it has not compared with the packet's end.
        unsafe { ((self.data + at) as *const T).read_volatile() }
    }
}

impl Bytes for InPlace {
    #[inline(always)]
    fn has(&self, count: usize) -> bool {
        self.data + count <= self.end
    }

    #[inline(always)]
    fn byte(&self, at: usize) -> u8 {
        self.read(at)
    }

    #[inline(always)]
    fn two(&self, at: usize) -> u16 {
        self.read(at)
    }

    #[inline(always)]
    fn four(&self, at: usize) -> u32 {
        self.read(at)
    }

    #[inline(always)]
    fn eight(&self, at: usize) -> u64 {
        self.read(at)
    }
}

/// Shorter frames are none.
const LEAST: u32 = ETHERNET_HEADER as u32;
/// Bytes that the tc programs look at: enough for Ethernet, a VLAN tag, IPv6, an ICMP error and the header inside.
const TC_BYTES: u32 = 128;
/// An IPv4 header without options; shorter packets are none, and an IPv6 header's beginning with the lengths.
const IP_HEADER: u32 = 20;

/// `length`, but no more than the programs look at, and no less than `LEAST`, which the caller has asserted.
#[inline(always)]
fn bounded<const LEAST: u32>(length: u32) -> u32 {
    // The verifiers of 5.10 and 6.1 learn least and greatest from the sum, wherever the compiler keeps it. Hidden from the
    // compiler, which would see that the mask changes nothing and leave it out.
    let beyond = if length < TC_BYTES { length - LEAST } else { TC_BYTES - LEAST };
    (core::hint::black_box(beyond) & 0x7f) + LEAST
}

/// The first bytes of a packet at a tc hook, from its Ethernet header on, and how many of them are the packet's.
#[inline(always)]
pub(crate) fn from_tc(context: &TcContext) -> Result<(&'static mut Workspace, u32), Error> {
    let workspace = workspace(TC)?;
    let length = context.len();
    if length < LEAST {
        return Err(Error::Skipped);
    }
    let available = bounded::<LEAST>(length);
    load(context, &mut workspace.header, available)?;
    Ok((workspace, available))
}

/// The first bytes of a packet at a tc hook of a device without an Ethernet header, from its layer-3 header on, and how
/// many of them are the packet's.
///
/// The layer-3 header is where the socket buffer says. Often that is where its data begins, but a tunnel may have left the
/// outer headers before it: at ingress the hook pushes `skb->mac_len` bytes, which are 24 for GRE (`skb_pop_mac_header` in
/// `__ipgre_rcv`), 14 for an XFRM device (`skb_mac_header_rebuild`), and more for IPIP and SIT before 5.14; at egress
/// `ipgre_header` has pushed the outer header of a GRE device without a remote.
#[inline(always)]
pub(crate) fn from_tc_at_layer_3(context: &TcContext) -> Result<(&'static mut Workspace, u32), Error> {
    let workspace = workspace(TC)?;
    let header = &mut workspace.header;
    let length = context.len();
    if length < IP_HEADER {
        return Err(Error::Skipped);
    }
    let most = bounded::<IP_HEADER>(length);
    if load_at_layer_3(context, header, most).is_ok() {
        return Ok((workspace, most));
    }
    // Less than that is the packet's: its own header says how much.
    load_at_layer_3(context, header, IP_HEADER)?;
    let length = parse::length_at_layer_3(header);
    if length > IP_HEADER && length < TC_BYTES {
        let whole = bounded::<IP_HEADER>(length);
        if load_at_layer_3(context, header, whole).is_ok() {
            return Ok((workspace, whole));
        }
        load_at_layer_3(context, header, IP_HEADER)?;
    }
    // Or the rest lies in fragments of the socket buffer, which only the other helper reads: that begins at the data.
    let begin = beginning(header);
    if load(context, header, most).is_ok() && beginning(header) == begin {
        return Ok((workspace, most));
    }
    load_at_layer_3(context, header, IP_HEADER)?;
    Ok((workspace, IP_HEADER))
}

/// The bytes that every IP header has.
#[inline(always)]
fn beginning(header: &Header) -> [u64; 2] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, ..] = header.bytes;
    [u64::from_ne_bytes([a, b, c, d, e, f, g, h]), u64::from_ne_bytes([i, j, k, l, m, n, o, p])]
}

/// Reads so many bytes, at most [`TC_BYTES`], from where the packet's data begins.
#[inline(always)]
fn load(context: &TcContext, header: &mut Header, length: u32) -> Result<(), Error> {
    // SAFETY: the buffer has HEADER_BYTES ≥ TC_BYTES ≥ length bytes, and the helper writes all of them.
    let result = unsafe { bpf_skb_load_bytes(context.as_ptr(), 0, (&raw mut *header).cast(), length) };
    if result == 0 { Ok(()) } else { Err(Error::Skipped) }
}

/// Reads so many bytes, at most [`TC_BYTES`], from the layer-3 header on.
#[inline(always)]
fn load_at_layer_3(context: &TcContext, header: &mut Header, length: u32) -> Result<(), Error> {
    let to = (&raw mut *header).cast();
    // SAFETY: the buffer has HEADER_BYTES ≥ TC_BYTES ≥ length bytes, and the helper writes all of them.
    let result = unsafe { bpf_skb_load_bytes_relative(context.as_ptr(), 0, to, length, BPF_HDR_START_NET) };
    if result == 0 { Ok(()) } else { Err(Error::Skipped) }
}

/// `length` bytes of kernel memory from `address` on, and how many were read.
#[inline(always)]
pub(crate) fn from_memory(address: u64, length: u32) -> Result<(&'static mut Workspace, u32), Error> {
    let workspace = workspace(DROP)?;
    // In 64 bits, so that the comparison and the helper's argument are one register: the verifier sees the bound. No
    // packet is longer than the mask (GSO_MAX_SIZE is 8 * 65535).
    let length = u64::from(length) & 0xf_ffff;
    let available = if length < HEADER_BYTES as u64 { length } else { HEADER_BYTES as u64 };
    // No header fits in one byte; by size, as above.
    if available < 2 {
        return Err(Error::Skipped);
    }
    let available = available as u32;
    // SAFETY: the buffer has HEADER_BYTES ≥ available bytes; the helper checks the source.
    let result = unsafe { bpf_probe_read_kernel((&raw mut workspace.header).cast(), available, address as *const _) };
    if result != 0 {
        return Err(Error::Skipped);
    }
    Ok((workspace, available))
}

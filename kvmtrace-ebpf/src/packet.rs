//! A packet's first bytes, brought into a buffer of fixed size that the shared parser reads.

use crate::error::Error;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TcContext;
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::FlowCounters;
use kvmtrace_common::parse::{ETHERNET_HEADER, Parsed};
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

/// The first bytes of a packet at a tc hook, from its Ethernet header on, and how many of them are the packet's.
#[inline(always)]
pub(crate) fn from_tc(context: &TcContext) -> Result<(&'static mut Workspace, u32), Error> {
    let workspace = workspace(TC)?;
    let length = context.len();
    if length < LEAST {
        return Err(Error::Skipped);
    }
    // The verifiers of 5.10 and 6.1 learn least and greatest from the sum, wherever the compiler keeps it. Hidden from the
    // compiler, which would see that the mask changes nothing and leave it out.
    let beyond = if length < TC_BYTES { length - LEAST } else { TC_BYTES - LEAST };
    let available = (core::hint::black_box(beyond) & 0x7f) + LEAST;
    // SAFETY: the buffer has HEADER_BYTES ≥ TC_BYTES ≥ available bytes, and the helper writes all or fails.
    let result = unsafe { bpf_skb_load_bytes(context.as_ptr(), 0, (&raw mut workspace.header).cast(), available) };
    if result != 0 {
        return Err(Error::Skipped);
    }
    Ok((workspace, available))
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

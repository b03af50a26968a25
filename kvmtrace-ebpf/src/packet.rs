//! A packet's first bytes, brought into a buffer of fixed size that the shared parser reads.

use crate::error::Error;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skb_load_bytes};
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_ebpf::programs::TcContext;
use kvmtrace_common::event::{HEADER_BYTES, Header};
use kvmtrace_common::flow::FlowCounters;
use kvmtrace_common::parse::Parsed;

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

/// Bytes that the tc programs look at: enough for Ethernet, a VLAN tag, IPv6, an ICMP error and the header inside.
const TC_BYTES: u32 = 128;

/// The first bytes of a packet at a tc hook, from its Ethernet header on, and how many of them are the packet's.
#[inline(always)]
pub(crate) fn from_tc(context: &TcContext) -> Result<(&'static mut Workspace, u32), Error> {
    let workspace = workspace(TC)?;
    let length = context.len();
    let available = if length < TC_BYTES { length } else { TC_BYTES };
    if available == 0 {
        return Err(Error::Skipped);
    }
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
    let available = if length < HEADER_BYTES as u32 { length } else { HEADER_BYTES as u32 };
    if available == 0 {
        return Err(Error::Skipped);
    }
    // SAFETY: the buffer has HEADER_BYTES ≥ available bytes; the helper checks the source.
    let result = unsafe { bpf_probe_read_kernel((&raw mut workspace.header).cast(), available, address as *const _) };
    if result != 0 {
        return Err(Error::Skipped);
    }
    Ok((workspace, available))
}

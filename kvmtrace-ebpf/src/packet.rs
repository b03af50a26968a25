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
    // A comparison by size, not with zero: only from that the verifier of 6.1 learns a least length.
    if length < ETHERNET_HEADER as u32 {
        return Err(Error::Skipped);
    }
    let available = if length < TC_BYTES { length } else { TC_BYTES };
    let buffer: *mut u8 = (&raw mut workspace.header).cast();
    if copy_directly(context, buffer, length) {
        return Ok((workspace, available));
    }
    // SAFETY: the buffer has HEADER_BYTES ≥ TC_BYTES ≥ available bytes, and the helper writes all or fails.
    let result = unsafe { bpf_skb_load_bytes(context.as_ptr(), 0, buffer.cast(), available) };
    if result != 0 {
        return Err(Error::Skipped);
    }
    Ok((workspace, available))
}

/// Copies the packet's first bytes without a call, which most packets allow: their headers lie in one piece. The call
/// would cost as much as parsing. What is shorter than two whole pieces is copied as two that overlap.
#[inline(always)]
fn copy_directly(context: &TcContext, buffer: *mut u8, length: u32) -> bool {
    let (data, end) = (context.data(), context.data_end());
    let length = length as usize;
    // SAFETY: each piece is checked to end within the packet's linear part and within TC_BYTES of the buffer.
    unsafe {
        if length >= 128 && data + 128 <= end {
            copy::<16>(buffer, data);
            return true;
        }
        if (64..128).contains(&length) && data + 64 <= end {
            let rest = (length - 64) & 63;
            let tail = data + rest;
            if tail + 64 <= end {
                copy::<8>(buffer, data);
                copy::<8>(buffer.add(rest), tail);
                return true;
            }
        }
    }
    false
}

/// # Safety
/// So many 8-byte words must be readable and writable. Neither address needs to be aligned: the kernel admits this
/// program only where the processor reads such words anywhere, and one instruction per word is the point.
#[inline(always)]
#[allow(clippy::cast_ptr_alignment, reason = "as said above")]
unsafe fn copy<const WORDS: usize>(to: *mut u8, from: usize) {
    let (to, from) = (to.cast::<u64>(), from as *const u64);
    for word in 0..WORDS {
        // SAFETY: as above. Volatile, or the compiler makes a call of it, and that a loop over bytes.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
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

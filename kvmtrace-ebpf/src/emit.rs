//! Records for the ring buffer.

use crate::error::Error;
use aya_ebpf::EbpfContext as _;
use aya_ebpf::bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::helpers::generated::{bpf_get_stack, bpf_ktime_get_ns};
use aya_ebpf::macros::map;
use aya_ebpf::maps::{PerCpuArray, RingBuf};
use aya_ebpf::programs::BtfTracePointContext;
use core::mem::size_of;
use kvmtrace_common::config::{RING_BYTES, RING_BYTES_EVERY_PACKET};
use kvmtrace_common::event::{
    DropRecord, FIRST_PER_SLICE, FIRST_SLICE_SHIFT, Header, Record, RecordFacts, STACK_DEPTH,
};

#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);

/// Which time slice this CPU is in, and how many first packets it has told in it.
#[map]
static FIRSTS: PerCpuArray<[u64; 2]> = PerCpuArray::with_max_entries(1, 0);

/// The kernel wakes the reader for a record that finds the ring empty.
const WAKE: u64 = 0;
/// Where every packet is a record, the reader looks by itself, and is woken only when the ring fills up meanwhile.
const DO_NOT_WAKE: u64 = BPF_RB_NO_WAKEUP as u64;
/// Once this much lies in the ring.
const FILLED: u64 = RING_BYTES_EVERY_PACKET as u64 / 4;

/// How a packet's record is handed over where every packet is one.
#[inline(always)]
fn quietly() -> u64 {
    let filled = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA));
    // Once for each time that the mark is passed.
    if filled.wrapping_sub(FILLED) < 2 * size_of::<Record>() as u64 {
        u64::from(BPF_RB_FORCE_WAKEUP)
    } else {
        DO_NOT_WAKE
    }
}

/// A record of a tc hook. `every`: each packet has one.
#[inline(always)]
pub(crate) fn packet(every: bool, facts: &mut RecordFacts, header: &Header) -> Result<(), Error> {
    // SAFETY: the helper has no precondition.
    facts.time_ns = unsafe { bpf_ktime_get_ns() };
    let mut entry = EVENTS.reserve::<Record>(0).ok_or(Error::RingFull)?;
    // SAFETY: the reserved record is ours until it is submitted. It is filled in place: the BPF stack is 512 bytes.
    unsafe { fill(entry.as_mut_ptr(), facts, header) };
    entry.submit(if every { quietly() } else { WAKE });
    Ok(())
}

/// A record of a drop, with its stack.
#[inline(always)]
pub(crate) fn drop(context: &BtfTracePointContext, facts: &mut RecordFacts, header: &Header) -> Result<(), Error> {
    // SAFETY: the helper has no precondition.
    facts.time_ns = unsafe { bpf_ktime_get_ns() };
    let mut entry = EVENTS.reserve::<DropRecord>(0).ok_or(Error::RingFull)?;
    let place = entry.as_mut_ptr();
    // SAFETY: the reserved record is ours until it is submitted; the helper writes at most the stack's size, and
    // `stack_bytes` tells how much it wrote.
    unsafe {
        let stack = (&raw mut (*place).stack).cast();
        let written = bpf_get_stack(context.as_ptr(), stack, (STACK_DEPTH * size_of::<u64>()) as u32, 0);
        facts.stack_bytes = if written > 0 { written.cast_unsigned() as u32 } else { 0 };
        fill(&raw mut (*place).record, facts, header);
    }
    entry.submit(WAKE);
    Ok(())
}

/// # Safety
/// `place` must be valid for writing.
#[inline(always)]
unsafe fn fill(place: *mut Record, facts: &RecordFacts, header: &Header) {
    // SAFETY: as above.
    unsafe {
        (&raw mut (*place).facts).write(*facts);
        (&raw mut (*place).header).write(*header);
    }
}

/// This CPU may tell one more first packet now.
#[inline(always)]
pub(crate) fn may_tell_first(now: u64) -> bool {
    let Some(budget) = FIRSTS.get_ptr_mut(0) else { return false };
    let slice = now >> FIRST_SLICE_SHIFT;
    // SAFETY: this CPU's own value; tc programs on one CPU don't interrupt each other.
    unsafe {
        if (*budget)[0] != slice {
            *budget = [slice, 1];
            return true;
        }
        (*budget)[1] += 1;
        (*budget)[1] <= FIRST_PER_SLICE
    }
}

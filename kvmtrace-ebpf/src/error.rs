//! What can go wrong while tracing: it costs a count, never a packet.

use crate::flow::this_cpu;
use aya_ebpf::EbpfContext;
use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
use aya_log_ebpf::debug;
use kvmtrace_common::event::LossIndex;

#[map]
static LOSSES: PerCpuArray<u64> = PerCpuArray::with_max_entries(LossIndex::COUNT, 0);

/// Why a packet was not told in full.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Error {
    /// The ring buffer was full.
    RingFull,
    /// The flow map was full.
    FlowMapFull,
    /// The drop map was full.
    DropMapFull,
    /// There was nothing to read, or it was not ours: no loss.
    Skipped,
}

impl Error {
    /// Counts it, and says so at the 1st, 2nd, 4th, 8th, … of each kind and CPU where `-vv` asks for it. Else the verifier
    /// sees by the frozen level that nothing is to be said, and takes the code out.
    #[inline(always)]
    pub(crate) fn count(self, context: &impl EbpfContext) {
        let index = match self {
            Self::RingFull => LossIndex::RING_EVENTS,
            Self::FlowMapFull => LossIndex::FLOW_MAP_FULL,
            Self::DropMapFull => LossIndex::DROP_MAP_FULL,
            Self::Skipped => return,
        };
        let Some(counter) = LOSSES.get_ptr_mut(index) else { return };
        // SAFETY: the map gave a valid pointer to this CPU's own value, and programs on one CPU don't run at once
        // but for a tracepoint that interrupts: the worst is one count too few.
        let count = unsafe {
            *counter += 1;
            *counter
        };
        if count & (count - 1) != 0 {
            return;
        }
        match self {
            Self::RingFull => debug!(context, "the ring is full: {} records lost on CPU {}", count, this_cpu()),
            Self::FlowMapFull => debug!(context, "the flow map is full: {} packets on CPU {}", count, this_cpu()),
            Self::DropMapFull => debug!(context, "the drop map is full: {} drops on CPU {}", count, this_cpu()),
            Self::Skipped => {}
        }
    }
}

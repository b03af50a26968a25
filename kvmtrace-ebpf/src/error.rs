//! What can go wrong while tracing: it costs a count, never a packet.

use aya_ebpf::macros::map;
use aya_ebpf::maps::PerCpuArray;
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
    /// Counts it.
    #[inline(always)]
    pub(crate) fn count(self) {
        let index = match self {
            Self::RingFull => LossIndex::RING_EVENTS,
            Self::FlowMapFull => LossIndex::FLOW_MAP_FULL,
            Self::DropMapFull => LossIndex::DROP_MAP_FULL,
            Self::Skipped => return,
        };
        if let Some(counter) = LOSSES.get_ptr_mut(index) {
            // SAFETY: the map gave a valid pointer to this CPU's own value, and programs on one CPU don't run at once
            // but for a tracepoint that interrupts: the worst is one count too few.
            unsafe { *counter += 1 };
        }
    }
}

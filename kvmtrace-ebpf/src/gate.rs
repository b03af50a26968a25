//! The switch that makes all programs begin, and stop, at one moment: they are attached one after another, and what one of
//! them counts before the next is there would be missing at that one.

use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

#[map]
static GATE: Array<u32> = Array::with_max_entries(1, 0);

#[inline(always)]
fn limit() -> u32 {
    // SAFETY: the map gave a valid pointer. Volatile: the reader in user space changes it at any time.
    GATE.get_ptr(0).map_or(0, |limit| unsafe { limit.read_volatile() })
}

/// Packets of this device are to be counted. Devices that are attached to later have higher indices than those before, so
/// that a limit holds back the new ones only.
#[inline(always)]
pub(crate) fn is_open_for(ifindex: u32) -> bool {
    ifindex < limit()
}

/// Anything is to be counted.
#[inline(always)]
pub(crate) fn is_open() -> bool {
    limit() != 0
}

//! The filter that the operator gave: the loader writes the program into the map and its length into a frozen constant,
//! so that a trace without a filter does not even load the code.

use aya_ebpf::Global;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;
use kvmtrace_common::event::Header;
use kvmtrace_common::filter::{MacAddresses, Program, matches};
use kvmtrace_common::flow::FlowKey;

#[unsafe(no_mangle)]
static FILTER_LENGTH: Global<u32> = Global::new(0);

#[map]
static FILTER: Array<Program> = Array::with_max_entries(1, 0);

/// There is a filter.
#[inline(always)]
pub(crate) fn is_set() -> bool {
    FILTER_LENGTH.load() != 0
}

/// The packet is wanted. `ethernet`: its header begins with the MAC addresses.
#[inline(always)]
pub(crate) fn wants(key: &FlowKey, header: &Header, ethernet: bool) -> bool {
    if !is_set() {
        return true;
    }
    let Some(program) = FILTER.get(0) else { return true };
    let mut mac = MacAddresses { source: [0; 6], destination: [0; 6] };
    if ethernet {
        let [a, b, c, d, e, f, g, h, i, j, k, l, ..] = header.bytes;
        mac = MacAddresses { destination: [a, b, c, d, e, f], source: [g, h, i, j, k, l] };
    }
    matches(program, key, &mac)
}

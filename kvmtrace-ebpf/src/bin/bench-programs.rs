//! Programs to measure kvmtrace's against: one that does nothing, and the naive tracer, which sends one record per
//! packet to user space. Only `cargo xtask bench` loads them.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::needless_pass_by_value,
    reason = "aya's macros make undocumented public functions that take the context"
)]

use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::helpers::generated::bpf_ktime_get_ns;
use aya_ebpf::macros::{classifier, map};
use aya_ebpf::maps::{Array, RingBuf};
use aya_ebpf::programs::TcContext;

/// Room for all records of one measurement, so that none is lost and nobody has to read meanwhile.
const RING_BYTES: u32 = 1 << 24;

#[map]
static RECORDS: RingBuf = RingBuf::with_byte_size(RING_BYTES, 0);
/// Records that did not fit: a measurement that lost any is void.
#[map]
static LOST: Array<u64> = Array::with_max_entries(1, 0);

/// What the naive tracer tells of a packet: 32 bytes.
#[repr(C)]
struct Record {
    time_ns: u64,
    source: u32,
    destination: u32,
    ports: u32,
    length: u32,
    ifindex: u32,
    protocol: u32,
}

#[classifier]
pub fn bench_empty(_context: TcContext) -> i32 {
    TC_ACT_UNSPEC
}

#[classifier]
pub fn bench_naive(context: TcContext) -> i32 {
    if tell(&context).is_none()
        && let Some(lost) = LOST.get_ptr_mut(0)
    {
        // SAFETY: the map gave a valid pointer; one measurement runs on one CPU.
        unsafe { *lost += 1 };
    }
    TC_ACT_UNSPEC
}

/// Assumes IPv4 without options: the naive tracer parses as little as it can.
#[inline(always)]
#[allow(clippy::inline_always, reason = "what the verifier reads must be one function")]
fn tell(context: &TcContext) -> Option<()> {
    const ETHERNET: usize = 14;
    let record = Record {
        // SAFETY: the helper has no precondition.
        time_ns: unsafe { bpf_ktime_get_ns() },
        protocol: u32::from(context.load::<u8>(ETHERNET + 9).ok()?),
        source: context.load(ETHERNET + 12).ok()?,
        destination: context.load(ETHERNET + 16).ok()?,
        ports: context.load(ETHERNET + 20).ok()?,
        length: context.len(),
        // SAFETY: the context's own member; the verifier turns it into a load from the socket buffer.
        ifindex: unsafe { (*context.skb.skb).ifindex },
    };
    let mut entry = RECORDS.reserve::<Record>(0)?;
    entry.write(record);
    // The kernel wakes a reader that has caught up. Here none reads, so waking costs nothing: the comparison favours the
    // naive program.
    entry.submit(0);
    Some(())
}

#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On the host this is a stub: it is there to be checked and linted.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

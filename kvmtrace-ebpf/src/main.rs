//! kvmtrace's kernel side: entry points only. Each gives its context to a module of [`probe`] and ends in one place,
//! whatever happened there: a packet is never changed, delayed or dropped, and a tracing error is a count.
#![cfg_attr(target_arch = "bpf", no_std, no_main)]
#![allow(
    missing_docs,
    unreachable_pub,
    clippy::inline_always,
    clippy::needless_borrows_for_generic_args,
    clippy::needless_pass_by_value,
    clippy::many_single_char_names,
    reason = "aya's macros make undocumented public functions that take their context by value; what the verifier reads must \
              be one function; a key that is borrowed is not copied to the small stack; bytes of an address have no names"
)]

mod emit;
mod error;
mod filter;
mod flow;
mod gate;
mod packet;
mod probe;
mod share;
mod skb;

use aya_ebpf::EbpfContext;
use aya_ebpf::bindings::TC_ACT_UNSPEC;
use aya_ebpf::macros::{btf_tracepoint, classifier, xdp};
use aya_ebpf::programs::{BtfTracePointContext, TcContext, XdpContext};
use error::Error;
use kvmtrace_common::flow::Direction;

/// What a device received.
#[classifier]
pub fn kvmtrace_in(context: TcContext) -> i32 {
    pass(&context, probe::tc::packet(&context, Direction::INGRESS))
}

/// What a device sends.
#[classifier]
pub fn kvmtrace_out(context: TcContext) -> i32 {
    pass(&context, probe::tc::packet(&context, Direction::EGRESS))
}

/// What a device without an Ethernet header received.
#[classifier]
pub fn kvmtrace_in_l3(context: TcContext) -> i32 {
    pass(&context, probe::tc::raw_packet(&context, Direction::INGRESS))
}

/// What a device without an Ethernet header sends.
#[classifier]
pub fn kvmtrace_out_l3(context: TcContext) -> i32 {
    pass(&context, probe::tc::raw_packet(&context, Direction::EGRESS))
}

/// What the kernel drops.
#[btf_tracepoint(function = "kfree_skb")]
pub fn kvmtrace_drop(context: BtfTracePointContext) -> i32 {
    pass(&context, probe::drop::packet(&context))
}

/// A frame of `kvmtrace probe` enters the stack as if the device of the test run had received it. Attached nowhere.
#[xdp]
pub fn kvmtrace_enter(_: XdpContext) -> u32 {
    probe::send::ENTER
}

/// A frame of `kvmtrace probe` goes from a device of kvmtrace's own to the ingress of the probed one.
#[classifier]
pub fn kvmtrace_hand(_: TcContext) -> i32 {
    probe::send::hand_over()
}

/// Whatever happened: the next program decides (`TC_ACT_UNSPEC` is `TCX_NEXT`).
#[inline(always)]
fn pass(context: &impl EbpfContext, result: Result<(), Error>) -> i32 {
    if let Err(error) = result {
        error.count(context);
    }
    TC_ACT_UNSPEC
}

/// The BPF programs are `GPL`-compatible: some helpers ask for it.
#[cfg(target_arch = "bpf")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";

#[cfg(target_arch = "bpf")]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// On the host this crate is a stub: it is there to be checked and linted.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

//! The frames of `kvmtrace probe`: how each enters the stack. No other command loads these programs.

use aya_ebpf::bindings::{BPF_F_INGRESS, TC_ACT_SHOT, xdp_action};
use aya_ebpf::helpers::generated::bpf_redirect;
use aya_ebpf::macros::map;
use aya_ebpf::maps::Array;

/// `BPF_PROG_TEST_RUN` with live frames gives a frame with this answer to `netif_receive_skb_list` (v5.18,
/// `xdp_recv_frames` in `net/bpf/test_run.c`).
pub(crate) const ENTER: u32 = xdp_action::XDP_PASS;

/// The index of the device that is probed.
#[map]
static PROBED: Array<u32> = Array::with_max_entries(1, 0);

/// Sends the frame to the ingress of the probed device (`__bpf_rx_skb` in `net/core/filter.c`), and never further into the
/// device that it came by.
#[inline(always)]
pub(crate) fn hand_over() -> i32 {
    // SAFETY: the map gave a valid pointer to a `u32` that user space wrote before the first frame.
    let probed = PROBED.get_ptr(0).map_or(0, |probed| unsafe { *probed });
    if probed == 0 {
        return TC_ACT_SHOT;
    }
    // SAFETY: the helper has no precondition; a device that is gone makes it drop the frame.
    unsafe { bpf_redirect(probed, u64::from(BPF_F_INGRESS)) as i32 }
}

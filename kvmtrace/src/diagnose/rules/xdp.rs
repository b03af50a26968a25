//! `xdp-drop` of a native program: it runs in the driver, before there is a socket buffer, so no hook sees the packet and no
//! drop is told (`tun_build_skb`, `veth_xdp_rcv_one`). The device's `rx_dropped` grows and nothing comes in.

use crate::diagnose::facts::xdp::{place_of_program, swallowed, swallowed_evidence, swallowed_text};
use crate::diagnose::fix::device::detach_program;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Verdict};

/// The answers to this flow would come in by a device whose program lets nothing pass.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    let device = match case.way() {
        Way::Guest(device) => device,
        Way::Uplink | Way::Routed => case.last_device()?,
        Way::Host | Way::Group | Way::Unknown => return None,
    };
    let (link, count) = swallowed(case.scene, device)?;
    Some(
        Judgement::dropped(Cause::XdpDrop, place_of_program(case.scene, link), swallowed_text(link, count))
            .verdict(Verdict::Unanswered)
            .evidence([swallowed_evidence(link, count)])
            .fix(detach_program(link)),
    )
}

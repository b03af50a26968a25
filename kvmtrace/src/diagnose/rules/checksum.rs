//! `checksum-bad`: the receiver on this host computes another checksum than the packet says.

use crate::diagnose::case::Case;
use crate::diagnose::judgement::{Judgement, at};
use crate::diagnose::report::{Cause, Fix, Point};
use crate::diagnose::words;

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !drop.because(&["UDP_CSUM", "TCP_CSUM", "IP_CSUM", "ICMP_CSUM", "SKB_CSUM", "CSUM"]) {
        return None;
    }
    let layer = match drop.reason() {
        "IP_CSUM" => "IP header",
        "UDP_CSUM" => "UDP",
        "TCP_CSUM" => "TCP",
        "ICMP_CSUM" => "ICMP",
        _ => "packet",
    };
    let device = drop.device().or(case.device())?;
    let explanation = format!("{} bear a wrong {layer} checksum; the host's stack drops them.", words::dropped(case));
    Some(Judgement::dropped(Cause::ChecksumBad, at(case.scene, device, Point::HostInput).of(drop), explanation).fix(Fix::advice(
        "Switch off transmit checksum offload in the guest (ethtool -K IFACE tx off) to see whether its driver or its offload settings are at fault, and update them.",
    )))
}

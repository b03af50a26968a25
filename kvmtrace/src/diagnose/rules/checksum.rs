//! `checksum-bad`: the receiver on this host computes another checksum than the packet says.

use crate::diagnose::facts::place::at;
use crate::diagnose::flows::case::{Case, Way};
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};
use crate::diagnose::words;
use crate::event::Protocol;

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
    let explanation = format!("{} bear a wrong {layer} checksum; the host's stack drops them.", case.dropped_share());
    Some(
        Judgement::dropped(Cause::ChecksumBad, at(case.scene, device, Point::HostInput).of(drop), explanation)
            .fix(offload()),
    )
}

/// UDP that is summed up only as it is read (`udp_recvmsg`) leaves a packet without a device when it fails: the counters
/// tell.
pub fn judge_silent(case: &Case<'_>) -> Option<Judgement> {
    if case.key().protocol != Protocol::Udp || case.way() != Way::Host || case.answered() > 0 {
        return None;
    }
    let name = if case.key().source.ip()?.is_ipv6() { "Udp6.InCsumErrors" } else { "Udp.InCsumErrors" };
    let counter = |host: &crate::event::HostState| host.counters.get(name).copied().unwrap_or(0);
    let grown = counter(case.scene.host).saturating_sub(counter(case.scene.track.first_host()));
    if grown == 0 {
        return None;
    }
    let device = case.bridge().map(|bridge| bridge.index).or(case.device())?;
    let explanation = format!(
        "{} came to this host, which found a wrong UDP checksum in {grown} datagrams meanwhile.",
        words::packets(case.packets())
    );
    Some(
        Judgement::dropped(Cause::ChecksumBad, at(case.scene, device, Point::HostInput), explanation)
            .evidence([format!("{name} +{grown}")])
            .fix(offload()),
    )
}

fn offload() -> Fix {
    Fix::advice(
        "Switch off transmit checksum offload in the guest (ethtool -K IFACE tx off) to see whether its driver or its offload settings are at fault, and update them.",
    )
}

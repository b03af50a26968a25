//! `qdisc-limit`: a queueing discipline's limit, or a NIC that has none to send with (`noop`, no carrier); `netem`.

use crate::diagnose::facts::place::at;
use crate::diagnose::facts::sites::Site;
use crate::diagnose::faults::{netem, port};
use crate::diagnose::fix::device;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point, Severity};
use crate::event::Protocol;

const REASONS: &[&str] = &[
    "QDISC_DROP",
    "QDISC_OVERLIMIT",
    "QDISC_CONGESTED",
    "FQ_BAND_LIMIT",
    "FQ_HORIZON_LIMIT",
    "FQ_FLOW_LIMIT",
    "CPU_BACKLOG",
    "QDISC_BURST_DROP",
];

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    let drop = case.focus.as_ref()?;
    if !(drop.because(REASONS) || drop.is_unspecified() && drop.within(Site::Queue)) {
        return None;
    }
    let link = case.scene.link(drop.device()?)?;
    let what = case.dropped_share();
    let place = at(case.scene, link.index, Point::Qdisc).of(drop);
    if !link.up || !link.carrier || link.qdisc == "noop" {
        return Some(port::dead_link(case, link, place));
    }
    if let Some((link, qdisc)) = netem::of(case, link.index) {
        let judgement = netem::judgement(case, link, qdisc, &format!("{what} were dropped"));
        return Some(Judgement { place, ..judgement });
    }
    let qdisc = case.scene.host.qdiscs.iter().find(|qdisc| qdisc.device == link.index && qdisc.parent == "root");
    let kind = qdisc.map_or(link.qdisc.as_str(), |qdisc| qdisc.kind.as_str());
    let share = drop.totals.packets as f64 / case.packets().max(1) as f64;
    // A shaper drops in order to slow its sender down: TCP sends then as much as it lets through.
    let shapes = ["tbf", "htb", "hfsc", "cake", "cbq"].contains(&kind);
    let adapts = case.key().protocol == Protocol::Tcp && case.answered() >= 3;
    let severity = if adapts && (share < 0.02 || shapes && share < 0.25) {
        Severity::Info
    } else if share < 0.1 {
        Severity::Warning
    } else {
        Severity::Error
    };
    // The limit is for frames (`tbf_enqueue`: `qdisc_pkt_len`).
    let frame = drop.totals.largest.saturating_add(14);
    if let Some((qdisc, burst)) = qdisc.and_then(|qdisc| Some((qdisc, qdisc.burst.filter(|burst| *burst < frame)?))) {
        let explanation = format!(
            "{what} were larger ({frame} bytes) than the burst of the token bucket on {} ({burst} bytes), which no such packet ever passes.",
            link.name
        );
        let setting = qdisc.setting.as_deref().unwrap_or_default();
        return Some(
            Judgement::dropped(Cause::QdiscLimit, place, explanation)
                .severity(severity)
                .evidence([format!("{}: qdisc tbf {} {setting} burst {burst}b", link.name, qdisc.handle)])
                .fix(device::burst(link, setting, burst, frame.max(link.mtu + 14) * 2))
                .fix(device::qdisc_delete(link, qdisc, format!("Removes the {kind} that limits {}.", link.name))),
        );
    }
    let explanation = format!(
        "{what} found the queue of {} full: its queueing discipline {kind} limits the rate or the length.",
        link.name
    );
    let judgement =
        Judgement::dropped(Cause::QdiscLimit, place, explanation).severity(severity).evidence(qdisc.map(|qdisc| {
            format!(
                "{}: qdisc {} {}: {} drops, {} overlimits, backlog {}",
                link.name, qdisc.kind, qdisc.handle, qdisc.drops, qdisc.overlimits, qdisc.backlog
            )
        }));
    let default = ["pfifo_fast", "fq_codel", "noqueue", "mq", "fq"].contains(&kind);
    let judgement = if severity == Severity::Info && shapes {
        judgement.fix(Fix::advice(format!(
            "If the rate of {} is meant, nothing is to be mended: the sender adapts to it.",
            link.name
        )))
    } else {
        judgement
    };
    Some(match qdisc.filter(|_| !default) {
        Some(qdisc) => judgement.fix(device::qdisc_delete(link, qdisc, format!("Removes the {kind} that limits {}.", link.name))),
        None => judgement.fix(Fix::advice(format!("{} is slower than what is sent to it: let the sender send less, or raise the queue (ip link set dev … txqueuelen).", link.name))),
    })
}

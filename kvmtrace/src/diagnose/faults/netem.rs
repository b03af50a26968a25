//! `netem`: a queueing discipline that spoils traffic on purpose, as tests of slow and bad lines do.

use crate::diagnose::facts::place::at;
use crate::diagnose::fix::device;
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Fix, Point};
use crate::event::host::{Link, Qdisc};
use crate::event::{Direction, IfIndex};

/// The netem of a device.
pub fn of<'a>(case: &Case<'a>, device: IfIndex) -> Option<(&'a Link, &'a Qdisc)> {
    let scene = case.scene;
    let qdisc = scene.host.qdiscs.iter().find(|qdisc| qdisc.device == device && qdisc.kind == "netem")?;
    Some((scene.link(device)?, qdisc))
}

/// What is said of packets that it dropped, or that got lost behind it.
pub fn judgement(case: &Case<'_>, link: &Link, qdisc: &Qdisc, does: &str) -> Judgement {
    let setting = qdisc.setting.as_ref().map(|setting| format!(" ({setting})")).unwrap_or_default();
    let explanation = format!(
        "{does} by netem on {}{setting}, which imitates a bad line: somebody set it there on purpose.",
        link.name
    );
    let why = format!("Removes netem from {}.", link.name);
    Judgement::dropped(Cause::Netem, at(case.scene, link.index, Point::Qdisc), explanation)
        .evidence([format!(
            "{}: qdisc netem {} {}",
            link.name,
            qdisc.handle,
            qdisc.setting.as_deref().unwrap_or_default()
        )])
        .fix(device::qdisc_delete(link, qdisc, why))
        .fix(Fix::advice("If a test of bad lines runs here, nothing is to be mended until it ends."))
}

/// Replies are missing and netem is on the way, there or back: what it spoils (`corrupt`), or delays longer than anybody waits, is
/// lost further on, where nobody here sees it.
pub fn instead(case: &Case<'_>, found: Judgement) -> Judgement {
    if found.cause != Cause::NoReply {
        return found;
    }
    let own = case.hops.iter().map(|(place, _)| *place);
    let back = case.answers.iter().flat_map(|flow| flow.places.keys().copied());
    let mut sent = own.chain(back).filter(|place| place.direction == Direction::Egress);
    let Some((link, qdisc)) = sent.find_map(|place| of(case, place.device)) else { return found };
    let does = format!("{} Its packets are spoilt or delayed", found.explanation);
    let netem = judgement(case, link, qdisc, &does);
    Judgement { verdict: found.verdict, severity: found.severity, ..netem }
}

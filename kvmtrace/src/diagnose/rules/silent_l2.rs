//! Flows that go astray because two claim one address: `address-conflict`, `arp-spoofed`, `mac-conflict`.

use crate::diagnose::facts::place::at;
use crate::diagnose::faults::conflict::{claimed_twice, sent_from_several, taker};
use crate::diagnose::flows::case::Case;
use crate::diagnose::judgement::Judgement;
use crate::diagnose::report::{Cause, Point, Verdict};

/// See the module.
pub fn judge(case: &Case<'_>) -> Option<Judgement> {
    if case.answered() > 0 {
        return None;
    }
    let facts = case.layer2;
    let addresses = [case.key().destination.ip(), case.key().source.ip(), case.group.main.target];
    if let Some(conflict) = addresses.into_iter().flatten().find_map(|address| facts.conflict(case.scene, address)) {
        let (cause, explanation, fix) = claimed_twice(case.scene, &conflict);
        let place = at(case.scene, conflict.offender.1, Point::TapIngress);
        return Some(Judgement::dropped(cause, place, explanation).verdict(Verdict::Unanswered).fix(fix));
    }
    let macs = [case.destination_mac(), case.entry().map(|(_, counters)| counters.source_mac)];
    let (mac, devices) = macs.into_iter().flatten().find_map(|mac| Some((mac, facts.shared(mac)?)))?;
    let (explanation, fix) = sent_from_several(case.scene, mac, &devices);
    let place = at(case.scene, taker(case.scene, mac, &devices)?, Point::TapIngress);
    Some(Judgement::dropped(Cause::MacConflict, place, explanation).verdict(Verdict::Unanswered).fix(fix))
}

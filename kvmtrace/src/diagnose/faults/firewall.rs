//! The rules that may have dropped a packet, and what lets it through.

use crate::diagnose::facts::dropped::Dropped;
use crate::diagnose::facts::firewall::fit::may_take_answers;
use crate::diagnose::facts::firewall::stage::{Stage, stage};
use crate::diagnose::facts::firewall::suspects::{Suspect, behind, gone, suspects};
use crate::diagnose::facts::firewall::traced::known;
use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::conversation::Conversation;
use crate::diagnose::fix::netfilter as cure;
use crate::diagnose::flows::case::Case;
use crate::diagnose::report::Fix;
use crate::event::FlowKey;

/// At which hook it was, and which rules may have done it: the one that nft's trace named, else whatever fits.
pub(in crate::diagnose) fn culprits<'a>(
    scene: &Scene<'a>,
    drop: &Dropped<'_>,
    key: &FlowKey,
) -> Option<(Stage, Vec<Suspect<'a>>)> {
    let stage = stage(drop, key)?;
    known(scene, stage, key).or_else(|| {
        let found = suspects(scene, &stage, key, drop);
        Some((stage, if found.is_empty() { gone(scene, &stage, key, drop) } else { found }))
    })
}

/// The cures for a drop of another flow (the message that a black hole swallows).
pub fn fixes_for(case: &Case<'_>, drop: &Dropped<'_>, key: &FlowKey) -> Vec<Fix> {
    let Some((stage, suspects)) = culprits(case.scene, drop, key) else { return Vec::new() };
    cures(case.scene, drop, key, &stage, &suspects)
}

pub(in crate::diagnose) fn cures<'a>(
    scene: &Scene<'a>,
    drop: &Dropped<'_>,
    key: &FlowKey,
    stage: &Stage,
    suspects: &[Suspect<'a>],
) -> Vec<Fix> {
    if suspects.iter().any(|suspect| suspect.gone) {
        return vec![Fix::advice(
            "Nothing is to be done for it now. If it comes back, find out who writes it: nft monitor and the journal show what changes rules and when.",
        )];
    }
    // A policy is answered by a rule of ours at the head of the chain, which nothing there is behind.
    let behind = match suspects {
        [only] => behind(scene, stage, key, drop, only),
        _ => Vec::new(),
    };
    let wanted = Conversation::of(scene, key);
    let one_way = |suspect: &Suspect<'_>| match (suspect.rule, suspect.base.or(suspect.chain)) {
        (Some(rule), Some(base)) => !may_take_answers(scene, stage, key, drop, rule, base),
        _ => false,
    };
    let answered = wanted.answered && !suspects.iter().chain(&behind).all(one_way);
    cure::fixes(scene, stage, suspects, &behind, &Conversation { answered, ..wanted })
}

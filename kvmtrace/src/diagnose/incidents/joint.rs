//! The command that brings all flows of an incident through, with the narrowest scope that does.
//!
//! 1. All flows have the same first command: that one.
//! 2. Each has a rule of its own past the same chain: one rule with sets of addresses and ports ([`accept_many`]).
//! 3. The command for one of them is enough for all, by the model (the largest MTU): that one.
//! 4. Else the commands one after another, if there are few.

use crate::diagnose::facts::scene::Scene;
use crate::diagnose::fix::accept::accept_ways;
use crate::diagnose::fix::accept_many::accept_many;
use crate::diagnose::predict::{Predictor, Suffering};
use crate::diagnose::report::{Accept, Conversation, Finding, Fix, FlowReport, Outcome};

/// Different first commands that are looked at.
const COMMANDS: usize = 12;

/// The fixes of an incident: for all of its flows first, then those for the worst flow, or the finding, alone.
pub(super) fn fixes(
    scene: &Scene<'_>,
    predictor: &Predictor<'_, '_>,
    flows: &[&FlowReport],
    findings: &[&Finding],
    tried: &[Suffering],
) -> Vec<Fix> {
    let worst = flows.first().map(|flow| &flow.fixes).or(findings.first().map(|finding| &finding.fixes));
    let mut fixes = worst.cloned().unwrap_or_default();
    if flows.len() < 2 {
        return fixes;
    }
    let mut firsts: Vec<&Fix> = Vec::new();
    for fix in flows.iter().filter_map(|flow| flow.fixes.iter().find(|fix| fix.command.is_some())) {
        if !firsts.iter().any(|known| known.command == fix.command) {
            firsts.push(fix);
        }
    }
    let joint = match firsts.as_slice() {
        [] => None,
        [only] => Some((*only).clone()),
        _ => {
            by_sets(scene, &firsts).or_else(|| enough(predictor, &firsts, tried)).or_else(|| one_after_another(&firsts))
        }
    };
    let Some(mut joint) = joint else { return fixes };
    joint.prediction = Some(predictor.prediction(tried, &joint));
    fixes.retain(|fix| fix.command != joint.command || fix.command.is_none());
    fixes.insert(0, joint);
    fixes
}

/// One rule with sets, where each command is a plain rule of our own past the same rule of the same chain.
fn by_sets(scene: &Scene<'_>, firsts: &[&Fix]) -> Option<Fix> {
    let accepts: Vec<&Accept> = firsts.iter().map(|fix| fix.accepts.as_ref()).collect::<Option<_>>()?;
    let first = accepts.first()?;
    let chain = scene.host.netfilter.chains.get(first.chain)?;
    let before = first.before.and_then(|rule| chain.rules.get(rule));
    let is_plain = |(fix, accept): (&&Fix, &&Accept)| {
        (accept.chain, accept.before) == (first.chain, first.before)
            // A manager's own words are not ours to put into a set.
            && accept_ways(scene, chain, &accept.ways, before).command == fix.command
    };
    if !firsts.iter().zip(&accepts).all(is_plain) {
        return None;
    }
    // The first way of each is the one that was dropped.
    let (mut asked, mut answers): (Vec<Conversation>, Vec<Conversation>) = (Vec::new(), Vec::new());
    for accept in &accepts {
        for (number, way) in accept.ways.iter().enumerate() {
            let list = if number == 0 { &mut asked } else { &mut answers };
            if !list.contains(way) {
                list.push(*way);
            }
        }
    }
    answers.retain(|answer| !asked.contains(answer));
    let fix = accept_many(scene, chain, &asked, &answers, before)?;
    let model = firsts.first()?;
    Some(Fix { persist: model.persist.clone(), ..fix })
}

/// The command for one flow that the model finds enough for all.
fn enough(predictor: &Predictor<'_, '_>, firsts: &[&Fix], tried: &[Suffering]) -> Option<Fix> {
    let is_enough = |fix: &&&Fix| predictor.prediction(tried, fix).outcome == Outcome::Restores;
    firsts.iter().take(COMMANDS).find(is_enough).map(|fix| (**fix).clone())
}

fn one_after_another(firsts: &[&Fix]) -> Option<Fix> {
    if firsts.len() > COMMANDS {
        return None;
    }
    let commands: Vec<&str> = firsts.iter().map(|fix| fix.command.as_deref()).collect::<Option<_>>()?;
    let undo: Option<Vec<&str>> = firsts.iter().rev().map(|fix| fix.undo.as_deref()).collect();
    let scopes: Vec<&str> = firsts.iter().filter_map(|fix| fix.scope.as_deref()).collect();
    let first = firsts.first()?;
    Some(Fix {
        command: Some(commands.join(" && ")),
        undo: undo.map(|undo| undo.join("; ")),
        scope: (!scopes.is_empty()).then(|| scopes.join("; ")),
        why: format!("Brings all of these flows through, one command for each. {}", first.why),
        effects: firsts.iter().flat_map(|fix| &fix.effects).cloned().collect(),
        accepts: None,
        setting: None,
        ..(*first).clone()
    })
}

//! Counts, and contradictions with all that is needed to repeat them.

use crate::compare::{Death, Verdict};
use crate::frame::Likeness;
use crate::plan::{Plan, Setup};
use crate::run::Pair;
use anyhow::{Context as _, Result};
use kvmtrace::event::IfIndex;
use kvmtrace::forward::step::{Doubt, Outcome, Stage};
use kvmtrace_tests::lab::draw::Seed;
use std::collections::BTreeMap;

/// What has come out.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Pairs that were judged.
    pub pairs: u32,
    /// The kernel did what the walk says.
    pub agree: u32,
    /// The walk can't know.
    pub unknown: u32,
    /// The walk is wrong.
    pub contradictions: u32,
    /// Of the steps at which walks end, by stage.
    pub stages: BTreeMap<Stage, u32>,
    /// Why walks can't know, with counts.
    pub doubts: BTreeMap<String, u32>,
}

impl Summary {
    pub(crate) fn count(&mut self, pair: &Pair, verdict: &Verdict) {
        self.pairs += 1;
        match verdict {
            Verdict::Agree => self.agree += 1,
            Verdict::Unknown => {
                self.unknown += 1;
                let doubt = pair.walk.steps.iter().find_map(|step| {
                    let Outcome::Unknown(doubt) = &step.outcome else { return None };
                    Some(format!("{:?}: {}", step.stage, kind_of(doubt)))
                });
                *self.doubts.entry(doubt.unwrap_or_default()).or_default() += 1;
            }
            Verdict::Contradiction(_) => self.contradictions += 1,
        }
        for (_, step) in pair.walk.ends() {
            *self.stages.entry(step.stage).or_default() += 1;
        }
    }

    /// The counts in one line.
    pub(crate) fn line(&self) -> Result<String> {
        let kernel = nix::sys::utsname::uname().context("uname")?.release().to_string_lossy().into_owned();
        let share = if self.pairs == 0 { 0.0 } else { 100.0 * f64::from(self.unknown) / f64::from(self.pairs) };
        Ok(format!(
            "fidelity: {} pairs, {} agree, {} unknown ({share:.1} %), {} contradictions on {kernel}",
            self.pairs, self.agree, self.unknown, self.contradictions
        ))
    }
}

/// What was typed to build a host.
pub(crate) fn described(plan: &Plan) -> String {
    let Setup { devices, sysctls, bridge, network, network6, nft, rules, elsewhere, .. } = &plan.setup;
    let sysctls = sysctls.iter().map(|(path, value)| format!("{path} = {value}"));
    let lines = devices.iter().chain(elsewhere).cloned().chain(sysctls);
    let lines = lines.chain([bridge, network, network6, nft, rules].into_iter().flatten().cloned());
    let stations = plan.stations.iter().map(|station| {
        let (v4, v6) = (plan.address(station, false), plan.address(station, true));
        format!("{:?} {} {v4} {v6}", station.end, station.mac)
    });
    let lines: Vec<String> = lines.chain(stations).map(|line| format!("  | {line}")).collect();
    lines.join("\n")
}

/// A doubt without what differs from host to host.
fn kind_of(doubt: &Doubt) -> String {
    match doubt {
        Doubt::Rule(_, why) => format!("a rule: {why}"),
        Doubt::PolicyRule(_) => "a rule of policy routing".to_owned(),
        Doubt::Missing(_) => "a table that could not be read".to_owned(),
        Doubt::Program(_) => "a program of somebody's".to_owned(),
        Doubt::Queue(..) | Doubt::Daemon(_) | Doubt::Packet(_) | Doubt::Bound => format!("{doubt:?}"),
    }
}

/// All that is known of a pair.
pub(crate) fn report(seed: Seed, number: u32, index: usize, pair: &Pair, verdict: &Verdict) -> String {
    let name = |device: Option<IfIndex>| device.map(|device| pair.host.link_name(device)).unwrap_or_default();
    let mut lines = vec![
        format!("--seed {seed} --only {number}, packet {index}: {verdict:?}"),
        format!("  sent by {:?}", pair.sent.way),
        format!("  {:?}", pair.sent.packet),
    ];
    lines.extend(pair.walk.steps.iter().enumerate().map(|(at, step)| {
        let parent = step.parent.map_or_else(String::new, |parent| format!("after {parent} "));
        let device = name(step.device);
        format!("  walk {at}: {parent}{:?} {device} {:?} {:?}", step.stage, step.decisions, step.outcome)
    }));
    lines.extend(pair.seen.sightings.iter().map(|sighting| {
        let likeness = sighting.about().map_or(Likeness::Packet, |(_, likeness)| likeness);
        format!("  seen {likeness:?} at {:?}", sighting.place)
    }));
    lines.extend(pair.seen.deaths.iter().map(|death| {
        let Death { likeness, function, reason, stack, device } = death;
        format!("  died {likeness:?} at {} in {function:?} ({reason:?}) {stack:?}", name(*device))
    }));
    lines.extend(pair.seen.refused.map(|errno| format!("  refused: {errno}")));
    lines.push(String::new());
    lines.join("\n")
}

//! Builds, breaks, traces, judges, mends.

use super::judge::{Judgement, Proposed, judge};
use super::turn::Turn;
use super::{Cure, Scenario, probed};
use crate::lab::draw::Seed;
use crate::lab::process;
use crate::lab::traffic::{Expected, Traffic, fill};
use crate::lab::{Lab, Scratch, files, lab_binary};
use crate::product::Product;
use anyhow::{Context as _, Result, bail, ensure};
use std::thread;
use std::time::Duration;

/// After a cure the first packets may still meet what the fault left: a failed neighbour, a backed-off timer.
const TRIES: usize = 4;

/// Runs scenarios.
#[derive(Clone, Debug)]
pub struct Runner {
    /// The binary under test; none proves only that the scenario is sound.
    pub product: Option<Product>,
    /// The seed of names and addresses.
    pub seed: Seed,
    /// What kvmtrace judges by.
    pub by: By,
}

/// What kvmtrace judges a scenario by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum By {
    /// The traffic that suffers, traced.
    #[default]
    Traffic,
    /// Packets that kvmtrace sends itself; the fault is seen, no fix is tried.
    Probe,
}

/// What came of a run.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// All as expected.
    Passed(Run),
    /// The machine lacks something.
    Skipped(String),
}

/// The facts of a run, for the matrix.
#[derive(Clone, Debug, Default)]
pub struct Run {
    /// What kvmtrace said; none where it was not asked.
    pub judgement: Option<Judgement>,
    /// Whether the cure restored the traffic.
    pub cured: Option<bool>,
    /// Whether the undo brought the fault back.
    pub undone: Option<bool>,
}

impl Runner {
    /// Runs one scenario in a lab of its own.
    pub fn run(&self, scenario: &Scenario) -> Result<Outcome> {
        self.attempt(scenario).with_context(|| format!("{} (KVMTRACE_LAB_SEED={})", scenario.name, self.seed))
    }

    fn attempt(&self, scenario: &Scenario) -> Result<Outcome> {
        if let Some(missing) = missing(scenario)? {
            return Ok(Outcome::Skipped(format!("this machine lacks {missing}")));
        }
        let _turn = Turn::wait(scenario.machine_wide)?;
        let mut lab = Lab::drawn(&scenario.lab, self.seed, &scenario.name).context("building the lab")?;
        let steps = Steps { scenario };
        perform_all(&mut lab, &scenario.setup).context("setting up")?;
        steps.expect_all(&mut lab, Phase::Before)?;
        if self.by == By::Probe {
            probed::acquaint(&lab)?;
        }
        perform_all(&mut lab, &scenario.fault).context("breaking")?;
        thread::sleep(Duration::from_millis(scenario.wait));
        let Some(product) = &self.product else {
            steps.expect_all(&mut lab, Phase::Broken)?;
            return steps.mend_by_hand(&mut lab).map(Outcome::Passed);
        };
        let judged = match self.by {
            By::Traffic => Self::trace(&steps, &mut lab, product),
            By::Probe => steps.expect(&lab, Phase::Broken).and_then(|()| probed::trace(scenario, &lab, product)),
        };
        match (&scenario.open, judged) {
            (Some(why), Err(_)) => Ok(Outcome::Skipped(format!("known to be wrong: {why}"))),
            (_, judged) => judged.map(Outcome::Passed),
        }
    }

    /// Traces the broken lab, judges the verdict, tries the cure.
    fn trace(steps: &Steps<'_>, lab: &mut Lab, product: &Product) -> Result<Run> {
        let scenario = steps.scenario;
        let options: &[&str] = if scenario.trace_rules { &["--trace-rules"] } else { &[] };
        let ((), verdict) = product.verdict(lab, options, || steps.expect(lab, Phase::Broken))?;
        steps.prove(lab, Phase::Broken)?;
        let judgement = judge(scenario, &verdict, &lab.placeholders()?)?;
        let mut run = Run::default();
        if matches!(scenario.cure, Cure::Host | Cure::HostOnce | Cure::HostAdvised) && !scenario.is_healthy() {
            let commands = |pick: fn(&Proposed) -> &Option<String>| {
                judgement.cures.iter().filter_map(move |cure| pick(cure).clone()).collect::<Vec<_>>()
            };
            let (fixes, mut undos) = (commands(|cure| &cure.command), commands(|cure| &cure.undo));
            for command in &fixes {
                lab.host.check(command).with_context(|| format!("the fix does not run: {command}"))?;
            }
            let fixes = fixes.join("; ");
            steps.expect_all(lab, Phase::Mended).with_context(|| format!("after the fix `{fixes}`"))?;
            perform_all(lab, &scenario.left_alone).with_context(|| format!("`{fixes}` takes more than it has to"))?;
            run.cured = Some(true);
            if matches!(scenario.cure, Cure::Host | Cure::HostAdvised) {
                undos.reverse();
                for undo in &undos {
                    lab.host.check(undo).with_context(|| format!("the undo does not run: {undo}"))?;
                }
                let undos = undos.join("; ");
                steps.forget(lab)?;
                steps.expect_all(lab, Phase::Broken).with_context(|| format!("after the undo `{undos}`"))?;
                run.undone = Some(true);
            }
        }
        run.judgement = Some(judgement);
        Ok(run)
    }
}

/// Sets a scenario up and breaks it, for a person to look at.
pub fn prepare(lab: &mut Lab, scenario: &Scenario) -> Result<()> {
    perform_all(lab, &scenario.setup)?;
    perform_all(lab, &scenario.fault)
}

/// Which expectation of the traffic holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Before,
    Broken,
    Mended,
}

struct Steps<'a> {
    scenario: &'a Scenario,
}

impl Steps<'_> {
    /// The traced traffic, and what is sent besides.
    fn expect_all(&self, lab: &mut Lab, phase: Phase) -> Result<()> {
        if phase == Phase::Mended {
            self.forget(lab)?;
        }
        self.expect(lab, phase)?;
        self.prove(lab, phase)
    }

    /// A sender remembers a path's MTU for ten minutes; the test does not wait for it to forget. Nor for the rest.
    fn forget(&self, lab: &mut Lab) -> Result<()> {
        for namespace in lab.guests.iter().map(|guest| &guest.namespace).chain([&lab.lan]) {
            namespace.ip(&["route flush cache"])?;
            namespace.run("ip -6 route flush cache")?;
        }
        perform_all(lab, &self.scenario.forget).context("forgetting")
    }

    fn expect(&self, lab: &Lab, phase: Phase) -> Result<()> {
        self.scenario.traffic.iter().try_for_each(|traffic| expect(lab, traffic, phase))
    }

    fn prove(&self, lab: &Lab, phase: Phase) -> Result<()> {
        self.scenario.proof.iter().try_for_each(|traffic| expect(lab, traffic, phase)).context("the proof")
    }

    fn mend_by_hand(&self, lab: &mut Lab) -> Result<Run> {
        if self.scenario.cure_by_hand.is_empty() {
            ensure!(
                self.scenario.is_healthy() || self.scenario.cure != Cure::Host,
                "no cure_by_hand proves this scenario"
            );
            return Ok(Run::default());
        }
        perform_all(lab, &self.scenario.cure_by_hand).context("mending by hand")?;
        self.expect_all(lab, Phase::Mended).context("mended by hand")?;
        Ok(Run { cured: Some(true), ..Run::default() })
    }
}

fn expect(lab: &Lab, traffic: &Traffic, phase: Phase) -> Result<()> {
    let expected = match phase {
        Phase::Before => traffic.before,
        Phase::Broken => traffic.after,
        Phase::Mended if traffic.after == Expected::Any => Expected::Any,
        Phase::Mended => Expected::Works,
    };
    let serve = phase == Phase::Before || !traffic.served_by_break;
    let tries = if phase == Phase::Broken { 1 } else { TRIES };
    for attempt in 1..=tries {
        let facts = lab.send(traffic, serve).with_context(|| traffic.to_string())?;
        match (expected, traffic.works(&facts)) {
            (Expected::Any, _) | (Expected::Works, true) | (Expected::Fails, false) => return Ok(()),
            (Expected::Works, false) if attempt < tries => thread::sleep(Duration::from_millis(500)),
            (Expected::Works, false) => bail!("{phase:?}: {traffic} should work: {facts}"),
            (Expected::Fails, true) => bail!("{phase:?}: {traffic} should fail: {facts}; the fault is not real"),
        }
    }
    Ok(())
}

fn perform_all(lab: &mut Lab, steps: &[String]) -> Result<()> {
    steps.iter().try_for_each(|step| perform(lab, step).with_context(|| format!("`{step}`")))
}

/// One step: `PLACE: COMMAND`, `PLACE: & COMMAND` in the background, or `guestN: !stop`, `!cont`, `!kill`, `!start`.
fn perform(lab: &mut Lab, step: &str) -> Result<()> {
    let (place, line) = step.split_once(": ").context("a step is PLACE: COMMAND")?;
    let line = fill(line, &lab.placeholders()?)?;
    match line.as_str() {
        "!stop" => lab.guest_mut(place)?.pause(true),
        "!cont" => lab.guest_mut(place)?.pause(false),
        "!kill" => {
            lab.guest_mut(place)?.kill();
            Ok(())
        }
        "!start" => lab.guest_mut(place)?.start(),
        _ => match line.strip_prefix("& ") {
            Some(line) => {
                let process = lab.namespace(place)?.background(line)?;
                lab.keep(process);
                // It says nothing when it is there: give it the time of a start.
                thread::sleep(Duration::from_millis(300));
                Ok(())
            }
            None => lab.namespace(place)?.check(&line).map(drop),
        },
    }
}

/// The first thing that this machine lacks.
fn missing(scenario: &Scenario) -> Result<Option<String>> {
    for requirement in &scenario.requires {
        let scratch = Scratch::create(&requirement.command)?;
        let mut command = scratch.namespace.shell(&requirement.command);
        command.env("LAB", lab_binary()?).env("PACKAGES", files::packages().unwrap_or_default());
        if !process::run(&mut command, Duration::from_secs(10))?.status.success() {
            return Ok(Some(requirement.what.clone()));
        }
    }
    Ok(None)
}

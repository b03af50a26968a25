//! Every scenario, as a table.

use crate::lab::draw::Seed;
use crate::lab::{bridge_netfilter, state};
use crate::product::Product;
use crate::scenario::{By, Outcome, Run, Runner, Scenario};
use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{SigSet, Signal};
use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// Which scenarios are run, and how.
#[derive(Debug)]
pub struct Choice {
    /// Those that one of these names or whose name holds it; all where there is none.
    pub filters: Vec<String>,
    /// How many at a time.
    pub jobs: usize,
    /// What was proposed is shown, too.
    pub cures: bool,
    /// What kvmtrace judges by; by probes only those scenarios that a probe can stand for.
    pub by: By,
    /// Every lab's bridged frames pass the IP chains, as the kernel has it unless a distribution says otherwise.
    pub br_netfilter: bool,
}

/// Runs the chosen scenarios so many times, each with a seed of its own; whether all are as they should be every time.
pub fn repeat(
    product: Option<&Product>,
    first: Seed,
    runs: u32,
    choice: &Choice,
    out: &mut (impl Write + Send),
) -> Result<bool> {
    let seeds: Vec<u64> = (0..u64::from(runs)).map(|run| first.0.wrapping_add(run)).collect();
    let mut wrong = Vec::new();
    for seed in &seeds {
        if !run(product.cloned(), Seed(*seed), choice, out)? {
            wrong.push(seed.to_string());
        }
    }
    if let [first, .., last] = seeds.as_slice() {
        let told = if wrong.is_empty() { "all right".to_owned() } else { format!("wrong in {}", wrong.join(", ")) };
        writeln!(out, "{runs} runs, KVMTRACE_LAB_SEED={first} to {last}: {told}")?;
    }
    Ok(wrong.is_empty())
}

/// Runs the chosen scenarios once.
fn run(product: Option<Product>, seed: Seed, choice: &Choice, out: &mut (impl Write + Send)) -> Result<bool> {
    let Choice { filters, jobs, cures, by, br_netfilter } = choice;
    let mut scenarios = Scenario::all()?;
    let names: BTreeSet<String> = scenarios.iter().map(|scenario| scenario.name.clone()).collect();
    if !filters.is_empty() {
        scenarios.retain(|scenario| filters.iter().any(|filter| selects(filter, &scenario.name, &names)));
    }
    if *by == By::Probe {
        scenarios.retain(Scenario::can_be_probed);
    }
    if *br_netfilter {
        ensure!(bridge_netfilter(), "this kernel has no br_netfilter, or it is not loaded");
        for scenario in &mut scenarios {
            scenario.lab.br_netfilter = true;
        }
    }
    ensure!(!scenarios.is_empty(), "no scenario's name holds {}", filters.join(" or "));
    writeln!(out, "KVMTRACE_LAB_SEED={seed}, {} scenarios", scenarios.len())?;
    writeln!(out, "{:<44} {:<24} {:<34} {:<6} {:<6}", "SCENARIO", "CAUSE", "WHERE", "CURE", "UNDO")?;
    let runner = Runner { product, seed, by: *by };
    let (next, out) = (AtomicUsize::new(0), Mutex::new((out, [0_usize; 3])));
    thread::scope(|scope| {
        for _ in 0..*jobs.max(&1) {
            scope.spawn(|| {
                while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let result = runner.run(scenario);
                    let Ok(mut guard) = out.lock() else { return };
                    let (out, counts) = &mut *guard;
                    counts[match &result {
                        Ok(Outcome::Passed(_)) => 0,
                        Ok(Outcome::Skipped(_)) => 1,
                        Err(_) => 2,
                    }] += 1;
                    writeln!(out, "{}", row(scenario, &result)).ok();
                    if *cures {
                        for line in told(&result) {
                            writeln!(out, "    {line}").ok();
                        }
                    }
                    out.flush().ok();
                }
            });
        }
    });
    let (out, [passed, skipped, failed]) = out.into_inner().ok().context("a scenario's thread panicked")?;
    writeln!(out, "{passed} right, {failed} wrong, {skipped} skipped; KVMTRACE_LAB_SEED={seed}")?;
    if *by == By::Probe {
        let share = 100.0 * passed as f64 / (passed + failed).max(1) as f64;
        writeln!(out, "judged right by probes alone: {share:.1} % of {}", passed + failed)?;
    }
    Ok(failed == 0)
}

/// A whole name means that scenario alone, though others begin with it.
fn selects(filter: &str, name: &str, names: &BTreeSet<String>) -> bool {
    if names.contains(filter) { name == filter } else { name.contains(filter) }
}

fn row(scenario: &Scenario, result: &Result<Outcome>) -> String {
    let name = &scenario.name;
    match result {
        Ok(Outcome::Passed(run)) => {
            let judgement = run.judgement.clone().unwrap_or_default();
            let mark = |fact: Option<bool>| if fact == Some(true) { "yes" } else { "-" };
            let (cured, undone) = (mark(run.cured), mark(run.undone));
            format!("{name:<44} {:<24} {:<34} {cured:<6} {undone:<6}", judgement.cause, judgement.place)
                .trim_end()
                .to_owned()
        }
        Ok(Outcome::Skipped(why)) => format!("{name:<44} SKIP: {why}"),
        Err(error) => format!("{name:<44} WRONG: {error:#}"),
    }
}

/// What was told, and the proposed cure, of a scenario that was right: for a person to judge.
fn told(result: &Result<Outcome>) -> Vec<String> {
    let Ok(Outcome::Passed(Run { judgement: Some(judgement), .. })) = result else { return Vec::new() };
    let line = |name: &str, text: &str| (!text.is_empty()).then(|| format!("{name}: {text}"));
    let lines = judgement.cures.iter().flat_map(|cure| {
        let command = |text: &Option<String>| text.clone().unwrap_or_default();
        [line("fix", &command(&cure.command)), line("undo", &command(&cure.undo)), line("why", &cure.advice)]
    });
    judgement.told.iter().map(|told| format!("told: {told}")).chain(lines.flatten()).collect()
}

/// On Ctrl-C and its like, the labs of this process go before it does.
pub fn clean_on_signal() -> Result<()> {
    let signals = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP].into_iter().collect::<SigSet>();
    signals.thread_block()?;
    thread::spawn(move || {
        let code = signals.wait().map_or(1, |signal| 128 + signal as i32);
        state::list().iter().filter(|record| record.owner == std::process::id()).for_each(state::end);
        std::process::exit(code)
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_name_selects_one_scenario_and_a_part_all_that_hold_it() {
        let names = ["bridge/down", "bridge/down-ipv6", "mtu/black-hole"].map(str::to_owned).into();
        let selected = |filter: &str| {
            let names: &BTreeSet<String> = &names;
            names.iter().filter(|name| selects(filter, name, names)).cloned().collect::<Vec<_>>()
        };
        assert_eq!(selected("bridge/down"), ["bridge/down"]);
        assert_eq!(selected("bridge/"), ["bridge/down", "bridge/down-ipv6"]);
        assert_eq!(selected("ipv6"), ["bridge/down-ipv6"]);
    }
}

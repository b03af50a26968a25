//! One test per file of `tests/scenarios`; a healthy host is healthy with br_netfilter's kernel defaults as well.

#![expect(clippy::print_stderr, reason = "the reason of a skip is for the person who runs the tests")]

use anyhow::Result;
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::{bridge_netfilter, require_root};
use kvmtrace_tests::product::Product;
use kvmtrace_tests::scenario::{By, Outcome, Runner, Scenario};
use libtest_mimic::{Arguments, Completion, Failed, Trial};

fn main() -> Result<()> {
    let mut arguments = Arguments::from_args();
    // Two at a time: a scenario waits more than it works, but its packets must not starve.
    arguments.test_threads = Some(arguments.test_threads.unwrap_or(2).min(3));
    let seed = Seed::choose()?;
    let scenarios = Scenario::all()?;
    let filtered =
        scenarios.iter().filter(|scenario| scenario.is_healthy() && !scenario.lab.br_netfilter).map(|scenario| {
            let mut scenario = scenario.clone();
            scenario.lab.br_netfilter = true;
            Trial::ignorable_test(format!("{}+br-netfilter", scenario.name), move || {
                if bridge_netfilter() {
                    test(&scenario, seed)
                } else {
                    Ok(skip(&scenario, "this kernel has no br_netfilter, or it is not loaded"))
                }
            })
        });
    let plain = scenarios.iter().cloned().map(|scenario| {
        let name = scenario.name.clone();
        Trial::ignorable_test(name, move || test(&scenario, seed))
    });
    libtest_mimic::run(&arguments, filtered.chain(plain).collect()).exit()
}

fn test(scenario: &Scenario, seed: Seed) -> Result<Completion, Failed> {
    if require_root().is_err() {
        return Ok(skip(scenario, "the lab needs root"));
    }
    let runner = Runner { product: product()?, seed, by: By::Traffic };
    match runner.run(scenario) {
        Ok(Outcome::Passed(_)) => Ok(Completion::Completed),
        // What is known to be judged wrong is told, and no reason to stop everything else.
        Ok(Outcome::Skipped(why))
            if std::env::var_os("CI").is_some() && scenario.requires.is_empty() && scenario.open.is_none() =>
        {
            Err(why.into())
        }
        Ok(Outcome::Skipped(why)) => Ok(skip(scenario, &why)),
        Err(error) => Err(format!("{error:#}").into()),
    }
}

fn skip(scenario: &Scenario, why: &str) -> Completion {
    eprintln!("SKIP {}: {why}", scenario.name);
    Completion::ignored_with(why)
}

/// The binary under test; with `KVMTRACE_NO_VERDICT` none: then only the scenarios themselves are proven.
fn product() -> Result<Option<Product>, Failed> {
    if std::env::var_os("KVMTRACE_NO_VERDICT").is_some() {
        return Ok(None);
    }
    Product::find().map(Some).map_err(|error| format!("{error:#}").into())
}

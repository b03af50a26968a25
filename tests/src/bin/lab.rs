//! `lab`: build a lab to play with, run the scenarios, tell the demo's story.

#![expect(clippy::print_stderr, reason = "it talks to the person at the terminal")]

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Parser, Subcommand};
use kvmtrace_tests::lab::draw::Seed;
use kvmtrace_tests::lab::relay::Relay;
use kvmtrace_tests::lab::traffic::programs::Program;
use kvmtrace_tests::lab::{self, state};
use kvmtrace_tests::product::Product;
use kvmtrace_tests::scenario::{By, Scenario};
use kvmtrace_tests::{demo, matrix, playground};
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

/// A KVM host made of network namespaces, to play with and to test kvmtrace.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build a topology (bridge, routed, nat, vxlan, macvtap) or a broken scenario (area/name), and keep it.
    Up {
        /// What to build.
        name: String,
        /// How many guests a topology has.
        #[arg(long, default_value_t = 2)]
        guests: usize,
    },
    /// Take labs down.
    Down {
        /// Which.
        name: Option<String>,
        /// Every lab of `lab up`, and leftovers of dead tests.
        #[arg(long)]
        all: bool,
    },
    /// The labs that are up.
    List,
    /// The scenarios.
    Scenarios,
    /// Run the scenarios and print a table.
    Matrix {
        /// The seed of names and addresses.
        #[arg(long)]
        seed: Option<u64>,
        /// So many times, each with names and addresses of its own (the seed goes up by one).
        #[arg(long, value_name = "TIMES", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
        runs: u32,
        /// Only the one of this name, or those whose name holds this (may be given several times).
        #[arg(long = "filter", value_name = "PART")]
        filters: Vec<String>,
        /// The kvmtrace to test.
        #[arg(long)]
        bin: Option<PathBuf>,
        /// Prove only that the scenarios are sound.
        #[arg(long)]
        no_verdict: bool,
        /// How many at a time.
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// Show the proposed cure and what is said about it.
        #[arg(long)]
        cures: bool,
        /// Judge by `kvmtrace probe` alone, where a probe can stand for the scenario's traffic; fixes are not tried.
        #[arg(long)]
        probe: bool,
        /// Send bridged frames through the IP chains in every lab (bridge-nf-call-* = 1, the kernel's default).
        #[arg(long)]
        br_netfilter: bool,
    },
    /// Tell kvmtrace's story on a lab.
    Demo {
        /// The kvmtrace to show.
        #[arg(long)]
        bin: Option<PathBuf>,
    },
    /// Holds a lab in the background.
    #[command(hide = true)]
    Keep {
        /// What to build.
        name: String,
        /// How many guests.
        #[arg(long, default_value_t = 2)]
        guests: usize,
    },
    /// One of the traffic's small programs.
    #[command(hide = true)]
    Program {
        #[command(subcommand)]
        program: Program,
    },
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("lab: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool> {
    if let Some(relay) = Relay::of_this_process() {
        return relay?.run().map(|()| true);
    }
    match Arguments::parse().task {
        Task::Program { program } => {
            if let Some(facts) = program.run()? {
                say(&serde_json::to_string(&facts)?)?;
            }
        }
        Task::Up { name, guests } => say(&playground::up(&name, guests)?)?,
        Task::Keep { name, guests } => playground::keep(&name, guests)?,
        Task::Down { name, all } => down(name.as_deref(), all)?,
        Task::List => list()?,
        Task::Scenarios => {
            for scenario in Scenario::all()? {
                say(&format!("{:<44} {}", scenario.name, scenario.about))?;
            }
        }
        Task::Matrix { seed, runs, filters, bin, no_verdict, jobs, cures, probe, br_netfilter } => {
            lab::require_root()?;
            matrix::clean_on_signal()?;
            let seed = seed.map_or_else(Seed::choose, |seed| Ok(Seed(seed)))?;
            let product = if no_verdict { None } else { Some(product(bin)?) };
            let by = if probe { By::Probe } else { By::Traffic };
            let choice = matrix::Choice { filters, jobs, cures, by, br_netfilter };
            return matrix::repeat(product.as_ref(), seed, runs, &choice, &mut std::io::stdout());
        }
        Task::Demo { bin } => {
            lab::require_root()?;
            matrix::clean_on_signal()?;
            demo::run(product(bin)?.path(), &mut std::io::stdout())?;
        }
    }
    Ok(true)
}

fn product(bin: Option<PathBuf>) -> Result<Product> {
    let product = bin.map_or_else(Product::find, |path| Ok(Product::at(&path)))?;
    ensure!(product.path().is_file(), "no such file: {}", product.path().display());
    Ok(product)
}

fn down(name: Option<&str>, all: bool) -> Result<()> {
    lab::require_root()?;
    let swept = state::sweep();
    let ours: Vec<_> = state::list().into_iter().filter(|record| record.topic.is_some()).collect();
    let chosen: Vec<_> = ours
        .iter()
        .filter(|record| match name {
            Some(name) => record.topic.as_deref() == Some(name) || record.name == name,
            None => all || ours.len() == 1,
        })
        .collect();
    if let (Some(name), true) = (name, chosen.is_empty()) {
        bail!("no lab called {name} is up; `lab list` shows those that are");
    }
    ensure!(all || name.is_some() || ours.len() < 2, "several labs are up: name one, or use --all");
    for record in chosen {
        state::end(record);
        say(&format!("{} is down", record.topic.as_deref().context("a lab of `lab up`")?))?;
    }
    for name in swept {
        say(&format!("removed what {name} had left behind"))?;
    }
    Ok(())
}

fn list() -> Result<()> {
    let labs = state::list();
    for record in &labs {
        let topic = record.topic.as_deref().unwrap_or("(a test's)");
        let owner = if record.is_alive() { format!("pid {}", record.owner) } else { "owner dead".to_owned() };
        let namespaces: Vec<&str> = record.namespaces.values().map(String::as_str).collect();
        say(&format!("{topic:<32} {owner:<14} {}", namespaces.join(" ")))?;
    }
    if labs.is_empty() {
        say("no lab is up")?;
    }
    Ok(())
}

/// A line for the person. Who has read enough (`lab up NAME | head -1`) is no reason to fail, or to leave work undone.
fn say(line: &str) -> Result<()> {
    match writeln!(std::io::stdout(), "{line}") {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}

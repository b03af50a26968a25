//! `fidelity`: compares the model of the packet path with the running kernel.

#![expect(clippy::print_stderr, reason = "it talks to the person at the terminal")]

use clap::Parser;
use kvmtrace_fidelity::run::{self, Options};
use kvmtrace_tests::lab::draw::Seed;
use std::process::ExitCode;

/// Sends generated packets through generated hosts and compares where each arrives or dies with what kvmtrace's model of
/// the packet path says. Needs root.
#[derive(Debug, Parser)]
struct Arguments {
    /// The seed of hosts and packets; a new one if not given.
    #[arg(long)]
    seed: Option<u64>,
    /// How many pairs of host and packet.
    #[arg(long, default_value_t = 400)]
    pairs: u32,
    /// The host of this number alone.
    #[arg(long, value_name = "HOST")]
    only: Option<u32>,
    /// Show each pair.
    #[arg(short, long)]
    verbose: bool,
}

fn main() -> ExitCode {
    match compare(&Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("fidelity: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn compare(arguments: &Arguments) -> anyhow::Result<bool> {
    let seed = arguments.seed.map_or_else(Seed::choose, |seed| Ok(Seed(seed)))?;
    let Arguments { pairs, only, verbose, .. } = *arguments;
    eprintln!("fidelity: seed {seed}");
    let summary = run::run(Options { seed, pairs, only, verbose }, &mut std::io::stdout())?;
    Ok(summary.contradictions == 0)
}

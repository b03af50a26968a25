//! `cargo xtask bench`: what tracing costs, measured in one run on this machine.
//!
//! Two questions. What does one packet cost in the kernel, next to a program that does nothing and to the naive tracer
//! that sends a record per packet to user space? And how many packets per second does a host still forward while it is
//! traced, next to no tracing and to tcpdump? The answers are compared as ratios, so that they hold on any machine.
#![allow(clippy::print_stdout, reason = "a command-line tool prints its result")]
#![allow(clippy::cast_precision_loss, reason = "counts and nanoseconds become averages here")]

mod forwarding;
mod programs;
mod statistics;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use serde::Serialize;
use std::net::SocketAddr;
use std::process::ExitCode;

/// Measures what tracing costs.
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Rounds of each measurement; the median counts
    #[arg(long, default_value_t = 9)]
    rounds: usize,
    /// Leave out the forwarding rate
    #[arg(long)]
    programs_only: bool,
}

/// What the bench runs of itself inside its namespaces.
#[derive(Subcommand)]
enum Part {
    /// Send small UDP packets as fast as possible
    #[command(hide = true)]
    Send { to: SocketAddr, milliseconds: u64 },
    /// Take UDP packets in, until killed
    #[command(hide = true)]
    Receive { at: SocketAddr },
}

/// All that was measured.
#[derive(Serialize)]
struct Measured {
    programs: programs::Costs,
    forwarding: Option<forwarding::Rates>,
    /// The aims that this run missed.
    missed: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Send { to, milliseconds }) => return forwarding::send(to, milliseconds).map(|()| ExitCode::SUCCESS),
        Some(Part::Receive { at }) => return forwarding::receive(at).map(|()| ExitCode::SUCCESS),
        None => {}
    }
    if cli.rounds == 0 {
        bail!("--rounds 0 measures nothing");
    }
    let programs = programs::measure(cli.rounds)?;
    let forwarding = if cli.programs_only { None } else { Some(forwarding::measure(cli.rounds)?) };
    let mut missed = programs.missed();
    missed.extend(forwarding.iter().flat_map(forwarding::Rates::missed));
    let measured = Measured { programs, forwarding, missed };
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        print!("{}", measured.programs);
        if let Some(rates) = &measured.forwarding {
            print!("\n{rates}");
        }
        for aim in &measured.missed {
            println!("MISSED: {aim}");
        }
    }
    Ok(if measured.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

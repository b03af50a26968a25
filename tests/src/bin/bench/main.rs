//! `cargo xtask bench`: what tracing costs, measured in one run on this machine.
//!
//! Three questions. What does one packet cost in the kernel, next to a program that does nothing and to the naive tracer
//! that sends a record per packet to user space? How many packets per second does a host still forward while it is traced,
//! next to no tracing and to tcpdump? How large is a recording of every packet, next to tcpdump's? The answers are compared
//! as ratios, so that they hold on any machine.
#![allow(clippy::print_stdout, reason = "a command-line tool prints its result")]
#![allow(clippy::cast_precision_loss, reason = "counts and nanoseconds become averages here")]

mod forwarding;
mod programs;
mod recording;
mod statistics;
mod traffic;

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
    /// Measure the size of recordings only
    #[arg(long)]
    recordings_only: bool,
    /// Leave out the forwarding rate and the size of recordings
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
    /// Answer requests, until killed
    #[command(hide = true)]
    Answer { at: SocketAddr },
    /// Make traffic of a kind
    #[command(hide = true)]
    Talk { to: SocketAddr, kind: traffic::Kind },
}

/// All that was measured.
#[derive(Serialize)]
struct Measured {
    programs: Option<programs::Costs>,
    forwarding: Option<forwarding::Rates>,
    recordings: Option<recording::Sizes>,
    /// The aims that this run missed.
    missed: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    match cli.part {
        Some(Part::Send { to, milliseconds }) => return forwarding::send(to, milliseconds).map(|()| ExitCode::SUCCESS),
        Some(Part::Receive { at }) => return forwarding::receive(at).map(|()| ExitCode::SUCCESS),
        Some(Part::Answer { at }) => return traffic::answer(at).map(|()| ExitCode::SUCCESS),
        Some(Part::Talk { to, kind }) => return traffic::talk(to, kind).map(|()| ExitCode::SUCCESS),
        None => {}
    }
    if cli.rounds == 0 {
        bail!("--rounds 0 measures nothing");
    }
    let programs = (!cli.recordings_only).then(|| programs::measure(cli.rounds)).transpose()?;
    let rates = !cli.programs_only && !cli.recordings_only;
    let forwarding = rates.then(|| forwarding::measure(cli.rounds)).transpose()?;
    let recordings = (!cli.programs_only).then(recording::measure).transpose()?;
    let mut missed: Vec<String> = programs.iter().flat_map(programs::Costs::missed).collect();
    missed.extend(forwarding.iter().flat_map(forwarding::Rates::missed));
    missed.extend(recordings.iter().flat_map(recording::Sizes::missed));
    let measured = Measured { programs, forwarding, recordings, missed };
    if cli.json {
        println!("{}", serde_json::to_string_pretty(&measured)?);
    } else {
        if let Some(costs) = &measured.programs {
            println!("{costs}");
        }
        if let Some(rates) = &measured.forwarding {
            println!("{rates}");
        }
        if let Some(sizes) = &measured.recordings {
            print!("{sizes}");
        }
        for aim in &measured.missed {
            println!("MISSED: {aim}");
        }
    }
    Ok(if measured.missed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

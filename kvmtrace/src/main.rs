//! Parse, run, exit code.

use clap::Parser as _;
use kvmtrace::{app, cli};
use std::process::ExitCode;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    app::main(&cli)
}

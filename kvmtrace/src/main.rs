//! Parse, run, exit code.

use clap::Parser as _;
use kvmtrace::{app, cli, probe};
use std::process::ExitCode;

fn main() -> ExitCode {
    if probe::holds_grace_periods() {
        return if probe::hold_grace_periods().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cli = cli::Cli::parse();
    app::main(&cli)
}

//! Parse, run, exit code.

use clap::Parser as _;
use kvmtrace::{app, cli, host, probe};
use std::process::ExitCode;

fn main() -> ExitCode {
    let helper = if probe::holds_grace_periods() {
        Some(probe::hold_grace_periods())
    } else if app::is_keeper() {
        Some(app::keep())
    } else if app::runs_errands() {
        Some(app::run_errands())
    } else if host::is_lister() {
        Some(host::list_rules())
    } else {
        None
    };
    if let Some(ended) = helper {
        return if ended.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let cli = cli::Cli::parse();
    app::main(&cli)
}

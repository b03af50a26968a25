//! Prints a report, as text or JSON.

use super::color::view;
use super::outcome::Outcome;
use crate::cli::Cli;
use crate::diagnose::report::Report;
use crate::sink::{self, text::View};
use std::io::Write as _;

/// Writes a report for people.
type Text = fn(&Report, View, &mut std::io::StdoutLock<'static>) -> std::io::Result<()>;

/// Prints a report on standard output. The outcome is the worst that it holds.
///
/// # Errors
///
/// Standard output can't be written.
pub(super) fn show(cli: &Cli, report: &Report, json: bool, text: Text) -> anyhow::Result<Outcome> {
    let mut out = std::io::stdout().lock();
    if json {
        sink::json::report(report, &mut out)?;
    } else {
        text(report, view(cli), &mut out)?;
    }
    out.flush()?;
    Ok(Outcome::of(report.severity()))
}

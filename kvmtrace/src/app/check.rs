//! `kvmtrace check`: faults that the host's configuration shows by itself, and with `--probe` what a few packets say besides.

use super::alone::host_alone;
use super::color::view;
use super::outcome::Outcome;
use super::probe::probed;
use super::record::tell;
use super::show::show;
use crate::cli::{Check, Cli};
use crate::diagnose::report::Severity;
use crate::event::HostState;
use crate::host::path::{Scope, devices_to_trace};
use crate::kernel::privilege;
use crate::{host, sink};
use std::io::Write as _;

/// A trace in which nothing happens: what is found then is visible in the host's configuration alone.
pub(super) async fn check(cli: &Cli, options: &Check) -> anyhow::Result<Outcome> {
    if options.probe {
        privilege::check()?;
    }
    host::settle().await?;
    let host = host::snapshot().await?;
    let scope = Scope { guests: options.guests.clone(), devices: options.interfaces.clone(), all: false };
    devices_to_trace(&host, &scope)?;
    if !options.probe {
        return show(cli, &host_alone(host, scope).check(), options.json, sink::check::report);
    }
    let guests = guests(&host, &scope);
    let report = host_alone(host.clone(), scope).check();
    let found = Box::pin(probed(&host, &guests, report)).await?;
    for line in &found.left_out {
        tell(cli, &format!("not probed: {line}"));
    }
    let severity = found.report.report.severity();
    let mut out = std::io::stdout().lock();
    if options.json {
        sink::probe::json(&found.report, &mut out)?;
    } else {
        sink::probe::lines(&found.report, view(cli), &mut out)?;
        sink::check::report(&found.report.report, view(cli), &mut out)?;
    }
    out.flush()?;
    Ok(Outcome::of(severity.max(Severity::Ok)))
}

/// Names of the guests that were asked for; all where none was.
fn guests(host: &HostState, scope: &Scope) -> Vec<String> {
    let named = |name: &String| crate::forward::asked::guest_named(host, name).map(|(guest, _)| guest.name.clone());
    let wanted: Vec<String> = scope.guests.iter().chain(&scope.devices).filter_map(named).collect();
    let all = host.guests.iter().map(|guest| guest.name.clone());
    all.filter(|name| scope.guests.is_empty() && scope.devices.is_empty() || wanted.contains(name)).collect()
}

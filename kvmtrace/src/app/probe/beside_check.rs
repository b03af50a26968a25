//! `kvmtrace check --probe`: what a guest can be expected to reach is asked for with packets as well.

use super::run::Run;
use super::sending::{Done, FEW, entries, report, send};
use super::{ask, refuse};
use crate::cli::PacketWords;
use crate::diagnose::probe::ProbeReport;
use crate::diagnose::report::Report;
use crate::event::HostState;
use crate::forward::asked::Asked;

/// Guests that are probed; `-g` chooses others.
const GUESTS: usize = 16;

/// What was found by packets, beside what was found without, and lines about guests that nothing was sent for.
pub(in crate::app) struct Probed {
    /// Findings and table of the configuration, flows and incidents of both.
    pub(in crate::app) report: ProbeReport,
    /// In words, a line each.
    pub(in crate::app) left_out: Vec<String>,
}

/// Probes for these guests. `None`: there is nobody to speak for.
pub(in crate::app) async fn probed(host: &HostState, guests: &[String], check: Report) -> anyhow::Result<Probed> {
    let mut left_out = Vec::new();
    let mut packets: Vec<Asked> = Vec::new();
    for guest in guests.iter().take(GUESTS) {
        let typed = PacketWords { guest: guest.clone(), ..PacketWords::default() };
        match ask::usual(host, &typed).await {
            Ok(ask) => match ask.packets.iter().find_map(|asked| refuse::check(host, asked).err()) {
                Some(refusal) => left_out.push(refusal.to_string()),
                None => packets.extend(ask.packets),
            },
            Err(error) => left_out.push(error.to_string()),
        }
    }
    if guests.len() > GUESTS {
        left_out.push(format!("{} more guests were not probed; choose them with -g", guests.len() - GUESTS));
    }
    if packets.is_empty() {
        let report = ProbeReport { report: check, probes: Vec::new(), limit: None };
        return Ok(Probed { report, left_out });
    }
    let mut names: Vec<String> = packets.iter().map(|asked| asked.guest.clone()).collect();
    names.dedup();
    let mut run = Run::start(names, &entries(host, &packets)?, false).await?;
    let mut done: Vec<Done> = Vec::new();
    for asked in &packets {
        done.push(send(&mut run, host, asked, FEW).await?);
    }
    let traced = report(host, &run.finish().await?.report(), &done, None)?;
    Ok(Probed { report: ProbeReport { report: joined(check, traced.report), ..traced }, left_out })
}

/// The configuration's findings beside the flows of a trace. An incident that both know is one.
fn joined(check: Report, mut traced: Report) -> Report {
    for incident in check.incidents {
        match traced.incidents.iter_mut().find(|known| known.id == incident.id) {
            Some(known) => known.findings.extend(incident.findings),
            None => traced.incidents.push(incident),
        }
    }
    traced.incidents.sort_by_key(|incident| std::cmp::Reverse(incident.severity));
    traced.findings = check.findings;
    traced.reachability = check.reachability;
    traced.reachability_left_out = check.reachability_left_out;
    traced
}

//! The incidents of this host as it is now: of a short trace, and of its configuration.

use super::super::alone::host_alone;
use super::super::session::{End, Extras, Session};
use crate::cli::Fix as Options;
use crate::diagnose::report::{Incident, Report};
use crate::event::HostState;
use crate::event::host::LinkStatistics;
use crate::host;
use crate::host::path::Scope;
use crate::pipeline::Pipeline;
use crate::source::Source as _;

/// What was seen.
pub(super) struct Seen {
    /// Of the trace; none with `--check`.
    pub(super) traced: Option<Report>,
    /// Of the configuration.
    pub(super) checked: Report,
    /// The host that the commands were made for.
    pub(super) host: HostState,
}

impl Seen {
    /// The incidents of the trace, then those that only the configuration shows.
    pub(super) fn incidents(&self) -> Vec<&Incident> {
        let traced = self.traced.iter().flat_map(|report| &report.incidents);
        let mut incidents: Vec<&Incident> = traced.collect();
        for incident in &self.checked.incidents {
            if !incidents.iter().any(|known| known.id == incident.id) {
                incidents.push(incident);
            }
        }
        incidents
    }

    /// The report that an incident is of.
    pub(super) fn report_of(&self, incident: &Incident) -> &Report {
        let traced = self.traced.as_ref().filter(|report| report.incidents.iter().any(|known| known.id == incident.id));
        traced.unwrap_or(&self.checked)
    }
}

/// Traces, then reads the configuration.
pub(super) async fn observe(options: &Options) -> anyhow::Result<Seen> {
    let traced = if options.check { None } else { Some(trace(options).await?) };
    let host = host::snapshot().await?;
    let scope = Scope { guests: options.guests.clone(), devices: options.interfaces.clone(), all: false };
    let checked = host_alone(host.clone(), scope).check();
    Ok(Seen { traced, checked, host })
}

/// The report of a trace as long as was asked for.
pub(super) async fn trace(options: &Options) -> anyhow::Result<Report> {
    let duration = options.cmd.is_none().then(|| options.watching());
    let end = End::new(options.cmd.as_deref(), duration);
    let mut session =
        Session::start(&options.scope(), end, Extras { starts_others: true, ..Extras::default() }).await?;
    let mut pipeline = Pipeline::default();
    while let Some(event) = session.source.next().await? {
        tracing::trace!(?event);
        pipeline.take(&event);
    }
    Ok(pipeline.report())
}

/// Nobody has changed what a fix depends on: devices, routes, rules. Counters and what hosts learn don't count.
pub(super) fn is_unchanged(before: &HostState, now: &HostState) -> bool {
    let still = |host: &HostState| {
        let mut host = host.clone();
        host.counters.clear();
        host.neighbours.clear();
        host.forwarding.clear();
        host.qdiscs.clear();
        host.guests.clear();
        host.missing.clear();
        host.sysctls.retain(|name, _| !name.ends_with("_count"));
        for link in host.links.values_mut() {
            link.statistics = LinkStatistics::default();
        }
        for chain in &mut host.netfilter.chains {
            chain.policy_packets = None;
            chain.rules.iter_mut().for_each(|rule| rule.packets = None);
        }
        host.netfilter.sets.iter_mut().for_each(|set| set.elements.clear());
        host
    };
    still(before) == still(now)
}

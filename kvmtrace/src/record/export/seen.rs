//! What an exporter is given: events with all that is known of them, and in the end the verdicts.

use super::growth::Counts;
use super::lookup::Devices;
use crate::diagnose::report::{Finding, FlowReport, Incident, Report};
use crate::event::{Event, HostState};
use crate::record::format::Header;

/// A trace of those that are exported.
#[derive(Clone)]
pub(super) struct Trace {
    /// Its host, as the report names it.
    pub(super) host: String,
    pub(super) header: Header,
}

/// An event with all that is known of it.
#[derive(Clone, Copy)]
pub(super) struct Seen<'a> {
    pub(super) event: &'a Event,
    /// The host, as the report names it.
    pub(super) host: &'a str,
    pub(super) devices: &'a Devices,
    /// The flow that it belongs to.
    pub(super) flow: Option<&'a FlowReport>,
    /// What it counts that no event before it did.
    pub(super) new: Option<Counts>,
}

/// What the report says of a part of the export.
#[derive(Default)]
pub(super) struct Verdicts<'a> {
    pub(super) flows: Vec<&'a FlowReport>,
    pub(super) findings: Vec<&'a Finding>,
    pub(super) incidents: Vec<&'a Incident>,
}

impl<'a> Verdicts<'a> {
    pub(super) fn of(report: &'a Report) -> Self {
        Self {
            flows: report.flows.iter().collect(),
            findings: report.findings.iter().collect(),
            incidents: report.incidents.iter().collect(),
        }
    }
}

/// Writes the events of a recording in some form.
pub(super) trait Exporter {
    /// Learns the names of a host whose events follow.
    fn names(&mut self, _host: &HostState) -> std::io::Result<()> {
        Ok(())
    }
    /// Writes one event.
    fn event(&mut self, seen: &Seen<'_>) -> std::io::Result<()>;
    /// Writes what comes last.
    fn finish(&mut self, verdicts: &Verdicts<'_>) -> std::io::Result<()>;
}

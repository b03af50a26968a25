//! What the list of incidents shows: a row for each incident, and one for each kind of what is only noted.

use crate::diagnose::report::{Cause, Report, Severity};
use crate::event::Timestamp;
use std::collections::BTreeMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::Hasher as _;

/// An incident; or findings and flows of one cause, guest and place that are no more than information.
#[derive(Debug)]
pub struct Fault {
    /// The same fault has the same id in every snapshot.
    pub id: u64,
    /// Why; null for a flow that suffers without a known cause.
    pub cause: Option<Cause>,
    /// How grave.
    pub severity: Severity,
    /// What tells the story.
    pub source: FaultSource,
    /// Who suffers: a guest's name, or how many there are; empty where it is the host.
    pub who: String,
    /// The names of those.
    pub guests: Vec<String>,
    /// How many flows.
    pub flows: u64,
    /// Packets lost, or the finding's count.
    pub count: u64,
    /// When an incident began.
    pub since: Option<Timestamp>,
    /// What a filter searches, in lower case.
    pub text: String,
}

/// Where a fault's explanation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultSource {
    /// Index in `report.flows`.
    Flow(usize),
    /// Index in `report.findings`.
    Finding(usize),
    /// Index in `report.incidents`.
    Incident(usize),
}

/// The rows, the worst first; incidents before what is as grave and belongs to none.
pub(super) fn faults(report: &Report) -> Vec<Fault> {
    let mut faults: Vec<Fault> = report.incidents.iter().enumerate().map(incident).collect();
    faults.extend(noted(report));
    faults.sort_by_key(|fault| {
        (std::cmp::Reverse(fault.severity), fault.since.is_none(), std::cmp::Reverse(fault.count))
    });
    faults
}

fn incident((index, incident): (usize, &crate::diagnose::report::Incident)) -> Fault {
    let who = match incident.guests.as_slice() {
        [] => String::new(),
        [one] => one.clone(),
        several => format!("{} guests", several.len()),
    };
    let device = incident.place.as_ref().and_then(|place| place.device.as_deref()).unwrap_or_default();
    let parts = [incident.cause.id(), incident.id.as_str(), device, incident.explanation.as_str()];
    let guests = incident.guests.iter().map(String::as_str);
    let text = guests.chain(parts).collect::<Vec<_>>().join(" ").to_lowercase();
    Fault {
        id: hash(&incident.id),
        cause: Some(incident.cause),
        severity: incident.severity,
        source: FaultSource::Incident(index),
        who,
        guests: incident.guests.clone(),
        flows: incident.flows.len() as u64,
        count: incident.packets,
        since: Some(incident.first_seen),
        text,
    }
}

/// Flows and findings that belong to no incident.
fn noted(report: &Report) -> Vec<Fault> {
    let mut groups: BTreeMap<_, Fault> = BTreeMap::new();
    let alone = report.findings.iter().enumerate().filter(|(_, finding)| finding.label.incident.is_none());
    let findings = alone.map(|(index, finding)| {
        let device = finding.place.as_ref().and_then(|place| place.device.as_deref());
        let key = (Some(finding.cause), finding.guest.as_deref(), device);
        (key, finding.severity, FaultSource::Finding(index), finding.count.unwrap_or(0), finding.explanation.as_str())
    });
    let alone =
        report.flows.iter().enumerate().filter(|(_, flow)| flow.severity > Severity::Ok && flow.incident.is_none());
    let flows = alone.map(|(index, flow)| {
        let key = (flow.cause, flow.guest.as_deref(), flow.place.as_ref().and_then(|place| place.device.as_deref()));
        (key, flow.severity, FaultSource::Flow(index), flow.dropped, flow.explanation.as_str())
    });
    for (key, severity, source, count, explanation) in findings.chain(flows) {
        let fault = groups.entry(key).or_insert_with(|| {
            let (cause, guest, device) = key;
            let parts = [cause.map(Cause::id), guest, device, Some(explanation)];
            let text = parts.into_iter().flatten().collect::<Vec<_>>().join(" ").to_lowercase();
            Fault {
                id: hash(&key),
                cause,
                severity,
                source,
                who: guest.unwrap_or_default().to_owned(),
                guests: guest.map(str::to_owned).into_iter().collect(),
                flows: 0,
                count: 0,
                since: None,
                text,
            }
        });
        if severity > fault.severity {
            (fault.severity, fault.source) = (severity, source);
        }
        fault.count = fault.count.saturating_add(count);
        fault.flows += u64::from(matches!(source, FaultSource::Flow(_)));
    }
    groups.into_values().collect()
}

fn hash(of: &impl std::hash::Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    of.hash(&mut hasher);
    hasher.finish()
}

//! A part of a recording: some guests, devices, flows, causes, a stretch of time.
//!
//! What lies outside the stretch of time ([`Window`]) is as if it had not been recorded. All else selects among verdicts that
//! the whole trace gave: a filter never changes a verdict.
#![forbid(unsafe_code)]

mod moment;
#[cfg(test)]
mod tests;
mod window;

pub use moment::Moment;
pub use window::{Passage, Window};

use crate::diagnose::report::{Cause, Finding, FlowReport, Hop, Report, Severity, Verdict};
use crate::event::{Event, FlowKey, MacAddress};
use crate::filter::{Filter, FilterError};
use crate::track::Track;
use std::collections::{HashMap, HashSet};

/// Flows whose MAC addresses are remembered for a filter that asks for them.
const REMEMBERED: usize = 131_072;

/// Why nothing can be selected.
#[derive(Debug, thiserror::Error)]
pub enum SelectionError {
    /// No cause id.
    #[error("{0}: no such cause; docs/verdicts.md lists them")]
    Cause(String),
    /// No verdict.
    #[error("{0}: no such verdict; there are delivered, dropped, fragmented, refused, unanswered and lost")]
    Verdict(String),
    /// Not in this recording.
    #[error("{0}: no guest of the recording has this name, UUID or device; `kvmtrace report` without -g lists them")]
    Guest(String),
    /// The expression.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// What is wanted. The default wants everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Guests by name, UUID or device; none for all.
    pub guests: Vec<String>,
    /// Devices; none for all.
    pub interfaces: Vec<String>,
    /// Which flows.
    pub filter: Filter,
    /// Only this cause.
    pub cause: Option<Cause>,
    /// Only flows with this verdict.
    pub verdict: Option<Verdict>,
    /// Only warnings and errors.
    pub faults_only: bool,
    /// Which stretch of time.
    pub window: Window,
    /// Source and destination MAC addresses of flows, by [`Self::learn`].
    pub macs: HashMap<FlowKey, (MacAddress, MacAddress)>,
}

/// The cause with this id.
pub fn cause(id: &str) -> Result<Cause, SelectionError> {
    let found = Cause::ALL.iter().find(|cause| cause.id() == id).copied();
    found.ok_or_else(|| SelectionError::Cause(id.to_owned()))
}

/// The verdict with this name.
pub fn verdict(name: &str) -> Result<Verdict, SelectionError> {
    Ok(match name {
        "delivered" => Verdict::Delivered,
        "dropped" => Verdict::Dropped,
        "fragmented" => Verdict::Fragmented,
        "refused" => Verdict::Refused,
        "unanswered" => Verdict::Unanswered,
        "lost" => Verdict::Lost,
        _ => return Err(SelectionError::Verdict(name.to_owned())),
    })
}

impl Selection {
    /// Everything of its stretch of time is wanted.
    pub fn wants_all(&self) -> bool {
        self.guests.is_empty()
            && self.interfaces.is_empty()
            && self.filter.text().is_empty()
            && self.cause.is_none()
            && self.verdict.is_none()
            && !self.faults_only
    }

    /// Remembers what a report does not have: MAC addresses, where the filter asks for them.
    pub fn learn(&mut self, track: &Track) {
        if !self.filter.asks_for_macs() {
            return;
        }
        for flow in track.flows() {
            if let Some(counters) = flow.places.values().next()
                && self.macs.len() < REMEMBERED
            {
                self.macs.insert(flow.key, (counters.source_mac, counters.destination_mac));
            }
        }
    }

    /// The part of a report that is wanted, with totals of its own.
    pub fn narrow(&self, report: Report) -> Result<Report, SelectionError> {
        if let Some(word) = self.guests.iter().find(|word| !report.guests.iter().any(|guest| is_guest(guest, word))) {
            return Err(SelectionError::Guest(word.clone()));
        }
        Ok(self.narrowed(report))
    }

    /// As [`Self::narrow`]; of a guest that is not there nothing is wanted.
    pub fn narrowed(&self, mut report: Report) -> Report {
        if self.wants_all() {
            return report;
        }
        let guests = report.guests.iter().filter(|guest| self.guests.iter().any(|word| is_guest(guest, word)));
        let (names, devices): (Vec<_>, Vec<_>) = guests
            .map(|guest| (guest.name.clone(), guest.interfaces.iter().map(|interface| interface.device.clone())))
            .unzip();
        let wanted = Wanted { names, devices: devices.into_iter().flatten().collect() };
        report.flows.retain(|flow| self.wants_flow(flow, &wanted));
        report.findings.retain(|finding| self.wants_finding(finding, &wanted));
        report.settle_incidents();
        if !self.guests.is_empty() {
            report.guests.retain(|guest| wanted.names.contains(&guest.name));
        }
        report.ledger.clear();
        recount(&mut report);
        report
    }

    /// The report with the flows that the filter wants, and all findings: those are of no flow.
    pub fn flows_alone(&self, mut report: Report, track: &Track) -> Report {
        let mut learnt = self.clone();
        learnt.learn(track);
        report.flows.retain(|flow| learnt.filter_wants(flow));
        recount(&mut report);
        report
    }

    /// The filter wants packets with this key.
    pub fn wants_key(&self, key: FlowKey) -> bool {
        self.filter.wants(&key, (MacAddress::default(), MacAddress::default()))
    }

    fn wants_flow(&self, flow: &FlowReport, wanted: &Wanted) -> bool {
        let on = |devices: &dyn Fn(&str) -> bool| {
            let place = flow.place.as_ref().and_then(|place| place.device.as_deref());
            let hops = flow.path.iter().map(|hop: &Hop| hop.device.as_str());
            flow.device.as_deref().into_iter().chain(place).chain(hops).any(devices)
        };
        let of_guest = || {
            flow.guest.as_ref().is_some_and(|guest| wanted.names.contains(guest))
                || on(&|device| wanted.devices.contains(device))
        };
        (self.guests.is_empty() || of_guest())
            && (self.interfaces.is_empty() || on(&|device| self.interfaces.iter().any(|name| name == device)))
            && self.cause.is_none_or(|cause| flow.cause == Some(cause))
            && self.verdict.is_none_or(|verdict| flow.verdict == verdict)
            && (!self.faults_only || flow.severity >= Severity::Warning)
            && self.filter_wants(flow)
    }

    /// The flow as it entered, or as NAT made it.
    fn filter_wants(&self, flow: &FlowReport) -> bool {
        if self.filter.text().is_empty() {
            return true;
        }
        let macs = self.macs.get(&flow.key).copied().unwrap_or_default();
        // On its way a frame may bear a tag.
        let tagged = flow.vlan.map(|vlan| FlowKey { vlan: Some(vlan), ..flow.key });
        [flow.key].into_iter().chain(translated(flow)).chain(tagged).any(|key| self.filter.wants(&key, macs))
    }

    /// A finding is about no single flow: a filter or a verdict selects none.
    fn wants_finding(&self, finding: &Finding, wanted: &Wanted) -> bool {
        let device = finding.place.as_ref().and_then(|place| place.device.as_deref());
        let of_guest = || {
            finding.guest.as_ref().is_some_and(|guest| wanted.names.contains(guest))
                || device.is_some_and(|device| wanted.devices.contains(device))
        };
        self.filter.text().is_empty()
            && self.verdict.is_none()
            && (self.guests.is_empty() || of_guest())
            && (self.interfaces.is_empty() || self.interfaces.iter().any(|name| Some(name.as_str()) == device))
            && self.cause.is_none_or(|cause| finding.cause == cause)
            && (!self.faults_only || finding.severity >= Severity::Warning)
    }

    /// Which events belong to the flows of a narrowed report.
    pub fn events(&self, report: &Report) -> Events {
        if self.wants_all() {
            return Events { flows: None };
        }
        let keys = report.flows.iter().flat_map(|flow| [flow.key].into_iter().chain(translated(flow)));
        Events { flows: Some(keys.map(untagged).collect()) }
    }
}

/// Events of some flows.
#[derive(Debug)]
pub struct Events {
    /// None: of all.
    flows: Option<HashSet<FlowKey>>,
}

impl Events {
    /// What is of no flow is always wanted.
    pub fn wants(&self, event: &Event) -> bool {
        let Some(flows) = &self.flows else { return true };
        let Some(flow) = event.flow() else { return true };
        flows.contains(&untagged(flow))
    }
}

/// A flow at any of its places: VLAN tags come and go on the way.
fn untagged(key: FlowKey) -> FlowKey {
    FlowKey { vlan: None, ..key }
}

/// The flow as NAT made it.
fn translated(flow: &FlowReport) -> Option<FlowKey> {
    let nat = flow.translated.as_ref()?;
    let address = |text: &str| text.parse().ok().map(crate::event::Address::Ip);
    Some(FlowKey {
        source: address(&nat.source)?,
        source_port: nat.source_port,
        destination: address(&nat.destination)?,
        destination_port: nat.destination_port,
        ..flow.key
    })
}

/// Totals of the flows that are left.
fn recount(report: &mut Report) {
    let sum = |of: fn(&FlowReport) -> u64| report.flows.iter().map(of).sum();
    report.totals.packets = sum(|flow| flow.packets);
    report.totals.bytes = sum(|flow| flow.bytes);
    report.totals.dropped = sum(|flow| flow.dropped);
    report.totals.fragmented = sum(|flow| flow.fragments);
    report.totals.flows = report.flows.len() as u64;
}

struct Wanted {
    names: Vec<String>,
    devices: HashSet<String>,
}

fn is_guest(guest: &crate::diagnose::report::GuestReport, word: &str) -> bool {
    guest.name == word
        || guest.uuid.as_deref().is_some_and(|uuid| uuid.eq_ignore_ascii_case(word))
        || guest.interfaces.iter().any(|interface| interface.device == word)
}

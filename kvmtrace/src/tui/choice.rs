//! What keys act on: the thing under the cursor, its flow, its fixes.

use super::fault::{Fault, FaultSource};
use super::keep::{Form, Keep};
use super::snapshot::Snapshot;
use super::state::{Focus, Screen, State};
use crate::diagnose::report::{Cause, Fix, FlowReport};

/// The fixes of what is under the cursor.
pub(super) fn chosen_fixes(state: &State) -> &[Fix] {
    let snapshot = state.snapshot();
    let Some(index) = state.list(state.screen).current() else { return &[] };
    match (state.screen, state.focus) {
        (Screen::Faults, _) | (Screen::Path, Focus::Fault) => {
            snapshot.faults.get(index).map_or(&[], |fault| snapshot.fault_text(fault).fixes)
        }
        (Screen::Flows, _) | (Screen::Path, Focus::Flow) => {
            snapshot.report.flows.get(index).map_or(&[], |flow| flow.fixes.as_slice())
        }
        (Screen::Guests | Screen::Timeline, _) | (Screen::Path, Focus::Guest) => {
            let guest = snapshot.guests.get(index);
            guest.and_then(|guest| snapshot.guest_text(guest)).map_or(&[], |said| said.fixes)
        }
        (Screen::Events, _) => &[],
    }
}

/// The fix that `y` copies.
pub(super) fn chosen_fix(state: &State) -> Option<&Fix> {
    chosen_fixes(state).get(state.fix)
}

/// The flow that the fault under the cursor tells of.
pub(super) fn flow_of_fault(state: &State) -> Option<usize> {
    state.snapshot().flow_of(state.snapshot().faults.get(state.faults.current()?)?)
}

/// The flow under the cursor, if it is one; of an incident the worst.
pub(super) fn flow(state: &State) -> Option<usize> {
    match (state.screen, state.focus) {
        (Screen::Flows, _) | (Screen::Path, Focus::Flow) => state.flows.current(),
        (Screen::Faults, _) | (Screen::Path, Focus::Fault) => flow_of_fault(state),
        (Screen::Guests | Screen::Timeline | Screen::Events, _) | (Screen::Path, Focus::Guest) => None,
    }
}

/// The guest under the cursor, if it is one.
pub(super) fn guest(state: &State) -> Option<usize> {
    match (state.screen, state.focus) {
        (Screen::Guests | Screen::Timeline, _) | (Screen::Path, Focus::Guest) => state.guests.current(),
        (Screen::Flows | Screen::Faults | Screen::Events, _) | (Screen::Path, Focus::Flow | Focus::Fault) => None,
    }
}

/// The incident under the cursor, if it is one: its id.
pub(super) fn incident(state: &State) -> Option<&str> {
    let fault = match (state.screen, state.focus) {
        (Screen::Faults, _) | (Screen::Path, Focus::Fault) => state.snapshot().faults.get(state.faults.current()?)?,
        _ => return None,
    };
    match fault.source {
        FaultSource::Incident(index) => Some(state.snapshot().report.incidents.get(index)?.id.as_str()),
        FaultSource::Flow(_) | FaultSource::Finding(_) => None,
    }
}

/// What `x` saves: the incident, the flow or the group under the cursor, or all that concerns the guest there.
pub(super) fn keep(state: &State, form: Form) -> Option<Keep> {
    let snapshot = state.snapshot();
    let index = state.list(state.screen).current()?;
    let mut keep = match (state.screen, state.focus) {
        (Screen::Events, _) => return None,
        (Screen::Faults, _) | (Screen::Path, Focus::Fault) => of_fault(snapshot, snapshot.faults.get(index)?),
        (Screen::Flows, _) | (Screen::Path, Focus::Flow) => {
            let group = state.flows.group().filter(|_| state.screen == Screen::Flows);
            let same = |flow: usize| {
                group.is_some_and(|group| {
                    snapshot.flows.get(flow).and_then(|facts| facts.groups.of(group.grouping)) == Some(group.id)
                })
            };
            let flows = if group.is_some() {
                (0..snapshot.flows.len()).filter(|flow| same(*flow)).collect()
            } else {
                vec![index]
            };
            of_flows(snapshot, if group.is_some() { "flows" } else { "flow" }, flows)
        }
        (Screen::Guests | Screen::Timeline, _) | (Screen::Path, Focus::Guest) => {
            let guest = &snapshot.report.guests.get(snapshot.guests.get(index)?.index)?.name;
            let all = &snapshot.report.flows;
            let mut keep = of_flows(snapshot, "guest", matching(all, |flow| flow.guest.as_ref() == Some(guest)));
            keep.findings = matching(&snapshot.report.findings, |finding| finding.guest.as_ref() == Some(guest));
            keep.incidents = matching(&snapshot.report.incidents, |incident| incident.guests.contains(guest));
            keep
        }
    };
    keep.form = form;
    keep.command = chosen_fix(state).and_then(|fix| fix.command.clone());
    Some(keep)
}

fn matching<T>(all: &[T], wanted: impl Fn(&T) -> bool) -> Vec<usize> {
    all.iter().enumerate().filter(|(_, one)| wanted(one)).map(|(index, _)| index).collect()
}

fn of_flows(snapshot: &Snapshot, what: &str, flows: Vec<usize>) -> Keep {
    let of: Vec<&FlowReport> = flows.iter().filter_map(|index| snapshot.report.flows.get(*index)).collect();
    let incidents = matching(&snapshot.report.incidents, |incident| {
        of.iter().any(|flow| flow.incident.as_ref() == Some(&incident.id))
    });
    Keep { form: Form::Text, what: what.to_owned(), incidents, flows, findings: Vec::new(), command: None }
}

fn of_fault(snapshot: &Snapshot, fault: &Fault) -> Keep {
    let report = &snapshot.report;
    let keep = Keep {
        form: Form::Text,
        what: fault.cause.map_or("dropped", Cause::id).to_owned(),
        incidents: Vec::new(),
        flows: Vec::new(),
        findings: Vec::new(),
        command: None,
    };
    match fault.source {
        FaultSource::Flow(index) => Keep { flows: vec![index], ..keep },
        FaultSource::Finding(index) => Keep { findings: vec![index], ..keep },
        FaultSource::Incident(index) => {
            let Some(incident) = report.incidents.get(index) else { return keep };
            Keep {
                incidents: vec![index],
                flows: matching(&report.flows, |flow| flow.incident.as_ref() == Some(&incident.id)),
                findings: matching(&report.findings, |finding| finding.label.incident.as_ref() == Some(&incident.id)),
                ..keep
            }
        }
    }
}

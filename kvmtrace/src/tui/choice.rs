//! What keys act on: the thing under the cursor, its flow, its fixes.

use super::state::{Focus, Screen, State};
use crate::diagnose::report::Fix;

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
        (Screen::Guests, _) | (Screen::Path, Focus::Guest) => {
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

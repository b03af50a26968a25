//! When incidents begin, end and come back.
//!
//! A report never forgets an incident, so one that no packet was lost to for [`QUIET_NS`] has ended.

use crate::diagnose::report::{Cause, Incident, Report, Severity};
use crate::event::Timestamp;
use std::collections::BTreeMap;

/// An incident has ended when nothing was lost to it for this long, in nanoseconds.
const QUIET_NS: u64 = 30_000_000_000;
/// Incidents that are remembered.
const LIMIT: usize = 10_000;

/// An incident begins or ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// The guest, if it is one alone.
    pub(super) guest: Option<String>,
    /// Where.
    pub(super) device: String,
    /// In words.
    pub(super) text: String,
}

#[derive(Debug)]
struct Known {
    on: bool,
    since: Timestamp,
    last: Timestamp,
    packets: u64,
}

/// The incidents so far.
#[derive(Debug, Default)]
pub(super) struct Incidents {
    known: BTreeMap<String, Known>,
    /// How many last, by guest.
    lasting: BTreeMap<String, u8>,
}

impl Incidents {
    /// What has changed since the last look.
    pub(super) fn step(&mut self, now: Timestamp, report: &Report) -> Vec<Turn> {
        let mut turns = Vec::new();
        self.lasting.clear();
        for incident in report.incidents.iter().filter(|incident| incident.severity >= Severity::Warning) {
            let lasts = now.since(incident.last_seen).0 < QUIET_NS;
            if lasts {
                for guest in &incident.guests {
                    let count = self.lasting.entry(guest.clone()).or_default();
                    *count = count.saturating_add(1);
                }
            }
            let (full, packets) = (self.known.len() >= LIMIT, incident.packets);
            let text = match self.known.get_mut(&incident.id) {
                None if full => continue,
                None => {
                    let (since, last) = (incident.first_seen, incident.last_seen);
                    self.known.insert(incident.id.clone(), Known { on: lasts, since, last, packets });
                    if lasts { format!("begins: {}", words(incident)) } else { continue }
                }
                Some(known) => {
                    let was_on = std::mem::replace(&mut known.on, lasts);
                    let text = match (was_on, lasts) {
                        (true, false) => ended(incident.cause, known),
                        (false, true) => {
                            known.since = now;
                            format!("is back: {}", words(incident))
                        }
                        _ => String::new(),
                    };
                    (known.last, known.packets) = (incident.last_seen, packets);
                    if text.is_empty() {
                        continue;
                    }
                    text
                }
            };
            turns.push(turn(incident, text));
        }
        // What the report no longer has: its flows get through, or were forgotten.
        let here: std::collections::BTreeSet<&String> = report.incidents.iter().map(|incident| &incident.id).collect();
        for (_, known) in self.known.iter_mut().filter(|(id, known)| known.on && !here.contains(id)) {
            known.on = false;
            turns.push(Turn {
                guest: None,
                device: String::new(),
                text: format!("ends after {}: its flows get through", lasted(known)),
            });
        }
        turns
    }

    /// How many incidents of a guest last.
    pub(super) fn of_guest(&self, guest: &str) -> u8 {
        self.lasting.get(guest).copied().unwrap_or(0)
    }
}

fn turn(incident: &Incident, text: String) -> Turn {
    let guest = match incident.guests.as_slice() {
        [one] => Some(one.clone()),
        _ => None,
    };
    let device = incident.place.as_ref().and_then(|place| place.device.clone()).unwrap_or_default();
    Turn { guest, device, text }
}

fn lasted(known: &Known) -> String {
    super::text::elapsed(known.last.since(known.since).0 / 1_000_000_000)
}

fn ended(cause: Cause, known: &Known) -> String {
    format!("ends after {}: {}, {} packets lost", lasted(known), cause.id(), known.packets)
}

fn words(incident: &Incident) -> String {
    let flows = crate::diagnose::words::counted(incident.flows.len() as u64, "flow");
    match incident.guests.len() {
        0 | 1 => format!("{}, {flows}", incident.cause.id()),
        guests => format!("{}, {flows} of {guests} guests", incident.cause.id()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixture;
    use super::*;

    #[test]
    fn an_incident_begins_ends_and_comes_back() {
        let mut incidents = Incidents::default();
        let start = fixture::mtu_report(60).window.end;
        let at = |seconds: u64| Timestamp(start.0 + seconds * 1_000_000_000);
        let report = |last: u64| {
            let mut report = fixture::mtu_report(60);
            report.incidents.truncate(1);
            report.incidents[0].last_seen = at(last);
            report
        };
        let texts = |turns: Vec<Turn>| turns.into_iter().map(|turn| turn.text).collect::<Vec<_>>();
        assert_eq!(texts(incidents.step(at(0), &report(0))), ["begins: bridge-mtu-exceeded, 1 flow"]);
        assert_eq!(incidents.of_guest("web1"), 1);
        assert_eq!(incidents.step(at(20), &report(5)), []);
        let end = texts(incidents.step(at(40), &report(5)));
        assert_eq!(end, ["ends after 1m05s: bridge-mtu-exceeded, 720 packets lost"]);
        assert_eq!(incidents.of_guest("web1"), 0);
        assert_eq!(incidents.step(at(50), &report(5)), []);
        assert_eq!(texts(incidents.step(at(60), &report(60))), ["is back: bridge-mtu-exceeded, 1 flow"]);
        // Its flow gets through: the report has no such incident any more.
        let end = texts(incidents.step(at(70), &fixture::healthy_report(60)));
        assert_eq!(end, ["ends after 0s: its flows get through"]);
    }
}

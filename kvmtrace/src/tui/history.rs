//! Rates: how counters changed between two looks, a second or more apart in the trace's own time.

use super::rates::FlowRates;
use super::series::Series;
use super::snapshot::FlowFacts;
use super::turns::Incidents;
use crate::diagnose::report::Report;
use crate::event::Timestamp;
use std::collections::{BTreeMap, HashMap, VecDeque};

/// Points of a sparkline that are kept.
pub const HISTORY_LENGTH: usize = 120;

/// Shorter spans give no honest rate.
const SHORTEST_SPAN_NS: u64 = 900_000_000;

/// A guest's rates and their past, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestHistory {
    /// The newest.
    pub rates: FlowRates,
    /// Packets per second.
    pub packets: VecDeque<u64>,
    /// Bytes per second.
    pub bytes: VecDeque<u64>,
    /// Drops per second.
    pub dropped: VecDeque<u64>,
    /// The past six hours.
    pub series: Series,
}

/// What must be remembered from look to look.
#[derive(Debug, Default)]
pub struct History {
    measured: Option<Timestamp>,
    flows: HashMap<u64, Counted>,
    guests: BTreeMap<String, GuestHistory>,
    /// Guests' incidents that last.
    pub(super) incidents: Incidents,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    packets: u64,
    bytes: u64,
    dropped: u64,
    rates: FlowRates,
}

impl History {
    /// Fills in the rates of `flows`, which stand in the order of `report.flows`.
    pub(super) fn measure(&mut self, now: Timestamp, report: &Report, flows: &mut [FlowFacts]) {
        let Some(before) = self.measured else {
            // The first look: what is there was counted since the start of the trace.
            let span = now.since(report.window.start).0;
            return if span >= SHORTEST_SPAN_NS {
                self.advance(now, span, report, flows);
            };
        };
        let span = now.since(before).0;
        if span >= SHORTEST_SPAN_NS {
            self.advance(now, span, report, flows);
        } else {
            for flow in flows {
                flow.rates = self.flows.get(&flow.id).map(|counted| counted.rates).unwrap_or_default();
            }
        }
    }

    fn advance(&mut self, now: Timestamp, span: u64, report: &Report, flows: &mut [FlowFacts]) {
        let per_second = |new: u64, old: u64| {
            let change = u128::from(new.saturating_sub(old));
            u64::try_from((change * 1_000_000_000).div_ceil(u128::from(span))).unwrap_or(u64::MAX)
        };
        let mut sums: BTreeMap<&str, FlowRates> =
            report.guests.iter().map(|guest| (guest.name.as_str(), FlowRates::default())).collect();
        let mut counted = HashMap::with_capacity(flows.len());
        for (flow, facts) in report.flows.iter().zip(flows.iter_mut()) {
            let old = self.flows.get(&facts.id).copied().unwrap_or_default();
            facts.rates = FlowRates {
                packets: per_second(flow.packets, old.packets),
                bytes: per_second(flow.bytes, old.bytes),
                dropped: per_second(flow.dropped, old.dropped),
            };
            counted.insert(
                facts.id,
                Counted { packets: flow.packets, bytes: flow.bytes, dropped: flow.dropped, rates: facts.rates },
            );
            if let Some(sum) = flow.guest.as_deref().and_then(|guest| sums.get_mut(guest)) {
                sum.add(facts.rates);
            }
        }
        self.flows = counted;
        self.guests.retain(|name, _| sums.contains_key(name.as_str()));
        for (name, rates) in sums {
            let guest = self.guests.entry(name.to_owned()).or_default();
            guest.rates = rates;
            let since = Timestamp(now.0.saturating_sub(span));
            guest.series.add(since, now, rates, self.incidents.of_guest(name));
            for (line, value) in [
                (&mut guest.packets, rates.packets),
                (&mut guest.bytes, rates.bytes),
                (&mut guest.dropped, rates.dropped),
            ] {
                line.push_back(value);
                while line.len() > HISTORY_LENGTH {
                    line.pop_front();
                }
            }
        }
        self.measured = Some(now);
    }

    /// Begins to count anew. The past stays what it was.
    pub(super) fn reset(&mut self) {
        self.measured = None;
        self.flows.clear();
    }

    /// A guest's rates.
    pub(super) fn guest(&self, name: &str) -> GuestHistory {
        self.guests.get(name).cloned().unwrap_or_default()
    }
}

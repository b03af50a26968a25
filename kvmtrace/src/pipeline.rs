//! One step of the middle: an event in, what it means out. A pure fold: the same events give the same report.

use crate::diagnose::report::Report;
use crate::event::{Event, EventKind, FlowKey, Timestamp};
use crate::filter::Filter;
use crate::selection::Selection;
use crate::track::Track;
use crate::track::remembered::Remembered;

/// All state between a source and the sinks.
#[derive(Debug, Default)]
pub struct Pipeline {
    track: Track,
    /// The filter of the trace, where all that belongs to its flows was traced.
    asked: Option<Selection>,
    /// Whether flows are asked for, and when that was found.
    answers: Answers,
}

/// Flows whose answers are remembered.
const REMEMBERED: usize = 1 << 16;
/// A no is asked again after this time, in nanoseconds: a translation may be seen later than the flow.
const AGAIN_NS: u64 = 500_000_000;

/// Answers by flow.
#[derive(Debug)]
struct Answers(Remembered<FlowKey, (Timestamp, bool)>);

impl Default for Answers {
    fn default() -> Self {
        Self(Remembered::new(REMEMBERED))
    }
}

impl Pipeline {
    /// For packets that kvmtrace sends itself.
    pub fn of_probe() -> Self {
        Self { track: Track::of_probe(), ..Self::default() }
    }

    /// The event is of a flow that the filter asks for, under any of its names.
    pub fn is_asked(&mut self, event: &Event) -> bool {
        let Some(asked) = &self.asked else { return true };
        let Some(flow) = event.flow() else { return true };
        if asked.filter.asks_for_macs() || asked.wants_key(flow) {
            return true;
        }
        match self.answers.0.get(&flow) {
            Some((_, true)) => return true,
            Some((asked, false)) if event.time.since(*asked).0 < AGAIN_NS => return false,
            Some(_) | None => {}
        }
        let is_asked = self.track.translations().iter().any(|(before, after)| {
            (*after == flow && asked.wants_key(*before)) || (*before == flow && asked.wants_key(*after))
        });
        self.answers.0.insert(flow, (event.time, is_asked));
        is_asked
    }

    /// Takes one event in.
    pub fn take(&mut self, event: &Event) {
        if let EventKind::Started(started) = &event.kind {
            let filter = Filter::parse(&started.filter).ok().filter(|_| started.followed);
            self.asked = filter.map(|filter| Selection { filter, ..Selection::default() });
        }
        self.track.apply(event);
    }

    /// The verdicts over everything that was stepped through so far.
    pub fn report(&self) -> Report {
        let report = crate::diagnose::report(&self.track);
        match &self.asked {
            Some(asked) => asked.flows_alone(report, &self.track),
            None => report,
        }
    }

    /// Forgets flows that have rested since before a time ([`Track::forget`]).
    pub fn forget(&mut self, before: Timestamp) {
        self.track.forget(before);
    }

    /// The faults visible in the host's configuration alone.
    pub fn check(&self) -> Report {
        crate::diagnose::check(&self.track)
    }

    /// How many faults of the configuration a report says nothing of.
    pub fn further_faults(&self, report: &Report) -> usize {
        crate::diagnose::further_faults(&self.track, report)
    }

    /// What is known of the flows and the host, for views that show more than the report.
    pub fn track(&self) -> &Track {
        &self.track
    }
}

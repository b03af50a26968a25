//! One step of the middle: an event in, what it means out. A pure fold: the same events give the same report.

use crate::diagnose::notice::{self, Notice};
use crate::diagnose::report::Report;
use crate::event::{Event, EventKind, Timestamp};
use crate::filter::Filter;
use crate::selection::Selection;
use crate::track::Track;

/// All state between a source and the sinks.
#[derive(Debug, Default)]
pub struct Pipeline {
    track: Track,
    /// The filter of the trace, where all that belongs to its flows was traced.
    asked: Option<Selection>,
}

impl Pipeline {
    /// For packets that kvmtrace sends itself.
    pub fn of_probe() -> Self {
        Self { track: Track::of_probe(), ..Self::default() }
    }

    /// Takes one event in and tells what an onlooker should hear of at once (`kvmtrace watch`).
    pub fn step(&mut self, event: &Event) -> Vec<Notice> {
        self.take(event);
        if !self.is_asked(event) {
            return Vec::new();
        }
        notice::notice(event, &self.track).into_iter().collect()
    }

    /// The event is of a flow that the filter asks for, under any of its names.
    fn is_asked(&self, event: &Event) -> bool {
        let (Some(asked), EventKind::Packet(record)) = (&self.asked, &event.kind) else { return true };
        asked.filter.asks_for_macs()
            || asked.wants_key(record.flow)
            || self.track.translations().iter().any(|(before, after)| {
                (*after == record.flow && asked.wants_key(*before))
                    || (*before == record.flow && asked.wants_key(*after))
            })
    }

    /// Takes one event in, for those who only want the report.
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

    /// What is known of the flows and the host, for views that show more than the report.
    pub fn track(&self) -> &Track {
        &self.track
    }
}

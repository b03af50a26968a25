//! One step of the middle: an event in, what it means out. A pure fold: the same events give the same report.

use crate::diagnose::notice::{self, Notice};
use crate::diagnose::report::Report;
use crate::event::{Event, Timestamp};
use crate::track::Track;

/// All state between a source and the sinks.
#[derive(Debug, Default)]
pub struct Pipeline {
    track: Track,
}

impl Pipeline {
    /// Takes one event in and tells what an onlooker should hear of at once (`kvmtrace watch`).
    pub fn step(&mut self, event: &Event) -> Vec<Notice> {
        self.take(event);
        notice::notice(event, &self.track).into_iter().collect()
    }

    /// Takes one event in, for those who only want the report.
    pub fn take(&mut self, event: &Event) {
        self.track.apply(event);
    }

    /// The verdicts over everything that was stepped through so far.
    pub fn report(&self) -> Report {
        crate::diagnose::report(&self.track)
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

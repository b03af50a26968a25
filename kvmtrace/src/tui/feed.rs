//! From events to snapshots: the pipeline with what only the screens need beside it. Pure: time is an argument.

use super::history::History;
use super::log::Log;
use super::path::Device;
use super::snapshot::{Snapshot, Status};
use crate::event::{Event, Timestamp};
use crate::pipeline::Pipeline;
use crate::selection::Selection;
use crate::track::rebase::{Latest, Rebase};

/// Folds events and tells what they come to.
#[derive(Debug, Default)]
pub struct Feed {
    pipeline: Pipeline,
    history: History,
    log: Log,
    latest: Latest,
    rebase: Option<Rebase>,
    newest: Timestamp,
    serial: u64,
    selection: Selection,
}

impl Feed {
    /// Shows only this part of what it comes to.
    pub fn of(selection: Selection) -> Self {
        Self { selection, ..Self::default() }
    }

    /// Takes an event in.
    pub fn step(&mut self, event: &Event) {
        self.newest = self.newest.max(event.time);
        self.latest.note(event);
        self.log.push(event);
        match &self.rebase {
            None => self.pipeline.take(event),
            Some(rebase) => {
                if let Some(event) = rebase.apply(event) {
                    self.pipeline.take(&event);
                }
            }
        }
    }

    /// Time of the newest event.
    pub fn newest(&self) -> Timestamp {
        self.newest
    }

    /// The newest absolute counters.
    pub fn latest(&self) -> &Latest {
        &self.latest
    }

    /// Begins to count anew.
    pub fn reset(&mut self, now: Timestamp) {
        self.rebase = Some(Rebase::new(&self.latest, now));
        self.pipeline = Pipeline::default();
        self.history.reset();
        for event in self.latest.preamble(now) {
            self.pipeline.take(&event);
        }
    }

    /// How things stand at `now`.
    pub fn snapshot(&mut self, now: Timestamp, status: Status) -> Snapshot {
        self.serial += 1;
        let host = self.pipeline.track().host();
        let devices = host.links.values().map(|link| (link.name.clone(), Device::of(link, host))).collect();
        let report = self.selection.narrowed(self.pipeline.report());
        for turn in self.history.incidents.step(now, &report) {
            self.log.turn(now, turn);
        }
        let (entries, turns) = (self.log.entries(), self.log.turns());
        let snapshot = Snapshot::new(self.serial, now, report, &mut self.history, entries, devices, status);
        Snapshot { host: self.latest.host().cloned(), turns, ..snapshot }
    }
}

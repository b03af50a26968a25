//! The end of the command that is traced (`--cmd`), as an event: recordings hold it, too.

use crate::event::{CommandEnd, Event, EventKind};
use crate::source::{ProgramCost, Source};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};

/// How the command ended, once it has.
#[derive(Clone, Debug, Default)]
pub(super) struct Ending(Arc<Mutex<Option<CommandEnd>>>);

impl Ending {
    /// The command has ended.
    pub(super) fn set(&self, status: ExitStatus) {
        // As shells have it: 128 + N for signal N.
        let status = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(CommandEnd { status });
    }

    fn take(&self) -> Option<CommandEnd> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A source that reports the command's end before its own.
#[derive(Debug)]
pub(super) struct Commanded<S> {
    source: S,
    ending: Ending,
    /// The source's own end, which the command's comes before.
    held: Option<Event>,
}

impl<S> Commanded<S> {
    /// Adds the end of a command to a source.
    pub(super) fn new(source: S, ending: Ending) -> Self {
        Self { source, ending, held: None }
    }

    /// The source within.
    pub(super) fn inner(&self) -> &S {
        &self.source
    }
}

impl<S: Source + Send> Source for Commanded<S> {
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        if let Some(event) = self.held.take() {
            return Ok(Some(event));
        }
        let event = self.source.next().await?;
        if let Some(last) = &event
            && last.kind == EventKind::Ended
            && let Some(end) = self.ending.take()
        {
            let time = last.time;
            self.held = event;
            return Ok(Some(Event { time, kind: EventKind::Command(end) }));
        }
        Ok(event)
    }

    fn cost(&self) -> Option<ProgramCost> {
        self.source.cost()
    }
}

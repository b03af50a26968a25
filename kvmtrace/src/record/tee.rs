//! A source whose events are recorded while they pass.

use super::writer::{WriteError, Writer, Written};
use crate::event::{Event, EventKind, PacketCause};
use crate::source::{ProgramCost, Source};
use std::time::Duration;

/// Nothing waits longer than this to be written.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Passes the events of another source on, and writes them if there is a writer.
#[derive(Debug)]
pub struct Tee<S> {
    source: S,
    writer: Option<Writer>,
    written: Option<Written>,
    /// The events matter more than their recording.
    goes_on: bool,
    failure: Option<WriteError>,
    snaplen: usize,
    lost: u64,
}

impl<S: Source> Tee<S> {
    /// Records what `source` tells.
    pub fn new(source: S, writer: Writer) -> Self {
        Self::maybe(source, Some(writer))
    }

    /// Records what `source` tells, if there is a writer.
    pub fn maybe(source: S, writer: Option<Writer>) -> Self {
        Self { source, writer, written: None, goes_on: false, failure: None, snaplen: usize::MAX, lost: 0 }
    }

    /// Of packets that are recorded only because every packet is, keeps so many bytes.
    #[must_use]
    pub fn with_snaplen(self, snaplen: u16) -> Self {
        Self { snaplen: usize::from(snaplen), ..self }
    }

    /// Where the recording can't go on, the events do, and [`Self::failure`] says so in the end.
    #[must_use]
    pub fn that_goes_on(self) -> Self {
        Self { goes_on: true, ..self }
    }

    /// Why the recording ended early, once.
    pub fn failure(&mut self) -> Option<WriteError> {
        self.failure.take()
    }

    fn noted(&mut self, result: Result<(), WriteError>) -> Result<(), WriteError> {
        match result {
            Err(error) if self.goes_on => {
                self.writer = None;
                self.failure = Some(error);
                Ok(())
            }
            result => result,
        }
    }

    fn finish(&mut self) -> Result<(), WriteError> {
        self.written = self.writer.take().map(Writer::finish).transpose()?;
        Ok(())
    }

    /// The source within.
    pub fn inner(&self) -> &S {
        &self.source
    }

    /// Records that found the ring full.
    pub fn lost(&self) -> u64 {
        self.lost
    }

    /// What was written; known after the last event.
    pub fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }
}

impl<S: Source + Send> Source for Tee<S> {
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            let Some(writer) = &mut self.writer else { return self.source.next().await };
            let Ok(next) = tokio::time::timeout(FLUSH_AFTER, self.source.next()).await else {
                let flushed = writer.flush();
                self.noted(flushed)?;
                continue;
            };
            let Some(mut event) = next? else {
                let finished = self.finish();
                self.noted(finished)?;
                return Ok(None);
            };
            if let EventKind::Packet(packet) = &mut event.kind
                && packet.cause == PacketCause::Wanted
            {
                packet.header.truncate(self.snaplen);
            }
            if let EventKind::Loss(loss) = &event.kind {
                self.lost = loss.ring_events;
            }
            let written = writer.write(&event);
            self.noted(written)?;
            return Ok(Some(event));
        }
    }

    fn cost(&self) -> Option<ProgramCost> {
        self.source.cost()
    }
}

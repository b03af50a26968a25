//! A source whose events are recorded while they pass.

use super::writer::{Writer, Written};
use crate::event::Event;
use crate::source::Source;
use std::time::Duration;

/// Nothing waits longer than this to be written.
const FLUSH_AFTER: Duration = Duration::from_secs(1);

/// Passes the events of another source on, and writes them.
#[derive(Debug)]
pub struct Tee<S> {
    source: S,
    writer: Option<Writer>,
    written: Option<Written>,
}

impl<S: Source> Tee<S> {
    /// Records what `source` tells.
    pub fn new(source: S, writer: Writer) -> Self {
        Self { source, writer: Some(writer), written: None }
    }

    /// What was written; known after the last event.
    pub fn written(&self) -> Option<&Written> {
        self.written.as_ref()
    }
}

impl<S: Source + Send> Source for Tee<S> {
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            let Some(writer) = &mut self.writer else { return Ok(None) };
            let Ok(next) = tokio::time::timeout(FLUSH_AFTER, self.source.next()).await else {
                writer.flush()?;
                continue;
            };
            let Some(event) = next? else {
                self.written = self.writer.take().map(Writer::finish).transpose()?;
                return Ok(None);
            };
            writer.write(&event)?;
            return Ok(Some(event));
        }
    }
}

//! Events as bytes and back: postcard, one event after the other, under a version number.
//!
//! postcard does not describe itself, so a change of any type within [`Event`] is a new schema: the types as they were
//! move to a module of their own (`schema/v1.rs`), with a conversion into today's, and `Events` chooses by number.
//! The golden recording of each version (tests/recordings) fails to decode when this is forgotten.

use crate::event::Event;

/// The schema that this version writes.
pub const SCHEMA: u32 = 1;

/// Appends the schema's number: how every batch begins.
pub(crate) fn begin(batch: &mut Vec<u8>) {
    batch.clear();
    batch.extend(SCHEMA.to_le_bytes());
}

/// Appends an event.
pub(crate) fn append(batch: &mut Vec<u8>, event: &Event) -> Result<(), postcard::Error> {
    postcard::to_io(event, batch).map(|_| ())
}

/// Why a batch can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchError {
    /// Its schema is newer than this version.
    Newer(u32),
    /// Its bytes are no events.
    Malformed,
}

/// The events of a batch, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Events {
    bytes: Vec<u8>,
    position: usize,
}

impl Events {
    /// Opens a batch; `bytes` begin with the schema's number.
    pub(crate) fn open(bytes: Vec<u8>) -> Result<Self, BatchError> {
        let schema = bytes.first_chunk::<4>().copied().map(u32::from_le_bytes).ok_or(BatchError::Malformed)?;
        match schema {
            SCHEMA => Ok(Self { bytes, position: 4 }),
            0 => Err(BatchError::Malformed),
            newer => Err(BatchError::Newer(newer)),
        }
    }

    /// Bytes that are not read yet.
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.position
    }
}

impl Iterator for Events {
    type Item = Result<Event, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.position..).filter(|rest| !rest.is_empty())?;
        let Ok((event, after)) = postcard::take_from_bytes::<Event>(rest) else {
            self.position = self.bytes.len();
            return Some(Err(BatchError::Malformed));
        };
        self.position = self.bytes.len() - after.len();
        Some(Ok(event))
    }
}

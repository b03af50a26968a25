//! Events as bytes and back: postcard, one event after the other.
//!
//! postcard does not describe itself, so a recording carries a description of its events' types (`types`, made from
//! ours: events.json) and each batch names the description that it follows. Where that is ours, events are decoded
//! straight; else by the description (`decode`): fields and variants are found by name. So a field may be added to any
//! type within `Event`, or taken away, without a new schema: `#[serde(default)]` on what older recordings lack (an
//! `Option` needs none), `#[serde(alias = "…")]` on what was renamed.

mod decode;
mod types;

#[cfg(test)]
mod tests;

pub(crate) use types::{LARGEST as LARGEST_DESCRIPTION, OURS as DESCRIPTION, Types, checksum};

use crate::event::Event;
use bytes::BufMut as _;
use serde::de::IgnoredAny;
use std::sync::{Arc, LazyLock};

/// The schema that this version writes: how a batch begins and events are encoded.
pub const SCHEMA: u32 = 2;
/// The one without descriptions.
const WITHOUT_DESCRIPTION: u32 = 1;

/// What batches name our own description by.
static OURS: LazyLock<u32> = LazyLock::new(|| checksum(DESCRIPTION.as_bytes()));

/// Our own description, read.
static OUR_TYPES: LazyLock<Option<Types>> = LazyLock::new(|| Types::parse(DESCRIPTION.as_bytes()));

/// What the first of these events, by our own types, would need memory for is bounded: it consists of so few values.
pub(crate) fn is_bounded(events: &[u8]) -> bool {
    events.len() <= decode::SURELY_FEW
        || OUR_TYPES.as_ref().is_some_and(|types| decode::take::<IgnoredAny>(types, events).is_ok())
}

/// Appends what every batch begins with: the schema's number, and which description it follows.
pub(crate) fn begin(batch: &mut Vec<u8>) {
    batch.clear();
    batch.put_u32_le(SCHEMA);
    batch.put_u32_le(*OURS);
}

/// Appends an event.
pub(crate) fn append(batch: &mut Vec<u8>, event: &Event) -> Result<(), postcard::Error> {
    postcard::to_io(event, batch).map(|_| ())
}

/// Why a batch, or an event of it, can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum BatchError {
    /// Its schema is newer than this version.
    Newer(u32),
    /// Its bytes are no events.
    Malformed,
    /// It follows a description that is missing.
    Undescribed,
    /// One event is of a kind that this version does not know.
    Unknown,
}

/// A description that a file carries.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    id: u32,
    types: Arc<Types>,
}

impl Description {
    /// Reads a description; `None` when it is none.
    pub(crate) fn parse(json: &[u8]) -> Option<Self> {
        let json = Some(json).filter(|json| json.len() <= LARGEST_DESCRIPTION)?;
        Types::parse(json).map(|types| Self { id: checksum(json), types: Arc::new(types) })
    }
}

/// The events of a batch, one at a time.
#[derive(Debug, Default)]
pub(crate) struct Events {
    bytes: Vec<u8>,
    position: usize,
    /// `None`: as ours are.
    types: Option<Arc<Types>>,
}

impl Events {
    /// Opens a batch. `described` holds the description that the file had last, and is filled where it had none that
    /// this batch follows.
    pub(crate) fn open(bytes: Vec<u8>, described: &mut Option<Description>) -> Result<Self, BatchError> {
        let word = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk()).copied().map(u32::from_le_bytes);
        let (id, position) = match word(0).ok_or(BatchError::Malformed)? {
            0 => return Err(BatchError::Malformed),
            WITHOUT_DESCRIPTION => (types::schema_1(), 4),
            SCHEMA => (word(4).ok_or(BatchError::Malformed)?, 8),
            newer => return Err(BatchError::Newer(newer)),
        };
        if id == *OURS {
            return Ok(Self { bytes, position, types: None });
        }
        if described.as_ref().is_none_or(|known| known.id != id) {
            let types = Types::known(id).map(Arc::new).ok_or(BatchError::Undescribed)?;
            *described = Some(Description { id, types });
        }
        Ok(Self { bytes, position, types: described.as_ref().map(|known| known.types.clone()) })
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
        let decoded = match &self.types {
            None if !is_bounded(rest) => None,
            None => postcard::take_from_bytes(rest).map(|(event, after)| (Ok(event), after.len())).ok(),
            // What can be passed over is only strange to us.
            Some(types) => decode::take(types, rest).map(|(event, after)| (Ok(event), after)).ok().or_else(|| {
                decode::take::<IgnoredAny>(types, rest).map(|(_, after)| (Err(BatchError::Unknown), after)).ok()
            }),
        };
        let Some((event, after)) = decoded.filter(|(_, after)| *after < rest.len()) else {
            self.position = self.bytes.len();
            return Some(Err(BatchError::Malformed));
        };
        self.position = self.bytes.len() - after;
        Some(event)
    }
}

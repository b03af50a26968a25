//! The recording's outer form: a prelude, then tagged blocks. docs/recording-format.md describes it for strangers; the
//! two must say the same.
//!
//! All numbers are little-endian, whatever host writes them.

use crate::event::Timestamp;
use bytes::{Buf as _, BufMut as _};
use serde::{Deserialize, Serialize};

/// The first bytes of every recording.
pub(crate) const MAGIC: [u8; 8] = *b"KVMTRACE";
/// Follows the magic, little-endian; reads otherwise in a file of another byte order.
pub(crate) const BYTE_ORDER: u32 = 0x0a0b_0c0d;
/// Version of the outer form.
pub const FORMAT: u32 = 1;
/// Magic, byte order, format.
pub(crate) const PRELUDE: usize = 16;

/// The first bytes of every block: a reader that lost its way looks for them.
pub(crate) const SYNC: [u8; 4] = [0xab, b'K', b'V', 0xba];
/// Bytes before a block's payload.
pub(crate) const BLOCK_HEADER: usize = 24;
/// A payload's size at most, as stored and unpacked.
pub const LARGEST_BLOCK: usize = 8 << 20;
/// A block unpacks to so many times its size at most: reading takes time by what is unpacked, and a file is not to take
/// time out of proportion to its size. Real traces are packed to a tenth at most.
pub const LARGEST_RATIO: usize = 256;

/// What a block holds.
pub(crate) type Tag = [u8; 4];
/// The [`Header`], as JSON.
pub(crate) const HEADER: Tag = *b"HEAD";
/// The types of the events that follow, as JSON.
pub(crate) const TYPES: Tag = *b"TYPE";
/// Events.
pub(crate) const EVENTS: Tag = *b"EVTS";
/// Events that the file before this one has told already: what a reader of this file alone must know.
pub(crate) const SNAPSHOT: Tag = *b"SNAP";
/// The [`Trailer`], as JSON.
pub(crate) const TRAILER: Tag = *b"TAIL";

/// The payload is compressed with zstd. No other flag is defined: a block with one is skipped.
pub(crate) const COMPRESSED: u32 = 1;

/// A block's fixed part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BlockHeader {
    pub(crate) tag: Tag,
    pub(crate) flags: u32,
    /// Bytes of the payload as stored.
    pub(crate) stored: u32,
    /// Bytes of the payload unpacked.
    pub(crate) plain: u32,
    pub(crate) crc: u32,
}

impl BlockHeader {
    /// Reads a block's header; `None` if no block can begin like this.
    pub(crate) fn parse(bytes: [u8; BLOCK_HEADER]) -> Option<Self> {
        let mut bytes = bytes.as_slice();
        let mut word = || {
            let mut word = [0; 4];
            bytes.copy_to_slice(&mut word);
            word
        };
        if word() != SYNC {
            return None;
        }
        let header = Self {
            tag: word(),
            flags: bytes.get_u32_le(),
            stored: bytes.get_u32_le(),
            plain: bytes.get_u32_le(),
            crc: bytes.get_u32_le(),
        };
        (header.stored as usize <= LARGEST_BLOCK && header.plain as usize <= LARGEST_BLOCK).then_some(header)
    }

    /// The header of a block with this payload.
    pub(crate) fn new(tag: Tag, flags: u32, payload: &[u8], plain: usize) -> Self {
        let mut header = Self { tag, flags, stored: payload.len() as u32, plain: plain as u32, crc: 0 };
        header.crc = header.checksum(payload);
        header
    }

    pub(crate) fn bytes(&self) -> [u8; BLOCK_HEADER] {
        let mut bytes = [0; BLOCK_HEADER];
        let mut rest = bytes.as_mut_slice();
        rest.put_slice(&SYNC);
        rest.put_slice(&self.tag);
        for number in [self.flags, self.stored, self.plain, self.crc] {
            rest.put_u32_le(number);
        }
        bytes
    }

    /// CRC-32 (IEEE) of the header between sync and checksum, and of the payload.
    pub(crate) fn checksum(&self, payload: &[u8]) -> u32 {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(self.bytes().get(4..20).unwrap_or_default());
        hasher.update(payload);
        hasher.finalize()
    }
}

/// The prelude that this version writes.
pub(crate) fn prelude() -> [u8; PRELUDE] {
    let mut bytes = [0; PRELUDE];
    let mut rest = bytes.as_mut_slice();
    rest.put_slice(&MAGIC);
    rest.put_u32_le(BYTE_ORDER);
    rest.put_u32_le(FORMAT);
    bytes
}

/// Who recorded what, in clear: `head -c 4096 FILE` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Header {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of the events' schema, [`super::schema::SCHEMA`].
    pub schema: u32,
    /// kvmtrace's version.
    pub kvmtrace: String,
    /// Tells the files of one recording from others': host, start and process.
    pub trace: String,
    /// Number of this file among those of its recording, from 0 (`--rotate`).
    pub sequence: u64,
    /// Name of the host.
    pub host: String,
    /// Its kernel release.
    pub kernel: String,
    /// The command line.
    pub command: Vec<String>,
    /// When the trace began, RFC 3339.
    pub started: String,
    /// `CLOCK_REALTIME` minus `CLOCK_MONOTONIC` in nanoseconds when the trace began.
    pub clock_offset_ns: i64,
    /// Guests and the devices that they use.
    pub guests: Vec<HeaderGuest>,
    /// Devices of the host that are in the topology: name and the bridge or bond that they belong to.
    pub devices: Vec<HeaderDevice>,
    /// Names of the kernel's drop reasons, by number.
    pub drop_reasons: Vec<String>,
    /// What was missing from the start: what and why.
    pub degraded: Vec<crate::event::Degraded>,
}

/// A guest in a [`Header`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderGuest {
    /// Its name.
    pub name: String,
    /// Names of its interfaces on the host.
    pub devices: Vec<String>,
}

/// A device in a [`Header`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeaderDevice {
    /// Its index.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// The bridge or bond that it belongs to.
    pub master: Option<u32>,
}

/// What a recording that ended in order says of itself in the end.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Trailer {
    /// Events in this file, without those of the snapshot.
    pub events: u64,
    /// Time of the first and the last of them.
    pub first: Timestamp,
    /// See `first`.
    pub last: Timestamp,
    /// Drop reasons that occur.
    pub reasons: Vec<String>,
    /// Kernel functions that drops name.
    pub symbols: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_header_survives_a_round_trip_and_nonsense_is_refused() {
        let header = BlockHeader::new(EVENTS, COMPRESSED, b"payload", 99);
        assert_eq!(BlockHeader::parse(header.bytes()), Some(header));
        let mut spoilt = header.bytes();
        spoilt[0] ^= 1;
        assert_eq!(BlockHeader::parse(spoilt), None);
        let huge = BlockHeader { stored: u32::MAX, ..header };
        assert_eq!(BlockHeader::parse(huge.bytes()), None);
    }

    #[test]
    fn the_checksum_covers_the_header_and_the_payload() {
        let header = BlockHeader::new(EVENTS, 0, b"payload", 7);
        assert_ne!(header.checksum(b"payloaD"), header.crc);
        assert_ne!(BlockHeader { tag: SNAPSHOT, ..header }.checksum(b"payload"), header.crc);
    }
}

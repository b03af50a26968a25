//! Reads a recording, which is untrusted: any bytes give events or an error, never a panic, and no more memory than
//! [`MEMORY`].
//!
//! A block that is torn or corrupt is left out, counted, and reading goes on at the next one: the reader looks for the
//! next place where a block with a right checksum begins.

use super::format::{
    BLOCK_HEADER, BYTE_ORDER, BlockHeader, COMPRESSED, EVENTS, FORMAT, HEADER, Header, LARGEST_BLOCK, LARGEST_RATIO,
    MAGIC, PRELUDE, SNAPSHOT, SYNC, TRAILER, TYPES, Trailer,
};
use super::schema::{BatchError, Description, Events};
use crate::event::{DropSite, Event, EventKind, PacketCause, RuleSite, UnlistedPlace};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Bytes of memory that reading and judging one file's largest event takes at most, whatever the file says: a block as
/// stored, the block unpacked, and a million values of up to 400 bytes, copies included (345 MB were measured).
pub const MEMORY: usize = LARGEST_BLOCK * 2 + (400 << 20) + (24 << 20);

/// Work on blocks that turn out to be corrupt, in bytes, before they are passed over without a second look.
const PATIENCE: u64 = 256 << 20;

/// Why a file can't be read as a recording.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It can't be opened.
    #[error("cannot open {}", path.display())]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no file.
    #[error("{} is {what}, not a recording; give the file that kvmtrace record wrote", path.display())]
    NoFile {
        /// Its path.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// There is nothing in it.
    #[error("{name} is empty: nothing was recorded")]
    Empty {
        /// Its path.
        name: String,
    },
    /// It was cut where nothing had been recorded yet.
    #[error("{name} ends after {bytes} bytes: there is no event in it that could be judged; record again")]
    Cut {
        /// Its path.
        name: String,
        /// Its size.
        bytes: u64,
    },
    /// What it said of the host is lost, and with it whose flows are whose.
    #[error("{complaint}; what it said of the host is lost with that, so nothing can be judged")]
    NoHost {
        /// What is missing.
        complaint: String,
    },
    /// It begins with something else.
    #[error("{name} is not a recording of kvmtrace: it does not begin with \"KVMTRACE\"")]
    NotARecording {
        /// Its path.
        name: String,
    },
    /// Its numbers are the other way round.
    #[error("{name} has big-endian numbers; recordings are little-endian on every host: convert it where it was made")]
    ByteOrder {
        /// Its path.
        name: String,
    },
    /// A later version wrote it.
    #[error("{name} was written by a newer kvmtrace ({what} {found}, this one reads up to {known}): use that version")]
    Newer {
        /// Its path.
        name: String,
        /// `format` or `events`.
        what: &'static str,
        /// What it has.
        found: u32,
        /// What we know.
        known: u32,
    },
    /// The file can't be read on.
    #[error("cannot read {name}")]
    Read {
        /// Its path.
        name: String,
        /// Why.
        source: std::io::Error,
    },
}

/// Bytes that an event other than a host's state has at most: the headers of a packet, the functions that led to its
/// drop, the name of a reason. Ours have less than half of it. What is remembered of a trace is so many of them.
const LARGEST_TEXT: usize = 8192;

/// An event that kvmtrace could have written: what is remembered of it is small.
fn is_plausible(event: &Event) -> bool {
    let names = |site: &DropSite| [&site.reason, &site.function].into_iter().flatten().map(String::len).sum::<usize>();
    let size = match &event.kind {
        EventKind::Packet(packet) => {
            let cause = match &packet.cause {
                PacketCause::Dropped { site, stack } => {
                    names(site) + stack.iter().map(|name| name.len() + size_of::<String>()).sum::<usize>()
                }
                PacketCause::First | PacketCause::IcmpError | PacketCause::MacChanged | PacketCause::Wanted => 0,
            };
            packet.header.len() + cause
        }
        EventKind::Drop(drop) => names(&drop.site),
        EventKind::RuleDrop(drop) => {
            let RuleSite { family, table, base, chain, handle: _ } = &drop.rule;
            [family, table, base, chain].map(String::len).iter().sum()
        }
        EventKind::Unlisted(unlisted) => match &unlisted.place {
            UnlistedPlace::Drop(site) => names(site),
            UnlistedPlace::Hook(_) => 0,
        },
        EventKind::Degraded(degraded) => degraded.what.len() + degraded.why.len(),
        // There is one of each of these, and the block bounds it; the host's state is bounded where it is kept.
        EventKind::Started(_)
        | EventKind::Host(_)
        | EventKind::Flow(_)
        | EventKind::Loss(_)
        | EventKind::Command(_)
        | EventKind::Ended => 0,
    };
    size <= LARGEST_TEXT
}

/// What could not be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Damage {
    /// Stretches of bytes that are no block, or blocks that are corrupt.
    pub stretches: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// Whole blocks of a kind that this version does not know; no harm.
    pub unknown: u64,
    /// Events of a kind that this version does not know.
    pub unknown_events: u64,
    /// The file does not end as a recording does: it was cut, or kvmtrace was killed.
    pub unfinished: bool,
}

impl Damage {
    /// Something is missing.
    pub fn any(&self) -> bool {
        self.stretches > 0 || self.unknown_events > 0 || self.unfinished
    }
}

/// Reads the events of one file.
pub struct Reader<R> {
    input: R,
    name: String,
    /// Bytes read from `input` and not used up: `window[start..]`.
    window: Vec<u8>,
    start: usize,
    at_end: bool,
    consumed: u64,
    wasted: u64,
    in_damage: bool,
    damage: Damage,
    header: Option<Header>,
    trailer: Option<Trailer>,
    events: Events,
    /// The description that the file, or the batch before, had.
    description: Option<Description>,
    /// The first block, when it is not the header.
    held_back: Option<(BlockHeader, Vec<u8>)>,
    skip_snapshot: bool,
}

impl<R> std::fmt::Debug for Reader<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reader").field("name", &self.name).field("damage", &self.damage).finish_non_exhaustive()
    }
}

/// What a file is called in messages: one that came by standard input has no name of its own.
pub(super) fn name(path: &Path) -> String {
    if path.starts_with("/proc/self/fd") { "standard input".to_owned() } else { path.display().to_string() }
}

impl Reader<File> {
    /// Opens a file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let failed = |source| ReadError::Open { path: path.to_owned(), source };
        // Asked before it is opened: to open a pipe that nobody writes to takes for ever.
        let kind = std::fs::metadata(path).map_err(failed)?.file_type();
        if !kind.is_file() {
            let what = if kind.is_dir() { "a directory" } else { "a pipe or device" };
            return Err(ReadError::NoFile { path: path.to_owned(), what });
        }
        Self::new(File::open(path).map_err(failed)?, &name(path))
    }
}

impl<R: Read> Reader<R> {
    /// Reads from `input`; `name` stands in messages.
    pub fn new(input: R, name: &str) -> Result<Self, ReadError> {
        let mut reader = Self {
            input,
            name: name.to_owned(),
            window: Vec::new(),
            start: 0,
            at_end: false,
            consumed: 0,
            wasted: 0,
            in_damage: false,
            damage: Damage::default(),
            header: None,
            trailer: None,
            events: Events::default(),
            description: None,
            held_back: None,
            skip_snapshot: false,
        };
        reader.prelude()?;
        // The header, if it is whole, is the first block.
        match reader.block()? {
            Some((block, payload)) if block.tag == HEADER => reader.take(block, payload)?,
            other => reader.held_back = other,
        }
        Ok(reader)
    }

    /// Who recorded what; `None` where the header is damaged, or nothing was flushed.
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// What the file says of itself in the end; known after the last event.
    pub fn trailer(&self) -> Option<&Trailer> {
        self.trailer.as_ref()
    }

    /// What could not be read so far.
    pub fn damage(&self) -> Damage {
        self.damage
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.consumed
    }

    /// Leaves out what the file before this one has told already.
    pub fn skip_snapshot(&mut self) {
        self.skip_snapshot = true;
    }

    /// The next event; `None` at the end.
    pub fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            match self.events.next() {
                Some(Ok(event)) if is_plausible(&event) => return Ok(Some(event)),
                Some(Err(BatchError::Unknown)) => self.damage.unknown_events += 1,
                Some(Ok(_) | Err(_)) => self.spoilt(0),
                None => {}
            }
            if self.events.left() > 0 {
                continue;
            }
            let next = match self.held_back.take() {
                Some(held_back) => Some(held_back),
                None => self.block()?,
            };
            let Some((block, payload)) = next else {
                self.damage.unfinished = self.trailer.is_none();
                return Ok(None);
            };
            self.take(block, payload)?;
        }
    }

    fn prelude(&mut self) -> Result<(), ReadError> {
        let name = || self.name.clone();
        let mut bytes = Vec::new();
        let read = self.input.by_ref().take(PRELUDE as u64).read_to_end(&mut bytes);
        read.map_err(|source| ReadError::Read { name: name(), source })?;
        if bytes.is_empty() {
            return Err(ReadError::Empty { name: name() });
        }
        let word = |at: usize| bytes.get(at..).and_then(|rest| rest.first_chunk::<4>()).copied();
        let (Some(order), Some(format)) = (word(8), word(12)) else {
            return Err(if MAGIC.starts_with(bytes.get(..8).unwrap_or(&bytes)) {
                ReadError::Cut { name: name(), bytes: bytes.len() as u64 }
            } else {
                ReadError::NotARecording { name: name() }
            });
        };
        if !bytes.starts_with(&MAGIC) {
            return Err(ReadError::NotARecording { name: name() });
        }
        if order == BYTE_ORDER.to_be_bytes() {
            return Err(ReadError::ByteOrder { name: name() });
        }
        let found = u32::from_le_bytes(format);
        if order != BYTE_ORDER.to_le_bytes() || found == 0 {
            return Err(ReadError::NotARecording { name: name() });
        }
        if found > FORMAT {
            return Err(ReadError::Newer { name: name(), what: "format", found, known: FORMAT });
        }
        self.consumed = PRELUDE as u64;
        Ok(())
    }

    /// Uses a block up.
    fn take(&mut self, block: BlockHeader, payload: Vec<u8>) -> Result<(), ReadError> {
        let wanted = match block.tag {
            EVENTS | HEADER | TRAILER | TYPES => true,
            SNAPSHOT => !self.skip_snapshot,
            _ => false,
        };
        if !wanted || block.flags & !COMPRESSED != 0 {
            self.damage.unknown += u64::from(block.tag != SNAPSHOT);
            return Ok(());
        }
        let stored = payload.len();
        let plain = if block.plain as usize > LARGEST_RATIO * stored {
            None
        } else if block.flags & COMPRESSED == 0 {
            Some(payload).filter(|payload| payload.len() == block.plain as usize)
        } else {
            // The checksum was right, so this fails only on a file made with intent. `plain` was bounded before.
            zstd::bulk::decompress(&payload, block.plain as usize)
                .ok()
                .filter(|plain| plain.len() == block.plain as usize)
        };
        let Some(plain) = plain else {
            self.spoilt(stored);
            return Ok(());
        };
        match block.tag {
            HEADER => match serde_json::from_slice(&plain) {
                Ok(header) => self.header = Some(header),
                Err(_) => self.spoilt(stored),
            },
            TRAILER => match serde_json::from_slice(&plain) {
                Ok(trailer) => self.trailer = Some(trailer),
                Err(_) => self.spoilt(stored),
            },
            TYPES => match Description::parse(&plain) {
                Some(description) => self.description = Some(description),
                None => self.spoilt(stored),
            },
            _ => match Events::open(plain, &mut self.description) {
                Ok(events) => self.events = events,
                Err(BatchError::Newer(found)) => {
                    let (name, known) = (self.name.clone(), super::schema::SCHEMA);
                    return Err(ReadError::Newer { name, what: "events", found, known });
                }
                Err(_) => self.spoilt(stored),
            },
        }
        Ok(())
    }

    /// A block that was whole but makes no sense.
    fn spoilt(&mut self, bytes: usize) {
        self.damage.stretches += 1;
        self.damage.bytes += bytes as u64;
    }

    /// The next block whose checksum is right.
    fn block(&mut self) -> Result<Option<(BlockHeader, Vec<u8>)>, ReadError> {
        loop {
            self.fill(BLOCK_HEADER)?;
            let rest = self.window.get(self.start..).unwrap_or_default();
            let Some(bytes) = rest.first_chunk::<BLOCK_HEADER>() else {
                let left = rest.len();
                if left > 0 {
                    self.pass_over(left);
                }
                return Ok(None);
            };
            let Some(header) = BlockHeader::parse(*bytes) else {
                let next = rest.iter().skip(1).position(|byte| *byte == SYNC[0]).map_or(rest.len(), |at| at + 1);
                self.pass_over(next);
                continue;
            };
            let length = BLOCK_HEADER + header.stored as usize;
            self.fill(length)?;
            let rest = self.window.get(self.start..).unwrap_or_default();
            let payload = rest.get(BLOCK_HEADER..length);
            match payload {
                Some(payload) if header.checksum(payload) == header.crc => {
                    let payload = payload.to_vec();
                    self.advance(length);
                    self.in_damage = false;
                    return Ok(Some((header, payload)));
                }
                _ => {
                    self.wasted += length as u64;
                    let impatient = self.wasted > PATIENCE + 4 * self.consumed;
                    self.pass_over(if impatient { length.min(rest.len()) } else { 1 });
                }
            }
        }
    }

    fn pass_over(&mut self, bytes: usize) {
        self.damage.bytes += bytes as u64;
        if !std::mem::replace(&mut self.in_damage, true) {
            self.damage.stretches += 1;
        }
        self.advance(bytes);
    }

    fn advance(&mut self, bytes: usize) {
        self.start = (self.start + bytes).min(self.window.len());
        self.consumed += bytes as u64;
    }

    /// Makes the window hold `wanted` bytes, unless the file ends before.
    fn fill(&mut self, wanted: usize) -> Result<(), ReadError> {
        let held = self.window.len() - self.start;
        if held >= wanted || self.at_end {
            return Ok(());
        }
        self.window.drain(..self.start);
        self.start = 0;
        let missing = (wanted - held).max(64 << 10);
        let read = self.input.by_ref().take(missing as u64).read_to_end(&mut self.window);
        let read = read.map_err(|source| ReadError::Read { name: self.name.clone(), source })?;
        self.at_end = read < missing;
        Ok(())
    }
}

//! Writes a recording. What was flushed stays readable whatever happens next.
//!
//! Events are gathered and written as one compressed block when a second (of the events' own time) has passed, when
//! [`Writer::flush`] is called, or when there are many. The header is written with the first block, for it tells what
//! the first events tell.

use super::format::{
    COMPRESSED, EVENTS, FORMAT, HEADER, Header, HeaderDevice, HeaderGuest, LARGEST_BLOCK, LARGEST_RATIO, SNAPSHOT,
    TRAILER, TYPES, Tag, Trailer, prelude,
};
use super::output::{Destination, Output, Rotation};
use super::{format, schema};
use crate::event::{Event, EventKind, HostState, PacketCause, Timestamp, UnlistedPlace, bounds};
use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;

/// A batch of this size is written at once.
const BATCH: usize = 512 << 10;
/// Events wait no longer than this, in nanoseconds of their own time.
const FLUSH_AFTER: u64 = 1_000_000_000;
/// The description of the events is written again after so many bytes: damage to it costs no more than what is between.
const DESCRIBE_AFTER: u64 = 4 << 20;
/// zstd's level: 3 packs about as fast as a disk writes.
const LEVEL: i32 = 3;
/// Names of reasons and functions that the trailer lists at most.
const NAMES: usize = 4096;

/// Why a recording can't be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// There is a file already.
    #[error("{} exists; --force writes over it", .0.display())]
    Exists(PathBuf),
    /// It can't be made.
    #[error("cannot create {}", path.display())]
    Create {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The disk is full.
    #[error("no space left for {name}: {}; record to another disk", left(*events, *bytes))]
    NoSpace {
        /// Its path.
        name: String,
        /// Events in it.
        events: u64,
        /// Its size.
        bytes: u64,
    },
    /// Somebody deleted it.
    #[error("{name} was deleted while it was written: its {events} events are lost; record into a place that stays")]
    Gone {
        /// Its path.
        name: String,
        /// Events that were in it.
        events: u64,
    },
    /// It can't be written.
    #[error("cannot write {name}")]
    Write {
        /// Its path.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// An event does not fit in a block, and is not the host's state, of which less can be written.
    #[error(
        "an event takes {0} bytes or more than a million values; a block of a recording holds {LARGEST_BLOCK} bytes"
    )]
    TooLarge(usize),
    /// It can't be packed; memory is short.
    #[error("cannot pack events: {0}")]
    Pack(String),
    /// Standard output can't be rotated.
    #[error("--rotate needs a file; what goes to a stream can't be rotated")]
    RotatedStream,
}

/// What a file came to that was not finished.
fn left(events: u64, bytes: u64) -> String {
    match events {
        0 => "nothing was recorded".to_owned(),
        _ => format!("it ends with {events} events in {bytes} bytes, which can be read"),
    }
}

/// How to write.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Command line, clock offset, drop reasons; the rest is filled in from the events.
    pub header: Header,
    /// When to begin another file.
    pub rotation: Option<Rotation>,
}

/// Writes events to a recording.
pub struct Writer {
    output: Output,
    header: Header,
    rotation: Option<Rotation>,
    header_written: bool,
    /// Length of the file when the events' types were described last.
    described_at: u64,
    batch: Vec<u8>,
    /// Events in the batch, and the time of the first of them.
    pending: u64,
    since: Timestamp,
    trailer: Trailer,
    reasons: BTreeSet<String>,
    symbols: BTreeSet<String>,
    /// What a reader of the next file alone must know; gathered only when there may be one.
    snapshot: Snapshot,
    /// Events written to earlier files.
    saved_before: u64,
}

/// The events that still hold: the start, what is missing, the host as it is, what was lost.
#[derive(Default)]
struct Snapshot {
    started: Option<Event>,
    degraded: Vec<Event>,
    host: Option<Event>,
    loss: Option<Event>,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer")
            .field("output", &self.output.name())
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}

/// What a recording came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Where it is.
    pub name: String,
    /// Events in all of its files, those removed by rotation included.
    pub events: u64,
    /// Size of the last file in bytes.
    pub bytes: u64,
    /// Number of files begun.
    pub files: u64,
}

impl Writer {
    /// Creates the recording.
    pub fn create(destination: &Destination, options: Options) -> Result<Self, WriteError> {
        Self::begin(Output::open(destination, options.rotation)?, options)
    }

    /// Records to a stream.
    pub fn stream(stream: Box<dyn std::io::Write + Send>, options: Options) -> Result<Self, WriteError> {
        Self::begin(Output::stream(stream), options)
    }

    fn begin(output: Output, options: Options) -> Result<Self, WriteError> {
        let mut writer = Self {
            output,
            header: Header { format: FORMAT, schema: schema::SCHEMA, ..options.header },
            rotation: options.rotation,
            header_written: false,
            described_at: 0,
            batch: Vec::new(),
            pending: 0,
            since: Timestamp(0),
            trailer: Trailer::default(),
            reasons: BTreeSet::new(),
            symbols: BTreeSet::new(),
            snapshot: Snapshot::default(),
            saved_before: 0,
        };
        schema::begin(&mut writer.batch);
        writer.write_parts(&[&prelude()])?;
        Ok(writer)
    }

    /// Takes an event in; writes when it is time. Of a host that is too large for a block what tells most is written.
    pub fn write(&mut self, event: &Event) -> Result<(), WriteError> {
        match (self.write_whole(event), &event.kind) {
            (Err(WriteError::TooLarge(_)), EventKind::Host(host)) => self.write_smaller(event.time, host.clone()),
            (written, _) => written,
        }
    }

    fn write_smaller(&mut self, time: Timestamp, mut host: Arc<HostState>) -> Result<(), WriteError> {
        let mut room = bounds::ROOM;
        loop {
            Arc::make_mut(&mut host).bound(room);
            room /= 2;
            match self.write_whole(&Event { time, kind: EventKind::Host(host.clone()) }) {
                Err(WriteError::TooLarge(_)) if room > 0 => {}
                written => return written,
            }
        }
    }

    fn write_whole(&mut self, event: &Event) -> Result<(), WriteError> {
        let due = event.time.since(self.since).0 >= FLUSH_AFTER || self.batch.len() >= BATCH;
        if self.pending > 0 && due {
            self.flush()?;
        }
        let before = self.batch.len();
        schema::append(&mut self.batch, event).map_err(|error| WriteError::Pack(error.to_string()))?;
        if !schema::is_bounded(self.batch.get(before..).unwrap_or_default()) {
            let size = self.batch.len() - before;
            self.batch.truncate(before);
            return Err(WriteError::TooLarge(size));
        }
        if self.batch.len() > LARGEST_BLOCK {
            let size = self.batch.len() - before;
            let alone = self.batch.split_off(before);
            self.flush()?;
            self.batch.extend(alone);
            if self.batch.len() > LARGEST_BLOCK {
                schema::begin(&mut self.batch);
                return Err(WriteError::TooLarge(size));
            }
        }
        if self.pending == 0 {
            self.since = event.time;
        }
        self.pending += 1;
        self.notice(event);
        Ok(())
    }

    /// Writes what is pending.
    pub fn flush(&mut self) -> Result<(), WriteError> {
        if self.pending == 0 {
            return Ok(());
        }
        self.write_header()?;
        if self.output.length() - self.described_at >= DESCRIBE_AFTER {
            self.describe()?;
        }
        let mut batch = std::mem::take(&mut self.batch);
        let written = self.write_block(EVENTS, &batch, true);
        schema::begin(&mut batch);
        self.batch = batch;
        written?;
        self.trailer.events += std::mem::take(&mut self.pending);
        match self.rotation {
            Some(rotation) if self.output.length() >= rotation.size => self.rotate(rotation),
            _ => Ok(()),
        }
    }

    /// Writes what is pending, and the end.
    pub fn finish(mut self) -> Result<Written, WriteError> {
        self.flush()?;
        self.write_header()?;
        self.write_trailer()?;
        Ok(Written {
            name: self.output.name(),
            events: self.saved_before + self.trailer.events,
            bytes: self.output.length(),
            files: self.header.sequence + 1,
        })
    }

    fn rotate(&mut self, rotation: Rotation) -> Result<(), WriteError> {
        self.write_trailer()?;
        self.output.rotate(self.header.sequence, rotation)?;
        self.saved_before += self.trailer.events;
        self.trailer = Trailer::default();
        self.reasons.clear();
        self.symbols.clear();
        self.header.sequence += 1;
        self.header_written = false;
        self.write_parts(&[&prelude()])?;
        self.write_header()?;
        let mut blocks = Vec::new();
        // The host alone may fill a block.
        let Snapshot { started, degraded, host, loss } = &self.snapshot;
        let first = started.iter().chain(degraded);
        for events in [first.collect::<Vec<_>>(), host.iter().chain(loss).collect()] {
            let mut batch = Vec::new();
            schema::begin(&mut batch);
            for event in events {
                schema::append(&mut batch, event).map_err(|error| WriteError::Pack(error.to_string()))?;
            }
            blocks.push(batch);
        }
        blocks
            .iter()
            .filter(|batch| batch.len() <= LARGEST_BLOCK)
            .try_for_each(|batch| self.write_block(SNAPSHOT, batch, true))
    }

    /// Learns from an event what header, trailer and snapshot tell.
    fn notice(&mut self, event: &Event) {
        if self.trailer.events + self.pending == 1 {
            self.trailer.first = event.time;
        }
        self.trailer.last = self.trailer.last.max(event.time);
        let keep = |slot: &mut Option<Event>| *slot = self.rotation.is_some().then(|| event.clone());
        match &event.kind {
            EventKind::Started(started) => {
                self.header.kvmtrace.clone_from(&started.version);
                self.header.started = event.time.to_string();
                keep(&mut self.snapshot.started);
            }
            EventKind::Host(host) => {
                if self.header.host.is_empty() {
                    self.header.describe(host);
                    if self.header.trace.is_empty() {
                        self.header.trace = format!("{} {}", host.name, self.header.started);
                    }
                }
                keep(&mut self.snapshot.host);
            }
            EventKind::Degraded(degraded) => {
                if !self.header_written {
                    self.header.degraded.push(degraded.clone());
                }
                if self.rotation.is_some() && self.snapshot.degraded.len() < NAMES {
                    self.snapshot.degraded.push(event.clone());
                }
            }
            EventKind::Loss(_) => keep(&mut self.snapshot.loss),
            EventKind::Drop(drop) => self.notice_site(&drop.site),
            EventKind::Packet(packet) => {
                if let PacketCause::Dropped { site, .. } = &packet.cause {
                    self.notice_site(site);
                }
            }
            EventKind::Unlisted(unlisted) => {
                if let UnlistedPlace::Drop(site) = &unlisted.place {
                    self.notice_site(site);
                }
            }
            EventKind::Flow(_) | EventKind::RuleDrop(_) | EventKind::Command(_) | EventKind::Ended => {}
        }
    }

    fn notice_site(&mut self, site: &crate::event::DropSite) {
        for (name, names) in [(&site.reason, &mut self.reasons), (&site.function, &mut self.symbols)] {
            if let Some(name) = name
                && !names.contains(name)
                && names.len() < NAMES
            {
                names.insert(name.clone());
            }
        }
    }

    fn write_header(&mut self) -> Result<(), WriteError> {
        if self.header_written {
            return Ok(());
        }
        self.header_written = true;
        self.write_json(HEADER, &self.header.clone())?;
        self.describe()
    }

    fn describe(&mut self) -> Result<(), WriteError> {
        self.described_at = self.output.length();
        self.write_block(TYPES, schema::DESCRIPTION.as_bytes(), true)
    }

    fn write_trailer(&mut self) -> Result<(), WriteError> {
        let trailer = Trailer {
            reasons: self.reasons.iter().cloned().collect(),
            symbols: self.symbols.iter().cloned().collect(),
            ..self.trailer
        };
        self.write_json(TRAILER, &trailer)?;
        self.output.finish().or_else(|source| self.failed(source))
    }

    /// JSON is written in clear: it is there to be looked at.
    fn write_json(&mut self, tag: Tag, value: &impl serde::Serialize) -> Result<(), WriteError> {
        let json = serde_json::to_vec(value).map_err(|error| WriteError::Pack(error.to_string()))?;
        self.write_block(tag, &json, false)
    }

    fn write_block(&mut self, tag: Tag, plain: &[u8], compress: bool) -> Result<(), WriteError> {
        let packed = if compress {
            let packed = zstd::bulk::compress(plain, LEVEL).map_err(|error| WriteError::Pack(error.to_string()))?;
            Some(packed).filter(|packed| packed.len() < plain.len() && plain.len() <= LARGEST_RATIO * packed.len())
        } else {
            None
        };
        let flags = if packed.is_some() { COMPRESSED } else { 0 };
        let payload = packed.as_deref().unwrap_or(plain);
        let header = format::BlockHeader::new(tag, flags, payload, plain.len()).bytes();
        self.write_parts(&[&header, payload])
    }

    fn write_parts(&mut self, parts: &[&[u8]]) -> Result<(), WriteError> {
        self.output.write(parts).or_else(|source| self.failed(source))
    }

    fn failed(&self, source: std::io::Error) -> Result<(), WriteError> {
        let name = self.output.name();
        let events = self.saved_before + self.trailer.events;
        let kind = source.kind();
        let is_full = matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge);
        Err(if !matches!(self.output, Output::File { .. }) {
            WriteError::Write { name, source }
        } else if is_full {
            WriteError::NoSpace { name, events, bytes: self.output.length() }
        } else if kind == ErrorKind::NotFound {
            WriteError::Gone { name, events }
        } else {
            WriteError::Write { name, source }
        })
    }
}

impl Header {
    /// Fills in what the host's state tells.
    fn describe(&mut self, host: &crate::event::HostState) {
        self.host.clone_from(&host.name);
        self.kernel.clone_from(&host.kernel);
        let names = |guest: &crate::event::host::Guest| {
            guest.interfaces.iter().map(|interface| host.link_name(interface.device)).collect()
        };
        self.guests =
            host.guests.iter().map(|guest| HeaderGuest { name: guest.name.clone(), devices: names(guest) }).collect();
        self.devices = host
            .links
            .values()
            .map(|link| HeaderDevice {
                index: link.index.0,
                name: link.name.clone(),
                master: link.master.map(|master| master.0),
            })
            .collect();
    }
}

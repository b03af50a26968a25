//! A recording as a [`Source`]: one file, or the files that rotation made of it.

use super::reader::{Damage, ReadError, Reader, name};
use crate::event::{Degraded, Event, EventKind, Timestamp};
use crate::source::Source;
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The events of one recording in order.
#[derive(Debug)]
pub struct Recording {
    name: String,
    all: Files,
    files: VecDeque<(u64, PathBuf)>,
    reader: Reader<File>,
    sequence: u64,
    /// Damage in the files that are done with.
    damage: Damage,
    /// Size of all files, and of those that are done with.
    total: u64,
    done: u64,
    missing_files: u64,
    last: Timestamp,
    /// An event was read, and one that tells of the host.
    any: bool,
    host: bool,
    complained: bool,
}

/// Files of one recording, each with its number.
type Files = Vec<(u64, PathBuf)>;

/// Opens recordings: files of one trace become one, in the order in which they were written; files of several traces
/// (of several hosts, say) become several, in the order of the arguments.
pub fn open(paths: &[PathBuf]) -> Result<Vec<Recording>, ReadError> {
    let mut traces: Vec<(Option<String>, Files)> = Vec::new();
    for path in paths {
        let reader = Reader::open(path)?;
        let header = reader.header();
        let trace = header.map(|header| header.trace.clone()).filter(|trace| !trace.is_empty());
        let file = (header.map_or(0, |header| header.sequence), path.clone());
        match traces.iter_mut().find(|(known, _)| trace.is_some() && *known == trace) {
            Some((_, files)) if files.contains(&file) => {}
            Some((_, files)) => files.push(file),
            None => traces.push((trace, vec![file])),
        }
    }
    traces.into_iter().map(|(_, files)| Recording::begin(files)).collect()
}

impl Recording {
    /// Opens one file.
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        Self::begin(vec![(0, path.to_owned())])
    }

    fn begin(mut files: Files) -> Result<Self, ReadError> {
        files.sort();
        let size = |path: &PathBuf| std::fs::metadata(path).map_or(0, |metadata| metadata.len());
        let total = files.iter().map(|(_, path)| size(path)).sum();
        let first = files.first().map(|(_, path)| name(path)).unwrap_or_default();
        let all = files.clone();
        let mut files = VecDeque::from(files);
        let Some((sequence, path)) = files.pop_front() else { return Err(ReadError::Empty { name: first }) };
        Ok(Self {
            name: first,
            all,
            files,
            reader: Reader::open(&path)?,
            sequence,
            damage: Damage::default(),
            total,
            done: 0,
            missing_files: 0,
            last: Timestamp(0),
            any: false,
            host: false,
            complained: false,
        })
    }

    /// The same recording from its beginning.
    pub fn again(self) -> Result<Self, ReadError> {
        Self::begin(self.all)
    }

    /// Path of the first file, for messages.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Header of the file that is being read.
    pub fn header(&self) -> Option<&super::Header> {
        self.reader.header()
    }

    /// Size of all files in bytes.
    pub fn total(&self) -> u64 {
        self.total
    }

    /// Bytes read so far.
    pub fn position(&self) -> u64 {
        self.done + self.reader.position()
    }

    /// What could not be read so far.
    pub fn damage(&self) -> Damage {
        let now = self.reader.damage();
        Damage {
            stretches: self.damage.stretches + now.stretches,
            bytes: self.damage.bytes + now.bytes,
            unknown: self.damage.unknown + now.unknown,
            unknown_events: self.damage.unknown_events + now.unknown_events,
            unfinished: now.unfinished,
        }
    }

    /// What is missing, for people; `None` when the recording is whole.
    pub fn complaint(&self) -> Option<String> {
        let damage = self.damage();
        let mut parts = Vec::new();
        if damage.stretches > 0 {
            parts.push(format!("{} bytes in {} places are damaged and were left out", damage.bytes, damage.stretches));
        }
        if damage.unknown_events > 0 {
            parts.push(format!(
                "{} events are of a kind that this version does not know: a newer kvmtrace wrote it",
                damage.unknown_events
            ));
        }
        if self.missing_files > 0 {
            parts.push(format!("{} of its files were not given", self.missing_files));
        }
        if damage.unfinished {
            parts.push("it has no end: kvmtrace was killed, or the file was cut".to_owned());
        }
        (!parts.is_empty()).then(|| format!("{}: {}", self.name, parts.join("; ")))
    }

    /// The next event; `None` after the last one. What is missing is told as the last event but never without need: a
    /// whole recording gives exactly what was recorded.
    pub fn next_event(&mut self) -> Result<Option<Event>, ReadError> {
        loop {
            if let Some(event) = self.reader.next_event()? {
                self.last = self.last.max(event.time);
                self.any = true;
                self.host |= matches!(event.kind, EventKind::Host(_));
                return Ok(Some(event));
            }
            let Some((sequence, path)) = self.files.pop_front() else { break };
            let damage = self.damage();
            self.done = self.position();
            // Of a file that another follows it does not matter that its trailer is missing: rotation goes on.
            self.damage = Damage { unfinished: false, ..damage };
            self.reader = Reader::open(&path)?;
            if sequence == self.sequence + 1 {
                self.reader.skip_snapshot();
            } else {
                self.missing_files += sequence.saturating_sub(self.sequence + 1);
            }
            self.sequence = sequence;
        }
        if std::mem::replace(&mut self.complained, true) {
            return Ok(None);
        }
        let complaint = self.complaint();
        if !self.any {
            return Err(ReadError::Cut { name: self.name.clone(), bytes: self.position() });
        }
        if let Some(complaint) = complaint.clone().filter(|_| !self.host) {
            return Err(ReadError::NoHost { complaint });
        }
        Ok(complaint.map(|why| Event {
            time: self.last,
            kind: EventKind::Degraded(Degraded { what: "recording".to_owned(), why }),
        }))
    }
}

impl Source for Recording {
    async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        Ok(self.next_event()?)
    }
}

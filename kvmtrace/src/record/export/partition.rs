//! `--partition host,date`: an export in directories that are named as Hive names them (`host=kvm7/date=2026-11-27`), so that
//! readers of tables find the columns `host` and `date` and skip what they are not asked for.
//!
//! Each directory has the files that an export of that part would have. Days are those of UTC; a verdict is in the directory of
//! its flow's first packet.

use super::partition_columns::{Partition, encoded};
use super::seen::{Exporter, Seen, Trace, Verdicts};
use super::target::{Form, Outputs};
use crate::diagnose::report::Report;
use crate::event::{EventKind, HostState};
use std::collections::{BTreeMap, HashMap};
use std::io::Error;
use std::path::PathBuf;
use std::sync::Arc;

/// Directories that are written at the same time: each holds rows in memory.
const OPEN: usize = 8;
/// Directories of one export: more mean a hostile file.
const DIRECTORIES: usize = 10_000;
/// Nanoseconds of a day.
const DAY: u64 = 86_400_000_000_000;
/// A file, or two tables, while they are written.
struct Part {
    exporter: Box<dyn Exporter>,
    directory: PathBuf,
    used: u64,
}

/// All directories of an export.
pub(super) struct Partitioned<'a> {
    partition: Partition,
    /// Verdicts that are not yet written, by directory.
    verdicts: BTreeMap<PathBuf, Verdicts<'a>>,
    outputs: Outputs,
    /// The output's own directory.
    root: PathBuf,
    traces: Vec<Trace>,
    open: Vec<Part>,
    /// How often each directory was begun.
    begun: BTreeMap<PathBuf, u32>,
    /// Where the events of a trace and a day go.
    known: HashMap<(usize, u64), PathBuf>,
    /// The newest state of each trace's host.
    hosts: HashMap<usize, Arc<HostState>>,
    uses: u64,
}

impl<'a> Partitioned<'a> {
    /// Each verdict is written where its flow is.
    pub(super) fn begin(
        partition: Partition,
        mut outputs: Outputs,
        traces: Vec<Trace>,
        report: &'a Report,
    ) -> std::io::Result<Self> {
        let root = outputs.root()?;
        Ok(Self {
            partition,
            verdicts: verdicts(partition, outputs.target.form, report),
            outputs,
            root,
            traces,
            open: Vec::new(),
            begun: BTreeMap::new(),
            known: HashMap::new(),
            hosts: HashMap::new(),
            uses: 0,
        })
    }

    pub(super) fn event(&mut self, trace: usize, seen: &Seen<'_>) -> std::io::Result<()> {
        if let EventKind::Host(host) = &seen.event.kind {
            self.hosts.insert(trace, Arc::clone(host));
        }
        let time = seen.event.time;
        let key = (trace, time.0 / DAY);
        let directory = match self.known.get(&key) {
            Some(directory) => directory.clone(),
            None => self.partition.directory(seen.host, time),
        };
        if self.known.len() < DIRECTORIES {
            self.known.entry(key).or_insert_with(|| directory.clone());
        }
        self.part(directory)?.event(seen)
    }

    /// The open files of a directory.
    fn part(&mut self, directory: PathBuf) -> std::io::Result<&mut Box<dyn Exporter>> {
        self.uses += 1;
        let position = match self.open.iter().position(|part| part.directory == directory) {
            Some(position) => position,
            None => self.open(directory)?,
        };
        let part = self.open.get_mut(position).ok_or_else(|| Error::other("no such directory"))?;
        part.used = self.uses;
        Ok(&mut part.exporter)
    }

    /// Begins the files of a directory, and ends those that were written longest ago where too many are open.
    fn open(&mut self, directory: PathBuf) -> std::io::Result<usize> {
        if self.open.len() >= OPEN
            && let Some(oldest) = (0..self.open.len()).min_by_key(|index| self.open.get(*index).map(|part| part.used))
        {
            let part = self.open.swap_remove(oldest);
            self.end(part)?;
        }
        if self.begun.len() >= DIRECTORIES && !self.begun.contains_key(&directory) {
            return Err(Error::other(format!("more than {DIRECTORIES} directories; export it without --partition")));
        }
        let times = self.begun.entry(directory.clone()).or_default();
        let suffix = if *times == 0 { String::new() } else { format!("-{times}") };
        *times += 1;
        let mut path = self.root.clone();
        for part in &directory {
            path.push(part);
            self.outputs.directory(&path, true)?;
        }
        let is_of = |trace: &&Trace| {
            let host = format!("host={}", encoded(&trace.host));
            self.partition == Partition::Date || directory.components().any(|part| part.as_os_str() == host.as_str())
        };
        let traces: Vec<&Trace> = self.traces.iter().filter(is_of).collect();
        let mut exporter = match self.outputs.target.form {
            Form::Parquet => self.outputs.tables(&path, &suffix)?,
            Form::Json => self.outputs.stream(&path.join(format!("events{suffix}.json")), &traces)?,
            Form::Pcapng => self.outputs.stream(&path.join(format!("packets{suffix}.pcapng")), &traces)?,
        };
        for (number, trace) in self.traces.iter().enumerate() {
            if is_of(&trace)
                && let Some(host) = self.hosts.get(&number)
            {
                exporter.names(host)?;
            }
        }
        self.open.push(Part { exporter, directory, used: self.uses });
        Ok(self.open.len() - 1)
    }

    /// Writes the verdicts that are left.
    pub(super) fn finish(mut self) -> std::io::Result<()> {
        for part in std::mem::take(&mut self.open) {
            self.end(part)?;
        }
        while let Some((directory, _)) = self.verdicts.first_key_value() {
            let number = self.open(directory.clone())?;
            let part = self.open.swap_remove(number);
            self.end(part)?;
        }
        self.outputs.keep();
        Ok(())
    }

    fn end(&mut self, mut part: Part) -> std::io::Result<()> {
        part.exporter.finish(&self.verdicts.remove(&part.directory).unwrap_or_default())
    }
}

/// The verdicts of each directory.
fn verdicts(partition: Partition, form: Form, report: &Report) -> BTreeMap<PathBuf, Verdicts<'_>> {
    let mut verdicts: BTreeMap<PathBuf, Verdicts<'_>> = BTreeMap::new();
    if form == Form::Pcapng {
        return verdicts;
    }
    for flow in &report.flows {
        let directory = partition.directory(&flow.origin.host, flow.first_seen);
        verdicts.entry(directory).or_default().flows.push(flow);
    }
    for finding in &report.findings {
        let directory = partition.directory(&finding.label.origin.host, report.window.start);
        verdicts.entry(directory).or_default().findings.push(finding);
    }
    for incident in &report.incidents {
        let directory = partition.directory(&incident.origin.host, incident.first_seen);
        verdicts.entry(directory).or_default().incidents.push(incident);
    }
    verdicts
}

//! Recordings in other people's forms.
//!
//! An export reads each recording twice: first to judge it, then to write each event, with the verdict where the form
//! has a place for it. So it needs no more memory than a report does. Recordings of several traces are judged together, as
//! `report` does, and their events are written in the order of time.

mod columns;
mod growth;
mod json;
mod lookup;
#[cfg(feature = "parquet")]
mod parquet;
mod partition;
mod partition_columns;
mod pcapng;
mod seen;
mod target;
mod traces;

#[cfg(test)]
mod tests;

pub use partition_columns::{BadPartition, Partition};
pub use target::{Form, Target};

use super::place;
use super::reader::ReadError;
use super::{Header, Joined, join, judge_for_joining};
use crate::diagnose::report::Report;
use crate::diagnose::watch::{self, Watcher};
use crate::event::Event;
use crate::selection::{Selection, SelectionError};
use lookup::Flows;
use partition::Partitioned;
use seen::{Exporter, Seen, Trace, Verdicts};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use target::Outputs;
use traces::Traces;

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing of it can be selected so.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// There is a file already.
    #[error("{} exists; --force writes over it", .0.display())]
    Exists(PathBuf),
    /// The output can't be written.
    #[error("cannot write {name}")]
    Write {
        /// Its path.
        name: String,
        /// Why.
        source: std::io::Error,
    },
    /// It does not go to standard output.
    #[error(
        "parquet, or --partition, makes a directory of files, so it goes neither to a stream nor to a device; give the name of a new directory with -o"
    )]
    NoStream,
    /// Left out when kvmtrace was built.
    #[error("this kvmtrace was built without parquet: build it with --features parquet, or export to json")]
    NoParquet,
}

/// Exports what is selected of the recordings in `files`. Returns what was missing from them, a line each.
pub fn export(
    files: &[PathBuf],
    mut selection: Selection,
    target: &Target,
    quiet: bool,
) -> Result<Vec<String>, ExportError> {
    let failed = |source: std::io::Error| failed(target, source);
    let mut recordings = super::recording::open(files)?;
    let judged = recordings.iter_mut().map(|recording| judge_for_joining(recording, &mut selection, quiet));
    let judged = judged.collect::<Result<Vec<_>, _>>()?;
    let Some(Joined { report, hosts, several }) = join(judged) else { return Ok(Vec::new()) };
    let report = selection.narrow(report)?;
    let events = selection.events(&report);
    let traces: Vec<Trace> = hosts
        .into_iter()
        .zip(&recordings)
        .map(|(host, recording)| Trace { host, header: recording.header().cloned().unwrap_or_default() })
        .collect();
    let flows = Flows::new(&report);
    let mut exporter = begin(target, &traces, &report)?;
    let mut traces = Traces::new(recordings, traces, several, selection.window, quiet)?;
    while let Some((number, event)) = traces.next_event()? {
        let seen = traces.seen(number, &event, |key| report.flows.get(flows.get(number, key)?));
        if let Some(seen) = seen.filter(|_| events.wants(&event)) {
            exporter.event(number, &seen).map_err(failed)?;
        }
    }
    exporter.finish().map_err(failed)?;
    Ok(traces.complaints())
}

/// Writes the packets among these events, which are at hand rather than in a recording, into a new file.
pub fn capture(path: &Path, header: &Header, report: &Report, events: &[Event]) -> Result<(), ExportError> {
    let target = Target { form: Form::Pcapng, output: path.to_owned(), force: false, partition: None };
    let failed = |source: std::io::Error| failed(&target, source);
    let (host, mut header) = (&report.host, header.clone());
    // A trace that is not recorded has yet to learn these.
    header.kernel.clone_from(&host.kernel);
    header.kvmtrace.clone_from(&host.kvmtrace);
    let trace = Trace { host: host.name.clone(), header };
    let flows = Flows::new(report);
    let mut exporter = begin(&target, std::slice::from_ref(&trace), report)?;
    let mut state = traces::State::new(String::new());
    for event in events {
        let seen = state.see(event, &trace.host, |key| report.flows.get(flows.get(0, key)?));
        exporter.event(0, &seen).map_err(failed)?;
    }
    exporter.finish().map_err(failed)
}

/// Judges events and sends them through all exporters: for the fuzzer and for tests.
#[doc(hidden)]
pub fn fuzz(header: &Header, events: &[Event]) {
    let mut pipeline = crate::pipeline::Pipeline::default();
    let mut watcher = Watcher::new(watch::Options { rate: 5, paths: true, min_latency: 0 });
    for event in events {
        pipeline.take(event);
        watcher.step(event, pipeline.track());
    }
    watcher.finish(pipeline.track());
    let report = pipeline.report();
    let trace = Trace { host: header.host.clone(), header: header.clone() };
    let sink = || Box::new(std::io::sink());
    let lines = json::Lines::begin(sink(), &[&trace]).map(|lines| Box::new(lines) as Box<dyn Exporter>);
    let capture = pcapng::Capture::begin(sink(), &[&trace]).map(|capture| Box::new(capture) as Box<dyn Exporter>);
    #[cfg(feature = "parquet")]
    let tables = parquet::Tables::into_files(std::io::sink(), std::io::sink())
        .map(|tables| Box::new(tables) as Box<dyn Exporter>);
    #[cfg(not(feature = "parquet"))]
    let tables = Err(std::io::ErrorKind::Unsupported.into());
    let flows = Flows::new(&report);
    for mut exporter in [lines, capture, tables].into_iter().flatten() {
        let mut state = traces::State::new(String::new());
        let mut each =
            |event: &Event| exporter.event(&state.see(event, &trace.host, |key| report.flows.get(flows.get(0, key)?)));
        // Nothing can fail on the way to a sink.
        events.iter().try_for_each(&mut each).and_then(|()| exporter.finish(&Verdicts::of(&report))).ok();
    }
}

/// An open target.
enum Open<'a> {
    One { exporter: Box<dyn Exporter>, report: &'a Report, outputs: Outputs },
    Several(Box<Partitioned<'a>>),
}

impl Open<'_> {
    fn event(&mut self, trace: usize, seen: &Seen<'_>) -> std::io::Result<()> {
        match self {
            Self::One { exporter, .. } => exporter.event(seen),
            Self::Several(partitioned) => partitioned.event(trace, seen),
        }
    }

    fn finish(self) -> std::io::Result<()> {
        match self {
            Self::One { mut exporter, report, outputs } => {
                exporter.finish(&Verdicts::of(report))?;
                outputs.keep();
                Ok(())
            }
            Self::Several(partitioned) => partitioned.finish(),
        }
    }
}

fn failed(target: &Target, source: std::io::Error) -> ExportError {
    if source.kind() == ErrorKind::AlreadyExists {
        ExportError::Exists(target.output.clone())
    } else {
        ExportError::Write { name: target.output.display().to_string(), source }
    }
}

/// Opens a target.
fn begin<'a>(target: &Target, traces: &[Trace], report: &'a Report) -> Result<Open<'a>, ExportError> {
    let is_directory = target.form == Form::Parquet || target.partition.is_some();
    if target.form == Form::Parquet && cfg!(not(feature = "parquet")) {
        return Err(ExportError::NoParquet);
    }
    let output = &target.output;
    let is_no_directory = || std::fs::symlink_metadata(output).is_ok_and(|there| !there.is_dir());
    // A stream or a device is in nobody's way, and no directory.
    if is_directory && (output == Path::new("-") || is_no_directory() && place::check(output, false).is_ok()) {
        return Err(ExportError::NoStream);
    }
    let mut outputs = Outputs::new(target);
    let open = || -> std::io::Result<Open<'a>> {
        if let Some(partition) = target.partition {
            let partitioned = Partitioned::begin(partition, outputs, traces.to_vec(), report)?;
            return Ok(Open::Several(Box::new(partitioned)));
        }
        let all: Vec<&Trace> = traces.iter().collect();
        let exporter = match target.form {
            Form::Parquet => {
                let directory = outputs.root()?;
                outputs.tables(&directory, "")?
            }
            Form::Json | Form::Pcapng => outputs.stream(output, &all)?,
        };
        Ok(Open::One { exporter, report, outputs })
    };
    open().map_err(|source| failed(target, source))
}

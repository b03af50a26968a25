//! Recordings in other people's forms.
//!
//! An export reads the recording twice: first to judge it, then to write each event, with the verdict where the form
//! has a place for it. So it needs no more memory than a report does.

mod columns;
mod json;
mod lookup;
#[cfg(feature = "parquet")]
mod parquet;
mod pcapng;

#[cfg(test)]
mod tests;

use super::place::{self, Place};
use super::reader::ReadError;
use super::{Header, judge, progress::Progress};
use crate::diagnose::report::Report;
use crate::event::Event;
use crate::selection::{Selection, SelectionError};
use std::fs::File;
use std::io::{BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// A form to export to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// Packets for Wireshark and tshark, one interface per observation point, verdicts as comments.
    Pcapng,
    /// A line per event and verdict (docs/export.schema.json).
    Json,
    /// A directory with events.parquet and flows.parquet.
    Parquet,
}

/// Why nothing was exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The recording can't be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// Nothing of it can be selected so.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// Files of two traces.
    #[error("{first} and {second} are of different traces: export each by itself; report judges them together")]
    Several {
        /// A file of one.
        first: String,
        /// A file of another.
        second: String,
    },
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
        "parquet makes a directory of two files, so it goes neither to a stream nor to a device; give the name of a new directory with -o"
    )]
    NoStream,
    /// Left out when kvmtrace was built.
    #[error("this kvmtrace was built without parquet: build it with --features parquet, or export to json")]
    NoParquet,
}

/// Writes the events of a recording in some form.
trait Exporter {
    /// Writes one event.
    fn event(&mut self, event: &Event) -> std::io::Result<()>;
    /// Writes what comes last.
    fn finish(&mut self) -> std::io::Result<()>;
}

/// What an exporter knows beforehand.
struct Context {
    header: Header,
    report: Report,
}

/// Exports what is selected of the recording in `files` to `output`, `-` for standard output. Returns what was missing from the recording.
pub fn export(
    files: &[PathBuf],
    mut selection: Selection,
    form: Form,
    output: &Path,
    force: bool,
    quiet: bool,
) -> Result<Option<String>, ExportError> {
    let name = output.display().to_string();
    let failed = |source: std::io::Error| {
        if source.kind() == ErrorKind::AlreadyExists {
            ExportError::Exists(output.to_owned())
        } else {
            ExportError::Write { name: name.clone(), source }
        }
    };
    let mut recordings = super::recording::open(files)?;
    // A second one would be written over the first.
    if let [first, second, ..] = recordings.as_slice() {
        return Err(ExportError::Several { first: first.name().to_owned(), second: second.name().to_owned() });
    }
    let Some(mut recording) = recordings.pop() else { return Ok(None) };
    let report = judge(&mut recording, &mut selection, quiet)?;
    let report = selection.narrow(report)?;
    let events = selection.events(&report);
    let header = recording.header().cloned().unwrap_or_default();
    let mut recording = recording.again()?;
    let context = Context { header, report };
    let mut made = Made::default();
    let mut exporter = exporter(context, form, output, force, &mut made).map_err(|error| error.or(failed))?;
    let mut progress = Progress::new(&recording, quiet);
    let mut passage = selection.window.passage();
    while let Some(event) = recording.next_event()? {
        for event in passage.take(event).iter().filter(|event| events.wants(event)) {
            exporter.event(event).map_err(failed)?;
        }
        progress.step(&recording);
        if passage.has_ended() {
            break;
        }
    }
    exporter.finish().map_err(failed)?;
    made.keep();
    Ok(recording.complaint())
}

/// What an export has made so far: half of it is of no use to anybody, so it goes unless it is kept.
#[derive(Default)]
struct Made {
    directory: Option<PathBuf>,
    files: Vec<PathBuf>,
}

impl Made {
    /// Opens a file to write to.
    fn file(&mut self, path: &Path, force: bool) -> std::io::Result<File> {
        let place = place::create(path, force)?;
        if matches!(place, Place::File(_)) {
            self.files.push(place::followed(path));
        }
        Ok(place.into_file())
    }

    /// It is whole.
    fn keep(mut self) {
        self.files.clear();
        self.directory = None;
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        let left: Vec<_> = self.files.iter().filter(|file| std::fs::remove_file(file).is_err()).collect();
        // One that holds something else stays.
        let directory = self.directory.take().map(std::fs::remove_dir);
        tracing::debug!(?left, ?directory, "what a failed export had begun");
    }
}

/// Why there is no exporter.
enum NoExporter {
    Refused(ExportError),
    Failed(std::io::Error),
}

impl NoExporter {
    fn or(self, failed: impl Fn(std::io::Error) -> ExportError) -> ExportError {
        match self {
            Self::Refused(error) => error,
            Self::Failed(error) => failed(error),
        }
    }
}

impl From<std::io::Error> for NoExporter {
    fn from(error: std::io::Error) -> Self {
        Self::Failed(error)
    }
}

/// Judges events and sends them through all exporters: for the fuzzer and for tests.
#[doc(hidden)]
pub fn fuzz(header: &Header, events: &[Event]) {
    let mut pipeline = crate::pipeline::Pipeline::default();
    for event in events {
        pipeline.step(event);
    }
    let context = || Context { header: header.clone(), report: pipeline.report() };
    let sink = || Box::new(std::io::sink());
    let lines = json::Lines::begin(sink(), context()).map(|lines| Box::new(lines) as Box<dyn Exporter>);
    let capture = pcapng::Capture::begin(sink(), &context()).map(|capture| Box::new(capture) as Box<dyn Exporter>);
    #[cfg(feature = "parquet")]
    let tables = parquet::Tables::into_files(std::io::sink(), std::io::sink(), context())
        .map(|tables| Box::new(tables) as Box<dyn Exporter>);
    #[cfg(not(feature = "parquet"))]
    let tables = Err(std::io::ErrorKind::Unsupported.into());
    for mut exporter in [lines, capture, tables].into_iter().flatten() {
        // Nothing can fail on the way to a sink.
        events.iter().try_for_each(|event| exporter.event(event)).and_then(|()| exporter.finish()).ok();
    }
}

fn exporter(
    context: Context,
    form: Form,
    output: &Path,
    force: bool,
    made: &mut Made,
) -> Result<Box<dyn Exporter>, NoExporter> {
    if form == Form::Parquet {
        return parquet_exporter(context, output, force, made);
    }
    let stream: Box<dyn Write> = if output == Path::new("-") {
        Box::new(BufWriter::new(std::io::stdout()))
    } else {
        Box::new(BufWriter::new(made.file(output, force)?))
    };
    if form == Form::Json {
        Ok(Box::new(json::Lines::begin(stream, context)?))
    } else {
        Ok(Box::new(pcapng::Capture::begin(stream, &context)?))
    }
}

#[cfg(feature = "parquet")]
fn parquet_exporter(
    context: Context,
    output: &Path,
    force: bool,
    made: &mut Made,
) -> Result<Box<dyn Exporter>, NoExporter> {
    let is_directory = std::fs::symlink_metadata(output).map(|there| there.is_dir());
    if output == Path::new("-") || matches!(is_directory, Ok(false)) && place::check(output, false).is_ok() {
        return Err(NoExporter::Refused(ExportError::NoStream));
    }
    Ok(Box::new(parquet::Tables::begin(output, force, made, context)?))
}

#[cfg(not(feature = "parquet"))]
fn parquet_exporter(
    _context: Context,
    _output: &Path,
    _force: bool,
    _made: &mut Made,
) -> Result<Box<dyn Exporter>, NoExporter> {
    Err(NoExporter::Refused(ExportError::NoParquet))
}

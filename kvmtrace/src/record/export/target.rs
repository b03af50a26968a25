//! What to write and where to: a form's writer for each output.

#[cfg(feature = "parquet")]
use super::parquet;
use super::partition_columns::Partition;
use super::seen::{Exporter, Trace};
use super::{json, pcapng};
use crate::record::place::{self, Place};
use std::fs::{DirBuilder, File};
use std::io::{BufWriter, ErrorKind, Write};
use std::os::unix::fs::DirBuilderExt as _;
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

/// What to write, and where to.
#[derive(Clone, Debug)]
pub struct Target {
    /// In which form.
    pub form: Form,
    /// The output: a file, `-` for standard output, or a directory.
    pub output: PathBuf,
    /// The output may exist.
    pub force: bool,
    /// Into which directories it is divided.
    pub partition: Option<Partition>,
}

/// Opens the files of a target. Half an export is of no use to anybody: what was made goes, unless it is kept.
pub(super) struct Outputs {
    pub(super) target: Target,
    /// Outer ones first.
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

impl Outputs {
    pub(super) fn new(target: &Target) -> Self {
        Self { target: target.clone(), directories: Vec::new(), files: Vec::new() }
    }

    /// All of it is whole.
    pub(super) fn keep(mut self) {
        self.files.clear();
        self.directories.clear();
    }

    /// The directory that the output is.
    pub(super) fn root(&mut self) -> std::io::Result<PathBuf> {
        // No link to a directory that somebody else has planted.
        let directory = place::followed(&self.target.output);
        self.directory(&directory, self.target.force)?;
        Ok(directory)
    }

    /// A directory, which may be there if it `may_exist`.
    pub(super) fn directory(&mut self, directory: &Path, may_exist: bool) -> std::io::Result<()> {
        match DirBuilder::new().mode(0o700).create(directory) {
            Ok(()) => self.directories.push(directory.to_owned()),
            Err(error) if error.kind() != ErrorKind::AlreadyExists || !may_exist => return Err(error),
            Err(_) if std::fs::symlink_metadata(directory)?.is_dir() => {}
            Err(_) => return Err(ErrorKind::NotADirectory.into()),
        }
        Ok(())
    }

    fn file(&mut self, path: &Path) -> std::io::Result<File> {
        let place = place::create(path, self.target.force)?;
        if matches!(place, Place::File(_)) {
            self.files.push(place::followed(path));
        }
        Ok(place.into_file())
    }

    /// Writes to one file, or to standard output.
    pub(super) fn stream(&mut self, path: &Path, traces: &[&Trace]) -> std::io::Result<Box<dyn Exporter>> {
        let stream: Box<dyn Write> = if path == Path::new("-") {
            Box::new(BufWriter::new(std::io::stdout()))
        } else {
            Box::new(BufWriter::new(self.file(path)?))
        };
        Ok(if self.target.form == Form::Json {
            Box::new(json::Lines::begin(stream, traces)?)
        } else {
            Box::new(pcapng::Capture::begin(stream, traces)?)
        })
    }

    /// Writes to the files `events.parquet` and `flows.parquet` of a directory; `suffix` stands before the point.
    #[cfg(feature = "parquet")]
    pub(super) fn tables(&mut self, directory: &Path, suffix: &str) -> std::io::Result<Box<dyn Exporter>> {
        let mut file = |name| self.file(&directory.join(format!("{name}{suffix}.parquet")));
        let (events, flows) = (file("events")?, file("flows")?);
        Ok(Box::new(parquet::Tables::into_files(events, flows)?))
    }

    #[cfg(not(feature = "parquet"))]
    pub(super) fn tables(&mut self, _directory: &Path, _suffix: &str) -> std::io::Result<Box<dyn Exporter>> {
        Err(ErrorKind::Unsupported.into())
    }
}

impl Drop for Outputs {
    fn drop(&mut self) {
        let left: Vec<_> = self.files.iter().filter(|file| std::fs::remove_file(file).is_err()).collect();
        // One that holds something else stays.
        let directories: Vec<_> = self.directories.iter().rev().map(std::fs::remove_dir).collect();
        tracing::debug!(?left, ?directories, "what a failed export had begun");
    }
}

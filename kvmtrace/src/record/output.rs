//! Where a recording goes: a file, a row of files, or a stream.

use super::place::{self, Place};
use super::writer::WriteError;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read as _, Seek as _, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Where to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    /// A file; `force` allows it to exist.
    File {
        /// Its path.
        path: PathBuf,
        /// It may exist and is written over.
        force: bool,
    },
    /// Standard output.
    StandardOutput,
}

impl Destination {
    /// `-` is standard output.
    pub fn new(path: &Path, force: bool) -> Self {
        if path == Path::new("-") { Self::StandardOutput } else { Self::File { path: path.to_owned(), force } }
    }

    /// Nothing is in the way: asked before a trace is begun in vain.
    pub fn check(&self) -> Result<(), WriteError> {
        match self {
            Self::File { path, force } => place::check(path, *force).map_err(|source| failed(path, source)),
            Self::StandardOutput => Ok(()),
        }
    }
}

/// `--rotate SIZE[,COUNT]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// A file that has reached this size in bytes is followed by another.
    pub size: u64,
    /// How many files are kept, the one being written included; `None` for all.
    pub count: Option<u64>,
}

/// Not a rotation.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no rotation; one looks like 64MB or 64MB,10")]
pub struct BadRotation(String);

impl FromStr for Rotation {
    type Err = BadRotation;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || BadRotation(text.to_owned());
        let (size, count) = match text.split_once(',') {
            Some((size, count)) => (size, Some(count.trim().parse().ok().filter(|n| *n > 0).ok_or_else(bad)?)),
            None => (text, None),
        };
        let size = size.trim();
        let digits = size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len());
        let (number, unit) = size.split_at(digits);
        let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
            "" | "b" => 1,
            "k" | "kb" | "kib" => 1 << 10,
            "m" | "mb" | "mib" => 1 << 20,
            "g" | "gb" | "gib" => 1 << 30,
            _ => return Err(bad()),
        };
        let size = number.parse::<u64>().ok().and_then(|number| number.checked_mul(unit)).filter(|size| *size > 0);
        Ok(Self { size: size.ok_or_else(bad)?, count })
    }
}

/// An open destination.
pub(super) enum Output {
    File { file: File, path: PathBuf, length: u64 },
    Stream { stream: Box<dyn Write + Send>, name: String, length: u64 },
}

fn failed(path: &Path, source: std::io::Error) -> WriteError {
    if source.kind() == ErrorKind::AlreadyExists {
        WriteError::Exists(path.to_owned())
    } else {
        WriteError::Create { path: path.to_owned(), source }
    }
}

impl Output {
    pub(super) fn open(destination: &Destination, rotation: Option<Rotation>) -> Result<Self, WriteError> {
        match destination {
            Destination::StandardOutput if rotation.is_some() => Err(WriteError::RotatedStream),
            Destination::StandardOutput => Ok(Self::stream(Box::new(std::io::stdout()))),
            Destination::File { path, force } => {
                if rotation.is_some() {
                    clear_older(path, *force)?;
                }
                Self::create(path, *force)
            }
        }
    }

    pub(super) fn stream(stream: Box<dyn Write + Send>) -> Self {
        Self::Stream { stream, name: "standard output".to_owned(), length: 0 }
    }

    fn create(path: &Path, force: bool) -> Result<Self, WriteError> {
        match place::create(path, force).map_err(|source| failed(path, source))? {
            Place::File(file) => Ok(Self::File { file, path: path.to_owned(), length: 0 }),
            Place::Stream(file) => {
                Ok(Self::Stream { stream: Box::new(file), name: path.display().to_string(), length: 0 })
            }
        }
    }

    /// Name for messages.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File { path, .. } => path.display().to_string(),
            Self::Stream { name, .. } => name.clone(),
        }
    }

    /// Bytes written.
    pub(super) fn length(&self) -> u64 {
        match self {
            Self::File { length, .. } | Self::Stream { length, .. } => *length,
        }
    }

    /// Writes all of it, or (to a file) nothing of it: what was written of a block that did not fit is taken back.
    pub(super) fn write(&mut self, parts: &[&[u8]]) -> std::io::Result<()> {
        match self {
            Self::File { file, length, .. } => {
                // Nobody will ever read what is written to a file that was deleted.
                if file.metadata()?.nlink() == 0 {
                    return Err(ErrorKind::NotFound.into());
                }
                let before = *length;
                for part in parts {
                    if let Err(error) = file.write_all(part) {
                        // A reader copes with a torn block; taking it back only saves it the trouble.
                        file.set_len(before).and_then(|()| file.seek(std::io::SeekFrom::Start(before))).ok();
                        *length = before;
                        return Err(error);
                    }
                    *length += part.len() as u64;
                }
                Ok(())
            }
            Self::Stream { stream, length, .. } => {
                for part in parts {
                    stream.write_all(part)?;
                    *length += part.len() as u64;
                }
                stream.flush()
            }
        }
    }

    /// The file is whole: on to the disk with it.
    pub(super) fn finish(&mut self) -> std::io::Result<()> {
        match self {
            Self::File { file, .. } => file.sync_data(),
            Self::Stream { stream, .. } => stream.flush(),
        }
    }

    /// Moves the file that is written to `FILE.number`, begins another, and removes the one that is one too many.
    pub(super) fn rotate(&mut self, number: u64, rotation: Rotation) -> Result<(), WriteError> {
        let Self::File { path, .. } = self else { return Err(WriteError::RotatedStream) };
        let path = path.clone();
        let failed = |source| WriteError::Create { path: path.clone(), source };
        std::fs::rename(&path, numbered(&path, number)).map_err(failed)?;
        if let Some(oldest) = rotation.count.and_then(|count| (number + 1).checked_sub(count)) {
            match std::fs::remove_file(numbered(&path, oldest)) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        *self = Self::create(&path, false)?;
        Ok(())
    }
}

/// `trace.kvmtrace` → `trace.kvmtrace.3`
pub(super) fn numbered(path: &Path, number: u64) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Files `FILE.0`, `FILE.1`, … of an earlier recording: in the way, or removed with `force`.
fn clear_older(path: &Path, force: bool) -> Result<(), WriteError> {
    let directory = place::directory(path);
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return Ok(()) };
    let failed = |source| WriteError::Create { path: path.to_owned(), source };
    for entry in std::fs::read_dir(directory).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let number =
            entry.file_name().to_str().and_then(|other| other.strip_prefix(name)?.strip_prefix('.')?.parse().ok());
        if number.is_none_or(|_: u64| !is_recording(&entry.path())) {
            continue;
        }
        if !force {
            return Err(WriteError::Exists(entry.path()));
        }
        std::fs::remove_file(entry.path()).map_err(failed)?;
    }
    Ok(())
}

fn is_recording(path: &Path) -> bool {
    let mut magic = [0; super::format::MAGIC.len()];
    // Whatever stands there under such a name: no link is followed, no pipe waited for.
    let flags = nix::libc::O_NOFOLLOW | nix::libc::O_NONBLOCK;
    let file = OpenOptions::new().read(true).custom_flags(flags).open(path);
    file.and_then(|mut file| file.read_exact(&mut magic)).is_ok() && magic == super::format::MAGIC
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotations_are_a_size_and_perhaps_a_count() {
        assert_eq!("64MB,10".parse(), Ok(Rotation { size: 64 << 20, count: Some(10) }));
        assert_eq!("4096".parse(), Ok(Rotation { size: 4096, count: None }));
        assert_eq!("2GiB, 3".parse(), Ok(Rotation { size: 2 << 30, count: Some(3) }));
        for nonsense in ["", "0", "MB", "64XB", "64MB,0", "64MB,x", "99999999999GB"] {
            assert!(nonsense.parse::<Rotation>().is_err(), "{nonsense}");
        }
    }
}

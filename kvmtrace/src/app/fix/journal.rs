//! The log of fixes: what was run, its undo, what came of it. One JSON object per line, appended; the last line of a number
//! counts. Only root may read or write it, for its undo commands are run.

use super::lock::namespace;
use crate::diagnose::report::{Fix, Incident};
use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Where the log is, the first that can be written to.
const DIRECTORIES: [&str; 2] = ["/var/lib/kvmtrace", "/run/kvmtrace"];
const NAME: &str = "fixes.jsonl";
/// A log of more bytes is not read.
const LARGEST: u64 = 16 << 20;

/// What came of a fix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Outcome {
    /// It is being tried.
    Pending,
    /// It holds.
    Kept,
    /// It was undone when it was tried.
    Undone,
    /// It was kept, and taken back later.
    TakenBack,
    /// Its undo failed.
    UndoFailed,
}

impl Outcome {
    pub(super) fn words(self) -> &'static str {
        match self {
            Self::Pending => "being tried",
            Self::Kept => "kept",
            Self::Undone => "undone",
            Self::TakenBack => "taken back",
            Self::UndoFailed => "its undo failed",
        }
    }
}

/// One fix.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) number: u32,
    /// RFC 3339.
    pub(super) time: String,
    /// The boot that it belongs to: what a fix sets is gone with the next.
    boot: String,
    /// Inode of the network namespace.
    netns: u64,
    incident: String,
    pub(super) cause: String,
    scope: Option<String>,
    pub(super) command: String,
    pub(super) undo: String,
    pub(super) result: Outcome,
    /// Why it was undone.
    #[serde(default)]
    why: String,
}

fn boot() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    Ok(std::fs::read_to_string(path).context(path)?.trim().to_owned())
}

fn now() -> String {
    crate::kernel::clock::Clock::read().now().to_string()
}

impl Entry {
    /// A fix that is about to be tried.
    pub(super) fn new(incident: &Incident, fix: &Fix, command: &str, undo: &str) -> anyhow::Result<Self> {
        Ok(Self {
            number: 0,
            time: now(),
            boot: boot()?,
            netns: namespace()?,
            incident: incident.id.clone(),
            cause: incident.cause.id().to_owned(),
            scope: fix.scope.clone(),
            command: command.to_owned(),
            undo: undo.to_owned(),
            result: Outcome::Pending,
            why: String::new(),
        })
    }

    /// It was made in this boot and in this network namespace.
    pub(super) fn is_of_now(&self) -> anyhow::Result<bool> {
        Ok(self.boot == boot()? && self.netns == namespace()?)
    }
}

/// The log.
#[derive(Clone, Debug)]
pub(super) struct Journal {
    path: PathBuf,
}

impl Journal {
    /// The log of this host.
    pub(super) fn open() -> anyhow::Result<Self> {
        let mut error = None;
        for directory in DIRECTORIES {
            match Self::at(Path::new(directory)) {
                Ok(journal) => return Ok(journal),
                Err(failed) => error = Some(failed),
            }
        }
        Err(error.unwrap_or_else(|| anyhow::anyhow!("no place for the log of fixes")))
    }

    fn at(directory: &Path) -> anyhow::Result<Self> {
        let name = || directory.display().to_string();
        DirBuilder::new().recursive(true).mode(0o700).create(directory).with_context(name)?;
        let journal = Self { path: directory.join(NAME) };
        journal.file()?;
        Ok(journal)
    }

    /// The log at a path that [`Self::path`] gave.
    pub(super) fn known(path: PathBuf) -> Self {
        Self { path }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn file(&self) -> anyhow::Result<File> {
        let name = || self.path.display().to_string();
        let mut options = OpenOptions::new();
        options.create(true).append(true).read(true).mode(0o600).custom_flags(nix::libc::O_NOFOLLOW);
        let file = options.open(&self.path).with_context(name)?;
        let metadata = file.metadata().with_context(name)?;
        if !metadata.is_file() || metadata.uid() != nix::unistd::geteuid().as_raw() || metadata.mode() & 0o077 != 0 {
            bail!("{}: others may write to it or read it, so nothing in it is trusted", name());
        }
        Ok(file)
    }

    /// All fixes with their latest results, the oldest first.
    pub(super) fn entries(&self) -> anyhow::Result<Vec<Entry>> {
        let mut text = String::new();
        self.file()?.take(LARGEST).read_to_string(&mut text).context("reading the log of fixes")?;
        // A line that was cut short by a crash is passed over.
        let entries = text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok());
        let latest: BTreeMap<u32, Entry> = entries.map(|entry| (entry.number, entry)).collect();
        Ok(latest.into_values().collect())
    }

    /// Writes a new entry and gives its number.
    pub(super) fn begin(&self, entry: &Entry) -> anyhow::Result<u32> {
        let locked = self.locked()?;
        let number = self.entries()?.last().map_or(0, |last| last.number) + 1;
        append(&locked, &Entry { number, ..entry.clone() })?;
        Ok(number)
    }

    /// Writes the result of an entry.
    pub(super) fn end(&self, number: u32, result: Outcome) -> anyhow::Result<()> {
        self.end_because(number, result, "")
    }

    /// Writes the result of an entry and its reason.
    pub(super) fn end_because(&self, number: u32, result: Outcome, why: &str) -> anyhow::Result<()> {
        let locked = self.locked()?;
        let entry = self.entries()?.into_iter().find(|entry| entry.number == number).context("no such entry")?;
        append(&locked, &Entry { result, why: why.to_owned(), ..entry })
    }

    fn locked(&self) -> anyhow::Result<Flock<File>> {
        Flock::lock(self.file()?, FlockArg::LockExclusive)
            .map_err(|(_, error)| error)
            .context("locking the log of fixes")
    }
}

fn append(file: &File, entry: &Entry) -> anyhow::Result<()> {
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    (&*file).write_all(&line).context("writing the log of fixes")?;
    file.sync_data().context("writing the log of fixes")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn entry() -> Entry {
        Entry {
            number: 0,
            time: now(),
            boot: boot().unwrap(),
            netns: namespace().unwrap(),
            incident: "0".repeat(16),
            cause: "link-down".to_owned(),
            scope: None,
            command: "true".to_owned(),
            undo: "false".to_owned(),
            result: Outcome::Pending,
            why: String::new(),
        }
    }

    #[test]
    fn the_last_line_of_a_fix_counts_and_a_torn_one_is_passed_over() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(directory.path()).unwrap();
        assert_eq!((journal.begin(&entry()).unwrap(), journal.begin(&entry()).unwrap()), (1, 2));
        journal.end(1, Outcome::Kept).unwrap();
        journal.file().unwrap().write_all(b"{\"number\":2,\"ti").unwrap();
        let entries = journal.entries().unwrap();
        assert_eq!(
            entries.iter().map(|entry| (entry.number, entry.result)).collect::<Vec<_>>(),
            [(1, Outcome::Kept), (2, Outcome::Pending)]
        );
        assert!(entries[0].is_of_now().unwrap());
        assert_eq!(std::fs::metadata(journal.path()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_log_that_others_may_write_is_not_trusted() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::at(directory.path()).unwrap();
        std::fs::set_permissions(journal.path(), std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(journal.entries().is_err());
    }
}

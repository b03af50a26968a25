//! `--ready-file`: there while everything is attached, and never before.
//!
//! Whoever waits for it sends packets as soon as it appears. So that it can be created is proven by a file of another name
//! beside it, which is then renamed.

use anyhow::{Context as _, Result, bail};
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The file, removed when this value is dropped.
#[derive(Debug)]
pub(super) struct ReadyFile {
    path: PathBuf,
    /// What becomes the file.
    draft: PathBuf,
}

impl ReadyFile {
    /// Proves that the file can be created, and removes one that an earlier run has left: told before anything is attached.
    pub(super) fn prepare(path: &Path) -> Result<Self> {
        let context = || format!("--ready-file {}: can't be created", path.display());
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().context("it names no file").with_context(context)?);
        name.push(format!(".{}", std::process::id()));
        let file = Self { path: path.to_owned(), draft: path.with_file_name(name) };
        match fs::symlink_metadata(path) {
            Ok(metadata) if !metadata.is_file() => bail!("--ready-file {}: is there and is no file", path.display()),
            Ok(_) => fs::remove_file(path).with_context(context)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(context),
        }
        // A new file only: the directory may be one where others can plant links.
        OpenOptions::new().write(true).create_new(true).open(&file.draft).with_context(context)?;
        Ok(file)
    }

    /// Everything is attached.
    pub(super) fn announce(self) -> Result<Self> {
        fs::rename(&self.draft, &self.path)
            .with_context(|| format!("--ready-file {}: can't be created", self.path.display()))?;
        Ok(self)
    }
}

impl Drop for ReadyFile {
    fn drop(&mut self) {
        // Only one of them is there, and somebody else may have removed it.
        for file in [&self.path, &self.draft] {
            drop(fs::remove_file(file));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_there_from_the_announcement_to_the_end_and_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready");
        fs::write(&path, "of an earlier run").unwrap();
        let file = ReadyFile::prepare(&path).unwrap();
        assert!(!path.exists(), "it tells too early");
        let file = file.announce().unwrap();
        assert!(path.exists());
        drop(file);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        drop(ReadyFile::prepare(&path).unwrap());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_can_not_become_one_is_named() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path(), Path::new("/nosuch/ready"), Path::new("/")] {
            let error = format!("{:#}", ReadyFile::prepare(path).unwrap_err());
            assert!(error.starts_with(&format!("--ready-file {}: ", path.display())), "{error}");
        }
    }
}

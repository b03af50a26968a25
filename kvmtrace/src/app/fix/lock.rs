//! One fix at a time, in each network namespace. The lock lives as long as anybody holds its file: kvmtrace, or the helper that
//! outlives it with an undo in its hands.

use anyhow::{Context as _, bail};
use nix::fcntl::{Flock, FlockArg};
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};

/// A held lock.
#[derive(Debug)]
pub(super) struct Lock(Flock<File>);

impl Lock {
    /// Takes the lock of this network namespace; an error where another fix is under way.
    pub(super) fn take() -> anyhow::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create("/run/kvmtrace").context("creating /run/kvmtrace")?;
        let path = format!("/run/kvmtrace/fix-{}.lock", namespace()?);
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .custom_flags(nix::libc::O_NOFOLLOW)
            .open(&path)
            .with_context(|| path.clone())?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Self(lock)),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) => {
                bail!("another fix is being tried on this host; wait until it is kept or undone")
            }
            Err((_, error)) => Err(error).with_context(|| path),
        }
    }

    /// The same lock for another process.
    pub(super) fn share(&self) -> std::io::Result<File> {
        self.0.try_clone()
    }
}

/// The network namespace, by its inode.
pub(super) fn namespace() -> anyhow::Result<u64> {
    Ok(std::fs::metadata("/proc/self/ns/net").context("/proc/self/ns/net")?.ino())
}

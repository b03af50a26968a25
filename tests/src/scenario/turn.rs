//! Scenarios that change what all namespaces share take turns, also with those of other processes.

use super::MachineWide;
use crate::lab::state;
use anyhow::{Context as _, Result};
use std::fs::{self, File};
use std::path::Path;

/// The right to change it, until dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _locked: Option<File>,
}

impl Turn {
    /// Waits for it; nothing is waited for where nothing is shared.
    pub(super) fn wait(what: Option<MachineWide>) -> Result<Self> {
        let locked = what.map(|what| lock(Path::new(state::DIRECTORY), what)).transpose()?;
        Ok(Self { _locked: locked })
    }
}

fn lock(directory: &Path, what: MachineWide) -> Result<File> {
    let path = directory.join(match what {
        MachineWide::Conntrack => "conntrack.lock",
    });
    let locked = || {
        fs::create_dir_all(directory)?;
        let file = File::options().create(true).truncate(false).write(true).open(&path)?;
        // The kernel gives it back when the process ends, however it ends.
        file.lock()?;
        Ok::<_, std::io::Error>(file)
    };
    locked().with_context(|| format!("{}: can't be locked", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::TryLockError;

    #[test]
    fn the_second_waits_until_the_first_is_done() {
        let directory = std::env::temp_dir().join(format!("kvmtrace-turn-{}", std::process::id()));
        let first = lock(&directory, MachineWide::Conntrack).unwrap();
        let second = File::open(directory.join("conntrack.lock")).unwrap();
        assert!(matches!(second.try_lock(), Err(TryLockError::WouldBlock)));
        drop(first);
        second.try_lock().unwrap();
        fs::remove_dir_all(directory).unwrap();
    }
}

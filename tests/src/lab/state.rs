//! Who owns which lab: one file per lab, so that leftovers of a killed owner are found by the next start.

use super::netns;
use super::process;
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where the records are.
pub const DIRECTORY: &str = "/run/kvmtrace-lab";

/// What is kept of a lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// The lab's name; its namespaces are called `NAME-…`.
    pub name: String,
    /// Which topology or scenario a person asked for; none for a test's lab.
    pub topic: Option<String>,
    /// The process that holds it.
    pub owner: u32,
    /// The owner's start time: process ids are used again.
    pub owner_start: u64,
    /// Its namespaces, by role.
    pub namespaces: BTreeMap<String, String>,
    /// What a person is told.
    pub welcome: String,
}

impl Record {
    /// A record of this process.
    pub fn of(name: &str) -> Result<Self> {
        let owner = std::process::id();
        let owner_start = start_time(owner).context("cannot read /proc/self/stat")?;
        let name = name.to_owned();
        Ok(Self { name, topic: None, owner, owner_start, namespaces: BTreeMap::new(), welcome: String::new() })
    }

    /// Where files of the lab go; removed with it.
    pub fn directory(&self) -> PathBuf {
        Path::new(DIRECTORY).join(&self.name)
    }

    /// Writes the record.
    pub fn save(&self) -> Result<()> {
        let directory = self.directory();
        fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
        // Renamed into place: whoever reads it reads all of it.
        let (draft, path) = (directory.join(".record"), directory.join("record.json"));
        fs::write(&draft, serde_json::to_vec_pretty(self)?)?;
        fs::rename(&draft, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Whether the owner still lives.
    pub fn is_alive(&self) -> bool {
        start_time(self.owner) == Some(self.owner_start)
    }

    /// Deletes what the record names, and the record.
    pub fn clear(&self) {
        // By name, not by the record's list: the owner may have died between making a namespace and recording it.
        let prefix = format!("{}-", self.name);
        for name in netns::all().iter().filter(|name| name.starts_with(&prefix)) {
            netns::delete(name);
        }
        fs::remove_dir_all(self.directory()).ok();
    }
}

/// Every recorded lab, by name.
pub fn list() -> Vec<Record> {
    let Ok(entries) = fs::read_dir(DIRECTORY) else { return Vec::new() };
    let read = |path: PathBuf| serde_json::from_slice::<Record>(&fs::read(path.join("record.json")).ok()?).ok();
    let mut records: Vec<Record> = entries.flatten().filter_map(|entry| read(entry.path())).collect();
    records.sort_by(|a, b| a.name.cmp(&b.name));
    records
}

/// Removes what dead owners left behind; the names of their labs.
pub fn sweep() -> Vec<String> {
    let dead: Vec<Record> = list().into_iter().filter(|record| !record.is_alive()).collect();
    for record in &dead {
        record.clear();
    }
    dead.into_iter().map(|record| record.name).collect()
}

/// Ends a lab: its owner, and whatever that leaves.
pub fn end(record: &Record) {
    if record.is_alive() && record.owner != std::process::id() {
        let owner = Pid::from_raw(record.owner.cast_signed());
        kill(owner, Signal::SIGTERM).ok();
        if !process::wait_until(Duration::from_secs(10), || !record.is_alive()) {
            kill(owner, Signal::SIGKILL).ok();
            process::wait_until(Duration::from_secs(2), || !record.is_alive());
        }
    }
    record.clear();
}

/// Field 22 of /proc/PID/stat; none for a process that is gone or a zombie.
fn start_time(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name may hold spaces and brackets: count from the last bracket.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next() == Some("Z") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

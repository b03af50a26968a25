//! What is saved: a part of a snapshot, and in which form. Who writes it knows the file system.

use super::snapshot::Snapshot;
use crate::event::Timestamp;
use std::path::PathBuf;

/// In which form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As `kvmtrace report -v` prints it.
    Text,
    /// As `kvmtrace report --json` prints it.
    Json,
    /// Packets for Wireshark, with verdicts as comments.
    Pcapng,
    /// The command of the chosen fix, alone.
    Command,
}

impl Form {
    /// With their keys.
    pub(super) const ALL: [(char, Self, &'static str); 4] = [
        ('t', Self::Text, "text"),
        ('j', Self::Json, "JSON"),
        ('p', Self::Pcapng, "pcapng"),
        ('c', Self::Command, "fix command"),
    ];
}

/// What is saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keep {
    /// In which form.
    pub form: Form,
    /// What it is called: an incident's cause, `flow`, `guest`.
    pub what: String,
    /// Indices in `report.incidents`.
    pub incidents: Vec<usize>,
    /// Indices in `report.flows`.
    pub flows: Vec<usize>,
    /// Indices in `report.findings`.
    pub findings: Vec<usize>,
    /// The command of the chosen fix.
    pub command: Option<String>,
}

impl Keep {
    /// A name for the file, without what follows the dot: `kvmtrace-20261123T152812-bridge-mtu-exceeded`.
    pub fn stem(&self, now: Timestamp) -> String {
        let stamp: String = now.to_string().chars().take(19).filter(char::is_ascii_alphanumeric).collect();
        let fix = if self.form == Form::Command { "-fix" } else { "" };
        format!("kvmtrace-{stamp}-{}{fix}", self.what)
    }
}

/// Writes what the operator wants to keep; the application knows how.
pub trait Saver: Send {
    /// Writes it into a new file; returns its path.
    fn save(&mut self, snapshot: &Snapshot, keep: &Keep) -> anyhow::Result<PathBuf>;
}

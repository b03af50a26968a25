//! The table in which the programs count whose the entries of the maps are ([`kvmtrace_common::share`]): what is removed
//! here gives its share back.

use super::loader::{ProbeError, Programs};
use super::mapped::Mapped;
use kvmtrace_common::config::SHARE_SHIFT;
use kvmtrace_common::flow::KeyWords;
use kvmtrace_common::names;
use kvmtrace_common::share::{Accounts, Share};
use std::sync::atomic::{AtomicU32, Ordering};

const ENTRIES: usize = 1 << SHARE_SHIFT;

/// [`Share::made`] and [`Share::removed`].
type Entry = [AtomicU32; 2];

/// The table.
pub(super) struct Shares {
    table: Mapped<Entry>,
    salt: u64,
}

/// Entries counted one by one, to put the table right.
pub(super) struct Tally {
    counts: Vec<u32>,
    made: [u32; 2],
}

impl Shares {
    pub(super) fn new(programs: &mut Programs) -> Result<Self, ProbeError> {
        let salt = programs.share_salt();
        Ok(Self { table: Mapped::new(programs.take_map(names::SHARES)?, names::SHARES, ENTRIES)?, salt })
    }

    fn share(&self, index: u32) -> Share {
        self.table.entries().get(index as usize).map_or(Share::default(), |[made, removed]| Share {
            made: made.load(Ordering::Relaxed),
            removed: removed.load(Ordering::Relaxed),
        })
    }

    /// Entries that a map ([`kvmtrace_common::share::Shared`]) holds.
    pub(super) fn taken(&self, map: u32) -> u32 {
        self.share(map).taken()
    }

    fn indices(&self, map: u32, words: &KeyWords, input: u32) -> [u32; 4] {
        let Accounts { devices, source, destination } = Accounts::of(map, words, input, self.salt);
        [map, devices, source, destination]
    }

    /// An entry of a map was removed.
    pub(super) fn give_back(&self, map: u32, words: &KeyWords, input: u32) {
        for index in self.indices(map, words, input) {
            if let Some([_, removed]) = self.table.entries().get(index as usize) {
                // No other writer.
                removed.store(removed.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
            }
        }
    }

    /// Begins to count.
    pub(super) fn tally(&self) -> Tally {
        Tally { counts: vec![0; ENTRIES], made: [0, 1].map(|map| self.share(map).made) }
    }

    /// Counts an entry that was found in a map.
    pub(super) fn found(&self, tally: &mut Tally, map: u32, words: &KeyWords, input: u32) {
        for index in self.indices(map, words, input) {
            if let Some(count) = tally.counts.get_mut(index as usize) {
                *count += 1;
            }
        }
    }

    /// All entries were counted: the table is put right, unless the programs have made some meanwhile.
    pub(super) fn settle(&self, tally: &Tally) {
        if tally.made != [0, 1].map(|map| self.share(map).made) {
            return;
        }
        for ([made, removed], count) in self.table.entries().iter().zip(&tally.counts) {
            removed.store(made.load(Ordering::Relaxed).wrapping_sub(*count), Ordering::Relaxed);
        }
    }
}

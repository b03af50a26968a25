//! The kernel's drops alone, each with its packet: for tests that send packets one by one and ask where each of them died.

use super::loader::{ProbeError, Programs, Settings};
use super::shares::Shares;
use super::syscall::Table;
use crate::event::{Event, decode};
use crate::kernel::{Kernel, KernelError};
use aya::maps::{MapData, RingBuf};
use kvmtrace_common::flow::{DropCounters, DropKey};
use kvmtrace_common::names;
use kvmtrace_common::share::Shared;

/// `kfree_skb` in the network namespace of the thread that opened it, until this value is dropped.
pub struct Drops {
    kernel: Kernel,
    ring: RingBuf<MapData>,
    counted: Table<DropKey, DropCounters>,
    shares: Shares,
    _programs: Programs,
}

/// The drops can't be followed.
#[derive(Debug, thiserror::Error)]
pub enum DropsError {
    /// The kernel's facts can't be read.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The programs can't be had.
    #[error(transparent)]
    Probe(#[from] ProbeError),
}

impl std::fmt::Debug for Drops {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Drops").field("kernel", &self.kernel.version).finish_non_exhaustive()
    }
}

impl Drops {
    /// Loads the programs; each drop from now on is reported.
    pub fn open() -> Result<Self, DropsError> {
        let kernel = Kernel::read()?;
        let mut programs = Programs::load(&kernel, Settings { filter: None, every_packet: false, every_drop: false })?;
        let ring = RingBuf::try_from(programs.take_map(names::EVENTS)?).map_err(ProbeError::load)?;
        let counted = Table::new(programs.take_map(names::DROPS)?, names::DROPS)?;
        let shares = Shares::new(&mut programs)?;
        programs.open_below(u32::MAX)?;
        Ok(Self { kernel, ring, counted, shares, _programs: programs })
    }

    /// The drops since the last call, in the order in which each CPU reported them.
    pub fn take(&mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(record) = self.ring.next() {
            events.extend(decode::record(&record, &self.kernel));
        }
        // The programs report the first, second, fourth, … packet that a site takes from a flow. Without its count each packet
        // is a first one.
        let mut known = Vec::new();
        if let Err(error) = self.counted.for_each(|key, _| known.push(*key)) {
            tracing::debug!(%error, "reading the drops' counters");
        }
        for key in known {
            if let Some(counters) = self.counted.remove(&key) {
                self.shares.give_back(Shared::DROPS, &key.flow.words(), counters.input_ifindex);
            }
        }
        events
    }
}

//! The hot table: the flows that each CPU saw first, in memory that the programs and this process share. So a look at all
//! of it takes no system call.

use super::loader::{ProbeError, Programs};
use aya::maps::{Map, MapData};
use kvmtrace_common::config::HOT_SHIFT;
use kvmtrace_common::flow::{FlowCounters, FlowKey, HotFlow, KeyWords};
use kvmtrace_common::names;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::num::NonZeroUsize;
use std::os::fd::AsFd as _;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = size_of::<HotFlow>() / size_of::<u64>();
const KEY_WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();
/// [`FlowCounters::packets`] is the first of the counters.
const PACKETS: usize = KEY_WORDS;
/// Entries of each CPU.
pub(super) const PER_CPU: usize = 1 << HOT_SHIFT;

/// An entry as it lies there. All is read and written in whole words, each at once, as the programs do.
type Entry = [AtomicU64; WORDS];

/// The shared memory.
pub(super) struct Hot {
    /// Keeps the map alive.
    _map: MapData,
    start: NonNull<c_void>,
    entries: usize,
}

// SAFETY: the memory belongs to this value alone and is reached through atomic words only.
unsafe impl Send for Hot {}
// SAFETY: as above.
unsafe impl Sync for Hot {}

impl Hot {
    pub(super) fn new(programs: &mut Programs) -> Result<Self, ProbeError> {
        let Map::Array(map) = programs.take_map(names::HOT)? else { return Err(ProbeError::Absent(names::HOT)) };
        let entries = programs.hot_entries() as usize;
        let length = NonZeroUsize::new(entries * size_of::<Entry>()).ok_or(ProbeError::Absent(names::HOT))?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice; the map was created with so many entries.
        let start = unsafe { mmap(None, length, access, MapFlags::MAP_SHARED, map.fd().as_fd(), 0) }
            .map_err(ProbeError::load)?;
        Ok(Self { _map: map, start, entries })
    }

    fn entries(&self) -> &[Entry] {
        // SAFETY: the mapping holds so many entries (the map's value is 128 bytes without padding, and begins at a page),
        // lives as long as this value, and any bytes are valid atomic words.
        unsafe { std::slice::from_raw_parts(self.start.cast().as_ptr(), self.entries) }
    }

    /// The entries that are taken: index, flow, counters.
    pub(super) fn taken(&self) -> impl Iterator<Item = (usize, FlowKey, FlowCounters)> + '_ {
        self.entries().iter().enumerate().filter_map(|(index, entry)| {
            let HotFlow { key, counters } = read(entry)?;
            Some((index, key, counters))
        })
    }

    /// Frees an entry. A packet that is counted at this very moment is lost, which is why only flows that have rested for
    /// long are taken out.
    pub(super) fn free(&self, index: usize) {
        if let Some(entry) = self.entries().get(index) {
            // The key first: while it changes, no packet is taken for the flow's; as long as there are packets, no program
            // takes the entry for free.
            for word in entry.iter().take(KEY_WORDS) {
                word.store(0, Ordering::Release);
            }
            if let Some(packets) = entry.get(PACKETS) {
                packets.store(0, Ordering::Release);
            }
        }
    }
}

impl Drop for Hot {
    fn drop(&mut self) {
        // SAFETY: mapped in new() with this length, and no reference outlives this value.
        if let Err(error) = unsafe { munmap(self.start, self.entries * size_of::<Entry>()) } {
            tracing::debug!(%error, "munmap");
        }
    }
}

/// One entry, unless it is free or just being taken.
fn read(entry: &Entry) -> Option<HotFlow> {
    let load = |index: usize| entry.get(index).map_or(0, |word| word.load(Ordering::Acquire));
    if load(PACKETS) == 0 {
        return None;
    }
    let key: KeyWords = std::array::from_fn(load);
    let words: [u64; WORDS] = std::array::from_fn(load);
    let flow: HotFlow = zerocopy::transmute!(words);
    // No device has the index 0: such an entry was freed while a packet was counted in it.
    (flow.key.words() == key && flow.key.ifindex != 0).then_some(flow)
}

#[cfg(test)]
mod tests {
    use super::{Entry, KEY_WORDS, PACKETS, read};
    use std::sync::atomic::{AtomicU64, Ordering};

    fn entry(ifindex: u64, packets: u64) -> Entry {
        let entry = [const { AtomicU64::new(0) }; super::WORDS];
        entry[KEY_WORDS - 1].store(ifindex, Ordering::Relaxed);
        entry[PACKETS].store(packets, Ordering::Relaxed);
        entry
    }

    #[test]
    fn an_entry_counts_once_it_has_a_device_and_packets() {
        assert_eq!(read(&entry(7, 0)), None, "free, or being taken");
        assert_eq!(read(&entry(0, 1)), None, "freed while a packet was counted");
        let flow = read(&entry(7, 3)).map(|flow| (flow.key.ifindex, flow.counters.packets));
        assert_eq!(flow, Some((7, 3)));
    }
}

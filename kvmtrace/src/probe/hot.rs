//! The hot table: the flows that each CPU saw first, in memory that the programs and this process share.

use super::loader::{ProbeError, Programs};
use super::mapped::Mapped;
use kvmtrace_common::config::HOT_SHIFT;
use kvmtrace_common::flow::{FlowCounters, FlowKey, HotFlow, KeyWords};
use kvmtrace_common::names;
use std::sync::atomic::{AtomicU64, Ordering};

const WORDS: usize = size_of::<HotFlow>() / size_of::<u64>();
const KEY_WORDS: usize = size_of::<FlowKey>() / size_of::<u64>();
/// [`FlowCounters::packets`] is the first of the counters.
const PACKETS: usize = KEY_WORDS;
/// Entries of each CPU.
pub(super) const PER_CPU: usize = 1 << HOT_SHIFT;

/// An entry as it lies there. All is read and written in whole words, each at once, as the programs do.
type Entry = [AtomicU64; WORDS];

/// The table.
pub(super) struct Hot(Mapped<Entry>);

impl Hot {
    pub(super) fn new(programs: &mut Programs) -> Result<Self, ProbeError> {
        let entries = programs.hot_entries() as usize;
        Ok(Self(Mapped::new(programs.take_map(names::HOT)?, names::HOT, entries)?))
    }

    /// The entries that are taken: index, flow, counters.
    pub(super) fn taken(&self) -> impl Iterator<Item = (u32, FlowKey, FlowCounters)> + '_ {
        (0_u32..).zip(self.0.entries()).filter_map(|(index, entry)| {
            let HotFlow { key, counters } = read(entry)?;
            Some((index, key, counters))
        })
    }

    /// Frees an entry. A packet that is counted at this very moment is lost, which is why only flows that have rested for
    /// long are taken out.
    pub(super) fn free(&self, index: u32) {
        if let Some(entry) = self.0.entries().get(index as usize) {
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

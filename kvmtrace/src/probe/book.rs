//! What was counted of something (a flow at a place, a drop site) in all entries that count it: those of each CPU that are
//! in the kernel's tables, and those that have been taken out of them.

use kvmtrace_common::event::OverflowCounters;
use kvmtrace_common::flow::{DropCounters, FlowCounters, FlowFlags};
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

/// Counters that can be added up.
pub(super) trait Sum: Copy + PartialEq + Default {
    /// Adds what another CPU, or an earlier entry, counted.
    fn add(&mut self, other: &Self);
    /// How many packets these are.
    fn packets(&self) -> u64;
}

/// One of the entries that count something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// In the map, of this CPU.
    Map(u16),
    /// In the hot table, at this index.
    Hot(u32),
}

struct Entry<C> {
    part: Part,
    counters: C,
    /// For how many looks nothing has changed.
    rested: u32,
}

struct Counted<C> {
    entries: Vec<Entry<C>>,
    /// What was counted in entries that have been taken out.
    retired: Option<Box<C>>,
}

/// All of one kind, by key.
pub(super) struct Book<K, C> {
    counted: HashMap<K, Counted<C>>,
    /// Those that grew since the last call of [`Book::changes`].
    changed: Vec<K>,
}

impl<K: Copy + Eq + Hash + Ord, C: Sum> Book<K, C> {
    pub(super) fn new() -> Self {
        Self { counted: HashMap::new(), changed: Vec::new() }
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.counted.len()
    }

    /// An entry was seen in the kernel; returns for how many looks it has rested.
    pub(super) fn see(&mut self, key: K, part: Part, counters: &C) -> u32 {
        let counted = self.counted.entry(key).or_insert_with(|| Counted { entries: Vec::new(), retired: None });
        if let Some(entry) = counted.entries.iter_mut().find(|entry| entry.part == part) {
            if entry.counters == *counters {
                entry.rested = entry.rested.saturating_add(1);
                return entry.rested;
            }
            (entry.counters, entry.rested) = (*counters, 0);
        } else {
            counted.entries.push(Entry { part, counters: *counters, rested: 0 });
        }
        self.changed.push(key);
        0
    }

    /// An entry was taken out of the kernel's table, with these counters at its end.
    pub(super) fn retire(&mut self, key: K, part: Part, last: &C) {
        let Some(counted) = self.counted.get_mut(&key) else { return };
        if let Some(position) = counted.entries.iter().position(|entry| entry.part == part)
            && counted.entries.swap_remove(position).counters != *last
        {
            self.changed.push(key);
        }
        counted.retired.get_or_insert_with(Box::default).add(last);
    }

    /// What was counted in entries that have been taken out.
    pub(super) fn retired(&self, key: &K) -> Option<&C> {
        self.counted.get(key)?.retired.as_deref()
    }

    /// What has grown since the last call, ordered by key, each with all that was ever counted.
    pub(super) fn changes(&mut self) -> Vec<(K, C)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        changed.into_iter().filter_map(|key| Some((key, self.total(&key)?))).collect()
    }

    fn total(&self, key: &K) -> Option<C> {
        let counted = self.counted.get(key)?;
        let mut total = counted.retired.as_deref().copied().unwrap_or_default();
        for entry in &counted.entries {
            total.add(&entry.counters);
        }
        Some(total)
    }

    /// Forgets what has no entry in the kernel any more until only so many are left, the smallest first, of the owners that
    /// have most; gives how many were forgotten.
    pub(super) fn forget_beyond<O: Ord>(&mut self, kept: usize, owner: impl Fn(&K) -> O) -> u64 {
        if self.counted.len() <= kept {
            return 0;
        }
        let mut owned: BTreeMap<O, Vec<(u64, K)>> = BTreeMap::new();
        let mut present = 0;
        for (key, counted) in &self.counted {
            match &counted.retired {
                Some(retired) if counted.entries.is_empty() => {
                    owned.entry(owner(key)).or_default().push((retired.packets(), *key));
                }
                _ => present += 1,
            }
        }
        // A sixteenth more than needed, so that the search is rare.
        let room = kept.saturating_sub(kept / 16).saturating_sub(present);
        let share = crate::event::bounds::fair_share(owned.values().map(Vec::len), room);
        let mut forgotten = 0;
        for (_, mut keys) in owned {
            keys.sort_unstable();
            let excess = keys.len().saturating_sub(share);
            for (_, key) in keys.into_iter().take(excess) {
                self.counted.remove(&key);
                forgotten += 1;
            }
        }
        forgotten
    }
}

impl Sum for FlowCounters {
    fn add(&mut self, other: &Self) {
        if other.packets == 0 {
            return;
        }
        if self.packets == 0 {
            *self = *other;
            return;
        }
        if other.source_mac != self.source_mac {
            self.flags |= FlowFlags::SOURCE_MAC_CHANGED;
        }
        if other.first_ns < self.first_ns {
            self.first_ns = other.first_ns;
            self.source_mac = other.source_mac;
            self.destination_mac = other.destination_mac;
            self.time_to_live = other.time_to_live;
        }
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.fragments = self.fragments.saturating_add(other.fragments);
        self.fragmented = self.fragmented.saturating_add(other.fragmented);
        self.gso = self.gso.saturating_add(other.gso);
        self.largest = self.largest.max(other.largest);
        self.tcp_syn = self.tcp_syn.saturating_add(other.tcp_syn);
        self.tcp_syn_ack = self.tcp_syn_ack.saturating_add(other.tcp_syn_ack);
        self.tcp_reset = self.tcp_reset.saturating_add(other.tcp_reset);
        self.tcp_fin = self.tcp_fin.saturating_add(other.tcp_fin);
        self.repeated = self.repeated.saturating_add(other.repeated);
        self.repeated_bytes = self.repeated_bytes.saturating_add(other.repeated_bytes);
        self.missing_bytes = self.missing_bytes.saturating_add(other.missing_bytes);
        self.flags |= other.flags;
    }

    fn packets(&self) -> u64 {
        self.packets
    }
}

impl Sum for DropCounters {
    fn add(&mut self, other: &Self) {
        if self.packets == 0 {
            *self = *other;
            return;
        }
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
        self.first_ns = self.first_ns.min(other.first_ns);
        self.largest = self.largest.max(other.largest);
    }

    fn packets(&self) -> u64 {
        self.packets
    }
}

impl Sum for OverflowCounters {
    fn add(&mut self, other: &Self) {
        self.packets = self.packets.saturating_add(other.packets);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }

    fn packets(&self) -> u64 {
        self.packets
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(packets: u64) -> OverflowCounters {
        OverflowCounters { packets, bytes: packets * 100 }
    }

    #[test]
    fn what_was_taken_out_still_counts_when_it_comes_back() {
        let mut book = Book::new();
        assert_eq!(book.see(7_u64, Part::Map(0), &packets(3)), 0);
        assert_eq!(book.see(7, Part::Map(1), &packets(2)), 0);
        assert_eq!(book.changes(), [(7, packets(5))]);
        assert_eq!(book.see(7, Part::Map(0), &packets(3)), 1);
        assert_eq!(book.changes(), []);
        // A last packet was counted between the look and the removal.
        book.retire(7, Part::Map(0), &packets(4));
        assert_eq!(book.changes(), [(7, packets(6))]);
        assert_eq!(book.retired(&7), Some(&packets(4)));
        book.see(7, Part::Map(0), &packets(1));
        assert_eq!(book.changes(), [(7, packets(7))]);
    }

    #[test]
    fn the_owner_of_most_loses_its_smallest_first() {
        let mut book = Book::new();
        let owner = |key: &u64| key / 1_000;
        for key in (0..900).chain(1_000..1_010) {
            book.see(key, Part::Map(0), &packets(key % 1_000 + 1));
            book.retire(key, Part::Map(0), &packets(key % 1_000 + 1));
        }
        // Of the first owner as well, but still in the kernel.
        book.see(950, Part::Map(0), &packets(1));
        assert!(book.forget_beyond(160, owner) >= 750);
        assert!(book.len() <= 160);
        assert!((1_000..1_010).all(|key| book.retired(&key).is_some()), "the small owner keeps all");
        assert!(book.retired(&899).is_some() && book.retired(&0).is_none());
        assert!(book.total(&950).is_some());
    }
}

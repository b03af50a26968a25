//! A map in which each device has its share: one guest's flood leaves room for what the others have to say.

use crate::event::IfIndex;
use std::collections::BTreeMap;

/// Entries of one device.
const EACH: usize = 1_000;

/// Entries by device.
#[derive(Clone, Debug)]
pub(super) struct Shares<K, V>(BTreeMap<Option<IfIndex>, BTreeMap<K, V>>);

impl<K, V> Default for Shares<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord, V> Shares<K, V> {
    /// The entry of a key; `None` where the device has no room for another.
    pub(super) fn entry(&mut self, device: Option<IfIndex>, key: K, new: impl FnOnce() -> V) -> Option<&mut V> {
        let own = self.0.entry(device).or_default();
        if own.len() >= EACH && !own.contains_key(&key) {
            return None;
        }
        Some(own.entry(key).or_insert_with(new))
    }

    /// Takes the first entries of each device, about `count` in all and at least one of each.
    pub(super) fn take(&mut self, count: usize) -> Vec<(K, V)> {
        let each = (count / self.0.len().max(1)).max(1);
        let mut taken = Vec::new();
        self.0.retain(|_, own| {
            taken.extend(std::iter::from_fn(|| own.pop_first()).take(each));
            !own.is_empty()
        });
        taken
    }

    /// All entries, by device.
    pub(super) fn into_all(self) -> impl Iterator<Item = Vec<V>> {
        self.0.into_values().map(|own| own.into_values().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_with_many_entries_leaves_room_for_the_others() {
        let mut shares = Shares::default();
        for number in 0..5_000 {
            shares.entry(Some(IfIndex(1)), number, || number);
        }
        assert!(shares.entry(Some(IfIndex(2)), 9_999, || 9_999).is_some());
        let first = shares.take(100);
        assert_eq!((first.len(), first.last()), (51, Some(&(9_999, 9_999))));
        assert_eq!(shares.take(usize::MAX).len(), EACH - 50);
        assert!(shares.take(1).is_empty());
    }
}

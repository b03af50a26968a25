//! A map with bounded memory.

use std::collections::HashMap;
use std::hash::Hash;

/// A map that forgets the entries that were not written for longest: two generations, the older of which gives way.
#[derive(Clone, Debug)]
pub struct Remembered<K, V> {
    limit: usize,
    young: HashMap<K, V>,
    old: HashMap<K, V>,
}

impl<K: Eq + Hash, V> Remembered<K, V> {
    /// An empty map of at most `limit` entries; it keeps at least the newest half of them.
    pub fn new(limit: usize) -> Self {
        Self { limit, young: HashMap::new(), old: HashMap::new() }
    }

    /// Writes an entry; returns the value that it had.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        if self.young.len() >= self.limit / 2 && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        let older = self.old.remove(&key);
        self.young.insert(key, value).or(older)
    }

    /// The value of an entry.
    pub fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    /// All entries, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.young.iter().chain(self.old.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_keys_does_not_grow_it_and_an_entry_that_is_written_again_stays() {
        const LIMIT: usize = 1_000;
        let mut remembered = Remembered::new(LIMIT);
        for number in 0..3 * LIMIT {
            remembered.insert(number, number);
            let before = remembered.insert(usize::MAX, number);
            assert_eq!(before, number.checked_sub(1));
        }
        assert!(remembered.young.len() + remembered.old.len() <= LIMIT);
        assert_eq!(remembered.get(&usize::MAX), Some(&(3 * LIMIT - 1)));
        assert_eq!(remembered.get(&0), None);
    }
}

//! A map in the order of its keys.
//!
//! The tree knows keys and places, and the values lie beside it: so the tree, half of what the compiler had to translate when each kind
//! of value had one of its own, is translated once.
//!
//! M1. Each key of the tree has the place of its value; each value lies beside its key; there are no other places. M2. The room that
//! it keeps is proportional to what it holds, but for [`KEPT`] places.

use std::collections::BTreeMap;
use std::collections::btree_map::{Entry, Range};
use std::marker::PhantomData;
use std::ops::RangeBounds;

/// What a key is to the tree.
pub(crate) type Rank = (u64, u64);

/// What can be a key: its rank tells it, and has its order.
pub(crate) trait Key: Copy {
    fn rank(self) -> Rank;
    fn of(rank: Rank) -> Self;
}

impl Key for u64 {
    fn rank(self) -> Rank {
        (0, self)
    }

    fn of(rank: Rank) -> Self {
        rank.1
    }
}

impl Key for (u64, u64) {
    fn rank(self) -> Rank {
        self
    }

    fn of(rank: Rank) -> Self {
        rank
    }
}

/// So many places are kept when nobody is there.
const KEPT: usize = 64;

/// The keys, and the place of each. Not generic: whoever has a map translates none of it.
struct Places(BTreeMap<Rank, usize>);

impl Places {
    fn get(&self, rank: Rank) -> Option<usize> {
        self.0.get(&rank).copied()
    }

    /// Returns the place of a key, or gives it a new one and returns nothing.
    fn get_or_insert(&mut self, rank: Rank, place: usize) -> Option<usize> {
        match self.0.entry(rank) {
            Entry::Occupied(entry) => Some(*entry.get()),
            Entry::Vacant(entry) => {
                entry.insert(place);
                None
            }
        }
    }

    fn set(&mut self, rank: Rank, place: usize) {
        self.0.insert(rank, place);
    }

    fn remove(&mut self, rank: Rank) -> Option<usize> {
        self.0.remove(&rank)
    }

    fn first(&self) -> Option<Rank> {
        self.0.first_key_value().map(|(rank, _)| *rank)
    }

    fn range<K: Key>(&self, keys: impl RangeBounds<K>) -> Range<'_, Rank, usize> {
        let start = keys.start_bound().map(|key| key.rank());
        let end = keys.end_bound().map(|key| key.rank());
        self.0.range((start, end))
    }
}

pub(crate) struct SortedMap<K, V> {
    places: Places,
    values: Vec<(Rank, V)>,
    key: PhantomData<fn(K) -> K>,
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> SortedMap<K, V> {
    pub(crate) const fn new() -> Self {
        Self {
            places: Places(BTreeMap::new()),
            values: Vec::new(),
            key: PhantomData,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.values.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// Returns the values in no order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.iter().map(|(_, value)| value)
    }
}

impl<K: Key, V> SortedMap<K, V> {
    pub(crate) fn contains_key(&self, key: K) -> bool {
        self.places.get(key.rank()).is_some()
    }

    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let place = self.places.get(key.rank())?;
        Some(&self.values[place].1)
    }

    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let place = self.places.get(key.rank())?;
        Some(&mut self.values[place].1)
    }

    pub(crate) fn get_or_default(&mut self, key: K) -> &mut V
    where
        V: Default,
    {
        let place = self.places.get(key.rank()).unwrap_or_else(|| {
            self.insert(key, V::default());
            self.values.len() - 1
        });
        &mut self.values[place].1
    }

    /// Puts a value there, and returns the one that it takes the place of.
    pub(crate) fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.places.get_or_insert(key.rank(), self.values.len()) {
            Some(place) => Some(std::mem::replace(&mut self.values[place].1, value)),
            None => {
                self.values.push((key.rank(), value));
                None
            }
        }
    }

    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let place = self.places.remove(key.rank())?;
        let (_, value) = self.values.swap_remove(place);
        if let Some((moved, _)) = self.values.get(place) {
            self.places.set(*moved, place);
        }
        if self.values.len() < self.values.capacity() / 4 {
            self.values.shrink_to(KEPT.max(self.values.len() * 2)); // M2
        }
        Some(value)
    }

    pub(crate) fn first_key(&self) -> Option<K> {
        self.places.first().map(K::of)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        self.range(..)
    }

    /// Returns what lies between two keys, in order.
    pub(crate) fn range(&self, keys: impl RangeBounds<K>) -> impl Iterator<Item = (K, &V)> {
        let places = self.places.range(keys);
        places.map(|(rank, place)| (K::of(*rank), &self.values[*place].1))
    }

    /// Has what lies between two keys changed, in order.
    pub(crate) fn for_each_mut(
        &mut self,
        keys: impl RangeBounds<K>,
        mut change: impl FnMut(K, &mut V),
    ) {
        for (rank, place) in self.places.range(keys) {
            change(K::of(*rank), &mut self.values[*place].1);
        }
    }

    /// Takes out what lies between two keys and is wanted, in order.
    pub(crate) fn extract(
        &mut self,
        keys: impl RangeBounds<K>,
        mut is_wanted: impl FnMut(&V) -> bool,
    ) -> Vec<V> {
        let wanted = self.range(keys).filter(|(_, value)| is_wanted(value));
        let wanted: Vec<_> = wanted.map(|(key, _)| key).collect();
        wanted
            .into_iter()
            .filter_map(|key| self.remove(key))
            .collect()
    }

    /// Takes all of them out, in order.
    pub(crate) fn into_values(self) -> impl Iterator<Item = V> {
        let values = self.values.into_iter().map(|(_, value)| Some(value));
        let mut values: Vec<_> = values.collect();
        let places = self.places.0.into_values();
        places.filter_map(move |place| values[place].take())
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Op {
        Insert(u64),
        Remove(u64),
        Change(u64, u64),
        Extract(u64, u64),
        Default(u64),
    }

    fn ops() -> impl Strategy<Value = Vec<Op>> {
        let key = 0..40_u64;
        let op = prop_oneof![
            4 => key.clone().prop_map(Op::Insert),
            3 => key.clone().prop_map(Op::Remove),
            1 => (key.clone(), 0..20_u64).prop_map(|(from, n)| Op::Change(from, n)),
            1 => (key.clone(), 0..20_u64).prop_map(|(from, n)| Op::Extract(from, n)),
            1 => key.prop_map(Op::Default),
        ];
        proptest::collection::vec(op, 0..200)
    }

    proptest! {
        #[test]
        fn it_is_the_map_of_the_standard_library(ops in ops()) {
            let (mut sorted, mut map) = (SortedMap::<u64, usize>::new(), BTreeMap::new());
            for (at, op) in ops.into_iter().enumerate() {
                match op {
                    Op::Insert(key) => prop_assert_eq!(sorted.insert(key, at), map.insert(key, at)),
                    Op::Remove(key) => prop_assert_eq!(sorted.remove(key), map.remove(&key)),
                    Op::Change(from, n) => {
                        let mut seen = Vec::new();
                        sorted.for_each_mut(from..from + n, |key, value| {
                            *value += 1;
                            seen.push(key);
                        });
                        let changed = map.range_mut(from..from + n);
                        let expected: Vec<_> = changed.map(|(key, value)| { *value += 1; *key }).collect();
                        prop_assert_eq!(seen, expected);
                    }
                    Op::Extract(from, n) => {
                        let taken = sorted.extract(from..=from + n, |value| value % 2 == 0);
                        let wanted = map.range(from..=from + n).filter(|(_, value)| **value % 2 == 0);
                        let wanted: Vec<_> = wanted.map(|(key, _)| *key).collect();
                        let expected: Vec<_> = wanted.iter().filter_map(|key| map.remove(key)).collect();
                        prop_assert_eq!(taken, expected);
                    }
                    Op::Default(key) => {
                        *sorted.get_or_default(key) += 1;
                        *map.entry(key).or_default() += 1;
                    }
                }
                prop_assert_eq!(sorted.len(), map.len());
                prop_assert_eq!(sorted.is_empty(), map.is_empty());
                prop_assert_eq!(sorted.first_key(), map.keys().next().copied());
                for key in 0..60 {
                    prop_assert_eq!(sorted.contains_key(key), map.contains_key(&key));
                    prop_assert_eq!(sorted.get(key), map.get(&key));
                    prop_assert_eq!(sorted.get_mut(key), map.get_mut(&key));
                }
                let pairs: Vec<_> = sorted.iter().map(|(key, value)| (key, *value)).collect();
                let expected: Vec<_> = map.iter().map(|(key, value)| (*key, *value)).collect();
                prop_assert_eq!(pairs, expected);
                prop_assert_eq!(sorted.values().sum::<usize>(), map.values().sum::<usize>());
            }
            let expected: Vec<_> = map.into_values().collect();
            prop_assert_eq!(sorted.into_values().collect::<Vec<_>>(), expected);
        }
    }

    /// M2.
    #[test]
    fn what_was_full_once_gives_its_room_back() {
        let mut sorted = SortedMap::<u64, [u8; 64]>::new();
        for key in 0..100_000 {
            sorted.insert(key, [0; 64]);
        }
        for key in 0..100_000 {
            let before = sorted.values.capacity();
            sorted.remove(key);
            let (len, room) = (sorted.len(), sorted.values.capacity());
            let expected = if len < before / 4 {
                (2 * len).max(KEPT)
            } else {
                before
            };
            assert_eq!(room, expected.min(before), "{len} are left");
        }
    }
}

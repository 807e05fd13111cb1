//! One item of a key at a time, in the order of the input.
//!
//! E1. A key is known while an item of it runs, and no longer. E2. An item whose key is busy is parked behind it; when the one
//! before ends, it is ready, and the key stays busy. E3. At most `bound` are parked: then nothing more is taken from the
//! input.

use std::collections::{HashMap, VecDeque};

#[derive(Debug)]
pub(crate) struct Lanes<T> {
    bound: usize,
    parked: usize,
    busy: HashMap<u64, VecDeque<T>>,
    ready: VecDeque<T>,
}

impl<T> Lanes<T> {
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            bound,
            parked: 0,
            busy: HashMap::new(),
            ready: VecDeque::new(),
        }
    }

    /// Gives the item back if it may run now, or parks it.
    pub(crate) fn admit(&mut self, key: u64, item: T) -> Option<T> {
        match self.busy.get_mut(&key) {
            Some(lane) => {
                lane.push_back(item);
                self.parked += 1;
                None
            }
            None => {
                self.busy.insert(key, VecDeque::new());
                Some(item)
            }
        }
    }

    /// Notes that the running item of this key has ended.
    pub(crate) fn done(&mut self, key: u64) {
        let Some(lane) = self.busy.get_mut(&key) else {
            return;
        };
        match lane.pop_front() {
            Some(next) => {
                self.parked -= 1;
                self.ready.push_back(next);
            }
            None => {
                self.busy.remove(&key);
            }
        }
    }

    /// Takes an item that was parked and may run now.
    pub(crate) fn next(&mut self) -> Option<T> {
        self.ready.pop_front()
    }

    /// Asks whether items wait for their key.
    pub(crate) fn has_parked(&self) -> bool {
        self.parked > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.parked == 0 && self.ready.is_empty()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.parked >= self.bound
    }
}

impl<T> Default for Lanes<T> {
    fn default() -> Self {
        Self::new(0)
    }
}

/// All items that wait.
impl<T> IntoIterator for Lanes<T> {
    type Item = T;
    type IntoIter = std::vec::IntoIter<T>;

    fn into_iter(self) -> Self::IntoIter {
        let parked = self.busy.into_values().flatten();
        self.ready
            .into_iter()
            .chain(parked)
            .collect::<Vec<_>>()
            .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_busy_until_its_last_item_has_ended() {
        let mut lanes = Lanes::new(2);
        assert_eq!(lanes.admit(1, "a"), Some("a"));
        assert_eq!(lanes.admit(2, "b"), Some("b"));
        assert_eq!(lanes.admit(1, "c"), None);
        assert_eq!(lanes.admit(1, "d"), None);
        assert!(lanes.is_full() && lanes.ready.is_empty());
        lanes.done(2);
        assert!(lanes.next().is_none());
        lanes.done(1);
        assert!(!lanes.is_full());
        assert_eq!(lanes.next(), Some("c"));
        lanes.done(1);
        assert_eq!(lanes.next(), Some("d"));
        lanes.done(1);
        assert!(lanes.busy.is_empty());
    }
}

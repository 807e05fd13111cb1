//! Where parked members live: a table whose places are given again.
//!
//! B1. A key leads to the member that it was made for, or nowhere: no two keys are the same (until 2^32 members have passed
//! through one scope; then a late wake may cost another member a poll). B2. All steps take constant time, and a table
//! that becomes empty gives its memory back.

use crate::group::borrow::ready::{KEPT, Key};

enum Place<M> {
    Free { next: u32 },
    Held { round: u32, member: M },
}

pub(super) struct Table<M> {
    places: Vec<Place<M>>,
    /// The place to be given next; the number of places if none is free.
    free: u32,
    round: u32,
    live: usize,
}

impl<M> Table<M> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            free: 0,
            round: 0,
            live: 0,
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    /// Makes the key under which the next member is held.
    pub(super) fn next_key(&mut self) -> Key {
        self.round = self.round.wrapping_add(1);
        Key {
            place: self.free,
            round: self.round,
        }
    }

    /// Holds a member under the key that was made last.
    pub(super) fn insert(&mut self, key: Key, member: M) {
        let held = Place::Held {
            round: key.round,
            member,
        };
        match self.places.get_mut(key.place as usize) {
            Some(place) => {
                if let Place::Free { next } = *place {
                    self.free = next;
                }
                *place = held;
            }
            None => {
                self.places.push(held);
                self.free = self.places.len() as u32;
            }
        }
        self.live += 1;
    }

    pub(super) fn get(&mut self, key: Key) -> Option<&mut M> {
        match self.places.get_mut(key.place as usize)? {
            Place::Held { round, member } if *round == key.round => Some(member),
            Place::Held { .. } | Place::Free { .. } => None,
        }
    }

    /// Takes a member out that was there a moment ago.
    pub(super) fn remove(&mut self, key: Key) -> Option<M> {
        self.get(key)?;
        let place = self.places.get_mut(key.place as usize)?;
        let old = std::mem::replace(place, Place::Free { next: self.free });
        self.free = key.place;
        self.live -= 1;
        if self.live == 0 && self.places.len() > KEPT {
            self.places = Vec::new();
            self.free = 0;
        }
        match old {
            Place::Held { member, .. } => Some(member),
            Place::Free { .. } => None,
        }
    }

    /// Lists all keys.
    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        let places = self.places.iter().enumerate();
        places.filter_map(|(place, held)| match *held {
            Place::Held { round, .. } => Some(Key {
                place: place as u32,
                round,
            }),
            Place::Free { .. } => None,
        })
    }

    /// Takes all members out.
    pub(super) fn drain(&mut self) -> impl Iterator<Item = M> + use<M> {
        let places = std::mem::take(&mut self.places);
        (self.free, self.live) = (0, 0);
        places.into_iter().filter_map(|place| match place {
            Place::Held { member, .. } => Some(member),
            Place::Free { .. } => None,
        })
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use super::Table;
    use crate::group::borrow::ready::KEPT;

    fn put<M>(table: &mut Table<M>, member: M) -> super::Key {
        let key = table.next_key();
        table.insert(key, member);
        key
    }

    #[test]
    fn a_key_leads_to_its_member_or_nowhere() {
        let mut table = Table::new();
        let a = put(&mut table, 'a');
        let b = put(&mut table, 'b');
        assert_eq!(table.remove(a), Some('a'));
        let c = put(&mut table, 'c');
        assert_eq!((a.place, table.get(a)), (c.place, None), "given again");
        assert_eq!(table.remove(a), None);
        assert_eq!(table.get(b), Some(&mut 'b'));
        assert_eq!((table.keys().count(), table.live()), (2, 2));
        assert_eq!(table.drain().collect::<String>(), "cb");
        assert_eq!(table.get(b), None);
        assert_eq!(table.get(c), None);
    }

    #[test]
    fn places_are_given_again_in_any_order() {
        let mut table = Table::new();
        let mut keys: Vec<_> = (0..100).map(|n| (n, put(&mut table, n))).collect();
        for step in [7, 3, 1] {
            let (out, kept): (Vec<_>, Vec<_>) = keys.into_iter().partition(|(n, _)| n % step == 0);
            for (n, key) in &out {
                assert_eq!(table.remove(*key), Some(*n));
            }
            keys = kept;
            keys.extend(out.into_iter().map(|(n, _)| (n, put(&mut table, n))));
        }
        assert_eq!((table.places.len(), keys.len()), (100, 100));
        for (n, key) in keys {
            assert_eq!(table.get(key), Some(&mut { n }));
        }
    }

    #[test]
    fn an_empty_table_keeps_no_memory_of_a_crowd() {
        let mut table = Table::new();
        let keys: Vec<_> = (0..=KEPT).map(|n| put(&mut table, n)).collect();
        for key in keys {
            table.remove(key);
        }
        assert_eq!(table.places.capacity(), 0);
        let key = put(&mut table, 5);
        assert_eq!(table.get(key), Some(&mut 5));

        let mut table = Table::new();
        let keys: Vec<_> = (0..KEPT).map(|n| put(&mut table, n)).collect();
        for key in keys {
            table.remove(key);
        }
        assert_eq!(table.places.len(), KEPT, "so much is no crowd");
    }
}

//! Where the items are: a ring where order and count are all that matters, a sorted map where there is more to know.

use std::collections::{BTreeMap, VecDeque};

/// The place of an item in the order of a queue: lowest first. Rank first, then the order of sending (reversed for LIFO).
pub(crate) type Place = (i64, i64);

/// What is known of an item beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tag {
    pub(crate) place: Place,
    pub(crate) weight: usize,
    /// How often it was delivered and came back.
    pub(crate) returns: u32,
}

impl Tag {
    pub(crate) const PLAIN: Self = Self {
        place: (0, 0),
        weight: 1,
        returns: 0,
    };
}

pub(crate) struct Entry<T> {
    item: T,
    weight: usize,
    returns: u32,
    /// Whoever sends it, and waits until it is taken.
    sender: Option<usize>,
}

pub(crate) enum Store<T> {
    Fifo(VecDeque<T>),
    Lifo(VecDeque<T>),
    Sorted(BTreeMap<Place, Entry<T>>),
}

impl<T> Store<T> {
    pub(crate) const fn sorted() -> Self {
        Self::Sorted(BTreeMap::new())
    }

    #[inline]
    pub(crate) fn len(&self) -> usize {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.len(),
            Self::Sorted(items) => items.len(),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[inline]
    pub(crate) fn put(&mut self, item: T, tag: Tag, sender: Option<usize>) {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.push_back(item),
            Self::Sorted(items) => {
                let entry = Entry {
                    item,
                    weight: tag.weight,
                    returns: tag.returns,
                    sender,
                };
                items.insert(tag.place, entry);
            }
        }
    }

    /// Puts an item that was taken back into its place, or in a ring where the next one is taken.
    pub(crate) fn put_back(&mut self, item: T, tag: Tag) {
        match self {
            Self::Fifo(items) => items.push_front(item),
            Self::Lifo(_) | Self::Sorted(_) => self.put(item, tag, None),
        }
    }

    /// Takes the item that is next, and the sender that waits for that.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<(T, Tag, Option<usize>)> {
        match self {
            Self::Fifo(items) => Some((items.pop_front()?, Tag::PLAIN, None)),
            Self::Lifo(items) => Some((items.pop_back()?, Tag::PLAIN, None)),
            Self::Sorted(items) => items.pop_first().map(untie),
        }
    }

    /// Takes the item that gives way to a new one: the oldest; where there are ranks, the oldest of the last rank.
    pub(crate) fn evict(&mut self) -> Option<(T, Tag)> {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => Some((items.pop_front()?, Tag::PLAIN)),
            Self::Sorted(items) => {
                let (rank, last) = *items.last_key_value()?.0;
                // Orders count down where the newest is first (LIFO): there the last place is the oldest.
                let oldest = if last.is_negative() {
                    (rank, last)
                } else {
                    *items.range((rank, i64::MIN)..).next()?.0
                };
                let (item, tag, _) = untie(items.remove_entry(&oldest)?);
                Some((item, tag))
            }
        }
    }

    /// Whether items of that rank or a later one make up so much weight.
    pub(crate) fn can_give(&self, weight: usize, rank: i64) -> bool {
        match self {
            Self::Fifo(items) | Self::Lifo(items) => items.len() >= weight,
            Self::Sorted(items) => {
                let weights = items.range((rank, i64::MIN)..);
                let mut lacks = weight;
                for (_, entry) in weights {
                    if lacks == 0 {
                        break;
                    }
                    // What has no weight counts as one, as everywhere.
                    lacks = lacks.saturating_sub(entry.weight.max(1));
                }
                lacks == 0
            }
        }
    }

    /// Takes back the item of that place.
    pub(crate) fn withdraw(&mut self, place: Place) -> Option<T> {
        match self {
            Self::Fifo(_) | Self::Lifo(_) => None,
            Self::Sorted(items) => items.remove(&place).map(|entry| entry.item),
        }
    }

    /// Takes out every item whose sender waits.
    pub(crate) fn withdraw_all(&mut self) -> Vec<(usize, T)> {
        let Self::Sorted(items) = self else {
            return Vec::new();
        };
        let kept = std::mem::take(items);
        let mut taken = Vec::new();
        for (place, entry) in kept {
            match entry.sender {
                Some(sender) => taken.push((sender, entry.item)),
                None => {
                    items.insert(place, entry);
                }
            }
        }
        taken
    }
}

fn untie<T>((place, entry): (Place, Entry<T>)) -> (T, Tag, Option<usize>) {
    let tag = Tag {
        place,
        weight: entry.weight,
        returns: entry.returns,
    };
    (entry.item, tag, entry.sender)
}

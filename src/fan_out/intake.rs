//! Where items are taken from the input, one at a time, and what an item asks for: its key, its weight.
//!
//! J1. The input is not asked again after its end, nor after it has thrown. J2. What was taken and not delivered stays below the
//! bound, where there is one.

use std::hash::RandomState;
use std::task::{Context, Poll};

use crate::fan_out::input::Input;

pub(crate) type WeightOf<T> = Box<dyn FnMut(&T) -> u32 + Send>;
pub(crate) type KeyOf<T> = Box<dyn FnMut(&T, &RandomState) -> Option<u64> + Send>;

/// An item with its place in the input, and what it asks for.
#[derive(Debug)]
pub(crate) struct Ticket<T> {
    pub(crate) index: usize,
    pub(crate) item: T,
    pub(crate) key: Option<u64>,
    pub(crate) weight: u32,
}

/// What comes out of the intake.
pub(crate) enum Taken<T> {
    Item(T),
    /// Nothing until something is delivered.
    Full,
    End,
}

/// What is asked of each item.
pub(crate) struct Asks<T> {
    pub(crate) key: Option<KeyOf<T>>,
    pub(crate) weight: Option<WeightOf<T>>,
    pub(crate) hasher: RandomState,
}

// `T` is `S::Item`, spelled out: a projection in the type of a future that borrows keeps it from being seen as `Send`.
pub(crate) struct Intake<S, T> {
    source: S,
    taken: usize,
    /// How many may be taken as far as it knows (J2); 0 once it is not to be asked again.
    room: usize,
    bound: usize,
    /// It has said itself that it has nothing left.
    is_over: bool,
    asks: Option<Box<Asks<T>>>,
}

impl<S: Input<Item = T>, T> Intake<S, T> {
    /// An intake that keeps to a `bound` of at least 1.
    pub(crate) const fn new(source: S, asks: Option<Box<Asks<T>>>, bound: usize) -> Self {
        Self {
            source,
            taken: 0,
            room: bound,
            bound,
            is_over: false,
            asks,
        }
    }

    /// Takes from the input. The index of an item is one less than [`taken`](Self::taken) after it.
    #[inline]
    pub(crate) fn pull(&mut self, cx: &mut Context<'_>) -> Poll<Taken<T>> {
        if self.taken >= self.room {
            let none = if self.room == 0 {
                Taken::End
            } else {
                Taken::Full
            };
            return Poll::Ready(none);
        }
        let room = std::mem::take(&mut self.room); // J1
        let next = self.source.poll_next(cx);
        match next {
            Poll::Ready(Some(item)) => {
                self.room = room;
                self.taken += 1;
                Poll::Ready(Taken::Item(item))
            }
            Poll::Ready(None) => {
                self.is_over = true;
                Poll::Ready(Taken::End)
            }
            Poll::Pending => {
                self.room = room;
                Poll::Pending
            }
        }
    }

    /// How many items were taken.
    #[inline]
    pub(crate) const fn taken(&self) -> usize {
        self.taken
    }

    /// Asks the item that was just taken for its key and its weight.
    pub(crate) fn ticket(&mut self, item: T) -> Ticket<T> {
        let (mut key, mut weight) = (None, 1);
        if let Some(asks) = &mut self.asks {
            let room = std::mem::take(&mut self.room); // J1, for what is asked with the input
            key = asks.key.as_mut().and_then(|key| key(&item, &asks.hasher));
            weight = asks.weight.as_mut().map_or(1, |weight| weight(&item));
            self.room = room;
        }
        Ticket {
            index: self.taken - 1,
            item,
            key,
            weight,
        }
    }

    /// Makes room for as many as were delivered so far. Returns whether there is any.
    pub(crate) fn make_room(&mut self, delivered: usize) -> bool {
        self.room = delivered.saturating_add(self.bound);
        self.taken < self.room
    }

    /// Asks whether the input has nothing left, by its own word.
    pub(crate) fn is_over(&self) -> bool {
        self.is_over || self.source.size_hint().1 == Some(0)
    }
}

//! How items come in: sends, permits, and what deliveries send.

use std::task::Waker;

use super::{Capacity, Discarded, Effects, Overflow, Refusal, State};
use crate::queue::store::{Place, Store, Tag};
use crate::queue::waiters::Waiters;

impl<T> State<T> {
    pub(super) fn next_place(&mut self, rank: i64) -> Place {
        let order = self.order;
        self.order += 1;
        (rank, if self.is_lifo { -1 - order } else { order })
    }

    /// Whether no item has come after the one of this place, where only the latest counts.
    pub(super) fn is_newest(&self, (_, order): Place) -> bool {
        order + 1 == self.order
    }

    /// Takes an item in.
    #[inline]
    pub(super) fn put(
        &mut self,
        item: T,
        tag: Tag,
        sender: Option<usize>,
        effects: &mut Effects<T>,
    ) {
        if self.capacity == Capacity::Latest {
            self.evict(effects); // N9
        }
        self.occupy(tag.weight);
        // One whose sender waits is sent when it is taken.
        self.totals.sent += u64::from(sender.is_none());
        self.store.put(item, tag, sender);
        self.settle(effects);
    }

    /// A place for an item in the store.
    #[inline]
    pub(super) fn tag(&mut self, rank: i64, weight: usize) -> Tag {
        match self.store {
            Store::Fifo(_) | Store::Lifo(_) => Tag::PLAIN,
            Store::Sorted(_) => Tag {
                place: self.next_place(rank),
                weight: match self.capacity {
                    Capacity::Limit(_) | Capacity::Unbounded => weight,
                    Capacity::Rendezvous => 0,
                    Capacity::Latest => 1,
                },
                returns: 0,
            },
        }
    }

    /// Sends to a ring with room, where nobody waits: what happens nearly always, in few instructions.
    #[inline]
    pub(crate) fn put_alone(&mut self, item: &mut Option<T>) -> bool {
        let Store::Fifo(ring) = &mut self.store else {
            return false;
        };
        if self.used >= self.quick_limit {
            return false;
        }
        if let Some(item) = item.take() {
            ring.push_back(item);
            self.used += 1;
            self.totals.sent += 1;
            self.totals.peak = self.totals.peak.max(self.used);
        }
        true
    }

    /// Sends without waiting. `item` is left where it was if it is refused.
    #[inline]
    pub(crate) fn offer(
        &mut self,
        item: &mut Option<T>,
        (rank, weight): (i64, usize),
        effects: &mut Effects<T>,
    ) -> Result<(), Refusal> {
        if self.refuses() {
            return Err(Refusal::Closed);
        }
        if self.senders.waiting() > 0 || !self.has_room(weight) {
            return self.overflow(item, (rank, weight), effects);
        }
        if let Some(item) = item.take() {
            let tag = self.tag(rank, weight);
            self.put(item, tag, None, effects);
        }
        Ok(())
    }

    pub(super) fn overflow(
        &mut self,
        item: &mut Option<T>,
        (rank, weight): (i64, usize),
        effects: &mut Effects<T>,
    ) -> Result<(), Refusal> {
        if self.is_too_heavy(weight) {
            return Err(Refusal::TooHeavy);
        }
        let has_room = match self.overflow {
            Overflow::Wait | Overflow::Refuse => return Err(Refusal::Full),
            Overflow::DropNewest => false,
            Overflow::DropOldest => self.make_room(rank, weight, effects),
        };
        if let Some(item) = item.take() {
            if has_room {
                let tag = self.tag(rank, weight);
                self.put(item, tag, None, effects);
            } else {
                self.discard(item, Discarded::Overflow, effects);
            }
        }
        Ok(())
    }

    /// Lets items give way, until there is room for one more behind all who wait. None does where that is not enough.
    fn make_room(&mut self, rank: i64, weight: usize, effects: &mut Effects<T>) -> bool {
        let is_weighed = self.capacity.is_weighed();
        let mut lacks = self.lacks(if is_weighed { weight } else { 1 });
        if !self.store.can_give(lacks, rank) {
            return false;
        }
        while let Some(weight) = (lacks > 0).then(|| self.evict(effects)).flatten() {
            lacks = lacks.saturating_sub(weight.max(1));
        }
        true
    }

    /// Lets one item give way. Returns its weight.
    fn evict(&mut self, effects: &mut Effects<T>) -> Option<usize> {
        let (oldest, tag) = self.store.evict()?;
        self.vacate(tag.weight);
        self.discard(oldest, Discarded::Overflow, effects);
        Some(tag.weight)
    }

    /// The turn of a send that may wait: `Ok(true)` when it is done.
    #[inline]
    pub(crate) fn send_turn(
        &mut self,
        key: &mut Option<usize>,
        item: &mut Option<T>,
        meta: (i64, usize),
        effects: &mut Effects<T>,
    ) -> Result<bool, Refusal> {
        if key.is_none() && self.capacity != Capacity::Rendezvous {
            return match self.offer(item, meta, effects) {
                Ok(()) => Ok(true),
                Err(Refusal::Full) if self.overflow == Overflow::Wait => Ok(false),
                Err(refusal) => Err(refusal),
            };
        }
        self.send_turn_again(key, item, meta, effects)
    }

    pub(super) fn send_turn_again(
        &mut self,
        key: &mut Option<usize>,
        item: &mut Option<T>,
        (rank, weight): (i64, usize),
        effects: &mut Effects<T>,
    ) -> Result<bool, Refusal> {
        let Some(place) = *key else {
            return if self.refuses() {
                Err(Refusal::Closed)
            } else if self.overflow == Overflow::Wait {
                Ok(false)
            } else {
                self.offer(item, (rank, weight), effects).map(|()| true)
            };
        };
        let is_granted = self.sends().is_granted(place);
        let is_parked = self.capacity == Capacity::Rendezvous;
        // An item that was taken from hand to hand was taken before any close.
        let result = if is_granted && is_parked {
            Ok(true)
        } else if self.refuses() {
            *item = item.take().or_else(|| self.returned(place));
            Err(Refusal::Closed)
        } else if is_granted {
            Ok(true)
        } else {
            return Ok(false);
        };
        let waker = self.sends().leave(place);
        effects.retire(waker);
        *key = None;
        if result.is_ok() {
            if let Some(item) = item.take() {
                let tag = self.tag(rank, weight);
                self.put(item, tag, None, effects);
            }
        }
        result
    }

    /// Where sends wait.
    pub(crate) fn sends(&mut self) -> &mut Waiters {
        match self.capacity {
            Capacity::Rendezvous => &mut self.parked,
            _ => &mut self.senders,
        }
    }

    pub(super) fn returned(&mut self, key: usize) -> Option<T> {
        let at = self.returned.iter().position(|(of, _)| *of == key)?;
        Some(self.returned.swap_remove(at).1)
    }

    /// Makes a send wait; on a rendezvous, its item waits in the store, and its place there is returned.
    pub(crate) fn park_sender(
        &mut self,
        key: &mut Option<usize>,
        item: &mut Option<T>,
        (rank, weight): (i64, usize),
        waker: Waker,
        effects: &mut Effects<T>,
    ) -> Option<Place> {
        if let Some(place) = *key {
            let waker = self.sends().renew(place, waker);
            effects.retire(waker);
            return None;
        }
        if self.capacity == Capacity::Rendezvous {
            let arrival = self.arrival();
            let place = self.parked.join(1, arrival, waker);
            *key = Some(place);
            let tag = self.tag(rank, weight);
            self.put(item.take()?, tag, Some(place), effects);
            return Some(tag.place);
        }
        let arrival = self.arrival();
        *key = Some(self.senders.join(weight, arrival, waker));
        self.settle(effects);
        None
    }

    /// A send that is given up. On a rendezvous, `at` is its item's place.
    pub(crate) fn unpark_sender(
        &mut self,
        key: usize,
        at: Option<Place>,
        effects: &mut Effects<T>,
    ) -> Option<T> {
        let is_granted = self.sends().is_granted(key);
        let waker = self.sends().leave(key);
        effects.retire(waker);
        let item = match at.filter(|_| !is_granted) {
            Some(place) => self.store.withdraw(place).or_else(|| self.returned(key)),
            None => None,
        };
        self.settle(effects);
        item
    }

    /// The turn of who waits for a permit.
    pub(crate) fn permit_turn(
        &mut self,
        key: &mut Option<usize>,
        weight: usize,
        effects: &mut Effects<T>,
    ) -> Result<bool, Refusal> {
        let is_mine = match *key {
            None if self.is_too_heavy(weight) => return Err(Refusal::TooHeavy),
            None => self.senders.waiting() == 0 && self.has_room(weight),
            Some(place) => self.senders.is_granted(place),
        };
        let refuses = self.refuses();
        if !is_mine && !refuses {
            return Ok(false);
        }
        if let Some(place) = key.take() {
            effects.retire(self.senders.leave(place));
        }
        if refuses {
            return Err(Refusal::Closed);
        }
        self.occupy(self.permit_weight(weight));
        self.permits += 1;
        self.settle(effects);
        Ok(true)
    }

    /// Where nothing has a weight, permits are counted and have none.
    pub(super) fn permit_weight(&self, weight: usize) -> usize {
        if self.capacity.is_weighed() {
            weight
        } else {
            0
        }
    }

    /// Gives a permit back, used or not. Also a closed queue takes what it let in before.
    pub(crate) fn end_permit(
        &mut self,
        weight: usize,
        item: &mut Option<T>,
        (rank, own): (i64, usize),
        effects: &mut Effects<T>,
    ) -> Result<(), Refusal> {
        self.permits -= 1;
        self.vacate(self.permit_weight(weight));
        let result = if self.receiver_count == 0 {
            Err(Refusal::Closed)
        } else if self.capacity.is_weighed() && own > weight {
            Err(Refusal::TooHeavy)
        } else {
            if let Some(item) = item.take() {
                let tag = self.tag(rank, own);
                self.put(item, tag, None, effects);
            }
            Ok(())
        };
        self.settle(effects);
        result
    }

    pub(crate) fn is_ring(&self) -> bool {
        !matches!(self.store, Store::Sorted(_))
    }

    /// The turn of who sends many items, all alike: `Ok(true)` when all are sent. Takes them from the end if they are in
    /// reverse.
    pub(crate) fn send_many_turn(
        &mut self,
        key: &mut Option<usize>,
        items: &mut Vec<T>,
        is_reversed: bool,
        effects: &mut Effects<T>,
    ) -> Result<bool, Refusal> {
        // Before the line: who stands in it may be the last to hear that there is none any more.
        let refuses = self.refuses();
        match *key {
            Some(place) if refuses || self.senders.is_granted(place) => {
                effects.retire(self.senders.leave(place));
                *key = None;
            }
            Some(_) => return Ok(false),
            None if !refuses && self.senders.waiting() > 0 => return Ok(items.is_empty()),
            None => {}
        }
        if refuses {
            return if items.is_empty() {
                Ok(true)
            } else {
                Err(Refusal::Closed)
            };
        }
        // Whoever waits has found that there is no room: what there is now is ours (N2).
        let count = items.len().min(self.room());
        if let Store::Fifo(ring) | Store::Lifo(ring) = &mut self.store {
            if is_reversed {
                ring.extend(items.drain(items.len() - count..).rev());
            } else {
                ring.extend(items.drain(..count));
            }
            self.totals.sent += count as u64;
            self.occupy(count);
        }
        self.settle(effects);
        Ok(items.is_empty())
    }

    /// Makes who waits for room alone wait.
    pub(crate) fn park_permit(
        &mut self,
        key: &mut Option<usize>,
        weight: usize,
        waker: Waker,
        effects: &mut Effects<T>,
    ) {
        match *key {
            Some(place) => effects.retire(self.senders.renew(place, waker)),
            None => {
                let is_weighed = self.capacity.is_weighed();
                let want = if is_weighed { weight } else { 1 };
                let arrival = self.arrival();
                *key = Some(self.senders.join(want, arrival, waker));
                self.settle(effects);
            }
        }
    }

    /// Who waits for room alone will not come back.
    pub(crate) fn unpark_permit(&mut self, key: usize, effects: &mut Effects<T>) {
        effects.retire(self.senders.leave(key));
        self.settle(effects);
    }
}

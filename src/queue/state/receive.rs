//! How items go out: to receivers, in batches, and as deliveries that may come back.

use std::task::Waker;

use super::{Capacity, Discarded, Effects, Refusal, State, Turn};
use crate::queue::store::{Store, Tag};

impl<T> State<T> {
    /// Whether a newcomer may take an item. Only one that can wait lets those go first who reserved on a rendezvous (N8): they
    /// need it to.
    #[inline]
    fn has_item(&self, can_wait: bool) -> bool {
        if self.is_last() {
            return !self.store.is_empty();
        }
        let reserved = self.capacity == Capacity::Rendezvous && self.senders.waiting() > 0;
        let gives_way = can_wait && reserved && !self.is_closed;
        !gives_way && self.store.len() > self.receivers.reserved() && self.receivers.waiting() == 0
    }

    /// Takes from a ring, where nobody waits: what happens nearly always, in few instructions.
    #[inline]
    pub(crate) fn take_alone(&mut self, is_delivery: bool) -> Option<T> {
        let Store::Fifo(ring) = &mut self.store else {
            return None;
        };
        if ring.len() <= self.quick_floor {
            return None;
        }
        let item = ring.pop_front()?;
        self.totals.received += 1;
        if is_delivery {
            self.in_delivery += 1;
        } else {
            self.used = self.used.saturating_sub(1);
        }
        Some(item)
    }

    /// Ends a delivery of weight 1 that nobody waits for.
    #[inline]
    pub(crate) fn finish_alone(&mut self) -> bool {
        // N10: only in a ring, where this is the usual thing.
        let is_alone = self.quick_floor < usize::MAX;
        if is_alone {
            self.in_delivery -= 1;
            self.used = self.used.saturating_sub(1);
        }
        is_alone
    }

    /// The turn of a receiver.
    #[inline]
    pub(crate) fn receive_turn(
        &mut self,
        key: &mut Option<usize>,
        can_wait: bool,
        effects: &mut Effects<T>,
    ) -> Turn {
        let Some(place) = *key else {
            return if self.has_item(can_wait) {
                Turn::Now
            } else if self.has_ended() {
                Turn::Ended
            } else {
                Turn::Wait
            };
        };
        let turn = if self.receivers.have(place) > 0 || self.is_last() && !self.store.is_empty() {
            Turn::Now
        } else if self.has_ended() {
            Turn::Ended
        } else {
            return Turn::Wait;
        };
        effects.retire(self.receivers.leave(place));
        *key = None;
        turn
    }

    /// Whether one that wants `want` items at once has some, and whether it has to wait for no more: then it is its turn.
    pub(crate) fn batch_turn(&self, key: Option<usize>, want: usize) -> (bool, bool) {
        let (has_some, is_full) = match key {
            None => (false, self.has_item(true) && self.free() >= want),
            Some(place) => (
                self.receivers.have(place) > 0,
                self.receivers.is_granted(place),
            ),
        };
        (has_some, is_full || self.is_last())
    }

    /// Makes a receiver wait for `want` items, the first and the last of which wake it.
    pub(crate) fn park_receiver(
        &mut self,
        key: &mut Option<usize>,
        want: usize,
        waker: Waker,
        effects: &mut Effects<T>,
    ) {
        match *key {
            Some(place) => effects.retire(self.receivers.renew(place, waker)),
            None => {
                let arrival = self.arrival();
                *key = Some(self.receivers.join(want, arrival, waker));
                self.settle(effects);
            }
        }
    }

    /// A receiver that will not come back: what was set aside for it goes to the next.
    pub(crate) fn unpark_receiver(&mut self, key: usize, effects: &mut Effects<T>) {
        effects.retire(self.receivers.leave(key));
        self.settle(effects);
    }

    /// Takes the next item; for a delivery, its room stays taken.
    #[inline]
    pub(crate) fn take(&mut self, is_delivery: bool, effects: &mut Effects<T>) -> Option<(T, Tag)> {
        let (item, mut tag, sender) = self.store.take()?;
        if let Some(sender) = sender {
            effects.wake(self.parked.grant(sender, 1));
            self.totals.sent += 1;
        }
        self.totals.received += 1;
        let gives_room = !is_delivery || self.capacity == Capacity::Latest;
        if gives_room {
            self.vacate(std::mem::take(&mut tag.weight));
        }
        self.in_delivery += usize::from(is_delivery);
        self.settle(effects);
        Some((item, tag))
    }

    /// How many items there are for one whose turn it is: at least one.
    fn free(&self) -> usize {
        let promised = if self.is_last() {
            0
        } else {
            self.receivers.reserved()
        };
        self.store.len().saturating_sub(promised).max(1)
    }

    /// Takes up to `max` items that are not set aside for others.
    pub(crate) fn take_many(&mut self, max: usize, into: &mut Vec<T>, effects: &mut Effects<T>) {
        let count = self.free().min(max);
        if let Store::Fifo(items) = &mut self.store {
            into.extend(items.drain(..count));
            self.vacate(count);
            self.totals.received += count as u64;
            self.settle(effects);
            return;
        }
        for _ in 0..count {
            into.extend(self.take(false, effects).map(|(item, _)| item));
        }
    }

    /// The same for deliveries.
    pub(crate) fn take_many_tagged(
        &mut self,
        max: usize,
        into: &mut Vec<(T, Tag)>,
        effects: &mut Effects<T>,
    ) {
        for _ in 0..self.free().min(max) {
            into.extend(self.take(true, effects));
        }
    }

    /// A delivery is done with.
    pub(crate) fn finish(&mut self, weight: usize, effects: &mut Effects<T>) {
        self.in_delivery -= 1;
        self.vacate(weight);
        self.settle(effects);
    }

    /// A delivery comes back to its place in the order. If it does not, its item is returned with the reason, and is in
    /// delivery until it is finished (N7). One that was cut short is not dead, however often it was delivered.
    pub(crate) fn give_back(
        &mut self,
        item: T,
        mut tag: Tag,
        limit: u32,
        is_cut: bool,
        effects: &mut Effects<T>,
    ) -> Option<(T, Discarded)> {
        tag.returns = tag.returns.saturating_add(1);
        if tag.returns >= limit && !is_cut {
            self.totals.dead += 1;
            let attempts = tag.returns;
            return Some((item, Discarded::Dead { attempts }));
        }
        self.put_back(item, tag, effects)
    }

    /// A delivery goes back, and is no attempt: to its place in the order, or in a ring to be the next. If it does not, see
    /// [`give_back`](Self::give_back).
    pub(crate) fn put_back(
        &mut self,
        item: T,
        mut tag: Tag,
        effects: &mut Effects<T>,
    ) -> Option<(T, Discarded)> {
        let is_outdated = self.capacity == Capacity::Latest && !self.is_newest(tag.place);
        if self.receiver_count == 0 || is_outdated {
            self.totals.discarded += 1;
            return Some((
                item,
                if is_outdated {
                    Discarded::Overflow
                } else {
                    Discarded::Abandoned
                },
            ));
        }
        if self.capacity == Capacity::Latest {
            tag.weight = 1;
            self.occupy(1);
        }
        self.in_delivery -= 1;
        self.totals.redelivered += 1;
        self.store.put_back(item, tag);
        self.settle(effects);
        None
    }

    /// A delivery is not to be tried again; its room stays taken until it is finished.
    pub(crate) fn reject(&mut self, item: T, tag: Tag, effects: &mut Effects<T>) {
        self.totals.dead += 1;
        let attempts = tag.returns.saturating_add(1);
        self.telling += 1;
        effects.discards.push((item, Discarded::Dead { attempts }));
    }

    /// Takes in what a delivery sends (N5).
    pub(crate) fn feed(
        &mut self,
        item: &mut Option<T>,
        (rank, weight): (i64, usize),
        effects: &mut Effects<T>,
    ) -> Result<(), Refusal> {
        if self.refuses() {
            return Err(Refusal::Closed);
        }
        if self.is_too_heavy(weight) {
            return Err(Refusal::TooHeavy);
        }
        if let Some(item) = item.take() {
            let tag = self.tag(rank, weight);
            self.put(item, tag, None, effects);
        }
        Ok(())
    }
}

//! How items go out: to receivers, in batches, and as deliveries that may come back.

use std::task::Waker;

use super::{Discarded, Effects, Refusal, State, Turn};
use crate::queue::store::{Store, Tag};

impl<T> State<T> {
    /// Whether a newcomer may take an item.
    #[inline]
    pub(super) fn has_item(&self) -> bool {
        if self.drains() {
            !self.store.is_empty()
        } else {
            self.store.len() > self.receivers.reserved()
        }
    }

    /// Takes from a ring, where nobody waits: what happens nearly always, in few instructions.
    #[inline]
    pub(crate) fn take_alone(&mut self, is_delivery: bool) -> Option<T> {
        let Store::Fifo(ring) = &mut self.store else {
            return None;
        };
        let others = self.receivers.waiting() | self.senders.waiting() | self.joiners.waiting();
        if others != 0 || ring.len() <= self.receivers.reserved() {
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
        let others = self.receivers.waiting() | self.senders.waiting() | self.joiners.waiting();
        if others == 0 {
            self.in_delivery -= 1;
            self.used = self.used.saturating_sub(1);
        }
        others == 0
    }

    #[inline]
    pub(crate) fn receive_turn(
        &mut self,
        key: &mut Option<usize>,
        effects: &mut Effects<T>,
    ) -> Turn {
        let Some(place) = *key else {
            return if self.has_item() {
                Turn::Now
            } else if self.has_ended() {
                Turn::Ended
            } else {
                Turn::Wait
            };
        };
        let have = self.receivers.have(place);
        let turn = if !self.store.is_empty() && (have > 0 || self.drains()) {
            Turn::Now
        } else if self.has_ended() {
            Turn::Ended
        } else {
            if have > 0 {
                // A hint that came to nothing (N3).
                self.receivers.send_back(place);
            }
            return Turn::Wait;
        };
        effects.stale = self.receivers.leave(place).1;
        *key = None;
        turn
    }

    /// The turn of who wants `want` items at once: `Ok(true)` when it has to wait for no more, `Ok(false)` when it has
    /// some.
    pub(crate) fn batch_turn(&self, key: Option<usize>, want: usize) -> Result<bool, Turn> {
        let free = self.store.len().saturating_sub(self.receivers.reserved());
        let (have, is_full) = match key {
            None => (0, free >= want),
            Some(place) => (self.receivers.have(place), self.receivers.is_granted(place)),
        };
        if is_full || !self.store.is_empty() && (self.is_closed || self.is_last()) {
            Ok(true)
        } else if self.has_ended() {
            Err(Turn::Ended)
        } else if have > 0 {
            Ok(false)
        } else {
            Err(Turn::Wait)
        }
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
            Some(place) => effects.stale = self.receivers.renew(place, waker),
            None => {
                *key = Some(self.receivers.join(want, waker));
                self.settle(effects);
            }
        }
    }

    /// A receiver that will not come back: what was set aside for it goes to the next.
    pub(crate) fn unpark_receiver(&mut self, key: usize, effects: &mut Effects<T>) {
        effects.stale = self.receivers.leave(key).1;
        self.settle(effects);
    }

    /// Takes the next item; for a delivery, its room stays taken.
    #[inline]
    pub(crate) fn take(&mut self, is_delivery: bool, effects: &mut Effects<T>) -> Option<(T, Tag)> {
        let (item, tag, sender) = self.store.take()?;
        if let Some(sender) = sender {
            effects.wake(self.parked.grant(sender, 1));
        }
        self.totals.received += 1;
        if is_delivery {
            self.in_delivery += 1;
        } else {
            self.used = self.used.saturating_sub(tag.weight);
        }
        self.settle(effects);
        Some((item, tag))
    }

    /// Takes up to `max` items that are not set aside for others.
    pub(crate) fn take_many(
        &mut self,
        max: usize,
        into: &mut Vec<T>,
        effects: &mut Effects<T>,
    ) -> usize {
        let free = if self.drains() {
            self.store.len()
        } else {
            self.store.len().saturating_sub(self.receivers.reserved())
        };
        // At least the one that it was the caller's turn for.
        let count = free.max(1).min(max);
        if let Store::Fifo(items) = &mut self.store {
            into.extend(items.drain(..count));
            self.used = self.used.saturating_sub(count);
            self.totals.received += count as u64;
            self.settle(effects);
            return count;
        }
        for _ in 0..count {
            into.extend(self.take(false, effects).map(|(item, _)| item));
        }
        count
    }

    /// A delivery is done with.
    pub(crate) fn finish(&mut self, weight: usize, effects: &mut Effects<T>) {
        self.in_delivery -= 1;
        self.used = self.used.saturating_sub(weight);
        self.settle(effects);
    }

    /// A delivery comes back to its place in the order, or is dead.
    pub(crate) fn give_back(
        &mut self,
        item: T,
        mut tag: Tag,
        attempts: u32,
        effects: &mut Effects<T>,
    ) {
        self.in_delivery -= 1;
        tag.returns += 1;
        let fate = if tag.returns >= attempts {
            self.totals.dead += 1;
            Some(Discarded::Dead {
                attempts: tag.returns,
            })
        } else if self.receiver_count == 0 {
            self.totals.discarded += 1;
            Some(Discarded::Abandoned)
        } else {
            None
        };
        match fate {
            Some(fate) => {
                self.used = self.used.saturating_sub(tag.weight);
                effects.discards.push((item, fate));
            }
            None => {
                self.totals.redelivered += 1;
                self.store.put(item, tag, None);
            }
        }
        self.settle(effects);
    }

    /// A delivery is not to be tried again; its room stays taken until it is finished.
    pub(crate) fn reject(&mut self, item: T, tag: Tag, effects: &mut Effects<T>) {
        self.totals.dead += 1;
        let attempts = tag.returns + 1;
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

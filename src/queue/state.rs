//! What a queue decides, under its lock: pure, no user code, no waiting.
//!
//! | state | new items | waiting senders | receivers get | then |
//! |---|---|---|---|---|
//! | open | accepted | served in order | what is not set aside for others | wait |
//! | fed (the last sender is gone, deliveries are out) | from deliveries | there are none | what is not set aside for others | wait |
//! | closed (and permits or deliveries are out) | from permits only | fail, with their item | what is not set aside for others | wait |
//! | last (all that will ever come is here) | none | there are none, or they fail | whatever is there | the end |
//! | gone (the last receiver is gone) | refused | fail, with their item | | |
//!
//! N1. Reserve, do not move: a waiter that is woken has an item, or room, *set aside*; the item stays where it is until the
//! waiter comes for it, and a waiter that leaves gives what it had to the next. N2. While a receiver waits, every item is set
//! aside; while a sender waits, there is no room for the first of them; [`State::settle`] restores both after each step that
//! could break them. So nobody overtakes a waiter. N3. No more is set aside than there is. Where items go another way
//! (evicted, withdrawn, taken at the end), the last to whom one was promised waits again, as if it had not been. What is
//! promised is kept until all that will ever come is here: from then on every receiver takes what it finds, and all who wait are
//! woken to look, so that none waits for one that was woken and never comes. N4. `used` is the weight of the items in here, of those in delivery, and of the permits; with
//! what is set aside for senders it stays within the limit, but for what deliveries send (N5). N5. A delivery's own sends
//! never wait: its worker is what would make room. N6. The end is: no sender, or closed; no item, no delivery, no permit. Once
//! ended, always ended. N7. An item has exactly one fate: received, given back, discarded, dead. One that was
//! delivered is in delivery until whoever is told of its fate has been told; and nothing is over while a hook is still being told. N8. On a rendezvous, receivers that wait are the room. Those who
//! send and those who reserve are served in the order in which they came, whichever they are. N9. Where only the latest item
//! counts, there is always room, and whatever is put in replaces what is there. N10. In a ring where nobody waits, sends and receives concern nobody else: two
//! numbers say how far, and they are found anew after each step that went the long way ([`State::refresh`]).

mod receive;
mod send;
#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests;

use std::error::Error;
use std::task::Waker;

use crate::sync::PlainArc;

use super::store::Store;
use super::waiters::Waiters;

/// How much a queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capacity {
    /// Items, or their weight.
    Limit(usize),
    /// Whatever comes.
    Unbounded,
    /// Nothing: an item passes from hand to hand.
    Rendezvous,
    /// The latest item (N9).
    Latest,
}

impl Capacity {
    /// Whether weights count.
    #[inline]
    pub(crate) const fn is_weighed(self) -> bool {
        matches!(self, Self::Limit(_) | Self::Unbounded)
    }
}

/// What happens to an item that there is no room for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Overflow {
    /// The sender waits for room. The default.
    #[default]
    Wait,
    /// The sender gets its item back.
    Refuse,
    /// The oldest item gives way; by [`rank`](crate::queue::Queue::rank), the oldest of the last ones.
    DropOldest,
    /// The new item is dropped, and the send succeeds.
    DropNewest,
}

/// Why a queue dropped an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Discarded {
    /// There was no room for it, or it gave way to a newer one: see [`Overflow`] and
    /// [`latest`](crate::queue::Queue::latest).
    Overflow,
    /// It was still there when the last receiver went.
    Abandoned,
    /// It was delivered as often as [`redeliver`](crate::queue::Queue::redeliver) allows, or rejected.
    Dead {
        /// How often it was delivered.
        attempts: u32,
    },
}

/// What has to be done once the lock is released.
pub(crate) struct Effects<T> {
    pub(crate) wake: Option<Waker>,
    pub(crate) wake_all: Vec<Waker>,
    /// Not to be woken, only to be dropped.
    pub(crate) stale: Option<Waker>,
    pub(crate) discards: Vec<(T, Discarded)>,
}

impl<T> Effects<T> {
    #[inline]
    pub(crate) const fn new() -> Self {
        Self {
            wake: None,
            wake_all: Vec::new(),
            stale: None,
            discards: Vec::new(),
        }
    }

    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.wake.is_none()
            && self.stale.is_none()
            && self.wake_all.is_empty()
            && self.discards.is_empty()
    }

    /// Keeps a step's one waker for the time when the lock is released: its destructor is the user's.
    #[inline]
    pub(crate) fn retire(&mut self, waker: Option<Waker>) {
        if waker.is_some() {
            // Either what it came with, or what it finds: who is served has given his waker away when he was woken.
            debug_assert!(self.stale.is_none(), "another would be dropped here");
            self.stale = waker;
        }
    }

    #[inline]
    fn wake(&mut self, waker: Option<Waker>) {
        if let Some(waker) = waker {
            if self.wake.is_none() {
                self.wake = Some(waker);
            } else {
                self.wake_all.push(waker);
            }
        }
    }
}

/// Why an item was not taken in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Full,
    Closed,
    TooHeavy,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// The caller's: it takes at least one item now, under the same lock.
    Now,
    Ended,
    Wait,
}

/// Figures that only grow.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) discarded: u64,
    pub(crate) redelivered: u64,
    pub(crate) dead: u64,
    pub(crate) peak: usize,
}

pub(crate) type CloseCause = PlainArc<dyn Error + Send + Sync>;

pub(crate) struct State<T> {
    store: Store<T>,
    capacity: Capacity,
    overflow: Overflow,
    is_lifo: bool,
    /// While less than this is used, a send concerns nobody else (N10).
    quick_limit: usize,
    /// While more items than this are there, a receive concerns nobody else (N10).
    quick_floor: usize,
    used: usize,
    /// How often `used` has gone past what it can hold, and round: weights may be anything.
    overrun: usize,
    /// Discards whose hook has not returned yet (N7).
    telling: usize,
    /// Wait for room, in weight.
    pub(crate) senders: Waiters,
    /// Wait for their item to be taken, on a rendezvous.
    pub(crate) parked: Waiters,
    /// Wait for items, by count.
    pub(crate) receivers: Waiters,
    /// Wait until everything is finished.
    pub(crate) joiners: Waiters,
    /// Wait until nothing can be sent any more.
    pub(crate) watchers: Waiters,
    /// On a rendezvous: what was taken back from the store for senders that fail.
    returned: Vec<(usize, T)>,
    pub(crate) in_delivery: usize,
    permits: usize,
    sender_count: usize,
    receiver_count: usize,
    is_closed: bool,
    /// What was left was taken out at once: what comes back is not waited for any more.
    is_aborted: bool,
    pub(crate) cause: Option<CloseCause>,
    order: i64,
    /// Counts those who came to wait.
    arrivals: u64,
    pub(crate) totals: Totals,
}

impl<T> State<T> {
    pub(crate) fn new(
        store: Store<T>,
        capacity: Capacity,
        overflow: Overflow,
        is_lifo: bool,
    ) -> Self {
        let mut state = Self {
            store,
            capacity,
            overflow,
            is_lifo: is_lifo && capacity != Capacity::Latest,
            quick_limit: 0,
            quick_floor: usize::MAX,
            used: 0,
            overrun: 0,
            telling: 0,
            senders: Waiters::new(),
            parked: Waiters::new(),
            receivers: Waiters::new(),
            joiners: Waiters::new(),
            watchers: Waiters::new(),
            returned: Vec::new(),
            in_delivery: 0,
            permits: 0,
            sender_count: 1,
            receiver_count: 1,
            is_closed: false,
            is_aborted: false,
            cause: None,
            order: 0,
            arrivals: 0,
            totals: Totals::default(),
        };
        state.refresh();
        state
    }

    /// Finds out anew what may go the short way (N10).
    #[inline]
    pub(crate) fn refresh(&mut self) {
        self.quick_limit = 0;
        self.quick_floor = usize::MAX;
        let waiting = self.receivers.waiting() | self.senders.waiting();
        if waiting != 0 || self.overrun != 0 || !matches!(self.store, Store::Fifo(_)) {
            return;
        }
        if !self.refuses() {
            self.quick_limit = self.limit() - self.senders.reserved().min(self.limit());
        }
        if self.joiners.waiting() == 0 {
            self.quick_floor = self.receivers.reserved();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }

    /// What is used, as far as that can be told: also what cannot is counted (N4).
    #[inline]
    pub(crate) fn used(&self) -> usize {
        if self.overrun == 0 {
            self.used
        } else {
            usize::MAX
        }
    }

    #[inline]
    fn occupy(&mut self, weight: usize) {
        let (used, is_over) = self.used.overflowing_add(weight);
        self.used = used;
        self.overrun += usize::from(is_over);
        self.totals.peak = self.totals.peak.max(self.used());
    }

    #[inline]
    fn vacate(&mut self, weight: usize) {
        let (used, is_under) = self.used.overflowing_sub(weight);
        self.used = used;
        self.overrun -= usize::from(is_under);
    }

    /// How much more is taken in, beside what is set aside.
    #[inline]
    fn room(&self) -> usize {
        match self.capacity {
            Capacity::Unbounded | Capacity::Latest => usize::MAX,
            Capacity::Limit(limit) => {
                let taken = self.used().saturating_add(self.senders.reserved());
                limit.saturating_sub(taken)
            }
            Capacity::Rendezvous => self.receivers.len().saturating_sub(self.coming()),
        }
    }

    pub(crate) fn limit(&self) -> usize {
        match self.capacity {
            Capacity::Limit(limit) => limit,
            Capacity::Unbounded => usize::MAX,
            Capacity::Rendezvous => 0,
            Capacity::Latest => 1,
        }
    }

    pub(super) fn arrival(&mut self) -> u64 {
        self.arrivals += 1;
        self.arrivals
    }

    pub(crate) fn handles(&self) -> (usize, usize) {
        (self.sender_count, self.receiver_count)
    }

    /// Whether senders fail.
    #[inline]
    pub(crate) fn refuses(&self) -> bool {
        self.is_closed || self.receiver_count == 0
    }

    #[inline]
    fn drains(&self) -> bool {
        self.is_closed || self.sender_count == 0
    }

    pub(crate) fn is_idle(&self) -> bool {
        (self.store.is_empty() || self.is_aborted) && self.in_delivery + self.telling == 0
    }

    /// Whether all that will ever come is here. Then every receiver takes what it finds (N3).
    #[inline]
    pub(crate) fn is_last(&self) -> bool {
        self.drains() && self.in_delivery + self.telling == 0 && self.permits == 0
    }

    /// N6.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        self.is_last() && self.store.is_empty()
    }

    /// Whether there is room beside what is set aside.
    #[inline]
    fn has_room(&self, weight: usize) -> bool {
        let is_rendezvous = self.capacity == Capacity::Rendezvous;
        (if is_rendezvous { 1 } else { weight }) <= self.room()
    }

    /// On a rendezvous: what is on its way to receivers.
    fn coming(&self) -> usize {
        self.store.len() + self.permits + self.senders.reserved()
    }

    /// What there is too little of, for so much weight and for all who wait.
    fn lacks(&self, weight: usize) -> usize {
        let (taken, room) = match self.capacity {
            Capacity::Rendezvous => (self.coming(), self.receivers.len()),
            _ => {
                let taken = self.used().saturating_add(self.senders.reserved());
                (taken, self.limit())
            }
        };
        taken
            .saturating_add(self.senders.lacking())
            .saturating_add(weight)
            .saturating_sub(room)
    }

    fn is_too_heavy(&self, weight: usize) -> bool {
        matches!(self.capacity, Capacity::Limit(limit) if weight > limit)
    }

    /// How many items receivers may have: on a rendezvous, some receivers are there for those who reserved first, and can still
    /// send (N8).
    #[inline]
    fn receivable(&self) -> usize {
        let len = self.store.len();
        match self.capacity {
            Capacity::Rendezvous if self.senders.reserved() > 0 && !self.is_closed => {
                len.min(self.receivers.len().saturating_sub(self.senders.reserved()))
            }
            _ => len,
        }
    }

    /// Restores N2 and N3, for receivers.
    #[inline]
    fn settle_receivers(&mut self, effects: &mut Effects<T>) {
        let items = self.receivable();
        self.receivers
            .revoke(self.receivers.reserved().saturating_sub(items));
        while let Some((key, lacks)) = self.receivers.first() {
            let free = items.saturating_sub(self.receivers.reserved());
            if free == 0 {
                break;
            }
            effects.wake(self.receivers.grant(key, free.min(lacks)));
        }
    }

    /// Restores N2, for senders.
    #[inline]
    fn settle_senders(&mut self, effects: &mut Effects<T>) {
        if self.capacity == Capacity::Rendezvous {
            return self.settle_reservations(effects);
        }
        while let Some((key, weight)) = self.senders.first() {
            if !self.has_room(weight) {
                break;
            }
            effects.wake(self.senders.grant(key, weight));
        }
    }

    /// On a rendezvous, finds a receiver for each who reserves, in turn with those who send (N8).
    fn settle_reservations(&mut self, effects: &mut Effects<T>) {
        let alone = self.store.len().saturating_sub(self.parked.waiting());
        let is_next = |state: &Self, arrival, before| {
            let earlier = state.permits + alone + before + state.parked.older(arrival);
            earlier < state.receivers.len()
        };
        while let Some(last) = self.senders.last_arrival() {
            let granted = self.senders.reserved();
            if granted == 0 || is_next(self, last, granted - 1) {
                break;
            }
            self.senders.revoke(1);
        }
        while let Some(first) = self.senders.first_arrival() {
            if !is_next(self, first, self.senders.reserved()) {
                break;
            }
            if let Some((key, _)) = self.senders.first() {
                effects.wake(self.senders.grant(key, 1));
            }
        }
    }

    /// Restores N2 and N3, and tells who waits for the end of something.
    #[inline]
    pub(crate) fn settle(&mut self, effects: &mut Effects<T>) {
        let waiting = self.receivers.waiting() | self.senders.waiting() | self.joiners.waiting();
        let is_rendezvous = self.capacity == Capacity::Rendezvous;
        if waiting != 0 || is_rendezvous || self.receivers.reserved() > self.store.len() {
            self.settle_all(effects);
        }
    }

    fn settle_all(&mut self, effects: &mut Effects<T>) {
        self.settle_senders(effects);
        self.settle_receivers(effects);
        self.complete_batches(effects);
        if self.is_last() {
            self.receivers.wakers(&mut effects.wake_all);
        }
        if self.is_idle() {
            while let Some((key, _)) = self.joiners.first() {
                effects.wake(self.joiners.grant(key, 1));
            }
        }
    }

    /// Wakes a batch that waits for more than can come: it would wait for senders, and they for it; or for nobody.
    fn complete_batches(&mut self, effects: &mut Effects<T>) {
        if self.senders.waiting() > 0 || self.is_closed || !self.has_room(1) {
            effects.wake(self.receivers.content());
        }
    }

    /// Refuses new items. Returns whether it did not before.
    /// A cause that comes too late is left where it is: its destructor is the user's.
    pub(crate) fn close(
        &mut self,
        cause: &mut Option<CloseCause>,
        effects: &mut Effects<T>,
    ) -> bool {
        if std::mem::replace(&mut self.is_closed, true) {
            return false;
        }
        self.cause = cause.take();
        self.fail_senders(effects);
        self.settle(effects);
        true
    }

    /// Closes, and takes out all that is left.
    pub(crate) fn abort(&mut self, effects: &mut Effects<T>) -> Vec<T> {
        self.close(&mut None, effects);
        self.is_aborted = true;
        let rest = self.clear();
        self.settle(effects);
        rest
    }

    /// Takes out all that is left. No sender waits for any of it: they have failed.
    fn clear(&mut self) -> Vec<T> {
        let mut rest = Vec::with_capacity(self.store.len());
        while let Some((item, tag, _)) = self.store.take() {
            self.vacate(tag.weight);
            rest.push(item);
        }
        rest
    }

    fn fail_senders(&mut self, effects: &mut Effects<T>) {
        let unsent = self.store.withdraw_all();
        self.returned.extend(unsent);
        self.senders.wakers(&mut effects.wake_all);
        self.parked.wakers(&mut effects.wake_all);
        self.watchers.wakers(&mut effects.wake_all);
    }

    pub(crate) fn add_sender(&mut self) {
        self.sender_count += 1;
    }

    pub(crate) fn add_receiver(&mut self) {
        self.receiver_count += 1;
    }

    pub(crate) fn remove_sender(&mut self, effects: &mut Effects<T>) {
        self.sender_count -= 1;
        if self.sender_count == 0 {
            self.settle(effects);
        }
    }

    pub(crate) fn remove_receiver(&mut self, effects: &mut Effects<T>) {
        self.receiver_count -= 1;
        if self.receiver_count > 0 {
            return;
        }
        if !self.is_closed {
            self.fail_senders(effects);
        }
        let rest = self.clear();
        for item in rest {
            self.discard(item, Discarded::Abandoned, effects);
        }
        self.settle(effects);
    }

    /// Has the hook told of an item that goes; until it has been, nothing is over (N7).
    fn discard(&mut self, item: T, why: Discarded, effects: &mut Effects<T>) {
        self.totals.discarded += 1;
        self.telling += 1;
        effects.discards.push((item, why));
    }

    /// So many have been told of.
    pub(crate) fn told(&mut self, count: usize, effects: &mut Effects<T>) {
        self.telling -= count;
        self.settle(effects);
    }
}

//! A limit on how many children run at once: a slot is taken before the task exists.
//!
//! | a slot is   | taken by                                   | comes back                                  |
//! |-------------|--------------------------------------------|---------------------------------------------|
//! | its own     | a spawner, first come first served         | when the child's future is dropped          |
//! | lent        | a child of a scope inside a child with one | the same, to the child that lent it         |
//!
//! L1. `free > 0` only while nobody waits; so whoever tries cannot overtake whoever waits. L2. Whoever waits is in the queue, or
//! has been granted a slot, or both are over: a grant is given under the lock and taken, or given back, once. L3. A child
//! with a slot that waits for a scope inside it needs no slot of its own meanwhile, and lends it: groups inside one another
//! that share a budget always go on, whatever its size. L4. A lent slot whose lender has ended keeps the lender's place.
//! L5. Wakers are woken and dropped outside the lock.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use crate::cancel::{Cancelled, Token};
use crate::observe::TaskId;
use crate::state::Core;
use crate::sync::{Arc, Lock};

/// A budget of slots that groups share: at most so many of their children run at once.
///
/// Hand a clone to every group that takes part, and limit it with [`TaskGroup::limit`](crate::TaskGroup::limit). A child
/// with a slot that opens a scope of its own, limited by the same budget, lends its slot to that scope's children while it
/// waits for them: a budget of one is enough for groups nested to any depth.
///
/// # Fairness
///
/// First come, first served. Whoever only tries never overtakes whoever waits.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
/// use ringfence::{Slots, scope};
///
/// let disk = Slots::new(4);
/// scope(async |group| {
///     let limited = group.limit(&disk);
///     for _ in 0..100 {
///         limited.spawn(async { /* at most four at once */ Ok(()) }).await;
///     }
///     Ok(())
/// })
/// .await
/// # }
/// ```
#[derive(Clone)]
pub struct Slots {
    pool: Arc<Pool>,
    is_shared: bool,
}

impl Slots {
    /// A budget of `limit` slots.
    ///
    /// # Panics
    ///
    /// If `limit` is 0: nothing would ever run.
    #[must_use]
    #[track_caller]
    pub fn new(limit: usize) -> Self {
        assert!(limit > 0, "ringfence: a limit of 0 would let nothing run");
        Self {
            pool: Arc::new(Pool {
                limit,
                state: Lock::new(State {
                    free: limit,
                    ..State::default()
                }),
            }),
            is_shared: true,
        }
    }

    /// Returns how many slots there are.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.pool.limit
    }

    /// Returns how many slots are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.pool.state.lock().free
    }
}

/// A budget of its own for one group.
///
/// # Panics
///
/// If it is 0.
impl From<usize> for Slots {
    #[track_caller]
    fn from(limit: usize) -> Self {
        Self {
            is_shared: false,
            ..Self::new(limit)
        }
    }
}

impl From<&Self> for Slots {
    fn from(slots: &Self) -> Self {
        slots.clone()
    }
}

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots")
            .field("limit", &self.limit())
            .field("free", &self.free())
            .finish()
    }
}

struct Pool {
    limit: usize,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    free: usize,
    /// Those who wait, first come first.
    queue: BTreeMap<u64, Waiter>,
    /// Slots that were given to somebody who has not come for them yet.
    granted: HashMap<u64, Kind>,
    lenders: HashMap<TaskId, Lender>,
    next: u64,
}

struct Waiter {
    waker: Waker,
    lender: Option<TaskId>,
}

#[derive(Default)]
struct Lender {
    is_out: bool,
    /// Those who wait for this slot among others.
    queue: BTreeSet<u64>,
    /// What the lender itself had, if it has ended before the slot came back (L4).
    left: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    Lent(TaskId),
}

impl State {
    fn take(&mut self, lender: Option<TaskId>) -> Option<Kind> {
        let lending = lender.and_then(|id| Some((id, self.lenders.get_mut(&id)?)));
        if let Some((id, lender)) = lending.filter(|(_, lender)| !lender.is_out) {
            lender.is_out = true;
            return Some(Kind::Lent(id));
        }
        self.free = self.free.checked_sub(1)?;
        Some(Kind::Own)
    }

    fn enqueue(&mut self, lender: Option<TaskId>, waker: Waker) -> u64 {
        let ticket = self.next;
        self.next += 1;
        if let Some(lender) = lender.and_then(|id| self.lenders.get_mut(&id)) {
            lender.queue.insert(ticket);
        }
        self.queue.insert(ticket, Waiter { waker, lender });
        ticket
    }

    /// Takes somebody out of the queue.
    fn dequeue(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.queue.remove(&ticket)?;
        if let Some(lender) = waiter.lender.and_then(|id| self.lenders.get_mut(&id)) {
            lender.queue.remove(&ticket);
        }
        Some(waiter)
    }

    /// Gives a slot back, to whoever is first among those who can use it.
    fn give_back(&mut self, mut kind: Kind) -> Option<Waker> {
        loop {
            let next = match kind {
                Kind::Own => self.queue.keys().next().copied(),
                Kind::Lent(id) => {
                    let lender = self.lenders.get_mut(&id)?;
                    if let Some(left) = lender.left {
                        self.lenders.remove(&id);
                        kind = left;
                        continue;
                    }
                    lender.queue.first().copied()
                }
            };
            let Some(ticket) = next else {
                match kind {
                    Kind::Own => self.free += 1,
                    Kind::Lent(id) => {
                        if let Some(lender) = self.lenders.get_mut(&id) {
                            lender.is_out = false;
                        }
                    }
                }
                return None;
            };
            self.granted.insert(ticket, kind);
            return self.dequeue(ticket).map(|waiter| waiter.waker);
        }
    }
}

/// A slot, held for a child.
pub(crate) struct Slot {
    pool: Arc<Pool>,
    kind: Kind,
    /// The child, once it runs, if it can lend the slot.
    lender: Option<TaskId>,
    is_shared: bool,
}

impl Slot {
    /// Notes which child has the slot, so that scopes inside it can borrow it.
    fn settle(&mut self) {
        if !self.is_shared || self.lender.is_some() {
            return;
        }
        self.lender = crate::context::task_id();
        if let Some(id) = self.lender {
            self.pool.state.lock().lenders.insert(id, Lender::default());
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let waker = {
            let mut state = self.pool.state.lock();
            let lender = self
                .lender
                .and_then(|id| Some((id, state.lenders.get_mut(&id)?)));
            match lender {
                Some((_, lender)) if lender.is_out => {
                    lender.left = Some(self.kind); // L4
                    return;
                }
                Some((id, _)) => {
                    state.lenders.remove(&id);
                }
                None => {}
            }
            state.give_back(self.kind)
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The way to a budget's slots from one group.
#[derive(Clone)]
pub(crate) struct Gate {
    slots: Slots,
    lender: Option<TaskId>,
}

impl Gate {
    pub(crate) fn new(slots: Slots, core: &Core) -> Self {
        let lender = slots.is_shared.then(|| {
            let state = slots.pool.state.lock();
            let around = std::iter::successors(core.opened_in(), |(core, _)| core.opened_in());
            around
                .map(|(core, opener)| core.task_id(opener))
                .find(|id| state.lenders.contains_key(id))
        });
        Self {
            slots,
            lender: lender.flatten(),
        }
    }

    pub(crate) fn slots(&self) -> &Slots {
        &self.slots
    }

    fn slot(&self, kind: Kind) -> Slot {
        Slot {
            pool: self.slots.pool.clone(),
            kind,
            lender: None,
            is_shared: self.slots.is_shared,
        }
    }

    pub(crate) fn try_take(&self) -> Option<Slot> {
        let kind = self.slots.pool.state.lock().take(self.lender)?;
        Some(self.slot(kind))
    }

    /// Waits for a slot, or for the signal that ends the wait: then there is none.
    pub(crate) fn take(&self, token: Token) -> Taking<'_> {
        Taking {
            gate: self,
            token,
            cancelled: None,
            ticket: None,
        }
    }
}

/// See [`Gate::take`].
pub(crate) struct Taking<'a> {
    gate: &'a Gate,
    token: Token,
    cancelled: Option<Cancelled>,
    ticket: Option<u64>,
}

impl Future for Taking<'_> {
    type Output = Option<Slot>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Slot>> {
        let me = &mut *self;
        if me.token.is_cancelled() {
            return Poll::Ready(None); // what was granted is given back when this is dropped
        }
        let step = ready!(crate::runtime::poll_step(cx));
        let waker = cx.waker().clone();
        let mut state = me.gate.slots.pool.state.lock();
        let kind = match me.ticket {
            None => state.take(me.gate.lender),
            Some(ticket) => state.granted.remove(&ticket),
        };
        if let Some(kind) = kind {
            drop(state);
            me.ticket = None;
            step.made_progress();
            return Poll::Ready(Some(me.gate.slot(kind)));
        }
        let old = match me.ticket {
            None => {
                me.ticket = Some(state.enqueue(me.gate.lender, waker));
                None
            }
            Some(ticket) => {
                let waiter = state.queue.get_mut(&ticket);
                waiter.map(|waiter| std::mem::replace(&mut waiter.waker, waker))
            }
        };
        drop(state);
        drop(old);
        let cancelled = me.cancelled.get_or_insert_with(|| me.token.cancelled());
        Pin::new(cancelled).poll(cx).map(|()| None)
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let (waiter, next) = {
            let mut state = self.gate.slots.pool.state.lock();
            let waiter = state.dequeue(ticket);
            let granted = state.granted.remove(&ticket);
            (waiter, granted.and_then(|kind| state.give_back(kind)))
        };
        drop(waiter);
        if let Some(next) = next {
            next.wake();
        }
    }
}

pin_project! {
    /// A child's future with its slot, which comes back when the future is dropped.
    pub(crate) struct WithSlot<F> {
        #[pin]
        future: F,
        slot: Slot,
    }
}

impl<F> WithSlot<F> {
    pub(crate) fn new(future: F, slot: Slot) -> Self {
        Self { future, slot }
    }

    /// Gives the future back: it was never polled.
    pub(crate) fn into_inner(self) -> F {
        self.future
    }
}

impl<F: Future> Future for WithSlot<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        this.slot.settle();
        this.future.poll(cx)
    }
}

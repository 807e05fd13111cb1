//! A limit on how many children run at once: a slot is taken before the task exists.
//!
//! | a slot is   | taken by                                   | comes back                                  |
//! |-------------|--------------------------------------------|---------------------------------------------|
//! | its own     | a spawner, first come first served         | when the child's future is dropped, and the scopes that it dropped are gone |
//! | lent        | a child of a scope inside a child with one | the same, to the child that lent it         |
//!
//! L1. `free > 0` only while nobody waits; so whoever tries cannot overtake whoever waits. L2. Whoever waits is in the queue, or
//! has been granted a slot, or both are over: a grant is given under the lock and taken, or given back, once. L3. A child
//! with a slot that waits for a scope inside it needs no slot of its own meanwhile, and lends it: groups inside one another
//! that share a budget always go on, whatever its size. L4. A lent slot whose lender has ended keeps the lender's place.
//! L5. Wakers are woken and dropped outside the lock, and one that throws harms nobody. L6. Nobody waits for a slot that it has
//! itself: whoever has one waits only where it can lend it, and is refused elsewhere.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pin_project_lite::pin_project;

use crate::cancel::{Cancelled, Token};
use crate::detail::{self, WaitsFor};
use crate::group::spawn::Birth;
use crate::observe::{CancelReason, TaskId, wake};
use crate::sorted_map::SortedMap;
use crate::state::Core;
use crate::sync::{Arc, Lock, Ordering, PlainFlag};

/// A budget of slots that groups share: at most so many of their children run at once.
///
/// Hand a clone to every group that takes part, and limit it with [`TaskGroup::limit`](crate::TaskGroup::limit). A child
/// with a slot that opens a scope of its own, limited by the same budget, lends its slot to that scope's children, one at a
/// time: a budget of one is enough for groups nested to any depth. What the child itself does meanwhile is not counted.
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
pub struct Slots {
    pool: Arc<Pool>,
    /// Whether children with a slot can come by this budget again, and so have to be known.
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
        let limit = crate::smallest::capacity(limit);
        Self {
            pool: Arc::new(Pool {
                limit,
                is_cloned: PlainFlag::new(false),
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

/// A budget for one view alone, as long as nobody clones it. If it is 0, that is a panic.
impl From<usize> for Slots {
    #[track_caller]
    fn from(limit: usize) -> Self {
        Self {
            is_shared: false,
            ..Self::new(limit)
        }
    }
}

/// From now on the children of all views know that they share it.
impl Clone for Slots {
    fn clone(&self) -> Self {
        self.pool.is_cloned.store(true, Ordering::Relaxed);
        Self {
            pool: self.pool.clone(),
            is_shared: true,
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
    /// Whether there is more than one handle. Who has another one has it from here, so that the order is clear.
    is_cloned: PlainFlag,
    state: Lock<State>,
}

#[derive(Default)]
struct State {
    free: usize,
    /// Those who wait, first come first.
    queue: SortedMap<u64, Waiter>,
    /// Slots that were given to somebody who has not come for them yet.
    granted: SortedMap<u64, Kind>,
    lenders: SortedMap<TaskId, Lender>,
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
    queue: SortedMap<u64, ()>,
    /// What the lender itself had, if it has ended before the slot came back (L4).
    left: Option<Kind>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    Lent(TaskId),
}

impl State {
    /// Finds the nearest child with a slot, from a place outwards.
    fn holder(&self, place: Option<(&Core, u64)>) -> Option<TaskId> {
        if self.lenders.is_empty() {
            return None;
        }
        Core::tasks_from(place).find(|id| self.lenders.contains_key(*id))
    }

    fn take(&mut self, lender: Option<TaskId>) -> Option<Kind> {
        let lending = lender.and_then(|id| Some((id, self.lenders.get_mut(id)?)));
        if let Some((id, lender)) = lending.filter(|(_, lender)| !lender.is_out) {
            lender.is_out = true;
            return Some(Kind::Lent(id));
        }
        self.free = self.free.checked_sub(1)?;
        Some(Kind::Own)
    }

    /// Takes a slot for somebody who comes now, or the one that was given to who waits.
    fn claim(&mut self, ticket: Option<u64>, lender: Option<TaskId>) -> Option<Kind> {
        match ticket {
            None => self.take(lender),
            Some(ticket) => self.granted.remove(ticket),
        }
    }

    fn enqueue(&mut self, lender: Option<TaskId>, waker: Waker) -> u64 {
        let ticket = self.next;
        self.next += 1;
        if let Some(lender) = lender.and_then(|id| self.lenders.get_mut(id)) {
            lender.queue.insert(ticket, ());
        }
        self.queue.insert(ticket, Waiter { waker, lender });
        ticket
    }

    /// Takes somebody out of the queue.
    fn dequeue(&mut self, ticket: u64) -> Option<Waiter> {
        let waiter = self.queue.remove(ticket)?;
        if let Some(lender) = waiter.lender.and_then(|id| self.lenders.get_mut(id)) {
            lender.queue.remove(ticket);
        }
        Some(waiter)
    }

    /// Gives a slot back, to whoever is first among those who can use it.
    fn give_back(&mut self, mut kind: Kind) -> Option<Waker> {
        loop {
            let next = match kind {
                Kind::Own => self.queue.first_key(),
                Kind::Lent(id) => {
                    let lender = self.lenders.get_mut(id)?;
                    if let Some(left) = lender.left {
                        self.lenders.remove(id);
                        kind = left;
                        continue;
                    }
                    lender.queue.first_key()
                }
            };
            let Some(ticket) = next else {
                match kind {
                    Kind::Own => self.free += 1,
                    Kind::Lent(id) => {
                        if let Some(lender) = self.lenders.get_mut(id) {
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
    /// Whether it is dropped by the child.
    has_run: bool,
}

impl Slot {
    /// Notes which child has the slot, so that scopes inside it can borrow it.
    pub(crate) fn settle(&mut self) {
        self.has_run = true;
        if !self.is_shared || self.lender.is_some() {
            return;
        }
        self.lender = crate::context::task_id();
        if let Some(id) = self.lender {
            self.pool.state.lock().lenders.insert(id, Lender::default());
        }
    }
}

#[cfg(all(test, ringfence_loom))]
impl Slot {
    pub(crate) fn is_lent(&self) -> bool {
        self.kind != Kind::Own
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The child has not ended while there are children in scopes that it dropped.
        let adopting = self.has_run.then(crate::context::adopting);
        if let Some(seat) = adopting.flatten() {
            let rest = Self {
                pool: self.pool.clone(),
                has_run: false,
                ..*self
            };
            drop(seat.outlast(Box::new(rest)));
            return;
        }
        let waker = {
            let mut state = self.pool.state.lock();
            let lender = self
                .lender
                .and_then(|id| Some((id, state.lenders.get_mut(id)?)));
            match lender {
                Some((_, lender)) if lender.is_out => {
                    lender.left = Some(self.kind); // L4
                    return;
                }
                Some((id, _)) => {
                    state.lenders.remove(id);
                }
                None => {}
            }
            state.give_back(self.kind)
        };
        wake(waker); // L5
    }
}

/// The way to a budget's slots from one group.
#[derive(Clone)]
pub(crate) struct Gate {
    slots: Slots,
    /// The child with a slot that the group is in.
    lender: Option<TaskId>,
    /// The group's.
    token: Token,
}

impl Gate {
    pub(crate) fn new(mut slots: Slots, core: &Arc<Core>) -> Self {
        slots.is_shared |= slots.pool.is_cloned.load(Ordering::Relaxed);
        let lender = slots.is_shared.then(|| {
            let state = slots.pool.state.lock();
            state.holder(core.opened_in())
        });
        Self {
            slots,
            lender: lender.flatten(),
            token: Token::of(core.clone(), 0),
        }
    }

    /// The same for a view that children can take along.
    pub(crate) fn shared(slots: Slots, core: &Arc<Core>) -> Self {
        let is_shared = true;
        Self::new(Slots { is_shared, ..slots }, core)
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
            has_run: false,
        }
    }

    pub(crate) fn try_take(&self) -> Option<Slot> {
        let kind = self.slots.pool.state.lock().take(self.lender)?;
        Some(self.slot(kind))
    }

    /// Waits for a slot for a child of `core`, or for the signal that ends the wait: then there is none.
    pub(crate) fn take<'a>(&'a self, core: &'a Arc<Core>, birth: &'a Birth) -> Taking<'a> {
        Taking {
            gate: self,
            core,
            birth,
            signals: None,
            ticket: None,
        }
    }

    /// L6: `caller` is about to wait. The state is locked.
    fn is_circle(&self, state: &State, caller: Option<&(Arc<Core>, u64)>) -> bool {
        let holder = state.holder(caller.map(|(core, serial)| (&**core, *serial)));
        holder.is_some() && holder != self.lender
    }
}

/// See [`Gate::take`].
pub(crate) struct Taking<'a> {
    gate: &'a Gate,
    core: &'a Arc<Core>,
    birth: &'a Birth,
    /// Made when there is first something to wait for.
    signals: Option<Signals>,
    ticket: Option<u64>,
}

/// What ends the wait: a cancel of the group, or of whoever waits.
struct Signals {
    group: (Token, Cancelled),
    caller: Option<(Token, Cancelled)>,
}

impl Signals {
    fn new(group: &Token, core: &Arc<Core>, caller: Option<&(Arc<Core>, u64)>) -> Self {
        let listen = |token: Token| {
            let cancelled = token.cancelled();
            (token, cancelled)
        };
        let is_body = |(here, serial): &(Arc<Core>, u64)| *serial == 0 && Arc::ptr_eq(here, core);
        Self {
            group: listen(group.clone()),
            caller: (!caller.is_none_or(is_body)).then(|| listen(crate::cancel::token())),
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<CancelReason> {
        for (token, cancelled) in std::iter::once(&mut self.group).chain(&mut self.caller) {
            if Pin::new(cancelled).poll(cx).is_ready() {
                return Poll::Ready(token.reason().unwrap_or(CancelReason::Closed));
            }
        }
        Poll::Pending
    }
}

impl Future for Taking<'_> {
    type Output = Result<Slot, CancelReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let me = &mut *self;
        let polled = match &mut me.signals {
            Some(signals) => signals.poll(cx),
            None => match me.gate.token.reason() {
                Some(reason) => Poll::Ready(reason),
                None => Poll::Pending,
            },
        };
        if let Poll::Ready(reason) = polled {
            return Poll::Ready(Err(reason)); // what was granted is given back when this is dropped
        }
        let step = ready!(crate::runtime::poll_step(cx));
        let is_first = me.signals.is_none();
        let is_shared = me.gate.slots.is_shared;
        let caller = (is_first && is_shared).then(crate::context::current);
        let pool = &me.gate.slots.pool;
        let mut state = pool.state.lock();
        if is_first
            && me
                .gate
                .is_circle(&state, caller.as_ref().and_then(Option::as_ref))
        {
            drop(state);
            panic!(
                "ringfence: a child that has a slot of this limit waits for another one, at {}: once all do that, none goes \
                 on; spawn into a scope inside the child, which lends it the slot, or use `try_spawn`",
                me.birth.location
            );
        }
        let mut kind = state.claim(me.ticket, me.gate.lender);
        let mut waker = None;
        if kind.is_none() {
            // A waker is cloned outside the lock, and only if there is somebody to wake.
            drop(state);
            waker = Some(cx.waker().clone());
            state = pool.state.lock();
            kind = state.claim(me.ticket, me.gate.lender);
        }
        if let Some(kind) = kind {
            drop(state);
            drop(waker);
            me.ticket = None;
            step.made_progress();
            return Poll::Ready(Ok(me.gate.slot(kind)));
        }
        let old = match (me.ticket, waker) {
            (None, Some(waker)) => {
                me.ticket = Some(state.enqueue(me.gate.lender, waker));
                None
            }
            (Some(ticket), Some(waker)) => {
                let waiter = state.queue.get_mut(ticket);
                waiter.map(|waiter| std::mem::replace(&mut waiter.waker, waker))
            }
            (_, None) => None,
        };
        drop(state);
        drop(old);
        detail::waits_for(WaitsFor::Slot);
        if me.signals.is_some() {
            return Poll::Pending; // they have this waker already
        }
        let caller = caller.unwrap_or_else(crate::context::current);
        let signals = Signals::new(&me.gate.token, me.core, caller.as_ref());
        me.signals.insert(signals).poll(cx).map(Err)
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket else { return };
        let (waiter, next) = {
            let mut state = self.gate.slots.pool.state.lock();
            let waiter = state.dequeue(ticket);
            let granted = state.granted.remove(ticket);
            (waiter, granted.and_then(|kind| state.give_back(kind)))
        };
        drop(waiter);
        wake(next);
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

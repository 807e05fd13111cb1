//! The side that receives.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use super::delivery::Delivery;
use super::error::{RecvError, TryRecvError};
use super::over::{Over, What};
use super::shared::{Shared, Wait};
use super::state::{Effects, State, Turn};
use super::stats::Stats;
use super::store::Tag;
use crate::detail::WaitsFor;
use crate::sync::Arc;
use crate::time::timeout;

/// Receives items from a queue. Clone it for every consumer; when the last one goes, what is left is dropped and senders
/// fail.
pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// Its place among those who wait. A receive that is dropped gives it up.
    key: Option<usize>,
}

impl<T> Receiver<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>) -> Self {
        Self { shared, key: None }
    }

    /// Receives the next item; waits for one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: an item stays in the queue, at its place, until the moment in which this is ready with it.
    ///
    /// # Errors
    ///
    /// [`RecvError`] when the queue has ended: closed, or without senders; and nothing is in it, in delivery, or still to
    /// come from a permit. It holds the cause, if the queue was closed with one.
    ///
    /// # Fairness
    ///
    /// Receives that wait are served in the order in which they came, and nobody overtakes them. Once all that will ever come is
    /// there (no sender, or closed; no delivery and no permit), every receiver takes what it finds: then an item that one was
    /// woken for may go to another, and the first gets the next one, or the end.
    pub fn recv(&mut self) -> impl Future<Output = Result<T, RecvError>> {
        Receiving {
            receiver: self,
            take: Item,
        }
    }

    /// Receives the next item if one is there that nobody waits for.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`].
    pub fn try_recv(&mut self) -> Result<T, TryRecvError> {
        self.leave();
        self.try_take(Item)
    }

    /// Receives the next item as a [`Delivery`], which counts as unfinished until it is done; waits for one.
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub fn deliver(&mut self) -> impl Future<Output = Result<Delivery<T>, RecvError>> {
        Delivering(Receiving {
            receiver: self,
            take: Tagged,
        })
    }

    /// Receives the next item as a [`Delivery`] if one is there that nobody waits for.
    ///
    /// # Errors
    ///
    /// [`TryRecvError`].
    pub fn try_deliver(&mut self) -> Result<Delivery<T>, TryRecvError> {
        self.leave();
        let (item, tag) = self.try_take(Tagged)?;
        Ok(Delivery::new(self.shared.clone(), item, tag))
    }

    /// Waits for an item, and receives up to `max` of those that are there; appends them to `into`.
    ///
    /// Returns how many; at once 0 if `max` is 0. One lock serves all of them.
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub async fn recv_many(&mut self, into: &mut Vec<T>, max: usize) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        let before = into.len();
        let taken = Receiving {
            receiver: self,
            take: Many(into, max),
        };
        taken.await?;
        Ok(into.len() - before)
    }

    /// As [`recv_many`](Self::recv_many), for deliveries.
    ///
    /// # Cancel safety
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    pub async fn deliver_many(
        &mut self,
        into: &mut Vec<Delivery<T>>,
        max: usize,
    ) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        let taken = Receiving {
            receiver: &mut *self,
            take: ManyTagged(max),
        };
        let taken = taken.await?;
        Ok(self.wrap(taken, into))
    }

    /// Receives a batch: up to `max` items, as soon as so many are there, or `linger` after the first one.
    ///
    /// Appends them to `into`, and returns how many: at least one, unless `max` is 0. It waits for no more than the queue
    /// can hold, nor while a sender waits for room, nor once the queue is closed. While it lingers, what comes is for it: receivers
    /// that wait behind it are served when it is complete.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the items stay in the queue until the batch is complete.
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Panics
    ///
    /// When it has to linger outside a tokio runtime, or in one whose time driver is not enabled.
    pub async fn recv_batch(
        &mut self,
        into: &mut Vec<T>,
        max: usize,
        linger: Duration,
    ) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        let before = into.len();
        self.batch(max, linger, &mut Many(into, max)).await?;
        Ok(into.len() - before)
    }

    /// As [`recv_batch`](Self::recv_batch), for deliveries.
    ///
    /// # Cancel safety
    ///
    /// As [`recv_batch`](Self::recv_batch).
    ///
    /// # Errors
    ///
    /// As [`recv`](Self::recv).
    ///
    /// # Panics
    ///
    /// As [`recv_batch`](Self::recv_batch).
    pub async fn deliver_batch(
        &mut self,
        into: &mut Vec<Delivery<T>>,
        max: usize,
        linger: Duration,
    ) -> Result<usize, RecvError> {
        if max == 0 {
            return Ok(0);
        }
        let taken = self.batch(max, linger, &mut ManyTagged(max)).await?;
        Ok(self.wrap(taken, into))
    }

    fn wrap(&self, taken: Vec<(T, Tag)>, into: &mut Vec<Delivery<T>>) -> usize {
        let count = taken.len();
        let deliveries = taken
            .into_iter()
            .map(|(item, tag)| Delivery::new(self.shared.clone(), item, tag));
        into.extend(deliveries);
        count
    }

    async fn batch<F: Take<T>>(
        &mut self,
        max: usize,
        linger: Duration,
        take: &mut F,
    ) -> Result<F::Output, RecvError> {
        self.leave();
        let want = max.min(self.shared.lock().limit()).max(1);
        let mut batch = Batch {
            receiver: self,
            take,
            want,
            is_lingering: false,
        };
        loop {
            batch.is_lingering = false;
            if let Some(taken) = poll_fn(|cx| batch.poll(cx)).await? {
                return Ok(taken);
            }
            batch.is_lingering = true;
            if let Ok(taken) = timeout(linger, poll_fn(|cx| batch.poll(cx))).await {
                if let Some(taken) = taken? {
                    return Ok(taken);
                }
            }
            // Nothing there after all: it gave way to newer items, or was taken back.
            if let Some(taken) = batch.take_some() {
                return taken;
            }
        }
    }

    /// Closes the queue: senders fail from now on, receivers get what is in it, and then its end.
    ///
    /// Returns whether it was open.
    #[expect(
        clippy::must_use_candidate,
        reason = "it is for what it does, and mostly called so"
    )]
    pub fn close(&self) -> bool {
        self.shared
            .step(|state, effects| state.close(&mut None, effects))
    }

    /// Closes the queue and returns what is left in it, in order.
    ///
    /// What is in delivery is not there. What of that comes back is in the queue again, for another `abort`, or for a
    /// receiver; [`join`](Self::join) does not wait for it any more.
    #[must_use = "this is what was not done; use `close` to let it drain"]
    pub fn abort(&self) -> Vec<T> {
        self.shared.step(State::abort)
    }

    /// Waits until every accepted item was received, and every [`Delivery`] of one is done.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits.
    pub fn join(&self) -> impl Future<Output = ()> {
        Over::new(&self.shared, What::Finished)
    }

    /// Returns how many items are in the queue, without those in delivery.
    #[must_use]
    pub fn len(&self) -> usize {
        self.shared.lock().len()
    }

    /// Asks whether no item is in the queue; some may be in delivery.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the figures of the queue, all of one moment.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::of(&self.shared.lock())
    }

    /// Gives up the place that a poll of the stream left.
    fn leave(&mut self) {
        if let Some(key) = self.key.take() {
            self.shared
                .step(|state, effects| state.unpark_receiver(key, effects));
        }
    }

    fn try_take<F: Take<T>>(&self, mut take: F) -> Result<F::Output, TryRecvError> {
        if let Some(taken) = take.take_alone(&mut self.shared.lock()) {
            return Ok(taken);
        }
        self.shared.step(
            |state, effects| match state.receive_turn(&mut None, false, effects) {
                Turn::Now => take.take(state, effects).ok_or(TryRecvError::Empty),
                Turn::Wait => Err(TryRecvError::Empty),
                Turn::Ended => Err(TryRecvError::Closed(RecvError::new(state.cause.clone()))),
            },
        )
    }

    #[cfg(feature = "stream")]
    pub(crate) fn has_ended(&self) -> bool {
        self.shared.lock().has_ended()
    }

    #[cfg(feature = "stream")]
    pub(crate) fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Result<T, RecvError>> {
        let mut turn = TakeTurn {
            key: &mut self.key,
            take: &mut Item,
        };
        self.shared.poll(cx, &mut turn)
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        self.shared.lock().add_receiver();
        Self::new(self.shared.clone())
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        self.leave();
        self.shared.step(State::remove_receiver);
    }
}

impl<T> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().describe("Receiver", f)
    }
}

/// What is taken when it is one's turn.
trait Take<T> {
    type Output;

    /// The short way, if it concerns nobody else.
    #[inline]
    fn take_alone(&mut self, _: &mut State<T>) -> Option<Self::Output> {
        None
    }

    fn take(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output>;
}

struct Item;

impl<T> Take<T> for Item {
    type Output = T;

    #[inline]
    fn take_alone(&mut self, state: &mut State<T>) -> Option<T> {
        state.take_alone(false)
    }

    fn take(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<T> {
        state.take(false, effects).map(|(item, _)| item)
    }
}

struct Tagged;

impl<T> Take<T> for Tagged {
    type Output = (T, Tag);

    #[inline]
    fn take_alone(&mut self, state: &mut State<T>) -> Option<(T, Tag)> {
        state.take_alone(true).map(|item| (item, Tag::PLAIN))
    }

    fn take(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<(T, Tag)> {
        state.take(true, effects)
    }
}

struct Many<'a, T>(&'a mut Vec<T>, usize);

impl<T> Take<T> for Many<'_, T> {
    type Output = ();

    fn take(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<()> {
        state.take_many(self.1, self.0, effects);
        Some(())
    }
}

struct ManyTagged(usize);

impl<T> Take<T> for ManyTagged {
    type Output = Vec<(T, Tag)>;

    fn take(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output> {
        let mut taken = Vec::new();
        state.take_many_tagged(self.0, &mut taken, effects);
        Some(taken)
    }
}

/// A turn to take something out.
struct TakeTurn<'a, F> {
    key: &'a mut Option<usize>,
    take: &'a mut F,
}

impl<T, F: Take<T>> Wait<T> for TakeTurn<'_, F> {
    type Output = Result<F::Output, RecvError>;
    const WAITS_FOR: WaitsFor = WaitsFor::Item;

    #[inline]
    fn attempt_alone(&mut self, state: &mut State<T>) -> Option<Self::Output> {
        if self.key.is_some() {
            return None;
        }
        self.take.take_alone(state).map(Ok)
    }

    fn attempt(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output> {
        match state.receive_turn(self.key, true, effects) {
            Turn::Now => self.take.take(state, effects).map(Ok),
            Turn::Wait => None,
            Turn::Ended => Some(Err(RecvError::new(state.cause.clone()))),
        }
    }

    fn is_parked(&self, state: &mut State<T>, waker: &Waker) -> bool {
        self.key
            .is_some_and(|key| state.receivers.would_wake(key, waker))
    }

    fn park(&mut self, state: &mut State<T>, waker: Waker, effects: &mut Effects<T>) {
        state.park_receiver(self.key, 1, waker, effects);
    }
}

/// A receive under way.
struct Receiving<'a, T, F> {
    receiver: &'a mut Receiver<T>,
    take: F,
}

// Nothing in it is pinned.
impl<T, F> Unpin for Receiving<'_, T, F> {}

impl<T, F: Take<T>> Future for Receiving<'_, T, F> {
    type Output = Result<F::Output, RecvError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let mut turn = TakeTurn {
            key: &mut this.receiver.key,
            take: &mut this.take,
        };
        this.receiver.shared.poll(cx, &mut turn)
    }
}

impl<T, F> Drop for Receiving<'_, T, F> {
    #[inline]
    fn drop(&mut self) {
        self.receiver.leave();
    }
}

/// A receive of a delivery under way.
struct Delivering<'a, T>(Receiving<'a, T, Tagged>);

impl<T> Future for Delivering<'_, T> {
    type Output = Result<Delivery<T>, RecvError>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let receiving = &mut self.get_mut().0;
        let result = ready!(Pin::new(&mut *receiving).poll(cx));
        let shared = &receiving.receiver.shared;
        Poll::Ready(result.map(|(item, tag)| Delivery::new(shared.clone(), item, tag)))
    }
}

/// A batch under way.
struct Batch<'a, T, F> {
    receiver: &'a mut Receiver<T>,
    take: &'a mut F,
    want: usize,
    /// The first item is there.
    is_lingering: bool,
}

impl<T, F: Take<T>> Batch<'_, T, F> {
    /// Ready with the batch when it is complete; before it lingers, also with nothing, when the first item is there.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<F::Output>, RecvError>> {
        let mut turn = BatchTurn {
            turn: TakeTurn {
                key: &mut self.receiver.key,
                take: &mut *self.take,
            },
            want: self.want,
            is_lingering: self.is_lingering,
        };
        self.receiver.shared.poll(cx, &mut turn)
    }

    /// Takes what there is.
    fn take_some(&mut self) -> Option<Result<F::Output, RecvError>> {
        let mut turn = TakeTurn {
            key: &mut self.receiver.key,
            take: &mut *self.take,
        };
        self.receiver
            .shared
            .step(|state, effects| turn.attempt(state, effects))
    }
}

impl<T, F> Drop for Batch<'_, T, F> {
    fn drop(&mut self) {
        self.receiver.leave();
    }
}

struct BatchTurn<'a, F> {
    turn: TakeTurn<'a, F>,
    want: usize,
    is_lingering: bool,
}

impl<T, F: Take<T>> Wait<T> for BatchTurn<'_, F> {
    type Output = Result<Option<F::Output>, RecvError>;
    const WAITS_FOR: WaitsFor = WaitsFor::Item;

    fn attempt(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output> {
        let (has_some, is_full) = state.batch_turn(*self.turn.key, self.want);
        if is_full {
            let taken = self.turn.attempt(state, effects)?;
            return Some(taken.map(Some));
        }
        (has_some && !self.is_lingering).then_some(Ok(None))
    }

    fn is_parked(&self, state: &mut State<T>, waker: &Waker) -> bool {
        self.turn.is_parked(state, waker)
    }

    fn park(&mut self, state: &mut State<T>, waker: Waker, effects: &mut Effects<T>) {
        state.park_receiver(self.turn.key, self.want, waker, effects);
    }
}

//! The side that sends.

use std::error::Error;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::error::SendError;
use super::over::{Over, What};
use super::permit::{OwnedPermit, Permit, Reserving, leave};
use super::shared::{Shared, Wait};
use super::state::{Effects, Refusal, State};
use super::stats::Stats;
use super::store::Place;
use crate::detail::WaitsFor;
use crate::sync::Arc;
use crate::time::timeout;

/// Sends items into a queue. Clone it for every producer; the last one to go lets the queue drain and end.
pub struct Sender<T> {
    shared: Arc<Shared<T>>,
}

impl<T> Sender<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>) -> Self {
        Self { shared }
    }

    #[cfg(feature = "stream")]
    pub(crate) fn shared(&self) -> &Arc<Shared<T>> {
        &self.shared
    }

    /// Sends an item; waits for room.
    ///
    /// With another [`Overflow`](super::Overflow) than [`Wait`](super::Overflow::Wait) it never waits.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a send that is dropped before it is ready has sent nothing, and drops its item. Use
    /// [`reserve`](Self::reserve) where the item must stay with you until there is room. On a rendezvous, the item of a send
    /// that is dropped may just have been received.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the item, if the queue is closed, the item too heavy, or the queue full and told to refuse.
    ///
    /// # Fairness
    ///
    /// Sends that wait are served in the order in which they came, and nobody overtakes them. A send that is kept and not
    /// polled keeps the room that was set aside for it: at capacity 1, nobody else can send meanwhile.
    pub fn send(&self, item: T) -> impl Future<Output = Result<(), SendError<T>>> {
        Sending::new(&self.shared, item)
    }

    /// Sends an item if there is room for it now and nobody waits.
    ///
    /// # Errors
    ///
    /// [`SendError`], with the item.
    pub fn try_send(&self, item: T) -> Result<(), SendError<T>> {
        let meta = self.shared.measure(&item);
        let mut item = Some(item);
        if self.shared.lock().put_alone(&mut item) {
            return Ok(());
        }
        let result = self
            .shared
            .step(|state, effects| state.offer(&mut item, meta, effects));
        SendError::give_back(result, item)
    }

    /// Sends an item; waits for room, for `limit` at most.
    ///
    /// # Cancel safety
    ///
    /// As [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), and [`SendError::TimedOut`] with the item, which is not in the queue then.
    ///
    /// # Panics
    ///
    /// When it has to wait outside a tokio runtime, or in one whose time driver is not enabled.
    pub async fn send_timeout(&self, item: T, limit: Duration) -> Result<(), SendError<T>> {
        let mut sending = Sending::new(&self.shared, item);
        if let Ok(result) = timeout(limit, &mut sending).await {
            return result;
        }
        match sending.turn.give_up(&self.shared) {
            Some(item) => Err(SendError::TimedOut(item)),
            // Taken from hand to hand in the same instant.
            None => Ok(()),
        }
    }

    /// Sends all of `items`, in order, and takes each out of the buffer as it is sent; waits for room where needed.
    ///
    /// Sends of others may come between. One lock serves many items.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not sent is still in `items`.
    ///
    /// # Errors
    ///
    /// [`SendError`], without an item: what was not sent is still in `items`, the refused one first.
    pub async fn send_many(&self, items: &mut Vec<T>) -> Result<(), SendError<()>> {
        if self.shared.is_plain() {
            let mut sending = SendingMany {
                shared: &self.shared,
                items,
                is_reversed: false,
                key: None,
            };
            let result = poll_fn(|cx| sending.poll(cx)).await;
            return result.map_err(|refusal| SendError::new(refusal, ()));
        }
        items.reverse();
        // Back into order, however this ends.
        let rest = Reversed(items);
        while let Some(item) = rest.0.last() {
            let meta = self.shared.measure(item);
            let permit = if self.shared.waits() {
                Some(self.reserve_weight(meta.1).await?)
            } else {
                None
            };
            let mut item = rest.0.pop();
            let result = match permit {
                Some(permit) => permit.send_measured(&mut item, meta),
                None => self
                    .shared
                    .step(|state, effects| state.offer(&mut item, meta, effects)),
            };
            if let Err(refusal) = result {
                rest.0.extend(item);
                return Err(SendError::new(refusal, ()));
            }
        }
        Ok(())
    }

    /// Waits for room for one item, and holds it: the item stays with the caller until then.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is held by a dropped call, and a dropped [`Permit`] gives its room to the next.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`].
    pub async fn reserve(&self) -> Result<Permit<'_, T>, SendError<()>> {
        self.reserve_weight(1).await
    }

    /// Waits for room for an item of that weight, and holds it.
    ///
    /// # Cancel safety
    ///
    /// As [`reserve`](Self::reserve).
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`], and [`SendError::TooHeavy`] if the queue can never hold it.
    pub async fn reserve_weight(&self, weight: usize) -> Result<Permit<'_, T>, SendError<()>> {
        let weight = weight.max(1);
        Reserving::room(&self.shared, weight).await?;
        Ok(Permit::new(&self.shared, weight))
    }

    /// As [`reserve_weight`](Self::reserve_weight), with a permit that borrows nothing: for one that goes to another task.
    ///
    /// The end of the queue waits for it as for any other permit, also when the last sender is gone.
    ///
    /// # Cancel safety
    ///
    /// As [`reserve`](Self::reserve).
    ///
    /// # Errors
    ///
    /// As [`reserve_weight`](Self::reserve_weight).
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// use ringfence::queue;
    ///
    /// let (sender, mut receiver) = queue::bounded(1);
    /// let permit = sender.reserve_owned(1).await.unwrap();
    /// tokio::spawn(async move { permit.send("made elsewhere") });
    /// assert_eq!(receiver.recv().await.unwrap(), "made elsewhere");
    /// # }
    /// ```
    pub async fn reserve_owned(&self, weight: usize) -> Result<OwnedPermit<T>, SendError<()>> {
        let weight = weight.max(1);
        Reserving::room(&self.shared, weight).await?;
        Ok(OwnedPermit::new(self.shared.clone(), weight))
    }

    /// Holds room for one item, if there is some and nobody waits.
    ///
    /// # Errors
    ///
    /// [`SendError::Full`] and [`SendError::Closed`].
    pub fn try_reserve(&self) -> Result<Permit<'_, T>, SendError<()>> {
        let turn = self
            .shared
            .step(|state, effects| state.permit_turn(&mut None, 1, effects));
        let refusal = match turn {
            Ok(true) => {
                return Ok(Permit::new(&self.shared, 1));
            }
            Ok(false) => Refusal::Full,
            Err(refusal) => refusal,
        };
        Err(SendError::new(refusal, ()))
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

    /// As [`close`](Self::close); receivers find the cause in the [`RecvError`](super::RecvError) at the end.
    pub fn close_with(&self, cause: impl Into<Box<dyn Error + Send + Sync>>) -> bool {
        let mut cause = Some(cause.into().into());
        self.shared
            .step(|state, effects| state.close(&mut cause, effects))
    }

    /// Asks whether nothing can be sent any more: the queue was closed, or the last receiver is gone.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.shared.lock().refuses()
    }

    /// Waits until nothing can be sent any more.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits.
    pub fn closed(&self) -> impl Future<Output = ()> {
        Over::new(&self.shared, What::Closed)
    }

    /// Waits until every accepted item was received, and every [delivery](super::Delivery) of one is done.
    ///
    /// Ready at once if that is so now. It does not need the queue to be closed, and may be awaited again.
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
}

impl<T> Clone for Sender<T> {
    fn clone(&self) -> Self {
        self.shared.lock().add_sender();
        Self::new(self.shared.clone())
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.shared.step(State::remove_sender);
    }
}

impl<T> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.stats().describe("Sender", f)
    }
}

/// What a send is about: the item, and where it waits.
pub(crate) struct SendTurn<T> {
    /// Out while it waits in the store of a rendezvous.
    item: Option<T>,
    meta: (i64, usize),
    key: Option<usize>,
    at: Option<Place>,
}

impl<T> SendTurn<T> {
    #[inline]
    pub(crate) fn new(shared: &Shared<T>, item: T) -> Self {
        Self {
            meta: shared.measure(&item),
            item: Some(item),
            key: None,
            at: None,
        }
    }

    /// Takes the item back, unless it was sent.
    pub(crate) fn give_up(&mut self, shared: &Shared<T>) -> Option<T> {
        let back = self.key.take().and_then(|key| {
            shared.step(|state, effects| state.unpark_sender(key, self.at, effects))
        });
        self.item.take().or(back)
    }
}

impl<T> Wait<T> for SendTurn<T> {
    type Output = Result<(), SendError<T>>;
    const WAITS_FOR: WaitsFor = WaitsFor::Room;

    #[inline]
    fn attempt_alone(&mut self, state: &mut State<T>) -> Option<Self::Output> {
        (self.key.is_none() && state.put_alone(&mut self.item)).then_some(Ok(()))
    }

    #[inline]
    fn attempt(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output> {
        match state.send_turn(&mut self.key, &mut self.item, self.meta, effects) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(refusal) => Some(SendError::give_back(Err(refusal), self.item.take())),
        }
    }

    fn is_parked(&self, state: &mut State<T>, waker: &Waker) -> bool {
        self.key
            .is_some_and(|key| state.sends().would_wake(key, waker))
    }

    fn park(&mut self, state: &mut State<T>, waker: Waker, effects: &mut Effects<T>) {
        let at = state.park_sender(&mut self.key, &mut self.item, self.meta, waker, effects);
        self.at = self.at.or(at);
    }
}

/// A send under way.
struct Sending<'a, T> {
    shared: &'a Shared<T>,
    turn: SendTurn<T>,
}

// Nothing in it is pinned.
impl<T> Unpin for Sending<'_, T> {}

impl<'a, T> Sending<'a, T> {
    #[inline]
    fn new(shared: &'a Shared<T>, item: T) -> Self {
        let turn = SendTurn::new(shared, item);
        Self { shared, turn }
    }
}

impl<T> Future for Sending<'_, T> {
    type Output = Result<(), SendError<T>>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        this.shared.poll(cx, &mut this.turn)
    }
}

impl<T> Drop for Sending<'_, T> {
    #[inline]
    fn drop(&mut self) {
        if self.turn.key.is_some() {
            drop(self.turn.give_up(self.shared));
        }
    }
}

/// Many sends under way, on a queue where items differ in nothing.
struct SendingMany<'a, T> {
    shared: &'a Shared<T>,
    items: &'a mut Vec<T>,
    /// Once it has had to wait, so that each that goes leaves the others where they are.
    is_reversed: bool,
    key: Option<usize>,
}

impl<T> SendingMany<'_, T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Refusal>> {
        if self.key.is_some() && !self.is_reversed {
            self.items.reverse();
            self.is_reversed = true;
        }
        self.shared.poll(cx, self)
    }
}

impl<T> Wait<T> for SendingMany<'_, T> {
    type Output = Result<(), Refusal>;
    const WAITS_FOR: WaitsFor = WaitsFor::Room;

    fn attempt(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output> {
        state
            .send_many_turn(&mut self.key, self.items, self.is_reversed, effects)
            .map_or_else(
                |refusal| Some(Err(refusal)),
                |is_done| is_done.then_some(Ok(())),
            )
    }

    fn is_parked(&self, state: &mut State<T>, waker: &Waker) -> bool {
        self.key
            .is_some_and(|key| state.senders.would_wake(key, waker))
    }

    fn park(&mut self, state: &mut State<T>, waker: Waker, effects: &mut Effects<T>) {
        state.park_permit(&mut self.key, 1, waker, effects);
    }
}

impl<T> Drop for SendingMany<'_, T> {
    fn drop(&mut self) {
        leave(self.shared, self.key);
        if self.is_reversed {
            self.items.reverse();
        }
    }
}

/// Puts what is left of a reversed buffer back into order.
struct Reversed<'a, T>(&'a mut Vec<T>);

impl<T> Drop for Reversed<'_, T> {
    fn drop(&mut self) {
        self.0.reverse();
    }
}

//! Room that is held for an item which is not there yet.

use std::borrow::Borrow;
use std::fmt;
use std::marker::PhantomData;

use super::error::SendError;
use super::shared::{Shared, Wait};
use super::state::{Effects, Refusal, State};
use crate::detail::WaitsFor;
use crate::sync::Arc;
use std::task::Waker;

/// Room for one item, held: see [`Sender::reserve`](super::Sender::reserve). Dropped, it gives the room to the next who waits.
#[must_use = "a permit holds room until it is used or dropped"]
pub struct Permit<'a, T>(Held<&'a Shared<T>, T>);

/// A [`Permit`] that borrows nothing: see [`Sender::reserve_owned`](super::Sender::reserve_owned).
#[must_use = "a permit holds room until it is used or dropped"]
pub struct OwnedPermit<T>(Held<Arc<Shared<T>>, T>);

impl<'a, T> Permit<'a, T> {
    /// Takes over room that was just granted.
    pub(crate) fn new(shared: &'a Shared<T>, weight: usize) -> Self {
        Self(Held::new(shared, weight))
    }

    /// Sends an item that was measured before; a refused one is left where it is.
    pub(crate) fn send_measured(
        mut self,
        item: &mut Option<T>,
        meta: (i64, usize),
    ) -> Result<(), Refusal> {
        self.0.send_measured(item, meta)
    }

    /// Sends an item into the room held. Never waits, and works also if the queue was closed meanwhile.
    ///
    /// # Errors
    ///
    /// [`SendError::Closed`] if the last receiver is gone, [`SendError::TooHeavy`] if the item weighs more than the room.
    pub fn send(self, item: T) -> Result<(), SendError<T>> {
        self.0.send(item)
    }
}

impl<T> OwnedPermit<T> {
    pub(crate) fn new(shared: Arc<Shared<T>>, weight: usize) -> Self {
        Self(Held::new(shared, weight))
    }

    /// As [`Permit::send`].
    ///
    /// # Errors
    ///
    /// As [`Permit::send`].
    pub fn send(self, item: T) -> Result<(), SendError<T>> {
        self.0.send(item)
    }
}

impl<T> fmt::Debug for Permit<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = self.0.weight;
        f.debug_struct("Permit").field("weight", &weight).finish()
    }
}

impl<T> fmt::Debug for OwnedPermit<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let weight = self.0.weight;
        f.debug_struct("OwnedPermit")
            .field("weight", &weight)
            .finish()
    }
}

struct Held<S, T>
where
    S: Borrow<Shared<T>>,
{
    shared: S,
    weight: usize,
    is_used: bool,
    item: PhantomData<fn(T)>,
}

impl<S, T> Held<S, T>
where
    S: Borrow<Shared<T>>,
{
    fn new(shared: S, weight: usize) -> Self {
        Self {
            shared,
            weight,
            is_used: false,
            item: PhantomData,
        }
    }

    fn send(mut self, item: T) -> Result<(), SendError<T>> {
        // Asked while the room is still held: it may throw.
        let meta = self.shared.borrow().measure(&item);
        let mut item = Some(item);
        let result = self.send_measured(&mut item, meta);
        SendError::give_back(result, item)
    }

    /// Leaves a refused item where it is.
    fn send_measured(&mut self, item: &mut Option<T>, meta: (i64, usize)) -> Result<(), Refusal> {
        self.is_used = true;
        end_permit(self.shared.borrow(), self.weight, item, meta)
    }
}

impl<S, T> Drop for Held<S, T>
where
    S: Borrow<Shared<T>>,
{
    fn drop(&mut self) {
        if !self.is_used {
            give_room_back(self.shared.borrow(), self.weight);
        }
    }
}

/// Sends an item that was measured into room that is held, if there is one.
fn end_permit<T>(
    shared: &Shared<T>,
    weight: usize,
    item: &mut Option<T>,
    meta: (i64, usize),
) -> Result<(), Refusal> {
    shared.step(|state, effects| state.end_permit(weight, item, meta, effects))
}

pub(crate) fn give_room_back<T>(shared: &Shared<T>, weight: usize) {
    // Without an item there is nothing to refuse.
    let _nothing = end_permit(shared, weight, &mut None, (0, 0));
}

/// A turn to get room alone.
pub(crate) struct RoomTurn<'a> {
    pub(crate) key: &'a mut Option<usize>,
    pub(crate) weight: usize,
}

impl<T> Wait<T> for RoomTurn<'_> {
    type Output = Result<(), Refusal>;
    const WAITS_FOR: WaitsFor = WaitsFor::Room;

    fn attempt(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<Self::Output> {
        match state.permit_turn(self.key, self.weight, effects) {
            Ok(false) => None,
            Ok(true) => Some(Ok(())),
            Err(refusal) => Some(Err(refusal)),
        }
    }

    fn is_parked(&self, state: &mut State<T>, waker: &Waker) -> bool {
        self.key
            .is_some_and(|key| state.senders.would_wake(key, waker))
    }

    fn park(&mut self, state: &mut State<T>, waker: Waker, effects: &mut Effects<T>) {
        state.park_permit(self.key, self.weight, waker, effects);
    }
}

/// A reservation under way.
pub(crate) struct Reserving<'a, T> {
    pub(crate) shared: &'a Shared<T>,
    pub(crate) weight: usize,
    pub(crate) key: Option<usize>,
}

impl<'a, T> Reserving<'a, T> {
    /// Waits for room.
    pub(crate) async fn room(shared: &'a Shared<T>, weight: usize) -> Result<(), SendError<()>> {
        let mut this = Self {
            shared,
            weight,
            key: None,
        };
        let result = std::future::poll_fn(|cx| {
            let (key, weight) = (&mut this.key, this.weight);
            this.shared.poll(cx, &mut RoomTurn { key, weight })
        });
        let result = result.await;
        result.map_err(|refusal| SendError::new(refusal, ()))
    }
}

impl<T> Drop for Reserving<'_, T> {
    fn drop(&mut self) {
        leave(self.shared, self.key);
    }
}

/// Gives up a wait for room.
pub(crate) fn leave<T>(shared: &Shared<T>, key: Option<usize>) {
    if let Some(key) = key {
        shared.step(|state, effects| state.unpark_permit(key, effects));
    }
}

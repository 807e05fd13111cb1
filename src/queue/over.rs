//! Waiting for something to be over.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::shared::{Shared, Wait};
use super::state::{Effects, State};
use super::waiters::Waiters;
use crate::detail::WaitsFor;

#[derive(Clone, Copy)]
pub(crate) enum What {
    /// Every accepted item is finished.
    Finished,
    /// Nothing can be sent any more.
    Closed,
}

pub(crate) struct Over<'a, T> {
    shared: &'a Shared<T>,
    what: What,
    key: Option<usize>,
}

impl<'a, T> Over<'a, T> {
    pub(crate) fn new(shared: &'a Shared<T>, what: What) -> Self {
        Self {
            shared,
            what,
            key: None,
        }
    }

    fn list<'s>(&self, state: &'s mut State<T>) -> &'s mut Waiters {
        match self.what {
            What::Finished => &mut state.joiners,
            What::Closed => &mut state.watchers,
        }
    }
}

impl<T> Wait<T> for Over<'_, T> {
    type Output = ();
    const WAITS_FOR: WaitsFor = WaitsFor::Done;

    fn attempt(&mut self, state: &mut State<T>, effects: &mut Effects<T>) -> Option<()> {
        let is_over = match (self.what, self.key) {
            (What::Finished, None) => state.is_idle(),
            // Whatever was sent since: it was over once, and this is who was told.
            (What::Finished, Some(key)) => state.joiners.is_granted(key),
            (What::Closed, _) => state.refuses(),
        };
        if !is_over {
            return None;
        }
        if let Some(key) = self.key.take() {
            effects.retire(self.list(state).leave(key));
        }
        Some(())
    }

    fn is_parked(&self, state: &mut State<T>, waker: &Waker) -> bool {
        self.key
            .is_some_and(|key| self.list(state).would_wake(key, waker))
    }

    fn park(&mut self, state: &mut State<T>, waker: Waker, effects: &mut Effects<T>) {
        match self.key {
            Some(key) => effects.retire(self.list(state).renew(key, waker)),
            None => self.key = Some(self.list(state).join(1, 0, waker)),
        }
    }
}

impl<T> Future for Over<'_, T> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.shared.poll(cx, this)
    }
}

impl<T> Drop for Over<'_, T> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shared
                .step(|state, effects| effects.retire(self.list(state).leave(key)));
        }
    }
}

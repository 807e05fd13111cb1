//! `Results`: values one by one, from work that goes on by itself.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use crate::calm::calmly;
use crate::fan_out::input::Input;
use crate::fan_out::outlet::Channel;
use crate::fan_out::worker::Shared;
use crate::group::error::{FailureKind, GroupError};
use crate::observe::{DisplacedWhat, displace};
use crate::panic::catch;
use crate::sync::{Lock, PlainArc};

/// The end of a channel that takes.
pub(crate) trait Taker<V, E>: Send + Sync {
    fn poll_take(&self, into: &mut VecDeque<V>, cx: &mut Context<'_>) -> Poll<bool>;
    fn deliver(&self);

    /// Drops the values that nobody takes, those `taken` and those that are left, and tells the observer of what they throw, and
    /// of the failure behind them.
    fn abandon(&self, taken: VecDeque<V>, error: Option<GroupError<E>>);
}

impl<S, F, V, E> Taker<V, E> for Shared<S, F, Channel<V>>
where
    S: Input<Item: Send> + Send,
    F: Send + Sync,
    V: Send,
    E: Send + 'static,
{
    fn poll_take(&self, into: &mut VecDeque<V>, cx: &mut Context<'_>) -> Poll<bool> {
        self.outlet.poll_take(into, cx)
    }

    fn deliver(&self) {
        self.door.deliver(1);
    }

    fn abandon(&self, taken: VecDeque<V>, error: Option<GroupError<E>>) {
        let observer = self.core.observer();
        for value in taken.into_iter().chain(self.outlet.take_rest()) {
            if let Err(panic) = catch(|| drop(value)) {
                displace(observer, None, DisplacedWhat::Panic(panic));
            }
        }
        for failure in error.into_iter().flatten() {
            let task = failure.task().cloned();
            let what = match failure.into_kind() {
                FailureKind::Error(error) => DisplacedWhat::Error(Box::new(error)),
                FailureKind::Panic(panic) => DisplacedWhat::Panic(panic),
            };
            displace(observer, task, what);
        }
    }
}

type Takes<V, E> = PlainArc<dyn Taker<V, E>>;

/// Where the group leaves its taker when it is opened.
pub(crate) struct Slot<V, E>(PlainArc<Lock<Option<Takes<V, E>>>>);

impl<V, E> Slot<V, E> {
    pub(crate) fn fill(&self, taker: PlainArc<impl Taker<V, E> + 'static>) {
        *self.0.lock() = Some(taker);
    }
}

impl<V, E> Default for Slot<V, E> {
    fn default() -> Self {
        Self(PlainArc::new(Lock::new(None)))
    }
}

impl<V, E> Clone for Slot<V, E> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

type Run<E> = Pin<Box<dyn Future<Output = Result<(), GroupError<E>>> + Send>>;

/// The results of a fan-out, one by one: made by [`FanOut::results`](crate::FanOut::results).
///
/// The work behind it goes on by itself, up to its bound, while nobody asks. Dropping this cancels the work at once, and the task
/// that drops it does not end until it is gone. A failure that is behind values which nobody took goes to the observer then, and so
/// does what their destructors throw. With the feature `stream` it is a `Stream`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
/// use ringfence::fan_out;
///
/// let mut results = fan_out(1..=3).limit(2).results(|n| async move { Ok::<_, std::io::Error>(n * 10) });
/// while let Some(result) = results.next().await {
///     println!("{}", result?); // 10, 20, 30
/// }
/// # Ok(())
/// # }
/// ```
#[must_use = "nothing is done until the first result is asked for"]
pub struct Results<V, E> {
    slot: Slot<V, E>,
    taker: Option<Takes<V, E>>,
    ready: VecDeque<V>,
    /// None once it has ended.
    run: Option<Run<E>>,
    /// How it ended, until what came before is taken.
    error: Option<GroupError<E>>,
}

// Nothing in it is pinned.
impl<V, E> Unpin for Results<V, E> {}

impl<V, E> Results<V, E> {
    pub(crate) fn new(run: Run<E>, slot: Slot<V, E>) -> Self {
        Self {
            slot,
            taker: None,
            ready: VecDeque::new(),
            run: Some(run),
            error: None,
        }
    }

    /// Waits for the next value. After the last one it yields the error, if the work ended with one, and then `None`.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped, it has taken nothing, and the work goes on.
    ///
    /// # Errors
    ///
    /// [`GroupError`] with the first failure, or if the work was cancelled. Values that were ready before come first.
    ///
    /// # Panics
    ///
    /// With the first panic of the function or of the input, after all items are gone. Outside a tokio runtime.
    pub async fn next(&mut self) -> Option<Result<V, GroupError<E>>> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<V, GroupError<E>>>> {
        let step = ready!(crate::runtime::poll_step(cx));
        let polled = self.poll_driven(cx);
        if polled.is_ready() {
            step.made_progress();
        }
        polled
    }

    fn poll_driven(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<V, GroupError<E>>>> {
        loop {
            if let Some(value) = self.ready.pop_front() {
                if let Some(taker) = &self.taker {
                    taker.deliver();
                }
                return Poll::Ready(Some(Ok(value)));
            }
            // The group is driven also while there is always a value: it keeps the deadline, and hears the signal.
            if let Some(run) = &mut self.run {
                if let Poll::Ready(ended) = run.as_mut().poll(cx) {
                    self.error = ended.err();
                    // The function goes with it, and what that throws must not cost the error.
                    calmly(|| self.run = None);
                }
            }
            if self.taker.is_none() {
                self.taker = self.slot.0.lock().take();
            }
            if let Some(taker) = &self.taker {
                if taker.poll_take(&mut self.ready, cx) == Poll::Ready(true) {
                    continue;
                }
            }
            if self.run.is_none() {
                calmly(|| self.taker = None);
                return Poll::Ready(self.error.take().map(Err));
            }
            return Poll::Pending;
        }
    }
}

impl<V, E> Drop for Results<V, E> {
    fn drop(&mut self) {
        calmly(|| self.run = None); // nothing more is taken from the input
        if let Some(taker) = self.taker.take() {
            taker.abandon(std::mem::take(&mut self.ready), self.error.take());
            calmly(|| drop(taker)); // the function goes with it, perhaps while a panic is under way (K1)
        }
    }
}

#[cfg(feature = "stream")]
impl<V, E> futures_core::Stream for Results<V, E> {
    type Item = Result<V, GroupError<E>>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.poll(cx)
    }
}

impl<V, E> fmt::Debug for Results<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Results")
            .field("ready", &self.ready.len())
            .field("has_ended", &self.run.is_none())
            .finish_non_exhaustive()
    }
}

//! Handles to one child, and how a child ends.
//!
//! H1. A handle never cancels anything by being dropped. H2. Awaiting the value of a child that cannot produce one never
//! hangs: the group is closing, or is told to, and drops the body at this very await (G8).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::task::JoinHandle;

use crate::observe::{CancelReason, DisplacedWhat, Observer, TaskId, displace};
use crate::panic::catch;
use crate::state::Core;
use crate::sync::{Arc, PlainArc};

/// How a child ended, as its handle tells it.
///
/// The error or the panic of a failed child is not here: the group has it, since it makes the group fail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Outcome<T> {
    /// It returned this value.
    Completed(T),
    /// It returned an error; the group reports it.
    Failed,
    /// It panicked; the group reports it.
    Panicked,
    /// It was cancelled, or never started because the group was closing.
    Cancelled(CancelReason),
    /// Its runtime was shut down under it.
    RuntimeGone,
}

impl<T> Outcome<T> {
    /// Returns the value, if there is one.
    #[must_use]
    pub fn completed(self) -> Option<T> {
        match self {
            Self::Completed(value) => Some(value),
            _ => None,
        }
    }

    /// Asks whether it returned a value.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        matches!(self, Self::Completed(_))
    }

    /// Asks whether it was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self, Self::Cancelled(_))
    }

    fn map<U>(self, f: impl FnOnce(T) -> U) -> Outcome<U> {
        match self {
            Self::Completed(value) => Outcome::Completed(f(value)),
            Self::Failed => Outcome::Failed,
            Self::Panicked => Outcome::Panicked,
            Self::Cancelled(reason) => Outcome::Cancelled(reason),
            Self::RuntimeGone => Outcome::RuntimeGone,
        }
    }
}

/// A value on its way from the child to whoever takes it. If nobody does, what its destructor throws is observed.
pub(crate) struct Kept<T>(Option<T>, Option<PlainArc<dyn Observer>>);

impl<T> Kept<T> {
    pub(crate) fn new(value: T, core: &Core) -> Self {
        let observer = core
            .observer()
            .filter(|_| std::mem::needs_drop::<T>())
            .cloned();
        Self(Some(value), observer)
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if std::mem::needs_drop::<T>()
            && let Some(value) = self.0.take()
            && let Err(panic) = catch(|| drop(value))
        {
            displace(self.1.as_ref(), None, DisplacedWhat::Panic(panic));
        }
    }
}

/// The part that both handles share.
struct Join<T> {
    state: State<T>,
    serial: u64,
}

enum State<T> {
    Spawned(JoinHandle<Outcome<Kept<T>>>),
    Refused(CancelReason),
    Taken,
}

impl<T> Join<T> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        let outcome = match &mut self.state {
            State::Spawned(join) => match Pin::new(join).poll(cx) {
                Poll::Pending => return Poll::Pending,
                // A wrapper that the runtime dropped has no outcome to give.
                Poll::Ready(joined) => joined.unwrap_or(Outcome::RuntimeGone),
            },
            State::Refused(reason) => Outcome::Cancelled(reason.clone()),
            State::Taken => {
                panic!("ringfence: a handle was polled after it had yielded its child's outcome")
            }
        };
        self.state = State::Taken;
        Poll::Ready(match outcome {
            Outcome::Completed(mut kept) => match kept.0.take() {
                Some(value) => Outcome::Completed(value),
                None => Outcome::RuntimeGone,
            },
            other => other.map(|_| unreachable!("not completed")),
        })
    }

    fn cancel(&self, core: &Core) {
        if let State::Spawned(join) = &self.state
            && !join.is_finished()
        {
            core.cancel_child(self.serial);
        }
    }

    fn is_finished(&self) -> bool {
        match &self.state {
            State::Spawned(join) => join.is_finished(),
            State::Refused(_) | State::Taken => true,
        }
    }

    fn fmt(&self, core: &Core, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Refused(_) => "refused",
            State::Taken => "taken",
            State::Spawned(join) if join.is_finished() => "ended",
            State::Spawned(_) if core.is_signalled(self.serial) => "cancelling",
            State::Spawned(_) => "running",
        };
        f.debug_struct(name)
            .field("id", &core.task_id(self.serial))
            .field("state", &state)
            .finish()
    }
}

/// A child of the group whose body holds this: await it for the child's value.
///
/// It borrows the group, so it cannot leave the body; make it `'static` with [`detached`](Self::detached). Dropping it
/// does nothing: the child goes on, and the group waits for it.
///
/// # Cancel safety
///
/// Cancel safe: awaiting `&mut handle` in a `select!` that takes another branch loses nothing.
///
/// # Panics
///
/// When polled again after it has yielded.
///
/// *Comparison.* `tokio::task::JoinHandle` yields a `Result` with a `JoinError`, since its task may have been aborted. This
/// one yields the value itself: where there is none, the scope is already on its way out with the reason.
pub struct TaskHandle<'g, T> {
    join: Join<T>,
    core: &'g Arc<Core>,
}

impl<'g, T> TaskHandle<'g, T> {
    pub(crate) fn spawned(
        join: JoinHandle<Outcome<Kept<T>>>,
        serial: u64,
        core: &'g Arc<Core>,
    ) -> Self {
        Self {
            join: Join {
                state: State::Spawned(join),
                serial,
            },
            core,
        }
    }

    pub(crate) fn refused(reason: CancelReason, core: &'g Arc<Core>) -> Self {
        Self {
            join: Join {
                state: State::Refused(reason),
                serial: 0,
            },
            core,
        }
    }

    /// Waits for the child and returns how it ended. Unlike awaiting the handle, this never ends the body.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the future is dropped, the child goes on, and its outcome is dropped.
    pub async fn outcome(mut self) -> Outcome<T> {
        std::future::poll_fn(|cx| self.join.poll(cx)).await
    }

    /// Cancels this child alone, and does not wait: siblings and body go on.
    ///
    /// A child that has ended stays as it ended. With a grace, the child is signalled first and forced when the grace is
    /// over.
    pub fn cancel(&self) {
        self.join.cancel(self.core);
    }

    /// Cancels this child alone and waits until it is gone, with all scopes that it had opened.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the child is cancelled and the group waits for it, whether this is awaited to the end or not.
    pub async fn cancel_and_wait(self) -> Outcome<T> {
        self.cancel();
        self.outcome().await
    }

    /// Makes the handle independent of the body. It yields the outcome instead of the value.
    #[must_use]
    pub fn detached(self) -> OutcomeHandle<T> {
        OutcomeHandle {
            join: self.join,
            core: self.core.clone(),
        }
    }

    /// Returns the child's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.core.task_id(self.join.serial)
    }

    /// Asks whether the child has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }
}

impl<T> Future for TaskHandle<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let me = &mut *self;
        let reason = match me.join.poll(cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Outcome::Completed(value)) => return Poll::Ready(value),
            Poll::Ready(Outcome::Cancelled(reason)) => reason,
            Poll::Ready(Outcome::RuntimeGone) => CancelReason::RuntimeGone,
            // The group is cancelling already, with the failure itself as its reason, which stands.
            Poll::Ready(Outcome::Failed | Outcome::Panicked) => CancelReason::Closed,
        };
        // H2. The first reason stands, so this one counts only if the child was cancelled on its own.
        me.core.cancel(
            CancelReason::AwaitedCancelled(me.core.task_id(me.join.serial)),
            false,
        );
        me.core.set_stuck();
        me.join.state = State::Refused(reason);
        Poll::Pending
    }
}

impl<T> fmt::Debug for TaskHandle<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.join.fmt(self.core, "TaskHandle", f)
    }
}

/// A child, seen from anywhere: await it for the [`Outcome`].
///
/// Dropping it does nothing: the child goes on, and its group waits for it.
///
/// # Cancel safety
///
/// Cancel safe: awaiting `&mut handle` in a `select!` that takes another branch loses nothing.
///
/// # Panics
///
/// When polled again after it has yielded.
pub struct OutcomeHandle<T> {
    join: Join<T>,
    core: Arc<Core>,
}

impl<T> OutcomeHandle<T> {
    /// Cancels this child alone, and does not wait.
    pub fn cancel(&self) {
        self.join.cancel(&self.core);
    }

    /// Cancels this child alone and waits until it is gone, with all scopes that it had opened.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: once polled, the child is cancelled and its group waits for it.
    pub async fn cancel_and_wait(self) -> Outcome<T> {
        self.cancel();
        self.await
    }

    /// Returns the child's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.core.task_id(self.join.serial)
    }

    /// Asks whether the child has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.join.is_finished()
    }
}

impl<T> Future for OutcomeHandle<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        self.join.poll(cx)
    }
}

impl<T> fmt::Debug for OutcomeHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.join.fmt(&self.core, "OutcomeHandle", f)
    }
}

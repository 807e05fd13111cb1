//! Handles to one child, and how a child ends.
//!
//! H1. A handle never cancels anything by being dropped. H2. Awaiting the value of a child that cannot produce one never
//! hangs: the group is closing, or is told to, and drops the body at this very await (G8).

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::task::JoinHandle;
use tokio::task::coop::unconstrained;

use crate::detail::{self, WaitsFor};
use crate::group::borrow::slot::Reader;
use crate::observe::{CancelReason, DisplacedWhat, TaskId, displace};
use crate::panic::catch;
use crate::state::registry::Mark;
use crate::state::{Core, Inherited, Why};
use crate::sync::{Arc, Lock, PlainArc};

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
}

/// How a child ended, as its task returns it: short, because it lies in the task's memory, and is moved out of there.
pub(crate) enum Settled<T> {
    Completed(Kept<T>),
    Failed,
    Panicked,
    Cancelled(Why),
    RuntimeGone,
}

impl<T> Settled<T> {
    /// Names it, for `Debug`.
    pub(super) fn describe(&self) -> &'static str {
        match self {
            Self::Completed(_) => "completed",
            Self::Failed => "failed",
            Self::Panicked => "panicked",
            Self::Cancelled(_) => "cancelled",
            Self::RuntimeGone => "runtime gone",
        }
    }

    fn outcome(self, core: &Core) -> Outcome<T> {
        match self {
            Self::Completed(mut kept) => kept
                .0
                .take()
                .map_or(Outcome::RuntimeGone, Outcome::Completed),
            Self::Failed => Outcome::Failed,
            Self::Panicked => Outcome::Panicked,
            Self::Cancelled(why) => Outcome::Cancelled(core.reason_why(why)),
            Self::RuntimeGone => Outcome::RuntimeGone,
        }
    }
}

/// A value on its way from the child to whoever takes it. If nobody does, what its destructor throws is observed.
pub(crate) struct Kept<T>(Option<T>, Option<PlainArc<Inherited>>);

impl<T> Kept<T> {
    pub(crate) fn new(value: T, core: &Core) -> Self {
        let observed = std::mem::needs_drop::<T>().then(|| core.observed());
        Self(Some(value), observed.flatten())
    }
}

// The value is only moved, never pinned, so a handle may be moved whatever it is a handle to.
impl<T> Unpin for Kept<T> {}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        if !std::mem::needs_drop::<T>() {
            return;
        }
        let Some(value) = self.0.take() else { return };
        if let Err(panic) = catch(|| drop(value)) {
            let observer = self.1.as_ref().and_then(|observed| observed.observer());
            displace(observer, None, DisplacedWhat::Panic(panic));
        }
    }
}

/// The part that both handles share: small, since people keep many.
struct Join<T> {
    // Behind a lock only so that `Debug` can look at how a child has ended: all else has it to itself, or reads.
    state: Lock<State<T>>,
    serial: u64,
    name: Option<Box<PlainArc<str>>>,
}

enum State<T> {
    Spawned(JoinHandle<Settled<T>>),
    /// A child in the task of its scope.
    InTask(Reader<T>),
    /// A child that had ended when its handle was made: spawned eagerly, or ready and over in one step.
    Ended(Pin<Box<dyn Keeps<T> + Send>>),
    /// `None` once it has yielded.
    Known(Option<Box<Known<T>>>),
}

/// Where the outcome lies of a child that ended where it was spawned: in the box that was its future's, so that the handle is
/// small whatever the value.
pub(crate) trait Keeps<T> {
    fn take(self: Pin<&mut Self>) -> Settled<T>;

    fn look(&self) -> &Settled<T>;
}

enum Known<T> {
    /// Ended, as `Debug` found out before anybody took the outcome.
    Ended(Settled<T>),
    Refused(CancelReason),
}

impl<T> Join<T> {
    fn new(state: State<T>, serial: u64, name: Option<PlainArc<str>>) -> Self {
        Self {
            state: Lock::new(state),
            serial,
            name: name.map(Box::new),
        }
    }

    fn refused(reason: CancelReason) -> Self {
        let known = Box::new(Known::Refused(reason));
        Self::new(State::Known(Some(known)), 0, None)
    }

    fn poll(&mut self, core: &Core, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        let state = self.state.get_mut();
        let settled = match state {
            State::Spawned(join) => match Pin::new(join).poll(cx) {
                Poll::Pending => return self.pending(core),
                // A wrapper that the runtime dropped has nothing to say.
                Poll::Ready(joined) => joined.unwrap_or(Settled::RuntimeGone),
            },
            State::InTask(reader) => match reader.poll(cx) {
                Poll::Pending => return self.pending(core),
                Poll::Ready(settled) => settled,
            },
            State::Ended(kept) => kept.as_mut().take(),
            State::Known(known) => match known.take().map(|known| *known) {
                Some(Known::Ended(settled)) => settled,
                Some(Known::Refused(reason)) => return Poll::Ready(Outcome::Cancelled(reason)),
                None => panic!(
                    "ringfence: a handle was polled after it had yielded its child's outcome"
                ),
            },
        };
        *state = State::Known(None);
        Poll::Ready(settled.outcome(core))
    }

    fn pending(&self, core: &Core) -> Poll<Outcome<T>> {
        detail::waits_for(WaitsFor::Child(core.task_id(self.serial)));
        Poll::Pending
    }

    fn cancel(&self, core: &Core) {
        if !self.is_finished(core) {
            core.cancel_child(self.serial);
            let bell = match &*self.state.lock() {
                State::InTask(reader) => reader.bell(),
                State::Spawned(_) | State::Ended(_) | State::Known(_) => None,
            };
            if let Some(bell) = bell {
                bell.wake();
            }
            if self.is_finished(core) {
                // It ended meanwhile, and had taken its entry out before it got this one.
                drop(core.registry().remove(self.serial));
            }
        }
    }

    fn is_finished(&self, core: &Core) -> bool {
        match &*self.state.lock() {
            // The runtime needs a moment to put a task away after its group was left.
            State::Spawned(join) => join.is_finished() || core.word().read().live() == 0,
            State::InTask(reader) => reader.is_ended(),
            State::Ended(_) | State::Known(_) => true,
        }
    }

    /// Names the state, for `Debug`.
    fn describe(&self, core: &Core) -> &'static str {
        let mut state = self.state.lock();
        if let State::Spawned(join) = &mut *state {
            // Asked only when it has ended, so that no waker of anybody is replaced.
            let mut nobody = Context::from_waker(Waker::noop());
            if !join.is_finished() {
                drop(state);
                return self.describe_running(core);
            }
            if let Poll::Ready(joined) = Pin::new(&mut unconstrained(join)).poll(&mut nobody) {
                let ended = Known::Ended(joined.unwrap_or(Settled::RuntimeGone));
                let ended = State::Known(Some(Box::new(ended)));
                let old = std::mem::replace(&mut *state, ended);
                drop(state);
                drop(old); // with somebody's waker
                state = self.state.lock();
            }
        }
        match &*state {
            State::Spawned(_) => "ended",
            State::InTask(reader) => match reader.describe() {
                Some(ended) => ended,
                None => self.describe_running(core),
            },
            State::Ended(kept) => kept.look().describe(),
            State::Known(None) => "taken",
            State::Known(Some(known)) => match &**known {
                Known::Refused(_) => "refused",
                Known::Ended(settled) => settled.describe(),
            },
        }
    }

    fn describe_running(&self, core: &Core) -> &'static str {
        if core.word().read().live() == 0 {
            "ended"
        } else if core.is_signalled(self.serial, || {
            core.registry().mark(self.serial) > Mark::None
        }) {
            "cancelling"
        } else {
            "running"
        }
    }

    fn fmt(&self, core: &Core, kind: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct(kind);
        shown.field("id", &core.task_id(self.serial));
        if let Some(name) = &self.name {
            shown.field("name", name);
        }
        shown.field("state", &self.describe(core)).finish()
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
        join: JoinHandle<Settled<T>>,
        serial: u64,
        name: Option<PlainArc<str>>,
        core: &'g Arc<Core>,
    ) -> Self {
        Self {
            join: Join::new(State::Spawned(join), serial, name),
            core,
        }
    }

    pub(super) fn in_task(
        reader: Reader<T>,
        serial: u64,
        name: Option<PlainArc<str>>,
        core: &'g Arc<Core>,
    ) -> Self {
        Self {
            join: Join::new(State::InTask(reader), serial, name),
            core,
        }
    }

    pub(crate) fn ended(
        kept: Pin<Box<dyn Keeps<T> + Send>>,
        serial: u64,
        name: Option<PlainArc<str>>,
        core: &'g Arc<Core>,
    ) -> Self {
        Self {
            join: Join::new(State::Ended(kept), serial, name),
            core,
        }
    }

    pub(crate) fn refused(reason: CancelReason, core: &'g Arc<Core>) -> Self {
        Self {
            join: Join::refused(reason),
            core,
        }
    }

    /// Waits for the child and returns how it ended. Unlike awaiting the handle, this never ends the body.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: if the future is dropped, the child goes on, and its outcome is dropped.
    pub async fn outcome(mut self) -> Outcome<T> {
        std::future::poll_fn(|cx| self.join.poll(self.core, cx)).await
    }

    pub(super) fn poll_outcome(&mut self, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        self.join.poll(self.core, cx)
    }

    /// Cancels this child alone, and does not wait: siblings and body go on.
    ///
    /// A child that has ended stays as it ended. With a grace, the child is signalled first and forced when the grace is
    /// over.
    #[doc(alias = "abort")]
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
        self.join.is_finished(self.core)
    }
}

impl<T> Future for TaskHandle<'_, T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        let me = &mut *self;
        let reason = match me.join.poll(me.core, cx) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Outcome::Completed(value)) => return Poll::Ready(value),
            Poll::Ready(Outcome::Cancelled(reason)) => reason,
            Poll::Ready(Outcome::RuntimeGone) => CancelReason::RuntimeGone,
            // The group is cancelling already, with the failure itself as its reason, which stands.
            Poll::Ready(Outcome::Failed | Outcome::Panicked) => CancelReason::Closed,
        };
        // H2. The first reason stands, so this one counts only if the child was cancelled on its own.
        me.core.cancel(CancelReason::AwaitedCancelled(me.id()));
        me.core.set_stuck();
        *me.join.state.get_mut() = State::Known(Some(Box::new(Known::Refused(reason))));
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
    #[doc(alias = "abort")]
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
        self.join.is_finished(&self.core)
    }
}

impl<T> Future for OutcomeHandle<T> {
    type Output = Outcome<T>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome<T>> {
        let me = &mut *self;
        me.join.poll(&me.core, cx)
    }
}

impl<T> fmt::Debug for OutcomeHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.join.fmt(&self.core, "OutcomeHandle", f)
    }
}

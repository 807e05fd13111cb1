//! A long-lived group that a struct can own.
//!
//! It is a scope without a body: its place in the group is the owner's, so that the group is open as long as the owner
//! wants. When the owner gives it up, what drives the rest is the same future that drives a scope.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use crate::cancel::Token;
use crate::group::driver::{Clock, Driver};
use crate::group::error::{BoxError, GroupError, SpawnError, capped};
use crate::group::handle::OutcomeHandle;
use crate::group::limited::LimitedSpawner;
use crate::group::output::TaskOutput;
use crate::group::report::Report;
use crate::group::slots::Slots;
use crate::group::spawn::{Guard, Spawner};
use crate::group::start::{Ready, StartDetached};
use crate::group::{TaskGroup, options};
use crate::sync::{Arc, PlainArc};

/// A group of tasks that lives as long as its owner wants: a field of a server, a client, an actor.
///
/// Its handles always yield the [`Outcome`](crate::Outcome), since there is no body that could be ended instead. All else is
/// as in a scope: the first failure closes the group and cancels the others. Failures, panics among them, are in the
/// [`Report`] that the end gives.
///
/// End it with [`shutdown`](Self::shutdown), which cancels, or [`wait`](Self::wait), which lets the children finish; both
/// come back when everything is gone: ports are free, files are closed. Dropped without that, its children are cancelled at once, and
/// the nearest enclosing owner (the task that drops it, the group that it was made in, the [`root`](crate::root)) does not end until they
/// are gone.
///
/// For several children with one answer ([`try_join`](TaskGroup::try_join), [`first_ok`](TaskGroup::first_ok)), open a
/// [`scope`](crate::scope) in a child: where one of them is lost, there has to be a body that can end.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use std::time::Duration;
/// use ringfence::OwnedGroup;
///
/// struct Server {
///     connections: OwnedGroup<std::io::Error>,
/// }
///
/// let server = Server { connections: OwnedGroup::new() };
/// server.connections.spawn(async { Ok(()) });
/// let report = server.connections.shutdown(Duration::from_secs(5)).await;
/// assert!(report.is_clean());
/// # }
/// ```
///
/// *Comparison.* `tokio_util::task::TaskTracker` waits, but does not cancel, and its tasks outlive it when it is dropped;
/// a `JoinSet` in a struct has to be polled for its results, and aborts without waiting.
pub struct OwnedGroup<E: Send + 'static = BoxError> {
    group: TaskGroup<E>,
    is_over: bool,
}

impl<E: Send + 'static> OwnedGroup<E> {
    /// Makes a group inside the one that the caller runs in, if any.
    #[must_use]
    pub fn new() -> Self {
        Self::make(None)
    }

    /// Makes a group with a name, for errors, events and snapshots. See [`named`](Self::named) for the name of a child.
    #[must_use]
    pub fn with_name(name: impl Into<PlainArc<str>>) -> Self {
        Self::make(Some(name.into()))
    }

    fn make(name: Option<PlainArc<str>>) -> Self {
        Self {
            group: options::open_owned(name),
            is_over: false,
        }
    }

    /// Spawns a child.
    ///
    /// If the group is closing, the future is dropped without being polled, and the handle is that of a cancelled child.
    ///
    /// # Panics
    ///
    /// If the group was made outside a tokio runtime, and this is called outside one, too.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> OutcomeHandle<<F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.group.spawn(future).detached()
    }

    /// Spawns a child, or gives the future back, never polled, if the group is closing.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] with the future and the reason.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn try_spawn<F>(
        &self,
        future: F,
    ) -> Result<OutcomeHandle<<F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let handle = self.group.try_spawn(future)?;
        Ok(handle.detached())
    }

    /// Spawns a background child: see [`TaskGroup::spawn_background`]. [`wait`](Self::wait) cancels it when all others are done.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_background<F>(
        &self,
        future: F,
    ) -> OutcomeHandle<<F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.group.spawn_background(future).detached()
    }

    /// Starts a child, and waits until it says that it is ready: see [`TaskGroup::start`].
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, the child is dropped with it.
    ///
    /// # Errors
    ///
    /// [`StartError`](crate::StartError): the child failed, or ended, or was cancelled before it was ready.
    ///
    /// # Panics
    ///
    /// With the child's own panic, if it comes before it is ready. And as [`spawn`](Self::spawn).
    #[track_caller]
    pub fn start<R, C, F>(&self, child: C) -> impl Future<Output = StartDetached<R, F, E>>
    where
        C: FnOnce(Ready<R>) -> F,
        F: Future<Output: TaskOutput<E, Value: Send + 'static> + Send> + Send + 'static,
    {
        self.group.spawner.start(child)
    }

    /// Names the next child, for errors, events and snapshots: `group.named("reader").spawn(…)`.
    #[must_use]
    pub fn named(&self, name: impl Into<PlainArc<str>>) -> Spawner<E> {
        self.group.spawner.named(name)
    }

    /// Returns a spawner, which has all other ways to spawn: on a thread, from elsewhere.
    #[must_use]
    pub fn spawner(&self) -> Spawner<E> {
        self.group.spawner()
    }

    /// Limits how many of the children spawned through the returned view run at once: see [`TaskGroup::limit`].
    ///
    /// # Panics
    ///
    /// If the limit is 0.
    #[must_use]
    #[track_caller]
    pub fn limit(&self, slots: impl Into<Slots>) -> LimitedSpawner<E> {
        LimitedSpawner::new(self.spawner(), slots.into())
    }

    /// Counts somebody in who is not a task: the group does not end before the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] if the group is closing.
    #[track_caller]
    pub fn guard(&self) -> Result<Guard, SpawnError<()>> {
        Guard::new(self.group.core(), None)
    }

    /// Returns the group's token.
    #[must_use]
    pub fn token(&self) -> Token {
        self.group.token()
    }

    /// Cancels the group: all children are dropped where they are parked.
    pub fn cancel(&self) {
        self.group.cancel();
    }

    /// Takes no more children, for ever; those present go on.
    pub fn close(&self) {
        self.group.core().word().shut();
    }

    /// Asks whether the group takes new children.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.group.core().word().read().is_open()
    }

    /// Asks whether the group was cancelled, by whatever reason: a failure, for instance.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.group.is_cancelled()
    }

    /// Returns how many children are alive, adopted scopes and guards included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.group.len()
    }

    /// Asks whether no child is alive.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.group.is_empty()
    }

    /// Shuts the group down: asks all children to end, gives them the grace, drops those who are still there, and comes back
    /// when all of them are gone.
    ///
    /// Tokens fire at once. With a grace of zero everything is dropped where it is parked at once. A [`Guard`] cannot be forced, nor
    /// can a blocking call that has begun: they are waited for beyond the grace.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it is ready, it is as if the group were dropped: its children are cancelled at once, and the nearest
    /// enclosing owner does not end until they are gone.
    #[doc(alias = "stop")]
    pub async fn shutdown(self, grace: Duration) -> Report<E> {
        self.group.core().shut_down(!grace.is_zero());
        self.end(Clock::new(capped(grace), None, None)).await
    }

    /// Takes no more children, and waits until those present have ended.
    ///
    /// # Cancel safety
    ///
    /// As [`shutdown`](Self::shutdown).
    ///
    /// # Panics
    ///
    /// In a child of its own, which would wait for itself.
    #[doc(alias = "join")]
    pub async fn wait(self) -> Report<E> {
        let here = crate::context::current().map(|(core, _)| core);
        let own = self.group.core();
        assert!(
            !here.is_some_and(|here| Arc::ptr_eq(&here, own) || here.is_inside(own)),
            "ringfence: a group cannot be waited for in a child of its own"
        );
        self.close();
        self.end(None).await
    }

    async fn end(mut self, clock: Option<Box<Clock>>) -> Report<E> {
        self.is_over = true;
        let driver = Driver::<std::future::Ready<_>, (), E>::without_body(&self.group, clock);
        let error = driver.await.err();
        // One that ended well may have something to tell all the same.
        Report::new(error.or_else(|| {
            let core = self.group.core();
            let remains = core.take_remains();
            let has_news = !remains.stragglers.is_empty() || !remains.abandoned.is_empty();
            has_news.then(|| GroupError::new(remains, core.path().cloned()))
        }))
    }
}

impl<E: Send + 'static> Default for OwnedGroup<E> {
    fn default() -> Self {
        Self::new()
    }
}

impl<E: Send + 'static> Drop for OwnedGroup<E> {
    fn drop(&mut self) {
        if !self.is_over {
            self.group.abandon(true);
        }
    }
}

impl<E: Send + 'static> fmt::Debug for OwnedGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.group.spawner.describe("OwnedGroup", f)
    }
}

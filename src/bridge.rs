//! For code that knows other words than ours: a group as an object, and the token of `tokio-util`.

use std::future::Future;
use std::pin::Pin;

#[cfg(feature = "tokio-util")]
use crate::cancel::token;
use crate::group::TaskGroup;
use crate::group::error::SpawnError;
use crate::group::handle::OutcomeHandle;
use crate::group::owned::OwnedGroup;
use crate::group::spawn::Spawner;

/// What [`Spawn`] spawns.
pub type BoxedTask = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A group that can be spawned into, of whatever kind: for a library that is told where its tasks go, and wants to know neither
/// the runtime nor the error type of the group.
///
/// Take a `&dyn Spawn` to spawn something and be done: a reference to a [`TaskGroup`], an [`OwnedGroup`] or a [`Spawner`] is
/// one. Keep an `Arc<dyn Spawn>`, made of a [`Spawner`], to spawn later.
///
/// A task returns nothing; a panic is a failure of the group. What fails otherwise is the library's to tell. The tasks are
/// children like all others: cancelled with the group, and waited for.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
/// use std::sync::Arc;
/// use ringfence::{Outcome, Spawn, scope};
///
/// /// In a library:
/// struct Client {
///     tasks: Arc<dyn Spawn>,
/// }
///
/// impl Client {
///     async fn refresh(&self) -> bool {
///         let refreshed = self.tasks.spawn(async { /* … */ });
///         matches!(refreshed.await, Outcome::Completed(()))
///     }
/// }
///
/// /// And a function:
/// fn warm_up(tasks: &dyn Spawn) {
///     tasks.spawn(async { /* … */ });
/// }
///
/// scope(async |group| -> std::io::Result<()> {
///     let client = Client { tasks: Arc::new(group.spawner()) };
///     assert!(client.refresh().await);
///     warm_up(group);
///     Ok(())
/// })
/// .await
/// # }
/// ```
pub trait Spawn: Send + Sync {
    /// Spawns a child, or gives the future back, never polled, if the group is closing.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] with the future and the reason.
    ///
    /// # Panics
    ///
    /// As [`Spawner::spawn`].
    #[track_caller]
    fn try_spawn_boxed(&self, task: BoxedTask) -> Result<OutcomeHandle<()>, SpawnError<BoxedTask>>;

    /// Spawns a child. Once the group is closing, the future is dropped without being polled.
    ///
    /// # Panics
    ///
    /// As [`Spawner::spawn`].
    #[track_caller]
    fn spawn_boxed(&self, task: BoxedTask) -> OutcomeHandle<()>;
}

impl dyn Spawn + '_ {
    /// Spawns a child: [`spawn_boxed`](Spawn::spawn_boxed), for a future that is in no box yet.
    ///
    /// # Panics
    ///
    /// As [`Spawner::spawn`].
    #[track_caller]
    pub fn spawn<F>(&self, task: F) -> OutcomeHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        self.spawn_boxed(Box::pin(task))
    }
}

impl<E: Send + 'static> Spawn for Spawner<E> {
    fn try_spawn_boxed(&self, task: BoxedTask) -> Result<OutcomeHandle<()>, SpawnError<BoxedTask>> {
        self.try_spawn(task)
    }

    fn spawn_boxed(&self, task: BoxedTask) -> OutcomeHandle<()> {
        self.spawn(task)
    }
}

impl<E: Send + 'static> Spawn for TaskGroup<E> {
    fn try_spawn_boxed(&self, task: BoxedTask) -> Result<OutcomeHandle<()>, SpawnError<BoxedTask>> {
        Ok(self.try_spawn(task)?.detached())
    }

    fn spawn_boxed(&self, task: BoxedTask) -> OutcomeHandle<()> {
        self.spawn(task).detached()
    }
}

impl<E: Send + 'static> Spawn for OwnedGroup<E> {
    fn try_spawn_boxed(&self, task: BoxedTask) -> Result<OutcomeHandle<()>, SpawnError<BoxedTask>> {
        self.try_spawn(task)
    }

    fn spawn_boxed(&self, task: BoxedTask) -> OutcomeHandle<()> {
        self.spawn(task)
    }
}

/// Behind the feature `tokio-util`.
#[cfg(feature = "tokio-util")]
impl<E: Send + 'static> Spawner<E> {
    /// Returns a token of `tokio-util` that is cancelled when the group is asked to end, or has ended.
    ///
    /// It tells what [`token`](crate::token) does, to code that takes no other. Cancelling it does not cancel the group: for
    /// that, give it to [`cancel_on`](Self::cancel_on). A background child keeps it: it costs one.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[must_use]
    #[track_caller]
    pub fn cancellation_token(&self) -> tokio_util::sync::CancellationToken {
        let theirs = tokio_util::sync::CancellationToken::new();
        // Made here: a child that is refused, or dropped before its first poll, drops it as well.
        let tells = theirs.clone().drop_guard();
        self.spawn_background(async move {
            let _tells = tells;
            token().cancelled().await;
        });
        theirs
    }

    /// Cancels the group as soon as `theirs` is cancelled, a token of `tokio-util`.
    ///
    /// A background child waits for it, and ends with the group.
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn cancel_on(&self, theirs: &tokio_util::sync::CancellationToken) {
        let (theirs, spawner) = (theirs.clone(), self.clone());
        self.spawn_background(async move {
            theirs.cancelled().await;
            spawner.cancel_with("a CancellationToken was cancelled");
        });
    }
}

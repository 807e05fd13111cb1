//! Groups: `scope`, `TaskGroup`, `Spawner`.
//!
//! Here the clauses G1 to G20 of `docs/contract.md` are kept that speak of scopes: they come back when all is gone (G1), fail
//! fast (G2), stay closed (G7), and are not held open or cancelled by handles and spawners (G6, G8). Dropped early, they
//! leave their children to an owner (G12).

pub(crate) mod blocking;
pub(crate) mod borrow;
pub(crate) mod driver;
pub(crate) mod error;
pub(crate) mod handle;
pub(crate) mod join;
pub(crate) mod limited;
pub(crate) mod member;
pub(crate) mod options;
pub(crate) mod output;
pub(crate) mod owned;
pub(crate) mod report;
pub(crate) mod slots;
pub(crate) mod spawn;
pub(crate) mod start;

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;

use tokio::runtime::Handle;

use crate::cancel::Token;
use crate::group::blocking::Blocking;
use crate::group::error::{BoxError, GroupError, SpawnError};
use crate::group::handle::TaskHandle;
use crate::group::limited::Limited;
use crate::group::output::TaskOutput;
use crate::group::slots::Slots;
use crate::group::spawn::{Birth, Named, Spawner};
use crate::state::Core;
use crate::state::word::Kind;
use crate::sync::{Arc, PlainArc};

/// Runs `body` with a group of tasks, and comes back when the body and every task have ended and are gone.
///
/// - Children run in parallel, as tokio tasks. They return `()`, or `Result<T, E>` with the group's own `E`.
/// - The first failure cancels the other children and the body where they are parked; all are waited for; the error lists
///   every failure, first one first.
/// - A panic does the same, and then goes on in the caller.
/// - If the body returns `Ok`, normal children are waited for, then background children are cancelled and waited for.
/// - A handle awaited in the body yields the child's value itself. If the child has none to give, the scope is on its way
///   out, and the body ends at that await.
///
/// The error type is inferred from the first child or the body that can fail. Where nothing says it, write
/// `async |group: &TaskGroup|` for the boxed default, or `async |group: &TaskGroup<MyError>|`.
///
/// *Comparison.* A `tokio::task::JoinSet` aborts its tasks when it is dropped and does not wait; a
/// `tokio_util::task::TaskTracker` waits, but neither cancels nor reports. Use `tokio::spawn` for a task that is meant to
/// outlive everything.
///
/// # Cancel safety
///
/// If the returned future is dropped before it is ready (a `timeout` around it, a `select!` that took another branch), its
/// children are cancelled at once. Dropping cannot wait for them, but the nearest enclosing owner does: the child of ours
/// that was awaiting it, or the group whose body was, does not end until they are gone. Outside all of them, the
/// [`root`](crate::root) of the runtime holds them. What they return or throw goes to the observer.
///
/// # Errors
///
/// [`GroupError`] if the body or a child failed, or the group was cancelled.
///
/// # Panics
///
/// With the first panic of the body or a child, after all of them are gone.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// use ringfence::scope;
///
/// async fn length(word: &'static str) -> Result<usize, std::io::Error> {
///     Ok(word.len())
/// }
///
/// let total = scope(async |group| {
///     let a = group.spawn(length("structured"));
///     let b = group.spawn(length("concurrency"));
///     Ok(a.await + b.await)
/// })
/// .await?;
/// assert_eq!(total, 21);
/// # Ok(())
/// # }
/// ```
#[doc(alias = "nursery")]
pub fn scope<E, T, F>(body: F) -> impl Future<Output = Result<T, GroupError<E>>>
where
    E: Send + 'static,
    F: AsyncFnOnce(&TaskGroup<E>) -> Result<T, E>,
{
    options::run(None, body)
}

/// A [`scope`] body, for generic callers whose future must be `Send`.
///
/// A function that is generic over `F: AsyncFnOnce(&TaskGroup<E>) -> Result<T, E>` cannot say that the future of `F` is
/// `Send`. With this trait it can: bound `F: for<'g> ScopeBody<'g, E, T, Fut: Send> + Send`, and call
/// `scope(async move |group| body.call(group).await)`. Every async closure and function of that shape has it.
pub trait ScopeBody<'g, E: Send + 'static, T>:
    AsyncFnOnce(&'g TaskGroup<E>) -> Result<T, E>
{
    /// The future of the body.
    type Fut: Future<Output = Result<T, E>>;

    /// Calls the body.
    fn call(self, group: &'g TaskGroup<E>) -> Self::Fut;
}

impl<'g, E, T, F, Fut> ScopeBody<'g, E, T> for F
where
    E: Send + 'static,
    F: AsyncFnOnce(&'g TaskGroup<E>) -> Result<T, E> + FnOnce(&'g TaskGroup<E>) -> Fut,
    Fut: Future<Output = Result<T, E>>,
{
    type Fut = Fut;

    fn call(self, group: &'g TaskGroup<E>) -> Fut {
        self(group)
    }
}

/// A group of tasks, lent to the body of a [`scope`].
///
/// It stays with the body; a [`Spawner`] goes anywhere.
pub struct TaskGroup<E = BoxError> {
    spawner: Spawner<E>,
}

impl<E: Send + 'static> TaskGroup<E> {
    pub(crate) fn new(core: Arc<Core>, runtime: Option<Handle>) -> Self {
        Self {
            spawner: Spawner {
                core,
                runtime,
                name: None,
                error: PhantomData,
            },
        }
    }

    /// Spawns a child. Await the handle for its value, or drop it: the group waits either way.
    ///
    /// If the group is closing, the future is dropped without being polled, and the handle is that of a cancelled child.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[doc(alias("create_task", "start_soon"))]
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, Birth::here(Kind::Normal))
            .unwrap_or_else(|refused| self.refuse(refused))
    }

    /// Spawns a child, or gives the future back, never polled, if the group is closing.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] with the future and the reason.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn try_spawn<F>(
        &self,
        future: F,
    ) -> Result<TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, Birth::here(Kind::Normal))
    }

    /// Spawns a background child: it is cancelled when the body and all normal children are done, and waited for.
    ///
    /// For what serves the others: a heartbeat, a progress line, an accept loop. If it fails, the group fails. In a scope with
    /// a [grace](crate::Scope::grace), have it listen to its [`token`](crate::token()), or the end waits for the whole grace.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn_background<F>(
        &self,
        future: F,
    ) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, Birth::here(Kind::Background))
            .unwrap_or_else(|refused| self.refuse(refused))
    }

    /// Spawns a child that blocks a thread: `call` runs on one of those that the runtime keeps for that.
    ///
    /// Cancelled before a thread has taken it, it never runs, and nobody waits for a thread; but one that is spawned within a grace, in
    /// a scope opened inside it, has the grace to run. Once it runs it cannot be
    /// stopped: the group waits for it, unless it was told to [give up](crate::Scope::give_up_blocking_after). Have it look at
    /// [`token()`](crate::token) now and then: that costs a few loads.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, call: F) -> TaskHandle<'_, R::Value>
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput<E, Value: Send + 'static> + Send + 'static,
    {
        self.launch_blocking(call, Birth::here(Kind::Normal))
    }

    /// Spawns a child that need not be `Send`, and stays in this thread.
    ///
    /// # Panics
    ///
    /// Outside a `tokio::task::LocalSet` and a `LocalRuntime`.
    #[track_caller]
    pub fn spawn_local<F>(&self, future: F) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + 'static,
    {
        let core = self.core();
        match spawn::admit::<F, E, _>(core, future, &Birth::here(Kind::Normal)) {
            Ok((member, serial)) => {
                let join = crate::runtime::spawn_local(member);
                TaskHandle::spawned(join, serial, None, core)
            }
            Err(refused) => self.refuse(refused),
        }
    }

    /// Spawns a child on another runtime. It is a child like all others, wherever it runs.
    #[track_caller]
    pub fn spawn_on<F>(
        &self,
        runtime: &Handle,
        future: F,
    ) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let core = self.core();
        match spawn::admit::<F, E, _>(core, future, &Birth::here(Kind::Normal)) {
            Ok((member, serial)) => {
                let join = crate::runtime::spawn(Some(runtime), member);
                TaskHandle::spawned(join, serial, None, core)
            }
            Err(refused) => self.refuse(refused),
        }
    }

    /// Names the next child, for errors, events and snapshots: `group.named("fetch").spawn(…)`.
    #[doc(alias = "spawn_named")]
    pub fn named(&self, name: impl Into<PlainArc<str>>) -> Named<'_, E> {
        Named {
            group: self,
            name: name.into(),
        }
    }

    /// Limits how many of the children spawned through the returned view run at once: by a number, or by [`Slots`] that
    /// groups share.
    ///
    /// # Panics
    ///
    /// If the limit is 0.
    #[track_caller]
    pub fn limit(&self, slots: impl Into<Slots>) -> Limited<'_, E> {
        Limited::new(self, slots.into())
    }

    /// Returns a spawner: children, siblings and strangers spawn through it while the group is open, also while the body
    /// has returned and the scope waits.
    #[must_use]
    pub fn spawner(&self) -> Spawner<E> {
        self.spawner.clone()
    }

    /// Cancels the group: its children and the body. The scope reports it as cancelled.
    ///
    /// Without a grace, all of them are dropped where they are parked, the body at its next await. With one, tokens fire
    /// first. The first reason stands; later calls do nothing.
    pub fn cancel(&self) {
        self.spawner.cancel();
    }

    /// Cancels the group, with a note that the reason carries.
    pub fn cancel_with(&self, note: impl Into<PlainArc<str>>) {
        self.spawner.cancel_with(note);
    }

    /// Cancels all present children, not the body; the group stays open.
    #[doc(alias = "abort_all")]
    pub fn cancel_children(&self) {
        self.spawner.core.cancel_children();
    }

    /// Returns the group's token.
    #[must_use]
    pub fn token(&self) -> Token {
        self.spawner.token()
    }

    /// Asks whether the group was cancelled, by whatever reason.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.spawner.is_cancelled()
    }

    /// Returns how many children are alive, adopted scopes included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.spawner.core.children(true)
    }

    /// Asks whether no child is alive.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.spawner.core
    }

    pub(crate) fn runtime(&self) -> Option<&Handle> {
        self.spawner.runtime.as_ref()
    }

    /// Forces everybody, and hands the group over to whoever adopts it. `is_in` says whether the body is still counted in.
    pub(crate) fn abandon(&self, is_in: bool) {
        let core = self.core();
        core.listed().end_body();
        core.cancel_dropped(is_in);
        if !is_in {
            // Counted out already: come in again, so that the last one out is not missed (A1).
            core.word().adopt();
        }
        if !core.orphan_empty() {
            let runtime = self.spawner.runtime.as_ref().map(Handle::id);
            core.orphan(crate::context::adopter(core, || crate::root::of(runtime)));
        }
    }

    #[track_caller]
    pub(crate) fn launch<F>(
        &self,
        future: F,
        birth: Birth,
    ) -> Result<TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let Spawner { core, runtime, .. } = &self.spawner;
        let (member, serial) = spawn::admit::<F, E, _>(core, future, &birth)?;
        let join = crate::runtime::spawn_from(birth.location, runtime.as_ref(), member);
        Ok(TaskHandle::spawned(join, serial, birth.name, core))
    }

    /// As [`spawn`](Self::spawn), for a call that was made at `location`.
    #[track_caller]
    pub(crate) fn spawn_from<F>(
        &self,
        location: &'static Location<'static>,
        future: F,
    ) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let birth = Birth {
            location,
            ..Birth::here(Kind::Normal)
        };
        self.launch(future, birth)
            .unwrap_or_else(|refused| self.refuse(refused))
    }

    #[track_caller]
    pub(crate) fn launch_blocking<F, R>(&self, call: F, birth: Birth) -> TaskHandle<'_, R::Value>
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput<E, Value: Send + 'static> + Send + 'static,
    {
        let blocking = Blocking::new(
            call,
            &self.spawner.core,
            self.spawner.runtime.clone(),
            birth.location,
        );
        self.launch(blocking, birth)
            .unwrap_or_else(|refused| self.refuse(refused))
    }

    pub(crate) fn refuse<F, T>(&self, refused: SpawnError<F>) -> TaskHandle<'_, T> {
        let core = &self.spawner.core;
        TaskHandle::refused(spawn::discard(core, refused), core)
    }
}

impl<E> fmt::Debug for TaskGroup<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.spawner.describe("TaskGroup", f)
    }
}

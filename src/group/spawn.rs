//! How children come into a group: counted in, wrapped, and started; from the body, by name, or from anywhere.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;

use tokio::runtime::Handle;

use crate::cancel::Token;
use crate::group::TaskGroup;
use crate::group::blocking::Blocking;
use crate::group::error::{BoxError, SpawnError};
use crate::group::handle::{OutcomeHandle, TaskHandle};
use crate::group::limited::LimitedSpawner;
use crate::group::member::Member;
use crate::group::output::TaskOutput;
use crate::group::slots::Slots;
use crate::group::start::{self, Ready, StartDetached, StartResult};
use crate::observe::{CancelReason, DisplacedWhat, displace, tell};
use crate::panic::catch;
use crate::state::Core;
use crate::state::word::Kind;
use crate::sync::{Arc, PlainArc};

/// Where a child comes from.
pub(crate) struct Birth {
    pub(crate) kind: Kind,
    pub(crate) name: Option<PlainArc<str>>,
    pub(crate) location: &'static Location<'static>,
}

impl Birth {
    /// That of a child without a name, at the caller's.
    #[track_caller]
    pub(crate) fn here(kind: Kind) -> Self {
        Self::of(kind, None)
    }

    #[track_caller]
    pub(crate) fn of(kind: Kind, name: Option<PlainArc<str>>) -> Self {
        Self {
            kind,
            name,
            location: Location::caller(),
        }
    }
}

/// Counts a child in and wraps it. From here on it counts itself out, however it is dropped.
#[track_caller]
#[inline]
pub(crate) fn admit<F, E, V>(
    core: &Arc<Core>,
    future: F,
    birth: &Birth,
) -> Result<(Member<F, E>, u64), SpawnError<F>>
where
    F: Future<Output: TaskOutput<E, Value = V>>,
    V: Send + 'static,
    E: Send + 'static,
{
    let Birth {
        kind,
        ref name,
        location,
    } = *birth;
    let serial = match core.enter(kind) {
        Ok(serial) => serial,
        Err(reason) => return Err(SpawnError::new(future, reason)),
    };
    if core.observer().is_some() {
        let info = core.info(serial, name.clone(), location);
        tell(core.observer(), |o| o.spawned(&info));
    }
    if let Some(name) = name {
        core.set_name(serial, name.clone());
    }
    let named = name.is_some();
    let member = Member::new(core.clone(), serial, kind, named, location, future);
    Ok((member, serial))
}

/// Drops a refused future. What its destructor throws is not the spawner's: it is observed.
pub(crate) fn discard<F>(core: &Core, refused: SpawnError<F>) -> CancelReason {
    let reason = refused.reason().clone();
    if let Err(panic) = catch(|| drop(refused)) {
        displace(core.observer(), None, DisplacedWhat::Panic(panic));
    }
    reason
}

/// Names the next child of a group: see [`TaskGroup::named`].
pub struct Named<'g, E = BoxError> {
    pub(crate) group: &'g TaskGroup<E>,
    pub(crate) name: PlainArc<str>,
}

impl<'g, E: Send + 'static> Named<'g, E> {
    /// As [`TaskGroup::spawn`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn<F>(self, future: F) -> TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let Self { group, name } = self;
        group
            .launch(future, Birth::of(Kind::Normal, Some(name)))
            .unwrap_or_else(|refused| group.refuse(refused))
    }

    /// As [`TaskGroup::try_spawn`].
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
        self,
        future: F,
    ) -> Result<TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.group
            .launch(future, Birth::of(Kind::Normal, Some(self.name)))
    }

    /// As [`TaskGroup::spawn_background`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn_background<F>(
        self,
        future: F,
    ) -> TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let Self { group, name } = self;
        group
            .launch(future, Birth::of(Kind::Background, Some(name)))
            .unwrap_or_else(|refused| group.refuse(refused))
    }

    /// As [`TaskGroup::spawn_blocking`].
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn spawn_blocking<F, R>(self, call: F) -> TaskHandle<'g, R::Value>
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput<E, Value: Send + 'static> + Send + 'static,
    {
        self.group
            .launch_blocking(call, Birth::of(Kind::Normal, Some(self.name)))
    }

    /// As [`TaskGroup::start`].
    ///
    /// # Cancel safety
    ///
    /// As [`TaskGroup::start`].
    ///
    /// # Errors
    ///
    /// [`StartError`](crate::StartError): the child failed, or ended, or was cancelled before it was ready.
    ///
    /// # Panics
    ///
    /// As [`TaskGroup::start`].
    #[track_caller]
    pub fn start<R, C, F>(self, child: C) -> impl Future<Output = StartResult<'g, R, F, E>>
    where
        C: FnOnce(Ready<R>) -> F,
        F: Future<Output: TaskOutput<E, Value: Send + 'static> + Send> + Send + 'static,
    {
        let Spawner { core, runtime, .. } = &self.group.spawner;
        start::until_ready(
            core,
            runtime,
            child,
            Birth::of(Kind::Normal, Some(self.name)),
        )
    }
}

impl<E> fmt::Debug for Named<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Named")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// Spawns children into a group from anywhere: clone it, send it, keep it.
///
/// It does not keep the group open, and dropping it does nothing. Once the group is closing, what it spawns is dropped
/// without being polled; [`try_spawn`](Self::try_spawn) gives it back. The children run on the runtime of the scope,
/// whichever thread spawns them.
pub struct Spawner<E = BoxError> {
    pub(crate) core: Arc<Core>,
    pub(crate) runtime: Option<Handle>,
    /// That of every child that it spawns.
    pub(crate) name: Option<PlainArc<str>>,
    pub(crate) error: PhantomData<fn(E) -> E>,
}

impl<E: Send + 'static> Spawner<E> {
    /// Spawns a child, whose handle yields its [`Outcome`](crate::Outcome).
    ///
    /// # Panics
    ///
    /// If the scope was opened outside a tokio runtime, and this is called outside one, too.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> OutcomeHandle<<F::Output as TaskOutput<E>>::Value>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, self.birth(Kind::Normal))
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
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn try_spawn<F>(
        &self,
        future: F,
    ) -> Result<OutcomeHandle<<F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, self.birth(Kind::Normal))
    }

    /// Spawns a background child: see [`TaskGroup::spawn_background`].
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
        self.launch(future, self.birth(Kind::Background))
            .unwrap_or_else(|refused| self.refuse(refused))
    }

    /// Spawns a child that blocks a thread: see [`TaskGroup::spawn_blocking`].
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, call: F) -> OutcomeHandle<R::Value>
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput<E, Value: Send + 'static> + Send + 'static,
    {
        let birth = self.birth(Kind::Normal);
        let blocking = Blocking::new(call, &self.core, self.runtime.clone(), birth.location);
        self.launch(blocking, birth)
            .unwrap_or_else(|refused| self.refuse(refused))
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
        let starting =
            start::until_ready(&self.core, &self.runtime, child, self.birth(Kind::Normal));
        async move {
            let (value, handle) = starting.await?;
            Ok((value, handle.detached()))
        }
    }

    /// Returns a spawner whose children have this name, for errors, events and snapshots:
    /// `spawner.named("fetch").spawn(…)`.
    #[must_use]
    pub fn named(&self, name: impl Into<PlainArc<str>>) -> Self {
        Self {
            name: Some(name.into()),
            ..self.clone()
        }
    }

    /// Limits how many of the children spawned through the returned view run at once: see [`TaskGroup::limit`].
    ///
    /// # Panics
    ///
    /// If the limit is 0.
    #[must_use]
    #[track_caller]
    pub fn limit(&self, slots: impl Into<Slots>) -> LimitedSpawner<E> {
        LimitedSpawner::new(self.clone(), slots.into())
    }

    /// Counts somebody in who is not a task: the group does not end before the guard is dropped.
    ///
    /// # Errors
    ///
    /// [`SpawnError`] if the group is closing.
    #[track_caller]
    pub fn guard(&self) -> Result<Guard, SpawnError<()>> {
        Guard::new(&self.core, self.name.clone())
    }

    /// Cancels the group: see [`TaskGroup::cancel`].
    pub fn cancel(&self) {
        self.request(None);
    }

    /// Cancels the group, with a note that the reason carries.
    pub fn cancel_with(&self, note: impl Into<PlainArc<str>>) {
        self.request(Some(note.into()));
    }

    #[track_caller]
    pub(crate) fn birth(&self, kind: Kind) -> Birth {
        Birth::of(kind, self.name.clone())
    }

    fn request(&self, note: Option<PlainArc<str>>) {
        let by = crate::context::task_id();
        self.core.cancel(CancelReason::Requested { note, by });
    }

    #[track_caller]
    pub(crate) fn launch<F>(
        &self,
        future: F,
        birth: Birth,
    ) -> Result<OutcomeHandle<<F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let (member, serial) = admit::<F, E, _>(&self.core, future, &birth)?;
        let join = crate::runtime::spawn_from(birth.location, self.runtime.as_ref(), member);
        Ok(TaskHandle::spawned(join, serial, birth.name, &self.core).detached())
    }

    pub(crate) fn refuse<F, T>(&self, refused: SpawnError<F>) -> OutcomeHandle<T> {
        TaskHandle::refused(discard(&self.core, refused), &self.core).detached()
    }
}

impl<E> Spawner<E> {
    /// Returns the group's token.
    #[must_use]
    pub fn token(&self) -> Token {
        Token::of(self.core.clone(), 0)
    }

    /// Asks whether the group was cancelled, by whatever reason.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.core.word().read().is_cancelled()
    }

    /// Asks whether the group takes new children.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.core.word().read().is_open()
    }

    pub(crate) fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = self.core.word().read();
        f.debug_struct(name)
            .field("name", &self.core.path())
            .field("state", &word)
            .finish()
    }
}

impl<E> Clone for Spawner<E> {
    fn clone(&self) -> Self {
        Self {
            core: self.core.clone(),
            runtime: self.runtime.clone(),
            name: self.name.clone(),
            error: PhantomData,
        }
    }
}

impl<E> fmt::Debug for Spawner<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.describe("Spawner", f)
    }
}

/// Counts as a child for as long as it lives, though it is no task: see [`OwnedGroup::guard`](crate::OwnedGroup::guard).
///
/// It can be asked to end like one, by [`token`](Self::token), but nobody can force it: the group waits. A [`snapshot`](crate::snapshot)
/// shows it, with the place where it was made.
#[must_use = "the group waits only while the guard lives"]
pub struct Guard {
    core: Arc<Core>,
    serial: u64,
}

impl Guard {
    #[track_caller]
    pub(crate) fn new(
        core: &Arc<Core>,
        name: Option<PlainArc<str>>,
    ) -> Result<Self, SpawnError<()>> {
        match core.enter(Kind::Normal) {
            Ok(serial) => {
                // Seen by whoever looks for those who hold up a shutdown.
                core.registry().enter(serial, name, Location::caller());
                Ok(Self {
                    core: core.clone(),
                    serial,
                })
            }
            Err(reason) => Err(SpawnError::new((), reason)),
        }
    }

    /// Returns the group's token.
    #[must_use]
    pub fn token(&self) -> Token {
        Token::of(self.core.clone(), 0)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.core.registry().remove(self.serial));
        self.core.leave(Kind::Normal);
    }
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

//! Groups with a limit on how many children run at once.

use std::fmt;
use std::future::Future;

use crate::group::TaskGroup;
use crate::group::blocking::Blocking;
use crate::group::error::{SpawnError, TrySpawnError};
use crate::group::handle::{OutcomeHandle, TaskHandle};
use crate::group::output::TaskOutput;
use crate::group::slots::{Gate, Slot, Slots, WithSlot};
use crate::group::spawn::{Birth, Spawner};
use crate::state::Core;
use crate::state::word::Kind;
use crate::sync::PlainArc;

/// A [`TaskGroup`] with a limit: at most so many of the children spawned through it run at once.
///
/// A slot is taken before the child exists, so what waits is the one who spawns, and memory stays that of the children that
/// run. It comes back when the child has ended, whatever the way: its future is dropped, and so are the children of scopes that it
/// left behind. From [`TaskGroup::limit`]: call that once, before
/// the loop that spawns, since each call with a number makes a limit of its own.
///
/// # Fairness
///
/// Slots are given first come, first served.
pub struct Limited<'g, E> {
    group: &'g TaskGroup<E>,
    gate: Gate,
}

#[expect(
    clippy::async_yields_async,
    reason = "one waits for the slot, and then may wait for the child"
)]
impl<'g, E: Send + 'static> Limited<'g, E> {
    pub(crate) fn new(group: &'g TaskGroup<E>, slots: Slots) -> Self {
        let gate = Gate::new(slots, group.core());
        Self { group, gate }
    }

    /// Waits for a slot, and spawns a child that has it.
    ///
    /// If the group is cancelled meanwhile, or whoever waits, the wait ends with the signal, the future is dropped without
    /// being polled, and the handle is that of a cancelled child.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it is ready, nothing was spawned, and no slot is lost.
    ///
    /// # Panics
    ///
    /// When first polled in a child that has a slot of the same budget, unless this group is inside that child: when
    /// all children that have one do that, none goes on. Outside a tokio runtime.
    #[track_caller]
    pub fn spawn<F>(
        &self,
        future: F,
    ) -> impl Future<Output = TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, Birth::here(Kind::Normal))
    }

    /// Waits for a slot, and spawns a background child that has it: see [`TaskGroup::spawn_background`].
    ///
    /// # Cancel safety
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_background<F>(
        &self,
        future: F,
    ) -> impl Future<Output = TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, Birth::here(Kind::Background))
    }

    /// Waits for a slot, and spawns a child that blocks a thread: see [`TaskGroup::spawn_blocking`].
    ///
    /// The slot comes back when the call is over: one that was given up and goes on keeps it.
    ///
    /// # Cancel safety
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, call: F) -> impl Future<Output = TaskHandle<'g, R::Value>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput<E, Value: Send + 'static> + Send + 'static,
    {
        self.launch_blocking(call, Birth::here(Kind::Normal))
    }

    /// Spawns a child if there is a slot, or gives the future back.
    ///
    /// # Errors
    ///
    /// [`TrySpawnError`]: no slot is free, or others wait for one; or the group is closing.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn try_spawn<F>(
        &self,
        future: F,
    ) -> Result<TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>, TrySpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.try_launch(future, Birth::here(Kind::Normal))
    }

    /// Names the next child, for errors, events and snapshots: `limited.named("fetch").spawn(…).await`.
    pub fn named(&self, name: impl Into<PlainArc<str>>) -> LimitedNamed<'_, 'g, E> {
        LimitedNamed {
            limited: self,
            name: name.into(),
        }
    }

    /// Returns how many children may run at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.gate.slots().limit()
    }

    /// Returns how many slots are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.gate.slots().free()
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` would have room for `future` twice"
    )]
    fn launch<F>(
        &self,
        future: F,
        birth: Birth,
    ) -> impl Future<Output = TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        async move {
            let slot = match self.gate.take(self.group.core(), &birth).await {
                Ok(slot) => slot,
                Err(reason) => return self.group.refuse(SpawnError::new(future, reason)),
            };
            let started = self.group.launch(WithSlot::new(future, slot), birth);
            started.unwrap_or_else(|refused| self.group.refuse(unslotted(refused)))
        }
    }

    async fn launch_blocking<F, R>(&self, call: F, birth: Birth) -> TaskHandle<'g, R::Value>
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput<E, Value: Send + 'static> + Send + 'static,
    {
        match self.gate.take(self.group.core(), &birth).await {
            Ok(slot) => self.group.launch_blocking(with_slot(call, slot), birth),
            Err(reason) => self.group.refuse(SpawnError::new(call, reason)),
        }
    }

    #[track_caller]
    fn try_launch<F>(
        &self,
        future: F,
        birth: Birth,
    ) -> Result<TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>, TrySpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let Some(slot) = self.gate.try_take() else {
            return Err(full(self.group.core(), future));
        };
        self.group
            .launch(WithSlot::new(future, slot), birth)
            .map_err(|refused| TrySpawnError::Closing(unslotted(refused)))
    }
}

impl<E> fmt::Debug for Limited<'_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limited")
            .field("group", self.group)
            .field("slots", self.gate.slots())
            .finish()
    }
}

/// Names the next child of a limited group: see [`Limited::named`].
pub struct LimitedNamed<'l, 'g, E> {
    limited: &'l Limited<'g, E>,
    name: PlainArc<str>,
}

impl<'g, E: Send + 'static> LimitedNamed<'_, 'g, E> {
    /// As [`Limited::spawn`].
    ///
    /// # Cancel safety
    ///
    /// As [`Limited::spawn`].
    ///
    /// # Panics
    ///
    /// As [`Limited::spawn`].
    #[track_caller]
    pub fn spawn<F>(
        self,
        future: F,
    ) -> impl Future<Output = TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let birth = Birth::of(Kind::Normal, Some(self.name));
        self.limited.launch(future, birth)
    }

    /// As [`Limited::spawn_background`].
    ///
    /// # Cancel safety
    ///
    /// As [`Limited::spawn`].
    ///
    /// # Panics
    ///
    /// As [`Limited::spawn`].
    #[track_caller]
    pub fn spawn_background<F>(
        self,
        future: F,
    ) -> impl Future<Output = TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let birth = Birth::of(Kind::Background, Some(self.name));
        self.limited.launch(future, birth)
    }

    /// As [`Limited::spawn_blocking`].
    ///
    /// # Cancel safety
    ///
    /// As [`Limited::spawn`].
    ///
    /// # Panics
    ///
    /// As [`Limited::spawn`].
    #[track_caller]
    pub fn spawn_blocking<F, R>(self, call: F) -> impl Future<Output = TaskHandle<'g, R::Value>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput<E, Value: Send + 'static> + Send + 'static,
    {
        let birth = Birth::of(Kind::Normal, Some(self.name));
        self.limited.launch_blocking(call, birth)
    }

    /// As [`Limited::try_spawn`].
    ///
    /// # Errors
    ///
    /// [`TrySpawnError`]: no slot is free, or others wait for one; or the group is closing.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    pub fn try_spawn<F>(
        self,
        future: F,
    ) -> Result<TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>, TrySpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let birth = Birth::of(Kind::Normal, Some(self.name));
        self.limited.try_launch(future, birth)
    }
}

impl<E> fmt::Debug for LimitedNamed<'_, '_, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedNamed")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

/// A [`Spawner`] with a limit: see [`Limited`]. From [`Spawner::limit`].
pub struct LimitedSpawner<E> {
    spawner: Spawner<E>,
    gate: Gate,
}

#[expect(
    clippy::async_yields_async,
    reason = "one waits for the slot, and then may wait for the child"
)]
impl<E: Send + 'static> LimitedSpawner<E> {
    pub(crate) fn new(spawner: Spawner<E>, slots: Slots) -> Self {
        let gate = Gate::shared(slots, &spawner.core);
        Self { spawner, gate }
    }

    /// Waits for a slot, and spawns a child that has it: see [`Limited::spawn`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it is ready, nothing was spawned, and no slot is lost.
    ///
    /// # Panics
    ///
    /// As [`Limited::spawn`]: in a child that has a slot of this budget, for one. And as [`Spawner::spawn`].
    #[track_caller]
    pub fn spawn<F>(
        &self,
        future: F,
    ) -> impl Future<Output = OutcomeHandle<<F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, self.spawner.birth(Kind::Normal))
    }

    /// Waits for a slot, and spawns a background child that has it: see [`TaskGroup::spawn_background`].
    ///
    /// # Cancel safety
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_background<F>(
        &self,
        future: F,
    ) -> impl Future<Output = OutcomeHandle<<F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        self.launch(future, self.spawner.birth(Kind::Background))
    }

    /// Waits for a slot, and spawns a child that blocks a thread: see [`Limited::spawn_blocking`].
    ///
    /// # Cancel safety
    ///
    /// As [`spawn`](Self::spawn).
    ///
    /// # Panics
    ///
    /// As [`spawn`](Self::spawn).
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, call: F) -> impl Future<Output = OutcomeHandle<R::Value>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: TaskOutput<E, Value: Send + 'static> + Send + 'static,
    {
        let birth = self.spawner.birth(Kind::Normal);
        async move {
            let slot = match self.gate.take(&self.spawner.core, &birth).await {
                Ok(slot) => slot,
                Err(reason) => return self.spawner.refuse(SpawnError::new(call, reason)),
            };
            let call = with_slot(call, slot);
            let blocking = Blocking::new(
                call,
                &self.spawner.core,
                self.spawner.runtime.clone(),
                birth.location,
            );
            let started = self.spawner.launch(blocking, birth);
            started.unwrap_or_else(|refused| self.spawner.refuse(refused))
        }
    }

    /// Spawns a child if there is a slot, or gives the future back: see [`Limited::try_spawn`].
    ///
    /// # Errors
    ///
    /// [`TrySpawnError`]: no slot is free, or others wait for one; or the group is closing.
    ///
    /// # Panics
    ///
    /// As [`Spawner::spawn`].
    #[track_caller]
    pub fn try_spawn<F>(
        &self,
        future: F,
    ) -> Result<OutcomeHandle<<F::Output as TaskOutput<E>>::Value>, TrySpawnError<F>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let Some(slot) = self.gate.try_take() else {
            return Err(full(&self.spawner.core, future));
        };
        self.spawner
            .launch(
                WithSlot::new(future, slot),
                self.spawner.birth(Kind::Normal),
            )
            .map_err(|refused| TrySpawnError::Closing(unslotted(refused)))
    }

    /// Returns the same view, with the same slots, whose children have this name: `limited.named("fetch").spawn(…).await`.
    #[must_use]
    pub fn named(&self, name: impl Into<PlainArc<str>>) -> Self {
        Self {
            spawner: self.spawner.named(name),
            gate: self.gate.clone(),
        }
    }

    /// Returns how many children may run at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.gate.slots().limit()
    }

    /// Returns how many slots are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.gate.slots().free()
    }

    #[expect(
        clippy::manual_async_fn,
        reason = "the future of an `async fn` would have room for `future` twice"
    )]
    fn launch<F>(
        &self,
        future: F,
        birth: Birth,
    ) -> impl Future<Output = OutcomeHandle<<F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        async move {
            let slot = match self.gate.take(&self.spawner.core, &birth).await {
                Ok(slot) => slot,
                Err(reason) => return self.spawner.refuse(SpawnError::new(future, reason)),
            };
            let started = self.spawner.launch(WithSlot::new(future, slot), birth);
            started.unwrap_or_else(|refused| self.spawner.refuse(unslotted(refused)))
        }
    }
}

impl<E> Clone for LimitedSpawner<E> {
    fn clone(&self) -> Self {
        Self {
            spawner: self.spawner.clone(),
            gate: self.gate.clone(),
        }
    }
}

impl<E> fmt::Debug for LimitedSpawner<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitedSpawner")
            .field("spawner", &self.spawner)
            .field("slots", self.gate.slots())
            .finish()
    }
}

/// Says that there is no slot, unless the group is closing: then there will never be one.
#[cold]
fn full<F>(core: &Core, future: F) -> TrySpawnError<F> {
    match core.refusal() {
        Some(reason) => TrySpawnError::Closing(SpawnError::new(future, reason)),
        None => TrySpawnError::Full(future),
    }
}

/// Gives back the future of a child that was refused; the slot comes back.
fn unslotted<F>(refused: SpawnError<WithSlot<F>>) -> SpawnError<F> {
    let reason = refused.reason().clone();
    SpawnError::new(refused.into_inner().into_inner(), reason)
}

/// The slot of a call that blocks comes back when that is over, or is dropped.
fn with_slot<R>(call: impl FnOnce() -> R, mut slot: Slot) -> impl FnOnce() -> R {
    move || {
        slot.settle();
        call()
    }
}

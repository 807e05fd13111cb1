//! Groups with a limit on how many children run at once.

use std::fmt;
use std::future::Future;

use crate::cancel::Token;
use crate::group::TaskGroup;
use crate::group::error::{SpawnError, TrySpawnError};
use crate::group::handle::{OutcomeHandle, TaskHandle};
use crate::group::output::TaskOutput;
use crate::group::slots::{Gate, Slots, WithSlot};
use crate::group::spawn::{Birth, Spawner};
use crate::observe::CancelReason;
use crate::state::word::Kind;

/// A [`TaskGroup`] with a limit: at most so many of the children spawned through it run at once.
///
/// A slot is taken before the child exists, so what waits is the one who spawns, and memory stays that of the children that
/// run. It comes back when the child's future is dropped, whatever the way. From [`TaskGroup::limit`].
///
/// # Fairness
///
/// Slots are given first come, first served.
pub struct Limited<'g, E> {
    group: &'g TaskGroup<E>,
    gate: Gate,
}

impl<'g, E: Send + 'static> Limited<'g, E> {
    pub(crate) fn new(group: &'g TaskGroup<E>, slots: Slots) -> Self {
        let gate = Gate::new(slots, group.core());
        Self { group, gate }
    }

    /// Waits for a slot, and spawns a child that has it.
    ///
    /// If the group is cancelled meanwhile, the wait ends, the future is dropped without being polled, and the handle is
    /// that of a cancelled child.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped before it is ready, nothing was spawned, and no slot is lost.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[track_caller]
    #[expect(
        clippy::async_yields_async,
        reason = "one waits for the slot, and then may wait for the child"
    )]
    pub fn spawn<F>(
        &self,
        future: F,
    ) -> impl Future<Output = TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let birth = Birth::here(Kind::Normal);
        async move {
            let token = Token::of(self.group.core().clone(), 0);
            let started = match self.gate.take(token.clone()).await {
                Some(slot) => self
                    .group
                    .launch(WithSlot::new(future, slot), birth)
                    .map_err(unslotted),
                None => Err(SpawnError::new(
                    future,
                    token.reason().unwrap_or(CancelReason::Closed),
                )),
            };
            started.unwrap_or_else(|refused| self.group.refuse(refused))
        }
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
        let Some(slot) = self.gate.try_take() else {
            return Err(TrySpawnError::Full(future));
        };
        self.group
            .launch(WithSlot::new(future, slot), Birth::here(Kind::Normal))
            .map_err(|refused| TrySpawnError::Closing(unslotted(refused)))
    }

    /// Returns the budget.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        self.gate.slots()
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

/// A [`Spawner`] with a limit: see [`Limited`]. From [`Spawner::limit`].
pub struct LimitedSpawner<E> {
    spawner: Spawner<E>,
    gate: Gate,
}

impl<E: Send + 'static> LimitedSpawner<E> {
    pub(crate) fn new(spawner: Spawner<E>, slots: Slots) -> Self {
        let gate = Gate::new(slots, &spawner.core);
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
    /// As [`Spawner::spawn`].
    #[track_caller]
    #[expect(
        clippy::async_yields_async,
        reason = "one waits for the slot, and then may wait for the child"
    )]
    pub fn spawn<F>(
        &self,
        future: F,
    ) -> impl Future<Output = OutcomeHandle<<F::Output as TaskOutput<E>>::Value>>
    where
        F: Future<Output: TaskOutput<E, Value: Send + 'static>> + Send + 'static,
    {
        let birth = Birth::here(Kind::Normal);
        async move {
            let token = self.spawner.token();
            let started = match self.gate.take(token.clone()).await {
                Some(slot) => self
                    .spawner
                    .launch(WithSlot::new(future, slot), birth)
                    .map_err(unslotted),
                None => Err(SpawnError::new(
                    future,
                    token.reason().unwrap_or(CancelReason::Closed),
                )),
            };
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
            return Err(TrySpawnError::Full(future));
        };
        self.spawner
            .launch(WithSlot::new(future, slot), Birth::here(Kind::Normal))
            .map_err(|refused| TrySpawnError::Closing(unslotted(refused)))
    }

    /// Returns the budget.
    #[must_use]
    pub fn slots(&self) -> &Slots {
        self.gate.slots()
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

/// Gives back the future of a child that was refused; the slot comes back.
fn unslotted<F>(refused: SpawnError<WithSlot<F>>) -> SpawnError<F> {
    let reason = refused.reason().clone();
    SpawnError::new(refused.into_inner().into_inner(), reason)
}

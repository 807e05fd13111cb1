//! The public types: two sets of the same shape, since the type of a child's box says whether children are `Send`.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::panic::Location;
use std::pin::Pin;

use crate::cancel::Token;
use crate::group::borrow::child::{Cell, Child};
use crate::group::borrow::set::Shared;
use crate::group::borrow::slot::{Reader, slot};
use crate::group::error::{BoxError, SpawnError};
use crate::group::handle::{OutcomeHandle, TaskHandle};
use crate::group::output::TaskOutput;
use crate::group::spawn::discard;
use crate::observe::{CancelReason, tell};
use crate::state::Core;
use crate::state::word::Kind;
use crate::sync::{Arc, PlainArc};

type Value<F, E> = <<F as Future>::Output as TaskOutput<E>>::Value;
/// A child in its box, the way to its outcome, and its serial.
type Prepared<F, E> = (Pin<Box<Cell<F, E, Value<F, E>>>>, Reader<Value<F, E>>, u64);

/// Counts a child in, and makes its cell.
fn prepare<F, E>(
    core: &Core,
    future: F,
    kind: Kind,
    name: Option<&PlainArc<str>>,
    location: &'static Location<'static>,
) -> Result<Prepared<F, E>, SpawnError<F>>
where
    F: Future<Output: TaskOutput<E>>,
    E: Send + 'static,
{
    let serial = match core.enter(kind) {
        Ok(serial) => serial,
        Err(reason) => return Err(SpawnError::new(future, reason)),
    };
    if core.observer().is_some() {
        let info = core.info(serial, name.cloned(), location);
        tell(core.observer(), |o| o.spawned(&info));
    }
    if let Some(name) = name {
        core.set_name(serial, name.clone());
    }
    let (slot, reader) = slot();
    let cell = Cell::boxed(future, slot, serial, kind, name.is_some(), location);
    Ok((cell, reader, serial))
}

fn request(core: &Core, note: Option<PlainArc<str>>) {
    let by = crate::context::task_id();
    core.cancel(CancelReason::Requested { note, by });
}

macro_rules! faces {
    (
        $(#[$group_doc:meta])*
        group: $Group:ident,
        $(#[$spawner_doc:meta])*
        spawner: $Spawner:ident,
        $(#[$named_doc:meta])*
        named: $Named:ident,
        child: $Dyn:ty,
        bounds: [$($Send:tt)*],
    ) => {
        $(#[$group_doc])*
        pub struct $Group<'env, E = BoxError> {
            spawner: $Spawner<'env, E>,
        }

        impl<'env, E: Send + 'static> $Group<'env, E> {
            pub(super) fn new(shared: Arc<Shared<$Dyn>>) -> Self {
                Self {
                    spawner: $Spawner {
                        shared,
                        error: PhantomData,
                    },
                }
            }

            /// Spawns a child. Await the handle for its value, or drop it: the group waits either way.
            ///
            /// The child is first polled when the body waits. If the group is closing, the future is dropped without
            /// being polled, and the handle is that of a cancelled child.
            #[track_caller]
            pub fn spawn<F>(&self, future: F) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                self.start(future, Kind::Normal, None)
                    .unwrap_or_else(|refused| self.refuse(refused))
            }

            /// Spawns a child, or gives the future back, never polled, if the group is closing.
            ///
            /// # Errors
            ///
            /// [`SpawnError`] with the future and the reason.
            #[track_caller]
            pub fn try_spawn<F>(
                &self,
                future: F,
            ) -> Result<TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                self.start(future, Kind::Normal, None)
            }

            /// Spawns a background child: it is cancelled when the body and all normal children are done, and waited
            /// for. If it fails, the group fails.
            #[track_caller]
            pub fn spawn_background<F>(
                &self,
                future: F,
            ) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                self.start(future, Kind::Background, None)
                    .unwrap_or_else(|refused| self.refuse(refused))
            }

            /// Spawns a child that is polled once right here, and again only if it has to wait.
            ///
            /// For children that are often ready at once: a cache hit, a buffered write. All else is as in
            /// [`spawn`](Self::spawn); a panic of that first poll, too, is the child's.
            #[track_caller]
            pub fn spawn_eager<F>(
                &self,
                future: F,
            ) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                let shared = &self.spawner.shared;
                let core = &shared.core;
                match prepare(core, future, Kind::Normal, None, Location::caller()) {
                    Ok((mut cell, reader, serial)) => {
                        if cell.as_mut().start(core).is_pending() {
                            shared.spawn(cell);
                        }
                        TaskHandle::in_task(reader, serial, None, core)
                    }
                    Err(refused) => self.refuse(refused),
                }
            }

            /// Names the next child, for errors, events and snapshots: `group.named("fetch").spawn(…)`.
            pub fn named(&self, name: impl Into<PlainArc<str>>) -> $Named<'_, 'env, E> {
                $Named {
                    group: self,
                    name: name.into(),
                }
            }

            /// Returns a spawner: children and siblings spawn through it while the group is open, also while the body
            /// has returned and the scope waits.
            #[must_use]
            pub fn spawner(&self) -> $Spawner<'env, E> {
                self.spawner.clone()
            }

            /// Cancels the group: its children and the body. The scope reports it as cancelled.
            ///
            /// Without a grace, all of them are dropped where they are parked, the body at its next await. With one,
            /// tokens fire first. The first reason stands; later calls do nothing.
            pub fn cancel(&self) {
                self.spawner.cancel();
            }

            /// Cancels the group, with a note that the reason carries.
            pub fn cancel_with(&self, note: impl Into<PlainArc<str>>) {
                self.spawner.cancel_with(note);
            }

            /// Cancels all present children, not the body; the group stays open.
            pub fn cancel_children(&self) {
                self.spawner.shared.cancel_children();
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

            pub(crate) fn core(&self) -> &Arc<Core> {
                &self.spawner.shared.core
            }

            /// Returns how many children are alive, adopted scopes included.
            #[must_use]
            pub fn len(&self) -> usize {
                self.spawner.shared.core.children(true)
            }

            /// Asks whether no child is alive.
            #[must_use]
            pub fn is_empty(&self) -> bool {
                self.len() == 0
            }

            #[track_caller]
            fn start<F>(
                &self,
                future: F,
                kind: Kind,
                name: Option<PlainArc<str>>,
            ) -> Result<TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                let shared = &self.spawner.shared;
                let (cell, reader, serial) = prepare(&shared.core, future, kind, name.as_ref(), Location::caller())?;
                shared.spawn(cell);
                Ok(TaskHandle::in_task(reader, serial, name, &shared.core))
            }

            /// As [`spawn`](Self::spawn), for a call that was made at `location`.
            pub(crate) fn spawn_from<F>(
                &self,
                location: &'static Location<'static>,
                future: F,
            ) -> TaskHandle<'_, <F::Output as TaskOutput<E>>::Value>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                let shared = &self.spawner.shared;
                match prepare(&shared.core, future, Kind::Normal, None, location) {
                    Ok((cell, reader, serial)) => {
                        shared.spawn(cell);
                        TaskHandle::in_task(reader, serial, None, &shared.core)
                    }
                    Err(refused) => self.refuse(refused),
                }
            }

            fn refuse<F, T>(&self, refused: SpawnError<F>) -> TaskHandle<'_, T> {
                let core = &self.spawner.shared.core;
                TaskHandle::refused(discard(core, refused), core)
            }
        }

        impl<E> fmt::Debug for $Group<'_, E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.spawner.describe(stringify!($Group), f)
            }
        }

        $(#[$spawner_doc])*
        pub struct $Spawner<'env, E = BoxError> {
            shared: Arc<Shared<$Dyn>>,
            error: PhantomData<fn(E) -> E>,
        }

        impl<'env, E: Send + 'static> $Spawner<'env, E> {
            /// Spawns a child, whose handle yields its [`Outcome`](crate::Outcome).
            #[track_caller]
            pub fn spawn<F>(&self, future: F) -> OutcomeHandle<<F::Output as TaskOutput<E>>::Value>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                self.start(future, Kind::Normal)
                    .unwrap_or_else(|refused| self.refuse(refused))
            }

            /// Spawns a child, or gives the future back, never polled, if the group is closing.
            ///
            /// # Errors
            ///
            /// [`SpawnError`] with the future and the reason.
            #[track_caller]
            pub fn try_spawn<F>(
                &self,
                future: F,
            ) -> Result<OutcomeHandle<<F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                self.start(future, Kind::Normal)
            }

            /// Spawns a background child: it is cancelled when the body and all normal children are done, and waited
            /// for. If it fails, the group fails.
            #[track_caller]
            pub fn spawn_background<F>(
                &self,
                future: F,
            ) -> OutcomeHandle<<F::Output as TaskOutput<E>>::Value>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                self.start(future, Kind::Background)
                    .unwrap_or_else(|refused| self.refuse(refused))
            }

            /// Cancels the group, its body included.
            pub fn cancel(&self) {
                request(&self.shared.core, None);
            }

            /// Cancels the group, with a note that the reason carries.
            pub fn cancel_with(&self, note: impl Into<PlainArc<str>>) {
                request(&self.shared.core, Some(note.into()));
            }

            #[track_caller]
            fn start<F>(
                &self,
                future: F,
                kind: Kind,
            ) -> Result<OutcomeHandle<<F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                let core = &self.shared.core;
                let (cell, reader, serial) = prepare(core, future, kind, None, Location::caller())?;
                self.shared.spawn(cell);
                Ok(TaskHandle::in_task(reader, serial, None, core).detached())
            }

            fn refuse<F, T>(&self, refused: SpawnError<F>) -> OutcomeHandle<T> {
                let core = &self.shared.core;
                TaskHandle::refused(discard(core, refused), core).detached()
            }
        }

        impl<E> $Spawner<'_, E> {
            /// Returns the group's token.
            #[must_use]
            pub fn token(&self) -> Token {
                Token::of(self.shared.core.clone(), 0)
            }

            /// Asks whether the group was cancelled, by whatever reason.
            #[must_use]
            pub fn is_cancelled(&self) -> bool {
                self.shared.core.word().read().is_cancelled()
            }

            /// Asks whether the group takes new children.
            #[must_use]
            pub fn is_open(&self) -> bool {
                self.shared.core.word().read().is_open()
            }

            fn describe(&self, name: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(name)
                    .field("name", &self.shared.core.path())
                    .field("state", &self.shared.core.word().read())
                    .finish()
            }
        }

        impl<E> Clone for $Spawner<'_, E> {
            fn clone(&self) -> Self {
                Self {
                    shared: self.shared.clone(),
                    error: PhantomData,
                }
            }
        }

        impl<E> fmt::Debug for $Spawner<'_, E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.describe(stringify!($Spawner), f)
            }
        }

        $(#[$named_doc])*
        pub struct $Named<'g, 'env, E = BoxError> {
            group: &'g $Group<'env, E>,
            name: PlainArc<str>,
        }

        impl<'g, 'env, E: Send + 'static> $Named<'g, 'env, E> {
            /// Spawns a child with that name.
            #[track_caller]
            pub fn spawn<F>(self, future: F) -> TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                let Self { group, name } = self;
                group
                    .start(future, Kind::Normal, Some(name))
                    .unwrap_or_else(|refused| group.refuse(refused))
            }

            /// Spawns a child with that name, or gives the future back, never polled, if the group is closing.
            ///
            /// # Errors
            ///
            /// [`SpawnError`] with the future and the reason.
            #[track_caller]
            pub fn try_spawn<F>(
                self,
                future: F,
            ) -> Result<TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>, SpawnError<F>>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                self.group.start(future, Kind::Normal, Some(self.name))
            }

            /// Spawns a background child with that name.
            #[track_caller]
            pub fn spawn_background<F>(
                self,
                future: F,
            ) -> TaskHandle<'g, <F::Output as TaskOutput<E>>::Value>
            where
                F: Future<Output: TaskOutput<E, Value: $($Send)* 'env>> + $($Send)* 'env,
            {
                let Self { group, name } = self;
                group
                    .start(future, Kind::Background, Some(name))
                    .unwrap_or_else(|refused| group.refuse(refused))
            }
        }

        impl<E> fmt::Debug for $Named<'_, '_, E> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($Named))
                    .field("name", &self.name)
                    .finish_non_exhaustive()
            }
        }
    };
}

faces! {
    /// A group of borrowing children, given to the body of a [`borrow_scope`](crate::borrow_scope).
    ///
    /// It belongs to the body; children spawn through a [`BorrowSpawner`].
    group: BorrowGroup,
    /// Spawns children into a [`borrow_scope`](crate::borrow_scope) from wherever the borrowed data is alive: clone it,
    /// capture it in a child, send it to a scoped thread.
    ///
    /// It does not keep the group open, and dropping it does nothing. Once the group is closing, what it spawns is dropped
    /// without being polled; [`try_spawn`](Self::try_spawn) gives it back.
    spawner: BorrowSpawner,
    /// Names the next child of a group: see [`BorrowGroup::named`].
    named: BorrowNamed,
    child: dyn Child + Send + 'env,
    bounds: [Send +],
}

faces! {
    /// A group of children that need not be `Send`, given to the body of a [`local_scope`](crate::local_scope).
    ///
    /// It belongs to the body; children spawn through a [`LocalSpawner`].
    group: LocalGroup,
    /// Spawns children into a [`local_scope`](crate::local_scope) from wherever the borrowed data is alive: clone it,
    /// capture it in a child.
    ///
    /// It does not keep the group open, and dropping it does nothing. Once the group is closing, what it spawns is dropped
    /// without being polled; [`try_spawn`](Self::try_spawn) gives it back.
    spawner: LocalSpawner,
    /// Names the next child of a group: see [`LocalGroup::named`].
    named: LocalNamed,
    child: dyn Child + 'env,
    bounds: [],
}

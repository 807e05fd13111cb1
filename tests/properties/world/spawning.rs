//! All the ways into a group.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use futures::FutureExt;
use ringfence::{
    CancelReason, OutcomeHandle, SpawnError, TaskGroup, TaskHandle, TaskId, TrySpawnError,
};

use super::actor::Probe;
use super::{Event, Id, World};
use crate::program::{ChildSpec, Handle};
use crate::support;

impl World {
    fn probe(self: &Arc<Self>, group: Id, child: Id, spec: &ChildSpec) -> Probe {
        Probe::new(self, child, Some(group), spec.destructor, spec.listens)
    }

    /// Spawns through a spawner, without waiting.
    pub(super) fn spawn(self: &Arc<Self>, into: Id, child: Id, spec: &ChildSpec) {
        let Some(spawner) = self.spawner(into) else {
            return;
        };
        let probe = self.probe(into, child, spec);
        let made = catch_unwind(AssertUnwindSafe(|| {
            match (spec.slot, spec.background, spec.tries) {
                (Some(slot), ..) => {
                    let limited = spawner.limit(&self.slots[slot]);
                    limited.try_spawn(probe).map_err(full_or_closing)
                }
                (None, true, _) => Ok(spawner.spawn_background(probe)),
                (None, false, false) => Ok(spawner.spawn(probe)),
                (None, false, true) => spawner.try_spawn(probe).map_err(closing),
            }
        }));
        if let Some(handle) = self.made(child, made) {
            self.spawned(child, spec.handle, handle);
        }
    }

    /// Spawns through a spawner once there is a slot.
    pub(super) async fn spawn_limited(self: &Arc<Self>, into: Id, child: Id, spec: &ChildSpec) {
        let Some((spawner, slot)) = self.spawner(into).zip(spec.slot) else {
            return;
        };
        let (limited, probe) = (
            spawner.limit(&self.slots[slot]),
            self.probe(into, child, spec),
        );
        let spawning = match spec.background {
            true => limited.spawn_background(probe).boxed(),
            false => limited.spawn(probe).boxed(),
        };
        match AssertUnwindSafe(spawning).catch_unwind().await {
            Ok(handle) => self.spawned(child, spec.handle, handle),
            Err(panic) => self.threw(child, &*panic),
        }
    }

    fn spawned(self: &Arc<Self>, child: Id, use_of_handle: Handle, handle: OutcomeHandle<Id>) {
        self.was_spawned(child, handle.id());
        self.use_handle(child, use_of_handle, handle);
    }

    fn use_handle(self: &Arc<Self>, child: Id, use_of_handle: Handle, handle: OutcomeHandle<Id>) {
        match use_of_handle {
            Handle::Dropped => drop(handle),
            Handle::Kept => drop(self.tables().kept.insert(child, handle)),
            Handle::Awaited => self.observe_outcome(child, handle),
        }
    }

    fn was_spawned(&self, child: Id, id: TaskId) {
        // The handle of one that was refused has no number.
        self.log(if id.to_string().ends_with(".0") {
            Event::Refused(child, None)
        } else {
            Event::Spawned(child, id)
        });
    }

    /// The handle of a child that was made, or the log of why it was not.
    fn made<H>(&self, child: Id, made: Result<Result<H, Unmade>, Panic>) -> Option<H> {
        match made {
            Ok(Ok(handle)) => return Some(handle),
            Ok(Err((reason, probe))) => {
                self.log(match reason {
                    Some(reason) => Event::Refused(child, Some(reason)),
                    None => Event::Full(child),
                });
                drop(catch_unwind(AssertUnwindSafe(|| drop(probe))));
            }
            Err(panic) => self.threw(child, &*panic),
        }
        None
    }

    fn threw(&self, child: Id, panic: &(dyn Any + Send)) {
        let what = support::message(panic);
        self.log(if what.contains("has a slot of this limit") {
            Event::Circle(child)
        } else {
            Event::SpawnThrew(child, what)
        });
    }

    /// Spawns into the group of the body itself. Returns the handle if it is to be kept.
    pub(super) async fn spawn_here<'g>(
        self: &Arc<Self>,
        group: &'g TaskGroup<String>,
        scope: Id,
        child: Id,
        spec: &ChildSpec,
    ) -> Option<TaskHandle<'g, Id>> {
        let probe = self.probe(scope, child, spec);
        let made = if let Some(slot) = spec.slot {
            let limited = group.limit(&self.slots[slot]);
            let spawning = match (spec.background, spec.tries, spec.name()) {
                (true, _, None) => limited.spawn_background(probe).boxed(),
                (true, _, Some(name)) => limited.named(name).spawn_background(probe).boxed(),
                (false, false, None) => limited.spawn(probe).boxed(),
                (false, false, Some(name)) => limited.named(name).spawn(probe).boxed(),
                (false, true, name) => {
                    let tried = match name {
                        None => limited.try_spawn(probe),
                        Some(name) => limited.named(name).try_spawn(probe),
                    };
                    let handle = self.made(child, Ok(tried.map_err(full_or_closing)))?;
                    std::future::ready(handle).boxed()
                }
            };
            let spawning = AssertUnwindSafe(spawning).catch_unwind();
            spawning.await.map(Ok)
        } else {
            catch_unwind(AssertUnwindSafe(|| {
                match (spec.background, spec.tries, spec.name()) {
                    (true, _, None) => Ok(group.spawn_background(probe)),
                    (true, _, Some(name)) => Ok(group.named(name).spawn_background(probe)),
                    (false, false, None) => Ok(group.spawn(probe)),
                    (false, false, Some(name)) => Ok(group.named(name).spawn(probe)),
                    (false, true, None) => group.try_spawn(probe).map_err(closing),
                    (false, true, Some(name)) => {
                        group.named(name).try_spawn(probe).map_err(closing)
                    }
                }
            }))
        };
        let handle = self.made(child, made)?;
        self.was_spawned(child, handle.id());
        self.keep(child, spec.handle, handle)
    }

    fn keep<'g>(
        self: &Arc<Self>,
        child: Id,
        use_of_handle: Handle,
        handle: TaskHandle<'g, Id>,
    ) -> Option<TaskHandle<'g, Id>> {
        if use_of_handle == Handle::Kept {
            return Some(handle);
        }
        self.use_handle(child, use_of_handle, handle.detached());
        None
    }

    /// Starts a child in the group of the body itself. Returns the handle if it is to be kept.
    pub(super) async fn start<'g>(
        self: &Arc<Self>,
        group: &'g TaskGroup<String>,
        scope: Id,
        child: Id,
        spec: &ChildSpec,
    ) -> Option<TaskHandle<'g, Id>> {
        let starting = group.start(|ready| {
            Probe::starting(
                self,
                child,
                Some(scope),
                spec.destructor,
                spec.listens,
                Some(ready),
            )
        });
        let failed = match AssertUnwindSafe(starting).catch_unwind().await {
            Ok(Ok((value, handle))) => {
                self.log(Event::Started(child, value));
                return self.keep(child, spec.handle, handle);
            }
            Ok(Err(error)) => Ok(error),
            Err(panic) => Err(support::message(&*panic)),
        };
        self.log(Event::NotStarted(child, failed));
        None
    }
}

type Panic = Box<dyn Any + Send>;
/// What was not spawned: there was no slot, or the group is closing for that reason.
type Unmade = (Option<CancelReason>, Probe);

fn closing(refused: SpawnError<Probe>) -> Unmade {
    (Some(refused.reason().clone()), refused.into_inner())
}

fn full_or_closing(refused: TrySpawnError<Probe>) -> Unmade {
    match refused {
        TrySpawnError::Full(probe) => (None, probe),
        TrySpawnError::Closing(refused) => closing(refused),
    }
}

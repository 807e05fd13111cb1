//! The real thing: actors that do as they are told in real groups, and a log of all that happens.
//!
//! An actor is the body of a scope, a child, or a raw task of the runtime (a stranger). Each has an inbox; a scope has
//! the number of its body.

pub(crate) mod actor;
mod spawning;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ringfence::{
    CancelReason, Cause, Ended, Failure, FailureKind, GroupError, Outcome, OutcomeHandle, Report,
    Slots, Spawner, StartError, Straggler, TaskId, TaskInfo,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use self::actor::{Inbox, Probe};
use crate::program::{BUDGETS, ChildSpec, Destructor, Finish, ScopeSpec, Shut};
use crate::support;

pub(crate) type Id = usize;

/// One step of time. Every duration of a program is so many steps and a power of three of milliseconds of its own. One
/// timer starts another, and a grace may come twice in such a chain, but no more, so no two timers are ever due at the
/// same time, nor any at the time of an operation.
pub(crate) const STEP: u64 = 1 << 16;
/// As many durations have room in a step.
pub(crate) const MOST_TIMERS: u32 = 10;

/// The durations of a scope, in milliseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Times {
    pub(crate) grace: Option<u64>,
    pub(crate) deadline: Option<u64>,
    pub(crate) timeout: Option<u64>,
}

/// What an actor is told to do.
#[derive(Clone, Debug)]
pub(crate) enum Command {
    Finish(Finish),
    Open {
        scope: Id,
        spec: ScopeSpec,
        times: Times,
    },
    Spawn {
        into: Id,
        child: Id,
        spec: ChildSpec,
    },
    SpawnHere {
        child: Id,
        spec: ChildSpec,
    },
    Await {
        child: Id,
    },
    CancelChildren,
    Cancel {
        scope: Id,
    },
    Start {
        child: Id,
        spec: ChildSpec,
    },
    /// Says that it is ready, or that it never will be.
    Ready(bool),
    Own {
        scope: Id,
    },
    Shut {
        scope: Id,
        how: Shut,
        /// In milliseconds.
        grace: Option<u64>,
    },
}

/// One operation on the world, its participants chosen.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    Tell(Vec<(Id, Command)>),
    Stranger(Id),
    SpawnOutside {
        into: Id,
        child: Id,
        spec: ChildSpec,
    },
    CancelHandle(Id),
    CancelAndWait(Id),
    AwaitHandle(Id),
    DropHandle(Id),
    CancelOutside(Id),
    Cut(Id),
    Abort(Id),
    Sleep(u8),
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Event {
    /// The actor took its command.
    Ran(Id),
    /// The actor saw its token cancelled.
    Signalled(Id, Option<CancelReason>),
    FirstPoll(Id),
    /// The destructor of the actor's future began, and was done, with a panic or without.
    Dropped(Id),
    DropDone(Id, bool),
    DestructorSpawns(Id, Id),
    Spawned(Id, TaskId),
    Refused(Id, Option<CancelReason>),
    /// A call to spawn threw.
    SpawnThrew(Id, String),
    /// No slot was free for one that was only tried.
    Full(Id),
    /// Whoever was to wait for a slot for it has one.
    Circle(Id),
    /// It was ready, with this value.
    Started(Id, Id),
    /// It was never ready, or threw.
    NotStarted(Id, Result<StartError<String>, String>),
    Returned(Id, Returned),
    Cut(Id),
    Value(Id, Id, Id),
    Outcome(Id, Outcome<Id>),
    ObservedSpawn(TaskId),
    ObservedEnd(TaskId, Ended),
    ObservedForce(Option<TaskId>, CancelReason),
    ObservedDisplaced(Option<TaskId>, String),
}

/// What came out of a scope.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Returned {
    Value(Id),
    Error {
        cause: Cause,
        failures: Vec<(Option<TaskId>, String)>,
        /// The body has no id.
        forced: Vec<Option<TaskId>>,
    },
    Panic(String),
    /// Of a long-lived group.
    Report {
        cancelled: Option<CancelReason>,
        failures: Vec<(Option<TaskId>, String)>,
        forced: Vec<Option<TaskId>>,
    },
}

impl From<Report<String>> for Returned {
    fn from(report: Report<String>) -> Self {
        Self::Report {
            cancelled: report.cancelled().cloned(),
            failures: report.failures().iter().map(text_of).collect(),
            forced: report.forced().iter().map(id_of).collect(),
        }
    }
}

fn text_of(failure: &Failure<String>) -> (Option<TaskId>, String) {
    let what = match failure.kind() {
        FailureKind::Error(error) => error.clone(),
        FailureKind::Panic(panic) => panic.message().to_owned(),
        other => format!("{other:?}"),
    };
    (failure.task().map(TaskInfo::id), what)
}

fn id_of(straggler: &Straggler) -> Option<TaskId> {
    straggler.task.as_ref().map(TaskInfo::id)
}

impl From<Result<Id, GroupError<String>>> for Returned {
    fn from(result: Result<Id, GroupError<String>>) -> Self {
        match result {
            Ok(value) => Self::Value(value),
            Err(error) => Self::Error {
                cause: error.cause().clone(),
                failures: error.iter().map(text_of).collect(),
                forced: error.forced().iter().map(id_of).collect(),
            },
        }
    }
}

pub(crate) fn error_of(actor: Id) -> String {
    format!("error of {actor}")
}

pub(crate) fn panic_of(actor: Id) -> String {
    format!("panic of {actor}")
}

pub(crate) fn destructor_of(actor: Id) -> String {
    format!("destructor of {actor}")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Default)]
struct Tables {
    log: Vec<(u64, Event)>,
    inboxes: BTreeMap<Id, Arc<Inbox>>,
    alive: BTreeSet<Id>,
    spawners: BTreeMap<Id, Spawner<String>>,
    kept: BTreeMap<Id, OutcomeHandle<Id>>,
    cuts: BTreeMap<Id, oneshot::Sender<()>>,
    strangers: BTreeMap<Id, JoinHandle<Result<Id, String>>>,
}

pub(crate) struct World {
    start: Instant,
    next: AtomicUsize,
    waiting: AtomicUsize,
    slots: [Slots; 2],
    tables: Mutex<Tables>,
}

impl World {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            start: Instant::now(),
            next: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            slots: BUDGETS.map(Slots::new),
            tables: Mutex::default(),
        })
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        lock(&self.tables)
    }

    fn log(&self, event: Event) {
        let at = self.now();
        self.tables().log.push((at, event));
    }

    /// The time since the start, in milliseconds.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Waits for the next boundary of a step, after so many others. On a paused clock, all is quiet then.
    pub(crate) async fn steps(&self, steps: u8) {
        let next = (self.now() / STEP + 1 + u64::from(steps)) * STEP;
        tokio::time::sleep_until(self.start + Duration::from_millis(next)).await;
    }

    /// A new number for an actor.
    pub(crate) fn fresh(&self) -> Id {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    pub(crate) fn take_log(&self) -> Vec<(u64, Event)> {
        std::mem::take(&mut self.tables().log)
    }

    /// The actors whose futures have not been dropped.
    pub(crate) fn alive(&self) -> BTreeSet<Id> {
        self.tables().alive.clone()
    }

    pub(crate) fn scopes(&self) -> Vec<Id> {
        self.tables().spawners.keys().copied().collect()
    }

    pub(crate) fn kept(&self) -> Vec<Id> {
        self.tables().kept.keys().copied().collect()
    }

    pub(crate) fn cuttable(&self) -> Vec<Id> {
        self.tables().cuts.keys().copied().collect()
    }

    pub(crate) fn strangers(&self) -> Vec<Id> {
        self.tables().strangers.keys().copied().collect()
    }

    pub(crate) fn take_strangers(&self) -> Vec<JoinHandle<Result<Id, String>>> {
        std::mem::take(&mut self.tables().strangers)
            .into_values()
            .collect()
    }

    /// How many strangers await outcomes.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(crate) fn spawner(&self, scope: Id) -> Option<Spawner<String>> {
        self.tables().spawners.get(&scope).cloned()
    }

    /// How many slots of each budget are free.
    pub(crate) fn free(&self) -> [usize; 2] {
        [self.slots[0].free(), self.slots[1].free()]
    }

    fn inbox(&self, actor: Id) -> Arc<Inbox> {
        self.tables().inboxes.entry(actor).or_default().clone()
    }

    /// Carries an operation out.
    pub(crate) fn perform(self: &Arc<Self>, action: &Action) {
        match action {
            Action::Tell(commands) => {
                for (actor, command) in commands {
                    self.inbox(*actor).put(command.clone());
                }
            }
            Action::Stranger(id) => {
                let stranger = support::spawn(Probe::new(self, *id, None, Destructor::Quiet, None));
                self.tables().strangers.insert(*id, stranger);
            }
            Action::SpawnOutside { into, child, spec } => self.spawn(*into, *child, spec),
            Action::CancelHandle(child) => {
                let handle = self.tables().kept.remove(child);
                if let Some(handle) = handle {
                    handle.cancel();
                    self.tables().kept.insert(*child, handle);
                }
            }
            Action::CancelAndWait(child) => {
                let handle = self.tables().kept.remove(child);
                if let Some(handle) = handle {
                    self.observe_outcome(*child, handle.cancel_and_wait());
                }
            }
            Action::AwaitHandle(child) => {
                let handle = self.tables().kept.remove(child);
                if let Some(handle) = handle {
                    self.observe_outcome(*child, handle);
                }
            }
            Action::DropHandle(child) => {
                let handle = self.tables().kept.remove(child);
                drop(handle);
            }
            Action::CancelOutside(scope) => {
                if let Some(spawner) = self.spawner(*scope) {
                    spawner.cancel();
                }
            }
            Action::Cut(scope) => {
                let cut = self.tables().cuts.remove(scope);
                // Nobody is there to hear it if the scope was done already.
                let _ = cut.map(|cut| cut.send(()));
            }
            Action::Abort(stranger) => {
                let stranger = self
                    .tables()
                    .strangers
                    .get(stranger)
                    .map(JoinHandle::abort_handle);
                if let Some(stranger) = stranger {
                    stranger.abort();
                }
            }
            Action::Sleep(_) => {}
        }
    }

    fn observe_outcome(
        self: &Arc<Self>,
        child: Id,
        handle: impl Future<Output = Outcome<Id>> + Send + 'static,
    ) {
        let world = self.clone();
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(support::spawn(async move {
            let outcome = handle.await;
            world.log(Event::Outcome(child, outcome));
            world.waiting.fetch_sub(1, Ordering::SeqCst);
        }));
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables = self.tables();
        writeln!(f, "alive: {:?}", tables.alive)?;
        for (scope, spawner) in &tables.spawners {
            writeln!(f, "scope {scope}: {spawner:?}")?;
        }
        Ok(())
    }
}

//! Actors: what lives in bodies, children and raw tasks, and does as it is told.

use std::any::Any;
use std::collections::{BTreeMap, VecDeque};
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures::FutureExt;
use ringfence::{
    Deadline, Displaced, DisplacedWhat, Ended, GroupError, Observer, OwnedGroup, Ready, Scope,
    Straggler, TaskGroup, TaskInfo, timeout, token,
};
use tokio::sync::oneshot;

use super::{Command, Event, Id, Returned, Times, World, destructor_of, error_of, lock, panic_of};
use crate::program::{ChildSpec, Destructor, Finish, Handle, ScopeSpec, Shut, Wrap};
use crate::support;

/// Throws without the noise of the panic hook.
fn throw(what: String) -> ! {
    resume_unwind(Box::new(what))
}

#[derive(Default)]
pub(super) struct Inbox(Mutex<(VecDeque<Command>, Option<Waker>)>);

impl Inbox {
    pub(super) fn put(&self, command: Command) {
        let waker = {
            let mut inbox = lock(&self.0);
            inbox.0.push_back(command);
            inbox.1.take()
        };
        waker.into_iter().for_each(Waker::wake);
    }

    async fn take(&self) -> Command {
        poll_fn(|cx| {
            let mut inbox = lock(&self.0);
            match inbox.0.pop_front() {
                Some(command) => Poll::Ready(command),
                None => {
                    inbox.1 = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// The next command, or none if the actor listens and its token is cancelled.
    async fn next(&self, listens: bool) -> Option<Command> {
        if !listens {
            return Some(self.take().await);
        }
        let token = token();
        tokio::select! {
            biased;
            command = self.take() => Some(command),
            () = token.cancelled() => None,
        }
    }
}

/// The observer of a world.
struct Ear(Weak<World>);

impl Ear {
    fn log(&self, event: Event) {
        if let Some(world) = self.0.upgrade() {
            world.log(event);
        }
    }
}

impl Observer for Ear {
    fn spawned(&self, task: &TaskInfo) {
        self.log(Event::ObservedSpawn(task.id()));
    }
    fn ended(&self, task: &TaskInfo, how: &Ended) {
        self.log(Event::ObservedEnd(task.id(), how.clone()));
    }
    fn displaced(&self, displaced: &Displaced) {
        let what = match &displaced.what {
            DisplacedWhat::Panic(panic) => panic.message().to_owned(),
            DisplacedWhat::Error(error) => support::message(&**error),
            other => format!("{other:?}"),
        };
        self.log(Event::ObservedDisplaced(
            displaced.task.as_ref().map(TaskInfo::id),
            what,
        ));
    }
    fn forced(&self, straggler: &Straggler) {
        self.log(Event::ObservedForce(
            straggler.task.as_ref().map(TaskInfo::id),
            straggler.reason.clone(),
        ));
    }
}

/// Lives as long as an actor's future.
struct Guard {
    world: Arc<World>,
    me: Id,
    group: Option<Id>,
    destructor: Destructor,
}

impl Guard {
    fn new(world: &Arc<World>, me: Id, group: Option<Id>, destructor: Destructor) -> Self {
        world.tables().alive.insert(me);
        Self {
            world: world.clone(),
            me,
            group,
            destructor,
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let Self {
            world, me, group, ..
        } = self;
        world.log(Event::Dropped(*me));
        world.tables().alive.remove(me);
        match (self.destructor, &group) {
            (Destructor::Spawns | Destructor::TrySpawns, Some(group)) => {
                let child = world.fresh();
                world.log(Event::DestructorSpawns(*me, child));
                world.spawn(
                    *group,
                    child,
                    &quiet(self.destructor == Destructor::TrySpawns),
                );
            }
            (Destructor::Cancels, Some(group)) => {
                if let Some(spawner) = world.spawner(*group) {
                    spawner.cancel();
                }
            }
            _ => {}
        }
        // A second panic while one unwinds would abort the process.
        let panics = self.destructor == Destructor::Panics && !std::thread::panicking();
        world.log(Event::DropDone(*me, panics));
        if panics {
            throw(destructor_of(*me));
        }
    }
}

/// The child that a destructor spawns.
pub(crate) fn quiet(tries: bool) -> ChildSpec {
    ChildSpec {
        background: false,
        tries,
        named: false,
        destructor: Destructor::Quiet,
        listens: None,
        handle: Handle::Dropped,
        slot: None,
    }
}

/// The future of a child or a stranger.
pub(super) struct Probe {
    inner: Pin<Box<dyn Future<Output = Result<Id, String>> + Send>>,
    polled: bool,
    // Dropped last: when it logs, all else is gone.
    guard: Guard,
}

impl Probe {
    pub(super) fn new(
        world: &Arc<World>,
        me: Id,
        group: Option<Id>,
        destructor: Destructor,
        listens: Option<Finish>,
    ) -> Self {
        Self::starting(world, me, group, destructor, listens, None)
    }

    pub(super) fn starting(
        world: &Arc<World>,
        me: Id,
        group: Option<Id>,
        destructor: Destructor,
        listens: Option<Finish>,
        ready: Option<Ready<Id>>,
    ) -> Self {
        Self {
            inner: live(world.clone(), me, listens, None, ready),
            polled: false,
            guard: Guard::new(world, me, group, destructor),
        }
    }
}

impl Future for Probe {
    type Output = Result<Id, String>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if !std::mem::replace(&mut self.polled, true) {
            self.guard.world.log(Event::FirstPoll(self.guard.me));
        }
        self.inner.as_mut().poll(cx)
    }
}

fn end(me: Id, finish: Finish) -> Result<Id, String> {
    match finish {
        Finish::Ok => Ok(me),
        Finish::Err => Err(error_of(me)),
        Finish::Panic => throw(panic_of(me)),
    }
}

/// The life of an actor.
fn live<'g>(
    world: Arc<World>,
    me: Id,
    listens: Option<Finish>,
    group: Option<&'g TaskGroup<String>>,
    mut ready: Option<Ready<Id>>,
) -> Pin<Box<dyn Future<Output = Result<Id, String>> + Send + 'g>> {
    Box::pin(async move {
        let inbox = world.inbox(me);
        let (mut handles, mut owned) = (BTreeMap::new(), BTreeMap::new());
        loop {
            let command = match (inbox.next(listens.is_some()).await, listens) {
                (Some(command), _) => command,
                (None, finish) => {
                    world.log(Event::Signalled(me, token().reason()));
                    return end(me, finish.unwrap_or(Finish::Ok));
                }
            };
            world.log(Event::Ran(me));
            match command {
                Command::Finish(finish) => return end(me, finish),
                Command::Spawn { into, child, spec } if spec.waits() => {
                    world.spawn_limited(into, child, &spec).await;
                }
                Command::Spawn { into, child, spec } => world.spawn(into, child, &spec),
                Command::SpawnHere { child, spec } => {
                    if let Some(group) = group {
                        let handle = world.spawn_here(group, me, child, &spec).await;
                        handles.extend(handle.map(|handle| (child, handle)));
                    }
                }
                Command::Start { child, spec } => {
                    if let Some(group) = group {
                        let handle = world.start(group, me, child, &spec).await;
                        handles.extend(handle.map(|handle| (child, handle)));
                    }
                }
                Command::Ready(is_ready) => {
                    if let Some(ready) = ready.take().filter(|_| is_ready) {
                        ready.set(me);
                    }
                }
                Command::Own { scope } => {
                    let group = OwnedGroup::<String>::new();
                    world.tables().spawners.insert(scope, group.spawner());
                    owned.insert(scope, group);
                }
                Command::Shut { scope, how, grace } => {
                    let report = match (how, owned.remove(&scope)) {
                        (_, None) => None,
                        (Shut::Close, Some(group)) => {
                            group.close();
                            owned.insert(scope, group);
                            None
                        }
                        (Shut::Drop, Some(group)) => {
                            drop(group);
                            None
                        }
                        (Shut::Wait, Some(group)) => Some(group.wait().await),
                        (Shut::Down(_), Some(group)) => {
                            let grace = Duration::from_millis(grace.unwrap_or(0));
                            Some(group.shutdown(grace).await)
                        }
                    };
                    if let Some(report) = report {
                        world.log(Event::Returned(scope, report.into()));
                    }
                }
                Command::Await { child } => {
                    if let Some(handle) = handles.remove(&child) {
                        let value = handle.await;
                        world.log(Event::Value(me, child, value));
                    }
                }
                Command::CancelChildren => group.into_iter().for_each(TaskGroup::cancel_children),
                Command::Cancel { scope } => {
                    if let Some(spawner) = world.spawner(scope) {
                        spawner.cancel();
                    }
                }
                Command::Open { scope, spec, times } => {
                    match open(&world, me, scope, &spec, times).await {
                        None => {
                            world.log(Event::Cut(scope));
                            if let Some(finish) = spec.after_cut {
                                return end(me, finish);
                            }
                        }
                        Some(Ok(result)) => {
                            let failed = result.is_err();
                            world.log(Event::Returned(scope, result.into()));
                            if failed && spec.passes_on {
                                return Err(error_of(me));
                            }
                        }
                        Some(Err(panic)) => {
                            world.log(Event::Returned(
                                scope,
                                Returned::Panic(support::message(&*panic)),
                            ));
                            resume_unwind(panic);
                        }
                    }
                }
            }
        }
    })
}

type Caught = Result<Result<Id, GroupError<String>>, Box<dyn Any + Send>>;

/// Runs a scope in its wrap: none if it was cut.
async fn open(
    world: &Arc<World>,
    by: Id,
    scope: Id,
    spec: &ScopeSpec,
    times: Times,
) -> Option<Caught> {
    let is_outermost = world.tables().strangers.contains_key(&by);
    let running = AssertUnwindSafe(run(world.clone(), scope, spec.clone(), times, is_outermost))
        .catch_unwind();
    match (spec.wrap, times.timeout) {
        (Wrap::Select, _) => {
            let (cut, other) = oneshot::channel();
            world.tables().cuts.insert(scope, cut);
            tokio::select! {
                biased;
                result = running => Some(result),
                _ = other => None,
            }
        }
        (Wrap::Timeout(_), Some(limit)) => {
            timeout(Duration::from_millis(limit), running).await.ok()
        }
        _ => Some(running.await),
    }
}

type Running = Pin<Box<dyn Future<Output = Result<Id, GroupError<String>>> + Send>>;

fn run(world: Arc<World>, me: Id, spec: ScopeSpec, times: Times, is_outermost: bool) -> Running {
    Box::pin(async move {
        let mut scope = Scope::new();
        if is_outermost {
            // Those below inherit it.
            scope = scope.observer(Arc::new(Ear(Arc::downgrade(&world))));
        }
        if let Some(grace) = times.grace {
            scope = scope.grace(Duration::from_millis(grace));
        }
        if let Some(deadline) = times.deadline {
            scope = scope.deadline(Deadline::after(Duration::from_millis(deadline)));
        }
        if spec.panics_as_errors {
            scope = scope.panics_as_errors();
        }
        scope
            .run(async |group: &TaskGroup<String>| {
                world.tables().spawners.insert(me, group.spawner());
                let guard = Guard::new(&world, me, Some(me), spec.body_destructor);
                let ended = live(world.clone(), me, spec.body_listens, Some(group), None).await;
                drop(guard); // not at the end of the block: if it throws there, the compiler leaks what is returned
                ended
            })
            .await
    })
}

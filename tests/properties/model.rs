//! The model: what the contract says about groups, as plain sequential data.
//!
//! It does not guess in which order tasks are polled. It reads the log of the real run, event by event: each must be
//! allowed at its place, and when all is quiet nothing that had to happen may be missing.

use std::collections::{BTreeMap, BTreeSet};

use ringfence::{CancelReason, Cause, Ended, Outcome, TaskId};

use crate::program::{ChildSpec, Destructor, Finish, ScopeSpec};
use crate::world::{Command, Event, Id, Returned, Times, destructor_of, error_of, panic_of};

pub(crate) type Checked = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stranger,
    Body,
    Child,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Idle,
    InScope(Id),
    Awaiting(Id),
}

/// How an actor ends, once it does of its own accord.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Ok,
    Err,
    Panic(String),
}

impl Ending {
    fn new(actor: Id, finish: Finish) -> Self {
        match finish {
            Finish::Ok => Self::Ok,
            Finish::Err => Self::Err,
            Finish::Panic => Self::Panic(panic_of(actor)),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Mark {
    None,
    Signalled,
    Forced,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// A child that is being spawned.
    Unborn,
    Alive,
    Refused,
}

#[derive(Clone, Debug)]
pub(crate) struct Actor {
    pub(crate) kind: Kind,
    /// The scope that it is a member of.
    pub(crate) group: Option<Id>,
    pub(crate) doing: Doing,
    pub(crate) command: Option<Command>,
    pub(crate) ending: Option<Ending>,
    fate: Fate,
    polled: bool,
    destructor: Destructor,
    listens: Option<Finish>,
    dropped: bool,
    drop_done: bool,
    destructor_panicked: bool,
    aborted: bool,
    /// Children whose handles a body keeps.
    pub(crate) handles: Vec<Id>,
    // Of children:
    background: bool,
    spawned_by: Option<Id>,
    task: Option<TaskId>,
    serial: u64,
    mark: Mark,
    /// Dropped scopes that it has to wait for.
    adopted: BTreeSet<Id>,
    outcome: Option<Outcome<Id>>,
    /// Counted out.
    out: bool,
    /// How many strangers await its handle.
    waiters: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Child(Id),
    Group(Id),
    Root,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Target {
    Child(Id),
    Below(u64),
}

#[derive(Clone, Debug)]
struct Failure {
    task: Option<TaskId>,
    what: String,
    is_panic: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct ScopeState {
    opener: Id,
    parent: Option<Id>,
    spec: ScopeSpec,
    grace: Option<u64>,
    /// The earliest of its own and all inherited ones, and its own if that is it.
    deadline: Option<u64>,
    own_deadline: Option<u64>,
    timeout_at: Option<u64>,
    cut_requested: bool,
    cancelled: bool,
    forced: bool,
    reason: Option<CancelReason>,
    failures: Vec<Failure>,
    stragglers: Vec<TaskId>,
    grace_end: Option<u64>,
    targets: Vec<(u64, Target)>,
    signal_cut: u64,
    force_cut: u64,
    next: u64,
    normal: usize,
    background: usize,
    body_is_in: bool,
    value: Option<Id>,
    orphaned: bool,
    owner: Option<Owner>,
    /// Its future is gone.
    pub(crate) over: bool,
}

impl ScopeState {
    fn is_open(&self) -> bool {
        !self.cancelled && self.normal > 0
    }

    fn live(&self) -> usize {
        self.normal + self.background
    }
}

#[derive(Debug, Default)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) actors: BTreeMap<Id, Actor>,
    pub(crate) scopes: BTreeMap<Id, ScopeState>,
    tasks: BTreeMap<TaskId, Id>,
    /// Whose task is being polled, as far as the log shows.
    running: Option<Id>,
    observed_spawn: Option<TaskId>,
    observed_force: Option<(TaskId, CancelReason)>,
    displaced: Vec<(Option<TaskId>, String)>,
    observed_displaced: Vec<(Option<TaskId>, String)>,
    pub(crate) root_orphans: usize,
    /// Children that ended, for the figures.
    pub(crate) ended: usize,
    pub(crate) adoptions: usize,
}

impl Model {
    pub(crate) fn add_actor(&mut self, id: Id, kind: Kind, group: Option<Id>) -> &mut Actor {
        self.actors.entry(id).or_insert(Actor {
            kind,
            group,
            doing: Doing::Idle,
            command: None,
            ending: None,
            fate: Fate::Alive,
            polled: false,
            destructor: Destructor::Quiet,
            listens: None,
            dropped: false,
            drop_done: false,
            destructor_panicked: false,
            aborted: false,
            handles: Vec::new(),
            background: false,
            spawned_by: None,
            task: None,
            serial: 0,
            mark: Mark::None,
            adopted: BTreeSet::new(),
            outcome: None,
            out: false,
            waiters: 0,
        })
    }

    pub(crate) fn add_child(&mut self, id: Id, into: Id, by: Option<Id>, spec: &ChildSpec) {
        let child = self.add_actor(id, Kind::Child, Some(into));
        child.fate = Fate::Unborn;
        child.destructor = spec.destructor;
        child.listens = spec.listens;
        child.background = spec.background;
        child.spawned_by = by;
        if spec.handle == crate::program::Handle::Awaited {
            child.waiters = 1;
        }
    }

    fn actor(&mut self, id: Id) -> Result<&mut Actor, String> {
        self.actors.get_mut(&id).ok_or(format!("no actor {id}"))
    }

    fn scope(&mut self, id: Id) -> Result<&mut ScopeState, String> {
        self.scopes.get_mut(&id).ok_or(format!("no scope {id}"))
    }

    pub(crate) fn is_idle(&self, id: Id) -> bool {
        self.actors.get(&id).is_some_and(|actor| {
            actor.fate == Fate::Alive
                && !actor.dropped
                && actor.doing == Doing::Idle
                && actor.command.is_none()
                && actor.ending.is_none()
        })
    }

    pub(crate) fn alive(&self) -> BTreeSet<Id> {
        let alive = self.actors.iter().filter(|(_, actor)| !actor.dropped);
        alive.map(|(id, _)| *id).collect()
    }

    // -- rules --------------------------------------------------------------------------------------------------------

    fn is_forced(&self, child: &Actor) -> bool {
        let scope = child.group.and_then(|group| self.scopes.get(&group));
        scope.is_some_and(|scope| scope.forced || child.serial < scope.force_cut)
            || child.mark == Mark::Forced
    }

    /// The reason that the token of an actor gives, if it is cancelled.
    fn token(&self, id: Id) -> Option<CancelReason> {
        let actor = &self.actors[&id];
        let group = actor.group?;
        let scope = &self.scopes[&group];
        let singled = actor.kind == Kind::Child
            && (actor.mark > Mark::None || actor.serial < scope.signal_cut.max(scope.force_cut));
        if scope.cancelled || singled {
            return Some(self.reason_for(actor));
        }
        let mut outer = scope.parent;
        while let Some(scope) = outer.map(|id| &self.scopes[&id]) {
            if scope.cancelled {
                return scope.reason.clone();
            }
            outer = scope.parent;
        }
        None
    }

    fn reason_for(&self, actor: &Actor) -> CancelReason {
        let reason = actor
            .group
            .and_then(|group| self.scopes[&group].reason.clone());
        if actor.mark > Mark::None {
            CancelReason::Handle
        } else {
            reason.unwrap_or(CancelReason::ChildrenCancelled)
        }
    }

    /// Whether an actor's future may be dropped where it is parked.
    fn is_droppable(&self, id: Id) -> bool {
        let actor = &self.actors[&id];
        match actor.kind {
            Kind::Stranger => actor.aborted,
            Kind::Child => self.is_forced(actor),
            Kind::Body => {
                let scope = &self.scopes[&id];
                scope.forced
                    || self.is_stuck(actor)
                    || scope.cut_requested
                    || self.is_droppable(scope.opener)
            }
        }
    }

    /// Whether a body awaits a value that will not come.
    fn is_stuck(&self, body: &Actor) -> bool {
        let Doing::Awaiting(child) = body.doing else {
            return false;
        };
        let child = &self.actors[&child];
        child.out && !child.outcome.as_ref().is_some_and(Outcome::is_completed)
    }

    fn task_of(&self, actor: Option<Id>) -> Option<TaskId> {
        self.actors
            .get(&actor?)
            .filter(|actor| actor.kind == Kind::Child)?
            .task
    }

    pub(crate) fn request(&mut self, scope: Id, by: Option<Id>) -> Checked {
        let by = self.task_of(by);
        self.cancel(scope, CancelReason::Requested { note: None, by }, false)
    }

    fn cancel(&mut self, id: Id, reason: CancelReason, at_once: bool) -> Checked {
        let now = self.now;
        let scope = self.scope(id)?;
        let force = at_once || scope.grace.is_none();
        scope.reason.get_or_insert(reason);
        if scope.forced || (scope.cancelled && !force) {
            return Ok(());
        }
        if !scope.cancelled && !force {
            scope.grace_end = scope.grace.filter(|_| !scope.over).map(|grace| now + grace);
        }
        scope.cancelled = true;
        scope.forced |= force;
        Ok(())
    }

    fn fail(&mut self, id: Id, child: Option<Id>, what: String, is_panic: bool) -> Checked {
        let task = self.task_of(child);
        let reason = match (is_panic, task) {
            (false, Some(task)) => CancelReason::Failed(task),
            (true, Some(task)) => CancelReason::Panicked(task),
            (false, None) => CancelReason::BodyFailed,
            (true, None) => CancelReason::BodyPanicked,
        };
        self.scope(id)?.failures.push(Failure {
            task,
            what,
            is_panic,
        });
        self.cancel(id, reason, false)
    }

    pub(crate) fn cancel_child(&mut self, id: Id) -> Checked {
        let now = self.now;
        let child = self.actor(id)?;
        if child.fate != Fate::Alive || child.out {
            return Ok(());
        }
        let scope = child.group.unwrap_or_default();
        match self.scope(scope)?.grace {
            None => self.actor(id)?.mark = Mark::Forced,
            Some(grace) => {
                let child = self.actor(id)?;
                child.mark = child.mark.max(Mark::Signalled);
                self.scope(scope)?
                    .targets
                    .push((now + grace, Target::Child(id)));
            }
        }
        Ok(())
    }

    fn cancel_children(&mut self, id: Id) -> Checked {
        let now = self.now;
        let scope = self.scope(id)?;
        match scope.grace {
            None => scope.force_cut = scope.next,
            Some(grace) => {
                scope.signal_cut = scope.next;
                scope.targets.push((now + grace, Target::Below(scope.next)));
            }
        }
        Ok(())
    }

    fn leave(&mut self, id: Id, background: bool) -> Checked {
        let scope = self.scope(id)?;
        let count = if background {
            &mut scope.background
        } else {
            &mut scope.normal
        };
        *count = count
            .checked_sub(1)
            .ok_or(format!("scope {id}: one too many counted out"))?;
        if scope.live() == 0 {
            if !scope.orphaned {
                return Ok(());
            }
            let failures = std::mem::take(&mut scope.failures);
            let owner = scope.owner.take();
            self.displaced.extend(
                failures
                    .into_iter()
                    .map(|failure| (failure.task, failure.what)),
            );
            return match owner {
                None => Ok(()),
                Some(Owner::Root) => {
                    self.root_orphans -= 1;
                    Ok(())
                }
                Some(Owner::Child(child)) => {
                    self.actor(child)?.adopted.remove(&id);
                    Ok(())
                }
                Some(Owner::Group(group)) => self.leave(group, false),
            };
        }
        if !background && scope.normal == 0 {
            return self.cancel(id, CancelReason::Finished, false);
        }
        Ok(())
    }

    /// The future of a scope is dropped by its opener.
    fn scope_dropped(&mut self, id: Id) -> Checked {
        self.cancel(id, CancelReason::ScopeDropped, true)?;
        let scope = self.scope(id)?;
        scope.over = true;
        if !std::mem::take(&mut scope.body_is_in) {
            scope.normal += 1;
        }
        scope.orphaned = true;
        let opener = scope.opener;
        if scope.live() > 1 {
            self.adoptions += 1;
            let owner = match self.actors[&opener].kind {
                Kind::Stranger => {
                    self.root_orphans += 1;
                    Owner::Root
                }
                Kind::Body => {
                    self.scope(opener)?.normal += 1;
                    Owner::Group(opener)
                }
                Kind::Child => {
                    self.actor(opener)?.adopted.insert(id);
                    Owner::Child(opener)
                }
            };
            self.scope(id)?.owner = Some(owner);
        }
        self.leave(id, false)
    }

    // -- what happens in silence, and when it has to have happened -------------------------------------------------------

    /// Counts a child out that waited only for what it had adopted, if that is gone.
    fn settle(&mut self, id: Id) -> Checked {
        let child = self.actor(id)?.clone();
        if child.out || child.outcome.is_none() {
            return Ok(());
        }
        for scope in child.adopted {
            self.catch_up(scope)?;
        }
        if self.actor(id)?.adopted.is_empty() {
            self.actor(id)?.out = true;
            self.leave(child.group.unwrap_or_default(), child.background)?;
        }
        Ok(())
    }

    /// Lets all members of a scope leave that can.
    fn catch_up(&mut self, scope: Id) -> Checked {
        let adopted = self
            .scopes
            .iter()
            .filter(|(_, inner)| inner.owner == Some(Owner::Group(scope)));
        for inner in adopted.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.catch_up(inner)?;
        }
        let members = self
            .actors
            .iter()
            .filter(|(_, actor)| actor.kind == Kind::Child && actor.group == Some(scope));
        for child in members.map(|(id, _)| *id).collect::<Vec<_>>() {
            self.settle(child)?;
        }
        Ok(())
    }

    fn catch_up_all(&mut self) -> Checked {
        let scopes = self.scopes.keys().copied().collect::<Vec<_>>();
        scopes
            .into_iter()
            .try_for_each(|scope| self.catch_up(scope))
    }

    fn next_timer(&self) -> Option<u64> {
        let running = self.scopes.values().filter(|scope| !scope.over);
        running
            .flat_map(|scope| {
                let deadline = scope.own_deadline.filter(|_| !scope.cancelled);
                let grace = scope.grace_end.filter(|_| !scope.forced);
                let targets = scope
                    .targets
                    .iter()
                    .map(|(at, _)| *at)
                    .filter(|_| !scope.forced);
                let timeout = scope.timeout_at.filter(|_| !scope.cut_requested);
                targets.chain(deadline).chain(grace).chain(timeout)
            })
            .min()
    }

    fn fire(&mut self, at: u64) -> Checked {
        self.now = at;
        for id in self.scopes.keys().copied().collect::<Vec<_>>() {
            let scope = self.scope(id)?;
            if scope.over {
                continue;
            }
            if scope.timeout_at == Some(at) {
                scope.cut_requested = true;
            }
            if scope.grace_end == Some(at) {
                scope.forced = true;
            }
            let (due, later): (Vec<_>, Vec<_>) =
                scope.targets.iter().partition(|(when, _)| *when == at);
            scope.targets = later;
            if scope.own_deadline == Some(at) && !scope.cancelled {
                self.cancel(id, CancelReason::Deadline, false)?;
            }
            for (_, target) in due {
                match target {
                    Target::Below(cut) => {
                        let scope = self.scope(id)?;
                        scope.force_cut = scope.force_cut.max(cut);
                    }
                    Target::Child(child) => self.actor(child)?.mark = Mark::Forced,
                }
            }
        }
        Ok(())
    }

    /// Lets time pass: whatever a timer asks for has to happen at its very millisecond.
    pub(crate) fn advance(&mut self, to: u64) -> Checked {
        if to > self.now {
            self.catch_up_all()?; // it may start a grace
        }
        while let Some(at) = self.next_timer().filter(|at| *at <= to) {
            if at > self.now {
                self.check_quiet()?;
            }
            self.fire(at)?;
        }
        if to > self.now {
            self.check_quiet()?;
            self.now = to;
        }
        Ok(())
    }

    /// Checks that nothing has still to happen.
    pub(crate) fn check_quiet(&mut self) -> Checked {
        self.catch_up_all()?;
        let now = self.now;
        for (id, actor) in &self.actors {
            ensure!(
                actor.fate != Fate::Unborn,
                "at {now}: {id} was neither spawned nor refused"
            );
            let ended = actor.outcome.is_some();
            if actor.kind == Kind::Child && actor.fate == Fate::Alive && actor.dropped {
                ensure!(
                    ended,
                    "at {now}: child {id} was dropped, its end was not observed"
                );
                ensure!(
                    actor.out,
                    "at {now}: child {id} waits for {:?}, which should be gone",
                    actor.adopted
                );
            }
            ensure!(
                !actor.out || actor.waiters == 0,
                "at {now}: nobody was told the outcome of {id}"
            );
            if actor.dropped {
                continue;
            }
            ensure!(
                actor.fate == Fate::Alive,
                "at {now}: the refused {id} is alive"
            );
            ensure!(
                actor.command.is_none(),
                "at {now}: {id} did not take its command"
            );
            ensure!(
                actor.ending.is_none(),
                "at {now}: {id} has ended and is not dropped"
            );
            ensure!(
                !self.is_droppable(*id),
                "at {now}: {id} should have been dropped"
            );
            if let Doing::Awaiting(child) = actor.doing {
                ensure!(
                    !self.actors[&child].out,
                    "at {now}: {id} was not given the value of {child}"
                );
            }
            if actor.listens.is_some() && actor.doing == Doing::Idle {
                ensure!(
                    self.token(*id).is_none(),
                    "at {now}: {id} did not see its token cancelled"
                );
            }
        }
        for (id, scope) in &self.scopes {
            ensure!(
                scope.over || scope.live() > 0,
                "at {now}: scope {id} should have returned"
            );
            ensure!(
                scope.over || !scope.cut_requested,
                "at {now}: scope {id} should have been cut"
            );
            ensure!(
                !scope.orphaned || scope.live() == 0,
                "at {now}: the orphaned scope {id} should be empty"
            );
        }
        let sorted = |list: &mut Vec<(Option<TaskId>, String)>| {
            list.sort();
            std::mem::take(list)
        };
        let (expected, observed) = (
            sorted(&mut self.displaced),
            sorted(&mut self.observed_displaced),
        );
        ensure!(
            expected == observed,
            "at {now}: displaced were {observed:?}, expected {expected:?}"
        );
        Ok(())
    }

    /// What the spawner of a scope has to show.
    pub(crate) fn reading(&self, id: Id) -> String {
        let scope = &self.scopes[&id];
        format!(
            "Spawner {{ name: None, state: Reading {{ cancelled: {}, forced: {}, orphaned: {}, normal: {}, background: {} }} }}",
            scope.cancelled, scope.forced, scope.orphaned, scope.normal, scope.background
        )
    }

    /// The child or stranger in whose task an actor lives.
    fn task_with(&self, actor: Id) -> Id {
        match self.scopes.get(&actor) {
            Some(scope) => self.task_with(scope.opener),
            None => actor,
        }
    }

    pub(crate) fn is_open(&self, scope: Id) -> bool {
        self.scopes.get(&scope).is_some_and(ScopeState::is_open)
    }

    pub(crate) fn depth(&self, actor: Id) -> usize {
        let scope = self.actors[&actor]
            .group
            .and_then(|group| self.scopes.get(&group));
        scope.map_or(0, |scope| 1 + self.depth(scope.opener))
    }

    pub(crate) fn cut(&mut self, scope: Id) {
        if let Some(scope) = self.scopes.get_mut(&scope) {
            scope.cut_requested = !scope.over;
        }
    }

    pub(crate) fn abort(&mut self, stranger: Id) {
        if let Some(stranger) = self.actors.get_mut(&stranger) {
            stranger.aborted = true;
        }
    }

    pub(crate) fn await_handle(&mut self, child: Id) -> Checked {
        self.actor(child)?.waiters += 1;
        Ok(())
    }

    // -- events -------------------------------------------------------------------------------------------------------

    pub(crate) fn accept(&mut self, at: u64, event: &Event) -> Checked {
        self.advance(at)?;
        self.accept_now(event)?;
        match event {
            Event::Ran(actor) => self.running = Some(self.task_with(*actor)),
            Event::FirstPoll(actor) | Event::Dropped(actor)
                if self.running != Some(self.task_with(*actor)) =>
            {
                self.running = None;
            }
            _ => {}
        }
        Ok(())
    }

    fn accept_now(&mut self, event: &Event) -> Checked {
        match event {
            Event::Ran(actor) => self.ran(*actor),
            Event::Signalled(actor, reason) => {
                if self.token(*actor).is_none() {
                    self.catch_up_all()?;
                }
                let expected = self.token(*actor);
                ensure!(
                    expected.is_some(),
                    "{actor} saw its token cancelled, and it is not"
                );
                ensure!(
                    expected == *reason,
                    "{actor} was told {reason:?}, expected {expected:?}"
                );
                // It may have been forced in the very poll that it is in, or its body in the same task is.
                if self.running != Some(self.task_with(*actor)) {
                    self.check_may_run(*actor)?;
                }
                let actor_state = self.actor(*actor)?;
                ensure!(
                    actor_state.doing == Doing::Idle,
                    "{actor} does not listen now"
                );
                let finish = actor_state
                    .listens
                    .ok_or(format!("{actor} does not listen"))?;
                actor_state.ending = Some(Ending::new(*actor, finish));
                Ok(())
            }
            Event::FirstPoll(actor) => {
                self.check_may_run(*actor)?;
                let actor_state = self.actor(*actor)?;
                ensure!(
                    !actor_state.polled,
                    "{actor} was polled for the first time twice"
                );
                actor_state.polled = true;
                Ok(())
            }
            Event::Dropped(actor) => self.dropped(*actor),
            Event::DropDone(actor, panicked) => self.drop_done(*actor, *panicked),
            Event::DestructorSpawns(actor, child) => {
                let group = self
                    .actor(*actor)?
                    .group
                    .ok_or(format!("{actor} has no group"))?;
                self.add_child(*child, group, Some(*actor), &crate::world::quiet(false));
                Ok(())
            }
            Event::Spawned(child, task) => self.spawned(*child, *task),
            Event::Refused(child, reason) => self.refused(*child, reason.as_ref()),
            Event::SpawnThrew(child, what) => {
                Err(format!("the call that spawned {child} threw `{what}`"))
            }
            Event::Returned(scope, returned) => self.returned(*scope, returned),
            Event::Cut(scope) => self.was_cut(*scope),
            Event::Value(body, child, value) => {
                self.settle(*child)?;
                let child_state = self.actor(*child)?;
                ensure!(
                    child_state.out,
                    "{body} has the value of {child}, which has not ended"
                );
                ensure!(
                    child_state.outcome == Some(Outcome::Completed(*value)) && value == child,
                    "{body} was given {value} for {child}, whose outcome is {:?}",
                    child_state.outcome
                );
                let body_state = self.actor(*body)?;
                ensure!(
                    body_state.doing == Doing::Awaiting(*child),
                    "{body} did not await {child}"
                );
                body_state.doing = Doing::Idle;
                Ok(())
            }
            Event::Outcome(child, outcome) => {
                self.settle(*child)?;
                let child_state = self.actor(*child)?;
                ensure!(
                    child_state.out,
                    "the outcome of {child} is known before it is gone"
                );
                ensure!(
                    child_state.outcome.as_ref() == Some(outcome),
                    "the outcome of {child} is {outcome:?}, expected {:?}",
                    child_state.outcome
                );
                child_state.waiters = child_state
                    .waiters
                    .checked_sub(1)
                    .ok_or(format!("two outcomes of {child}"))?;
                Ok(())
            }
            Event::ObservedSpawn(task) => {
                ensure!(
                    self.observed_spawn.is_none(),
                    "two spawns observed, one handle"
                );
                self.observed_spawn = Some(*task);
                Ok(())
            }
            Event::ObservedEnd(task, how) => self.ended(*task, how),
            Event::ObservedForce(task, reason) => {
                self.observed_force = Some((*task, reason.clone()));
                Ok(())
            }
            Event::ObservedDisplaced(task, what) => {
                self.observed_displaced.push((*task, what.clone()));
                Ok(())
            }
        }
    }

    fn check_may_run(&mut self, id: Id) -> Checked {
        let actor = &self.actors[&id];
        ensure!(!actor.dropped, "{id} runs after it was dropped");
        ensure!(actor.fate == Fate::Alive, "{id} runs, and was not accepted");
        let forced = match actor.kind {
            Kind::Stranger => actor.aborted,
            Kind::Child => self.is_forced(actor),
            Kind::Body => self.scopes[&id].forced,
        };
        ensure!(!forced, "{id} runs although it was forced");
        Ok(())
    }

    fn ran(&mut self, id: Id) -> Checked {
        self.check_may_run(id)?;
        let command = self
            .actor(id)?
            .command
            .take()
            .ok_or(format!("{id} had no command"))?;
        match command {
            Command::Finish(finish) => self.actor(id)?.ending = Some(Ending::new(id, finish)),
            Command::Open { scope, spec, times } => {
                self.actor(id)?.doing = Doing::InScope(scope);
                self.opened(id, scope, spec, times);
            }
            Command::Spawn { into, child, spec } => self.add_child(child, into, Some(id), &spec),
            Command::SpawnHere { child, spec } => {
                self.add_child(child, id, Some(id), &spec);
                if spec.handle == crate::program::Handle::Kept {
                    self.actor(id)?.handles.push(child);
                }
            }
            Command::Await { child } => {
                let actor = self.actor(id)?;
                actor.doing = Doing::Awaiting(child);
                actor.handles.retain(|known| *known != child);
            }
            Command::CancelChildren => self.cancel_children(id)?,
            Command::Cancel { scope } => self.request(scope, Some(id))?,
        }
        Ok(())
    }

    fn opened(&mut self, by: Id, id: Id, spec: ScopeSpec, times: Times) {
        let parent = self.actors[&by].group;
        let inherited = parent.and_then(|parent| self.scopes[&parent].deadline);
        let own = times.deadline.map(|limit| self.now + limit);
        let own_deadline = own.filter(|own| inherited.is_none_or(|outer| *own < outer));
        let body = self.add_actor(id, Kind::Body, Some(id));
        body.destructor = spec.body_destructor;
        body.listens = spec.body_listens;
        let state = ScopeState {
            opener: by,
            parent,
            grace: times.grace,
            deadline: own_deadline.or(inherited),
            own_deadline,
            timeout_at: times.timeout.map(|limit| self.now + limit),
            cut_requested: false,
            cancelled: false,
            forced: false,
            reason: None,
            failures: Vec::new(),
            stragglers: Vec::new(),
            grace_end: None,
            targets: Vec::new(),
            signal_cut: 0,
            force_cut: 0,
            next: 1,
            normal: 1,
            background: 0,
            body_is_in: true,
            value: None,
            orphaned: false,
            owner: None,
            over: false,
            spec,
        };
        self.scopes.insert(id, state);
    }

    fn spawned(&mut self, id: Id, task: TaskId) -> Checked {
        ensure!(
            self.observed_spawn.take() == Some(task),
            "the spawn of {id} was not observed"
        );
        let child = self.actor(id)?;
        ensure!(
            child.fate == Fate::Unborn && !child.dropped,
            "{id} cannot be spawned now"
        );
        let (group, background) = (child.group.unwrap_or_default(), child.background);
        let scope = self.scope(group)?;
        ensure!(
            scope.is_open(),
            "{id} was spawned into scope {group}, which is not open"
        );
        let serial = scope.next;
        scope.next += 1;
        if background {
            scope.background += 1;
        } else {
            scope.normal += 1;
        }
        let child = self.actor(id)?;
        child.fate = Fate::Alive;
        child.serial = serial;
        child.task = Some(task);
        ensure!(
            self.tasks.insert(task, id).is_none(),
            "two children are {task}"
        );
        Ok(())
    }

    fn refused(&mut self, id: Id, reason: Option<&CancelReason>) -> Checked {
        let child = self.actor(id)?;
        ensure!(child.fate == Fate::Unborn, "{id} cannot be refused now");
        child.fate = Fate::Refused;
        child.out = true;
        let (group, is_handle) = (child.group.unwrap_or_default(), reason.is_none());
        if !is_handle {
            child.waiters = 0;
            let by = child.spawned_by;
            if let Some(by) = by.and_then(|by| self.actors.get_mut(&by)) {
                by.handles.retain(|known| *known != id);
            }
        }
        if self.scope(group)?.is_open() {
            self.catch_up(group)?;
        }
        let scope = self.scope(group)?;
        ensure!(
            !scope.is_open(),
            "{id} was refused by scope {group}, which is open"
        );
        let expected = scope.reason.clone().unwrap_or(CancelReason::Closed);
        ensure!(
            reason.is_none_or(|reason| *reason == expected),
            "{id} was refused because of {reason:?}, expected {expected:?}"
        );
        self.actor(id)?
            .outcome
            .get_or_insert(Outcome::Cancelled(expected));
        Ok(())
    }

    fn dropped(&mut self, id: Id) -> Checked {
        let actor = self.actor(id)?.clone();
        ensure!(!actor.dropped, "{id} was dropped twice");
        let own_end = actor.ending.is_some();
        match (actor.kind, actor.fate) {
            (_, Fate::Refused) => {}
            (_, Fate::Unborn) => {
                let group = actor.group.unwrap_or_default();
                if self.scope(group)?.is_open() {
                    self.catch_up(group)?;
                }
                ensure!(
                    !self.scope(group)?.is_open(),
                    "{id} was dropped by an open group"
                );
                // Known before the destructor does anything.
                let reason = self.scope(group)?.reason.clone();
                self.actor(id)?.outcome =
                    Some(Outcome::Cancelled(reason.unwrap_or(CancelReason::Closed)));
            }
            (Kind::Body, _) => {
                if self.is_stuck_now(id)? {
                    let Doing::Awaiting(child) = actor.doing else {
                        return Ok(());
                    };
                    if let Some(task) = self.task_of(Some(child)) {
                        self.cancel(id, CancelReason::AwaitedCancelled(task), false)?;
                    }
                }
                ensure!(
                    own_end || self.is_droppable(id),
                    "body {id} was dropped, and need not be"
                );
            }
            (Kind::Child, _) => {
                if !own_end && !self.is_droppable(id) {
                    self.catch_up(actor.group.unwrap_or_default())?;
                }
                ensure!(
                    own_end || self.is_droppable(id),
                    "child {id} was dropped, and need not be"
                );
            }
            (Kind::Stranger, _) => ensure!(own_end || actor.aborted, "stranger {id} was dropped"),
        }
        self.actor(id)?.dropped = true;
        if let Doing::InScope(scope) = actor.doing {
            self.check_scope_gone(scope)?;
            self.scope_dropped(scope)?;
        }
        if actor.destructor == Destructor::Cancels
            && let Some(group) = actor.group
        {
            let by = if actor.fate == Fate::Alive {
                Some(id)
            } else {
                actor.spawned_by
            };
            self.request(group, by)?;
        }
        Ok(())
    }

    fn is_stuck_now(&mut self, body: Id) -> Result<bool, String> {
        if let Doing::Awaiting(child) = self.actors[&body].doing {
            self.settle(child)?;
        }
        Ok(self.is_stuck(&self.actors[&body]))
    }

    fn check_scope_gone(&self, scope: Id) -> Checked {
        let body = &self.actors[&scope];
        ensure!(body.drop_done, "scope {scope} is gone, its body is not");
        ensure!(!self.scopes[&scope].over, "scope {scope} is gone twice");
        Ok(())
    }

    fn drop_done(&mut self, id: Id, panicked: bool) -> Checked {
        let actor = self.actor(id)?;
        ensure!(
            actor.dropped && !actor.drop_done,
            "{id}: a destructor is done that had not begun"
        );
        actor.drop_done = true;
        actor.destructor_panicked = panicked;
        actor.command = None;
        let actor = actor.clone();
        let unwinds = actor.kind == Kind::Body && matches!(actor.ending, Some(Ending::Panic(_)));
        let expected = actor.destructor == Destructor::Panics && !unwinds;
        ensure!(
            panicked == expected,
            "{id}: the destructor panicked: {panicked}, expected {expected}"
        );
        match (actor.kind, actor.fate) {
            (Kind::Body, _) => self.body_ended(id, &actor),
            // A future that is refused by `spawn` belongs to nobody else; `try_spawn` has given it back.
            (Kind::Child, Fate::Unborn) if panicked => {
                self.displaced.push((None, destructor_of(id)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn body_ended(&mut self, id: Id, body: &Actor) -> Checked {
        let scope = &self.scopes[&id];
        let is_dropped_with_scope = body.ending.is_none()
            && (self.is_droppable(scope.opener)
                || (scope.cut_requested && !scope.forced && !self.is_stuck(body)));
        if is_dropped_with_scope {
            if body.destructor_panicked {
                self.displaced.push((None, destructor_of(id)));
            }
            return Ok(()); // its place is given up with the scope
        }
        match &body.ending {
            // An error that the body was about to return is lost in the body itself.
            _ if body.destructor_panicked => self.fail(id, None, destructor_of(id), true)?,
            Some(Ending::Err) => self.fail(id, None, error_of(id), false)?,
            Some(Ending::Panic(what)) => self.fail(id, None, what.clone(), true)?,
            Some(Ending::Ok) => self.scope(id)?.value = Some(id),
            None => {}
        }
        self.scope(id)?.body_is_in = false;
        self.leave(id, false)
    }

    fn ended(&mut self, task: TaskId, how: &Ended) -> Checked {
        let id = *self
            .tasks
            .get(&task)
            .ok_or(format!("the unknown {task} ended"))?;
        let child = self.actor(id)?.clone();
        ensure!(
            child.drop_done,
            "the end of {id} was observed before it was dropped"
        );
        ensure!(
            child.outcome.is_none(),
            "the end of {id} was observed twice"
        );
        self.ended += 1;
        let group = child.group.unwrap_or_default();
        let mut straggles = None;
        let (expected, outcome) = match (&child.ending, child.destructor_panicked) {
            (Some(Ending::Ok), false) => (Ended::Completed, Outcome::Completed(id)),
            (Some(Ending::Err), false) => {
                self.fail(group, Some(id), error_of(id), false)?;
                (Ended::Failed, Outcome::Failed)
            }
            (None, false) => {
                let reason = self.reason_for(&child);
                let scope = self.scope(group)?;
                if scope.grace.is_some() && reason != CancelReason::ScopeDropped {
                    scope.stragglers.push(task);
                    straggles = Some((task, reason.clone()));
                }
                (Ended::Cancelled(reason.clone()), Outcome::Cancelled(reason))
            }
            (ending, panicked) => {
                let first = match ending {
                    Some(Ending::Panic(what)) => what.clone(),
                    _ => destructor_of(id),
                };
                // Nothing is lost: what the first panic displaces is observed.
                match ending {
                    Some(Ending::Panic(_)) if panicked => {
                        self.displaced.push((None, destructor_of(id)))
                    }
                    Some(Ending::Err) => self.displaced.push((None, error_of(id))),
                    _ => {}
                }
                self.fail(group, Some(id), first, true)?;
                (Ended::Panicked, Outcome::Panicked)
            }
        };
        ensure!(
            *how == expected,
            "{id} ended as {how:?}, expected {expected:?}"
        );
        let observed = self.observed_force.take();
        ensure!(
            observed == straggles,
            "{id}: forced was observed as {observed:?}, expected {straggles:?}"
        );
        let child = self.actor(id)?;
        child.outcome = Some(outcome);
        if child.adopted.is_empty() {
            self.settle(id)?;
        }
        Ok(())
    }

    fn was_cut(&mut self, id: Id) -> Checked {
        self.check_scope_gone(id)?;
        let scope = self.scope(id)?;
        ensure!(
            scope.cut_requested,
            "scope {id} was cut, and nobody asked for it"
        );
        let (opener, after) = (scope.opener, scope.spec.after_cut);
        self.scope_dropped(id)?;
        let opener_state = self.actor(opener)?;
        opener_state.doing = Doing::Idle;
        opener_state.ending = after.map(|finish| Ending::new(opener, finish));
        Ok(())
    }

    fn returned(&mut self, id: Id, returned: &Returned) -> Checked {
        self.catch_up(id)?;
        self.check_scope_gone(id)?;
        let scope = self.scope(id)?;
        ensure!(
            scope.live() == 0,
            "scope {id} returned with {} members alive",
            scope.live()
        );
        let reason = scope.reason.take();
        let mut failures = std::mem::take(&mut scope.failures);
        let stragglers = std::mem::take(&mut scope.stragglers);
        let (opener, value, passes_on) = (scope.opener, scope.value, scope.spec.passes_on);
        scope.over = true;
        let panic = failures.iter().position(|failure| failure.is_panic);
        let panic = panic
            .filter(|_| !scope.spec.panics_as_errors)
            .map(|at| failures.remove(at));
        let ending;
        let expected = match (panic, value, reason) {
            (Some(panic), ..) => {
                self.displaced.extend(
                    failures
                        .into_iter()
                        .map(|failure| (failure.task, failure.what)),
                );
                ending = Some(Ending::Panic(panic.what.clone()));
                Returned::Panic(panic.what)
            }
            (None, Some(value), None | Some(CancelReason::Finished)) if failures.is_empty() => {
                ending = None;
                Returned::Value(value)
            }
            (None, _, reason) => {
                ending = passes_on.then_some(Ending::Err);
                let cause = match reason {
                    Some(CancelReason::Deadline) => Cause::DeadlineExceeded,
                    Some(
                        reason @ (CancelReason::Requested { .. }
                        | CancelReason::AwaitedCancelled(_)
                        | CancelReason::ScopeDropped),
                    ) => Cause::Cancelled(reason),
                    _ => Cause::Failed,
                };
                Returned::Error {
                    cause,
                    failures: failures
                        .into_iter()
                        .map(|failure| (failure.task, failure.what))
                        .collect(),
                    forced: stragglers,
                }
            }
        };
        ensure!(
            *returned == expected,
            "scope {id} returned {returned:?}, expected {expected:?}"
        );
        let opener_state = self.actor(opener)?;
        ensure!(
            opener_state.doing == Doing::InScope(id),
            "{opener} is not in scope {id}"
        );
        opener_state.doing = Doing::Idle;
        opener_state.ending = ending;
        Ok(())
    }
}

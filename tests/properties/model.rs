//! The model: what the contract says about groups, as plain sequential data.
//!
//! It does not guess in which order tasks are polled. It reads the log of the real run, event by event: each must be
//! allowed at its place, and when all is quiet nothing that had to happen may be missing.

mod events;
mod quiet;
mod returns;
mod slots;
mod starts;

use std::collections::{BTreeMap, BTreeSet};

use ringfence::{CancelReason, Ended, Outcome, TaskId};

use crate::program::{ChildSpec, Destructor, Finish, Handle, ScopeSpec};
use crate::world::{Command, Id, panic_of};

pub(crate) type Checked = Result<(), String>;

macro_rules! ensure {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

use ensure;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Stranger,
    Body,
    Child,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    Idle,
    /// Also in the shutdown of a long-lived group.
    InScope(Id),
    Awaiting(Id),
    /// For a slot for that child.
    Waiting(Id),
    /// For that child to be ready.
    Starting(Id),
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
    name: Option<&'static str>,
    spawned_by: Option<Id>,
    task: Option<TaskId>,
    serial: u64,
    mark: Mark,
    /// Dropped scopes that it has to wait for.
    adopted: BTreeSet<Id>,
    /// What is observed of its end, and what its handle tells: known once it is dropped, told when it is out.
    ended: Option<Ended>,
    outcome: Option<Outcome<Id>>,
    /// Counted out.
    out: bool,
    /// How many strangers await its handle.
    waiters: usize,
    /// The budget that it takes a slot of, and the slot.
    budget: Option<usize>,
    slot: Option<slots::Slot>,
    /// Whether there was one without a wait.
    is_served: bool,
    /// Whether whoever spawns it has a slot of that budget that it cannot lend.
    is_circle: bool,
    /// What is to become of its handle when it is ready; nothing once it is, or if it is not started.
    starting: Option<Handle>,
    /// Whether it has said that it is ready, or never will be.
    ready: Option<bool>,
    /// Its place in the group goes to the scopes that it has left behind.
    is_heir: bool,
    /// Its long-lived groups.
    pub(crate) owned: BTreeSet<Id>,
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
    spec: ScopeSpec,
    grace: Option<u64>,
    /// Its own: each scope keeps it, also one that is later than what it inherits.
    deadline: Option<u64>,
    timeout_at: Option<u64>,
    cut_requested: bool,
    cancelled: bool,
    forced: bool,
    reason: Option<CancelReason>,
    failures: Vec<Failure>,
    stragglers: Vec<Option<TaskId>>,
    /// Members were forced because the grace was over.
    grace_over: bool,
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
    /// Dropped: the scope around whose grace was over then for what this one is in.
    outlasted: Option<Id>,
    /// Its future is gone.
    pub(crate) over: bool,
    /// A long-lived group, without a body.
    is_owned: bool,
    /// It takes no more children.
    shut: bool,
}

impl ScopeState {
    fn is_open(&self) -> bool {
        !self.cancelled && !self.shut && self.normal > 0
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
    /// What has to be observed next.
    expected_force: Option<(Option<TaskId>, CancelReason)>,
    /// A body that was named, and is to be dropped.
    named_body: Option<CancelReason>,
    displaced: Vec<(Option<TaskId>, String)>,
    observed_displaced: Vec<(Option<TaskId>, String)>,
    pub(crate) root_orphans: usize,
    budgets: slots::Budgets,
    /// Children that ended, for the figures.
    pub(crate) ended: usize,
    pub(crate) adoptions: usize,
    pub(crate) slots: usize,
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
            name: None,
            spawned_by: None,
            task: None,
            serial: 0,
            mark: Mark::None,
            adopted: BTreeSet::new(),
            ended: None,
            outcome: None,
            out: false,
            waiters: 0,
            budget: None,
            slot: None,
            is_served: false,
            is_circle: false,
            starting: None,
            ready: None,
            is_heir: false,
            owned: BTreeSet::new(),
        })
    }

    pub(crate) fn add_child(&mut self, id: Id, into: Id, by: Option<Id>, spec: &ChildSpec) {
        let child = self.add_actor(id, Kind::Child, Some(into));
        child.fate = Fate::Unborn;
        child.destructor = spec.destructor;
        child.listens = spec.listens;
        child.background = spec.background;
        child.spawned_by = by;
        child.budget = spec.slot;
        if spec.handle == Handle::Awaited {
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

    /// The reason that the token of an actor gives, if it is cancelled: that of the innermost member that was asked to end.
    fn token(&self, id: Id) -> Option<CancelReason> {
        let mut member = Some(id);
        while let Some(actor) = member.and_then(|id| self.actors.get(&id)) {
            let group = actor.group?;
            if self.is_signalled(actor) {
                return Some(self.reason_for(actor));
            }
            member = Some(self.scopes[&group].opener);
        }
        None
    }

    fn is_signalled(&self, actor: &Actor) -> bool {
        let scope = actor.group.and_then(|group| self.scopes.get(&group));
        scope.is_some_and(|scope| scope.cancelled) || self.is_singled(actor)
    }

    /// Whether a child was asked to end on its own, or with all children.
    fn is_singled(&self, actor: &Actor) -> bool {
        // What was singled out of itself is forgotten when it has ended.
        let is_marked = actor.mark > Mark::None && !actor.out;
        actor.kind == Kind::Child && (is_marked || self.is_cut(actor))
    }

    fn is_cut(&self, child: &Actor) -> bool {
        let scope = child.group.and_then(|group| self.scopes.get(&group));
        scope.is_some_and(|scope| child.serial < scope.signal_cut.max(scope.force_cut))
    }

    /// The first reason stands, for a child as for a group.
    fn reason_for(&self, actor: &Actor) -> CancelReason {
        let group = actor.group.and_then(|group| self.scopes.get(&group));
        if actor.mark > Mark::None {
            CancelReason::Handle
        } else if actor.kind == Kind::Child && self.is_cut(actor) {
            CancelReason::ChildrenCancelled
        } else {
            let reason = group.and_then(|scope| scope.reason.clone());
            reason.unwrap_or(CancelReason::RuntimeGone)
        }
    }

    /// Whether an actor's future may be dropped where it is parked.
    fn is_droppable(&self, id: Id) -> bool {
        let actor = &self.actors[&id];
        match actor.kind {
            Kind::Stranger => actor.aborted,
            Kind::Child => self.is_forced(actor) || self.is_withdrawn(actor),
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

    /// The scope whose report names a member that is forced now: its own if it outlasted the grace there, or one around it.
    fn outlasted(&self, member: &Actor) -> Option<Id> {
        let own = member
            .group
            .filter(|group| self.is_grace_over(*group, member));
        own.or_else(|| self.scopes[&member.group?].outlasted)
    }

    /// What that report says of why: in one further out, what that one was asked; its own scope was just dropped.
    fn reason_told(&self, outlasted: Id, member: &Actor, own: CancelReason) -> CancelReason {
        let around = Some(outlasted).filter(|group| member.group != Some(*group));
        around
            .and_then(|group| self.scopes[&group].reason.clone())
            .unwrap_or(own)
    }

    fn is_grace_over(&self, group: Id, member: &Actor) -> bool {
        let scope = &self.scopes[&group];
        let is_child = member.kind == Kind::Child;
        let alone = is_child && (member.mark == Mark::Forced || member.serial < scope.force_cut);
        scope.grace.is_some() && (scope.grace_over || alone)
    }

    /// The innermost scope around whose grace is over for what this one was opened in.
    fn grace_over_around(&self, scope: Id) -> Option<Id> {
        let opener = &self.actors[&self.scopes[&scope].opener];
        let group = opener.group?;
        if self.is_grace_over(group, opener) {
            return Some(group);
        }
        self.grace_over_around(group)
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
        if !at_once && scope.live() == 0 {
            return Ok(()); // After the end, a cancel changes nothing.
        }
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
        if self
            .actors
            .get(&id)
            .is_some_and(|child| self.is_signalled(child))
        {
            return Ok(()); // Asked already.
        }
        let child = self.actor(id)?;
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
        if scope.cancelled {
            return Ok(()); // Asked already.
        }
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
                    let child = self.actor(child)?;
                    child.adopted.remove(&id);
                    let (group, background) = (child.group, child.background);
                    let is_last = child.adopted.is_empty() && std::mem::take(&mut child.is_heir);
                    match group.filter(|_| is_last) {
                        Some(group) => self.leave(group, background),
                        None => Ok(()),
                    }
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
        let outlasted = self.grace_over_around(id);
        let scope = self.scope(id)?;
        scope.outlasted = outlasted;
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
}

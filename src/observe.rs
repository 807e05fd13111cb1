//! What happens inside groups, told to whoever asked to hear it.
//!
//! O1. A hook runs outside every lock of the library, in the thread in which the event happened. O2. A hook that panics
//! harms nobody: the panic is caught, and dropped. O3. Without an observer an event costs one test of a pointer.

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, OnceLock};
use std::task::Waker;

use crate::panic::{PanicPayload, catch};
use crate::sorted_map::{Key, Rank};

/// Identifies a task: the number of its group, and its number within the group, each unique in the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TaskId {
    pub(crate) group: u64,
    pub(crate) serial: u64,
}

impl Key for TaskId {
    fn rank(self) -> Rank {
        (self.group, self.serial)
    }

    fn of((group, serial): Rank) -> Self {
        Self { group, serial }
    }
}

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.group, self.serial)
    }
}

/// A task's name, id and place of birth.
#[derive(Clone, Debug)]
pub struct TaskInfo {
    pub(crate) id: TaskId,
    pub(crate) name: Option<Arc<str>>,
    pub(crate) group: Option<Arc<str>>,
    pub(crate) location: &'static Location<'static>,
}

impl TaskInfo {
    /// Returns the task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// Returns the name given with [`TaskGroup::named`](crate::TaskGroup::named).
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Returns the path of names of the group that the task belongs to, outermost first: `server/conn`.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.group.as_deref()
    }

    /// Returns the place of the call that spawned it.
    #[must_use]
    pub fn location(&self) -> &'static Location<'static> {
        self.location
    }
}

impl fmt::Display for TaskInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.group, &self.name) {
            (Some(group), Some(name)) => write!(f, "task `{group}/{name}`")?,
            (None, Some(name)) => write!(f, "task `{name}`")?,
            (Some(group), None) => write!(f, "task {} of `{group}`", self.id)?,
            (None, None) => write!(f, "task {}", self.id)?,
        }
        write!(f, " spawned at {}", self.location)
    }
}

/// How a child ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ended {
    /// It returned a value.
    Completed,
    /// It returned an error.
    Failed,
    /// It panicked, or one of its destructors did.
    Panicked,
    /// It was cancelled.
    Cancelled(CancelReason),
    /// Its runtime was shut down under it.
    RuntimeGone,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("completed"),
            Self::Failed => f.write_str("failed"),
            Self::Panicked => f.write_str("panicked"),
            Self::Cancelled(reason) => write!(f, "cancelled {reason}"),
            Self::RuntimeGone => f.write_str("its runtime was shut down"),
        }
    }
}

/// Why a group, or one child, was cancelled.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CancelReason {
    /// Somebody called `cancel`, with this note if any.
    Requested {
        /// What `cancel_with` was given.
        note: Option<Arc<str>>,
        /// The task that asked, if it was one of ours.
        by: Option<TaskId>,
    },
    /// A child failed.
    Failed(TaskId),
    /// A child panicked.
    Panicked(TaskId),
    /// The body returned an error.
    BodyFailed,
    /// The body panicked.
    BodyPanicked,
    /// The group's deadline passed.
    Deadline,
    /// Everybody else is done: what a background child is cancelled with.
    Finished,
    /// The scope's future was dropped before it was ready.
    ScopeDropped,
    /// The group was shut down: [`OwnedGroup::shutdown`](crate::OwnedGroup::shutdown).
    Shutdown,
    /// The child was cancelled through its handle; or it was being [started](crate::TaskGroup::start), and nobody waits any more.
    Handle,
    /// The children were cancelled, the body was not: [`TaskGroup::cancel_children`](crate::TaskGroup::cancel_children).
    ChildrenCancelled,
    /// The body awaited the value of a child that had been cancelled on its own.
    AwaitedCancelled(TaskId),
    /// The runtime that the children ran on was shut down.
    RuntimeGone,
    /// The group was already done.
    Closed,
}

impl fmt::Display for CancelReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Requested {
                note: Some(note), ..
            } => write!(f, "on request: {note}"),
            Self::Requested { note: None, .. } => f.write_str("on request"),
            Self::Failed(id) => write!(f, "because task {id} failed"),
            Self::Panicked(id) => write!(f, "because task {id} panicked"),
            Self::BodyFailed => f.write_str("because the body failed"),
            Self::BodyPanicked => f.write_str("because the body panicked"),
            Self::Deadline => f.write_str("because the deadline passed"),
            Self::Finished => f.write_str("because everybody else was done"),
            Self::ScopeDropped => f.write_str("because the scope was dropped"),
            Self::Shutdown => f.write_str("because it was shut down"),
            Self::Handle => f.write_str("through its handle"),
            Self::ChildrenCancelled => f.write_str("together with all children"),
            Self::AwaitedCancelled(id) => {
                write!(f, "because the body awaited the cancelled task {id}")
            }
            Self::RuntimeGone => f.write_str("because the runtime was shut down"),
            Self::Closed => f.write_str("because the group was already done"),
        }
    }
}

/// Something that had nobody to be returned to.
#[derive(Debug)]
#[non_exhaustive]
pub struct Displaced {
    /// The task it came from; `None` if it was a scope's body, or is not known any more.
    pub task: Option<TaskInfo>,
    /// What it is.
    pub what: DisplacedWhat,
}

/// The kinds of things that can be displaced.
#[derive(Debug)]
#[non_exhaustive]
pub enum DisplacedWhat {
    /// A panic: a second one, or one out of a destructor, or one in a scope that nobody waits for.
    Panic(PanicPayload),
    /// An error, type-erased, because a panic took its place, a [join](crate::TaskGroup::try_join) had its answer, or nobody
    /// waits for its scope or [shared call](crate::SingleFlight).
    Error(Box<dyn std::any::Any + Send>),
    /// An error in a [race](crate::TaskGroup::first_ok) that went on without it, type-erased: an ordinary fail-over, and so no more
    /// than a `debug` event for `tracing`.
    Overlooked(Box<dyn std::any::Any + Send>),
}

impl fmt::Display for Displaced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.what, &self.task) {
            (DisplacedWhat::Panic(p), Some(task)) => write!(f, "{task} panicked: {p}"),
            (DisplacedWhat::Panic(p), None) => write!(f, "panicked: {p}"),
            (DisplacedWhat::Error(_), Some(task)) => write!(f, "{task} failed"),
            (DisplacedWhat::Error(_), None) => f.write_str("an error reached nobody"),
            (DisplacedWhat::Overlooked(_), _) => f.write_str("an error was overlooked in a race"),
        }
    }
}

/// A child, or the body of a scope, that did not end within the grace.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Straggler {
    /// Which task it was; `None` if it was the body.
    pub task: Option<TaskInfo>,
    /// The path of names of its group, if any of them has a name: also of a body.
    pub group: Option<Arc<str>>,
    /// Why it had been asked to end; if its scope was dropped because a group further out was forced, why that one was to end.
    pub reason: CancelReason,
    /// How long it had lived when it was forced, where that is known: from its first wait on.
    pub age: Option<std::time::Duration>,
}

impl Straggler {
    /// Returns the name of the task, if it is a child that has one.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.task.as_ref()?.name()
    }
}

impl fmt::Display for Straggler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.task, &self.group) {
            (Some(task), _) => write!(f, "{task}")?,
            (None, Some(group)) => write!(f, "the body of `{group}`")?,
            (None, None) => f.write_str("the body")?,
        }
        write!(f, " had to be forced, cancelled {}", self.reason)
    }
}

/// Hears of what happens to the children of groups.
///
/// All methods do nothing by default. They run in the middle of things: in the task that the event is about, in a
/// destructor, in the thread that cancels. So keep them short, and do not block. A panic in one is caught and dropped.
///
/// Install one for a scope and what is opened in it with [`Scope::observer`](crate::Scope::observer), or for the
/// process with [`observe`].
pub trait Observer: Send + Sync + 'static {
    /// A child was spawned.
    fn spawned(&self, task: &TaskInfo) {
        let _ = task;
    }

    /// A child ended; its future and all it captured have been dropped.
    fn ended(&self, task: &TaskInfo, how: &Ended) {
        let _ = (task, how);
    }

    /// An error or a panic had nobody to be returned to.
    fn displaced(&self, what: &Displaced) {
        let _ = what;
    }

    /// Blocking work was given up: it goes on, and nobody waits for it any more.
    fn abandoned(&self, straggler: &Straggler) {
        let _ = straggler;
    }

    /// A child or a body had to be forced because it did not end within the grace.
    fn forced(&self, straggler: &Straggler) {
        let _ = straggler;
    }
}

/// Tells both, the first one first.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn spawned(&self, task: &TaskInfo) {
        self.both(|o| o.spawned(task));
    }
    fn ended(&self, task: &TaskInfo, how: &Ended) {
        self.both(|o| o.ended(task, how));
    }
    fn displaced(&self, what: &Displaced) {
        self.both(|o| o.displaced(what));
    }
    fn abandoned(&self, straggler: &Straggler) {
        self.both(|o| o.abandoned(straggler));
    }
    fn forced(&self, straggler: &Straggler) {
        self.both(|o| o.forced(straggler));
    }
}

trait Both {
    fn both(&self, event: impl Fn(&dyn Observer));
}

impl<A: Observer, B: Observer> Both for (A, B) {
    /// One that panics does not keep the event from the other (O2).
    fn both(&self, event: impl Fn(&dyn Observer)) {
        drop(catch(|| event(&self.0)));
        drop(catch(|| event(&self.1)));
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn spawned(&self, task: &TaskInfo) {
        (**self).spawned(task);
    }
    fn ended(&self, task: &TaskInfo, how: &Ended) {
        (**self).ended(task, how);
    }
    fn displaced(&self, what: &Displaced) {
        (**self).displaced(what);
    }
    fn abandoned(&self, straggler: &Straggler) {
        (**self).abandoned(straggler);
    }
    fn forced(&self, straggler: &Straggler) {
        (**self).forced(straggler);
    }
}

static PROCESS: OnceLock<Arc<dyn Observer>> = OnceLock::new();

/// Installs the observer of the process: for scopes that have no other one, and for what belongs to no scope any more.
///
/// # Errors
///
/// Gives the observer back if one is installed already.
pub fn observe(observer: Arc<dyn Observer>) -> Result<(), Arc<dyn Observer>> {
    PROCESS.set(observer)
}

pub(crate) fn process() -> Option<&'static Arc<dyn Observer>> {
    PROCESS.get()
}

/// Runs a hook (O2).
pub(crate) fn tell(observer: Option<&Arc<dyn Observer>>, event: impl FnOnce(&dyn Observer)) {
    if let Some(observer) = observer {
        drop(catch(|| event(&**observer)));
    }
}

/// Wakes somebody whose waker may be anything, and may throw: that is observed, and harms neither who wakes nor anybody else.
pub(crate) fn wake(waker: Option<Waker>) {
    let Some(waker) = waker else { return };
    if let Err(panic) = catch(|| waker.wake()) {
        displace(None, None, DisplacedWhat::Panic(panic));
    }
}

/// Reports what nobody can be given, to `observer` or the process's one, and to `tracing`.
pub(crate) fn displace(
    observer: Option<&Arc<dyn Observer>>,
    task: Option<TaskInfo>,
    what: DisplacedWhat,
) {
    // A match, because `or_else` would ask for an observer that lives for ever.
    let observer = match observer {
        Some(observer) => Some(observer),
        None => process(),
    };
    let displaced = Displaced { task, what };
    crate::trace::displaced(&displaced);
    tell(observer, |o| o.displaced(&displaced));
    // The destructors of the error and of the payload are user code as well.
    let dropped = catch(|| match displaced.what {
        DisplacedWhat::Panic(panic) => drop(panic.into_inner()),
        DisplacedWhat::Error(error) | DisplacedWhat::Overlooked(error) => drop(error),
    });
    if let Err(panic) = dropped {
        let what = DisplacedWhat::Panic(panic);
        tell(observer, |o| o.displaced(&Displaced { task: None, what }));
    }
}

/// Joins the names of nested groups and children.
pub(crate) fn path(parent: Option<&Arc<str>>, name: Option<&str>) -> Option<Arc<str>> {
    match (parent, name) {
        (Some(parent), Some(name)) => Some(Arc::from(format!("{parent}/{name}"))),
        (Some(parent), None) => Some(parent.clone()),
        (None, Some(name)) => Some(Arc::from(name)),
        (None, None) => None,
    }
}

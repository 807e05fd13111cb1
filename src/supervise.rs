//! Supervision: children that are restarted when they fail, in the order and as often as one says.
//!
//! A [`Supervisor`] is a scope whose children are isolated from one another: what one of them fails with, or throws, restarts it, and
//! perhaps others, and ends nothing else. What it decides is in `restart`, which is pure; `keeper` does it.

pub(crate) mod child;
pub(crate) mod error;
pub(crate) mod handle;
mod keeper;
pub(crate) mod periodic;
pub(crate) mod restart;
pub(crate) mod schedule;

use std::fmt;
use std::time::Duration;

pub use child::{Child, ChildEnd, Run};
pub use error::{Escalation, SupervisorError, SupervisorReport};
pub use handle::{ChildHandle, ChildState, SupervisorHandle};
pub use periodic::{Periodic, PeriodicHandle, Tick};
pub use restart::{Counts, Strategy};
pub use schedule::Missed;

use crate::cancel::token;
use crate::group::TaskGroup;
use crate::group::error::capped;
use crate::group::options::Scope;
use crate::supervise::keeper::{Closing, Desk, Driver};
use crate::supervise::restart::Rules;
use crate::sync::PlainArc;

type Hook = PlainArc<dyn Fn(&RunEnded<'_>) + Send + Sync>;

/// The end of one run of a child, as [`Supervisor::on_end`] is told of it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct RunEnded<'a> {
    /// The child's name.
    pub child: &'a str,
    /// Which run it was; the first one is 1.
    pub run: u64,
    /// How it ended.
    pub end: &'a ChildEnd,
    /// What comes next.
    pub next: WhatNext,
}

/// What follows from the end of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WhatNext {
    /// It is started again after this delay.
    Restart(Duration),
    /// Nothing: the child has ended for good.
    Nothing,
    /// It had been asked for: by a handle, by the end of all, or for the sake of another child.
    Ordered,
    /// All children are stopped, and the supervisor fails.
    Escalate,
}

/// Runs children, each isolated from the others, and restarts those that fail.
///
/// It is a scope: [`run`](Self::run) comes back when all children are gone, and nothing outlives it. Children are started in the order
/// in which they were added, and stopped in the reverse order. A failure or a panic of one is not a failure of the supervisor: the
/// child is restarted after a delay that grows, and starts small again when it was healthy in between. Only when there are too many
/// restarts, or a [critical](Child::critical) child ends, does the supervisor stop everybody and fail; then whatever is around it
/// decides: a group fails, a supervisor around it restarts it with all that it was made of.
///
/// From the moment at which it is told to stop, nobody is started: not a child that waits for its next run, nor one that fails on its
/// way out. So what must be done before the end is tried again inside the child, by a [retry](crate::retry) or a queue that
/// [delivers again](crate::queue); a restart is for what has gone wrong, and no promise that there is another run.
///
/// A run is one task of its name, in a group of its own inside that of the supervisor: snapshots, observers and
/// [counters](crate::inspect::Counters) see each run as one child that was spawned there, and how it ended.
/// [`ChildHandle::runs`] and [`SupervisorHandle::restarts`] have the figures.
///
/// Each failure goes to [`on_end`](Self::on_end), or without it to the [observer](crate::observe) (an error as an `Arc<BoxError>`).
///
/// # Default
///
/// [`Strategy::OneForOne`]; 5 restarts within 30 s; a grace of 30 s for all together.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), ringfence::supervise::SupervisorError> {
/// use std::time::Duration;
/// use ringfence::supervise::{Child, Supervisor};
///
/// let mut supervisor = Supervisor::new().intensity(3, Duration::from_secs(60));
/// let sync = supervisor.add(Child::transient("sync", |run| async move {
///     if run.number() < 3 {
///         return Err("connection lost".into());
///     }
///     Ok(())
/// }));
/// let report = supervisor.run().await?;
/// assert_eq!((report.restarts, sync.runs()), (2, 3));
/// assert!(sync.ended().await.is_completed());
/// # Ok(())
/// # }
/// ```
///
/// *Comparison.* As in OTP there are strategies, an intensity, and an order of start and stop; unlike there, restarts are delayed, and
/// what a child had opened is gone before it is started again. `tokio::spawn` in a loop has none of that; a
/// [`TaskGroup`] is right where a failure of one is the failure of all.
#[must_use = "a supervisor does nothing unless it is run"]
pub struct Supervisor {
    name: Option<PlainArc<str>>,
    hook: Option<Hook>,
    desk: PlainArc<Desk>,
    closing: Closing,
}

impl Default for Supervisor {
    fn default() -> Self {
        Self::new()
    }
}

impl Supervisor {
    /// A supervisor without children.
    pub fn new() -> Self {
        let desk = Desk::new(Rules {
            strategy: Strategy::OneForOne,
            intensity: Some((5, Duration::from_secs(30))),
            grace: Duration::from_secs(30),
            stays_open: false,
        });
        Self {
            name: None,
            hook: None,
            closing: Closing(desk.clone()),
            desk,
        }
    }

    /// Names it, for errors, events and snapshots.
    pub fn name(mut self, name: impl Into<PlainArc<str>>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Says whom a failure takes down with the child that failed.
    pub fn strategy(self, strategy: Strategy) -> Self {
        self.desk.rules(|rules| rules.strategy = strategy);
        self
    }

    /// Gives up when children were to be restarted more than `restarts` times within `within`; 5 times within 30 s unless given.
    ///
    /// Each failure counts once, however many children are restarted with it.
    ///
    /// # Panics
    ///
    /// If `within` is zero: that would be for ever, which is spelled [`unlimited`](Self::unlimited).
    #[track_caller]
    pub fn intensity(self, restarts: u32, within: Duration) -> Self {
        assert!(
            !within.is_zero(),
            "ringfence: no restarts fall within a time of zero; for ever is spelled `unlimited()`"
        );
        self.desk
            .rules(|rules| rules.intensity = Some((restarts, within)));
        self
    }

    /// Restarts children for ever.
    pub fn unlimited(self) -> Self {
        self.desk.rules(|rules| rules.intensity = None);
        self
    }

    /// How long the end of all children together may take; 30 s unless given. Each has its own [grace](Child::grace) beside that.
    pub fn grace(self, grace: Duration) -> Self {
        self.desk.rules(|rules| rules.grace = capped(grace));
        self
    }

    /// Goes on when no child is left, until it is shut down or cancelled: for children that are added through a
    /// [handle](Self::handle).
    pub fn stay_open(self) -> Self {
        self.desk.rules(|rules| rules.stays_open = true);
        self
    }

    /// Has `hook` told of each end of a run, in place of the observer. It is called between two steps of the supervisor, so keep it
    /// short; a panic in it is reported.
    pub fn on_end(mut self, hook: impl Fn(&RunEnded<'_>) + Send + Sync + 'static) -> Self {
        self.hook = Some(PlainArc::new(hook));
        self
    }

    /// Adds a child, and returns the builder: [`add`](Self::add) where no handle is needed.
    pub fn child(mut self, child: Child) -> Self {
        self.add(child);
        self
    }

    /// Adds a child, which is started after those before it, and returns a handle that is good for all its runs.
    pub fn add(&mut self, child: Child) -> ChildHandle {
        Desk::add(&self.desk, child)
    }

    /// Returns a handle to add children while it runs, and to end it.
    #[must_use]
    pub fn handle(&self) -> SupervisorHandle {
        SupervisorHandle {
            desk: self.desk.clone(),
        }
    }

    /// Starts the children, and comes back when all of them are gone: because they have ended for good, because it was shut down, or
    /// with an error because it gave up.
    ///
    /// When the group around it is cancelled with a grace, the children are stopped from last to first, each within its own grace:
    /// they hear of the cancel when it is their turn, and none is restarted. When that group forces, or has no grace, all are dropped at once.
    ///
    /// # Cancel safety
    ///
    /// As a scope: dropped before it is ready, it cancels its children at once, and whatever encloses it does not end until they
    /// are gone. Handles find that their children have ended.
    ///
    /// # Errors
    ///
    /// [`SupervisorError`] if there were too many restarts, a critical child ended, or a child that says when it is ready
    /// failed before that when all were first started.
    pub async fn run(self) -> Result<SupervisorReport, SupervisorError> {
        let Self {
            name,
            hook,
            desk,
            closing,
        } = self;
        let _closing = closing;
        let around = token();
        let scope = Scope::new().apart();
        let scope = match name {
            Some(name) => scope.name(name),
            None => scope,
        };
        let ended = scope
            .run(async |group: &TaskGroup| Ok(Driver::new(desk, group, hook).drive(around).await));
        match ended.await {
            Ok(result) => result,
            Err(error) => Err(SupervisorError::cancelled(&error)),
        }
    }
}

impl fmt::Debug for Supervisor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Supervisor")
            .field("name", &self.name)
            .field("counts", &self.desk.counts())
            .finish_non_exhaustive()
    }
}

//! Seeing inside a running program: the tree of its groups and tasks, counters, and who is slow.
//!
//! [`snapshot`] can be called from any thread at any time, also from one that no runtime knows: from a signal handler's
//! task, a debug endpoint, a watchdog. It prints as a tree, and gives JSON and Mermaid.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread", start_paused = true)]
//! # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
//! use ringfence::{Scope, TaskGroup, snapshot};
//!
//! Scope::new()
//!     .name("server")
//!     .run(async |group: &TaskGroup<std::io::Error>| {
//!         group.named("accept").spawn(std::future::pending::<()>());
//!         tokio::task::yield_now().await;
//!         let text = snapshot().to_string();
//!         assert!(text.contains("`server`: open, 1 child"));
//!         assert!(text.contains("`accept`, spawned at "));
//!         group.cancel_children();
//!         Ok(())
//!     })
//!     .await
//! # }
//! ```

mod counters;
mod render;
#[cfg(feature = "tracing")]
mod traced;
mod watchdog;

use std::panic::Location;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Id;
use tokio::time::Instant;

pub use crate::detail::{WaitsFor, collect_details};
pub use counters::{Counters, Counts};
#[cfg(feature = "tracing")]
pub use traced::Traced;
pub use watchdog::{Stall, Watchdog, Watching};

use crate::observe::{CancelReason, TaskId};
use crate::sorted_map::SortedMap;
use crate::state::registry::Mark;
use crate::state::view::{Detail, Seen, View};
use crate::state::{Core, listing};

/// How far a group is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum GroupState {
    /// It takes new children.
    Open,
    /// It takes no more: it was cancelled, is over but for its background children, or was closed.
    Closing,
}

/// What was asked of a task that is alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TaskState {
    /// Nothing: it goes on.
    Running,
    /// To end, within the grace that it has.
    Cancelling,
    /// To end at its next await: it is in the middle of a poll, shielded, or blocked; or waits for scopes that it dropped.
    Forced,
}

/// The body of a scope.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BodyView {
    /// How often it was polled since it was first found waiting, if [details](collect_details) are on.
    pub polls: Option<u64>,
    /// What it waits for, if details are on and the library knows.
    pub waits_for: Option<WaitsFor>,
}

/// A child that is alive, and had to wait at least once, or has a name.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TaskView {
    /// Its id.
    pub id: TaskId,
    /// Its name, if it has one.
    pub name: Option<Arc<str>>,
    /// The place of the call that spawned it; unknown until it has first had to wait.
    pub spawned_at: Option<&'static Location<'static>>,
    /// What was asked of it.
    pub state: TaskState,
    /// Time since it first had to wait, where that is known: with [details](collect_details), and in groups with a grace.
    pub age: Option<Duration>,
    /// How often it was polled since it was first found waiting, if details are on.
    pub polls: Option<u64>,
    /// What it waits for, if details are on and the library knows.
    pub waits_for: Option<WaitsFor>,
}

/// A group that somebody waits for, and that is not over.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GroupView {
    /// The number of the group: the first part of the ids of its tasks.
    pub id: u64,
    /// Its path of names, outermost first, if any of them has a name.
    pub path: Option<Arc<str>>,
    /// The runtime that its children are spawned on; `None` if it was opened outside every runtime.
    pub runtime: Option<Id>,
    /// The task that it was opened in, if that is in a group; the body of one has the number 0 there.
    pub opened_in: Option<TaskId>,
    /// How far it is.
    pub state: GroupState,
    /// Why it was cancelled, if it was.
    pub reason: Option<CancelReason>,
    /// Time left until its deadline, or that of a group around it. Zero if that is past.
    pub remaining: Option<Duration>,
    /// Its body, if it has one and that is not over.
    pub body: Option<BodyView>,
    /// How many children are alive, with guards and with the scopes that it has adopted.
    pub children: u64,
    /// How many of them are in the background.
    pub background: u64,
    /// Those children that can be told apart, by their ids.
    pub tasks: Vec<TaskView>,
}

impl GroupView {
    /// Returns how many children are not among [`tasks`](Self::tasks): they have never had to wait, or are no tasks.
    #[must_use]
    pub fn unlisted(&self) -> u64 {
        self.children.saturating_sub(self.tasks.len() as u64)
    }

    /// Returns the task of this id.
    #[must_use]
    pub fn task(&self, id: TaskId) -> Option<&TaskView> {
        let place = self.tasks.binary_search_by_key(&id, |task| task.id);
        place.ok().map(|place| &self.tasks[place])
    }

    fn new(core: &Core, runtime: Option<Id>, now: Instant) -> Option<Self> {
        let view = core.view();
        if view.word.live() == 0 {
            return None;
        }
        let is_asked = core.signalled_around().is_some();
        let tasks = view.tasks.iter();
        let tasks = tasks.map(|seen| TaskView::new(core, seen, is_asked, now));
        let tasks = tasks.collect();
        let View {
            id,
            path,
            opened_in,
            word,
            reason,
            deadline,
            has_body,
            body,
            children,
            ..
        } = view;
        let (polls, waits_for) = told(body);
        Some(Self {
            id,
            path,
            runtime,
            opened_in,
            state: if word.is_open() {
                GroupState::Open
            } else {
                GroupState::Closing
            },
            reason,
            remaining: deadline
                .instant()
                .map(|at| at.saturating_duration_since(now)),
            body: has_body.then_some(BodyView { polls, waits_for }),
            children,
            background: word.background(),
            tasks,
        })
    }
}

impl TaskView {
    fn new(core: &Core, seen: &Seen, is_asked_around: bool, now: Instant) -> Self {
        let (polls, waits_for) = told(seen.detail);
        let since = seen.since.map(Instant::from_std);
        Self {
            id: core.task_id(seen.serial),
            name: seen.name.clone(),
            spawned_at: seen.location,
            state: match core.asked(seen, is_asked_around) {
                Mark::None => TaskState::Running,
                Mark::Signalled => TaskState::Cancelling,
                Mark::Forced => TaskState::Forced,
            },
            age: since.map(|since| now.saturating_duration_since(since)),
            polls,
            waits_for,
        }
    }
}

fn told(detail: Option<Detail>) -> (Option<u64>, Option<WaitsFor>) {
    (
        detail.map(|it| it.polls),
        detail.and_then(|it| it.waits_for),
    )
}

/// The groups and tasks of the process at one moment: see [`snapshot`].
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    groups: Vec<GroupView>,
}

/// Looks at all groups of the process that somebody waits for, from any thread.
///
/// A group is seen from the first time on that its scope had to wait; a child, from the first time on that it had to wait itself, or
/// at once if it has a name. Others are [counted](GroupView::unlisted). One group is looked at after another, while all of them go
/// on: what is true of one need not have been true of another at the same time.
///
/// It costs nothing until it is called, but for the entry of a group in a list. Ages, polls, and what each task waits for are there once
/// [`collect_details`] is on.
///
/// # Examples
///
/// ```
/// let group = ringfence::OwnedGroup::<std::io::Error>::with_name("cache");
/// let seen = ringfence::snapshot().within("cache");
/// assert!(seen.to_string().contains("`cache`: open, 0 children"));
/// # drop(group);
/// ```
#[must_use]
pub fn snapshot() -> Snapshot {
    let now = Instant::now();
    let mut groups: Vec<_> = listing::all()
        .iter()
        .filter_map(|(core, runtime)| GroupView::new(core, *runtime, now))
        .collect();
    groups.sort_unstable_by_key(|group| group.id);
    Snapshot { groups }
}

impl Snapshot {
    /// Returns the groups, oldest first.
    #[must_use]
    pub fn groups(&self) -> &[GroupView] {
        &self.groups
    }

    /// Keeps the groups whose path of names is `path`, or begins with it: `server` keeps `server/conn`, too.
    #[must_use]
    pub fn within(mut self, path: &str) -> Self {
        self.groups.retain(|group| {
            let rest = group.path.as_deref().and_then(|own| own.strip_prefix(path));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        });
        self
    }

    /// Keeps the groups whose children are spawned on this runtime.
    #[must_use]
    pub fn on(mut self, runtime: Id) -> Self {
        self.groups.retain(|group| group.runtime == Some(runtime));
        self
    }

    /// Asks whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    /// Returns the tasks of all groups.
    pub fn tasks(&self) -> impl Iterator<Item = &TaskView> {
        self.groups.iter().flat_map(|group| &group.tasks)
    }

    /// Finds tasks that wait for one another in a circle, through their handles: each circle once, from its lowest id on.
    ///
    /// Only what is known can be found: [details](collect_details) have to be on.
    #[must_use]
    pub fn cycles(&self) -> Vec<Vec<TaskId>> {
        let mut waits = SortedMap::new();
        for task in self.tasks() {
            if let Some(WaitsFor::Child(other)) = task.waits_for {
                waits.insert(task.id, other);
            }
        }
        let mut known = SortedMap::new();
        let mut cycles = Vec::new();
        for (start, _) in waits.iter() {
            let mut path = Vec::new();
            let mut next = Some(start);
            while let Some(task) = next.filter(|task| known.insert(*task, ()).is_none()) {
                path.push(task);
                next = waits.get(task).copied();
            }
            if let Some(begin) = next.and_then(|task| path.iter().position(|it| *it == task)) {
                let mut cycle = path.split_off(begin);
                let lowest = cycle.iter().enumerate().min_by_key(|(_, task)| **task);
                let lowest = lowest.map_or(0, |(place, _)| place);
                cycle.rotate_left(lowest);
                cycles.push(cycle);
            }
        }
        cycles
    }

    /// Returns the group of this number.
    #[must_use]
    pub fn group(&self, id: u64) -> Option<&GroupView> {
        let place = self.groups.binary_search_by_key(&id, |group| group.id);
        place.ok().map(|place| &self.groups[place])
    }

    /// The group and, if it is listed, the task that a group was opened in.
    fn around(&self, group: &GroupView) -> Option<(&GroupView, Option<&TaskView>)> {
        let opener = group.opened_in?;
        let outer = self.group(opener.group)?;
        Some((outer, outer.task(opener)))
    }
}

//! Counts of what happens in groups.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use crate::observe::{Displaced, Ended, Observer, Straggler, TaskInfo};
use crate::sync::PlainMutex;

/// How many children of a group did what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counts {
    /// Spawned so far.
    pub spawned: u64,
    /// Ended with a value.
    pub completed: u64,
    /// Ended with an error.
    pub failed: u64,
    /// Panicked, themselves or in a destructor.
    pub panicked: u64,
    /// Cancelled, or gone with their runtime.
    pub cancelled: u64,
    /// Forced, since they did not end within the grace; counted among the cancelled as well, bodies excepted.
    pub forced: u64,
    /// Blocking work that was given up.
    pub abandoned: u64,
    /// Errors and panics that had nobody to be returned to.
    pub displaced: u64,
}

impl Counts {
    /// Returns how many are alive.
    #[must_use]
    pub fn live(&self) -> u64 {
        self.spawned - self.ended()
    }

    /// Returns how many have ended.
    #[must_use]
    pub fn ended(&self) -> u64 {
        self.completed + self.failed + self.panicked + self.cancelled
    }

    fn add(&mut self, other: &Self) {
        self.spawned += other.spawned;
        self.completed += other.completed;
        self.failed += other.failed;
        self.panicked += other.panicked;
        self.cancelled += other.cancelled;
        self.forced += other.forced;
        self.abandoned += other.abandoned;
        self.displaced += other.displaced;
    }
}

type Groups = BTreeMap<Option<Arc<str>>, Counts>;

/// An [`Observer`] that counts, by the path of names of the group: groups of the same path are counted together, as the
/// connections of a server want to be.
///
/// *Comparison.* The counts of `tokio::runtime::RuntimeMetrics` are of the whole runtime, and know of no errors.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), ringfence::GroupError<std::io::Error>> {
/// use std::sync::Arc;
/// use ringfence::{Scope, inspect::Counters};
///
/// let counters = Arc::new(Counters::new());
/// let run = Scope::new().name("server").observer(counters.clone());
/// run.run(async |group| -> std::io::Result<()> {
///     group.spawn(async {});
///     group.spawn_background(std::future::pending::<()>());
///     Ok(())
/// })
/// .await?;
/// let counts = counters.of("server");
/// assert_eq!((counts.spawned, counts.completed, counts.cancelled, counts.live()), (2, 1, 1, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Default)]
pub struct Counters(PlainMutex<Groups>);

impl Counters {
    /// All zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn with<R>(&self, look: impl FnOnce(&mut Groups) -> R) -> R {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn count(&self, group: Option<&Arc<str>>, change: impl FnOnce(&mut Counts)) {
        self.with(|groups| change(groups.entry(group.cloned()).or_default()));
    }

    /// Returns the counts of the groups of this path.
    #[must_use]
    pub fn of(&self, path: &str) -> Counts {
        let path = Some(Arc::from(path));
        self.with(|groups| groups.get(&path).copied().unwrap_or_default())
    }

    /// Returns the counts of each path; those of groups without a name are under `None`.
    #[must_use]
    pub fn groups(&self) -> Vec<(Option<Arc<str>>, Counts)> {
        self.with(|groups| {
            let pairs = groups.iter().map(|(path, counts)| (path.clone(), *counts));
            pairs.collect()
        })
    }

    /// Returns the counts of all groups together.
    #[must_use]
    pub fn total(&self) -> Counts {
        self.with(|groups| {
            let mut total = Counts::default();
            groups.values().for_each(|counts| total.add(counts));
            total
        })
    }
}

impl Observer for Counters {
    fn spawned(&self, task: &TaskInfo) {
        self.count(task.group.as_ref(), |counts| counts.spawned += 1);
    }

    fn ended(&self, task: &TaskInfo, how: &Ended) {
        self.count(task.group.as_ref(), |counts| match how {
            Ended::Completed => counts.completed += 1,
            Ended::Failed => counts.failed += 1,
            Ended::Panicked => counts.panicked += 1,
            Ended::Cancelled(_) | Ended::RuntimeGone => counts.cancelled += 1,
        });
    }

    fn forced(&self, straggler: &Straggler) {
        self.count(straggler.group.as_ref(), |counts| counts.forced += 1);
    }

    fn abandoned(&self, straggler: &Straggler) {
        self.count(straggler.group.as_ref(), |counts| counts.abandoned += 1);
    }

    fn displaced(&self, what: &Displaced) {
        let group = what.task.as_ref().and_then(|task| task.group.as_ref());
        self.count(group, |counts| counts.displaced += 1);
    }
}

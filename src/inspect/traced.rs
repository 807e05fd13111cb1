//! Lifecycle edges as `tracing` events.

use crate::observe::{Ended, Observer, TaskInfo};

/// An [`Observer`] that tells `tracing` of each child: one event when it is spawned, one when it has ended (feature `tracing`).
///
/// Target is `ringfence`; fields are `task` (the id), `name`, `group` (the path) and `spawned_at`, and `outcome` at the end. A child that is
/// spawned, completes or is cancelled is told of at `DEBUG`, one that fails at `WARN`, one that panics at `ERROR`. What is displaced, forced or
/// given up is an event without this.
///
/// ```
/// use std::sync::Arc;
/// use ringfence::{Scope, inspect::Traced};
///
/// let traced = Scope::new().name("server").observer(Arc::new(Traced)); // or `ringfence::observe`, for the whole process
/// # drop(traced);
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Traced;

impl Observer for Traced {
    fn spawned(&self, task: &TaskInfo) {
        let (group, name, spawned_at) = (task.group(), task.name(), task.location());
        tracing::debug!(target: "ringfence", task = %task.id(), name, group, %spawned_at, "spawned");
    }

    fn ended(&self, task: &TaskInfo, how: &Ended) {
        let (group, name, spawned_at) = (task.group(), task.name(), task.location());
        let outcome = how.to_string();
        macro_rules! tell {
            ($level:ident) => {
                tracing::$level!(target: "ringfence", task = %task.id(), name, group, %spawned_at, outcome, "ended")
            };
        }
        match how {
            Ended::Completed | Ended::Cancelled(_) => tell!(debug),
            Ended::Failed | Ended::RuntimeGone => tell!(warn),
            Ended::Panicked => tell!(error),
        }
    }
}

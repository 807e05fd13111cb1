//! Handles: to a child, whatever run it is in, and to the supervisor.

use std::fmt;
use std::future::Future;

use crate::supervise::child::{Child, ChildEnd};
use crate::supervise::keeper::{Desk, Record};
use crate::supervise::restart::{Counts, Id, State};
use crate::sync::PlainArc;

/// Where a child is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ChildState {
    /// It waits to be started, or started again.
    Waiting,
    /// It runs, and has not said yet that it is ready.
    Starting,
    /// It runs.
    Running,
    /// It was asked to end, and still runs.
    Stopping,
    /// It has ended for good.
    Ended,
}

/// A child of a supervisor, whatever run it is in. Dropping it does nothing.
#[derive(Clone)]
pub struct ChildHandle {
    pub(super) desk: PlainArc<Desk>,
    /// `None` if it was never taken in.
    pub(super) id: Option<Id>,
    pub(super) record: PlainArc<Record>,
}

impl ChildHandle {
    /// Returns the child's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.record.name
    }

    /// Returns where the child is.
    #[must_use]
    pub fn state(&self) -> ChildState {
        let state = self.id.and_then(|id| self.desk.state(id));
        match state {
            None => ChildState::Ended,
            Some(State::Down) => ChildState::Waiting,
            Some(State::Starting { .. }) => ChildState::Starting,
            Some(State::Up { .. }) => ChildState::Running,
            Some(State::Stopping { .. }) => ChildState::Stopping,
        }
    }

    /// Returns how many runs there were, the present one included.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.record.life.with(|life| life.runs)
    }

    /// Returns how the last run ended; `None` before any has.
    #[must_use]
    pub fn last_end(&self) -> Option<ChildEnd> {
        self.record.life.with(|life| life.last.clone())
    }

    /// Ends the child for good, and does not wait. No run of it begins after this.
    ///
    /// It is told to end, and forced when its grace is over.
    pub fn stop(&self) {
        if let Some(id) = self.id {
            self.desk.change(|plan, _| plan.stop(id));
        }
    }

    /// Ends the child for good, and waits until it is gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the child is told as soon as this is called.
    pub fn stop_and_wait(&self) -> impl Future<Output = ChildEnd> + Send + use<> {
        self.stop();
        self.ended()
    }

    /// Stops the child and starts it again, without a delay; with it those that the strategy says. This is not counted
    /// as a failure. A child that waits for its next run is started now.
    ///
    /// Returns whether there is something to restart: not if the child has ended for good, or is about to.
    #[expect(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn restart(&self) -> bool {
        let restart = |id| self.desk.change(|plan, now| plan.restart(id, now));
        self.id.is_some_and(restart)
    }

    /// Waits until the child runs and is ready; `false` if it has ended for good.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits.
    pub fn ready(&self) -> impl Future<Output = bool> + Send + use<> {
        let record = self.record.clone();
        async move {
            let life = &record.life;
            life.until(|life| (life.is_up || life.is_over).then_some(life.is_up))
                .await
        }
    }

    /// Waits until the child has ended for good, and returns how its last run ended.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only waits.
    pub fn ended(&self) -> impl Future<Output = ChildEnd> + Send + use<> {
        let record = self.record.clone();
        async move {
            let life = &record.life;
            let last = life.until(|life| life.is_over.then(|| life.last.clone()));
            last.await.unwrap_or(ChildEnd::Lost)
        }
    }
}

impl fmt::Debug for ChildHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChildHandle")
            .field("name", &self.name())
            .field("state", &self.state())
            .field("runs", &self.runs())
            .finish_non_exhaustive()
    }
}

/// A supervisor, from anywhere: to add children while it runs, and to end it. Dropping it does nothing.
#[derive(Clone)]
pub struct SupervisorHandle {
    pub(super) desk: PlainArc<Desk>,
}

impl SupervisorHandle {
    /// Adds a child, which is started at once. If the supervisor is ending, it is never started, and has ended.
    #[expect(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn add(&self, child: Child) -> ChildHandle {
        Desk::add(&self.desk, child)
    }

    /// Has the supervisor stop all children, from last to first, each within its grace.
    pub fn shut_down(&self) {
        self.desk.change(super::restart::Plan::shut_down);
    }

    /// Has the supervisor restart nobody any more, take nobody in, and end when those that run have ended by themselves.
    pub fn finish(&self) {
        self.desk.change(|plan, _| plan.finish());
    }

    /// Returns how many restarts there were, those that strategy brought about not counted.
    #[must_use]
    pub fn restarts(&self) -> u64 {
        self.desk.restarts()
    }

    /// Returns how many children are where.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.desk.counts()
    }
}

impl fmt::Debug for SupervisorHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorHandle")
            .field("counts", &self.counts())
            .finish()
    }
}

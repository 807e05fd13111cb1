//! How a supervisor ended.

use std::error::Error;
use std::fmt;
use std::time::Duration;

use crate::observe::{CancelReason, Straggler};
use crate::supervise::child::ChildEnd;
use crate::sync::PlainArc;

/// What a supervisor did until it ended: see [`Supervisor::run`](crate::Supervisor::run).
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct SupervisorReport {
    /// How many restarts there were, those that strategy brought about not counted.
    pub restarts: u64,
    /// The runs that did not end within their grace.
    pub forced: Vec<Straggler>,
}

/// Why a supervisor gave up.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Escalation {
    /// A child was to be restarted once more than the [intensity](crate::Supervisor::intensity) allows.
    Intensity {
        /// How many restarts are allowed.
        restarts: u32,
        /// Within how long.
        within: Duration,
    },
    /// A [critical](crate::Child::critical) child ended.
    Critical,
    /// A child did not become ready when all were first started.
    Start,
    /// The runtime of the children was shut down.
    RuntimeGone,
    /// The scope of the supervisor was cancelled from inside.
    Cancelled(CancelReason),
}

/// The failure of a supervisor: which child was the last straw, and how its last run ended. All children are gone.
#[derive(Debug)]
pub struct SupervisorError {
    // Boxed, so that a `Result` of it is small.
    pub(super) inner: Box<Inner>,
}

#[derive(Debug)]
pub(super) struct Inner {
    pub(super) child: Option<PlainArc<str>>,
    pub(super) why: Escalation,
    pub(super) end: ChildEnd,
    pub(super) report: SupervisorReport,
}

impl SupervisorError {
    /// Returns the name of the child that it gave up on.
    #[must_use]
    pub fn child(&self) -> Option<&str> {
        self.inner.child.as_deref()
    }

    /// Returns why it gave up.
    #[must_use]
    pub fn why(&self) -> &Escalation {
        &self.inner.why
    }

    /// Returns how the last run of that child ended.
    #[must_use]
    pub fn end(&self) -> &ChildEnd {
        &self.inner.end
    }

    /// Returns what the supervisor did until then.
    #[must_use]
    pub fn report(&self) -> &SupervisorReport {
        &self.inner.report
    }
}

impl fmt::Display for SupervisorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            child, why, end, ..
        } = &*self.inner;
        let child = child.as_deref().unwrap_or("?");
        match why {
            Escalation::Intensity { restarts, within } => write!(
                f,
                "child `{child}` needed more than {restarts} restarts within {within:?}: {end}"
            ),
            Escalation::Critical => write!(f, "critical child `{child}` ended: {end}"),
            Escalation::Start => write!(f, "child `{child}` did not start: {end}"),
            Escalation::RuntimeGone => f.write_str("the runtime of the children was shut down"),
            Escalation::Cancelled(reason) => write!(f, "the supervisor was cancelled {reason}"),
        }
    }
}

impl Error for SupervisorError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let error = self.inner.end.error()?;
        Some(&**error)
    }
}

//! What a supervisor is told about a child, and how a run of it ended.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::Location;
use std::task::{Context, Poll};
use std::time::Duration;

use crate::group::error::{BoxError, FailureKind, capped};
use crate::group::handle::Outcome;
use crate::group::output::TaskOutput;
use crate::group::report::Report;
use crate::observe::{CancelReason, DisplacedWhat, Observer, TaskInfo, displace};
use crate::panic::{PanicPayload, catch};
use crate::retry::Retry;
use crate::supervise::keeper::Desk;
use crate::supervise::restart::{Id, Terms, Verdict};
use crate::sync::PlainArc;

/// A run, as its polls. It stays until the group drops it: what its destructor throws then does not cost it its error.
type Made = Box<dyn FnMut(&mut Context<'_>) -> Poll<Result<(), BoxError>> + Send>;
type Make = dyn Fn(Run) -> Made + Send + Sync;
type Predicate = dyn Fn(&ChildEnd) -> bool + Send + Sync;

/// The delays between restarts, unless a child has others.
const BACKOFF: Retry = Retry::exponential(Duration::from_millis(100));

/// A child of a [`Supervisor`](crate::Supervisor): its name, how it is started, and what its end means.
///
/// The closure is called for every run. What it returns is a child as in any group: it returns `()`, `Result<_, BoxError>`, or
/// never. It is told to end by its [`token`](crate::token()), and is dropped where it is parked when its grace is over. Once everybody
/// is to end it is not run again, whatever the table says: [see there](crate::Supervisor).
///
/// | | returns | fails or panics |
/// |---|---|---|
/// | [`permanent`](Self::permanent) | restarted | restarted |
/// | [`transient`](Self::transient) | gone | restarted |
/// | [`temporary`](Self::temporary) | gone | gone |
/// | [`critical`](Self::critical) | the supervisor gives up | the supervisor gives up |
///
/// # Default
///
/// A grace of 5 s, delays from 100 ms to 20 s with full jitter, healthy after 10 s.
#[derive(Clone)]
#[must_use = "a child does nothing unless a supervisor has it"]
pub struct Child {
    pub(super) name: PlainArc<str>,
    pub(super) location: &'static Location<'static>,
    make: PlainArc<Make>,
    restarts_when: PlainArc<Predicate>,
    is_critical: bool,
    is_temporary: bool,
    grace: Duration,
    ready_within: Option<Duration>,
    healthy_after: Duration,
    backoff: Retry,
}

impl Child {
    /// A child that is restarted whenever it ends.
    #[track_caller]
    pub fn permanent<F, Fut>(name: impl Into<PlainArc<str>>, start: F) -> Self
    where
        F: Fn(Run) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: TaskOutput<BoxError, Value: Send + 'static>> + Send + 'static,
    {
        Self::new(name.into(), start, |_| true)
    }

    /// A child that is restarted when it fails or panics, and is gone when it returns.
    #[track_caller]
    pub fn transient<F, Fut>(name: impl Into<PlainArc<str>>, start: F) -> Self
    where
        F: Fn(Run) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: TaskOutput<BoxError, Value: Send + 'static>> + Send + 'static,
    {
        Self::new(name.into(), start, |end| !end.is_completed())
    }

    /// A child that is never restarted: however it ends, it is gone, and nobody else is concerned.
    #[track_caller]
    pub fn temporary<F, Fut>(name: impl Into<PlainArc<str>>, start: F) -> Self
    where
        F: Fn(Run) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: TaskOutput<BoxError, Value: Send + 'static>> + Send + 'static,
    {
        let mut child = Self::new(name.into(), start, |_| false);
        child.is_temporary = true;
        child
    }

    /// A child that must not end: when it does, however that is, the supervisor stops all others and fails.
    #[track_caller]
    pub fn critical<F, Fut>(name: impl Into<PlainArc<str>>, start: F) -> Self
    where
        F: Fn(Run) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: TaskOutput<BoxError, Value: Send + 'static>> + Send + 'static,
    {
        let mut child = Self::new(name.into(), start, |_| false);
        child.is_critical = true;
        child
    }

    #[track_caller]
    fn new<F, Fut>(
        name: PlainArc<str>,
        start: F,
        restarts_when: impl Fn(&ChildEnd) -> bool + Send + Sync + 'static,
    ) -> Self
    where
        F: Fn(Run) -> Fut + Send + Sync + 'static,
        Fut: Future<Output: TaskOutput<BoxError, Value: Send + 'static>> + Send + 'static,
    {
        Self {
            name,
            location: Location::caller(),
            make: PlainArc::new(move |run| {
                let mut running = Box::pin(start(run));
                Box::new(move |cx| {
                    let polled = running.as_mut().poll(cx);
                    polled.map(|output| output.into_result().map(drop))
                })
            }),
            restarts_when: PlainArc::new(restarts_when),
            is_critical: false,
            is_temporary: false,
            grace: Duration::from_secs(5),
            ready_within: None,
            healthy_after: Duration::from_secs(10),
            backoff: BACKOFF,
        }
    }

    /// Restarts it whenever `restarts` holds for how it ended, in place of the rule that it was made with.
    ///
    /// It says nothing about a critical child, which is never restarted. A panic in it is one of the child.
    pub fn restart_when(
        mut self,
        restarts: impl Fn(&ChildEnd) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.restarts_when = PlainArc::new(restarts);
        self
    }

    /// How long it has to end when it is told to; 5 s unless given. With zero it is dropped where it is parked.
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = capped(grace);
        self
    }

    /// Has it say when it is ready, by [`Run::ready`], within this time.
    ///
    /// Those after it are started only then. If it takes longer or ends before, its start has failed: that is a
    /// failure like any other, but when everybody is started for the first time it ends the supervisor.
    pub fn ready_within(mut self, limit: Duration) -> Self {
        self.ready_within = Some(capped(limit));
        self
    }

    /// Delays restarts so. Of the policy only its delays count: how often is up to
    /// [`Supervisor::intensity`](crate::Supervisor::intensity).
    ///
    /// # Panics
    ///
    /// If every delay is zero and the policy has [no pauses](Retry::without_pauses): that is no way to say *at once*;
    /// `Retry::constant(Duration::ZERO)` is.
    #[track_caller]
    pub fn backoff(mut self, delays: Retry) -> Self {
        assert!(
            delays.has_pauses(),
            "ringfence: the delays between restarts come from a policy with pauses"
        );
        self.backoff = delays;
        self
    }

    /// Begins with the first delay again after a run that lasted so long; 10 s unless given.
    pub fn healthy_after(mut self, healthy: Duration) -> Self {
        self.healthy_after = healthy;
        self
    }

    pub(super) fn terms(&self) -> Terms {
        let (curve, seed) = self.backoff.endless();
        Terms {
            is_temporary: self.is_temporary,
            grace: self.grace,
            ready_within: self.ready_within,
            healthy_after: self.healthy_after,
            curve,
            seed,
        }
    }

    /// Calls the closure in the task of the child, so that what it throws is the child's.
    pub(super) fn start(&self, run: Run) -> impl Future<Output = Result<(), BoxError>> + use<> {
        let make = self.make.clone();
        let (mut run, mut made) = (Some(run), None);
        poll_fn(move |cx| {
            if let Some(run) = run.take() {
                made = Some(make(run));
            }
            made.as_mut().map_or(Poll::Pending, |poll| poll(cx))
        })
    }

    /// Says what an end means. Runs code of the user's.
    pub(super) fn judge(&self, end: &mut ChildEnd) -> Verdict {
        if self.is_critical {
            return Verdict::Fault;
        }
        match catch(|| (self.restarts_when)(end)) {
            Ok(true) => Verdict::Again,
            Ok(false) => Verdict::Done,
            Err(panic) => {
                *end = ChildEnd::Panicked(PlainArc::new(panic));
                Verdict::Again
            }
        }
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("name", &self.name)
            .field("grace", &self.grace)
            .field("ready_within", &self.ready_within)
            .field("healthy_after", &self.healthy_after)
            .field("backoff", &self.backoff)
            .finish_non_exhaustive()
    }
}

/// One run of a child, as the child sees it.
pub struct Run {
    pub(super) desk: PlainArc<Desk>,
    pub(super) id: Id,
    pub(super) number: u64,
}

impl Run {
    /// Returns which run this is; the first one is 1.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Says that the child is ready: those after it may start. Means something for a child that was made with
    /// [`ready_within`](Child::ready_within).
    pub fn ready(self) {
        self.desk.ready(self.id, self.number);
    }
}

impl fmt::Debug for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

/// How a run of a child ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum ChildEnd {
    /// It returned.
    Completed,
    /// It returned this error.
    Failed(PlainArc<BoxError>),
    /// It panicked, or one of its destructors did.
    Panicked(PlainArc<PanicPayload>),
    /// It was not ready in time.
    NotReady(Duration),
    /// It was told to end, and was dropped where it was parked: at once, or `forced` when its grace was over.
    Cancelled {
        /// Whether it had been given time to end by itself.
        forced: bool,
    },
    /// Its runtime was shut down under it.
    RuntimeGone,
    /// It never ran, or nobody is left who could know: the supervisor was dropped.
    Lost,
}

impl ChildEnd {
    /// Asks whether it returned without an error.
    #[must_use]
    pub fn is_completed(&self) -> bool {
        matches!(self, Self::Completed)
    }

    /// Returns the error, if there was one.
    #[must_use]
    pub fn error(&self) -> Option<&BoxError> {
        match self {
            Self::Failed(error) => Some(error),
            _ => None,
        }
    }

    /// Returns the panic, if there was one.
    #[must_use]
    pub fn panic(&self) -> Option<&PanicPayload> {
        match self {
            Self::Panicked(panic) => Some(panic),
            _ => None,
        }
    }

    /// Takes together what a run left behind, and whose failure it was; what there is no place for is reported.
    pub(super) fn of(
        outcome: Outcome<()>,
        report: Report<BoxError>,
        observer: Option<&PlainArc<dyn Observer>>,
    ) -> (Self, Option<TaskInfo>) {
        let forced = !report.forced().is_empty();
        let mut failures = report.into_result().err().into_iter().flatten();
        let first = failures.next();
        for more in failures {
            let task = more.task().cloned();
            let what = match more.into_kind() {
                FailureKind::Error(error) => DisplacedWhat::Error(Box::new(error)),
                FailureKind::Panic(panic) => DisplacedWhat::Panic(panic),
            };
            displace(observer, task, what);
        }
        if let Some(first) = first {
            let task = first.task().cloned();
            let end = match first.into_kind() {
                FailureKind::Error(error) => Self::Failed(PlainArc::new(error)),
                FailureKind::Panic(panic) => Self::Panicked(PlainArc::new(panic)),
            };
            return (end, task);
        }
        let end = match outcome {
            Outcome::Completed(()) => Self::Completed,
            Outcome::Cancelled(CancelReason::RuntimeGone) | Outcome::RuntimeGone => {
                Self::RuntimeGone
            }
            _ => Self::Cancelled { forced },
        };
        (end, None)
    }
}

impl fmt::Display for ChildEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Completed => f.write_str("it returned"),
            Self::Failed(error) => write!(f, "{error}"),
            Self::Panicked(panic) => write!(f, "it panicked: {panic}"),
            Self::NotReady(limit) => write!(f, "it was not ready within {limit:?}"),
            Self::Cancelled { forced: false } => f.write_str("it was cancelled"),
            Self::Cancelled { forced: true } => f.write_str("it had to be forced"),
            Self::RuntimeGone => f.write_str("its runtime was shut down"),
            Self::Lost => f.write_str("its supervisor was dropped"),
        }
    }
}

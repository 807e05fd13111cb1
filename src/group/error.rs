//! Why a scope came back without a value.

use std::error::Error;
use std::fmt;
use std::ops::Deref;
use std::time::Duration;

use crate::observe::{CancelReason, Straggler, TaskInfo};
use crate::panic::PanicPayload;
use crate::state::{RawFailure, RawKind, Remains};
use crate::sync::PlainArc;

/// Any error: what a group's children fail with unless it says otherwise.
///
/// Everything that `?` takes into a `Box<dyn Error + Send + Sync>` it takes into this too: errors, strings, boxes. Printed with
/// `{:#}`, it is followed by its sources, and so it is in a [`GroupError`].
///
/// It is a type of its own because a scope whose error type *names a lifetime*, as `Box<dyn Error + Send + Sync + 'static>`
/// and `&'static str` do, cannot be part of a spawned task: the compiler forgets the lifetime there, and then finds that
/// "implementation of `AsyncFnOnce` is not general enough". Where nothing is spawned around the scope, all of them work.
///
/// ```
/// use ringfence::BoxError;
///
/// fn port(text: &str) -> Result<u16, BoxError> {
///     if text.is_empty() {
///         return Err("no port".into());
///     }
///     Ok(text.parse()?)
/// }
/// assert!(port("http").unwrap_err().is::<std::num::ParseIntError>());
/// ```
pub struct BoxError(Box<dyn Error + Send + Sync>);

impl BoxError {
    /// Takes the box out.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn Error + Send + Sync> {
        self.0
    }
}

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for BoxError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl Deref for BoxError {
    type Target = dyn Error + Send + Sync;

    fn deref(&self) -> &Self::Target {
        &*self.0
    }
}

impl fmt::Debug for BoxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for BoxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(&self.0, f);
        }
        write!(f, "{}", self.0)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

/// What made a scope fail.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cause {
    /// A child or the body failed; the entries say how.
    Failed,
    /// It was cancelled, for this reason.
    Cancelled(CancelReason),
    /// Its deadline passed.
    DeadlineExceeded,
}

/// One failure in a [`GroupError`].
pub struct Failure<E> {
    task: Option<TaskInfo>,
    kind: FailureKind<E>,
}

/// What a [`Failure`] consists of.
#[derive(Debug)]
#[non_exhaustive]
pub enum FailureKind<E> {
    /// An error was returned.
    Error(E),
    /// There was a panic: only where the scope was told to keep
    /// [panics as errors](crate::Scope::panics_as_errors).
    Panic(PanicPayload),
}

impl<E> Failure<E> {
    pub(crate) fn new(task: Option<TaskInfo>, kind: FailureKind<E>) -> Self {
        Self { task, kind }
    }

    /// Returns the task that failed; `None` if it was the body.
    #[must_use]
    pub fn task(&self) -> Option<&TaskInfo> {
        self.task.as_ref()
    }

    /// Returns what happened.
    #[must_use]
    pub fn kind(&self) -> &FailureKind<E> {
        &self.kind
    }

    /// Takes what happened out.
    #[must_use]
    pub fn into_kind(self) -> FailureKind<E> {
        self.kind
    }

    /// Returns the error, unless it was a panic.
    #[must_use]
    pub fn error(&self) -> Option<&E> {
        match &self.kind {
            FailureKind::Error(error) => Some(error),
            FailureKind::Panic(_) => None,
        }
    }

    /// Returns the panic, unless it was an error.
    #[must_use]
    pub fn panic(&self) -> Option<&PanicPayload> {
        match &self.kind {
            FailureKind::Error(_) => None,
            FailureKind::Panic(panic) => Some(panic),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.task {
            Some(task) => write!(f, "{task}")?,
            None => f.write_str("the body")?,
        }
        match &self.kind {
            // With the chain, where `E` has one to show: `source()` of a `GroupError` cannot.
            FailureKind::Error(error) => write!(f, ": {error:#}"),
            FailureKind::Panic(panic) => write!(f, " panicked: {panic}"),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for Failure<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Failure")
            .field("task", &self.task)
            .field("kind", &self.kind)
            .finish()
    }
}

/// Why a scope came back without a value: its cause, and every failure in the order in which they happened.
///
/// It has the same shape whether one child failed or many. It is an [`Error`](std::error::Error), `Send` and `Sync`, for
/// every `E: Debug + Display + Send + Sync`, so `?` takes it into `anyhow::Error` and `Box<dyn Error + Send + Sync>`. Its
/// `source()` is `None`, because not every such `E` is an error; [`first`](Self::first) and
/// [`into_first`](Self::into_first) give the error itself, with its own chain. Printed, each failure is as its `E` prints with `{:#}`:
/// [`BoxError`] and `anyhow::Error` show their chains there.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// use ringfence::{Cause, scope};
///
/// let error = scope(async |group| {
///     group.spawn(async { Err::<(), _>("disk full".to_string()) });
///     std::future::pending::<Result<(), String>>().await // dropped as soon as the child fails
/// })
/// .await
/// .unwrap_err();
///
/// assert_eq!(error.cause(), &Cause::Failed);
/// assert_eq!(error.first().map(String::as_str), Some("disk full"));
/// assert_eq!(error.len(), 1);
/// # }
/// ```
pub struct GroupError<E> {
    // Boxed, so that a `Result<T, GroupError<E>>` is as small as T allows.
    inner: Box<Inner<E>>,
}

struct Inner<E> {
    path: Option<PlainArc<str>>,
    cause: Cause,
    failures: Vec<Failure<E>>,
    stragglers: Vec<Straggler>,
    abandoned: Vec<Straggler>,
}

impl<E> GroupError<E> {
    /// Makes one without a group of tasks behind it.
    pub(crate) fn of(cause: Cause, failures: Vec<Failure<E>>) -> Self {
        Self {
            inner: Box::new(Inner {
                path: None,
                cause,
                failures,
                stragglers: Vec::new(),
                abandoned: Vec::new(),
            }),
        }
    }

    /// Returns what made the scope fail: what came first.
    #[must_use]
    pub fn cause(&self) -> &Cause {
        &self.inner.cause
    }

    /// Asks whether its cause is a cancel. Failures on the way out may be listed beside it.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        matches!(self.inner.cause, Cause::Cancelled(_))
    }

    /// Asks whether its deadline passed.
    #[doc(alias = "is_timeout")]
    #[must_use]
    pub fn is_deadline_exceeded(&self) -> bool {
        self.inner.cause == Cause::DeadlineExceeded
    }

    /// Returns how many failures there are: none if it was only cancelled.
    #[must_use]
    pub fn len(&self) -> usize {
        self.inner.failures.len()
    }

    /// Asks whether there is no failure, only a cause.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.inner.failures.is_empty()
    }

    /// Returns the first error.
    #[must_use]
    pub fn first(&self) -> Option<&E> {
        self.iter().find_map(Failure::error)
    }

    /// Takes the first error out.
    ///
    /// # Errors
    ///
    /// Itself, if it holds no error: it was cancelled, or the failures are panics.
    pub fn into_first(mut self) -> Result<E, Self> {
        let failures = &mut self.inner.failures;
        match failures
            .iter()
            .position(|failure| failure.error().is_some())
        {
            Some(place) => match failures.remove(place).kind {
                FailureKind::Error(error) => Ok(error),
                FailureKind::Panic(_) => unreachable!("an error was found there"),
            },
            None => Err(self),
        }
    }

    /// Iterates over the failures, first one first.
    pub fn iter(&self) -> std::slice::Iter<'_, Failure<E>> {
        self.inner.failures.iter()
    }

    /// Splits off the failures that `matches` holds for, as `except*` does.
    ///
    /// Each part has the same cause; a part without failures is `None`. An error that has none, because the scope was only
    /// cancelled, is the second part. Who was [forced](Self::forced) or [abandoned](Self::abandoned) is told by the second part, or by
    /// the first where that is all.
    pub fn split(
        self,
        mut matches: impl FnMut(&Failure<E>) -> bool,
    ) -> (Option<Self>, Option<Self>) {
        if self.is_empty() {
            return (None, Some(self));
        }
        let Inner {
            path,
            cause,
            failures,
            stragglers,
            abandoned,
        } = *self.inner;
        let (yes, no): (Vec<_>, Vec<_>) =
            failures.into_iter().partition(|failure| matches(failure));
        let part = |failures: Vec<Failure<E>>, stragglers, abandoned| {
            (!failures.is_empty()).then(|| Self {
                inner: Box::new(Inner {
                    path: path.clone(),
                    cause: cause.clone(),
                    failures,
                    stragglers,
                    abandoned,
                }),
            })
        };
        if no.is_empty() {
            return (part(yes, stragglers, abandoned), None);
        }
        let yes = part(yes, Vec::new(), Vec::new());
        (yes, part(no, stragglers, abandoned))
    }

    /// Returns who did not end within the grace and had to be forced: children, also those of scopes inside that were
    /// forced with them, and the body.
    #[must_use]
    pub fn forced(&self) -> &[Straggler] {
        &self.inner.stragglers
    }

    /// Returns the blocking work that was given up, and goes on.
    #[must_use]
    pub fn abandoned(&self) -> &[Straggler] {
        &self.inner.abandoned
    }

    /// Returns the path of names of the scope.
    #[must_use]
    pub fn group(&self) -> Option<&str> {
        self.inner.path.as_deref()
    }
}

impl<E: 'static> GroupError<E> {
    pub(crate) fn new(remains: Remains, path: Option<PlainArc<str>>) -> Self {
        let Remains {
            reason,
            failures,
            stragglers,
            abandoned,
        } = remains;
        let cause = match reason {
            Some(CancelReason::Deadline) => Cause::DeadlineExceeded,
            Some(
                CancelReason::Failed(_)
                | CancelReason::Panicked(_)
                | CancelReason::BodyFailed
                | CancelReason::BodyPanicked
                | CancelReason::Finished,
            )
            | None => Cause::Failed,
            Some(reason) => Cause::Cancelled(reason),
        };
        let failures = failures
            .into_iter()
            .filter_map(|RawFailure { task, kind }| {
                let kind = match kind {
                    // Every failure of a group of E was put in as an E: see `Member` and `Driver`.
                    RawKind::Error(error) => FailureKind::Error(*error.downcast::<E>().ok()?),
                    RawKind::Panic(panic) => FailureKind::Panic(panic),
                };
                Some(Failure { task, kind })
            });
        Self {
            inner: Box::new(Inner {
                path,
                cause,
                failures: failures.collect(),
                stragglers,
                abandoned,
            }),
        }
    }
}

impl<E> IntoIterator for GroupError<E> {
    type Item = Failure<E>;
    type IntoIter = std::vec::IntoIter<Failure<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.inner.failures.into_iter()
    }
}

impl<'a, E> IntoIterator for &'a GroupError<E> {
    type Item = &'a Failure<E>;
    type IntoIter = std::slice::Iter<'a, Failure<E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<E: fmt::Display> fmt::Display for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner {
            path,
            cause,
            failures,
            stragglers,
            abandoned,
        } = &*self.inner;
        match path {
            Some(path) => write!(f, "group `{path}`")?,
            None => f.write_str("task group")?,
        }
        match cause {
            // In a report alone.
            Cause::Failed if failures.is_empty() => f.write_str(" ended")?,
            Cause::Failed => f.write_str(" failed")?,
            Cause::Cancelled(reason) => write!(f, " was cancelled {reason}")?,
            Cause::DeadlineExceeded => f.write_str(" exceeded its deadline")?,
        }
        for (place, failure) in failures.iter().enumerate() {
            let before = if place == 0 { ": " } else { "; " };
            write!(f, "{before}{failure}")?;
        }
        if !stragglers.is_empty() {
            write!(f, " ({} had to be forced)", stragglers.len())?;
        }
        if !abandoned.is_empty() {
            write!(f, " ({} given up, still running)", abandoned.len())?;
        }
        Ok(())
    }
}

impl<E: fmt::Debug> fmt::Debug for GroupError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupError")
            .field("group", &self.inner.path)
            .field("cause", &self.inner.cause)
            .field("failures", &self.inner.failures)
            .field("forced", &self.inner.stragglers)
            .field("abandoned", &self.inner.abandoned)
            .finish()
    }
}

impl<E: fmt::Debug + fmt::Display> Error for GroupError<E> {}

/// The error of `try_spawn`: the group takes no more children. It gives the future back, never polled.
pub struct SpawnError<F> {
    future: F,
    reason: CancelReason,
}

impl<F> SpawnError<F> {
    pub(crate) fn new(future: F, reason: CancelReason) -> Self {
        Self { future, reason }
    }

    /// Returns why the group is closing; [`CancelReason::Closed`] if it is done.
    #[must_use]
    pub fn reason(&self) -> &CancelReason {
        &self.reason
    }

    /// Gives the future back.
    #[must_use]
    pub fn into_inner(self) -> F {
        self.future
    }
}

impl<F> fmt::Debug for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpawnError")
            .field("reason", &self.reason)
            .finish_non_exhaustive()
    }
}

impl<F> fmt::Display for SpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            CancelReason::Closed => f.write_str("the group is closed"),
            ref reason => write!(f, "the group was cancelled {reason}"),
        }
    }
}

impl<F> Error for SpawnError<F> {}

/// The error of `try_spawn` where there is a limit. It gives the future back, never polled.
pub enum TrySpawnError<F> {
    /// No slot is free, or others wait for one.
    Full(F),
    /// The group takes no more children.
    Closing(SpawnError<F>),
}

impl<F> TrySpawnError<F> {
    /// Asks whether there was just no slot.
    #[must_use]
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Full(_))
    }

    /// Gives the future back.
    #[must_use]
    pub fn into_inner(self) -> F {
        match self {
            Self::Full(future) => future,
            Self::Closing(refused) => refused.into_inner(),
        }
    }
}

impl<F> fmt::Debug for TrySpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("Full"),
            Self::Closing(refused) => f.debug_tuple("Closing").field(refused).finish(),
        }
    }
}

impl<F> fmt::Display for TrySpawnError<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full(_) => f.write_str("the limit is reached"),
            Self::Closing(refused) => refused.fmt(f),
        }
    }
}

impl<F> Error for TrySpawnError<F> {}

/// Why a child that was to [start](crate::TaskGroup::start) did not.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StartError<E> {
    /// It failed before it was ready. The group goes on.
    Failed(E),
    /// It ended, or dropped its [`Ready`](crate::Ready), without being ready.
    NotReady,
    /// It was cancelled before it was ready, or the group was closing.
    Cancelled(CancelReason),
}

impl<E> StartError<E> {
    /// Returns the child's own error.
    ///
    /// # Errors
    ///
    /// Itself, if it did not fail.
    pub fn into_failed(self) -> Result<E, Self> {
        match self {
            Self::Failed(error) => Ok(error),
            other => Err(other),
        }
    }
}

impl<E: fmt::Display> fmt::Display for StartError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(error) => write!(f, "failed before it was ready: {error}"),
            Self::NotReady => f.write_str("ended without being ready"),
            Self::Cancelled(reason) => write!(f, "cancelled before it was ready, {reason}"),
        }
    }
}

impl<E: fmt::Debug + fmt::Display> Error for StartError<E> {}

/// A grace that no clock can hold is as good as for ever.
pub(crate) fn capped(grace: Duration) -> Duration {
    grace.min(Duration::from_secs(60 * 60 * 24 * 365 * 30))
}

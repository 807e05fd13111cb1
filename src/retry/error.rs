//! How a run ends without what was asked for.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::time::Duration;

/// Why a run gave up. Where several reasons hold at once, the first in this order is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RetryReason {
    /// The classifier said that another attempt ends in the same way.
    Permanent,
    /// All attempts were made.
    AttemptsExhausted,
    /// The server asked for more patience than [`max_hint`](crate::Retry::max_hint) allows.
    HintTooLong,
    /// The deadline has passed, or the next attempt would begin at it or after it.
    Deadline,
    /// The [`RetryBudget`](crate::RetryBudget) would not pay for another attempt.
    BudgetExhausted,
    /// The task was asked to end.
    Cancelled,
}

impl fmt::Display for RetryReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Permanent => "another attempt would not help",
            Self::AttemptsExhausted => "no attempts left",
            Self::HintTooLong => "asked to wait longer than allowed",
            Self::Deadline => "no time for another attempt",
            Self::BudgetExhausted => "no budget for another attempt",
            Self::Cancelled => "asked to end",
        })
    }
}

/// The error of a run that gave up: why, after how many attempts, and with what.
///
/// `V` is a value that was not good enough, where the classifier may say so ([`until`](crate::retry::Run::until),
/// [`classify`](crate::retry::Run::classify)); otherwise there is none.
///
/// It goes through `?` into `anyhow` and into boxed errors, whatever the operation fails with, if that prints itself: an
/// error, `anyhow::Error`, a box, a `String`. Its source says what the last error says. Since that need not be an
/// [`Error`], a chain ends there; [`into_error`](Self::into_error) has the last error itself, with its own sources.
///
/// ```
/// # async fn fetch() -> anyhow::Result<u32> { Ok(7) }
/// async fn patient() -> anyhow::Result<u32> {
///     Ok(ringfence::Retry::DEFAULT.retry(|_| fetch()).await?)
/// }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(patient()).unwrap();
/// ```
pub struct RetryError<E, V = Infallible> {
    pub(super) reason: RetryReason,
    pub(super) attempts: u32,
    pub(super) elapsed: Duration,
    pub(super) timed_out: Option<Duration>,
    pub(super) last: Option<Result<V, Link<E>>>,
    pub(super) earlier: Vec<E>,
}

impl<E, V> RetryError<E, V> {
    /// That of a run that was over before.
    pub(super) fn again(
        reason: RetryReason,
        attempts: u32,
        elapsed: Duration,
        last: Option<E>,
    ) -> Self {
        Self {
            reason,
            attempts,
            elapsed,
            timed_out: None,
            last: last.map(|error| Err(Link(error))),
            earlier: Vec::new(),
        }
    }

    /// Returns why it gave up.
    #[must_use]
    pub fn reason(&self) -> RetryReason {
        self.reason
    }

    /// Returns how many attempts were made: zero if the deadline had passed or the task had been cancelled before.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.attempts
    }

    /// Returns how long it took; see [`Attempt::elapsed`](crate::Attempt::elapsed).
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns the attempt timeout, if that is what ended the last attempt.
    #[must_use]
    pub fn attempt_timed_out(&self) -> Option<Duration> {
        self.timed_out
    }

    /// Returns the last error, or value that was not good enough; `None` if no attempt came to an end.
    pub fn last(&self) -> Option<Result<&V, &E>> {
        Link::outcome(self.last.as_ref())
    }

    /// Returns the last error.
    pub fn last_error(&self) -> Option<&E> {
        self.last()?.err()
    }

    /// Returns the errors before the last, oldest first, as many as [`history`](crate::retry::Run::history) asked for.
    pub fn earlier(&self) -> &[E] {
        &self.earlier
    }

    /// Returns the last error, or value that was not good enough, itself.
    pub fn into_last(self) -> Option<Result<V, E>> {
        Some(self.last?.map_err(|Link(error)| error))
    }

    /// Returns the last error itself: the way back to what a single call would have given.
    #[must_use]
    pub fn into_error(self) -> Option<E> {
        self.into_last()?.err()
    }
}

impl<E: fmt::Debug, V> fmt::Debug for RetryError<E, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryError")
            .field("reason", &self.reason)
            .field("attempts", &self.attempts)
            .field("elapsed", &self.elapsed)
            .field("attempt_timed_out", &self.timed_out)
            .field("last_error", &self.last_error())
            .finish_non_exhaustive()
    }
}

// Without the last error: that is the source, and who prints chains would print it twice.
impl<E, V> fmt::Display for RetryError<E, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (attempts, elapsed, reason) = (self.attempts, self.elapsed, self.reason);
        let plural = if attempts == 1 { "" } else { "s" };
        write!(
            f,
            "gave up after {attempts} attempt{plural} in {elapsed:?}: {reason}"
        )?;
        match self.timed_out {
            Some(limit) => write!(f, "; the last attempt took longer than {limit:?}"),
            None => Ok(()),
        }
    }
}

impl<E: fmt::Debug + fmt::Display + 'static, V> Error for RetryError<E, V> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let link = self.last.as_ref()?.as_ref().err()?;
        Some(link)
    }
}

/// What an operation failed with, as a link of a chain of errors: it says what that says.
///
/// Of `anyhow::Error`, boxes and strings none is an [`Error`], and nothing can be done for errors that would not be done for
/// them as well: that is why there is no source below.
pub(super) struct Link<E>(pub(super) E);

impl<E> Link<E> {
    pub(super) fn outcome<V>(outcome: Option<&Result<V, Self>>) -> Option<Result<&V, &E>> {
        Some(outcome?.as_ref().map_err(|Self(error)| error))
    }
}

impl<E: fmt::Debug> fmt::Debug for Link<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<E: fmt::Display> fmt::Display for Link<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With all of its causes, where it can say them: the chain ends here.
        write!(f, "{:#}", self.0)
    }
}

impl<E: fmt::Debug + fmt::Display> Error for Link<E> {}

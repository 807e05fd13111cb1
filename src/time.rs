//! Timeouts and deadlines.
//!
//! The clauses T1 to T3 of `docs/contract.md` are kept here: a future that is ready is never late, since it is polled before the
//! clock is looked at; a timer is made when the future is first pending; time is `tokio::time`, so a paused clock stops it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Instant;

use crate::runtime::Timer;

/// A point in time by which something has to be done; or never.
///
/// A plain value: copy it, compare it, take the earlier one, hand it on. [`Deadline::current`] is the one that the
/// enclosing groups set.
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use std::time::Duration;
/// use ringfence::Deadline;
///
/// let deadline = Deadline::after(Duration::from_secs(2));
/// assert_eq!(deadline.remaining(), Duration::from_secs(2));
/// assert!(deadline < Deadline::NEVER);
/// assert_eq!(deadline.min(Deadline::NEVER), deadline);
/// # }
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    /// The deadline that never passes.
    pub const NEVER: Self = Self(None);

    /// Returns the instant `duration` from now; [`NEVER`](Self::NEVER) where that lies beyond what the clock can hold.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self(Instant::now().checked_add(duration))
    }

    /// Returns the deadline at `instant`, which may be past.
    #[must_use]
    pub const fn at(instant: Instant) -> Self {
        Self(Some(instant))
    }

    /// Returns the deadline of the innermost group that the caller runs in; [`NEVER`](Self::NEVER) without one.
    ///
    /// It is already the earliest of all enclosing ones.
    #[must_use]
    pub fn current() -> Self {
        crate::context::deadline()
    }

    /// Returns the earlier of the two.
    #[must_use]
    pub fn min(self, other: Self) -> Self {
        Ord::min(self, other)
    }

    /// Returns the time left: zero once it has passed, [`Duration::MAX`] for never.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.map_or(Duration::MAX, |at| {
            at.saturating_duration_since(Instant::now())
        })
    }

    /// Asks whether it has passed.
    #[must_use]
    pub fn is_past(self) -> bool {
        self.0.is_some_and(|at| at <= Instant::now())
    }

    /// Returns the instant; `None` for never.
    #[must_use]
    pub const fn instant(self) -> Option<Instant> {
        self.0
    }
}

impl Ord for Deadline {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        match (self.0, other.0) {
            (Some(a), Some(b)) => a.cmp(&b),
            // `None` is later than every instant, the other way round from `Option`'s own order.
            (a, b) => b.is_some().cmp(&a.is_some()),
        }
    }
}

impl PartialOrd for Deadline {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl From<Instant> for Deadline {
    fn from(instant: Instant) -> Self {
        Self::at(instant)
    }
}

/// So long from now, as [`after`](Deadline::after): time counts from the call that is given the duration.
impl From<Duration> for Deadline {
    fn from(duration: Duration) -> Self {
        Self::after(duration)
    }
}

impl fmt::Debug for Deadline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(at) => f.debug_tuple("Deadline").field(&at).finish(),
            None => f.write_str("Deadline::NEVER"),
        }
    }
}

/// The limit that ran out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Limit {
    /// A duration, counted from the first poll that found the future pending.
    After(Duration),
    /// A point in time.
    At(Deadline),
}

/// The error of a future that was not ready in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Elapsed(Limit);

impl Elapsed {
    /// Returns the limit that ran out.
    #[must_use]
    pub fn limit(&self) -> Limit {
        self.0
    }
}

impl fmt::Display for Elapsed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Limit::After(limit) => write!(f, "not ready within {limit:?}"),
            Limit::At(_) => f.write_str("not ready by the deadline"),
        }
    }
}

impl std::error::Error for Elapsed {}

impl From<Elapsed> for std::io::Error {
    fn from(elapsed: Elapsed) -> Self {
        Self::new(std::io::ErrorKind::TimedOut, elapsed)
    }
}

/// Waits for `future`, for `limit` at most.
///
/// The future is polled first, so one that is ready wins, also with a limit of zero. Time counts from the first poll
/// that finds it pending, and no timer exists before. [`Duration::MAX`] never runs out. When the limit has run out, the
/// future is dropped with the returned one.
///
/// *Comparison.* `tokio::time::timeout` makes its timer and reads the clock when it is called; this one costs nothing
/// while the future is ready.
///
/// # Cancel safety
///
/// As cancel safe as `future`, which is dropped with it.
///
/// # Errors
///
/// [`Elapsed`], which names the limit.
///
/// # Panics
///
/// When it has to wait outside a tokio runtime, or in one whose time driver is not enabled.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// use std::time::Duration;
/// use ringfence::timeout;
///
/// assert_eq!(timeout(Duration::ZERO, async { 7 }).await, Ok(7));
/// let late = timeout(Duration::from_millis(20), std::future::pending::<()>()).await;
/// assert_eq!(late.unwrap_err().to_string(), "not ready within 20ms");
/// # }
/// ```
#[inline]
pub fn timeout<F: IntoFuture>(limit: Duration, future: F) -> Timeout<F::IntoFuture> {
    Timeout::new(Limit::After(limit), future.into_future())
}

/// Waits for `future` until `deadline`, which may be past.
///
/// As [`timeout`] otherwise.
///
/// # Cancel safety
///
/// As cancel safe as `future`, which is dropped with it.
///
/// # Errors
///
/// [`Elapsed`], which names the deadline.
pub fn timeout_at<F: IntoFuture>(
    deadline: impl Into<Deadline>,
    future: F,
) -> Timeout<F::IntoFuture> {
    Timeout::new(Limit::At(deadline.into()), future.into_future())
}

/// Waits for `future`, for `limit` at most, and moves on with `None` if it is not ready.
///
/// # Cancel safety
///
/// As cancel safe as `future`, which is dropped with it.
pub fn move_on_after<F: IntoFuture>(limit: Duration, future: F) -> MoveOn<F::IntoFuture> {
    MoveOn {
        timeout: timeout(limit, future),
    }
}

pin_project! {
    /// The future of [`timeout`] and [`timeout_at`].
    ///
    /// # Cancel safety
    ///
    /// As cancel safe as the future it limits, which is dropped with it.
    #[must_use = "futures do nothing unless polled"]
    pub struct Timeout<F> {
        #[pin]
        future: F,
        limit: Limit,
        #[pin]
        clock: Clock,
    }
}

pin_project! {
    #[project = ClockProj]
    enum Clock {
        Unset,
        Never,
        Past,
        Set { #[pin] timer: Timer },
    }
}

impl<F> Timeout<F> {
    #[inline]
    fn new(limit: Limit, future: F) -> Self {
        Self {
            future,
            limit,
            clock: Clock::Unset,
        }
    }
}

impl<F: Future> Future for Timeout<F> {
    type Output = Result<F::Output, Elapsed>;

    // An `await` is a call of this, so that a panic names its place.
    #[track_caller]
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Ok(output));
        }
        ready!(this.clock.poll(*this.limit, cx));
        Poll::Ready(Err(Elapsed(*this.limit)))
    }
}

impl Clock {
    /// Polls the clock of a future that is pending. Not inlined, so that the poll of one that is ready stays short.
    #[inline(never)]
    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, limit: Limit, cx: &mut Context<'_>) -> Poll<()> {
        if let ClockProj::Unset = self.as_mut().project() {
            let end = match limit {
                Limit::After(limit) => Deadline::after(limit),
                Limit::At(deadline) => deadline,
            };
            self.set(match end.instant() {
                Some(_) if end.is_past() => Self::Past,
                Some(at) => Self::Set {
                    timer: Timer::at(at),
                },
                None => Self::Never,
            });
            if let ClockProj::Past = self.as_mut().project() {
                // Counts as a step of the task's budget: a loop over timeouts of zero lets the others run.
                ready!(crate::runtime::poll_step(cx)).made_progress();
            }
        }
        match self.project() {
            // A future that spends the task's whole budget in each poll must not hide the clock from it for ever.
            ClockProj::Set { timer } if !coop::has_budget_remaining() => {
                std::pin::pin!(coop::unconstrained(timer)).poll(cx)
            }
            ClockProj::Set { timer } => timer.poll(cx),
            ClockProj::Past => Poll::Ready(()),
            ClockProj::Unset | ClockProj::Never => Poll::Pending,
        }
    }
}

impl<F> fmt::Debug for Timeout<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timeout")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

pin_project! {
    /// The future of [`move_on_after`].
    ///
    /// # Cancel safety
    ///
    /// As cancel safe as the future it limits, which is dropped with it.
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct MoveOn<F> {
        #[pin]
        timeout: Timeout<F>,
    }
}

impl<F: Future> Future for MoveOn<F> {
    type Output = Option<F::Output>;

    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().timeout.poll(cx).map(Result::ok)
    }
}

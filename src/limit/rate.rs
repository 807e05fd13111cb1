//! `RateLimiter`: at most so many in a time.
//!
//! R1. First come, first served. R2. Only the first in line keeps a timer; whoever leaves the line from the front wakes the
//! next, which takes it over without losing a tick, because nothing is taken before its time has come. R3. Time is tokio's.
//! R4. Who has a deadline knows when it comes that it will meet it, because nobody goes before those in line. Only a change of
//! the rate can belie that: then all look anew.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use tokio::time::Instant;

use crate::detail::{self, WaitsFor};
use crate::limit::gate::Signal;
use crate::limit::gcra::{Gcra, Time};
use crate::limit::waiters::{Left, Seat, Waiters};
use crate::observe::{CancelReason, wake};
use crate::runtime::Timer;
use crate::sync::{Arc, Lock};
use crate::time::Deadline;

/// So many in a time, and how many of them at once after a pause.
///
/// ```
/// use ringfence::{Rate, RateLimiter};
///
/// const API: Rate = Rate::per_second(10).burst(5);
///
/// let limiter = RateLimiter::new(API);
/// assert!(limiter.try_acquire_many(5).is_ok() && limiter.try_acquire().is_err());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Picoseconds for one.
    cell: u128,
    burst: u32,
}

impl Rate {
    /// `n` in each second, evenly spread.
    ///
    /// # Panics
    ///
    /// If `n` is 0; in a constant, that is an error of the build.
    #[must_use]
    pub const fn per_second(n: u32) -> Self {
        Self::new(n, Duration::from_secs(1))
    }

    /// `n` in each `period`, evenly spread.
    ///
    /// # Panics
    ///
    /// If `n` is 0 or `period` is zero, or the rate is above one a picosecond; in a constant, that is an error of the build.
    #[must_use]
    pub const fn new(n: u32, period: Duration) -> Self {
        assert!(
            n > 0,
            "ringfence: a rate must be at least 1 in a period, not 0"
        );
        assert!(
            !period.is_zero(),
            "ringfence: the period of a rate must be longer than zero"
        );
        let cell = period.as_nanos() * 1000 / n as u128;
        assert!(
            cell > 0,
            "ringfence: a rate may be one a picosecond at most"
        );
        Self { cell, burst: 1 }
    }

    /// Lets up to `n` through at once, as far as that many were not used before. The default is 1.
    ///
    /// # Panics
    ///
    /// If `n` is 0; in a constant, that is an error of the build.
    #[must_use]
    pub const fn burst(mut self, n: u32) -> Self {
        assert!(n > 0, "ringfence: a burst must be at least 1, not 0");
        self.burst = n;
        self
    }
}

/// Lets at most so many through in a time; the others wait in line.
///
/// In any span of time no more go through than the burst and what the rate allows for the span. Waiters are served first
/// come, first served; one that leaves the line costs nobody anything. Clones share the rate. There is no task and one timer
/// behind it, however many wait.
///
/// *Comparison.* Fixed windows let twice the rate through around their borders; this is the generic cell rate algorithm.
///
/// # Examples
///
/// ```
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), ringfence::RateError> {
/// use ringfence::{Rate, RateLimiter};
/// use tokio::time::{Duration, Instant};
///
/// let start = Instant::now();
/// let api = RateLimiter::new(Rate::per_second(10).burst(2));
/// for _ in 0..4 {
///     api.acquire().await?;
/// }
/// assert_eq!(start.elapsed(), Duration::from_millis(200)); // two at once, then one each 100 ms
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct RateLimiter {
    meter: Arc<Meter>,
}

pub(crate) struct Meter {
    start: Instant,
    line: Lock<Line>,
}

struct Line {
    gcra: Gcra,
    waiters: Waiters,
}

impl Meter {
    fn now(&self) -> Time {
        Instant::now()
            .saturating_duration_since(self.start)
            .as_nanos()
            * 1000
    }

    /// The instant that lies `delay` after `now`; none where the clock cannot hold it.
    fn instant(&self, now: Time, delay: Time) -> Option<Instant> {
        let nanos = now.saturating_add(delay).div_ceil(1000);
        let seconds = u64::try_from(nanos / 1_000_000_000).ok()?;
        let after = Duration::new(seconds, (nanos % 1_000_000_000) as u32);
        self.start.checked_add(after)
    }

    /// Lets `n` through if they may now and nobody waits.
    fn try_take(&self, n: u32) -> Result<(), RateError> {
        let now = self.now();
        let mut line = self.line.lock();
        let burst = line.gcra.burst();
        if n > burst {
            return Err(RateError::InsufficientCapacity { asked: n, burst });
        }
        let delay = line.delay_at_the_end(now, n);
        if n == 0 || (delay == 0 && line.waiters.is_empty()) {
            line.gcra.grant(now, n);
            return Ok(());
        }
        drop(line);
        Err(RateError::TooLate {
            at: self.instant(now, delay),
        })
    }

    /// Takes a seat at the end of the line, if that is in time (R4).
    fn queue(&self, n: u32, deadline: Deadline, waker: Waker) -> Result<Seat, RateError> {
        let now = self.now();
        let mut line = self.line.lock();
        let at = self.instant(now, line.delay_at_the_end(now, n));
        if is_late(at, deadline) {
            return Err(RateError::TooLate { at });
        }
        Ok(line.waiters.push(n.into(), waker))
    }

    /// Wakes the first in line, so that it looks at the time anew.
    fn wake_first(&self) {
        let first = self.line.lock().waiters.call_first();
        wake(first);
    }

    /// Lets the one with this seat through if its turn has come. The others have nothing to learn, but for the `news` of another
    /// rate (R4).
    fn turn(&self, seat: Seat, n: u32, deadline: Deadline, news: bool) -> Turn {
        let now = self.now();
        let mut line = self.line.lock();
        let is_first = line.waiters.is_first(seat);
        if !is_first && (!news || deadline == Deadline::NEVER) {
            return Turn::NotYet;
        }
        let burst = line.gcra.burst();
        if n > burst {
            return Turn::Refused(RateError::InsufficientCapacity { asked: n, burst });
        }
        let delay = line.gcra.delay(now, line.waiters.weight_before(seat), n);
        if is_first && delay == 0 {
            line.gcra.grant(now, n);
            let left = line.waiters.leave(seat);
            let next = line.waiters.call_first();
            drop(line);
            drop(left);
            return Turn::Taken(next);
        }
        drop(line);
        let at = self.instant(now, delay);
        if is_late(at, deadline) {
            Turn::Refused(RateError::TooLate { at })
        } else if is_first {
            Turn::At(at)
        } else {
            Turn::NotYet
        }
    }
}

impl Line {
    /// How long one that comes now would wait for `n`.
    fn delay_at_the_end(&self, now: Time, n: u32) -> Time {
        self.gcra.delay(now, self.waiters.weight(), n)
    }
}

/// One wait for a rate after another, by one task. Whoever holds it calls [`abandon`](Self::abandon) when it is dropped.
#[derive(Default)]
pub(crate) struct RateWait {
    seat: Option<Seat>,
    sleep: Option<Pin<Box<Timer>>>,
    signal: Option<Signal>,
}

/// What one in line is told.
enum Turn {
    Taken(Option<Waker>),
    At(Option<Instant>),
    NotYet,
    Refused(RateError),
}

impl RateWait {
    pub(crate) fn poll(
        &mut self,
        meter: &Meter,
        n: u32,
        deadline: Deadline,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RateError>> {
        let mut news = false;
        let seat = match self.seat {
            Some(seat) => {
                news = self.renew(meter, seat, cx.waker());
                seat
            }
            None => match meter.try_take(n) {
                Ok(()) => return Poll::Ready(Ok(())),
                Err(RateError::TooLate { at }) if !is_late(at, deadline) => {
                    let seat = match meter.queue(n, deadline, cx.waker().clone()) {
                        Ok(seat) => seat,
                        Err(late) => return Poll::Ready(Err(late)),
                    };
                    *self.seat.insert(seat)
                }
                Err(refused) => return Poll::Ready(Err(refused)),
            },
        };
        loop {
            match meter.turn(seat, n, deadline, news) {
                Turn::Taken(next) => {
                    self.seat = None; // the timer and the signal are of use for the next wait
                    wake(next); // R2
                    return Poll::Ready(Ok(()));
                }
                Turn::Refused(error) => {
                    self.abandon(meter);
                    return Poll::Ready(Err(error));
                }
                Turn::At(Some(at)) => {
                    let sleep = match &mut self.sleep {
                        Some(sleep) => {
                            if sleep.end() != at {
                                sleep.as_mut().reset(at);
                            }
                            sleep
                        }
                        None => self.sleep.insert(Box::pin(Timer::at(at))),
                    };
                    if sleep.as_mut().poll(cx).is_ready() {
                        continue;
                    }
                }
                Turn::At(None) | Turn::NotYet => self.sleep = None,
            }
            let signal = self.signal.get_or_insert_with(Signal::new);
            let Poll::Ready(reason) = signal.poll(cx) else {
                detail::waits_for(WaitsFor::Rate);
                return Poll::Pending;
            };
            self.abandon(meter);
            return Poll::Ready(Err(RateError::Cancelled(reason)));
        }
    }

    /// Leaves a waker if the one there was called, or is another one. Returns whether it did.
    fn renew(&mut self, meter: &Meter, seat: Seat, waker: &Waker) -> bool {
        if meter.line.lock().waiters.will_wake(seat, waker) {
            return false;
        }
        let fresh = waker.clone();
        let _old = meter.line.lock().waiters.renew(seat, fresh);
        self.signal = None; // it may be another task that waits now
        true
    }

    /// Gives the wait up.
    pub(crate) fn abandon(&mut self, meter: &Meter) {
        self.sleep = None;
        self.signal = None;
        let Some(seat) = self.seat.take() else { return };
        let left = meter.line.lock().waiters.leave(seat);
        if let Left::Waiting {
            was_first: true, ..
        } = left
        {
            meter.wake_first();
        }
    }
}

fn is_late(at: Option<Instant>, deadline: Deadline) -> bool {
    match (at, deadline.instant()) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(at), Some(deadline)) => at > deadline,
    }
}

impl RateLimiter {
    /// A limiter of that rate, with its burst unused.
    #[must_use]
    pub fn new(rate: Rate) -> Self {
        Self {
            meter: Arc::new(Meter {
                start: Instant::now(),
                line: Lock::new(Line {
                    gcra: Gcra::new(rate.cell, rate.burst),
                    waiters: Waiters::new(),
                }),
            }),
        }
    }

    pub(crate) fn meter(&self) -> &Arc<Meter> {
        &self.meter
    }

    /// Waits for its turn.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped, it leaves the line and has used nothing; the next goes when it would have gone without it.
    ///
    /// # Errors
    ///
    /// [`RateError::Cancelled`] if the task that waits was asked to end before its turn came.
    ///
    /// # Panics
    ///
    /// When it has to wait outside a tokio runtime, or in one whose time driver is not enabled.
    pub fn acquire(&self) -> AcquireRate<'_> {
        self.acquire_many(1)
    }

    /// Waits until `n` may go through together; for none, it is ready at once.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// As [`acquire`](Self::acquire), and [`RateError::InsufficientCapacity`] if `n` is more than the burst, because that many
    /// never go through together: at once; or, if the burst is [lowered](Self::set_rate) meanwhile, when it is first in line.
    pub fn acquire_many(&self, n: u32) -> AcquireRate<'_> {
        self.acquire_by(n, Deadline::NEVER)
    }

    /// Waits until `n` may go through together, but not beyond `deadline`.
    ///
    /// # Cancel safety
    ///
    /// As [`acquire`](Self::acquire).
    ///
    /// # Errors
    ///
    /// As [`acquire_many`](Self::acquire_many), and [`RateError::TooLate`] as soon as it is clear that the turn comes after the
    /// deadline: at once, or when the rate is [lowered](Self::set_rate).
    pub fn acquire_by(&self, n: u32, deadline: impl Into<Deadline>) -> AcquireRate<'_> {
        AcquireRate {
            meter: &self.meter,
            n,
            deadline: deadline.into(),
            wait: RateWait::default(),
        }
    }

    /// Goes through if it may now and nobody waits.
    ///
    /// # Errors
    ///
    /// [`RateError::TooLate`] with the instant at which it would go through, as things stand.
    pub fn try_acquire(&self) -> Result<(), RateError> {
        self.try_acquire_many(1)
    }

    /// Lets `n` through together if they may now and nobody waits.
    ///
    /// # Errors
    ///
    /// As [`try_acquire`](Self::try_acquire); [`RateError::InsufficientCapacity`] if `n` is more than the burst.
    pub fn try_acquire_many(&self, n: u32) -> Result<(), RateError> {
        self.meter.try_take(n)
    }

    /// Changes the rate, for all clones, from now on. What was used up to now stays used; waiters are timed anew. One that
    /// asked for more than the new burst is told so when it is first in line, and holds nobody up.
    pub fn set_rate(&self, rate: Rate) {
        let now = self.meter.now();
        let all = {
            let mut line = self.meter.line.lock();
            line.gcra.set(now, rate.cell, rate.burst);
            line.waiters.call_all()
        };
        all.into_iter().for_each(|waker| wake(Some(waker)));
    }

    /// Returns how many wait in line.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.meter.line.lock().waiters.len()
    }
}

impl fmt::Debug for RateLimiter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RateLimiter")
            .field("waiting", &self.waiting())
            .finish_non_exhaustive()
    }
}

/// The future of [`RateLimiter::acquire`].
///
/// # Cancel safety
///
/// Cancel safe: see [`RateLimiter::acquire`].
#[must_use = "futures do nothing unless polled"]
pub struct AcquireRate<'a> {
    meter: &'a Meter,
    n: u32,
    deadline: Deadline,
    wait: RateWait,
}

impl Future for AcquireRate<'_> {
    type Output = Result<(), RateError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let step = ready!(crate::runtime::poll_step(cx));
        let me = &mut *self;
        let polled = me.wait.poll(me.meter, me.n, me.deadline, cx);
        if polled.is_ready() {
            step.made_progress();
        }
        polled
    }
}

impl Drop for AcquireRate<'_> {
    fn drop(&mut self) {
        self.wait.abandon(self.meter);
    }
}

impl fmt::Debug for AcquireRate<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcquireRate")
            .field("n", &self.n)
            .field("deadline", &self.deadline)
            .finish_non_exhaustive()
    }
}

/// Why one did not go through a [`RateLimiter`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RateError {
    /// The task was asked to end while it waited.
    Cancelled(CancelReason),
    /// More were asked for than ever go through together.
    InsufficientCapacity {
        /// How many were asked for.
        asked: u32,
        /// How many go through together at most.
        burst: u32,
    },
    /// It would have to wait longer than it may.
    TooLate {
        /// When it would go through, as things stand; `None` for never.
        at: Option<Instant>,
    },
}

impl fmt::Display for RateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled(reason) => write!(f, "the wait was cancelled {reason}"),
            Self::InsufficientCapacity { asked, burst } => {
                write!(
                    f,
                    "{asked} never go through together, with a burst of {burst}"
                )
            }
            Self::TooLate { .. } => f.write_str("the rate does not allow it in time"),
        }
    }
}

impl std::error::Error for RateError {}

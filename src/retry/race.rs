//! Hedging: a second copy of a call that takes long, and the first good answer of either.
//!
//! H1. A copy that failed never ends the race while another one runs or may begin. H2. Copies are polled in the order in
//! which they were started, so that of two that are ready at once the earlier wins. H3. What loses is dropped before the
//! result is given; a panic of its destructor goes to the observer, and the result stands. H4. The first copy is always sent; the budget
//! is asked for each further one. H5. A copy is polled when the task was woken, and when it is new; never in a loop. H6. The
//! deadline is read off the clock, not off the timer: a copy that spends the task's turns does not put it off. H7. After a
//! signal no copy begins; with none running, the call is over. A copy that runs may finish. H8. No copy begins before the
//! latest instant that any failure has asked for.

use std::convert::Infallible;
use std::error::Error;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::Instant;

use super::attempts::Attempt;
use super::budget::{RetryBudget, Taken};
use super::copies::Copies;
use super::error::{Link, RetryReason};
use super::hedge::{Delay, Hedge, HedgeEvent, HedgeHook, Told};
use super::listen::Around;
use super::verdict::{Judge, Judged, Verdict};
use crate::runtime::Timer;
use crate::time::Deadline;

/// The error of a hedged call: why it ended, and how each copy failed that did.
///
/// It goes through `?` as a [`RetryError`](crate::RetryError) does; its source says what the error that counts says.
pub struct HedgeError<E, V = Infallible> {
    reason: RetryReason,
    copies: u32,
    elapsed: Duration,
    /// The one that counts first: the permanent one, else that of the earliest copy.
    failures: Vec<(u32, Result<V, Link<E>>)>,
}

impl<E, V> HedgeError<E, V> {
    /// Returns why it ended: [`Permanent`](RetryReason::Permanent), [`Deadline`](RetryReason::Deadline), or all copies
    /// failed and there were [no more](RetryReason::AttemptsExhausted), [no budget](RetryReason::BudgetExhausted) for
    /// one, too long a [wait](RetryReason::HintTooLong) or a [cancel](RetryReason::Cancelled) before it.
    #[must_use]
    pub fn reason(&self) -> RetryReason {
        self.reason
    }

    /// Returns how many copies were started.
    #[must_use]
    pub fn copies(&self) -> u32 {
        self.copies
    }

    /// Returns how long the call took.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// Returns the number of each copy that failed and its error, or value that was not good enough. First the one that
    /// counts: the permanent one, else that of the first copy.
    pub fn failures(&self) -> impl Iterator<Item = (u32, Result<&V, &E>)> {
        self.failures
            .iter()
            .map(|(copy, failure)| (*copy, failure.as_ref().map_err(|Link(error)| error)))
    }

    /// Returns the same themselves.
    pub fn into_failures(self) -> impl Iterator<Item = (u32, Result<V, E>)> {
        self.failures
            .into_iter()
            .map(|(copy, failure)| (copy, failure.map_err(|Link(error)| error)))
    }

    /// Returns the error that counts.
    #[must_use]
    pub fn into_error(self) -> Option<E> {
        self.into_failures().find_map(|(_, failure)| failure.err())
    }
}

impl<E: fmt::Debug, V> fmt::Debug for HedgeError<E, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<_> = self
            .failures()
            .map(|(copy, last)| (copy, last.err()))
            .collect();
        f.debug_struct("HedgeError")
            .field("reason", &self.reason)
            .field("copies", &self.copies)
            .field("elapsed", &self.elapsed)
            .field("errors", &errors)
            .finish()
    }
}

impl<E, V> fmt::Display for HedgeError<E, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (copies, elapsed) = (self.copies, self.elapsed);
        let plural = if copies == 1 { "y" } else { "ies" };
        write!(
            f,
            "no good answer from {copies} cop{plural} in {elapsed:?}: {}",
            self.reason
        )
    }
}

impl<E: fmt::Debug + fmt::Display + 'static, V> Error for HedgeError<E, V> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let mut errors = self
            .failures
            .iter()
            .filter_map(|(_, failure)| failure.as_ref().err());
        errors.next().map(|link| link as _)
    }
}

/// What is decided, apart from the copies themselves.
pub(super) struct Race<'l, E, V> {
    hedge: Hedge<'l>,
    told: Told<'l>,
    around: Around,
    begun: Option<Instant>,
    started: u32,
    running: u32,
    /// When the next copy begins; never, if there is none.
    next: Option<Instant>,
    /// The latest instant that a server has asked for (H8).
    not_before: Option<Instant>,
    /// Why there is no further copy although there could be one.
    stopped: Option<RetryReason>,
    winner: Option<u32>,
    failures: Vec<(u32, Result<V, Link<E>>)>,
}

impl<'l, E, V> Race<'l, E, V> {
    pub(super) const fn new(hedge: Hedge<'l>, told: Told<'l>) -> Self {
        Self {
            hedge,
            told,
            around: Around::UNSEEN,
            begun: None,
            started: 0,
            running: 0,
            next: None,
            not_before: None,
            stopped: None,
            winner: None,
            failures: Vec::new(),
        }
    }

    /// Says why there is not to be a first copy, if there is not.
    fn begin(&mut self, now: Instant) -> Option<RetryReason> {
        self.begun = Some(now);
        if self.is_late(now) {
            Some(RetryReason::Deadline)
        } else {
            self.around.is_cancelled().then_some(RetryReason::Cancelled)
        }
    }

    /// Inherits what the groups around set.
    fn look_around(&mut self) {
        self.around.look(self.told.deadline, &self.told.listen);
        let deadline = self.around.deadline;
        self.next = self.next.filter(|next| Deadline::at(*next) < deadline);
    }

    fn is_late(&self, now: Instant) -> bool {
        Deadline::at(now) >= self.around.deadline
    }

    /// Asks the token and the budget for a further copy; if one refuses, there is none any more.
    fn refusal(&mut self) -> Option<RetryReason> {
        let budget = self.told.budget;
        self.stopped = if self.around.is_cancelled() {
            Some(RetryReason::Cancelled) // H7
        } else if budget.is_none_or(|budget| budget.take().map(Taken::spend).is_some()) {
            None
        } else {
            Some(RetryReason::BudgetExhausted)
        };
        self.stopped
    }

    /// Why it is over, with no copy that runs and none that could begin.
    fn over(&self) -> RetryReason {
        let is_late = self.may_start() && self.around.deadline != Deadline::NEVER;
        self.stopped.unwrap_or(if is_late {
            RetryReason::Deadline
        } else {
            RetryReason::AttemptsExhausted
        })
    }

    fn elapsed(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    fn may_start(&self) -> bool {
        self.stopped.is_none() && self.started < self.hedge.copies
    }

    /// Takes note of how long a server wants to be left alone: zero says nothing.
    fn heed(&mut self, hint: Duration, now: Instant) {
        if hint <= self.hedge.max_hint {
            self.not_before = self.not_before.max(Some(now + hint));
        } else if self.may_start() {
            self.stopped = Some(RetryReason::HintTooLong);
        }
    }

    /// Puts the next copy off until this; it is none if that is not before the deadline.
    fn schedule(&mut self, delay: Option<Duration>, now: Instant) {
        let at = delay.and_then(|delay| now.checked_add(delay));
        let at = at.map(|at| self.not_before.map_or(at, |asked| at.max(asked))); // H8
        self.next = at.filter(|at| self.may_start() && !self.is_late(*at));
    }
}

pin_project! {
    /// The future of [`Hedge::run`](super::Hedge::run).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops every copy.
    #[must_use = "futures do nothing unless polled"]
    pub struct HedgeFuture<'l, Op, Fut, J, H, E, V> {
        race: Race<'l, E, V>,
        op: Op,
        judge: J,
        hook: H,
        is_over: bool,
        #[pin]
        copies: Copies<'l, Fut>,
        #[pin]
        timer: Option<Timer>,
    }
}

impl<'l, Op, Fut, J, H, E, V> HedgeFuture<'l, Op, Fut, J, H, E, V> {
    pub(super) const fn new(race: Race<'l, E, V>, op: Op, judge: J, hook: H) -> Self {
        let copies = Copies::new(race.hedge.delay);
        Self {
            race,
            op,
            judge,
            hook,
            is_over: false,
            copies,
            timer: None,
        }
    }
}

impl<Op, Fut, T, E, J, H> Future for HedgeFuture<'_, Op, Fut::IntoFuture, J, H, E, J::Kept>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: HedgeHook,
{
    type Output = Result<T, HedgeError<E, J::Kept>>;

    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        assert!(
            !self.is_over,
            "ringfence: a hedge was polled after it was over"
        );
        // A panic of user code leaves it so.
        *self.as_mut().project().is_over = true;
        let polled = self.as_mut().advance(cx);
        let this = self.as_mut().project();
        if polled.is_pending() {
            *this.is_over = false;
            return Poll::Pending;
        }
        this.copies.clear(); // H3
        polled.map(|ended| {
            ended.map_err(|reason| {
                let race = this.race;
                let mut failures = std::mem::take(&mut race.failures);
                // The permanent one came last; the others by the number of the copy.
                let rest = failures.len() - usize::from(reason == RetryReason::Permanent);
                failures[..rest].sort_by_key(|(copy, _)| *copy);
                if reason == RetryReason::Permanent {
                    failures.rotate_right(1);
                }
                HedgeError {
                    reason,
                    copies: race.started,
                    elapsed: race.elapsed(),
                    failures,
                }
            })
        })
    }
}

impl<Op, Fut, T, E, J, H> HedgeFuture<'_, Op, Fut::IntoFuture, J, H, E, J::Kept>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: HedgeHook,
{
    fn advance(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<T, RetryReason>> {
        let (mut polled, mut due) = (0, None::<Instant>);
        self.as_mut().project().race.look_around();
        if self.race.begun.is_none() {
            let now = Instant::now();
            if let Some(reason) = self.as_mut().project().race.begin(now) {
                return Poll::Ready(Err(reason));
            }
            self.as_mut().start(now);
        }
        loop {
            // Those from before, once; then each new one, once (H5).
            while polled < self.race.started {
                if let Some(ended) = self.as_mut().poll_copy(polled, cx) {
                    return Poll::Ready(ended);
                }
                polled += 1;
            }
            let this = self.as_mut().project();
            let race = this.race;
            let now = due.map_or_else(Instant::now, |due| due.max(Instant::now()));
            if race.is_late(now) {
                return Poll::Ready(Err(RetryReason::Deadline)); // H6
            }
            if race.next.is_some_and(|next| next <= now) {
                self.as_mut().start_hedge(now);
                continue;
            }
            if race.running == 0 {
                if race.next.is_none() {
                    return Poll::Ready(Err(race.over()));
                }
                if race.around.poll_cancelled(cx).is_ready() {
                    return Poll::Ready(Err(RetryReason::Cancelled)); // H7
                }
            }
            let Some(at) = race.next.or(race.around.deadline.instant()) else {
                return Poll::Pending;
            };
            let mut timer = this.timer;
            match timer.as_mut().as_pin_mut() {
                Some(timer) if timer.end() == at => {}
                Some(timer) => timer.reset(at),
                None => timer.set(Some(Timer::at(at))),
            }
            ready!(
                timer
                    .as_pin_mut()
                    .map_or(Poll::Pending, |timer| timer.poll(cx))
            );
            due = Some(at); // also where another clock is read, which is not that far
        }
    }

    /// Polls one copy; says how the race ended, if that ended it.
    fn poll_copy(
        self: Pin<&mut Self>,
        index: u32,
        cx: &mut Context<'_>,
    ) -> Option<Result<T, RetryReason>> {
        let this = self.project();
        let race = this.race;
        let polled = {
            let _inside = race.told.budget.map(RetryBudget::enter);
            this.copies.poll(index, cx)
        };
        let Poll::Ready((outcome, began)) = polled else {
            return None;
        };
        race.running -= 1;
        match this.judge.judge(outcome) {
            Judged::Done(value) => {
                if let (Delay::Percentile(_, latency), Some(began)) = (race.hedge.delay, began) {
                    latency.record(began.elapsed());
                }
                if let Some(budget) = race.told.budget {
                    budget.succeeded();
                }
                race.winner = Some(index + 1);
                Some(Ok(value))
            }
            Judged::Not(outcome, verdict) => {
                race.failures.push((index + 1, outcome.map_err(Link)));
                let now = Instant::now();
                match verdict {
                    Verdict::Done | Verdict::Permanent => {
                        return Some(Err(RetryReason::Permanent));
                    }
                    Verdict::Retry => {}
                    Verdict::RetryAfter(hint) => race.heed(hint, now),
                }
                race.schedule(Some(Duration::ZERO), now);
                None
            }
        }
    }

    /// Starts a further copy, if that is worth it.
    fn start_hedge(mut self: Pin<&mut Self>, now: Instant) {
        let this = self.as_mut().project();
        let race = this.race;
        let number = race.started + 1;
        if let Some(reason) = race.refusal() {
            race.next = None;
            if reason == RetryReason::BudgetExhausted {
                crate::trace::suppressed(number, || race.elapsed());
                this.hook
                    .tell(&HedgeEvent::Suppressed(number, race.elapsed()));
            }
            return;
        }
        crate::trace::hedged(number, || race.elapsed());
        this.hook.tell(&HedgeEvent::Started(number, race.elapsed()));
        self.start(now);
    }

    fn start(self: Pin<&mut Self>, now: Instant) {
        let this = self.project();
        let race = this.race;
        let index = race.started;
        let future = (this.op)(Attempt {
            number: index + 1,
            deadline: race.around.deadline,
            elapsed: race.begun.map_or(Duration::ZERO, |begun| now - begun),
            previous_delay: None,
        });
        let future = future.into_future();
        race.started += 1;
        race.running += 1;
        race.schedule(race.hedge.delay(), now);
        this.copies.add(now, index, future);
    }
}

impl<Op, Fut, J, H, E, V> fmt::Debug for HedgeFuture<'_, Op, Fut, J, H, E, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HedgeFuture")
            .field("started", &self.race.started)
            .field("running", &self.race.running)
            .finish_non_exhaustive()
    }
}

/// How a hedged call went: see [`HedgeRun::report`](super::HedgeRun::report).
#[derive(Debug)]
#[non_exhaustive]
pub struct HedgeReport<T, R> {
    /// What the call would have given by itself.
    pub result: Result<T, R>,
    /// The number of the copy that won, from 1.
    pub won_by: Option<u32>,
    /// How many copies were started.
    pub copies: u32,
    /// How long it took.
    pub elapsed: Duration,
}

pin_project! {
    /// The future of [`HedgeRun::report`](super::HedgeRun::report).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops every copy.
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct HedgeReporting<'l, Op, Fut, J, H, E, V> {
        #[pin]
        pub(super) run: HedgeFuture<'l, Op, Fut, J, H, E, V>,
    }
}

impl<Op, Fut, T, E, J, H> Future for HedgeReporting<'_, Op, Fut::IntoFuture, J, H, E, J::Kept>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: HedgeHook,
{
    type Output = HedgeReport<T, HedgeError<E, J::Kept>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut run = self.project().run;
        let result = ready!(run.as_mut().poll(cx));
        Poll::Ready(HedgeReport {
            result,
            won_by: run.race.winner,
            copies: run.race.started,
            elapsed: run.race.elapsed(),
        })
    }
}

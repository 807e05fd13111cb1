//! The engine of all forms: what may begin, what comes next, and the wait in between.
//!
//! | in | comes | goes to |
//! |---|---|---|
//! | ready | the start: deadline and token say no | given up |
//! | ready | the start: nobody says no | trying |
//! | trying | an outcome that is good | done |
//! | trying | one that is not, and the checks say no | given up |
//! | trying | one that is not, and they say yes | pausing |
//! | pausing | the delay is over | ready |
//! | pausing | the task is asked to end | given up |
//!
//! E1. The checks after an attempt are made in the order of [`RetryReason`]; the token of the budget is taken last but one,
//! so that a run that gives up for another reason takes none. E2. A pause never ends at the deadline or after it: the run
//! gives up before it begins. E3. The clock is first read when something has to wait or a limit in time is there: a
//! run whose first attempt is ready reads none. E4. A token is held from before the pause to the outcome of the attempt
//! that it pays for, and goes back if there is none.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Instant;

use super::Retry;
use super::backoff::{Backoff, LONGEST, nanos};
use super::budget::{RetryBudget, Taken};
use super::error::RetryReason;
use super::verdict::Verdict;
use crate::cancel::{Cancelled, Token};
use crate::runtime::Timer;
use crate::time::Deadline;

/// What an attempt is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Attempt {
    /// Which attempt it is: 1 for the first.
    pub number: u32,
    /// When it has to be done: the earliest of the run's deadline, the groups' around it, and the attempt's timeout.
    pub deadline: Deadline,
    /// How long the run had taken when the attempt began: zero for the first.
    ///
    /// Time counts from when the run first had to wait: at the first attempt that was not ready at once, or the first
    /// pause. What a first attempt computes before it waits is not in it.
    pub elapsed: Duration,
    /// How long the pause before this attempt was; `None` for the first.
    pub previous_delay: Option<Duration>,
}

#[derive(Clone, Copy, Default)]
pub(super) enum AttemptTimeout {
    #[default]
    None,
    Fixed(Duration),
    By(fn(u32) -> Duration),
}

#[derive(Default)]
pub(super) enum Listen {
    /// To the group that the run is in; not looked up yet.
    #[default]
    Ambient,
    To(Token),
    /// To groups that know no grace: they do not signal, they drop.
    Looking(Token),
    Nobody,
}

/// What one run was told beside its policy.
pub(super) struct Options<'p> {
    pub(super) deadline: Deadline,
    pub(super) attempt_timeout: AttemptTimeout,
    pub(super) after_timeout: Verdict,
    pub(super) budget: Option<&'p RetryBudget>,
    pub(super) listen: Listen,
    pub(super) stream: u64,
    pub(super) history: usize,
}

impl Options<'_> {
    pub(super) const fn new() -> Self {
        Self {
            deadline: Deadline::NEVER,
            attempt_timeout: AttemptTimeout::None,
            after_timeout: Verdict::Retry,
            budget: None,
            listen: Listen::Ambient,
            stream: 0,
            history: 0,
        }
    }
}

/// The pause before the next attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    /// None at all.
    Skip,
    /// One turn of the scheduler.
    Yield,
    Until(Instant),
}

pub(super) struct Engine<'p> {
    policy: &'p Retry,
    pub(super) options: Options<'p>,
    pub(super) attempts: u32,
    begun: Option<Instant>,
    /// The end of the attempt's own time, if it has any.
    limit: Option<(Instant, Duration)>,
    /// What the timer was last set to for an attempt.
    pub(super) armed: Option<Instant>,
    backoff: Option<Backoff>,
    previous: Option<Duration>,
    pub(super) slept: Duration,
    taken: Option<Taken<'p>>,
}

impl<'p> Engine<'p> {
    #[inline]
    pub(super) const fn new(policy: &'p Retry, options: Options<'p>) -> Self {
        Self {
            policy,
            options,
            attempts: 0,
            begun: None,
            limit: None,
            armed: None,
            backoff: None,
            previous: None,
            slept: Duration::ZERO,
            taken: None,
        }
    }

    /// Reads the clock, which starts the run's time (E3).
    pub(super) fn now(&mut self) -> Instant {
        let now = Instant::now();
        self.begun.get_or_insert(now);
        now
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    /// Asks to begin an attempt.
    #[inline]
    pub(super) fn begin(&mut self) -> Result<Attempt, RetryReason> {
        if self.attempts == 0 {
            self.look_around();
        }
        self.limit = None;
        self.armed = None;
        let mut elapsed = Duration::ZERO;
        let is_timed = self.options.deadline != Deadline::NEVER
            || !matches!(self.options.attempt_timeout, AttemptTimeout::None);
        let mut deadline = self.options.deadline;
        if is_timed || self.begun.is_some() {
            let now = self.now();
            elapsed = self.begun.map_or(elapsed, |begun| now - begun);
            if deadline.instant().is_some_and(|at| at <= now) {
                return Err(RetryReason::Deadline);
            }
            let timeout = match self.options.attempt_timeout {
                AttemptTimeout::None => None,
                AttemptTimeout::Fixed(timeout) => Some(timeout),
                AttemptTimeout::By(timeout) => Some(timeout(self.attempts.saturating_add(1))),
            };
            if let Some(timeout) = timeout {
                if let Some(end) = now.checked_add(timeout) {
                    if Deadline::at(end) < deadline {
                        deadline = Deadline::at(end);
                        self.limit = Some((end, timeout));
                    }
                }
            }
        }
        if self.is_cancelled() {
            return Err(RetryReason::Cancelled);
        }
        self.attempts = self.attempts.saturating_add(1);
        Ok(Attempt {
            number: self.attempts,
            deadline,
            elapsed,
            previous_delay: self.previous,
        })
    }

    /// Inherits what the groups around set.
    #[inline]
    fn look_around(&mut self) {
        if let Some((core, serial)) = crate::context::current() {
            self.options.deadline = self.options.deadline.min(core.deadline());
            let is_exposed = !crate::context::is_inside_shield();
            if matches!(self.options.listen, Listen::Ambient) && is_exposed {
                let is_graceful = std::iter::successors(Some(&core), |core| core.parent())
                    .any(|core| core.has_grace());
                let token = Token::of(core, serial);
                self.options.listen = if is_graceful {
                    Listen::To(token)
                } else {
                    Listen::Looking(token)
                };
            }
        }
    }

    fn is_cancelled(&self) -> bool {
        match &self.options.listen {
            Listen::To(token) | Listen::Looking(token) => token.is_cancelled(),
            Listen::Ambient | Listen::Nobody => false,
        }
    }

    /// The attempt's limit in time, if there is one: it fires at the instant, and is the attempt's own if a duration is there.
    pub(super) fn limit(&self) -> Option<(Instant, Option<Duration>)> {
        match self.limit {
            Some((at, timeout)) => Some((at, Some(timeout))),
            None => self.options.deadline.instant().map(|at| (at, None)),
        }
    }

    /// The run ends well.
    #[inline]
    pub(super) fn succeeded(&mut self) {
        if let Some(taken) = self.taken.take() {
            taken.settle();
        }
        if let Some(budget) = self.options.budget {
            budget.succeeded();
        }
    }

    /// Decides what follows an attempt that was not good (E1).
    pub(super) fn next(&mut self, verdict: Verdict) -> Result<(Pause, Duration), RetryReason> {
        if let Some(taken) = self.taken.take() {
            taken.spend();
        }
        let policy = self.policy;
        let hint = match verdict {
            Verdict::Done | Verdict::Permanent => return Err(RetryReason::Permanent),
            Verdict::Retry => Duration::ZERO,
            Verdict::RetryAfter(hint) => hint,
        };
        if policy
            .attempts
            .is_some_and(|most| self.attempts >= most.get())
        {
            return Err(RetryReason::AttemptsExhausted);
        }
        let mut pause = Pause::Skip;
        let mut delay = Duration::ZERO;
        if policy.pauses {
            // A hint takes the place of one step.
            let stream = self.options.stream;
            let step = self
                .backoff
                .get_or_insert_with(|| policy.backoff(stream))
                .next(&policy.curve);
            delay = step;
            if !hint.is_zero() {
                if hint > policy.max_hint {
                    return Err(RetryReason::HintTooLong);
                }
                let floor = Duration::from_nanos(policy.curve.floor);
                delay = Duration::from_nanos(nanos(hint.min(LONGEST))).max(floor);
            }
            pause = Pause::Yield;
        }
        if !delay.is_zero() || self.options.deadline != Deadline::NEVER {
            let at = self.now() + delay;
            // E2
            if Deadline::at(at) >= self.options.deadline {
                return Err(RetryReason::Deadline);
            }
            if !delay.is_zero() {
                pause = Pause::Until(at);
            }
        }
        if let Some(budget) = self.options.budget {
            self.taken = Some(budget.take().ok_or(RetryReason::BudgetExhausted)?);
        }
        if self.is_cancelled() {
            self.taken = None;
            return Err(RetryReason::Cancelled);
        }
        self.previous = Some(delay);
        Ok((pause, delay))
    }

    /// The run is over without success: nothing is held any longer (E4).
    pub(super) fn give_up(&mut self) {
        self.taken = None;
    }
}

pin_project! {
    /// The one timer of a run, for attempts and pauses in turn, and the ear for a cancel.
    pub(super) struct Waiting {
        #[pin]
        timer: Option<Timer>,
        cancelled: Option<Cancelled>,
        has_yielded: bool,
    }
}

impl Waiting {
    pub(super) const fn new() -> Self {
        Self {
            timer: None,
            cancelled: None,
            has_yielded: false,
        }
    }

    /// Sets the timer to another instant, or makes it.
    pub(super) fn set(self: Pin<&mut Self>, at: Instant) {
        let mut this = self.project();
        match this.timer.as_mut().as_pin_mut() {
            Some(timer) => timer.reset(at),
            None => this.timer.set(Some(Timer::at(at))),
        }
    }

    /// Waits for the timer; `unconstrained` if whoever was polled before has used up the task's turn.
    pub(super) fn poll_timer(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        unconstrained: bool,
    ) -> Poll<()> {
        match self.project().timer.as_pin_mut() {
            Some(timer) if unconstrained => std::pin::pin!(coop::unconstrained(timer)).poll(cx),
            Some(timer) => timer.poll(cx),
            None => Poll::Pending,
        }
    }

    /// Prepares the wait for a pause; says whether there is anything to wait for.
    pub(super) fn pause(mut self: Pin<&mut Self>, pause: Pause) -> bool {
        *self.as_mut().project().has_yielded = false;
        match pause {
            Pause::Skip => return false,
            Pause::Yield => {}
            Pause::Until(at) => self.set(at),
        }
        true
    }

    /// Waits until the pause is over, or the task is asked to end.
    pub(super) fn poll_pause(
        mut self: Pin<&mut Self>,
        pause: Pause,
        engine: &mut Engine<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RetryReason>> {
        let this = self.as_mut().project();
        if let Listen::To(token) = &engine.options.listen {
            let cancelled = this.cancelled.get_or_insert_with(|| token.cancelled());
            if Pin::new(cancelled).poll(cx).is_ready() {
                engine.rested(pause);
                return Poll::Ready(Err(RetryReason::Cancelled));
            }
        }
        if let Pause::Until(_) = pause {
            ready!(self.poll_timer(cx, false));
        } else if !std::mem::replace(this.has_yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        engine.rested(pause);
        Poll::Ready(Ok(()))
    }
}

impl Engine<'_> {
    /// Adds a pause that is over: all of it, or as much as there was of it.
    fn rested(&mut self, pause: Pause) {
        if let (Pause::Until(at), Some(delay)) = (pause, self.previous) {
            let left = at.saturating_duration_since(Instant::now());
            self.slept += delay.saturating_sub(left);
        }
    }
}

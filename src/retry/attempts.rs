//! The engine of all forms: what may begin, what comes next, and how it ends.
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
//! run whose first attempt is ready reads none. E4. No attempt but the first begins without a token. It is held from before the
//! pause to the outcome of the attempt that it pays for, and goes back if that never begins.

use std::ops::ControlFlow;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::Retry;
use super::backoff::Backoff;
use super::budget::{RetryBudget, Taken};
use super::error::{Link, RetryError, RetryReason};
use super::event::{Hook, RetryEvent};
use super::listen::{Around, Listen};
use super::verdict::{Judge, Judged, Verdict};
use super::waiting::AttemptEnd;
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
    /// pause. What a first attempt computes before it waits is not in it. A [loop](crate::Retry::tries) counts from the start.
    pub elapsed: Duration,
    /// How long the pause before this attempt was; `None` for the first.
    pub previous_delay: Option<Duration>,
}

impl Attempt {
    /// That of a run without any limit in time, which has not waited: its pauses, if there were any, were empty.
    #[inline]
    pub(super) const fn plain(number: u32) -> Self {
        Self {
            number,
            deadline: Deadline::NEVER,
            elapsed: Duration::ZERO,
            previous_delay: if number > 1 {
                Some(Duration::ZERO)
            } else {
                None
            },
        }
    }
}

#[derive(Clone, Copy, Default)]
pub(super) enum AttemptTimeout {
    #[default]
    None,
    Fixed(Duration),
    By(fn(u32) -> Duration),
}

impl AttemptTimeout {
    fn of(self, number: u32) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Fixed(timeout) => Some(timeout),
            Self::By(timeout) => Some(timeout(number)),
        }
    }
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

/// A run, apart from its operation.
pub(super) struct Engine<'p, E, V> {
    pub(super) attempts: u32,
    told: Told<'p>,
    kept: Kept<E, V>,
}

struct Kept<E, V> {
    last: Option<Result<V, Link<E>>>,
    earlier: Vec<E>,
    timed_out: Option<Duration>,
}

impl<E, V> Kept<E, V> {
    fn keep(&mut self, outcome: Result<V, E>, history: usize) {
        self.timed_out = None;
        if let Some(Err(Link(before))) = self.last.replace(outcome.map_err(Link)) {
            // More than one too many, if fewer are asked for than before.
            let kept = self.earlier.len();
            drop(
                self.earlier
                    .drain(..(kept + 1).saturating_sub(history).min(kept)),
            );
            if history > 0 {
                self.earlier.push(before);
            }
        }
    }

    fn last(&self) -> Option<Result<&V, &E>> {
        Link::outcome(self.last.as_ref())
    }
}

/// The part of a run that does not depend on what its operation yields.
struct Told<'p> {
    options: Options<'p>,
    around: Around,
    begun: Option<Instant>,
    /// The end of the attempt's own time, if it has any.
    limit: Option<(Instant, Duration)>,
    /// What the timer was last set to for an attempt.
    armed: Option<Instant>,
    backoff: Option<Backoff>,
    previous: Option<Duration>,
    /// When the pause that goes on began.
    pausing: Option<Instant>,
    slept: Duration,
    taken: Option<Taken<'p>>,
}

impl<'p> Told<'p> {
    const fn new(options: Options<'p>, around: Around) -> Self {
        Self {
            options,
            around,
            begun: None,
            limit: None,
            armed: None,
            backoff: None,
            previous: None,
            pausing: None,
            slept: Duration::ZERO,
            taken: None,
        }
    }

    fn now(&mut self) -> Instant {
        let now = Instant::now();
        self.begun.get_or_insert(now);
        now
    }

    /// The pause is over: it was cut short, or took longer than it should.
    fn rested(&mut self, now: Instant) {
        if let Some(began) = self.pausing.take() {
            let slept = now.saturating_duration_since(began);
            self.slept += slept;
            self.previous = self.previous.min(Some(slept));
        }
    }

    /// Takes a token, if there is a budget.
    fn pay(&mut self) -> Result<(), RetryReason> {
        if let Some(budget) = self.options.budget {
            self.taken = Some(budget.take().ok_or(RetryReason::BudgetExhausted)?);
        }
        Ok(())
    }

    /// The attempt that the token was for is over, in vain: used up, it does not come back.
    fn spend(&mut self) {
        self.taken = None;
    }

    fn begin(&mut self, number: u32) -> Result<Attempt, RetryReason> {
        let timeout = self.options.attempt_timeout.of(number);
        self.limit = None;
        self.armed = None;
        let mut elapsed = Duration::ZERO;
        let mut deadline = self.around.deadline;
        if deadline != Deadline::NEVER || timeout.is_some() || self.begun.is_some() {
            let now = self.now();
            self.rested(now);
            if number > 1 {
                elapsed = self.begun.map_or(elapsed, |begun| now - begun);
            }
            if deadline.instant().is_some_and(|at| at <= now) {
                return Err(RetryReason::Deadline);
            }
            let end = timeout.and_then(|timeout| now.checked_add(timeout));
            if let Some((end, timeout)) = end.zip(timeout) {
                if Deadline::at(end) < deadline {
                    deadline = Deadline::at(end);
                    self.limit = Some((end, timeout));
                }
            }
        }
        if number > 1 && self.taken.is_none() {
            self.pay()?; // E4: a loop says nothing of the last one, or of a budget until now
        }
        if self.around.is_cancelled() {
            return Err(RetryReason::Cancelled);
        }
        if let Some(taken) = &mut self.taken {
            taken.use_up();
        }
        Ok(Attempt {
            number,
            deadline,
            elapsed,
            previous_delay: self.previous,
        })
    }

    fn succeeded(&mut self) {
        if let Some(taken) = self.taken.take() {
            taken.settle();
        }
        if let Some(budget) = self.options.budget {
            budget.succeeded();
        }
    }

    /// Decides what follows an attempt that was not good (E1).
    fn next(
        &mut self,
        policy: &Retry,
        verdict: Verdict,
        is_exhausted: bool,
    ) -> Result<(Pause, Duration), RetryReason> {
        self.spend();
        let hint = match verdict {
            Verdict::Done | Verdict::Permanent => return Err(RetryReason::Permanent),
            Verdict::Retry => Duration::ZERO,
            Verdict::RetryAfter(hint) => hint,
        };
        if is_exhausted {
            return Err(RetryReason::AttemptsExhausted);
        }
        let mut pause = Pause::Skip;
        let mut delay = Duration::ZERO;
        let mut begins = None;
        if policy.pauses {
            // A hint takes the place of one step.
            let stream = self.options.stream;
            let backoff = self.backoff.get_or_insert_with(|| policy.backoff(stream));
            delay = backoff.next(&policy.curve);
            if !hint.is_zero() {
                if hint > policy.max_hint {
                    return Err(RetryReason::HintTooLong);
                }
                delay = hint.max(Duration::from_nanos(policy.curve.floor));
            }
            pause = Pause::Yield;
        }
        if policy.pauses || self.around.deadline != Deadline::NEVER {
            let now = self.now();
            let at = now + delay;
            // E2
            if Deadline::at(at) >= self.around.deadline {
                return Err(RetryReason::Deadline);
            }
            if !delay.is_zero() {
                pause = Pause::Until(at);
            }
            begins = Some(now).filter(|_| policy.pauses);
        }
        self.pay()?;
        if self.around.is_cancelled() {
            return Err(RetryReason::Cancelled);
        }
        self.previous = Some(delay);
        self.pausing = begins;
        Ok((pause, delay))
    }
}

impl<'p, E, V> Engine<'p, E, V> {
    /// A run that has made so many attempts, without a word about them, in no group.
    pub(super) const fn after(attempts: u32, options: Options<'p>) -> Self {
        let around = if attempts > 0 {
            Around::NOTHING
        } else {
            Around::UNSEEN
        };
        Self {
            attempts,
            told: Told::new(options, around),
            kept: Kept {
                last: None,
                earlier: Vec::new(),
                timed_out: None,
            },
        }
    }

    /// What it was told, to tell it more: that holds from now on, in the middle of a run too.
    pub(super) const fn options(&mut self) -> &mut Options<'p> {
        self.told.around.forget();
        &mut self.told.options
    }

    /// Reads the clock, if nobody has: the run's time starts (E3).
    pub(super) fn start_clock(&mut self) {
        if self.told.begun.is_none() {
            self.told.now();
        }
    }

    pub(super) fn elapsed(&self) -> Duration {
        self.told
            .begun
            .map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    pub(super) const fn slept(&self) -> Duration {
        self.told.slept
    }

    pub(super) const fn budget(&self) -> Option<&'p RetryBudget> {
        self.told.options.budget
    }

    /// Inherits what the groups around set: wherever it is polled, before anything else.
    pub(super) fn look_around(&mut self) {
        let Told {
            around, options, ..
        } = &mut self.told;
        around.look(options.deadline, &options.listen);
    }

    /// Asks to begin an attempt.
    pub(super) fn begin(&mut self) -> Result<Attempt, RetryReason> {
        let attempt = self.told.begin(self.attempts.saturating_add(1))?;
        self.attempts = attempt.number;
        Ok(attempt)
    }

    /// Takes note that another attempt comes right after one of whose end nothing was said.
    pub(super) fn unsaid(&mut self) {
        self.told.spend();
        self.told.previous = Some(Duration::ZERO);
    }

    /// Takes note that an attempt is over, which was made whether anybody asked or not: one that was not begun counts as begun.
    pub(super) fn made(&mut self, was_begun: bool) {
        self.look_around();
        if !was_begun {
            self.start_clock();
            self.attempts = self.attempts.saturating_add(1);
            if let Some(taken) = &mut self.told.taken {
                taken.use_up();
            }
        }
    }

    /// The attempt's limit in time, if there is one: it fires at the instant, and is the attempt's own if a duration is there.
    pub(super) fn limit(&self) -> Option<(Instant, Option<Duration>)> {
        match self.told.limit {
            Some((at, timeout)) => Some((at, Some(timeout))),
            None => self.told.around.deadline.instant().map(|at| (at, None)),
        }
    }

    /// Says that the timer is set to the end of the attempt's time now; asks whether it was not before.
    pub(super) fn arm(&mut self, at: Instant) -> bool {
        self.told.armed.replace(at) != Some(at)
    }

    /// Ready once the task is asked to end by a signal.
    pub(super) fn poll_cancelled(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.told.around.poll_cancelled(cx)
    }

    /// The run ends well.
    pub(super) fn succeeded(&mut self) {
        self.told.succeeded();
    }

    /// Takes the end of an attempt: the value, or the pause before the next attempt, or the end.
    pub(super) fn take<T, J, H>(
        &mut self,
        policy: &Retry,
        (judge, hook): (&mut J, &mut H),
        ended: AttemptEnd<Result<T, E>>,
    ) -> Result<ControlFlow<T, Pause>, RetryError<E, V>>
    where
        J: Judge<T, E, Kept = V>,
        H: Hook<E, V>,
    {
        let pause = match ended {
            AttemptEnd::Output(outcome) => match judge.judge(outcome) {
                Judged::Done(value) => {
                    self.succeeded();
                    return Ok(ControlFlow::Break(value));
                }
                Judged::Not(outcome, verdict) => self.failed(policy, hook, outcome, verdict)?,
            },
            AttemptEnd::TimedOut(timeout) => {
                self.kept.timed_out = Some(timeout);
                self.next(policy, hook, self.told.options.after_timeout)?
            }
            AttemptEnd::Late => {
                self.kept.timed_out = None;
                return Err(self.give_up(hook, RetryReason::Deadline));
            }
        };
        Ok(ControlFlow::Continue(pause))
    }

    /// Takes an outcome that is not good enough.
    pub(super) fn failed<H: Hook<E, V>>(
        &mut self,
        policy: &Retry,
        hook: &mut H,
        outcome: Result<V, E>,
        verdict: Verdict,
    ) -> Result<Pause, RetryError<E, V>> {
        self.kept.keep(outcome, self.told.options.history);
        self.next(policy, hook, verdict)
    }

    fn next<H: Hook<E, V>>(
        &mut self,
        policy: &Retry,
        hook: &mut H,
        verdict: Verdict,
    ) -> Result<Pause, RetryError<E, V>> {
        let is_exhausted = policy.is_exhausted(self.attempts);
        let (pause, delay) = match self.told.next(policy, verdict, is_exhausted) {
            Ok(next) => next,
            Err(reason) => return Err(self.give_up(hook, reason)),
        };
        crate::trace::retrying(self.attempts, delay, || self.elapsed());
        if H::LISTENS {
            hook.tell(&RetryEvent::Pausing {
                attempt: self.attempts,
                delay,
                elapsed: self.elapsed(),
                timed_out: self.kept.timed_out,
                last: self.kept.last(),
            });
        }
        Ok(pause)
    }

    /// Makes the error of a run that is over without success: nothing is held any longer (E4).
    #[cold]
    pub(super) fn give_up<H: Hook<E, V>>(
        &mut self,
        hook: &mut H,
        reason: RetryReason,
    ) -> RetryError<E, V> {
        self.told.taken = None;
        if self.told.pausing.is_some() {
            self.told.rested(Instant::now());
        }
        let error = RetryError {
            reason,
            attempts: self.attempts,
            elapsed: self.elapsed(),
            timed_out: self.kept.timed_out,
            last: self.kept.last.take(),
            earlier: std::mem::take(&mut self.kept.earlier),
        };
        crate::trace::gave_up(error.attempts, error.elapsed, &reason);
        if H::LISTENS {
            hook.tell(&RetryEvent::GaveUp {
                reason,
                attempts: error.attempts,
                elapsed: error.elapsed,
                timed_out: error.timed_out,
                last: error.last(),
            });
        }
        error
    }
}

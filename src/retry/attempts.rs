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
use super::backoff::{Backoff, LONGEST};
use super::budget::{RetryBudget, Taken};
use super::error::RetryReason;
use super::verdict::Verdict;
use crate::cancel::{Cancelled, Token};
use crate::runtime::Timer;
use crate::state::Core;
use crate::sync::Arc;
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

impl AttemptTimeout {
    fn of(self, number: u32) -> Option<Duration> {
        match self {
            Self::None => None,
            Self::Fixed(timeout) => Some(timeout),
            Self::By(timeout) => Some(timeout(number)),
        }
    }
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

/// The group that a run is in, and which member it is.
type Around = (Arc<Core>, u64);

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
    /// Makes them, where there are none yet.
    pub(super) fn of(options: &mut Option<Self>) -> &mut Self {
        options.get_or_insert_with(Self::new)
    }

    const fn new() -> Self {
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
///
/// What a plain run that succeeds does not need is behind two tags, so that it costs two stores and two tests.
pub(super) struct Engine<'p> {
    policy: &'p Retry,
    pub(super) options: Option<Options<'p>>,
    pub(super) attempts: u32,
    rare: Option<Rare<'p>>,
}

/// What a run has once it has been told something, has to wait, or is in a group.
struct Rare<'p> {
    begun: Option<Instant>,
    /// Of the run: its own and those of the groups around.
    deadline: Deadline,
    listen: Listen,
    /// The end of the attempt's own time, if it has any.
    limit: Option<(Instant, Duration)>,
    /// What the timer was last set to for an attempt.
    armed: Option<Instant>,
    backoff: Option<Backoff>,
    previous: Option<Duration>,
    slept: Duration,
    taken: Option<Taken<'p>>,
}

impl Rare<'_> {
    const fn new() -> Self {
        Self {
            begun: None,
            deadline: Deadline::NEVER,
            listen: Listen::Nobody,
            limit: None,
            armed: None,
            backoff: None,
            previous: None,
            slept: Duration::ZERO,
            taken: None,
        }
    }

    fn is_cancelled(&self) -> bool {
        match &self.listen {
            Listen::To(token) | Listen::Looking(token) => token.is_cancelled(),
            Listen::Ambient | Listen::Nobody => false,
        }
    }

    fn now(&mut self) -> Instant {
        let now = Instant::now();
        self.begun.get_or_insert(now);
        now
    }
}

impl<'p> Engine<'p> {
    #[inline(always)]
    pub(super) const fn new(policy: &'p Retry, options: Option<Options<'p>>) -> Self {
        Self {
            policy,
            options,
            attempts: 0,
            rare: None,
        }
    }

    #[inline(always)]
    fn is_plain(&self) -> bool {
        self.options.is_none() && self.rare.is_none()
    }

    fn rare(&mut self) -> &mut Rare<'p> {
        self.rare.get_or_insert_with(Rare::new)
    }

    /// Reads the clock, which starts the run's time (E3).
    fn now(&mut self) -> Instant {
        self.rare().now()
    }

    pub(super) fn elapsed(&self) -> Duration {
        let begun = self.rare.as_ref().and_then(|rare| rare.begun);
        begun.map_or(Duration::ZERO, |begun| begun.elapsed())
    }

    pub(super) fn slept(&self) -> Duration {
        self.rare.as_ref().map_or(Duration::ZERO, |rare| rare.slept)
    }

    pub(super) fn history(&self) -> usize {
        self.options.as_ref().map_or(0, |options| options.history)
    }

    pub(super) fn after_timeout(&self) -> Verdict {
        let told = self.options.as_ref().map(|options| options.after_timeout);
        told.unwrap_or(Verdict::Retry)
    }

    /// Asks to begin an attempt.
    #[inline(always)]
    pub(super) fn begin(&mut self) -> Result<Attempt, RetryReason> {
        if !self.is_plain() {
            return self.begin_told(None);
        }
        if self.attempts == 0 {
            let around = crate::context::current();
            if around.is_some() {
                return self.begin_told(around);
            }
        }
        self.attempts = self.attempts.saturating_add(1);
        Ok(Attempt {
            number: self.attempts,
            deadline: Deadline::NEVER,
            elapsed: Duration::ZERO,
            previous_delay: None,
        })
    }

    #[inline(never)]
    fn begin_told(&mut self, around: Option<Around>) -> Result<Attempt, RetryReason> {
        if self.attempts == 0 {
            self.look_around(around);
        }
        let number = self.attempts.saturating_add(1);
        let timeout = self
            .options
            .as_ref()
            .and_then(|options| options.attempt_timeout.of(number));
        let rare = self.rare.get_or_insert_with(Rare::new);
        rare.limit = None;
        rare.armed = None;
        let mut elapsed = Duration::ZERO;
        let mut deadline = rare.deadline;
        if deadline != Deadline::NEVER || timeout.is_some() || rare.begun.is_some() {
            let now = rare.now();
            elapsed = rare.begun.map_or(elapsed, |begun| now - begun);
            if deadline.instant().is_some_and(|at| at <= now) {
                return Err(RetryReason::Deadline);
            }
            let end = timeout.and_then(|timeout| now.checked_add(timeout));
            if let Some((end, timeout)) = end.zip(timeout) {
                if Deadline::at(end) < deadline {
                    deadline = Deadline::at(end);
                    rare.limit = Some((end, timeout));
                }
            }
        }
        if rare.is_cancelled() {
            return Err(RetryReason::Cancelled);
        }
        if let Some(taken) = &mut rare.taken {
            taken.use_up();
        }
        self.attempts = number;
        Ok(Attempt {
            number,
            deadline,
            elapsed,
            previous_delay: rare.previous,
        })
    }

    /// Inherits what the groups around set.
    fn look_around(&mut self, around: Option<Around>) {
        let (own, listen) = match &mut self.options {
            Some(options) => (options.deadline, std::mem::take(&mut options.listen)),
            None => (Deadline::NEVER, Listen::Ambient),
        };
        let around = around.or_else(crate::context::current);
        let rare = self.rare();
        rare.deadline = own;
        rare.listen = listen;
        let Some((core, serial)) = around else { return };
        rare.deadline = own.min(crate::context::deadline());
        // In a shield nobody is asked to end.
        let is_exposed = !crate::context::is_inside_shield();
        if matches!(rare.listen, Listen::Ambient) && is_exposed {
            let is_graceful = std::iter::successors(Some(&core), |core| core.parent())
                .any(|core| core.has_grace());
            let token = Token::of(core, serial);
            rare.listen = if is_graceful {
                Listen::To(token)
            } else {
                Listen::Looking(token)
            };
        }
    }

    /// The attempt's limit in time, if there is one: it fires at the instant, and is the attempt's own if a duration is there.
    fn limit(&self) -> Option<(Instant, Option<Duration>)> {
        let rare = self.rare.as_ref()?;
        match rare.limit {
            Some((at, timeout)) => Some((at, Some(timeout))),
            None => rare.deadline.instant().map(|at| (at, None)),
        }
    }

    /// The run ends well.
    #[inline(always)]
    pub(super) fn succeeded(&mut self) {
        if !self.is_plain() {
            self.succeeded_told();
        }
    }

    #[inline(never)]
    fn succeeded_told(&mut self) {
        if let Some(taken) = self.rare.as_mut().and_then(|rare| rare.taken.take()) {
            taken.settle();
        }
        if let Some(budget) = self.options.as_ref().and_then(|options| options.budget) {
            budget.succeeded();
        }
    }

    /// Decides what follows an attempt that was not good (E1).
    #[inline(always)]
    pub(super) fn next(&mut self, verdict: Verdict) -> Result<(Pause, Duration), RetryReason> {
        if !self.is_plain() || self.policy.pauses {
            return self.next_told(verdict);
        }
        match verdict {
            Verdict::Done | Verdict::Permanent => Err(RetryReason::Permanent),
            _ if self.are_exhausted() => Err(RetryReason::AttemptsExhausted),
            _ => Ok((Pause::Skip, Duration::ZERO)),
        }
    }

    #[inline]
    fn are_exhausted(&self) -> bool {
        let most = self.policy.attempts;
        most.is_some_and(|most| self.attempts >= most.get())
    }

    #[inline(never)]
    fn next_told(&mut self, verdict: Verdict) -> Result<(Pause, Duration), RetryReason> {
        let (policy, is_exhausted) = (self.policy, self.are_exhausted());
        let (stream, budget) = match &self.options {
            Some(options) => (options.stream, options.budget),
            None => (0, None),
        };
        let rare = self.rare.get_or_insert_with(Rare::new);
        if let Some(taken) = rare.taken.take() {
            taken.spend();
        }
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
        if policy.pauses {
            // A hint takes the place of one step.
            let backoff = rare.backoff.get_or_insert_with(|| policy.backoff(stream));
            delay = backoff.next(&policy.curve);
            if !hint.is_zero() {
                if hint > policy.max_hint {
                    return Err(RetryReason::HintTooLong);
                }
                let floor = Duration::from_nanos(policy.curve.floor);
                delay = hint.min(LONGEST).max(floor);
            }
            pause = Pause::Yield;
        }
        if !delay.is_zero() || rare.deadline != Deadline::NEVER {
            let at = rare.now() + delay;
            // E2
            if Deadline::at(at) >= rare.deadline {
                return Err(RetryReason::Deadline);
            }
            if !delay.is_zero() {
                pause = Pause::Until(at);
            }
        }
        if let Some(budget) = budget {
            rare.taken = Some(budget.take().ok_or(RetryReason::BudgetExhausted)?);
        }
        if rare.is_cancelled() {
            rare.taken = None;
            return Err(RetryReason::Cancelled);
        }
        rare.previous = Some(delay);
        Ok((pause, delay))
    }

    /// The run is over without success: nothing is held any longer (E4).
    pub(super) fn give_up(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.taken = None;
        }
    }

    /// Adds a pause that is over: all of it, or as much as there was of it.
    fn rested(&mut self, pause: Pause) {
        let rare = self.rare();
        if let (Pause::Until(at), Some(delay)) = (pause, rare.previous) {
            let left = at.saturating_duration_since(Instant::now());
            rare.slept += delay.saturating_sub(left);
        }
    }
}

/// How an attempt ended.
pub(super) enum AttemptEnd<O> {
    Output(O),
    TimedOut(Duration),
    /// The run's own deadline passed.
    Late,
}

/// Polls an attempt, then what limits it in time.
#[inline(always)]
pub(super) fn poll_attempt<F: Future>(
    attempt: Pin<&mut F>,
    engine: &mut Engine<'_>,
    waiting: Pin<&mut Option<Waiting>>,
    cx: &mut Context<'_>,
) -> Poll<AttemptEnd<F::Output>> {
    if engine.is_plain() {
        let polled = attempt.poll(cx).map(AttemptEnd::Output);
        if polled.is_pending() {
            engine.now();
        }
        return polled;
    }
    let limit = engine.limit();
    let had_budget = limit.is_some() && coop::has_budget_remaining();
    if let Poll::Ready(output) = attempt.poll(cx) {
        return Poll::Ready(AttemptEnd::Output(output));
    }
    let Some((at, timeout)) = limit else {
        engine.now();
        return Poll::Pending;
    };
    let is_out_of_turns = had_budget && !coop::has_budget_remaining();
    engine
        .poll_limit(at, Waiting::made(waiting), cx, is_out_of_turns)
        .map(|()| match timeout {
            Some(timeout) => AttemptEnd::TimedOut(timeout),
            None => AttemptEnd::Late,
        })
}

impl Engine<'_> {
    /// Waits for the end of an attempt's time.
    #[inline(never)]
    fn poll_limit(
        &mut self,
        at: Instant,
        mut waiting: Pin<&mut Waiting>,
        cx: &mut Context<'_>,
        is_out_of_turns: bool,
    ) -> Poll<()> {
        // The timer is made or moved when the attempt is first pending.
        let armed = &mut self.rare().armed;
        if *armed != Some(at) {
            *armed = Some(at);
            waiting.as_mut().set(at);
        }
        waiting.poll_timer(cx, is_out_of_turns)
    }
}

pin_project! {
    /// The one timer of a run, for attempts and pauses in turn, and the ear for a cancel.
    pub(super) struct Waiting {
        #[pin]
        timer: Option<Timer>,
        cancelled: Option<Cancelled>,
        pause: Pause,
        has_yielded: bool,
    }
}

impl Waiting {
    const fn new() -> Self {
        Self {
            timer: None,
            cancelled: None,
            pause: Pause::Skip,
            has_yielded: false,
        }
    }

    /// Makes it, where there is none yet.
    pub(super) fn made(mut slot: Pin<&mut Option<Self>>) -> Pin<&mut Self> {
        if slot.is_none() {
            slot.set(Some(Self::new()));
        }
        let Some(waiting) = slot.as_pin_mut() else {
            unreachable!("it was made")
        };
        waiting
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

    /// Prepares the wait for a pause.
    pub(super) fn pause(mut self: Pin<&mut Self>, pause: Pause) {
        let this = self.as_mut().project();
        (*this.pause, *this.has_yielded) = (pause, false);
        if let Pause::Until(at) = pause {
            self.set(at);
        }
    }

    /// Waits until the pause is over, or the task is asked to end.
    pub(super) fn poll_pause(
        mut self: Pin<&mut Self>,
        engine: &mut Engine<'_>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RetryReason>> {
        let this = self.as_mut().project();
        let pause = *this.pause;
        if let Listen::To(token) = &engine.rare().listen {
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

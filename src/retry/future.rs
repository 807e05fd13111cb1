//! A run as a future, and what is kept of its outcomes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;

use super::attempts::{Attempt, Engine, Pause, Waiting};
use super::error::{RetryError, RetryReason};
use super::event::{Hook, RetryEvent};
use super::verdict::{Judge, Judged, Verdict};

/// How an attempt ended.
pub(super) enum AttemptEnd<O> {
    Output(O),
    TimedOut(Duration),
    /// The run's own deadline passed.
    Late,
}

/// Polls an attempt, then what limits it in time.
pub(super) fn poll_attempt<F: Future>(
    attempt: Pin<&mut F>,
    engine: &mut Engine<'_>,
    mut waiting: Pin<&mut Waiting>,
    cx: &mut Context<'_>,
) -> Poll<AttemptEnd<F::Output>> {
    let limit = engine.limit();
    let had_budget = limit.is_some() && coop::has_budget_remaining();
    if let Poll::Ready(output) = attempt.poll(cx) {
        return Poll::Ready(AttemptEnd::Output(output));
    }
    let Some((at, timeout)) = limit else {
        engine.now();
        return Poll::Pending;
    };
    // A timer is made or moved when the attempt is first pending.
    if engine.armed != Some(at) {
        engine.armed = Some(at);
        waiting.as_mut().set(at);
    }
    let spent = had_budget && !coop::has_budget_remaining();
    if waiting.poll_timer(cx, spent).is_pending() {
        return Poll::Pending;
    }
    Poll::Ready(match timeout {
        Some(timeout) => AttemptEnd::TimedOut(timeout),
        None => AttemptEnd::Late,
    })
}

/// What follows an attempt that brought no value.
pub(super) enum Next {
    Decide(Verdict),
    GiveUp,
}

/// What is kept of outcomes, and who hears of them.
pub(super) struct Telling<H, E, V> {
    hook: H,
    last: Option<Result<V, E>>,
    earlier: Vec<E>,
    timed_out: Option<Duration>,
}

impl<H, E, V> Telling<H, E, V> {
    pub(super) const fn new(hook: H) -> Self {
        Self {
            hook,
            last: None,
            earlier: Vec::new(),
            timed_out: None,
        }
    }
}

impl<H: Hook<E, V>, E, V> Telling<H, E, V> {
    #[inline]
    pub(super) fn take<T, J: Judge<T, E, Kept = V>>(
        &mut self,
        ended: AttemptEnd<Result<T, E>>,
        judge: &mut J,
        engine: &Engine<'_>,
    ) -> Result<T, Next> {
        self.timed_out = None;
        match ended {
            AttemptEnd::Output(outcome) => match judge.judge(outcome) {
                Judged::Done(value) => Ok(value),
                Judged::Not(outcome, verdict) => {
                    self.keep(outcome, engine.options.history);
                    Err(Next::Decide(verdict))
                }
            },
            AttemptEnd::TimedOut(timeout) => {
                self.timed_out = Some(timeout);
                Err(Next::Decide(engine.options.after_timeout))
            }
            AttemptEnd::Late => Err(Next::GiveUp),
        }
    }

    pub(super) fn keep(&mut self, outcome: Result<V, E>, history: usize) {
        if let Some(Err(before)) = self.last.replace(outcome) {
            if history > 0 {
                if self.earlier.len() == history {
                    self.earlier.remove(0);
                }
                self.earlier.push(before);
            }
        }
    }

    pub(super) fn next(
        &mut self,
        engine: &mut Engine<'_>,
        verdict: Verdict,
    ) -> Result<Pause, RetryReason> {
        let (pause, delay) = engine.next(verdict)?;
        crate::trace::retrying(engine.attempts, delay, || engine.elapsed());
        if H::LISTENS {
            self.hook.tell(&RetryEvent::Pausing {
                attempt: engine.attempts,
                delay,
                elapsed: engine.elapsed(),
                last: self.last.as_ref().map(Result::as_ref),
            });
        }
        Ok(pause)
    }

    #[cold]
    pub(super) fn give_up(
        &mut self,
        engine: &mut Engine<'_>,
        reason: RetryReason,
    ) -> RetryError<E, V> {
        engine.give_up();
        let error = RetryError {
            reason,
            attempts: engine.attempts,
            elapsed: engine.elapsed(),
            timed_out: self.timed_out,
            last: self.last.take(),
            earlier: std::mem::take(&mut self.earlier),
        };
        crate::trace::gave_up(error.attempts, error.elapsed, &error.reason);
        if H::LISTENS {
            self.hook.tell(&RetryEvent::GaveUp {
                reason,
                attempts: error.attempts,
                elapsed: error.elapsed,
                last: error.last(),
            });
        }
        error
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Begin,
    Attempt,
    Pause(Pause),
    /// Done; or user code is running, and has panicked if somebody sees this.
    Over,
}

pin_project! {
    /// The future of [`Retry::retry`](super::Retry::retry).
    ///
    /// # Cancel safety
    ///
    /// Dropping it drops the attempt that runs, and no other is made.
    #[must_use = "futures do nothing unless polled"]
    pub struct RetryFuture<'p, Op, Fut, J, H, E, V> {
        op: Op,
        judge: J,
        telling: Telling<H, E, V>,
        engine: Engine<'p>,
        phase: Phase,
        #[pin]
        attempt: Option<Fut>,
        #[pin]
        waiting: Waiting,
    }
}

impl<'p, Op, Fut, J, H, E, V> RetryFuture<'p, Op, Fut, J, H, E, V> {
    #[inline]
    pub(super) const fn new(op: Op, judge: J, hook: H, engine: Engine<'p>) -> Self {
        Self {
            op,
            judge,
            telling: Telling::new(hook),
            engine,
            phase: Phase::Begin,
            attempt: None,
            waiting: Waiting::new(),
        }
    }
}

impl<Op, Fut, T, E, J, H> Future for RetryFuture<'_, Op, Fut, J, H, E, J::Kept>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: Hook<E, J::Kept>,
{
    type Output = Result<T, RetryError<E, J::Kept>>;

    #[inline]
    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            // Whatever user code does, it is called with the run over: a panic leaves it so.
            let reason = match std::mem::replace(this.phase, Phase::Over) {
                Phase::Begin => match this.engine.begin() {
                    Ok(attempt) => {
                        let future = (this.op)(attempt);
                        this.attempt.set(Some(future));
                        *this.phase = Phase::Attempt;
                        continue;
                    }
                    Err(reason) => reason,
                },
                Phase::Attempt => {
                    let Some(attempt) = this.attempt.as_mut().as_pin_mut() else {
                        unreachable!("the attempt is there while it is tried")
                    };
                    let polled = poll_attempt(attempt, this.engine, this.waiting.as_mut(), cx);
                    let Poll::Ready(ended) = polled else {
                        *this.phase = Phase::Attempt;
                        return Poll::Pending;
                    };
                    // Gone before anything else happens, with all that it captured.
                    this.attempt.set(None);
                    match this.telling.take(ended, this.judge, this.engine) {
                        Ok(value) => {
                            this.engine.succeeded();
                            return Poll::Ready(Ok(value));
                        }
                        Err(Next::GiveUp) => RetryReason::Deadline,
                        Err(Next::Decide(verdict)) => {
                            match this.telling.next(this.engine, verdict) {
                                Ok(pause) => {
                                    *this.phase = if this.waiting.as_mut().pause(pause) {
                                        Phase::Pause(pause)
                                    } else {
                                        Phase::Begin
                                    };
                                    continue;
                                }
                                Err(reason) => reason,
                            }
                        }
                    }
                }
                Phase::Pause(pause) => {
                    match this.waiting.as_mut().poll_pause(pause, this.engine, cx) {
                        Poll::Ready(Ok(())) => {
                            *this.phase = Phase::Begin;
                            continue;
                        }
                        Poll::Ready(Err(reason)) => reason,
                        Poll::Pending => {
                            *this.phase = Phase::Pause(pause);
                            return Poll::Pending;
                        }
                    }
                }
                Phase::Over => panic!("ringfence: a retry was polled after it was over"),
            };
            return Poll::Ready(Err(this.telling.give_up(this.engine, reason)));
        }
    }
}

impl<Op, Fut, J, H, E, V> fmt::Debug for RetryFuture<'_, Op, Fut, J, H, E, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture")
            .field("attempts", &self.engine.attempts)
            .finish_non_exhaustive()
    }
}

/// How a run went: see [`Run::report`](super::Run::report).
#[derive(Debug)]
#[non_exhaustive]
pub struct RetryReport<T, R> {
    /// What the run would have given by itself.
    pub result: Result<T, R>,
    /// How many attempts were made.
    pub attempts: u32,
    /// How long it took; see [`Attempt::elapsed`].
    pub elapsed: Duration,
    /// How much of that were pauses.
    pub slept: Duration,
}

pin_project! {
    /// The future of [`Run::report`](super::Run::report).
    ///
    /// # Cancel safety
    ///
    /// As [`RetryFuture`].
    #[must_use = "futures do nothing unless polled"]
    #[derive(Debug)]
    pub struct Reporting<'p, Op, Fut, J, H, E, V> {
        #[pin]
        pub(super) run: RetryFuture<'p, Op, Fut, J, H, E, V>,
    }
}

impl<Op, Fut, T, E, J, H> Future for Reporting<'_, Op, Fut, J, H, E, J::Kept>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: Future<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: Hook<E, J::Kept>,
{
    type Output = RetryReport<T, RetryError<E, J::Kept>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut run = self.project().run;
        let result = ready!(run.as_mut().poll(cx));
        let engine = run.project().engine;
        Poll::Ready(RetryReport {
            result,
            attempts: engine.attempts,
            elapsed: engine.elapsed(),
            slept: engine.slept,
        })
    }
}

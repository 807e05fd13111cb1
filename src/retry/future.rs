//! A run as a future, and what is kept of its outcomes.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::attempts::{Attempt, AttemptEnd, Engine, Pause, Waiting, poll_attempt};
use super::error::{RetryError, RetryReason};
use super::event::{Hook, RetryEvent};
use super::verdict::{Judge, Judged, Verdict};

/// What follows an attempt that brought no value.
pub(super) enum Next {
    Decide(Verdict),
    GiveUp,
}

/// What is kept of outcomes, and who hears of them.
pub(super) struct Telling<H, E, V> {
    hook: H,
    kept: Option<Kept<E, V>>,
}

struct Kept<E, V> {
    last: Option<Result<V, E>>,
    earlier: Vec<E>,
    timed_out: Option<Duration>,
}

impl<H, E, V> Telling<H, E, V> {
    #[inline(always)]
    pub(super) const fn new(hook: H) -> Self {
        Self { hook, kept: None }
    }

    fn kept(&mut self) -> &mut Kept<E, V> {
        self.kept.get_or_insert(Kept {
            last: None,
            earlier: Vec::new(),
            timed_out: None,
        })
    }
}

impl<H: Hook<E, V>, E, V> Telling<H, E, V> {
    #[inline(always)]
    pub(super) fn take<T, J: Judge<T, E, Kept = V>>(
        &mut self,
        ended: AttemptEnd<Result<T, E>>,
        judge: &mut J,
        engine: &Engine<'_>,
    ) -> Result<T, Next> {
        match ended {
            AttemptEnd::Output(outcome) => match judge.judge(outcome) {
                Judged::Done(value) => Ok(value),
                Judged::Not(outcome, verdict) => {
                    self.keep(outcome, engine.history());
                    Err(Next::Decide(verdict))
                }
            },
            AttemptEnd::TimedOut(timeout) => {
                self.kept().timed_out = Some(timeout);
                Err(Next::Decide(engine.after_timeout()))
            }
            AttemptEnd::Late => {
                self.kept().timed_out = None;
                Err(Next::GiveUp)
            }
        }
    }

    pub(super) fn keep(&mut self, outcome: Result<V, E>, history: usize) {
        let kept = self.kept();
        kept.timed_out = None;
        if let Some(Err(before)) = kept.last.replace(outcome) {
            if history > 0 {
                if kept.earlier.len() == history {
                    kept.earlier.remove(0);
                }
                kept.earlier.push(before);
            }
        }
    }

    #[inline]
    pub(super) fn next(
        &mut self,
        engine: &mut Engine<'_>,
        verdict: Verdict,
    ) -> Result<Pause, RetryReason> {
        let (pause, delay) = engine.next(verdict)?;
        crate::trace::retrying(engine.attempts, delay, || engine.elapsed());
        if H::LISTENS {
            let last = self.kept.as_ref().and_then(|kept| kept.last.as_ref());
            self.hook.tell(&RetryEvent::Pausing {
                attempt: engine.attempts,
                delay,
                elapsed: engine.elapsed(),
                last: last.map(Result::as_ref),
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
        let kept = self.kept();
        let error = RetryError {
            reason,
            attempts: engine.attempts,
            elapsed: engine.elapsed(),
            timed_out: kept.timed_out,
            last: kept.last.take(),
            earlier: std::mem::take(&mut kept.earlier),
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
pub(super) enum Phase {
    Begin,
    Attempt,
    Pause,
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
        pub(super) op: Op,
        pub(super) judge: J,
        pub(super) telling: Telling<H, E, V>,
        pub(super) engine: Engine<'p>,
        pub(super) phase: Phase,
        #[pin]
        pub(super) attempt: Option<Fut>,
        #[pin]
        pub(super) waiting: Option<Waiting>,
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

    #[inline(always)]
    #[track_caller]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        // Whatever user code does, it is called with the run over: a panic leaves it so.
        let mut phase = std::mem::replace(this.phase, Phase::Over);
        assert!(
            phase != Phase::Over,
            "ringfence: a retry was polled after it was over"
        );
        let reason = loop {
            if phase == Phase::Pause {
                let waiting = Waiting::made(this.waiting.as_mut());
                match waiting.poll_pause(this.engine, cx) {
                    Poll::Ready(Ok(())) => phase = Phase::Begin,
                    Poll::Ready(Err(reason)) => break reason,
                    Poll::Pending => {
                        *this.phase = Phase::Pause;
                        return Poll::Pending;
                    }
                }
            }
            if phase == Phase::Begin {
                match this.engine.begin() {
                    Ok(attempt) => {
                        let future = (this.op)(attempt);
                        this.attempt.set(Some(future));
                    }
                    Err(reason) => break reason,
                }
            }
            let Some(attempt) = this.attempt.as_mut().as_pin_mut() else {
                unreachable!("it was set above, or is still there")
            };
            let polled = poll_attempt(attempt, this.engine, this.waiting.as_mut(), cx);
            let Poll::Ready(ended) = polled else {
                *this.phase = Phase::Attempt;
                return Poll::Pending;
            };
            // Gone before anything else happens, with all that it captured.
            this.attempt.set(None);
            let verdict = match this.telling.take(ended, this.judge, this.engine) {
                Ok(value) => {
                    this.engine.succeeded();
                    return Poll::Ready(Ok(value));
                }
                Err(Next::Decide(verdict)) => verdict,
                Err(Next::GiveUp) => break RetryReason::Deadline,
            };
            match this.telling.next(this.engine, verdict) {
                Ok(Pause::Skip) => phase = Phase::Begin,
                Ok(pause) => {
                    Waiting::made(this.waiting.as_mut()).pause(pause);
                    phase = Phase::Pause;
                }
                Err(reason) => break reason,
            }
        };
        Poll::Ready(Err(this.telling.give_up(this.engine, reason)))
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
            slept: engine.slept(),
        })
    }
}

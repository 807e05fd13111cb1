//! A run as a future.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::Retry;
use super::attempts::{Attempt, Engine, Pause};
use super::error::RetryError;
use super::event::Hook;
use super::verdict::Judge;
use super::waiting::{Waiting, poll_attempt};

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
        pub(super) policy: Retry,
        pub(super) op: Op,
        pub(super) judge: J,
        pub(super) hook: H,
        pub(super) engine: Engine<'p, E, V>,
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
        let engine = this.engine;
        // Whatever user code does, it is called with the run over: a panic leaves it so.
        let mut phase = std::mem::replace(this.phase, Phase::Over);
        assert!(
            phase != Phase::Over,
            "ringfence: a retry was polled after it was over"
        );
        loop {
            if phase == Phase::Pause {
                match Waiting::made(this.waiting.as_mut()).poll_pause(engine, cx) {
                    Poll::Ready(Ok(())) => phase = Phase::Begin,
                    Poll::Ready(Err(reason)) => {
                        return Poll::Ready(Err(engine.give_up(this.hook, reason)));
                    }
                    Poll::Pending => {
                        *this.phase = Phase::Pause;
                        return Poll::Pending;
                    }
                }
            }
            if phase == Phase::Begin {
                match engine.begin() {
                    Ok(attempt) => {
                        let future = (this.op)(attempt);
                        this.attempt.set(Some(future));
                    }
                    Err(reason) => return Poll::Ready(Err(engine.give_up(this.hook, reason))),
                }
            }
            let Some(attempt) = this.attempt.as_mut().as_pin_mut() else {
                unreachable!("it was set above, or is still there")
            };
            let polled = poll_attempt(attempt, engine, this.waiting.as_mut(), cx);
            let Poll::Ready(ended) = polled else {
                *this.phase = Phase::Attempt;
                return Poll::Pending;
            };
            // Gone before anything else happens, with all that it captured.
            this.attempt.set(None);
            match engine.take(this.policy, (&mut *this.judge, &mut *this.hook), ended) {
                Ok(ControlFlow::Break(value)) => return Poll::Ready(Ok(value)),
                Ok(ControlFlow::Continue(Pause::Skip)) => phase = Phase::Begin,
                Ok(ControlFlow::Continue(pause)) => {
                    Waiting::made(this.waiting.as_mut()).pause(pause);
                    phase = Phase::Pause;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
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
            slept: engine.slept(),
        })
    }
}

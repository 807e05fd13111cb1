//! A run as a future.
//!
//! P1. A *plain* run was told nothing, is in no group, and has not waited: it keeps nothing but a number, reads no clock, and
//! the outcome of an attempt that another one follows is gone at once. All else is the engine's. P2. An attempt is gone
//! before anything else happens, with all that it captured. P3. Whatever user code does, it is called with the run over:
//! a panic leaves it so.

use std::fmt;
use std::future::Future;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;

use super::Retry;
use super::attempts::{Attempt, Engine, Options, Pause};
use super::error::RetryError;
use super::event::Hook;
use super::verdict::{Judge, Judged, Verdict};
use super::waiting::{Waiting, poll_attempt};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Nothing has happened yet, and nothing was told: it may be plain.
    Fresh,
    Begin,
    Attempt,
    Pause,
    /// Done; or user code is running, and has panicked if somebody sees this.
    Over,
}

pin_project! {
    /// What a run has that is not plain.
    #[project = StageProj]
    pub(super) enum Stage<'p, E, V> {
        /// What it was told, and has not begun with.
        Told { options: Options<'p> },
        Full {
            #[pin]
            rest: Rest<'p, E, V>,
        },
    }
}

pin_project! {
    /// What is dropped out of line: a plain run, which has none, looks at one tag and is done.
    pub(super) struct Apart<T> {
        #[pin]
        inner: Option<T>,
    }
    impl<T> PinnedDrop for Apart<T> {
        fn drop(this: Pin<&mut Self>) {
            empty(this.project().inner);
        }
    }
}

#[inline(never)]
fn empty<T>(mut slot: Pin<&mut Option<T>>) {
    slot.set(None);
}

impl<T> Apart<T> {
    pub(super) const fn new(inner: T) -> Self {
        Self { inner: Some(inner) }
    }
}

impl<'p, E, V> Stage<'p, E, V> {
    /// Makes the engine of a run that has made so many attempts, where there is none yet.
    fn full(mut slot: Pin<&mut Option<Apart<Self>>>, attempts: u32) -> Pin<&mut Rest<'p, E, V>> {
        let stage = slot
            .as_mut()
            .as_pin_mut()
            .and_then(|apart| apart.project().inner.as_pin_mut());
        let options = match stage.map(Self::project) {
            None => Some(Options::new()),
            Some(StageProj::Told { options }) => Some(std::mem::replace(options, Options::new())),
            Some(StageProj::Full { .. }) => None,
        };
        if let Some(options) = options {
            let engine = Engine::after(attempts, options);
            let waiting = None;
            let rest = Rest { engine, waiting };
            slot.set(Some(Apart::new(Self::Full { rest })));
        }
        let stage = slot
            .as_pin_mut()
            .and_then(|apart| apart.project().inner.as_pin_mut());
        match stage.map(Self::project) {
            Some(StageProj::Full { rest }) => rest,
            Some(StageProj::Told { .. }) | None => unreachable!("it was made"),
        }
    }
}

pin_project! {
    /// The engine, and its timer.
    pub(super) struct Rest<'p, E, V> {
        engine: Engine<'p, E, V>,
        #[pin]
        waiting: Option<Waiting>,
    }
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
        // As long as it is plain (P1).
        pub(super) attempts: u32,
        pub(super) phase: Phase,
        #[pin]
        pub(super) attempt: Option<Fut>,
        #[pin]
        pub(super) stage: Option<Apart<Stage<'p, E, V>>>,
    }
}

impl<'p, Op, Fut, J, H, E, V> RetryFuture<'p, Op, Fut, J, H, E, V> {
    fn engine(&self) -> Option<&Engine<'p, E, V>> {
        match self.stage.as_ref()?.inner.as_ref() {
            Some(Stage::Full { rest }) => Some(&rest.engine),
            Some(Stage::Told { .. }) | None => None,
        }
    }

    fn attempts(&self) -> u32 {
        self.engine()
            .map_or(self.attempts, |engine| engine.attempts)
    }
}

impl<Op, Fut, T, E, J, H> Future for RetryFuture<'_, Op, Fut::IntoFuture, J, H, E, J::Kept>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: Hook<E, J::Kept>,
{
    type Output = Result<T, RetryError<E, J::Kept>>;

    #[inline(always)]
    #[track_caller]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.phase != Phase::Fresh || crate::context::is_in_a_group() {
            return self.poll_told(cx);
        }
        let mut this = self.as_mut().project();
        *this.phase = Phase::Over; // P3
        let mut number = 0;
        loop {
            number += 1;
            let future = (this.op)(Attempt::plain(number)).into_future();
            this.attempt.set(Some(future));
            let Some(attempt) = this.attempt.as_mut().as_pin_mut() else {
                unreachable!("it was set above")
            };
            let polled = attempt.poll(cx);
            *this.attempts = number;
            let Poll::Ready(outcome) = polled else {
                self.wait();
                return Poll::Pending;
            };
            this.attempt.set(None); // P2
            match this.judge.judge(outcome) {
                Judged::Done(value) => return Poll::Ready(Ok(value)),
                Judged::Not(outcome, verdict) => {
                    let goes_on = matches!(verdict, Verdict::Retry | Verdict::RetryAfter(_))
                        && !this.policy.pauses
                        && !this.policy.is_exhausted(number);
                    if H::LISTENS || !goes_on {
                        return self.fail(outcome, verdict, cx);
                    }
                    crate::trace::retrying(number, Duration::ZERO, || Duration::ZERO);
                }
            }
        }
    }
}

impl<Op, Fut, T, E, J, H> RetryFuture<'_, Op, Fut::IntoFuture, J, H, E, J::Kept>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: Hook<E, J::Kept>,
{
    /// The attempt of a plain run has to wait.
    #[inline(never)]
    fn wait(self: Pin<&mut Self>) {
        let this = self.project();
        let rest = Stage::full(this.stage, *this.attempts).project();
        rest.engine.start_clock();
        *this.phase = Phase::Attempt;
    }

    /// The attempt of a plain run has ended so that the run waits, or gives up.
    #[inline(never)]
    fn fail(
        mut self: Pin<&mut Self>,
        outcome: Result<J::Kept, E>,
        verdict: Verdict,
        cx: &mut Context<'_>,
    ) -> Poll<<Self as Future>::Output> {
        let this = self.as_mut().project();
        let rest = Stage::full(this.stage, *this.attempts).project();
        match rest.engine.failed(this.policy, this.hook, outcome, verdict) {
            Ok(pause) => {
                *this.phase = rested(rest.waiting, pause);
                self.poll_told(cx)
            }
            Err(error) => Poll::Ready(Err(error)),
        }
    }

    /// Polls a run that is not plain.
    #[inline(never)]
    #[track_caller]
    fn poll_told(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<<Self as Future>::Output> {
        let mut this = self.project();
        let mut phase = std::mem::replace(this.phase, Phase::Over); // P3
        match phase {
            Phase::Fresh => phase = Phase::Begin,
            Phase::Begin | Phase::Attempt | Phase::Pause => {}
            Phase::Over => panic!("ringfence: a retry was polled after it was over"),
        }
        let rest = Stage::full(this.stage, *this.attempts).project();
        let (engine, mut waiting) = (rest.engine, rest.waiting);
        engine.look_around();
        loop {
            if phase == Phase::Pause {
                match Waiting::made(waiting.as_mut()).poll_pause(engine, cx) {
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
                        let future = (this.op)(attempt).into_future();
                        this.attempt.set(Some(future));
                    }
                    Err(reason) => return Poll::Ready(Err(engine.give_up(this.hook, reason))),
                }
            }
            let Some(attempt) = this.attempt.as_mut().as_pin_mut() else {
                unreachable!("it was set above, or is still there")
            };
            let Poll::Ready(ended) = poll_attempt(attempt, engine, waiting.as_mut(), cx) else {
                *this.phase = Phase::Attempt;
                return Poll::Pending;
            };
            this.attempt.set(None); // P2
            match engine.take(this.policy, (&mut *this.judge, &mut *this.hook), ended) {
                Ok(ControlFlow::Break(value)) => return Poll::Ready(Ok(value)),
                Ok(ControlFlow::Continue(pause)) => phase = rested(waiting.as_mut(), pause),
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

/// Prepares the pause, and says where that leads.
fn rested(waiting: Pin<&mut Option<Waiting>>, pause: Pause) -> Phase {
    if pause == Pause::Skip {
        return Phase::Begin;
    }
    Waiting::made(waiting).pause(pause);
    Phase::Pause
}

impl<Op, Fut, J, H, E, V> fmt::Debug for RetryFuture<'_, Op, Fut, J, H, E, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryFuture")
            .field("attempts", &self.attempts())
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
    /// How much of that were pauses, as long as they were.
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

impl<Op, Fut, T, E, J, H> Future for Reporting<'_, Op, Fut::IntoFuture, J, H, E, J::Kept>
where
    Op: FnMut(Attempt) -> Fut,
    Fut: IntoFuture<Output = Result<T, E>>,
    J: Judge<T, E>,
    H: Hook<E, J::Kept>,
{
    type Output = RetryReport<T, RetryError<E, J::Kept>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut run = self.project().run;
        let result = ready!(run.as_mut().poll(cx));
        let engine = run.engine();
        Poll::Ready(RetryReport {
            result,
            attempts: run.attempts(),
            elapsed: engine.map_or(Duration::ZERO, Engine::elapsed),
            slept: engine.map_or(Duration::ZERO, Engine::slept),
        })
    }
}

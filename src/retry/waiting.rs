//! The waits of a run: the end of an attempt's time, and the pause between two attempts.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::coop;
use tokio::time::Instant;

use super::attempts::{Engine, Pause};
use super::budget::RetryBudget;
use super::error::RetryReason;
use crate::detail::{self, WaitsFor};
use crate::runtime::Timer;

/// How an attempt ended.
pub(super) enum AttemptEnd<O> {
    Output(O),
    TimedOut(Duration),
    /// The run's own deadline passed.
    Late,
}

/// Polls an attempt, then what limits it in time.
pub(super) fn poll_attempt<F: Future, E, V>(
    attempt: Pin<&mut F>,
    engine: &mut Engine<'_, E, V>,
    waiting: Pin<&mut Option<Waiting>>,
    cx: &mut Context<'_>,
) -> Poll<AttemptEnd<F::Output>> {
    let limit = engine.limit();
    let had_turns = limit.is_some() && coop::has_budget_remaining();
    let polled = {
        let _inside = engine.budget().map(RetryBudget::enter);
        attempt.poll(cx)
    };
    if let Poll::Ready(output) = polled {
        return Poll::Ready(AttemptEnd::Output(output));
    }
    let Some((at, timeout)) = limit else {
        engine.start_clock();
        return Poll::Pending;
    };
    let is_out_of_turns = had_turns && !coop::has_budget_remaining();
    ready!(Waiting::made(waiting).poll_limit(engine.arm(at), at, is_out_of_turns, cx));
    Poll::Ready(timeout.map_or(AttemptEnd::Late, AttemptEnd::TimedOut))
}

pin_project! {
    /// The one timer of a run, for attempts and pauses in turn.
    pub(super) struct Waiting {
        #[pin]
        timer: Option<Timer>,
        pause: Pause,
        has_yielded: bool,
    }
}

impl Waiting {
    /// Makes it, where there is none yet.
    pub(super) fn made(mut slot: Pin<&mut Option<Self>>) -> Pin<&mut Self> {
        if slot.is_none() {
            slot.set(Some(Self {
                timer: None,
                pause: Pause::Skip,
                has_yielded: false,
            }));
        }
        let Some(waiting) = slot.as_pin_mut() else {
            unreachable!("it was made")
        };
        waiting
    }

    /// Sets the timer to another instant, or makes it.
    fn set(self: Pin<&mut Self>, at: Instant) {
        let mut this = self.project();
        match this.timer.as_mut().as_pin_mut() {
            Some(timer) => timer.reset(at),
            None => this.timer.set(Some(Timer::at(at))),
        }
    }

    /// Waits for the timer; `unconstrained` if whoever was polled before has used up the task's turn.
    fn poll_timer(self: Pin<&mut Self>, cx: &mut Context<'_>, unconstrained: bool) -> Poll<()> {
        match self.project().timer.as_pin_mut() {
            Some(timer) if unconstrained => std::pin::pin!(coop::unconstrained(timer)).poll(cx),
            Some(timer) => timer.poll(cx),
            None => Poll::Pending,
        }
    }

    /// Waits for the end of an attempt's time. The timer is made or moved when the attempt is first pending.
    #[inline(never)]
    fn poll_limit(
        mut self: Pin<&mut Self>,
        is_new: bool,
        at: Instant,
        is_out_of_turns: bool,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        if is_new {
            self.as_mut().set(at);
        }
        self.poll_timer(cx, is_out_of_turns)
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
    #[inline(never)]
    pub(super) fn poll_pause<E, V>(
        mut self: Pin<&mut Self>,
        engine: &mut Engine<'_, E, V>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), RetryReason>> {
        let this = self.as_mut().project();
        if engine.poll_cancelled(cx).is_ready() {
            return Poll::Ready(Err(RetryReason::Cancelled));
        }
        if let Pause::Until(_) = *this.pause {
            if self.poll_timer(cx, false).is_pending() {
                detail::waits_for(WaitsFor::Backoff);
                return Poll::Pending;
            }
        } else if !std::mem::replace(this.has_yielded, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

//! The loop form: the engine in the hands of the caller.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use super::Retry;
use super::attempts::{Attempt, AttemptTimeout, Engine, Options, Pause};
use super::budget::RetryBudget;
use super::error::{RetryError, RetryReason};
use super::event::{Hook, NoHook, OnEvent, RetryEvent};
use super::run::options;
use super::verdict::Verdict;
use super::waiting::Waiting;
use crate::cancel::Token;
use crate::time::Deadline;

/// The loop form of a run: see [`Retry::tries`].
#[must_use = "a run does nothing by itself"]
pub struct Tries<'p, E, H = NoHook> {
    policy: Retry,
    engine: Engine<'p, E, Infallible>,
    hook: H,
    /// Whether an attempt was begun of whose end nothing was said yet.
    is_trying: bool,
    /// Why it gave up. There is no attempt after that.
    over: Option<RetryReason>,
}

impl Retry {
    /// Starts a run whose loop the caller writes: with `&mut self`, `?`, `break`, and awaits in between.
    ///
    /// [`begin`](Tries::begin) says whether there may be an attempt, [`failed`](Tries::failed) waits for the next one or gives
    /// the error back. The limits are those of [`retry`](Self::retry); only an attempt's time is the caller's to keep, with
    /// [`timeout_at`](crate::timeout_at) and the attempt's deadline. To leave the loop is to leave the run. A run that gave
    /// up stays so: no attempt begins any more, whatever the loop makes of the error. An attempt that is said to have ended, and
    /// was not begun, counts as one that was: no limit is one of `begin` alone. Nor is an attempt free that
    /// begins without a word about the one before: it takes a token, too, only without a pause. An option holds from when it is given.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() -> Result<(), ringfence::RetryError<std::io::Error>> {
    /// # async fn send(attempt: u32) -> std::io::Result<u32> {
    /// #     if attempt < 3 { Err(std::io::ErrorKind::ConnectionReset.into()) } else { Ok(attempt) }
    /// # }
    /// use std::io;
    /// use ringfence::Retry;
    ///
    /// let mut tries = Retry::DEFAULT.tries();
    /// let answer = loop {
    ///     let attempt = tries.begin()?;
    ///     match send(attempt.number).await {
    ///         Ok(answer) => break tries.succeeded(answer),
    ///         Err(error) => {
    ///             tries.failed(error, |e| e.kind() == io::ErrorKind::ConnectionReset).await?;
    ///         }
    ///     }
    /// };
    /// assert_eq!(answer, 3);
    /// # Ok(())
    /// # }
    /// ```
    pub const fn tries<'p, E>(&self) -> Tries<'p, E> {
        Tries {
            policy: *self,
            engine: Engine::after(0, Options::new()),
            hook: NoHook,
            is_trying: false,
            over: None,
        }
    }
}

impl<'p, E, H> Tries<'p, E, H> {
    options!();

    fn told(&mut self) -> &mut Options<'p> {
        self.engine.options()
    }
}

impl<'p, E> Tries<'p, E, NoHook> {
    /// As [`Run::on_event`](crate::retry::Run::on_event).
    pub fn on_event<F>(self, tell: F) -> Tries<'p, E, OnEvent<F>>
    where
        F: FnMut(&RetryEvent<'_, E>),
    {
        Tries {
            policy: self.policy,
            engine: self.engine,
            hook: OnEvent(tell),
            is_trying: self.is_trying,
            over: self.over,
        }
    }
}

impl<E, H: Hook<E, Infallible>> Tries<'_, E, H> {
    /// Asks to begin an attempt.
    ///
    /// # Errors
    ///
    /// If the deadline has passed or the task was asked to end, with the error of the attempt before if there was one; if
    /// all attempts were begun; and if the run gave up before, without an error of an attempt, since that was given already.
    pub fn begin(&mut self) -> Result<Attempt, RetryError<E>> {
        if self.over.is_some() {
            return Err(self.ended(None));
        }
        if self.engine.attempts == 0 {
            // What an attempt does in between is not seen here.
            self.engine.start_clock();
        }
        // Who begins again without a word about the last attempt has an attempt less all the same.
        if self.policy.is_exhausted(self.engine.attempts) {
            return Err(self.give_up(RetryReason::AttemptsExhausted));
        }
        if self.is_trying {
            self.engine.unsaid();
        }
        self.engine.look_around();
        let begun = self.engine.begin();
        self.is_trying = begun.is_ok();
        begun.map_err(|reason| self.give_up(reason))
    }

    /// Notes that the attempt succeeded, which feeds the budget, and gives the value back. The run is over.
    pub fn succeeded<T>(mut self, value: T) -> T {
        if self.over.is_none() {
            self.engine.succeeded();
        }
        value
    }

    /// Waits until it is time for the next attempt; a `bool` says whether the error is worth one.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the next attempt may begin earlier then, and the token of the budget stays with the run.
    ///
    /// # Errors
    ///
    /// [`RetryError`], with this error in it, if there is not to be another attempt.
    pub async fn failed<W: Into<Verdict>>(
        &mut self,
        error: E,
        judge: impl FnOnce(&E) -> W,
    ) -> Result<(), RetryError<E>> {
        if self.over.is_some() {
            return Err(self.ended(Some(error)));
        }
        let verdict = judge(&error).into();
        let Self {
            policy,
            engine,
            hook,
            is_trying,
            over,
        } = self;
        engine.made(std::mem::take(is_trying));
        let pause = engine
            .failed(policy, hook, Err(error), verdict)
            .inspect_err(|error| *over = Some(error.reason()))?;
        if pause != Pause::Skip {
            let mut slot = pin!(None);
            let mut waiting = Waiting::made(slot.as_mut());
            waiting.as_mut().pause(pause);
            let rested = poll_fn(|cx| {
                engine.look_around();
                waiting.as_mut().poll_pause(engine, cx)
            });
            rested.await.map_err(|reason| self.give_up(reason))?;
        }
        Ok(())
    }

    fn give_up(&mut self, reason: RetryReason) -> RetryError<E> {
        self.over = Some(reason);
        self.engine.give_up(&mut self.hook, reason)
    }

    /// The error of a run that has given one already.
    #[cold]
    fn ended(&self, last: Option<E>) -> RetryError<E> {
        let reason = self.over.unwrap_or(RetryReason::AttemptsExhausted);
        RetryError::again(reason, self.attempts(), self.elapsed(), last)
    }

    /// Returns how many attempts were begun.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.engine.attempts
    }

    /// Returns how long the run has taken so far, from the first attempt on.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.engine.elapsed()
    }
}

impl<E, H> fmt::Debug for Tries<'_, E, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tries")
            .field("attempts", &self.engine.attempts)
            .finish_non_exhaustive()
    }
}

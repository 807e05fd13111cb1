//! The loop form: the engine in the hands of the caller.

use std::convert::Infallible;
use std::fmt;
use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use super::Retry;
use super::attempts::{Attempt, AttemptTimeout, Engine, Listen, Options, Pause, Waiting};
use super::budget::RetryBudget;
use super::error::RetryError;
use super::event::{Hook, NoHook, OnEvent, RetryEvent};
use super::future::Telling;
use super::run::options;
use super::verdict::Verdict;
use crate::cancel::Token;
use crate::time::Deadline;

/// The loop form of a run: see [`Retry::tries`].
#[must_use = "a run does nothing by itself"]
pub struct Tries<'p, E, H = NoHook> {
    engine: Engine<'p>,
    telling: Telling<H, E, Infallible>,
}

impl Retry {
    /// Starts a run whose loop the caller writes: with `&mut self`, `?`, `break`, and awaits in between.
    ///
    /// [`begin`](Tries::begin) says whether there may be an attempt, [`failed`](Tries::failed) waits for the next one or gives
    /// the error back. The limits are those of [`retry`](Self::retry); only an attempt's time is the caller's to keep, with
    /// [`timeout_at`](crate::timeout_at) and the attempt's deadline. To leave the loop is to leave the run.
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
    pub const fn tries<E>(&self) -> Tries<'_, E> {
        Tries {
            engine: Engine::new(self, None),
            telling: Telling::new(NoHook),
        }
    }
}

impl<'p, E, H> Tries<'p, E, H> {
    options!(engine.options);
}

impl<'p, E> Tries<'p, E, NoHook> {
    /// As [`Run::on_event`](crate::retry::Run::on_event).
    pub fn on_event<F>(self, tell: F) -> Tries<'p, E, OnEvent<F>>
    where
        F: FnMut(&RetryEvent<'_, E>),
    {
        Tries {
            engine: self.engine,
            telling: Telling::new(OnEvent(tell)),
        }
    }
}

impl<E, H: Hook<E, Infallible>> Tries<'_, E, H> {
    /// Asks to begin an attempt.
    ///
    /// # Errors
    ///
    /// If the deadline has passed or the task was asked to end, with the error of the attempt before if there was one.
    pub fn begin(&mut self) -> Result<Attempt, RetryError<E>> {
        let Self { engine, telling } = self;
        engine
            .begin()
            .map_err(|reason| telling.give_up(engine, reason))
    }

    /// Notes that the attempt succeeded, which feeds the budget, and gives the value back.
    pub fn succeeded<T>(&mut self, value: T) -> T {
        self.engine.succeeded();
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
    pub async fn failed<V: Into<Verdict>>(
        &mut self,
        error: E,
        judge: impl FnOnce(&E) -> V,
    ) -> Result<(), RetryError<E>> {
        let Self { engine, telling } = self;
        let verdict = judge(&error).into();
        telling.keep(Err(error), engine.history());
        let pause = match telling.next(engine, verdict) {
            Ok(pause) => pause,
            Err(reason) => return Err(telling.give_up(engine, reason)),
        };
        if pause != Pause::Skip {
            let mut slot = pin!(None);
            let mut waiting = Waiting::made(slot.as_mut());
            waiting.as_mut().pause(pause);
            poll_fn(|cx| waiting.as_mut().poll_pause(engine, cx))
                .await
                .map_err(|reason| telling.give_up(engine, reason))?;
        }
        Ok(())
    }

    /// Returns how many attempts were begun.
    #[must_use]
    pub fn attempts(&self) -> u32 {
        self.engine.attempts
    }
}

impl<E, H> fmt::Debug for Tries<'_, E, H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tries")
            .field("attempts", &self.engine.attempts)
            .finish_non_exhaustive()
    }
}

//! What a run tells while it goes on.

use std::convert::Infallible;
use std::fmt;
use std::time::Duration;

use super::error::RetryReason;

/// Something that happened in a run: see [`on_event`](crate::retry::Run::on_event).
#[non_exhaustive]
pub enum RetryEvent<'e, E, V = Infallible> {
    /// An attempt failed, and another one will be made.
    #[non_exhaustive]
    Pausing {
        /// The number of the attempt that failed.
        attempt: u32,
        /// How long the run waits now: exactly.
        delay: Duration,
        /// How long the run has taken so far.
        elapsed: Duration,
        /// The attempt timeout, if that is what ended the attempt.
        timed_out: Option<Duration>,
        /// The error, or the value that was not good enough. If the attempt timed out, that of the one before, if any.
        last: Option<Result<&'e V, &'e E>>,
    },
    /// The run has given up: once, for each run that does not succeed.
    #[non_exhaustive]
    GaveUp {
        /// Why.
        reason: RetryReason,
        /// How many attempts were made.
        attempts: u32,
        /// How long the run took.
        elapsed: Duration,
        /// The attempt timeout, if that is what ended the last attempt.
        timed_out: Option<Duration>,
        /// The last error, or value that was not good enough.
        last: Option<Result<&'e V, &'e E>>,
    },
}

impl<E: fmt::Debug, V> fmt::Debug for RetryEvent<'_, E, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pausing {
                attempt,
                delay,
                elapsed,
                timed_out,
                ..
            } => f
                .debug_struct("Pausing")
                .field("attempt", attempt)
                .field("delay", delay)
                .field("elapsed", elapsed)
                .field("timed_out", timed_out)
                .finish_non_exhaustive(),
            Self::GaveUp {
                reason,
                attempts,
                elapsed,
                timed_out,
                ..
            } => f
                .debug_struct("GaveUp")
                .field("reason", reason)
                .field("attempts", attempts)
                .field("elapsed", elapsed)
                .field("timed_out", timed_out)
                .finish_non_exhaustive(),
        }
    }
}

/// Hears the events of a run: [`NoHook`] or [`OnEvent`]. Sealed.
pub trait Hook<E, V>: sealed::Sealed {
    #[doc(hidden)]
    const LISTENS: bool;
    #[doc(hidden)]
    fn tell(&mut self, event: &RetryEvent<'_, E, V>);
}

mod sealed {
    #[expect(unnameable_types, reason = "that is what seals it")]
    pub trait Sealed {}
    impl Sealed for super::NoHook {}
    impl<F> Sealed for super::OnEvent<F> {}
}

/// Hears nothing, and costs nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoHook;

/// Calls a closure.
#[derive(Clone, Copy, Debug)]
pub struct OnEvent<F>(pub(super) F);

impl<E, V> Hook<E, V> for NoHook {
    const LISTENS: bool = false;

    fn tell(&mut self, _: &RetryEvent<'_, E, V>) {}
}

impl<E, V, F: FnMut(&RetryEvent<'_, E, V>)> Hook<E, V> for OnEvent<F> {
    const LISTENS: bool = true;

    fn tell(&mut self, event: &RetryEvent<'_, E, V>) {
        (self.0)(event);
    }
}

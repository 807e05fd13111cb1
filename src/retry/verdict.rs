//! What is made of an outcome.

use std::convert::Infallible;
use std::time::Duration;

/// What a classifier says about how an attempt ended.
///
/// `true` is [`Retry`](Self::Retry) and `false` is [`Permanent`](Self::Permanent): the answer to "is it worth another attempt?".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Verdict {
    /// It is what was asked for. Said of an error, it is [`Permanent`](Self::Permanent).
    Done,
    /// Another attempt may end differently, after the policy's delay.
    Retry,
    /// Another attempt may end differently, but not earlier than this: what a server asks for with `Retry-After`. Zero says
    /// nothing, and the policy's delay holds.
    RetryAfter(Duration),
    /// Another attempt ends in the same way.
    Permanent,
}

impl From<bool> for Verdict {
    fn from(is_worth_it: bool) -> Self {
        if is_worth_it {
            Self::Retry
        } else {
            Self::Permanent
        }
    }
}

/// How a classifier took an outcome.
#[derive(Debug)]
pub enum Judged<T, E, V> {
    /// The run ends with this.
    Done(T),
    /// It does not: the last outcome, and whether to go on.
    Not(Result<V, E>, Verdict),
}

/// What decides about an outcome: [`AnyError`], [`When`], [`Until`] or [`Classify`].
///
/// Sealed.
pub trait Judge<T, E>: sealed::Sealed {
    /// What stands for a value that was not accepted: the value, or nothing where every value is accepted.
    type Kept;

    #[doc(hidden)]
    fn judge(&mut self, outcome: Result<T, E>) -> Judged<T, E, Self::Kept>;
}

mod sealed {
    #[expect(unnameable_types, reason = "that is what seals it")]
    pub trait Sealed {}
    impl Sealed for super::AnyError {}
    impl<F> Sealed for super::When<F> {}
    impl<F> Sealed for super::Until<F> {}
    impl<F> Sealed for super::Classify<F> {}
}

/// Takes every value, and tries again after every error: what holds when no classifier was given.
#[derive(Clone, Copy, Debug, Default)]
pub struct AnyError;

/// Takes every value, and tries again after the errors that a closure picks.
#[derive(Clone, Copy, Debug)]
pub struct When<F>(pub(super) F);

/// Takes the values that a closure picks, and tries again after the others and after every error.
#[derive(Clone, Copy, Debug)]
pub struct Until<F>(pub(super) F);

/// Leaves the decision about values and errors to a closure.
#[derive(Clone, Copy, Debug)]
pub struct Classify<F>(pub(super) F);

impl<T, E> Judge<T, E> for AnyError {
    type Kept = Infallible;

    #[inline]
    fn judge(&mut self, outcome: Result<T, E>) -> Judged<T, E, Infallible> {
        match outcome {
            Ok(value) => Judged::Done(value),
            Err(error) => Judged::Not(Err(error), Verdict::Retry),
        }
    }
}

impl<T, E, F: FnMut(&E) -> bool> Judge<T, E> for When<F> {
    type Kept = Infallible;

    #[inline]
    fn judge(&mut self, outcome: Result<T, E>) -> Judged<T, E, Infallible> {
        match outcome {
            Ok(value) => Judged::Done(value),
            Err(error) => {
                let verdict = (self.0)(&error).into();
                Judged::Not(Err(error), verdict)
            }
        }
    }
}

impl<T, E, F: FnMut(&T) -> bool> Judge<T, E> for Until<F> {
    type Kept = T;

    #[inline]
    fn judge(&mut self, outcome: Result<T, E>) -> Judged<T, E, T> {
        match outcome {
            Ok(value) if (self.0)(&value) => Judged::Done(value),
            other => Judged::Not(other, Verdict::Retry),
        }
    }
}

impl<T, E, F: FnMut(&Result<T, E>) -> Verdict> Judge<T, E> for Classify<F> {
    type Kept = T;

    #[inline]
    fn judge(&mut self, outcome: Result<T, E>) -> Judged<T, E, T> {
        match ((self.0)(&outcome), outcome) {
            (Verdict::Done, Ok(value)) => Judged::Done(value),
            (verdict, outcome) => Judged::Not(outcome, verdict),
        }
    }
}

//! What sends and receives fail with.

use std::error::Error;
use std::fmt;

use super::state::{CloseCause, Refusal};
use crate::sync::PlainArc;

/// The error of a send. It has the item.
#[derive(Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError<T> {
    /// There is no room now, and the send was not to wait.
    Full(T),
    /// The queue was closed, or the last receiver is gone.
    Closed(T),
    /// There was no room in time.
    TimedOut(T),
    /// The item weighs more than the queue can ever hold, or more than its permit.
    TooHeavy(T),
}

impl<T> SendError<T> {
    pub(crate) fn new(refusal: Refusal, item: T) -> Self {
        match refusal {
            Refusal::Full => Self::Full(item),
            Refusal::Closed => Self::Closed(item),
            Refusal::TooHeavy => Self::TooHeavy(item),
        }
    }

    /// Returns the item that was not sent.
    #[must_use]
    pub fn into_inner(self) -> T {
        match self {
            Self::Full(item) | Self::Closed(item) | Self::TimedOut(item) | Self::TooHeavy(item) => {
                item
            }
        }
    }

    /// What a step returns, which leaves a refused item where it was.
    pub(crate) fn give_back(result: Result<(), Refusal>, item: Option<T>) -> Result<(), Self> {
        match (result, item) {
            (Err(refusal), Some(item)) => Err(Self::new(refusal, item)),
            _ => Ok(()),
        }
    }

    /// The same about another item.
    #[cfg(feature = "stream")]
    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> SendError<U> {
        match self {
            Self::Full(item) => SendError::Full(map(item)),
            Self::Closed(item) => SendError::Closed(map(item)),
            Self::TimedOut(item) => SendError::TimedOut(map(item)),
            Self::TooHeavy(item) => SendError::TooHeavy(map(item)),
        }
    }

    /// Asks whether nothing can be sent any more.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self, Self::Closed(_))
    }

    fn text(&self) -> &'static str {
        match self {
            Self::Full(_) => "the queue is full",
            Self::Closed(_) => "the queue is closed",
            Self::TimedOut(_) => "no room in the queue in time",
            Self::TooHeavy(_) => "the item is too heavy",
        }
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.text())
    }
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full(_) => "Full(..)",
            Self::Closed(_) => "Closed(..)",
            Self::TimedOut(_) => "TimedOut(..)",
            Self::TooHeavy(_) => "TooHeavy(..)",
        })
    }
}

impl<T> Error for SendError<T> {}

/// The end of a queue: closed, and everything in it received and finished.
#[derive(Clone, Debug)]
pub struct RecvError {
    cause: Option<CloseCause>,
}

impl RecvError {
    pub(crate) fn new(cause: Option<CloseCause>) -> Self {
        Self { cause }
    }

    /// Returns why the queue was closed, if it was closed [with a cause](crate::queue::Sender::close_with).
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.as_deref()
    }
}

/// Equal if both are ends without a cause, or have the very same one.
impl PartialEq for RecvError {
    fn eq(&self, other: &Self) -> bool {
        match (&self.cause, &other.cause) {
            (None, None) => true,
            (Some(one), Some(two)) => PlainArc::ptr_eq(one, two),
            _ => false,
        }
    }
}

impl Eq for RecvError {}

impl fmt::Display for RecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the queue has ended")
    }
}

impl Error for RecvError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}

/// The error of a receive that does not wait.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TryRecvError {
    /// Nothing that is not set aside for others is there now.
    Empty,
    /// The queue has ended.
    Closed(RecvError),
}

impl fmt::Display for TryRecvError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the queue is empty"),
            Self::Closed(end) => end.fmt(f),
        }
    }
}

impl Error for TryRecvError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            Self::Empty => None,
            Self::Closed(end) => end.source(),
        }
    }
}

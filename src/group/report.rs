//! How a long-lived group ended.

use std::fmt;

use crate::group::error::{Cause, Failure, GroupError};
use crate::observe::{CancelReason, Straggler};

/// How a long-lived group ended: who failed, and who had to be forced.
///
/// Everything that it speaks of is gone by then, but for what was [given up](Self::abandoned).
pub struct Report<E> {
    error: Option<GroupError<E>>,
}

impl<E> Report<E> {
    pub(crate) fn new(error: Option<GroupError<E>>) -> Self {
        Self { error }
    }

    /// Asks whether nobody failed, panicked, had to be forced, or was given up.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.failures().is_empty() && self.forced().is_empty() && self.abandoned().is_empty()
    }

    /// Returns why the group was cancelled, if it was: [`CancelReason::Shutdown`], or what came before that.
    #[must_use]
    pub fn cancelled(&self) -> Option<&CancelReason> {
        match self.error.as_ref()?.cause() {
            Cause::Cancelled(reason) => Some(reason),
            _ => None,
        }
    }

    /// Returns every failure, first one first; panics are among them.
    #[must_use]
    pub fn failures(&self) -> &[Failure<E>] {
        self.error
            .as_ref()
            .map_or(&[], |error| error.iter().as_slice())
    }

    /// Returns the children that did not end within the grace.
    #[must_use]
    pub fn forced(&self) -> &[Straggler] {
        self.error.as_ref().map_or(&[], GroupError::forced)
    }

    /// Returns the blocking calls that a scope around gave up: they go on.
    #[must_use]
    pub fn abandoned(&self) -> &[Straggler] {
        self.error.as_ref().map_or(&[], GroupError::abandoned)
    }

    /// Makes an error of it, unless nobody failed.
    ///
    /// # Errors
    ///
    /// [`GroupError`] with every failure.
    pub fn into_result(self) -> Result<(), GroupError<E>> {
        match self.error {
            Some(error) if !error.is_empty() => Err(error),
            _ => Ok(()),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Report<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.error {
            Some(error) => error.fmt(f),
            None => f.write_str("task group ended"),
        }
    }
}

impl<E: fmt::Debug> fmt::Debug for Report<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Report")
            .field("cancelled", &self.cancelled())
            .field("failures", &self.failures())
            .field("forced", &self.forced())
            .field("abandoned", &self.abandoned())
            .finish()
    }
}

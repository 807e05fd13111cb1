//! Catching what user code throws, and keeping it.
//!
//! P1. Every poll and every drop of user data inside the library goes through [`catch`].
//! P2. A payload is user data too: its own destructor may panic, so it is dropped under `catch` as well.

use std::any::Any;
use std::borrow::Cow;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use crate::sync::Lock;

/// Runs `f` and hands back what it threw.
///
/// Asserting unwind safety is sound here because whatever `f` was touching is dropped next, unobserved.
pub(crate) fn catch<R>(f: impl FnOnce() -> R) -> Result<R, PanicPayload> {
    catch_unwind(AssertUnwindSafe(f)).map_err(PanicPayload::new)
}

/// What a task panicked with: its message, and the payload itself.
pub struct PanicPayload {
    message: Cow<'static, str>,
    // `Box<dyn Any + Send>` is not `Sync`; behind a lock it may travel inside errors that must be.
    payload: Lock<Option<Box<dyn Any + Send>>>,
}

impl PanicPayload {
    pub(crate) fn new(payload: Box<dyn Any + Send>) -> Self {
        let message = if let Some(text) = payload.downcast_ref::<&'static str>() {
            Cow::Borrowed(*text)
        } else if let Some(text) = payload.downcast_ref::<String>() {
            Cow::Owned(text.clone())
        } else {
            Cow::Borrowed("a payload that is not a string")
        };
        Self {
            message,
            payload: Lock::new(Some(payload)),
        }
    }

    /// Returns the panic's message, or a stand-in where the payload is not a string.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Takes the payload, for instance to downcast it.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn Any + Send> {
        self.take().unwrap_or_else(|| Box::new("payload was taken"))
    }

    /// Goes on with the panic in this thread, without calling the panic hook again.
    ///
    /// # Panics
    ///
    /// Always: that is what it is for.
    pub fn resume(self) -> ! {
        resume_unwind(self.into_inner())
    }

    fn take(&self) -> Option<Box<dyn Any + Send>> {
        self.payload.lock().take()
    }
}

impl Drop for PanicPayload {
    fn drop(&mut self) {
        let payload = self.take();
        // P2. What this throws in turn has nobody left to go to: the panic hook has printed it.
        if let Err(second) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            #[expect(
                clippy::mem_forget,
                reason = "its destructor has just shown that it throws"
            )]
            std::mem::forget(second);
        }
    }
}

impl fmt::Debug for PanicPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PanicPayload").field(&self.message).finish()
    }
}

impl fmt::Display for PanicPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

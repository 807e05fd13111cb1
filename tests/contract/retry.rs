//! Retry: the loop, its errors and its three forms, on the paused clock.

mod deadline;
mod form;
mod hint;
mod limit;
mod nesting;
mod outcome;
mod pace;
mod ruin;
mod trace;

use std::{cell::Cell, future::Future, time::Duration};

use ringfence::{Jitter, Retry};
use tokio::time::Instant;

pub(crate) const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// 3 attempts, 100 ms apart.
pub(crate) const STEADY: Retry = Retry::constant(ms(100)).jitter(Jitter::None);

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no. {0}")]
pub(crate) struct Oops(pub(crate) u32);

/// An operation that fails so often, and keeps the times at which it was called, in milliseconds.
pub(crate) struct Flaky {
    start: Instant,
    failures: u32,
    pub(crate) calls: Cell<u32>,
    times: std::cell::RefCell<Vec<u128>>,
}

impl Flaky {
    pub(crate) fn new(failures: u32) -> Self {
        Self {
            start: Instant::now(),
            failures,
            calls: Cell::new(0),
            times: std::cell::RefCell::default(),
        }
    }

    /// Ready at once. The error is the number of the call.
    pub(crate) fn call(&self) -> impl Future<Output = Result<u32, Oops>> + use<> {
        self.calls.set(self.calls.get() + 1);
        self.times.borrow_mut().push(self.now());
        let number = self.calls.get();
        std::future::ready(if number <= self.failures {
            Err(Oops(number))
        } else {
            Ok(number)
        })
    }

    /// Milliseconds since it was made.
    pub(crate) fn now(&self) -> u128 {
        self.start.elapsed().as_millis()
    }

    pub(crate) fn times(&self) -> Vec<u128> {
        self.times.borrow().clone()
    }
}

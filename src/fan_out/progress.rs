//! `Progress`: how far a fan-out is.
//!
//! P1. Every item that was started is counted once more when it ends: done, failed, or cancelled. P2. Ends are read before
//! starts, so that no reading shows more ends than starts.

use std::fmt;

use crate::sync::{Arc, AtomicU64, Ordering};

/// Shows how far a fan-out is, while it runs: `fan_out(…).progress(&progress)`.
///
/// Clones show the same. One that is given to several fan-outs shows their sum. A fan-out without one counts nothing.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), ringfence::GroupError<std::convert::Infallible>> {
/// use ringfence::{Progress, fan_out};
///
/// let progress = Progress::new();
/// fan_out(0..100).progress(&progress).for_each(|_| async {}).await?;
/// assert_eq!((progress.done(), progress.total()), (100, Some(100)));
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Progress {
    counts: Arc<Counts>,
}

struct Counts {
    started: AtomicU64,
    done: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    /// One more than the total; 0 while it is unknown.
    total: AtomicU64,
}

/// How an item ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum End {
    Done,
    Failed,
    Cancelled,
}

impl End {
    pub(crate) fn of<V, E>(result: &Result<V, E>) -> Self {
        if result.is_ok() {
            Self::Done
        } else {
            Self::Failed
        }
    }
}

impl Progress {
    /// Nothing done so far.
    #[must_use]
    pub fn new() -> Self {
        let zero = || AtomicU64::new(0);
        Self {
            counts: Arc::new(Counts {
                started: zero(),
                done: zero(),
                failed: zero(),
                cancelled: zero(),
                total: zero(),
            }),
        }
    }

    /// Returns how many items succeeded.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.counts.done.load(Ordering::Acquire)
    }

    /// Returns how many items failed.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.counts.failed.load(Ordering::Acquire)
    }

    /// Returns how many items were started and dropped before they ended: cancelled, or panicked.
    #[must_use]
    pub fn cancelled(&self) -> u64 {
        self.counts.cancelled.load(Ordering::Acquire)
    }

    /// Returns how many items run now.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        let ended = self.done() + self.failed() + self.cancelled(); // P2
        self.started().saturating_sub(ended)
    }

    /// Returns how many items were started.
    #[must_use]
    pub fn started(&self) -> u64 {
        self.counts.started.load(Ordering::Acquire)
    }

    /// Returns how many items there are altogether, if the input knows.
    #[must_use]
    pub fn total(&self) -> Option<u64> {
        self.counts.total.load(Ordering::Relaxed).checked_sub(1)
    }

    pub(crate) fn expect(&self, hint: (usize, Option<usize>)) {
        if hint.1 == Some(hint.0) {
            // Several fan-outs may do so at a time.
            let more = hint.0 as u64;
            let add = |known: u64| Some(known.max(1).saturating_add(more));
            let _ = self
                .counts
                .total
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    pub(crate) fn start(&self) {
        self.counts.started.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn end(&self, how: End) {
        let count = match how {
            End::Done => &self.counts.done,
            End::Failed => &self.counts.failed,
            End::Cancelled => &self.counts.cancelled,
        };
        count.fetch_add(1, Ordering::AcqRel);
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress")
            .field("done", &self.done())
            .field("failed", &self.failed())
            .field("cancelled", &self.cancelled())
            .field("in_flight", &self.in_flight())
            .field("total", &self.total())
            .finish()
    }
}

//! How long calls take, on tokio's clock.

use std::fmt;
use std::sync::OnceLock;
use std::time::Duration;

use tokio::time::Instant;

use super::histogram::Windows;
use crate::sync::PlainMutex;

/// How long calls of one kind take, for [`Hedge::percentile`](crate::Hedge::percentile). Shared by all of them: put it into a `static`.
///
/// It remembers one to two [windows](Self::window), in about two kilobytes. What took longer than four hours and three quarters
/// counts as that long. It lives with one clock: where tests pause or advance theirs, give each one of its own.
pub struct Latency {
    windows: PlainMutex<Windows>,
    epoch: OnceLock<Instant>,
    window: Duration,
    least: u32,
}

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// Makes one that knows nothing yet, with a window of 30 s, and says nothing before 20 calls.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            windows: PlainMutex::new(Windows::new()),
            epoch: OnceLock::new(),
            window: Duration::from_secs(30),
            least: 20,
        }
    }

    /// Forgets calls after one to two times as long.
    ///
    /// # Panics
    ///
    /// If it is zero.
    #[must_use]
    #[track_caller]
    pub const fn window(mut self, window: Duration) -> Self {
        assert!(
            !window.is_zero(),
            "ringfence: a window of no time holds nothing"
        );
        self.window = window;
        self
    }

    /// Says nothing before so many calls; 20 unless given.
    #[must_use]
    pub const fn min_samples(mut self, calls: u32) -> Self {
        self.least = calls;
        self
    }

    /// Notes how long a call took; what a [`Hedge`](crate::Hedge) runs is noted by itself: the copy whose answer counts, and each
    /// that was cut after the percentile, with its age. Failures are not.
    pub fn record(&self, took: Duration) {
        let at = self.at();
        let took = nanos(took);
        self.lock().record(at, nanos(self.window), took);
    }

    /// Notes how old a copy was when it was cut: it would have taken at least that.
    pub(super) fn record_cut(&self, share: f64, age: Duration) {
        let (at, age) = (self.at(), nanos(age));
        let (window, least) = (nanos(self.window), self.least.into());
        self.lock().record_cut(at, window, age, share, least);
    }

    /// Returns the time that this share of the calls did not exceed, to an eighth; `None` while there are too few. A share of
    /// 1 is all of them.
    ///
    /// # Panics
    ///
    /// If the share is not a number above 0, and 1 at most.
    #[must_use]
    #[track_caller]
    pub fn percentile(&self, share: f64) -> Option<Duration> {
        assert!(
            share > 0.0 && share <= 1.0,
            "ringfence: a percentile is a share above 0, and 1 at most: {share} is none"
        );
        let at = self.at();
        let found = self
            .lock()
            .percentile(at, nanos(self.window), share, self.least.into());
        found.map(Duration::from_nanos)
    }

    fn at(&self) -> u64 {
        let now = Instant::now();
        nanos(now.saturating_duration_since(*self.epoch.get_or_init(|| now)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Windows> {
        self.windows
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Latency")
            .field("p50", &self.percentile(0.5))
            .field("p95", &self.percentile(0.95))
            .finish_non_exhaustive()
    }
}

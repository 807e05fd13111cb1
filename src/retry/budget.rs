//! What retries and hedges may cost together.
//!
//! U1. All sums are whole millionths of a token, so no ratio is cut short and nothing drifts. U2. What was spent lies between
//! nothing and the capacity after every operation, each of which is one compare-and-swap. U3. A slice of time is credited
//! once, by whoever moves the mark past it. U4. What is taken is given back unless it was used: [`Taken`] sees to it. U5. A
//! call is credited once, however many runs on one budget are nested around it: by the outermost, the only one that knows
//! that the call has succeeded.

use std::cell::Cell;
use std::fmt;
use std::sync::OnceLock;

use tokio::time::Instant;

use crate::sync::{AtomicU64, Ordering, thread_local};

const TOKEN: u64 = 1_000_000;
const SECOND: u128 = 1_000_000_000;

/// `const`, but where the atomics are those of a model checker.
macro_rules! const_fn {
    ($(#[$attribute:meta])* $visible:vis const fn $($rest:tt)*) => {
        #[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
        $(#[$attribute])*
        $visible const fn $($rest)*
        #[cfg(any(ringfence_loom, ringfence_shuttle))]
        $(#[$attribute])*
        $visible fn $($rest)*
    };
}

/// Bounds retries to a share of the successes, across all calls that use it.
///
/// Without a budget, a server that fails gets several times its load, just when it can bear least. A budget is a purse of
/// tokens: each success puts in a fraction, each retry or hedge takes out one, and an empty purse makes calls give up with the
/// error at hand, at once. First attempts are never charged and never refused. The purse is full at the start, and a small
/// reserve trickles in with time, so that a quiet client may retry too.
///
/// Runs that nest in one task, a retry around a hedge for instance, take the same budget: the call counts as one success. Around
/// what a [loop](crate::Retry::tries) does, or a task that it spawns, a run does not see the other one: give the budget to one of them.
/// Nor does it through more than three other budgets in between.
///
/// Put it into a `static`, one for each thing that can be overloaded. It lives with one clock: where tests pause or advance
/// theirs, give each a budget of its own.
///
/// ```
/// use ringfence::RetryBudget;
///
/// // At most a tenth more load in the long run; 20 retries at once; one each second if nothing succeeds.
/// static BUDGET: RetryBudget = RetryBudget::new(0.1).capacity(20).reserve(1);
/// assert_eq!(BUDGET.available(), 20.0);
/// ```
pub struct RetryBudget {
    ratio: u64,
    capacity: u64,
    /// Millionths a second.
    reserve: u64,
    refunds: bool,
    bucket: Bucket,
    refused: AtomicU64,
    epoch: OnceLock<Instant>,
}

impl RetryBudget {
    const_fn! {
    /// Makes a budget of so many retries for each success, with a [capacity](Self::capacity) of 100 and a
    /// [reserve](Self::reserve) of 1.
    ///
    /// # Panics
    ///
    /// If the ratio is not a number from 0 to 1000, or lies between zero and a millionth.
    #[must_use]
    #[track_caller]
    pub const fn new(ratio: f64) -> Self {
        assert!(
            ratio == 0.0 || (ratio >= 1e-6 && ratio <= 1e3),
            "ringfence: the ratio of a retry budget is from 0 to 1000, in steps of a millionth"
        );
        Self {
            ratio: (ratio * TOKEN as f64 + 0.5) as u64,
            capacity: 100 * TOKEN,
            reserve: TOKEN,
            refunds: false,
            bucket: Bucket::new(),
            refused: AtomicU64::new(0),
            epoch: OnceLock::new(),
        }
    }
    }

    const_fn! {
    /// Holds so many retries at most, and at the start; 100 unless given. With 0, nothing is ever tried again.
    #[must_use]
    pub const fn capacity(mut self, retries: u32) -> Self {
        self.capacity = retries as u64 * TOKEN;
        self
    }
    }

    const_fn! {
    /// Puts in so many retries a second, whatever succeeds; 1 unless given.
    #[must_use]
    pub const fn reserve(mut self, retries: u32) -> Self {
        self.reserve = retries as u64 * TOKEN;
        self
    }
    }

    const_fn! {
    /// Gives the token back when the retry it paid for succeeds, so that only retries in vain cost anything. The further copies of
    /// a [hedge](crate::Hedge) cost what they cost, whichever wins.
    ///
    /// More retries then, as long as they help; the load is no longer bounded by the ratio.
    #[must_use]
    pub const fn refund(mut self) -> Self {
        self.refunds = true;
        self
    }
    }

    /// Returns how many retries it would pay for now.
    #[must_use]
    pub fn available(&self) -> f64 {
        self.refill();
        self.capacity.saturating_sub(self.bucket.spent()) as f64 / TOKEN as f64
    }

    /// Returns how many retries and hedges it has refused so far.
    #[must_use]
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Notes that a call succeeded.
    pub(super) fn succeeded(&self) {
        if !self.is_around() {
            self.bucket.put(self.ratio);
        }
    }

    /// As long as the guard is there, successes on this thread are those of the run that made it (U5).
    pub(super) fn enter(&self) -> Inside {
        INSIDE.with(|inside| {
            let outer @ [a, b, c, _] = inside.get();
            inside.set([self.address(), a, b, c]);
            Inside(outer)
        })
    }

    fn is_around(&self) -> bool {
        INSIDE.with(|inside| inside.get().contains(&self.address()))
    }

    fn address(&self) -> usize {
        std::ptr::from_ref(self).addr()
    }

    /// Takes a token.
    pub(super) fn take(&self) -> Option<Taken<'_>> {
        self.refill();
        if self.bucket.take(TOKEN, self.capacity) {
            Some(Taken {
                budget: Some(self),
                is_used: false,
            })
        } else {
            self.refused.fetch_add(1, Ordering::Relaxed);
            None
        }
    }

    fn refill(&self) {
        if self.reserve > 0 {
            let now = Instant::now();
            let epoch = *self.epoch.get_or_init(|| now);
            // A clock that was set up later may begin earlier; 500 years fit.
            let since = now.saturating_duration_since(epoch).as_nanos() as u64;
            self.bucket.refill(since, self.reserve);
        }
    }
}

impl fmt::Debug for RetryBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RetryBudget")
            .field("ratio", &(self.ratio as f64 / TOKEN as f64))
            .field("capacity", &(self.capacity / TOKEN))
            .field("available", &self.available())
            .field("refused", &self.refused())
            .finish_non_exhaustive()
    }
}

/// The budgets of the runs in whose attempts a thread is now, innermost first: addresses, of what is borrowed there. Of more
/// than four in one another the outermost are forgotten.
type Around = Cell<[usize; 4]>;

#[cfg(not(any(ringfence_loom, ringfence_shuttle)))]
thread_local! {
    static INSIDE: Around = const { Cell::new([0; 4]) };
}
#[cfg(any(ringfence_loom, ringfence_shuttle))]
thread_local! {
    static INSIDE: Around = Cell::new([0; 4]);
}

/// See [`RetryBudget::enter`].
pub(super) struct Inside([usize; 4]);

impl Drop for Inside {
    fn drop(&mut self) {
        INSIDE.with(|inside| inside.set(self.0));
    }
}

/// A token that is out of the purse: spent with [`spend`](Self::spend), given back otherwise (U4).
pub(super) struct Taken<'b> {
    budget: Option<&'b RetryBudget>,
    is_used: bool,
}

impl Taken<'_> {
    /// The retry it pays for has begun: only its success may still bring the token back.
    pub(super) fn use_up(&mut self) {
        self.is_used = true;
    }

    /// The retry it paid for has failed.
    pub(super) fn spend(mut self) {
        self.budget = None;
    }

    /// The retry it paid for has succeeded.
    pub(super) fn settle(mut self) {
        // A budget that refunds gets it back, as this is dropped.
        self.is_used = self.budget.is_some_and(|budget| !budget.refunds);
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        if let Some(budget) = self.budget.filter(|_| !self.is_used) {
            budget.bucket.put(TOKEN);
        }
    }
}

/// Two numbers; the limits are the caller's. What a model checker looks at.
pub(crate) struct Bucket {
    spent: AtomicU64,
    /// Nanoseconds up to which time has been credited (U3).
    credited: AtomicU64,
}

impl Bucket {
    const_fn! {
    pub(crate) const fn new() -> Self {
        Self {
            spent: AtomicU64::new(0),
            credited: AtomicU64::new(0),
        }
    }
    }

    pub(crate) fn spent(&self) -> u64 {
        self.spent.load(Ordering::Relaxed)
    }

    /// Takes an amount, if it is there. Relaxed throughout: the numbers guard nothing but themselves.
    pub(crate) fn take(&self, amount: u64, capacity: u64) -> bool {
        let more = |spent: u64| spent.checked_add(amount).filter(|spent| *spent <= capacity);
        self.spent
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .is_ok()
    }

    pub(crate) fn put(&self, amount: u64) {
        // Full already, most of the time: then one load is all. A failure of the update says the same.
        let less = |spent: u64| (spent > 0).then(|| spent.saturating_sub(amount));
        let _: Result<u64, u64> =
            self.spent
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// Credits the time up to `now`, at `rate` a second.
    pub(crate) fn refill(&self, now: u64, rate: u64) {
        let mut credited = self.credited.load(Ordering::Relaxed);
        while let Some(since) = now.checked_sub(credited) {
            let gain = u128::from(since) * u128::from(rate) / SECOND;
            if gain == 0 {
                return;
            }
            // Only the time that the gain took, rounded up: the rest counts the next time, and nothing twice.
            let used = (gain * SECOND).div_ceil(u128::from(rate)) as u64;
            match self.credited.compare_exchange(
                credited,
                credited + used,
                Ordering::Relaxed,
                Ordering::Relaxed,
            ) {
                Ok(_) => return self.put(u64::try_from(gain).unwrap_or(u64::MAX)),
                Err(other) => credited = other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Bucket;

    #[test]
    fn time_is_credited_once_and_without_a_remainder() {
        let bucket = Bucket::new();
        assert!(bucket.take(1_000_000, 1_000_000));
        // A third of a millionth each nanosecond step: looked at a million times, nothing is lost.
        for now in 0..=3_000 {
            bucket.refill(now * 1_000, 333_333);
        }
        assert_eq!(bucket.spent(), 1_000_000 - 999);
        bucket.refill(3_000_000, 333_333);
        assert_eq!(bucket.spent(), 1_000_000 - 999, "the same time again");
        bucket.refill(0, 333_333);
        assert_eq!(bucket.spent(), 1_000_000 - 999, "time that runs backwards");
    }

    #[test]
    fn no_amount_overflows() {
        let bucket = Bucket::new();
        assert!(bucket.take(u64::MAX, u64::MAX));
        assert!(!bucket.take(1, u64::MAX));
        bucket.refill(u64::MAX, u64::MAX);
        assert_eq!(bucket.spent(), 0);
    }
}

//! How many permits are free, and whether somebody waits: one atomic word.
//!
//! ```text
//! bits 63…1  free permits, signed: below zero after a limit was lowered, or while one heavier than the limit runs alone
//! bit  0     somebody waits
//! ```
//!
//! | from            | `take`              | `give`                      | `mark`   | `unmark`  |
//! |-----------------|---------------------|-----------------------------|----------|-----------|
//! | nobody waits    | takes, or refuses   | adds                        | waits    |           |
//! | somebody waits  | refuses: no barging | adds, and says so: serve    | same     | nobody    |
//!
//! N1. While the bit is set, only who holds the lock of the waiters takes permits. N2. The bit is set and cleared under
//! that lock. N3. One who marks and then finds too little free is found by every later `give`, because both are
//! read-modify-writes of the same word: the give came before, and the mark returns it, or comes after, and sees the bit.

use crate::sync::{AtomicU64, Ordering};

const WAITED_FOR: u64 = 1;

/// The highest limit that can be told from "no limit".
pub(crate) const UNLIMITED: u64 = 1 << 60;

pub(crate) struct Permits(AtomicU64);

const fn free(word: u64) -> i64 {
    (word as i64) >> 1
}

impl Permits {
    pub(crate) fn new(limit: u64) -> Self {
        Self(AtomicU64::new(limit << 1))
    }

    /// Returns how many are free; below zero if more are out than the limit allows now.
    pub(crate) fn free(&self) -> i64 {
        free(self.0.load(Ordering::Relaxed))
    }

    /// Takes `n` if they are free and nobody waits.
    #[inline]
    pub(crate) fn take(&self, n: u64) -> bool {
        let less = |word: u64| {
            let is_free = word & WAITED_FOR == 0 && free(word) >= n as i64;
            is_free.then(|| word.wrapping_sub(n << 1))
        };
        // Acquire pairs with the Release in `give`: what the former holder did has happened.
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Takes `n` for the one whose turn it is, under the lock of the waiters (N1): if they are free, or all `limit` are.
    pub(crate) fn take_in_turn(&self, n: u64, limit: u64) -> bool {
        let less = |word: u64| {
            let is_free = free(word) >= n as i64 || free(word) >= limit as i64;
            is_free.then(|| word.wrapping_sub(n << 1))
        };
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Gives `n` back. Returns whether somebody waits, who is to be served then.
    #[inline]
    pub(crate) fn give(&self, n: u64) -> bool {
        self.0.fetch_add(n << 1, Ordering::AcqRel) & WAITED_FOR != 0
    }

    /// Moves the limit by the difference.
    pub(crate) fn shift(&self, by: i64) {
        self.0.fetch_add((by << 1) as u64, Ordering::AcqRel);
    }

    /// Notes that somebody is about to wait (N3).
    pub(crate) fn mark(&self) {
        self.0.fetch_or(WAITED_FOR, Ordering::AcqRel);
    }

    /// Notes that nobody waits any more.
    pub(crate) fn unmark(&self) {
        self.0.fetch_and(!WAITED_FOR, Ordering::AcqRel);
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use super::*;

    #[test]
    fn the_bit_stops_takers_and_is_told_to_givers() {
        let permits = Permits::new(2);
        assert!(permits.take(2) && !permits.take(1));
        permits.mark();
        assert!(permits.give(1), "somebody waits");
        assert!(!permits.take(1), "no barging");
        assert!(permits.take_in_turn(1, 2));
        permits.unmark();
        assert!(!permits.give(2) && permits.take(1));
        assert_eq!(permits.free(), 1);
    }

    #[test]
    fn the_heavy_one_runs_alone_and_a_lowered_limit_goes_below_zero() {
        let permits = Permits::new(2);
        assert!(permits.take_in_turn(5, 2));
        assert_eq!(permits.free(), -3);
        assert!(!permits.take_in_turn(1, 2));
        permits.give(5);
        permits.shift(-1);
        assert_eq!(permits.free(), 1);
        assert!(permits.take(1) && !permits.take(1));
        permits.shift(-4);
        assert_eq!(permits.free(), -4);
    }
}

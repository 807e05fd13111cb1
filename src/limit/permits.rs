//! How many permits are free, and whether somebody waits: one atomic word.
//!
//! ```text
//! bits 63…1  free permits, signed: below zero after a limit was lowered, or while one heavier than the limit runs alone
//! bit  0     somebody waits
//! ```
//!
//! | from            | `take`              | `give`                        | `take_or_mark`      | `shift` | `unmark`  |
//! |-----------------|---------------------|-------------------------------|---------------------|---------|-----------|
//! | nobody waits    | takes, or refuses   | adds                          | takes, or now waits | adds    |           |
//! | somebody waits  | refuses: no barging | refuses: they go hand to hand |                     | adds    | nobody    |
//!
//! N1. The bit is set and cleared under the lock of the waiters. N2. While it is set, the word changes only under that lock:
//! who holds it may look first and take then. N3. One who finds too little free sets the bit in the same step: a `give` came
//! before, and was found, or comes after, and sees the bit.

use crate::sync::{AtomicU64, Ordering};

const WAITED_FOR: u64 = 1;

/// The highest limit that can be told from "no limit".
pub(crate) const UNLIMITED: u64 = 1 << 60;

pub(crate) struct Permits(AtomicU64);

const fn free(word: u64) -> i64 {
    (word as i64) >> 1
}

/// Whether so many free ones will do for who is next: enough, or all.
pub(crate) const fn will_do(free: i64, n: u64, limit: u64) -> bool {
    free >= n as i64 || free >= limit as i64
}

fn less_in_turn(word: u64, n: u64, limit: u64) -> Option<u64> {
    will_do(free(word), n, limit).then(|| word.wrapping_sub(n << 1))
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

    /// Takes `n` for one before whom nobody waits, or notes that somebody waits (N3). Under the lock of the waiters.
    pub(crate) fn take_or_mark(&self, n: u64, limit: u64) -> bool {
        let taken_or_marked = |word| match less_in_turn(word, n, limit) {
            None => Some(word | WAITED_FOR),
            taken => taken,
        };
        self.0
            .fetch_update(Ordering::AcqRel, Ordering::Relaxed, taken_or_marked)
            .is_ok_and(|word| less_in_turn(word, n, limit).is_some())
    }

    /// Takes `n`, more than the limit, if all are free. Under the lock of the waiters, while nobody waits.
    pub(crate) fn take_alone(&self, n: u64, limit: u64) -> bool {
        let less = |word| less_in_turn(word, n, limit);
        self.0
            .fetch_update(Ordering::Acquire, Ordering::Relaxed, less)
            .is_ok()
    }

    /// Gives `n` back, unless somebody waits: they are for who is next then.
    #[inline]
    pub(crate) fn give(&self, n: u64) -> bool {
        let more = |word: u64| (word & WAITED_FOR == 0).then(|| word.wrapping_add(n << 1));
        // Release pairs with the Acquire of whoever takes them.
        self.0
            .fetch_update(Ordering::Release, Ordering::Relaxed, more)
            .is_ok()
    }

    /// Adds so many free ones, or takes so many, whether they are free or not.
    pub(crate) fn shift(&self, by: i64) {
        if by != 0 {
            self.0.fetch_add((by << 1) as u64, Ordering::AcqRel);
        }
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
    fn the_bit_stops_takers_and_givers() {
        let permits = Permits::new(2);
        assert!(permits.take(2) && !permits.take(1));
        assert!(!permits.take_or_mark(1, 2), "none is free: somebody waits");
        assert!(!permits.give(1), "this one is for who waits");
        permits.shift(1);
        assert!(!permits.take(1), "no barging");
        permits.unmark();
        assert!(permits.take_or_mark(1, 2) && permits.give(2) && permits.take(1));
        assert_eq!(permits.free(), 1);
    }

    #[test]
    fn the_heavy_one_runs_alone_and_a_lowered_limit_goes_below_zero() {
        let permits = Permits::new(2);
        assert!(permits.take_alone(5, 2));
        assert_eq!(permits.free(), -3);
        assert!(!permits.take_alone(1, 2));
        assert!(permits.give(5));
        permits.shift(-1);
        assert_eq!(permits.free(), 1);
        assert!(permits.take(1) && !permits.take(1));
        permits.shift(-4);
        assert_eq!(permits.free(), -4);
    }
}

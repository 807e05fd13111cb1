//! The rate limit, decided: the generic cell rate algorithm, on numbers.
//!
//! Time is picoseconds since some beginning, so that rates up to one a picosecond are exact and nothing wraps: a `u128` of
//! them outlasts every clock. `due` is when all that was granted will have been paid for.
//!
//! C1. `n` are granted at `now` if `max(due, now) + n · cell - burst · cell <= now`; then `due = max(due, now) + n · cell`.
//! C2. So in any span of `w` no more than `burst + w / cell` are granted. C3. What lies less than a nanosecond ahead is now. C4. A
//! change of the rate keeps the debt, counted in cells.

/// Picoseconds.
pub(crate) type Time = u128;

const NANOSECOND: Time = 1000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gcra {
    cell: Time,
    burst: u32,
    due: Time,
}

impl Gcra {
    pub(crate) const fn new(cell: Time, burst: u32) -> Self {
        Self {
            cell,
            burst,
            due: 0,
        }
    }

    pub(crate) fn burst(&self) -> u32 {
        self.burst
    }

    /// Returns how long after `now` it grants `n`, if `ahead` more are granted before; zero is now.
    pub(crate) fn delay(&self, now: Time, ahead: u64, n: u32) -> Time {
        let wanted = self.cell.saturating_mul(Time::from(ahead) + Time::from(n));
        let at = self
            .due
            .max(now)
            .saturating_add(wanted)
            .saturating_sub(self.cell.saturating_mul(self.burst.into()));
        let delay = at.saturating_sub(now);
        if delay < NANOSECOND { 0 } else { delay } // C3
    }

    /// Grants `n` at `now` (C1); the caller has asked for the delay.
    pub(crate) fn grant(&mut self, now: Time, n: u32) {
        let cost = self.cell.saturating_mul(n.into());
        self.due = self.due.max(now).saturating_add(cost);
    }

    /// Changes the rate at `now` (C4).
    pub(crate) fn set(&mut self, now: Time, cell: Time, burst: u32) {
        let debt = self.due.saturating_sub(now);
        let whole = (debt / self.cell).saturating_mul(cell);
        let part = (debt % self.cell).saturating_mul(cell) / self.cell;
        *self = Self {
            cell,
            burst,
            due: now.saturating_add(whole).saturating_add(part),
        };
    }
}

#[cfg(all(test, not(any(ringfence_loom, ringfence_shuttle))))]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MILLI: Time = 1_000_000_000;

    #[test]
    fn a_burst_then_one_a_cell() {
        let mut gcra = Gcra::new(100 * MILLI, 5);
        let mut now = 0;
        let times: Vec<Time> = (0..8)
            .map(|_| {
                now += gcra.delay(now, 0, 1);
                gcra.grant(now, 1);
                now / MILLI
            })
            .collect();
        assert_eq!(times, [0, 0, 0, 0, 0, 100, 200, 300]);
    }

    #[test]
    fn what_lies_less_than_a_nanosecond_ahead_is_now() {
        for (cell, delay) in [(NANOSECOND - 1, 0), (NANOSECOND, NANOSECOND)] {
            let mut gcra = Gcra::new(cell, 1);
            gcra.grant(0, 1);
            assert_eq!(gcra.delay(0, 0, 1), delay);
        }
    }

    #[test]
    fn a_change_keeps_the_debt_in_cells() {
        let mut gcra = Gcra::new(100 * MILLI, 1);
        gcra.grant(0, 1);
        assert_eq!(gcra.delay(0, 0, 1), 100 * MILLI);
        gcra.set(50 * MILLI, 10 * MILLI, 1); // half a cell is owed
        assert_eq!(gcra.delay(50 * MILLI, 0, 1), 5 * MILLI);
    }

    #[test]
    fn nothing_wraps() {
        let mut gcra = Gcra::new(Time::MAX, u32::MAX);
        gcra.grant(0, u32::MAX);
        assert!(gcra.delay(0, u64::MAX, u32::MAX) > 0 || gcra.cell > 0);
        let mut fast = Gcra::new(1, u32::MAX);
        fast.grant(Time::MAX, 1);
        fast.set(Time::MAX, 1, 1);
    }

    proptest! {
        #[test]
        fn no_window_grants_more_than_the_burst_and_its_share(
            cell in 1_000_u128..10_000_000,
            burst in 1_u32..10,
            asks in proptest::collection::vec((0_u128..5_000_000, 1_u32..4), 1..200),
        ) {
            let mut gcra = Gcra::new(cell, burst);
            let (mut now, mut granted) = (0, Vec::new());
            for (pause, n) in asks {
                now += pause;
                let n = n.min(burst);
                if gcra.delay(now, 0, n) == 0 {
                    gcra.grant(now, n);
                    granted.push((now, n));
                }
            }
            for (i, (from, _)) in granted.iter().enumerate() {
                let mut sum = 0_u128;
                for (at, n) in &granted[i..] {
                    sum += u128::from(*n);
                    // A nanosecond early is on time (C3).
                    prop_assert!(sum <= u128::from(burst) + (at - from + NANOSECOND) / cell + 1);
                    prop_assert!(sum <= u128::from(burst) + (at - from + NANOSECOND) / cell);
                }
            }
        }
    }
}

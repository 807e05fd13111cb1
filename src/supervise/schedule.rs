//! When a periodic child is due next: pure, without a clock.
//!
//! C1. Runs never overlap: the next instant is asked for when a run is over. C2. At a fixed rate the instants are those of the grid
//! `first + n × period`, but where the policy moves it. C3. What is due exactly when a run ends is not missed.

use std::time::Duration;

/// Since the periodic child was started.
pub(crate) type Time = Duration;

/// What becomes of the instants that pass while a run at a fixed rate takes longer than its period.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Missed {
    /// They are left out; the next run is at the next instant of the grid.
    #[default]
    Skip,
    /// They are made up for, one run right after the other.
    Burst,
    /// The next run is at once, and the grid begins anew with it.
    Delay,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pace {
    /// From beginning to beginning.
    Rate(Duration, Missed),
    /// From end to beginning.
    Delay(Duration),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Schedule {
    pace: Pace,
    next: Time,
}

impl Schedule {
    pub(crate) fn new(pace: Pace, first: Time) -> Self {
        Self { pace, next: first }
    }

    /// Returns when the next run is due.
    pub(crate) fn next(&self) -> Time {
        self.next
    }

    /// A run is over, one that was due or one that somebody asked for. Returns how many instants it has passed over.
    pub(crate) fn ended(&mut self, was_due: bool, began: Time, ended: Time) -> u64 {
        let (period, missed) = match self.pace {
            Pace::Delay(delay) => {
                self.next = ended.saturating_add(delay);
                return 0;
            }
            Pace::Rate(period, missed) => (period, missed),
        };
        if was_due {
            let from = if missed == Missed::Delay {
                began
            } else {
                self.next
            };
            self.next = from.saturating_add(period);
        }
        if missed != Missed::Skip || self.next >= ended {
            return 0; // C3
        }
        let behind = (ended - self.next).as_nanos();
        let period = period.as_nanos();
        let steps = behind.div_ceil(period);
        let on = u64::try_from(steps * period).map_or(Duration::MAX, Duration::from_nanos);
        self.next = self.next.saturating_add(on); // C2
        u64::try_from(steps).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Missed, Pace, Schedule};

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    /// What follows a run from `began` to `ended` that was due at 100, with a period of 100.
    fn after(missed: Missed, began: u64, ended: u64) -> (Duration, u64) {
        let mut schedule = Schedule::new(Pace::Rate(ms(100), missed), ms(100));
        let passed = schedule.ended(true, ms(began), ms(ended));
        (schedule.next(), passed)
    }

    #[test]
    fn a_run_within_its_period_is_followed_by_the_next_instant() {
        for missed in [Missed::Skip, Missed::Burst, Missed::Delay] {
            assert_eq!(after(missed, 100, 130), (ms(200), 0));
            assert_eq!(after(missed, 100, 200), (ms(200), 0), "C3");
        }
    }

    #[test]
    fn a_longer_run_is_followed_by_what_the_policy_says() {
        assert_eq!(after(Missed::Skip, 100, 450), (ms(500), 3));
        assert_eq!(after(Missed::Burst, 100, 450), (ms(200), 0));
        assert_eq!(after(Missed::Delay, 100, 450), (ms(200), 0));
        assert_eq!(after(Missed::Delay, 450, 460), (ms(550), 0), "a new grid");
    }

    #[test]
    fn what_somebody_asks_for_does_not_move_the_grid() {
        for (missed, next) in [
            (Missed::Skip, 300),
            (Missed::Burst, 100),
            (Missed::Delay, 100),
        ] {
            let mut schedule = Schedule::new(Pace::Rate(ms(100), missed), ms(100));
            let _passed = schedule.ended(false, ms(40), ms(250));
            assert_eq!(schedule.next(), ms(next));
        }
    }

    #[test]
    fn no_length_of_time_overflows() {
        let mut schedule = Schedule::new(Pace::Rate(Duration::from_nanos(1), Missed::Skip), ms(0));
        let _passed = schedule.ended(true, ms(0), Duration::MAX);
        let mut schedule = Schedule::new(Pace::Rate(Duration::MAX, Missed::Burst), Duration::MAX);
        assert_eq!(schedule.ended(true, Duration::MAX, Duration::MAX), 0);
        let mut schedule = Schedule::new(Pace::Delay(Duration::MAX), ms(0));
        assert_eq!(schedule.ended(true, ms(0), ms(1)), 0);
        assert_eq!(schedule.next(), Duration::MAX);
    }
}

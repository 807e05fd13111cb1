//! The adaptive limit, decided: additive increase, multiplicative decrease.
//!
//! I1. The limit stays within its bounds. I2. It grows by one for each limit's worth of successes, and only such count as
//! at least half of the limit was in use. I3. It shrinks once for all overloads among those that were admitted before the
//! last decrease: an epoch, not a clock, tells them, so that a paused clock changes nothing.

#[derive(Clone, Copy, Debug)]
pub(crate) struct Aimd {
    limit: u64,
    min: u64,
    max: u64,
    /// What is kept of the limit on overload, in 256ths.
    keep: u64,
    epoch: u64,
    successes: u64,
}

impl Aimd {
    pub(crate) fn new(min: u64, max: u64, start: u64, keep: u64) -> Self {
        Self {
            limit: start.clamp(min, max),
            min,
            max,
            keep,
            epoch: 0,
            successes: 0,
        }
    }

    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Sets the limit by hand, within the bounds.
    pub(crate) fn set(&mut self, limit: u64) -> u64 {
        self.limit = limit.clamp(self.min, self.max);
        self.successes = 0;
        self.limit
    }

    /// Notes a success while `in_flight` permits were out, its own among them.
    pub(crate) fn success(&mut self, in_flight: u64) {
        if in_flight.saturating_mul(2) < self.limit {
            return;
        }
        self.successes += 1;
        if self.successes >= self.limit {
            self.successes = 0;
            self.limit = (self.limit + 1).min(self.max);
        }
    }

    /// Notes an overload of one that was admitted in `epoch`.
    pub(crate) fn overload(&mut self, epoch: u64) {
        self.successes = 0;
        if epoch == self.epoch {
            self.epoch += 1;
            self.limit = (self.limit.saturating_mul(self.keep) / 256).max(self.min);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_by_one_a_round_and_shrinks_once_an_epoch() {
        let mut aimd = Aimd::new(2, 20, 10, 128);
        for _ in 0..10 {
            aimd.success(10);
        }
        assert_eq!(aimd.limit(), 11);
        for _ in 0..100 {
            aimd.success(5); // less than half in use
        }
        assert_eq!(aimd.limit(), 11);
        for _ in 0..10 {
            aimd.overload(0);
        }
        assert_eq!((aimd.limit(), aimd.epoch()), (5, 1));
        for epoch in 1..9 {
            aimd.overload(epoch);
        }
        assert_eq!(aimd.limit(), 2);
        for _ in 0..10_000 {
            aimd.success(20);
        }
        assert_eq!(aimd.limit(), 20);
    }
}

//! How long calls take: two histograms that take turns, without a clock.
//!
//! L1. Buckets are log-linear, eight to an octave, so a percentile is right to an eighth. L2. The window before is kept
//! until this one is over, so there is no moment without memory; two windows without a call, and nothing is known. L3. A call
//! that was cut took its age at least: that tells something about a percentile that it has come up to, and nothing about one
//! that it has not.

/// Microseconds up to 2³⁴: four hours and three quarters.
const BUCKETS: usize = 256;
const LONGEST: u64 = (1 << 34) - 1;

#[derive(Clone, Copy)]
struct Histogram {
    counts: [u32; BUCKETS],
    total: u64,
}

impl Histogram {
    const EMPTY: Self = Self {
        counts: [0; BUCKETS],
        total: 0,
    };
}

/// The bucket of a value: itself below eight, then the octave and its three bits.
const fn bucket(micros: u64) -> usize {
    if micros < 8 {
        return micros as usize;
    }
    let octave = micros.ilog2();
    let eighth = (micros >> (octave - 3)) & 7;
    (octave as usize - 2) * 8 + eighth as usize
}

fn bucket_of(nanos: u64) -> usize {
    bucket((nanos / 1_000).min(LONGEST))
}

/// The largest value of a bucket.
const fn edge(bucket: usize) -> u64 {
    if bucket < 8 {
        return bucket as u64;
    }
    let (octave, eighth) = (bucket as u32 / 8 + 2, bucket as u64 % 8);
    ((8 + eighth + 1) << (octave - 3)) - 1
}

/// What two windows have seen.
pub(crate) struct Windows {
    now: Histogram,
    before: Histogram,
    /// Nanoseconds at which this window began.
    began: u64,
}

impl Windows {
    pub(crate) const fn new() -> Self {
        Self {
            now: Histogram::EMPTY,
            before: Histogram::EMPTY,
            began: 0,
        }
    }

    /// Moves on to the window of this moment (L2).
    fn turn(&mut self, at: u64, window: u64) {
        let age = at.saturating_sub(self.began);
        if age >= window {
            let is_next = age < window.saturating_mul(2);
            self.before = if is_next { self.now } else { Histogram::EMPTY };
            self.now = Histogram::EMPTY;
            self.began = at - age % window;
        }
    }

    pub(crate) fn record(&mut self, at: u64, window: u64, nanos: u64) {
        self.turn(at, window);
        self.count(bucket_of(nanos));
    }

    /// Notes the age of a call that was cut, if that is not below the percentile (L3).
    pub(crate) fn record_cut(&mut self, at: u64, window: u64, nanos: u64, share: f64, least: u64) {
        self.turn(at, window);
        let age = bucket_of(nanos);
        if self.find(share, least).is_some_and(|found| age >= found) {
            self.count(age);
        }
    }

    fn count(&mut self, bucket: usize) {
        let count = &mut self.now.counts[bucket];
        *count = count.saturating_add(1);
        self.now.total += 1;
    }

    /// Returns the time, in nanoseconds, that this share of the calls did not exceed; none with fewer calls than `least`.
    pub(crate) fn percentile(
        &mut self,
        at: u64,
        window: u64,
        share: f64,
        least: u64,
    ) -> Option<u64> {
        self.turn(at, window);
        Some(edge(self.find(share, least)?) * 1_000)
    }

    fn find(&self, share: f64, least: u64) -> Option<usize> {
        let total = self.now.total + self.before.total;
        if total < least.max(1) {
            return None;
        }
        let wanted = ((total as f64 * share).ceil() as u64).clamp(1, total);
        let mut seen = 0;
        let both = self.now.counts.iter().zip(&self.before.counts);
        both.map(|(now, before)| u64::from(*now) + u64::from(*before))
            .position(|count| {
                seen += count;
                seen >= wanted
            })
    }
}

#[cfg(test)]
mod tests {
    use super::{BUCKETS, LONGEST, Windows, bucket, edge};

    #[test]
    fn buckets_cover_every_value_to_an_eighth() {
        assert_eq!(bucket(LONGEST), BUCKETS - 1);
        let mut before = 0;
        for micros in (0..100_000).chain((17..34).map(|bit| 1 << bit)) {
            let (bucket, edge) = (bucket(micros), edge(bucket(micros)));
            assert!(bucket >= before && edge >= micros);
            assert!(edge as f64 <= micros as f64 * 1.125, "{micros} → {edge}");
            before = bucket;
        }
    }

    #[test]
    fn two_windows_later_nothing_is_known() {
        let mut windows = Windows::new();
        for _ in 0..10 {
            windows.record(5, 100, 7_000);
        }
        assert_eq!(windows.percentile(5, 100, 0.9, 11), None);
        assert_eq!(windows.percentile(5, 100, 0.9, 10), Some(7_000));
        assert_eq!(windows.percentile(199, 100, 0.9, 10), Some(7_000));
        assert_eq!(windows.percentile(200, 100, 0.9, 1), None);
        windows.record(200, 100, 3_000);
        assert_eq!(windows.percentile(u64::MAX, u64::MAX, 0.5, 1), Some(3_000));
        assert_eq!(windows.percentile(u64::MAX, 100, 0.5, 1), None);
    }

    #[test]
    fn what_is_cut_counts_in_the_window_in_which_it_is_cut() {
        let mut windows = Windows::new();
        windows.record(0, 100, 7_000);
        windows.record_cut(150, 100, 9_000, 1.0, 1);
        windows.record_cut(150, 100, 1_000, 1.0, 1); // below: says nothing
        assert_eq!(windows.percentile(250, 100, 0.5, 1), Some(9_000));
        assert_eq!(windows.percentile(250, 100, 0.5, 2), None);
        windows.record_cut(250, 100, 9_000, 1.0, 1); // as long as the longest: counts
        windows.record(350, 100, 5_000); // in the next one
        assert_eq!(windows.percentile(350, 100, 1.0, 2), Some(9_000));
        assert_eq!(windows.percentile(350, 100, 0.5, 3), None);
        assert_eq!(windows.percentile(450, 100, 0.5, 2), None);
        assert_eq!(windows.percentile(450, 100, 0.5, 1), Some(5_000));
    }

    #[test]
    fn a_percentile_is_that_of_the_sample() {
        let mut windows = Windows::new();
        for millis in 1..=100 {
            windows.record(0, 100, millis * 1_000_000);
        }
        for share in [0.5, 0.9, 0.99] {
            let found = windows.percentile(0, 100, share, 1).expect("enough") as f64 / 1e6;
            assert!(
                (share * 100.0..=share * 112.5).contains(&found),
                "{share}: {found}"
            );
        }
    }
}

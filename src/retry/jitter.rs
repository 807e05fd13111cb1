//! How a delay is spread: pure, seeded, and frozen.
//!
//! J1. A draw is made from an interval that lies within floor and cap already; nothing is clamped after the draw, so no
//! value is likelier than another. J2. The same seed gives the same draws in every version.

/// How the delays of a [`Retry`](crate::Retry) are spread, so that callers who failed together do not come back together.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Jitter {
    /// The delay itself.
    None,
    /// Anything from the floor to the delay, each as likely: the widest spread, and the default.
    Full,
    /// Anything from half the delay to the delay.
    Equal,
    /// The delay, give or take this share of it; the cap holds. From 0 to 1.
    Proportional(f64),
}

/// Nanoseconds.
pub(crate) type Nanos = u64;

impl Jitter {
    pub(crate) const fn is_valid(self) -> bool {
        match self {
            Self::Proportional(share) => share >= 0.0 && share <= 1.0, // not for NaN
            Self::None | Self::Full | Self::Equal => true,
        }
    }

    /// Returns the ends of the interval that `delay`, which lies within floor and cap, is spread over (J1).
    pub(super) fn interval(self, delay: Nanos, floor: Nanos, cap: Nanos) -> (Nanos, Nanos) {
        let (low, high) = match self {
            Self::None => (delay, delay),
            Self::Full => (0, delay),
            Self::Equal => (delay - delay / 2, delay),
            Self::Proportional(share) => {
                // Rounded inwards. The casts saturate, and a delay is far below the end of the type.
                let delay = delay as f64;
                let low = (delay * (1.0 - share)).ceil() as Nanos;
                let high = (delay * (1.0 + share)).floor() as Nanos;
                (low, high.max(low))
            }
        };
        (low.clamp(floor, cap), high.clamp(floor, cap))
    }
}

/// `SplitMix64`: small, fast, of period 2⁶⁴, and ours, so that no update of a dependency changes anybody's delays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Dice(u64);

impl Dice {
    /// Stream 0 of a seed is the generator of that seed; the others start elsewhere.
    pub(super) const fn new(seed: u64, stream: u64) -> Self {
        Self(seed ^ mix(stream))
    }

    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Draws from an interval, both ends included, each value as likely.
    pub(super) fn draw(&mut self, (low, high): (Nanos, Nanos)) -> Nanos {
        if low >= high {
            return low;
        }
        let values = u128::from(high - low) + 1;
        // The upper half of the product is below `values`, so the sum stays within the interval.
        low + ((u128::from(self.roll()) * values) >> 64) as Nanos
    }
}

/// A bijection that leaves zero where it is.
const fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::{Dice, Jitter};

    #[test]
    fn the_generator_is_splitmix64() {
        let mut dice = Dice::new(0, 0);
        let first: Vec<u64> = (0..3).map(|_| dice.roll()).collect();
        assert_eq!(
            first,
            [
                0xE220_A839_7B1D_CDAF,
                0x6E78_9E6A_A1B9_65F4,
                0x06C4_5D18_8009_454F
            ]
        );
    }

    #[test]
    fn streams_of_a_seed_differ() {
        let firsts: std::collections::HashSet<u64> = (0..10_000)
            .map(|stream| Dice::new(7, stream).roll())
            .collect();
        assert_eq!(firsts.len(), 10_000);
    }

    #[test]
    fn a_draw_reaches_both_ends() {
        let mut dice = Dice::new(1, 0);
        let drawn: std::collections::BTreeSet<u64> = (0..200).map(|_| dice.draw((3, 7))).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6, 7]);
        assert_eq!(dice.draw((9, 9)), 9);
        assert!(dice.draw((0, u64::MAX)) > 0);
    }

    #[test]
    fn an_interval_lies_between_floor_and_cap() {
        for jitter in [
            Jitter::None,
            Jitter::Full,
            Jitter::Equal,
            Jitter::Proportional(1.0),
        ] {
            for delay in [2, 3, 5, 10] {
                let (low, high) = jitter.interval(delay, 2, 10);
                assert!(
                    (2..=10).contains(&low) && (low..=10).contains(&high),
                    "{jitter:?}"
                );
            }
        }
        assert_eq!(
            Jitter::Proportional(0.25).interval(100, 0, 1_000),
            (75, 125)
        );
        assert_eq!(Jitter::Equal.interval(101, 0, 1_000), (51, 101));
    }

    #[test]
    fn shares_outside_zero_to_one_are_not_valid() {
        for share in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
            assert!(!Jitter::Proportional(share).is_valid());
        }
        assert!(Jitter::Proportional(0.0).is_valid() && Jitter::Proportional(1.0).is_valid());
    }
}

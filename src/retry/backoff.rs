//! How long to wait before each attempt but the first: pure, without a clock.
//!
//! B1. The next step never depends on the last draw, but for the decorrelated shape, which is made of that. B2. Once at the
//! cap, at the cap: the sequence has a fixed point, so no number of steps overflows. B3. All times are whole nanoseconds
//! below [`LONGEST`]: no sum and no product of two of them leaves its type.

use std::time::Duration;

use super::jitter::{Dice, Jitter, Nanos};

/// The longest delay there is, a year: what lies beyond is this long.
pub(crate) const LONGEST: Duration = Duration::from_secs(365 * 24 * 60 * 60);

/// How the delay grows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    Constant,
    Linear { step: Nanos },
    Exponential { factor: f64 },
    Decorrelated,
}

/// What a policy says about delays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Curve {
    pub(crate) shape: Shape,
    pub(crate) base: Nanos,
    pub(crate) floor: Nanos,
    pub(crate) cap: Nanos,
    pub(crate) jitter: Jitter,
}

impl Curve {
    /// Asks whether every delay is zero.
    pub(crate) const fn is_flat_zero(&self) -> bool {
        let grows = match self.shape {
            Shape::Linear { step } => step > 0,
            Shape::Constant | Shape::Exponential { .. } | Shape::Decorrelated => false,
        };
        self.cap == 0 || (self.floor == 0 && self.base == 0 && !grows)
    }
}

/// Saturates at [`LONGEST`] (B3).
pub(crate) const fn nanos(duration: Duration) -> Nanos {
    let nanos = duration.as_nanos();
    if nanos < LONGEST.as_nanos() {
        nanos as Nanos
    } else {
        LONGEST.as_nanos() as Nanos
    }
}

/// Where one run stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Backoff {
    dice: Dice,
    /// The next delay before floor, cap and jitter; for the decorrelated shape the last one that was drawn.
    step: f64,
}

impl Backoff {
    pub(crate) const fn new(curve: &Curve, seed: u64, stream: u64) -> Self {
        Self {
            dice: Dice::new(seed, stream),
            step: curve.base as f64,
        }
    }

    /// Returns the next delay.
    pub(crate) fn next(&mut self, curve: &Curve) -> Duration {
        let Curve {
            shape,
            base,
            floor,
            cap,
            jitter,
        } = *curve;
        let (floor, top) = (floor, cap as f64);
        let drawn = if let Shape::Decorrelated = shape {
            // The interval is cut at the cap, not the draw: else most draws would be the cap, and callers in step again.
            let high = ((self.step * 3.0) as Nanos).min(cap); // whose `f64` may be above it
            let low = base.clamp(floor, cap);
            let drawn = self.dice.draw((low, high.max(low)));
            self.step = drawn as f64;
            drawn
        } else {
            let delay = (self.step.min(top) as Nanos).clamp(floor, cap);
            if self.step < top {
                self.step = match shape {
                    Shape::Linear { step } => self.step + step as f64,
                    Shape::Exponential { factor } => self.step * factor,
                    Shape::Constant | Shape::Decorrelated => self.step,
                };
            }
            self.dice.draw(jitter.interval(delay, floor, cap))
        };
        Duration::from_nanos(drawn)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Backoff, Curve, LONGEST, Shape, nanos};
    use crate::retry::jitter::Jitter;

    fn curve(shape: Shape, base: Duration, cap: Duration) -> Curve {
        Curve {
            shape,
            base: nanos(base),
            floor: 0,
            cap: nanos(cap),
            jitter: Jitter::None,
        }
    }

    fn after(curve: &Curve, steps: usize) -> Backoff {
        let mut backoff = Backoff::new(curve, 0, 0);
        for _ in 0..steps {
            backoff.next(curve);
        }
        backoff
    }

    /// B2: a state that is its own successor is the state after any number of steps. `u32::MAX` ones are a minute here.
    #[test]
    fn every_shape_without_draws_comes_to_a_fixed_point() {
        for shape in [
            Shape::Constant,
            Shape::Linear {
                step: 10_u64.pow(15),
            },
            Shape::Exponential { factor: 1.0 },
            Shape::Exponential { factor: 2.0 },
            Shape::Exponential { factor: f64::MAX },
        ] {
            for (base, cap) in [
                (Duration::from_millis(1), Duration::from_secs(1)),
                (Duration::MAX, Duration::MAX),
                (Duration::from_secs(1), Duration::MAX),
                (Duration::ZERO, Duration::MAX),
            ] {
                let curve = curve(shape, base, cap);
                let mut backoff = after(&curve, 100);
                let before = backoff;
                let delay = backoff.next(&curve);
                assert_eq!(backoff, before, "{curve:?}");
                assert!(delay <= LONGEST);
            }
        }
    }

    #[test]
    fn the_longest_delay_is_exact() {
        let curve = curve(Shape::Constant, Duration::MAX, Duration::MAX);
        assert_eq!(after(&curve, 3).next(&curve), LONGEST);
    }
}

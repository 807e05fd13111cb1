//! A policy: a value, without any state of a run.

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

use super::backoff::{Backoff, Curve, Shape, nanos};
use super::jitter::{Jitter, Nanos};

/// Timers have this grain, so a shorter wait is as long.
const MILLISECOND: Nanos = 1_000_000;

/// How often to try, and how long to wait in between.
///
/// A policy is a plain value, made once and used by everybody: put it into a `const`. It keeps nothing of a run. The
/// default is bounded and spread: 3 attempts, 100 ms before the second, twice as long before each further one, never more
/// than 20 s, with [full jitter](Jitter::Full).
///
/// | to run | use |
/// |---|---|
/// | a closure that returns a future | [`retry`](Self::retry) |
/// | an async closure that changes something | [`retry_with`](Self::retry_with) |
/// | a loop of one's own, with `?`, `break` and `&mut self` | [`tries`](Self::tries) |
///
/// # Panics
///
/// Every option refuses what makes no sense where it is given: in a `const`, that is an error of the compiler.
///
/// ```compile_fail
/// # use ringfence::Retry;
/// const NEVER: Retry = Retry::DEFAULT.attempts(0);
/// # let _ = NEVER;
/// ```
///
/// # Examples
///
/// ```
/// use std::time::Duration;
/// use ringfence::{Jitter, Retry};
///
/// const POLITE: Retry = Retry::exponential(Duration::from_millis(50))
///     .factor(3.0)
///     .cap(Duration::from_secs(1))
///     .attempts(5)
///     .jitter(Jitter::None);
///
/// let delays: Vec<u128> = POLITE.delays().map(|delay| delay.as_millis()).collect();
/// assert_eq!(delays, [50, 150, 450, 1000]);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
#[must_use = "a policy does nothing by itself: `POLICY.retry(…)`"]
pub struct Retry {
    pub(super) curve: Curve,
    floor_is_given: bool,
    pub(super) attempts: Option<NonZeroU32>,
    pub(super) seed: Option<u64>,
    pub(super) max_hint: Duration,
    pub(super) pauses: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl Retry {
    /// 3 attempts; 100 ms, twice as long each time, 20 s at most; full jitter.
    pub const DEFAULT: Self = Self::exponential(Duration::from_millis(100));

    const fn shaped(shape: Shape, base: Duration) -> Self {
        Self {
            curve: Curve {
                shape,
                base: nanos(base),
                floor: 0,
                cap: nanos(Duration::from_secs(20)),
                jitter: Jitter::Full,
            },
            floor_is_given: false,
            attempts: NonZeroU32::new(3),
            seed: None,
            max_hint: Duration::from_secs(60),
            pauses: true,
        }
        .settled()
    }

    /// Waits about as long each time, without a cap unless one is given. [`Duration::ZERO`] is one turn of the scheduler,
    /// without a timer.
    pub const fn constant(delay: Duration) -> Self {
        let mut policy = Self::shaped(Shape::Constant, delay);
        if policy.curve.cap < policy.curve.base {
            policy.curve.cap = policy.curve.base;
        }
        policy
    }

    /// Waits about `step` longer each time, `first` at first.
    pub const fn linear(first: Duration, step: Duration) -> Self {
        Self::shaped(Shape::Linear { step: nanos(step) }, first)
    }

    /// Waits about twice as long each time, `first` at first; see [`factor`](Self::factor).
    pub const fn exponential(first: Duration) -> Self {
        Self::shaped(Shape::Exponential { factor: 2.0 }, first)
    }

    /// Waits between `base` and three times as long as the last time: spread by itself, so it takes no jitter.
    pub const fn decorrelated(base: Duration) -> Self {
        let mut policy = Self::shaped(Shape::Decorrelated, base);
        policy.curve.jitter = Jitter::None;
        policy
    }

    /// Multiplies an exponential delay by this each time; 2 unless given.
    ///
    /// # Panics
    ///
    /// If it is below 1, infinite or not a number, or if the delay is not exponential.
    #[track_caller]
    pub const fn factor(self, factor: f64) -> Self {
        match self.try_factor(factor) {
            Ok(policy) => policy,
            Err(_) => panic!(
                "ringfence: the factor of an exponential delay is a finite number of at least 1"
            ),
        }
    }

    /// As [`factor`](Self::factor), for a value that comes from outside.
    ///
    /// # Errors
    ///
    /// If it is below 1, infinite or not a number, or if the delay is not exponential.
    pub const fn try_factor(mut self, factor: f64) -> Result<Self, InvalidPolicy> {
        let is_valid = factor >= 1.0 && factor <= f64::MAX; // not for NaN
        match &mut self.curve.shape {
            Shape::Exponential { factor: own } if is_valid => *own = factor,
            _ => return Err(InvalidPolicy(Wrong::Factor(factor))),
        }
        Ok(self)
    }

    /// Never waits longer than this, whatever the jitter; 20 s unless given, and as long as a [constant](Self::constant) delay
    /// that is longer.
    ///
    /// # Panics
    ///
    /// If it is below a [`floor`](Self::floor) that was given, or zero where attempts are unlimited.
    #[track_caller]
    pub const fn cap(mut self, cap: Duration) -> Self {
        self.curve.cap = nanos(cap);
        self.settled()
    }

    /// Never waits shorter than this, whatever the jitter; a millisecond unless given, or as long as the first delay
    /// where that is shorter.
    ///
    /// # Panics
    ///
    /// If it is above the [`cap`](Self::cap): say that one first, for a floor above 20 s.
    #[track_caller]
    pub const fn floor(mut self, floor: Duration) -> Self {
        self.curve.floor = nanos(floor);
        self.floor_is_given = true;
        self.settled()
    }

    /// Calls the operation this often at most, the first time included.
    ///
    /// # Panics
    ///
    /// If it is 0.
    #[track_caller]
    pub const fn attempts(mut self, attempts: u32) -> Self {
        match NonZeroU32::new(attempts) {
            Some(attempts) => self.attempts = Some(attempts),
            None => panic!("ringfence: 0 attempts are none; for ever is spelled `unlimited()`"),
        }
        self
    }

    /// Tries for ever, until a deadline, a budget or a cancel ends it.
    ///
    /// # Panics
    ///
    /// If every delay is zero: that would be a loop that nothing slows down.
    #[track_caller]
    pub const fn unlimited(mut self) -> Self {
        self.attempts = None;
        self.settled()
    }

    /// Spreads the delays so.
    ///
    /// # Panics
    ///
    /// If a proportion is not from 0 to 1, or if the delay is decorrelated, which is spread already.
    #[track_caller]
    pub const fn jitter(self, jitter: Jitter) -> Self {
        match self.try_jitter(jitter) {
            Ok(policy) => policy,
            Err(_) => panic!(
                "ringfence: a proportion of jitter is from 0 to 1, and a decorrelated delay has its own"
            ),
        }
    }

    /// As [`jitter`](Self::jitter), for a value that comes from outside.
    ///
    /// # Errors
    ///
    /// If a proportion is not from 0 to 1, or if the delay is decorrelated, which is spread already.
    pub const fn try_jitter(mut self, jitter: Jitter) -> Result<Self, InvalidPolicy> {
        let is_spread = matches!(self.curve.shape, Shape::Decorrelated);
        if !jitter.is_valid() || (is_spread && !matches!(jitter, Jitter::None)) {
            return Err(InvalidPolicy(Wrong::Jitter(jitter)));
        }
        self.curve.jitter = jitter;
        Ok(self)
    }

    /// Draws the same delays in every run, and in every version of this library.
    ///
    /// Runs that go on at the same time are kept apart by [`stream`](super::Run::stream).
    pub const fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Gives up on a server that asks for more patience than this; a minute unless given, a year at most.
    pub const fn max_hint(mut self, max_hint: Duration) -> Self {
        self.max_hint = Duration::from_nanos(nanos(max_hint));
        self
    }

    /// Makes all pauses empty, hints included: what fails is called again at once.
    ///
    /// For tests of what stands around a retry, together with [`attempts`](Self::attempts), and for an operation that
    /// waits by itself.
    ///
    /// # Panics
    ///
    /// If attempts are unlimited.
    #[track_caller]
    pub const fn without_pauses(mut self) -> Self {
        self.pauses = false;
        self.settled()
    }

    /// Returns the delays of one run, in order.
    #[must_use]
    pub fn delays(&self) -> Delays {
        Delays {
            policy: *self,
            backoff: self.backoff(0),
            left: self.attempts.map(|attempts| attempts.get() - 1),
        }
    }

    #[inline]
    pub(super) const fn is_exhausted(&self, attempts: u32) -> bool {
        match self.attempts {
            Some(most) => attempts >= most.get(),
            None => false,
        }
    }

    /// Returns what its delays are made of, and the seed of one run, for who draws them without end.
    pub(crate) fn endless(&self) -> (Curve, u64) {
        let seed = self.seed.unwrap_or_else(super::seed::unlike_any_other);
        (self.curve, seed)
    }

    pub(crate) const fn has_pauses(&self) -> bool {
        self.pauses
    }

    pub(super) fn backoff(&self, stream: u64) -> Backoff {
        let seed = self.seed.unwrap_or_else(super::seed::unlike_any_other);
        Backoff::new(&self.curve, seed, stream)
    }

    #[track_caller]
    const fn settled(mut self) -> Self {
        let Curve { base, cap, .. } = self.curve;
        if !self.floor_is_given {
            let least = if base < cap { base } else { cap };
            self.curve.floor = if least < MILLISECOND {
                least
            } else {
                MILLISECOND
            };
        }
        assert!(
            self.curve.floor <= cap,
            "ringfence: the floor of a delay is not above its cap"
        );
        assert!(
            self.attempts.is_some() || (self.pauses && !self.curve.is_flat_zero()),
            "ringfence: unlimited attempts need delays that are not all zero"
        );
        self
    }
}

/// The delays of a run: see [`Retry::delays`].
#[derive(Clone, Debug)]
pub struct Delays {
    policy: Retry,
    backoff: Backoff,
    left: Option<u32>,
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        if let Some(left) = &mut self.left {
            *left = left.checked_sub(1)?;
        }
        Some(if self.policy.pauses {
            self.backoff.next(&self.policy.curve)
        } else {
            Duration::ZERO
        })
    }
}

/// An option that a policy cannot have: see [`Retry::try_factor`] and [`Retry::try_jitter`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InvalidPolicy(Wrong);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Wrong {
    Factor(f64),
    Jitter(Jitter),
}

impl fmt::Display for InvalidPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Wrong::Factor(factor) => write!(f, "{factor} is not a factor for this delay"),
            Wrong::Jitter(Jitter::Proportional(share)) => {
                write!(f, "{share} is not a proportion of jitter for this delay")
            }
            Wrong::Jitter(jitter) => write!(f, "{jitter:?} is not a jitter for this delay"),
        }
    }
}

impl std::error::Error for InvalidPolicy {}

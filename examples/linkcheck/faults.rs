//! Which requests the server spoils with `--faults`.
//!
//! A seed decides, not the clock: the same path gets the same faults in every run, whatever the
//! order in which requests arrive. So a run can be repeated, and two runs compared.

use std::time::Duration;

use crate::hash::{hash, mix};

/// A way to spoil one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The answer comes, but late.
    Slow(Duration),
    /// `503 Service Unavailable`, with the number of seconds after which to try again.
    Busy { retry_after: u64 },
    /// The connection is reset before any answer.
    Reset,
    /// No answer, ever.
    Hang,
}

/// Dice with a seed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dice {
    seed: u64,
}

impl Dice {
    /// A path misbehaves at most this often in a row. It is less than the client's attempts: with
    /// faults a run takes longer, but it must find the same pages.
    pub(crate) const SPOILED_VISITS: u32 = 2;

    pub(crate) fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Decides about the `visit`-th request (from 1) for a path.
    pub(crate) fn roll(self, path: &str, visit: u32) -> Option<Fault> {
        if visit > Self::SPOILED_VISITS {
            return None;
        }
        let number = mix(hash(path) ^ mix(self.seed ^ u64::from(visit)));
        // In a thousand requests: 40 slow, 20 busy, 20 reset, 5 that hang.
        match number % 1000 {
            0..40 => Some(Fault::Slow(Duration::from_millis(
                50 + (number >> 32) % 200,
            ))),
            40..60 => Some(Fault::Busy { retry_after: 1 }),
            60..80 => Some(Fault::Reset),
            80..85 => Some(Fault::Hang),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Dice, Fault};

    fn rolls(seed: u64) -> Vec<Option<Fault>> {
        let dice = Dice::new(seed);
        (0..10_000)
            .map(|n| dice.roll(&format!("/page-{n}.html"), 1))
            .collect()
    }

    #[test]
    fn a_seed_decides() {
        assert_eq!(rolls(7), rolls(7));
        assert_ne!(rolls(7), rolls(8));
    }

    #[test]
    fn the_shares_are_as_documented() {
        let rolls = rolls(7);
        let count =
            |is: fn(&Fault) -> bool| rolls.iter().flatten().filter(|fault| is(fault)).count();
        assert!((350..450).contains(&count(|f| matches!(f, Fault::Slow(_)))));
        assert!((150..250).contains(&count(|f| matches!(f, Fault::Busy { .. }))));
        assert!((150..250).contains(&count(|f| matches!(f, Fault::Reset))));
        assert!((25..75).contains(&count(|f| matches!(f, Fault::Hang))));
    }

    #[test]
    fn no_path_is_spoiled_for_ever() {
        let dice = Dice::new(7);
        for n in 0..10_000 {
            assert_eq!(dice.roll(&format!("/{n}"), Dice::SPOILED_VISITS + 1), None);
        }
    }
}

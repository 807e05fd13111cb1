//! A row: one piece of work, and those who do it.

use std::fmt;
use std::pin::Pin;

use crate::Gate;

/// What a contender does in one iteration; gives a checksum.
pub type Body = Pin<Box<dyn Future<Output = u64> + Send>>;

/// One way to do a row's work.
pub struct Contender {
    /// As it stands in the tables; ours begin with `ringfence`.
    pub name: &'static str,
    /// Makes the body for so many units.
    pub run: fn(usize, Gate) -> Body,
}

/// A ratio that a contender of ours is to stay under.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Who is to reach it.
    pub who: &'static str,
    /// The contender it is measured by.
    pub against: &'static str,
    /// The highest ratio on `current_thread`.
    pub ct: Option<f64>,
    /// The highest ratio on `multi_thread` with two workers.
    pub mt: Option<f64>,
    /// The highest ratio of instructions on `current_thread`.
    pub instructions: Option<f64>,
}

/// Highest exact counts a child for a contender of ours.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// Locked read-modify-writes.
    pub locked: Option<f64>,
    /// Allocations.
    pub allocations: Option<f64>,
    /// Bytes asked of the allocator.
    pub bytes: Option<f64>,
}

/// One piece of work, beside its peers.
pub struct Row {
    /// Name on the command line.
    pub name: &'static str,
    /// What the row asks.
    pub question: &'static str,
    /// What is counted, in the plural.
    pub unit: &'static str,
    /// Units of an iteration, unless told otherwise.
    pub units: usize,
    /// Sizes at which instructions are counted; their difference is what counts.
    pub counted: (usize, usize),
    /// Rounds a number of units down to one this row can do.
    pub round: fn(usize) -> usize,
    /// Whether the clock starts at the gate instead of at the beginning.
    pub from_gate: bool,
    /// Checksum that each contender must give.
    pub checksum: fn(usize) -> u64,
    /// Children that must have come to their end.
    pub ended: fn(usize) -> usize,
    /// The ratio columns: the bare one and tokio's `JoinSet`.
    pub bases: (&'static str, Option<&'static str>),
    /// Who competes.
    pub contenders: &'static [Contender],
    /// What ours are to reach.
    pub goals: &'static [Goal],
    /// What the contender `ringfence` may spend.
    pub limits: Limits,
}

impl Row {
    /// The units of an iteration: `RINGFENCE_BENCH_N` if it is set and smaller.
    #[must_use]
    pub fn size(&self) -> usize {
        let told = std::env::var("RINGFENCE_BENCH_N")
            .ok()
            .and_then(|n| n.parse().ok());
        (self.round)(told.map_or(self.units, |n: usize| n.clamp(100, self.units)))
    }

    /// The contender of that name.
    #[must_use]
    pub fn contender(&self, name: &str) -> Option<&'static Contender> {
        self.contenders.iter().find(|c| c.name == name)
    }
}

impl fmt::Debug for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Row")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Contender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Contender")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

//! Times the contenders of a row side by side.
//!
//! They take turns, each round in another order, and each runs once unmeasured before: it finds the heap as it leaves it
//! itself, not as another one did. A ratio is taken within its round. On `current_thread` it is processor time
//! that counts, which is the time on the wall if nobody else is on the machine, and stands still while others are.

use std::time::{Duration, Instant};

use crate::Row;
use crate::measure::Place;

/// Time for one row, all places, once the least number of rounds is done.
const BUDGET: Duration = Duration::from_secs(12);
const ROUNDS: std::ops::RangeInclusive<usize> = 5..=31;

/// One contender's samples in one place, a round each, in nanoseconds a unit.
#[derive(Debug, Default)]
pub struct Samples {
    /// On the clock on the wall.
    pub wall: Vec<f64>,
    /// Of the processors.
    pub cpu: Vec<f64>,
}

/// A row's samples: contender by contender, place by place.
#[derive(Debug)]
pub struct Timed(pub Vec<[Samples; 3]>);

impl Timed {
    /// The samples that are told: processor time in the first place, time on the wall in the others.
    #[must_use]
    pub fn of(&self, contender: usize, column: usize) -> &[f64] {
        let samples = &self.0[contender][column];
        if column == 0 {
            &samples.cpu
        } else {
            &samples.wall
        }
    }
}

/// Middle half and median.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    /// A quarter lies below.
    pub low: f64,
    /// Half lies below.
    pub median: f64,
    /// A quarter lies above.
    pub high: f64,
}

/// The middle half of some values; nothing of none.
pub fn spread(values: impl IntoIterator<Item = f64>) -> Option<Spread> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let at = |part: f64| {
        values
            .get(((values.len().checked_sub(1)?) as f64 * part).round() as usize)
            .copied()
    };
    Some(Spread {
        low: at(0.25)?,
        median: at(0.5)?,
        high: at(0.75)?,
    })
}

/// Ratios within the rounds.
#[must_use]
pub fn ratios(of: &[f64], to: &[f64]) -> Option<Spread> {
    spread(of.iter().zip(to).map(|(of, to)| of / to))
}

/// Columns of the places, in the order of [`Place::all`].
pub const PLACES: [&str; 3] = ["ct", "mt", "task"];

fn sample(place: &Place, row: &Row, contender: usize, n: usize, into: &mut Samples) {
    // Once for the heap: what another contender has left there is no business of this one.
    let _warm = place.once(row, &row.contenders[contender], n);
    let taken = place.once(row, &row.contenders[contender], n);
    into.wall.push(taken.wall.as_nanos() as f64 / n as f64);
    into.cpu.push(taken.cpu.as_nanos() as f64 / n as f64);
}

/// Another order each round, the same in every run.
fn order(contenders: usize, round: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..contenders).collect();
    let mut state = (round as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    for last in (1..contenders).rev() {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        order.swap(last, (state >> 33) as usize % (last + 1));
    }
    order
}

/// Times a row: contenders take turns, each round in another order.
#[must_use]
pub fn timed(places: &[Place; 3], row: &Row) -> Timed {
    let n = row.size();
    let mut timed = Timed(row.contenders.iter().map(|_| Default::default()).collect());
    let start = Instant::now();
    for round in 0..*ROUNDS.end() {
        if round >= *ROUNDS.start() && start.elapsed() > BUDGET {
            break;
        }
        for (column, place) in places.iter().enumerate() {
            for contender in order(row.contenders.len(), round) {
                sample(place, row, contender, n, &mut timed.0[contender][column]);
            }
        }
    }
    timed
}

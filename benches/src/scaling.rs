//! What becomes of the cost of one when there are more of them: the curves of `docs/performance.md`.

use std::hint::black_box;
use std::time::Instant;

use crate::measure::Place;
use crate::rows;
use crate::timing::spread;

/// Nanoseconds a unit, by how many there are.
#[derive(Debug)]
pub struct Curve {
    /// Who.
    pub name: &'static str,
    /// How many, and what one of them took: the median of a few runs.
    pub points: Vec<(usize, f64)>,
}

/// A picture: some curves over the same axis.
#[derive(Debug)]
pub struct Picture {
    /// File name, without its end.
    pub file: &'static str,
    /// What it asks.
    pub title: &'static str,
    /// What there is more and more of.
    pub axis: &'static str,
    /// The curves; ours begin with `ringfence`.
    pub curves: Vec<Curve>,
}

const ROUNDS: usize = 5;
/// So many units at least are timed in one go.
const AT_LEAST: usize = 20_000;

/// Median of the nanoseconds a unit, contenders in turn.
fn curves(
    names: &[&'static str],
    sizes: &[usize],
    mut once: impl FnMut(&'static str, usize) -> f64,
) -> Vec<Curve> {
    let curve = |name| Curve {
        name,
        points: Vec::new(),
    };
    let mut curves: Vec<Curve> = names.iter().copied().map(curve).collect();
    for &size in sizes {
        let mut taken = vec![Vec::new(); names.len()];
        for _ in 0..ROUNDS {
            for (name, taken) in names.iter().zip(&mut taken) {
                // Once for the heap, which is not to be as another one has left it.
                once(name, size);
                taken.push(once(name, size));
            }
        }
        for (curve, taken) in curves.iter_mut().zip(taken) {
            let median = spread(taken).map(|spread| spread.median);
            curve.points.extend(median.map(|median| (size, median)));
        }
    }
    curves
}

/// A contender of a row, at several sizes on `current_thread`: small ones are repeated.
fn of_row(row: &'static str, names: &[&'static str], sizes: &[usize]) -> Vec<Curve> {
    let place = Place::current_thread();
    curves(names, sizes, |name, size| {
        let Some((row, contender)) =
            rows::row(row).and_then(|row| Some((row, row.contender(name)?)))
        else {
            return f64::NAN;
        };
        let repeats = AT_LEAST.div_ceil(size);
        let taken: f64 = (0..repeats)
            .map(|_| place.once(row, contender, size).cpu.as_nanos() as f64)
            .sum();
        taken / (repeats * size) as f64
    })
}

fn of_producers() -> Vec<Curve> {
    let place = Place::multi_thread();
    let names = [
        "crossfire",
        "async-channel",
        "tokio mpsc",
        "kanal",
        "ringfence",
    ];
    const ITEMS: usize = 64 * 4_000;
    curves(&names, &[1, 2, 4, 8, 16, 32, 64], |name, producers| {
        let began = Instant::now();
        let body = Box::pin(rows::queue::producers(name, producers, ITEMS));
        black_box(place.run(body));
        began.elapsed().as_nanos() as f64 / ITEMS as f64
    })
}

/// Measures all of them.
#[must_use]
pub fn pictures() -> Vec<Picture> {
    vec![
        Picture {
            file: "children",
            title: "What does a child cost, in a group of so many?",
            axis: "children in the group",
            curves: of_row(
                "void",
                &["bare spawn + Vec of handles", "JoinSet", "ringfence"],
                &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000],
            ),
        },
        Picture {
            file: "items",
            title: "What does an item cost in a fan-out of so many, 64 at once?",
            axis: "items",
            curves: of_row(
                "fan-spawn",
                &[
                    "64 workers",
                    "buffer_unordered",
                    "Semaphore + JoinSet",
                    "ringfence",
                ],
                &[1, 10, 100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000],
            ),
        },
        Picture {
            file: "producers",
            title: "What does an item cost with so many producers and one consumer, on two workers?",
            axis: "producers",
            curves: of_producers(),
        },
    ]
}

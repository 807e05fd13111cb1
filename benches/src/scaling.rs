//! What becomes of the cost of one when there are more of them: the curves of `docs/performance.md`.

use std::hint::black_box;
use std::path::Path;
use std::process::Command;
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
///
/// Each time in a process of its own: ten million tasks leave gigabytes of free chunks behind, and whoever comes next in the
/// same heap pays for putting them together.
fn of_row(
    programs: &Path,
    row: &'static str,
    names: &[&'static str],
    sizes: &[usize],
) -> Vec<Curve> {
    curves(names, sizes, |name, size| {
        let repeats = AT_LEAST.div_ceil(size);
        let output = Command::new(programs.join("units"))
            .args([row, name, &size.to_string(), &repeats.to_string()])
            .output();
        let told = output.ok().map(|output| output.stdout);
        let told = told.and_then(|told| String::from_utf8(told).ok());
        told.and_then(|told| told.trim().parse().ok())
            .unwrap_or(f64::NAN)
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
        let body = || Box::pin(rows::queue::producers(name, producers, ITEMS));
        // Once for the heap, which is not to be as another one has left it.
        black_box(place.run(body()));
        let began = Instant::now();
        black_box(place.run(body()));
        began.elapsed().as_nanos() as f64 / ITEMS as f64
    })
}

/// Measures all of them, with the small programs of the lane.
#[must_use]
pub fn pictures(programs: &Path) -> Vec<Picture> {
    vec![
        Picture {
            file: "children",
            title: "What does a child cost, in a group of so many?",
            axis: "children in the group",
            curves: of_row(
                programs,
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
                programs,
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

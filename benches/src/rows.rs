//! The rows, in the order of the report.

pub mod cancel;
pub mod eager;
pub mod fan;
pub mod free;
pub mod joins;
pub mod laden;
pub mod local;
pub mod many;
pub mod permit;
pub mod queue;
pub mod ready;
pub mod result;
pub mod retry;
pub mod seen;
pub mod slots;
pub mod small;
pub mod tree;
pub mod void;
pub mod yields;

use crate::Row;

/// All of them.
pub static ALL: &[&Row] = &[
    &void::ROW,
    &laden::ROW,
    &result::ROW,
    &yields::ROW,
    &small::ROW,
    &cancel::ROW,
    &tree::ROW,
    &local::ROW,
    &local::YIELDS,
    &eager::ROW,
    &slots::ROW,
    &seen::ROW,
    &joins::ALL,
    &joins::FIRST,
    &ready::ROW,
    &many::ROW,
    &free::ROW,
    &free::SMALL,
    &retry::OK,
    &retry::FAIL3,
    &retry::ZERO_DELAY,
    &queue::PAIR,
    &queue::CROWD,
    &queue::WIDE,
    &queue::BATCH,
    &fan::SPAWN,
    &fan::YIELD,
    &fan::SPIN,
    &fan::LOCAL,
    &fan::LOCAL_YIELD,
    &permit::ALONE,
    &permit::CROWD,
];

/// The row of that name.
#[must_use]
pub fn row(name: &str) -> Option<&'static Row> {
    ALL.iter().copied().find(|row| row.name == name)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::Relaxed;

    use super::ALL;
    use crate::child;
    use crate::measure::Place;

    // One test: the counters are shared.
    #[test]
    fn every_contender_runs_every_child_to_its_end() {
        for place in Place::all() {
            for row in ALL {
                let n = (row.round)(1_000);
                for contender in row.contenders {
                    child::ENDED.store(0, Relaxed);
                    child::GONE.store(0, Relaxed);
                    place.once(row, contender, n);
                    let who = format!("{} / {} / {}", place.name, row.name, contender.name);
                    assert_eq!(child::ENDED.load(Relaxed), (row.ended)(n), "ended: {who}");
                    assert_eq!(
                        child::GONE.load(Relaxed),
                        if row.from_gate { n } else { 0 },
                        "gone: {who}"
                    );
                }
            }
        }
    }

    #[test]
    fn goals_and_bases_name_contenders_of_their_row() {
        for row in ALL {
            let names = row.goals.iter().flat_map(|goal| [goal.who, goal.against]);
            for name in names.chain([row.bases.0]).chain(row.bases.1) {
                assert!(row.contender(name).is_some(), "{}: {name}", row.name);
            }
        }
    }
}

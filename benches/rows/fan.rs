//! What does it cost to run a function on many items, 64 at once?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows::fan;

fn fan(criterion: &mut Criterion) {
    for row in [
        &fan::SPAWN,
        &fan::YIELD,
        &fan::SPIN,
        &fan::LOCAL,
        &fan::LOCAL_YIELD,
    ] {
        drive::row(criterion, row);
    }
}

criterion_group!(benches, fan);
criterion_main!(benches);

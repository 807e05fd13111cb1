//! What does it cost to pass an item from task to task?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows::queue;

fn passing(criterion: &mut Criterion) {
    for row in [&queue::PAIR, &queue::CROWD, &queue::WIDE, &queue::BATCH] {
        drive::row(criterion, row);
    }
}

criterion_group!(benches, passing);
criterion_main!(benches);

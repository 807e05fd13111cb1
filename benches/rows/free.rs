//! Who should free a task: the worker that ran it, or the joiner that made it?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn free(criterion: &mut Criterion) {
    drive::row(criterion, &rows::free::ROW);
    drive::row(criterion, &rows::free::SMALL);
}

criterion_group!(benches, free);
criterion_main!(benches);

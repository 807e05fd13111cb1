//! What does a poll cost, when each child has four?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn yields(criterion: &mut Criterion) {
    drive::row(criterion, &rows::yields::ROW);
}

criterion_group!(benches, yields);
criterion_main!(benches);

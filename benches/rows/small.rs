//! What does a small group cost, its setting-up included?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn small(criterion: &mut Criterion) {
    drive::row(criterion, &rows::small::ROW);
}

criterion_group!(benches, small);
criterion_main!(benches);

//! What does a child cost whose result is taken?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn result(criterion: &mut Criterion) {
    drive::row(criterion, &rows::result::ROW);
}

criterion_group!(benches, result);
criterion_main!(benches);

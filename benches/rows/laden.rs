//! What does a child cost that carries something?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn laden(criterion: &mut Criterion) {
    drive::row(criterion, &rows::laden::ROW);
}

criterion_group!(benches, laden);
criterion_main!(benches);

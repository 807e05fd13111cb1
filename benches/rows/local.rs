//! What does a child cost that lives in the task of its scope, and may borrow?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn local(criterion: &mut Criterion) {
    drive::row(criterion, &rows::local::ROW);
    drive::row(criterion, &rows::local::YIELDS);
}

criterion_group!(benches, local);
criterion_main!(benches);

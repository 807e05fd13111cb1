//! How long until 100,000 parked children are gone, once they are cancelled?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn cancel(criterion: &mut Criterion) {
    drive::row(criterion, &rows::cancel::ROW);
}

criterion_group!(benches, cancel);
criterion_main!(benches);

//! What does a timeout cost around a future that is ready?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn ready(criterion: &mut Criterion) {
    drive::row(criterion, &rows::ready::ROW);
}

criterion_group!(benches, ready);
criterion_main!(benches);

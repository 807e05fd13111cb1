//! What does a retry cost around an operation that succeeds, that fails at once, and that fails with no delay in between?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn retry(criterion: &mut Criterion) {
    drive::row(criterion, &rows::retry::OK);
    drive::row(criterion, &rows::retry::FAIL3);
    drive::row(criterion, &rows::retry::ZERO_DELAY);
}

criterion_group!(benches, retry);
criterion_main!(benches);

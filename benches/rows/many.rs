//! What does one deadline cost, over 100,000 children?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn many(criterion: &mut Criterion) {
    drive::row(criterion, &rows::many::ROW);
}

criterion_group!(benches, many);
criterion_main!(benches);

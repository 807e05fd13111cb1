//! What does a child cost whose result nobody asks for?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn void(criterion: &mut Criterion) {
    drive::row(criterion, &rows::void::ROW);
}

criterion_group!(benches, void);
criterion_main!(benches);

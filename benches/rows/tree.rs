//! What does a scope cost, when each has two children that are scopes themselves?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows;

fn tree(criterion: &mut Criterion) {
    drive::row(criterion, &rows::tree::ROW);
}

criterion_group!(benches, tree);
criterion_main!(benches);

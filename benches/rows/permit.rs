//! What does a permit cost, alone and in a crowd?

mod drive;

use criterion::{Criterion, criterion_group, criterion_main};
use ringfence_benches::rows::permit;

fn permit(criterion: &mut Criterion) {
    drive::row(criterion, &permit::ALONE);
    drive::row(criterion, &permit::CROWD);
}

criterion_group!(benches, permit);
criterion_main!(benches);

//! Puts a row's contenders before criterion, in all places.

use criterion::{BenchmarkId, Criterion, Throughput};
use ringfence_benches::Row;
use ringfence_benches::measure::Place;

/// One group a place: `void/current_thread/JoinSet` and so on.
pub fn row(criterion: &mut Criterion, row: &Row) {
    let n = row.size();
    for place in Place::all() {
        let mut group = criterion.benchmark_group(format!("{}/{}", row.name, place.name));
        group
            .throughput(Throughput::Elements(n as u64))
            .sample_size(10);
        for contender in row.contenders {
            group.bench_function(BenchmarkId::from_parameter(contender.name), |bencher| {
                bencher.iter_custom(|times| {
                    (0..times).map(|_| place.once(row, contender, n).wall).sum()
                });
            });
        }
        group.finish();
    }
}

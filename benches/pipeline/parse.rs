//! From a file of gates to typed gates.

use criterion::{Criterion, Throughput};
use postern::gate::{LoadOptions, load};

use super::suite;

pub fn bench(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.toml");
    std::fs::write(&file, suite::text()).unwrap();
    let paths = [file];
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1000 gates", |bencher| {
        bencher.iter(|| load(&paths, &LoadOptions::default()).unwrap());
    });
    group.finish();
}

//! From typed gates to statements.

use criterion::{Criterion, Throughput};

use super::suite;

pub fn bench(criterion: &mut Criterion) {
    let gates = suite::gates();
    let catalogs = suite::catalogs();
    let asks = suite::asks(&gates, &catalogs);
    let steps = postern::plan::plan(asks.iter().enumerate()).steps.len();
    let mut group = criterion.benchmark_group("plan");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("ask: 1000 gates", |bencher| {
        bencher.iter(|| suite::asks(&gates, &catalogs));
    });
    group.bench_function(
        format!("1000 gates over 200 tables: {steps} statements"),
        |bencher| {
            bencher.iter(|| postern::plan::plan(asks.iter().enumerate()));
        },
    );
    group.finish();
}

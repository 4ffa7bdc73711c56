//! From measurements to verdicts.

use criterion::{Criterion, Throughput};

use super::suite;

pub fn bench(criterion: &mut Criterion) {
    let gates = suite::gates();
    let asks = suite::asks(&gates, &suite::catalogs());
    let measured: Vec<_> = asks.iter().map(suite::measured).collect();
    let mut group = criterion.benchmark_group("judge");
    group.throughput(Throughput::Elements(1_000));
    group.bench_function("1000 gates", |bencher| {
        bencher.iter(|| {
            let pairs = gates.iter().zip(&measured);
            pairs
                .map(|(gate, measured)| gate.definition.judge(measured))
                .collect::<Vec<_>>()
        });
    });
    group.finish();
}

//! From a report to each format; every second gate has failed, with ten rows to name.

use criterion::{Criterion, Throughput};
use postern::pg::{Address, Snapshot};
use postern::report::format::{Format, Look};
use postern::report::{FailOn, Report};
use postern::run::{Findings, Judged, OffendingRow, Outcome};

use super::suite;

pub fn bench(criterion: &mut Criterion) {
    let report = report();
    let mut group = criterion.benchmark_group("render");
    for format in Format::ALL {
        let bytes = format.render(&report, Look::default()).len();
        group.throughput(Throughput::Bytes(bytes as u64));
        group.bench_function(format!("1000 gates as {format}"), |bencher| {
            bencher.iter(|| format.render(&report, Look::default()));
        });
    }
    group.finish();
}

fn report() -> Report {
    let gates = suite::gates();
    let asks = suite::asks(&gates, &suite::catalogs());
    let outcomes = gates
        .iter()
        .zip(&asks)
        .enumerate()
        .map(|(index, (gate, ask))| {
            let is_failed = index % 2 == 0;
            let row = |n: usize| OffendingRow {
                key: vec![("id".to_owned(), Some(n.to_string()))],
                values: Vec::new(),
                what: None,
            };
            Outcome::Judged {
                judgement: Box::new(gate.definition.judge(&suite::measured(ask))),
                level: Some(if is_failed {
                    Judged::Failed
                } else {
                    Judged::Passed
                }),
                rows: (0..if is_failed { 10 } else { 0 }).map(row).collect(),
                rows_left_out: 0,
                proof: None,
                sample: None,
                sql: is_failed.then(|| format!("select id from shop.t{index} where home is null")),
                rows_acceptable: None,
            }
        });
    let findings = Findings {
        snapshot: Some(Snapshot {
            id: "00000003-0000001B-1".to_owned(),
            taken_at: "2025-07-03T08:30:00.250000Z".to_owned(),
            in_recovery: false,
            server_version: "15.18".to_owned(),
        }),
        outcomes: outcomes.collect(),
        notes: Vec::new(),
    };
    let target = Address::parse("postgres://ann:hunter22@db.example/shop").unwrap();
    Report::new(&gates, findings, &target, FailOn::Block)
}

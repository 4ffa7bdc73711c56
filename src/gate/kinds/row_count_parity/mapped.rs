//! Many pairs of tables, as a mapping file names them.

use crate::gate::catalog::Side;
use crate::gate::mapping::Mapping;
use crate::gate::threshold::{Amount, Bounds, count, rows_of};
use crate::gate::{Aggregate, Ask, Figure, Finding, Judgement, Known, Measured, Scope, Verdict};

const TABLE: &str = "mapped table ";
const AGAINST: &str = "mapped against ";

pub(super) fn ask(mapping: &Mapping, other: &Side, known: &Known<'_>) -> Ask {
    let all = mapping.pairs(known.catalog(), known.on(other));
    let mut ask = Ask {
        findings: all.findings,
        ..Ask::default()
    };
    for (index, (table, against)) in all.found.into_iter().enumerate() {
        for (of, info, side) in [(TABLE, table, &Side::Main), (AGAINST, against, other)] {
            let scope = Scope {
                side: side.clone(),
                relation: info.relation.clone(),
                filter: None,
                sample: None,
            };
            // The number keeps the order, and the sides together.
            let label = format!("{of}{index:05} {}", info.relation.readable());
            ask.measures.push(Aggregate::count(label, &scope, None));
        }
    }
    ask
}

/// One verdict over all pairs, each of them held to the tolerance.
pub(super) fn judge(measured: &Measured, tolerance: Amount) -> Judgement {
    let mut findings = measured.findings.clone();
    let sides = measured.counts(TABLE).zip(measured.counts(AGAINST));
    let (mut checked, mut apart, mut pairs, mut expected_rows) = (0, 0, 0, 0);
    for ((table, rows), (against, expected)) in sides {
        let name = |label: &str| {
            label
                .split_once(' ')
                .map_or("", |(_, name)| name)
                .to_owned()
        };
        let difference = rows.abs_diff(expected);
        pairs += 1;
        checked += rows;
        expected_rows += expected;
        apart += difference;
        findings.push(Finding {
            what: format!(
                "{} holds {}, {} {}",
                name(table),
                rows_of(rows, "row"),
                name(against),
                count(expected)
            ),
            is_failure: tolerance.is_exceeded(difference, expected),
            repair: None,
        });
    }
    let failing: Vec<&str> = findings
        .iter()
        .filter(|finding| finding.is_failure)
        .map(|finding| finding.what.as_str())
        .collect();
    let pairs = rows_of(pairs, "pair");
    Judgement {
        verdict: match (failing.is_empty(), checked == 0 && expected_rows == 0) {
            (false, _) => Verdict::Failed,
            (true, true) => Verdict::Empty,
            (true, false) => Verdict::Passed,
        },
        rows_checked: Some(checked),
        rows_offending: Some(apart),
        measured: Figure::rows(apart),
        threshold: Bounds {
            fail: Some(format!("each pair at most {tolerance} apart")),
            warn: None,
        },
        message: match failing.as_slice() {
            [] if apart == 0 => {
                format!("{} equal on both sides of {pairs}", rows_of(checked, "row"))
            }
            [] => format!("{} apart in {pairs}", rows_of(apart, "row")),
            [one] => format!("of {pairs}: {one}"),
            [first, more @ ..] => format!("of {pairs}: {first}; {} more", count(more.len() as u64)),
        },
        findings,
    }
}

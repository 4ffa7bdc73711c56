//! Many pairs of tables in one gate: each is asked and compared as if it were alone, under a name of its
//! own.

use crate::error::Result;
use crate::gate::mapping::Mapping;
use crate::gate::threshold::{AtMost, count, rows_of};
use crate::gate::{Ask, Figure, Finding, Judgement, Known, Measured, Verdict};
use crate::sql::Relation;

use super::segments::{AGAINST, COUNT, Compared, TABLE};
use super::{ContentParity, compare};

/// Ends the parts of a pair's name; no table's name holds one.
const END: char = '\0';

/// A pair that can be compared, and the name of its answers.
struct Pair {
    prefix: String,
    compared: Compared,
}

/// The pairs that can be compared, and what is to be said of the others.
fn pairs(gate: &ContentParity, mapping: &Mapping, known: &Known<'_>) -> (Vec<Pair>, Vec<Finding>) {
    let all = mapping.pairs(known.catalog(), known.on(&gate.other_side()));
    let (mut pairs, mut findings) = (Vec::new(), all.findings);
    for (index, (table, against)) in all.found.into_iter().enumerate() {
        let names = [&table.relation, &against.relation].map(Relation::readable);
        match gate.compared(known, table, against) {
            Ok(compared) => pairs.push(Pair {
                prefix: format!("{index:05}{END}{}{END}{}{END}", names[0], names[1]),
                compared,
            }),
            Err(error) => findings.push(Finding {
                what: format!(
                    "{} and {} cannot be compared: {}",
                    names[0],
                    names[1],
                    error.message()
                ),
                is_failure: true,
                repair: None,
            }),
        }
    }
    (pairs, findings)
}

pub(super) fn ask(gate: &ContentParity, mapping: &Mapping, known: &Known<'_>) -> Ask {
    let (pairs, findings) = pairs(gate, mapping, known);
    let mut ask = Ask {
        findings,
        ..Ask::default()
    };
    for pair in pairs {
        ask.add(Ask::of(pair.compared.totals()).under(&pair.prefix));
        ask.findings.extend(pair.compared.told);
    }
    ask
}

pub(super) fn ask_more(
    gate: &ContentParity,
    mapping: &Mapping,
    known: &Known<'_>,
    measured: &Measured,
) -> Result<Option<Ask>> {
    let (pairs, _) = pairs(gate, mapping, known);
    // One after the other: what differs in one of them is condensed before the next is asked for.
    let more = pairs.into_iter().find_map(|pair| {
        let more = compare::next(&pair.compared, &measured.under(&pair.prefix))?;
        Some(more.under(&pair.prefix))
    });
    Ok(more)
}

/// The answers of each pair, with the names of its tables.
fn answers(measured: &Measured) -> Vec<(String, String, Measured)> {
    let label = format!("{END}{COUNT}{TABLE}");
    let prefixes = measured.labels().filter_map(|text| {
        let prefix = text.strip_suffix(&label)?;
        let mut parts = prefix.split(END).skip(1);
        Some((format!("{prefix}{END}"), parts.next()?, parts.next()?))
    });
    prefixes
        .map(|(prefix, table, against)| {
            (
                table.to_owned(),
                against.to_owned(),
                measured.under(&prefix),
            )
        })
        .collect()
}

/// Whether every row of every pair was compared that may differ.
pub(super) fn is_whole(measured: &Measured) -> bool {
    let mut all = answers(measured).into_iter();
    let is_absent = |finding: &Finding| finding.is_failure;
    !measured.findings.iter().any(is_absent) && all.all(|(.., own)| compare::is_whole(&own))
}

/// One verdict over all pairs, each of them held to the bounds of the gate.
pub(super) fn judge(measured: &Measured, bound: AtMost) -> Judgement {
    let mut findings = measured.findings.clone();
    let (mut checked, mut offending, mut pairs) = (0, 0, 0);
    let mut verdict = Verdict::Empty;
    let mut worst: Option<String> = None;
    for (table, against, own) in answers(measured) {
        let judged = compare::judge(&own, bound);
        let is_failure = judged.verdict == Verdict::Failed;
        let rows = |side: &str| own.count(&format!("{COUNT}{side}"));
        let line = format!(
            "{table} holds {}, {against} {}: {}",
            rows_of(rows(TABLE), "row"),
            count(rows(AGAINST)),
            judged.message
        );
        pairs += 1;
        checked += judged.rows_checked.unwrap_or(0);
        offending += judged.rows_offending.unwrap_or(0);
        verdict = match (verdict, judged.verdict) {
            (Verdict::Failed, _) | (_, Verdict::Failed) => Verdict::Failed,
            (Verdict::Warned, _) | (_, Verdict::Warned) => Verdict::Warned,
            (Verdict::Undecided, _) | (_, Verdict::Undecided) => Verdict::Undecided,
            (Verdict::Passed, _) | (_, Verdict::Passed) => Verdict::Passed,
            (Verdict::Empty, Verdict::Empty) => Verdict::Empty,
        };
        if is_failure || (judged.verdict == Verdict::Warned && worst.is_none()) {
            worst.get_or_insert_with(|| line.clone());
        }
        findings.push(Finding {
            what: line,
            is_failure,
            repair: None,
        });
        findings.extend(judged.findings.into_iter().map(|finding| Finding {
            what: format!("{table}: {}", finding.what),
            ..finding
        }));
    }
    let mut failing = findings.iter().filter(|finding| finding.is_failure);
    if let Some(first) = failing.next() {
        verdict = Verdict::Failed;
        worst.get_or_insert_with(|| first.what.clone());
    }
    let pairs = rows_of(pairs, "pair");
    Judgement {
        verdict,
        rows_checked: Some(checked),
        rows_offending: Some(offending),
        measured: Figure::rows(offending),
        threshold: bound.bounds(),
        message: match worst {
            None if offending == 0 => {
                format!("{} equal on both sides of {pairs}", rows_of(checked, "row"))
            }
            None => format!("{} of {pairs} differ", rows_of(offending, "row")),
            Some(worst) => format!("of {pairs}: {worst}"),
        },
        findings,
    }
}

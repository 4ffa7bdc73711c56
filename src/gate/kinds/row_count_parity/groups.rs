//! Parity group by group: each side counts its own groups, the judge holds them against each other.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::Column;
use crate::gate::mask;
use crate::gate::threshold::{Amount, Bounds, count, rows_of};
use crate::gate::{Figure, Finding, Judgement, Measure, Measured, Scope, Verdict};
use crate::sql;
use crate::sql::{Ident, Sql};

/// More groups than this are not compared: they travel, and are held in memory, one by one.
const GROUPS_MAX: u64 = 20_000;
/// More groups than this are counted and not named.
const NAMED_MAX: usize = 50;

/// The values of the grouping columns as text.
type Group = Vec<Option<String>>;

/// A column by whose values rows are grouped, and whether these are masked on any side.
pub(super) type GroupColumn<'a> = (&'a Column, bool);

/// Asks one side for its groups and their counts.
pub(super) fn ask(side: &'static str, scope: &Scope, columns: &[GroupColumn<'_>]) -> Measure {
    let values = columns.iter().map(|(column, is_masked)| {
        let value = sql!("{}", Ident::new(column.name.clone()));
        mask::named(&value, column, *is_masked)
    });
    let values = Sql::join(", ", values);
    Measure::Statement {
        labels: vec![label(side)],
        side: scope.side.clone(),
        about: scope.relation.clone(),
        sql: sql!(
            "select coalesce(json_agg(json_build_array(g.k, g.n)), '[]')::text from \
             (select json_build_array({})::text as k, count(*) as n from {} where {} group by 1 limit {}) g",
            values,
            scope.relation,
            scope.condition(None),
            GROUPS_MAX + 1
        ),
    }
}

fn label(side: &str) -> String {
    format!("groups {side}")
}

fn groups(side: &str, measured: &Measured) -> BTreeMap<Group, u64> {
    let text = measured.text(&label(side)).unwrap_or("[]");
    let rows: Vec<(String, u64)> =
        serde_json::from_str(text).expect("the statement builds an array of pairs");
    rows.into_iter()
        .map(|(key, n)| {
            let key = serde_json::from_str(&key).expect("the statement builds an array of texts");
            (key, n)
        })
        .collect()
}

/// Whether there are few enough groups to be compared.
pub(super) fn check(measured: &Measured, names: (&str, &str)) -> Result<()> {
    for (side, name) in [("table", names.0), ("against", names.1)] {
        if groups(side, measured).len() as u64 > GROUPS_MAX {
            return Err(Error::new(
                ErrorKind::Database,
                format!(
                    "{name} has more than {} to compare",
                    rows_of(GROUPS_MAX, "group")
                ),
            )
            .help("group by something coarser, or leave rows out with `where`"));
        }
    }
    Ok(())
}

/// Holds the groups of both sides against each other.
pub(super) fn judge(
    measured: &Measured,
    columns: &[String],
    names: (&str, &str),
    tolerance: Amount,
) -> Judgement {
    let (ours, theirs) = (groups("table", measured), groups("against", measured));
    let (rows, expected): (u64, u64) = (ours.values().sum(), theirs.values().sum());
    let keys: std::collections::BTreeSet<&Group> = ours.keys().chain(theirs.keys()).collect();
    let mut apart: Vec<(u64, &Group, Option<u64>, Option<u64>)> = keys
        .iter()
        .map(|key| {
            let (own, other) = (ours.get(*key).copied(), theirs.get(*key).copied());
            let difference = own.unwrap_or(0).abs_diff(other.unwrap_or(0));
            (difference, *key, own, other)
        })
        .filter(|(difference, ..)| *difference > 0)
        .collect();
    apart.sort_by_key(|(difference, key, ..)| (std::cmp::Reverse(*difference), *key));
    let fails = |(difference, _, _, other): &(u64, &Group, Option<u64>, Option<u64>)| {
        tolerance.is_exceeded(*difference, other.unwrap_or(0))
    };
    let failing = apart.iter().filter(|group| fails(group)).count() as u64;
    let mut findings: Vec<Finding> = apart
        .iter()
        .take(NAMED_MAX)
        .map(|group| {
            let (_, key, own, other) = group;
            Finding {
                what: format!("{}: {}", named(columns, key), sides(*own, *other, names)),
                is_failure: fails(group),
                repair: None,
            }
        })
        .collect();
    if apart.len() > NAMED_MAX {
        let more = apart.len() - NAMED_MAX;
        findings.push(Finding {
            what: format!("{} more", rows_of(more as u64, "group")),
            is_failure: failing > NAMED_MAX as u64,
            repair: None,
        });
    }
    let differing: u64 = apart.iter().map(|(difference, ..)| difference).sum();
    Judgement {
        verdict: if rows == 0 && expected == 0 {
            Verdict::Empty
        } else if failing > 0 {
            Verdict::Failed
        } else {
            Verdict::Passed
        },
        rows_checked: Some(rows),
        rows_offending: Some(differing),
        measured: Figure::counted(apart.len() as u64, "groups", "group"),
        threshold: Bounds {
            fail: Some(format!("each group at most {tolerance} apart")),
            warn: None,
        },
        message: match apart.first() {
            None => format!(
                "{} equal in {}",
                rows_of(rows, "row"),
                rows_of(keys.len() as u64, "group")
            ),
            Some((_, key, own, other)) => format!(
                "{} of {} differ, most of all {}: {}",
                count(apart.len() as u64),
                rows_of(keys.len() as u64, "group"),
                named(columns, key),
                sides(*own, *other, names)
            ),
        },
        findings,
    }
}

/// `day=2025-04-01 home=NYM`.
fn named(columns: &[String], key: &Group) -> String {
    let parts: Vec<String> = columns
        .iter()
        .zip(key)
        .map(|(column, value)| format!("{column}={}", value.as_deref().unwrap_or("null")))
        .collect();
    parts.join(" ")
}

fn sides(own: Option<u64>, other: Option<u64>, (name, against): (&str, &str)) -> String {
    match (own, other) {
        (None, n) => format!(
            "missing in {name}, {against} holds {}",
            rows_of(n.unwrap_or(0), "row")
        ),
        (Some(n), None) => format!("{name} holds {}, missing in {against}", rows_of(n, "row")),
        (Some(own), Some(other)) => format!(
            "{name} holds {}, {against} {}",
            rows_of(own, "row"),
            count(other)
        ),
    }
}

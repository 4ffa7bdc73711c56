//! Holds the answers of both sides against each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::gate::threshold::{AtMost, count, rows_of};
use crate::gate::{Figure, Finding, Judgement, Measured, Verdict};

use super::segments::{
    AGAINST, COLUMNS_AGAINST, COLUMNS_TABLE, COUNT, ROWS_AGAINST, ROWS_TABLE, SEGMENTS_AGAINST,
    SEGMENTS_TABLE, SUM, TABLE,
};

/// More rows of a side than this are not fetched to be compared one by one.
const ROWS_MAX: u64 = 100_000;
/// More rows than this are counted and not named.
const NAMED_MAX: usize = 20;

/// Rows and the sum of their hashes, by segment.
type Segments = BTreeMap<u32, (u64, String)>;

fn parsed<T: serde::de::DeserializeOwned>(measured: &Measured, label: &str) -> T {
    let text = measured.text(label).unwrap_or("[]");
    serde_json::from_str(text).expect("the statement builds what is read here")
}

fn segments(measured: &Measured, label: &str) -> Segments {
    let rows: Vec<(u32, u64, String)> = parsed(measured, label);
    rows.into_iter().map(|(b, n, sum)| (b, (n, sum))).collect()
}

/// Whether both sides hold as many rows with the same sum of hashes.
pub(super) fn is_equal(measured: &Measured) -> bool {
    let pair = |of: &str| {
        let value = |side: &str| measured.text(&format!("{of}{side}")).map(str::to_owned);
        (value(TABLE), value(AGAINST))
    };
    let ((count, other_count), (sum, other_sum)) = (pair(COUNT), pair(SUM));
    count == other_count && sum == other_sum
}

/// The segments that differ, as many as may be looked into.
pub(super) struct Differing {
    pub(super) segments: Vec<u32>,
    /// How many rows must differ in the others, by their number alone.
    left_out: u64,
}

pub(super) fn differing(measured: &Measured) -> Differing {
    if !measured.has(SEGMENTS_TABLE) {
        return Differing {
            segments: Vec::new(),
            left_out: 0,
        };
    }
    let (ours, theirs) = (
        segments(measured, SEGMENTS_TABLE),
        segments(measured, SEGMENTS_AGAINST),
    );
    let all: BTreeSet<u32> = ours.keys().chain(theirs.keys()).copied().collect();
    let differ = all.into_iter().filter(|b| ours.get(b) != theirs.get(b));
    let mut found = Differing {
        segments: Vec::new(),
        left_out: 0,
    };
    let mut rows = 0;
    for segment in differ {
        let of = |side: &Segments| side.get(&segment).map_or(0, |(n, _)| *n);
        rows += of(&ours).max(of(&theirs));
        if rows <= ROWS_MAX {
            found.segments.push(segment);
        } else {
            found.left_out += of(&ours).abs_diff(of(&theirs)).max(1);
        }
    }
    found
}

/// Whether every row was compared that may differ.
pub(super) fn is_whole(measured: &Measured) -> bool {
    differing(measured).left_out == 0
}

/// What is wrong with the rows of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Difference {
    Missing,
    Extra,
    Changed,
}

impl Difference {
    fn as_str(self) -> &'static str {
        match self {
            Difference::Missing => "missing",
            Difference::Extra => "extra",
            Difference::Changed => "changed",
        }
    }
}

/// How many rows of which key differ how, in the order of the keys' text.
fn differences(measured: &Measured) -> Vec<(String, Difference, u64)> {
    if !measured.has(ROWS_TABLE) {
        return Vec::new();
    }
    let mut keys: BTreeMap<String, (Vec<String>, Vec<String>)> = BTreeMap::new();
    let rows = |side| parsed::<Vec<(String, String)>>(measured, side);
    let (ours, theirs) = (rows(ROWS_TABLE), rows(ROWS_AGAINST));
    for (key, hash) in ours {
        keys.entry(key).or_default().0.push(hash);
    }
    for (key, hash) in theirs {
        keys.entry(key).or_default().1.push(hash);
    }
    let mut found = Vec::new();
    for (key, (mut ours, mut theirs)) in keys {
        // A key may be there several times: equal rows cancel each other one by one.
        ours.retain(|hash| {
            let same = theirs.iter().position(|other| other == hash);
            same.map(|at| theirs.swap_remove(at)).is_none()
        });
        let changed = ours.len().min(theirs.len());
        for (what, n) in [
            (Difference::Changed, changed),
            (Difference::Extra, ours.len() - changed),
            (Difference::Missing, theirs.len() - changed),
        ] {
            if n > 0 {
                found.push((key.clone(), what, n as u64));
            }
        }
    }
    found
}

/// The keys of changed rows whose columns are worth a question.
pub(super) fn changed(measured: &Measured) -> Vec<String> {
    let all = differences(measured).into_iter();
    let changed = all.filter(|(_, what, _)| *what == Difference::Changed);
    changed.map(|(key, ..)| key).take(NAMED_MAX).collect()
}

/// The columns in which the rows of a key differ, by key.
fn changed_columns(measured: &Measured) -> BTreeMap<String, Vec<String>> {
    if !measured.has(COLUMNS_TABLE) {
        return BTreeMap::new();
    }
    type Row = (String, Vec<String>, Vec<String>);
    let ours: Vec<Row> = parsed(measured, COLUMNS_TABLE);
    let theirs: Vec<Row> = parsed(measured, COLUMNS_AGAINST);
    let theirs: BTreeMap<String, Vec<String>> = theirs
        .into_iter()
        .map(|(key, _, values)| (key, values))
        .collect();
    ours.into_iter()
        .filter_map(|(key, names, values)| {
            let others = theirs.get(&key)?;
            let columns = names.into_iter().zip(values.iter().zip(others));
            let differ = columns.filter(|(_, (own, other))| own != other);
            let differ = differ.map(|(name, _)| name).collect();
            Some((key, differ))
        })
        .collect()
}

/// `id=3 day=2025-04-01` out of a key's JSON.
fn readable(key: &str) -> String {
    let parts: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(key).expect("the statement builds a JSON object");
    let parts: Vec<String> = parts
        .iter()
        .map(|(name, value)| format!("{name}={}", value.as_str().unwrap_or("null")))
        .collect();
    parts.join(" ")
}

pub(super) fn judge(measured: &Measured, bound: AtMost) -> Judgement {
    let total = |side: &str| measured.count(&format!("{COUNT}{side}"));
    let (rows, expected) = (total(TABLE), total(AGAINST));
    let left_out = differing(measured).left_out;
    let found = differences(measured);
    let compared: u64 = found.iter().map(|(_, _, n)| n).sum();
    let offending = compared + left_out;
    // What was not compared may differ altogether: it must not pass for keeping a tolerance.
    let level = bound.level(offending, rows);
    let verdict = if left_out > 0 {
        Verdict::Failed
    } else if rows == 0 && expected == 0 {
        Verdict::Empty
    } else {
        level.into()
    };
    let is_failure = verdict == Verdict::Failed;
    let columns = changed_columns(measured);
    let mut findings = measured.findings.clone();
    findings.extend(found.iter().take(NAMED_MAX).map(|(key, what, n)| {
        let times = if *n > 1 {
            format!(", {n} times")
        } else {
            String::new()
        };
        let of = columns.get(key).filter(|_| *what == Difference::Changed);
        let of = of.map_or_else(String::new, |columns| format!(": {}", columns.join(", ")));
        Finding {
            what: format!("{} {}{times}{of}", what.as_str(), readable(key)),
            is_failure,
            repair: None,
        }
    }));
    if found.len() > NAMED_MAX {
        let more = (found.len() - NAMED_MAX) as u64;
        findings.push(Finding {
            what: format!("{} more", rows_of(more, "key")),
            is_failure,
            repair: None,
        });
    }
    let sum = |wanted: Difference| -> u64 {
        let of = found.iter().filter(|(_, what, _)| *what == wanted);
        of.map(|(_, _, n)| n).sum()
    };
    let message = if offending == 0 {
        format!("{} equal on both sides", rows_of(rows, "row"))
    } else {
        let at_least = if left_out > 0 { "at least " } else { "" };
        let verb = if offending == 1 { "differs" } else { "differ" };
        let among = if left_out > 0 {
            " of those compared"
        } else {
            ""
        };
        format!(
            "{at_least}{} {verb}:{among} {} missing, {} extra, {} changed",
            rows_of(offending, "row"),
            count(sum(Difference::Missing)),
            count(sum(Difference::Extra)),
            count(sum(Difference::Changed))
        )
    };
    Judgement {
        verdict,
        rows_checked: Some(rows),
        rows_offending: Some(offending),
        measured: Figure::rows(offending),
        threshold: bound.bounds(),
        message,
        findings,
    }
}

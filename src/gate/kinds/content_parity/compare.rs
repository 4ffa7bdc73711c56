//! Holds the answers of both sides against each other.

use std::collections::{BTreeMap, BTreeSet};

use crate::gate::threshold::{AtMost, count, rows_of};
use crate::gate::{Ask, Figure, Finding, Judgement, Measured, Verdict};

use super::segments::{
    AGAINST, COLUMNS_AGAINST, COLUMNS_TABLE, COUNT, Compared, Key, ROWS_AGAINST, ROWS_TABLE,
    SEGMENTS, SEGMENTS_AGAINST, SEGMENTS_TABLE, SUM, TABLE, is_by_hash,
};

/// More rows of a side than this are not fetched to be compared one by one.
const ROWS_MAX: u64 = 100_000;
/// More rows than this are counted and not named.
const NAMED_MAX: usize = 50;

/// The keys, by their hashes, that have differed at every moment so far.
const OPEN: &str = "open keys";

/// Rows and the sum of their hashes, by segment.
type Segments = BTreeMap<i64, (u64, String)>;

fn parsed<T: serde::de::DeserializeOwned>(measured: &Measured, label: &str) -> T {
    let text = measured.text(label).unwrap_or("[]");
    serde_json::from_str(text).expect("the statement builds what is read here")
}

fn segments(measured: &Measured, label: &str) -> Segments {
    let rows: Vec<(i64, u64, String)> = parsed(measured, label);
    rows.into_iter().map(|(b, n, sum)| (b, (n, sum))).collect()
}

/// Whether both sides hold as many rows with the same sum of hashes.
fn is_equal(measured: &Measured) -> bool {
    let pair = |of: &str| {
        let value = |side: &str| measured.text(&format!("{of}{side}")).map(str::to_owned);
        (value(TABLE), value(AGAINST))
    };
    let ((count, other_count), (sum, other_sum)) = (pair(COUNT), pair(SUM));
    count == other_count && sum == other_sum
}

/// What the answers make worth asking next.
pub(super) fn next(compared: &Compared, measured: &Measured) -> Option<Ask> {
    if !measured.has(SEGMENTS_TABLE) {
        return (!is_equal(measured)).then(|| compared.segments(measured));
    }
    if !measured.has(ROWS_TABLE) {
        let drill = differing(measured);
        if drill.is_crowded() && compared.is_ranged && !is_by_hash(measured) {
            return Some(compared.segments_by_hash());
        }
        let is_some = !drill.segments.is_empty();
        return is_some.then(|| Ask::of(compared.rows(measured, &drill.segments)));
    }
    let changed = changed(measured);
    let is_unknown = !changed.is_empty() && !measured.has(COLUMNS_TABLE);
    is_unknown.then(|| Ask::of(compared.values(&changed)))
}

/// The segments that differ, as many as may be looked into.
pub(super) struct Differing {
    pub(super) segments: Vec<i64>,
    /// How many segments differ.
    all: usize,
    /// How many rows must differ in the others, by their number alone.
    left_out: u64,
}

pub(super) fn differing(measured: &Measured) -> Differing {
    if !measured.has(SEGMENTS_TABLE) {
        return Differing {
            segments: Vec::new(),
            all: 0,
            left_out: 0,
        };
    }
    let (ours, theirs) = (
        segments(measured, SEGMENTS_TABLE),
        segments(measured, SEGMENTS_AGAINST),
    );
    let all: BTreeSet<i64> = ours.keys().chain(theirs.keys()).copied().collect();
    let differ = all.into_iter().filter(|b| ours.get(b) != theirs.get(b));
    let mut found = Differing {
        segments: Vec::new(),
        all: 0,
        left_out: 0,
    };
    let mut rows = 0;
    for segment in differ {
        let of = |side: &Segments| side.get(&segment).map_or(0, |(n, _)| *n);
        rows += of(&ours).max(of(&theirs));
        found.all += 1;
        if rows <= ROWS_MAX {
            found.segments.push(segment);
        } else {
            found.left_out += of(&ours).abs_diff(of(&theirs)).max(1);
        }
    }
    found
}

impl Differing {
    /// Whether the few segments that differ hold so many rows that others may divide them better.
    fn is_crowded(&self) -> bool {
        self.left_out > 0 && self.all < SEGMENTS as usize / 2
    }
}

/// Whether every row was compared that may differ.
pub(super) fn is_whole(measured: &Measured) -> bool {
    differing(measured).left_out == 0
}

/// What is wrong with the rows of one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Missing,
    Extra,
    Changed,
}

impl What {
    fn as_str(self) -> &'static str {
        match self {
            What::Missing => "missing",
            What::Extra => "extra",
            What::Changed => "changed",
        }
    }
}

/// Rows of one key that differ.
struct Difference {
    /// The hash of the key.
    id: String,
    key: Key,
    what: What,
    rows: u64,
    /// Whether no side has a second row of that key.
    is_single: bool,
}

/// The differences, in the order of their keys.
fn differences(measured: &Measured) -> Vec<Difference> {
    if !measured.has(ROWS_TABLE) {
        return Vec::new();
    }
    /// The key as it was told, and the hashes of the rows on each side.
    type Rows = (String, Vec<String>, Vec<String>);
    let mut keys: BTreeMap<String, Rows> = BTreeMap::new();
    let rows = |side| parsed::<Vec<(String, String, String)>>(measured, side);
    let (ours, theirs) = (rows(ROWS_TABLE), rows(ROWS_AGAINST));
    for (id, key, hash) in ours {
        let of = keys.entry(id).or_default();
        of.0 = key;
        of.1.push(hash);
    }
    for (id, key, hash) in theirs {
        let of = keys.entry(id).or_default();
        if of.1.is_empty() {
            of.0 = key;
        }
        of.2.push(hash);
    }
    if measured.has(OPEN) {
        let open: BTreeSet<String> = parsed(measured, OPEN);
        keys.retain(|id, _| open.contains(id));
    }
    let mut found = Vec::new();
    for (id, (key, mut ours, mut theirs)) in keys {
        let is_single = ours.len() < 2 && theirs.len() < 2;
        // A key may be there several times: equal rows cancel each other one by one.
        ours.retain(|hash| {
            let same = theirs.iter().position(|other| other == hash);
            same.map(|at| theirs.swap_remove(at)).is_none()
        });
        let changed = ours.len().min(theirs.len());
        for (what, rows) in [
            (What::Changed, changed),
            (What::Extra, ours.len() - changed),
            (What::Missing, theirs.len() - changed),
        ] {
            if rows > 0 {
                found.push(Difference {
                    id: id.clone(),
                    key: serde_json::from_str(&key).expect("the statement builds an array"),
                    what,
                    rows: rows as u64,
                    is_single,
                });
            }
        }
    }
    found.sort_by_cached_key(|difference| {
        let values = difference.key.iter();
        let values: Vec<_> = values.map(|(_, value)| ordered(value.as_deref())).collect();
        (values, difference.what)
    });
    found
}

/// What counts of these answers when the rows that differ are asked for again.
pub(super) fn still_open(measured: &Measured) -> Measured {
    let open = differences(measured).into_iter();
    let open: BTreeSet<String> = open.map(|difference| difference.id).collect();
    let asked_again = [ROWS_TABLE, ROWS_AGAINST, COLUMNS_TABLE, COLUMNS_AGAINST];
    let text = serde_json::json!(open).to_string();
    measured.clone().without(&asked_again).with(OPEN, text)
}

/// What a value of a key is ordered by: whole numbers by what they are worth, before others.
fn ordered(value: Option<&str>) -> (bool, Option<i128>, Option<String>) {
    let number = value.and_then(|text| text.parse().ok());
    (number.is_none(), number, value.map(str::to_owned))
}

/// Changed rows whose columns are worth a question: the hashes of their keys, and the keys.
fn changed(measured: &Measured) -> Vec<(String, Key)> {
    let all = differences(measured).into_iter();
    // Of several rows of one key nobody knows which was changed into which.
    all.filter(|difference| difference.what == What::Changed && difference.is_single)
        .map(|difference| (difference.id, difference.key))
        .take(NAMED_MAX)
        .collect()
}

/// The columns in which the rows of a key differ, by the hash of the key.
fn changed_columns(measured: &Measured) -> BTreeMap<String, Vec<String>> {
    if !measured.has(COLUMNS_TABLE) {
        return BTreeMap::new();
    }
    type Row = (String, Vec<String>, Vec<String>);
    let ours: Vec<Row> = parsed(measured, COLUMNS_TABLE);
    let theirs: Vec<Row> = parsed(measured, COLUMNS_AGAINST);
    let theirs: BTreeMap<String, Vec<String>> = theirs
        .into_iter()
        .map(|(id, _, values)| (id, values))
        .collect();
    ours.into_iter()
        .filter_map(|(id, names, values)| {
            let others = theirs.get(&id)?;
            let columns = names.into_iter().zip(values.iter().zip(others));
            let differ = columns.filter(|(_, (own, other))| own != other);
            let differ = differ.map(|(name, _)| name).collect();
            Some((id, differ))
        })
        .collect()
}

/// `id=3 day=2025-04-01`.
fn readable(key: &Key) -> String {
    let parts = key.iter();
    let parts = parts.map(|(name, value)| format!("{name}={}", value.as_deref().unwrap_or("null")));
    parts.collect::<Vec<_>>().join(" ")
}

pub(super) fn judge(measured: &Measured, bound: AtMost) -> Judgement {
    let total = |side: &str| measured.count(&format!("{COUNT}{side}"));
    let (rows, expected) = (total(TABLE), total(AGAINST));
    let left_out = differing(measured).left_out;
    let found = differences(measured);
    let compared: u64 = found.iter().map(|difference| difference.rows).sum();
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
    findings.extend(found.iter().take(NAMED_MAX).map(|difference| {
        let times = match difference.rows {
            1 => String::new(),
            n => format!(", {n} times"),
        };
        let is_changed = difference.what == What::Changed;
        let of = columns.get(&difference.id).filter(|_| is_changed);
        let of = of.map_or_else(String::new, |columns| format!(": {}", columns.join(", ")));
        let (what, key) = (difference.what.as_str(), readable(&difference.key));
        Finding {
            what: format!("{what} {key}{times}{of}"),
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
    let sum = |wanted: What| -> u64 {
        let of = found.iter().filter(|difference| difference.what == wanted);
        of.map(|difference| difference.rows).sum()
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
            count(sum(What::Missing)),
            count(sum(What::Extra)),
            count(sum(What::Changed))
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

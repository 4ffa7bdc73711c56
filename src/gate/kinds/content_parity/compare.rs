//! Holds the answers of both sides against each other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::gate::threshold::{AtMost, count, rows_of};
use crate::gate::{Ask, Figure, Finding, Judgement, Measured, Verdict};

use super::rows::{Compare, Difference, Side};
use super::segments::{
    AGAINST, COUNT, Compared, DIGITS_MAX, Key, NAMES_AGAINST, NAMES_TABLE, ROWS_AGAINST,
    ROWS_TABLE, SEGMENTS, SEGMENTS_AGAINST, SEGMENTS_TABLE, SUM, TABLE, is_by_hash,
};

/// More rows of a side than this are not fetched to be compared one by one.
const ROWS_MAX: u64 = 100_000;
/// More rows than this are counted and not named.
const NAMED_MAX: usize = 50;

/// Which segments differ: what is kept of their sums.
const DIFFERING: &str = "differing segments";
/// How many rows differ, and which are named: what is kept of the hashes of all.
pub(super) const COMPARED: &str = "compared rows";
/// The keys, by their hashes, that have differed at every moment so far.
const OPEN: &str = "open keys";

/// Rows and the sum of their hashes, by segment.
type Segments = BTreeMap<i64, (u64, String)>;

fn parsed<T: serde::de::DeserializeOwned>(text: Option<&str>) -> T {
    serde_json::from_str(text.unwrap_or("[]")).expect("the statement builds what is read here")
}

fn segments(text: Option<&str>) -> Segments {
    let rows: Vec<(i64, u64, String)> = parsed(text);
    rows.into_iter().map(|(b, n, sum)| (b, (n, sum))).collect()
}

fn written(value: &impl Serialize) -> String {
    serde_json::to_string(value).expect("numbers and their names are JSON")
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
    if !measured.has(DIFFERING) {
        return (!is_equal(measured)).then(|| compared.segments(measured));
    }
    let differing = differing(measured);
    let segments = &differing.segments;
    if !measured.has(COMPARED) {
        if differing.is_crowded() && compared.is_ranged && !is_by_hash(measured) {
            return Some(compared.segments_by_hash());
        }
        let is_some = !segments.is_empty();
        return is_some.then(|| Ask::of(compared.rows(measured, segments)));
    }
    let first = rows_compared(measured).first;
    let is_unnamed = !first.is_empty() && !measured.has(NAMES_TABLE);
    is_unnamed.then(|| {
        let keys: Vec<i64> = first.iter().map(|one| one.key).collect();
        // Of several rows of one key nobody knows which was changed into which.
        let changed = first.iter().filter(|one| one.changed > 0 && one.is_single);
        let changed: Vec<i64> = changed.map(|one| one.key).collect();
        Ask::of(compared.names(measured, segments, &keys, &changed))
    })
}

/// The same answers, with those of which there are as many as segments or rows held against each other and
/// let go. Where it will be compared again, the keys that differ are kept.
pub(super) fn condense(mut measured: Measured, is_rechecked: bool) -> Measured {
    let of = |measured: &Measured, asked: &str| -> Vec<String> {
        let labels = measured.labels();
        let prefixes = labels.filter_map(|label| label.strip_suffix(asked));
        prefixes.map(str::to_owned).collect()
    };
    for prefix in of(&measured, SEGMENTS_TABLE) {
        let mut take = |of| segments(measured.take(&format!("{prefix}{of}")).as_deref());
        let (ours, theirs) = (take(SEGMENTS_TABLE), take(SEGMENTS_AGAINST));
        let found = Differing::between(&ours, &theirs);
        measured = measured.with(&format!("{prefix}{DIFFERING}"), written(&found));
    }
    for prefix in of(&measured, ROWS_TABLE) {
        let mut take =
            |of| Side::read(&measured.take(&format!("{prefix}{of}")).unwrap_or_default());
        let (ours, theirs) = (take(ROWS_TABLE), take(ROWS_AGAINST));
        let open = format!("{prefix}{OPEN}");
        let open_before = measured.take(&open);
        let open_before = open_before.map(|text| parsed::<Vec<i64>>(Some(&text)));
        let compare = Compare::new(&ours, &theirs, open_before.as_deref());
        if is_rechecked {
            measured = measured.with(&open, written(&compare.keys()));
        }
        let found = Rows::of(&compare);
        measured = measured.with(&format!("{prefix}{COMPARED}"), written(&found));
    }
    measured
}

/// The segments that differ, as many as may be looked into.
#[derive(Default, Serialize, Deserialize)]
pub(super) struct Differing {
    pub(super) segments: Vec<i64>,
    /// How many segments differ.
    all: usize,
    /// How many rows must differ in the others, by their number alone.
    left_out: u64,
}

pub(super) fn differing(measured: &Measured) -> Differing {
    match measured.has(DIFFERING) {
        true => parsed(measured.text(DIFFERING)),
        false => Differing::default(),
    }
}

impl Differing {
    fn between(ours: &Segments, theirs: &Segments) -> Self {
        let all: BTreeSet<i64> = ours.keys().chain(theirs.keys()).copied().collect();
        let differ = all.into_iter().filter(|b| ours.get(b) != theirs.get(b));
        let mut found = Self::default();
        let mut rows = 0;
        for segment in differ {
            let of = |side: &Segments| side.get(&segment).map_or(0, |(n, _)| *n);
            rows += of(ours).max(of(theirs));
            found.all += 1;
            if rows <= ROWS_MAX {
                found.segments.push(segment);
            } else {
                found.left_out += of(ours).abs_diff(of(theirs)).max(1);
            }
        }
        found
    }

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

/// How many rows differ, and the keys of which the first of them are named.
#[derive(Default, Serialize, Deserialize)]
struct Rows {
    missing: u64,
    extra: u64,
    changed: u64,
    /// How many lines it took to name all of them.
    lines: usize,
    /// Keys among which are those that come first.
    first: Vec<Difference>,
}

impl Rows {
    fn of(compare: &Compare<'_>) -> Self {
        let mut found = Self {
            first: compare.first(NAMED_MAX),
            ..Self::default()
        };
        for one in compare.differences() {
            found.missing += one.missing;
            found.extra += one.extra;
            found.changed += one.changed;
            found.lines += parts(&one).count();
        }
        found
    }
}

fn rows_compared(measured: &Measured) -> Rows {
    match measured.has(COMPARED) {
        true => parsed(measured.text(COMPARED)),
        false => Rows::default(),
    }
}

/// What is wrong with the rows of a key, and with how many of them.
fn parts(difference: &Difference) -> impl Iterator<Item = (What, u64)> {
    let all = [
        (What::Changed, difference.changed),
        (What::Extra, difference.extra),
        (What::Missing, difference.missing),
    ];
    all.into_iter().filter(|(_, rows)| *rows > 0)
}

/// A line that names rows.
struct Line {
    key: Key,
    what: What,
    rows: u64,
    /// The columns that differ, where that is known.
    columns: Vec<String>,
}

/// The first lines, in the order of their keys.
fn lines(measured: &Measured) -> Vec<Line> {
    if !measured.has(NAMES_TABLE) {
        return Vec::new();
    }
    let (ours, theirs) = (names(measured, NAMES_TABLE), names(measured, NAMES_AGAINST));
    let mut lines = Vec::new();
    for difference in rows_compared(measured).first {
        let (own, other) = (ours.get(&difference.key), theirs.get(&difference.key));
        let name = own.or(other).map(|name| name.key.clone());
        // A `where` that is not the same twice, such as one by the clock, may have lost the row since.
        let name =
            name.unwrap_or_else(|| vec![("hash".to_owned(), Some(difference.key.to_string()))]);
        let columns = own.zip(other).map(|(own, other)| own.columns_unlike(other));
        let columns = columns.unwrap_or_default();
        lines.extend(parts(&difference).map(|(what, rows)| Line {
            key: name.clone(),
            what,
            rows,
            columns: match what {
                What::Changed => columns.clone(),
                What::Missing | What::Extra => Vec::new(),
            },
        }));
    }
    lines.sort_by_cached_key(|line| {
        let values = line.key.iter();
        let ranks: Vec<Rank> = values
            .map(|(_, value)| Rank::of(value.as_deref()))
            .collect();
        (ranks, line.what)
    });
    lines.truncate(NAMED_MAX);
    lines
}

/// What counts of these answers when the rows that differ are asked for again.
pub(super) fn still_open(measured: &Measured) -> Measured {
    let asked_again = [COMPARED, NAMES_TABLE, NAMES_AGAINST];
    measured.clone().without(&asked_again)
}

/// What a value of a key is ordered by: whole numbers by what they are worth, before others.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    is_other: bool,
    number: Option<i128>,
    text: Option<String>,
}

impl Rank {
    fn of(value: Option<&str>) -> Self {
        let number = value.and_then(|text| {
            let digits = text.strip_prefix(['+', '-']).unwrap_or(text).len();
            text.parse().ok().filter(|_| digits <= DIGITS_MAX)
        });
        Self {
            is_other: number.is_none(),
            number,
            text: value.map(str::to_owned),
        }
    }
}

/// A key as it is told, and the hashes of the columns of its row, where they were asked for.
struct Name {
    key: Key,
    columns: Option<(Vec<String>, Vec<String>)>,
}

impl Name {
    fn columns_unlike(&self, other: &Self) -> Vec<String> {
        let both = self.columns.iter().zip(&other.columns);
        let columns =
            both.flat_map(|((names, own), (_, other))| names.iter().zip(own.iter().zip(other)));
        let differ = columns.filter(|(_, (own, other))| own != other);
        differ.map(|(name, _)| name.clone()).collect()
    }
}

/// What a side has answered of the keys that are named, by their hashes.
fn names(measured: &Measured, label: &str) -> BTreeMap<i64, Name> {
    type Row = (i64, String, Option<(Vec<String>, Vec<String>)>);
    let rows: Vec<Row> = parsed(measured.text(label));
    let names = rows.into_iter().map(|(hash, key, columns)| {
        let key = parsed(Some(&key));
        (hash, Name { key, columns })
    });
    names.collect()
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
    let found = rows_compared(measured);
    let offending = found.missing + found.extra + found.changed + left_out;
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
    let mut findings = measured.findings.clone();
    let named = lines(measured);
    let more = (found.lines - named.len()) as u64;
    findings.extend(named.into_iter().map(|line| {
        let times = match line.rows {
            1 => String::new(),
            n => format!(", {n} times"),
        };
        let columns = match line.columns.as_slice() {
            [] => String::new(),
            columns => format!(": {}", columns.join(", ")),
        };
        let (what, key) = (line.what.as_str(), readable(&line.key));
        Finding {
            what: format!("{what} {key}{times}{columns}"),
            is_failure,
            repair: None,
        }
    }));
    if more > 0 {
        findings.push(Finding {
            what: format!("{} more", rows_of(more, "key")),
            is_failure,
            repair: None,
        });
    }
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
            count(found.missing),
            count(found.extra),
            count(found.changed)
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

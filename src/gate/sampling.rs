//! What a share of a table's blocks tells of all its rows.
//!
//! `TABLESAMPLE SYSTEM` takes each block or leaves it, and so reads only the share that it takes; rows
//! of one block are often alike, loaded together or of one customer, and an interval that took them
//! for independent would be too narrow. So the blocks are the sample. For a share `r` of offending
//! rows and `c` as the most rows that any block has, `(offending + r * (c - rows)) / c` of a block lies
//! between 0 and 1, and `r` is its mean over all blocks exactly when `r` is the share over all rows.
//! Hoeffding bounds how far the mean of `n` such blocks can lie from `r`, whatever their distribution
//! and without replacement: `exp(-n * KL(mean, r))` on either side (W. Hoeffding, "Probability
//! inequalities for sums of bounded random variables", JASA 58, 1963, theorem 1 and section 6). The
//! interval is every `r` for which that is at least half of what the confidence leaves. It holds
//! whatever the order of the rows, and is wider than one for rows in random order. For `c` stands the
//! most that a block of the sample has.
//!
//! Knows nothing of connections.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

use crate::error::{Error, ErrorKind, Result};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Literal, Sql};

use super::catalog::{RelationInfo, RelationKind};
use super::threshold::{Amount, AtLeast, AtMost, rows_of};
use super::{Figure, Judgement, Measured, Verdict};

/// More than nothing and less than everything, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Share {
    parts: u64,
    per: u64,
}

impl Share {
    /// What an interval is confident of where nothing is said.
    pub const CONFIDENCE: Self = Self {
        parts: 95,
        per: 100,
    };

    /// So much of a number, rounded up.
    pub fn of(self, whole: u64) -> u64 {
        let part = u128::from(whole) * u128::from(self.parts);
        let part = part.div_ceil(u128::from(self.per));
        u64::try_from(part).expect("a share is no more than the whole")
    }

    /// As a number between 0 and 1.
    pub fn fraction(self) -> f64 {
        ratio(self.parts, self.per)
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parts, per) = (self.parts, self.per);
        Amount::Share { parts, per }.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Amount::deserialize(deserializer)? {
            Amount::Share { parts, per } if parts > 0 && parts < per => Ok(Self { parts, per }),
            other => Err(de::Error::custom(format!(
                "`{other}` is not a share above 0% and below 100%, expected a percentage such as \"1%\""
            ))),
        }
    }
}

impl JsonSchema for Share {
    fn schema_name() -> Cow<'static, str> {
        "Share".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A percentage in quotes, above 0% and below 100%.",
            "type": "string",
            "pattern": "^[0-9]+([.][0-9]{1,9})?%$"
        })
    }
}

/// Which blocks of a table are read: the same ones again with the same seed, as long as rows stay
/// where they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sample {
    /// How many of them.
    pub share: Share,
    /// Which of them.
    pub seed: u32,
}

impl Sample {
    /// The clause behind a table's name.
    pub fn clause(self) -> Sql {
        let percent = self.share.to_string();
        let percent = percent.trim_end_matches('%');
        sql!(
            " tablesample system ({}) repeatable ({})",
            Literal(percent),
            self.seed
        )
    }

    /// An error where Postgres cannot take a sample of a relation's blocks, or not of all of them.
    pub fn check(self, table: &RelationInfo) -> Result<()> {
        let why = match table.kind {
            RelationKind::View => "is a view, and only what is stored in blocks can be sampled",
            RelationKind::Foreign => {
                "is a foreign table, and only what is stored in blocks here can be sampled"
            }
            RelationKind::Partitioned if !table.is_enforced => {
                "has a foreign partition, of which every row would be read"
            }
            RelationKind::Table if !table.is_enforced => {
                "has other tables that inherit from it, of which a sample cannot tell the blocks apart"
            }
            RelationKind::Table | RelationKind::Partitioned | RelationKind::MaterializedView => {
                return Ok(());
            }
        };
        let name = table.relation.readable();
        Err(
            Error::new(ErrorKind::Database, format!("`{name}` {why}")).help(
                "remove `sample`, or name the table that holds the rows: `sample` is for tables, \
             partitioned tables and materialized views",
            ),
        )
    }
}

/// What `sample` and `confidence` of a gate say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sampled {
    /// How many blocks are read.
    pub share: Share,
    /// How often the interval holds what it is about.
    pub confidence: Share,
}

/// How a kind is judged by a sample: it looks at each row on its own.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// What the label of the rows that are looked at begins with.
    pub checked: &'static str,
    /// What their share is held against.
    pub bound: Bound,
}

/// What a share of rows is held against.
#[derive(Clone, Copy, Debug)]
pub enum Bound {
    /// Of offending rows.
    AtMost(AtMost),
    /// Of rows that are as they should be.
    AtLeast(AtLeast),
}

impl Rule {
    /// A gate that allows so many offending rows.
    pub fn at_most(checked: &'static str, bound: AtMost) -> Self {
        Self {
            checked,
            bound: Bound::AtMost(bound),
        }
    }

    /// A number of rows is none that a sample could tell.
    pub fn problems(&self) -> Vec<Problem> {
        let (names, fail, warn) = match self.bound {
            Bound::AtMost(bound) => (["at_most", "warn_above"], bound.fail, bound.warn),
            Bound::AtLeast(bound) => (["at_least", "warn_below"], bound.fail, bound.warn),
        };
        let is_number = |amount: &Amount| matches!(amount, Amount::Rows(rows) if *rows > 0);
        let written = [(names[0], Some(fail)), (names[1], warn)];
        written
            .into_iter()
            .filter_map(|(field, amount)| {
                let amount = amount.filter(is_number)?;
                let what = format!("a sample tells shares of rows, not whether there are {amount}");
                Some(Problem::new(field, what).help(format!("write {field} = \"1%\"")))
            })
            .collect()
    }

    /// Up to which shares of offending rows the gate holds, and does not warn.
    fn limits(&self) -> (f64, Option<f64>) {
        match self.bound {
            Bound::AtMost(bound) => (fraction(bound.fail), bound.warn.map(fraction)),
            Bound::AtLeast(bound) => (missing(bound.fail), bound.warn.map(missing)),
        }
    }

    /// Whether only a look at every row could show that it holds.
    pub fn allows_none(&self) -> bool {
        self.limits().0 <= 0.0
    }
}

/// The share that an amount leaves; exact, so that 100% leaves nothing.
fn missing(amount: Amount) -> f64 {
    match amount {
        Amount::Share { parts, per } => ratio(per.saturating_sub(parts), per),
        Amount::Rows(_) => 1.0,
    }
}

fn fraction(amount: Amount) -> f64 {
    match amount {
        Amount::Share { parts, per } => ratio(parts, per),
        Amount::Rows(_) => 0.0,
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "shares are compared with an interval that is wider than any rounding"
)]
fn ratio(part: u64, whole: u64) -> f64 {
    part as f64 / whole as f64
}

/// What was found in the blocks of a sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blocks {
    /// How many hold a row that was looked at.
    pub blocks: u64,
    /// How many such rows the fullest of them holds.
    pub fullest: u64,
    /// How many such rows there are.
    pub checked: u64,
    /// How many of these offend.
    pub offending: u64,
}

impl Blocks {
    /// The label of [`Blocks::blocks`].
    pub fn blocks_label(label: &str) -> String {
        format!("blocks {label}")
    }

    /// The label of [`Blocks::fullest`].
    pub fn fullest_label(label: &str) -> String {
        format!("fullest {label}")
    }

    /// How unlikely it makes a share `r` of offending rows, as the negative logarithm of a bound.
    fn against(&self, r: f64) -> f64 {
        let room = ratio(self.blocks, 1) * ratio(self.fullest, 1);
        let unseen = room - ratio(self.checked, 1);
        let mean = ((ratio(self.offending, 1) + r * unseen) / room).clamp(0.0, 1.0);
        let part = |p: f64, q: f64| if p > 0.0 { p * (p / q).ln() } else { 0.0 };
        ratio(self.blocks, 1) * (part(mean, r) + part(1.0 - mean, 1.0 - r))
    }

    /// The shares of offending rows that it does not rule out; see the module.
    pub fn interval(&self, confidence: Share) -> (f64, f64) {
        if self.blocks == 0 || self.checked == 0 {
            return (0.0, 1.0);
        }
        let limit = self.limit(confidence);
        let seen = ratio(self.offending, self.checked).min(1.0);
        // Against what was seen itself nothing speaks; `out` is ruled out, or is the end.
        let edge = |mut out: f64| {
            let mut inside = seen;
            if self.against(out) <= limit {
                return out;
            }
            for _ in 0..64 {
                let middle = f64::midpoint(inside, out);
                if self.against(middle) > limit {
                    out = middle;
                } else {
                    inside = middle;
                }
            }
            out
        };
        let low = if self.offending == 0 { 0.0 } else { edge(0.0) };
        let is_all = self.offending >= self.checked;
        (low, if is_all { 1.0 } else { edge(1.0) })
    }

    fn limit(&self, confidence: Share) -> f64 {
        (2.0 / (1.0 - confidence.fraction())).ln()
    }

    /// How many times as many blocks would tell a share from what was seen, if all are like these.
    fn times_needed(&self, share: f64, confidence: Share) -> f64 {
        self.limit(confidence) / self.against(share)
    }
}

/// What a sample says, for the report.
#[derive(Clone, Debug, PartialEq, serde::Serialize, JsonSchema)]
pub struct SampleReport {
    /// The share of the table's blocks that was read.
    pub share: String,
    /// Which blocks: the same seed takes the same ones.
    pub seed: u32,
    /// How many blocks hold a row that was looked at.
    pub blocks: u64,
    /// How often such an interval holds the share of offending rows among all rows, whatever their order.
    pub confidence: String,
    /// The lower end of the interval, in percent of the rows that the gate is about.
    pub percent_offending_min: f64,
    /// Its upper end.
    pub percent_offending_max: f64,
    /// What would decide, where this did not.
    pub help: Option<String>,
}

/// Judges a gate by a sample. It holds, or does not, only where the whole interval says so; a
/// sample that does not decide is [`Verdict::Undecided`]. `is_empty` says of a sample without rows
/// that the table has none either.
pub fn judge(
    rule: &Rule,
    sampled: Sampled,
    seed: u32,
    measured: &Measured,
    is_empty: bool,
    judgement: &mut Judgement,
) -> SampleReport {
    let found = Blocks {
        blocks: measured.sum(&Blocks::blocks_label(rule.checked)),
        fullest: measured.sum(&Blocks::fullest_label(rule.checked)),
        checked: judgement.rows_checked.unwrap_or(0),
        offending: judgement.rows_offending.unwrap_or(0),
    };
    let confidence = sampled.confidence;
    let (low, high) = found.interval(confidence);
    let (fail, warn) = rule.limits();
    let is_beyond = |limit: f64| {
        if limit > 0.0 {
            low > limit
        } else {
            found.offending > 0
        }
    };
    let has_failing = judgement.findings.iter().any(|finding| finding.is_failure);
    let verdict = if has_failing {
        Verdict::Failed
    } else if found.checked == 0 {
        if is_empty {
            Verdict::Empty
        } else {
            Verdict::Undecided
        }
    } else if is_beyond(fail) {
        Verdict::Failed
    } else if high > fail {
        Verdict::Undecided
    } else if warn.is_some_and(|warn| high > warn) {
        // Perhaps only: but a warning that is not told would be a silent pass.
        Verdict::Warned
    } else {
        Verdict::Passed
    };
    let (low, high) = (outward(low * 100.0, false), outward(high * 100.0, true));
    let rows = rows_of(found.checked, "row");
    if verdict != Verdict::Empty {
        let interval = format!(
            "sampled {} of the table: with {confidence} confidence {low}% to {high}% of all rows offend",
            sampled.share
        );
        judgement.message = match found.checked {
            0 => format!(
                "no row of the sample ({}) is one that the gate looks at",
                sampled.share
            ),
            _ => format!("{}; {interval}", judgement.message),
        };
    }
    if verdict == Verdict::Undecided && found.checked > 0 {
        judgement
            .message
            .push_str(", which does not decide what the gate asks");
    }
    let seen = Figure::percent(found.offending, found.checked);
    judgement.measured = Figure {
        display: format!("{} of {rows} in a sample offend", seen.display),
        ..seen
    };
    judgement.verdict = verdict;
    SampleReport {
        share: sampled.share.to_string(),
        seed,
        blocks: found.blocks,
        confidence: confidence.to_string(),
        percent_offending_min: low,
        percent_offending_max: high,
        help: (verdict == Verdict::Undecided).then(|| what_decides(&found, sampled, fail)),
    }
}

fn what_decides(found: &Blocks, sampled: Sampled, limit: f64) -> String {
    if limit <= 0.0 {
        return "no sample shows that not one row offends: allow a share with `at_most` (`at_least`), \
                or remove `sample` and look at all rows"
            .to_owned();
    }
    let needed = match found.checked {
        0 => f64::INFINITY,
        // A fifth more, because how many blocks are taken is left to chance, too.
        _ => sampled.share.fraction() * found.times_needed(limit, sampled.confidence) * 120.0,
    };
    if needed < 50.0 {
        let needed = outward(needed, true);
        format!("sample = \"{needed}%\" would decide if the rest of the table is like this sample")
    } else {
        "remove `sample`: it would take about as much of the table as all of it to decide"
            .to_owned()
    }
}

/// A percentage with three digits, rounded away from the middle of its interval.
fn outward(percent: f64, is_up: bool) -> f64 {
    if percent <= 0.0 {
        return 0.0;
    }
    let digits = 2.0 - percent.log10().floor();
    let scale = 10_f64.powf(digits);
    let scaled = percent * scale;
    let whole = if is_up { scaled.ceil() } else { scaled.floor() };
    // Through text, so that it reads as it was meant.
    let decimals = if digits > 0.0 { digits.min(300.0) } else { 0.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 300"
    )]
    let text = format!("{:.*}", decimals as usize, whole / scale);
    text.parse().expect("a number that was just written")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
    use rstest::rstest;

    /// Rows and offending rows of every block of a table.
    type Layout = Vec<(u64, u64)>;

    /// Every `period`-th block has `offending` rows that offend.
    fn layout(blocks: u64, rows: u64, period: u64, offending: u64) -> Layout {
        let of = |n: u64| {
            if n.is_multiple_of(period) {
                offending
            } else {
                0
            }
        };
        (0..blocks).map(|n| (rows, of(n))).collect()
    }

    /// The share of offending rows, and what the blocks of a sample say of it.
    fn sampled(layout: &Layout, is_taken: impl Fn(usize) -> bool) -> (f64, Blocks) {
        let taken = layout
            .iter()
            .enumerate()
            .filter(|(index, _)| is_taken(*index));
        let taken: Vec<_> = taken.map(|(_, block)| *block).collect();
        let sum = |of: &[(u64, u64)]| {
            of.iter()
                .fold((0, 0), |(rows, bad), block| (rows + block.0, bad + block.1))
        };
        let ((all, bad), (checked, offending)) = (sum(layout), sum(&taken));
        let blocks = Blocks {
            blocks: taken.len() as u64,
            fullest: taken.iter().map(|block| block.0).max().unwrap_or(0),
            checked,
            offending,
        };
        (ratio(bad, all), blocks)
    }

    /// How often the interval of a sample of the layout holds the truth.
    fn coverage(layout: &Layout, share: f64) -> f64 {
        const TIMES: u32 = 200;
        let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        let mut held = 0;
        for _ in 0..TIMES {
            let taken: Vec<bool> = layout
                .iter()
                .map(|_| f64::from(random.next_u32()) < share * f64::from(u32::MAX))
                .collect();
            let (truth, blocks) = sampled(layout, |index| taken[index]);
            let (low, high) = blocks.interval(Share::CONFIDENCE);
            held += u32::from(low <= truth && truth <= high);
        }
        f64::from(held) / f64::from(TIMES)
    }

    // One row here and there; whole blocks; both, which rows taken for independent would get wrong;
    // nothing; everything; half of each block; and blocks of different sizes.
    #[rstest]
    #[case(layout(2000, 60, 7, 1))]
    #[case(layout(2000, 60, 50, 60))]
    #[case([layout(1960, 60, 10, 1), layout(40, 60, 1, 60)].concat())]
    #[case(layout(2000, 60, 3000, 0))]
    #[case(layout(2000, 60, 1, 60))]
    #[case(layout(2000, 60, 1, 30))]
    #[case([layout(1000, 5, 1, 5), layout(1000, 60, 10, 1)].concat())]
    fn the_interval_holds_the_truth_however_rows_lie(#[case] layout: Layout) {
        for share in [0.02, 0.1, 0.5] {
            let covered = coverage(&layout, share);
            assert!(covered >= 0.95, "{covered} of {share}");
        }
    }

    #[test]
    fn random_layouts_are_covered_too() {
        let block = (1_u64..80).prop_flat_map(|rows| {
            let offending = prop_oneof![3 => Just(0), 1 => 0..=rows, 1 => Just(rows)];
            (Just(rows), offending)
        });
        let layouts = prop::collection::vec(block, 300..600);
        let config = Config {
            cases: 8,
            failure_persistence: None,
            ..Config::default()
        };
        let random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
        TestRunner::new_with_rng(config, random)
            .run(&layouts, |layout| {
                let covered = coverage(&layout, 0.1);
                prop_assert!(covered >= 0.95, "{}", covered);
                Ok(())
            })
            .unwrap_or_else(|error| panic!("{error}"));
    }

    fn blocks(blocks: u64, checked: u64, offending: u64) -> Blocks {
        Blocks {
            blocks,
            fullest: 60,
            checked,
            offending,
        }
    }

    #[rstest]
    // Of full blocks without an offending row the end is 1 - (half of 5%)^(1 / blocks), as Clopper and Pearson have it.
    #[case(blocks(1000, 60_000, 0), 0.0, 0.003_682)]
    #[case(blocks(100, 6000, 0), 0.0, 0.036_217)]
    #[case(blocks(100, 6000, 6000), 0.963_783, 1.0)]
    #[case(blocks(0, 0, 0), 0.0, 1.0)]
    fn the_ends_are_where_the_formula_has_them(
        #[case] found: Blocks,
        #[case] low: f64,
        #[case] high: f64,
    ) {
        let (l, h) = found.interval(Share::CONFIDENCE);
        assert!(
            (l - low).abs() < 1e-6 && (h - high).abs() < 1e-6,
            "{l} to {h}"
        );
    }

    #[test]
    fn what_would_decide_decides() {
        let found = blocks(200, 12_000, 60);
        let (_, high) = found.interval(Share::CONFIDENCE);
        assert!(high > 0.01, "{high}");
        let times = found.times_needed(0.01, Share::CONFIDENCE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a few times"
        )]
        let times = times.ceil() as u64;
        let (_, high) = blocks(200 * times, 12_000 * times, 60 * times).interval(Share::CONFIDENCE);
        assert!(high <= 0.01, "{high} with {times} times as many");
    }

    #[rstest]
    #[case(0.021_31, false, 0.0213)]
    #[case(0.021_31, true, 0.0214)]
    #[case(12.345, true, 12.4)]
    #[case(0.0, true, 0.0)]
    #[case(99.99, false, 99.9)]
    #[case(100.0, true, 100.0)]
    fn an_end_is_rounded_away_from_the_middle(
        #[case] percent: f64,
        #[case] is_up: bool,
        #[case] shown: f64,
    ) {
        assert!((outward(percent, is_up) - shown).abs() < 1e-12);
    }

    proptest! {
        #[test]
        fn the_interval_is_around_what_was_seen(n in 1_u64..5000, share in 0.0_f64..=1.0, worse in 0_u64..1000) {
            let checked = n * 60;
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a share of a small number")]
            let offending = (checked as f64 * share) as u64;
            let (low, high) = blocks(n, checked, offending).interval(Share::CONFIDENCE);
            let seen = ratio(offending, checked);
            prop_assert!(low <= seen && seen <= high);
            let (worse_low, worse_high) = blocks(n, checked, (offending + worse).min(checked)).interval(Share::CONFIDENCE);
            prop_assert!(worse_low >= low - 1e-9 && worse_high >= high - 1e-9);
        }
    }
}

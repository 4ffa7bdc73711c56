//! What a gate asks, what comes back, and what it means.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::Serialize;

use crate::error::{Error, Result};
use crate::sql;
use crate::sql::{AuthorSql, Relation, Sql};

use super::SHOWN_MAX;
use super::catalog::{Catalog, RelationInfo, Side};
use super::evidence::{Evidence, Values};
use super::sampling::{Rule, Sample};
use super::threshold::{Bounds, Level};

/// What must be known of a database before a gate can ask.
#[derive(Clone, Debug, Default)]
pub struct Needs {
    /// Relations by name.
    pub relations: Vec<(Side, Relation)>,
    /// Every relation of the schemas that match these patterns.
    pub schemas: Vec<String>,
    /// Databases of which every relation must be known.
    pub whole: Vec<Side>,
    /// Author-written SQL to be checked before anything runs.
    pub checks: Vec<AuthorCheck>,
}

/// Author-written SQL inside the statement it will be part of.
#[derive(Clone, Debug)]
pub struct AuthorCheck {
    /// The field it stands in.
    pub field: &'static str,
    /// Where it will run.
    pub side: Side,
    /// The author's text.
    pub author: AuthorSql,
    /// A whole statement that holds it, to be given to `EXPLAIN`.
    pub statement: Sql,
}

/// What `EXPLAIN` told of one [`AuthorCheck`].
#[derive(Clone, Debug, Default)]
pub struct Explained {
    /// The relations that the statement reads, views replaced by what is behind them.
    pub relations: Vec<Relation>,
}

/// What is known when a gate asks.
pub struct Known<'a> {
    /// What each database holds.
    pub catalogs: &'a BTreeMap<Side, Catalog>,
    /// The answers to [`Needs::checks`], in their order.
    pub explained: &'a [Explained],
    /// What may stand for a look at the rows.
    pub proof: Proof,
    /// Which blocks of its table the gate looks at; all of them where there is none.
    pub sample: Option<Sample>,
    /// The columns that the gate's `show` names.
    pub show: &'a [String],
}

/// What may stand for a look at the rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Proof {
    /// Nothing.
    Scan,
    /// What the server holds every row to, whoever writes it: `NOT NULL` and unique indexes.
    #[default]
    Enforced,
    /// Foreign keys, too, which a load with triggers off leaves valid and broken.
    Declared,
}

impl<'a> Known<'a> {
    /// A relation of a side that the gate named in its needs.
    pub fn relation(&self, side: &Side, name: &Relation) -> Result<&'a RelationInfo> {
        let catalog = self.catalogs.get(side);
        catalog
            .expect("every side that a gate needs was loaded before it asks")
            .relation(name)
    }

    /// The catalog of the run's target.
    pub fn catalog(&self) -> &Catalog {
        self.on(&Side::Main)
    }

    /// The catalog of a side that the gate named in its needs.
    pub fn on(&self, side: &Side) -> &Catalog {
        self.catalogs
            .get(side)
            .expect("every side that a gate needs was loaded before it asks")
    }

    /// What is shown beside the key of a row of `table`: the columns that `show` names, or else some
    /// of those that the gate looks at.
    pub fn values(&self, table: &RelationInfo, looked_at: &[String]) -> Result<Values, Error> {
        let is_named = !self.show.is_empty();
        let names = if is_named { self.show } else { looked_at };
        Ok(Values {
            columns: table.shown(&names[..names.len().min(SHOWN_MAX)])?,
            is_named,
        })
    }

    /// The relations that the author's SQL of a check reads.
    pub fn read_by(&self, check: usize) -> &[Relation] {
        let explained = self.explained.get(check);
        explained.map_or(&[], |explained| &explained.relations)
    }
}

/// Everything one gate wants measured.
#[derive(Clone, Debug, Default)]
pub struct Ask {
    /// Values of one row or of one scan.
    pub measures: Vec<Measure>,
    /// How to name the offending rows.
    pub evidence: Vec<Evidence>,
    /// What the catalog alone already says.
    pub findings: Vec<Finding>,
    /// Values that the catalog alone already gives, by label; null where it says enough that it is there.
    pub known: Vec<(String, Option<String>)>,
    /// What in the catalog proves that nothing offends: the name of a constraint or an index.
    pub proof: Option<String>,
    /// How long one of its statements may take, where that is not up to the session. Such a gate shares no
    /// statement with another.
    pub limit: Option<Duration>,
}

impl Ask {
    /// Measures alone.
    pub fn of(measures: Vec<Measure>) -> Self {
        Self {
            measures,
            ..Self::default()
        }
    }

    /// The same with `prefix` before every label, so that several of a kind go together.
    #[must_use]
    pub fn under(mut self, prefix: &str) -> Self {
        let add = |label: &mut String| label.insert_str(0, prefix);
        for measure in &mut self.measures {
            match measure {
                Measure::Aggregate(one) | Measure::Presence(one) => add(&mut one.label),
                Measure::Statement { labels, .. } => labels.iter_mut().for_each(add),
                Measure::Timed { .. } => {}
            }
        }
        self.known.iter_mut().for_each(|(label, _)| add(label));
        let counted_by = self.evidence.iter_mut().map(|one| &mut one.counted_by);
        counted_by.for_each(add);
        self
    }

    /// Asks for all that another asks for, too.
    pub fn add(&mut self, other: Self) {
        self.measures.extend(other.measures);
        self.evidence.extend(other.evidence);
        self.findings.extend(other.findings);
        self.known.extend(other.known);
    }
}

/// One thing to measure.
#[derive(Clone, Debug)]
pub enum Measure {
    /// An aggregate over the rows of a relation; those on the same relation share a scan. A count over a
    /// sample comes with the values of [`Blocks`](super::sampling::Blocks) of its label.
    Aggregate(Aggregate),
    /// A count that need not be exact: how many rows there are, where the same rows are scanned
    /// anyway, and otherwise, as [`Measure::any`] of its label, whether there is one.
    Presence(Aggregate),
    /// A statement of its own that returns one row with one column per label; where one of them is long,
    /// further rows that carry it on.
    Statement {
        /// What the columns are called.
        labels: Vec<String>,
        /// Where it runs.
        side: Side,
        /// What it reads mostly, for the plan a person reads.
        about: Relation,
        /// The statement; every column is text.
        sql: Sql,
    },
    /// A statement of its own whose plan is asked for and which is run and timed. Its values are
    /// [`Measure::SAMPLES`], microseconds per run as JSON, [`Measure::ROWS`], what the last run returned,
    /// null without a run, and [`Measure::PLAN`], as `EXPLAIN (VERBOSE, FORMAT JSON)` gives it.
    Timed {
        /// Where it runs.
        side: Side,
        /// What it reads mostly, for the plan a person reads.
        about: Relation,
        /// The statement; its columns may be of any type.
        sql: Sql,
        /// How often it runs.
        runs: Runs,
    },
}

impl Measure {
    /// The label under which it is said whether there are rows, where they were not counted.
    pub fn any(label: &str) -> String {
        format!("any {label}")
    }

    /// The label of the times of a timed statement.
    pub const SAMPLES: &'static str = "samples";
    /// The label of the number of rows of a timed statement.
    pub const ROWS: &'static str = "rows";
    /// The label of the plan of a timed statement.
    pub const PLAN: &'static str = "plan";
}

/// How often a timed statement runs; not at all where both are 0, and only its plan is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Runs {
    /// Runs that go before, unmeasured.
    pub warmup: u32,
    /// Measured runs.
    pub measured: u32,
}

/// An aggregate over the rows of a relation.
#[derive(Clone, Debug)]
pub struct Aggregate {
    /// What the value is called.
    pub label: String,
    /// Where it runs.
    pub side: Side,
    /// The relation.
    pub relation: Relation,
    /// Which blocks of it are read, where that is not all of them.
    pub sample: Option<Sample>,
    /// Which rows of it the gate is about.
    pub filter: Option<AuthorSql>,
    /// The aggregate call: `count(*)`, `max("day")`.
    pub call: Sql,
    /// Which of those rows enter the aggregate.
    pub when: Option<Sql>,
    /// What stands around the aggregate.
    pub around: (Sql, Sql),
}

impl Aggregate {
    /// `count(*)` over the rows that a gate is about.
    pub fn count(label: impl Into<String>, scope: &Scope, when: Option<Sql>) -> Measure {
        Self::call(label, scope, sql!("count(*)"), when)
    }

    /// Any aggregate over the rows that a gate is about.
    pub fn call(label: impl Into<String>, scope: &Scope, call: Sql, when: Option<Sql>) -> Measure {
        let nothing = sql!("");
        Self::call_within(label, scope, call, when, (nothing.clone(), nothing))
    }

    /// Any aggregate over the rows that a gate is about, inside of an expression.
    pub fn call_within(
        label: impl Into<String>,
        scope: &Scope,
        call: Sql,
        when: Option<Sql>,
        around: (Sql, Sql),
    ) -> Measure {
        Measure::Aggregate(Self {
            label: label.into(),
            side: scope.side.clone(),
            relation: scope.relation.clone(),
            sample: scope.sample,
            filter: scope.filter.clone(),
            call,
            when,
            around,
        })
    }
}

/// The rows that a gate is about.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Which database.
    pub side: Side,
    /// Which relation, with its schema.
    pub relation: Relation,
    /// Which rows of it.
    pub filter: Option<AuthorSql>,
    /// Which blocks of it are read, where that is not all of them.
    pub sample: Option<Sample>,
}

impl Scope {
    /// The same in some blocks only.
    #[must_use]
    pub fn sampled(mut self, sample: Option<Sample>) -> Self {
        self.sample = sample;
        self
    }

    /// What stands behind `from`.
    pub fn from(&self) -> Sql {
        let sample = self.sample.map(Sample::clause);
        sql!("{}{}", self.relation, sample.unwrap_or_else(|| sql!("")))
    }

    /// The condition for a `where` clause: the author's filter and `also`.
    pub fn condition(&self, also: Option<&Sql>) -> Sql {
        match (&self.filter, also) {
            (None, None) => sql!("true"),
            (None, Some(also)) => also.clone(),
            (Some(filter), None) => sql!("({})", filter),
            (Some(filter), Some(also)) => sql!("({}) and ({})", filter, also),
        }
    }
}

/// Something found that is not a row: a missing constraint, a table that should not be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Finding {
    /// What was found.
    pub what: String,
    /// Whether the gate fails for it; otherwise it is only told.
    pub is_failure: bool,
    /// SQL that would mend it, where there is one.
    pub repair: Option<String>,
}

/// How often, and how long after one another, two sides are compared again before it is said that they
/// differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Recheck {
    /// How often, at the most.
    #[schemars(range(min = 1, max = 1000))]
    pub times: u32,
    /// How long to wait before each, such as `2s`; shorter where one side is a hot standby of the other
    /// and has replayed all that the other had written.
    pub wait: super::fields::Age,
}

impl Recheck {
    /// What is wrong with it in a gate whose other side is, or is not, elsewhere.
    pub(super) fn problems(
        recheck: Option<Self>,
        is_elsewhere: bool,
    ) -> Vec<crate::source::Problem> {
        let mut problems = Vec::new();
        if recheck.is_some() && !is_elsewhere {
            let problem = crate::source::Problem::new(
                "recheck",
                "both sides are read at one moment, so that there is nothing to re-check",
            );
            problems.push(problem.help("`recheck` goes with `against_target`"));
        }
        if recheck.is_some_and(|recheck| !(1..=1000).contains(&recheck.times)) {
            let problem = crate::source::Problem::new("recheck", "`times` is from 1 to 1000");
            problems.push(problem);
        }
        problems
    }
}

/// The values that came back, by label.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    values: BTreeMap<String, Option<Arc<str>>>,
    /// What the catalog said.
    pub findings: Vec<Finding>,
    /// See [`Ask::proof`].
    pub proof: Option<String>,
}

impl Measured {
    /// Values by label; `None` is SQL's null.
    pub fn new(
        values: impl IntoIterator<Item = (String, Option<impl Into<Arc<str>>>)>,
        findings: Vec<Finding>,
    ) -> Self {
        let values = values.into_iter();
        let values = values.map(|(label, text)| (label, text.map(Into::into)));
        Self {
            values: values.collect(),
            findings,
            proof: None,
        }
    }

    /// The same, proved by something in the catalog.
    #[must_use]
    pub fn proved(mut self, by: Option<String>) -> Self {
        self.proof = by;
        self
    }

    /// Whether the gate has asked for a value of that name.
    pub fn has(&self, label: &str) -> bool {
        self.values.contains_key(label)
    }

    /// The same with the answers to a further question.
    #[must_use]
    pub fn and(mut self, more: Self) -> Self {
        self.values.extend(more.values);
        self.findings.extend(more.findings);
        self.proof = self.proof.or(more.proof);
        self
    }

    /// The labels of all values, in their order.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// The answers to what was asked [`Ask::under`] this prefix, alone.
    #[must_use]
    pub fn under(&self, prefix: &str) -> Self {
        let values = self.values.range(prefix.to_owned()..);
        let values = values.map_while(|(label, value)| {
            let label = label.strip_prefix(prefix)?;
            Some((label.to_owned(), value.clone()))
        });
        Self::new(values, Vec::new())
    }

    /// The same without the values under these labels.
    #[must_use]
    pub fn without(mut self, labels: &[&str]) -> Self {
        self.values
            .retain(|label, _| !labels.contains(&label.as_str()));
        self
    }

    /// Takes out the value under a label.
    pub fn take(&mut self, label: &str) -> Option<Arc<str>> {
        self.values.remove(label).flatten()
    }

    /// The same with a text that was worked out from the answers.
    #[must_use]
    pub fn with(mut self, label: &str, text: String) -> Self {
        self.values.insert(label.to_owned(), Some(text.into()));
        self
    }

    /// A text, or SQL's null. Panics on a label that the gate did not ask for.
    pub fn text(&self, label: &str) -> Option<&str> {
        self.values
            .get(label)
            .unwrap_or_else(|| panic!("the gate judges `{label}`, which it did not ask for"))
            .as_deref()
    }

    /// A count. Null counts as 0, which is what `sum` over no rows means.
    pub fn count(&self, label: &str) -> u64 {
        self.text(label).map_or(0, |text| {
            text.parse()
                .unwrap_or_else(|_| panic!("`{label}` was asked as a count and came as `{text}`"))
        })
    }

    /// The counts whose labels start with `prefix`, by the rest of their labels.
    pub fn counts<'a>(&'a self, prefix: &'a str) -> impl Iterator<Item = (&'a str, u64)> {
        self.values.keys().filter_map(move |label| {
            let rest = label.strip_prefix(prefix)?;
            Some((rest, self.count(label)))
        })
    }

    /// The sum of [`Measured::counts`].
    pub fn sum(&self, prefix: &str) -> u64 {
        self.counts(prefix).map(|(_, n)| n).sum()
    }

    /// A number that may be null.
    pub fn number(&self, label: &str) -> Option<f64> {
        self.text(label).map(|text| {
            text.parse()
                .unwrap_or_else(|_| panic!("`{label}` was asked as a number and came as `{text}`"))
        })
    }
}

/// The figure that a gate's threshold is about.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Figure {
    /// The number.
    pub value: f64,
    /// What it counts: `rows`, `percent`, `seconds`, `groups`, `keys`.
    pub unit: &'static str,
    /// The figure as a person reads it.
    pub display: String,
}

impl Figure {
    /// A number of rows.
    pub fn rows(n: u64) -> Self {
        Self::counted(n, "rows", "row")
    }

    /// A number of something.
    pub fn counted(n: u64, unit: &'static str, noun: &str) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a figure for reading and charts"
        )]
        let value = n as f64;
        Self {
            value,
            unit,
            display: super::threshold::rows_of(n, noun),
        }
    }

    /// A share of rows in percent.
    pub fn percent(count: u64, total: u64) -> Self {
        #[expect(
            clippy::cast_precision_loss,
            reason = "a figure for reading and charts"
        )]
        let value = if total == 0 {
            0.0
        } else {
            count as f64 * 100.0 / total as f64
        };
        Self {
            value,
            unit: "percent",
            display: super::threshold::percent(count, total),
        }
    }
}

/// What the measurement means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Passed,
    /// It holds, beyond the warning level.
    Warned,
    /// It does not hold.
    Failed,
    /// There was nothing to look at; the gate's `on_empty` says what that means.
    Empty,
    /// A sample does not tell; never a kind's own verdict.
    Undecided,
}

impl From<Level> for Verdict {
    fn from(level: Level) -> Self {
        match level {
            Level::Pass => Verdict::Passed,
            Level::Warn => Verdict::Warned,
            Level::Fail => Verdict::Failed,
        }
    }
}

/// A verdict with what it rests on.
#[derive(Clone, Debug)]
pub struct Judgement {
    /// The verdict.
    pub verdict: Verdict,
    /// How many rows were looked at; `None` where that was not counted.
    pub rows_checked: Option<u64>,
    /// How many of them offend; `None` where the gate is not about rows.
    pub rows_offending: Option<u64>,
    /// The figure that the threshold is about.
    pub measured: Figure,
    /// What it was held against.
    pub threshold: Bounds,
    /// One sentence for a person, without the gate's id.
    pub message: String,
    /// What was found beside rows.
    pub findings: Vec<Finding>,
}

/// One kind of gate: what must be measured, and what the measurement means.
///
/// Both are pure: no connection, no clock.
pub trait Kind: std::fmt::Debug + Send + Sync {
    /// Mistakes that parsing alone cannot see.
    fn problems(&self) -> Vec<crate::source::Problem>;
    /// What must be known before [`Kind::ask`].
    fn needs(&self) -> Needs;
    /// What to measure. An error means that the gate cannot be evaluated.
    fn ask(&self, known: &Known<'_>) -> Result<Ask, Error>;
    /// What an answer makes it ask next, on the same snapshot; asked again until it is `None`. Its
    /// evidence and findings are added to those of before. An error means that the gate cannot be
    /// evaluated.
    fn ask_more(&self, _known: &Known<'_>, _measured: &Measured) -> Result<Option<Ask>, Error> {
        Ok(None)
    }
    /// What is kept of the answers, each time that there are more: what the next question and the judgement
    /// rest on, which is less where the answers are long.
    fn condense(&self, measured: Measured) -> Measured {
        measured
    }
    /// In words, what [`Kind::ask_more`] may ask, and when; `None` where it asks nothing.
    fn follow_up(&self) -> Option<&'static str> {
        None
    }
    /// How often its sides are compared again where they differ, because they are not read at one
    /// moment.
    fn recheck(&self) -> Option<Recheck> {
        None
    }
    /// What to ask again of a later moment, and which of the answers still count beside it; everything
    /// and none where a kind does not know better.
    fn ask_again(&self, known: &Known<'_>, _measured: &Measured) -> Result<(Ask, Measured), Error> {
        Ok((self.ask(known)?, Measured::default()))
    }
    /// What the measurement means.
    fn judge(&self, measured: &Measured) -> Judgement;
    /// How it is judged by a sample; an error where only all rows, or none, can answer.
    fn sampling(&self) -> Result<Rule, crate::source::Problem> {
        let what = "a sample of the rows cannot answer this gate";
        Err(crate::source::Problem::new("sample", what)
            .help("remove it: it goes with gates that look at each row on its own"))
    }

    /// Whether its offending rows are rows of one table or query, named one by one.
    fn names_rows(&self) -> bool {
        false
    }
    /// How many rows a failure comes to, where it comes to rows alone and each of them was counted:
    /// only that can be accepted. A finding that fails is more than rows, unless the kind knows better.
    fn rows_acceptable(&self, _measured: &Measured, judgement: &Judgement) -> Option<u64> {
        let mut findings = judgement.findings.iter();
        let rows = judgement.rows_offending.filter(|rows| *rows > 0);
        rows.filter(|_| findings.all(|finding| !finding.is_failure))
    }
}

//! Kind `query_budget`.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use crate::error::Result;
use crate::gate::catalog::{Side, matches};
use crate::gate::fields::{Age, SqlText};
use crate::gate::threshold::{Bounds, rows_of};
use crate::gate::{
    Ask, AuthorCheck, Figure, Finding, Judgement, Kind, Known, Measure, Measured, Needs, OnEmpty,
    Runs, Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::{AuthorSql, Relation};

use super::Definition;

/// Does a query stay within its time, and within the limits of its plan? It runs as often as `runs`
/// says, after `warmup` runs that are not measured, each until its last row has arrived, and the
/// `percentile` of the times is held to `budget`: the smallest time such that at least that share of
/// the runs took no longer. Rows are let go as they arrive, so that of memory they take what the
/// widest of them does. The plan is the planner's own estimate; with limits for it alone the query
/// does not run. A query that returns no row has proved nothing.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct QueryBudget {
    /// One `select`; or else `file`.
    query: Option<SqlText>,
    /// A file with one `select`, named from the folder of this file. Keep it out of the folder of the
    /// gates, where every `.sql` file is a gate itself, or let its name end otherwise.
    #[expect(dead_code, reason = "the loader reads it and fills in `query`")]
    file: Option<String>,
    /// The most that the percentile may take, such as `2s` or `150ms`.
    budget: Option<Age>,
    /// Warns above this time.
    warn_budget: Option<Age>,
    /// Which percentile of the runs is held to the budget, 1 to 100; 95 where nothing is said.
    #[schemars(range(min = 1, max = 100))]
    percentile: Option<u8>,
    /// How many runs are measured; 5 where nothing is said.
    #[schemars(range(min = 1, max = 1000))]
    runs: Option<u32>,
    /// How many runs go before, unmeasured; 1 where nothing is said.
    #[schemars(range(max = 1000))]
    warmup: Option<u32>,
    /// Limits of the plan.
    plan: Option<PlanLimits>,
}

/// What a plan must not be.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct PlanLimits {
    /// The most it may cost in all, in the planner's units.
    max_cost: Option<f64>,
    /// The most rows that any step of it may be expected to return.
    max_rows: Option<u64>,
    /// Tables that must not be read from end to end: `schema.table`, `*` standing for any text.
    #[serde(default)]
    forbid_seq_scan: Vec<String>,
}

/// More runs than this are a mistake.
const RUNS_MAX: u32 = 1000;

impl QueryBudget {
    fn percentile(&self) -> u8 {
        self.percentile.unwrap_or(95)
    }

    fn runs(&self) -> Runs {
        if self.budget.is_none() {
            return Runs::default();
        }
        Runs {
            warmup: self.warmup.unwrap_or(1),
            measured: self.runs.unwrap_or(5),
        }
    }

    fn author(&self) -> &AuthorSql {
        let query = self.query.as_ref();
        &query.expect("a definition without a query is refused").0
    }

    fn plan_findings(&self, plan: &Value) -> Vec<Finding> {
        let Some(limits) = &self.plan else {
            return Vec::new();
        };
        let mut found = Vec::new();
        let mut add = |what: String| {
            found.push(Finding {
                what,
                is_failure: true,
                repair: None,
            });
        };
        let top = plan.pointer("/0/Plan").unwrap_or(&Value::Null);
        let cost = top.get("Total Cost").and_then(Value::as_f64);
        if let Some(max) = limits.max_cost {
            match cost {
                Some(cost) if cost <= max => {}
                Some(cost) => add(format!("the plan costs {cost}, at most {max} is allowed")),
                None => add("the plan does not say what it costs".to_owned()),
            }
        }
        let mut nodes = Vec::new();
        steps(top, &mut nodes);
        if let Some(max) = limits.max_rows {
            let expected = nodes.iter().filter_map(|node| {
                let rows = node.get("Plan Rows").and_then(Value::as_f64)?;
                Some((rows, node.get("Node Type").and_then(Value::as_str)?))
            });
            let most = expected.max_by(|a, b| a.0.total_cmp(&b.0));
            #[expect(clippy::cast_precision_loss, reason = "an estimate of the planner")]
            let max_rows = max as f64;
            if let Some((rows, name)) = most.filter(|(rows, _)| *rows > max_rows) {
                add(format!(
                    "the step `{name}` of the plan expects {rows} rows, at most {max} are allowed"
                ));
            }
        }
        for node in nodes {
            let text = |key: &str| node.get(key).and_then(Value::as_str);
            if let (Some("Seq Scan"), Some(schema), Some(name)) =
                (text("Node Type"), text("Schema"), text("Relation Name"))
            {
                let name = Relation::new(schema, name).readable();
                if limits.forbid_seq_scan.iter().any(|p| matches(p, &name)) {
                    add(format!("the plan reads {name} from end to end"));
                }
            }
        }
        found
    }
}

/// Every step of a plan.
fn steps<'a>(node: &'a Value, found: &mut Vec<&'a Value>) {
    found.push(node);
    for below in node
        .get("Plans")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        steps(below, found);
    }
}

/// The percentile by nearest rank, ⌈P/100 · N⌉: a time that was measured.
fn nearest_rank(microseconds: &mut [u64], percentile: u8) -> Option<u64> {
    microseconds.sort_unstable();
    let rank = (usize::from(percentile) * microseconds.len()).div_ceil(100);
    microseconds.get(rank.max(1) - 1).copied()
}

/// `12.3 ms`, `1.23 s`.
fn time(microseconds: u64) -> String {
    #[expect(clippy::cast_precision_loss, reason = "a time for reading")]
    let milliseconds = microseconds as f64 / 1000.0;
    if milliseconds < 1000.0 {
        format!("{milliseconds:.1} ms")
    } else {
        format!("{:.2} s", milliseconds / 1000.0)
    }
}

fn microseconds(age: Age) -> u64 {
    u64::try_from(age.0.as_micros()).unwrap_or(u64::MAX)
}

impl Definition for QueryBudget {
    const ON_EMPTY: OnEmpty = OnEmpty::Fail;
}

impl Kind for QueryBudget {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.query.is_none() {
            problems.push(Problem::new(
                "query",
                "a `query_budget` gate has either `query` or `file`",
            ));
        }
        if self.budget.is_none() && self.plan.is_none() {
            problems.push(
                Problem::new("query", "a `query_budget` gate without a limit cannot fail")
                    .help("give `budget`, `plan` or both"),
            );
        }
        if self.budget.is_none() && self.warn_budget.is_some() {
            problems.push(Problem::new(
                "warn_budget",
                "`warn_budget` without `budget`",
            ));
        }
        if let (Some(budget), Some(warn)) = (self.budget, self.warn_budget)
            && warn >= budget
        {
            problems.push(
                Problem::new(
                    "warn_budget",
                    "the warning level can never fire: above `budget` the gate already fails",
                )
                .help("set `warn_budget` below `budget`"),
            );
        }
        if !(1..=100).contains(&self.percentile()) {
            problems.push(Problem::new("percentile", "a percentile is from 1 to 100"));
        }
        if self
            .runs
            .is_some_and(|runs| !(1..=RUNS_MAX).contains(&runs))
        {
            problems.push(Problem::new(
                "runs",
                format!("expected 1 to {RUNS_MAX} runs"),
            ));
        }
        if self.warmup.is_some_and(|runs| runs > RUNS_MAX) {
            problems.push(Problem::new(
                "warmup",
                format!("expected at most {RUNS_MAX} runs"),
            ));
        }
        problems
    }

    fn needs(&self) -> Needs {
        Needs {
            checks: vec![AuthorCheck {
                field: "query",
                side: Side::Main,
                author: self.author().clone(),
                statement: sql!("select * from ({}) q", self.author()),
            }],
            ..Needs::default()
        }
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let read = known.explained.first();
        let about = read.and_then(|explained| explained.relations.first().cloned());
        Ok(Ask {
            measures: vec![Measure::Timed {
                side: Side::Main,
                about: about.unwrap_or_else(|| Relation::new("pg_catalog", "sql")),
                sql: self.author().to_sql(),
                runs: self.runs(),
            }],
            ..Ask::default()
        })
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let parsed = |label: &str| -> Value {
            let text = measured.text(label).unwrap_or("null");
            serde_json::from_str(text).expect("the run writes JSON")
        };
        let samples = parsed(Measure::SAMPLES);
        let samples = samples.as_array().into_iter().flatten();
        let mut samples: Vec<u64> = samples.filter_map(Value::as_u64).collect();
        let taken = nearest_rank(&mut samples, self.percentile());
        let rows = measured
            .text(Measure::ROWS)
            .map(|_| measured.count(Measure::ROWS));
        let findings = self.plan_findings(&parsed(Measure::PLAN));
        let is_over = |limit: Option<Age>| {
            taken
                .zip(limit)
                .is_some_and(|(taken, limit)| taken > microseconds(limit))
        };
        let verdict = if is_over(self.budget) || !findings.is_empty() {
            Verdict::Failed
        } else if rows == Some(0) {
            Verdict::Empty
        } else if is_over(self.warn_budget) {
            Verdict::Warned
        } else {
            Verdict::Passed
        };
        let mut parts = Vec::new();
        if let (Some(taken), Some(rows)) = (taken, rows) {
            parts.push(format!(
                "{} at percentile {} of {}, {} returned",
                time(taken),
                self.percentile(),
                rows_of(samples.len() as u64, "run"),
                rows_of(rows, "row")
            ));
        }
        if self.plan.is_some() {
            parts.push(match findings.as_slice() {
                [] => "the plan is within its limits".to_owned(),
                [only] => only.what.clone(),
                [first, rest @ ..] => format!("{}; {} more", first.what, rest.len()),
            });
        }
        let bound =
            |limit: Option<Age>| limit.map(|age| format!("at most {}", time(microseconds(age))));
        #[expect(clippy::cast_precision_loss, reason = "a time for reading and charts")]
        let seconds = taken.map_or(0.0, |taken| taken as f64 / 1e6);
        Judgement {
            verdict,
            rows_checked: rows,
            rows_offending: None,
            measured: Figure {
                value: seconds,
                unit: "seconds",
                display: taken.map_or_else(|| "not run".to_owned(), time),
            },
            threshold: Bounds {
                fail: bound(self.budget).or_else(|| Some("a plan within its limits".to_owned())),
                warn: bound(self.warn_budget),
            },
            message: parts.join("; "),
            findings,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case(5, 15)]
    #[case(30, 20)]
    #[case(50, 35)]
    #[case(100, 50)]
    fn the_percentile_is_the_nearest_rank(#[case] percentile: u8, #[case] expected: u64) {
        let mut samples = [40, 15, 50, 20, 35];
        assert_eq!(nearest_rank(&mut samples, percentile), Some(expected));
        assert_eq!(nearest_rank(&mut [], percentile), None);
    }
}

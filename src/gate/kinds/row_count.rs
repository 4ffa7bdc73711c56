//! Kind `row_count`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::fields::{SqlText, TableName};
use crate::gate::threshold::{Bounds, count, rows_of};
use crate::gate::{
    Aggregate, Ask, Figure, Judgement, Kind, Known, Measured, Needs, OnEmpty, Verdict,
};
use crate::source::Problem;

use super::Definition;
use super::shared::{scope_needs, scope_of};

/// Does the table hold as many rows as it should?
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowCount {
    /// The table or view.
    table: TableName,
    /// Only rows for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// Fails below this many rows.
    at_least: Option<u64>,
    /// Fails above this many rows.
    at_most: Option<u64>,
    /// Fails unless there are exactly this many rows.
    equals: Option<u64>,
    /// Warns below this many rows.
    warn_below: Option<u64>,
    /// Warns above this many rows.
    warn_above: Option<u64>,
}

impl Definition for RowCount {
    const ON_EMPTY: OnEmpty = OnEmpty::Fail;
}

impl Kind for RowCount {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.at_least.is_none() && self.at_most.is_none() && self.equals.is_none() {
            problems.push(
                Problem::new("table", "a `row_count` gate without a bound cannot fail")
                    .help("give `at_least`, `at_most` or `equals`"),
            );
        }
        if self.equals.is_some() && (self.at_least.is_some() || self.at_most.is_some()) {
            problems.push(Problem::new(
                "equals",
                "`equals` leaves no room for `at_least` or `at_most`",
            ));
        }
        if let (Some(low), Some(high)) = (self.at_least, self.at_most)
            && low > high
        {
            problems.push(Problem::new(
                "at_most",
                "no number is at least `at_least` and at most `at_most`",
            ));
        }
        let never = |field, fires: bool| {
            (!fires).then(|| Problem::new(field, "the warning level can never fire"))
        };
        if let Some(warn) = self.warn_below {
            let floor = self.equals.or(self.at_least).unwrap_or(0);
            problems.extend(never("warn_below", self.equals.is_none() && warn > floor));
        }
        if let Some(warn) = self.warn_above {
            let ceiling = self.equals.or(self.at_most).unwrap_or(u64::MAX);
            problems.extend(never("warn_above", self.equals.is_none() && warn < ceiling));
        }
        problems
    }

    fn needs(&self) -> Needs {
        scope_needs(&self.table.0, self.r#where.as_ref())
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let table = known.catalog().relation(&self.table.0)?;
        let scope = scope_of(table, self.r#where.as_ref());
        Ok(Ask {
            measures: vec![Aggregate::count("rows", &scope, None)],
            ..Ask::default()
        })
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let rows = measured.count("rows");
        // Zero rows are an answer only where the definition says so itself.
        let says_zero = self.equals == Some(0) || self.at_least == Some(0);
        let bounded_below = self.at_least.or(self.equals).is_some();
        let verdict = if rows == 0 && !says_zero && !bounded_below {
            Verdict::Empty
        } else if self.equals.is_some_and(|n| rows != n)
            || self.at_least.is_some_and(|n| rows < n)
            || self.at_most.is_some_and(|n| rows > n)
        {
            Verdict::Failed
        } else if self.warn_below.is_some_and(|n| rows < n)
            || self.warn_above.is_some_and(|n| rows > n)
        {
            Verdict::Warned
        } else {
            Verdict::Passed
        };
        let bounds = |low: Option<u64>, high: Option<u64>| match (low, high) {
            (None, None) => None,
            (Some(low), None) => Some(format!("at least {}", rows_of(low, "row"))),
            (None, Some(high)) => Some(format!("at most {}", rows_of(high, "row"))),
            (Some(low), Some(high)) => Some(format!("{} to {}", count(low), rows_of(high, "row"))),
        };
        Judgement {
            verdict,
            rows_checked: Some(rows),
            rows_offending: None,
            measured: Figure::rows(rows),
            threshold: Bounds {
                fail: match self.equals {
                    Some(n) => Some(format!("exactly {}", rows_of(n, "row"))),
                    None => bounds(self.at_least, self.at_most),
                },
                warn: bounds(self.warn_below, self.warn_above),
            },
            message: rows_of(rows, "row"),
            findings: Vec::new(),
        }
    }
}

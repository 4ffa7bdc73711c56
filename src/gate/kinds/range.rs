//! Kind `range`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::fields::{Scalar, SqlText, TableName};
use crate::gate::sampling::Rule;
use crate::gate::threshold::{Amount, AtMost};
use crate::gate::{Ask, Judgement, Kind, Known, Measured, Needs, OnEmpty};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Fixed, Ident, Sql};

use super::Definition;
use super::shared::{Nulls, RowRule, judge_rows, rows_by_sample, scope_needs};

/// Does a column hold only values between two bounds? Numbers, dates, times and texts, these in the
/// order of the column's collation. Both bounds belong to the range unless they are said to be
/// exclusive. `NaN` is in no range; `infinity` is above every `max`. A row with a null was not looked
/// at, unless `nulls` says that it offends; with nothing but nulls there was nothing to look at.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Range {
    /// The table or view.
    table: TableName,
    /// The column.
    column: String,
    /// The smallest value, such as `0` or `"2015-04-01"`.
    min: Option<Scalar>,
    /// The largest value.
    max: Option<Scalar>,
    /// Whether `min` itself is outside.
    #[serde(default)]
    min_exclusive: bool,
    /// Whether `max` itself is outside.
    #[serde(default)]
    max_exclusive: bool,
    /// Only rows for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// What a null means: `ignore` (the default), which is another gate's business, or `offend`.
    #[serde(default)]
    nulls: Nulls,
    /// Fails above this many offending rows, or this share of rows; 0 where nothing is said.
    at_most: Option<Amount>,
    /// Warns above this.
    warn_above: Option<Amount>,
    /// The columns that name an offending row; the primary key where nothing is said.
    #[serde(default)]
    key: Vec<String>,
}

impl Range {
    /// `0 to 100`, `above 0`, `at most 100`.
    fn words(&self) -> String {
        let low = self.min.as_ref().map(|min| {
            let word = if self.min_exclusive {
                "above"
            } else {
                "at least"
            };
            format!("{word} {}", min.as_str())
        });
        let high = self.max.as_ref().map(|max| {
            let word = if self.max_exclusive {
                "below"
            } else {
                "at most"
            };
            format!("{word} {}", max.as_str())
        });
        let words: Vec<String> = low.into_iter().chain(high).collect();
        words.join(" and ")
    }

    /// Whether no value can be in it, as far as numbers tell.
    fn is_impossible(&self) -> bool {
        let (Some(Scalar::Number(min)), Some(Scalar::Number(max))) = (&self.min, &self.max) else {
            return false;
        };
        match (min.parse::<f64>(), max.parse::<f64>()) {
            (Ok(min), Ok(max)) => {
                let is_point = self.min_exclusive || self.max_exclusive;
                min > max || (is_point && min >= max)
            }
            _ => false,
        }
    }
}

impl Definition for Range {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for Range {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.min.is_none() && self.max.is_none() {
            problems.push(
                Problem::new("column", "a `range` gate without a bound cannot fail")
                    .help("give `min`, `max` or both"),
            );
        }
        if self.is_impossible() {
            problems.push(Problem::new(
                "max",
                "no number is in the range from `min` to `max`",
            ));
        }
        for (field, is_set, bound) in [
            ("min_exclusive", self.min_exclusive, &self.min),
            ("max_exclusive", self.max_exclusive, &self.max),
        ] {
            if is_set && bound.is_none() {
                let message = format!("`{field}` without `{}`", &field[..3]);
                problems.push(Problem::new(field, message));
            }
        }
        problems
    }

    fn needs(&self) -> Needs {
        scope_needs(&self.table.0, self.r#where.as_ref())
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let table = known.catalog().relation(&self.table.0)?;
        let column = table.column(&self.column)?;
        let name = Ident::new(self.column.clone());
        let mut tests = Vec::new();
        for (bound, is_exclusive, strict, loose) in [
            (&self.min, self.min_exclusive, ">", ">="),
            (&self.max, self.max_exclusive, "<", "<="),
        ] {
            if let Some(bound) = bound {
                let operator = Fixed(if is_exclusive { strict } else { loose });
                tests.push(sql!("{} {} {}", name, operator, bound.literal(column)?));
            }
        }
        if ["real", "double precision"].contains(&column.type_name.as_str())
            || column.type_name.starts_with("numeric")
        {
            tests.push(sql!("{} <> 'NaN'", name));
        }
        RowRule {
            table,
            filter: self.r#where.as_ref(),
            key: &self.key,
            present: sql!("{} is not null", name),
            holds: Sql::join(" and ", tests),
            nulls: self.nulls,
            is_join: false,
            sample: known.sample,
            values: known.values(table, std::slice::from_ref(&self.column))?,
        }
        .ask()
    }

    fn sampling(&self) -> Result<Rule, Problem> {
        let bound = AtMost::new(self.at_most, self.warn_above);
        Ok(rows_by_sample(bound, self.nulls))
    }

    fn names_rows(&self) -> bool {
        true
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let words = self.words();
        judge_rows(
            measured,
            AtMost::new(self.at_most, self.warn_above),
            self.nulls,
            &format!("in range ({words})"),
            &format!("out of range ({words})"),
        )
    }
}

//! Kind `accepted_values`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{Column, Side};
use crate::gate::fields::{ColumnName, Scalar, SqlText, TableName};
use crate::gate::sampling::Rule;
use crate::gate::threshold::{Amount, AtMost};
use crate::gate::{Ask, Judgement, Kind, Known, Measured, Needs, OnEmpty};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

use super::Definition;
use super::shared::{Nulls, RowRule, judge_rows, rows_by_sample, scope_needs};

/// Does a column hold only accepted values? They are listed in `values` or stand in the column that
/// `from` names. Numbers are compared as numbers, everything else by its text. A row with a null was
/// not looked at, unless `nulls` says that it offends; with nothing but nulls there was nothing to
/// look at.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AcceptedValues {
    /// The table or view.
    table: TableName,
    /// The column.
    column: String,
    /// The accepted values; or else `from`.
    #[serde(default)]
    values: Vec<Scalar>,
    /// The column that holds the accepted values: `schema.table.column`.
    from: Option<ColumnName>,
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

impl AcceptedValues {
    /// That the value is one of the list.
    fn is_listed(&self, column: &Column) -> Result<Sql> {
        let name = Ident::new(self.column.clone());
        if column.category == 'N' {
            let values = self.values.iter().map(|value| value.literal(column));
            let values = values.collect::<Result<Vec<Sql>>>()?;
            return Ok(sql!("{} in ({})", name, Sql::join(", ", values)));
        }
        let values = self.values.iter().map(|value| Literal(value.as_str()));
        Ok(sql!("{}::text in ({})", name, Sql::join(", ", values)))
    }
}

impl Definition for AcceptedValues {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for AcceptedValues {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.values.is_empty() != self.from.is_some() {
            problems.push(Problem::new(
                "values",
                "an `accepted_values` gate has either `values` or `from`",
            ));
        }
        problems
    }

    fn needs(&self) -> Needs {
        let mut needs = scope_needs(&self.table.0, self.r#where.as_ref());
        let from = self.from.iter().map(|from| from.table.clone());
        needs
            .relations
            .extend(from.map(|table| (Side::Main, table)));
        needs
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let table = known.catalog().relation(&self.table.0)?;
        let column = table.column(&self.column)?;
        let own = sql!("{}.{}", table.relation, Ident::new(self.column.clone()));
        let holds = match &self.from {
            None => self.is_listed(column)?,
            Some(from) => {
                let list = known.catalog().relation(&from.table)?;
                list.column(&from.column)?;
                sql!(
                    "exists (select from {} accepted where accepted.{} = {})",
                    list.relation,
                    Ident::new(from.column.clone()),
                    own
                )
            }
        };
        RowRule {
            table,
            filter: self.r#where.as_ref(),
            key: &self.key,
            present: sql!("{} is not null", own),
            holds,
            nulls: self.nulls,
            is_join: self.from.is_some(),
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
        let bound = AtMost::new(self.at_most, self.warn_above);
        let (good, bad) = match &self.from {
            None => (
                "with an accepted value".to_owned(),
                "with another value".to_owned(),
            ),
            Some(from) => {
                let list = format!("{}.{}", from.table.readable(), from.column);
                (
                    format!("with a value of {list}"),
                    format!("with a value not in {list}"),
                )
            }
        };
        judge_rows(measured, bound, self.nulls, &good, &bad)
    }
}

//! Kind `relation`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{ShownColumn, Side};
use crate::gate::fields::{Scalar, SqlText, TableName};
use crate::gate::sampling::Rule;
use crate::gate::threshold::{Amount, AtMost};
use crate::gate::{Ask, AuthorCheck, Judgement, Kind, Known, Measured, Needs, OnEmpty};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Fixed, Literal, Sql};

use super::Definition;
use super::shared::{Nulls, RowRule, judge_rows, rows_by_sample, scope_needs};

/// Do the columns of a row go together? `left` and `right` are SQL expressions over the columns, such
/// as `home_score + away_score` and `total`, and `op` says how they must compare. A row in which one
/// of them is null was not looked at, unless `nulls` says that it offends; with nothing but nulls
/// there was nothing to look at.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowRelation {
    /// The table or view.
    table: TableName,
    /// An SQL expression.
    left: SqlText,
    /// How the two must compare: `=` (the default), `<>`, `<`, `<=`, `>` or `>=`.
    #[serde(default)]
    op: Op,
    /// An SQL expression.
    right: SqlText,
    /// How far apart the two may be where they must be equal: a number, or for times an interval such
    /// as `"1 minute"`.
    tolerance: Option<Scalar>,
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

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
enum Op {
    #[default]
    #[serde(rename = "=")]
    Equal,
    #[serde(rename = "<>")]
    Unequal,
    #[serde(rename = "<")]
    Less,
    #[serde(rename = "<=")]
    LessOrEqual,
    #[serde(rename = ">")]
    More,
    #[serde(rename = ">=")]
    MoreOrEqual,
}

impl Op {
    fn as_str(self) -> &'static str {
        match self {
            Op::Equal => "=",
            Op::Unequal => "<>",
            Op::Less => "<",
            Op::LessOrEqual => "<=",
            Op::More => ">",
            Op::MoreOrEqual => ">=",
        }
    }
}

impl RowRelation {
    fn holds(&self) -> Sql {
        let (SqlText(left), SqlText(right)) = (&self.left, &self.right);
        match &self.tolerance {
            None => sql!("({}) {} ({})", left, Fixed(self.op.as_str()), right),
            Some(Scalar::Number(number)) => {
                sql!(
                    "abs(({}) - ({})) <= {}::numeric",
                    left,
                    right,
                    Literal(number)
                )
            }
            Some(Scalar::Text(text)) => sql!(
                "({}) - ({}) between - interval {} and interval {}",
                left,
                right,
                Literal(text),
                Literal(text)
            ),
        }
    }

    /// The place of the check of `left` among those that the gate needs; that of `right` follows.
    fn first_side(&self) -> usize {
        usize::from(self.r#where.is_some())
    }

    /// `home + away = total`.
    fn words(&self) -> String {
        let SqlText(left) = &self.left;
        let SqlText(right) = &self.right;
        let within = self.tolerance.as_ref();
        format!(
            "{} {} {}{}",
            left.as_str(),
            self.op.as_str(),
            right.as_str(),
            within.map_or_else(String::new, |amount| format!(" within {}", amount.as_str()))
        )
    }
}

impl Definition for RowRelation {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for RowRelation {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.tolerance.is_some() && self.op != Op::Equal {
            problems.push(Problem::new(
                "tolerance",
                "`tolerance` goes with `op = \"=\"`",
            ));
        }
        if let Some(Scalar::Number(number)) = &self.tolerance
            && !number
                .parse::<f64>()
                .is_ok_and(|number| number >= 0.0 && number.is_finite())
        {
            problems.push(Problem::new(
                "tolerance",
                format!("`{number}` is no distance"),
            ));
        }
        problems
    }

    fn needs(&self) -> Needs {
        let mut needs = scope_needs(&self.table.0, self.r#where.as_ref());
        let check = |field, author: &SqlText, statement| AuthorCheck {
            field,
            side: Side::Main,
            author: author.0.clone(),
            statement,
        };
        for (field, author) in [("left", &self.left), ("right", &self.right)] {
            let statement = sql!("select ({}) from {}", author.0, self.table.0);
            needs.checks.push(check(field, author, statement));
        }
        let statement = sql!("select from {} where {}", self.table.0, self.holds());
        needs.checks.push(check("right", &self.right, statement));
        needs
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let (SqlText(left), SqlText(right)) = (&self.left, &self.right);
        let table = known.catalog().relation(&self.table.0)?;
        let mut values = known.values(table, &[])?;
        if !values.is_named {
            let sides = [("left", left), ("right", right)].into_iter().enumerate();
            values.columns = sides
                .map(|(place, (name, author))| ShownColumn {
                    name: name.to_owned(),
                    sql: sql!("({})", author),
                    is_masked: known
                        .catalog()
                        .masks
                        .reach(known.read_by(self.first_side() + place)),
                })
                .collect();
        }
        RowRule {
            table,
            filter: self.r#where.as_ref(),
            key: &self.key,
            present: sql!("({}) is not null and ({}) is not null", left, right),
            holds: self.holds(),
            nulls: self.nulls,
            is_join: false,
            sample: known.sample,
            values,
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
            &format!("with {words}"),
            &format!("without {words}"),
        )
    }
}

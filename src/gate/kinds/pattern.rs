//! Kind `pattern`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::Side;
use crate::gate::fields::{SqlText, TableName};
use crate::gate::sampling::Rule;
use crate::gate::threshold::{Amount, AtMost};
use crate::gate::{Ask, AuthorCheck, Judgement, Kind, Known, Measured, Needs, OnEmpty};
use crate::source::Problem;
use crate::sql;
use crate::sql::{AuthorSql, Ident, Literal, Sql};

use super::Definition;
use super::shared::{Nulls, RowRule, judge_rows, rows_by_sample, scope_needs};

/// Does the text of a column have the form it should have? `regex` is a regular expression of
/// Postgres that matches anywhere in the text unless it is held by `^` and `$`; `like` matches the
/// whole text, `%` standing for any text and `_` for any character. What is no text is looked at as
/// its text. A row with a null was not looked at, unless `nulls` says that it offends; with nothing
/// but nulls there was nothing to look at.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// The table or view.
    table: TableName,
    /// The column.
    column: String,
    /// A regular expression, such as `^[A-Z]{3}$`; or else `like`.
    regex: Option<String>,
    /// A pattern of SQL's own LIKE.
    like: Option<String>,
    /// Whether a text that matches is the one that offends.
    #[serde(default)]
    negate: bool,
    /// Whether capital and small letters are the same.
    #[serde(default)]
    ignore_case: bool,
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

impl Pattern {
    /// That a text matches.
    fn matches(&self, text: &Sql) -> Sql {
        match (&self.regex, &self.like, self.ignore_case) {
            (Some(regex), _, false) => sql!("{} ~ {}", text, Literal(regex)),
            (Some(regex), _, true) => sql!("{} ~* {}", text, Literal(regex)),
            (None, like, false) => sql!("{} like {}", text, Literal(like.as_deref().unwrap_or(""))),
            (None, like, true) => sql!("{} ilike {}", text, Literal(like.as_deref().unwrap_or(""))),
        }
    }
}

impl Definition for Pattern {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for Pattern {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.regex.is_some() == self.like.is_some() {
            problems.push(Problem::new(
                "regex",
                "a `pattern` gate has either `regex` or `like`",
            ));
        }
        problems
    }

    fn needs(&self) -> Needs {
        let mut needs = scope_needs(&self.table.0, self.r#where.as_ref());
        let (field, author) = match (&self.regex, &self.like) {
            (Some(regex), _) => ("regex", regex.as_str()),
            (None, like) => ("like", like.as_deref().unwrap_or("")),
        };
        // A constant expression: planning it says whether the pattern is one.
        needs.checks.push(AuthorCheck {
            field,
            side: Side::Main,
            author: AuthorSql::new(author),
            statement: sql!("select {}", self.matches(&sql!("'some text'"))),
        });
        needs
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let table = known.catalog().relation(&self.table.0)?;
        table.column(&self.column)?;
        let name = Ident::new(self.column.clone());
        let matches = self.matches(&sql!("{}::text", name));
        RowRule {
            table,
            filter: self.r#where.as_ref(),
            key: &self.key,
            present: sql!("{} is not null", name),
            holds: if self.negate {
                sql!("not {}", matches)
            } else {
                matches
            },
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
        let pattern = match (&self.regex, &self.like) {
            (Some(text), _) | (None, Some(text)) => text.as_str(),
            (None, None) => "",
        };
        let of = format!("of the form `{pattern}`");
        let not = format!("not {of}");
        let (good, bad) = if self.negate {
            (&not, &of)
        } else {
            (&of, &not)
        };
        let bound = AtMost::new(self.at_most, self.warn_above);
        judge_rows(measured, bound, self.nulls, good, bad)
    }
}

//! Kind `mock_data`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{RelationInfo, RelationKind, Side, matches};
use crate::gate::fields::{SqlText, TableName};
use crate::gate::threshold::{Amount, AtMost, count, rows_of};
use crate::gate::{
    Aggregate, Ask, Evidence, Figure, Finding, Judgement, Kind, Known, Measured, Needs, OnEmpty,
    Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

use super::Definition;
use super::shared::{scope_needs, scope_of};

/// Is there test, placeholder or generated data here? Looks at the text columns of one table, or
/// of every table of `schemas`, whose names are looked at too. `low` takes a value that is nothing
/// but a placeholder (`test`, `dummy`, `lorem ipsum`, `asdf`, …) or a mail address of a domain
/// reserved by RFC 2606; `medium`, the default, also a placeholder word within a text (`mock`,
/// `dummy`, `fake`, …); `high` also `test`, `sample` and `example` within a text.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MockData {
    /// The table or view; or else `schemas`.
    table: Option<TableName>,
    /// Every table of the schemas that match, `*` standing for any text; system schemas are left out.
    #[serde(default)]
    schemas: Vec<String>,
    /// The columns of `table` to look at; every text column where nothing is said.
    #[serde(default)]
    columns: Vec<String>,
    /// Only rows of `table` for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// How much is taken for mock data: `low`, `medium` (the default) or `high`.
    #[serde(default)]
    sensitivity: Sensitivity,
    /// What is not looked at: `schema.table` or `schema.table.column`, `*` standing for any text.
    #[serde(default)]
    allow: Vec<String>,
    /// Fails above this many offending rows, or this share of rows; 0 where nothing is said.
    at_most: Option<Amount>,
    /// Warns above this.
    warn_above: Option<Amount>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Sensitivity {
    Low,
    #[default]
    Medium,
    High,
}

/// A value that is nothing but a placeholder, or a mail address nobody can have.
const WHOLE: &str = "^\\s*(test|testing|dummy|mock|fake|placeholder|lorem ipsum.*|foo|foobar|asdf|qwerty|xxx+|tbd|changeme|(mock|test|dummy|fake)[_-].*|.*@(.*\\.)?example\\.(com|org|net)|.*@(.*\\.)?(test|example|invalid|localhost))\\s*$";
/// A placeholder word within a text.
const WITHIN: &str = "\\m(mock|mocked|dummy|fake|placeholder|lorem ipsum)\\M";
/// Words that real text holds, too.
const DOUBTFUL: &str = "\\m(test|sample|example)\\M";
/// Parts of a table's name that say it is no production table.
const NAMES: &[&str] = &[
    "test",
    "tests",
    "mock",
    "dummy",
    "fake",
    "benchmark",
    "tmp",
    "temp",
];

impl MockData {
    fn condition(&self, column: &str) -> Sql {
        let column = Ident::new(column);
        let mut patterns = vec![WHOLE];
        if self.sensitivity >= Sensitivity::Medium {
            patterns.push(WITHIN);
        }
        if self.sensitivity >= Sensitivity::High {
            patterns.push(DOUBTFUL);
        }
        // coalesce: a null is missing, which is another gate's business.
        Sql::join(
            " or ",
            patterns
                .into_iter()
                .map(|pattern| sql!("coalesce({}::text ~* {}, false)", column, Literal(pattern))),
        )
    }

    fn is_allowed(&self, name: &str) -> bool {
        self.allow.iter().any(|pattern| matches(pattern, name))
    }

    /// Asks of one table; `columns` empty means every text column.
    fn ask_table(&self, table: &RelationInfo, columns: &[String], ask: &mut Ask) -> Result<()> {
        let name = table.relation.readable();
        let looked_at: Vec<&str> = if columns.is_empty() {
            let text = table
                .columns
                .iter()
                .filter(|column| matches!(column.category, 'S' | 'E'));
            text.map(|column| column.name.as_str())
                .filter(|column| !self.is_allowed(&format!("{name}.{column}")))
                .collect()
        } else {
            table.columns_named(columns)?;
            columns.iter().map(String::as_str).collect()
        };
        let scope = scope_of(table, self.r#where.as_ref());
        ask.measures
            .push(Aggregate::count(format!("rows {name}"), &scope, None));
        if looked_at.is_empty() {
            return Ok(());
        }
        let any = Sql::join(
            " or ",
            looked_at.iter().map(|column| self.condition(column)),
        );
        let counted = format!("mock {name}");
        ask.measures
            .push(Aggregate::count(counted.clone(), &scope, Some(any.clone())));
        for column in &looked_at {
            let label = format!("column {name}.{column}");
            ask.measures.push(Aggregate::count(
                label,
                &scope,
                Some(self.condition(column)),
            ));
        }
        ask.evidence
            .push(Evidence::rows(counted, &scope, &table.row_key(&[])?, &any).because(name));
        Ok(())
    }
}

impl Definition for MockData {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for MockData {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.table.is_some() != self.schemas.is_empty() {
            problems.push(Problem::new(
                "schemas",
                "a `mock_data` gate has either `table` or `schemas`",
            ));
        }
        if self.table.is_none() && (!self.columns.is_empty() || self.r#where.is_some()) {
            problems.push(Problem::new(
                "schemas",
                "`columns` and `where` go with `table`, not with `schemas`",
            ));
        }
        problems
    }

    fn needs(&self) -> Needs {
        match &self.table {
            Some(table) => scope_needs(&table.0, self.r#where.as_ref()),
            None => Needs {
                schemas: self.schemas.clone(),
                ..Needs::default()
            },
        }
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let catalog = known.on(&Side::Main);
        let mut ask = Ask::default();
        if let Some(table) = &self.table {
            self.ask_table(catalog.relation(&table.0)?, &self.columns, &mut ask)?;
            return Ok(ask);
        }
        for table in catalog.in_schemas(&self.schemas) {
            let name = table.relation.readable();
            // A view shows rows of tables that are looked at themselves.
            if self.is_allowed(&name) || table.kind == RelationKind::View {
                continue;
            }
            let own = table.relation.name.as_str().to_lowercase();
            if own.split('_').any(|part| NAMES.contains(&part)) {
                ask.findings.push(Finding {
                    what: format!(
                        "the name of the table {name} says that it is no production table"
                    ),
                    is_failure: true,
                    repair: None,
                });
            }
            self.ask_table(table, &[], &mut ask)?;
        }
        Ok(ask)
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let rows: u64 = measured.counts("rows ").map(|(_, n)| n).sum();
        let mock: u64 = measured.counts("mock ").map(|(_, n)| n).sum();
        let bound = AtMost::new(self.at_most, self.warn_above);
        let tables = measured.findings.len() as u64;
        let verdict = if tables > 0 {
            Verdict::Failed
        } else if rows == 0 {
            Verdict::Empty
        } else {
            bound.level(mock, rows).into()
        };
        let mut message = format!(
            "{} of {} look like mock data",
            count(mock),
            rows_of(rows, "row")
        );
        if tables > 0 {
            message.push_str(&format!("; {} by its name", rows_of(tables, "table")));
        }
        let mut findings = measured.findings.clone();
        findings.extend(
            measured
                .counts("column ")
                .filter(|(_, n)| *n > 0)
                .map(|(column, n)| Finding {
                    what: format!("{column} in {}", rows_of(n, "row")),
                    is_failure: false,
                    repair: None,
                }),
        );
        Judgement {
            verdict,
            rows_checked: Some(rows),
            rows_offending: Some(mock),
            measured: Figure::rows(mock),
            threshold: bound.bounds(),
            message,
            findings,
        }
    }
}

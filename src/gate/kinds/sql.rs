//! Kind `sql`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{ShownColumn, Side};
use crate::gate::fields::SqlText;
use crate::gate::threshold::{Amount, AtMost, rows_of};
use crate::gate::{
    Ask, AuthorCheck, Evidence, Figure, Judgement, Kind, Known, Measure, Measured, Needs, OnEmpty,
    Values, Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Ident, Relation, Sql};

use super::Definition;

/// Custom: the rows that the query returns are offending. How many rows it looked at says
/// `population`; without it the gate counts as having looked at nothing when every table that the
/// query reads is empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CustomSql {
    /// One `select` whose rows are the offending ones; or else `file`.
    query: Option<SqlText>,
    /// A file with that `select`, named from the folder of this file. Keep it out of the folder of the
    /// gates, where every `.sql` file is a gate itself, or let its name end otherwise.
    #[expect(dead_code, reason = "the loader reads it and fills in `query`")]
    file: Option<String>,
    /// One `select` that returns a single number: how many rows were looked at.
    population: Option<SqlText>,
    /// Fails above this many offending rows, or this share of the population; 0 where nothing is said.
    at_most: Option<Amount>,
    /// Warns above this.
    warn_above: Option<Amount>,
    /// The columns of the query that name a row; where nothing is said, no column is shown.
    #[serde(default)]
    key: Vec<String>,
}

impl CustomSql {
    fn query(&self) -> &SqlText {
        let query = self.query.as_ref();
        query.expect("a definition without a query is refused")
    }
}

impl Definition for CustomSql {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for CustomSql {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.query.is_none() {
            problems.push(
                Problem::new("query", "expected either `query` or `file`").help(
                    "write query = \"select …\", or file = \"NAME.sql\" to read it from there",
                ),
            );
        }
        let is_share = |amount: &Option<Amount>| matches!(amount, Some(Amount::Share { .. }));
        if self.population.is_none() && (is_share(&self.at_most) || is_share(&self.warn_above)) {
            problems.push(
                Problem::new("at_most", "a percentage of an unknown number of rows")
                    .help("give `population`, a query that counts the rows looked at"),
            );
        }
        problems
    }

    fn needs(&self) -> Needs {
        let check = |field, SqlText(author): &SqlText| AuthorCheck {
            field,
            side: Side::Main,
            author: author.clone(),
            statement: sql!("select * from ({}) q", author),
        };
        let mut checks = vec![check("query", self.query())];
        checks.extend(
            self.population
                .as_ref()
                .map(|text| check("population", text)),
        );
        Needs {
            checks,
            ..Needs::default()
        }
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let read = known.read_by(0);
        let population = match &self.population {
            Some(SqlText(author)) => sql!("(select q.n::bigint from ({}) q(n))::text", author),
            None => sql!("null::text"),
        };
        let any_row = if read.is_empty() {
            sql!("true")
        } else {
            Sql::join(
                " or ",
                read.iter()
                    .map(|relation| sql!("exists (select from {})", relation)),
            )
        };
        let SqlText(query) = self.query();
        let about = read
            .first()
            .cloned()
            .unwrap_or_else(|| Relation::new("pg_catalog", "sql"));
        let shown = |names: &[String]| -> Vec<ShownColumn> {
            let columns = names.iter().map(|name| ShownColumn {
                name: name.clone(),
                sql: sql!("q.{}", Ident::new(name)),
                is_masked: known.catalog().masks.may_hide(read, name),
            });
            columns.collect()
        };
        let from = sql!("from ({}) q", query);
        let evidence = Evidence::new("offending", Side::Main, shown(&self.key), from);
        let mut evidence = evidence.showing(Values {
            columns: shown(known.show),
            is_named: !known.show.is_empty(),
        });
        if evidence.key.is_empty() {
            evidence.sql = query.to_sql();
        }
        Ok(Ask {
            measures: vec![Measure::Statement {
                labels: ["offending", "population", "any_row"]
                    .map(str::to_owned)
                    .to_vec(),
                side: Side::Main,
                about,
                sql: sql!(
                    "select (select count(*) from ({}) q)::text, {}, ({})::text",
                    query,
                    population,
                    any_row
                ),
            }],
            evidence: vec![evidence],
            ..Ask::default()
        })
    }

    fn names_rows(&self) -> bool {
        true
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let offending = measured.count("offending");
        let population = measured
            .text("population")
            .map(|_| measured.count("population"));
        let looked_at_nothing = match population {
            Some(rows) => rows == 0,
            None => self.population.is_some() || measured.text("any_row") != Some("true"),
        };
        let bound = AtMost::new(self.at_most, self.warn_above);
        Judgement {
            // Offending rows are offending whatever the population claims.
            verdict: if looked_at_nothing && offending == 0 {
                Verdict::Empty
            } else {
                bound.level(offending, population.unwrap_or(0)).into()
            },
            rows_checked: population,
            rows_offending: Some(offending),
            measured: Figure::rows(offending),
            threshold: bound.bounds(),
            message: match population {
                Some(rows) => format!(
                    "{} of {} offending",
                    crate::gate::threshold::count(offending),
                    rows_of(rows, "row")
                ),
                None => format!("{} offending", rows_of(offending, "row")),
            },
            findings: Vec::new(),
        }
    }
}

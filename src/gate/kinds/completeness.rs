//! Kind `completeness`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::fields::{SqlText, TableName};
use crate::gate::sampling::{Bound, Rule};
use crate::gate::threshold::{Amount, AtLeast, percent, rows_of};
use crate::gate::{
    Aggregate, Ask, Evidence, Figure, Judgement, Kind, Known, Measured, Needs, OnEmpty, Proof,
    Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

use super::Definition;
use super::shared::{ask_proved, judge_proved, scope_needs, scope_of};

/// Are the values there, per row and column? A row is complete when all of `columns` hold a value.
/// Where all of them are NOT NULL and nothing else counts as missing, that proves a share of rows without
/// a look at every row, unless `--scan` is given.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Completeness {
    /// The table or view.
    table: TableName,
    /// The columns that must hold a value.
    #[schemars(length(min = 1))]
    columns: Vec<String>,
    /// Only rows for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// Fails below this many complete rows, or below this share of rows; `100%` where nothing is said.
    at_least: Option<Amount>,
    /// Warns below this.
    warn_below: Option<Amount>,
    /// Texts that count as missing beside null, compared with the value as text: `["", "N/A"]`.
    #[serde(default)]
    missing: Vec<String>,
    /// The columns that name an offending row; the primary key where nothing is said.
    #[serde(default)]
    key: Vec<String>,
}

impl Completeness {
    fn bound(&self) -> AtLeast {
        AtLeast {
            fail: self.at_least.unwrap_or(Amount::Share {
                parts: 100,
                per: 100,
            }),
            warn: self.warn_below,
        }
    }

    fn present(&self, column: &str) -> Sql {
        let column = Ident::new(column);
        if self.missing.is_empty() {
            return sql!("{} is not null", column);
        }
        let texts = Sql::join(", ", self.missing.iter().map(|text| Literal(text)));
        sql!(
            "({} is not null and {}::text not in ({}))",
            column,
            column,
            texts
        )
    }
}

impl Definition for Completeness {
    const ON_EMPTY: OnEmpty = OnEmpty::Fail;
}

impl Kind for Completeness {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = self.bound().problems();
        if self.columns.is_empty() {
            problems.push(Problem::new("columns", "`columns` names no column"));
        }
        problems
    }

    fn needs(&self) -> Needs {
        scope_needs(&self.table.0, self.r#where.as_ref())
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let table = known.catalog().relation(&self.table.0)?;
        let columns = table.columns_named(&self.columns)?;
        let scope = scope_of(table, self.r#where.as_ref()).sampled(known.sample);
        let is_share = |amount: Amount| matches!(amount, Amount::Share { .. });
        let (fail, warn) = (self.bound().fail, self.bound().warn);
        // A number of rows must be counted.
        let is_provable = is_share(fail) && warn.is_none_or(is_share) && self.missing.is_empty();
        if known.proof >= Proof::Enforced
            && is_provable
            && columns.iter().all(|column| column.is_not_null)
        {
            table.row_key(&self.key)?;
            known.values(table, &self.columns)?;
            let proof = "NOT NULL".to_owned();
            return Ok(ask_proved("rows", &scope, &self.columns, proof));
        }
        let complete = Sql::join(
            " and ",
            self.columns.iter().map(|column| self.present(column)),
        );
        let incomplete = sql!("not ({})", complete);
        let mut measures = vec![
            Aggregate::count("rows", &scope, None),
            Aggregate::count("incomplete", &scope, Some(incomplete.clone())),
        ];
        for column in &self.columns {
            let absent = sql!("not ({})", self.present(column));
            measures.push(Aggregate::count(
                format!("missing {column}"),
                &scope,
                Some(absent),
            ));
        }
        Ok(Ask {
            measures,
            evidence: vec![
                Evidence::rows("incomplete", &scope, table.row_key(&self.key)?, &incomplete)
                    .showing(known.values(table, &self.columns)?),
            ],
            ..Ask::default()
        })
    }

    fn sampling(&self) -> Result<Rule, Problem> {
        Ok(Rule {
            checked: "rows",
            bound: Bound::AtLeast(self.bound()),
        })
    }

    fn names_rows(&self) -> bool {
        true
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        if let Some(proof) = &measured.proof {
            let all = |rows| Figure::percent(rows, rows);
            let bounds = self.bound().bounds();
            return judge_proved(measured, "rows", proof, "complete", all, bounds);
        }
        let rows = measured.count("rows");
        let incomplete = measured.count("incomplete");
        let complete = rows.saturating_sub(incomplete);
        let bound = self.bound();
        let verdict = if rows == 0 {
            Verdict::Empty
        } else {
            bound.level(complete, rows).into()
        };
        let lacking: Vec<String> = self
            .columns
            .iter()
            .map(|column| (column, measured.count(&format!("missing {column}"))))
            .filter(|(_, n)| *n > 0)
            .map(|(column, n)| format!("`{column}` in {}", rows_of(n, "row")))
            .collect();
        let mut message = format!(
            "{} of {} complete ({})",
            crate::gate::threshold::count(complete),
            rows_of(rows, "row"),
            percent(complete, rows)
        );
        if !lacking.is_empty() {
            message.push_str(&format!("; missing: {}", lacking.join(", ")));
        }
        Judgement {
            verdict,
            rows_checked: Some(rows),
            rows_offending: Some(incomplete),
            measured: match bound.fail {
                Amount::Share { .. } => Figure::percent(complete, rows),
                Amount::Rows(_) => Figure::rows(complete),
            },
            threshold: bound.bounds(),
            message,
            findings: Vec::new(),
        }
    }
}

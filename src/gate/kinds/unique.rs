//! Kind `unique`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::ShownColumn;
use crate::gate::fields::{SqlText, TableName};
use crate::gate::threshold::{Amount, AtMost, rows_of};
use crate::gate::{
    Aggregate, Ask, Evidence, Figure, Judgement, Kind, Known, Measure, Measured, Needs, OnEmpty,
    Proof, Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Ident, Sql};

use super::Definition;
use super::shared::{ask_proved, judge_proved, scope_needs, scope_of};

/// Does no two rows hold the same values in `columns`? As in SQL's own UNIQUE, a row with a null
/// among them equals no other, and where every row has one there was nothing to look at. Every row
/// that shares its values with another is offending. A valid unique index proves it without a look at
/// every row, unless `--scan` is given: one that is not deferrable, over some or all of the columns and
/// over all rows, and none over text that a language sorts, as an upgrade of the system's library
/// leaves such an index broken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Unique {
    /// The table or view.
    table: TableName,
    /// The columns that together must be unique.
    #[schemars(length(min = 1))]
    columns: Vec<String>,
    /// Only rows for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// Fails above this many offending rows, or this share of rows; 0 where nothing is said.
    at_most: Option<Amount>,
    /// Warns above this.
    warn_above: Option<Amount>,
}

impl Definition for Unique {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for Unique {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
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
        let mut key = table.shown(&self.columns)?;
        let scope = scope_of(table, self.r#where.as_ref());
        // A row with a null among them is not looked at, so that an index over some of the columns
        // proves all of them, whether they may be null or not.
        let proof = table.proofs.iter().find(|index| {
            let mut columns = index.columns.iter();
            columns.all(|column| self.columns.contains(column))
        });
        if let Some(index) = proof.filter(|_| known.proof >= Proof::Enforced) {
            return Ok(ask_proved(
                "present",
                &scope,
                &self.columns,
                index.name.clone(),
            ));
        }
        let names = || self.columns.iter().map(Ident::new);
        let columns = Sql::join(", ", names());
        let present = Sql::join(" and ", names().map(|name| sql!("{} is not null", name)));
        // Named by place: a column of the table may be called anything.
        let places = || (0..self.columns.len()).map(|place| Ident::new(format!("c{place}")));
        let aliases = Sql::join(", ", places().chain([Ident::new("n")]));
        let repeated = sql!(
            "(select {}, count(*) from {} where {} group by {} having count(*) > 1) d({})",
            columns,
            scope.relation,
            scope.condition(Some(&present)),
            columns,
            aliases
        );
        for (column, place) in key.iter_mut().zip(places()) {
            column.sql = sql!("d.{}", place);
        }
        key.push(ShownColumn {
            name: "rows".to_owned(),
            sql: sql!("d.n"),
            is_masked: false,
        });
        let order = Sql::join(", ", places().map(|name| sql!("d.{}", name)));
        Ok(Ask {
            measures: vec![
                Aggregate::count("rows", &scope, None),
                Aggregate::count("present", &scope, Some(present)),
                Measure::Statement {
                    labels: vec!["repeated".to_owned(), "keys".to_owned()],
                    side: scope.side.clone(),
                    about: scope.relation.clone(),
                    sql: sql!(
                        "select coalesce(sum(d.n), 0)::text, count(*)::text from {}",
                        repeated
                    ),
                },
            ],
            evidence: vec![Evidence::new(
                "repeated",
                scope.side,
                key,
                sql!("from {} order by d.n desc, {}", repeated, order),
            )],
            ..Ask::default()
        })
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        if let Some(proof) = &measured.proof {
            let bounds = AtMost::new(self.at_most, self.warn_above).bounds();
            let none = |_| Figure::rows(0);
            return judge_proved(measured, "present", proof, "all different", none, bounds);
        }
        let (rows, repeated) = (measured.count("rows"), measured.count("repeated"));
        let bound = AtMost::new(self.at_most, self.warn_above);
        Judgement {
            verdict: if measured.count("present") == 0 {
                Verdict::Empty
            } else {
                bound.level(repeated, rows).into()
            },
            rows_checked: Some(rows),
            rows_offending: Some(repeated),
            measured: Figure::rows(repeated),
            threshold: bound.bounds(),
            message: if repeated == 0 {
                format!("{} all different", rows_of(rows, "row"))
            } else {
                format!(
                    "{} of {} share {}",
                    crate::gate::threshold::count(repeated),
                    rows_of(rows, "row"),
                    rows_of(measured.count("keys"), "key")
                )
            },
            findings: Vec::new(),
        }
    }
}

//! What kinds over one table have in common.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{RelationInfo, Side};
use crate::gate::fields::SqlText;
use crate::gate::sampling::{Rule, Sample};
use crate::gate::threshold::{AtMost, Bounds, count, rows_of};
use crate::gate::{
    Aggregate, Ask, AuthorCheck, Evidence, Figure, Judgement, Measure, Measured, Needs, Scope,
    Values, Verdict,
};
use crate::sql;
use crate::sql::{Ident, Relation, Sql};

/// The needs of a gate on one table: the table, and its filter checked.
pub fn scope_needs(table: &Relation, filter: Option<&SqlText>) -> Needs {
    let checks = filter
        .map(|SqlText(author)| AuthorCheck {
            field: "where",
            side: Side::Main,
            author: author.clone(),
            statement: sql!("select from {} where ({})", table, author),
        })
        .into_iter()
        .collect();
    Needs {
        relations: vec![(Side::Main, table.clone())],
        checks,
        ..Needs::default()
    }
}

/// The rows that a gate on one table is about.
pub fn scope_of(table: &RelationInfo, filter: Option<&SqlText>) -> Scope {
    Scope {
        side: Side::Main,
        relation: table.relation.clone(),
        filter: filter.map(|SqlText(author)| author.clone()),
        sample: None,
    }
}

/// Asks whether there are rows whose `columns` are all there; nothing else is left to ask where
/// something in the catalog proves that none of them offends. Names the columns, so that who may not
/// read them is told so.
pub fn ask_proved(label: &str, scope: &Scope, columns: &[String], proof: String) -> Ask {
    let present = columns
        .iter()
        .map(|name| sql!("{}.{} is not null", scope.relation, Ident::new(name)));
    let rows = Aggregate {
        label: label.to_owned(),
        side: scope.side.clone(),
        relation: scope.relation.clone(),
        sample: None,
        filter: scope.filter.clone(),
        call: sql!("count(*)"),
        when: Some(Sql::join(" and ", present)),
        around: (sql!(""), sql!("")),
    };
    Ask {
        measures: vec![Measure::Presence(rows)],
        proof: Some(proof),
        ..Ask::default()
    }
}

/// Judges what [`ask_proved`] asked: "5 rows GOOD, proved by orders_pkey". Proves nothing where
/// there are no rows.
pub fn judge_proved(
    measured: &Measured,
    label: &str,
    proof: &str,
    good: &str,
    figure: impl Fn(u64) -> Figure,
    threshold: Bounds,
) -> Judgement {
    let is_counted = measured.has(label);
    let rows = match is_counted {
        true => measured.count(label),
        false => measured.count(&Measure::any(label)),
    };
    let counted = is_counted || rows == 0;
    let what = match counted {
        true => rows_of(rows, "row"),
        false => "all rows".to_owned(),
    };
    Judgement {
        verdict: if rows == 0 {
            Verdict::Empty
        } else {
            Verdict::Passed
        },
        rows_checked: counted.then_some(rows),
        rows_offending: Some(0),
        measured: figure(rows),
        threshold,
        message: match rows {
            0 => what,
            _ => format!("{what} {good}, proved by {proof}"),
        },
        findings: Vec::new(),
    }
}

/// What a null means to a gate that holds every row to a condition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Nulls {
    /// The row is not looked at.
    #[default]
    Ignore,
    /// The row is offending.
    Offend,
}

/// A condition that every row must meet.
pub struct RowRule<'a> {
    /// The table.
    pub table: &'a RelationInfo,
    /// Only rows for which this holds.
    pub filter: Option<&'a SqlText>,
    /// The columns that name an offending row.
    pub key: &'a [String],
    /// That the row has the values that the condition is about.
    pub present: Sql,
    /// The condition, for a row that has them.
    pub holds: Sql,
    /// What it means that it has not.
    pub nulls: Nulls,
    /// Whether the condition reads another table, so that it stays out of a shared scan.
    pub is_join: bool,
    /// Which blocks are read, where that is not all of them.
    pub sample: Option<Sample>,
    /// What is shown beside the key of an offending row.
    pub values: Values,
}

impl RowRule<'_> {
    /// Counts the rows, those looked at, and those that offend, and names these.
    pub fn ask(self) -> Result<Ask> {
        let scope = scope_of(self.table, self.filter).sampled(self.sample);
        let wrong = sql!("{} and not ({})", self.present, self.holds);
        let offending = match self.nulls {
            Nulls::Ignore => wrong,
            Nulls::Offend => sql!("(not ({}) or ({}))", self.present, wrong),
        };
        let mut measures = vec![
            Aggregate::count("rows", &scope, None),
            Aggregate::count("present", &scope, Some(self.present)),
        ];
        // Of a sample, only a scan by block tells what it is worth.
        measures.push(if self.is_join && self.sample.is_none() {
            Measure::Statement {
                labels: vec!["offending".to_owned()],
                side: Side::Main,
                about: scope.relation.clone(),
                sql: sql!(
                    "select count(*)::text from {} where {}",
                    scope.relation,
                    scope.condition(Some(&offending))
                ),
            }
        } else {
            Aggregate::count("offending", &scope, Some(offending.clone()))
        });
        let key = self.table.row_key(self.key)?;
        Ok(Ask {
            measures,
            evidence: vec![
                Evidence::rows("offending", &scope, key, &offending).showing(self.values),
            ],
            ..Ask::default()
        })
    }
}

/// How a [`RowRule`] is judged by a sample.
pub fn rows_by_sample(bound: AtMost, nulls: Nulls) -> Rule {
    let checked = match nulls {
        Nulls::Ignore => "present",
        Nulls::Offend => "rows",
    };
    Rule::at_most(checked, bound)
}

/// Judges a [`RowRule`]: "10 rows GOOD" or "3 of 10 rows BAD".
pub fn judge_rows(
    measured: &Measured,
    bound: AtMost,
    nulls: Nulls,
    good: &str,
    bad: &str,
) -> Judgement {
    let (rows, present) = (measured.count("rows"), measured.count("present"));
    let offending = measured.count("offending");
    let checked = match nulls {
        Nulls::Ignore => present,
        Nulls::Offend => rows,
    };
    let mut message = if offending == 0 {
        format!("{} {good}", rows_of(checked, "row"))
    } else {
        format!("{} of {} {bad}", count(offending), rows_of(checked, "row"))
    };
    let without = rows.saturating_sub(present);
    if without > 0 {
        message.push_str(&match nulls {
            Nulls::Ignore => format!("; {} with null not looked at", rows_of(without, "row")),
            Nulls::Offend => format!("; {} with null", rows_of(without, "row")),
        });
    }
    Judgement {
        verdict: if checked == 0 {
            Verdict::Empty
        } else {
            bound.level(offending, checked).into()
        },
        rows_checked: Some(checked),
        rows_offending: Some(offending),
        measured: Figure::rows(offending),
        threshold: bound.bounds(),
        message,
        findings: Vec::new(),
    }
}

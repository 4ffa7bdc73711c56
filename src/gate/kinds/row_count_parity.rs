//! Kind `row_count_parity`.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error;
use crate::gate::catalog::Side;
use crate::gate::fields::{SqlText, TableName};
use crate::gate::mapping::Mapping;
use crate::gate::threshold::{Amount, Bounds, count, rows_of};
use crate::gate::{
    Aggregate, Ask, AuthorCheck, Figure, Finding, Judgement, Kind, Known, Measured, Needs, OnEmpty,
    Recheck, Scope, Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::Relation;

use super::Definition;

mod groups;
mod mapped;

/// Do two relations hold the same number of rows? One pair with `table` and `against`, or many
/// with `map`, where on both sides several tables may stand for their sum. With `group_by` each
/// group of the pair is compared for itself, its values as text, and a group that only one side has
/// is named; of more than 20,000 groups none is compared and the gate is errored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RowCountParity {
    /// The table under check.
    table: Option<TableName>,
    /// The table that it must equal.
    against: Option<TableName>,
    /// Many pairs: the table under check (or several, as `a + b`), and the table (or the list of
    /// tables, summed) it must equal.
    #[serde(default)]
    map: BTreeMap<String, OneOrMore>,
    /// In place of these, a file that names pairs of tables, or whole schemas, from the folder of the gate
    /// file; among gates it is called `NAME.mapping.toml`. Under `[tables]` stand `"new.games" =
    /// "old.games"` or `"new.*" = "old.*"`, the tables under check first; `exclude = ["old.tmp_*"]` leaves
    /// tables of whole schemas out. Each pair is held to the tolerance, and a table that only one side
    /// has fails the gate.
    mapping: Option<Mapping>,
    /// The configured target that the other side is read from; the same database where nothing is said.
    against_target: Option<String>,
    /// Columns that form groups, the same on both sides.
    #[serde(default)]
    group_by: Vec<String>,
    /// How far apart the two, or each of their groups, may be: a count, or a share of the other side;
    /// 0 where nothing is said.
    tolerance: Option<Amount>,
    /// For two databases that are not read at one moment, where what is written to one arrives at the
    /// other later: when the sides differ, they are counted again, such as
    /// `recheck = { times = 3, wait = "2s" }`. The report says how often, and what differed at first.
    recheck: Option<Recheck>,
    /// Only rows of both sides for which this SQL condition holds.
    r#where: Option<SqlText>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(untagged)]
enum OneOrMore {
    One(TableName),
    More(Vec<TableName>),
}

/// Tables and what their sum must equal.
struct Pair<'a> {
    tables: Vec<TableName>,
    against: Vec<&'a TableName>,
}

/// The tables of `a + b`.
fn summed(text: &str) -> Result<Vec<TableName>, String> {
    let mut quoted = false;
    let parts = text.split(|c| {
        quoted ^= c == '"';
        c == '+' && !quoted
    });
    parts
        .map(|part| Relation::parse(part).map(TableName))
        .collect()
}

/// The tables as a person writes their sum.
fn readable<'a>(tables: impl IntoIterator<Item = &'a TableName>) -> String {
    let names: Vec<String> = tables.into_iter().map(|name| name.0.readable()).collect();
    names.join(" + ")
}

impl RowCountParity {
    fn pairs(&self) -> Vec<Pair<'_>> {
        let single = self
            .table
            .as_ref()
            .zip(self.against.as_ref())
            .map(|(table, against)| Pair {
                tables: vec![table.clone()],
                against: vec![against],
            });
        let mapped = self.map.iter().filter_map(|(table, against)| {
            Some(Pair {
                tables: summed(table).ok()?,
                against: match against {
                    OneOrMore::One(one) => vec![one],
                    OneOrMore::More(more) => more.iter().collect(),
                },
            })
        });
        single.into_iter().chain(mapped).collect()
    }

    fn other_side(&self) -> Side {
        self.against_target.clone().map_or(Side::Main, Side::Other)
    }

    fn scope(&self, side: Side, table: &TableName, known: &Known<'_>) -> error::Result<Scope> {
        Ok(Scope {
            relation: known.on(&side).relation(&table.0)?.relation.clone(),
            side,
            filter: self.r#where.as_ref().map(|SqlText(author)| author.clone()),
            sample: None,
        })
    }

    /// The names of both sides of the one pair that groups are compared of.
    fn names(&self) -> (String, String) {
        let name = |table: &Option<TableName>| {
            table
                .as_ref()
                .map_or_else(String::new, |name| name.0.readable())
        };
        let target = self.against_target.iter();
        let there: String = target.map(|target| format!(" of {target}")).collect();
        (name(&self.table), format!("{}{there}", name(&self.against)))
    }

    fn tolerance(&self) -> Amount {
        self.tolerance.unwrap_or(Amount::Rows(0))
    }
}

impl Definition for RowCountParity {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for RowCountParity {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let one_pair = (&self.table, &self.against, self.map.is_empty());
        match (one_pair, &self.mapping) {
            ((Some(_), Some(_), true) | (None, None, false), None) => {}
            (_, None) => problems.push(Problem::new(
                "table",
                "a `row_count_parity` gate has either `table` and `against`, or `map`, or `mapping`",
            )),
            (_, Some(_)) => problems.extend(Mapping::problems([
                ("table", self.table.is_some()),
                ("against", self.against.is_some()),
                ("map", !self.map.is_empty()),
                ("group_by", !self.group_by.is_empty()),
                ("where", self.r#where.is_some()),
            ])),
        }
        if !self.group_by.is_empty() && !self.map.is_empty() {
            problems.push(Problem::new(
                "group_by",
                "`group_by` goes with `table` and `against`, not with `map`",
            ));
        }
        problems.extend(Recheck::problems(
            self.recheck,
            self.against_target.is_some(),
        ));
        for (table, against) in &self.map {
            if let Err(why) = summed(table) {
                problems.push(Problem::new("map", why));
            }
            if matches!(against, OneOrMore::More(list) if list.is_empty()) {
                problems.push(Problem::new(
                    "map",
                    format!("`{table}` stands against no table"),
                ));
            }
        }
        problems
    }

    fn needs(&self) -> Needs {
        if let Some(mapping) = &self.mapping {
            return mapping.needs(&self.other_side());
        }
        let mut needs = Needs::default();
        for pair in self.pairs() {
            for table in pair.tables {
                if let Some(SqlText(author)) = &self.r#where {
                    needs.checks.push(AuthorCheck {
                        field: "where",
                        side: Side::Main,
                        author: author.clone(),
                        statement: sql!("select from {} where ({})", table.0, author),
                    });
                }
                needs.relations.push((Side::Main, table.0));
            }
            for against in pair.against {
                needs.relations.push((self.other_side(), against.0.clone()));
            }
        }
        needs
    }

    fn ask(&self, known: &Known<'_>) -> error::Result<Ask> {
        if let Some(mapping) = &self.mapping {
            return Ok(mapped::ask(mapping, &self.other_side(), known));
        }
        let mut ask = Ask::default();
        if let (Some(table), Some(against), false) =
            (&self.table, &self.against, self.group_by.is_empty())
        {
            let columns = |side: &Side, table: &TableName| {
                let info = known.on(side).relation(&table.0)?;
                info.columns_named(&self.group_by)
            };
            let ours = columns(&Side::Main, table)?;
            let theirs = columns(&self.other_side(), against)?;
            let is_masked = ours.iter().zip(&theirs);
            let is_masked = is_masked.map(|(own, other)| own.is_masked || other.is_masked);
            let is_masked: Vec<bool> = is_masked.collect();
            for (name, table, side, columns) in [
                ("table", table, Side::Main, ours),
                ("against", against, self.other_side(), theirs),
            ] {
                let scope = self.scope(side, table, known)?;
                let columns = columns.into_iter().zip(is_masked.iter().copied());
                let columns: Vec<groups::GroupColumn<'_>> = columns.collect();
                ask.measures.push(groups::ask(name, &scope, &columns));
            }
            return Ok(ask);
        }
        for (index, pair) in self.pairs().iter().enumerate() {
            for (part, table) in pair.tables.iter().enumerate() {
                let scope = self.scope(Side::Main, table, known)?;
                let label = format!("table {index}.{part}");
                ask.measures.push(Aggregate::count(label, &scope, None));
            }
            for (part, against) in pair.against.iter().enumerate() {
                let scope = self.scope(self.other_side(), against, known)?;
                ask.measures.push(Aggregate::count(
                    format!("against {index}.{part}"),
                    &scope,
                    None,
                ));
            }
        }
        Ok(ask)
    }

    fn ask_more(&self, _known: &Known<'_>, measured: &Measured) -> error::Result<Option<Ask>> {
        if !self.group_by.is_empty() {
            let (table, against) = self.names();
            groups::check(measured, (&table, &against))?;
        }
        Ok(None)
    }

    fn recheck(&self) -> Option<Recheck> {
        self.recheck
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        if self.mapping.is_some() {
            return mapped::judge(measured, self.tolerance());
        }
        if !self.group_by.is_empty() {
            let (table, against) = self.names();
            return groups::judge(
                measured,
                &self.group_by,
                (&table, &against),
                self.tolerance(),
            );
        }
        let pairs = self.pairs();
        let (mut checked, mut apart, mut is_wrong, mut expected_rows) = (0, 0, false, 0);
        let mut findings = Vec::new();
        for (index, pair) in pairs.iter().enumerate() {
            let sum = |side: &str, parts: usize| -> u64 {
                let counts =
                    (0..parts).map(|part| measured.count(&format!("{side} {index}.{part}")));
                counts.sum()
            };
            let rows = sum("table", pair.tables.len());
            let expected = sum("against", pair.against.len());
            checked += rows;
            expected_rows += expected;
            let difference = rows.abs_diff(expected);
            apart += difference;
            let is_failure = self.tolerance().is_exceeded(difference, expected);
            is_wrong |= is_failure;
            if difference > 0 {
                findings.push(Finding {
                    what: format!(
                        "{} holds {}, {} {}",
                        readable(&pair.tables),
                        rows_of(rows, "row"),
                        readable(pair.against.iter().copied()),
                        count(expected)
                    ),
                    is_failure,
                    repair: None,
                });
            }
        }
        let verdict = if checked == 0 && expected_rows == 0 {
            Verdict::Empty
        } else if is_wrong {
            Verdict::Failed
        } else {
            Verdict::Passed
        };
        Judgement {
            verdict,
            rows_checked: Some(checked),
            rows_offending: Some(apart),
            measured: Figure::rows(apart),
            threshold: Bounds {
                fail: Some(format!("at most {} apart", self.tolerance())),
                warn: None,
            },
            message: if apart == 0 {
                format!(
                    "{} equal on both sides of {}",
                    rows_of(checked, "row"),
                    rows_of(pairs.len() as u64, "pair")
                )
            } else {
                findings
                    .first()
                    .map_or_else(String::new, |first: &Finding| match findings.len() {
                        1 => first.what.clone(),
                        n => format!("{}; {} more", first.what, n - 1),
                    })
            },
            findings,
        }
    }

    fn rows_acceptable(&self, measured: &Measured, judgement: &Judgement) -> Option<u64> {
        // The findings say where the rows are; a table that is missing is more than its rows.
        let mut told = measured.findings.iter();
        if told.any(|finding| finding.is_failure) {
            return None;
        }
        judgement.rows_offending.filter(|rows| *rows > 0)
    }
}

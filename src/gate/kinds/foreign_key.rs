//! Kind `foreign_key`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{ForeignKey, KeyColumn, Side};
use crate::gate::fields::{Reference, SqlText, TableName};
use crate::gate::threshold::{Amount, AtMost, count, rows_of};
use crate::gate::{
    Aggregate, Ask, Evidence, Figure, Finding, Judgement, Kind, Known, Measure, Measured, Needs,
    OnEmpty, Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Ident, Relation, Sql};

use super::Definition;
use super::shared::{scope_needs, scope_of};

/// Do references hold? A row whose columns are all present and match no row of the referenced
/// table is an orphan. A row with a null among them refers to nothing, as in SQL's own MATCH
/// SIMPLE. Orphans are always counted, never inferred from a constraint: one whose triggers were
/// off during a load can be valid and broken.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForeignKeyHolds {
    /// The referencing table.
    table: TableName,
    /// Its columns.
    #[schemars(length(min = 1))]
    columns: Vec<String>,
    /// What they refer to: `schema.table(column, …)`, or `schema.table` for its primary key.
    references: Reference,
    /// Only rows of the referencing table for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// What else must be so beside that references hold; nothing where nothing is said.
    #[serde(default)]
    require: Vec<Requirement>,
    /// Fails above this many orphans, or this share of referencing rows; 0 where nothing is said.
    at_most: Option<Amount>,
    /// Warns above this.
    warn_above: Option<Amount>,
}

/// Something a foreign key can be required to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Requirement {
    /// There is a constraint.
    Declared,
    /// Its existing rows were checked.
    Valid,
    /// Its triggers fire.
    Enforced,
    /// An index leads with the referencing columns.
    Indexed,
    /// Both sides have the same types.
    SameType,
}

impl Definition for ForeignKeyHolds {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for ForeignKeyHolds {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.columns.is_empty() {
            problems.push(Problem::new("columns", "`columns` names no column"));
        }
        let referenced = self.references.columns.len();
        if referenced > 0 && referenced != self.columns.len() {
            problems.push(Problem::new(
                "references",
                format!("{} columns refer to {referenced}", self.columns.len()),
            ));
        }
        problems
    }

    fn needs(&self) -> Needs {
        let mut needs = scope_needs(&self.table.0, self.r#where.as_ref());
        needs
            .relations
            .push((Side::Main, self.references.table.clone()));
        needs
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let catalog = known.catalog();
        let table = catalog.relation(&self.table.0)?;
        let target = catalog.relation(&self.references.table)?;
        let own = table.columns_named(&self.columns)?;
        let referenced = if self.references.columns.is_empty() {
            &target.primary_key
        } else {
            &self.references.columns
        };
        if referenced.len() != self.columns.len() {
            return Err(Error::new(
                ErrorKind::Database,
                format!(
                    "the primary key of `{}` has {} columns, `columns` has {}",
                    target.relation.readable(),
                    referenced.len(),
                    self.columns.len()
                ),
            )
            .help("name the referenced columns: references = \"schema.table(column)\""));
        }
        let theirs = target.columns_named(referenced)?;
        let scope = scope_of(table, self.r#where.as_ref());
        let qualified = |name: &str| sql!("{}.{}", table.relation, Ident::new(name));
        let present = Sql::join(
            " and ",
            self.columns
                .iter()
                .map(|name| sql!("{} is not null", qualified(name))),
        );
        let matching = Sql::join(
            " and ",
            self.columns
                .iter()
                .zip(referenced)
                .map(|(own, other)| sql!("p.{} = {}", Ident::new(other), qualified(own))),
        );
        let orphan = sql!(
            "{} and not exists (select from {} p where {})",
            present,
            target.relation,
            matching
        );
        let columns = Sql::join(", ", self.columns.iter().map(Ident::new));
        let mut key: Vec<KeyColumn> = table.row_key(&[])?;
        key.retain(|column| !self.columns.contains(&column.name));
        key.extend(self.columns.iter().map(KeyColumn::new));
        let declared = catalog.foreign_keys.iter().find(|key| {
            key.table == table.relation
                && key.references == target.relation
                && key.columns == self.columns
                && &key.referenced_columns == referenced
        });
        let is_indexed = table.indexes.iter().any(|index| {
            index.len() >= self.columns.len()
                && self
                    .columns
                    .iter()
                    .all(|column| index[..self.columns.len()].contains(column))
        });
        let types_differ = own
            .iter()
            .zip(&theirs)
            .find(|(a, b)| a.type_name != b.type_name);
        let types_differ = types_differ.map(|(a, b)| {
            format!(
                "`{}` is {}, `{}` is {}",
                a.name, a.type_name, b.name, b.type_name
            )
        });
        Ok(Ask {
            measures: vec![
                Aggregate::count("rows", &scope, None),
                Aggregate::count("referencing", &scope, Some(present)),
                Measure::Statement {
                    labels: vec!["orphans".to_owned(), "keys".to_owned()],
                    side: Side::Main,
                    about: table.relation.clone(),
                    sql: sql!(
                        "select count(*)::text, count(distinct ({}))::text from {} where {}",
                        columns,
                        scope.relation,
                        scope.condition(Some(&orphan))
                    ),
                },
            ],
            evidence: vec![Evidence::rows("orphans", &scope, &key, &orphan)],
            findings: self.findings(
                &table.relation,
                &target.relation,
                referenced,
                declared,
                is_indexed,
                types_differ.as_deref(),
            ),
        })
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let referencing = measured.count("referencing");
        let orphans = measured.count("orphans");
        let bound = AtMost::new(self.at_most, self.warn_above);
        let failures = measured
            .findings
            .iter()
            .filter(|finding| finding.is_failure)
            .count();
        let verdict = if failures > 0 {
            Verdict::Failed
        } else if referencing == 0 {
            Verdict::Empty
        } else {
            bound.level(orphans, referencing).into()
        };
        let mut message = if orphans == 0 {
            format!(
                "{} refer to a row that is there",
                rows_of(referencing, "row")
            )
        } else {
            format!(
                "{} of {} are orphans, over {}",
                count(orphans),
                rows_of(referencing, "row"),
                rows_of(measured.count("keys"), "key")
            )
        };
        if failures > 0 {
            message.push_str(&format!(
                "; {} about the constraint",
                rows_of(failures as u64, "finding")
            ));
        }
        Judgement {
            verdict,
            rows_checked: Some(referencing),
            rows_offending: Some(orphans),
            measured: Figure::rows(orphans),
            threshold: bound.bounds(),
            message,
            findings: measured.findings.clone(),
        }
    }
}

impl ForeignKeyHolds {
    /// What the catalog says of the constraint, as far as it is required.
    fn findings(
        &self,
        table: &Relation,
        target: &Relation,
        referenced: &[String],
        declared: Option<&ForeignKey>,
        is_indexed: bool,
        types_differ: Option<&str>,
    ) -> Vec<Finding> {
        let columns = Sql::join(", ", self.columns.iter().map(Ident::new));
        let theirs = Sql::join(", ", referenced.iter().map(Ident::new));
        let failure = |what: String, repair: Option<Sql>| Finding {
            what,
            is_failure: true,
            repair: repair.map(|sql| sql.as_str().to_owned()),
        };
        let mut findings = Vec::new();
        for requirement in &self.require {
            let add = || {
                sql!(
                    "alter table {} add foreign key ({}) references {} ({})",
                    table,
                    columns,
                    target,
                    theirs
                )
            };
            let found = match (requirement, declared) {
                (Requirement::Declared | Requirement::Valid | Requirement::Enforced, None) => Some(
                    failure("no foreign key is declared".to_owned(), Some(add())),
                ),
                (Requirement::Valid, Some(key)) if !key.is_valid => Some(failure(
                    format!("the foreign key `{}` is NOT VALID", key.name),
                    Some(sql!(
                        "alter table {} validate constraint {}",
                        table,
                        Ident::new(key.name.clone())
                    )),
                )),
                (Requirement::Enforced, Some(key)) if !key.is_enforced => Some(failure(
                    format!(
                        "the triggers of the foreign key `{}` are disabled",
                        key.name
                    ),
                    Some(sql!("alter table {} enable trigger all", table)),
                )),
                (Requirement::Indexed, _) if !is_indexed => Some(failure(
                    "no index leads with the referencing columns".to_owned(),
                    Some(sql!("create index on {} ({})", table, columns)),
                )),
                (Requirement::SameType, _) => {
                    types_differ.map(|what| failure(format!("the types differ: {what}"), None))
                }
                _ => None,
            };
            if let Some(found) = found.filter(|found| !findings.contains(found)) {
                findings.push(found);
            }
        }
        findings
    }
}

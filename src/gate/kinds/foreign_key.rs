//! Kind `foreign_key`.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::catalog::{ForeignKey, RelationInfo};
use crate::gate::fields::{Reference, SqlText, TableName};
use crate::gate::sampling::Rule;
use crate::gate::threshold::{Amount, AtMost, count, rows_of};
use crate::gate::{
    Ask, Figure, Judgement, Kind, Known, Measured, Needs, OnEmpty, Proof, Values, Verdict,
};
use crate::source::Problem;

use super::Definition;
use super::shared::{ask_proved, judge_proved, scope_needs, scope_of};

mod implied;
mod key;
mod proved;
mod repair;

use key::{Key, Requirement};
use proved::Proved;

/// The label of the rows that refer to something, where a gate has one key.
const REFERENCING: &str = "referencing ";

/// Do references hold? A row whose columns are all present and match no row of the referenced
/// table is an orphan. A row with a null among them refers to nothing, as in SQL's own MATCH
/// SIMPLE; under MATCH FULL a row of which only some columns are null is offending too. Orphans are
/// counted, not inferred from a constraint, as one whose triggers were off during a load can be valid
/// and broken; `--trust-constraints` takes the word of a valid one between two ordinary tables, and the
/// report names it. With `schemas` in place of `table` every declared foreign key of those
/// schemas is looked at, and every column `x_id` or `x_key` that a name alone makes a reference to a
/// table `x` or `xs` with a primary key of one column. Each finding is named with the SQL that
/// repairs it.
///
/// What becomes of orphans only somebody can say who knows the data. Their repair, run as it is, shows what
/// they refer to and changes nothing; to let them refer to nothing, where their columns may be null, and to
/// delete them, with all that `ON DELETE CASCADE` takes along, stand below it as comments, one of which to
/// choose. A type is made the one that is referred to; where that could round or cut a value, the statement is a
/// comment below one that shows what it would change. It rewrites the table under its strongest lock, and is
/// refused while a view reads the column.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ForeignKeyHolds {
    /// The referencing table; or else `schemas`.
    table: Option<TableName>,
    /// Its columns.
    #[serde(default)]
    columns: Vec<String>,
    /// What they refer to: `schema.table(column, …)`, or `schema.table` for its primary key.
    references: Option<Reference>,
    /// All foreign keys of the tables in the schemas that match, `*` standing for any text.
    #[serde(default)]
    schemas: Vec<String>,
    /// What is not looked at in `schemas`: `schema.table` or `schema.table.column`, `*` standing for
    /// any text.
    #[serde(default)]
    allow: Vec<String>,
    /// Only rows of the referencing table for which this SQL condition holds.
    r#where: Option<SqlText>,
    /// Whether nulls in some of several columns offend: `simple` or `full`; as the constraint is
    /// declared where nothing is said, and `simple` where there is none.
    r#match: Option<Match>,
    /// What else must be so beside that references hold: `declared`, `valid`, `enforced`, `indexed`,
    /// `same_type`. Where nothing is said: nothing for `table`, everything for `schemas`. What
    /// `schemas` finds beside that is told.
    require: Option<Vec<Requirement>>,
    /// Fails above this many offending rows, or this share of referencing rows; 0 where nothing is said.
    at_most: Option<Amount>,
    /// Warns above this.
    warn_above: Option<Amount>,
}

/// What a null in some of several columns means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Match {
    /// The row refers to nothing.
    Simple,
    /// The row is offending.
    Full,
}

impl Definition for ForeignKeyHolds {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for ForeignKeyHolds {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = AtMost::new(self.at_most, self.warn_above).problems();
        if self.table.is_some() != self.schemas.is_empty() {
            problems.push(Problem::new(
                "schemas",
                "a `foreign_key` gate has either `table` or `schemas`",
            ));
        } else if self.table.is_none() {
            let is_single = !self.columns.is_empty()
                || self.references.is_some()
                || self.r#where.is_some()
                || self.r#match.is_some();
            if is_single {
                problems.push(Problem::new(
                    "schemas",
                    "`columns`, `references`, `where` and `match` go with `table`, not with `schemas`",
                ));
            }
        } else {
            if self.columns.is_empty() {
                problems.push(Problem::new("columns", "`columns` names no column"));
            }
            let referenced = self.references.as_ref().map(|to| to.columns.len());
            match referenced {
                None => problems.push(
                    Problem::new("table", "`references` is missing")
                        .help("write references = \"schema.table(column)\""),
                ),
                Some(n) if n > 0 && n != self.columns.len() => problems.push(Problem::new(
                    "references",
                    format!("{} columns refer to {n}", self.columns.len()),
                )),
                Some(_) => {}
            }
            if !self.allow.is_empty() {
                problems.push(Problem::new(
                    "allow",
                    "`allow` goes with `schemas`, not with `table`",
                ));
            }
        }
        problems
    }

    fn needs(&self) -> Needs {
        let Some(table) = &self.table else {
            return Needs {
                schemas: self.schemas.clone(),
                ..Needs::default()
            };
        };
        let mut needs = scope_needs(&table.0, self.r#where.as_ref());
        let target = self.references.iter().map(|to| to.table.clone());
        needs
            .relations
            .extend(target.map(|to| (crate::gate::catalog::Side::Main, to)));
        needs
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let catalog = known.catalog();
        match (&self.table, &self.references) {
            (Some(table), Some(references)) => {
                self.ask_one(known, catalog.relation(&table.0)?, references)
            }
            _ => self.ask_all(known),
        }
    }

    fn sampling(&self) -> Result<Rule, Problem> {
        if self.table.is_none() {
            return Err(Problem::new(
                "sample",
                "`sample` goes with `table`, not with `schemas`",
            ));
        }
        let bound = AtMost::new(self.at_most, self.warn_above);
        Ok(Rule::at_most(REFERENCING, bound))
    }

    fn names_rows(&self) -> bool {
        self.table.is_some()
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        if let (Some(_), Some(proof)) = (&self.table, &measured.proof) {
            let bounds = AtMost::new(self.at_most, self.warn_above).bounds();
            let (good, none) = ("refer to a row that is there", |_| Figure::rows(0));
            return judge_proved(measured, REFERENCING, proof, good, none, bounds);
        }
        let proved = Proved::of(measured);
        let orphans = measured.sum("orphans ");
        let keys = measured.counts("orphans ").count() as u64;
        // Of which rows something is told: those that were looked at, and with a share all that it is of.
        let referencing = match self.has_share() {
            true => measured.sum(REFERENCING),
            false => {
                let looked_at = measured.counts("orphans ");
                looked_at
                    .map(|(key, _)| measured.count(&format!("{REFERENCING}{key}")))
                    .sum()
            }
        };
        let bound = AtMost::new(self.at_most, self.warn_above);
        let failures = measured
            .findings
            .iter()
            .filter(|finding| finding.is_failure)
            .count();
        let verdict = if failures > 0 {
            Verdict::Failed
        } else if referencing == 0 && proved.is_empty() {
            Verdict::Empty
        } else {
            bound.level(orphans, referencing).into()
        };
        let mut findings = measured.findings.clone();
        let with_some = |(_, n): &(&str, u64)| *n > 0;
        let broken = measured.counts("orphans ").filter(with_some);
        let broken: Vec<(&str, u64)> = broken.collect();
        for (key, _) in &broken {
            // Of one key, every finding is about it.
            let of_key = findings
                .iter_mut()
                .filter(|finding| key.is_empty() || finding.what.starts_with(&format!("{key}: ")));
            of_key.for_each(|finding| key::with_orphans(measured, finding, None));
        }
        for (key, n) in measured.counts("implied ").filter(with_some) {
            let mut of_key = findings.iter_mut();
            if let Some(finding) = of_key.find(|finding| finding.what.starts_with(key)) {
                key::with_orphans(measured, finding, Some(n));
            }
        }
        let orphaned = broken.iter();
        let orphaned = orphaned.map(|(key, n)| key::orphans(measured, key, *n));
        findings.splice(0..0, orphaned);
        findings.extend(proved.findings());
        let mut message = if self.table.is_none() {
            if keys == 0 && !proved.is_empty() {
                proved.alone()
            } else if orphans == 0 {
                format!(
                    "{} refer to a row that is there, through {}{}",
                    rows_of(referencing, "row"),
                    rows_of(keys + proved.empty, "foreign key"),
                    proved.beside()
                )
            } else {
                format!(
                    "{} of {} are orphans, in {} of {}{}",
                    count(orphans),
                    rows_of(referencing, "row"),
                    count(broken.len() as u64),
                    rows_of(keys + proved.empty, "foreign key"),
                    proved.beside()
                )
            }
        } else if orphans == 0 {
            format!(
                "{} refer to a row that is there",
                rows_of(referencing, "row")
            )
        } else {
            // How many keys the orphans of a sample have says nothing of the rest.
            let over = match measured.sum("keys ") {
                0 => String::new(),
                keys => format!(", over {}", rows_of(keys, "key")),
            };
            let rows = rows_of(referencing, "row");
            format!("{} of {rows} are orphans{over}", count(orphans))
        };
        let partial = measured.sum("partial ");
        if partial > 0 {
            message.push_str(&format!("; {} with only some columns null", count(partial)));
        }
        if failures > 0 {
            message.push_str(&format!(
                "; {} about the constraint{}",
                rows_of(failures as u64, "finding"),
                if self.table.is_none() { "s" } else { "" }
            ));
        }
        Judgement {
            verdict,
            rows_checked: match keys {
                0 => proved.rows,
                _ => Some(referencing),
            },
            rows_offending: Some(orphans),
            measured: Figure::rows(orphans),
            threshold: bound.bounds(),
            message,
            findings,
        }
    }
}

impl ForeignKeyHolds {
    /// One key, which may or may not be declared.
    fn ask_one(&self, known: &Known<'_>, table: &RelationInfo, to: &Reference) -> Result<Ask> {
        let (catalog, proof) = (known.catalog(), known.proof);
        let values = known.values(table, &self.columns)?;
        let target = catalog.relation(&to.table)?;
        table.columns_named(&self.columns)?;
        let referenced = if to.columns.is_empty() {
            &target.primary_key
        } else {
            &to.columns
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
        target.columns_named(referenced)?;
        let is_this = |key: &&ForeignKey| {
            key.table == table.relation
                && key.references.as_ref() == Some(&target.relation)
                && key.columns == self.columns
                && &key.referenced_columns == referenced
        };
        let declared = catalog.foreign_keys.iter().find(is_this);
        let key = Key {
            table,
            columns: &self.columns,
            target,
            referenced,
            declared,
            is_full: match self.r#match {
                Some(asked) => asked == Match::Full,
                None => declared.is_some_and(|key| key.is_match_full),
            },
        };
        let required = self.require.as_deref().unwrap_or_default();
        let mut findings = key.findings(required, "");
        findings.retain(|found| found.finding.is_failure);
        let filter = self.r#where.as_ref();
        let trusted = key.trusted().filter(|_| proof >= Proof::Declared);
        let mut ask = match trusted.filter(|_| findings.is_empty()) {
            Some(name) => {
                let scope = scope_of(table, filter);
                ask_proved(REFERENCING, &scope, &self.columns, name.to_owned())
            }
            None => key.ask(filter, None, values, known.sample)?,
        };
        findings
            .into_iter()
            .for_each(|found| found.add_to(&mut ask));
        Ok(ask)
    }

    /// Every declared key of the schemas, and those that a name implies.
    fn ask_all(&self, known: &Known<'_>) -> Result<Ask> {
        let catalog = known.catalog();
        let required = self.require.as_deref().unwrap_or(Requirement::ALL);
        let is_in = |schema: &str| {
            let mut patterns = self.schemas.iter();
            patterns.any(|pattern| crate::gate::catalog::matches(pattern, schema))
        };
        let is_allowed = |table: &RelationInfo, columns: &[String]| {
            let name = table.relation.readable();
            self.allow.iter().any(|pattern| {
                let matches = |text: &str| crate::gate::catalog::matches(pattern, text);
                matches(&name) || columns.iter().any(|c| matches(&format!("{name}.{c}")))
            })
        };
        let mut ask = Ask::default();
        let mut keys = Vec::new();
        for declared in &catalog.foreign_keys {
            let schema = declared.table.schema.as_ref();
            if !schema.is_some_and(|schema| is_in(schema.as_str())) {
                continue;
            }
            let table = catalog.relation(&declared.table)?;
            if is_allowed(table, &declared.columns) {
                continue;
            }
            let target = declared.references.as_ref();
            let Some(target) = target.and_then(|target| catalog.relation(target).ok()) else {
                ask.findings.push(key::missing_target(declared));
                continue;
            };
            keys.push(Key {
                table,
                columns: &declared.columns,
                target,
                referenced: &declared.referenced_columns,
                declared: Some(declared),
                is_full: declared.is_match_full,
            });
        }
        let mut implied = implied::references(catalog, &self.schemas);
        implied.retain(|one| !is_allowed(one.table, std::slice::from_ref(&one.column.name)));
        let is_trusting = known.proof >= Proof::Declared;
        let trusted: Vec<Option<&str>> = keys
            .iter()
            .map(|key| key.trusted().filter(|_| is_trusting))
            .collect();
        let proofs: Option<Vec<&str>> = trusted.iter().copied().collect();
        let proofs = proofs.filter(|proofs| !proofs.is_empty() && implied.is_empty());
        let is_share = self.has_share() && proofs.is_none();
        ask.proof = proofs.map(|names| names.join(", "));
        for (key, constraint) in keys.iter().zip(trusted) {
            let name = key.name();
            ask.add(match constraint {
                Some(constraint) => proved::ask(key, constraint, is_share),
                None => key.ask(None, Some(&name), Values::default(), None)?,
            });
            for found in key.findings(required, &format!("{name}: ")) {
                found.add_to(&mut ask);
            }
        }
        let is_failure = required.contains(&Requirement::Declared);
        for implied in implied {
            implied.ask(is_failure, &mut ask);
        }
        Ok(ask)
    }

    /// Whether a threshold is a share of all rows.
    fn has_share(&self) -> bool {
        let mut levels = [self.at_most, self.warn_above].into_iter().flatten();
        levels.any(|level| matches!(level, Amount::Share { .. }))
    }
}

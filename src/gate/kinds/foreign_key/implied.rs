//! References that nobody declared and a name implies.

use crate::gate::catalog::{Catalog, Column, RelationInfo, RelationKind, Side};
use crate::gate::{Ask, Finding, Measure};
use crate::sql;

use super::key::{Found, Key, are_comparable};
use super::repair::of_orphans;

/// A column whose name says that it refers to a table.
pub(super) struct Implied<'a> {
    pub(super) table: &'a RelationInfo,
    pub(super) column: &'a Column,
    target: &'a RelationInfo,
}

/// Every column `x_id` or `x_key` of the schemas that is part of no declared key and whose `x` is a
/// table there, in the singular or the plural, with a primary key of one column of the same sort of
/// type. A table of the same schema comes before others; of several others none is meant.
pub(super) fn references<'a>(catalog: &'a Catalog, schemas: &'a [String]) -> Vec<Implied<'a>> {
    let is_table =
        |info: &&RelationInfo| matches!(info.kind, RelationKind::Table | RelationKind::Partitioned);
    let tables: Vec<&RelationInfo> = catalog.in_schemas(schemas).filter(is_table).collect();
    let mut found = Vec::new();
    for table in &tables {
        for column in &table.columns {
            let is_declared = catalog
                .foreign_keys
                .iter()
                .any(|key| key.table == table.relation && key.columns.contains(&column.name));
            let lower = column.name.to_lowercase();
            let stem = lower
                .strip_suffix("_id")
                .or_else(|| lower.strip_suffix("_key"));
            let Some(stem) = stem.filter(|stem| !stem.is_empty() && !is_declared) else {
                continue;
            };
            let candidates: Vec<&RelationInfo> = tables
                .iter()
                .copied()
                .filter(|target| {
                    target.relation != table.relation
                        && is_named(target.relation.name.as_str(), stem)
                        && holds(target, column)
                })
                .collect();
            let own = |target: &&&RelationInfo| target.relation.schema == table.relation.schema;
            let target = match (candidates.iter().find(own), candidates.as_slice()) {
                (Some(target), _) => target,
                (None, [only]) => only,
                (None, _) => continue,
            };
            found.push(Implied {
                table,
                column,
                target,
            });
        }
    }
    found
}

/// Whether a table's name is `stem`, in the singular or the plural.
fn is_named(table: &str, stem: &str) -> bool {
    let table = table.to_lowercase();
    table == stem
        || table == format!("{stem}s")
        || table == format!("{stem}es")
        || stem
            .strip_suffix('y')
            .is_some_and(|start| table == format!("{start}ies"))
}

/// Whether a table's primary key is one column that can be compared with `column`.
fn holds(target: &RelationInfo, column: &Column) -> bool {
    let [key] = target.primary_key.as_slice() else {
        return false;
    };
    target
        .column(key)
        .is_ok_and(|key| are_comparable(key, column))
}

impl Implied<'_> {
    /// Asks how many rows would be orphans, and finds that no key is declared.
    pub(super) fn ask(&self, is_failure: bool, ask: &mut Ask) {
        let columns = [self.column.name.clone()];
        let key = Key {
            table: self.table,
            columns: &columns,
            target: self.target,
            referenced: &self.target.primary_key,
            declared: None,
            is_full: false,
        };
        let relation = &self.table.relation;
        let unmatched = key.unmatched();
        ask.measures.push(Measure::Statement {
            labels: vec![format!("implied {}", key.name())],
            side: Side::Main,
            about: relation.clone(),
            sql: sql!(
                "select count(*)::text from {} where {}",
                relation,
                unmatched
            ),
        });
        let repair = key.declare();
        let unseen = key.declare_unseen();
        let with_orphans = unseen.unwrap_or_else(|| of_orphans(&key, &unmatched, &unmatched));
        let found = Found {
            with_orphans: Some(Some(with_orphans)),
            finding: Finding {
                what: format!(
                    "{}: the name implies a reference and no foreign key is declared",
                    key.name()
                ),
                is_failure,
                repair: repair.map(|sql| sql.as_str().to_owned()),
            },
        };
        found.add_to(ask);
    }
}

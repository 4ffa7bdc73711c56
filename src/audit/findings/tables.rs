//! What is wrong with single tables and schemas: leftovers, no primary key, no statistics.

use std::collections::{BTreeMap, BTreeSet};

use super::{Finding, Kind, Known, Severity};
use crate::audit::catalog::{Index, Table, TableKind};
use crate::audit::names::{leftover, undated, words};
use crate::audit::words::{plural, some_of};
use crate::gate::threshold::{count, rows_of};
use crate::sql;
use crate::sql::{Ident, Sql};

/// So many tables are named in one repairing statement.
const FEW_TABLES: usize = 10;

pub(super) fn find(known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    let names: BTreeSet<(&str, &str)> = known
        .catalog
        .tables
        .iter()
        .map(|table| (table.name.schema.as_str(), table.name.name.as_str()))
        .collect();
    for (at, table) in known.catalog.tables.iter().enumerate() {
        if table.kind == TableKind::View || table.is_partition {
            continue;
        }
        findings.extend(test_table(table, &names));
        if !table.disabled_triggers.is_empty() {
            findings.push(disabled_triggers(table));
        }
        if table.is_own() && table.primary_key.is_empty() {
            let indexes = known.indexes[at]
                .iter()
                .map(|index| &known.catalog.indexes[*index]);
            findings.push(no_primary_key(table, indexes));
        }
    }
    findings.extend(never_analyzed(known));
    findings.extend(empty_schemas(known));
    findings
}

/// A table whose name begins or ends with the word of a leftover, whose schema is named so, or that has
/// the name of another one and a date.
fn test_table(table: &Table, names: &BTreeSet<(&str, &str)>) -> Option<Finding> {
    let own = words(&table.name.name);
    let schema = words(&table.name.schema);
    let dated = undated(&table.name.name)
        .filter(|bare| names.contains(&(table.name.schema.as_str(), bare)));
    let why = match (leftover(&own), leftover(&schema), dated) {
        (Some(word), _, _) => format!("by its name (`{word}`)"),
        (None, Some(word), _) => format!("by its schema's name (`{word}`)"),
        (None, None, Some(bare)) => format!("by its name, a dated copy of `{bare}`"),
        (None, None, None) => return None,
    };
    let (severity, rows) = match (table.rows_estimated, table.rows()) {
        (None, 0) => (Severity::Info, "never analyzed".to_owned()),
        (None, rows) => (
            Severity::High,
            format!("never analyzed, {} by activity", rows_of(rows, "row")),
        ),
        (Some(0), _) => (Severity::Info, "no rows".to_owned()),
        (Some(rows), _) => (Severity::High, rows_of(rows, "row")),
    };
    let what = format!("a leftover {why}, {rows}");
    let object = table.name.to_string();
    let finding = Finding::new(
        Kind::TestTable,
        severity,
        object,
        vec![table.name.clone()],
        what,
    );
    let name = table.name.relation();
    Some(finding.repair(&match table.kind {
        TableKind::MaterializedView => sql!("drop materialized view {}", name),
        TableKind::Foreign => sql!("drop foreign table {}", name),
        TableKind::Table | TableKind::Partitioned | TableKind::View => sql!("drop table {}", name),
    }))
}

fn disabled_triggers(table: &Table) -> Finding {
    let what = format!(
        "{} switched off: {}",
        plural(table.disabled_triggers.len(), "trigger is", "triggers are"),
        some_of(&table.disabled_triggers, 5)
    );
    let object = table.name.to_string();
    let enable = table.disabled_triggers.iter().map(|trigger| {
        sql!(
            "alter table {} enable trigger {}",
            table.name.relation(),
            Ident::new(&**trigger)
        )
    });
    Finding::new(
        Kind::DisabledTrigger,
        Severity::High,
        object,
        vec![table.name.clone()],
        what,
    )
    .repair(&Sql::join("; ", enable))
}

fn no_primary_key<'a>(table: &Table, indexes: impl Iterator<Item = &'a Index>) -> Finding {
    let is_never_null = |column: &String| {
        table
            .column(column)
            .is_some_and(|column| !column.is_nullable)
    };
    let unique: Vec<&Index> = indexes
        .filter(|index| {
            index.is_unique
                && index.is_valid
                && index.predicate.is_none()
                && index.expressions.is_none()
        })
        .filter(|index| index.columns.iter().all(is_never_null))
        .collect();
    let object = table.name.to_string();
    let tables = vec![table.name.clone()];
    let Some(index) = unique.first() else {
        let what = format!(
            "{}, and nothing tells them apart",
            rows_of(table.rows(), "row")
        );
        return Finding::new(Kind::NoPrimaryKey, Severity::High, object, tables, what);
    };
    let what = format!(
        "`{}` could be it: unique and never null",
        index.columns.join(", ")
    );
    let finding = Finding::new(Kind::NoPrimaryKey, Severity::Info, object, tables, what);
    let promoted = unique
        .iter()
        .find(|index| !index.is_needed && table.kind == TableKind::Table);
    match promoted {
        Some(index) => finding.repair(&sql!(
            "alter table {} add primary key using index {}",
            table.name.relation(),
            Ident::new(&*index.name)
        )),
        None => finding.repair(&sql!(
            "alter table {} add primary key ({})",
            table.name.relation(),
            Sql::join(
                ", ",
                index.columns.iter().map(|column| Ident::new(&**column))
            )
        )),
    }
}

/// One finding per schema: tables with something in them of which the planner knows nothing.
fn never_analyzed(known: &Known<'_>) -> Vec<Finding> {
    let mut by_schema: BTreeMap<&str, (Vec<&Table>, usize)> = BTreeMap::new();
    let tables = known.catalog.tables.iter();
    for table in tables.filter(|table| table.kind == TableKind::Table) {
        let (unknown, all) = by_schema.entry(&table.name.schema).or_default();
        *all += 1;
        if table.rows_estimated.is_none() && table.rows_by_activity > 0 {
            unknown.push(table);
        }
    }
    by_schema
        .into_iter()
        .filter(|(_, (unknown, _))| !unknown.is_empty())
        .map(|(schema, (unknown, all))| {
            let names: Vec<String> = unknown
                .iter()
                .map(|table| table.name.name.clone())
                .collect();
            let what = format!(
                "{} of {}: {}",
                count(unknown.len() as u64),
                plural(all, "table", "tables"),
                some_of(&names, 5)
            );
            let tables = unknown.iter().map(|table| table.name.clone()).collect();
            let finding = Finding::new(
                Kind::NeverAnalyzed,
                Severity::Info,
                schema.to_owned(),
                tables,
                what,
            );
            if unknown.len() > FEW_TABLES {
                finding.repair(&sql!("analyze"))
            } else {
                let names = unknown.iter().map(|table| table.name.relation());
                finding.repair(&sql!("analyze {}", Sql::join(", ", names)))
            }
        })
        .collect()
}

fn empty_schemas(known: &Known<'_>) -> Vec<Finding> {
    let is_empty = |schema: &&crate::audit::Schema| {
        let relations = schema.tables
            + schema.partitions
            + schema.views
            + schema.materialized_views
            + schema.foreign_tables;
        // An unused `public` is how every database begins.
        relations == 0 && schema.sequences == 0 && schema.functions == 0 && schema.name != "public"
    };
    let schemas = known.catalog.schemas.iter().filter(is_empty);
    schemas
        .map(|schema| {
            let what = "no table, view, sequence or function".to_owned();
            let mut finding = Finding::new(
                Kind::EmptySchema,
                Severity::Info,
                schema.name.clone(),
                Vec::new(),
                what,
            );
            finding.schemas.insert(schema.name.clone());
            finding.repair(&sql!("drop schema {}", Ident::new(&*schema.name)))
        })
        .collect()
}

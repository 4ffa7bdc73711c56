//! Kind `schema_layout`.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use serde::de::{self, Deserializer};

use crate::error::Result;
use crate::gate::catalog::{Catalog, RelationInfo, RelationKind, Side, matches};
use crate::gate::fields::TableName;
use crate::gate::threshold::{Bounds, rows_of};
use crate::gate::{
    Ask, Figure, Finding, Judgement, Kind, Known, Measured, Needs, OnEmpty, Verdict,
};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Ident, Sql};

use super::Definition;

/// Is the database laid out as it should be? Which schemas, tables, columns, keys and indexes must
/// be there, which may and which must not, and which way foreign keys may go from schema to schema.
/// Every deviation is a finding, with SQL that mends it where that is safe. Partitions are not looked
/// at; their table is.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SchemaLayout {
    /// Schemas that must be there.
    #[serde(default)]
    schemas: Vec<String>,
    /// Schemas that may be there beside those of `schemas`, `*` standing for any text. Where it is
    /// given, and be it `[]`, any other schema is a finding; system schemas are left out.
    allow_schemas: Option<Vec<String>>,
    /// Tables and views that must not be there: `schema.table`, `*` standing for any text.
    #[serde(default)]
    forbid_tables: Vec<String>,
    /// Tables and views that must be there.
    #[serde(default)]
    require_tables: Vec<TableName>,
    /// Tables that must have a primary key: `schema.table`, `*` standing for any text.
    #[serde(default)]
    require_primary_key: Vec<String>,
    /// What single tables must have.
    #[serde(default)]
    require: Vec<Required>,
    /// Which way foreign keys may go, such as `["curated -> raw_data", "* -> operational"]`: a table
    /// of the first schema may refer to one of the second. Within a schema all may. Where it is given,
    /// and be it `[]`, any other key is a finding.
    flow: Option<Vec<Flow>>,
}

/// What one table must have.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Required {
    /// The table.
    table: TableName,
    /// Columns that must be there.
    #[serde(default)]
    columns: Vec<String>,
    /// Columns that must be there with a type, as SQL writes it: `{ day = "date" }`.
    #[serde(default)]
    types: BTreeMap<String, String>,
    /// The columns of its primary key, in their order.
    #[serde(default)]
    primary_key: Vec<String>,
    /// Lists of columns that an index must lead with, in their order.
    #[serde(default)]
    indexes: Vec<Vec<String>>,
    /// Lists of columns that a unique index must hold, in any order.
    #[serde(default)]
    unique: Vec<Vec<String>>,
}

/// From which schemas to which foreign keys may go.
#[derive(Debug)]
struct Flow {
    from: String,
    to: String,
}

impl<'de> Deserialize<'de> for Flow {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        match text.split_once("->") {
            Some((from, to)) if !from.trim().is_empty() && !to.trim().is_empty() => Ok(Self {
                from: from.trim().to_owned(),
                to: to.trim().to_owned(),
            }),
            _ => Err(de::Error::custom(format!(
                "`{text}` is no direction, expected for example \"curated -> raw_data\""
            ))),
        }
    }
}

impl JsonSchema for Flow {
    fn schema_name() -> Cow<'static, str> {
        "Flow".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`schema -> schema`, `*` standing for any text.",
            "type": "string",
            "pattern": "->"
        })
    }
}

impl Definition for SchemaLayout {
    const ON_EMPTY: OnEmpty = OnEmpty::Fail;
}

impl Kind for SchemaLayout {
    fn problems(&self) -> Vec<Problem> {
        let asks_nothing = self.schemas.is_empty()
            && self.allow_schemas.is_none()
            && self.forbid_tables.is_empty()
            && self.require_tables.is_empty()
            && self.require_primary_key.is_empty()
            && self.require.is_empty()
            && self.flow.is_none();
        if asks_nothing {
            vec![
                Problem::new(
                    "id",
                    "a `schema_layout` gate that asks for nothing cannot fail",
                )
                .help("give `schemas`, `forbid_tables`, `require_tables`, `require` or `flow`"),
            ]
        } else {
            Vec::new()
        }
    }

    fn needs(&self) -> Needs {
        let tables = self.require_tables.iter();
        let tables = tables.chain(self.require.iter().map(|required| &required.table));
        Needs {
            relations: tables.map(|table| (Side::Main, table.0.clone())).collect(),
            schemas: vec!["*".to_owned()],
            ..Needs::default()
        }
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let catalog = known.catalog();
        let mut found = Found::default();
        self.look_at_schemas(catalog, &mut found);
        for info in catalog.relations.values().filter(|info| !info.is_partition) {
            self.look_at_table(info, &mut found);
        }
        for table in &self.require_tables {
            found.require(catalog, table);
        }
        for required in &self.require {
            if let Some(info) = found.require(catalog, &required.table) {
                required.look_at(info, &mut found);
            }
        }
        self.look_at_keys(catalog, &mut found);
        Ok(Ask {
            findings: found.findings,
            known: vec![("looked at".to_owned(), Some(found.looked_at.to_string()))],
            ..Ask::default()
        })
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        let found = measured.findings.len() as u64;
        let looked_at = measured.count("looked at");
        Judgement {
            verdict: if found > 0 {
                Verdict::Failed
            } else if looked_at == 0 {
                Verdict::Empty
            } else {
                Verdict::Passed
            },
            rows_checked: None,
            rows_offending: None,
            measured: Figure::counted(found, "findings", "finding"),
            threshold: Bounds {
                fail: Some("no finding".to_owned()),
                warn: None,
            },
            message: match measured.findings.as_slice() {
                [] => format!("{} in order", rows_of(looked_at, "object")),
                [only] => only.what.clone(),
                [first, rest @ ..] => format!("{}; {} more", first.what, rest.len()),
            },
            findings: measured.findings.clone(),
        }
    }
}

impl SchemaLayout {
    fn look_at_schemas(&self, catalog: &Catalog, found: &mut Found) {
        for schema in &self.schemas {
            found.looked_at += 1;
            if !catalog.schemas.contains(schema) {
                found.add(
                    format!("the schema `{schema}` is missing"),
                    Some(sql!("create schema {}", Ident::new(schema.clone()))),
                );
            }
        }
        let Some(allowed) = &self.allow_schemas else {
            return;
        };
        for schema in &catalog.schemas {
            found.looked_at += 1;
            let may = self.schemas.contains(schema)
                || allowed.iter().any(|pattern| matches(pattern, schema));
            if !may {
                let holds = catalog
                    .relations
                    .iter()
                    .filter(|((name, _), info)| name == schema && !info.is_partition)
                    .count();
                found.add(
                    format!(
                        "the schema `{schema}`, which holds {}, is none of those that may be there",
                        rows_of(holds as u64, "table")
                    ),
                    None,
                );
            }
        }
    }

    fn look_at_table(&self, info: &RelationInfo, found: &mut Found) {
        let name = info.relation.readable();
        let is_one_of = |patterns: &[String]| patterns.iter().any(|p| matches(p, &name));
        if !self.forbid_tables.is_empty() {
            found.looked_at += 1;
            if is_one_of(&self.forbid_tables) {
                found.add(format!("the table {name} must not be there"), None);
            }
        }
        let is_table = matches!(info.kind, RelationKind::Table | RelationKind::Partitioned);
        if is_table && is_one_of(&self.require_primary_key) {
            found.looked_at += 1;
            if info.primary_key.is_empty() {
                found.add(format!("the table {name} has no primary key"), None);
            }
        }
    }

    fn look_at_keys(&self, catalog: &Catalog, found: &mut Found) {
        let Some(flow) = &self.flow else { return };
        for key in &catalog.foreign_keys {
            let Some(target) = &key.references else {
                continue;
            };
            found.looked_at += 1;
            let name = |schema: &Option<Ident>| {
                let schema = schema.as_ref();
                schema.map_or_else(String::new, |schema| schema.as_str().to_owned())
            };
            let (from, to) = (name(&key.table.schema), name(&target.schema));
            let is_allowed = from == to
                || flow
                    .iter()
                    .any(|flow| matches(&flow.from, &from) && matches(&flow.to, &to));
            if !is_allowed {
                found.add(
                    format!(
                        "the foreign key `{}` of {} goes from `{from}` to `{to}`, to {}",
                        key.name,
                        key.table.readable(),
                        target.readable()
                    ),
                    None,
                );
            }
        }
    }
}

impl Required {
    fn look_at(&self, info: &RelationInfo, found: &mut Found) {
        let name = info.relation.readable();
        let list = |columns: &[String]| {
            Sql::join(
                ", ",
                columns.iter().map(|column| Ident::new(column.clone())),
            )
        };
        for column in self.columns.iter().chain(self.types.keys()) {
            found.looked_at += 1;
            if info.column(column).is_err() {
                found.add(format!("{name} has no column `{column}`"), None);
            }
        }
        for (column, wanted) in &self.types {
            if let Ok(column) = info.column(column)
                && &column.type_name != wanted
            {
                found.add(
                    format!(
                        "{name}: `{}` is of type {}, not {wanted}",
                        column.name, column.type_name
                    ),
                    None,
                );
            }
        }
        if !self.primary_key.is_empty() {
            found.looked_at += 1;
            if info.primary_key != self.primary_key {
                let wanted = self.primary_key.join(", ");
                let is_missing = info.primary_key.is_empty();
                found.add(
                    if is_missing {
                        format!("{name} has no primary key, expected ({wanted})")
                    } else {
                        let own = info.primary_key.join(", ");
                        format!("the primary key of {name} is ({own}), not ({wanted})")
                    },
                    is_missing.then(|| {
                        sql!(
                            "alter table {} add primary key ({})",
                            info.relation,
                            list(&self.primary_key)
                        )
                    }),
                );
            }
        }
        for columns in &self.indexes {
            found.looked_at += 1;
            if !info.indexes.iter().any(|index| index.starts_with(columns)) {
                found.add(
                    format!("no index of {name} leads with ({})", columns.join(", ")),
                    Some(sql!(
                        "create index on {} ({})",
                        info.relation,
                        list(columns)
                    )),
                );
            }
        }
        for columns in &self.unique {
            found.looked_at += 1;
            let holds = |key: &Vec<String>| {
                key.len() == columns.len() && columns.iter().all(|column| key.contains(column))
            };
            if !info.unique_keys.iter().any(holds) {
                found.add(
                    format!("no unique index of {name} holds ({})", columns.join(", ")),
                    Some(sql!(
                        "create unique index on {} ({})",
                        info.relation,
                        list(columns)
                    )),
                );
            }
        }
    }
}

/// What was looked at, and what was found.
#[derive(Default)]
struct Found {
    looked_at: u64,
    findings: Vec<Finding>,
}

impl Found {
    fn add(&mut self, what: String, repair: Option<Sql>) {
        self.findings.push(Finding {
            what,
            is_failure: true,
            repair: repair.map(|sql| sql.as_str().to_owned()),
        });
    }

    /// The table, or a finding that it is missing.
    fn require<'a>(&mut self, catalog: &'a Catalog, table: &TableName) -> Option<&'a RelationInfo> {
        self.looked_at += 1;
        let info = catalog.relation(&table.0).ok();
        if info.is_none() {
            self.add(format!("the table {} is missing", table.0.readable()), None);
        }
        info
    }
}

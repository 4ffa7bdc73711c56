//! What a database holds, as values: schemas, tables, indexes, keys.
//!
//! Knows nothing of connections; the audit fills it in.

use std::collections::BTreeMap;
use std::fmt;

use schemars::JsonSchema;
use serde::Serialize;

use crate::sql::Relation;

/// A relation's name with its schema, both exactly as in the database.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, JsonSchema)]
pub struct Name {
    /// The schema.
    pub schema: String,
    /// The relation's own name.
    pub name: String,
}

impl Name {
    /// The name of a relation.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            name: name.into(),
        }
    }

    /// The same, for SQL.
    pub fn relation(&self) -> Relation {
        Relation::new(&*self.schema, &*self.name)
    }

    /// Something of the relation, as a person writes it: `schema.table.column`.
    pub(super) fn part(&self, part: &str) -> String {
        let part = Relation {
            schema: None,
            name: crate::sql::Ident::new(part),
        };
        format!("{self}.{}", part.readable())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.relation().readable())
    }
}

/// Everything the audit knows of a database.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// Schemas that are the user's, by name.
    pub schemas: Vec<Schema>,
    /// Tables, partitions, views, materialized views and foreign tables, by name.
    pub tables: Vec<Table>,
    /// Indexes of those.
    pub indexes: Vec<Index>,
    /// Declared foreign keys; those that a partition has of its parent are left out.
    pub keys: Vec<Key>,
    /// Since when the server counts what is used, if it says so.
    pub counted_since: Option<String>,
    /// Whether the server is a hot standby, which counts only its own queries.
    pub in_recovery: bool,
    /// What could be read only in part, and why.
    pub notes: Vec<String>,
}

/// A schema.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Schema {
    /// Its name.
    pub name: String,
    /// Its owner.
    pub owner: String,
    /// Its comment.
    pub comment: Option<String>,
    /// Tables, without partitions.
    pub tables: usize,
    /// Partitions of tables.
    pub partitions: usize,
    /// Views.
    pub views: usize,
    /// Materialized views.
    pub materialized_views: usize,
    /// Foreign tables.
    pub foreign_tables: usize,
    /// Sequences.
    pub sequences: u64,
    /// Functions, procedures and aggregates.
    pub functions: u64,
    /// Rows of its tables, estimated; by activity where a table was never analyzed.
    pub rows_estimated: u64,
    /// Bytes of its tables with indexes and TOAST.
    pub bytes: u64,
}

/// What sort of relation it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// An ordinary table.
    #[default]
    Table,
    /// A table whose rows lie in its partitions.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A table of another server.
    Foreign,
}

/// A relation.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Table {
    /// Its name.
    #[serde(flatten)]
    pub name: Name,
    /// What sort it is.
    pub kind: TableKind,
    /// Whether it is a partition of another.
    pub is_partition: bool,
    /// The table it is a partition or a child of.
    pub parent: Option<Name>,
    /// Its owner.
    pub owner: String,
    /// Its comment.
    pub comment: Option<String>,
    /// Rows as of the last ANALYZE or VACUUM; null when it never was analyzed. Of a partitioned table, the sum.
    pub rows_estimated: Option<u64>,
    /// Rows by the server's activity counters.
    pub rows_by_activity: u64,
    /// Bytes of the table, with indexes and TOAST. Of a partitioned table, the sum.
    pub bytes: u64,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// Columns of the primary key, in key order.
    pub primary_key: Vec<String>,
    /// How often it was read from end to end.
    pub seq_scans: u64,
    /// How many rows that read.
    pub seq_rows: u64,
    /// The triggers of the user's that are switched off.
    pub disabled_triggers: Vec<String>,
}

impl Default for Name {
    fn default() -> Self {
        Self::new("", "")
    }
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Column {
    /// Its number in the table, as the catalog counts.
    #[serde(skip)]
    pub number: i16,
    /// Its name.
    pub name: String,
    /// Its type as SQL writes it.
    pub type_name: String,
    /// Whether it may be null.
    pub is_nullable: bool,
}

/// An index.
#[derive(Clone, Debug, Default)]
pub struct Index {
    /// Which table, as a position in [`Catalog::tables`].
    pub table: usize,
    /// Its name, without the schema, which is the table's.
    pub name: String,
    /// `btree`, `gin`, …
    pub method: String,
    /// The key columns, in order; an expression is empty.
    pub columns: Vec<String>,
    /// All that makes the order of keys: operator class, collation and direction of every key column.
    pub order: Vec<String>,
    /// Further columns it carries (`INCLUDE`).
    pub included: Vec<String>,
    /// Its expressions, if it has any.
    pub expressions: Option<String>,
    /// Its condition, if it is partial.
    pub predicate: Option<String>,
    /// Whether it forbids repetition.
    pub is_unique: bool,
    /// Whether it is the primary key's.
    pub is_primary: bool,
    /// Whether a constraint or the replica identity rests on it.
    pub is_needed: bool,
    /// Whether it can be used.
    pub is_valid: bool,
    /// Whether it is a partition of its parent's index.
    pub is_partition: bool,
    /// How often it was used.
    pub scans: u64,
    /// Its size.
    pub bytes: u64,
}

/// A declared foreign key.
#[derive(Clone, Debug, Default, Serialize, JsonSchema)]
pub struct Key {
    /// The constraint's name.
    pub name: String,
    /// The referencing table.
    pub table: Name,
    /// Its columns.
    pub columns: Vec<String>,
    /// The referenced table.
    pub references: Name,
    /// Its columns.
    pub referenced_columns: Vec<String>,
    /// Whether the rows that were there before it have been checked.
    pub is_valid: bool,
    /// Whether it is enforced: no trigger of it is switched off.
    pub is_enforced: bool,
    /// The tables on which triggers of it are switched off.
    #[serde(skip)]
    pub disabled_on: Vec<Name>,
    /// Rows that refer to nothing; null where that was not counted.
    pub orphans: Option<u64>,
}

impl Table {
    /// Whether the audit judges it: a table that holds rows of its own design, not a partition or a view.
    pub(super) fn is_own(&self) -> bool {
        matches!(self.kind, TableKind::Table | TableKind::Partitioned) && self.parent.is_none()
    }

    /// The rows as far as anything is known of them.
    pub fn rows(&self) -> u64 {
        self.rows_estimated.unwrap_or(self.rows_by_activity)
    }

    /// The column of that name.
    pub(super) fn column(&self, name: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name == name)
    }
}

impl Catalog {
    /// Positions of tables by name.
    pub(super) fn by_name(&self) -> BTreeMap<&Name, usize> {
        let tables = self.tables.iter().enumerate();
        tables.map(|(at, table)| (&table.name, at)).collect()
    }

    /// Positions of the indexes of every table.
    pub(super) fn indexes_by_table(&self) -> Vec<Vec<usize>> {
        let mut found = vec![Vec::new(); self.tables.len()];
        for (at, index) in self.indexes.iter().enumerate() {
            found[index.table].push(at);
        }
        found
    }

    /// Lets partitioned tables stand for their partitions, and schemas for what is in them.
    pub(super) fn sum_up(&mut self) {
        let names: BTreeMap<Name, usize> = self
            .by_name()
            .into_iter()
            .map(|(name, at)| (name.clone(), at))
            .collect();
        let mut sums = vec![(0_u64, 0_u64, 0_u64, true); self.tables.len()];
        for table in &self.tables {
            let mut next = table.parent.as_ref().filter(|_| table.is_partition);
            while let Some(at) = next.and_then(|parent| names.get(parent)) {
                let sum = &mut sums[*at];
                if table.kind != TableKind::Partitioned {
                    sum.0 += table.rows_estimated.unwrap_or(0);
                    sum.1 += table.rows_by_activity;
                    sum.2 += table.bytes;
                    sum.3 &= table.rows_estimated.is_none();
                }
                let parent = &self.tables[*at];
                next = parent.parent.as_ref().filter(|_| parent.is_partition);
            }
        }
        for (table, (rows, activity, bytes, is_unknown)) in self.tables.iter_mut().zip(sums) {
            if table.kind == TableKind::Partitioned {
                table.rows_estimated = (!is_unknown).then_some(rows);
                table.rows_by_activity = activity;
                table.bytes = bytes;
            }
        }
        let mut schemas: BTreeMap<String, &mut Schema> = self
            .schemas
            .iter_mut()
            .map(|schema| (schema.name.clone(), schema))
            .collect();
        for table in &self.tables {
            let Some(schema) = schemas.get_mut(&table.name.schema) else {
                continue;
            };
            match table.kind {
                _ if table.is_partition => schema.partitions += 1,
                TableKind::Table | TableKind::Partitioned => schema.tables += 1,
                TableKind::View => schema.views += 1,
                TableKind::MaterializedView => schema.materialized_views += 1,
                TableKind::Foreign => schema.foreign_tables += 1,
            }
            // A partitioned table has nothing of its own: its partitions are counted where they are.
            if table.kind != TableKind::Partitioned {
                schema.rows_estimated += table.rows();
                schema.bytes += table.bytes;
            }
        }
    }
}

impl Key {
    /// Whether it does not hold, or nothing holds it.
    pub fn is_broken(&self) -> bool {
        !self.is_valid || !self.is_enforced || self.orphans.is_some_and(|orphans| orphans > 0)
    }
}

//! What a database is known to hold: a value, loaded before gates are asked.
//!
//! Knows nothing of connections; the run fills it in.

use std::collections::BTreeMap;

use crate::error::{Error, ErrorKind, Result, nearest};
use crate::sql;
use crate::sql::{Ident, Relation, Sql};

use super::mask::Masks;

/// The size of a block in nearly every server.
const BLOCK: u64 = 8192;

/// Which database a measurement reads.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The target of the run.
    Main,
    /// Another configured target, by name.
    Other(String),
}

/// The relations and keys of one database that the gates of a run refer to.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    /// The server's major version.
    pub server_major: u32,
    /// The schemas that unqualified names are looked up in, in order.
    pub search_path: Vec<String>,
    /// The names of all schemas but the system's, where a gate asks by pattern.
    pub schemas: Vec<String>,
    /// Relations by schema and name.
    pub relations: BTreeMap<(String, String), RelationInfo>,
    /// Declared foreign keys of the relations above.
    pub foreign_keys: Vec<ForeignKey>,
    /// Names of other relations, for a guess at what was meant.
    pub other_names: Vec<String>,
    /// The columns whose values stay in the database.
    pub masks: Masks,
}

/// What sort of relation it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    /// An ordinary table.
    Table,
    /// A partitioned table.
    Partitioned,
    /// A view.
    View,
    /// A materialized view.
    MaterializedView,
    /// A foreign table.
    Foreign,
}

/// A relation and what is known of it.
#[derive(Clone, Debug)]
pub struct RelationInfo {
    /// Schema and name.
    pub relation: Relation,
    /// What sort it is.
    pub kind: RelationKind,
    /// Whether it is a partition of another relation.
    pub is_partition: bool,
    /// Columns in order.
    pub columns: Vec<Column>,
    /// The columns of the primary key, in key order.
    pub primary_key: Vec<String>,
    /// The columns of every valid, non-partial unique index, the primary key's included.
    pub unique_keys: Vec<Vec<String>>,
    /// The leading columns of every valid index, for the question whether a key is indexed.
    pub indexes: Vec<Vec<String>>,
    /// The unique indexes that prove their columns to be unique: valid, not deferrable, of whole
    /// columns and of all rows, and of no text that a language sorts.
    pub proofs: Vec<UniqueIndex>,
    /// Whether what is declared of its rows holds for every row that a scan reads.
    pub is_enforced: bool,
    /// Size of the main fork in bytes when it was last vacuumed or analyzed.
    pub bytes: u64,
}

/// A column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: String,
    /// Its type as SQL writes it.
    pub type_name: String,
    /// Postgres' type category: `S` text, `N` number, `D` date and time, `B` boolean, …
    pub category: char,
    /// Whether every row that a scan reads is held to `NOT NULL`.
    pub is_not_null: bool,
    /// Whether an update may set it to null: it is neither `NOT NULL` nor generated.
    pub is_nullable: bool,
    /// Whether its values stay in the database.
    pub is_masked: bool,
}

/// A unique index that the server has held every row to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UniqueIndex {
    /// Its name.
    pub name: String,
    /// Its columns, without those that it only includes.
    pub columns: Vec<String>,
}

/// A declared foreign key.
#[derive(Clone, Debug)]
pub struct ForeignKey {
    /// The constraint's name.
    pub name: String,
    /// The referencing relation.
    pub table: Relation,
    /// Its columns.
    pub columns: Vec<String>,
    /// The referenced relation; `None` where a damaged catalog names one that is gone.
    pub references: Option<Relation>,
    /// Its columns.
    pub referenced_columns: Vec<String>,
    /// Whether existing rows were checked (`convalidated`).
    pub is_valid: bool,
    /// Whether it is `MATCH FULL`.
    pub is_match_full: bool,
    /// The relations on which its triggers do not fire (`tgenabled`).
    pub disabled_on: Vec<Relation>,
}

impl Catalog {
    /// The relation of that name, or an error that guesses what was meant.
    pub fn relation(&self, name: &Relation) -> Result<&RelationInfo> {
        let found = match &name.schema {
            Some(schema) => self
                .relations
                .get(&(schema.as_str().to_owned(), name.name.as_str().to_owned())),
            None => self.search_path.iter().find_map(|schema| {
                self.relations
                    .get(&(schema.clone(), name.name.as_str().to_owned()))
            }),
        };
        found.ok_or_else(|| {
            let readable = name.readable();
            let error = Error::new(
                ErrorKind::Database,
                format!("the table `{readable}` does not exist"),
            )
            .with_sqlstate("42P01");
            let names = self.other_names.iter().map(String::as_str);
            match nearest(&readable, names) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error,
            }
        })
    }

    /// The relations whose schema matches one of `patterns` (`*` stands for any text), in order of
    /// their names; partitions are left out, their parents stand for them.
    pub fn in_schemas<'a>(
        &'a self,
        patterns: &'a [String],
    ) -> impl Iterator<Item = &'a RelationInfo> {
        self.relations
            .iter()
            .filter(move |((schema, _), info)| {
                !info.is_partition && patterns.iter().any(|pattern| matches(pattern, schema))
            })
            .map(|(_, info)| info)
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any text.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((start, rest)) => text.strip_prefix(start).is_some_and(|tail| {
            (0..=tail.len()).any(|at| tail.is_char_boundary(at) && matches(rest, &tail[at..]))
        }),
    }
}

impl RelationInfo {
    /// The column of that name, or an error that guesses what was meant.
    pub fn column(&self, name: &str) -> Result<&Column> {
        self.columns
            .iter()
            .find(|column| column.name == name)
            .ok_or_else(|| {
                let error = Error::new(
                    ErrorKind::Database,
                    format!(
                        "the table `{}` has no column `{name}`",
                        self.relation.readable()
                    ),
                )
                .with_sqlstate("42703");
                match nearest(name, self.columns.iter().map(|column| column.name.as_str())) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error,
                }
            })
    }

    /// Every column of `names`, or the first error.
    pub fn columns_named(&self, names: &[String]) -> Result<Vec<&Column>> {
        names.iter().map(|name| self.column(name)).collect()
    }

    /// The columns that name a row: those asked for, else the primary key, else the first other
    /// unique key, else where the row lies (`ctid`), which views and foreign tables do not have.
    pub fn row_key(&self, asked: &[String]) -> Result<Vec<ShownColumn>> {
        let names: &[String] = if !asked.is_empty() {
            asked
        } else if !self.primary_key.is_empty() {
            &self.primary_key
        } else if let Some(key) = self.unique_keys.first() {
            key
        } else {
            return Ok(self.row_place().unwrap_or_default());
        };
        self.shown(names)
    }

    /// Whether no two rows that a scan reads have the same key: only then does it order them in one way.
    pub fn is_told_apart_by(&self, key: &[ShownColumn]) -> bool {
        let has = |name: &str| key.iter().any(|column| column.name == name);
        let is_unique = |columns: &Vec<String>| {
            columns
                .iter()
                .all(|name| has(name) && self.column(name).is_ok_and(|column| column.is_not_null))
        };
        // A table that others inherit from has their rows, too.
        self.is_enforced
            && (self.unique_keys.iter().any(is_unique)
                || self.row_place().is_some_and(|place| {
                    let is_in_key = |one: &ShownColumn| key.contains(one);
                    place.iter().all(is_in_key)
                }))
    }

    /// Whether an index may give the rows in the order of a key, so that who wants the first of them need not
    /// read all.
    pub fn may_be_ordered_by(&self, key: &[ShownColumn]) -> bool {
        let first = key.first().map(|column| &column.name);
        let mut indexes = self.indexes.iter();
        first.is_some() && indexes.any(|index| index.first() == first)
    }

    /// How many blocks the table had when it was last vacuumed or analyzed, where the key says in which of them a
    /// row lies.
    pub fn blocks_by(&self, key: &[ShownColumn]) -> Option<u64> {
        let is_one_file = self.kind != RelationKind::Partitioned;
        let is_place = is_one_file && self.row_place().is_some_and(|place| place == key);
        is_place.then_some(self.bytes / BLOCK)
    }

    /// Where a row lies, which views and foreign tables do not have.
    fn row_place(&self) -> Option<Vec<ShownColumn>> {
        match self.kind {
            RelationKind::Table | RelationKind::MaterializedView => {
                Some(vec![ShownColumn::of_system("ctid")])
            }
            // Each partition has places of its own.
            RelationKind::Partitioned => Some(vec![
                ShownColumn {
                    name: "partition".to_owned(),
                    sql: sql!("tableoid::regclass"),
                    is_masked: false,
                },
                ShownColumn::of_system("ctid"),
            ]),
            RelationKind::View | RelationKind::Foreign => None,
        }
    }

    /// Columns as a report shows them, under their own names.
    pub fn shown(&self, names: &[String]) -> Result<Vec<ShownColumn>> {
        let columns = self.columns_named(names)?;
        Ok(columns.into_iter().map(ShownColumn::new).collect())
    }
}

/// A column of an offending row, as a report shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShownColumn {
    /// What it is called in the report.
    pub name: String,
    /// The column itself.
    pub sql: Sql,
    /// Whether its values stay in the database.
    pub is_masked: bool,
}

impl ShownColumn {
    /// A column under its own name.
    pub fn new(column: &Column) -> Self {
        Self {
            name: column.name.clone(),
            sql: sql!("{}", Ident::new(column.name.clone())),
            is_masked: column.is_masked,
        }
    }

    /// A column that every table has, and that says where a row lies.
    fn of_system(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            sql: sql!("{}", Ident::new(name)),
            is_masked: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("*", "anything", true)]
    #[case("core_*", "core_betting", true)]
    #[case("core_*", "raw_data", false)]
    #[case("*_data", "raw_data", true)]
    #[case("a*b*c", "aXbYc", true)]
    #[case("a*b*c", "aXc", false)]
    #[case("public", "public", true)]
    #[case("public", "public2", false)]
    fn a_star_stands_for_any_text(
        #[case] pattern: &str,
        #[case] text: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(matches(pattern, text), expected);
    }
}

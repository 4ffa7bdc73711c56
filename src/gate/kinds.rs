//! The list of kinds: adding one is its file and one line here.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use schemars::{JsonSchema, Schema};
use serde::de::DeserializeOwned;
use serde_json::Value;
use toml::de::DeTable;

use crate::error::Error;
use crate::source::{SourceFile, Table};

use super::fields::SQL;
use super::{COMMON_FIELDS, Kind, OnEmpty};

mod accepted_values;
mod completeness;
mod content_parity;
mod foreign_key;
mod freshness;
mod mock_data;
mod pattern;
mod permissions;
mod query_budget;
mod range;
mod relation;
mod row_count;
mod row_count_parity;
mod schema_layout;
mod shared;
mod sql;
mod unique;

macro_rules! kinds {
    ($($id:ident => $ty:ident,)+) => {
        $(pub use $id::$ty;)+
        /// Every kind, in the order listed below.
        pub static KINDS: &[Registered] = &[$(Registered::of::<$ty>(stringify!($id)),)+];
    };
}

kinds! {
    accepted_values => AcceptedValues,
    completeness => Completeness,
    content_parity => ContentParity,
    foreign_key => ForeignKeyHolds,
    freshness => Freshness,
    mock_data => MockData,
    pattern => Pattern,
    permissions => Permissions,
    query_budget => QueryBudget,
    range => Range,
    relation => RowRelation,
    row_count => RowCount,
    row_count_parity => RowCountParity,
    schema_layout => SchemaLayout,
    sql => CustomSql,
    unique => Unique,
}

/// What a kind must say of itself beside how to ask and judge.
pub trait Definition: Kind + DeserializeOwned + JsonSchema + 'static {
    /// What an empty table means where the gate does not say.
    const ON_EMPTY: OnEmpty;
}

type ReadFn = fn(&SourceFile, &Table, DeTable<'_>) -> Result<Box<dyn Kind>, Vec<Error>>;

/// One kind in the list.
pub struct Registered {
    /// The name that definitions use.
    pub name: &'static str,
    /// What an empty table means where the gate does not say.
    pub on_empty: OnEmpty,
    /// Reads its fields, reporting every wrong one.
    pub read: ReadFn,
    /// The JSON schema of its own fields, documentation included.
    pub schema: fn() -> Schema,
}

impl Registered {
    const fn of<T: Definition>(name: &'static str) -> Self {
        Self {
            name,
            on_empty: T::ON_EMPTY,
            read: read::<T>,
            schema: super::schema::of::<T>,
        }
    }

    /// Whether a field of its own holds SQL.
    pub fn is_sql(&self, field: &str) -> bool {
        SQL_FIELDS
            .get(self.name)
            .is_some_and(|fields| fields.iter().any(|name| name == field))
    }

    /// The kind of that name.
    pub fn named(name: &str) -> Option<&'static Self> {
        KINDS.iter().find(|kind| kind.name == name)
    }
}

/// The names of the fields that hold SQL, by kind; made once, because a schema takes long to make.
static SQL_FIELDS: LazyLock<BTreeMap<&'static str, Vec<String>>> = LazyLock::new(|| {
    let sql_fields = |kind: &'static Registered| {
        let schema = (kind.schema)();
        let fields = schema.get("properties").and_then(Value::as_object);
        let is_sql = |field: &Value| {
            let form = field.get("contentMediaType").and_then(Value::as_str);
            form == Some(SQL)
        };
        let fields = fields.into_iter().flatten();
        let fields = fields.filter(|(_, field)| is_sql(field));
        (kind.name, fields.map(|(name, _)| name.clone()).collect())
    };
    KINDS.iter().map(sql_fields).collect()
});

fn read<T: Definition>(
    file: &SourceFile,
    fields: &Table,
    table: DeTable<'_>,
) -> Result<Box<dyn Kind>, Vec<Error>> {
    let kind: T = crate::source::read(file, fields, table, COMMON_FIELDS)?;
    let problems = kind.problems();
    if problems.is_empty() {
        return Ok(Box::new(kind));
    }
    Err(problems
        .iter()
        .map(|problem| fields.error(file, problem))
        .collect())
}

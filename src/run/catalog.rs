//! Loads what gates need to know of a database, from `pg_catalog`: information_schema hides what
//! the role does not own.

use std::collections::BTreeSet;

use serde::Deserialize;
use sqlx::Row;

use crate::error::{Error, ErrorKind, Result};
use crate::gate::Needs;
use crate::gate::catalog::{
    Catalog, Column, ForeignKey, RelationInfo, RelationKind, Side, UniqueIndex,
};
use crate::gate::mask::{Masks, Pattern};
use crate::pg::{SEARCH_PATH, Session};
use crate::sql::Relation;

use super::{Granted, masks};

// Asks nothing that waits for a lock, as pg_relation_size does: one locked table must not cost the
// gates on all others.
const RELATIONS: &str = "
with wanted as (select * from unnest($1::text[], $2::text[]) as w(schema_name, name))
select json_build_object(
  'schema', n.nspname, 'name', c.relname, 'kind', c.relkind, 'is_partition', c.relispartition,
  -- Whether what is declared of its rows holds for every row that a scan reads: those of tables that
  -- inherit from it, and foreign ones, are not held to it.
  'is_enforced', c.relkind in ('r', 'p', 'm') and not exists (
      with recursive part(oid) as (
        select c.oid union all select i.inhrelid from pg_inherits i join part on i.inhparent = part.oid)
      select from part join pg_class l on l.oid = part.oid
      where l.relkind = 'f' or (c.relkind <> 'p' and l.oid <> c.oid)),
  'bytes', greatest(c.relpages, 0)::int8 * current_setting('block_size')::int8,
  'columns', (select coalesce(json_agg(json_build_object(
        'name', a.attname, 'type_name', format_type(a.atttypid, a.atttypmod), 'category', t.typcategory,
        -- Postgres 18 has NOT NULL constraints whose existing rows were never looked at.
        'is_not_null', a.attnotnull and not exists (select from pg_constraint k
            where k.conrelid = c.oid and k.contype = 'n' and not k.convalidated and a.attnum = any(k.conkey)),
        'is_nullable', not a.attnotnull and not t.typnotnull and a.attgenerated = '')
        order by a.attnum), '[]')
      from pg_attribute a join pg_type t on t.oid = a.atttypid
      where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  'indexes', (select coalesce(json_agg(json_build_object(
        'name', (select x.relname from pg_class x where x.oid = i.indexrelid),
        'is_primary', i.indisprimary,
        -- Not text that a language sorts: an upgrade of the system's library leaves such an index in
        -- the wrong order, and it lets the same text in twice.
        'is_proof', i.indisunique and i.indimmediate and i.indisvalid and i.indisready and i.indislive
            and i.indpred is null and i.indexprs is null
            and not exists (select from generate_series(0, i.indnkeyatts - 1) n
                join pg_attribute a on a.attrelid = c.oid and a.attnum = i.indkey[n]
                join pg_type t on t.oid = a.atttypid
                join pg_opclass o on o.oid = i.indclass[n]
                where i.indcollation[n] not in (0, 950, 951) or i.indcollation[n] <> a.attcollation
                  or t.typtype not in ('b', 'e') or t.typcategory = 'A' or not o.opcdefault),
        'is_unique', i.indisunique and i.indisvalid and i.indpred is null and i.indexprs is null,
        'columns', (select coalesce(json_agg(a.attname order by k.n), '[]')
            from unnest(i.indkey::int2[]) with ordinality k(attnum, n)
            join pg_attribute a on a.attrelid = c.oid and a.attnum = k.attnum
            where k.n <= i.indnkeyatts))
        order by i.indisprimary desc, i.indexrelid), '[]')
      from pg_index i where i.indrelid = c.oid and i.indisvalid)
)::text
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and exists (
  select from wanted w where w.name = c.relname
    and (w.schema_name = n.nspname or (w.schema_name = '' and n.nspname = any($3::text[])))
  union all
  select where cardinality($4::text[]) > 0 and n.nspname !~ '^pg_' and n.nspname <> 'information_schema')
order by n.nspname, c.relname";

const FOREIGN_KEYS: &str = "
with wanted as (select * from unnest($1::text[], $2::text[]) as w(schema_name, name))
select json_build_object(
  'name', k.conname, 'schema', n.nspname, 'table', c.relname,
  'referenced_schema', fn.nspname, 'referenced_table', f.relname,
  'columns', (select json_agg(a.attname order by u.n) from unnest(k.conkey) with ordinality u(attnum, n)
      join pg_attribute a on a.attrelid = c.oid and a.attnum = u.attnum),
  'referenced_columns', (select json_agg(a.attname order by u.n) from unnest(k.confkey) with ordinality u(attnum, n)
      join pg_attribute a on a.attrelid = k.confrelid and a.attnum = u.attnum),
  'is_valid', k.convalidated, 'is_match_full', k.confmatchtype = 'f',
  'disabled_on', (select coalesce(json_agg(distinct jsonb_build_array(gn.nspname, gc.relname)), '[]')
      from pg_trigger g join pg_class gc on gc.oid = g.tgrelid join pg_namespace gn on gn.oid = gc.relnamespace
      where g.tgconstraint = k.oid and g.tgenabled in ('D', 'R'))
)::text
from pg_constraint k
join pg_class c on c.oid = k.conrelid join pg_namespace n on n.oid = c.relnamespace
left join pg_class f on f.oid = k.confrelid left join pg_namespace fn on fn.oid = f.relnamespace
where k.contype = 'f' and k.conparentid = 0 and exists (
  select from wanted w where w.name = c.relname
    and (w.schema_name = n.nspname or (w.schema_name = '' and n.nspname = any($3::text[])))
  union all
  select where cardinality($4::text[]) > 0 and n.nspname !~ '^pg_' and n.nspname <> 'information_schema')
order by n.nspname, c.relname, k.conname";

const SCHEMAS: &str = "
select n.nspname::text from pg_namespace n
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and cardinality($1::text[]) > 0
order by 1";

const NAMES: &str = "
select n.nspname || '.' || c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and $1::text[] is not null
order by 1 limit 10000";

// Waits for no lock, when it is asked right after EXPLAIN took those of the relations.
const SIZES: &str = "
with wanted as (select * from unnest($1::text[], $2::text[]) as w(schema_name, name))
select json_build_object('schema', n.nspname, 'name', c.relname, 'bytes', case
  when c.relkind <> 'f' then coalesce(pg_relation_size(c.oid), 0)
  when c.relpages > 0 then c.relpages * current_setting('block_size')::bigint
  when c.reltuples = 0 and current_setting('server_version_num')::int >= 140000 then 0 end)::text
from wanted w join pg_namespace n on n.nspname = w.schema_name
join pg_class c on c.relnamespace = n.oid and c.relname = w.name
order by n.nspname, c.relname";

const ACCESS: &str = "
with wanted as (select * from unnest($1::text[], $2::text[]) as w(schema_name, name))
select json_build_object('schema', n.nspname, 'name', c.relname, 'is_partition', c.relispartition,
  'has_usage', has_schema_privilege(n.oid, 'USAGE'), 'has_select', has_table_privilege(c.oid, 'SELECT'),
  'has_select_on_some', has_any_column_privilege(c.oid, 'SELECT'))::text
from wanted w join pg_namespace n on n.nspname = w.schema_name
join pg_class c on c.relnamespace = n.oid and c.relname = w.name
order by n.nspname, c.relname";

#[derive(Deserialize)]
struct SizeRow {
    schema: String,
    name: String,
    bytes: Option<u64>,
}

#[derive(Deserialize)]
struct AccessRow {
    schema: String,
    name: String,
    is_partition: bool,
    has_usage: bool,
    has_select: bool,
    has_select_on_some: bool,
}

/// What the role of a session may do with a relation.
pub struct Access {
    /// The relation.
    pub relation: Relation,
    /// Whether it is a partition of another relation.
    pub is_partition: bool,
    /// Whether the role may name what is in its schema.
    pub has_usage: bool,
    /// Whether it may read it.
    pub select: Granted,
}

#[derive(Deserialize)]
struct RelationRow {
    schema: String,
    name: String,
    kind: String,
    is_partition: bool,
    is_enforced: bool,
    bytes: u64,
    columns: Vec<ColumnRow>,
    indexes: Vec<IndexRow>,
}

#[derive(Deserialize)]
struct ColumnRow {
    name: String,
    type_name: String,
    category: char,
    is_not_null: bool,
    is_nullable: bool,
}

#[derive(Deserialize)]
struct IndexRow {
    name: String,
    is_proof: bool,
    is_primary: bool,
    is_unique: bool,
    columns: Vec<String>,
}

#[derive(Deserialize)]
struct KeyRow {
    name: String,
    schema: String,
    table: String,
    referenced_schema: Option<String>,
    referenced_table: Option<String>,
    columns: Vec<String>,
    referenced_columns: Option<Vec<String>>,
    is_valid: bool,
    is_match_full: bool,
    disabled_on: Vec<(String, String)>,
}

/// The relations of one side that gates need, with their keys, and its masked columns.
pub async fn load<'a>(
    session: &mut Session,
    side: &Side,
    needs: impl Iterator<Item = &'a Needs>,
    patterns: &[Pattern],
) -> Result<Catalog> {
    let needs: Vec<&Needs> = needs.collect();
    let is_whole = needs.iter().any(|needs| needs.whole.contains(side));
    let whole = is_whole.then(|| "*".to_owned());
    // Patterns are about the target of the run; which schemas match is decided by the gate.
    let schemas: Vec<String> = needs
        .iter()
        .filter(|_| *side == Side::Main)
        .flat_map(|needs| needs.schemas.clone())
        .chain(whole)
        .collect();
    let wanted: Vec<&Relation> = needs
        .iter()
        .flat_map(|needs| &needs.relations)
        .filter(|(other, _)| other == side)
        .map(|(_, relation)| relation)
        .collect();
    let version = &session.snapshot().server_version;
    let major = version.split(|c: char| !c.is_ascii_digit()).next();
    let mut catalog = Catalog {
        server_major: major.and_then(|digits| digits.parse().ok()).unwrap_or(0),
        search_path: SEARCH_PATH
            .iter()
            .map(|schema| (*schema).to_owned())
            .collect(),
        masks: masks::load(session, patterns).await?,
        ..Catalog::default()
    };
    if wanted.is_empty() && schemas.is_empty() {
        return Ok(catalog);
    }
    let parameters = [
        wanted
            .iter()
            .map(|name| {
                name.schema
                    .as_ref()
                    .map_or_else(String::new, |schema| schema.as_str().to_owned())
            })
            .collect(),
        wanted
            .iter()
            .map(|name| name.name.as_str().to_owned())
            .collect(),
        catalog.search_path.clone(),
        schemas,
    ];
    for row in session.ask_catalog(RELATIONS, &parameters).await? {
        let info = relation(parse(&row)?, &catalog.masks);
        let schema = info
            .relation
            .schema
            .as_ref()
            .map_or("", |schema| schema.as_str());
        let key = (schema.to_owned(), info.relation.name.as_str().to_owned());
        catalog.relations.insert(key, info);
    }
    for row in session.ask_catalog(SCHEMAS, &parameters[3..]).await? {
        let name = row.try_get(0);
        let name = name.map_err(|error| session.address().error(&error))?;
        catalog.schemas.push(name);
    }
    for row in session.ask_catalog(FOREIGN_KEYS, &parameters).await? {
        let key: KeyRow = parse(&row)?;
        catalog.foreign_keys.push(ForeignKey {
            name: key.name,
            table: Relation::new(key.schema, key.table),
            columns: key.columns,
            references: key
                .referenced_schema
                .zip(key.referenced_table)
                .map(|(schema, name)| Relation::new(schema, name)),
            referenced_columns: key.referenced_columns.unwrap_or_default(),
            is_valid: key.is_valid,
            is_match_full: key.is_match_full,
            disabled_on: key
                .disabled_on
                .into_iter()
                .map(|(schema, name)| Relation::new(schema, name))
                .collect(),
        });
    }
    if wanted.iter().any(|name| catalog.relation(name).is_err()) {
        for row in session.ask_catalog(NAMES, &[Vec::new()]).await? {
            catalog.other_names.push(
                row.try_get(0)
                    .map_err(|error| session.address().error(&error))?,
            );
        }
    }
    Ok(catalog)
}

/// The size of the main fork of each relation; of a foreign table what its last `ANALYZE` found, and `None` where
/// there was none.
pub async fn sizes(
    session: &mut Session,
    relations: &BTreeSet<Relation>,
) -> Result<Vec<(Relation, Option<u64>)>> {
    if relations.is_empty() {
        return Ok(Vec::new());
    }
    let rows = session.ask_catalog(SIZES, &names(relations.iter())).await?;
    rows.iter()
        .map(|row| {
            let row: SizeRow = parse(row)?;
            Ok((Relation::new(row.schema, row.name), row.bytes))
        })
        .collect()
}

/// What the role of a session may do with relations; one that does not exist is left out.
pub async fn access(
    session: &mut Session,
    relations: impl Iterator<Item = &Relation>,
) -> Result<Vec<Access>> {
    let rows = session.ask_catalog(ACCESS, &names(relations)).await?;
    rows.iter()
        .map(|row| {
            let row: AccessRow = parse(row)?;
            Ok(Access {
                relation: Relation::new(row.schema, row.name),
                is_partition: row.is_partition,
                has_usage: row.has_usage,
                select: match (row.has_select, row.has_select_on_some) {
                    (true, _) => Granted::Yes,
                    (false, true) => Granted::SomeColumns,
                    (false, false) => Granted::No,
                },
            })
        })
        .collect()
}

/// Schemas and names of relations, as two lists.
fn names<'a>(relations: impl Iterator<Item = &'a Relation>) -> [Vec<String>; 2] {
    let (schemas, names) = relations
        .map(|relation| {
            let schema = relation.schema.as_ref();
            let schema = schema.map_or("", |schema| schema.as_str());
            (schema.to_owned(), relation.name.as_str().to_owned())
        })
        .unzip();
    [schemas, names]
}

pub(super) fn parse<T: serde::de::DeserializeOwned>(row: &sqlx::postgres::PgRow) -> Result<T> {
    let text: String = row
        .try_get(0)
        .map_err(|error| unexpected(&error.to_string()))?;
    serde_json::from_str(&text).map_err(|error| unexpected(&error.to_string()))
}

/// What the server gave as JSON, as a value.
pub fn from_json<T: serde::de::DeserializeOwned>(json: serde_json::Value) -> Result<T> {
    serde_json::from_value(json).map_err(|error| unexpected(&error.to_string()))
}

fn unexpected(why: &str) -> Error {
    Error::new(
        ErrorKind::Database,
        format!("the server gave an unexpected answer: {why}"),
    )
}

fn relation(row: RelationRow, masks: &Masks) -> RelationInfo {
    let relation = Relation::new(row.schema, row.name);
    let primary_key = row.indexes.iter().find(|index| index.is_primary);
    RelationInfo {
        kind: match row.kind.as_str() {
            "p" => RelationKind::Partitioned,
            "v" => RelationKind::View,
            "m" => RelationKind::MaterializedView,
            "f" => RelationKind::Foreign,
            _ => RelationKind::Table,
        },
        is_partition: row.is_partition,
        primary_key: primary_key.map_or_else(Vec::new, |index| index.columns.clone()),
        unique_keys: row
            .indexes
            .iter()
            .filter(|index| index.is_unique)
            .map(|index| index.columns.clone())
            .collect(),
        proofs: row
            .indexes
            .iter()
            .filter(|index| row.is_enforced && index.is_proof)
            .map(|index| UniqueIndex {
                name: index.name.clone(),
                columns: index.columns.clone(),
            })
            .collect(),
        is_enforced: row.is_enforced,
        indexes: row.indexes.into_iter().map(|index| index.columns).collect(),
        columns: row
            .columns
            .into_iter()
            .map(|column| Column {
                is_masked: masks.hide(&relation, &column.name),
                name: column.name,
                type_name: column.type_name,
                category: column.category,
                is_not_null: row.is_enforced && column.is_not_null,
                is_nullable: column.is_nullable,
            })
            .collect(),
        bytes: row.bytes,
        relation,
    }
}

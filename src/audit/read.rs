//! Reads a [`Catalog`]: a handful of set-based queries over `pg_catalog`, however many tables there are.
//!
//! No privilege on any table is needed, and no lock is waited for: names and estimates come from the
//! catalog alone, and the size of a table that somebody holds exclusively is estimated from it, too.

use std::collections::{BTreeMap, HashMap};

use sqlx::Row;
use sqlx::postgres::PgRow;

use crate::error::{Error, ErrorKind, Result};
use crate::pg::Session;

use super::catalog::{Catalog, Column, Index, Key, Name, Schema, Table, TableKind};
use super::findings::Implied;
use super::words::plural;

/// To ask the files of more tables than this for their sizes takes longer than all the rest.
const MANY_TABLES: usize = 2_000;

const SINCE: &str = "
select to_char(stats_reset at time zone 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"')
from pg_stat_database where datname = current_database()";

const SCHEMAS: &str = "
select n.nspname::text, pg_get_userbyid(n.nspowner)::text, d.description, coalesce(f.n, 0), coalesce(s.n, 0)
from pg_namespace n
left join pg_description d on d.classoid = 'pg_namespace'::regclass and d.objoid = n.oid and d.objsubid = 0
left join (select p.pronamespace, count(*) n from pg_proc p
             left join pg_depend x on x.classid = 'pg_proc'::regclass and x.objid = p.oid and x.deptype in ('e', 'i')
            where x.objid is null group by 1) f on f.pronamespace = n.oid
left join (select c.relnamespace, count(*) n from pg_class c
             left join pg_depend x on x.classid = 'pg_class'::regclass and x.objid = c.oid and x.deptype = 'e'
            where c.relkind = 'S' and x.objid is null group by 1) s on s.relnamespace = n.oid
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_depend x
                   where x.classid = 'pg_namespace'::regclass and x.objid = n.oid and x.deptype = 'e')
order by 1";

const TABLES: &str = "
select c.oid::int8, n.nspname::text, c.relname::text, c.relkind::text, c.relispartition, p.inhparent,
  pg_get_userbyid(c.relowner)::text, d.description,
  case when c.reltuples >= 0 and not (c.reltuples = 0 and c.relpages = 0 and current_setting('server_version_num')::int < 140000)
       then c.reltuples::int8 end,
  greatest(pg_stat_get_live_tuples(c.oid), 0), pg_stat_get_numscans(c.oid), pg_stat_get_tuples_returned(c.oid),
  (c.relpages + coalesce(t.relpages, 0)) * current_setting('block_size')::int8,
  coalesce(g.names, '{}'), a.numbers, a.names, a.types, a.nullable
from pg_class c join pg_namespace n on n.oid = c.relnamespace
left join pg_class t on t.oid = c.reltoastrelid
left join (select inhrelid, min(inhparent::int8) inhparent from pg_inherits group by 1) p on p.inhrelid = c.oid
left join pg_description d on d.classoid = 'pg_class'::regclass and d.objoid = c.oid and d.objsubid = 0
left join (select tgrelid, array_agg(tgname::text order by tgname) names from pg_trigger
            where not tgisinternal and tgenabled = 'D' group by 1) g on g.tgrelid = c.oid
left join (select attrelid, array_agg(attnum order by attnum) numbers, array_agg(attname::text order by attnum) names,
             array_agg(format_type(atttypid, atttypmod) order by attnum) types,
             array_agg(not attnotnull order by attnum) nullable
             from pg_attribute where attnum > 0 and not attisdropped group by 1) a on a.attrelid = c.oid
where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_depend x
                   where x.classid = 'pg_class'::regclass and x.objid = c.oid and x.deptype = 'e')
order by 2, 3";

/// Sizes of files: of all tables where the list is empty, and otherwise of those without an estimate. A
/// table that is locked exclusively would be waited for, so it is left to the estimate.
const SIZES: &str = "
select c.oid::int8, pg_total_relation_size(c.oid)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'm') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and (cardinality($1::text[]) = 0 or c.reltuples < 0)
  and c.oid not in (select relation from pg_locks where relation is not null and mode = 'AccessExclusiveLock')";

const INDEXES: &str = "
with locked as (select relation from pg_locks where relation is not null and mode = 'AccessExclusiveLock')
select i.indrelid::int8, ic.relname::text, am.amname::text, string_to_array(i.indkey::text, ' ')::int2[], i.indnkeyatts,
  string_to_array(i.indclass::text, ' '), string_to_array(i.indcollation::text, ' '), string_to_array(i.indoption::text, ' '),
  case when i.indrelid in (select relation from locked) then i.indexprs::text else pg_get_expr(i.indexprs, i.indrelid) end,
  case when i.indrelid in (select relation from locked) then i.indpred::text else pg_get_expr(i.indpred, i.indrelid) end,
  i.indisunique, i.indisprimary, i.indisreplident or k.conindid is not null, i.indisvalid and i.indisready,
  ic.relispartition, pg_stat_get_numscans(ic.oid), ic.relpages * current_setting('block_size')::int8
from pg_index i join pg_class ic on ic.oid = i.indexrelid join pg_am am on am.oid = ic.relam
join pg_class c on c.oid = i.indrelid join pg_namespace n on n.oid = c.relnamespace
left join (select distinct conindid from pg_constraint where contype in ('p', 'u', 'x')) k on k.conindid = ic.oid
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
order by n.nspname, c.relname, ic.relname";

/// A key of a partitioned table has a copy per partition; what is switched off on a copy is so on the key.
/// `conenforced` is read by its name in text, for it is there from version 18 on.
const KEYS: &str = "
with recursive copies as (
  select k.oid, k.oid as root from pg_constraint k where k.contype = 'f' and k.conparentid = 0
  union all
  select k.oid, copies.root from pg_constraint k join copies on k.conparentid = copies.oid where k.contype = 'f')
select k.conname::text, k.conrelid::int8, k.confrelid::int8, k.conkey, k.confkey, k.convalidated,
  coalesce((to_jsonb(k)->>'conenforced')::bool, true), coalesce(g.tables, '{}')
from pg_constraint k
left join (select copies.root, array_agg(distinct t.tgrelid::int8) tables
             from pg_trigger t join copies on copies.oid = t.tgconstraint
            where t.tgenabled in ('D', 'R') group by 1) g on g.root = k.oid
where k.contype = 'f' and k.conparentid = 0
order by k.conrelid, k.conname";

/// What ANALYZE saw of columns; the view shows those that the role may read.
const DISTINCT: &str = "
select w.s, w.t, w.c, max(p.n_distinct)::float8
from unnest($1::text[], $2::text[], $3::text[]) as w(s, t, c)
join pg_stats p on p.schemaname = w.s and p.tablename = w.t and p.attname = w.c
group by 1, 2, 3";

/// Everything the audit needs to know of the database that the session is on.
pub(super) async fn read(session: &mut Session) -> Result<Catalog> {
    let mut catalog = Catalog {
        in_recovery: session.snapshot().in_recovery,
        ..Catalog::default()
    };
    for row in session.ask_catalog(SINCE, &[]).await? {
        catalog.counted_since = get(&row, 0)?;
    }
    for row in session.ask_catalog(SCHEMAS, &[]).await? {
        catalog.schemas.push(Schema {
            name: get(&row, 0)?,
            owner: get(&row, 1)?,
            comment: get(&row, 2)?,
            functions: whole(&row, 3)?,
            sequences: whole(&row, 4)?,
            ..Schema::default()
        });
    }
    let positions = tables(session, &mut catalog).await?;
    indexes(session, &mut catalog, &positions).await?;
    sizes(session, &mut catalog, &positions).await?;
    keys(session, &mut catalog, &positions).await?;
    catalog.sum_up();
    Ok(catalog)
}

/// The tables, and their positions by object identifier.
async fn tables(session: &mut Session, catalog: &mut Catalog) -> Result<HashMap<i64, usize>> {
    let mut positions = HashMap::new();
    let mut parents = Vec::new();
    for row in session.ask_catalog(TABLES, &[]).await? {
        positions.insert(get::<i64>(&row, 0)?, catalog.tables.len());
        parents.push(get::<Option<i64>>(&row, 5)?);
        let numbers: Vec<i16> = get::<Option<_>>(&row, 14)?.unwrap_or_default();
        let names: Vec<String> = get::<Option<_>>(&row, 15)?.unwrap_or_default();
        let types: Vec<String> = get::<Option<_>>(&row, 16)?.unwrap_or_default();
        let nullable: Vec<bool> = get::<Option<_>>(&row, 17)?.unwrap_or_default();
        let columns = numbers.into_iter().zip(names).zip(types).zip(nullable);
        catalog.tables.push(Table {
            name: Name::new(get::<String>(&row, 1)?, get::<String>(&row, 2)?),
            kind: match get::<String>(&row, 3)?.as_str() {
                "p" => TableKind::Partitioned,
                "v" => TableKind::View,
                "m" => TableKind::MaterializedView,
                "f" => TableKind::Foreign,
                _ => TableKind::Table,
            },
            is_partition: get(&row, 4)?,
            owner: get(&row, 6)?,
            comment: get(&row, 7)?,
            rows_estimated: get::<Option<i64>>(&row, 8)?.map(i64::unsigned_abs),
            rows_by_activity: whole(&row, 9)?,
            seq_scans: whole(&row, 10)?,
            seq_rows: whole(&row, 11)?,
            bytes: whole(&row, 12)?,
            disabled_triggers: get(&row, 13)?,
            columns: columns
                .map(|(((number, name), type_name), is_nullable)| Column {
                    number,
                    name,
                    type_name,
                    is_nullable,
                })
                .collect(),
            ..Table::default()
        });
    }
    for (at, parent) in parents.into_iter().enumerate() {
        let parent = parent.and_then(|oid| positions.get(&oid));
        catalog.tables[at].parent = parent.map(|parent| catalog.tables[*parent].name.clone());
    }
    Ok(positions)
}

async fn indexes(
    session: &mut Session,
    catalog: &mut Catalog,
    positions: &HashMap<i64, usize>,
) -> Result<()> {
    for row in session.ask_catalog(INDEXES, &[]).await? {
        let Some(&table) = positions.get(&get::<i64>(&row, 0)?) else {
            continue;
        };
        let keys = usize::try_from(get::<i16>(&row, 4)?).unwrap_or(0);
        let mut columns = named(&catalog.tables[table], &get::<Vec<i16>>(&row, 3)?);
        let included = columns.split_off(keys.min(columns.len()));
        let classes: Vec<String> = get(&row, 5)?;
        let collations: Vec<String> = get(&row, 6)?;
        let options: Vec<String> = get(&row, 7)?;
        let order = classes.iter().zip(&collations).zip(&options);
        let index = Index {
            table,
            name: get(&row, 1)?,
            method: get(&row, 2)?,
            order: order
                .map(|((class, collation), option)| format!("{class} {collation} {option}"))
                .collect(),
            columns,
            included,
            expressions: get(&row, 8)?,
            predicate: get(&row, 9)?,
            is_unique: get(&row, 10)?,
            is_primary: get(&row, 11)?,
            is_needed: get(&row, 12)?,
            is_valid: get(&row, 13)?,
            is_partition: get(&row, 14)?,
            scans: whole(&row, 15)?,
            bytes: whole(&row, 16)?,
        };
        let table = &mut catalog.tables[table];
        table.bytes += index.bytes;
        if index.is_primary {
            table.primary_key.clone_from(&index.columns);
        }
        catalog.indexes.push(index);
    }
    Ok(())
}

/// Sizes as the files have them, where that can be asked; the estimate stands otherwise.
async fn sizes(
    session: &mut Session,
    catalog: &mut Catalog,
    positions: &HashMap<i64, usize>,
) -> Result<()> {
    let only = if catalog.tables.len() > MANY_TABLES {
        catalog.notes.push(format!(
            "sizes are those of the last VACUUM or ANALYZE: {} are too many to look at each one's files",
            plural(catalog.tables.len(), "relation", "relations")
        ));
        vec!["unknown".to_owned()]
    } else {
        Vec::new()
    };
    let rows = match session.ask_catalog(SIZES, &[only]).await {
        Ok(rows) => rows,
        Err(error) if error.kind() == ErrorKind::ConnectionLost => return Err(error),
        Err(error) => {
            catalog.notes.push(format!(
                "sizes are estimates of the last VACUUM or ANALYZE: {}",
                error.message()
            ));
            return Ok(());
        }
    };
    for row in rows {
        // A table that was dropped meanwhile has no size.
        let bytes = get::<Option<i64>>(&row, 1)?.map(i64::unsigned_abs);
        if let (Some(&at), Some(bytes)) = (positions.get(&get::<i64>(&row, 0)?), bytes) {
            catalog.tables[at].bytes = bytes;
        }
    }
    Ok(())
}

/// How many values of the columns are different that references take for keys without being told so.
pub(super) async fn distinct(
    session: &mut Session,
    catalog: &Catalog,
    implied: &mut [Implied],
) -> Result<()> {
    let unsure = implied.iter().filter(|implied| !implied.is_target_unique);
    let mut lists = vec![Vec::new(); 3];
    for implied in unsure {
        lists[0].push(implied.references.schema.clone());
        lists[1].push(implied.references.name.clone());
        lists[2].push(implied.referenced_column.clone());
    }
    if lists[0].is_empty() {
        return Ok(());
    }
    let by_name = catalog.by_name();
    let mut shares: BTreeMap<(Name, String), f64> = BTreeMap::new();
    for row in session.ask_catalog(DISTINCT, &lists).await? {
        let name = Name::new(get::<String>(&row, 0)?, get::<String>(&row, 1)?);
        let distinct: f64 = get(&row, 3)?;
        let rows = by_name
            .get(&name)
            .map_or(0, |at| catalog.tables[*at].rows());
        // Postgres gives a number of values, or below zero a share of the rows; zero is unknown.
        let share = if distinct < 0.0 {
            -distinct
        } else {
            distinct / rows.max(1) as f64
        };
        if distinct != 0.0 {
            shares.insert((name, get(&row, 2)?), share);
        }
    }
    for implied in implied
        .iter_mut()
        .filter(|implied| !implied.is_target_unique)
    {
        let column = (
            implied.references.clone(),
            implied.referenced_column.clone(),
        );
        implied.target_distinct = shares.get(&column).copied();
    }
    Ok(())
}

async fn keys(
    session: &mut Session,
    catalog: &mut Catalog,
    positions: &HashMap<i64, usize>,
) -> Result<()> {
    let mut found: BTreeMap<(Name, String), Key> = BTreeMap::new();
    for row in session.ask_catalog(KEYS, &[]).await? {
        let at = |oid: i64| positions.get(&oid).map(|at| &catalog.tables[*at]);
        let (Some(table), Some(references)) = (at(get(&row, 1)?), at(get(&row, 2)?)) else {
            continue;
        };
        let off: Vec<i64> = get(&row, 7)?;
        let mut disabled_on: Vec<Name> = off
            .into_iter()
            .filter_map(at)
            .map(|table| table.name.clone())
            .collect();
        disabled_on.sort();
        let key = Key {
            name: get(&row, 0)?,
            table: table.name.clone(),
            columns: named(table, &get::<Vec<i16>>(&row, 3)?),
            references: references.name.clone(),
            referenced_columns: named(references, &get::<Vec<i16>>(&row, 4)?),
            is_valid: get(&row, 5)?,
            is_enforced: get::<bool>(&row, 6)? && disabled_on.is_empty(),
            disabled_on,
            orphans: None,
        };
        found.insert((key.table.clone(), key.name.clone()), key);
    }
    catalog.keys = found.into_values().collect();
    Ok(())
}

/// The names of a table's columns by their numbers; an expression has no name.
fn named(table: &Table, numbers: &[i16]) -> Vec<String> {
    let name = |number: &i16| {
        let column = table.columns.iter().find(|column| column.number == *number);
        column.map_or_else(String::new, |column| column.name.clone())
    };
    numbers.iter().map(name).collect()
}

/// A number that is never negative.
fn whole(row: &PgRow, column: usize) -> Result<u64> {
    Ok(u64::try_from(get::<i64>(row, column)?).unwrap_or(0))
}

fn get<'r, T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>>(
    row: &'r PgRow,
    column: usize,
) -> Result<T> {
    row.try_get(column).map_err(|error| {
        Error::new(
            ErrorKind::Database,
            format!("the catalog gave an unexpected answer: {error}"),
        )
    })
}

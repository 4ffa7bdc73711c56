//! What a database holds: per table how many rows and a hash that does not depend on their order,
//! and where its sequences stand.
//!
//! The hash adds up one 64-bit hash per row. (A sum, not an exclusive or, in which two equal rows
//! would cancel each other.) Columns are taken by name, so that a column that comes back at the end
//! of its table counts as it did. Values count as they print: 1.0 is not 1.00. Two different
//! contents can in principle have equal hashes; by chance that is about one in 2^64.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sqlx::{PgConnection, Row};

use super::catalog;
use crate::error::Result;
use crate::pg::Address;
use crate::sql;
use crate::sql::{Ident, Relation, Sql};

/// The rows of every ordinary table and leaf partition, and the state of every sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contents {
    /// By the table's qualified name.
    pub tables: BTreeMap<String, TableContents>,
    /// By the sequence's qualified name.
    pub sequences: BTreeMap<String, SequenceState>,
}

/// What one table holds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableContents {
    /// How many rows.
    pub rows: u64,
    /// The sum of the rows' hashes, in decimal.
    pub hash: String,
}

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SequenceState {
    /// The value given out last; `None` when none was.
    pub last: Option<i64>,
    /// What each value adds to the one before; negative counts down.
    pub increment: i64,
}

impl SequenceState {
    /// Whether values that this sequence had given out by `earlier` would be given out again.
    pub fn is_behind(&self, earlier: &Self) -> bool {
        match (self.last, earlier.last) {
            (_, None) => false,
            (None, Some(_)) => true,
            (Some(now), Some(then)) if earlier.increment < 0 => now > then,
            (Some(now), Some(then)) => now < then,
        }
    }
}

/// How the rows of one table differ between two contents.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentsDifference {
    /// The table's qualified name.
    pub table: String,
    /// In the first; `None`: there is no such table.
    pub before: Option<TableContents>,
    /// In the second; `None`: there is no such table.
    pub after: Option<TableContents>,
}

impl Contents {
    /// Reads the contents of the database that the connection is on, in one snapshot.
    ///
    /// Takes a read-only transaction of its own: the connection must not be in one. Foreign tables
    /// and materialized views are left out: they hold no data of their own.
    pub async fn capture(connection: &mut PgConnection, address: &Address) -> Result<Self> {
        let traced = Traced::capture(connection, address, &Known::default()).await?;
        Ok(traced.contents)
    }

    /// Reads the given tables.
    async fn tables(
        connection: &mut PgConnection,
        address: &Address,
        columns: &[&Table],
    ) -> Result<BTreeMap<String, TableContents>> {
        let mut tables = BTreeMap::new();
        for batch in columns.chunks(BATCH) {
            let counts = batch
                .iter()
                .enumerate()
                .map(|(index, table)| table.hash(index));
            let query = Sql::join("\nunion all\n", counts);
            // Each batch is another text: keeping its plan would help no one.
            let rows = sqlx::query(&query)
                .persistent(false)
                .fetch_all(&mut *connection)
                .await
                .map_err(|error| address.error(&error))?;
            for row in rows {
                let read = |error| address.error(&error);
                let index: i32 = row.try_get(0).map_err(read)?;
                let count: i64 = row.try_get(1).map_err(read)?;
                let table = usize::try_from(index).ok().and_then(|at| batch.get(at));
                let table = table.expect("the query answers with the indexes it was given");
                let contents = TableContents {
                    rows: u64::try_from(count).expect("a count is never negative"),
                    hash: row.try_get(2).map_err(read)?,
                };
                tables.insert(table.name.clone(), contents);
            }
        }
        Ok(tables)
    }

    async fn sequences(
        connection: &mut PgConnection,
        address: &Address,
    ) -> Result<BTreeMap<String, SequenceState>> {
        let query = sql!(
            "select format('%I.%I', n.nspname, c.relname), pg_sequence_last_value(c.oid), s.seqincrement
             from pg_sequence s join pg_class c on c.oid = s.seqrelid
             join pg_namespace n on n.oid = c.relnamespace and n.nspname !~ '^pg_'"
        );
        let rows: Vec<(String, Option<i64>, i64)> = sqlx::query_as(&query)
            .fetch_all(connection)
            .await
            .map_err(|error| {
                address
                    .error(&error)
                    .context("the sequences cannot be read")
            })?;
        let state = |(name, last, increment)| (name, SequenceState { last, increment });
        Ok(rows.into_iter().map(state).collect())
    }

    /// How the rows of `other` differ from these, by table.
    pub fn diff(&self, other: &Self) -> Vec<ContentsDifference> {
        let names: BTreeSet<&String> = self.tables.keys().chain(other.tables.keys()).collect();
        let pair = |name: &String| ContentsDifference {
            table: name.clone(),
            before: self.tables.get(name).cloned(),
            after: other.tables.get(name).cloned(),
        };
        let differs = |pair: &ContentsDifference| pair.before != pair.after;
        names.into_iter().map(pair).filter(differs).collect()
    }
}

impl fmt::Display for ContentsDifference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = &self.table;
        match (&self.before, &self.after) {
            (Some(before), Some(after)) if before.rows == after.rows => {
                write!(f, "{table}: {}, but not the same ones", rows(after.rows))
            }
            (Some(before), Some(after)) => {
                write!(
                    f,
                    "{table}: {}, was {}",
                    rows(after.rows),
                    rows(before.rows)
                )
            }
            (Some(before), None) => write!(f, "{table}: gone, had {}", rows(before.rows)),
            (None, Some(after)) => write!(f, "{table}: new, has {}", rows(after.rows)),
            (None, None) => write!(f, "{table}: in neither"),
        }
    }
}

fn rows(count: u64) -> String {
    if count == 1 {
        "1 row".to_owned()
    } else {
        format!("{count} rows")
    }
}

/// Contents that know which table of the catalog each part came from, so that the next capture can
/// take over what cannot have changed.
#[derive(Clone, Debug, Default)]
pub(super) struct Traced {
    /// What the database holds.
    pub(super) contents: Contents,
    /// The columns that were hashed and the name at that time, by the table's number in the catalog.
    origins: BTreeMap<u32, (String, Vec<(String, bool)>)>,
}

/// What is known before a capture.
#[derive(Clone, Copy, Default)]
pub(super) struct Known<'a> {
    /// An earlier capture, and the tables that may have been written to since. Without it, every table
    /// is read.
    pub(super) earlier: Option<(&'a Traced, &'a BTreeSet<u32>)>,
}

impl Traced {
    /// Reads what the database holds. A table that is in the earlier capture with the same columns, and
    /// was not written to, is taken over from there.
    pub(super) async fn capture(
        connection: &mut PgConnection,
        address: &Address,
        known: &Known<'_>,
    ) -> Result<Self> {
        catalog::begin(connection, address).await?;
        let traced = Self::read(connection, address, known).await;
        catalog::end(connection, address, traced).await
    }

    async fn read(
        connection: &mut PgConnection,
        address: &Address,
        known: &Known<'_>,
    ) -> Result<Self> {
        let context = |error: crate::Error| error.context("the rows cannot be read");
        let tables = columns(connection, address).await.map_err(context)?;
        let (taken, unread): (Vec<_>, Vec<_>) = tables
            .iter()
            .map(|table| (table, known.contents_of(table)))
            .partition(|(_, contents)| contents.is_some());
        let unread: Vec<&Table> = unread.into_iter().map(|(table, _)| table).collect();
        let mut held = Contents::tables(connection, address, &unread)
            .await
            .map_err(context)?;
        held.extend(
            taken
                .into_iter()
                .filter_map(|(table, contents)| Some((table.name.clone(), contents?.clone()))),
        );
        let sequences = Contents::sequences(connection, address).await?;
        let origin = |table: Table| (table.oid, (table.name, table.columns));
        Ok(Self {
            contents: Contents {
                tables: held,
                sequences,
            },
            origins: tables.into_iter().map(origin).collect(),
        })
    }
}

impl Known<'_> {
    /// What a table holds, if that cannot have changed.
    fn contents_of(&self, table: &Table) -> Option<&TableContents> {
        let (earlier, written) = self.earlier?;
        let (name, columns) = earlier.origins.get(&table.oid)?;
        let is_as_it_was = !written.contains(&table.oid) && *columns == table.columns;
        is_as_it_was.then(|| earlier.contents.tables.get(name))?
    }
}

/// How many tables one statement reads.
const BATCH: usize = 50;

/// A table with the columns that are hashed.
struct Table {
    oid: u32,
    name: String,
    relation: Relation,
    columns: Vec<(String, bool)>,
}

impl Table {
    /// One row: the index, how many rows there are, and their hash.
    fn hash(&self, index: usize) -> Sql {
        let values = self.columns.iter().map(|(name, is_plain)| {
            let name = Ident::new(name.as_str());
            if *is_plain {
                sql!("t.{}", name)
            } else {
                // The "C" collation: equal under another one need not be the same text.
                sql!("t.{}::text collate \"C\"", name)
            }
        });
        // A row of no columns has nothing to be hashed.
        let hash = if self.columns.is_empty() {
            sql!("0")
        } else {
            sql!("hash_record_extended(row({}), 0)", Sql::join(", ", values))
        };
        sql!(
            "select {}::int4, count(*), coalesce(sum({}::numeric), 0)::text from only {} t",
            index,
            hash,
            self.relation
        )
    }
}

/// Every ordinary table (leaf partitions are some) with its columns by name.
///
/// A column is plain when equal values of its type always print alike; all others are hashed as
/// text, those without a hash function among them (json, xml, point, bit).
async fn columns(connection: &mut PgConnection, address: &Address) -> Result<Vec<Table>> {
    let query = sql!(
        "select c.oid::int8, n.nspname::text, c.relname::text, format('%I.%I', n.nspname, c.relname),
            coalesce(array_agg(a.attname::text order by a.attname) filter (where a.attname is not null), '{{}}'),
            coalesce(array_agg(a.atttypid in ('bool'::regtype, 'int2'::regtype, 'int4'::regtype, 'int8'::regtype,
                'oid'::regtype, 'date'::regtype, 'time'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype,
                'uuid'::regtype, 'bytea'::regtype) order by a.attname) filter (where a.attname is not null), '{{}}')
         from pg_class c join pg_namespace n on n.oid = c.relnamespace
         left join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
         where c.relkind = 'r' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
           and not exists (select from pg_depend x where x.classid = 'pg_class'::regclass and x.objid = c.oid and x.deptype = 'e')
         group by 1, 2, 3, 4 order by 4"
    );
    type Columns = (i64, String, String, String, Vec<String>, Vec<bool>);
    let rows: Vec<Columns> = sqlx::query_as(&query)
        .fetch_all(connection)
        .await
        .map_err(|error| address.error(&error))?;
    let table = |(oid, schema, table, name, columns, is_plain): Columns| Table {
        oid: u32::try_from(oid).expect("an oid has 32 bits"),
        name,
        relation: Relation::new(schema, table),
        columns: columns.into_iter().zip(is_plain).collect(),
    };
    Ok(rows.into_iter().map(table).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn state(last: Option<i64>, increment: i64) -> SequenceState {
        SequenceState { last, increment }
    }

    #[rstest]
    #[case(state(Some(5), 1), state(Some(5), 1), false)]
    #[case(state(Some(9), 1), state(Some(5), 1), false)]
    #[case(state(Some(4), 1), state(Some(5), 1), true)]
    #[case(state(None, 1), state(Some(5), 1), true)]
    #[case(state(None, 1), state(None, 1), false)]
    #[case(state(Some(-4), -1), state(Some(-5), -1), true)]
    #[case(state(Some(-6), -1), state(Some(-5), -1), false)]
    fn a_sequence_is_behind_when_it_would_repeat(
        #[case] now: SequenceState,
        #[case] earlier: SequenceState,
        #[case] expected: bool,
    ) {
        assert_eq!(now.is_behind(&earlier), expected);
    }

    #[test]
    fn a_difference_says_what_became_of_the_rows() {
        let contents = |tables: &[(&str, u64, &str)]| Contents {
            tables: tables
                .iter()
                .map(|&(name, rows, hash)| {
                    (
                        name.to_owned(),
                        TableContents {
                            rows,
                            hash: hash.to_owned(),
                        },
                    )
                })
                .collect(),
            sequences: BTreeMap::new(),
        };
        let before = contents(&[("a", 1, "x"), ("b", 2, "x"), ("c", 3, "x"), ("d", 4, "x")]);
        let after = contents(&[("a", 1, "x"), ("b", 2, "y"), ("c", 1, "x"), ("e", 0, "0")]);
        let lines: Vec<String> = before
            .diff(&after)
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            lines,
            [
                "b: 2 rows, but not the same ones",
                "c: 1 row, was 3 rows",
                "d: gone, had 4 rows",
                "e: new, has 0 rows"
            ]
        );
        assert!(before.diff(&before).is_empty());
    }
}

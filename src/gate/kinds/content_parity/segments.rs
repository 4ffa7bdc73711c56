//! What each side is asked: the sum of its row hashes, sums of row hashes by segment, hashes of the rows of
//! some segments, names and columns of some rows.

use crate::gate::catalog::Column;
use crate::gate::mask;
use crate::gate::{Aggregate, Ask, Finding, Measure, Measured, Scope};
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

pub(super) const TABLE: &str = "table";
pub(super) const AGAINST: &str = "against";
pub(super) const COUNT: &str = "count ";
pub(super) const SUM: &str = "sum ";
pub(super) const SEGMENTS_TABLE: &str = "segments table";
pub(super) const SEGMENTS_AGAINST: &str = "segments against";
pub(super) const ROWS_TABLE: &str = "rows table";
pub(super) const ROWS_AGAINST: &str = "rows against";
pub(super) const NAMES_TABLE: &str = "names table";
pub(super) const NAMES_AGAINST: &str = "names against";
const LEAST: &str = "least key ";
const GREATEST: &str = "greatest key ";
/// Said where segments are made of the hashes of keys, not of the keys.
const BY_HASH: &str = "segments by hash";

/// A text of more digits is not ordered as a number.
pub(super) const DIGITS_MAX: usize = 38;
/// How many segments there are; a power of two.
pub(super) const SEGMENTS: u32 = 4096;
/// More stretches of keys than this are not asked for one by one.
const STRETCHES_MAX: usize = 64;
/// How many rows come in one piece.
const PIECE: u32 = 1024;
/// The segment of rows whose key is null.
const NULL_SEGMENT: i64 = -1;

/// Two relations and how they are compared.
pub(super) struct Compared {
    pub(super) table: Half,
    pub(super) against: Half,
    /// A column of the key here, and the one of the same name there.
    pub(super) key: Vec<(Column, Column)>,
    /// A column here, and the one of the same name there.
    pub(super) columns: Vec<(Column, Column)>,
    /// Whether both servers hash alike.
    pub(super) is_native: bool,
    /// Whether the key is one indexed whole number on both sides.
    pub(super) is_ranged: bool,
    /// What is not compared.
    pub(super) told: Option<Finding>,
}

/// One of the two.
pub(super) struct Half {
    pub(super) scope: Scope,
}

impl Half {
    fn ask(&self, labels: Vec<String>, sql: Sql) -> Measure {
        Measure::Statement {
            labels,
            side: self.scope.side.clone(),
            about: self.scope.relation.clone(),
            sql,
        }
    }
}

/// Which rows make a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Division {
    /// Those whose keys have hashes with the same last bits.
    Hash,
    /// Those whose keys lie in one stretch of this width, the first of which begins here.
    Range { least: i64, width: i64 },
}

/// Whether segments are made of the hashes of keys.
pub(super) fn is_by_hash(measured: &Measured) -> bool {
    measured.has(BY_HASH)
}

impl Division {
    /// Stretches between the least and the greatest key of both sides, once these were asked for.
    fn of(measured: &Measured) -> Option<Self> {
        if is_by_hash(measured) {
            return Some(Division::Hash);
        }
        let ends = |of: &str| -> Option<Vec<i64>> {
            let sides = [TABLE, AGAINST].map(|side| format!("{of}{side}"));
            let asked = sides.iter().filter(|label| measured.has(label));
            let texts: Vec<Option<&str>> = asked.map(|label| measured.text(label)).collect();
            let ends = texts.iter().flatten().map(|text| {
                text.parse()
                    .expect("a whole number was asked for, and came as one")
            });
            (!texts.is_empty()).then(|| ends.collect())
        };
        let (least, greatest) = (ends(LEAST)?, ends(GREATEST)?);
        let (Some(least), Some(greatest)) = (least.iter().min(), greatest.iter().max()) else {
            return Some(Division::Hash);
        };
        let span = i128::from(*greatest) - i128::from(*least);
        let width = i64::try_from(span).map(|span| span / i64::from(SEGMENTS) + 1);
        // Wider than a bigint: Postgres could not subtract them.
        let division = width.map_or(Division::Hash, |width| Division::Range {
            least: *least,
            width,
        });
        Some(division)
    }
}

impl Compared {
    /// How many rows there are on each side, and the sum of their hashes: where both are equal so are
    /// the rows. Other gates on the table share the scan.
    pub(super) fn totals(&self) -> Vec<Measure> {
        let of = |name: &str, half: &Half| {
            let sum = sql!("sum({})", self.hash(&self.columns));
            [
                Aggregate::count(format!("{COUNT}{name}"), &half.scope, None),
                Aggregate::call(format!("{SUM}{name}"), &half.scope, sum, None),
            ]
        };
        let [count, sum] = of(TABLE, &self.table);
        let [other_count, other_sum] = of(AGAINST, &self.against);
        vec![count, sum, other_count, other_sum]
    }

    /// How many rows of which hash each segment of each side holds; before that, where segments are
    /// stretches of keys, which keys there are.
    pub(super) fn segments(&self, measured: &Measured) -> Ask {
        match (Division::of(measured), self.is_ranged) {
            (Some(division), _) => Ask {
                measures: self.sums(division),
                ..Ask::default()
            },
            (None, true) => Ask {
                measures: self.ends(),
                ..Ask::default()
            },
            (None, false) => self.segments_by_hash(),
        }
    }

    /// The same, however the keys lie.
    pub(super) fn segments_by_hash(&self) -> Ask {
        Ask {
            measures: self.sums(Division::Hash),
            known: vec![(BY_HASH.to_owned(), None)],
            ..Ask::default()
        }
    }

    /// The least and the greatest key of each side.
    fn ends(&self) -> Vec<Measure> {
        let of = |name: &str, half: &Half| {
            let labels = vec![format!("{LEAST}{name}"), format!("{GREATEST}{name}")];
            let key = self.ranged_key();
            let sql = sql!(
                "select min({})::text, max({})::text from {} where {}",
                key,
                key,
                half.scope.relation,
                half.scope.condition(None)
            );
            half.ask(labels, sql)
        };
        vec![of(TABLE, &self.table), of(AGAINST, &self.against)]
    }

    fn sums(&self, division: Division) -> Vec<Measure> {
        // `offset 0`: the hash is computed once, and the planner, which knows nothing of it, groups by
        // hashing instead of sorting every row.
        let ask = |label: &str, half: &Half| {
            let sql = sql!(
                "select coalesce(json_agg(json_build_array(g.b, g.n, g.s::text)), '[]')::text from \
                 (select r.b, count(*) as n, sum(r.h) as s from \
                 (select {} as b, {} as h from {} where {} offset 0) r group by 1) g",
                self.segment(division),
                self.hash(&self.columns),
                half.scope.relation,
                half.scope.condition(None)
            );
            half.ask(vec![label.to_owned()], sql)
        };
        vec![
            ask(SEGMENTS_TABLE, &self.table),
            ask(SEGMENTS_AGAINST, &self.against),
        ]
    }

    /// The segment of a row.
    fn segment(&self, division: Division) -> Sql {
        match division {
            Division::Hash => sql!("{} & {}", self.hash(&self.key), SEGMENTS - 1),
            Division::Range { least, width } => sql!(
                "coalesce(({}::bigint - ({})::bigint) / {}, {})",
                self.ranged_key(),
                least,
                width,
                NULL_SEGMENT
            ),
        }
    }

    fn ranged_key(&self) -> Ident {
        let (own, _) = self.key.first().expect("a key has a column");
        Ident::new(own.name.clone())
    }

    /// Whether a row is in one of these segments, in words that an index on the key can follow.
    fn is_within(&self, division: Division, segments: &[i64]) -> Sql {
        let listed = || {
            let list = Sql::join(", ", segments.iter().copied());
            sql!("({}) in ({})", self.segment(division), list)
        };
        let Division::Range { least, width } = division else {
            return listed();
        };
        // Neighbours are one stretch, from one segment to before another.
        let mut stretches: Vec<(i64, i64)> = Vec::new();
        for segment in segments.iter().filter(|segment| **segment >= 0) {
            match stretches.last_mut() {
                Some((_, end)) if *end == *segment => *end += 1,
                _ => stretches.push((*segment, segment + 1)),
            }
        }
        if stretches.len() > STRETCHES_MAX {
            return listed();
        }
        let start_of = |segment: i64| {
            let start = i128::from(least) + i128::from(segment) * i128::from(width);
            start.min(i128::from(i64::MAX) + 1)
        };
        let key = self.ranged_key();
        let stretches = stretches.into_iter().map(|(first, end)| {
            let last = i64::try_from(start_of(end) - 1).expect("bounded by the greatest bigint");
            let first = i64::try_from(start_of(first)).expect("a segment begins at a key or below");
            sql!("{} between ({})::bigint and ({})::bigint", key, first, last)
        });
        let nulls = segments.contains(&NULL_SEGMENT);
        let nulls = nulls.then(|| sql!("{} is null", key));
        Sql::join(" or ", stretches.chain(nulls))
    }

    /// The hash of the key and the hash of the row, of every row of these segments, of both sides, as 32
    /// hexadecimal digits each, in the order in which rows are named, in pieces.
    pub(super) fn rows(&self, measured: &Measured, segments: &[i64]) -> Vec<Measure> {
        let is_within = self.is_within_of(measured, segments);
        let key: Vec<Ident> = (0..self.key.len())
            .map(|n| Ident::new(format!("k{n}")))
            .collect();
        let pairs = self.key.iter().zip(&key);
        let values = pairs
            .clone()
            .map(|(pair, place)| sql!("({}) collate \"C\" as {}", key_text(pair), place));
        let values = Sql::join(", ", values);
        let order = Sql::join(", ", pairs.map(|(pair, place)| in_order(pair, place)));
        let ask = |label: &str, half: &Half| {
            let sql = sql!(
                "select p.h from (select -1 as n, '' as h union all \
                 select o.n, encode(string_agg(o.h, '' order by o.at), 'hex') from \
                 (select (row_number() over s - 1) / {} as n, row_number() over s as at, int8send(r.i) || int8send(r.h) as h \
                 from (select {} as i, {} as h, {} from {} where {}) r window s as (order by {})) o \
                 group by o.n) p order by p.n",
                PIECE,
                self.hash(&self.key),
                self.hash(&self.columns),
                values,
                half.scope.relation,
                half.scope.condition(Some(&is_within)),
                order
            );
            half.ask(vec![label.to_owned()], sql)
        };
        vec![
            ask(ROWS_TABLE, &self.table),
            ask(ROWS_AGAINST, &self.against),
        ]
    }

    /// The name of each of these keys, which are known by their hashes; of those in `changed`, which one row
    /// of each side has, the names and hashes of all columns, too.
    pub(super) fn names(
        &self,
        measured: &Measured,
        segments: &[i64],
        keys: &[i64],
        changed: &[i64],
    ) -> Vec<Measure> {
        let is_within = self.is_within_of(measured, segments);
        let names = self.columns.iter().map(|(own, _)| Literal(&own.name));
        let names = Sql::join(", ", names);
        let values = self.columns.iter().map(|pair| match is_masked(pair) {
            true => sql!("coalesce({}, 'null')", mask::stand_in(&self.value(pair))),
            false => sql!("({})::text", self.hash(std::slice::from_ref(pair))),
        });
        let values = Sql::join(", ", values);
        let columns = match changed {
            [] => sql!("null::json"),
            _ => sql!(
                "case when r.i in ({}) then json_build_array(r.n, r.v) end",
                Sql::join(", ", changed.iter().copied())
            ),
        };
        let keys = Sql::join(", ", keys.iter().copied());
        let ask = |label: &str, half: &Half| {
            let sql = sql!(
                "select coalesce(json_agg(json_build_array(d.i, d.k, d.c)), '[]')::text from \
                 (select distinct on (r.i) r.i, r.k, {} as c from \
                 (select {} as i, {} as k, array[{}]::text[] as n, array[{}]::text[] as v from {} where {}) r \
                 where r.i in ({}) order by r.i, r.k collate \"C\") d",
                columns,
                self.hash(&self.key),
                self.name(),
                names,
                values,
                half.scope.relation,
                half.scope.condition(Some(&is_within)),
                keys
            );
            half.ask(vec![label.to_owned()], sql)
        };
        vec![
            ask(NAMES_TABLE, &self.table),
            ask(NAMES_AGAINST, &self.against),
        ]
    }

    /// Whether a row is in one of these segments, as they were asked for.
    fn is_within_of(&self, measured: &Measured, segments: &[i64]) -> Sql {
        let division = Division::of(measured).expect("segments were asked for before their rows");
        self.is_within(division, segments)
    }

    /// The key of a row: its columns' names and values as text, as a JSON array in one text.
    fn name(&self) -> Sql {
        let parts = self.key.iter().map(|pair| {
            let (name, text) = (Literal(&pair.0.name), key_text(pair));
            sql!("json_build_array({}, {})", name, text)
        });
        sql!("json_build_array({})::text", Sql::join(", ", parts))
    }

    fn hash(&self, columns: &[(Column, Column)]) -> Sql {
        let values = Sql::join(", ", columns.iter().map(|pair| self.value(pair)));
        if self.is_native {
            sql!("hash_record_extended(row({}), 0)", values)
        } else {
            sql!(
                "('x' || substr(md5(row({})::text), 1, 16))::bit(64)::bigint",
                values
            )
        }
    }

    /// A column as it is hashed: itself where both servers hash its type alike, else its text. By its
    /// bytes: what a collation takes for equal is not.
    fn value(&self, pair: &(Column, Column)) -> Sql {
        let name = Ident::new(pair.0.name.clone());
        if !self.is_native || !is_plain(pair) {
            sql!("{}::text collate \"C\"", name)
        } else if pair.0.category == 'S' {
            sql!("{} collate \"C\"", name)
        } else {
            sql!("{}", name)
        }
    }
}

/// A column of a key as it is told.
fn key_text(pair: &(Column, Column)) -> Sql {
    let (own, other) = pair;
    let value = sql!("{}", Ident::new(own.name.clone()));
    let longer = if mask::is_short(own) { other } else { own };
    mask::named(&value, longer, is_masked(pair))
}

/// What a column of a key, as it is told, is ordered by: the order of [`Rank`](super::compare::Rank).
fn in_order(pair: &(Column, Column), place: &Ident) -> Sql {
    let number = match is_whole(&pair.0) && is_whole(&pair.1) {
        true => sql!("r.{}::bigint", place),
        false => {
            let form = format!("^[+-]?[0-9]{{1,{DIGITS_MAX}}}$");
            sql!(
                "case when r.{} ~ {} then r.{}::numeric end",
                place,
                Literal(&form),
                place
            )
        }
    };
    // What is no number has none, and comes last; of equal numbers and of others the text decides.
    sql!("{} nulls last, r.{} nulls first", number, place)
}

/// Whether the values of a column are whole numbers, and told as such.
pub(super) fn is_whole(column: &Column) -> bool {
    const WHOLE: &[&str] = &["smallint", "integer", "bigint"];
    !column.is_masked && WHOLE.contains(&column.type_name.as_str())
}

/// Columns of a key, by name and value as text.
pub(super) type Key = Vec<(String, Option<String>)>;

/// Whether a column has one type on both sides, which Postgres hashes by its values.
fn is_plain((own, other): &(Column, Column)) -> bool {
    own.type_name == other.type_name && is_hashable(&own.type_name)
}

/// Whether the values of a column are masked on any side.
fn is_masked((own, other): &(Column, Column)) -> bool {
    own.is_masked || other.is_masked
}

/// Whether Postgres hashes a type by its values alone. An enum hashes by an identifier of its own
/// database, and what holds other types is not looked into.
fn is_hashable(type_name: &str) -> bool {
    const WHOLE: &[&str] = &[
        "smallint",
        "integer",
        "bigint",
        "boolean",
        "text",
        "date",
        "uuid",
        "bytea",
        "real",
        "double precision",
        "jsonb",
        "inet",
        "cidr",
        "macaddr",
        "interval",
        "name",
    ];
    const STARTS: &[&str] = &["numeric", "character", "timestamp", "time "];
    !type_name.ends_with(']')
        && (WHOLE.contains(&type_name) || STARTS.iter().any(|start| type_name.starts_with(start)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gate::catalog::Side;
    use crate::sql::Relation;

    fn hash(is_native: bool) -> String {
        let column = |name: &str, type_name: &str| Column {
            name: name.to_owned(),
            type_name: type_name.to_owned(),
            category: 'U',
            is_not_null: false,
            is_nullable: true,
            is_masked: false,
        };
        let half = |table| Half {
            scope: Scope {
                side: Side::Main,
                relation: Relation::new("s", table),
                filter: None,
                sample: None,
            },
        };
        let compared = Compared {
            table: half("a"),
            against: half("b"),
            key: vec![(column("id", "integer"), column("id", "integer"))],
            is_ranged: false,
            told: None,
            columns: vec![
                (column("id", "integer"), column("id", "integer")),
                (column("n", "integer"), column("n", "bigint")),
                (column("doc", "json"), column("doc", "json")),
                (column("many", "text[]"), column("many", "text[]")),
            ],
            is_native,
        };
        compared.hash(&compared.columns).as_str().to_owned()
    }

    #[test]
    fn what_both_servers_do_not_hash_alike_is_hashed_by_its_text() {
        assert_eq!(
            hash(true),
            r#"hash_record_extended(row("id", "n"::text collate "C", "doc"::text collate "C", "many"::text collate "C"), 0)"#
        );
        assert_eq!(
            hash(false),
            r#"('x' || substr(md5(row("id"::text collate "C", "n"::text collate "C", "doc"::text collate "C", "many"::text collate "C")::text), 1, 16))::bit(64)::bigint"#
        );
    }
}

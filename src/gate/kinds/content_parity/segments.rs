//! What each side is asked: the sum of its row hashes, sums of row hashes by segment, rows of some segments, columns of some rows.

use crate::gate::catalog::Column;
use crate::gate::{Aggregate, Measure, Scope};
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
pub(super) const COLUMNS_TABLE: &str = "columns table";
pub(super) const COLUMNS_AGAINST: &str = "columns against";

/// A power of two less one: the bits of a row's hash that say its segment.
const SEGMENT_BITS: u32 = 4095;

/// Two relations and how they are compared.
pub(super) struct Compared {
    pub(super) table: Half,
    pub(super) against: Half,
    pub(super) key: Vec<String>,
    /// A column here, and the one of the same name there.
    pub(super) columns: Vec<(Column, Column)>,
    /// Whether both servers hash alike.
    pub(super) is_native: bool,
}

/// One of the two.
pub(super) struct Half {
    pub(super) scope: Scope,
}

impl Half {
    fn ask(&self, label: &str, sql: Sql) -> Measure {
        Measure::Statement {
            labels: vec![label.to_owned()],
            side: self.scope.side.clone(),
            about: self.scope.relation.clone(),
            sql,
        }
    }
}

impl Compared {
    /// How many rows there are on each side, and the sum of their hashes: where both are equal so are
    /// the rows. Other gates on the table share the scan.
    pub(super) fn totals(&self) -> Vec<Measure> {
        let of = |name: &str, half: &Half| {
            let sum = sql!("sum({})", self.hash());
            [
                Aggregate::count(format!("{COUNT}{name}"), &half.scope, None),
                Aggregate::call(format!("{SUM}{name}"), &half.scope, sum, None),
            ]
        };
        let [count, sum] = of(TABLE, &self.table);
        let [other_count, other_sum] = of(AGAINST, &self.against);
        vec![count, sum, other_count, other_sum]
    }

    /// How many rows of which hash each segment of each side holds.
    pub(super) fn segments(&self) -> Vec<Measure> {
        // `offset 0`: the hash is computed once, and the planner, which knows nothing of it, groups by
        // hashing instead of sorting every row.
        let ask = |label, half: &Half| {
            let sql = sql!(
                "select coalesce(json_agg(json_build_array(g.b, g.n, g.s::text)), '[]')::text from \
                 (select h & {} as b, count(*) as n, sum(h) as s from \
                 (select {} as h from {} where {} offset 0) r group by 1) g",
                SEGMENT_BITS,
                self.hash(),
                half.scope.relation,
                half.scope.condition(None)
            );
            half.ask(label, sql)
        };
        vec![
            ask(SEGMENTS_TABLE, &self.table),
            ask(SEGMENTS_AGAINST, &self.against),
        ]
    }

    /// Key and hash of every row of these segments, of both sides.
    pub(super) fn rows(&self, segments: &[u32]) -> Vec<Measure> {
        let segments = Sql::join(", ", segments.iter().copied());
        let ask = |label, half: &Half| {
            let sql = sql!(
                "select coalesce(json_agg(json_build_array(r.k, r.h::text)), '[]')::text from \
                 (select {} as k, {} as h from {} where {}) r where (r.h & {}) in ({})",
                self.name(),
                self.hash(),
                half.scope.relation,
                half.scope.condition(None),
                SEGMENT_BITS,
                segments
            );
            half.ask(label, sql)
        };
        vec![
            ask(ROWS_TABLE, &self.table),
            ask(ROWS_AGAINST, &self.against),
        ]
    }

    /// The hash of each column of these rows, of both sides, by the column's name.
    pub(super) fn values(&self, keys: &[String]) -> Vec<Measure> {
        let keys = Sql::join(", ", keys.iter().map(|key| Literal(key)));
        let names = self.columns.iter().map(|(own, _)| Literal(&own.name));
        let names = Sql::join(", ", names);
        let hashes = self.columns.iter().map(|pair| {
            let value = self.value(pair);
            sql!("coalesce(md5({}::text), 'null')", value)
        });
        let hashes = Sql::join(", ", hashes);
        let ask = |label, half: &Half| {
            let sql = sql!(
                "select coalesce(json_agg(json_build_array(r.k, r.n, r.v)), '[]')::text from \
                 (select {} as k, array[{}]::text[] as n, array[{}]::text[] as v from {} where {}) r where r.k in ({})",
                self.name(),
                names,
                hashes,
                half.scope.relation,
                half.scope.condition(None),
                keys
            );
            half.ask(label, sql)
        };
        vec![
            ask(COLUMNS_TABLE, &self.table),
            ask(COLUMNS_AGAINST, &self.against),
        ]
    }

    /// The key of a row as a JSON array of texts under their names, in one text.
    fn name(&self) -> Sql {
        let parts = self
            .key
            .iter()
            .map(|name| sql!("{}, {}::text", Literal(name), Ident::new(name.clone())));
        sql!("json_build_object({})::text", Sql::join(", ", parts))
    }

    fn hash(&self) -> Sql {
        let values = self.columns.iter().map(|pair| self.value(pair));
        let values = Sql::join(", ", values);
        if self.is_native {
            sql!("hash_record_extended(row({}), 0)", values)
        } else {
            sql!(
                "('x' || substr(md5(row({})::text), 1, 16))::bit(64)::bigint",
                values
            )
        }
    }

    /// A column as it is hashed: itself where both servers hash its type alike, else its text.
    fn value(&self, (own, other): &(Column, Column)) -> Sql {
        let name = Ident::new(own.name.clone());
        if self.is_native && own.type_name == other.type_name && is_hashable(&own.type_name) {
            sql!("{}", name)
        } else {
            sql!("{}::text", name)
        }
    }
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
        };
        let half = |table| Half {
            scope: Scope {
                side: Side::Main,
                relation: Relation::new("s", table),
                filter: None,
            },
        };
        let compared = Compared {
            table: half("a"),
            against: half("b"),
            key: vec!["id".to_owned()],
            columns: vec![
                (column("id", "integer"), column("id", "integer")),
                (column("n", "integer"), column("n", "bigint")),
                (column("doc", "json"), column("doc", "json")),
                (column("many", "text[]"), column("many", "text[]")),
            ],
            is_native,
        };
        compared.hash().as_str().to_owned()
    }

    #[test]
    fn what_both_servers_do_not_hash_alike_is_hashed_by_its_text() {
        assert_eq!(
            hash(true),
            r#"hash_record_extended(row("id", "n"::text, "doc"::text, "many"::text), 0)"#
        );
        assert_eq!(
            hash(false),
            r#"('x' || substr(md5(row("id"::text, "n"::text, "doc"::text, "many"::text)::text), 1, 16))::bit(64)::bigint"#
        );
    }
}

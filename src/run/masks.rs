//! Finds the masked columns of a database: those that patterns name and comments tag, and those that
//! hold the same values.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{Catalog, Side};
use crate::gate::mask::{MaskedTable, Masks, Pattern};
use crate::pg::Session;
use crate::sql::Relation;

use super::catalog::parse;

// From the columns that are named, on: to partitions and tables that inherit, and back to what they are
// parts of; to columns with a foreign key on a masked one, or generated from it; to views. The catalog does not say which
// column of a view shows which of a table: each may, but for one that bears the name of a column that
// the view reads and that is not this one.
const MASKED: &str = "
with recursive pattern as (
  select * from unnest($1::text[], $2::text[], $3::text[]) with ordinality p(schema_name, table_name, column_name, place)
), seed(oid, name, place) as (
  select c.oid, a.attname, p.place
  from pattern p join pg_namespace n on n.nspname like p.schema_name join pg_class c on c.relnamespace = n.oid and c.relname like p.table_name
  join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attname like p.column_name
  where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  union all
  select a.attrelid, a.attname, 0
  from pg_description d join pg_attribute a on a.attrelid = d.objoid and a.attnum > 0 and not a.attisdropped and d.objsubid in (0, a.attnum)
  where d.classoid = 'pg_class'::regclass and position($4[1] in lower(d.description)) > 0
), masked(oid, name) as (
  select oid, name from seed
  union
  select l.oid, l.name from masked m cross join lateral (
    select i.inhrelid, m.name from pg_inherits i where i.inhparent = m.oid
    union all
    select i.inhparent, m.name from pg_inherits i where i.inhrelid = m.oid
    union all
    select k.conrelid, own.attname
    from pg_constraint k cross join unnest(k.conkey, k.confkey) u(own, other)
    join pg_attribute other on other.attrelid = k.confrelid and other.attnum = u.other and other.attname = m.name
    join pg_attribute own on own.attrelid = k.conrelid and own.attnum = u.own
    where k.contype = 'f' and k.confrelid = m.oid
    union all
    select g.attrelid, g.attname
    from pg_attribute a join pg_depend d on d.refclassid = 'pg_class'::regclass and d.refobjid = a.attrelid and d.refobjsubid = a.attnum
    join pg_attrdef f on f.adrelid = a.attrelid
      and (d.classid, d.objid) in (('pg_attrdef'::regclass, f.oid), ('pg_class'::regclass, f.adrelid)) and d.objsubid in (0, f.adnum)
    join pg_attribute g on g.attrelid = f.adrelid and g.attnum = f.adnum and g.attgenerated <> ''
    where a.attrelid = m.oid and a.attname = m.name
    union all
    select r.ev_class, a.attname
    from pg_depend d join pg_rewrite r on r.oid = d.objid and r.ev_class <> m.oid
    join pg_class v on v.oid = r.ev_class and v.relkind in ('v', 'm')
    join pg_attribute a on a.attrelid = v.oid and a.attnum > 0 and not a.attisdropped
    where d.classid = 'pg_rewrite'::regclass and d.refclassid = 'pg_class'::regclass and d.refobjid = m.oid
      and (a.attname = m.name or not exists (
        select from pg_depend o join pg_attribute b on b.attrelid = o.refobjid and b.attnum > 0 and not b.attisdropped
        where o.classid = 'pg_rewrite'::regclass and o.objid = r.oid and o.refclassid = 'pg_class'::regclass
          and o.refobjid <> v.oid and b.attname = a.attname))
  ) l(oid, name)
)
select json_build_object('schema', n.nspname, 'name', c.relname, 'masked', m.names,
  'others', (select coalesce(json_agg(a.attname), '[]') from pg_attribute a
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attname <> all(m.names)),
  'places', coalesce(s.places, '{}'))::text
from (select oid, array_agg(name) from masked group by oid) m(oid, names)
join pg_class c on c.oid = m.oid and c.relkind in ('r', 'p', 'v', 'm', 'f') join pg_namespace n on n.oid = c.relnamespace
left join (select oid, array_agg(distinct place) from seed where place > 0 group by oid) s(oid, places) on s.oid = m.oid
order by n.nspname, c.relname";

#[derive(Deserialize)]
struct MaskedRow {
    schema: String,
    name: String,
    masked: BTreeSet<String>,
    others: BTreeSet<String>,
    /// The patterns that match a column, from 1.
    places: Vec<usize>,
}

/// The masked columns of the database that the session is on.
pub(super) async fn load(session: &mut Session, patterns: &[Pattern]) -> Result<Masks> {
    let part = |part: usize| patterns.iter().map(move |one| one.like()[part].clone());
    let parameters = [
        part(0).collect(),
        part(1).collect(),
        part(2).collect(),
        vec![crate::gate::mask::TAG.to_owned()],
    ];
    let mut masks = Masks::default();
    for row in session.ask_catalog(MASKED, &parameters).await? {
        let row: MaskedRow = parse(&row)?;
        masks
            .matched
            .extend(row.places.iter().map(|place| place - 1));
        let table = MaskedTable {
            masked: row.masked,
            others: row.others,
        };
        masks.add(Relation::new(row.schema, row.name), table);
    }
    Ok(masks)
}

/// Says of each pattern that matches no column of any of the databases that it does not.
pub(super) fn unmatched(patterns: &[Pattern], catalogs: &BTreeMap<Side, Catalog>) -> Vec<String> {
    let is_matched = |place: usize| {
        let mut catalogs = catalogs.values();
        catalogs.any(|catalog| catalog.masks.matched.contains(&place))
    };
    let unmatched = patterns.iter().enumerate();
    let unmatched = unmatched.filter(|(place, _)| !is_matched(*place));
    let told = unmatched.map(|(_, pattern)| {
        format!(
            "`{}` in [mask] matches no column: nothing is masked by it",
            pattern.as_str()
        )
    });
    told.collect()
}

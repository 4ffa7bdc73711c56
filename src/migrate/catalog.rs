//! The catalog queries behind [`Shape`](super::Shape): one per kind of object.
//!
//! Each answers rows of (kind, whole or null, name, definition). They run with `search_path` set to
//! `pg_catalog`, so that every other name in a definition is qualified.

use std::sync::LazyLock;

use sqlx::{Executor, PgConnection};

use crate::error::Result;
use crate::pg::Address;
use crate::sql;
use crate::sql::{Literal, Sql};

/// Begins a read-only transaction in which definitions and values always read the same.
pub(super) async fn begin(connection: &mut PgConnection, address: &Address) -> Result<()> {
    let begin = sql!(
        "begin transaction isolation level repeatable read read only;
         set local search_path = pg_catalog; set local row_security = off;
         set local statement_timeout = 0; set local datestyle = 'ISO, YMD';
         set local intervalstyle = 'postgres'; set local timezone = 'UTC';
         set local extra_float_digits = 1; set local bytea_output = 'hex';
         set local lc_monetary = 'C'; set local quote_all_identifiers = off"
    );
    run(connection, address, begin).await
}

/// Ends what [`begin`] began, whatever came of it, and passes the result on.
pub(super) async fn end<T>(
    connection: &mut PgConnection,
    address: &Address,
    result: Result<T>,
) -> Result<T> {
    // It only read: taking it back loses nothing, and works after an error too.
    let ended = run(connection, address, sql!("rollback")).await;
    let value = result?;
    ended.map(|()| value)
}

async fn run(connection: &mut PgConnection, address: &Address, sql: Sql) -> Result<()> {
    connection
        .execute(sqlx::raw_sql(sql))
        .await
        .map(drop)
        .map_err(|error| address.error(&error))
}

/// The kind under which the order of a relation's columns is kept.
pub(super) const COLUMN_ORDER: &str = "order of the columns of";

/// The queries, in the order they are asked.
pub(super) fn shape_queries() -> &'static [Sql] {
    static QUERIES: LazyLock<Vec<Sql>> = LazyLock::new(|| {
        let mut queries = relations();
        queries.extend(parts());
        queries.extend(routines_and_types());
        queries.extend(whole_database());
        queries.push(privileges());
        queries.push(comments());
        queries
    });
    &QUERIES
}

/// True of a schema that is the user's: not the system's and not a session's own.
fn user_schema() -> Sql {
    sql!("(n.nspname !~ '^pg_' and n.nspname <> 'information_schema')")
}

/// True of a function that neither an extension owns nor a type, as its constructor.
fn own_function() -> Sql {
    sql!(
        "{} and not exists (select from pg_depend x where x.classid = 'pg_proc'::regclass and x.objid = p.oid and x.deptype = 'i')",
        no_extension("pg_proc", &sql!("p.oid"))
    )
}

/// True of an object that no extension owns.
fn no_extension(class: &str, oid: &Sql) -> Sql {
    sql!(
        "not exists (select from pg_depend x where x.classid = {}::regclass and x.objid = {} and x.deptype = 'e')",
        Literal(class),
        oid
    )
}

/// The relation's kind, as a person says it.
fn relation_kind() -> Sql {
    sql!(
        "case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'S' then 'sequence' when 'f' then 'foreign table' when 'i' then 'index' when 'I' then 'index' when 'c' then 'type' else 'table' end"
    )
}

/// The user's relations `c` in schemas `n`, of some kinds.
fn user_relations(kinds: &str) -> Sql {
    sql!(
        "pg_class c join pg_namespace n on n.oid = c.relnamespace and {} and {} and position(c.relkind::text in {}) > 0",
        user_schema(),
        no_extension("pg_class", &sql!("c.oid")),
        Literal(kinds)
    )
}

fn qualified() -> Sql {
    sql!("format('%I.%I', n.nspname, c.relname)")
}

/// Schemas and everything that is a relation, each with what is its own.
fn relations() -> Vec<Sql> {
    vec![
        sql!(
            "select 'schema', null::text, quote_ident(n.nspname), 'owner ' || n.nspowner::regrole
             from pg_namespace n where {} and {}",
            user_schema(),
            no_extension("pg_namespace", &sql!("n.oid"))
        ),
        // pg_get_viewdef of a table would be an error, so it is only asked of views.
        sql!(
            "select {}, null::text, {}, concat_ws('; ',
                'owner ' || c.relowner::regrole,
                case c.relpersistence when 'u' then 'unlogged' when 't' then 'temporary' end,
                case when c.relkind = 'p' then 'partition by ' || pg_get_partkeydef(c.oid) end,
                case when c.relispartition then pg_get_expr(c.relpartbound, c.oid) end,
                (select 'inherits ' || string_agg(i.inhparent::regclass::text, ', ' order by i.inhseqno)
                   from pg_inherits i where i.inhrelid = c.oid),
                case when c.reloftype <> 0 then 'of type ' || c.reloftype::regtype end,
                'options ' || array_to_string((select array_agg(o order by o) from unnest(c.reloptions) o), ', '),
                (select 'tablespace ' || quote_ident(t.spcname) from pg_tablespace t where t.oid = c.reltablespace),
                (select 'access method ' || quote_ident(a.amname) from pg_am a where a.oid = c.relam and a.amname <> 'heap'),
                case when c.relkind in ('r', 'p') then case c.relreplident when 'f' then 'replica identity full'
                  when 'n' then 'replica identity nothing' when 'i' then 'replica identity index' end end,
                case when c.relrowsecurity then 'row security enabled' end,
                case when c.relforcerowsecurity then 'row security forced' end,
                (select 'server ' || quote_ident(s.srvname) || ' options ' || coalesce(f.ftoptions::text, 'none')
                   from pg_foreign_table f join pg_foreign_server s on s.oid = f.ftserver where f.ftrelid = c.oid),
                case when c.relkind = 'm' and not c.relispopulated then 'not populated' end,
                case when c.relkind in ('v', 'm') then pg_get_viewdef(c.oid) end)
             from {}",
            relation_kind(),
            qualified(),
            user_relations("rpvmf")
        ),
        sql!(
            "select 'sequence', null::text, {}, concat_ws('; ', 'owner ' || c.relowner::regrole,
                case c.relpersistence when 'u' then 'unlogged' end,
                format('%s start %s increment %s min %s max %s cache %s', s.seqtypid::regtype, s.seqstart,
                       s.seqincrement, s.seqmin, s.seqmax, s.seqcache),
                case when s.seqcycle then 'cycle' end,
                (select format('%s %s.%I', case d.deptype when 'i' then 'identity of' else 'owned by' end,
                        d.refobjid::regclass, a.attname)
                   from pg_depend d join pg_attribute a on a.attrelid = d.refobjid and a.attnum = d.refobjsubid
                  where d.classid = 'pg_class'::regclass and d.objid = c.oid
                    and d.refclassid = 'pg_class'::regclass and d.deptype in ('a', 'i')))
             from {} join pg_sequence s on s.seqrelid = c.oid",
            qualified(),
            user_relations("S")
        ),
    ]
}

/// What belongs to a relation.
fn parts() -> Vec<Sql> {
    let with_parts = || user_relations("rpvmfc");
    vec![
        sql!(
            "select 'column', {}, quote_ident(a.attname), concat_ws(' ', format_type(a.atttypid, a.atttypmod),
                case when a.attnotnull then 'not null' end,
                case a.attgenerated when 's' then 'generated as (' || pg_get_expr(d.adbin, d.adrelid) || ') stored'
                  when 'v' then 'generated as (' || pg_get_expr(d.adbin, d.adrelid) || ') virtual'
                  else 'default ' || pg_get_expr(d.adbin, d.adrelid) end,
                case a.attidentity when 'a' then 'generated always as identity' when 'd' then 'generated by default as identity' end,
                case when a.attcollation <> t.typcollation then 'collate ' || a.attcollation::regcollation end,
                case when a.attstorage <> t.typstorage then 'storage ' || a.attstorage::text end,
                case when a.attcompression <> '' then 'compression ' || a.attcompression::text end,
                case when coalesce(a.attstattarget, -1) <> -1 then 'statistics ' || a.attstattarget end,
                case when not a.attislocal then 'inherited' end,
                'options ' || array_to_string(a.attoptions, ', '),
                'foreign options ' || array_to_string(a.attfdwoptions, ', '))
             from {} join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             join pg_type t on t.oid = a.atttypid
             left join pg_attrdef d on d.adrelid = c.oid and d.adnum = a.attnum",
            qualified(),
            with_parts()
        ),
        sql!(
            "select {}::text, {}, '', string_agg(quote_ident(a.attname), ', ' order by a.attnum)
             from {} join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             group by n.nspname, c.relname",
            Literal(COLUMN_ORDER),
            qualified(),
            with_parts()
        ),
        // From version 18 on a NOT NULL is a constraint too; the column says it already.
        sql!(
            "select case k.contype when 'p' then 'primary key' when 'f' then 'foreign key' when 'u' then 'unique constraint'
                when 'c' then 'check' when 't' then 'constraint trigger' when 'n' then 'not-null constraint' else 'exclusion' end,
                {}, quote_ident(k.conname), concat_ws('; ', pg_get_constraintdef(k.oid),
                  case when not k.convalidated then 'not validated' end,
                  case when not k.conislocal then 'inherited' end)
             from {} join pg_constraint k on k.conrelid = c.oid
             where k.contype <> 'n' or not k.convalidated",
            qualified(),
            user_relations("rpf")
        ),
        sql!(
            "select 'index', {}, quote_ident(ic.relname), concat_ws('; ', pg_get_indexdef(i.indexrelid),
                case when not i.indisvalid then 'invalid' end, case when i.indisreplident then 'replica identity' end,
                case when i.indisclustered then 'clustered' end,
                (select 'tablespace ' || quote_ident(t.spcname) from pg_tablespace t where t.oid = ic.reltablespace))
             from {} join pg_index i on i.indrelid = c.oid join pg_class ic on ic.oid = i.indexrelid",
            qualified(),
            user_relations("rpm")
        ),
        // Internal triggers are named by number; whether they are enabled is part of what they enforce.
        sql!(
            "select 'trigger', {}, quote_ident(t.tgname), concat_ws('; ', pg_get_triggerdef(t.oid),
                case t.tgenabled when 'D' then 'disabled' when 'R' then 'on replica' when 'A' then 'always' end)
             from {} join pg_trigger t on t.tgrelid = c.oid and not t.tgisinternal
             union all
             select 'enforcement of foreign key', {}, quote_ident(k.conname),
                string_agg(case t.tgenabled when 'D' then 'disabled' when 'R' then 'on replica' when 'A' then 'always' else 'enabled' end,
                           ', ' order by t.tgfoid, t.tgrelid::regclass::text, t.tgenabled)
             from {} join pg_constraint k on k.conrelid = c.oid and k.contype = 'f'
             join pg_trigger t on t.tgconstraint = k.oid and t.tgisinternal
             group by n.nspname, c.relname, k.conname",
            qualified(),
            user_relations("rpvf"),
            qualified(),
            user_relations("rp")
        ),
        sql!(
            "select 'rule', {}, quote_ident(r.rulename), concat_ws('; ', pg_get_ruledef(r.oid),
                case r.ev_enabled when 'D' then 'disabled' when 'R' then 'on replica' when 'A' then 'always' end)
             from {} join pg_rewrite r on r.ev_class = c.oid and r.rulename <> '_RETURN'",
            qualified(),
            user_relations("rpvmf")
        ),
        sql!(
            "select 'policy', {}, quote_ident(p.polname), concat_ws('; ',
                case when p.polpermissive then 'permissive' else 'restrictive' end,
                'for ' || case p.polcmd when 'r' then 'select' when 'a' then 'insert' when 'w' then 'update' when 'd' then 'delete' else 'all' end,
                'to ' || (select string_agg(case r when 0 then 'public' else r::regrole::text end, ', ' order by r::regrole::text) from unnest(p.polroles) r),
                'using ' || pg_get_expr(p.polqual, p.polrelid), 'with check ' || pg_get_expr(p.polwithcheck, p.polrelid))
             from {} join pg_policy p on p.polrelid = c.oid",
            qualified(),
            user_relations("rp")
        ),
        sql!(
            "select 'statistics', {}, case when sn.oid = n.oid then quote_ident(s.stxname) else format('%I.%I', sn.nspname, s.stxname) end, pg_get_statisticsobjdef(s.oid)
             from {} join pg_statistic_ext s on s.stxrelid = c.oid join pg_namespace sn on sn.oid = s.stxnamespace",
            qualified(),
            user_relations("rpmf")
        ),
    ]
}

/// Functions, aggregates, types, collations.
fn routines_and_types() -> Vec<Sql> {
    vec![
        // pg_get_functiondef refuses aggregates.
        sql!(
            "select case p.prokind when 'a' then 'aggregate' when 'p' then 'procedure' else 'function' end, null::text,
                format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)),
                concat_ws('; ', 'owner ' || p.proowner::regrole, case when p.prokind <> 'a' then pg_get_functiondef(p.oid)
                  else pg_get_function_result(p.oid) || ' ' || (select concat_ws(', ', a.aggtransfn::text, a.aggfinalfn::text,
                       a.aggcombinefn::text, a.aggtranstype::regtype::text, a.agginitval, a.aggkind::text)
                       from pg_aggregate a where a.aggfnoid = p.oid) end)
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace and {} and {}",
            user_schema(),
            own_function()
        ),
        // Row types and array types come with something else, multiranges with their range.
        sql!(
            "select case t.typtype when 'e' then 'enum' when 'd' then 'domain' when 'r' then 'range' else 'type' end, null::text,
                format('%I.%I', n.nspname, t.typname), concat_ws('; ', 'owner ' || t.typowner::regrole,
                (select string_agg(quote_literal(e.enumlabel), ', ' order by e.enumsortorder) from pg_enum e where e.enumtypid = t.oid),
                case when t.typtype = 'd' then format_type(t.typbasetype, t.typtypmod) end,
                case when t.typtype = 'd' and t.typnotnull then 'not null' end,
                case when t.typtype = 'd' then 'default ' || t.typdefault end,
                case when t.typtype = 'd' and t.typcollation <> 0 then 'collate ' || t.typcollation::regcollation end,
                (select string_agg(format('%I %s', k.conname, pg_get_constraintdef(k.oid)) || case when k.convalidated then '' else ' not validated' end,
                        ', ' order by k.conname) from pg_constraint k where k.contypid = t.oid),
                (select 'of ' || r.rngsubtype::regtype from pg_range r where r.rngtypid = t.oid))
             from pg_type t join pg_namespace n on n.oid = t.typnamespace and {} and {}
             where t.typtype in ('e', 'd', 'r') or t.typtype = 'b' and t.typelem = 0
                or t.typtype = 'c' and exists (select from pg_class c where c.oid = t.typrelid and c.relkind = 'c')",
            user_schema(),
            no_extension("pg_type", &sql!("t.oid"))
        ),
        sql!(
            "select 'operator', null::text, format('%I.%s(%s, %s)', n.nspname, o.oprname, coalesce(format_type(nullif(o.oprleft, 0), null), 'none'),
                    format_type(o.oprright, null)), concat_ws('; ', 'owner ' || o.oprowner::regrole, o.oprcode::regprocedure::text,
                    'commutator ' || nullif(o.oprcom, 0)::regoperator, 'negator ' || nullif(o.oprnegate, 0)::regoperator)
             from pg_operator o join pg_namespace n on n.oid = o.oprnamespace and {} and {}
             union all
             select 'cast', null::text, format('%s as %s', format_type(k.castsource, null), format_type(k.casttarget, null)),
                    concat_ws('; ', nullif(k.castfunc, 0)::regprocedure::text, k.castcontext::text, k.castmethod::text)
             from pg_cast k where k.oid >= 16384 and {}",
            user_schema(),
            no_extension("pg_operator", &sql!("o.oid")),
            no_extension("pg_cast", &sql!("k.oid"))
        ),
        sql!(
            "select 'collation', null::text, format('%I.%I', n.nspname, l.collname),
                concat_ws('; ', 'owner ' || l.collowner::regrole, 'provider ' || l.collprovider::text, l.collcollate, l.collctype,
                          to_jsonb(l) ->> 'colliculocale', to_jsonb(l) ->> 'colllocale',
                          case when not l.collisdeterministic then 'nondeterministic' end)
             from pg_collation l join pg_namespace n on n.oid = l.collnamespace and {} and {}",
            user_schema(),
            no_extension("pg_collation", &sql!("l.oid"))
        ),
    ]
}

/// What stands in no schema.
fn whole_database() -> Vec<Sql> {
    vec![
        sql!(
            "select 'extension', null::text, quote_ident(e.extname), concat_ws('; ', 'version ' || e.extversion,
                'schema ' || e.extnamespace::regnamespace, 'owner ' || e.extowner::regrole) from pg_extension e"
        ),
        sql!(
            "select 'event trigger', null::text, quote_ident(e.evtname), concat_ws('; ', 'on ' || e.evtevent,
                'execute ' || e.evtfoid::regprocedure, 'tags ' || array_to_string(e.evttags, ', '),
                case e.evtenabled when 'D' then 'disabled' when 'R' then 'on replica' when 'A' then 'always' end,
                'owner ' || e.evtowner::regrole) from pg_event_trigger e where {}",
            no_extension("pg_event_trigger", &sql!("e.oid"))
        ),
        sql!(
            "select 'publication', null::text, quote_ident(p.pubname), concat_ws('; ', 'owner ' || p.pubowner::regrole,
                case when p.puballtables then 'all tables' end,
                (select string_agg(r.prrelid::regclass::text, ', ' order by r.prrelid::regclass::text)
                   from pg_publication_rel r where r.prpubid = p.oid)) from pg_publication p"
        ),
        sql!(
            "select 'foreign server', null::text, quote_ident(s.srvname), concat_ws('; ', 'owner ' || s.srvowner::regrole,
                (select 'wrapper ' || quote_ident(w.fdwname) from pg_foreign_data_wrapper w where w.oid = s.srvfdw))
             from pg_foreign_server s where {}",
            no_extension("pg_foreign_server", &sql!("s.oid"))
        ),
        sql!(
            "select 'settings of the database', null::text, case s.setrole when 0 then 'for all' else 'for ' || s.setrole::regrole end,
                (select string_agg(o, ', ' order by o) from unnest(s.setconfig) o)
             from pg_db_role_setting s where s.setdatabase = (select d.oid from pg_database d where d.datname = current_database())"
        ),
        sql!(
            "select 'default privileges', null::text, format('of %s on %s %s', d.defaclrole::regrole,
                case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions'
                  when 'T' then 'types' when 'n' then 'schemas' else d.defaclobjtype::text end,
                case d.defaclnamespace when 0 then 'everywhere' else 'in ' || d.defaclnamespace::regnamespace end),
                (select coalesce(string_agg(i::text, ', ' order by i::text), 'none') from unnest(d.defaclacl) i)
             from pg_default_acl d"
        ),
    ]
}

/// Who may do what; no list at all reads as the list that it stands for.
fn privileges() -> Sql {
    sql!(
        "select 'privileges on ' || kind, whole, name,
            (select coalesce(string_agg(i::text, ', ' order by i::text), 'none') from unnest(acl) i)
         from (
           select 'schema', quote_ident(n.nspname), '', coalesce(n.nspacl, acldefault('n', n.nspowner))
             from pg_namespace n where {} and {}
           union all
           select {}, {}, '', coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::\"char\", c.relowner)) from {}
           union all
           select 'column', {}, quote_ident(a.attname), a.attacl
             from {} join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped and a.attacl is not null
           union all
           select 'function', format('%I.%I(%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), '',
                  coalesce(p.proacl, acldefault('f', p.proowner))
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace and {} and {}
           union all
           select 'type', format('%I.%I', n.nspname, t.typname), '', coalesce(t.typacl, acldefault('T', t.typowner))
             from pg_type t join pg_namespace n on n.oid = t.typnamespace and {} and {}
            where t.typtype in ('e', 'd', 'r') or t.typtype = 'c' and t.typacl is not null
         ) as p (kind, whole, name, acl)",
        user_schema(),
        no_extension("pg_namespace", &sql!("n.oid")),
        relation_kind(),
        qualified(),
        user_relations("rpvmfS"),
        qualified(),
        user_relations("rpvmf"),
        user_schema(),
        own_function(),
        user_schema(),
        no_extension("pg_type", &sql!("t.oid"))
    )
}

/// COMMENT ON anything, and security labels: the server says itself what each is on.
fn comments() -> Sql {
    sql!(
        "select 'comment on ' || i.type, null::text, i.identity, d.description
           from pg_description d, pg_identify_object(d.classoid, d.objoid, d.objsubid) i
          where not exists (select from pg_depend x where x.classid = d.classoid and x.objid = d.objoid and x.deptype = 'e')
            and (d.objoid >= 16384 or (d.classoid, d.objoid) in (select 'pg_namespace'::regclass, oid from pg_namespace where nspname = 'public'))
         union all
         select 'security label on ' || i.type || ' by ' || s.provider, null::text, i.identity, s.label
           from pg_seclabel s, pg_identify_object(s.classoid, s.objoid, s.objsubid) i"
    )
}

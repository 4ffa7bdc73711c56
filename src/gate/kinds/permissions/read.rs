//! What is asked of the catalog, and what it says.

use serde::Deserialize;

use crate::gate::Measured;
use crate::gate::catalog::matches;
use crate::sql;
use crate::sql::{Fixed, Ident, Relation, Sql, TypeName};

use super::{Permissions, Sort};

/// The name that stands for everybody.
pub(super) const PUBLIC: &str = "public";

/// What the columns of [`statement`] are called.
pub(super) const LABELS: [&str; 4] = ["roles", "objects", "defaults", "closed"];

/// Everything that the matrix is held against, in one row.
pub(super) fn statement(kind: &Permissions, schemas: &Sql) -> Sql {
    sql!(
        "select ({})::text, ({})::text, ({})::text, ({})::text",
        roles(),
        objects(kind, schemas),
        defaults(kind, schemas),
        closed()
    )
}

/// Every role, with what it is a member of.
fn roles() -> Sql {
    sql!(
        "select json_agg(json_build_object('name', r.rolname, 'is_superuser', r.rolsuper, 'bypasses_policies', r.rolbypassrls, \
         'member_of', (select coalesce(json_agg(g.rolname order by g.rolname), '[]') from pg_roles g \
           where g.oid in (select m.roleid from pg_auth_members m where m.member = r.oid) \
             or (g.rolname = 'pg_database_owner' and r.oid = (select d.datdba from pg_database d where d.datname = current_database())))) \
         order by r.rolname) from pg_roles r"
    )
}

/// The schemas and what is in them, and the database, with owner and grants. What is not looked at is not
/// asked for.
fn objects(kind: &Permissions, schemas: &Sql) -> Sql {
    let of_relations = |sort, acl, kinds| {
        sql!(
            "select '{}' as sort, n.nspname as schema, c.relname as name, null::text as arguments, c.relowner as owner, \
             coalesce(c.relacl, acldefault('{}', c.relowner)) as acl, c.oid as relid, c.relispartition as is_partition, \
             false as is_definer from pg_class c join pg_namespace n on n.oid = c.relnamespace \
             where c.relkind in ({}) and n.nspname in ({})",
            Fixed(sort),
            Fixed(acl),
            Fixed(kinds),
            schemas
        )
    };
    let every = Sort::ALL.iter().filter(|sort| kind.looks_at(**sort));
    let every = every.map(|sort| match sort {
        Sort::Table => of_relations("table", "r", "'r', 'p', 'v', 'm', 'f'"),
        Sort::Sequence => of_relations("sequence", "s", "'S'"),
        Sort::Schema => sql!(
            "select 'schema', n.nspname, null, null, n.nspowner, coalesce(n.nspacl, acldefault('n', n.nspowner)), \
             null, false, false from pg_namespace n where n.nspname in ({})",
            schemas
        ),
        Sort::Function => sql!(
            "select 'function', n.nspname, p.proname, oidvectortypes(p.proargtypes), p.proowner, \
             coalesce(p.proacl, acldefault('f', p.proowner)), null, false, p.prosecdef \
             from pg_proc p join pg_namespace n on n.oid = p.pronamespace where n.nspname in ({})",
            schemas
        ),
        Sort::Database => sql!(
            "select 'database', d.datname, null, null, d.datdba, coalesce(d.datacl, acldefault('d', d.datdba)), \
             null, false, false from pg_database d where d.datname = current_database()"
        ),
    });
    sql!(
        "select coalesce(json_agg(json_build_object('sort', o.sort, 'schema', o.schema, 'name', o.name, \
         'arguments', o.arguments, 'is_partition', o.is_partition, 'is_definer', o.is_definer, \
         'owner', pg_get_userbyid(o.owner), 'grants', (select coalesce(json_agg(json_build_object( \
           'to', case a.grantee when 0 then '{}' else pg_get_userbyid(a.grantee) end, 'privilege', a.privilege_type, \
           'column', a.attname) order by a.grantee, a.attname, a.privilege_type), '[]') from ( \
             select x.grantee, x.privilege_type, null::name as attname from aclexplode(o.acl) x \
             union all select x.grantee, x.privilege_type, t.attname from pg_attribute t, aclexplode(t.attacl) x \
               where t.attrelid = o.relid and t.attacl is not null and not t.attisdropped) a \
           where a.grantee <> o.owner)) order by o.schema, o.name nulls first, o.sort, o.arguments collate \"C\"), '[]') from ({}) o",
        Fixed(PUBLIC),
        Sql::join(" union all ", every)
    )
}

/// What will be granted on what is to come.
fn defaults(kind: &Permissions, schemas: &Sql) -> Sql {
    let sorts = [Sort::Table, Sort::Sequence, Sort::Function];
    let sorts = sorts.iter().filter(|sort| kind.looks_at(**sort));
    let letters = sorts.map(|sort| match sort {
        Sort::Sequence => sql!("'S'"),
        Sort::Function => sql!("'f'"),
        Sort::Table | Sort::Schema | Sort::Database => sql!("'r'"),
    });
    sql!(
        "select coalesce(json_agg(json_build_object('by', pg_get_userbyid(d.defaclrole), 'schema', n.nspname, \
         'sort', case d.defaclobjtype when 'S' then 'sequence' when 'f' then 'function' else 'table' end, \
         'to', case a.grantee when 0 then '{}' else pg_get_userbyid(a.grantee) end, 'privilege', a.privilege_type) \
         order by d.defaclobjtype desc, n.nspname, d.defaclrole, a.grantee, a.privilege_type), '[]') \
         from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a \
         where d.defaclobjtype in ({}) and a.grantee <> d.defaclrole and (n.nspname is null or n.nspname in ({}))",
        Fixed(PUBLIC),
        Sql::join(", ", letters),
        schemas
    )
}

/// The roles on whose functions to come everybody has no EXECUTE, by default privileges for all schemas.
fn closed() -> Sql {
    sql!(
        "select coalesce(json_agg(pg_get_userbyid(d.defaclrole) order by d.defaclrole), '[]') from pg_default_acl d \
         where d.defaclobjtype = 'f' and d.defaclnamespace = 0 \
           and not exists (select from aclexplode(d.defaclacl) a where a.grantee = 0)"
    )
}

/// The answer to [`statement`].
pub(super) struct Held {
    pub(super) roles: Vec<Role>,
    pub(super) objects: Vec<Object>,
    pub(super) defaults: Vec<DefaultGrant>,
    pub(super) closed: Vec<String>,
}

impl Held {
    pub(super) fn of(measured: &Measured) -> Self {
        Self {
            roles: parsed(measured, "roles"),
            objects: parsed(measured, "objects"),
            defaults: parsed(measured, "defaults"),
            closed: parsed(measured, "closed"),
        }
    }
}

fn parsed<T: serde::de::DeserializeOwned>(measured: &Measured, label: &str) -> T {
    let text = measured.text(label).unwrap_or("[]");
    serde_json::from_str(text).expect("the statement builds what is read here")
}

#[derive(Deserialize)]
pub(super) struct Role {
    pub(super) name: String,
    pub(super) is_superuser: bool,
    pub(super) bypasses_policies: bool,
    pub(super) member_of: Vec<String>,
}

#[derive(Deserialize)]
pub(super) struct Object {
    pub(super) sort: Sort,
    /// Its schema; of a schema and of the database, it is the name itself.
    pub(super) schema: String,
    name: Option<String>,
    /// The types of a function's arguments, as `format_type` writes them.
    arguments: Option<String>,
    pub(super) is_partition: bool,
    /// Whether it runs with the rights of its owner.
    pub(super) is_definer: bool,
    pub(super) owner: String,
    pub(super) grants: Vec<Grant>,
}

#[derive(Deserialize)]
pub(super) struct Grant {
    pub(super) to: String,
    pub(super) privilege: String,
    pub(super) column: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct DefaultGrant {
    pub(super) by: String,
    pub(super) schema: Option<String>,
    pub(super) sort: Sort,
    pub(super) to: String,
    pub(super) privilege: String,
}

impl Object {
    /// The name, with the types of its arguments where it is a function.
    pub(super) fn name(&self) -> String {
        let arguments = self.arguments.as_ref();
        let arguments = arguments.map(|types| format!("({types})"));
        format!("{}{}", self.plain_name(), arguments.unwrap_or_default())
    }

    /// The name as a finding shows it.
    pub(super) fn shown(&self) -> String {
        match self.is_definer {
            true => format!("{} (SECURITY DEFINER)", self.name()),
            false => self.name(),
        }
    }

    fn plain_name(&self) -> String {
        match &self.name {
            None => self.schema.clone(),
            Some(name) => Relation::new(self.schema.clone(), name.clone()).readable(),
        }
    }

    /// Whether a pattern is about it; that for a function may leave its arguments out.
    pub(super) fn is_named(&self, pattern: &str) -> bool {
        matches(pattern, &self.plain_name())
            || (self.sort == Sort::Function && matches(pattern, &self.name()))
    }

    pub(super) fn sql(&self) -> Sql {
        let Some(name) = &self.name else {
            return sql!("{}", Ident::new(self.schema.clone()));
        };
        let relation = Relation::new(self.schema.clone(), name.clone());
        match &self.arguments {
            None => sql!("{}", relation),
            Some(types) => match TypeName::parse(types) {
                None => sql!("{}()", relation),
                Some(types) => sql!("{}({})", relation, types),
            },
        }
    }
}

//! The matrix held against what Postgres grants.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::gate::threshold::{Bounds, rows_of};
use crate::gate::{Figure, Finding, Judgement, Measured, Verdict};
use crate::sql;
use crate::sql::{Fixed, Ident, Relation, Sql};

use super::{Others, Permissions, Privilege, is_schema_pattern};

/// The name that stands for everybody.
const PUBLIC: &str = "public";
/// More objects than this are counted in a finding and not named; the repair names all.
const NAMED_MAX: usize = 5;

/// Every role, with what it is a member of.
pub(super) fn roles() -> Sql {
    sql!(
        "select json_agg(json_build_object('name', r.rolname, 'is_superuser', r.rolsuper, 'bypasses_policies', r.rolbypassrls, \
         'member_of', (select coalesce(json_agg(g.rolname order by g.rolname), '[]') from pg_roles g \
           where g.oid in (select m.roleid from pg_auth_members m where m.member = r.oid) \
             or (g.rolname = 'pg_database_owner' and r.oid = (select d.datdba from pg_database d where d.datname = current_database())))) \
         order by r.rolname) from pg_roles r"
    )
}

/// The schemas and their tables, with owner and grants.
pub(super) fn objects(schemas: &Sql) -> Sql {
    sql!(
        "select coalesce(json_agg(json_build_object('schema', o.schema, 'table', o.name, 'is_partition', o.is_partition, \
         'owner', pg_get_userbyid(o.owner), 'grants', (select coalesce(json_agg(json_build_object( \
           'to', case a.grantee when 0 then '{}' else pg_get_userbyid(a.grantee) end, 'privilege', a.privilege_type, \
           'column', a.attname) order by a.grantee, a.attname, a.privilege_type), '[]') from ( \
             select x.grantee, x.privilege_type, null::name as attname from aclexplode(o.acl) x \
             union all select x.grantee, x.privilege_type, t.attname from pg_attribute t, aclexplode(t.attacl) x \
               where t.attrelid = o.relid and t.attacl is not null and not t.attisdropped) a \
           where a.grantee <> o.owner)) order by o.schema, o.name nulls first), '[]') from ( \
         select n.nspname as schema, null::name as name, n.nspowner as owner, \
           coalesce(n.nspacl, acldefault('n', n.nspowner)) as acl, null::oid as relid, false as is_partition \
           from pg_namespace n where n.nspname in ({}) \
         union all select n.nspname, c.relname, c.relowner, coalesce(c.relacl, acldefault('r', c.relowner)), c.oid, c.relispartition \
           from pg_class c join pg_namespace n on n.oid = c.relnamespace \
           where c.relkind in ('r', 'p', 'v', 'm', 'f') and n.nspname in ({})) o",
        Fixed(PUBLIC),
        schemas,
        schemas
    )
}

/// What will be granted on the tables to come.
pub(super) fn defaults(schemas: &Sql) -> Sql {
    sql!(
        "select coalesce(json_agg(json_build_object('by', pg_get_userbyid(d.defaclrole), 'schema', n.nspname, \
         'to', case a.grantee when 0 then '{}' else pg_get_userbyid(a.grantee) end, 'privilege', a.privilege_type) \
         order by 1::text, n.nspname, d.defaclrole, a.grantee, a.privilege_type), '[]') \
         from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace, aclexplode(d.defaclacl) a \
         where d.defaclobjtype = 'r' and a.grantee <> d.defaclrole and (n.nspname is null or n.nspname in ({}))",
        Fixed(PUBLIC),
        schemas
    )
}

#[derive(Deserialize)]
struct Role {
    name: String,
    is_superuser: bool,
    bypasses_policies: bool,
    member_of: Vec<String>,
}

#[derive(Deserialize)]
struct Object {
    schema: String,
    table: Option<String>,
    is_partition: bool,
    owner: String,
    grants: Vec<Grant>,
}

#[derive(Deserialize)]
struct Grant {
    to: String,
    privilege: String,
    column: Option<String>,
}

#[derive(Deserialize)]
struct DefaultGrant {
    by: String,
    schema: Option<String>,
    to: String,
    privilege: String,
}

impl Object {
    fn is_schema(&self) -> bool {
        self.table.is_none()
    }

    /// The name that patterns are held against.
    fn name(&self) -> String {
        match &self.table {
            None => self.schema.clone(),
            Some(table) => Relation::new(self.schema.clone(), table.clone()).readable(),
        }
    }

    fn sql(&self) -> Sql {
        match &self.table {
            None => sql!("{}", Ident::new(self.schema.clone())),
            Some(table) => sql!("{}", Relation::new(self.schema.clone(), table.clone())),
        }
    }
}

fn parsed<T: serde::de::DeserializeOwned>(measured: &Measured, label: &str) -> T {
    let text = measured.text(label).unwrap_or("[]");
    serde_json::from_str(text).expect("the statement builds what is read here")
}

/// What a role may do that the matrix does not say, or may not do that it says, by way and privilege.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Deviation {
    /// It may, by a grant to itself.
    Granted,
    /// It may, by a grant to a role that it is a member of.
    Through(String),
    /// It may not.
    Missing,
}

/// Objects of one sort with the same deviation of the same role.
type Groups<'a> = BTreeMap<(String, Deviation, bool, Vec<String>), Vec<&'a Object>>;

/// Holds the matrix against what is granted.
pub(super) fn judge(kind: &Permissions, measured: &Measured) -> Judgement {
    let roles: Vec<Role> = parsed(measured, "roles");
    let objects: Vec<Object> = parsed(measured, "objects");
    let defaults: Vec<DefaultGrant> = parsed(measured, "defaults");
    let mut findings = role_findings(kind, &roles);
    findings.extend(pattern_findings(kind, &objects));
    findings.extend(owner_findings(kind, &objects, &roles));
    findings.extend(grant_findings(kind, &objects, &roles));
    findings.extend(default_findings(kind, &defaults, &roles));
    let failures = findings.iter().filter(|finding| finding.is_failure);
    let failures: Vec<&Finding> = failures.collect();
    let tables = objects.iter().filter(|object| !object.is_schema()).count() as u64;
    let schemas = objects.len() as u64 - tables;
    Judgement {
        verdict: if !failures.is_empty() {
            Verdict::Failed
        } else if objects.is_empty() {
            Verdict::Empty
        } else {
            Verdict::Passed
        },
        rows_checked: None,
        rows_offending: None,
        measured: Figure::counted(failures.len() as u64, "findings", "finding"),
        threshold: Bounds {
            fail: Some("what the matrix says and nothing more".to_owned()),
            warn: None,
        },
        message: match failures.as_slice() {
            [] => format!(
                "{} on {} and {}, as the matrix says",
                rows_of(kind.roles.len() as u64, "role"),
                rows_of(schemas, "schema"),
                rows_of(tables, "table")
            ),
            [only] => only.what.clone(),
            [first, rest @ ..] => format!("{}; {} more", first.what, rest.len()),
        },
        findings,
    }
}

fn failure(what: String, repair: Option<Sql>) -> Finding {
    Finding {
        what,
        is_failure: true,
        repair: repair.map(|sql| sql.as_str().to_owned()),
    }
}

/// Roles of the matrix that are not there, and superusers.
fn role_findings(kind: &Permissions, roles: &[Role]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in kind.roles.keys().filter(|name| *name != PUBLIC) {
        match roles.iter().find(|role| &role.name == name) {
            None => findings.push(failure(
                format!("the role `{name}` is missing"),
                Some(sql!("create role {}", Ident::new(name.clone()))),
            )),
            Some(role) if role.is_superuser => findings.push(failure(
                format!("the role `{name}` is a superuser and may do everything"),
                Some(sql!("alter role {} nosuperuser", Ident::new(name.clone()))),
            )),
            Some(role) => findings.extend(above_all(role, roles)),
        }
    }
    if let Some(allowed) = &kind.superusers {
        for role in roles.iter().filter(|role| role.is_superuser) {
            if !allowed.contains(&role.name) && !kind.roles.contains_key(&role.name) {
                findings.push(failure(
                    format!(
                        "`{}` is a superuser and none of those that may be",
                        role.name
                    ),
                    Some(sql!(
                        "alter role {} nosuperuser",
                        Ident::new(role.name.clone())
                    )),
                ));
            }
        }
    }
    findings
}

/// What lets a role past every grant and policy: its own attribute, or that it may become such a role.
fn above_all(role: &Role, roles: &[Role]) -> Vec<Finding> {
    let name = Ident::new(role.name.clone());
    let mut findings = Vec::new();
    if role.bypasses_policies {
        findings.push(failure(
            format!(
                "no row-level policy holds for the role `{}` (BYPASSRLS)",
                role.name
            ),
            Some(sql!("alter role {} nobypassrls", name)),
        ));
    }
    let through = memberships(&role.name, roles);
    for group in roles
        .iter()
        .filter(|group| through.contains(group.name.as_str()))
    {
        let what = if group.is_superuser {
            "is a superuser"
        } else if group.bypasses_policies {
            "is held to no row-level policy (BYPASSRLS)"
        } else {
            continue;
        };
        findings.push(failure(
            format!("`{}` may become `{}`, which {what}", role.name, group.name),
            Some(sql!(
                "revoke {} from {}",
                Ident::new(group.name.clone()),
                name
            )),
        ));
    }
    findings
}

/// Lines of the matrix that are about nothing.
fn pattern_findings(kind: &Permissions, objects: &[Object]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (role, rows) in &kind.roles {
        for pattern in rows.keys() {
            let is_schema = is_schema_pattern(pattern);
            let is_met = objects.iter().any(|object| {
                object.is_schema() == is_schema
                    && crate::gate::catalog::matches(pattern, &object.name())
            });
            if !is_met {
                let sort = if is_schema { "schema" } else { "table" };
                findings.push(Finding {
                    what: format!("no {sort} matches `{pattern}` of `{role}`"),
                    is_failure: !pattern.contains('*'),
                    repair: None,
                });
            }
        }
    }
    findings
}

/// Objects that a role owns that must not.
fn owner_findings(kind: &Permissions, objects: &[Object], roles: &[Role]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for object in objects {
        let name = object.name();
        let is_listed = |owners: &Vec<String>| owners.contains(&object.owner);
        match &kind.owners {
            Some(owners) if is_listed(owners) => {}
            Some(_) => findings.push(failure(
                format!(
                    "{name} belongs to `{}`, which may own nothing here",
                    object.owner
                ),
                None,
            )),
            None if kind.roles.contains_key(&object.owner) => findings.push(failure(
                format!(
                    "{name} belongs to `{}`, which may do everything with it",
                    object.owner
                ),
                None,
            )),
            None => {}
        }
        for role in kind.roles.keys().filter(|role| **role != object.owner) {
            let through = memberships(role, roles);
            if through.contains(object.owner.as_str()) && !is_superuser(role, roles) {
                findings.push(failure(
                    format!(
                        "`{role}` may do everything with {name}, which belongs to `{}`",
                        object.owner
                    ),
                    Some(sql!(
                        "revoke {} from {}",
                        Ident::new(object.owner.clone()),
                        Ident::new(role.clone())
                    )),
                ));
            }
        }
    }
    findings
}

fn is_superuser(name: &str, roles: &[Role]) -> bool {
    roles
        .iter()
        .any(|role| role.name == name && role.is_superuser)
}

/// Every role that a role is a member of, directly or not; not itself.
fn memberships<'a>(name: &str, roles: &'a [Role]) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    let mut open = vec![name];
    while let Some(next) = open.pop() {
        let groups = roles.iter().filter(|role| role.name == next);
        for group in groups.flat_map(|role| &role.member_of) {
            if group != name && found.insert(group.as_str()) {
                open.push(group);
            }
        }
    }
    found
}

/// What a predefined role gives its members on every object.
fn predefined(role: &str, is_schema: bool) -> &'static [&'static str] {
    match (role, is_schema) {
        ("pg_read_all_data" | "pg_write_all_data", true) => &["USAGE"],
        ("pg_read_all_data", false) => &["SELECT"],
        ("pg_write_all_data", false) => &["INSERT", "UPDATE", "DELETE"],
        ("pg_maintain", false) => &["MAINTAIN"],
        _ => &[],
    }
}

/// What each role may do on each object, against what it should.
fn grant_findings(kind: &Permissions, objects: &[Object], roles: &[Role]) -> Vec<Finding> {
    let mut groups: Groups<'_> = BTreeMap::new();
    let is_outside = |role: &&Role| {
        !kind.roles.contains_key(&role.name) && !role.name.starts_with("pg_") && !role.is_superuser
    };
    let others = roles
        .iter()
        .filter(|_| kind.others == Others::Forbid)
        .filter(is_outside)
        .map(|role| role.name.as_str());
    let listed =
        kind.roles.keys().map(String::as_str).filter(|name| {
            !is_superuser(name, roles) && (*name == PUBLIC || is_there(name, roles))
        });
    let is_public_listed = kind.roles.contains_key(PUBLIC);
    let public = (!is_public_listed).then_some(PUBLIC);
    for role in listed.chain(public).chain(others) {
        let through = memberships(role, roles);
        for object in objects.iter().filter(|object| object.owner != role) {
            deviations(kind, role, &through, object, &mut groups);
        }
    }
    groups.into_iter().map(finding).collect()
}

fn is_there(name: &str, roles: &[Role]) -> bool {
    roles.iter().any(|role| role.name == name)
}

fn deviations<'a>(
    kind: &Permissions,
    role: &str,
    through: &BTreeSet<&str>,
    object: &'a Object,
    groups: &mut Groups<'a>,
) {
    let is_listed = kind.roles.contains_key(role);
    let expected = kind.expected(role, &object.name(), object.is_schema());
    let is_expected = |privilege: &str| expected.iter().any(|p| p.as_str() == privilege);
    let mut deviating: BTreeMap<Deviation, Vec<String>> = BTreeMap::new();
    let mut has: BTreeSet<&str> = BTreeSet::new();
    for grant in &object.grants {
        let is_own = grant.to == role;
        let is_of_group = through.contains(grant.to.as_str());
        if grant.column.is_none() && (is_own || is_of_group || grant.to == PUBLIC) {
            has.insert(&grant.privilege);
        }
        // A member of a role of the matrix may use what that role has; a role of the matrix must
        // not have more than its own lines by being a member of another.
        let is_through = is_of_group && (is_listed || !kind.roles.contains_key(&grant.to));
        if is_expected(&grant.privilege) || !(is_own || is_through) {
            continue;
        }
        let way = if is_own {
            Deviation::Granted
        } else {
            Deviation::Through(grant.to.clone())
        };
        let words = match &grant.column {
            None => grant.privilege.clone(),
            Some(column) => {
                let column = sql!("{}", Ident::new(column.clone()));
                format!("{} ({})", grant.privilege, column.as_str())
            }
        };
        deviating.entry(way).or_default().push(words);
    }
    for group in through {
        for privilege in predefined(group, object.is_schema()) {
            has.insert(privilege);
            if !is_expected(privilege) {
                let way = Deviation::Through((*group).to_owned());
                deviating
                    .entry(way)
                    .or_default()
                    .push((*privilege).to_owned());
            }
        }
    }
    // An owner's members may do everything, which is told of as such; a partition is read through its
    // table.
    if !through.contains(object.owner.as_str()) && !object.is_partition {
        let missing = expected.iter().filter(|p| !has.contains(p.as_str()));
        let missing: Vec<String> = missing.map(|p| p.as_str().to_owned()).collect();
        if !missing.is_empty() {
            deviating.insert(Deviation::Missing, missing);
        }
    }
    for (way, privileges) in deviating {
        let key = (role.to_owned(), way, object.is_schema(), privileges);
        groups.entry(key).or_default().push(object);
    }
}

fn finding(
    ((role, way, is_schema, privileges), objects): (
        (String, Deviation, bool, Vec<String>),
        Vec<&Object>,
    ),
) -> Finding {
    let sort = match (is_schema, objects.len()) {
        (true, 1) => "schema",
        (true, _) => "schemas",
        (false, 1) => "table",
        (false, _) => "tables",
    };
    let mut names: Vec<String> = objects.iter().map(|object| object.name()).collect();
    if names.len() > NAMED_MAX {
        let more = names.len() - NAMED_MAX + 1;
        names.truncate(NAMED_MAX - 1);
        names.push(format!("{more} more"));
    }
    let names = names.join(", ");
    let words = privileges.join(", ");
    let granted = Sql::join(", ", privileges.iter().filter_map(|text| privilege(text)));
    let all = Sql::join(", ", objects.iter().map(|object| object.sql()));
    let on = Fixed(if is_schema { "on schema" } else { "on table" });
    let grantee = |role: &str| {
        if role == PUBLIC {
            sql!("public")
        } else {
            sql!("{}", Ident::new(role))
        }
    };
    let who = if role == PUBLIC {
        "everybody".to_owned()
    } else {
        format!("`{role}`")
    };
    match way {
        Deviation::Granted => failure(
            format!("{who} has {words} on the {sort} {names}, which the matrix does not say"),
            Some(sql!(
                "revoke {} {} {} from {}",
                granted,
                on,
                all,
                grantee(&role)
            )),
        ),
        Deviation::Through(group) => failure(
            format!(
                "{who} has {words} on the {sort} {names} as a member of `{group}`, which the matrix does not say"
            ),
            Some(sql!("revoke {} from {}", Ident::new(group), grantee(&role))),
        ),
        Deviation::Missing => failure(
            format!("{who} lacks {words} on the {sort} {names}"),
            Some(sql!(
                "grant {} {} {} to {}",
                granted,
                on,
                all,
                grantee(&role)
            )),
        ),
    }
}

/// `SELECT` or `SELECT ("column")` as a piece of SQL; `None` for a privilege that is not known here.
fn privilege(text: &str) -> Option<Sql> {
    let (word, column) = match text.split_once(" (") {
        Some((word, rest)) => (word, rest.strip_suffix(')')),
        None => (text, None),
    };
    let known = Privilege::SCHEMA
        .iter()
        .chain(Privilege::TABLE)
        .chain(&[Privilege::Maintain])
        .find(|privilege| privilege.as_str() == word)?;
    let word = Fixed(known.as_str());
    Some(match column {
        None => sql!("{}", word),
        Some(column) => {
            let name = Relation::parse(column).ok()?.name;
            sql!("{} ({})", word, name)
        }
    })
}

/// What will be granted on the tables to come.
fn default_findings(kind: &Permissions, defaults: &[DefaultGrant], roles: &[Role]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for grant in defaults {
        let is_outside = !kind.roles.contains_key(&grant.to) && grant.to != PUBLIC;
        let is_ignored = is_outside && kind.others == Others::Ignore;
        if is_ignored || is_superuser(&grant.to, roles) {
            continue;
        }
        // A table to come has a name that only a pattern for all tables of its schema matches.
        let schema = grant.schema.as_deref().unwrap_or("*");
        let future = format!("{schema}.*");
        let is_expected = kind
            .expected(&grant.to, &future, false)
            .iter()
            .any(|privilege| privilege.as_str() == grant.privilege);
        let Some(sql) = privilege(&grant.privilege).filter(|_| !is_expected) else {
            continue;
        };
        let place = grant.schema.as_ref();
        let within = place.map_or_else(
            || sql!(""),
            |name| sql!(" in schema {}", Ident::new(name.clone())),
        );
        let (who, to) = if grant.to == PUBLIC {
            ("everybody".to_owned(), sql!("public"))
        } else {
            (
                format!("`{}`", grant.to),
                sql!("{}", Ident::new(grant.to.clone())),
            )
        };
        findings.push(failure(
            format!(
                "{who} will have {} on every table that `{}` makes{}, by default privileges",
                grant.privilege,
                grant.by,
                place.map_or_else(String::new, |name| format!(" in `{name}`"))
            ),
            Some(sql!(
                "alter default privileges for role {}{} revoke {} on tables from {}",
                Ident::new(grant.by.clone()),
                within,
                sql,
                to
            )),
        ));
    }
    findings
}

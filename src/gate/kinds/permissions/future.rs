//! What will be granted on what is to come.

use std::collections::{BTreeMap, BTreeSet};

use crate::gate::Finding;
use crate::gate::catalog::matches;
use crate::sql;
use crate::sql::{Fixed, Ident};

use super::matrix::{failure, grantee, is_superuser, privilege, told};
use super::read::{DefaultGrant, Object, PUBLIC, Role};
use super::{Others, Permissions, Sort};

/// Default privileges that are granted to roles that should not have them.
pub(super) fn findings(
    kind: &Permissions,
    defaults: &[DefaultGrant],
    roles: &[Role],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for grant in defaults {
        let is_outside = !kind.roles.contains_key(&grant.to) && grant.to != PUBLIC;
        let is_ignored = is_outside && kind.others == Others::Ignore;
        // What stands there where nothing was said, too.
        let is_built_in =
            grant.sort == Sort::Function && grant.to == PUBLIC && grant.schema.is_none();
        if is_ignored || is_built_in || is_superuser(&grant.to, roles) {
            continue;
        }
        let schema = grant.schema.as_deref().unwrap_or("*");
        let is_expected = is_expected(kind, &grant.to, grant.sort, schema, &grant.privilege);
        let Some(sql) = privilege(&grant.privilege).filter(|_| !is_expected) else {
            continue;
        };
        let place = grant.schema.as_ref();
        let within = place.map_or_else(
            || sql!(""),
            |name| sql!(" in schema {}", Ident::new(name.clone())),
        );
        findings.push(failure(
            format!(
                "{} will have {} on every {} that `{}` makes{}, by default privileges",
                told(&grant.to),
                grant.privilege,
                grant.sort.noun(),
                grant.by,
                place.map_or_else(String::new, |name| format!(" in `{name}`"))
            ),
            Some(sql!(
                "alter default privileges for role {}{} revoke {} on {} from {}",
                Ident::new(grant.by.clone()),
                within,
                sql,
                Fixed(grant.sort.plural()),
                grantee(&grant.to)
            )),
        ));
    }
    findings
}

/// Whether what is to come in a schema is the role's by the matrix: it has a name that only a pattern for
/// all of its schema matches.
fn is_expected(kind: &Permissions, role: &str, sort: Sort, schema: &str, privilege: &str) -> bool {
    let future = format!("{schema}.*");
    let expected = kind.expected(role, sort, |pattern| matches(pattern, &future));
    expected.iter().any(|one| one.as_str() == privilege)
}

/// What Postgres grants on every function, to everybody, until the default privileges of who makes it take it back for
/// all schemas: those of one schema only add to what is granted.
pub(super) fn built_in(
    kind: &Permissions,
    objects: &[Object],
    roles: &[Role],
    closed: &[String],
) -> Vec<Finding> {
    if !kind.looks_at(Sort::Function) {
        return Vec::new();
    }
    let owners = roles.iter().filter(|role| {
        let mut groups = role.member_of.iter();
        groups.any(|group| group == "pg_database_owner")
    });
    let owners: Vec<&str> = owners.map(|role| role.name.as_str()).collect();
    // Who makes functions there: who owns the schema or a function in it, or may make some.
    let mut makers: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for object in objects {
        let creators = object.grants.iter().filter(|grant| {
            object.sort == Sort::Schema && grant.privilege == "CREATE" && grant.to != PUBLIC
        });
        let is_made = matches!(object.sort, Sort::Schema | Sort::Function);
        let owner = is_made.then_some(object.owner.as_str());
        for maker in owner
            .into_iter()
            .chain(creators.map(|grant| grant.to.as_str()))
        {
            // Nobody is it but the owner of the database.
            let makes = match maker {
                "pg_database_owner" => owners.as_slice(),
                _ => std::slice::from_ref(&maker),
            };
            for maker in makes {
                makers.entry(maker).or_default().insert(&object.schema);
            }
        }
    }
    makers.retain(|maker, _| !closed.iter().any(|name| name == maker));
    let is_open = |schemas: &BTreeSet<&str>| {
        let mut schemas = schemas.iter();
        schemas.any(|schema| !is_expected(kind, PUBLIC, Sort::Function, schema, "EXECUTE"))
    };
    let open = makers.into_iter().filter(|(_, schemas)| is_open(schemas));
    open.map(|(maker, _)| {
        failure(
            format!(
                "everybody will have EXECUTE on every function that `{maker}` makes, which no default \
                 privileges take back"
            ),
            Some(sql!(
                "alter default privileges for role {} revoke EXECUTE on functions from public",
                Ident::new(maker)
            )),
        )
    })
    .collect()
}

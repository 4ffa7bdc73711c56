//! The matrix held against what Postgres grants.

use std::collections::{BTreeMap, BTreeSet};

use crate::gate::threshold::{Bounds, rows_of};
use crate::gate::{Figure, Finding, Judgement, Measured, Verdict};
use crate::sql;
use crate::sql::{Fixed, Ident, Relation, Sql};

use super::future;
use super::read::{Held, Object, PUBLIC, Role};
use super::{Line, Others, Permissions, Sort};

/// More objects than this are counted in a finding and not named; the repair names all.
const NAMED_MAX: usize = 5;

/// What a role may do that the matrix does not say, or may not do that it says, by way and privilege.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Deviation {
    /// It may, by a grant to itself.
    Granted,
    /// Everybody may, with the rights of the owner, and no line names the function.
    AsOwner,
    /// It may, by a grant to a role that it is a member of.
    Through(String),
    /// It may not.
    Missing,
}

/// Objects of one sort with the same deviation of the same role.
type Groups<'a> = BTreeMap<(String, Deviation, Sort, Vec<String>), Vec<&'a Object>>;

/// Holds the matrix against what is granted.
pub(super) fn judge(kind: &Permissions, measured: &Measured) -> Judgement {
    let Held {
        roles,
        objects,
        defaults,
        closed,
    } = Held::of(measured);
    let mut findings = role_findings(kind, &roles);
    findings.extend(pattern_findings(kind, &objects));
    findings.extend(owner_findings(kind, &objects, &roles));
    findings.extend(grant_findings(kind, &objects, &roles));
    findings.extend(future::findings(kind, &defaults, &roles));
    findings.extend(future::built_in(kind, &objects, &roles, &closed));
    let failures = findings.iter().filter(|finding| finding.is_failure);
    let failures: Vec<&Finding> = failures.collect();
    let has_schema = objects.iter().any(|object| object.sort == Sort::Schema);
    Judgement {
        verdict: if !failures.is_empty() {
            Verdict::Failed
        } else if !has_schema {
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
                "{} on {}, as the matrix says",
                rows_of(kind.roles.len() as u64, "role"),
                looked_at(kind, &objects)
            ),
            [only] => only.what.clone(),
            [first, rest @ ..] => format!("{}; {} more", first.what, rest.len()),
        },
        findings,
    }
}

/// "2 schemas, 3 tables, 1 function and the database".
fn looked_at(kind: &Permissions, objects: &[Object]) -> String {
    let sorts = [Sort::Schema, Sort::Table, Sort::Sequence, Sort::Function];
    let sorts = sorts.iter().filter(|sort| kind.looks_at(**sort));
    let mut words: Vec<String> = sorts
        .map(|sort| {
            let n = objects.iter().filter(|object| object.sort == *sort).count();
            rows_of(n as u64, sort.noun())
        })
        .collect();
    if kind.looks_at(Sort::Database) {
        words.push("the database".to_owned());
    }
    let last = words.pop().unwrap_or_default();
    format!("{} and {last}", words.join(", "))
}

pub(super) fn failure(what: String, repair: Option<Sql>) -> Finding {
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
    for Line {
        role,
        sort,
        pattern,
        ..
    } in kind.lines()
    {
        let mut objects = objects.iter().filter(|object| object.sort == sort);
        if !objects.any(|object| object.is_named(pattern)) {
            findings.push(Finding {
                what: format!("no {} matches `{pattern}` of `{role}`", sort.noun()),
                is_failure: !pattern.contains('*'),
                repair: None,
            });
        }
    }
    findings
}

/// Objects that a role owns that must not.
fn owner_findings(kind: &Permissions, objects: &[Object], roles: &[Role]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for object in objects {
        let name = match object.sort {
            Sort::Database => format!("the database {}", object.name()),
            _ => object.shown(),
        };
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

pub(super) fn is_superuser(name: &str, roles: &[Role]) -> bool {
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
fn predefined(role: &str, sort: Sort) -> &'static [&'static str] {
    match (role, sort) {
        ("pg_read_all_data" | "pg_write_all_data", Sort::Schema) => &["USAGE"],
        ("pg_read_all_data", Sort::Table | Sort::Sequence) => &["SELECT"],
        ("pg_write_all_data", Sort::Table) => &["INSERT", "UPDATE", "DELETE"],
        ("pg_write_all_data", Sort::Sequence) => &["UPDATE"],
        ("pg_maintain", Sort::Table) => &["MAINTAIN"],
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
    // What runs with the rights of its owner is open to everybody by name only.
    let is_guarded = object.is_definer && role == PUBLIC;
    let by_any = kind.expected(role, object.sort, |pattern| object.is_named(pattern));
    let expected = kind.expected(role, object.sort, |pattern| {
        object.is_named(pattern) && !(is_guarded && pattern.contains('*'))
    });
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
        let way = if is_own && by_any.len() > expected.len() {
            Deviation::AsOwner
        } else if is_own {
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
        for privilege in predefined(group, object.sort) {
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
        let key = (role.to_owned(), way, object.sort, privileges);
        groups.entry(key).or_default().push(object);
    }
}

fn finding(
    ((role, way, sort, privileges), objects): (
        (String, Deviation, Sort, Vec<String>),
        Vec<&Object>,
    ),
) -> Finding {
    let noun = match objects.len() {
        1 => sort.noun().to_owned(),
        _ => format!("{}s", sort.noun()),
    };
    let mut names: Vec<String> = objects.iter().map(|object| object.shown()).collect();
    if names.len() > NAMED_MAX {
        let more = names.len() - NAMED_MAX + 1;
        names.truncate(NAMED_MAX - 1);
        names.push(format!("{more} more"));
    }
    let names = names.join(", ");
    let words = privileges.join(", ");
    let granted = Sql::join(", ", privileges.iter().filter_map(|text| privilege(text)));
    let all = Sql::join(", ", objects.iter().map(|object| object.sql()));
    let on = Fixed(sort.on());
    let (who, grantee) = (told(&role), grantee(&role));
    let excess = |why: &str| {
        failure(
            format!("{who} has {words} on the {noun} {names}, {why}"),
            Some(sql!("revoke {} {} {} from {}", granted, on, all, grantee)),
        )
    };
    match way {
        Deviation::Granted => excess("which the matrix does not say"),
        Deviation::AsOwner => excess("which only a line with `*` says"),
        Deviation::Through(group) => failure(
            format!(
                "{who} has {words} on the {noun} {names} as a member of `{group}`, which the matrix does not say"
            ),
            Some(sql!("revoke {} from {}", Ident::new(group), grantee)),
        ),
        Deviation::Missing => failure(
            format!("{who} lacks {words} on the {noun} {names}"),
            Some(sql!("grant {} {} {} to {}", granted, on, all, grantee)),
        ),
    }
}

/// A role as a report names it.
pub(super) fn told(role: &str) -> String {
    match role {
        PUBLIC => "everybody".to_owned(),
        role => format!("`{role}`"),
    }
}

/// A role as a grant names it.
pub(super) fn grantee(role: &str) -> Sql {
    match role {
        PUBLIC => sql!("public"),
        role => sql!("{}", Ident::new(role)),
    }
}

/// `SELECT` or `SELECT ("column")` as a piece of SQL; `None` for a privilege that is not known here.
pub(super) fn privilege(text: &str) -> Option<Sql> {
    let (word, column) = match text.split_once(" (") {
        Some((word, rest)) => (word, rest.strip_suffix(')')),
        None => (text, None),
    };
    let mut known = Sort::ALL.iter().flat_map(|sort| sort.privileges());
    let known = known.find(|privilege| privilege.as_str() == word)?;
    let word = Fixed(known.as_str());
    Some(match column {
        None => sql!("{}", word),
        Some(column) => {
            let name = Relation::parse(column).ok()?.name;
            sql!("{} ({})", word, name)
        }
    })
}

//! Kind `permissions`.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::error::Result;
use crate::gate::catalog::{Side, matches};
use crate::gate::{Ask, Judgement, Kind, Known, Measure, Measured, Needs, OnEmpty};
use crate::source::Problem;
use crate::sql;
use crate::sql::{Literal, Relation, Sql};

use super::Definition;

mod future;
mod matrix;
mod read;

/// May each role do what it should on these schemas and what is in them, and nothing more?
///
/// A role may do what is granted to it, to `public`, to every role that it is a member of, directly or
/// not, whether it inherits or has to say SET ROLE, and what the predefined roles `pg_read_all_data`
/// and `pg_write_all_data` give; grants on single columns count, and so do default privileges, which
/// decide about what is to come. An owner may do everything with what it owns, a superuser
/// everything at all, and for a role with BYPASSRLS no row-level policy holds: a role of the matrix must
/// be none of them and must not be able to become one.
///
/// Schemas and tables are looked at always; functions, sequences and the database where `functions`, `sequences` or
/// `database` is there, even empty, which allows nothing. Postgres grants to everybody what is easily missed: EXECUTE
/// on every function, unless default privileges of who makes it take that back for all schemas, and CONNECT and
/// TEMPORARY on the database. A function that runs with the rights of its owner (SECURITY DEFINER) is open to
/// everybody only by a line that names it: one with `*` is not enough.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Permissions {
    /// The schemas, `*` standing for any text; system schemas are left out.
    #[schemars(length(min = 1))]
    schemas: Vec<String>,
    /// What each role may do: `[gate.roles.analyst]` with lines such as `"core_*" = ["usage"]` for
    /// schemas and `"core_*.*" = ["select"]` for tables, `*` standing for any text. The role `public`
    /// stands for everybody. Privileges: `usage` and `create` of schemas; `select`, `insert`, `update`,
    /// `delete`, `truncate`, `references`, `trigger` and `maintain` of tables; `all`.
    roles: BTreeMap<String, Lines>,
    /// What they, and `public`, may do with functions, procedures and aggregates: `[gate.functions.analyst]` with lines such as
    /// `"core_*.*" = ["execute"]`, `"core.odds" = ["execute"]` or, for one of several of that name, `"core.odds(integer,
    /// text)" = ["execute"]`. Those of extensions count.
    functions: Option<BTreeMap<String, Lines>>,
    /// What they may do with sequences: `[gate.sequences.analyst]` with lines such as `"core.*" = ["usage", "select",
    /// "update"]`.
    sequences: Option<BTreeMap<String, Lines>>,
    /// What they may do with the database: `database = { analyst = ["connect"] }`; `connect`, `create` and
    /// `temporary`.
    database: Option<BTreeMap<String, Vec<Privilege>>>,
    /// What roles outside of the matrix may do with what was granted to them directly: `forbid` (the
    /// default) nothing, `ignore` whatever it is. A role may always use what a role of the matrix gives
    /// to its members.
    #[serde(default)]
    others: Others,
    /// The roles that may own what is looked at; any role outside of the matrix where nothing is said.
    owners: Option<Vec<String>>,
    /// The superusers that may be; any role outside of the matrix where nothing is said.
    superusers: Option<Vec<String>>,
}

/// Privileges by pattern.
type Lines = BTreeMap<String, Vec<Privilege>>;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Privilege {
    Usage,
    Create,
    Select,
    Insert,
    Update,
    Delete,
    Truncate,
    References,
    Trigger,
    Maintain,
    Execute,
    Connect,
    Temporary,
    All,
}

impl Privilege {
    /// As Postgres writes it.
    fn as_str(self) -> &'static str {
        match self {
            Self::Usage => "USAGE",
            Self::Create => "CREATE",
            Self::Select => "SELECT",
            Self::Insert => "INSERT",
            Self::Update => "UPDATE",
            Self::Delete => "DELETE",
            Self::Truncate => "TRUNCATE",
            Self::References => "REFERENCES",
            Self::Trigger => "TRIGGER",
            Self::Maintain => "MAINTAIN",
            Self::Execute => "EXECUTE",
            Self::Connect => "CONNECT",
            Self::Temporary => "TEMPORARY",
            Self::All => "ALL",
        }
    }
}

/// What privileges are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Sort {
    /// A table, a view or another relation with columns.
    Table,
    /// A schema.
    Schema,
    /// A sequence.
    Sequence,
    /// A function, a procedure or an aggregate.
    Function,
    /// The database.
    Database,
}

impl Sort {
    const ALL: &'static [Self] = &[
        Self::Table,
        Self::Schema,
        Self::Sequence,
        Self::Function,
        Self::Database,
    ];

    /// What can be granted on it.
    fn privileges(self) -> &'static [Privilege] {
        use Privilege as P;
        match self {
            Self::Schema => &[P::Usage, P::Create],
            Self::Table => &[
                P::Select,
                P::Insert,
                P::Update,
                P::Delete,
                P::Truncate,
                P::References,
                P::Trigger,
                P::Maintain,
            ],
            Self::Sequence => &[P::Usage, P::Select, P::Update],
            Self::Function => &[P::Execute],
            Self::Database => &[P::Create, P::Connect, P::Temporary],
        }
    }

    /// What `all` stands for: what every version of Postgres has; `maintain` came with 17.
    fn all(self) -> impl Iterator<Item = &'static Privilege> {
        let every = self.privileges().iter();
        every.filter(|privilege| **privilege != Privilege::Maintain)
    }

    fn noun(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Schema => "schema",
            Self::Sequence => "sequence",
            Self::Function => "function",
            Self::Database => "database",
        }
    }

    fn plural(self) -> &'static str {
        match self {
            Self::Table => "tables",
            Self::Schema => "schemas",
            Self::Sequence => "sequences",
            Self::Function => "functions",
            Self::Database => "databases",
        }
    }

    /// What stands before it in a grant.
    fn on(self) -> &'static str {
        match self {
            Self::Table => "on table",
            Self::Schema => "on schema",
            Self::Sequence => "on sequence",
            Self::Function => "on routine",
            Self::Database => "on database",
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Others {
    #[default]
    Forbid,
    Ignore,
}

/// A line of the matrix.
struct Line<'a> {
    /// The field it stands in.
    field: &'static str,
    role: &'a str,
    sort: Sort,
    pattern: &'a str,
    privileges: &'a [Privilege],
}

impl Permissions {
    /// Whether objects of a sort are held against the matrix.
    fn looks_at(&self, sort: Sort) -> bool {
        match sort {
            Sort::Table | Sort::Schema => true,
            Sort::Sequence => self.sequences.is_some(),
            Sort::Function => self.functions.is_some(),
            Sort::Database => self.database.is_some(),
        }
    }

    /// The lines by role among which are those about objects of a sort.
    fn among(&self, sort: Sort) -> Option<&BTreeMap<String, Lines>> {
        match sort {
            Sort::Table | Sort::Schema => Some(&self.roles),
            Sort::Sequence => self.sequences.as_ref(),
            Sort::Function => self.functions.as_ref(),
            Sort::Database => None,
        }
    }

    /// Every line with a pattern.
    fn lines(&self) -> impl Iterator<Item = Line<'_>> {
        let fields = [
            ("roles", Some(&self.roles), None),
            ("functions", self.functions.as_ref(), Some(Sort::Function)),
            ("sequences", self.sequences.as_ref(), Some(Sort::Sequence)),
        ];
        fields.into_iter().flat_map(|(field, lines, sort)| {
            let roles = lines.into_iter().flatten();
            roles.flat_map(move |(role, lines)| {
                lines.iter().map(move |(pattern, privileges)| Line {
                    field,
                    role,
                    sort: sort.unwrap_or_else(|| sort_of(pattern)),
                    pattern,
                    privileges,
                })
            })
        })
    }

    /// What a role should be able to do with an object of a sort that `is_meant` by a pattern.
    fn expected(
        &self,
        role: &str,
        sort: Sort,
        is_meant: impl Fn(&str) -> bool,
    ) -> BTreeSet<Privilege> {
        let lines = self.among(sort).and_then(|roles| roles.get(role));
        let lines = lines.into_iter().flatten();
        let is_about = |pattern: &str| match sort {
            Sort::Table | Sort::Schema => sort_of(pattern) == sort,
            Sort::Sequence | Sort::Function | Sort::Database => true,
        };
        let meant = lines.filter(|(pattern, _)| is_about(pattern) && is_meant(pattern));
        let of_database = self.database.iter().filter(|_| sort == Sort::Database);
        let of_database = of_database.filter_map(|roles| roles.get(role));
        meant
            .map(|(_, privileges)| privileges)
            .chain(of_database)
            .flatten()
            .flat_map(|privilege| match privilege {
                Privilege::All => sort.all().copied().collect(),
                one => vec![*one],
            })
            .collect()
    }
}

/// Of the lines of a role, those whose pattern has no dot, outside of quotes, are about schemas.
fn sort_of(pattern: &str) -> Sort {
    let mut quoted = false;
    let has_dot = pattern.chars().any(|c| {
        quoted ^= c == '"';
        c == '.' && !quoted
    });
    match has_dot {
        true => Sort::Table,
        false => Sort::Schema,
    }
}

/// What is wrong with the privileges of a line; `what` says which line it is, and what it is about.
fn wrong_privilege(
    field: &'static str,
    what: &str,
    sort: Sort,
    privileges: &[Privilege],
) -> Option<Problem> {
    let is_of = |one: &Privilege, sort: Sort| sort.privileges().contains(one);
    let is_wrong = |one: &&Privilege| **one != Privilege::All && !is_of(one, sort);
    let wrong = privileges.iter().find(is_wrong)?;
    let name = wrong.as_str().to_lowercase();
    let problem = Problem::new(field, format!("{what} has no privilege `{name}`"));
    let mut others = Sort::ALL.iter().filter(|sort| is_of(wrong, **sort));
    let help = match others.next()? {
        Sort::Table => "write it in a line of `roles` of the form \"schema.*\"",
        Sort::Schema => "write it in a line of `roles` of the form \"schema\"",
        Sort::Sequence => "write it in a line of `sequences`",
        Sort::Function => "write it in a line of `functions`",
        Sort::Database => "write it in `database`",
    };
    Some(problem.help(help))
}

impl Definition for Permissions {
    const ON_EMPTY: OnEmpty = OnEmpty::Skip;
}

impl Kind for Permissions {
    fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.schemas.is_empty() {
            problems.push(Problem::new("schemas", "`schemas` names no schema"));
        }
        problems.extend(self.lines().filter_map(|line| {
            let (pattern, role, noun) = (line.pattern, line.role, line.sort.noun());
            let what = format!("`{pattern}` of `{role}` is a {noun} and");
            wrong_privilege(line.field, &what, line.sort, line.privileges)
        }));
        for (role, privileges) in self.database.iter().flatten() {
            let what = format!("the database, in the line of `{role}`,");
            let wrong = wrong_privilege("database", &what, Sort::Database, privileges);
            problems.extend(wrong);
        }
        let functions = self.functions.iter().flatten();
        let sequences = self.sequences.iter().flatten();
        let database = self.database.iter().flatten();
        let named = functions.map(|(role, _)| ("functions", role));
        let named = named.chain(sequences.map(|(role, _)| ("sequences", role)));
        let named = named.chain(database.map(|(role, _)| ("database", role)));
        for (field, role) in named {
            if role != read::PUBLIC && !self.roles.contains_key(role) {
                let problem = Problem::new(field, format!("`{role}` is no role of `roles`"));
                problems.push(problem.help("give it a line there, empty where it may do nothing"));
            }
        }
        problems
    }

    fn needs(&self) -> Needs {
        Needs {
            schemas: self.schemas.clone(),
            ..Needs::default()
        }
    }

    fn ask(&self, known: &Known<'_>) -> Result<Ask> {
        let schemas: Vec<&String> = known
            .catalog()
            .schemas
            .iter()
            .filter(|schema| self.schemas.iter().any(|pattern| matches(pattern, schema)))
            .collect();
        // Never an empty list, which SQL does not have; no schema is called "".
        let names = schemas.iter().map(|schema| schema.as_str());
        let names = names.chain(std::iter::once(""));
        let names: Vec<Sql> = names.map(|name| sql!("{}", Literal(name))).collect();
        let names = Sql::join(", ", names);
        Ok(Ask {
            measures: vec![Measure::Statement {
                labels: read::LABELS.map(str::to_owned).to_vec(),
                side: Side::Main,
                about: Relation::new("pg_catalog", "pg_class"),
                sql: read::statement(self, &names),
            }],
            ..Ask::default()
        })
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        matrix::judge(self, measured)
    }
}

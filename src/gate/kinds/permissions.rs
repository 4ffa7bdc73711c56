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

mod matrix;

/// May each role do what it should on the tables of these schemas, and nothing more?
///
/// A role may do what is granted to it, to `public`, to every role that it is a member of, directly or
/// not, whether it inherits or has to say SET ROLE, and what the predefined roles `pg_read_all_data`
/// and `pg_write_all_data` give; grants on single columns count, and so do default privileges, which
/// decide about the tables to come. An owner may do everything with what it owns, a superuser
/// everything at all, and for a role with BYPASSRLS no row-level policy holds: a role of the matrix must
/// be none of them and must not be able to become one. Sequences and functions are not looked at.
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
    roles: BTreeMap<String, BTreeMap<String, Vec<Privilege>>>,
    /// What roles outside of the matrix may do with what was granted to them directly: `forbid` (the
    /// default) nothing, `ignore` whatever it is. A role may always use what a role of the matrix gives
    /// to its members.
    #[serde(default)]
    others: Others,
    /// The roles that may own schemas and tables; any role outside of the matrix where nothing is said.
    owners: Option<Vec<String>>,
    /// The superusers that may be; any role outside of the matrix where nothing is said.
    superusers: Option<Vec<String>>,
}

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
    All,
}

impl Privilege {
    /// Those of a schema.
    const SCHEMA: &'static [Self] = &[Self::Usage, Self::Create];
    /// Those of a table in every version of Postgres; `maintain` came with 17.
    const TABLE: &'static [Self] = &[
        Self::Select,
        Self::Insert,
        Self::Update,
        Self::Delete,
        Self::Truncate,
        Self::References,
        Self::Trigger,
    ];

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
            Self::All => "ALL",
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

impl Permissions {
    /// What a role should be able to do with an object: a schema's name, or a table's with its schema.
    fn expected(&self, role: &str, object: &str, is_schema: bool) -> BTreeSet<Privilege> {
        let all = if is_schema {
            Privilege::SCHEMA
        } else {
            Privilege::TABLE
        };
        self.roles
            .get(role)
            .into_iter()
            .flatten()
            .filter(|(pattern, _)| {
                is_schema_pattern(pattern) == is_schema && matches(pattern, object)
            })
            .flat_map(|(_, privileges)| privileges)
            .flat_map(|privilege| match privilege {
                Privilege::All => all,
                one => std::slice::from_ref(one),
            })
            .copied()
            .collect()
    }
}

/// A pattern without a dot, outside of quotes, is about schemas.
fn is_schema_pattern(pattern: &str) -> bool {
    let mut quoted = false;
    !pattern.chars().any(|c| {
        quoted ^= c == '"';
        c == '.' && !quoted
    })
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
        for (role, rows) in &self.roles {
            for (pattern, privileges) in rows {
                let is_schema = is_schema_pattern(pattern);
                let wrong = privileges.iter().find(|privilege| {
                    **privilege != Privilege::All
                        && Privilege::SCHEMA.contains(privilege) != is_schema
                });
                if let Some(wrong) = wrong {
                    let (sort, form) = if is_schema {
                        ("a schema", "schema.*")
                    } else {
                        ("a table", "schema")
                    };
                    problems.push(
                        Problem::new(
                            "roles",
                            format!(
                                "`{pattern}` of `{role}` is {sort} and has no privilege `{}`",
                                wrong.as_str().to_lowercase()
                            ),
                        )
                        .help(format!("write it in a line of the form \"{form}\"")),
                    );
                }
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
                labels: ["roles", "objects", "defaults"].map(str::to_owned).to_vec(),
                side: Side::Main,
                about: Relation::new("pg_catalog", "pg_class"),
                sql: sql!(
                    "select ({})::text, ({})::text, ({})::text",
                    matrix::roles(),
                    matrix::objects(&names),
                    matrix::defaults(&names)
                ),
            }],
            ..Ask::default()
        })
    }

    fn judge(&self, measured: &Measured) -> Judgement {
        matrix::judge(self, measured)
    }
}

//! What a database looks like: every object a migration can make, with its definition.
//!
//! Read from `pg_catalog` under a fixed `search_path`, because `information_schema` hides what the
//! role does not own. System schemas and what belongs to an extension are left out; so are roles,
//! which belong to the server and not to the database.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use sqlx::{PgConnection, Row};

use super::catalog::{self, COLUMN_ORDER};
use crate::error::Result;
use crate::pg::Address;

/// Every object of a database with its definition, in a fixed order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape(BTreeMap<Object, String>);

/// One object: its kind, its name, and what it is a part of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Object {
    /// The kind as a person says it: `table`, `column`, `foreign key`, `privileges on table`.
    pub kind: String,
    /// The qualified name; of a part its own name alone.
    pub name: String,
    /// The qualified name of what it is a part of, mostly a relation; a part may have no name
    /// of its own.
    pub of: Option<String>,
}

/// How one object differs between two shapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Difference {
    /// Which object.
    pub object: Object,
    /// What is different about it.
    pub change: Change,
}

/// What is different about an object in the second of two shapes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Change {
    /// Only the first has it; its definition there.
    Missing(String),
    /// Only the second has it; its definition there.
    Extra(String),
    /// Both have it, with these definitions.
    Changed {
        /// In the first.
        before: String,
        /// In the second.
        after: String,
    },
}

impl Shape {
    /// Reads the shape of the database that the connection is on.
    ///
    /// Takes a read-only transaction of its own: the connection must not be in one.
    pub async fn capture(connection: &mut PgConnection, address: &Address) -> Result<Self> {
        catalog::begin(connection, address).await?;
        let shape = Self::read(connection, address).await;
        let shape = shape.map_err(|error| error.context("the catalog cannot be read"));
        catalog::end(connection, address, shape).await
    }

    async fn read(connection: &mut PgConnection, address: &Address) -> Result<Self> {
        let wrong = |error| address.error(&error);
        let mut objects = BTreeMap::new();
        for query in catalog::shape_queries() {
            let rows = sqlx::query(query).fetch_all(&mut *connection).await;
            for row in rows.map_err(wrong)? {
                let object = Object {
                    kind: row.try_get(0).map_err(wrong)?,
                    of: row.try_get(1).map_err(wrong)?,
                    name: row.try_get(2).map_err(wrong)?,
                };
                objects.insert(object, row.try_get(3).map_err(wrong)?);
            }
        }
        Ok(Self(objects))
    }

    /// The objects with their definitions.
    pub fn objects(&self) -> impl Iterator<Item = (&Object, &str)> {
        self.0.iter().map(|(object, text)| (object, text.as_str()))
    }

    /// How `other` differs from this one, in the order of the objects.
    ///
    /// The parts of what is missing or extra as a whole are not listed one by one, and the order of
    /// a table's columns only when the columns are the same ones.
    pub fn diff(&self, other: &Self) -> Vec<Difference> {
        let mut differences = Vec::new();
        for (object, before) in &self.0 {
            let change = match other.0.get(object) {
                None => Change::Missing(before.clone()),
                Some(after) if after != before => Change::Changed {
                    before: before.clone(),
                    after: after.clone(),
                },
                Some(_) => continue,
            };
            differences.push(Difference {
                object: object.clone(),
                change,
            });
        }
        for (object, text) in &other.0 {
            if !self.0.contains_key(object) {
                differences.push(Difference {
                    object: object.clone(),
                    change: Change::Extra(text.clone()),
                });
            }
        }
        let (mine, theirs) = (self.wholes(), other.wholes());
        let other_columns: BTreeSet<String> = differences
            .iter()
            .filter(|d| d.object.kind == "column" && !matches!(d.change, Change::Changed { .. }))
            .filter_map(|d| d.object.of.clone())
            .collect();
        differences.retain(|difference| {
            let Some(whole) = difference.object.of.as_deref() else {
                return true;
            };
            match &difference.change {
                Change::Missing(_) => theirs.contains(whole) || !mine.contains(whole),
                Change::Extra(_) => mine.contains(whole) || !theirs.contains(whole),
                Change::Changed { .. } => {
                    difference.object.kind != COLUMN_ORDER || !other_columns.contains(whole)
                }
            }
        });
        differences.sort();
        differences
    }

    /// The names of what may have parts.
    fn wholes(&self) -> BTreeSet<&str> {
        self.0
            .keys()
            .filter(|object| object.of.is_none())
            .map(|object| object.name.as_str())
            .collect()
    }
}

impl FromIterator<(Object, String)> for Shape {
    fn from_iter<T: IntoIterator<Item = (Object, String)>>(objects: T) -> Self {
        Self(objects.into_iter().collect())
    }
}

impl fmt::Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.of {
            Some(of) if self.name.is_empty() => write!(f, "{} {of}", self.kind),
            Some(of) => write!(f, "{} {of}.{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

impl fmt::Display for Difference {
    /// One line; long definitions are cut around what differs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let object = &self.object;
        match &self.change {
            Change::Missing(text) => write!(f, "{object} is missing (was: {})", shown(text)),
            Change::Extra(text) => write!(f, "{object} is extra ({})", shown(text)),
            Change::Changed { before, after } => {
                let (before, after) = (one_line(before), one_line(after));
                let start = common_start(&before, &after);
                write!(
                    f,
                    "{object} changed: was {}, is {}",
                    cut(&before, start),
                    cut(&after, start)
                )
            }
        }
    }
}

/// How many characters of a definition a line shows.
const SHOWN: usize = 100;

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn shown(text: &str) -> String {
    cut(&one_line(text), 0)
}

/// How many characters two texts begin with alike.
fn common_start(a: &str, b: &str) -> usize {
    a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count()
}

/// The text, or where it is long the part around character `at`.
fn cut(text: &str, at: usize) -> String {
    let length = text.chars().count();
    if text.is_empty() {
        return "nothing".to_owned();
    }
    if length <= SHOWN {
        return format!("`{text}`");
    }
    let start = at.saturating_sub(SHOWN / 4).min(length - SHOWN);
    let part: String = text.chars().skip(start).take(SHOWN).collect();
    let before = if start > 0 { "…" } else { "" };
    let after = if start + SHOWN < length { "…" } else { "" };
    format!("`{before}{part}{after}`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn object(kind: &str, of: Option<&str>, name: &str) -> Object {
        Object {
            kind: kind.to_owned(),
            name: name.to_owned(),
            of: of.map(str::to_owned),
        }
    }

    #[test]
    fn a_difference_is_one_readable_line() {
        let long = |end: &str| format!("select\n  {} {end}", "a, ".repeat(60));
        let before = Shape::from_iter([
            (object("table", None, "s.gone"), "persistent".to_owned()),
            (object("column", Some("s.gone"), "x"), "integer".to_owned()),
            (
                object("column", Some("s.t"), "a"),
                "integer not null".to_owned(),
            ),
            (object("table", None, "s.t"), String::new()),
            (object("view", None, "s.v"), long("from x")),
        ]);
        let after = Shape::from_iter([
            (object("column", Some("s.t"), "a"), "integer".to_owned()),
            (object("column", Some("s.t"), "b"), "text".to_owned()),
            (object("table", None, "s.t"), String::new()),
            (object("view", None, "s.v"), long("from y")),
        ]);
        let lines: Vec<String> = before
            .diff(&after)
            .iter()
            .map(ToString::to_string)
            .collect();
        insta::assert_snapshot!(lines.join("\n"), @"
        column s.t.a changed: was `integer not null`, is `integer`
        column s.t.b is extra (`text`)
        table s.gone is missing (was: `persistent`)
        view s.v changed: was `… a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, from x`, is `… a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, a, from y`
        ");
    }

    fn shape() -> impl Strategy<Value = Shape> {
        let parts = (
            proptest::sample::select(vec!["table", "column", COLUMN_ORDER]),
            proptest::option::of("[a-c]"),
            "[a-c]",
        );
        proptest::collection::vec((parts, "[xy]"), 0..12).prop_map(|objects| {
            objects
                .into_iter()
                .map(|((kind, of, name), text)| (object(kind, of.as_deref(), &name), text))
                .collect()
        })
    }

    proptest! {
        #[test]
        fn a_difference_seen_from_the_other_side_is_its_mirror(a in shape(), b in shape()) {
            let mut mirrored: Vec<Difference> = b
                .diff(&a)
                .into_iter()
                .map(|Difference { object, change }| Difference {
                    object,
                    change: match change {
                        Change::Missing(text) => Change::Extra(text),
                        Change::Extra(text) => Change::Missing(text),
                        Change::Changed { before, after } => Change::Changed { before: after, after: before },
                    },
                })
                .collect();
            mirrored.sort();
            prop_assert_eq!(a.diff(&b), mirrored);
        }

        #[test]
        fn shapes_without_a_difference_are_equal(a in shape(), b in shape()) {
            prop_assert!(a.diff(&a).is_empty());
            // Parts that are left out belong to a whole that is itself listed.
            prop_assert_eq!(a.diff(&b).is_empty(), a == b);
        }

        #[test]
        fn any_definition_can_be_shown(a in ".{0,300}", b in ".{0,300}") {
            let line = Difference {
                object: object("view", None, "v"),
                change: Change::Changed { before: a, after: b },
            }
            .to_string();
            prop_assert!(!line.contains('\n') && line.chars().count() < 400);
        }
    }
}

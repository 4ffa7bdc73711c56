//! Which columns keep their values in the database, and what a report says in their place.
//!
//! A value is masked and cut by the SQL that asks for it, so that it never leaves the server. Knows
//! nothing of connections.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer};

use crate::sql;
use crate::sql::{Literal, Relation, Sql};

use super::catalog::Column;

/// A value is shown up to this many characters.
pub const CHARACTERS_MAX: u32 = 200;

/// The word in a column's comment, or in that of its table, that masks it.
pub const TAG: &str = "postern:mask";

/// The setting of a session that holds what makes the stand-ins of one run its own.
pub const SALT: &str = "postern.salt";

/// Columns by name: `table.column` or `schema.table.column`, `*` standing for any text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    /// Schema, table and column as SQL's LIKE reads them.
    like: [String; 3],
}

impl Pattern {
    /// Reads a pattern; the error is a sentence without location.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (table, column) = Relation::parse_column(text).map_err(|why| {
            if text.contains(['.', '"']) {
                why
            } else {
                format!("`{text}` names no table: write `*.{text}` for a column of any table")
            }
        })?;
        let schema = table.schema.as_ref().map_or("*", |schema| schema.as_str());
        Ok(Self {
            text: text.to_owned(),
            like: [schema, table.name.as_str(), &column].map(like),
        })
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Schema, table and column as SQL's LIKE reads them.
    pub fn like(&self) -> &[String; 3] {
        &self.like
    }
}

fn like(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '*' => out.push('%'),
            '%' | '_' | '\\' => out.extend(['\\', c]),
            _ => out.push(c),
        }
    }
    out
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Pattern {
    fn schema_name() -> Cow<'static, str> {
        "ColumnPattern".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`table.column` or `schema.table.column`, `*` standing for any text.",
            "type": "string",
            "minLength": 3
        })
    }
}

/// The masked columns of one database.
#[derive(Clone, Debug, Default)]
pub struct Masks {
    tables: BTreeMap<Relation, MaskedTable>,
    /// The patterns that match a column of it, by their place.
    pub matched: BTreeSet<usize>,
}

/// The columns of a relation that has a masked one.
#[derive(Clone, Debug, Default)]
pub struct MaskedTable {
    /// Those that are masked.
    pub masked: BTreeSet<String>,
    /// Those that are not.
    pub others: BTreeSet<String>,
}

impl Masks {
    /// Adds a relation with a masked column.
    pub fn add(&mut self, relation: Relation, table: MaskedTable) {
        self.tables.insert(relation, table);
    }

    /// Whether no column is masked.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty()
    }

    /// Whether a column of a relation, named with its schema, is masked.
    pub fn hide(&self, relation: &Relation, column: &str) -> bool {
        let table = self.tables.get(relation);
        table.is_some_and(|table| table.masked.contains(column))
    }

    /// Whether what is computed from these relations may be a masked value.
    pub fn reach(&self, read: &[Relation]) -> bool {
        // What reads no relation by its plan may read any through a function.
        !self.is_empty()
            && (read.is_empty() || read.iter().any(|name| self.tables.contains_key(name)))
    }

    /// Whether a column of a query that reads these relations may hold masked values: unless it bears
    /// the name of a column of theirs that is not masked, nobody knows where its values come from.
    pub fn may_hide(&self, read: &[Relation], column: &str) -> bool {
        let tables = read.iter().filter_map(|name| self.tables.get(name));
        let tables: Vec<&MaskedTable> = tables.collect();
        let is_known = tables.iter().any(|table| table.others.contains(column));
        let is_masked = tables.iter().any(|table| table.masked.contains(column));
        self.reach(read) && (is_masked || !is_known)
    }
}

/// A value as text, cut where it is long, with its whole length.
pub fn cut(value: &Sql) -> Sql {
    sql!(
        "(select case when length(v) > {} then {} || ')' else v end from (select ({})::text) t(v))",
        CHARACTERS_MAX,
        beginning(&sql!("v")),
        value
    )
}

/// `the first characters... (5000 characters`, to be closed.
fn beginning(text: &Sql) -> Sql {
    sql!(
        "left({}, {}) || '... (' || length({}) || ' characters'",
        text,
        CHARACTERS_MAX,
        text
    )
}

/// A word in place of a value; null stays null.
pub fn masked(value: &Sql) -> Sql {
    sql!("case when num_nulls({}) = 0 then '[masked]' end", value)
}

/// A word in place of a value that is the same for equal values of one run, so that rows can be told
/// apart, and that nobody can compute without the run's salt; null stays null.
pub fn stand_in(value: &Sql) -> Sql {
    sql!(
        "'[masked ' || {} || ']'",
        digest(&sql!("({})::text", value))
    )
}

/// 64 bits of a hash, keyed with the run's salt.
fn digest(text: &Sql) -> Sql {
    sql!(
        "left(encode(sha256(convert_to(current_setting({}) || {}, getdatabaseencoding())), 'hex'), 16)",
        Literal(SALT),
        text
    )
}

/// A value that takes part in naming a group or a row on two sides: as text that differs where the
/// values' texts do, however long these are.
pub fn named(value: &Sql, column: &Column, is_masked: bool) -> Sql {
    let text = sql!("{}::text", value);
    if is_masked {
        stand_in(value)
    } else if is_short(column) {
        text
    } else {
        sql!(
            "case when length({}) > {} then {} || ', ' || {} || ')' else {} end",
            text,
            CHARACTERS_MAX,
            beginning(&text),
            digest(&text),
            text
        )
    }
}

/// Whether no value of a column's type is a long text.
pub fn is_short(column: &Column) -> bool {
    matches!(column.category, 'B' | 'D' | 'E' | 'T')
        || column.type_name == "uuid"
        || (column.category == 'N' && !column.type_name.starts_with("numeric"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("*.email", ["%", "%", "email"])]
    #[case("people.*", ["%", "people", "%"])]
    #[case("hr.people.first_name", ["hr", "people", "first\\_name"])]
    #[case(r#"s."odd.t*"."100%""#, ["s", "odd.t%", "100\\%"])]
    fn a_pattern_names_columns(#[case] text: &str, #[case] like: [&str; 3]) {
        let pattern = Pattern::parse(text).expect("it is a pattern");
        assert_eq!(pattern.like().each_ref().map(String::as_str), like);
        assert_eq!(pattern.as_str(), text);
    }

    #[rstest]
    #[case("email", "write `*.email`")]
    #[case("a.b.c.d", "is no column")]
    #[case("a..b", "empty part")]
    fn what_is_no_pattern_is_refused(#[case] text: &str, #[case] expected: &str) {
        let why = Pattern::parse(text).expect_err("it is no pattern");
        assert!(why.contains(expected), "{why}");
    }

    #[test]
    fn of_a_query_only_a_column_that_is_known_is_shown() {
        let people = Relation::new("hr", "people");
        let games = Relation::new("s", "games");
        let mut masks = Masks::default();
        assert!(!masks.may_hide(&[], "email"));
        masks.add(
            people.clone(),
            MaskedTable {
                masked: BTreeSet::from(["email".to_owned()]),
                others: BTreeSet::from(["id".to_owned()]),
            },
        );
        let both = [people, games.clone()];
        for (column, expected) in [("email", true), ("id", false), ("contact", true)] {
            assert_eq!(masks.may_hide(&both, column), expected, "{column}");
        }
        assert!(!masks.may_hide(&[games], "contact"));
        assert!(masks.may_hide(&[], "id"), "a function may read any table");
    }
}

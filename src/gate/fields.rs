//! Field types that several kinds share.

use std::borrow::Cow;
use std::fmt;

use jiff::{SignedDuration, Span, SpanRelativeTo};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, Visitor};

use crate::error::{self, Error, ErrorKind};
use crate::sql;
use crate::sql::{AuthorSql, Literal, Relation, Sql};

use super::catalog::Column;

/// A table's name as a definition writes it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName(pub Relation);

impl<'de> Deserialize<'de> for TableName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Relation::parse(&text).map(Self).map_err(de::Error::custom)
    }
}

impl JsonSchema for TableName {
    fn schema_name() -> Cow<'static, str> {
        "TableName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`table` or `schema.table`, upper and lower case as they are; double quotes only around a part that holds a dot or a quote.",
            "type": "string",
            "minLength": 1
        })
    }
}

/// A table with columns: `schema.table(column, column)`, or the table alone for its primary key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// The table.
    pub table: Relation,
    /// The columns; empty stands for the primary key.
    pub columns: Vec<String>,
}

impl Reference {
    fn parse(text: &str) -> Result<Self, String> {
        let Some((table, rest)) = split_columns(text) else {
            return Relation::parse(text).map(|table| Self {
                table,
                columns: Vec::new(),
            });
        };
        let mut columns = Vec::new();
        for part in rest.split(',') {
            let column = Relation::parse(part)?;
            if column.schema.is_some() {
                return Err(format!("`{}` is not a column name", part.trim()));
            }
            columns.push(column.name.as_str().to_owned());
        }
        Ok(Self {
            table: Relation::parse(table)?,
            columns,
        })
    }
}

/// Splits `table(a, b)` outside of quotes.
fn split_columns(text: &str) -> Option<(&str, &str)> {
    let inner = text.trim().strip_suffix(')')?;
    let mut quoted = false;
    for (at, c) in inner.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '(' if !quoted => return Some((&inner[..at], &inner[at + 1..])),
            _ => {}
        }
    }
    None
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Reference {
    fn schema_name() -> Cow<'static, str> {
        "Reference".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`schema.table(column, …)`, or `schema.table` for its primary key.",
            "type": "string",
            "minLength": 1
        })
    }
}

/// A column with its table: `schema.table.column`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnName {
    /// The table.
    pub table: Relation,
    /// The column.
    pub column: String,
}

impl<'de> Deserialize<'de> for ColumnName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let (table, column) = Relation::parse_column(&text).map_err(de::Error::custom)?;
        Ok(Self { table, column })
    }
}

impl JsonSchema for ColumnName {
    fn schema_name() -> Cow<'static, str> {
        "ColumnName".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "`schema.table.column`.",
            "type": "string",
            "minLength": 3
        })
    }
}

/// A number, a text or a truth value to compare a column with.
#[derive(Clone, Debug, PartialEq)]
pub enum Scalar {
    /// A number, as it is written.
    Number(String),
    /// A text; dates and times are written as text too.
    Text(String),
}

impl Scalar {
    /// As a person reads it.
    pub fn as_str(&self) -> &str {
        let (Self::Number(text) | Self::Text(text)) = self;
        text
    }

    /// The value as a column of that type is compared with it; an error where it cannot be.
    pub fn literal(&self, column: &Column) -> error::Result<Sql> {
        let text = self.as_str();
        if column.category != 'N' {
            return match self {
                Self::Text(text) => Ok(sql!("{}", Literal(text))),
                Self::Number(number) => Err(Error::new(
                    ErrorKind::Database,
                    format!(
                        "`{}` is of type {} and cannot be compared with the number {number}",
                        column.name, column.type_name
                    ),
                )
                .with_sqlstate("42804")
                .help(format!("write \"{number}\" in quotes"))),
            };
        }
        if text.trim().parse::<f64>().is_err() {
            return Err(Error::new(
                ErrorKind::Database,
                format!(
                    "`{}` is of type {} and cannot be compared with `{text}`",
                    column.name, column.type_name
                ),
            )
            .with_sqlstate("22P02"));
        }
        // 0.1 as real is not 0.1 as numeric.
        Ok(if column.type_name == "real" {
            sql!("{}::real", Literal(text.trim()))
        } else {
            sql!("{}::numeric", Literal(text.trim()))
        })
    }
}

impl<'de> Deserialize<'de> for Scalar {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ScalarVisitor;
        impl Visitor<'_> for ScalarVisitor {
            type Value = Scalar;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or text in quotes (dates too)")
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value.to_string()))
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value.to_string()))
            }
            fn visit_f64<E: de::Error>(self, value: f64) -> Result<Scalar, E> {
                Ok(Scalar::Number(value.to_string()))
            }
            fn visit_bool<E: de::Error>(self, value: bool) -> Result<Scalar, E> {
                Ok(Scalar::Text(value.to_string()))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Scalar, E> {
                Ok(Scalar::Text(text.to_owned()))
            }
        }
        deserializer.deserialize_any(ScalarVisitor)
    }
}

impl JsonSchema for Scalar {
    fn schema_name() -> Cow<'static, str> {
        "Scalar".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A number, or a text in quotes; dates and times are written as text.",
            "type": ["number", "string", "boolean"]
        })
    }
}

/// A condition or a query that the author of a definition wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqlText(pub AuthorSql);

impl<'de> Deserialize<'de> for SqlText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let author = AuthorSql::new(&text);
        if author.as_str().trim().is_empty() {
            return Err(de::Error::custom("no SQL in it, expected SQL text"));
        }
        Ok(Self(author))
    }
}

/// How the schema marks a field that holds SQL.
pub const SQL: &str = "application/sql";

impl JsonSchema for SqlText {
    fn schema_name() -> Cow<'static, str> {
        "SqlText".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "SQL, passed to Postgres as it is, in a read-only session.",
            "type": "string",
            "contentMediaType": SQL,
            "minLength": 1
        })
    }
}

/// A length of time such as `36h`, `2d` or `1h 30m`; a day is 24 hours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Age(pub SignedDuration);

impl Age {
    /// Reads a length of time above zero.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("`{text}` is not a length of time, expected for example 36h, 2d or 30m");
        let span: Span = text.trim().parse().map_err(|_| wrong())?;
        let duration = span
            .to_duration(SpanRelativeTo::days_are_24_hours())
            .map_err(|_| wrong())?;
        if duration.is_positive() {
            Ok(Self(duration))
        } else {
            Err(format!("`{text}` is not above zero"))
        }
    }

    /// Whole and fractional seconds.
    pub fn seconds(self) -> f64 {
        self.0.as_secs_f64()
    }
}

impl fmt::Display for Age {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&duration(self.seconds()))
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(de::Error::custom)
    }
}

impl JsonSchema for Age {
    fn schema_name() -> Cow<'static, str> {
        "Age".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A length of time such as `36h`, `2d`, `30m`; a day is 24 hours.",
            "type": "string",
            "examples": ["36h", "2d", "30m"]
        })
    }
}

/// A moment with its offset from UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment(pub jiff::Timestamp);

impl<'de> Deserialize<'de> for Moment {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map(Self).map_err(|_| {
            de::Error::custom(format!(
                "`{text}` is not a moment: write date, time and offset, as 2025-07-03T12:00:00Z"
            ))
        })
    }
}

impl JsonSchema for Moment {
    fn schema_name() -> Cow<'static, str> {
        "Moment".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "Date, time and offset from UTC, as `2025-07-03T12:00:00Z`.",
            "type": "string",
            "examples": ["2025-07-03T12:00:00Z", "2025-07-03 08:00-04:00"]
        })
    }
}

/// Seconds as a person says them, in the two largest units: `2d 3h`, `36h`, `45m`, `0.5s`.
pub fn duration(seconds: f64) -> String {
    if seconds < 60.0 {
        let rounded = (seconds * 10.0).round() / 10.0;
        return format!("{rounded}s");
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an age for reading; it is above 60 here and saturates"
    )]
    let whole = seconds as u64;
    let (days, hours, minutes, rest) = (
        whole / 86_400,
        whole % 86_400 / 3600,
        whole % 3600 / 60,
        whole % 60,
    );
    let (large, small) = if days >= 2 {
        ((days, 'd'), (hours, 'h'))
    } else if whole >= 3600 {
        ((whole / 3600, 'h'), (minutes, 'm'))
    } else {
        ((minutes, 'm'), (rest, 's'))
    };
    if small.0 == 0 {
        format!("{}{}", large.0, large.1)
    } else {
        format!("{}{} {}{}", large.0, large.1, small.0, small.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("36h", 129_600.0, "36h")]
    #[case("2d", 172_800.0, "2d")]
    #[case("90m", 5400.0, "1h 30m")]
    #[case("1h 30m", 5400.0, "1h 30m")]
    #[case("45s", 45.0, "45s")]
    fn a_length_of_time_reads_back(#[case] text: &str, #[case] seconds: f64, #[case] shown: &str) {
        let age = Age::parse(text).expect("it is a length of time");
        assert!((age.seconds() - seconds).abs() < 1e-9);
        assert_eq!(age.to_string(), shown);
    }

    #[rstest]
    #[case("0h")]
    #[case("-2d")]
    #[case("soon")]
    #[case("2 moons")]
    #[case("1 month")]
    fn what_is_no_length_of_time_is_refused(#[case] text: &str) {
        Age::parse(text).expect_err("it is no length of time");
    }

    #[test]
    fn a_reference_has_a_table_and_perhaps_columns() {
        let with = Reference::parse(r#"s."odd(t"(a, "b,x")"#);
        assert!(
            with.is_err(),
            "a comma inside a quoted column is not understood: {with:?}"
        );
        let with = Reference::parse(r#"s."odd(t"(a, B)"#).expect("it is a reference");
        assert_eq!(with.table, Relation::new("s", "odd(t"));
        assert_eq!(with.columns, ["a", "B"]);
        assert!(
            Reference::parse("s.t")
                .expect("it is a table")
                .columns
                .is_empty()
        );
    }
}

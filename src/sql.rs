//! The only place where SQL text is built.
//!
//! [`sql!`](crate::sql!) takes a literal and pieces that know how to be embedded: identifiers, relations,
//! quoted literals, numbers, other [`Sql`], and SQL that a definition's author wrote
//! ([`AuthorSql`]). A plain `String` is none of these and does not compile:
//!
//! ```compile_fail
//! let table = String::from("orders; drop table orders");
//! let query = postern::sql!("select count(*) from {}", table);
//! ```
//!
//! ```
//! use postern::sql::{Ident, Literal, Relation};
//! let table = Relation::parse("Sales.\"we\"\"ird\"").unwrap();
//! let query = postern::sql!("select {} from {} where x = {}", Ident::new("a"), table, Literal("o'k"));
//! assert_eq!(query.as_str(), r#"select "a" from "Sales"."we""ird" where x = 'o''k'"#);
//! ```
//!
//! Knows nothing of connections.

use std::fmt;

use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};

/// A piece of SQL built from trusted parts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Sql(String);

/// Builds [`Sql`] from a literal and embeddable pieces, with the syntax of `format!`'s `{}`.
#[macro_export]
macro_rules! sql {
    ($text:literal $(, $piece:expr)* $(,)?) => {{
        // A statement of its own: what it borrows ends here, so that a future that awaits the
        // whole expression can go to another thread.
        let sql =
            $crate::sql::Sql::assemble(format_args!($text $(, $crate::sql::Piece::new(&$piece))*));
        sql
    }};
}

impl Sql {
    /// What [`sql!`](crate::sql!) calls; its arguments are all [`Piece`]s.
    #[doc(hidden)]
    pub fn assemble(parts: fmt::Arguments<'_>) -> Self {
        Self(parts.to_string())
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The pieces with `separator` between them.
    pub fn join(separator: &'static str, pieces: impl IntoIterator<Item = impl Embed>) -> Self {
        let mut text = String::new();
        for (index, piece) in pieces.into_iter().enumerate() {
            if index > 0 {
                text.push_str(separator);
            }
            text.push_str(&Piece::new(&piece).to_string());
        }
        Self(text)
    }

    /// The same as a comment: every line behind `-- `, so that a name that holds a line break does not
    /// bring what follows it back to life.
    #[must_use]
    pub fn commented(&self) -> Self {
        let mut text = String::from("-- ");
        let mut chars = self.0.chars().peekable();
        while let Some(c) = chars.next() {
            text.push(c);
            if c == '\n' || (c == '\r' && chars.peek() != Some(&'\n')) {
                text.push_str("-- ");
            }
        }
        Self(text)
    }
}

impl fmt::Display for Sql {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SqlSafeStr for Sql {
    fn into_sql_str(self) -> SqlStr {
        AssertSqlSafe(self.0).into_sql_str()
    }
}

impl SqlSafeStr for &Sql {
    fn into_sql_str(self) -> SqlStr {
        AssertSqlSafe(self.0.clone()).into_sql_str()
    }
}

/// Something that may stand inside SQL text.
pub trait Embed: sealed::Sealed {
    /// Writes it the way it must stand in SQL.
    fn embed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
}

/// An embeddable piece on its way into SQL text.
#[doc(hidden)]
pub struct Piece<'a>(&'a dyn Embed);

impl<'a> Piece<'a> {
    #[doc(hidden)]
    pub fn new<T: Embed>(piece: &'a T) -> Self {
        Self(piece)
    }
}

impl fmt::Display for Piece<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.embed(f)
    }
}

/// One identifier, kept exactly as given and always quoted in SQL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ident(String);

impl Ident {
    /// The identifier whose name is exactly `name`.
    pub fn new(name: impl Into<String>) -> Self {
        Self(name.into())
    }

    /// The bare name, unquoted.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A table, view or other relation: a name, with or without its schema.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Relation {
    /// The schema; `None` means: found through the session's fixed `search_path`.
    pub schema: Option<Ident>,
    /// The relation's own name.
    pub name: Ident,
}

impl Relation {
    /// A relation in a schema, both exactly as given.
    pub fn new(schema: impl Into<String>, name: impl Into<String>) -> Self {
        Self {
            schema: Some(Ident::new(schema)),
            name: Ident::new(name),
        }
    }

    /// Reads `name`, `schema.name`, or either part in double quotes.
    ///
    /// Names are taken as written, upper case included; quotes are needed only around a dot or a
    /// quote. The error is a sentence without location.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut parts = parse_dotted(text)?;
        match (parts.pop(), parts.pop(), parts.pop()) {
            (Some(name), schema, None) => Ok(Self { schema, name }),
            _ => Err(format!(
                "`{text}` has too many parts: expected `table` or `schema.table`"
            )),
        }
    }

    /// Reads `table.column` or `schema.table.column`, each part as [`Relation::parse`] reads it.
    pub fn parse_column(text: &str) -> Result<(Self, String), String> {
        let mut parts = parse_dotted(text)?;
        match (parts.pop(), parts.pop(), parts.pop(), parts.pop()) {
            (Some(column), Some(name), schema, None) => Ok((Self { schema, name }, column.0)),
            _ => Err(format!(
                "`{text}` is no column: expected `schema.table.column`"
            )),
        }
    }

    /// Name as a person writes it: quotes only where they are needed to read it back.
    pub fn readable(&self) -> String {
        match &self.schema {
            Some(schema) => format!("{}.{}", readable(schema), readable(&self.name)),
            None => readable(&self.name),
        }
    }
}

fn readable(ident: &Ident) -> String {
    if ident.0.contains(['.', '"', ' ', '(', ')', ',']) {
        format!("\"{}\"", ident.0.replace('"', "\"\""))
    } else {
        ident.0.clone()
    }
}

/// Splits a dotted name into identifiers, honouring double quotes.
fn parse_dotted(text: &str) -> Result<Vec<Ident>, String> {
    let mut parts = Vec::new();
    let mut chars = text.trim().chars().peekable();
    loop {
        let mut part = String::new();
        if chars.peek() == Some(&'"') {
            chars.next();
            loop {
                match chars.next() {
                    Some('"') if chars.peek() == Some(&'"') => {
                        chars.next();
                        part.push('"');
                    }
                    Some('"') => break,
                    Some(other) => part.push(other),
                    None => return Err(format!("`{text}` has a quote that is never closed")),
                }
            }
        } else {
            while let Some(&next) = chars.peek() {
                match next {
                    '.' => break,
                    '"' => return Err(format!("`{text}` has a quote in the middle of a name")),
                    _ => part.push(next),
                }
                chars.next();
            }
        }
        if part.is_empty() {
            return Err(format!("`{text}` has an empty part: expected a name"));
        }
        if part.contains('\0') {
            return Err(format!("`{}` holds a NUL character", text.escape_debug()));
        }
        parts.push(Ident(part));
        match chars.next() {
            None => return Ok(parts),
            Some('.') => {}
            Some(other) => return Err(format!("`{text}` has `{other}` after a closing quote")),
        }
    }
}

/// A type, as the server's own `format_type` writes it: quoted where it has to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TypeName(String);

impl TypeName {
    /// Reads such a text; `None` where something outside of its quotes can be no part of a type.
    pub fn parse(text: &str) -> Option<Self> {
        let (mut is_quoted, mut before) = (false, ' ');
        let is_type = text.chars().all(|c| {
            is_quoted ^= c == '"';
            // A scale may be negative; two of these signs begin a comment.
            let is_comment = c == '-' && before == '-';
            before = c;
            let is_plain =
                c.is_ascii_lowercase() || c.is_ascii_digit() || "_ .,()[]-\"".contains(c);
            is_quoted || (is_plain && !is_comment)
        });
        (is_type && !is_quoted && !text.is_empty()).then(|| Self(text.to_owned()))
    }
}

/// SQL text that is part of the program itself.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(pub &'static str);

/// A text value, written as a quoted literal.
#[derive(Clone, Copy, Debug)]
pub struct Literal<'a>(pub &'a str);

/// SQL that the author of a definition wrote: a `where`, a query, a workload.
///
/// It is passed through as theirs; it runs in a read-only session and is checked with `EXPLAIN`
/// before the run. A line break after it keeps a trailing comment from swallowing what follows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AuthorSql(String);

impl AuthorSql {
    /// Takes an author's text, without its trailing semicolons and white space.
    pub fn new(text: &str) -> Self {
        Self(
            text.trim_end_matches([';', ' ', '\t', '\r', '\n'])
                .to_owned(),
        )
    }

    /// The text as it will run.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The author's statement itself, to be run as it is.
    pub fn to_sql(&self) -> Sql {
        Sql(self.0.clone())
    }
}

mod sealed {
    pub trait Sealed {}
}

macro_rules! embed {
    ($($ty:ty => |$this:ident, $f:ident| $body:expr;)+) => {
        $(
            impl sealed::Sealed for $ty {}
            impl Embed for $ty {
                fn embed(&self, $f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    let $this = self;
                    $body
                }
            }
        )+
    };
}

embed! {
    Sql => |this, f| f.write_str(&this.0);
    Ident => |this, f| write!(f, "\"{}\"", this.0.replace('"', "\"\""));
    Relation => |this, f| {
        if let Some(schema) = &this.schema {
            schema.embed(f)?;
            f.write_str(".")?;
        }
        this.name.embed(f)
    };
    TypeName => |this, f| f.write_str(&this.0);
    Fixed => |this, f| f.write_str(this.0);
    Literal<'_> => |this, f| {
        // A backslash means itself only under standard_conforming_strings; E'' means the same always.
        if this.0.contains('\\') {
            write!(f, "E'{}'", this.0.replace('\\', "\\\\").replace('\'', "''"))
        } else {
            write!(f, "'{}'", this.0.replace('\'', "''"))
        }
    };
    AuthorSql => |this, f| writeln!(f, "{}", this.0);
    bool => |this, f| write!(f, "{this}");
    i64 => |this, f| write!(f, "{this}");
    u64 => |this, f| write!(f, "{this}");
    u32 => |this, f| write!(f, "{this}");
    usize => |this, f| write!(f, "{this}");
}

impl<T: Embed> sealed::Sealed for &T {}
impl<T: Embed> Embed for &T {
    fn embed(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).embed(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("orders", r#""orders""#)]
    #[case("Sales.Orders", r#""Sales"."Orders""#)]
    #[case(r#""a.b".c"#, r#""a.b"."c""#)]
    #[case(r#"s."we""ird""#, r#""s"."we""ird""#)]
    #[case("Ünïcode.select", r#""Ünïcode"."select""#)]
    fn a_name_is_taken_as_written(#[case] text: &str, #[case] expected: &str) {
        let relation = Relation::parse(text).expect("it is a name");
        assert_eq!(sql!("{}", relation).as_str(), expected);
        assert_eq!(Relation::parse(&relation.readable()), Ok(relation));
    }

    #[rstest]
    #[case("", "has an empty part")]
    #[case("a..b", "has an empty part")]
    #[case("a.b.c", "too many parts")]
    #[case(r#""a"#, "never closed")]
    #[case(r#""a"b"#, "after a closing quote")]
    #[case(r#"a"b"#, "in the middle")]
    fn a_wrong_name_is_refused(#[case] text: &str, #[case] expected: &str) {
        let message = Relation::parse(text).expect_err("it is no name");
        assert!(message.contains(expected), "{message}");
    }

    #[test]
    fn a_trailing_comment_cannot_swallow_what_follows() {
        let author = AuthorSql::new("a > 1 -- why not;\n");
        assert_eq!(
            sql!("where ({}) limit 1", author).as_str(),
            "where (a > 1 -- why not\n) limit 1"
        );
    }

    #[rstest]
    #[case("numeric(10,-2)", true)]
    #[case("timestamp(3) without time zone[]", true)]
    #[case(r#"shop."we""ird; -- type""#, true)]
    #[case("int; drop table t", false)]
    #[case("int -- x", false)]
    #[case("int /* x */", false)]
    #[case(r#"shop."open"#, false)]
    #[case("", false)]
    fn only_what_can_be_a_type_is_one(#[case] text: &str, #[case] is_type: bool) {
        let found = TypeName::parse(text).map(|name| sql!("{}", name).as_str().to_owned());
        assert_eq!(found, is_type.then(|| text.to_owned()));
    }

    proptest! {
        #[test]
        fn nothing_of_a_comment_is_live(text in "[a\n\r;-]{0,12}") {
            let comment = sql!("{}", Ident::new(text)).commented();
            // What ends a comment in Postgres is either of the two.
            for line in comment.as_str().split(['\n', '\r']).filter(|line| !line.is_empty()) {
                prop_assert!(line.starts_with("-- "), "{line:?}");
            }
        }

        #[test]
        fn any_name_survives_quoting(schema in "[^\0]{1,12}", name in "[^\0]{1,12}") {
            let relation = Relation::new(&*schema, &*name);
            let quoted = sql!("{}", relation);
            prop_assert_eq!(Relation::parse(quoted.as_str()), Ok(relation));
        }

        #[test]
        fn a_literal_holds_no_bare_quote(text in "[^\0]{0,20}") {
            let literal = sql!("{}", Literal(&text));
            let inner = literal.as_str().trim_start_matches('E');
            let inner = &inner[1..inner.len() - 1];
            prop_assert_eq!(inner.replace("''", "").matches('\'').count(), 0);
        }
    }
}

//! The SQL that mends a reference: rows that refer to nothing, and types that differ.

use crate::gate::catalog::{Column, RelationKind};
use crate::sql;
use crate::sql::{Fixed, Ident, Sql, TypeName};

use super::key::Key;

/// What can be done about rows that refer to nothing, which only somebody who knows the data can decide.
/// Run as it is, it shows which rows are missed and changes nothing: every statement that would is a
/// comment. `unmatched` are the rows that no target matches, `offending` are those and, under MATCH
/// FULL, those with some nulls.
pub(super) fn of_orphans(key: &Key<'_>, unmatched: &Sql, offending: &Sql) -> Sql {
    let (table, target) = (&key.table.relation, &key.target.relation);
    let columns = Sql::join(", ", key.columns.iter().map(Ident::new));
    let look = sql!(
        "{}\nselect {}, count(*) from {} where {} group by {} order by count(*) desc;",
        sql!(
            "Look first at what is referred to and is not in {}:",
            target
        )
        .commented(),
        columns,
        table,
        unmatched,
        columns
    );
    let can_change = matches!(
        key.table.kind,
        RelationKind::Table | RelationKind::Partitioned
    );
    if !can_change {
        let only = sql!(
            "Insert it there, or mend the rows where {} has them from.",
            table
        );
        return sql!("{}\n{}", look, only.commented());
    }
    let nulls = nullable(key).map(|names| {
        let nulls = names
            .iter()
            .map(|name| sql!("{} = null", Ident::new(*name)));
        let nulls = Sql::join(", ", nulls);
        sql!("update {} set {} where {};", table, nulls, offending).commented()
    });
    let delete = sql!("delete from {} where {};", table, offending).commented();
    let choice = match &nulls {
        Some(_) => "-- Then insert it there, or take the comment signs off one of these two:",
        None => "-- Then insert it there, or take the comment signs off this:",
    };
    let choice = std::iter::once(sql!("{}", Fixed(choice)));
    let choices = Sql::join("\n", choice.chain(nulls).chain([delete]));
    sql!("{}\n{}", look, choices)
}

/// The columns that are to be null for a row to refer to nothing; `None` where that cannot be.
fn nullable<'a>(key: &Key<'a>) -> Option<Vec<&'a str>> {
    let is_nullable = |name: &&String| {
        let column = key.table.column(name);
        column.is_ok_and(|column| column.is_nullable)
    };
    let names = key.columns.iter().filter(is_nullable);
    let names: Vec<&str> = names.map(String::as_str).collect();
    // One null is enough, but for MATCH FULL, where it is all of them or none.
    let is_enough = match key.is_full {
        true => names.len() == key.columns.len(),
        false => !names.is_empty(),
    };
    is_enough.then_some(names)
}

/// How a column becomes one of another type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// Every value of the one is one of the other.
    Widens,
    /// A value that the other cannot hold stops the statement.
    Checks,
    /// A value that the other cannot hold may be rounded or cut.
    Loses,
}

/// A statement, and whether orphans are in its way.
pub(super) struct Retyped {
    pub(super) sql: Sql,
    pub(super) is_after_orphans: bool,
}

/// Gives `own` the type of `other`; `None` where nothing but a table's own column can be given one.
/// Where that may lose something, what it would change is shown and the statement itself is a comment.
pub(super) fn of_type(key: &Key<'_>, own: &Column, other: &Column) -> Option<Retyped> {
    if !matches!(
        key.table.kind,
        RelationKind::Table | RelationKind::Partitioned
    ) {
        return None;
    }
    let (was, becomes) = (
        TypeName::parse(&own.type_name)?,
        TypeName::parse(&other.type_name)?,
    );
    let (table, name) = (&key.table.relation, Ident::new(&own.name));
    let value = match own.category == other.category {
        true => sql!("{}::{}", name, becomes),
        // Not every two types have a cast; all have one by way of text.
        false => sql!("{}::text::{}", name, becomes),
    };
    let alter = sql!(
        "alter table {} alter column {} type {} using {}",
        table,
        name,
        becomes,
        value
    );
    let change = change(own, other);
    let sql = match change {
        Change::Widens | Change::Checks => alter,
        Change::Loses => sql!(
            "{}\nselect distinct {} from {} where {} is distinct from {};\n{}\n{}",
            sql!("Look first at what is not the same as {}:", becomes).commented(),
            name,
            table,
            match own.category == other.category {
                true => sql!("({})::{}", value, was),
                false => sql!("({})::text::{}", value, was),
            },
            name,
            Fixed("-- Where nothing is lost by it, take the comment signs off this:"),
            sql!("{};", alter).commented()
        ),
    };
    Some(Retyped {
        sql,
        // What does not become the other type matches nothing; and a valid key is checked anew.
        is_after_orphans: change != Change::Widens || key.declared.is_some_and(|key| key.is_valid),
    })
}

/// A type without what stands in brackets behind it, and that as a number where it is one.
fn split(type_name: &str) -> (&str, Option<u32>) {
    match type_name.split_once('(') {
        None => (type_name, None),
        Some((base, rest)) => (base, rest.strip_suffix(')').and_then(|n| n.parse().ok())),
    }
}

/// The whole numbers, the narrower before the wider.
const INTEGERS: &[&str] = &["smallint", "integer", "bigint"];
/// The texts.
const TEXTS: &[&str] = &["text", "character varying", "character", "name"];

fn change(own: &Column, other: &Column) -> Change {
    let (own_base, own_length) = split(&own.type_name);
    let (base, length) = split(&other.type_name);
    let place = |name: &str| INTEGERS.iter().position(|one| *one == name);
    let is_text = TEXTS.contains(&own_base);
    let wholes = place(own_base).zip(place(base));
    let is_longer = own_length.zip(length).is_some_and(|(one, two)| one <= two);
    let widens = wholes.is_some_and(|(one, two)| one <= two)
        || (INTEGERS.contains(&own_base) && other.type_name == "numeric")
        || (own_base == "real" && base == "double precision")
        || matches!(other.type_name.as_str(), "text" | "character varying")
        || (own_base == "character varying" && own_base == base && is_longer);
    let checks = wholes.is_some() || (is_text && (base == "uuid" || INTEGERS.contains(&base)));
    match (widens, checks) {
        (true, _) => Change::Widens,
        (false, true) => Change::Checks,
        (false, false) => Change::Loses,
    }
}

/// Whether a foreign key from one type to another can be declared: Postgres wants an operator of the
/// index of the referenced column, or a cast that is made without being asked for.
pub(super) fn can_refer(own: &Column, other: &Column) -> bool {
    let ((one, _), (two, _)) = (split(&own.type_name), split(&other.type_name));
    let are = |family: &[&str]| family.contains(&one) && family.contains(&two);
    let floats = &["real", "double precision"];
    let is_exact = INTEGERS.contains(&one) || one == "numeric";
    one == two
        || are(INTEGERS)
        || are(TEXTS)
        || are(floats)
        || (is_exact && (two == "numeric" || floats.contains(&two)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn column(type_name: &str) -> Column {
        Column {
            name: "c".to_owned(),
            type_name: type_name.to_owned(),
            category: 'X',
            is_not_null: false,
            is_nullable: true,
            is_masked: false,
        }
    }

    #[rstest]
    #[case("integer", "bigint", Change::Widens)]
    #[case("bigint", "integer", Change::Checks)]
    #[case("bigint", "numeric", Change::Widens)]
    #[case("bigint", "numeric(4,0)", Change::Loses)]
    #[case("numeric", "integer", Change::Loses)]
    #[case("text", "integer", Change::Checks)]
    #[case("character varying(8)", "character varying(9)", Change::Widens)]
    #[case("character varying(9)", "character varying(8)", Change::Loses)]
    #[case("text", "character varying(8)", Change::Loses)]
    #[case("character(8)", "character varying(8)", Change::Loses)]
    #[case("uuid", "text", Change::Widens)]
    #[case("text", "uuid", Change::Checks)]
    #[case("timestamp without time zone", "date", Change::Loses)]
    #[case("real", "double precision", Change::Widens)]
    fn a_change_that_may_lose_is_known(
        #[case] own: &str,
        #[case] other: &str,
        #[case] expected: Change,
    ) {
        assert_eq!(change(&column(own), &column(other)), expected);
    }
}

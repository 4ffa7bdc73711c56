//! Counts the rows that refer to nothing: one scan per reference, only when asked for.

use crate::error::{Error, ErrorKind, Result};
use crate::pg::Session;
use crate::sql;
use crate::sql::{Ident, Sql};

use super::catalog::{Key, Name};
use super::findings::Implied;

/// Fills in the orphans of every reference. What could not be counted stays null, and is told.
pub(super) async fn count(
    session: &mut Session,
    keys: &mut [Key],
    implied: &mut [Implied],
) -> Result<Vec<String>> {
    let mut uncounted = Vec::new();
    for key in keys {
        let columns: Vec<&str> = key.columns.iter().map(String::as_str).collect();
        let referenced: Vec<&str> = key.referenced_columns.iter().map(String::as_str).collect();
        let sql = orphans(&key.table, &columns, &key.references, &referenced);
        key.orphans = one(session, &sql, &key.table, &columns, &mut uncounted).await?;
    }
    for implied in implied.iter_mut().filter(|implied| implied.is_comparable()) {
        let columns = [implied.column.as_str()];
        let sql = orphans(
            &implied.table,
            &columns,
            &implied.references,
            &[&implied.referenced_column],
        );
        implied.orphans = one(session, &sql, &implied.table, &columns, &mut uncounted).await?;
    }
    Ok(uncounted)
}

fn orphans(table: &Name, columns: &[&str], references: &Name, referenced: &[&str]) -> Sql {
    let present = columns
        .iter()
        .map(|column| sql!("r.{} is not null", Ident::new(*column)));
    let pairs = columns.iter().zip(referenced);
    let matching =
        pairs.map(|(own, other)| sql!("p.{} = r.{}", Ident::new(*other), Ident::new(*own)));
    sql!(
        "select count(*)::text from {} r where {} and not exists (select from {} p where {})",
        table.relation(),
        Sql::join(" and ", present),
        references.relation(),
        Sql::join(" and ", matching)
    )
}

async fn one(
    session: &mut Session,
    sql: &Sql,
    table: &Name,
    columns: &[&str],
    uncounted: &mut Vec<String>,
) -> Result<Option<u64>> {
    match session.rows(sql, 1).await {
        Ok(rows) => {
            let text = rows
                .first()
                .and_then(|row| row.first())
                .and_then(Option::as_ref);
            let number = text.and_then(|text| text.parse().ok());
            number.map(Some).ok_or_else(|| {
                Error::new(ErrorKind::Database, "a count is no number").with_sql(sql.as_str())
            })
        }
        Err(failure) if failure.error.kind() == ErrorKind::ConnectionLost => Err(failure.error),
        Err(failure) => {
            let object = format!("{table} ({})", columns.join(", "));
            uncounted.push(format!(
                "the orphans of {object} were not counted: {}",
                failure.error.message()
            ));
            Ok(None)
        }
    }
}

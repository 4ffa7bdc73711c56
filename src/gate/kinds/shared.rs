//! What kinds over one table have in common.

use crate::gate::catalog::{RelationInfo, Side};
use crate::gate::fields::SqlText;
use crate::gate::{AuthorCheck, Needs, Scope};
use crate::sql;
use crate::sql::Relation;

/// The needs of a gate on one table: the table, and its filter checked.
pub fn scope_needs(table: &Relation, filter: Option<&SqlText>) -> Needs {
    let checks = filter
        .map(|SqlText(author)| AuthorCheck {
            field: "where",
            side: Side::Main,
            author: author.clone(),
            statement: sql!("select from {} where ({})", table, author),
        })
        .into_iter()
        .collect();
    Needs {
        relations: vec![(Side::Main, table.clone())],
        schemas: Vec::new(),
        checks,
    }
}

/// The rows that a gate on one table is about.
pub fn scope_of(table: &RelationInfo, filter: Option<&SqlText>) -> Scope {
    Scope {
        side: Side::Main,
        relation: table.relation.clone(),
        filter: filter.map(|SqlText(author)| author.clone()),
    }
}

//! Dates and numbers that stand for a value nobody had.
//!
//! One of them alone proves little: a game can have been played on 1970-01-01. They are suspicious
//! when they are there more often than everything near them together.

use crate::gate::catalog::{Catalog, Column, RelationInfo};
use crate::gate::{Aggregate, Measure, Measured, Scope};
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

use super::Sensitivity;
use super::text::parts_of;

const DATES: &[&str] = &[
    "0001-01-01",
    "1111-11-11",
    "1900-01-01",
    "1970-01-01",
    "2099-01-01",
    "2099-12-31",
    "9999-12-31",
];
const NUMBERS: &[&str] = &[
    "-1", "999", "9999", "99999", "999999", "12345", "123456", "-999", "-9999",
];

/// A value that may stand for none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Sentinel {
    pub(super) column: String,
    value: &'static str,
    is_date: bool,
}

/// How often a sentinel must be there to be looked into; `None` where none is.
pub(super) fn least(sensitivity: Sensitivity) -> Option<u64> {
    match sensitivity {
        Sensitivity::Low => None,
        Sensitivity::Medium => Some(3),
        Sensitivity::High => Some(1),
    }
}

/// Whether a column can hold sentinels: dates and numbers that are no key, count or code.
pub(super) fn can_hold(catalog: &Catalog, table: &RelationInfo, column: &Column) -> bool {
    const CODES: &[&str] = &[
        "id", "key", "no", "num", "number", "code", "year", "zip", "seq",
    ];
    let is_key = table
        .unique_keys
        .iter()
        .any(|key| key.contains(&column.name))
        || catalog
            .foreign_keys
            .iter()
            .any(|key| key.table == table.relation && key.columns.contains(&column.name));
    is_date(column)
        || (column.category == 'N'
            && !is_key
            && !column.type_name.starts_with("oid")
            && column.type_name != "money"
            && !parts_of(&column.name)
                .iter()
                .any(|part| CODES.contains(&part.as_str())))
}

pub(super) fn is_date(column: &Column) -> bool {
    column.type_name == "date" || column.type_name.starts_with("timestamp")
}

/// The sentinels that a column can hold. An end that lies far away is how an open end is written.
pub(super) fn of(column: &Column) -> Vec<Sentinel> {
    const ENDS: &[&str] = &[
        "to",
        "until",
        "end",
        "ends",
        "ended",
        "expires",
        "expiry",
        "expiration",
        "thru",
        "through",
    ];
    let is_end = parts_of(&column.name)
        .iter()
        .any(|part| ENDS.contains(&part.as_str()));
    let is_date = is_date(column);
    let values = if is_date { DATES } else { NUMBERS };
    values
        .iter()
        .filter(|value| !(is_end && value.starts_with(['2', '9']) && is_date))
        .map(|value| Sentinel {
            column: column.name.clone(),
            value,
            is_date,
        })
        .collect()
}

impl Sentinel {
    /// The column as what the value is compared with.
    fn compared(&self) -> Sql {
        let column = Ident::new(self.column.clone());
        if self.is_date {
            sql!("{}::date", column)
        } else {
            sql!("{}", column)
        }
    }

    fn literal(&self) -> Sql {
        if self.is_date {
            sql!("date {}", Literal(self.value))
        } else {
            sql!("{}::numeric", Literal(self.value))
        }
    }

    /// That a row holds it.
    pub(super) fn condition(&self) -> Sql {
        sql!("{} = {}", self.compared(), self.literal())
    }

    /// What it is called in a finding.
    pub(super) fn name(&self) -> String {
        format!("{} = {}", self.column, self.value)
    }

    fn label(&self, what: &str, table: &str) -> String {
        format!("{what} {table}.{}", self.name())
    }

    /// Asks how often it is there, and how often what is near it.
    pub(super) fn measures(&self, scope: &Scope, table: &str) -> [Measure; 2] {
        let (column, value) = (self.compared(), self.literal());
        let near = if self.is_date {
            sql!(
                "{} between {} - 30 and {} + 30 and {} <> {}",
                column,
                value,
                value,
                column,
                value
            )
        } else if self.value.starts_with('-') {
            // Where other values are negative too, or all are small, -1 is a value like another.
            sql!("{} < 0 and {} <> {}", column, column, value)
        } else {
            sql!(
                "{} between {} * 0.9 and {} * 1.1 and {} <> {}",
                column,
                value,
                value,
                column,
                value
            )
        };
        let near = if self.value == "-1" {
            sql!("({}) or {} between 0 and 1", near, column)
        } else {
            near
        };
        [
            Aggregate::count(self.label("is", table), scope, Some(self.condition())),
            Aggregate::count(self.label("near", table), scope, Some(near)),
        ]
    }

    /// Whether the answers make it suspicious.
    pub(super) fn is_suspicious(&self, measured: &Measured, table: &str, least: u64) -> bool {
        let n = measured.count(&self.label("is", table));
        n >= least && n > measured.count(&self.label("near", table))
    }

    /// Whether the answers are there.
    pub(super) fn is_answered(&self, measured: &Measured, table: &str) -> bool {
        measured.has(&self.label("is", table))
    }
}

/// That a row holds one of them; `None` where there are none.
pub(super) fn any(sentinels: &[Sentinel]) -> Option<Sql> {
    // One list per column: quicker than one comparison per value.
    let mut columns: Vec<&Sentinel> = sentinels.iter().collect();
    columns.dedup_by(|a, b| a.column == b.column);
    let lists = columns.iter().map(|first| {
        let own = sentinels.iter().filter(|s| s.column == first.column);
        let values = own.map(Sentinel::literal);
        sql!("{} in ({})", first.compared(), Sql::join(", ", values))
    });
    let lists: Vec<Sql> = lists.collect();
    (!lists.is_empty()).then(|| sql!("({})", Sql::join(" or ", lists)))
}

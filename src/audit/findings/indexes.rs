//! Indexes: those that cannot be used, that another makes superfluous, that nothing uses, and tables
//! that lack one.

use std::collections::HashSet;

use super::{Finding, Kind, Known, Severity};
use crate::audit::catalog::{Index, Table};
use crate::audit::words::{bytes, times};
use crate::gate::threshold::rows_of;
use crate::sql;
use crate::sql::Relation;

/// An index of no more than this (two pages) costs nothing worth telling.
const SMALL_BYTES: u64 = 16 * 1024;
/// An index of more than this costs too much to serve nothing.
const LARGE_BYTES: u64 = 100 * 1024 * 1024;
/// A table of fewer rows is read from end to end because that is quicker.
const LARGE_ROWS: u64 = 10_000;
/// Fewer scans are those of backups, loads and people.
const MANY_SCANS: u64 = 100;

pub(super) fn find(known: &Known<'_>) -> Vec<Finding> {
    let mut findings = Vec::new();
    // Where no index was ever used, nothing has been counted yet, and nothing can be told from that.
    let is_counted = known.catalog.indexes.iter().any(|index| index.scans > 0);
    for (at, table) in known.catalog.tables.iter().enumerate() {
        let indexes: Vec<&Index> = known.indexes[at]
            .iter()
            .map(|index| &known.catalog.indexes[*index])
            .filter(|index| !index.is_partition)
            .collect();
        let mut told: HashSet<&str> = HashSet::new();
        for index in indexes.iter().filter(|index| !index.is_valid) {
            told.insert(&index.name);
            findings.push(invalid(table, index));
        }
        for index in indexes.iter().filter(|index| index.is_valid) {
            let better = indexes.iter().find(|other| replaces(other, index));
            if let Some(better) = better {
                told.insert(&index.name);
                findings.push(redundant(table, index, better));
            }
        }
        let unused = indexes
            .iter()
            .filter(|index| is_counted && index.scans == 0 && index.bytes > SMALL_BYTES)
            .filter(|index| {
                !index.is_unique && !index.is_needed && !told.contains(index.name.as_str())
            })
            .filter(|index| !supports_a_key(known, table, index, &indexes, &told));
        findings.extend(unused.map(|index| unused_index(known, table, index)));
        findings.extend(seq_scanned(table, &indexes));
    }
    findings
}

/// Whether an index finds rows by these columns: it leads with them, in whatever order, and leaves out
/// no row in which they are there.
pub(super) fn serves(index: &Index, columns: &[String]) -> bool {
    let leads = index.columns.get(..columns.len());
    let is_whole = index.predicate.as_deref().is_none_or(|predicate| {
        let bare = |text: &str| text.replace(['(', ')', '"'], "");
        columns
            .iter()
            .any(|column| bare(predicate) == format!("{} IS NOT NULL", bare(column)))
    });
    let is_sorted = matches!(index.method.as_str(), "btree" | "hash");
    index.is_valid
        && is_sorted
        && is_whole
        && leads.is_some_and(|leads| columns.iter().all(|column| leads.contains(column)))
}

/// Whether every query that `index` serves is served by `other` as well.
fn replaces(other: &Index, index: &Index) -> bool {
    if other.name == index.name
        || !other.is_valid
        || other.method != index.method
        || index.is_needed
    {
        return false;
    }
    let carries =
        |column: &String| other.columns.contains(column) || other.included.contains(column);
    let is_alike = other.predicate == index.predicate && index.included.iter().all(carries);
    let same = other.columns == index.columns
        && other.order == index.order
        && other.expressions == index.expressions
        && other.included.len() == index.included.len();
    if is_alike && same {
        // Of two that are equal the one goes that guarantees less, then the later name.
        let rank = |index: &Index| (index.is_needed, index.is_unique);
        return (rank(other), &index.name) > (rank(index), &other.name)
            && (other.is_unique || !index.is_unique);
    }
    let prefix = other.columns.len() >= index.columns.len()
        && other.columns[..index.columns.len()] == index.columns
        && other.order[..index.order.len()] == index.order
        && (other.columns.len(), other.included.len())
            > (index.columns.len(), index.included.len());
    is_alike
        && prefix
        && index.method == "btree"
        && !index.is_unique
        && index.expressions.is_none()
        && other.expressions.is_none()
}

/// Whether it serves a declared key of its table, and no other index that is sure to stay does.
fn supports_a_key(
    known: &Known<'_>,
    table: &Table,
    index: &Index,
    indexes: &[&Index],
    told: &HashSet<&str>,
) -> bool {
    let stays = |other: &Index| {
        other.name != index.name
            && !told.contains(other.name.as_str())
            && (other.scans > 0 || other.is_needed || other.is_unique)
    };
    let own = known
        .catalog
        .keys
        .partition_point(|key| key.table < table.name);
    known.catalog.keys[own..]
        .iter()
        .take_while(|key| key.table == table.name)
        .filter(|key| serves(index, &key.columns))
        .any(|key| {
            !indexes
                .iter()
                .any(|other| stays(other) && serves(other, &key.columns))
        })
}

fn named(table: &Table, index: &Index) -> Relation {
    Relation::new(&*table.name.schema, &*index.name)
}

fn finding(kind: Kind, severity: Severity, table: &Table, index: &Index, what: String) -> Finding {
    let object = named(table, index).readable();
    Finding::new(kind, severity, object, vec![table.name.clone()], what)
}

fn invalid(table: &Table, index: &Index) -> Finding {
    let what = format!(
        "an index on {} that no query uses and every write keeps up",
        table.name
    );
    let name = named(table, index);
    finding(Kind::InvalidIndex, Severity::High, table, index, what)
        .repair(&sql!("reindex index concurrently {}", name))
}

fn redundant(table: &Table, index: &Index, better: &Index) -> Finding {
    let is_same = index.columns == better.columns;
    let what = format!(
        "{} of {} on {}, {}",
        if is_same { "a double" } else { "the beginning" },
        named(table, better).readable(),
        table.name,
        bytes(index.bytes)
    );
    let severity = if is_same {
        Severity::High
    } else {
        Severity::Info
    };
    let name = named(table, index);
    finding(Kind::DuplicateIndex, severity, table, index, what)
        .repair(&sql!("drop index concurrently {}", name))
}

fn unused_index(known: &Known<'_>, table: &Table, index: &Index) -> Finding {
    let since = match &known.catalog.counted_since {
        Some(since) => format!("since {since}"),
        None => "since the counters began".to_owned(),
    };
    let here = if known.catalog.in_recovery {
        ", on this standby: the primary may use it"
    } else {
        ", on this server: a standby may use it"
    };
    let what = format!(
        "on {}, {}, never used {since}{here}",
        table.name,
        bytes(index.bytes)
    );
    let severity = if index.bytes > LARGE_BYTES {
        Severity::High
    } else {
        Severity::Info
    };
    let name = named(table, index);
    finding(Kind::UnusedIndex, severity, table, index, what)
        .repair(&sql!("drop index concurrently {}", name))
}

/// A large table that is read from end to end more often than through its indexes.
fn seq_scanned(table: &Table, indexes: &[&Index]) -> Option<Finding> {
    let through: u64 = indexes.iter().map(|index| index.scans).sum();
    let each = table.seq_rows.checked_div(table.seq_scans).unwrap_or(0);
    let is_heavy = table.rows() >= LARGE_ROWS
        && table.seq_scans >= MANY_SCANS
        && table.seq_scans > through
        && each >= LARGE_ROWS / 2;
    is_heavy.then(|| {
        let what = format!(
            "{}; read from end to end {}, through an index {}",
            rows_of(table.rows(), "row"),
            times(table.seq_scans),
            times(through)
        );
        let object = table.name.to_string();
        Finding::new(
            Kind::SeqScannedTable,
            Severity::Info,
            object,
            vec![table.name.clone()],
            what,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn index(name: &str, columns: &str) -> Index {
        let columns: Vec<String> = columns.split_whitespace().map(str::to_owned).collect();
        Index {
            name: name.to_owned(),
            method: "btree".to_owned(),
            order: columns.iter().map(|_| "1978 0 0".to_owned()).collect(),
            columns,
            is_valid: true,
            ..Index::default()
        }
    }

    #[rstest]
    #[case::a_double("b", "x y", "a", "x y", true)]
    #[case::the_first_name_stays("a", "x y", "b", "x y", false)]
    #[case::a_prefix("a", "x", "b", "x y", true)]
    #[case::not_the_longer_one("a", "x y", "b", "x", false)]
    #[case::another_order("a", "y", "b", "x y", false)]
    #[case::itself("a", "x", "a", "x", false)]
    fn an_index_can_stand_for_another(
        #[case] name: &str,
        #[case] columns: &str,
        #[case] other: &str,
        #[case] others: &str,
        #[case] expected: bool,
    ) {
        assert_eq!(
            replaces(&index(other, others), &index(name, columns)),
            expected
        );
    }

    #[test]
    fn what_guarantees_more_stays() {
        let plain = index("a", "x");
        let unique = Index {
            is_unique: true,
            ..index("b", "x")
        };
        assert!(replaces(&unique, &plain));
        assert!(!replaces(&plain, &unique));
        let needed = Index {
            is_needed: true,
            ..index("a", "x")
        };
        assert!(!replaces(&unique, &needed));
        let partial = Index {
            predicate: Some("x > 1".to_owned()),
            ..index("c", "x")
        };
        assert!(!replaces(&unique, &partial));
        assert!(!replaces(&partial, &plain));
        let descending = Index {
            order: vec!["1978 0 3".to_owned()],
            ..index("d", "x")
        };
        assert!(!replaces(&plain, &descending));
    }

    #[rstest]
    #[case("a b", None, "a", true)]
    #[case("a b", None, "b", false)]
    #[case("b a c", None, "a b", true)]
    #[case("a", Some("(a IS NOT NULL)"), "a", true)]
    #[case("a", Some("(b > 1)"), "a", false)]
    fn an_index_serves_a_key(
        #[case] columns: &str,
        #[case] predicate: Option<&str>,
        #[case] key: &str,
        #[case] expected: bool,
    ) {
        let index = Index {
            predicate: predicate.map(str::to_owned),
            ..index("i", columns)
        };
        let key: Vec<String> = key.split(' ').map(str::to_owned).collect();
        assert_eq!(serves(&index, &key), expected);
    }
}

//! 1,000 gates over 200 tables, and the database that would hold these.

use std::collections::BTreeMap;
use std::fmt::Write;

use postern::gate::catalog::{Catalog, Column, RelationInfo, RelationKind, Side};
use postern::gate::{Ask, Explained, Gate, Known, LoadOptions, Measure, Measured, Proof, load};
use postern::sql::Relation;

const TABLES: usize = 200;

/// Five gates on each table.
pub fn text() -> String {
    let mut text = String::from("[suite]\ndescription = \"a large one\"\ntags = [\"nightly\"]\n");
    for table in 0..TABLES {
        for (id, fields) in [
            (
                "scored",
                "kind = \"completeness\"\ncolumns = [\"home\", \"away\"]\nat_least = \"90%\"\nwarn_below = \"95%\"",
            ),
            (
                "note",
                "kind = \"completeness\"\ncolumns = [\"note\"]\nmissing = [\"n/a\", \"\"]",
            ),
            (
                "count",
                "kind = \"row_count\"\nat_least = 10\nat_most = 1000000",
            ),
            (
                "fresh",
                "kind = \"freshness\"\ncolumn = \"day\"\nmax_age = \"36h\"",
            ),
            ("key", "kind = \"unique\"\ncolumns = [\"id\", \"day\"]"),
        ] {
            let gate = format!(
                "id = \"t{table}_{id}\"\ntable = \"shop.t{table}\"\n{fields}\nwhy = \"it is needed\""
            );
            writeln!(text, "\n[[gate]]\n{gate}").unwrap();
        }
    }
    text
}

/// The gates of [`text`].
pub fn gates() -> Vec<Gate> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large.toml");
    std::fs::write(&file, text()).unwrap();
    load(&[file], &LoadOptions::default()).unwrap().gates
}

/// A database with the tables.
pub fn catalogs() -> BTreeMap<Side, Catalog> {
    let column = |name: &str, type_name: &str, category| Column {
        name: name.to_owned(),
        type_name: type_name.to_owned(),
        category,
        is_not_null: false,
        is_nullable: true,
        is_masked: false,
    };
    let relations = (0..TABLES).map(|table| {
        let name = format!("t{table}");
        let info = RelationInfo {
            relation: Relation::new("shop", &name),
            kind: RelationKind::Table,
            is_partition: false,
            columns: vec![
                column("id", "integer", 'N'),
                column("day", "timestamp with time zone", 'D'),
                column("home", "integer", 'N'),
                column("away", "integer", 'N'),
                column("note", "text", 'S'),
            ],
            primary_key: vec!["id".to_owned()],
            unique_keys: vec![vec!["id".to_owned()]],
            proofs: Vec::new(),
            is_enforced: true,
            indexes: vec![vec!["id".to_owned()]],
            bytes: 8192,
        };
        (("shop".to_owned(), name), info)
    });
    let catalog = Catalog {
        search_path: vec!["pg_catalog".to_owned(), "public".to_owned()],
        relations: relations.collect(),
        ..Catalog::default()
    };
    BTreeMap::from([(Side::Main, catalog)])
}

/// What each gate asks of that database.
pub fn asks(gates: &[Gate], catalogs: &BTreeMap<Side, Catalog>) -> Vec<Ask> {
    let ask = |gate: &Gate| {
        let checks = gate.definition.needs().checks.len();
        let explained = vec![Explained::default(); checks];
        let known = Known {
            catalogs,
            explained: &explained,
            proof: Proof::Enforced,
            sample: None,
            show: &gate.show,
        };
        gate.definition.ask(&known).unwrap()
    };
    gates.iter().map(ask).collect()
}

/// Answers to an ask: 7 to everything.
pub fn measured(ask: &Ask) -> Measured {
    let labels = ask.measures.iter().flat_map(|measure| match measure {
        Measure::Aggregate(aggregate) | Measure::Presence(aggregate) => {
            std::slice::from_ref(&aggregate.label)
        }
        Measure::Statement { labels, .. } => labels,
        Measure::Timed { .. } => unreachable!("no gate of this suite times a query"),
    });
    let values = labels.map(|label| (label.clone(), Some("7".to_owned())));
    Measured::new(values, ask.findings.clone())
}

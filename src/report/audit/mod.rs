//! Renderings of an [`Audit`]: each is a pure function of it.

mod layout;
pub mod markdown;
pub mod mermaid;
pub mod picture;
pub mod svg;
#[cfg(feature = "cli")]
pub mod terminal;

use crate::audit::words::{bytes, plural};
use crate::audit::{Audit, Finding, Kind, Severity, Table, TableKind};
use crate::gate::threshold::{count, rows_of};

/// How much a rendering for people shows of each list.
#[derive(Clone, Copy, Debug)]
pub struct Shown {
    /// How many entries of one list.
    pub most: usize,
}

impl Shown {
    /// Everything.
    pub const ALL: Self = Self { most: usize::MAX };
}

impl Default for Shown {
    fn default() -> Self {
        Self { most: 10 }
    }
}

/// The audit as indented JSON (version 1) with a line break at the end.
pub fn json(audit: &Audit) -> String {
    let mut text =
        serde_json::to_string_pretty(audit).expect("an audit holds only what JSON can hold");
    text.push('\n');
    text
}

/// Findings of one kind and severity.
struct Group<'a> {
    severity: Severity,
    kind: Kind,
    findings: &'a [Finding],
}

/// The findings in groups, worst first.
fn groups(audit: &Audit) -> Vec<Group<'_>> {
    let same = |a: &Finding, b: &Finding| (a.severity, a.kind) == (b.severity, b.kind);
    audit
        .findings
        .chunk_by(same)
        .map(|findings| Group {
            severity: findings[0].severity,
            kind: findings[0].kind,
            findings,
        })
        .collect()
}

/// The numbers of the fragmentation summary, with what they count.
fn numbers(audit: &Audit) -> Vec<(&'static str, String)> {
    let summary = &audit.summary;
    let n = |n: usize| count(n as u64);
    let mut numbers = vec![
        ("schemas", n(summary.schemas)),
        (
            "tables",
            format!(
                "{}, about {}, {}",
                n(summary.tables),
                rows_of(summary.rows_estimated, "row"),
                bytes(summary.bytes)
            ),
        ),
    ];
    let mut some = |label: &'static str, number: usize| {
        if number > 0 {
            numbers.push((label, n(number)));
        }
    };
    some("partitions", summary.partitions);
    some("views", summary.views);
    some("materialized views", summary.materialized_views);
    some("foreign tables", summary.foreign_tables);
    some("sequences", summary.sequences as usize);
    some("functions", summary.functions as usize);
    numbers.push(("foreign keys", n(summary.foreign_keys)));
    numbers.push(("broken or undeclared keys", n(summary.broken_keys)));
    numbers.push(("keys that cross schemas", n(summary.cross_schema_keys)));
    if let Some(crossing) = summary.cross_zone_keys {
        numbers.push(("keys that cross zones", n(crossing)));
    }
    if let Some(against) = summary.keys_against_flow {
        numbers.push(("keys against the flow", n(against)));
    }
    numbers.extend([
        ("keys without an index", n(summary.keys_without_index)),
        ("test tables and leftovers", n(summary.test_tables)),
        ("groups of duplicate tables", n(summary.duplicate_groups)),
        (
            "entities with several masters",
            n(summary.entities_with_several_masters),
        ),
        (
            "groups of overlapping schemas",
            n(summary.overlapping_schemas),
        ),
        (
            "tables without a primary key",
            n(summary.tables_without_primary_key),
        ),
        (
            "indexes",
            format!(
                "{}: {} redundant, {} never used, {} invalid",
                n(summary.indexes),
                n(summary.redundant_indexes),
                n(summary.unused_indexes),
                n(summary.invalid_indexes)
            ),
        ),
    ]);
    numbers
}

/// One row per schema: name, tables, rows, size, keys out and in, findings, owner, comment.
fn schema_rows(audit: &Audit) -> Vec<[String; 8]> {
    use std::collections::BTreeMap;
    let mut found: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    for finding in &audit.findings {
        for schema in &finding.schemas {
            let by_severity = found.entry(schema).or_default();
            by_severity[match finding.severity {
                Severity::Critical => 0,
                Severity::High => 1,
                Severity::Info => 2,
            }] += 1;
        }
    }
    let (mut out, mut into): (BTreeMap<&str, usize>, BTreeMap<&str, usize>) = Default::default();
    for key in audit
        .keys
        .iter()
        .filter(|key| key.table.schema != key.references.schema)
    {
        *out.entry(&key.table.schema).or_default() += 1;
        *into.entry(&key.references.schema).or_default() += 1;
    }
    let rows = audit.schemas.iter().map(|schema| {
        let [critical, high, info] = found.get(schema.name.as_str()).copied().unwrap_or_default();
        let said: Vec<String> = [(critical, "critical"), (high, "high"), (info, "info")]
            .iter()
            .filter(|(n, _)| *n > 0)
            .map(|(n, word)| format!("{} {word}", count(*n as u64)))
            .collect();
        let mut holds = count(schema.tables as u64);
        for (n, one, many) in [
            (schema.partitions, "partition", "partitions"),
            (schema.views + schema.materialized_views, "view", "views"),
            (schema.foreign_tables, "foreign", "foreign"),
        ] {
            if n > 0 {
                holds.push_str(&format!(" + {}", plural(n, one, many)));
            }
        }
        let crossing = |keys: &BTreeMap<&str, usize>| match keys.get(schema.name.as_str()) {
            Some(n) => count(*n as u64),
            None => String::new(),
        };
        [
            shown_name(&schema.name),
            holds,
            count(schema.rows_estimated),
            bytes(schema.bytes),
            format!("{} / {}", or_none(crossing(&out)), or_none(crossing(&into))),
            said.join(", "),
            schema.owner.clone(),
            one_line(schema.comment.as_deref().unwrap_or("")),
        ]
    });
    rows.collect()
}

const SCHEMA_COLUMNS: [&str; 8] = [
    "schema",
    "tables",
    "rows",
    "size",
    "keys out / in",
    "findings",
    "owner",
    "comment",
];

/// The tables with the most bytes, largest first, then by name.
fn largest(audit: &Audit) -> Vec<&Table> {
    let is_whole = |table: &&Table| !table.is_partition && table.kind != TableKind::View;
    let mut tables: Vec<&Table> = audit.tables.iter().filter(is_whole).collect();
    tables.sort_by(|a, b| (b.bytes, b.rows(), &a.name).cmp(&(a.bytes, a.rows(), &b.name)));
    tables
}

const TABLE_COLUMNS: [&str; 5] = ["table", "rows", "size", "columns", "primary key"];

fn table_row(table: &Table) -> [String; 5] {
    [
        one_line(&table.name.to_string()),
        rows_of_table(table),
        bytes(table.bytes),
        table.columns.len().to_string(),
        or_none(one_line(&table.primary_key.join(", "))),
    ]
}

/// The rows as far as they are known.
fn rows_of_table(table: &Table) -> String {
    match (table.rows_estimated, table.rows_by_activity) {
        (Some(rows), _) => count(rows),
        (None, 0) => "never analyzed".to_owned(),
        (None, rows) => format!("never analyzed, {} by activity", count(rows)),
    }
}

fn or_none(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

/// A name or comment on one line: breaks and other control characters would break every layout.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// A bare name; an odd one in quotes, so that blanks in it are seen.
fn shown_name(name: &str) -> String {
    let name = one_line(name);
    if name.contains(' ') {
        format!("\"{name}\"")
    } else {
        name
    }
}

/// The last line: how many findings of which severity.
fn verdict(audit: &Audit) -> String {
    let summary = &audit.summary;
    let parts: Vec<String> = [
        (summary.critical, "critical"),
        (summary.high, "high"),
        (summary.info, "info"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| format!("{} {word}", count(*n as u64)))
    .collect();
    match parts.as_slice() {
        [] => "nothing found".to_owned(),
        parts => format!(
            "{}: {}",
            plural(audit.findings.len(), "finding", "findings"),
            parts.join(", ")
        ),
    }
}

/// Where and when it was read.
fn origin(audit: &Audit) -> String {
    format!(
        "{}, PostgreSQL {}{}, read at {}",
        audit.target,
        audit.snapshot.server_version,
        if audit.snapshot.in_recovery {
            " (hot standby)"
        } else {
            ""
        },
        audit.snapshot.taken_at
    )
}

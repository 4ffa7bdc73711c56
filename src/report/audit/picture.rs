//! What a picture shows: boxes of schemas with rows of tables, and the keys between them. Above a number
//! of tables, schemas alone with the keys counted. Knows nothing of any format.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use crate::audit::words::{bytes, plural};
use crate::audit::{Audit, Crossing, Kind, Name, Severity, Table, TableKind};
use crate::gate::threshold::count;

use super::{one_line, rows_of_table, shown_name};

/// More tables than this are not drawn one by one.
pub const MOST_TABLES: usize = 200;
/// More schemas than this are not drawn either; the largest are.
const MOST_SCHEMAS: usize = 60;
/// More lines than this are a grey mass; those with the most keys are drawn.
const MOST_LINES: usize = 400;
/// A schema with more tables is drawn as several boxes.
const MOST_ROWS: usize = 26;

/// Boxes and lines.
#[derive(Clone, Debug, Default)]
pub struct Picture {
    /// Schemas, or parts of them.
    pub boxes: Vec<Schema>,
    /// Keys, the harmless ones first.
    pub lines: Vec<Line>,
    /// Whether tables are drawn, or only schemas.
    pub is_detailed: bool,
    /// What was left out.
    pub notes: Vec<String>,
}

/// A box.
#[derive(Clone, Debug)]
pub struct Schema {
    /// The name.
    pub title: String,
    /// What is in it, in numbers.
    pub subtitle: String,
    /// Its place in the flow, if there is one.
    pub zone: Option<usize>,
    /// Its tables.
    pub rows: Vec<Row>,
}

/// A table in a box.
#[derive(Clone, Debug)]
pub struct Row {
    /// The name.
    pub name: String,
    /// How many rows, in few letters.
    pub size: String,
    /// What is said when one points at it.
    pub told: String,
    /// The worst that was found about it.
    pub worst: Option<Severity>,
    /// Whether it is a test or a leftover.
    pub is_leftover: bool,
    /// Whether it is one of several masters of an entity.
    pub is_double: bool,
}

/// A key, or all keys between two schemas.
#[derive(Clone, Debug)]
pub struct Line {
    /// Box and, where tables are drawn, row.
    pub from: (usize, Option<usize>),
    /// Box and, where tables are drawn, row.
    pub to: (usize, Option<usize>),
    /// What it is.
    pub class: Class,
    /// How many keys it stands for.
    pub keys: usize,
    /// What is said when one points at it.
    pub told: String,
    /// The columns.
    pub label: String,
}

/// What a line is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A key within a schema or zone.
    Within,
    /// A key into another schema or zone.
    Across,
    /// A key against the flow.
    Against,
    /// A reference by name only.
    Undeclared,
    /// A key that does not hold.
    Broken,
}

/// What to draw of an audit.
pub fn picture(audit: &Audit) -> Picture {
    let is_drawn = |table: &&Table| {
        !table.is_partition && !matches!(table.kind, TableKind::View | TableKind::MaterializedView)
    };
    let tables: Vec<&Table> = audit.tables.iter().filter(is_drawn).collect();
    if tables.len() <= MOST_TABLES {
        detailed(audit, &tables)
    } else {
        collapsed(audit, tables.len())
    }
}

/// Every reference of the audit: from, to, class, label, telling.
fn references(audit: &Audit) -> Vec<(&Name, &Name, Class, String, String)> {
    let mut found = Vec::new();
    for key in &audit.keys {
        let class = match audit.zones.crossing(key) {
            _ if key.is_broken() => Class::Broken,
            Crossing::Against => Class::Against,
            Crossing::Across => Class::Across,
            Crossing::None => Class::Within,
        };
        let mut told = format!(
            "{} ({}) to {} ({})",
            key.table,
            key.columns.join(", "),
            key.references,
            key.referenced_columns.join(", ")
        );
        if !key.is_valid {
            told.push_str(", not valid");
        }
        if !key.is_enforced {
            told.push_str(", not enforced");
        }
        found.push((
            &key.table,
            &key.references,
            class,
            key.columns.join(", "),
            told,
        ));
    }
    for key in &audit.implied_keys {
        let told = format!(
            "{} ({}) to {} ({}) by its name, not declared",
            key.table, key.column, key.references, key.referenced_column
        );
        found.push((
            &key.table,
            &key.references,
            Class::Undeclared,
            key.column.clone(),
            told,
        ));
    }
    found
}

fn detailed(audit: &Audit, tables: &[&Table]) -> Picture {
    let mut worst: HashMap<&Name, Severity> = HashMap::new();
    let (mut leftovers, mut doubles) = (BTreeSet::new(), BTreeSet::new());
    for finding in &audit.findings {
        // What a key refers to is not at fault, masters of an entity all are.
        let guilty = match finding.kind {
            Kind::TwoMasters | Kind::SameName | Kind::SameShape | Kind::NeverAnalyzed => {
                finding.tables.as_slice()
            }
            _ => finding.tables.get(..1).unwrap_or_default(),
        };
        for table in guilty {
            let known = worst.entry(table).or_insert(finding.severity);
            *known = finding.severity.max(*known);
        }
        match finding.kind {
            Kind::TestTable => leftovers.extend(guilty),
            Kind::TwoMasters => doubles.extend(guilty),
            _ => {}
        }
    }
    let mut by_schema: BTreeMap<&str, Vec<&Table>> = BTreeMap::new();
    for table in tables {
        by_schema.entry(&table.name.schema).or_default().push(table);
    }
    let mut picture = Picture {
        is_detailed: true,
        ..Picture::default()
    };
    let mut places: HashMap<&Name, (usize, Option<usize>)> = HashMap::new();
    for schema in &audit.schemas {
        let held = by_schema.remove(schema.name.as_str()).unwrap_or_default();
        let others = schema.views + schema.materialized_views;
        // Parts of about the same length.
        let parts = held.len().div_ceil(MOST_ROWS).max(1);
        let length = held.len().div_ceil(parts).max(1);
        for part in 0..parts {
            let range = (part * length).min(held.len())..((part + 1) * length).min(held.len());
            let rows = held[range].iter().enumerate().map(|(at, table)| {
                places.insert(&table.name, (picture.boxes.len(), Some(at)));
                Row {
                    name: shown_name(&table.name.name),
                    size: short(table),
                    told: one_line(&format!(
                        "{}: rows {}, {}",
                        table.name,
                        rows_of_table(table),
                        bytes(table.bytes)
                    )),
                    worst: worst
                        .get(&table.name)
                        .copied()
                        .filter(|worst| *worst > Severity::Info),
                    is_leftover: leftovers.contains(&table.name),
                    is_double: doubles.contains(&table.name),
                }
            });
            let rows = rows.collect();
            let mut subtitle = plural(held.len(), "table", "tables");
            if others > 0 {
                subtitle.push_str(&format!(", {}", plural(others, "view", "views")));
            }
            let title = shown_name(&schema.name);
            picture.boxes.push(Schema {
                title: if parts > 1 {
                    format!("{title} {}/{parts}", part + 1)
                } else {
                    title
                },
                subtitle: if part > 0 {
                    String::new()
                } else {
                    format!("{subtitle}, {}", bytes(schema.bytes))
                },
                zone: audit.zones.position(&schema.name),
                rows,
            });
        }
    }
    let mut lines = Vec::new();
    let references = references(audit);
    let all = references.len();
    for (from, to, class, label, told) in references {
        if let (Some(&from), Some(&to)) = (places.get(from), places.get(to)) {
            lines.push(Line {
                from,
                to,
                class,
                keys: 1,
                told: one_line(&told),
                label: one_line(&label),
            });
        }
    }
    picture.tell_undrawn(all - lines.len());
    picture.add(lines);
    picture
}

fn collapsed(audit: &Audit, tables: usize) -> Picture {
    let mut picture = Picture::default();
    picture.notes.push(format!(
        "{} are too many to draw one by one: schemas, with the keys between them counted",
        plural(tables, "table", "tables")
    ));
    let mut schemas: Vec<&crate::audit::Schema> = audit.schemas.iter().collect();
    schemas.sort_by(|a, b| (b.tables, &a.name).cmp(&(a.tables, &b.name)));
    if schemas.len() > MOST_SCHEMAS {
        picture.notes.push(format!(
            "the {MOST_SCHEMAS} largest of {}",
            plural(schemas.len(), "schema", "schemas")
        ));
        schemas.truncate(MOST_SCHEMAS);
    }
    schemas.sort_by(|a, b| a.name.cmp(&b.name));
    let places: HashMap<&str, usize> = schemas
        .iter()
        .enumerate()
        .map(|(at, schema)| (schema.name.as_str(), at))
        .collect();
    let mut between: BTreeMap<(usize, usize), (Class, usize, usize)> = BTreeMap::new();
    let mut within: HashMap<usize, usize> = HashMap::new();
    let mut undrawn = 0;
    for (from, to, class, _, _) in references(audit) {
        let place = |name: &Name| places.get(name.schema.as_str()).copied();
        let (Some(from), Some(to)) = (place(from), place(to)) else {
            undrawn += 1;
            continue;
        };
        if from == to {
            *within.entry(from).or_default() += 1;
            continue;
        }
        let line = between.entry((from, to)).or_insert((class, 0, 0));
        line.0 = line.0.max(class);
        line.1 += 1;
        line.2 += usize::from(class >= Class::Undeclared);
    }
    for (at, schema) in schemas.iter().enumerate() {
        let keys = within.get(&at).copied().unwrap_or(0);
        picture.boxes.push(Schema {
            title: shown_name(&schema.name),
            subtitle: format!(
                "{}, {}, {}",
                plural(schema.tables, "table", "tables"),
                plural(keys, "key", "keys"),
                bytes(schema.bytes)
            ),
            zone: audit.zones.position(&schema.name),
            rows: Vec::new(),
        });
    }
    let lines = between
        .into_iter()
        .map(|((from, to), (class, keys, broken))| {
            let mut told = format!(
                "{} to {}: {}",
                schemas[from].name,
                schemas[to].name,
                plural(keys, "key", "keys")
            );
            if broken > 0 {
                told.push_str(&format!(", {} broken or undeclared", count(broken as u64)));
            }
            Line {
                from: (from, None),
                to: (to, None),
                class,
                keys,
                told: one_line(&told),
                label: count(keys as u64),
            }
        });
    let lines = lines.collect();
    picture.tell_undrawn(undrawn);
    picture.add(lines);
    picture
}

impl Picture {
    fn tell_undrawn(&mut self, references: usize) {
        if references > 0 {
            self.notes.push(format!(
                "not drawn: {} with one side outside of this picture",
                plural(references, "reference", "references")
            ));
        }
    }

    /// Takes the lines that say the most, the worst last, so that they are drawn on top.
    fn add(&mut self, mut lines: Vec<Line>) {
        if lines.len() > MOST_LINES {
            lines.sort_by_key(|line| std::cmp::Reverse((line.class, line.keys)));
            self.notes.push(format!(
                "{MOST_LINES} of {} are drawn, the broken ones first",
                plural(lines.len(), "line", "lines")
            ));
            lines.truncate(MOST_LINES);
        }
        lines.sort_by_key(|line| (line.class, line.from, line.to));
        self.lines = lines;
    }
}

/// A number of rows in few letters: `950`, `12k`, `3.4M`.
fn short(table: &Table) -> String {
    let n = match (table.rows_estimated, table.rows_by_activity) {
        (Some(rows), _) => rows,
        (None, 0) => return "?".to_owned(),
        (None, rows) => rows,
    };
    let about = |unit: u64| {
        let tenths = n / (unit / 10);
        if tenths >= 100 {
            (tenths / 10).to_string()
        } else {
            format!("{}.{}", tenths / 10, tenths % 10)
        }
    };
    match n {
        0..10_000 => count(n),
        10_000..1_000_000 => format!("{}k", about(1_000)),
        1_000_000..1_000_000_000 => format!("{}M", about(1_000_000)),
        _ => format!("{}G", about(1_000_000_000)),
    }
}

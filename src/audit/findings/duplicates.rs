//! What is there twice: table names, shapes, masters of an entity, schemas.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Finding, Kind, Known, Severity};
use crate::audit::catalog::{Name, Table};
use crate::audit::names::{
    entity, is_plural, is_similar, leftover, referred, similarity, singular, words,
};
use crate::audit::words::{plural, some_of};

/// Tables of fewer columns are alike by chance: every lookup table is (id, name).
const FEW_COLUMNS: usize = 4;
/// An entity has at least so many columns of its own: neither its key nor references, nor such as every table has.
const TELLING_COLUMNS: usize = 5;
/// From this share of common column names on (Jaccard), two tables with the same key hold the same thing.
const SIMILAR: f64 = 0.5;
/// More tables around one key are not compared in pairs.
const TOO_MANY: usize = 200;
/// Columns that every table may have; they make nothing alike.
const EVERYWHERE: &[&str] = &[
    "id",
    "uuid",
    "created_at",
    "updated_at",
    "deleted_at",
    "created_on",
    "updated_on",
    "created",
    "updated",
    "created_by",
    "updated_by",
    "version",
];

pub(super) fn find(known: &Known<'_>) -> Vec<Finding> {
    let tables: Vec<&Table> = known
        .catalog
        .tables
        .iter()
        .filter(|table| table.is_own())
        .collect();
    let columns: Vec<Vec<String>> = tables.iter().map(|table| telling(table)).collect();
    let mut findings = same_name(&tables, &columns);
    findings.extend(same_shape(&tables));
    findings.extend(two_masters(known, &tables, &columns));
    findings.extend(overlapping_schemas(known, &tables));
    findings
}

/// The column names that say what a table holds, sorted.
fn telling(table: &Table) -> Vec<String> {
    let names = table
        .columns
        .iter()
        .map(|column| column.name.to_lowercase());
    let mut names: Vec<String> = names
        .filter(|name| !EVERYWHERE.contains(&name.as_str()))
        .collect();
    names.sort();
    names
}

fn listed(tables: &[&Table]) -> Vec<Name> {
    let mut names: Vec<Name> = tables.iter().map(|table| table.name.clone()).collect();
    names.sort();
    names
}

fn texts(names: &[Name]) -> Vec<String> {
    names.iter().map(Name::to_string).collect()
}

/// One finding per name that several schemas have.
fn same_name(tables: &[&Table], columns: &[Vec<String>]) -> Vec<Finding> {
    let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (at, table) in tables.iter().enumerate() {
        by_name.entry(&table.name.name).or_default().push(at);
    }
    let several = by_name.into_iter().filter(|(_, group)| group.len() > 1);
    several
        .map(|(name, group)| {
            let all: Vec<&Table> = group.iter().map(|at| tables[*at]).collect();
            // Two that are alike are enough; a name that a thousand tenants have is not compared in all pairs.
            let compared = &group[..group.len().min(50)];
            let is_alike = compared.iter().enumerate().any(|(n, a)| {
                let mut others = compared[n + 1..].iter();
                others.any(|b| similarity(&columns[*a], &columns[*b]) >= SIMILAR)
            });
            let schemas: Vec<String> = all.iter().map(|table| table.name.schema.clone()).collect();
            let what = format!(
                "in {}; {}",
                some_of(&schemas, 5),
                if is_alike {
                    "two or more with much the same columns"
                } else {
                    "with other columns"
                }
            );
            let severity = if is_alike {
                Severity::High
            } else {
                Severity::Info
            };
            let object = Name::new("", name).relation().name.as_str().to_owned();
            Finding::new(Kind::SameName, severity, object, listed(&all), what)
        })
        .collect()
}

/// One finding per set of columns (names and types) that tables of different names have.
fn same_shape(tables: &[&Table]) -> Vec<Finding> {
    let mut by_shape: BTreeMap<Vec<(&str, &str)>, Vec<&Table>> = BTreeMap::new();
    for table in tables
        .iter()
        .filter(|table| table.columns.len() >= FEW_COLUMNS)
    {
        by_shape.entry(shape(table)).or_default().push(table);
    }
    let mut findings: Vec<Finding> = by_shape
        .into_iter()
        .filter(|(_, group)| {
            group
                .iter()
                .any(|table| table.name.name != group[0].name.name)
        })
        .map(|(shape, group)| {
            let names = listed(&group);
            let what = format!(
                "{} have the same {}",
                some_of(&texts(&names), 5),
                plural(shape.len(), "column", "columns")
            );
            Finding::new(
                Kind::SameShape,
                Severity::High,
                names[0].to_string(),
                names,
                what,
            )
        })
        .collect();
    findings.sort_by(|a, b| a.tables.cmp(&b.tables));
    findings
}

/// Tables that belong together, found pair by pair.
struct Groups {
    parent: Vec<usize>,
}

impl Groups {
    fn new(size: usize) -> Self {
        Self {
            parent: (0..size).collect(),
        }
    }

    fn root(&mut self, mut at: usize) -> usize {
        while self.parent[at] != at {
            self.parent[at] = self.parent[self.parent[at]];
            at = self.parent[at];
        }
        at
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parent[a.max(b)] = a.min(b);
    }

    /// The groups of two and more, in order.
    fn several(mut self) -> Vec<Vec<usize>> {
        let mut groups: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for at in 0..self.parent.len() {
            let root = self.root(at);
            groups.entry(root).or_default().push(at);
        }
        groups
            .into_values()
            .filter(|group| group.len() > 1)
            .collect()
    }
}

/// One finding per entity that several tables hold.
///
/// Two tables are masters of one entity when keys of the same column name point to one here and to the
/// other there, and both are named after it; or when they are named after the same thing, have the same
/// key, share half of their columns, and do not refer to each other.
fn two_masters(known: &Known<'_>, tables: &[&Table], columns: &[Vec<String>]) -> Vec<Finding> {
    let positions: HashMap<&Name, usize> = tables
        .iter()
        .enumerate()
        .map(|(at, table)| (&table.name, at))
        .collect();
    let mut uses: BTreeMap<String, BTreeMap<usize, usize>> = BTreeMap::new();
    let mut linked: BTreeSet<(&Name, &Name)> = BTreeSet::new();
    for key in &known.catalog.keys {
        linked.insert((&key.table, &key.references));
        linked.insert((&key.references, &key.table));
        if let ([column], Some(at)) = (key.columns.as_slice(), positions.get(&key.references))
            && key.table != key.references
        {
            *uses
                .entry(column.to_lowercase())
                .or_default()
                .entry(*at)
                .or_default() += 1;
        }
    }
    let nouns: Vec<BTreeSet<String>> = tables
        .iter()
        .map(|table| {
            words(&table.name.name)
                .iter()
                .map(|word| singular(word))
                .collect()
        })
        .collect();
    let mut groups = Groups::new(tables.len());
    let mut used_as: BTreeMap<usize, (String, Vec<(usize, usize)>)> = BTreeMap::new();
    for (column, targets) in &uses {
        let stem = referred(column).unwrap_or_default();
        let Some(noun) = stem.last().map(|word| singular(word)) else {
            continue;
        };
        let masters: Vec<(usize, usize)> = targets
            .iter()
            .filter(|(at, _)| nouns[**at].contains(&noun))
            .map(|(at, uses)| (*at, *uses))
            .collect();
        for pair in masters.windows(2) {
            groups.join(pair[0].0, pair[1].0);
        }
        if masters.len() > 1 {
            for (at, _) in &masters {
                used_as.insert(*at, (column.clone(), masters.clone()));
            }
        }
    }
    for group in same_key(known, tables, columns) {
        for (n, a) in group.iter().enumerate() {
            for b in &group[n + 1..] {
                let (one, other) = (&tables[*a].name, &tables[*b].name);
                let is_copy = |at: usize| leftover(&words(&tables[at].name.name)).is_some();
                if groups.root(*a) != groups.root(*b)
                    && one.name != other.name
                    && !linked.contains(&(one, other))
                    && !is_copy(*a)
                    && !is_copy(*b)
                    && similarity(&columns[*a], &columns[*b]) >= SIMILAR
                    && shape(tables[*a]) != shape(tables[*b])
                {
                    groups.join(*a, *b);
                }
            }
        }
    }
    let groups = groups.several();
    groups
        .into_iter()
        .map(|group| {
            let all: Vec<&Table> = group.iter().map(|at| tables[*at]).collect();
            let names = listed(&all);
            let least = group[1..]
                .iter()
                .map(|at| similarity(&columns[group[0]], &columns[*at]))
                .fold(1.0, f64::min);
            let common = plural((least * 100.0) as usize, "percent", "percent");
            let used = group.iter().find_map(|at| used_as.get(at));
            let (severity, what) = match used {
                Some((column, masters)) => {
                    let uses: Vec<String> = masters
                        .iter()
                        .map(|(at, uses)| {
                            format!("{} to {}", plural(*uses, "key", "keys"), tables[*at].name)
                        })
                        .collect();
                    let what = format!(
                        "`{column}` means either: {}; {common} of the columns in common",
                        some_of(&uses, 5)
                    );
                    (Severity::Critical, what)
                }
                None => {
                    let what = format!(
                        "named after the same thing, with the same key and {common} of the columns in common"
                    );
                    (Severity::High, what)
                }
            };
            let object = some_of(&texts(&names), 5);
            Finding::new(Kind::TwoMasters, severity, object, names, what)
        })
        .collect()
}

/// Names and types of the columns, whatever their order.
fn shape(table: &Table) -> Vec<(&str, &str)> {
    let columns = table.columns.iter();
    let mut shape: Vec<(&str, &str)> = columns
        .map(|column| (column.name.as_str(), column.type_name.as_str()))
        .collect();
    shape.sort_unstable();
    shape
}

/// Tables that are named after the same thing and have a key of the same name. What a table is named
/// after is the last plural in its name, and its last word where there is none: `games_complete` and
/// `enhanced_games` hold games.
fn same_key(known: &Known<'_>, tables: &[&Table], columns: &[Vec<String>]) -> Vec<Vec<usize>> {
    let mut referring: HashMap<&Name, usize> = HashMap::new();
    for key in &known.catalog.keys {
        *referring.entry(&key.table).or_default() += key.columns.len();
    }
    let mut buckets: BTreeMap<(String, String), Vec<usize>> = BTreeMap::new();
    for (at, table) in tables.iter().enumerate() {
        let named = words(&table.name.name);
        let noun = named.iter().rev().find(|word| is_plural(word));
        let Some(noun) = noun.or(named.last()) else {
            continue;
        };
        let own = columns[at]
            .len()
            .saturating_sub(referring.get(&table.name).copied().unwrap_or(0));
        if own >= TELLING_COLUMNS && !table.primary_key.is_empty() {
            let key = table.primary_key.join(",").to_lowercase();
            buckets.entry((key, singular(noun))).or_default().push(at);
        }
    }
    buckets
        .into_values()
        .filter(|group| (2..=TOO_MANY).contains(&group.len()))
        .collect()
}

/// One finding per group of schemas that are named alike or share half of their tables' names.
fn overlapping_schemas(known: &Known<'_>, tables: &[&Table]) -> Vec<Finding> {
    let schemas = &known.catalog.schemas;
    let names: Vec<Vec<String>> = schemas.iter().map(|schema| words(&schema.name)).collect();
    let mut held: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for table in tables {
        let name = entity(&words(&table.name.name));
        held.entry(&table.name.schema).or_default().insert(name);
    }
    let none = BTreeSet::new();
    let of = |at: usize| held.get(schemas[at].name.as_str()).unwrap_or(&none);
    let mut groups = Groups::new(schemas.len());
    for a in 0..schemas.len() {
        for b in a + 1..schemas.len() {
            let (one, other) = (of(a), of(b));
            // One of a thousand tenants needs no comparison of tables with each of the others.
            let is_settled = groups.root(a) == groups.root(b);
            let smaller = one.len().min(other.len());
            if !is_settled
                && (is_similar(&names[a], &names[b])
                    || smaller >= 3 && one.intersection(other).count() * 2 >= smaller)
            {
                groups.join(a, b);
            }
        }
    }
    let groups = groups.several();
    groups
        .into_iter()
        .map(|group| {
            let texts: Vec<String> = group.iter().map(|at| schemas[*at].name.clone()).collect();
            let mut counted: BTreeMap<&str, usize> = BTreeMap::new();
            for at in &group {
                for table in of(*at) {
                    *counted.entry(table).or_default() += 1;
                }
            }
            let shared = counted.values().filter(|count| **count > 1).count();
            let alike = group[1..]
                .iter()
                .any(|at| is_similar(&names[group[0]], &names[*at]));
            let what = match (alike, shared) {
                (true, 0) => "their names mean the same".to_owned(),
                (true, shared) => format!(
                    "their names mean the same, and they share {}",
                    plural(shared, "name of a table", "names of tables")
                ),
                (false, shared) => format!(
                    "they share {}",
                    plural(shared, "name of a table", "names of tables")
                ),
            };
            let mut finding = Finding::new(
                Kind::OverlappingSchemas,
                Severity::High,
                some_of(&texts, 5),
                Vec::new(),
                what,
            );
            finding.schemas = texts.into_iter().collect();
            finding
        })
        .collect()
}

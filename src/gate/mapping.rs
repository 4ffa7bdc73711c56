//! Which tables are held against which, as a file of its own says it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, nearest, one_of};
use crate::source::{Problem, SourceFile, parse_document};
use crate::sql::Relation;

use super::catalog::{Catalog, RelationInfo, RelationKind, Side, matches};
use super::{Finding, Needs};

/// What stands in a mapping file.
const FIELDS: [&str; 2] = ["tables", "exclude"];

/// Pairs of tables, and what is left out of whole schemas.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Mapping {
    tables: BTreeMap<String, String>,
    #[serde(default)]
    exclude: Vec<String>,
}

impl JsonSchema for Mapping {
    fn schema_name() -> Cow<'static, str> {
        "Mapping".into()
    }
    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}

/// One line of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Entry {
    Tables(Relation, Relation),
    /// Every table of a schema and the one of the same name in another.
    Schemas(String, String),
}

/// The schema of `schema.*`; `None` for one table.
fn schema_of(text: &str) -> Result<Option<String>, String> {
    let Some(schema) = text.trim().strip_suffix(".*") else {
        return Ok(None);
    };
    let name = Relation::parse(schema)?;
    match name.schema {
        None => Ok(Some(name.name.as_str().to_owned())),
        Some(_) => Err(format!("`{text}` has too many parts: expected `schema.*`")),
    }
}

fn entry(table: &str, against: &str) -> Result<Entry, String> {
    match (schema_of(table)?, schema_of(against)?) {
        (Some(schema), Some(other)) => Ok(Entry::Schemas(schema, other)),
        (None, None) => Ok(Entry::Tables(
            Relation::parse(table)?,
            Relation::parse(against)?,
        )),
        _ => Err(format!(
            "`{table}` and `{against}` do not fit: a whole schema stands against a whole schema"
        )),
    }
}

/// Reads a mapping file, or says of every line what is wrong with it.
pub fn read(file: &SourceFile) -> Result<Mapping, Vec<Error>> {
    let root = parse_document(file)?.into_inner();
    let mut errors = Vec::new();
    for (key, _) in &root {
        let name = key.get_ref().as_ref();
        if !FIELDS.contains(&name) {
            let message = format!("unknown field `{name}` in a mapping file");
            let error = file.error(key.span(), message, format!("expected {}", one_of(FIELDS)));
            errors.push(match nearest(name, FIELDS) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error,
            });
        }
    }
    let mut mapping = Mapping::default();
    match root
        .get("tables")
        .map(|value| (value.span(), value.get_ref().as_table()))
    {
        Some((_, Some(table))) => tables(file, table, &mut mapping, &mut errors),
        Some((span, None)) => {
            errors.push(file.error(span, "`tables` is not a table", "expected [tables]"));
        }
        None => {}
    }
    if let Some(value) = root.get("exclude") {
        match value.get_ref().as_array() {
            Some(items) => {
                for item in items {
                    match item.get_ref().as_str() {
                        Some(text) if text.contains('.') => mapping.exclude.push(text.to_owned()),
                        _ => errors.push(
                            file.error(
                                item.span(),
                                "this excludes no table",
                                "expected `schema.table`",
                            )
                            .help("`*` stands for any text: \"legacy.tmp_*\""),
                        ),
                    }
                }
            }
            None => errors.push(file.error(
                value.span(),
                "`exclude` is not a list",
                "expected a list of texts",
            )),
        }
    }
    if mapping.tables.is_empty() && errors.is_empty() {
        let error = file.error(0..0, "the mapping file names no pair of tables", "");
        errors.push(
            error.help(
                "write under [tables]: \"new.games\" = \"old.games\", or \"new.*\" = \"old.*\"",
            ),
        );
    }
    if errors.is_empty() {
        Ok(mapping)
    } else {
        Err(errors)
    }
}

fn tables(file: &SourceFile, table: &DeTable<'_>, mapping: &mut Mapping, errors: &mut Vec<Error>) {
    let mut taken: BTreeMap<String, Range<usize>> = BTreeMap::new();
    let mut lines: Vec<_> = table.iter().collect();
    lines.sort_by_key(|(key, _)| key.span().start);
    for (key, value) in lines {
        let name = key.get_ref().as_ref();
        let Some(against) = value.get_ref().as_str() else {
            let message = format!("`{name}` stands against no table");
            errors.push(file.error(value.span(), message, "expected a table's name in quotes"));
            continue;
        };
        match entry(name, against) {
            Err(message) => {
                errors.push(file.error(key.span().start..value.span().end, message, ""));
            }
            Ok(_) => {
                if let Some(first) = taken.insert(against.trim().to_owned(), value.span()) {
                    let message = format!("`{against}` stands against two tables");
                    let line = file.place(first.start);
                    errors.push(
                        file.error(value.span(), message, "")
                            .note(format!("first at {line}")),
                    );
                }
                mapping.tables.insert(name.to_owned(), against.to_owned());
            }
        }
    }
}

/// Tables that are there on both sides, and what is to be said of others.
pub struct Pairs<'a> {
    /// Each table and what it is held against, in the order of their names.
    pub found: Vec<(&'a RelationInfo, &'a RelationInfo)>,
    /// Tables that only one side has, and exclusions that exclude nothing.
    pub findings: Vec<Finding>,
}

impl Mapping {
    /// The mistakes of a gate that has fields beside its mapping that are about one pair.
    pub(super) fn problems<const N: usize>(fields: [(&'static str, bool); N]) -> Vec<Problem> {
        let wrong = fields.into_iter().filter(|(_, is_there)| *is_there);
        let problem = |(field, _)| {
            Problem::new(
                field,
                format!("`{field}` goes with one pair of tables, not with `mapping`"),
            )
        };
        wrong.map(problem).collect()
    }

    /// The value that stands in place of the file's name, all of it at the place of that name.
    pub(super) fn into_value(self, span: &Range<usize>) -> DeValue<'static> {
        let text = |text: String| Spanned::new(span.clone(), DeValue::String(text.into()));
        let key = |text: String| Spanned::new(span.clone(), text.into());
        let mut tables = DeTable::new();
        for (table, against) in self.tables {
            tables.insert(key(table), text(against));
        }
        let exclude = self.exclude.into_iter().map(text).collect();
        let mut all = DeTable::new();
        all.insert(
            key("tables".to_owned()),
            Spanned::new(span.clone(), DeValue::Table(tables)),
        );
        all.insert(
            key("exclude".to_owned()),
            Spanned::new(span.clone(), DeValue::Array(exclude)),
        );
        DeValue::Table(all)
    }

    fn entries(&self) -> impl Iterator<Item = Entry> {
        let read = |(table, against): (&String, &String)| entry(table, against).ok();
        self.tables.iter().filter_map(read)
    }

    /// What must be known of both sides.
    pub fn needs(&self, other: &Side) -> Needs {
        let mut needs = Needs::default();
        for entry in self.entries() {
            match entry {
                Entry::Tables(table, against) => {
                    needs.relations.push((Side::Main, table));
                    needs.relations.push((other.clone(), against));
                }
                Entry::Schemas(..) => needs.whole = vec![Side::Main, other.clone()],
            }
        }
        needs
    }

    /// Finds the tables of both sides.
    pub fn pairs<'a>(&self, here: &'a Catalog, there: &'a Catalog) -> Pairs<'a> {
        let mut pairs = Pairs {
            found: Vec::new(),
            findings: Vec::new(),
        };
        let mut named = (BTreeSet::new(), BTreeSet::new());
        for entry in self.entries() {
            if let Entry::Tables(table, against) = entry {
                let both = (here.relation(&table), there.relation(&against));
                named
                    .0
                    .extend(both.0.iter().map(|info| info.relation.clone()));
                named
                    .1
                    .extend(both.1.iter().map(|info| info.relation.clone()));
                pairs.add(both.0.ok(), both.1.ok(), (&table, &against));
            }
        }
        let mut used = BTreeSet::new();
        for entry in self.entries() {
            let Entry::Schemas(schema, other) = entry else {
                continue;
            };
            let (ours, theirs) = (tables_of(here, &schema), tables_of(there, &other));
            if ours.is_empty() && theirs.is_empty() {
                let what = format!("neither {schema} nor {other} holds a table");
                pairs.fail(what);
                continue;
            }
            let names: BTreeSet<&str> = ours.keys().chain(theirs.keys()).copied().collect();
            for name in names {
                let both = (Relation::new(&*schema, name), Relation::new(&*other, name));
                if named.0.contains(&both.0) || named.1.contains(&both.1) {
                    continue;
                }
                let full = [format!("{schema}.{name}"), format!("{other}.{name}")];
                let mut by = self.exclude.iter();
                if let Some(by) = by.find(|by| full.iter().any(|full| matches(by, full))) {
                    used.insert(by);
                    continue;
                }
                let info = (ours.get(name).copied(), theirs.get(name).copied());
                pairs.add(info.0, info.1, (&both.0, &both.1));
            }
        }
        for by in self.exclude.iter().filter(|by| !used.contains(by)) {
            pairs.findings.push(Finding {
                what: format!("`{by}` excludes no table"),
                is_failure: false,
                repair: None,
            });
        }
        if pairs.found.is_empty() && pairs.findings.iter().all(|finding| !finding.is_failure) {
            pairs.fail("no table is left to compare".to_owned());
        }
        pairs
            .found
            .sort_by_key(|(table, _)| table.relation.readable());
        pairs
    }
}

impl<'a> Pairs<'a> {
    fn fail(&mut self, what: String) {
        self.findings.push(Finding {
            what,
            is_failure: true,
            repair: None,
        });
    }

    fn add(
        &mut self,
        table: Option<&'a RelationInfo>,
        against: Option<&'a RelationInfo>,
        names: (&Relation, &Relation),
    ) {
        let (name, other) = (names.0.readable(), names.1.readable());
        match (table, against) {
            (Some(table), Some(against)) => self.found.push((table, against)),
            (None, Some(_)) => self.fail(format!("{name} is missing, {other} is there")),
            (Some(_), None) => self.fail(format!("{name} is there, {other} is missing")),
            (None, None) => self.fail(format!("{name} and {other} are both missing")),
        }
    }
}

/// The tables of a schema by name; partitions are part of theirs.
fn tables_of<'a>(catalog: &'a Catalog, schema: &str) -> BTreeMap<&'a str, &'a RelationInfo> {
    let all = catalog.relations.iter();
    let of = all.filter(|((in_schema, _), info)| {
        let is_table = matches!(
            info.kind,
            RelationKind::Table | RelationKind::Partitioned | RelationKind::Foreign
        );
        in_schema == schema && is_table && !info.is_partition
    });
    of.map(|((_, name), info)| (name.as_str(), info)).collect()
}

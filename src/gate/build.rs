//! From one definition file to its gates, or every mistake in it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, nearest, one_of};
use crate::source::{
    Defined, Problem, SourceFile, Table, Vars, expand, parse_document, parse_header, read,
    read_vars,
};

use super::kinds::{KINDS, Registered};
use super::readiness::{Readiness, ReadinessFields};
use super::sampling::{Sampled, Share};
use super::{COMMON_FIELDS, Common, EXAMPLES_MAX, Gate, Kind, Origin, SHOWN_MAX};

/// What one file holds.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) gates: Vec<Gate>,
    pub(super) readiness: Option<Readiness>,
}

/// The `[suite]` table.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Suite {
    /// What the gates of this file are for.
    #[expect(dead_code, reason = "for the reader of the file; accepted, not used")]
    pub description: Option<String>,
    /// Who answers for the gates that name nobody.
    pub owner: Option<String>,
    /// Words that every gate of the suite has.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// What stands at the top of a suite file.
const TABLES: [&str; 5] = ["include", "suite", "vars", "gate", "readiness"];

/// What of a suite file must be known before its gates are read.
pub(super) struct Head<'a> {
    /// The whole file.
    pub(super) root: DeTable<'a>,
    /// Its own variables.
    pub(super) vars: Vars,
    /// Where they stand.
    pub(super) places: Vec<(String, Range<usize>)>,
    /// The entries of `include`.
    pub(super) includes: Vec<(String, Range<usize>)>,
    /// What is wrong with any of that.
    pub(super) errors: Vec<Error>,
}

/// Reads the head of a suite file; variables of the command line and of settings can stand in
/// `include`, and its own.
pub(super) fn head<'a>(file: &'a SourceFile, over: &Vars) -> Result<Head<'a>, Vec<Error>> {
    let mut root = parse_document(file)?.into_inner();
    let Defined {
        vars,
        places,
        mut errors,
    } = read_vars(file, root.get("vars"));
    let mut known = vars.clone();
    known.extend(over.clone());
    let mut includes = Vec::new();
    let mut entries = DeTable::new();
    entries.extend(root.remove_entry("include"));
    errors.extend(expand(
        file,
        &mut entries,
        &known,
        &mut BTreeSet::new(),
        &|_| false,
    ));
    if let Some(value) = entries.get("include") {
        let wrong = |span| {
            let help = "include = [\"common.toml\", \"../team/*.toml\"]";
            file.error(span, "`include` is not a list of files", "")
                .help(format!("write {help}"))
        };
        match value.get_ref().as_array() {
            Some(items) => {
                for item in items {
                    match item.get_ref().as_str() {
                        Some(entry) => includes.push((entry.to_owned(), item.span())),
                        None => errors.push(wrong(item.span())),
                    }
                }
            }
            None => errors.push(wrong(value.span())),
        }
    }
    Ok(Head {
        root,
        vars,
        places,
        includes,
        errors,
    })
}

/// The gates of a suite file.
pub(super) fn suite(
    file: &SourceFile,
    root: &DeTable<'_>,
    vars: &Vars,
    used_vars: &mut BTreeSet<String>,
) -> Result<Loaded, Vec<Error>> {
    let mut errors = Vec::new();
    for (key, _) in root {
        let name = key.get_ref().as_ref();
        if !TABLES.contains(&name) {
            let error = file.error(
                key.span(),
                format!("unknown table `{name}` in a suite file"),
                format!("expected {}", one_of(TABLES)),
            );
            errors.push(match nearest(name, TABLES) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error,
            });
        }
    }
    let mut defaults = Suite {
        description: None,
        owner: None,
        tags: Vec::new(),
    };
    if let Some(value) = root.get("suite") {
        match value.get_ref().as_table() {
            Some(table) => {
                let fields = Table::new("[suite]", value.span(), table);
                match read::<Suite>(file, &fields, table.clone(), &[]) {
                    Ok(suite) => defaults = suite,
                    Err(found) => errors.extend(found),
                }
            }
            None => {
                errors.push(file.error(value.span(), "`suite` is not a table", "expected [suite]"));
            }
        }
    }
    let mut gates = Vec::new();
    if let Some(value) = root.get("gate") {
        match value.get_ref().as_array() {
            Some(items) => {
                for item in items {
                    match gate(file, item.clone(), vars, used_vars, &defaults) {
                        Ok(gate) => gates.push(gate),
                        Err(found) => errors.extend(found),
                    }
                }
            }
            None => errors.push(file.error(
                value.span(),
                "`gate` is not a list of tables",
                "expected [[gate]] with two brackets",
            )),
        }
    }
    let mut readiness = None;
    if let Some(value) = root.get("readiness") {
        match value.get_ref().as_table() {
            Some(table) => {
                let fields = Table::new("[readiness]", value.span(), table);
                match read::<ReadinessFields>(file, &fields, table.clone(), &[]) {
                    Ok(wanted) => readiness = Some(Readiness::new(file, fields, wanted)),
                    Err(found) => errors.extend(found),
                }
            }
            None => errors.push(file.error(
                value.span(),
                "`readiness` is not a table",
                "expected [readiness]",
            )),
        }
    }
    if errors.is_empty() {
        Ok(Loaded { gates, readiness })
    } else {
        Err(errors)
    }
}

/// One `[[gate]]`.
fn gate(
    file: &SourceFile,
    mut item: Spanned<DeValue<'_>>,
    vars: &Vars,
    used_vars: &mut BTreeSet<String>,
    suite: &Suite,
) -> Result<Gate, Vec<Error>> {
    let header = item.span();
    let mut errors = query_from_file(file, &mut item)
        .err()
        .into_iter()
        .collect::<Vec<_>>();
    errors.extend(map(file, &mut item).err().into_iter().flatten());
    let DeValue::Table(mut table) = item.into_inner() else {
        return Err(vec![file.error(
            header,
            "a gate is not a table",
            "expected [[gate]]",
        )]);
    };
    let kind = kind_named(&table);
    errors.extend(expand(file, &mut table, vars, used_vars, &|field| {
        kind.is_some_and(|kind| kind.is_sql(field))
    }));
    let kind = match kind_of(file, &header, &table) {
        Ok(kind) => kind,
        Err(error) => {
            errors.push(error);
            return Err(errors);
        }
    };
    let article = if kind.name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    let fields = Table::new(format!("{article} `{}` gate", kind.name), header, &table);
    build(file, kind, fields, table, suite, errors)
}

/// Fills in `query` from the file that a gate names in its place; only kinds that run a query know
/// the field.
fn query_from_file(file: &SourceFile, item: &mut Spanned<DeValue<'_>>) -> Result<(), Error> {
    let DeValue::Table(table) = item.get_mut() else {
        return Ok(());
    };
    let Some((span, name)) = file_named(table, "file") else {
        return Ok(());
    };
    if table.contains_key("query") {
        return Err(file.error(span, "both `query` and `file`", "expected one of them"));
    }
    let folder = file.path.parent().unwrap_or(std::path::Path::new(""));
    let text = std::fs::read_to_string(folder.join(&name)).map_err(|error| {
        let message = format!("could not read `{name}`: {error}");
        file.error(span.clone(), message, "")
            .help("a file is named from the folder of the file that names it")
    })?;
    let key = Spanned::new(span.clone(), "query".into());
    table.insert(key, Spanned::new(span, DeValue::String(text.into())));
    Ok(())
}

/// The kind that a gate names, if it is one.
fn kind_named(table: &DeTable<'_>) -> Option<&'static Registered> {
    Registered::named(table.get("kind")?.get_ref().as_str()?)
}

/// The file that a gate names in a field, where its kind knows that field.
fn file_named(table: &DeTable<'_>, field: &str) -> Option<(Range<usize>, String)> {
    let schema = (kind_named(table)?.schema)();
    schema.get("properties")?.get(field)?;
    let value = table.get(field)?;
    Some((value.span(), value.get_ref().as_str()?.to_owned()))
}

/// Fills in what stands in the file that a gate names as its `mapping`; its mistakes are told at their
/// own lines.
fn map(file: &SourceFile, item: &mut Spanned<DeValue<'_>>) -> Result<(), Vec<Error>> {
    let DeValue::Table(table) = item.get_mut() else {
        return Ok(());
    };
    let Some((span, name)) = file_named(table, "mapping") else {
        return Ok(());
    };
    let folder = file.path.parent().unwrap_or(std::path::Path::new(""));
    let path = folder.join(&name);
    if !path.is_file() {
        let error = file.error(span, format!("there is no file `{name}`"), "");
        return Err(vec![
            error.help("a file is named from the folder of the file that names it"),
        ]);
    }
    let mapping = SourceFile::load(path).map_err(|error| vec![error]);
    let mapping = mapping.and_then(|mapping| super::mapping::read(&mapping));
    let value = mapping?.into_value(&span);
    table.insert(
        Spanned::new(span.clone(), "mapping".into()),
        Spanned::new(span, value),
    );
    Ok(())
}

fn kind_of(
    file: &SourceFile,
    header: &Range<usize>,
    table: &DeTable<'_>,
) -> Result<&'static Registered, Error> {
    let names = || KINDS.iter().map(|kind| kind.name);
    let Some(value) = table.get("kind") else {
        return Err(file
            .error(
                header.clone(),
                "missing field `kind` in a gate",
                "expected `kind`",
            )
            .help(format!("the kinds are {}", one_of(names()))));
    };
    let Some(name) = value.get_ref().as_str() else {
        return Err(file.error(
            value.span(),
            "`kind` is not text",
            "expected text in quotes",
        ));
    };
    Registered::named(name).ok_or_else(|| {
        let error = file.error(
            value.span(),
            format!("unknown kind `{name}`"),
            format!("expected {}", one_of(names())),
        );
        match nearest(name, names()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error,
        }
    })
}

/// The fields common to all gates and those of the kind, with every error of both.
fn build(
    file: &SourceFile,
    kind: &'static Registered,
    fields: Table,
    table: DeTable<'_>,
    suite: &Suite,
    mut errors: Vec<Error>,
) -> Result<Gate, Vec<Error>> {
    let common_table: DeTable<'_> = table
        .iter()
        .filter(|(key, _)| COMMON_FIELDS.contains(&key.get_ref().as_ref()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let common_fields = Table::new(fields.what.clone(), fields.header.clone(), &common_table);
    let common = read::<Common>(file, &common_fields, common_table, &[])
        .and_then(|common| check_common(file, &fields, &common).map(|()| common))
        .map_err(|found| errors.extend(found));
    let definition = (kind.read)(file, &fields, table).map_err(|found| errors.extend(found));
    if let (Ok(common), Ok(definition)) = (&common, &definition) {
        let problems = sampling_problems(common, definition.as_ref());
        errors.extend(problems.iter().map(|problem| fields.error(file, problem)));
    }

    if let (Ok(common), Ok(definition)) = (&common, &definition)
        && !common.show.is_empty()
        && !definition.names_rows()
    {
        let problem = Problem::new("show", "this gate names no single rows of one table")
            .help("`show` goes with gates that name rows of one table by their key");
        errors.push(fields.error(file, &problem));
    }
    let (Ok(common), Ok(definition), true) = (common, definition, errors.is_empty()) else {
        errors.sort_by_key(|error| error.excerpts().first().map(|excerpt| excerpt.span.start));
        return Err(errors);
    };
    let mut tags = suite.tags.clone();
    tags.extend(common.tags);
    tags.dedup();
    Ok(Gate {
        id: common.id,
        suite: file
            .path
            .file_stem()
            .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned()),
        kind: kind.name,
        severity: common.severity,
        on_empty: common.on_empty.unwrap_or(kind.on_empty),
        why: common.why,
        owner: common.owner.or_else(|| suite.owner.clone()),
        tags,
        examples: common.examples,
        max_scan: common.max_scan,
        statement_timeout: common.statement_timeout,
        sample: common.sample.map(|share| Sampled {
            share,
            confidence: common.confidence.unwrap_or(Share::CONFIDENCE),
        }),
        show: common.show,
        place: file.place(fields.header.start),
        definition: Arc::from(definition),
        origin: Origin {
            file: file.clone(),
            fields,
        },
    })
}

/// What is wrong with `sample` and `confidence`.
fn sampling_problems(common: &Common, definition: &dyn Kind) -> Vec<Problem> {
    match (common.sample, common.confidence) {
        (None, None) => Vec::new(),
        (None, Some(_)) => vec![
            Problem::new("confidence", "`confidence` without `sample`")
                .help("without a sample all rows are looked at, and nothing is left to chance"),
        ],
        (Some(_), confidence) => {
            let mut problems = match definition.sampling() {
                Ok(rule) => rule.problems(),
                Err(problem) => vec![problem],
            };
            if confidence.is_some_and(|confidence| confidence.fraction() < 0.5) {
                let what = "a confidence below 50% says nothing";
                problems.push(Problem::new("confidence", what).help("write confidence = \"99%\""));
            }
            problems
        }
    }
}

fn check_common(file: &SourceFile, fields: &Table, common: &Common) -> Result<(), Vec<Error>> {
    let is_id = !common.id.is_empty()
        && common
            .id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    let mut errors = Vec::new();
    if !is_id {
        errors.push(file.error(
            fields.span("id"),
            format!("`{}` is not an id", common.id),
            "expected letters, digits, `_`, `-` or `.`",
        ));
    }
    if common.examples.is_some_and(|rows| rows > EXAMPLES_MAX) {
        errors.push(file.error(
            fields.span("examples"),
            format!("at most {EXAMPLES_MAX} rows are named"),
            "",
        ));
    }
    if common.show.len() > SHOWN_MAX {
        errors.push(file.error(
            fields.span("show"),
            format!("at most {SHOWN_MAX} columns are shown beside the key"),
            "",
        ));
    }
    if errors.is_empty() {
        Ok(())
    } else {
        Err(errors)
    }
}

/// A `.sql` file is a gate of kind `sql`: its leading comment holds the fields, the file's stem is
/// the id unless the comment gives one, and the rows that the statement returns are offending.
pub(super) fn sql_gate(file: &SourceFile, vars: &Vars) -> Result<Loaded, Vec<Error>> {
    const LISTS: &[&str] = &["tags", "key", "show"];
    let known: Vec<&str> = COMMON_FIELDS
        .iter()
        .copied()
        .filter(|field| *field != "kind")
        .chain(["population", "at_most", "warn_above", "key"])
        .collect();
    let header = parse_header(file, &known, LISTS)?;
    let mut table = header.table.into_inner();
    let span = header.body.clone();
    let mut insert = |key: &'static str, value: String, span: Range<usize>| {
        let key = Spanned::new(span.clone(), key.into());
        if !table.contains_key(&key) {
            table.insert(key, Spanned::new(span, DeValue::String(value.into())));
        }
    };
    let stem = file
        .path
        .file_stem()
        .map_or_else(String::new, |stem| stem.to_string_lossy().into_owned());
    insert("id", stem, 0..0);
    insert("kind", "sql".to_owned(), 0..0);
    insert("query", file.text[span.clone()].to_owned(), span);
    let kind = Registered::named("sql").expect("the list of kinds has `sql`");
    let errors = expand(file, &mut table, vars, &mut BTreeSet::new(), &|field| {
        kind.is_sql(field)
    });
    let fields = Table::new("a `.sql` gate", 0..0, &table);
    let suite = Suite {
        description: None,
        owner: None,
        tags: Vec::new(),
    };
    Ok(Loaded {
        gates: vec![build(file, kind, fields, table, &suite, errors)?],
        readiness: None,
    })
}

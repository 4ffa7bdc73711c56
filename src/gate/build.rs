//! From definition files to gates, or every mistake in them.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Deserialize;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::{Error, ErrorKind, Errors, nearest, one_of};
use crate::source::{
    SourceFile, Table, Vars, discover, expand, parse_document, parse_header, read,
};

use super::kinds::{KINDS, Registered};
use super::readiness::{Readiness, ReadinessFields};
use super::{COMMON_FIELDS, Common, Gate, Origin};

/// What definitions may refer to.
#[derive(Clone, Debug, Default)]
pub struct LoadOptions {
    /// Variables that override those of the suites.
    pub vars: Vars,
}

/// All gates of a run, in the order of their files and lines.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// The gates.
    pub gates: Vec<Gate>,
    /// What it takes for the whole to be ready, where a suite says so.
    pub readiness: Option<Readiness>,
    /// The files, in order, those without a gate included.
    pub files: Vec<DefinitionFile>,
}

/// One file of definitions, as far as it is more than its gates.
#[derive(Clone, Debug)]
pub struct DefinitionFile {
    /// The file.
    pub file: SourceFile,
    /// Whether it defines anything.
    pub is_empty: bool,
    /// Variables of its `[vars]` that none of its gates uses, and where they stand.
    pub unused_vars: Vec<(String, Range<usize>)>,
}

/// What one file holds.
struct Loaded {
    gates: Vec<Gate>,
    readiness: Option<Readiness>,
    unused_vars: Vec<(String, Range<usize>)>,
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

/// Loads every gate below `paths`; on any mistake, all mistakes of all files and no gate.
///
/// No gate at all is a mistake too: nothing is proved by nothing.
pub fn load(paths: &[PathBuf], options: &LoadOptions) -> Result<Definitions, Errors> {
    let mut errors = Vec::new();
    let mut gates = Vec::new();
    let mut readiness: Option<Readiness> = None;
    let mut files = Vec::new();
    for path in discover(paths)? {
        let loaded = SourceFile::load(path)
            .map_err(|error| vec![error])
            .and_then(|file| {
                let extension = file.path.extension();
                let loaded = if extension.is_some_and(|extension| extension == "sql") {
                    sql_gate(&file, options)
                } else {
                    suite(&file, options)
                };
                Ok((loaded?, file))
            });
        match loaded {
            Ok((found, file)) => {
                files.push(DefinitionFile {
                    file,
                    is_empty: found.gates.is_empty() && found.readiness.is_none(),
                    unused_vars: found.unused_vars,
                });
                gates.extend(found.gates);
                match (&readiness, found.readiness) {
                    (Some(first), Some(again)) => errors.push(again.again(first)),
                    (None, more) => readiness = more,
                    (Some(_), None) => {}
                }
            }
            Err(found) => errors.extend(found),
        }
    }
    errors.extend(duplicates(&gates));
    // With gates missing because of their mistakes, tags would be missed that are there.
    if let Some(readiness) = readiness.as_ref().filter(|_| errors.is_empty()) {
        errors.extend(
            readiness
                .check(&gates)
                .err()
                .into_iter()
                .flat_map(|errors| errors.0),
        );
    }
    if errors.is_empty() && gates.is_empty() {
        let named: Vec<String> = paths
            .iter()
            .map(|path| format!("`{}`", path.display()))
            .collect();
        errors.push(
            Error::new(
                ErrorKind::Definition,
                format!("there is no gate in {}", named.join(", ")),
            )
            .help("a run without gates proves nothing; write a [[gate]] or name another folder with --gates PATH"),
        );
    }
    Errors(errors).into_result().map(|()| Definitions {
        gates,
        readiness,
        files,
    })
}

fn duplicates(gates: &[Gate]) -> Vec<Error> {
    let mut first: HashMap<&str, &Gate> = HashMap::new();
    let mut errors = Vec::new();
    for gate in gates {
        match first.get(gate.id.as_str()) {
            Some(earlier) => errors.push(
                gate.origin
                    .file
                    .error(
                        gate.origin.fields.span("id"),
                        format!("the id `{}` is taken", gate.id),
                        "",
                    )
                    .note(format!("the first gate of that id is at {}", earlier.place)),
            ),
            None => {
                first.insert(&gate.id, gate);
            }
        }
    }
    errors
}

/// What stands at the top of a suite file.
const TABLES: [&str; 4] = ["suite", "vars", "gate", "readiness"];

/// One TOML file of gates.
fn suite(file: &SourceFile, options: &LoadOptions) -> Result<Loaded, Vec<Error>> {
    let root = parse_document(file)?.into_inner();
    let mut errors = Vec::new();
    let top = Table::new("a suite file", 0..0, &root);
    for (key, _) in &root {
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
    let mut vars = Vars::new();
    let mut own_vars = Vec::new();
    let mut used_vars = BTreeSet::new();
    if let Some(value) = root.get("vars") {
        match value.get_ref().as_table() {
            Some(table) => {
                for (key, value) in table {
                    match value.get_ref().as_str() {
                        Some(text) => {
                            own_vars.push((key.get_ref().to_string(), key.span()));
                            vars.insert(key.get_ref().to_string(), text.to_owned());
                        }
                        None => errors.push(file.error(
                            value.span(),
                            format!("the variable `{}` is not text", key.get_ref()),
                            "expected text in quotes",
                        )),
                    }
                }
            }
            None => errors.push(file.error(
                top.span("vars"),
                "`vars` is not a table",
                "expected [vars]",
            )),
        }
    }
    vars.extend(options.vars.clone());
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
                    match gate(file, item.clone(), &vars, &mut used_vars, &defaults) {
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
        own_vars.retain(|(name, _)| !used_vars.contains(name));
        own_vars.sort_by_key(|(_, span)| span.start);
        Ok(Loaded {
            gates,
            readiness,
            unused_vars: own_vars,
        })
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
    let mut errors = include(file, &mut item)
        .err()
        .into_iter()
        .collect::<Vec<_>>();
    errors.extend(expand(file, &mut item, vars, used_vars));
    let header = item.span();
    let DeValue::Table(table) = item.into_inner() else {
        return Err(vec![file.error(
            header,
            "a gate is not a table",
            "expected [[gate]]",
        )]);
    };
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
fn include(file: &SourceFile, item: &mut Spanned<DeValue<'_>>) -> Result<(), Error> {
    let DeValue::Table(table) = item.get_mut() else {
        return Ok(());
    };
    let is_known = table
        .get("kind")
        .and_then(|kind| Registered::named(kind.get_ref().as_str()?))
        .is_some_and(|kind| {
            let schema = (kind.schema)();
            let fields = schema.get("properties");
            fields.is_some_and(|fields| fields.get("file").is_some())
        });
    let Some((span, name)) = table.get("file").filter(|_| is_known).and_then(|value| {
        let name = value.get_ref().as_str()?;
        Some((value.span(), name.to_owned()))
    }) else {
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
        place: file.place(fields.header.start),
        definition: Arc::from(definition),
        origin: Origin {
            file: file.clone(),
            fields,
        },
    })
}

fn check_common(file: &SourceFile, fields: &Table, common: &Common) -> Result<(), Vec<Error>> {
    let is_id = !common.id.is_empty()
        && common
            .id
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if is_id {
        return Ok(());
    }
    Err(vec![file.error(
        fields.span("id"),
        format!("`{}` is not an id", common.id),
        "expected letters, digits, `_`, `-` or `.`",
    )])
}

/// A `.sql` file is a gate of kind `sql`: its leading comment holds the fields, the file's stem is
/// the id unless the comment gives one, and the rows that the statement returns are offending.
fn sql_gate(file: &SourceFile, options: &LoadOptions) -> Result<Loaded, Vec<Error>> {
    const LISTS: &[&str] = &["tags", "key"];
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
    let mut value = Spanned::new(0..0, DeValue::Table(table));
    let errors = expand(file, &mut value, &options.vars, &mut BTreeSet::new());
    let DeValue::Table(table) = value.into_inner() else {
        unreachable!("the value was made as a table above")
    };
    let kind = Registered::named("sql").expect("the list of kinds has `sql`");
    let fields = Table::new("a `.sql` gate", 0..0, &table);
    let suite = Suite {
        description: None,
        owner: None,
        tags: Vec::new(),
    };
    Ok(Loaded {
        gates: vec![build(file, kind, fields, table, &suite, errors)?],
        readiness: None,
        unused_vars: Vec::new(),
    })
}

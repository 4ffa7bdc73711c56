//! `postern audit`: what there is in a database, and what is wrong with it.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::audit::{Options, Severity, audit};
use crate::error::{Error, Errors};
use crate::gate::fields::Age;
use crate::pg::Limits;
use crate::report::audit::{Shown, json, markdown, mermaid, svg, terminal};

use super::settings::Settings;
use super::stop;
use super::target::TargetArguments;

/// What stands below the help of `postern audit`.
const HELP: &str = "\
Findings, by how bad they are:
  critical
    orphaned_rows           rows that refer to nothing (with --count-orphans)
    key_not_enforced        a key with its triggers switched off, or NOT ENFORCED
    key_not_valid           a key that is NOT VALID
    two_masters             keys of one column name that lead to several tables
  high
    two_masters             one noun, one key, at least 50% of the columns
    key_against_flow        a key into a later zone (with --flow)
    undeclared_key          game_id without a key, and a table games
    key_type_mismatch       the two sides have different types
    key_target_not_unique   nothing keeps the referenced column unique
    same_name               in several schemas, at least 50% of the columns
    same_shape              the same names and types of 4 columns or more
    overlapping_schemas     named alike, or sharing half of the table names
    test_table              test, tmp, bak, copy, old, ... with rows
    no_primary_key          and no unique key that could be it
    key_without_index       on the referencing side, from 10,000 rows on
    duplicate_index         the same columns as another index
    unused_index            never used, more than 100 MB
    invalid_index, disabled_trigger
  info
    cross_schema_key, empty_schema, never_analyzed, seq_scanned_table,
    and the milder cases of those above

A finding has the SQL that would repair it, where there is such; it is
never executed. Only pg_catalog is read, so a role that may connect and
nothing else can audit; rows are estimates of the last ANALYZE.
--count-orphans reads every referencing table and needs SELECT on both sides.

Exit codes:
  0  the audit ran, whatever it found
  1  a finding is as bad as --fail-on says
  2  usage error
  3  the database or, with --count-orphans, a table could not be read";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Only these schemas, where * stands for any text; their references to others are told, too. May
    /// be repeated.
    #[arg(long, value_name = "PATTERN")]
    schemas: Vec<String>,
    /// A zone, and the schemas in it. A key within a zone does not cross anything. May be repeated.
    #[arg(long = "zone", value_name = "NAME=SCHEMA[,SCHEMA]...")]
    zones: Vec<String>,
    /// Zones, or schemas that are a zone each, in the order in which data passes them, such as
    /// raw_data,staging,curated. A key may point to its own zone or to an earlier one.
    #[arg(long, value_name = "ZONE,ZONE,...", value_delimiter = ',')]
    flow: Vec<String>,
    /// Counts the rows of every reference, declared or only named, that refer to nothing. Reads every
    /// referencing table.
    #[arg(long)]
    count_orphans: bool,
    /// terminal, json, markdown, svg or mermaid, with =FILE into a file. May be repeated.
    #[arg(long, value_name = "FORMAT[=FILE]", default_value = "terminal")]
    format: Vec<String>,
    /// Shows every schema, table, key and finding in terminal text and Markdown, not the first ten of a kind.
    #[arg(long)]
    all: bool,
    /// Which findings make the exit code 1; without it, none does.
    #[arg(long, value_enum)]
    fail_on: Option<FailOn>,
    /// How long one statement may take, such as 30s. [default: 5m]
    #[arg(long, value_name = "TIME", env = "POSTERN_STATEMENT_TIMEOUT", value_parser = Age::parse)]
    statement_timeout: Option<Age>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOn {
    /// Critical findings.
    Critical,
    /// High and critical findings.
    High,
}

#[derive(Clone, Copy)]
enum Format {
    Terminal,
    Json,
    Markdown,
    Svg,
    Mermaid,
}

const FORMATS: [(&str, Format); 5] = [
    ("terminal", Format::Terminal),
    ("json", Format::Json),
    ("markdown", Format::Markdown),
    ("svg", Format::Svg),
    ("mermaid", Format::Mermaid),
];

pub(super) async fn run(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    let mut errors = Vec::new();
    let mut outputs = Vec::new();
    for text in &arguments.format {
        match output(text) {
            Ok(output) => outputs.push(output),
            Err(error) => errors.push(error),
        }
    }
    let mut zones = Vec::new();
    for text in &arguments.zones {
        match zone(text) {
            Ok(zone) => zones.push(zone),
            Err(error) => errors.push(error),
        }
    }
    let target = arguments.target.choose(settings);
    let target = target.map_err(|error| errors.push(error));
    let (Ok((address, settled)), true) = (target, errors.is_empty()) else {
        return Err(Errors(errors));
    };
    let defaults = Limits::default();
    let timeout = arguments.statement_timeout.or(settled.statement_timeout);
    let options = Options {
        limits: Limits {
            statement: timeout.map_or(defaults.statement, |age| {
                Duration::from_secs_f64(age.seconds())
            }),
            ..defaults
        },
        schemas: arguments.schemas.clone(),
        zones,
        flow: arguments.flow.clone(),
        is_counting_orphans: arguments.count_orphans,
        fail_on: arguments.fail_on.map(|fail_on| match fail_on {
            FailOn::Critical => Severity::Critical,
            FailOn::High => Severity::High,
        }),
    };
    let audit = tokio::select! {
        audit = audit(&address, &options) => audit?,
        () = stop::asked() => return Err(stop::error("nothing was found out").into()),
    };
    let shown = if arguments.all {
        Shown::ALL
    } else {
        Shown::default()
    };
    for (format, file) in outputs {
        let text = match format {
            Format::Terminal => terminal::render(&audit, shown),
            Format::Json => json(&audit),
            Format::Markdown => markdown::render(&audit, shown),
            Format::Svg => svg::render(&audit),
            Format::Mermaid => mermaid::render(&audit),
        };
        match file {
            Some(file) => {
                std::fs::write(&file, text).map_err(|error| Error::io("write", &file, &error))?;
            }
            None => super::print(&text)?,
        }
    }
    Ok(audit.summary.exit_code)
}

/// A format, and the file it goes into.
fn output(text: &str) -> crate::Result<(Format, Option<PathBuf>)> {
    let (name, file) = match text.split_once('=') {
        Some((name, file)) => (name, Some(PathBuf::from(file))),
        None => (text, None),
    };
    if let Some((_, format)) = FORMATS.iter().find(|(known, _)| *known == name) {
        return Ok((*format, file));
    }
    let names = FORMATS.map(|(name, _)| name);
    let error = Error::usage(format!("unknown format `{name}`"));
    Err(match crate::error::nearest(name, names) {
        Some(near) => error.help(format!("did you mean `{near}`?")),
        None => error.help(format!("the formats are {}", crate::error::one_of(names))),
    })
}

/// A zone's name and schemas.
fn zone(text: &str) -> crate::Result<(String, Vec<String>)> {
    let wrong = || {
        Error::usage(format!("`--zone {text}` is no zone")).help("write --zone NAME=SCHEMA,SCHEMA")
    };
    let (name, schemas) = text.split_once('=').ok_or_else(wrong)?;
    let schemas: Vec<String> = schemas
        .split(',')
        .map(|schema| schema.trim().to_owned())
        .collect();
    if name.is_empty() || schemas.iter().any(String::is_empty) {
        return Err(wrong());
    }
    Ok((name.to_owned(), schemas))
}

//! `postern check`: runs gates against a target.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::{Error, Errors};
use crate::gate::catalog::Side;
use crate::gate::fields::Age;
use crate::gate::{LoadOptions, load};
use crate::pg::{Address, Limits};
use crate::report::{FailOn, Report, json_v1, junit, terminal};
use crate::run;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The database to check, as postgres://USER@HOST:PORT/DATABASE; a password in the environment
    /// (PGPASSWORD) or in the password file stays out of the list of processes.
    #[arg(long, env = "DATABASE_URL", hide_env_values = true, value_name = "URL")]
    url: Option<String>,
    /// Another database that gates compare with, as NAME=URL. May be repeated.
    #[arg(long = "other", value_name = "NAME=URL")]
    others: Vec<String>,
    /// A file of gates or a folder of such files. May be repeated.
    #[arg(long, value_name = "PATH", default_value = "gates")]
    gates: Vec<PathBuf>,
    /// A variable for the definitions. May be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    vars: Vec<String>,
    /// terminal, json or junit, with =FILE into a file. May be repeated.
    #[arg(long, value_name = "FORMAT[=FILE]", default_value = "terminal")]
    format: Vec<String>,
    /// Which failures make the exit code 1.
    #[arg(long, value_enum, default_value = "block")]
    fail_on: FailOnArgument,
    /// How long one statement may take, such as 30s or 5m.
    #[arg(long, value_name = "TIME", default_value = "5m")]
    statement_timeout: String,
    /// How many offending rows are named at the most, where a gate does not say.
    #[arg(long, value_name = "N", default_value_t = 10)]
    examples: u32,
    /// Names the gates that passed, too.
    #[arg(long, short)]
    verbose: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FailOnArgument {
    Block,
    Warn,
}

/// Where a rendering goes.
struct Output {
    format: Format,
    file: Option<PathBuf>,
}

#[derive(Clone, Copy)]
enum Format {
    Terminal,
    Json,
    Junit,
}

pub(super) async fn run(arguments: &Arguments) -> Result<u8, Errors> {
    let mut errors = Vec::new();
    let mut keep = |error: Error| errors.push(error);
    let outputs: Vec<Output> = arguments
        .format
        .iter()
        .filter_map(|text| output(text).map_err(&mut keep).ok())
        .collect();
    let mut vars = BTreeMap::new();
    for text in &arguments.vars {
        match text.split_once('=') {
            Some((name, value)) => {
                vars.insert(name.to_owned(), value.to_owned());
            }
            None => keep(
                Error::usage(format!("`--var {text}` has no value")).help("write --var NAME=VALUE"),
            ),
        }
    }
    let timeout = Age::parse(&arguments.statement_timeout)
        .map_err(|why| keep(Error::usage(format!("--statement-timeout: {why}"))));
    let address =
        match &arguments.url {
            Some(url) => Address::parse(url),
            None => Err(Error::usage("no target database is named")
                .help("give --url URL or set DATABASE_URL")),
        };
    let address = address.map_err(&mut keep);
    let mut targets = BTreeMap::new();
    for text in &arguments.others {
        match text.split_once('=') {
            Some((name, url)) => match Address::parse(url) {
                Ok(address) => {
                    targets.insert(Side::Other(name.to_owned()), address);
                }
                Err(error) => keep(error.context(format!("--other {name}"))),
            },
            None => {
                keep(Error::usage("`--other` names no database").help("write --other NAME=URL"));
            }
        }
    }
    let definitions =
        load(&arguments.gates, &LoadOptions { vars }).map_err(|found| errors.extend(found.0));
    let (Ok(timeout), Ok(address), Ok(definitions), true) =
        (timeout, address, definitions, errors.is_empty())
    else {
        return Err(Errors(errors));
    };
    targets.insert(Side::Main, address.clone());
    let options = run::Options {
        limits: Limits {
            statement: Duration::from_secs_f64(timeout.seconds()),
            ..Limits::default()
        },
        examples: arguments.examples,
    };
    let findings = tokio::select! {
        findings = run::check(&definitions.gates, &targets, &options) => findings,
        _ = tokio::signal::ctrl_c() => {
            return Err(Error::new(crate::ErrorKind::Interrupted, "interrupted; nothing was decided").into());
        }
    };
    let fail_on = match arguments.fail_on {
        FailOnArgument::Block => FailOn::Block,
        FailOnArgument::Warn => FailOn::Warn,
    };
    let report = Report::new(&definitions.gates, findings, &address, fail_on);
    for output in &outputs {
        let text = match output.format {
            Format::Terminal => terminal::render(&report, arguments.verbose),
            Format::Json => json_v1::render(&report),
            Format::Junit => junit::render(&report),
        };
        match &output.file {
            Some(file) => {
                std::fs::write(file, text).map_err(|error| Error::io("write", file, &error))?;
            }
            None => super::print(&text)?,
        }
    }
    Ok(report.summary.exit_code)
}

fn output(text: &str) -> crate::Result<Output> {
    const FORMATS: [&str; 3] = ["terminal", "json", "junit"];
    let (name, file) = match text.split_once('=') {
        Some((name, file)) => (name, Some(PathBuf::from(file))),
        None => (text, None),
    };
    let format = match name {
        "terminal" => Format::Terminal,
        "json" => Format::Json,
        "junit" => Format::Junit,
        other => {
            let error = Error::usage(format!("unknown format `{other}`"));
            return Err(match crate::error::nearest(other, FORMATS) {
                Some(near) => error.help(format!("did you mean `{near}`?")),
                None => error.help(format!("the formats are {}", crate::error::one_of(FORMATS))),
            });
        }
    };
    Ok(Output { format, file })
}

//! `postern rehearse`: a scenario from its legacy database to its workload, on a throwaway server.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Errors};
use crate::pg::ServerOptions;
use crate::report::rehearsal::{RehearsalReport, json, junit, terminal};
use crate::run;
use crate::scenario::{Options, Scenario, rehearse};

use super::EngineArgument;
use super::settings::Settings;
use super::stop;
use super::watch::Watched;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The scenario: a folder, or the name of one under `fixtures/`. [default: that of [scenario]
    /// in postern.toml, else consolidation]
    #[arg(env = "POSTERN_SCENARIO")]
    scenario: Option<String>,
    #[command(flatten)]
    engine: EngineArgument,
    /// The folder for the reports: report.txt, report.json, report.junit.xml.
    #[arg(long, value_name = "FOLDER", default_value = "reports/latest")]
    reports: PathBuf,
    /// A setting of the scenario's databases, over those of scenario.toml, such as
    /// postern.scale=10. May be repeated.
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
}

pub(super) async fn run(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    let engine = arguments.engine.choose(settings)?;
    let named = arguments.scenario.as_ref().or(settings.scenario.as_ref());
    let named = named.map_or("consolidation", String::as_str);
    let mut scenario = Scenario::load(&folder(named, settings)?)?;
    for text in &arguments.settings {
        let (name, value) = text.split_once('=').ok_or_else(|| {
            Error::usage(format!("`--set {text}` has no value")).help("write --set NAME=VALUE")
        })?;
        scenario.settings.insert(name.to_owned(), value.to_owned());
    }
    let options = Options {
        server: ServerOptions {
            engine,
            ..ServerOptions::default()
        },
        run: run::Options {
            masked: settings.masked.clone(),
            ..run::Options::default()
        },
    };
    let mut watched = Watched::new();
    // Asked to stop, the server is dropped with this future, and stops with it.
    let rehearsal = tokio::select! {
        rehearsal = rehearse(&scenario, &options, &mut watched) => rehearsal,
        () = stop::asked() => {
            Err(stop::error("nothing was decided"))
        }
    };
    drop(watched);
    let report = RehearsalReport::new(&scenario, rehearsal?);
    let text = terminal::render(&report);
    let write = |name: &str, text: &str| {
        let file = arguments.reports.join(name);
        std::fs::write(&file, text).map_err(|error| Error::io("write", &file, &error))
    };
    std::fs::create_dir_all(&arguments.reports)
        .map_err(|error| Error::io("create", &arguments.reports, &error))?;
    write("report.txt", &text)?;
    write("report.json", &json(&report))?;
    write("report.junit.xml", &junit::render(&report))?;
    super::print(&text)?;
    Ok(report.exit_code)
}

/// The folder of a scenario that is named by its path or by its name.
fn folder(named: &str, settings: &Settings) -> Result<PathBuf, Error> {
    let fixtures = settings.path("fixtures");
    let direct = PathBuf::from(named);
    let known = fixtures.join(named);
    for candidate in [&direct, &known] {
        if candidate.join("scenario.toml").is_file() {
            return Ok(candidate.clone());
        }
    }
    let error = Error::usage(format!("there is no scenario `{named}`"));
    let mut names: Vec<String> = std::fs::read_dir(&fixtures)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.join("scenario.toml").is_file())
        .filter_map(|path| Some(path.file_name()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    Err(match names.as_slice() {
        [] => error
            .help("give the folder that holds scenario.toml, legacy/, migrations/ and workload/"),
        names => error.help(format!(
            "those under fixtures/ are {}",
            crate::error::one_of(names.iter().map(String::as_str))
        )),
    })
}

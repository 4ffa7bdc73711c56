//! From a folder to a [`Scenario`], or every mistake in it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Deserialize;

use crate::bench::Workload;
use crate::error::{Error, ErrorKind, Errors, nearest};
use crate::gate::readiness::Readiness;
use crate::gate::{Gate, LoadOptions, load};
use crate::migrate::{History, Script};
use crate::run::State;
use crate::source::{SourceFile, Table, Vars, parse_document, plain_path, read};

/// A folder that can be rehearsed; everything in it has been read and checked.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The folder's own name.
    pub name: String,
    /// The folder, as it was named.
    pub folder: PathBuf,
    /// One line that says what it is.
    pub description: String,
    /// Settings of its databases: `postern.seed`, `TimeZone`.
    pub settings: BTreeMap<String, String>,
    /// What is there before the first migration, in order.
    pub legacy: Vec<Script>,
    /// The migrations.
    pub history: History,
    /// The gates as the legacy database is asked them.
    pub gates_before: Vec<Gate>,
    /// The same gates as the migrated database is asked them.
    pub gates_after: Vec<Gate>,
    /// What it takes for the whole to be ready, where a suite says so.
    pub readiness: Option<Readiness>,
    /// What must become of gates on the legacy database; a gate that is not listed must pass.
    /// `None` where the scenario says nothing of it: then anything goes.
    pub expected_before: Option<BTreeMap<String, State>>,
    /// What the running system does after the migrations: scripts, in order.
    pub operation: Vec<Script>,
    /// Queries that the migrated database must answer within their budgets.
    pub workloads: Vec<Workload>,
    /// When the migrated database would have to be given up again.
    pub rollback: RollbackCriteria,
}

/// When the migrated database would have to be given up again.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RollbackCriteria {
    /// A workload with a baseline may be slower by this many percent at the most.
    pub slower_than: f64,
}

impl Default for RollbackCriteria {
    fn default() -> Self {
        Self { slower_than: 10.0 }
    }
}

/// `scenario.toml`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct File {
    /// What it is.
    scenario: About,
    /// Settings of the databases, custom ones with a dot in their name included.
    #[serde(default)]
    settings: BTreeMap<String, String>,
    /// How the gates are asked of the legacy database, and what must become of them.
    #[serde(default)]
    before: Before,
    /// When the migrated database would have to be given up again.
    #[serde(default)]
    rollback: Rollback,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rollback {
    /// By how many percent a workload with a baseline may be slower; 10 where nothing is said.
    #[schemars(range(min = 0, max = 1000))]
    slower_than_percent: Option<f64>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct About {
    /// One line that says what it is.
    description: String,
    /// Files of gates and folders of such files, from the scenario's folder.
    gates: Vec<PathBuf>,
}

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Before {
    /// Variables of the definitions, as the legacy database needs them.
    #[serde(default)]
    vars: Vars,
    /// Outcomes by gate.
    expect: Option<BTreeMap<String, State>>,
}

impl Scenario {
    /// Reads a folder; on any mistake, all that can be told at once.
    pub fn load(folder: &Path) -> Result<Self, Errors> {
        let place = folder.join("scenario.toml");
        if !place.is_file() {
            return Err(Error::new(
                ErrorKind::Definition,
                format!(
                    "`{}` is no scenario: it has no scenario.toml",
                    folder.display()
                ),
            )
            .help("a scenario is a folder with scenario.toml, legacy/, migrations/ and workload/")
            .into());
        }
        let source = SourceFile::load(place)?;
        let root = parse_document(&source).map_err(Errors)?.into_inner();
        let fields = Table::new("a scenario", 0..0, &root);
        let file: File = read(&source, &fields, root, &[]).map_err(Errors)?;

        let mut errors = Vec::new();
        let mut keep = |found: Errors| errors.extend(found.0);
        let paths: Vec<PathBuf> = file
            .scenario
            .gates
            .iter()
            .map(|path| plain_path(&folder.join(path)))
            .collect();
        let after = load(&paths, &LoadOptions::default()).map_err(&mut keep);
        // The same files: without the right variables they would tell the same mistakes again.
        let before = after.and_then(|after| {
            let vars = file.before.vars;
            let before = load(&paths, &LoadOptions { vars }).map_err(&mut keep)?;
            Ok((before.gates, after))
        });
        let history = History::discover(&folder.join("migrations")).map_err(&mut keep);
        let legacy = optional(&folder.join("legacy"), Script::discover).map_err(&mut keep);
        let operation = optional(&folder.join("operation"), Script::discover).map_err(&mut keep);
        let workloads = optional(&folder.join("workload"), Workload::discover).map_err(&mut keep);
        if let (Ok(history), Ok(workloads)) = (&history, &workloads) {
            keep(Errors(unknown_baselines(workloads, history)));
        }
        if let Some(percent) = file.rollback.slower_than_percent
            && !(0.0..=1000.0).contains(&percent)
        {
            let at = source.text.find("slower_than_percent").unwrap_or(0);
            keep(Errors(vec![source.error(
                at..at + "slower_than_percent".len(),
                format!("`slower_than_percent` is {percent}"),
                "expected a number from 0 to 1000",
            )]));
        }
        if let (Ok((gates, _)), Some(expected)) = (&before, &file.before.expect) {
            let ids = || gates.iter().map(|gate| gate.id.as_str());
            for id in expected
                .keys()
                .filter(|id| !ids().any(|known| known == *id))
            {
                let at = source.text.find(id.as_str()).unwrap_or(0);
                let error = source.error(
                    at..at + id.len(),
                    format!("`{id}` is expected, and there is no such gate"),
                    "",
                );
                errors.push(match nearest(id, ids()) {
                    Some(near) => error.help(format!("did you mean `{near}`?")),
                    None => error,
                });
            }
        }
        match (before, history, legacy, operation, workloads) {
            (Ok((gates_before, after)), Ok(history), Ok(legacy), Ok(operation), Ok(workloads))
                if errors.is_empty() =>
            {
                Ok(Self {
                    name: name_of(folder),
                    folder: folder.to_owned(),
                    description: file.scenario.description,
                    settings: file.settings,
                    legacy,
                    history,
                    gates_before,
                    gates_after: after.gates,
                    readiness: after.readiness,
                    expected_before: file.before.expect,
                    operation,
                    workloads,
                    rollback: file
                        .rollback
                        .slower_than_percent
                        .map_or_else(RollbackCriteria::default, |slower_than| RollbackCriteria {
                            slower_than,
                        }),
                })
            }
            _ => Err(Errors(errors)),
        }
    }
}

/// Workloads that are to be compared with what was before a migration that there is not.
fn unknown_baselines(workloads: &[Workload], history: &History) -> Vec<Error> {
    let wrong = workloads.iter().filter_map(|workload| {
        let named = workload.baseline.as_deref()?;
        if history.position(named).is_some() {
            return None;
        }
        let ids = history.migrations().iter().map(|known| known.id.as_str());
        let error = Error::new(
            ErrorKind::Definition,
            format!(
                "`{}` has its baseline before `{named}`, and there is no such migration",
                workload.file().display()
            ),
        );
        Some(match nearest(named, ids) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help(format!(
                "those of the scenario are in {}",
                history.folder().display()
            )),
        })
    });
    wrong.collect()
}

/// What a folder holds; nothing where there is none.
fn optional<T>(
    folder: &Path,
    discover: impl Fn(&Path) -> Result<Vec<T>, Errors>,
) -> Result<Vec<T>, Errors> {
    if folder.is_dir() {
        discover(folder)
    } else {
        Ok(Vec::new())
    }
}

fn name_of(folder: &Path) -> String {
    let whole = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    whole.file_name().map_or_else(
        || "scenario".to_owned(),
        |name| name.to_string_lossy().into_owned(),
    )
}

//! The flags that say which gates a command is about.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Errors};
use crate::gate::readiness::Readiness;
use crate::gate::select::Selection;
use crate::gate::{self, DefinitionFile, Definitions, Gate, LoadOptions};

use super::settings::{RunSettings, Settings};

/// What the name of a variable of the environment starts with that sets one of the definitions.
const VARIABLE: &str = "POSTERN_VAR_";

#[derive(Debug, Args)]
pub(super) struct DefinitionArguments {
    /// A file of gates or a folder of such files. May be repeated. [default: `gates` of the
    /// target or of postern.toml, else the folder gates]
    #[arg(long, value_name = "PATH")]
    gates: Vec<PathBuf>,
    /// A variable for the definitions, over POSTERN_VAR_NAME of the environment, [vars] of postern.toml
    /// and of the suites. May be repeated.
    #[arg(long = "var", value_name = "NAME=VALUE")]
    vars: Vec<String>,
    /// Takes only some of the gates: an id, or kind:, tag:, table:, severity:, suite:, file: or owner:
    /// with a name, in which * stands for any text; joined by `and` (or a comma), `or`, `not` and
    /// parentheses, as in 'kind:unique and not tag:slow'.
    #[arg(long, value_name = "EXPR")]
    select: Option<String>,
}

/// The gates that a command is about.
pub(super) struct Selected {
    pub(super) gates: Vec<Gate>,
    /// The ids of all gates, those that were left out too.
    pub(super) defined: Vec<String>,
    /// The selection as it was written, and how many gates it left out.
    pub(super) left_out: Option<(String, usize)>,
    /// What it takes for the whole to be ready, unless gates were left out.
    pub(super) readiness: Option<Readiness>,
    /// Every file that was read.
    pub(super) files: Vec<DefinitionFile>,
}

impl DefinitionArguments {
    /// Loads the gates and selects from them; on any mistake, all of them and no gate.
    pub(super) fn load(&self, settings: &Settings, run: &RunSettings) -> Result<Selected, Errors> {
        self.load_named(settings, run, &[])
    }

    /// The same with gates that were named beside `--select`; what both take is taken.
    pub(super) fn load_named(
        &self,
        settings: &Settings,
        run: &RunSettings,
        names: &[String],
    ) -> Result<Selected, Errors> {
        let mut errors = Vec::new();
        let mut vars = settings.vars.clone();
        for (name, value) in std::env::vars_os() {
            let name = name.to_str().and_then(|name| name.strip_prefix(VARIABLE));
            match (name, value.into_string()) {
                (Some(name), Ok(value)) => {
                    vars.insert(name.to_owned(), value);
                }
                (Some(name), Err(_)) => {
                    errors.push(Error::usage(format!("`{VARIABLE}{name}` is not UTF-8")));
                }
                (None, _) => {}
            }
        }
        for text in &self.vars {
            match text.split_once('=') {
                Some((name, value)) => {
                    vars.insert(name.to_owned(), value.to_owned());
                }
                None => errors.push(
                    Error::usage(format!("`--var {text}` has no value"))
                        .help("write --var NAME=VALUE"),
                ),
            }
        }
        let names = (!names.is_empty()).then(|| names.join(" or "));
        let texts = names.iter().chain(&self.select);
        let selections: Vec<Selection> = texts
            .filter_map(|text| {
                let selection = Selection::parse(text);
                selection.map_err(|error| errors.push(error)).ok()
            })
            .collect();
        let paths = if self.gates.is_empty() {
            let settled = run.gates.clone();
            settled.unwrap_or_else(|| vec![settings.path("gates")])
        } else {
            self.gates.clone()
        };
        let loaded = gate::load(&paths, &LoadOptions { vars });
        let loaded = loaded.map_err(|found| errors.extend(found.0));
        match loaded {
            Ok(definitions) if errors.is_empty() => select(definitions, &selections),
            _ => Err(Errors(errors)),
        }
    }
}

fn select(definitions: Definitions, selections: &[Selection]) -> Result<Selected, Errors> {
    let ids = definitions.gates.iter().map(|gate| gate.id.clone());
    let defined = ids.collect();
    let total = definitions.gates.len();
    let mut gates = definitions.gates;
    for selection in selections {
        gates = selection.pick(gates)?;
    }
    let left_out = total - gates.len();
    let texts: Vec<&str> = selections.iter().map(Selection::as_str).collect();
    Ok(Selected {
        defined,
        gates,
        left_out: (!texts.is_empty()).then(|| (texts.join(", "), left_out)),
        readiness: definitions.readiness.filter(|_| left_out == 0),
        files: definitions.files,
    })
}

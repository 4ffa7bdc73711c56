//! The flags that say which gates a command is about.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Errors};
use crate::gate::readiness::Readiness;
use crate::gate::select::Selection;
use crate::gate::{self, DefinitionFile, Definitions, Gate, LoadOptions};

use super::settings::{RunSettings, Settings};

#[derive(Debug, Args)]
pub(super) struct DefinitionArguments {
    /// A file of gates or a folder of such files. May be repeated. [default: `gates` of the
    /// target or of postern.toml, else the folder gates]
    #[arg(long, value_name = "PATH")]
    gates: Vec<PathBuf>,
    /// A variable for the definitions, over [vars] of postern.toml and of the suites. May be
    /// repeated.
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
        let mut errors = Vec::new();
        let mut vars = settings.vars.clone();
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
        let selection = self.select.as_deref().map(Selection::parse).transpose();
        let selection = selection.map_err(|error| errors.push(error));
        let paths = if self.gates.is_empty() {
            let settled = run.gates.clone();
            settled.unwrap_or_else(|| vec![settings.path("gates")])
        } else {
            self.gates.clone()
        };
        let loaded = gate::load(&paths, &LoadOptions { vars });
        let loaded = loaded.map_err(|found| errors.extend(found.0));
        match (loaded, selection) {
            (Ok(definitions), Ok(selection)) if errors.is_empty() => {
                select(definitions, selection.as_ref())
            }
            _ => Err(Errors(errors)),
        }
    }
}

fn select(definitions: Definitions, selection: Option<&Selection>) -> Result<Selected, Errors> {
    let ids = definitions.gates.iter().map(|gate| gate.id.clone());
    let defined = ids.collect();
    let Some(selection) = selection else {
        return Ok(Selected {
            defined,
            gates: definitions.gates,
            left_out: None,
            readiness: definitions.readiness,
            files: definitions.files,
        });
    };
    let total = definitions.gates.len();
    let gates = selection.pick(definitions.gates)?;
    let left_out = total - gates.len();
    Ok(Selected {
        defined,
        gates,
        left_out: Some((selection.as_str().to_owned(), left_out)),
        readiness: definitions.readiness.filter(|_| left_out == 0),
        files: definitions.files,
    })
}

//! The flags that say which gates a command is about.

use std::path::PathBuf;

use clap::Args;

use crate::error::{Error, Errors};
use crate::gate::{self, Gate, LoadOptions};

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
}

impl DefinitionArguments {
    /// Loads the gates; on any mistake, all of them and no gate.
    pub(super) fn load(&self, settings: &Settings, run: &RunSettings) -> Result<Vec<Gate>, Errors> {
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
        let paths = if self.gates.is_empty() {
            let settled = run.gates.clone();
            settled.unwrap_or_else(|| vec![settings.path("gates")])
        } else {
            self.gates.clone()
        };
        match gate::load(&paths, &LoadOptions { vars }) {
            Ok(definitions) if errors.is_empty() => Ok(definitions.gates),
            Ok(_) => Err(Errors(errors)),
            Err(found) => {
                errors.extend(found.0);
                Err(Errors(errors))
            }
        }
    }
}

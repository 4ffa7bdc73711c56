//! `postern lint`: what is wrong with the definitions, and what is suspicious.

use clap::Args;

use crate::error::Errors;
use crate::gate::lint;
use crate::gate::threshold::rows_of;
use crate::pg::mask;

use super::definitions::DefinitionArguments;
use super::settings::Settings;

/// What stands below the help of `postern lint`.
const HELP: &str = "\
Every mistake that `check` would refuse is told, and beyond that what is legal but suspicious: a gate without
`why`, two gates that ask the same, an empty table that passes, a level that always holds, a variable that
nothing uses, a suite without a gate.

Exit codes:
  0  nothing is wrong with the definitions
  1  something is suspicious, and --strict is given
  2  the command line, postern.toml or a definition is wrong";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Arguments {
    #[command(flatten)]
    definitions: DefinitionArguments,
    /// Makes the exit code 1 when something is suspicious.
    #[arg(long)]
    strict: bool,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    let selected = arguments.definitions.load(settings, &settings.run)?;
    let files = match &selected.left_out {
        Some(_) => lint::of(&selected.gates, selected.files),
        None => selected.files,
    };
    let warnings = lint::lint(&selected.gates, &files);
    let is_coloured = super::is_coloured(&std::io::stdout());
    let mut out = String::new();
    for warning in &warnings {
        let warning = warning.clone().masked(mask);
        out.push_str(&warning.render_warning(is_coloured));
        out.push_str("\n\n");
    }
    let said = match warnings.len() {
        0 => "nothing to say".to_owned(),
        n => rows_of(n as u64, "warning"),
    };
    out.push_str(&format!(
        "{} in {}, {said}\n",
        rows_of(selected.gates.len() as u64, "gate"),
        rows_of(files.len() as u64, "file"),
    ));
    super::print(&out)?;
    Ok(u8::from(arguments.strict && !warnings.is_empty()))
}

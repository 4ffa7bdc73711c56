//! `postern list`: what there is.

use clap::Args;

use crate::error::Errors;
use crate::gate::schema;

use super::definitions::DefinitionArguments;
use super::settings::Settings;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    definitions: DefinitionArguments,
    /// Prints the reference of every kind, in Markdown.
    #[arg(long, conflicts_with = "schema")]
    reference: bool,
    /// Prints the JSON schema of gate files, for editors.
    #[arg(long)]
    schema: bool,
}

pub(super) fn run(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    let text = if arguments.reference {
        schema::reference()
    } else if arguments.schema {
        format!("{:#}\n", schema::gate_file())
    } else {
        let gates = arguments.definitions.load(settings, &settings.run)?.gates;
        gates
            .iter()
            .map(|gate| {
                format!(
                    "{}  {}  {}  {}\n",
                    gate.id, gate.kind, gate.severity, gate.place
                )
            })
            .collect()
    };
    super::print(&text)?;
    Ok(0)
}

//! `postern list`: what there is.

use std::path::PathBuf;

use clap::Args;

use crate::error::Errors;
use crate::gate::{LoadOptions, load, schema};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A file of gates or a folder of such files. May be repeated.
    #[arg(long, value_name = "PATH", default_value = "gates")]
    gates: Vec<PathBuf>,
    /// Prints the reference of every kind, in Markdown.
    #[arg(long, conflicts_with = "schema")]
    reference: bool,
    /// Prints the JSON schema of gate files, for editors.
    #[arg(long)]
    schema: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<u8, Errors> {
    let text = if arguments.reference {
        schema::reference()
    } else if arguments.schema {
        format!("{:#}\n", schema::gate_file())
    } else {
        let gates = load(&arguments.gates, &LoadOptions::default())?.gates;
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

//! `postern explain`: what gates would ask, what that costs, and what it needs.

use clap::{Args, ValueEnum};

use crate::error::Errors;
use crate::gate::catalog::Side;
use crate::report::explain::{ExplainReport, json, terminal};
use crate::report::format::Look;
use crate::run;

use super::definitions::DefinitionArguments;
use super::settings::Settings;
use super::stop;
use super::target::{LimitArguments, OtherArguments, TargetArguments};

/// What stands below the help of `postern explain`.
const HELP: &str = "\
Runs nothing but EXPLAIN and questions to pg_catalog, in the read-only session of a check. Rows and costs
are the planner's; the bytes to read are the size of every relation that a plan scans. What a gate asks
only after an answer, such as content_parity of the parts that differ, is told in words (`then`), because its
statements depend on the answer. reports/explain.v1.schema.json is the schema of the JSON.

Exit codes:
  0  nothing stands in the way of any gate
  2  the command line, postern.toml or a definition is wrong; no database is named
  3  a gate could not be evaluated: a missing table or privilege, a database out of reach";

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub(super) struct Arguments {
    /// Only these gates, by id, in which * stands for any text.
    #[arg(value_name = "GATE")]
    names: Vec<String>,
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    others: OtherArguments,
    #[command(flatten)]
    definitions: DefinitionArguments,
    #[command(flatten)]
    limits: LimitArguments,
    /// How the explanation is written.
    #[arg(long, value_enum, default_value_t = Format::Terminal)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// What a person reads.
    Terminal,
    /// The same as a value, version 1.
    Json,
}

pub(super) async fn run(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    let mut errors = Vec::new();
    let named = arguments.target.named(settings).and_then(|named| {
        named.ok_or_else(|| {
            TargetArguments::unnamed(settings)
                .note("what a gate asks depends on the columns, keys and types of the database")
        })
    });
    let main = named.map_err(|error| errors.push(error));
    let settled = main.as_ref().map_or(&settings.run, |(_, settled)| settled);
    let selected = arguments
        .definitions
        .load_named(settings, settled, &arguments.names)
        .map_err(|found| errors.extend(found.0));
    let gates = selected
        .as_ref()
        .map_or(&[][..], |selected| &selected.gates);
    let mut targets = arguments.others.choose(settings, gates, &mut errors);
    let (Ok((address, settled)), Ok(selected), true) = (main, selected, errors.is_empty()) else {
        return Err(Errors(errors));
    };
    targets.insert(Side::Main, address.clone());
    let options = run::Options {
        limits: arguments.limits.limits(&settled),
        ..run::Options::default()
    };
    let mut explain = std::pin::pin!(run::explain(&selected.gates, &targets, &options));
    let explanation = tokio::select! {
        explanation = &mut explain => explanation,
        () = stop::asked() => {
            options.interrupt.ask();
            // The sessions end on the server, too; who asks twice does not wait for that.
            tokio::select! {
                _ = &mut explain => {}
                () = stop::asked() => {}
            }
            return Err(stop::error("nothing was explained").into());
        }
    };
    let report = ExplainReport::new(&selected.gates, explanation, &address);
    let text = match arguments.format {
        Format::Json => json(&report),
        Format::Terminal => {
            let look = Look {
                is_verbose: false,
                is_coloured: super::is_coloured(&std::io::stdout()),
            };
            terminal::render(&report, look)
        }
    };
    super::print(&text)?;
    Ok(report.summary.exit_code)
}

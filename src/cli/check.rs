//! `postern check`: runs gates against a target.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::error::{Error, Errors};
use crate::gate::catalog::Side;
use crate::gate::fields::Age;
use crate::gate::size::Size;
use crate::gate::{EXAMPLES_MAX, Proof};
use crate::report::format::{Format, Look};
use crate::report::{FailOn, Report};
use crate::run;

use super::baseline::BaselineArguments;
use super::definitions::DefinitionArguments;
use super::settings::Settings;
use super::stop;
use super::target::{LimitArguments, OtherArguments, TargetArguments};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    others: OtherArguments,
    #[command(flatten)]
    definitions: DefinitionArguments,
    #[command(flatten)]
    baseline: BaselineArguments,
    /// How the report is written, with =FILE into a file; may be repeated: terminal, json (version 1),
    /// junit, markdown (for a comment or a summary page), github (annotations of a workflow run),
    /// sarif (for code scanning), openmetrics (for Prometheus).
    #[arg(long, value_name = "FORMAT[=FILE]", default_value = "terminal")]
    format: Vec<String>,
    /// Which failures make the exit code 1. [default: block]
    #[arg(long, value_enum, env = "POSTERN_FAIL_ON")]
    fail_on: Option<FailOnArgument>,
    /// How long the whole run may take, such as 30m; gates that were not judged by then are errored.
    /// [default: as long as it takes]
    #[arg(long, value_name = "TIME", env = "POSTERN_TIMEOUT", value_parser = Age::parse)]
    timeout: Option<Age>,
    #[command(flatten)]
    limits: LimitArguments,
    /// How many offending rows are named at the most, where a gate does not say.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(..=i64::from(EXAMPLES_MAX)))]
    examples: u32,
    /// Shows values of offending rows beside their keys: of the columns that a gate's `show` names, else
    /// of those that it looks at. What [mask] of postern.toml or a comment `postern:mask` masks is not
    /// read; without this no value but a key is.
    #[arg(long)]
    values: bool,
    /// How many sessions on one database share the work, all on one snapshot. [default: 2]
    #[arg(long, value_name = "N", env = "POSTERN_CONNECTIONS", value_parser = clap::value_parser!(u8).range(1..=64))]
    connections: Option<u8>,
    /// How much one gate may read, such as 10GB: the size of every relation that its statements scan, of a foreign
    /// table as its last ANALYZE found it. One that would read more, or a foreign table that was never analyzed, is
    /// errored and not run; where only naming its offending rows would be more, they are not named.
    /// [default: as much as it takes]
    #[arg(long, value_name = "SIZE", env = "POSTERN_MAX_SCAN", value_parser = Size::parse)]
    max_scan: Option<Size>,
    /// How often the run starts over on a new snapshot when a hot standby takes its snapshot back or a connection is
    /// lost. [default: 3]
    #[arg(long, value_name = "N", env = "POSTERN_RETRIES")]
    retries: Option<u32>,
    /// Looks at the rows even where NOT NULL or a unique index proves a gate.
    #[arg(long, env = "POSTERN_SCAN", conflicts_with = "trust_constraints")]
    scan: bool,
    /// Takes the word of valid foreign keys, too; one that was loaded with triggers off is valid and broken.
    #[arg(long, env = "POSTERN_TRUST_CONSTRAINTS")]
    trust_constraints: bool,
    /// Which blocks are looked at by gates with `sample`: the same again with the same number, as long as
    /// rows stay where they are. [default: 1]
    #[arg(long, value_name = "N", env = "POSTERN_SEED")]
    seed: Option<u32>,
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

pub(super) async fn run(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    let mut errors = Vec::new();
    let mut keep = |error: Error| errors.push(error);
    let outputs: Vec<Output> = arguments
        .format
        .iter()
        .filter_map(|text| output(text).map_err(&mut keep).ok())
        .collect();
    let main = arguments.target.choose(settings).map_err(&mut keep);
    let settled = main.as_ref().map_or(&settings.run, |(_, settled)| settled);
    let selected = arguments
        .definitions
        .load(settings, settled)
        .map_err(|found| errors.extend(found.0));
    let accepted = arguments
        .baseline
        .load(settings, settled)
        .and_then(|accepted| match &selected {
            Ok(selected) => {
                let checked = arguments.baseline.check(&accepted, &selected.defined);
                checked.map(|()| accepted)
            }
            Err(()) => Ok(accepted),
        })
        .map_err(|found| errors.extend(found.0));
    let gates = selected
        .as_ref()
        .map_or(&[][..], |selected| &selected.gates);
    let others = arguments.others.choose(settings, gates, &mut errors);
    let (Ok((address, settled)), Ok(selected), Ok(accepted), true) =
        (main, selected, accepted, errors.is_empty())
    else {
        return Err(Errors(errors));
    };
    let mut targets = others;
    targets.insert(Side::Main, address.clone());
    let options = run::Options {
        limits: arguments.limits.limits(&settled),
        examples: arguments.examples,
        values: arguments.values,
        masked: settings.masked.clone(),
        proof: match (arguments.scan, arguments.trust_constraints) {
            (true, _) => Proof::Scan,
            (false, false) => Proof::Enforced,
            (false, true) => Proof::Declared,
        },
        seed: arguments.seed.or(settled.seed).unwrap_or(run::SEED),
        retries: (arguments.retries.or(settled.retries)).unwrap_or(run::RETRIES),
        max_scan: arguments.max_scan.or(settled.max_scan),
        connections: (arguments.connections.or(settled.connections))
            .map_or(run::CONNECTIONS, usize::from),
        timeout: arguments
            .timeout
            .or(settled.timeout)
            .map(|age| Duration::from_secs_f64(age.seconds())),
        ..run::Options::default()
    };
    let mut check = std::pin::pin!(run::check(&selected.gates, &targets, &options));
    let findings = tokio::select! {
        findings = &mut check => findings,
        () = stop::asked() => {
            options.interrupt.ask();
            // The sessions end on the server, too; who asks twice does not wait for that.
            tokio::select! {
                _ = &mut check => {}
                () = stop::asked() => {}
            }
            return Err(stop::error("nothing was decided").into());
        }
    };
    for note in &findings.notes {
        super::remark(note);
    }
    let fail_on = match arguments.fail_on {
        Some(FailOnArgument::Block) => FailOn::Block,
        Some(FailOnArgument::Warn) => FailOn::Warn,
        None => settled.fail_on.unwrap_or_default(),
    };
    let report = Report::new(&selected.gates, findings, &address, fail_on);
    let baseline = arguments.baseline.updated(accepted, &report)?;
    let mut report = report
        .accepting(&baseline, &address, fail_on)
        .judged(selected.readiness.as_ref());
    if let Some((selection, left_out)) = selected.left_out {
        report.selection = Some(selection);
        report.summary.left_out = left_out;
    }
    for output in &outputs {
        let look = Look {
            is_verbose: arguments.verbose,
            is_coloured: output.file.is_none() && super::is_coloured(&std::io::stdout()),
        };
        let text = output.format.render(&report, look);
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
    let (name, file) = match text.split_once('=') {
        Some((name, file)) => (name, Some(PathBuf::from(file))),
        None => (text, None),
    };
    Ok(Output {
        format: name.parse()?,
        file,
    })
}

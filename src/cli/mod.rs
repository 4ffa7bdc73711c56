//! The command line: one verb, one file.

mod audit;
mod baseline;
mod check;
#[cfg(unix)]
mod db;
mod definitions;
mod explain;
mod lint;
mod list;
mod record;
mod rehearse;
mod replay;
mod settings;
mod stop;
mod target;
mod watch;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::error::Errors;
use crate::pg::{EngineChoice, mask};

use settings::Settings;

/// Decides whether data may pass: data-quality gates for PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "postern",
    version,
    after_help = "Exit codes: 0 passed, 1 a blocking gate failed, 2 usage or definition error, 3 something could not be checked, 130 interrupted.",
    after_long_help = AFTER_HELP
)]
struct Arguments {
    /// The settings of the project. [default: postern.toml here or in the nearest parent folder]
    #[arg(long, global = true, env = "POSTERN_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes:
  0  every gate passed, warned or was skipped
  1  a blocking gate failed; the list of failures is complete
  2  the command line, postern.toml or a definition is wrong; nothing was run
  3  something could not be checked; outranks 1
  130  stopped by Ctrl-C or SIGTERM; nothing was decided, and nothing is left behind

Settings: a flag outranks the environment, the environment outranks postern.toml, and postern.toml
outranks the defaults. The file is found in the working directory or the nearest parent; paths in
it count from its folder.

  default_target    = \"staging\"        # of check; a single target needs none
  gates             = [\"gates\"]
  fail_on           = \"block\"          # or \"warn\"; POSTERN_FAIL_ON
  engine            = \"auto\"           # of throwaway servers; POSTERN_ENGINE
  timeout           = \"1h\"             # of a whole check; POSTERN_TIMEOUT
  statement_timeout = \"5m\"             # POSTERN_STATEMENT_TIMEOUT
  lock_timeout      = \"5s\"             # POSTERN_LOCK_TIMEOUT
  connections       = 2                # sessions on one database; POSTERN_CONNECTIONS
  max_scan          = \"10GB\"           # what one gate may read; POSTERN_MAX_SCAN
  retries           = 3                # how often a run starts over; POSTERN_RETRIES
  seed              = 1                # which blocks a sample takes; POSTERN_SEED
  baseline          = \"postern.baseline.toml\"  # failures accepted for now; POSTERN_BASELINE

  [scenario]
  default = \"consolidation\"            # POSTERN_SCENARIO

  [vars]
  schema = \"curated\"                   # ${schema} in definitions; POSTERN_VAR_schema, --var

  [mask]                               # values that stay in the database; so do those of a column
  columns = [\"*.email\", \"hr.people.*\"] # in whose comment the word postern:mask stands

  [target.staging]                     # check --target staging
  url_env = \"STAGING_URL\"              # or url = \"postgres://…\"
  gates   = [\"gates/staging\"]          # also fail_on, baseline and all from timeout to seed

DATABASE_URL outranks a target that no flag names. Gates may compare with any target by its name.
A password in postern.toml is shown nowhere.";

/// Where a throwaway server comes from.
#[derive(Debug, Args)]
struct EngineArgument {
    /// Where the throwaway Postgres comes from: auto, local or docker. [default: `engine` of
    /// postern.toml, else auto]
    #[arg(long, value_name = "ENGINE", env = "POSTERN_ENGINE")]
    engine: Option<String>,
}

impl EngineArgument {
    fn choose(&self, settings: &Settings) -> crate::Result<EngineChoice> {
        match &self.engine {
            Some(word) => word.parse(),
            None => Ok(settings.engine.unwrap_or_default()),
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Shows what there is in a database and what is wrong with it: schemas, tables, keys, duplicates.
    Audit(audit::Arguments),
    /// Runs gates against a target database.
    Check(check::Arguments),
    /// Gives a command a fresh, migrated database, then removes it.
    #[cfg(unix)]
    Db(db::Arguments),
    /// Shows what gates would ask, the plans and privileges, without asking it.
    Explain(explain::Arguments),
    /// Says what is wrong with the definitions, and what is suspicious; needs no database.
    Lint(lint::Arguments),
    /// Lists the gates, the reference of their kinds, or the JSON schema of gate files.
    List(list::Arguments),
    /// Writes the results of a check into a table, over a connection of its own.
    Record(record::Arguments),
    /// Rehearses a scenario on a throwaway Postgres: gates, migrations up, down, up, gates, workload.
    Rehearse(rehearse::Arguments),
    /// Proves migrations in a throwaway database: up, down, up again.
    Replay(replay::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(
                &crate::Error::new(crate::ErrorKind::Io, format!("could not start: {error}"))
                    .into(),
            );
            return ExitCode::from(3);
        }
    };
    let result = runtime.block_on(async {
        let settings = Settings::find(arguments.config.as_deref())?;
        match arguments.command {
            Command::Audit(arguments) => audit::run(&arguments, &settings).await,
            Command::Check(arguments) => check::run(&arguments, &settings).await,
            #[cfg(unix)]
            Command::Db(arguments) => db::run(&arguments, &settings).await,
            Command::Explain(arguments) => explain::run(&arguments, &settings).await,
            Command::Lint(arguments) => lint::run(&arguments, &settings),
            Command::List(arguments) => list::run(&arguments, &settings),
            Command::Record(arguments) => record::run(&arguments).await,
            Command::Rehearse(arguments) => rehearse::run(&arguments, &settings).await,
            Command::Replay(arguments) => replay::run(&arguments, &settings).await,
        }
    });
    match result {
        Ok(code) => ExitCode::from(code),
        Err(errors) => {
            complain(&errors);
            ExitCode::from(errors.exit_code())
        }
    }
}

/// Says what is wrong with the command line, or prints the help that was asked for.
///
/// clap quotes the argument that it does not understand: a URL without its flag, password and all.
fn refuse(error: &clap::Error) -> ExitCode {
    let text = error.render();
    let to_text = |is_coloured: bool| match is_coloured {
        true => text.ansi().to_string(),
        false => text.to_string(),
    };
    // As below, and with `print`: nothing is left to tell it to when the stream is gone.
    if error.use_stderr() {
        let text = mask(&to_text(is_coloured(&std::io::stderr())));
        let _ = std::io::stderr().lock().write_all(text.as_bytes());
    } else {
        let _ = print(&to_text(is_coloured(&std::io::stdout())));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

/// Writes errors to stderr, as a person reads them.
fn complain(errors: &Errors) {
    let colour = is_coloured(&std::io::stderr());
    let mut stderr = std::io::stderr().lock();
    for error in &errors.0 {
        // A wrong line of postern.toml is shown, and a password may stand on it.
        let error = error.clone().masked(mask);
        // Nothing is left to tell it to when stderr is gone.
        let _ = writeln!(stderr, "{}\n", error.render(colour));
    }
}

/// Whether to colour what goes there: only on a terminal, and not where `NO_COLOR` is set to anything.
fn is_coloured(stream: &impl IsTerminal) -> bool {
    let is_off = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_off && std::env::var_os("TERM").is_none_or(|term| term != "dumb")
}

/// Says something beside the result.
fn remark(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "note: {}", mask(text));
}

/// Writes to stdout; a reader that has gone (`| head`) is no error.
fn print(text: &str) -> crate::Result<()> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(crate::Error::io(
            "write",
            std::path::Path::new("stdout"),
            &error,
        )),
        _ => Ok(()),
    }
}

//! The command line: one verb, one file.

mod check;
#[cfg(unix)]
mod db;
mod list;
mod rehearse;
mod replay;
mod watch;

use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::error::Errors;

/// Decides whether data may pass: data-quality gates for PostgreSQL.
#[derive(Debug, Parser)]
#[command(
    name = "postern",
    version,
    after_help = "Exit codes: 0 passed, 1 a blocking gate failed, 2 usage or definition error, 3 something could not be checked."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs gates against a target database.
    Check(check::Arguments),
    /// Gives a command a fresh, migrated database, then removes it.
    #[cfg(unix)]
    Db(db::Arguments),
    /// Lists the gates, the reference of their kinds, or the JSON schema of gate files.
    List(list::Arguments),
    /// Rehearses a scenario on a throwaway Postgres: gates, migrations up, down, up, gates, workload.
    Rehearse(rehearse::Arguments),
    /// Proves migrations in a throwaway database: up, down, up again.
    Replay(replay::Arguments),
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => error.exit(),
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
        match arguments.command {
            Command::Check(arguments) => check::run(&arguments).await,
            #[cfg(unix)]
            Command::Db(arguments) => db::run(&arguments).await,
            Command::List(arguments) => list::run(&arguments),
            Command::Rehearse(arguments) => rehearse::run(&arguments).await,
            Command::Replay(arguments) => replay::run(&arguments).await,
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

/// Writes errors to stderr, as a person reads them.
fn complain(errors: &Errors) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut stderr = std::io::stderr().lock();
    for error in &errors.0 {
        // Nothing is left to tell it to when stderr is gone.
        let _ = writeln!(stderr, "{}\n", error.render(colour));
    }
}

/// Says something beside the result.
#[cfg(unix)]
fn remark(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "note: {text}");
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

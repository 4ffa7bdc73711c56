//! `postern replay`: only the migrations, up, down and up again, in a throwaway database.

use std::path::PathBuf;

use clap::Args;
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use crate::error::Errors;
use crate::migrate::{History, Replay, Replayer, Script};
use crate::pg::{Database, Server, ServerOptions};

use super::EngineArgument;
use super::settings::Settings;
use super::stop;
use super::watch::{Watched, direction};

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The folder of migrations: NNN_name.up.sql and NNN_name.down.sql.
    folder: PathBuf,
    /// A file of SQL that is there before the first migration: a legacy schema, its data. May be repeated.
    #[arg(long, value_name = "FILE")]
    before: Vec<PathBuf>,
    #[command(flatten)]
    engine: EngineArgument,
}

pub(super) async fn run(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    let engine = arguments.engine.choose(settings)?;
    let history = History::discover(&arguments.folder)?;
    let mut before = Vec::new();
    for file in &arguments.before {
        before.push(Script::read(file)?);
    }
    let options = ServerOptions {
        engine,
        ..ServerOptions::default()
    };
    // Asked to stop, the server is dropped with this future, and stops with it.
    tokio::select! {
        result = replay(&options, &history, &before) => result,
        () = stop::asked() => {
            Err(stop::error("nothing was proved").into())
        }
    }
}

async fn replay(
    options: &ServerOptions,
    history: &History,
    before: &[Script],
) -> Result<u8, Errors> {
    let server = Server::start(options).await?;
    let database = server.create_database("replay").await?;
    let proved = prove(&database, history, before).await;
    database.remove().await?;
    let described = server.describe().to_owned();
    server.stop().await?;
    let replay = proved?;
    super::print(&render(&replay, &described))?;
    match &replay.stopped {
        Some(error) => Err(error.clone().into()),
        None => Ok(u8::from(!replay.is_proven())),
    }
}

async fn prove(database: &Database, history: &History, before: &[Script]) -> crate::Result<Replay> {
    let mut connection = database.connect().await?;
    let mut progress = Watched::new();
    let mut replayer = Replayer::new(&mut connection, database.address(), &mut progress);
    for script in before {
        replayer.apply_script(script).await?;
    }
    replayer.prove(history).await
}

/// A row per step, then what is wrong, then one line that sums up.
fn render(replay: &Replay, server: &str) -> String {
    let mut table = Builder::default();
    for step in &replay.steps {
        let locks = step
            .locks
            .iter()
            .flatten()
            .filter(|lock| lock.is_preexisting);
        let strongest = locks.max_by_key(|lock| lock.mode);
        table.push_record([
            step.id.clone(),
            direction(step.pass).to_owned(),
            crate::gate::threshold::rows_of(step.statements as u64, "statement"),
            format!("{} ms", step.duration.as_millis()),
            strongest.map_or_else(String::new, |lock| {
                format!("{} on {}", lock.mode, lock.table)
            }),
        ]);
    }
    let mut table = table.build();
    table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
    let mut out = String::new();
    for line in table.to_string().lines() {
        out.push_str(line.trim_end());
        out.push('\n');
    }
    for finding in &replay.findings {
        out.push_str(&format!("\n{finding}\n"));
    }
    let verdict = if replay.is_proven() {
        "every down restores what was there before its up".to_owned()
    } else if replay.stopped.is_some() {
        "not proved: a migration could not be applied".to_owned()
    } else {
        crate::gate::threshold::rows_of(replay.findings.len() as u64, "finding")
    };
    out.push_str(&format!("\n{verdict}\non {server}\n"));
    out
}

//! `postern db`: a fresh, migrated database for any command.

use std::ffi::OsString;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use clap::{Args, Subcommand};
use tabled::builder::Builder;
use tabled::settings::{Padding, Style};

use crate::db::{Host, Migrations, TestDb, What};
use crate::error::{Error, Errors};
use crate::gate::threshold::rows_of;
use crate::pg::{Address, ServerOptions, sweep_containers};

use super::EngineArgument;
use super::settings::Settings;

/// Where migrations are if nothing is said.
const MIGRATIONS: &str = "migrations";

/// Variables of libpq that would lead a client to another server than [`Address::environment`].
const FOREIGN_VARIABLES: [&str; 7] = [
    "PGHOSTADDR",
    "PGOPTIONS",
    "PGPASSFILE",
    "PGSERVICE",
    "PGSSLMODE",
    "PGREQUIREAUTH",
    "PGTARGETSESSIONATTRS",
];

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "The command finds its database in DATABASE_URL and in PGHOST, PGPORT, PGUSER, PGDATABASE and PGPASSWORD; its exit code is passed on.\n\nExamples:\n  postern db -- pytest\n  postern db --tcp -- mvn test\n  postern db --name dev\n  postern db --name dev -- psql"
)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Option<Action>,
    /// The folder of migrations: NNN_name.up.sql or NNN_name.sql; `migrations` if there is such a
    /// folder.
    #[arg(long, value_name = "FOLDER")]
    migrations: Option<PathBuf>,
    /// A file of SQL that is run after the migrations. May be repeated.
    #[arg(long = "seed", value_name = "FILE")]
    seeds: Vec<PathBuf>,
    /// Keeps the database under this name, for this and later commands, until it is dropped or
    /// the machine restarts. Without a command, its URL is printed.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Gives an address on 127.0.0.1 with a password, for clients that know no sockets of the file
    /// system, such as JDBC. Starts a server of its own.
    #[arg(long, conflicts_with = "name")]
    tcp: bool,
    #[command(flatten)]
    engine: EngineArgument,
    /// What to run, after `--`.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Shows the databases of this user: named, in use, kept after a failure, templates.
    List,
    /// Removes what nobody uses, what failed tests kept, and containers that killed processes left.
    Sweep {
        /// Named databases too.
        #[arg(long)]
        all: bool,
    },
    /// Removes a named database.
    Drop {
        /// The name it was given by `--name`.
        name: String,
    },
}

pub(super) async fn run(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    match &arguments.action {
        None => give(arguments, settings).await,
        Some(Action::List) => list().await,
        Some(Action::Sweep { all }) => sweep(*all).await,
        Some(Action::Drop { name }) => drop_named(name).await,
    }
}

async fn give(arguments: &Arguments, settings: &Settings) -> Result<u8, Errors> {
    let engine = arguments.engine.choose(settings)?;
    let mut builder = TestDb::builder(migrations(arguments)?)
        .label("db")
        .only_one()
        .server(ServerOptions {
            engine,
            ..ServerOptions::default()
        });
    for seed in &arguments.seeds {
        builder = builder.seed_file(seed);
    }
    if arguments.tcp {
        builder = builder.tcp();
    }
    match (&arguments.name, arguments.command.as_slice()) {
        (None, []) => Err(Error::usage("there is nothing to give a database to")
            .help("write a command after `--`, as in `postern db -- pytest`, or keep one at hand with `--name dev`")
            .into()),
        (None, command) => {
            let begun = tokio::select! {
                built = builder.build() => built,
                _ = tokio::signal::ctrl_c() => Err(interrupted()),
            };
            let db = begun?;
            let ended = execute(command, db.address()).await;
            // Before the exit code is told: nothing stays of what it was given.
            drop(db);
            Ok(ended?)
        }
        (Some(name), command) => {
            let named = builder.build_named(check(name)?).await?;
            if named.is_from_another_recipe {
                super::remark(&format!(
                    "`{name}` was made from other migrations or seeds; `postern db drop {name}` makes way for a new one"
                ));
            }
            if command.is_empty() {
                super::print(&format!("{}\n", named.address.to_secret_url()))?;
                return Ok(0);
            }
            Ok(execute(command, &named.address).await?)
        }
    }
}

fn interrupted() -> Error {
    Error::new(
        crate::ErrorKind::Interrupted,
        "interrupted before the command was run",
    )
}

fn migrations(arguments: &Arguments) -> Result<Migrations, Error> {
    match &arguments.migrations {
        Some(folder) => Ok(Migrations::folder(folder)),
        None if Path::new(MIGRATIONS).is_dir() => Ok(Migrations::folder(MIGRATIONS)),
        None => Ok(Migrations::none()),
    }
}

/// A name that is the same in a database's name.
fn check(name: &str) -> Result<&str, Error> {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    if !name.is_empty() && name.len() <= 30 && name.chars().all(is_plain) {
        return Ok(name);
    }
    Err(
        Error::usage(format!("`{name}` cannot be a database's name"))
            .help("use at most 30 small letters, digits and `_`"),
    )
}

/// Runs the command to its end and tells its exit code; signals go to it.
async fn execute(command: &[OsString], address: &Address) -> Result<u8, Error> {
    let (program, arguments) = command
        .split_first()
        .expect("a command without words was refused before");
    let mut child = tokio::process::Command::new(program);
    child.args(arguments);
    for variable in FOREIGN_VARIABLES {
        child.env_remove(variable);
    }
    for (variable, value) in address.environment() {
        child.env(variable, value);
    }
    let mut signals = signals::Signals::listen()?;
    let mut child = child.spawn().map_err(|error| {
        Error::usage(format!(
            "could not run `{}`: {error}",
            Path::new(program).display()
        ))
    })?;
    loop {
        tokio::select! {
            status = child.wait() => return ended(&status),
            signal = signals.next() => signals::pass_on(signal, child.id()),
        }
    }
}

/// The exit code; 128 and the signal's number where a signal ended it, as shells do.
fn ended(status: &std::io::Result<ExitStatus>) -> Result<u8, Error> {
    let status = status.as_ref().map_err(|error| {
        Error::new(
            crate::ErrorKind::Io,
            format!("could not wait for the command: {error}"),
        )
    })?;
    let signal = status.signal().map(|signal| 128 + signal);
    let code = status.code().or(signal).unwrap_or(3);
    Ok(u8::try_from(code & 0xff).unwrap_or(3))
}

mod signals {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::{Pid, getpgrp, tcgetpgrp};
    use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

    use crate::error::{Error, ErrorKind};

    /// Listened to for as long as the command runs, so that none ends this process before it.
    pub(super) struct Signals {
        interrupt: Stream,
        quit: Stream,
        terminate: Stream,
        hangup: Stream,
        first: Stream,
        second: Stream,
    }

    impl Signals {
        pub(super) fn listen() -> Result<Self, Error> {
            let listen = |kind| {
                signal(kind).map_err(|error| {
                    Error::new(
                        ErrorKind::Io,
                        format!("could not listen to signals: {error}"),
                    )
                })
            };
            Ok(Self {
                interrupt: listen(SignalKind::interrupt())?,
                quit: listen(SignalKind::quit())?,
                terminate: listen(SignalKind::terminate())?,
                hangup: listen(SignalKind::hangup())?,
                first: listen(SignalKind::user_defined1())?,
                second: listen(SignalKind::user_defined2())?,
            })
        }

        pub(super) async fn next(&mut self) -> Signal {
            tokio::select! {
                _ = self.interrupt.recv() => Signal::SIGINT,
                _ = self.quit.recv() => Signal::SIGQUIT,
                _ = self.terminate.recv() => Signal::SIGTERM,
                _ = self.hangup.recv() => Signal::SIGHUP,
                _ = self.first.recv() => Signal::SIGUSR1,
                _ = self.second.recv() => Signal::SIGUSR2,
            }
        }
    }

    /// Sends a signal on, unless a terminal sent it to the command already.
    pub(super) fn pass_on(signal: Signal, child: Option<u32>) {
        if matches!(signal, Signal::SIGINT | Signal::SIGQUIT) && is_in_foreground() {
            return;
        }
        if let Some(pid) = child.and_then(|pid| i32::try_from(pid).ok()) {
            // It may have ended at this moment.
            let _ = kill(Pid::from_raw(pid), signal);
        }
    }

    /// Whether a terminal's Ctrl-C goes to this process's group, which is the command's too.
    fn is_in_foreground() -> bool {
        std::fs::File::open("/dev/tty")
            .ok()
            .and_then(|terminal| tcgetpgrp(&terminal).ok())
            .is_some_and(|group| group == getpgrp())
    }
}

fn hosts() -> Result<Vec<Host>, Error> {
    Host::all(&ServerOptions::default())
}

async fn list() -> Result<u8, Errors> {
    let mut out = String::new();
    for host in hosts()? {
        let mut table = Builder::default();
        for listed in host.list().await? {
            let (what, is_for_people) = match &listed.what {
                What::Named(name) => (name.clone(), true),
                What::InUse => ("in use".to_owned(), true),
                What::Kept => ("kept after a failure".to_owned(), true),
                What::Template => ("template".to_owned(), false),
                What::Warm => ("copied ahead".to_owned(), false),
                What::Abandoned => ("abandoned".to_owned(), false),
            };
            table.push_record([
                what,
                format!("{:.1} MB", listed.bytes as f64 / 1e6),
                rows_of(u64::try_from(listed.sessions).unwrap_or(0), "session"),
                match is_for_people {
                    true => listed.address.to_secret_url(),
                    false => listed.address.database().to_owned(),
                },
            ]);
        }
        let mut table = table.build();
        table.with(Style::empty()).with(Padding::new(0, 2, 0, 0));
        out.push_str(&format!("{}\n", host.folder().display()));
        for line in table
            .to_string()
            .lines()
            .filter(|line| !line.trim().is_empty())
        {
            out.push_str(&format!("  {}\n", line.trim_end()));
        }
    }
    if out.is_empty() {
        out.push_str("no server of this user runs\n");
    }
    super::print(&out)?;
    Ok(0)
}

async fn sweep(all: bool) -> Result<u8, Errors> {
    let mut swept = 0;
    for host in hosts()? {
        swept += host.sweep_all().await?;
        for listed in host.list().await? {
            if let (true, What::Named(name)) = (all, &listed.what) {
                swept += usize::from(host.drop_named(name).await?);
            }
        }
    }
    let containers = sweep_containers().await as u64;
    let databases = rows_of(swept as u64, "database");
    super::print(&match containers {
        0 => format!("removed {databases}\n"),
        n => format!("removed {databases} and {}\n", rows_of(n, "container")),
    })?;
    Ok(0)
}

async fn drop_named(name: &str) -> Result<u8, Errors> {
    check(name)?;
    let mut is_dropped = false;
    for host in hosts()? {
        is_dropped |= host.drop_named(name).await?;
    }
    if is_dropped {
        return Ok(0);
    }
    Err(Error::usage(format!("there is no database named `{name}`"))
        .help("`postern db list` shows those there are")
        .into())
}

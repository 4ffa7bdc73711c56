//! The machine's own Postgres, in a private folder over a private socket.
//!
//! A small shell process supervises it: the pipe to its standard input is the life line. When
//! this process ends, in whatever way, the pipe closes, and the supervisor stops Postgres and
//! removes the folder. Knows nothing of databases.

mod binaries;
mod folder;

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use self::binaries::Binaries;
use self::folder::{Account, Folder};
use super::{Engine, EngineChoice, Pending, ServerOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::Address;
use crate::pg::throwaway;

const SUPERVISOR: &str = include_str!("supervisor.sh");

/// Until the first answer; making the cluster on a slow disk included.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// Postgres bounds its own quick shutdown at five seconds.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);

/// A private server that loses everything in a crash, and is faster for it.
///
/// Autovacuum is off: statistics that appear halfway through a run would make plans and times
/// depend on the clock, and nothing here lives long enough to need it. Whoever needs statistics
/// says `ANALYZE`. Everything that is not named here is Postgres' own default, so that plans
/// and timings are those of a plain server.
const SETTINGS: &[(&str, &str)] = &[
    ("listen_addresses", ""),
    ("unix_socket_permissions", "0700"),
    ("fsync", "off"),
    ("synchronous_commit", "off"),
    ("full_page_writes", "off"),
    ("autovacuum", "off"),
    ("max_connections", "100"),
    // The log shares the RAM disk with the data.
    ("max_wal_size", "128MB"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("cluster_name", "postern"),
];

pub(super) struct Local {
    supervisor: Supervisor,
    maintenance: Address,
    summary: String,
}

pub(super) async fn start(options: &ServerOptions) -> Result<Local> {
    let bin_dir = options.bin_dir.clone();
    let settings = options.settings.clone();
    let (supervisor, mut summary) = tokio::task::spawn_blocking(move || {
        let binaries = Binaries::find(bin_dir.as_deref())?;
        let account = Account::for_postgres()?;
        binaries.check_runs_as(&account)?;
        folder::sweep(&account);
        let folder = Folder::create(&account)?;
        let summary = format!(
            "local PostgreSQL {} from {}, data in {}",
            binaries.version,
            binaries.folder.display(),
            folder.place,
        );
        let supervisor = Supervisor::start(&binaries, folder, &account, &settings)?;
        let summary = match &account.name {
            Some(name) => format!("{summary}, run as `{name}` because Postgres refuses root"),
            None => summary,
        };
        Ok::<_, Error>((supervisor, summary))
    })
    .await
    .map_err(|error| Error::new(ErrorKind::Engine, format!("starting Postgres: {error}")))??;
    let socket = PgConnectOptions::new_without_pgpass()
        .socket(&supervisor.folder.sockets)
        .port(5432)
        .username("postgres")
        .database("postgres")
        .ssl_mode(PgSslMode::Disable);
    let maintenance = Address::from_options(socket);
    let mut local = Local {
        supervisor,
        maintenance,
        summary: String::new(),
    };
    local.wait_until_ready().await?;
    std::mem::swap(&mut local.summary, &mut summary);
    Ok(local)
}

impl Local {
    /// Ready is a real session, not a line in a log.
    async fn wait_until_ready(&mut self) -> Result<()> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            // Looking at the socket first spares a failed connection per round.
            let last = if self.supervisor.folder.has_socket() {
                match throwaway::connect(&self.maintenance).await {
                    Ok(session) => {
                        throwaway::close(session).await;
                        return Ok(());
                    }
                    Err(error) => error.one_line(),
                }
            } else {
                "it has not opened its socket".to_owned()
            };
            if let Some(how) = self.supervisor.has_ended() {
                return Err(self.supervisor.explain(&format!("Postgres ended {how}")));
            }
            if begun.elapsed() > START_TIMEOUT {
                let seconds = START_TIMEOUT.as_secs();
                return Err(self.supervisor.explain(&format!(
                    "Postgres does not answer after {seconds} s: {last}"
                )));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(Duration::from_millis(20));
        }
    }
}

impl Engine for Local {
    fn choice(&self) -> EngineChoice {
        EngineChoice::Local
    }

    fn summary(&self) -> String {
        self.summary.clone()
    }

    fn maintenance(&self) -> &Address {
        &self.maintenance
    }

    fn stop<'a>(&'a mut self, _databases: &'a [String]) -> Pending<'a, ()> {
        // The databases go with the folder. A few milliseconds of blocking are cheaper than
        // moving the child to a thread and back.
        Box::pin(async { self.supervisor.close() })
    }
}

/// The shell process that owns Postgres and the folder.
struct Supervisor {
    child: Child,
    folder: Folder,
}

impl Supervisor {
    fn start(
        binaries: &Binaries,
        folder: Folder,
        account: &Account,
        settings: &[(String, String)],
    ) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SUPERVISOR, "postern-supervisor"])
            .arg(binaries.initdb())
            .arg(binaries.postgres())
            .arg(&folder.path)
            .arg(&folder.sockets)
            .arg("-k")
            .arg(&folder.sockets);
        let own = SETTINGS.iter().map(|&(name, value)| (name, value));
        // Shared memory that a killed server leaves goes with the folder, if that is in memory too.
        let memory = folder
            .is_in_memory
            .then_some(("dynamic_shared_memory_type", "mmap"));
        let asked = settings.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        for (name, value) in own.chain(memory).chain(asked) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        for (name, _) in std::env::vars_os() {
            // PGDATA, PGOPTIONS and their like are meant for another server.
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        command
            .env("LC_ALL", "C")
            .env("TZ", "UTC")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A terminal's Ctrl-C goes to the foreground group; this one must outlive it.
            .process_group(0);
        account.run(&mut command);
        match command.spawn() {
            Ok(child) => Ok(Self { child, folder }),
            Err(error) => {
                folder.remove();
                Err(
                    Error::new(ErrorKind::Engine, format!("could not run /bin/sh: {error}"))
                        .help("the `local` engine needs a POSIX shell"),
                )
            }
        }
    }

    /// How Postgres or its supervisor ended, if it has.
    fn has_ended(&mut self) -> Option<String> {
        if let Some(status) = self.folder.read("ended") {
            return Some(format!("with status {}", status.trim()));
        }
        match self.child.try_wait() {
            Ok(Some(status)) => Some(format!("with its supervisor: {status}")),
            _ => None,
        }
    }

    /// An error that holds what Postgres said last.
    fn explain(&self, sentence: &str) -> Error {
        let mut error = Error::new(ErrorKind::Engine, sentence);
        let log = self.folder.read("log").unwrap_or_default();
        if let Some(words) = super::last_words(&log) {
            error = error.note(words);
        }
        if log.contains("No space left on device") {
            return error.help(format!(
                "free some room in {} or point TMPDIR to another disk",
                self.folder.base().display()
            ));
        }
        error.help("check the server settings; `docker` and `url` are the other engines")
    }

    /// Closes the life line and waits until nothing is left. A second call does nothing.
    fn close(&mut self) -> Result<()> {
        drop(self.child.stdin.take());
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        while begun.elapsed() < STOP_TIMEOUT {
            match self.child.try_wait() {
                Ok(None) => {}
                _ if self.folder.path.exists() => {
                    self.folder.remove();
                    return Ok(());
                }
                _ => return Ok(()),
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Err(Error::new(
            ErrorKind::Engine,
            format!("Postgres in {} does not stop", self.folder.path.display()),
        )
        .help(format!(
            "its supervisor is process {}; it goes on trying",
            self.child.id()
        )))
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Nobody is left to hear of an error.
        let _ = self.close();
    }
}

/// A path as text, for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

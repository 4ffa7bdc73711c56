//! The machine's own Postgres, in a private folder over a private socket.
//!
//! A small shell process supervises it: the pipe to its standard input is the life line. When
//! this process ends, in whatever way, the pipe closes, and the supervisor stops Postgres and
//! removes the folder. Knows nothing of databases.

mod account;
mod binaries;
mod cluster;
mod folder;
mod place;
pub(crate) mod shared;
mod tcp;

use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgSslMode};

use self::account::Account;
use self::binaries::Binaries;
use self::cluster::Cluster;
use self::folder::Folder;
use self::place::Place;
pub(crate) use self::place::help_for_room;
use super::{Engine, EngineChoice, Pending, ServerOptions};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::Address;
use crate::pg::throwaway;

const SUPERVISOR: &str = include_str!("supervisor.sh");

/// Until the first answer.
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

/// What is known before a server is started.
#[derive(Debug)]
struct Ground {
    binaries: Binaries,
    account: Account,
    place: Place,
}

impl Ground {
    fn find(options: &ServerOptions) -> Result<Self> {
        let binaries = Binaries::find_again(options.bin_dir.as_deref())?;
        let account = Account::for_postgres()?;
        let place = Place::choose(options.data_dir.as_deref(), &account)?;
        Ok(Self {
            binaries,
            account,
            place,
        })
    }

    fn cluster(&self) -> Result<Cluster> {
        self.binaries.check_runs_as(&self.account)?;
        folder::sweep(&self.place, &self.account);
        Cluster::obtain(&self.binaries, &self.account, &self.place)
    }

    /// What runs and where, in one line.
    fn summary(&self) -> String {
        self.summary_in(&self.place)
    }

    fn summary_in(&self, place: &Place) -> String {
        let summary = format!(
            "local PostgreSQL {} from {}, data in {place}",
            self.binaries.version,
            self.binaries.folder.display(),
        );
        match &self.account.name {
            Some(name) => format!("{summary}, run as `{name}` because Postgres refuses root"),
            None => summary,
        }
    }
}

pub(super) struct Local {
    process: Process,
    maintenance: Address,
    summary: String,
}

pub(super) async fn start(options: &ServerOptions) -> Result<Local> {
    let options = options.clone();
    let (process, summary) = apart(move || {
        let ground = Ground::find(&options)?;
        let cluster = ground.cluster()?;
        let folder = Folder::create_in(&ground.place, &ground.account)?;
        let mut process = Process::spawn(&ground, folder, Stdio::piped(), None, &options.settings)?;
        let life_line = process.child.stdin.take();
        process.fill(&cluster, &ground.account, life_line)?;
        Ok((process, ground.summary()))
    })
    .await?;
    let maintenance = process.folder.address();
    let mut local = Local {
        process,
        maintenance,
        summary,
    };
    local.process.wait_until_ready(&local.maintenance).await?;
    Ok(local)
}

/// Runs work that blocks on a thread that may be blocked.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::new(
            ErrorKind::Engine,
            format!("starting Postgres: {error}"),
        )),
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
        Box::pin(async { self.process.close() })
    }
}

impl Folder {
    /// The server's own database.
    fn address(&self) -> Address {
        Address::from_options(
            PgConnectOptions::new_without_pgpass()
                .socket(&self.sockets)
                .port(5432)
                .username("postgres")
                .database("postgres")
                .ssl_mode(PgSslMode::Disable),
        )
    }
}

/// Makes a command run as Postgres' programs should: nothing from this process's surroundings.
fn prepare(command: &mut Command, account: &Account) {
    for (name, _) in std::env::vars_os() {
        // PGDATA, PGOPTIONS and their like are meant for another server.
        if name.to_string_lossy().starts_with("PG") {
            command.env_remove(name);
        }
    }
    command.env("LC_ALL", "C").env("TZ", "UTC").current_dir("/");
    account.run(command);
}

/// The shell process that owns Postgres and the folder.
struct Process {
    child: Child,
    folder: Folder,
    /// What ends the supervisor when all who hold such ends are gone.
    life_line: Option<Box<dyn Write + Send + Sync>>,
    /// Whether it serves others too, or will.
    is_shared: bool,
    /// Whether it goes on running without this process.
    is_left_alone: bool,
}

impl Process {
    /// Starts the supervisor. It removes the folder unless it is told that the data is in place.
    fn spawn(
        ground: &Ground,
        folder: Folder,
        life_line: Stdio,
        linger_s: Option<u64>,
        settings: &[(String, String)],
    ) -> Result<Self> {
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", SUPERVISOR, "postern-supervisor"])
            .arg(ground.binaries.postgres())
            .arg(&folder.path)
            .arg(&folder.sockets)
            .arg(linger_s.map_or_else(String::new, |seconds| seconds.to_string()))
            .arg("-k")
            .arg(listed(&folder.sockets));
        let own = SETTINGS.iter().map(|&(name, value)| (name, value));
        // Shared memory that a killed server leaves goes with the folder, if that is in memory too.
        let memory = ground
            .place
            .is_in_memory
            .then_some(("dynamic_shared_memory_type", "mmap"));
        let asked = settings.iter().map(|(n, v)| (n.as_str(), v.as_str()));
        for (name, value) in own.chain(memory).chain(asked) {
            command.arg("-c").arg(format!("{name}={value}"));
        }
        command
            .stdin(life_line)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // A terminal's Ctrl-C goes to the foreground group; this one must outlive it.
            .process_group(0);
        prepare(&mut command, &ground.account);
        match command.spawn() {
            Ok(child) => Ok(Self {
                child,
                folder,
                life_line: None,
                is_shared: linger_s.is_some(),
                is_left_alone: false,
            }),
            Err(error) => {
                folder.remove();
                Err(
                    Error::new(ErrorKind::Engine, format!("could not run /bin/sh: {error}"))
                        .help("the `local` engine needs a POSIX shell"),
                )
            }
        }
    }

    /// Copies the data, tells the supervisor as soon as Postgres can start, and goes on copying
    /// what it does not need for that.
    fn fill(
        &mut self,
        cluster: &Cluster,
        account: &Account,
        life_line: Option<impl Write + Send + Sync + 'static>,
    ) -> Result<()> {
        let data = self.folder.data();
        cluster.copy_base(&data, account)?;
        if let Some(mut life_line) = life_line {
            // When it has ended already, waiting for the first answer tells how.
            let _ = life_line.write_all(b"go\n");
            self.life_line = Some(Box::new(life_line));
        }
        cluster.copy_rest(&data, account)
    }

    /// Ready is a real session, not a line in a log.
    async fn wait_until_ready(&mut self, maintenance: &Address) -> Result<()> {
        let begun = Instant::now();
        let mut pause = Duration::from_millis(1);
        loop {
            // Looking at the socket first spares a failed connection per round.
            let last = if self.folder.has_socket() {
                match throwaway::connect(maintenance).await {
                    Ok(session) => {
                        throwaway::close(session).await;
                        return Ok(());
                    }
                    Err(error) => error.one_line(),
                }
            } else {
                "it has not opened its socket".to_owned()
            };
            if let Some(how) = self.has_ended() {
                return Err(self.explain(&format!("Postgres ended {how}")));
            }
            if begun.elapsed() > START_TIMEOUT {
                let seconds = START_TIMEOUT.as_secs();
                return Err(self.explain(&format!(
                    "Postgres does not answer after {seconds} s: {last}"
                )));
            }
            tokio::time::sleep(pause).await;
            if begun.elapsed() > Duration::from_millis(100) {
                pause = (pause * 3 / 2).min(Duration::from_millis(20));
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
            return error.help(help_for_room(self.folder.base()));
        }
        error.help("check the server settings; `docker` and `url` are the other engines")
    }

    /// Closes the life line and waits until nothing is left. A second call does nothing.
    fn close(&mut self) -> Result<()> {
        self.life_line = None;
        drop(self.child.stdin.take());
        if self.is_shared
            && let Ok(pid) = i32::try_from(self.child.id())
            && matches!(self.child.try_wait(), Ok(None))
        {
            // It would wait for others.
            let supervisor = nix::unistd::Pid::from_raw(pid);
            let _ = nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGTERM);
        }
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

impl Drop for Process {
    fn drop(&mut self) {
        if !self.is_left_alone {
            // Nobody is left to hear of an error.
            let _ = self.close();
        }
    }
}

/// A folder as `unix_socket_directories` reads it: a list, in which quotes keep a comma.
fn listed(folder: &Path) -> std::ffi::OsString {
    let mut text = std::ffi::OsString::from("\"");
    match folder.to_str() {
        Some(plain) => text.push(plain.replace('"', "\"\"")),
        None => text.push(folder),
    }
    text.push("\"");
    text
}

/// A path as text, for messages.
fn shown(path: &Path) -> String {
    path.display().to_string()
}

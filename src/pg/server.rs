//! Throwaway Postgres servers: one trait, an engine per place where a server can come from.
//!
//! A server, and with it every database made on it, goes when its [`Server`] goes: on
//! [`Server::stop`], on drop, on panic. What outlives a killed process is removed by the engine's
//! own means or by the next start.

#[cfg(feature = "docker")]
mod docker;
#[cfg(unix)]
pub(in crate::pg) mod local;
mod url;

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, ErrorKind, Result, nearest, one_of};
use crate::pg::Address;
use crate::pg::throwaway::{self, Database, Register};
use crate::sql;
use crate::sql::{Ident, Sql};

/// Where a throwaway server comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum EngineChoice {
    /// The first of the others that works.
    #[default]
    Auto,
    /// The Postgres programs of this machine, in a private folder over a private socket.
    Local,
    /// A container.
    Docker,
    /// Databases on a server that the user names.
    Url,
}

const CHOICES: [EngineChoice; 4] = [
    EngineChoice::Auto,
    EngineChoice::Local,
    EngineChoice::Docker,
    EngineChoice::Url,
];

impl EngineChoice {
    /// The word a user types.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Local => "local",
            Self::Docker => "docker",
            Self::Url => "url",
        }
    }
}

impl fmt::Display for EngineChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for EngineChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let words = || CHOICES.into_iter().map(Self::as_str);
        if let Some(found) = CHOICES.into_iter().find(|choice| choice.as_str() == text) {
            return Ok(found);
        }
        let error = Error::usage(format!("unknown engine `{text}`"));
        Err(match nearest(text, words()) {
            Some(near) => error.help(format!("did you mean `{near}`?")),
            None => error.help(format!("expected {}", one_of(words()))),
        })
    }
}

/// Which throwaway server to start, and how.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// Where the server comes from.
    pub engine: EngineChoice,
    /// For `url`: the server to create databases on. Its role needs `CREATEDB`.
    pub url: Option<Address>,
    /// For `local`: the folder with `initdb` and `postgres`; otherwise `POSTERN_PG_BIN`, then the
    /// usual places are searched.
    pub bin_dir: Option<PathBuf>,
    /// For `docker`: the image; otherwise `POSTERN_DOCKER_IMAGE`, then the pinned one.
    pub image: Option<String>,
    /// For `local`: the folder for the data; otherwise `POSTERN_DATA`, then a RAM disk with room,
    /// then the temporary folder.
    pub data_dir: Option<PathBuf>,
    /// Server settings, name and value, on top of Postern's own. Not for `url`.
    pub settings: Vec<(String, String)>,
}

/// Removes the containers that killed processes left, and counts them.
#[cfg(feature = "cli")]
pub(crate) async fn sweep_containers() -> usize {
    #[cfg(feature = "docker")]
    return docker::sweep_all().await;
    #[cfg(not(feature = "docker"))]
    return 0;
}

/// What an engine's slow steps return.
type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// A running server, from wherever it came.
trait Engine: Send + Sync {
    fn choice(&self) -> EngineChoice;

    /// What runs and where, in one line.
    fn summary(&self) -> String;

    /// The database from which others are created and removed.
    fn maintenance(&self) -> &Address;

    /// Removes everything that came with the server. `databases` are those still on it: an
    /// engine whose server stays removes them one by one.
    fn stop<'a>(&'a mut self, databases: &'a [String]) -> Pending<'a, ()>;
}

/// A running throwaway server.
///
/// Dropping it removes it as [`Server::stop`] does, but has nobody to tell an error to.
pub struct Server {
    /// `None` once stopped.
    engine: Option<Box<dyn Engine>>,
    choice: EngineChoice,
    maintenance: Address,
    description: String,
    /// How `CREATE DATABASE` copies; empty where the server knows one way only.
    strategy: Sql,
    register: Arc<Register>,
}

impl Server {
    /// Starts a server, or connects to the one named, and waits until it answers.
    ///
    /// `auto` takes the first engine that works; if none does, the error holds every engine's
    /// reason.
    pub async fn start(options: &ServerOptions) -> Result<Self> {
        let (engine, reason) = match options.engine {
            EngineChoice::Auto => start_first(options).await?,
            chosen => (start_engine(chosen, options).await?, String::new()),
        };
        Self::take_over(engine, &reason).await
    }

    async fn take_over(engine: Box<dyn Engine>, reason: &str) -> Result<Self> {
        let mut server = Self {
            choice: engine.choice(),
            maintenance: engine.maintenance().clone(),
            description: format!("{}{reason}", engine.summary()),
            strategy: sql!(""),
            register: Arc::default(),
            // From here on a failure drops `server`, which stops the engine.
            engine: Some(engine),
        };
        server.strategy = strategy(&server.maintenance).await?;
        Ok(server)
    }

    /// What runs, where, and why that was taken.
    pub fn describe(&self) -> &str {
        &self.description
    }

    /// The engine in use; never [`EngineChoice::Auto`].
    pub fn engine(&self) -> EngineChoice {
        self.choice
    }

    /// The server's own database, from which others are made: for looking, not for data.
    pub fn maintenance(&self) -> &Address {
        &self.maintenance
    }

    /// Creates an empty database with a name made from `label`.
    pub async fn create_database(&self, label: &str) -> Result<Database> {
        self.create(&Ident::new("template0"), label).await
    }

    /// Creates a database that holds what `template` holds.
    ///
    /// Sessions that are still on the template are ended first: Postgres would wait five seconds
    /// for them and then refuse.
    pub async fn clone_database(&self, template: &Database, label: &str) -> Result<Database> {
        self.create(&Ident::new(template.name()), label).await
    }

    async fn create(&self, template: &Ident, label: &str) -> Result<Database> {
        Database::create(
            &self.maintenance,
            &self.register,
            label,
            template,
            &self.strategy,
        )
        .await
    }

    /// Removes the server's databases and, where Postern started it, the server.
    pub async fn stop(mut self) -> Result<()> {
        let names = self.register.names();
        match self.engine.take() {
            Some(mut engine) => engine.stop(&names).await,
            None => Ok(()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let Some(mut engine) = self.engine.take() else {
            return;
        };
        let names = self.register.names();
        block_apart(async move {
            // Nobody is left to hear of an error; what stays is swept by the next start.
            let _ = engine.stop(&names).await;
        });
    }
}

/// Runs a future to its end on a thread and runtime of its own: the caller may be inside a
/// runtime, outside any, or unwinding.
fn block_apart(work: impl Future<Output = ()> + Send + 'static) {
    let worker = std::thread::Builder::new().spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        if let Ok(runtime) = runtime {
            runtime.block_on(work);
        }
    });
    if let Ok(worker) = worker {
        let _ = worker.join();
    }
}

/// The end of a server's log, for a note; `None` when it said nothing.
fn last_words(log: &str) -> Option<String> {
    let lines: Vec<&str> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = &lines[lines.len().saturating_sub(8)..];
    (!tail.is_empty()).then(|| format!("its last words:\n{}", tail.join("\n")))
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Server({})", self.description)
    }
}

/// The cheapest way to copy a database on this server.
///
/// Copying files needs two checkpoints, which cost nothing without fsync and seconds with it;
/// writing everything to the log is the other way round. Before Postgres 15 there is no choice.
async fn strategy(maintenance: &Address) -> Result<Sql> {
    let mut session = throwaway::connect(maintenance).await?;
    let (version, is_synced): (i32, bool) = sqlx::query_as(
        "select current_setting('server_version_num')::int, current_setting('fsync')::bool",
    )
    .fetch_one(&mut session)
    .await
    .map_err(|error| maintenance.error(&error))?;
    throwaway::close(session).await;
    Ok(match (version >= 150_000, is_synced) {
        (false, _) => sql!(""),
        (true, false) => sql!(" strategy file_copy"),
        (true, true) => sql!(" strategy wal_log"),
    })
}

/// Starts the first engine that works and says why the ones before it did not.
async fn start_first(options: &ServerOptions) -> Result<(Box<dyn Engine>, String)> {
    let mut refused: Vec<(EngineChoice, Error)> = Vec::new();
    for choice in [EngineChoice::Local, EngineChoice::Docker, EngineChoice::Url] {
        if choice == EngineChoice::Url && options.url.is_none() {
            continue;
        }
        match start_engine(choice, options).await {
            Ok(engine) => return Ok((engine, reason(&refused))),
            Err(error) => refused.push((choice, error)),
        }
    }
    let mut error = Error::new(
        ErrorKind::Engine,
        "no throwaway Postgres could be started: no engine works here",
    );
    for (choice, why) in refused {
        error = error.note(format!("{choice}: {}", why.one_line()));
        for note in why.notes() {
            error = error.note(note.clone());
        }
    }
    Err(error.help(
        "install Postgres (Debian: `apt-get install postgresql`), or start Docker, \
         or name a server whose role may create databases",
    ))
}

fn reason(refused: &[(EngineChoice, Error)]) -> String {
    if refused.is_empty() {
        return " (auto: the first engine tried, and it works)".to_owned();
    }
    let refused: Vec<String> = refused
        .iter()
        .map(|(choice, error)| format!("{choice} does not work: {}", error.one_line()))
        .collect();
    format!(" (auto: {})", refused.join("; "))
}

async fn start_engine(choice: EngineChoice, options: &ServerOptions) -> Result<Box<dyn Engine>> {
    match choice {
        #[cfg(unix)]
        EngineChoice::Local => Ok(Box::new(local::start(options).await?)),
        #[cfg(not(unix))]
        EngineChoice::Local => Err(Error::new(
            ErrorKind::Engine,
            "the `local` engine runs on Unix only",
        )
        .help("use the `docker` or the `url` engine")),
        #[cfg(feature = "docker")]
        EngineChoice::Docker => Ok(Box::new(docker::start(options).await?)),
        #[cfg(not(feature = "docker"))]
        EngineChoice::Docker => Err(Error::new(
            ErrorKind::Engine,
            "this build of Postern has no `docker` engine",
        )
        .help("build it with the feature `docker`, or use the `local` or the `url` engine")),
        EngineChoice::Url => Ok(Box::new(url::start(options).await?)),
        EngineChoice::Auto => unreachable!("auto is resolved to an engine before it is started"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_engine_is_read_back_from_its_word() {
        for choice in CHOICES {
            assert_eq!(choice.to_string().parse::<EngineChoice>().unwrap(), choice);
        }
    }

    #[test]
    fn a_wrong_engine_names_the_right_ones() {
        let error = "dokcer".parse::<EngineChoice>().unwrap_err();
        assert_eq!(error.help_text(), Some("did you mean `docker`?"));
        let error = "kubernetes".parse::<EngineChoice>().unwrap_err();
        assert_eq!(
            error.help_text(),
            Some("expected `auto`, `local`, `docker` or `url`")
        );
    }
}

//! A migrated database of one's own for every test, in milliseconds.
//!
//! ```no_run
//! use postern::{Migrations, TestDb};
//!
//! #[tokio::test]
//! async fn a_player_has_a_name() -> Result<(), Box<dyn std::error::Error>> {
//!     let db = TestDb::new(Migrations::folder("migrations")).await?;
//!     sqlx::query("insert into players (name) values ('Ruth')").execute(db.pool()).await?;
//!     Ok(())
//! }
//! ```
//!
//! With `rstest` it is a fixture like any other:
//!
//! ```no_run
//! use postern::{Migrations, TestDb};
//!
//! #[rstest::fixture]
//! async fn db() -> TestDb {
//!     TestDb::new(Migrations::folder("migrations")).await.expect("the migrations are right")
//! }
//!
//! #[rstest::rstest]
//! #[tokio::test]
//! async fn nobody_is_there_at_first(#[future(awt)] db: TestDb) {
//!     let players: i64 = sqlx::query_scalar("select count(*) from players")
//!         .fetch_one(db.pool())
//!         .await
//!         .expect("the table is there");
//!     assert_eq!(players, 0);
//! }
//! ```
//!
//! Any other client takes [`TestDb::url`].
//!
//! # Where it comes from
//!
//! The first test starts a Postgres from this machine's own programs; every other one, in
//! whatever process, shares it. What the migrations and seeds make is kept as a template there,
//! named by their content, and every test gets a copy. The server ends a while after the last
//! process that uses it (`POSTERN_LINGER`, 30 seconds). Where there are no such programs, each
//! process starts a container.
//!
//! A database is removed when its [`TestDb`] is dropped; one of a test that panics is kept for an
//! hour, and its URL is printed. What a killed process leaves is removed by the next one.

mod elsewhere;
#[cfg(unix)]
mod host;
#[cfg(all(unix, feature = "cli"))]
mod inspect;
mod keeper;
mod recipe;
#[cfg(unix)]
mod speed;

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::PgPool;
use sqlx::postgres::PgPoolOptions;
use tokio::sync::OnceCell;

use self::elsewhere::Elsewhere;
#[cfg(unix)]
pub(crate) use self::host::Host;
#[cfg(all(unix, feature = "cli"))]
pub(crate) use self::inspect::What;
pub use self::recipe::Migrations;
use self::recipe::{Recipe, Seed};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Address, Database, EngineChoice, ServerOptions};

/// How many sessions a test's pool opens at the most; all tests share the server's.
const POOL_MAX: u32 = 8;

/// A database of one's own, with everything that its migrations and seeds made.
///
/// Removed when dropped. Kept when the test panics, or after [`TestDb::keep`].
pub struct TestDb {
    home: Home,
    address: Address,
    pool: PgPool,
    is_kept: bool,
}

enum Home {
    #[cfg(unix)]
    Host(Arc<Host>),
    /// Holds the database until it is removed.
    Elsewhere(Arc<Elsewhere>, Option<Box<Database>>),
}

/// What a test database is made from, where it differs from [`TestDb::new`].
#[derive(Clone, Debug)]
pub struct TestDbBuilder {
    migrations: Migrations,
    seeds: Vec<Seed>,
    extensions: Vec<String>,
    roles: Vec<String>,
    server: ServerOptions,
    has_own_server: bool,
    is_only_one: bool,
    is_over_tcp: bool,
    warm: usize,
    label: String,
}

impl TestDb {
    /// A database that holds what these migrations make.
    pub async fn new(migrations: Migrations) -> Result<Self> {
        Self::builder(migrations).build().await
    }

    /// The same with seeds, extensions, or a server of one's own.
    pub fn builder(migrations: Migrations) -> TestDbBuilder {
        TestDbBuilder {
            migrations,
            seeds: Vec::new(),
            extensions: Vec::new(),
            roles: Vec::new(),
            server: ServerOptions::default(),
            has_own_server: false,
            is_only_one: false,
            is_over_tcp: false,
            warm: 0,
            label: label(),
        }
    }

    /// A pool of sessions on the database. It opens the first one when it is used.
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Where the database is, for any client: `postgres://…`.
    pub fn url(&self) -> String {
        self.address.to_secret_url()
    }

    /// Where the database is, as another role. Roles of [`TestDbBuilder::role`] may log in.
    pub fn url_as(&self, role: &str) -> String {
        let options = self.address.options().clone().username(role);
        Address::from_options(options).to_secret_url()
    }

    /// Where the database is, without its password when printed.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The database's name.
    pub fn name(&self) -> &str {
        self.address.database()
    }

    /// What serves it, in one line.
    pub fn server(&self) -> &str {
        match &self.home {
            #[cfg(unix)]
            Home::Host(host) => host.summary(),
            Home::Elsewhere(server, _) => server.summary(),
        }
    }

    /// Leaves the database for an hour, whatever becomes of the test, and prints its URL when
    /// this value is dropped.
    pub fn keep(&mut self) {
        self.is_kept = true;
    }

    /// Keeps the database if this is an error: for tests that return one instead of panicking.
    pub fn keep_unless_ok<T, E>(&mut self, result: Result<T, E>) -> Result<T, E> {
        self.is_kept |= result.is_err();
        result
    }

    fn new_in(home: Home, address: Address) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(POOL_MAX)
            .min_connections(0)
            .connect_lazy_with(address.options().clone());
        Self {
            home,
            address,
            pool,
            is_kept: false,
        }
    }
}

impl TestDbBuilder {
    /// SQL that is run after the migrations, from a file.
    #[must_use]
    pub fn seed_file(mut self, file: impl Into<PathBuf>) -> Self {
        self.seeds.push(Seed::File(file.into()));
        self
    }

    /// SQL that is run after the migrations.
    #[must_use]
    pub fn seed(mut self, sql: impl Into<String>) -> Self {
        self.seeds.push(Seed::Text(sql.into()));
        self
    }

    /// An extension that is created before the migrations. Its files must be on the server.
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>) -> Self {
        self.extensions.push(name.into());
        self
    }

    /// A role that may log in, created before the migrations. Roles belong to a whole server, so
    /// that the test gets one of its own.
    #[must_use]
    pub fn role(mut self, name: impl Into<String>) -> Self {
        self.roles.push(name.into());
        self.own_server()
    }

    /// A setting of the server, such as `wal_level`. The test gets a server of its own.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.server.settings.push((name.into(), value.into()));
        self.own_server()
    }

    /// A server of its own that listens on 127.0.0.1, with a password, for clients that cannot
    /// connect to a socket of the file system. Containers always do.
    #[must_use]
    pub fn tcp(mut self) -> Self {
        self.has_own_server = true;
        self.is_over_tcp = true;
        self
    }

    /// A server that no other test is on.
    #[must_use]
    pub fn own_server(mut self) -> Self {
        self.has_own_server = true;
        self
    }

    /// Where the server comes from; the first that works if nothing is said.
    ///
    /// On a server that is named by its URL, the first database of a process is made by the migrations themselves,
    /// and removed when it is dropped; every further one is a copy of a template, which a process cannot remove as it
    /// ends. The next process on this machine that makes databases there removes it, and so does
    /// [`Server::start`](crate::pg::Server::start) with the same options: that is how to sweep.
    #[must_use]
    pub fn server(mut self, options: ServerOptions) -> Self {
        let settings = std::mem::take(&mut self.server.settings);
        self.server = options;
        self.server.settings.extend(settings);
        self
    }

    /// How many copies are made ahead, while tests run, so that the next one is only renamed.
    /// Worth it where processors idle during tests. Only on a shared server.
    #[must_use]
    pub fn warm(mut self, copies: usize) -> Self {
        self.warm = copies;
        self
    }

    /// What the database's name shows, to be told from others; the test's own name if nothing
    /// is said.
    #[must_use]
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Makes the database, and what it is copied from if this is the first of its kind.
    pub async fn build(self) -> Result<TestDb> {
        keeper::run(async move {
            let recipe = Arc::new(self.recipe()?);
            match self.is_for_a_host() {
                #[cfg(unix)]
                true => self.on_host(&recipe).await,
                _ => self.elsewhere(&recipe).await,
            }
        })
        .await
        .map(|(home, address)| TestDb::new_in(home, address))
    }

    /// Says that this process wants no second database: where there is no server to share, the one
    /// that is started ends with the database.
    #[cfg(feature = "cli")]
    pub(crate) fn only_one(mut self) -> Self {
        self.is_only_one = true;
        self
    }

    /// A database that stays under a name: the one that is there, or a new one.
    #[cfg(all(unix, feature = "cli"))]
    pub(crate) async fn build_named(self, name: &str) -> Result<Named> {
        if matches!(self.server.engine, EngineChoice::Docker | EngineChoice::Url) {
            return Err(Error::usage("a named database needs the `local` engine")
                .help("only a server from this machine's own programs outlives a command"));
        }
        let name = name.to_owned();
        keeper::run(async move {
            let recipe = Arc::new(self.recipe()?);
            let host = shared_host(&self.server).await?;
            let (name, is_from_another_recipe) = host.named(&recipe, &name).await?;
            Ok(Named {
                address: host.address(&name),
                is_from_another_recipe,
            })
        })
        .await
    }

    fn recipe(&self) -> Result<Recipe> {
        Recipe::read(&self.migrations, &self.extensions, &self.seeds)
    }

    /// Whether this machine's own programs are to be used. Only where there are none, others are
    /// tried: a full disk is no reason to start a container.
    #[cfg(unix)]
    fn is_for_a_host(&self) -> bool {
        match self.server.engine {
            EngineChoice::Local => true,
            EngineChoice::Auto => crate::pg::shared::has_programs(&self.server),
            EngineChoice::Docker | EngineChoice::Url => false,
        }
    }

    #[cfg(not(unix))]
    fn is_for_a_host(&self) -> bool {
        false
    }

    #[cfg(unix)]
    async fn on_host(&self, recipe: &Arc<Recipe>) -> Result<(Home, Address)> {
        let (host, name) = if self.has_own_server {
            let host = Host::own(&self.server, self.is_over_tcp).await?;
            let name = host.make(recipe, &self.label, &self.roles).await?;
            (Arc::new(host), name)
        } else {
            let host = shared_host(&self.server).await?;
            match host.hand_over(recipe, &self.label, self.warm).await {
                // It ended in between, or was ended.
                Err(error) if error.kind() == ErrorKind::Connect => {
                    forget_host(&self.server);
                    let host = shared_host(&self.server).await?;
                    let name = host.hand_over(recipe, &self.label, self.warm).await?;
                    (host, name)
                }
                result => (host, result?),
            }
        };
        let address = host.address(&name);
        Ok((Home::Host(host), address))
    }

    async fn elsewhere(&self, recipe: &Arc<Recipe>) -> Result<(Home, Address)> {
        if !self.roles.is_empty() {
            return Err(Error::new(
                ErrorKind::Engine,
                "roles need a server of one's own from this machine's programs",
            )
            .help("install Postgres, or create the roles in a seed"));
        }
        let (server, database) = if self.has_own_server || self.is_only_one {
            let server = Arc::new(Elsewhere::start(&self.server).await?);
            let database = server.make(recipe, &self.label).await?;
            (server, database)
        } else {
            let server = ELSEWHERE.get(&self.server, Elsewhere::start).await?;
            let database = server.hand_over(recipe, &self.label).await?;
            (server, database)
        };
        let address = database.address().clone();
        Ok((Home::Elsewhere(server, Some(Box::new(database))), address))
    }
}

/// A database that outlives this process.
#[cfg(all(unix, feature = "cli"))]
pub(crate) struct Named {
    pub(crate) address: Address,
    pub(crate) is_from_another_recipe: bool,
}

/// What this process joined or started, by options.
struct Known<T>(Mutex<Option<HashMap<String, Cell<T>>>>);

/// Filled by whoever needs it first; the others wait.
type Cell<T> = Arc<OnceCell<Arc<T>>>;

#[cfg(unix)]
static HOSTS: Known<Host> = Known(Mutex::new(None));
static ELSEWHERE: Known<Elsewhere> = Known(Mutex::new(None));

impl<T> Known<T> {
    async fn get(
        &self,
        options: &ServerOptions,
        start: impl AsyncFnOnce(&ServerOptions) -> Result<T>,
    ) -> Result<Arc<T>> {
        let cell = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let known = known.get_or_insert_default();
            Arc::clone(known.entry(format!("{options:?}")).or_default())
        };
        let found = cell
            .get_or_try_init(|| async { start(options).await.map(Arc::new) })
            .await?;
        Ok(Arc::clone(found))
    }

    #[cfg(unix)]
    fn forget(&self, options: &ServerOptions) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.as_mut() {
            known.remove(&format!("{options:?}"));
        }
    }
}

#[cfg(unix)]
async fn shared_host(options: &ServerOptions) -> Result<Arc<Host>> {
    HOSTS.get(options, Host::join).await
}

#[cfg(unix)]
fn forget_host(options: &ServerOptions) {
    HOSTS.forget(options);
}

/// The test's own name: its thread has it under `cargo test`.
fn label() -> String {
    let thread = std::thread::current();
    let name = thread.name().unwrap_or("test");
    name.rsplit("::").next().unwrap_or(name).to_owned()
}

impl Drop for TestDb {
    fn drop(&mut self) {
        // Marks the pool closed; whoever waits for a session of it is told.
        drop(self.pool.close());
        let is_kept = self.is_kept || std::thread::panicking();
        let url = self.url();
        let name = self.name().to_owned();
        let done = match (&mut self.home, is_kept) {
            #[cfg(unix)]
            (Home::Host(host), true) => host.keep(&name).map(|()| {
                tell(&format!(
                    "postern: the test's database is kept for an hour, or until `postern db sweep`:\n  psql '{url}'"
                ));
            }),
            #[cfg(unix)]
            (Home::Host(host), false) => {
                let host = Arc::clone(host);
                keeper::block(async move { host.remove(&name).await })
            }
            (Home::Elsewhere(_, database), true) => {
                drop(database.take());
                tell(&format!(
                    "postern: the test's database is kept until this process or its server ends:\n  psql '{url}'"
                ));
                Ok(())
            }
            (Home::Elsewhere(_, database), false) => match database.take() {
                Some(database) => keeper::block(database.remove()),
                None => Ok(()),
            },
        };
        if let Err(error) = done {
            tell(&format!("postern: {}", error.render(false)));
        }
    }
}

/// Says something beside a test's own words: the runner shows it where it shows those.
#[allow(clippy::print_stderr)]
fn tell(text: &str) {
    eprintln!("{text}");
}

impl fmt::Debug for TestDb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TestDb({})", self.address)
    }
}

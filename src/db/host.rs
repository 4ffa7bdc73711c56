//! A shared server and what is on it: templates, the databases of every process, and those kept.
//!
//! ```text
//! postern_u<USER>_…   belongs to the process that holds that user's lock
//! postern_t_<KEY>     a template: whole exactly if it is marked as one
//! postern_w_<KEY>_…   a clone that belongs to nobody yet
//! postern_n_<NAME>    named by somebody; stays until it is dropped by name
//! ```
//!
//! A template is built under a user's name, renamed, and marked last; so whatever was interrupted
//! is either swept with its user or built anew.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use sqlx::postgres::PgConnection;
use tokio::sync::OnceCell;

use super::recipe::Recipe;
use super::speed::{self, Way};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::shared::{KEPT, Share, TEMPLATES, Tcp, USERS};
use crate::pg::{Address, Lock, ServerOptions, close, connect, end_sessions, execute, is_held};
use crate::pg::{help_for_room, plain, random_hex};
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

/// How many templates that are not in use stay for a next time.
const TEMPLATES_MAX: usize = 8;

/// How long what a failed test kept stays. The supervisor waits as long.
const KEPT_TIME: Duration = Duration::from_secs(3600);

/// Postgres' words, in the log that comes with an error.
const PORT_TAKEN: &str = "Address already in use";

/// What the comment of a template starts with; how it is best copied follows.
const TEMPLATE_MARK: &str = "postern throwaway template ";

/// A server and this process's part in it.
pub(crate) struct Host {
    share: Share,
    idle: Mutex<Vec<PgConnection>>,
    templates: Mutex<HashMap<String, Arc<OnceCell<Template>>>>,
    count: AtomicU64,
    has_swept: AtomicBool,
    /// How clients get to it, if not by the socket.
    tcp: Option<Tcp>,
}

#[derive(Clone, Debug)]
struct Template {
    name: String,
    way: Way,
}

impl Host {
    pub(super) async fn join(options: &ServerOptions) -> Result<Self> {
        Ok(Self::new(Share::join(options).await?))
    }

    pub(super) async fn own(options: &ServerOptions, is_over_tcp: bool) -> Result<Self> {
        if !is_over_tcp {
            return Ok(Self::new(Share::own(options, None).await?));
        }
        let (tcp, share) = {
            let mut tcp = Tcp::choose()?;
            let mut started = Share::own(options, Some(tcp.clone())).await;
            // Somebody else may take the port before Postgres does.
            if started
                .as_ref()
                .is_err_and(|error| error.render(false).contains(PORT_TAKEN))
            {
                tcp = Tcp::choose()?;
                started = Share::own(options, Some(tcp.clone())).await;
            }
            (tcp, started?)
        };
        let mut host = Self::new(share);
        let password = sql!("alter role postgres password {}", Literal(tcp.password()));
        host.run(&[password]).await?;
        host.tcp = Some(tcp);
        Ok(host)
    }

    pub(super) fn new(share: Share) -> Self {
        Self {
            share,
            idle: Mutex::default(),
            templates: Mutex::default(),
            count: AtomicU64::new(0),
            has_swept: AtomicBool::new(false),
            tcp: None,
        }
    }

    pub(crate) fn summary(&self) -> &str {
        self.share.summary()
    }

    pub(super) fn maintenance(&self) -> &Address {
        self.share.maintenance()
    }

    pub(crate) fn folder(&self) -> &Path {
        self.share.folder()
    }

    pub(crate) fn address(&self, name: &str) -> Address {
        match &self.tcp {
            Some(tcp) => tcp.address().with_database(name),
            None => self.maintenance().with_database(name),
        }
    }

    pub(super) fn mark(&self, folder: &str, name: &str) -> PathBuf {
        self.share.folder().join(folder).join(name)
    }

    /// A name for a database of this process.
    fn new_name(&self, label: &str) -> String {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        format!(
            "postern_u{}_{}_{number}",
            self.share.user(),
            plain(label, 30)
        )
    }

    /// Runs statements on a session of the server's own database, each by itself.
    pub(super) async fn run(&self, statements: &[Sql]) -> Result<()> {
        let mut session = self.session().await?;
        for statement in statements {
            let done = execute(&mut session, self.maintenance(), statement).await;
            done.map_err(|error| self.explain(error))?;
        }
        self.give_back(session);
        Ok(())
    }

    pub(super) async fn session(&self) -> Result<PgConnection> {
        let idle = self.lock_idle().pop();
        match idle {
            Some(session) => Ok(session),
            None => connect(self.maintenance())
                .await
                .map_err(|error| self.explain(error)),
        }
    }

    pub(super) fn give_back(&self, session: PgConnection) {
        self.lock_idle().push(session);
    }

    fn lock_idle(&self) -> std::sync::MutexGuard<'_, Vec<PgConnection>> {
        // A list of sessions is whole whatever panicked while it was held.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says when it was the disk.
    fn explain(&self, error: Error) -> Error {
        const FULL: &str = "No space left on device";
        let is_full = error.sqlstate() == Some("53100")
            || error.message().contains(FULL)
            || matches!(error.kind(), ErrorKind::Connect | ErrorKind::ConnectionLost)
                && fs::read_to_string(self.folder().join("log"))
                    .is_ok_and(|log| log.contains(FULL));
        match is_full {
            true => error.help(help_for_room(self.folder())),
            false => error,
        }
    }

    /// A database that this recipe made, for this process alone; how often it was cloned ahead
    /// is up to `warm`.
    pub(super) async fn hand_over(
        self: &Arc<Self>,
        recipe: &Arc<Recipe>,
        label: &str,
        warm: usize,
    ) -> Result<String> {
        let name = self.new_name(label);
        let mut is_again = false;
        loop {
            let template = self.template(recipe).await?;
            let made = match warm > 0 && self.take_warm(&template, &name).await? {
                true => Ok(()),
                false => self.copy(&template, recipe, &name).await,
            };
            match made {
                Ok(()) => {}
                // Somebody made room for newer templates.
                Err(error) if error.sqlstate() == Some("3D000") && !is_again => {
                    self.lock_templates().remove(recipe.key());
                    is_again = true;
                    continue;
                }
                Err(error) => return Err(error),
            }
            if warm > 0 {
                let host = Arc::clone(self);
                // Nobody waits for it; what fails now fails visibly when it is needed.
                tokio::spawn(async move { host.refill(&template, warm).await });
            }
            if !self.has_swept.swap(true, Ordering::Relaxed) {
                let host = Arc::clone(self);
                tokio::spawn(async move { host.sweep(KEPT_TIME).await });
            }
            return Ok(name);
        }
    }

    /// The same without a template, on a server that is not shared.
    pub(super) async fn make(
        &self,
        recipe: &Recipe,
        label: &str,
        roles: &[String],
    ) -> Result<String> {
        for role in roles {
            let password = match &self.tcp {
                Some(tcp) => sql!(" password {}", Literal(tcp.password())),
                None => sql!(""),
            };
            let create = sql!("create role {} login{}", Ident::new(role), password);
            self.run(&[create]).await?;
        }
        let name = self.new_name(label);
        self.apply(recipe, &name).await?;
        Ok(name)
    }

    async fn apply(&self, recipe: &Recipe, name: &str) -> Result<()> {
        let way = speed::known(&self.share).unwrap_or_default();
        let clause = self.clause(way).await?;
        let create = sql!(
            "create database {} template template0{}",
            Ident::new(name),
            clause
        );
        self.run(&[create]).await?;
        let address = self.address(name);
        let mut session = connect(&address)
            .await
            .map_err(|error| self.explain(error))?;
        let applied = recipe.apply(&mut session, &address).await;
        close(session).await;
        applied.map_err(|error| self.explain(error))
    }

    async fn copy(&self, template: &Template, recipe: &Recipe, name: &str) -> Result<()> {
        if template.way == Way::Replay {
            return self.apply(recipe, name).await;
        }
        let clause = self.clause(template.way).await?;
        let create = sql!(
            "create database {} template {}{}",
            Ident::new(name),
            Ident::new(&*template.name),
            clause
        );
        self.run(&[create]).await
    }

    async fn clause(&self, way: Way) -> Result<Sql> {
        let session = self.session().await?;
        let version = session.server_version_num().unwrap_or_default();
        self.give_back(session);
        Ok(way.clause(version))
    }

    fn lock_templates(
        &self,
    ) -> std::sync::MutexGuard<'_, HashMap<String, Arc<OnceCell<Template>>>> {
        self.templates
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// The template of a recipe, built now if nobody has built it yet.
    async fn template(&self, recipe: &Recipe) -> Result<Template> {
        let cell = Arc::clone(
            self.lock_templates()
                .entry(recipe.key().to_owned())
                .or_default(),
        );
        let template = cell.get_or_try_init(|| self.find_or_build(recipe)).await?;
        Ok(template.clone())
    }

    async fn find_or_build(&self, recipe: &Recipe) -> Result<Template> {
        let name = format!("postern_t_{}", recipe.key());
        let file = self.mark(TEMPLATES, recipe.key());
        if let Some(template) = self.find(&name).await? {
            touch(&file);
            return Ok(template);
        }
        let building = {
            let file = file.clone();
            let waited = tokio::task::spawn_blocking(move || Lock::exclusive(&file)).await;
            waited.expect("waiting for a lock does not panic")?
        };
        if let Some(template) = self.find(&name).await? {
            return Ok(template);
        }
        touch(&file);
        self.evict(recipe.key()).await?;
        let template = self.build(recipe, &name).await?;
        drop(building);
        Ok(template)
    }

    async fn find(&self, name: &str) -> Result<Option<Template>> {
        const ASK: &str = "select pg_catalog.shobj_description(oid, 'pg_database') \
                           from pg_catalog.pg_database where datname = $1 and datistemplate";
        let mut session = self.session().await?;
        let comment: Option<Option<String>> = sqlx::query_scalar(ASK)
            .bind(name)
            .fetch_optional(&mut session)
            .await
            .map_err(|error| self.maintenance().error(&error).with_sql(ASK))?;
        self.give_back(session);
        let way = comment
            .flatten()
            .and_then(|comment| comment.strip_prefix(TEMPLATE_MARK)?.parse().ok());
        Ok(way.map(|way| Template {
            name: name.to_owned(),
            way,
        }))
    }

    async fn build(&self, recipe: &Recipe, name: &str) -> Result<Template> {
        let template = Ident::new(name);
        // What is there unmarked is half of something: its builder was killed just before the end.
        let drop = sql!("drop database if exists {}", template);
        self.run(&[drop]).await?;
        let draft = self.new_name("build");
        let begun = Instant::now();
        if let Err(error) = self.apply(recipe, &draft).await {
            let _ = self.remove(&draft).await;
            return Err(error);
        }
        let built = begun.elapsed();
        let mut session = self.session().await?;
        let address = self.maintenance();
        end_sessions(&mut session, address, &draft).await?;
        let way = speed::choose(&mut session, &self.share, &draft, built).await?;
        self.give_back(session);
        let mark = format!("{TEMPLATE_MARK}{way}");
        let draft = Ident::new(draft);
        let finish = [
            sql!("comment on database {} is {}", draft, Literal(&mark)),
            // Nobody may connect: a session on a template keeps it from being copied.
            sql!("alter database {} with allow_connections false", draft),
            sql!("alter database {} rename to {}", draft, template),
            // Last: from here on others use it.
            sql!("alter database {} with is_template true", template),
        ];
        self.run(&finish).await?;
        Ok(Template {
            name: name.to_owned(),
            way,
        })
    }

    /// Makes room for a new template: drops those that were used longest ago.
    async fn evict(&self, building: &str) -> Result<()> {
        let mut others: Vec<(SystemTime, String)> = self
            .names("postern\\_t\\_%")
            .await?
            .into_iter()
            .filter_map(|name| Some(name.strip_prefix("postern_t_")?.to_owned()))
            .filter(|key| key != building)
            .map(|key| (last_used(&self.mark(TEMPLATES, &key)), key))
            .collect();
        others.sort_by(|a, b| b.cmp(a));
        for (_, key) in others.split_off(others.len().min(TEMPLATES_MAX)) {
            // Not while somebody builds it anew.
            if let Some(_lock) = Lock::try_exclusive(&self.mark(TEMPLATES, &key)) {
                self.drop_template(&key).await?;
            }
        }
        Ok(())
    }

    async fn drop_template(&self, key: &str) -> Result<()> {
        for warm in self.names(&format!("postern\\_w\\_{key}\\_%")).await? {
            self.remove(&warm).await?;
        }
        let name = format!("postern_t_{key}");
        let unmark = sql!(
            "alter database {} with is_template false",
            Ident::new(&*name)
        );
        match self.run(&[unmark]).await {
            Err(error) if error.sqlstate() == Some("3D000") => Ok(()),
            Err(error) => Err(error),
            Ok(()) => self.remove(&name).await,
        }
    }

    pub(super) async fn names(&self, pattern: &str) -> Result<Vec<String>> {
        const ASK: &str = "select datname::text from pg_catalog.pg_database \
                           where datname like $1 order by datname";
        let mut session = self.session().await?;
        let names = sqlx::query_scalar(ASK)
            .bind(pattern)
            .fetch_all(&mut session)
            .await
            .map_err(|error| self.maintenance().error(&error).with_sql(ASK))?;
        self.give_back(session);
        Ok(names)
    }

    /// Renames a clone that was made ahead, if there is one. A rename has one winner.
    async fn take_warm(&self, template: &Template, name: &str) -> Result<bool> {
        let pattern = template.name.replacen("postern_t_", "postern\\_w\\_", 1) + "\\_%";
        for warm in self.names(&pattern).await? {
            let rename = sql!(
                "alter database {} rename to {}",
                Ident::new(&*warm),
                Ident::new(name)
            );
            if self.run(&[rename]).await.is_ok() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Clones ahead until so many are ready.
    async fn refill(&self, template: &Template, warm: usize) -> Result<()> {
        let prefix = template.name.replacen("postern_t_", "postern_w_", 1);
        let pattern = template.name.replacen("postern_t_", "postern\\_w\\_", 1) + "\\_%";
        let clause = self.clause(template.way).await?;
        while template.way != Way::Replay && self.names(&pattern).await?.len() < warm {
            let name = format!("{prefix}_{}", &random_hex()[..8]);
            let create = sql!(
                "create database {} template {}{}",
                Ident::new(&*name),
                Ident::new(&*template.name),
                clause
            );
            // Whole as soon as it can be seen: Postgres makes databases in a transaction.
            self.run(&[create]).await?;
        }
        Ok(())
    }

    /// Removes a database, ending the sessions on it. One that is gone is a success.
    pub(super) async fn remove(&self, name: &str) -> Result<()> {
        let address = self.maintenance();
        let mut session = self.session().await?;
        end_sessions(&mut session, address, name).await?;
        let drop = sql!("drop database if exists {}", Ident::new(name));
        let dropped = match execute(&mut session, address, &drop).await {
            // Somebody came back in between: now with force, which waits in steps of 100 ms.
            Err(error) if error.sqlstate() == Some("55006") => {
                let drop = sql!("drop database if exists {} with (force)", Ident::new(name));
                execute(&mut session, address, &drop).await
            }
            result => result,
        };
        self.give_back(session);
        dropped
    }

    /// Marks a database of this process to outlive it.
    pub(super) fn keep(&self, name: &str) -> Result<()> {
        let mark = self.mark(KEPT, name);
        fs::write(&mark, "").map_err(|error| Error::io("write", &mark, &error))
    }

    /// Removes the databases of processes that are gone, and what was kept longer ago than this.
    pub(super) async fn sweep(&self, kept_time: Duration) -> Result<usize> {
        let users = self.folder().join(USERS);
        let mut dead = Vec::new();
        for entry in fs::read_dir(&users).into_iter().flatten().flatten() {
            if !is_held(&entry.path()) {
                dead.push(entry.path());
            }
        }
        let mut living: HashMap<String, bool> = HashMap::new();
        let mut swept = 0;
        for name in self.names("postern\\_u%").await? {
            let user = name["postern_u".len()..]
                .split('_')
                .next()
                .unwrap_or_default();
            let is_living = *living
                .entry(user.to_owned())
                .or_insert_with(|| is_held(&users.join(user)));
            let kept = self.mark(KEPT, &name);
            let is_kept = fs::metadata(&kept)
                .and_then(|meta| meta.modified())
                .is_ok_and(|then| then.elapsed().unwrap_or_default() < kept_time);
            if is_living || is_kept {
                continue;
            }
            // Another process may sweep at the same time; one that resists stays for the next.
            if self.remove(&name).await.is_ok() {
                let _ = fs::remove_file(&kept);
                swept += 1;
            }
        }
        self.forget_marks().await?;
        for file in dead {
            // A draft is locked before it is renamed; its name is nobody's yet.
            let is_draft = file.extension().is_some();
            if !is_draft || last_used(&file).elapsed().unwrap_or_default() > KEPT_TIME {
                let _ = fs::remove_file(file);
            }
        }
        Ok(swept)
    }

    /// Removes marks of databases that are gone.
    async fn forget_marks(&self) -> Result<()> {
        let marks: Vec<PathBuf> = fs::read_dir(self.folder().join(KEPT))
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        if marks.is_empty() {
            return Ok(());
        }
        let there: HashSet<String> = self.names("postern\\_%").await?.into_iter().collect();
        for mark in marks {
            let name = mark.file_name().unwrap_or_default().to_string_lossy();
            if !there.contains(&*name) {
                let _ = fs::remove_file(&mark);
            }
        }
        Ok(())
    }
}

fn touch(file: &Path) {
    // When it was used last decides only who goes first.
    let opened = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(file);
    let _ = opened.and_then(|file| file.set_modified(SystemTime::now()));
}

fn last_used(file: &Path) -> SystemTime {
    fs::metadata(file)
        .and_then(|meta| meta.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

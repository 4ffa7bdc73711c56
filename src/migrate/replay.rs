//! Applying migrations: statement by statement on one connection, each migration in its own
//! transaction.
//!
//! Before every migration the session is reset (role, settings, temporary tables), so that none
//! depends on what an earlier one set. A failure names the migration, the statement, the line and
//! the SQLSTATE, and says what is left of it.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use sqlx::{Executor, PgConnection};

use super::history::{History, Migration};
use super::script::{Script, Statement};
use crate::error::{Error, ErrorKind, Result};
use crate::pg::{Address, error_position};
use crate::sql;
use crate::sql::Sql;

/// Limits for the statements of a migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// How long a statement may wait for a lock; `None`: the server's own setting.
    pub lock_timeout: Option<Duration>,
    /// How long a statement may take; `None`: the server's own setting.
    pub statement_timeout: Option<Duration>,
}

/// Whether a migration is brought about or taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Direction {
    /// Brought about.
    Up,
    /// Taken back.
    Down,
}

/// Which of the passes of a proof a step belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pass {
    /// Up for the first time.
    First,
    /// Down.
    Back,
    /// Up for the second time.
    Again,
}

impl Pass {
    /// The direction that this pass goes in.
    pub fn direction(self) -> Direction {
        match self {
            Self::First | Self::Again => Direction::Up,
            Self::Back => Direction::Down,
        }
    }
}

/// One migration, brought about or taken back.
#[derive(Clone, Debug)]
pub struct Step {
    /// The migration's version.
    pub version: u64,
    /// Its number and name: `003_outcome_sync`.
    pub id: String,
    /// Which pass, and with it which direction.
    pub pass: Pass,
    /// How long it took, commit included.
    pub duration: Duration,
    /// How many statements were run.
    pub statements: usize,
    /// The strongest lock held on each table just before the commit, by table. `None` without a
    /// transaction: there is no moment at which all of them are held.
    pub locks: Option<Vec<TableLock>>,
    /// By how many rows each table grew or shrank, as far as it was measured; tables without a
    /// change are left out.
    pub rows_delta: Option<BTreeMap<String, i64>>,
}

/// The strongest lock that a migration held on a table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableLock {
    /// The table's number in the catalog, which a new name or schema does not change.
    pub oid: u32,
    /// The table's (or view's) qualified name.
    pub table: String,
    /// How strong.
    pub mode: LockMode,
    /// Whether the table was there before the migration; a lock on a new one stops no one.
    pub is_preexisting: bool,
}

/// Postgres' table locks, weakest first
/// (<https://www.postgresql.org/docs/current/explicit-locking.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    /// Taken by SELECT.
    AccessShare,
    /// Taken by SELECT FOR UPDATE.
    RowShare,
    /// Taken by INSERT, UPDATE, DELETE.
    RowExclusive,
    /// Taken by VACUUM, ANALYZE, CREATE INDEX CONCURRENTLY, VALIDATE CONSTRAINT.
    ShareUpdateExclusive,
    /// Taken by CREATE INDEX: stops writers.
    Share,
    /// Taken by CREATE TRIGGER, ADD FOREIGN KEY: stops writers.
    ShareRowExclusive,
    /// Taken by REFRESH MATERIALIZED VIEW CONCURRENTLY: stops writers.
    Exclusive,
    /// Taken by most of ALTER TABLE, DROP, TRUNCATE: stops readers too.
    AccessExclusive,
}

impl LockMode {
    const ALL: [(Self, &'static str, &'static str); 8] = [
        (Self::AccessShare, "AccessShareLock", "ACCESS SHARE"),
        (Self::RowShare, "RowShareLock", "ROW SHARE"),
        (Self::RowExclusive, "RowExclusiveLock", "ROW EXCLUSIVE"),
        (
            Self::ShareUpdateExclusive,
            "ShareUpdateExclusiveLock",
            "SHARE UPDATE EXCLUSIVE",
        ),
        (Self::Share, "ShareLock", "SHARE"),
        (
            Self::ShareRowExclusive,
            "ShareRowExclusiveLock",
            "SHARE ROW EXCLUSIVE",
        ),
        (Self::Exclusive, "ExclusiveLock", "EXCLUSIVE"),
        (
            Self::AccessExclusive,
            "AccessExclusiveLock",
            "ACCESS EXCLUSIVE",
        ),
    ];

    /// The mode as `pg_locks` names it.
    fn from_catalog(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, catalog, _)| *catalog == name)
            .map(|(mode, ..)| *mode)
    }
}

impl fmt::Display for LockMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL
            .iter()
            .find(|(mode, ..)| mode == self)
            .map(|(.., name)| name);
        f.pad(name.expect("every mode is listed"))
    }
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Up => "up",
            Self::Down => "down",
        })
    }
}

/// Is told what happens while it happens. All methods do nothing unless written.
pub trait Progress: Send {
    /// A migration is about to be run.
    fn started(&mut self, _migration: &Migration, _pass: Pass) {}
    /// A statement is about to be run, the `number`th (from 1) of `of`.
    fn statement(&mut self, _statement: &Statement, _number: usize, _of: usize) {}
    /// A migration has been run.
    fn finished(&mut self, _step: &Step) {}
    /// The database is about to be read and compared, after this migration.
    fn comparing(&mut self, _migration: &Migration, _pass: Pass) {}
}

/// Tells no one.
impl Progress for () {}

/// What applies migrations: one connection that nothing else uses meanwhile.
///
/// After an error the connection is out of its transaction again, unless it was lost.
pub struct Replayer<'a> {
    /// A connection to a database that may be written to.
    pub connection: &'a mut PgConnection,
    /// Where that database is.
    pub address: &'a Address,
    /// Limits for every statement.
    pub options: Options,
    /// Who is told.
    pub progress: &'a mut dyn Progress,
}

impl fmt::Debug for Replayer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replayer")
            .field("address", self.address)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl<'a> Replayer<'a> {
    /// Applies without limits and tells no one.
    pub fn new(
        connection: &'a mut PgConnection,
        address: &'a Address,
        progress: &'a mut dyn Progress,
    ) -> Self {
        Self {
            connection,
            address,
            options: Options::default(),
            progress,
        }
    }

    /// Brings every migration of a history about, in order; stops at the first failure.
    pub async fn apply_all(&mut self, history: &History) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for migration in history.migrations() {
            steps.push(self.apply(migration, Pass::First).await?);
        }
        Ok(steps)
    }

    /// Brings a migration about or takes it back.
    pub async fn apply(&mut self, migration: &Migration, pass: Pass) -> Result<Step> {
        let direction = pass.direction();
        let name = format!("migration {} ({direction})", migration.id);
        let (script, is_transactional) = match direction {
            Direction::Up => (&migration.up, migration.transactional),
            Direction::Down => match &migration.down {
                Some(down) => (down, migration.down_transactional),
                None => return Err(irreversible(migration)),
            },
        };
        self.progress.started(migration, pass);
        let begun = Instant::now();
        let locks = self
            .run(script, is_transactional, &name, "the migration")
            .await?;
        let step = Step {
            version: migration.version,
            id: migration.id.clone(),
            pass,
            duration: begun.elapsed(),
            statements: script.statements().len(),
            locks,
            rows_delta: None,
        };
        self.progress.finished(&step);
        Ok(step)
    }

    /// Runs a script that is no migration, a legacy schema or a seed, in one transaction.
    pub async fn apply_script(&mut self, script: &Script) -> Result<()> {
        let name = format!("`{}`", script.file().display());
        self.run(script, true, &name, "the script").await.map(drop)
    }

    /// Runs a script's statements; `name` begins the sentence of an error, `what` that of its note.
    async fn run(
        &mut self,
        script: &Script,
        is_transactional: bool,
        name: &str,
        what: &str,
    ) -> Result<Option<Vec<TableLock>>> {
        let unrelated = |error: Error| error.with_kind(ErrorKind::Migration).context(name);
        self.reset().await.map_err(unrelated)?;
        let tables = match is_transactional {
            true => Some(self.tables().await.map_err(unrelated)?),
            false => None,
        };
        let outcome = if let Some(tables) = tables {
            self.run_in_transaction(script, name, what, &tables)
                .await
                .map(Some)
        } else {
            self.run_bare(script, name).await.map(|()| None)
        };
        if outcome.is_err() {
            // Without a transaction this only warns; on a lost connection there is nothing to end.
            let _ = self.execute(sql!("rollback")).await;
            let _ = self.reset().await;
        } else {
            self.reset().await.map_err(unrelated)?;
        }
        outcome
    }

    async fn run_in_transaction(
        &mut self,
        script: &Script,
        name: &str,
        what: &str,
        tables: &HashMap<u32, String>,
    ) -> Result<Vec<TableLock>> {
        let address = self.address;
        let unrelated = |error: sqlx::Error| {
            let error = address.error(&error).with_kind(ErrorKind::Migration);
            error.context(name)
        };
        self.execute(sql!("begin")).await.map_err(unrelated)?;
        self.limit(&sql!("set local")).await.map_err(unrelated)?;
        let rolled_back = format!("{what} was rolled back");
        self.statements(script, name, &|_| rolled_back.clone())
            .await?;
        let locks = self.locks(tables).await.map_err(unrelated)?;
        self.execute(sql!("commit")).await.map_err(|error| {
            address
                .error(&error)
                .with_kind(ErrorKind::Migration)
                .context(format!("{name} failed at its commit"))
                .note("deferred constraints are checked at the commit")
                .note(format!("in {}", script.file().display()))
                .note(rolled_back.clone())
        })?;
        Ok(locks)
    }

    async fn run_bare(&mut self, script: &Script, name: &str) -> Result<()> {
        let address = self.address;
        self.limit(&sql!("set")).await.map_err(|error| {
            let error = address.error(&error).with_kind(ErrorKind::Migration);
            error.context(name)
        })?;
        let left = |before: usize| match before {
            0 => "it runs without a transaction; nothing had been applied".to_owned(),
            1 => "it runs without a transaction: statement 1 had been applied and stays".to_owned(),
            _ => format!(
                "it runs without a transaction: statements 1 to {before} had been applied and stay"
            ),
        };
        self.statements(script, name, &left).await
    }

    /// Runs each statement; `left` says what is left of those before a failed one.
    async fn statements(
        &mut self,
        script: &Script,
        name: &str,
        left: &(dyn Fn(usize) -> String + Sync),
    ) -> Result<()> {
        let of = script.statements().len();
        for (index, statement) in script.statements().iter().enumerate() {
            self.progress.statement(statement, index + 1, of);
            let sql = script.sql(statement);
            if let Err(error) = self.execute(sql.to_sql()).await {
                let described = self.address.error(&error);
                let is_lost = described.kind() == ErrorKind::ConnectionLost;
                let (span, label) = script.place(statement, error_position(&error));
                let failed = described
                    .with_kind(ErrorKind::Migration)
                    .context(format!("{name} failed at statement {}", index + 1))
                    .at(script.excerpt(span, label))
                    .with_sql(self.address.mask(sql.as_str()));
                return Err(if is_lost {
                    failed.note(
                        "the connection was lost; Postgres keeps nothing of an open transaction",
                    )
                } else {
                    failed.note(left(index))
                });
            }
        }
        Ok(())
    }

    async fn execute(&mut self, sql: Sql) -> Result<(), sqlx::Error> {
        self.connection.execute(sqlx::raw_sql(sql)).await.map(drop)
    }

    /// A session as it was when it was opened.
    async fn reset(&mut self) -> Result<()> {
        let reset = sql!("reset session authorization; reset role; reset all; discard temp");
        self.execute(reset)
            .await
            .map_err(|error| self.address.error(&error))
    }

    async fn limit(&mut self, set: &Sql) -> Result<(), sqlx::Error> {
        let milliseconds = |limit: Duration| {
            u64::try_from(limit.as_millis())
                .unwrap_or(u64::MAX)
                .clamp(1, 2_147_483_647)
        };
        if let Some(limit) = self.options.lock_timeout {
            self.execute(sql!("{} lock_timeout = {}", set, milliseconds(limit)))
                .await?;
        }
        if let Some(limit) = self.options.statement_timeout {
            self.execute(sql!("{} statement_timeout = {}", set, milliseconds(limit)))
                .await?;
        }
        Ok(())
    }

    /// The user's tables and views by their number: a dropped one has its name only here.
    async fn tables(&mut self) -> Result<HashMap<u32, String>> {
        let rows: Vec<(i64, String)> = sqlx::query_as(user_tables())
            .fetch_all(&mut *self.connection)
            .await
            .map_err(|error| self.address.error(&error))?;
        let number = |oid| u32::try_from(oid).expect("an oid has 32 bits");
        Ok(rows
            .into_iter()
            .map(|(oid, name)| (number(oid), name))
            .collect())
    }

    /// The strongest lock per table that this transaction holds.
    async fn locks(
        &mut self,
        before: &HashMap<u32, String>,
    ) -> Result<Vec<TableLock>, sqlx::Error> {
        let query = sql!(
            "select l.relation::pg_catalog.int8, l.mode, t.name
             from pg_catalog.pg_locks l left join ({}) t (oid, name) on t.oid = l.relation::pg_catalog.int8
             where l.pid = pg_catalog.pg_backend_pid() and l.locktype = 'relation' and l.granted
               and l.database = (select d.oid from pg_catalog.pg_database d where d.datname = pg_catalog.current_database())",
            user_tables()
        );
        let rows: Vec<(i64, String, Option<String>)> = sqlx::query_as(&query)
            .fetch_all(&mut *self.connection)
            .await?;
        let mut strongest: BTreeMap<(String, bool, u32), LockMode> = BTreeMap::new();
        for (oid, mode, name) in rows {
            let oid = u32::try_from(oid).expect("an oid has 32 bits");
            let earlier = before.get(&oid);
            let (Some(table), Some(mode)) =
                (earlier.or(name.as_ref()), LockMode::from_catalog(&mode))
            else {
                continue;
            };
            let held = strongest
                .entry((table.clone(), earlier.is_some(), oid))
                .or_insert(mode);
            *held = mode.max(*held);
        }
        let lock = |((table, is_preexisting, oid), mode)| TableLock {
            oid,
            table,
            mode,
            is_preexisting,
        };
        Ok(strongest.into_iter().map(lock).collect())
    }
}

/// Number and qualified name of every table and view that is not the system's.
fn user_tables() -> Sql {
    sql!(
        "select c.oid::pg_catalog.int8, pg_catalog.format('%I.%I', n.nspname, c.relname)
         from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p', 'm', 'v', 'f') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'"
    )
}

fn irreversible(migration: &Migration) -> Error {
    let reason = migration
        .irreversible
        .as_deref()
        .unwrap_or("it has no down");
    Error::new(
        ErrorKind::Migration,
        format!("migration {} cannot be taken back: {reason}", migration.id),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_are_ordered_by_strength() {
        assert!(LockMode::AccessShare < LockMode::AccessExclusive);
        assert!(LockMode::ALL.is_sorted_by_key(|(mode, ..)| *mode));
    }
}

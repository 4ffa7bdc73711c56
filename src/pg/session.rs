//! A read-only session on a target, on one snapshot.

use std::time::Duration;

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{ConnectOptions, Connection, Executor, Row};

use crate::error::{Error, ErrorKind, Result};
use crate::sql;
use crate::sql::{Literal, Sql};

use super::Address;
use super::address::CANNOT_CONNECT;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// To reach the server and log in.
    pub connect: Duration,
    /// One statement.
    pub statement: Duration,
    /// Waiting for a lock.
    pub lock: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            statement: Duration::from_secs(300),
            lock: Duration::from_secs(5),
        }
    }
}

/// The moment that every gate of a run reads.
#[derive(Clone, Debug, serde::Serialize, schemars::JsonSchema)]
pub struct Snapshot {
    /// Postgres' name of the exported snapshot.
    pub id: String,
    /// When it was taken, by the server's clock, in UTC.
    pub taken_at: String,
    /// Whether the server is a hot standby.
    pub in_recovery: bool,
    /// The server's version.
    pub server_version: String,
}

impl Snapshot {
    /// The day on which it was taken, in UTC.
    pub fn day(&self) -> Option<jiff::civil::Date> {
        let taken: jiff::Timestamp = self.taken_at.parse().ok()?;
        Some(taken.to_zoned(jiff::tz::TimeZone::UTC).date())
    }
}

/// A read-only session: `READ ONLY`, `REPEATABLE READ`, with timeouts, a fixed `search_path` and
/// `row_security = off`, so that a policy that would hide rows raises an error.
#[derive(Debug)]
pub struct Session {
    connection: PgConnection,
    address: Address,
    snapshot: Snapshot,
    /// The server's process for this session.
    backend: i32,
}

/// How many rows of an answer are taken, and how many bytes of text they may have.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// Further rows are not looked at.
    pub rows: usize,
    /// From the first row that is too large on, rows are left out.
    pub bytes: usize,
}

/// The rows of an answer for which there was room.
#[derive(Clone, Debug, Default)]
pub struct Taken {
    /// Their columns.
    pub rows: Vec<Vec<Option<String>>>,
    /// How many were left out because they are too large.
    pub left_out: usize,
    bytes: usize,
}

impl Taken {
    /// Takes the columns of a row from `first` on, if there is room.
    fn add(&mut self, row: &PgRow, first: usize, room: Room) -> Result<(), sqlx::Error> {
        if self.rows.len() + self.left_out == room.rows {
            return Ok(());
        }
        let values = (first..row.len()).map(|column| row.try_get(column));
        let values: Vec<Option<String>> = values.collect::<Result<_, _>>()?;
        let bytes = self.bytes + values.iter().flatten().map(String::len).sum::<usize>();
        if self.left_out == 0 && bytes <= room.bytes {
            self.bytes = bytes;
            self.rows.push(values);
        } else {
            self.left_out += 1;
        }
        Ok(())
    }
}

/// The schemas that unqualified names are looked up in.
pub const SEARCH_PATH: &[&str] = &["pg_catalog", "public"];

/// Takes the snapshot, and has the server end a statement whose client is gone: killed, or cut off
/// from the network. Postgres 14 and later can do that, on Linux; others would refuse the setting.
const SNAPSHOT: &str = "
select case when $1 then pg_export_snapshot() end, to_char(now(), 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), pg_is_in_recovery(),
  current_setting('server_version'), pg_backend_pid(),
  case when current_setting('client_connection_check_interval', true) is not null and version() like '%linux%'
    then set_config('client_connection_check_interval', '1000', false) end";

impl Session {
    /// Connects, fixes the settings, and takes a snapshot. `salt` is what statements find as the
    /// setting `postern.salt`.
    pub async fn open(address: &Address, limits: &Limits, salt: &str) -> Result<Self> {
        Self::on(address, limits, salt, None, false).await
    }

    /// The same after a connection was lost: waits for a server that cannot be reached, too, as long as a
    /// connection may take.
    pub async fn open_again(address: &Address, limits: &Limits, salt: &str) -> Result<Self> {
        Self::on(address, limits, salt, None, true).await
    }

    /// A further session on the snapshot that a first one has taken, and still holds.
    pub async fn join(
        address: &Address,
        limits: &Limits,
        salt: &str,
        snapshot: &Snapshot,
    ) -> Result<Self> {
        Self::on(address, limits, salt, Some(snapshot), false).await
    }

    async fn on(
        address: &Address,
        limits: &Limits,
        salt: &str,
        joined: Option<&Snapshot>,
        is_again: bool,
    ) -> Result<Self> {
        let mut connection = connect(address, limits, is_again).await?;
        let milliseconds = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        // Compiling takes longer than it saves: 14 counts over 5 million rows in 2.0 s without, in 2.4 s with.
        // Of the planner's other settings none gained: work_mem, more workers, sorts in place of hashes (benches/engine.sh).
        let setup = sql!(
            "set default_transaction_read_only = on; set statement_timeout = {}; set lock_timeout = {}; \
             set idle_in_transaction_session_timeout = {}; set search_path = pg_catalog, public, pg_temp; \
             set row_security = off; set timezone = 'UTC'; set datestyle = 'ISO, YMD'; \
             set intervalstyle = 'postgres'; set extra_float_digits = 1; set standard_conforming_strings = on; \
             set bytea_output = 'hex'; set lc_monetary = 'C'; \
             set jit = off; set postern.salt = {}; \
             begin isolation level repeatable read read only",
            milliseconds(limits.statement),
            milliseconds(limits.lock),
            // A session waits while others of the run have their turns.
            milliseconds(limits.statement)
                .saturating_mul(4)
                .saturating_add(60_000),
            Literal(salt),
        );
        let opened = async {
            (&mut connection).execute(sqlx::raw_sql(setup)).await?;
            if let Some(snapshot) = joined {
                let import = sql!("set transaction snapshot {}", Literal(&snapshot.id));
                (&mut connection).execute(sqlx::raw_sql(import)).await?;
            }
            let row = sqlx::query(SNAPSHOT)
                .bind(joined.is_none())
                .fetch_one(&mut connection)
                .await?;
            let backend: i32 = row.try_get(4)?;
            let snapshot = match joined {
                Some(snapshot) => snapshot.clone(),
                None => Snapshot {
                    id: row.try_get(0)?,
                    taken_at: row.try_get(1)?,
                    in_recovery: row.try_get(2)?,
                    server_version: row.try_get(3)?,
                },
            };
            // What a failed statement rolls back to, so that the snapshot survives it.
            (&mut connection).execute("savepoint postern").await?;
            Ok::<_, sqlx::Error>((snapshot, backend))
        };
        let (snapshot, backend) = opened.await.map_err(|error| address.error(&error))?;
        Ok(Self {
            connection,
            address: address.clone(),
            snapshot,
            backend,
        })
    }

    /// The moment this session reads.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Where it is connected.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The first `limit` rows of a statement whose columns are all text.
    pub async fn rows(
        &mut self,
        statement: &Sql,
        limit: usize,
    ) -> Result<Vec<Vec<Option<String>>>, Failure> {
        let room = Room {
            rows: limit,
            bytes: usize::MAX,
        };
        let found = self.rows_within(statement, room).await;
        found.map(|taken| taken.rows)
    }

    /// The first rows of a statement whose columns are all text, as far as there is room for them.
    pub async fn rows_within(&mut self, statement: &Sql, room: Room) -> Result<Taken, Failure> {
        let mut taken = Taken::default();
        let found = self.each_row(statement, |row| taken.add(row, 0, room));
        found.await.map(|()| taken)
    }

    /// The rows of a statement whose columns are all text and that has several parts, as far as there is room for
    /// each: the first column of a row is the place of its part, the last ones are the part's. It is planned as one
    /// that finds few rows.
    pub async fn rows_by_part(
        &mut self,
        statement: &Sql,
        parts: &[(usize, Room)],
    ) -> Result<Vec<Taken>, Failure> {
        let mut taken = vec![Taken::default(); parts.len()];
        // The planner takes a condition that hardly any row fulfils for one that half of them do, and then fears to
        // have them sent by workers.
        self.set(&sql!("set parallel_tuple_cost = 0")).await?;
        self.each_row(statement, |row| {
            let place: String = row.try_get(0)?;
            let place: usize = place.parse().expect("a statement numbers its parts");
            let (columns, room) = parts[place];
            taken[place].add(row, row.len() - columns, room)
        })
        .await?;
        self.set(&sql!("reset parallel_tuple_cost")).await?;
        Ok(taken)
    }

    /// Does something with every row of a statement.
    async fn each_row(
        &mut self,
        statement: &Sql,
        mut with: impl FnMut(&PgRow) -> Result<(), sqlx::Error>,
    ) -> Result<(), Failure> {
        use futures_util::TryStreamExt;
        let found: Result<_, sqlx::Error> = async {
            let mut stream = sqlx::query(statement)
                .persistent(false)
                .fetch(&mut self.connection);
            while let Some(row) = stream.try_next().await? {
                with(&row)?;
            }
            Ok(())
        }
        .await;
        match found {
            Ok(()) => Ok(()),
            Err(error) => Err(self.failed(&error, Some(statement)).await),
        }
    }

    /// The one row of a statement whose columns are all text. Further rows carry on its texts: what is long
    /// comes in pieces, so that no more than one of them is held beside what is made of them.
    pub async fn row(&mut self, statement: &Sql) -> Result<Option<Vec<Option<String>>>, Failure> {
        use futures_util::TryStreamExt;
        let found: Result<_, sqlx::Error> = async {
            let mut stream = sqlx::query(statement)
                .persistent(false)
                .fetch(&mut self.connection);
            let mut whole: Option<Vec<Option<String>>> = None;
            while let Some(row) = stream.try_next().await? {
                let whole = whole.get_or_insert_with(|| vec![None; row.len()]);
                for (column, text) in whole.iter_mut().enumerate() {
                    if let Some(piece) = row.try_get::<Option<&str>, _>(column)? {
                        text.get_or_insert_default().push_str(piece);
                    }
                }
            }
            Ok(whole)
        }
        .await;
        match found {
            Ok(found) => Ok(found),
            Err(error) => Err(self.failed(&error, Some(statement)).await),
        }
    }

    /// Bounds every statement that follows, until one fails.
    pub async fn limit(&mut self, time: Duration) -> Result<(), Failure> {
        let milliseconds = u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(1);
        self.set(&sql!("set statement_timeout = {}", milliseconds))
            .await
    }

    /// Plans what follows as this role plans it elsewhere: what is timed is told as it is.
    pub async fn plan_as_elsewhere(&mut self, is_elsewhere: bool) -> Result<(), Failure> {
        let set = match is_elsewhere {
            true => sql!("reset jit"),
            false => sql!("set jit = off"),
        };
        self.set(&set).await
    }

    /// Changes a setting, until a statement fails.
    async fn set(&mut self, set: &Sql) -> Result<(), Failure> {
        match (&mut self.connection).execute(sqlx::raw_sql(set)).await {
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&error, None).await),
        }
    }

    /// Runs a statement until its last row has arrived: how long that took, and how many there were. Each
    /// is let go before the next arrives.
    pub async fn timed(&mut self, statement: &Sql) -> Result<(Duration, u64), Failure> {
        use futures_util::TryStreamExt;
        let begun = std::time::Instant::now();
        let counted: Result<u64, sqlx::Error> = {
            let mut stream = sqlx::query(statement)
                .persistent(false)
                .fetch(&mut self.connection);
            let mut rows = 0;
            loop {
                match stream.try_next().await {
                    Ok(Some(_)) => rows += 1,
                    Ok(None) => break Ok(rows),
                    Err(error) => break Err(error),
                }
            }
        };
        let taken = begun.elapsed();
        self.connection.shrink_buffers();
        match counted {
            Ok(rows) => Ok((taken, rows)),
            Err(error) => Err(self.failed(&error, Some(statement)).await),
        }
    }

    /// The rows of one of Postern's own statements with text parameters.
    pub async fn ask_catalog(
        &mut self,
        statement: &'static str,
        lists: &[Vec<String>],
    ) -> Result<Vec<PgRow>> {
        let mut query = sqlx::query(statement);
        for list in lists {
            query = query.bind(list.clone());
        }
        match query.fetch_all(&mut self.connection).await {
            Ok(rows) => Ok(rows),
            Err(error) => Err(self.failed(&error, None).await.error),
        }
    }

    /// The plan of a statement, as `EXPLAIN (VERBOSE, FORMAT JSON)` gives it.
    pub async fn explain(&mut self, statement: &Sql) -> Result<serde_json::Value, Failure> {
        let explain = sql!("explain (verbose, format json) {}", statement);
        let row = sqlx::query(&explain)
            .persistent(false)
            .fetch_one(&mut self.connection)
            .await;
        match row.and_then(|row| row.try_get::<serde_json::Value, _>(0)) {
            Ok(plan) => Ok(plan),
            Err(error) => {
                let mut failure = self.failed(&error, Some(statement)).await;
                let added = explain.as_str().chars().count() - statement.as_str().chars().count();
                failure.position = failure.position.and_then(|at| at.checked_sub(added));
                Err(failure)
            }
        }
    }

    /// Describes an error and makes the session usable again, if it still is one.
    async fn failed(&mut self, error: &sqlx::Error, statement: Option<&Sql>) -> Failure {
        let mut described = self.address.error(error);
        if let Some(statement) = statement {
            described = described.with_sql(self.address.mask(statement.as_str()));
        }
        // A standby that must remove rows takes back the snapshot that sees them, with the session or without.
        if described.sqlstate() == Some("40001") {
            described = described.with_kind(ErrorKind::ConnectionLost);
        }
        if described.kind() != ErrorKind::ConnectionLost
            && (&mut self.connection)
                .execute("rollback to savepoint postern")
                .await
                .is_err()
        {
            described = described.with_kind(ErrorKind::ConnectionLost);
        }
        Failure {
            error: described,
            position: super::error_position(error),
        }
    }

    /// The server's process for this session.
    pub fn backend(&self) -> i32 {
        self.backend
    }

    /// Ends the session.
    pub async fn close(self) {
        // The report is complete by now; a server that is gone has ended the session itself.
        let _ = self.connection.close().await;
    }
}

/// How long to wait before the next try to connect.
const PAUSE: Duration = Duration::from_millis(100);

/// Connects. Waits for a server that is starting up, as long as a connection may take.
async fn connect(address: &Address, limits: &Limits, is_again: bool) -> Result<PgConnection> {
    let options = address.options().clone().application_name("postern");
    let end = tokio::time::Instant::now() + limits.connect;
    let seconds = limits.connect.as_secs_f32();
    let mut refused: Option<Error> = None;
    loop {
        match tokio::time::timeout_at(end, options.connect()).await {
            Ok(Ok(connection)) => return Ok(connection),
            Ok(Err(error)) => {
                let error = address.error(&error);
                let is_on_its_way = match error.sqlstate() {
                    Some("57P03") => true,
                    Some(CANNOT_CONNECT) => is_again,
                    _ => false,
                };
                if !is_on_its_way {
                    return Err(error);
                }
                refused = Some(error);
                tokio::time::sleep_until(end.min(tokio::time::Instant::now() + PAUSE)).await;
            }
            Err(_) => {
                return Err(match refused {
                    Some(error) => error.note(format!("it was waited for {seconds}s")),
                    None => {
                        let what = format!("{address} did not answer within {seconds}s");
                        Error::new(ErrorKind::Connect, what).with_sqlstate(CANNOT_CONNECT)
                    }
                });
            }
        }
    }
}

/// Ends sessions in the midst of their statements, which closed connections alone would not.
pub async fn terminate(address: &Address, backends: &[i32], limits: &Limits) {
    let options = address.options().clone().application_name("postern");
    let ended = async {
        let mut other = options.connect().await?;
        sqlx::query("select pg_terminate_backend(pid) from unnest($1::int[]) pid")
            .bind(backends)
            .execute(&mut other)
            .await?;
        other.close().await
    };
    // Without it the server looks after its client every second, see [`SNAPSHOT`].
    let _ = tokio::time::timeout(limits.connect, ended).await;
}

/// An error, and where in the statement (in characters, from 1) Postgres saw it.
#[derive(Debug)]
pub struct Failure {
    /// What went wrong.
    pub error: Error,
    /// Where, if Postgres said.
    pub position: Option<usize>,
}

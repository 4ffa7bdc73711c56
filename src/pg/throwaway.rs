//! Databases that Postern made, marked as its own, and may write to.
//!
//! Every writing connection of the crate comes from here, and only after the server itself
//! confirmed the mark.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

use crate::error::{Error, ErrorKind, Result};
use crate::pg::Address;
use crate::pg::owner::{Owner, random_hex};
use crate::sql;
use crate::sql::{Ident, Literal, Sql};

/// What the comment of every throwaway database starts with; its owner follows.
pub(crate) const MARK: &str = "postern throwaway";

/// What the name of every throwaway database starts with.
pub(crate) const PREFIX: &str = "postern_";

/// Postgres cuts names at 63 bytes.
const NAME_BYTES_MAX: usize = 63;

/// A database that Postern created, marked as its own, and will remove.
///
/// It goes with its [`Server`](crate::pg::Server) at the latest; [`Database::remove`] removes it
/// before that.
pub struct Database {
    address: Address,
    maintenance: Address,
    register: Arc<Register>,
}

/// The databases of one server that still have to be removed.
#[derive(Default)]
pub(crate) struct Register(Mutex<Vec<String>>);

impl Register {
    pub(crate) fn add(&self, name: &str) {
        self.lock().push(name.to_owned());
    }

    fn take_out(&self, name: &str) {
        self.lock().retain(|other| other != name);
    }

    /// The names still to be removed, in order of creation.
    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<String>> {
        // A list of names is whole whatever panicked while it was held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Database {
    /// Creates and marks a database, after ending the sessions on its template.
    pub(crate) async fn create(
        maintenance: &Address,
        register: &Arc<Register>,
        label: &str,
        template: &Ident,
        strategy: &Sql,
    ) -> Result<Self> {
        let name = new_name(label);
        let ident = Ident::new(&*name);
        let database = Self {
            address: maintenance.with_database(&name),
            maintenance: maintenance.clone(),
            register: Arc::clone(register),
        };
        let mut session = connect(maintenance).await?;
        end_sessions(&mut session, maintenance, template.as_str()).await?;
        // Registered first: if this future is dropped while the server works, the server's end
        // still removes what may have come to be.
        register.add(&name);
        let create = sql!(
            "create database {} template {}{}",
            ident,
            template,
            strategy
        );
        if let Err(error) = execute(&mut session, maintenance, &create).await {
            register.take_out(&name);
            return Err(error);
        }
        let mark = format!("{MARK} {}", Owner::current());
        let comment = sql!("comment on database {} is {}", ident, Literal(&mark));
        if let Err(error) = execute(&mut session, maintenance, &comment).await {
            // Unmarked, it could never be removed later.
            let drop = sql!("drop database if exists {}", ident);
            execute(&mut session, maintenance, &drop).await?;
            register.take_out(&name);
            return Err(error);
        }
        close(session).await;
        Ok(database)
    }

    /// Where the database is, for any client.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The database's name: `postern_`, the label, and a random part.
    pub fn name(&self) -> &str {
        self.address.database()
    }

    /// A connection that may write.
    ///
    /// Refused, whatever the address says, unless the server confirms that the database carries
    /// Postern's mark.
    pub async fn connect(&self) -> Result<PgConnection> {
        let mut session = connect(&self.address).await?;
        let name = sqlx::query_scalar::<_, String>("select current_database()::text")
            .fetch_one(&mut session)
            .await
            .map_err(|error| self.address.error(&error))?;
        if is_marked(&mut session, &self.address, &name).await? {
            return Ok(session);
        }
        close(session).await;
        Err(not_ours(&name))
    }

    /// Closes the database to sessions for good, so that none can keep it from being cloned.
    pub(crate) async fn close_to_sessions(&self) -> Result<()> {
        let mut session = connect(&self.maintenance).await?;
        let close_it = sql!(
            "alter database {} with allow_connections false",
            Ident::new(self.name())
        );
        execute(&mut session, &self.maintenance, &close_it).await?;
        close(session).await;
        Ok(())
    }

    /// Sets settings that every later session on the database begins with.
    pub async fn configure(&self, settings: &BTreeMap<String, String>) -> Result<()> {
        let mut session = self.connect().await?;
        for (setting, value) in settings {
            let set = sql!(
                "alter database {} set {} to {}",
                Ident::new(self.name()),
                Ident::new(setting),
                Literal(value)
            );
            let done = execute(&mut session, &self.address, &set).await;
            done.map_err(|error| error.context(format!("the setting `{setting}`")))?;
        }
        close(session).await;
        Ok(())
    }

    /// Removes the database, ending the sessions that are still on it.
    ///
    /// A database without Postern's mark is left alone and an error says so. One that is
    /// already gone is a success.
    pub async fn remove(self) -> Result<()> {
        let name = self.name().to_owned();
        let mut session = connect(&self.maintenance).await?;
        remove_marked(&mut session, &self.maintenance, &name).await?;
        close(session).await;
        self.register.take_out(&name);
        Ok(())
    }
}

/// Opens a session that states who it is.
pub(crate) async fn connect(address: &Address) -> Result<PgConnection> {
    let options = address.options().clone().application_name("postern");
    options
        .connect()
        .await
        .map_err(|error| address.error(&error))
}

/// Closes a session in order; a server that is already gone closed it too.
pub(crate) async fn close(session: PgConnection) {
    let _ = session.close().await;
}

pub(crate) async fn execute(
    session: &mut PgConnection,
    address: &Address,
    statement: &Sql,
) -> Result<()> {
    match sqlx::query(statement).execute(session).await {
        Ok(_) => Ok(()),
        Err(error) => Err(address.error(&error).with_sql(statement.as_str())),
    }
}

/// Removes one marked database; an unmarked one is an error, an absent one is fine.
pub(crate) async fn remove_marked(
    session: &mut PgConnection,
    address: &Address,
    name: &str,
) -> Result<()> {
    if !exists(session, address, name).await? {
        return Ok(());
    }
    if !is_marked(session, address, name).await? {
        return Err(not_ours(name));
    }
    remove(session, address, name).await
}

/// Removes one that was never marked, because whoever made it was killed before it came to that.
pub(crate) async fn remove_unmarked(
    session: &mut PgConnection,
    address: &Address,
    name: &str,
) -> Result<()> {
    match is_of_gone_owner(name) {
        true => remove(session, address, name).await,
        false => Err(not_ours(name)),
    }
}

async fn remove(session: &mut PgConnection, address: &Address, name: &str) -> Result<()> {
    end_sessions(session, address, name).await?;
    let drop = sql!("drop database if exists {}", Ident::new(name));
    match execute(session, address, &drop).await {
        // Somebody came back in between: now with force, which waits in steps of 100 ms.
        Err(error) if error.sqlstate() == Some("55006") => {
            let drop = sql!("drop database if exists {} with (force)", Ident::new(name));
            execute(session, address, &drop).await
        }
        result => result,
    }
}

/// Ends every other session on a database and waits until they are gone, at most five seconds.
///
/// Cloning and dropping wait for such sessions by themselves, but in steps of 100 ms and in
/// vain when nobody ends them.
pub(crate) async fn end_sessions(
    session: &mut PgConnection,
    address: &Address,
    name: &str,
) -> Result<()> {
    const END: &str = "select count(pg_catalog.pg_terminate_backend(pid)) \
                       from pg_catalog.pg_stat_activity \
                       where datname = $1 and pid <> pg_catalog.pg_backend_pid()";
    let mut pause_ms = 1;
    let mut waited_ms = 0;
    while waited_ms < 5_000 {
        let left: i64 = sqlx::query_scalar(END)
            .bind(name)
            .fetch_one(&mut *session)
            .await
            .map_err(|error| address.error(&error).with_sql(END))?;
        if left == 0 {
            return Ok(());
        }
        // Postgres has no event for the end of another session.
        tokio::time::sleep(std::time::Duration::from_millis(pause_ms)).await;
        waited_ms += pause_ms;
        pause_ms = (pause_ms * 2).min(50);
    }
    Err(Error::new(
        ErrorKind::Engine,
        format!("sessions on database `{name}` do not end"),
    )
    .help("close the clients that are still connected to it"))
}

async fn exists(session: &mut PgConnection, address: &Address, name: &str) -> Result<bool> {
    sqlx::query_scalar("select exists (select from pg_catalog.pg_database where datname = $1)")
        .bind(name)
        .fetch_one(session)
        .await
        .map_err(|error| address.error(&error))
}

/// Whether the server says that Postern made this database.
async fn is_marked(session: &mut PgConnection, address: &Address, name: &str) -> Result<bool> {
    // Qualified: the search path of a session belongs to the database under test.
    let comment: Option<String> = sqlx::query_scalar(
        "select pg_catalog.shobj_description(oid, 'pg_database') \
         from pg_catalog.pg_database where datname = $1",
    )
    .bind(name)
    .fetch_optional(session)
    .await
    .map_err(|error| address.error(&error))?
    .flatten();
    Ok(name.starts_with(PREFIX) && comment.is_some_and(|comment| comment.starts_with(MARK)))
}

fn not_ours(name: &str) -> Error {
    Error::new(
        ErrorKind::Engine,
        format!(
            "database `{name}` does not carry Postern's mark; it is neither written to nor removed"
        ),
    )
    .help("Postern writes only to databases that it created itself in the same run")
}

/// `postern_`, the label in plain characters, whose it is, and a random part.
///
/// Its owner is in the name because the mark follows the database by a moment: whoever is killed
/// in between leaves one that is known by its name alone.
fn new_name(label: &str) -> String {
    let tail = format!("{}_{}", Owner::current().tag(), &random_hex()[..6]);
    let room = NAME_BYTES_MAX - PREFIX.len() - 1 - tail.len();
    let plain = plain(label, room);
    format!("{PREFIX}{plain}_{tail}")
}

/// Whether a name was given by a process that has certainly ended.
pub(crate) fn is_of_gone_owner(name: &str) -> bool {
    let mut parts = name.rsplit('_');
    // The random part, then the owner.
    let tag = parts.nth(1);
    name.starts_with(PREFIX) && tag.is_some_and(Owner::is_tag_gone)
}

/// A label in characters that need no quotes, cut to a length.
pub(crate) fn plain(label: &str, length_max: usize) -> String {
    let plain = label.chars().map(|c| match c.to_ascii_lowercase() {
        c @ ('a'..='z' | '0'..='9') => c,
        _ => '_',
    });
    plain.take(length_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_fits_postgres_whatever_the_label() {
        for label in ["", "orders", "Ünï \"x\"; drop", &"x".repeat(200)] {
            let name = new_name(label);
            assert!(name.len() <= NAME_BYTES_MAX, "{name}");
            assert!(
                name.bytes()
                    .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'),
                "{name}"
            );
        }
        assert_ne!(new_name("x"), new_name("x"));
    }
}

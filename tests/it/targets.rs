//! Targets that are not as one would wish: each failure is a sentence with its SQLSTATE and exit
//! code 3, and all other gates are evaluated.
#![cfg(unix)]

mod login;
mod midrun;
mod privileges;
mod standby;

use postern::pg::{Address, Database, Server, ServerOptions};
use sqlx::postgres::PgConnection;
use tokio::sync::OnceCell;

use crate::support;

/// A server that asks every role but `postgres` for its password, and allows replication.
async fn guarded() -> &'static Server {
    static SERVER: OnceCell<Server> = OnceCell::const_new();
    SERVER
        .get_or_init(|| async {
            use std::os::unix::fs::PermissionsExt;
            let rules = std::env::temp_dir().join(format!("postern-hba-{}", std::process::id()));
            let text = "local all postgres trust\nlocal replication postgres trust\n\
                        local all all scram-sha-256\n";
            std::fs::write(&rules, text).unwrap();
            // Postgres may run as another user than these tests.
            let readable = std::fs::Permissions::from_mode(0o644);
            std::fs::set_permissions(&rules, readable).unwrap();
            let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
            let options = ServerOptions {
                settings: vec![
                    setting("hba_file", rules.to_str().unwrap()),
                    setting("wal_level", "replica"),
                    setting("hot_standby", "on"),
                    // One test's base backup lets go of what another's standby has yet to read.
                    setting("wal_keep_size", "2GB"),
                ],
                ..support::local()
            };
            let server = Server::start(&options).await.unwrap();
            std::fs::remove_file(rules).unwrap();
            server
        })
        .await
}

/// A database with a table of ten rows and one of none.
async fn shop(server: &Server, extra: &'static str) -> Database {
    let database = server.create_database("shop").await.unwrap();
    let mut session = database.connect().await.unwrap();
    let text = "create schema s; create table s.games as select generate_series(1, 10) as id; \
                create table s.secret (id int);";
    sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    sqlx::raw_sql(extra).execute(&mut session).await.unwrap();
    database
}

/// A session past the library's guard, as the tests' own hand on the server.
async fn hand(address: &Address) -> PgConnection {
    use sqlx::ConnectOptions;
    address.options().connect().await.unwrap()
}

/// The URL of a database on the same server, as it would be typed.
fn url(server: &Server, login: &str, database: &str) -> String {
    let socket = server.maintenance().options().get_socket().unwrap();
    format!(
        "postgres://{login}@localhost/{database}?host={}&sslmode=disable",
        socket.display()
    )
}

const TEN: &str = "[[gate]]\nid='ten'\nkind='row_count'\ntable='s.games'\nequals=10\n";
const ELEVEN: &str = "[[gate]]\nid='eleven'\nkind='row_count'\ntable='s.games'\nequals=11\n";

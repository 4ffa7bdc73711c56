//! Throwaway servers and databases: they work, they are guarded, and nothing of them stays.

mod auto;
mod docker;
mod local;
mod url;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use postern::pg::Database;
use sqlx::postgres::PgConnection;
use sqlx::{ConnectOptions, Connection};

use crate::support;

/// A session past the library's guard, as any other client would open it.
async fn plain_session(database: &Database) -> PgConnection {
    let options = database.address().options().clone();
    options.connect().await.expect("the database is there")
}

async fn run(session: &mut PgConnection, statement: &'static str) {
    sqlx::query(statement)
        .execute(session)
        .await
        .expect(statement);
}

async fn number(session: &mut PgConnection, query: &'static str) -> i64 {
    sqlx::query_scalar(query)
        .fetch_one(session)
        .await
        .expect(query)
}

/// Set in a child process of these tests: it starts a server, tells where, and does as it says.
const ROLE: &str = "POSTERN_TEST_OWNER";

/// A child process that owns a server.
struct Owner {
    process: Child,
    /// The server's folder, or its container.
    told: String,
    /// Kept open: a process that cannot print does not end well.
    _output: BufReader<ChildStdout>,
}

impl Owner {
    fn folder(&self) -> &Path {
        Path::new(&self.told)
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        // Most have ended by now; a failed test must not leave its child.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn owner(role: &str) -> Owner {
    owner_with(role, &[])
}

fn owner_with(role: &str, environment: &[(&str, &str)]) -> Owner {
    let mut process = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "engines::a_process_that_owns_a_server",
            "--nocapture",
        ])
        .env(ROLE, role)
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(process.stdout.take().unwrap());
    let told = output
        .by_ref()
        .lines()
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("told ").map(str::to_owned))
        .expect("the child tells what it owns");
    Owner {
        process,
        told,
        _output: output,
    }
}

/// What the tests run as a child process; does nothing by itself.
#[tokio::test]
async fn a_process_that_owns_a_server() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let server = match role.as_str() {
        "give up" => return local::give_up_at_several_moments().await,
        #[cfg(feature = "docker")]
        "docker error" => return docker::tell_error().await,
        #[cfg(feature = "docker")]
        "docker" => docker::tell_container().await,
        _ => local::tell_folder().await,
    };
    let server = Box::leak(Box::new(server));
    let database = server.create_database("owned").await.unwrap();
    let _session = database.connect().await.unwrap();
    println!("\nready");
    // "exit": a leaked server, as in a static, and a plain end of the process.
    if role != "exit" {
        std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).unwrap();
    }
}

#[tokio::test]
async fn a_new_database_is_empty_and_writable() {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    run(&mut session, "create table t as select 1 as x").await;
    assert_eq!(
        number(
            &mut session,
            "select count(*) from pg_tables where schemaname = 'public'"
        )
        .await,
        1
    );
    database.remove().await.unwrap();
}

#[tokio::test]
async fn a_clone_has_the_rows_of_its_template_even_while_a_session_is_on_it() {
    let template = support::database().await;
    let mut session = template.connect().await.unwrap();
    run(
        &mut session,
        "create table t as select generate_series(1, 42) as x",
    )
    .await;
    // The session stays open: a plain CREATE DATABASE would wait five seconds and fail.
    let copy = support::server()
        .await
        .clone_database(&template, "copy")
        .await
        .unwrap();
    let mut inside = copy.connect().await.unwrap();
    assert_eq!(number(&mut inside, "select count(*) from t").await, 42);
    run(&mut inside, "delete from t").await;
    let mut again = template.connect().await.unwrap();
    assert_eq!(number(&mut again, "select count(*) from t").await, 42);
}

#[tokio::test]
async fn an_unmarked_database_is_neither_written_to_nor_removed() {
    let database = support::database().await;
    let mut session = plain_session(&database).await;
    let name = database.name().to_owned();
    let comment = postern::sql!(
        "comment on database {} is null",
        postern::sql::Ident::new(&*name)
    );
    sqlx::query(comment).execute(&mut session).await.unwrap();
    let refused = database.connect().await.unwrap_err();
    assert!(
        refused.message().contains("does not carry Postern's mark"),
        "{refused:?}"
    );
    assert!(refused.help_text().is_some());
    let refused = database.remove().await.unwrap_err();
    assert!(refused.message().contains(&name), "{refused:?}");
    assert_eq!(number(&mut session, "select 1::bigint").await, 1);
    session.close().await.unwrap();
}

#[tokio::test]
async fn removing_a_database_ends_the_sessions_on_it() {
    let database = support::database().await;
    let name = database.name().to_owned();
    let mut left = database.connect().await.unwrap();
    database.remove().await.unwrap();
    assert!(left.ping().await.is_err());
    let other = support::database().await;
    let mut session = other.connect().await.unwrap();
    let found: i64 = sqlx::query_scalar("select count(*) from pg_database where datname = $1")
        .bind(name)
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(found, 0);
}

#[tokio::test]
async fn databases_with_one_label_are_different_databases() {
    let server = support::server().await;
    let (one, two) = tokio::join!(
        server.create_database("same"),
        server.create_database("same")
    );
    assert_ne!(one.unwrap().name(), two.unwrap().name());
}

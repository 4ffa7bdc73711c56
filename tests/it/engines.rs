//! Throwaway servers and databases: they work, they are guarded, and nothing of them stays.

mod local;

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

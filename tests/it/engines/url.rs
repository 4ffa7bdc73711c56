//! The `url` engine: databases on a server that is somebody else's.

use postern::pg::{Address, EngineChoice, Server, ServerOptions};
use postern::sql;
use postern::sql::{Ident, Literal};

use super::{number, plain_session, run};
use crate::support;

fn options(address: &Address) -> ServerOptions {
    ServerOptions {
        engine: EngineChoice::Url,
        url: Some(address.clone()),
        ..ServerOptions::default()
    }
}

/// The address of this process's shared server, under a role.
async fn address(role: &'static str, attributes: &'static str) -> Address {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    let create = match attributes {
        "createdb" => sql!("create role {} login createdb", Ident::new(role)),
        _ => sql!("create role {} login", Ident::new(role)),
    };
    sqlx::query(create).execute(&mut session).await.unwrap();
    let options = database.address().options().clone();
    Address::from_options(options.username(role).database("postgres"))
}

async fn exists(name: &str) -> bool {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(&mut session)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_role_with_createdb_gets_databases_and_stop_removes_them() {
    let address = address("url_creator", "createdb").await;
    let server = Server::start(&options(&address)).await.unwrap();
    assert_eq!(server.engine(), EngineChoice::Url);
    assert!(
        server
            .describe()
            .starts_with("databases on postgres://url_creator@"),
        "{}",
        server.describe()
    );
    let template = server.create_database("template").await.unwrap();
    let mut held = template.connect().await.unwrap();
    run(&mut held, "create table t as select 1 as x").await;
    let copy = server.clone_database(&template, "copy").await.unwrap();
    assert!(copy.name().starts_with("postern_copy_"), "{}", copy.name());
    let mut session = copy.connect().await.unwrap();
    assert_eq!(number(&mut session, "select count(*) from t").await, 1);
    let names = [template.name().to_owned(), copy.name().to_owned()];
    server.stop().await.unwrap();
    for name in names {
        assert!(!exists(&name).await, "{name}");
    }
}

#[tokio::test]
async fn a_panic_leaves_no_database_on_a_named_server() {
    let address = address("url_panicker", "createdb").await;
    let server = Server::start(&options(&address)).await.unwrap();
    let database = server.create_database("x").await.unwrap();
    let name = database.name().to_owned();
    let task = tokio::spawn(async move {
        let _held = (server, database);
        panic!("the test's own panic");
    });
    assert!(task.await.unwrap_err().is_panic());
    assert!(!exists(&name).await);
}

#[tokio::test]
async fn a_role_without_createdb_is_told_what_it_lacks() {
    let address = address("url_reader", "").await;
    let error = Server::start(&options(&address)).await.unwrap_err();
    assert!(
        error
            .message()
            .starts_with("role `url_reader` may not create databases"),
        "{error:?}"
    );
    assert_eq!(
        error.help_text(),
        Some("let a superuser run `ALTER ROLE \"url_reader\" CREATEDB`, or name another role")
    );
}

#[tokio::test]
async fn only_marked_databases_of_dead_owners_are_swept() {
    let address = address("url_sweeper", "createdb").await;
    let server = Server::start(&options(&address)).await.unwrap();
    let [living, dead, elsewhere, unmarked] = [
        server.create_database("living").await.unwrap(),
        server.create_database("dead").await.unwrap(),
        server.create_database("elsewhere").await.unwrap(),
        server.create_database("unmarked").await.unwrap(),
    ];
    let mut session = plain_session(&living).await;
    let mark: String = sqlx::query_scalar(
        "select shobj_description(oid, 'pg_database') from pg_database where datname = $1",
    )
    .bind(living.name())
    .fetch_one(&mut session)
    .await
    .unwrap();
    // No process has this number: Linux and macOS end far below.
    let gone = mark.replace(&format!("pid={}", std::process::id()), "pid=2147483646");
    let foreign = gone.replace("machine=", "machine=f");
    for (name, comment) in [
        (dead.name(), Some(gone.as_str())),
        (elsewhere.name(), Some(foreign.as_str())),
        (unmarked.name(), None),
    ] {
        let comment = match comment {
            Some(text) => sql!(
                "comment on database {} is {}",
                Ident::new(name),
                Literal(text)
            ),
            None => sql!("comment on database {} is null", Ident::new(name)),
        };
        sqlx::query(comment).execute(&mut session).await.unwrap();
    }
    // What a process leaves that is killed before it marks what it made.
    let halfway = dead.name().replace(
        &format!("p{:x}s", std::process::id()),
        &format!("p{:x}s", 2_147_483_646),
    );
    let halfway = halfway.replace("_dead_", "_half_");
    let create = sql!("create database {}", Ident::new(&*halfway));
    sqlx::query(create).execute(&mut session).await.unwrap();
    let next = Server::start(&options(&address)).await.unwrap();
    assert!(!exists(&halfway).await);
    assert!(exists(living.name()).await);
    assert!(!exists(dead.name()).await);
    assert!(exists(elsewhere.name()).await);
    assert!(exists(unmarked.name()).await);
    next.stop().await.unwrap();
    // The unmarked one is not removed even by the server that made it, and that is an error.
    let name = unmarked.name().to_owned();
    let error = server.stop().await.unwrap_err();
    assert!(error.message().contains(&name), "{error:?}");
    assert!(exists(&name).await);
    assert!(
        !exists(living.name()).await,
        "one that resists does not keep the others"
    );
}

#[tokio::test]
async fn a_server_that_is_not_there_is_an_error_with_its_address() {
    let folder = tempfile::tempdir().unwrap();
    let options_ = sqlx::postgres::PgConnectOptions::new_without_pgpass()
        .socket(folder.path())
        .username("nobody")
        .password("hunter2222");
    let error = Server::start(&options(&Address::from_options(options_)))
        .await
        .unwrap_err();
    let shown = error.render(false);
    assert!(shown.contains(&*folder.path().to_string_lossy()), "{shown}");
    assert!(!shown.contains("hunter2222"), "{shown}");
}

#[tokio::test]
async fn url_without_a_url_and_settings_for_it_are_usage_errors() {
    let error = Server::start(&ServerOptions {
        engine: EngineChoice::Url,
        ..ServerOptions::default()
    })
    .await
    .unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error:?}");
    let address = support::server().await.maintenance().clone();
    let error = Server::start(&ServerOptions {
        settings: vec![("work_mem".into(), "1MB".into())],
        ..options(&address)
    })
    .await
    .unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error:?}");
}

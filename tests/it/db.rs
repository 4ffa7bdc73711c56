//! A database of one's own: whole, alone, and gone or kept as it should be.
#![cfg(unix)]

mod command;
mod full;
mod killed;
mod sandbox;

use std::process::Command;

use postern::pg::{Address, EngineChoice, Server, ServerOptions};
use postern::{Migrations, TestDb};
use rstest::{fixture, rstest};
use sqlx::ConnectOptions;

use self::sandbox::{Running, Sandbox, role};

/// Tells a child process the server that is named to it.
const NAMED: &str = "POSTERN_TEST_NAMED";

const PLAYERS: &str = "create table players (id int primary key, name text not null);";

fn migrations() -> Migrations {
    Migrations::sql(PLAYERS)
}

async fn players(db: &TestDb) -> i64 {
    sqlx::query_scalar("select count(*) from players")
        .fetch_one(db.pool())
        .await
        .unwrap()
}

async fn add_player(db: &TestDb, id: i32) {
    sqlx::query("insert into players values ($1, 'Ruth')")
        .bind(id)
        .execute(db.pool())
        .await
        .unwrap();
}

/// Whether a database is on the server of another one.
async fn is_beside(db: &TestDb, name: &str) -> bool {
    sqlx::query_scalar("select exists (select from pg_database where datname = $1)")
        .bind(name)
        .fetch_one(db.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn two_tests_of_one_recipe_do_not_see_each_other() {
    let one = TestDb::new(migrations()).await.unwrap();
    let two = TestDb::new(migrations()).await.unwrap();
    add_player(&one, 1).await;
    add_player(&two, 2).await;
    add_player(&two, 3).await;
    assert_eq!((players(&one).await, players(&two).await), (1, 2));
    assert_ne!(one.name(), two.name());
    assert!(
        one.name().contains("two_tests_of_one_recipe_do_not"),
        "{}",
        one.name()
    );
}

#[fixture]
async fn db() -> TestDb {
    TestDb::new(migrations()).await.unwrap()
}

#[rstest]
#[case(1)]
#[case(2)]
#[tokio::test]
async fn a_fixture_gives_every_case_its_own(#[future(awt)] db: TestDb, #[case] id: i32) {
    add_player(&db, id).await;
    assert_eq!(players(&db).await, 1);
}

#[tokio::test]
async fn any_other_client_takes_the_url() {
    let db = TestDb::new(migrations()).await.unwrap();
    add_player(&db, 7).await;
    let output = Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "select id from players"])
        .arg(db.url())
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "7");
}

#[tokio::test]
async fn a_dropped_database_is_gone_even_with_sessions_on_it() {
    let witness = TestDb::new(Migrations::none()).await.unwrap();
    let db = TestDb::new(migrations()).await.unwrap();
    add_player(&db, 1).await;
    let _session = db.pool().acquire().await.unwrap();
    let name = db.name().to_owned();
    assert!(is_beside(&witness, &name).await);
    drop(db);
    assert!(!is_beside(&witness, &name).await);
}

#[tokio::test]
async fn a_folder_of_migrations_is_applied_in_order_then_the_seeds() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    write("9_players.sql", PLAYERS);
    write(
        "10_born.up.sql",
        "alter table players add column born date;",
    );
    write("10_born.down.sql", "this is not read");
    write(
        "20240101000000_index.sql",
        "-- no-transaction\ncreate index concurrently on players (born);",
    );
    write(
        "seed.txt",
        "insert into players values (1, 'Ruth', '1895-02-06');",
    );
    let db = TestDb::builder(Migrations::folder(folder.path()))
        .seed_file(folder.path().join("seed.txt"))
        .seed("insert into players values (2, 'Cobb', '1886-12-18');")
        .build()
        .await
        .unwrap();
    assert_eq!(players(&db).await, 2);
}

#[tokio::test]
async fn a_migration_that_fails_says_where_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("1_x.sql"), "select 1;\nselect nothing;").unwrap();
    let error = TestDb::new(Migrations::folder(folder.path()))
        .await
        .unwrap_err();
    let shown = error.render(false);
    assert!(shown.contains("1_x.sql:2:8"), "{shown}");
    assert_eq!(error.sqlstate(), Some("42703"));
}

#[tokio::test]
async fn a_template_is_closed_while_it_is_copied() {
    // Its content names the template.
    let text = format!("{PLAYERS} -- closed");
    let first = TestDb::new(Migrations::sql(&*text)).await.unwrap();
    let templates: Vec<(String, bool, bool)> = sqlx::query_as(
        "select datname::text, datistemplate, datallowconn from pg_database \
         where datname like 'postern\\_t\\_%'",
    )
    .fetch_all(first.pool())
    .await
    .unwrap();
    assert!(!templates.is_empty());
    for (name, is_template, allows) in templates {
        assert!(is_template && !allows, "{name}");
    }
}

#[tokio::test]
async fn a_named_server_serves_test_databases_too() {
    let options = named(crate::support::server().await.maintenance().clone());
    let build = || {
        TestDb::builder(migrations())
            .server(options.clone())
            .build()
    };
    let (one, two) = (build().await.unwrap(), build().await.unwrap());
    add_player(&one, 1).await;
    assert_eq!((players(&one).await, players(&two).await), (1, 0));
    let name = one.name().to_owned();
    drop(one);
    assert!(!is_beside(&two, &name).await);
}

fn named(maintenance: Address) -> ServerOptions {
    ServerOptions {
        engine: EngineChoice::Url,
        url: Some(maintenance),
        ..ServerOptions::default()
    }
}

/// The databases on a server that carry the mark of a process, by name.
async fn made_by(server: &Address, process: u32) -> Vec<String> {
    let mut session = server.options().connect().await.unwrap();
    let names = sqlx::query_scalar(
        "select datname::text from pg_database \
         where shobj_description(oid, 'pg_database') ~ (' pid=' || $1 || ' ') order by 1",
    );
    let names = names.bind(process.to_string());
    names.fetch_all(&mut session).await.unwrap()
}

#[rstest]
#[case::one(1, 0)]
#[case::three(3, 1)]
#[tokio::test]
async fn on_a_named_server_a_template_stays_only_where_it_was_copied_and_is_swept(
    #[case] databases: usize,
    #[case] templates: usize,
) {
    // A server that no other test sweeps.
    let server = Server::start(&crate::support::local()).await.unwrap();
    let maintenance = server.maintenance().clone();
    let sandbox = Sandbox::new();
    let mut process = sandbox.role(&format!("named {databases}"));
    process.env(NAMED, maintenance.to_secret_url());
    let process = Running(process.spawn().unwrap());
    let id = process.0.id();
    process.told();
    let left = made_by(&maintenance, id).await;
    assert_eq!(left.len(), templates, "{left:?}");
    let is_template = |name: &String| name.starts_with("postern_template_");
    assert!(left.iter().all(is_template), "{left:?}");
    let next = Server::start(&named(maintenance.clone())).await.unwrap();
    assert_eq!(made_by(&maintenance, id).await, Vec::<String>::new());
    next.stop().await.unwrap();
    server.stop().await.unwrap();
}

#[rstest]
#[case::data("POSTERN_DATA", "/nowhere/at/all")]
#[case::programs("POSTERN_PG_BIN", "/nowhere/at/all")]
fn what_was_named_is_not_replaced(#[case] variable: &str, #[case] folder: &str) {
    let sandbox = Sandbox::new();
    let output = sandbox
        .command(env!("CARGO_BIN_EXE_postern"))
        .args(["db", "--", "true"])
        .env(variable, folder)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{said}");
    assert!(
        said.contains(&format!("error: {variable} is `{folder}`")),
        "{said}"
    );
}

#[tokio::test]
async fn copies_made_ahead_are_handed_over_once() {
    let recipe = || TestDb::builder(Migrations::sql(format!("{PLAYERS} -- warm"))).warm(2);
    let mut dbs = Vec::new();
    for id in 0..6 {
        let db = recipe().build().await.unwrap();
        add_player(&db, id).await;
        dbs.push(db);
    }
    for db in &dbs {
        assert_eq!(players(db).await, 1);
    }
}

#[tokio::test]
async fn an_extension_is_there_before_the_migrations() {
    let any = TestDb::new(Migrations::none()).await.unwrap();
    // Not every build brings the same ones; both name a type like themselves.
    let name: String = sqlx::query_scalar(
        "select name::text from pg_available_extensions where name in ('hstore', 'vector')",
    )
    .fetch_one(any.pool())
    .await
    .unwrap();
    let db = TestDb::builder(Migrations::sql(format!("create table t (x {name})")))
        .extension(name)
        .build()
        .await
        .unwrap();
    let found: i64 = sqlx::query_scalar("select count(*) from t")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert_eq!(found, 0);
}

#[tokio::test]
async fn over_tcp_every_role_has_a_password() {
    let db = TestDb::builder(Migrations::sql("create table t ()"))
        .role("reader")
        .tcp()
        .build()
        .await
        .unwrap();
    assert_eq!(db.address().options().get_host(), "127.0.0.1");
    let said = |url: &str| {
        let mut psql = Command::new("psql");
        let psql = psql.args(["-X", "-A", "-t", "-w", "-c", "select current_user", url]);
        let output = psql.output().unwrap();
        let out = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        out + &String::from_utf8_lossy(&output.stderr)
    };
    let url = db.url_as("reader");
    assert_eq!(said(&url), "reader");
    let (start, rest) = url.split_once("reader:").unwrap();
    let (_, place) = rest.split_once('@').unwrap();
    let nobody = said(&format!("{start}reader@{place}"));
    assert!(nobody.contains("no password supplied"), "{nobody}");
}

#[tokio::test]
async fn roles_and_settings_come_with_a_server_of_ones_own() {
    let shared = TestDb::new(migrations()).await.unwrap();
    let db = TestDb::builder(Migrations::sql(
        "create table t (); grant select on t to reader;",
    ))
    .role("reader")
    .setting("work_mem", "7MB")
    .build()
    .await
    .unwrap();
    let folder = db.address().options().get_socket().unwrap().clone();
    assert_ne!(Some(&folder), shared.address().options().get_socket());
    let said = |sql: &str| {
        let output = Command::new("psql")
            .args(["-X", "-A", "-t", "-c", sql])
            .arg(db.url_as("reader"))
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
            + &String::from_utf8_lossy(&output.stderr)
    };
    assert_eq!(said("show work_mem"), "7MB");
    assert_eq!(said("select count(*) from t"), "0");
    assert!(said("insert into t default values").contains("permission denied"));
    drop(db);
    assert!(!folder.exists());
}

#[rstest]
#[case::spaces("a folder with spaces, commas and a quote\"")]
#[case::letters("Ürgüp 日本")]
#[case::too_long_for_a_socket(&"x".repeat(120))]
#[tokio::test]
async fn data_may_be_anywhere(#[case] name: &str) {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::Builder::new()
        .permissions(std::fs::Permissions::from_mode(0o755))
        .tempdir_in("/tmp")
        .unwrap();
    let folder = parent.path().join(name);
    std::fs::create_dir(&folder).unwrap();
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
    let db = TestDb::builder(migrations())
        .server(ServerOptions {
            data_dir: Some(folder.clone()),
            ..ServerOptions::default()
        })
        .own_server()
        .build()
        .await
        .unwrap();
    let data: String = sqlx::query_scalar("show data_directory")
        .fetch_one(db.pool())
        .await
        .unwrap();
    assert!(data.starts_with(&*folder.to_string_lossy()), "{data}");
    let output = Command::new("psql")
        .args(["-X", "-c", "select 1"])
        .arg(db.url())
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    let socket = db.address().options().get_socket().unwrap().clone();
    drop(db);
    assert!(!socket.exists());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
}

#[test]
fn processes_share_one_server_and_its_template() {
    let sandbox = Sandbox::new();
    let told: Vec<String> = (0..3)
        .map(|_| sandbox.child("where"))
        .collect::<Vec<_>>()
        .into_iter()
        .map(|child| child.told())
        .collect();
    assert!(told.iter().all(|one| *one == told[0]), "{told:?}");
    sandbox.assert_goes();
}

#[test]
fn a_failed_test_keeps_its_database_and_prints_its_url() {
    let sandbox = Sandbox::new();
    let output = sandbox.child("panic").output();
    let said = String::from_utf8_lossy(&output.stderr);
    let url = said
        .split('\'')
        .find(|word| word.starts_with("postgres://"))
        .unwrap_or_else(|| panic!("{said}"));
    let seen = Command::new("psql")
        .args(["-X", "-A", "-t", "-c", "select name from players", url])
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&seen.stdout).trim(), "Ruth");
    // Another process sweeps what nobody uses, and leaves this.
    sandbox.child("where").told();
    let listed = sandbox.postern(&["db", "list"]);
    assert!(listed.contains("kept after a failure"), "{listed}");
    assert_eq!(sandbox.postern(&["db", "sweep"]), "removed 1 database\n");
    sandbox.assert_goes();
}

/// What the tests run as a child process; does nothing by itself.
#[tokio::test]
async fn a_process_that_uses_databases() {
    let Some(role) = role() else { return };
    match role.as_str() {
        "where" => {
            let db = TestDb::new(migrations()).await.unwrap();
            let (started, templates): (String, i64) = sqlx::query_as(
                "select pg_postmaster_start_time()::text, count(*) \
                 from pg_database where datname like 'postern\\_t\\_%'",
            )
            .fetch_one(db.pool())
            .await
            .unwrap();
            println!("\ntold {started} {templates}");
        }
        "panic" => {
            let db = TestDb::new(migrations()).await.unwrap();
            add_player(&db, 1).await;
            panic!("the test's own panic");
        }
        named_server if named_server.starts_with("named ") => {
            let url = std::env::var(NAMED).unwrap();
            let options = named(Address::parse(&url).unwrap());
            let wanted = named_server["named ".len()..].parse().unwrap();
            let mut databases = Vec::new();
            for id in 1..=wanted {
                let builder = TestDb::builder(migrations()).server(options.clone());
                let db = builder.build().await.unwrap();
                add_player(&db, id).await;
                assert_eq!(players(&db).await, 1);
                databases.push(db);
            }
            println!("\ntold {wanted}");
        }
        "churn" => killed::churn().await,
        "hold" => killed::hold().await,
        "many" => killed::many().await,
        other => panic!("no such role: {other}"),
    }
}

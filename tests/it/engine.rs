//! How gates are measured: on how many connections, and where nothing need be read at all.

use std::sync::atomic::{AtomicBool, Ordering};

use postern::pg::Database;
use sqlx::postgres::PgConnection;

use crate::project::{Project, Said};
use crate::support;

async fn filled(text: &'static str) -> Database {
    let database = support::database().await;
    let mut session = database.connect().await.unwrap();
    sqlx::raw_sql(text).execute(&mut session).await.unwrap();
    database
}

fn check(project: &Project, url: &str, more: &[&str]) -> Said {
    let check = ["check", "--url", url, "--format", "json"];
    project.run(&[&check, more].concat())
}

/// The URL of a database for another role.
fn url_of(database: &Database, role: &str) -> String {
    let options = database.address().options();
    let socket = options.get_socket().unwrap().display().to_string();
    let (name, port) = (database.name(), options.get_port());
    format!("postgres://{role}@localhost:{port}/{name}?host={socket}&sslmode=disable")
}

const PARITY: &str = "\
[[gate]]\nid='there'\nkind='row_count_parity'\ntable='s.a'\nagainst='s.b'\n\
[[gate]]\nid='back'\nkind='row_count_parity'\ntable='s.b'\nagainst='s.a'\n\
[[gate]]\nid='same'\nkind='content_parity'\ntable='s.a'\nagainst='s.b'\nkey=['id']\n\
[[gate]]\nid='groups'\nkind='row_count_parity'\ntable='s.a'\nagainst='s.b'\ngroup_by=['n']\n\
[[gate]]\nid='missing'\nkind='foreign_key'\ntable='s.a'\ncolumns=['id']\nreferences='s.b(id)'\n\
[[gate]]\nid='extra'\nkind='foreign_key'\ntable='s.b'\ncolumns=['id']\nreferences='s.a(id)'\n";

#[tokio::test]
async fn what_is_equal_in_every_committed_state_is_equal_on_every_connection() {
    let database = filled(
        "create schema s; create table s.a (id int primary key, n int); create table s.b (like s.a including all); \
         insert into s.a select g, g % 3 from generate_series(1, 50) g; insert into s.b select * from s.a",
    )
    .await;
    let project = Project::new(&[("gates/g.toml", PARITY)]);
    let url = database.address().to_secret_url();
    let is_over = AtomicBool::new(false);
    let mut writer: PgConnection = database.connect().await.unwrap();
    let write = async {
        let mut commits = 0_u32;
        while !is_over.load(Ordering::Relaxed) {
            let text = "begin; insert into s.a select max(id) + 1, max(id) % 3 from s.a; \
                        insert into s.b select * from s.a order by id desc limit 1; \
                        update s.a set n = n + 1 where id % 5 = 0; update s.b set n = n + 1 where id % 5 = 0; commit";
            sqlx::raw_sql(text).execute(&mut writer).await.unwrap();
            commits += 1;
        }
        commits
    };
    let read = async {
        let read = tokio::task::spawn_blocking(move || {
            (0..30)
                .map(|_| check(&project, &url, &["--connections", "4"]))
                .find(|said| said.code != Some(0))
        });
        let read = read.await;
        is_over.store(true, Ordering::Relaxed);
        read.unwrap()
    };
    let (commits, wrong) = tokio::join!(write, read);
    assert!(wrong.is_none_or(|said| panic!("{}", said.all())));
    assert!(commits > 30, "{commits} commits beside 30 runs");
}

#[tokio::test]
async fn a_role_that_may_have_one_connection_is_content_with_it() {
    let database = filled(
        "create schema s; create table s.a as select 1 as id; create table s.b as table s.a; \
         create role it_lonely login connection limit 1; grant usage on schema s to it_lonely; \
         grant select on all tables in schema s to it_lonely",
    )
    .await;
    let project = Project::new(&[("gates/g.toml", PARITY)]);
    let said = check(
        &project,
        &url_of(&database, "it_lonely"),
        &["--connections", "3"],
    );
    let mut session = database.connect().await.unwrap();
    let away = "drop owned by it_lonely; drop role it_lonely";
    sqlx::raw_sql(away).execute(&mut session).await.unwrap();
    assert!(said.stderr.starts_with("note: "), "{}", said.all());
    assert!(
        said.stderr.contains(": 1 of 3 connections could be had: "),
        "{}",
        said.stderr
    );
    assert!(
        said.stderr.contains("too many connections for role"),
        "{}",
        said.stderr
    );
    let expected = ["there passed", "back passed", "same passed"];
    assert_eq!(said.told()[..3], expected, "{}", said.stdout);
}

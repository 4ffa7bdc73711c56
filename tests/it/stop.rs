//! A run that ends before its end: by a signal, or because its time is over.
#![cfg(unix)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postern::pg::{Address, Database};
use rstest::rstest;
use sqlx::ConnectOptions;
use sqlx::postgres::PgConnection;

use crate::project::{Project, Said};
use crate::support;

const GATES: &str = "\
[[gate]]\nid='first'\nkind='row_count'\ntable='pg_catalog.pg_class'\nequals=0\n\
[[gate]]\nid='sleeps'\nkind='sql'\nquery='select relname, pg_sleep(3600) from pg_class'\n\
[[gate]]\nid='last'\nkind='sql'\nquery='select 1 from pg_class where false'\n";

/// How many statements of this application sleep in a database.
async fn sleeping(session: &mut PgConnection, database: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = $1 and wait_event = 'PgSleep'",
    )
    .bind(database)
    .fetch_one(session)
    .await
    .unwrap()
}

async fn wait_for(session: &mut PgConnection, database: &str, count: i64) {
    let begun = Instant::now();
    while sleeping(session, database).await != count {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no {count} that sleep"
        );
    }
}

/// A check whose gates sleep on the server by now, one on each connection.
async fn sleeping_check(project: &Project, connections: i64) -> (Database, PgConnection, Child) {
    let database = support::database().await;
    let maintenance = support::server().await.maintenance();
    let mut session = maintenance.options().connect().await.unwrap();
    let url = database.address().to_secret_url();
    let mut command = project.postern(&["check", "--url", &url]);
    command.args(["--connections", &connections.to_string()]);
    let child = spawn(&mut command);
    wait_for(&mut session, database.name(), connections).await;
    (database, session, child)
}

fn spawn(command: &mut Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

fn send(child: &Child, signal: Signal) {
    kill(Pid::from_raw(child.id().try_into().unwrap()), signal).unwrap();
}

#[rstest]
#[case::ctrl_c(Signal::SIGINT)]
#[case::term(Signal::SIGTERM)]
#[tokio::test]
async fn a_check_that_is_stopped_ends_its_queries_on_the_server(#[case] signal: Signal) {
    let also = GATES.replace("'sleeps'", "'sleeps_too'");
    let also = also
        .replace("'first'", "'first_too'")
        .replace("'last'", "'last_too'");
    let project = Project::new(&[("gates/g.toml", GATES), ("gates/h.toml", &also)]);
    let (database, mut session, child) = sleeping_check(&project, 2).await;
    send(&child, signal);
    let said = Said::of(&child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130), "{}", said.all());
    assert_eq!(said.stdout, "");
    assert_eq!(said.stderr, "error: interrupted; nothing was decided\n\n");
    wait_for(&mut session, database.name(), 0).await;
}

#[tokio::test]
async fn a_check_that_is_killed_does_not_leave_its_query_running() {
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let (database, mut session, mut child) = sleeping_check(&project, 1).await;
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(&mut session, database.name(), 0).await;
}

#[tokio::test]
async fn a_run_that_takes_too_long_reports_what_it_has() {
    let database = support::database().await;
    let project = Project::new(&[("gates/g.toml", GATES)]);
    let url = database.address().to_secret_url();
    let said = project.run(&[
        "check",
        "--url",
        &url,
        "--timeout",
        "10s",
        "--format",
        "json",
        "--connections",
        "1",
    ]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        ["first failed", "sleeps errored", "last errored"]
    );
    let report = said.json();
    assert_eq!(
        report["gates"][2]["message"],
        "not evaluated: the run took longer than 10s"
    );
    assert!(report["snapshot"]["id"].is_string());
    let maintenance = support::server().await.maintenance();
    let mut session = maintenance.options().connect().await.unwrap();
    wait_for(&mut session, database.name(), 0).await;
}

/// The folder of the server that a process has started, once it is there.
fn server_of(child: &Child) -> PathBuf {
    let owner = format!(" pid={} ", child.id());
    let begun = Instant::now();
    loop {
        let found = [Path::new("/dev/shm"), &std::env::temp_dir()]
            .into_iter()
            .filter_map(|base| std::fs::read_dir(base).ok())
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| path.join("data/postmaster.pid").exists())
            .find(|path| {
                std::fs::read_to_string(path.join("owner")).is_ok_and(|text| text.contains(&owner))
            });
        if let Some(folder) = found {
            return folder;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no server comes");
    }
}

#[rstest]
#[case::ctrl_c(Signal::SIGINT)]
#[case::term(Signal::SIGTERM)]
#[tokio::test]
async fn a_rehearsal_that_is_stopped_leaves_nothing_behind(#[case] signal: Signal) {
    let project = Project::new(&[
        (
            "s/scenario.toml",
            "[scenario]\ndescription='x'\ngates=['../g.toml']\n",
        ),
        ("s/legacy/010_sleep.sql", "select pg_sleep(3600);"),
        ("s/migrations/001_a.up.sql", "create table a ();"),
        ("s/migrations/001_a.down.sql", "drop table a;"),
        ("g.toml", GATES),
    ]);
    let mut command = project.postern(&["rehearse", "s", "--engine", "local"]);
    let child = spawn(&mut command);
    let folder = server_of(&child);
    let pid: i32 = std::fs::read_to_string(folder.join("data/postmaster.pid"))
        .unwrap()
        .lines()
        .next()
        .unwrap()
        .parse()
        .unwrap();
    let url = format!(
        "postgres://postgres@localhost/postgres?host={}",
        folder.display()
    );
    let address = Address::parse(&url).unwrap();
    let begun = Instant::now();
    let mut session = loop {
        match address.options().connect().await {
            Ok(session) => break session,
            Err(error) => assert!(begun.elapsed() < Duration::from_secs(60), "{error}"),
        }
    };
    let sleeps = "select count(*) from pg_stat_activity where wait_event = 'PgSleep'";
    while sqlx::query_scalar::<_, i64>(sleeps)
        .fetch_one(&mut session)
        .await
        .unwrap()
        == 0
    {
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "the legacy script does not run"
        );
    }
    send(&child, signal);
    let said = Said::of(&child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(130), "{}", said.all());
    assert_eq!(said.stderr, "error: interrupted; nothing was decided\n\n");
    assert!(!folder.exists(), "{}", folder.display());
    assert!(
        kill(Pid::from_raw(pid), None).is_err(),
        "Postgres still runs"
    );
    assert!(!project.path().join("reports").exists());
}

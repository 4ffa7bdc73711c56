//! What happens to a run while it runs.

use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use postern::pg::{Address, Database};
use sqlx::Connection;
use sqlx::postgres::PgConnection;

use crate::project::{Project, Said};
use crate::support;

use super::{ELEVEN, TEN, hand, shop};

const SLEEPS: &str =
    "[[gate]]\nid='sleeps'\nkind='sql'\nquery='select id, pg_sleep(3600) from s.games'\n";

/// Waits for the backend that sleeps on behalf of a gate in this database.
pub(super) async fn sleeper(session: &mut PgConnection, database: &str) -> i32 {
    let begun = Instant::now();
    loop {
        let found: Option<i32> = sqlx::query_scalar(
            "select pid from pg_stat_activity \
             where datname = $1 and application_name = 'postern' and wait_event = 'PgSleep'",
        )
        .bind(database)
        .fetch_optional(&mut *session)
        .await
        .unwrap();
        if let Some(pid) = found {
            return pid;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "no gate sleeps");
    }
}

/// Whether that session of a gate still sleeps.
pub(super) async fn sleeps(session: &mut PgConnection, pid: i32) -> bool {
    sqlx::query_scalar(
        "select exists (select from pg_stat_activity where pid = $1 and wait_event = 'PgSleep')",
    )
    .bind(pid)
    .fetch_one(session)
    .await
    .unwrap()
}

/// Starts a check whose output is kept.
pub(super) fn start(project: &Project, address: &Address, more: &[&str]) -> Child {
    let mut command = project.postern(&["check", "--url", &address.to_secret_url()]);
    command
        .args(more)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().unwrap()
}

async fn sessions() -> (Database, PgConnection) {
    let database = shop(support::server().await, "").await;
    let session = hand(support::server().await.maintenance()).await;
    (database, session)
}

#[tokio::test]
async fn a_backend_that_is_terminated_costs_one_gate() {
    let (database, mut session) = sessions().await;
    let project = Project::new(&[("gates/g.toml", &[ELEVEN, SLEEPS, TEN].concat())]);
    let child = start(&project, database.address(), &["--format", "json"]);
    let pid = sleeper(&mut session, database.name()).await;
    sqlx::query("select pg_terminate_backend($1)")
        .bind(pid)
        .execute(&mut session)
        .await
        .unwrap();
    let said = Said::of(&child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        ["eleven failed", "sleeps errored 57P01", "ten passed"]
    );
    let message = said.json()["gates"][1]["message"].to_string();
    assert!(message.contains("terminating connection"), "{message}");
}

#[tokio::test]
async fn without_retries_each_gate_that_was_not_asked_is_errored_by_its_own_name() {
    let (database, mut session) = sessions().await;
    let later = TEN.replace("'ten'", "'later'");
    let project = Project::new(&[("gates/g.toml", &[SLEEPS, ELEVEN, &later].concat())]);
    let more = ["--format", "json", "--retries", "0", "--connections", "1"];
    let child = start(&project, database.address(), &more);
    let pid = sleeper(&mut session, database.name()).await;
    sqlx::query("select pg_terminate_backend($1)")
        .bind(pid)
        .execute(&mut session)
        .await
        .unwrap();
    let said = Said::of(&child.wait_with_output().unwrap());
    assert_eq!(said.code, Some(3), "{}", said.all());
    let expected = ["sleeps", "eleven", "later"].map(|id| format!("{id} errored 57P01"));
    assert_eq!(said.told(), expected);
    let report = said.json();
    let message = report["gates"][1]["message"].as_str().unwrap();
    let told = "not evaluated: a connection was lost: terminating connection";
    assert!(message.starts_with(told), "{message}");
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_ended() {
    let (database, _) = sessions().await;
    let project = Project::new(&[("gates/g.toml", &[ELEVEN, SLEEPS, TEN].concat())]);
    let target = database.address().to_secret_url();
    let said = project.run(&[
        "check",
        "--url",
        &target,
        "--format",
        "json",
        "--statement-timeout",
        "2s",
    ]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        ["eleven failed", "sleeps errored 57014", "ten passed"]
    );
}

#[tokio::test]
async fn a_table_that_is_locked_is_not_waited_for_for_ever() {
    let (database, _) = sessions().await;
    let mut holder = hand(database.address()).await;
    let mut lock = holder.begin().await.unwrap();
    sqlx::query("lock table s.secret in access exclusive mode")
        .execute(&mut *lock)
        .await
        .unwrap();
    let gates = "\
        [[gate]]\nid='locked'\nkind='row_count'\ntable='s.secret'\nequals=0\n\
        [[gate]]\nid='own'\nkind='sql'\nquery='select id from s.secret'\n";
    let project = Project::new(&[("gates/g.toml", &[ELEVEN, gates, TEN].concat())]);
    let target = database.address().to_secret_url();
    let said = project.run(&[
        "check",
        "--url",
        &target,
        "--format",
        "json",
        "--lock-timeout",
        "100ms",
    ]);
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        [
            "eleven failed",
            "locked errored 55P03",
            "own errored 55P03",
            "ten passed"
        ]
    );
    lock.rollback().await.unwrap();
}

/// Answers every connection as a server that is starting up, so many times; then hands them on to the socket.
fn starting_up(socket: std::path::PathBuf, times: usize) -> u16 {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for (index, client) in listener.incoming().enumerate() {
            let mut client: TcpStream = client.unwrap();
            if index < times {
                let mut startup = [0; 8];
                client.read_exact(&mut startup).unwrap();
                let fields = b"SFATAL\0VFATAL\0C57P03\0Mthe database system is starting up\0\0";
                let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
                client
                    .write_all(&[b"E", &length[..], fields].concat())
                    .unwrap();
                client.shutdown(Shutdown::Write).unwrap();
                // Until the other side has gone: what it sent must not turn the end into a reset.
                let _ = std::io::copy(&mut client, &mut std::io::sink());
                continue;
            }
            let mut server = UnixStream::connect(&socket).unwrap();
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut from, &mut to);
                let _ = to.shutdown(Shutdown::Write);
            });
            std::thread::spawn(move || {
                let _ = std::io::copy(&mut server, &mut client);
                let _ = client.shutdown(Shutdown::Write);
            });
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_is_starting_up_is_waited_for() {
    let (database, _) = sessions().await;
    let options = database.address().options();
    let socket = options.get_socket().unwrap();
    let socket = socket.join(format!(".s.PGSQL.{}", options.get_port()));
    let port = starting_up(socket, 2);
    let project = Project::new(&[("gates/g.toml", TEN)]);
    let name = database.name();
    let url = format!("postgres://postgres@127.0.0.1:{port}/{name}?sslmode=disable");
    let said = project.run(&["check", "--url", &url, "--format", "json"]);
    assert_eq!(said.told(), ["ten passed"], "{}", said.all());
}

#[tokio::test]
async fn a_server_that_never_comes_up_is_given_up() {
    let port = starting_up("/nowhere".into(), usize::MAX);
    let address = Address::parse(&format!(
        "postgres://postgres@127.0.0.1:{port}/x?sslmode=disable"
    ));
    let limits = postern::pg::Limits {
        connect: Duration::from_millis(300),
        ..postern::pg::Limits::default()
    };
    let error = postern::pg::Session::open(&address.unwrap(), &limits, "").await;
    let told = error.unwrap_err().render(false);
    assert!(
        told.contains("the database system is starting up"),
        "{told}"
    );
    assert!(told.contains("it was waited for 0.3s"), "{told}");
}

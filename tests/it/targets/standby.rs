//! A hot standby: a base backup of a primary, replaying while it is checked.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use postern::pg::{Address, Server};
use sqlx::postgres::PgConnection;

use crate::project::{Project, Said};

use super::midrun::{sleeper, sleeps, start};
use super::{ELEVEN, TEN, guarded, hand, shop};

/// A standby of a server; gone when dropped, and when this process ends in whatever way.
struct Standby {
    folder: PathBuf,
    process: Child,
}

impl Standby {
    fn of(primary: &Server) -> Self {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let programs = std::fs::read_dir("/usr/lib/postgresql")
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path().join("bin"));
        let on_path = std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect::<Vec<_>>();
        let version = primary.describe().split(' ').nth(2).unwrap().to_owned();
        let major = version.split('.').next().unwrap().to_owned();
        let programs = programs
            .filter(|bin| bin.parent().unwrap().ends_with(&major))
            .chain(on_path)
            .find(|bin| bin.join("pg_basebackup").exists() && bin.join("postgres").exists())
            .expect("the primary runs from programs of this machine");
        let socket = primary.maintenance().options().get_socket().unwrap();
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("postern-standby-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        // The whole life of the standby is one shell: it ends with its standard input.
        let script = r#"
            umask 077
            mkdir "$2" || exit
            "$1/pg_basebackup" -h "$3" -U postgres -D "$2/data" -R -X stream -c fast --no-sync || exit
            "$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off -c hot_standby=on \
                -c autovacuum=off -c max_standby_streaming_delay=0 -c hot_standby_feedback=off >"$2/log" 2>&1 </dev/null &
            echo started
            read -r _
            kill -QUIT $!
            wait
            rm -rf "$2"
        "#;
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", script, "standby"])
            .args([&programs, &folder, socket])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .current_dir("/")
            .process_group(0);
        if let (true, Ok(Some(user))) = (
            nix::unistd::Uid::effective().is_root(),
            nix::unistd::User::from_name("postgres"),
        ) {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        let mut process = command.spawn().unwrap();
        let mut word = [0; 7];
        let output = process.stdout.as_mut().unwrap();
        output.read_exact(&mut word).expect("a base backup is made");
        Self { folder, process }
    }

    /// Its first session, once it answers.
    async fn session(&self, database: &str) -> (Address, PgConnection) {
        use sqlx::ConnectOptions;
        let url = format!(
            "postgres://postgres@localhost/{database}?host={}&sslmode=disable",
            self.folder.display()
        );
        let address = Address::parse(&url).unwrap();
        let begun = Instant::now();
        loop {
            match address.options().connect().await {
                Ok(session) => return (address, session),
                Err(error) => assert!(
                    begun.elapsed() < Duration::from_secs(60),
                    "{error}\n{}",
                    std::fs::read_to_string(self.folder.join("log")).unwrap_or_default()
                ),
            }
        }
    }
}

impl Drop for Standby {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
        assert!(!Path::new(&self.folder).exists() || std::thread::panicking());
    }
}

/// Waits until the standby has replayed everything that the primary has written.
async fn catch_up(primary: &mut PgConnection, standby: &mut PgConnection) {
    // Where a record ends, the standby gets to: where the next one would begin may lie behind the head of a page.
    let written: String = sqlx::query_scalar("select pg_logical_emit_message(true, '', '')::text")
        .fetch_one(primary)
        .await
        .unwrap();
    let begun = Instant::now();
    loop {
        let is_there: bool = sqlx::query_scalar("select pg_last_wal_replay_lsn() >= $1::pg_lsn")
            .bind(&written)
            .fetch_one(&mut *standby)
            .await
            .unwrap();
        if is_there {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "it stays behind");
    }
}

#[tokio::test]
async fn a_hot_standby_is_checked_as_it_replays_and_the_report_says_so() {
    let server = guarded().await;
    let database = shop(server, "").await;
    let mut primary = hand(database.address()).await;
    let standby = Standby::of(server);
    let (address, mut session) = standby.session(database.name()).await;
    // What comes after the backup comes by replication.
    sqlx::raw_sql("insert into s.games values (11), (null)")
        .execute(&mut primary)
        .await
        .unwrap();
    catch_up(&mut primary, &mut session).await;
    let gates = "\
        [[gate]]\nid='twelve'\nkind='row_count'\ntable='s.games'\nequals=12\n\
        [[gate]]\nid='complete'\nkind='completeness'\ntable='s.games'\ncolumns=['id']\n\
        [[gate]]\nid='own'\nkind='sql'\nquery='select id from s.games where id > 99'\n\
        [[gate]]\nid='as_the_primary'\nkind='row_count_parity'\ntable='s.games'\nagainst='s.games'\n\
        against_target='primary'\n\
        [[gate]]\nid='gone'\nkind='row_count'\ntable='s.gone'\nequals=1\n";
    let project = Project::new(&[("gates/g.toml", &[gates, TEN, ELEVEN].concat())]);
    let run = |format: &str| {
        project.run(&[
            "check",
            "--url",
            &address.to_secret_url(),
            "--other",
            &format!("primary={}", database.address().to_secret_url()),
            "--format",
            format,
        ])
    };
    let said = run("json");
    assert_eq!(said.code, Some(3), "{}", said.all());
    assert_eq!(
        said.told(),
        [
            "twelve passed",
            "complete failed",
            "own passed",
            "as_the_primary passed",
            "gone errored 42P01",
            "ten failed",
            "eleven failed"
        ]
    );
    assert_eq!(said.json()["snapshot"]["in_recovery"], true);
    let terminal = run("terminal").stdout;
    let last = terminal.lines().last().unwrap();
    assert!(last.ends_with("; read from a hot standby"), "{last}");
    assert!(
        run("junit")
            .stdout
            .contains(r#"name="hot_standby" value="true""#)
    );
    drop(standby);
}

/// Sleeps as long as the tenth game is there.
const SLEEPS: &str = "[[gate]]\nid='sleeps'\nkind='sql'\n\
    query='select id, pg_sleep(3600) from s.games where id = 10'\n";
const NINE: &str = "[[gate]]\nid='nine'\nkind='row_count'\ntable='s.games'\nequals=9\n";

/// A check of a standby, from which the primary takes the snapshot while a gate sleeps on it.
async fn in_conflict(more: &[&str]) -> Said {
    let server = guarded().await;
    let database = shop(server, "").await;
    let mut primary = hand(database.address()).await;
    let standby = Standby::of(server);
    let (address, mut session) = standby.session(database.name()).await;
    catch_up(&mut primary, &mut session).await;
    let project = Project::new(&[("gates/g.toml", &[NINE, SLEEPS].concat())]);
    let child = start(&project, &address, &[&["--format", "json"], more].concat());
    let asleep = sleeper(&mut session, database.name()).await;
    sqlx::raw_sql("delete from s.games where id = 10")
        .execute(&mut primary)
        .await
        .unwrap();
    catch_up(&mut primary, &mut session).await;
    // What the snapshot still sees is removed, and a standby without patience lets no query hold that up. A vacuum
    // leaves a page alone that a checkpoint has in hand: the next one finds it free.
    let begun = Instant::now();
    while sleeps(&mut session, asleep).await {
        assert!(begun.elapsed() < Duration::from_secs(60), "no conflict");
        for text in ["vacuum s.games", "select pg_switch_wal()"] {
            sqlx::raw_sql(text).execute(&mut primary).await.unwrap();
        }
        catch_up(&mut primary, &mut session).await;
    }
    let said = Said::of(&child.wait_with_output().unwrap());
    drop(standby);
    said
}

#[tokio::test]
async fn a_snapshot_that_the_standby_takes_back_costs_no_gate() {
    let said = in_conflict(&[]).await;
    assert_eq!(
        said.told(),
        ["nine passed", "sleeps passed"],
        "{}",
        said.all()
    );
    assert_eq!(said.code, Some(0));
    let notes = said.json()["notes"].to_string();
    for told in [notes.as_str(), said.stderr.as_str()] {
        assert!(told.contains("evaluated anew, on a new snapshot"), "{told}");
        assert!(told.contains("conflict with recovery"), "{told}");
    }
}

#[tokio::test]
async fn without_patience_a_conflict_is_an_error() {
    let said = in_conflict(&["--retries", "0", "--connections", "1"]).await;
    assert_eq!(said.code, Some(3), "{}", said.all());
    let told = said.told();
    assert_eq!(told[1], "sleeps errored 40001", "{}", said.all());
    assert!(said.json()["notes"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn parity_with_a_standby_waits_for_what_it_has_not_replayed() {
    let server = guarded().await;
    let database = shop(server, "create table s.t as table s.games").await;
    let mut primary = hand(database.address()).await;
    let standby = Standby::of(server);
    let (address, mut session) = standby.session(database.name()).await;
    catch_up(&mut primary, &mut session).await;
    let set = async |session: &mut PgConnection, text: &'static str| {
        sqlx::raw_sql(text).execute(session).await.unwrap();
    };
    set(&mut session, "select pg_wal_replay_pause()").await;
    set(&mut primary, "insert into s.t values (11), (12)").await;
    // The log of the primary ends at the head of a page, behind which nothing comes by itself.
    set(&mut primary, "select pg_switch_wal()").await;
    let gates = |recheck: &str| {
        let gate = |kind: &str, more: &str| {
            format!(
                "[[gate]]\nid='{kind}'\nkind='{kind}'\ntable='s.t'\nagainst='s.t'\n\
                 against_target='standby'\nrecheck={recheck}\n{more}"
            )
        };
        gate("row_count_parity", "") + &gate("content_parity", "key=['id']\n")
    };
    let patient = Project::new(&[("gates/g.toml", &gates("{times=1, wait='1200s'}"))]);
    let hasty = Project::new(&[("gates/g.toml", &gates("{times=1, wait='1ms'}"))]);
    let url = database.address().to_secret_url();
    let other = format!("standby={}", address.to_secret_url());
    let check = move |project: &Project| {
        let arguments = [
            "check", "--url", &url, "--other", &other, "--format", "json",
        ];
        project.run(&arguments)
    };
    let said = check(&hasty);
    let failed = ["row_count_parity failed", "content_parity failed"];
    assert_eq!(said.told(), failed, "{}", said.all());
    // It is resumed once the check waits for it, and the check ends before its time: 1200 s would
    // outlast every patience.
    let begun = Instant::now();
    let resume = async {
        let waits = "select count(*) from pg_stat_activity \
            where application_name = 'postern' and query like '%pg_last_wal_replay_lsn%'";
        loop {
            let waiting: i64 = sqlx::query_scalar(waits)
                .fetch_one(&mut session)
                .await
                .unwrap();
            if waiting > 0 {
                break;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "nobody waits");
            tokio::task::yield_now().await;
        }
        set(&mut session, "select pg_wal_replay_resume()").await;
    };
    let run = tokio::task::spawn_blocking(move || check(&patient));
    let (said, ()) = tokio::join!(run, resume);
    let said = said.unwrap();
    let passed = ["row_count_parity passed", "content_parity passed"];
    assert_eq!(said.told(), passed, "{}", said.all());
    let message = said.json()["gates"][1]["message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(message, "12 rows equal on both sides; re-checked once");
    drop(standby);
}

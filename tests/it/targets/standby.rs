//! A hot standby: a base backup of a primary, replaying while it is checked.

use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use postern::pg::{Address, Server};
use sqlx::postgres::PgConnection;

use crate::project::Project;

use super::{ELEVEN, TEN, guarded, hand, shop};

/// A standby of a server; gone when dropped, and when this process ends in whatever way.
struct Standby {
    folder: PathBuf,
    process: Child,
}

impl Standby {
    fn of(primary: &Server) -> Self {
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
        let folder = std::env::temp_dir().join(format!("postern-standby-{}", std::process::id()));
        // The whole life of the standby is one shell: it ends with its standard input.
        let script = r#"
            umask 077
            mkdir "$2" || exit
            "$1/pg_basebackup" -h "$3" -U postgres -D "$2/data" -R -X stream -c fast --no-sync || exit
            "$1/postgres" -D "$2/data" -k "$2" -c listen_addresses= -c fsync=off -c hot_standby=on \
                -c autovacuum=off >"$2/log" 2>&1 </dev/null &
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
    let written: String = sqlx::query_scalar("select pg_current_wal_insert_lsn()::text")
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
